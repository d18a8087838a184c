//! What enters the layers: embeddings, and what tokens give to each layer besides.

use mlx_rs::{
    Array, Dtype,
    ops::{add, indexing::TryIndexOp},
};

use super::{
    super::{
        Named,
        arrays::{Linear, Matrix, Packed, Widen, from_floats, shape, times},
    },
    Input, Stretch,
    norm::Normalization,
};
use crate::{
    checkpoint::{Checkpoint, architecture::TokenInputs, weights::TokenInputsWeights},
    model::BodyError,
};

#[derive(Debug)]
pub(super) struct Embedding {
    hidden_size: usize,
    tokens: Matrix,
    /// The type of its rows, also of those that are not the checkpoint's own.
    dtype: Dtype,
    scale: Option<f32>,
    /// How many positions have a learned vector, and these, `[positions, hidden]`.
    positions: Option<(usize, Matrix)>,
    given: Option<Given>,
}

/// What makes of tokens and their embeddings what layers are given.
#[derive(Debug)]
struct Given {
    layers: usize,
    size: usize,
    /// `hidden^-1/2`.
    of_projection: f32,
    /// `size^1/2`.
    of_row: f32,
    rows: Matrix,
    projection: Linear,
    norm: Normalization,
}

/// What a stretch brings to the layers.
pub(super) struct Entering {
    /// `[1, n, hidden]`.
    pub(super) x: Array,
    /// `[1, n, layers, size]`, where tokens give something.
    given: Option<Array>,
}

impl Entering {
    /// What the tokens give to a layer, `[1, n, size]`.
    pub(super) fn given(&self, layer: usize) -> Result<Array, BodyError> {
        let given = self.given.as_ref().ok_or(super::MISSING)?;
        given.try_index((.., .., shape([layer])?[0], ..)).named("slice")
    }
}

impl Embedding {
    /// `tied` is the embedding, where it is the head, too, and so is there already.
    pub(super) fn load(checkpoint: &Checkpoint, tied: Option<&Packed>, widen: Widen) -> Result<Self, BodyError> {
        let (architecture, weights) = (&checkpoint.config().architecture, checkpoint.weights());
        let tokens = match tied {
            Some(packed) => Matrix::packed(packed.clone(), widen)?,
            None => Matrix::of(&weights.embed_tokens, widen)?,
        };
        let positions = architecture.learned_positions.zip(weights.embed_positions.as_ref());
        let positions = positions.map(|(count, rows)| Ok::<_, BodyError>((count, Matrix::of(rows, widen)?)));
        let given = architecture.token_inputs.zip(weights.token_inputs.as_ref());
        let given = given.map(|(rule, weights)| {
            Given::load(rule, weights, [architecture.hidden_size, architecture.layers.len()], widen)
        });
        Ok(Self {
            hidden_size: architecture.hidden_size,
            dtype: tokens.embed(&[0])?.dtype(),
            tokens,
            scale: architecture.embedding_scale,
            positions: positions.transpose()?,
            given: given.transpose()?,
        })
    }

    pub(super) fn apply(&self, input: &Input<'_>, stretch: Stretch) -> Result<Entering, BodyError> {
        let x = match input.rows {
            None => self.tokens.embed(input.tokens)?,
            Some(rows) => from_floats(rows, self.dtype)?,
        };
        let mut x = x.reshape(&shape([1, stretch.n, self.hidden_size])?).named("reshape")?;
        if let Some(factor) = self.scale {
            x = times(&x, factor)?;
        }
        if let Some((positions, rows)) = &self.positions {
            let end = stretch.offset + stretch.n;
            if end > *positions {
                return Err(BodyError::Position { positions: *positions });
            }
            let own: Vec<u32> = (stretch.offset..end).map(|position| position as u32).collect();
            x = add(x, rows.embed(&own)?).named("add")?;
        }
        let given = self.given.as_ref().map(|given| given.apply(&x, input.tokens)).transpose()?;
        Ok(Entering { x, given })
    }
}

impl Given {
    fn load(
        rule: TokenInputs,
        weights: &TokenInputsWeights,
        [hidden_size, layers]: [usize; 2],
        widen: Widen,
    ) -> Result<Self, BodyError> {
        Ok(Self {
            layers,
            size: rule.size,
            of_projection: 1.0 / (hidden_size as f32).sqrt(),
            of_row: (rule.size as f32).sqrt(),
            rows: Matrix::of(&weights.embedding, widen)?,
            projection: Linear::of(&weights.projection, widen)?,
            norm: Normalization::load(rule.norm, &weights.norm, widen)?,
        })
    }

    fn apply(&self, x: &Array, tokens: &[u32]) -> Result<Array, BodyError> {
        let by_layer = |x: Array| x.reshape(&shape([1, tokens.len(), self.layers, self.size])?).named("reshape");
        let projected = by_layer(times(&self.projection.apply(x)?, self.of_projection)?)?;
        let rows = by_layer(times(&self.rows.embed(tokens)?, self.of_row)?)?;
        let sum = add(self.norm.apply(&projected)?, rows).named("add")?;
        times(&sum, std::f32::consts::FRAC_1_SQRT_2)
    }
}
