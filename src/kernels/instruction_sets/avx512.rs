//! AVX-512: all sixteen lanes in one register.
//!
//! Two packed words are broadcast as one 64-bit element, so lane `p` sees word `p % 2`, and a shift by
//! `4 * (p / 2)` leaves code `p / 2` in its low four bits: column `8 * (p % 2) + p / 2`. The sixteen
//! possible weights of a group stand in one register, and `vpermps`, which looks at the low four bits of
//! each index only, picks among them: three instructions for sixteen weights, product included.
//! Vectors are laid out in this order once, before the loops.

use std::arch::{asm, x86_64::*};

use super::avx2;
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

/// Whether this processor has what this file needs.
pub(crate) fn detected() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

/// Whether this processor has AVX-512's `vpdpbusd`, for registers of AVX2 as well, and what else screens need.
pub(crate) fn vnni_detected() -> bool {
    avx2::detected() && detected() && is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512vl")
}

#[derive(Clone, Copy)]
struct Zmm(__m512);

/// Indices that the compiler does not know: where it does, it replaces one shuffle across two registers by two within parts of
/// them, and the pipe that does them is the one that is short.
///
/// # Safety
/// AVX-512 was detected.
#[inline(always)]
unsafe fn opaque(indices: &'static [i32; LANES]) -> __m512i {
    let mut at = indices.as_ptr();
    // SAFETY: detected by the caller's promise. No instruction at all; `at` is still the address of sixteen integers.
    unsafe {
        asm!("/* {0} */", inout(reg) at, options(pure, readonly, nostack, preserves_flags));
        _mm512_loadu_si512(at.cast())
    }
}

// SAFETY: no function asks for more than that the instruction set was detected, and that pointers are valid for what the trait
// says; which of the two a block rests on stands above it.
unsafe impl Lanes for Zmm {
    const WIDTH: usize = LANES;
    const HEADS: usize = 4;
    type Shift = __m512i;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: detected by the caller's promise.
        unsafe { Self(_mm512_setzero_ps()) }
    }
    #[inline(always)]
    fn prefetch(from: *const u8) {
        // SAFETY: a prefetch reads nothing that the program sees, wherever it points to.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: detected and valid by the caller's promise.
        unsafe { Self(_mm512_loadu_ps(from)) }
    }
    #[inline(always)]
    unsafe fn arrange(columns: *const f32, line: *mut f32) {
        // SAFETY: detected and valid by the caller's promise.
        unsafe {
            let order = _mm512_setr_epi32(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15);
            _mm512_storeu_ps(line, _mm512_permutexvar_ps(order, _mm512_loadu_ps(columns)));
        }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: detected by the caller's promise.
        unsafe { Self(_mm512_set1_ps(x)) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: detected and valid by the caller's promise.
        unsafe { _mm512_storeu_ps(to, self.0) }
    }
    #[inline(always)]
    unsafe fn fma(self, b: Self, acc: Self) -> Self {
        // SAFETY: detected by the caller's promise.
        unsafe { Self(_mm512_fmadd_ps(self.0, b.0, acc.0)) }
    }
    /// Columns `c` and `c + 8` are neighbours here, `c` and `c + 4` lie eight lanes apart, then four, then
    /// two: the tree of the specification, by other shuffles.
    #[inline(always)]
    unsafe fn sum4([a, b, c, d]: [Self; 4], _lines: [*const f32; 4], to: *mut f32) {
        // SAFETY: detected and valid by the caller's promise.
        unsafe {
            // Of two registers one keeps a half of each, the other gets the other halves: a blend, which more pipes can do,
            // and one shuffle. Columns c and c + 8 first: a in the even lanes, b in the odd ones.
            let swap = opaque(&[1, 16, 3, 18, 5, 20, 7, 22, 9, 24, 11, 26, 13, 28, 15, 30]);
            let (kept, other) = (_mm512_mask_blend_ps(0xaaaa, a.0, b.0), _mm512_permutex2var_ps(a.0, swap, b.0));
            let ab = _mm512_add_ps(kept, other);
            let (kept, other) = (_mm512_mask_blend_ps(0xaaaa, c.0, d.0), _mm512_permutex2var_ps(c.0, swap, d.0));
            let cd = _mm512_add_ps(kept, other);
            // a and b left, c and d right.
            let (kept, other) = (_mm512_mask_blend_ps(0xff00, ab, cd), _mm512_shuffle_f32x4::<0b01_00_11_10>(ab, cd));
            let fours = _mm512_add_ps(kept, other);
            let twos = _mm512_add_ps(fours, _mm512_shuffle_f32x4::<0b10_11_00_01>(fours, fours));
            let ones = _mm512_add_ps(twos, _mm512_permute_ps::<0b01_00_11_10>(twos));
            let order = opaque(&[0, 1, 8, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            _mm_storeu_ps(to, _mm512_castps512_ps128(_mm512_permutexvar_ps(order, ones)));
        }
    }
    #[inline(always)]
    unsafe fn shift(shift: u32) -> __m512i {
        // SAFETY: detected by the caller's promise.
        unsafe { _mm512_set1_epi32(shift.cast_signed()) }
    }
    #[inline(always)]
    unsafe fn subtract(words: *const u8, shift: __m512i, to: *mut u8) {
        // SAFETY: detected and valid by the caller's promise.
        unsafe { _mm512_storeu_si512(to.cast(), _mm512_sub_epi32(_mm512_loadu_si512(words.cast()), shift)) }
    }
    #[inline(always)]
    unsafe fn widen_f16(from: &[u8], to: &mut [f32]) {
        // SAFETY: detected by the caller's promise; valid since as many elements are read and written as both have.
        unsafe {
            if to.len() < LANES {
                return widen_into(FloatType::F16, from, to);
            }
            let mut at = 0;
            while at < to.len() {
                // The last sixteen overlap those before.
                let first = at.min(to.len() - LANES);
                let sixteen = _mm256_loadu_si256(from.as_ptr().add(2 * first).cast());
                _mm512_storeu_ps(to.as_mut_ptr().add(first), _mm512_cvtph_ps(sixteen));
                at += LANES;
            }
        }
    }
    #[inline(always)]
    unsafe fn widen(float_type: FloatType, from: *const u8) -> Self {
        // SAFETY: detected and valid by the caller's promise.
        unsafe {
            Self(match float_type {
                FloatType::F16 => _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())),
                FloatType::Bf16 => {
                    let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
                    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
                }
                FloatType::F32 => _mm512_loadu_ps(from.cast()),
                FloatType::E8m0 | FloatType::E4m3 => {
                    let mut lanes = [0.0; LANES];
                    widen_into(float_type, std::slice::from_raw_parts(from, LANES), &mut lanes);
                    _mm512_loadu_ps(lanes.as_ptr())
                }
            })
        }
    }
}

