//! Many edits of one family, each on every prompt.

use std::fmt::Write;

use super::{
    Progress, RunError, Session, Spec,
    family::{edit, is_random, job},
};
use crate::{
    edit::{Family, Value},
    quant::Layout,
};

/// That the family has each of `values`, and that each is an edit of a head of this layout.
///
/// # Errors
/// [`RunError::Value`], [`RunError::Edit`].
pub(crate) fn check(layout: &Layout, family: Family, values: &[Value]) -> Result<(), RunError> {
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
) -> Result<(), RunError> {
    let prompts = session.prompts().len();
    check(session.subject().head().layout(), family, values)?;
    let mut edits = format!("{family} ");
    for (i, value) in values.iter().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        write!(edits, "{comma}{value}").expect("a text can be written");
    }
    let (trials, random) = (Some(prompts * values.len()), is_random(family));
    session.begin(Spec { command: "sweep", trials, random, edits, ..Spec::default() }, &mut progress)?;
    let each = (0..prompts).flat_map(|prompt| values.iter().map(move |&value| (prompt, value))).enumerate();
    let jobs = each.map(|(trial, (prompt, value))| job(trial, prompt, family, value).expect("it was checked"));
    session.run(jobs, &mut progress)
}
