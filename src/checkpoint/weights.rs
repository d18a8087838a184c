//! The weights of a model, as views into the files that hold them.

use std::collections::BTreeMap;

use super::bytes::Bytes;
use crate::quant::{self, FloatType, Matrix, WeightsRef};

/// A quantized matrix whose bytes lie in a checkpoint.
pub type Quantized = Matrix<Bytes>;

/// An unquantized matrix whose bytes lie in a checkpoint.
pub(crate) type Dense = quant::Dense<Bytes>;

/// A matrix as a checkpoint stores it.
pub(crate) type Weights = quant::Weights<Bytes>;

/// A vector, such as the weights of a norm, widened.
#[derive(Clone, Debug)]
pub(crate) struct Vector {
    /// Its elements.
    pub values: Vec<f32>,
    /// The type in which the checkpoint stores them.
    pub float_type: FloatType,
}

/// `y = weights * x + bias`.
#[derive(Clone, Debug)]
pub(crate) struct Linear {
    /// `[out, in]`.
    pub weights: Weights,
    /// `[out]`; only where the architecture has one.
    pub bias: Option<Vector>,
}

/// Weights of a norm, of a length that what it normalizes has.
#[derive(Clone, Debug)]
pub(crate) struct NormWeights {
    /// What is multiplied; 1 is added already where the architecture says so.
    pub weight: Option<Vector>,
    /// What is added; only where the architecture has one.
    pub bias: Option<Vector>,
}

/// One transformer block. With `D` for the model's hidden size, `Q` for all query columns, `K` for all key columns and `F` for the
/// MLP's intermediate size. A norm is there where the architecture has it.
#[derive(Clone, Debug)]
pub(crate) struct LayerWeights {
    /// `[D]`.
    pub attention_norm: Option<NormWeights>,
    /// The first branch.
    pub mixer: MixerWeights,
    /// `[D]`.
    pub attention_output_norm: Option<NormWeights>,
    /// `[D]`.
    pub mlp_norm: Option<NormWeights>,
    /// The second branch.
    pub mlp: FeedForwardWeights,
    /// `[D]`.
    pub mlp_output_norm: Option<NormWeights>,
    /// Only where the architecture has it.
    pub token_input: Option<TokenInputWeights>,
    /// What the block's output is multiplied by; only where the architecture says so.
    pub output_scale: Option<f32>,
}

/// How a [`LayerWeights`] takes in what the token gives to it, of `P` columns.
#[derive(Clone, Debug)]
pub(crate) struct TokenInputWeights {
    /// `[P, D]`.
    pub gate: Linear,
    /// `[D, P]`.
    pub output: Linear,
    /// `[D]`.
    pub output_norm: NormWeights,
}

/// What tokens give to layers: `P` columns to each of `L`.
#[derive(Clone, Debug)]
pub(crate) struct TokenInputsWeights {
    /// `[rows, L P]`.
    pub embedding: Weights,
    /// `[L P, D]`.
    pub projection: Linear,
    /// `[P]`.
    pub norm: NormWeights,
}

/// What mixes positions in a [`LayerWeights`].
#[expect(clippy::large_enum_variant, reason = "there is one for each layer")]
#[derive(Clone, Debug)]
pub(crate) enum MixerWeights {
    /// Attention.
    Attention(AttentionWeights),
    /// A short convolution.
    ShortConvolution(ShortConvolutionWeights),
    /// A gated DeltaNet.
    DeltaNet(DeltaNetWeights),
}

/// A convolution of each column by itself, over `T` positions.
#[derive(Clone, Debug)]
pub(crate) struct ConvolutionWeights {
    /// `[T, columns]`: the last one is for the own position.
    pub taps: Vec<f32>,
    /// `[columns]`; only where the architecture has one.
    pub bias: Option<Vector>,
}

/// Short convolution of a [`LayerWeights`].
#[derive(Clone, Debug)]
pub(crate) struct ShortConvolutionWeights {
    /// `[3 D, D]`.
    pub in_proj: Linear,
    /// Over `D` columns.
    pub convolution: ConvolutionWeights,
    /// `[D, D]`.
    pub out_proj: Linear,
}

