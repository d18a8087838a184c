//! How a family's `config.json` is read: what its keys are called, what an absent one means, and which of them it has.
//!
//! Each rule is a choice among the ways in which mlx-lm's model classes read their arguments. `reader/` interprets the rules;
//! nothing else does.

use super::experts::ExpertsRule;
use crate::checkpoint::architecture::{Activation, NormKind, Pairing, Span, Wiring};

/// How a `config.json` is read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ConfigRules {
    /// The sizes.
    pub sizes: Sizes,
    /// Whether the head is the embedding.
    pub tied: Tied,
    /// Whether the head has a bias.
    pub head_bias: Flag,
    /// The key of how many positions have a learned vector, if any have.
    pub learned_positions: Option<&'static str>,
    /// Whether the projections to queries, keys and values have a bias.
    pub qkv_bias: Flag,
    /// Whether the projection of the heads' outputs has one.
    pub o_bias: Flag,
    /// Whether the projection to queries gives each head a gate, too.
    pub gated: bool,
    /// Layers that mix positions by something else than attention.
    pub other_mixers: Option<OtherMixers>,
    /// Whether the projections of the MLP have one.
    pub mlp_bias: Flag,
    /// The mixture of experts, if some layers have one.
    pub experts: Option<ExpertsRule>,
    /// Whether heads have a score more, without a value.
    pub sinks: bool,
    /// The norms of the residual stream.
    pub norm: NormRule,
    /// The norms of queries and keys.
    pub qk_norm: Option<QkNormRule>,
    /// How the branches of a block are joined where `parallel` says that they are.
    pub parallel_wiring: Wiring,
    /// Whether they are parallel.
    pub parallel: Flag,
    /// What the MLP computes.
    pub activation: ActivationRule,
    /// The rotary embedding.
    pub rope: RopeRule,
    /// Which layers see only the last positions.
    pub sliding: Sliding,
    /// What is multiplied.
    pub scales: Scales,
    /// Key of the bound of scores and what it is where absent.
    pub attention_softcap: Option<(&'static str, f64)>,
    /// Key of the bound of logits and what it is where absent.
    pub logit_softcap: Option<(&'static str, f64)>,
    /// What layers without a window have of their own, where there are layers with one.
    pub full_layers: Option<FullLayersRule>,
    /// How many of the last layers take keys and values from earlier ones.
    pub borrowing_layers: Option<Size>,
    /// Whether the MLPs of those are twice as wide.
    pub borrowing_doubles: Flag,
    /// Whether values are normalized.
    pub value_norm: bool,
    /// The keys of what tokens give to layers: columns of a layer (0 for nothing), and rows of the embedding.
    pub token_inputs: Option<[Size; 2]>,
    /// Whether a block's output is multiplied by a number of its own.
    pub output_scale: bool,
    /// Keys that ask for something elsewhere, and that mlx-lm's class for this family does not read.
    pub ignored: &'static [&'static str],
}

/// Layers that mix positions by something else than attention: which ones, and by what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OtherMixers {
    /// The other layers.
    pub attention: AttentionLayers,
    /// What these compute.
    pub mixer: MixerRule,
}

/// Which layers attend, where some do not. One does at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AttentionLayers {
    /// Every `n`th; the key of `n`, and `n` where it is absent.
    Every(Size),
    /// Those whose numbers, from 0, a list under the first key has; without the list those that `layer_types` calls
    /// `full_attention`, where the others have the second name.
    Listed(&'static str, &'static str),
}

/// What mixes positions instead of attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MixerRule {
    /// A convolution over the last positions.
    ShortConvolution {
        /// Positions that it sees.
        taps: Size,
        /// Whether it and its projections have a bias.
        bias: Flag,
    },
    /// Gated DeltaNet.
    DeltaNet {
        /// Query heads, and as many key heads.
        key_heads: Size,
        /// Value heads.
        value_heads: Size,
        /// Columns of a query or a key.
        key_dim: Size,
        /// Columns of a value.
        value_dim: Size,
        /// Positions that the convolution sees.
        taps: Size,
    },
}

/// What layers without a window have of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FullLayersRule {
    /// Columns of their heads.
    pub head_dim: Size,
    /// Whether their keys serve as values, too.
    pub keys_serve: Flag,
    /// The key of their key heads in that case.
    pub kv_heads: &'static str,
}

