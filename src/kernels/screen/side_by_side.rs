//! Several hidden states: what they are multiplied by is laid side by side once for all of them.
//!
//! A register then has the same word of sixteen rows (or of eight). What a probe multiplies it by is one number for all lanes,
//! which loads put there; and no lanes are left to be added up.

use std::arch::x86_64::*;

use super::{
    buffers::Buffers,
    instructions::Instructions,
    probe::{CHUNK, Probe},
    range::{Evaluated, ROWS, Range, row_of},
};
use crate::{
    kernels::{
        instruction_sets::avx2::Ymm,
        products::{codes::Codes, scales::widen_numbers},
    },
    quant::MatrixRef,
};

/// Lays `rows`, at most [`ROWS`], side by side.
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
        transpose(rows.weight().as_ptr(), row_bytes, count, row_bytes / 4, to.words.as_mut_ptr());
        let [widened, ..] = &mut to.widened;
        // Up to three groups beyond the last row's are moved, too.
        widened.resize(count * groups + 3, 0.0);
        let parts =
            [(rows.scales(), &mut to.scales), (rows.biases().expect("an affine format has biases"), &mut to.biases)];
        for ((from, to), sizes) in parts.into_iter().zip(&mut to.sizes) {
            to.resize(groups.next_multiple_of(4), [0.0; ROWS]);
            widen_numbers::<Ymm>(layout.scale_type(), from, &mut widened[..count * groups]);
            transpose(widened.as_ptr().cast(), groups * 4, count, to.len(), to.as_mut_ptr().cast());
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
unsafe fn transpose(from: *const u8, row_bytes: usize, rows: usize, words: usize, to: *mut [u32; ROWS]) {
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
/// The features of `I` were detected; the rows are of the probes' matrix, and `to` is as long as `probes`.
#[inline(always)]
pub(super) unsafe fn evaluate<C: Codes, I: Instructions<C>>(
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
                16 => evaluate_probe::<C, I, 16>(rows, probe, next),
                32 => evaluate_probe::<C, I, 32>(rows, probe, next),
                64 => evaluate_probe::<C, I, 64>(rows, probe, next),
                _ => evaluate_probe::<C, I, 128>(rows, probe, next),
            }
        };
        *to = Range::new(count, &evaluated, probe.absolute);
    }
}

/// The same for one probe of a matrix whose groups have `BYTES` bytes.
///
/// # Safety
/// As [`evaluate`].
#[inline(always)]
unsafe fn evaluate_probe<C: Codes, I: Instructions<C>, const BYTES: usize>(
    rows: &Buffers,
    probe: &Probe,
    next: &MatrixRef<'_>,
) -> Evaluated {
    let groups = &probe.groups;
    let mut to = Evaluated::default();
    // SAFETY: as for this function: words, scales and biases of sixteen rows were laid out, and the probe has a number for each group
    // and byte.
    unsafe {
        // Each probe asks for its part of the next rows: memory has the time of all of them.
        let [words_ahead, scales_ahead] = &probe.ahead;
        let parts = [
            (next.weight(), words_ahead),
            (next.scales(), scales_ahead),
            (next.biases().expect("an affine format has biases"), scales_ahead),
        ];
        for (part, ahead) in parts {
            let mut line = ahead.start;
            while line < ahead.end {
                _mm_prefetch::<_MM_HINT_T0>(part.as_ptr().wrapping_add(line).cast());
                line += 64;
            }
        }
        let (mut words, mut q) = (rows.words.as_ptr(), probe.q.as_ptr().cast::<i8>());
        let (mut products, mut others, mut bound) = (I::zero(), I::zero(), I::zero());
        for g in 0..probe.layout.groups_per_row() {
            let mut sums = I::no_sums();
            for four in 0..BYTES / 16 {
                // Four words are half of what stands together; with codes of 4 bits the bytes of low ones stand before those of high ones.
                let at = four / 2 * (CHUNK * 8 / C::BITS) + four % 2 * 16;
                sums = I::add_words(sums, four, words.add(4 * four), probe.shift, q.add(at));
            }
            words = words.add(BYTES / 4);
            q = q.add(BYTES.div_ceil(CHUNK) * (CHUNK * 8 / C::BITS));
            let of = |part: &Vec<f32>| *part.get_unchecked(g);
            let product = I::fma(I::floats(sums), I::splat(of(&groups.step)), I::splat(of(&groups.middle)));
            products = I::fma(I::load(rows.scales.as_ptr().add(g).cast()), product, products);
            others = I::fma(I::load(rows.biases.as_ptr().add(g).cast()), I::splat(of(&groups.sum)), others);
            let [scale_sizes, bias_sizes] = &rows.sizes;
            bound = I::fma(I::load(scale_sizes.as_ptr().add(g).cast()), I::splat(of(&groups.by_scale)), bound);
            bound = I::fma(I::load(bias_sizes.as_ptr().add(g).cast()), I::splat(of(&groups.by_bias)), bound);
        }
        I::store(I::add(products, others), to.logits.as_mut_ptr());
        I::store(bound, to.bounds.as_mut_ptr());
    }
    to
}
