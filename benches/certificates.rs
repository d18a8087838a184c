//! Certificates of a ten-token answer, after its clean run: least flips, census of code bits, census of scales and
//! biases, and what they need before.
//!
//! `HEADROOM_MODELS=DIR cargo bench --bench certificates`, where DIR holds `smollm2-g64`, which is passed over, and said
//! to be, where it is not there; and on a head of Llama-3-8B's shape. `HEADROOM_THREADS` sets the threads (default: all).

#[path = "common/llama3_8b.rs"]
mod llama3_8b;

use std::sync::Arc;

use divan::{Bencher, black_box};
use lm_headroom::{
    certificate::{Position, Rows, all_least_flips, census, scale_census},
    checkpoint::Checkpoint,
    kernels::{Kernel, Rounding},
    model::{BodyError, CpuProjection, Decoder, Projection, Query},
    team::Team,
    testing::{model::reference_folder, skipped},
    trial::{Task, Trials, Tying},
};

const LLAMA3_8B: &str = "llama3-8b-shape";
const MODELS: [&str; 2] = ["smollm2-g64", LLAMA3_8B];

/// "What is 2+2?" for SmolLM2; any ids do for weights that are random.
const PROMPT: [u32; 37] = [
    1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407, 19712, 8182, 2, 198,
    1, 4093, 198, 1780, 314, 216, 34, 27, 34, 47, 2, 198, 1, 520, 9531, 198,
];

fn main() {
    divan::main();
}

/// A clean answer's hidden states.
struct Clean {
    checkpoint: Arc<Checkpoint>,
    team: Arc<Team>,
    kernel: Kernel,
    hidden: Vec<Vec<f32>>,
}

impl Clean {
    fn of(name: &str) -> Option<Self> {
        let folder = match name {
            LLAMA3_8B => llama3_8b::with_layers(1, true),
            _ => reference_folder(name).inspect_err(|why| skipped("certificates", why)).ok()?,
        };
        let checkpoint = Arc::new(Checkpoint::open(&folder).expect("a checkpoint"));
        let team = Arc::new(match std::env::var("HEADROOM_THREADS").ok().and_then(|n| n.parse().ok()) {
            Some(threads) => Team::new(threads),
            None => Team::of_this_machine(),
        });
        let kernel = Kernel::best();
        let mut head = CpuProjection::new(checkpoint.head().view(), kernel, &team);
        let task = Task { prompts: vec![&PROMPT], eos: &[], max_tokens: 10, tying: Tying::Separate };
        let body = Decoder::new(Arc::clone(&checkpoint), kernel, Arc::clone(&team));
        let mut trials = Trials::new(body, kernel, &team, task);
        trials.run(&mut head, &[], |_| Ok::<_, BodyError>(())).expect("a clean answer");
        let hidden = trials.clean_hidden(0).map(<[f32]>::to_vec).collect();
        drop(trials);
        Some(Self { checkpoint, team, kernel, hidden })
    }

    fn logits(&self) -> Vec<f32> {
        let mut head = CpuProjection::new(self.checkpoint.head().view(), self.kernel, &self.team);
        let mut out = vec![0.0; self.hidden.len() * head.vocab_size()];
        let hidden = self.hidden.iter().map(Vec::as_slice).collect();
        head.logits(vec![Query { shift: 0, hidden, out: &mut out }]).expect("logits");
        out
    }

    fn rows(&self) -> Rows<'_> {
        Rows::new(self.checkpoint.head().view(), Rounding::KERNELS, &self.team)
    }
}

fn positions<'a>(clean: &Clean, rows: &'a Rows<'a>, logits: &'a [f32]) -> Vec<Position<'a>> {
    let vocab = rows.head().layout().rows();
    let each = clean.hidden.iter().zip(logits.chunks_exact(vocab));
    each.map(|(hidden, logits)| Position::new(rows, hidden, logits).expect("finite")).collect()
}

/// Everything that stands before both: logits, what is known of each row, each position's token and runner-up.
#[divan::bench(args = MODELS, sample_count = 10)]
fn before(bencher: Bencher<'_, '_>, name: &str) {
    let Some(clean) = Clean::of(name) else { return };
    bencher.bench_local(|| {
        let logits = clean.logits();
        let rows = clean.rows();
        black_box(positions(&clean, &rows, &logits).len())
    });
}

#[divan::bench(args = MODELS, sample_count = 10)]
fn least_flips_of_ten_positions(bencher: Bencher<'_, '_>, name: &str) {
    let Some(clean) = Clean::of(name) else { return };
    let (rows, logits) = (clean.rows(), clean.logits());
    let positions = positions(&clean, &rows, &logits);
    bencher.bench_local(|| all_least_flips(black_box(&positions), &[], &clean.team));
}

#[divan::bench(args = MODELS, sample_count = 10)]
fn census_of_code_bits(bencher: Bencher<'_, '_>, name: &str) {
    let Some(clean) = Clean::of(name) else { return };
    let (rows, logits) = (clean.rows(), clean.logits());
    let positions = positions(&clean, &rows, &logits);
    bencher.bench_local(|| census(black_box(&positions), &clean.team));
}

#[divan::bench(args = MODELS, sample_count = 3)]
fn census_of_scales_and_biases(bencher: Bencher<'_, '_>, name: &str) {
    let Some(clean) = Clean::of(name) else { return };
    let (rows, logits) = (clean.rows(), clean.logits());
    let positions = positions(&clean, &rows, &logits);
    bencher.bench_local(|| scale_census(black_box(&positions), &clean.team));
}

/// Logits, least flips and census: the certificate of an answer after its clean run.
#[divan::bench(args = MODELS, sample_count = 10)]
fn certificate_of_a_ten_token_answer(bencher: Bencher<'_, '_>, name: &str) {
    let Some(clean) = Clean::of(name) else { return };
    bencher.bench_local(|| {
        let logits = clean.logits();
        let rows = clean.rows();
        let positions = positions(&clean, &rows, &logits);
        (all_least_flips(&positions, &[], &clean.team), census(&positions, &clean.team))
    });
}
