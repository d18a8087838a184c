//! The body as an installed mlx-lm computes it, in a child that runs Python.
//!
//! mlx-lm has new families first. Since a body never changes under an edit of the head, it does not matter who computes it: so
//! every model that the user's mlx-lm loads can be the subject, on the user's GPU. This program reads the head's tensors from
//! the same files, edits, multiplies, judges and certifies; nothing but hidden states comes from the child.
//!
//! The child runs `body.py`, a file that stands beside this one and whose head describes the protocol. It needs nothing but
//! mlx-lm. It ends when this process does, however that ends, since its standard input closes then.
//!
//! # Which bits
//!
//! MLX chooses kernels by shapes, so that a prompt in one go and the same prompt token by token differ in their last bits, and
//! with a dynamic rotary embedding in more than those. Here the order is one: a prompt goes through the model in one stretch
//! (in pieces of 2,048 positions), everything after it token by token (`positions`). So a hidden state depends on its tokens
//! and on where the prompt ends, whatever else a run holds. Hidden states come in float32, whatever type they are computed in
//! ([`Precision`]); the product with the head is this program's, as on the CPU.
//!
//! # What follows the head
//!
//! It is asked for, and not read from a configuration: the child makes the model go on with numbers that it is given in place of
//! the head's product, and `after.rs` recognizes a scale and a softcap. A bias of the head's rows lies in the files. Then the
//! logits of a probe prompt must be those of mlx-lm, or the model is refused.
//!
//! # Memory
//!
//! The child keeps the caches of the branches of a run, up to a gigabyte, and computes again what it has dropped, in the same
//! order and so with the same bits.

mod after;
mod error;
mod positions;
mod server;

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use self::{
    positions::Positions,
    server::{Facts, Server},
};
use super::{
    AnyBody, Backend, Body, BodyError, CpuProjection, Extension, Precision, Projection, Query, Slot, Step,
    projection::bend,
};
use crate::{
    checkpoint::{Checkpoint, HeadPlace, architecture::AfterHead, demo},
    kernels::{Kernel, Rounding},
    quant::MatrixRef,
    team::Team,
};

pub use error::MlxLmError;

/// Seconds without a sign of life after which the child is given up. It gives one each second while it computes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// A prompt by which the head's product is held against mlx-lm's logits: tokens that every vocabulary has.
const PROBE: [u32; 8] = [3, 5, 8, 13, 21, 34, 55, 89];

/// How mlx-lm is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The Python that has it.
    pub python: OsString,
    /// The type in which it computes.
    pub precision: Precision,
    /// Whether code in the model's folder may be run.
    pub trust_remote_code: bool,
    /// How long the child may give no sign of life.
    pub patience: Duration,
}

impl Default for Options {
    /// The Python that `HEADROOM_PYTHON` names, else `python3`; the checkpoint's types; no code of the model's folder;
    /// a minute, or as many seconds as `HEADROOM_PATIENCE` says.
    fn default() -> Self {
        let seconds = std::env::var("HEADROOM_PATIENCE").ok().and_then(|text| text.parse().ok());
        Self {
            python: std::env::var_os("HEADROOM_PYTHON").unwrap_or_else(|| "python3".into()),
            precision: Precision::default(),
            trust_remote_code: false,
            patience: seconds.map_or(PATIENCE, Duration::from_secs),
        }
    }
}

/// A running Python that has an mlx-lm which serves, and has loaded nothing yet.
#[derive(Debug)]
pub struct Python {
    server: Server,
    options: Options,
}

impl Python {
    /// Starts the Python of `options`.
    ///
    /// # Errors
    /// [`MlxLmError`]: there is no such program, it has no mlx-lm, or one that is too old.
    pub fn start(options: Options) -> Result<Self, MlxLmError> {
        Ok(Self { server: Server::start(&options.python, options.patience)?, options })
    }

