//! Mixtures of experts: which layers have one, what routes in it, and with which tensors.

use std::collections::BTreeMap;

use crate::{
    checkpoint::{
        CheckpointError, Config, ConfigError, WeightsError,
        architecture::{Architecture, Divisor, Experts, FeedForward, Groups, Score},
        config::Override,
        family::{
            BAILING_MOE, ERNIE4_5_MOE, EXAONE_MOE, Family, GEMMA4_TEXT, GLM4_MOE, GPT_OSS, LFM2_MOE, MIXTRAL, NATIVE,
            OLMOE, PHIMOE, QWEN2_MOE, QWEN3_MOE, QWEN3_NEXT, Renamed,
        },
    },
    testing::fixture::{Fixture, FixtureTensor, files_of},
};
use safetensors::Dtype;
use serde_json::{Value, json};

use super::{opened, refused};

fn fixture(family: &'static Family) -> Fixture {
    Fixture { num_hidden_layers: 4, ..Fixture::of(family) }
}

/// A family's configuration with some keys changed; those that are null are removed.
fn config(family: &'static Family, keys: &[(&str, Value)]) -> Value {
    let mut config = fixture(family).config();
    for (key, value) in keys {
        config[*key] = value.clone();
    }
    config.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
    config
}

fn architecture(family: &'static Family, keys: &[(&str, Value)]) -> Architecture {
    let text = config(family, keys).to_string();
    Config::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{}: {error}", family.name)).architecture
}

fn refused_config(family: &'static Family, keys: &[(&str, Value)], mentions: &[&str]) -> ConfigError {
    let error = Config::parse(config(family, keys).to_string().as_bytes()).expect_err("it must be refused");
    for mention in mentions {
        assert!(error.to_string().contains(mention), "`{error}` does not mention `{mention}`");
    }
    error
}

/// A letter for each layer: `e` for experts, `m` for an MLP.
fn kinds(architecture: &Architecture) -> String {
    let letter = |layer: &FeedForward| if matches!(layer, FeedForward::Experts(_)) { 'e' } else { 'm' };
    architecture.layers.iter().map(|layer| letter(&layer.mlp)).collect()
}

/// The experts of the last layer that has some.
fn experts(architecture: &Architecture) -> Experts {
    architecture.layers.iter().filter_map(|layer| layer.mlp.experts()).last().expect("some layer has experts").clone()
}

#[test]
fn the_layers_with_experts_are_those_that_keys_and_lists_say() {
    let of = |family, keys: &[(&str, Value)]| kinds(&architecture(family, keys));
    assert_eq!(of(&MIXTRAL, &[]), "eeee");
    assert_eq!(of(&QWEN3_MOE, &[]), "emee");
    assert_eq!(of(&QWEN3_MOE, &[("decoder_sparse_step", json!(2)), ("mlp_only_layers", json!([]))]), "meme");
    assert_eq!(of(&QWEN3_MOE, &[("decoder_sparse_step", json!(2)), ("mlp_only_layers", json!([3, 9]))]), "memm");
    assert_eq!(of(&QWEN3_MOE, &[("decoder_sparse_step", json!(9))]), "mmmm");
    assert_eq!(of(&GLM4_MOE, &[("first_k_dense_replace", json!(0))]), "eeee");
    assert_eq!(of(&GLM4_MOE, &[("first_k_dense_replace", json!(3))]), "mmme");
    let bounds = |from, to, every| {
        let keys = ["moe_layer_start_index", "moe_layer_end_index", "moe_layer_interval"];
        of(&ERNIE4_5_MOE, &keys.into_iter().zip([from, to, every]).collect::<Vec<_>>())
    };
    assert_eq!(bounds(json!(1), json!(2), json!(1)), "meem");
    assert_eq!(bounds(json!([2, 1]), json!([1, 3]), json!(2)), "meme");
    assert_eq!(bounds(json!(0), json!(null), json!(1)), "eeee");
    assert_eq!(of(&EXAONE_MOE, &[("is_moe_layer", json!([true, false, 1, 0]))]), "emem");
    // Gemma 4 has them where a key says so.
    assert_eq!(of(&GEMMA4_TEXT, &[]), "mmmm");
    assert_eq!(of(&GEMMA4_TEXT, &[("enable_moe_block", json!(true))]), "eeee");
}

