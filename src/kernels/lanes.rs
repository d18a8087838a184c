//! Sixteen `f32` lanes, and the two loops over them that every instruction set shares.
//!
//! [`Lanes`] is what an instruction set must bring. The loops are inlined into functions that carry
//! the instruction set's `target_feature`, so that they compile to its instructions. What calls an intrinsic is
//! never a closure: a closure is a function of its own, without these features, and where the compiler leaves it one
//! (other codegen units, no link-time optimization) each instruction becomes a call.

use std::ops::Range;

use super::{Line, vector};
use crate::quant::{Bits, DenseRef, FloatType, MatrixRef};

/// Lanes of the reduction; see [`super::scalar`].
pub(super) use super::scalar::LANES;

/// Sixteen lanes in registers. An implementation may keep them in an order of its own, as long as
/// all its functions agree on it.
///
/// # Safety
/// All functions may be called only where the instruction set was detected. Pointers must be valid
/// for the bytes that each function names; no alignment is asked for.
pub(super) unsafe trait Lanes: Copy {
    /// Vectors that are multiplied by weights straight from the registers that decoding left them in; the others read them
    /// from a panel of rows that the cache holds. At most 5.
    const DIRECT_VECTORS: usize;
    /// What one group's scale and bias become before its codes are decoded.
    type Group4: Copy;
    /// A shift in the form that decoding wants.
    type Shift: Copy;

    unsafe fn zero() -> Self;
    /// A hint that the bytes at `from` will be read soon; the address may be invalid.
    #[inline(always)]
    fn prefetch(_from: *const u8) {}
    /// Reads 64 bytes of lanes, already in this order.
    unsafe fn load(from: *const f32) -> Self;
    /// Lanes that stand in the order of columns, in this order.
    unsafe fn arranged(self) -> Self;
    /// The same number in all lanes.
    unsafe fn splat(x: f32) -> Self;
    /// Writes 64 bytes of lanes, in this order.
    unsafe fn store(self, to: *mut f32);
    /// `self * b + acc`, rounded once.
    unsafe fn fma(self, b: Self, acc: Self) -> Self;
    /// The tree of [`super::scalar::sum`].
    unsafe fn sum(self) -> f32;
    /// Four trees at once, their results written one after the other.
    #[inline(always)]
    unsafe fn sum4(four: [Self; 4], to: *mut f32) {
        // SAFETY: as for this function; `to` is valid for four floats.
        unsafe {
            for (i, lanes) in four.into_iter().enumerate() {
                to.add(i).write(lanes.sum());
            }
        }
    }
    unsafe fn shift(shift: u32) -> Self::Shift;
    unsafe fn group4(scale: f32, bias: f32) -> Self::Group4;
    /// Sixteen weights from the 8 bytes of two packed words of 4-bit codes.
    unsafe fn decode4<const SHIFTED: bool>(words: *const u8, shift: Self::Shift, group: Self::Group4) -> Self;
    /// Sixteen weights from the 16 bytes of four packed words of 8-bit codes.
    unsafe fn decode8<const SHIFTED: bool>(words: *const u8, shift: Self::Shift, scale: f32, bias: f32) -> Self;
    /// Sixteen elements in column order (32 bytes of f16 or bf16, 64 of f32), widened.
    unsafe fn widen(float_type: FloatType, from: *const u8) -> Self;
    /// Widens f16, as many as `to` has, by the processor's own conversion where it has one.
    #[inline(always)]
    unsafe fn widen_f16(from: &[u8], to: &mut [f32]) {
        widen_into(FloatType::F16, from, to);
    }
}

/// What a kernel does with one block of rows: the outputs `out[v * stride + row]` for each of
/// `count` vectors at `x + v * x_stride`, `row` counted from `first_row` of the matrix.
#[derive(Clone, Copy)]
pub(super) struct Block {
    pub(super) first_row: usize,
    pub(super) rows: usize,
    pub(super) x: *const f32,
    pub(super) x_stride: usize,
    pub(super) count: usize,
    pub(super) out: *mut f32,
    pub(super) stride: usize,
}

impl Block {
    /// # Safety
    /// `row < rows`, `vector < count`, and `out` valid there.
    #[inline(always)]
    pub(super) unsafe fn put(&self, row: usize, vector: usize, y: f32) {
        // SAFETY: as for this function.
        unsafe { self.output(row, vector).write(y) }
    }

