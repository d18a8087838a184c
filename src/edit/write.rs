//! Writing changes into a matrix, and taking them back.

use std::ops::{DerefMut, Range};

use super::Change;
use crate::quant::{Matrix, Tensor};

/// What takes a change back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Undo {
    /// Adds this to every packed word.
    Shift(u32),
    /// Puts back the bytes of one element or word.
    Bytes {
        /// Where.
        tensor: Tensor,
        /// Offset in the tensor.
        at: usize,
        /// The bytes that were there, of which the first `len` count.
        old: [u8; 4],
        /// Bytes of the element or word.
        len: usize,
    },
}

impl Change {
    /// Writes this change, which fits the matrix, with its row taken as `row`, and says how to take it back.
    ///
    /// # Panics
    /// On a place that the matrix does not have, which [`super::Edit::check`] finds first, and on a random family that
    /// is not expanded.
    pub(crate) fn write<B: DerefMut<Target = [u8]>>(&self, matrix: &mut Matrix<B>, row: usize) -> Undo {
        match *self {
            Self::Shift(shift) => {
                super::shift_words(bytes_of(matrix, Tensor::Weight), shift as u32);
                Undo::Shift(shift as u32)
            }
            Self::Flip { tensor: Tensor::Weight, column, bit, .. } => {
                code(matrix, row, column, |code| code ^ (1 << bit))
            }
            Self::Flip { tensor, column, bit, .. } => {
                let size = matrix.layout().scale_type().size();
                let at = (row * matrix.layout().groups_per_row() + column) * size;
                number(matrix, tensor, at..at + size, |value| value ^ (1 << bit))
            }
            Self::SetCode { column, value, .. } => code(matrix, row, column, |_| value),
            // Only the low bits count, so the sum may wrap as it likes.
            Self::AddCode { column, amount, .. } => code(matrix, row, column, |code| code.wrapping_add(amount as u32)),
            Self::XorWord { word: column, mask, .. } => word(matrix, row, column, |old| old ^ mask),
            Self::SetWord { word: column, value, .. } => word(matrix, row, column, |_| value),
            Self::Random(_) => panic!("random families are expanded before they are written"),
        }
    }
}

impl Undo {
    /// Takes the change back.
    ///
    /// # Panics
    /// If it was written into a matrix of another layout.
    pub(crate) fn take_back<B: DerefMut<Target = [u8]>>(&self, matrix: &mut Matrix<B>) {
        match *self {
            Self::Shift(shift) => super::shift_words(bytes_of(matrix, Tensor::Weight), shift.wrapping_neg()),
            Self::Bytes { tensor, at, old, len } => {
                bytes_of(matrix, tensor)[at..at + len].copy_from_slice(&old[..len]);
            }
        }
    }
}

/// Changes the code at `column` of `row`; of the new one only the low bits count.
fn code<B: DerefMut<Target = [u8]>>(
    matrix: &mut Matrix<B>,
    row: usize,
    column: usize,
    change: impl Fn(u32) -> u32,
) -> Undo {
    let (width, row_bytes) = (matrix.layout().width(), matrix.layout().weight_row_bytes());
    let new = change(matrix.code(row, column));
    let bytes = width.bytes_of(column);
    let of_row = &mut bytes_of(matrix, Tensor::Weight)[row * row_bytes..][..row_bytes];
    let undo = kept(Tensor::Weight, row * row_bytes + bytes.start, &of_row[bytes]);
    width.set_code(of_row, column, new);
    undo
}

/// Changes packed word `word` of `row`.
fn word<B: DerefMut<Target = [u8]>>(
    matrix: &mut Matrix<B>,
    row: usize,
    word: usize,
    change: impl Fn(u32) -> u32,
) -> Undo {
    let at = row * matrix.layout().weight_row_bytes() + 4 * word;
    number(matrix, Tensor::Weight, at..at + 4, change)
}

/// Changes some bytes, at most four, as one little-endian number.
fn number<B: DerefMut<Target = [u8]>>(
    matrix: &mut Matrix<B>,
    tensor: Tensor,
    at: Range<usize>,
    change: impl Fn(u32) -> u32,
) -> Undo {
    let bytes = &mut bytes_of(matrix, tensor)[at.clone()];
    let mut old = [0; 4];
    old[..bytes.len()].copy_from_slice(bytes);
    let undo = kept(tensor, at.start, bytes);
    bytes.copy_from_slice(&change(u32::from_le_bytes(old)).to_le_bytes()[..at.len()]);
    undo
}

/// What puts back `bytes`, which lie at `at`.
fn kept(tensor: Tensor, at: usize, bytes: &[u8]) -> Undo {
    let mut old = [0; 4];
    old[..bytes.len()].copy_from_slice(bytes);
    Undo::Bytes { tensor, at, old, len: bytes.len() }
}

fn bytes_of<B: DerefMut<Target = [u8]>>(matrix: &mut Matrix<B>, tensor: Tensor) -> &mut [u8] {
    matrix.part_mut(tensor).expect("an edit that fits changes tensors that the format has")
}
