//! Which loops of [`super`] a processor has, and the instructions that they are made of.

use std::arch::x86_64::*;

use super::{Buffers, Probe, ROWS, Range, WIDE, in_place, side_by_side};
use crate::{
    kernels::{Paths, Screen, avx2},
    quant::{Bits, MatrixRef},
};

/// Whether this processor has what the loops of [`Screen::Vnni`] need.
pub(in crate::kernels) fn vnni_detected() -> bool {
    avx2::detected() && is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512vl")
}

impl Screen {
    /// Whether it has loops for codes of so many bits.
    pub(super) fn takes(self, bits: Bits) -> bool {
        self == Self::Vnni || bits == Bits::Four
    }

    /// Whether what the high codes of bytes are multiplied by is multiplied by the bytes, and what the low ones are multiplied by
    /// makes up for it: a byte is at most 255, and only `vpdpbusd` adds up products of bytes and 127.
    pub(super) fn whole_bytes(self, bits: Bits) -> bool {
        matches!((self, bits), (Self::Vnni, Bits::Four))
    }

    /// Between what the logits of `rows`, at most [`ROWS`], lie for each of the probes of their matrix, and the paths that were
    /// taken; `next` are the rows that follow. One probe's long rows are read as several streams where `streams`.
    pub(super) fn ranges(
        self,
        rows: &MatrixRef<'_>,
        next: &MatrixRef<'_>,
        probes: &[Probe],
        buffers: &mut Buffers,
        streams: bool,
        to: &mut [Range],
    ) -> Paths {
        assert!(rows.layout().rows() <= ROWS && probes.iter().all(|probe| probe.fits(rows)), "probes of this matrix");
        // SAFETY: the features were detected, and by the assert the probes are as long as the rows.
        unsafe {
            match (self, rows.layout().bits()) {
                (Self::Maddubs, _) => avx2(rows, next, probes, buffers, streams, to),
                (Self::Vnni, Bits::Four) => vnni::<false>(rows, next, probes, buffers, streams, to),
                (Self::Vnni, Bits::Eight) => vnni::<true>(rows, next, probes, buffers, streams, to),
            }
        }
    }
}

/// # Safety
/// As [`ranges`], with the features detected.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2(
    rows: &MatrixRef<'_>,
    next: &MatrixRef<'_>,
    probes: &[Probe],
    buffers: &mut Buffers,
    streams: bool,
    to: &mut [Range],
) -> Paths {
    // SAFETY: the caller's promise.
    unsafe { ranges::<Ymm, false>(rows, next, probes, buffers, streams, to) }
}

/// # Safety
/// As [`ranges`], with the features detected.
#[target_feature(enable = "avx512f,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn vnni<const EIGHT: bool>(
    rows: &MatrixRef<'_>,
    next: &MatrixRef<'_>,
    probes: &[Probe],
    buffers: &mut Buffers,
    streams: bool,
    to: &mut [Range],
) -> Paths {
    // SAFETY: the caller's promise.
    unsafe { ranges::<Zmm, EIGHT>(rows, next, probes, buffers, streams, to) }
}

/// [`Screen::ranges`].
///
/// # Safety
/// The features of `L` were detected; there are at most [`ROWS`] rows, and the probes are for their matrix.
#[inline(always)]
unsafe fn ranges<L: Lanes, const EIGHT: bool>(
    rows: &MatrixRef<'_>,
    next: &MatrixRef<'_>,
    probes: &[Probe],
    buffers: &mut Buffers,
    streams: bool,
    to: &mut [Range],
) -> Paths {
    let count = rows.layout().rows();
    // SAFETY: as for this function.
    unsafe {
        if let ([probe], [to]) = (probes, &mut *to) {
            let (evaluated, paths) = in_place::evaluate::<L, EIGHT>(rows, probe, buffers, streams);
            *to = Range::new(count, &evaluated, probe);
            return paths;
        }
        side_by_side::arrange(rows, buffers);
        side_by_side::evaluate::<L, EIGHT>(count, buffers, probes, next, to);
    }
    Paths::SCREEN_OF_SEVERAL
}

