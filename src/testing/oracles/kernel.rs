//! Law 4: every kernel gives the bits of the specification, `scalar.rs`, whatever the batch, the shift, the
//! alignment and the number of threads. Here the arithmetic is one on all instruction sets, so no bound is needed.

use arbitrary::{Arbitrary, Result, Unstructured};
use serde::{Deserialize, Serialize};

use super::{
    Case, LawResult, Reached, Violation, claim,
    logits::{self, instruction_sets},
};
use crate::{
    kernels::{Activations, Asking, Differences, Kernel, Pass, Paths, Product, Scores, Top, multiply, scalar, tops},
    model::{CpuProjection, Projection},
    quant::{DenseRef, FloatType, Layout, MatrixBuf, MatrixRef, Tensor, WeightsRef},
    random::SplitMix64,
    testing::{
        comparators::{POISON, all_written, same_bits, same_bits_double},
        heads::{encode, team},
        strategies::{choose, edits, heads as shapes, one_in, some},
    },
};

const LAW: u8 = 4;

/// `count` numbers from -4 to 4.
pub fn vectors(count: usize, seed: u64) -> Vec<f32> {
    let mut random = SplitMix64(seed);
    (0..count).map(|_| (random.unit() - 0.5) * 8.0).collect()
}

/// A head, shifts of it, and what is multiplied by it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Products {
    /// The matrix.
    pub head: MatrixBuf,
    /// One product each, in one pass.
    pub shifts: Vec<u32>,
    /// Vectors, all drawn from `seed`.
    pub vectors: usize,
    /// Seed of the vectors.
    pub seed: u64,
    /// Whether the matrix lies at an odd address.
    pub odd: bool,
    /// Columns of the vectors that the rest of a forward pass is computed on, a multiple of 4.
    pub columns: usize,
}

impl<'a> Arbitrary<'a> for Products {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let shifts = some(u, 1, 2, |u| Ok(edits::shift(u)? as u32))?;
        let mut vectors = u.int_in_range(1..=19)?;
        let (seed, odd) = (u.arbitrary()?, one_in(u, 2)?);
        let columns = 4 * u.int_in_range(1..=40)?;
        let layout = if one_in(u, 2)? { shapes::long_layout(u)? } else { shapes::layout(u)? };
        // As many products as those of short rows: what long ones are here for is few rows, or few vectors.
        if layout.rows() * layout.cols() > 32 * 640 {
            vectors = choose(u, &[1, 1, 1, 3])?;
        }
        Ok(Self { shifts, vectors, seed, odd, columns, head: shapes::filled(u, layout)? })
    }
}

impl Case for Products {
    const NAME: &'static str = "kernels";
    const CLASSES: &'static [&'static str] = &[
        "scalar",
        "finite",
        "not finite",
        "chosen",
        "dense",
        "rest of a forward pass",
        "statistics",
        "statistics that are not finite",
    ];
    const ENTROPY: usize = 64;

    /// Every kernel that this processor can run, and every path of each instruction set and screen.
    fn classes() -> Vec<String> {
        let kernels = Kernel::available();
        let mut classes: Vec<String> = Self::CLASSES.iter().map(ToString::to_string).collect();
        classes.extend(kernels.iter().map(ToString::to_string));
        classes.extend(kernels.iter().flat_map(|&kernel| path_classes(kernel, kernel.paths())));
        if kernels.iter().any(|kernel| kernel.screen_name() != NO_SCREEN) {
            classes.push(RIVALS.to_owned());
        }
        classes.sort_unstable();
        classes.dedup();
        classes
    }

    fn check(&self, reached: &mut Reached) -> LawResult {
        let x = vectors(self.vectors * self.head.layout().cols(), self.seed);
        products(&self.head, &self.shifts, &x, self.odd, reached)?;
        let shape = (self.head.layout().rows(), self.columns);
        let x = vectors(self.columns * self.vectors, self.seed);
        dense(shape, self.head.layout().scale_type(), &x, self.seed, reached)?;
        rest(self.columns, self.seed, reached)?;
        if self.head.layout().format().has_biases() {
            rivals(self.head.layout(), self.shifts[0], self.seed, reached)?;
        }
        // A few spans of them, the last one not whole.
        logits::statistics(9 * self.columns, self.seed, reached)
    }
}

