//! The two largest logits of a hidden state, without all the others.
//!
//! A greedy step asks for two logits of a hundred thousand. Here every row is first multiplied in integers, several
//! times as fast as the specification's order of additions allows, and with a bound on how far that can be from the
//! logit that [`multiply`] gives. Tiles of rows whose every logit is below two others are passed over; those
//! that are left are multiplied as specified. So what comes out has the bits of a search through all logits.
//!
//! # The bound
//!
//! Each group of columns has a step `t[g]`: `x[c] = t[g] q[c] + d[c]` with `q[c]` an integer of 8 bits. Where codes of 4 bits are
//! two in a byte and the byte is multiplied as it is, `q[c]` is `16 b` for the high code and `16 a + b` for the low one, with
//! `a` and `b` of 8 bits: `16 (low a) + (low + 16 high) b` leaves one code less to be masked out. Let `m` be the largest code.
//! The exact logit of a row is, since `code = m/2 + (code - m/2)`,
//!
//! ```text
//! z = sum_g scales[g] (t[g] sum_(c in g) code[c] q[c]  +  m/2 sum d[c])  +  biases[g] sum x[c]
//!           + scales[g] sum (code[c] - m/2) d[c]
//! ```
//!
//! The second line is at most `|scales[g]| m/2 D[g]`, where `D[g] = sum |d[c]|`; it is left out. Of the first the sum over
//! integers is exact, and so is its conversion (it is below 2^24). What is evaluated in `f32` passes through at most `2 G + 8`
//! roundings for `G` groups: the conversion of a sum of floats; the product of scale and step, or of the integers and the step,
//! another sum added; the multiply-adds over the groups (one for each of them, and two more for each eight); one addition,
//! or three of a tree. The executed logit is within `gamma(M + 5) sum |w[c] x[c]|` of `z`, `M = ceil(n / 16)` (derived in
//! `certificate/bound.rs`), and `|w[c]| <= m |scales[g]| + |biases[g]|`. With `N[g] = sum |x[c]|` together
//!
//! ```text
//! |executed - evaluated| <= sum_g |scales[g]| (m/2 D[g] + gamma(M + 5) m N[g] + gamma(2 G + 8) m (N[g] + 2 D[g]))
//!                         + sum_g |biases[g]| (gamma(M + 5) + gamma(2 G + 8)) N[g]  +  what is lost below the normal numbers
//! ```
//!
//! Both sums are raised by 2^-40, which costs nothing, so that a bound below 2^30 also says that scales and biases are
//! far too small for anything to overflow. A row whose bound is not below it (an infinite scale, a NaN) is always
//! multiplied as specified.
//!
//! Integers of 16 bits, with one step for all columns, bound a logit so closely that two or three rows are left, but take
//! twice as many operations; with 8 bits it is one row in a hundred (SmolLM2's head).
//!
//! One hidden state is held against rows where they lie (`in_place.rs`): memory is the limit. For several, rows are first
//! laid side by side (`side_by_side.rs`), which takes a tenth of the time of ten and spares each a third of its own.

mod buffers;
mod in_place;
mod instructions;
mod loops;
mod probe;
mod range;
mod search;
mod side_by_side;

use self::{
    buffers::BUFFERS,
    probe::{Probe, Turn},
    range::{ROWS, Range},
    search::{Known, MANY_LEFT, Search},
};
use super::{
    kernel::Kernel,
    multiply::{Pass, Product, multiply},
    paths::{Paths, Taken},
    products::block::TILE_ROWS,
    statistics::Top,
};
use crate::{
    quant::{MatrixRef, WeightsRef},
    team::Team,
};

