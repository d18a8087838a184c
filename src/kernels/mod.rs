//! The arithmetic: packed rows times vectors, and what stands between two such products.
//!
//! [`scalar`] is the specification, written to be read. The other kernels give the same bits, faster:
//! `lanes.rs` has the loops that they share, and `avx2.rs`, `avx512.rs` and `neon.rs` what is
//! particular to an instruction set; `vector.rs` and `logits.rs` are plain loops, compiled for each. Which of them this processor can run is found out at run time;
//! a [`Kernel`] is the proof, so that whoever holds one may call it without `unsafe`.
//!
//! A shift needs no second matrix: the kernels subtract it from packed words that they have just loaded. `stream.rs` is the
//! way of one vector through long rows, where memory is the limit; `screen/` finds the two largest of the products without all
//! of them, to the bit.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg_attr(not(any(target_arch = "x86_64", target_arch = "aarch64")), expect(dead_code, reason = "scalar only"))]
mod lanes;
mod logits;
#[cfg(target_arch = "aarch64")]
mod neon;
mod paths;
pub(crate) mod rounding;
pub mod scalar;
#[cfg(target_arch = "x86_64")]
mod screen;
#[cfg_attr(not(any(target_arch = "x86_64", target_arch = "aarch64")), expect(dead_code, reason = "scalar only"))]
mod stream;
mod vector;

use std::{cell::RefCell, fmt};

use crate::{
    quant::{MatrixRef, WeightsRef},
    team::Team,
};
pub use logits::{Differences, Peaks, Replaced, Spans, Top};
pub use paths::Paths;
use paths::Taken;
pub use scalar::LANES;
#[cfg(target_arch = "x86_64")]
pub use screen::tops;

/// Functions of a kernel's file that carry its `target_feature`: the way from dispatch into the shared
/// loops.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! entry_points {
    ($lanes:ty, $features:literal) => {
        /// # Safety
        /// As [`lanes::quantized`], with this file's features detected.
        #[target_feature(enable = $features)]
        pub(super) unsafe fn quantized(
            matrix: &MatrixRef<'_>,
            shift: u32,
            block: Block,
            scratch: &mut Scratch,
        ) -> super::Paths {
            // SAFETY: the caller's promise.
            unsafe {
                if shift == 0 {
                    lanes::quantized::<$lanes, false>(matrix, shift, block, scratch)
                } else {
                    lanes::quantized::<$lanes, true>(matrix, shift, block, scratch)
                }
            }
        }

        /// # Safety
        /// As [`stream::quantized`](super::stream::quantized), with this file's features detected.
        #[target_feature(enable = $features)]
        pub(super) unsafe fn streamed(
            matrix: &MatrixRef<'_>,
            shift: u32,
            block: Block,
            scratch: &mut Scratch,
        ) -> super::Paths {
            // SAFETY: the caller's promise.
            unsafe { super::stream::by_shift::<$lanes>(matrix, shift, block, scratch) }
        }

        /// # Safety
        /// As [`lanes::dense`], with this file's features detected.
        #[target_feature(enable = $features)]
        pub(super) unsafe fn dense(matrix: &DenseRef<'_>, block: Block, scratch: &mut Scratch) -> super::Paths {
            // SAFETY: the caller's promise.
            unsafe { lanes::dense::<$lanes>(matrix, block, scratch) }
        }

        /// # Safety
        /// As [`lanes::place`], with this file's features detected.
        #[target_feature(enable = $features)]
        pub(super) unsafe fn place(row: &[f32], lines: &mut [super::Line]) {
            // SAFETY: the caller's promise.
            unsafe { lanes::place::<$lanes>(row, lines) }
        }

        /// # Safety
        /// As [`lanes::attend`], with this file's features detected.
        #[target_feature(enable = $features)]
        pub(super) unsafe fn attend(
            q: &[f32],
            scale: f32,
            keys: &[&[f32]],
            values: &[&[f32]],
            scores: &mut [f32],
            out: &mut [f32],
        ) {
            // SAFETY: the caller's promise.
            unsafe { lanes::attend::<$lanes>(q, scale, keys, values, scores, out) }
        }

        super::vector_entry_points!($features);
    };
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use entry_points;

