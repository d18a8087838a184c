//! A quantized matrix: the three arrays that MLX stores it as, wherever their bytes lie.

use std::ops::{Deref, DerefMut, Range};

use super::{
    format::Tensor,
    layout::{Layout, MatrixError},
};

/// A quantized matrix: arrays whose lengths fit their [`Layout`], in bytes of type `B`. All are row-major and
/// little-endian, of any alignment, as they lie in a checkpoint's file.
///
/// Whoever makes a matrix has its lengths checked once, in [`Matrix::new`]; views of it need no other check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matrix<B> {
    layout: Layout,
    weight: B,
    scales: B,
    biases: Option<B>,
}

/// The view that kernels, edits and certificates read.
pub type MatrixRef<'a> = Matrix<&'a [u8]>;

/// A matrix that owns its bytes.
pub type MatrixBuf = Matrix<Vec<u8>>;

impl<B> Matrix<B> {
    /// Shape and format.
    #[inline]
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }
    /// Packed words, `[rows, words]`.
    #[inline]
    pub const fn weight(&self) -> &B {
        &self.weight
    }
    /// Scales, `[rows, groups]`.
    #[inline]
    pub const fn scales(&self) -> &B {
        &self.scales
    }
    /// Biases, `[rows, groups]`; `None` where the format has none.
    #[inline]
    pub const fn biases(&self) -> Option<&B> {
        self.biases.as_ref()
    }
    /// One of these; `None` where the format does not have it.
    #[inline]
    pub const fn part(&self, tensor: Tensor) -> Option<&B> {
        match tensor {
            Tensor::Weight => Some(&self.weight),
            Tensor::Scales => Some(&self.scales),
            Tensor::Biases => self.biases.as_ref(),
        }
    }
    /// All that the format has, in this order: weight, scales, biases.
    pub fn parts(&self) -> impl Iterator<Item = (Tensor, &B)> {
        self.layout.format().tensors().iter().filter_map(|&tensor| Some((tensor, self.part(tensor)?)))
    }
}

impl<B: Deref<Target = [u8]>> Matrix<B> {
    /// A matrix of these parts.
    ///
    /// # Errors
    /// [`MatrixError::Length`], where a part is not as long as `layout` asks for; [`MatrixError::NoBiases`] or
    /// [`MatrixError::UnexpectedBiases`], where its format has biases and there are none, or the other way round.
    pub fn new(layout: Layout, weight: B, scales: B, biases: Option<B>) -> Result<Self, MatrixError> {
        match (layout.format().has_biases(), &biases) {
            (true, None) => return Err(MatrixError::NoBiases(layout.format())),
            (false, Some(_)) => return Err(MatrixError::UnexpectedBiases(layout.format())),
            _ => {}
        }
        let matrix = Self { layout, weight, scales, biases };
        for (tensor, part) in matrix.parts() {
            let (found, needed) = (part.len(), layout.rows() * layout.row_bytes(tensor));
            if found != needed {
                return Err(MatrixError::Length { part: tensor.name(), found, needed });
            }
        }
        Ok(matrix)
    }

    /// The matrix as kernels, edits and certificates read it.
    #[inline]
    pub fn view(&self) -> MatrixRef<'_> {
        Matrix { layout: self.layout, weight: &self.weight, scales: &self.scales, biases: self.biases.as_deref() }
    }

    /// A copy that owns its bytes.
    pub fn to_buf(&self) -> MatrixBuf {
        Matrix {
            layout: self.layout,
            weight: self.weight.to_vec(),
            scales: self.scales.to_vec(),
            biases: self.biases.as_ref().map(|biases| biases.to_vec()),
        }
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

    /// Code at `row`, `col`.
    ///
    /// # Panics
    /// If either is out of range.
    #[inline]
    pub fn code(&self, row: usize, col: usize) -> u32 {
        self.layout.width().code(col, |word| self.word(row, word))
    }

    /// The codes of `group` in `row`, in the order of their columns.
    ///
    /// # Panics
    /// If either is out of range.
    #[inline]
    pub fn codes(&self, row: usize, group: usize) -> impl ExactSizeIterator<Item = u32> {
        let bytes = self.layout.group_bytes();
        let words = &self.weight[row * self.layout.weight_row_bytes() + group * bytes..][..bytes];
        self.layout.width().unpack(words)
    }

    /// Scale of `group` in `row`, widened exactly.
    ///
    /// # Panics
    /// If either is out of range.
    #[inline]
    pub fn scale(&self, row: usize, group: usize) -> f32 {
        self.layout.scale_type().get(&self.scales, row * self.layout.groups_per_row() + group)
    }

    /// Bias of `group` in `row`, widened exactly.
    ///
    /// # Panics
    /// If either is out of range, or the format has no biases.
    #[inline]
    pub fn bias(&self, row: usize, group: usize) -> f32 {
        let biases = self.biases.as_ref().expect("a format with biases");
        self.layout.scale_type().get(biases, row * self.layout.groups_per_row() + group)
    }
}

