//! Statistics of logits: the two largest, their log-sum-exp, probabilities, the divergence of two distributions.
//!
//! Logits are taken in spans of [`SPAN`], and what is known of a span depends on its logits alone. As in `vector.rs` loops are
//! plain Rust, compiled for each instruction set, every operation exactly rounded and in a fixed order.

use super::{scalar::LANES, vector::larger};

/// Logits of one span: few enough that reading one again costs little, many enough that there are few.
pub(crate) const SPAN: usize = 128;

/// Lanes of sums in f64.
const WIDE: usize = 8;

/// `exp(x)` to within 2 units in the last place for `x` in [-708, 708], clamped outside; NaN stays NaN.
/// As `exp32` in `vector.rs`, with degree 13.
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

/// The best and the second of some logits, NaN where one is not finite; minus infinity for what is not there.
#[inline(always)]
fn two_largest(logits: &[f32]) -> (f32, f32) {
    // The largest magnitude as bits, in which infinities and NaN are above all finite numbers.
    let mut magnitude = [0_u32; LANES];
    let (mut best, mut second) = ([f32::NEG_INFINITY; LANES], [f32::NEG_INFINITY; LANES]);
    let mut chunks = logits.chunks_exact(LANES);
    let mut take = |l: usize, x: f32| {
        magnitude[l] = magnitude[l].max(x.to_bits() & 0x7fff_ffff);
        let less = if x > best[l] { best[l] } else { x };
        best[l] = larger(best[l], x);
        second[l] = larger(second[l], less);
    };
    for chunk in &mut chunks {
        for l in 0..LANES {
            take(l, chunk[l]);
        }
    }
    for (l, &x) in chunks.remainder().iter().enumerate() {
        take(l, x);
    }
    if magnitude.into_iter().fold(0, u32::max) >= 0x7f80_0000 {
        return (f32::NAN, f32::NAN);
    }
    halve::<8>(&mut best, &mut second);
    halve::<4>(&mut best, &mut second);
    halve::<2>(&mut best, &mut second);
    halve::<1>(&mut best, &mut second);
    if best[0] == 0.0 || second[0] == 0.0 {
        return first_zeros(logits);
    }
    (best[0], second[0])
}

/// Joins lanes `HALF` to `2 * HALF` with those before them. Of a number of lanes that is known, so that they are taken side
/// by side.
#[inline(always)]
fn halve<const HALF: usize>(best: &mut [f32; LANES], second: &mut [f32; LANES]) {
    for l in 0..HALF {
        let (a, b) = (best[l], best[l + HALF]);
        let less = if b > a { a } else { b };
        best[l] = larger(a, b);
        second[l] = larger(larger(second[l], second[l + HALF]), less);
    }
}

/// As [`two_largest`], one after the other: of zeros with different signs the first counts, and lanes do not know it.
#[cold]
fn first_zeros(logits: &[f32]) -> (f32, f32) {
    two_in_order(logits.iter().copied())
}

/// The best and the second of some numbers, one after the other, of equals the first; minus infinity for what is not there. A
/// NaN is passed over.
pub(crate) fn two_in_order(numbers: impl Iterator<Item = f32>) -> (f32, f32) {
    numbers.fold(
        (f32::NEG_INFINITY, f32::NEG_INFINITY),
        |(best, second), x| {
            if x > best { (x, best) } else { (best, larger(second, x)) }
        },
    )
}

/// The best and the second logit of each span.
#[inline(always)]
pub(crate) fn peaks(logits: &[f32], best: &mut [f32], second: &mut [f32]) {
    for ((span, best), second) in logits.chunks(SPAN).zip(best).zip(second) {
        (*best, *second) = two_largest(span);
    }
}

/// As [`peaks`], and each span's sum of `exp(logit - best)`.
#[inline(always)]
pub(crate) fn spans(logits: &[f32], best: &mut [f32], second: &mut [f32], sum: &mut [f64]) {
    for (((span, best), second), sum) in logits.chunks(SPAN).zip(best).zip(second).zip(sum) {
        (*best, *second) = two_largest(span);
        let top = f64::from(*best);
        // Exponentials first, then their sum: a loop that does one thing is one that the compiler vectorizes.
        let mut exponentials = [0.0_f64; SPAN];
        for (e, x) in exponentials.iter_mut().zip(span) {
            *e = exp64(f64::from(*x) - top);
        }
        *sum = total(&exponentials[..span.len()]);
    }
}

