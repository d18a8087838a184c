//! Quantized matrices as MLX stores them, and the arithmetic of one weight.
//!
//! `w[r, c] = scales[r, c / group_size] * code[r, c] + biases[r, c / group_size]`, where `code` is
//! the integer of a few bits at row `r`, column `c`; where codes are floats of a few bits,
//! `w[r, c] = scales[r, c / group_size] * value(code[r, c])`. Each *code* is scaled, never the packed
//! word: the notebook that this project started from writes `packed_uint32 * scale + bias`, which
//! is not what MLX computes.
//!
//! A [`Format`] says how weights are stored, and where the bits of each code lie; a [`Layout`] adds a shape; a
//! [`Matrix`] is a layout with its bytes, wherever they are: in a mapped file, in memory, in somebody else's memory.
//! [`MatrixRef`] is the one view that kernels, edits and certificates read.

use std::ops::{Deref, Range};

mod dense;
pub(crate) mod float_type;
mod format;
mod layout;
mod matrix;

pub use dense::Dense;
pub(crate) use dense::DenseRef;

pub use float_type::FloatType;
pub use format::{Codes, Format, FormatError, Tensor, Width};
pub use layout::{Layout, MatrixError};
pub use matrix::{Matrix, MatrixBuf, MatrixRef};

/// A matrix of either kind, in bytes of type `B`.
#[derive(Clone, Copy, Debug)]
pub enum Weights<B> {
    /// Packed codes with scales, and biases where the format has them.
    Quantized(Matrix<B>),
    /// Floats.
    Dense(Dense<B>),
}

/// The view that kernels read.
pub type WeightsRef<'a> = Weights<&'a [u8]>;

impl<B> Weights<B> {
    /// Output features, or tokens of an embedding.
    pub(crate) const fn rows(&self) -> usize {
        match self {
            Self::Quantized(matrix) => matrix.layout().rows(),
            Self::Dense(matrix) => matrix.rows(),
        }
    }

    /// Input features.
    pub(crate) const fn cols(&self) -> usize {
        match self {
            Self::Quantized(matrix) => matrix.layout().cols(),
            Self::Dense(matrix) => matrix.cols(),
        }
    }
}

impl<B: Deref<Target = [u8]>> Weights<B> {
    /// The matrix as kernels read it.
    pub(crate) fn view(&self) -> WeightsRef<'_> {
        match self {
            Self::Quantized(matrix) => Weights::Quantized(matrix.view()),
            Self::Dense(matrix) => Weights::Dense(matrix.view()),
        }
    }
}

impl<'a> WeightsRef<'a> {
    /// Some rows as a matrix of their own.
    ///
    /// # Panics
    /// If there are none, or one is out of range.
    pub(crate) fn part(&self, rows: Range<usize>) -> WeightsRef<'a> {
        match self {
            Self::Quantized(matrix) => Weights::Quantized(matrix.rows(rows)),
            Self::Dense(matrix) => Weights::Dense(matrix.part(rows)),
        }
    }
}
