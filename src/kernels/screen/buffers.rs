//! What a thread keeps of the rows that it looks at.

use std::cell::RefCell;

use super::range::ROWS;

/// Buffers of one thread.
#[derive(Default)]
pub(super) struct Buffers {
    /// `[words, rows]`: sixteen rows side by side; the last one again, where there are fewer.
    pub(super) words: Vec<[u32; ROWS]>,
    /// The same of widened scales and biases, `[groups, rows]`.
    pub(super) scales: Vec<[f32; ROWS]>,
    pub(super) biases: Vec<[f32; ROWS]>,
    /// Without their signs.
    pub(super) sizes: [Vec<[f32; ROWS]>; 2],
    /// Widened scales and biases of rows as the matrix has them, and scales times steps.
    pub(super) widened: [Vec<f32>; 3],
}

thread_local! {
    pub(super) static BUFFERS: RefCell<Buffers> = RefCell::default();
}
