//! Quantized matrices as MLX stores them, and the arithmetic of one weight.
//!
//! `w[r, c] = scales[r, c / group_size] * code[r, c] + biases[r, c / group_size]`, where `code` is
//! the 4-bit (or 8-bit) integer at row `r`, column `c`. Each *code* is scaled, never the packed
//! word: the notebook that this project started from writes `packed_uint32 * scale + bias`, which
//! is not what MLX computes.
//!
//! A [`MatrixRef`] is the one view that kernels, edits and certificates read. Whoever makes one has
//! checked its invariants once, here, in [`MatrixRef::new`].

use std::ops::Range;

pub mod dense;
pub mod packed;

pub use dense::DenseRef;
pub use packed::Bits;

/// Element type of `scales` and `biases`, and of unquantized tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FloatType {
    /// IEEE 754 binary16.
    F16,
    /// The upper half of a binary32.
    Bf16,
    /// IEEE 754 binary32.
    F32,
}

impl FloatType {
    /// Bytes of one element.
    #[inline]
    pub const fn size(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
        }
    }

    /// Element `i` of little-endian `data`, widened exactly.
    ///
    /// # Panics
    /// If `data` has fewer than `i + 1` elements.
    #[inline]
    pub fn get(self, data: &[u8], i: usize) -> f32 {
        match self {
            Self::F16 => half::f16::from_le_bytes([data[2 * i], data[2 * i + 1]]).to_f32(),
            Self::Bf16 => half::bf16::from_le_bytes([data[2 * i], data[2 * i + 1]]).to_f32(),
            Self::F32 => f32::from_le_bytes([data[4 * i], data[4 * i + 1], data[4 * i + 2], data[4 * i + 3]]),
        }
    }
}

/// What a matrix must satisfy and does not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MatrixError {
    /// MLX's affine mode has groups of 32, 64 and 128 columns.
    #[error("group_size {0} is not one that MLX has (32, 64 or 128)")]
    GroupSize(u64),
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
}

/// Shape and format of a quantized matrix, without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    rows: usize,
    cols: usize,
    bits: Bits,
    group_size: usize,
    scale_type: FloatType,
}

impl Layout {
    /// A layout of at least one row and one group.
    ///
    /// # Errors
    /// [`MatrixError::GroupSize`] or [`MatrixError::Shape`]; the latter also where the sizes in
    /// bytes would overflow.
    pub fn new(
        rows: usize,
        cols: usize,
        bits: Bits,
        group_size: usize,
        scale_type: FloatType,
    ) -> Result<Self, MatrixError> {
        if !matches!(group_size, 32 | 64 | 128) {
            return Err(MatrixError::GroupSize(group_size as u64));
        }
        let fits = rows.checked_mul(cols).and_then(|n| n.checked_mul(4)).is_some_and(|n| n <= isize::MAX as usize);
        if rows == 0 || cols == 0 || !cols.is_multiple_of(group_size) || !fits {
            return Err(MatrixError::Shape { rows, cols, group_size });
        }
        Ok(Self { rows, cols, bits, group_size, scale_type })
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
    /// Width of a code.
    #[inline]
    pub const fn bits(&self) -> Bits {
        self.bits
    }
    /// Columns that share one scale and one bias.
    #[inline]
    pub const fn group_size(&self) -> usize {
        self.group_size
    }
    /// Element type of scales and biases.
    #[inline]
    pub const fn scale_type(&self) -> FloatType {
        self.scale_type
    }
    /// Packed words a row.
    #[inline]
    pub const fn words_per_row(&self) -> usize {
        self.cols / self.bits.per_word()
    }
    /// Groups a row.
    #[inline]
    pub const fn groups_per_row(&self) -> usize {
        self.cols / self.group_size
    }
    /// Bytes of one row of `weight`.
    #[inline]
    pub const fn weight_row_bytes(&self) -> usize {
        4 * self.words_per_row()
    }
    /// Bytes of one row of `scales`, and of `biases`.
    #[inline]
    pub const fn scale_row_bytes(&self) -> usize {
        self.scale_type.size() * self.groups_per_row()
    }
    /// The same layout with another number of rows.
    pub const fn with_rows(self, rows: usize) -> Self {
        Self { rows, ..self }
    }
}

/// A quantized matrix: three byte slices whose lengths fit their [`Layout`]. Little-endian, of any
/// alignment, as they lie in a checkpoint's file.
#[derive(Clone, Copy, Debug)]
pub struct MatrixRef<'a> {
    layout: Layout,
    weight: &'a [u8],
    scales: &'a [u8],
    biases: &'a [u8],
}