/// The span of the first largest logit, that logit, and the second; `None` where one is not finite, or there are none.
#[inline(always)]
pub(crate) fn first_two(best: &[f32], second: &[f32]) -> Option<(usize, f32, f32)> {
    let (top, other) = two_largest(best);
    let span = first(best, top)?;
    let within = second[span];
    // Of equals the first; they may be zeros of different signs.
    let other_first = other > within || other == within && best[..span].contains(&other);
    Some((span, top, if other_first { other } else { within }))
}

/// Where `x` first stands.
#[inline(always)]
pub(crate) fn first(all: &[f32], x: f32) -> Option<usize> {
    // In steps that vectorize, then within the one that holds it.
    let step = all.chunks(LANES).position(|chunk| chunk.iter().fold(false, |found, &y| found | (y == x)))?;
    all[step * LANES..].iter().position(|&y| y == x).map(|at| step * LANES + at)
}

/// `term[i] = sum[i] * exp(best[i] - top)`.
#[inline(always)]
pub(crate) fn terms(best: &[f32], sum: &[f64], top: f32, term: &mut [f64]) {
    for ((term, best), sum) in term.iter_mut().zip(best).zip(sum) {
        *term = sum * exp64(f64::from(*best) - f64::from(top));
    }
}

/// The sum of all: in 32 lanes, so that no addition waits for the one before, and a tree.
#[inline(always)]
pub(crate) fn total(terms: &[f64]) -> f64 {
    const LANES: usize = 4 * WIDE;
    let mut acc = [0.0_f64; LANES];
    let mut chunks = terms.chunks_exact(LANES);
    for chunk in &mut chunks {
        for l in 0..LANES {
            acc[l] += chunk[l];
        }
    }
    for (acc, term) in acc.iter_mut().zip(chunks.remainder()) {
        *acc += term;
    }
    for half in [2 * WIDE, WIDE] {
        for l in 0..half {
            acc[l] += acc[l + half];
        }
    }
    sum8(std::array::from_fn(|l| acc[l]))
}

#[inline(always)]
fn sum8(mut acc: [f64; WIDE]) -> f64 {
    for half in [4, 2, 1] {
        for l in 0..half {
            acc[l] += acc[l + half];
        }
    }
    acc[0]
}

/// `out[i] = exp(logits[i] - log_sum)`: the probabilities, in f64.
#[inline(always)]
pub(crate) fn probabilities(logits: &[f32], log_sum: f64, out: &mut [f64]) {
    for (out, x) in out.iter_mut().zip(logits) {
        *out = exp64(f64::from(*x) - log_sum);
    }
}

/// `sum_i p[i] * (a[i] - b[i])` over each span, in f64.
#[inline(always)]
pub(crate) fn differences(p: &[f64], a: &[f32], b: &[f32], sum: &mut [f64]) {
    for (((p, a), b), sum) in p.chunks(SPAN).zip(a.chunks(SPAN)).zip(b.chunks(SPAN)).zip(sum) {
        let whole = p.len() / WIDE * WIDE;
        let mut acc = [0.0_f64; WIDE];
        let eights =
            p[..whole].chunks_exact(WIDE).zip(a[..whole].chunks_exact(WIDE)).zip(b[..whole].chunks_exact(WIDE));
        for ((p, a), b) in eights {
            for l in 0..WIDE {
                acc[l] = p[l].mul_add(f64::from(a[l]) - f64::from(b[l]), acc[l]);
            }
        }
        for (l, i) in (whole..p.len()).enumerate() {
            acc[l] = p[i].mul_add(f64::from(a[i]) - f64::from(b[i]), acc[l]);
        }
        *sum = sum8(acc);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_within_two_units_of_libm() {
        let mut worst = 0.0_f64;
        for i in -80_000..80_000 {
            let x = f64::from(i) * 0.001;
            let e = libm::exp(x);
            worst = worst.max((exp64(x) - e).abs() / (e * f64::EPSILON));
        }
        assert!(worst < 2.0, "{worst}");
        assert!(exp64(f64::NAN).is_nan() && exp64(-1e9) < 1e-300 && exp64(0.0) == 1.0);
    }
}
