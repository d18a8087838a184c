//! Products of a Llama-3-8B head beside what the machine can do in the same moments: bytes read for one hidden vector,
//! multiply-adds in registers for many.
//!
//! `cargo bench --bench roofline [-- ROUNDS]` (default 15); `HEADROOM_THREADS` sets the threads (default: all),
//! `HEADROOM_KERNEL` the kernel (default: the fastest). A shared host
//! is fast in one second and slow in the next, so everything is timed in turn, the best of three tries counts, the limit's as the
//! product's, and a share is taken in each round. Medians, least and most.

#![expect(clippy::print_stdout, reason = "a program")]

#[path = "common/head.rs"]
mod head;
#[path = "common/kernel.rs"]
mod kernel;
#[path = "common/limits.rs"]
mod limits;

use std::{hint::black_box, time::Instant};

use head::{LLAMA3_8B, bytes, random_head, team};
use kernel::kernel;
use limits::{CHUNK, Fma, Reader, fmas, readers};
use lm_headroom::{
    kernels::{Activations, Pass, Product, multiply, tops},
    quant::WeightsRef,
};

const VECTORS: usize = 64;
const SHIFT: u32 = 1_000_001;
/// Times that each is tried in a round.
const TRIES: usize = 3;

/// One row of the table: rates, one a round, and what each is held against in that round.
struct Row {
    name: &'static str,
    unit: &'static str,
    rates: Vec<f64>,
    limits: Vec<f64>,
}

fn main() {
    // cargo bench adds a flag of its own.
    let rounds = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(15_usize).max(1);
    let (team, kernel, head) = (team(), kernel(), random_head(LLAMA3_8B.0, LLAMA3_8B.1));
    let (rows, cols) = LLAMA3_8B;
    let hidden: Vec<f32> = (0..VECTORS * cols).map(|i| (i as f32 * 0.1).sin()).collect();
    let one = Activations::from_rows(kernel, cols, &hidden[..cols]);
    let many = Activations::from_rows(kernel, cols, &hidden);
    let mut out = vec![0.0; VECTORS * rows];
    let data = vec![1_u8; bytes(&head) / CHUNK * CHUNK];

    let mut product = |x: &Activations, shift: u32| {
        let products = vec![Product { shift: black_box(shift), x: x.all(), out: &mut out[..x.count() * rows] }];
        timed(|| multiply(kernel, &team, &mut [Pass { weights: WeightsRef::Quantized(head.view()), products }]))
    };
    // Infinitely long where the processor has no instructions for it.
    let largest_two = |shift: u32| {
        let mut found = None;
        let seconds = timed(|| found = tops(kernel, &team, &head.view(), black_box(&[(shift, &hidden[..cols])])));
        if found.is_some() { seconds } else { f64::INFINITY }
    };
    let read = |reader: &Reader| data.len() as f64 / 1e9 / timed(|| reader.read_by(&team, &data));
    let multiply_add = |fma: &Fma| fma.count(&team) as f64 / 1e9 / timed(|| fma.sample(&team));
    // Of several loops that show a limit the one that does it best here.
    let reader = fastest(readers(), read);
    let fma = fastest(fmas(), multiply_add);
    let (bytes, weights) = (bytes(&head) as f64 / 1e9, (rows * cols * VECTORS) as f64 / 1e9);

    let row = |name, unit| Row { name, unit, rates: Vec::new(), limits: Vec::new() };
    let mut table = [
        row("one vector, all logits, clean", "GB/s"),
        row("one vector, all logits, shifted", "GB/s"),
        row("one vector, two largest, clean", "GB/s"),
        row("one vector, two largest, shifted", "GB/s"),
        row("64 vectors, clean", "G multiply-adds/s"),
        row("64 vectors, shifted", "G multiply-adds/s"),
    ];
    // The first round only brings everything near.
    for round in 0..=rounds {
        let reading = reader.as_ref().map_or(0.0, |reader| best(|| read(reader)));
        let peak = fma.as_ref().map_or(0.0, |fma| best(|| multiply_add(fma)));
        let seen = [
            (best(|| bytes / product(&one, 0)), reading),
            (best(|| bytes / product(&one, SHIFT)), reading),
            (best(|| bytes / largest_two(0)), reading),
            (best(|| bytes / largest_two(SHIFT)), reading),
            (best(|| weights / product(&many, 0)), peak),
            (best(|| weights / product(&many, SHIFT)), peak),
        ];
        for (row, (rate, limit)) in table.iter_mut().zip(seen) {
            if round > 0 && rate > 0.0 && limit > 0.0 {
                row.rates.push(rate);
                row.limits.push(limit);
            }
        }
    }
    println!("{kernel} kernel, {} threads, {rounds} rounds\n", team.threads());
    println!("| Llama-3-8B head | rate: median (least to most) | limit | share |\n| --- | --- | --- | --- |");
    for Row { name, unit, rates, limits } in table {
        if rates.is_empty() {
            continue;
        }
        let shares = rates.iter().zip(&limits).map(|(rate, limit)| 100.0 * rate / limit).collect();
        println!("| {name}, {unit} | {} | {} | {} % |", spread(rates), spread(limits), spread(shares));
    }
}

/// The highest of some rates.
fn best(mut rate: impl FnMut() -> f64) -> f64 {
    (0..TRIES).map(|_| rate()).fold(0.0, f64::max)
}

/// The loop of the highest rate.
fn fastest<L>(loops: Vec<L>, rate: impl Fn(&L) -> f64) -> Option<L> {
    let rated = loops.into_iter().map(|one| (best(|| rate(&one)), one));
    rated.max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, one)| one)
}

fn timed<T>(work: impl FnOnce() -> T) -> f64 {
    let start = Instant::now();
    black_box(work());
    start.elapsed().as_secs_f64()
}

/// `median (least to most)`.
fn spread(mut figures: Vec<f64>) -> String {
    figures.sort_by(f64::total_cmp);
    format!("{:.1} ({:.1} to {:.1})", figures[figures.len() / 2], figures[0], figures[figures.len() - 1])
}