/// [`Kernel::screen_name`] of kernels that compute all logits: one for each way of multiplying.
const NO_SCREEN: &str = "logits";
/// What a case has reached whose rows lie as close to each other as a screen's bound is wide.
const RIVALS: &str = "rivals within the bound";

/// `paths`, each with the instruction set that went it, or the screen.
fn path_classes(kernel: Kernel, paths: Paths) -> impl Iterator<Item = String> {
    paths.names().map(move |path| {
        let by = if path.starts_with("screen") { kernel.screen_name() } else { kernel.name() };
        format!("{path} by {by}")
    })
}

fn reach(kernel: Kernel, paths: Paths, reached: &mut Reached) {
    path_classes(kernel, paths).for_each(|class| reached.one(&class));
}

/// Products of a head under shifts, by every kernel of this processor, on one and two threads.
///
/// # Errors
/// The violation.
pub fn products(head: &MatrixBuf, shifts: &[u32], x: &[f32], odd: bool, reached: &mut Reached) -> LawResult {
    // One byte ahead of the data makes every part misaligned.
    let moved = |part: &Vec<u8>| [&[0][..usize::from(odd)], part].concat();
    let (weight, scales, biases) = (moved(head.weight()), moved(head.scales()), head.biases().map(moved));
    let [weight, scales] = [&weight, &scales].map(|part| &part[usize::from(odd)..]);
    let biases = biases.as_ref().map(|part| &part[usize::from(odd)..]);
    let matrix = MatrixRef::new(*head.layout(), weight, scales, biases).expect("the head's own parts");
    let (rows, cols) = (head.layout().rows(), head.layout().cols());
    let mut row = vec![0.0; cols];
    let expected: Vec<Vec<f32>> = shifts
        .iter()
        .map(|&shift| {
            let mut out = vec![0.0; x.len() / cols * rows];
            for r in 0..rows {
                scalar::dequantize_row(&matrix, shift, r, &mut row);
                for (v, x) in x.chunks_exact(cols).enumerate() {
                    out[v * rows + r] = scalar::dot(&row, x);
                }
            }
            out
        })
        .collect();
    for kernel in Kernel::available() {
        for threads in [1, 2] {
            reach(kernel, chosen(&matrix, kernel, threads, (shifts, x), &expected)?, reached);
            reached.one("chosen");
            reached.one(&kernel.to_string());
            // With a screen or without, products are the same.
            if kernel != Kernel::SCALAR && kernel.screen_name() != NO_SCREEN {
                continue;
            }
            let prepared = Activations::from_rows(kernel, cols, x);
            let mut outs: Vec<Vec<f32>> = expected.iter().map(|out| vec![POISON; out.len()]).collect();
            let products =
                shifts.iter().zip(&mut outs).map(|(&shift, out)| Product { shift, x: prepared.all(), out }).collect();
            let weights = WeightsRef::Quantized(matrix);
            reach(kernel, multiply(kernel, team(threads), &mut [Pass { weights, products }]), reached);
            for ((shift, out), expected) in shifts.iter().zip(&outs).zip(&expected) {
                let what = || format!("{kernel} under shift {shift} on {threads} threads");
                equal(out, expected, "a product has the bits of the specification", what)?;
            }
        }
    }
    let finite = expected.iter().flatten().all(|y| y.is_finite());
    reached.one(if finite { "finite" } else { "not finite" });
    Ok(())
}

