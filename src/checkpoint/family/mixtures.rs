//! Families whose layers have mixtures of experts, and that differ from families without in little else.

use super::{
    ActivationRule, ApartNames, ConfigRules, Dropped, ERNIE4_5, ExpertLayers, ExpertNames, ExpertWidth, ExpertsRule,
    Family, Flag, GRANITE, HeadDim, KvHeads, LLAMA, NormRule, PROJECTIONS, QWEN2, QWEN3, QkNormNames, QkNormRule,
    QkvNames, Renamed, RopeLayers, RopeRule, RouterRule, ScalingRule, ScoreRule, SharedRule, SharedWidth, Sizes,
    Sliding, TensorNames, Theta, Tied,
    rules::{size, size_or},
};
use crate::checkpoint::architecture::{Activation, Divisor, NormKind, Span};

/// A router whose weights are the softmax over all experts, as they are.
pub(super) const ROUTER: RouterRule = RouterRule {
    bias: Flag::Never,
    score: ScoreRule::Softmax,
    choice_bias: Flag::Never,
    groups: None,
    divided: Flag::Never,
    divisor: Divisor::Sum,
    divides_one: true,
    scale: None,
    expert_scale: false,
};

/// Experts in all layers, as wide as `moe_intermediate_size` says, with that router.
pub(super) const EXPERTS: ExpertsRule = ExpertsRule {
    when: Flag::Always,
    layers: ExpertLayers::All,
    count: size("num_experts"),
    chosen: size("num_experts_per_tok"),
    width: ExpertWidth::Key(size("moe_intermediate_size")),
    bias: Flag::Never,
    router: ROUTER,
    shared: None,
    norms: false,
};

/// Experts that mlx-lm stacks as it loads them, quantized or not.
const APART: ApartNames = ApartNames { module: "mlp.experts", projections: PROJECTIONS, quantized: true };

/// Experts that mlx-lm stacks as it loads them, and stacks weights of alone.
const PLAIN_APART: ApartNames = ApartNames { quantized: false, ..APART };

/// A Llama's names with experts that may lie apart.
const MAY_BE_APART: TensorNames =
    TensorNames { experts: ExpertNames { apart: Some(APART), ..LLAMA.tensors.experts }, ..LLAMA.tensors };

/// A Llama's names with experts that may lie apart where they are not quantized.
const MAY_BE_PLAIN_APART: TensorNames =
    TensorNames { experts: ExpertNames { apart: Some(PLAIN_APART), ..LLAMA.tensors.experts }, ..LLAMA.tensors };

/// The names of a Mixtral's experts that lie apart.
const MIXTRAL_APART: ApartNames =
    ApartNames { module: "block_sparse_moe.experts", projections: ["w1", "w3", "w2"], quantized: true };

/// An MLP that all positions share, as wide as several experts.
const SHARED: SharedRule =
    SharedRule { when: Flag::Always, width: SharedWidth::Experts(size_or("n_shared_experts", 0)), gate: false };

/// Mixtral: a Mistral with experts, whose weights are the softmax over those that are chosen.
///
/// Of this family are Mixtral 8x7B and 8x22B.
pub(crate) const MIXTRAL: Family = Family {
    name: "mixtral",
    model_type: "mixtral",
    config: ConfigRules {
        tied: Tied::Key(false),
        experts: Some(ExpertsRule {
            count: size_or("num_local_experts", 8),
            chosen: size_or("num_experts_per_tok", 2),
            width: ExpertWidth::Key(size("intermediate_size")),
            router: RouterRule { score: ScoreRule::SoftmaxOfChosen, ..ROUTER },
            ..EXPERTS
        }),
        qkv_bias: Flag::Never,
        rope: RopeRule { scaling: ScalingRule::None, ..QWEN2.config.rope },
        ..QWEN2.config
    },
    tensors: TensorNames {
        experts: ExpertNames {
            router: "block_sparse_moe.gate",
            experts: "block_sparse_moe.switch_mlp",
            apart: Some(MIXTRAL_APART),
            ..LLAMA.tensors.experts
        },
        ..LLAMA.tensors
    },
    ..LLAMA
};

/// Qwen 1.5 and 2 with experts, and an MLP that all positions share.
///
/// Of this family are Qwen 1.5 and 2 with experts.
pub(crate) const QWEN2_MOE: Family = Family {
    name: "qwen2_moe",
    model_type: "qwen2_moe",
    config: ConfigRules {
        tied: Tied::Never,
        experts: Some(ExpertsRule { shared: Some(SHARED_WITH_A_GATE), ..EXPERTS }),
        rope: RopeRule { scaling: ScalingRule::None, ..QWEN2.config.rope },
        ..QWEN2.config
    },
    tensors: TensorNames {
        experts: ExpertNames { shared: "mlp.shared_expert", ..MAY_BE_APART.experts },
        ..LLAMA.tensors
    },
    ..LLAMA
};

