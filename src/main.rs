//! The program `headroom`: see `headroom --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(lm_headroom::cli::run())
}
