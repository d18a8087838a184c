//! What a format is, and the only file that knows where the bits of a code lie.
//!
//! The codes of a row are one little-endian stream of bits: code `c` of a row of `b`-bit codes is the bits `c * b ..
//! (c + 1) * b` of the row, where bit `i` is bit `i % 32` of packed word `i / 32`, counted from the least significant
//! (`mlx.core.quantize`). With 2, 4 and 8 bits a word holds whole codes; with 3, 5 and 6 bits some codes begin in one
//! word and end in the next. [`Width`] reads and writes all of them in one way.

use std::{fmt, ops::Range, str::FromStr};

use super::float_type::{self, FloatType};

/// Bits of a packed word.
const WORD: usize = 32;

/// Bits of one code, 1 to 8, and with them the place of each code in its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Width(u8);

impl Width {
    /// Bits of the narrowest codes. No format has them; the arithmetic holds for them all the same.
    pub(crate) const MIN: usize = 1;
    /// Bits of the widest codes. A code is at most a byte wide, so it lies in one byte or in two.
    pub(crate) const MAX: usize = 8;

    /// The width of codes of so many bits; `None` where they are not 1 to 8.
    pub const fn new(bits: usize) -> Option<Self> {
        match bits {
            Self::MIN..=Self::MAX => Some(Self(bits as u8)),
            _ => None,
        }
    }

    /// Bits of one code.
    #[inline]
    pub const fn bits(self) -> usize {
        self.0 as usize
    }

    /// The largest code, which is also the mask of one code.
    #[inline]
    pub(crate) const fn mask(self) -> u32 {
        (1 << self.0) - 1
    }

    /// The first bit of the code at `column`, counted from the first of the row.
    #[inline]
    const fn first_bit(self, column: usize) -> usize {
        column * self.bits()
    }

    /// Packed words that so many codes fill, the last one perhaps in part.
    #[inline]
    pub const fn words(self, codes: usize) -> usize {
        (codes * self.bits()).div_ceil(WORD)
    }

    /// The word of a row in which bit `bit` of the code at `column` lies.
    #[inline]
    pub(crate) const fn word_of(self, column: usize, bit: usize) -> usize {
        (self.first_bit(column) + bit) / WORD
    }

    /// The bytes of a row, one or two, in which the code at `column` lies.
    #[inline]
    pub(crate) const fn bytes_of(self, column: usize) -> Range<usize> {
        let first = self.first_bit(column);
        first / 8..(first + self.bits()).div_ceil(8)
    }

    /// The columns of a row whose codes lie in its bytes `bytes`, those included that lie there in part.
    #[inline]
    pub(crate) const fn columns_in(self, bytes: Range<usize>) -> Range<usize> {
        8 * bytes.start / self.bits()..(8 * bytes.end).div_ceil(self.bits())
    }

    /// The code at `column` of a row whose packed words `word` gives by their place in the row. The next word is asked
    /// for only where the code ends in it.
    #[inline]
    pub(crate) fn code(self, column: usize, word: impl Fn(usize) -> u32) -> u32 {
        let first = self.first_bit(column);
        let (at, bit) = (first / WORD, first % WORD);
        let low = word(at) >> bit;
        let code = if bit + self.bits() > WORD { low | word(at + 1) << (WORD - bit) } else { low };
        code & self.mask()
    }

    /// Replaces the code at `column` of a row of little-endian words by the low bits of `value`.
    ///
    /// # Panics
    /// If the row ends before the code does.
    #[inline]
    pub(crate) fn set_code(self, row: &mut [u8], column: usize, value: u32) {
        let bit = self.first_bit(column) % 8;
        let bytes = &mut row[self.bytes_of(column)];
        let mut both = [0; 2];
        both[..bytes.len()].copy_from_slice(bytes);
        let others = u32::from(u16::from_le_bytes(both)) & !(self.mask() << bit);
        let both = (others | (value & self.mask()) << bit) as u16;
        bytes.copy_from_slice(&both.to_le_bytes()[..bytes.len()]);
    }

    /// All whole codes in little-endian words, in the order of their columns.
    ///
    /// # Panics
    /// Where `words` are not whole words.
    #[inline]
    pub(crate) fn unpack(self, words: &[u8]) -> impl ExactSizeIterator<Item = u32> {
        let (words, rest) = words.as_chunks::<4>();
        assert!(rest.is_empty(), "{} bytes behind whole words", rest.len());
        (0..WORD * words.len() / self.bits()).map(move |c| self.code(c, |word| u32::from_le_bytes(words[word])))
    }

