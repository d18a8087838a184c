//! Llama, what mlx-lm runs by the same class (`models/llama.py`), and families that differ from it in little.

use super::{
    ActivationRule, AttentionScale, ConfigRules, DeltaNetNames, DeltaProjectionNames, Dropped, EmbeddingScale,
    ExpertNames, Family, Flag, GateName, HeadDim, Intermediate, KvHeads, LogitScale, NormRule, QkNormNames, QkNormRule,
    QkvNames, ResidualScale, RopeLayers, RopeRule, Scales, ScalingRule, ShortConvolutionNames, Sizes, Sliding,
    SlidingRope, TensorNames, TextConfig, Theta, Tied, TokenInputNames, rules::size,
};
use crate::checkpoint::architecture::{Activation, NormKind, Pairing, Span, Wiring};

/// Llama: the entry that others differ from.
///
/// Of this family are Llama 2 and 3, SmolLM2, TinyLlama.
pub(crate) const LLAMA: Family = Family {
    name: "llama",
    model_type: "llama",
    text: None,
    config: ConfigRules {
        sizes: Sizes {
            vocab_size: size("vocab_size"),
            vocab_at_top: false,
            hidden_size: size("hidden_size"),
            layers: size("num_hidden_layers"),
            heads: size("num_attention_heads"),
            kv_heads: KvHeads::Key(size("num_key_value_heads")),
            head_dim: HeadDim::Key(size("head_dim")),
            intermediate: Intermediate::Key(size("intermediate_size")),
        },
        tied: Tied::Key(true),
        head_bias: Flag::Never,
        learned_positions: None,
        qkv_bias: Flag::Key("attention_bias", false),
        o_bias: Flag::Key("attention_bias", false),
        gated: false,
        other_mixers: None,
        mlp_bias: Flag::Key("mlp_bias", false),
        experts: None,
        sinks: false,
        norm: NormRule {
            kind: NormKind::Rms,
            eps: "rms_norm_eps",
            eps_default: None,
            one_plus: false,
            bias: Flag::Never,
        },
        qk_norm: None,
        parallel_wiring: Wiring::Parallel,
        parallel: Flag::Never,
        activation: ActivationRule { activation: Activation::Silu, keys: &["hidden_act"], names: &["silu"] },
        rope: RopeRule {
            layers: RopeLayers::All,
            theta: Theta::Key("rope_theta", 10_000.0),
            partial: None,
            columns: None,
            pairing: Pairing::Halves,
            pairing_key: true,
            scaling: ScalingRule::Any,
            sliding: SlidingRope::Same,
            by_layer_type: false,
            query_growth: None,
        },
        sliding: Sliding::LayerTypes { key: None, every: None },
        scales: Scales {
            embedding: EmbeddingScale::None,
            attention: AttentionScale::HeadDim,
            residual: ResidualScale::None,
            logits: LogitScale::None,
        },
        attention_softcap: None,
        logit_softcap: None,
        full_layers: None,
        borrowing_layers: None,
        borrowing_doubles: Flag::Never,
        value_norm: false,
        token_inputs: None,
        output_scale: false,
        ignored: &[],
    },
    tensors: TensorNames {
        embed_tokens: "model.embed_tokens",
        embed_positions: "model.embed_positions",
        layers: "model.layers",
        norm: "model.norm",
        lm_head: "lm_head",
        attention_norm: Some("input_layernorm"),
        qkv: QkvNames::Apart { q: "self_attn.q_proj", k: "self_attn.k_proj", v: "self_attn.v_proj" },
        qk_norm: QkNormNames { q: "self_attn.q_norm", k: "self_attn.k_norm", heads: None },
        o_proj: "self_attn.o_proj",
        short_convolution: ShortConvolutionNames {
            in_proj: "conv.in_proj",
            convolution: "conv.conv",
            out_proj: "conv.out_proj",
        },
        delta_net: DeltaNetNames {
            projections: DeltaProjectionNames::Apart {
                qkv: "linear_attn.in_proj_qkv",
                z: "linear_attn.in_proj_z",
                b: "linear_attn.in_proj_b",
                a: "linear_attn.in_proj_a",
            },
            convolution: "linear_attn.conv1d",
            a_log: "linear_attn.A_log",
            dt_bias: "linear_attn.dt_bias",
            norm: "linear_attn.norm",
            out_proj: "linear_attn.out_proj",
        },
        attention_output_norm: None,
        mlp_norm: Some("post_attention_layernorm"),
        gate: GateName::Apart("mlp.gate_proj"),
        up_proj: "mlp.up_proj",
        down_proj: "mlp.down_proj",
        activation: "mlp.act_fn",
        experts: ExpertNames {
            router: "mlp.gate",
            choice_bias: "mlp.gate.e_score_correction_bias",
            expert_scale: "router.per_expert_scale",
            experts: "mlp.switch_mlp",
            apart: None,
            shared: "mlp.shared_experts",
            shared_gate: "mlp.shared_expert_gate",
            router_norm: "router.scale",
            input_norm: "pre_feedforward_layernorm_2",
            output_norm: "post_feedforward_layernorm_2",
            shared_output_norm: "post_feedforward_layernorm_1",
        },
        mlp_output_norm: None,
        token_inputs: TokenInputNames {
            embedding: "model.embed_tokens_per_layer",
            projection: "model.per_layer_model_projection",
            norm: "model.per_layer_projection_norm",
            gate: "per_layer_input_gate",
            output: "per_layer_projection",
            output_norm: "post_per_layer_input_norm",
        },
        output_scale: "layer_scalar",
        dropped: &[Dropped::Ending(".self_attn.rotary_emb.inv_freq")],
        renamed: &[],
    },
};