#[test]
fn routers_are_those_of_mlx_lm() {
    let of = |family, keys: &[(&str, Value)]| experts(&architecture(family, keys));
    let mixtral = of(&MIXTRAL, &[]);
    assert_eq!((mixtral.count, mixtral.router.chosen, mixtral.router.score), (6, 2, Score::SoftmaxOfChosen));
    assert_eq!((mixtral.router.divisor, mixtral.router.scale, mixtral.router.groups), (None, None, None));
    assert!(mixtral.shared.is_none() && mixtral.norms.is_none() && !mixtral.router.choice_bias);
    let qwen = of(&QWEN2_MOE, &[("shared_expert_intermediate_size", json!(96))]);
    let shared = qwen.shared.expect("an MLP for all positions");
    assert_eq!((qwen.router.score, qwen.router.divisor), (Score::Softmax, None));
    assert_eq!((shared.gate, shared.mlp.intermediate_size, qwen.expert.intermediate_size), (true, 96, 128));
    assert_eq!(of(&QWEN3_MOE, &[]).router.divisor, Some(Divisor::Sum));
    assert_eq!(of(&QWEN3_MOE, &[("norm_topk_prob", json!(false))]).router.divisor, None);
    assert!(of(&OLMOE, &[("mlp_bias", json!(true))]).expert.bias);
    let gpt = of(&GPT_OSS, &[]);
    assert!(gpt.router.bias && gpt.expert.bias && gpt.router.score == Score::SoftmaxOfChosen);
    let glm = of(&GLM4_MOE, &[("n_shared_experts", json!(3))]);
    assert_eq!((glm.router.score, glm.router.scale, glm.router.choice_bias), (Score::Sigmoid, Some(2.5), true));
    assert_eq!(glm.router.groups, Some(Groups { count: 2, kept: 1 }));
    assert_eq!(glm.shared.expect("experts for all positions").mlp.intermediate_size, 3 * 128);
    let one =
        of(&GLM4_MOE, &[("num_experts_per_tok", json!(1)), ("n_group", json!(1)), ("n_shared_experts", json!(0))]);
    assert_eq!((one.router.divisor, one.router.groups, one.shared), (None, None, None));
    let ernie = of(&ERNIE4_5_MOE, &[("moe_gate_act", json!("sigmoid")), ("moe_intermediate_size", json!(0))]);
    assert_eq!((ernie.router.score, ernie.router.divisor), (Score::Sigmoid, Some(Divisor::SumOrMore(1e-12))));
    assert_eq!(ernie.expert.intermediate_size, 128);
    assert_eq!(of(&PHIMOE, &[]).router.score, Score::Mixer { reach: 0.4 });
    let ling = of(&BAILING_MOE, &[("moe_shared_expert_intermediate_size", json!(64))]);
    assert_eq!(ling.shared.expect("experts for all positions").mlp.intermediate_size, 2 * 64);
    assert_eq!(of(&BAILING_MOE, &[("moe_router_enable_shared_expert", json!(false))]).shared, None);
}

