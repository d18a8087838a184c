//! Arrays of the checkpoint's bytes, and matrices made of them.

use mlx_rs::{
    Array, Dtype,
    ops::{add, addmm, dequantize, indexing::TryIndexOp, matmul, quantized_matmul},
};

use super::{Named, failed};
use crate::{
    checkpoint::{self, Weights},
    model::BodyError,
    quant::{FloatType, MatrixRef},
};

/// MLX's name for an element type of the checkpoint.
pub(super) const fn dtype(float_type: FloatType) -> Dtype {
    match float_type {
        FloatType::F16 => Dtype::Float16,
        FloatType::Bf16 => Dtype::Bfloat16,
        FloatType::F32 => Dtype::Float32,
        // MLX has no such types either: it keeps their bytes.
        FloatType::E8m0 | FloatType::E4m3 => Dtype::Uint8,
    }
}

/// The element type of activations, by what is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Widen {
    /// What MLX makes of the types that the checkpoint has.
    No,
    /// Every float is widened to float32, which is exact.
    Float32,
}

impl Widen {
    /// A float array as it is computed with.
    pub(super) fn apply(self, array: Array) -> Result<Array, BodyError> {
        match self {
            Self::Float32 if array.dtype() != Dtype::Float32 => array.as_dtype(Dtype::Float32).named("astype"),
            _ => Ok(array),
        }
    }
}

/// A shape in MLX's integers.
pub(super) fn shape<const N: usize>(sizes: [usize; N]) -> Result<[i32; N], BodyError> {
    let mut shape = [0; N];
    for (to, size) in shape.iter_mut().zip(sizes) {
        *to = i32::try_from(size).map_err(|_| failed("make an array", &format!("{size} elements are too many")))?;
    }
    Ok(shape)
}

/// `rows` rows of elements of `dtype`, little-endian at any alignment, in one copy. They go in as bytes, which have no
/// alignment, and are looked at as elements there.
pub(super) fn from_bytes(bytes: &[u8], rows: usize, dtype: Dtype) -> Result<Array, BodyError> {
    if i32::try_from(bytes.len()).is_err() {
        return Err(failed(
            "make an array",
            &format!("a tensor of {} bytes is beyond the 2 GiB of mlx-rs", bytes.len()),
        ));
    }
    let array = Array::from_slice(bytes, &shape([rows, bytes.len() / rows])?);
    let array = array.view_dtype(dtype).named("view")?;
    array.eval().named("view")?;
    Ok(array)
}

/// Floats in a type that has room for each of them.
pub(super) fn from_floats(floats: &[f32], dtype: Dtype) -> Result<Array, BodyError> {
    Array::from_slice(floats, &shape([floats.len()])?).as_dtype(dtype).named("astype")
}

/// The values of an array, in float32 and row by row.
pub(super) fn floats(array: &Array, operation: &'static str) -> Result<Vec<f32>, BodyError> {
    array.to_vec_cast().named(operation)
}

/// The arrays of a quantized matrix, as stored, in MLX's memory: they are MLX's own and may be shared with others, so they
/// are not the bytes that a [`crate::quant::Matrix`] holds.
#[derive(Clone, Debug)]
pub(super) struct Packed {
    pub(super) weight: Array,
    pub(super) scales: Array,
    pub(super) biases: Array,
    pub(super) group_size: i32,
    pub(super) bits: i32,
}

impl Packed {
    /// A copy of `matrix`.
    pub(super) fn of(matrix: &MatrixRef<'_>) -> Result<Self, BodyError> {
        let (layout, rows) = (matrix.layout(), matrix.layout().rows());
        let Some(biases) = matrix.biases() else {
            let mode = layout.format();
            let message = format!("mlx-rs multiplies in MLX's mode affine only, not in {mode}; use --backend cpu");
            return Err(failed("quantized_matmul", &message));
        };
        let float = dtype(layout.scale_type());
        let [group_size, bits] = shape([layout.group_size(), layout.bits()])?;
        Ok(Self {
            weight: from_bytes(matrix.weight(), rows, Dtype::Uint32)?,
            scales: from_bytes(matrix.scales(), rows, float)?,
            biases: from_bytes(biases, rows, float)?,
            group_size,
            bits,
        })
    }

    /// With scales and biases as they are computed with.
    pub(super) fn widened(self, widen: Widen) -> Result<Self, BodyError> {
        Ok(Self { scales: widen.apply(self.scales)?, biases: widen.apply(self.biases)?, ..self })
    }

    /// `x` times the transposed matrix: `[n, cols]` to `[n, rows]`.
    pub(super) fn multiply(&self, x: &Array) -> Result<Array, BodyError> {
        let Self { weight, scales, biases, group_size, bits } = self;
        // mlx-rs takes the matrix as it is unless told otherwise; mlx-lm and Python's default transpose it.
        quantized_matmul(x, weight, scales, biases, true, *group_size, *bits).named("quantized_matmul")
    }

