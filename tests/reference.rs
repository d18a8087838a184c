//! Trajectories of real mlx-lm (0.32.2, CPU, activations widened to float32) on SmolLM2-135M-Instruct
//! quantized by its own converter: six prompts, the ten shifts of the ladder, ten greedy tokens.
//!
//! Needs the checkpoints: `HEADROOM_MODELS` names the folder that holds `smollm2-g64`, `smollm2-g32` and
//! `smollm2-g64-tied`. Without it each test says that it was skipped, and why.

#![expect(clippy::print_stdout, reason = "a test says what it looked at")]

use std::{path::PathBuf, sync::Arc};

use lm_headroom::{
    checkpoint::Checkpoint,
    coherence::Finish,
    edit::Plan,
    kernels::Kernel,
    model::{BodyError, CpuProjection, Llama},
    team::Team,
    testing::skipped,
    trial::{Event, Task, Trial, Trials, Tying},
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Reference {
    prompt: String,
    shift: i64,
    prompt_ids: Vec<u32>,
    tokens: Vec<u32>,
    finish: String,
    first_words: Vec<u32>,
    top5: Vec<Vec<(u32, f64)>>,
}

fn references(text: &str) -> Vec<Reference> {
    text.lines().map(|line| serde_json::from_str(line).expect("a reference")).collect()
}

fn model(name: &str) -> Option<PathBuf> {
    let found = std::env::var_os("HEADROOM_MODELS").map(|folder| PathBuf::from(folder).join(name));
    let found = found.filter(|folder| folder.join("config.json").exists());
    if found.is_none() {
        skipped(&format!("mlx-lm's trajectories on {name}"), "HEADROOM_MODELS names no folder that holds it");
    }
    found
}

/// Runs everything in `references` at once and compares trial by trial.
fn compare(folder: PathBuf, references: &[Reference], shared: bool) {
    let checkpoint = Arc::new(Checkpoint::open(&folder).expect("a checkpoint"));
    let team = Arc::new(Team::of_this_machine());
    let kernel = Kernel::best();
    let mut body = Llama::new(Arc::clone(&checkpoint), kernel, Arc::clone(&team));
    let head = checkpoint.weights().head().view();
    let mut projection = CpuProjection::new(head, kernel, &team);

    let mut prompts: Vec<Vec<u32>> = Vec::new();
    let mut shifts: Vec<i64> = Vec::new();
    for reference in references {
        if !prompts.contains(&reference.prompt_ids) {
            prompts.push(reference.prompt_ids.clone());
        }
        if !shifts.contains(&reference.shift) {
            shifts.push(reference.shift);
        }
    }
    let plans: Vec<Plan> = shifts.iter().map(|&shift| Plan { shift: shift as u32, ..Plan::default() }).collect();
    let tying = if shared { Tying::Shared(head) } else { Tying::Separate };
    let eos = &checkpoint.config().eos_token_ids;
    let task = Task { prompts: prompts.iter().map(Vec::as_slice).collect(), eos, max_tokens: 10, tying };
    let mut trials: Vec<Trial> = Vec::new();
    let mut run = Trials::new(&mut body, kernel, &team, task);
    run.run(&mut projection, &plans, |event| {
        if let Event::Trial(trial) = event {
            trials.push(trial);
        }
        Ok::<_, BodyError>(())
    })
    .expect("trials");

    let mut compared = 0;
    for reference in references {
        let prompt = prompts.iter().position(|ids| *ids == reference.prompt_ids).expect("its prompt");
        let edit = shifts.iter().position(|&shift| shift == reference.shift).expect("its shift");
        let trial = trials.iter().find(|trial| (trial.prompt, trial.edit) == (prompt, edit)).expect("its trial");
        let what = format!("{:?} under shift {}", reference.prompt, reference.shift);
        assert_eq!(trial.trajectory.tokens, reference.tokens, "{what}");
        assert_eq!(trial.trajectory.finish == Finish::Stop, reference.finish == "stop", "{what}");
        let words: Vec<u32> = (0..5).map(|i| head.word(0, i).wrapping_sub(reference.shift as u32)).collect();
        assert_eq!(words, reference.first_words, "{what}");
        // mlx-lm's two best logits bound the margin: another summation order moves it by far less.
        for (step, top) in reference.top5.iter().enumerate() {
            let margin = f64::from(trial.trajectory.margin[step]);
            assert!((margin - (top[0].1 - top[1].1)).abs() < 5e-3, "{what}, step {step}: margin {margin}");
        }
        compared += 1;
    }
    println!("{}: {compared} trajectories equal, kernel {}", folder.display(), kernel.name());
    assert_eq!(compared, references.len());
}

const G64: &str = include_str!("fixtures/reference/smollm2-g64.jsonl");
const G32: &str = include_str!("fixtures/reference/smollm2-g32.jsonl");
const TIED: &str = include_str!("fixtures/reference/smollm2-g64-tied.jsonl");

#[test]
fn group_64_answers_as_mlx_lm_does_under_every_shift() {
    if let Some(folder) = model("smollm2-g64") {
        compare(folder, &references(G64), false);
    }
}

#[test]
fn group_32_answers_as_mlx_lm_does_under_every_shift() {
    if let Some(folder) = model("smollm2-g32") {
        compare(folder, &references(G32), false);
    }
}

#[test]
fn a_tied_matrix_edited_as_head_and_embedding_answers_as_mlx_lm_does() {
    if let Some(folder) = model("smollm2-g64-tied") {
        compare(folder, &references(TIED), true);
    }
}

#[test]
fn a_tied_matrix_edited_as_head_alone_answers_as_the_untied_checkpoint() {
    if let Some(folder) = model("smollm2-g64-tied") {
        compare(folder, &references(G64), false);
    }
}
