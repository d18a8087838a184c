//! The rest of a forward pass: norms, activation, attention, and the statistics of logits.
//!
//! Plain Rust over sixteen lanes, inlined into functions that carry an instruction set's
//! `target_feature`, so that the compiler vectorizes it; every operation is exactly rounded and in a
//! fixed order, and the exponentials are written out, so the bits are equal on every instruction set.

use super::scalar::{LANES, sum};

/// `exp(x)` to within 2 units in the last place for `x` in [-87, 88], clamped outside; NaN stays NaN.
/// Cody and Waite's reduction by multiples of ln 2, then the Taylor polynomial of degree 7 on
/// |r| <= ln 2 / 2, whose remainder is below 1e-8.
#[inline(always)]
fn exp32(x: f32) -> f32 {
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

/// `exp(x)` to within 2 units in the last place for `x` in [-708, 708], clamped outside; NaN stays NaN.
/// As [`exp32`], with degree 13.
#[inline(always)]
fn exp64(x: f64) -> f64 {
    let x = if x < -708.0 { -708.0 } else { x };
    let x = if x > 708.0 { 708.0 } else { x };
    const MAGIC: f64 = 6_755_399_441_055_744.0; // 1.5 * 2^52
    let shifted = x.mul_add(std::f64::consts::LOG2_E, MAGIC);
    let n = shifted - MAGIC;
    let r = n.mul_add(-6.931_471_803_691_238e-1, x); // fdlibm's split of ln 2
    let r = n.mul_add(-1.908_214_929_270_587_7e-10, r);
    let mut p = 1.0 / 6_227_020_800.0_f64;
    for c in [
        1.0 / 479_001_600.0,
        1.0 / 39_916_800.0,
        1.0 / 3_628_800.0,
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5_040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        p = p.mul_add(r, c);
    }
    f64::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 52))
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

/// Root-mean-square norm: `out[c] = x[c] / sqrt(mean(x^2) + eps) * weight[c]`.
#[inline(always)]
pub(super) fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let scale = 1.0 / (dot(x, x) / x.len() as f32 + eps).sqrt();
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = x * scale * weight;
    }
}

/// `gate[c] = silu(gate[c]) * up[c]`, where `silu(g) = g / (1 + exp(-g))`.
#[inline(always)]
pub(super) fn swiglu(gate: &mut [f32], up: &[f32]) {
    for (g, u) in gate.iter_mut().zip(up) {
        *g = *g / (1.0 + exp32(-*g)) * u;
    }
}

/// `x[c] += y[c]`.
#[inline(always)]
pub(super) fn add(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

/// Rotates each head of `x` by the position's angles: columns `c` and `c + half` of a head are one pair.
#[inline(always)]
pub(super) fn rope(x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let half = cos.len();
    for head in x.chunks_exact_mut(2 * half) {
        let (low, high) = head.split_at_mut(half);
        for c in 0..half {
            let (a, b) = (low[c], high[c]);
            low[c] = a * cos[c] - b * sin[c];
            high[c] = a * sin[c] + b * cos[c];
        }
    }
}

/// Attention of one query head over `scores.len()` positions in order:
/// `out = sum_j softmax(scale * q . k_j)_j * v_j`.
#[inline(always)]
pub(super) fn attend<'a>(
    q: &[f32],
    scale: f32,
    key: impl Fn(usize) -> &'a [f32],
    value: impl Fn(usize) -> &'a [f32],
    scores: &mut [f32],
    out: &mut [f32],
) {
    for (j, score) in scores.iter_mut().enumerate() {
        *score = dot(q, key(j));
    }
    let total = weigh(scores, scale);
    out.fill(0.0);
    for (j, score) in scores.iter().enumerate() {
        for (out, v) in out.iter_mut().zip(value(j)) {
            *out = score.mul_add(*v, *out);
        }
    }
    for out in out {
        *out /= total;
    }
}

