//! The loops of [`super`]: 32 codes at a time are multiplied by 32 signed bytes and added by fours.

use std::arch::x86_64::*;

use super::{BLOCK_ROWS, GROUPS, Kernel, Probe, Range, Scales, TILES, Turn, WIDE};
use crate::{
    kernels::{
        Isa, avx2,
        lanes::{AHEAD, APART, STREAM_AHEAD, TILE_ROWS, far_apart, widen_some},
    },
    quant::{Bits, MatrixRef},
};

/// Rows that are evaluated side by side, at most.
const MOST: usize = 4;

/// Rows that are evaluated side by side: as many as a page of memory holds, so that they are read as one stream, but at
/// most 4, and 2 where they are longer.
const fn side_by_side(row_bytes: usize) -> usize {
    if row_bytes <= 1024 { MOST } else { 2 }
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
    pub(super) fn range(self, rows: &MatrixRef<'_>, probe: &Probe, scales: &mut Scales) -> Range {
        let layout = rows.layout();
        assert!(layout.rows() <= BLOCK_ROWS && probe.fits(rows), "a probe of this matrix");
        let needed = layout.rows() * layout.groups_per_row() + GROUPS;
        assert!(scales.scales.len() >= needed && scales.biases.len() >= needed, "scales and biases of these rows");
        let padded = layout.groups_per_row().next_multiple_of(GROUPS);
        assert_eq!(scales.largest_scale.len(), TILES * padded, "scales of a matrix with as many groups");
        scales.steps.resize(MOST * padded, 0.0);
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
    unsafe fn bytes(sums: __m256i, codes: __m256i, q: __m256i) -> __m256i;

    /// The same of two times 32 codes of 4 bits.
    ///
    /// # Safety
    /// As [`Dot::bytes`].
    unsafe fn nibbles(sums: __m256i, codes: [__m256i; 2], q: [__m256i; 2]) -> __m256i;
}

struct Pairs;

impl Dot for Pairs {
    #[inline(always)]
    unsafe fn bytes(_: __m256i, _: __m256i, _: __m256i) -> __m256i {
        unreachable!("`Loops::of` gives these loops for codes of 4 bits only")
    }
    #[inline(always)]
    unsafe fn nibbles(sums: __m256i, codes: [__m256i; 2], q: [__m256i; 2]) -> __m256i {
        // SAFETY: as for this function.
        unsafe {
            // Four products of 15 and 127 are far below 2^15.
            let pairs = _mm256_add_epi16(_mm256_maddubs_epi16(codes[0], q[0]), _mm256_maddubs_epi16(codes[1], q[1]));
            _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }
}

struct Fours;

impl Dot for Fours {
    #[inline(always)]
    unsafe fn bytes(sums: __m256i, codes: __m256i, q: __m256i) -> __m256i {
        // SAFETY: as for this function.
        unsafe { _mm256_dpbusd_epi32(sums, codes, q) }
    }
    #[inline(always)]
    unsafe fn nibbles(sums: __m256i, codes: [__m256i; 2], q: [__m256i; 2]) -> __m256i {
        // SAFETY: as for this function.
        unsafe { Self::bytes(Self::bytes(sums, codes[0], q[0]), codes[1], q[1]) }
    }
}

/// # Safety
/// The features were detected.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn widen(rows: &MatrixRef<'_>, to: &mut Scales) {
    let layout = rows.layout();
    let (groups, count) = (layout.groups_per_row(), layout.rows() * layout.groups_per_row());
    for (from, to) in [(rows.scales(), &mut to.scales), (rows.biases(), &mut to.biases)] {
        if to.len() < count + GROUPS {
            to.resize(count + GROUPS, 0.0);
        }
        // Up to seven groups beyond a row's are read and multiplied by zeros: the next row's, or these.
        to[count..count + GROUPS].fill(0.0);
        // SAFETY: the caller's promise; `from` is as long as the matrix asks for.
        unsafe { widen_some::<avx2::Ymm>(layout.scale_type(), from, &mut to[..count]) };
    }
    let padded = groups.next_multiple_of(GROUPS);
    to.largest_scale.clear();
    to.largest_scale.resize(TILES * padded, 0.0);
    to.largest_bias = [0.0; TILES];
    // As bits, in which infinities and NaN are above all finite numbers.
    let larger = |a: f32, b: f32| f32::from_bits(a.to_bits().max(b.to_bits() & 0x7fff_ffff));
    for (scales, largest) in
        to.scales[..count].chunks(TILE_ROWS * groups).zip(to.largest_scale.chunks_exact_mut(padded))
    {
        for row in scales.chunks_exact(groups) {
            for (largest, &scale) in largest.iter_mut().zip(row) {
                *largest = larger(*largest, scale);
            }
        }
    }
    for (biases, largest) in to.biases[..count].chunks(TILE_ROWS * groups).zip(&mut to.largest_bias) {
        for &bias in biases {
            *largest = larger(*largest, bias);
        }
    }
}

/// # Safety
/// As [`Loops::range`] asserts, with the features detected.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2(rows: &MatrixRef<'_>, probe: &Probe, scales: &mut Scales) -> Range {
    // SAFETY: the caller's promise.
    unsafe { range::<Pairs, false>(rows, probe, scales) }
}