    /// Where the output of `row` and `vector` goes; those of the next rows follow.
    ///
    /// # Safety
    /// As [`Block::put`].
    #[inline(always)]
    unsafe fn output(&self, row: usize, vector: usize) -> *mut f32 {
        // SAFETY: as for this function.
        unsafe { self.out.add(vector * self.stride + self.first_row + row) }
    }

    /// # Safety
    /// `vector <= count`, and `x` valid there.
    #[inline(always)]
    pub(super) unsafe fn vector(&self, vector: usize) -> *const f32 {
        // SAFETY: as for this function.
        unsafe { self.x.add(vector * self.x_stride) }
    }
}

/// Rows that are decoded together.
pub(super) const TILE_ROWS: usize = 4;
/// Columns of a panel, at most: what is read of it and of some vectors at a time stays in the first cache.
const PANEL_COLS: usize = 640;
/// Bytes by which reading ahead of the next rows is ahead of them.
pub(super) const AHEAD: usize = 4096;
/// Rows from each other, where a tile's are taken from several places of a block.
pub(super) const APART: usize = super::BLOCK_ROWS / TILE_ROWS;
/// As [`AHEAD`], in each of several streams.
pub(super) const STREAM_AHEAD: usize = 512;

/// Buffers of one thread: widened scales and biases of a few rows, a panel of weights, and sums.
#[derive(Default)]
pub(super) struct Scratch {
    scales: Vec<f32>,
    biases: Vec<f32>,
    /// The row of the matrix whose scales and biases are the first.
    first_row: usize,
    /// Some columns of `TILE_ROWS` rows: sixteen of each row, then the next sixteen.
    panel: Vec<Line>,
    /// `[vectors, TILE_ROWS]`: the lanes of the columns before the panel's.
    sums: Vec<Line>,
}

impl Scratch {
    /// A buffer of `cols` floats.
    pub(super) fn row(&mut self, cols: usize) -> &mut [f32] {
        grow(&mut self.scales, cols);
        &mut self.scales
    }
}

fn grow_lines(lines: &mut Vec<Line>, len: usize) {
    if lines.len() < len {
        lines.resize(len, Line([0.0; LANES]));
    }
}

fn grow(buffer: &mut Vec<f32>, len: usize) {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
}

/// IEEE binary16 to binary32, exactly, without a branch or a table: the bits are moved into place and
/// the exponent's bias corrected by an exact product; infinities and NaN are set apart. Written out so
/// that the compiler turns a loop of it into vector code for whatever instruction set it is inlined in.
#[inline(always)]
fn f16_to_f32(bits: u16) -> f32 {
    let magnitude = u32::from(bits & 0x7fff) << 13;
    // 2^112: the difference of the exponents' biases, 127 - 15.
    let scaled = f32::from_bits(magnitude) * f32::from_bits((127 + 112) << 23);
    let finite = if magnitude >= 0x7c00 << 13 { scaled.to_bits() | 0x7f80_0000 } else { scaled.to_bits() };
    f32::from_bits(finite | (u32::from(bits & 0x8000) << 16))
}

#[inline(always)]
pub(super) fn widen_into(float_type: FloatType, from: &[u8], to: &mut [f32]) {
    match float_type {
        FloatType::F16 => {
            for (to, from) in to.iter_mut().zip(from.chunks_exact(2)) {
                *to = f16_to_f32(u16::from_le_bytes([from[0], from[1]]));
            }
        }
        FloatType::Bf16 => {
            for (to, from) in to.iter_mut().zip(from.chunks_exact(2)) {
                *to = f32::from_bits(u32::from(u16::from_le_bytes([from[0], from[1]])) << 16);
            }
        }
        FloatType::F32 => {
            for (to, from) in to.iter_mut().zip(from.chunks_exact(4)) {
                *to = f32::from_le_bytes([from[0], from[1], from[2], from[3]]);
            }
        }
    }
}