    /// Codes into little-endian words, of each code the low bits. What the last word has no code for is 0.
    #[cfg(feature = "testing")]
    pub(crate) fn pack(self, codes: &[u32]) -> Vec<u8> {
        let mut words = vec![0; WORD / 8 * self.words(codes.len())];
        codes.iter().enumerate().for_each(|(column, &code)| self.set_code(&mut words, column, code));
        words
    }
}

/// One of the arrays of a quantized matrix.
#[cfg_attr(feature = "testing", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tensor {
    /// The packed codes.
    #[default]
    Weight,
    /// One factor a group.
    Scales,
    /// One offset a group. Not every format has them.
    Biases,
}

impl Tensor {
    /// `weight`, `scales` or `biases`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Weight => "weight",
            Self::Scales => "scales",
            Self::Biases => "biases",
        }
    }
}

/// What a code stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codes {
    /// An unsigned integer of this width, which is multiplied by its group's scale and added to its group's bias: MLX's
    /// mode `affine`.
    Affine(Width),
    /// A float of a sign, two bits of exponent and one of fraction: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives, -0
    /// included. There is no infinity and no NaN.
    E2m1,
    /// A float of 8 bits, [`FloatType::E4m3`].
    E4m3,
}

impl Codes {
    /// Width of a code.
    #[inline]
    pub const fn width(self) -> Width {
        match self {
            Self::Affine(width) => width,
            Self::E2m1 => Width(4),
            Self::E4m3 => Width(8),
        }
    }

    /// Whether a code is a float, so that its weight is `scale * value`, and not an integer, whose weight is
    /// `scale * value + bias`.
    #[inline]
    pub(crate) const fn are_floats(self) -> bool {
        matches!(self, Self::E2m1 | Self::E4m3)
    }

    /// What `code` stands for, exactly; of it the low bits count.
    #[inline]
    pub fn value(self, code: u32) -> f32 {
        match self {
            Self::Affine(width) => (code & width.mask()) as f32,
            Self::E2m1 => {
                let magnitude = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0][(code & 7) as usize];
                if code & 8 == 0 { magnitude } else { -magnitude }
            }
            Self::E4m3 => float_type::e4m3(code as u8),
        }
    }
}

/// How the weights of a matrix are stored. The type of its scales is chosen with the matrix, among
/// [`scale_types`](Self::scale_types), and is part of its [`Layout`](super::Layout).
///
/// A format has a name, which it is printed as and parsed from:
///
/// ```
/// use lm_headroom::quant::Format;
///
/// let format: Format = "affine-4-g64".parse()?;
/// assert_eq!(format, Format::affine(4, 64)?);
/// assert_eq!(format.to_string(), "affine-4-g64");
/// assert_eq!("mxfp4".parse(), Ok(Format::MXFP4));
/// # Ok::<_, lm_headroom::quant::FormatError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Format {
    codes: Codes,
    group_size: usize,
}

/// Why there is no such format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// MLX's affine mode has codes of 2, 3, 4, 5, 6 and 8 bits.
    #[error("{0} bits are not a width of codes that MLX has (2, 3, 4, 5, 6 or 8)")]
    Bits(usize),
    /// MLX's affine mode has groups of 32, 64 and 128 columns.
    #[error("group_size {0} is not one that MLX has (32, 64 or 128)")]
    GroupSize(usize),
    /// A text that is not the name of a format.
    #[error(
        "{0:?} is not the name of a format; one is affine-BITS-gGROUP, such as affine-4-g64, mxfp4, mxfp8 or nvfp4"
    )]
    Name(String),
}

impl Format {
    /// MLX's mode `mxfp4`: floats of 4 bits in groups of 32, whose scales are powers of two.
    pub const MXFP4: Self = Self { codes: Codes::E2m1, group_size: 32 };
    /// MLX's mode `mxfp8`: floats of 8 bits in groups of 32, whose scales are powers of two.
    pub const MXFP8: Self = Self { codes: Codes::E4m3, group_size: 32 };
    /// MLX's mode `nvfp4`: floats of 4 bits in groups of 16, whose scales are floats of 8 bits.
    pub const NVFP4: Self = Self { codes: Codes::E2m1, group_size: 16 };
    /// The formats whose codes are floats, which have a name without numbers of its own: MLX's mode.
    const FLOATS: [(&str, Self); 3] = [("mxfp4", Self::MXFP4), ("mxfp8", Self::MXFP8), ("nvfp4", Self::NVFP4)];
    /// Widths of the codes of MLX's mode `affine`.
    pub(crate) const AFFINE_BITS: [usize; 6] = [2, 3, 4, 5, 6, 8];
    /// Group sizes of MLX's mode `affine`.
    pub(crate) const AFFINE_GROUPS: [usize; 3] = [32, 64, 128];

