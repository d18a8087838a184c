//! Sixteen columns of a vector or of weights, as products read them.

use crate::kernels::specification::scalar::LANES;

/// Sixteen floats on a cache line of their own.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [f32; LANES]);

/// Columns of a vector, sixteen a line, in their order; the rest of the last line is zero.
pub(crate) fn place(row: &[f32], lines: &mut [Line]) {
    for (columns, line) in row.chunks(LANES).zip(lines) {
        line.0 = [0.0; LANES];
        line.0[..columns.len()].copy_from_slice(columns);
    }
}
