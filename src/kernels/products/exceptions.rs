//! Rows that are not the product of what their codes are decoded to.
//!
//! Codes that are floats of 8 bits are widened by the processor's conversion from binary16, which has one bit of exponent more,
//! so that it gives `value / 2^8`, exactly; the scale is multiplied by 2^8 once for a group. That leaves two exceptions:
//!
//! - NaN is a finite number there. A row with a code that is NaN has a product that is NaN, whatever the vector.
//! - A scale from 2^120 on is infinite after that. Such a row is decoded as specified.
//!
//! Both are found by reading a row once more, while it is in the nearest cache.

use super::{
    block::{Block, Scratch},
    panel::Panel,
    specified::specified,
};
use crate::{kernels::paths::Paths, quant::MatrixRef};

/// The first scale that 2^8 makes infinite: 2^120.
const LARGE: u8 = 127 + 120;

/// Replaces the products of exceptional rows of `block`, shifted by `shift`, and says which kinds there were.
///
/// # Safety
/// As [`quantized`](super::quantized::quantized), and the matrix has codes that are floats of 8 bits.
#[inline(always)]
pub(super) unsafe fn replace<L: Panel>(
    matrix: &MatrixRef<'_>,
    shift: u32,
    block: Block,
    scratch: &mut Scratch,
) -> Paths {
    let mut paths = Paths::NONE;
    let (row_bytes, scale_bytes) = (matrix.layout().weight_row_bytes(), matrix.layout().scale_row_bytes());
    for r in 0..block.rows {
        let row = block.first_row + r;
        // SAFETY: as for this function; the row is one of the block's.
        unsafe {
            if any_is_nan(&matrix.weight()[row * row_bytes..][..row_bytes], shift) {
                for vector in 0..block.count {
                    block.put(r, vector, f32::NAN);
                }
                paths = paths | Paths::NAN_CODES;
            } else if largest(&matrix.scales()[row * scale_bytes..][..scale_bytes]) >= LARGE {
                paths = paths | specified::<L>(matrix, shift, Block { first_row: row, rows: 1, ..block }, scratch);
            }
        }
    }
    paths
}

/// The largest of some bytes; all of them are looked at, so that the compiler may take many at a time.
#[inline(always)]
fn largest(bytes: &[u8]) -> u8 {
    let mut largest = 0;
    for &byte in bytes {
        largest = if byte > largest { byte } else { largest };
    }
    largest
}

/// Whether one of the bytes of little-endian words is 0x7f or 0xff after `shift` has been subtracted from each word.
#[inline(always)]
fn any_is_nan(words: &[u8], shift: u32) -> bool {
    const SEVEN: u32 = 0x7f7f_7f7f;
    let mut all = u32::MAX;
    for word in words.chunks_exact(4) {
        let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_sub(shift);
        // The highest bit of each byte whose other bits are not all 1: no sum carries into the next byte.
        all &= (!word & SEVEN) + SEVEN;
    }
    all & !SEVEN != !SEVEN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_is_found_in_every_byte_and_under_a_shift_and_nowhere_else() {
        for value in 0..=255_u8 {
            for at in 0..12 {
                let mut words = [0x7e, 0xfe, 0, 0x80, 0x3f, 0x01, 0x7d, 0xfd, 0x40, 0xc0, 0x0f, 0x70];
                words[at] = value;
                assert_eq!(any_is_nan(&words, 0), value & 0x7f == 0x7f, "{value} at {at}");
                let shifted: Vec<u8> = words
                    .chunks_exact(4)
                    .flat_map(|word| {
                        u32::from_le_bytes(word.try_into().expect("four")).wrapping_add(0x0102_0304).to_le_bytes()
                    })
                    .collect();
                assert_eq!(any_is_nan(&shifted, 0x0102_0304), value & 0x7f == 0x7f, "{value} at {at}, shifted");
            }
        }
    }
}