/// What Qwen's models add for all positions.
pub(super) const SHARED_WITH_A_GATE: SharedRule =
    SharedRule { width: SharedWidth::Key(size("shared_expert_intermediate_size")), gate: true, ..SHARED };

/// Qwen 3 with experts in most layers.
///
/// Of this family is Qwen 3 with experts.
pub(crate) const QWEN3_MOE: Family = Family {
    name: "qwen3_moe",
    model_type: "qwen3_moe",
    config: ConfigRules {
        experts: Some(ExpertsRule {
            layers: ExpertLayers::Where {
                every: Some((size_or("decoder_sparse_step", 1), 1)),
                from: None,
                to: None,
                except: Some("mlp_only_layers"),
            },
            router: RouterRule { divided: Flag::Key("norm_topk_prob", false), ..ROUTER },
            ..EXPERTS
        }),
        rope: RopeRule { scaling: ScalingRule::None, ..QWEN3.config.rope },
        ..QWEN3.config
    },
    tensors: MAY_BE_PLAIN_APART,
    ..LLAMA
};

/// OLMoE: a Llama with norms of all queries and keys together, and experts.
///
/// Of this family is OLMoE.
pub(crate) const OLMOE: Family = Family {
    name: "olmoe",
    model_type: "olmoe",
    config: ConfigRules {
        qk_norm: Some(QkNormRule { when: Flag::Always, span: Span::All, after_rope: false }),
        experts: Some(ExpertsRule {
            width: ExpertWidth::Key(size("intermediate_size")),
            bias: Flag::Key("mlp_bias", false),
            router: RouterRule { divided: Flag::Key("norm_topk_prob", false), ..ROUTER },
            ..EXPERTS
        }),
        sliding: Sliding::Never,
        ..LLAMA.config
    },
    tensors: MAY_BE_APART,
    ..LLAMA
};

/// gpt-oss: attention with sinks, windows in every other layer, biases everywhere, and a gated activation with bounds.
///
/// Of this family are gpt-oss 20B and 120B.
pub(crate) const GPT_OSS: Family = Family {
    name: "gpt_oss",
    model_type: "gpt_oss",
    config: ConfigRules {
        sizes: Sizes {
            vocab_size: size_or("vocab_size", 201_088),
            hidden_size: size_or("hidden_size", 2880),
            layers: size_or("num_hidden_layers", 36),
            heads: size_or("num_attention_heads", 64),
            kv_heads: KvHeads::Key(size_or("num_key_value_heads", 8)),
            head_dim: HeadDim::Key(size_or("head_dim", 64)),
            ..LLAMA.config.sizes
        },
        tied: Tied::Never,
        qkv_bias: Flag::Always,
        o_bias: Flag::Always,
        mlp_bias: Flag::Always,
        experts: Some(ExpertsRule {
            count: size_or("num_local_experts", 128),
            chosen: size_or("num_experts_per_tok", 4),
            width: ExpertWidth::Key(size_or("intermediate_size", 2880)),
            bias: Flag::Always,
            router: RouterRule { bias: Flag::Always, score: ScoreRule::SoftmaxOfChosen, ..ROUTER },
            ..EXPERTS
        }),
        sinks: true,
        norm: NormRule { eps_default: Some(1e-5), ..LLAMA.config.norm },
        activation: ActivationRule { activation: Activation::ClampedSwiglu, ..LLAMA.config.activation },
        rope: RopeRule { theta: Theta::Key("rope_theta", 150_000.0), pairing_key: false, ..LLAMA.config.rope },
        sliding: Sliding::LayerTypes { key: None, every: Some(2) },
        ignored: &["attention_bias"],
        ..LLAMA.config
    },
    tensors: TensorNames {
        experts: ExpertNames { router: "mlp.router", experts: "mlp.experts", ..LLAMA.tensors.experts },
        ..LLAMA.tensors
    },
    ..LLAMA
};