/// The sixteen integers of 4 bits.
const SIXTEEN: [f32; LANES] = [0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.];
/// Those of 5 bits from 16 on.
const FROM_16: [f32; LANES] = [16., 17., 18., 19., 20., 21., 22., 23., 24., 25., 26., 27., 28., 29., 30., 31.];

/// What the low four bits of an index pick: a weight for each of `values`.
///
/// # Safety
/// AVX-512 was detected.
#[inline(always)]
unsafe fn table(values: [f32; LANES], scale: f32, bias: f32) -> __m512 {
    // SAFETY: detected by the caller's promise; an array has sixteen floats.
    unsafe { _mm512_fmadd_ps(_mm512_set1_ps(scale), _mm512_loadu_ps(values.as_ptr()), _mm512_set1_ps(bias)) }
}

/// The weights that sixteen codes of four bits, in two words, pick from a table.
///
/// # Safety
/// AVX-512 was detected; `words` is valid for two words.
#[inline(always)]
unsafe fn picked<const SHIFTED: bool>(words: *const u8, shift: __m512i, table: __m512) -> Zmm {
    // SAFETY: as for this function.
    unsafe {
        let mut pair = _mm512_set1_epi64(words.cast::<i64>().read_unaligned());
        if SHIFTED {
            pair = _mm512_sub_epi32(pair, shift);
        }
        let by = _mm512_setr_epi32(0, 0, 4, 4, 8, 8, 12, 12, 16, 16, 20, 20, 24, 24, 28, 28);
        Zmm(_mm512_permutexvar_ps(_mm512_srlv_epi32(pair, by), table))
    }
}

// SAFETY: as for `Lanes`.
unsafe impl Decode<Affine2> for Zmm {
    type Group = __m512;

    #[inline(always)]
    unsafe fn group(scale: f32, bias: f32) -> __m512 {
        // SAFETY: detected by the caller's promise.
        unsafe { table([0., 1., 2., 3., 0., 1., 2., 3., 0., 1., 2., 3., 0., 1., 2., 3.], scale, bias) }
    }
    /// One word has all sixteen codes; what stands above a code picks the same weight.
    #[inline(always)]
    unsafe fn decode<const SHIFTED: bool>(words: *const u8, _lane: usize, _shift: __m512i, group: __m512) -> Self {
        // SAFETY: detected and valid by the caller's promise.
        unsafe {
            let word = _mm512_set1_epi32(words.cast::<i32>().read_unaligned());
            let by = _mm512_setr_epi32(0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30);
            Self(_mm512_permutexvar_ps(_mm512_srlv_epi32(word, by), group))
        }
    }
}