    /// MLX's mode `affine`: codes of `bits` bits, and one scale and one bias for every `group_size` columns.
    ///
    /// # Errors
    /// [`FormatError::Bits`], then [`FormatError::GroupSize`].
    pub const fn affine(bits: usize, group_size: usize) -> Result<Self, FormatError> {
        let width = match (bits, Width::new(bits)) {
            (2 | 3 | 4 | 5 | 6 | 8, Some(width)) => width,
            _ => return Err(FormatError::Bits(bits)),
        };
        match group_size {
            32 | 64 | 128 => Ok(Self { codes: Codes::Affine(width), group_size }),
            _ => Err(FormatError::GroupSize(group_size)),
        }
    }

    /// The format of one of MLX's modes other than `affine`: `mxfp4`, `mxfp8` or `nvfp4`.
    pub fn of_mode(mode: &str) -> Option<Self> {
        Self::FLOATS.into_iter().find(|&(name, _)| name == mode).map(|(_, format)| format)
    }

    /// All formats that MLX writes.
    pub fn all() -> impl Iterator<Item = Self> {
        let affine = |bits| Self::AFFINE_GROUPS.map(|group_size| Self::affine(bits, group_size).expect("MLX has it"));
        Self::AFFINE_BITS.into_iter().flat_map(affine).chain(Self::FLOATS.map(|(_, format)| format))
    }

    /// MLX's name of what codes stand for: `affine`, or the format's own name.
    pub fn mode(self) -> &'static str {
        Self::FLOATS.into_iter().find(|&(_, format)| format == self).map_or("affine", |(name, _)| name)
    }

    /// What a code stands for.
    #[inline]
    pub const fn codes(self) -> Codes {
        self.codes
    }
    /// Width of a code, and so where each lies.
    #[inline]
    pub const fn width(self) -> Width {
        self.codes.width()
    }
    /// Columns that share one scale, and one bias where there are any.
    #[inline]
    pub const fn group_size(self) -> usize {
        self.group_size
    }
    /// Whether each group has a bias: where codes are integers.
    #[inline]
    pub const fn has_biases(self) -> bool {
        !self.codes.are_floats()
    }
    /// Types that scales, and biases where there are any, can have.
    pub const fn scale_types(self) -> &'static [FloatType] {
        match (self.codes, self.group_size) {
            (Codes::Affine(_), _) => &[FloatType::F16, FloatType::Bf16, FloatType::F32],
            (Codes::E2m1, 16) => &[FloatType::E4m3],
            (Codes::E2m1 | Codes::E4m3, _) => &[FloatType::E8m0],
        }
    }
    /// The arrays that a matrix consists of.
    pub const fn tensors(self) -> &'static [Tensor] {
        const ALL: &[Tensor; 3] = &[Tensor::Weight, Tensor::Scales, Tensor::Biases];
        if self.has_biases() { ALL } else { ALL.split_at(2).0 }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.codes {
            Codes::Affine(width) => write!(f, "affine-{}-g{}", width.bits(), self.group_size),
            Codes::E2m1 | Codes::E4m3 => f.pad(self.mode()),
        }
    }
}

impl FromStr for Format {
    type Err = FormatError;

