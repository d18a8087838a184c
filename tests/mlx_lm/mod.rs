//! Trajectories of real mlx-lm, and a model of any backend held against them.

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use lm_headroom::{
    checkpoint::{Checkpoint, CheckpointError, ConfigError},
    coherence::Finish,
    edit::Plan,
    subject::{self, Subject},
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

/// The checkpoint in a folder, if its family is native and all that its configuration asks for is; else what is refused is said.
fn native(folder: &Path) -> Option<Arc<Checkpoint>> {
    match subject::open(Some(folder)) {
        Ok(checkpoint) => Some(checkpoint),
        Err(CheckpointError::Config {
            error: error @ (ConfigError::ModelType(_) | ConfigError::Asks { .. }), ..
        }) => {
            let text = error.to_string();
            println!("{}: refused: {}", folder.display(), text.get(..100).unwrap_or(&text));
            None
        }
        Err(error) => panic!("{}: {error}", folder.display()),
    }
}

/// Lines of `reference`, without those of logits that are no numbers: there mlx-lm takes the first of them as a token.
fn finite_lines(reference: &Path) -> Option<String> {
    let lines = fs::read_to_string(reference).ok()?;
    Some(lines.lines().filter(|line| !line.contains("nan_steps")).collect::<Vec<_>>().join("\n"))
}

/// Hands over each small checkpoint of a native family, with mlx-lm's trajectories on it and whether their edits reach the embedding, too;
/// whether `HEADROOM_FAMILIES` names a folder of them. Where it does not, a line says that they are not run on `backend`.
pub(crate) fn for_each_of_the_kit(
    backend: &str,
    mut check: impl FnMut(&Path, Arc<Checkpoint>, &[Reference], bool),
) -> bool {
    let what = format!("mlx-lm's trajectories on small checkpoints of many families, by {backend}");
    let Some(kit) = env::var_os("HEADROOM_FAMILIES") else {
        skipped(&what, "HEADROOM_FAMILIES does not name a folder of them");
        return false;
    };
    let mut folders: Vec<_> =
        fs::read_dir(kit).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    folders.sort();
    for folder in folders {
        for (reference, shared) in [("reference.jsonl", false), ("reference-shared.jsonl", true)] {
            let Some(lines) = finite_lines(&folder.join(reference)) else { continue };
            let Some(checkpoint) = native(&folder) else { continue };
            check(&folder, checkpoint, &references(&lines), shared);
        }
    }
    true
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
