//! Law 4: every kernel gives the bits of the specification, `scalar.rs`, whatever the batch, the shift, the
//! alignment and the number of threads. Here the arithmetic is one on all instruction sets, so no bound is needed.

use arbitrary::{Arbitrary, Result, Unstructured};
use serde::{Deserialize, Serialize};

use super::{Case, Reached, Verdict, Violation, claim, logits};
use crate::{
    kernels::{Activations, Differences, Job, Kernel, Pass, Top, multiply, scalar},
    model::{CpuProjection, Projection},
    quant::{DenseRef, FloatType, MatrixRef, WeightsRef},
    testing::{
        comparators::{POISON, all_written, same_bits, same_bits_double},
        fixture::SplitMix64,
        heads::{SmallHead, encode, team},
        strategies::{edits, one_in, some},
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
    pub head: SmallHead,
    /// One job each, in one pass.
    pub shifts: Vec<u32>,
    /// Vectors, all drawn from `seed`.
    pub vectors: usize,
    /// Of the vectors.
    pub seed: u64,
    /// Whether the matrix lies at an odd address.
    pub odd: bool,
    /// Columns of the vectors that the rest of a forward pass is computed on, a multiple of 4.
    pub columns: usize,
}

impl<'a> Arbitrary<'a> for Products {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let shifts = some(u, 1, 2, |u| Ok(edits::shift(u)? as u32))?;
        Ok(Self {
            shifts,
            vectors: u.int_in_range(1..=19)?,
            seed: u.arbitrary()?,
            odd: one_in(u, 2)?,
            columns: 4 * u.int_in_range(1..=40)?,
            head: u.arbitrary()?,
        })
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

    fn check(&self, reached: &mut Reached) -> Verdict {
        let x = vectors(self.vectors * self.head.layout.cols(), self.seed);
        products(&self.head, &self.shifts, &x, self.odd, reached)?;
        let shape = (self.head.layout.rows(), self.columns);
        let x = vectors(self.columns * self.vectors, self.seed);
        dense(shape, self.head.layout.scale_type(), &x, self.seed, reached)?;
        rest(self.columns, self.seed, reached)?;
        // A few spans of them, the last one not whole.
        logits::statistics(9 * self.columns, self.seed, reached)
    }
}

/// Products of a head under shifts, by every kernel of this processor, on one and two threads.
///
/// # Errors
/// The violation.
pub fn products(head: &SmallHead, shifts: &[u32], x: &[f32], odd: bool, reached: &mut Reached) -> Verdict {
    // One byte ahead of the data makes every part misaligned.
    let parts = head.parts.clone().map(|part| [&[0][..usize::from(odd)], &part].concat());
    let [weight, scales, biases] = [0, 1, 2].map(|i| &parts[i][usize::from(odd)..]);
    let matrix = MatrixRef::new(head.layout, weight, scales, biases).expect("the head's own parts");
    let (rows, cols) = (head.layout.rows(), head.layout.cols());
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
            let prepared = Activations::from_rows(kernel, cols, x);
            let mut outs: Vec<Vec<f32>> = expected.iter().map(|out| vec![POISON; out.len()]).collect();
            let jobs = shifts.iter().zip(&mut outs).map(|(&shift, out)| Job { shift, x: &prepared, out }).collect();
            multiply(kernel, team(threads), &mut [Pass { weights: WeightsRef::Quantized(matrix), jobs }]);
            chosen(&matrix, kernel, threads, (shifts, x), &expected)?;
            reached.one("chosen");
            for ((shift, out), expected) in shifts.iter().zip(&outs).zip(&expected) {
                let what = || format!("{} under shift {shift} on {threads} threads", kernel.name());
                equal(out, expected, "a product has the bits of the specification", what)?;
            }
            reached.one(kernel.name());
        }
    }
    let finite = expected.iter().flatten().all(|y| y.is_finite());
    reached.one(if finite { "finite" } else { "not finite" });
    Ok(())
}

