//! What happens when a model's revision changes: the answers are compared with those of the last revision, shift by
//! shift, and wait for somebody to accept them.
//!
//! insta takes its settings from the environment, once for a process, so this program starts itself again: the test
//! [`child`] does nothing unless [`MODEL`] names a model.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use lm_headroom::{
    checkpoint::{Bytes, demo},
    testing::{
        harness::UnderTest,
        model::{PROMPTS, subject},
        snapshot::compare,
    },
};
use safetensors::SafeTensors;

const MODEL: &str = "HEADROOM_TEST_SNAPSHOT_MODEL";
const SNAPSHOTS: &str = "HEADROOM_TEST_SNAPSHOT_FOLDER";

#[test]
fn child() {
    let (Ok(model), Ok(folder)) = (env::var(MODEL), env::var(SNAPSHOTS)) else { return };
    UnderTest::new(model, folder)
        .prompts(&PROMPTS[..1])
        .max_tokens(12)
        .snapshot(|name, sheet| insta::assert_snapshot!(name, sheet));
}

/// Tests `model` against what lies in `snapshots`.
fn tested(model: &Path, snapshots: &Path, update: &str) -> Output {
    Command::new(env::current_exe().expect("this program"))
        .args(["--exact", "child", "--nocapture"])
        .env(MODEL, model)
        .env(SNAPSHOTS, snapshots)
        .env("INSTA_WORKSPACE_ROOT", snapshots)
        .env("INSTA_UPDATE", update)
        .env("NO_COLOR", "1")
        .env_remove("INSTA_FORCE_PASS")
        .output()
        .expect("it starts")
}

type Files = BTreeMap<String, Bytes>;

fn written(files: &Files, folder: PathBuf) -> PathBuf {
    fs::create_dir_all(&folder).expect("a folder");
    for (name, bytes) in files {
        fs::write(folder.join(name), &**bytes).expect("written");
    }
    folder
}

/// The model inside with two rows of its head exchanged, in all three tensors: it says the one where it said the
/// other.
fn exchanged(files: &Files, tokens: [u32; 2]) -> Files {
    let mut file = files["model.safetensors"].to_vec();
    let (header, tensors) = SafeTensors::read_metadata(&file).expect("a safetensors file");
    for part in ["weight", "scales", "biases"] {
        let info = tensors.info(&format!("lm_head.{part}")).expect("it has a head");
        let (start, end) = info.data_offsets;
        let (start, row) = (8 + header + start, (end - start) / info.shape[0]);
        let [a, b] = tokens.map(|token| start + token as usize * row);
        for i in 0..row {
            file.swap(a + i, b + i);
        }
    }
    let mut files = files.clone();
    files.insert("model.safetensors".to_owned(), Bytes::new(file));
    files
}

#[test]
fn a_new_revision_shows_old_and_new_answers_shift_by_shift_until_they_are_accepted() {
    let temporary = tempfile::tempdir().expect("a folder");
    let snapshots = temporary.path().join("snapshots");
    let model = subject("demo", 1).expect("the model inside");
    let ids = |text: &str| model.prompt(text).expect("ids").ids;
    // The tokens of a digit that stands alone: where two prompts differ.
    let (four, five) = (ids("2 + 2 is 4."), ids("2 + 2 is 5."));
    let digits: Vec<_> = four.iter().zip(&five).filter(|(a, b)| a != b).collect();
    let [(&four, &five)] = digits[..] else { panic!("a digit is one token: {digits:?}") };

    let first = written(&demo::files(), temporary.path().join("1/toy"));
    let second = written(&exchanged(&demo::files(), [four, five]), temporary.path().join("2/toy"));

    // The first revision is accepted, and holds.
    let accepted = tested(&first, &snapshots, "always");
    assert!(accepted.status.success(), "{}", String::from_utf8_lossy(&accepted.stderr));
    let (stored, pending) = (snapshots.join("toy.snap"), snapshots.join("toy.snap.new"));
    let old = fs::read_to_string(&stored).expect("a snapshot");
    assert!(old.contains("shift 0  HEALTHY  stop  \"2 + 2 is 4.\""), "{old}");
    assert!(tested(&first, &snapshots, "no").status.success(), "the same revision answers as it did");
    assert!(!pending.exists());

    // The second does not, and waits beside the first.
    let changed = tested(&second, &snapshots, "new");
    assert!(!changed.status.success(), "another revision is never accepted silently");
    let new = fs::read_to_string(&pending).expect("a pending snapshot");
    assert_eq!(fs::read_to_string(&stored).expect("a snapshot"), old, "the old answers stay");
    assert!(new.contains("shift 0  HEALTHY  stop  \"2 + 2 is 5.\""), "{new}");

    // Old and new have the same lines for the same shifts, so that what is reviewed is what changed.
    let lines = |text: &str, start: &str| -> Vec<String> {
        text.lines().filter(|line| line.trim_start().starts_with(start)).map(str::to_owned).collect()
    };
    let shift = |line: &String| line.split_whitespace().nth(1).map(str::to_owned);
    let (old_shifts, new_shifts) = (lines(&old, "shift "), lines(&new, "shift "));
    assert_eq!(old_shifts.len(), 10);
    assert_eq!(old_shifts.iter().map(shift).collect::<Vec<_>>(), new_shifts.iter().map(shift).collect::<Vec<_>>());
    assert_ne!(lines(&old, "digest "), lines(&new, "digest "), "each carries its revision's digest");
    let shown = String::from_utf8_lossy(&changed.stdout);
    for line in [&old_shifts[0], &new_shifts[0]] {
        assert!(shown.contains(line.trim()), "{line} is shown in {shown}");
    }
    let body = |text: &str| text.split_once("---\nmodel").map(|(_, body)| format!("model{body}")).expect("a sheet");
    assert!(compare(&body(&old), &body(&new), 0.0).expect_err("they differ").contains("digest"));

    // Accepted, it is what the next run is held against.
    fs::rename(&pending, &stored).expect("accepted");
    assert!(tested(&second, &snapshots, "no").status.success());
    assert!(!tested(&first, &snapshots, "no").status.success());
}
