//! How far an executed logit can be from the exact one.
//!
//! # The bound
//!
//! The kernel ([`crate::kernels::scalar`]) multiplies a row of `n` weights by a hidden state `h` in sixteen lanes.
//! With `u = 2^-24`, each of its operations gives its exact result `x` as `x (1 + e) + d`, `|e| <= u`, and
//! `|d| <= 2^-150` (half of the smallest number; zero unless the result is subnormal). A term `w[c] h[c]` passes
//! through
//!
//! ```text
//! 1                rounding of the weight, w = fma(scale, code, bias)
//! M - floor(c/16)  multiply-adds of its lane, from its own to the lane's last; M = ceil(n / 16)
//! 4                additions of the tree
//! ```
//!
//! that is `K[c] = M - floor(c/16) + 5` roundings, no more. (The first multiply-add of a lane adds to zero and is
//! one rounding like the others.) Where codes are floats the first of these is not there: a weight is `scale * value`,
//! the product of a float of at most 4 significant bits and one of at most 4, at least 2^-127 2^-9 if it is not zero. It
//! is a number of `f32` as it is, or overflows; so `K[c] = M - floor(c/16) + 4`, and a weight's `d` is 0. Products of `k` factors `1 + e` lie within `1 +- gamma(k)`, `gamma(k) = k u / (1 -
//! k u)` (Higham, *Accuracy and Stability of Numerical Algorithms*, lemma 3.1). So, with `z` the exact and `zx` the
//! executed logit,
//!
//! ```text
//! |zx - z| <= E = sum_c gamma(K[c]) |w[c]| |h[c]| + 2^-149 (n + sum_c |h[c]|)
//! ```
//!
//! the second part for what is lost below the normal numbers: a weight's `d` is multiplied by `h[c]`, each
//! multiply-add has one of its own, and a subnormal sum of two numbers is exact; all of it grows by less than 2. (Of
//! float codes `2^-149 n` would do.)
//! It is about half of the usual `gamma(M + 5) sum |w| |h|`, since most terms pass through fewer roundings.
//!
//! *A bias of the head.* Where the head has one, `a[r]` is added to the finished product of row `r`, in `f32`. That is one
//! more rounding for every term, so each `K[c]` is larger by 1, and one for `a[r]` itself. What is lost below the normal
//! numbers grows by one more factor `1 + e`, which keeps it less than doubled, and the addition loses nothing there, since a
//! subnormal sum of two numbers is exact. So `E` of the row is larger by `u |a[r]|` ([`of_constant`]), whatever flips do.
//!
//! If an operation overflows, its result is infinite, and nothing that follows makes it finite again (an infinity
//! plus, or times, anything is infinite or not a number, and a row has only one sum). So of every row and every
//! edit: *the executed logit is not finite, or it lies within `E` of the exact one.* A step with a logit that is
//! not finite ends the answer, so it changes the token, too.
//!
//! # Two of them
//!
//! `E` needs the row's weights. To pass over rows that cannot matter without reading them, [`Bound::coarse`] puts
//! the largest weight that any code could give in each weight's place; it holds after any flips of the row's codes,
//! too. [`Bound::fine`] uses the weights; flips that move the logit by `d_1, d_2, ...` change `|w[c]| |h[c]|` by at
//! most `|d_i|` each, so that `E` grows by at most [`Bound::largest`] times their sum. (Of float codes a `d_i` is what all
//! flips of one code do together.)
//!
//! # What is not a number
//!
//! A code may be NaN (`mxfp8`: 0x7f and 0xff). Then its weight is, and its product with any `h[c]`, 0 included, and so
//! the row's one sum: the logit is NaN in both claims, and no bound is needed. What is said here is of rows whose codes
//! all are numbers; [`Rows::weight`](super::position::Rows) is the largest that one of these gives.

use crate::kernels::{
    Rounding,
    rounding::{U, gamma},
};

/// Covers the rounding of the bounds themselves, which are sums of up to a few thousand positive `f64`s.
const SAFE: f64 = 1.0 + 1e-9;

