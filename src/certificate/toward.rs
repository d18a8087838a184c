//! The fewest flips that make one chosen token the answer's first.
//!
//! The chosen row `y` has to pass *all* others. With `n` flips spent on raising it, the best raise it by `U(n)`; every
//! other row `j` that is then still ahead has to be lowered by what is left of its lead, for which its own best losses
//! serve, `D_j(m)` of `m` flips; rows do not share bits, so their counts add up:
//!
//! ```text
//! f(n) = n + sum over j of  least m with  D_j(m) > z_j - z_y - U(n)
//! ```
//!
//! and the least over `n` is exact. (Pairwise margins would not do: lowering is paid for each rival, raising once for
//! all.) Each row that is still ahead costs at least one flip, so `f(n) >= n + (rows ahead)`, and only where that is
//! less than the best so far is `f(n)` computed.

use super::{
    allocation::{self, Best},
    position::{Flip, Logit, Position},
};

/// The least flips after which a position's token is a chosen one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Toward {
    /// Least number of flips; 0 where the token is chosen already.
    pub flips: usize,
    /// Fewer than these do it under no circumstances in the executed program, unless an operation overflows.
    pub executed_at_least: usize,
    /// Flips that do it: first those that raise the chosen token, then those that lower others.
    pub witness: Vec<Flip>,
    /// How many of them raise the chosen token.
    pub raising: usize,
    /// Rows that are lowered.
    pub lowered: usize,
    /// By how much the chosen token is ahead afterwards, less what float error may take, of the worst rival.
    pub spare: f64,
}

/// What is minimized: the exact count, or a lower bound of the executed one.
#[derive(Clone, Copy, PartialEq)]
enum Claim {
    Exact,
    Executed,
}

struct Search<'a> {
    position: &'a Position<'a>,
    chosen: Logit,
    /// Gains of the chosen row.
    gains: Best,
    /// Logits of the rows that are, or may be, ahead of the chosen one; the largest first.
    ahead: Vec<Logit>,
}

/// The least flips after which `token` is the first largest logit of a position; `None`, where none do it. Flips that make
/// a code NaN do not: no token is chosen then.
///
/// # Panics
/// If there is no row `token`.
pub(crate) fn toward(position: &Position<'_>, token: usize) -> Option<Toward> {
    let chosen = position.logit(token);
    let mut ahead: Vec<Logit> = (0..position.rows.len())
        .filter(|&row| row != token)
        .filter(|&row| {
            let error = 2.0 * position.coarse(row) + chosen.executed + chosen.of_f64;
            position.executed(row) + error >= chosen.value
        })
        .map(|row| position.logit(row))
        .collect();
    ahead.sort_unstable_by(|a, b| b.value.total_cmp(&a.value).then(a.row.cmp(&b.row)));
    let gains = position.gains(token, true, usize::MAX);
    let mut search = Search { position, chosen, gains, ahead };
    let (flips, raising) = search.least(Claim::Exact)?;
    let executed_at_least = search.least(Claim::Executed).map_or(flips, |(least, _)| least.min(flips));

    let raised = search.gains.changes(raising);
    let base: Vec<f64> = raised.iter().map(|gain| gain.size).collect();
    let mut witness: Vec<Flip> = allocation::flips(&raised);
    let (mut lowered, mut spare) = (0, f64::INFINITY);
    for rival in search.ahead {
        let mut losses = position.gains(rival.row, false, flips - raising);
        let needed = position.fewest(&chosen, &rival, &base, &mut losses, flips - raising).expect("f(n) is finite");
        let lowered_by = losses.changes(needed);
        let moved: f64 = base.iter().chain(lowered_by.iter().map(|loss| &loss.size)).sum();
        lowered += usize::from(needed > 0);
        let error = chosen.executed + rival.executed + position.bound.largest * moved;
        spare = spare.min(chosen.value + moved - rival.value - error);
        witness.extend(allocation::flips(&lowered_by));
    }
    Some(Toward { flips, executed_at_least, witness, raising, lowered, spare })
}

impl Search<'_> {
    /// The least `f(n)`, and the first `n` that gives it.
    fn least(&mut self, claim: Claim) -> Option<(usize, usize)> {
        let most = self.gains.most();
        // Raising alone, where that is enough; else raising all that can be.
        let all = self.flips(most, usize::MAX, claim)?;
        let alone = if all == most { (0..=most).find(|&n| self.flips(n, n + 1, claim).is_some()) } else { None };
        let mut best = alone.map_or((all, most), |n| (n, n));
        // With as many flips spent on raising as the best needs in all, nothing is gained.
        for n in 0..=most {
            if n >= best.0 {
                break;
            }
            if let Some(flips) = self.flips(n, best.0, claim) {
                best = (flips, n);
            }
        }
        Some(best)
    }

    /// `f(n)`, if it is below `limit`.
    fn flips(&mut self, n: usize, limit: usize, claim: Claim) -> Option<usize> {
        let (position, chosen) = (self.position, self.chosen);
        let base: Vec<f64> = self.gains.changes(n).iter().map(|gain| gain.size).collect();
        let base = base.as_slice();
        let sum: f64 = base.iter().sum();
        let (low, high) = (sum * (1.0 - position.bound.largest), sum * (1.0 + position.bound.largest));
        let error = |rival: &Logit| rival.executed + rival.of_f64 + chosen.executed + chosen.of_f64;
        // Certain to be ahead, whatever the claim; a few that are not counted here cost time, and no more.
        let certain = |rival: &&Logit| rival.value - error(rival) > chosen.value + high;
        if n + self.ahead.iter().take_while(certain).count() >= limit {
            return None;
        }
        let mut flips = n;
        for rival in self.ahead.iter().filter(|rival| rival.value + error(rival) >= chosen.value + low) {
            let left = limit - flips;
            let losses = &mut position.gains(rival.row, false, left);
            flips += match claim {
                Claim::Exact => position.fewest(&chosen, rival, base, losses, left)?,
                Claim::Executed => position.fewest_executed(&chosen, rival, base, losses, left)?,
            };
            if flips >= limit {
                return None;
            }
        }
        Some(flips)
    }
}
