//! The MLX backend against the CPU's, in float32, and against mlx-lm's own trajectories.
//!
//! `cargo test --features mlx --test mlx` on macOS; `tools/mlx-linux/cargo` in place of `cargo` on Linux.

#![expect(clippy::print_stdout, reason = "a test says what it looked at")]

mod mlx_lm;

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Output},
    sync::{Arc, OnceLock},
};

use lm_headroom::{
    certificate::{CertificateError, Certifier},
    checkpoint::{Checkpoint, config::Override, family::NATIVE},
    edit::{Edit, Plan},
    kernels::Kernel,
    model::{Body, BodyError, Mlx, Parent, Precision, Projection, Query, Step},
    quant::{FloatType, Format},
    record::Record,
    search::{Session, Settings, keep, ladder, probe, verify},
    seed,
    subject::{self, Prompt, Subject},
    team::Team,
    testing::{
        fixture::{Fixture, files_of},
        model::answers,
        oracles::{Reached, shift::cast},
        strategies::{edits::SHIFTS, heads::WORDS},
    },
    trial::Trajectory,
};
use mlx_lm::{G32, G64, TIED, compare, folder, for_each_of_the_kit, references};
use serde_json::{Value, json};

/// How far a logit of MLX may be from the CPU's in float32, as a part of the largest of its position.
const LOGITS: f32 = 1e-4;
/// Where the two best logits are closer than this, as such a part, rounding decides which is chosen.
const NEAR_TIE: f32 = 2.0 * LOGITS;

fn on_cpu(checkpoint: &Arc<Checkpoint>, name: &str) -> Subject {
    let team = Arc::new(Team::of_this_machine());
    Subject::new(name.to_owned(), None, Arc::clone(checkpoint), Kernel::best(), team).expect("a tokenizer")
}

fn on_mlx(checkpoint: &Arc<Checkpoint>, name: &str, precision: Precision) -> Subject {
    let mlx = Mlx::load(Arc::clone(checkpoint), precision).expect("a model in MLX's memory");
    on_cpu(checkpoint, name).with_backend(Arc::new(mlx))
}

/// The model inside, on MLX in float32. Tests of several threads share it: one thread owns what it holds.
fn demo() -> &'static Subject {
    static DEMO: OnceLock<Subject> = OnceLock::new();
    DEMO.get_or_init(|| on_mlx(&subject::open(None).expect("the model inside"), "demo", Precision::Float32))
}

fn largest(logits: &[f32]) -> f32 {
    logits.iter().fold(0.0, |most, logit| most.max(logit.abs()))
}

/// The largest difference, as a part of the largest logit.
fn apart(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    assert!(found.iter().chain(expected).all(|logit| logit.is_finite()), "a logit is not finite");
    let most = found.iter().zip(expected).fold(0.0_f32, |most, (a, b)| most.max((a - b).abs()));
    most / largest(expected)
}

/// Hidden states of a prompt, its last position by itself, and then of some tokens one by one.
fn hidden(model: &Subject, prompt: &[u32], tokens: &[u32]) -> Vec<Vec<f32>> {
    let mut body = model.body();
    let step = |(i, &token): (usize, &u32)| {
        let parent = if i == 0 { Parent::Start } else { Parent::Step(i - 1) };
        Step { token, parent, hidden: i + 1 == prompt.len(), embedding: None, row: None }
    };
    let steps: Vec<Step<'_>> = prompt.iter().enumerate().map(step).collect();
    let mut found = body.extend(&steps).expect("a prompt");
    let mut states = vec![found.hidden];
    for &token in tokens {
        let parent = Parent::Slot(*found.slots.last().expect("a position"));
        found = body.extend(&[Step { token, parent, hidden: true, embedding: None, row: None }]).expect("a token");
        states.push(found.hidden);
    }
    states
}

fn logits(model: &Subject, plan: &Plan, hidden: &[f32]) -> Vec<f32> {
    let mut head = model.projection(model.head().view());
    let mut out = vec![f32::NAN; head.vocab_size()];
    head.logits(vec![Query { shift: plan.shift, hidden: vec![hidden], out: &mut out }]).expect("logits");
    head.patch(plan, hidden, &mut out).expect("rows");
    out
}

