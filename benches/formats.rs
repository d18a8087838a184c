//! Products of an 8B-shaped head in each format beside the same in 4 bits, groups of 64, in turn: weights a second, and the ratio.
//!
//! `cargo bench --bench formats [FORMAT...]`; `HEADROOM_THREADS` sets the threads (default: all), `HEADROOM_KERNEL` the kernel
//! (default: the fastest), `HEADROOM_SHIFT` a shift (default: 0).

#![expect(clippy::print_stdout, reason = "a program")]

#[path = "common/head.rs"]
mod head;
#[path = "common/kernel.rs"]
mod kernel;

use std::time::Instant;

use head::{LLAMA3_8B, bytes, random_head, team};
use kernel::kernel;
use lm_headroom::{
    kernels::{Activations, Kernel, Pass, Product, multiply},
    quant::{Format, Layout, MatrixBuf, Tensor, WeightsRef},
    team::Team,
    testing::heads::encode,
};

/// Formats that are measured where none is named: each width and kind.
const FORMATS: [&str; 10] = [
    "affine-2-g64",
    "affine-3-g64",
    "affine-5-g64",
    "affine-6-g64",
    "affine-8-g64",
    "affine-4-g32",
    "affine-4-g128",
    "mxfp4",
    "nvfp4",
    "mxfp8",
];
/// Times that each product is measured.
const ROUNDS: usize = 9;

fn main() {
    // `cargo bench` adds options of its own.
    let named: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let named = if named.is_empty() { FORMATS.map(str::to_owned).to_vec() } else { named };
    let shift = std::env::var("HEADROOM_SHIFT").map_or(0, |shift| shift.parse().expect("a shift"));
    let (kernel, team) = (kernel(), team());
    println!("{kernel}, {} threads, shift {shift}, {} x {}", team.threads(), LLAMA3_8B.0, LLAMA3_8B.1);
    let base = random_head(LLAMA3_8B.0, LLAMA3_8B.1);
    for name in named {
        let head = head_in(name.parse().unwrap_or_else(|error| panic!("{error}")));
        for vectors in [1, 64] {
            let mut seconds = [Vec::new(), Vec::new()];
            let rounds = if vectors == 1 { 3 * ROUNDS } else { ROUNDS };
            for _ in 0..rounds {
                for (head, seconds) in [&base, &head].into_iter().zip(&mut seconds) {
                    seconds.push(product(kernel, &team, head, vectors, shift));
                }
            }
            let rates = seconds.map(|mut seconds| {
                seconds.sort_by(f64::total_cmp);
                (LLAMA3_8B.0 * LLAMA3_8B.1) as f64 / seconds[seconds.len() / 2] / 1e9
            });
            println!(
                "{name:14} {vectors:2} vectors: {:6.2} G weights/s beside {:6.2}, {:.2}; {:5.1} GB/s",
                rates[1],
                rates[0],
                rates[1] / rates[0],
                rates[1] * bytes(&head) as f64 / (LLAMA3_8B.0 * LLAMA3_8B.1) as f64,
            );
        }
    }
}

/// Seconds of one product.
fn product(kernel: Kernel, team: &Team, head: &MatrixBuf, vectors: usize, shift: u32) -> f64 {
    let (rows, cols) = LLAMA3_8B;
    let x: Vec<f32> = (0..vectors * cols).map(|i| (i as f32 * 0.1).sin()).collect();
    let x = Activations::from_rows(kernel, cols, &x);
    let mut out = vec![0.0; vectors * rows];
    let started = Instant::now();
    let products = vec![Product { shift, x: x.all(), out: &mut out }];
    multiply(kernel, team, &mut [Pass { weights: WeightsRef::Quantized(head.view()), products }]);
    started.elapsed().as_secs_f64()
}

/// A head of random codes, none of which is NaN, and of scales and biases of a trained one's size.
fn head_in(format: Format) -> MatrixBuf {
    let scale_type = format.scale_types()[0];
    let layout = Layout::new(LLAMA3_8B.0, LLAMA3_8B.1, format, scale_type).expect("a layout");
    let mut head = MatrixBuf::random(layout, 1);
    for (tensor, value) in [(Tensor::Scales, 0.01), (Tensor::Biases, -0.08)] {
        let number = encode(scale_type, value);
        let Some(part) = head.part_mut(tensor) else { continue };
        part.chunks_exact_mut(number.len()).for_each(|to| to.copy_from_slice(&number));
    }
    if format == Format::MXFP8 {
        let weight = head.part_mut(Tensor::Weight).expect("every format has codes");
        weight.iter_mut().filter(|code| **code & 0x7f == 0x7f).for_each(|code| *code ^= 1);
    }
    head
}
