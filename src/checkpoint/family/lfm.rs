//! LFM.

use super::{
    ApartNames, AttentionLayers, ConfigRules, ExpertLayers, ExpertNames, ExpertsRule, Family, Flag, GateName, HeadDim,
    Intermediate, LLAMA, MixerRule, NormRule, OtherMixers, PROJECTIONS, QkNormNames, QkNormRule, Renamed, RopeRule,
    RouterRule, ScalingRule, ScoreRule, Sizes, Sliding, TensorNames, Theta, Tied,
    mixtures::{EXPERTS, ROUTER},
    rules::size,
};
use crate::checkpoint::architecture::{Divisor, Span};

/// LFM 2: most layers are short convolutions.
///
/// Of this family is LFM 2.
pub(crate) const LFM2: Family = Family {
    name: "lfm2",
    model_type: "lfm2",
    config: ConfigRules {
        sizes: Sizes {
            head_dim: HeadDim::Shared,
            intermediate: Intermediate::Adjusted {
                keys: ["block_ff_dim", "intermediate_size"],
                adjust: "block_auto_adjust_ff_dim",
                factor: "block_ffn_dim_multiplier",
                multiple: "block_multiple_of",
            },
            ..LLAMA.config.sizes
        },
        tied: Tied::Always,
        qkv_bias: Flag::Never,
        o_bias: Flag::Never,
        other_mixers: Some(OtherMixers {
            attention: AttentionLayers::Listed("full_attn_idxs", "conv"),
            mixer: MixerRule::ShortConvolution { taps: size("conv_L_cache"), bias: Flag::Key("conv_bias", false) },
        }),
        mlp_bias: Flag::Never,
        norm: NormRule { eps: "norm_eps", ..LLAMA.config.norm },
        qk_norm: Some(QkNormRule { when: Flag::Always, span: Span::Head, after_rope: false }),
        rope: RopeRule {
            theta: Theta::Key("rope_theta", 1_000_000.0),
            pairing_key: false,
            scaling: ScalingRule::None,
            ..LLAMA.config.rope
        },
        sliding: Sliding::Never,
        ..LLAMA.config
    },
    tensors: TensorNames {
        norm: "model.embedding_norm",
        attention_norm: Some("operator_norm"),
        qk_norm: QkNormNames { q: "self_attn.q_layernorm", k: "self_attn.k_layernorm", heads: None },
        o_proj: "self_attn.out_proj",
        mlp_norm: Some("ffn_norm"),
        gate: GateName::Apart("feed_forward.w1"),
        up_proj: "feed_forward.w3",
        down_proj: "feed_forward.w2",
        ..LLAMA.tensors
    },
    ..LLAMA
};

/// LFM 2 with experts in all layers but the first ones.
///
/// Of this family is LFM 2 with experts.
pub(crate) const LFM2_MOE: Family = Family {
    name: "lfm2_moe",
    model_type: "lfm2_moe",
    config: ConfigRules {
        sizes: Sizes { intermediate: LLAMA.config.sizes.intermediate, ..LFM2.config.sizes },
        experts: Some(ExpertsRule {
            layers: ExpertLayers::Where { every: None, from: Some(size("num_dense_layers")), to: None, except: None },
            router: RouterRule {
                score: ScoreRule::Sigmoid,
                choice_bias: Flag::Key("use_expert_bias", false),
                divided: Flag::Key("norm_topk_prob", false),
                divisor: Divisor::SumAnd(1e-6),
                scale: Some(("routed_scaling_factor", 1.0)),
                ..ROUTER
            },
            ..EXPERTS
        }),
        ..LFM2.config
    },
    tensors: TensorNames {
        gate: GateName::Apart("feed_forward.gate_proj"),
        up_proj: "feed_forward.up_proj",
        down_proj: "feed_forward.down_proj",
        experts: ExpertNames {
            router: "feed_forward.gate",
            choice_bias: "feed_forward.expert_bias",
            experts: "feed_forward.switch_mlp",
            apart: Some(ApartNames { module: "feed_forward.experts", projections: PROJECTIONS, quantized: false }),
            ..LLAMA.tensors.experts
        },
        renamed: &[
            Renamed { from: ".w1.weight", to: ".gate_proj.weight" },
            Renamed { from: ".w2.weight", to: ".down_proj.weight" },
            Renamed { from: ".w3.weight", to: ".up_proj.weight" },
        ],
        ..LFM2.tensors
    },
    ..LFM2
};
