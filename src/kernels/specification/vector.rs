//! The rest of a forward pass: norms, rotation, attention.
//!
//! Plain Rust over sixteen lanes, inlined into functions that carry an instruction set's
//! `target_feature`, so that the compiler vectorizes it; every operation is exactly rounded and in a
//! fixed order, and the exponential is written out, so the bits are equal on every instruction set.

use super::{
    activation::softcap,
    scalar::{LANES, sum},
};

/// `exp(x)` to within 2 units in the last place for `x` in [-87, 88], clamped outside; NaN stays NaN.
/// Cody and Waite's reduction by multiples of ln 2, then the Taylor polynomial of degree 7 on
/// |r| <= ln 2 / 2, whose remainder is below 1e-8.
#[inline(always)]
pub(super) fn exp32(x: f32) -> f32 {
    // Written so that a NaN passes both comparisons unchanged.
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    const MAGIC: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer in the low bits
    let shifted = x.mul_add(std::f32::consts::LOG2_E, MAGIC);
    let n = shifted - MAGIC;
    let r = n.mul_add(-0.693_359_4, x); // ln 2 = 0.693359375 - 2.12194440e-4
    let r = n.mul_add(2.121_944_4e-4, r);
    let mut p = 1.0 / 5040.0_f32;
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = p.mul_add(r, c);
    }
    f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23))
}

/// The product of two vectors in the order of [`super::scalar`].
#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut acc = [0.0_f32; LANES];
    let (mut a, mut b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    for (a, b) in (&mut a).zip(&mut b) {
        for l in 0..LANES {
            acc[l] = a[l].mul_add(b[l], acc[l]);
        }
    }
    for (l, (a, b)) in a.remainder().iter().zip(b.remainder()).enumerate() {
        acc[l] = a.mul_add(*b, acc[l]);
    }
    sum(acc)
}

/// The sum of a vector's elements, in the order of [`super::scalar`].
#[inline(always)]
fn total(x: &[f32]) -> f32 {
    let mut acc = [0.0_f32; LANES];
    for chunk in x.chunks(LANES) {
        for (acc, x) in acc.iter_mut().zip(chunk) {
            *acc += x;
        }
    }
    sum(acc)
}

/// Root-mean-square norm: `out[c] = x[c] / sqrt(mean(x^2) + eps) * weight[c]`.
#[inline(always)]
pub(crate) fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let scale = 1.0 / (dot(x, x) / x.len() as f32 + eps).sqrt();
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = x * scale * weight;
    }
}

/// Root-mean-square norm without weights: `out[c] = x[c] / sqrt(mean(x^2) + eps)`.
#[inline(always)]
pub(crate) fn rms_norm_plain(x: &[f32], eps: f32, out: &mut [f32]) {
    let scale = 1.0 / (dot(x, x) / x.len() as f32 + eps).sqrt();
    for (out, x) in out.iter_mut().zip(x) {
        *out = x * scale;
    }
}

/// Layer norm: `out[c] = (x[c] - mean(x)) / sqrt(mean((x - mean(x))^2) + eps) * weight[c]`.
#[inline(always)]
pub(crate) fn layer_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let mean = total(x) / x.len() as f32;
    for (out, x) in out.iter_mut().zip(x) {
        *out = x - mean;
    }
    let scale = 1.0 / (dot(out, out) / x.len() as f32 + eps).sqrt();
    for (out, weight) in out.iter_mut().zip(weight) {
        *out = *out * scale * weight;
    }
}

/// `x[c] *= y[c]`.
#[inline(always)]
pub(crate) fn multiply(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x *= y;
    }
}

/// `x[c] += y[c] * z[c]`, rounded once.
#[inline(always)]
pub(crate) fn multiply_add(x: &mut [f32], y: &[f32], z: &[f32]) {
    for ((x, y), z) in x.iter_mut().zip(y).zip(z) {
        *x = y.mul_add(*z, *x);
    }
}

/// `x[c] *= factor`.
#[inline(always)]
pub(crate) fn scale(x: &mut [f32], factor: f32) {
    for x in x {
        *x *= factor;
    }
}

/// `x[c] += y[c]`.
#[inline(always)]
pub(crate) fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

/// Rotates the first columns of each head of `head_dim` columns in `x` by the position's angles: columns `c` and `c + half` of a head
/// are one pair, `half` being the number of angles.
#[inline(always)]
pub(crate) fn rope(x: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32]) {
    let half = cos.len();
    for head in x.chunks_exact_mut(head_dim) {
        let (low, high) = head.split_at_mut(half);
        for c in 0..half {
            let (a, b) = (low[c], high[c]);
            low[c] = a * cos[c] - b * sin[c];
            high[c] = a * sin[c] + b * cos[c];
        }
    }
}

/// As [`rope`], where columns `2 c` and `2 c + 1` are one pair.
#[inline(always)]
pub(crate) fn rope_neighbours(x: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32]) {
    for head in x.chunks_exact_mut(head_dim) {
        for (c, pair) in head.chunks_exact_mut(2).take(cos.len()).enumerate() {
            let (a, b) = (pair[0], pair[1]);
            pair[0] = a * cos[c] - b * sin[c];
            pair[1] = a * sin[c] + b * cos[c];
        }
    }
}