/// Llama's rules without biases, and with a shared-out head.
const PLAIN: ConfigRules = ConfigRules {
    sizes: Sizes { head_dim: HeadDim::Shared, ..LLAMA.config.sizes },
    qkv_bias: Flag::Never,
    o_bias: Flag::Never,
    mlp_bias: Flag::Never,
    ..LLAMA.config
};

/// Names in the files of a model of several parts, whose language model is one of them.
pub(super) const fn wrapped(names: TensorNames, dropped: &'static [Dropped]) -> TensorNames {
    TensorNames {
        embed_tokens: "language_model.model.embed_tokens",
        layers: "language_model.model.layers",
        norm: "language_model.model.norm",
        lm_head: "language_model.lm_head",
        token_inputs: TokenInputNames {
            embedding: "language_model.model.embed_tokens_per_layer",
            projection: "language_model.model.per_layer_model_projection",
            norm: "language_model.model.per_layer_projection_norm",
            ..names.token_inputs
        },
        dropped,
        ..names
    }
}

/// Tensors of the other parts.
pub(super) const OTHER_PARTS: &[Dropped] = &[
    Dropped::Beginning("vision_tower."),
    Dropped::Beginning("multi_modal_projector."),
    Dropped::Beginning("visual."),
    Dropped::Ending(".self_attn.rotary_emb.inv_freq"),
];

/// Mistral 7B and Nemo, a Llama under another name. Its `sliding_window` alone changes nothing in mlx-lm, nor here: every layer
/// attends to all positions.
///
/// Of this family are Mistral 7B, Mistral Nemo.
pub(crate) const MISTRAL: Family = Family { name: "mistral", model_type: "mistral", ..LLAMA };

/// Mistral Small 3 with its vision part, whose language model is a Llama.
///
/// Of this family is Mistral Small 3.1.
pub(crate) const MISTRAL3: Family = Family {
    name: "mistral3",
    model_type: "mistral3",
    text: Some(TextConfig { key: "text_config", optional: false, model_type: None }),
    config: ConfigRules { tied: Tied::Key(false), ..LLAMA.config },
    tensors: wrapped(LLAMA.tensors, OTHER_PARTS),
};

