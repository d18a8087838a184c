//! Vectors in the order of columns that an instruction set multiplies them in.

use std::{cell::RefCell, fmt, ops::Range};

use super::{
    kernel::Kernel,
    products::{
        block::{Block, grow, grow_lines},
        lanes::LANES,
        line::Line,
    },
};
use crate::team::Team;

/// Vectors to be multiplied, laid out as a kernel wants them.
pub struct Activations {
    pub(super) kernel: Kernel,
    pub(super) cols: usize,
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
    pub(crate) fn new(kernel: Kernel, cols: usize) -> Self {
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
    pub(crate) fn fill(&mut self, team: &Team, count: usize, cols: usize, vector: impl Fn(usize, &mut [f32]) + Sync) {
        self.fill_parts(team, count, cols, cols, vector);
    }

    /// As [`Activations::fill`], in parts of `part` columns, counted through all vectors: `write(i, out)` writes the `i`th.
    ///
    /// # Panics
    /// If a part is not a whole number of lines, or the parts of a vector are not as long as each other.
    pub(crate) fn fill_parts(
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
            place_written(kernel, part, lines, |row| write(i, row));
        });
    }

    /// As [`Activations::fill`], one vector for each `cols` elements of `state`: `vector(i, own, out)` may change its own.
    pub(crate) fn fill_from(
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
            place_written(kernel, cols, lines, |row| vector(i, own, row));
        });
    }

    /// The lines of `count` vectors of `cols` columns, with whatever was there before: what follows writes all of them.
    fn resize(&mut self, count: usize, cols: usize) -> &mut [Line] {
        (self.count, self.cols) = (count, cols);
        let len = count * cols.div_ceil(LANES);
        grow_lines(&mut self.lines, len);
        &mut self.lines[..len]
    }

    /// Vectors held.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// All of them.
    pub fn all(&self) -> Vectors<'_> {
        self.part(0..self.count)
    }

    /// Those in `range`.
    ///
    /// # Panics
    /// If one of them is not there.
    pub(crate) fn part(&self, range: Range<usize>) -> Vectors<'_> {
        assert!(range.end <= self.count, "{range:?} of {} vectors", self.count);
        let lines = self.cols.div_ceil(LANES);
        let own = &self.lines[range.start * lines..range.end * lines];
        Vectors { kernel: self.kernel, cols: self.cols, count: range.len(), lines: own }
    }

    /// Replaces all vectors by copies of vectors of `from`: the `i`th is `which[i]` there.
    ///
    /// # Panics
    /// If one of them is not there.
    pub(crate) fn gather(&mut self, team: &Team, from: &Self, which: &[usize]) {
        assert!(which.iter().all(|&i| i < from.count), "vectors that are there");
        let lines = from.cols.div_ceil(LANES);
        team.for_each_chunk(self.resize(which.len(), from.cols), lines, |i, own| {
            own.copy_from_slice(&from.lines[which[i] * lines..][..lines]);
        });
    }
}

/// Vectors that lie one after the other in [`Activations`].
#[derive(Clone, Copy)]
pub struct Vectors<'a> {
    pub(super) kernel: Kernel,
    pub(super) cols: usize,
    count: usize,
    lines: &'a [Line],
}

impl fmt::Debug for Vectors<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vectors({} of {} columns)", self.count, self.cols)
    }
}

impl Vectors<'_> {
    /// How many there are.
    pub(crate) const fn count(&self) -> usize {
        self.count
    }

    /// All of them beside `rows` rows from `first_row` on, with outputs at `out`.
    pub(super) fn block(&self, first_row: usize, rows: usize, out: *mut f32, stride: usize) -> Block {
        Block {
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

/// [`Kernel::place`] of `cols` columns that `write` leaves in a buffer, which holds whatever was there before.
fn place_written(kernel: Kernel, cols: usize, lines: &mut [Line], write: impl FnOnce(&mut [f32])) {
    thread_local! {
        static ROW: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
    }
    ROW.with_borrow_mut(|row| {
        grow(row, cols);
        write(&mut row[..cols]);
        kernel.place(&row[..cols], lines);
    });
}