/// Granite 3 with experts.
///
/// Of this family is Granite 3 with experts.
pub(crate) const GRANITEMOE: Family = Family {
    name: "granitemoe",
    model_type: "granitemoe",
    config: ConfigRules {
        experts: Some(ExpertsRule {
            count: size("num_local_experts"),
            width: ExpertWidth::Key(size("intermediate_size")),
            router: RouterRule { score: ScoreRule::SoftmaxOfChosen, ..ROUTER },
            ..EXPERTS
        }),
        mlp_bias: Flag::Never,
        rope: RopeRule { pairing_key: false, ..GRANITE.config.rope },
        sliding: Sliding::Never,
        ..GRANITE.config
    },
    tensors: TensorNames {
        experts: ExpertNames { router: "block_sparse_moe.router.layer", apart: None, ..MIXTRAL.tensors.experts },
        ..LLAMA.tensors
    },
    ..LLAMA
};

/// DeepSeek-V3's experts and router, in layers after the first ones, which have an MLP.
const DEEPSEEK_V3_EXPERTS: ExpertsRule = ExpertsRule {
    layers: ExpertLayers::Where { every: None, from: Some(size("first_k_dense_replace")), to: None, except: None },
    count: size("n_routed_experts"),
    router: RouterRule {
        score: ScoreRule::Sigmoid,
        choice_bias: Flag::Always,
        groups: Some([size_or("n_group", 1), size_or("topk_group", 1)]),
        divided: Flag::Key("norm_topk_prob", true),
        divides_one: false,
        scale: Some(("routed_scaling_factor", 1.0)),
        ..ROUTER
    },
    shared: Some(SHARED),
    ..EXPERTS
};

/// GLM-4.5 to 4.7: DeepSeek-V3's experts with attention of query heads in groups.
///
/// Of this family are GLM-4.5, 4.6 and 4.7.
pub(crate) const GLM4_MOE: Family = Family {
    name: "glm4_moe",
    model_type: "glm4_moe",
    config: ConfigRules {
        sizes: LLAMA.config.sizes,
        tied: Tied::Never,
        qkv_bias: Flag::Key("attention_bias", false),
        qk_norm: Some(QkNormRule { when: Flag::Key("use_qk_norm", false), span: Span::Head, after_rope: false }),
        experts: Some(DEEPSEEK_V3_EXPERTS),
        rope: RopeRule {
            partial: Some(("partial_rotary_factor", 0.5)),
            pairing_key: false,
            scaling: ScalingRule::None,
            ..LLAMA.config.rope
        },
        ..QWEN2.config
    },
    tensors: TensorNames { dropped: &[Dropped::LayerBehindTheLast], ..MAY_BE_APART },
    ..LLAMA
};

/// Solar Open: GLM-4.5 by another name.
///
/// Of this family is Solar Open.
pub(crate) const SOLAR_OPEN: Family = Family { name: "solar_open", model_type: "solar_open", ..GLM4_MOE };

/// dots.llm1: DeepSeek-V3's experts, and norms of each head.
///
/// Of this family is dots.llm1.
pub(crate) const DOTS1: Family = Family {
    name: "dots1",
    model_type: "dots1",
    config: ConfigRules { mlp_bias: Flag::Key("mlp_bias", false), experts: Some(DEEPSEEK_V3_EXPERTS), ..QWEN3.config },
    tensors: TensorNames { experts: ExpertNames { experts: "mlp.experts", ..MAY_BE_APART.experts }, ..LLAMA.tensors },
    ..LLAMA
};

/// The first DeepSeek with experts: a softmax over all, and an MLP that all positions share.
///
/// Of this family is DeepSeek-MoE.
pub(crate) const DEEPSEEK: Family = Family {
    name: "deepseek",
    model_type: "deepseek",
    config: ConfigRules {
        sizes: Sizes { head_dim: HeadDim::Shared, ..LLAMA.config.sizes },
        tied: Tied::Never,
        mlp_bias: Flag::Never,
        experts: Some(ExpertsRule {
            layers: ExpertLayers::Where {
                every: Some((size_or("moe_layer_freq", 1), 0)),
                from: Some(size_or("first_k_dense_replace", 0)),
                to: None,
                except: None,
            },
            router: ROUTER,
            ..DEEPSEEK_V3_EXPERTS
        }),
        norm: NormRule { eps_default: Some(1e-6), ..LLAMA.config.norm },
        rope: RopeRule { pairing_key: false, scaling: ScalingRule::Linear, ..LLAMA.config.rope },
        sliding: Sliding::Never,
        ignored: &["norm_topk_prob", "routed_scaling_factor"],
        ..LLAMA.config
    },
    tensors: MAY_BE_APART,
    ..LLAMA
};

