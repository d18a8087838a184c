//! The loops of [`super`]: 32 codes at a time are multiplied by 32 signed bytes and added by fours.

use std::arch::x86_64::*;

use super::{BLOCK_ROWS, GROUPS, Kernel, Probe, Range, Scales, WIDE};
use crate::{
    kernels::{
        Isa, avx2,
        lanes::{AHEAD, widen_some},
    },
    quant::{Bits, MatrixRef},
};

/// Rows that are evaluated side by side: as many as a page of memory holds, so that they are read as one stream, but at
/// most 4, and 2 where they are longer.
const fn side_by_side(row_bytes: usize) -> usize {
    if row_bytes <= 1024 { 4 } else { 2 }
}

/// Which instructions are used, as proof that this processor has them.
#[derive(Clone, Copy)]
pub(super) enum Loops {
    /// `vpmaddubsw`, whose sums of two products hold codes of 4 bits only.
    Avx2,
    /// `vpdpbusd`.
    Vnni,
}

impl Loops {
    /// The best for a matrix of such codes, if there are any.
    pub(super) fn of(kernel: Kernel, bits: Bits) -> Option<Self> {
        let vnni = || is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512vl");
        match kernel.0 {
            Isa::Scalar => None,
            Isa::Avx512 if avx2::detected() && vnni() => Some(Self::Vnni),
            Isa::Avx2 | Isa::Avx512 => (avx2::detected() && bits == Bits::Four).then_some(Self::Avx2),
        }
    }

    /// All that can be used here.
    #[cfg(test)]
    pub(super) fn all(kernel: Kernel, bits: Bits) -> Vec<Self> {
        let pairs = (kernel.0 != Isa::Scalar && avx2::detected() && bits == Bits::Four).then_some(Self::Avx2);
        Self::of(kernel, bits).into_iter().filter(|best| matches!(best, Self::Vnni)).chain(pairs).collect()
    }

    /// Widens scales and biases of `rows`, at most [`BLOCK_ROWS`].
    pub(super) fn widen(self, rows: &MatrixRef<'_>, to: &mut Scales) {
        // SAFETY: both kinds of loops are made where AVX2, FMA and F16C were detected.
        unsafe { widen(rows, to) }
    }

    /// Between what the logits of `rows`, at most [`BLOCK_ROWS`], lie for a probe of their matrix.
    pub(super) fn range(self, rows: &MatrixRef<'_>, probe: &Probe, scales: &Scales) -> Range {
        let layout = rows.layout();
        assert!(layout.rows() <= BLOCK_ROWS && probe.fits(rows), "a probe of this matrix");
        let needed = layout.rows() * layout.groups_per_row() + GROUPS;
        assert!(scales.scales.len() >= needed && scales.biases.len() >= needed, "scales and biases of these rows");
        // SAFETY: the features were detected, and by the asserts the probe and the scales are as long as the loops read.
        unsafe {
            match (self, layout.bits()) {
                (Self::Avx2, _) => avx2(rows, probe, scales),
                (Self::Vnni, Bits::Four) => vnni::<false>(rows, probe, scales),
                (Self::Vnni, Bits::Eight) => vnni::<true>(rows, probe, scales),
            }
        }
    }
}

/// What adds up products of bytes.
trait Dot {
    /// Adds the products of unsigned `codes` and signed `q`, four by four, to the sums.
    ///
    /// # Safety
    /// The instructions were detected.
    unsafe fn dot(sums: __m256i, codes: __m256i, q: __m256i) -> __m256i;
}

struct Pairs;