/// Products of query and keys into weights that are not yet divided by their sum, and that sum.
#[inline(always)]
pub(super) fn weigh(scores: &mut [f32], scale: f32) -> f32 {
    let mut top = f32::NEG_INFINITY;
    for score in scores.iter_mut() {
        *score *= scale;
        top = larger(top, *score);
    }
    let mut acc = [0.0_f32; LANES];
    for chunk in scores.chunks_mut(LANES) {
        for (acc, score) in acc.iter_mut().zip(chunk) {
            *score = exp32(*score - top);
            *acc += *score;
        }
    }
    sum(acc)
}

/// The two largest logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Top {
    /// Index of the first largest logit.
    pub token: usize,
    /// Its value.
    pub best: f32,
    /// The largest of the others; minus infinity where there is no other.
    pub second: f32,
}

/// The larger of two, the first of equals: `f32::max` leaves open which of two zeros of different sign it
/// gives, and instruction sets differ in it.
#[inline(always)]
fn larger(top: f32, x: f32) -> f32 {
    if x > top { x } else { top }
}

#[inline(always)]
fn largest(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let mut chunks = x.chunks_exact(LANES);
    for chunk in &mut chunks {
        for l in 0..LANES {
            lanes[l] = larger(lanes[l], chunk[l]);
        }
    }
    lanes.iter().chain(chunks.remainder()).fold(f32::NEG_INFINITY, |top, &x| larger(top, x))
}

/// The two largest logits, or `None` if one is not finite (or there are none).
#[inline(always)]
pub(super) fn top(logits: &[f32]) -> Option<Top> {
    // The largest magnitude, as bits: infinities and NaN are above all finite numbers.
    let mut lanes = [0_u32; LANES];
    let mut chunks = logits.chunks_exact(LANES);
    for chunk in &mut chunks {
        for l in 0..LANES {
            lanes[l] = lanes[l].max(chunk[l].to_bits() & 0x7fff_ffff);
        }
    }
    let rest = chunks.remainder().iter().map(|x| x.to_bits() & 0x7fff_ffff);
    if lanes.into_iter().chain(rest).any(|bits| bits >= 0x7f80_0000) {
        return None;
    }
    let best = largest(logits);
    // In steps that vectorize, then within the one that holds it.
    let step = logits.chunks(LANES).position(|chunk| chunk.iter().fold(false, |found, &x| found | (x == best)))?;
    let token = step * LANES + logits[step * LANES..].iter().position(|&x| x == best)?;
    let second = larger(largest(&logits[..token]), largest(&logits[token + 1..]));
    Some(Top { token, best, second })
}

/// `ln(sum_i exp(logits[i]))` in f64: NaN if a logit is NaN or plus infinity.
#[inline(always)]
pub(super) fn log_sum_exp(logits: &[f32]) -> f64 {
    const WIDE: usize = 8;
    let top = f64::from(largest(logits));
    if !top.is_finite() {
        return f64::NAN;
    }
    let mut acc = [0.0_f64; WIDE];
    // Exponentials first, then sums: a loop that does one thing is one that the compiler vectorizes.
    let mut exponentials = [0.0_f64; 16 * WIDE];
    for chunk in logits.chunks(exponentials.len()) {
        let exponentials = &mut exponentials[..chunk.len()];
        for (e, x) in exponentials.iter_mut().zip(chunk) {
            *e = exp64(f64::from(*x) - top);
        }
        for eight in exponentials.chunks(WIDE) {
            for (acc, e) in acc.iter_mut().zip(eight) {
                *acc += e;
            }
        }
    }
    top + libm::log(sum8(acc))
}

#[inline(always)]
fn sum8(acc: [f64; 8]) -> f64 {
    let mut t = acc;
    for half in [4, 2, 1] {
        for l in 0..half {
            t[l] += t[l + half];
        }
    }
    t[0]
}

/// `out[i] = exp(logits[i] - log_sum)`: the probabilities, in f64.
#[inline(always)]
pub(super) fn probabilities(logits: &[f32], log_sum: f64, out: &mut [f64]) {
    for (out, x) in out.iter_mut().zip(logits) {
        *out = exp64(f64::from(*x) - log_sum);
    }
}

