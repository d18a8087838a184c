//! What a model computes, layer by layer: the one value that weights follow and decoders interpret.
//!
//! [`Config::parse`](super::Config::parse) makes it of `config.json` and the rules of a [family](super::family). Whatever comes
//! later (`assemble`, the decoders of `model/`) reads this value and knows no family. Patterns over the layers are
//! expanded, so that each [`Layer`] says by itself what it is.
//!
//! What a model lacks is absent from the value and skipped where the value is interpreted. It is never multiplied by 1 or
//! increased by 0 instead, since both can change bits.
//!
//! Every field is interpreted by the decoder on the CPU; the one on MLX refuses by name what it cannot run. A field comes into being
//! with the first family that needs it. A `match` or a pattern without `..` in `assemble` and the decoders then names each place
//! that has something to learn. This is where what other families have belongs:
//!
//! | a family has | it becomes |
//! | --- | --- |
//! | chunks of attention | an `Option` in [`Attention`]; a chunk is a suffix of a position's path, as a window is |
//! | another rule for the rotary frequencies | a variant of [`RopeScaling`] |
//! | another activation | a variant of [`Activation`] |
//! | another rule by which experts are chosen | a variant of [`Score`], or an `Option` in [`Router`] |
//! | another way to mix positions, such as Mamba | a variant of [`Mixer`], which says what a position keeps |

mod experts;

pub(crate) use experts::{Divisor, ExpertNorms, Experts, Groups, Router, Score, Shared};

/// A model, from tokens to hidden states and logits.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub(crate) struct Architecture {
    /// Rows of the embedding and of the head.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// What embeddings are multiplied by.
    pub embedding_scale: Option<f32>,
    /// How many positions have a learned vector, which is added to the embedding.
    pub learned_positions: Option<usize>,
    /// What each token gives to each layer, besides its embedding.
    pub token_inputs: Option<TokenInputs>,
    /// The transformer blocks.
    pub layers: Layers,
    /// Norm of the last block's output.
    pub norm: Norm,
    /// Whether the embedding is also the head.
    pub tied: bool,
    /// Whether the head has a bias, one number for each row.
    pub head_bias: bool,
    /// What the head's products go through to become logits.
    pub curve: Curve,
}

/// What each token gives to each layer: `(norm(projection(x)) + row of an embedding of its own) / sqrt 2`, `x` being the token's embedding,
/// the projection multiplied by `hidden_size^-1/2` and the row by `size^1/2`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct TokenInputs {
    /// Rows of that embedding.
    pub vocab_size: usize,
    /// Columns that each layer has of a row and of the projection.
    pub size: usize,
    /// Norm of the projection, of each layer by itself.
    pub norm: Norm,
}

/// What stands between the head's products and the logits: `logit[r] = curve(product[r] + bias[r])`.
///
/// It knows no family: a backend that found it by asking its model makes it as well as a configuration does.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AfterHead {
    /// `[vocab_size]`.
    pub bias: Option<Vec<f32>>,
    /// What comes last.
    pub curve: Curve,
}

impl AfterHead {
    /// What it is, in words; `None` where nothing follows the head.
    pub(crate) fn told(&self) -> Option<String> {
        let parts = [
            self.bias.as_ref().map(|_| "a bias of each row".to_owned()),
            self.curve.scale.map(|scale| format!("scale {scale}")),
            self.curve.softcap.map(|cap| format!("softcap {cap}")),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}

/// An increasing function of one number: `cap * tanh(scale * x / cap)`, where what is absent is left out.
///
/// Since it increases, it keeps the order of logits: which token is chosen, and the least flips that choose another, are decided
/// before it, exactly. What is measured of logits (margins, surprises, divergences) is of those after it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Curve {
    /// Positive and finite.
    pub scale: Option<f32>,
    /// Positive and finite.
    pub softcap: Option<f32>,
}

impl Curve {
    /// The function that gives every number back.
    pub(crate) const NONE: Self = Self { scale: None, softcap: None };

