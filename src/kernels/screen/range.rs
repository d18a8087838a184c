//! Bounds of the logits of sixteen rows: what none of a tile's exceeds, and what the largest of all at least is.

use crate::kernels::{products::block::TILE_ROWS, specification::vector::larger};

/// Rows that are evaluated side by side.
pub(super) const ROWS: usize = 16;
/// Tiles of as many rows.
pub(super) const TILES: usize = ROWS / TILE_ROWS;
/// Bounds from here on say nothing.
const NO_BOUND: f32 = (1_u32 << 30) as f32;

/// The row of sixteen that is in a lane. The rows of a tile are four lanes from each other, so that what is asked of each tile
/// is asked of four at once.
#[inline(always)]
pub(super) const fn row_of(lane: usize) -> usize {
    lane % TILES * TILE_ROWS + lane / TILES
}

/// The lane that a row of sixteen is in.
#[inline(always)]
pub(super) const fn lane_of(row: usize) -> usize {
    row % TILE_ROWS * TILES + row / TILE_ROWS
}

/// What is nearly the logits of some rows, and the part of each bound that depends on scales and biases; by lanes.
#[derive(Default)]
pub(super) struct Evaluated {
    pub(super) logits: [f32; ROWS],
    pub(super) bounds: [f32; ROWS],
}

/// Between what the logits of some rows lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    /// None of each tile is above.
    pub(super) most: [f32; TILES],
    /// One is at least so large.
    pub(super) least: f32,
}

impl Range {
    pub(super) const NONE: Self = Self { most: [f32::NEG_INFINITY; TILES], least: f32::NEG_INFINITY };

    /// The range of `rows` rows, where `absolute` is the part of the bound that depends on neither scales nor biases.
    #[inline(always)]
    pub(super) fn new(rows: usize, Evaluated { logits, bounds }: &Evaluated, absolute: f32) -> Self {
        let (mut most, mut least) = ([0.0; ROWS], [0.0; ROWS]);
        for r in 0..ROWS {
            let error = bounds[r];
            // The rounding of this, and of the sums below.
            let error = (error + absolute) * (1.0 + 1.0 / 512.0) + logits[r].abs() * (1.0 / (1 << 22) as f32);
            // Also false where the error is not a number; where it is one, so is the logit.
            let bounded = error < NO_BOUND;
            most[r] = if bounded { logits[r] + error } else { f32::INFINITY };
            least[r] = if bounded { logits[r] - error } else { f32::NEG_INFINITY };
        }
        for row in rows..ROWS {
            most[lane_of(row)] = f32::NEG_INFINITY;
            least[lane_of(row)] = f32::NEG_INFINITY;
        }
        let (most, least) = (of_tiles(&most), of_tiles(&least));
        Self { most, least: larger(larger(least[0], least[1]), larger(least[2], least[3])) }
    }
}

/// The largest of each tile's rows.
#[inline(always)]
pub(super) fn of_tiles(of_rows: &[f32; ROWS]) -> [f32; TILES] {
    let mut largest = [0.0; TILES];
    for tile in 0..TILES {
        let (a, b) = (
            larger(of_rows[tile], of_rows[TILES + tile]),
            larger(of_rows[2 * TILES + tile], of_rows[3 * TILES + tile]),
        );
        largest[tile] = larger(a, b);
    }
    largest
}
