//! The specification: every other kernel gives the bits that this file gives.
//!
//! One output is the product of a row of weights `w` and a vector `x` of `n` columns, in one
//! reduction order whatever the batch, the path and the number of threads:
//!
//! ```text
//! acc[l] = 0                                          for each lane l in 0..16
//! acc[c % 16] = fma(w[c], x[c], acc[c % 16])          for c in 0..n, ascending
//! t8[l] = acc[l] + acc[l + 8]                         l in 0..8
//! t4[l] = t8[l]  + t8[l + 4]                          l in 0..4
//! t2[l] = t4[l]  + t4[l + 2]                          l in 0..2
//! y     = t2[0]  + t2[1]
//! ```
//!
//! with one weight `w[c] = fma(scale, code, bias)`: the exact product of the widened scale and the
//! code, plus the widened bias, rounded to `f32` once. Where codes are floats there is no bias, and
//! `w[c] = scale * value(code)`, rounded once as well. `fma` is IEEE 754's fused multiply-add. A
//! column count that is no multiple of 16 is filled up with zeros in `w` and `x`.
//!
//! Sixteen lanes are one AVX-512 register, two of AVX2, four of NEON. Since nothing here is left to
//! a compiler's or a processor's choice, results are equal across instruction sets, too.

use crate::quant::{DenseRef, MatrixRef, WeightsRef};

/// Lanes of the reduction.
pub(crate) const LANES: usize = 16;

/// The weights of one row of `matrix` after subtracting `shift` from each packed word.
///
/// # Panics
/// If `row` is out of range or `out` is shorter than a row.
pub fn dequantize_row(matrix: &MatrixRef<'_>, shift: u32, row: usize, out: &mut [f32]) {
    let layout = matrix.layout();
    let codes = layout.format().codes();
    for (c, out) in out[..layout.cols()].iter_mut().enumerate() {
        let group = c / layout.group_size();
        let code = layout.width().code(c, |word| matrix.word(row, word).wrapping_sub(shift));
        let (scale, value) = (matrix.scale(row, group), codes.value(code));
        *out = if codes.are_floats() { scale * value } else { scale.mul_add(value, matrix.bias(row, group)) };
    }
}

/// The weights of one row of an unquantized matrix, widened exactly.
///
/// # Panics
/// If `row` is out of range or `out` is shorter than a row.
pub(crate) fn widen_row(matrix: &DenseRef<'_>, row: usize, out: &mut [f32]) {
    for (c, out) in out[..matrix.cols()].iter_mut().enumerate() {
        *out = matrix.float_type().get(matrix.data(), row * matrix.cols() + c);
    }
}

/// One row of weights of either kind; unquantized ones have no packed words to shift.
///
/// # Panics
/// If `row` is out of range or `out` is shorter than a row.
pub(crate) fn row(weights: &WeightsRef<'_>, shift: u32, row: usize, out: &mut [f32]) {
    match weights {
        WeightsRef::Quantized(matrix) => dequantize_row(matrix, shift, row, out),
        WeightsRef::Dense(matrix) => widen_row(matrix, row, out),
    }
}

/// The product of one row of weights and one vector, in the order above.
pub fn dot(w: &[f32], x: &[f32]) -> f32 {
    let mut acc = [0.0_f32; LANES];
    for (c, (w, x)) in w.iter().zip(x).enumerate() {
        acc[c % LANES] = w.mul_add(*x, acc[c % LANES]);
    }
    // The columns that fill up the last sixteen: a zero times a zero changes nothing but the sign of
    // a negative zero, and no lane that has a column of its own is left out of it.
    for c in w.len()..w.len().next_multiple_of(LANES) {
        acc[c % LANES] = 0.0_f32.mul_add(0.0, acc[c % LANES]);
    }
    sum(acc)
}

/// The tree that closes a reduction.
#[inline(always)]
pub(crate) fn sum(acc: [f32; LANES]) -> f32 {
    let mut t = acc;
    for half in [8, 4, 2, 1] {
        for l in 0..half {
            t[l] += t[l + half];
        }
    }
    t[0]
}
