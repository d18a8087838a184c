//! Edits that replace few rows of the head: what they make of logits that are there, without a copy of the others.

use super::LOGIT_BYTES;
use crate::{
    edit::Plan,
    kernels::Replaced,
    model::{BodyError, Projection},
};

/// How many of `count` runs one thread takes together. What the runs change and put back is copied once for all of
/// them, and every thread gets at least one run.
pub(super) fn runs_together(count: usize, threads: usize) -> usize {
    (count / (4 * threads)).clamp(1, 32)
}

/// Logits of the rows that plans replace, at some hidden states.
pub(super) struct Patched {
    /// Rows of all plans, one plan after the other.
    rows: Vec<usize>,
    /// Where each plan's rows end.
    ends: Vec<usize>,
    /// `[rows, states]`.
    logits: Vec<f32>,
    states: usize,
}

impl Patched {
    pub(super) fn new(head: &mut impl Projection, plans: &[&Plan], hidden: &[&[f32]]) -> Result<Self, BodyError> {
        let rows: Vec<usize> = plans.iter().flat_map(|plan| plan.rows.keys().copied()).collect();
        let mut end = 0;
        let ends = plans.iter().map(|plan| {
            end += plan.rows.len();
            end
        });
        Ok(Self { ends: ends.collect(), rows, logits: head.replaced(plans, hidden)?, states: hidden.len() })
    }

    /// What `plan` (by its place among the plans) replaces at a hidden state; `logits` is working space.
    pub(super) fn at<'a>(&'a self, plan: usize, state: usize, logits: &'a mut Vec<f32>) -> Replaced<'a> {
        let start = plan.checked_sub(1).map_or(0, |before| self.ends[before]);
        let rows = start..self.ends[plan];
        logits.clear();
        logits.extend(rows.clone().map(|row| self.logits[row * self.states + state]));
        Replaced { index: &self.rows[rows], logits }
    }
}

/// Splits runs into parts whose logits fit into the memory for logits; `rows` says how many rows each run replaces.
pub(super) fn parts<'a, T>(
    mut runs: &'a [T],
    rows: impl Fn(&T) -> usize + 'a,
    states: usize,
) -> impl Iterator<Item = &'a [T]> {
    std::iter::from_fn(move || {
        let (part, rest) = runs.split_at(fitting(runs, &rows, states).min(runs.len()));
        runs = rest;
        (!part.is_empty()).then_some(part)
    })
}

/// How many of the first runs fit into the memory for logits, at least one; `rows` says how many rows a run replaces.
fn fitting<T>(runs: &[T], rows: impl Fn(&T) -> usize, states: usize) -> usize {
    let mut bytes = 0;
    let fit = runs.iter().take_while(|run| {
        bytes += 4 * states * rows(run);
        bytes <= LOGIT_BYTES
    });
    fit.count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_runs_are_spread_over_threads_and_many_share_a_copy() {
        assert_eq!([1, 8, 15, 16, 255, 256, 10_000].map(|count| runs_together(count, 2)), [1, 1, 1, 2, 31, 32, 32]);
    }

    #[test]
    fn runs_are_taken_until_their_logits_fill_the_memory_for_them_but_never_none() {
        let million = 1 << 20;
        // Two million floats each, of four million.
        assert_eq!(fitting(&[million; 5], |&rows| rows, 2), 2);
        assert_eq!(fitting(&[1, 2, 3], |&rows| rows, 10), 3);
        assert_eq!(fitting(&[1, 4 * million, 1], |&rows| rows, 1), 1);
        assert_eq!(fitting(&[100 * million, 1], |&rows| rows, 1), 1);
    }
}