    fn from_str(name: &str) -> Result<Self, FormatError> {
        if let Some(format) = Self::of_mode(name) {
            return Ok(format);
        }
        let wrong = || FormatError::Name(name.to_owned());
        let (bits, group_size) =
            name.strip_prefix("affine-").and_then(|rest| rest.split_once("-g")).ok_or_else(wrong)?;
        let number = |text: &str| text.parse().map_err(|_| wrong());
        let format = Self::affine(number(bits)?, number(group_size)?)?;
        // A number has other texts, such as `+4` and `04`; a name has one.
        if format.to_string() == name { Ok(format) } else { Err(wrong()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn widths() -> impl Iterator<Item = Width> {
        (Width::MIN..=Width::MAX).map(|bits| Width::new(bits).expect("a width"))
    }

    /// Bit `i` of little-endian bytes.
    fn bit(bytes: &[u8], i: usize) -> u32 {
        u32::from(bytes[i / 8] >> (i % 8) & 1)
    }

    #[test]
    fn codes_lie_where_they_do_in_words_written_out_by_hand() {
        // The number whose digits to the base 8 are 0, 1, ..., 7, 0, 1, ..., the first the lowest, in three words.
        let three = Width::new(3).expect("a width");
        let codes: Vec<u32> = (0..32).map(|c| c % 8).collect();
        let words = [0x88fa_c688_u32, 0xc688_fac6, 0xfac6_88fa];
        assert_eq!(three.pack(&codes), words.map(u32::to_le_bytes).concat());
        let four = Width::new(4).expect("a width");
        assert_eq!(four.pack(&[0, 1, 2, 3, 4, 5, 6, 7, 15]), [0x7654_3210_u32, 15].map(u32::to_le_bytes).concat());
        let eight = Width::new(8).expect("a width");
        assert_eq!(eight.pack(&[0x10, 0x32, 0x54, 0x76]), 0x7654_3210_u32.to_le_bytes());
    }

    proptest! {
        #[test]
        fn a_code_is_its_bits_of_the_stream_whatever_its_width(words in prop::collection::vec(any::<u32>(), 0..40)) {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            for width in widths() {
                let bits = width.bits();
                let count = 8 * bytes.len() / bits;
                let expected: Vec<u32> =
                    (0..count).map(|c| (0..bits).map(|b| bit(&bytes, c * bits + b) << b).sum()).collect();
                prop_assert_eq!(width.unpack(&bytes).collect::<Vec<_>>(), &expected[..]);
                let one_by_one: Vec<u32> = (0..count).map(|c| width.code(c, |word| words[word])).collect();
                prop_assert_eq!(one_by_one, &expected[..]);
                // What is left at the end, less than a code, is not packed again.
                let mut kept = bytes.clone();
                for i in count * bits..8 * bytes.len() {
                    kept[i / 8] &= !(1 << (i % 8));
                }
                let packed = width.pack(&expected);
                prop_assert_eq!(packed.len(), 4 * width.words(count));
                prop_assert_eq!(&packed[..], &kept[..packed.len()]);
                prop_assert!(kept[packed.len()..].iter().all(|&byte| byte == 0));
            }
        }

        #[test]
        fn writing_a_code_changes_its_bits_and_no_other(
            words in prop::collection::vec(any::<u32>(), 1..20), column in any::<usize>(), value in any::<u32>(),
        ) {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            for width in widths() {
                let bits = width.bits();
                let column = column % (8 * bytes.len() / bits);
                let own = column * bits..(column + 1) * bits;
                let mut written = bytes.clone();
                width.set_code(&mut written, column, value);
                for i in 0..8 * bytes.len() {
                    let expected = if own.contains(&i) { value >> (i - own.start) & 1 } else { bit(&bytes, i) };
                    prop_assert_eq!(bit(&written, i), expected, "bit {} of {} bits at {}", i, bits, column);
                }
            }
        }

        #[test]
        fn words_bytes_and_columns_are_those_that_share_a_bit(column in 0..200_usize, start in 0..99_usize, len in 1..70_usize) {
            for width in widths() {
                let bits = width.bits();
                let of = |column: usize| column * bits..(column + 1) * bits;
                for bit in 0..bits {
                    prop_assert_eq!(width.word_of(column, bit), of(column).nth(bit).expect("a bit") / 32);
                }
                let bytes: std::collections::BTreeSet<usize> = of(column).map(|bit| bit / 8).collect();
                prop_assert!(bytes.into_iter().eq(width.bytes_of(column)));
                let within = |column: &usize| of(*column).any(|bit| (start..start + len).contains(&(bit / 8)));
                let columns: Vec<usize> = (0..8 * 200).filter(within).collect();
                prop_assert!(columns.into_iter().eq(width.columns_in(start..start + len)));
                prop_assert_eq!(width.words(column), of(column).start.div_ceil(32));
            }
        }
    }

    #[test]
    fn widths_are_1_to_8_and_only_some_cross_words() {
        assert_eq!([0, 9, usize::MAX].map(Width::new), [None; 3]);
        let crosses = |width: &Width| (0..32).any(|c| width.word_of(c, 0) != width.word_of(c, width.bits() - 1));
        assert_eq!(widths().filter(crosses).map(Width::bits).collect::<Vec<_>>(), [3, 5, 6, 7]);
        assert_eq!(widths().map(Width::mask).collect::<Vec<_>>(), [1, 3, 7, 15, 31, 63, 127, 255]);
    }

    #[test]
    fn a_format_is_printed_as_its_name_and_parsed_from_it() {
        for bits in [2, 3, 4, 5, 6, 8] {
            for group_size in [32, 64, 128] {
                let format = Format::affine(bits, group_size).expect("a format");
                assert_eq!(format.to_string(), format!("affine-{bits}-g{group_size}"));
                assert_eq!((format.mode(), Format::of_mode("affine")), ("affine", None));
            }
        }
        assert_eq!([Format::MXFP4, Format::MXFP8, Format::NVFP4].map(|f| f.to_string()), ["mxfp4", "mxfp8", "nvfp4"]);
        let mut names = std::collections::BTreeSet::new();
        for format in Format::all() {
            assert_eq!(format.to_string().parse(), Ok(format));
            assert!(names.insert(format.to_string()), "{format}");
            assert_eq!(format.mode() == "affine", format.has_biases());
        }
        assert_eq!(names.len(), 21);
        for name in ["", "affine", "affine-4", "affine-4-64", "affine-+4-g64", "affine-04-g64", "Affine-4-g64", "mxfp5"]
        {
            assert_eq!(name.parse::<Format>(), Err(FormatError::Name(name.to_owned())));
        }
    }

    #[test]
    fn what_mlx_does_not_have_is_an_error() {
        for bits in [0, 1, 7, 9, 16, 1 << 40] {
            assert_eq!(Format::affine(bits, 7), Err(FormatError::Bits(bits)), "before the group size");
        }
        for group_size in [0, 16, 33, 256] {
            assert_eq!(Format::affine(4, group_size), Err(FormatError::GroupSize(group_size)));
        }
        assert_eq!("affine-7-g64".parse::<Format>(), Err(FormatError::Bits(7)));
    }

    #[test]
    fn a_format_whose_codes_are_floats_consists_of_two_tensors() {
        let format = Format::affine(4, 64).expect("a format");
        assert_eq!(format.tensors(), [Tensor::Weight, Tensor::Scales, Tensor::Biases]);
        assert_eq!(Format::MXFP4.tensors(), [Tensor::Weight, Tensor::Scales]);
        assert_eq!(Format::MXFP8.scale_types(), [FloatType::E8m0]);
        assert_eq!(Format::NVFP4.scale_types(), [FloatType::E4m3]);
    }

    /// A float of `exponent` and `fraction` bits with a sign, from its bits, as IEEE 754 would read it if it had neither
    /// infinities nor NaN.
    fn float(code: u32, exponent: u32, fraction: u32) -> f64 {
        let (bias, e) = ((1 << (exponent - 1)) - 1, code >> fraction & ((1 << exponent) - 1));
        let f = f64::from(code & ((1 << fraction) - 1)) / f64::from(1 << fraction);
        let magnitude = if e == 0 { f * 2_f64.powi(1 - bias) } else { (1.0 + f) * 2_f64.powi(e as i32 - bias) };
        if code >> (exponent + fraction) & 1 == 1 { -magnitude } else { magnitude }
    }

    #[test]
    fn a_code_that_is_a_float_has_the_value_of_its_fields() {
        for code in 0..16 {
            assert_eq!(f64::from(Codes::E2m1.value(code)).to_bits(), float(code, 2, 1).to_bits(), "{code}");
            assert_eq!(Codes::E2m1.value(code).to_bits(), Codes::E2m1.value(code | 0xf0).to_bits(), "low bits count");
        }
        for code in 0..256 {
            let value = Codes::E4m3.value(code);
            match code & 0x7f {
                0x7f => assert!(value.is_nan(), "{code}"),
                _ => assert_eq!(f64::from(value).to_bits(), float(code, 4, 3).to_bits(), "{code}"),
            }
        }
        assert_eq!([0x7e, 0xfe, 0x01].map(|code| Codes::E4m3.value(code)), [448.0, -448.0, 1.0 / 512.0]);
        assert_eq!(Codes::Affine(Width(5)).value(0xff), 31.0);
    }
}
