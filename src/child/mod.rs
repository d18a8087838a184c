//! A child process with limits: for what a stranger's files can make other people's parsers do, and for other programs.
//!
//! `Process` is the parent's side: it starts a program, sends it frames (`frame`) and receives frames, gives up where an
//! answer does not come in time, and says of a child that ended what ended it ([`ChildError`]). `serve` and `limits` are the
//! child's side, for a child that is a program of this library: processor time, memory, stack. [`Counted`] is the allocator
//! by which memory is counted, since systems do not all keep a limit on the address space.
//!
//! A child ends with its parent, however that ends: its standard input closes, and a thread of its own waits for that, while
//! another works. (`PR_SET_PDEATHSIG` of Linux follows the *thread* that started the child, which may end long before.)
//!
//! # In a program of your own
//!
//! A child is started from a [`Program`]: [`Program::this`] is the running one, and [`Program::at`] a path, for instance that
//! of an installed `headroom`. A program that starts itself must have
//! [`serve_if_asked`](crate::tokenizer::serve_if_asked) as the first thing in its `main`, and should have
//! [`Counted`] as its allocator; without it, memory is limited on Linux alone, through `RLIMIT_AS`.

pub(crate) mod frame;
mod limits;
mod memory;
mod process;
mod serve;

use std::{
    io,
    path::PathBuf,
    process::{self as system, Stdio},
    time::Duration,
};

pub(crate) use self::process::Process;
pub(crate) use self::{limits::allow, serve::serve};
pub use self::{limits::outlive_closed_pipes, memory::Counted};

/// Exit code of a child that took more memory than it may.
const OUT_OF_MEMORY: i32 = 86;
/// Exit code of a child that panicked: Rust's own.
const PANICKED: i32 = 101;

/// What ended a child, or made its parent end it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChildError {
    /// It did not start.
    #[error("the process for it does not start: {0}")]
    Start(String),
    /// Its stack overflowed.
    #[error("the stack overflowed")]
    Stack,
    /// It took more memory than it may.
    #[error("it took more than {} MiB of memory", .limit >> 20)]
    Memory {
        /// What it may take, in bytes.
        limit: usize,
    },
    /// It took more processor time than it may.
    #[error("it took more than {} s of processor time", .limit.as_secs())]
    Processor {
        /// What one request may take.
        limit: Duration,
    },
    /// No answer came.
    #[error("no answer came within {} s", .limit.as_secs())]
    Silent {
        /// How long it was waited for.
        limit: Duration,
    },
    /// It announced an answer that is longer than any may be.
    #[error("its answer has {len} bytes, more than the {limit} that it may have")]
    Long {
        /// Bytes announced.
        len: u64,
        /// Bytes allowed.
        limit: usize,
    },
    /// It panicked.
    #[error("it panicked: {0}")]
    Panicked(String),
    /// A signal ended it.
    #[error("signal {number} ended it{}", after(.said))]
    Signal {
        /// The signal's number.
        number: i32,
        /// The end of what it wrote to its standard error.
        said: String,
    },
    /// It ended by itself.
    #[error("it ended with exit code {code}{}", after(.said))]
    Exit {
        /// The exit code.
        code: i32,
        /// The end of what it wrote to its standard error.
        said: String,
    },
    /// What it sent is not what was agreed on.
    #[error("it does not keep to the protocol: {0}")]
    Protocol(String),
}

fn after(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

/// A program that can be its own child, or somebody else's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    path: PathBuf,
}

impl Program {
    /// The program that is running.
    ///
    /// # Errors
    /// Where the system does not say where it lies.
    pub fn this() -> io::Result<Self> {
        // On Linux this name leads to the running program even where its file was replaced or removed in the meantime.
        let running = PathBuf::from("/proc/self/exe");
        if cfg!(target_os = "linux") && running.exists() {
            return Ok(Self { path: running });
        }
        std::env::current_exe().map(Self::at)
    }

    /// The program at `path`.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// A command that starts it as the child that `service` names.
    pub(crate) fn command(&self, service: &str) -> system::Command {
        let mut command = system::Command::new(&self.path);
        command.arg(service).stdin(Stdio::piped());
        #[cfg(unix)]
        std::os::unix::process::CommandExt::arg0(&mut command, "headroom");
        command
    }
}
