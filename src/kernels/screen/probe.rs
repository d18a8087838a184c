//! A hidden state in integers, and how far they are from it.

use super::range::ROWS;
use crate::{
    kernels::{
        activations::Activations,
        kernel::{Kernel, Screen},
        products::lanes::LANES,
        rounding::gamma,
    },
    quant::{Layout, MatrixRef},
};

/// Bytes of one row that are multiplied at once.
pub(super) const CHUNK: usize = 32;
/// Groups of one row whose scales and biases are taken at once.
pub(super) const GROUPS: usize = 8;
/// The largest integer of 8 bits that a code is multiplied by.
const LARGEST: f64 = 127.0;

impl Screen {
    /// Whether what the high codes of bytes are multiplied by is multiplied by the bytes, and what the low ones are multiplied by
    /// makes up for it: a byte is at most 255, and only `vpdpbusd` adds up products of bytes and 127.
    pub(super) fn whole_bytes(self, bits: usize) -> bool {
        matches!((self, bits), (Self::Vnni, 4))
    }
}

/// Integers that codes are multiplied by, aligned as the loops load them.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
pub(super) struct Bytes([i8; CHUNK]);

/// A hidden state as integers, and what the bound asks of it.
pub(super) struct Probe {
    /// Of the matrix that it is for.
    pub(super) layout: Layout,
    /// Of the words of sixteen rows, and of their scales, the bytes that this one of several probes asks for ahead.
    pub(super) ahead: [std::ops::Range<usize>; 2],
    /// Subtracted from each packed word.
    pub(super) shift: u32,
    /// For each 32 bytes of packed words (16, where a group has no more) the integers that they are multiplied by; with codes of
    /// 4 bits first those of the low nibbles, then those of the high ones or of the bytes.
    pub(super) q: Vec<Bytes>,
    /// One for each group, filled up with zeros to a whole number of [`GROUPS`].
    pub(super) groups: Groups,
    /// The part of the bound that depends on neither scales nor biases.
    pub(super) absolute: f32,
    /// As the specification wants it.
    pub(super) x: Activations,
}

/// One of several probes that are held against the same rows.
#[derive(Clone, Copy)]
pub(super) struct Turn {
    pub(super) index: usize,
    pub(super) of: usize,
}

impl Turn {
    /// Its part of so many bytes, in whole lines.
    fn part(self, bytes: usize) -> std::ops::Range<usize> {
        let part = bytes.div_ceil(64).div_ceil(self.of) * 64;
        self.index * part..((self.index + 1) * part).min(bytes)
    }
}

/// What a group's scale and bias are multiplied by.
pub(super) struct Groups {
    /// `t[g]`.
    pub(super) step: Vec<f32>,
    /// `m/2 sum d[c]`.
    pub(super) middle: Vec<f32>,
    /// `sum x[c]`.
    pub(super) sum: Vec<f32>,
    /// What the bound has for each unit of the scale.
    pub(super) by_scale: Vec<f32>,
    /// The same of the bias.
    pub(super) by_bias: Vec<f32>,
}

impl Probe {
    pub(super) fn new(
        kernel: Kernel,
        screen: Screen,
        matrix: &MatrixRef<'_>,
        turn: Turn,
        shift: u32,
        hidden: &[f32],
    ) -> Self {
        let layout = matrix.layout();
        let (groups, group_size) = (layout.groups_per_row(), layout.group_size());
        let largest_code = f64::from(layout.width().mask());
        let (executed, evaluated) = (gamma(hidden.len().div_ceil(LANES) + 5), gamma(2 * groups + 8));
        // Of the sums of this function, of conversions to f32, and of the bound's own sum over the groups.
        let up = |x: f64| (x * (1.0 + 1e-6 + 2.0 * evaluated)) as f32;
        let raised = 2.0_f64.powi(-40);
        let padded = || vec![0.0_f32; groups.next_multiple_of(GROUPS)];
        let mut of = Groups { step: padded(), middle: padded(), sum: padded(), by_scale: padded(), by_bias: padded() };
        let mut q = Vec::with_capacity(hidden.len());
        // With whole bytes a step is a sixteenth of what one in an integer stands for, and a low code is multiplied by the high
        // one's integer, too.
        let (steps_of_one, steps_in_low) = if screen.whole_bytes(layout.bits()) { (16.0, 1.0) } else { (1.0, 0.0) };
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
    pub(super) const fn group_bytes(&self) -> usize {
        self.layout.group_bytes()
    }

    /// Whether it is for the matrix that `rows` are of.
    pub(super) fn fits(&self, rows: &MatrixRef<'_>) -> bool {
        self.layout == rows.layout().with_rows(self.layout.rows())
    }
}

/// [`Probe::q`], of one integer for each column.
pub(super) fn bytes(layout: &Layout, whole: &[i8]) -> Vec<Bytes> {
    let chunk = layout.group_bytes().min(CHUNK);
    let nibbles = 8 / layout.bits();
    let mut q = Vec::with_capacity(layout.weight_row_bytes().div_ceil(chunk) * nibbles);
    for whole in whole.chunks_exact(chunk * nibbles) {
        for nibble in 0..nibbles {
            let mut bytes = Bytes([0; CHUNK]);
            for (to, &whole) in bytes.0.iter_mut().zip(whole.iter().skip(nibble).step_by(nibbles)) {
                *to = whole;
            }
            q.push(bytes);
        }
    }
    q
}