#[test]
fn what_cannot_be_routed_is_refused_by_key() {
    refused_config(&MIXTRAL, &[("num_experts_per_tok", json!(7))], &["num_experts_per_tok", "7", "as many as"]);
    refused_config(&MIXTRAL, &[("num_experts_per_tok", json!(0))], &["num_experts_per_tok", "0"]);
    refused_config(&QWEN3_MOE, &[("num_experts", json!(null))], &["num_experts", "missing"]);
    refused_config(&QWEN3_MOE, &[("num_experts", json!(1 << 20))], &["num_experts", "2^24 rows"]);
    refused_config(&QWEN3_MOE, &[("mlp_only_layers", json!(["1"]))], &["mlp_only_layers", "numbers of layers"]);
    refused_config(&GLM4_MOE, &[("n_group", json!(4))], &["n_group", "4", "divisor"]);
    refused_config(&GLM4_MOE, &[("n_group", json!(6))], &["n_group", "6", "two or more"]);
    refused_config(&GLM4_MOE, &[("topk_group", json!(3))], &["n_group", "some of which"]);
    refused_config(&GLM4_MOE, &[("n_shared_experts", json!(1 << 20))], &["n_shared_experts", "2^24 columns"]);
    refused_config(&ERNIE4_5_MOE, &[("moe_gate_act", json!("relu"))], &["moe_gate_act", "relu", "softmax"]);
    refused_config(&ERNIE4_5_MOE, &[("moe_layer_start_index", json!(-1))], &["moe_layer_start_index", "-1"]);
    refused_config(&EXAONE_MOE, &[("is_moe_layer", json!([true]))], &["is_moe_layer", "1 entries for 4 layers"]);
    refused_config(&BAILING_MOE, &[("norm_head", json!(true))], &["norm_head"]);
    // Where not all layers are alike, their number is a claim that memory would follow.
    let many = [("num_hidden_layers", json!(5000)), ("first_k_dense_replace", json!(1))];
    refused_config(&GLM4_MOE, &many, &["num_hidden_layers", "4096"]);
    assert_eq!(architecture(&MIXTRAL, &[("num_hidden_layers", json!(1 << 24))]).layers.kinds().len(), 1);
}

fn refused_weights(family: &'static Family, change: impl FnOnce(&mut BTreeMap<String, FixtureTensor>)) -> WeightsError {
    let fixture = fixture(family);
    let mut tensors = fixture.tensors();
    change(&mut tensors);
    match refused(files_of(&fixture.config(), &tensors, 1), &[]) {
        CheckpointError::Weights(error) => error,
        other => panic!("another error: {other}"),
    }
}

#[test]
fn each_tensor_of_a_mixture_is_needed_and_no_other_is_taken() {
    for (family, names) in [
        (
            &QWEN2_MOE,
            vec!["mlp.gate", "mlp.switch_mlp.up_proj", "mlp.shared_expert.down_proj", "mlp.shared_expert_gate"],
        ),
        (&GLM4_MOE, vec!["mlp.gate", "mlp.shared_experts.gate_proj"]),
        (&GPT_OSS, vec!["mlp.router", "mlp.experts.gate_proj"]),
    ] {
        for name in names {
            let module = format!("model.layers.3.{name}");
            let error = refused_weights(family, |tensors| drop(tensors.remove(&format!("{module}.weight"))));
            assert_eq!(error, WeightsError::Missing { tensor: format!("{module}.weight") });
        }
    }
    for (family, tensor) in [
        (&GLM4_MOE, "model.layers.3.mlp.gate.e_score_correction_bias"),
        (&GPT_OSS, "model.layers.3.mlp.experts.down_proj.bias"),
        (&GPT_OSS, "model.layers.3.self_attn.sinks"),
        (&GPT_OSS, "model.layers.3.mlp.router.bias"),
    ] {
        let error = refused_weights(family, |tensors| drop(tensors.remove(tensor)));
        assert_eq!(error, WeightsError::Missing { tensor: tensor.to_owned() });
    }
    // A layer without experts has none, and another scale of one is not silently left out.
    for name in ["model.layers.1.mlp.gate.weight", "model.layers.2.mlp.switch_mlp.up_proj.global_scale"] {
        let error = refused_weights(&QWEN3_MOE, |tensors| {
            let other = tensors["model.norm.weight"].clone();
            tensors.insert(name.to_owned(), other);
        });
        assert!(matches!(error, WeightsError::Unknown { ref tensor, .. } if tensor == name), "{error}");
    }
}