/// EXAONE MoE: DeepSeek-V3's experts in layers that a list names; layers without a window have no rotary embedding.
///
/// Of this family is K-EXAONE.
pub(crate) const EXAONE_MOE: Family = Family {
    name: "exaone_moe",
    model_type: "exaone_moe",
    config: ConfigRules {
        experts: Some(ExpertsRule {
            layers: ExpertLayers::Listed("is_moe_layer"),
            count: size("num_experts"),
            router: RouterRule {
                divisor: Divisor::SumAnd(1e-20),
                scale: Some(("routed_scaling_factor", 2.5)),
                ..DEEPSEEK_V3_EXPERTS.router
            },
            shared: Some(SharedRule { width: SharedWidth::Experts(size_or("num_shared_experts", 0)), ..SHARED }),
            ..DEEPSEEK_V3_EXPERTS
        }),
        rope: RopeRule { layers: RopeLayers::Sliding, ..QWEN3.config.rope },
        sliding: Sliding::LayerTypes { key: None, every: None },
        ..QWEN3.config
    },
    tensors: TensorNames {
        dropped: &[Dropped::Beginning("mtp.")],
        renamed: &[Renamed { from: ".mlp.e_score_correction_bias", to: ".mlp.gate.e_score_correction_bias" }],
        ..MAY_BE_APART
    },
    ..LLAMA
};

/// Mellum: Qwen 3 with experts, and rotary embeddings by type of layer.
///
/// Of this family is Mellum.
pub(crate) const MELLUM: Family = Family {
    name: "mellum",
    model_type: "mellum",
    config: ConfigRules {
        experts: Some(ExpertsRule {
            router: RouterRule { divided: Flag::Key("norm_topk_prob", false), ..ROUTER },
            ..EXPERTS
        }),
        rope: RopeRule { by_layer_type: true, ..QWEN3.config.rope },
        sliding: Sliding::LayerTypes { key: None, every: None },
        ..QWEN3.config
    },
    tensors: MAY_BE_PLAIN_APART,
    ..LLAMA
};

/// ERNIE 4.5 with experts in some layers.
///
/// Of this family is ERNIE 4.5 with experts.
pub(crate) const ERNIE4_5_MOE: Family = Family {
    name: "ernie4_5_moe",
    model_type: "ernie4_5_moe",
    config: ConfigRules {
        experts: Some(ExpertsRule {
            layers: ExpertLayers::Where {
                every: Some((size_or("moe_layer_interval", 1), 1)),
                from: Some(size_or("moe_layer_start_index", 0)),
                to: Some("moe_layer_end_index"),
                except: None,
            },
            count: size("moe_num_experts"),
            chosen: size_or("moe_k", 1),
            width: ExpertWidth::OrMlp("moe_intermediate_size"),
            bias: Flag::Key("use_bias", false),
            router: RouterRule {
                score: ScoreRule::Key("moe_gate_act", "softmax"),
                divided: Flag::Always,
                divisor: Divisor::SumOrMore(1e-12),
                ..ROUTER
            },
            shared: Some(SharedRule { width: SharedWidth::Experts(size_or("moe_num_shared_experts", 0)), ..SHARED }),
            ..EXPERTS
        }),
        ..ERNIE4_5.config
    },
    tensors: TensorNames {
        dropped: &[
            Dropped::Containing("mtp_block."),
            Dropped::Containing("mtp_linear_proj."),
            Dropped::Containing("mtp_hidden_norm."),
            Dropped::Containing("mtp_emb_norm."),
            Dropped::Containing("e_score_correction_bias"),
        ],
        ..MAY_BE_PLAIN_APART
    },
    ..LLAMA
};

/// MiniMax M2: norms of all queries and keys together, the first columns of each head turned, experts by the sigmoid.
///
/// Of this family is MiniMax M2.
pub(crate) const MINIMAX_M2: Family = Family {
    name: "minimax_m2",
    model_type: "minimax_m2",
    config: ConfigRules {
        sizes: LLAMA.config.sizes,
        tied: Tied::Key(false),
        qkv_bias: Flag::Never,
        qk_norm: Some(QkNormRule { when: Flag::Key("use_qk_norm", true), span: Span::All, after_rope: false }),
        experts: Some(ExpertsRule {
            count: size("num_local_experts"),
            width: ExpertWidth::Key(size("intermediate_size")),
            router: RouterRule {
                score: ScoreRule::Sigmoid,
                choice_bias: Flag::Always,
                divided: Flag::Always,
                divisor: Divisor::SumAnd(1e-20),
                ..ROUTER
            },
            ..EXPERTS
        }),
        rope: RopeRule {
            columns: Some("rotary_dim"),
            pairing_key: false,
            scaling: ScalingRule::None,
            ..LLAMA.config.rope
        },
        ..QWEN2.config
    },
    tensors: TensorNames {
        experts: ExpertNames {
            choice_bias: "block_sparse_moe.e_score_correction_bias",
            apart: Some(ApartNames { quantized: false, ..MIXTRAL_APART }),
            ..MIXTRAL.tensors.experts
        },
        ..LLAMA.tensors
    },
    ..LLAMA
};

