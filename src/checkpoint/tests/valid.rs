//! Every variant of a checkpoint opens, and its views give back what was packed.

use std::collections::BTreeMap;

use crate::{
    checkpoint::{
        AttentionWeights, Checkpoint, ExpertLinear, FeedForwardWeights, Inner, Linear, MixerWeights, NormWeights, Qkv,
        config::Override, digest::head_digest, family, weights::Weights,
    },
    quant::{FloatType, Format},
    testing::fixture::{Fixture, FixtureTensor, raw_safetensors},
};
use serde_json::json;

use super::{opened, with_file};

/// A projection of all experts, as a fixture stores it.
fn stacked(linear: &ExpertLinear) -> &Linear {
    match linear {
        ExpertLinear::Stacked(linear) => linear,
        ExpertLinear::Apart(_) => panic!("a fixture stacks them"),
    }
}

/// The matrices of a checkpoint by their names.
fn matrices(checkpoint: &Checkpoint) -> BTreeMap<String, (Weights, Option<Vec<f32>>)> {
    let weights = checkpoint.weights();
    let mut all = BTreeMap::from([("model.embed_tokens".to_owned(), (weights.embed_tokens.clone(), None))]);
    if let Some(head) = &weights.lm_head {
        all.insert("lm_head".to_owned(), (Weights::Quantized(head.clone()), None));
    }
    for (i, layer) in weights.layers.iter().enumerate() {
        let MixerWeights::Attention(AttentionWeights { qkv: Qkv::Apart([q, k, v]), o_proj, .. }) = &layer.mixer else {
            panic!("a Llama attends, and has its projections apart");
        };
        let (prefix, [gate, up, down]) = match &layer.mlp {
            FeedForwardWeights::Mlp(mlp) => {
                let Inner::Gated([gate, up]) = &mlp.inner else { panic!("a Llama has a gate") };
                ("mlp", [gate, up, &mlp.down_proj])
            }
            FeedForwardWeights::Experts(experts) => {
                ("mlp.switch_mlp", [&experts.gate_proj, &experts.up_proj, &experts.down_proj].map(stacked))
            }
        };
        let [gate_name, up_name, down_name] =
            ["gate_proj", "up_proj", "down_proj"].map(|name| format!("{prefix}.{name}"));
        let mut linears: Vec<(&str, &Linear)> = vec![
            ("self_attn.q_proj", q),
            ("self_attn.k_proj", k),
            ("self_attn.v_proj", v),
            ("self_attn.o_proj", o_proj),
            (&gate_name, gate),
            (&up_name, up),
            (&down_name, down),
        ];
        if let FeedForwardWeights::Experts(experts) = &layer.mlp {
            linears.push(("mlp.gate", &experts.router));
        }
        for (name, linear) in linears {
            all.insert(
                format!("model.layers.{i}.{name}"),
                (linear.weights.clone(), linear.bias.as_ref().map(|bias| bias.values.clone())),
            );
        }
    }
    all
}

fn values(tensor: &FixtureTensor, float_type: FloatType) -> Vec<f32> {
    (0..tensor.shape.iter().product()).map(|i| float_type.get(&tensor.data, i)).collect()
}

/// Holds everything that `checkpoint` gives against what `fixture` packed, element by element;
/// returns how many codes were compared.
fn check(fixture: &Fixture, checkpoint: &Checkpoint) -> usize {
    let tensors = fixture.tensors();
    let matrices = matrices(checkpoint);
    assert_eq!(matrices.len(), fixture.modules().len());
    let mut compared = 0;
    for module in fixture.modules() {
        let (weights, bias) = &matrices[&module.name];
        let rows = module.count.unwrap_or(1) * module.rows;
        assert_eq!((weights.rows(), weights.cols()), (rows, module.cols), "{}", module.name);
        let expected = module.bias.then(|| values(&tensors[&format!("{}.bias", module.name)], fixture.scale_type));
        assert_eq!(bias, &expected, "{}", module.name);
        match (weights, fixture.codes(&module.name)) {
            (Weights::Quantized(matrix), Some(codes)) => {
                let view = matrix.view();
                let groups = view.layout().groups_per_row();
                let scales = values(&tensors[&format!("{}.scales", module.name)], fixture.scale_type);
                let biases = values(&tensors[&format!("{}.biases", module.name)], fixture.scale_type);
                for row in 0..rows {
                    for col in 0..module.cols {
                        assert_eq!(view.code(row, col), codes[row * module.cols + col], "{} {row} {col}", module.name);
                        compared += 1;
                    }
                    for group in 0..groups {
                        assert_eq!(view.scale(row, group), scales[row * groups + group]);
                        assert_eq!(view.bias(row, group), biases[row * groups + group]);
                    }
                }
            }
            (Weights::Dense(matrix), None) => {
                let expected = values(&tensors[&format!("{}.weight", module.name)], fixture.scale_type);
                let found: Vec<f32> =
                    (0..rows * module.cols).map(|i| matrix.float_type().get(matrix.data(), i)).collect();
                assert_eq!(found, expected, "{}", module.name);
            }
            _ => panic!("{} is quantized in one and not in the other", module.name),
        }
    }
    let norm = |name: &str| values(&tensors[name], fixture.scale_type);
    let stored = |weights: &NormWeights| weights.weight.as_ref().expect("a norm has weights").values.clone();
    assert_eq!(stored(&checkpoint.weights().norm), norm("model.norm.weight"));
    for (i, layer) in checkpoint.weights().layers.iter().enumerate() {
        let both =
            [&layer.attention_norm, &layer.mlp_norm].map(|weights| stored(weights.as_ref().expect("both norms")));
        let names = ["input_layernorm", "post_attention_layernorm"];
        assert_eq!(both, names.map(|name| norm(&format!("model.layers.{i}.{name}.weight"))));
    }
    compared
}

