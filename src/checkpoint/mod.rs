//! Checkpoints: what `mlx_lm.convert -q` writes, opened in place and checked in full.
//!
//! [`Checkpoint::open`] reads `config.json` and the headers of the safetensors files, checks that
//! they state one model that headroom runs, and maps the data without reading them: an 8B model
//! opens in milliseconds. Everything that a later stage relies on is checked here, once; whatever is
//! wrong is an error that names the file, the tensor or the key. No input makes it panic, or take
//! more memory than a small multiple of the files it read.
//!
//! Flow: `bytes` own data, `folder` finds and maps files, `json` reads the small ones strictly, `keys` gives their values,
//! [`config`] has `reader` make an `architecture` of them by the rules of a [`family`], and `quantization` the format of each module;
//! `header` and `tensors` find every tensor, `assemble` takes those that the architecture needs, by the family's names, and
//! refuses the rest, which gives `weights`; `digest` names the result.
//!
//! Two kinds of tensors are accepted by name and left out, as in mlx-lm: those that the family's entry says are computed, and
//! the head's `weight` where the head is tied.

pub(crate) mod architecture;
mod assemble;
pub(crate) mod bytes;
pub mod config;
mod config_error;
pub mod demo;
pub(crate) mod digest;
pub mod family;
mod folder;
mod head_alone;
mod header;
pub mod hub;
mod index;
mod json;
mod keys;
mod mistaken;
mod quantization;
mod reader;
pub(crate) mod tensors;
#[cfg(test)]
mod tests;
pub(crate) mod weights;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

pub(crate) use self::{
    architecture::Architecture,
    head_alone::HeadPlace,
    weights::{
        AttentionWeights, ConvolutionWeights, DeltaNetWeights, DeltaProjectionWeights, ExpertLinear, ExpertsWeights,
        FeedForwardWeights, Inner, LayerWeights, Linear, MixerWeights, MlpWeights, ModelWeights, NormWeights, Qkv,
        ShortConvolutionWeights, Vector,
    },
};
pub use self::{
    architecture::{AfterHead, Curve},
    assemble::WeightsError,
    bytes::{Bytes, FileRange},
    config::Config,
    config_error::ConfigError,
    family::Family,
    head_alone::HeadError,
    header::HeaderError,
    index::IndexError,
    json::JsonError,
    mistaken::Mistaken,
    tensors::TensorError,
    weights::Quantized,
};

use self::{
    folder::{Place, StoredFile},
    index::INDEX,
    tensors::StoredTensor,
};

const CONFIG: &str = "config.json";
const GENERATION_CONFIG: &str = "generation_config.json";
/// Files of the model that may be absent, apart from its safetensors files.
const OPTIONAL: [&str; 8] = [
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    GENERATION_CONFIG,
    INDEX,
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
];
/// The folder of named chat templates, each with the extension `.jinja`.
pub(crate) const CHAT_TEMPLATES: &str = "additional_chat_templates/";

/// Files that are read whole, with the bytes that each may have. The longest in use are far shorter: a template has some
/// ten thousand bytes, a `tokenizer_config.json` at most two million, and the `tokenizer.json` of Gemma 33 million.
const LIMITS: [(&str, usize); 9] = [
    (CONFIG, json::LIMIT),
    (GENERATION_CONFIG, json::LIMIT),
    (INDEX, 64 << 20),
    ("added_tokens.json", 16 << 20),
    ("chat_template.jinja", 4 << 20),
    ("chat_template.json", 4 << 20),
    ("special_tokens_map.json", 16 << 20),
    ("tokenizer_config.json", 16 << 20),
    ("tokenizer.json", LONGEST_TOKENIZER),
];
/// Bytes of the longest `tokenizer.json`.
pub(crate) const LONGEST_TOKENIZER: usize = 64 << 20;

/// Whether a file of this name in a checkpoint's folder is, or would be, a part of the checkpoint.
pub(crate) fn is_part(name: &str) -> bool {
    name == CONFIG
        || OPTIONAL.contains(&name)
        || name.ends_with(".safetensors")
        || name.strip_prefix(CHAT_TEMPLATES).is_some_and(|rest| !rest.contains('/') && rest.ends_with(".jinja"))
}

