//! Single flips of the bits of scales and biases, apart from those of codes.
//!
//! One bit of `scales[r, g]` changes all weights of a group at once: with the new value `s'`, the row's logit moves by
//! `(s' - s) Q`, where `Q = sum of v h` over the group's columns, `v` the values of the codes; one bit of `biases[r, g]`,
//! where the format has biases, by `(b' - b) H`, where `H = sum of h`. A bit high in the exponent multiplies a scale by a power of two, so unlike a code's it may matter in
//! every row, and `Q` is computed for all rows. What is left of the work is passed over where the change is too small
//! for the row's margin.
//!
//! A flip that makes a value infinite or not a number counts as critical at every position: the row's logit is then not
//! finite, and the program ends such a step as NONFINITE. They are counted apart as well. A flip that leaves the value
//! finite but so large that the kernel overflows is decided in real arithmetic by its sign; in the executed program it
//! ends the step, too, so that it is decided where both say the same, and undecided otherwise.

use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::{
    bound::dot,
    census::least_gain,
    position::{Logit, Outcome, Position},
};
use crate::{
    numbers::NumberSet,
    quant::{FloatType, Tensor},
    team::Team,
};

/// Rows of one work item.
const CHUNK: usize = 256;

/// How many single bits of `scales`, or of `biases`, change an answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScaleCensus {
    /// Bits that change some position's token in real arithmetic, each counted once.
    pub critical_bits: usize,
    /// Those of them that make the value infinite or not a number.
    pub nonfinite_bits: usize,
    /// Bits of which the bound of the kernel's rounding does not say whether they change a token when executed.
    pub undecided_bits: usize,
    /// All bits of the tensor.
    pub total_bits: usize,
    /// `critical_bits / total_bits`.
    pub vulnerability: f64,
    /// Critical bits by their place in the value, the least significant first.
    pub by_bit_position: Vec<usize>,
    /// Critical bits at each position of the answer.
    pub by_position: Vec<usize>,
    /// The critical bits, counted by row, group and place in the value; a census that was stored does not list them.
    #[serde(skip)]
    pub(super) critical: NumberSet,
}

/// Critical bits of `scales` and of `biases` over all positions of an answer; a format without biases has no bits of them.
pub fn scale_census(positions: &[Position<'_>], team: &Team) -> [ScaleCensus; 2] {
    let Some(first) = positions.first() else { return Default::default() };
    let layout = *first.rows.head().layout();
    let width = 8 * layout.scale_type().size();
    let empty = |tensor| ScaleCensus {
        total_bits: layout.rows() * layout.columns(tensor) * width,
        by_bit_position: vec![0; if layout.format().tensors().contains(&tensor) { width } else { 0 }],
        by_position: vec![0; positions.len()],
        ..ScaleCensus::default()
    };
    let empty = || [Tensor::Scales, Tensor::Biases].map(empty);
    let changes = first.rows.changes();
    let group_size = layout.group_size();
    // `H` of each group at each position, with its magnitude.
    let of_biases: Vec<Bases> = (0..layout.groups_per_row())
        .map(|group| {
            let mut bases = Bases::default();
            for position in positions {
                let hidden = &position.hidden[group * group_size..(group + 1) * group_size];
                bases.sums.push(hidden.iter().sum());
                bases.sizes.push(hidden.iter().map(|h| h.abs()).sum());
            }
            bases
        })
        .collect();
    let agree: Vec<bool> = positions.iter().map(Position::agrees).collect();
    let found = Mutex::new(empty());
    team.for_each(layout.rows().div_ceil(CHUNK), |chunk| {
        let mut part = empty();
        let mut values: Vec<f64> = Vec::with_capacity(group_size);
        let mut of_scales = Bases::default();
        for row in chunk * CHUNK..((chunk + 1) * CHUNK).min(layout.rows()) {
            let mut of_row = OfRow::new(positions, &agree, row);
            for (group, of_biases) in of_biases.iter().enumerate() {
                let first_column = group * group_size;
                values.clear();
                values.extend(first.rows.head().codes(row, group).map(|code| changes.value(code)));
                let largest = values.iter().fold(0.0_f64, |most, value| most.max(value.abs()));
                of_scales.sums.clear();
                of_scales.sums.extend(
                    positions.iter().map(|at| dot(&values, &at.hidden[first_column..][..group_size], |q, h| q * h)),
                );
                of_scales.sizes.clear();
                of_scales.sizes.extend(of_biases.sizes.iter().map(|size| largest * size));
                look(&mut of_row, group, Tensor::Scales, &of_scales, &mut part[0]);
                if layout.format().has_biases() {
                    look(&mut of_row, group, Tensor::Biases, of_biases, &mut part[1]);
                }
            }
        }
        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
        for (found, part) in found.iter_mut().zip(part) {
            found.critical_bits += part.critical_bits;
            found.nonfinite_bits += part.nonfinite_bits;
            found.undecided_bits += part.undecided_bits;
            found.by_bit_position.iter_mut().zip(part.by_bit_position).for_each(|(a, b)| *a += b);
            found.by_position.iter_mut().zip(part.by_position).for_each(|(a, b)| *a += b);
            found.critical.extend(part.critical.iter());
        }
    });
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    for census in found.iter_mut().filter(|census| census.total_bits > 0) {
        census.vulnerability = census.critical_bits as f64 / census.total_bits as f64;
    }
    found
}

/// What a change of a group's scale or bias is multiplied by, by position.
#[derive(Default)]
struct Bases {
    /// `Q` or `H`.
    sums: Vec<f64>,
    /// At least the sum of the magnitudes.
    sizes: Vec<f64>,
}

/// One row at all positions.
struct OfRow<'a> {
    positions: &'a [Position<'a>],
    /// Whether a position's token is the winner in real arithmetic.
    agree: &'a [bool],
    row: usize,
    /// By how much the row is ahead of the token, from its executed logit, which is there; and by how much that may
    /// be wrong in either claim before a flip. Infinite where it is the token itself, which is decided one by one.
    ahead: Vec<f64>,
    error: Vec<f64>,
    /// A move of the logit that is smaller changes nothing.
    least: Vec<f64>,
    /// By how much the error grows with a move, relative to the sum of its magnitudes.
    growth: Vec<f64>,
    /// Its exact logit, once it was needed.
    own: Vec<Option<Logit>>,
    /// Weights below this overflow at no position.
    overflow_limit: f64,
}