/// Ministral 3: queries grow with their positions.
///
/// Of this family is Ministral 3.
pub(crate) const MINISTRAL3: Family = Family {
    name: "ministral3",
    model_type: "ministral3",
    config: ConfigRules {
        qkv_bias: Flag::Never,
        o_bias: Flag::Never,
        mlp_bias: Flag::Never,
        rope: RopeRule { pairing_key: false, query_growth: Some("llama_4_scaling_beta"), ..LLAMA.config.rope },
        ..LLAMA.config
    },
    ..LLAMA
};

/// Ministral 3 with its vision part.
pub(crate) const MISTRAL3_OF_MINISTRAL3: Family = Family {
    name: "mistral3 of ministral3",
    model_type: "mistral3",
    text: Some(TextConfig { key: "text_config", optional: false, model_type: Some("ministral3") }),
    config: ConfigRules { tied: Tied::Key(false), ..MINISTRAL3.config },
    tensors: wrapped(LLAMA.tensors, OTHER_PARTS),
};

/// SmolLM3: some layers have no rotary embedding.
///
/// Of this family is SmolLM3.
pub(crate) const SMOLLM3: Family = Family {
    name: "smollm3",
    model_type: "smollm3",
    config: ConfigRules {
        rope: RopeRule {
            layers: RopeLayers::Listed("no_rope_layers", "no_rope_layer_interval", 4),
            ..LLAMA.config.rope
        },
        ..LLAMA.config
    },
    ..LLAMA
};

/// Granite: embeddings, scores, branches and logits are multiplied.
///
/// Of this family is Granite 3.
pub(crate) const GRANITE: Family = Family {
    name: "granite",
    model_type: "granite",
    config: ConfigRules {
        sizes: PLAIN.sizes,
        scales: Scales {
            embedding: EmbeddingScale::Key("embedding_multiplier"),
            attention: AttentionScale::Key("attention_multiplier"),
            residual: ResidualScale::Key("residual_multiplier"),
            logits: LogitScale::Inverse("logits_scaling"),
        },
        ..LLAMA.config
    },
    ..LLAMA
};

/// MiniCPM: the same, by other keys.
///
/// Of this family are MiniCPM 1 and 2.
pub(crate) const MINICPM: Family = Family {
    name: "minicpm",
    model_type: "minicpm",
    config: ConfigRules {
        tied: Tied::Key(false),
        rope: RopeRule { theta: Theta::Key("rope_theta", 1_000_000.0), ..LLAMA.config.rope },
        scales: Scales {
            embedding: EmbeddingScale::Key("scale_emb"),
            residual: ResidualScale::OverSqrtLayers("scale_depth"),
            logits: LogitScale::OverHidden("dim_model_base"),
            ..LLAMA.config.scales
        },
        ..PLAIN
    },
    ..LLAMA
};

/// OLMo 2: norms of outputs instead of inputs, and of all queries and keys together.
///
/// Of this family is OLMo 2.
pub(crate) const OLMO2: Family = Family {
    name: "olmo2",
    model_type: "olmo2",
    config: ConfigRules {
        qk_norm: Some(QkNormRule { when: Flag::Always, span: Span::All, after_rope: false }),
        sliding: Sliding::Never,
        ..LLAMA.config
    },
    tensors: TensorNames {
        attention_norm: None,
        attention_output_norm: Some("post_attention_layernorm"),
        mlp_norm: None,
        mlp_output_norm: Some("post_feedforward_layernorm"),
        ..LLAMA.tensors
    },
    ..LLAMA
};

/// OLMo 3: OLMo 2 of which most layers see a window.
///
/// Of this family is OLMo 3.
pub(crate) const OLMO3: Family = Family {
    name: "olmo3",
    model_type: "olmo3",
    config: ConfigRules {
        tied: Tied::Key(false),
        mlp_bias: Flag::Never,
        rope: RopeRule { pairing_key: false, sliding: SlidingRope::Unscaled, ..LLAMA.config.rope },
        sliding: Sliding::LayerTypes { key: None, every: Some(4) },
        ..OLMO2.config
    },
    ..OLMO2
};