/// Why a checkpoint did not open. What is wrong with its contents is told by file, key and tensor; the
/// folder is known to whoever opened it.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Nothing has this name.
    #[error("there is no folder {}; give the folder of a checkpoint, a hub id such as org/name, or `demo`", .path.display())]
    NoSuchFolder {
        /// The path given.
        path: PathBuf,
    },
    /// Something else has this name.
    #[error("{} is not a folder; give the folder that holds config.json and model.safetensors", .path.display())]
    NotAFolder {
        /// The path given.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot read {}: {error}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// A file is longer than any of its kind. Nothing beyond the limit is read.
    #[error("{file} has more than the {limit} bytes that such a file may have; fetch the checkpoint again")]
    TooLong {
        /// The file.
        file: &'static str,
        /// Bytes allowed.
        limit: usize,
    },
    /// A folder without `config.json` is no checkpoint.
    #[error("{folder} holds no config.json, so it is not a checkpoint; give the folder that `mlx_lm.convert -q` wrote")]
    NoConfig {
        /// Where it was looked for.
        folder: Source,
    },
    /// A configuration without weights.
    #[error(
        "{folder} holds no model*.safetensors; fetch the checkpoint again, or write one with `mlx_lm.convert -q` \
         (GGUF and PyTorch files are not read)"
    )]
    NoWeights {
        /// Where they were looked for.
        folder: Source,
    },
    /// `config.json` or `generation_config.json` breaks a rule.
    #[error("{file}: {error}")]
    Config {
        /// The file.
        file: &'static str,
        /// The rule.
        error: ConfigError,
    },
    /// Something else has the name of a file of the checkpoint.
    #[error("{file} {what}")]
    Mistaken {
        /// The file.
        file: String,
        /// What it is.
        what: Mistaken,
    },
    /// The safetensors files break a rule.
    #[error(transparent)]
    Tensors(#[from] TensorError),
    /// The tensors are not those of the model that the configuration states.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The same, and the index names a file that is not there, which may be why.
    #[error("{error}; {index}: fetch the checkpoint again if that file belongs to it")]
    Incomplete {
        /// What the model lacks.
        error: Box<WeightsError>,
        /// What the index says.
        index: IndexError,
    },
    /// The head is not where it was said to be.
    #[error(transparent)]
    Head(#[from] HeadError),
}

/// Where a checkpoint came from, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A folder.
    Folder(PathBuf),
    /// Files in memory.
    Memory,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => path.display().fmt(f),
            Self::Memory => f.write_str("the checkpoint in memory"),
        }
    }
}

/// A tensor that a checkpoint holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name: `lm_head.weight`.
    pub name: String,
    /// Its element type as MLX writes it: `uint32`, `float16`, `bfloat16`, `float32`; for a tensor
    /// that the model does not use possibly another, as the safetensors format writes it.
    pub dtype: String,
    /// Its shape.
    pub shape: Vec<u64>,
    /// The file that holds it.
    pub file: Arc<str>,
}

/// What a checkpoint says about itself, whoever computes its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// `model_type` in `config.json`.
    pub model_type: String,
    /// Layers of the body.
    pub layers: usize,
    /// Columns of a hidden state.
    pub hidden_size: usize,
    /// Rows of the head.
    pub vocab_size: usize,
    /// Whether the head is also the embedding.
    pub tied: bool,
    /// Name of the matrix that is the head, such as `lm_head`; that of the embedding where it is tied.
    pub head: String,
    /// Tokens that end an answer; see [`Config::eos_token_ids`].
    pub eos_token_ids: Vec<u32>,
}

/// An opened and checked checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    source: Source,
    facts: Facts,
    head: Quantized,
    /// `[vocab_size]`.
    head_bias: Option<Vec<f32>>,
    /// What it takes to compute the body; `None` where the checkpoint was opened for its head alone.
    body: Option<(Config, ModelWeights)>,
    tensors: Vec<TensorInfo>,
    /// Every file that the model consists of, by name.
    files: BTreeMap<String, StoredFile>,
    notes: Vec<String>,
    digest: OnceLock<blake3::Hash>,
}

impl Checkpoint {
    /// Opens the checkpoint in `folder`. Its weights are mapped, not read; while it is open, none of
    /// its safetensors files may be cut short or rewritten in place: a read beyond the new end kills
    /// the process.
    ///
    /// The model consists of every `model*.safetensors`, as in mlx-lm. What an index (`model.safetensors.index.json`) says
    /// otherwise is among the [`notes`](Self::notes).
    ///
    /// # Errors
    /// Any [`CheckpointError`].
    pub fn open(folder: &Path) -> Result<Self, CheckpointError> {
        Self::load(&Place::folder(folder)?, Source::Folder(folder.to_owned()))
    }

    /// A checkpoint of files in memory, by name. Names that no checkpoint has are ignored.
    ///
    /// # Errors
    /// Any [`CheckpointError`] but those of the file system.
    pub fn from_files(files: BTreeMap<String, Bytes>) -> Result<Self, CheckpointError> {
        Self::load(&Place::Memory(files), Source::Memory)
    }

