//! A block of rows and what it needs besides: the vectors, the outputs, the sums between two parts of the columns, and buffers.

use std::ops::Range;

use super::{
    lanes::{LANES, Lanes, sum_lines},
    line::Line,
};

/// Rows of one work item, but for those of one vector that are streamed. Small enough to be spread over threads, large enough to
/// fill tiles; a block of packed words stays in the cache while all products of a pass use it.
pub(crate) const BLOCK_ROWS: usize = 32;
/// Rows that are decoded together.
pub(crate) const TILE_ROWS: usize = 4;

/// What a kernel does with one block of rows: the outputs `out[v * stride + row]` for each of
/// `count` vectors at `x + v * x_stride`, `row` counted from `first_row` of the matrix.
#[derive(Clone, Copy)]
pub(crate) struct Block {
    pub(crate) first_row: usize,
    pub(crate) rows: usize,
    pub(crate) x: *const f32,
    pub(crate) x_stride: usize,
    pub(crate) count: usize,
    pub(crate) out: *mut f32,
    pub(crate) stride: usize,
}

impl Block {
    /// # Safety
    /// `row < rows`, `vector < count`, and `out` valid there.
    #[inline(always)]
    pub(crate) unsafe fn put(&self, row: usize, vector: usize, y: f32) {
        // SAFETY: as for this function.
        unsafe { self.output(row, vector).write(y) }
    }

    /// Where the output of `row` and `vector` goes; those of the next rows follow.
    ///
    /// # Safety
    /// As [`Block::put`].
    #[inline(always)]
    pub(crate) unsafe fn output(&self, row: usize, vector: usize) -> *mut f32 {
        // SAFETY: as for this function.
        unsafe { self.out.add(vector * self.stride + self.first_row + row) }
    }

    /// # Safety
    /// `vector <= count`, and `x` valid there.
    #[inline(always)]
    pub(crate) unsafe fn vector(&self, vector: usize) -> *const f32 {
        // SAFETY: as for this function.
        unsafe { self.x.add(vector * self.x_stride) }
    }
}

/// Buffers of one thread: widened scales and biases of a few rows, a panel of weights, and sums.
#[derive(Default)]
pub(crate) struct Scratch {
    pub(crate) scales: Vec<f32>,
    pub(crate) biases: Vec<f32>,
    /// The row of the matrix whose scales and biases are the first.
    pub(crate) first_row: usize,
    /// Some columns of `TILE_ROWS` rows: sixteen of each row, then the next sixteen.
    pub(crate) panel: Vec<Line>,
    /// `[vectors, TILE_ROWS]`: the lanes of the columns before the panel's.
    pub(crate) sums: Vec<Line>,
    /// The weights of a row, in the order of its columns.
    row: Vec<f32>,
    /// Packed words of some rows, minus a shift.
    pub(crate) words: Vec<u8>,
}

impl Scratch {
    /// Makes room for the scales and biases of so many groups: once a block, for it costs a streamed tile a twentieth.
    pub(crate) fn hold(&mut self, groups: usize) {
        grow(&mut self.scales, groups);
        grow(&mut self.biases, groups);
    }

    /// A buffer of `cols` floats.
    pub(crate) fn row(&mut self, cols: usize) -> &mut [f32] {
        grow(&mut self.row, cols);
        &mut self.row
    }
}

/// Makes `lines` at least so long.
pub(crate) fn grow_lines(lines: &mut Vec<Line>, len: usize) {
    if lines.len() < len {
        lines.resize(len, Line([0.0; LANES]));
    }
}

/// Makes `buffer` at least so long.
pub(crate) fn grow(buffer: &mut Vec<f32>, len: usize) {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
}

/// Where the sums of a tile's products begin and end: a row's columns may be taken in several parts, one after the other, and
/// its lanes are kept in between.
#[derive(Clone, Copy)]
pub(crate) struct Parts {
    /// `[vectors, TILE_ROWS]` lines.
    pub(crate) sums: *mut f32,
    /// Whether these are the first columns.
    pub(crate) first: bool,
    /// Whether these are the last ones.
    pub(crate) last: bool,
}

