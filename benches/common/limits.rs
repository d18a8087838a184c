//! Loops that show what the machine can do: bytes read, and multiply-adds that stay in registers.

use std::fmt;

use divan::black_box;
use lm_headroom::team::Team;

/// Reads bytes, as many as a multiple of [`CHUNK`], and leaves something that depends on each of them.
pub(crate) struct Reader {
    name: &'static str,
    pub(crate) read: fn(&[u8]),
}

impl Reader {
    /// Reads `data`, a whole number of chunks, by all threads of a team.
    pub(crate) fn read_by(&self, team: &Team, data: &[u8]) {
        team.for_each(data.len() / CHUNK, |i| (self.read)(&data[i * CHUNK..][..CHUNK]));
    }
}

impl fmt::Display for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Bytes that a thread takes at a time. A Llama-3-8B head is a whole number of them.
pub(crate) const CHUNK: usize = 1 << 16;

/// Which is best depends on the machine: some look ahead in one stream only, others in several.
pub(crate) fn readers() -> Vec<Reader> {
    let mut readers = vec![Reader { name: "plain sums", read: plain_sums }];
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the instruction set was just detected.
            readers.push(Reader { name: "avx512, 1 stream", read: |data| unsafe { x86::read_avx512::<1>(data) } });
            // SAFETY: as above.
            readers.push(Reader { name: "avx512, 4 streams", read: |data| unsafe { x86::read_avx512::<4>(data) } });
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: as above.
            readers.push(Reader { name: "avx2, 1 stream", read: |data| unsafe { x86::read_avx2::<1>(data) } });
            // SAFETY: as above.
            readers.push(Reader { name: "avx2, 4 streams", read: |data| unsafe { x86::read_avx2::<4>(data) } });
        }
    }
    // There the compiler's own code has the widest loads.
    #[cfg(target_arch = "aarch64")]
    readers.push(Reader {
        name: "plain sums, 4 streams",
        read: |data| data.chunks_exact(CHUNK).for_each(four_plain_sums),
    });
    readers
}

/// Left to the compiler.
fn plain_sums(data: &[u8]) {
    let mut sums = [0_u64; 16];
    for part in data.chunks_exact(128) {
        add(&mut sums, part);
    }
    black_box(sums);
}

#[cfg(target_arch = "aarch64")]
fn four_plain_sums(data: &[u8]) {
    let (front, back) = data.split_at(data.len() / 2);
    let ((a, b), (c, d)) = (front.split_at(front.len() / 2), back.split_at(back.len() / 2));
    let mut sums = [[0_u64; 8]; 4];
    for (((a, b), c), d) in a.chunks_exact(64).zip(b.chunks_exact(64)).zip(c.chunks_exact(64)).zip(d.chunks_exact(64)) {
        for (sums, part) in sums.iter_mut().zip([a, b, c, d]) {
            add(sums, part);
        }
    }
    black_box(sums);
}

#[inline(always)]
fn add(sums: &mut [u64], part: &[u8]) {
    for (sum, word) in sums.iter_mut().zip(part.chunks_exact(8)) {
        *sum = sum.wrapping_add(u64::from_le_bytes(word.try_into().expect("eight bytes")));
    }
}

/// Multiply-adds that stay in registers.
pub(crate) struct Fma {
    name: &'static str,
    /// Multiply-adds of one round.
    width: usize,
    run: fn(f32) -> f32,
}

impl Fma {
    /// Multiply-adds of one sample, by all threads of a team.
    pub(crate) fn sample(&self, team: &Team) {
        team.for_each(CALLS * team.threads(), |i| {
            black_box((self.run)(black_box(0.5 + i as f32 * 1e-3)));
        });
    }

    /// How many a sample has.
    pub(crate) fn count(&self, team: &Team) -> usize {
        CALLS * team.threads() * ROUNDS * self.width
    }
}