impl Dot for Pairs {
    #[inline(always)]
    unsafe fn dot(sums: __m256i, codes: __m256i, q: __m256i) -> __m256i {
        // SAFETY: as for this function.
        unsafe {
            let pairs = _mm256_maddubs_epi16(codes, q);
            _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }
}

struct Fours;

impl Dot for Fours {
    #[inline(always)]
    unsafe fn dot(sums: __m256i, codes: __m256i, q: __m256i) -> __m256i {
        // SAFETY: as for this function.
        unsafe { _mm256_dpbusd_epi32(sums, codes, q) }
    }
}

/// # Safety
/// The features were detected.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn widen(rows: &MatrixRef<'_>, to: &mut Scales) {
    let layout = rows.layout();
    let (groups, count) = (layout.groups_per_row(), layout.rows() * layout.groups_per_row());
    let parts =
        [(rows.scales(), &mut to.scales, &mut to.largest_scale), (rows.biases(), &mut to.biases, &mut to.largest_bias)];
    for (from, to, largest) in parts {
        if to.len() < count + GROUPS {
            to.resize(count + GROUPS, 0.0);
        }
        // Up to seven groups beyond a row's are read and multiplied by zeros: the next row's, or these.
        to[count..count + GROUPS].fill(0.0);
        // SAFETY: the caller's promise; `from` is as long as the matrix asks for.
        unsafe { widen_some::<avx2::Ymm>(layout.scale_type(), from, &mut to[..count]) };
        for (row, largest) in to[..count].chunks_exact(groups).zip(largest) {
            // As bits, in which infinities and NaN are above all finite numbers.
            let mut bits = 0;
            for x in row {
                bits = bits.max(x.to_bits() & 0x7fff_ffff);
            }
            *largest = f32::from_bits(bits);
        }
    }
}

/// # Safety
/// As [`Loops::range`] asserts, with the features detected.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2(rows: &MatrixRef<'_>, probe: &Probe, scales: &Scales) -> Range {
    // SAFETY: the caller's promise.
    unsafe { range::<Pairs, false>(rows, probe, scales) }
}

/// # Safety
/// As [`Loops::range`] asserts, with the features detected.
#[target_feature(enable = "avx512f,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn vnni<const EIGHT: bool>(rows: &MatrixRef<'_>, probe: &Probe, scales: &Scales) -> Range {
    // SAFETY: the caller's promise.
    unsafe { range::<Fours, EIGHT>(rows, probe, scales) }
}

/// # Safety
/// As [`Loops::range`] asserts, with the features of `D` detected.
#[inline(always)]
unsafe fn range<D: Dot, const EIGHT: bool>(rows: &MatrixRef<'_>, probe: &Probe, scales: &Scales) -> Range {
    let mut logits = [0.0; BLOCK_ROWS];
    // SAFETY: as for this function.
    unsafe {
        match rows.layout().group_size() * rows.layout().bits().get() / 8 {
            16 => block::<D, EIGHT, 16>(rows, probe, scales, &mut logits),
            32 => block::<D, EIGHT, 32>(rows, probe, scales, &mut logits),
            64 => block::<D, EIGHT, 64>(rows, probe, scales, &mut logits),
            _ => block::<D, EIGHT, 128>(rows, probe, scales, &mut logits),
        }
    }
    Range::new(rows.layout().rows(), &logits, scales, &probe.bound)
}

/// Evaluates all rows; a group has `BYTES` bytes.
///
/// # Safety
/// As [`range`].
#[inline(always)]
unsafe fn block<D: Dot, const EIGHT: bool, const BYTES: usize>(
    rows: &MatrixRef<'_>,
    probe: &Probe,
    scales: &Scales,
    to: &mut [f32; BLOCK_ROWS],
) {
    let layout = rows.layout();
    let most = side_by_side(layout.weight_row_bytes());
    let mut row = 0;
    // SAFETY: the rows lie in the matrix.
    unsafe {
        while row < layout.rows() {
            row += match most.min(layout.rows() - row) {
                4 => some::<D, EIGHT, BYTES, 4>(rows, row, probe, scales, to),
                2 | 3 => some::<D, EIGHT, BYTES, 2>(rows, row, probe, scales, to),
                _ => some::<D, EIGHT, BYTES, 1>(rows, row, probe, scales, to),
            };
        }
    }
}