/// # Safety
/// As [`Loops::range`] asserts, with the features detected.
#[target_feature(enable = "avx512f,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn vnni<const EIGHT: bool>(rows: &MatrixRef<'_>, probe: &Probe, scales: &mut Scales) -> Range {
    // SAFETY: the caller's promise.
    unsafe { range::<Fours, EIGHT>(rows, probe, scales) }
}

/// # Safety
/// As [`Loops::range`] asserts, with the features of `D` detected.
#[inline(always)]
unsafe fn range<D: Dot, const EIGHT: bool>(rows: &MatrixRef<'_>, probe: &Probe, scales: &mut Scales) -> Range {
    let mut logits = [f32::NEG_INFINITY; BLOCK_ROWS];
    // SAFETY: as for this function.
    unsafe {
        match rows.layout().group_size() * rows.layout().bits().get() / 8 {
            16 => block::<D, EIGHT, 16>(rows, probe, scales, &mut logits),
            32 => block::<D, EIGHT, 32>(rows, probe, scales, &mut logits),
            64 => block::<D, EIGHT, 64>(rows, probe, scales, &mut logits),
            _ => block::<D, EIGHT, 128>(rows, probe, scales, &mut logits),
        }
    }
    // SAFETY: as for this function.
    let by_scale = unsafe { bounds(probe, scales) };
    Range::new(&logits, &by_scale, scales, probe)
}

/// What the bound has for the largest scales of each tile.
///
/// # Safety
/// As [`range`].
#[inline(always)]
unsafe fn bounds(probe: &Probe, scales: &Scales) -> [f32; TILES] {
    let padded = probe.groups.by_scale.len();
    let mut bounds = [0.0; TILES];
    // SAFETY: both are as long as the loops read: `widen` made one for the matrix's groups, the other is asserted to fit.
    unsafe {
        let mut acc = [_mm256_setzero_ps(); TILES];
        for g in (0..padded).step_by(GROUPS) {
            let by_scale = _mm256_loadu_ps(probe.groups.by_scale.as_ptr().add(g));
            for (tile, acc) in acc.iter_mut().enumerate() {
                let largest = _mm256_loadu_ps(scales.largest_scale.as_ptr().add(tile * padded + g));
                *acc = _mm256_fmadd_ps(largest, by_scale, *acc);
            }
        }
        let [a, b, c, d, e, f, g, h] = acc;
        _mm_storeu_ps(bounds.as_mut_ptr(), four_totals(a, b, c, d));
        _mm_storeu_ps(bounds.as_mut_ptr().add(4), four_totals(e, f, g, h));
    }
    bounds
}

/// Evaluates all rows; a group has `BYTES` bytes.
///
/// # Safety
/// As [`range`].
#[inline(always)]
unsafe fn block<D: Dot, const EIGHT: bool, const BYTES: usize>(
    rows: &MatrixRef<'_>,
    probe: &Probe,
    scales: &mut Scales,
    to: &mut [f32; BLOCK_ROWS],
) {
    let layout = rows.layout();
    let most = side_by_side(layout.weight_row_bytes());
    let mut row = 0;
    // SAFETY: the rows lie in the matrix.
    unsafe {
        if probe.turn.of == 1 && far_apart(rows, layout.rows()) {
            for row in 0..APART {
                some::<D, EIGHT, BYTES, APART, MOST>(rows, row, probe, scales, to);
            }
            return;
        }
        while row < layout.rows() {
            row += match most.min(layout.rows() - row) {
                MOST => some::<D, EIGHT, BYTES, 1, MOST>(rows, row, probe, scales, to),
                2 | 3 => some::<D, EIGHT, BYTES, 1, 2>(rows, row, probe, scales, to),
                _ => some::<D, EIGHT, BYTES, 1, 1>(rows, row, probe, scales, to),
            };
        }
    }
}

