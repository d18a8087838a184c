//! Scales and biases, widened to `f32` exactly.

use std::ops::Range;

use super::{
    block::Scratch,
    lanes::{Lanes, prefetch},
    widen::widen_into,
};
use crate::quant::{FloatType, MatrixRef};

/// Widens the scales and biases of `rows` into the scratch, to where `at` begins there. [`Scratch::hold`] has made room for them.
///
/// # Safety
/// The instruction set of `L` was detected.
#[inline(always)]
pub(crate) unsafe fn widen_scales<L: Lanes>(
    matrix: &MatrixRef<'_>,
    rows: Range<usize>,
    at: usize,
    scratch: &mut Scratch,
) {
    let (layout, bytes) = (matrix.layout(), matrix.layout().scale_row_bytes());
    let to = at..at + rows.len() * layout.groups_per_row();
    let parts = [(Some(matrix.scales()), &mut scratch.scales), (matrix.biases(), &mut scratch.biases)];
    for (from, widened) in parts {
        let Some(from) = from else { continue };
        let (from, to) = (&from[rows.start * bytes..rows.end * bytes], &mut widened[to.clone()]);
        // SAFETY: detected by the caller's promise; valid since both are as long as the layout says for these rows.
        unsafe { widen_numbers::<L>(layout.scale_type(), from, to) };
    }
}

/// Asks for the scales and biases of `rows`, which may lie behind the matrix: for what begins every 64 bytes, so that rows one
/// after the other ask for everything once.
#[inline(always)]
pub(crate) fn prefetch_scales<L: Lanes>(matrix: &MatrixRef<'_>, rows: Range<usize>) {
    let bytes = matrix.layout().scale_row_bytes();
    let first = (rows.start * bytes).next_multiple_of(64);
    for from in [Some(matrix.scales()), matrix.biases()].into_iter().flatten() {
        prefetch::<L>(from.as_ptr().wrapping_add(first), (rows.end * bytes).saturating_sub(first));
    }
}

/// Widens as many numbers as `to` has, by the processor's own conversion where `L` has one.
///
/// # Safety
/// The instruction set of `L` was detected; `from` holds as many.
#[inline(always)]
pub(crate) unsafe fn widen_numbers<L: Lanes>(float_type: FloatType, from: &[u8], to: &mut [f32]) {
    match float_type {
        // SAFETY: detected by the caller's promise, as is valid: `from` has two bytes for each of `to`.
        FloatType::F16 => unsafe { L::widen_f16(from, to) },
        other => widen_into(other, from, to),
    }
}
