//! The program from outside: its exit codes, what it writes where, and what it says about bad input.
//!
//! Every test runs the real binary, on the model inside it or on a fixture written into a temporary folder. Runs
//! share nothing with the user's: the cache of digests is one of the tests'.

mod bad_checkpoints;
mod bad_input;
#[cfg(target_os = "linux")]
mod bounded;
mod certify;
mod certify_parts;
mod compressed;
mod contract;
mod determinism;
mod help;
mod hostile_files;
mod interruption;
mod journal;
#[cfg(unix)]
mod mlx_lm;
mod outputs;
mod parts;
mod prompts;
mod report;
mod searches;
mod signals;
mod strangers;
mod streams;
mod templates;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use lm_headroom::{checkpoint::Bytes, testing::fixture::Fixture};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

type Files = BTreeMap<String, Bytes>;
type Object = Map<String, Value>;

/// The program, in an environment that the user's does not change.
fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headroom"));
    // A backtrace that is asked for must not get into a message either.
    command.args(args).env("RUST_BACKTRACE", "1").env("HEADROOM_CACHE", concat!(env!("CARGO_TARGET_TMPDIR"), "/cache"));
    // No test reaches the network, nor the user's models.
    command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", concat!(env!("CARGO_TARGET_TMPDIR"), "/no-hub"));
    // A task of a cluster may run the tests.
    for variable in SCHEDULERS {
        command.env_remove(variable);
    }
    command.env_remove("HF_HUB_CACHE").env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE").stdin(Stdio::null());
    command
}

/// What schedulers say of a task.
const SCHEDULERS: [&str; 10] = [
    "HEADROOM_SHARDS",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_ARRAY_TASK_MIN",
    "SLURM_ARRAY_TASK_MAX",
    "SLURM_ARRAY_TASK_STEP",
    "SLURM_ARRAY_TASK_COUNT",
    "JOB_COMPLETION_INDEX",
    "PBS_ARRAY_INDEX",
    "LSB_JOBINDEX",
    "AWS_BATCH_JOB_ARRAY_INDEX",
];

/// What a run left.
struct Run {
    args: String,
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

#[track_caller]
fn run(args: &[&str]) -> Run {
    finished(args, program(args).output().expect("the program starts"))
}

#[track_caller]
fn finished(args: &[&str], output: Output) -> Run {
    let text = |bytes| String::from_utf8(bytes).expect("the program writes UTF-8");
    let run = Run {
        args: args.join(" "),
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    };
    assert!(!run.stderr.contains("panicked"), "`{}` panicked: {}", run.args, run.stderr);
    run
}

/// As much of a text as somebody reads who looks at why a test failed.
fn beginning(text: &str) -> &str {
    text.char_indices().nth(4000).map_or(text, |(end, _)| &text[..end])
}

impl Run {
    #[track_caller]
    fn exits(self, code: i32) -> Self {
        let Self { args, stdout, stderr, .. } = &self;
        assert_eq!(self.code, Some(code), "`{args}` wrote:\n{}\n{}", beginning(stdout), beginning(stderr));
        self
    }

    /// The one object of `--format json`.
    #[track_caller]
    fn json(&self) -> Value {
        let lines: Vec<&str> = self.stdout.lines().collect();
        assert_eq!(lines.len(), 1, "`{}` wrote:\n{}", self.args, beginning(&self.stdout));
        serde_json::from_str(lines[0]).expect("an object")
    }

    /// The records of `--format jsonl`.
    #[track_caller]
    fn records(&self) -> Vec<Object> {
        records(&self.stdout)
    }
}

#[track_caller]
fn records(lines: &str) -> Vec<Object> {
    assert!(lines.is_empty() || lines.ends_with('\n'), "the last line is cut short: {lines:?}");
    lines.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"))).collect()
}

/// Records of a run that must end with exit code 0.
#[track_caller]
fn records_of(args: &[&str]) -> Vec<Object> {
    let args: Vec<&str> = args.iter().copied().chain(["--format", "jsonl"]).collect();
    run(&args).exits(0).records()
}

/// `record` without what may differ from run to run, and without `keys`.
fn without(record: &Object, keys: &[&str]) -> Object {
    let left = |key: &String| key != "ms" && !keys.contains(&key.as_str());
    record.iter().filter(|(key, _)| left(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn unsigned(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).expect("a list of natural numbers")
}

fn write(folder: &Path, files: &Files) {
    for (name, bytes) in files {
        fs::write(folder.join(name), &bytes[..]).expect("a writable folder");
    }
}

/// A folder that holds `files`.
fn folder(files: &Files) -> TempDir {
    let folder = TempDir::new().expect("a folder");
    write(folder.path(), files);
    folder
}

/// A folder with one file in it, and the file's path.
fn file(name: &str, contents: impl AsRef<[u8]>) -> (TempDir, String) {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join(name);
    fs::write(&path, contents).expect("a writable folder");
    let path = path.to_str().expect("Unicode").to_owned();
    (folder, path)
}

fn path(folder: &TempDir) -> &str {
    folder.path().to_str().expect("Unicode")
}

/// A fixture with a tokenizer: a token for each of 96 bytes, in the order of ASCII from `!`, then space and newline.
fn speaking(template: Option<&str>) -> Fixture {
    let bytes = (b'!'..=b'~').map(char::from).chain(['Ġ', 'Ċ']);
    let vocab: Object = bytes.enumerate().map(|(id, c)| (c.to_string(), json!(id))).collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": [],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    });
    let mut extra_files = BTreeMap::from([("tokenizer.json".to_owned(), tokenizer.to_string().into_bytes())]);
    extra_files.extend(template.map(|text| ("chat_template.jinja".to_owned(), text.as_bytes().to_vec())));
    Fixture { extra_files, ..Fixture::default() }
}
