//! Sixteen `f32` lanes, and the two loops over them that every instruction set shares.
//!
//! [`Lanes`] is what an instruction set must bring. The loops are inlined into functions that carry
//! the instruction set's `target_feature`, so that they compile to its instructions. What calls an intrinsic is
//! never a closure, and registers are not gone through by iterators: these are functions of their own, without these
//! features, and where the compiler leaves them so (other codegen units, no link-time optimization) each becomes a call that
//! takes registers through memory.

use std::ops::Range;

use super::{Line, Paths, stream, stream::Tile, vector};
use crate::quant::{Bits, DenseRef, FloatType, MatrixRef};

/// Lanes of the reduction; see [`super::scalar`].
pub(super) use super::scalar::LANES;

/// Some of the sixteen lanes in a register, or in registers that are always used together: lanes 0 to `WIDTH` of a line, then
/// the next ones. The loops go through all columns for the first of them, then for the others, so that as many rows and
/// vectors as possible have their sums in registers. An implementation may keep lanes in an order of its own, as long as
/// all its functions agree on it.
///
/// # Safety
/// All functions may be called only where the instruction set was detected. Pointers must be valid
/// for the bytes that each function names; no alignment is asked for.
pub(super) unsafe trait Lanes: Copy {
    /// Lanes of one: all sixteen, or eight.
    const WIDTH: usize;
    /// Query heads whose sums are in registers together.
    const HEADS: usize;
    /// What one group's scale and bias become before its codes are decoded.
    type Group4: Copy;
    /// A shift in the form that decoding wants.
    type Shift: Copy;

    /// Of so many vectors how many are multiplied by weights straight from the registers that decoding left them in, from 1
    /// to 5; the others read them from a panel of rows that the cache holds.
    fn direct<const SHIFTED: bool>(count: usize) -> usize;
    unsafe fn zero() -> Self;
    /// A hint that the bytes at `from` will be read soon; the address may be invalid.
    #[inline(always)]
    fn prefetch(_from: *const u8) {}
    /// Reads lanes that are already in this order.
    unsafe fn load(from: *const f32) -> Self;
    /// Sixteen lanes that stand in the order of columns, in this order.
    unsafe fn arrange(columns: *const f32, line: *mut f32);
    /// The same number in all lanes.
    unsafe fn splat(x: f32) -> Self;
    /// [`tiles`] as large as there are registers for their sums: a function of its own, that carries the instruction set's
    /// features and is compiled once, not once for each way of decoding.
    unsafe fn tiles(panel: *const f32, cols: usize, block: Block, parts: Parts);
    /// [`Tile::sums`] of all rows, as many at a time as there are registers for; a function of its own for the same reason.
    unsafe fn stream<const SHIFTED: bool, const EIGHT: bool, const GROUP: usize>(
        tile: &Tile<'_>,
        lines: &mut [Line; TILE_ROWS],
    );
    /// Writes lanes in this order.
    unsafe fn store(self, to: *mut f32);
    /// `self * b + acc`, rounded once.
    unsafe fn fma(self, b: Self, acc: Self) -> Self;
    /// Four trees of [`super::scalar::sum`] at once, their results written one after the other. `four` are the last lanes of
    /// four lines; those before them stand where `lines` begin.
    unsafe fn sum4(four: [Self; 4], lines: [*const f32; 4], to: *mut f32);
    unsafe fn shift(shift: u32) -> Self::Shift;
    /// Writes the sixteen words that stand at `words`, minus the shift, to `to`.
    unsafe fn subtract(words: *const u8, shift: Self::Shift, to: *mut u8);
    unsafe fn group4(scale: f32, bias: f32) -> Self::Group4;
    /// The lanes from `lane` on of the sixteen weights that two packed words of 4-bit codes are.
    unsafe fn decode4<const SHIFTED: bool>(
        words: *const u8,
        lane: usize,
        shift: Self::Shift,
        group: Self::Group4,
    ) -> Self;
    /// The same of four packed words of 8-bit codes.
    unsafe fn decode8<const SHIFTED: bool>(
        words: *const u8,
        lane: usize,
        shift: Self::Shift,
        scale: f32,
        bias: f32,
    ) -> Self;
    /// As many elements, in column order, widened.
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
/// The same for one vector that has all sixteen lanes in a register, while rows are short: with four sums it would wait for one
/// multiply-add after the other. Twice as many long rows do not fit the first cache together with what is read ahead.
const ALONE_ROWS: usize = 2 * TILE_ROWS;
/// Columns of a panel, at most: what is read of it and of some vectors at a time stays in the first cache.
const PANEL_COLS: usize = 640;
/// Bytes by which reading ahead of the next rows is ahead of them.
pub(super) const AHEAD: usize = 4096;
/// Lines of a panel in one turn of the loop over it.
const TURN: usize = 4;

/// Buffers of one thread: widened scales and biases of a few rows, a panel of weights, and sums.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) scales: Vec<f32>,
    pub(super) biases: Vec<f32>,
    /// The row of the matrix whose scales and biases are the first.
    first_row: usize,
    /// Some columns of `TILE_ROWS` rows: sixteen of each row, then the next sixteen.
    panel: Vec<Line>,
    /// `[vectors, TILE_ROWS]`: the lanes of the columns before the panel's.
    sums: Vec<Line>,
}

