//! Every native family: its fixture computes the same bits on every instruction set, those whose digests stand in
//! `fixtures/families.txt`, and each thing that it has makes a difference to them.
//!
//! The digests say that nothing has changed since `tests/reference.rs` held each family against mlx-lm. They are written anew with
//! `HEADROOM_WRITE_FAMILIES=1`, after that test has run on checkpoints of the families. A fixture writes its configuration and names by
//! the rules that it is then read by, so `fixtures/published.jsonl` has what mlx-lm writes, too.

use std::{collections::BTreeMap, env, fs, sync::Arc};

use lm_headroom::{
    checkpoint::{Checkpoint, CheckpointError, Family, family, family::NATIVE},
    kernels::Kernel,
    model::{Body, CpuProjection, Decoder, Parent, Projection, Query, Step},
    search::agree,
    subject::{Prompt, Subject},
    team::Team,
    testing::fixture::{Fixture, FixtureTensor, files_of},
    trial::{Task, Trials, Tying},
};
use safetensors::Dtype;
use serde_json::{Value, json};

/// Configurations and tensors' names, types and shapes as mlx-lm writes them; `tools/goldens/published.py` says more.
const PUBLISHED: &str = include_str!("fixtures/published.jsonl");
const DIGESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/families.txt");
/// Longer than every window of a fixture.
const TEXT: [u32; 9] = [1, 7, 9, 30, 7, 60, 12, 5, 41];

fn fixture(family: &'static Family) -> Fixture {
    Fixture { seed: 3, num_hidden_layers: 3, ..Fixture::of(family) }
}

/// BLAKE3 over the bits of the hidden states of a text, its logits at its end, and the margins of an answer to it.
fn digest(checkpoint: &Arc<Checkpoint>, kernel: Kernel) -> String {
    let team = Arc::new(Team::new(2));
    let mut body = Decoder::new(Arc::clone(checkpoint), kernel, Arc::clone(&team));
    let step = |(i, &token): (usize, &u32)| Step {
        token,
        parent: if i == 0 { Parent::Start } else { Parent::Step(i - 1) },
        hidden: true,
        embedding: None,
        row: None,
    };
    let steps: Vec<Step<'_>> = TEXT.iter().enumerate().map(step).collect();
    let hidden = body.extend(&steps).expect("tokens of the vocabulary").hidden;
    let (head, after) = (checkpoint.head().view(), checkpoint.after_head());
    let mut projection = CpuProjection::new(head, kernel, &team).with(&after);
    let mut logits = vec![0.0; head.layout().rows()];
    let last = &hidden[hidden.len() - head.layout().cols()..];
    projection.logits(vec![Query { shift: 0, hidden: vec![last], out: &mut logits }]).expect("logits");
    let task = Task { prompts: vec![&TEXT[..4]], eos: &[], max_tokens: 4, tying: Tying::Separate };
    let answers = Trials::new(body, kernel, &team, task).answers(&mut projection).expect("an answer");
    let mut hasher = blake3::Hasher::new();
    for x in hidden.iter().chain(&logits).chain(&answers[0].margin) {
        assert!(x.is_finite());
        hasher.update(&x.to_bits().to_le_bytes());
    }
    hasher.finalize().to_hex()[..16].to_owned()
}

fn opened(config: &Value, fixture: &Fixture) -> Arc<Checkpoint> {
    Arc::new(Checkpoint::from_files(files_of(config, &fixture.tensors(), 1)).unwrap_or_else(|error| panic!("{error}")))
}

/// A tensor of this element type and shape whose data follow from its name.
fn filled(name: &str, dtype: &str, shape: &[usize]) -> FixtureTensor {
    let count: usize = shape.iter().product();
    let mut random = blake3::Hasher::new().update(name.as_bytes()).finalize_xof();
    let mut next = || {
        let mut bytes = [0; 4];
        random.fill(&mut bytes);
        u32::from_le_bytes(bytes)
    };
    // Between -1 and 1; scales are small and of one sign, so that the sums of a row are, too.
    let mut value = || match name.rsplit_once('.') {
        Some((_, "scales")) => 0.01 + (next() % 256) as f32 / 65536.0,
        Some((_, "biases")) => -0.08,
        _ => (next() >> 8) as f32 / (1 << 23) as f32 - 1.0,
    };
    let mut floats = |write: fn(f32) -> Vec<u8>| (0..count).flat_map(|_| write(value())).collect();
    let (dtype, data) = match dtype {
        "BF16" => (Dtype::BF16, floats(|x| half::bf16::from_f32(x).to_le_bytes().to_vec())),
        "F16" => (Dtype::F16, floats(|x| half::f16::from_f32(x).to_le_bytes().to_vec())),
        "F32" => (Dtype::F32, floats(|x| x.to_le_bytes().to_vec())),
        "U32" => (Dtype::U32, (0..count).flat_map(|_| next().to_le_bytes()).collect()),
        // Exponents of the scales of small floats.
        "U8" => (Dtype::U8, (0..count).map(|_| 120 + (next() % 4) as u8).collect()),
        other => panic!("{name}: a tensor of {other}"),
    };
    FixtureTensor { dtype, shape: shape.to_vec(), data }
}