    /// Opens the checkpoint in `folder` for its head alone, of which whoever computes the body says where it lies. Of
    /// `config.json` only `model_type` and `eos_token_id` are read, and no tensor but the head's need be known here.
    ///
    /// # Errors
    /// Any [`CheckpointError`] but [`CheckpointError::Weights`].
    pub(crate) fn open_head(folder: &Path, head: &HeadPlace) -> Result<Self, CheckpointError> {
        Self::load_head(&Place::folder(folder)?, Source::Folder(folder.to_owned()), head)
    }

    /// As [`Checkpoint::open_head`], of files in memory.
    ///
    /// # Errors
    /// As [`Checkpoint::open_head`], but for those of the file system.
    pub(crate) fn head_from_files(files: BTreeMap<String, Bytes>, head: &HeadPlace) -> Result<Self, CheckpointError> {
        Self::load_head(&Place::Memory(files), Source::Memory, head)
    }

    fn load(place: &Place, source: Source) -> Result<Self, CheckpointError> {
        let mut files = BTreeMap::new();
        let config_json = small_files(place, &source, &mut files)?;
        let mut config = Config::parse(&config_json).map_err(broken(CONFIG))?;
        if let Some(file) = files.get(GENERATION_CONFIG) {
            config.apply_generation_config(&file.bytes).map_err(broken(GENERATION_CONFIG))?;
        }
        let (stored, index) = stored_tensors(place, &source, &mut files)?;
        config.settle_head(|tensor| stored.contains_key(tensor));
        let tensors = stored.iter().map(|(name, tensor)| tensor.info(name)).collect();
        let weights = match (assemble::assemble(&config, stored), &index) {
            // A matrix without its scales is taken for one that is not quantized, so a missing file has many faces.
            (Err(error), Some(index @ IndexError::NoFile { .. })) => {
                return Err(CheckpointError::Incomplete { error: Box::new(error), index: index.clone() });
            }
            (assembled, _) => assembled?,
        };
        let architecture = &config.architecture;
        let notes = notes(index, &config.unused_eos, architecture.vocab_size);
        let facts = Facts {
            model_type: config.family.model_type.to_owned(),
            layers: architecture.layers.len(),
            hidden_size: architecture.hidden_size,
            vocab_size: architecture.vocab_size,
            tied: architecture.tied,
            head: config.family.tensors.head(architecture.tied).to_owned(),
            eos_token_ids: config.eos_token_ids.clone(),
        };
        let head_bias = weights.head_bias.as_ref().map(|bias| bias.values.clone());
        let (head, body) = (weights.head().clone(), Some((config, weights)));
        Ok(Self { source, facts, head, head_bias, body, tensors, files, notes, digest: OnceLock::new() })
    }

    fn load_head(place: &Place, source: Source, wanted: &HeadPlace) -> Result<Self, CheckpointError> {
        let mut files = BTreeMap::new();
        let config_json = small_files(place, &source, &mut files)?;
        let (stored, index) = stored_tensors(place, &source, &mut files)?;
        let tensors = stored.iter().map(|(name, tensor)| tensor.info(name)).collect();
        let (name, head, head_bias) = head_alone::take(stored, wanted)?;
        let (rows, cols) = (head.layout().rows(), head.layout().cols());
        let (model_type, mut eos) = head_alone::read_config(&config_json, rows).map_err(broken(CONFIG))?;
        if let Some(file) = files.get(GENERATION_CONFIG) {
            let own = config::generation_eos(&file.bytes, rows).map_err(broken(GENERATION_CONFIG))?;
            eos = own.unwrap_or(eos);
        }
        let notes = notes(index, &eos.1, rows);
        let facts = Facts {
            model_type,
            layers: wanted.layers,
            hidden_size: cols,
            vocab_size: rows,
            tied: wanted.tied,
            head: name,
            eos_token_ids: eos.0,
        };
        Ok(Self { source, facts, head, head_bias, body: None, tensors, files, notes, digest: OnceLock::new() })
    }

    /// What is not as it should be and hinders nothing, for people: an index that says otherwise than the files, an eos
    /// token that the model does not have.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// What the checkpoint says about itself, whoever computes its body.
    pub const fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The matrix that edits change.
    pub const fn head(&self) -> &Quantized {
        &self.head
    }

    /// Whether everything was read that it takes to compute the body here.
    pub const fn has_body(&self) -> bool {
        self.body.is_some()
    }

    /// All that the checkpoint says about itself.
    ///
    /// # Panics
    /// If it was opened for its head alone.
    pub fn config(&self) -> &Config {
        &self.body().0
    }

    /// The weights, each with the shape that the configuration gives it.
    ///
    /// # Panics
    /// If the checkpoint was opened for its head alone.
    pub(crate) fn weights(&self) -> &ModelWeights {
        &self.body().1
    }

