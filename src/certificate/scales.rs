//! Single flips of the bits of scales and biases, apart from those of codes.
//!
//! One bit of `scales[r, g]` changes all weights of a group at once: with the new value `s'`, the row's logit moves by
//! `(s' - s) Q`, where `Q = sum of code h` over the group's columns; one bit of `biases[r, g]` by `(b' - b) H`, where `H
//! = sum of h`. A bit high in the exponent multiplies a scale by a power of two, so unlike a code's it may matter in
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
use crate::{edit::Tensor, quant::FloatType, team::Team};

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
}

/// Critical bits of `scales` and of `biases` over all positions of an answer.
pub fn scale_census(positions: &[Position<'_>], team: &Team) -> [ScaleCensus; 2] {
    let Some(first) = positions.first() else { return Default::default() };
    let layout = *first.rows.head().layout();
    let width = 8 * layout.scale_type().size();
    let total_bits = layout.rows() * layout.groups_per_row() * width;
    let empty = || ScaleCensus {
        total_bits,
        by_bit_position: vec![0; width],
        by_position: vec![0; positions.len()],
        ..ScaleCensus::default()
    };
    let group_size = layout.group_size();
    // `H`, and the sum of magnitudes, of each group at each position.
    let sums: Vec<Vec<(f64, f64)>> = positions
        .iter()
        .map(|position| {
            let groups = position.hidden.chunks_exact(group_size);
            groups.map(|h| (h.iter().sum(), h.iter().map(|h| h.abs()).sum())).collect()
        })
        .collect();
    let agree: Vec<bool> = positions.iter().map(Position::agrees).collect();
    let found = Mutex::new([empty(), empty()]);
    team.for_each(layout.rows().div_ceil(CHUNK), |chunk| {
        let mut part = [empty(), empty()];
        let mut codes = vec![0.0; group_size];
        for row in chunk * CHUNK..((chunk + 1) * CHUNK).min(layout.rows()) {
            let mut of_row: Vec<OfRow<'_>> = positions
                .iter()
                .zip(&agree)
                .map(|(position, &agrees)| {
                    let is_token = row == position.token.row;
                    OfRow { position, is_token, agrees, least: least_gain(position, row, is_token), own: None }
                })
                .collect();
            for group in 0..layout.groups_per_row() {
                let columns = group * group_size..(group + 1) * group_size;
                for (code, column) in codes.iter_mut().zip(columns.clone()) {
                    *code = f64::from(first.rows.head().code(row, column));
                }
                let q = positions.iter().map(|at| dot(&codes, &at.hidden[columns.clone()], |q, h| q * h));
                let largest = codes.iter().copied().fold(0.0, f64::max);
                let of_scales: Vec<Basis> =
                    q.zip(&sums).map(|(q, sums)| Basis { sum: q, size: largest * sums[group].1 }).collect();
                let of_biases: Vec<Basis> =
                    sums.iter().map(|sums| Basis { sum: sums[group].0, size: sums[group].1 }).collect();
                look(row, group, Tensor::Scales, &mut of_row, &of_scales, &mut part[0]);
                look(row, group, Tensor::Biases, &mut of_row, &of_biases, &mut part[1]);
            }
        }
        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
        for (found, part) in found.iter_mut().zip(part) {
            found.critical_bits += part.critical_bits;
            found.nonfinite_bits += part.nonfinite_bits;
            found.undecided_bits += part.undecided_bits;
            found.by_bit_position.iter_mut().zip(part.by_bit_position).for_each(|(a, b)| *a += b);
            found.by_position.iter_mut().zip(part.by_position).for_each(|(a, b)| *a += b);
        }
    });
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.iter_mut().for_each(|census| census.vulnerability = census.critical_bits as f64 / total_bits as f64);
    found
}

/// One row at one position.
struct OfRow<'a> {
    position: &'a Position<'a>,
    is_token: bool,
    /// Whether the position's token is the winner in real arithmetic.
    agrees: bool,
    /// A move of the logit that is smaller changes nothing.
    least: f64,
    /// Its logit, once it was needed.
    own: Option<Logit>,
}

/// What a change of a group's scale or bias is multiplied by at one position.
struct Basis {
    /// `Q` or `H`.
    sum: f64,
    /// At least the sum of the magnitudes.
    size: f64,
}