/// The two largest logits of each vector under each shift are those among `all`, to the bit; the paths on which they were found.
fn chosen(
    matrix: &MatrixRef<'_>,
    kernel: Kernel,
    threads: usize,
    (shifts, x): (&[u32], &[f32]),
    all: &[Vec<f32>],
) -> std::result::Result<Paths, Violation> {
    let (rows, cols) = (matrix.layout().rows(), matrix.layout().cols());
    let queries: Vec<(u32, &[f32])> =
        shifts.iter().flat_map(|&shift| x.chunks_exact(cols).map(move |x| (shift, x))).collect();
    let (found, paths) = match tops(kernel, team(threads), matrix, &queries) {
        Some(found) => (found.tops, found.paths),
        None => {
            let mut head = CpuProjection::new(*matrix, kernel, team(threads));
            (head.tops(&queries).expect("no backend to fail"), Paths::NONE)
        }
    };
    let expected = all.iter().flat_map(|logits| logits.chunks_exact(rows)).map(|logits| Kernel::SCALAR.top(logits));
    for ((found, expected), (shift, _)) in found.into_iter().zip(expected).zip(queries) {
        // Zeros of different signs are equal, but not the same.
        let bits = |top: Option<Top>| top.map(|top| (top.token, top.best.to_bits(), top.second.to_bits()));
        claim!(
            LAW,
            bits(found) == bits(expected),
            "the two largest logits, found without the others, are those among all",
            "{kernel} under shift {shift} on {threads} threads: {found:?}, not {expected:?}"
        );
    }
    Ok(paths)
}

/// A row whose logit is as far above what a screen makes of it as the screen's bound allows, and two that come right behind it: a
/// bound that is any narrower passes over the largest logit of all.
///
/// In each group one column of the hidden state is so large that all others are less than half a step of integers, and are taken
/// for 0. The row has the largest code where such a column is positive and the smallest where it is negative, so that all that
/// is lost adds up. Its rivals have scales of 0: of them nothing is lost.
///
/// # Errors
/// The violation.
pub(crate) fn rivals(like: &Layout, shift: u32, seed: u64, reached: &mut Reached) -> LawResult {
    let screens: Vec<Kernel> =
        Kernel::available().into_iter().filter(|kernel| kernel.paths().contains(Paths::SCREEN)).collect();
    if screens.is_empty() {
        return Ok(());
    }
    // Three blocks of rows that are screened together, and some more rows, which have logits of 0.
    let (layout, mut random) = (like.with_rows(52), SplitMix64(seed));
    let (cols, group_size) = (layout.cols(), layout.group_size());
    let mut hidden: Vec<f32> = (0..cols)
        .map(|_| {
            let part = (0.3 + 0.19 * random.unit()) / 127.0;
            if random.next_u64().is_multiple_of(2) { part } else { -part }
        })
        .collect();
    for group in hidden.chunks_exact_mut(group_size) {
        group[2 * (random.next_u64() as usize % (group_size / 2))] = 1.0;
    }
    let row = 1 + (random.next_u64() % 3) as usize;
    let largest = layout.width().mask();
    let codes: Vec<u32> = hidden.iter().map(|&x| if x > 0.0 { largest } else { 0 }).collect();
    let packed = layout.width().pack(&codes);
    let words = packed.chunks_exact(4).map(|word| {
        let word = u32::from_le_bytes(word.try_into().expect("four bytes"));
        word.wrapping_add(shift).to_le_bytes()
    });
    let mut head = MatrixBuf::zeros(layout);
    let (row_bytes, size) = (layout.weight_row_bytes(), layout.scale_type().size());
    let weight = head.part_mut(Tensor::Weight).expect("every format has codes");
    weight[row * row_bytes..][..row_bytes].copy_from_slice(&words.flatten().collect::<Vec<u8>>());
    let scale = 1.0 / 128.0;
    let bias_of_row = -scale * largest as f32 / 2.0;
    let mut set = |tensor: Tensor, row: usize, value: f32| {
        let numbers = encode(layout.scale_type(), value).repeat(layout.groups_per_row());
        let part = head.part_mut(tensor).expect("an affine format has scales and biases");
        part[row * numbers.len()..][..numbers.len()].copy_from_slice(&numbers);
    };
    set(Tensor::Scales, row, scale);
    set(Tensor::Biases, row, bias_of_row);
    let sum: f32 = hidden.iter().sum();
    let logit: f32 = codes.iter().zip(&hidden).map(|(&code, x)| (scale * code as f32 + bias_of_row) * x).sum();
    // The largest number of this type that leaves them behind the row.
    let rival = |behind: f32| {
        let bytes = encode(layout.scale_type(), logit * (1.0 - behind) / sum);
        let bits = bytes.iter().rev().fold(0_u32, |bits, &byte| bits << 8 | u32::from(byte));
        let below = (bits - 1).to_le_bytes()[..size].to_vec();
        let number = |bytes: &[u8]| layout.scale_type().get(bytes, 0);
        if number(&bytes) * sum < logit * (1.0 - 1e-5) { number(&bytes) } else { number(&below) }
    };
    set(Tensor::Biases, 16 + row, rival(1e-5));
    set(Tensor::Biases, 32 + 2 * row, rival(1e-4));
    let matrix = head.view();
    let mut weights = vec![0.0; cols];
    let logits: Vec<f32> = (0..layout.rows())
        .map(|row| {
            scalar::dequantize_row(&matrix, shift, row, &mut weights);
            scalar::dot(&weights, &hidden)
        })
        .collect();
    claim!(
        LAW,
        (0..layout.rows()).all(|other| other == row || logits[other] < logits[row]),
        "the row that was made the largest is it, by the specification as well",
        "row {row} has {}",
        logits[row]
    );
    for kernel in screens {
        for states in [1, 2] {
            let paths = chosen(&matrix, kernel, 1, (&[shift], &hidden.repeat(states)), &[logits.repeat(states)])?;
            reach(kernel, paths, reached);
            reached.one_if(paths != Paths::NONE, RIVALS);
        }
    }
    Ok(())
}

