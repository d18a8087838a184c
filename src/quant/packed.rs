//! Codes in words: the only file that knows the nibble order.
//!
//! MLX packs the codes of one row into little-endian `u32` words, least significant code first:
//! with 4 bits, column `c` is bits `4 * (c % 8) ..` of word `c / 8`; with 8 bits, bits
//! `8 * (c % 4) ..` of word `c / 4`. (`mlx.core.quantize`, affine mode.)

/// Width of one code. MLX also has 2, 3, 5 and 6 bits; a checkpoint that uses them is refused by
/// name when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bits {
    /// Eight codes a word, values 0 to 15.
    Four,
    /// Four codes a word, values 0 to 255.
    Eight,
}

impl Bits {
    /// The width of `bits`, or `None` where it is not supported.
    pub fn new(bits: u64) -> Option<Self> {
        match bits {
            4 => Some(Self::Four),
            8 => Some(Self::Eight),
            _ => None,
        }
    }

    /// Bits of one code: 4 or 8.
    #[inline]
    pub const fn get(self) -> usize {
        match self {
            Self::Four => 4,
            Self::Eight => 8,
        }
    }

    /// Codes in one packed word: 8 or 4.
    #[inline]
    pub const fn per_word(self) -> usize {
        32 / self.get()
    }

    /// Largest code: 15 or 255; also the mask of one code.
    #[inline]
    pub const fn mask(self) -> u32 {
        (1 << self.get()) - 1
    }
}

/// Code `i` of a packed word, `i < bits.per_word()`.
#[inline]
pub const fn code(word: u32, i: usize, bits: Bits) -> u32 {
    (word >> (i * bits.get())) & bits.mask()
}

/// `word` with code `i` replaced by `value`, of which only the low bits count.
#[inline]
pub const fn with_code(word: u32, i: usize, value: u32, bits: Bits) -> u32 {
    let at = i * bits.get();
    (word & !(bits.mask() << at)) | ((value & bits.mask()) << at)
}

/// All codes of `words`, in column order.
pub fn unpack(words: &[u32], bits: Bits) -> Vec<u32> {
    words.iter().flat_map(|&word| (0..bits.per_word()).map(move |i| code(word, i, bits))).collect()
}

/// Codes into words, the inverse of [`unpack`]. The last word is padded with zero codes.
pub fn pack(codes: &[u32], bits: Bits) -> Vec<u32> {
    codes
        .chunks(bits.per_word())
        .map(|chunk| chunk.iter().enumerate().fold(0, |word, (i, &value)| with_code(word, i, value, bits)))
        .collect()
}
