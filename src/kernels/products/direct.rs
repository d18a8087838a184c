//! Weights that are multiplied straight from the registers that decoding leaves them in.

use std::ops::Range;

use super::{
    block::{Block, Parts, Scratch, TILE_ROWS},
    codes::{Codes, Decode},
    lanes::{LANES, prefetch},
};
use crate::quant::MatrixRef;

/// Rows that are decoded together for one vector that has all sixteen lanes in a register, while rows are short: with four sums it
/// would wait for one multiply-add after the other. Twice as many long rows do not fit the first cache together with what is read
/// ahead.
pub(super) const ALONE_ROWS: usize = 2 * TILE_ROWS;
/// Bytes by which reading ahead of the next rows is ahead of them.
pub(crate) const AHEAD: usize = 4096;

/// [`direct`] for as many rows and vectors as there are: `ALONE_ROWS`, `TILE_ROWS` or one of those, at most 5 of these; of codes
/// that are not common at most one, and none where rows are kept for a panel. `words` are those of the tile's rows.
///
/// # Safety
/// As [`direct`].
#[inline(always)]
pub(super) unsafe fn tile_from_registers<C: Codes, L: Decode<C>, const SHIFTED: bool, const KEEP: bool>(
    matrix: &MatrixRef<'_>,
    words: *const u8,
    shift: u32,
    tile: Block,
    part: Range<usize>,
    parts: Parts,
    scratch: &mut Scratch,
) {
    let rows = Rows { matrix, words, shift, tile, part, parts };
    // SAFETY: as for this function.
    unsafe {
        if !C::COMMON && KEEP {
            if tile.rows < TILE_ROWS {
                direct::<C, L, SHIFTED, KEEP, 1, 1, 0>(&rows, 0, 0, scratch);
            } else if L::WIDTH == LANES {
                direct::<C, L, SHIFTED, KEEP, 1, TILE_ROWS, 0>(&rows, 0, 0, scratch);
            } else {
                for row in (0..TILE_ROWS).step_by(2) {
                    direct::<C, L, SHIFTED, KEEP, 2, 2, 0>(&rows, row, 0, scratch);
                }
            }
            return;
        }
        if tile.rows < TILE_ROWS {
            for vector in 0..tile.count {
                direct::<C, L, SHIFTED, KEEP, 1, 1, 1>(&rows, 0, vector, scratch);
            }
        } else if L::WIDTH == LANES && (tile.count == 1 || !C::COMMON) {
            if tile.rows == ALONE_ROWS {
                direct::<C, L, SHIFTED, KEEP, 1, ALONE_ROWS, 1>(&rows, 0, 0, scratch);
            } else {
                direct::<C, L, SHIFTED, KEEP, 1, TILE_ROWS, 1>(&rows, 0, 0, scratch);
            }
        } else if L::WIDTH == LANES {
            match tile.count {
                2 => direct::<C, L, SHIFTED, KEEP, 1, TILE_ROWS, 2>(&rows, 0, 0, scratch),
                3 => direct::<C, L, SHIFTED, KEEP, 1, TILE_ROWS, 3>(&rows, 0, 0, scratch),
                4 => direct::<C, L, SHIFTED, KEEP, 1, TILE_ROWS, 4>(&rows, 0, 0, scratch),
                _ => direct::<C, L, SHIFTED, KEEP, 1, TILE_ROWS, 5>(&rows, 0, 0, scratch),
            }
        } else if tile.count == 1 || !C::COMMON {
            // All sixteen lanes at a time, and as many rows as registers are left for.
            for row in (0..TILE_ROWS).step_by(2) {
                direct::<C, L, SHIFTED, KEEP, 2, 2, 1>(&rows, row, 0, scratch);
            }
        } else {
            for row in 0..TILE_ROWS {
                match tile.count {
                    2 => direct::<C, L, SHIFTED, KEEP, 2, 1, 2>(&rows, row, 0, scratch),
                    3 => direct::<C, L, SHIFTED, KEEP, 2, 1, 3>(&rows, row, 0, scratch),
                    4 => direct::<C, L, SHIFTED, KEEP, 2, 1, 4>(&rows, row, 0, scratch),
                    _ => direct::<C, L, SHIFTED, KEEP, 2, 1, 5>(&rows, row, 0, scratch),
                }
            }
        }
        if parts.last && (tile.rows < TILE_ROWS || L::WIDTH < LANES) {
            parts.finish::<L>(&tile, 0..tile.count);
        }
    }
}

/// Some groups of a tile's rows.
struct Rows<'a> {
    matrix: &'a MatrixRef<'a>,
    /// Of the tile's first row, in the matrix or in a copy.
    words: *const u8,
    shift: u32,
    tile: Block,
    part: Range<usize>,
    parts: Parts,
}