fn plan(model: &Subject, edit: &str) -> Plan {
    edit.parse::<Edit>().expect("an edit").plan(&model.head().view()).expect("it fits")
}

/// That two answers are one, or part where the two best logits are closer than `near`; whether they are one.
#[track_caller]
fn same_but_for_near_ties(found: &Trajectory, expected: &Trajectory, near: f32) -> bool {
    let (a, b): (Vec<u32>, Vec<u32>) = (found.steps().collect(), expected.steps().collect());
    match (0..a.len().max(b.len())).find(|&i| a.get(i) != b.get(i)) {
        None => {
            assert_eq!(found.finish, expected.finish);
            true
        }
        Some(step) => {
            let margin = expected.margin.get(step).copied().unwrap_or(f32::INFINITY);
            assert!(margin < near, "step {step}: {a:?} and {b:?}, margin {margin}");
            false
        }
    }
}

#[test]
fn mlx_s_casts_are_the_wrapping_difference_for_edge_and_random_words_and_shifts() {
    let mlx = Mlx::load(subject::open(None).expect("the model inside"), Precision::Float32).expect("a model");
    let mut reached = Reached::default();
    let mut check = |words: &[u32], shift: i64| {
        let found = mlx.shift_words(words, shift).expect("casts");
        cast(words, shift, &found, &mut reached).unwrap_or_else(|violation| panic!("{violation}"));
    };
    let mut bytes = blake3::Hasher::new().finalize_xof();
    let mut random = |count: usize| -> Vec<u32> {
        let mut word = [0; 4];
        let mut next = |_| {
            bytes.fill(&mut word);
            u32::from_le_bytes(word)
        };
        (0..count).map(&mut next).collect()
    };
    let words = random(4096);
    for shift in SHIFTS.into_iter().chain(seed::SHIFTS) {
        check(&WORDS, shift);
        check(&words, shift);
    }
    for pair in random(512).chunks_exact(2) {
        let shift = i64::from(pair[0]) << 32 | i64::from(pair[1]);
        check(&words[..256], shift);
        // Small ones, as people type them.
        check(&words[..256], shift >> 40);
    }
    println!("{reached}");
    assert_eq!(reached.count("cast"), (19 + 10) * (10 + 4096) + 512 * 256);
}

#[test]
fn float32_logits_of_the_model_inside_are_the_cpu_s_within_the_bound() {
    let (mlx, cpu) = (demo(), on_cpu(demo().checkpoint(), "demo"));
    let prompt = mlx.prompt("What is 2+2?").expect("ids").ids;
    let tokens: Vec<u32> = (10..30).collect();
    let (found, expected) = (hidden(mlx, &prompt, &tokens), hidden(&cpu, &prompt, &tokens));
    let (mut head, mut whole) = (0.0_f32, 0.0_f32);
    let edits =
        ["clean", "shift:1", "shift:-1", "shift:1000003", "shift:2147483648", "flip:weight[7,3].3+shift:1000000"];
    for edit in edits {
        let plan = plan(mlx, edit);
        for (found, expected) in found.iter().zip(&expected) {
            let reference = logits(&cpu, &plan, expected);
            head = head.max(apart(&logits(mlx, &plan, expected), &reference));
            whole = whole.max(apart(&logits(mlx, &plan, found), &reference));
        }
    }
    println!("of the largest logit, apart at most: {head:e} by the head alone, {whole:e} by body and head");
    assert!(head > 0.0, "another summation order has other roundings: was MLX run?");
    assert!(head <= LOGITS && whole <= LOGITS, "{head:e}, {whole:e}");
}

