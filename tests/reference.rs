//! Trajectories of real mlx-lm (0.32.2, CPU, activations widened to float32) on SmolLM2-135M-Instruct
//! quantized by its own converter: six prompts, the ten shifts of the ladder, ten greedy tokens. The same on Gemma 3 270M, whose
//! family is another and whose head is the embedding: six raw prompts and six shifts, in 4 and in 8 bits.
//!
//! Needs the checkpoints: `HEADROOM_MODELS` names the folder that holds `smollm2-g64`, `smollm2-g32` and
//! `smollm2-g64-tied`, and `HEADROOM_GEMMA` the one that holds `gemma3-270m-g64` and `gemma3-270m-8bit`. Without them each test
//! says that it was skipped, and why.
//!
//! Small checkpoints of many families, with mlx-lm's trajectories beside them, are compared where `HEADROOM_FAMILIES` names their
//! folder.

#![expect(clippy::print_stdout, reason = "a test says what it looked at")]

mod mlx_lm;

use std::{collections::BTreeMap, sync::Arc};

use lm_headroom::{
    kernels::Kernel,
    subject::{self, Subject},
    team::Team,
};
use mlx_lm::{G32, G64, TIED, compare, folder, for_each_of_the_kit, references};

const GEMMA_G64: &str = include_str!("fixtures/reference/gemma3-270m-g64.jsonl");
const GEMMA_G64_TIED: &str = include_str!("fixtures/reference/gemma3-270m-g64-tied.jsonl");
const GEMMA_8BIT: &str = include_str!("fixtures/reference/gemma3-270m-8bit.jsonl");
const GEMMA_8BIT_TIED: &str = include_str!("fixtures/reference/gemma3-270m-8bit-tied.jsonl");

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

#[test]
fn gemma_in_4_bits_answers_as_mlx_lm_does_under_every_shift() {
    as_mlx_lm("gemma3-270m-g64", GEMMA_G64, false);
}

#[test]
fn gemma_in_8_bits_answers_as_mlx_lm_does_under_every_shift() {
    as_mlx_lm("gemma3-270m-8bit", GEMMA_8BIT, false);
}

#[test]
fn gemma_edited_as_head_and_embedding_answers_as_mlx_lm_does() {
    as_mlx_lm("gemma3-270m-g64", GEMMA_G64_TIED, true);
    as_mlx_lm("gemma3-270m-8bit", GEMMA_8BIT_TIED, true);
}

#[test]
fn small_checkpoints_of_native_families_answer_as_mlx_lm_does() {
    let team = Arc::new(Team::of_this_machine());
    let mut compared: BTreeMap<&str, usize> = BTreeMap::new();
    let looked = for_each_of_the_kit("the CPU", |folder, checkpoint, references, shared| {
        *compared.entry(checkpoint.config().family.name).or_default() += 1;
        let model = Subject::new(folder.display().to_string(), None, checkpoint, Kernel::best(), Arc::clone(&team));
        compare(&model.expect("a tokenizer").with_shared_embedding(shared), references, BOUND);
    });
    if !looked {
        return;
    }
    println!("{compared:?}");
    assert!(!compared.is_empty(), "no checkpoint of the folder is of a native family");
}
