//! Shape and format of a matrix, and what follows from them: how many words, groups and bytes it has.

use super::{
    float_type::FloatType,
    format::{Format, Tensor, Width},
};

/// A requirement that a matrix does not meet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MatrixError {
    /// Every row holds whole groups, and there is at least one row and one group.
    #[error("{rows} x {cols} cannot be cut into groups of {group_size} columns")]
    Shape {
        /// Rows given.
        rows: usize,
        /// Columns given.
        cols: usize,
        /// Columns of a group.
        group_size: usize,
    },
    /// The format has scales of another type.
    #[error("{format} has no scales of type {found:?}")]
    ScaleType {
        /// The format.
        format: Format,
        /// The type given.
        found: FloatType,
    },
    /// A part has another length than the shape asks for.
    #[error("{part} has {found} bytes where the shape needs {needed}")]
    Length {
        /// `weight`, `scales` or `biases`.
        part: &'static str,
        /// Bytes given.
        found: usize,
        /// Bytes that the shape needs.
        needed: usize,
    },
    /// The format has biases, and none were given.
    #[error("{0} has biases, and none are there")]
    NoBiases(Format),
    /// The format has no biases, and some were given.
    #[error("{0} has no biases, and some are there")]
    UnexpectedBiases(Format),
}

/// Shape and format of a quantized matrix, without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    rows: usize,
    cols: usize,
    format: Format,
    scale_type: FloatType,
}

impl Layout {
    /// A layout of at least one row and one group.
    ///
    /// # Errors
    /// [`MatrixError::Shape`], also where the sizes in bytes would overflow; [`MatrixError::ScaleType`], where the
    /// format has no such scales.
    pub fn new(rows: usize, cols: usize, format: Format, scale_type: FloatType) -> Result<Self, MatrixError> {
        let group_size = format.group_size();
        let fits = rows.checked_mul(cols).and_then(|n| n.checked_mul(4)).is_some_and(|n| n <= isize::MAX as usize);
        if rows == 0 || cols == 0 || !cols.is_multiple_of(group_size) || !fits {
            return Err(MatrixError::Shape { rows, cols, group_size });
        }
        if !format.scale_types().contains(&scale_type) {
            return Err(MatrixError::ScaleType { format, found: scale_type });
        }
        Ok(Self { rows, cols, format, scale_type })
    }

    /// Output features.
    #[inline]
    pub const fn rows(&self) -> usize {
        self.rows
    }
    /// Input features: codes a row.
    #[inline]
    pub const fn cols(&self) -> usize {
        self.cols
    }
    /// How weights are stored.
    #[inline]
    pub const fn format(&self) -> Format {
        self.format
    }
    /// Width of a code, and so where each lies in its row.
    #[inline]
    pub(crate) const fn width(&self) -> Width {
        self.format.width()
    }
    /// Bits of a code.
    #[inline]
    pub const fn bits(&self) -> usize {
        self.format.width().bits()
    }
    /// Columns that share one scale, and one bias where there are any.
    #[inline]
    pub const fn group_size(&self) -> usize {
        self.format.group_size()
    }
    /// Element type of scales and biases.
    #[inline]
    pub const fn scale_type(&self) -> FloatType {
        self.scale_type
    }
    /// Packed words a row.
    #[inline]
    pub const fn words_per_row(&self) -> usize {
        self.width().words(self.cols)
    }
    /// Groups a row.
    #[inline]
    pub const fn groups_per_row(&self) -> usize {
        self.cols / self.group_size()
    }
    /// Bytes of one row of `weight`.
    #[inline]
    pub const fn weight_row_bytes(&self) -> usize {
        4 * self.words_per_row()
    }
    /// Bytes of the codes of one group, which are whole words.
    #[inline]
    pub(crate) const fn group_bytes(&self) -> usize {
        4 * self.width().words(self.group_size())
    }
    /// Bytes of one row of `scales`, and of `biases` where there are any.
    #[inline]
    pub(crate) const fn scale_row_bytes(&self) -> usize {
        self.scale_type.size() * self.groups_per_row()
    }
    /// Bytes of one row of a tensor; 0 where the format does not have it.
    pub const fn row_bytes(&self, tensor: Tensor) -> usize {
        match tensor {
            Tensor::Weight => self.weight_row_bytes(),
            Tensor::Scales => self.scale_row_bytes(),
            Tensor::Biases if self.format.has_biases() => self.scale_row_bytes(),
            Tensor::Biases => 0,
        }
    }
    /// Elements of one row of a tensor: codes of `weight`, groups of the others; 0 where the format does not have it.
    pub(crate) const fn columns(&self, tensor: Tensor) -> usize {
        match tensor {
            Tensor::Weight => self.cols,
            Tensor::Scales => self.groups_per_row(),
            Tensor::Biases if self.format.has_biases() => self.groups_per_row(),
            Tensor::Biases => 0,
        }
    }
    /// Bits of one element of a tensor: a code of `weight`, a number of the others.
    pub(crate) const fn element_bits(&self, tensor: Tensor) -> usize {
        match tensor {
            Tensor::Weight => self.bits(),
            Tensor::Scales | Tensor::Biases => self.scale_type.bits(),
        }
    }
    /// The format for people: `4 bits, group_size 64`, and its name where codes are floats.
    pub(crate) fn described(&self) -> String {
        let format = self.format;
        let name = if format.has_biases() { String::new() } else { format!(", {format}") };
        format!("{} bits, group_size {}{name}", self.bits(), self.group_size())
    }
    /// The same layout with another number of rows.
    pub(crate) const fn with_rows(self, rows: usize) -> Self {
        Self { rows, ..self }
    }
}
