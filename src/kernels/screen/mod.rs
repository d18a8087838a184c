//! The two largest logits of a hidden state, without all the others.
//!
//! A greedy step asks for two logits of a hundred thousand. Here every row is first multiplied in integers, several
//! times as fast as the specification's order of additions allows, and with a bound on how far that can be from the
//! logit that [`super::multiply`] gives. Tiles of rows whose every logit is below two others are passed over; those
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
//! brought side by side (`side_by_side.rs`), which takes a tenth of the time of ten and spares each a third of its own.

mod in_place;
mod side_by_side;
mod x86;

pub(super) use x86::vnni_detected;

use std::cell::RefCell;

use super::{
    Activations, Job, Kernel, LANES, Pass, Paths, SCRATCH, Screen, Top, Tops, lanes::TILE_ROWS, logits::two_in_order,
    multiply, paths::Taken, rounding::gamma, vector::larger,
};
use crate::{
    quant::{Bits, Layout, MatrixRef, WeightsRef},
    team::Team,
};

/// Rows that are evaluated side by side.
const ROWS: usize = 16;
/// Tiles of as many rows.
const TILES: usize = ROWS / TILE_ROWS;
/// Bytes of one row that are multiplied at once.
const WIDE: usize = 32;
/// Groups of one row whose scales and biases are taken at once.
const GROUPS: usize = 8;
/// The largest integer of 8 bits that a code is multiplied by.
const LARGEST: f64 = 127.0;
/// Bounds from here on say nothing.
const NO_BOUND: f32 = (1_u32 << 30) as f32;

/// Integers that codes are multiplied by, aligned as the loops load them.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
struct Bytes([i8; WIDE]);

/// A hidden state as integers, and what the bound asks of it.
struct Probe {
    /// Of the matrix that it is for.
    layout: Layout,
    /// Of the words of sixteen rows, and of their scales, the bytes that this one of several probes asks for ahead.
    ahead: [std::ops::Range<usize>; 2],
    /// Subtracted from each packed word.
    shift: u32,
    /// For each 32 bytes of packed words (16, where a group has no more) the integers that they are multiplied by; with codes of
    /// 4 bits first those of the low nibbles, then those of the high ones or of the bytes.
    q: Vec<Bytes>,
    /// One for each group, filled up with zeros to a whole number of [`GROUPS`].
    groups: Groups,
    /// The part of the bound that depends on neither scales nor biases.
    absolute: f32,
    /// As the specification wants it.
    x: Activations,
}

/// One of several probes that are held against the same rows.
#[derive(Clone, Copy)]
struct Turn {
    index: usize,
    of: usize,
}

impl Turn {
    /// Its part of so many bytes, in whole lines.
    fn part(self, bytes: usize) -> std::ops::Range<usize> {
        let part = bytes.div_ceil(64).div_ceil(self.of) * 64;
        self.index * part..((self.index + 1) * part).min(bytes)
    }
}

/// What a group's scale and bias are multiplied by.
struct Groups {
    /// `t[g]`.
    step: Vec<f32>,
    /// `m/2 sum d[c]`.
    middle: Vec<f32>,
    /// `sum x[c]`.
    sum: Vec<f32>,
    /// What the bound has for each unit of the scale.
    by_scale: Vec<f32>,
    /// The same of the bias.
    by_bias: Vec<f32>,
}

