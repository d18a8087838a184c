//! Rows that are decoded as the specification says, one code after the other, and then multiplied by a panel like any others.

use super::{
    block::{Block, Parts, Scratch, TILE_ROWS, grow_lines},
    lanes::LANES,
    panel::Panel,
};
use crate::{
    kernels::{paths::Paths, specification::scalar},
    quant::MatrixRef,
};

/// The product of a block of rows, shifted by `shift`, and the block's vectors.
///
/// # Safety
/// As [`quantized`](super::quantized::quantized).
#[inline(always)]
pub(crate) unsafe fn specified<L: Panel>(
    matrix: &MatrixRef<'_>,
    shift: u32,
    block: Block,
    scratch: &mut Scratch,
) -> Paths {
    let cols = matrix.layout().cols();
    grow_lines(&mut scratch.panel, TILE_ROWS * cols / LANES);
    grow_lines(&mut scratch.sums, TILE_ROWS * block.count);
    let panel = scratch.panel.as_mut_ptr().cast::<f32>();
    let parts = Parts::whole(scratch.sums.as_mut_ptr().cast());
    // SAFETY: detected by the caller's promise; valid since rows stay within the matrix and the block, groups are whole lines, and
    // the panel has as many lines as `TILE_ROWS` rows.
    unsafe {
        let mut done = 0;
        while done < block.rows {
            let rows = (block.rows - done).min(TILE_ROWS);
            for r in 0..rows {
                let weights = scratch.row(cols);
                scalar::dequantize_row(matrix, shift, block.first_row + done + r, weights);
                for (i, line) in weights[..cols].chunks_exact(LANES).enumerate() {
                    L::arrange(line.as_ptr(), panel.add((i * TILE_ROWS + r) * LANES));
                }
            }
            L::tiles(panel, cols, Block { first_row: block.first_row + done, rows, ..block }, parts);
            done += rows;
        }
    }
    Paths::SPECIFIED
}
