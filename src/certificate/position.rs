//! A position of a clean answer, as certificates see it: its hidden state, its token, and the logits of all rows.

use std::{cmp::Ordering, ops::Range};

use crate::{
    edit::{Change, Edit},
    exact::Sum,
    kernels::Rounding,
    quant::{MatrixRef, Tensor},
    team::Team,
};

use super::{
    CertificateError,
    allocation::{Best, leave_out},
    bound::{Bound, dot, of_constant},
    changes::Changes,
};

/// One bit of one code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flip {
    /// Row of the head.
    pub row: u32,
    /// Column of the code.
    pub column: u32,
    /// Bit of the code, 0 is the least.
    pub bit: u8,
}

impl Flip {
    /// As a change of the head.
    pub const fn change(self) -> Change {
        let Self { row, column, bit } = self;
        Change::Flip { tensor: Tensor::Weight, row: row as usize, column: column as usize, bit: bit as u32 }
    }

    /// All of `flips` as one edit.
    pub fn edit(flips: &[Self]) -> Edit {
        Edit::new(flips.iter().map(|flip| flip.change()).collect())
    }
}

/// Whether row `a` wins over row `b`, given how their logits compare: of equal ones the first wins.
fn wins(a: usize, b: usize, order: Ordering) -> bool {
    order.then(b.cmp(&a)).is_gt()
}

/// A change of one code and how far it moves its row's logit in the wanted direction: more than 0, and exact (the change
/// of the value, the scale and the hidden state have no more than 53 significant bits together).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Gain {
    pub(super) size: f64,
    pub(super) row: u32,
    pub(super) column: u32,
    /// Bits of the code that are flipped.
    pub(super) mask: u8,
}

impl Gain {
    /// How many bits it flips.
    pub(super) const fn flips(&self) -> usize {
        self.mask.count_ones() as usize
    }

    /// The bits that it flips.
    pub(super) fn each(&self) -> impl Iterator<Item = Flip> + use<> {
        let Self { row, column, mask, .. } = *self;
        (0..8).filter(move |bit| mask >> bit & 1 == 1).map(move |bit| Flip { row, column, bit })
    }
}

/// Larger gains first; of equal ones the first code and the least bits, so that results do not depend on how they were
/// found.
pub(super) fn by_size(a: &Gain, b: &Gain) -> Ordering {
    b.size.total_cmp(&a.size).then((a.row, a.column, a.mask).cmp(&(b.row, b.column, b.mask)))
}

/// Flips that make codes NaN, wherever they are in a head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NanFlips {
    /// Fewest flips that make a code NaN.
    pub flips: usize,
    /// Flips that do it, all in one code: of the codes that so few make NaN the first.
    pub witness: Vec<Flip>,
    /// Every single flip that makes a code NaN, by row, column and bit.
    pub single: Vec<Flip>,
}

/// A head, and what holds of its rows whatever the hidden state.
#[derive(Debug)]
pub struct Rows<'a> {
    head: MatrixRef<'a>,
    /// What it adds to each row's product, where it has a bias.
    constants: Option<&'a [f32]>,
    /// The largest magnitude of these.
    largest_constant: f64,
    /// What flips do to codes.
    changes: Changes,
    /// How its logits are rounded.
    pub(super) rounding: Rounding,
    /// Where the format has NaN among its codes.
    nan: Option<NanFlips>,
    /// Largest magnitude of a row's scales.
    scale: Vec<f64>,
    /// Largest magnitude that a weight of the row can have, whatever its code.
    weight: Vec<f64>,
    /// The largest of these.
    largest_weight: f64,
}

