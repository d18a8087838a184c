//! One hidden state: words are multiplied where they lie, as fast as memory gives them.

use std::arch::x86_64::*;

use super::{
    buffers::Buffers,
    instructions::Instructions,
    probe::{CHUNK, GROUPS, Probe},
    range::{Evaluated, ROWS, lane_of},
};
use crate::{
    kernels::{
        instruction_sets::avx2::Ymm,
        paths::Paths,
        products::{codes::Codes, direct::AHEAD, scales::widen_numbers, stream},
    },
    quant::MatrixRef,
};

/// Rows that are read side by side, at most.
const TOGETHER: usize = 4;
/// Rows from each other where they are read from several places.
const APART: usize = ROWS / TOGETHER;

/// `rows`, at most [`ROWS`], held against a probe; sixteen long ones as several streams where `streams`.
///
/// # Safety
/// The features of `I` were detected; the rows are of the probe's matrix.
#[inline(always)]
pub(super) unsafe fn evaluate<C: Codes, I: Instructions<C>>(
    rows: &MatrixRef<'_>,
    probe: &Probe,
    buffers: &mut Buffers,
    streams: bool,
) -> (Evaluated, Paths) {
    let (layout, mut to) = (rows.layout(), Evaluated::default());
    let count = layout.rows() * layout.groups_per_row();
    let [scales, biases, steps] = &mut buffers.widened;
    // SAFETY: as for this function; AVX2 is one of the features of `I`, and what is widened is as long as its buffer.
    unsafe {
        for (from, to) in [(rows.scales(), scales), (rows.biases().expect("an affine format has biases"), biases)] {
            // Up to seven groups behind a row's are read, and multiplied by zeros: the next row's, or these.
            to.resize(count + GROUPS, 0.0);
            to[count..].fill(0.0);
            widen_numbers::<Ymm>(layout.scale_type(), from, &mut to[..count]);
        }
        steps.resize(TOGETHER * probe.groups.step.len(), 0.0);
        let paths = match probe.group_bytes() {
            16 => by_row_length::<C, I, 16>(rows, probe, buffers, streams, &mut to),
            32 => by_row_length::<C, I, 32>(rows, probe, buffers, streams, &mut to),
            64 => by_row_length::<C, I, 64>(rows, probe, buffers, streams, &mut to),
            _ => by_row_length::<C, I, 128>(rows, probe, buffers, streams, &mut to),
        };
        (to, paths)
    }
}

/// [`evaluate`] where a group has `BYTES` bytes.
///
/// # Safety
/// As [`evaluate`].
#[inline(always)]
unsafe fn by_row_length<C: Codes, I: Instructions<C>, const BYTES: usize>(
    rows: &MatrixRef<'_>,
    probe: &Probe,
    buffers: &mut Buffers,
    streams: bool,
    to: &mut Evaluated,
) -> Paths {
    let (count, row_bytes) = (rows.layout().rows(), probe.layout.weight_row_bytes());
    // SAFETY: as for this function.
    unsafe {
        if row_bytes < stream::LEAST_ROW_BYTES {
            // As many as a page of memory holds, so that they are read as one stream.
            for row in (0..count).step_by(TOGETHER) {
                rows_together::<C, I, BYTES, TOGETHER, false>(rows, row, probe, buffers, to);
            }
            Paths::SCREEN
        } else if count == ROWS && streams {
            for row in 0..APART {
                rows_together::<C, I, BYTES, TOGETHER, true>(rows, row, probe, buffers, to);
            }
            Paths::SCREEN_OF_STREAMS
        } else {
            for row in (0..count).step_by(2) {
                rows_together::<C, I, BYTES, 2, false>(rows, row, probe, buffers, to);
            }
            Paths::SCREEN_OF_LONG_ROWS
        }
    }
}

