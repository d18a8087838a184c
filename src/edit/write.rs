//! Writing changes into a matrix, and taking them back.

use super::{Change, Tensor};
use crate::quant::{Layout, MatrixError, MatrixRef, packed};

/// A quantized matrix that can be written.
#[derive(Debug)]
pub struct MatrixMut<'a> {
    layout: Layout,
    weight: &'a mut [u8],
    scales: &'a mut [u8],
    biases: &'a mut [u8],
}

/// What takes a change back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undo {
    /// Adding this to every packed word.
    Shift(u32),
    /// Putting back the bytes of one element or word.
    Bytes {
        /// Where.
        tensor: Tensor,
        /// Offset in the tensor.
        at: usize,
        /// What was there; the first `len` bytes count.
        old: [u8; 4],
        /// Bytes of the element or word.
        len: usize,
    },
}

impl<'a> MatrixMut<'a> {
    /// Checks the lengths of the three parts against `layout`.
    ///
    /// # Errors
    /// [`MatrixError::Length`].
    pub fn new(
        layout: Layout,
        weight: &'a mut [u8],
        scales: &'a mut [u8],
        biases: &'a mut [u8],
    ) -> Result<Self, MatrixError> {
        MatrixRef::new(layout, weight, scales, biases)?;
        Ok(Self { layout, weight, scales, biases })
    }

    /// Subtracts `shift` from every packed word, wrapping.
    pub fn shift(&mut self, shift: u32) {
        super::shift_words(self.weight, shift);
    }

    /// Writes a change that fits the layout, its row taken as `row`, and says how to take it back.
    ///
    /// # Panics
    /// On a place beyond the matrix, which [`super::Edit::check`] finds first, and on a random family that
    /// is not expanded.
    pub fn write(&mut self, change: &Change, row: usize) -> Undo {
        let bits = self.layout.bits();
        match *change {
            Change::Shift(shift) => {
                self.shift(shift as u32);
                Undo::Shift(shift as u32)
            }
            Change::Flip { tensor: Tensor::Weight, column, bit, .. } => {
                self.code(row, column, |code| code ^ (1 << bit))
            }
            Change::Flip { tensor, column, bit, .. } => {
                let size = self.layout.scale_type().size();
                let at = (row * self.layout.groups_per_row() + column) * size;
                self.bytes(tensor, at, size, |value| value ^ (1 << bit))
            }
            Change::SetCode { column, value, .. } => self.code(row, column, |_| value),
            Change::AddCode { column, amount, .. } => {
                // Only the low bits count, so the sum may wrap as it likes; `with_code` masks it.
                self.code(row, column, |code| code.wrapping_add(amount as u32) & bits.mask())
            }
            Change::XorWord { word, mask, .. } => self.word(row, word, |old| old ^ mask),
            Change::SetWord { word, value, .. } => self.word(row, word, |_| value),
            Change::Random(_) => panic!("random families are expanded before they are written"),
        }
    }

    /// Takes a change back.
    pub fn undo(&mut self, undo: &Undo) {
        match *undo {
            Undo::Shift(shift) => self.shift(shift.wrapping_neg()),
            Undo::Bytes { tensor, at, old, len } => self.tensor(tensor)[at..at + len].copy_from_slice(&old[..len]),
        }
    }

    fn code(&mut self, row: usize, column: usize, change: impl Fn(u32) -> u32) -> Undo {
        let bits = self.layout.bits();
        let (word, i) = (column / bits.per_word(), column % bits.per_word());
        self.word(row, word, |old| packed::with_code(old, i, change(packed::code(old, i, bits)), bits))
    }

    fn word(&mut self, row: usize, word: usize, change: impl Fn(u32) -> u32) -> Undo {
        let at = row * self.layout.weight_row_bytes() + 4 * word;
        self.bytes(Tensor::Weight, at, 4, change)
    }

    fn bytes(&mut self, tensor: Tensor, at: usize, len: usize, change: impl Fn(u32) -> u32) -> Undo {
        let bytes = &mut self.tensor(tensor)[at..at + len];
        let mut old = [0; 4];
        old[..len].copy_from_slice(bytes);
        bytes.copy_from_slice(&change(u32::from_le_bytes(old)).to_le_bytes()[..len]);
        Undo::Bytes { tensor, at, old, len }
    }

    fn tensor(&mut self, tensor: Tensor) -> &mut [u8] {
        match tensor {
            Tensor::Weight => self.weight,
            Tensor::Scales => self.scales,
            Tensor::Biases => self.biases,
        }
    }
}