/// The checkpoint that a line of [`PUBLISHED`] describes, filled, with the tensors of these names besides.
fn published(line: &Value, besides: &[&str]) -> Result<Arc<Checkpoint>, CheckpointError> {
    let layers = line["layers"].as_u64().expect("a number of layers");
    let mut tensors = BTreeMap::new();
    for (name, what) in line["tensors"].as_object().expect("tensors by name") {
        let what = what.as_array().expect("a type and a shape");
        let shape: Vec<usize> = what[1..].iter().map(|size| size.as_u64().expect("a size") as usize).collect();
        let names = if name.contains('#') {
            (0..layers).map(|layer| name.replace('#', &layer.to_string())).collect()
        } else {
            vec![name.clone()]
        };
        for name in names {
            let tensor = filled(&name, what[0].as_str().expect("a type"), &shape);
            tensors.insert(name, tensor);
        }
    }
    for name in besides {
        tensors.insert((*name).to_owned(), filled(name, "F32", &[1]));
    }
    Checkpoint::from_files(files_of(&line["config"], &tensors, 1)).map(Arc::new)
}

#[test]
fn each_family_has_one_digest_on_every_instruction_set() {
    let mut kernels = Kernel::available();
    kernels.dedup_by_key(|kernel| kernel.name());
    let mut found = BTreeMap::new();
    for family in NATIVE {
        let fixture = fixture(family);
        let checkpoint = opened(&fixture.config(), &fixture);
        let digests: Vec<String> = kernels.iter().map(|&kernel| digest(&checkpoint, kernel)).collect();
        assert!(digests.iter().all(|other| *other == digests[0]), "{}: {digests:?} on {kernels:?}", family.name);
        found.insert(family.name.to_owned(), digests[0].clone());
    }
    for line in PUBLISHED.lines() {
        let line: Value = serde_json::from_str(line).expect("a line of JSON");
        let name = line["name"].as_str().expect("a name").to_owned();
        let checkpoint = published(&line, &[]).unwrap_or_else(|error| panic!("{name}: {error}"));
        found.insert(name, digest(&checkpoint, Kernel::best()));
    }
    let text: String = found.iter().map(|(name, digest)| format!("{name}: {digest}\n")).collect();
    if env::var_os("HEADROOM_WRITE_FAMILIES").is_some() {
        fs::write(DIGESTS, &text).expect("the file of digests");
    }
    let stored = fs::read_to_string(DIGESTS).expect("the file of digests");
    let changed: Vec<(&str, &str)> = stored.lines().zip(text.lines()).filter(|(old, new)| old != new).collect();
    assert!(stored == text, "was, is: {changed:?}");
}

