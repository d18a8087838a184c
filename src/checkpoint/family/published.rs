//! What each key of a configuration does, for configurations as mlx-lm writes them.
//!
//! `tests/fixtures/published.jsonl` has the configurations, and for each key that mlx-lm reads what it takes where the key is absent.
//! `tests/fixtures/published_keys.txt` has what a change of each key does: for each of some other values, and last for no value at
//! all, whether the same is computed (`=`), something else (`~`), or the configuration is refused (`!`). `published_edges.txt` has
//! how larger changes are read: the lines of the architecture that come and go, or the refusal. `published_other_keys.txt` has what
//! keys do that only other configurations have, with each of the values that they have there. All are written anew with
//! `HEADROOM_WRITE_FAMILIES=1`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::{checkpoint::config::Config, testing::stored::as_stored};

const PUBLISHED: &str = include_str!("../../../tests/fixtures/published.jsonl");
/// Where the environment has it, the files are written anew.
const WRITE: &str = "HEADROOM_WRITE_FAMILIES";

/// Keys that mlx-lm reads, each with a list of what it is where it is absent: of nothing where it must be there.
type Defaults = Map<String, Value>;

/// Name, configuration, and the keys in it and in its `text_config`.
fn published() -> Vec<(String, Value, [Defaults; 2])> {
    let object = |value: &Value| value.as_object().cloned().unwrap_or_default();
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("a line of JSON");
        let name = line["name"].as_str().expect("a name").to_owned();
        (name, line["config"].clone(), [object(&line["keys"]), object(&line["text_keys"])])
    };
    PUBLISHED.lines().map(line).collect()
}

/// All that a configuration asks for, or why it is refused.
fn read(config: &Value) -> Result<String, String> {
    let parsed = Config::parse(config.to_string().as_bytes()).map_err(|error| error.to_string())?;
    Ok(format!("{:?} {:?} {:?}", parsed.family.name, parsed.architecture, parsed.eos_token_ids))
}

/// `config` with the value at `place`, a JSON pointer, replaced, or taken out.
fn with(config: &Value, place: &str, value: Option<Value>) -> Value {
    let mut config = config.clone();
    let (object, key) = place.rsplit_once('/').expect("a pointer");
    // A list is changed as a whole.
    let object = config.pointer_mut(object).and_then(Value::as_object_mut);
    match value {
        Some(value) => object.and_then(|object| object.insert(key.to_owned(), value)),
        None => object.and_then(|object| object.remove(key)),
    };
    config
}

/// Keys of which mlx-lm takes another value than the default of its class where they are absent, and why this is so.
const NOT_THE_DEFAULT: &[(&str, &str, &str)] = &[
    ("gemma3", "/vocab_size", "the size in `text_config` serves where there is none beside it"),
    ("gemma3", "/text_config/num_attention_heads", "the outer class puts 8 there"),
    ("gemma3", "/text_config/num_key_value_heads", "the outer class puts 4 there"),
    ("gemma4", "/vocab_size", "the size in `text_config` serves where there is none beside it"),
    ("mistral3", "/text_config/tie_word_embeddings", "the outer class puts false there"),
    ("mellum", "/rope_parameters", "the default has no layer type, with which mlx-lm fails"),
];

#[test]
fn a_key_that_is_absent_is_what_mlx_lm_takes_it_for() {
    let (mut compared, mut excepted) = (0, BTreeSet::new());
    for (name, config, keys) in published() {
        for (object, keys) in ["", "/text_config"].into_iter().zip(keys) {
            for (key, default) in keys {
                let place = format!("{object}/{key}");
                // Where mlx-lm asks for a key there is nothing to compare.
                let Some(default) = default.as_array().expect("none or one").first() else { continue };
                let absent = read(&with(&config, &place, None));
                let there = read(&with(&config, &place, Some(default.clone())));
                // A key may be asked for here that has a default there, and a default may be one that does not fit the rest.
                if let (Ok(absent), Ok(there)) = (absent, there) {
                    let family = config["model_type"].as_str().expect("a family");
                    if NOT_THE_DEFAULT.iter().any(|&(of, at, _)| (of, at) == (family, &*place)) {
                        assert_ne!(absent, there, "{name}: {place} is no exception");
                        excepted.insert((family.to_owned(), place));
                    } else {
                        assert_eq!(absent, there, "{name}: {place}");
                        compared += 1;
                    }
                }
            }
        }
    }
    assert!(compared > 600 && excepted.len() == NOT_THE_DEFAULT.len(), "{compared} {excepted:?}");
}

