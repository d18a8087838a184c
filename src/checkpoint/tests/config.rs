//! Rules of `config.json` and `generation_config.json`.

use crate::checkpoint::{
    Checkpoint, CheckpointError, ConfigError,
    architecture::{Attention, Layer, Pairing, Rope, RopeScaling},
    config::Override,
    family::{LLAMA, MISTRAL, NATIVE},
};
use crate::quant::Format;
use crate::testing::fixture::Fixture;
use serde_json::{Value, json};

use super::{opened, refused, with_config, with_file};

/// The error of a configuration with `key` set to `value`.
#[track_caller]
fn refused_with(key: &str, value: Value, mentions: &[&str]) -> ConfigError {
    match refused(with_config(|config| config[key] = value), mentions) {
        CheckpointError::Config { file: "config.json", error } => error,
        other => panic!("another error: {other}"),
    }
}

/// The layer that all layers of a model are.
#[track_caller]
fn every_layer(checkpoint: &Checkpoint) -> &Layer {
    let layers = &checkpoint.config().architecture.layers;
    let first = layers.iter().next().expect("a layer");
    assert!(layers.iter().all(|layer| layer == first), "{layers:?}");
    first
}

fn attention(layer: &Layer) -> &Attention {
    layer.mixer.attention().expect("a layer that attends")
}

/// The rotary embedding of all layers.
#[track_caller]
fn rope(checkpoint: &Checkpoint) -> Rope {
    attention(every_layer(checkpoint)).rope.clone().expect("a rotary embedding")
}

fn without(key: &str) -> super::Files {
    with_config(|config| {
        config.as_object_mut().unwrap().remove(key).expect("the fixture has it");
    })
}

#[test]
fn each_key_without_a_default_is_required() {
    let required = [
        "model_type",
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "rms_norm_eps",
    ];
    for key in required {
        let error = refused(without(key), &["config.json", key]);
        assert!(
            matches!(error, CheckpointError::Config { error: ConfigError::Missing { key: missing }, .. } if missing == key)
        );
        refused_with(key, Value::Null, &[key]);
    }
}

#[test]
fn absent_keys_have_the_defaults_of_mlx_lm() {
    let files = with_config(|config| {
        let map = config.as_object_mut().unwrap();
        for key in ["rope_theta", "max_position_embeddings", "attention_bias", "mlp_bias", "eos_token_id", "hidden_act"]
        {
            map.remove(key);
        }
        map.insert("rope_scaling".into(), Value::Null);
        map.insert("head_dim".into(), Value::Null);
    });
    let checkpoint = opened(files);
    let (config, layer) = (checkpoint.config(), every_layer(&checkpoint));
    let (attention, mlp) = (attention(layer), &layer.mlp);
    assert_eq!((rope(&checkpoint).theta, rope(&checkpoint).scaling), (10_000.0, RopeScaling::Default));
    assert_eq!((attention.qkv_bias, attention.o_bias, mlp.mlp().bias), (false, false, false));
    assert_eq!((attention.head_dim, config.max_position_embeddings), (16, None));
    assert!(config.eos_token_ids.is_empty());
}

#[test]
fn as_many_key_value_heads_as_query_heads_where_the_key_is_absent() {
    let fixture = Fixture { num_key_value_heads: 4, ..Fixture::default() };
    let mut config = fixture.config();
    config.as_object_mut().unwrap().remove("num_key_value_heads");
    let files = crate::testing::fixture::files_of(&config, &fixture.tensors(), 1);
    assert_eq!(attention(every_layer(&opened(files))).kv_heads, 4);
}

#[test]
fn sizes_are_whole_positive_and_bounded() {
    let keys = [
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "max_position_embeddings",
    ];
    for key in keys {
        for value in
            [json!(0), json!(-1), json!(1.5), json!("64"), json!(1u64 << 60), json!(u64::MAX), json!([1]), json!(true)]
        {
            let error = refused_with(key, value, &[key]);
            assert!(matches!(error, ConfigError::Invalid { .. }), "{key}: {error}");
        }
    }
}