/// Gated DeltaNet of a [`LayerWeights`]. With `K` for all key columns, `V` for all value columns and `H` for the value heads.
#[derive(Clone, Debug)]
pub(crate) struct DeltaNetWeights {
    /// Projections of the input.
    pub projections: DeltaProjectionWeights,
    /// Over `2 K + V` columns.
    pub convolution: ConvolutionWeights,
    /// `[H]`: how fast each head decays, `exp(a_log)`.
    pub rates: Vec<f64>,
    /// `[H]`.
    pub dt_bias: Vector,
    /// As long as a value.
    pub norm: NormWeights,
    /// `[D, V]`.
    pub out_proj: Linear,
}

/// Projections of a gated DeltaNet's input.
#[expect(clippy::large_enum_variant, reason = "there is one for each layer")]
#[derive(Clone, Debug)]
pub(crate) enum DeltaProjectionWeights {
    /// Queries, keys and values `[2 K + V, D]`, then `z` `[V, D]`, `b` and `a` `[H, D]` each.
    Apart([Linear; 4]),
    /// By key head: queries, keys, values and `z` `[2 K + 2 V, D]`; `b` and `a` `[2 H, D]`.
    ByKeyHead([Linear; 2]),
}

/// Attention of a [`LayerWeights`].
#[derive(Clone, Debug)]
pub(crate) struct AttentionWeights {
    /// Projections to queries, keys and values.
    pub qkv: Qkv,
    /// Norm of queries, as long as what it spans.
    pub q_norm: Option<NormWeights>,
    /// Norm of keys.
    pub k_norm: Option<NormWeights>,
    /// `[heads]`; only where the architecture has them.
    pub sinks: Option<Vector>,
    /// `[D, Q]`.
    pub o_proj: Linear,
}

/// Projections to queries, keys and values.
#[expect(clippy::large_enum_variant, reason = "there is one for each layer")]
#[derive(Clone, Debug)]
pub(crate) enum Qkv {
    /// Each by itself: `[Q, D]`, or `[2 Q, D]` where heads have gates, then `[K, D]`, `[K, D]`.
    Apart([Linear; 3]),
    /// Queries and keys, which serve as values, too.
    QueryAndKey([Linear; 2]),
    /// Queries alone: keys and values are another layer's.
    Query(Linear),
    /// All of them: `[Q + 2 K, D]`, in the order that the architecture says.
    Joined(Linear),
}

/// The second branch of a [`LayerWeights`].
#[expect(clippy::large_enum_variant, reason = "there is one for each layer")]
#[derive(Clone, Debug)]
pub(crate) enum FeedForwardWeights {
    /// One MLP.
    Mlp(MlpWeights),
    /// Experts.
    Experts(ExpertsWeights),
}

/// Experts of a [`LayerWeights`], `E` of them.
#[derive(Clone, Debug)]
pub(crate) struct ExpertsWeights {
    /// `[E, D]`.
    pub router: Linear,
    /// `[E]`; only where the architecture has it.
    pub choice_bias: Option<Vector>,
    /// `[E]`; only where the architecture has it.
    pub expert_scale: Option<Vector>,
    /// `[F, D]` each.
    pub gate_proj: ExpertLinear,
    /// `[F, D]` each.
    pub up_proj: ExpertLinear,
    /// `[D, F]` each.
    pub down_proj: ExpertLinear,
    /// Only where the architecture has it.
    pub shared: Option<SharedWeights>,
    /// Only where the architecture has them.
    pub norms: Option<ExpertNormsWeights>,
}

/// One projection of all experts of an [`ExpertsWeights`], as the checkpoint stores it.
#[derive(Clone, Debug)]
pub(crate) enum ExpertLinear {
    /// The rows of each expert lie one after the other in one matrix: `[E out, in]`.
    Stacked(Linear),
    /// Each expert has a matrix of its own, in one format with the others: `[out, in]`.
    Apart(Vec<Linear>),
}