/// EXAONE 3: a Llama by other names.
///
/// Of this family are EXAONE 3 and 3.5, EXAONE Deep.
pub(crate) const EXAONE: Family = Family {
    name: "exaone",
    model_type: "exaone",
    config: ConfigRules {
        sizes: Sizes { layers: size("num_layers"), ..LLAMA.config.sizes },
        norm: NormRule { eps: "layer_norm_epsilon", ..LLAMA.config.norm },
        activation: ActivationRule { keys: &["activation_function"], ..LLAMA.config.activation },
        sliding: Sliding::Never,
        ..LLAMA.config
    },
    tensors: TensorNames {
        embed_tokens: "transformer.wte",
        layers: "transformer.h",
        norm: "transformer.ln_f",
        attention_norm: Some("ln_1"),
        qkv: QkvNames::Apart { q: "attn.attention.q_proj", k: "attn.attention.k_proj", v: "attn.attention.v_proj" },
        o_proj: "attn.attention.out_proj",
        mlp_norm: Some("ln_2"),
        gate: GateName::Apart("mlp.c_fc_0"),
        up_proj: "mlp.c_fc_1",
        down_proj: "mlp.c_proj",
        ..LLAMA.tensors
    },
    ..LLAMA
};

/// EXAONE 4: norms of outputs, and of each head; layers without a window have no rotary embedding where others have one.
///
/// Of this family is EXAONE 4.
pub(crate) const EXAONE4: Family = Family {
    name: "exaone4",
    model_type: "exaone4",
    config: ConfigRules {
        sizes: LLAMA.config.sizes,
        tied: Tied::Key(false),
        qk_norm: Some(QkNormRule { when: Flag::Always, span: Span::Head, after_rope: false }),
        rope: RopeRule { layers: RopeLayers::Sliding, pairing_key: false, ..LLAMA.config.rope },
        sliding: Sliding::Letters { key: "sliding_window_pattern" },
        ignored: &["layer_types"],
        ..PLAIN
    },
    tensors: OLMO2.tensors,
    ..LLAMA
};

/// GLM-4 of 2025: norms of inputs and outputs, gate and up in one matrix, half of each head turned.
///
/// Of this family are GLM-4-0414, GLM-Z1.
pub(crate) const GLM4: Family = Family {
    name: "glm4",
    model_type: "glm4",
    config: ConfigRules {
        tied: Tied::Never,
        o_bias: Flag::Never,
        mlp_bias: Flag::Never,
        rope: RopeRule {
            partial: Some(("partial_rotary_factor", 0.5)),
            pairing: Pairing::Neighbours,
            scaling: ScalingRule::None,
            ..LLAMA.config.rope
        },
        sliding: Sliding::Never,
        ..LLAMA.config
    },
    tensors: TensorNames {
        attention_output_norm: Some("post_self_attn_layernorm"),
        mlp_output_norm: Some("post_mlp_layernorm"),
        gate: GateName::Joined,
        up_proj: "mlp.gate_up_proj",
        ..LLAMA.tensors
    },
    ..LLAMA
};

/// GLM-4 of 2024. mlx-lm turns whole heads, whatever `partial_rotary_factor` says.
///
/// Of this family are GLM-4-9B, GLM-Edge.
pub(crate) const GLM: Family = Family {
    name: "glm",
    model_type: "glm",
    config: ConfigRules {
        tied: Tied::Key(true),
        rope: RopeRule { partial: None, pairing_key: false, ..GLM4.config.rope },
        ignored: &["partial_rotary_factor"],
        ..GLM4.config
    },
    tensors: TensorNames { attention_output_norm: None, mlp_output_norm: None, ..GLM4.tensors },
    ..LLAMA
};

