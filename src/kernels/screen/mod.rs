//! The two largest logits of a hidden state, without all the others.
//!
//! A greedy step asks for two logits of a hundred thousand. Here every row is first multiplied in integers, several
//! times as fast as the specification's order of additions allows, and with a bound on how far that can be from the
//! logit that [`super::multiply`] gives. Blocks of rows whose every logit is below two others are passed over; those
//! that are left are multiplied as specified. So what comes out has the bits of a search through all logits.
//!
//! # The bound
//!
//! With `q[c]` an integer of 16 bits and `x[c] = t q[c] + d[c]`, the exact logit of a row is
//!
//! ```text
//! z = sum_g scales[g] t sum_(c in g) code[c] q[c]  +  scales[g] sum code[c] d[c]  +  biases[g] sum x[c]
//! ```
//!
//! The inner sum of the first part is exact. The second part is at most `|scales[g]| m D[g]`, where `m` is the largest
//! code and `D[g] = sum |d[c]|`; it is left out. What is evaluated in `f32` passes through at most `G + 5` roundings for
//! `G` groups: the conversion of the integer or of `sum x[c]`, the multiply-adds over the groups, one by `t`, three
//! additions of the tree. The executed logit is within `gamma(M + 5) sum |w[c] x[c]|` of `z`, `M = ceil(n / 16)` (derived
//! in `certificate/bound.rs`), and `|w[c]| <= m |scales[g]| + |biases[g]|`. With `N[g] = sum |x[c]|` together
//!
//! ```text
//! |executed - evaluated| <= max |scales[g]| sum_g m (D[g] + gamma(M + 5) N[g] + gamma(G + 5) (N[g] + D[g]))
//!                         + max |biases[g]| sum_g (gamma(M + 5) + gamma(G + 5)) N[g]  +  what is lost below the normal numbers
//! ```
//!
//! Both sums are raised by 2^-40, which costs nothing, so that a bound below 2^30 also says that scales and biases are
//! far too small for anything to overflow. A row whose bound is not below it (an infinite scale, a NaN) is always
//! multiplied as specified.

mod x86;

use std::cell::RefCell;

use super::{Activations, BLOCK_ROWS, Kernel, LANES, SCRATCH, Top, rounding::gamma, vector::larger};
use crate::{
    quant::{Bits, Layout, MatrixRef, WeightsRef},
    team::Team,
};

/// Bytes that are multiplied at once.
const WIDE: usize = 32;
/// Groups whose scales and biases are taken at once.
const GROUPS: usize = 8;
/// The largest of 16 bits that splits into two signed bytes.
const LARGEST: f64 = 32_639.0;
/// Bounds from here on say nothing.
const NO_BOUND: f32 = (1_u32 << 30) as f32;

/// Bytes of signed halves of `q`, aligned as the loops load them.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
struct Bytes([i8; WIDE]);

/// A hidden state as integers, and what the bound asks of it.
struct Probe {
    /// Of the matrix that it is for.
    layout: Layout,
    /// Whether it is the first of those that are held against a block; it reads ahead for all.
    first: bool,
    /// Subtracted from each packed word.
    shift: u32,
    /// For each 32 bytes of packed words (16, where a group has no more) the upper bytes of `q`, then the lower ones;
    /// with codes of 4 bits of each first those of the low nibbles, then those of the high ones.
    q: Vec<Bytes>,
    /// `t`.
    step: f32,
    /// `sum x[c]` of each group, filled up with zeros to a whole number of [`GROUPS`].
    sum: Vec<f32>,
    bound: Bound,
    /// As the specification wants it.
    x: Activations,
}

