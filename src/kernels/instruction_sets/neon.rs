//! NEON (AArch64): the sixteen lanes in four registers of four columns.

use std::arch::aarch64::*;

use crate::{
    kernels::products::{
        block::{Block, Parts, TILE_ROWS},
        codes::{Affine2, Affine3, Affine4, Affine5, Affine6, Affine8, Codes, Decode, E2m1, Mxfp8},
        lanes::{LANES, Lanes},
        line::Line,
        panel::{self, Panel},
        stream::{Stream, Tile},
        widen::widen_into,
    },
    quant::FloatType,
};

/// Whether this processor has what this file needs: NEON is part of every AArch64.
pub(crate) fn detected() -> bool {
    std::arch::is_aarch64_feature_detected!("neon")
}

#[derive(Clone, Copy)]
struct Quads([float32x4_t; 4]);

// SAFETY: no function asks for more than that the instruction set was detected, and that pointers are valid for what the trait
// says; which of the two a block rests on stands above it.
unsafe impl Lanes for Quads {
    const WIDTH: usize = LANES;
    const HEADS: usize = 1;
    type Shift = uint32x4_t;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: detected by the caller's promise.
        unsafe { Self([vdupq_n_f32(0.0); 4]) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: detected and valid by the caller's promise.
        unsafe { Self(std::array::from_fn(|i| vld1q_f32(from.add(4 * i)))) }
    }
    #[inline(always)]
    unsafe fn arrange(columns: *const f32, line: *mut f32) {
        // SAFETY: detected and valid by the caller's promise.
        unsafe { Self::load(columns).store(line) }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: detected by the caller's promise.
        unsafe { Self([vdupq_n_f32(x); 4]) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: detected and valid by the caller's promise.
        unsafe {
            for i in 0..4 {
                vst1q_f32(to.add(4 * i), self.0[i]);
            }
        }
    }
    #[inline(always)]
    unsafe fn fma(self, b: Self, acc: Self) -> Self {
        // SAFETY: detected by the caller's promise.
        unsafe { Self(std::array::from_fn(|i| vfmaq_f32(acc.0[i], self.0[i], b.0[i]))) }
    }
    #[inline(always)]
    unsafe fn sum4(four: [Self; 4], _lines: [*const f32; 4], to: *mut f32) {
        // SAFETY: detected and valid by the caller's promise.
        unsafe {
            for (i, Self([a, b, c, d])) in four.into_iter().enumerate() {
                let t4 = vaddq_f32(vaddq_f32(a, c), vaddq_f32(b, d));
                let t2 = vadd_f32(vget_low_f32(t4), vget_high_f32(t4));
                to.add(i).write(vget_lane_f32::<0>(t2) + vget_lane_f32::<1>(t2));
            }
        }
    }
    #[inline(always)]
    unsafe fn shift(shift: u32) -> uint32x4_t {
        // SAFETY: detected by the caller's promise.
        unsafe { vdupq_n_u32(shift) }
    }
    #[inline(always)]
    unsafe fn subtract(words: *const u8, shift: uint32x4_t, to: *mut u8) {
        // SAFETY: detected and valid by the caller's promise.
        unsafe {
            for at in (0..64).step_by(16) {
                let words = vreinterpretq_u32_u8(vld1q_u8(words.add(at)));
                vst1q_u8(to.add(at), vreinterpretq_u8_u32(vsubq_u32(words, shift)));
            }
        }
    }
    #[inline(always)]
    unsafe fn widen(float_type: FloatType, from: *const u8) -> Self {
        // SAFETY: detected and valid by the caller's promise.
        unsafe {
            let mut lanes = [0.0_f32; LANES];
            let bytes = std::slice::from_raw_parts(from, LANES * float_type.size());
            widen_into(float_type, bytes, &mut lanes);
            Self::load(lanes.as_ptr())
        }
    }
}

/// For codes of `BITS` bits: where two bytes that hold the code of each column are in the bytes of sixteen, and by how many bits, as
/// a negative number, the code is shifted there.
const fn places<const BITS: usize>() -> ([u8; 4 * LANES], [i32; LANES]) {
    let (mut bytes, mut by, mut column) = ([255; 4 * LANES], [0; LANES], 0);
    while column < LANES {
        let first = column * BITS;
        bytes[4 * column] = (first / 8) as u8;
        if first % 8 + BITS > 8 {
            bytes[4 * column + 1] = (first / 8 + 1) as u8;
        }
        by[column] = -((first % 8) as i32);
        column += 1;
    }
    (bytes, by)
}

/// Integers that do not fill bytes, or halves of them.
macro_rules! spread {
    ($($codes:ty: $bits:literal),*) => {$(
        // SAFETY: as for `Lanes`.
        unsafe impl Decode<$codes> for Quads {
            type Group = (float32x4_t, float32x4_t);

            #[inline(always)]
            unsafe fn group(scale: f32, bias: f32) -> (float32x4_t, float32x4_t) {
                // SAFETY: detected by the caller's promise.
                unsafe { (vdupq_n_f32(scale), vdupq_n_f32(bias)) }
            }
            #[inline(always)]
            unsafe fn decode<const SHIFTED: bool>(
                words: *const u8,
                _lane: usize,
                _shift: uint32x4_t,
                group: (float32x4_t, float32x4_t),
            ) -> Self {
                // SAFETY: detected and valid by the caller's promise; of the sixteen bytes of a copy those are read that a line has.
                unsafe {
                    let (bytes, by) = const { &places::<$bits>() };
                    let mut line = [0_u8; 16];
                    std::ptr::copy_nonoverlapping(words, line.as_mut_ptr(), 2 * $bits);
                    let line = vld1q_u8(line.as_ptr());
                    let mut weights = [vdupq_n_f32(0.0); 4];
                    for i in 0..4 {
                        let four = vreinterpretq_u32_u8(vqtbl1q_u8(line, vld1q_u8(bytes.as_ptr().add(16 * i))));
                        let codes = vshlq_u32(four, vld1q_s32(by.as_ptr().add(4 * i)));
                        let codes = vandq_u32(codes, vdupq_n_u32((1 << $bits) - 1));
                        weights[i] = vfmaq_f32(group.1, group.0, vcvtq_f32_u32(codes));
                    }
                    Self(weights)
                }
            }
        }
    )*};
}
spread!(Affine2: 2, Affine3: 3, Affine5: 5, Affine6: 6);

/// The lower of the upper two bytes of each float of 4 bits as a binary32, then the upper ones; the others are 0.
const FLOATS: [[u8; 16]; 2] = [
    [0x00, 0x00, 0x80, 0xc0, 0x00, 0x40, 0x80, 0xc0, 0x00, 0x00, 0x80, 0xc0, 0x00, 0x40, 0x80, 0xc0],
    [0x00, 0x3f, 0x3f, 0x3f, 0x40, 0x40, 0x40, 0x40, 0x80, 0xbf, 0xbf, 0xbf, 0xc0, 0xc0, 0xc0, 0xc0],
];

/// Floats of 4 bits, whose upper bytes are looked up.
// SAFETY: as for `Lanes`.
unsafe impl<const GROUP: usize> Decode<E2m1<GROUP>> for Quads {
    type Group = float32x4_t;