/// Evaluates `R` rows from `row` on, `STRIDE` from each other, and gives their number. Where a group has 16 bytes only, the
/// upper half of each vector is multiplied by zeros.
///
/// # Safety
/// As [`range`], with `row + (R - 1) * STRIDE + 1` rows in the matrix.
#[inline(always)]
unsafe fn some<D: Dot, const EIGHT: bool, const BYTES: usize, const STRIDE: usize, const R: usize>(
    rows: &MatrixRef<'_>,
    row: usize,
    probe: &Probe,
    scales: &mut Scales,
    to: &mut [f32; BLOCK_ROWS],
) -> usize {
    let layout = rows.layout();
    let (groups, row_bytes) = (layout.groups_per_row(), layout.weight_row_bytes());
    let padded = groups.next_multiple_of(GROUPS);
    let wide = BYTES.min(WIDE);
    // SAFETY: offsets stay within `R` rows, and within what the probe and the scales were asserted to hold.
    unsafe {
        let scale = scales.scales.as_ptr().add(row * groups);
        let bias = scales.biases.as_ptr().add(row * groups);
        // One probe alone is as far ahead as memory is slow. Of several each asks for some tiles of the next block: there is
        // time for it while all of them are held against this one.
        let Turn { index, of } = probe.turn;
        let reads_ahead = row / MOST % of.min(TILES) == index;
        // The next block's, a few at a time.
        let scale_bytes = layout.scale_row_bytes();
        for line in (0..if reads_ahead { R * scale_bytes } else { 0 }).step_by(64) {
            let first = if STRIDE == 1 { row } else { row * R };
            let next = (layout.rows() + first) * scale_bytes + line;
            _mm_prefetch::<_MM_HINT_T0>(rows.scales().as_ptr().wrapping_add(next).cast());
            _mm_prefetch::<_MM_HINT_T0>(rows.biases().as_ptr().wrapping_add(next).cast());
        }
        // What does not ask for codes.
        let steps = scales.steps.as_mut_ptr();
        let mut sums = [_mm256_setzero_ps(); R];
        let of_groups = &probe.groups;
        for g in (0..padded).step_by(GROUPS) {
            let step = _mm256_loadu_ps(of_groups.step.as_ptr().add(g));
            let middle = _mm256_loadu_ps(of_groups.middle.as_ptr().add(g));
            let sum = _mm256_loadu_ps(of_groups.sum.as_ptr().add(g));
            for r in 0..R {
                let eight = _mm256_loadu_ps(scale.add(r * STRIDE * groups + g));
                _mm256_storeu_ps(steps.add(r * padded + g), _mm256_mul_ps(eight, step));
                sums[r] = _mm256_fmadd_ps(_mm256_loadu_ps(bias.add(r * STRIDE * groups + g)), sum, sums[r]);
                sums[r] = _mm256_fmadd_ps(eight, middle, sums[r]);
            }
        }
        let nibble = _mm256_set1_epi8(15);
        let shift = _mm256_set1_epi32(probe.shift.cast_signed());
        let mut words = rows.weight().as_ptr().add(row * row_bytes);
        let mut ahead = words.wrapping_add(if of == 1 { R * row_bytes + AHEAD } else { layout.rows() * row_bytes });
        let mut q: *const __m256i = probe.q.as_ptr().cast();
        let mut acc = [_mm256_setzero_ps(); R];
        for g in 0..groups {
            // In the order in which the bytes lie; see `lanes.rs`.
            if STRIDE > 1 {
                for r in 0..if (g * BYTES).is_multiple_of(64) { R } else { 0 } {
                    let ahead = words.wrapping_add(r * STRIDE * row_bytes + STREAM_AHEAD);
                    for line in (0..BYTES).step_by(64) {
                        _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(line).cast());
                    }
                }
            } else if reads_ahead {
                for line in (0..R * BYTES).step_by(64) {
                    _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(line).cast());
                }
                ahead = ahead.wrapping_add(R * BYTES);
            }
            let mut products = [_mm256_setzero_si256(); R];
            for _ in 0..BYTES / wide {
                for r in 0..R {
                    let from = words.add(r * STRIDE * row_bytes);
                    let packed = if BYTES < WIDE {
                        _mm256_zextsi128_si256(_mm_loadu_si128(from.cast()))
                    } else {
                        _mm256_loadu_si256(from.cast())
                    };
                    let packed = _mm256_sub_epi32(packed, shift);
                    if EIGHT {
                        products[r] = D::bytes(products[r], packed, *q);
                    } else {
                        let even = _mm256_and_si256(packed, nibble);
                        let odd = _mm256_and_si256(_mm256_srli_epi16::<4>(packed), nibble);
                        products[r] = D::nibbles(products[r], [even, odd], [*q, *q.add(1)]);
                    }
                }
                words = words.add(wide);
                q = q.add(if EIGHT { 1 } else { 2 });
            }
            for r in 0..R {
                let step = _mm256_set1_ps(*steps.add(r * padded + g));
                acc[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(products[r]), step, acc[r]);
            }
        }
        for r in 0..R {
            sums[r] = _mm256_add_ps(acc[r], sums[r]);
        }
        if R == 4 && STRIDE == 1 {
            let four = four_totals(sums[0], sums[1 % R], sums[2 % R], sums[3 % R]);
            _mm_storeu_ps(to.as_mut_ptr().add(row), four);
        } else {
            for r in 0..R {
                to[row + r * STRIDE] = total(sums[r]);
            }
        }
    }
    R
}

/// The sums of eight each, in three additions.
///
/// # Safety
/// AVX2 was detected.
#[inline(always)]
unsafe fn four_totals(a: __m256, b: __m256, c: __m256, d: __m256) -> __m128 {
    // SAFETY: as for this function.
    unsafe {
        // Sums of twos, then of fours: the four's in each half.
        let fours = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
        _mm_add_ps(_mm256_castps256_ps128(fours), _mm256_extractf128_ps::<1>(fours))
    }
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
