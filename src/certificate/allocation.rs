//! The most that some number of flips can do, when each may go to any code.
//!
//! Where changes are independent of each other, each of one flip, the largest are best. Where at most one change of each code
//! can be made, and it may take several flips, they are allocated by a dynamic program over the codes:
//!
//! ```text
//! T(c, n) = the most that n flips, or fewer, of the first c codes do
//!         = max of T(c - 1, n)  and  T(c - 1, n - m) + g(c, m)   over the changes of code c, m flips that gain g(c, m)
//! ```
//!
//! That is exact, whatever shape `g(c, .)` has, if its sums are, for which see [`Total`].
//!
//! *Few codes matter.* Let `x` be the `n`-th largest gain of a single flip, each of another code. A change of code `c` that takes
//! `m` flips and gains less than `x` is in no best allocation of `n` flips that needs it: besides it at most `n - m` other
//! codes are changed, so of the `n` codes of those single flips at least `m - 1` are neither changed nor `c`, and at least
//! one if `m = 1`, where `c` itself is none of them. A single flip of that code gains more and takes no more flips. So only
//! changes that gain `x` or more are looked at; they are few, as long as `n` is small.

use super::position::{Flip, Gain, by_size};
use crate::exact::Sum;

/// What any number of flips can do at most, out of some gains.
#[derive(Clone, Debug)]
pub(super) struct Best {
    /// Largest first.
    gains: Vec<Gain>,
    independent: bool,
    /// More flips than these do no more.
    most: usize,
    /// `sums[n]`: what the best `n` do, in sum, as far as that is known. Rounded once.
    sums: Vec<f64>,
    table: Table,
}

/// Which change of each code is made, by number of flips.
#[derive(Clone, Debug, Default)]
struct Table {
    /// Changes of each code that are looked at, fewer flips first.
    codes: Vec<Vec<Gain>>,
    /// Numbers of flips, from 0, that the table has a column for.
    columns: usize,
    /// `[codes][columns]`: the change of a code, counted from 1, or 0 where it is left as it is.
    chosen: Vec<u8>,
}

impl Best {
    /// Of gains that are all independent of each other, or of which one code has one at most.
    pub(super) fn new(mut gains: Vec<Gain>, independent: bool) -> Self {
        gains.sort_unstable_by(by_size);
        let (most, sums) = if independent {
            let mut sums = vec![0.0];
            sums.extend(gains.iter().scan(0.0, |sum, gain| {
                *sum += gain.size;
                Some(*sum)
            }));
            (gains.len(), sums)
        } else {
            (largest_of_codes(&gains).iter().map(Gain::flips).sum(), vec![0.0])
        };
        Self { gains, independent, most, sums, table: Table::default() }
    }

    /// More flips than these do no more.
    pub(super) const fn most(&self) -> usize {
        self.most
    }

    /// The gains, those left out that are not among the best of `flips` flips, whatever others there are.
    pub(super) fn of_use(&self, flips: usize) -> Vec<Gain> {
        if self.independent {
            return self.gains[..flips.min(self.gains.len())].to_vec();
        }
        let mut gains = self.gains.clone();
        leave_out(&mut gains, flips);
        gains
    }

    /// What the best 0, 1, ..., `flips` flips do in sum; fewer, where more do no more.
    pub(super) fn sums(&mut self, flips: usize) -> &[f64] {
        let flips = flips.min(self.most);
        self.grow(flips);
        &self.sums[..=flips]
    }

    /// What the best `flips` flips do in sum.
    pub(super) fn sum(&mut self, flips: usize) -> f64 {
        if flips >= self.most && !self.independent {
            return largest_of_codes(&self.gains).iter().map(|gain| gain.size).sum();
        }
        self.sums(flips).last().copied().unwrap_or(0.0)
    }

    /// The best changes of at most `flips` flips, largest first.
    pub(super) fn changes(&mut self, flips: usize) -> Vec<Gain> {
        if self.independent {
            return self.gains[..flips.min(self.most)].to_vec();
        }
        if flips >= self.most {
            return largest_of_codes(&self.gains);
        }
        self.grow(flips);
        self.table.changes(flips)
    }