impl<'a> Rows<'a> {
    /// Reads all scales and biases of `head`, whose logits are executed with this rounding; its codes, too, where they can
    /// be NaN.
    pub fn new(head: MatrixRef<'a>, rounding: Rounding, team: &Team) -> Self {
        let layout = head.layout();
        let mut found = vec![(0.0_f64, 0.0_f64); layout.rows()];
        let changes = Changes::new(layout.format().codes());
        team.for_each_chunk(&mut found, 256, |chunk, found| {
            for (i, (scale, weight)) in found.iter_mut().enumerate() {
                let row = 256 * chunk + i;
                for group in 0..layout.groups_per_row() {
                    let s = f64::from(head.scale(row, group));
                    *scale = scale.max(s.abs());
                    *weight = weight.max(largest_weight(&changes, s, bias(&head, row, group)));
                }
            }
        });
        let (scale, weight): (Vec<f64>, Vec<f64>) = found.into_iter().unzip();
        let largest_weight = weight.iter().copied().fold(0.0, f64::max);
        let nan = changes.have_nan().then(|| nan_flips(&head, &changes, team));
        let (constants, largest_constant) = (None, 0.0);
        Self { head, constants, largest_constant, changes, rounding, nan, scale, weight, largest_weight }
    }

    /// The same head with a bias: what is added to each row's product, `[vocab_size]`, if anything is.
    ///
    /// # Panics
    /// If that is not as long as the head has rows.
    #[must_use]
    pub fn with_bias(mut self, bias: Option<&'a [f32]>) -> Self {
        assert!(bias.is_none_or(|bias| bias.len() == self.len()), "a bias of {} rows", self.len());
        self.constants = bias;
        self.largest_constant = bias.unwrap_or_default().iter().map(|x| f64::from(x.abs())).fold(0.0, f64::max);
        self
    }

    /// The head.
    pub const fn head(&self) -> &MatrixRef<'a> {
        &self.head
    }

    pub(super) const fn len(&self) -> usize {
        self.head.layout().rows()
    }

    pub(super) fn scale(&self, row: usize) -> f64 {
        self.scale[row]
    }

    pub(super) fn weight(&self, row: usize) -> f64 {
        self.weight[row]
    }

    pub(super) const fn largest_weight(&self) -> f64 {
        self.largest_weight
    }

    /// Flips that make codes NaN; `None` where no code of the format is. Each of them changes every answer: the logit of
    /// its row is NaN at any position, and the program ends that step as NONFINITE.
    pub const fn nan(&self) -> Option<&NanFlips> {
        self.nan.as_ref()
    }

    /// What the head adds to the product of a row, 0 where it has no bias.
    pub(super) fn constant(&self, row: usize) -> f64 {
        self.constants.map_or(0.0, |constants| f64::from(constants[row]))
    }

    /// How the logits are rounded that come of these codes and of what is added to them.
    fn rounding(&self) -> Rounding {
        // A float's product with its scale is not rounded.
        let exact = self.head.layout().format().codes().are_floats();
        let of_products = if exact { self.rounding.of_exact_weights() } else { self.rounding };
        if self.constants.is_some() { of_products.of_a_sum() } else { of_products }
    }

    /// What flips do to codes.
    pub(super) const fn changes(&self) -> &Changes {
        &self.changes
    }

    /// The bias of a group, 0 where the format has none.
    pub(super) fn bias(&self, row: usize, group: usize) -> f64 {
        bias(&self.head, row, group)
    }

    /// The largest magnitude of a weight under this scale and bias, whatever its code, unless that is NaN.
    pub(super) fn largest_weight_of(&self, scale: f64, bias: f64) -> f64 {
        largest_weight(&self.changes, scale, bias)
    }

    /// Bounds of what flips in a row do to its product with `hidden`, relative to its largest scale: entry `n` of `n` flips,
    /// and the last of as many as one likes.
    pub(super) fn worth(&self, hidden: &[f64]) -> Vec<f64> {
        let of = |h: f64| self.changes.worth().iter().map(move |worth| worth * h.abs());
        let mut worth: Vec<f64> = hidden.iter().filter(|h| **h != 0.0).flat_map(|&h| of(h)).collect();
        worth.sort_unstable_by(|a, b| b.total_cmp(a));
        let mut sum = 0.0;
        let sums = worth.into_iter().map(|worth| {
            sum += worth;
            sum
        });
        std::iter::once(0.0).chain(sums).collect()
    }

    /// The changes of one code that raise its row's product with a vector that has `hidden` in the code's column, or
    /// lower it.
    pub(super) fn gains_of_code(
        &self,
        row: usize,
        column: usize,
        hidden: f64,
        raise: bool,
        mut found: impl FnMut(Gain),
    ) {
        let layout = self.head.layout();
        let up = f64::from(self.head.scale(row, column / layout.group_size())) * hidden;
        if up == 0.0 {
            return;
        }
        // Raising a value moves the product along `up`, lowering it against it.
        for change in self.changes.of(self.head.code(row, column), (up > 0.0) == raise) {
            found(Gain { size: change.by * up.abs(), row: row as u32, column: column as u32, mask: change.mask });
        }
    }

    /// The exact weights of a row.
    pub(super) fn weights(&self, row: usize) -> Vec<f64> {
        let layout = self.head.layout();
        let mut weights = Vec::with_capacity(layout.cols());
        for group in 0..layout.groups_per_row() {
            let (scale, bias) = (f64::from(self.head.scale(row, group)), self.bias(row, group));
            // The product is exact: at most 24 + 8 bits.
            weights.extend(self.head.codes(row, group).map(|code| scale * self.changes.value(code) + bias));
        }
        weights
    }
}