impl<B: DerefMut<Target = [u8]>> Matrix<B> {
    /// The bytes of a tensor, to be written; `None` where the format does not have it.
    pub fn part_mut(&mut self, tensor: Tensor) -> Option<&mut [u8]> {
        match tensor {
            Tensor::Weight => Some(&mut self.weight),
            Tensor::Scales => Some(&mut self.scales),
            Tensor::Biases => self.biases.as_deref_mut(),
        }
    }

    /// Replaces some rows, from `first` on, by those of `other`.
    ///
    /// # Panics
    /// If there are fewer rows, or the matrices differ in more than their number.
    #[cfg(feature = "testing")]
    pub(crate) fn set_rows(&mut self, first: usize, other: &MatrixRef<'_>) {
        let layout = self.layout;
        assert_eq!(other.layout.with_rows(layout.rows()), layout, "rows of another matrix");
        for (tensor, rows) in other.parts() {
            let part = self.part_mut(tensor).expect("both have one format");
            part[first * layout.row_bytes(tensor)..][..rows.len()].copy_from_slice(rows);
        }
    }
}

impl<'a> MatrixRef<'a> {
    /// Whether both are views of the same bytes in memory.
    #[cfg(feature = "mlx")]
    pub(crate) fn is(&self, other: &MatrixRef<'_>) -> bool {
        self.layout == other.layout
            && self.parts().zip(other.parts()).all(|((_, a), (_, b))| std::ptr::eq::<[u8]>(*a, *b))
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
        Matrix {
            layout: self.layout.with_rows(rows.len()),
            weight: &self.weight[rows.start * w..rows.end * w],
            scales: &self.scales[rows.start * s..rows.end * s],
            biases: self.biases.map(|biases| &biases[rows.start * s..rows.end * s]),
        }
    }
}

impl MatrixBuf {
    /// A matrix whose bytes are all 0.
    pub fn zeros(layout: Layout) -> Self {
        let part = |tensor| vec![0; layout.rows() * layout.row_bytes(tensor)];
        Self {
            layout,
            weight: part(Tensor::Weight),
            scales: part(Tensor::Scales),
            biases: layout.format().has_biases().then(|| part(Tensor::Biases)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::{FloatType, Format};

    fn layout() -> Layout {
        Layout::new(2, 64, Format::affine(4, 32).expect("a format"), FloatType::F16).expect("a layout")
    }

    #[test]
    fn a_part_of_another_length_is_refused_by_name() {
        for (weight, scales, biases, part, needed) in
            [(63, 8, 8, "weight", 64), (64, 9, 8, "scales", 8), (64, 8, 0, "biases", 8)]
        {
            let refused = Matrix::new(layout(), vec![0; weight], vec![0; scales], Some(vec![0; biases]));
            let found = [weight, scales, biases].into_iter().zip([64, 8, 8]).find(|(a, b)| a != b).expect("one").0;
            assert_eq!(refused, Err(MatrixError::Length { part, found, needed }));
        }
    }

    #[test]
    fn a_matrix_has_biases_exactly_where_its_format_does() {
        let with = layout();
        let without = Layout::new(2, 64, Format::MXFP4, FloatType::E8m0).expect("a layout");
        let new = |layout: Layout, scales, biases| Matrix::new(layout, vec![0; 64], vec![0; scales], biases);
        assert_eq!(new(with, 8, None), Err(MatrixError::NoBiases(with.format())));
        assert_eq!(new(without, 4, Some(vec![0; 4])), Err(MatrixError::UnexpectedBiases(without.format())));
        let matrix = new(without, 4, None).expect("a matrix");
        assert_eq!(matrix, MatrixBuf::zeros(without));
        assert_eq!(matrix.parts().map(|(tensor, _)| tensor.name()).collect::<Vec<_>>(), ["weight", "scales"]);
        assert_eq!((without.columns(Tensor::Biases), without.row_bytes(Tensor::Biases)), (0, 0));
        assert_eq!(matrix.view().row(1).biases(), None);
    }
}
