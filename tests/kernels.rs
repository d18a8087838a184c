//! Every kernel gives the bits of the scalar specification.

use lm_headroom::{
    kernels::{Activations, Job, Kernel, Pass, multiply, scalar},
    quant::{Bits, DenseRef, FloatType, Layout, MatrixRef, WeightsRef},
    team::Team,
};
use proptest::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A small random generator, so that a failing case is its parameters and nothing else.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

fn encode(float_type: FloatType, x: f32) -> Vec<u8> {
    match float_type {
        FloatType::F16 => half::f16::from_f32(x).to_le_bytes().to_vec(),
        FloatType::Bf16 => half::bf16::from_f32(x).to_le_bytes().to_vec(),
        FloatType::F32 => x.to_le_bytes().to_vec(),
    }
}

#[derive(Debug, Clone)]
struct Case {
    rows: usize,
    groups: usize,
    group_size: usize,
    bits: Bits,
    float_type: FloatType,
    vectors: usize,
    shifts: Vec<u32>,
    odd: bool,
    special: bool,
    seed: u64,
}

fn cases() -> impl Strategy<Value = Case> {
    (
        (1..70_usize, 1..4_usize, prop::sample::select(vec![32, 64, 128_usize])),
        prop::sample::select(vec![Bits::Four, Bits::Eight]),
        prop::sample::select(vec![FloatType::F16, FloatType::Bf16, FloatType::F32]),
        1..20_usize,
        prop::collection::vec(prop_oneof![Just(0_u32), Just(1), Just(1 << 31), Just(u32::MAX), any::<u32>()], 1..3),
        (any::<bool>(), prop::bool::weighted(0.2), any::<u64>()),
    )
        .prop_map(|((rows, groups, group_size), bits, float_type, vectors, shifts, (odd, special, seed))| Case {
            rows,
            groups,
            group_size,
            bits,
            float_type,
            vectors,
            shifts,
            odd,
            special,
            seed,
        })
}

/// Scales and biases that a checkpoint may hold, however unlikely.
fn scale(random: &mut Random, special: bool) -> f32 {
    const SPECIAL: [f32; 8] = [0.0, -0.0, 1e-7, -3e-8, 65504.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
    match random.next() % 12 {
        i @ 0..8 if special => SPECIAL[i as usize],
        _ => random.float() * 0.1,
    }
}

fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan())
}

static REACHED: AtomicUsize = AtomicUsize::new(0);

