//! Which tensors a model must have, with which shapes and types, and no others.

use std::collections::BTreeMap;

use crate::{
    checkpoint::{
        CheckpointError, FeedForwardWeights, Inner, MlpWeights, WeightsError, config::Override, family,
        weights::Weights,
    },
    quant::{FloatType, Format, MatrixError},
    testing::fixture::{Fixture, FixtureTensor, files_of},
};
use safetensors::Dtype;
use serde_json::json;

use super::{opened, refused, with_config, with_tensors};

#[track_caller]
fn refused_weights(files: super::Files, mentions: &[&str]) -> WeightsError {
    match refused(files, mentions) {
        CheckpointError::Weights(error) => error,
        other => panic!("another error: {other}"),
    }
}

fn floats(len: usize) -> FixtureTensor {
    FixtureTensor { dtype: Dtype::F16, shape: vec![len], data: vec![0; 2 * len] }
}

fn with_biases() -> Fixture {
    Fixture { attention_bias: true, mlp_bias: true, ..Fixture::default() }
}

#[test]
fn every_tensor_is_needed() {
    let fixture = with_biases();
    for name in fixture.tensors().into_keys() {
        let files = with_tensors(&fixture, |tensors| {
            tensors.remove(&name);
        });
        // Without scales, a matrix is taken for an unquantized one, with packed words of a wrong shape.
        let mention = name.replace(".scales", ".weight");
        let error = refused_weights(files, &[&mention]);
        assert_eq!(matches!(error, WeightsError::Missing { .. }), !name.ends_with(".scales"), "{name}: {error}");
    }
}

#[test]
fn every_shape_is_checked() {
    let fixture = with_biases();
    for (name, tensor) in fixture.tensors() {
        let [doubled, transposed, flat] = [
            FixtureTensor {
                shape: [&[2 * tensor.shape[0]], &tensor.shape[1..]].concat(),
                data: [tensor.data.clone(), tensor.data.clone()].concat(),
                ..tensor.clone()
            },
            FixtureTensor { shape: tensor.shape.iter().rev().copied().chain([1]).collect(), ..tensor.clone() },
            FixtureTensor { shape: vec![1, tensor.shape.iter().product()], ..tensor.clone() },
        ];
        for wrong in [doubled, transposed, flat] {
            let error = refused_weights(
                with_tensors(&fixture, |tensors| {
                    tensors.insert(name.clone(), wrong);
                }),
                &[&name, "config.json"],
            );
            assert!(matches!(error, WeightsError::Shape { .. }), "{name}: {error}");
        }
    }
}

#[test]
fn every_element_type_is_checked() {
    let fixture = with_biases();
    for (name, tensor) in fixture.tensors() {
        let (wrong, size) = if tensor.dtype == Dtype::U32 { (Dtype::F32, 4) } else { (Dtype::I16, 2) };
        assert_eq!(tensor.data.len(), size * tensor.shape.iter().product::<usize>());
        let error =
            refused_weights(with_tensors(&fixture, |tensors| tensors.get_mut(&name).unwrap().dtype = wrong), &[&name]);
        assert!(matches!(error, WeightsError::ElementType { .. }), "{name}: {error}");
    }
}

#[test]
fn an_unknown_tensor_is_refused_by_name_and_file() {
    for name in [
        "extra",
        "model.layers.0.self_attn.q_proj.bias",
        "model.layers.0.mlp.up_proj.zeros",
        "model.layers.2.input_layernorm.weight",
        "lm_head.bias",
    ] {
        let files = with_tensors(&Fixture::default(), |tensors| {
            tensors.insert(name.to_owned(), floats(64));
        });
        let error = refused_weights(files, &[name, "model.safetensors"]);
        assert!(matches!(error, WeightsError::Unknown { .. }), "{error}");
    }
}

#[test]
fn the_number_of_layers_matches() {
    let fewer = with_config(|config| config["num_hidden_layers"] = json!(1));
    assert!(matches!(refused_weights(fewer, &["model.layers.1."]), WeightsError::Unknown { .. }));
    let more = with_config(|config| config["num_hidden_layers"] = json!(3));
    assert!(matches!(refused_weights(more, &["model.layers.2."]), WeightsError::Missing { .. }));
    let many = with_config(|config| config["num_hidden_layers"] = json!(1 << 24));
    refused_weights(many, &["model.layers.2."]);
}

