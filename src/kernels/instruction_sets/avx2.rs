//! AVX2 with FMA: eight of the sixteen lanes in a register, the even columns or the odd ones.
//!
//! A byte of a packed word is a code of an even column and one of an odd column. So bytes are widened once for two registers, and
//! the codes of both are a mask and a shift by the same number away, where a shift that differs from lane to lane would have to
//! be made for each. Vectors are laid out in this order once, before the loops.

use std::arch::x86_64::*;

use crate::{
    kernels::products::{
        block::{Block, Parts, TILE_ROWS},
        codes::{Affine2, Affine3, Affine4, Affine5, Affine6, Affine8, Codes, Decode, E2m1, Mxfp8},
        lanes::Lanes,
        line::Line,
        panel::{self, Panel},
        stream::{Stream, Tile},
        widen::widen_into,
    },
    quant::FloatType,
};

/// Whether this processor has what this file needs.
pub(crate) fn detected() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
}

#[derive(Clone, Copy)]
pub(crate) struct Ymm(__m256);

// SAFETY: no function asks for more than that the instruction set was detected, and that pointers are valid for what the trait
// says; which of the two a block rests on stands above it.
unsafe impl Lanes for Ymm {
    const WIDTH: usize = 8;
    const HEADS: usize = 3;
    type Shift = __m256i;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: detected by the caller's promise.
        unsafe { Self(_mm256_setzero_ps()) }
    }
    #[inline(always)]
    fn prefetch(from: *const u8) {
        // SAFETY: a prefetch reads nothing that the program sees, wherever it points to.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: detected and valid by the caller's promise.
        unsafe { Self(_mm256_loadu_ps(from)) }
    }
    #[inline(always)]
    unsafe fn arrange(columns: *const f32, line: *mut f32) {
        // SAFETY: detected and valid by the caller's promise.
        unsafe {
            let (low, high) = (_mm256_loadu_ps(columns), _mm256_loadu_ps(columns.add(8)));
            let even = _mm256_castps_pd(_mm256_shuffle_ps::<0x88>(low, high));
            let odd = _mm256_castps_pd(_mm256_shuffle_ps::<0xdd>(low, high));
            _mm256_storeu_ps(line, _mm256_castpd_ps(_mm256_permute4x64_pd::<0b11_01_10_00>(even)));
            _mm256_storeu_ps(line.add(8), _mm256_castpd_ps(_mm256_permute4x64_pd::<0b11_01_10_00>(odd)));
        }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: detected by the caller's promise.
        unsafe { Self(_mm256_set1_ps(x)) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: detected and valid by the caller's promise.
        unsafe { _mm256_storeu_ps(to, self.0) }
    }
    #[inline(always)]
    unsafe fn fma(self, b: Self, acc: Self) -> Self {
        // SAFETY: detected by the caller's promise.
        unsafe { Self(_mm256_fmadd_ps(self.0, b.0, acc.0)) }
    }
    #[inline(always)]
    unsafe fn sum4(four: [Self; 4], lines: [*const f32; 4], to: *mut f32) {
        // SAFETY: detected and valid by the caller's promise.
        unsafe {
            // Columns c and c + 8 lie four lanes apart, then c and c + 4 two lanes, then c and c + 2 one; even and odd last.
            let mut fours = [_mm256_setzero_ps(); 4];
            for r in 0..4 {
                let (even, odd) = (_mm256_loadu_ps(lines[r]), four[r].0);
                let (kept, other) = (_mm256_blend_ps::<0xf0>(even, odd), _mm256_permute2f128_ps::<0x21>(even, odd));
                fours[r] = _mm256_add_ps(kept, other);
            }
            let mut twos = [_mm256_setzero_ps(); 2];
            for pair in 0..2 {
                let (a, b) = (_mm256_castps_pd(fours[2 * pair]), _mm256_castps_pd(fours[2 * pair + 1]));
                let (low, high) = (_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b));
                twos[pair] = _mm256_add_ps(_mm256_castpd_ps(low), _mm256_castpd_ps(high));
            }
            let [ab, cd] = twos;
            let ones = _mm256_add_ps(_mm256_shuffle_ps::<0x88>(ab, cd), _mm256_shuffle_ps::<0xdd>(ab, cd));
            _mm_storeu_ps(to, _mm_add_ps(_mm256_castps256_ps128(ones), _mm256_extractf128_ps::<1>(ones)));
        }
    }
    #[inline(always)]
    unsafe fn shift(shift: u32) -> __m256i {
        // SAFETY: detected by the caller's promise.
        unsafe { _mm256_set1_epi32(shift.cast_signed()) }
    }
    #[inline(always)]
    unsafe fn subtract(words: *const u8, shift: __m256i, to: *mut u8) {
        // SAFETY: detected and valid by the caller's promise.
        unsafe {
            for half in [0, 32] {
                let words = _mm256_loadu_si256(words.add(half).cast());
                _mm256_storeu_si256(to.add(half).cast(), _mm256_sub_epi32(words, shift));
            }
        }
    }
    #[inline(always)]
    unsafe fn widen_f16(from: &[u8], to: &mut [f32]) {
        // SAFETY: detected by the caller's promise; valid since as many elements are read and written as both have.
        unsafe {
            let whole = to.len() / 8 * 8;
            for at in (0..whole).step_by(8) {
                let eight = _mm_loadu_si128(from.as_ptr().add(2 * at).cast());
                _mm256_storeu_ps(to.as_mut_ptr().add(at), _mm256_cvtph_ps(eight));
            }
            widen_into(FloatType::F16, &from[2 * whole..], &mut to[whole..]);
        }
    }
    #[inline(always)]
    unsafe fn widen(float_type: FloatType, from: *const u8) -> Self {
        // SAFETY: detected and valid by the caller's promise.
        unsafe {
            Self(match float_type {
                FloatType::F16 => _mm256_cvtph_ps(_mm_loadu_si128(from.cast())),
                FloatType::Bf16 => {
                    let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
                    _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
                }
                FloatType::F32 => _mm256_loadu_ps(from.cast()),
                FloatType::E8m0 | FloatType::E4m3 => {
                    let mut lanes = [0.0; Self::WIDTH];
                    widen_into(float_type, std::slice::from_raw_parts(from, Self::WIDTH), &mut lanes);
                    _mm256_loadu_ps(lanes.as_ptr())
                }
            })
        }
    }
}