    /// Whether it changes nothing.
    pub(crate) const fn is_none(self) -> bool {
        self.scale.is_none() && self.softcap.is_none()
    }
}

/// The layers of a model in their order, at least one.
///
/// Their number is a configuration's claim until their tensors are found, and memory must not grow with a claim: layers that are
/// alike are stored once, and a pattern that repeats is stored once as well. A pattern is as long as a list in the configuration, or
/// has a small bound of its own.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Layers {
    kinds: Vec<Layer>,
    /// Which of them each layer of a period is.
    pattern: Vec<u32>,
    count: usize,
}

impl Layers {
    /// `count` layers, of which the `i`th is the `i % period.len()`th of `period`, which is not empty.
    pub(super) fn repeating(period: impl IntoIterator<Item = Layer>, count: usize) -> Self {
        let (mut kinds, mut pattern): (Vec<Layer>, Vec<u32>) = (Vec::new(), Vec::new());
        for layer in period {
            let known = kinds.iter().position(|kind| *kind == layer);
            pattern.push(known.unwrap_or(kinds.len()) as u32);
            if known.is_none() {
                kinds.push(layer);
            }
        }
        debug_assert!(!pattern.is_empty(), "a period has a layer");
        if kinds.len() == 1 {
            pattern.truncate(1);
        }
        Self { kinds, pattern, count }
    }

    /// How many there are.
    pub(crate) const fn len(&self) -> usize {
        self.count
    }

    /// Each in its order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Layer> {
        self.pattern.iter().cycle().take(self.count).map(|&kind| &self.kinds[kind as usize])
    }

    /// Those that differ, in the order in which they first occur.
    pub(crate) fn kinds(&self) -> &[Layer] {
        &self.kinds
    }
}

/// A transformer block. A branch is `scale * output_norm(f(norm(x)))`, where what is absent is left out; `f` is the mixer or the MLP.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub(crate) struct Layer {
    /// Which input each branch has.
    pub wiring: Wiring,
    /// Norm of the mixer's input.
    pub attention_norm: Option<Norm>,
    /// The first branch.
    pub mixer: Mixer,
    /// Norm of the mixer's output.
    pub attention_output_norm: Option<Norm>,
    /// Norm of the MLP's input.
    pub mlp_norm: Option<Norm>,
    /// The second branch.
    pub mlp: FeedForward,
    /// Norm of the MLP's output.
    pub mlp_output_norm: Option<Norm>,
    /// What the output of either branch is multiplied by before it is added.
    pub residual_scale: Option<f32>,
    /// A third branch, after the others: `norm(projection(activation(gate(x)) * what the token gives to the layer))`.
    pub token_input: Option<TokenInput>,
    /// Whether the block's output is multiplied by a number that is one of its weights.
    pub output_scale: bool,
}

/// How a block takes in what the token gives to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct TokenInput {
    /// Columns of it.
    pub size: usize,
    /// What the gate goes through.
    pub activation: Activation,
    /// Norm of the branch's output.
    pub output_norm: Norm,
}

/// How the branches of a block are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wiring {
    /// `h = x + mixer(x)`, then `h + mlp(h)`.
    Serial,
    /// `x + mixer(x) + mlp(x)`.
    Parallel,
    /// The same, where the mixer's norm is that of the MLP's input, too.
    ParallelOneNorm,
}

/// How a position takes in what the positions before it are: most layers attend to them, others carry a state along.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Mixer {
    /// Attention.
    Attention(Attention),
    /// A convolution over the last positions.
    ShortConvolution(ShortConvolution),
    /// A state by the gated delta rule.
    DeltaNet(DeltaNet),
}

impl Mixer {
    /// The attention, where it is one.
    pub(crate) const fn attention(&self) -> Option<&Attention> {
        match self {
            Self::Attention(attention) => Some(attention),
            Self::ShortConvolution(_) | Self::DeltaNet(_) => None,
        }
    }