/// The functions of `vector.rs` and `logits.rs`, compiled for an instruction set.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! vector_entry_points {
    ($features:literal) => {
        super::vector_entry_points!($features; vector
            fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]);
            fn swiglu(gate: &mut [f32], up: &[f32]);
            fn add(x: &mut [f32], y: &[f32]);
            fn rope(x: &mut [f32], cos: &[f32], sin: &[f32]);
        );
        super::vector_entry_points!($features; logits
            fn peaks(logits: &[f32], best: &mut [f32], second: &mut [f32]);
            fn spans(logits: &[f32], best: &mut [f32], second: &mut [f32], sum: &mut [f64]);
            fn first_two(best: &[f32], second: &[f32]) -> Option<(usize, f32, f32)>;
            fn terms(best: &[f32], sum: &[f64], top: f32, term: &mut [f64]);
            fn total(terms: &[f64]) -> f64;
            fn probabilities(logits: &[f32], log_sum: f64, out: &mut [f64]);
            fn differences(p: &[f64], a: &[f32], b: &[f32], sum: &mut [f64]);
        );
    };
    ($features:literal; $module:ident $(fn $name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)?;)*) => {
        $(#[target_feature(enable = $features)]
        pub(super) fn $name($($arg: $type),*) $(-> $result)? {
            super::$module::$name($($arg),*)
        })*
    };
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use vector_entry_points;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Isa {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "aarch64")]
    Neon,
}

/// How the two largest logits are found without all the others: the instructions of `screen/`, as proof that this processor has
/// them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Screen {
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
    isa: Isa,
    /// Whether one vector's long rows are read as several streams; see `stream.rs`.
    streams: bool,
    /// `None`: the two largest logits are found among all.
    screen: Option<Screen>,
}

