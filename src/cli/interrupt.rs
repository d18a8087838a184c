//! Ctrl-C and SIGTERM end a run at its next step, with what is finished kept.
//!
//! A scheduler that takes a machine back sends SIGTERM and, after some seconds of grace, SIGKILL. So both signals end the
//! program within two seconds, whatever it is doing: at its next step where it comes to one in time, and else by a thread
//! that waits for it no longer. Nothing that is finished is lost then either: a record is in its journal as soon as its
//! trial is finished. A second signal ends the program at once. The exit code is 128 and the signal's number, as a shell
//! says it of a program that a signal has ended, so that a scheduler can tell "run it again" from "the input is wrong".

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use super::{exit_code, output};
use crate::search::RunError;

/// The exit code that the first signal asks for; 0 before there was one.
static ASKED: AtomicU8 = AtomicU8::new(0);
/// Whether the command comes to steps, so that it ends by itself.
static STEPS: AtomicBool = AtomicBool::new(false);

/// Listens for the signals from now on. Until [`catch`] is called the first one ends the program at once.
pub(super) fn listen() {
    // Where there is no thread to be had or no handler, a signal does what it does to every program.
    drop(signals::listen());
}

/// Has the first signal end the command at its next step.
pub(super) fn catch() {
    STEPS.store(true, Ordering::Relaxed);
}

/// An error once a signal has asked for the end.
pub(super) fn check() -> Result<(), RunError> {
    if code().is_some() { Err(RunError::Interrupted) } else { Ok(()) }
}

/// The exit code that a signal has asked for.
pub(super) fn code() -> Option<u8> {
    Some(ASKED.load(Ordering::Relaxed)).filter(|&code| code != 0)
}

/// Whether an error only says that a run was interrupted.
pub(super) fn is_interrupted(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| matches!(cause.downcast_ref(), Some(RunError::Interrupted)))
}

/// What is said of a command that a signal has ended.
pub(super) fn said(code: u8) -> &'static str {
    if code == exit_code::TERMINATED { "ended by SIGTERM" } else { "interrupted" }
}

/// Remembers that a signal asks for the end with this exit code; whether the command is to end by itself.
fn ask(code: u8) -> bool {
    ASKED.store(code, Ordering::Relaxed);
    STEPS.load(Ordering::Relaxed)
}

#[cfg(unix)]
mod signals {
    use std::{
        io,
        sync::{Arc, atomic::AtomicBool, mpsc},
        thread,
        time::Duration,
    };

    use signal_hook::{
        consts::{SIGINT, SIGTERM, SIGXFSZ},
        flag,
        iterator::Signals,
        low_level,
    };

    use super::{ask, exit_code, output, said};

    /// What a command has to come to its next step and to show what it has found. With [`PATIENCE`] it is less than two
    /// seconds, and Kubernetes, Slurm and their like give thirty.
    const GRACE: Duration = Duration::from_millis(1500);
    /// What a message may take that nobody may be there to read.
    const PATIENCE: Duration = Duration::from_millis(200);

    pub(super) fn listen() -> io::Result<()> {
        // A file that a limit keeps from growing is an error of its write, and not the end of the program.
        flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        thread::Builder::new().name("headroom-signals".to_owned()).spawn(move || {
            if let Some(signal) = signals.forever().next() {
                first(signal);
            }
        })?;
        // The second one, while the thread waits for the end. In this order, so that the first one finds the flag unset.
        let one_came = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            flag::register_conditional_shutdown(signal, code(signal).into(), Arc::clone(&one_came))?;
            flag::register(signal, Arc::clone(&one_came))?;
        }
        Ok(())
    }

    const fn code(signal: i32) -> u8 {
        if signal == SIGTERM { exit_code::TERMINATED } else { exit_code::INTERRUPTED }
    }

    /// Ends the program, unless it ends in time.
    fn first(signal: i32) {
        let code = code(signal);
        let end = |text: String| {
            // Whoever holds stderr may be waiting for a reader that is gone.
            let (told, tells) = mpsc::channel();
            drop(thread::Builder::new().spawn(move || {
                output::message(&text);
                told.send(())
            }));
            _ = tells.recv_timeout(PATIENCE);
            low_level::exit(code.into());
        };
        if ask(code) {
            thread::sleep(GRACE);
            end(format!("{}; what was under way is given up", said(code)));
        } else {
            end(said(code).to_owned());
        }
    }
}

#[cfg(not(unix))]
mod signals {
    use super::{ask, exit_code};

    #[expect(clippy::exit, reason = "there is nobody to return to: the command does not come to its next step")]
    pub(super) fn listen() -> Result<(), ctrlc::Error> {
        ctrlc::set_handler(|| {
            let again = super::code().is_some();
            if !ask(exit_code::INTERRUPTED) || again {
                std::process::exit(i32::from(exit_code::INTERRUPTED));
            }
        })
    }
}
