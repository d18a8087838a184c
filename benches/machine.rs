//! What the machine can do, for the roofline: bytes read a second, and multiply-adds a second that stay in registers.
//!
//! `cargo bench --bench machine`; `HEADROOM_THREADS` sets the threads (default: all).

use divan::{
    Bencher, black_box,
    counter::{BytesCount, ItemsCount},
};
use lm_headroom::team::Team;

fn main() {
    divan::main();
}

fn team() -> Team {
    match std::env::var("HEADROOM_THREADS").ok().and_then(|n| n.parse().ok()) {
        Some(threads) => Team::new(threads),
        None => Team::of_this_machine(),
    }
}

/// As many bytes as the codes of a Llama-3-8B head; and as many as stay in a cache of the second level.
#[divan::bench(args = [262_668_288, 524_288], sample_count = 20)]
fn plain_read(bencher: Bencher<'_, '_>, bytes: usize) {
    let (data, team) = (vec![1_u8; bytes], team());
    let chunk = 1 << 16;
    bencher.counter(BytesCount::new(bytes)).bench_local(|| {
        team.for_each(data.len() / chunk, |i| {
            let words = &data[i * chunk..][..chunk];
            let mut sums = [0_u64; 16];
            for part in words.chunks_exact(128) {
                for (sum, word) in sums.iter_mut().zip(part.chunks_exact(8)) {
                    *sum = sum.wrapping_add(u64::from_le_bytes(word.try_into().expect("eight bytes")));
                }
            }
            black_box(sums);
        });
    });
}

/// Multiply-adds of one call of a loop; more than any latency needs to be hidden behind.
const ROUNDS: usize = 200_000;
/// Accumulators: no chain waits for itself.
const CHAINS: usize = 14;

/// Counted in single multiply-adds, as `kernels` counts products.
#[divan::bench(sample_count = 20)]
fn multiply_adds_in_registers(bencher: Bencher<'_, '_>) {
    let (team, Some((lanes, run))) = (team(), widest()) else { return };
    let threads = team.threads();
    bencher.counter(ItemsCount::new(threads * ROUNDS * CHAINS * lanes)).bench_local(|| {
        team.for_each(threads, |i| {
            black_box(run(black_box(0.5 + i as f32 * 1e-3)));
        });
    });
}

/// A loop that stays in registers.
type Loop = fn(f32) -> f32;

/// Lanes of the widest registers here, and the loop over them.
fn widest() -> Option<(usize, Loop)> {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the instruction set was just detected.
            return Some((16, |x| unsafe { x86::avx512(x) }));
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: as above.
            return Some((8, |x| unsafe { x86::avx2(x) }));
        }
    }
    #[cfg(target_arch = "aarch64")]
    if std::arch::is_aarch64_feature_detected!("neon") {
        // SAFETY: as above.
        return Some((4, |x| unsafe { arm::neon(x) }));
    }
    None
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{CHAINS, ROUNDS};

    #[target_feature(enable = "avx512f")]
    pub(super) fn avx512(x: f32) -> f32 {
        let (factor, term) = (_mm512_set1_ps(x), _mm512_set1_ps(1.0 - x));
        // Chains that begin alike would be one to the compiler.
        let mut chains: [__m512; CHAINS] = std::array::from_fn(|i| _mm512_set1_ps(i as f32));
        for _ in 0..ROUNDS {
            for chain in &mut chains {
                *chain = _mm512_fmadd_ps(*chain, factor, term);
            }
        }
        chains.into_iter().map(|chain| _mm512_reduce_add_ps(chain)).sum()
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn avx2(x: f32) -> f32 {
        let (factor, term) = (_mm256_set1_ps(x), _mm256_set1_ps(1.0 - x));
        let mut chains: [__m256; CHAINS] = std::array::from_fn(|i| _mm256_set1_ps(i as f32));
        for _ in 0..ROUNDS {
            for chain in &mut chains {
                *chain = _mm256_fmadd_ps(*chain, factor, term);
            }
        }
        chains.into_iter().map(|chain| _mm256_cvtss_f32(chain)).sum()
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use std::arch::aarch64::*;

    use super::{CHAINS, ROUNDS};

    #[target_feature(enable = "neon")]
    pub(super) fn neon(x: f32) -> f32 {
        let (factor, term) = (vdupq_n_f32(x), vdupq_n_f32(1.0 - x));
        let mut chains: [float32x4_t; CHAINS] = std::array::from_fn(|i| vdupq_n_f32(i as f32));
        for _ in 0..ROUNDS {
            for chain in &mut chains {
                *chain = vfmaq_f32(term, *chain, factor);
            }
        }
        chains.into_iter().map(|chain| vaddvq_f32(chain)).sum()
    }
}