/// Widens the scales and biases of `rows` rows from `first` into the scratch, `[rows, groups]`.
///
/// # Safety
/// The instruction set of `L` was detected.
#[inline(always)]
unsafe fn widen_scales<L: Lanes>(matrix: &MatrixRef<'_>, first: usize, rows: usize, scratch: &mut Scratch) {
    let (layout, bytes) = (matrix.layout(), matrix.layout().scale_row_bytes());
    let count = rows * layout.groups_per_row();
    scratch.first_row = first;
    grow(&mut scratch.scales, count);
    grow(&mut scratch.biases, count);
    let range = first * bytes..(first + rows) * bytes;
    let parts = [(matrix.scales(), &mut scratch.scales), (matrix.biases(), &mut scratch.biases)];
    for (from, to) in parts {
        // Those of as many rows, as far ahead as words are read.
        let ahead = range.end + AHEAD / layout.weight_row_bytes() * bytes;
        for line in (ahead..ahead + range.len()).step_by(64) {
            L::prefetch(from.as_ptr().wrapping_add(line));
        }
        let (from, to) = (&from[range.clone()], &mut to[..count]);
        // SAFETY: the caller's promise.
        unsafe { widen_some::<L>(layout.scale_type(), from, to) };
    }
}

/// Widens as many elements as `to` has, by the processor's own conversion where `L` has one.
///
/// # Safety
/// The instruction set of `L` was detected; `from` holds as many.
#[inline(always)]
pub(super) unsafe fn widen_some<L: Lanes>(float_type: FloatType, from: &[u8], to: &mut [f32]) {
    match float_type {
        // SAFETY: as for this function: two bytes for each.
        FloatType::F16 => unsafe { L::widen_f16(from, to) },
        other => widen_into(other, from, to),
    }
}

/// The product of a block of quantized rows, shifted by `shift`, and the block's vectors.
///
/// # Safety
/// The instruction set of `L` was detected; `block`'s pointers are valid for its vectors (of
/// `cols` lanes in `L`'s order) and outputs; its rows lie in `matrix`.
#[inline(always)]
pub(super) unsafe fn quantized<L: Lanes, const SHIFTED: bool, const TILE: usize, const TILE_VECTORS: usize>(
    matrix: &MatrixRef<'_>,
    shift: u32,
    block: Block,
    scratch: &mut Scratch,
) {
    // SAFETY: the caller's promise; `MatrixRef` has checked that its parts are as long as its layout
    // says, and rows and groups below stay within it.
    unsafe {
        match matrix.layout().bits() {
            Bits::Four => by_width::<L, SHIFTED, false, TILE, TILE_VECTORS>(matrix, shift, block, scratch),
            Bits::Eight => by_width::<L, SHIFTED, true, TILE, TILE_VECTORS>(matrix, shift, block, scratch),
        }
    }
}

/// Where the sums of a tile's products begin and end: a row's columns may be taken in several parts, one after the other,
/// and its lanes are kept in between.
#[derive(Clone, Copy)]
struct Parts {
    /// `[vectors, TILE_ROWS]` times sixteen lanes.
    sums: *mut f32,
    /// Whether these are the first columns.
    first: bool,
    /// Whether these are the last ones.
    last: bool,
}

impl Parts {
    /// All columns are one part.
    const WHOLE: Self = Self { sums: std::ptr::null_mut(), first: true, last: true };

    /// The lanes of `R` rows from `row` on and `V` vectors from `vector` on, before these columns.
    ///
    /// # Safety
    /// The instruction set of `L` was detected; `sums` is valid for these rows and vectors unless the columns are the first.
    #[inline(always)]
    unsafe fn begin<L: Lanes, const R: usize, const V: usize>(self, row: usize, vector: usize) -> [[L; R]; V] {
        // SAFETY: as for this function.
        unsafe {
            let mut acc = [[L::zero(); R]; V];
            if !self.first {
                for (v, acc) in acc.iter_mut().enumerate() {
                    for (r, acc) in acc.iter_mut().enumerate() {
                        *acc = L::load(self.sums.add(((vector + v) * TILE_ROWS + row + r) * LANES));
                    }
                }
            }
            acc
        }
    }