#[test]
fn what_mlx_lm_drops_is_dropped() {
    let rotary = |tensors: &mut BTreeMap<String, FixtureTensor>| {
        tensors.insert("model.layers.0.self_attn.rotary_emb.inv_freq".to_owned(), floats(8));
    };
    opened(with_tensors(&Fixture::default(), rotary));

    let tied = Fixture { tie_word_embeddings: Some(true), ..Fixture::default() };
    let head = |tensors: &mut BTreeMap<String, FixtureTensor>| {
        tensors.insert("lm_head.weight".to_owned(), floats(3));
    };
    let checkpoint = opened(with_tensors(&tied, head));
    assert!(checkpoint.weights().lm_head.is_none());
    assert!(checkpoint.tensors().iter().any(|tensor| tensor.name == "lm_head.weight"), "it is still told of");
}

#[test]
fn a_separate_head_of_a_tied_model_is_refused_with_the_reason() {
    let fixture = Fixture::default();
    for tied in [Some(true), None] {
        let config = Fixture { tie_word_embeddings: tied, ..Fixture::default() }.config();
        let error = refused_weights(files_of(&config, &fixture.tensors(), 1), &["lm_head.", "tie_word_embeddings"]);
        assert!(matches!(error, WeightsError::HeadOfTied { .. }));
    }
}

#[test]
fn a_head_that_is_not_quantized_is_refused_with_what_to_do() {
    for (tied, head) in [(false, "lm_head"), (true, "model.embed_tokens")] {
        let fixture = Fixture {
            tie_word_embeddings: Some(tied),
            overrides: BTreeMap::from([(head.to_owned(), Override::Dense)]),
            ..Fixture::default()
        };
        let error = refused_weights(fixture.files(), &[head, "mlx_lm.convert -q"]);
        assert_eq!(error, WeightsError::HeadNotQuantized { module: head.to_owned() });
        // The same without an exception in the configuration.
        let config = Fixture { overrides: BTreeMap::new(), ..fixture.clone() }.config();
        let error = refused_weights(files_of(&config, &fixture.tensors(), 1), &[head]);
        assert_eq!(error, WeightsError::HeadNotQuantized { module: head.to_owned() });
    }
}

#[test]
fn an_exception_and_the_tensors_agree() {
    let module = "model.layers.1.mlp.down_proj";
    let error = refused_weights(with_config(|config| config["quantization"][module] = json!(false)), &[module]);
    assert_eq!(error, WeightsError::UnexpectedScales { module: module.to_owned() });

    let dense = Fixture { overrides: BTreeMap::from([(module.to_owned(), Override::Dense)]), ..Fixture::default() };
    for entry in [json!(true), json!({"bits": 4, "group_size": 32})] {
        let mut config = dense.config();
        config["quantization"][module] = entry;
        let error = refused_weights(files_of(&config, &dense.tensors(), 1), &[module]);
        assert_eq!(error, WeightsError::NoScales { module: module.to_owned() });
    }
}

#[test]
fn an_exception_for_what_the_model_does_not_have_is_ignored_as_in_mlx_lm() {
    for module in ["model.layers.2.mlp.down_proj", "vision_tower.blocks.0", "model.norm"] {
        for entry in [json!(false), json!({"bits": 8, "group_size": 32}), json!({"mode": "mxfp8"})] {
            opened(with_config(|config| config["quantization"][module] = entry));
        }
    }
}

#[test]
fn scales_and_biases_have_one_type() {
    let other = Fixture { scale_type: FloatType::Bf16, ..Fixture::default() }.tensors();
    let files = with_tensors(&Fixture::default(), |tensors| {
        tensors.insert("lm_head.biases".to_owned(), other["lm_head.biases"].clone());
    });
    let error = refused_weights(files, &["lm_head.scales", "lm_head.biases"]);
    assert!(matches!(error, WeightsError::ScaleTypes { .. }), "{error}");
}

#[test]
fn a_width_that_is_no_multiple_of_the_group_is_refused() {
    let files =
        with_config(|config| config["quantization"]["model.embed_tokens"] = json!({"group_size": 128, "bits": 4}));
    let error = refused_weights(files, &["model.embed_tokens", "128"]);
    assert!(matches!(error, WeightsError::Matrix { error: MatrixError::Shape { cols: 64, .. }, .. }));
}

