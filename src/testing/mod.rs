//! The harness: what tests, fuzz targets and benchmarks share, and what any crate can hold its own model against.
//!
//! [`oracles`] are the laws. [`strategies`] draw their inputs from bytes, whoever gives those: [`property`] draws them
//! at random and shrinks what fails, a fuzz target passes on libFuzzer's, and `regressions` keeps what once failed
//! as values. [`comparators`] say what counts as equal, [`heads`] what an edit means, [`fixture`] makes small
//! checkpoints, [`model`] is a whole one as the thing under test. [`mod@harness`] puts all of it together for a model of
//! anybody's, with its answers in a [`snapshot`].

pub mod brute_force;
pub mod comparators;
pub mod entropy;
mod families;
pub mod fixture;
pub mod fuzz;
pub mod harness;
pub mod heads;
pub mod model;
pub mod oracles;
pub mod property;
pub(crate) mod records;
mod regressions;
pub mod snapshot;
#[cfg(test)]
pub(crate) mod stored;
pub mod strategies;

use std::io::Write;

#[doc(inline)]
pub use crate::__harness as harness;
/// What the macro [`harness!`](macro@harness) expands to needs it.
#[doc(hidden)]
pub use insta;

/// Says on stderr that a test, or a part of it, was skipped, and why. The harness keeps what `eprintln!` writes to
/// itself when a test passes; this it does not, so that nothing is skipped silently.
pub fn skipped(what: &str, why: &str) {
    // Where stderr is closed there is nobody to tell.
    drop(std::io::stderr().write_all(format!("SKIPPED {what}: {why}\n").as_bytes()));
}
