//! What an instruction set must bring: sixteen `f32` lanes, in one register or several.
//!
//! The loops of this room are written over [`Lanes`] and inlined into functions that carry the instruction set's
//! `target_feature`, so that they compile to its instructions. What calls an intrinsic is never a closure, and registers are
//! not gone through by iterators: a closure, and what an iterator calls, is a function of its own without these features.
//! Where the compiler leaves it so (other codegen units, no link-time optimization), it becomes a call that takes registers
//! through memory.

use super::{line::Line, widen::widen_into};
pub(crate) use crate::kernels::specification::scalar::LANES;
use crate::quant::FloatType;

/// Some of the sixteen lanes in a register, or in registers that are always used together: lanes 0 to `WIDTH` of a line, then
/// the next ones. The loops go through all columns for the first of them, then for the others, so that as many rows and
/// vectors as possible have their sums in registers. An implementation may keep lanes in an order of its own, as long as
/// all its functions agree on it.
///
/// # Safety
/// A caller of any of its functions promises
///
/// - *detected*: this processor was seen to have the instruction set;
/// - *valid*: pointers are valid for what the function says it reads or writes; no alignment is asked for.
///
/// An implementation promises to ask for nothing else.
pub(crate) unsafe trait Lanes: Copy {
    /// Lanes of one: all sixteen, or eight.
    const WIDTH: usize;
    /// Query heads whose sums are in registers together.
    const HEADS: usize;
    /// A shift in the form that decoding wants.
    type Shift: Copy;

    /// Zeros.
    unsafe fn zero() -> Self;
    /// A hint that the bytes at `from` will be read soon; the address may be invalid.
    #[inline(always)]
    fn prefetch(_from: *const u8) {}
    /// Reads `WIDTH` floats that are already in this order.
    unsafe fn load(from: *const f32) -> Self;
    /// Reads sixteen floats that stand in the order of columns, and writes them in this order.
    unsafe fn arrange(columns: *const f32, line: *mut f32);
    /// The same number in all lanes.
    unsafe fn splat(x: f32) -> Self;
    /// Writes `WIDTH` floats in this order.
    unsafe fn store(self, to: *mut f32);
    /// `self * b + acc`, rounded once.
    unsafe fn fma(self, b: Self, acc: Self) -> Self;
    /// Four trees of [`sum`](crate::kernels::scalar::sum) at once, their results written one after the other. `four` are the last
    /// lanes of four lines; those before them, where there are such, stand where `lines` begin.
    unsafe fn sum4(four: [Self; 4], lines: [*const f32; 4], to: *mut f32);
    /// A shift in the form that decoding wants.
    unsafe fn shift(shift: u32) -> Self::Shift;
    /// Writes the sixteen words that stand at `words`, minus the shift, to `to`.
    unsafe fn subtract(words: *const u8, shift: Self::Shift, to: *mut u8);
    /// Reads `WIDTH` elements in column order, and widens them.
    unsafe fn widen(float_type: FloatType, from: *const u8) -> Self;
    /// Widens f16, as many as `to` has and `from` has too, by the processor's own conversion where it has one.
    #[inline(always)]
    unsafe fn widen_f16(from: &[u8], to: &mut [f32]) {
        widen_into(FloatType::F16, from, to);
    }
}

/// Asks for the lines of so many bytes, and returns where they end.
#[inline(always)]
pub(crate) fn prefetch<L: Lanes>(from: *const u8, bytes: usize) -> *const u8 {
    for line in (0..bytes).step_by(64) {
        L::prefetch(from.wrapping_add(line));
    }
    from.wrapping_add(bytes)
}

/// [`Lanes::sum4`] of lines in memory.
///
/// # Safety
/// The instruction set of `L` was detected; the lines are valid for their lanes, `to` for four sums.
#[inline(always)]
pub(crate) unsafe fn sum_lines<L: Lanes>(lines: [*const f32; 4], to: *mut f32) {
    // SAFETY: as for this function.
    unsafe {
        let mut last = [L::zero(); 4];
        for i in 0..4 {
            last[i] = L::load(lines[i].add(LANES - L::WIDTH));
        }
        L::sum4(last, lines, to);
    }
}

/// Columns of a vector in `L`'s order, sixteen a line; the rest of the last line is zero.
///
/// # Safety
/// The instruction set of `L` was detected.
#[inline(always)]
pub(crate) unsafe fn place<L: Lanes>(row: &[f32], lines: &mut [Line]) {
    // SAFETY: detected by the caller's promise; valid since a chunk has sixteen columns, or is copied to where there are, and a
    // line has sixteen lanes.
    unsafe {
        for (columns, line) in row.chunks(LANES).zip(lines) {
            let last = padded(columns);
            let columns = if columns.len() == LANES { columns } else { &last };
            L::arrange(columns.as_ptr(), line.0.as_mut_ptr());
        }
    }
}

/// At most sixteen floats, and zeros.
#[inline(always)]
pub(crate) fn padded(floats: &[f32]) -> [f32; LANES] {
    let mut line = [0.0; LANES];
    line[..floats.len()].copy_from_slice(floats);
    line
}