impl Probe {
    fn new(kernel: Kernel, loops: Screen, matrix: &MatrixRef<'_>, turn: Turn, shift: u32, hidden: &[f32]) -> Self {
        let layout = matrix.layout();
        let (groups, group_size) = (layout.groups_per_row(), layout.group_size());
        let largest_code = match layout.bits() {
            Bits::Four => 15.0,
            Bits::Eight => 255.0,
        };
        let (executed, evaluated) = (gamma(hidden.len().div_ceil(LANES) + 5), gamma(2 * groups + 8));
        // Of the sums of this function, of conversions to f32, and of the bound's own sum over the groups.
        let up = |x: f64| (x * (1.0 + 1e-6 + 2.0 * evaluated)) as f32;
        let raised = 2.0_f64.powi(-40);
        let padded = || vec![0.0_f32; groups.next_multiple_of(GROUPS)];
        let mut of = Groups { step: padded(), middle: padded(), sum: padded(), by_scale: padded(), by_bias: padded() };
        let mut q = Vec::with_capacity(hidden.len());
        // With whole bytes a step is a sixteenth of what one in an integer stands for, and a low code is multiplied by the high
        // one's integer, too.
        let (steps_of_one, steps_in_low) = if loops.whole_bytes(layout.bits()) { (16.0, 1.0) } else { (1.0, 0.0) };
        let (mut all, mut steps) = (0.0, 0.0);
        for (g, x) in hidden.chunks_exact(group_size).enumerate() {
            // Of what integers stand for. That of the low code is held against the high one's, rounded, which is half of one away:
            // a thirty-second of one at most, too little to go beyond the largest.
            let most = x.chunks_exact(2).fold(0.0_f64, |most, pair| {
                let [low, high] = [f64::from(pair[0]), f64::from(pair[1])];
                most.max(high.abs()).max((low - steps_in_low / steps_of_one * high).abs())
            });
            // The smallest number where there is nothing else. With an infinity or a NaN all bounds below are NaN.
            let step = (most / (LARGEST * steps_of_one)) as f32;
            let step = f64::from(if step > 0.0 { step } else { f32::from_bits(1) });
            // A NaN becomes 0; no bound holds then, anyway.
            let integer = |x: f64| (x / (step * steps_of_one)).round().clamp(-LARGEST, LARGEST);
            let (mut sum, mut norm, mut middle, mut lost) = (0.0, 0.0, 0.0, 0.0);
            for pair in x.chunks_exact(2) {
                let [low, high] = [f64::from(pair[0]), f64::from(pair[1])];
                let of_high = integer(high);
                let in_low = steps_in_low * of_high;
                let of_low = integer(low - step * in_low);
                q.extend([of_low as i8, of_high as i8]);
                for (x, steps) in [(low, steps_of_one * of_low + in_low), (high, steps_of_one * of_high)] {
                    let rest = x - step * steps;
                    sum += x;
                    norm += x.abs();
                    middle += rest;
                    lost += rest.abs();
                }
            }
            let step = step as f32;
            of.step[g] = step;
            of.sum[g] = sum as f32;
            of.middle[g] = (largest_code / 2.0 * middle) as f32;
            let rounding = executed * norm + evaluated * (norm + 2.0 * lost);
            let bounded = [step, of.sum[g], of.middle[g]].iter().all(|x| x.is_finite());
            let by_scale = up(largest_code * (lost / 2.0 + rounding) + raised);
            // With an infinite sum a logit may be evaluated as minus infinity, as if its row were not there.
            of.by_scale[g] = if bounded { by_scale } else { f32::NAN };
            of.by_bias[g] = up((executed + evaluated) * norm + raised);
            all += norm;
            steps += f64::from(step);
        }
        let columns = hidden.len() as f64;
        Self {
            layout: *layout,
            ahead: [layout.weight_row_bytes(), layout.scale_row_bytes()].map(|bytes| turn.part(ROWS * bytes)),
            shift,
            q: bytes(layout, &q),
            groups: of,
            absolute: up(2.0_f64.powi(-125) * (columns + all + columns * steps)),
            x: Activations::from_rows(kernel, hidden.len(), hidden),
        }
    }

    /// Bytes of a group's packed words.
    #[inline(always)]
    const fn group_bytes(&self) -> usize {
        self.layout.group_size() * self.layout.bits().get() / 8
    }

    /// Whether it is for the matrix that `rows` are of.
    fn fits(&self, rows: &MatrixRef<'_>) -> bool {
        self.layout == rows.layout().with_rows(self.layout.rows())
    }
}