/// Tensors that a family's class of mlx-lm drops as it loads a checkpoint, and some that it does not know.
#[test]
fn tensors_that_mlx_lm_drops_are_passed_over_and_others_are_not() {
    const LLAMA: &[&str] = &["model.layers.0.self_attn.rotary_emb.inv_freq"];
    const VISION: &[&str] = &["vision_tower.a", "multi_modal_projector.a", "visual.a"];
    let dropped: &[(&str, &[&str])] = &[
        ("llama@f16", LLAMA),
        ("qwen3@tied-q4", LLAMA),
        ("gpt2@q4", &["h.0.attn.bias"]),
        (
            "gpt_neox@q4",
            &[
                "gpt_neox.layers.0.attention.bias",
                "gpt_neox.layers.0.attention.masked_bias",
                "gpt_neox.layers.0.attention.rotary_emb.inv_freq",
            ],
        ),
        ("gemma3@q4", VISION),
        ("mistral3@q4", VISION),
        ("qwen2_vl@q4", VISION),
        ("qwen3_vl@q4", VISION),
        ("internlm2@q4", &["model.layers.0.attention.rope.inv_freq"]),
        ("mimo@q4", &["model.mtp_layers.0.a", LLAMA[0]]),
        ("qwen3_5@q4", &["vision_tower.a", "model.visual.a", "language_model.model.mtp.a"]),
        ("qwen3_5_moe@q4", &["vision_tower.a", "model.visual.a"]),
        ("qwen3_next@q4", &["model.mtp.a"]),
        ("glm4_moe@q4", &["model.layers.3.a"]),
        ("exaone_moe@q4", &["mtp.a"]),
        (
            "ernie4_5_moe@q4",
            &[
                "model.mtp_block.0.a",
                "model.mtp_linear_proj.0.a",
                "model.mtp_hidden_norm.0.a",
                "model.mtp_emb_norm.0.a",
            ],
        ),
    ];
    let mut left = BTreeMap::new();
    for line in PUBLISHED.lines() {
        let line: Value = serde_json::from_str(line).expect("a line of JSON");
        let name = line["name"].as_str().expect("a name");
        for (_, names) in dropped.iter().filter(|(of, _)| *of == name) {
            for tensor in *names {
                // A digest of all would be of the same computation: that it opens is what is to be seen.
                published(&line, &[tensor]).unwrap_or_else(|error| panic!("{name}, {tensor}: {error}"));
                *left.entry(name.to_owned()).or_insert(0) += 1;
            }
        }
        assert!(published(&line, &["model.layers.0.nothing"]).is_err(), "{name}");
    }
    assert_eq!(left.len(), dropped.len(), "{left:?}");
}

#[test]
fn experts_with_tensors_of_their_own_give_the_bits_of_stacked_ones() {
    let mut compared = Vec::new();
    for family in NATIVE.into_iter().filter(|family| family.may_have_experts_apart()) {
        for fixture in fixture(family).stackable() {
            let (stacked, own) = (fixture.tensors(), fixture.tensors_of_experts_apart());
            assert!(own.len() > stacked.len() + 2 * fixture.num_experts, "{}", family.name);
            let [stacked, own] = [stacked, own].map(|tensors| {
                let files = files_of(&fixture.config(), &tensors, 2);
                Arc::new(Checkpoint::from_files(files).unwrap_or_else(|error| panic!("{}: {error}", family.name)))
            });
            let [stacked, own] = [stacked, own].map(|checkpoint| digest(&checkpoint, Kernel::best()));
            assert_eq!(own, stacked, "{}", family.name);
            compared.push(family.name);
        }
    }
    assert!(compared.len() >= 20, "{compared:?}");
}

/// A family's fixture, and the same with one key of its configuration another, which asks for the same tensors.
fn pair(name: &str, key: &str, value: &Value) -> [Arc<Checkpoint>; 2] {
    let family = family::named(name).expect("a native family");
    let fixture = fixture(family);
    let (plain, mut changed) = (fixture.config(), fixture.config());
    let own = match family.text_config() {
        Some(object) => &mut changed[object],
        None => &mut changed,
    };
    match key.split_once('.') {
        Some((object, key)) => own[object][key] = value.clone(),
        None => own[key] = value.clone(),
    }
    assert_ne!(plain, changed, "{name}: {key} has this value already");
    [plain, changed].map(|config| opened(&config, &fixture))
}

/// What a family's fixture computes when one key of its configuration is another.
fn with(name: &str, key: &str, value: &Value) -> (String, String) {
    pair(name, key, value).map(|checkpoint| digest(&checkpoint, Kernel::best())).into()
}