    /// What each position keeps for this layer of a model of so many hidden columns, until it is released: rows, and the columns of one.
    pub(crate) const fn kept(&self, hidden_size: usize) -> (usize, usize) {
        match self {
            Self::Attention(Attention { kv_heads, head_dim, key_values, .. }) => match key_values {
                KeyValues::Own | KeyValues::FromKeys => (2 * *kv_heads, *head_dim),
                KeyValues::OfLayer(_) => (0, *head_dim),
            },
            Self::ShortConvolution(_) => (1, hidden_size),
            // What is convolved, and decay and strength of each head: the state can be computed from them.
            Self::DeltaNet(net) => (1, net.mixed_size() + 2 * net.value_heads),
        }
    }

    /// Floats of the state that follows from what the positions of a path keep.
    pub(crate) const fn state(&self) -> usize {
        match self {
            Self::Attention(_) | Self::ShortConvolution(_) => 0,
            Self::DeltaNet(net) => net.value_heads * net.key_dim * net.value_dim,
        }
    }
}

/// `out_proj(c * convolved(b * x))`, where `[b, c, x] = in_proj(input)`, each as wide as the model. Each column is convolved by itself with
/// its last values.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub(crate) struct ShortConvolution {
    /// Positions that the convolution sees, the own one included.
    pub taps: usize,
    /// Whether the projections and the convolution have a bias.
    pub bias: bool,
}

/// A state of each value head, `[key_dim, value_dim]`, that follows the gated delta rule (Yang, Kautz and Hatamizadeh, *Gated Delta
/// Networks*, 2024).
///
/// ```text
/// q, k, v  = silu(convolved([q, k, v] of the input)),  q and k of length 1, q divided by sqrt(key_dim)
/// decay    = exp(-exp(a_log) * ln(1 + exp(a + dt_bias))),  strength = sigmoid(b),  one of each for a value head
/// state    = decay * state
/// state   += k^T (strength * (v - k state))
/// output   = out_proj(norm(q state) * silu(z))
/// ```
///
/// A key head serves `value_heads / key_heads` value heads that follow one another.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub(crate) struct DeltaNet {
    /// Query heads, which are as many as the key heads.
    pub key_heads: usize,
    /// Value heads, a multiple of the key heads.
    pub value_heads: usize,
    /// Columns of a query or a key.
    pub key_dim: usize,
    /// Columns of a value.
    pub value_dim: usize,
    /// Positions that the convolution sees, the own one included.
    pub taps: usize,
    /// Norm of each head's output.
    pub norm: Norm,
    /// How the projections are stored.
    pub projections: DeltaProjections,
}

impl DeltaNet {
    /// Columns of all keys, or of all queries.
    pub(crate) const fn key_size(&self) -> usize {
        self.key_heads * self.key_dim
    }

    /// Columns of all values.
    pub(crate) const fn value_size(&self) -> usize {
        self.value_heads * self.value_dim
    }

    /// Columns that are convolved: queries, keys and values.
    pub(crate) const fn mixed_size(&self) -> usize {
        2 * self.key_size() + self.value_size()
    }
}

/// How the projections of a [`DeltaNet`] are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeltaProjections {
    /// Queries, keys and values in one matrix, one after the other; `z`, `b` and `a` each in one of its own.
    Apart,
    /// Two matrices, both by key head: the rows of its query, its key, its values and their `z`; and those of `b` and `a`.
    ByKeyHead,
}

