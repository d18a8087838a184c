//! A transformer block: how its branches are joined.

use mlx_rs::{
    Array,
    ops::{add, multiply},
};

use super::{
    super::{
        Named,
        arrays::{Linear, Widen, times},
    },
    MISSING, Stretch,
    activation::activate,
    attention::{Attended, Attention, Before},
    embedding::Entering,
    experts::Experts,
    mlp::Mlp,
    norm::Normalization,
};
use crate::{
    checkpoint::{
        FeedForwardWeights, LayerWeights, MixerWeights, NormWeights,
        architecture::{self, Activation, KeyValues, Layer, Mixer, Norm, TokenInput, Wiring},
        weights::TokenInputWeights,
    },
    model::BodyError,
};

#[derive(Debug)]
pub(super) struct Block {
    wiring: Wiring,
    attention: Attention,
    /// The layer whose keys and values it attends to, if these are not its own.
    pub(super) lender: Option<usize>,
    attention_norm: Option<Normalization>,
    attention_output_norm: Option<Normalization>,
    feed_forward: FeedForward,
    mlp_norm: Option<Normalization>,
    mlp_output_norm: Option<Normalization>,
    residual_scale: Option<f32>,
    token_input: Option<TokenBranch>,
    output_scale: Option<f32>,
}

/// The second branch.
#[expect(clippy::large_enum_variant, reason = "there is one for each layer")]
#[derive(Debug)]
enum FeedForward {
    Mlp(Mlp),
    Experts(Experts),
}

/// The third branch.
#[derive(Debug)]
struct TokenBranch {
    activation: Activation,
    gate: Linear,
    output: Linear,
    output_norm: Normalization,
}

impl Block {
    pub(super) fn load(layer: &Layer, weights: &LayerWeights, widen: Widen) -> Result<Self, BodyError> {
        let (Mixer::Attention(attention), MixerWeights::Attention(own)) = (&layer.mixer, &weights.mixer) else {
            return Err(MISSING);
        };
        let norm = |norm: Option<Norm>, weights: &Option<NormWeights>| {
            norm.zip(weights.as_ref()).map(|(norm, weights)| Normalization::load(norm, weights, widen)).transpose()
        };
        let token_input = layer.token_input.zip(weights.token_input.as_ref());
        Ok(Self {
            wiring: layer.wiring,
            attention: Attention::load(attention, own, widen)?,
            lender: match attention.key_values {
                KeyValues::Own | KeyValues::FromKeys => None,
                KeyValues::OfLayer(lender) => Some(lender),
            },
            attention_norm: norm(layer.attention_norm, &weights.attention_norm)?,
            attention_output_norm: norm(layer.attention_output_norm, &weights.attention_output_norm)?,
            feed_forward: FeedForward::load(&layer.mlp, &weights.mlp, widen)?,
            mlp_norm: norm(layer.mlp_norm, &weights.mlp_norm)?,
            mlp_output_norm: norm(layer.mlp_output_norm, &weights.mlp_output_norm)?,
            residual_scale: layer.residual_scale,
            token_input: token_input.map(|(rule, weights)| TokenBranch::load(rule, weights, widen)).transpose()?,
            output_scale: weights.output_scale,
        })
    }

    /// The block's output, in the place of the attention's. `entering` is what the stretch brought to the layers, of which this one is the
    /// `index`th.
    pub(super) fn apply(
        &self,
        index: usize,
        x: &Array,
        stretch: Stretch,
        entering: &Entering,
        before: Before<'_>,
    ) -> Result<Attended, BodyError> {
        let h = normalized(self.attention_norm.as_ref(), x)?;
        let Attended { output, new, all } = self.attention.apply(&h, stretch, before)?;
        let attended = self.branch(output, self.attention_output_norm.as_ref())?;
        let second = |h: &Array, x: &Array| self.branch(self.feed_forward.apply(h, x)?, self.mlp_output_norm.as_ref());
        let mut x = match self.wiring {
            Wiring::Serial => {
                let x = add(x, attended).named("add")?;
                add(&x, second(&normalized(self.mlp_norm.as_ref(), &x)?, &x)?).named("add")?
            }
            Wiring::Parallel | Wiring::ParallelOneNorm => {
                let own = match self.wiring {
                    Wiring::ParallelOneNorm => h,
                    _ => normalized(self.mlp_norm.as_ref(), x)?,
                };
                let both = add(attended, second(&own, x)?).named("add")?;
                add(both, x).named("add")?
            }
        };
        if let Some(branch) = &self.token_input {
            x = add(&x, branch.apply(&x, &entering.given(index)?)?).named("add")?;
        }
        if let Some(factor) = self.output_scale {
            x = times(&x, factor)?;
        }
        Ok(Attended { output: x, new, all })
    }

    /// A branch's output as it is added.
    fn branch(&self, output: Array, norm: Option<&Normalization>) -> Result<Array, BodyError> {
        let output = normalized(norm, &output)?;
        match self.residual_scale {
            Some(factor) => times(&output, factor),
            None => Ok(output),
        }
    }
}

impl FeedForward {
    fn load(branch: &architecture::FeedForward, weights: &FeedForwardWeights, widen: Widen) -> Result<Self, BodyError> {
        match (branch, weights) {
            (architecture::FeedForward::Mlp(mlp), FeedForwardWeights::Mlp(weights)) => {
                Ok(Self::Mlp(Mlp::of(mlp, weights, widen)?))
            }
            (architecture::FeedForward::Experts(experts), FeedForwardWeights::Experts(weights)) => {
                Ok(Self::Experts(Experts::load(experts, weights, widen)?))
            }
            _ => Err(MISSING),
        }
    }

    /// `h` is the branch's input, `x` the residual stream.
    fn apply(&self, h: &Array, x: &Array) -> Result<Array, BodyError> {
        match self {
            Self::Mlp(mlp) => mlp.apply(h),
            Self::Experts(experts) => experts.apply(h, x),
        }
    }
}

impl TokenBranch {
    fn load(rule: TokenInput, weights: &TokenInputWeights, widen: Widen) -> Result<Self, BodyError> {
        Ok(Self {
            activation: rule.activation,
            gate: Linear::of(&weights.gate, widen)?,
            output: Linear::of(&weights.output, widen)?,
            output_norm: Normalization::load(rule.output_norm, &weights.output_norm, widen)?,
        })
    }

    fn apply(&self, x: &Array, given: &Array) -> Result<Array, BodyError> {
        let gate = activate(self.activation, None, &self.gate.apply(x)?)?;
        let output = self.output.apply(&multiply(gate, given).named("multiply")?)?;
        self.output_norm.apply(&output)
    }
}

/// `x` itself, where there is no norm.
fn normalized(norm: Option<&Normalization>, x: &Array) -> Result<Array, BodyError> {
    match norm {
        Some(norm) => norm.apply(x),
        None => Ok(x.clone()),
    }
}
