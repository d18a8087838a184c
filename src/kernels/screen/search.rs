//! Which tiles may hold the two largest logits, and what is found in them.

use super::{
    probe::Probe,
    range::{Range, TILES},
};
use crate::{
    kernels::{
        kernel::Kernel, multiply::SCRATCH, products::block::TILE_ROWS, specification::logits::two_in_order,
        specification::vector::larger, statistics::Top,
    },
    quant::{MatrixRef, WeightsRef},
};

/// Tiles whose logits are known.
#[derive(Default)]
pub(super) struct Known {
    pub(super) tiles: Vec<usize>,
    /// `[tiles, TILE_ROWS]`; minus infinity for rows that are not there.
    pub(super) logits: Vec<f32>,
}

impl Known {
    /// The two largest of all, the first of equals first; `None` if one is not finite. The matrix has `rows` rows.
    pub(super) fn top(&self, kernel: Kernel, rows: usize) -> Option<Top> {
        let mut tiles: Vec<(usize, &[f32])> =
            self.tiles.iter().copied().zip(self.logits.chunks_exact(TILE_ROWS)).collect();
        tiles.sort_unstable_by_key(|&(tile, _)| tile);
        // Only the matrix's last tile may have fewer rows.
        let logits: Vec<f32> = tiles
            .iter()
            .flat_map(|&(tile, logits)| &logits[..TILE_ROWS.min(rows - tile * TILE_ROWS)])
            .copied()
            .collect();
        let top = kernel.top(&logits)?;
        Some(Top { token: tiles[top.token / TILE_ROWS].0 * TILE_ROWS + top.token % TILE_ROWS, ..top })
    }
}

/// Tiles that are multiplied first: the second largest of their logits is nearly that of all, and less than what is known
/// without.
const FIRST_TILES: usize = 8;

/// The part of a matrix's tiles, one in so many, from which on all of them are multiplied.
pub(super) const MANY_LEFT: usize = 8;

/// The matrix, and one query.
pub(super) struct Search<'a> {
    pub(super) kernel: Kernel,
    pub(super) matrix: &'a MatrixRef<'a>,
    pub(super) probe: &'a Probe,
}

impl Search<'_> {
    /// The logits of a tile's rows, as specified.
    pub(super) fn tile(&self, tile: usize, out: &mut [f32]) {
        let (first, rows) = (tile * TILE_ROWS, self.matrix.layout().rows());
        let rows = self.matrix.rows(first..rows.min(first + TILE_ROWS));
        out.fill(f32::NEG_INFINITY);
        let block = self.probe.x.all().block(0, rows.layout().rows(), out.as_mut_ptr(), TILE_ROWS);
        let weights = WeightsRef::Quantized(rows);
        // SAFETY: the vector is in the kernel's layout and as long as a row, and `out` has a place for each row of the tile, and is
        // this call's alone.
        SCRATCH.with_borrow_mut(|scratch| unsafe { self.kernel.block(&weights, self.probe.shift, block, scratch) });
    }

    /// Some tiles that are known, and those besides them whose rows may be among the two largest; `ranges` are those of
    /// this query's blocks, in order.
    pub(super) fn candidates<'a>(&self, ranges: impl Iterator<Item = &'a Range> + Clone) -> (Known, Vec<usize>) {
        // Two blocks have a logit that is at least so large.
        let (_, least) = two_in_order(ranges.clone().map(|range| range.least));
        let count = self.matrix.layout().rows().div_ceil(TILE_ROWS);
        let mut left: Vec<(f32, usize)> = Vec::new();
        for (block, range) in ranges.enumerate() {
            // Also where nothing is known of any.
            if range.most.into_iter().fold(false, |some, most| some | (most >= least)) {
                let tiles = range.most.into_iter().zip(block * TILES..count);
                left.extend(tiles.filter(|&(most, _)| most >= least));
            }
        }
        let first = left.len().min(FIRST_TILES);
        if left.len() > FIRST_TILES {
            left.select_nth_unstable_by(FIRST_TILES, |a, b| b.0.total_cmp(&a.0));
        }
        let tiles: Vec<usize> = left.drain(..first).map(|(_, tile)| tile).collect();
        let mut logits = vec![0.0; tiles.len() * TILE_ROWS];
        for (&tile, out) in tiles.iter().zip(logits.chunks_exact_mut(TILE_ROWS)) {
            self.tile(tile, out);
        }
        let least = larger(least, two_in_order(logits.iter().copied()).1);
        (Known { tiles, logits }, left.into_iter().filter(|&(most, _)| most >= least).map(|(_, tile)| tile).collect())
    }
}