    /// Keeps the lanes that [`Parts::begin`] asks for, or, after the last columns, puts their sums into the block's outputs.
    ///
    /// # Safety
    /// As [`Parts::begin`], and the block's outputs are valid.
    #[inline(always)]
    unsafe fn end<L: Lanes, const R: usize, const V: usize>(
        self,
        acc: [[L; R]; V],
        block: &Block,
        row: usize,
        vector: usize,
    ) {
        // SAFETY: as for this function.
        unsafe {
            for (v, acc) in acc.into_iter().enumerate() {
                if !self.last {
                    for (r, acc) in acc.into_iter().enumerate() {
                        acc.store(self.sums.add(((vector + v) * TILE_ROWS + row + r) * LANES));
                    }
                } else if R == 4 {
                    L::sum4([acc[0], acc[1 % R], acc[2 % R], acc[3 % R]], block.output(row, vector + v));
                } else {
                    for (r, acc) in acc.into_iter().enumerate() {
                        block.put(row + r, vector + v, acc.sum());
                    }
                }
            }
        }
    }
}

/// # Safety
/// As [`quantized`]; `EIGHT` is the width of the matrix's codes.
#[inline(always)]
unsafe fn by_width<L: Lanes, const SHIFTED: bool, const EIGHT: bool, const TILE: usize, const TILE_VECTORS: usize>(
    matrix: &MatrixRef<'_>,
    shift: u32,
    block: Block,
    scratch: &mut Scratch,
) {
    let most = L::DIRECT_VECTORS;
    // Where two parts are enough, halves.
    let direct_count = match block.count {
        count if count <= most => count,
        count => count.div_ceil(2).min(most),
    };
    let (groups, group_size) = (matrix.layout().groups_per_row(), matrix.layout().group_size());
    let kept = block.count > direct_count;
    // Parts of a row that are as long as each other, but for the last.
    let per_part = if kept { groups.div_ceil((groups * group_size).div_ceil(PANEL_COLS)) } else { groups };
    if kept {
        grow_lines(&mut scratch.panel, TILE_ROWS * per_part * group_size / LANES);
        grow_lines(&mut scratch.sums, TILE_ROWS * block.count);
    }
    // SAFETY: as for `quantized`; both parts of the vectors are the block's, and the buffers were made for them.
    unsafe {
        widen_scales::<L>(matrix, block.first_row, block.rows, scratch);
        if block.count == 1 && far_apart(matrix, block.rows) {
            for row in 0..APART {
                let tile = Block { first_row: block.first_row + row, rows: TILE_ROWS, ..block };
                direct::<L, SHIFTED, EIGHT, false, APART, TILE_ROWS, 1>(
                    matrix,
                    shift,
                    tile,
                    0,
                    0..groups,
                    Parts::WHOLE,
                    scratch,
                );
            }
            return;
        }
        let mut row = 0;
        while row < block.rows {
            let rows = if row + TILE_ROWS <= block.rows { TILE_ROWS } else { 1 };
            let tile = Block { first_row: block.first_row + row, rows, ..block };
            let direct_ones = Block { count: direct_count, ..tile };
            if !kept {
                some::<L, SHIFTED, EIGHT, false>(matrix, shift, direct_ones, 0..groups, Parts::WHOLE, scratch);
            } else {
                for first in (0..groups).step_by(per_part) {
                    let part = first..groups.min(first + per_part);
                    let sums = scratch.sums.as_mut_ptr().cast();
                    let parts = Parts { sums, first: first == 0, last: part.end == groups };
                    some::<L, SHIFTED, EIGHT, true>(matrix, shift, direct_ones, part.clone(), parts, scratch);
                    let others = Block {
                        x: tile.vector(direct_count).add(first * group_size),
                        count: block.count - direct_count,
                        out: block.out.add(direct_count * block.stride),
                        ..tile
                    };
                    let parts = Parts { sums: parts.sums.add(direct_count * TILE_ROWS * LANES), ..parts };
                    let panel = scratch.panel.as_ptr().cast();
                    tiles::<L, TILE, TILE_VECTORS>(panel, part.len() * group_size, others, parts);
                }
            }
            row += rows;
        }
    }
}

/// Whether the rows of a tile are taken from four places of a block, [`APART`] rows from each other, instead of one after the
/// other: for one vector, where memory is the limit, and rows so long that each place is a stream of its own. Some processors
/// read several streams faster than one, others not.
#[inline(always)]
pub(super) fn far_apart(matrix: &MatrixRef<'_>, rows: usize) -> bool {
    rows == TILE_ROWS * APART && matrix.layout().weight_row_bytes() >= 1024 && super::streams()
}

