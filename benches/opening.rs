//! Opening a checkpoint of Llama-3-8B's shape, all 32 layers: time, and memory that becomes resident by it.
//!
//! `cargo bench --bench opening`. No weight is read to open a model, so the 4.5 GB of the file may be a hole.

#![expect(clippy::print_stdout, reason = "a program")]

#[path = "common/llama3_8b.rs"]
mod llama3_8b;

use divan::{Bencher, black_box};
use lm_headroom::checkpoint::Checkpoint;

fn main() {
    let folder = llama3_8b::with_layers(32);
    let before = resident();
    let checkpoint = Checkpoint::open(&folder).expect("a checkpoint");
    match (before, resident()) {
        (Some(before), Some(after)) => {
            println!("resident: {:.1} MB before, {:.1} MB with the model open", before / 1e6, after / 1e6);
        }
        _ => println!("resident memory is not known on this system"),
    }
    drop(checkpoint);
    divan::main();
}

/// Bytes of this process that are in memory, where the system says so.
fn resident() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(1024.0 * line.split_whitespace().next()?.parse::<f64>().ok()?)
}

#[divan::bench(sample_count = 20)]
fn llama3_8b(bencher: Bencher<'_, '_>) {
    let folder = llama3_8b::with_layers(32);
    bencher.bench_local(|| Checkpoint::open(black_box(&folder)).expect("a checkpoint"));
}
