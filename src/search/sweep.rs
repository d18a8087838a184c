//! Many edits of one family, each on every prompt.

use super::{
    Job, Progress, RunError, Session, Spec,
    family::{edit, flips, job, room},
};
use crate::{
    edit::{Family, Value},
    quant::Layout,
    record::Record,
};

/// That the family has each of `values`, and that each is an edit of a head of this layout.
///
/// # Errors
/// [`RunError::Value`], [`RunError::Edit`].
pub fn check(layout: &Layout, family: Family, values: &[Value]) -> Result<(), RunError> {
    values.iter().try_for_each(|&value| Ok(edit(family, value)?.check(layout)?))
}

/// Runs the family's edit at each of `values` on the session's prompts: prompts in order, for each the values in order.
///
/// # Errors
/// [`RunError`].
pub fn sweep(
    session: &mut Session<'_>,
    family: Family,
    values: &[Value],
    mut progress: impl FnMut(Progress<'_>) -> Result<(), RunError>,
) -> Result<Vec<Record>, RunError> {
    let (layout, prompts) = (session.subject().head().layout(), session.prompts().len());
    check(layout, family, values)?;
    let listed: f64 = values.iter().map(|&value| flips(layout, family, value)).sum();
    room(listed * prompts as f64, "the sweep")?;
    let jobs: Vec<Job> = (0..prompts)
        .flat_map(|prompt| values.iter().map(move |&value| (prompt, value)))
        .enumerate()
        .map(|(trial, (prompt, value))| job(trial, prompt, family, value))
        .collect::<Result<_, _>>()?;
    let texts: Vec<String> = values.iter().map(Value::to_string).collect();
    let edits = format!("{family} {}", texts.join(","));
    let spec = Spec { command: "sweep", trials: Some(jobs.len()), edits, ..Spec::default() };
    session.begin(spec, &mut progress)?;
    session.run(&jobs, &mut progress)
}