impl fmt::Display for Fma {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Rounds of one call: enough that its beginning and end do not count, and so few that a sample is over in a fraction of
/// a millisecond, for one that nothing interrupts to be among them.
const ROUNDS: usize = 4000;
/// Calls of one sample for each thread: one that comes late leaves them to the others.
const CALLS: usize = 16;

pub(crate) fn fmas() -> Vec<Fma> {
    let mut fmas = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the instruction set was just detected.
            fmas.push(Fma { name: "avx512", width: 16 * x86::CHAINS, run: |x| unsafe { x86::fma_avx512(x) } });
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: as above.
            fmas.push(Fma { name: "avx2", width: 8 * x86::CHAINS, run: |x| unsafe { x86::fma_avx2(x) } });
        }
    }
    #[cfg(target_arch = "aarch64")]
    if std::arch::is_aarch64_feature_detected!("neon") {
        // SAFETY: as above.
        fmas.push(Fma { name: "neon", width: 4 * arm::CHAINS, run: |x| unsafe { arm::fma_neon(x) } });
    }
    fmas
}

// Chains, in what follows: sums that wait for nobody but themselves. There are at least as many as multiply-adds can be on
// their way at once (pipes times latency; 8 on x86, 16 on Apple's cores), and they and both factors fit the registers. They
// begin differently, or they would be one to the compiler.

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use divan::black_box;

    use super::ROUNDS;

    pub(super) const CHAINS: usize = 12;

    #[target_feature(enable = "avx512f")]
    pub(super) fn fma_avx512(x: f32) -> f32 {
        let (a, b) = (_mm512_set1_ps(x), _mm512_set1_ps(1.0 - x));
        let mut chains: [__m512; CHAINS] = std::array::from_fn(|i| _mm512_set1_ps(i as f32));
        for _ in 0..ROUNDS {
            for chain in &mut chains {
                *chain = _mm512_fmadd_ps(a, b, *chain);
            }
        }
        chains.into_iter().map(|chain| _mm512_reduce_add_ps(chain)).sum()
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn fma_avx2(x: f32) -> f32 {
        let (a, b) = (_mm256_set1_ps(x), _mm256_set1_ps(1.0 - x));
        let mut chains: [__m256; CHAINS] = std::array::from_fn(|i| _mm256_set1_ps(i as f32));
        for _ in 0..ROUNDS {
            for chain in &mut chains {
                *chain = _mm256_fmadd_ps(a, b, *chain);
            }
        }
        // Every lane counts, so that none can be left out.
        let sum = chains.into_iter().fold(_mm256_setzero_ps(), |sum, chain| _mm256_add_ps(sum, chain));
        let sum = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps::<1>(sum));
        let sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
        _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)))
    }

    /// A function that reads in so many streams at once, eight registers a turn.
    macro_rules! reader {
        ($name:ident, $feature:literal, $register:ty, $zero:ident, $load:ident, $add:ident) => {
            #[target_feature(enable = $feature)]
            pub(super) fn $name<const STREAMS: usize>(data: &[u8]) {
                const { assert!(8 % STREAMS == 0) };
                let each = 8 / STREAMS;
                let turn = each * size_of::<$register>();
                let stream = data.len() / STREAMS / turn * turn;
                let mut sums = [$zero(); 8];
                for at in (0..stream).step_by(turn) {
                    for (i, sum) in sums.iter_mut().enumerate() {
                        let at = i / each * stream + at + i % each * size_of::<$register>();
                        // SAFETY: stream `i / each` ends within `data`, and this register's bytes within the stream.
                        *sum = $add(*sum, unsafe { $load(data.as_ptr().add(at).cast()) });
                    }
                }
                black_box(sums);
            }
        };
    }
    reader!(read_avx512, "avx512f", __m512i, _mm512_setzero_si512, _mm512_loadu_si512, _mm512_add_epi64);
    reader!(read_avx2, "avx2", __m256i, _mm256_setzero_si256, _mm256_loadu_si256, _mm256_add_epi64);
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use std::arch::aarch64::*;

    use super::ROUNDS;

    pub(super) const CHAINS: usize = 24;

    #[target_feature(enable = "neon")]
    pub(super) fn fma_neon(x: f32) -> f32 {
        let (a, b) = (vdupq_n_f32(x), vdupq_n_f32(1.0 - x));
        let mut chains: [float32x4_t; CHAINS] = std::array::from_fn(|i| vdupq_n_f32(i as f32));
        for _ in 0..ROUNDS {
            for chain in &mut chains {
                // Into the sum itself: the instruction has no other form, and would cost a move.
                *chain = vfmaq_f32(*chain, a, b);
            }
        }
        chains.into_iter().map(|chain| vaddvq_f32(chain)).sum()
    }
}
