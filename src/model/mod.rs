//! Bodies: everything of a model before its head.
//!
//! An edit touches only the head, so the hidden state of a token prefix is the same under every edit.
//! A [`Body`] is therefore asked for positions, not for generations: which token, after which position.
//! Whoever asks (see [`crate::trial`]) sees to it that each distinct prefix is asked for once.

mod backend;
mod cache;
pub(crate) mod decoder;
#[cfg(feature = "mlx")]
pub mod mlx;
pub mod mlx_lm;
pub(crate) mod projection;
mod rope;
mod states;

pub use backend::{AnyBody, Backend, Cpu, HeldHead, Precision};
pub use decoder::Decoder;
#[cfg(feature = "mlx")]
pub use mlx::Mlx;
pub use mlx_lm::{MlxLm, MlxLmError};
pub use projection::{CpuProjection, Projection, Query};

use crate::{checkpoint::Architecture, quant::MatrixRef};

/// A position that a body has seen, with its keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot(u32);

/// What a new position follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parent {
    /// Nothing: it is the first.
    Start,
    /// Nothing: it is the first of a prompt of so many tokens, where that makes a difference
    /// ([`Body::depends_on_prompt_length`]).
    Prompt(usize),
    /// A position of an earlier call.
    Slot(Slot),
    /// A position earlier in the same call, by its index.
    Step(usize),
}

/// A position to be computed.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// The token at this position.
    pub token: u32,
    /// The position before.
    pub parent: Parent,
    /// Whether the hidden state is wanted, or only what later positions need.
    pub hidden: bool,
    /// The token's embedding, `[hidden_size]`, where it is not the checkpoint's own: an edit of a matrix
    /// that is both embedding and head.
    pub embedding: Option<&'a [f32]>,
    /// The row of that matrix which the embedding was computed from, as it is stored under the edit; there where `embedding` is.
    pub row: Option<MatrixRef<'a>>,
}

/// What [`Body::extend`] found.
#[derive(Debug)]
pub struct Extension {
    /// One slot a step.
    pub slots: Vec<Slot>,
    /// The normalized hidden states of the steps that asked for theirs, in order,
    /// `[count, hidden_size]`.
    pub hidden: Vec<f32>,
}

/// Refuses tokens that have no row in an embedding of the model, the one of what tokens give to layers included.
fn check_tokens(architecture: &Architecture, steps: &[Step<'_>]) -> Result<(), BodyError> {
    let given = architecture.token_inputs.map(|inputs| inputs.vocab_size);
    for vocab_size in [Some(architecture.vocab_size), given].into_iter().flatten() {
        if let Some(step) = steps.iter().find(|step| step.token as usize >= vocab_size) {
            return Err(BodyError::Token { token: step.token, vocab_size });
        }
    }
    Ok(())
}

/// Why a body could not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// A token beyond the embedding.
    #[error("token {token} is beyond the model's vocabulary of {vocab_size}")]
    Token {
        /// The token.
        token: u32,
        /// Rows of the embedding.
        vocab_size: usize,
    },
    /// A position beyond those that have a learned vector.
    #[error(
        "the model has {positions} positions, and the text has more; give a shorter prompt, or fewer tokens to generate"
    )]
    Position {
        /// Positions of the model.
        positions: usize,
    },
    /// A backend failed.
    #[error("{backend}: {operation}: {message}")]
    Backend {
        /// Its name.
        backend: &'static str,
        /// The operation that failed.
        operation: &'static str,
        /// The message of the backend.
        message: String,
    },
    /// mlx-lm does not compute the body.
    #[error(transparent)]
    MlxLm(Box<mlx_lm::MlxLmError>),
    /// A backend cannot compute something that the model does.
    #[error("{backend} does not compute {what}, which this model has; use --backend cpu")]
    Unsupported {
        /// Name of the backend.
        backend: &'static str,
        /// What it does not compute.
        what: &'static str,
    },
    /// A backend has nothing to compute on.
    #[error("MLX finds no device to compute on here ({message}); use --backend cpu")]
    NoDevice {
        /// What MLX says.
        message: String,
    },
}

impl From<mlx_lm::MlxLmError> for BodyError {
    fn from(error: mlx_lm::MlxLmError) -> Self {
        Self::MlxLm(Box::new(error))
    }
}

/// Everything of a model before its head.
pub trait Body {
    /// Columns of a hidden state.
    fn hidden_size(&self) -> usize;

    /// Bytes that one position keeps until it is released.
    fn bytes_per_position(&self) -> usize;

    /// Bytes that each path takes besides while a call extends it: the states at its last position and at the one before. They may be
    /// dropped between two calls, and are then computed again from what the positions keep.
    fn bytes_per_path(&self) -> usize {
        0
    }

    /// Runs new positions. The bits of a hidden state depend on the tokens up to it alone, not on what
    /// else is in the call or how a prefix was cut into calls. (On MLX they depend on the cut, too; `model/mlx`
    /// says how.)
    ///
    /// # Errors
    /// [`BodyError`]; then no position was added.
    ///
    /// # Panics
    /// May panic on a slot that was released, or on a step that names itself or a later one as parent.
    fn extend(&mut self, steps: &[Step<'_>]) -> Result<Extension, BodyError>;

    /// Whether the hidden states of a prompt depend on its length, so that prompts of different lengths have no prefix in common.
    fn depends_on_prompt_length(&self) -> bool {
        false
    }

    /// Whether a prompt may be cut into calls as its caller likes, without a change in any bit: then whoever runs a long one
    /// can tell how far it is, and stop between two calls.
    fn cuts_freely(&self) -> bool;

    /// Releases a position. No position that follows it may be extended afterwards.
    fn release(&mut self, slot: Slot);

    /// What the layers have added up to behind each of them, at the last of `tokens`, which begin a text: `[layers][hidden_size]`, before
    /// the last norm. `None` where the body does not look inside. Nothing of it is kept.
    ///
    /// # Errors
    /// [`BodyError`], as of [`extend`](Self::extend).
    fn layers(&mut self, tokens: &[u32]) -> Result<Option<Vec<Vec<f32>>>, BodyError> {
        let _ = tokens;
        Ok(None)
    }
}

impl<B: Body + ?Sized> Body for Box<B> {
    fn hidden_size(&self) -> usize {
        (**self).hidden_size()
    }

    fn bytes_per_position(&self) -> usize {
        (**self).bytes_per_position()
    }

    fn bytes_per_path(&self) -> usize {
        (**self).bytes_per_path()
    }

    fn extend(&mut self, steps: &[Step<'_>]) -> Result<Extension, BodyError> {
        (**self).extend(steps)
    }

    fn depends_on_prompt_length(&self) -> bool {
        (**self).depends_on_prompt_length()
    }

    fn cuts_freely(&self) -> bool {
        (**self).cuts_freely()
    }

    fn release(&mut self, slot: Slot) {
        (**self).release(slot);
    }

    fn layers(&mut self, tokens: &[u32]) -> Result<Option<Vec<Vec<f32>>>, BodyError> {
        (**self).layers(tokens)
    }
}
