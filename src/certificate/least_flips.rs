//! The fewest flips of code bits that make a position's token lose.
//!
//! The module's documentation has the proof. What is left to say here is how the fewest over *all* rivals is found
//! without merging and sorting the gains of each.
//!
//! For `k` flips, the most that rival `j` can gain on the token is at most
//!
//! ```text
//! R_j(k) = max over i + l = k of  D(i) + S_j L(l)
//! ```
//!
//! `D(i)` is the most that `i` flips lower the token's logit, exact; `S_j` the largest magnitude of the row's scales;
//! `L(l)`, the same for every row, the sum of the `l` largest of all `2^b |h[c]|` where codes are integers, and where they are
//! floats of all `V |h[c]|`, `V` the most that any flips of a code change its value. Rivals whose margin, bounded from
//! their executed logit, is beyond `R_j(k)` are passed over unread. Of the others, those with the largest `R_j(k)` less
//! their margin come first, and the search among them ends where no rival that is left could pass its margin by
//! more than one already found does. Whether `k` flips suffice is monotone in `k`, so the least is found by doubling
//! and bisection.

use super::{
    allocation::{self, Best},
    position::{Flip, Gain, Position},
};
use crate::team::Team;

/// The least flips of a position, with what shows them, among all flips that leave every code a number. (Those that do
/// not are the same for every position: [`super::NanFlips`].)
#[derive(Clone, Debug, PartialEq)]
pub struct LeastFlips {
    /// Least number of flips; 0 where the executed token is not the winner in real arithmetic.
    pub flips: usize,
    /// Fewer flips than these change the executed token under no circumstances. At least 1, at most `flips` (but for
    /// `flips` of 0).
    pub executed_at_least: usize,
    /// The row that wins over the token's.
    pub rival: usize,
    /// The token's logit minus the rival's, before any flip.
    pub margin: f64,
    /// By how much the witness passes the margin.
    pub slack: f64,
    /// By how much it has to pass for the executed program to be certain to follow.
    pub float_error: f64,
    /// Flips that do it, the largest gains first.
    pub witness: Vec<Flip>,
}

/// A rival that so many flips suffice for.
struct Found {
    rival: usize,
    margin: f64,
    slack: f64,
    float_error: f64,
    gains: Vec<Gain>,
}

/// What some number of flips can do.
#[derive(Default)]
struct Level {
    /// The rival that passes its margin by most, if one does.
    best: Option<Found>,
    /// Whether one might in the executed program.
    perhaps: bool,
}

struct Search<'a> {
    position: &'a Position<'a>,
    /// The token's losses, with them `D(i)`.
    losses: Best,
    /// `L(l)`.
    worth: Vec<f64>,
    /// No more flips than these are of any use.
    most: usize,
    /// Rows that may not win.
    excluded: &'a [u32],
}

/// The least flips of a position over all rivals but those `excluded`, among flips that leave every code a number;
/// `None`, where none of these make one of them win.
pub fn least_flips(position: &Position<'_>, excluded: &[u32]) -> Option<LeastFlips> {
    if let Some(none) = no_flips(position) {
        return Some(none);
    }
    let losses = position.gains(position.token.row, false, usize::MAX);
    let worth = position.rows.worth(&position.hidden);
    // All bits of all codes that meet something of the hidden state.
    let met = position.hidden.iter().filter(|h| **h != 0.0).count();
    let most = losses.most() + met * position.rows.head().layout().bits();
    let search = Search { position, losses, worth, most, excluded };
    search.least()
}

