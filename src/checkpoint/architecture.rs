//! What a model computes, layer by layer: the one value that weights follow and decoders interpret.
//!
//! [`Config::parse`](super::Config::parse) makes it of `config.json` and the rules of a [family](super::family). Whatever comes
//! later (`assemble`, the decoders of `model/`) reads this value and knows no family. Patterns over the layers are
//! expanded, so that each [`Layer`] says by itself what it is.
//!
//! What a model lacks is absent from the value and skipped where the value is interpreted. It is never multiplied by 1 or
//! increased by 0 instead, since both can change bits.
//!
//! Every field is interpreted by both decoders, and a field comes into being with the first family that needs it. A `match` or
//! a pattern without `..` in `assemble` and the decoders then names each place that has something to learn. This is where what
//! other families have belongs:
//!
//! | a family has | it becomes |
//! | --- | --- |
//! | a scale or a softcap of the embedding, the logits or a branch | an `Option` in [`Architecture`] or [`Layer`] |
//! | a sliding window, chunks, sinks, a softcap, an output gate | an `Option` in [`Attention`]; a window is a suffix of a position's path |
//! | another scale of attention than `head_dim^-1/2` | an `Option` in [`Attention`] |
//! | norms of queries and keys | an `Option` of a [`Norm`] in [`Attention`], with what it spans: a head, or all of them |
//! | layers without rotary embedding | [`Attention::rope`] becomes an `Option` |
//! | rotary embedding of a part of a head, in neighbouring pairs, with an amplitude | fields of [`Rope`] |
//! | another rule for the frequencies | a variant of [`RopeScaling`] |
//! | layer norms, weights stored as `weight - 1` | a variant of [`Norm`]; what is added to weights is added once, at load |
//! | norms of a branch's output, blocks that are parallel | [`Layer`]'s norms become `Option`s, joined by those of the outputs |
//! | another activation, an MLP without a gate | a variant of [`Activation`]; an `Option` in the tree of weights |
//! | experts | [`Layer::mlp`] becomes an enum of [`Mlp`] and experts, each of which is an [`Mlp`] |
//! | short convolutions, gated DeltaNet | [`Layer::attention`] becomes an enum of [`Attention`] and these, which keep a state of their own |

use std::iter;

/// A model, from tokens to hidden states and logits.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Architecture {
    /// Rows of the embedding and of the head.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// The transformer blocks.
    pub layers: Layers,
    /// Norm of the last block's output.
    pub norm: Norm,
    /// Whether the embedding is also the head.
    pub tied: bool,
}

/// The layers of a model in their order, at least one.
///
/// Their number is a configuration's claim until their tensors are found, and memory must not grow with a claim: layers that are
/// alike are stored once. Layers that alternate will have to be listed, and their number bounded by who lists them.
#[derive(Clone, Debug, PartialEq)]
pub struct Layers {
    layer: Layer,
    count: usize,
}

impl Layers {
    /// `count` times `layer`.
    pub(super) const fn alike(layer: Layer, count: usize) -> Self {
        Self { layer, count }
    }

    /// How many there are.
    #[expect(clippy::len_without_is_empty, reason = "there is at least one")]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Each in its order.
    pub fn iter(&self) -> impl Iterator<Item = &Layer> {
        iter::repeat_n(&self.layer, self.count)
    }
}

/// A transformer block: `h = x + attention(attention_norm(x))`, then `h + mlp(mlp_norm(h))`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Layer {
    /// Norm of the attention's input.
    pub attention_norm: Norm,
    /// The first branch.
    pub attention: Attention,
    /// Norm of the MLP's input.
    pub mlp_norm: Norm,
    /// The second branch.
    pub mlp: Mlp,
}

/// Causal attention of query heads over the keys and values that they share: query head `j` reads key head
/// `j / (heads / kv_heads)`. Scores are multiplied by `head_dim^-1/2`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Attention {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads, a divisor of the query heads.
    pub kv_heads: usize,
    /// Columns of one head, even.
    pub head_dim: usize,
    /// How positions turn queries and keys.
    pub rope: Rope,
    /// Whether the projections to queries, keys and values have a bias.
    pub qkv_bias: bool,
    /// Whether the projection of the heads' outputs has one.
    pub o_bias: bool,
}

impl Attention {
    /// Columns of all query heads: rows of `q_proj`, columns of `o_proj`.
    pub const fn query_size(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Columns of all key heads, or of all value heads: rows of `k_proj` and of `v_proj`.
    pub const fn key_value_size(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}

/// `down_proj(activation(gate_proj(x)) * up_proj(x))`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Mlp {
    /// Width inside: rows of `gate_proj` and `up_proj`, columns of `down_proj`.
    pub intermediate_size: usize,
    /// What the gate goes through.
    pub activation: Activation,
    /// Whether the three projections have a bias.
    pub bias: bool,
}

/// A function of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
}

/// What brings vectors of the residual stream to one size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Norm {
    /// `x / sqrt(mean(x^2) + eps) * weight`.
    Rms {
        /// Positive.
        eps: f32,
    },
}

/// Rotary embedding of whole heads: columns `i` and `i + head_dim / 2` are turned as a pair, by an angle of
/// `position * theta^(-2i / head_dim)` before scaling.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Rope {
    /// Base of the frequencies; positive and finite, also as `f32`.
    pub theta: f64,
    /// How the frequencies are scaled.
    pub scaling: RopeScaling,
}

/// How rotary frequencies are scaled. Numbers are finite and positive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Frequencies are not scaled.
    Default,
    /// All frequencies are divided by `factor`.
    Linear {
        /// What positions are divided by.
        factor: f64,
    },
    /// Llama 3.1's: long wavelengths divided by `factor`, short ones kept, smooth between.
    Llama3 {
        /// Divisor of the frequencies whose wavelength is long.
        factor: f64,
        /// A wavelength is long above `original_max_position_embeddings / low_freq_factor`.
        low_freq_factor: f64,
        /// A wavelength is short below `original_max_position_embeddings / high_freq_factor`;
        /// greater than `low_freq_factor`.
        high_freq_factor: f64,
        /// Context length of the model before it was extended.
        original_max_position_embeddings: f64,
    },
}