/// What becomes of the products of a query and the keys before they are weights.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scores<'a> {
    /// What the products are multiplied by.
    pub scale: f32,
    /// What bounds them then: `cap * tanh(score / cap)`.
    pub softcap: Option<f32>,
    /// A score of each head that has no value: it takes weight from the others.
    pub sinks: Option<&'a [f32]>,
}

impl Scores<'_> {
    /// Those of a head.
    #[inline(always)]
    pub(crate) fn of_head(self, head: usize) -> (f32, Option<f32>, Option<f32>) {
        (self.scale, self.softcap, self.sinks.map(|sinks| sinks[head]))
    }
}

/// What attends at a position: query heads that share keys and values, one after the other.
#[derive(Debug)]
pub(crate) struct Asking<'a> {
    /// `[heads, columns]`.
    pub q: &'a [f32],
    /// The positions of the path that it attends to, one at least.
    pub over: std::ops::Range<usize>,
    /// Where its output goes, as long as `q`.
    pub out: &'a mut [f32],
}

/// Attention over the positions of a path in their order: `out = sum_j softmax(scale * q . k_j)_j * v_j` for each head of each that asks;
/// `rule` may say more of the scores. Keys and values, of `cols` columns each, come in stretches of several that lie one after the other.
#[inline(always)]
pub(crate) fn attend(
    asking: &mut [Asking<'_>],
    cols: usize,
    rule: &Scores<'_>,
    keys: &[&[f32]],
    values: &[&[f32]],
    scores: &mut [f32],
) {
    for Asking { q, over, out } in asking {
        let of_path = |stretches| rows(stretches, cols).skip(over.start);
        let scores = &mut scores[..over.len()];
        for (head, (q, out)) in q.chunks_exact(cols).zip(out.chunks_exact_mut(cols)).enumerate() {
            for (score, key) in scores.iter_mut().zip(of_path(keys)) {
                *score = dot(q, key);
            }
            let total = weigh(scores, rule.of_head(head));
            out.fill(0.0);
            for (score, value) in scores.iter().zip(of_path(values)) {
                for (out, v) in out.iter_mut().zip(value) {
                    *out = score.mul_add(*v, *out);
                }
            }
            for out in out {
                *out /= total;
            }
        }
    }
}

/// Each key, or value, of some stretches.
#[inline(always)]
fn rows<'a>(stretches: &'a [&'a [f32]], cols: usize) -> impl Iterator<Item = &'a [f32]> {
    stretches.iter().flat_map(move |stretch| stretch.chunks_exact(cols))
}

/// Products of query and keys into weights that are not yet divided by their sum, and that sum, in which a sink takes part.
#[inline(always)]
pub(crate) fn weigh(scores: &mut [f32], (scale, cap, sink): (f32, Option<f32>, Option<f32>)) -> f32 {
    if let Some(cap) = cap {
        for score in &mut *scores {
            *score *= scale;
        }
        softcap(scores, cap);
        return weigh_scaled::<false>(scores, 1.0, sink);
    }
    weigh_scaled::<true>(scores, scale, sink)
}

/// [`weigh`], of products that are still to be multiplied by `scale` or not.
#[inline(always)]
fn weigh_scaled<const SCALE: bool>(scores: &mut [f32], scale: f32, sink: Option<f32>) -> f32 {
    let (whole, rest) = scores.split_at_mut(scores.len() / LANES * LANES);
    let mut last = [f32::NEG_INFINITY; LANES];
    last[..rest.len()].copy_from_slice(rest);
    // Which of two zeros of different sign is the largest makes no difference to what is subtracted below.
    let mut tops = [f32::NEG_INFINITY; LANES];
    for chunk in whole.chunks_exact_mut(LANES).chain([&mut last[..]]) {
        for l in 0..LANES {
            if SCALE {
                chunk[l] *= scale;
            }
            tops[l] = larger(tops[l], chunk[l]);
        }
    }
    let top = tops.into_iter().fold(sink.unwrap_or(f32::NEG_INFINITY), larger);
    let mut acc = [0.0_f32; LANES];
    for chunk in whole.chunks_exact_mut(LANES) {
        for l in 0..LANES {
            chunk[l] = exp32(chunk[l] - top);
            acc[l] += chunk[l];
        }
    }
    for score in &mut last {
        *score = exp32(*score - top);
    }
    for (l, score) in rest.iter_mut().enumerate() {
        *score = last[l];
        acc[l] += last[l];
    }
    match sink {
        Some(sink) => sum(acc) + exp32(sink - top),
        None => sum(acc),
    }
}

/// The larger of two, the first of equals: `f32::max` leaves open which of two zeros of different sign it
/// gives, and instruction sets differ in it.
#[inline(always)]
pub(crate) fn larger(top: f32, x: f32) -> f32 {
    if x > top { x } else { top }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_within_two_units_of_libm() {
        let mut worst = 0.0_f64;
        for i in -80_000..80_000 {
            let x = (f64::from(i) * 0.001) as f32;
            let e = libm::exp(f64::from(x));
            worst = worst.max((f64::from(exp32(x)) - e).abs() / (e * f64::from(f32::EPSILON)));
        }
        assert!(worst < 2.0, "{worst}");
        assert!(exp32(f32::NAN).is_nan() && exp32(0.0) == 1.0);
        assert!(exp32(-1e9) > 0.0 && exp32(-1e9) < 2e-38);
    }
}