/// `R` of the tile's rows from `row` on, and `V` vectors from `vector` on, straight from the registers that decoding leaves the
/// weights in; `H` registers of a line's lanes at a time. `KEEP`: they are written to the scratch's panel, too, for other
/// vectors.
///
/// # Safety
/// As [`quantized`](super::quantized::quantized), with `vector + V <= tile.count`; the scratch has the rows' scales and, if `KEEP`, a panel for the part;
/// `parts` is valid for the tile.
#[inline(always)]
unsafe fn direct<
    C: Codes,
    L: Decode<C>,
    const SHIFTED: bool,
    const KEEP: bool,
    const H: usize,
    const R: usize,
    const V: usize,
>(
    rows: &Rows<'_>,
    row: usize,
    vector: usize,
    scratch: &mut Scratch,
) {
    let &Rows { matrix, words, shift, tile, ref part, parts } = rows;
    let layout = matrix.layout();
    let (groups, per_group) = (layout.groups_per_row(), layout.group_size() / LANES);
    // Bytes of all rows in a turn of the inner loop. Where these are whole lines, as many are asked for in each turn, whose number the
    // compiler knows; among the stores of a panel that is no faster.
    let turn = R * C::TURN * C::LINE_BYTES;
    let lines_each_turn = !KEEP && turn.is_multiple_of(64);
    let first_row = tile.first_row + row;
    let scale_row = first_row - scratch.first_row;
    let rows = scale_row * groups..(scale_row + R) * groups;
    let (scales, biases) = (&scratch.scales[rows.clone()], &scratch.biases[rows]);
    let panel = scratch.panel.as_mut_ptr().cast::<f32>();
    let row_bytes = layout.weight_row_bytes();
    let group_bytes = row_bytes / groups;
    // SAFETY: detected by the caller's promise; valid since offsets stay within `R` rows of the matrix, `cols` lanes of each vector
    // and, where `KEEP`, the panel.
    unsafe {
        // Made anew here: one that is kept takes a register from the tiles, where sums need them all.
        let shift = L::shift(std::hint::black_box(shift));
        for lane in (0..LANES).step_by(H * L::WIDTH) {
            let start = words.add(row * row_bytes + part.start * group_bytes);
            let mut words = [start; R];
            for (r, words) in words.iter_mut().enumerate() {
                *words = words.add(r * row_bytes);
            }
            let mut x = [tile.x; V];
            for (v, x) in x.iter_mut().enumerate() {
                *x = tile.vector(vector + v).add(part.start * layout.group_size() + lane);
            }
            let mut to = panel.wrapping_add(row * LANES + lane);
            let mut acc = parts.begin::<L, H, R, V>(lane, row, vector);
            // The rows after these, so that they are on their way while these are worked on; asked for in the order in
            // which they lie, which memory gives faster than one line of each in turn.
            let start = matrix.weight().as_ptr().wrapping_add(first_row * row_bytes);
            let mut ahead = start.wrapping_add(R * (row_bytes + part.start * group_bytes) + AHEAD);
            for g in part.clone() {
                // Asked for once, with the first lanes.
                if lane == 0 && !lines_each_turn {
                    ahead = prefetch::<L>(ahead, R * group_bytes);
                }
                let mut group = [L::group(0.0, 0.0); R];
                for r in 0..R {
                    let at = r * groups + g;
                    group[r] = L::group(*scales.get_unchecked(at), *biases.get_unchecked(at));
                }
                for _ in 0..per_group / C::TURN {
                    if lane == 0 && lines_each_turn {
                        ahead = prefetch::<L>(ahead, turn);
                    }
                    for _ in 0..C::TURN {
                        for h in 0..H {
                            let mut w = [L::zero(); R];
                            for r in 0..R {
                                let lane = lane + h * L::WIDTH;
                                w[r] = L::decode::<SHIFTED>(words[r], lane, shift, group[r]);
                                if KEEP {
                                    w[r].store(to.add(r * LANES + h * L::WIDTH));
                                }
                            }
                            for v in 0..V {
                                let xv = L::load(x[v].add(h * L::WIDTH));
                                for r in 0..R {
                                    acc[v][r][h] = w[r].fma(xv, acc[v][r][h]);
                                }
                            }
                        }
                        to = to.wrapping_add(TILE_ROWS * LANES);
                        for x in &mut x {
                            *x = x.add(LANES);
                        }
                        for words in &mut words {
                            *words = words.add(C::LINE_BYTES);
                        }
                    }
                }
            }
            parts.end::<L, H, R, V>(acc, &tile, lane, row, vector);
        }
    }
}