/// Element `i` of `data` with one bit inverted.
fn flipped(float_type: FloatType, data: &[u8], i: usize, bit: usize) -> f32 {
    let size = float_type.size();
    let mut bytes = [0; 4];
    bytes[..size].copy_from_slice(&data[i * size..][..size]);
    bytes[bit / 8] ^= 1 << (bit % 8);
    float_type.get(&bytes, 0)
}

/// All bits of one value.
fn look(of_row: &mut OfRow<'_>, group: usize, tensor: Tensor, bases: &Bases, part: &mut ScaleCensus) {
    let row = of_row.row;
    let rows = of_row.positions[0].rows;
    let head = rows.head();
    let layout = head.layout();
    let data = head.part(tensor).expect("the format has the tensor");
    let (scale, bias) = (f64::from(head.scale(row, group)), rows.bias(row, group));
    let old = if tensor == Tensor::Scales { scale } else { bias };
    let first_bit = (row * layout.groups_per_row() + group) * 8 * layout.scale_type().size();
    // The least change that could matter at some position.
    let least = (0..of_row.least.len())
        .map(|at| of_row.least[at] / (bases.sums[at].abs() + of_row.growth[at] * bases.sizes[at]))
        .fold(f64::INFINITY, f64::min);
    for bit in 0..8 * layout.scale_type().size() {
        let new = flipped(layout.scale_type(), data, row * layout.groups_per_row() + group, bit);
        if !new.is_finite() {
            part.critical_bits += 1;
            part.nonfinite_bits += 1;
            part.critical.insert(first_bit + bit);
            part.by_bit_position[bit] += 1;
            part.by_position.iter_mut().for_each(|count| *count += 1);
            continue;
        }
        let new = f64::from(new);
        let values = if tensor == Tensor::Scales { (new, bias) } else { (scale, new) };
        let weight = rows.largest_weight_of(values.0, values.1).max(rows.weight(row));
        let change = new - old;
        // Where the new value could overflow the kernel, nothing is passed over.
        let fits = weight < of_row.overflow_limit;
        if change == 0.0 || (change.abs() < least && fits) {
            continue;
        }
        let (critical, undecided) = match of_row.at_a_glance(change, bases).filter(|_| fits) {
            Some(changed) => {
                let mut critical = false;
                for at in 0..of_row.positions.len() {
                    let exact = changed && of_row.agree[at] && of_row.passes(at, change, bases);
                    critical |= exact;
                    part.by_position[at] += usize::from(exact);
                }
                (critical, false)
            }
            None => {
                let (mut critical, mut decided, mut undecided) = (false, false, false);
                for at in 0..of_row.positions.len() {
                    let basis = (bases.sums[at], bases.sizes[at]);
                    let (exact, executed) = of_row.outcome(at, group, change, values, weight, basis);
                    critical |= exact;
                    part.by_position[at] += usize::from(exact);
                    decided |= executed == Outcome::Changes;
                    undecided |= executed == Outcome::Undecided;
                }
                (critical, undecided && !decided)
            }
        };
        part.critical_bits += usize::from(critical);
        if critical {
            part.critical.insert(first_bit + bit);
        }
        part.by_bit_position[bit] += usize::from(critical);
        part.undecided_bits += usize::from(undecided);
    }
}