/// Products of an unquantized matrix of `(rows, cols)` numbers drawn from `seed`, at an odd address.
///
/// # Errors
/// The violation.
pub fn dense(
    (rows, cols): (usize, usize),
    float_type: FloatType,
    x: &[f32],
    seed: u64,
    reached: &mut Reached,
) -> LawResult {
    let data: Vec<u8> =
        [0].into_iter().chain(vectors(rows * cols, !seed).iter().flat_map(|&y| encode(float_type, y))).collect();
    let matrix = DenseRef::new(rows, cols, float_type, &data[1..]).expect("as long as its shape asks for");
    let mut expected = vec![0.0; x.len() / cols * rows];
    let mut row = vec![0.0; cols];
    for r in 0..rows {
        scalar::widen_row(&matrix, r, &mut row);
        for (v, x) in x.chunks_exact(cols).enumerate() {
            expected[v * rows + r] = scalar::dot(&row, x);
        }
    }
    for kernel in instruction_sets() {
        let prepared = Activations::from_rows(kernel, cols, x);
        let mut out = vec![POISON; expected.len()];
        let products = vec![Product { shift: 0, x: prepared.all(), out: &mut out }];
        reach(kernel, multiply(kernel, team(2), &mut [Pass { weights: WeightsRef::Dense(matrix), products }]), reached);
        let what = || format!("{}, {rows} x {cols}", kernel.name());
        equal(&out, &expected, "a product of unquantized rows has the bits of the specification", what)?;
    }
    reached.one("dense");
    Ok(())
}

fn equal(out: &[f32], expected: &[f32], claim: &'static str, what: impl Fn() -> String) -> LawResult {
    if let Err(at) = all_written(out) {
        return Err(Violation { law: LAW, claim: "every output is written", seen: format!("{}: {at} not", what()) });
    }
    same_bits(out, expected).map_err(|difference| Violation {
        law: LAW,
        claim,
        seen: format!("{}: {difference}", what()),
    })
}

/// Products of query and key that are only multiplied.
const fn scaled(scale: f32) -> Scores<'static> {
    Scores { scale, softcap: None, sinks: None }
}