/// ERNIE 4.5: neighbouring columns are turned.
///
/// Of this family is ERNIE 4.5 0.3B.
pub(crate) const ERNIE4_5: Family = Family {
    name: "ernie4_5",
    model_type: "ernie4_5",
    config: ConfigRules {
        tied: Tied::Key(false),
        qkv_bias: Flag::Key("use_bias", false),
        o_bias: Flag::Key("use_bias", false),
        mlp_bias: Flag::Key("use_bias", false),
        rope: RopeRule {
            pairing: Pairing::Neighbours,
            pairing_key: false,
            scaling: ScalingRule::None,
            ..LLAMA.config.rope
        },
        sliding: Sliding::Never,
        ..LLAMA.config
    },
    ..LLAMA
};

/// Helium: neighbouring columns are turned, and a head may be stored although it is tied.
///
/// Of this family is Helium 1.
pub(crate) const HELIUM: Family = Family {
    name: "helium",
    model_type: "helium",
    config: ConfigRules {
        sizes: PLAIN.sizes,
        tied: Tied::Key(false),
        o_bias: Flag::Never,
        rope: ERNIE4_5.config.rope,
        sliding: Sliding::Never,
        ..LLAMA.config
    },
    tensors: TensorNames { dropped: &[Dropped::TiedHead], ..LLAMA.tensors },
    ..LLAMA
};

/// Hunyuan's dense models: norms of heads after they are turned.
///
/// Of this family are Hunyuan 0.5B to 7B.
pub(crate) const HUNYUAN_V1_DENSE: Family = Family {
    name: "hunyuan_v1_dense",
    model_type: "hunyuan_v1_dense",
    config: ConfigRules {
        tied: Tied::Key(false),
        mlp_bias: Flag::Never,
        qk_norm: Some(QkNormRule { when: Flag::Key("use_qk_norm", true), span: Span::Head, after_rope: true }),
        rope: RopeRule { pairing_key: false, scaling: ScalingRule::Alpha, ..LLAMA.config.rope },
        sliding: Sliding::Never,
        ..LLAMA.config
    },
    tensors: TensorNames {
        qk_norm: QkNormNames { q: "self_attn.query_layernorm", k: "self_attn.key_layernorm", heads: None },
        ..LLAMA.tensors
    },
    ..LLAMA
};

/// InternLM 2: projections in one matrix by key head, and other names.
///
/// Of this family are InternLM 2 and 2.5.
pub(crate) const INTERNLM2: Family = Family {
    name: "internlm2",
    model_type: "internlm2",
    config: ConfigRules {
        tied: Tied::Key(false),
        qkv_bias: Flag::Key("bias", true),
        o_bias: Flag::Key("bias", true),
        sliding: Sliding::Never,
        ..PLAIN
    },
    tensors: TensorNames {
        embed_tokens: "model.tok_embeddings",
        lm_head: "output",
        attention_norm: Some("attention_norm"),
        qkv: QkvNames::ByKeyHead("attention.wqkv"),
        o_proj: "attention.wo",
        mlp_norm: Some("ffn_norm"),
        gate: GateName::Apart("feed_forward.w1"),
        up_proj: "feed_forward.w3",
        down_proj: "feed_forward.w2",
        dropped: &[Dropped::Ending(".attention.rope.inv_freq")],
        ..LLAMA.tensors
    },
    ..LLAMA
};

/// InternLM 3: a Llama with other keys of its biases.
///
/// Of this family is InternLM 3.
pub(crate) const INTERNLM3: Family = Family {
    name: "internlm3",
    model_type: "internlm3",
    config: ConfigRules {
        tied: Tied::Key(false),
        qkv_bias: Flag::Key("qkv_bias", false),
        o_bias: Flag::Key("qkv_bias", false),
        mlp_bias: Flag::Key("bias", false),
        sliding: Sliding::Never,
        ..PLAIN
    },
    ..LLAMA
};

/// Seed-OSS: a Llama whose output projection has a key of its own for its bias.
///
/// Of this family is Seed-OSS.
pub(crate) const SEED_OSS: Family = Family {
    name: "seed_oss",
    model_type: "seed_oss",
    config: ConfigRules { o_bias: Flag::Key("attention_out_bias", false), sliding: Sliding::Never, ..LLAMA.config },
    ..LLAMA
};

