//! The census: every single flip of a code bit that changes a token, counted, not sampled.
//!
//! A flip in row `j` of a rival changes the token if it raises `z_j` past `z_t`; one in the token's row `t` if it
//! lowers `z_t` past the best rival's logit; one that does neither changes nothing. How far each flip moves its row
//! is known exactly, so all that is left is not to look at all of them.
//!
//! # Which are looked at
//!
//! The gains of row `j` in column `c` are at most `top * S_j * |h[c]|`, with `top` the most that a flip changes a
//! code's value (an integer of 4 bits 8, of 8 bits 128; a float of 4 bits 12 and of 8 bits 896, by their sign) and `S_j`
//! the largest magnitude of the row's scales. The columns of a position are
//! sorted by `|h[c]|` once; each row walks down that order and stops at the first column where even this bound does
//! not reach the row's margin, less all float error. A bound for each row alone would skip little, since hidden
//! states have a few columns far larger than the others (on SmolLM2-135M, half of all rows pass it); this one leaves
//! few (row, column) pairs. The margin is bounded from the executed logit, which is there for every row, so a row is
//! read only where a pair of it is left.
//!
//! # What is found
//!
//! For each bit that is looked at both claims are decided. [`Position::beats`], which does not round, decides the exact
//! claim. [`Position::outcome`] decides the executed claim as far as the bound of [`super::bound`] does; a bit that it
//! leaves undecided can be run, which takes one row product. The bits that are not looked at are decided in both claims:
//! their gain does not reach the margin, even when the bounds of both rows' float error are taken off the margin.
//!
//! A flip that makes a code NaN changes the token at every position, in both claims. There may be millions of these, so
//! they are found once for the head ([`super::NanFlips::single`]) and are not among the hits.

use std::sync::{Mutex, PoisonError};

use super::position::{Flip, Logit, Outcome, Position};
use crate::team::Team;

/// Rows of one work item.
const CHUNK: usize = 4096;

/// A flip that changes the token of a position, or may.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// The flip.
    pub flip: Flip,
    /// By how much it passes the margin, in logits; below 0 if it does not.
    pub slack: f32,
    /// Whether it changes the token in real arithmetic.
    pub exact: bool,
    /// What the bound says of the executed program.
    pub executed: Outcome,
}

/// All single flips of code bits that change a position's token, or may in the executed program, but for those that
/// make a code NaN: these are all of [`super::NanFlips::single`].
#[derive(Clone, Debug, Default)]
pub struct Census {
    /// By row, column and bit.
    pub hits: Vec<Hit>,
    /// (row, column) pairs that were looked at.
    pub looked_at: usize,
}

impl Census {
    /// Flips that change the token in real arithmetic.
    pub fn critical(&self) -> impl Iterator<Item = &Hit> {
        self.hits.iter().filter(|hit| hit.exact)
    }

    /// Flips of which the bound of the kernel's rounding does not say whether they change the token when executed.
    pub fn undecided(&self) -> impl Iterator<Item = &Hit> {
        self.hits.iter().filter(|hit| hit.executed == Outcome::Undecided)
    }
}

/// The census of each position. A position whose executed token is not the winner in real arithmetic has no exact
/// critical flips: no flip is needed there (see [`super::LeastFlips`]).
pub fn census(positions: &[Position<'_>], team: &Team) -> Vec<Census> {
    let Some(first) = positions.first() else { return Vec::new() };
    let chunks = first.rows.len().div_ceil(CHUNK);
    let found: Mutex<Vec<(usize, Census)>> = Mutex::default();
    team.for_each(positions.len() * chunks, |item| {
        let (index, chunk) = (item / chunks, item % chunks);
        let position = &positions[index];
        let rows = chunk * CHUNK..((chunk + 1) * CHUNK).min(position.rows.len());
        let mut part = Census::default();
        let exact = position.agrees();
        rows.for_each(|row| look(position, row, exact, &mut part));
        if part.looked_at > 0 {
            found.lock().unwrap_or_else(PoisonError::into_inner).push((index, part));
        }
    });
    let mut all = vec![Census::default(); positions.len()];
    for (index, part) in found.into_inner().unwrap_or_else(PoisonError::into_inner) {
        all[index].hits.extend(part.hits);
        all[index].looked_at += part.looked_at;
    }
    all.iter_mut().for_each(|census| census.hits.sort_unstable_by_key(|hit| hit.flip));
    all
}

/// Looks at the pairs of one row that its margin leaves.
fn look(position: &Position<'_>, row: usize, exact: bool, part: &mut Census) {
    let rows = position.rows;
    let is_token = row == position.token.row;
    // Where an operation on the row could overflow, nothing is certain that was not looked at.
    let may_overflow = position.bound.may_overflow(rows.weight(row));
    let least = if may_overflow { 0.0 } else { least_gain(position, row, is_token) };
    let reach = rows.changes().most() * rows.scale(row);
    let mut logit: Option<Logit> = None;
    for &column in &position.columns {
        let column = column as usize;
        let most = reach * position.hidden[column].abs();
        if most < least || most == 0.0 {
            break;
        }
        part.looked_at += 1;
        for bit in 0..rows.head().layout().bits() {
            let delta = position.delta(row, column, 1 << bit);
            let useful = (delta > 0.0) != is_token;
            let size = delta.abs();
            if size == 0.0 || size.is_nan() || (!may_overflow && (!useful || size < least)) {
                continue;
            }
            let own = *logit.get_or_insert_with(|| position.logit(row));
            let (winner, loser) = if is_token { (position.second, own) } else { (Some(own), position.token) };
            let Some(winner) = winner else { continue };
            let exact = exact && useful && position.beats(&winner, &loser, &[size]);
            let executed = position.outcome(&own, delta, size);
            if exact || executed != Outcome::Stays {
                let flip = Flip { row: row as u32, column: column as u32, bit: bit as u8 };
                let slack = (winner.value - loser.value + delta.abs()) as f32;
                part.hits.push(Hit { flip, slack, exact, executed });
            }
        }
    }
}

/// A gain below which no flip in the row changes the token: neither in real arithmetic nor, without overflow, in the
/// executed program.
pub(super) fn least_gain(position: &Position<'_>, row: usize, is_token: bool) -> f64 {
    let grown = 1.0 + position.bound.largest;
    if is_token {
        let token = position.token;
        let low = token.value - token.executed - token.of_f64;
        let second = position.second.map_or(f64::NEG_INFINITY, |second| second.value + second.of_f64);
        (token.value - token.of_f64 - second).min((low - position.executed_second) / grown)
    } else {
        let executed = position.executed(position.token.row) - position.executed(row) - 2.0 * position.coarse(row);
        position.margin_at_least(row).min(executed / grown)
    }
}