/// Causal attention of query heads over the keys and values that they share: query head `j` reads key head
/// `j / (heads / kv_heads)`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub(crate) struct Attention {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads, a divisor of the query heads.
    pub kv_heads: usize,
    /// Columns of one head.
    pub head_dim: usize,
    /// What products of query and key are multiplied by.
    pub scale: f32,
    /// What bounds them then: `cap * tanh(score / cap)`.
    pub softcap: Option<f32>,
    /// Whether each head has a score more, which has no value: it takes weight from the others.
    pub sinks: bool,
    /// How many positions are seen, the own one included; all of them where absent.
    pub window: Option<usize>,
    /// How positions turn queries and keys.
    pub rope: Option<Rope>,
    /// What grows queries with their positions.
    pub query_growth: Option<QueryGrowth>,
    /// Norm of queries and keys.
    pub qk_norm: Option<QkNorm>,
    /// Where keys and values come from.
    pub key_values: KeyValues,
    /// Norm of each value head by itself, without weights.
    pub value_norm: Option<Norm>,
    /// How the projections to queries, keys and values are stored.
    pub projections: Projections,
    /// Whether they have a bias.
    pub qkv_bias: bool,
    /// Whether the projection of the heads' outputs has one.
    pub o_bias: bool,
    /// Whether the projection to queries gives each head a gate, too, in the columns behind its query: outputs are multiplied by its
    /// sigmoid.
    pub gated: bool,
}

impl Attention {
    /// Columns of all query heads: columns of `o_proj`, and rows of `q_proj` where there are no gates.
    pub(crate) const fn query_size(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Columns of all key heads, or of all value heads: rows of `k_proj` and of `v_proj`.
    pub(crate) const fn key_value_size(&self) -> usize {
        self.kv_heads * self.head_dim
    }
}

/// Where a layer's keys and values come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyValues {
    /// From projections of its input.
    Own,
    /// Both from the projection to keys, which is stored once.
    FromKeys,
    /// From an earlier layer, which has them already: there are no projections.
    OfLayer(usize),
}

/// How the projections to queries, keys and values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Projections {
    /// Each as a matrix of its own.
    Apart,
    /// In one matrix: all rows for queries, then all for keys, then all for values.
    Joined,
    /// In one matrix, by key head: the rows of the query heads that read it, those of the key head, those of the value head.
    ByKeyHead,
}

/// Norm of queries and keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct QkNorm {
    /// Which one.
    pub norm: Norm,
    /// What is normalized together, with which weights.
    pub span: Span,
    /// Whether it comes after the rotary embedding.
    pub after_rope: bool,
}

/// What a norm of queries or keys spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Span {
    /// Each head by itself, all with the same weights, `[head_dim]`.
    Head,
    /// Each head by itself, with its own weights, `[heads, head_dim]`.
    EachHead,
    /// All heads together, `[heads * head_dim]`.
    All,
}

/// Queries multiplied by `1 + beta * ln(1 + floor(position / original))`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct QueryGrowth {
    /// How much.
    pub beta: f64,
    /// Positions before anything grows.
    pub original: f64,
}

/// The second branch of a block.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum FeedForward {
    /// One MLP for all positions.
    Mlp(Mlp),
    /// Several, of which each position has some.
    Experts(Experts),
}

impl FeedForward {
    /// What each MLP of it computes, apart from one that experts share.
    pub(crate) const fn mlp(&self) -> &Mlp {
        match self {
            Self::Mlp(mlp) => mlp,
            Self::Experts(experts) => &experts.expert,
        }
    }

    /// The experts, if it has some.
    pub(crate) const fn experts(&self) -> Option<&Experts> {
        match self {
            Self::Mlp(_) => None,
            Self::Experts(experts) => Some(experts),
        }
    }
}

/// `down_proj(activation(gate_proj(x)) * up_proj(x))`, or `down_proj(activation(up_proj(x)))` without a gate.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub(crate) struct Mlp {
    /// Width inside: rows of `gate_proj` and `up_proj`, columns of `down_proj`.
    pub intermediate_size: usize,
    /// What the gate goes through, or what is inside where there is none.
    pub activation: Activation,
    /// Whether there is a gate, and how it is stored.
    pub gate: Gate,
    /// Whether the projections have a bias.
    pub bias: bool,
}

/// How an MLP's gate is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// There is none.
    None,
    /// As a matrix of its own.
    Apart,
    /// In one matrix with `up_proj`, whose rows come after its own.
    Joined,
}

