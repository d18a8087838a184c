//! Heads of every format, one row and one group as likely as many, with scales and biases that no trained
//! model has; and heads of few but long rows, for what kernels do with these.

use arbitrary::{Arbitrary, Result, Unstructured};

use super::{choose, one_in};
use crate::{
    quant::{FloatType, Format, Layout, MatrixBuf, Tensor},
    random::SplitMix64,
    testing::heads::encode,
};

/// A format: half of the times one with integers of 4 or 8 bits, for which kernels have the most paths, and else any that MLX
/// writes, or one whose codes are floats, of which there are few, and rows that are exceptions among theirs.
///
/// # Errors
/// There are none: where the bytes end, they go on as zeros.
///
/// # Panics
/// It never panics, since MLX has these widths and group sizes.
pub fn format(u: &mut Unstructured<'_>) -> Result<Format> {
    let (bits, group_size) = (choose(u, &[4, 8])?, choose(u, &Format::AFFINE_GROUPS)?);
    Ok(match u.int_in_range(0..=3_u8)? {
        0 | 1 => Format::affine(bits, group_size).expect("MLX has it"),
        2 => choose(u, &Format::all().collect::<Vec<_>>())?,
        _ => choose(u, &Format::all().filter(|format| format.codes().are_floats()).collect::<Vec<_>>())?,
    })
}

/// Packed words at which borrowing and wrapping begin.
pub const WORDS: [u32; 10] =
    [0, 1, 0xf, 0x10, 0x7fff_ffff, 0x8000_0000, 0x8000_0001, 0xffff_fff0, u32::MAX - 1, u32::MAX];

/// A packed word, an edge half of the times.
///
/// # Errors
/// There are none: where the bytes end, they go on as zeros.
pub(crate) fn word(u: &mut Unstructured<'_>) -> Result<u32> {
    if one_in(u, 2)? { u.arbitrary() } else { choose(u, &WORDS) }
}

/// A layout of 1 to 70 rows (a kernel's block of work is 32) and 1 to 3 groups.
///
/// # Errors
/// As [`format()`].
///
/// # Panics
/// It never panics, since the sizes are those of a layout.
pub fn layout(u: &mut Unstructured<'_>) -> Result<Layout> {
    let rows = match u.int_in_range(0..=5_u8)? {
        0..=2 => 1,
        3 | 4 => u.int_in_range(2..=24)?,
        _ => u.int_in_range(25..=70)?,
    };
    let groups = if one_in(u, 2)? { u.int_in_range(2..=3)? } else { 1 };
    let format = format(u)?;
    let group_size = format.group_size();
    let scale_type = choose(u, format.scale_types())?;
    Ok(Layout::new(rows, groups * group_size, format, scale_type).expect("a layout"))
}

/// Columns near which a kernel takes another path: what a panel holds (640) and its double, rows of 1 KiB of codes of 8 bits
/// (1024) and of 4 bits (2048), and some fewer and some more.
const COLUMNS: [usize; 6] = [640, 1024, 1280, 384, 2048, 2304];

/// A layout of long rows: 1 to 9 of them, or near 32 or 64 (a kernel's block of work, and a stream's), a few of them near 512,
/// where one thread has blocks of 64; as many columns as one of `COLUMNS`, or a group fewer or more.
///
/// # Errors
/// As [`format()`].
///
/// # Panics
/// It never panics, since the sizes are those of a layout.
pub(crate) fn long_layout(u: &mut Unstructured<'_>) -> Result<Layout> {
    let format = format(u)?;
    let group_size = format.group_size();
    let scale_type = choose(u, format.scale_types())?;
    let groups = (choose(u, &COLUMNS)? / group_size).saturating_add_signed(choose(u, &[0, 0, -1, 1])?);
    let rows = match u.int_in_range(0..=15_u8)? {
        0..=5 => u.int_in_range(1..=9)?,
        6..=10 => u.int_in_range(30..=37)?,
        11..=14 => u.int_in_range(62..=69)?,
        _ => u.int_in_range(511..=517)?,
    };
    Ok(Layout::new(rows, groups * group_size, format, scale_type).expect("a layout"))
}

/// Bits of a float of `float_type` that arithmetic treats in its own way: zeros, the smallest subnormal numbers,
/// the largest finite ones, infinities, NaN.
fn special(float_type: FloatType, which: usize) -> Vec<u8> {
    let (infinity, sign): (u32, u32) = match float_type {
        FloatType::F16 => (0x7c00, 0x8000),
        FloatType::Bf16 => (0x7f80, 0x8000),
        FloatType::F32 => (0x7f80_0000, 0x8000_0000),
        FloatType::E8m0 => return vec![[0, 1, 246, 247, 248, 253, 254, 255, 255, 128][which]],
        FloatType::E4m3 => return vec![[0, 0x80, 1, 0x81, 0x7e, 0xfe, 0x7f, 0xff, 8, 7][which]],
    };
    let positive = [0, 1, infinity - 1, infinity, infinity + 1][which / 2];
    let bits = if which.is_multiple_of(2) { positive } else { positive | sign };
    bits.to_le_bytes()[..float_type.size()].to_vec()
}

/// A scale or bias: the size that trained ones have, of either sign.
fn ordinary(random: &mut SplitMix64) -> f32 {
    (random.unit() - 0.5) * 0.2
}

impl<'a> Arbitrary<'a> for MatrixBuf {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let layout = layout(u)?;
        filled(u, layout)
    }
}

/// A head of such a layout.
///
/// # Errors
/// As [`format()`].
///
/// # Panics
/// Never: a head has the tensors of its format.
pub fn filled(u: &mut Unstructured<'_>, layout: Layout) -> Result<MatrixBuf> {
    let fill = choose(u, &[Some(0), Some(0xff), None, None, None])?;
    // Scales and biases: zeros, of the usual size, of the usual size with special ones among them, any bits.
    let numbers = u.int_in_range(0..=3_u8)?;
    let seed = if fill.is_none() || numbers > 0 { u.arbitrary()? } else { 0 };
    let mut head = MatrixBuf::random(layout, seed);
    let (mut random, scale_type) = (SplitMix64(seed), layout.scale_type());
    for &tensor in layout.format().tensors() {
        let part = head.part_mut(tensor).expect("the format has it");
        if tensor == Tensor::Weight {
            fill.into_iter().for_each(|byte| part.fill(byte));
            // Of random codes some are NaN in nearly every row, and nothing else of such a row would be seen.
            if layout.format() == Format::MXFP8 && random.next_u64().is_multiple_of(2) {
                part.iter_mut().filter(|code| **code & 0x7f == 0x7f).for_each(|code| *code ^= 1);
            }
            continue;
        }
        for number in part.chunks_exact_mut(scale_type.size()) {
            match numbers {
                0 => number.fill(0),
                2 if random.next_u64().is_multiple_of(4) => {
                    number.copy_from_slice(&special(scale_type, (random.next_u64() % 10) as usize));
                }
                1 | 2 => number.copy_from_slice(&encode(scale_type, ordinary(&mut random))),
                _ => {}
            }
        }
    }
    Ok(head)
}