/// Models of every kind that a checkpoint can be.
fn kinds() -> Vec<(&'static str, Fixture)> {
    let plain = Fixture::default;
    let llama3 = json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    });
    let yarn = json!({"type": "yarn", "factor": 4, "original_max_position_embeddings": 8});
    let long = json!({
        "type": "longrope", "original_max_position_embeddings": 4, "short_factor": [1], "long_factor": [1, 2, 3, 4, 5, 6, 7, 8],
    });
    let own = Override::Format(Format::affine(8, 64).expect("a format"));
    let of = |overrides: &[(&str, Override)]| overrides.iter().map(|(name, o)| ((*name).to_owned(), *o)).collect();
    let formats = |formats: &[Format]| {
        let modules = plain().modules().into_iter().zip(formats.iter().cycle());
        let overrides = modules.map(|(module, format)| (module.name, Override::Format(*format))).collect();
        Fixture { overrides, ..plain() }
    };
    let integers = [2, 3, 5, 6].map(|bits| Format::affine(bits, 32).expect("a format"));
    vec![
        ("plain", plain()),
        (
            "8 bits in groups of 64, bfloat16",
            Fixture { bits: 8, group_size: 64, scale_type: FloatType::Bf16, ..plain() },
        ),
        (
            "groups of 128, float32, biases",
            Fixture {
                hidden_size: 128,
                group_size: 128,
                scale_type: FloatType::F32,
                attention_bias: true,
                mlp_bias: true,
                ..plain()
            },
        ),
        ("llama3 rope, a width of head of its own", Fixture { rope_scaling: llama3, head_dim: Some(32), ..plain() }),
        ("linear rope", Fixture { rope_scaling: json!({"type": "linear", "factor": 4.0}), ..plain() }),
        (
            "dense embedding and a dense layer with a bias",
            Fixture {
                attention_bias: true,
                overrides: of(&[
                    ("model.embed_tokens", Override::Dense),
                    ("model.layers.0.self_attn.q_proj", Override::Dense),
                    ("model.layers.1.mlp.down_proj", own),
                ]),
                ..plain()
            },
        ),
        (
            "tied, a vocabulary that eight does not divide",
            Fixture { vocab_size: 101, tie_word_embeddings: Some(true), ..plain() },
        ),
        ("2, 3, 5 and 6 bits by turns", formats(&integers)),
        ("mxfp4", formats(&[Format::MXFP4])),
        ("mxfp8", formats(&[Format::MXFP8])),
        ("nvfp4", formats(&[Format::NVFP4])),
        ("yarn", Fixture { rope_scaling: yarn, ..plain() }),
        ("longrope", Fixture { rope_scaling: long, ..plain() }),
    ]
}

/// A model with dynamic rope, made for fewer positions than a text has.
fn dynamic() -> Arc<Checkpoint> {
    let fixture = Fixture { rope_scaling: json!({"type": "dynamic", "factor": 2.0}), ..Fixture::default() };
    let mut config = fixture.config();
    config["max_position_embeddings"] = json!(6);
    Arc::new(Checkpoint::from_files(files_of(&config, &fixture.tensors(), 1)).expect("a checkpoint"))
}

/// Families whose models have layers with a state of their own, which this backend refuses.
const WITH_STATES: [&str; 5] = ["lfm2", "lfm2_moe", "qwen3_5", "qwen3_5_moe", "qwen3_next"];

/// A prompt of ids that no tokenizer is needed for.
fn ids(vocab: usize, seed: usize) -> Vec<u32> {
    (0..9).map(|i| ((7 * i + 13 * seed + 3) % vocab) as u32).collect()
}

/// What was seen of models on MLX beside the CPU.
#[derive(Debug, Default)]
struct Seen {
    models: usize,
    asked: usize,
    answers: usize,
    equal: usize,
    /// How far logits are apart at most, as a part of the largest.
    apart: f32,
}