#[test]
fn what_a_family_has_makes_a_difference() {
    let changes = [
        ("llama", "rms_norm_eps", json!(0.1)),
        ("llama", "rope_theta", json!(100.0)),
        ("llama", "rope_traditional", json!(true)),
        ("llama", "rope_scaling", json!({"type": "linear", "factor": 2})),
        ("llama", "rope_scaling", json!({"type": "llama3", "factor": 8, "original_max_position_embeddings": 8})),
        ("llama", "rope_scaling", json!({"type": "yarn", "factor": 4, "original_max_position_embeddings": 8})),
        (
            "llama",
            "rope_scaling",
            json!({"type": "longrope", "original_max_position_embeddings": 4, "long_factor": [1, 2, 3, 4, 5, 6, 7, 8]}),
        ),
        ("ministral3", "rope_parameters.llama_4_scaling_beta", json!(0.5)),
        ("smollm3", "no_rope_layer_interval", json!(3)),
        ("gemma", "rms_norm_eps", json!(0.1)),
        ("gemma2", "query_pre_attn_scalar", json!(30)),
        ("gemma2", "attn_logit_softcapping", json!(1.0)),
        ("gemma2", "final_logit_softcapping", json!(5.0)),
        ("gemma3_text", "sliding_window", json!(4)),
        ("gemma3_text", "sliding_window_pattern", json!(3)),
        ("gemma3_text", "rope_local_base_freq", json!(100.0)),
        ("olmo3", "sliding_window", json!(2)),
        ("exaone4", "sliding_window_pattern", json!("GL")),
        ("granite", "embedding_multiplier", json!(6.0)),
        ("granite", "attention_multiplier", json!(0.2)),
        ("granite", "residual_multiplier", json!(0.3)),
        ("granite", "logits_scaling", json!(2.0)),
        ("minicpm", "scale_depth", json!(1.0)),
        ("cohere", "logit_scale", json!(0.25)),
        ("cohere2", "sliding_window", json!(4)),
        ("glm4", "partial_rotary_factor", json!(0.25)),
        ("phi3", "partial_rotary_factor", json!(1.0)),
        ("gpt_neox", "use_parallel_residual", json!(false)),
        ("gpt_neox", "rotary_pct", json!(0.5)),
        ("hunyuan_v1_dense", "rope_scaling.alpha", json!(10.0)),
        ("mixtral", "num_experts_per_tok", json!(3)),
        ("qwen3_moe", "norm_topk_prob", json!(false)),
        ("qwen3_moe", "num_experts_per_tok", json!(1)),
        ("gpt_oss", "sliding_window", json!(4)),
        ("glm4_moe", "routed_scaling_factor", json!(1.0)),
        ("glm4_moe", "n_group", json!(1)),
        ("glm4_moe", "norm_topk_prob", json!(false)),
        ("ernie4_5_moe", "moe_gate_act", json!("sigmoid")),
        ("bailing_moe", "score_function", json!("softmax")),
        ("minimax_m2", "rotary_dim", json!(16)),
        ("mellum", "rope_parameters.full_attention", json!({"rope_type": "default", "rope_theta": 10000.0})),
        ("phimoe", "router_jitter_noise", json!(0.01)),
        ("lfm2", "norm_eps", json!(0.1)),
        ("lfm2_moe", "routed_scaling_factor", json!(1.0)),
        ("qwen3_5", "rms_norm_eps", json!(0.1)),
        ("qwen3_next", "norm_topk_prob", json!(false)),
        ("qwen3_5", "rope_parameters.partial_rotary_factor", json!(1.0)),
    ];
    for (name, key, value) in changes {
        let (plain, changed) = with(name, key, &value);
        assert_ne!(plain, changed, "{name}: {key} = {value} changes nothing");
    }
}

#[test]
fn where_two_bodies_part_is_named_by_position_and_layer() {
    let cases = [
        ("llama", "rope_theta", json!(100.0), 0),
        ("gemma", "rms_norm_eps", json!(0.1), 0),
        ("smollm3", "no_rope_layer_interval", json!(3), 1),
        ("gemma3_text", "sliding_window_pattern", json!(3), 1),
    ];
    for (name, key, value, layer) in cases {
        let [a, b] = pair(name, key, &value).map(|checkpoint| {
            let team = Arc::new(Team::new(2));
            Subject::new(name.to_owned(), None, checkpoint, Kernel::best(), team).expect("no tokenizer is none to fail")
        });
        let prompt = Prompt { text: String::new(), ids: TEXT.to_vec(), expected: Vec::new(), date: None };
        let same = agree(&a, &a, std::slice::from_ref(&prompt), 2, |_| ()).expect("checks");
        assert!(same.iter().all(|check| check.holds) && same.len() == 4, "{name}: {same:?}");
        let checks = agree(&a, &b, &[prompt], 2, |_| ()).expect("checks");
        let of_layers = checks[0].detail.as_deref().expect("a difference");
        let expected =
            format!("the first that differs is at layer {layer} of 3, counted from 0, at the end of prompt 0");
        assert!(of_layers.starts_with(&expected), "{name}, {key}: {of_layers}");
    }
}