    /// Rows, as floats.
    fn rows(&self, indices: &Array) -> Result<Array, BodyError> {
        let [weight, scales, biases] =
            [&self.weight, &self.scales, &self.biases].map(|part| part.try_index(indices).named("take"));
        dequantize(weight?, scales?, &biases?, self.group_size, self.bits).named("dequantize")
    }
}

/// A matrix of the body.
#[derive(Debug)]
pub(super) enum Matrix {
    Packed(Packed),
    /// `[out, in]`.
    Dense(Array),
}

impl Matrix {
    pub(super) fn of(weights: &Weights, widen: Widen) -> Result<Self, BodyError> {
        match weights {
            Weights::Quantized(matrix) => Self::packed(Packed::of(&matrix.view())?, widen),
            Weights::Dense(matrix) => {
                let array = from_bytes(matrix.data(), matrix.rows(), dtype(matrix.float_type()))?;
                let array = widen.apply(array)?;
                array.eval().named("astype")?;
                Ok(Self::Dense(array))
            }
        }
    }

    pub(super) fn packed(packed: Packed, widen: Widen) -> Result<Self, BodyError> {
        let packed = packed.widened(widen)?;
        packed.scales.eval().and_then(|()| packed.biases.eval()).named("astype")?;
        Ok(Self::Packed(packed))
    }

    /// The rows of tokens, `[n, hidden]`.
    pub(super) fn embed(&self, tokens: &[u32]) -> Result<Array, BodyError> {
        let indices = Array::from_slice(tokens, &shape([tokens.len()])?);
        match self {
            Self::Packed(packed) => packed.rows(&indices),
            Self::Dense(array) => array.try_index(&indices).named("take"),
        }
    }
}

/// `y = weights * x + bias`.
#[derive(Debug)]
pub(super) struct Linear {
    weights: Matrix,
    bias: Option<Array>,
}

impl Linear {
    pub(super) fn of(linear: &checkpoint::Linear, widen: Widen) -> Result<Self, BodyError> {
        let bias = linear.bias.as_ref();
        let bias = bias.map(|bias| widen.apply(from_floats(&bias.values, dtype(bias.float_type))?)).transpose()?;
        Ok(Self { weights: Matrix::of(&linear.weights, widen)?, bias })
    }

    pub(super) fn apply(&self, x: &Array) -> Result<Array, BodyError> {
        match (&self.weights, &self.bias) {
            (Matrix::Packed(packed), None) => packed.multiply(x),
            (Matrix::Packed(packed), Some(bias)) => add(packed.multiply(x)?, bias).named("add"),
            (Matrix::Dense(array), None) => matmul(x, array.t()).named("matmul"),
            (Matrix::Dense(array), Some(bias)) => addmm(bias, x, array.t(), None, None).named("addmm"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checkpoint::Checkpoint,
        quant::{Format, Layout, MatrixBuf},
        testing::fixture::Fixture,
    };

    #[test]
    fn what_mlx_refuses_is_an_error_with_the_operation_s_name() {
        let checkpoint = Checkpoint::from_files(Fixture::default().files()).expect("a checkpoint");
        let packed = Packed::of(&checkpoint.weights().head().view()).expect("arrays");
        let narrow = from_floats(&[1.0; 63], Dtype::Float32).expect("an array");
        let error = packed.multiply(&narrow).expect_err("a vector of another width");
        let BodyError::Backend { backend: "mlx", operation: "quantized_matmul", message } = &error else {
            panic!("{error:?}");
        };
        // MLX's own words, and not the place in somebody's sources.
        assert!(message.contains("63") && !message.contains(".rs"), "{message}");
    }

    #[test]
    fn a_format_that_mlx_rs_does_not_multiply_is_refused_by_name() {
        for format in [Format::MXFP4, Format::MXFP8, Format::NVFP4] {
            let layout = Layout::new(8, 64, format, format.scale_types()[0]).expect("a layout");
            let error = Packed::of(&MatrixBuf::zeros(layout).view()).expect_err("codes that are floats");
            assert!(error.to_string().contains(&format.to_string()), "{error}");
        }
    }

    #[test]
    fn bytes_at_any_alignment_become_the_elements_that_they_are() {
        let words = [0x0403_0201_u32, 7, u32::MAX, 1 << 31];
        let mut bytes = vec![0xaa];
        bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        let array = from_bytes(&bytes[1..], 2, Dtype::Uint32).expect("an array");
        assert_eq!((array.shape(), array.to_vec_exact::<u32>().expect("words")), (&[2, 2][..], words.to_vec()));
    }
}
