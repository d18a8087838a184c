//! Gemma.

use super::{
    ActivationRule, AttentionScale, ConfigRules, EmbeddingScale, ExpertNames, ExpertsRule, Family, Flag,
    FullLayersRule, HeadDim, Intermediate, KvHeads, LLAMA, NormRule, QkNormRule, RopeRule, RouterRule, Scales,
    ScalingRule, ScoreRule, SharedRule, SharedWidth, Sizes, Sliding, SlidingRope, TensorNames, TextConfig, Theta, Tied,
    llama::{OTHER_PARTS, wrapped},
    mixtures::{EXPERTS, ROUTER},
    rules::{size, size_or},
};
use crate::checkpoint::architecture::{Activation, Span};

const GELU: &[&str] = &["gelu", "gelu_pytorch_tanh"];

/// Gemma 1: embeddings are multiplied, norms' weights are stored less 1, GELU.
///
/// Of this family is Gemma 1.
pub(crate) const GEMMA: Family = Family {
    name: "gemma",
    model_type: "gemma",
    config: ConfigRules {
        tied: Tied::Always,
        qkv_bias: Flag::Never,
        o_bias: Flag::Never,
        mlp_bias: Flag::Never,
        norm: NormRule { one_plus: true, ..LLAMA.config.norm },
        activation: ActivationRule { activation: Activation::Gelu, keys: &["hidden_activation"], names: GELU },
        rope: RopeRule { scaling: ScalingRule::None, ..LLAMA.config.rope },
        sliding: Sliding::Never,
        scales: Scales { embedding: EmbeddingScale::SqrtHidden, ..LLAMA.config.scales },
        ..LLAMA.config
    },
    ..LLAMA
};

/// Gemma 2: norms of outputs, scores and logits are bounded. mlx-lm has every layer attend to all positions.
///
/// Of this family is Gemma 2.
pub(crate) const GEMMA2: Family = Family {
    name: "gemma2",
    model_type: "gemma2",
    config: ConfigRules {
        activation: ActivationRule { activation: Activation::GeluTanh, ..GEMMA.config.activation },
        scales: Scales {
            attention: AttentionScale::InverseSqrt("query_pre_attn_scalar", 144.0),
            ..GEMMA.config.scales
        },
        attention_softcap: Some(("attn_logit_softcapping", 50.0)),
        logit_softcap: Some(("final_logit_softcapping", 30.0)),
        ignored: &["layer_types"],
        ..GEMMA.config
    },
    tensors: TensorNames {
        attention_output_norm: Some("post_attention_layernorm"),
        mlp_norm: Some("pre_feedforward_layernorm"),
        mlp_output_norm: Some("post_feedforward_layernorm"),
        ..LLAMA.tensors
    },
    ..GEMMA
};

/// Gemma 3: norms of each head, and most layers see a window by a rotary embedding of their own.
///
/// Of this family are Gemma 3 270M and 1B.
pub(crate) const GEMMA3_TEXT: Family = Family {
    name: "gemma3_text",
    model_type: "gemma3_text",
    config: ConfigRules {
        sizes: Sizes {
            vocab_size: size_or("vocab_size", 262_144),
            hidden_size: size_or("hidden_size", 1152),
            layers: size_or("num_hidden_layers", 26),
            heads: size_or("num_attention_heads", 4),
            kv_heads: KvHeads::Key(size_or("num_key_value_heads", 1)),
            head_dim: HeadDim::Key(size_or("head_dim", 256)),
            intermediate: Intermediate::Key(size_or("intermediate_size", 6912)),
            vocab_at_top: false,
        },
        tied: Tied::WithoutHead,
        norm: NormRule { eps_default: Some(1e-6), ..GEMMA.config.norm },
        qk_norm: Some(QkNormRule { when: Flag::Always, span: Span::Head, after_rope: false }),
        rope: RopeRule {
            theta: Theta::Key("rope_theta", 1_000_000.0),
            pairing_key: false,
            scaling: ScalingRule::Any,
            sliding: SlidingRope::Theta("rope_local_base_freq", 10_000.0),
            ..GEMMA.config.rope
        },
        sliding: Sliding::Every { every: size_or("sliding_window_pattern", 6), window: size_or("sliding_window", 512) },
        scales: Scales {
            embedding: EmbeddingScale::SqrtHiddenRounded,
            attention: AttentionScale::InverseSqrt("query_pre_attn_scalar", 256.0),
            ..GEMMA.config.scales
        },
        attention_softcap: None,
        logit_softcap: None,
        ..GEMMA2.config
    },
    ..GEMMA2
};

