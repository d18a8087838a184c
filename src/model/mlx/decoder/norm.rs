//! Norms: of whole vectors, and of the heads of queries and keys.

use mlx_rs::{
    Array,
    fast::{layer_norm, rms_norm},
    ops::{add, multiply},
};

use super::super::{
    Named,
    arrays::{Widen, optional, shape},
};
use crate::{
    checkpoint::{
        NormWeights,
        architecture::{Norm, NormKind, QkNorm, Span},
    },
    model::BodyError,
};

/// A norm of the last axis.
#[derive(Debug)]
pub(super) struct Normalization {
    kind: NormKind,
    eps: f32,
    weight: Option<Array>,
    bias: Option<Array>,
}

impl Normalization {
    pub(super) fn load(norm: Norm, weights: &NormWeights, widen: Widen) -> Result<Self, BodyError> {
        let (weight, bias) = (optional(weights.weight.as_ref(), widen)?, optional(weights.bias.as_ref(), widen)?);
        Ok(Self { weight, bias, ..Self::without_weights(norm) })
    }

    /// A norm that multiplies by nothing and adds nothing.
    pub(super) const fn without_weights(norm: Norm) -> Self {
        Self { kind: norm.kind, eps: norm.eps, weight: None, bias: None }
    }

    pub(super) fn apply(&self, x: &Array) -> Result<Array, BodyError> {
        match (self.kind, &self.bias) {
            (NormKind::Layer, bias) => layer_norm(x, self.weight.as_ref(), bias.as_ref(), self.eps).named("layer_norm"),
            (NormKind::Rms, None) => rms_norm(x, self.weight.as_ref(), self.eps).named("rms_norm"),
            (NormKind::Rms, Some(bias)) => {
                add(rms_norm(x, self.weight.as_ref(), self.eps).named("rms_norm")?, bias).named("add")
            }
        }
    }
}

/// A norm of queries or of keys.
#[derive(Debug)]
pub(super) struct HeadNorm {
    span: Span,
    norm: Normalization,
    /// `[heads, head_dim]`, where each head has weights of its own: MLX's norms take one vector.
    of_heads: Option<Array>,
}

impl HeadNorm {
    pub(super) fn load(rule: QkNorm, weights: &NormWeights, head_dim: usize, widen: Widen) -> Result<Self, BodyError> {
        let mut norm = Normalization::load(rule.norm, weights, widen)?;
        let own = if rule.span == Span::EachHead { norm.weight.take() } else { None };
        let of_heads = own.map(|weight| {
            let [heads, columns] = shape([weight.size() / head_dim, head_dim])?;
            let weight = weight.reshape(&[heads, columns]).named("reshape")?;
            weight.eval().named("reshape")?;
            Ok::<_, BodyError>(weight)
        });
        Ok(Self { span: rule.span, norm, of_heads: of_heads.transpose()? })
    }

    /// `x` is `[1, n, heads, head_dim]`.
    pub(super) fn apply(&self, x: &Array) -> Result<Array, BodyError> {
        if self.span == Span::All {
            let &[one, n, heads, head_dim] = x.shape() else { return self.norm.apply(x) };
            let together = x.reshape(&[one, n, heads * head_dim]).named("reshape")?;
            return self.norm.apply(&together)?.reshape(x.shape()).named("reshape");
        }
        let normalized = self.norm.apply(x)?;
        match &self.of_heads {
            Some(weight) => multiply(weight, normalized).named("multiply"),
            None => Ok(normalized),
        }
    }
}
