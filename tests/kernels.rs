//! Every kernel gives the bits of the scalar specification (law 4, a property of `tests/laws.rs`), and the
//! specification gives the same bits on every instruction set: those whose digests stand here.

#![expect(clippy::print_stdout, reason = "a test says what it looked at")]

use lm_headroom::{
    checkpoint::Checkpoint,
    edit::Plan,
    kernels::{Activations, Kernel, Pass, Paths, Product, multiply},
    model::{CpuProjection, Decoder},
    quant::{FloatType, Format, Layout, MatrixBuf, MatrixRef, Tensor, WeightsRef},
    random::SplitMix64,
    team::Team,
    testing::{
        fixture::Fixture,
        heads::{affine, encode},
        oracles::{Reached, kernel as oracle},
    },
    trial::{Task, Trial, Trials, Tying},
};
use std::sync::Arc;

/// From -1 to 1.
fn float(random: &mut SplitMix64) -> f32 {
    2.0 * random.unit() - 1.0
}

#[derive(Debug, Clone)]
struct Case {
    rows: usize,
    groups: usize,
    group_size: usize,
    bits: usize,
    float_type: FloatType,
    vectors: usize,
    shifts: Vec<u32>,
    odd: bool,
    special: bool,
    seed: u64,
}

/// Scales and biases that a checkpoint may hold, however unlikely.
fn scale(random: &mut SplitMix64, special: bool) -> f32 {
    const SPECIAL: [f32; 8] = [0.0, -0.0, 1e-7, -3e-8, 65504.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
    match random.next_u64() % 12 {
        i @ 0..8 if special => SPECIAL[i as usize],
        _ => float(random) * 0.1,
    }
}

/// The kernels of this processor, as the tests compare them: a test that quietly ran without the one that
/// it is here for would prove nothing.
fn kernels() -> Vec<Kernel> {
    let kernels = Kernel::available();
    let mut names: Vec<_> = kernels.iter().map(|kernel| kernel.name()).collect();
    println!("kernels compared: {}", kernels.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "));
    names.dedup();
    assert!(names.contains(&"scalar"), "{names:?}");
    #[cfg(target_arch = "x86_64")]
    for (name, here) in [
        ("avx2", is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")),
        ("avx512", is_x86_feature_detected!("avx512f")),
    ] {
        if here {
            assert!(names.contains(&name), "{name} is not among {names:?}");
        } else {
            lm_headroom::testing::skipped(&format!("kernel {name}"), "this processor has no such instructions");
        }
    }
    #[cfg(target_arch = "aarch64")]
    assert!(names.contains(&"neon"), "{names:?}");
    kernels
}

/// The parts of a case's matrix, and its vectors.
struct Drawn {
    layout: Layout,
    skip: usize,
    weight: Vec<u8>,
    scales: Vec<u8>,
    biases: Vec<u8>,
    x: Vec<f32>,
}

impl Drawn {
    fn new(case: &Case) -> Self {
        let mut random = SplitMix64(case.seed);
        let cols = case.groups * case.group_size;
        let layout = affine(case.rows, cols, case.bits, case.group_size, case.float_type);
        // One byte ahead of the data makes every part misaligned.
        let skip = usize::from(case.odd);
        let mut weight = vec![0; skip];
        let mut scales = vec![0; skip];
        let mut biases = vec![0; skip];
        weight.extend((0..case.rows * layout.weight_row_bytes()).map(|_| random.next_u64() as u8));
        for _ in 0..case.rows * case.groups {
            scales.extend(encode(case.float_type, scale(&mut random, case.special)));
            biases.extend(encode(case.float_type, scale(&mut random, case.special)));
        }
        let x = (0..case.vectors * cols).map(|_| float(&mut random) * 4.0).collect();
        Self { layout, skip, weight, scales, biases, x }
    }
    fn matrix(&self) -> MatrixRef<'_> {
        let (weight, scales, biases) =
            (&self.weight[self.skip..], &self.scales[self.skip..], &self.biases[self.skip..]);
        MatrixRef::new(self.layout, weight, scales, Some(biases)).expect("a matrix")
    }
}

/// A head of such a layout whose numbers are ordinary, but for one row of scales that are as large as can be, and in a format with
/// codes that are NaN for two rows that have some.
fn head_of(layout: Layout, seed: u64) -> MatrixBuf {
    let (mut head, mut random) = (MatrixBuf::random(layout, seed), SplitMix64(seed));
    let (scale_type, last) = (layout.scale_type(), layout.rows() - 1);
    for tensor in [Tensor::Scales, Tensor::Biases] {
        let row_bytes = layout.row_bytes(tensor);
        let Some(part) = head.part_mut(tensor) else { continue };
        for number in part.chunks_exact_mut(scale_type.size()) {
            number.copy_from_slice(&encode(scale_type, (random.unit() - 0.3) * 0.2));
        }
        if scale_type == FloatType::E8m0 {
            part[last * row_bytes..].fill(248);
        }
    }
    if layout.format() == Format::MXFP8 {
        let row_bytes = layout.weight_row_bytes();
        let (rows, weight) = (layout.rows(), head.part_mut(Tensor::Weight).expect("every format has codes"));
        for code in weight.iter_mut().filter(|code| **code & 0x7f == 0x7f) {
            *code ^= 0x10;
        }
        weight[rows / 2 * row_bytes + 5] = 0x7f;
        weight[row_bytes - 1] = 0xff;
    }
    head
}

#[test]
fn every_format_gives_the_bits_of_the_specification_on_every_path() {
    let kernels = kernels();
    for format in Format::all() {
        let group = format.group_size();
        for &scale_type in format.scale_types() {
            let mut reached = Reached::default();
            // So few columns that rows are short and whole groups; parts of a panel that are not as long as each other; streams.
            let long = (8 * 1024_usize / format.width().bits()).next_multiple_of(128);
            for (rows, cols, vectors) in
                [(13, 3 * group, 1), (37, 5 * group, 7), (6, 11 * 128, 1), (9, 11 * 128, 13), (70, long, 1)]
            {
                let layout = Layout::new(rows, cols, format, scale_type).expect("a layout");
                let x = oracle::vectors(vectors * cols, 7);
                let head = head_of(layout, 11);
                let shifts = if rows == 70 { &[0, 0x9abc_def1][..] } else { &[0, 1, 0x9abc_def1][..] };
                oracle::products(&head, shifts, &x, true, &mut reached).unwrap_or_else(|wrong| panic!("{wrong}"));
            }
            let common = format.has_biases() && matches!(format.width().bits(), 4 | 8);
            let floats_of_8_bits = format == Format::MXFP8;
            for kernel in kernels.iter().filter(|kernel| **kernel != Kernel::SCALAR) {
                let mut paths = vec!["registers", "panel", "panel in parts"];
                paths.extend(kernel.paths().contains(Paths::STREAM).then_some("stream"));
                paths.extend((!common).then_some("copied"));
                paths.extend(floats_of_8_bits.then_some(["NaN codes", "specified"]).into_iter().flatten());
                let classes: Vec<String> = paths.iter().map(|path| format!("{path} by {}", kernel.name())).collect();
                let classes: Vec<&str> = classes.iter().map(String::as_str).collect();
                reached.require(&classes).unwrap_or_else(|missing| panic!("{format} {scale_type:?}: {missing}"));
            }
        }
    }
}

#[test]
fn unquantized_rows_of_any_width_give_the_bits_of_the_specification() {
    let (kernels, mut reached) = (kernels(), Reached::default());
    for float_type in [FloatType::F16, FloatType::Bf16, FloatType::F32] {
        for (rows, cols, vectors) in [(1, 1, 1), (5, 15, 2), (33, 16, 7), (40, 100, 13), (3, 576, 1)] {
            let x = oracle::vectors(vectors * cols, 5);
            oracle::dense((rows, cols), float_type, &x, 5, &mut reached).unwrap_or_else(|wrong| panic!("{wrong}"));
        }
    }
    assert_eq!(reached.count("dense"), 15, "by each of {kernels:?}");
}

/// As the specification of it, on numbers of `random`.
fn rest_of_a_forward_pass(kernel: Kernel, n: usize, random: &mut SplitMix64) -> (Vec<f32>, Vec<f64>) {
    oracle::rest_of_a_forward_pass(kernel, n, || float(random))
}

const WIDTHS: [usize; 4] = [16, 64, 100, 576];

#[test]
fn the_rest_of_a_forward_pass_has_one_result_on_every_kernel() {
    let (kernels, mut reached) = (kernels(), Reached::default());
    for n in WIDTHS {
        oracle::rest(n, 9, &mut reached).unwrap_or_else(|wrong| panic!("{wrong}"));
    }
    assert_eq!(reached.count("rest of a forward pass"), 4, "by each of {kernels:?}");
}

/// BLAKE3 over the bits of results, in order.
#[derive(Default)]
struct Digest(blake3::Hasher);

impl Digest {
    fn integer(&mut self, x: usize) {
        self.0.update(&(x as u64).to_le_bytes());
    }
    /// Which NaN it is, is the processor's choice and no result: all are one here.
    fn single(&mut self, x: f32) {
        let bits = if x.is_nan() { 0x7fc0_0000 } else { x.to_bits() };
        self.0.update(&bits.to_le_bytes());
    }
    /// As [`Digest::single`].
    fn double(&mut self, x: f64) {
        let bits = if x.is_nan() { 0x7ff8_0000_0000_0000 } else { x.to_bits() };
        self.0.update(&bits.to_le_bytes());
    }
    fn hex(&self) -> String {
        self.0.finalize().to_hex().to_string()
    }
}

/// Found on x86-64 by the scalar kernel; the arithmetic of a run is changed where one of these changes, and
/// then results that were stored before can no longer be replayed to the bit.
const PRODUCTS: &str = "8484a6767265f7c3fec2a9e431f29c7341d34d784986b815994ff2994ef85e6a";
const REST: &str = "3f68ced24d9d3f41251a21f74876ce309ffbc9ce6d6710b3a73b7347efaf4638";
const TRAJECTORIES: &str = "ece91871c4acb02086a6fcb9f8fc005d11d77dab4bc9733d94ab009e51d85b39";
const DIVERGENCES: &str = "658b0f27ad3453dcdde540c8ee4e6904b947824aa61f2b3d89aac8ef24786885";

#[test]
fn products_are_equal_across_instruction_sets() {
    for kernel in kernels() {
        let team = Team::new(2);
        let mut digest = Digest::default();
        let mut finite = 0;
        let mut seed = 0;
        for bits in [4, 8] {
            for float_type in [FloatType::F16, FloatType::Bf16, FloatType::F32] {
                for special in [false, true] {
                    for (rows, groups, group_size, vectors) in [(37, 3, 32, 1), (45, 2, 64, 3), (33, 1, 128, 13)] {
                        seed += 1;
                        let shifts = vec![0, 1, 0x10, 0x8000_0000, 0x1234_5678, u32::MAX];
                        let odd = seed % 2 == 1;
                        let case =
                            Case { rows, groups, group_size, bits, float_type, vectors, shifts, odd, special, seed };
                        let drawn = Drawn::new(&case);
                        let prepared = Activations::from_rows(kernel, drawn.layout.cols(), &drawn.x);
                        for &shift in &case.shifts {
                            let mut out = vec![f32::NAN; rows * vectors];
                            let products = vec![Product { shift, x: prepared.all(), out: &mut out }];
                            let weights = WeightsRef::Quantized(drawn.matrix());
                            multiply(kernel, &team, &mut [Pass { weights, products }]);
                            finite += out.iter().filter(|y| y.is_finite()).count();
                            out.iter().for_each(|&y| digest.single(y));
                        }
                    }
                }
            }
        }
        assert!(finite > 10_000, "{finite} finite products");
        assert_eq!(digest.hex(), PRODUCTS, "{kernel}");
    }
}

#[test]
fn the_rest_of_a_forward_pass_is_equal_across_instruction_sets() {
    for kernel in kernels() {
        let mut digest = Digest::default();
        for n in WIDTHS {
            let (all, wide) = rest_of_a_forward_pass(kernel, n, &mut SplitMix64(n as u64));
            all.iter().for_each(|&y| digest.single(y));
            wide.iter().for_each(|&y| digest.double(y));
        }
        assert_eq!(digest.hex(), REST, "{kernel}");
    }
}

fn trials(kernel: Kernel, tied: bool) -> Vec<Trial> {
    let fixture = Fixture { seed: 1, tie_word_embeddings: Some(tied), num_hidden_layers: 3, ..Fixture::default() };
    let checkpoint = Arc::new(Checkpoint::from_files(fixture.files()).expect("a checkpoint"));
    let team = Arc::new(Team::new(2));
    let body = Decoder::new(Arc::clone(&checkpoint), kernel, Arc::clone(&team));
    let head = checkpoint.head().view();
    let mut projection = CpuProjection::new(head, kernel, &team);
    let tying = if tied { Tying::Shared(head) } else { Tying::Separate };
    let prompts = [vec![1, 7, 9, 30], vec![60], (0..40).map(|i| (i * 7 + 3) % 90).collect()];
    let plans = [0, 1, 0x10, 0x100, 0x8000_0000, 0x1234_5678].map(|shift| Plan { shift, ..Plan::default() });
    let task = Task { prompts: prompts.iter().map(Vec::as_slice).collect(), eos: &[2, 5], max_tokens: 16, tying };
    Trials::new(body, kernel, &team, task).all(&mut projection, &plans).expect("trials")
}

#[test]
fn trials_are_equal_across_instruction_sets() {
    for kernel in kernels() {
        let (mut trajectories, mut divergences) = (Digest::default(), Digest::default());
        let (mut steps, mut diverged) = (0, 0);
        for trial in [false, true].into_iter().flat_map(|tied| trials(kernel, tied)) {
            trajectories.integer(trial.prompt);
            trajectories.integer(trial.edit);
            trajectories.integer(trial.trajectory.tokens.len());
            trial.trajectory.steps().for_each(|token| trajectories.integer(token as usize));
            trajectories.0.update(format!("{:?}", trial.trajectory.finish).as_bytes());
            trial.trajectory.margin.iter().for_each(|&margin| trajectories.single(margin));
            trial.trajectory.surprise.iter().for_each(|&surprise| trajectories.double(surprise));
            trial.divergence.iter().for_each(|&divergence| divergences.double(divergence));
            trial.agreement.iter().for_each(|&agrees| divergences.integer(usize::from(agrees)));
            steps += trial.trajectory.steps().count();
            diverged += trial.divergence.iter().filter(|&&divergence| divergence > 0.01).count();
        }
        assert!(steps > 100 && diverged > 100, "{steps} steps, {diverged} that diverged");
        let found = [trajectories.hex(), divergences.hex()];
        assert_eq!(found, [TRAJECTORIES, DIVERGENCES], "{kernel}");
    }
}
