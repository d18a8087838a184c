//! What the machine can do, for a roofline: bytes read a second, and multiply-adds a second that stay in registers; by one
//! thread and by all.
//!
//! `cargo bench --bench machine`; `HEADROOM_THREADS` sets how many threads are all. A limit is the fastest sample of the
//! best row: what else runs on the machine can only take away from it.

use std::fmt;

use divan::{
    Bencher, black_box,
    counter::{BytesCount, ItemsCount},
};
use lm_headroom::team::Team;

fn main() {
    divan::main();
}

/// One, and all.
fn threads() -> Vec<usize> {
    let all = match std::env::var("HEADROOM_THREADS").ok().and_then(|n| n.parse().ok()) {
        Some(threads) => threads,
        None => std::thread::available_parallelism().map_or(1, usize::from),
    };
    if all > 1 { vec![1, all] } else { vec![1] }
}

/// A loop, and how many threads run it.
struct Case<L> {
    threads: usize,
    inner: L,
}

impl<L: fmt::Display> fmt::Display for Case<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.threads == 1 { "" } else { "s" };
        write!(f, "{}, {} thread{plural}", self.inner, self.threads)
    }
}

fn cases<L>(loops: fn() -> Vec<L>) -> Vec<Case<L>> {
    threads().into_iter().flat_map(|threads| loops().into_iter().map(move |inner| Case { threads, inner })).collect()
}

/// Reads bytes, as many as a multiple of [`CHUNK`], and leaves something that depends on each of them.
struct Reader {
    name: &'static str,
    read: fn(&[u8]),
}

impl fmt::Display for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Bytes that a thread takes at a time. A Llama-3-8B head is a whole number of them.
const CHUNK: usize = 1 << 16;

/// Which is best depends on the machine: some look ahead in one stream only, others in several.
fn readers() -> Vec<Reader> {
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

/// As many bytes as a Llama-3-8B head has, scales and biases included: more than any cache of today keeps for two cores.
#[divan::bench(args = cases(readers), sample_count = 20)]
fn read_of_a_llama3_8b_head(bencher: Bencher<'_, '_>, case: &Case<Reader>) {
    let (rows, cols) = (128_256, 4096);
    let bytes = rows * (cols / 2 + cols / 64 * 4);
    assert_eq!(bytes % CHUNK, 0, "whole chunks");
    let (data, team) = (vec![1_u8; bytes], Team::new(case.threads));
    bencher.counter(BytesCount::new(bytes)).bench_local(|| {
        team.for_each(bytes / CHUNK, |i| (case.inner.read)(&data[i * CHUNK..][..CHUNK]));
    });
}

/// Each thread has bytes of its own, and reads them so often that a pass to bring them nearer does not count.
fn cached(bencher: Bencher<'_, '_>, case: &Case<Reader>, bytes: usize) {
    let passes = (64 << 20) / bytes;
    let data: Vec<Vec<u8>> = (0..case.threads).map(|_| vec![1_u8; bytes]).collect();
    let team = Team::new(case.threads);
    bencher.counter(BytesCount::new(bytes * passes * case.threads)).bench_local(|| {
        team.for_each(case.threads, |i| {
            for _ in 0..passes {
                // Otherwise one pass would do.
                (case.inner.read)(black_box(&data[i]));
            }
        });
    });
}

/// More than caches of the second level hold, less than a core's share of the third.
#[divan::bench(args = cases(readers), sample_count = 20)]
fn read_of_3_mib_a_thread(bencher: Bencher<'_, '_>, case: &Case<Reader>) {
    cached(bencher, case, 3 << 20);
}

/// What stays in most caches of the second level.
#[divan::bench(args = cases(readers), sample_count = 20)]
fn read_of_256_kib_a_thread(bencher: Bencher<'_, '_>, case: &Case<Reader>) {
    cached(bencher, case, 256 << 10);
}

/// Multiply-adds that stay in registers.
struct Fma {
    name: &'static str,
    /// Multiply-adds of one round.
    width: usize,
    run: fn(f32) -> f32,
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

fn fmas() -> Vec<Fma> {
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

/// Counted in single multiply-adds, as `kernels` counts products.
#[divan::bench(args = cases(fmas), sample_count = 200)]
fn multiply_adds_in_registers(bencher: Bencher<'_, '_>, case: &Case<Fma>) {
    let (team, calls) = (Team::new(case.threads), CALLS * case.threads);
    bencher.counter(ItemsCount::new(calls * ROUNDS * case.inner.width)).bench_local(|| {
        team.for_each(calls, |i| {
            black_box((case.inner.run)(black_box(0.5 + i as f32 * 1e-3)));
        });
    });
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
