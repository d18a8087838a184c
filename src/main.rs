//! The program `headroom`: see `headroom --help`.

use std::process::ExitCode;

use lm_headroom::{child::Counted, cli, tokenizer};

/// It counts in children alone: what a stranger's files make them take.
#[global_allocator]
static ALLOCATOR: Counted = Counted;

fn main() -> ExitCode {
    tokenizer::serve_if_asked();
    ExitCode::from(cli::run())
}
