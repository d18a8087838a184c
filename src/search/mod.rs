//! Searches: edits run on prompts, measured, judged and recorded.
//!
//! A [`Session`] is a model, its prompts and [`Settings`]. Each search is a function that takes a session, what is to be
//! tried, and somebody to tell its [`Progress`]:
//!
//! | search | question |
//! | --- | --- |
//! | [`ladder()`] | what the model says after each of some shifts, and whether the head is restored |
//! | [`probe()`] | what the model says after each of some edits |
//! | [`sweep()`] | the same along a family of edits |
//! | [`bisect()`] | between which values of a family answers break |
//! | [`map()`] | which hexadecimal digits of a shift hurt |
//! | [`campaign()`] | how often random flips change an answer, and into what |
//! | [`replay()`] | what edits and prompts that were stored do on this model |
//! | [`verify()`] | whether every way of restoring the head restores it |
//! | [`agree()`] | whether this program's body is another backend's |
//!
//! A search decides what identifies its run (`run.id` of its records) from what it is given; nobody else has to. It keeps no
//! record: each is handed over as [`Progress::Record`] once it is finished, and what the search finds is added up beside.
//! [`keep`] is somebody to tell who keeps them all.

mod agreement;
pub mod bisect;
pub mod calibrate;
pub mod campaign;
mod family;
pub(crate) mod ladder;
pub mod map;
mod pace;
pub(crate) mod probe;
pub mod replay;
mod session;
pub(crate) mod sweep;
pub mod verify;

use std::fmt;

use crate::{
    edit::{EditError, Family, Value},
    head::HeadError,
    model::BodyError,
    record::{
        Calibration, Record, Shard,
        journal::{Expectation, JournalError},
    },
    tokenizer::TokenizerError,
};

pub use session::Session;
pub(crate) use session::{Job, Spec};
pub use {
    agreement::agree, bisect::bisect, campaign::campaign, ladder::ladder, map::map, probe::probe, replay::replay,
    sweep::sweep, verify::verify,
};

/// How a run is made, whatever it looks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Tokens to generate at most, at least 1.
    pub max_tokens: usize,
    /// Surprise up to which a step counts as coherent.
    pub threshold: Threshold,
    /// Seed of every random choice in the run.
    pub seed: u64,
    /// The part of the trials to run; all of them, where there is none.
    pub shard: Option<Shard>,
    /// The date that the chat template put into prompts of the calibration, where it asked for it.
    pub date: Option<String>,
}

/// Surprise in nats up to which a step counts as coherent, and where it comes from.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Threshold {
    /// It is to be taken from the model's own answers when a search begins; see [`calibrate`].
    #[default]
    Unknown,
    /// It was taken from the model's own answers.
    Calibrated(Calibration),
    /// It was given.
    Given(f64),
}

impl Default for Settings {
    /// Ten tokens, a threshold that is calibrated on the model, seed 0 and all trials.
    fn default() -> Self {
        Self { max_tokens: 10, threshold: Threshold::Unknown, seed: 0, shard: None, date: None }
    }
}

impl Settings {
    /// A threshold that was given, in nats.
    pub const fn given(max_tokens: usize, threshold: f64) -> Self {
        Self { max_tokens, threshold: Threshold::Given(threshold), seed: 0, shard: None, date: None }
    }

    /// A threshold that was calibrated.
    pub const fn calibrated(calibration: Calibration, max_tokens: usize) -> Self {
        Self { max_tokens, threshold: Threshold::Calibrated(calibration), seed: 0, shard: None, date: None }
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
    /// The observer could not take a result.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The journal could not be written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// No threshold can be calibrated for this model.
    #[error("the surprise threshold cannot be calibrated: {0}; give one with --threshold NATS")]
    Calibration(String),
    /// A family has no such value.
    #[error("{problem}")]
    Value {
        /// The family.
        family: Family,
        /// The value.
        value: Value,
        /// What is wrong with it.
        problem: String,
    },
    /// A part of a bisection was asked for.
    #[error(
        "a bisection cannot be run in parts: each step depends on what the ones before it found; leave out --shard"
    )]
    Parts,
    /// The observer asked the run to stop.
    #[error("interrupted")]
    Interrupted,
}

/// A search of many trials that ended early, with what it had found by then.
#[derive(Debug)]
pub struct Stopped<T> {
    /// What was found.
    pub found: Box<T>,
    /// Why it ended.
    pub error: RunError,
}

impl<T: Default> From<RunError> for Stopped<T> {
    /// Nothing was found.
    fn from(error: RunError) -> Self {
        Self { found: Box::default(), error }
    }
}

impl<T> From<Stopped<T>> for RunError {
    fn from(stopped: Stopped<T>) -> Self {
        stopped.error
    }
}

impl<T> fmt::Display for Stopped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<T: fmt::Debug> std::error::Error for Stopped<T> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

/// Trials that an earlier part of a run has finished, one after the other.
type Earlier = Box<dyn Iterator<Item = Result<Record, JournalError>>>;

/// A run that is about to begin.
pub struct Beginning<'a> {
    /// What a journal of this run must agree with.
    pub expectation: Expectation<'a>,
    earlier: &'a mut Option<Earlier>,
}

impl fmt::Debug for Beginning<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Beginning").field("expectation", &self.expectation).finish_non_exhaustive()
    }
}

impl Beginning<'_> {
    /// Takes trials that an earlier part of this run has finished: they are handed over again, before all others, instead
    /// of being run. A trial that comes twice is handed over once.
    pub fn resume(&mut self, records: impl IntoIterator<Item = Result<Record, JournalError>, IntoIter: 'static>) {
        *self.earlier = Some(Box::new(records.into_iter()));
    }
}

/// Somebody who keeps all records of a search: for one that is known to be small.
pub fn keep(records: &mut Vec<Record>) -> impl FnMut(Progress<'_>) -> Result<(), RunError> {
    |progress| {
        if let Progress::Record { record, .. } = progress {
            records.push(record.clone());
        }
        Ok(())
    }
}

/// What a run tells while it goes on.
#[derive(Debug)]
pub enum Progress<'a> {
    /// What is to be run is known, and nothing is run yet.
    Begins(Beginning<'a>),
    /// Prompts go through the body: positions done, of those that are new.
    Reading {
        /// Positions done.
        done: usize,
        /// Positions of all prompts that are new.
        of: usize,
    },
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
    /// All trials of a batch have been handed over. What is to outlast the end of this process is written now.
    HandedOver,
}

impl<'a> Progress<'a> {
    /// The trial that is finished, where that is what is told.
    pub const fn record(&self) -> Option<&'a Record> {
        match *self {
            Self::Record { record, .. } => Some(record),
            _ => None,
        }
    }

    /// Tells `progress`, and then shows `see` the trial that is finished, where that is what is told.
    fn pass(
        self,
        progress: &mut impl FnMut(Self) -> Result<(), RunError>,
        see: impl FnMut(&Record),
    ) -> Result<(), RunError> {
        let record = self.record();
        progress(self)?;
        record.into_iter().for_each(see);
        Ok(())
    }
}