// SAFETY: as for `Lanes`.
unsafe impl Decode<Affine3> for Zmm {
    type Group = __m512;

    #[inline(always)]
    unsafe fn group(scale: f32, bias: f32) -> __m512 {
        // SAFETY: detected by the caller's promise.
        unsafe { table([0., 1., 2., 3., 4., 5., 6., 7., 0., 1., 2., 3., 4., 5., 6., 7.], scale, bias) }
    }
    /// Eight codes are three bytes: those of even lanes are in the first four of the six bytes, those of odd lanes in the last four.
    #[inline(always)]
    unsafe fn decode<const SHIFTED: bool>(words: *const u8, _lane: usize, _shift: __m512i, group: __m512) -> Self {
        // SAFETY: detected and valid by the caller's promise.
        unsafe {
            let first = _mm512_set1_epi32(words.cast::<i32>().read_unaligned());
            let both = _mm512_mask_set1_epi32(first, 0xaaaa, words.add(2).cast::<i32>().read_unaligned());
            let by = _mm512_setr_epi32(0, 8, 3, 11, 6, 14, 9, 17, 12, 20, 15, 23, 18, 26, 21, 29);
            Self(_mm512_permutexvar_ps(_mm512_srlv_epi32(both, by), group))
        }
    }
}

/// Sixteen codes of `BITS` bits, 5 or 6, in the low bits of their lanes, with others above them. Eight codes fit 64 bits: column
/// `j` is shifted down to the lower half of element `j`, which is lane `2 j`, column `8 + j` is rotated to the upper half.
///
/// # Safety
/// AVX-512 was detected; `words` is valid for `2 * BITS` bytes.
#[inline(always)]
unsafe fn halves<const BITS: i64>(words: *const u8) -> __m512i {
    // SAFETY: as for this function.
    unsafe {
        let low = _mm512_set1_epi64(words.cast::<i64>().read_unaligned());
        let high = _mm512_set1_epi64(words.add(2 * BITS as usize - 8).cast::<i64>().read_unaligned());
        // The last eight bytes begin at bit `16 BITS - 64`, where column 8 is at bit `8 BITS`.
        let first = 8 * BITS - (16 * BITS - 64) - 32;
        let j = _mm512_setr_epi64(0, BITS, 2 * BITS, 3 * BITS, 4 * BITS, 5 * BITS, 6 * BITS, 7 * BITS);
        let (low, high) =
            (_mm512_srlv_epi64(low, j), _mm512_rorv_epi64(high, _mm512_add_epi64(j, _mm512_set1_epi64(first))));
        _mm512_mask_blend_epi32(0xaaaa, low, high)
    }
}

// SAFETY: as for `Lanes`.
unsafe impl Decode<Affine5> for Zmm {
    /// The weights of codes below 16, and of the others.
    type Group = (__m512, __m512);

    #[inline(always)]
    unsafe fn group(scale: f32, bias: f32) -> (__m512, __m512) {
        // SAFETY: detected by the caller's promise.
        unsafe { (table(SIXTEEN, scale, bias), table(FROM_16, scale, bias)) }
    }
    #[inline(always)]
    unsafe fn decode<const SHIFTED: bool>(
        words: *const u8,
        _lane: usize,
        _shift: __m512i,
        (low, high): (__m512, __m512),
    ) -> Self {
        // SAFETY: detected and valid by the caller's promise.
        unsafe { Self(_mm512_permutex2var_ps(low, halves::<5>(words), high)) }
    }
}

// SAFETY: as for `Lanes`.
unsafe impl Decode<Affine6> for Zmm {
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
        _shift: __m512i,
        (scale, bias): (f32, f32),
    ) -> Self {
        // SAFETY: detected and valid by the caller's promise.
        unsafe {
            let codes = _mm512_and_si512(halves::<6>(words), _mm512_set1_epi32(63));
            Self(_mm512_fmadd_ps(_mm512_set1_ps(scale), _mm512_cvtepi32_ps(codes), _mm512_set1_ps(bias)))
        }
    }
}

/// The weights of all floats of 4 bits.
///
/// # Safety
/// AVX-512 was detected.
#[inline(always)]
unsafe fn floats(scale: f32) -> __m512 {
    // SAFETY: detected by the caller's promise.
    unsafe {
        let values = _mm512_setr_ps(0., 0.5, 1., 1.5, 2., 3., 4., 6., -0., -0.5, -1., -1.5, -2., -3., -4., -6.);
        _mm512_mul_ps(_mm512_set1_ps(scale), values)
    }
}

