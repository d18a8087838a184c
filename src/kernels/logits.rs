//! Statistics of logits: the two largest, their log-sum-exp, probabilities, the divergence of two distributions.
//!
//! Logits are taken in spans of [`SPAN`], and what is known of a span depends on its logits alone. So where few logits
//! are replaced, few spans are read again ([`Peaks::top_replaced`], [`Spans::replaced`]), and what comes out is what reading
//! all of them gives, to the bit.
//!
//! As in `vector.rs` loops are plain Rust, compiled for each instruction set, every operation exactly rounded and in a
//! fixed order.

use super::{Kernel, scalar::LANES, vector::larger};

/// Logits of one span: few enough that reading one again costs little, many enough that there are few.
pub(super) const SPAN: usize = 128;

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

/// The two largest logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Top {
    /// Index of the first largest logit.
    pub token: usize,
    /// Its value.
    pub best: f32,
    /// The largest of the others, of equals the first; minus infinity where there is no other.
    pub second: f32,
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
pub(super) fn two_in_order(numbers: impl Iterator<Item = f32>) -> (f32, f32) {
    numbers.fold(
        (f32::NEG_INFINITY, f32::NEG_INFINITY),
        |(best, second), x| {
            if x > best { (x, best) } else { (best, larger(second, x)) }
        },
    )
}

/// The best and the second logit of each span.
#[inline(always)]
pub(super) fn peaks(logits: &[f32], best: &mut [f32], second: &mut [f32]) {
    for ((span, best), second) in logits.chunks(SPAN).zip(best).zip(second) {
        (*best, *second) = two_largest(span);
    }
}