/// Element `i` of `data` with one bit inverted, and as it is.
fn flipped(float_type: FloatType, data: &[u8], i: usize, bit: usize) -> f32 {
    let size = float_type.size();
    let mut bytes = [0; 4];
    bytes[..size].copy_from_slice(&data[i * size..][..size]);
    bytes[bit / 8] ^= 1 << (bit % 8);
    float_type.get(&bytes, 0)
}

/// All bits of one value.
fn look(row: usize, group: usize, tensor: Tensor, of_row: &mut [OfRow<'_>], bases: &[Basis], part: &mut ScaleCensus) {
    let head = of_row[0].position.rows.head();
    let layout = head.layout();
    let data = if tensor == Tensor::Scales { head.scales() } else { head.biases() };
    let (scale, bias) = (f64::from(head.scale(row, group)), f64::from(head.bias(row, group)));
    let old = if tensor == Tensor::Scales { scale } else { bias };
    // The least change that could matter at some position.
    let least = of_row
        .iter()
        .zip(bases)
        .map(|(at, basis)| at.least / (basis.sum.abs() + at.position.bound.largest * basis.size))
        .fold(f64::INFINITY, f64::min);
    for bit in 0..8 * layout.scale_type().size() {
        let new = flipped(layout.scale_type(), data, row * layout.groups_per_row() + group, bit);
        if !new.is_finite() {
            part.critical_bits += 1;
            part.nonfinite_bits += 1;
            part.by_bit_position[bit] += 1;
            part.by_position.iter_mut().for_each(|count| *count += 1);
            continue;
        }
        let new = f64::from(new);
        // Where the new value could overflow the kernel, nothing is passed over.
        let values = if tensor == Tensor::Scales { (new, bias) } else { (scale, new) };
        let weight = values.1.abs().max((f64::from(layout.bits().mask()) * values.0 + values.1).abs());
        let change = new - old;
        let weight = weight.max(of_row[0].position.rows.weight(row));
        let overflow = || of_row.iter().any(|at| at.position.bound.may_overflow(weight));
        if change == 0.0 || (change.abs() < least && !overflow()) {
            continue;
        }
        let (mut critical, mut decided, mut undecided) = (false, false, false);
        for (i, (at, basis)) in of_row.iter_mut().zip(bases).enumerate() {
            let (exact, executed) = at.outcome(row, group, change, values, weight, basis);
            critical |= exact;
            part.by_position[i] += usize::from(exact);
            decided |= executed == Outcome::Changes;
            undecided |= executed == Outcome::Undecided;
        }
        part.critical_bits += usize::from(critical);
        part.by_bit_position[bit] += usize::from(critical);
        part.undecided_bits += usize::from(undecided && !decided);
    }
}

impl OfRow<'_> {
    /// What a change of one scale or bias does, in real arithmetic and in the executed program.
    fn outcome(
        &mut self,
        row: usize,
        group: usize,
        change: f64,
        values: (f64, f64),
        weight: f64,
        basis: &Basis,
    ) -> (bool, Outcome) {
        let position = self.position;
        let token = position.token;
        if basis.size == 0.0 && !position.bound.may_overflow(weight) {
            return (false, Outcome::Stays);
        }
        let (delta, size) = (change * basis.sum, change.abs() * basis.size);
        // `Q` and its product are rounded, a term at a time.
        let of_f64 = size * (position.hidden.len() + 8) as f64 * 2.0_f64.powi(-51);
        let by_kernel = position.bound.largest * size + of_f64;
        if !self.is_token && self.own.is_none() {
            // By the executed logit, which is there. If that decides, it decides both claims.
            let error = 2.0 * position.coarse(row) + token.executed + token.of_f64 + by_kernel;
            let ahead = position.executed(row) + delta - token.value;
            if ahead > error {
                return (self.agrees, Outcome::Changes);
            }
            if ahead < -error && !position.bound.may_overflow(weight) {
                return (false, Outcome::Stays);
            }
        }
        let own = *self.own.get_or_insert_with(|| position.logit(row));
        let executed = position.outcome_at(row, own.value + delta, own.executed + own.of_f64 + by_kernel, weight);
        if !self.agrees {
            return (false, executed);
        }
        let Some(rival) = (if self.is_token { position.second } else { Some(token) }) else { return (false, executed) };
        let ahead = own.value + delta - rival.value;
        let error = own.of_f64 + rival.of_f64 + of_f64;
        let wins = if ahead.abs() > error { ahead > 0.0 } else { position.beats_with(row, group, values, rival.row) };
        (wins != self.is_token, executed)
    }
}