#[test]
fn experts_lie_one_after_the_other_in_every_format_and_without_one() {
    let name = |projection: &str| format!("model.layers.1.mlp.switch_mlp.{projection}");
    let dense = [(name("up_proj"), Override::Dense), ("model.layers.2.mlp.gate".to_owned(), Override::Dense)];
    let eight = [(name("down_proj"), Override::Format(Format::affine(8, 32).expect("a format")))];
    for num_experts in [1, 2, 5] {
        for overrides in [BTreeMap::new(), dense.clone().into(), eight.clone().into()] {
            let of_experts = Fixture { num_experts, num_experts_per_tok: 1, ..Fixture::default() };
            let fixture = Fixture { family: &family::QWEN3_MOE, num_hidden_layers: 3, overrides, ..of_experts };
            let fixture = Fixture { scale_type: FloatType::Bf16, ..fixture };
            assert!(check(&fixture, &opened(fixture.files())) > num_experts * 4 * 64 * 128);
        }
    }
}

#[test]
fn every_format_opens_and_gives_back_what_was_packed() {
    let mut compared = 0;
    for bits in [4, 8] {
        for group_size in [32, 64, 128] {
            for scale_type in [FloatType::F16, FloatType::Bf16, FloatType::F32] {
                for tied in [Some(false), Some(true), None] {
                    let fixture = Fixture {
                        bits,
                        group_size,
                        scale_type,
                        tie_word_embeddings: tied,
                        hidden_size: 128,
                        vocab_size: 40,
                        num_hidden_layers: 1,
                        seed: compared as u64,
                        ..Fixture::default()
                    };
                    compared += check(&fixture, &opened(fixture.files()));
                }
            }
        }
    }
    assert!(compared > 1_000_000, "only {compared} codes were compared");
}

#[test]
fn biases_open() {
    for (attention_bias, mlp_bias) in [(true, false), (false, true), (true, true)] {
        let fixture = Fixture { attention_bias, mlp_bias, ..Fixture::default() };
        check(&fixture, &opened(fixture.files()));
    }
}

#[test]
fn heads_wider_than_the_model_open() {
    let fixture = Fixture { head_dim: Some(32), num_key_value_heads: 1, ..Fixture::default() };
    let checkpoint = opened(fixture.files());
    for layer in checkpoint.config().architecture.layers.iter() {
        let attention = layer.mixer.attention().expect("a Llama attends");
        assert_eq!((attention.query_size(), attention.key_value_size()), (128, 32));
    }
    check(&fixture, &checkpoint);
}

#[test]
fn exceptions_to_eight_bits_and_to_none_open() {
    let fixture = Fixture {
        overrides: BTreeMap::from([
            ("lm_head".to_owned(), Override::Format(Format::affine(8, 64).expect("a format"))),
            ("model.embed_tokens".to_owned(), Override::Dense),
            ("model.layers.0.mlp.down_proj".to_owned(), Override::Format(Format::affine(8, 32).expect("a format"))),
            ("model.layers.1.self_attn.o_proj".to_owned(), Override::Dense),
            ("model.layers.1.self_attn.q_proj".to_owned(), Override::Quantized),
        ]),
        ..Fixture::default()
    };
    let checkpoint = opened(fixture.files());
    let head = checkpoint.weights().head().view();
    assert_eq!((head.layout().bits(), head.layout().group_size()), (8, 64));
    assert!(matches!(checkpoint.weights().embed_tokens, Weights::Dense(_)));
    check(&fixture, &checkpoint);
}

#[test]
fn any_number_of_shards_opens() {
    for shards in [2, 3, 7] {
        let fixture = Fixture { shards, ..Fixture::default() };
        check(&fixture, &opened(fixture.files()));
    }
}