impl Seen {
    /// Holds a model on MLX against the CPU: logits of a text, and answers to some prompts under edits.
    fn model(&mut self, kind: &str, checkpoint: &Arc<Checkpoint>, prompts: usize, edits: &[&str]) {
        let (cpu, mlx) = (on_cpu(checkpoint, kind), on_mlx(checkpoint, kind, Precision::Float32));
        let vocab_size = checkpoint.facts().vocab_size;
        let prompts: Vec<Vec<u32>> = (0..prompts).map(|i| ids(vocab_size, i)).collect();
        let (found, expected) = (hidden(&mlx, &prompts[0], &[1, 2, 3]), hidden(&cpu, &prompts[0], &[1, 2, 3]));
        let mut scale = 0.0_f32;
        for (found, expected) in found.iter().zip(&expected) {
            let reference = logits(&cpu, &Plan::default(), expected);
            scale = scale.max(largest(&reference));
            let apart = apart(&logits(&mlx, &Plan::default(), found), &reference);
            assert!(apart <= LOGITS, "{kind}: {apart:e}");
            self.apart = self.apart.max(apart);
        }
        let plans: Vec<Plan> = edits.iter().map(|edit| plan(&mlx, edit)).collect();
        let (of_mlx, of_cpu) =
            (answers(&mlx, &prompts, &plans, 8).expect("trials"), answers(&cpu, &prompts, &plans, 8).expect("trials"));
        for (a, b) in of_mlx.1.iter().zip(&of_cpu.1) {
            assert_eq!((a.prompt, a.edit), (b.prompt, b.edit));
            self.equal += usize::from(same_but_for_near_ties(&a.trajectory, &b.trajectory, NEAR_TIE * scale));
            self.answers += 1;
        }
        self.models += 1;
        self.asked += prompts.len() * edits.len();
    }

    /// That nine of ten answers are equal; the others part at near ties.
    fn hold(&self) {
        println!("{self:?}");
        assert!(self.answers == self.asked && self.equal * 10 >= self.answers * 9, "{self:?}");
    }
}

/// That a model on MLX passes what `verify` checks.
fn verified(kind: &str, checkpoint: &Arc<Checkpoint>) {
    let mlx = on_mlx(checkpoint, kind, Precision::Float32);
    let vocab_size = checkpoint.facts().vocab_size;
    let prompts: Vec<Prompt> = (0..3).map(|i| mlx.prompt_of_ids(ids(vocab_size, i)).expect("a prompt")).collect();
    for check in verify(&mlx, &prompts, 4, 0, |_| ()).expect("checks") {
        assert!(check.holds, "{kind}: {check:?}");
    }
}

#[test]
fn every_kind_of_checkpoint_gives_the_cpu_s_answers_and_keeps_its_head() {
    let mut seen = Seen::default();
    let edits = ["clean", "shift:1", "shift:1000003", "random:flips=40,seed=3", "random:flips=3,seed=4,tensor=scales"];
    for (kind, fixture) in kinds() {
        let checkpoint = Arc::new(Checkpoint::from_files(fixture.files()).expect("a checkpoint"));
        // In MLX 0.32.2 the codes of mxfp8 that are NaN stand for 480 and -480, and edits make some.
        let edits = if kind == "mxfp8" { &edits[..1] } else { &edits[..] };
        seen.model(kind, &checkpoint, 3, edits);
        verified(kind, &checkpoint);
    }
    seen.model("dynamic rope", &dynamic(), 3, &edits);
    seen.hold();
    assert_eq!(seen.models, kinds().len() + 1);
}

#[test]
fn every_family_gives_the_cpu_s_answers_or_is_refused_by_what_it_has() {
    let (mut seen, mut refused) = (Seen::default(), Vec::new());
    for family in NATIVE {
        let fixture = Fixture { seed: 3, num_hidden_layers: 3, ..Fixture::of(family) };
        let checkpoint = Arc::new(Checkpoint::from_files(fixture.files()).expect("a checkpoint"));
        if !WITH_STATES.contains(&family.name) {
            seen.model(family.name, &checkpoint, 1, &["clean", "shift:1000003"]);
            continue;
        }
        match Mlx::load(checkpoint, Precision::Float32) {
            Err(error @ BodyError::Unsupported { backend: "mlx", .. }) => {
                assert!(error.to_string().contains("a state of their own"), "{}: {error}", family.name);
            }
            Err(error) => panic!("{}: {error}", family.name),
            Ok(_) => panic!("{}: it has something that is not computed", family.name),
        }
        refused.push(family.name);
    }
    println!("refused: {refused:?}");
    seen.hold();
    assert_eq!(seen.models + refused.len(), NATIVE.len());
    assert_eq!(refused, WITH_STATES);
}