impl ExpertLinear {
    /// What one of `count` experts multiplies by, and adds.
    ///
    /// # Panics
    /// If there are not so many experts.
    pub(crate) fn of(&self, expert: usize, count: usize) -> (WeightsRef<'_>, Option<&[f32]>) {
        match self {
            Self::Stacked(all) => {
                let rows = all.weights.rows() / count;
                let own = expert * rows..(expert + 1) * rows;
                (all.weights.view().part(own.clone()), all.bias.as_ref().map(|bias| &bias.values[own]))
            }
            Self::Apart(each) => {
                let Linear { weights, bias } = &each[expert];
                (weights.view(), bias.as_ref().map(|bias| bias.values.as_slice()))
            }
        }
    }
}

/// An MLP that is added to [`ExpertsWeights`] for all positions.
#[derive(Clone, Debug)]
pub(crate) struct SharedWeights {
    /// The MLP.
    pub mlp: MlpWeights,
    /// `[1, D]`; only where the architecture has it.
    pub gate: Option<Linear>,
}

/// Norms of [`ExpertsWeights`], `[D]` each.
#[derive(Clone, Debug)]
pub(crate) struct ExpertNormsWeights {
    /// Norm of the router's input, multiplied by `D^-1/2`.
    pub router: NormWeights,
    /// Norm of the experts' input.
    pub input: NormWeights,
    /// Norm of the sum of their outputs.
    pub output: NormWeights,
    /// Norm of what is added for all positions.
    pub shared_output: NormWeights,
}

/// An MLP of a [`LayerWeights`].
#[derive(Clone, Debug)]
pub(crate) struct MlpWeights {
    /// What comes before the activation.
    pub inner: Inner,
    /// The four numbers of an activation that has some: of [`Activation::Xielu`](super::architecture::Activation::Xielu) `a`, `n`,
    /// `b` and `e`.
    pub activation: Option<[f32; 4]>,
    /// `[D, F]`.
    pub down_proj: Linear,
}

/// The projections into an MLP.
#[expect(clippy::large_enum_variant, reason = "there is one for each layer")]
#[derive(Clone, Debug)]
pub(crate) enum Inner {
    /// `[F, D]`: `up_proj` without a gate.
    Plain(Linear),
    /// `[F, D]` each: `gate_proj` and `up_proj`.
    Gated([Linear; 2]),
    /// `[2 F, D]`: the gate's rows, then the others.
    Joined(Linear),
}

/// All weights of a model, by their roles in its [`Architecture`](super::Architecture), whatever the family names them. Norms and
/// biases are widened, matrices stay as they are stored.
#[derive(Clone, Debug)]
pub(crate) struct ModelWeights {
    /// `[vocab_size, hidden_size]`; quantized where the head is tied to it.
    pub embed_tokens: Weights,
    /// `[positions, hidden_size]`; only where the architecture has learned positions.
    pub embed_positions: Option<Weights>,
    /// What tokens give to layers; only where the architecture has it.
    pub token_inputs: Option<TokenInputsWeights>,
    /// One for each layer.
    pub layers: Vec<LayerWeights>,
    /// `[hidden_size]`.
    pub norm: NormWeights,
    /// `[vocab_size, hidden_size]`; `None` where the embedding is also the head.
    pub lm_head: Option<Quantized>,
    /// `[vocab_size]`; only where the architecture has one.
    pub head_bias: Option<Vector>,
    /// How each matrix is stored, by the name of its module: the name of a format or of a type, such as `affine-4-g64`, `mxfp4` or
    /// `bfloat16`.
    pub formats: BTreeMap<String, String>,
}

impl ModelWeights {
    /// The head: `lm_head`, or the embedding that it is tied to.
    ///
    /// # Panics
    /// If there is no `lm_head` and the embedding is dense, which no opened checkpoint has.
    pub(crate) fn head(&self) -> &Quantized {
        match (&self.lm_head, &self.embed_tokens) {
            (Some(head), _) | (None, Weights::Quantized(head)) => head,
            (None, Weights::Dense(_)) => panic!("the head of a tied model is quantized"),
        }
    }
}
