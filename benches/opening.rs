//! Opening a checkpoint of Llama-3-8B's shape, all 32 layers: time, and memory that becomes resident by it.
//!
//! `cargo bench --bench opening`. No weight is read to open a model, so the 4.5 GB of the file are a hole.

#![expect(clippy::print_stdout, reason = "a program")]

#[path = "common/llama3_8b.rs"]
mod llama3_8b;

use divan::{Bencher, black_box};
use lm_headroom::checkpoint::Checkpoint;

fn main() {
    let folder = llama3_8b::with_layers(32, false);
    let before = memory("VmRSS:");
    let checkpoint = Checkpoint::open(&folder).expect("a checkpoint");
    match (before, memory("VmRSS:"), memory("VmHWM:")) {
        (Some(before), Some(after), Some(most)) => println!(
            "resident: {before:.1} MB before, {:.1} MB more with the model open, {:.1} MB more at most",
            after - before,
            most - before
        ),
        _ => println!("resident memory is not known on this system"),
    }
    drop(checkpoint);
    divan::main();
}

/// Megabytes of this process that are in memory now, or were at most, where the system says so.
fn memory(which: &str) -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(which))?;
    Some(1024.0 * line.split_whitespace().next()?.parse::<f64>().ok()? / 1e6)
}

#[divan::bench(sample_count = 20)]
fn llama3_8b(bencher: Bencher<'_, '_>) {
    let folder = llama3_8b::with_layers(32, false);
    bencher.bench_local(|| Checkpoint::open(black_box(&folder)).expect("a checkpoint"));
}
