//! The types of the floats that checkpoints store.

/// Element type of `scales` and `biases`, and of unquantized tensors. Only scales are of the types of 8 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FloatType {
    /// IEEE 754 binary16.
    F16,
    /// bfloat16: the upper half of an IEEE 754 binary32.
    Bf16,
    /// IEEE 754 binary32.
    F32,
    /// A power of two by its exponent: byte `e` is 2^(e - 127), but 255 is infinite, as MLX reads it (OCP's Microscaling
    /// Formats give it to NaN).
    E8m0,
    /// A sign, four bits of exponent with a bias of 7, three of fraction; subnormal numbers, no infinity, and NaN where all
    /// other bits are 1. The largest number is 448.
    E4m3,
}

impl FloatType {
    /// `float16`, `bfloat16`, `float32`, `e8m0` or `e4m3`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
            Self::F32 => "float32",
            Self::E8m0 => "e8m0",
            Self::E4m3 => "e4m3",
        }
    }

    /// Bytes of one element.
    #[inline]
    pub const fn size(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::E8m0 | Self::E4m3 => 1,
        }
    }

    /// Bits of one element.
    #[inline]
    pub(crate) const fn bits(self) -> usize {
        8 * self.size()
    }

    /// Element `i` of little-endian `data`, widened exactly.
    ///
    /// # Panics
    /// If `data` has fewer than `i + 1` elements.
    #[inline]
    pub(crate) fn get(self, data: &[u8], i: usize) -> f32 {
        match self {
            Self::F16 => half::f16::from_le_bytes([data[2 * i], data[2 * i + 1]]).to_f32(),
            Self::Bf16 => half::bf16::from_le_bytes([data[2 * i], data[2 * i + 1]]).to_f32(),
            Self::F32 => f32::from_le_bytes([data[4 * i], data[4 * i + 1], data[4 * i + 2], data[4 * i + 3]]),
            Self::E8m0 => e8m0(data[i]),
            Self::E4m3 => e4m3(data[i]),
        }
    }
}

/// [`FloatType::E8m0`], widened exactly: the byte is the exponent of a binary32, whose smallest normal number is 2^-126.
#[inline(always)]
pub(crate) const fn e8m0(byte: u8) -> f32 {
    let half_of_the_smallest = 1 << 22;
    f32::from_bits(if byte == 0 { half_of_the_smallest } else { (byte as u32) << 23 })
}

/// [`FloatType::E4m3`], widened exactly, without a branch, so that the compiler turns a loop of it into vector code. Of a normal
/// number the bits are moved into place and the exponent's bias is corrected; a subnormal one is its fraction times 2^-9. No
/// operation has a subnormal binary32 in it, which would take an Intel processor a hundred cycles, and scales of real heads are
/// subnormal here.
#[inline(always)]
pub(crate) fn e4m3(byte: u8) -> f32 {
    let magnitude = u32::from(byte & 0x7f);
    // The difference of the exponents' biases, 127 - 7.
    let normal = (magnitude << 20) + (120 << 23);
    let subnormal = (magnitude as i32 as f32 * f32::from_bits((127 - 9) << 23)).to_bits();
    let finite = if magnitude < 8 { subnormal } else { normal };
    let bits = if magnitude == 0x7f { 0x7fc0_0000 } else { finite };
    f32::from_bits(bits | u32::from(byte & 0x80) << 24)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_of_two_is_its_exponent() {
        let bytes: Vec<u8> = (0..=255).collect();
        for byte in 0..255 {
            let expected = 2_f64.powi(byte - 127);
            assert_eq!(f64::from(FloatType::E8m0.get(&bytes, byte as usize)), expected, "{byte}");
        }
        assert_eq!(FloatType::E8m0.get(&bytes, 255), f32::INFINITY);
    }
}