/// MiMo: a Llama with biases; what it predicts further ahead is dropped.
///
/// Of this family is MiMo 7B.
pub(crate) const MIMO: Family = Family {
    name: "mimo",
    model_type: "mimo",
    config: ConfigRules {
        tied: Tied::Key(false),
        qkv_bias: Flag::Always,
        sliding: Sliding::Never,
        ignored: &["attention_bias"],
        ..PLAIN
    },
    tensors: TensorNames {
        dropped: &[Dropped::Beginning("model.mtp_layers."), Dropped::Ending(".self_attn.rotary_emb.inv_freq")],
        ..LLAMA.tensors
    },
    ..LLAMA
};

/// TeleChat 3: a Llama whose head is not tied unless a key says so.
///
/// Of this family is TeleChat 3.
pub(crate) const TELECHAT3: Family = Family {
    name: "telechat3",
    model_type: "telechat3",
    config: ConfigRules { tied: Tied::Key(false), sliding: Sliding::Never, ..LLAMA.config },
    ..LLAMA
};

/// Apertus: norms of each head, and an activation with numbers of its own.
///
/// Of this family is Apertus.
pub(crate) const APERTUS: Family = Family {
    name: "apertus",
    model_type: "apertus",
    config: ConfigRules {
        tied: Tied::Key(false),
        mlp_bias: Flag::Key("mlp_bias", false),
        qk_norm: Some(QkNormRule { when: Flag::Always, span: Span::Head, after_rope: false }),
        activation: ActivationRule { activation: Activation::Xielu, keys: &["hidden_act"], names: &["xielu"] },
        sliding: Sliding::Never,
        ignored: &["qk_norm"],
        ..PLAIN
    },
    tensors: TensorNames {
        attention_norm: Some("attention_layernorm"),
        mlp_norm: Some("feedforward_layernorm"),
        gate: GateName::None,
        ..LLAMA.tensors
    },
    ..LLAMA
};

/// Nemotron 3 and 4, Minitron: layer norms whose weights are stored less 1, squares of what is positive, half of each head turned.
///
/// Of this family are Nemotron-3 and -4, Minitron.
pub(crate) const NEMOTRON: Family = Family {
    name: "nemotron",
    model_type: "nemotron",
    config: ConfigRules {
        tied: Tied::Key(false),
        norm: NormRule {
            kind: NormKind::Layer,
            eps: "norm_eps",
            eps_default: None,
            one_plus: true,
            bias: Flag::Always,
        },
        activation: ActivationRule { activation: Activation::ReluSquared, keys: &["hidden_act"], names: &["relu2"] },
        rope: RopeRule {
            partial: Some(("partial_rotary_factor", 0.5)),
            pairing_key: false,
            scaling: ScalingRule::Linear,
            ..LLAMA.config.rope
        },
        sliding: Sliding::Never,
        ..LLAMA.config
    },
    tensors: TensorNames { gate: GateName::None, ..LLAMA.tensors },
    ..LLAMA
};

/// Phi-3 and Phi-4: projections in one matrix, and a factor for each rotary frequency.
///
/// Of this family are Phi-3, Phi-3.5, Phi-4.
pub(crate) const PHI3: Family = Family {
    name: "phi3",
    model_type: "phi3",
    config: ConfigRules {
        tied: Tied::Key(false),
        rope: RopeRule {
            partial: Some(("partial_rotary_factor", 1.0)),
            scaling: ScalingRule::Phi3,
            ..LLAMA.config.rope
        },
        sliding: Sliding::Never,
        ..PLAIN
    },
    tensors: TensorNames {
        qkv: QkvNames::Joined("self_attn.qkv_proj"),
        gate: GateName::Joined,
        up_proj: "mlp.gate_up_proj",
        ..LLAMA.tensors
    },
    ..LLAMA
};