    /// Makes the table reach so many flips.
    fn grow(&mut self, flips: usize) {
        if flips < self.sums.len() {
            return;
        }
        // Doubled, so that asking for one more each time costs no more than twice what asking once does.
        let flips = flips.max(2 * self.sums.len()).min(self.most);
        let mut gains = self.of_use(flips);
        gains.sort_unstable_by_key(|gain| (gain.row, gain.column, gain.flips()));
        let codes: Vec<Vec<Gain>> =
            gains.chunk_by(|a, b| (a.row, a.column) == (b.row, b.column)).map(<[Gain]>::to_vec).collect();
        let sizes: Vec<f64> = codes.iter().flatten().map(|gain| gain.size).collect();
        let columns = flips + 1;
        let chosen = match Fixed::of(&sizes) {
            Some(fixed) => {
                let (chosen, totals) = allocate(&codes, &fixed.numbers, 0_i128, columns);
                self.sums = totals.into_iter().map(|total| total as f64 * fixed.unit).collect();
                chosen
            }
            None => {
                let numbers: Vec<Sum> = sizes.iter().map(|&size| Sum::of(size)).collect();
                let (chosen, totals) = allocate(&codes, &numbers, Sum::default(), columns);
                self.sums = totals.iter().map(Sum::value).collect();
                chosen
            }
        };
        self.table = Table { codes, columns, chosen };
    }
}

impl Table {
    /// The changes that a column stands for.
    fn changes(&self, flips: usize) -> Vec<Gain> {
        let (mut left, mut found) = (flips, Vec::new());
        for (code, changes) in self.codes.iter().enumerate().rev() {
            if let Some(change) = usize::from(self.chosen[code * self.columns + left]).checked_sub(1) {
                left -= changes[change].flips();
                found.push(changes[change]);
            }
        }
        found.sort_unstable_by(by_size);
        found
    }
}

/// Of each code the change that gains most, of gains that are sorted; they stay sorted.
fn largest_of_codes(gains: &[Gain]) -> Vec<Gain> {
    let mut seen = std::collections::HashSet::new();
    gains.iter().filter(|gain| seen.insert((gain.row, gain.column))).copied().collect()
}

/// Leaves out gains that are less than the `flips`-th largest of a single flip, which it returns; 0 where there is none.
pub(super) fn leave_out(gains: &mut Vec<Gain>, flips: usize) -> f64 {
    let mut single: Vec<f64> = gains.iter().filter(|gain| gain.flips() == 1).map(|gain| gain.size).collect();
    if flips == 0 {
        gains.clear();
    }
    if flips == 0 || single.len() < flips {
        return 0.0;
    }
    let least = *single.select_nth_unstable_by(flips - 1, |a, b| b.total_cmp(a)).1;
    gains.retain(|gain| gain.size >= least);
    least
}

/// A sum that is exact, so that two of them compare as what they stand for.
trait Total: Clone {
    fn plus(&self, other: &Self) -> Self;
    fn exceeds(&self, other: &Self) -> bool;
}

impl Total for i128 {
    fn plus(&self, other: &Self) -> Self {
        self + other
    }
    fn exceeds(&self, other: &Self) -> bool {
        self > other
    }
}

/// Where gains lie so far apart that no integer holds all of them.
impl Total for Sum {
    fn plus(&self, other: &Self) -> Self {
        Self::plus(self, other)
    }
    fn exceeds(&self, other: &Self) -> bool {
        Self::compare(self, other).is_gt()
    }
}

/// Positive numbers as integer multiples of a power of two.
struct Fixed {
    numbers: Vec<i128>,
    unit: f64,
}

impl Fixed {
    /// `None` where the sum of the numbers could need more than 126 bits.
    fn of(sizes: &[f64]) -> Option<Self> {
        // As an odd number and a power of two. Gains are products of normal numbers, far from the least number of f64.
        let split: Vec<(u64, i32)> = sizes
            .iter()
            .map(|size| {
                let bits = size.to_bits();
                let mantissa = bits & ((1 << 52) - 1) | 1 << 52;
                let zeros = mantissa.trailing_zeros();
                (mantissa >> zeros, (bits >> 52) as i32 - 1075 + zeros as i32)
            })
            .collect();
        let least = split.iter().map(|(_, exponent)| *exponent).min().unwrap_or(0);
        let most = split.iter().map(|(odd, exponent)| exponent + odd.ilog2() as i32 + 1).max().unwrap_or(0);
        let bits = (most - least) as u32 + (sizes.len() + 1).next_power_of_two().ilog2();
        let numbers = || split.iter().map(|&(odd, exponent)| i128::from(odd) << (exponent - least)).collect();
        (bits <= 126).then(|| Self { numbers: numbers(), unit: 2.0_f64.powi(least) })
    }
}

