//! The program: arguments, then a model and prompts, then a run, then an exit code.
//!
//! Results go to stdout, everything else to stderr.

mod args;
mod certificates;
mod certify;
mod commands;
mod compare;
mod inspect;
mod interrupt;
mod output;
mod prompts_file;
mod replay;
mod report;
mod resolve;
mod searches;
mod stored;
mod values;

use clap::{CommandFactory, Parser};

use self::args::{BoundArgs, Cli, Command, RunArgs};
use crate::{report::terminal::plain, tokenizer};

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
    /// Ended by Ctrl-C; what was finished is kept.
    pub(super) const INTERRUPTED: u8 = 130;
    /// Ended by SIGTERM; what was finished is kept.
    pub(super) const TERMINATED: u8 = 143;
}

/// Runs the program on this process's arguments and gives its exit code. Where the arguments say that this process is a child
/// that reads a tokenizer, it does that, and never returns.
pub fn run() -> u8 {
    tokenizer::serve_if_asked();
    interrupt::listen();
    let mut cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return ended(not_run(error), false),
    };
    if let Some(args) = calibrated(&mut cli) {
        return ended(commands::calibrate(args), false);
    }
    let gate = gate(&mut cli);
    if let Err(error) = cli.number_output() {
        return ended(Err(error), gate);
    }
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
    ended(result, gate)
}

/// What the parser of arguments says in place of a run: help and version, which are results, or what is wrong.
fn not_run(error: clap::Error) -> Result<u8, anyhow::Error> {
    if !error.use_stderr() {
        let (text, look) = (error.render(), output::look());
        return output::text(&if look.color { text.ansi().to_string() } else { text.to_string() })
            .map(|()| exit_code::DONE);
    }
    // It shows arguments as they are, which may hold names from elsewhere: it is asked again with what is seen of them.
    let seen = std::env::args_os().map(|arg| plain(&arg.to_string_lossy()));
    let text = Cli::try_parse_from(seen).err().unwrap_or(error).render();
    let color = output::look_on(&std::io::stderr()).color;
    output::usage(&if color { text.ansi().to_string() } else { text.to_string() }, color);
    Ok(exit_code::USAGE)
}

/// The exit code of what a command came to. `gate`: whether bounds had to hold.
fn ended(result: Result<u8, anyhow::Error>, gate: bool) -> u8 {
    result.unwrap_or_else(|error| {
        if output::is_broken_pipe(&error) {
            if gate {
                output::message(
                    "nobody reads stdout any more, so the run ends here: the bounds have not held, since not every trial \
                     was looked at",
                );
                return exit_code::FAILED;
            }
            // Whoever read the output has seen enough.
            output::message("nobody reads stdout any more, so this ends here");
            return exit_code::DONE;
        }
        if !interrupt::is_interrupted(&error) {
            output::message(&format!("error: {}", with_causes(&error)));
        }
        // A signal that goes to a whole job may end a child first, and is the reason then.
        if let Some(code) = interrupt::code() {
            output::message(interrupt::said(code));
            return code;
        }
        exit_code::USAGE
    })
}

/// The options of a run whose threshold alone is asked for.
fn calibrated(cli: &mut Cli) -> Option<&RunArgs> {
    if matches!(cli.command, Some(Command::Replay(_))) {
        return None;
    }
    let run = &*cli.run_args()?;
    run.threshold.calibrate_only.then_some(run)
}

/// Whether a command was given bounds that decide its exit code. Those of a bisection are what it looks for.
fn gate(cli: &mut Cli) -> bool {
    let bounds = match &cli.command {
        Some(Command::Bisect(_)) => return false,
        Some(Command::Relabel(args)) => &args.bounds,
        _ => match cli.run_args() {
            Some(run) => &run.bounds,
            None => return false,
        },
    };
    let BoundArgs { at_least, kl } = bounds;
    at_least.is_some() || kl.is_some()
}

/// What an error and its causes say. Some errors tell their cause themselves; it is not told again then.
fn with_causes(error: &anyhow::Error) -> String {
    error
        .chain()
        .map(ToString::to_string)
        .reduce(|said, cause| if said.ends_with(&cause) { said } else { format!("{said}: {cause}") })
        .unwrap_or_default()
}
