//! Trajectories of real mlx-lm (0.32.2, CPU, activations widened to float32) on SmolLM2-135M-Instruct
//! quantized by its own converter: six prompts, the ten shifts of the ladder, ten greedy tokens.
//!
//! Needs the checkpoints: `HEADROOM_MODELS` names the folder that holds `smollm2-g64`, `smollm2-g32` and
//! `smollm2-g64-tied`. Without it each test says that it was skipped, and why.

#![expect(clippy::print_stdout, reason = "a test says what it looked at")]

mod mlx_lm;

use std::sync::Arc;

use lm_headroom::{
    kernels::Kernel,
    subject::{self, Subject},
    team::Team,
};
use mlx_lm::{G32, G64, TIED, compare, folder, references};

/// How far another summation order may move a margin.
const BOUND: f64 = 5e-3;

fn as_mlx_lm(name: &str, lines: &str, shared: bool) {
    let Some(folder) = folder(name, &format!("mlx-lm's trajectories on {name}")) else { return };
    let checkpoint = subject::open(Some(&folder)).expect("a checkpoint");
    let team = Arc::new(Team::of_this_machine());
    let model = Subject::new(name.to_owned(), None, checkpoint, Kernel::best(), team).expect("a tokenizer");
    compare(&model.with_shared_embedding(shared), &references(lines), BOUND);
}

#[test]
fn group_64_answers_as_mlx_lm_does_under_every_shift() {
    as_mlx_lm("smollm2-g64", G64, false);
}

#[test]
fn group_32_answers_as_mlx_lm_does_under_every_shift() {
    as_mlx_lm("smollm2-g32", G32, false);
}

#[test]
fn a_tied_matrix_edited_as_head_and_embedding_answers_as_mlx_lm_does() {
    as_mlx_lm("smollm2-g64-tied", TIED, true);
}

#[test]
fn a_tied_matrix_edited_as_head_alone_answers_as_the_untied_checkpoint() {
    as_mlx_lm("smollm2-g64-tied", G64, false);
}
