//! Edits of a family as trials, and how many flips their records would list.

use super::{Job, RunError};
use crate::{
    edit::{Amount, Edit, Family, Random, Value},
    quant::{Layout, Tensor},
};

/// Most flips that the records of a run may list together, which are some gigabytes of text.
pub(super) const MOST_LISTED: f64 = 1e8;

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

/// That there is room for so many flips in the records of a run.
///
/// # Errors
/// [`RunError::Room`].
pub(super) fn room(flips: f64, search: &'static str) -> Result<(), RunError> {
    if flips > MOST_LISTED { Err(RunError::Room { search, flips }) } else { Ok(()) }
}

/// The most flips that the family's edit at a value stands for.
pub(super) fn flips(layout: &Layout, family: Family, value: Value) -> f64 {
    let tensor = Tensor::Weight;
    let amount = match (family, value) {
        (Family::Flips(_), Value::Integer(flips)) => Amount::Flips(flips.max(0) as u64),
        (Family::Rate(_), Value::Rate(rate)) => Amount::Rate(rate),
        (Family::Rate(_), Value::Integer(rate)) => Amount::Rate(rate as f64),
        _ => return 0.0,
    };
    Random { tensor, amount, seed: 0 }.expected(layout)
}
