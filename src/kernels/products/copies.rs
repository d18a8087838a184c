//! Packed words, minus a shift, in a copy that is decoded like words that are not shifted.

use super::lanes::Lanes;

/// Copies `bytes` bytes of packed words from `from`, minus `shift`, to where `copy` begins, and returns that.
///
/// # Safety
/// The instruction set of `L` was detected; `from` is valid for so many bytes, which are whole words.
#[inline(always)]
pub(super) unsafe fn copy_shifted<L: Lanes>(
    from: *const u8,
    bytes: usize,
    shift: u32,
    copy: &mut Vec<u8>,
) -> *const u8 {
    if copy.len() < bytes {
        copy.resize(bytes, 0);
    }
    // SAFETY: as for this function; the copy is as long.
    unsafe { subtract_all::<L>(from, bytes, shift, copy.as_mut_ptr()) };
    copy.as_ptr()
}

/// Writes `bytes` bytes of packed words from `from`, minus `shift`, to `to`.
///
/// # Safety
/// The instruction set of `L` was detected; both are valid for so many bytes, which are whole words.
#[inline(always)]
pub(super) unsafe fn subtract_all<L: Lanes>(from: *const u8, bytes: usize, shift: u32, to: *mut u8) {
    let lines = bytes / 64 * 64;
    // SAFETY: as for this function.
    unsafe {
        let in_register = L::shift(shift);
        for at in (0..lines).step_by(64) {
            L::subtract(from.add(at), in_register, to.add(at));
        }
        for at in (lines..bytes).step_by(4) {
            let word = u32::from_le(from.add(at).cast::<u32>().read_unaligned()).wrapping_sub(shift);
            to.add(at).cast::<u32>().write_unaligned(word.to_le());
        }
    }
}
