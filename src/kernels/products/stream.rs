//! One vector and rows so long that memory is the limit: a block's rows are read as four streams.
//!
//! A tile's rows lie a quarter of a block from each other, so each quarter is read from its beginning to its end. What costs
//! is where streams begin, before reading ahead has brought anything: a block has as many rows as threads leave it. Scales and
//! biases are widened by the tile, so that they and what reading ahead brings stay in the first cache. Figures are in
//! `docs/performance.md`.
//!
//! A shift is subtracted from whole cache lines on their way into a copy, which is decoded like words that are not shifted:
//! one subtraction for many weights, instead of one for each register of them.

use std::{hint::black_box, ptr};

use super::{
    block::{BLOCK_ROWS, Block, Scratch, TILE_ROWS},
    codes::{Affine4, Affine8, Codes, Decode, DecodeAll, for_uncommon_codes},
    copies::subtract_all,
    exceptions,
    lanes::{LANES, Lanes, sum_lines},
    line::Line,
    panel::Panel,
    scales::{prefetch_scales, widen_scales},
};
use crate::{
    kernels::paths::Paths,
    quant::{Layout, MatrixRef},
};

/// Rows of a block, at most.
const MOST_ROWS: usize = 512;
/// Bytes of a row below which it is too short for a stream of its own.
pub(crate) const LEAST_ROW_BYTES: usize = 1024;
/// Columns of a step: whole groups, and whole cache lines of words.
const STEP: usize = 128;
/// Bytes by which reading ahead is ahead, in each of several streams.
pub(crate) const AHEAD: usize = 1024;

/// Whether this processor reads four streams faster than one: Intel's do (a Llama-3-8B head on an Emerald Rapids, two cores: 21.9
/// GB/s beside 17.5 in blocks of 32 rows), AMD's not (Zen 4: 15.8 beside 17.3 in such blocks; Zen 5: 35.4 beside 39.9 in long ones).
pub(crate) fn several_are_faster() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        static STREAMS: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
        *STREAMS.get_or_init(|| {
            let id = std::arch::x86_64::__cpuid(0);
            [id.ebx, id.edx, id.ecx].map(u32::to_le_bytes).concat() == b"GenuineIntel"
        })
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Whether one vector can be multiplied here by the rows of such a matrix, if a block has so many of them.
pub(crate) fn suits(layout: &Layout, rows: usize) -> bool {
    rows >= BLOCK_ROWS
        && rows.is_multiple_of(TILE_ROWS)
        && layout.weight_row_bytes() >= LEAST_ROW_BYTES
        && layout.cols().is_multiple_of(STEP)
}

/// Rows of a block for one vector, where `all_rows` of this and other matrices are left to so many threads: the more the
/// better, as long as every thread has a few blocks. `None` where such rows are not streamed.
pub(crate) fn block_rows(layout: &Layout, all_rows: usize, threads: usize) -> Option<usize> {
    let most = (all_rows / (8 * threads)).clamp(BLOCK_ROWS, MOST_ROWS);
    let rows = 1 << most.ilog2();
    suits(layout, rows).then_some(rows)
}