#[test]
fn sizes_whose_product_would_be_too_large_are_refused() {
    refused(
        with_config(|config| {
            config["num_attention_heads"] = json!(1 << 24);
            config["num_key_value_heads"] = json!(1 << 24);
            config["head_dim"] = json!(1 << 24);
        }),
        &["head_dim"],
    );
}

#[test]
fn eps_theta_and_factors_are_positive_and_finite() {
    for key in ["rms_norm_eps", "rope_theta"] {
        for value in
            [json!(0), json!(-1.0), json!(1e300), json!(1e-300), json!("1e-5"), json!({"__float__": "Infinity"})]
        {
            refused_with(key, value, &[key]);
        }
    }
    for factor in [json!(0.0), json!(-2), json!("8")] {
        refused_with("rope_scaling", json!({"rope_type": "linear", "factor": factor}), &["rope_scaling.factor"]);
    }
}

#[test]
fn heads_that_cannot_be_shared_out_are_refused() {
    let error = refused_with("num_key_value_heads", json!(3), &["num_attention_heads 4", "num_key_value_heads 3"]);
    assert_eq!(error, ConfigError::Heads { heads: 4, kv_heads: 3 });
}

#[test]
fn an_odd_or_undefined_head_dim_is_refused() {
    assert_eq!(refused_with("head_dim", json!(15), &["head_dim"]), ConfigError::OddRotation(15));
    let error = refused(
        with_config(|config| {
            config["num_attention_heads"] = json!(6);
        }),
        &["head_dim"],
    );
    assert!(matches!(error, CheckpointError::Config { error: ConfigError::HeadDim { hidden_size: 64, heads: 6 }, .. }));
}

#[test]
fn other_model_types_are_refused_by_name() {
    let error = refused_with("model_type", json!("falcon"), &["model_type", "falcon", "llama", "--backend mlx-lm"]);
    assert_eq!(error, ConfigError::ModelType("falcon".to_owned()));
    refused_with("model_type", json!(3), &["model_type"]);
}

#[test]
fn a_refused_model_type_is_told_every_native_one() {
    let native: Vec<&str> = NATIVE.iter().map(|family| family.model_type).collect();
    refused_with("model_type", json!("falcon"), &native);
}

#[test]
fn a_key_that_mlx_lm_does_not_read_is_left_alone() {
    for (key, value) in [
        ("rope_interleaved", json!(false)),
        ("is_llama_config", json!(true)),
        ("a_note_of_somebody", json!({"any": ["thing"]})),
        ("transformers_version", json!("5.0.0")),
        ("_name_or_path", json!("elsewhere")),
        ("attention_dropout", json!(0.1)),
        ("pad_token_id", json!(7)),
        ("use_cache", json!(true)),
        ("auto_map", json!({"AutoModelForCausalLM": "modeling.Model"})),
        ("pretraining_tp", json!(1)),
        ("quantization_config", json!({"group_size": 32, "bits": 4})),
    ] {
        opened(with_config(|config| config[key] = value));
    }
}

#[test]
fn a_key_that_asks_for_what_the_family_does_not_have_is_refused_by_name() {
    for (key, asks, silent) in [
        ("attention_multiplier", json!(0.125), json!(1.0)),
        ("embedding_multiplier", json!(12), json!(null)),
        ("final_logit_softcapping", json!(30.0), json!(null)),
        ("num_local_experts", json!(8), json!(0)),
        ("use_qk_norm", json!(true), json!(false)),
        ("partial_rotary_factor", json!(0.5), json!(1.0)),
        ("no_rope_layers", json!([1, 0]), json!([])),
    ] {
        let error = refused_with(key, asks, &[key, "asks for something"]);
        assert_eq!(error, ConfigError::Asks { key: key.to_owned() });
        opened(with_config(|config| config[key] = silent));
    }
}