/// Sixteen rows, one in each lane.
///
/// # Safety
/// All functions may be called only where the instruction set was detected, with pointers that are valid for sixteen numbers.
pub(super) unsafe trait Lanes {
    type Floats: Copy;
    type Sums: Copy;

    unsafe fn zero() -> Self::Floats;
    unsafe fn splat(x: f32) -> Self::Floats;
    unsafe fn load(from: *const f32) -> Self::Floats;
    unsafe fn store(x: Self::Floats, to: *mut f32);
    unsafe fn add(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    unsafe fn fma(a: Self::Floats, b: Self::Floats, acc: Self::Floats) -> Self::Floats;
    unsafe fn none() -> Self::Sums;
    /// Adds the products of four words' codes, minus the shift, and of four bytes at `q` for each word; `four` counts these fours
    /// within the group. With codes of 4 bits the bytes are those of the low nibbles, and those of the high ones (or of whole
    /// bytes: [`Screen::whole_bytes`]) stand 32 bytes further.
    unsafe fn four<const EIGHT: bool>(
        sums: Self::Sums,
        four: usize,
        words: *const [u32; ROWS],
        shift: u32,
        q: *const i8,
    ) -> Self::Sums;
    /// The sums in steps of the group.
    unsafe fn floats<const EIGHT: bool>(sums: Self::Sums) -> Self::Floats;
    /// Adds the products of the codes of 32 bytes of one row and of as many bytes at `q`, four by four and in steps of the group;
    /// with codes of 4 bits as for [`Lanes::four`].
    unsafe fn wide<const EIGHT: bool>(sums: __m256i, packed: __m256i, q: *const i8) -> __m256i;
}

struct Ymm;

// SAFETY: every function is called where AVX2 and FMA were detected, and touches only what the trait names for it.
#[expect(clippy::undocumented_unsafe_blocks, reason = "one reason for all, stated above")]
unsafe impl Lanes for Ymm {
    type Floats = [__m256; 2];
    type Sums = [__m256i; 2];