/// MiniMax by the name of mlx-lm's class.
pub(crate) const MINIMAX: Family = Family { name: "minimax", model_type: "minimax", ..MINIMAX_M2 };

/// Phi-3.5-MoE: layer norms, biases, and experts that are chosen one after the other.
///
/// Of this family are Phi-3.5-MoE, Phi-mini-MoE.
pub(crate) const PHIMOE: Family = Family {
    name: "phimoe",
    model_type: "phimoe",
    config: ConfigRules {
        sizes: Sizes {
            vocab_size: size_or("vocab_size", 32_064),
            hidden_size: size_or("hidden_size", 4096),
            layers: size_or("num_hidden_layers", 32),
            heads: size_or("num_attention_heads", 32),
            kv_heads: KvHeads::Key(size_or("num_key_value_heads", 8)),
            head_dim: HeadDim::Shared,
            ..LLAMA.config.sizes
        },
        tied: Tied::Never,
        head_bias: Flag::Always,
        qkv_bias: Flag::Always,
        o_bias: Flag::Always,
        experts: Some(ExpertsRule {
            count: size_or("num_local_experts", 16),
            chosen: size_or("num_experts_per_tok", 2),
            width: ExpertWidth::Key(size_or("intermediate_size", 6400)),
            router: RouterRule { score: ScoreRule::Mixer("router_jitter_noise", 0.01), ..ROUTER },
            ..EXPERTS
        }),
        norm: NormRule { kind: NormKind::Layer, eps_default: Some(1e-6), bias: Flag::Always, ..LLAMA.config.norm },
        rope: RopeRule { pairing_key: false, scaling: ScalingRule::PhiMoe, ..LLAMA.config.rope },
        ignored: &["attention_bias", "lm_head_bias"],
        ..QWEN2.config
    },
    tensors: MIXTRAL.tensors,
    ..LLAMA
};

/// Ling and Ring: queries, keys and values in one matrix, norms of each head, experts in groups.
///
/// Of this family are Ling and Ring.
pub(crate) const BAILING_MOE: Family = Family {
    name: "bailing_moe",
    model_type: "bailing_moe",
    config: ConfigRules {
        sizes: Sizes { head_dim: HeadDim::Shared, ..LLAMA.config.sizes },
        tied: Tied::Key(false),
        qkv_bias: Flag::Key("use_qkv_bias", false),
        o_bias: Flag::Key("use_bias", false),
        mlp_bias: Flag::Key("use_bias", false),
        qk_norm: Some(QkNormRule { when: Flag::Key("use_qk_norm", false), span: Span::Head, after_rope: false }),
        experts: Some(ExpertsRule {
            count: size("num_experts"),
            bias: Flag::Key("use_bias", false),
            router: RouterRule {
                score: ScoreRule::Key("score_function", "softmax"),
                choice_bias: Flag::Key("moe_router_enable_expert_bias", false),
                groups: Some([size_or("n_group", 1), size_or("topk_group", 4)]),
                divisor: Divisor::SumAnd(1e-20),
                ..DEEPSEEK_V3_EXPERTS.router
            },
            shared: Some(SharedRule {
                when: Flag::Key("moe_router_enable_shared_expert", true),
                width: SharedWidth::ExpertsOf(size("num_shared_experts"), "moe_shared_expert_intermediate_size"),
                ..SHARED
            }),
            ..DEEPSEEK_V3_EXPERTS
        }),
        rope: RopeRule {
            partial: Some(("partial_rotary_factor", 1.0)),
            columns: Some("rotary_dim"),
            pairing_key: false,
            ..LLAMA.config.rope
        },
        sliding: Sliding::Never,
        ..LLAMA.config
    },
    tensors: TensorNames {
        embed_tokens: "model.word_embeddings",
        qkv: QkvNames::Joined("attention.query_key_value"),
        qk_norm: QkNormNames { q: "attention.query_layernorm", k: "attention.key_layernorm", heads: None },
        o_proj: "attention.dense",
        experts: ExpertNames {
            router: "mlp.gate.gate_proj",
            choice_bias: "mlp.gate.expert_bias",
            ..MAY_BE_APART.experts
        },
        renamed: &[Renamed { from: ".mlp.gate.weight", to: ".mlp.gate.gate_proj.weight" }],
        ..LLAMA.tensors
    },
    ..LLAMA
};
