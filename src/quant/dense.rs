//! Matrices that a checkpoint leaves unquantized.

use std::ops::{Deref, Range};

use super::{float_type::FloatType, layout::MatrixError};

/// A row-major matrix of floats, little-endian and of any alignment, in bytes of type `B`.
#[derive(Clone, Copy, Debug)]
pub struct Dense<B> {
    rows: usize,
    cols: usize,
    float_type: FloatType,
    data: B,
}

/// The view that kernels read.
pub(crate) type DenseRef<'a> = Dense<&'a [u8]>;

impl<B> Dense<B> {
    /// Output features, or tokens of an embedding.
    #[inline]
    pub(crate) const fn rows(&self) -> usize {
        self.rows
    }
    /// Input features.
    #[inline]
    pub(crate) const fn cols(&self) -> usize {
        self.cols
    }
    /// Element type.
    #[inline]
    pub(crate) const fn float_type(&self) -> FloatType {
        self.float_type
    }
    /// The elements.
    #[inline]
    pub(crate) const fn data(&self) -> &B {
        &self.data
    }
}

impl<B: Deref<Target = [u8]>> Dense<B> {
    /// Checks the length of `data` against the shape.
    ///
    /// # Errors
    /// [`MatrixError::Length`]; a shape whose size overflows needs more bytes than there can be.
    pub(crate) fn new(rows: usize, cols: usize, float_type: FloatType, data: B) -> Result<Self, MatrixError> {
        let needed = rows.checked_mul(cols).and_then(|n| n.checked_mul(float_type.size())).unwrap_or(usize::MAX);
        if data.len() != needed {
            return Err(MatrixError::Length { part: "weight", found: data.len(), needed });
        }
        Ok(Self { rows, cols, float_type, data })
    }

    /// The matrix as kernels read it.
    pub(crate) fn view(&self) -> DenseRef<'_> {
        Dense { rows: self.rows, cols: self.cols, float_type: self.float_type, data: &self.data }
    }
}

impl<'a> DenseRef<'a> {
    /// Some rows as a matrix of their own.
    ///
    /// # Panics
    /// If one is out of range.
    pub(crate) fn part(&self, rows: Range<usize>) -> DenseRef<'a> {
        let bytes = self.cols * self.float_type.size();
        let data = &self.data[rows.start * bytes..rows.end * bytes];
        Dense { rows: rows.len(), data, ..*self }
    }
}
