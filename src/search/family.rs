//! Edits of a family as trials.

use super::{Job, RunError};
use crate::edit::{Edit, Family, Value};

/// The family's edit at a value.
///
/// # Errors
/// [`RunError::Value`].
pub(super) fn edit(family: Family, value: Value) -> Result<Edit, RunError> {
    family.at(value).map_err(|problem| RunError::Value { family, value, problem })
}

/// A trial of a family's edit.
///
/// # Errors
/// [`RunError::Value`].
pub(super) fn job(trial: usize, prompt: usize, family: Family, value: Value) -> Result<Job, RunError> {
    let edit = edit(family, value)?;
    Ok(Job { trial, prompt, edit, family: Some(family.to_string()), value: Some(value) })
}

/// Whether flips are drawn for the family's edits.
pub(super) const fn is_random(family: Family) -> bool {
    matches!(family, Family::Flips(_) | Family::Rate(_))
}