#[test]
fn a_sliding_window_alone_slides_nothing_and_layers_slide_where_they_are_listed() {
    for family in [&LLAMA, &MISTRAL] {
        let fixture = Fixture { family, ..Fixture::default() };
        let with = |change: fn(&mut Value)| {
            let mut config = fixture.config();
            change(&mut config);
            crate::testing::fixture::files_of(&config, &fixture.tensors(), 1)
        };
        let plain = opened(fixture.files());
        let windowed = opened(with(|config| config["sliding_window"] = json!(4)));
        assert_eq!(windowed.config(), plain.config(), "{}", family.name);
        let sliding = opened(with(|config| {
            config["sliding_window"] = json!(4);
            config["layer_types"] = json!(["full_attention", "sliding_attention"]);
        }));
        let windows: Vec<_> =
            sliding.config().architecture.layers.iter().map(|layer| attention(layer).window).collect();
        assert_eq!(windows, [None, Some(4)]);
        let without: fn(&mut Value) = |config| config["layer_types"] = json!(["full_attention", "sliding_attention"]);
        refused(with(without), &["sliding_window", "missing"]);
    }
}

#[test]
fn a_mistral_is_a_llama_by_another_name() {
    let config = |family| opened(Fixture { family, head_dim: Some(32), ..Fixture::default() }.files()).config().clone();
    let (mistral, llama) = (config(&MISTRAL), config(&LLAMA));
    assert_eq!((mistral.family.model_type, llama.family.model_type), ("mistral", "llama"));
    assert_eq!(mistral.architecture, llama.architecture);
}

#[test]
fn other_activations_are_refused_by_name() {
    assert_eq!(
        refused_with("hidden_act", json!("gelu"), &["hidden_act", "gelu"]),
        ConfigError::Activation { key: "hidden_act".to_owned(), found: "gelu".to_owned(), wanted: "`silu`".to_owned() }
    );
}

#[test]
fn which_columns_are_turned_together_is_read() {
    for (traditional, pairing) in [(true, Pairing::Neighbours), (false, Pairing::Halves)] {
        let checkpoint = opened(with_config(|config| config["rope_traditional"] = json!(traditional)));
        assert_eq!(rope(&checkpoint).pairing, pairing);
    }
}

#[test]
fn each_supported_rope_scaling_is_read_under_both_names_of_its_type() {
    for key in ["rope_type", "type"] {
        let scaled = |scaling: Value| {
            let checkpoint = opened(with_config(|config| {
                config["rope_scaling"] = scaling;
            }));
            rope(&checkpoint).scaling
        };
        assert_eq!(scaled(json!({key: "default"})), RopeScaling::Default);
        assert_eq!(scaled(json!({key: "linear", "factor": 2.5})), RopeScaling::Linear { factor: 2.5 });
        let llama3 = json!({
            key: "llama3", "factor": 32.0, "low_freq_factor": 1.5, "high_freq_factor": 5, "original_max_position_embeddings": 4096
        });
        let expected = RopeScaling::Llama3 {
            factor: 32.0,
            low_freq_factor: 1.5,
            high_freq_factor: 5.0,
            original_max_position_embeddings: 4096.0,
        };
        assert_eq!(scaled(llama3), expected);
        let defaults = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192.0,
        };
        assert_eq!(scaled(json!({key: "llama3", "factor": 8})), defaults);
    }
    opened(with_config(|config| config["rope_scaling"] = json!({})));
}

#[test]
fn other_rope_scalings_are_refused_by_name() {
    for kind in ["ntk", "su"] {
        let error = refused_with("rope_scaling", json!({"type": kind, "factor": 2}), &[kind]);
        assert_eq!(error, ConfigError::RopeType(kind.to_owned()));
    }
}