/// For codes of `BITS` bits, in each lane: where two bytes that hold the code of its column are, in 8 bytes of the first or of the
/// last eight columns, and by how many bits the code is shifted there. Lanes are the even columns, or the odd ones.
const fn places<const BITS: usize>(odd: usize) -> ([i8; 32], [i32; 8]) {
    let (mut bytes, mut by, mut lane) = ([-1; 32], [0; 8], 0);
    while lane < 8 {
        // The last eight of a line's bytes begin at bit `16 BITS - 64`; of 3 bits there are six, of which the last four are taken.
        let begins = if lane < 4 { 0 } else { 8 * (2 * BITS - if BITS > 3 { 8 } else { 4 }) };
        let first = (2 * lane + odd) * BITS - begins;
        bytes[4 * lane] = (first / 8) as i8;
        if first % 8 + BITS > 8 {
            bytes[4 * lane + 1] = (first / 8 + 1) as i8;
        }
        by[lane] = (first % 8) as i32;
        lane += 1;
    }
    (bytes, by)
}

/// Eight codes of `BITS` bits, 3, 5 or 6, of even columns where `lane` is 0, and else of odd ones.
///
/// # Safety
/// AVX2 was detected; `words` is valid for `2 * BITS` bytes.
#[inline(always)]
unsafe fn spread<const BITS: usize>(words: *const u8, lane: usize) -> __m256i {
    // SAFETY: as for this function.
    unsafe {
        let (first, last) = if BITS > 3 {
            let last = words.add(2 * BITS - 8).cast::<i64>();
            (_mm256_set1_epi64x(words.cast::<i64>().read_unaligned()), _mm256_set1_epi64x(last.read_unaligned()))
        } else {
            let last = words.add(2 * BITS - 4).cast::<i32>();
            (_mm256_set1_epi32(words.cast::<i32>().read_unaligned()), _mm256_set1_epi32(last.read_unaligned()))
        };
        let both = _mm256_blend_epi32::<0xf0>(first, last);
        let (bytes, by) = if lane == 0 { const { &places::<BITS>(0) } } else { const { &places::<BITS>(1) } };
        let bytes = _mm256_shuffle_epi8(both, _mm256_loadu_si256(bytes.as_ptr().cast()));
        let codes = _mm256_srlv_epi32(bytes, _mm256_loadu_si256(by.as_ptr().cast()));
        _mm256_and_si256(codes, _mm256_set1_epi32((1 << BITS) - 1))
    }
}

/// The weights of integers, `fma(scale, code, bias)`.
///
/// # Safety
/// AVX2 and FMA were detected.
#[inline(always)]
unsafe fn integers(codes: __m256i, (scale, bias): (__m256, __m256)) -> Ymm {
    // SAFETY: detected by the caller's promise.
    unsafe { Ymm(_mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(codes), bias)) }
}

