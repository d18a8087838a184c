//! What can go wrong with a body that mlx-lm computes, each with what to do.

use std::{io, path::PathBuf};

use crate::{checkpoint::CheckpointError, child::ChildError};

/// The oldest mlx-lm whose `load_model` runs code of a model's folder only where it is asked to, which is the one that this
/// program is tested with.
pub(crate) const OLDEST: &str = "0.32.2";

/// Why mlx-lm does not compute the body.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MlxLmError {
    /// There is no such program.
    #[error(
        "cannot start the Python {python:?} ({error}); install Python, then mlx-lm with `python3 -m pip install mlx-lm`, \
         or name the Python that has mlx-lm by --python or HEADROOM_PYTHON"
    )]
    NoPython {
        /// Its name.
        python: String,
        /// What the system says.
        error: String,
    },
    /// It has no mlx-lm.
    #[error(
        "the Python {python:?} has no mlx-lm; install it with `{python} -m pip install mlx-lm` (on Linux with `mlx[cpu]` or \
         `mlx[cuda]`, too), or name the Python that has it by --python or HEADROOM_PYTHON"
    )]
    NoMlxLm {
        /// The Python.
        python: String,
    },
    /// Its mlx-lm is too old.
    #[error(
        "the Python {python:?} has mlx-lm {found}, but {OLDEST} is the oldest that serves; \
         upgrade it with `{python} -m pip install --upgrade mlx-lm`"
    )]
    TooOld {
        /// The Python.
        python: String,
        /// The version.
        found: String,
    },
    /// What was started is no Python that runs the program's file, or one that runs another version of it.
    #[error("{python:?} does not run headroom's part in Python: {what}")]
    Stranger {
        /// What was started.
        python: String,
        /// What it did instead.
        what: String,
    },
    /// The child ended, or was ended because it was silent.
    #[error("mlx-lm in {python:?}, while it was to {doing}: {error}")]
    Child {
        /// The Python.
        python: String,
        /// What it was asked for.
        doing: &'static str,
        /// What ended it.
        error: ChildError,
    },
    /// The model inside the program could not be written out for mlx-lm to read.
    #[error("cannot write the model inside the program to {} for mlx-lm to read: {error}", .folder.display())]
    Demo {
        /// The folder.
        folder: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The model does not load there.
    #[error("mlx-lm {version} cannot load the model: {error}")]
    Load {
        /// Its version.
        version: String,
        /// The exception.
        error: String,
    },
    /// It answered a request with an exception.
    #[error("mlx-lm {version} cannot {doing}: {error}")]
    Raised {
        /// Its version.
        version: String,
        /// What it was asked for.
        doing: &'static str,
        /// The exception.
        error: String,
    },
    /// The head is not one that has packed words.
    #[error(
        "the head `{module}` is not quantized (a {kind}), so it has no packed words to disturb; \
         quantize it too, with `mlx_lm.convert -q` and no predicate that leaves it out"
    )]
    NotQuantized {
        /// The module.
        module: String,
        /// Its class.
        kind: String,
    },
    /// The head is quantized in a way that this program does not multiply.
    #[error("the head `{module}` is a {kind}, which headroom does not multiply: {what}")]
    Unsupported {
        /// The module.
        module: String,
        /// Its class.
        kind: String,
        /// What is missing here.
        what: &'static str,
    },
    /// The head could not be read from the files.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The head's product is not what mlx-lm makes of it.
    #[error(
        "the logits of mlx-lm are not those of the head `{module}` as it lies in the files, followed by {after}: \
         the largest difference on a probe prompt is {difference:.3e}, of logits of up to {largest:.3e}"
    )]
    Logits {
        /// The module.
        module: String,
        /// What follows the head.
        after: String,
        /// The largest difference.
        difference: f32,
        /// The largest logit, without its sign.
        largest: f32,
    },
    /// What follows the head is nothing that is known here.
    #[error(
        "what follows the head `{module}` is neither nothing, nor a positive scale, nor a softcap: \
         the nearest of these differs by {difference:.3e} at {at}"
    )]
    After {
        /// The module.
        module: String,
        /// The largest difference to the nearest that is known.
        difference: f32,
        /// The product of the head at which it was seen.
        at: f32,
    },
    /// An edit of the embedding was not undone.
    #[error("the embedding was not restored after an edit: its digest was {before} before and is {after} after it")]
    NotRestored {
        /// Before the edit.
        before: String,
        /// After it was taken back.
        after: String,
    },
}
