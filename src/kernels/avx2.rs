//! AVX2 with FMA: eight of the sixteen lanes in a register, columns 0 to 7 or 8 to 15.

use std::arch::x86_64::*;

use super::lanes::{self, Block, Lanes, Scratch};
use crate::quant::{DenseRef, FloatType, MatrixRef};

/// Whether this processor has what this file needs.
pub(super) fn detected() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
}

#[derive(Clone, Copy)]
pub(super) struct Ymm(__m256);

// SAFETY: every function is called where `detected` holds, and touches only the bytes that the trait
// names for it. That is what each `unsafe` block inside discharges, too.
#[expect(clippy::undocumented_unsafe_blocks, reason = "one reason for all, stated above")]
unsafe impl Lanes for Ymm {
    const WIDTH: usize = 8;
    const HEADS: usize = 3;
    type Group4 = (__m256, __m256);
    type Shift = __m256i;

    #[inline(always)]
    fn direct(count: usize) -> usize {
        // A load of a vector's lanes serves one row here and four in a tile; tiles of three vectors are left.
        if count <= 5 { count } else { 3 + count % 3 }
    }
    #[inline(always)]
    unsafe fn zero() -> Self {
        unsafe { Self(_mm256_setzero_ps()) }
    }
    #[inline(always)]
    fn prefetch(from: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe { Self(_mm256_loadu_ps(from)) }
    }
    #[inline(always)]
    unsafe fn arranged(self) -> Self {
        self
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        unsafe { Self(_mm256_set1_ps(x)) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { _mm256_storeu_ps(to, self.0) }
    }
    #[inline(always)]
    unsafe fn fma(self, b: Self, acc: Self) -> Self {
        unsafe { Self(_mm256_fmadd_ps(self.0, b.0, acc.0)) }
    }
    #[inline(always)]
    unsafe fn sum4(four: [Self; 4], lines: [*const f32; 4], to: *mut f32) {
        unsafe {
            let mut eights = [_mm256_setzero_ps(); 4];
            for r in 0..4 {
                eights[r] = _mm256_add_ps(_mm256_loadu_ps(lines[r]), four[r].0);
            }
            // Of two registers one keeps a half of each, the other gets the other halves.
            let [a, b, c, d] = eights;
            let ab = _mm256_add_ps(_mm256_blend_ps::<0xf0>(a, b), _mm256_permute2f128_ps::<0x21>(a, b));
            let cd = _mm256_add_ps(_mm256_blend_ps::<0xf0>(c, d), _mm256_permute2f128_ps::<0x21>(c, d));
            // a and c in the lower half, b and d in the upper one.
            let (ab, cd) = (_mm256_castps_pd(ab), _mm256_castps_pd(cd));
            let (low, high) = (_mm256_unpacklo_pd(ab, cd), _mm256_unpackhi_pd(ab, cd));
            let twos = _mm256_add_ps(_mm256_castpd_ps(low), _mm256_castpd_ps(high));
            let ones = _mm256_add_ps(twos, _mm256_permute_ps::<0b10_11_00_01>(twos));
            let (ac, bd) = (_mm256_castps256_ps128(ones), _mm256_extractf128_ps::<1>(ones));
            _mm_storeu_ps(to, _mm_blend_ps::<0b1010>(ac, bd));
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
            let mut word = _mm256_set1_epi32(words.cast::<i32>().read_unaligned());
            if SHIFTED {
                word = _mm256_sub_epi32(word, shift);
            }
            let codes = _mm256_and_si256(_mm256_srlv_epi32(word, by), _mm256_set1_epi32(15));
            Self(_mm256_fmadd_ps(group.0, _mm256_cvtepi32_ps(codes), group.1))
        }
    }
    #[inline(always)]
    unsafe fn decode8<const SHIFTED: bool>(words: *const u8, shift: __m256i, scale: f32, bias: f32) -> Self {
        unsafe {
            let mut two = _mm_loadl_epi64(words.cast());
            if SHIFTED {
                two = _mm_sub_epi32(two, _mm256_castsi256_si128(shift));
            }
            let codes = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(two));
            Self(_mm256_fmadd_ps(_mm256_set1_ps(scale), codes, _mm256_set1_ps(bias)))
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
            Self(match float_type {
                FloatType::F16 => _mm256_cvtph_ps(_mm_loadu_si128(from.cast())),
                FloatType::Bf16 => {
                    let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
                    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
                }
                FloatType::F32 => _mm256_loadu_ps(from.cast()),
            })
        }
    }
}

super::entry_points!(Ymm, "avx2,fma,f16c", 4, 3);