/// [`Probe::q`], of one integer for each column.
fn bytes(layout: &Layout, whole: &[i8]) -> Vec<Bytes> {
    let bits = layout.bits().get();
    let wide = (layout.group_size() * bits / 8).min(WIDE);
    let nibbles = 8 / bits;
    let mut q = Vec::with_capacity(layout.weight_row_bytes().div_ceil(wide) * nibbles);
    for whole in whole.chunks_exact(wide * nibbles) {
        for nibble in 0..nibbles {
            let mut some = Bytes([0; WIDE]);
            for (to, &whole) in some.0.iter_mut().zip(whole.iter().skip(nibble).step_by(nibbles)) {
                *to = whole;
            }
            q.push(some);
        }
    }
    q
}

/// Buffers of one thread.
#[derive(Default)]
struct Buffers {
    /// `[words, rows]`: sixteen rows side by side; the last one again, where there are fewer.
    words: Vec<[u32; ROWS]>,
    /// The same of widened scales and biases, `[groups, rows]`.
    scales: Vec<[f32; ROWS]>,
    biases: Vec<[f32; ROWS]>,
    /// Without their signs.
    sizes: [Vec<[f32; ROWS]>; 2],
    /// Widened scales and biases of rows as the matrix has them, and scales times steps.
    wide: [Vec<f32>; 3],
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

/// The row of sixteen that is in a lane. The rows of a tile are four lanes from each other, so that what is asked of each tile
/// is asked of four at once.
#[inline(always)]
const fn row_of(lane: usize) -> usize {
    lane % TILES * TILE_ROWS + lane / TILES
}

/// The lane that a row of sixteen is in.
#[inline(always)]
const fn lane_of(row: usize) -> usize {
    row % TILE_ROWS * TILES + row / TILE_ROWS
}

/// What is nearly the logits of some rows, and the part of each bound that depends on scales and biases; by lanes.
#[derive(Default)]
struct Evaluated {
    logits: [f32; ROWS],
    bounds: [f32; ROWS],
}

/// Between what the logits of some rows lie.
#[derive(Clone, Copy, Debug)]
struct Range {
    /// None of each tile is above.
    most: [f32; TILES],
    /// One is at least so large.
    least: f32,
}

impl Range {
    const NONE: Self = Self { most: [f32::NEG_INFINITY; TILES], least: f32::NEG_INFINITY };

    /// Of `rows` rows.
    #[inline(always)]
    fn new(rows: usize, Evaluated { logits, bounds }: &Evaluated, probe: &Probe) -> Self {
        let (mut most, mut least) = ([0.0; ROWS], [0.0; ROWS]);
        for r in 0..ROWS {
            let error = bounds[r];
            // The rounding of this, and of the sums below.
            let error = (error + probe.absolute) * (1.0 + 1.0 / 512.0) + logits[r].abs() * (1.0 / (1 << 22) as f32);
            // Also false where the error is not a number; where it is one, so is the logit.
            let bounded = error < NO_BOUND;
            most[r] = if bounded { logits[r] + error } else { f32::INFINITY };
            least[r] = if bounded { logits[r] - error } else { f32::NEG_INFINITY };
        }
        for row in rows..ROWS {
            most[lane_of(row)] = f32::NEG_INFINITY;
            least[lane_of(row)] = f32::NEG_INFINITY;
        }
        let (most, least) = (of_tiles(&most), of_tiles(&least));
        Self { most, least: larger(larger(least[0], least[1]), larger(least[2], least[3])) }
    }
}

/// The largest of each tile's rows.
#[inline(always)]
fn of_tiles(of_rows: &[f32; ROWS]) -> [f32; TILES] {
    let mut largest = [0.0; TILES];
    for tile in 0..TILES {
        let (a, b) = (
            larger(of_rows[tile], of_rows[TILES + tile]),
            larger(of_rows[2 * TILES + tile], of_rows[3 * TILES + tile]),
        );
        largest[tile] = larger(a, b);
    }
    largest
}

/// Tiles whose logits are known.
#[derive(Default)]
struct Known {
    tiles: Vec<usize>,
    /// `[tiles, TILE_ROWS]`; minus infinity for rows that are not there.
    logits: Vec<f32>,
}

impl Known {
    /// The two largest of all, the first of equals first; `None` if one is not finite. The matrix has `rows` rows.
    fn top(&self, kernel: Kernel, rows: usize) -> Option<Top> {
        let mut tiles: Vec<(usize, &[f32])> =
            self.tiles.iter().copied().zip(self.logits.chunks_exact(TILE_ROWS)).collect();
        tiles.sort_unstable_by_key(|&(tile, _)| tile);
        // Only the matrix's last tile may have fewer rows.
        let logits: Vec<f32> = tiles
            .iter()
            .flat_map(|&(tile, logits)| &logits[..TILE_ROWS.min(rows - tile * TILE_ROWS)])
            .copied()
            .collect();
        let top = kernel.top(&logits)?;
        Some(Top { token: tiles[top.token / TILE_ROWS].0 * TILE_ROWS + top.token % TILE_ROWS, ..top })
    }
}

/// Tiles that are multiplied first: the second largest of their logits is nearly that of all, and less than what is known
/// without.
const FIRST: usize = 8;

/// The part of a matrix's tiles, one in so many, from which on all of them are multiplied.
const MANY: usize = 8;

/// The matrix, and one query.
struct Search<'a> {
    kernel: Kernel,
    matrix: &'a MatrixRef<'a>,
    probe: &'a Probe,
}