/// [`direct`] for as many rows and vectors as there are: `TILE_ROWS` or one of those, at most `DIRECT_VECTORS` of these.
///
/// # Safety
/// As [`direct`].
#[inline(always)]
unsafe fn some<L: Lanes, const SHIFTED: bool, const EIGHT: bool, const KEEP: bool>(
    matrix: &MatrixRef<'_>,
    shift: u32,
    tile: Block,
    part: Range<usize>,
    parts: Parts,
    scratch: &mut Scratch,
) {
    // SAFETY: as for this function.
    unsafe {
        if tile.rows == TILE_ROWS {
            match tile.count {
                1 => direct::<L, SHIFTED, EIGHT, KEEP, 1, TILE_ROWS, 1>(matrix, shift, tile, 0, part, parts, scratch),
                2 => direct::<L, SHIFTED, EIGHT, KEEP, 1, TILE_ROWS, 2>(matrix, shift, tile, 0, part, parts, scratch),
                3 => direct::<L, SHIFTED, EIGHT, KEEP, 1, TILE_ROWS, 3>(matrix, shift, tile, 0, part, parts, scratch),
                4 => direct::<L, SHIFTED, EIGHT, KEEP, 1, TILE_ROWS, 4>(matrix, shift, tile, 0, part, parts, scratch),
                _ => direct::<L, SHIFTED, EIGHT, KEEP, 1, TILE_ROWS, 5>(matrix, shift, tile, 0, part, parts, scratch),
            }
            return;
        }
        for vector in 0..tile.count {
            direct::<L, SHIFTED, EIGHT, KEEP, 1, 1, 1>(matrix, shift, tile, vector, part.clone(), parts, scratch);
        }
    }
}

/// The groups `part` of the tile's `R` rows, and `V` vectors from `vector` on, straight from the registers that decoding
/// leaves the weights in. `KEEP`: they are written to the scratch's panel, too, for other vectors. From a row of the tile to
/// the next are `STRIDE` rows; where these are several, all groups are asked for.
///
/// # Safety
/// As [`quantized`], with `vector + V <= tile.count`; the scratch has the rows' scales and, if `KEEP`, a panel for the part;
/// `parts` is valid for the tile.
#[inline(always)]
unsafe fn direct<
    L: Lanes,
    const SHIFTED: bool,
    const EIGHT: bool,
    const KEEP: bool,
    const STRIDE: usize,
    const R: usize,
    const V: usize,
