//! What the codes of a matrix are, as a type, so that each loop is compiled for each kind.

use super::lanes::{LANES, Lanes};
use crate::quant::Layout;

/// Codes of one kind, as packed words hold them.
pub(crate) trait Codes {
    /// Bits of one.
    const BITS: usize;
    /// Bytes of sixteen columns.
    const LINE_BYTES: usize = LANES * Self::BITS / 8;
    /// Lines of sixteen columns in a turn of a loop over a group, all of which have a multiple of that.
    const TURN: usize = 2;
    /// Whether loops are compiled that are fast for two to five vectors and under a shift, too: those that multiply several vectors
    /// by weights straight from the registers that decoding leaves them in, and those that subtract a shift there. All other codes
    /// are decoded into a panel for more than one vector, and shifted words are copied first, which lets the kernels of all formats
    /// be a third of the code.
    const COMMON: bool = false;
    /// Columns of a group, 0 where there are several sizes.
    const GROUP: usize = 0;
    /// Whether some rows are not the product of what [`Decode`] gives; see `exceptions.rs`.
    const EXCEPTIONS: bool = false;
}

/// Integers of 2 bits, of which a packed word holds sixteen.
pub(crate) struct Affine2;

impl Codes for Affine2 {
    const BITS: usize = 2;
}

/// Integers of 3 bits, of which six bytes hold sixteen. Some of them begin in one byte, or word, and end in the next.
pub(crate) struct Affine3;

impl Codes for Affine3 {
    const BITS: usize = 3;
}

/// Integers of 4 bits, of which two packed words hold sixteen.
pub(crate) struct Affine4;

impl Codes for Affine4 {
    const BITS: usize = 4;
    const COMMON: bool = true;
}

/// Integers of 5 bits, of which ten bytes hold sixteen.
pub(crate) struct Affine5;

impl Codes for Affine5 {
    const BITS: usize = 5;
}

/// Integers of 6 bits, of which three packed words hold sixteen.
pub(crate) struct Affine6;

impl Codes for Affine6 {
    const BITS: usize = 6;
}

/// Integers of 8 bits, of which four packed words hold sixteen.
pub(crate) struct Affine8;

impl Codes for Affine8 {
    const BITS: usize = 8;
    const COMMON: bool = true;
}

/// Floats of 4 bits in groups of 32 (`mxfp4`) or of 16 (`nvfp4`).
pub(crate) struct E2m1<const GROUP: usize>;

impl<const GROUP: usize> Codes for E2m1<GROUP> {
    const BITS: usize = 4;
    const TURN: usize = GROUP / LANES;
    const GROUP: usize = GROUP;
}

/// Floats of 8 bits in groups of 32.
pub(crate) struct Mxfp8;

impl Codes for Mxfp8 {
    const BITS: usize = 8;
    const GROUP: usize = 32;
    const EXCEPTIONS: bool = true;
}

/// An instruction set's way from packed words to weights: `fma(scale, code, bias)`, or `scale * value(code)` where codes are
/// floats, of which nothing reads the bias.
///
/// # Safety
/// As [`Lanes`].
pub(crate) unsafe trait Decode<C: Codes>: Lanes {
    /// What one group's scale and bias become before its codes are decoded.
    type Group: Copy;

    /// A scale and a bias in that form.
    unsafe fn group(scale: f32, bias: f32) -> Self::Group;
    /// The lanes from `lane` on of the sixteen weights that the [`Codes::LINE_BYTES`] at `words` are, minus the shift where
    /// `SHIFTED`, which only [`Codes::COMMON`] codes are asked for.
    unsafe fn decode<const SHIFTED: bool>(
        words: *const u8,
        lane: usize,
        shift: Self::Shift,
        group: Self::Group,
    ) -> Self;
}

/// Codes of all kinds.
///
/// # Safety
/// As [`Decode`].
pub(crate) unsafe trait DecodeAll:
    Decode<Affine2>
    + Decode<Affine3>
    + Decode<Affine4>
    + Decode<Affine5>
    + Decode<Affine6>
    + Decode<Affine8>
    + Decode<E2m1<32>>
    + Decode<E2m1<16>>
    + Decode<Mxfp8>
{
}

// SAFETY: nothing is promised beyond what the traits before it are.
unsafe impl<L> DecodeAll for L where
    L: Decode<Affine2>
        + Decode<Affine3>
        + Decode<Affine4>
        + Decode<Affine5>
        + Decode<Affine6>
        + Decode<Affine8>
        + Decode<E2m1<32>>
        + Decode<E2m1<16>>
        + Decode<Mxfp8>
{
}

/// Calls a function, generic over the kind of codes and the instruction set, for the codes of a matrix that are not
/// [`Codes::COMMON`]. (A closure would be a function without the instruction set's features.)
///
/// # Panics
/// If they are common.
macro_rules! for_uncommon_codes {
    ($matrix:expr, $function:ident::<$lanes:ty>($($argument:expr),*)) => {{
        use crate::{kernels::products::codes, quant::Codes};
        let layout = $matrix.layout();
        match (layout.format().codes(), layout.bits(), layout.group_size()) {
            (Codes::Affine(_), 2, _) => $function::<codes::Affine2, $lanes, false>($($argument),*),
            (Codes::Affine(_), 3, _) => $function::<codes::Affine3, $lanes, false>($($argument),*),
            (Codes::Affine(_), 5, _) => $function::<codes::Affine5, $lanes, false>($($argument),*),
            (Codes::Affine(_), 6, _) => $function::<codes::Affine6, $lanes, false>($($argument),*),
            (Codes::E2m1, _, 16) => $function::<codes::E2m1<16>, $lanes, false>($($argument),*),
            (Codes::E2m1, ..) => $function::<codes::E2m1<32>, $lanes, false>($($argument),*),
            (Codes::E4m3, ..) => $function::<codes::Mxfp8, $lanes, false>($($argument),*),
            (Codes::Affine(_), bits, _) => unreachable!("{bits} bits are common, or no format has them"),
        }
    }};
}
pub(crate) use for_uncommon_codes;

/// Whether a matrix has [`Codes::COMMON`] codes: integers of 4 or of 8 bits.
pub(crate) const fn common(layout: &Layout) -> bool {
    layout.format().has_biases() && matches!(layout.bits(), 4 | 8)
}
