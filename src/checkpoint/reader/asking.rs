//! Keys that ask for a computation, and may not be passed over in silence.
//!
//! A `config.json` has many keys that mlx-lm does not read: its readers drop what they do not know. Most of them say nothing about
//! what a model computes (`is_llama_config`, `use_cache`, `attention_dropout`), so refusing every unknown key would refuse models that
//! run. The rule here is the reverse: [`ASKING`] has the keys by which some model asks for a computation. Where one of them has a
//! value that asks for something, and the reader of this family has not read it, the file is refused by that key, unless the
//! family's entry says that mlx-lm's class passes it over as well.

use serde_json::Value;

use crate::checkpoint::{config_error::ConfigError, keys::Keys};

/// Keys by which some model of mlx-lm's asks for a computation that others do not have.
const ASKING: &[&str] = &[
    "activation_sparsity_pattern",
    "alibi",
    "altup_num_inputs",
    "attention_bias",
    "attention_chunk_size",
    "attention_multiplier",
    "attention_out_bias",
    "attention_sink_bias",
    "attention_value_scale",
    "attn_logit_softcapping",
    "attn_output_gate",
    "attn_temperature_tuning",
    "conv_L_cache",
    "dim_model_base",
    "embedding_multiplier",
    "enable_moe_block",
    "final_logit_softcapping",
    "full_attention_interval",
    "full_attn_idxs",
    "gating",
    "hidden_size_per_layer_input",
    "hybrid_layer_pattern",
    "hybrid_override_pattern",
    "kv_lora_rank",
    "layer_norm_bias",
    "layer_types",
    "linear_num_key_heads",
    "linear_num_value_heads",
    "lm_head_bias",
    "lm_head_multiplier",
    "logit_scale",
    "logits_scaling",
    "mamba_d_state",
    "mlp_bias",
    "moe_intermediate_size",
    "moe_num_experts",
    "n_routed_experts",
    "n_shared_experts",
    "no_rope_layers",
    "norm_head",
    "num_experts",
    "num_kv_shared_layers",
    "num_local_experts",
    "num_loops",
    "num_shared_experts",
    "output_multiplier",
    "partial_rotary_factor",
    "q_lora_rank",
    "qk_layernorm",
    "qk_norm",
    "qk_scale_factor",
    "qkv_bias",
    "residual_multiplier",
    "rope_local_base_freq",
    "rope_scaling",
    "rotary_dim",
    "rotary_pct",
    "scale_depth",
    "scale_emb",
    "scale_embedding",
    "sliding_window_pattern",
    "ssm_cfg",
    "state_size",
    "use_bias",
    "use_parallel_residual",
    "use_qk_norm",
    "use_qkv_bias",
];

/// Refuses the first key that asks for something and was not read.
///
/// # Errors
/// [`ConfigError::Asks`].
pub(super) fn refuse_unread(keys: &Keys<'_>, ignored: &[&str]) -> Result<(), ConfigError> {
    let unread = |key: &&&str| !keys.was_read(key) && !ignored.contains(key) && keys.map.get(**key).is_some_and(asks);
    match ASKING.iter().find(unread) {
        Some(key) => Err(ConfigError::Asks { key: keys.path(key) }),
        None => Ok(()),
    }
}

/// Whether a value asks for something. `null`, `false`, 0, 1 and nothing at all do not: they switch off, or multiply by 1. Nor does a
/// list of layers that all have full attention or the rotary embedding that all layers have, or a rotary scaling of the type `default`.
fn asks(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Bool(true) => true,
        Value::Number(number) => number.as_f64().is_some_and(|number| number != 0.0 && number != 1.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(values) => {
            let silent =
                |value: &Value| !asks(value) && value.as_u64() != Some(0) || value.as_str() == Some("full_attention");
            !values.iter().all(silent)
        }
        Value::Object(map) => {
            let kind = map.get("type").or_else(|| map.get("rope_type")).and_then(Value::as_str);
            !map.is_empty() && kind != Some("default")
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_switches_off_or_changes_nothing_asks_for_nothing() {
        for value in [json!(null), json!(false), json!(0), json!(1), json!(1.0), json!([]), json!({}), json!("")] {
            assert!(!asks(&value), "{value}");
        }
        assert!(!asks(&json!(["full_attention", "full_attention"])) && !asks(&json!([1, 1])) && asks(&json!([1, 0])));
        assert!(!asks(&json!({"rope_type": "default", "mrope_section": [1, 2, 3]})));
        for value in
            [json!(true), json!(0.5), json!(8), json!(["sliding_attention"]), json!("LLLG"), json!({"type": "su"})]
        {
            assert!(asks(&value), "{value}");
        }
    }

    #[test]
    fn the_list_is_sorted_and_has_no_key_twice() {
        assert!(ASKING.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
