//! The instructions that the loops of this room are made of.

use std::arch::x86_64::*;

use super::{probe::CHUNK, range::ROWS};
use crate::kernels::products::codes::{Affine4, Affine8, Codes};

/// Sixteen rows, one in each lane.
///
/// # Safety
/// A caller of any of its functions promises
///
/// - *detected*: this processor was seen to have the instructions;
/// - *valid*: pointers are valid for sixteen numbers.
///
/// An implementation promises to ask for nothing else.
pub(super) unsafe trait SixteenRows {
    type Floats: Copy;

    unsafe fn zero() -> Self::Floats;
    unsafe fn splat(x: f32) -> Self::Floats;
    unsafe fn load(from: *const f32) -> Self::Floats;
    unsafe fn store(x: Self::Floats, to: *mut f32);
    unsafe fn add(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a * b + acc`, rounded once.
    unsafe fn fma(a: Self::Floats, b: Self::Floats, acc: Self::Floats) -> Self::Floats;
}

/// Products in integers of codes `C` and a probe's bytes.
///
/// # Safety
/// As [`SixteenRows`], where pointers are valid for what each function says.
pub(super) unsafe trait Instructions<C: Codes>: SixteenRows {
    type Sums: Copy;

    unsafe fn no_sums() -> Self::Sums;
    /// Adds the products of the codes of four words of sixteen rows, minus the shift, and of four bytes at `q` for each word; `index`
    /// counts these fours within the group. With codes of 4 bits the bytes are those of the low nibbles, and those of the high ones
    /// (or of whole bytes: [`whole_bytes`](crate::kernels::kernel::Screen::whole_bytes)) stand [`CHUNK`] bytes further.
    unsafe fn add_words(
        sums: Self::Sums,
        index: usize,
        words: *const [u32; ROWS],
        shift: u32,
        q: *const i8,
    ) -> Self::Sums;
    /// The sums in steps of the group.
    unsafe fn floats(sums: Self::Sums) -> Self::Floats;
    /// Adds the products of the codes of [`CHUNK`] bytes of one row and of as many bytes at `q`, four by four and in steps of the
    /// group; with codes of 4 bits as for [`Instructions::add_words`], and aligned to [`CHUNK`] bytes.
    unsafe fn add_bytes(sums: __m256i, packed: __m256i, q: *const i8) -> __m256i;
}

/// AVX2 with FMA: eight rows in a register, and `vpmaddubsw`.
pub(super) struct Avx2;

// SAFETY: no function asks for more than that the instructions were detected, and that pointers are valid for what the trait says.
unsafe impl SixteenRows for Avx2 {
    type Floats = [__m256; 2];

    #[inline(always)]
    unsafe fn zero() -> [__m256; 2] {
        // SAFETY: detected by the caller's promise.
        unsafe { [_mm256_setzero_ps(); 2] }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> [__m256; 2] {
        // SAFETY: detected by the caller's promise.
        unsafe { [_mm256_set1_ps(x); 2] }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> [__m256; 2] {
        // SAFETY: detected and valid by the caller's promise.
        unsafe { [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))] }
    }
    #[inline(always)]
    unsafe fn store(x: [__m256; 2], to: *mut f32) {
        // SAFETY: detected and valid by the caller's promise.
        unsafe {
            _mm256_storeu_ps(to, x[0]);
            _mm256_storeu_ps(to.add(8), x[1]);
        }
    }
    #[inline(always)]
    unsafe fn add(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: detected by the caller's promise.
        unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn fma(a: [__m256; 2], b: [__m256; 2], acc: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: detected by the caller's promise.
        unsafe { [_mm256_fmadd_ps(a[0], b[0], acc[0]), _mm256_fmadd_ps(a[1], b[1], acc[1])] }
    }
}

// SAFETY: no function asks for more than that the instructions were detected, and that pointers are valid for what the trait says.
unsafe impl Instructions<Affine4> for Avx2 {
    type Sums = [__m256i; 2];

    #[inline(always)]
    unsafe fn no_sums() -> [__m256i; 2] {
        // SAFETY: detected by the caller's promise.
        unsafe { [_mm256_setzero_si256(); 2] }
    }
    #[inline(always)]
    unsafe fn add_words(
        mut sums: [__m256i; 2],
        _index: usize,
        words: *const [u32; ROWS],
        shift: u32,
        q: *const i8,
    ) -> [__m256i; 2] {
        // SAFETY: detected and valid by the caller's promise.
        unsafe {
            let (nibble, shift) = (_mm256_set1_epi8(15), _mm256_set1_epi32(shift.cast_signed()));
            // Sixteen products of 15 and 127 are below 2^15.
            let mut pairs = [_mm256_setzero_si256(); 2];
            for w in 0..4 {
                let q = q.add(4 * w).cast::<i32>();
                let (low, high) = (_mm256_set1_epi32(q.read()), _mm256_set1_epi32(q.add(CHUNK / 4).read()));
                for half in 0..2 {
                    let eight = _mm256_loadu_si256(words.add(w).cast::<__m256i>().add(half));
                    let eight = _mm256_sub_epi32(eight, shift);
                    let of_low = _mm256_maddubs_epi16(_mm256_and_si256(eight, nibble), low);
                    let of_high = _mm256_and_si256(_mm256_srli_epi16::<4>(eight), nibble);
                    let of_high = _mm256_maddubs_epi16(of_high, high);
                    pairs[half] = _mm256_add_epi16(pairs[half], _mm256_add_epi16(of_low, of_high));
                }
            }
            for half in 0..2 {
                let fours = _mm256_madd_epi16(pairs[half], _mm256_set1_epi16(1));
                sums[half] = _mm256_add_epi32(sums[half], fours);
            }
            sums
        }
    }
    #[inline(always)]
    unsafe fn floats(sums: [__m256i; 2]) -> [__m256; 2] {
        // SAFETY: detected by the caller's promise.
        unsafe { [_mm256_cvtepi32_ps(sums[0]), _mm256_cvtepi32_ps(sums[1])] }
    }
    #[inline(always)]
    unsafe fn add_bytes(sums: __m256i, packed: __m256i, q: *const i8) -> __m256i {
        // SAFETY: detected and valid by the caller's promise.
        unsafe {
            let (nibble, q) = (_mm256_set1_epi8(15), q.cast::<__m256i>());
            let low = _mm256_maddubs_epi16(_mm256_and_si256(packed, nibble), *q);
            let high = _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16::<4>(packed), nibble), *q.add(1));
            _mm256_add_epi32(sums, _mm256_madd_epi16(_mm256_add_epi16(low, high), _mm256_set1_epi16(1)))
        }
    }
}

/// AVX-512: sixteen rows in a register, and `vpdpbusd`.
pub(super) struct Vnni;

// SAFETY: no function asks for more than that the instructions were detected, and that pointers are valid for what the trait says.
unsafe impl SixteenRows for Vnni {
    type Floats = __m512;

    #[inline(always)]
    unsafe fn zero() -> __m512 {
        // SAFETY: detected by the caller's promise.
        unsafe { _mm512_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        // SAFETY: detected by the caller's promise.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m512 {
        // SAFETY: detected and valid by the caller's promise.
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(x: __m512, to: *mut f32) {
        // SAFETY: detected and valid by the caller's promise.
        unsafe { _mm512_storeu_ps(to, x) }
    }
    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        // SAFETY: detected by the caller's promise.
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, acc: __m512) -> __m512 {
        // SAFETY: detected by the caller's promise.
        unsafe { _mm512_fmadd_ps(a, b, acc) }
    }
}

// SAFETY: no function asks for more than that the instructions were detected, and that pointers are valid for what the trait says.
unsafe impl Instructions<Affine4> for Vnni {
    /// Of low nibbles, in sixteen steps, and of bytes; twice, for fours in turn, so that a sum waits for half as many others.
    type Sums = [[__m512i; 2]; 2];

    #[inline(always)]
    unsafe fn no_sums() -> [[__m512i; 2]; 2] {
        // SAFETY: detected by the caller's promise.
        unsafe { [[_mm512_setzero_si512(); 2]; 2] }
    }
    #[inline(always)]
    unsafe fn add_words(
        mut sums: [[__m512i; 2]; 2],
        index: usize,
        words: *const [u32; ROWS],
        shift: u32,
        q: *const i8,
    ) -> [[__m512i; 2]; 2] {
        // SAFETY: detected and valid by the caller's promise.
        unsafe {
            let (nibble, shift) = (_mm512_set1_epi32(0x0f0f_0f0f), _mm512_set1_epi32(shift.cast_signed()));
            let [mut lows, mut bytes] = sums[index % 2];
            for w in 0..4 {
                let q = q.add(4 * w).cast::<i32>();
                let sixteen = _mm512_sub_epi32(_mm512_loadu_si512(words.add(w).cast()), shift);
                let (low, high) = (_mm512_set1_epi32(q.read()), _mm512_set1_epi32(q.add(CHUNK / 4).read()));
                lows = _mm512_dpbusd_epi32(lows, _mm512_and_si512(sixteen, nibble), low);
                bytes = _mm512_dpbusd_epi32(bytes, sixteen, high);
            }
            sums[index % 2] = [lows, bytes];
            sums
        }
    }
    #[inline(always)]
    unsafe fn floats([a, b]: [[__m512i; 2]; 2]) -> __m512 {
        // SAFETY: detected by the caller's promise.
        unsafe {
            let (lows, bytes) = (_mm512_add_epi32(a[0], b[0]), _mm512_add_epi32(a[1], b[1]));
            _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_slli_epi32::<4>(lows), bytes))
        }
    }
    #[inline(always)]
    unsafe fn add_bytes(sums: __m256i, packed: __m256i, q: *const i8) -> __m256i {
        // SAFETY: detected and valid by the caller's promise.
        unsafe {
            let (nibble, q) = (_mm256_set1_epi8(15), q.cast::<__m256i>());
            let low = _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_and_si256(packed, nibble), *q);
            _mm256_dpbusd_epi32(_mm256_add_epi32(sums, _mm256_slli_epi32::<4>(low)), packed, *q.add(1))
        }
    }
}

// SAFETY: no function asks for more than that the instructions were detected, and that pointers are valid for what the trait says.
unsafe impl Instructions<Affine8> for Vnni {
    /// Twice, for fours in turn, so that a sum waits for half as many others.
    type Sums = [__m512i; 2];

    #[inline(always)]
    unsafe fn no_sums() -> [__m512i; 2] {
        // SAFETY: detected by the caller's promise.
        unsafe { [_mm512_setzero_si512(); 2] }
    }
    #[inline(always)]
    unsafe fn add_words(
        mut sums: [__m512i; 2],
        index: usize,
        words: *const [u32; ROWS],
        shift: u32,
        q: *const i8,
    ) -> [__m512i; 2] {
        // SAFETY: detected and valid by the caller's promise.
        unsafe {
            let shift = _mm512_set1_epi32(shift.cast_signed());
            for w in 0..4 {
                let sixteen = _mm512_sub_epi32(_mm512_loadu_si512(words.add(w).cast()), shift);
                let bytes = _mm512_set1_epi32(q.add(4 * w).cast::<i32>().read());
                sums[index % 2] = _mm512_dpbusd_epi32(sums[index % 2], sixteen, bytes);
            }
            sums
        }
    }
    #[inline(always)]
    unsafe fn floats([a, b]: [__m512i; 2]) -> __m512 {
        // SAFETY: detected by the caller's promise.
        unsafe { _mm512_cvtepi32_ps(_mm512_add_epi32(a, b)) }
    }
    #[inline(always)]
    unsafe fn add_bytes(sums: __m256i, packed: __m256i, q: *const i8) -> __m256i {
        // SAFETY: detected and valid by the caller's promise.
        unsafe { _mm256_dpbusd_epi32(sums, packed, *q.cast::<__m256i>()) }
    }
}