/// What an instruction set says about streams.
///
/// # Safety
/// As [`Lanes`].
pub(crate) unsafe trait Stream: Lanes {
    /// [`Tile::sums`] of all rows, as many at a time as there are registers for; a function of its own, that carries the instruction
    /// set's features.
    ///
    /// # Safety
    /// As [`Tile::sums`].
    unsafe fn sums<C: Codes, const SHIFTED: bool, const GROUP: usize>(tile: &Tile<'_>, lines: &mut [Line; TILE_ROWS])
    where
        Self: Decode<C>;
}

/// The product of a block's rows whose codes are common, shifted by `shift`, and its only vector.
///
/// # Safety
/// As [`quantized`](super::quantized::quantized); [`suits`] holds for the block, and it has one vector.
#[inline(always)]
pub(crate) unsafe fn streamed<L: Stream + Panel + DecodeAll, const SHIFTED: bool>(
    matrix: &MatrixRef<'_>,
    shift: u32,
    block: Block,
    scratch: &mut Scratch,
) -> Paths {
    // SAFETY: as for this function; the codes are as wide as the layout says.
    unsafe {
        match matrix.layout().bits() {
            4 => stream_of_codes::<Affine4, L, SHIFTED>(matrix, shift, block, scratch),
            _ => stream_of_codes::<Affine8, L, SHIFTED>(matrix, shift, block, scratch),
        }
    }
}

/// [`streamed`] where codes are not common.
///
/// # Safety
/// As [`streamed`].
#[inline(always)]
pub(crate) unsafe fn uncommon<L: Stream + Panel + DecodeAll>(
    matrix: &MatrixRef<'_>,
    shift: u32,
    block: Block,
    scratch: &mut Scratch,
) -> Paths {
    // SAFETY: as for this function; the codes are what the layout says.
    unsafe { for_uncommon_codes!(matrix, stream_of_codes::<L>(matrix, shift, block, scratch)) }
}

/// [`streamed`] where codes are known to be `C`.
///
/// # Safety
/// As [`streamed`], and the matrix has such codes.
#[inline(always)]
unsafe fn stream_of_codes<C: Codes, L: Stream + Panel + Decode<C>, const SHIFTED: bool>(
    matrix: &MatrixRef<'_>,
    shift: u32,
    block: Block,
    scratch: &mut Scratch,
) -> Paths {
    let mut paths = Paths::STREAM;
    let layout = matrix.layout();
    let (row_bytes, groups) = (layout.weight_row_bytes(), layout.groups_per_row());
    let apart = block.rows / TILE_ROWS;
    scratch.hold(TILE_ROWS * groups);
    for first in 0..apart {
        // SAFETY: detected by the caller's promise; valid since all rows lie in the block, and the scratch holds their scales.
        unsafe {
            let mut words = [ptr::null(); TILE_ROWS];
            for r in 0..TILE_ROWS {
                let row = block.first_row + first + r * apart;
                words[r] = matrix.weight().as_ptr().add(row * row_bytes);
                widen_scales::<L>(matrix, row..row + 1, r * groups, scratch);
                // Those of the stream's next row are on their way already.
                prefetch_scales::<L>(matrix, row + 2..row + 3);
            }
            let (scales, biases) = (&scratch.scales[..], &scratch.biases[..]);
            let tile = Tile { groups, shift, words, scales, biases, x: block.vector(0) };
            let mut lines = [Line([0.0; LANES]); TILE_ROWS];
            // Compiled for the sizes that codes have.
            if C::GROUP == 16 {
                L::sums::<C, SHIFTED, 16>(&tile, &mut lines);
            } else if C::GROUP == 32 || layout.group_size() == 32 {
                L::sums::<C, SHIFTED, 32>(&tile, &mut lines);
            } else if layout.group_size() == 64 {
                L::sums::<C, SHIFTED, 64>(&tile, &mut lines);
            } else {
                L::sums::<C, SHIFTED, 128>(&tile, &mut lines);
            }
            let mut y = [0.0; TILE_ROWS];
            sum_lines::<L>(lines.each_ref().map(|line| line.0.as_ptr()), y.as_mut_ptr());
            for r in 0..TILE_ROWS {
                block.put(first + r * apart, 0, y[r]);
                if C::EXCEPTIONS {
                    let row = Block { first_row: block.first_row + first + r * apart, rows: 1, ..block };
                    paths = paths | exceptions::replace::<L>(matrix, shift, row, scratch);
                }
            }
        }
    }
    paths
}

/// Rows from four places, and the vector.
pub(crate) struct Tile<'a> {
    groups: usize,
    shift: u32,
    words: [*const u8; TILE_ROWS],
    /// `[rows, groups]`, as the biases are.
    scales: &'a [f32],
    biases: &'a [f32],
    x: *const f32,
}

/// A step's words of one row, minus the shift.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Shifted([u8; STEP]);