/// As [`peaks`], and each span's sum of `exp(logit - best)`.
#[inline(always)]
pub(super) fn spans(logits: &[f32], best: &mut [f32], second: &mut [f32], sum: &mut [f64]) {
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
pub(super) fn first_two(best: &[f32], second: &[f32]) -> Option<(usize, f32, f32)> {
    let (top, other) = two_largest(best);
    let span = first(best, top)?;
    let within = second[span];
    // Of equals the first; they may be zeros of different signs.
    let other_first = other > within || other == within && best[..span].contains(&other);
    Some((span, top, if other_first { other } else { within }))
}

/// Where `x` first stands.
#[inline(always)]
pub(super) fn first(all: &[f32], x: f32) -> Option<usize> {
    // In steps that vectorize, then within the one that holds it.
    let step = all.chunks(LANES).position(|chunk| chunk.iter().fold(false, |found, &y| found | (y == x)))?;
    all[step * LANES..].iter().position(|&y| y == x).map(|at| step * LANES + at)
}

/// `term[i] = sum[i] * exp(best[i] - top)`.
#[inline(always)]
pub(super) fn terms(best: &[f32], sum: &[f64], top: f32, term: &mut [f64]) {
    for ((term, best), sum) in term.iter_mut().zip(best).zip(sum) {
        *term = sum * exp64(f64::from(*best) - f64::from(top));
    }
}

/// The sum of all: in 32 lanes, so that no addition waits for the one before, and a tree.
#[inline(always)]
pub(super) fn total(terms: &[f64]) -> f64 {
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
pub(super) fn probabilities(logits: &[f32], log_sum: f64, out: &mut [f64]) {
    for (out, x) in out.iter_mut().zip(logits) {
        *out = exp64(f64::from(*x) - log_sum);
    }
}

/// `sum_i p[i] * (a[i] - b[i])` over each span, in f64.
#[inline(always)]
pub(super) fn differences(p: &[f64], a: &[f32], b: &[f32], sum: &mut [f64]) {
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

/// Logits that take the place of others: at `index`, ascending, stand `logits`.
#[derive(Clone, Copy, Debug)]
pub struct Replaced<'a> {
    /// Indices in the vocabulary.
    pub index: &'a [usize],
    /// One for each.
    pub logits: &'a [f32],
}

impl Replaced<'_> {
    /// Calls `each` with every span that holds one of them, as it is with them in place.
    fn spans(self, logits: &[f32], mut each: impl FnMut(usize, &[f32])) {
        let mut at = 0;
        while let Some(&first) = self.index.get(at) {
            let span = first / SPAN;
            let old = &logits[span * SPAN..logits.len().min((span + 1) * SPAN)];
            let mut own = [0.0; SPAN];
            own[..old.len()].copy_from_slice(old);
            while let Some(index) = self.index.get(at).filter(|&&index| index / SPAN == span) {
                own[index % SPAN] = self.logits[at];
                at += 1;
            }
            each(span, &own[..old.len()]);
        }
    }

    /// Where `x` stands first in `span`, with them in place.
    fn first_in(self, logits: &[f32], span: usize, x: f32) -> usize {
        let mut found = None;
        self.spans(logits, |touched, own| {
            if touched == span {
                found = own.iter().position(|&y| y == x).map(|at| span * SPAN + at);
            }
        });
        found.unwrap_or_else(|| first_in(logits, span, x))
    }
}

fn first_in(logits: &[f32], span: usize, x: f32) -> usize {
    span * SPAN + logits[span * SPAN..].iter().position(|&y| y == x).expect("the span's best is one of its logits")
}

/// The best and the second of each span of some logits.
#[derive(Clone, Debug)]
pub struct Peaks {
    kernel: Kernel,
    best: Vec<f32>,
    second: Vec<f32>,
    /// Of the spans that an edit touches: their number, best and second.
    before: Vec<(usize, f32, f32)>,
}

impl Peaks {
    /// Of `logits`.
    pub fn new(kernel: Kernel, logits: &[f32]) -> Self {
        let mut new = Self::empty(kernel, logits);
        kernel.peaks(logits, &mut new.best, &mut new.second);
        new
    }

    fn empty(kernel: Kernel, logits: &[f32]) -> Self {
        let count = logits.len().div_ceil(SPAN);
        Self { kernel, best: vec![0.0; count], second: vec![0.0; count], before: Vec::new() }
    }

    /// The two largest of the `logits` that these are of; `None` if one is not finite.
    pub fn top(&self, logits: &[f32]) -> Option<Top> {
        let (span, best, second) = self.kernel.first_two(&self.best, &self.second)?;
        Some(Top { token: first_in(logits, span, best), best, second })
    }

    /// The two largest where some of the `logits` that these are of are replaced; `None` if one is not finite.
    ///
    /// # Panics
    /// If an index is beyond the logits.
    pub fn top_replaced(&mut self, logits: &[f32], replaced: Replaced<'_>) -> Option<Top> {
        self.before.clear();
        replaced.spans(logits, |span, own| {
            self.before.push((span, self.best[span], self.second[span]));
            self.kernel.peaks(own, &mut self.best[span..=span], &mut self.second[span..=span]);
        });
        let top = self.kernel.first_two(&self.best, &self.second);
        for &(span, best, second) in &self.before {
            (self.best[span], self.second[span]) = (best, second);
        }
        let (span, best, second) = top?;
        Some(Top { token: replaced.first_in(logits, span, best), best, second })
    }
}

/// What the two largest of some logits and their log-sum-exp are made of, span by span.
#[derive(Clone, Debug)]
pub struct Spans {
    peaks: Peaks,
    /// Of `exp(logit - best)`.
    sum: Vec<f64>,
    /// `sum * exp(best - the largest of all)`.
    term: Vec<f64>,
    /// The same under another largest.
    other: Vec<f64>,
    /// As in [`Peaks`]: number, sum and term.
    before: Vec<(usize, f64, f64)>,
    top: Option<Top>,
    log_sum_exp: f64,
}

impl Spans {
    /// Of `logits`.
    pub fn new(kernel: Kernel, logits: &[f32]) -> Self {
        let mut peaks = Peaks::empty(kernel, logits);
        let mut sum = vec![0.0; peaks.best.len()];
        kernel.spans(logits, &mut peaks.best, &mut peaks.second, &mut sum);
        let mut term = vec![0.0; sum.len()];
        let top = peaks.top(logits);
        let log_sum_exp = match top {
            Some(top) => {
                kernel.terms(&peaks.best, &sum, top.best, &mut term);
                f64::from(top.best) + libm::log(kernel.total(&term))
            }
            None => f64::NAN,
        };
        Self { peaks, sum, other: term.clone(), term, before: Vec::new(), top, log_sum_exp }
    }

    /// The two largest; `None` if one is not finite.
    pub const fn top(&self) -> Option<Top> {
        self.top
    }

    /// `ln(sum_i exp(logits[i]))`; NaN if one is not finite.
    pub const fn log_sum_exp(&self) -> f64 {
        self.log_sum_exp
    }

    /// The two largest and the log-sum-exp where some of the `logits` that these are of are replaced; `None` if one is
    /// not finite.
    ///
    /// # Panics
    /// If an index is beyond the logits.
    pub fn replaced(&mut self, logits: &[f32], replaced: Replaced<'_>) -> Option<(Top, f64)> {
        let Self { peaks, sum, term, other, before, .. } = self;
        let kernel = peaks.kernel;
        before.clear();
        peaks.before.clear();
        replaced.spans(logits, |span, own| {
            peaks.before.push((span, peaks.best[span], peaks.second[span]));
            before.push((span, sum[span], term[span]));
            let at = span..=span;
            kernel.spans(own, &mut peaks.best[at.clone()], &mut peaks.second[at.clone()], &mut sum[at]);
        });
        let found = kernel.first_two(&peaks.best, &peaks.second).map(|(span, best, second)| {
            let total = if self.top.is_some_and(|top| top.best == best) {
                for &(span, ..) in &*before {
                    kernel.terms(&peaks.best[span..=span], &sum[span..=span], best, &mut term[span..=span]);
                }
                kernel.total(term)
            } else {
                kernel.terms(&peaks.best, sum, best, other);
                kernel.total(other)
            };
            (span, best, second, f64::from(best) + libm::log(total))
        });
        for &(span, best, second) in &peaks.before {
            (peaks.best[span], peaks.second[span]) = (best, second);
        }
        for &(span, old, old_term) in &*before {
            (sum[span], term[span]) = (old, old_term);
        }
        let (span, best, second, log_sum_exp) = found?;
        Some((Top { token: replaced.first_in(logits, span, best), best, second }, log_sum_exp))
    }
}

/// How far some logits lie from those of another distribution, each weighed by its probability there, span by span.
#[derive(Clone, Debug)]
pub struct Differences {
    kernel: Kernel,
    sum: Vec<f64>,
    /// Of the spans that an edit touches: their number and sum.
    before: Vec<(usize, f64)>,
}

impl Differences {
    /// Of `logits` from `clean`, whose probabilities are `p`; all of one length.
    pub fn new(kernel: Kernel, p: &[f64], clean: &[f32], logits: &[f32]) -> Self {
        let mut sum = vec![0.0; logits.len().div_ceil(SPAN)];
        kernel.differences(p, clean, logits, &mut sum);
        Self { kernel, sum, before: Vec::new() }
    }

    /// `sum_i p[i] * (clean[i] - logits[i])`.
    pub fn mean(&self) -> f64 {
        self.kernel.total(&self.sum)
    }

    /// The same where some of the `logits` are replaced; the others are as they were given.
    ///
    /// # Panics
    /// If an index is beyond the logits.
    pub fn mean_replaced(&mut self, p: &[f64], clean: &[f32], logits: &[f32], replaced: Replaced<'_>) -> f64 {
        self.before.clear();
        replaced.spans(logits, |span, own| {
            self.before.push((span, self.sum[span]));
            let at = span * SPAN..span * SPAN + own.len();
            self.kernel.differences(&p[at.clone()], &clean[at], own, &mut self.sum[span..=span]);
        });
        let mean = self.mean();
        for &(span, sum) in &self.before {
            self.sum[span] = sum;
        }
        mean
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn top(logits: &[f32]) -> Option<Top> {
        Kernel::best().top(logits)
    }

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

    #[test]
    fn the_first_largest_logit_wins_and_the_second_may_equal_it() {
        let mut z = vec![0.0_f32; 1000];
        for (first, then) in [(37, 71), (3, 999), (130, 131), (127, 128)] {
            (z[first], z[then]) = (5.0, 5.0);
            assert_eq!(top(&z), Some(Top { token: first, best: 5.0, second: 5.0 }));
            z[then] = 4.0;
            assert_eq!(top(&z), Some(Top { token: first, best: 5.0, second: 4.0 }));
            (z[first], z[then]) = (0.0, 0.0);
        }
        assert_eq!(top(&[-1.0]), Some(Top { token: 0, best: -1.0, second: f32::NEG_INFINITY }));
        assert_eq!(top(&[]), None);
    }

    #[test]
    fn of_zeros_the_first_counts_whatever_their_signs_and_wherever_they_stand() {
        for (a, b) in [(0.0_f32, -0.0_f32), (-0.0, 0.0)] {
            // Before and after the largest, in its span and in others.
            for (largest, first, then) in [(300, 1, 16), (300, 1, 301), (2, 1, 300), (299, 298, 500), (2, 301, 400)] {
                let mut z = vec![-1.0_f32; 600];
                (z[largest], z[first], z[then]) = (1.0, a, b);
                let second = top(&z).expect("finite").second;
                assert_eq!(second.to_bits(), a.to_bits(), "{largest} {first} {then}");
                z[largest] = -1.0;
                let Top { token, best, second } = top(&z).expect("finite");
                assert_eq!((token, best.to_bits(), second.to_bits()), (first, a.to_bits(), b.to_bits()));
            }
        }
    }

    #[test]
    fn one_logit_that_is_not_finite_is_seen_wherever_it_stands() {
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in 0..293 {
                let mut z = vec![1.0_f32; 293];
                z[at] = bad;
                assert_eq!(top(&z), None, "{bad} at {at}");
                assert!(Kernel::best().log_sum_exp(&z).is_nan(), "{bad} at {at}");
            }
        }
    }

    #[test]
    fn log_sum_exp_and_divergence_agree_with_their_definitions() {
        let kernel = Kernel::best();
        let a: Vec<f32> = (0..1003).map(|i| (i as f32 * 0.37).sin() * 9.0).collect();
        let b: Vec<f32> = (0..1003).map(|i| (i as f32 * 0.53).cos() * 7.0).collect();
        let lse = |z: &[f32]| z.iter().map(|&x| f64::from(x).exp()).sum::<f64>().ln();
        let (la, lb) = (kernel.log_sum_exp(&a), kernel.log_sum_exp(&b));
        assert!((la - lse(&a)).abs() < 1e-12 && (lb - lse(&b)).abs() < 1e-12);
        let mut p = vec![0.0; a.len()];
        kernel.probabilities(&a, la, &mut p);
        assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        let kl = Differences::new(kernel, &p, &a, &b).mean() + lb - la;
        let slow: f64 = (0..a.len())
            .map(|i| {
                let (p, q) = (f64::from(a[i]) - la, f64::from(b[i]) - lb);
                p.exp() * (p - q)
            })
            .sum();
        assert!((kl - slow).abs() < 1e-12 && kl > 0.1, "{kl} {slow}");
    }
}
