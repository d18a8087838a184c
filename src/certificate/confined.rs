//! The fewest flips that all lie in one packed word, one row or one 64-byte line.
//!
//! A fault in a memory cell, a row of an array or a cache line reaches the bits of one such *unit*. What holds without
//! confinement holds within a unit: only flips in the rows of the token and of one rival count for that rival, and what
//! they gain adds up. So for each unit and each rival with bits in it the least count comes of the best changes of the
//! unit; where the token's row is in the unit and no row of a rival, the rival is the one that is next anyway. The least
//! over all units is the certificate. Lines are counted from the tensor's start, so that one may hold the end of a row and
//! the start of the next. Integers of 3, 5 and 6 bits lie across words and lines; of such a code a unit has some bits,
//! which act alone. Floats have 4 or 8 bits, so each lies in one unit.
//!
//! Rows are passed over as in [`mod@super::least_flips`]: a rival whose margin is beyond what as many flips as the best unit
//! so far needs could give it, wherever they lie in its row, is not read.

use std::ops::Range;

use super::{
    allocation::{self, Best},
    least_flips::{LeastFlips, no_flips},
    position::{Gain, Logit, Position},
};
use crate::quant::Layout;

/// What confines flips.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Within {
    /// One packed word of 32 bits.
    Word,
    /// One row of the head.
    Row,
    /// 64 bytes of `weight`, counted from the tensor's start.
    Line,
}

/// Bytes of a line.
const LINE: usize = 64;

impl Within {
    /// `word`, `row` or `line`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Word => "word",
            Self::Row => "row",
            Self::Line => "line",
        }
    }

    /// Units of a row: number, and the bits of the row in it.
    fn units(self, layout: &Layout, row: usize) -> impl Iterator<Item = (usize, Range<usize>)> + use<> {
        let bytes = layout.weight_row_bytes();
        let (start, size) = match self {
            Self::Word => (row * bytes, 4),
            Self::Row => (row * bytes, bytes),
            Self::Line => (row * bytes, LINE),
        };
        let (first, end) = (start / size, (start + bytes).div_ceil(size));
        (first..end).map(move |unit| {
            let from = (unit * size).saturating_sub(start);
            let to = ((unit + 1) * size - start).min(bytes);
            (unit, 8 * from..8 * to)
        })
    }

    /// Rows with columns in a unit.
    const fn rows(self, layout: &Layout, unit: usize) -> Range<usize> {
        let bytes = layout.weight_row_bytes();
        match self {
            Self::Word => {
                let row = unit * 4 / bytes;
                row..row + 1
            }
            Self::Row => unit..unit + 1,
            Self::Line => {
                let end = ((unit + 1) * LINE).div_ceil(bytes);
                unit * LINE / bytes..if end < layout.rows() { end } else { layout.rows() }
            }
        }
    }
}

struct Search<'a> {
    position: &'a Position<'a>,
    best: Option<LeastFlips>,
    /// Fewest flips that may do in the executed program.
    executed: usize,
}

/// The fewest flips within one unit that make the position's token lose; `None`, where no unit has flips that do.
pub(crate) fn least_flips_within(position: &Position<'_>, within: Within) -> Option<LeastFlips> {
    if let Some(none) = no_flips(position) {
        return Some(none);
    }
    let rows = position.rows;
    let layout = rows.head().layout();
    let token = position.token;
    let mut search = Search { position, best: None, executed: usize::MAX };

    // Units with the token's row: the next best row wins, or one that has bits there, too.
    let second = position.second?;
    for (unit, bits) in within.units(layout, token.row) {
        let losses = search.gains(token.row, bits, false);
        search.try_rival(&second, losses.clone());
        for rival in within.rows(layout, unit).filter(|&row| row != token.row) {
            let bits = within.units(layout, rival).find(|(other, _)| *other == unit).expect("the row is in the unit").1;
            let gains = [search.gains(rival, bits, true), losses.clone()].concat();
            search.try_rival(&position.logit(rival), gains);
        }
    }

    // All others, those that need the fewest flips at best first.
    let worth = rows.worth(&position.hidden);
    let grown = 1.0 + position.bound.largest;
    let mut order: Vec<(usize, usize)> = Vec::new();
    for row in (0..rows.len()).filter(|&row| row != token.row) {
        let needed = position.margin_at_least(row) - token.executed - position.coarse(row);
        let at_least = worth.partition_point(|&worth| grown * rows.scale(row) * worth < needed);
        if at_least < worth.len() {
            order.push((at_least, row));
        }
    }
    order.sort_unstable();
    for (at_least, row) in order {
        if search.best.as_ref().is_some_and(|best| at_least > best.flips) {
            break;
        }
        let needed = position.margin_at_least(row) - token.executed - position.coarse(row);
        let reach = grown * rows.changes().most() * rows.scale(row);
        let mut own: Option<Logit> = None;
        for (_, bits) in within.units(layout, row) {
            let flips = search.best.as_ref().map_or(bits.len(), |best| best.flips);
            let columns = layout.width().columns_in(bits.start / 8..bits.end / 8);
            let largest = position.hidden[columns].iter().fold(0.0_f64, |most, h| most.max(h.abs()));
            if flips as f64 * reach * largest < needed {
                continue;
            }
            let gains = search.gains(row, bits, true);
            let own = *own.get_or_insert_with(|| position.logit(row));
            search.try_rival(&own, gains);
        }
    }
    // A single flip may do where it can make an operation overflow.
    let overflow = position.bound.may_overflow(rows.largest_weight());
    let executed = if overflow { 1 } else { search.executed.max(1) };
    search.best.map(|best| LeastFlips { executed_at_least: executed.min(best.flips), ..best })
}