>(
    matrix: &MatrixRef<'_>,
    shift: u32,
    tile: Block,
    vector: usize,
    part: Range<usize>,
    parts: Parts,
    scratch: &mut Scratch,
) {
    let layout = matrix.layout();
    let (groups, per_group) = (layout.groups_per_row(), layout.group_size() / LANES);
    let step = if EIGHT { 16 } else { 8 };
    let row = tile.first_row - scratch.first_row;
    let rows = row * groups..(row + (R - 1) * STRIDE + 1) * groups;
    let (scales, biases) = (&scratch.scales[rows.clone()], &scratch.biases[rows]);
    let mut to = scratch.panel.as_mut_ptr().cast::<f32>();
    // SAFETY: offsets stay within `R` rows of the matrix and `cols` lanes of each vector.
    unsafe {
        let shift = L::shift(shift);
        let row_bytes = layout.weight_row_bytes();
        let group_bytes = row_bytes / groups;
        let mut words = [matrix.weight().as_ptr().add(tile.first_row * row_bytes + part.start * group_bytes); R];
        for (r, words) in words.iter_mut().enumerate() {
            *words = words.add(r * STRIDE * row_bytes);
        }
        let mut x = [tile.x; V];
        for (v, x) in x.iter_mut().enumerate() {
            *x = tile.vector(vector + v).add(part.start * layout.group_size());
        }
        let mut acc = parts.begin::<L, R, V>(0, vector);
        // The rows after these, so that they are on their way while these are worked on; asked for in the order in which
        // they lie, which memory gives faster than one line of each in turn.
        let start = matrix.weight().as_ptr().wrapping_add(tile.first_row * row_bytes);
        let mut ahead = start.wrapping_add(R * (row_bytes + part.start * group_bytes) + AHEAD);
        for g in part {
            if STRIDE == 1 {
                for line in (0..R * group_bytes).step_by(64) {
                    L::prefetch(ahead.wrapping_add(line));
                }
                ahead = ahead.wrapping_add(R * group_bytes);
            } else if (g * group_bytes).is_multiple_of(64) {
                // Each row's own stream.
                for words in words {
                    for line in (0..group_bytes).step_by(64) {
                        L::prefetch(words.wrapping_add(STREAM_AHEAD + line));
                    }
                }
            }
            let (mut scale, mut bias) = ([0.0; R], [0.0; R]);
            let mut group = [L::group4(0.0, 0.0); R];
            for r in 0..R {
                scale[r] = *scales.get_unchecked(r * STRIDE * groups + g);
                bias[r] = *biases.get_unchecked(r * STRIDE * groups + g);
                group[r] = L::group4(scale[r], bias[r]);
            }
            // A group is 32, 64 or 128 columns: two steps at a time always come out even.
            for _ in 0..per_group / 2 {
                for _ in 0..2 {
                    let mut w = [L::zero(); R];
                    for r in 0..R {
                        w[r] = if EIGHT {
                            L::decode8::<SHIFTED>(words[r], shift, scale[r], bias[r])
                        } else {
                            L::decode4::<SHIFTED>(words[r], shift, group[r])
                        };
                        if KEEP {
                            w[r].store(to.add(r * LANES));
                        }
                    }
                    to = to.wrapping_add(TILE_ROWS * LANES);
                    for v in 0..V {
                        let xv = L::load(x[v]);
                        for r in 0..R {
                            acc[v][r] = w[r].fma(xv, acc[v][r]);
                        }
                        x[v] = x[v].add(LANES);
                    }
                    for words in &mut words {
                        *words = words.add(step);
                    }
                }
            }
        }
        if STRIDE == 1 {
            parts.end(acc, &tile, 0, vector);
        } else {
            for (v, acc) in acc.into_iter().enumerate() {
                for (r, acc) in acc.into_iter().enumerate() {
                    tile.put(r * STRIDE, vector + v, acc.sum());
                }
            }
        }
    }
}

/// The product of `block.rows` decoded rows of a panel and the block's vectors, for `cols` columns, in tiles of `R` rows
/// and `V` vectors.
///
/// # Safety
/// The instruction set of `L` was detected; `panel` is valid for `TILE_ROWS * cols` floats, the block has no more rows and
/// its pointers are valid for its vectors and outputs; `parts` is valid for the block.
#[inline(always)]
unsafe fn tiles<L: Lanes, const R: usize, const V: usize>(panel: *const f32, cols: usize, block: Block, parts: Parts) {
    // SAFETY: tiles stay within the block.
    unsafe {
        let mut vector = 0;
        while vector < block.count {
            // As many to each tile, nearly: a tile of one or two does not fill the processor.
            let rest = block.count - vector;
            let wide = rest.div_ceil(rest.div_ceil(V));
            let mut row = 0;
            while row + R <= block.rows {
                by_vectors::<L, R, V>(panel, cols, block, parts, row, vector, wide);
                row += R;
            }
            while row < block.rows {
                by_vectors::<L, 1, V>(panel, cols, block, parts, row, vector, wide);
                row += 1;
            }
            vector += wide;
        }
    }
}

