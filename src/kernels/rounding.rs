//! How far rounded arithmetic in `f32` can be from exact arithmetic.

use super::LANES;

/// Unit roundoff of `f32`: an operation gives its exact result times `1 + e`, `|e| <= U`, unless it is subnormal.
pub(crate) const U: f64 = 1.0 / (1 << 24) as f64;

/// `gamma(k) = k u / (1 - k u)`: a product of `k` factors `1 + e` lies within `1 +- gamma(k)` (Higham, *Accuracy and Stability of
/// Numerical Algorithms*, lemma 3.1). Infinite where so many roundings have no bound of this form.
pub(crate) fn gamma(k: usize) -> f64 {
    let ku = k as f64 * U;
    if ku < 1.0 { ku / (1.0 - ku) } else { f64::INFINITY }
}

/// How many roundings a logit passes through: what is known of the order in which a backend multiplies and adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rounding {
    /// Sums that a row is dealt out to by column, in turn.
    lanes: usize,
    /// Roundings of a term besides those of its lane's additions.
    others: usize,
}

impl Rounding {
    /// That of [`scalar`](super::scalar), whose bits all kernels here give: one for the weight, and four additions that the
    /// sixteen lanes are brought together in.
    pub const KERNELS: Self = Self { lanes: LANES, others: 1 + LANES.ilog2() as usize };

    /// The same where each weight is a number of `f32` as it is, so that forming it rounds nothing.
    pub(crate) const fn of_exact_weights(self) -> Self {
        Self { others: self.others - 1, ..self }
    }

    /// The same where a number is added to the finished product, which rounds once more.
    pub(crate) const fn of_a_sum(self) -> Self {
        Self { others: self.others + 1, ..self }
    }

    /// Roundings that the term of `column` passes through, in a row of `columns`: those of its lane are the multiply-adds
    /// from its own to the last.
    pub(crate) const fn of_term(self, column: usize, columns: usize) -> usize {
        columns.div_ceil(self.lanes) - column / self.lanes + self.others
    }

    /// The most that a term of a row of `columns` passes through.
    pub(crate) const fn most(self, columns: usize) -> usize {
        columns.div_ceil(self.lanes) + self.others
    }
}
