//! Law 2: whatever ends an edit, the head is what it was, to the bit, and the checkpoint's files never change.
//!
//! A process cannot watch itself being killed, so for that this program starts itself again: the test
//! [`child`] does nothing unless [`FOLDER`] names a checkpoint, and is otherwise the process that dies with an
//! edit applied.

use std::{
    cell::Cell,
    collections::BTreeMap,
    env, fs,
    io::{BufRead, BufReader, Read, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    time::{Duration, SystemTime},
};

use blake3::Hash;
use lm_headroom::{
    checkpoint::{Checkpoint, Part, Quantized, bytes::Bytes},
    edit::{Change, Edit, Tensor},
    head::{Applied, Head, HeadError, Restoration},
    quant::{Bits, FloatType, Layout, MatrixRef},
    team::Team,
    testing::fixture::Fixture,
};
use proptest::{prelude::*, sample::select};
use tempfile::TempDir;

/// BLAKE3 over weight, scales and biases, computed here.
fn digest_of(matrix: &MatrixRef<'_>) -> Hash {
    blake3::hash(&[matrix.weight(), matrix.scales(), matrix.biases()].concat())
}

/// The digest of `matrix` after `edit`, from the plan, which `tests/edits.rs` holds against the contract.
fn digest_after(matrix: &MatrixRef<'_>, edit: &Edit) -> Hash {
    let layout = matrix.layout();
    let plan = edit.plan(matrix).expect("it fits");
    let (mut weight, mut scales, mut biases) = (Vec::new(), Vec::new(), Vec::new());
    for row in 0..layout.rows() {
        let (of_row, shift) = match plan.rows.get(&row) {
            Some(patch) => (patch.view(layout), 0),
            None => (matrix.row(row), plan.shift),
        };
        weight.extend(
            (0..layout.words_per_row()).flat_map(|word| of_row.word(0, word).wrapping_sub(shift).to_le_bytes()),
        );
        scales.extend(of_row.scales());
        biases.extend(of_row.biases());
    }
    blake3::hash(&[weight, scales, biases].concat())
}

fn edit(text: &str) -> Edit {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Counts the cases that reached an assertion: a property that reaches none shows nothing.
#[derive(Default)]
struct Reached(Cell<usize>);

impl Reached {
    fn one(&self) {
        self.0.set(self.0.get() + 1);
    }
    #[track_caller]
    fn at_least(&self, count: usize) {
        assert!(self.0.get() >= count, "only {} cases got there", self.0.get());
    }
}

/// A head in memory, of bytes drawn from `seed`.
fn quantized(layout: Layout, seed: u64) -> Quantized {
    let mut stream = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
    let mut part = |row_bytes: usize| {
        let mut bytes = vec![0; layout.rows() * row_bytes];
        stream.fill(&mut bytes);
        Part { bytes: Bytes::new(bytes), origin: None }
    };
    let (weight, scales) = (part(layout.weight_row_bytes()), part(layout.scale_row_bytes()));
    Quantized::new(layout, weight, scales, part(layout.scale_row_bytes())).expect("a head")
}

fn private(head: &Quantized, threads: usize) -> Head {
    Head::private(head, Arc::new(Team::new(threads))).expect("a private copy")
}

fn layouts() -> impl Strategy<Value = Layout> {
    (
        prop_oneof![Just(1), 2..24_usize],
        prop_oneof![Just(1), 2..4_usize],
        select([Bits::Four, Bits::Eight].as_slice()),
        select([32, 64, 128_usize].as_slice()),
        select([FloatType::F16, FloatType::Bf16, FloatType::F32].as_slice()),
    )
        .prop_map(|(rows, groups, bits, group_size, scale_type)| {
            Layout::new(rows, groups * group_size, bits, group_size, scale_type).expect("a layout")
        })
}

fn shifts() -> impl Strategy<Value = i64> {
    const EDGES: [i64; 9] = [0, 1, -1, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 32) + 1, i64::MIN, i64::MAX];
    prop_oneof![2 => select(EDGES.as_slice()), 1 => any::<i64>()]
}

/// Edits of any kinds that fit `layout`, most of them within the first row, so that changes meet.
fn edits(layout: Layout) -> impl Strategy<Value = Edit> {
    let rows = move || prop_oneof![2 => Just(0), 1 => 0..layout.rows()];
    let (columns, words, groups) = (0..layout.cols(), 0..layout.words_per_row(), 0..layout.groups_per_row());
    let (bits, scale_bits) = (layout.bits().get() as u32, 8 * layout.scale_type().size() as u32);
    let scale_or_bias = select([Tensor::Scales, Tensor::Biases].as_slice());
    let random = (select(["weight", "scales", "biases"].as_slice()), 0..=16_u64, any::<u64>());
    let change = prop_oneof![
        3 => shifts().prop_map(Change::Shift),
        1 => (rows(), columns.clone(), 0..bits)
            .prop_map(|(row, column, bit)| Change::Flip { tensor: Tensor::Weight, row, column, bit }),
        1 => (scale_or_bias, rows(), groups, 0..scale_bits)
            .prop_map(|(tensor, row, column, bit)| Change::Flip { tensor, row, column, bit }),
        1 => (rows(), columns.clone(), 0..=layout.bits().mask())
            .prop_map(|(row, column, value)| Change::SetCode { row, column, value }),
        1 => (rows(), columns, any::<i64>()).prop_map(|(row, column, amount)| Change::AddCode { row, column, amount }),
        1 => (rows(), words.clone(), any::<u32>()).prop_map(|(row, word, mask)| Change::XorWord { row, word, mask }),
        1 => (rows(), words, any::<u32>()).prop_map(|(row, word, value)| Change::SetWord { row, word, value }),
        1 => random.prop_map(|(tensor, flips, seed)| {
            edit(&format!("random:flips={flips},seed={seed},tensor={tensor}")).changes()[0].clone()
        }),
    ];
    prop::collection::vec(change, 0..7).prop_map(Edit::new)
}

/// A head and `count` edits that fit it.
fn heads_and_edits(count: impl Into<prop::collection::SizeRange>) -> impl Strategy<Value = (Quantized, Vec<Edit>)> {
    let count = count.into();
    (layouts(), any::<u64>()).prop_flat_map(move |(layout, seed)| {
        (Just(quantized(layout, seed)), prop::collection::vec(edits(layout), count.clone()))
    })
}

#[test]
fn an_edit_is_there_while_it_is_applied_and_gone_to_the_bit_when_its_guard_is_dropped() {
    let (changed, unchanged) = (Reached::default(), Reached::default());
    proptest!(|((stored, edits) in heads_and_edits(1..4), threads in 1..3_usize)| {
        let clean = digest_of(&stored.view());
        let mut head = private(&stored, threads);
        for edit in &edits {
            let expected = digest_after(&stored.view(), edit);
            {
                let mut applied = head.apply(edit).unwrap();
                prop_assert_eq!(digest_of(&applied.view()), expected, "{}", edit);
                prop_assert_eq!(applied.digest(), expected, "{}", edit);
            }
            prop_assert_eq!(digest_of(&head.view()), clean, "{}", edit);
            prop_assert_eq!(head.digest(), clean, "{}", edit);
            if expected == clean { unchanged.one() } else { changed.one() }
        }
        prop_assert_eq!(digest_of(&stored.view()), clean, "the head that it was copied from");
    });
    changed.at_least(1);
    unchanged.at_least(1);
}

#[test]
fn restoring_proves_that_the_head_is_the_checkpoints_own() {
    let reached = Reached::default();
    proptest!(|((stored, edits) in heads_and_edits(1..4))| {
        let clean = digest_of(&stored.view());
        let mut head = private(&stored, 1);
        for edit in &edits {
            let applied = head.apply(edit).unwrap();
            prop_assert_eq!(applied.restore().unwrap(), Restoration { before: clean, after: clean }, "{}", edit);
            prop_assert_eq!(digest_of(&head.view()), clean, "{}", edit);
            reached.one();
        }
    });
    reached.at_least(1);
}

/// Applies `edits` one upon the other, calls `innermost` on top of all, and checks on the way back that each
/// guard leaves what it found.
fn nest(
    applied: &mut Applied<'_>,
    edits: &[Edit],
    innermost: &dyn Fn(&mut Applied<'_>),
    levels: &Reached,
) -> Result<(), TestCaseError> {
    let found = digest_of(&applied.view());
    prop_assert_eq!(applied.digest(), found);
    let [edit, rest @ ..] = edits else {
        innermost(applied);
        return Ok(());
    };
    let expected = digest_after(&applied.view(), edit);
    {
        let mut inner = applied.apply(edit).unwrap();
        prop_assert_eq!(digest_of(&inner.view()), expected, "{}", edit);
        nest(&mut inner, rest, innermost, levels)?;
        // Every other one by `restore`, which says what it found.
        if rest.len() % 2 == 1 {
            prop_assert_eq!(inner.restore().unwrap(), Restoration { before: found, after: found }, "{}", edit);
        }
    }
    prop_assert_eq!(digest_of(&applied.view()), found, "{}", edit);
    prop_assert_eq!(applied.digest(), found, "{}", edit);
    levels.one();
    Ok(())
}

#[test]
fn nested_edits_are_taken_back_the_last_first_each_to_what_it_found() {
    let levels = Reached::default();
    proptest!(|((stored, edits) in heads_and_edits(1..6))| {
        let clean = digest_of(&stored.view());
        let mut head = private(&stored, 1);
        let mut outermost = head.apply(&edits[0]).unwrap();
        nest(&mut outermost, &edits[1..], &|_| (), &levels)?;
        prop_assert_eq!(outermost.restore().unwrap(), Restoration { before: clean, after: clean });
        prop_assert_eq!(digest_of(&head.view()), clean);
    });
    levels.at_least(1);
}

#[test]
fn a_panic_at_any_depth_leaves_the_head_as_it_was_and_fit_for_the_next_edit() {
    let (levels, panicked, edited) = (Reached::default(), Reached::default(), Reached::default());
    proptest!(|((stored, edits) in heads_and_edits(1..5))| {
        let clean = digest_of(&stored.view());
        let mut head = private(&stored, 1);
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            let mut outermost = head.apply(&edits[0]).unwrap();
            nest(&mut outermost, &edits[1..], &|innermost| {
                if innermost.digest() != clean {
                    edited.one();
                }
                // Unlike `panic!`, it does not call the hook, which would print a message for each case.
                std::panic::resume_unwind(Box::new("half-way"));
            }, &levels)
        }));
        let payload = unwound.expect_err("it panicked");
        prop_assert_eq!(payload.downcast_ref::<&str>(), Some(&"half-way"));
        panicked.one();
        prop_assert_eq!(digest_of(&head.view()), clean);
        prop_assert_eq!(head.digest(), clean);
        let restored = head.apply(&edits[0]).unwrap().restore();
        prop_assert_eq!(restored.unwrap(), Restoration { before: clean, after: clean });
    });
    panicked.at_least(1);
    edited.at_least(1);
}

