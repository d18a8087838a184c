//! Model families as data: how each writes its configuration and names its tensors.
//!
//! A family is an entry of [`NATIVE`] and nothing else: no code is a family's own. `reader/` reads `config.json` by the
//! entry's `ConfigRules`, which gives an `Architecture`; `assemble` finds the weights of that value by
//! the entry's `TensorNames`. So a family that computes what another does costs a few lines here, and one that computes
//! something new also costs a field of `Architecture` and what interprets it.
//!
//! An entry is written as what differs from another: `Family { model_type: "mistral", ..LLAMA }`. Where families differ in
//! something that is fixed today, a field is added to the rules or names, with today's value in `LLAMA`.
//!
//! What mlx-lm 0.32.2 computes is the specification of each entry.

mod experts;
mod gemma;
mod gpt;
mod lfm;
mod llama;
mod mixtures;
mod names;
#[cfg(test)]
mod published;
mod qwen;
mod qwen_hybrid;
mod rules;

pub(crate) use experts::{
    ApartNames, ExpertLayers, ExpertNames, ExpertWidth, ExpertsRule, PROJECTIONS, RouterRule, ScoreRule, SharedRule,
    SharedWidth,
};
pub(crate) use gemma::{GEMMA, GEMMA2, GEMMA3, GEMMA3_TEXT, GEMMA4, GEMMA4_TEXT};
pub(crate) use gpt::{COHERE, COHERE2, GPT_BIGCODE, GPT_NEOX, GPT2, PHI, STABLELM, STARCODER2};
pub(crate) use lfm::{LFM2, LFM2_MOE};
pub(crate) use llama::{
    APERTUS, ERNIE4_5, EXAONE, EXAONE4, GLM, GLM4, GRANITE, HELIUM, HUNYUAN_V1_DENSE, INTERNLM2, INTERNLM3, LLAMA,
    MIMO, MINICPM, MINISTRAL3, MISTRAL, MISTRAL3, MISTRAL3_OF_MINISTRAL3, NEMOTRON, OLMO2, OLMO3, PHI3, SEED_OSS,
    SMOLLM3, TELECHAT3,
};

pub(crate) use mixtures::{
    BAILING_MOE, DEEPSEEK, DOTS1, ERNIE4_5_MOE, EXAONE_MOE, GLM4_MOE, GPT_OSS, GRANITEMOE, MELLUM, MINIMAX, MINIMAX_M2,
    MIXTRAL, OLMOE, PHIMOE, QWEN2_MOE, QWEN3_MOE, SOLAR_OPEN,
};

pub(crate) use names::{
    DeltaNetNames, DeltaProjectionNames, Dropped, GateName, QkNormNames, QkvNames, Renamed, ShortConvolutionNames,
    TensorNames, TokenInputNames,
};
pub(crate) use qwen::{QWEN, QWEN2, QWEN2_5_VL, QWEN2_VL, QWEN3, QWEN3_VL};
pub(crate) use qwen_hybrid::{QWEN3_5, QWEN3_5_MOE, QWEN3_NEXT};
pub(crate) use rules::{
    ActivationRule, AttentionLayers, AttentionScale, ConfigRules, EmbeddingScale, Flag, FullLayersRule, HeadDim,
    Intermediate, KvHeads, LogitScale, MixerRule, NormRule, OtherMixers, QkNormRule, ResidualScale, RopeLayers,
    RopeRule, Scales, ScalingRule, Size, Sizes, Sliding, SlidingRope, Theta, Tied,
};

/// The families whose bodies this program computes. Tests, oracles and messages go through this list.
pub const NATIVE: [&Family; 67] = [
    &LLAMA,
    &MISTRAL,
    &MISTRAL3,
    &MINISTRAL3,
    &MISTRAL3_OF_MINISTRAL3,
    &QWEN2,
    &QWEN3,
    &QWEN2_VL,
    &QWEN2_5_VL,
    &QWEN3_VL,
    &GEMMA,
    &GEMMA2,
    &GEMMA3,
    &GEMMA3_TEXT,
    &GEMMA4,
    &GEMMA4_TEXT,
    &PHI3,
    &GRANITE,
    &SMOLLM3,
    &OLMO2,
    &OLMO3,
    &GLM4,
    &GLM,
    &COHERE,
    &COHERE2,
    &STARCODER2,
    &STABLELM,
    &EXAONE,
    &EXAONE4,
    &ERNIE4_5,
    &HUNYUAN_V1_DENSE,
    &INTERNLM2,
    &INTERNLM3,
    &SEED_OSS,
    &MIMO,
    &HELIUM,
    &NEMOTRON,
    &APERTUS,
    &TELECHAT3,
    &MINICPM,
    &PHI,
    &GPT_NEOX,
    &GPT2,
    &GPT_BIGCODE,
    &QWEN,
    &LFM2,
    &LFM2_MOE,
    &QWEN3_5,
    &QWEN3_5_MOE,
    &QWEN3_NEXT,
    &MIXTRAL,
    &QWEN2_MOE,
    &QWEN3_MOE,
    &OLMOE,
    &GPT_OSS,
    &GRANITEMOE,
    &GLM4_MOE,
    &SOLAR_OPEN,
    &DOTS1,
    &DEEPSEEK,
    &EXAONE_MOE,
    &MELLUM,
    &ERNIE4_5_MOE,
    &MINIMAX,
    &MINIMAX_M2,
    &PHIMOE,
    &BAILING_MOE,
];