/// Outputs of everything that is not a product, on `n` columns drawn from `seed`.
pub fn rest_of_a_forward_pass(kernel: Kernel, n: usize, mut next: impl FnMut() -> f32) -> (Vec<f32>, Vec<f64>) {
    let mut floats = |n: usize| -> Vec<f32> { (0..n).map(|_| next() * 3.0).collect() };
    let (x, w, up) = (floats(n), floats(n), floats(n));
    let (cos, sin) = (floats(n / 4), floats(n / 4));
    let (keys, values): (Vec<_>, Vec<_>) = (0..37).map(|_| (floats(n), floats(n))).unzip();
    let mut all = Vec::new();
    let mut out = vec![0.0; n];
    kernel.rms_norm(&x, &w, 1e-5, &mut out);
    all.extend_from_slice(&out);
    let mut gate = x.clone();
    kernel.silu(&mut gate);
    kernel.multiply(&mut gate, &up);
    all.extend_from_slice(&gate);
    let mut sum = x.clone();
    kernel.add(&mut sum, &up);
    all.extend_from_slice(&sum);
    let mut turned = x.clone();
    kernel.rope(&mut turned, (2 * cos.len()).max(1), &cos, &sin);
    all.extend_from_slice(&turned);
    let (keys, values): (Vec<&[f32]>, Vec<&[f32]>) = keys.iter().zip(&values).map(|(k, v)| (&k[..], &v[..])).unzip();
    let mut asking = [Asking { q: &x, over: 0..keys.len(), out: &mut out }];
    kernel.attend(&mut asking, n, &scaled(0.125), &keys, &values);
    all.extend_from_slice(&out);
    let top = kernel.top(&x).expect("finite");
    all.extend([top.token as f32, top.best, top.second]);
    let log_sum = kernel.log_sum_exp(&x);
    let mut wide = vec![0.0; n];
    kernel.probabilities(&x, log_sum, &mut wide);
    let difference = Differences::new(kernel, &wide, &x, &w).mean();
    wide.extend([log_sum, difference]);
    (all, wide)
}

/// Outputs of what only some families have, on `n` columns drawn from `next`.
pub(crate) fn rest_of_other_families(kernel: Kernel, n: usize, mut next: impl FnMut() -> f32) -> Vec<f32> {
    let mut floats = |n: usize| -> Vec<f32> { (0..n).map(|_| next() * 3.0).collect() };
    let (x, w) = (floats(n), floats(n));
    let (cos, sin) = (floats(n / 8), floats(n / 8));
    let (keys, values): (Vec<_>, Vec<_>) = (0..19).map(|_| (floats(n), floats(n))).unzip();
    let (keys, values): (Vec<&[f32]>, Vec<&[f32]>) = keys.iter().zip(&values).map(|(k, v)| (&k[..], &v[..])).unzip();
    let mut all = Vec::new();
    let mut out = vec![0.0; n];
    kernel.rms_norm_plain(&x, 1e-5, &mut out);
    all.extend_from_slice(&out);
    kernel.layer_norm(&x, &w, 1e-5, &mut out);
    all.extend_from_slice(&out);
    let mut changed = |change: &dyn Fn(&mut [f32])| {
        let mut out = x.clone();
        change(&mut out);
        all.extend_from_slice(&out);
    };
    changed(&|out| kernel.gelu(out));
    changed(&|out| kernel.gelu_tanh(out));
    changed(&|out| kernel.relu_squared(out));
    changed(&|out| kernel.xielu(out, &[0.8, 1.3, 0.5, -1e-6]));
    changed(&|out| kernel.softcap(out, 1.5));
    changed(&|out| kernel.scale(out, 0.7));
    // A part of a head, of both kinds of pairs.
    let head_dim = (n / 8 * 4).max(1);
    let heads = n / head_dim * head_dim;
    changed(&|out| kernel.rope(&mut out[..heads], head_dim, &cos, &sin));
    changed(&|out| kernel.rope_neighbours(&mut out[..heads], head_dim, &cos, &sin));
    for (softcap, sinks) in [(Some(2.0), None), (None, Some(&w[..1])), (Some(2.0), Some(&w[..1]))] {
        let mut asking = [Asking { q: &x, over: 0..keys.len(), out: &mut out }];
        kernel.attend(&mut asking, n, &Scores { scale: 0.125, softcap, sinks }, &keys, &values);
        all.extend_from_slice(&out);
    }
    out.copy_from_slice(&x);
    kernel.multiply_add(&mut out, &w, keys[0]);
    all.extend_from_slice(&out);
    kernel.sigmoid(&mut out);
    all.extend_from_slice(&out);
    // Two steps, of heads whose values are wider than their keys.
    let (mut state, mut written) = (values[..7].concat(), vec![POISON; n]);
    for (at, value) in [(0, &x), (n.saturating_sub(7), &w)] {
        let [query, key] = [keys[1], keys[2]].map(|x| &x[at..][..7.min(n)]);
        kernel.delta_rule(&mut state, [query, key, value], [0.9, 0.4], &mut written, &mut out);
        all.extend_from_slice(&out);
    }
    all.extend_from_slice(&state);
    all
}