/// [`least_flips`] of each position.
pub fn all_least_flips(positions: &[Position<'_>], excluded: &[u32], team: &Team) -> Vec<Option<LeastFlips>> {
    let mut least = vec![None; positions.len()];
    team.for_each_chunk(&mut least, 1, |i, least| least[0] = least_flips(&positions[i], excluded));
    least
}

/// The certificate of a position whose executed token is not the winner in real arithmetic: no flip is needed.
pub(super) fn no_flips(position: &Position<'_>) -> Option<LeastFlips> {
    let second = position.second.filter(|_| !position.agrees())?;
    let margin = position.token.value - second.value;
    let float_error = position.token.executed + second.executed;
    let witness = Vec::new();
    Some(LeastFlips { flips: 0, executed_at_least: 0, rival: second.row, margin, slack: -margin, float_error, witness })
}

impl Search<'_> {
    fn least(mut self) -> Option<LeastFlips> {
        let most = self.most;
        let (mut low, mut high) = (0, 1.min(most));
        let mut found = loop {
            if let Some(found) = self.level(high).best {
                break found;
            }
            if high == most {
                return None;
            }
            low = high;
            high = (2 * high).min(most);
        };
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match self.level(middle).best {
                Some(better) => (high, found) = (middle, better),
                None => low = middle,
            }
        }
        // A single flip may do where it can make an operation overflow: the answer ends there.
        let overflow = self.position.bound.may_overflow(self.position.rows.largest_weight());
        let mut executed = if overflow { 1 } else { high };
        while executed > 1 && self.level(executed - 1).perhaps {
            executed -= 1;
        }
        Some(found.into_least(high, executed))
    }

    /// What `k` flips can do.
    fn level(&mut self, k: usize) -> Level {
        let position = self.position;
        let (token, rows) = (position.token, position.rows);
        let grown = 1.0 + position.bound.largest;
        let last = |sums: &[f64], k: usize| sums[k.min(sums.len() - 1)];
        let worth = &self.worth;
        // `D(i)`; of as many flips as can be, what all of them do is enough.
        let all = [self.losses.sum(usize::MAX)];
        let lost = if k < self.most { self.losses.sums(k) } else { &all };
        // `R_j(k)` for a row whose largest scale is `scale`.
        let reach =
            |scale: f64| lost.iter().enumerate().map(|(i, lost)| lost + scale * last(worth, k - i)).fold(0.0, f64::max);
        let mut candidates: Vec<(f64, usize)> = Vec::new();
        for row in (0..rows.len()).filter(|&row| row != token.row) {
            // How far the executed program may be from the exact one counts for the rival, here and below.
            let error = token.executed + position.coarse(row);
            let margin = position.margin_at_least(row);
            let at_most = grown * (last(lost, k) + rows.scale(row) * last(worth, k));
            if at_most - margin + error < 0.0 || self.excluded.contains(&(row as u32)) {
                continue;
            }
            let slack = grown * reach(rows.scale(row)) - margin;
            if slack + error >= 0.0 {
                candidates.push((slack, row));
            }
        }
        candidates.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let losses = self.losses.of_use(k);
        let mut level = Level::default();
        for (at_most, row) in candidates {
            if level.best.as_ref().is_some_and(|best| at_most < best.slack) {
                break;
            }
            let gains = largest(position, row, k, &losses);
            let gained: f64 = gains.iter().map(|gain| gain.size).sum();
            let grown_by = position.bound.largest * gained;
            let error = token.executed + position.coarse(row) + grown_by;
            if gained - position.margin_at_least(row) + error < 0.0 {
                continue;
            }
            let own = position.logit(row);
            let margin = token.value - own.value;
            let slack = gained - margin;
            let float_error = token.executed + token.of_f64 + own.executed + own.of_f64 + grown_by;
            level.perhaps |= slack + float_error >= 0.0;
            let sizes: Vec<f64> = gains.iter().map(|gain| gain.size).collect();
            let better = level.best.as_ref().is_none_or(|best| slack > best.slack);
            if better && position.beats(&own, &token, &sizes) {
                level.best = Some(Found { rival: row, margin, slack, float_error, gains });
            }
        }
        level
    }
}

/// The best changes of `k` flips among the token's losses and the rival's gains.
fn largest(position: &Position<'_>, rival: usize, k: usize, losses: &[Gain]) -> Vec<Gain> {
    let mut gains = position.gains(rival, true, k).of_use(k);
    gains.extend_from_slice(losses);
    Best::new(gains, position.rows.changes().independent()).changes(k)
}

/// The `k` flips that bring `rival` closest to the position's token, or furthest past it.
pub(super) fn largest_gains(position: &Position<'_>, rival: usize, k: usize) -> Vec<Flip> {
    let losses = position.gains(position.token.row, false, k).of_use(k);
    allocation::flips(&largest(position, rival, k, &losses))
}

impl Found {
    fn into_least(self, flips: usize, executed_at_least: usize) -> LeastFlips {
        LeastFlips {
            flips,
            executed_at_least,
            rival: self.rival,
            margin: self.margin,
            slack: self.slack,
            float_error: self.float_error,
            witness: allocation::flips(&self.gains),
        }
    }
}
