//! How far rounded arithmetic in `f32` can be from exact arithmetic.

/// Unit roundoff of `f32`: an operation gives its exact result times `1 + e`, `|e| <= U`, unless it is subnormal.
pub(crate) const U: f64 = 1.0 / (1 << 24) as f64;

/// `gamma(k) = k u / (1 - k u)`: a product of `k` factors `1 + e` lies within `1 +- gamma(k)` (Higham, *Accuracy and Stability of
/// Numerical Algorithms*, lemma 3.1). Infinite where so many roundings have no bound of this form.
pub(crate) fn gamma(k: usize) -> f64 {
    let ku = k as f64 * U;
    if ku < 1.0 { ku / (1.0 - ku) } else { f64::INFINITY }
}
