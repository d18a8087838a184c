//! The head in MLX's memory, edited as the seed notebook does it: the weight cast to int64, minus the shift, cast back,
//! and assigned to the layer; afterwards the original assigned again.

use blake3::{Hash, Hasher};
use mlx_rs::{
    Array, Dtype,
    ops::{indexing::TryIndexOp, subtract},
    transforms::eval,
};

use super::{
    Named,
    arrays::{Packed, Widen, floats, shape},
    failed,
};
use crate::{
    edit::Plan,
    model::BodyError,
    quant::{Layout, MatrixBuf, MatrixRef},
};

/// A quantized layer whose arrays can be replaced, and what they are to be again.
#[derive(Clone, Debug)]
pub(super) struct Head {
    layout: Layout,
    /// What products are computed with.
    assigned: Packed,
    /// The checkpoint's. An array is never written: an edit makes another.
    original: Packed,
    widen: Widen,
    /// Type of the hidden states.
    activations: Dtype,
}

/// `weight`, as u32, cast to int64, minus `shift`, cast back.
///
/// # Errors
/// What MLX reports.
pub(super) fn shifted(weight: &Array, shift: i64) -> Result<Array, BodyError> {
    let wide = weight.as_dtype(Dtype::Int64).named("astype")?;
    let less = subtract(wide, Array::from_slice(&[shift], &[1])).named("subtract")?;
    let weight = less.as_dtype(Dtype::Uint32).named("astype")?;
    weight.eval().named("subtract")?;
    Ok(weight)
}

impl Head {
    pub(super) fn new(layout: Layout, original: Packed, widen: Widen, activations: Dtype) -> Self {
        Self { layout, assigned: original.clone(), original, widen, activations }
    }

    /// Another matrix, used as this one is.
    pub(super) fn like(&self, matrix: &MatrixRef<'_>) -> Result<Self, BodyError> {
        Ok(Self::new(*matrix.layout(), Packed::of(matrix)?, self.widen, self.activations))
    }

    /// Logits `[n, vocab]` of hidden states `[n, hidden]` under a further shift. One product a state, so that its bits
    /// do not depend on how many there are: MLX chooses another kernel for many.
    pub(super) fn logits(&mut self, shift: u32, hidden: &[f32]) -> Result<Vec<f32>, BodyError> {
        let kept = self.assigned.weight.clone();
        if shift != 0 {
            self.assigned.weight = shifted(&kept, i64::from(shift))?;
        }
        let logits = self.multiply(&self.assigned, hidden);
        self.assigned.weight = kept;
        logits
    }

    /// Products with each of the hidden states.
    fn multiply(&self, matrix: &Packed, hidden: &[f32]) -> Result<Vec<f32>, BodyError> {
        let matrix = matrix.clone().widened(self.widen)?;
        let products: Vec<Array> = hidden
            .chunks_exact(self.layout.cols())
            .map(|hidden| {
                let x = Array::from_slice(hidden, &shape([1, hidden.len()])?);
                let logits = matrix.multiply(&x.as_dtype(self.activations).named("astype")?)?;
                logits.as_dtype(Dtype::Float32).named("astype")
            })
            .collect::<Result<_, BodyError>>()?;
        eval(&products).named("quantized_matmul")?;
        let mut out = Vec::new();
        for product in &products {
            out.extend(floats(product, "quantized_matmul")?);
        }
        Ok(out)
    }

    /// Logits of the rows that `plan` replaces, in the order of the rows, written into a matrix of their own. It has as
    /// many rows as leave the remainder that the whole head leaves when divided by eight, and at least eight: MLX's
    /// kernels for one vector go by that, and so the same one runs.
    pub(super) fn replaced(&self, plan: &Plan, hidden: &[f32]) -> Result<Vec<f32>, BodyError> {
        let count = plan.rows.len();
        let padded = (count.max(8)..).find(|n| n % 8 == self.layout.rows() % 8).expect("one of eight in a row");
        let mut rows = MatrixBuf::zeros(self.layout.with_rows(padded));
        plan.rows.values().enumerate().for_each(|(i, row)| rows.set_rows(i, &row.view()));
        let mut logits = self.multiply(&Packed::of(&rows.view())?, hidden)?;
        logits.truncate(count);
        Ok(logits)
    }

    /// Assigns the arrays of an edit. Replaced rows are written into copies.
    pub(super) fn apply(&mut self, plan: &Plan) -> Result<(), BodyError> {
        let mut edited = self.original.clone();
        if plan.shift != 0 {
            edited.weight = shifted(&edited.weight, i64::from(plan.shift))?;
        }
        if !plan.rows.is_empty() {
            let (weight, scales) = (bytes(&edited.weight)?, bytes(&edited.scales)?);
            let biases = edited.biases.as_ref().map(bytes).transpose()?;
            let mut written =
                MatrixBuf::new(self.layout, weight, scales, biases).map_err(|error| failed("apply an edit", &error))?;
            plan.rows.iter().for_each(|(&index, row)| written.set_rows(index, &row.view()));
            edited = Packed::of(&written.view())?;
        }
        self.assigned = edited;
        Ok(())
    }

    /// Assigns the originals.
    pub(super) fn restore(&mut self) {
        self.assigned = self.original.clone();
    }

    /// The first packed words of row 0, as they are in MLX's memory.
    pub(super) fn first_words(&self, count: usize) -> Result<Vec<u32>, BodyError> {
        let [count] = shape([count.min(self.layout.words_per_row())])?;
        let words = self.assigned.weight.try_index((0, ..count)).named("slice")?;
        words.to_vec_exact().named("slice")
    }

    /// BLAKE3 over weight, scales and biases, where there are any, as they are in MLX's memory.
    pub(super) fn digest(&self) -> Result<Hash, BodyError> {
        let mut hasher = Hasher::new();
        for part in self.assigned.parts() {
            hasher.update(&bytes(part)?);
        }
        Ok(hasher.finalize())
    }
}

/// The bytes of an array, row by row.
fn bytes(array: &Array) -> Result<Vec<u8>, BodyError> {
    array.view_dtype(Dtype::Uint8).named("view")?.to_vec_exact().named("view")
}