// SAFETY: as for `Lanes`.
unsafe impl<const GROUP: usize> Decode<E2m1<GROUP>> for Zmm {
    type Group = __m512;

    #[inline(always)]
    unsafe fn group(scale: f32, _bias: f32) -> __m512 {
        // SAFETY: detected by the caller's promise.
        unsafe { floats(scale) }
    }
    #[inline(always)]
    unsafe fn decode<const SHIFTED: bool>(words: *const u8, _lane: usize, shift: __m512i, group: __m512) -> Self {
        // SAFETY: detected and valid by the caller's promise.
        unsafe { picked::<SHIFTED>(words, shift, group) }
    }
}

// SAFETY: as for `Lanes`.
unsafe impl Decode<Mxfp8> for Zmm {
    /// The scale times 2^8; see `exceptions.rs`.
    type Group = __m512;

    #[inline(always)]
    unsafe fn group(scale: f32, _bias: f32) -> __m512 {
        // SAFETY: detected by the caller's promise.
        unsafe { _mm512_mul_ps(_mm512_set1_ps(scale), _mm512_set1_ps(256.0)) }
    }
    /// Sign, exponent and fraction are moved to where binary16 has them.
    #[inline(always)]
    unsafe fn decode<const SHIFTED: bool>(words: *const u8, _lane: usize, _shift: __m512i, scale: __m512) -> Self {
        // SAFETY: detected and valid by the caller's promise.
        unsafe {
            let low = _mm_setr_epi8(-1, 0, -1, 8, -1, 1, -1, 9, -1, 2, -1, 10, -1, 3, -1, 11);
            let high = _mm_setr_epi8(-1, 4, -1, 12, -1, 5, -1, 13, -1, 6, -1, 14, -1, 7, -1, 15);
            let twice = _mm256_broadcastsi128_si256(_mm_loadu_si128(words.cast()));
            let upper = _mm256_shuffle_epi8(twice, _mm256_setr_m128i(low, high));
            let halves = _mm256_and_si256(_mm256_srai_epi16::<1>(upper), _mm256_set1_epi16(0xbf80_u16.cast_signed()));
            Self(_mm512_mul_ps(scale, _mm512_cvtph_ps(halves)))
        }
    }
}

// SAFETY: as for `Lanes`.
unsafe impl Decode<Affine4> for Zmm {
    type Group = __m512;

    #[inline(always)]
    unsafe fn group(scale: f32, bias: f32) -> __m512 {
        // SAFETY: detected by the caller's promise.
        unsafe { table(SIXTEEN, scale, bias) }
    }
    #[inline(always)]
    unsafe fn decode<const SHIFTED: bool>(words: *const u8, _lane: usize, shift: __m512i, group: __m512) -> Self {
        // SAFETY: detected and valid by the caller's promise.
        unsafe { picked::<SHIFTED>(words, shift, group) }
    }
}

// SAFETY: as for `Lanes`.
unsafe impl Decode<Affine8> for Zmm {
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
        shift: __m512i,
        (scale, bias): (f32, f32),
    ) -> Self {
        // SAFETY: detected and valid by the caller's promise.
        unsafe {
            let mut four = _mm_loadu_si128(words.cast());
            if SHIFTED {
                four = _mm_sub_epi32(four, _mm512_castsi512_si128(shift));
            }
            let order = _mm_setr_epi8(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15);
            let codes = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_shuffle_epi8(four, order)));
            Self(_mm512_fmadd_ps(_mm512_set1_ps(scale), codes, _mm512_set1_ps(bias)))
        }
    }
}

// SAFETY: as for `Lanes`.
unsafe impl Panel for Zmm {
    #[inline(always)]
    fn from_registers<const SHIFTED: bool>(count: usize) -> usize {
        // Where two parts are enough, halves.
        if count <= 5 { count } else { count.div_ceil(2).min(5) }
    }
    #[target_feature(enable = "avx512f,avx2,fma")]
    unsafe fn tiles(panel: *const f32, cols: usize, block: Block, parts: Parts) {
        // SAFETY: as for this function.
        unsafe { panel::tiles::<Self, 4, 6>(panel, cols, block, parts) }
    }
}

// SAFETY: as for `Lanes`.
unsafe impl Stream for Zmm {
    #[target_feature(enable = "avx512f,avx2,fma")]
    unsafe fn sums<C: Codes, const SHIFTED: bool, const GROUP: usize>(tile: &Tile<'_>, lines: &mut [Line; TILE_ROWS])
    where
        Self: Decode<C>,
    {
        // SAFETY: as for this function.
        unsafe { tile.sums::<C, Self, SHIFTED, GROUP, 1, TILE_ROWS>(0, lines) }
    }
}

super::entry_points!(Zmm, "avx512f,avx2,fma");