/// A scale and a bias in all lanes.
///
/// # Safety
/// AVX2 was detected.
#[inline(always)]
unsafe fn splats(scale: f32, bias: f32) -> (__m256, __m256) {
    // SAFETY: detected by the caller's promise.
    unsafe { (_mm256_set1_ps(scale), _mm256_set1_ps(bias)) }
}

// SAFETY: as for `Lanes`.
unsafe impl Decode<Affine2> for Ymm {
    type Group = (__m256, __m256);

    #[inline(always)]
    unsafe fn group(scale: f32, bias: f32) -> (__m256, __m256) {
        // SAFETY: detected by the caller's promise.
        unsafe { splats(scale, bias) }
    }
    #[inline(always)]
    unsafe fn decode<const SHIFTED: bool>(
        words: *const u8,
        lane: usize,
        _shift: __m256i,
        group: (__m256, __m256),
    ) -> Self {
        // SAFETY: detected and valid by the caller's promise.
        unsafe {
            let by = if lane == 0 {
                _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28)
            } else {
                _mm256_setr_epi32(2, 6, 10, 14, 18, 22, 26, 30)
            };
            let word = _mm256_set1_epi32(words.cast::<i32>().read_unaligned());
            integers(_mm256_and_si256(_mm256_srlv_epi32(word, by), _mm256_set1_epi32(3)), group)
        }
    }
}

/// Integers whose codes cross bytes.
macro_rules! crossing {
    ($($codes:ty: $bits:literal),*) => {$(
        // SAFETY: as for `Lanes`.
        unsafe impl Decode<$codes> for Ymm {
            type Group = (__m256, __m256);

            #[inline(always)]
            unsafe fn group(scale: f32, bias: f32) -> (__m256, __m256) {
                // SAFETY: detected by the caller's promise.
                unsafe { splats(scale, bias) }
            }
            #[inline(always)]
            unsafe fn decode<const SHIFTED: bool>(
                words: *const u8,
                lane: usize,
                _shift: __m256i,
                group: (__m256, __m256),
            ) -> Self {
                // SAFETY: detected and valid by the caller's promise.
                unsafe { integers(spread::<$bits>(words, lane), group) }
            }
        }
    )*};
}
crossing!(Affine3: 3, Affine5: 5, Affine6: 6);

/// Floats of 4 bits, of which the low three pick a magnitude and the highest is the sign.
// SAFETY: as for `Lanes`.
unsafe impl<const GROUP: usize> Decode<E2m1<GROUP>> for Ymm {
    /// The scale times each magnitude.
    type Group = __m256;

    #[inline(always)]
    unsafe fn group(scale: f32, _bias: f32) -> __m256 {
        // SAFETY: detected by the caller's promise.
        unsafe { _mm256_mul_ps(_mm256_set1_ps(scale), _mm256_setr_ps(0., 0.5, 1., 1.5, 2., 3., 4., 6.)) }
    }
    #[inline(always)]
    unsafe fn decode<const SHIFTED: bool>(words: *const u8, lane: usize, _shift: __m256i, group: __m256) -> Self {
        // SAFETY: detected and valid by the caller's promise.
        unsafe {
            let bytes = bytes_of_pairs(_mm256_set1_epi64x(words.cast::<i64>().read_unaligned()));
            let (codes, signs) = if lane == 0 {
                (bytes, _mm256_slli_epi32::<28>(bytes))
            } else {
                (_mm256_srli_epi32::<4>(bytes), _mm256_slli_epi32::<24>(bytes))
            };
            let signs = _mm256_and_si256(signs, _mm256_set1_epi32(i32::MIN));
            Self(_mm256_xor_ps(_mm256_permutevar8x32_ps(group, codes), _mm256_castsi256_ps(signs)))
        }
    }
}

// SAFETY: as for `Lanes`.
unsafe impl Decode<Mxfp8> for Ymm {
    /// The scale times 2^8; see `exceptions.rs`.
    type Group = f32;

    #[inline(always)]
    unsafe fn group(scale: f32, _bias: f32) -> f32 {
        scale * 256.0
    }
    /// Sign, exponent and fraction are moved to where binary16 has them.
    #[inline(always)]
    unsafe fn decode<const SHIFTED: bool>(words: *const u8, lane: usize, _shift: __m256i, scale: f32) -> Self {
        // SAFETY: detected and valid by the caller's promise.
        unsafe {
            let bytes = _mm_loadu_si128(words.cast());
            let upper = if lane == 0 { _mm_slli_epi16::<8>(bytes) } else { bytes };
            let halves = _mm_and_si128(_mm_srai_epi16::<1>(upper), _mm_set1_epi16(0xbf80_u16.cast_signed()));
            Self(_mm256_mul_ps(_mm256_set1_ps(scale), _mm256_cvtph_ps(halves)))
        }
    }
}

