//! What is run to find something out: edits on prompts, measured, judged and recorded.

pub mod bisect;
pub mod calibrate;
pub mod campaign;
pub mod ladder;
pub mod map;
mod session;
pub mod values;
pub mod verify;

use crate::{
    edit::EditError,
    head::HeadError,
    model::BodyError,
    record::{Calibration, Record, journal::JournalError},
    tokenizer::TokenizerError,
};

pub use session::{Job, Session, Spec};

/// How a run is made, whatever it looks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Tokens to generate at most, at least 1.
    pub max_tokens: usize,
    /// Surprise in nats up to which a step counts as coherent.
    pub threshold: f64,
    /// Where the threshold comes from; `None` if it was given.
    pub calibration: Option<Calibration>,
}

impl Settings {
    /// A threshold that was given.
    pub const fn given(max_tokens: usize, threshold: f64) -> Self {
        Self { max_tokens, threshold, calibration: None }
    }

    /// A threshold that was calibrated.
    pub const fn calibrated(calibration: Calibration, max_tokens: usize) -> Self {
        Self { max_tokens, threshold: calibration.threshold, calibration: Some(calibration) }
    }

    /// The model's ordinary surprise, where that is known.
    pub fn ordinary(&self) -> Option<f64> {
        self.calibration.as_ref().map(|calibration| calibration.ordinary)
    }
}

/// Why a run ended early. What was finished has been handed over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// An edit does not fit the head.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// The model could not go on.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// A head could not be edited or restored.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// A prompt could not be encoded, or a response decoded.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Whoever watches could not take a result.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The journal could not be written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// No threshold can be calibrated for this model.
    #[error("the surprise threshold cannot be calibrated: {0}; give one with --threshold NATS")]
    Calibration(String),
    /// Whoever watches asked to stop.
    #[error("interrupted")]
    Interrupted,
}

/// What a run tells while it goes on.
#[derive(Debug)]
pub enum Progress<'a> {
    /// The clean model's own answers are drawn, of which the threshold is taken: tokens done, and at most.
    Calibrating {
        /// Waves done.
        step: usize,
        /// Waves at most.
        of: usize,
    },
    /// The trials of a batch have advanced by a token.
    Wave {
        /// Waves done.
        step: usize,
        /// Waves at most.
        of: usize,
        /// Trials in the batch.
        trials: usize,
    },
    /// A trial is finished.
    Record {
        /// What was found.
        record: &'a Record,
        /// Whether an earlier part of the run had finished it.
        resumed: bool,
    },
}
