//! Qwen.

use super::{
    ActivationRule, ConfigRules, Family, Flag, GateName, HeadDim, Intermediate, KvHeads, LLAMA, NormRule, QkNormRule,
    QkvNames, RopeRule, Sizes, Sliding, TensorNames, TextConfig, Theta, Tied,
    llama::{OTHER_PARTS, wrapped},
    rules::size_or,
};
use crate::checkpoint::architecture::Span;

/// Qwen 2 and 2.5: biases of queries, keys and values.
///
/// Of this family are Qwen 2 and 2.5, QwQ.
pub(crate) const QWEN2: Family = Family {
    name: "qwen2",
    model_type: "qwen2",
    config: ConfigRules {
        sizes: Sizes { head_dim: HeadDim::Shared, ..LLAMA.config.sizes },
        qkv_bias: Flag::Always,
        o_bias: Flag::Never,
        mlp_bias: Flag::Never,
        rope: RopeRule { theta: Theta::Key("rope_theta", 1_000_000.0), ..LLAMA.config.rope },
        sliding: Sliding::Never,
        ..LLAMA.config
    },
    ..LLAMA
};

/// Qwen 3: norms of each head, no biases.
///
/// Of this family is Qwen 3.
pub(crate) const QWEN3: Family = Family {
    name: "qwen3",
    model_type: "qwen3",
    config: ConfigRules {
        sizes: LLAMA.config.sizes,
        tied: Tied::Key(false),
        qkv_bias: Flag::Never,
        qk_norm: Some(QkNormRule { when: Flag::Always, span: Span::Head, after_rope: false }),
        rope: RopeRule { pairing_key: false, ..QWEN2.config.rope },
        ..QWEN2.config
    },
    ..LLAMA
};

pub(super) const TEXT: Option<TextConfig> = Some(TextConfig { key: "text_config", optional: true, model_type: None });

/// The language model of Qwen 2 VL.
///
/// Of this family is Qwen 2 VL.
pub(crate) const QWEN2_VL: Family = Family {
    name: "qwen2_vl",
    model_type: "qwen2_vl",
    text: TEXT,
    tensors: wrapped(LLAMA.tensors, OTHER_PARTS),
    ..QWEN2
};

/// The language model of Qwen 2.5 VL.
///
/// Of this family is Qwen 2.5 VL.
pub(crate) const QWEN2_5_VL: Family = Family { name: "qwen2_5_vl", model_type: "qwen2_5_vl", ..QWEN2_VL };

/// The language model of Qwen 3 VL.
///
/// Of this family is Qwen 3 VL.
pub(crate) const QWEN3_VL: Family = Family {
    name: "qwen3_vl",
    model_type: "qwen3_vl",
    text: TEXT,
    tensors: wrapped(LLAMA.tensors, OTHER_PARTS),
    ..QWEN3
};

/// The first Qwen: projections in one matrix, and an MLP whose `intermediate_size` counts both of its halves.
///
/// Of this family is Qwen 1.
pub(crate) const QWEN: Family = Family {
    name: "qwen",
    model_type: "qwen",
    config: ConfigRules {
        sizes: Sizes {
            vocab_size: size_or("vocab_size", 151_936),
            hidden_size: size_or("hidden_size", 2048),
            layers: size_or("num_hidden_layers", 24),
            heads: size_or("num_attention_heads", 16),
            kv_heads: KvHeads::AsHeads,
            head_dim: HeadDim::Key(size_or("kv_channels", 128)),
            intermediate: Intermediate::Half(size_or("intermediate_size", 11_008)),
            ..LLAMA.config.sizes
        },
        tied: Tied::Never,
        head_bias: Flag::Not("no_bias", false),
        qkv_bias: Flag::Always,
        o_bias: Flag::Not("no_bias", false),
        mlp_bias: Flag::Not("no_bias", false),
        norm: NormRule { eps: "layer_norm_epsilon", eps_default: Some(1e-6), ..LLAMA.config.norm },
        activation: ActivationRule { keys: &[], ..LLAMA.config.activation },
        rope: RopeRule { theta: Theta::Fixed(10_000.0), pairing_key: false, ..LLAMA.config.rope },
        sliding: Sliding::Never,
        ..LLAMA.config
    },
    tensors: TensorNames {
        embed_tokens: "transformer.wte",
        layers: "transformer.h",
        norm: "transformer.ln_f",
        attention_norm: Some("ln_1"),
        qkv: QkvNames::Joined("attn.c_attn"),
        o_proj: "attn.c_proj",
        mlp_norm: Some("ln_2"),
        gate: GateName::Apart("mlp.w2"),
        up_proj: "mlp.w1",
        down_proj: "mlp.c_proj",
        ..LLAMA.tensors
    },
    ..LLAMA
};
