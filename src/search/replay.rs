//! Edits that were stored, each on the prompt that it is meant for.

use super::{Job, Progress, RunError, Session, Spec};
use crate::{
    edit::{Edit, Value},
    record::Record,
};

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
) -> Result<Vec<Record>, RunError> {
    trials.sort_by_key(|replayed| replayed.prompt);
    let jobs: Vec<Job> = trials
        .into_iter()
        .enumerate()
        .map(|(trial, Replayed { prompt, edit, family, value })| Job { trial, prompt, edit, family, value })
        .collect();
    let edits: Vec<String> = jobs.iter().map(|job| format!("{} {}", job.prompt, job.edit)).collect();
    let spec = Spec { command: "replay", trials: Some(jobs.len()), edits: edits.join("\n"), ..Spec::default() };
    session.begin(spec, &mut progress)?;
    session.run(&jobs, &mut progress)
}
