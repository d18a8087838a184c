//! What tests, fuzz targets and benchmarks share.

pub mod brute_force;
pub mod fixture;
pub mod records;

use std::io::Write;

/// Says on stderr that a test, or a part of it, was skipped, and why. The harness keeps what `eprintln!` writes to
/// itself when a test passes; this it does not, so that nothing is skipped silently.
pub fn skipped(what: &str, why: &str) {
    // Where stderr is closed there is nobody to tell.
    drop(std::io::stderr().write_all(format!("SKIPPED {what}: {why}\n").as_bytes()));
}
