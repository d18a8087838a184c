//! Trajectories of real mlx-lm, and a model of any backend held against them.

use std::path::PathBuf;

use lm_headroom::{
    coherence::Finish,
    edit::Plan,
    subject::Subject,
    testing::{
        model::{answers, reference_folder},
        skipped,
    },
};
use serde::Deserialize;

/// A prompt's answer under a shift.
#[derive(Deserialize)]
pub(crate) struct Reference {
    prompt: String,
    pub(crate) shift: i64,
    pub(crate) prompt_ids: Vec<u32>,
    tokens: Vec<u32>,
    finish: String,
    first_words: Vec<u32>,
    top5: Vec<Vec<(u32, f64)>>,
    /// Steps at which a logit was not a number.
    #[serde(default)]
    pub(crate) nan_steps: usize,
}

pub(crate) const G64: &str = include_str!("../fixtures/reference/smollm2-g64.jsonl");
pub(crate) const G32: &str = include_str!("../fixtures/reference/smollm2-g32.jsonl");
pub(crate) const TIED: &str = include_str!("../fixtures/reference/smollm2-g64-tied.jsonl");

pub(crate) fn references(text: &str) -> Vec<Reference> {
    text.lines().map(|line| serde_json::from_str(line).expect("a reference")).collect()
}

/// The folder of a reference checkpoint; where there is none, a line says that `what` is skipped.
pub(crate) fn folder(name: &str, what: &str) -> Option<PathBuf> {
    reference_folder(name).map_err(|why| skipped(what, &why)).ok()
}

/// Runs everything in `references` at once and compares trial by trial, margins within `bound`.
pub(crate) fn compare(model: &Subject, references: &[Reference], bound: f64) {
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
    let (_, trials) = answers(model, &prompts, &plans, 10).expect("trials");

    let head = model.head().view();
    let (mut compared, mut most) = (0, 0.0_f64);
    for reference in references {
        let prompt = prompts.iter().position(|ids| *ids == reference.prompt_ids).expect("its prompt");
        let edit = shifts.iter().position(|&shift| shift == reference.shift).expect("its shift");
        let trial = trials.iter().find(|trial| (trial.prompt, trial.edit) == (prompt, edit)).expect("its trial");
        let what = format!("{:?} under shift {}", reference.prompt, reference.shift);
        assert_eq!(reference.nan_steps, 0, "{what}: mlx-lm goes on where a trial ends");
        assert_eq!(trial.trajectory.tokens, reference.tokens, "{what}");
        assert_eq!(trial.trajectory.finish == Finish::Stop, reference.finish == "stop", "{what}");
        let words: Vec<u32> = (0..5).map(|i| head.word(0, i).wrapping_sub(reference.shift as u32)).collect();
        assert_eq!(words, reference.first_words, "{what}");
        assert_eq!(plans[edit].first_words(&head, 5), reference.first_words, "{what}");
        // mlx-lm's two best logits bound the margin: another summation order moves it by far less.
        for (step, top) in reference.top5.iter().enumerate() {
            let margin = f64::from(trial.trajectory.margin[step]);
            let apart = (margin - (top[0].1 - top[1].1)).abs();
            assert!(apart < bound, "{what}, step {step}: margin {margin}");
            most = most.max(apart);
        }
        compared += 1;
    }
    println!(
        "{}: {compared} trajectories equal, margins apart at most {most:e}, {}",
        model.name(),
        model.backend().kernel()
    );
    assert_eq!(compared, references.len());
}