impl Search<'_> {
    /// The logits of a tile's rows, as specified.
    fn tile(&self, tile: usize, out: &mut [f32]) {
        let (first, rows) = (tile * TILE_ROWS, self.matrix.layout().rows());
        let rows = self.matrix.rows(first..rows.min(first + TILE_ROWS));
        out.fill(f32::NEG_INFINITY);
        let block = self.probe.x.block(0, rows.layout().rows(), out.as_mut_ptr(), TILE_ROWS);
        let weights = WeightsRef::Quantized(rows);
        // SAFETY: the vector is in the kernel's layout and as long as a row, and `out` has a place for each row of the tile.
        SCRATCH.with_borrow_mut(|scratch| unsafe { self.kernel.block(&weights, self.probe.shift, block, scratch) });
    }

    /// Some tiles that are known, and those besides them whose rows may be among the two largest; `ranges` are those of
    /// this query's blocks, in order.
    fn candidates<'a>(&self, ranges: impl Iterator<Item = &'a Range> + Clone) -> (Known, Vec<usize>) {
        // Two blocks have a logit that is at least so large.
        let (_, least) = two_in_order(ranges.clone().map(|range| range.least));
        let count = self.matrix.layout().rows().div_ceil(TILE_ROWS);
        let mut left: Vec<(f32, usize)> = Vec::new();
        for (block, range) in ranges.enumerate() {
            // Also where nothing is known of any.
            if range.most.into_iter().fold(false, |some, most| some | (most >= least)) {
                let tiles = range.most.into_iter().zip(block * TILES..count);
                left.extend(tiles.filter(|&(most, _)| most >= least));
            }
        }
        let first = left.len().min(FIRST);
        if left.len() > FIRST {
            left.select_nth_unstable_by(FIRST, |a, b| b.0.total_cmp(&a.0));
        }
        let tiles: Vec<usize> = left.drain(..first).map(|(_, tile)| tile).collect();
        let mut logits = vec![0.0; tiles.len() * TILE_ROWS];
        for (&tile, out) in tiles.iter().zip(logits.chunks_exact_mut(TILE_ROWS)) {
            self.tile(tile, out);
        }
        let least = larger(least, two_in_order(logits.iter().copied()).1);
        (Known { tiles, logits }, left.into_iter().filter(|&(most, _)| most >= least).map(|(_, tile)| tile).collect())
    }
}