/// The eight bytes of two words in every lane pair, one to a lane.
///
/// # Safety
/// AVX2 was detected.
#[inline(always)]
unsafe fn bytes_of_pairs(words: __m256i) -> __m256i {
    // SAFETY: detected by the caller's promise.
    unsafe {
        // Not as a conversion, which the compiler would make of each half of the codes by itself.
        let low = _mm_setr_epi8(0, -1, -1, -1, 1, -1, -1, -1, 2, -1, -1, -1, 3, -1, -1, -1);
        let high = _mm_setr_epi8(4, -1, -1, -1, 5, -1, -1, -1, 6, -1, -1, -1, 7, -1, -1, -1);
        _mm256_shuffle_epi8(words, _mm256_setr_m128i(low, high))
    }
}

// SAFETY: as for `Lanes`.
unsafe impl Decode<Affine4> for Ymm {
    type Group = (__m256, __m256);

    #[inline(always)]
    unsafe fn group(scale: f32, bias: f32) -> (__m256, __m256) {
        // SAFETY: detected by the caller's promise.
        unsafe { (_mm256_set1_ps(scale), _mm256_set1_ps(bias)) }
    }
    #[inline(always)]
    unsafe fn decode<const SHIFTED: bool>(
        words: *const u8,
        lane: usize,
        shift: __m256i,
        group: (__m256, __m256),
    ) -> Self {
        // SAFETY: detected and valid by the caller's promise.
        unsafe {
            let mut words = _mm256_set1_epi64x(words.cast::<i64>().read_unaligned());
            if SHIFTED {
                words = _mm256_sub_epi32(words, shift);
            }
            let bytes = bytes_of_pairs(words);
            let codes =
                if lane == 0 { _mm256_and_si256(bytes, _mm256_set1_epi32(15)) } else { _mm256_srli_epi32::<4>(bytes) };
            Self(_mm256_fmadd_ps(group.0, _mm256_cvtepi32_ps(codes), group.1))
        }
    }
}

// SAFETY: as for `Lanes`.
unsafe impl Decode<Affine8> for Ymm {
    /// As they are: a broadcast from memory costs nothing beside the conversion of codes.
    type Group = (f32, f32);

    #[inline(always)]
    unsafe fn group(scale: f32, bias: f32) -> (f32, f32) {
        (scale, bias)
    }
    #[inline(always)]
    unsafe fn decode<const SHIFTED: bool>(
        words: *const u8,
        lane: usize,
        shift: __m256i,
        (scale, bias): (f32, f32),
    ) -> Self {
        // SAFETY: detected and valid by the caller's promise.
        unsafe {
            let mut four = _mm_loadu_si128(words.cast());
            if SHIFTED {
                four = _mm_sub_epi32(four, _mm256_castsi256_si128(shift));
            }
            let codes = if lane == 0 { _mm_and_si128(four, _mm_set1_epi16(255)) } else { _mm_srli_epi16::<8>(four) };
            let codes = _mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(codes));
            Self(_mm256_fmadd_ps(_mm256_set1_ps(scale), codes, _mm256_set1_ps(bias)))
        }
    }
}

// SAFETY: as for `Lanes`.
unsafe impl Panel for Ymm {
    #[inline(always)]
    fn from_registers<const SHIFTED: bool>(count: usize) -> usize {
        // As many as there are registers for, with or without a shift; tiles of three are left.
        let most = if SHIFTED { 4 } else { 5 };
        if count <= most { count } else { most - 2 + (count - (most - 2)) % 3 }
    }
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn tiles(panel: *const f32, cols: usize, block: Block, parts: Parts) {
        // SAFETY: as for this function.
        unsafe { panel::tiles::<Self, 4, 3>(panel, cols, block, parts) }
    }
}

// SAFETY: as for `Lanes`.
unsafe impl Stream for Ymm {
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn sums<C: Codes, const SHIFTED: bool, const GROUP: usize>(tile: &Tile<'_>, lines: &mut [Line; TILE_ROWS])
    where
        Self: Decode<C>,
    {
        // SAFETY: as for this function.
        unsafe {
            tile.sums::<C, Self, SHIFTED, GROUP, 2, 2>(0, lines);
            tile.sums::<C, Self, SHIFTED, GROUP, 2, 2>(2, lines);
        }
    }
}

super::entry_points!(Ymm, "avx2,fma,f16c");
