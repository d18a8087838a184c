//! headroom's side of `benches/compare.sh`: what the peers are asked to do, once, as lines of `name value`.
//!
//! `ours CHECKPOINT`, `ours prompts CHECKPOINT TOKENS...` or `ours products ROWSxCOLSxVECTORS...`; `HEADROOM_KERNEL` sets the kernel (default: the fastest). Not for reading by itself: `cargo bench` has the
//! benches, and this runs in turn with the peers.

#![expect(clippy::print_stdout, reason = "a program")]

#[path = "common/greedy.rs"]
mod greedy;
#[path = "common/kernel.rs"]
mod kernel;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use kernel::kernel;
use lm_headroom::{
    edit::Edit,
    kernels::{Activations, Pass, Product, multiply},
    model::{AnyBody, Extension, Parent, Query, Step},
    quant::{FloatType, MatrixRef, WeightsRef},
    search::{Session, Settings, keep, probe},
    seed,
    subject::{self, Subject},
    team::Team,
    testing::heads::affine,
};

const TOKENS: usize = 10;
const DECODED: usize = 64;

fn main() {
    // cargo bench adds a flag of its own.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.split_first() {
        Some((what, rest)) if what == "products" => rest.iter().for_each(|shape| products(shape)),
        Some((what, [checkpoint, lengths @ ..])) if what == "prompts" => {
            let model = model(checkpoint);
            lengths.iter().for_each(|length| prompt(&model, length.parse().expect("a number of tokens")));
        }
        Some((checkpoint, [])) => run(checkpoint),
        // `cargo bench` without names runs every bench: this one has nothing to say then.
        _ => {}
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let start = Instant::now();
    let done = work();
    (start.elapsed().as_secs_f64(), done)
}

fn model(checkpoint: &str) -> Subject {
    let team = Arc::new(Team::of_this_machine());
    let checkpoint = subject::open(Some(Path::new(checkpoint))).expect("a checkpoint");
    Subject::new("model".to_owned(), None, checkpoint, kernel(), team).expect("a tokenizer")
}

/// A prompt in one go, and the logits behind it.
fn prefill(model: &Subject, ids: &[u32], body: &mut AnyBody, logits: &mut [f32]) -> (f64, Extension) {
    let steps: Vec<Step<'_>> = ids
        .iter()
        .enumerate()
        .map(|(i, &token)| Step {
            token,
            parent: if i == 0 { Parent::Start } else { Parent::Step(i - 1) },
            hidden: i + 1 == ids.len(),
            embedding: None,
            row: None,
        })
        .collect();
    let mut head = model.projection(model.head().view());
    timed(|| {
        let extension = body.extend(&steps).expect("a prompt");
        head.logits(vec![Query { shift: 0, hidden: vec![&extension.hidden], out: &mut *logits }]).expect("logits");
        extension
    })
}

/// A prompt of so many tokens. Which they are does not change what it costs.
fn prompt(model: &Subject, tokens: usize) {
    let ids: Vec<u32> = (0..tokens as u32).map(|i| 1000 + i * 7919 % 40_000).collect();
    let mut logits = vec![0.0; model.projection(model.head().view()).vocab_size()];
    let (seconds, _) = prefill(model, &ids, &mut model.body(), &mut logits);
    println!("prompt_{tokens} {seconds:.6}");
}

fn run(checkpoint: &str) {
    let model = model(checkpoint);
    let prompts = [model.prompt(seed::PROMPT).expect("a prompt")];
    let edits = seed::SHIFTS.map(Edit::shift);
    // Digests are those of loading; the session before the one that counts has computed them.
    let ladder = || {
        let mut session = Session::new(&model, &prompts, Settings::given(TOKENS, 6.3));
        let mut records = Vec::new();
        let (seconds, ()) = timed(|| probe(&mut session, &edits, keep(&mut records)).expect("records"));
        (seconds, records)
    };
    ladder();
    let (seconds, records) = ladder();
    assert_eq!(records.len(), seed::SHIFTS.len());
    println!("ladder_s {seconds:.6}");
    records.iter().for_each(|record| println!("verdict {}", record.verdict));

    let ids = &prompts[0].ids;
    let mut body = model.body();
    let mut head = model.projection(model.head().view());
    let mut logits = vec![0.0; head.vocab_size()];
    let (seconds, extension) = prefill(&model, ids, &mut body, &mut logits);
    println!("prefill_s {seconds:.6}");
    let parent = Parent::Slot(*extension.slots.last().expect("a prompt"));
    let first = model.kernel().top(&logits).expect("finite").token as u32;
    let (seconds, others) = timed(|| greedy::decode(&mut body, &mut head, first, parent, DECODED));
    let text: Vec<u32> = std::iter::once(first).chain(others).take(TOKENS).collect();
    println!("decode_tokens_per_s {:.3}", DECODED as f64 / seconds);
    println!("text {:?}", model.decode(&text).expect("text"));
}

/// Multiply-adds a second of a quantized matrix, decoding included, and some vectors.
fn products(shape: &str) {
    let [rows, cols, vectors] = shape.split('x').map(|n| n.parse().expect("a size")).collect::<Vec<usize>>()[..] else {
        panic!("rows, columns and vectors, not {shape}");
    };
    let (team, kernel) = (Team::of_this_machine(), kernel());
    let layout = affine(rows, cols, 4, 64, FloatType::F16);
    let weight: Vec<u8> = (0..rows * layout.weight_row_bytes()).map(|i| ((i * 7919) >> 3) as u8).collect();
    let scales = half::f16::from_f32(0.0045).to_le_bytes().repeat(rows * layout.groups_per_row());
    let biases = half::f16::from_f32(-0.034).to_le_bytes().repeat(rows * layout.groups_per_row());
    let matrix = MatrixRef::new(layout, &weight, &scales, Some(&biases)).expect("a matrix");
    let x: Vec<f32> = (0..vectors * cols).map(|i| (i as f32 * 0.1).sin()).collect();
    let x = Activations::from_rows(kernel, cols, &x);
    let mut out = vec![0.0; vectors * rows];
    let mut product = || {
        let products = vec![Product { shift: 0, x: x.all(), out: &mut out }];
        multiply(kernel, &team, &mut [Pass { weights: WeightsRef::Quantized(matrix), products }]);
    };
    product();
    let (mut best, begin) = (f64::MAX, Instant::now());
    while begin.elapsed() < Duration::from_millis(700) {
        best = best.min(timed(&mut product).0);
    }
    println!("{shape} {:.4e}", (rows * cols * vectors) as f64 / best);
}