#[test]
fn small_checkpoints_of_the_families_answer_as_mlx_lm_does() {
    let (mut compared, mut refused) = (BTreeMap::new(), BTreeMap::new());
    let looked = for_each_of_the_kit("MLX", |folder, checkpoint, references, shared| {
        let family = checkpoint.config().family.name;
        if WITH_STATES.contains(&family) {
            *refused.entry(family).or_insert(0) += 1;
            return;
        }
        *compared.entry(family).or_insert(0) += 1;
        let model = on_mlx(&checkpoint, &folder.display().to_string(), Precision::Float32);
        compare(&model.with_shared_embedding(shared), references, 5e-3);
    });
    if looked {
        println!("{compared:?}, refused {refused:?}");
        assert!(!compared.is_empty(), "no checkpoint of the folder is of a native family");
    }
}

#[test]
fn a_tied_matrix_edited_as_embedding_too_gives_the_cpu_s_answers() {
    let fixture = Fixture { tie_word_embeddings: Some(true), ..Fixture::default() };
    let checkpoint = Arc::new(Checkpoint::from_files(fixture.files()).expect("a checkpoint"));
    let cpu = on_cpu(&checkpoint, "tied").with_shared_embedding(true);
    let mlx = on_mlx(&checkpoint, "tied", Precision::Float32).with_shared_embedding(true);
    let prompts: Vec<Vec<u32>> = (0..3).map(|i| ids(fixture.vocab_size, i)).collect();
    let plans = ["shift:1", "shift:1000003", "random:flips=40,seed=3"].map(|edit| plan(&mlx, edit));
    let (of_mlx, of_cpu) =
        (answers(&mlx, &prompts, &plans, 8).expect("trials"), answers(&cpu, &prompts, &plans, 8).expect("trials"));
    let near = NEAR_TIE * largest(&logits(&cpu, &Plan::default(), &hidden(&cpu, &prompts[0], &[])[0]));
    let equal =
        of_mlx.1.iter().zip(&of_cpu.1).filter(|(a, b)| same_but_for_near_ties(&a.trajectory, &b.trajectory, near));
    let (equal, all) = (equal.count(), of_mlx.1.len());
    println!("{equal} of {all} answers equal");
    assert!(all == 9 && equal >= 8, "{equal} of {all}");
}

/// A ladder's records.
fn records(model: &Subject, shifts: &[i64]) -> Vec<Record> {
    let prompts = [model.prompt(seed::PROMPT).expect("ids").expecting(["4"])];
    let mut session = Session::new(model, &prompts, Settings::given(10, 9.0));
    let mut records = Vec::new();
    let restored = ladder(&mut session, shifts, keep(&mut records)).expect("a ladder");
    assert!(restored.identical && restored.same_as_clean, "{restored:?}");
    assert_eq!((&restored.head_digest_before, &restored.head_digest_after), {
        let stored = &records[0].head_digest;
        (stored, stored)
    });
    records
}

#[test]
fn the_ladder_of_the_model_inside_is_the_cpu_s_record_by_record() {
    let cpu = on_cpu(demo().checkpoint(), "demo");
    let (found, expected) = (records(demo(), &seed::SHIFTS), records(&cpu, &seed::SHIFTS));
    let mut least = f32::INFINITY;
    for (a, b) in found.iter().zip(&expected) {
        assert_eq!((a.backend.as_str(), b.backend.as_str()), ("mlx", "cpu"));
        assert!(a.kernel.starts_with("mlx-float32-"), "{}", a.kernel);
        assert_eq!((&a.edit, &a.tokens, &a.text, a.finish), (&b.edit, &b.tokens, &b.text, b.finish));
        assert_eq!((&a.first_words, a.verdict, &a.tags), (&b.first_words, b.verdict, &b.tags), "{}", a.edit);
        assert_ne!(a.run.id, b.run.id, "a run of another backend is another run");
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-3 + 1e-3 * b.abs();
        assert!(close(a.kl_mean.expect("finite"), b.kl_mean.expect("finite")), "{}", a.edit);
        for (a, b) in a.margin.iter().zip(&b.margin) {
            let (a, b) = (a.expect("finite"), b.expect("finite"));
            assert!((a - b).abs() < 2e-3, "margins {a} and {b}");
            least = least.min(b);
        }
    }
    println!("10 answers equal; least margin {least}");
    assert_eq!(found.len(), 10);
}

/// What of records must be equal to the bit, whatever they were run with.
fn bits(record: &Record) -> Value {
    let mut record = serde_json::to_value(record).expect("JSON");
    for key in ["ms", "trial", "run"] {
        record.as_object_mut().expect("an object").remove(key);
    }
    record
}