    #[inline(always)]
    unsafe fn group(scale: f32, _bias: f32) -> float32x4_t {
        // SAFETY: detected by the caller's promise.
        unsafe { vdupq_n_f32(scale) }
    }
    #[inline(always)]
    unsafe fn decode<const SHIFTED: bool>(
        words: *const u8,
        _lane: usize,
        _shift: uint32x4_t,
        group: float32x4_t,
    ) -> Self {
        // SAFETY: detected and valid by the caller's promise.
        unsafe {
            let table = uint8x16x2_t(vld1q_u8(FLOATS[0].as_ptr()), vld1q_u8(FLOATS[1].as_ptr()));
            let mut weights = [vdupq_n_f32(0.0); 4];
            for i in 0..4 {
                // Code c asks for byte c of the first sixteen and of the second, and twice for one that is not there.
                let at = vmlaq_u32(vdupq_n_u32(0x1000_ffff), quad(words, i), vdupq_n_u32(0x0101_0000));
                let values = vreinterpretq_f32_u8(vqtbl2q_u8(table, vreinterpretq_u8_u32(at)));
                weights[i] = vmulq_f32(group, values);
            }
            Self(weights)
        }
    }
}

/// The codes of 4 bits of four columns, from `4 * i` on.
///
/// # Safety
/// NEON was detected; `words` is valid for two words.
#[inline(always)]
unsafe fn quad(words: *const u8, i: usize) -> uint32x4_t {
    const BY: [[i32; 4]; 2] = [[0, -4, -8, -12], [-16, -20, -24, -28]];
    // SAFETY: as for this function.
    unsafe {
        let word = vdupq_n_u32(words.add(4 * (i / 2)).cast::<u32>().read_unaligned());
        vandq_u32(vshlq_u32(word, vld1q_s32(BY[i % 2].as_ptr())), vdupq_n_u32(15))
    }
}

// SAFETY: as for `Lanes`.
unsafe impl Decode<Mxfp8> for Quads {
    type Group = float32x4_t;