    /// Loads the model of `folder` there, and its head here; the model inside the program where there is no folder.
    ///
    /// # Errors
    /// [`MlxLmError`].
    pub fn open(
        mut self,
        folder: Option<&Path>,
        kernel: Kernel,
        team: Arc<Team>,
    ) -> Result<(Arc<Checkpoint>, MlxLm), MlxLmError> {
        let facts;
        let checkpoint = match folder {
            Some(folder) => {
                facts = self.load(folder)?;
                Checkpoint::open_head(folder, &place(&facts)?)?
            }
            None => {
                // mlx-lm reads folders. Once it has read this one, nobody needs it.
                let folder = DemoFolder::new()?;
                facts = self.load(&folder.0)?;
                Checkpoint::head_from_files(demo::files(), &place(&facts)?)?
            }
        };
        let checkpoint = Arc::new(checkpoint);
        let (mlx_lm, mlx) = &self.server.versions;
        let name = format!("mlx-lm-{mlx_lm}-mlx-{mlx}-{}-{}", facts.dtype, facts.device);
        let shared = Shared { server: self.server, released: Vec::new() };
        let mut model = MlxLm {
            shared: Arc::new(Mutex::new(shared)),
            chunks: Arc::default(),
            checkpoint: Arc::clone(&checkpoint),
            kernel,
            team,
            name,
            is_float32: facts.dtype == "float32",
            digest: facts.digest.clone(),
            after_head: checkpoint.after_head(),
        };
        model.find_after_head(&facts)?;
        Ok((checkpoint, model))
    }
}

impl Python {
    fn load(&mut self, folder: &Path) -> Result<Facts, MlxLmError> {
        self.server.open(folder, self.options.precision, self.options.trust_remote_code)
    }
}

/// A folder that holds the model inside the program, until this is dropped.
struct DemoFolder(PathBuf);

impl DemoFolder {
    fn new() -> Result<Self, MlxLmError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("headroom-demo-{}-{number}", std::process::id()));
        let failed = |error: io::Error| MlxLmError::Demo { folder: path.clone(), error };
        fs::create_dir(&path).map_err(failed)?;
        let folder = Self(path.clone());
        for (name, bytes) in demo::files() {
            fs::write(path.join(name), &*bytes).map_err(failed)?;
        }
        Ok(folder)
    }
}

impl Drop for DemoFolder {
    fn drop(&mut self) {
        // What cannot be removed is left to whoever cleans the system's folder.
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Where the head lies in the files, by what the child says of it.
fn place(facts: &Facts) -> Result<HeadPlace, MlxLmError> {
    let (module, kind) = (facts.module.clone(), facts.kind.clone());
    let unsupported = |what| MlxLmError::Unsupported { module: module.clone(), kind: kind.clone(), what };
    if !facts.quantized {
        return Err(MlxLmError::NotQuantized { module, kind });
    }
    if facts.global_scale {
        return Err(unsupported("it has a scale of its own beside those of its groups"));
    }
    let (Some(mode), Some(bits), Some(group_size)) = (&facts.mode, facts.bits, facts.group_size) else {
        return Err(unsupported("it names no mode, bits and group_size"));
    };
    let format = if mode == "affine" { format!("affine-{bits}-g{group_size}") } else { mode.clone() };
    let Facts { tied, rows, cols, bias, layers, .. } = *facts;
    Ok(HeadPlace { module, tied, rows, cols, format, bias, layers })
}

/// The child, and the chunks that it may forget.
#[derive(Debug)]
struct Shared {
    server: Server,
    released: Vec<u64>,
}

/// A model whose body mlx-lm computes. Clones are handles of the same child, which ends with the last of them.
#[derive(Clone, Debug)]
pub struct MlxLm {
    shared: Arc<Mutex<Shared>>,
    /// Numbers of chunks that were given.
    chunks: Arc<AtomicU64>,
    checkpoint: Arc<Checkpoint>,
    kernel: Kernel,
    team: Arc<Team>,
    /// Versions, type and device.
    name: String,
    is_float32: bool,
    /// Digest of the head as the child holds it, where it is also the embedding.
    digest: Option<String>,
    after_head: AfterHead,
}

impl MlxLm {
    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds what follows the head, and sees that the head which was read, followed by that, gives the logits of mlx-lm.
    fn find_after_head(&mut self, facts: &Facts) -> Result<(), MlxLmError> {
        let module = || facts.module.clone();
        let products = after::products(facts.rows);
        let made = self.shared().server.after(&products)?;
        let curve = after::curve(&products, &made).map_err(|(difference, at)| MlxLmError::After {
            module: module(),
            difference,
            at,
        })?;
        self.after_head.curve = curve;
        let tokens = PROBE.map(|token| token % facts.rows as u32);
        let (hidden, theirs) = self.shared().server.logits(&tokens, facts.cols, facts.rows)?;
        let mut ours = vec![0.0; facts.rows];
        self.projection(self.checkpoint.head().view())
            .logits(vec![Query { shift: 0, hidden: vec![&hidden], out: &mut ours }])
            .expect("the CPU's projection does not fail");
        bend(self.kernel, curve, &mut ours);
        let largest = theirs.iter().fold(0.0_f32, |most, logit| most.max(logit.abs()));
        let difference = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, nan_max);
        // Sums of 24 significant bits; in those of 8 each addition may lose half a percent. Another matrix would differ by all of it, and
        // what follows the head is known to be right.
        let relative = if self.is_float32 { 1e-4 } else { 1e-1 };
        if difference <= relative * largest.max(1.0) {
            return Ok(());
        }
        let after = self.after_head.told().unwrap_or_else(|| "nothing".to_owned());
        Err(MlxLmError::Logits { module: module(), after, difference, largest })
    }
}

/// The greater of two, or NaN where one is.
fn nan_max(a: f32, b: f32) -> f32 {
    if a.is_nan() || b.is_nan() { f32::NAN } else { a.max(b) }
}

impl Backend for MlxLm {
    fn name(&self) -> &'static str {
        "mlx-lm"
    }

