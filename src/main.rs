//! The program `headroom`: see `headroom --help`.

use std::process::ExitCode;

use lm_headroom::{child::Counted, cli};

/// It counts in children alone: what a stranger's files make them take.
#[global_allocator]
static ALLOCATOR: Counted = Counted;

fn main() -> ExitCode {
    ExitCode::from(cli::run())
}
