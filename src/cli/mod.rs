//! The program: arguments, then a model and prompts, then a run, then an exit code.
//!
//! Results go to stdout, everything else to stderr.

mod args;
mod certify;
mod commands;
mod compare;
mod inspect;
mod interrupt;
mod output;
mod replay;
mod report;
mod resolve;
mod searches;
mod stored;
mod values;

use clap::{CommandFactory, Parser};

use self::args::{Cli, Command};
use crate::report::terminal::plain;

/// Exit codes, a contract with scripts.
mod exit_code {
    /// Done, and every bound that was given held.
    pub(super) const DONE: u8 = 0;
    /// A bound did not hold, or a restoration failed.
    pub(super) const FAILED: u8 = 1;
    /// Usage, input or I/O.
    pub(super) const USAGE: u8 = 2;
    /// Nothing was checked.
    pub(super) const NOTHING: u8 = 3;
    /// Interrupted; what was finished is kept.
    pub(super) const INTERRUPTED: u8 = 130;
}

/// Runs the program on this process's arguments and gives its exit code.
pub fn run() -> u8 {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors, and go to stdout.
            let code = if error.use_stderr() { exit_code::USAGE } else { exit_code::DONE };
            drop(error.print());
            return code;
        }
    };
    let result = match cli.command {
        None => commands::ladder(&cli.ladder),
        Some(Command::Ladder(args)) => commands::ladder(&args),
        Some(Command::Probe(args)) => commands::probe(&args),
        Some(Command::Sweep(args)) => searches::sweep(&args),
        Some(Command::Bisect(args)) => searches::bisect(&args),
        Some(Command::Map(args)) => searches::map(&args),
        Some(Command::Campaign(args)) => searches::campaign(&args),
        Some(Command::Replay(args)) => replay::replay(&args),
        Some(Command::Compare(args)) => compare::compare(&args),
        Some(Command::Certify(args)) => certify::certify(&args),
        Some(Command::Relabel(args)) => stored::relabel(&args),
        Some(Command::Merge(args)) => stored::merge(&args),
        Some(Command::Inspect(args)) => inspect::inspect(&args),
        Some(Command::Verify(args)) => commands::verify(&args),
        Some(Command::Report(args)) => report::report(&args),
        Some(Command::Pull(args)) => commands::pull(&args),
        Some(Command::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "headroom", &mut script);
            output::stdout(&script).map(|()| exit_code::DONE)
        }
    };
    result.unwrap_or_else(|error| {
        if output::is_broken_pipe(&error) {
            // Whoever read the output has seen enough.
            return exit_code::DONE;
        }
        if interrupt::is_interrupted(&error) {
            output::message("interrupted");
            return exit_code::INTERRUPTED;
        }
        // One line, whatever the names and files hold that it is about.
        output::message(&plain(&format!("error: {}", with_causes(&error))));
        exit_code::USAGE
    })
}

/// What an error and its causes say. Some errors tell their cause themselves; it is not told again then.
fn with_causes(error: &anyhow::Error) -> String {
    error
        .chain()
        .map(ToString::to_string)
        .reduce(|said, cause| if said.ends_with(&cause) { said } else { format!("{said}: {cause}") })
        .unwrap_or_default()
}
