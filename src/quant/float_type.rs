//! The types of the floats that checkpoints store.

/// Element type of `scales` and `biases`, and of unquantized tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FloatType {
    /// IEEE 754 binary16.
    F16,
    /// bfloat16: the upper half of an IEEE 754 binary32.
    Bf16,
    /// IEEE 754 binary32.
    F32,
}

impl FloatType {
    /// Bytes of one element.
    #[inline]
    pub const fn size(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
        }
    }

    /// Element `i` of little-endian `data`, widened exactly.
    ///
    /// # Panics
    /// If `data` has fewer than `i + 1` elements.
    #[inline]
    pub fn get(self, data: &[u8], i: usize) -> f32 {
        match self {
            Self::F16 => half::f16::from_le_bytes([data[2 * i], data[2 * i + 1]]).to_f32(),
            Self::Bf16 => half::bf16::from_le_bytes([data[2 * i], data[2 * i + 1]]).to_f32(),
            Self::F32 => f32::from_le_bytes([data[4 * i], data[4 * i + 1], data[4 * i + 2], data[4 * i + 3]]),
        }
    }
}