/// A tile of `R` rows and `wide` vectors, at most `V`.
///
/// # Safety
/// As [`tiles`], with `row + R <= block.rows` and `vector + wide <= block.count`.
#[inline(always)]
unsafe fn by_vectors<L: Lanes, const R: usize, const V: usize>(
    panel: *const f32,
    cols: usize,
    block: Block,
    parts: Parts,
    row: usize,
    vector: usize,
    wide: usize,
) {
    // SAFETY: as for this function.
    unsafe {
        match wide {
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
    // SAFETY: as for `tiles`; `cols` is a multiple of `LANES`.
    unsafe {
        let x = block.vector(vector);
        let mut w = panel.add(row * LANES);
        let mut acc = parts.begin::<L, R, V>(row, vector);
        let mut c = 0;
        while c < cols {
            let mut rows = [L::zero(); R];
            for (r, row) in rows.iter_mut().enumerate() {
                *row = L::load(w.add(r * LANES));
            }
            for v in 0..V {
                let xv = L::load(x.add(v * block.x_stride + c));
                for r in 0..R {
                    acc[v][r] = rows[r].fma(xv, acc[v][r]);
                }
            }
            w = w.wrapping_add(TILE_ROWS * LANES);
            c += LANES;
        }
        parts.end(acc, &block, row, vector);
    }
}

/// The product of a block of unquantized rows and the block's vectors.
///
/// # Safety
/// As [`quantized`]; vectors have `cols` rounded up to a multiple of sixteen lanes.
#[inline(always)]
pub(super) unsafe fn dense<L: Lanes, const TILE: usize, const TILE_VECTORS: usize>(
    matrix: &DenseRef<'_>,
    block: Block,
    scratch: &mut Scratch,
) {
    let (cols, padded) = (matrix.cols(), matrix.cols().next_multiple_of(LANES));
    let size = matrix.float_type().size();
    grow_lines(&mut scratch.panel, TILE_ROWS * padded / LANES);
    let panel = scratch.panel.as_mut_ptr().cast::<f32>();
    // SAFETY: rows stay within the matrix; a row's last columns, where fewer than sixteen, are copied
    // into a padded buffer first.
    unsafe {
        let mut done = 0;
        while done < block.rows {
            let rows = (block.rows - done).min(TILE_ROWS);
            for r in 0..rows {
                let row = &matrix.data()[(block.first_row + done + r) * cols * size..][..cols * size];
                let mut chunks = row.chunks_exact(LANES * size);
                let mut to = panel.add(r * LANES);
                for chunk in &mut chunks {
                    L::widen(matrix.float_type(), chunk.as_ptr()).store(to);
                    to = to.wrapping_add(TILE_ROWS * LANES);
                }
                if !chunks.remainder().is_empty() {
                    let mut last = [0_u8; LANES * 4];
                    last[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
                    L::widen(matrix.float_type(), last.as_ptr()).store(to);
                }
            }
            let part = Block { first_row: block.first_row + done, rows, ..block };
            tiles::<L, TILE, TILE_VECTORS>(panel, padded, part, Parts::WHOLE);
            done += rows;
        }
    }
}

/// Columns of a vector in `L`'s order, sixteen a line; the rest of the last line is zero.
///
/// # Safety
/// The instruction set of `L` was detected.
#[inline(always)]
pub(super) unsafe fn place<L: Lanes>(row: &[f32], lines: &mut [Line]) {
    // SAFETY: a chunk has sixteen columns, or is copied where there are; a line has sixteen lanes.
    unsafe {
        for (columns, line) in row.chunks(LANES).zip(lines) {
            let lanes = if columns.len() == LANES {
                L::load(columns.as_ptr())
            } else {
                let mut last = [0.0; LANES];
                last[..columns.len()].copy_from_slice(columns);
                L::load(last.as_ptr())
            };
            lanes.arranged().store(line.0.as_mut_ptr());
        }
    }
}

/// The lanes of the products of `q` and `K` keys, each `cols` long.
///
/// # Safety
/// The instruction set of `L` was detected; all pointers are valid for `cols` floats.
#[inline(always)]
unsafe fn products<L: Lanes, const K: usize>(q: *const f32, keys: [*const f32; K], cols: usize) -> [L; K] {
    // SAFETY: offsets below `whole` have sixteen columns after them; the rest is copied into padded buffers first.
    unsafe {
        let whole = cols / LANES * LANES;
        let mut acc = [L::zero(); K];
        let mut c = 0;
        while c < whole {
            let q = L::load(q.add(c));
            for k in 0..K {
                acc[k] = q.fma(L::load(keys[k].add(c)), acc[k]);
            }
            c += LANES;
        }
        if whole < cols {
            let q = padded::<L>(q.add(whole), cols - whole);
            for k in 0..K {
                acc[k] = q.fma(padded(keys[k].add(whole), cols - whole), acc[k]);
            }
        }
        for acc in &mut acc {
            *acc = acc.arranged();
        }
        acc
    }
}

/// Fewer than sixteen floats, and zeros.
///
/// # Safety
/// The instruction set of `L` was detected; `from` is valid for `len` floats.
#[inline(always)]
unsafe fn padded<L: Lanes>(from: *const f32, len: usize) -> L {
    let mut lanes = [0.0; LANES];
    // SAFETY: as for this function.
    unsafe {
        lanes[..len].copy_from_slice(std::slice::from_raw_parts(from, len));
        L::load(lanes.as_ptr())
    }
}

/// Attention of query heads that share keys and values, as [`vector::attend`] states it.
///
/// # Safety
/// The instruction set of `L` was detected; all keys and values are of one length, of which `q` and `out` are as many
/// times, and `scores` is as many times as long as there are keys.
#[inline(always)]
pub(super) unsafe fn attend<L: Lanes>(
    q: &[f32],
    scale: f32,
    keys: &[&[f32]],
    values: &[&[f32]],
    scores: &mut [f32],
    out: &mut [f32],
) {
    // What holds the sums of several vectors in registers holds those of several heads.
    let most = if L::DIRECT_VECTORS >= 4 { 4 } else { 1 };
    let cols = keys[0].len();
    let parts = q.chunks(most * cols).zip(scores.chunks_mut(most * keys.len())).zip(out.chunks_mut(most * cols));
    for ((q, scores), out) in parts {
        // SAFETY: the caller's promise.
        unsafe {
            match q.len() / cols {
                1 => heads::<L, 1>(q, scale, keys, values, scores, out),
                2 => heads::<L, 2>(q, scale, keys, values, scores, out),
                3 => heads::<L, 3>(q, scale, keys, values, scores, out),
                _ => heads::<L, 4>(q, scale, keys, values, scores, out),
            }
        }
    }
}

/// [`attend`] for `H` heads, which read each value together.
///
/// # Safety
/// As [`attend`].
#[inline(always)]
unsafe fn heads<L: Lanes, const H: usize>(
    q: &[f32],
    scale: f32,
    keys: &[&[f32]],
    values: &[&[f32]],
    scores: &mut [f32],
    out: &mut [f32],
) {
    /// Columns whose sums are kept in registers together.
    const WIDE: usize = 4 * LANES;
    let (cols, count) = (keys[0].len(), keys.len());
    let mut total = [0.0; H];
    // SAFETY: offsets below `cols` lie in each head of `q` and `out`, and in each key and value.
    unsafe {
        for (h, (q, scores)) in q.chunks_exact(cols).zip(scores.chunks_exact_mut(count)).enumerate() {
            let fours = count / 4 * 4;
            for j in (0..fours).step_by(4) {
                let four = [keys[j].as_ptr(), keys[j + 1].as_ptr(), keys[j + 2].as_ptr(), keys[j + 3].as_ptr()];
                L::sum4(products(q.as_ptr(), four, cols), scores.as_mut_ptr().add(j));
            }
            for (score, key) in scores[fours..].iter_mut().zip(&keys[fours..]) {
                let [one] = products::<L, 1>(q.as_ptr(), [key.as_ptr()], cols);
                *score = one.sum();
            }
            total[h] = vector::weigh(scores, scale);
        }
        let mut c = 0;
        while c + WIDE <= cols {
            let mut acc = [[L::zero(); 4]; H];
            for (j, value) in values.iter().enumerate() {
                let mut v = [L::zero(); 4];
                for (i, v) in v.iter_mut().enumerate() {
                    *v = L::load(value.as_ptr().add(c + i * LANES));
                }
                for (h, acc) in acc.iter_mut().enumerate() {
                    let score = L::splat(*scores.get_unchecked(h * count + j));
                    for (acc, v) in acc.iter_mut().zip(v) {
                        *acc = score.fma(v, *acc);
                    }
                }
            }
            for (h, acc) in acc.into_iter().enumerate() {
                for (i, acc) in acc.into_iter().enumerate() {
                    acc.store(out.as_mut_ptr().add(h * cols + c + i * LANES));
                }
            }
            c += WIDE;
        }
        for (h, out) in out.chunks_exact_mut(cols).enumerate() {
            if c < cols {
                out[c..].fill(0.0);
                for (score, value) in scores[h * count..].iter().zip(values) {
                    for (out, v) in out[c..].iter_mut().zip(&value[c..]) {
                        *out = score.mul_add(*v, *out);
                    }
                }
            }
            for out in out {
                *out /= total[h];
            }
        }
    }
}