/// Every place of a configuration that is no object, with its value.
fn places(value: &Value, place: &str, found: &mut Vec<(String, Value)>) {
    match value.as_object() {
        Some(object) => object.iter().for_each(|(key, value)| places(value, &format!("{place}/{key}"), found)),
        None => found.push((place.to_owned(), value.clone())),
    }
}

/// Other values of the same kind.
fn others(value: &Value) -> Vec<Value> {
    match value {
        Value::Null => vec![json!(1), json!(true)],
        Value::Bool(value) => vec![json!(!value)],
        Value::Number(number) => match number.as_u64() {
            Some(number) => vec![json!(2 * number + 2), json!(number / 2)],
            None => vec![json!(1.5 * number.as_f64().expect("a number"))],
        },
        Value::String(text) => vec![json!(format!("{text}_")), json!("gelu"), json!("sigmoid")],
        Value::Array(list) => vec![list.iter().skip(1).cloned().collect(), list.iter().rev().cloned().collect()],
        Value::Object(_) => Vec::new(),
    }
}

#[test]
fn each_key_does_what_it_did() {
    let mut text = String::new();
    for (name, config, keys) in published() {
        let plain = read(&config).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut all = Vec::new();
        places(&config, "", &mut all);
        for (object, keys) in ["", "/text_config"].into_iter().zip(keys) {
            for (key, default) in keys {
                let place = format!("{object}/{key}");
                if config.pointer(&place).is_none() && default != json!([]) {
                    all.push((place, default[0].clone()));
                }
            }
        }
        let mut by_outcomes = BTreeMap::<String, Vec<String>>::new();
        for (place, value) in all {
            let values = others(&value).into_iter().map(Some).chain([None]);
            let outcomes = values.map(|value| outcome(&with(&config, &place, value), &plain)).collect();
            by_outcomes.entry(outcomes).or_default().push(place);
        }
        text += &told(&name, by_outcomes);
    }
    as_stored("published_keys.txt", &text, WRITE);
}

/// A key that only other configurations have is taken up, passed over, or refused as one that asks for something.
#[test]
fn a_key_of_other_families_does_what_it_did() {
    let own = |config: &Value| {
        let at = if config["text_config"].is_object() { "/text_config" } else { "" };
        (at, config.pointer(at).and_then(Value::as_object).cloned().expect("an object"))
    };
    let mut all = BTreeMap::<String, BTreeMap<String, Value>>::new();
    let mut add = |key: String, value: Value| drop(all.entry(key).or_default().insert(value.to_string(), value));
    for (_, config, keys) in published() {
        own(&config).1.into_iter().for_each(|(key, value)| add(key, value));
        for (key, default) in keys.into_iter().flatten() {
            others(&default[0]).into_iter().for_each(|value| add(key.clone(), value));
        }
    }
    let mut text = String::new();
    for (name, config, _) in published() {
        let plain = read(&config).unwrap_or_else(|error| panic!("{name}: {error}"));
        let (at, there) = own(&config);
        let mut by_outcomes = BTreeMap::<String, Vec<String>>::new();
        for (key, values) in all.iter().filter(|(key, _)| !there.contains_key(*key)) {
            let place = format!("{at}/{key}");
            let outcomes = values.values().map(|value| outcome(&with(&config, &place, Some(value.clone())), &plain));
            by_outcomes.entry(outcomes.collect()).or_default().push(key.clone());
        }
        by_outcomes.retain(|outcomes, _| outcomes.contains(['~', '!']));
        text += &told(&name, by_outcomes);
    }
    as_stored("published_other_keys.txt", &text, WRITE);
}

/// What is computed by `changed` beside `plain`: the same, something else, or nothing, since it is refused.
fn outcome(changed: &Value, plain: &str) -> char {
    match read(changed) {
        Ok(read) if read == plain => '=',
        Ok(_) => '~',
        Err(_) => '!',
    }
}

/// The places of a configuration by what changes of them do.
fn told(name: &str, by_outcomes: BTreeMap<String, Vec<String>>) -> String {
    let line = |(outcomes, places): (String, Vec<String>)| format!("  {outcomes} {}\n", places.join(" "));
    format!("{name}\n{}", by_outcomes.into_iter().map(line).collect::<String>())
}

