//! Products of packed heads: bytes read and multiply-adds a second, by themselves; the bench
//! `roofline` holds those of an 8B head against what the machine can do.
//!
//! `cargo bench --bench kernels`; `HEADROOM_THREADS` sets the threads (default: all), `HEADROOM_KERNEL` the kernel (default: the
//! fastest).

#[path = "common/head.rs"]
mod head;
#[path = "common/kernel.rs"]
mod kernel;

use divan::{
    Bencher, black_box,
    counter::{BytesCount, ItemsCount},
};
use head::{LLAMA3_8B, bytes, random_head, team};
use kernel::kernel;
use lm_headroom::{
    kernels::{Activations, Pass, Product, multiply, tops},
    quant::WeightsRef,
};

fn main() {
    divan::main();
}

const SMOLLM2: (usize, usize) = (49152, 576);

fn product(bencher: Bencher<'_, '_>, shape: (usize, usize), vectors: usize, shift: u32) {
    let (head, team, kernel) = (random_head(shape.0, shape.1), team(), kernel());
    let x: Vec<f32> = (0..vectors * shape.1).map(|i| (i as f32 * 0.1).sin()).collect();
    let x = Activations::from_rows(kernel, shape.1, &x);
    let mut out = vec![0.0; vectors * shape.0];
    bencher.counter(BytesCount::new(bytes(&head))).counter(ItemsCount::new(shape.0 * shape.1 * vectors)).bench_local(
        || {
            let products = vec![Product { shift: black_box(shift), x: x.all(), out: &mut out }];
            multiply(kernel, &team, &mut [Pass { weights: WeightsRef::Quantized(head.view()), products }]);
        },
    );
}

#[divan::bench(args = [1, 2, 3, 4, 6, 10, 37, 64])]
fn smollm2_head_clean(bencher: Bencher<'_, '_>, vectors: usize) {
    product(bencher, SMOLLM2, vectors, 0);
}

#[divan::bench(args = [1, 2, 10])]
fn smollm2_head_shifted(bencher: Bencher<'_, '_>, vectors: usize) {
    product(bencher, SMOLLM2, vectors, 1_000_001);
}

#[divan::bench(args = [1, 64], sample_count = 10)]
fn llama3_8b_head_clean(bencher: Bencher<'_, '_>, vectors: usize) {
    product(bencher, LLAMA3_8B, vectors, 0);
}

#[divan::bench(args = [1, 64], sample_count = 10)]
fn llama3_8b_head_shifted(bencher: Bencher<'_, '_>, vectors: usize) {
    product(bencher, LLAMA3_8B, vectors, 1_000_001);
}

/// The two largest logits of each of some hidden states, as greedy steps ask for them: one under `shift`, the next under
/// another.
fn largest_two(bencher: Bencher<'_, '_>, shape: (usize, usize), states: usize, shift: u32) {
    let (head, team, kernel) = (random_head(shape.0, shape.1), team(), kernel());
    let x: Vec<f32> = (0..states * shape.1).map(|i| (i as f32 * 0.1).sin()).collect();
    let queries: Vec<(u32, &[f32])> = (shift..).zip(x.chunks_exact(shape.1)).collect();
    bencher
        .counter(BytesCount::new(bytes(&head)))
        .counter(ItemsCount::new(shape.0 * shape.1 * states))
        .bench_local(|| tops(kernel, &team, &head.view(), black_box(&queries)));
}

#[divan::bench(args = [0, 1_000_001])]
fn smollm2_largest_two(bencher: Bencher<'_, '_>, shift: u32) {
    largest_two(bencher, SMOLLM2, 1, shift);
}

#[divan::bench(args = [2, 10])]
fn smollm2_largest_two_of_several(bencher: Bencher<'_, '_>, states: usize) {
    largest_two(bencher, SMOLLM2, states, 1_000_001);
}

#[divan::bench(args = [0, 1_000_001], sample_count = 30)]
fn llama3_8b_largest_two(bencher: Bencher<'_, '_>, shift: u32) {
    largest_two(bencher, LLAMA3_8B, 1, shift);
}