/// A function of one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// `x * (1 + erf(x / sqrt 2)) / 2`.
    Gelu,
    /// Its approximation, `x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) / 2`.
    GeluTanh,
    /// `max(x, 0)^2`.
    ReluSquared,
    /// `a x^2 + b x` where `x > 0`, else `(exp(min(x, e)) - 1 - x) * n + b x`; its four numbers are weights of the layer.
    Xielu,
    /// gpt-oss's, of a gate and of what it multiplies: `min(x, 7) * sigmoid(1.702 min(x, 7)) * (up + 1)`, `up` being between -7 and 7.
    ClampedSwiglu,
}

/// What brings vectors to one size. A norm without weights multiplies by none.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub(crate) struct Norm {
    /// Which one.
    pub kind: NormKind,
    /// Positive.
    pub eps: f32,
    /// Whether weights are stored, and how.
    pub weight: NormWeight,
    /// Whether a bias is added.
    pub bias: bool,
}

/// What a norm divides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NormKind {
    /// `x / sqrt(mean(x^2) + eps)`.
    Rms,
    /// `(x - mean(x)) / sqrt(variance(x) + eps)`.
    Layer,
}

/// What a norm multiplies by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NormWeight {
    /// The weights as they are stored.
    AsStored,
    /// 1 plus what is stored; it is added once, as the checkpoint is opened.
    OnePlus,
    /// Nothing: no weights are stored.
    None,
}

/// Rotary embedding of the first columns of each head: pairs of columns are turned by an angle of
/// `position * theta^(-2i / columns)` before scaling, `i` being the pair's number.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub(crate) struct Rope {
    /// Base of the frequencies; positive and finite, also as `f32`.
    pub theta: f64,
    /// Columns of a head that are turned, even; those after them are left as they are.
    pub columns: usize,
    /// Which columns are a pair.
    pub pairing: Pairing,
    /// How the frequencies are scaled.
    pub scaling: RopeScaling,
}

/// Which columns of a head are turned together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pairing {
    /// `i` and `i + columns / 2`.
    Halves,
    /// `2i` and `2i + 1`.
    Neighbours,
}

/// How rotary frequencies are scaled. Numbers are finite and positive.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum RopeScaling {
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
    /// YaRN: as Llama 3.1's with another transition, and what is turned is multiplied by an amplitude.
    Yarn {
        /// Divisor of the frequencies of pairs after the transition.
        factor: f64,
        /// Context length of the model before it was extended.
        original_max_position_embeddings: f64,
        /// Turns within that length of the first pair of the transition.
        beta_fast: f64,
        /// Turns within that length of its last pair.
        beta_slow: f64,
        /// What is turned is multiplied by this.
        amplitude: f64,
    },
    /// Dynamic NTK: the base grows with the positions that a text had when a position was computed, beyond those that the model was
    /// made for. So the positions of a prompt have the base of its length, and each that is generated has one of its own.
    Dynamic {
        /// How fast it grows.
        factor: f64,
        /// Positions that the model was made for.
        longest: usize,
    },
    /// Frequencies are divided by `factor`, and only the first pairs are turned.
    Proportional {
        /// Divisor of the frequencies.
        factor: f64,
        /// Pairs that are turned.
        pairs: usize,
    },
    /// The frequency of each pair is divided by a factor of its own, and what is turned is multiplied by an amplitude.
    Long {
        /// One for each pair.
        factors: Vec<f64>,
        /// What is turned is multiplied by this.
        amplitude: f64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_behind_the_head_is_told_where_there_is_something() {
        assert_eq!(AfterHead::default().told(), None);
        let all = AfterHead { bias: Some(vec![1.0]), curve: Curve { scale: Some(0.5), softcap: Some(30.0) } };
        assert_eq!(all.told().as_deref(), Some("a bias of each row, scale 0.5, softcap 30"));
    }
}