    fn body(&self) -> &(Config, ModelWeights) {
        self.body.as_ref().expect("a checkpoint that was opened for its head alone is given to no native body")
    }

    /// Where the checkpoint came from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Every tensor that the files hold, by name, those included that the model does not use.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The contents of a file of the model: `config.json`, `generation_config.json`,
    /// `tokenizer.json`, `tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json`, `chat_template.jinja`,
    /// `chat_template.json`, a template in `additional_chat_templates/`, the
    /// index, a safetensors file. `None` where the checkpoint does not have it.
    pub fn file(&self, name: &str) -> Option<Bytes> {
        self.files.get(name).map(|file| file.bytes.clone())
    }

    /// Names of the files that [`file`](Self::file) gives.
    pub(crate) fn file_names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// What turns the head's products into logits, as far as it was read: of a checkpoint that was opened for its head alone no
    /// more than the bias is known.
    pub fn after_head(&self) -> AfterHead {
        let curve = self.body.as_ref().map_or(Curve::NONE, |(config, _)| config.architecture.curve);
        AfterHead { bias: self.head_bias.clone(), curve }
    }

    /// BLAKE3 over the files that the model consists of: those that [`file`](Self::file) gives. In
    /// the order of their names, it takes of each the length of the name in bytes as a little-endian
    /// `u64`, the name, the length of the contents likewise, and the contents.
    ///
    /// Reads all of them when first called; for a folder the result is kept in the user's cache
    /// (`HEADROOM_CACHE`, or `headroom` in `XDG_CACHE_HOME`, or `~/.cache/headroom`) by the files'
    /// canonical paths, sizes and times. A cache that cannot be read or written is not used.
    pub fn model_digest(&self) -> blake3::Hash {
        *self.digest.get_or_init(|| {
            let cache = crate::cache::folder();
            digest::cached_digest(&self.files, cache.as_deref())
        })
    }
}

fn broken(file: &'static str) -> impl Fn(ConfigError) -> CheckpointError {
    move |error| CheckpointError::Config { file, error }
}

/// A file, unless what stands there is something else that was taken for it.
fn get(place: &Place, name: &str) -> Result<Option<StoredFile>, CheckpointError> {
    let found = place.get(name)?;
    match found.as_ref().and_then(|file| Mistaken::of(&file.bytes)) {
        Some(what) => Err(CheckpointError::Mistaken { file: name.to_owned(), what }),
        None => Ok(found),
    }
}

/// Takes `config.json`, whose contents it gives, and the other small files that are there.
fn small_files(
    place: &Place,
    source: &Source,
    files: &mut BTreeMap<String, StoredFile>,
) -> Result<Bytes, CheckpointError> {
    let Some(config_json) = get(place, CONFIG)? else {
        return Err(CheckpointError::NoConfig { folder: source.clone() });
    };
    let contents = config_json.bytes.clone();
    files.insert(CONFIG.to_owned(), config_json);
    for name in OPTIONAL {
        files.extend(get(place, name)?.map(|file| (name.to_owned(), file)));
    }
    for name in place.names_in(CHAT_TEMPLATES)?.into_iter().filter(|name| is_part(name)) {
        files.extend(get(place, &name)?.map(|file| (name, file)));
    }
    Ok(contents)
}

/// Takes the safetensors files, and gives the tensors that their headers state, and what the index says against them.
fn stored_tensors(
    place: &Place,
    source: &Source,
    files: &mut BTreeMap<String, StoredFile>,
) -> Result<(BTreeMap<String, StoredTensor>, Option<IndexError>), CheckpointError> {
    let names: BTreeSet<&str> = tensors::shard_names(place.names());
    if names.is_empty() {
        return Err(CheckpointError::NoWeights { folder: source.clone() });
    }
    let mut shards = BTreeMap::new();
    for name in names {
        // One that is gone since the folder was listed is none of it.
        shards.extend(get(place, name)?.map(|shard| (name.to_owned(), shard)));
    }
    let stored = tensors::read(&shards)?;
    let index = files.get(INDEX).and_then(|file| index::check(&file.bytes, &stored).err());
    files.extend(shards);
    Ok((stored, index))
}

fn notes(index: Option<IndexError>, unused_eos: &[u64], rows: usize) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(index) = index {
        notes.push(format!("{index}; as in mlx-lm, the files decide"));
    }
    if !unused_eos.is_empty() {
        let (some, more) = unused_eos.split_at(unused_eos.len().min(8));
        let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
        notes.push(format!("eos_token_id names {some:?}{more}, beyond the {rows} tokens of the model: left out"));
    }
    notes
}
