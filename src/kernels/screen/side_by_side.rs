//! Several hidden states: what they are multiplied by is brought side by side once for all of them.
//!
//! A register then has the same word of sixteen rows (or of eight). What a probe multiplies it by is one number for all lanes,
//! which loads put there; and no lanes are left to be added up.

use std::arch::x86_64::*;

use super::{Buffers, Evaluated, Probe, ROWS, WIDE, x86::Lanes};
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
        for (from, to) in [(rows.scales(), &mut to.scales), (rows.biases(), &mut to.biases)] {
            to.resize(groups.next_multiple_of(4), [0.0; ROWS]);
            widen_some::<Ymm>(layout.scale_type(), from, &mut wide[..count * groups]);
            bring(wide.as_ptr().cast(), groups * 4, count, to.len(), to.as_mut_ptr().cast());
        }
    }
}

/// Moves `words` words (a multiple of four) of `rows` rows, `row_bytes` from each other, to where the same word of all rows is
/// side by side; where there are fewer than [`ROWS`], the last stands for those that are missing.
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
                    let low = from.add((half + r).min(rows - 1) * row_bytes + 4 * w).cast();
                    let high = from.add((half + r + 4).min(rows - 1) * row_bytes + 4 * w).cast();
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

/// All that was arranged, held against a probe.
///
/// # Safety
/// The features of `L` were detected; the rows are of the probe's matrix.
#[inline(always)]
pub(super) unsafe fn evaluate<L: Lanes, const EIGHT: bool>(
    rows: &Buffers,
    probe: &Probe,
    next: &MatrixRef<'_>,
) -> Evaluated {
    let (layout, groups) = (&probe.layout, &probe.groups);
    let count = layout.groups_per_row();
    let group_bytes = layout.group_size() * layout.bits().get() / 8;
    let (fours, wide) = (group_bytes / 16, group_bytes.min(WIDE));
    let (weight_bytes, scale_bytes) = (next.weight().len() / count, next.scales().len() / count);
    let mut to = Evaluated::default();
    // SAFETY: as for this function.
    unsafe {
        let (mut words, mut q) = (rows.words.as_ptr(), probe.q.as_ptr().cast::<i8>());
        let (mut products, mut others, mut bound) = (L::zero(), L::zero(), L::zero());
        let mut turn = probe.turn.index;
        for g in 0..count {
            // Each probe asks for a part of the next rows: memory has the time of all groups and probes.
            if g == turn {
                turn += probe.turn.of;
                let parts = [(next.weight(), weight_bytes), (next.scales(), scale_bytes), (next.biases(), scale_bytes)];
                for (part, bytes) in parts {
                    for line in (0..bytes).step_by(64) {
                        _mm_prefetch::<_MM_HINT_T0>(part.as_ptr().wrapping_add(g * bytes + line).cast());
                    }
                }
            }
            let mut sums = L::none();
            for four in 0..fours {
                sums = L::four::<EIGHT>(sums, words, probe.shift, q);
                words = words.add(4);
                // Four words are half of what stands together, or all of it.
                let all = if EIGHT { WIDE } else { 2 * WIDE };
                q = q.add(if wide < WIDE || four % 2 == 1 { all - (wide - 16) } else { 16 });
            }
            let of = |part: &Vec<f32>| *part.get_unchecked(g);
            let scale = L::load(rows.scales.as_ptr().add(g).cast());
            let bias = L::load(rows.biases.as_ptr().add(g).cast());
            products = L::fma(L::floats(sums), L::mul(scale, L::splat(of(&groups.step))), products);
            others = L::fma(scale, L::splat(of(&groups.middle)), others);
            others = L::fma(bias, L::splat(of(&groups.sum)), others);
            bound = L::fma(L::abs(scale), L::splat(of(&groups.by_scale)), bound);
            bound = L::fma(L::abs(bias), L::splat(of(&groups.by_bias)), bound);
        }
        L::store(L::add(products, others), to.logits.as_mut_ptr());
        L::store(bound, to.bounds.as_mut_ptr());
    }
    to
}