fn bias(head: &MatrixRef<'_>, row: usize, group: usize) -> f64 {
    if head.layout().format().has_biases() { f64::from(head.bias(row, group)) } else { 0.0 }
}

/// Values reach from 0, or as far below it, to the largest.
fn largest_weight(changes: &Changes, scale: f64, bias: f64) -> f64 {
    bias.abs().max((changes.largest_value() * scale + bias).abs())
}

/// Looks at every code for the flips that make it NaN.
fn nan_flips(head: &MatrixRef<'_>, changes: &Changes, team: &Team) -> NanFlips {
    const ROWS: usize = 64;
    let layout = head.layout();
    // For each rows' part: the fewest flips and where, and the columns where one does it.
    type Part = (Option<(u32, u32, u32)>, Vec<(u32, u32)>);
    let mut parts: Vec<Part> = vec![Part::default(); layout.rows().div_ceil(ROWS)];
    team.for_each_chunk(&mut parts, 1, |chunk, parts| {
        let (least, single) = &mut parts[0];
        for row in chunk * ROWS..((chunk + 1) * ROWS).min(layout.rows()) {
            let codes = (0..layout.groups_per_row()).flat_map(|group| head.codes(row, group));
            for (column, code) in codes.enumerate() {
                let Some(flips) = changes.to_nan(code) else { continue };
                if flips == 1 {
                    single.push((row as u32, column as u32));
                }
                if least.is_none_or(|(least, ..)| flips < least) {
                    *least = Some((flips, row as u32, column as u32));
                }
            }
        }
    });
    let making = |row: u32, column: u32, flips: u32| {
        let code = head.code(row as usize, column as usize);
        let masks = (0..=layout.width().mask()).filter(move |mask| mask.count_ones() == flips);
        let mut masks = masks.filter(move |mask| changes.is_nan(code ^ mask));
        let gain = Gain { size: 0.0, row, column, mask: masks.next().unwrap_or(0) as u8 };
        gain.each()
    };
    let least = parts.iter().filter_map(|part| part.0).min();
    let single = parts.iter().flat_map(|part| &part.1).flat_map(|&(row, column)| making(row, column, 1));
    NanFlips {
        flips: least.map_or(0, |(flips, ..)| flips as usize),
        witness: least.map_or(Vec::new(), |(flips, row, column)| making(row, column, flips).collect()),
        single: single.collect(),
    }
}

/// A row's logit in real arithmetic, with what bounds its errors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Logit {
    pub(super) row: usize,
    /// Evaluated in `f64`.
    pub(super) value: f64,
    /// How far the executed logit can be from the exact one, if it is finite.
    pub(super) executed: f64,
    /// How far `value` can be from the exact one.
    pub(super) of_f64: f64,
}

/// What an edit does to the token of a position in the program that really runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Another token is chosen, or a logit is not finite.
    Changes,
    /// The token is chosen as before.
    Stays,
    /// Within the bound of the kernel's rounding.
    Undecided,
}