impl Probe {
    fn new(kernel: Kernel, matrix: &MatrixRef<'_>, first: bool, shift: u32, hidden: &[f32]) -> Self {
        let layout = matrix.layout();
        let (groups, group_size) = (layout.groups_per_row(), layout.group_size());
        let largest_code = match layout.bits() {
            Bits::Four => 15.0,
            Bits::Eight => 255.0,
        };
        let most = hidden.iter().fold(0.0_f64, |most, x| most.max(f64::from(x.abs())));
        // The smallest number where there is nothing else. With an infinity or a NaN all bounds below are NaN.
        let step = (most / LARGEST) as f32;
        let step = if step > 0.0 { step } else { f32::from_bits(1) };
        // A NaN becomes 0; no bound holds then, anyway.
        let quantize = |&x: &f32| (f64::from(x) / f64::from(step)).round().clamp(-LARGEST, LARGEST) as i32;
        let q: Vec<i32> = hidden.iter().map(quantize).collect();

        let mut sum = vec![0.0_f32; groups.next_multiple_of(GROUPS)];
        let (executed, evaluated) = (gamma(hidden.len().div_ceil(LANES) + 5), gamma(groups + 5));
        let (mut norm, mut lost) = (0.0, 0.0);
        for (x, q) in hidden.iter().zip(&q) {
            norm += f64::from(x.abs());
            lost += (f64::from(*x) - f64::from(step) * f64::from(*q)).abs();
        }
        for (g, x) in hidden.chunks_exact(group_size).enumerate() {
            sum[g] = x.iter().map(|&x| f64::from(x)).sum::<f64>() as f32;
        }
        // Of the sums of this function and of the conversion to f32.
        let up = |x: f64| (x * (1.0 + 1e-6)) as f32;
        let raised = 2.0_f64.powi(-40);
        let columns = hidden.len() as f64;
        let bound = Bound {
            by_scale: up(largest_code * (lost + executed * norm + evaluated * (norm + lost) + raised)),
            by_bias: up((executed + evaluated) * norm + raised),
            absolute: up(2.0_f64.powi(-140) * (columns + norm + columns * f64::from(step))),
        };
        let x = Activations::from_rows(kernel, hidden.len(), hidden);
        Self { layout: *layout, first, shift, q: bytes(layout, &q), step, sum, bound, x }
    }

    /// Whether it is for the matrix that `rows` are of.
    fn fits(&self, rows: &MatrixRef<'_>) -> bool {
        self.layout == rows.layout().with_rows(self.layout.rows())
    }
}

/// [`Probe::q`].
fn bytes(layout: &Layout, whole: &[i32]) -> Vec<Bytes> {
    let bits = layout.bits().get();
    let group_bytes = layout.group_size() * bits / 8;
    let wide = group_bytes.min(WIDE);
    let nibbles = 8 / bits;
    let mut q = Vec::with_capacity(layout.weight_row_bytes().div_ceil(wide) * 2 * nibbles);
    for whole in whole.chunks_exact(wide * nibbles) {
        for upper in [true, false] {
            for nibble in 0..nibbles {
                let mut some = Bytes([0; WIDE]);
                for (to, &whole) in some.0.iter_mut().zip(whole.iter().skip(nibble).step_by(nibbles)) {
                    let high = (whole + 128) >> 8;
                    *to = if upper { high } else { whole - (high << 8) } as i8;
                }
                q.push(some);
            }
        }
    }
    q
}

/// The weights of the bound's sums.
#[derive(Clone, Copy)]
struct Bound {
    by_scale: f32,
    by_bias: f32,
    /// The part that depends on neither.
    absolute: f32,
}

/// Scales and biases of a block of rows, widened.
struct Scales {
    /// `[rows, groups]`, with room for [`GROUPS`] more behind.
    scales: Vec<f32>,
    biases: Vec<f32>,
    /// The largest magnitudes of each row; not a number where one is not.
    largest_scale: [f32; BLOCK_ROWS],
    largest_bias: [f32; BLOCK_ROWS],
}

thread_local! {
    static SCALES: RefCell<Scales> = const {
        RefCell::new(Scales {
            scales: Vec::new(),
            biases: Vec::new(),
            largest_scale: [0.0; BLOCK_ROWS],
            largest_bias: [0.0; BLOCK_ROWS],
        })
    };
}