impl Parts {
    /// All columns are one part.
    pub(crate) const fn whole(sums: *mut f32) -> Self {
        Self { sums, first: true, last: true }
    }

    /// The line of a row and a vector.
    ///
    /// # Safety
    /// `sums` is valid for them.
    #[inline(always)]
    pub(crate) unsafe fn line(self, row: usize, vector: usize) -> *mut f32 {
        // SAFETY: as for this function.
        unsafe { self.sums.add((vector * TILE_ROWS + row) * LANES) }
    }

    /// `H` registers of lanes from `lane` on, of `R` rows from `row` on and `V` vectors from `vector` on, before these columns.
    ///
    /// # Safety
    /// The instruction set of `L` was detected; `sums` is valid for these rows and vectors.
    #[inline(always)]
    pub(crate) unsafe fn begin<L: Lanes, const H: usize, const R: usize, const V: usize>(
        self,
        lane: usize,
        row: usize,
        vector: usize,
    ) -> [[[L; H]; R]; V] {
        // SAFETY: as for this function.
        unsafe {
            let mut acc = [[[L::zero(); H]; R]; V];
            if !self.first {
                for v in 0..V {
                    for r in 0..R {
                        for h in 0..H {
                            acc[v][r][h] = L::load(self.line(row + r, vector + v).add(lane + h * L::WIDTH));
                        }
                    }
                }
            }
            acc
        }
    }

    /// Keeps the lanes that [`Parts::begin`] asks for; but where these are all lanes of a whole tile's rows, and the last
    /// columns, puts the sums into the block's outputs. Elsewhere [`Parts::finish`] does that.
    ///
    /// # Safety
    /// As [`Parts::begin`], and the block's outputs are valid.
    #[inline(always)]
    pub(crate) unsafe fn end<L: Lanes, const H: usize, const R: usize, const V: usize>(
        self,
        acc: [[[L; H]; R]; V],
        block: &Block,
        lane: usize,
        row: usize,
        vector: usize,
    ) {
        let whole = R.is_multiple_of(TILE_ROWS) && self.last && H * L::WIDTH == LANES;
        // SAFETY: as for this function.
        unsafe {
            for v in 0..V {
                if whole {
                    for first in (0..R).step_by(TILE_ROWS) {
                        let mut rows = [L::zero(); TILE_ROWS];
                        for r in 0..TILE_ROWS {
                            rows[r] = acc[v][(first + r) % R][0];
                        }
                        L::sum4(rows, [self.sums.cast_const(); TILE_ROWS], block.output(first, vector + v));
                    }
                    continue;
                }
                for r in 0..R {
                    for h in 0..H {
                        acc[v][r][h].store(self.line(row + r, vector + v).add(lane + h * L::WIDTH));
                    }
                }
            }
        }
    }

    /// Puts the sums of `block`'s rows and some of its vectors, all of whose lanes are kept, into its outputs.
    ///
    /// # Safety
    /// As [`Parts::end`].
    #[inline(always)]
    pub(crate) unsafe fn finish<L: Lanes>(self, block: &Block, vectors: Range<usize>) {
        // SAFETY: as for this function.
        unsafe {
            for vector in vectors {
                let mut lines = [self.sums.cast_const(); TILE_ROWS];
                for r in 0..TILE_ROWS {
                    lines[r] = self.line(r.min(block.rows - 1), vector);
                }
                if block.rows == TILE_ROWS {
                    sum_lines::<L>(lines, block.output(0, vector));
                    continue;
                }
                let mut sums = [0.0; TILE_ROWS];
                sum_lines::<L>(lines, sums.as_mut_ptr());
                for (r, &sum) in sums[..block.rows].iter().enumerate() {
                    block.put(r, vector, sum);
                }
            }
        }
    }
}
