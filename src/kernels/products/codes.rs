//! How wide the codes of a matrix are, as a type, so that each loop is compiled for each width.

use super::lanes::{LANES, Lanes};

/// Codes of one width, as packed words hold them.
pub(crate) trait Codes {
    /// Bits of one.
    const BITS: usize;
    /// Bytes of the words of sixteen columns.
    const LINE_BYTES: usize = LANES * Self::BITS / 8;
}

/// Codes of 4 bits, of which two packed words hold sixteen.
pub(crate) struct Affine4;

impl Codes for Affine4 {
    const BITS: usize = 4;
}

/// Codes of 8 bits, of which four packed words hold sixteen.
pub(crate) struct Affine8;

impl Codes for Affine8 {
    const BITS: usize = 8;
}

/// An instruction set's way from packed words to weights, `fma(scale, code, bias)`.
///
/// # Safety
/// As [`Lanes`].
pub(crate) unsafe trait Decode<C: Codes>: Lanes {
    /// What one group's scale and bias become before its codes are decoded.
    type Group: Copy;

    /// A scale and a bias in that form.
    unsafe fn group(scale: f32, bias: f32) -> Self::Group;
    /// The lanes from `lane` on of the sixteen weights that the [`Codes::LINE_BYTES`] at `words` are, minus the shift where
    /// `SHIFTED`.
    unsafe fn decode<const SHIFTED: bool>(
        words: *const u8,
        lane: usize,
        shift: Self::Shift,
        group: Self::Group,
    ) -> Self;
}