/// The two largest logits of each vector under each shift are those among `all`, to the bit.
fn chosen(
    matrix: &MatrixRef<'_>,
    kernel: Kernel,
    threads: usize,
    (shifts, x): (&[u32], &[f32]),
    all: &[Vec<f32>],
) -> Verdict {
    let (rows, cols) = (matrix.layout().rows(), matrix.layout().cols());
    let queries: Vec<(u32, &[f32])> =
        shifts.iter().flat_map(|&shift| x.chunks_exact(cols).map(move |x| (shift, x))).collect();
    let found = CpuProjection::new(*matrix, kernel, team(threads)).tops(&queries).expect("no backend to fail");
    let expected = all.iter().flat_map(|logits| logits.chunks_exact(rows)).map(|logits| Kernel::SCALAR.top(logits));
    for ((found, expected), (shift, _)) in found.into_iter().zip(expected).zip(queries) {
        // Zeros of different signs are equal, but not the same.
        let bits = |top: Option<Top>| top.map(|top| (top.token, top.best.to_bits(), top.second.to_bits()));
        claim!(
            LAW,
            bits(found) == bits(expected),
            "the two largest logits, found without the others, are those among all",
            "{} under shift {shift} on {threads} threads: {found:?}, not {expected:?}",
            kernel.name()
        );
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
) -> Verdict {
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
    for kernel in Kernel::available() {
        let prepared = Activations::from_rows(kernel, cols, x);
        let mut out = vec![POISON; expected.len()];
        let jobs = vec![Job { shift: 0, x: &prepared, out: &mut out }];
        multiply(kernel, team(2), &mut [Pass { weights: WeightsRef::Dense(matrix), jobs }]);
        let what = || format!("{}, {rows} x {cols}", kernel.name());
        equal(&out, &expected, "a product of unquantized rows has the bits of the specification", what)?;
    }
    reached.one("dense");
    Ok(())
}

fn equal(out: &[f32], expected: &[f32], claim: &'static str, what: impl Fn() -> String) -> Verdict {
    if let Err(at) = all_written(out) {
        return Err(Violation { law: LAW, claim: "every output is written", seen: format!("{}: {at} not", what()) });
    }
    same_bits(out, expected).map_err(|difference| Violation {
        law: LAW,
        claim,
        seen: format!("{}: {difference}", what()),
    })
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
    kernel.swiglu(&mut gate, &up);
    all.extend_from_slice(&gate);
    let mut sum = x.clone();
    kernel.add(&mut sum, &up);
    all.extend_from_slice(&sum);
    let mut turned = x.clone();
    kernel.rope(&mut turned, &cos, &sin);
    all.extend_from_slice(&turned);
    let (keys, values): (Vec<&[f32]>, Vec<&[f32]>) = keys.iter().zip(&values).map(|(k, v)| (&k[..], &v[..])).unzip();
    kernel.attend(&x, 0.125, &keys, &values, &mut out);
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

/// Everything of a forward pass that is not a product has one result on every kernel.
///
/// # Errors
/// The violation.
pub fn rest(columns: usize, seed: u64, reached: &mut Reached) -> Verdict {
    let run = |kernel| {
        let mut random = SplitMix64(seed);
        rest_of_a_forward_pass(kernel, columns, || 2.0 * random.unit() - 1.0)
    };
    let (expected, expected_wide) = run(Kernel::SCALAR);
    for kernel in Kernel::available() {
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
    // Heads that share keys, as many as are taken together and one more.
    let mut random = SplitMix64(!seed);
    let mut floats = |n: usize| -> Vec<f32> { (0..n).map(|_| 6.0 * random.unit() - 3.0).collect() };
    let (heads, keys, values) = (floats(5 * columns), floats(columns * 7), floats(columns * 7));
    let (keys, values) =
        (keys.chunks_exact(columns).collect::<Vec<_>>(), values.chunks_exact(columns).collect::<Vec<_>>());
    for kernel in Kernel::available() {
        for count in 1..=5 {
            let (q, mut together, mut alone) = (&heads[..count * columns], vec![POISON; count * columns], Vec::new());
            kernel.attend(q, 0.25, &keys, &values, &mut together);
            for q in q.chunks_exact(columns) {
                let mut out = vec![POISON; columns];
                Kernel::SCALAR.attend(q, 0.25, &keys, &values, &mut out);
                alone.extend(out);
            }
            let what = || format!("{} with {count} heads of {columns} columns", kernel.name());
            equal(&together, &alone, "heads that share keys attend as each would alone", what)?;
        }
    }
    reached.one("rest of a forward pass");
    Ok(())
}