/// Gemma 3 with its vision part.
///
/// Of this family are Gemma 3 4B, 12B and 27B.
pub(crate) const GEMMA3: Family = Family {
    name: "gemma3",
    model_type: "gemma3",
    text: Some(TextConfig { key: "text_config", optional: false, model_type: None }),
    config: ConfigRules {
        sizes: Sizes {
            heads: size_or("num_attention_heads", 8),
            kv_heads: KvHeads::Key(size_or("num_key_value_heads", 4)),
            vocab_at_top: true,
            ..GEMMA3_TEXT.config.sizes
        },
        ..GEMMA3_TEXT.config
    },
    tensors: wrapped(GEMMA2.tensors, OTHER_PARTS),
};

/// Gemma 4: heads of another width in layers without a window, values normalized, keys and values shared among layers, and something of
/// each token for each layer.
///
/// Of this family is the text part of Gemma 4.
pub(crate) const GEMMA4_TEXT: Family = Family {
    name: "gemma4_text",
    model_type: "gemma4_text",
    config: ConfigRules {
        sizes: Sizes {
            hidden_size: size_or("hidden_size", 1536),
            layers: size_or("num_hidden_layers", 35),
            heads: size_or("num_attention_heads", 8),
            intermediate: Intermediate::Key(size_or("intermediate_size", 6144)),
            ..GEMMA3_TEXT.config.sizes
        },
        tied: Tied::Key(true),
        norm: NormRule { one_plus: false, ..GEMMA3_TEXT.config.norm },
        rope: RopeRule {
            by_layer_type: true,
            pairing_key: true,
            sliding: SlidingRope::Same,
            ..GEMMA3_TEXT.config.rope
        },
        sliding: Sliding::LayerTypes { key: Some("sliding_window_pattern"), every: Some(5) },
        scales: Scales {
            embedding: EmbeddingScale::SqrtHidden,
            attention: AttentionScale::One,
            ..GEMMA3_TEXT.config.scales
        },
        logit_softcap: Some(("final_logit_softcapping", 30.0)),
        full_layers: Some(FullLayersRule {
            head_dim: size_or("global_head_dim", 512),
            keys_serve: Flag::Key("attention_k_eq_v", false),
            kv_heads: "num_global_key_value_heads",
        }),
        borrowing_layers: Some(size_or("num_kv_shared_layers", 20)),
        borrowing_doubles: Flag::Key("use_double_wide_mlp", true),
        value_norm: true,
        experts: Some(ExpertsRule {
            when: Flag::Key("enable_moe_block", false),
            chosen: size("top_k_experts"),
            router: RouterRule { score: ScoreRule::SoftmaxOfChosen, expert_scale: true, ..ROUTER },
            shared: Some(SharedRule { when: Flag::Always, width: SharedWidth::Mlp, gate: false }),
            norms: true,
            ..EXPERTS
        }),
        token_inputs: Some([
            size_or("hidden_size_per_layer_input", 256),
            size_or("vocab_size_per_layer_input", 262_144),
        ]),
        output_scale: true,
        ignored: &[],
        ..GEMMA3_TEXT.config
    },
    tensors: NAMES_OF_GEMMA4,
    ..GEMMA3_TEXT
};

const NAMES_OF_GEMMA4: TensorNames = TensorNames {
    experts: ExpertNames {
        router: "router.proj",
        experts: "experts.switch_glu",
        shared: "mlp",
        ..LLAMA.tensors.experts
    },
    ..GEMMA2.tensors
};

/// Gemma 4 with its other parts.
///
/// Of this family are Gemma 4 E2B, E4B, 26B-A4B and 31B.
pub(crate) const GEMMA4: Family = Family {
    name: "gemma4",
    model_type: "gemma4",
    text: Some(TextConfig { key: "text_config", optional: false, model_type: None }),
    config: ConfigRules { sizes: Sizes { vocab_at_top: true, ..GEMMA4_TEXT.config.sizes }, ..GEMMA4_TEXT.config },
    tensors: wrapped(NAMES_OF_GEMMA4, OTHER_PARTS),
};
