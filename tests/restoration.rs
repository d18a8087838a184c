//! Law 2: whatever ends an edit, the head is what it was, to the bit, and the checkpoint's files never change. That
//! guards restore however they are left is a property of `tests/laws.rs`; here are heads of many chunks, files, and
//! processes that die.
//!
//! A process cannot watch itself being killed, so for that this program starts itself again: the test
//! [`child`] does nothing unless [`FOLDER`] names a checkpoint, and is otherwise the process that dies with an
//! edit applied.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    time::{Duration, SystemTime},
};

use blake3::Hash;
use lm_headroom::{
    checkpoint::{Checkpoint, Quantized},
    edit::Edit,
    head::{Head, HeadError, Restoration},
    quant::{FloatType, MatrixBuf, MatrixRef},
    team::Team,
    testing::{
        fixture::Fixture,
        heads::{Plain, affine},
    },
};
use tempfile::TempDir;

/// BLAKE3 over weight, scales and biases, computed here.
fn digest_of(matrix: &MatrixRef<'_>) -> Hash {
    blake3::hash(&matrix.parts().map(|(_, part)| *part).collect::<Vec<_>>().concat())
}

/// The digest of `matrix` after `edit`, worked out on paper.
fn digest_after(matrix: &MatrixRef<'_>, edit: &Edit) -> Hash {
    let mut plain = Plain::of(matrix);
    plain.apply(edit);
    digest_of(&plain.matrix().view())
}

fn edit(text: &str) -> Edit {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn private(head: &Quantized, threads: usize) -> Head {
    Head::private(head, Arc::new(Team::new(threads))).expect("a private copy")
}

#[test]
fn an_edit_that_does_not_fit_is_refused_before_a_byte_is_written() {
    let stored = MatrixBuf::random(affine(3, 32, 4, 32, FloatType::F16), 1).quantized();
    let mut head = private(&stored, 1);
    // The first changes fit.
    let refused = head.apply(&edit("shift:1+set:word[0,0]=0x0+flip:weight[3,0].0"));
    assert!(matches!(refused, Err(HeadError::Edit(_))));
    drop(refused);
    assert_eq!(digest_of(&head.view()), digest_of(&stored.view()));
}

#[test]
fn a_shift_of_many_chunks_by_many_threads_is_whole_and_taken_back_whole() {
    // 301 rows of 1,024 bytes: four chunks of work and a part of one.
    let layout = affine(301, 2048, 4, 64, FloatType::Bf16);
    let stored = MatrixBuf::random(layout, 5).quantized();
    let clean = digest_of(&stored.view());
    for threads in [1, 2, 7] {
        let mut head = private(&stored, threads);
        for text in
            ["shift:1000001", "shift:-1+flip:weight[300,2047].3+shift:4294967297", "random:rate=1e-3,seed=3+shift:16"]
        {
            let expected = digest_after(&stored.view(), &edit(text));
            assert_ne!(expected, clean);
            let mut applied = head.apply(&edit(text)).expect("it fits");
            assert_eq!(applied.digest(), expected, "{text} by {threads} threads");
            let restored = applied.restore().expect("it was restored");
            assert_eq!(restored, Restoration { before: clean, after: clean }, "{text} by {threads} threads");
        }
    }
}

// Heads that lie in files.

/// What identifies files that nobody wrote to: contents and time of modification, by name.
type Files = BTreeMap<PathBuf, (Hash, SystemTime)>;

fn files_in(folder: &Path) -> Files {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries
        .map(|path| {
            let modified = fs::metadata(&path).and_then(|metadata| metadata.modified()).expect("a time");
            let hash = blake3::hash(&fs::read(&path).expect("a file"));
            (path, (hash, modified))
        })
        .collect()
}

/// Writes `fixture` into a folder. The files may not be written any more, and look an hour old, so that any
/// write moves their time.
fn on_disk(fixture: &Fixture) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, bytes) in fixture.files() {
        let path = folder.path().join(name);
        fs::write(&path, &*bytes).expect("written");
        let hour_ago = SystemTime::now() - Duration::from_secs(3600);
        fs::File::options().write(true).open(&path).expect("a file").set_modified(hour_ago).expect("a time");
        #[cfg(unix)]
        {
            let read_only = std::os::unix::fs::PermissionsExt::from_mode(0o444);
            fs::set_permissions(&path, read_only).expect("permissions");
        }
    }
    folder
}

