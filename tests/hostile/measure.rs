//! The program, run and measured with all its children.
//!
//! A process counts as its own peak what the one that started it held at that moment, and a test holds much. So this test
//! starts itself once more, and *that* small process starts the program and measures it.

use std::{
    env, fs,
    io::Read,
    os::unix::process::ExitStatusExt,
    process::{Command, ExitStatus, Stdio},
    thread,
};

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

#[derive(Serialize, Deserialize)]
pub(super) struct Run {
    pub(super) code: Option<i32>,
    pub(super) stderr: String,
    /// Processor time of the program and its children.
    pub(super) seconds: f64,
    /// Peak memory of whichever of them had most, in bytes.
    pub(super) memory: u64,
}

/// Names the file with the program's arguments, where the result is written, too.
const TASK: &str = "HEADROOM_HOSTILE_TASK";

/// Runs the program.
pub(super) fn run(args: &[String]) -> Run {
    let task = NamedTempFile::new().expect("a file");
    fs::write(task.path(), serde_json::to_vec(args).expect("JSON")).expect("written");
    let mut command = Command::new(env::current_exe().expect("this test"));
    command.args(["--exact", "--ignored", "measure::one"]).env(TASK, task.path());
    let output = command.output().expect("this test starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    serde_json::from_slice(&fs::read(task.path()).expect("a result")).expect("a result")
}

#[test]
#[ignore = "the small process of `run`"]
fn one() {
    let Some(task) = env::var_os(TASK) else { return };
    let args: Vec<String> = serde_json::from_slice(&fs::read(&task).expect("a task")).expect("arguments");
    fs::write(&task, serde_json::to_vec(&measured(&args)).expect("JSON")).expect("written");
}

#[expect(
    clippy::zombie_processes,
    reason = "it is waited for with what it took, which the standard library does not tell"
)]
/// Runs the program in an environment that the user's does not change.
fn measured(args: &[String]) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headroom"));
    command.args(args).env("RUST_BACKTRACE", "1").env("HEADROOM_CACHE", concat!(env!("CARGO_TARGET_TMPDIR"), "/cache"));
    command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", concat!(env!("CARGO_TARGET_TMPDIR"), "/no-hub"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // The program does not wait until the child that it killed at its end is gone. What is left of it comes to this process.
    #[cfg(target_os = "linux")]
    // SAFETY: the call takes a number and touches no memory.
    unsafe {
        libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1)
    };
    let mut child = command.spawn().expect("the program starts");
    let (mut stdout, mut stderr) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    // Nothing that it says there is kept, but it must not wait for a reader.
    let drain = thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
    let mut said = Vec::new();
    stderr.read_to_end(&mut said).expect("readable");
    drain.join().expect("no panic").expect("readable");

    let pid = child.id() as libc::pid_t;
    let (status, mut usage) = wait(pid).expect("the program ends");
    let mut took = seconds(usage.ru_utime) + seconds(usage.ru_stime);
    while let Some((_, child)) = wait(-1) {
        took += seconds(child.ru_utime) + seconds(child.ru_stime);
        usage.ru_maxrss = usage.ru_maxrss.max(child.ru_maxrss);
    }
    // Linux counts in kilobytes, macOS in bytes.
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    Run {
        code: ExitStatus::from_raw(status).code(),
        stderr: String::from_utf8(said).expect("the program writes UTF-8"),
        seconds: took,
        memory: usage.ru_maxrss as u64 * unit,
    }
}

fn seconds(time: libc::timeval) -> f64 {
    time.tv_sec as f64 + time.tv_usec as f64 / 1e6
}

/// Waits for a child, or for any by -1, and says what it took with all that it waited for. None where there is none.
fn wait(pid: libc::pid_t) -> Option<(i32, libc::rusage)> {
    let mut status = 0;
    // SAFETY: all zeros are an `rusage`.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both are valid to be written; the children are ours, and nobody else waits for them.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
    (waited > 0).then_some((status, usage))
}
