//! What the machine can do, for a roofline: bytes read a second, and multiply-adds a second that stay in registers; by one
//! thread and by all.
//!
//! `cargo bench --bench machine`; `HEADROOM_THREADS` sets how many threads are all. A limit is the fastest sample of the
//! best row: what else runs on the machine can only take away from it.

#[path = "common/limits.rs"]
mod limits;

use std::fmt;

use divan::{
    Bencher, black_box,
    counter::{BytesCount, ItemsCount},
};
use limits::{CHUNK, Fma, Reader, fmas, readers};
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

/// As many bytes as a Llama-3-8B head has, scales and biases included: more than any cache of today keeps for two cores.
#[divan::bench(args = cases(readers), sample_count = 20)]
fn read_of_a_llama3_8b_head(bencher: Bencher<'_, '_>, case: &Case<Reader>) {
    let (rows, cols) = (128_256, 4096);
    let bytes = rows * (cols / 2 + cols / 64 * 4);
    assert_eq!(bytes % CHUNK, 0, "whole chunks");
    let (data, team) = (vec![1_u8; bytes], Team::new(case.threads));
    bencher.counter(BytesCount::new(bytes)).bench_local(|| case.inner.read_by(&team, &data));
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

/// Counted in single multiply-adds, as `kernels` counts products.
#[divan::bench(args = cases(fmas), sample_count = 200)]
fn multiply_adds_in_registers(bencher: Bencher<'_, '_>, case: &Case<Fma>) {
    let team = Team::new(case.threads);
    bencher.counter(ItemsCount::new(case.inner.count(&team))).bench_local(|| case.inner.sample(&team));
}