/// The same of `R` rows: those from `row` on, or, as `STREAMS`, those [`APART`] from each other; the last of the matrix stands
/// for those that are missing. Where a group has 16 bytes only, the upper half of each register is multiplied by zeros.
///
/// # Safety
/// As [`evaluate`]; `row` is one of the rows.
#[inline(always)]
unsafe fn rows_together<C: Codes, I: Instructions<C>, const BYTES: usize, const R: usize, const STREAMS: bool>(
    rows: &MatrixRef<'_>,
    row: usize,
    probe: &Probe,
    buffers: &mut Buffers,
    to: &mut Evaluated,
) {
    let layout = rows.layout();
    let (row_bytes, scale_bytes) = (layout.weight_row_bytes(), layout.scale_row_bytes());
    let (groups, padded) = (layout.groups_per_row(), probe.groups.step.len());
    let apart = if STREAMS { APART } else { 1 };
    let mut rows_at = [0; R];
    for (r, at) in rows_at.iter_mut().enumerate() {
        *at = (row + r * apart).min(layout.rows() - 1);
    }
    let [scales, biases, steps] = &mut buffers.widened;
    // SAFETY: as for this function: each row lies in the matrix, of which the probe has a number for each group and byte; buffers were
    // made as long.
    unsafe {
        // Scales of the rows that follow the sixteen.
        let ahead = (ROWS + if STREAMS { R * row } else { row }) * scale_bytes;
        for line in (ahead..ahead + R * scale_bytes).step_by(64) {
            _mm_prefetch::<_MM_HINT_T0>(rows.scales().as_ptr().wrapping_add(line).cast());
            _mm_prefetch::<_MM_HINT_T0>(
                rows.biases().expect("an affine format has biases").as_ptr().wrapping_add(line).cast(),
            );
        }
        let (mut acc, mut bounds) = ([_mm256_setzero_ps(); R], [_mm256_setzero_ps(); R]);
        let sign = _mm256_set1_ps(-0.0);
        for g in (0..padded).step_by(GROUPS) {
            let of = &probe.groups;
            let (step, middle) = (_mm256_loadu_ps(of.step.as_ptr().add(g)), _mm256_loadu_ps(of.middle.as_ptr().add(g)));
            let sum = _mm256_loadu_ps(of.sum.as_ptr().add(g));
            let by_scale = _mm256_loadu_ps(of.by_scale.as_ptr().add(g));
            let by_bias = _mm256_loadu_ps(of.by_bias.as_ptr().add(g));
            for r in 0..R {
                let scale = _mm256_loadu_ps(scales.as_ptr().add(rows_at[r] * groups + g));
                let bias = _mm256_loadu_ps(biases.as_ptr().add(rows_at[r] * groups + g));
                _mm256_storeu_ps(steps.as_mut_ptr().add(r * padded + g), _mm256_mul_ps(scale, step));
                acc[r] = _mm256_fmadd_ps(bias, sum, acc[r]);
                acc[r] = _mm256_fmadd_ps(scale, middle, acc[r]);
                bounds[r] = _mm256_fmadd_ps(_mm256_andnot_ps(sign, scale), by_scale, bounds[r]);
                bounds[r] = _mm256_fmadd_ps(_mm256_andnot_ps(sign, bias), by_bias, bounds[r]);
            }
        }
        let mut starts = [rows.weight().as_ptr(); R];
        for (start, at) in starts.iter_mut().zip(rows_at) {
            *start = start.add(at * row_bytes);
        }
        // In the order in which the bytes lie; see `products/direct.rs`.
        let mut ahead = starts[0].wrapping_add(R * row_bytes + AHEAD);
        let shift = _mm256_set1_epi32(probe.shift.cast_signed());
        let mut q = probe.q.as_ptr().cast::<i8>();
        for g in 0..groups {
            let at = g * BYTES;
            if !STREAMS {
                for line in (0..R * BYTES).step_by(64) {
                    _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(line).cast());
                }
                ahead = ahead.wrapping_add(R * BYTES);
            } else if at.is_multiple_of(64) {
                for start in starts {
                    // At the end of a stream's rows it goes on with those that follow the sixteen.
                    let over = row + 1 == APART && at + stream::AHEAD >= row_bytes;
                    let ahead =
                        start.wrapping_add(at + stream::AHEAD + if over { (ROWS - APART) * row_bytes } else { 0 });
                    for line in (0..BYTES).step_by(64) {
                        _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(line).cast());
                    }
                }
            }
            // One row after the other: what several have in registers is more than AVX2's sixteen hold.
            for r in 0..R {
                let (mut sums, mut q) = (_mm256_setzero_si256(), q);
                for part in (0..BYTES).step_by(CHUNK) {
                    let from = starts[r].add(at + part);
                    let packed = if BYTES < CHUNK {
                        _mm256_zextsi128_si256(_mm_loadu_si128(from.cast()))
                    } else {
                        _mm256_loadu_si256(from.cast())
                    };
                    sums = I::add_bytes(sums, _mm256_sub_epi32(packed, shift), q);
                    q = q.add(CHUNK * 8 / C::BITS);
                }
                let step = _mm256_set1_ps(*steps.as_ptr().add(r * padded + g));
                acc[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums), step, acc[r]);
            }
            q = q.add(BYTES.div_ceil(CHUNK) * (CHUNK * 8 / C::BITS));
        }
        for r in 0..R {
            let lane = lane_of(row + r * apart);
            (to.logits[lane], to.bounds[lane]) = totals(acc[r], bounds[r]);
        }
    }
}

/// The sums of eight each, in three additions.
///
/// # Safety
/// AVX2 was detected.
#[inline(always)]
unsafe fn totals(a: __m256, b: __m256) -> (f32, f32) {
    // SAFETY: as for this function.
    unsafe {
        let (low, high) = (_mm256_permute2f128_ps::<0x20>(a, b), _mm256_permute2f128_ps::<0x31>(a, b));
        let four = _mm256_add_ps(low, high);
        let two = _mm256_add_ps(four, _mm256_permute_ps::<0b01_00_11_10>(four));
        let one = _mm256_add_ps(two, _mm256_movehdup_ps(two));
        (_mm256_cvtss_f32(one), _mm_cvtss_f32(_mm256_extractf128_ps::<1>(one)))
    }
}