impl<'a> MatrixRef<'a> {
    /// Checks the lengths of the three parts against `layout`.
    ///
    /// # Errors
    /// [`MatrixError::Length`].
    pub fn new(layout: Layout, weight: &'a [u8], scales: &'a [u8], biases: &'a [u8]) -> Result<Self, MatrixError> {
        let needs = [
            ("weight", weight.len(), layout.rows * layout.weight_row_bytes()),
            ("scales", scales.len(), layout.rows * layout.scale_row_bytes()),
            ("biases", biases.len(), layout.rows * layout.scale_row_bytes()),
        ];
        for (part, found, needed) in needs {
            if found != needed {
                return Err(MatrixError::Length { part, found, needed });
            }
        }
        Ok(Self { layout, weight, scales, biases })
    }

    /// Whether both are views of the same bytes in memory.
    pub fn is(&self, other: &MatrixRef<'_>) -> bool {
        self.layout == other.layout
            && [(self.weight, other.weight), (self.scales, other.scales), (self.biases, other.biases)]
                .iter()
                .all(|(a, b)| std::ptr::eq::<[u8]>(*a, *b))
    }

    /// Shape and format.
    #[inline]
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }
    /// Packed words, row-major, little-endian.
    #[inline]
    pub const fn weight(&self) -> &'a [u8] {
        self.weight
    }
    /// Scales, `[rows, groups]`, little-endian.
    #[inline]
    pub const fn scales(&self) -> &'a [u8] {
        self.scales
    }
    /// Biases, `[rows, groups]`, little-endian.
    #[inline]
    pub const fn biases(&self) -> &'a [u8] {
        self.biases
    }

    /// Packed word `word` of row `row`.
    ///
    /// # Panics
    /// If either is out of range.
    #[inline]
    pub fn word(&self, row: usize, word: usize) -> u32 {
        let at = row * self.layout.weight_row_bytes() + 4 * word;
        u32::from_le_bytes(self.weight[at..at + 4].try_into().expect("four bytes"))
    }

    /// Scale of `group` in `row`, widened exactly.
    ///
    /// # Panics
    /// If either is out of range.
    #[inline]
    pub fn scale(&self, row: usize, group: usize) -> f32 {
        self.layout.scale_type.get(self.scales, row * self.layout.groups_per_row() + group)
    }

    /// Bias of `group` in `row`, widened exactly.
    ///
    /// # Panics
    /// If either is out of range.
    #[inline]
    pub fn bias(&self, row: usize, group: usize) -> f32 {
        self.layout.scale_type.get(self.biases, row * self.layout.groups_per_row() + group)
    }

    /// Code at `row`, `col`.
    ///
    /// # Panics
    /// If either is out of range.
    #[inline]
    pub fn code(&self, row: usize, col: usize) -> u32 {
        let per_word = self.layout.bits.per_word();
        packed::code(self.word(row, col / per_word), col % per_word, self.layout.bits)
    }

    /// One row as a matrix of its own.
    ///
    /// # Panics
    /// If `row` is out of range.
    pub fn row(&self, row: usize) -> MatrixRef<'a> {
        self.rows(row..row + 1)
    }

    /// Some rows as a matrix of their own.
    ///
    /// # Panics
    /// If there are none, or one is out of range.
    pub fn rows(&self, rows: Range<usize>) -> MatrixRef<'a> {
        assert!(!rows.is_empty(), "a matrix has rows");
        let (w, s) = (self.layout.weight_row_bytes(), self.layout.scale_row_bytes());
        MatrixRef {
            layout: self.layout.with_rows(rows.len()),
            weight: &self.weight[rows.start * w..rows.end * w],
            scales: &self.scales[rows.start * s..rows.end * s],
            biases: &self.biases[rows.start * s..rows.end * s],
        }
    }
}

/// A matrix of either kind.
#[derive(Clone, Copy, Debug)]
pub enum WeightsRef<'a> {
    /// Packed codes with scales and biases.
    Quantized(MatrixRef<'a>),
    /// Floats.
    Dense(DenseRef<'a>),
}

impl WeightsRef<'_> {
    /// Output features.
    pub const fn rows(&self) -> usize {
        match self {
            Self::Quantized(matrix) => matrix.layout.rows,
            Self::Dense(matrix) => matrix.rows(),
        }
    }

    /// Input features.
    pub const fn cols(&self) -> usize {
        match self {
            Self::Quantized(matrix) => matrix.layout.cols,
            Self::Dense(matrix) => matrix.cols(),
        }
    }
}
