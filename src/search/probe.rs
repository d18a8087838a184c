//! Any edits, each on every prompt.

use super::{Progress, RunError, Session};
use crate::{edit::Edit, record::Record};

/// Runs each of `edits` on the session's prompts: prompts in order, for each the edits in order.
///
/// # Errors
/// [`RunError`].
pub fn probe(
    session: &mut Session<'_>,
    edits: &[Edit],
    mut progress: impl FnMut(Progress<'_>) -> Result<(), RunError>,
) -> Result<Vec<Record>, RunError> {
    // What random edits stand for is what identifies the run, as it is what records hold.
    let layout = session.subject().head().layout();
    let edits: Vec<Edit> = edits.iter().map(|edit| edit.expand(layout)).collect::<Result<_, _>>()?;
    session.run_all("probe", &edits, &mut progress)
}
