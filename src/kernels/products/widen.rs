//! 16-bit floats to `f32`, exactly, in plain Rust.

use crate::quant::{FloatType, float_type};

/// IEEE binary16 to binary32, exactly, without a branch or a table: the bits are moved into place and
/// the exponent's bias corrected by an exact product; infinities and NaN are set apart. Written out so
/// that the compiler turns a loop of it into vector code for whatever instruction set it is inlined in.
#[inline(always)]
fn f16_to_f32(bits: u16) -> f32 {
    let magnitude = u32::from(bits & 0x7fff) << 13;
    // 2^112: the difference of the exponents' biases, 127 - 15.
    let scaled = f32::from_bits(magnitude) * f32::from_bits((127 + 112) << 23);
    let finite = if magnitude >= 0x7c00 << 13 { scaled.to_bits() | 0x7f80_0000 } else { scaled.to_bits() };
    f32::from_bits(finite | (u32::from(bits & 0x8000) << 16))
}

/// Widens as many numbers as both have.
#[inline(always)]
pub(crate) fn widen_into(float_type: FloatType, from: &[u8], to: &mut [f32]) {
    match float_type {
        FloatType::F16 => {
            for (to, from) in to.iter_mut().zip(from.chunks_exact(2)) {
                *to = f16_to_f32(u16::from_le_bytes([from[0], from[1]]));
            }
        }
        FloatType::Bf16 => {
            for (to, from) in to.iter_mut().zip(from.chunks_exact(2)) {
                *to = f32::from_bits(u32::from(u16::from_le_bytes([from[0], from[1]])) << 16);
            }
        }
        FloatType::F32 => {
            for (to, from) in to.iter_mut().zip(from.chunks_exact(4)) {
                *to = f32::from_le_bytes([from[0], from[1], from[2], from[3]]);
            }
        }
        FloatType::E8m0 => {
            for (to, &from) in to.iter_mut().zip(from) {
                *to = float_type::e8m0(from);
            }
        }
        FloatType::E4m3 => {
            for (to, &from) in to.iter_mut().zip(from) {
                *to = float_type::e4m3(from);
            }
        }
    }
}
