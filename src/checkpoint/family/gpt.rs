//! Families with layer norms: GPT-2 and what came after it, Cohere.

use super::{
    ActivationRule, ConfigRules, Dropped, Family, Flag, GateName, HeadDim, Intermediate, KvHeads, LLAMA, LogitScale,
    NormRule, QkNormNames, QkNormRule, QkvNames, RopeLayers, RopeRule, Scales, ScalingRule, Sizes, Sliding,
    TensorNames, Theta, Tied,
    rules::{size, size_or},
};
use crate::checkpoint::architecture::{Activation, NormKind, Pairing, Span, Wiring};

/// GELU by all of its names: mlx-lm's classes compute one form whatever they are told.
const GELU: &[&str] = &["gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh"];

/// A layer norm with a bias.
const LAYER_NORM: NormRule =
    NormRule { kind: NormKind::Layer, eps: "layer_norm_eps", eps_default: None, one_plus: false, bias: Flag::Always };

/// GPT-2: learned positions, projections in one matrix.
///
/// Of this family is GPT-2.
pub(crate) const GPT2: Family = Family {
    name: "gpt2",
    model_type: "gpt2",
    config: ConfigRules {
        sizes: Sizes {
            hidden_size: size("n_embd"),
            layers: size("n_layer"),
            heads: size("n_head"),
            kv_heads: KvHeads::AsHeads,
            head_dim: HeadDim::Shared,
            intermediate: Intermediate::FourTimesHidden,
            ..LLAMA.config.sizes
        },
        tied: Tied::Always,
        learned_positions: Some("n_positions"),
        qkv_bias: Flag::Always,
        o_bias: Flag::Always,
        mlp_bias: Flag::Always,
        norm: NormRule { eps: "layer_norm_epsilon", ..LAYER_NORM },
        activation: ActivationRule { activation: Activation::GeluTanh, keys: &["activation_function"], names: GELU },
        rope: RopeRule { layers: RopeLayers::None, scaling: ScalingRule::None, ..LLAMA.config.rope },
        sliding: Sliding::Never,
        ..LLAMA.config
    },
    tensors: TensorNames {
        embed_tokens: "model.wte",
        embed_positions: "model.wpe",
        layers: "model.h",
        norm: "model.ln_f",
        attention_norm: Some("ln_1"),
        qkv: QkvNames::Joined("attn.c_attn"),
        o_proj: "attn.c_proj",
        mlp_norm: Some("ln_2"),
        gate: GateName::None,
        up_proj: "mlp.c_fc",
        down_proj: "mlp.c_proj",
        dropped: &[Dropped::Ending(".attn.bias")],
        ..LLAMA.tensors
    },
    ..LLAMA
};

/// GPT BigCode: GPT-2 with one key head.
///
/// Of this family are StarCoder 1, SantaCoder.
pub(crate) const GPT_BIGCODE: Family = Family {
    name: "gpt_bigcode",
    model_type: "gpt_bigcode",
    config: ConfigRules {
        sizes: Sizes {
            kv_heads: KvHeads::OneIf(Flag::Key("multi_query", true)),
            intermediate: Intermediate::Key(size("n_inner")),
            ..GPT2.config.sizes
        },
        tied: Tied::Key(true),
        qkv_bias: Flag::Key("attention_bias", true),
        o_bias: Flag::Key("attention_bias", true),
        mlp_bias: Flag::Key("mlp_bias", true),
        activation: ActivationRule { activation: Activation::Gelu, ..GPT2.config.activation },
        ..GPT2.config
    },
    tensors: TensorNames {
        embed_tokens: "transformer.wte",
        embed_positions: "transformer.wpe",
        layers: "transformer.h",
        norm: "transformer.ln_f",
        dropped: &[],
        ..GPT2.tensors
    },
    ..LLAMA
};