/// Configurations at the edges of what a reader distinguishes: a published one, and what is merged into it, where `null` takes a key out.
fn edges() -> Vec<(&'static str, Value)> {
    vec![
        // Sizes and heads.
        ("llama@f16", json!({"num_key_value_heads": 3})),
        ("qwen2@q4", json!({"head_dim": 32})),
        ("qwen2@q4", json!({"head_dim": 64})),
        ("qwen@q4", json!({"no_bias": false})),
        ("gpt_bigcode@q4", json!({"multi_query": false})),
        ("gemma4@q4", json!({"text_config": {"attention_k_eq_v": false, "num_global_key_value_heads": 2}})),
        ("gemma4@q4", json!({"text_config": {"attention_k_eq_v": true, "num_global_key_value_heads": 2}})),
        ("gemma4@q4", json!({"text_config": {"attention_k_eq_v": true, "num_global_key_value_heads": null}})),
        ("gemma4@q4", json!({"text_config": {"global_head_dim": null}})),
        ("gemma4@q4", json!({"text_config": {"hidden_size_per_layer_input": 0}})),
        ("gemma4@q4", json!({"text_config": {"hidden_size_per_layer_input": 1}})),
        ("gemma4@q4", json!({"text_config": {"num_kv_shared_layers": 0}})),
        ("gemma4@q4", json!({"text_config": {"num_kv_shared_layers": 1}})),
        (
            "gemma4@q4",
            json!({"text_config": {"num_hidden_layers": 4096, "layer_types": null, "num_kv_shared_layers": 1}}),
        ),
        (
            "gemma4@q4",
            json!({"text_config": {"num_hidden_layers": 4097, "layer_types": null, "num_kv_shared_layers": 1}}),
        ),
        ("llama@f16", json!({"head_dim": 2_097_152})),
        ("llama@f16", json!({"head_dim": 2_097_154})),
        ("mixtral@q4", json!({"num_local_experts": 8, "intermediate_size": 2_097_152})),
        ("mixtral@q4", json!({"num_local_experts": 8, "intermediate_size": 2_097_153})),
        ("mixtral@q4", json!({"num_local_experts": 2, "num_experts_per_tok": 2, "hidden_size": 8_388_608})),
        ("mixtral@q4", json!({"num_local_experts": 3, "num_experts_per_tok": 2, "hidden_size": 8_388_608})),
        ("glm4_moe@q4", json!({"n_shared_experts": 262_144})),
        ("glm4_moe@q4", json!({"n_shared_experts": 262_145})),
        ("granitemoe@q4", json!({"num_local_experts": 1, "num_experts_per_tok": 1})),
        ("qwen2_moe@q4", json!({"shared_expert_intermediate_size": 0})),
        ("qwen3_next@q4", json!({"linear_num_value_heads": 524_288})),
        ("qwen3_next@q4", json!({"linear_num_value_heads": 524_290})),
        ("ernie4_5_moe@q4", json!({"moe_layer_start_index": 0, "moe_layer_end_index": 2})),
        ("ernie4_5_moe@q4", json!({"moe_layer_start_index": 0, "moe_layer_end_index": 3})),
        ("bailing_moe@q4", json!({"use_bias": true})),
        ("internlm2@q4", json!({"bias": true})),
        ("internlm2@q4", json!({"bias": null})),
        ("qwen3_5@q4", json!({"text_config": {"attention_bias": true}})),
        ("helium@q4", json!({"attention_bias": true, "mlp_bias": true})),
        // Objects that hold the keys.
        ("gemma3@q4", json!({"text_config": null})),
        ("mistral3@q4", json!({"text_config": null})),
        ("ministral3@q4", json!({"text_config": null})),
        ("qwen3_vl@q4", json!({"text_config": null})),
        ("qwen3_5@q4", json!({"text_config": null})),
        // Heads that are embeddings.
        ("gemma@q4", json!({"tie_word_embeddings": false})),
        ("glm4@q4", json!({"tie_word_embeddings": true})),
        ("gpt_oss@mxfp4-q4", json!({"tie_word_embeddings": true})),
        ("stablelm@q4", json!({"tie_word_embeddings": true})),
        ("cohere@q4", json!({"tie_word_embeddings": false})),
        // Which layers do what.
        (
            "gemma4@q4",
            json!({"text_config": {"layer_types": null, "sliding_window_pattern": 2, "num_kv_shared_layers": 0}}),
        ),
        ("gemma4@q4", json!({"text_config": {"layer_types": null, "sliding_window_pattern": 4097}})),
        ("gemma3_text@mxfp4", json!({"sliding_window_pattern": 4096, "num_hidden_layers": 4096})),
        ("gemma3_text@mxfp4", json!({"sliding_window_pattern": 4097})),
        ("gemma3_text@mxfp4", json!({"sliding_window": null})),
        ("cohere2@q4", json!({"sliding_window": null})),
        ("cohere2@q4", json!({"sliding_window_pattern": null})),
        ("olmo3@q4", json!({"layer_types": null, "num_hidden_layers": 6})),
        ("olmo3@q4", json!({"layer_types": ["full_attention"]})),
        ("gpt_oss@mxfp4-q4", json!({"layer_types": null, "num_hidden_layers": 5})),
        ("gpt_oss@mxfp4-q4", json!({"sliding_window": null})),
        ("exaone4@q4", json!({"sliding_window_pattern": "LLX"})),
        ("exaone4@q4", json!({"sliding_window_pattern": "G"})),
        ("exaone4@q4", json!({"sliding_window_pattern": ""})),
        ("exaone4@q4", json!({"sliding_window_pattern": "LG", "num_hidden_layers": 5})),
        ("smollm3@q4", json!({"no_rope_layers": null, "no_rope_layer_interval": 2, "num_hidden_layers": 6})),
        ("smollm3@q4", json!({"no_rope_layers": null, "no_rope_layer_interval": null, "num_hidden_layers": 6})),
        ("smollm3@q4", json!({"no_rope_layers": [1, 0]})),
        ("smollm3@q4", json!({"no_rope_layers": [1, 2, 1, 0]})),
        ("llama@swa-q4", json!({"layer_types": ["sliding_attention", "full_attention"]})),
        ("llama@swa-q4", json!({"layer_types": null})),
        ("llama@swa-q4", json!({"sliding_window": null})),
        ("lfm2@q4", json!({"full_attn_idxs": [], "layer_types": null})),
        ("lfm2@q4", json!({"full_attn_idxs": [0], "layer_types": null})),
        ("lfm2@q4", json!({"full_attn_idxs": [99], "layer_types": null})),
        ("lfm2@q4", json!({"full_attn_idxs": [0], "layer_types": null, "num_hidden_layers": 4096})),
        ("lfm2@q4", json!({"full_attn_idxs": [0], "layer_types": null, "num_hidden_layers": 4097})),
        ("lfm2@q4", json!({"full_attn_idxs": null, "layer_types": null})),
        ("qwen3_5@q4", json!({"text_config": {"layer_types": null, "full_attention_interval": 2}})),
        ("qwen3_next@q4", json!({"full_attention_interval": 1})),
        ("qwen3_next@q4", json!({"full_attention_interval": 99})),
        // Experts.
        ("glm4_moe@q4", json!({"n_group": 2, "topk_group": 1})),
        ("glm4_moe@q4", json!({"n_group": 2, "topk_group": 2})),
        ("glm4_moe@q4", json!({"n_group": 2, "topk_group": 3})),
        ("glm4_moe@q4", json!({"n_group": 3, "topk_group": 1})),
        ("glm4_moe@q4", json!({"n_group": 4, "topk_group": 2, "n_routed_experts": 8})),
        ("glm4_moe@q4", json!({"n_group": 8, "topk_group": 2, "n_routed_experts": 8})),
        ("glm4_moe@q4", json!({"num_experts_per_tok": 99})),
        ("glm4_moe@q4", json!({"first_k_dense_replace": 0})),
        ("glm4_moe@q4", json!({"first_k_dense_replace": 2})),
        ("glm4_moe@q4", json!({"first_k_dense_replace": 99})),
        ("glm4_moe@q4", json!({"first_k_dense_replace": 1, "num_hidden_layers": 4096})),
        ("glm4_moe@q4", json!({"first_k_dense_replace": 1, "num_hidden_layers": 4097})),
        ("glm4_moe@q4", json!({"first_k_dense_replace": 0, "num_hidden_layers": 4097})),
        ("glm4_moe@q4", json!({"n_shared_experts": null})),
        ("glm4_moe@q4", json!({"n_shared_experts": 0})),
        ("qwen3_moe@mlponly-q4", json!({"mlp_only_layers": [0, 2]})),
        ("qwen3_moe@mlponly-q4", json!({"mlp_only_layers": []})),
        ("qwen3_moe@mlponly-q4", json!({"mlp_only_layers": ["a"]})),
        ("qwen3_moe@mlponly-q4", json!({"decoder_sparse_step": 2, "mlp_only_layers": []})),
        ("qwen2_moe@q4", json!({"num_experts_per_tok": 1})),
        ("ernie4_5_moe@q4", json!({"moe_layer_start_index": 0, "moe_layer_end_index": 1})),
        ("ernie4_5_moe@q4", json!({"moe_layer_interval": 2})),
        ("ernie4_5_moe@q4", json!({"moe_gate_act": "sigmoid"})),
        ("bailing_moe@q4", json!({"n_group": 2, "topk_group": 1})),
        ("bailing_moe@q4", json!({"score_function": "softmax"})),
        ("deepseek@q4", json!({"moe_layer_freq": 2})),
        // Rotary embeddings.
        ("gemma4@q4", json!({"text_config": {"rope_parameters": null}})),
        ("gemma4@q4", json!({"text_config": {"rope_parameters": {"full_attention": null}}})),
        (
            "gemma4@q4",
            json!({"text_config": {"rope_parameters": {"full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.5, "factor": 2.0}}}}),
        ),
        (
            "gemma4@q4",
            json!({"text_config": {"rope_parameters": {"full_attention": {"rope_type": "proportional", "partial_rotary_factor": 1.0}}}}),
        ),
        (
            "gemma4@q4",
            json!({"text_config": {"rope_parameters": {"full_attention": {"rope_type": "proportional", "partial_rotary_factor": 1.5}}}}),
        ),
        (
            "gemma4@q4",
            json!({"text_config": {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 5.0}}}}),
        ),
        ("bailing_moe@q4", json!({"rotary_dim": 31})),
        ("bailing_moe@q4", json!({"rotary_dim": 32})),
        ("bailing_moe@q4", json!({"rotary_dim": 34})),
        ("bailing_moe@q4", json!({"rotary_dim": 4096})),
        ("gpt_neox@q4", json!({"rotary_pct": 1.0})),
        ("gpt_neox@q4", json!({"rotary_pct": 1.5})),
        ("gpt_neox@q4", json!({"rotary_pct": 0.01})),
        ("phi3@q4", json!({"partial_rotary_factor": 0.5})),
        (
            "phi3@q4",
            json!({"max_position_embeddings": 4096, "original_max_position_embeddings": 4096, "rope_scaling": {"original_max_position_embeddings": 4096}}),
        ),
        (
            "phi3@q4",
            json!({"max_position_embeddings": 64, "original_max_position_embeddings": 4096, "rope_scaling": {"original_max_position_embeddings": 4096}}),
        ),
        (
            "phi3@q4",
            json!({"rope_scaling": {"original_max_position_embeddings": 1}, "original_max_position_embeddings": 1}),
        ),
        ("phi3@q4", json!({"rope_scaling": {"long_factor": [0]}})),
        ("phi3@q4", json!({"rope_scaling": {"long_factor": vec![0.0; 12]}})),
        ("phi3@q4", json!({"rope_scaling": {"long_factor": vec![1e-60; 12]}})),
        ("phi3@q4", json!({"rope_scaling": {"long_factor": vec![1e60; 12]}})),
        ("phi3@q4", json!({"rope_scaling": {"long_factor": vec![2.0; 12]}})),
        ("phi3@q4", json!({"rope_scaling": {"long_factor": vec![2.0; 11]}})),
        ("llama@dynamic-q4", json!({"head_dim": 2})),
        ("llama@dynamic-q4", json!({"head_dim": 4})),
        ("llama@dynamic-q4", json!({"max_position_embeddings": null})),
        ("llama@yarn-q4", json!({"rope_scaling": {"mscale_all_dim": 0}})),
        ("llama@yarn-q4", json!({"rope_scaling": {"mscale_all_dim": 1.5}})),
        ("llama@yarn-q4", json!({"rope_scaling": {"mscale_all_dim": -1}})),
        ("llama@yarn-q4", json!({"rope_scaling": {"factor": 1.0, "mscale": 2.0}})),
        ("llama@yarn-q4", json!({"rope_scaling": {"factor": 0.5}})),
        (
            "llama@yarn-q4",
            json!({"rope_scaling": {"beta_fast": null, "beta_slow": null, "original_max_position_embeddings": null}}),
        ),
        ("llama@yarn-q4", json!({"rope_theta": 1.0})),
        ("llama@yarn-q4", json!({"rope_theta": 0.5})),
        ("llama@f16", json!({"rope_scaling": {"low_freq_factor": 4.0}})),
        (
            "llama@f16",
            json!({"rope_scaling": {"low_freq_factor": null, "high_freq_factor": null, "original_max_position_embeddings": null}}),
        ),
        ("gpt2@q4", json!({"rope_scaling": {"type": "linear", "factor": 2}})),
        ("gpt_neox@q4", json!({"rope_scaling": {"type": "linear", "factor": 2}})),
        ("phi@q4", json!({"rope_scaling": {"type": "linear", "factor": 2}})),
        ("gemma@q4", json!({"rope_scaling": {"type": "linear", "factor": 2}})),
        ("stablelm@q4", json!({"rope_scaling": {"type": "linear", "factor": 2}})),
        ("qwen3@rp-q4", json!({"rope_parameters": {"rope_type": "linear", "factor": 3}})),
        ("qwen3@rp-q4", json!({"rope_parameters": {"partial_rotary_factor": 0.5}})),
        ("qwen3@rp-q4", json!({"rope_theta": 7.0})),
        ("ministral3@q4", json!({"text_config": {"rope_parameters": null}})),
        ("ministral3@q4", json!({"text_config": {"rope_parameters": {"llama_4_scaling_beta": null}}})),
        ("mellum@q4", json!({"rope_parameters": {"full_attention": null}})),
        // Scales and bounds.
        ("gemma2@q4", json!({"attn_logit_softcapping": 0})),
        ("gemma2@q4", json!({"final_logit_softcapping": null})),
        ("granite@q4", json!({"logits_scaling": 0})),
        ("minicpm@q4", json!({"dim_model_base": null})),
        ("cohere@q4", json!({"logit_scale": null})),
        ("stablelm@parallel-q4", json!({"use_parallel_residual": false})),
        ("stablelm@q4", json!({"qk_layernorm": false})),
        ("apertus@q4", json!({"hidden_act": "silu"})),
    ]
}

/// As RFC 7396 merges objects, but for a list or a number in place of an object.
fn merge(into: &mut Value, patch: &Value) {
    match (into.as_object_mut(), patch.as_object()) {
        (Some(into), Some(patch)) => {
            for (key, value) in patch {
                match value {
                    Value::Null => drop(into.remove(key)),
                    value => merge(into.entry(key).or_insert_with(|| json!({})), value),
                }
            }
        }
        _ => *into = patch.clone(),
    }
}

#[test]
fn what_lies_at_an_edge_is_read_as_it_was() {
    let shown = |config: &Value| {
        let parsed = Config::parse(config.to_string().as_bytes());
        parsed.map(|parsed| format!("{:#?}", parsed.architecture)).map_err(|error| error.to_string())
    };
    let lines = |text: &str| {
        let mut count = BTreeMap::<String, i64>::new();
        // Without the lines that only open or close something.
        let says = |line: &&str| line.contains(": ") || line.starts_with(|c: char| c.is_ascii_digit());
        text.lines().map(str::trim).filter(says).for_each(|line| *count.entry(line.to_owned()).or_default() += 1);
        count
    };
    let published: BTreeMap<String, Value> = published().into_iter().map(|(name, config, _)| (name, config)).collect();
    let mut text = String::new();
    for (name, patch) in edges() {
        let plain = &published[name];
        let mut changed = plain.clone();
        merge(&mut changed, &patch);
        assert_ne!(*plain, changed, "{name}: {patch} changes nothing");
        text += &format!("{name} {patch}\n");
        match shown(&changed) {
            Err(error) => text += &format!("  refused: {error}\n"),
            Ok(now) => {
                let mut difference = lines(&now);
                for (line, count) in lines(&shown(plain).expect("it is read as it is published")) {
                    *difference.entry(line).or_default() -= count;
                }
                for (line, count) in difference.into_iter().filter(|(_, count)| *count != 0) {
                    text += &format!("  {count:+} {line}\n");
                }
            }
        }
    }
    as_stored("published_edges.txt", &text, WRITE);
}