fn check(case: &Case) -> Result<(), TestCaseError> {
    let mut random = Random(case.seed);
    let cols = case.groups * case.group_size;
    let layout = Layout::new(case.rows, cols, case.bits, case.group_size, case.float_type).expect("a layout");
    // One byte ahead of the data makes every part misaligned.
    let skip = usize::from(case.odd);
    let mut weight = vec![0; skip];
    let mut scales = vec![0; skip];
    let mut biases = vec![0; skip];
    weight.extend((0..case.rows * layout.weight_row_bytes()).map(|_| random.next() as u8));
    for _ in 0..case.rows * case.groups {
        scales.extend(encode(case.float_type, scale(&mut random, case.special)));
        biases.extend(encode(case.float_type, scale(&mut random, case.special)));
    }
    let matrix = MatrixRef::new(layout, &weight[skip..], &scales[skip..], &biases[skip..]).expect("a matrix");
    let x: Vec<f32> = (0..case.vectors * cols).map(|_| random.float() * 4.0).collect();

    let mut expected = Vec::new();
    let mut row = vec![0.0; cols];
    for &shift in &case.shifts {
        let mut out = vec![0.0; case.vectors * case.rows];
        for r in 0..case.rows {
            scalar::dequantize_row(&matrix, shift, r, &mut row);
            for v in 0..case.vectors {
                out[v * case.rows + r] = scalar::dot(&row, &x[v * cols..][..cols]);
            }
        }
        expected.push(out);
    }
    for kernel in Kernel::available() {
        for threads in [1, 2] {
            let team = Team::new(threads);
            let prepared = Activations::from_rows(kernel, cols, &x);
            // Poisoned, so that an output that is never written is seen.
            let poison = f32::from_bits(0x7fc0_dead);
            let mut outs = vec![vec![poison; case.vectors * case.rows]; case.shifts.len()];
            let jobs =
                case.shifts.iter().zip(&mut outs).map(|(&shift, out)| Job { shift, x: &prepared, out }).collect();
            multiply(kernel, &team, &mut [Pass { weights: WeightsRef::Quantized(matrix), jobs }]);
            for (shift, (out, expected)) in case.shifts.iter().zip(outs.iter().zip(&expected)) {
                prop_assert!(!out.iter().any(|y| y.to_bits() == poison.to_bits()), "{}: unwritten", kernel.name());
                prop_assert!(same_bits(out, expected), "{} differs under shift {shift}", kernel.name());
            }
            REACHED.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

#[test]
fn every_kernel_gives_the_bits_of_the_specification() {
    let mut runner = proptest::test_runner::TestRunner::default();
    runner.run(&cases(), |case| check(&case)).unwrap();
    let names: Vec<_> = Kernel::available().iter().map(|kernel| kernel.name()).collect();
    let reached = REACHED.load(Ordering::Relaxed);
    println!("{reached} comparisons over kernels {names:?}");
    assert!(reached > 0 && names.contains(&"scalar"));
}

#[test]
fn unquantized_rows_of_any_width_give_the_bits_of_the_specification() {
    let mut random = Random(5);
    for float_type in [FloatType::F16, FloatType::Bf16, FloatType::F32] {
        for (rows, cols, vectors) in [(1, 1, 1), (5, 15, 2), (33, 16, 7), (40, 100, 13), (3, 576, 1)] {
            let mut data = vec![0];
            (0..rows * cols).for_each(|_| data.extend(encode(float_type, random.float())));
            let matrix = DenseRef::new(rows, cols, float_type, &data[1..]).expect("a matrix");
            let x: Vec<f32> = (0..vectors * cols).map(|_| random.float()).collect();
            let mut row = vec![0.0; cols];
            for kernel in Kernel::available() {
                let mut out = vec![f32::NAN; vectors * rows];
                let prepared = Activations::from_rows(kernel, cols, &x);
                let jobs = vec![Job { shift: 0, x: &prepared, out: &mut out }];
                multiply(kernel, &Team::new(2), &mut [Pass { weights: WeightsRef::Dense(matrix), jobs }]);
                for r in 0..rows {
                    scalar::widen_row(&matrix, r, &mut row);
                    for v in 0..vectors {
                        let expected = scalar::dot(&row, &x[v * cols..][..cols]);
                        assert_eq!(out[v * rows + r].to_bits(), expected.to_bits(), "{} {rows}x{cols}", kernel.name());
                    }
                }
            }
        }
    }
}

#[test]
fn the_rest_of_a_forward_pass_has_one_result_on_every_kernel() {
    let mut random = Random(9);
    let mut floats = |n: usize| -> Vec<f32> { (0..n).map(|_| random.float() * 3.0).collect() };
    for n in [16, 64, 100, 576] {
        let (x, w, up) = (floats(n), floats(n), floats(n));
        let (cos, sin) = (floats(n / 4), floats(n / 4));
        let (keys, values): (Vec<_>, Vec<_>) = (0..37).map(|_| (floats(n), floats(n))).unzip();
        let run = |kernel: Kernel| {
            let mut all = Vec::new();
            let mut out = vec![0.0; n];
            kernel.rms_norm(&x, &w, 1e-5, &mut out);
            all.extend_from_slice(&out);
            let mut gate = x.clone();
            kernel.swiglu(&mut gate, &up);
            all.extend_from_slice(&gate);
            let mut turned = x.clone();
            kernel.rope(&mut turned, &cos, &sin);
            all.extend_from_slice(&turned);
            let mut scores = vec![0.0; keys.len()];
            kernel.attend(&x, 0.125, |j| &keys[j], |j| &values[j], &mut scores, &mut out);
            all.extend_from_slice(&out);
            let top = kernel.top(&x).expect("finite");
            all.extend([top.token as f32, top.best, top.second]);
            let lse = kernel.log_sum_exp(&x);
            let mut p = vec![0.0; n];
            kernel.probabilities(&x, lse, &mut p);
            let kl = kernel.mean_difference(&p, &x, &w);
            (all.iter().map(|y| y.to_bits()).collect::<Vec<_>>(), lse.to_bits(), kl.to_bits())
        };
        let expected = run(Kernel::SCALAR);
        for kernel in Kernel::available() {
            assert_eq!(run(kernel), expected, "{} with {n} columns", kernel.name());
        }
    }
}