/// Evaluates `R` rows from `row` on, and gives their number. Where a group has 16 bytes only, the upper half of each
/// vector is multiplied by zeros.
///
/// # Safety
/// As [`range`], with `row + R` rows in the matrix.
#[inline(always)]
unsafe fn some<D: Dot, const EIGHT: bool, const BYTES: usize, const R: usize>(
    rows: &MatrixRef<'_>,
    row: usize,
    probe: &Probe,
    scales: &Scales,
    to: &mut [f32; BLOCK_ROWS],
) -> usize {
    let layout = rows.layout();
    let (groups, row_bytes) = (layout.groups_per_row(), layout.weight_row_bytes());
    let wide = BYTES.min(WIDE);
    // SAFETY: offsets stay within `R` rows, and within what the probe and the scales were asserted to hold.
    unsafe {
        let nibble = _mm256_set1_epi8(15);
        let shift = _mm256_set1_epi32(probe.shift.cast_signed());
        let mut words = rows.weight().as_ptr().add(row * row_bytes);
        let mut ahead = words.wrapping_add(R * row_bytes + AHEAD);
        let mut q: *const __m256i = probe.q.as_ptr().cast();
        let scale = scales.scales.as_ptr().add(row * groups);
        let bias = scales.biases.as_ptr().add(row * groups);
        let mut acc = [_mm256_setzero_ps(); R];
        // The next block's, a few at a time.
        let scale_bytes = layout.scale_row_bytes();
        for line in (0..if probe.first { R * scale_bytes } else { 0 }).step_by(64) {
            let next = (layout.rows() + row) * scale_bytes + line;
            _mm_prefetch::<_MM_HINT_T0>(rows.scales().as_ptr().wrapping_add(next).cast());
            _mm_prefetch::<_MM_HINT_T0>(rows.biases().as_ptr().wrapping_add(next).cast());
        }
        for g in 0..groups {
            // In the order in which the bytes lie; see `lanes.rs`.
            if probe.first {
                for line in (0..R * BYTES).step_by(64) {
                    _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(line).cast());
                }
                ahead = ahead.wrapping_add(R * BYTES);
            }
            let (mut high, mut low) = ([_mm256_setzero_si256(); R], [_mm256_setzero_si256(); R]);
            for _ in 0..BYTES / wide {
                for r in 0..R {
                    let from = words.add(r * row_bytes);
                    let packed = if BYTES < WIDE {
                        _mm256_zextsi128_si256(_mm_loadu_si128(from.cast()))
                    } else {
                        _mm256_loadu_si256(from.cast())
                    };
                    let packed = _mm256_sub_epi32(packed, shift);
                    if EIGHT {
                        high[r] = D::dot(high[r], packed, *q);
                        low[r] = D::dot(low[r], packed, *q.add(1));
                    } else {
                        let even = _mm256_and_si256(packed, nibble);
                        let odd = _mm256_and_si256(_mm256_srli_epi16::<4>(packed), nibble);
                        high[r] = D::dot(D::dot(high[r], even, *q), odd, *q.add(1));
                        low[r] = D::dot(D::dot(low[r], even, *q.add(2)), odd, *q.add(3));
                    }
                }
                words = words.add(wide);
                q = q.add(if EIGHT { 2 } else { 4 });
            }
            for r in 0..R {
                let sum = _mm256_add_epi32(_mm256_slli_epi32::<8>(high[r]), low[r]);
                let scale = _mm256_set1_ps(*scale.add(r * groups + g));
                acc[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), scale, acc[r]);
            }
        }
        let step = _mm256_set1_ps(probe.step);
        let mut sums = [_mm256_setzero_ps(); R];
        for g in (0..groups).step_by(GROUPS) {
            let sum = _mm256_loadu_ps(probe.sum.as_ptr().add(g));
            for r in 0..R {
                sums[r] = _mm256_fmadd_ps(_mm256_loadu_ps(bias.add(r * groups + g)), sum, sums[r]);
            }
        }
        for r in 0..R {
            sums[r] = _mm256_fmadd_ps(acc[r], step, sums[r]);
        }
        if R == 4 {
            let [a, b, c, d] = [sums[0], sums[1 % R], sums[2 % R], sums[3 % R]];
            // Sums of twos, then of fours: the four rows' in each half.
            let fours = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
            let all = _mm_add_ps(_mm256_castps256_ps128(fours), _mm256_extractf128_ps::<1>(fours));
            _mm_storeu_ps(to.as_mut_ptr().add(row), all);
        } else {
            for r in 0..R {
                to[row + r] = total(sums[r]);
            }
        }
    }
    R
}

/// The sum of eight, in three additions.
///
/// # Safety
/// AVX2 was detected.
#[inline(always)]
unsafe fn total(eight: __m256) -> f32 {
    // SAFETY: as for this function.
    unsafe {
        let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
    }
}