    #[inline(always)]
    unsafe fn group(scale: f32, _bias: f32) -> float32x4_t {
        // SAFETY: detected by the caller's promise.
        unsafe { vdupq_n_f32(scale) }
    }
    /// Exponent and fraction are moved to where binary32 has them, and 2^120 is the difference of the exponents' biases: a product
    /// that is exact, for subnormal numbers too. NaN is a number here; see `exceptions.rs`.
    #[inline(always)]
    unsafe fn decode<const SHIFTED: bool>(
        words: *const u8,
        _lane: usize,
        _shift: uint32x4_t,
        group: float32x4_t,
    ) -> Self {
        // SAFETY: detected and valid by the caller's promise.
        unsafe {
            let bytes = vld1q_u8(words);
            let (low, high) = (vmovl_u8(vget_low_u8(bytes)), vmovl_u8(vget_high_u8(bytes)));
            let quads = [
                vmovl_u16(vget_low_u16(low)),
                vmovl_u16(vget_high_u16(low)),
                vmovl_u16(vget_low_u16(high)),
                vmovl_u16(vget_high_u16(high)),
            ];
            let mut weights = [vdupq_n_f32(0.0); 4];
            for i in 0..4 {
                let magnitude = vshlq_n_u32::<20>(vandq_u32(quads[i], vdupq_n_u32(0x7f)));
                let sign = vshlq_n_u32::<24>(vandq_u32(quads[i], vdupq_n_u32(0x80)));
                let value = vmulq_f32(vreinterpretq_f32_u32(magnitude), vdupq_n_f32(f32::from_bits((127 + 120) << 23)));
                let value = vreinterpretq_f32_u32(vorrq_u32(vreinterpretq_u32_f32(value), sign));
                weights[i] = vmulq_f32(group, value);
            }
            Self(weights)
        }
    }
}

// SAFETY: as for `Lanes`.
unsafe impl Decode<Affine4> for Quads {
    type Group = (float32x4_t, float32x4_t);

    #[inline(always)]
    unsafe fn group(scale: f32, bias: f32) -> (float32x4_t, float32x4_t) {
        // SAFETY: detected by the caller's promise.
        unsafe { (vdupq_n_f32(scale), vdupq_n_f32(bias)) }
    }
    #[inline(always)]
    unsafe fn decode<const SHIFTED: bool>(
        words: *const u8,
        _lane: usize,
        shift: uint32x4_t,
        group: (float32x4_t, float32x4_t),
    ) -> Self {
        // SAFETY: detected and valid by the caller's promise.
        unsafe {
            const BY: [[i32; 4]; 2] = [[0, -4, -8, -12], [-16, -20, -24, -28]];
            Self(std::array::from_fn(|i| {
                let mut word = vdupq_n_u32(words.add(4 * (i / 2)).cast::<u32>().read_unaligned());
                if SHIFTED {
                    word = vsubq_u32(word, shift);
                }
                let codes = vandq_u32(vshlq_u32(word, vld1q_s32(BY[i % 2].as_ptr())), vdupq_n_u32(15));
                vfmaq_f32(group.1, group.0, vcvtq_f32_u32(codes))
            }))
        }
    }
}

// SAFETY: as for `Lanes`.
unsafe impl Decode<Affine8> for Quads {
    /// As they are: a broadcast from memory costs nothing beside the conversion of codes.
    type Group = (f32, f32);

    #[inline(always)]
    unsafe fn group(scale: f32, bias: f32) -> (f32, f32) {
        (scale, bias)
    }
    #[inline(always)]
    unsafe fn decode<const SHIFTED: bool>(
        words: *const u8,
        _lane: usize,
        shift: uint32x4_t,
        (scale, bias): (f32, f32),
    ) -> Self {
        // SAFETY: detected and valid by the caller's promise.
        unsafe {
            let mut four = vreinterpretq_u32_u8(vld1q_u8(words));
            if SHIFTED {
                four = vsubq_u32(four, shift);
            }
            let bytes = vreinterpretq_u8_u32(four);
            let (low, high) = (vmovl_u8(vget_low_u8(bytes)), vmovl_u8(vget_high_u8(bytes)));
            let quads = [
                vmovl_u16(vget_low_u16(low)),
                vmovl_u16(vget_high_u16(low)),
                vmovl_u16(vget_low_u16(high)),
                vmovl_u16(vget_high_u16(high)),
            ];
            Self(std::array::from_fn(|i| vfmaq_f32(vdupq_n_f32(bias), vdupq_n_f32(scale), vcvtq_f32_u32(quads[i]))))
        }
    }
}

// SAFETY: as for `Lanes`.
unsafe impl Panel for Quads {
    #[inline(always)]
    fn from_registers<const SHIFTED: bool>(count: usize) -> usize {
        count.min(1)
    }
    #[target_feature(enable = "neon")]
    unsafe fn tiles(panel: *const f32, cols: usize, block: Block, parts: Parts) {
        // SAFETY: as for this function.
        unsafe { panel::tiles::<Self, 2, 3>(panel, cols, block, parts) }
    }
}

// SAFETY: as for `Lanes`.
unsafe impl Stream for Quads {
    #[target_feature(enable = "neon")]
    unsafe fn sums<C: Codes, const SHIFTED: bool, const GROUP: usize>(tile: &Tile<'_>, lines: &mut [Line; TILE_ROWS])
    where
        Self: Decode<C>,
    {
        // SAFETY: as for this function.
        unsafe { tile.sums::<C, Self, SHIFTED, GROUP, 1, TILE_ROWS>(0, lines) }
    }
}

super::entry_points!(Quads, "neon");