/// Several heads at several positions attend together as each would alone by the specification, whatever stretches their path lies in.
fn attention(columns: usize, seed: u64) -> LawResult {
    let mut random = SplitMix64(seed);
    let mut floats = |n: usize| -> Vec<f32> { (0..n).map(|_| 6.0 * random.unit() - 3.0).collect() };
    // Lengths of stretches around those of which blocks are made, alone and together.
    let lengths = [3, 1, 64, 1, 1, 60, 2, 63, 5];
    let stretches = |floats: &mut dyn FnMut(usize) -> Vec<f32>| lengths.map(|len| floats(len * columns));
    let (heads, keys, values) = (floats(3 * 5 * columns), stretches(&mut floats), stretches(&mut floats));
    let (keys, values) = (keys.each_ref().map(|x| &x[..]), values.each_ref().map(|x| &x[..]));
    let overs = [0..200, 70..71, 130..199];
    for kernel in instruction_sets() {
        for count in 1..=5 {
            let q: Vec<&[f32]> = heads.chunks_exact(5 * columns).map(|heads| &heads[..count * columns]).collect();
            let mut together = vec![vec![POISON; count * columns]; overs.len()];
            let asking = overs.iter().zip(&q).zip(&mut together);
            let mut asking: Vec<Asking<'_>> =
                asking.map(|((over, q), out)| Asking { q, over: over.clone(), out }).collect();
            kernel.attend(&mut asking, columns, &scaled(0.25), &keys, &values);
            for ((over, q), together) in overs.iter().zip(&q).zip(&together) {
                let mut alone = vec![POISON; count * columns];
                for (q, out) in q.chunks_exact(columns).zip(alone.chunks_exact_mut(columns)) {
                    let rows = |x: &[&[f32]]| x.concat()[over.start * columns..over.end * columns].to_vec();
                    let mut asking = [Asking { q, over: 0..over.len(), out }];
                    Kernel::SCALAR.attend(&mut asking, columns, &scaled(0.25), &[&rows(&keys)], &[&rows(&values)]);
                }
                let what = || format!("{} with {count} heads of {columns} columns over {over:?}", kernel.name());
                equal(together, &alone, "heads and positions that share keys attend as each would alone", what)?;
            }
        }
    }
    Ok(())
}

/// Everything of a forward pass that is not a product has one result on every kernel.
///
/// # Errors
/// The violation.
pub fn rest(columns: usize, seed: u64, reached: &mut Reached) -> LawResult {
    let run = |kernel| {
        let mut random = SplitMix64(seed);
        rest_of_a_forward_pass(kernel, columns, || 2.0 * random.unit() - 1.0)
    };
    let (expected, expected_wide) = run(Kernel::SCALAR);
    for kernel in instruction_sets() {
        let (found, wide) = run(kernel);
        let difference = same_bits(&found, &expected).err().or(same_bits_double(&wide, &expected_wide).err());
        claim!(
            LAW,
            difference.is_none(),
            "the rest of a forward pass has one result on every kernel",
            "{} with {columns} columns: {difference:?}",
            kernel.name()
        );
    }
    let of_others = |kernel| {
        let mut random = SplitMix64(seed ^ 1);
        rest_of_other_families(kernel, columns, || 2.0 * random.unit() - 1.0)
    };
    let expected = of_others(Kernel::SCALAR);
    for kernel in instruction_sets() {
        let what = || format!("{} with {columns} columns", kernel.name());
        equal(&of_others(kernel), &expected, "what some families have has one result on every kernel", what)?;
    }
    attention(columns, !seed)?;
    reached.one("rest of a forward pass");
    Ok(())
}