impl Tile<'_> {
    /// The lanes of `R` rows from `row` on, `H` registers of each, into their lines. Groups are of `GROUP` columns.
    ///
    /// # Safety
    /// The instruction set of `L` was detected; words, scales and biases are those of whole rows, and the vector is as long.
    #[inline(always)]
    pub(crate) unsafe fn sums<
        C: Codes,
        L: Decode<C>,
        const SHIFTED: bool,
        const GROUP: usize,
        const H: usize,
        const R: usize,
    >(
        &self,
        row: usize,
        lines: &mut [Line; TILE_ROWS],
    ) {
        // Bytes of a group and of a step.
        let (group_bytes, step_bytes) = (GROUP / LANES * C::LINE_BYTES, STEP / LANES * C::LINE_BYTES);
        let mut copies = [Shifted([0; STEP]); R];
        // Known to the compiler for common codes, of which there are loops for either.
        let copied = if C::COMMON { SHIFTED } else { self.shift != 0 };
        // SAFETY: detected by the caller's promise; valid since a step is whole groups, and a row whole steps.
        unsafe {
            let unshifted = L::shift(0);
            let (mut words, mut x) = ([ptr::null(); R], self.x);
            words.copy_from_slice(&self.words[row..row + R]);
            let mut acc = [[L::zero(); H]; R];
            // Not known to the compiler, which would take all of a step's words into registers first, and others out of them.
            let per_step = black_box(STEP / GROUP);
            for first_group in (0..self.groups).step_by(STEP / GROUP) {
                let mut from = words;
                for r in 0..R {
                    for line in (0..step_bytes).step_by(64) {
                        L::prefetch(words[r].wrapping_add(AHEAD + line));
                    }
                    if copied {
                        subtract_all::<L>(words[r], step_bytes, self.shift, copies[r].0.as_mut_ptr());
                    }
                    words[r] = words[r].add(step_bytes);
                }
                if copied {
                    // What the compiler knows to be there it would take out of registers, by shuffles; a load is free.
                    let copies = black_box(copies.as_ptr());
                    for r in 0..R {
                        from[r] = copies.add(r).cast();
                    }
                }
                for g in 0..per_step {
                    let mut group = [L::group(0.0, 0.0); R];
                    for r in 0..R {
                        let at = (row + r) * self.groups + first_group + g;
                        group[r] = L::group(*self.scales.get_unchecked(at), *self.biases.get_unchecked(at));
                    }
                    for at in (0..group_bytes).step_by(C::LINE_BYTES) {
                        for h in 0..H {
                            let lane = h * L::WIDTH;
                            let xv = L::load(x.add(lane));
                            for r in 0..R {
                                let w = L::decode::<false>(from[r].add(at), lane, unshifted, group[r]);
                                acc[r][h] = w.fma(xv, acc[r][h]);
                            }
                        }
                        x = x.add(LANES);
                    }
                    for from in &mut from {
                        *from = from.add(group_bytes);
                    }
                }
            }
            for r in 0..R {
                for h in 0..H {
                    acc[r][h].store(lines[row + r].0.as_mut_ptr().add(h * L::WIDTH));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        kernels::{Activations, Kernel, Pass, Product, multiply, scalar},
        quant::{FloatType, WeightsRef},
        random::SplitMix64,
        team::Team,
        testing::heads::{affine, encode},
    };

    #[test]
    fn one_vector_and_long_rows_have_the_bits_of_the_specification() {
        let mut random = SplitMix64(11);
        let kinds = [(4, 2176, FloatType::F16), (8, 1152, FloatType::Bf16)];
        for (bits, cols, scale_type) in kinds {
            for group_size in [32, 64, 128] {
                // Eight blocks of 64 rows, and a last one that is not whole.
                let layout = affine(8 * 64 + 5, cols, bits, group_size, scale_type);
                assert_eq!(block_rows(&layout, layout.rows(), 1), Some(64));
                let weight: Vec<u8> =
                    (0..layout.rows() * layout.weight_row_bytes()).map(|_| random.next_u64() as u8).collect();
                let mut floats = |by: f32| -> Vec<u8> {
                    let count = layout.rows() * layout.groups_per_row();
                    (0..count).flat_map(|_| encode(scale_type, by * (random.unit() - 0.5))).collect()
                };
                let (scales, biases) = (floats(0.01), floats(0.1));
                let matrix = MatrixRef::new(layout, &weight, &scales, Some(&biases)).expect("a matrix");
                let x: Vec<f32> = (0..cols).map(|_| random.unit() - 0.5).collect();
                for shift in [0, 1, 0x9abc_def1] {
                    let mut w = vec![0.0; cols];
                    let expected: Vec<u32> = (0..layout.rows())
                        .map(|row| {
                            scalar::dequantize_row(&matrix, shift, row, &mut w);
                            scalar::dot(&w, &x).to_bits()
                        })
                        .collect();
                    for (kernel, threads) in Kernel::available().into_iter().flat_map(|k| [(k, 1), (k, 2)]) {
                        let prepared = Activations::from_rows(kernel, cols, &x);
                        let mut out = vec![f32::NAN; layout.rows()];
                        let products = vec![Product { shift, x: prepared.all(), out: &mut out }];
                        let weights = WeightsRef::Quantized(matrix);
                        multiply(kernel, &Team::new(threads), &mut [Pass { weights, products }]);
                        let reached: Vec<u32> = out.into_iter().map(f32::to_bits).collect();
                        assert!(reached == expected, "{kernel} {layout:?} shift {shift}");
                    }
                }
            }
        }
    }
}