/// Checkpoints whose heads lie differently: of their own or tied, in one file or several, whose parts start at
/// any offset of a page.
fn fixtures() -> Vec<Fixture> {
    let base = Fixture { num_hidden_layers: 1, ..Fixture::default() };
    vec![
        base.clone(),
        Fixture { tie_word_embeddings: Some(true), shards: 3, ..base.clone() },
        Fixture { bits: 8, scale_type: FloatType::F32, vocab_size: 1009, shards: 2, ..base.clone() },
        Fixture { hidden_size: 256, group_size: 128, scale_type: FloatType::Bf16, vocab_size: 1100, ..base },
    ]
}

const EDITS: [&str; 4] = [
    "shift:1000001",
    "flip:weight[34,7].3+shift:-5+set:word[95,0]=0x0",
    "flip:scales[0,0].14+flip:biases[95,1].15",
    "random:flips=100,seed=3+shift:9223372036854775807",
];

#[test]
fn the_files_of_a_head_do_not_change_while_it_is_edited_nor_does_anybody_elses_view() {
    let mut pages = 0;
    for fixture in fixtures() {
        let folder = on_disk(&fixture);
        let files = files_in(folder.path());
        let checkpoint = Checkpoint::open(folder.path()).expect("a checkpoint");
        let stored = checkpoint.head();
        assert!(stored.parts().all(|(_, part)| part.origin().is_some()), "it lies in a file");
        let clean = digest_of(&stored.view());
        let mut head = private(stored, 2);
        assert_eq!(digest_of(&head.view()), clean);
        for text in EDITS {
            let expected = digest_after(&stored.view(), &edit(text));
            let mut applied = head.apply(&edit(text)).expect("it fits");
            assert_eq!(applied.digest(), expected, "{text}");
            assert_ne!(expected, clean, "{text}");

            assert_eq!(files_in(folder.path()), files, "{text}");
            assert_eq!(digest_of(&stored.view()), clean, "the checkpoint's mapping, {text}");
            assert_eq!(digest_of(&private(stored, 1).view()), clean, "another private head, {text}");
            let again = Checkpoint::open(folder.path()).expect("a checkpoint");
            assert_eq!(digest_of(&again.head().view()), clean, "opened again, {text}");

            let restored = applied.restore().expect("it was restored");
            assert_eq!(restored, Restoration { before: clean, after: clean }, "{text}");
            assert_eq!(files_in(folder.path()), files, "{text}");
        }
        pages += usize::from(stored.view().weight().len() > 4096);
    }
    assert!(pages > 0, "some head is larger than a page");
}

// Processes that die with an edit applied.

/// Names the checkpoint of a child.
const FOLDER: &str = "HEADROOM_TEST_RESTORATION_FOLDER";
/// What the child does once its edit is applied.
const END: &str = "HEADROOM_TEST_RESTORATION_END";
const CHILD_EDIT: &str = "shift:1000001+flip:scales[3,1].14";

/// The other side of the tests below; alone it does nothing.
#[test]
fn child() {
    let Some(folder) = env::var_os(FOLDER) else { return };
    let end = env::var(END).expect("how it ends");
    let checkpoint = Checkpoint::open(Path::new(&folder)).expect("a checkpoint");
    let mut head = private(checkpoint.head(), 2);
    let mut outer = head.apply(&edit(CHILD_EDIT)).expect("it fits");
    let mut applied = outer.apply(&edit("set:word[0,0]=0x0")).expect("it fits");
    // Not `println`, which the test harness may hold back.
    let mut stdout = std::io::stdout();
    writeln!(stdout, "\napplied {}", applied.digest()).expect("told");
    stdout.flush().expect("told");
    match end.as_str() {
        // The pipe closes only when the parent has gone without killing this process.
        "wait" => drop(std::io::stdin().read_to_end(&mut Vec::new())),
        "work" => {
            for shift in 1_i64.. {
                applied.apply(&Edit::shift(shift)).expect("it fits").restore().expect("it was restored");
                if shift % 64 == 0 {
                    writeln!(stdout, "shifted {shift}").expect("told");
                }
            }
        }
        "panic" => panic!("half-way"),
        "abort" => std::process::abort(),
        other => unreachable!("{other}"),
    }
}

