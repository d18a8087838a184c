//! Qwen's models most of whose layers are gated DeltaNets.

use super::{
    AttentionLayers, ConfigRules, DeltaNetNames, DeltaProjectionNames, Dropped, ExpertNames, ExpertsRule, Family, Flag,
    Intermediate, KvHeads, LLAMA, MixerRule, NormRule, OtherMixers, QWEN3, QWEN3_MOE, RopeRule, RouterRule, Sizes,
    TensorNames, Theta,
    llama::wrapped,
    mixtures::{EXPERTS, ROUTER, SHARED_WITH_A_GATE},
    qwen::TEXT,
    rules::{size, size_or},
};

/// Qwen 3.5: most layers are gated DeltaNets, the others attention with gates of its outputs. Its vision part is left out.
///
/// Of this family are Qwen 3.5, Qwen 3.6.
pub(crate) const QWEN3_5: Family = Family {
    name: "qwen3_5",
    model_type: "qwen3_5",
    text: TEXT,
    config: ConfigRules {
        sizes: Sizes {
            vocab_size: size_or("vocab_size", 151_936),
            hidden_size: size_or("hidden_size", 4096),
            layers: size_or("num_hidden_layers", 32),
            heads: size_or("num_attention_heads", 32),
            kv_heads: KvHeads::Key(size_or("num_key_value_heads", 8)),
            intermediate: Intermediate::Key(size_or("intermediate_size", 14_336)),
            ..LLAMA.config.sizes
        },
        qkv_bias: Flag::Key("attention_bias", false),
        o_bias: Flag::Key("attention_bias", false),
        gated: true,
        other_mixers: Some(OtherMixers {
            attention: AttentionLayers::Every(size_or("full_attention_interval", 4)),
            mixer: MixerRule::DeltaNet {
                key_heads: size_or("linear_num_key_heads", 16),
                value_heads: size_or("linear_num_value_heads", 64),
                key_dim: size_or("linear_key_head_dim", 192),
                value_dim: size_or("linear_value_head_dim", 128),
                taps: size_or("linear_conv_kernel_dim", 4),
            },
        }),
        norm: NormRule { eps_default: Some(1e-6), ..LLAMA.config.norm },
        rope: RopeRule {
            theta: Theta::Key("rope_theta", 100_000.0),
            partial: Some(("partial_rotary_factor", 0.25)),
            ..QWEN3.config.rope
        },
        ignored: &["attn_output_gate", "layer_types"],
        ..QWEN3.config
    },
    tensors: wrapped(LLAMA.tensors, OTHER_PARTS_OF_3_5),
};

/// Its other parts, and the layers that predict further ahead.
const OTHER_PARTS_OF_3_5: &[Dropped] =
    &[Dropped::Beginning("vision_tower"), Dropped::Beginning("model.visual"), Dropped::Containing("mtp.")];

/// Qwen 3.5 with experts in all layers.
///
/// Of this family are Qwen 3.5 and 3.6 with experts.
pub(crate) const QWEN3_5_MOE: Family = Family {
    name: "qwen3_5_moe",
    model_type: "qwen3_5_moe",
    config: ConfigRules {
        experts: Some(ExpertsRule {
            router: RouterRule { divided: Flag::Key("norm_topk_prob", true), ..ROUTER },
            shared: Some(SHARED_WITH_A_GATE),
            ..EXPERTS
        }),
        ..QWEN3_5.config
    },
    tensors: TensorNames { experts: WITH_SHARED_EXPERT, ..QWEN3_5.tensors },
    ..QWEN3_5
};

/// Qwen 3 Next: what became Qwen 3.5, with projections by key head.
///
/// Of this family is Qwen 3 Next.
pub(crate) const QWEN3_NEXT: Family = Family {
    name: "qwen3_next",
    model_type: "qwen3_next",
    config: ConfigRules {
        sizes: LLAMA.config.sizes,
        other_mixers: Some(OtherMixers {
            attention: AttentionLayers::Every(size_or("full_attention_interval", 4)),
            mixer: MixerRule::DeltaNet {
                key_heads: size("linear_num_key_heads"),
                value_heads: size("linear_num_value_heads"),
                key_dim: size("linear_key_head_dim"),
                value_dim: size("linear_value_head_dim"),
                taps: size("linear_conv_kernel_dim"),
            },
        }),
        experts: match QWEN3_MOE.config.experts {
            Some(rule) => Some(ExpertsRule { shared: Some(SHARED_WITH_A_GATE), ..rule }),
            None => None,
        },
        norm: LLAMA.config.norm,
        rope: RopeRule { theta: Theta::Key("rope_theta", 10_000_000.0), ..QWEN3_5.config.rope },
        ..QWEN3_5.config
    },
    tensors: TensorNames {
        delta_net: DeltaNetNames {
            projections: DeltaProjectionNames::ByKeyHead {
                qkvz: "linear_attn.in_proj_qkvz",
                ba: "linear_attn.in_proj_ba",
            },
            ..LLAMA.tensors.delta_net
        },
        experts: WITH_SHARED_EXPERT,
        dropped: &[Dropped::Containing("mtp.")],
        ..LLAMA.tensors
    },
    ..LLAMA
};

/// Names of experts with one that all positions share.
const WITH_SHARED_EXPERT: ExpertNames = ExpertNames { shared: "mlp.shared_expert", ..LLAMA.tensors.experts };