#[test]
fn an_early_return_leaves_the_head_as_it_was() {
    fn measure(head: &mut Head, edits: &[Edit], seen: &mut Vec<Hash>) -> Result<(), HeadError> {
        let mut outer = head.apply(&edits[0])?;
        seen.push(outer.digest());
        let mut inner = outer.apply(&edits[1])?;
        seen.push(inner.digest());
        // A place that no head has, so that this returns.
        inner.apply(&edit("flip:weight[18446744073709551615,0].0"))?;
        unreachable!("it does not fit");
    }
    let (reached, changed) = (Reached::default(), Reached::default());
    proptest!(|((stored, edits) in heads_and_edits(2))| {
        let clean = digest_of(&stored.view());
        let mut head = private(&stored, 1);
        let mut seen = Vec::new();
        let refused = measure(&mut head, &edits, &mut seen);
        prop_assert!(matches!(refused, Err(HeadError::Edit(_))));
        let both = edits[0].clone().then(&edits[1]);
        prop_assert_eq!(&seen, &[digest_after(&stored.view(), &edits[0]), digest_after(&stored.view(), &both)]);
        prop_assert_eq!(digest_of(&head.view()), clean);
        reached.one();
        if seen.iter().all(|&digest| digest != clean) {
            changed.one();
        }
    });
    reached.at_least(1);
    changed.at_least(1);
}

#[test]
fn an_edit_that_does_not_fit_is_refused_before_a_byte_is_written() {
    let stored = quantized(Layout::new(3, 32, Bits::Four, 32, FloatType::F16).expect("a layout"), 1);
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
    let layout = Layout::new(301, 2048, Bits::Four, 64, FloatType::Bf16).expect("a layout");
    let stored = quantized(layout, 5);
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
        Fixture { bits: Bits::Eight, scale_type: FloatType::F32, vocab_size: 1009, shards: 2, ..base.clone() },
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
        let stored = checkpoint.weights().head();
        assert!(stored.parts().iter().all(|part| part.origin.is_some()), "it lies in a file");
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
            assert_eq!(digest_of(&again.weights().head().view()), clean, "opened again, {text}");

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
    let mut head = private(checkpoint.weights().head(), 2);
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
            let head = checkpoint.weights().head().view();
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
        assert_eq!(digest_of(&again.weights().head().view()), clean, "after {status}");
        assert_eq!(private(again.weights().head(), 1).digest(), clean, "after {status}");
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