/// The key of a size, and what it is where absent; `None` where it must be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    /// The key.
    pub key: &'static str,
    /// Without it.
    pub default: Option<usize>,
}

/// A size that must be given.
pub(super) const fn size(key: &'static str) -> Size {
    Size { key, default: None }
}

/// A size with a default.
pub(super) const fn size_or(key: &'static str, default: usize) -> Size {
    Size { key, default: Some(default) }
}

/// The keys of a model's sizes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sizes {
    /// Rows of the embedding.
    pub vocab_size: Size,
    /// Whether the vocabulary's size stands at the top of the file although the other keys lie deeper.
    pub vocab_at_top: bool,
    /// Width of the residual stream.
    pub hidden_size: Size,
    /// Transformer blocks.
    pub layers: Size,
    /// Query heads.
    pub heads: Size,
    /// Key and value heads.
    pub kv_heads: KvHeads,
    /// Columns of a head.
    pub head_dim: HeadDim,
    /// Width inside the MLP.
    pub intermediate: Intermediate,
}

/// Where the number of key and value heads comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KvHeads {
    /// A key; as many as query heads where it is absent and has no default.
    Key(Size),
    /// As many as query heads.
    AsHeads,
    /// One where this flag is set, else as many as query heads.
    OneIf(Flag),
}

/// Where the columns of a head come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeadDim {
    /// A key; the width of the model shared out among the query heads where it is absent and has no default.
    Key(Size),
    /// The width of the model shared out among the query heads. A `head_dim` must agree.
    Shared,
}

/// Where the width inside the MLP comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Intermediate {
    /// A key.
    Key(Size),
    /// Half of what a key says.
    Half(Size),
    /// Four times the width of the model.
    FourTimesHidden,
    /// What the first of these keys says that is there; where a flag says so two thirds of it, rounded down, times a factor, rounded
    /// down, and then rounded up to a multiple.
    Adjusted {
        /// Keys of the width.
        keys: [&'static str; 2],
        /// Key of the flag, which must be given.
        adjust: &'static str,
        /// Key of the factor.
        factor: &'static str,
        /// Key of what the width is a multiple of.
        multiple: &'static str,
    },
}

/// Something that a model has or has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flag {
    /// It has.
    Always,
    /// It has not.
    Never,
    /// A key says so, or this where it is absent.
    Key(&'static str, bool),
    /// A key says that it has not, or this where it is absent.
    Not(&'static str, bool),
}

/// Whether the head is the embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tied {
    /// `tie_word_embeddings` says so, or this where it is absent.
    Key(bool),
    /// It is.
    Always,
    /// It is not.
    Never,
    /// It is where no tensor of a head is stored.
    WithoutHead,
}

impl Tied {
    /// What `tie_word_embeddings` says where a file does not mean what the key's absence means; `None` where it cannot say that.
    #[cfg(feature = "testing")]
    pub(crate) const fn other(self) -> Option<bool> {
        match self {
            Self::Key(default) => Some(!default),
            Self::Always | Self::Never | Self::WithoutHead => None,
        }
    }

    /// `tied`, or the other where no model of the family is so.
    pub(crate) const fn may_be(self, tied: bool) -> bool {
        match self {
            Self::Key(_) | Self::WithoutHead => tied,
            Self::Always => true,
            Self::Never => false,
        }
    }
}

/// The norms of the residual stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct NormRule {
    /// Which one.
    pub kind: NormKind,
    /// Key of what is added under the root.
    pub eps: &'static str,
    /// Without it; `None` where it must be given.
    pub eps_default: Option<f64>,
    /// Whether 1 is added to the weights that are stored.
    pub one_plus: bool,
    /// Whether there is a bias.
    pub bias: Flag,
}

/// The norms of queries and keys, without a bias; otherwise as the other norms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct QkNormRule {
    /// Whether there are any.
    pub when: Flag,
    /// What each spans.
    pub span: Span,
    /// Whether they come after the rotary embedding.
    pub after_rope: bool,
}

/// What an MLP computes. mlx-lm's classes know by themselves, so the key serves as a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ActivationRule {
    /// What is computed.
    pub activation: Activation,
    /// The keys under which an activation may be named.
    pub keys: &'static [&'static str],
    /// The names under which mlx-lm's class computes this one.
    pub names: &'static [&'static str],
}