/// Between what the logits of a block lie.
#[derive(Clone, Copy, Debug)]
struct Range {
    /// None is above.
    most: f32,
    /// One is at least so large,
    best: f32,
    /// and another.
    second: f32,
}

impl Range {
    const NONE: Self = Self { most: f32::NEG_INFINITY, best: f32::NEG_INFINITY, second: f32::NEG_INFINITY };

    /// Of `rows` rows, whose logits are nearly `logits`.
    #[inline(always)]
    fn new(rows: usize, logits: &[f32; BLOCK_ROWS], scales: &Scales, bound: &Bound) -> Self {
        let (mut least, mut most) = ([0.0; BLOCK_ROWS], [0.0; BLOCK_ROWS]);
        for row in 0..BLOCK_ROWS {
            let logit = logits[row];
            let error = scales.largest_scale[row] * bound.by_scale + scales.largest_bias[row] * bound.by_bias;
            // The rounding of this, and of the two sums below.
            let error = (error + bound.absolute) * (1.0 + 1.0 / 512.0) + logit.abs() * (1.0 / (1 << 22) as f32);
            // Also false where the error is not a number.
            let bounded = error < NO_BOUND;
            least[row] = if bounded { logit - error } else { f32::NEG_INFINITY };
            most[row] = if bounded { logit + error } else { f32::INFINITY };
        }
        // Rows that are not there are below all others.
        least[rows..].fill(f32::NEG_INFINITY);
        most[rows..].fill(f32::NEG_INFINITY);
        let mut seconds = [f32::NEG_INFINITY; BLOCK_ROWS];
        // Halves upon halves, side by side.
        let mut half = BLOCK_ROWS / 2;
        while half > 0 {
            for l in 0..half {
                let (a, b) = (least[l], least[l + half]);
                let less = if b > a { a } else { b };
                seconds[l] = larger(larger(seconds[l], seconds[l + half]), less);
                least[l] = larger(a, b);
                most[l] = larger(most[l], most[l + half]);
            }
            half /= 2;
        }
        Self { most: most[0], best: least[0], second: seconds[0] }
    }

    /// Takes the logits of another block in.
    #[inline(always)]
    fn join(&mut self, other: &Self) {
        self.most = larger(self.most, other.most);
        let less = if other.best > self.best { self.best } else { other.best };
        self.second = larger(larger(self.second, other.second), less);
        self.best = larger(self.best, other.best);
    }
}