/// One position of a clean answer.
#[derive(Debug)]
pub struct Position<'a> {
    pub(super) rows: &'a Rows<'a>,
    pub(super) hidden: Vec<f64>,
    /// Columns, those with the largest hidden magnitude first.
    pub(super) columns: Vec<u32>,
    pub(super) bound: Bound,
    /// Executed logits.
    executed: &'a [f32],
    pub(super) token: Logit,
    /// The row that wins once the token's is out of the way, in real arithmetic. `None` in a head of one row.
    pub(super) second: Option<Logit>,
    /// Largest executed logit but the token's.
    pub(super) executed_second: f64,
}

impl<'a> Position<'a> {
    /// A position with its hidden state, `[hidden_size]`, and the logits that were executed there, `[vocab_size]`;
    /// its token is the first largest of them.
    ///
    /// # Errors
    /// [`CertificateError::NotFinite`], if one of these numbers, or a row's largest possible weight, is not finite.
    ///
    /// # Panics
    /// If the lengths do not fit the head.
    pub fn new(rows: &'a Rows<'a>, hidden: &[f32], executed: &'a [f32]) -> Result<Self, CertificateError> {
        let layout = rows.head.layout();
        assert_eq!((hidden.len(), executed.len()), (layout.cols(), layout.rows()), "columns and rows of the head");
        let finite = hidden.iter().chain(executed).all(|x| x.is_finite()) && rows.largest_weight.is_finite();
        if !finite {
            return Err(CertificateError::NotFinite { step: None });
        }
        let hidden: Vec<f64> = hidden.iter().map(|&h| f64::from(h)).collect();
        let mut columns: Vec<u32> = (0..hidden.len() as u32).collect();
        let size = |&c: &u32| hidden[c as usize].abs();
        columns.sort_by(|a, b| size(b).total_cmp(&size(a)));
        let token = executed.iter().enumerate().rev().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(row, _)| row);
        let bound = Bound::new(&hidden, rows.rounding(), rows.largest_constant);
        let none = Logit { row: token, value: 0.0, executed: 0.0, of_f64: 0.0 };
        let mut position = Self {
            rows,
            hidden,
            columns,
            bound,
            executed,
            token: none,
            second: None,
            executed_second: f64::NEG_INFINITY,
        };
        position.token = position.logit(token);
        position.find_second();
        Ok(position)
    }

    /// The token that is chosen here.
    pub const fn token(&self) -> usize {
        self.token.row
    }

    /// The row's logit in real arithmetic, evaluated in `f64`, and how far the executed one can be from it (see
    /// [`super`]).
    pub fn exact_logit(&self, row: usize) -> (f64, f64) {
        let logit = self.logit(row);
        (logit.value, logit.executed + logit.of_f64)
    }

    fn find_second(&mut self) {
        let token = self.token.row;
        let rivals = || (0..self.rows.len()).filter(|&row| row != token);
        let (mut best, mut at_least) = (f64::NEG_INFINITY, f64::NEG_INFINITY);
        for row in rivals() {
            let executed = self.executed(row);
            best = best.max(executed);
            at_least = at_least.max(executed - self.coarse(row));
        }
        let mut second: Option<Logit> = None;
        for row in rivals().filter(|&row| self.executed(row) + self.coarse(row) >= at_least) {
            let logit = self.logit(row);
            if second.is_none_or(|second| self.beats(&logit, &second, &[])) {
                second = Some(logit);
            }
        }
        self.second = second;
        self.executed_second = best;
    }

    pub(super) fn executed(&self, row: usize) -> f64 {
        f64::from(self.executed[row])
    }

    /// How far a row's executed logit can be from the exact one, without reading the row; after any flips of its
    /// codes, too.
    pub(super) fn coarse(&self, row: usize) -> f64 {
        self.bound.coarse(self.rows.weight[row]) + of_constant(self.rows.constant(row))
    }

    /// Reads a row for its logit.
    pub(super) fn logit(&self, row: usize) -> Logit {
        let weights = self.rows.weights(row);
        let constant = self.rows.constant(row);
        let executed = self.bound.fine(&weights) + of_constant(constant);
        let value = dot(&weights, &self.hidden, |w, h| w * h) + constant;
        Logit { row, value, executed, of_f64: self.bound.of_f64(executed) }
    }

    /// A lower bound of the margin between the token and `row`, without reading the row.
    pub(super) fn margin_at_least(&self, row: usize) -> f64 {
        self.token.value - self.token.of_f64 - self.executed(row) - self.coarse(row)
    }

    /// Whether row `a` wins over row `b` in real arithmetic once the difference between their logits has moved by
    /// `gains` in favour of `a`: it is larger, or equal and the first.
    pub(super) fn beats(&self, a: &Logit, b: &Logit, gains: &[f64]) -> bool {
        let moved: f64 = gains.iter().sum();
        let size: f64 = gains.iter().map(|gain| gain.abs()).sum();
        let ahead = a.value + moved - b.value;
        let rounding = (size + a.value.abs() + b.value.abs()) * (gains.len() + 4) as f64 * 2.0_f64.powi(-52);
        if ahead.abs() > rounding + a.of_f64 + b.of_f64 {
            return ahead > 0.0;
        }
        let mut sum = Sum::default();
        for (row, sign) in [(a.row, 1.0), (b.row, -1.0)] {
            self.add_row(&mut sum, row, sign);
        }
        gains.iter().for_each(|&gain| sum.add(gain));
        wins(a.row, b.row, sum.sign())
    }

    /// Whether `row` wins over `other` in real arithmetic once the scale and bias of one of its groups are others.
    pub(super) fn beats_with(&self, row: usize, group: usize, (scale, bias): (f64, f64), other: usize) -> bool {
        let size = self.rows.head.layout().group_size();
        let mut sum = Sum::default();
        sum.add(self.rows.constant(row));
        self.add_columns(&mut sum, row, 0..group * size, 1.0, None);
        self.add_columns(&mut sum, row, group * size..(group + 1) * size, 1.0, Some((scale, bias)));
        self.add_columns(&mut sum, row, (group + 1) * size..self.hidden.len(), 1.0, None);
        self.add_row(&mut sum, other, -1.0);
        wins(row, other, sum.sign())
    }

    /// Adds a row's logit, exactly, or takes it off.
    fn add_row(&self, sum: &mut Sum, row: usize, sign: f64) {
        self.add_columns(sum, row, 0..self.hidden.len(), sign, None);
        sum.add(sign * self.rows.constant(row));
    }

    /// Adds what some columns of a row give to its logit, exactly, with their own scales and biases or others.
    fn add_columns(&self, sum: &mut Sum, row: usize, columns: Range<usize>, sign: f64, instead: Option<(f64, f64)>) {
        let head = &self.rows.head;
        for column in columns {
            let group = column / head.layout().group_size();
            let own = || (f64::from(head.scale(row, group)), self.rows.bias(row, group));
            let (scale, bias) = instead.unwrap_or_else(own);
            let value = self.rows.changes.value(head.code(row, column));
            sum.add_product(sign * scale * value, self.hidden[column]);
            sum.add(sign * bias * self.hidden[column]);
        }
    }

    /// The fewest flips, at most `limit`, that with the best of `gains` and on top of `base` make `winner` beat `loser` in
    /// real arithmetic.
    pub(super) fn fewest(
        &self,
        winner: &Logit,
        loser: &Logit,
        base: &[f64],
        gains: &mut Best,
        limit: usize,
    ) -> Option<usize> {
        let start: f64 = base.iter().sum();
        let missing = loser.value - winner.value - start;
        let tolerance = winner.executed + loser.executed;
        // Not even near.
        let far = |sum: f64| sum - missing + tolerance < 0.0;
        let most = gains.most().min(limit);
        if far(gains.sum(usize::MAX)) {
            return None;
        }
        let wins = |k: &usize| {
            if far(gains.sum(*k)) {
                return false;
            }
            let sizes = [base, &gains.changes(*k).iter().map(|gain| gain.size).collect::<Vec<_>>()].concat();
            self.beats(winner, loser, &sizes)
        };
        (0..=most).find(wins)
    }

    /// The same for the executed program, from below: with fewer, `winner` is certain to stay behind, unless an
    /// operation overflows.
    pub(super) fn fewest_executed(
        &self,
        winner: &Logit,
        loser: &Logit,
        base: &[f64],
        gains: &mut Best,
        limit: usize,
    ) -> Option<usize> {
        let grown = 1.0 + self.bound.largest;
        let error = winner.executed + loser.executed + winner.of_f64 + loser.of_f64;
        let ahead = winner.value - loser.value + error + base.iter().sum::<f64>() * grown;
        let perhaps = |sum: f64| ahead + grown * sum >= 0.0;
        let most = gains.most().min(limit);
        if !perhaps(gains.sum(usize::MAX)) {
            return None;
        }
        (0..=most).find(|&k| perhaps(gains.sum(k)))
    }

    /// Whether the token is also the winner in real arithmetic.
    pub(super) fn agrees(&self) -> bool {
        self.second.is_none_or(|second| self.beats(&self.token, &second, &[]))
    }

    /// What the executed program does once flips have moved the logit of `row` by `delta` in sum, `size` in
    /// magnitude; all flips are in this row.
    pub(super) fn outcome(&self, logit: &Logit, delta: f64, size: f64) -> Outcome {
        let error = logit.executed + logit.of_f64 + self.bound.largest * size;
        self.outcome_at(logit.row, logit.value + delta, error, self.rows.weight[logit.row])
    }

    /// What the executed program does where the logit of `row` lies within `error` of `value`, if it is finite, and
    /// the row's weights are at most `weight` in magnitude.
    pub(super) fn outcome_at(&self, row: usize, value: f64, error: f64, weight: f64) -> Outcome {
        let (low, high) = (value - error, value + error);
        // A logit that is not finite changes the token as well.
        let infinite = low.max(-high) > f64::from(f32::MAX);
        let (changes, stays) = if row == self.token.row {
            (high < self.executed_second, low > self.executed_second)
        } else {
            let token = self.executed(self.token.row);
            (low > token, high < token)
        };
        if changes || infinite {
            Outcome::Changes
        } else if stays && !self.bound.may_overflow(weight) {
            Outcome::Stays
        } else {
            Outcome::Undecided
        }
    }

    /// How far flipping the bits `mask` of the code at `row`, `column` moves the row's logit. Exact, as a [`Gain`] is; NaN
    /// where the code becomes NaN.
    pub(super) fn delta(&self, row: usize, column: usize, mask: u8) -> f64 {
        let (head, changes) = (&self.rows.head, &self.rows.changes);
        let scale = f64::from(head.scale(row, column / head.layout().group_size()));
        let code = head.code(row, column);
        (changes.value(code ^ u32::from(mask)) - changes.value(code)) * scale * self.hidden[column]
    }

    /// What flips in a row can do at most that raise its logit, or lower it, of up to `count` flips.
    pub(super) fn gains(&self, row: usize, raise: bool, count: usize) -> Best {
        let changes = &self.rows.changes;
        let reach = changes.most() * self.rows.scale[row];
        let mut found: Vec<Gain> = Vec::new();
        let mut least = 0.0;
        let mut full = count.saturating_add(count.max(8));
        for &column in &self.columns {
            // Columns that follow are no better.
            if count == 0 || reach * self.hidden[column as usize].abs() < least {
                break;
            }
            self.gains_of_code(row, column as usize, raise, |gain| {
                if gain.size >= least {
                    found.push(gain);
                }
            });
            if found.len() >= full {
                least = leave_out(&mut found, count);
                full = 2 * found.len().max(full / 2);
            }
        }
        leave_out(&mut found, count);
        Best::new(found, changes.independent())
    }

    /// The flips of one code that raise its row's logit, or lower it.
    pub(super) fn gains_of_code(&self, row: usize, column: usize, raise: bool, found: impl FnMut(Gain)) {
        self.rows.gains_of_code(row, column, self.hidden[column], raise, found);
    }
}