/// The two largest logits of each hidden state under a shift, without all the others; `None` where this kernel has no loops for
/// such a matrix.
///
/// # Panics
/// If a hidden state is not as long as a row.
pub fn tops(kernel: Kernel, team: &Team, matrix: &MatrixRef<'_>, queries: &[(u32, &[f32])]) -> Option<Tops> {
    let layout = matrix.layout();
    let loops = kernel.screen.filter(|screen| screen.takes(layout.bits()))?;
    if queries.is_empty() {
        return Some(Tops { tops: Vec::new(), paths: Paths::NONE });
    }
    let taken = Taken::default();
    let rows = matrix.layout().rows();
    let mut probes: Vec<Option<Probe>> = Vec::new();
    probes.resize_with(queries.len(), || None);
    team.for_each_chunk(&mut probes, 1, |i, probe| {
        let (shift, hidden) = queries[i];
        assert_eq!(hidden.len(), matrix.layout().cols(), "columns of a hidden state and of the matrix");
        probe[0] = Some(Probe::new(kernel, loops, matrix, Turn { index: i, of: queries.len() }, shift, hidden));
    });
    let probes: Vec<Probe> = probes.into_iter().flatten().collect();
    // `[blocks, queries]`.
    let mut ranges = vec![Range::NONE; rows.div_ceil(ROWS) * queries.len()];
    team.for_each_chunk(&mut ranges, queries.len(), |block, ranges| {
        let some = |block: usize| matrix.rows(block * ROWS..((block + 1) * ROWS).min(rows));
        let next = some((block + 1).min(rows.div_ceil(ROWS) - 1));
        BUFFERS.with_borrow_mut(|buffers| {
            taken.add(loops.ranges(&some(block), &next, &probes, buffers, kernel.streams, ranges));
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
        (0..queries.len()).filter(|&query| found[query].1.len() > rows.div_ceil(TILE_ROWS) / MANY).collect();
    let mut all = vec![0.0; many.len() * rows];
    let jobs = many.iter().zip(all.chunks_exact_mut(rows)).map(|(&query, out)| {
        found[query] = Default::default();
        Job { shift: probes[query].shift, x: &probes[query].x, out }
    });
    let jobs = jobs.collect();
    multiply(kernel, team, &mut [Pass { weights: WeightsRef::Quantized(*matrix), jobs }]);
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
    Some(Tops { tops: of_each.collect(), paths: taken.paths() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        kernels::{BLOCK_ROWS, scalar},
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
                for (kernel, of) in Kernel::available().into_iter().flat_map(|kernel| [(kernel, 1), (kernel, 2)]) {
                    if let Some(loops) = kernel.screen.filter(|screen| screen.takes(layout.bits())) {
                        let probe = |index| Probe::new(kernel, loops, &matrix, Turn { index, of }, shift, &x);
                        let probes: Vec<Probe> = (0..of).map(probe).collect();
                        let ranges = |rows: std::ops::Range<usize>| {
                            let (rows, mut ranges) = (matrix.rows(rows), [Range::NONE; 2]);
                            BUFFERS.with_borrow_mut(|buffers| {
                                loops.ranges(&rows, &rows, &probes, buffers, kernel.streams, &mut ranges[..of]);
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
        let layout = Layout::new(3 * BLOCK_ROWS + 5, 2304, Bits::Four, 64, FloatType::F16).expect("a layout");
        let mut random = SplitMix64(7);
        let [weight, scales, biases] = parts(&layout, &mut random, 0.01);
        let matrix = MatrixRef::new(layout, &weight, &scales, &biases).expect("a matrix");
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
                    assert!(tops(kernel, &team, &matrix, queries).is_none_or(|found| found.tops == expected));
                }
                let x = Activations::from_rows(kernel, 2304, &hidden[0]);
                let mut out = vec![f32::NAN; layout.rows()];
                let jobs = vec![Job { shift, x: &x, out: &mut out }];
                multiply(kernel, &team, &mut [Pass { weights: WeightsRef::Quantized(matrix), jobs }]);
                assert_eq!(out, logits[0], "{kernel}");
            }
        }
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
                .flat_map(|found| found.tops)
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
