//! AVX2 with FMA: the sixteen lanes in two registers, columns 0 to 7 and 8 to 15.

use std::arch::x86_64::*;

use super::lanes::{self, Block, Lanes, Scratch};
use crate::quant::{DenseRef, FloatType, MatrixRef};

/// Whether this processor has what this file needs.
pub(super) fn detected() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
}

#[derive(Clone, Copy)]
pub(super) struct Ymm([__m256; 2]);

// SAFETY: every function is called where `detected` holds, and touches only the bytes that the trait
// names for it. That is what each `unsafe` block inside discharges, too.
#[expect(clippy::undocumented_unsafe_blocks, reason = "one reason for all, stated above")]
unsafe impl Lanes for Ymm {
    const DIRECT_VECTORS: usize = 1;
    type Group4 = (__m256, __m256);
    type Shift = __m256i;

    #[inline(always)]
    unsafe fn zero() -> Self {
        unsafe { Self([_mm256_setzero_ps(); 2]) }
    }
    #[inline(always)]
    fn prefetch(from: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe { Self([_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))]) }
    }
    #[inline(always)]
    unsafe fn arranged(self) -> Self {
        self
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        unsafe { Self([_mm256_set1_ps(x); 2]) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe {
            _mm256_storeu_ps(to, self.0[0]);
            _mm256_storeu_ps(to.add(8), self.0[1]);
        }
    }
    #[inline(always)]
    unsafe fn fma(self, b: Self, acc: Self) -> Self {
        unsafe { Self([_mm256_fmadd_ps(self.0[0], b.0[0], acc.0[0]), _mm256_fmadd_ps(self.0[1], b.0[1], acc.0[1])]) }
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        unsafe {
            let t8 = _mm256_add_ps(self.0[0], self.0[1]);
            let t4 = _mm_add_ps(_mm256_castps256_ps128(t8), _mm256_extractf128_ps::<1>(t8));
            let t2 = _mm_add_ps(t4, _mm_movehl_ps(t4, t4));
            _mm_cvtss_f32(_mm_add_ss(t2, _mm_movehdup_ps(t2)))
        }
    }
    #[inline(always)]
    unsafe fn shift(shift: u32) -> __m256i {
        unsafe { _mm256_set1_epi32(shift.cast_signed()) }
    }
    #[inline(always)]
    unsafe fn group4(scale: f32, bias: f32) -> (__m256, __m256) {
        unsafe { (_mm256_set1_ps(scale), _mm256_set1_ps(bias)) }
    }
    #[inline(always)]
    unsafe fn decode4<const SHIFTED: bool>(words: *const u8, shift: __m256i, group: (__m256, __m256)) -> Self {
        unsafe {
            let by = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
            let mut halves = [group.1; 2];
            for (i, half) in halves.iter_mut().enumerate() {
                let mut word = _mm256_set1_epi32(words.cast::<i32>().add(i).read_unaligned());
                if SHIFTED {
                    word = _mm256_sub_epi32(word, shift);
                }
                let codes = _mm256_and_si256(_mm256_srlv_epi32(word, by), _mm256_set1_epi32(15));
                *half = _mm256_fmadd_ps(group.0, _mm256_cvtepi32_ps(codes), group.1);
            }
            Self(halves)
        }
    }
    #[inline(always)]
    unsafe fn decode8<const SHIFTED: bool>(words: *const u8, shift: __m256i, scale: f32, bias: f32) -> Self {
        unsafe {
            let mut four = _mm_loadu_si128(words.cast());
            if SHIFTED {
                four = _mm_sub_epi32(four, _mm256_castsi256_si128(shift));
            }
            let mut halves = [_mm256_set1_ps(bias); 2];
            for (half, bytes) in halves.iter_mut().zip([four, _mm_srli_si128::<8>(four)]) {
                let codes = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
                *half = _mm256_fmadd_ps(_mm256_set1_ps(scale), codes, *half);
            }
            Self(halves)
        }
    }
    #[inline(always)]
    unsafe fn widen_f16(from: &[u8], to: &mut [f32]) {
        unsafe {
            let whole = to.len() / 8 * 8;
            for at in (0..whole).step_by(8) {
                let eight = _mm_loadu_si128(from.as_ptr().add(2 * at).cast());
                _mm256_storeu_ps(to.as_mut_ptr().add(at), _mm256_cvtph_ps(eight));
            }
            lanes::widen_into(FloatType::F16, &from[2 * whole..], &mut to[whole..]);
        }
    }
    #[inline(always)]
    unsafe fn widen(float_type: FloatType, from: *const u8) -> Self {
        unsafe {
            let mut halves = [_mm256_setzero_ps(); 2];
            for (i, half) in halves.iter_mut().enumerate() {
                *half = match float_type {
                    FloatType::F16 => _mm256_cvtph_ps(_mm_loadu_si128(from.add(16 * i).cast())),
                    FloatType::Bf16 => {
                        let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.add(16 * i).cast()));
                        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
                    }
                    FloatType::F32 => _mm256_loadu_ps(from.add(32 * i).cast()),
                };
            }
            Self(halves)
        }
    }
}

super::entry_points!(Ymm, "avx2,fma,f16c", 2, 3);