/// A process that is killed at the latest when its parent has no more use for it.
struct Edited(Child, BufReader<std::process::ChildStdout>);

impl Drop for Edited {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Edited {
    /// Starts [`child`] on `folder` and returns once its edit is applied, with its digest.
    fn start(folder: &Path, end: &str) -> (Self, String) {
        let mut process = Command::new(env::current_exe().expect("this program"))
            .args(["--exact", "child", "--nocapture"])
            .env(FOLDER, folder)
            .env(END, end)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a process");
        let stdout = BufReader::new(process.stdout.take().expect("its output"));
        let mut edited = Self(process, stdout);
        let digest = edited.told("applied ");
        (edited, digest)
    }

    /// The rest of the next line that starts with `what`.
    fn told(&mut self, what: &str) -> String {
        let mut lines = self.1.by_ref().lines().map(|line| line.expect("a line"));
        lines.find_map(|line| line.strip_prefix(what).map(str::to_owned)).expect("the child told so before it ended")
    }

    fn wait(mut self) -> ExitStatus {
        self.0.wait().expect("it ended")
    }

    fn kill(mut self) -> ExitStatus {
        assert_eq!(self.0.try_wait().expect("a status"), None, "it is alive, with its edit applied");
        self.0.kill().expect("killed");
        self.wait()
    }
}

/// Lets `end` end a child that has an edit applied to a checkpoint, and checks that nothing is left of it.
fn nothing_is_left_after(end: &str, finish: impl Fn(Edited) -> ExitStatus) {
    let fixtures = fixtures();
    for fixture in &fixtures[..2] {
        let folder = on_disk(fixture);
        let files = files_in(folder.path());
        let (clean, expected) = {
            let checkpoint = Checkpoint::open(folder.path()).expect("a checkpoint");
            let head = checkpoint.head().view();
            (digest_of(&head), digest_after(&head, &edit(CHILD_EDIT).then(&edit("set:word[0,0]=0x0"))))
        };
        let (child, digest) = Edited::start(folder.path(), end);
        assert_eq!(digest, expected.to_string(), "the edit was applied");
        assert_ne!(expected, clean);
        assert_eq!(files_in(folder.path()), files, "while it is applied");

        let status = finish(child);
        assert!(!status.success(), "{status}");
        assert_eq!(files_in(folder.path()), files, "after {status}");
        let again = Checkpoint::open(folder.path()).expect("the checkpoint still opens");
        assert_eq!(digest_of(&again.head().view()), clean, "after {status}");
        assert_eq!(private(again.head(), 1).digest(), clean, "after {status}");
    }
}

#[test]
fn a_process_killed_with_an_edit_applied_leaves_nothing_behind() {
    nothing_is_left_after("wait", |child| {
        let status = child.kill();
        #[cfg(unix)]
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{status}");
        status
    });
}

#[test]
fn a_process_killed_while_it_writes_and_restores_leaves_nothing_behind() {
    nothing_is_left_after("work", |mut child| {
        child.told("shifted ");
        child.kill()
    });
}

#[test]
fn a_process_that_panics_with_an_edit_applied_leaves_nothing_behind() {
    nothing_is_left_after("panic", |child| {
        let status = child.wait();
        assert_eq!(status.code(), Some(101), "the harness reports a failed test");
        status
    });
}

#[test]
fn a_process_that_aborts_with_an_edit_applied_leaves_nothing_behind() {
    nothing_is_left_after("abort", |child| {
        let status = child.wait();
        #[cfg(unix)]
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(6), "{status}");
        status
    });
}
