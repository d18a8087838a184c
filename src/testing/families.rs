//! What the fixture of a family has in its configuration besides the keys of its sizes: what is particular to it, so that tests reach
//! it. Windows are shorter than the prompts of tests.

use serde_json::{Value, json};

/// Keys and values for the family of this name with so many layers; `null` where it needs none.
pub(super) fn own_keys(family: &str, layers: usize) -> Value {
    let yarn = json!({
        "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 3,
        "llama_4_scaling_beta": 0.1,
    });
    match family {
        "ministral3" | "mistral3 of ministral3" => json!({"rope_parameters": yarn}),
        "smollm3" => json!({"no_rope_layer_interval": 2}),
        "granite" | "granitemoe" => json!({
            "embedding_multiplier": 12.0, "attention_multiplier": 0.3, "residual_multiplier": 0.22, "logits_scaling": 3.0,
        }),
        "minicpm" => json!({"scale_emb": 12, "scale_depth": 1.4, "dim_model_base": 32}),
        "olmo3" => json!({"sliding_window": 3, "layer_types": alternating(layers)}),
        "exaone4" => json!({"sliding_window_pattern": "LG", "sliding_window": 3}),
        "gemma2" => json!({
            "query_pre_attn_scalar": 20, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0,
        }),
        "gemma3" | "gemma3_text" => json!({
            "query_pre_attn_scalar": 20, "sliding_window_pattern": 2, "sliding_window": 3,
        }),
        "gemma4" | "gemma4_text" => json!({
            "layer_types": alternating(layers), "sliding_window": 3,
            "global_head_dim": 32, "num_kv_shared_layers": usize::from(layers > 2), "attention_k_eq_v": true,
            "hidden_size_per_layer_input": 32, "vocab_size_per_layer_input": 96, "final_logit_softcapping": 3.0,
            "enable_moe_block": family == "gemma4",
        }),
        "cohere" => json!({"use_qk_norm": true, "logit_scale": 0.5}),
        "cohere2" => json!({"sliding_window_pattern": 2, "sliding_window": 3, "logit_scale": 0.5}),
        "hunyuan_v1_dense" => json!({"rope_scaling": {"type": "dynamic", "alpha": 100.0, "factor": 1.0}}),
        "phi3" => json!({"partial_rotary_factor": 0.5}),
        "stablelm" => json!({"qk_layernorm": true, "use_parallel_residual": true}),
        "lfm2" | "lfm2_moe" => {
            let kind = |i| if i == layers / 2 { "full_attention" } else { "conv" };
            json!({
                "conv_L_cache": 3, "conv_bias": true, "layer_types": (0..layers).map(kind).collect::<Vec<_>>(),
                "num_dense_layers": usize::from(layers > 1), "use_expert_bias": true, "norm_topk_prob": true,
                "routed_scaling_factor": 1.5,
            })
        }
        "qwen3_5" | "qwen3_5_moe" | "qwen3_next" => json!({
            "full_attention_interval": layers.min(2), "linear_num_key_heads": 2, "linear_num_value_heads": 4,
            "linear_key_head_dim": 24, "linear_value_head_dim": 16, "linear_conv_kernel_dim": 4,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
        }),
        "gpt_oss" => json!({"layer_types": alternating(layers), "sliding_window": 3, "rope_scaling": yarn}),
        "glm4_moe" | "solar_open" => json!({
            "first_k_dense_replace": usize::from(layers > 1), "use_qk_norm": true, "partial_rotary_factor": 0.5,
        }),
        "deepseek" | "dots1" => json!({"first_k_dense_replace": usize::from(layers > 1)}),
        "bailing_moe" => json!({
            "first_k_dense_replace": usize::from(layers > 1), "use_qk_norm": true, "partial_rotary_factor": 0.5,
            "score_function": "sigmoid",
        }),
        "exaone_moe" => json!({
            "is_moe_layer": (0..layers).map(|i| i > 0).collect::<Vec<_>>(), "layer_types": alternating(layers),
            "sliding_window": 3,
        }),
        "mellum" => json!({
            "layer_types": alternating(layers), "sliding_window": 3,
            "rope_parameters": {
                "full_attention": yarn, "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            },
        }),
        "ernie4_5_moe" => json!({"moe_layer_start_index": usize::from(layers > 1), "moe_layer_end_index": 1}),
        "minimax" | "minimax_m2" => json!({"rotary_dim": 8}),
        "phimoe" => json!({
            "router_jitter_noise": 0.2,
            "rope_scaling": {"type": "longrope", "long_factor": [1, 2, 3, 4, 5, 6, 7, 8], "long_mscale": 1.25},
        }),
        "qwen3_moe" if layers > 2 => json!({"mlp_only_layers": [1]}),
        "gpt2" | "gpt_bigcode" => json!({"n_positions": 512}),
        _ => Value::Null,
    }
}

/// A window in every other layer.
fn alternating(layers: usize) -> Vec<&'static str> {
    (0..layers).map(|i| ["sliding_attention", "full_attention"][i % 2]).collect()
}