#[test]
fn a_rope_scaling_that_lacks_or_contradicts_is_refused() {
    refused_with("rope_scaling", json!({"type": "linear"}), &["rope_scaling.factor"]);
    refused_with("rope_scaling", json!({"type": "llama3"}), &["rope_scaling.factor"]);
    refused_with("rope_scaling", json!({"type": "linear", "rope_type": "llama3", "factor": 2}), &["rope_scaling.type"]);
    let equal = json!({"type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4});
    refused_with("rope_scaling", equal, &["rope_scaling.high_freq_factor"]);
    refused_with("rope_scaling", json!([1]), &["rope_scaling", "object"]);
}

#[test]
fn rope_parameters_of_newer_transformers_are_read() {
    let newer = json!({"rope_theta": 500000.0, "rope_type": "llama3", "factor": 8.0});
    let checkpoint = opened(with_config(|config| {
        config.as_object_mut().unwrap().remove("rope_theta");
        config["rope_parameters"] = newer.clone();
    }));
    assert_eq!(rope(&checkpoint).theta, 500_000.0);
    assert!(matches!(rope(&checkpoint).scaling, RopeScaling::Llama3 { factor: 8.0, .. }));

    refused_with("rope_parameters", newer, &["rope_theta", "rope_parameters.rope_theta"]);
    refused(
        with_config(|config| {
            config["rope_scaling"] = json!({"rope_type": "linear", "factor": 2});
            config["rope_parameters"] = json!({"rope_type": "default"});
        }),
        &["rope_scaling", "rope_parameters"],
    );
    refused_with(
        "rope_parameters",
        json!({"full_attention": {"rope_type": "default"}}),
        &["rope_parameters.full_attention"],
    );
    refused_with("rope_parameters", json!({"partial_rotary_factor": 0.5}), &["rope_parameters.partial_rotary_factor"]);
}

#[test]
fn attention_that_is_neither_full_nor_slides_is_refused() {
    let error = refused_with(
        "layer_types",
        json!(["full_attention", "chunked_attention"]),
        &["layer_types[1]", "chunked_attention"],
    );
    let (found, other) = ("chunked_attention".to_owned(), "sliding_attention");
    assert_eq!(error, ConfigError::LayerType { layer: 1, found, other });
    refused_with("layer_types", json!(["full_attention"]), &["layer_types", "2 layers"]);
    refused_with("layer_types", json!([1, 2]), &["layer_types"]);
    refused_with("layer_types", json!("full_attention"), &["layer_types"]);
    opened(with_config(|config| {
        config["layer_types"] = json!(["full_attention", "full_attention"]);
        config["sliding_window"] = json!(4096);
    }));
}

#[test]
fn a_tie_that_is_neither_true_nor_false_is_refused() {
    refused_with("tie_word_embeddings", Value::Null, &["tie_word_embeddings"]);
    refused_with("tie_word_embeddings", json!("false"), &["tie_word_embeddings"]);
}

#[test]
fn a_checkpoint_without_quantization_is_told_how_to_get_one() {
    let error = refused(without("quantization"), &["head is not quantized", "mlx_lm.convert -q"]);
    assert!(matches!(error, CheckpointError::Config { error: ConfigError::NotQuantized, .. }));
}

#[test]
fn another_quantizer_is_refused_by_name() {
    let error = refused(
        with_config(|config| {
            config.as_object_mut().unwrap().remove("quantization");
            config["quantization_config"] = json!({"quant_method": "awq", "bits": 4});
        }),
        &["awq", "mlx_lm.convert -q"],
    );
    assert!(matches!(error, CheckpointError::Config { error: ConfigError::OtherQuantizer(_), .. }));
}

#[test]
fn widths_of_codes_that_mlx_does_not_have_are_refused() {
    let quantized = |bits: Value| json!({"group_size": 32, "bits": bits});
    for bits in [0, 1, 7, 16, 1 << 40] {
        let error = refused_with("quantization", quantized(json!(bits)), &["quantization.bits"]);
        assert_eq!(error, ConfigError::Bits { key: "quantization.bits".to_owned(), bits });
    }
    refused_with("quantization", quantized(json!(4.0)), &["quantization.bits"]);
    refused_with("quantization", json!({"group_size": 32}), &["quantization.bits", "missing"]);
}

#[test]
fn group_sizes_that_mlx_does_not_have_are_refused() {
    for group_size in [0, 16, 33, 256] {
        let error =
            refused_with("quantization", json!({"group_size": group_size, "bits": 4}), &["quantization.group_size"]);
        assert!(matches!(error, ConfigError::GroupSize { .. }));
    }
    refused_with("quantization", json!({"bits": 4}), &["quantization.group_size", "missing"]);
}

#[test]
fn a_mode_has_one_width_and_one_group_size_and_unknown_ones_are_refused_by_name() {
    for (mode, bits, group_size) in [("mxfp4", 8, 32), ("mxfp4", 4, 64), ("nvfp4", 4, 32), ("mxfp8", 4, 32)] {
        let quantization = json!({"group_size": group_size, "bits": bits, "mode": mode});
        let error = refused_with("quantization", quantization, &["quantization.", mode]);
        assert!(matches!(error, ConfigError::OfMode { .. }), "{error}");
    }
    for mode in ["mxfp6", "float", ""] {
        let quantization = json!({"group_size": 32, "bits": 4, "mode": mode});
        let error = refused_with("quantization", quantization, &["quantization.mode", mode]);
        assert_eq!(error, ConfigError::Mode { key: "quantization.mode".to_owned(), mode: mode.to_owned() });
    }
    opened(with_config(|config| {
        config["quantization"].as_object_mut().unwrap().remove("mode");
    }));
}

#[test]
fn an_exception_is_checked_like_the_scheme_of_the_model() {
    let with = |value: Value| json!({"group_size": 32, "bits": 4, "lm_head": value});
    refused_with("quantization", with(json!({"bits": 7, "group_size": 32})), &["quantization.lm_head.bits"]);
    refused_with("quantization", with(json!({"bits": 4, "group_size": 7})), &["quantization.lm_head.group_size"]);
    refused_with("quantization", with(json!({"mode": "mxfp5"})), &["quantization.lm_head.mode"]);
    refused_with("quantization", with(json!({"mode": "mxfp4", "bits": 8})), &["quantization.lm_head.bits"]);
}

#[test]
fn an_exception_that_leaves_something_out_has_the_defaults_of_mlx() {
    let config = with_config(|config| config["quantization"]["model.layers.0.mlp.up_proj"] = json!({"bits": 8}));
    // 8 bits in groups of 64, where the model has groups of 32: the tensors do not fit any more.
    refused(config, &["model.layers.0.mlp.up_proj.scales", "8 bits in groups of 64"]);
    let parsed = crate::checkpoint::Config::parse(
        json!({
            "model_type": "llama", "vocab_size": 8, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1,
            "num_attention_heads": 2, "rms_norm_eps": 1e-5,
            "quantization": {
                "group_size": 32, "bits": 8, "a": {}, "b": false, "c": true, "d": {"mode": "nvfp4"},
                "e": {"group_size": 128, "bits": 3, "quant_method": "mlx"}, "linear_class": "quantized_linear", "f": 8
            }
        })
        .to_string()
        .as_bytes(),
    )
    .unwrap();
    assert!(parsed.architecture.tied, "an absent key means true");
    let quantization = &parsed.quantization;
    assert_eq!(quantization.format, Format::affine(8, 32).expect("a format"));
    assert_eq!(quantization.overrides["a"], Override::Format(Format::affine(4, 64).expect("a format")));
    assert_eq!(quantization.overrides["b"], Override::Dense);
    assert_eq!(quantization.overrides["c"], Override::Quantized);
    assert_eq!(quantization.overrides["d"], Override::Format(Format::NVFP4));
    assert_eq!(quantization.overrides["e"], Override::Format(Format::affine(3, 128).expect("a format")));
    assert_eq!(quantization.overrides.len(), 5, "what is no entry of a module says nothing");
}

#[test]
fn eos_tokens_come_as_one_number_or_as_a_list() {
    for (value, expected) in
        [(json!(5), vec![5]), (json!([7, 3, 7]), vec![7, 3]), (json!(0), vec![0]), (Value::Null, vec![])]
    {
        let checkpoint = opened(with_config(|config| config["eos_token_id"] = value));
        assert_eq!(checkpoint.config().eos_token_ids, expected);
    }
}

#[test]
fn eos_tokens_of_the_generation_config_win_unless_they_are_none() {
    for (generation, expected) in [
        (json!({"eos_token_id": [9, 8]}), vec![9, 8]),
        (json!({"eos_token_id": 4}), vec![4]),
        (json!({"eos_token_id": 0}), vec![2]),
        (json!({"eos_token_id": []}), vec![2]),
        (json!({"eos_token_id": null}), vec![2]),
        (json!({}), vec![2]),
    ] {
        let files = with_file(Fixture::default().files(), "generation_config.json", generation.to_string());
        assert_eq!(opened(files).config().eos_token_ids, expected, "{generation}");
    }
}

#[test]
fn eos_tokens_outside_the_vocabulary_are_left_out_with_a_note() {
    for (value, expected, unused) in [
        (json!(96), vec![], vec![96]),
        (json!([2, 49200]), vec![2], vec![49200]),
        (json!([1, 1u64 << 40, 1, 1u64 << 40]), vec![1], vec![1 << 40]),
    ] {
        let checkpoint = opened(with_config(|config| config["eos_token_id"] = value));
        assert_eq!((&checkpoint.config().eos_token_ids, &checkpoint.config().unused_eos), (&expected, &unused));
        let [note] = checkpoint.notes() else { panic!("{:?}", checkpoint.notes()) };
        assert!(note.contains(&unused[0].to_string()) && note.contains("left out"), "{note}");
    }
    refused_with("eos_token_id", json!(["</s>"]), &["eos_token_id"]);
    refused_with("eos_token_id", json!(-1), &["eos_token_id"]);
    let files = with_config(|config| config["eos_token_id"] = json!([2, 49200]));
    let overridden = opened(with_file(files, "generation_config.json", r#"{"eos_token_id": [1, 1000]}"#));
    assert_eq!((&overridden.config().eos_token_ids, &overridden.config().unused_eos), (&vec![1], &vec![1000]));
    let files = with_config(|config| config["eos_token_id"] = json!([2, 49200]));
    let sound = opened(with_file(files, "generation_config.json", r#"{"eos_token_id": 4}"#));
    assert_eq!((&sound.config().eos_token_ids, sound.notes().len()), (&vec![4], 0));
}

#[test]
fn a_file_that_is_not_an_object_of_json_is_refused() {
    let valid = Fixture::default().config().to_string();
    let deep = "[".repeat(100_000);
    let twice = valid.replacen('{', r#"{"vocab_size": 96, "#, 1);
    let nested_twice = valid.replacen(r#""bits":"#, r#""bits":4,"bits":"#, 1);
    assert_ne!(nested_twice, valid);
    for (text, mention) in [
        ("", "not valid JSON"),
        (&valid[..valid.len() / 2], "not valid JSON"),
        ("[1, 2]", "not an object"),
        ("{} {}", "not valid JSON"),
        (&deep, "not valid JSON"),
        (&twice, "`vocab_size` is given twice"),
        (&nested_twice, "`bits` is given twice"),
        ("\u{feff}{}", "not valid JSON"),
    ] {
        for name in ["config.json", "generation_config.json"] {
            refused(with_file(Fixture::default().files(), name, text), &[name, mention]);
        }
    }
    refused(with_file(Fixture::default().files(), "config.json", *b"{\"a\": \"\xff\"}"), &["not valid JSON"]);
    refused(with_file(Fixture::default().files(), "config.json", " ".repeat(3 << 20)), &["config.json", "bytes"]);
}

#[test]
fn text_from_a_file_cannot_write_control_characters_to_a_terminal() {
    let error = refused_with("model_type", json!("\u{1b}[2Jgone"), &["gone"]);
    assert!(!error.to_string().contains('\u{1b}'));
    let long = refused_with("model_type", json!("x".repeat(100_000)), &["…"]);
    assert!(long.to_string().len() < 2000);
}