    fn kernel(&self) -> &str {
        &self.name
    }

    fn decides(&self) -> Option<&str> {
        // Another version, another type and another device give other bits.
        Some(&self.name)
    }

    fn rounding(&self) -> Option<Rounding> {
        // The head is multiplied by the kernels of the CPU.
        Some(Rounding::KERNELS)
    }

    fn is_float32(&self) -> bool {
        self.is_float32
    }

    fn after_head(&self) -> &AfterHead {
        &self.after_head
    }

    fn body(&self) -> AnyBody {
        Box::new(MlxLmBody { model: self.clone(), positions: Positions::default() })
    }

    fn projection<'a>(&'a self, head: MatrixRef<'a>) -> Box<dyn Projection + 'a> {
        Box::new(CpuProjection::new(head, self.kernel, &self.team).with(&self.after_head))
    }
}

/// A body: positions here, their chunks in the child.
#[derive(Debug)]
struct MlxLmBody {
    model: MlxLm,
    positions: Positions,
}

impl Body for MlxLmBody {
    fn hidden_size(&self) -> usize {
        self.model.checkpoint.facts().hidden_size
    }

    fn bytes_per_position(&self) -> usize {
        // Keys and values are kept in the child, which limits them itself.
        64
    }

    fn extend(&mut self, steps: &[Step<'_>]) -> Result<Extension, BodyError> {
        let vocab_size = self.model.checkpoint.facts().vocab_size;
        if let Some(step) = steps.iter().find(|step| step.token as usize >= vocab_size) {
            return Err(BodyError::Token { token: step.token, vocab_size });
        }
        let numbers = &self.model.chunks;
        let (mut extension, chunks) = self.positions.add(steps, || numbers.fetch_add(1, Ordering::Relaxed));
        if chunks.is_empty() {
            return Ok(extension);
        }
        let cols = self.hidden_size();
        let mut shared = self.model.shared();
        let released = std::mem::take(&mut shared.released);
        match shared.server.extend(&released, &chunks, cols, self.model.digest.as_deref()) {
            Ok(hidden) => {
                extension.hidden = hidden;
                Ok(extension)
            }
            Err(error) => {
                shared.released.extend(extension.slots.iter().filter_map(|&slot| self.positions.release(slot)));
                Err(error.into())
            }
        }
    }

    fn cuts_freely(&self) -> bool {
        // A prompt is a chunk from its first token to its last, whichever calls they came in.
        true
    }

    fn release(&mut self, slot: Slot) {
        if let Some(chunk) = self.positions.release(slot) {
            self.model.shared().released.push(chunk);
        }
    }

    fn layers(&mut self, tokens: &[u32]) -> Result<Option<Vec<Vec<f32>>>, BodyError> {
        let cols = self.hidden_size();
        let states = self.model.shared().server.layers(tokens, cols)?;
        Ok(states.map(|states| states.chunks_exact(cols).map(<[f32]>::to_vec).collect()))
    }
}

impl Drop for MlxLmBody {
    fn drop(&mut self) {
        self.model.shared().released.extend(self.positions.chunks());
    }
}