/// The two largest logits of each hidden state under a shift, without all the others, and what was done to find them; `None` where
/// this kernel has no loops for such a matrix.
///
/// # Panics
/// If a hidden state is not as long as a row.
pub(super) fn tops(
    kernel: Kernel,
    team: &Team,
    matrix: &MatrixRef<'_>,
    queries: &[(u32, &[f32])],
) -> Option<(Vec<Option<Top>>, Paths)> {
    let layout = matrix.layout();
    let screen = kernel.screen.filter(|screen| screen.takes(layout.format()))?;
    if queries.is_empty() {
        return Some((Vec::new(), Paths::NONE));
    }
    let taken = Taken::default();
    let rows = matrix.layout().rows();
    let mut probes: Vec<Option<Probe>> = Vec::new();
    probes.resize_with(queries.len(), || None);
    team.for_each_chunk(&mut probes, 1, |i, probe| {
        let (shift, hidden) = queries[i];
        assert_eq!(hidden.len(), matrix.layout().cols(), "columns of a hidden state and of the matrix");
        probe[0] = Some(Probe::new(kernel, screen, matrix, Turn { index: i, of: queries.len() }, shift, hidden));
    });
    let probes: Vec<Probe> = probes.into_iter().flatten().collect();
    // `[blocks, queries]`.
    let mut ranges = vec![Range::NONE; rows.div_ceil(ROWS) * queries.len()];
    team.for_each_chunk(&mut ranges, queries.len(), |block, ranges| {
        let rows_of = |block: usize| matrix.rows(block * ROWS..((block + 1) * ROWS).min(rows));
        let next = rows_of((block + 1).min(rows.div_ceil(ROWS) - 1));
        BUFFERS.with_borrow_mut(|buffers| {
            taken.add(screen.ranges(&rows_of(block), &next, &probes, buffers, kernel.streams, ranges));
        });
    });
    let search = |query: usize| Search { kernel, matrix, probe: &probes[query] };
    let mut found: Vec<(Known, Vec<usize>)> = Vec::new();
    found.resize_with(queries.len(), Default::default);
    team.for_each_chunk(&mut found, 1, |query, found| {
        found[0] = search(query).candidates(ranges.iter().skip(query).step_by(queries.len()));
    });
    // Where many rows are left (a head of equal rows, say), all logits cost less than tiles by themselves.
    let many: Vec<usize> =
        (0..queries.len()).filter(|&query| found[query].1.len() > rows.div_ceil(TILE_ROWS) / MANY_LEFT).collect();
    let mut all = vec![0.0; many.len() * rows];
    let products = many.iter().zip(all.chunks_exact_mut(rows)).map(|(&query, out)| {
        found[query] = Default::default();
        Product { shift: probes[query].shift, x: probes[query].x.all(), out }
    });
    let products = products.collect();
    multiply(kernel, team, &mut [Pass { weights: WeightsRef::Quantized(*matrix), products }]);
    let left: Vec<(usize, usize)> =
        found.iter().enumerate().flat_map(|(query, found)| found.1.iter().map(move |&tile| (query, tile))).collect();
    let tiles = rows.div_ceil(TILE_ROWS);
    for (query, (known, left)) in found.iter().enumerate() {
        if many.contains(&query) {
            taken.add(Paths::SCREEN_GIVEN_UP);
        } else if known.tiles.len() + left.len() < tiles {
            taken.add(Paths::SCREEN_PASSED_OVER);
        }
    }
    let mut logits = vec![0.0; left.len() * TILE_ROWS];
    team.for_each_chunk(&mut logits, TILE_ROWS, |i, out| search(left[i].0).tile(left[i].1, out));
    let mut logits = logits.as_slice();
    let mut all = all.chunks_exact(rows);
    let of_each = found.into_iter().enumerate().map(|(query, (mut known, left))| {
        if many.contains(&query) {
            return all.next().and_then(|logits| kernel.top(logits));
        }
        let (own, others) = logits.split_at(left.len() * TILE_ROWS);
        logits = others;
        known.tiles.extend(left);
        known.logits.extend(own);
        known.top(kernel, rows)
    });
    Some((of_each.collect(), taken.paths()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        kernels::{Activations, Top, products::block::BLOCK_ROWS, scalar, specification::vector::larger},
        quant::{FloatType, Layout},
        random::SplitMix64,
        testing::heads::{affine, encode},
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
        let kinds = [(4, FloatType::F16), (4, FloatType::F32), (8, FloatType::Bf16)];
        shapes.into_iter().flat_map(move |(rows, cols)| {
            kinds.into_iter().flat_map(move |(bits, scale_type)| {
                [32, 64, 128].map(|group_size| affine(rows, cols, bits, group_size, scale_type))
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
                let matrix = MatrixRef::new(layout, &weight, &scales, Some(&biases)).expect("a matrix");
                let x = hidden(layout.cols(), &mut random, size);
                let mut w = vec![0.0; layout.cols()];
                for (kernel, of) in Kernel::available().into_iter().flat_map(|kernel| [(kernel, 1), (kernel, 2)]) {
                    if let Some(screen) = kernel.screen.filter(|screen| screen.takes(layout.format())) {
                        let probe = |index| Probe::new(kernel, screen, &matrix, Turn { index, of }, shift, &x);
                        let probes: Vec<Probe> = (0..of).map(probe).collect();
                        let ranges = |rows: std::ops::Range<usize>| {
                            let (rows, mut ranges) = (matrix.rows(rows), [Range::NONE; 2]);
                            BUFFERS.with_borrow_mut(|buffers| {
                                screen.ranges(&rows, &rows, &probes, buffers, kernel.streams, &mut ranges[..of]);
                            });
                            ranges
                        };
                        let mut of_rows = Vec::new();
                        for row in 0..layout.rows() {
                            let ranges = ranges(row..row + 1);
                            of_rows.push(ranges[0]);
                            scalar::dequantize_row(&matrix, shift, row, &mut w);
                            let z = scalar::dot(&w, &x);
                            let sizes: f64 = w.iter().zip(&x).map(|(w, x)| f64::from(w * x).abs()).sum();
                            for range in &ranges[..of] {
                                let (best, most) = (range.least, range.most[0]);
                                assert!(best <= z && z <= most, "{layout:?} {row}: {z} {range:?}");
                                widest = widest.max(f64::from(most - best) / sizes);
                                seen += 1;
                            }
                        }
                        // What is said of sixteen rows is what is said of each.
                        for first in (0..layout.rows()).step_by(ROWS) {
                            let last = layout.rows().min(first + ROWS);
                            let mut expected = Range::NONE;
                            for (row, of_row) in of_rows[first..last].iter().enumerate() {
                                let most = &mut expected.most[row / TILE_ROWS];
                                *most = larger(*most, of_row.most[0]);
                                expected.least = larger(expected.least, of_row.least);
                            }
                            for range in &ranges(first..last)[..of] {
                                assert_eq!((range.most, range.least), (expected.most, expected.least), "{layout:?}");
                            }
                        }
                    }
                }
            }
        }
        // From below to above a fifth of what is added up, with outliers of forty times the rest in each second group, which
        // leave it few of the 127 steps.
        assert!(seen == 0 || widest < 0.2, "{widest}");
        assert_eq!(seen > 1000, Kernel::best().screen.is_some());
    }

    #[test]
    fn long_rows_have_the_bits_of_the_specification_for_one_vector_and_for_several() {
        // So long that some processors read them from several places of a block; the last block is not whole.
        let layout = affine(3 * BLOCK_ROWS + 5, 2304, 4, 64, FloatType::F16);
        let mut random = SplitMix64(7);
        let [weight, scales, biases] = parts(&layout, &mut random, 0.01);
        let matrix = MatrixRef::new(layout, &weight, &scales, Some(&biases)).expect("a matrix");
        let team = Team::new(2);
        for shift in [0, 1_000_001] {
            let hidden: Vec<Vec<f32>> = (0..3).map(|_| hidden(2304, &mut random, 1.0)).collect();
            let mut w = vec![0.0; 2304];
            let mut logits = vec![Vec::new(); hidden.len()];
            for row in 0..layout.rows() {
                scalar::dequantize_row(&matrix, shift, row, &mut w);
                logits.iter_mut().zip(&hidden).for_each(|(logits, x)| logits.push(scalar::dot(&w, x)));
            }
            let expected: Vec<Option<Top>> = logits.iter().map(|logits| Kernel::SCALAR.top(logits)).collect();
            for kernel in Kernel::available() {
                let queries: Vec<(u32, &[f32])> = hidden.iter().map(|x| (shift, x.as_slice())).collect();
                for (queries, expected) in [(&queries[..1], &expected[..1]), (&queries, &expected)] {
                    assert!(tops(kernel, &team, &matrix, queries).is_none_or(|(tops, _)| tops == expected));
                }
                let x = Activations::from_rows(kernel, 2304, &hidden[0]);
                let mut out = vec![f32::NAN; layout.rows()];
                let products = vec![Product { shift, x: x.all(), out: &mut out }];
                multiply(kernel, &team, &mut [Pass { weights: WeightsRef::Quantized(matrix), products }]);
                assert_eq!(out, logits[0], "{kernel}");
            }
        }
    }

    #[test]
    fn rows_without_a_bound_are_never_passed_over() {
        let layout = affine(96, 128, 4, 64, FloatType::F32);
        let mut random = SplitMix64(3);
        let [weight, scales, biases] = parts(&layout, &mut random, 0.01);
        let mut x = hidden(128, &mut random, 1.0);
        let team = Team::new(2);
        let find = |scales: &[u8], biases: &[u8], x: &[f32]| {
            let matrix = MatrixRef::new(layout, &weight, scales, Some(biases)).expect("a matrix");
            Kernel::available()
                .into_iter()
                .filter_map(|kernel| tops(kernel, &team, &matrix, &[(0, x)]))
                .flat_map(|(tops, _)| tops)
                .collect()
        };
        let all = |scales: &[u8], biases: &[u8], x: &[f32]| {
            let matrix = MatrixRef::new(layout, &weight, scales, Some(biases)).expect("a matrix");
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
        // Sums of a hidden state that are beyond f32 where its logits are not.
        x.iter_mut().enumerate().for_each(|(i, x)| *x = if i < 60 { 3e38 } else { -3e38 });
        let tiny: Vec<u8> = (0..96 * 2).flat_map(|i| (1e-36_f32 * (1 + i % 7) as f32).to_le_bytes()).collect();
        let none = vec![0; tiny.len()];
        let expected = all(&tiny, &none, &x);
        assert!(expected.is_some());
        assert!(find(&tiny, &none, &x).iter().all(|top| *top == expected));
        // The sum of the first group is, too, but no logit. Rows of the first eight tiles have a positive bias there, and are
        // multiplied first; all others are larger by far, and are evaluated as minus infinity.
        x[64..].fill(1.5e28);
        let of_row = |row: usize| if row < 32 { [1e-38_f32, 0.0] } else { [-1e-38, 1e-26] };
        let biases: Vec<u8> = (0..96).flat_map(|row| of_row(row).map(f32::to_le_bytes).concat()).collect();
        let none = vec![0; biases.len()];
        let expected = all(&none, &biases, &x);
        assert!(expected.is_some_and(|top| top.token >= 32));
        assert!(find(&none, &biases, &x).iter().all(|top| *top == expected));
        x.fill(0.0);
        let zero = Some(Top { token: 0, best: 0.0, second: 0.0 });
        assert!(find(&scales, &biases, &x).iter().all(|top| *top == zero));
    }
}