/// What distinguishes the checkpoints of a family.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// What it is called here, unlike any other.
    pub name: &'static str,
    /// `model_type` in `config.json`.
    pub model_type: &'static str,
    /// Where a model of several parts keeps the configuration of the one that is run.
    pub(crate) text: Option<TextConfig>,
    /// How its `config.json` is read.
    pub(crate) config: ConfigRules,
    /// How its tensors are named.
    pub(crate) tensors: TensorNames,
}

impl Family {
    /// Whether experts may have tensors of their own, which mlx-lm stacks.
    pub const fn may_have_experts_apart(&self) -> bool {
        self.tensors.experts.apart.is_some()
    }

    /// Whether such tensors may be quantized.
    pub fn may_quantize_experts_apart(&self) -> bool {
        self.tensors.experts.apart.is_some_and(|apart| apart.quantized)
    }

    /// The key of the object in `config.json` that the language model's configuration is, in a model of several parts.
    pub fn text_config(&self) -> Option<&'static str> {
        self.text.map(|text| text.key)
    }

    /// `tied`, or the other where no model of the family is so: whether the head of such a model is its embedding.
    pub const fn may_be_tied(&self, tied: bool) -> bool {
        self.config.tied.may_be(tied)
    }
}

/// An object in `config.json` that is the configuration of a language model among other parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TextConfig {
    /// Key of the object.
    pub key: &'static str,
    /// Whether the keys may lie at the top instead.
    pub optional: bool,
    /// The `model_type` in it, where that decides; none where no entry of the same outer type names another.
    pub model_type: Option<&'static str>,
}

/// The family of a `model_type`, and of the `model_type` in the object that the family's entry names.
pub(crate) fn of_model_type(model_type: &str, inner: impl Fn(&str) -> Option<String>) -> Option<&'static Family> {
    let mut candidates = NATIVE.into_iter().filter(|family| family.model_type == model_type).collect::<Vec<_>>();
    // An entry that names the inner type comes before one that takes any.
    candidates.sort_by_key(|family| family.text.is_none_or(|text| text.model_type.is_none()));
    candidates.into_iter().find(|family| match family.text {
        Some(TextConfig { key, model_type: Some(wanted), .. }) => inner(key).is_some_and(|found| found == wanted),
        _ => true,
    })
}

/// The family of this [`Family::name`].
pub fn named(name: &str) -> Option<&'static Family> {
    NATIVE.into_iter().find(|family| family.name == name)
}

/// Every native `model_type`, for messages.
pub(super) fn native() -> String {
    let mut types = NATIVE.map(|family| family.model_type).to_vec();
    types.dedup();
    types.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_native_family_is_found_by_its_model_type_and_told_of() {
        for family in NATIVE {
            let inner = |_: &str| family.text.and_then(|text| text.model_type).map(str::to_owned);
            assert_eq!(of_model_type(family.model_type, inner), Some(family));
            assert_eq!(named(family.name), Some(family));
            assert!(native().split(", ").any(|told| told == family.model_type));
        }
        assert_eq!(of_model_type("Llama", |_| None), None);
    }

    #[test]
    fn experts_may_have_tensors_of_their_own_where_mlx_lm_stacks_them() {
        let may = NATIVE.into_iter().filter(|family| family.may_have_experts_apart());
        let told: Vec<_> = may.map(|family| (family.name, family.may_quantize_experts_apart())).collect();
        assert_eq!(
            told,
            [
                ("lfm2_moe", false),
                ("mixtral", true),
                ("qwen2_moe", true),
                ("qwen3_moe", false),
                ("olmoe", true),
                ("glm4_moe", true),
                ("solar_open", true),
                ("dots1", true),
                ("deepseek", true),
                ("exaone_moe", true),
                ("mellum", false),
                ("ernie4_5_moe", false),
                ("minimax", false),
                ("minimax_m2", false),
                ("phimoe", true),
                ("bailing_moe", true),
            ]
        );
    }
}
