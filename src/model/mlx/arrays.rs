//! Arrays of the checkpoint's bytes, and matrices made of them.

use mlx_rs::{
    Array, Dtype,
    ops::{
        add, addmm, concatenate, dequantize, expand_dims, gather_mm, gather_qmm, indexing::TryIndexOp, matmul,
        multiply, quantized_matmul,
    },
    transforms::eval,
};

use super::{Named, failed, modes};
use crate::{
    checkpoint::{self, ExpertLinear, Vector, weights::Weights},
    model::BodyError,
    quant::{FloatType, Format, MatrixRef},
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

/// The group size and the bits of a format in MLX's integers.
pub(super) fn sizes(format: Format) -> Result<[i32; 2], BodyError> {
    shape([format.group_size(), format.width().bits()])
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

/// A vector of the checkpoint as it is computed with, evaluated. The checkpoint widens vectors; unless all floats are widened, the elements
/// have the type again in which they are stored.
fn vector(vector: &Vector, widen: Widen) -> Result<Array, BodyError> {
    let dtype = match widen {
        Widen::No => dtype(vector.float_type),
        Widen::Float32 => Dtype::Float32,
    };
    let array = from_floats(&vector.values, dtype)?;
    array.eval().named("astype")?;
    Ok(array)
}

/// As [`vector`], of one that need not be there.
pub(super) fn optional(part: Option<&Vector>, widen: Widen) -> Result<Option<Array>, BodyError> {
    part.map(|part| vector(part, widen)).transpose()
}

/// A number, in the type of what it goes with: as MLX takes a number of Python's.
pub(super) fn number(number: f32, like: &Array) -> Result<Array, BodyError> {
    Array::from_f32(number).as_dtype(like.dtype()).named("astype")
}

/// `x * factor`.
pub(super) fn times(x: &Array, factor: f32) -> Result<Array, BodyError> {
    multiply(x, number(factor, x)?).named("multiply")
}

/// `x + term`.
pub(super) fn plus(x: &Array, term: f32) -> Result<Array, BodyError> {
    add(x, number(term, x)?).named("add")
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
    /// There where codes are integers.
    pub(super) biases: Option<Array>,
    format: Format,
}

impl Packed {
    /// A copy of `matrix`.
    pub(super) fn of(matrix: &MatrixRef<'_>) -> Result<Self, BodyError> {
        let (layout, rows) = (matrix.layout(), matrix.layout().rows());
        let float = dtype(layout.scale_type());
        Ok(Self {
            weight: from_bytes(matrix.weight(), rows, Dtype::Uint32)?,
            scales: from_bytes(matrix.scales(), rows, float)?,
            biases: matrix.biases().map(|biases| from_bytes(biases, rows, float)).transpose()?,
            format: layout.format(),
        })
    }

    /// With scales and biases as they are computed with. Where codes are floats, a scale is a byte, and MLX knows what it stands for.
    pub(super) fn widened(self, widen: Widen) -> Result<Self, BodyError> {
        let Some(biases) = self.biases else { return Ok(self) };
        Ok(Self { scales: widen.apply(self.scales)?, biases: Some(widen.apply(biases)?), ..self })
    }

    /// `x` times the transposed matrix: `[n, cols]` to `[n, rows]`.
    pub(super) fn multiply(&self, x: &Array) -> Result<Array, BodyError> {
        let Self { weight, scales, biases, format } = self;
        let Some(biases) = biases else { return modes::quantized_matmul(x, weight, scales, *format) };
        let [group_size, bits] = sizes(*format)?;
        // mlx-rs takes the matrix as it is unless told otherwise; mlx-lm and Python's default transpose it.
        quantized_matmul(x, weight, scales, biases, true, group_size, bits).named("quantized_matmul")
    }

    /// `x`, `[.., 1, cols]`, times the transposed matrices of a stack that `which` names, one for each of its elements.
    fn multiply_each(&self, x: &Array, which: &Array) -> Result<Array, BodyError> {
        let Self { weight, scales, biases, format } = self;
        let Some(biases) = biases else { return modes::gather_qmm(x, weight, scales, which, *format) };
        let [group_size, bits] = sizes(*format)?;
        gather_qmm(x, weight, scales, biases, None, which, true, group_size, bits, false).named("gather_qmm")
    }

    /// Rows, as floats.
    fn rows(&self, indices: &Array) -> Result<Array, BodyError> {
        let taken = |part: &Array| part.try_index(indices).named("take");
        let (weight, scales) = (taken(&self.weight)?, taken(&self.scales)?);
        let Some(biases) = &self.biases else { return modes::dequantize(&weight, &scales, self.format) };
        let [group_size, bits] = sizes(self.format)?;
        dequantize(weight, scales, &taken(biases)?, group_size, bits).named("dequantize")
    }

    /// The arrays, in the order in which a checkpoint names them.
    pub(super) fn parts(&self) -> impl Iterator<Item = &Array> {
        [&self.weight, &self.scales].into_iter().chain(&self.biases)
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
        eval(packed.parts()).named("astype")?;
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
        Ok(Self { weights: Matrix::of(&linear.weights, widen)?, bias: optional(linear.bias.as_ref(), widen)? })
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

/// As many linear layers of one shape.
#[derive(Debug)]
pub(super) struct Stacked {
    /// `[count, out, in]`.
    weights: Matrix,
    /// `[count, out]`.
    bias: Option<Array>,
}

impl Stacked {
    /// `count` layers, whose rows are made to lie one after the other where the checkpoint has them apart.
    pub(super) fn of(layers: &ExpertLinear, count: usize, widen: Widen) -> Result<Self, BodyError> {
        let [count] = shape([count])?;
        let parted = |array: &Array| {
            let sizes: Vec<i32> =
                [count, array.dim(0) / count].into_iter().chain(array.shape()[1..].iter().copied()).collect();
            let array = array.reshape(&sizes).named("reshape")?;
            array.eval().named("reshape")?;
            Ok::<_, BodyError>(array)
        };
        let Linear { weights, bias } = match layers {
            ExpertLinear::Stacked(all) => Linear::of(all, widen)?,
            ExpertLinear::Apart(each) => {
                joined(each.iter().map(|own| Linear::of(own, widen)).collect::<Result<_, _>>()?)?
            }
        };
        let weights = match weights {
            Matrix::Packed(Packed { weight, scales, biases, format }) => Matrix::Packed(Packed {
                weight: parted(&weight)?,
                scales: parted(&scales)?,
                biases: biases.as_ref().map(parted).transpose()?,
                format,
            }),
            Matrix::Dense(array) => Matrix::Dense(parted(&array)?),
        };
        Ok(Self { weights, bias: bias.as_ref().map(parted).transpose()? })
    }

    /// `[.., 1, in]` to `[.., 1, out]`, by the layers that `which` names, whose shape is that of what comes before the last two axes.
    pub(super) fn apply(&self, x: &Array, which: &Array) -> Result<Array, BodyError> {
        let products = match &self.weights {
            Matrix::Packed(packed) => packed.multiply_each(x, which)?,
            Matrix::Dense(array) => {
                let transposed = array.swap_axes(-1, -2).named("swap_axes")?;
                gather_mm(x, transposed, None, which, false).named("gather_mm")?
            }
        };
        let Some(bias) = &self.bias else { return Ok(products) };
        let own = expand_dims(bias.try_index(which).named("take")?, -2).named("expand_dims")?;
        add(products, own).named("add")
    }
}

/// The rows of layers of one format, one after the other.
fn joined(layers: Vec<Linear>) -> Result<Linear, BodyError> {
    let all = |parts: Vec<Array>| match parts.is_empty() {
        true => Ok(None),
        false => concatenate(&parts, 0).named("concatenate").map(Some),
    };
    let needed = |array: Option<Array>| array.ok_or_else(|| failed("concatenate", &"layers of several formats"));
    let (mut dense, mut weight, mut scales, mut biases, mut bias) = (vec![], vec![], vec![], vec![], vec![]);
    let mut format = None;
    for layer in layers {
        match layer.weights {
            Matrix::Dense(array) => dense.push(array),
            Matrix::Packed(packed) => {
                format = Some(packed.format);
                weight.push(packed.weight);
                scales.push(packed.scales);
                biases.extend(packed.biases);
            }
        }
        bias.extend(layer.bias);
    }
    let weights = match format {
        None => Matrix::Dense(needed(all(dense)?)?),
        Some(format) => Matrix::Packed(Packed {
            weight: needed(all(weight)?)?,
            scales: needed(all(scales)?)?,
            biases: all(biases)?,
            format,
        }),
    };
    Ok(Linear { weights, bias: all(bias)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        checkpoint::Checkpoint,
        quant::{Format, Layout, MatrixBuf, Tensor},
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
    fn what_codes_that_are_floats_stand_for_is_multiplied_and_looked_up() {
        for format in [Format::MXFP4, Format::MXFP8, Format::NVFP4] {
            let layout = Layout::new(8, 64, format, format.scale_types()[0]).expect("a layout");
            let mut matrix = MatrixBuf::zeros(layout);
            // Distinct codes, but neither of the two of 8 bits that are NaN; scales about 1, or about 2^-71.
            let weight = matrix.part_mut(Tensor::Weight).expect("codes").iter_mut().enumerate();
            weight.for_each(|(i, byte)| *byte = (37 * i % 251) as u8 & 0xfb);
            let scales = matrix.part_mut(Tensor::Scales).expect("scales").iter_mut().enumerate();
            scales.for_each(|(i, byte)| *byte = 0x38 + (i % 5) as u8);
            let view = matrix.view();
            let group = |row: usize, group: usize| {
                let scale = view.scale(row, group);
                view.codes(row, group).map(move |code| scale * format.codes().value(code)).collect::<Vec<f32>>()
            };
            let groups = 64 / format.group_size();
            let expected: Vec<f32> = (0..8).flat_map(|row| (0..groups).flat_map(move |at| group(row, at))).collect();
            let packed = Packed::of(&view).expect("arrays");
            let rows = packed.rows(&Array::from_slice(&[0_u32, 1, 2, 3, 4, 5, 6, 7], &[8])).expect("rows");
            assert_eq!(
                (rows.dtype(), floats(&rows, "rows").expect("floats")),
                (Dtype::Bfloat16, expected.clone()),
                "{format}"
            );
            let narrow = from_floats(&[1.0; 63], Dtype::Float32).expect("an array");
            let error = packed.multiply(&narrow).expect_err("a vector of another width").to_string();
            assert!(error.contains("quantized_matmul") && error.contains(format.mode()), "{error}");
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
