//! NEON (AArch64): the sixteen lanes in four registers of four columns.

use std::arch::aarch64::*;

use super::{
    Line,
    lanes::{self, Block, LANES, Lanes, Parts, Scratch, TILE_ROWS},
    stream::Tile,
};
use crate::quant::{DenseRef, FloatType, MatrixRef};

/// Whether this processor has what this file needs: NEON is part of every AArch64.
pub(super) fn detected() -> bool {
    std::arch::is_aarch64_feature_detected!("neon")
}

#[derive(Clone, Copy)]
struct Quads([float32x4_t; 4]);

// SAFETY: every function is called where `detected` holds, and touches only the bytes that the trait
// names for it. That is what each `unsafe` block inside discharges, too.
#[expect(clippy::undocumented_unsafe_blocks, reason = "one reason for all, stated above")]
unsafe impl Lanes for Quads {
    const WIDTH: usize = LANES;
    const HEADS: usize = 1;
    type Group4 = (float32x4_t, float32x4_t);
    type Shift = uint32x4_t;

    #[inline(always)]
    fn direct<const SHIFTED: bool>(count: usize) -> usize {
        count.min(1)
    }
    #[inline(always)]
    unsafe fn zero() -> Self {
        unsafe { Self([vdupq_n_f32(0.0); 4]) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe { Self(std::array::from_fn(|i| vld1q_f32(from.add(4 * i)))) }
    }
    #[inline(always)]
    unsafe fn arrange(columns: *const f32, line: *mut f32) {
        unsafe { Self::load(columns).store(line) }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        unsafe { Self([vdupq_n_f32(x); 4]) }
    }
    #[target_feature(enable = "neon")]
    unsafe fn tiles(panel: *const f32, cols: usize, block: Block, parts: Parts) {
        unsafe { lanes::tiles::<Self, 2, 3>(panel, cols, block, parts) }
    }
    #[target_feature(enable = "neon")]
    unsafe fn stream<const SHIFTED: bool, const EIGHT: bool, const GROUP: usize>(
        tile: &Tile<'_>,
        lines: &mut [Line; TILE_ROWS],
    ) {
        unsafe { tile.sums::<Self, SHIFTED, EIGHT, GROUP, 1, TILE_ROWS>(0, lines) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe {
            for i in 0..4 {
                vst1q_f32(to.add(4 * i), self.0[i]);
            }
        }
    }
    #[inline(always)]
    unsafe fn fma(self, b: Self, acc: Self) -> Self {
        unsafe { Self(std::array::from_fn(|i| vfmaq_f32(acc.0[i], self.0[i], b.0[i]))) }
    }
    #[inline(always)]
    unsafe fn sum4(four: [Self; 4], _lines: [*const f32; 4], to: *mut f32) {
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
        unsafe { vdupq_n_u32(shift) }
    }
    #[inline(always)]
    unsafe fn subtract(words: *const u8, shift: uint32x4_t, to: *mut u8) {
        unsafe {
            for at in (0..64).step_by(16) {
                let words = vreinterpretq_u32_u8(vld1q_u8(words.add(at)));
                vst1q_u8(to.add(at), vreinterpretq_u8_u32(vsubq_u32(words, shift)));
            }
        }
    }
    #[inline(always)]
    unsafe fn group4(scale: f32, bias: f32) -> (float32x4_t, float32x4_t) {
        unsafe { (vdupq_n_f32(scale), vdupq_n_f32(bias)) }
    }
    #[inline(always)]
    unsafe fn decode4<const SHIFTED: bool>(
        words: *const u8,
        _lane: usize,
        shift: uint32x4_t,
        group: (float32x4_t, float32x4_t),
    ) -> Self {
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
    #[inline(always)]
    unsafe fn decode8<const SHIFTED: bool>(
        words: *const u8,
        _lane: usize,
        shift: uint32x4_t,
        scale: f32,
        bias: f32,
    ) -> Self {
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
    #[inline(always)]
    unsafe fn widen(float_type: FloatType, from: *const u8) -> Self {
        unsafe {
            let mut lanes = [0.0_f32; LANES];
            let bytes = std::slice::from_raw_parts(from, LANES * float_type.size());
            lanes::widen_into(float_type, bytes, &mut lanes);
            Self::load(lanes.as_ptr())
        }
    }
}

super::entry_points!(Quads, "neon");