/// Calls a function of the kernel's file, or the one that it is made of where the kernel is the scalar one.
macro_rules! call {
    ($kernel:expr, $module:ident::$name:ident($($arg:expr),*)) => {
        match $kernel.isa {
            Isa::Scalar => $module::$name($($arg),*),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a `Kernel` of this kind exists only where its features were detected.
            Isa::Avx2 => unsafe { avx2::$name($($arg),*) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx512 => unsafe { avx512::$name($($arg),*) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            Isa::Neon => unsafe { neon::$name($($arg),*) },
        }
    };
}

impl Kernel {
    /// The specification: everywhere available, slow.
    pub const SCALAR: Self = Self { isa: Isa::Scalar, streams: false, screen: None };

    /// All kernels that this processor can run: the fastest instruction set first, the scalar one last, and of each the paths that
    /// are fastest here before the others.
    pub fn available() -> Vec<Self> {
        let mut found = Vec::new();
        let fastest = stream::several_are_faster();
        for isa in Isa::available() {
            for streams in [fastest, !fastest] {
                found.extend(Screen::available(isa).into_iter().map(|screen| Self { isa, streams, screen }));
            }
        }
        found.push(Self::SCALAR);
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
        match self.isa {
            Isa::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => "avx512",
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => "neon",
        }
    }

    /// How the two largest logits are found: `vnni`, `maddubs`, or `logits` where all of them are computed.
    pub const fn screen_name(self) -> &'static str {
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
        let mut paths = match self.isa {
            Isa::Scalar => return Paths::NONE,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Paths::NONE,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Paths::EIGHT_ROWS,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => Paths::EIGHT_ROWS,
        };
        paths = paths | Paths::REGISTERS | Paths::PANEL | Paths::PANEL_IN_PARTS | Paths::DENSE;
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
    fn place(self, row: &[f32], lines: &mut [Line]) {
        call!(self, vector::place(row, lines));
    }

    /// [`Kernel::place`] of `cols` columns that `write` leaves in a buffer, which holds whatever was there before.
    fn place_written(self, cols: usize, lines: &mut [Line], write: impl FnOnce(&mut [f32])) {
        thread_local! {
            static ROW: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
        }
        ROW.with_borrow_mut(|row| {
            lanes::grow(row, cols);
            write(&mut row[..cols]);
            self.place(&row[..cols], lines);
        });
    }

    /// `out[c] = x[c] / sqrt(mean(x^2) + eps) * weight[c]`; all of one length.
    pub fn rms_norm(self, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        call!(self, vector::rms_norm(x, weight, eps, out));
    }

    /// `gate[c] = silu(gate[c]) * up[c]`.
    pub fn swiglu(self, gate: &mut [f32], up: &[f32]) {
        call!(self, vector::swiglu(gate, up));
    }

    /// `x[c] += y[c]`.
    pub fn add(self, x: &mut [f32], y: &[f32]) {
        call!(self, vector::add(x, y));
    }

    /// Rotary position embedding of every head in `x`: `cos` and `sin` have half a head's columns, and
    /// column `c` of a head is paired with `c + half`.
    pub fn rope(self, x: &mut [f32], cos: &[f32], sin: &[f32]) {
        call!(self, vector::rope(x, cos, sin));
    }

    /// Attention of query heads that share keys and values, one after the other in `q`, over positions in order:
    /// `softmax(scale * q . k) v` for each, `[heads, columns]`.
    ///
    /// # Panics
    /// If there is no key, or another number of values; if a key or value is not as long as the first key, `q` is not a
    /// whole number of times as long, or `out` is not as long as `q`.
    pub fn attend(self, q: &[f32], scale: f32, keys: &[&[f32]], values: &[&[f32]], out: &mut [f32]) {
        let cols = keys.first().map_or(0, |key| key.len());
        assert!(cols > 0 && q.len().is_multiple_of(cols), "whole heads, and something to attend to");
        assert_eq!((out.len(), values.len()), (q.len(), keys.len()), "outputs, and values");
        assert!(keys.iter().chain(values).all(|x| x.len() == cols), "columns of a head");
        let mut scores = vec![0.0; q.len() / cols * keys.len()];
        call!(self, vector::attend(q, scale, keys, values, &mut scores, out));
    }

    /// The two largest logits, the first of equals first; `None` if one is not finite.
    pub fn top(self, logits: &[f32]) -> Option<Top> {
        Peaks::new(self, logits).top(logits)
    }

    /// `ln(sum_i exp(logits[i]))`, in f64; NaN if one is not finite.
    pub fn log_sum_exp(self, logits: &[f32]) -> f64 {
        Spans::new(self, logits).log_sum_exp()
    }

    /// `out[i] = exp(logits[i] - log_sum)`, in f64.
    pub fn probabilities(self, logits: &[f32], log_sum: f64, out: &mut [f64]) {
        call!(self, logits::probabilities(logits, log_sum, out));
    }

    fn peaks(self, logits: &[f32], best: &mut [f32], second: &mut [f32]) {
        call!(self, logits::peaks(logits, best, second));
    }

    fn spans(self, logits: &[f32], best: &mut [f32], second: &mut [f32], sum: &mut [f64]) {
        call!(self, logits::spans(logits, best, second, sum));
    }

    fn first_two(self, best: &[f32], second: &[f32]) -> Option<(usize, f32, f32)> {
        call!(self, logits::first_two(best, second))
    }

    fn terms(self, best: &[f32], sum: &[f64], top: f32, term: &mut [f64]) {
        call!(self, logits::terms(best, sum, top, term));
    }

    fn differences(self, p: &[f64], a: &[f32], b: &[f32], sum: &mut [f64]) {
        call!(self, logits::differences(p, a, b, sum));
    }

    fn total(self, terms: &[f64]) -> f64 {
        call!(self, logits::total(terms))
    }

    /// The outputs of one block of rows, and the paths that were taken.
    ///
    /// # Safety
    /// `block`'s pointers are valid for its vectors, in this kernel's layout, and for its outputs; its
    /// rows lie in the matrix and no other thread touches those outputs.
    unsafe fn block(
        self,
        weights: &WeightsRef<'_>,
        shift: u32,
        block: lanes::Block,
        scratch: &mut lanes::Scratch,
    ) -> Paths {
        let streamed =
            |matrix: &MatrixRef<'_>| self.streams && block.count == 1 && stream::suits(matrix.layout(), block.rows);
        match (self.isa, weights) {
            // SAFETY: the caller's promise, and a `Kernel` exists only where its features were detected.
            (Isa::Scalar, weights) => unsafe { scalar_block(weights, shift, block, scratch) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above; the block suits streams.
            (Isa::Avx2, WeightsRef::Quantized(matrix)) if streamed(matrix) => unsafe {
                avx2::streamed(matrix, shift, block, scratch)
            },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            (Isa::Avx2, WeightsRef::Quantized(matrix)) => unsafe { avx2::quantized(matrix, shift, block, scratch) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            (Isa::Avx2, WeightsRef::Dense(matrix)) => unsafe { avx2::dense(matrix, block, scratch) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above; the block suits streams.
            (Isa::Avx512, WeightsRef::Quantized(matrix)) if streamed(matrix) => unsafe {
                avx512::streamed(matrix, shift, block, scratch)
            },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            (Isa::Avx512, WeightsRef::Quantized(matrix)) => unsafe { avx512::quantized(matrix, shift, block, scratch) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            (Isa::Avx512, WeightsRef::Dense(matrix)) => unsafe { avx512::dense(matrix, block, scratch) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above; the block suits streams.
            (Isa::Neon, WeightsRef::Quantized(matrix)) if streamed(matrix) => unsafe {
                neon::streamed(matrix, shift, block, scratch)
            },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            (Isa::Neon, WeightsRef::Quantized(matrix)) => unsafe { neon::quantized(matrix, shift, block, scratch) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            (Isa::Neon, WeightsRef::Dense(matrix)) => unsafe { neon::dense(matrix, block, scratch) },
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

impl Isa {
    /// Those that this processor has beside the scalar one, the fastest first.
    fn available() -> Vec<Self> {
        let mut found = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if avx512::detected() {
                found.push(Self::Avx512);
            }
            if avx2::detected() {
                found.push(Self::Avx2);
            }
        }
        #[cfg(target_arch = "aarch64")]
        if neon::detected() {
            found.push(Self::Neon);
        }
        found
    }
}

impl Screen {
    /// What this processor has beside an instruction set, the fastest first; `None`, no screen, is always there.
    fn available(isa: Isa) -> Vec<Option<Self>> {
        let mut found = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if isa == Isa::Avx512 && screen::vnni_detected() {
                found.push(Some(Self::Vnni));
            }
            if isa != Isa::Scalar && avx2::detected() {
                found.push(Some(Self::Maddubs));
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = isa;
        found.push(None);
        found
    }
}

/// # Safety
/// As [`Kernel::block`].
unsafe fn scalar_block(
    weights: &WeightsRef<'_>,
    shift: u32,
    block: lanes::Block,
    scratch: &mut lanes::Scratch,
) -> Paths {
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

/// Sixteen floats on a cache line of their own.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; LANES]);

/// Vectors to be multiplied, laid out as a kernel wants them.
pub struct Activations {
    kernel: Kernel,
    cols: usize,
    count: usize,
    /// Those of all vectors, and then others of times when there were more.
    lines: Vec<Line>,
}

impl fmt::Debug for Activations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Activations({} vectors of {} columns)", self.count, self.cols)
    }
}

impl Activations {
    /// No vectors yet, of `cols` columns each.
    pub fn new(kernel: Kernel, cols: usize) -> Self {
        Self { kernel, cols, count: 0, lines: Vec::new() }
    }

    /// Vectors of `cols` columns each, lying one after the other in `rows`.
    ///
    /// # Panics
    /// If `rows` is not a whole number of vectors.
    pub fn from_rows(kernel: Kernel, cols: usize, rows: &[f32]) -> Self {
        assert!(rows.len().is_multiple_of(cols), "whole vectors");
        let mut new = Self::new(kernel, cols);
        let lines = new.resize(rows.len() / cols, cols);
        for (row, lines) in rows.chunks_exact(cols).zip(lines.chunks_exact_mut(cols.div_ceil(LANES))) {
            kernel.place(row, lines);
        }
        new
    }

    /// Replaces all vectors by `count` new ones of `cols` columns; `vector(i, out)` writes the `i`th into
    /// `out`, which holds whatever was there before.
    pub fn fill(&mut self, team: &Team, count: usize, cols: usize, vector: impl Fn(usize, &mut [f32]) + Sync) {
        self.fill_parts(team, count, cols, cols, vector);
    }

    /// As [`Activations::fill`], in parts of `part` columns, counted through all vectors: `write(i, out)` writes the `i`th.
    ///
    /// # Panics
    /// If a part is not a whole number of lines, or the parts of a vector are not as long as each other.
    pub fn fill_parts(
        &mut self,
        team: &Team,
        count: usize,
        cols: usize,
        part: usize,
        write: impl Fn(usize, &mut [f32]) + Sync,
    ) {
        assert!(part == cols || part.is_multiple_of(LANES) && cols.is_multiple_of(part), "parts of {part} of {cols}");
        let kernel = self.kernel;
        team.for_each_chunk(self.resize(count, cols), part.div_ceil(LANES), |i, lines| {
            kernel.place_written(part, lines, |row| write(i, row));
        });
    }

    /// As [`Activations::fill`], one vector for each `cols` elements of `state`: `vector(i, own, out)` may change its own.
    pub fn fill_from(
        &mut self,
        team: &Team,
        state: &mut [f32],
        cols: usize,
        vector: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
    ) {
        let kernel = self.kernel;
        let lines = self.resize(state.len() / cols, cols).chunks_exact_mut(cols.div_ceil(LANES));
        let mut items: Vec<(&mut [f32], &mut [Line])> = state.chunks_exact_mut(cols).zip(lines).collect();
        team.for_each_chunk(&mut items, 1, |i, item| {
            let (own, lines) = &mut item[0];
            kernel.place_written(cols, lines, |row| vector(i, own, row));
        });
    }

    /// The lines of `count` vectors of `cols` columns, with whatever was there before: what follows writes all of them.
    fn resize(&mut self, count: usize, cols: usize) -> &mut [Line] {
        (self.count, self.cols) = (count, cols);
        let len = count * cols.div_ceil(LANES);
        lanes::grow_lines(&mut self.lines, len);
        &mut self.lines[..len]
    }

    /// Vectors held.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// All of them beside `rows` rows from `first_row` on, with outputs at `out`.
    fn block(&self, first_row: usize, rows: usize, out: *mut f32, stride: usize) -> lanes::Block {
        lanes::Block {
            first_row,
            rows,
            x: self.lines.as_ptr().cast(),
            x_stride: self.cols.next_multiple_of(LANES),
            count: self.count,
            out,
            stride,
        }
    }
}

/// Vectors to multiply by a matrix whose packed words are shifted by `shift`.
pub struct Job<'a> {
    /// Subtracted from each packed word; 0 leaves the matrix as it is.
    pub shift: u32,
    /// The vectors.
    pub x: &'a Activations,
    /// `[vectors, rows]`.
    pub out: &'a mut [f32],
}

/// A matrix and all that is to be multiplied by it.
pub struct Pass<'a> {
    /// The matrix.
    pub weights: WeightsRef<'a>,
    /// Vectors under one shift or several: one pass over the matrix serves them all.
    pub jobs: Vec<Job<'a>>,
}

/// Rows of one work item, but for those of one vector; see [`block_rows`]. Small enough to be spread over threads, large
/// enough to fill tiles; a block of packed words stays in the cache while all jobs of a pass use it.
const BLOCK_ROWS: usize = 32;

thread_local! {
    static SCRATCH: RefCell<lanes::Scratch> = RefCell::default();
}

/// An output that several threads write, each its own rows.
#[derive(Clone, Copy)]
struct Output(*mut f32);

// SAFETY: `multiply` gives every row of every output to exactly one work item.
unsafe impl Sync for Output {}
// SAFETY: as above.
unsafe impl Send for Output {}

/// Computes all passes in one parallel loop over blocks of rows, and says which paths were taken. The bits of an output depend on
/// its row of weights, its shift and its vector alone.
///
/// # Panics
/// If a job's vectors or output do not fit its matrix.
pub fn multiply(kernel: Kernel, team: &Team, passes: &mut [Pass<'_>]) -> Paths {
    let mut blocks = Vec::new();
    let mut outputs = Vec::with_capacity(passes.len());
    let all_rows = passes.iter().map(|pass| pass.weights.rows()).sum();
    for (index, pass) in passes.iter_mut().enumerate() {
        let rows = pass.weights.rows();
        for job in &pass.jobs {
            assert_eq!(job.x.cols, pass.weights.cols(), "columns of the vectors and of the matrix");
            assert_eq!(job.x.kernel.isa, kernel.isa, "the vectors' layout and the kernel's");
            assert_eq!(job.out.len(), job.x.count() * rows, "outputs of a job");
        }
        outputs.push(pass.jobs.iter_mut().map(|job| Output(job.out.as_mut_ptr())).collect::<Vec<_>>());
        if !pass.jobs.is_empty() {
            let block_rows = block_rows(kernel, pass, all_rows, team.threads());
            blocks.extend((0..rows).step_by(block_rows).map(|first| (index, first..rows.min(first + block_rows))));
        }
    }
    let passes = &*passes;
    let taken = Taken::default();
    team.for_each(blocks.len(), |i| {
        let (index, ref rows) = blocks[i];
        let pass = &passes[index];
        SCRATCH.with_borrow_mut(|scratch| {
            for (job, &Output(out)) in pass.jobs.iter().zip(&outputs[index]) {
                let block = job.x.block(rows.start, rows.len(), out, pass.weights.rows());
                // SAFETY: the asserts above fit vectors and outputs to the matrix and the kernel, and
                // this item is the only one with these rows.
                taken.add(unsafe { kernel.block(&pass.weights, job.shift, block, scratch) });
            }
        });
    });
    taken.paths()
}

/// Rows of a pass's blocks, where `all_rows` of all passes are left to so many threads.
fn block_rows(kernel: Kernel, pass: &Pass<'_>, all_rows: usize, threads: usize) -> usize {
    match (&pass.weights, &pass.jobs[..]) {
        // Nothing else is multiplied by a block, so that it need not stay in a cache.
        (WeightsRef::Quantized(matrix), [job]) if kernel.streams && job.x.count() == 1 => {
            stream::block_rows(matrix.layout(), all_rows, threads)
        }
        _ => BLOCK_ROWS,
    }
}

/// The products of single rows, each a matrix of its own, and all vectors: `out` is `[rows, vectors]`. The bits are
/// those of [`multiply`].
///
/// # Panics
/// If the vectors or the output do not fit the rows.
pub fn multiply_rows(kernel: Kernel, team: &Team, rows: &[MatrixRef<'_>], x: &Activations, out: &mut [f32]) {
    let count = x.count();
    assert_eq!(x.kernel.isa, kernel.isa, "the vectors' layout and the kernel's");
    assert_eq!(out.len(), rows.len() * count, "a product for each row and vector");
    if out.is_empty() {
        return;
    }
    team.for_each_chunk(out, count, |i, out| {
        let row = &rows[i];
        assert_eq!((row.layout().rows(), row.layout().cols()), (1, x.cols), "a row as long as the vectors");
        let block = x.block(0, 1, out.as_mut_ptr(), 1);
        // SAFETY: `out` has a place for each vector of the one row, and is this item's alone; vectors are in the
        // kernel's layout.
        SCRATCH.with_borrow_mut(|scratch| unsafe { kernel.block(&WeightsRef::Quantized(*row), 0, block, scratch) });
    });
}

/// The two largest logits of each of several hidden states; see [`tops`].
#[derive(Clone, Debug)]
pub struct Tops {
    /// One for each hidden state, the first of equals first; `None` if one logit is not finite.
    pub tops: Vec<Option<Top>>,
    /// What was done to find them.
    pub paths: Paths,
}

/// The two largest logits of each hidden state, where the processor has instructions for it; here it has not.
#[cfg(not(target_arch = "x86_64"))]
pub fn tops(_kernel: Kernel, _team: &Team, _matrix: &MatrixRef<'_>, _queries: &[(u32, &[f32])]) -> Option<Tops> {
    None
}