impl Search<'_> {
    /// The gains of some bits of a row.
    fn gains(&self, row: usize, bits: Range<usize>, raise: bool) -> Vec<Gain> {
        let width = self.position.rows.head().layout().width();
        let mut found = Vec::new();
        for column in width.columns_in(bits.start / 8..bits.end / 8) {
            self.position.gains_of_code(row, column, raise, |gain| {
                let (first, last) = (gain.mask.trailing_zeros() as usize, gain.mask.ilog2() as usize);
                let at = column * width.bits();
                if bits.start <= at + first && at + last < bits.end {
                    found.push(gain);
                }
            });
        }
        found
    }

    /// Takes a rival and the gains that a unit has for it.
    fn try_rival(&mut self, rival: &Logit, gains: Vec<Gain>) {
        let (position, token) = (self.position, self.position.token);
        let mut gains = Best::new(gains, position.rows.changes().independent());
        if let Some(executed) = position.fewest_executed(rival, &token, &[], &mut gains, self.executed) {
            self.executed = self.executed.min(executed);
        }
        let at_most = self.best.as_ref().map_or(usize::MAX, |best| best.flips);
        let Some(flips) = position.fewest(rival, &token, &[], &mut gains, at_most) else { return };
        let changes = gains.changes(flips);
        let gained: f64 = changes.iter().map(|gain| gain.size).sum();
        let margin = token.value - rival.value;
        let slack = gained - margin;
        let better =
            self.best.as_ref().is_none_or(|best| flips < best.flips || (flips == best.flips && slack > best.slack));
        if better {
            let of_rounding = position.bound.largest * gained + token.of_f64 + rival.of_f64;
            let witness = allocation::flips(&changes);
            let float_error = token.executed + rival.executed + of_rounding;
            self.best = Some(LeastFlips {
                flips,
                executed_at_least: flips,
                rival: rival.row,
                margin,
                slack,
                float_error,
                witness,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{quant::FloatType, testing::heads::affine};

    #[test]
    fn lines_are_counted_from_the_tensors_start_and_cut_rows() {
        // 72 words a row are four and a half lines.
        let layout = affine(4, 576, 4, 64, FloatType::F16);
        let units: Vec<_> = Within::Line.units(&layout, 1).collect();
        assert_eq!(units[0], (4, 0..4 * 64));
        assert_eq!(units[1], (5, 4 * 64..4 * 192));
        assert_eq!(units[4], (8, 4 * 448..4 * 576));
        assert_eq!(Within::Line.rows(&layout, 4), 0..2);
        assert_eq!(Within::Line.rows(&layout, 5), 1..2);
        // Two rows of 32 bytes a line.
        let layout = affine(3, 64, 4, 64, FloatType::F16);
        assert_eq!(Within::Line.units(&layout, 1).collect::<Vec<_>>(), [(0, 0..256)]);
        assert_eq!(Within::Line.rows(&layout, 0), 0..2);
        assert_eq!(Within::Line.rows(&layout, 1), 2..3);
    }

    #[test]
    fn words_and_rows_cover_a_row_once() {
        let layout = affine(4, 64, 8, 64, FloatType::F16);
        let words: Vec<_> = Within::Word.units(&layout, 2).collect();
        assert_eq!((words.len(), words[0].clone(), words[15].clone()), (16, (32, 0..32), (47, 480..512)));
        assert_eq!(Within::Row.units(&layout, 2).collect::<Vec<_>>(), [(2, 0..512)]);
        // Six words a row of 3 bits; the code at column 10 has two bits in the first and one in the second.
        let layout = affine(4, 64, 3, 64, FloatType::F16);
        assert_eq!(Within::Word.units(&layout, 1).take(2).collect::<Vec<_>>(), [(6, 0..32), (7, 32..64)]);
    }
}
