//! Edits are made in memory only: whatever ends the program, the model's files are what they were.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{ExitStatus, Stdio},
    thread::sleep,
    time::{Duration, SystemTime},
};

use lm_headroom::{checkpoint::demo, testing::fixture::Fixture};
use tempfile::TempDir;

use super::{folder, path, program, run};

/// Digest and time of every file.
type State = BTreeMap<String, (blake3::Hash, SystemTime)>;

fn state(folder: &Path) -> State {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries
        .map(|path| {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            let modified = fs::metadata(&path).and_then(|metadata| metadata.modified()).expect("a time");
            (name, (blake3::hash(&fs::read(&path).expect("a file")), modified))
        })
        .collect()
}

/// Whether the process was still running when it was killed.
fn was_running(status: ExitStatus) -> bool {
    status.code().is_none()
}

/// A checkpoint whose head takes a while to write, and which never ends an answer.
fn slow() -> TempDir {
    let fixture = Fixture {
        vocab_size: 6000,
        hidden_size: 128,
        eos_token_ids: vec![],
        num_hidden_layers: 1,
        ..Fixture::default()
    };
    folder(&fixture.files())
}

#[test]
#[expect(clippy::print_stderr, reason = "the number of kills that hit is a result")]
fn a_kill_at_any_moment_leaves_the_files_untouched() {
    let fixture = slow();
    let demo = folder(&demo::files());
    let ids = "5,9,3";
    let commands = [
        (&demo, &["verify", "--max-tokens", "100"][..]),
        (&demo, &["ladder", "--max-tokens", "200"]),
        (&demo, &["probe", "shift:1000001", "random:rate=1e-3,seed=1", "--max-tokens", "200"]),
        (&fixture, &["verify", "--max-tokens", "500", "--prompt-ids", ids]),
        (&fixture, &["ladder", "--max-tokens", "500", "--prompt-ids", ids]),
        (&fixture, &["probe", "shift:1000001", "flip:weight[0,0].3", "--max-tokens", "500", "--prompt-ids", ids]),
    ];
    let before = [&demo, &fixture].map(|folder| state(folder.path()));
    let (mut kills, mut running) = (0, 0);
    for (round, millis) in [0, 4, 9, 17, 30, 60].into_iter().enumerate() {
        for (i, (folder, args)) in commands.iter().enumerate() {
            let args = [args, &["--model", path(folder)][..]].concat();
            let mut child = program(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
            // No two moments are the same.
            sleep(Duration::from_micros(1000 * millis + 150 * i as u64 + 37 * round as u64));
            drop(child.kill());
            let status = child.wait().expect("it ends");
            kills += 1;
            running += usize::from(was_running(status));
        }
        assert_eq!([&demo, &fixture].map(|folder| state(folder.path())), before, "after {millis} ms");
    }
    eprintln!("{running} of {kills} kills hit a running process");
    assert!(running >= 20, "only {running} of {kills} kills hit a running process");
}

#[test]
#[expect(clippy::print_stderr, reason = "the number of kills that hit is a result")]
fn a_kill_while_edits_are_written_leaves_the_files_untouched() {
    let folder = slow();
    let before = state(folder.path());
    let (mut kills, mut between) = (0, 0);
    for micros in (0..12).map(|i| 900 * i) {
        let args =
            ["verify", "--format", "jsonl", "--max-tokens", "500", "--prompt-ids", "1", "--model", path(&folder)];
        let mut child = program(&args).stdout(Stdio::piped()).spawn().expect("it starts");
        // Its first line says that the private copy is there; what follows writes into it.
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut first = String::new();
        stdout.read_line(&mut first).expect("a line");
        assert!(first.contains("private copy"), "{first}");
        sleep(Duration::from_micros(micros));
        drop(child.kill());
        let status = child.wait().expect("it ends");
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).expect("text");
        kills += 1;
        // The sixth line ends the checks that write into the head only.
        between += usize::from(was_running(status) && rest.lines().count() < 6);
        assert_eq!(state(folder.path()), before, "after {micros} us");
    }
    eprintln!("{between} of {kills} kills hit while edits were written");
    assert!(between >= 4, "only {between} of {kills} kills hit while edits were written");
}

#[test]
fn a_run_to_its_end_a_failed_bound_and_a_panic_under_an_edit_leave_the_files_untouched() {
    let folder = slow();
    let before = state(folder.path());
    let model = ["--model", path(&folder), "--prompt-ids", "1,2"];
    // One of its checks panics under an edit.
    run(&[&["verify"], &model[..]].concat()).exits(0);
    run(&[&["ladder"], &model[..]].concat()).exits(0);
    run(&[&["probe", "shift:1000003", "--kl", "0"], &model[..]].concat()).exits(1);
    run(&[&["inspect", "--digests"], &model[..2]].concat()).exits(0);
    assert_eq!(state(folder.path()), before);
}

/// Ctrl-C ends a run at its next token with exit code 130, one line on stderr and no half-written record.
#[cfg(unix)]
#[test]
fn ctrl_c_ends_a_run_cleanly_with_130() {
    let fixture = slow();
    // Far longer than the test waits.
    let endless = ["--max-tokens", "100000", "--threshold", "9"];
    let args =
        [&["ladder", "--model", path(&fixture), "--prompt-ids", "5,9,3", "--format", "jsonl"], &endless[..]].concat();
    let mut child = program(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program");
    sleep(Duration::from_millis(300));
    let sent = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill");
    assert!(sent.success(), "it was still running");
    let status = child.wait().expect("an end");
    let (mut out, mut err) = (String::new(), String::new());
    child.stdout.take().expect("stdout").read_to_string(&mut out).expect("text");
    child.stderr.take().expect("stderr").read_to_string(&mut err).expect("text");
    assert_eq!(status.code(), Some(130), "{err}");
    assert_eq!(err.trim(), "headroom: interrupted");
    assert!(out.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{out}");
}

/// What is finished is handed over at least once a second, however many trials there are.
#[test]
fn a_run_that_is_killed_after_two_seconds_has_kept_what_was_finished() {
    let fixture = slow();
    let place = TempDir::new().expect("a folder");
    let journal = place.path().join("run.jsonl");
    let out = journal.to_str().expect("Unicode");
    // Each trial takes some tens of milliseconds, all of them together minutes.
    let endless = ["campaign", "--flips", "100", "--trials", "100000", "--max-tokens", "100", "--threshold", "9"];
    let args = [&endless[..], &["--model", path(&fixture), "--prompt-ids", "5,9,3", "--out", out]].concat();
    let mut child = program(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    let lines = || fs::read(&journal).map_or(0, |bytes| bytes.iter().filter(|&&byte| byte == b'\n').count());
    let mut seen = Vec::new();
    for _ in 0..4 {
        sleep(Duration::from_secs(2));
        seen.push(lines());
    }
    drop(child.kill());
    assert!(was_running(child.wait().expect("it ends")), "it takes longer than it was given");
    assert!(seen[1] > 0, "records after so many times two seconds: {seen:?}");
    assert!(seen.windows(2).skip(1).all(|pair| pair[0] < pair[1]), "{seen:?}");
}