/// The rotary embedding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RopeRule {
    /// Which layers have one.
    pub layers: RopeLayers,
    /// Where the base of the frequencies comes from.
    pub theta: Theta,
    /// Key of the part of a head that is turned, and what it is where absent; the whole head without.
    pub partial: Option<(&'static str, f64)>,
    /// Key of how many columns of a head are turned, if one may say so.
    pub columns: Option<&'static str>,
    /// Which columns are a pair.
    pub pairing: Pairing,
    /// Whether `rope_traditional` may say otherwise.
    pub pairing_key: bool,
    /// How frequencies may be scaled.
    pub scaling: ScalingRule,
    /// What layers with a window have instead.
    pub sliding: SlidingRope,
    /// Whether base and scaling lie in an object for each type of layer.
    pub by_layer_type: bool,
    /// Key in the scaling of how queries grow with their positions.
    pub query_growth: Option<&'static str>,
}

/// Which layers have a rotary embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RopeLayers {
    /// All of them.
    All,
    /// None.
    None,
    /// Where some layers have a window those, else all of them.
    Sliding,
    /// Those for which the list under the first key has a 1; without it all but every `n`th, `n` being what the other key says, or
    /// the number here.
    Listed(&'static str, &'static str, usize),
}

/// Where the base of the frequencies comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Theta {
    /// A key, or this where it is absent.
    Key(&'static str, f64),
    /// It is always this.
    Fixed(f64),
}

/// How frequencies may be scaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScalingRule {
    /// Not at all.
    None,
    /// By a constant only.
    Linear,
    /// By any rule that mlx-lm's classes have in common.
    Any,
    /// By a factor for each frequency or by a constant; context lengths stand beside the scaling.
    Phi3,
    /// By a factor for each frequency, whatever the type; what is turned is multiplied by what a key says.
    PhiMoe,
    /// The base is multiplied by a power of `alpha`.
    Alpha,
}

/// What layers with a window have instead of the rotary embedding of the others.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum SlidingRope {
    /// The same.
    Same,
    /// The same base, not scaled.
    Unscaled,
    /// A base of their own, by this key or this where it is absent, not scaled.
    Theta(&'static str, f64),
}

/// Which layers see only the last positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sliding {
    /// None, whatever `sliding_window` says.
    Never,
    /// Those that `layer_types` names, with `sliding_window`. Without the list all but every `n`th, or none.
    LayerTypes {
        /// Key of `n`, where there is one.
        key: Option<&'static str>,
        /// `n` where no key says it.
        every: Option<usize>,
    },
    /// All but every `n`th.
    Every {
        /// Key of `n`, and `n` where it is absent.
        every: Size,
        /// Key of the window, and the window where it is absent.
        window: Size,
    },
    /// Those that a text has an `L` for, letter by letter and again from its beginning; none without the text.
    Letters {
        /// Key of the text.
        key: &'static str,
    },
}

/// What is multiplied, and by what.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Scales {
    /// Embeddings.
    pub embedding: EmbeddingScale,
    /// Products of query and key.
    pub attention: AttentionScale,
    /// Outputs of branches.
    pub residual: ResidualScale,
    /// Logits.
    pub logits: LogitScale,
}

/// What embeddings are multiplied by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EmbeddingScale {
    /// Nothing.
    None,
    /// The square root of the model's width.
    SqrtHidden,
    /// The same, rounded to bfloat16.
    SqrtHiddenRounded,
    /// What a key says.
    Key(&'static str),
}

/// What products of query and key are multiplied by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum AttentionScale {
    /// `head_dim^-1/2`.
    HeadDim,
    /// 1: they are not multiplied at all.
    One,
    /// What a key says.
    Key(&'static str),
    /// The power -1/2 of what a key says, or of this where it is absent.
    InverseSqrt(&'static str, f64),
}

/// What the outputs of branches are multiplied by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResidualScale {
    /// Nothing.
    None,
    /// What a key says.
    Key(&'static str),
    /// What a key says, divided by the square root of the number of layers.
    OverSqrtLayers(&'static str),
}

/// What logits are multiplied by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum LogitScale {
    /// Nothing.
    None,
    /// What a key says, or this where it is absent.
    Key(&'static str, f64),
    /// One part in what a key says.
    Inverse(&'static str),
    /// What a key says, divided by the width of the model.
    OverHidden(&'static str),
}