    #[inline(always)]
    unsafe fn zero() -> [__m256; 2] {
        unsafe { [_mm256_setzero_ps(); 2] }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> [__m256; 2] {
        unsafe { [_mm256_set1_ps(x); 2] }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> [__m256; 2] {
        unsafe { [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))] }
    }
    #[inline(always)]
    unsafe fn store(x: [__m256; 2], to: *mut f32) {
        unsafe {
            _mm256_storeu_ps(to, x[0]);
            _mm256_storeu_ps(to.add(8), x[1]);
        }
    }
    #[inline(always)]
    unsafe fn add(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn fma(a: [__m256; 2], b: [__m256; 2], acc: [__m256; 2]) -> [__m256; 2] {
        unsafe { [_mm256_fmadd_ps(a[0], b[0], acc[0]), _mm256_fmadd_ps(a[1], b[1], acc[1])] }
    }
    #[inline(always)]
    unsafe fn none() -> [__m256i; 2] {
        unsafe { [_mm256_setzero_si256(); 2] }
    }
    #[inline(always)]
    unsafe fn four<const EIGHT: bool>(
        mut sums: [__m256i; 2],
        _four: usize,
        words: *const [u32; ROWS],
        shift: u32,
        q: *const i8,
    ) -> [__m256i; 2] {
        if EIGHT {
            unreachable!("`Screen::of` gives these loops for codes of 4 bits only");
        }
        unsafe {
            let (nibble, shift) = (_mm256_set1_epi8(15), _mm256_set1_epi32(shift.cast_signed()));
            // Sixteen products of 15 and 127 are below 2^15.
            let mut pairs = [_mm256_setzero_si256(); 2];
            for w in 0..4 {
                let q = q.add(4 * w).cast::<i32>();
                let (low, high) = (_mm256_set1_epi32(q.read()), _mm256_set1_epi32(q.add(WIDE / 4).read()));
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
    unsafe fn floats<const EIGHT: bool>(sums: [__m256i; 2]) -> [__m256; 2] {
        unsafe { [_mm256_cvtepi32_ps(sums[0]), _mm256_cvtepi32_ps(sums[1])] }
    }
    #[inline(always)]
    unsafe fn wide<const EIGHT: bool>(sums: __m256i, packed: __m256i, q: *const i8) -> __m256i {
        if EIGHT {
            unreachable!("`Screen::of` gives these loops for codes of 4 bits only");
        }
        unsafe {
            let (nibble, q) = (_mm256_set1_epi8(15), q.cast::<__m256i>());
            let low = _mm256_maddubs_epi16(_mm256_and_si256(packed, nibble), *q);
            let high = _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16::<4>(packed), nibble), *q.add(1));
            _mm256_add_epi32(sums, _mm256_madd_epi16(_mm256_add_epi16(low, high), _mm256_set1_epi16(1)))
        }
    }
}

struct Zmm;

// SAFETY: as above, with AVX-512 and its VNNI.
#[expect(clippy::undocumented_unsafe_blocks, reason = "one reason for all, stated above")]
unsafe impl Lanes for Zmm {
    type Floats = __m512;
    /// Of low nibbles, in sixteen steps, and of bytes; of codes of 8 bits the first, in steps.
    /// Twice, for fours in turn, so that a sum waits for half as many others.
    type Sums = [[__m512i; 2]; 2];

    #[inline(always)]
    unsafe fn zero() -> __m512 {
        unsafe { _mm512_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(x: __m512, to: *mut f32) {
        unsafe { _mm512_storeu_ps(to, x) }
    }
    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, acc: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, acc) }
    }
    #[inline(always)]
    unsafe fn none() -> [[__m512i; 2]; 2] {
        unsafe { [[_mm512_setzero_si512(); 2]; 2] }
    }
    #[inline(always)]
    unsafe fn four<const EIGHT: bool>(
        mut sums: [[__m512i; 2]; 2],
        four: usize,
        words: *const [u32; ROWS],
        shift: u32,
        q: *const i8,
    ) -> [[__m512i; 2]; 2] {
        unsafe {
            let (nibble, shift) = (_mm512_set1_epi32(0x0f0f_0f0f), _mm512_set1_epi32(shift.cast_signed()));
            let [mut first, mut bytes] = sums[four % 2];
            for w in 0..4 {
                let q = q.add(4 * w).cast::<i32>();
                let sixteen = _mm512_sub_epi32(_mm512_loadu_si512(words.add(w).cast()), shift);
                if EIGHT {
                    first = _mm512_dpbusd_epi32(first, sixteen, _mm512_set1_epi32(q.read()));
                } else {
                    let (low, high) = (_mm512_set1_epi32(q.read()), _mm512_set1_epi32(q.add(WIDE / 4).read()));
                    first = _mm512_dpbusd_epi32(first, _mm512_and_si512(sixteen, nibble), low);
                    bytes = _mm512_dpbusd_epi32(bytes, sixteen, high);
                }
            }
            sums[four % 2] = [first, bytes];
            sums
        }
    }
    #[inline(always)]
    unsafe fn floats<const EIGHT: bool>([a, b]: [[__m512i; 2]; 2]) -> __m512 {
        unsafe {
            let first = _mm512_add_epi32(a[0], b[0]);
            if EIGHT {
                return _mm512_cvtepi32_ps(first);
            }
            let bytes = _mm512_add_epi32(a[1], b[1]);
            _mm512_cvtepi32_ps(_mm512_add_epi32(_mm512_slli_epi32::<4>(first), bytes))
        }
    }
    #[inline(always)]
    unsafe fn wide<const EIGHT: bool>(sums: __m256i, packed: __m256i, q: *const i8) -> __m256i {
        unsafe {
            let (nibble, q) = (_mm256_set1_epi8(15), q.cast::<__m256i>());
            if EIGHT {
                return _mm256_dpbusd_epi32(sums, packed, *q);
            }
            let low = _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_and_si256(packed, nibble), *q);
            _mm256_dpbusd_epi32(_mm256_add_epi32(sums, _mm256_slli_epi32::<4>(low)), packed, *q.add(1))
        }
    }
}
