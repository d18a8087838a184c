//! The product of a block of quantized rows: tile by tile, each from registers, and from a panel where vectors are many.

use super::{
    block::{Block, Parts, Scratch, TILE_ROWS, grow_lines},
    codes::{Affine4, Affine8, Codes, Decode, DecodeAll, for_uncommon_codes},
    copies::copy_shifted,
    direct::{ALONE_ROWS, tile_from_registers},
    exceptions,
    lanes::LANES,
    panel::{PANEL_COLS, Panel},
    scales::{prefetch_scales, widen_scales},
    stream::LEAST_ROW_BYTES,
};
use crate::{kernels::paths::Paths, quant::MatrixRef};

/// The product of a block of quantized rows whose codes are common, shifted by `shift`, and the block's vectors.
///
/// # Safety
/// The instruction set of `L` was detected; `block`'s pointers are valid for its vectors (of
/// `cols` lanes in `L`'s order) and outputs; its rows lie in `matrix`.
#[inline(always)]
pub(crate) unsafe fn quantized<L: Panel + DecodeAll, const SHIFTED: bool>(
    matrix: &MatrixRef<'_>,
    shift: u32,
    block: Block,
    scratch: &mut Scratch,
) -> Paths {
    // SAFETY: as for this function; the codes are as wide as the layout says.
    unsafe {
        match matrix.layout().bits() {
            4 => block_of_codes::<Affine4, L, SHIFTED>(matrix, shift, block, scratch),
            _ => block_of_codes::<Affine8, L, SHIFTED>(matrix, shift, block, scratch),
        }
    }
}

/// [`quantized`] where codes are not common.
///
/// # Safety
/// As [`quantized`].
#[inline(always)]
pub(crate) unsafe fn uncommon<L: Panel + DecodeAll>(
    matrix: &MatrixRef<'_>,
    shift: u32,
    block: Block,
    scratch: &mut Scratch,
) -> Paths {
    // SAFETY: as for this function; the codes are what the layout says.
    unsafe { for_uncommon_codes!(matrix, block_of_codes::<L>(matrix, shift, block, scratch)) }
}

/// The product of a block of rows where codes are known to be `C`.
///
/// # Safety
/// As [`quantized`], and the matrix has such codes.
#[inline(always)]
unsafe fn block_of_codes<C: Codes, L: Panel + Decode<C>, const SHIFTED: bool>(
    matrix: &MatrixRef<'_>,
    shift: u32,
    block: Block,
    scratch: &mut Scratch,
) -> Paths {
    let from_registers = match block.count {
        count if C::COMMON => L::from_registers::<SHIFTED>(count),
        1 => 1,
        _ => 0,
    };
    let mut paths = if from_registers > 0 { Paths::REGISTERS } else { Paths::NONE };
    let (groups, group_size) = (matrix.layout().groups_per_row(), matrix.layout().group_size());
    let kept = block.count > from_registers;
    // Parts of a row that are as long as each other, but for the last.
    let per_part = if kept { groups.div_ceil((groups * group_size).div_ceil(PANEL_COLS)) } else { groups };
    grow_lines(&mut scratch.sums, TILE_ROWS * block.count);
    if kept {
        paths = paths | if per_part == groups { Paths::PANEL } else { Paths::PANEL_IN_PARTS };
        grow_lines(&mut scratch.panel, TILE_ROWS * per_part * group_size / LANES);
    }
    // SAFETY: detected by the caller's promise; valid since both parts of the vectors are the block's, tiles are rows of it, parts
    // are groups of a row, and the buffers were made as large as these ask for.
    unsafe {
        scratch.hold(block.rows * groups);
        widen_scales::<L>(matrix, block.first_row..block.first_row + block.rows, 0, scratch);
        scratch.first_row = block.first_row;
        let sums = scratch.sums.as_mut_ptr().cast::<f32>();
        let alone = block.count == 1 && L::WIDTH == LANES && matrix.layout().weight_row_bytes() < LEAST_ROW_BYTES;
        let most = if alone { ALONE_ROWS } else { TILE_ROWS };
        if alone && block.rows >= ALONE_ROWS {
            paths = paths | Paths::EIGHT_ROWS;
        }
        let mut row = 0;
        while row < block.rows {
            let rows = match block.rows - row {
                rest if rest >= most => most,
                rest if rest >= TILE_ROWS => TILE_ROWS,
                _ => 1,
            };
            let tile = Block { first_row: block.first_row + row, rows, ..block };
            // The next block's, some with each tile: all at once they keep words waiting.
            prefetch_scales::<L>(matrix, tile.first_row + block.rows..tile.first_row + block.rows + rows);
            let first_vectors = Block { count: from_registers, ..tile };
            let row_bytes = matrix.layout().weight_row_bytes();
            let mut words = matrix.weight().as_ptr().add(tile.first_row * row_bytes);
            if !C::COMMON && shift != 0 {
                words = copy_shifted::<L>(words, rows * row_bytes, shift, &mut scratch.words);
                paths = paths | Paths::COPIED;
            }
            if !kept {
                tile_from_registers::<C, L, SHIFTED, false>(
                    matrix,
                    words,
                    shift,
                    first_vectors,
                    0..groups,
                    Parts::whole(sums),
                    scratch,
                );
            } else {
                for first in (0..groups).step_by(per_part) {
                    let part = first..groups.min(first + per_part);
                    let parts = Parts { sums, first: first == 0, last: part.end == groups };
                    tile_from_registers::<C, L, SHIFTED, true>(
                        matrix,
                        words,
                        shift,
                        first_vectors,
                        part.clone(),
                        parts,
                        scratch,
                    );
                    let others = Block {
                        x: tile.vector(from_registers).add(first * group_size),
                        count: block.count - from_registers,
                        out: block.out.add(from_registers * block.stride),
                        ..tile
                    };
                    let parts = Parts { sums: parts.line(0, from_registers), ..parts };
                    let panel = scratch.panel.as_ptr().cast();
                    L::tiles(panel, part.len() * group_size, others, parts);
                }
            }
            if C::EXCEPTIONS {
                paths = paths | exceptions::replace::<L>(matrix, shift, tile, scratch);
            }
            row += rows;
        }
    }
    paths
}