/// GPT-NeoX: parallel branches with a norm each, projections in one matrix by head.
///
/// Of this family are GPT-NeoX, Pythia.
pub(crate) const GPT_NEOX: Family = Family {
    name: "gpt_neox",
    model_type: "gpt_neox",
    config: ConfigRules {
        sizes: Sizes {
            kv_heads: KvHeads::AsHeads,
            head_dim: HeadDim::Shared,
            intermediate: Intermediate::FourTimesHidden,
            ..LLAMA.config.sizes
        },
        tied: Tied::Never,
        learned_positions: None,
        norm: LAYER_NORM,
        parallel: Flag::Key("use_parallel_residual", true),
        activation: ActivationRule { keys: &["hidden_act"], ..GPT2.config.activation },
        rope: RopeRule {
            theta: Theta::Key("rotary_emb_base", 10_000.0),
            partial: Some(("rotary_pct", 0.25)),
            pairing_key: false,
            scaling: ScalingRule::None,
            ..LLAMA.config.rope
        },
        ignored: &["attention_bias"],
        ..GPT2.config
    },
    tensors: TensorNames {
        embed_tokens: "model.embed_in",
        layers: "model.h",
        norm: "model.final_layer_norm",
        lm_head: "model.embed_out",
        qkv: QkvNames::ByKeyHead("attention.query_key_value"),
        o_proj: "attention.dense",
        gate: GateName::None,
        up_proj: "mlp.dense_h_to_4h",
        down_proj: "mlp.dense_4h_to_h",
        dropped: &[
            Dropped::Ending(".attention.bias"),
            Dropped::Ending(".attention.masked_bias"),
            Dropped::Ending(".attention.rotary_emb.inv_freq"),
        ],
        ..LLAMA.tensors
    },
    ..LLAMA
};

/// Phi-1 and Phi-2: parallel branches with one norm, and a bias of the head.
///
/// Of this family are Phi-1, Phi-1.5, Phi-2.
pub(crate) const PHI: Family = Family {
    name: "phi",
    model_type: "phi",
    config: ConfigRules {
        sizes: Sizes {
            vocab_size: size_or("vocab_size", 51_200),
            hidden_size: size_or("hidden_size", 2560),
            layers: size_or("num_hidden_layers", 32),
            heads: size_or("num_attention_heads", 32),
            head_dim: HeadDim::Shared,
            intermediate: Intermediate::Key(size_or("intermediate_size", 10_240)),
            ..LLAMA.config.sizes
        },
        head_bias: Flag::Always,
        norm: NormRule { eps_default: Some(1e-5), ..LAYER_NORM },
        parallel: Flag::Always,
        parallel_wiring: Wiring::ParallelOneNorm,
        rope: RopeRule {
            theta: Theta::Key("rope_theta", 10_000.0),
            partial: Some(("partial_rotary_factor", 0.4)),
            ..GPT_NEOX.config.rope
        },
        ignored: &[],
        ..GPT_NEOX.config
    },
    tensors: TensorNames {
        norm: "model.final_layernorm",
        o_proj: "self_attn.dense",
        mlp_norm: None,
        gate: GateName::None,
        up_proj: "mlp.fc1",
        down_proj: "mlp.fc2",
        ..LLAMA.tensors
    },
    ..LLAMA
};

/// StarCoder 2: biases everywhere, GELU as it is defined.
///
/// Of this family is StarCoder 2.
pub(crate) const STARCODER2: Family = Family {
    name: "starcoder2",
    model_type: "starcoder2",
    config: ConfigRules {
        sizes: Sizes { vocab_size: size_or("vocab_size", 49_152), head_dim: HeadDim::Shared, ..LLAMA.config.sizes },
        qkv_bias: Flag::Always,
        o_bias: Flag::Always,
        mlp_bias: Flag::Always,
        norm: NormRule { eps: "norm_epsilon", eps_default: Some(1e-5), ..LAYER_NORM },
        activation: ActivationRule { activation: Activation::Gelu, keys: &["hidden_act"], names: GELU },
        rope: RopeRule {
            theta: Theta::Key("rope_theta", 100_000.0),
            pairing_key: false,
            scaling: ScalingRule::None,
            ..LLAMA.config.rope
        },
        sliding: Sliding::Never,
        ignored: &["use_bias"],
        ..LLAMA.config
    },
    tensors: TensorNames { gate: GateName::None, up_proj: "mlp.c_fc", down_proj: "mlp.c_proj", ..LLAMA.tensors },
    ..LLAMA
};

