//! What computes: an instruction set and the paths through it, as proof that this processor has them.

use std::fmt;

#[cfg(target_arch = "aarch64")]
use super::instruction_sets::neon;
#[cfg(target_arch = "x86_64")]
use super::instruction_sets::{avx2, avx512};
use super::{
    instruction_sets::InstructionSet,
    paths::Paths,
    products::{
        block::{Block, Scratch},
        line::{self, Line},
        stream,
    },
    specification::{
        activation, delta_rule, logits, scalar,
        vector::{self, Asking, Scores},
    },
};
use crate::quant::{MatrixRef, WeightsRef};

/// How the two largest logits are found without all the others: the instructions of `screen/`, as proof that this processor has
/// them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Screen {
    /// AVX2's `vpmaddubsw`, whose sums of two products hold codes of 4 bits only.
    #[cfg(target_arch = "x86_64")]
    Maddubs,
    /// AVX-512's `vpdpbusd`.
    #[cfg(target_arch = "x86_64")]
    Vnni,
}

/// What computes: an instruction set that this processor was seen to have, and the paths that are taken where there is a choice.
///
/// Its name as text has all three: `avx512+streams+vnni` reads long rows as several streams and finds the two largest logits by
/// AVX-512's VNNI; `avx2+blocks+logits` goes through blocks of rows, and through all logits. Results do not depend on any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    pub(super) instructions: InstructionSet,
    /// Whether one vector's long rows are read as several streams; see `products/stream.rs`.
    pub(super) streams: bool,
    /// `None`: the two largest logits are found among all.
    pub(super) screen: Option<Screen>,
}