#[test]
fn another_format_than_the_tensors_have_is_refused_where_the_module_is_named() {
    for entry in [json!({"bits": 8, "group_size": 32}), json!({"bits": 4, "group_size": 64})] {
        let files = with_config(|config| config["quantization"]["lm_head"] = entry.clone());
        let error = refused_weights(files, &["lm_head."]);
        assert!(matches!(error, WeightsError::Shape { format: Some(_), .. }), "{error}");
    }
    // The same shapes, but scales of another type.
    let files = with_config(|config| config["quantization"]["lm_head"] = json!({"mode": "mxfp4"}));
    let error = refused_weights(files, &["lm_head.scales", "U8"]);
    assert!(matches!(error, WeightsError::ElementType { .. }), "{error}");
}

#[test]
fn the_format_of_a_module_that_is_not_named_is_that_of_its_tensors() {
    let names = ["lm_head", "model.embed_tokens", "model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj"];
    for format in Format::all().filter(|format| 64 % format.group_size() == 0) {
        let overrides = names.map(|name| (name.to_owned(), Override::Format(format))).into();
        let fixture = Fixture { overrides, ..Fixture::default() };
        let bare = Fixture::default().config();
        for config in [fixture.config(), bare] {
            let checkpoint = opened(files_of(&config, &fixture.tensors(), 1));
            let weights = checkpoint.weights();
            let FeedForwardWeights::Mlp(MlpWeights { inner: Inner::Gated([_, up_proj]), .. }) = &weights.layers[1].mlp
            else {
                panic!("a Llama has an MLP with a gate")
            };
            let found = [&weights.embed_tokens, &up_proj.weights].map(|weights| match weights {
                Weights::Quantized(matrix) => matrix.layout().format(),
                Weights::Dense(_) => panic!("it is quantized"),
            });
            assert_eq!((found, weights.head().layout().format()), ([format; 2], format));
        }
    }
}

#[test]
fn tensors_of_no_format_are_refused_with_what_they_say() {
    let fixture = Fixture::default();
    let module = "model.layers.0.mlp.down_proj";
    let files = |change: &dyn Fn(&mut BTreeMap<String, FixtureTensor>)| with_tensors(&fixture, change);
    let seven_bits = files(&|tensors| {
        let weight = tensors.get_mut(&format!("{module}.weight")).expect("it is there");
        (weight.shape, weight.data) = (vec![64, 28], vec![0; 64 * 28 * 4]);
    });
    let groups_of_16 = files(&|tensors| {
        for part in ["scales", "biases"] {
            let part = tensors.get_mut(&format!("{module}.{part}")).expect("it is there");
            (part.shape, part.data) = (vec![64, 8], vec![0; 64 * 8 * 2]);
        }
    });
    for files in [seven_bits, groups_of_16] {
        let error = refused_weights(files, &[module, "no format that MLX writes", "config.json"]);
        assert!(matches!(error, WeightsError::NoFormat { cols: 128, .. }), "{error}");
    }
    // Biases of a format that has none are a tensor that nothing asks for.
    let float = Fixture { overrides: [("lm_head".to_owned(), Override::Format(Format::MXFP4))].into(), ..fixture };
    let error = refused_weights(
        with_tensors(&float, |tensors| {
            let scales = tensors["lm_head.scales"].clone();
            tensors.insert("lm_head.biases".to_owned(), scales);
        }),
        &["lm_head.biases"],
    );
    assert!(matches!(error, WeightsError::Unknown { .. }), "{error}");
}

#[test]
fn sizes_of_a_model_far_larger_than_its_files_are_refused() {
    let files = with_config(|config| {
        for key in ["vocab_size", "hidden_size", "intermediate_size"] {
            config[key] = json!(1 << 24);
        }
    });
    refused_weights(files, &["model.embed_tokens"]);
}

#[test]
fn experts_that_are_not_as_many_as_stated_are_refused_by_tensor_and_shape() {
    let of_experts = |num_experts| Fixture { num_experts, num_experts_per_tok: 1, ..Fixture::default() };
    let fixture = |num_experts| Fixture { family: &family::MIXTRAL, ..of_experts(num_experts) };
    let files = files_of(&fixture(5).config(), &fixture(4).tensors(), 1);
    refused_weights(files, &["model.layers.0.block_sparse_moe.gate.", "[4, 2]", "[5, 2]"]);
    let mut tensors = fixture(4).tensors();
    let experts = "model.layers.1.block_sparse_moe.switch_mlp.up_proj.weight";
    tensors.get_mut(experts).expect("experts").shape = vec![512, 8];
    refused_weights(files_of(&fixture(4).config(), &tensors, 1), &[experts, "[512, 8]", "[4, 128, 8]"]);
}