/// The two largest logits of each hidden state under a shift, the first of equals first; `None` if one logit is not
/// finite. `None` for all if this kernel, or processor, has no loops for such a matrix.
///
/// # Panics
/// If a hidden state is not as long as a row.
pub fn tops(
    kernel: Kernel,
    team: &Team,
    matrix: &MatrixRef<'_>,
    queries: &[(u32, &[f32])],
) -> Option<Vec<Option<Top>>> {
    let layout = matrix.layout();
    let loops = x86::Loops::of(kernel, layout.bits())?;
    if queries.is_empty() {
        return Some(Vec::new());
    }
    let rows = matrix.layout().rows();
    let mut probes: Vec<Option<Probe>> = Vec::new();
    probes.resize_with(queries.len(), || None);
    team.for_each_chunk(&mut probes, 1, |i, probe| {
        let (shift, hidden) = queries[i];
        assert_eq!(hidden.len(), matrix.layout().cols(), "columns of a hidden state and of the matrix");
        probe[0] = Some(Probe::new(kernel, matrix, i == 0, shift, hidden));
    });
    let probes: Vec<Probe> = probes.into_iter().flatten().collect();
    // `[blocks, queries]`.
    let mut ranges = vec![Range::NONE; rows.div_ceil(BLOCK_ROWS) * queries.len()];
    team.for_each_chunk(&mut ranges, queries.len(), |block, ranges| {
        let first = block * BLOCK_ROWS;
        let rows = matrix.rows(first..rows.min(first + BLOCK_ROWS));
        SCALES.with_borrow_mut(|scales| {
            loops.widen(&rows, scales);
            for (probe, range) in probes.iter().zip(ranges) {
                *range = loops.range(&rows, probe, scales);
            }
        });
    });
    // What is left: query, block.
    let mut left: Vec<(usize, usize)> = Vec::new();
    for query in 0..queries.len() {
        let of = |block: usize| &ranges[block * queries.len() + query];
        let blocks = ranges.len() / queries.len();
        let mut all = Range::NONE;
        (0..blocks).for_each(|block| all.join(of(block)));
        left.extend((0..blocks).filter(|&block| of(block).most >= all.second).map(|block| (query, block)));
    }
    let mut logits = vec![0.0; left.len() * BLOCK_ROWS];
    team.for_each_chunk(&mut logits, BLOCK_ROWS, |i, out| {
        let (query, block) = left[i];
        let first = block * BLOCK_ROWS;
        let part = matrix.rows(first..rows.min(first + BLOCK_ROWS));
        let probe = &probes[query];
        let block = probe.x.block(0, part.layout().rows(), out.as_mut_ptr(), BLOCK_ROWS);
        // SAFETY: the vector is in the kernel's layout and as long as a row, and `out`, this item's alone, has a place
        // for each row of the part.
        SCRATCH.with_borrow_mut(|scratch| unsafe {
            kernel.block(&WeightsRef::Quantized(part), probe.shift, block, scratch);
        });
    });
    let mut logits = logits.as_slice();
    let of_each = left.chunk_by(|a, b| a.0 == b.0).map(|blocks| {
        let (own, others) = logits.split_at(blocks.len() * BLOCK_ROWS);
        logits = others;
        // Only the matrix's last block may have fewer rows.
        let last = rows.min((blocks[blocks.len() - 1].1 + 1) * BLOCK_ROWS) - blocks[blocks.len() - 1].1 * BLOCK_ROWS;
        let top = kernel.top(&own[..own.len() - BLOCK_ROWS + last])?;
        let token = blocks[top.token / BLOCK_ROWS].1 * BLOCK_ROWS + top.token % BLOCK_ROWS;
        Some(Top { token, ..top })
    });
    Some(of_each.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        kernels::scalar,
        quant::FloatType,
        testing::{fixture::SplitMix64, heads::encode},
    };

    /// The parts of a matrix of such codes and scales.
    fn parts(layout: &Layout, random: &mut SplitMix64, scale: f32) -> [Vec<u8>; 3] {
        let count = layout.rows() * layout.groups_per_row();
        let weight = (0..layout.rows() * layout.weight_row_bytes()).map(|_| random.next_u64() as u8).collect();
        let mut floats = |by: f32, about: f32| {
            (0..count).flat_map(|_| encode(layout.scale_type(), by * (random.unit() - about))).collect()
        };
        [weight, floats(scale, 0.2), floats(8.0 * scale, 1.1)]
    }

    fn hidden(cols: usize, random: &mut SplitMix64, size: f32) -> Vec<f32> {
        (0..cols).map(|c| (random.unit() - 0.5) * if c % 97 == 5 { 20.0 * size } else { size }).collect()
    }

    fn layouts() -> impl Iterator<Item = Layout> {
        let shapes = [(1, 128), (3, 384), (70, 640), (200, 1152)];
        let kinds = [(Bits::Four, FloatType::F16), (Bits::Four, FloatType::F32), (Bits::Eight, FloatType::Bf16)];
        shapes.into_iter().flat_map(move |(rows, cols)| {
            kinds.into_iter().flat_map(move |(bits, scale_type)| {
                [32, 64, 128].map(|group_size| Layout::new(rows, cols, bits, group_size, scale_type).expect("a layout"))
            })
        })
    }

    #[test]
    fn every_logit_lies_within_its_bounds_and_bounds_are_narrow() {
        let mut seen = 0;
        let mut widest = 0.0_f64;
        for layout in layouts() {
            let mut random = SplitMix64(layout.cols() as u64);
            for (scale, size, shift) in [(0.01, 1.0, 0), (0.01, 1.0, 1_000_001), (1e-4, 1e3, 7), (2.0, 1e-6, u32::MAX)]
            {
                let [weight, scales, biases] = parts(&layout, &mut random, scale);
                let matrix = MatrixRef::new(layout, &weight, &scales, &biases).expect("a matrix");
                let x = hidden(layout.cols(), &mut random, size);
                let mut w = vec![0.0; layout.cols()];
                for kernel in Kernel::available() {
                    let probe = Probe::new(kernel, &matrix, true, shift, &x);
                    for loops in x86::Loops::all(kernel, layout.bits()) {
                        for row in 0..layout.rows() {
                            let one = matrix.row(row);
                            let range = SCALES.with_borrow_mut(|scales| {
                                loops.widen(&one, scales);
                                loops.range(&one, &probe, scales)
                            });
                            scalar::dequantize_row(&matrix, shift, row, &mut w);
                            let z = scalar::dot(&w, &x);
                            assert!(range.best <= z && z <= range.most, "{layout:?} {row}: {z} {range:?}");
                            let sizes: f64 = w.iter().zip(&x).map(|(w, x)| f64::from(w * x).abs()).sum();
                            widest = widest.max(f64::from(range.most - range.best) / sizes);
                            seen += 1;
                        }
                    }
                }
            }
        }
        // A part in a hundred of what is added up, with outliers of thirty times the rest and scales of all sizes.
        assert!(seen == 0 || widest < 1e-2, "{widest}");
        assert_eq!(seen > 1000, !x86::Loops::all(Kernel::best(), Bits::Four).is_empty());
    }

    #[test]
    fn rows_without_a_bound_are_never_passed_over() {
        let layout = Layout::new(96, 128, Bits::Four, 64, FloatType::F32).expect("a layout");
        let mut random = SplitMix64(3);
        let [weight, scales, biases] = parts(&layout, &mut random, 0.01);
        let mut x = hidden(128, &mut random, 1.0);
        let team = Team::new(2);
        let find = |scales: &[u8], biases: &[u8], x: &[f32]| {
            let matrix = MatrixRef::new(layout, &weight, scales, biases).expect("a matrix");
            Kernel::available()
                .into_iter()
                .filter_map(|kernel| tops(kernel, &team, &matrix, &[(0, x)]))
                .flatten()
                .collect()
        };
        let all = |scales: &[u8], biases: &[u8], x: &[f32]| {
            let matrix = MatrixRef::new(layout, &weight, scales, biases).expect("a matrix");
            let mut w = vec![0.0; 128];
            let logits: Vec<f32> = (0..96)
                .map(|row| {
                    scalar::dequantize_row(&matrix, 0, row, &mut w);
                    scalar::dot(&w, x)
                })
                .collect();
            Kernel::SCALAR.top(&logits)
        };
        let tops: Vec<Option<Top>> = find(&scales, &biases, &x);
        assert!(tops.iter().all(|top| top.is_some() && *top == all(&scales, &biases, &x)));
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, -f32::MAX] {
            for (group, row) in [(0, 0), (1, 40), (1, 95)] {
                let at = 4 * (2 * row + group);
                let changed = |part: &[u8]| [&part[..at], &bad.to_le_bytes(), &part[at + 4..]].concat();
                for (scales, biases) in [(changed(&scales), biases.clone()), (scales.clone(), changed(&biases))] {
                    let expected = all(&scales, &biases, &x);
                    assert!(expected.is_none() || bad.is_finite(), "{bad}");
                    assert!(find(&scales, &biases, &x).iter().all(|top| *top == expected), "{bad} in {row}, {group}");
                }
            }
        }
        x[77] = f32::NAN;
        assert!(find(&scales, &biases, &x).iter().all(Option::is_none));
        x[77] = f32::INFINITY;
        assert!(find(&scales, &biases, &x).iter().all(Option::is_none));
        x.fill(0.0);
        let zero = Some(Top { token: 0, best: 0.0, second: 0.0 });
        assert!(find(&scales, &biases, &x).iter().all(|top| *top == zero));
    }
}