#[test]
fn what_mlx_lm_drops_beside_experts_is_dropped() {
    for (family, name) in [
        (&GLM4_MOE, "model.layers.4.eh_proj.weight"),
        (&EXAONE_MOE, "mtp.layers.0.weight"),
        (&ERNIE4_5_MOE, "model.mtp_block.0.norm.weight"),
        (&ERNIE4_5_MOE, "model.layers.1.mlp.moe_statics.e_score_correction_bias"),
    ] {
        let fixture = fixture(family);
        let mut tensors = fixture.tensors();
        tensors.insert(name.to_owned(), tensors["model.norm.weight"].clone());
        opened(files_of(&fixture.config(), &tensors, 1));
    }
}

#[test]
fn experts_with_tensors_of_their_own_are_in_the_formats_of_stacked_ones() {
    for family in NATIVE.into_iter().filter(|family| family.may_have_experts_apart()) {
        for fixture in fixture(family).stackable() {
            let [stacked, own] = [fixture.tensors(), fixture.tensors_of_experts_apart()]
                .map(|tensors| opened(files_of(&fixture.config(), &tensors, 2)));
            assert_eq!(own.weights().formats, stacked.weights().formats, "{}", family.name);
        }
    }
}

/// What a checkpoint of experts with tensors of their own is refused for.
fn refused_apart(
    fixture: &Fixture,
    mentions: &[&str],
    change: impl FnOnce(&mut BTreeMap<String, FixtureTensor>),
) -> WeightsError {
    let mut tensors = fixture.tensors_of_experts_apart();
    change(&mut tensors);
    match refused(files_of(&fixture.config(), &tensors, 1), mentions) {
        CheckpointError::Weights(error) => error,
        other => panic!("another error: {other}"),
    }
}

#[test]
fn an_expert_that_is_missing_or_differs_is_refused_by_its_tensor() {
    let fixture = fixture(&MIXTRAL);
    let module =
        |expert: usize, projection: &str| format!("model.layers.2.block_sparse_moe.experts.{expert}.{projection}");
    for (expert, projection, part) in
        [(0, "w1", "weight"), (3, "w3", "weight"), (5, "w2", "scales"), (4, "w1", "biases")]
    {
        let (module, tensor) = (module(expert, projection), format!("{}.{part}", module(expert, projection)));
        let error = refused_apart(&fixture, &[&module], |tensors| drop(tensors.remove(&tensor)));
        match error {
            WeightsError::Missing { tensor: missing } => assert_eq!(missing, tensor),
            // An expert without scales is one whose weights are floats.
            WeightsError::Shape { tensor: other, .. } => {
                assert_eq!((part, other), ("scales", format!("{module}.weight")))
            }
            other => panic!("another error: {other}"),
        }
    }
    // There is one too many.
    let one_more = format!("{}.weight", module(6, "w1"));
    let error = refused_apart(&fixture, &[&one_more], |tensors| {
        let tensor = tensors[&format!("{}.weight", module(5, "w1"))].clone();
        tensors.insert(one_more.clone(), tensor);
    });
    assert!(matches!(error, WeightsError::Unknown { .. }), "{error}");
    // One has floats, codes of another width, scales of another type, or another shape.
    let plain = |tensors: &mut BTreeMap<String, FixtureTensor>, expert| {
        let module = module(expert, "w3");
        let weight = tensors.remove(&format!("{module}.weight")).expect("a weight");
        tensors.remove(&format!("{module}.scales"));
        tensors.remove(&format!("{module}.biases"));
        let shape = vec![weight.shape[0], weight.shape[1] * 8];
        let data = vec![0; 2 * shape[0] * shape[1]];
        tensors.insert(format!("{module}.weight"), FixtureTensor { dtype: Dtype::F16, shape, data });
    };
    let (first, other) = (module(0, "w3"), module(4, "w3"));
    let error = refused_apart(&fixture, &[&other, "float16", &first, "affine-4"], |tensors| plain(tensors, 4));
    assert!(matches!(error, WeightsError::ExpertFormat { ref module, .. } if *module == other), "{error}");
    let error = refused_apart(&fixture, &[&module(1, "w3"), "float16", "affine-4"], |tensors| plain(tensors, 0));
    assert!(matches!(error, WeightsError::ExpertFormat { ref first, .. } if *first == module(0, "w3")), "{error}");
    let error = refused_apart(&fixture, &[&other, "affine-8", &first, "affine-4"], |tensors| {
        let weight = tensors.get_mut(&format!("{other}.weight")).expect("a weight");
        weight.shape[1] *= 2;
        weight.data.extend(weight.data.clone());
    });
    assert!(matches!(error, WeightsError::ExpertFormat { .. }), "{error}");
    let error = refused_apart(&fixture, &[&other, "bfloat16", &first], |tensors| {
        for part in ["scales", "biases"] {
            tensors.get_mut(&format!("{other}.{part}")).expect("scales").dtype = Dtype::BF16;
        }
    });
    assert!(matches!(error, WeightsError::ExpertFormat { .. }), "{error}");
    let weight = format!("{other}.weight");
    let error = refused_apart(&fixture, &[&weight], |tensors| {
        tensors.get_mut(&weight).expect("a weight").shape.reverse();
    });
    assert!(matches!(error, WeightsError::Shape { .. }), "{error}");
    // Experts that are there twice, stacked and apart, are not chosen among.
    let stacked = "model.layers.2.block_sparse_moe.switch_mlp.gate_proj";
    let all = fixture.tensors();
    let error = refused_apart(&fixture, &[], |tensors| {
        for part in ["weight", "scales", "biases"] {
            let name = format!("{stacked}.{part}");
            tensors.insert(name.clone(), all[&name].clone());
        }
    });
    assert!(matches!(error, WeightsError::Missing { .. } | WeightsError::Unknown { .. }), "{error}");
}

