//! Matrices that a checkpoint leaves unquantized.

use super::{FloatType, MatrixError};

/// A row-major matrix of floats, little-endian, of any alignment.
#[derive(Clone, Copy, Debug)]
pub struct DenseRef<'a> {
    rows: usize,
    cols: usize,
    float_type: FloatType,
    data: &'a [u8],
}

impl<'a> DenseRef<'a> {
    /// Checks the length of `data` against the shape.
    ///
    /// # Errors
    /// [`MatrixError::Length`]; a shape whose size overflows needs more bytes than there can be.
    pub fn new(rows: usize, cols: usize, float_type: FloatType, data: &'a [u8]) -> Result<Self, MatrixError> {
        let needed = rows.checked_mul(cols).and_then(|n| n.checked_mul(float_type.size())).unwrap_or(usize::MAX);
        if data.len() != needed {
            return Err(MatrixError::Length { part: "weight", found: data.len(), needed });
        }
        Ok(Self { rows, cols, float_type, data })
    }

    /// Output features.
    #[inline]
    pub const fn rows(&self) -> usize {
        self.rows
    }
    /// Input features.
    #[inline]
    pub const fn cols(&self) -> usize {
        self.cols
    }
    /// Element type.
    #[inline]
    pub const fn float_type(&self) -> FloatType {
        self.float_type
    }
    /// The elements, row-major, little-endian.
    #[inline]
    pub const fn data(&self) -> &'a [u8] {
        self.data
    }
}