#[test]
fn records_depend_neither_on_what_runs_with_them_nor_on_the_run() {
    let shifts = [0, 1, 1_000_003, 1_000_005];
    let together = records(demo(), &shifts);
    let again = records(demo(), &shifts);
    for ((a, b), &shift) in together.iter().zip(&again).zip(&shifts) {
        let alone = records(demo(), &[shift]);
        assert_eq!((bits(a), bits(a)), (bits(b), bits(&alone[0])), "shift {shift}");
    }
}

#[test]
fn a_prompt_that_another_one_begins_with_and_a_fork_are_found_again() {
    // One sequence after the other, forks in the middle of a stretch, slots used again: the tree of keys and values.
    let (mlx, cpu) = (demo(), on_cpu(demo().checkpoint(), "demo"));
    let (mut a, mut b) = (mlx.body(), cpu.body());
    let step = |token, parent, hidden| Step { token, parent, hidden, embedding: None, row: None };
    let mut known: Vec<(lm_headroom::model::Slot, lm_headroom::model::Slot)> = Vec::new();
    let mut most = 0.0_f32;
    let mut both = |steps: [&[Step<'_>]; 2], known: &mut Vec<_>| {
        let (found, expected) = (a.extend(steps[0]).expect("positions"), b.extend(steps[1]).expect("positions"));
        let at = cpu.checkpoint().facts().hidden_size;
        for (x, y) in found.hidden.chunks_exact(at).zip(expected.hidden.chunks_exact(at)) {
            most = most.max(apart(&logits(mlx, &Plan::default(), x), &logits(&cpu, &Plan::default(), y)));
        }
        known.extend(found.slots.into_iter().zip(expected.slots));
    };
    let start = |i: usize| if i == 0 { Parent::Start } else { Parent::Step(i - 1) };
    let first: Vec<Step<'_>> = (0..12).map(|i| step(i as u32 + 5, start(i), i == 3 || i == 11)).collect();
    both([&first, &first], &mut known);
    // Forks of every position, two positions each, the second of them wanted.
    for at in 0..12 {
        let of = |slot| [step(40 + at as u32, Parent::Slot(slot), false), step(60, Parent::Step(0), true)];
        both([&of(known[at].0), &of(known[at].1)], &mut known);
    }
    // The forks' ends go on.
    for fork in 0..12 {
        let of = |slot| [step(80, Parent::Slot(slot), true)];
        both([&of(known[13 + 2 * fork].0), &of(known[13 + 2 * fork].1)], &mut known);
    }
    println!("logits of 26 forks apart at most {most:e} of the largest");
    assert!(most <= LOGITS, "{most:e}");
    for (slot, _) in known {
        a.release(slot);
    }
    let found = a.extend(&first).expect("positions, where others were released");
    assert_eq!(found.slots.len(), 12);
}

#[test]
fn a_native_run_is_one_in_float16_of_another_identity() {
    let native = on_mlx(demo().checkpoint(), "demo", Precision::Native);
    assert!(native.backend().kernel().starts_with("mlx-float16-"), "{}", native.backend().kernel());
    let (found, expected) = (records(&native, &[0, 10_000_000]), records(demo(), &[0, 10_000_000]));
    assert_eq!(found[0].text, expected[0].text);
    assert_ne!(found[0].run.id, expected[0].run.id);
    assert_ne!(found[0].margin, expected[0].margin, "float16 has other roundings");
    let prompts = [native.prompt(seed::PROMPT).expect("ids")];
    for check in verify(&native, &prompts, 2, 0, |_| ()).expect("checks") {
        assert!(check.holds, "{check:?}");
    }
}

#[test]
fn what_the_model_does_not_have_is_an_error_and_leaves_it_as_it_was() {
    let mut body = demo().body();
    let step = Step { token: 99_999, parent: Parent::Start, hidden: true, embedding: None, row: None };
    assert!(matches!(body.extend(&[step]), Err(BodyError::Token { token: 99_999, .. })));
    let step = Step { token: 1, parent: Parent::Start, hidden: true, embedding: Some(&[1.0; 3]), row: None };
    let error = body.extend(&[step]).expect_err("an embedding of another width");
    assert!(matches!(error, BodyError::Backend { backend: "mlx", .. }), "{error:?}");
    assert!(body.extend(&[Step { embedding: None, ..step }]).is_ok());
    assert!(matches!(Certifier::new(demo()), Err(CertificateError::Backend("mlx"))));
}

/// The first prompt of mlx-lm's trajectories on `name` under `shifts`.
fn as_mlx_lm(name: &str, lines: &str, shifts: &[i64], shared: bool) {
    let Some(folder) = folder(name, &format!("mlx-lm's trajectories on {name}, by MLX")) else { return };
    let checkpoint = Arc::new(Checkpoint::open(&folder).expect("a checkpoint"));
    let model = on_mlx(&checkpoint, name, Precision::Float32).with_shared_embedding(shared);
    let mut some = references(lines);
    let prompt = some[0].prompt_ids.clone();
    some.retain(|reference| reference.prompt_ids == prompt && shifts.contains(&reference.shift));
    assert_eq!(some.len(), shifts.len());
    compare(&model, &some, 1e-3);
}

#[test]
fn smollm2_answers_as_mlx_lm_does() {
    as_mlx_lm("smollm2-g64", G64, &[0, 1, 1_000_003, 100_000_000], false);
    as_mlx_lm("smollm2-g32", G32, &[0, 1_000_000], false);
}

#[test]
fn a_tied_smollm2_edited_as_head_and_embedding_answers_as_mlx_lm_does() {
    as_mlx_lm("smollm2-g64-tied", TIED, &[1], true);
}

fn program(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headroom"));
    command.args(args).env("HEADROOM_CACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("mlx-cache"));
    command.output().expect("the program starts")
}

#[track_caller]
fn refused(args: &[&str], mentions: &[&str]) {
    let output = program(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
    assert!(mentions.iter().all(|text| stderr.contains(text)), "{args:?}: {stderr}");
}

#[test]
fn the_program_runs_on_mlx_and_keeps_runs_of_two_types_apart() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = folder.path().join("run.jsonl");
    let journal = journal.to_str().expect("Unicode");
    let run = |more: &[&str]| {
        let args = ["ladder", "--backend", "mlx", "--shifts", "0,1000005", "--threshold", "9", "--out", journal];
        args.iter().chain(more).map(|&arg| arg.to_owned()).collect::<Vec<_>>()
    };
    let of = |args: &[String]| args.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
    let args = run(&["--dtype", "float32", "--format", "json"]);
    let output = program(&args.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(output.status.code(), Some(0), "{}: {}", of(&args), String::from_utf8_lossy(&output.stderr));
    let object: Value = serde_json::from_slice(&output.stdout).expect("an object");
    let record = &object["records"][0];
    assert_eq!((&record["backend"], &record["text"]), (&json!("mlx"), &json!("2 + 2 is 4.")));
    assert_eq!(object["restored"]["identical"], json!(true));
    let args = run(&["--dtype", "native", "--resume"]);
    refused(&args.iter().map(String::as_str).collect::<Vec<_>>(), &["float32", "float16", "--dtype"]);
    refused(
        &["ladder", "--shifts", "0,1000005", "--threshold", "9", "--out", journal, "--resume", "--backend", "cpu"],
        &["backend", "mlx"],
    );
    refused(&["certify", "--backend", "mlx"], &["rounding bound", "--backend cpu"]);
}

#[test]
fn sessions_on_several_threads_share_one_model() {
    let model = demo();
    let prompts = [model.prompt(seed::PROMPT).expect("ids")];
    let answers: Vec<Vec<u32>> = std::thread::scope(|scope| {
        let session = || {
            let mut session = Session::new(model, &prompts, Settings::given(3, 9.0));
            let mut records = Vec::new();
            probe(&mut session, &[Edit::shift(1)], keep(&mut records)).expect("records");
            records.remove(0).tokens
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(session)).collect();
        threads.into_iter().map(|thread| thread.join().expect("an answer")).collect()
    });
    assert!(answers.iter().all(|answer| answer.len() == 3 && *answer == answers[0]), "{answers:?}");
}