/// The table's choices and the totals of its columns. `sizes` are what the changes of `codes` gain, in their order.
fn allocate<T: Total>(codes: &[Vec<Gain>], sizes: &[T], zero: T, columns: usize) -> (Vec<u8>, Vec<T>) {
    let mut totals = vec![zero; columns];
    let mut chosen = vec![0; codes.len() * columns];
    let mut sizes = sizes;
    for (changes, chosen) in codes.iter().zip(chosen.chunks_exact_mut(columns)) {
        let (own, rest) = sizes.split_at(changes.len());
        sizes = rest;
        // From above, so that what is added to has no change of this code yet.
        for flips in (1..columns).rev() {
            for (i, (change, size)) in changes.iter().zip(own).enumerate().take_while(|(_, (c, _))| c.flips() <= flips)
            {
                let with = totals[flips - change.flips()].plus(size);
                if with.exceeds(&totals[flips]) {
                    totals[flips] = with;
                    chosen[flips] = i as u8 + 1;
                }
            }
        }
    }
    (chosen, totals)
}

/// The bits that some changes flip.
pub(super) fn flips(changes: &[Gain]) -> Vec<Flip> {
    changes.iter().flat_map(Gain::each).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn gain(column: u32, mask: u8, size: f64) -> Gain {
        Gain { size, row: 0, column, mask }
    }

    /// The most that `flips` flips do, by trying all allocations.
    fn tried(codes: &[Vec<Gain>], flips: usize) -> f64 {
        let Some((first, rest)) = codes.split_first() else { return 0.0 };
        let with = first.iter().filter(|gain| gain.flips() <= flips);
        with.map(|gain| gain.size + tried(rest, flips - gain.flips())).fold(tried(rest, flips), f64::max)
    }

    #[test]
    fn flips_go_where_most_of_them_together_do_most() {
        // Sorting by what a flip adds would take the single flip of column 0 first.
        let gains = vec![gain(0, 1, 3.0), gain(1, 1, 2.0), gain(1, 3, 8.0), gain(2, 7, 11.5)];
        let mut best = Best::new(gains.clone(), false);
        assert_eq!((best.most(), best.sums(9)), (6, &[0.0, 3.0, 8.0, 11.5, 14.5, 19.5, 22.5][..]));
        assert_eq!(best.changes(2), [gains[2]]);
        assert_eq!(flips(&best.changes(4)).len(), 4);
        assert_eq!((best.sum(100), best.changes(100).len()), (22.5, 3));
        let mut alone = Best::new(vec![gain(0, 1, 3.0), gain(1, 1, 2.0), gain(1, 2, 8.0)], true);
        assert_eq!((alone.most(), alone.sums(9)), (3, &[0.0, 8.0, 11.0, 13.0][..]));
        assert_eq!(alone.changes(1), [gain(1, 2, 8.0)]);
    }

    #[test]
    fn gains_that_no_integer_holds_together_are_added_without_rounding_all_the_same() {
        let tiny = 2.0_f64.powi(-200);
        let gains = vec![gain(0, 1, 1.0), gain(1, 1, 1.0), gain(1, 3, 1.0 + 2.0_f64.powi(-52)), gain(2, 1, tiny)];
        let mut best = Best::new(gains.clone(), false);
        assert!(Fixed::of(&gains.iter().map(|gain| gain.size).collect::<Vec<_>>()).is_none());
        // Three flips: both ones and the tiny one, or one and a little more.
        assert_eq!(best.changes(3), [gains[2], gains[0]]);
        assert_eq!(best.changes(4), [gains[2], gains[0], gains[3]]);
    }

    proptest! {
        #[test]
        fn no_allocation_does_more(
            drawn in prop::collection::vec(prop::collection::vec(1_u32..40, 0..4), 1..6),
            scattered in any::<bool>(),
        ) {
            let mut codes: Vec<Vec<Gain>> = Vec::new();
            for (column, steps) in drawn.iter().enumerate() {
                let mut size = 0.0;
                let step = |(m, step): (usize, &u32)| {
                    size += f64::from(*step) * if scattered { 2.0_f64.powi(-9 * column as i32) } else { 1.0 };
                    gain(column as u32, (1 << (m + 1)) - 1, size)
                };
                codes.push(steps.iter().enumerate().map(step).collect());
            }
            let mut best = Best::new(codes.concat(), false);
            for flips in 0..=best.most() + 1 {
                let most = tried(&codes, flips);
                prop_assert_eq!(best.sum(flips), most);
                let changes = best.changes(flips);
                prop_assert_eq!(changes.iter().map(|gain| gain.size).sum::<f64>(), most);
                prop_assert!(changes.iter().map(Gain::flips).sum::<usize>() <= flips);
            }
        }
    }
}