/// StableLM: part of each head turned, norms of each head with weights of its own.
///
/// Of this family are StableLM 2, StableLM 3B, Stable Code.
pub(crate) const STABLELM: Family = Family {
    name: "stablelm",
    model_type: "stablelm",
    config: ConfigRules {
        sizes: Sizes { head_dim: HeadDim::Shared, ..LLAMA.config.sizes },
        tied: Tied::Never,
        qkv_bias: Flag::Key("use_qkv_bias", false),
        o_bias: Flag::Never,
        mlp_bias: Flag::Never,
        norm: LAYER_NORM,
        qk_norm: Some(QkNormRule { when: Flag::Key("qk_layernorm", false), span: Span::EachHead, after_rope: false }),
        parallel: Flag::Key("use_parallel_residual", false),
        parallel_wiring: Wiring::ParallelOneNorm,
        rope: RopeRule {
            partial: Some(("partial_rotary_factor", 0.25)),
            pairing_key: false,
            scaling: ScalingRule::None,
            ..LLAMA.config.rope
        },
        sliding: Sliding::Never,
        ..LLAMA.config
    },
    tensors: TensorNames {
        qk_norm: QkNormNames { q: "self_attn.q_layernorm", k: "self_attn.k_layernorm", heads: Some(".norms.") },
        ..LLAMA.tensors
    },
    ..LLAMA
};

/// Command R: parallel branches with one norm, neighbouring columns turned, logits multiplied.
///
/// Of this family are Command R, Aya 23.
pub(crate) const COHERE: Family = Family {
    name: "cohere",
    model_type: "cohere",
    config: ConfigRules {
        sizes: Sizes {
            vocab_size: size_or("vocab_size", 256_000),
            hidden_size: size_or("hidden_size", 8192),
            layers: size_or("num_hidden_layers", 40),
            heads: size_or("num_attention_heads", 64),
            kv_heads: KvHeads::Key(size_or("num_key_value_heads", 64)),
            head_dim: HeadDim::Shared,
            intermediate: Intermediate::Key(size_or("intermediate_size", 22_528)),
            ..LLAMA.config.sizes
        },
        tied: Tied::Always,
        mlp_bias: Flag::Never,
        norm: NormRule { eps_default: Some(1e-5), bias: Flag::Key("layer_norm_bias", false), ..LAYER_NORM },
        qk_norm: Some(QkNormRule { when: Flag::Key("use_qk_norm", false), span: Span::EachHead, after_rope: false }),
        parallel: Flag::Always,
        parallel_wiring: Wiring::ParallelOneNorm,
        rope: RopeRule {
            theta: Theta::Key("rope_theta", 8_000_000.0),
            pairing: Pairing::Neighbours,
            pairing_key: false,
            scaling: ScalingRule::None,
            ..LLAMA.config.rope
        },
        sliding: Sliding::Never,
        scales: Scales { logits: LogitScale::Key("logit_scale", 0.0625), ..LLAMA.config.scales },
        ..LLAMA.config
    },
    tensors: TensorNames { mlp_norm: None, ..LLAMA.tensors },
    ..LLAMA
};

/// Command R7B and A: most layers see a window, and the others have no rotary embedding.
///
/// Of this family are Command R7B, Command A.
pub(crate) const COHERE2: Family = Family {
    name: "cohere2",
    model_type: "cohere2",
    config: ConfigRules {
        sizes: Sizes {
            hidden_size: size_or("hidden_size", 4096),
            layers: size_or("num_hidden_layers", 32),
            heads: size_or("num_attention_heads", 32),
            kv_heads: KvHeads::Key(size_or("num_key_value_heads", 8)),
            head_dim: HeadDim::Key(size_or("head_dim", 128)),
            intermediate: Intermediate::Key(size_or("intermediate_size", 14_336)),
            ..COHERE.config.sizes
        },
        qk_norm: None,
        rope: RopeRule { layers: RopeLayers::Sliding, theta: Theta::Key("rope_theta", 50_000.0), ..COHERE.config.rope },
        sliding: Sliding::Every {
            every: size_or("sliding_window_pattern", 4),
            window: size_or("sliding_window", 4096),
        },
        ignored: &["layer_types"],
        ..COHERE.config
    },
    ..COHERE
};