#[test]
fn the_head_of_a_tied_model_is_its_embedding() {
    for tied in [Some(true), None] {
        let fixture = Fixture { tie_word_embeddings: tied, ..Fixture::default() };
        let checkpoint = opened(fixture.files());
        assert!(checkpoint.config().architecture.tied && checkpoint.weights().lm_head.is_none());
        assert_eq!(checkpoint.facts().head, "model.embed_tokens");
        let Weights::Quantized(embedding) = &checkpoint.weights().embed_tokens else { panic!("it is quantized") };
        let head = checkpoint.weights().head().view();
        assert_eq!(head.weight().as_ptr(), embedding.view().weight().as_ptr());
    }
    let separate = opened(Fixture::default().files());
    assert_eq!(separate.facts().head, "lm_head");
    let Weights::Quantized(embedding) = &separate.weights().embed_tokens else { panic!("it is quantized") };
    assert_ne!(separate.weights().head().view().weight(), embedding.view().weight());
}

#[test]
fn data_at_odd_addresses_open() {
    let fixture = Fixture::default();
    let tensors = fixture.tensors();
    let (mut entries, mut data) = (Vec::new(), Vec::new());
    // One byte in front that belongs to a tensor which is dropped.
    entries.push(
        r#""model.layers.0.self_attn.rotary_emb.inv_freq":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}"#.to_owned(),
    );
    data.push(0u8);
    for (name, tensor) in &tensors {
        let (begin, end) = (data.len(), data.len() + tensor.data.len());
        let dtype = tensor.dtype.to_string();
        entries.push(format!(
            r#""{name}":{{"dtype":"{dtype}","shape":{:?},"data_offsets":[{begin},{end}]}}"#,
            tensor.shape
        ));
        data.extend(&tensor.data);
    }
    let header = format!("{{{}}}", entries.join(","));
    for padding in 0..4 {
        let file = raw_safetensors(&format!("{header}{}", " ".repeat(padding)), &data);
        let checkpoint = opened(with_file(fixture.files(), "model.safetensors", file));
        check(&fixture, &checkpoint);
    }
}

#[test]
fn tensors_are_listed_by_name_with_the_type_names_of_mlx() {
    let checkpoint = opened(Fixture::default().files());
    assert!(checkpoint.tensors().is_sorted_by(|a, b| a.name < b.name));
    let find = |name: &str| checkpoint.tensors().iter().find(|tensor| tensor.name == name).unwrap();
    assert_eq!(
        (find("lm_head.weight").dtype.as_str(), find("lm_head.weight").shape.as_slice()),
        ("uint32", &[96, 8][..])
    );
    assert_eq!(
        (find("lm_head.scales").dtype.as_str(), find("lm_head.scales").shape.as_slice()),
        ("float16", &[96, 2][..])
    );
}

#[test]
fn a_fixture_is_the_same_each_time_and_another_seed_changes_every_tensor() {
    let (a, b) = (Fixture::default(), Fixture { seed: 1, ..Fixture::default() });
    assert_eq!(a.tensors(), Fixture::default().tensors());
    let other = b.tensors();
    assert!(a.tensors().iter().all(|(name, tensor)| other[name].data != tensor.data));
    let sums = a.tensors().values().map(|tensor| blake3::hash(&tensor.data).to_hex().to_string()).collect::<String>();
    insta::assert_snapshot!(blake3::hash(sums.as_bytes()).to_hex(), @"679ca87f3488134ea8d12669c24019892b5c16749657a757469a4bf027fc0d51");
}

#[test]
fn digests_tell_models_and_heads_apart() {
    let digest = |fixture: &Fixture| opened(fixture.files()).model_digest();
    let head = |fixture: &Fixture| head_digest(&opened(fixture.files()).weights().head().view());
    let (a, b) = (Fixture::default(), Fixture { seed: 1, ..Fixture::default() });
    assert_eq!(digest(&a), digest(&a));
    assert_ne!(digest(&a), digest(&b));
    assert_ne!(head(&a), head(&b));
    let sharded = Fixture { shards: 2, ..Fixture::default() };
    assert_ne!(digest(&a), digest(&sharded), "other files");
    assert_eq!(head(&a), head(&sharded), "the same head");
}

#[test]
fn the_head_digest_is_blake3_of_weight_scales_and_biases() {
    let tensors = Fixture::default().tensors();
    let stored = ["weight", "scales", "biases"].map(|part| tensors[&format!("lm_head.{part}")].data.clone()).concat();
    let checkpoint = opened(Fixture::default().files());
    assert_eq!(head_digest(&checkpoint.weights().head().view()), blake3::hash(&stored));
}

#[test]
fn the_model_digest_is_what_its_definition_says() {
    let files =
        with_file(with_file(Fixture::default().files(), "tokenizer.json", "{}"), "README.md", "not of the model");
    let mut defined = Vec::new();
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        defined.extend((name.len() as u64).to_le_bytes());
        defined.extend(name.as_bytes());
        defined.extend((files[name].len() as u64).to_le_bytes());
        defined.extend(files[name].as_slice());
    }
    assert_eq!(opened(files).model_digest(), blake3::hash(&defined));
}

#[test]
fn a_scaled_rope_opens() {
    let scaling = json!({"rope_type": "llama3", "factor": 8.0});
    let fixture = Fixture { rope_scaling: scaling, ..Fixture::default() };
    check(&fixture, &opened(fixture.files()));
}
