//! Decoded rows that stay in the nearest cache, multiplied by many vectors in tiles with one accumulator for each row and vector.

use super::{
    block::{Block, Parts, TILE_ROWS},
    lanes::{LANES, Lanes},
};

/// Columns of a panel, at most: what is read of it and of some vectors at a time stays in the first cache.
pub(super) const PANEL_COLS: usize = 640;
/// Lines of a panel in one turn of the loop over it.
const TURN: usize = 4;

/// What an instruction set says about panels.
///
/// # Safety
/// As [`Lanes`].
pub(crate) unsafe trait Panel: Lanes {
    /// How many of `count` vectors, from 1 to 5, to multiply while the decoded weights are still in registers; the others are
    /// multiplied by the panel.
    fn from_registers<const SHIFTED: bool>(count: usize) -> usize;
    /// [`tiles`] as large as there are registers for their sums: a function of its own, that carries the instruction set's
    /// features and is compiled once, not once for each way of decoding.
    ///
    /// # Safety
    /// As [`tiles`].
    unsafe fn tiles(panel: *const f32, cols: usize, block: Block, parts: Parts);
}

/// The product of `block.rows` decoded rows of a panel and the block's vectors, for `cols` columns, in tiles of `R` rows
/// and `V` vectors.
///
/// # Safety
/// The instruction set of `L` was detected; `panel` is valid for `TILE_ROWS * cols` floats, the block has no more rows and
/// its pointers are valid for its vectors and outputs; `parts` is valid for the block.
#[inline(always)]
pub(crate) unsafe fn tiles<L: Lanes, const R: usize, const V: usize>(
    panel: *const f32,
    cols: usize,
    block: Block,
    parts: Parts,
) {
    // SAFETY: detected by the caller's promise; valid since tiles stay within the block.
    unsafe {
        let mut vector = 0;
        while vector < block.count {
            // As many to each tile, nearly: a tile of one or two does not fill the processor.
            let rest = block.count - vector;
            let count = rest.div_ceil(rest.div_ceil(V));
            let mut row = 0;
            while row + R <= block.rows {
                tile_of_vectors::<L, R, V>(panel, cols, block, parts, row, vector, count);
                row += R;
            }
            while row < block.rows {
                tile_of_vectors::<L, 1, V>(panel, cols, block, parts, row, vector, count);
                row += 1;
            }
            if parts.last && (R != TILE_ROWS || block.rows < TILE_ROWS || L::WIDTH < LANES) {
                parts.finish::<L>(&block, vector..vector + count);
            }
            vector += count;
        }
    }
}

/// A tile of `R` rows and `count` vectors, at most `V`.
///
/// # Safety
/// As [`tiles`], with `row + R <= block.rows` and `vector + count <= block.count`.
#[inline(always)]
unsafe fn tile_of_vectors<L: Lanes, const R: usize, const V: usize>(
    panel: *const f32,
    cols: usize,
    block: Block,
    parts: Parts,
    row: usize,
    vector: usize,
    count: usize,
) {
    // SAFETY: as for this function.
    unsafe {
        match count {
            1 => tile::<L, R, 1>(panel, cols, block, parts, row, vector),
            2 => tile::<L, R, 2>(panel, cols, block, parts, row, vector),
            3 if V > 3 => tile::<L, R, 3>(panel, cols, block, parts, row, vector),
            4 if V > 4 => tile::<L, R, 4>(panel, cols, block, parts, row, vector),
            5 if V > 5 => tile::<L, R, 5>(panel, cols, block, parts, row, vector),
            _ => tile::<L, R, V>(panel, cols, block, parts, row, vector),
        }
    }
}

/// One accumulator for each of `R` rows and `V` vectors.
///
/// # Safety
/// As [`tiles`], with `row + R <= block.rows` and `vector + V <= block.count`.
#[inline(always)]
unsafe fn tile<L: Lanes, const R: usize, const V: usize>(
    panel: *const f32,
    cols: usize,
    block: Block,
    parts: Parts,
    row: usize,
    vector: usize,
) {
    // SAFETY: detected by the caller's promise; valid since `cols` is a multiple of `LANES`, and the panel has as many of each row.
    unsafe {
        for lane in (0..LANES).step_by(L::WIDTH) {
            let x = block.vector(vector).add(lane);
            let mut w = panel.add(row * LANES + lane);
            let mut acc = parts.begin::<L, 1, R, V>(lane, row, vector);
            // Several lines a turn: with one the compiler leaves sums in memory (AVX2, 37 vectors: 23 G/s for 39).
            let mut c = 0;
            while c + TURN * LANES <= cols {
                for step in 0..TURN {
                    lines(w.add(step * TILE_ROWS * LANES), x.add(c + step * LANES), block.x_stride, &mut acc);
                }
                w = w.wrapping_add(TURN * TILE_ROWS * LANES);
                c += TURN * LANES;
            }
            while c < cols {
                lines(w, x.add(c), block.x_stride, &mut acc);
                w = w.wrapping_add(TILE_ROWS * LANES);
                c += LANES;
            }
            parts.end::<L, 1, R, V>(acc, &block, lane, row, vector);
        }
    }
}

/// Adds the products of `R` rows and `V` vectors at some lanes of a line.
///
/// # Safety
/// The instruction set of `L` was detected; there are so many rows, a line from each other, and so many vectors, `stride` from each
/// other.
#[inline(always)]
unsafe fn lines<L: Lanes, const R: usize, const V: usize>(
    w: *const f32,
    x: *const f32,
    stride: usize,
    acc: &mut [[[L; 1]; R]; V],
) {
    // SAFETY: as for this function.
    unsafe {
        // The fewer of both stay in registers, the others come one after the other: sums need nearly all there are.
        if V < R {
            let mut xs = [L::zero(); V];
            for v in 0..V {
                xs[v] = L::load(x.add(v * stride));
            }
            for r in 0..R {
                let row = L::load(w.add(r * LANES));
                for v in 0..V {
                    acc[v][r][0] = row.fma(xs[v], acc[v][r][0]);
                }
            }
        } else {
            let mut rows = [L::zero(); R];
            for r in 0..R {
                rows[r] = L::load(w.add(r * LANES));
            }
            for v in 0..V {
                let xv = L::load(x.add(v * stride));
                for r in 0..R {
                    acc[v][r][0] = rows[r].fma(xv, acc[v][r][0]);
                }
            }
        }
    }
}