impl Scratch {
    /// Makes room for the scales and biases of so many groups: once a block, for it costs a streamed tile a twentieth.
    pub(super) fn hold(&mut self, groups: usize) {
        grow(&mut self.scales, groups);
        grow(&mut self.biases, groups);
    }

    /// A buffer of `cols` floats.
    pub(super) fn row(&mut self, cols: usize) -> &mut [f32] {
        grow(&mut self.scales, cols);
        &mut self.scales
    }
}

/// Makes `lines` at least so long.
pub(super) fn grow_lines(lines: &mut Vec<Line>, len: usize) {
    if lines.len() < len {
        lines.resize(len, Line([0.0; LANES]));
    }
}

/// Makes `buffer` at least so long.
pub(super) fn grow(buffer: &mut Vec<f32>, len: usize) {
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

/// Widens the scales and biases of `rows` into the scratch, to where `at` begins there. [`Scratch::hold`] has made room for them.
///
/// # Safety
/// The instruction set of `L` was detected.
#[inline(always)]
pub(super) unsafe fn widen_scales<L: Lanes>(
    matrix: &MatrixRef<'_>,
    rows: Range<usize>,
    at: usize,
    scratch: &mut Scratch,
) {
    let (layout, bytes) = (matrix.layout(), matrix.layout().scale_row_bytes());
    let to = at..at + rows.len() * layout.groups_per_row();
    let parts = [(matrix.scales(), &mut scratch.scales), (matrix.biases(), &mut scratch.biases)];
    for (from, widened) in parts {
        let (from, to) = (&from[rows.start * bytes..rows.end * bytes], &mut widened[to.clone()]);
        // SAFETY: the caller's promise.
        unsafe { widen_some::<L>(layout.scale_type(), from, to) };
    }
}

/// Asks for the scales and biases of `rows`, which may lie behind the matrix: for what begins every 64 bytes, so that rows one
/// after the other ask for everything once.
#[inline(always)]
pub(super) fn prefetch_scales<L: Lanes>(matrix: &MatrixRef<'_>, rows: Range<usize>) {
    let bytes = matrix.layout().scale_row_bytes();
    let first = (rows.start * bytes).next_multiple_of(64);
    for from in [matrix.scales(), matrix.biases()] {
        prefetch::<L>(from.as_ptr().wrapping_add(first), (rows.end * bytes).saturating_sub(first));
    }
}

/// Asks for the lines of so many bytes, and returns where they end.
#[inline(always)]
fn prefetch<L: Lanes>(from: *const u8, bytes: usize) -> *const u8 {
    for line in (0..bytes).step_by(64) {
        L::prefetch(from.wrapping_add(line));
    }
    from.wrapping_add(bytes)
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
pub(super) unsafe fn quantized<L: Lanes, const SHIFTED: bool>(
    matrix: &MatrixRef<'_>,
    shift: u32,
    block: Block,
    scratch: &mut Scratch,
) -> Paths {
    // SAFETY: the caller's promise; `MatrixRef` has checked that its parts are as long as its layout
    // says, and rows and groups below stay within it.
    unsafe {
        match matrix.layout().bits() {
            Bits::Four => by_width::<L, SHIFTED, false>(matrix, shift, block, scratch),
            Bits::Eight => by_width::<L, SHIFTED, true>(matrix, shift, block, scratch),
        }
    }
}

/// [`Lanes::sum4`] of lines in memory.
///
/// # Safety
/// The instruction set of `L` was detected; the lines are valid for their lanes, `to` for four sums.
#[inline(always)]
pub(super) unsafe fn sum_lines<L: Lanes>(lines: [*const f32; 4], to: *mut f32) {
    // SAFETY: as for this function.
    unsafe {
        let mut last = [L::zero(); 4];
        for i in 0..4 {
            last[i] = L::load(lines[i].add(LANES - L::WIDTH));
        }
        L::sum4(last, lines, to);
    }
}

/// Where the sums of a tile's products begin and end: a row's columns may be taken in several parts, one after the other, and
/// its lanes are kept in between.
#[derive(Clone, Copy)]
pub(super) struct Parts {
    /// `[vectors, TILE_ROWS]` lines.
    sums: *mut f32,
    /// Whether these are the first columns.
    first: bool,
    /// Whether these are the last ones.
    last: bool,
}

impl Parts {
    /// All columns are one part.
    const fn whole(sums: *mut f32) -> Self {
        Self { sums, first: true, last: true }
    }

    /// The line of a row and a vector.
    ///
    /// # Safety
    /// `sums` is valid for them.
    #[inline(always)]
    unsafe fn line(self, row: usize, vector: usize) -> *mut f32 {
        // SAFETY: as for this function.
        unsafe { self.sums.add((vector * TILE_ROWS + row) * LANES) }
    }

    /// `H` registers of lanes from `lane` on, of `R` rows from `row` on and `V` vectors from `vector` on, before these columns.
    ///
    /// # Safety
    /// The instruction set of `L` was detected; `sums` is valid for these rows and vectors.
    #[inline(always)]
    unsafe fn begin<L: Lanes, const H: usize, const R: usize, const V: usize>(
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
    unsafe fn end<L: Lanes, const H: usize, const R: usize, const V: usize>(
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
    unsafe fn finish<L: Lanes>(self, block: &Block, vectors: Range<usize>) {
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

/// # Safety
/// As [`quantized`]; `EIGHT` is the width of the matrix's codes.
#[inline(always)]
unsafe fn by_width<L: Lanes, const SHIFTED: bool, const EIGHT: bool>(
    matrix: &MatrixRef<'_>,
    shift: u32,
    block: Block,
    scratch: &mut Scratch,
) -> Paths {
    let mut paths = Paths::REGISTERS;
    let direct_count = L::direct::<SHIFTED>(block.count);
    let (groups, group_size) = (matrix.layout().groups_per_row(), matrix.layout().group_size());
    let kept = block.count > direct_count;
    // Parts of a row that are as long as each other, but for the last.
    let per_part = if kept { groups.div_ceil((groups * group_size).div_ceil(PANEL_COLS)) } else { groups };
    grow_lines(&mut scratch.sums, TILE_ROWS * block.count);
    if kept {
        paths = paths | if per_part == groups { Paths::PANEL } else { Paths::PANEL_IN_PARTS };
        grow_lines(&mut scratch.panel, TILE_ROWS * per_part * group_size / LANES);
    }
    // SAFETY: as for `quantized`; both parts of the vectors are the block's, and the buffers were made for them.
    unsafe {
        scratch.hold(block.rows * groups);
        widen_scales::<L>(matrix, block.first_row..block.first_row + block.rows, 0, scratch);
        scratch.first_row = block.first_row;
        let sums = scratch.sums.as_mut_ptr().cast::<f32>();
        let alone =
            block.count == 1 && L::WIDTH == LANES && matrix.layout().weight_row_bytes() < stream::LEAST_ROW_BYTES;
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
            let direct_ones = Block { count: direct_count, ..tile };
            if !kept {
                some::<L, SHIFTED, EIGHT, false>(matrix, shift, direct_ones, 0..groups, Parts::whole(sums), scratch);
            } else {
                for first in (0..groups).step_by(per_part) {
                    let part = first..groups.min(first + per_part);
                    let parts = Parts { sums, first: first == 0, last: part.end == groups };
                    some::<L, SHIFTED, EIGHT, true>(matrix, shift, direct_ones, part.clone(), parts, scratch);
                    let others = Block {
                        x: tile.vector(direct_count).add(first * group_size),
                        count: block.count - direct_count,
                        out: block.out.add(direct_count * block.stride),
                        ..tile
                    };
                    let parts = Parts { sums: parts.line(0, direct_count), ..parts };
                    let panel = scratch.panel.as_ptr().cast();
                    L::tiles(panel, part.len() * group_size, others, parts);
                }
            }
            row += rows;
        }
    }
    paths
}

/// [`direct`] for as many rows and vectors as there are: `ALONE_ROWS`, `TILE_ROWS` or one of those, at most 5 of these.
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
    let rows = Rows { matrix, shift, tile, part, parts };
    // SAFETY: as for this function.
    unsafe {
        if tile.rows < TILE_ROWS {
            for vector in 0..tile.count {
                direct::<L, SHIFTED, EIGHT, KEEP, 1, 1, 1>(&rows, 0, vector, scratch);
            }
        } else if L::WIDTH == LANES {
            match tile.count {
                1 if tile.rows == ALONE_ROWS => {
                    direct::<L, SHIFTED, EIGHT, KEEP, 1, ALONE_ROWS, 1>(&rows, 0, 0, scratch)
                }
                1 => direct::<L, SHIFTED, EIGHT, KEEP, 1, TILE_ROWS, 1>(&rows, 0, 0, scratch),
                2 => direct::<L, SHIFTED, EIGHT, KEEP, 1, TILE_ROWS, 2>(&rows, 0, 0, scratch),
                3 => direct::<L, SHIFTED, EIGHT, KEEP, 1, TILE_ROWS, 3>(&rows, 0, 0, scratch),
                4 => direct::<L, SHIFTED, EIGHT, KEEP, 1, TILE_ROWS, 4>(&rows, 0, 0, scratch),
                _ => direct::<L, SHIFTED, EIGHT, KEEP, 1, TILE_ROWS, 5>(&rows, 0, 0, scratch),
            }
        } else if tile.count == 1 {
            // All sixteen lanes at a time, and as many rows as registers are left for.
            for row in (0..TILE_ROWS).step_by(2) {
                direct::<L, SHIFTED, EIGHT, KEEP, 2, 2, 1>(&rows, row, 0, scratch);
            }
        } else {
            for row in 0..TILE_ROWS {
                match tile.count {
                    2 => direct::<L, SHIFTED, EIGHT, KEEP, 2, 1, 2>(&rows, row, 0, scratch),
                    3 => direct::<L, SHIFTED, EIGHT, KEEP, 2, 1, 3>(&rows, row, 0, scratch),
                    4 => direct::<L, SHIFTED, EIGHT, KEEP, 2, 1, 4>(&rows, row, 0, scratch),
                    _ => direct::<L, SHIFTED, EIGHT, KEEP, 2, 1, 5>(&rows, row, 0, scratch),
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
/// As [`quantized`], with `vector + V <= tile.count`; the scratch has the rows' scales and, if `KEEP`, a panel for the part;
/// `parts` is valid for the tile.
#[inline(always)]
unsafe fn direct<
    L: Lanes,
    const SHIFTED: bool,
    const EIGHT: bool,
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
    let &Rows { matrix, shift, tile, ref part, parts } = rows;
    let layout = matrix.layout();
    let (groups, per_group) = (layout.groups_per_row(), layout.group_size() / LANES);
    let step = if EIGHT { 16 } else { 8 };
    // Bytes of all rows in a turn of the inner loop. Where these are whole lines, as many are asked for in each turn, whose number the
    // compiler knows; among the stores of a panel that is no faster.
    let turn = R * 2 * step;
    let lines_each_turn = !KEEP && turn.is_multiple_of(64);
    let first_row = tile.first_row + row;
    let scale_row = first_row - scratch.first_row;
    let rows = scale_row * groups..(scale_row + R) * groups;
    let (scales, biases) = (&scratch.scales[rows.clone()], &scratch.biases[rows]);
    let panel = scratch.panel.as_mut_ptr().cast::<f32>();
    let row_bytes = layout.weight_row_bytes();
    let group_bytes = row_bytes / groups;
    // SAFETY: offsets stay within `R` rows of the matrix and `cols` lanes of each vector.
    unsafe {
        // Made anew here: one that is kept takes a register from the tiles, where sums need them all.
        let shift = L::shift(std::hint::black_box(shift));
        for lane in (0..LANES).step_by(H * L::WIDTH) {
            let start = matrix.weight().as_ptr().add(first_row * row_bytes + part.start * group_bytes);
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
                let (mut scale, mut bias) = ([0.0; R], [0.0; R]);
                let mut group = [L::group4(0.0, 0.0); R];
                for r in 0..R {
                    scale[r] = *scales.get_unchecked(r * groups + g);
                    bias[r] = *biases.get_unchecked(r * groups + g);
                    group[r] = L::group4(scale[r], bias[r]);
                }
                // A group is 32, 64 or 128 columns: two steps at a time always come out even.
                for _ in 0..per_group / 2 {
                    if lane == 0 && lines_each_turn {
                        ahead = prefetch::<L>(ahead, turn);
                    }
                    for _ in 0..2 {
                        for h in 0..H {
                            let mut w = [L::zero(); R];
                            for r in 0..R {
                                let lane = lane + h * L::WIDTH;
                                w[r] = if EIGHT {
                                    L::decode8::<SHIFTED>(words[r], lane, shift, scale[r], bias[r])
                                } else {
                                    L::decode4::<SHIFTED>(words[r], lane, shift, group[r])
                                };
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
                            *words = words.add(step);
                        }
                    }
                }
            }
            parts.end::<L, H, R, V>(acc, &tile, lane, row, vector);
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
pub(super) unsafe fn tiles<L: Lanes, const R: usize, const V: usize>(
    panel: *const f32,
    cols: usize,
    block: Block,
    parts: Parts,
) {
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
            if parts.last && (R != TILE_ROWS || block.rows < TILE_ROWS || L::WIDTH < LANES) {
                parts.finish::<L>(&block, vector..vector + wide);
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

/// The product of a block of unquantized rows and the block's vectors.
///
/// # Safety
/// As [`quantized`]; vectors have `cols` rounded up to a multiple of sixteen lanes.
#[inline(always)]
pub(super) unsafe fn dense<L: Lanes>(matrix: &DenseRef<'_>, block: Block, scratch: &mut Scratch) -> Paths {
    let (cols, padded) = (matrix.cols(), matrix.cols().next_multiple_of(LANES));
    let size = matrix.float_type().size();
    grow_lines(&mut scratch.panel, TILE_ROWS * padded / LANES);
    grow_lines(&mut scratch.sums, TILE_ROWS * block.count);
    let panel = scratch.panel.as_mut_ptr().cast::<f32>();
    let parts = Parts::whole(scratch.sums.as_mut_ptr().cast());
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

/// Columns of a vector in `L`'s order, sixteen a line; the rest of the last line is zero.
///
/// # Safety
/// The instruction set of `L` was detected.
#[inline(always)]
pub(super) unsafe fn place<L: Lanes>(row: &[f32], lines: &mut [Line]) {
    // SAFETY: a chunk has sixteen columns, or is copied where there are; a line has sixteen lanes.
    unsafe {
        for (columns, line) in row.chunks(LANES).zip(lines) {
            let last = padded(columns);
            let columns = if columns.len() == LANES { columns } else { &last };
            L::arrange(columns.as_ptr(), line.0.as_mut_ptr());
        }
    }
}

/// The products of `q` and four keys, each `cols` long, written one after the other.
///
/// # Safety
/// The instruction set of `L` was detected; `q` and all keys are valid for `cols` floats, `to` for four.
#[inline(always)]
unsafe fn products<L: Lanes>(q: *const f32, keys: [*const f32; 4], cols: usize, to: *mut f32) {
    let whole = cols / LANES * LANES;
    let mut lines = [[0.0; LANES]; 4];
    // SAFETY: offsets below `whole` have sixteen columns after them; the rest is copied into padded lines first.
    unsafe {
        for lane in (0..LANES).step_by(L::WIDTH) {
            let mut acc = [L::zero(); 4];
            for c in (lane..whole).step_by(LANES) {
                let q = L::load(q.add(c));
                for k in 0..4 {
                    acc[k] = q.fma(L::load(keys[k].add(c)), acc[k]);
                }
            }
            if whole < cols {
                let rest = |x: *const f32| padded(std::slice::from_raw_parts(x.add(whole), cols - whole));
                let q = rest(q);
                let q = L::load(q.as_ptr().add(lane));
                for k in 0..4 {
                    let key = rest(keys[k]);
                    acc[k] = q.fma(L::load(key.as_ptr().add(lane)), acc[k]);
                }
            }
            for k in 0..4 {
                acc[k].store(lines[k].as_mut_ptr().add(lane));
            }
        }
        let mut arranged = [[0.0; LANES]; 4];
        for k in 0..4 {
            L::arrange(lines[k].as_ptr(), arranged[k].as_mut_ptr());
        }
        sum_lines::<L>(arranged.each_ref().map(|line| line.as_ptr()), to);
    }
}

/// At most sixteen floats, and zeros.
#[inline(always)]
fn padded(floats: &[f32]) -> [f32; LANES] {
    let mut line = [0.0; LANES];
    line[..floats.len()].copy_from_slice(floats);
    line
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
    let cols = keys[0].len();
    let parts = q.chunks(L::HEADS * cols).zip(scores.chunks_mut(L::HEADS * keys.len()));
    let parts = parts.zip(out.chunks_mut(L::HEADS * cols));
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
    // Columns whose sums are kept in registers together.
    let wide = 4 * L::WIDTH;
    let (cols, count) = (keys[0].len(), keys.len());
    let mut total = [0.0; H];
    // SAFETY: offsets below `cols` lie in each head of `q` and `out`, and in each key and value.
    unsafe {
        for (h, (q, scores)) in q.chunks_exact(cols).zip(scores.chunks_exact_mut(count)).enumerate() {
            let fours = count / 4 * 4;
            for j in (0..fours).step_by(4) {
                let four = [keys[j].as_ptr(), keys[j + 1].as_ptr(), keys[j + 2].as_ptr(), keys[j + 3].as_ptr()];
                products::<L>(q.as_ptr(), four, cols, scores.as_mut_ptr().add(j));
            }
            for (score, key) in scores[fours..].iter_mut().zip(&keys[fours..]) {
                let mut sums = [0.0; 4];
                products::<L>(q.as_ptr(), [key.as_ptr(); 4], cols, sums.as_mut_ptr());
                *score = sums[0];
            }
            total[h] = vector::weigh(scores, scale);
        }
        let mut c = 0;
        while c + wide <= cols {
            let mut acc = [[L::zero(); 4]; H];
            for (j, value) in values.iter().enumerate() {
                let mut v = [L::zero(); 4];
                for i in 0..4 {
                    v[i] = L::load(value.as_ptr().add(c + i * L::WIDTH));
                }
                for h in 0..H {
                    let score = L::splat(*scores.get_unchecked(h * count + j));
                    for i in 0..4 {
                        acc[h][i] = score.fma(v[i], acc[h][i]);
                    }
                }
            }
            for h in 0..H {
                for i in 0..4 {
                    acc[h][i].store(out.as_mut_ptr().add(h * cols + c + i * L::WIDTH));
                }
            }
            c += wide;
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
