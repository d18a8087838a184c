//! Whole runs on SmolLM2-135M 4-bit: the ten-shift ladder, and plain greedy decoding.
//!
//! `HEADROOM_MODELS=DIR cargo bench --bench trials`, where DIR holds `smollm2-g64`; without it
//! nothing is run, and that is said. `HEADROOM_EDITS` sets the number of sparse edits (default: 20,000).

#[path = "common/greedy.rs"]
mod greedy;

use std::sync::Arc;

use divan::{Bencher, counter::ItemsCount};
use lm_headroom::{
    checkpoint::Checkpoint,
    edit::{Amount, Change, Edit, Plan, Random},
    kernels::Kernel,
    model::{Body, BodyError, CpuProjection, Decoder, Parent, Step},
    quant::Tensor,
    team::Team,
    testing::{model::reference_folder, skipped},
    trial::{Task, Trials, Tying},
};

const PROMPT: [u32; 37] = [
    1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407, 19712, 8182, 2, 198,
    1, 4093, 198, 1780, 314, 216, 34, 27, 34, 47, 2, 198, 1, 520, 9531, 198,
];
const SHIFTS: [u32; 10] =
    [0, 1, 1_000_000, 1_000_001, 1_000_003, 1_000_004, 1_000_005, 1_000_010, 10_000_000, 100_000_000];

fn main() {
    divan::main();
}

struct Setup {
    checkpoint: Arc<Checkpoint>,
    team: Arc<Team>,
    kernel: Kernel,
}

fn setup() -> Option<Setup> {
    let folder = reference_folder("smollm2-g64").inspect_err(|why| skipped("trials", why)).ok()?;
    let checkpoint = Arc::new(Checkpoint::open(&folder).expect("a checkpoint"));
    Some(Setup { checkpoint, team: Arc::new(Team::of_this_machine()), kernel: Kernel::best() })
}

fn generate(setup: &Setup, plans: &[Plan], max_tokens: usize) {
    let body = Decoder::new(Arc::clone(&setup.checkpoint), setup.kernel, Arc::clone(&setup.team));
    let mut head = CpuProjection::new(setup.checkpoint.head().view(), setup.kernel, &setup.team);
    let prompts = [PROMPT.to_vec()];
    let task =
        Task { prompts: prompts.iter().map(Vec::as_slice).collect(), eos: &[2], max_tokens, tying: Tying::Separate };
    let mut trials = Trials::new(body, setup.kernel, &setup.team, task);
    trials.run(&mut head, plans, |_| Ok::<_, BodyError>(())).expect("trials");
}

#[divan::bench(sample_count = 10)]
fn ladder_of_ten_shifts(bencher: Bencher<'_, '_>) {
    let Some(setup) = setup() else { return };
    let plans: Vec<Plan> = SHIFTS.iter().map(|&shift| Plan { shift, ..Plan::default() }).collect();
    bencher.bench_local(|| generate(&setup, &plans, 10));
}

#[divan::bench(sample_count = 10)]
fn prefill_of_37_tokens(bencher: Bencher<'_, '_>) {
    let Some(setup) = setup() else { return };
    let step = |(i, &token): (usize, &u32)| Step {
        token,
        parent: if i == 0 { Parent::Start } else { Parent::Step(i - 1) },
        hidden: i + 1 == PROMPT.len(),
        embedding: None,
        row: None,
    };
    let steps: Vec<Step<'_>> = PROMPT.iter().enumerate().map(step).collect();
    bencher.counter(ItemsCount::new(PROMPT.len())).bench_local(|| {
        let mut body = Decoder::new(Arc::clone(&setup.checkpoint), setup.kernel, Arc::clone(&setup.team));
        body.extend(&steps).expect("a prefill").hidden
    });
}

/// One stream, one token at a time, through body and head.
#[divan::bench(sample_count = 5)]
fn greedy_decoding_of_64_tokens(bencher: Bencher<'_, '_>) {
    let Some(setup) = setup() else { return };
    bencher.counter(ItemsCount::new(64_usize)).bench_local(|| {
        let mut body = Decoder::new(Arc::clone(&setup.checkpoint), setup.kernel, Arc::clone(&setup.team));
        let mut head = CpuProjection::new(setup.checkpoint.head().view(), setup.kernel, &setup.team);
        greedy::decode(&mut body, &mut head, 1, Parent::Start, 64)
    });
}

/// Single flips of random bits, each scored (divergence and agreement) against ten cached positions; from the edit on, so
/// that planning it counts.
#[divan::bench(sample_count = 10)]
fn sparse_edits_against_ten_positions(bencher: Bencher<'_, '_>) {
    let count: u64 = std::env::var("HEADROOM_EDITS").ok().and_then(|n| n.parse().ok()).unwrap_or(20_000);
    let Some(setup) = setup() else { return };
    let matrix = setup.checkpoint.head().view();
    let edits: Vec<Edit> = (0..count)
        .map(|seed| {
            let flip = Change::Random(Random { tensor: Tensor::Weight, amount: Amount::Flips(1), seed });
            Edit::new(vec![flip]).expand(matrix.layout()).expect("an edit")
        })
        .collect();
    let body = Decoder::new(Arc::clone(&setup.checkpoint), setup.kernel, Arc::clone(&setup.team));
    let mut head = CpuProjection::new(matrix, setup.kernel, &setup.team);
    let task = Task { prompts: vec![&PROMPT], eos: &[2], max_tokens: 10, tying: Tying::Separate };
    let mut trials = Trials::new(body, setup.kernel, &setup.team, task);
    // The clean answer, once.
    let steps = trials.forced(&mut head, &[Plan::default()]).expect("measurements")[0].0.len();
    assert_eq!(steps, 10, "positions");
    bencher.counter(ItemsCount::new(count)).bench_local(|| {
        let plans: Vec<Plan> = edits.iter().map(|edit| edit.plan(&matrix).expect("a plan")).collect();
        trials.forced(&mut head, &plans).expect("measurements")
    });
}
