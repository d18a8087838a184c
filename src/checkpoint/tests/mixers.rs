//! Layers that mix positions by something else than attention: which they are, and with which sizes and tensors.

use crate::{
    checkpoint::{
        CheckpointError, ConfigError, WeightsError,
        architecture::{Architecture, DeltaProjections, FeedForward, Mixer},
        family::{Family, LFM2, LFM2_MOE, QWEN3_5, QWEN3_5_MOE, QWEN3_NEXT},
    },
    testing::fixture::{Fixture, files_of},
};
use serde_json::{Value, json};

use super::{opened, refused};

fn fixture(family: &'static Family) -> Fixture {
    Fixture { family, num_hidden_layers: 4, tie_word_embeddings: Some(true), ..Fixture::default() }
}

/// The keys of the model in a configuration.
fn own(config: &mut Value) -> &mut Value {
    if config.get("text_config").is_some() { &mut config["text_config"] } else { config }
}

/// The files of a family's fixture with some keys changed; those that are null are removed.
fn with(family: &'static Family, keys: &[(&str, Value)]) -> super::Files {
    let fixture = fixture(family);
    let mut config = fixture.config();
    for (key, value) in keys {
        own(&mut config)[*key] = value.clone();
        own(&mut config).as_object_mut().expect("an object").retain(|_, value| !value.is_null());
    }
    files_of(&config, &fixture.tensors(), 1)
}

fn refused_config(family: &'static Family, keys: &[(&str, Value)], mentions: &[&str]) -> ConfigError {
    match refused(with(family, keys), mentions) {
        CheckpointError::Config { error, .. } => error,
        other => panic!("another error: {other}"),
    }
}

/// A letter for each layer: `a` for attention, `c` for a convolution, `d` for a DeltaNet.
fn kinds(architecture: &Architecture) -> String {
    let letter = |mixer: &Mixer| match mixer {
        Mixer::Attention(_) => 'a',
        Mixer::ShortConvolution(_) => 'c',
        Mixer::DeltaNet(_) => 'd',
    };
    architecture.layers.iter().map(|layer| letter(&layer.mixer)).collect()
}

#[test]
fn the_layers_that_attend_are_those_that_a_list_numbers_or_names_or_every_nth() {
    let of = |family, keys: &[(&str, Value)]| kinds(&opened(with(family, keys)).config().architecture);
    assert_eq!(of(&LFM2, &[]), "ccac");
    assert_eq!(of(&LFM2, &[("layer_types", json!(null)), ("full_attn_idxs", json!([2]))]), "ccac");
    // As in mlx-lm the list of numbers is asked first.
    let both = [("layer_types", json!(["full_attention", "conv", "conv", "conv"])), ("full_attn_idxs", json!([2]))];
    assert_eq!(of(&LFM2, &both), "ccac");
    assert_eq!(of(&QWEN3_5, &[]), "dada");
    // A list of the types says nothing that the interval does not.
    let types = json!(["linear_attention", "full_attention", "linear_attention", "full_attention"]);
    assert_eq!(of(&QWEN3_5, &[("layer_types", types), ("attn_output_gate", json!(true))]), "dada");
}

#[test]
fn lists_and_intervals_that_fit_no_layers_are_refused() {
    let none = ("layer_types", json!(null));
    for (list, mention) in [(json!([4]), "[4]"), (json!([]), "one at least"), (json!(["2"]), "numbers")] {
        refused_config(&LFM2, &[none.clone(), ("full_attn_idxs", list)], &["full_attn_idxs", mention]);
    }
    refused_config(&LFM2, &[none], &["full_attn_idxs", "missing"]);
    let all = json!(["conv", "conv", "conv", "conv"]);
    refused_config(&LFM2, &[("layer_types", all)], &["layer_types", "one layer has full attention"]);
    let other = json!(["conv", "conv", "full_attention", "sliding_attention"]);
    let error = refused_config(&LFM2, &[("layer_types", other)], &["layer_types[3]", "`conv` only"]);
    assert_eq!(error, ConfigError::LayerType { layer: 3, found: "sliding_attention".to_owned(), other: "conv" });
    for interval in [0, 5, 1 << 20] {
        refused_config(&QWEN3_5, &[("full_attention_interval", json!(interval))], &["full_attention_interval"]);
    }
    // Memory must not grow with a number of layers that nothing bears out.
    let many = [("num_hidden_layers", json!(1 << 24)), ("layer_types", json!(null)), ("full_attn_idxs", json!([2]))];
    refused_config(&LFM2, &many, &["num_hidden_layers", "4096"]);
}

