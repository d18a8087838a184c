//! What runs a model: where its bodies and projections come from.

use std::{fmt, sync::Arc};

use blake3::Hash;

use super::{Body, BodyError, CpuProjection, Decoder, Projection};
use crate::{
    checkpoint::{Checkpoint, architecture::AfterHead},
    edit::Plan,
    kernels::{Kernel, Rounding},
    quant::MatrixRef,
    team::Team,
};

/// A body of whatever backend.
pub type AnyBody = Box<dyn Body + Send>;

/// The type in which MLX computes activations, through mlx-rs or through mlx-lm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// The type that follows from those of the checkpoint, such as float16, as in mlx-lm.
    #[default]
    Native,
    /// float32. Scales, biases and norms are widened, which is exact.
    Float32,
}

/// What computes a model's body and head. One call a wave goes through here, so that dispatch costs nothing.
pub trait Backend: fmt::Debug + Send + Sync {
    /// Its name in records: `cpu`, `mlx`, `mlx-lm`.
    fn name(&self) -> &'static str;

    /// The name of what computes, for records: of an instruction set, or of an element type and a device.
    fn kernel(&self) -> &str;

    /// What of the kernel decides its results, as part of a run's identity; `None` where every kernel of the backend gives the
    /// same bits.
    fn decides(&self) -> Option<&str>;

    /// How its logits are rounded, where that is known: what a certificate rests on.
    fn rounding(&self) -> Option<Rounding>;

    /// Whether activations are float32 throughout, and not of a type with fewer significant bits.
    fn is_float32(&self) -> bool;

    /// What turns the head's products into logits.
    fn after_head(&self) -> &AfterHead;

    /// A body that has seen nothing yet.
    fn body(&self) -> AnyBody;

    /// A projection through `head`, which is the model's own or an edited one of its shape.
    fn projection<'a>(&'a self, head: MatrixRef<'a>) -> Box<dyn Projection + 'a>;

    /// The head as the backend holds it in memory of its own, to be edited there; `None` where it computes with the
    /// bytes that the checkpoint has.
    ///
    /// # Errors
    /// [`BodyError`], where the backend fails.
    fn held_head(&self) -> Result<Option<Box<dyn HeldHead + '_>>, BodyError> {
        Ok(None)
    }
}

/// A head that a backend holds. Edits of it reach its own products ([`Projection`]) and nothing else; they end with it.
pub trait HeldHead: Projection {
    /// Edits it, whatever it was edited to before, and gives the first five packed words of row 0 as they are then.
    ///
    /// # Errors
    /// [`BodyError`]; it is as it was before.
    fn apply(&mut self, plan: &Plan) -> Result<Vec<u32>, BodyError>;

    /// Puts the originals back.
    ///
    /// # Errors
    /// [`BodyError`].
    fn restore(&mut self) -> Result<(), BodyError>;

    /// BLAKE3 over weight, scales and biases as they are held, in this order and in the types of the checkpoint.
    ///
    /// # Errors
    /// [`BodyError`].
    fn digest(&mut self) -> Result<Hash, BodyError>;
}

/// This program's own kernels.
#[derive(Clone, Debug)]
pub struct Cpu {
    checkpoint: Arc<Checkpoint>,
    after_head: AfterHead,
    kernel: Kernel,
    team: Arc<Team>,
}

impl Cpu {
    /// Runs `checkpoint` by `kernel` on the threads of `team`.
    pub fn new(checkpoint: Arc<Checkpoint>, kernel: Kernel, team: Arc<Team>) -> Self {
        Self { after_head: checkpoint.after_head(), checkpoint, kernel, team }
    }
}

impl Backend for Cpu {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn kernel(&self) -> &str {
        self.kernel.name()
    }

    fn decides(&self) -> Option<&str> {
        None
    }

    fn rounding(&self) -> Option<Rounding> {
        Some(Rounding::KERNELS)
    }

    fn is_float32(&self) -> bool {
        true
    }

    fn after_head(&self) -> &AfterHead {
        &self.after_head
    }

    fn body(&self) -> AnyBody {
        Box::new(Decoder::new(Arc::clone(&self.checkpoint), self.kernel, Arc::clone(&self.team)))
    }

    fn projection<'a>(&'a self, head: MatrixRef<'a>) -> Box<dyn Projection + 'a> {
        Box::new(CpuProjection::new(head, self.kernel, &self.team).with(&self.after_head))
    }
}