#[test]
fn experts_that_mlx_lm_does_not_stack_are_refused() {
    // Of these mlx-lm stacks weights alone.
    let own = "model.layers.0.mlp.experts.0.gate_proj";
    let error = refused_apart(&fixture(&QWEN3_MOE), &[own, "mlx_lm.convert"], |_| ());
    assert_eq!(error, WeightsError::QuantizedExpert { module: own.to_owned() });
    // Of these it stacks what another library writes, and takes that for a sign that norms are another library's, too.
    for family in [&QWEN3_NEXT, &GPT_OSS] {
        assert!(!family.may_have_experts_apart());
    }
}

#[test]
fn tensors_that_mlx_lm_renames_are_found_by_either_name() {
    for (family, renamed) in [(&LFM2_MOE, 3 * 4), (&EXAONE_MOE, 2), (&BAILING_MOE, 2)] {
        let mut fixture = fixture(family);
        for module in fixture.modules() {
            if family.tensors.renamed.iter().any(|names| format!("{}.weight", module.name).ends_with(names.to)) {
                fixture.overrides.insert(module.name, Override::Dense);
            }
        }
        let mut tensors = fixture.tensors();
        let mut count = 0;
        for &Renamed { from, to } in family.tensors.renamed {
            let ours: Vec<String> = tensors.keys().filter(|name| name.ends_with(to)).cloned().collect();
            for name in ours {
                let tensor = tensors.remove(&name).expect("it is there");
                tensors.insert(name.replace(to, from), tensor);
                count += 1;
            }
        }
        assert!(count >= renamed, "{}: {count}", family.name);
        opened(files_of(&fixture.config(), &tensors, 1));
        // A name that is taken is not another tensor's.
        let &Renamed { from: other, to: taken } = family.tensors.renamed.first().expect("a name");
        let name = tensors.keys().find(|name| name.ends_with(other)).expect("a renamed tensor").clone();
        tensors.insert(name.replace(other, taken), tensors[&name].clone());
        refused(files_of(&fixture.config(), &tensors, 1), &[&name]);
    }
}
