//! The product of a block of unquantized rows: they are widened into a panel.

use super::{
    block::{Block, Parts, Scratch, TILE_ROWS, grow_lines},
    lanes::{LANES, Lanes},
    panel::Panel,
};
use crate::{
    kernels::paths::Paths,
    quant::{DenseRef, FloatType},
};

/// The product of a block of unquantized rows and the block's vectors.
///
/// # Safety
/// As [`quantized`](super::quantized::quantized); vectors have `cols` rounded up to a multiple of sixteen lanes.
#[inline(always)]
pub(crate) unsafe fn dense<L: Panel>(matrix: &DenseRef<'_>, block: Block, scratch: &mut Scratch) -> Paths {
    let (cols, padded) = (matrix.cols(), matrix.cols().next_multiple_of(LANES));
    let size = matrix.float_type().size();
    grow_lines(&mut scratch.panel, TILE_ROWS * padded / LANES);
    grow_lines(&mut scratch.sums, TILE_ROWS * block.count);
    let panel = scratch.panel.as_mut_ptr().cast::<f32>();
    let parts = Parts::whole(scratch.sums.as_mut_ptr().cast());
    // SAFETY: detected by the caller's promise; valid since rows stay within the matrix, the panel is as large as they are, and a
    // row's last columns, where fewer than sixteen, are copied into a padded buffer first.
    unsafe {
        let mut done = 0;
        while done < block.rows {
            let rows = (block.rows - done).min(TILE_ROWS);
            for r in 0..rows {
                let row = &matrix.data()[(block.first_row + done + r) * cols * size..][..cols * size];
                let mut chunks = row.chunks_exact(LANES * size);
                let mut to = panel.add(r * LANES);
                for chunk in &mut chunks {
                    widen_line::<L>(matrix.float_type(), chunk.as_ptr(), to);
                    to = to.wrapping_add(TILE_ROWS * LANES);
                }
                if !chunks.remainder().is_empty() {
                    let mut last = [0_u8; LANES * 4];
                    last[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
                    widen_line::<L>(matrix.float_type(), last.as_ptr(), to);
                }
            }
            let part = Block { first_row: block.first_row + done, rows, ..block };
            L::tiles(panel, padded, part, parts);
            done += rows;
        }
    }
    Paths::DENSE
}

/// Sixteen elements in column order, widened, as a line.
///
/// # Safety
/// The instruction set of `L` was detected; both pointers are valid for sixteen elements.
#[inline(always)]
unsafe fn widen_line<L: Lanes>(float_type: FloatType, from: *const u8, to: *mut f32) {
    // SAFETY: as for this function.
    unsafe {
        let mut columns = [0.0_f32; LANES];
        for lane in (0..LANES).step_by(L::WIDTH) {
            L::widen(float_type, from.add(lane * float_type.size())).store(columns.as_mut_ptr().add(lane));
        }
        L::arrange(columns.as_ptr(), to);
    }
}