/// `sum_i p[i] * (a[i] - b[i])` in f64.
#[inline(always)]
pub(super) fn mean_difference(p: &[f64], a: &[f32], b: &[f32]) -> f64 {
    const WIDE: usize = 8;
    let whole = p.len() / WIDE * WIDE;
    let mut acc = [0.0_f64; WIDE];
    let chunks = p[..whole].chunks_exact(WIDE).zip(a[..whole].chunks_exact(WIDE)).zip(b[..whole].chunks_exact(WIDE));
    for ((p, a), b) in chunks {
        for l in 0..WIDE {
            acc[l] = p[l].mul_add(f64::from(a[l]) - f64::from(b[l]), acc[l]);
        }
    }
    for (l, i) in (whole..p.len()).enumerate() {
        acc[l] = p[i].mul_add(f64::from(a[i]) - f64::from(b[i]), acc[l]);
    }
    sum8(acc)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_within_two_units_of_libm() {
        let mut worst = (0.0_f64, 0.0_f64);
        for i in -80_000..80_000 {
            let x = f64::from(i) * 0.001;
            let e = libm::exp(x);
            worst.0 = worst.0.max((exp64(x) - e).abs() / (e * f64::EPSILON));
            let x = x as f32;
            let e = libm::exp(f64::from(x));
            worst.1 = worst.1.max((f64::from(exp32(x)) - e).abs() / (e * f64::from(f32::EPSILON)));
        }
        assert!(worst.0 < 2.0 && worst.1 < 2.0, "{worst:?}");
        assert!(exp32(f32::NAN).is_nan() && exp64(f64::NAN).is_nan());
        assert!(exp32(-1e9) > 0.0 && exp32(-1e9) < 2e-38 && exp64(-1e9) < 1e-300);
        assert!((exp32(0.0), exp64(0.0)) == (1.0, 1.0));
    }

    #[test]
    fn the_first_largest_logit_wins_and_the_second_may_equal_it() {
        let mut z = vec![0.0_f32; 100];
        (z[37], z[71]) = (5.0, 5.0);
        assert_eq!(top(&z), Some(Top { token: 37, best: 5.0, second: 5.0 }));
        z[71] = 4.0;
        assert_eq!(top(&z), Some(Top { token: 37, best: 5.0, second: 4.0 }));
        assert_eq!(top(&[-1.0]), Some(Top { token: 0, best: -1.0, second: f32::NEG_INFINITY }));
        assert_eq!(top(&[]), None);
    }

    #[test]
    fn of_two_zeros_the_first_is_the_second_largest_whatever_their_signs() {
        for (a, b) in [(0.0_f32, -0.0_f32), (-0.0, 0.0)] {
            let second = top(&[a, 1.0, b]).expect("finite").second;
            assert_eq!(second.to_bits(), a.to_bits(), "of {a:?} and {b:?}");
        }
    }

    #[test]
    fn one_logit_that_is_not_finite_is_seen_wherever_it_stands() {
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in 0..37 {
                let mut z = vec![1.0_f32; 37];
                z[at] = bad;
                assert_eq!(top(&z), None, "{bad} at {at}");
            }
        }
    }

    #[test]
    fn log_sum_exp_and_divergence_agree_with_their_definitions() {
        let a: Vec<f32> = (0..1003).map(|i| (i as f32 * 0.37).sin() * 9.0).collect();
        let b: Vec<f32> = (0..1003).map(|i| (i as f32 * 0.53).cos() * 7.0).collect();
        let lse = |z: &[f32]| z.iter().map(|&x| f64::from(x).exp()).sum::<f64>().ln();
        let (la, lb) = (log_sum_exp(&a), log_sum_exp(&b));
        assert!((la - lse(&a)).abs() < 1e-12 && (lb - lse(&b)).abs() < 1e-12);
        let mut p = vec![0.0; a.len()];
        probabilities(&a, la, &mut p);
        assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        let kl = mean_difference(&p, &a, &b) + lb - la;
        let slow: f64 = (0..a.len())
            .map(|i| {
                let (p, q) = (f64::from(a[i]) - la, f64::from(b[i]) - lb);
                p.exp() * (p - q)
            })
            .sum();
        assert!((kl - slow).abs() < 1e-12 && kl > 0.1, "{kl} {slow}");
        assert!(log_sum_exp(&[0.0, f32::INFINITY]).is_nan());
    }
}