impl<'a> OfRow<'a> {
    fn new(positions: &'a [Position<'a>], agree: &'a [bool], row: usize) -> Self {
        let of = |f: &dyn Fn(&Position<'_>) -> f64| positions.iter().map(f).collect::<Vec<f64>>();
        let error = |at: &Position<'_>| {
            let error = 2.0 * at.coarse(row) + at.token.executed + at.token.of_f64;
            if row == at.token.row { f64::INFINITY } else { error }
        };
        Self {
            positions,
            agree,
            row,
            ahead: of(&|at| at.executed(row) - at.token.value),
            error: of(&error),
            least: of(&|at| least_gain(at, row, row == at.token.row)),
            // `Q` and its product are rounded in `f64`, a term at a time.
            growth: of(&|at| at.bound.largest + (at.hidden.len() + 8) as f64 * 2.0_f64.powi(-51)),
            own: vec![None; positions.len()],
            overflow_limit: of(&|at| at.bound.overflow_limit()).into_iter().fold(f64::INFINITY, f64::min),
        }
    }

    /// Whether the row is ahead at some position after a change, if the executed logits decide that at all of them for
    /// both claims, and no operation overflows.
    fn at_a_glance(&self, change: f64, bases: &Bases) -> Option<bool> {
        let (mut passes, mut decided) = (false, true);
        for at in 0..self.ahead.len() {
            let ahead = self.ahead[at] + change * bases.sums[at];
            let error = self.error[at] + change.abs() * bases.sizes[at] * self.growth[at];
            passes |= ahead > error;
            decided &= ahead.abs() > error;
        }
        decided.then_some(passes)
    }

    /// Whether the row is ahead at one position, where that was decided at a glance.
    fn passes(&self, at: usize, change: f64, bases: &Bases) -> bool {
        self.ahead[at] + change * bases.sums[at] > 0.0
    }

    /// What a change of one scale or bias does at one position, in real arithmetic and in the executed program.
    fn outcome(
        &mut self,
        at: usize,
        group: usize,
        change: f64,
        values: (f64, f64),
        weight: f64,
        (sum, size): (f64, f64),
    ) -> (bool, Outcome) {
        let position = &self.positions[at];
        let (row, token, agrees) = (self.row, position.token, self.agree[at]);
        let fits = !position.bound.may_overflow(weight);
        if size == 0.0 && fits {
            return (false, Outcome::Stays);
        }
        let (delta, size) = (change * sum, change.abs() * size);
        let grown = size * self.growth[at];
        if self.own[at].is_none() {
            let (ahead, error) = (self.ahead[at] + delta, self.error[at] + grown);
            if ahead > error {
                return (agrees, Outcome::Changes);
            }
            if ahead < -error && fits {
                return (false, Outcome::Stays);
            }
        }
        let own = *self.own[at].get_or_insert_with(|| position.logit(row));
        let executed = position.outcome_at(row, own.value + delta, own.executed + own.of_f64 + grown, weight);
        let is_token = row == token.row;
        let Some(rival) = (if is_token { position.second } else { Some(token) }).filter(|_| agrees) else {
            return (false, executed);
        };
        let ahead = own.value + delta - rival.value;
        let error = own.of_f64 + rival.of_f64 + size * (self.growth[at] - position.bound.largest);
        let wins = if ahead.abs() > error { ahead > 0.0 } else { position.beats_with(row, group, values, rival.row) };
        (wins != is_token, executed)
    }
}
