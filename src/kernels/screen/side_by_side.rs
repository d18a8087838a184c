//! Several hidden states: what they are multiplied by is brought side by side once for all of them.
//!
//! A register then has the same word of sixteen rows (or of eight). What a probe multiplies it by is one number for all lanes,
//! which loads put there; and no lanes are left to be added up.

use std::arch::x86_64::*;

use super::{Buffers, Evaluated, Probe, ROWS, Range, WIDE, row_of, x86::Lanes};
use crate::{
    kernels::{avx2::Ymm, lanes::widen_some},
    quant::MatrixRef,
};

/// Brings `rows`, at most [`ROWS`], side by side.
///
/// # Safety
/// AVX2, FMA and F16C were detected.
#[inline(always)]
pub(super) unsafe fn arrange(rows: &MatrixRef<'_>, to: &mut Buffers) {
    let layout = rows.layout();
    let (count, groups, row_bytes) = (layout.rows(), layout.groups_per_row(), layout.weight_row_bytes());
    to.words.resize(row_bytes / 4, [0; ROWS]);
    // SAFETY: parts of a matrix are as long as its layout says, and what is written has just been made as long.
    unsafe {
        bring(rows.weight().as_ptr(), row_bytes, count, row_bytes / 4, to.words.as_mut_ptr());
        let [wide, ..] = &mut to.wide;
        // Up to three groups beyond the last row's are moved, too.
        wide.resize(count * groups + 3, 0.0);
        let parts = [(rows.scales(), &mut to.scales), (rows.biases(), &mut to.biases)];
        for ((from, to), sizes) in parts.into_iter().zip(&mut to.sizes) {
            to.resize(groups.next_multiple_of(4), [0.0; ROWS]);
            widen_some::<Ymm>(layout.scale_type(), from, &mut wide[..count * groups]);
            bring(wide.as_ptr().cast(), groups * 4, count, to.len(), to.as_mut_ptr().cast());
            sizes.resize(to.len(), [0.0; ROWS]);
            for (size, x) in sizes.as_flattened_mut().iter_mut().zip(to.as_flattened()) {
                *size = x.abs();
            }
        }
    }
}

/// Moves `words` words (a multiple of four) of `rows` rows, `row_bytes` from each other, to where the same word of all rows is
/// side by side, in the order of [`row_of`]; where there are fewer than [`ROWS`], the last stands for those that are missing.
///
/// # Safety
/// AVX2 was detected, and the pointers are valid for as much.
#[inline(always)]
unsafe fn bring(from: *const u8, row_bytes: usize, rows: usize, words: usize, to: *mut [u32; ROWS]) {
    for half in [0, 8] {
        for w in (0..words).step_by(4) {
            // SAFETY: as for this function.
            unsafe {
                let mut pairs = [_mm256_setzero_si256(); 4];
                for r in 0..4 {
                    let low = from.add(row_of(half + r).min(rows - 1) * row_bytes + 4 * w).cast();
                    let high = from.add(row_of(half + r + 4).min(rows - 1) * row_bytes + 4 * w).cast();
                    let low = _mm256_castsi128_si256(_mm_loadu_si128(low));
                    pairs[r] = _mm256_inserti128_si256::<1>(low, _mm_loadu_si128(high));
                }
                let [a, b, c, d] = pairs;
                let (ab, cd) = (_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d));
                let (ab_high, cd_high) = (_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d));
                let four = [
                    _mm256_unpacklo_epi64(ab, cd),
                    _mm256_unpackhi_epi64(ab, cd),
                    _mm256_unpacklo_epi64(ab_high, cd_high),
                    _mm256_unpackhi_epi64(ab_high, cd_high),
                ];
                for k in 0..4 {
                    _mm256_storeu_si256(to.add(w + k).cast::<u32>().add(half).cast(), four[k]);
                }
            }
        }
    }
}

/// All that was arranged, held against each probe in turn.
///
/// # Safety
/// The features of `L` were detected; the rows are of the probes' matrix, and `to` is as long as `probes`.
#[inline(always)]
pub(super) unsafe fn evaluate<L: Lanes, const EIGHT: bool>(
    count: usize,
    rows: &Buffers,
    probes: &[Probe],
    next: &MatrixRef<'_>,
    to: &mut [Range],
) {
    for (probe, to) in probes.iter().zip(to) {
        // SAFETY: as for this function.
        let evaluated = unsafe {
            match probe.group_bytes() {
                16 => one::<L, EIGHT, 16>(rows, probe, next),
                32 => one::<L, EIGHT, 32>(rows, probe, next),
                64 => one::<L, EIGHT, 64>(rows, probe, next),
                _ => one::<L, EIGHT, 128>(rows, probe, next),
            }
        };
        *to = Range::new(count, &evaluated, probe);
    }
}

/// The same for one probe of a matrix whose groups have `BYTES` bytes.
///
/// # Safety
/// As [`evaluate`].
#[inline(always)]
unsafe fn one<L: Lanes, const EIGHT: bool, const BYTES: usize>(
    rows: &Buffers,
    probe: &Probe,
    next: &MatrixRef<'_>,
) -> Evaluated {
    let groups = &probe.groups;
    let mut to = Evaluated::default();
    // SAFETY: as for this function.
    unsafe {
        // Each probe asks for its part of the next rows: memory has the time of all of them.
        let [words_ahead, scales_ahead] = &probe.ahead;
        let parts = [(next.weight(), words_ahead), (next.scales(), scales_ahead), (next.biases(), scales_ahead)];
        for (part, ahead) in parts {
            let mut line = ahead.start;
            while line < ahead.end {
                _mm_prefetch::<_MM_HINT_T0>(part.as_ptr().wrapping_add(line).cast());
                line += 64;
            }
        }
        let (mut words, mut q) = (rows.words.as_ptr(), probe.q.as_ptr().cast::<i8>());
        let (mut products, mut others, mut bound) = (L::zero(), L::zero(), L::zero());
        for g in 0..probe.layout.groups_per_row() {
            let mut sums = L::none();
            for four in 0..BYTES / 16 {
                // Four words are half of what stands together, or all of it.
                let at = if EIGHT { four * 16 } else { four / 2 * (2 * WIDE) + four % 2 * 16 };
                sums = L::four::<EIGHT>(sums, four, words.add(4 * four), probe.shift, q.add(at));
            }
            words = words.add(BYTES / 4);
            q = q.add(BYTES.div_ceil(WIDE) * if EIGHT { WIDE } else { 2 * WIDE });
            let of = |part: &Vec<f32>| *part.get_unchecked(g);
            let product = L::fma(L::floats::<EIGHT>(sums), L::splat(of(&groups.step)), L::splat(of(&groups.middle)));
            products = L::fma(L::load(rows.scales.as_ptr().add(g).cast()), product, products);
            others = L::fma(L::load(rows.biases.as_ptr().add(g).cast()), L::splat(of(&groups.sum)), others);
            let [scale_sizes, bias_sizes] = &rows.sizes;
            bound = L::fma(L::load(scale_sizes.as_ptr().add(g).cast()), L::splat(of(&groups.by_scale)), bound);
            bound = L::fma(L::load(bias_sizes.as_ptr().add(g).cast()), L::splat(of(&groups.by_bias)), bound);
        }
        L::store(L::add(products, others), to.logits.as_mut_ptr());
        L::store(bound, to.bounds.as_mut_ptr());
    }
    to
}