/// Calls a function of the instruction set's file; where that is the scalar one, the function of that name in `specification/`.
macro_rules! call {
    ($kernel:expr, $module:ident::$name:ident($($arg:expr),*)) => {
        match $kernel.instructions {
            InstructionSet::Scalar => $module::$name($($arg),*),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a `Kernel` of this kind exists only where its features were detected.
            InstructionSet::Avx2 => unsafe { avx2::$name($($arg),*) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            InstructionSet::Avx512 => unsafe { avx512::$name($($arg),*) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            InstructionSet::Neon => unsafe { neon::$name($($arg),*) },
        }
    };
}

impl Kernel {
    /// The specification: everywhere available, slow.
    pub const SCALAR: Self = Self { instructions: InstructionSet::Scalar, streams: false, screen: None };

    /// All kernels that this processor can run: the fastest instruction set first, the scalar one last, and of each the paths that
    /// are fastest here before the others.
    pub fn available() -> Vec<Self> {
        let mut found = Vec::new();
        let fastest = stream::several_are_faster();
        for instructions in InstructionSet::available() {
            if instructions == InstructionSet::Scalar {
                found.push(Self::SCALAR);
                continue;
            }
            for streams in [fastest, !fastest] {
                for screen in Screen::available(instructions) {
                    found.push(Self { instructions, streams, screen });
                }
            }
        }
        found
    }

    /// The fastest kernel here.
    pub fn best() -> Self {
        Self::available()[0]
    }

    /// The kernel of this name, if this processor can run it: of an instruction set ([`Kernel::name`]) the one with the paths that
    /// are fastest here, of an instruction set and paths (as text) that one.
    pub fn named(name: &str) -> Option<Self> {
        Self::available().into_iter().find(|kernel| kernel.name() == name || kernel.to_string() == name)
    }

    /// The instruction set: `scalar`, `avx2`, `avx512` or `neon`.
    pub const fn name(self) -> &'static str {
        self.instructions.name()
    }

    /// How the two largest logits are found: `vnni`, `maddubs`, or `logits` where all of them are computed.
    pub(crate) const fn screen_name(self) -> &'static str {
        match self.screen {
            None => "logits",
            #[cfg(target_arch = "x86_64")]
            Some(Screen::Maddubs) => "maddubs",
            #[cfg(target_arch = "x86_64")]
            Some(Screen::Vnni) => "vnni",
        }
    }

    /// All paths that it can go, given shapes that ask for them.
    pub fn paths(self) -> Paths {
        let mut paths = match self.instructions {
            InstructionSet::Scalar => return Paths::NONE,
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => Paths::NONE,
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => Paths::EIGHT_ROWS,
            #[cfg(target_arch = "aarch64")]
            InstructionSet::Neon => Paths::EIGHT_ROWS,
        };
        paths = paths | Paths::REGISTERS | Paths::PANEL | Paths::PANEL_IN_PARTS | Paths::DENSE;
        paths = paths | Paths::COPIED | Paths::NAN_CODES | Paths::SPECIFIED;
        if self.streams {
            paths = paths | Paths::STREAM;
        }
        if self.screen.is_some() {
            paths =
                paths | Paths::SCREEN | Paths::SCREEN_OF_SEVERAL | Paths::SCREEN_PASSED_OVER | Paths::SCREEN_GIVEN_UP;
            paths = paths | if self.streams { Paths::SCREEN_OF_STREAMS } else { Paths::SCREEN_OF_LONG_ROWS };
        }
        paths
    }

    /// Columns of a vector where products want them, sixteen a line; the rest of the last line is zero.
    pub(super) fn place(self, row: &[f32], lines: &mut [Line]) {
        call!(self, line::place(row, lines));
    }

    /// `out[c] = x[c] / sqrt(mean(x^2) + eps) * weight[c]`; all of one length.
    pub(crate) fn rms_norm(self, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        call!(self, vector::rms_norm(x, weight, eps, out));
    }

    /// As [`Kernel::rms_norm`], without weights.
    pub(crate) fn rms_norm_plain(self, x: &[f32], eps: f32, out: &mut [f32]) {
        call!(self, vector::rms_norm_plain(x, eps, out));
    }

    /// `out[c] = (x[c] - mean(x)) / sqrt(mean((x - mean(x))^2) + eps) * weight[c]`; all of one length.
    pub(crate) fn layer_norm(self, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        call!(self, vector::layer_norm(x, weight, eps, out));
    }

    /// `x[c] += y[c]`.
    pub(crate) fn add(self, x: &mut [f32], y: &[f32]) {
        call!(self, vector::add(x, y));
    }

    /// `x[c] *= y[c]`.
    pub(crate) fn multiply(self, x: &mut [f32], y: &[f32]) {
        call!(self, vector::multiply(x, y));
    }

    /// `x[c] += y[c] * z[c]`, rounded once.
    pub(crate) fn multiply_add(self, x: &mut [f32], y: &[f32], z: &[f32]) {
        call!(self, vector::multiply_add(x, y, z));
    }

    /// One step of the gated delta rule of one head; see [`delta_rule::delta_rule`]. `qkv` are query, key and value, `gates` decay and
    /// strength, `state` is `[key, value]`; `written` and `out`, as long as the value, are overwritten.
    pub(crate) fn delta_rule(
        self,
        state: &mut [f32],
        qkv: [&[f32]; 3],
        gates: [f32; 2],
        written: &mut [f32],
        out: &mut [f32],
    ) {
        call!(self, delta_rule::delta_rule(state, qkv, gates, written, out));
    }

    /// `x[c] *= factor`.
    pub(crate) fn scale(self, x: &mut [f32], factor: f32) {
        call!(self, vector::scale(x, factor));
    }

    /// `x[c] *= sigmoid(x[c])`.
    pub(crate) fn silu(self, x: &mut [f32]) {
        call!(self, activation::silu(x));
    }

    /// `x[c] *= (1 + erf(x[c] / sqrt 2)) / 2`.
    pub(crate) fn gelu(self, x: &mut [f32]) {
        call!(self, activation::gelu(x));
    }

    /// GELU's approximation by `tanh`.
    pub(crate) fn gelu_tanh(self, x: &mut [f32]) {
        call!(self, activation::gelu_tanh(x));
    }

    /// `x[c] = max(x[c], 0)^2`.
    pub(crate) fn relu_squared(self, x: &mut [f32]) {
        call!(self, activation::relu_squared(x));
    }

    /// xIELU with its four `parts`; see [`activation::xielu`].
    pub(crate) fn xielu(self, x: &mut [f32], parts: &[f32; 4]) {
        call!(self, activation::xielu(x, parts));
    }

    /// The gated activation of gpt-oss; see [`activation::clamped_swiglu`].
    pub(crate) fn clamped_swiglu(self, gate: &mut [f32], up: &[f32]) {
        call!(self, activation::clamped_swiglu(gate, up));
    }

    /// `x[c] = sigmoid(x[c])`.
    pub(crate) fn sigmoid(self, x: &mut [f32]) {
        call!(self, activation::sigmoid(x));
    }

    /// `x[c] = exp(x[c])`, divided by the sum of these.
    pub(crate) fn softmax(self, x: &mut [f32]) {
        call!(self, activation::softmax(x));
    }

    /// `x[c] = cap * tanh(x[c] / cap)`.
    pub(crate) fn softcap(self, x: &mut [f32], cap: f32) {
        call!(self, activation::softcap(x, cap));
    }

    /// Rotary position embedding of every head of `head_dim` columns in `x`: `cos` and `sin` have half as many elements as a head has
    /// rotated columns, its first ones, and column `c` is paired with `c + half`.
    pub(crate) fn rope(self, x: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32]) {
        call!(self, vector::rope(x, head_dim, cos, sin));
    }

    /// As [`Kernel::rope`], where columns `2 c` and `2 c + 1` are a pair.
    pub(crate) fn rope_neighbours(self, x: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32]) {
        call!(self, vector::rope_neighbours(x, head_dim, cos, sin));
    }

    /// Attention over the positions of a path in their order: `softmax(scores of q . k) v` for each head of each that asks. Keys and values
    /// come in stretches of several that lie one after the other, `[positions, cols]` each.
    ///
    /// # Panics
    /// If nobody asks, or for nothing, or for a position that is not there; if queries are not whole heads, as many for all that ask, or outputs
    /// are not as long; if a stretch is not whole, or those of keys and values differ; if there are fewer sinks than heads.
    pub(crate) fn attend(
        self,
        asking: &mut [Asking<'_>],
        cols: usize,
        rule: &Scores<'_>,
        keys: &[&[f32]],
        values: &[&[f32]],
    ) {
        let size = asking[0].q.len();
        assert!(size > 0 && size.is_multiple_of(cols), "whole heads");
        let lengths = |stretches: &[&[f32]]| stretches.iter().map(|stretch| stretch.len()).collect::<Vec<_>>();
        let stretches = lengths(keys);
        assert_eq!(stretches, lengths(values), "a value for each key");
        assert!(stretches.iter().all(|len| len.is_multiple_of(cols)), "columns of a head");
        let positions = stretches.iter().sum::<usize>() / cols;
        let mut of_a_head = 0;
        for Asking { q, over, out } in &*asking {
            assert!(q.len() == size && out.len() == size, "heads and their outputs");
            assert!(!over.is_empty() && over.end <= positions, "{over:?} of {positions} positions");
            of_a_head += over.len();
        }
        assert!(rule.sinks.is_none_or(|sinks| sinks.len() >= size / cols), "a sink for each head");
        let mut scores = vec![0.0; size / cols * of_a_head];
        call!(self, vector::attend(asking, cols, rule, keys, values, &mut scores));
    }

    /// `out[i] = exp(logits[i] - log_sum)`, in f64.
    pub(crate) fn probabilities(self, logits: &[f32], log_sum: f64, out: &mut [f64]) {
        call!(self, logits::probabilities(logits, log_sum, out));
    }

    pub(super) fn peaks(self, logits: &[f32], best: &mut [f32], second: &mut [f32]) {
        call!(self, logits::peaks(logits, best, second));
    }

    pub(super) fn spans(self, logits: &[f32], best: &mut [f32], second: &mut [f32], sum: &mut [f64]) {
        call!(self, logits::spans(logits, best, second, sum));
    }

    pub(super) fn first_two(self, best: &[f32], second: &[f32]) -> Option<(usize, f32, f32)> {
        call!(self, logits::first_two(best, second))
    }

    pub(super) fn terms(self, best: &[f32], sum: &[f64], top: f32, term: &mut [f64]) {
        call!(self, logits::terms(best, sum, top, term));
    }

    pub(super) fn differences(self, p: &[f64], a: &[f32], b: &[f32], sum: &mut [f64]) {
        call!(self, logits::differences(p, a, b, sum));
    }

    pub(super) fn total(self, terms: &[f64]) -> f64 {
        call!(self, logits::total(terms))
    }

    /// The outputs of one block of rows, and the paths that were taken.
    ///
    /// # Safety
    /// `block`'s pointers are valid for its vectors, in this kernel's layout, and for its outputs; its
    /// rows lie in the matrix and no other thread touches those outputs.
    pub(super) unsafe fn block(
        self,
        weights: &WeightsRef<'_>,
        shift: u32,
        block: Block,
        scratch: &mut Scratch,
    ) -> Paths {
        let streamed =
            |matrix: &MatrixRef<'_>| self.streams && block.count == 1 && stream::suits(matrix.layout(), block.rows);
        match (self.instructions, weights) {
            // SAFETY: the caller's promise, and a `Kernel` exists only where its features were detected.
            (InstructionSet::Scalar, weights) => unsafe { scalar_block(weights, shift, block, scratch) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above; the block suits streams.
            (InstructionSet::Avx2, WeightsRef::Quantized(matrix)) if streamed(matrix) => unsafe {
                avx2::streamed(matrix, shift, block, scratch)
            },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            (InstructionSet::Avx2, WeightsRef::Quantized(matrix)) => unsafe {
                avx2::quantized(matrix, shift, block, scratch)
            },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            (InstructionSet::Avx2, WeightsRef::Dense(matrix)) => unsafe { avx2::dense(matrix, block, scratch) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above; the block suits streams.
            (InstructionSet::Avx512, WeightsRef::Quantized(matrix)) if streamed(matrix) => unsafe {
                avx512::streamed(matrix, shift, block, scratch)
            },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            (InstructionSet::Avx512, WeightsRef::Quantized(matrix)) => unsafe {
                avx512::quantized(matrix, shift, block, scratch)
            },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            (InstructionSet::Avx512, WeightsRef::Dense(matrix)) => unsafe { avx512::dense(matrix, block, scratch) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above; the block suits streams.
            (InstructionSet::Neon, WeightsRef::Quantized(matrix)) if streamed(matrix) => unsafe {
                neon::streamed(matrix, shift, block, scratch)
            },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            (InstructionSet::Neon, WeightsRef::Quantized(matrix)) => unsafe {
                neon::quantized(matrix, shift, block, scratch)
            },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            (InstructionSet::Neon, WeightsRef::Dense(matrix)) => unsafe { neon::dense(matrix, block, scratch) },
        }
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::SCALAR {
            return f.write_str(self.name());
        }
        let reading = if self.streams { "streams" } else { "blocks" };
        write!(f, "{}+{reading}+{}", self.name(), self.screen_name())
    }
}

impl Screen {
    /// What an instruction set has, the fastest first; `None`, no screen, is always there. With AVX-512 and no VNNI all logits are
    /// faster than `vpmaddubsw`: ten hidden states against SmolLM2's head take 4.2 ms, and 4.9 ms by it.
    fn available(instructions: InstructionSet) -> Vec<Option<Self>> {
        let best = match instructions {
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 if avx512::vnni_detected() => Some(Self::Vnni),
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => Some(Self::Maddubs),
            _ => None,
        };
        if best.is_some() { vec![best, None] } else { vec![None] }
    }
}

/// # Safety
/// As [`Kernel::block`].
unsafe fn scalar_block(weights: &WeightsRef<'_>, shift: u32, block: Block, scratch: &mut Scratch) -> Paths {
    let cols = weights.cols();
    let row_buffer = scratch.row(cols);
    for row in 0..block.rows {
        scalar::row(weights, shift, block.first_row + row, row_buffer);
        for vector in 0..block.count {
            // SAFETY: the caller's promise; the scalar kernel keeps vectors in column order.
            unsafe {
                let x = std::slice::from_raw_parts(block.vector(vector), cols);
                block.put(row, vector, scalar::dot(&row_buffer[..cols], x));
            }
        }
    }
    Paths::NONE
}
