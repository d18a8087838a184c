//! How fast the model that ships inside can be fuzzed: shifts of its head, each held against a ten-token answer,
//! teacher-forced, on one core.
//!
//! `cargo bench --bench demo`

use std::sync::Arc;

use divan::{Bencher, black_box, counter::ItemsCount};
use lm_headroom::{
    edit::{Edit, Plan},
    kernels::Kernel,
    subject::{self, Subject},
    team::Team,
    trial::{Task, Trials},
};

fn main() {
    divan::main();
}

/// An answer of nine tokens and its eos.
const PROMPT: &str = "What is the capital of France?";

fn plans(model: &Subject, edits: impl Iterator<Item = Edit>) -> Vec<Plan> {
    edits.map(|edit| edit.plan(&model.head().view()).expect("a plan")).collect()
}

fn forced(bencher: Bencher<'_, '_>, edits: impl Fn(i64) -> Edit) {
    let team = Arc::new(Team::new(1));
    let checkpoint = subject::open(None).expect("the model inside");
    let model = Subject::new("demo".to_owned(), None, checkpoint, Kernel::best(), team).expect("a tokenizer");
    let prompt = model.prompt(PROMPT).expect("ids");
    let ids = [prompt.ids];
    let plans = plans(&model, (0..1000).map(|i| edits(i * 7_654_321 + 1)));
    let mut head = model.projection(model.head().view());
    let task = Task {
        prompts: ids.iter().map(Vec::as_slice).collect(),
        eos: model.eos(),
        max_tokens: 10,
        tying: model.tying(),
    };
    let mut trials = Trials::new(model.body(), model.kernel(), model.team(), task);
    // The clean answer, once.
    let steps = trials.forced(&mut head, &plans[..1]).expect("measurements")[0].0.len();
    assert_eq!(steps, 10, "a ten-token answer");
    bencher
        .counter(ItemsCount::new(plans.len()))
        .bench_local(|| trials.forced(&mut head, black_box(&plans)).expect("measurements"));
}

#[divan::bench(sample_count = 20)]
fn shift_trials_of_a_ten_token_answer_on_one_core(bencher: Bencher<'_, '_>) {
    forced(bencher, Edit::shift);
}

#[divan::bench(sample_count = 10)]
fn single_flip_trials_of_a_ten_token_answer_on_one_core(bencher: Bencher<'_, '_>) {
    forced(bencher, |i| {
        let (row, column, bit) = (i % 1536, i / 7 % 256, i % 4);
        format!("flip:weight[{row},{column}].{bit}").parse().expect("an edit")
    });
}