#[test]
fn sizes_of_a_delta_net_are_read_and_must_go_together() {
    let checkpoint = opened(with(&QWEN3_5, &[]));
    let Mixer::DeltaNet(net) = &checkpoint.config().architecture.layers.kinds()[0].mixer else { panic!("a DeltaNet") };
    assert_eq!((net.key_heads, net.value_heads, net.key_dim, net.value_dim, net.taps), (2, 4, 24, 16, 4));
    assert_eq!((net.key_size(), net.value_size(), net.mixed_size()), (48, 64, 160));
    assert_eq!(net.projections, DeltaProjections::Apart);
    let error = refused_config(&QWEN3_5, &[("linear_num_value_heads", json!(3))], &["linear_num_value_heads", "3"]);
    assert!(matches!(error, ConfigError::DeltaHeads { value_heads: 3, key_heads: 2, .. }));
    for (key, value) in [
        ("linear_conv_kernel_dim", json!(65)),
        ("linear_conv_kernel_dim", json!(0)),
        ("linear_key_head_dim", json!(1 << 20)),
        ("linear_value_head_dim", json!(1 << 23)),
    ] {
        refused_config(&QWEN3_5, &[(key, value)], &[key]);
    }
    refused_config(&LFM2, &[("conv_L_cache", json!(null))], &["conv_L_cache", "missing"]);
}

#[test]
fn the_width_of_an_mlp_is_adjusted_where_a_flag_says_so() {
    let width = |keys: &[(&str, Value)]| {
        let error = refused(with(&LFM2, keys), &["feed_forward.w1"]);
        let CheckpointError::Weights(WeightsError::Shape { wanted, .. }) = error else { panic!("{error}") };
        wanted[0]
    };
    let keys = |ff: u64, adjust: bool, factor: f64, multiple: u64| {
        [
            ("block_ff_dim", json!(ff)),
            ("block_auto_adjust_ff_dim", json!(adjust)),
            ("block_ffn_dim_multiplier", json!(factor)),
            ("block_multiple_of", json!(multiple)),
        ]
    };
    assert_eq!(width(&keys(96, false, 1.0, 64)), 96);
    // 2 * 500 / 3 = 333.3, 333 * 1.5 = 499.5, and 499 rounded up.
    assert_eq!(width(&keys(500, true, 1.5, 100)), 500);
    assert_eq!(width(&keys(500, true, 1.5, 499)), 499);
    assert_eq!(
        width(
            &[&keys(1, false, 1.0, 1)[1..], &[("block_ff_dim", json!(null)), ("intermediate_size", json!(32))]]
                .concat()
        ),
        32
    );
    refused_config(&LFM2, &[("block_auto_adjust_ff_dim", json!(null))], &["block_auto_adjust_ff_dim", "missing"]);
}

#[test]
fn every_tensor_of_a_mixer_is_needed_in_its_shape() {
    for family in [&LFM2, &QWEN3_5, &QWEN3_NEXT] {
        let fixture = fixture(family);
        let of_mixer = |name: &str| [".conv.", ".linear_attn."].iter().any(|part| name.contains(part));
        let names: Vec<String> = fixture.tensors().into_keys().filter(|name| of_mixer(name)).collect();
        assert!(names.len() > 10, "{names:?}");
        for name in names {
            let mut tensors = fixture.tensors();
            let tensor = tensors.remove(&name).expect("a tensor");
            let mention = name.replace(".scales", ".weight");
            refused(files_of(&fixture.config(), &tensors, 1), &[&mention]);
            let shape = [&tensor.shape[..], &[1]].concat();
            tensors.insert(name.clone(), crate::testing::fixture::FixtureTensor { shape, ..tensor });
            refused(files_of(&fixture.config(), &tensors, 1), &[&name]);
        }
    }
}

#[test]
fn a_family_with_experts_has_the_mixers_of_the_one_without() {
    for (with, without) in [(&LFM2_MOE, &LFM2), (&QWEN3_5_MOE, &QWEN3_5), (&QWEN3_NEXT, &QWEN3_5)] {
        let [with, without] = [with, without].map(|family| opened(fixture(family).files()));
        let [some, others] = [&with, &without].map(|checkpoint| &checkpoint.config().architecture);
        assert_eq!(kinds(some), kinds(others));
        let experts = some.layers.iter().filter(|layer| matches!(layer.mlp, FeedForward::Experts(_))).count();
        assert!(experts >= 3, "{experts} of four layers");
    }
    let checkpoint = opened(fixture(&QWEN3_NEXT).files());
    let Mixer::DeltaNet(net) = &checkpoint.config().architecture.layers.kinds()[0].mixer else { panic!("a DeltaNet") };
    assert_eq!(net.projections, DeltaProjections::ByKeyHead);
}

#[test]
fn convolutions_as_transformers_stores_them_are_refused_by_their_shape() {
    let fixture = fixture(&QWEN3_5);
    let mut tensors = fixture.tensors();
    let name = "language_model.model.layers.0.linear_attn.conv1d.weight";
    tensors.get_mut(name).expect("a convolution").shape = vec![160, 1, 4];
    refused(files_of(&fixture.config(), &tensors, 1), &[name, "[160, 1, 4]", "[160, 4, 1]"]);
}

#[test]
fn layers_that_predict_further_ahead_and_other_parts_are_left_out() {
    let fixture = fixture(&QWEN3_5);
    let mut tensors = fixture.tensors();
    let (_, some) = tensors.first_key_value().expect("a tensor");
    let some = some.clone();
    for name in ["mtp.fc.weight", "language_model.mtp.norm.weight", "vision_tower.blocks.0.norm1.weight"] {
        tensors.insert(name.to_owned(), some.clone());
    }
    opened(files_of(&fixture.config(), &tensors, 1));
}