/// What the bound needs to know of a hidden state.
#[derive(Debug)]
pub(super) struct Bound {
    /// `gamma(K[c]) |h[c]|`, by column.
    factors: Vec<f64>,
    /// Their sum.
    sum: f64,
    /// The part that does not depend on the weights.
    absolute: f64,
    /// `sum_c |h[c]|`.
    norm: f64,
    /// `gamma(M + 5)`, or `gamma(M + 4)` of float codes, with one more where the head has a bias: the most that a term is off
    /// by, relative to itself.
    pub(super) largest: f64,
    /// What the head adds to a row, at most, rounded.
    largest_constant: f64,
}

/// What `E` of a row is larger by because this is added to its product.
pub(super) fn of_constant(constant: f64) -> f64 {
    U * constant.abs() * SAFE
}

impl Bound {
    /// `largest_constant` is the largest magnitude that the head adds to a row's product, and `rounding` counts that addition.
    pub(super) fn new(hidden: &[f64], rounding: Rounding, largest_constant: f64) -> Self {
        let columns = hidden.len();
        let factors: Vec<f64> =
            hidden.iter().enumerate().map(|(c, h)| gamma(rounding.of_term(c, columns)) * h.abs() * SAFE).collect();
        let norm = hidden.iter().map(|h| h.abs()).sum::<f64>() * SAFE;
        let absolute = 2.0_f64.powi(-149) * (hidden.len() as f64 + norm);
        Self {
            sum: factors.iter().sum::<f64>() * SAFE,
            factors,
            absolute,
            norm,
            largest: gamma(rounding.most(columns)) * SAFE,
            largest_constant: largest_constant * (1.0 + U) * SAFE,
        }
    }

    /// `E` for the product of any row whose weights are at most `weight` in magnitude.
    pub(super) fn coarse(&self, weight: f64) -> f64 {
        self.sum * weight + self.absolute
    }

    /// `E` for the product of a row of these weights.
    pub(super) fn fine(&self, weights: &[f64]) -> f64 {
        dot(weights, &self.factors, |w, factor| w.abs() * factor) * SAFE + self.absolute
    }

    /// How far the `f64` evaluation of an exact logit can be from it, given its `E`: a weight's sum, its product and
    /// at most `n + 1` additions round by 2^-53 each, and every term counts at least `5 u` times in `E`. What the head adds
    /// passes through one addition, and counts `u` times.
    pub(super) fn of_f64(&self, fine: f64) -> f64 {
        fine * (self.factors.len() + 8) as f64 * 2.0_f64.powi(-31)
    }

    /// Weights below this overflow no operation on a row.
    pub(super) fn overflow_limit(&self) -> f64 {
        let limit = f64::from(f32::MAX) - self.absolute - self.largest_constant;
        limit / (1.0 + U).max(self.norm * (1.0 + self.largest)) / SAFE
    }

    /// Whether an operation on a row could overflow whose weights are at most `weight` in magnitude.
    pub(super) fn may_overflow(&self, weight: f64) -> bool {
        // A weight that is not a number, too.
        !matches!(weight.partial_cmp(&self.overflow_limit()), Some(std::cmp::Ordering::Less))
    }
}

/// `sum_c term(a[c], b[c])`, in eight sums that a processor can add side by side.
pub(super) fn dot(a: &[f64], b: &[f64], term: impl Fn(f64, f64) -> f64) -> f64 {
    const WIDE: usize = 8;
    let mut sums = [0.0; WIDE];
    let (mut a, mut b) = (a.chunks_exact(WIDE), b.chunks_exact(WIDE));
    for (a, b) in (&mut a).zip(&mut b) {
        for l in 0..WIDE {
            sums[l] += term(a[l], b[l]);
        }
    }
    let rest: f64 = a.remainder().iter().zip(b.remainder()).map(|(&a, &b)| term(a, b)).sum();
    sums.iter().sum::<f64>() + rest
}
