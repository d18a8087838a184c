//! Any edits, each on every prompt.

use super::{Progress, RunError, Session};
use crate::edit::Edit;

/// Runs each of `edits` on the session's prompts: prompts in order, for each the edits in order.
///
/// # Errors
/// [`RunError`].
pub fn probe(
    session: &mut Session<'_>,
    edits: &[Edit],
    mut progress: impl FnMut(Progress<'_>) -> Result<(), RunError>,
) -> Result<(), RunError> {
    session.run_all("probe", edits, &mut progress)
}
