//! Edits that were stored, each on the prompt that it is meant for.

use std::fmt::Write;

use super::{Job, Progress, RunError, Session, Spec};
use crate::edit::{Edit, Value};

/// A trial to be run again.
#[derive(Clone, Debug, PartialEq)]
pub struct Replayed {
    /// Index of the prompt in the session.
    pub prompt: usize,
    /// What is done to the head.
    pub edit: Edit,
    /// The family that the edit was taken from, as records name it.
    pub family: Option<String>,
    /// Its value there.
    pub value: Option<Value>,
}

/// Runs `trials`: prompts in order, for each its trials in the order given.
///
/// # Errors
/// [`RunError`].
///
/// # Panics
/// If a trial's prompt is none of the session's.
pub fn replay(
    session: &mut Session<'_>,
    mut trials: Vec<Replayed>,
    mut progress: impl FnMut(Progress<'_>) -> Result<(), RunError>,
) -> Result<(), RunError> {
    trials.sort_by_key(|replayed| replayed.prompt);
    let mut edits = String::new();
    for Replayed { prompt, edit, .. } in &trials {
        let comma = if edits.is_empty() { "" } else { "\n" };
        write!(edits, "{comma}{prompt} {edit}").expect("a text can be written");
    }
    let random = trials.iter().any(|replayed| replayed.edit.is_random());
    let spec = Spec { command: "replay", trials: Some(trials.len()), random, edits, ..Spec::default() };
    session.begin(spec, &mut progress)?;
    let job = |(trial, Replayed { prompt, edit, family, value })| Job { trial, prompt, edit, family, value };
    session.run(trials.into_iter().enumerate().map(job), &mut progress)
}
