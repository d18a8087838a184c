//! Hostile inputs through the program: each ends with exit code 2 and one plain line that says what is wrong, within little
//! memory and time, whatever it makes other people's parsers do.
//!
//! An input is a row of a table: the files that are not what they should be in a folder that is otherwise an honest model,
//! the command, and what its message must mention. Every run prints its row: what it took, and what it said.

#![cfg(unix)]
#![expect(clippy::print_stdout, reason = "a test says what it looked at")]

mod files;
mod measure;
mod results;
mod templates;
mod tokenizers;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    path::Path,
    sync::{Mutex, PoisonError},
    thread,
};

use lm_headroom::testing::fixture::Fixture;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

/// Peak memory that the program and its children may take, in bytes.
const MEMORY: u64 = 512 << 20;
/// Processor time that they may take together, in seconds: a clock on the wall would measure what else the machine does.
const SECONDS: f64 = 10.0;

/// What a file holds.
enum Content {
    Bytes(Vec<u8>),
    /// What this makes, when it is needed.
    Made(Box<dyn Fn() -> Vec<u8> + Send>),
    /// These bytes, and zeros up to this length that take no space on disk.
    Sparse(Vec<u8>, u64),
    /// There is no such file.
    Absent,
}

/// A hostile input.
struct Input {
    name: String,
    files: Vec<(String, Content)>,
    args: Vec<String>,
    says: Vec<&'static str>,
    /// Whether a run that ends well is as good as an error.
    may_run: bool,
}

impl Input {
    /// An honest model, asked one question.
    fn new(name: impl Into<String>) -> Self {
        let args = ["ladder", "--model", "{folder}", "--shifts", "0", "--max-tokens", "3", "--threshold", "9"];
        let args = args.map(str::to_owned).to_vec();
        Self { name: name.into(), files: Vec::new(), args, says: Vec::new(), may_run: false }
    }

    /// With a file in the model's folder, in place of the honest one if there is one of its name.
    fn file(mut self, name: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.files.push((name.to_owned(), Content::Bytes(bytes.into())));
        self
    }

    /// With a file of many megabytes.
    fn large(mut self, name: &str, make: impl Fn() -> Vec<u8> + Send + 'static) -> Self {
        self.files.push((name.to_owned(), Content::Made(Box::new(make))));
        self
    }

    /// With a file that begins with `bytes` and is `len` bytes long.
    fn sparse(mut self, name: &str, bytes: impl Into<Vec<u8>>, len: u64) -> Self {
        self.files.push((name.to_owned(), Content::Sparse(bytes.into(), len)));
        self
    }

    /// Without one of the honest files.
    fn without(mut self, name: &str) -> Self {
        self.files.push((name.to_owned(), Content::Absent));
        self
    }

    /// With another command, in which `{folder}` is the model's folder.
    fn args(mut self, args: &[&str]) -> Self {
        self.args = args.iter().map(ToString::to_string).collect();
        self
    }

    /// With a message that mentions these.
    fn says(mut self, mentions: &[&'static str]) -> Self {
        self.says.extend(mentions);
        self
    }

    /// What some would call broken, and a library may pass over.
    fn may_run(mut self) -> Self {
        self.may_run = true;
        self
    }

    /// What is wrong with how the program took this, if anything.
    fn run(&self) -> Result<(), String> {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().to_str().expect("Unicode");
        let args: Vec<String> = self.args.iter().map(|arg| arg.replace("{folder}", path)).collect();
        write_honest(folder.path());
        for (name, content) in &self.files {
            write(&folder.path().join(name), content);
        }
        let run = measure::run(&args);

        let line = run.stderr.trim_end_matches('\n');
        println!(
            "{:<60} exit {:>3} {:>6.2} s {:>5} MiB  {}",
            self.name,
            run.code.map_or_else(|| "?".to_owned(), |code| code.to_string()),
            run.seconds,
            run.memory >> 20,
            line.replace(path, "FOLDER")
        );
        let mut wrong = Vec::new();
        if run.memory > MEMORY {
            wrong.push(format!("it took {} MiB", run.memory >> 20));
        }
        if run.seconds > SECONDS {
            wrong.push(format!("it took {:.1} s", run.seconds));
        }
        if !(self.may_run && run.code == Some(0)) {
            if !matches!(run.code, Some(2 | 3)) {
                wrong.push(format!("it ended with {:?}", run.code));
            }
            if !line.starts_with("headroom: error: ") || line.contains('\n') || line.len() > 2000 {
                wrong.push("its message is not one line".to_owned());
            }
            if line.chars().any(is_not_plain) || line.contains("panicked at") {
                wrong.push("its message is not plain".to_owned());
            }
            let missing = self.says.iter().filter(|mention| !line.contains(**mention));
            wrong.extend(missing.map(|mention| format!("it does not say {mention:?}")));
        }
        if wrong.is_empty() { Ok(()) } else { Err(format!("{}: {}:\n{}", self.name, wrong.join("; "), run.stderr)) }
    }
}

/// Characters that move a terminal's cursor, or turn text around.
fn is_not_plain(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Runs each input, two at a time, however many tests there are.
#[track_caller]
fn all_are_refused(inputs: Vec<Input>) {
    static ONE_TABLE: Mutex<()> = Mutex::new(());
    let _one = ONE_TABLE.lock().unwrap_or_else(PoisonError::into_inner);
    let (count, queue, failures) = (inputs.len(), Mutex::new(inputs.into_iter()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(input) = queue.lock().expect("no panic").next() else { return };
                    failures.lock().expect("no panic").extend(input.run().err());
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no panic");
    let failed = failures.len();
    assert!(
        failures.is_empty(),
        "{failed} of {count} inputs are not taken as they should be:\n{}",
        failures.join("\n")
    );
    println!("{count} inputs");
}

fn write(path: &Path, content: &Content) {
    match content {
        Content::Bytes(bytes) => fs::write(path, bytes).expect("written"),
        Content::Made(make) => fs::write(path, make()).expect("written"),
        Content::Sparse(bytes, len) => {
            let mut file = File::create(path).expect("a writable folder");
            file.write_all(bytes).expect("written");
            file.set_len(*len).expect("a file system with sparse files");
        }
        Content::Absent => fs::remove_file(path).expect("it is there"),
    }
}

/// A small model with a tokenizer and a template that work.
fn honest() -> Fixture {
    let files = [
        ("tokenizer.json", tokenizer(|_| {})),
        ("tokenizer_config.json", br#"{"eos_token": "~"}"#.to_vec()),
        ("chat_template.jinja", b"{% for m in messages %}{{ m.content }}{% endfor %}".to_vec()),
    ];
    let extra_files: BTreeMap<String, Vec<u8>> = files.map(|(name, bytes)| (name.to_owned(), bytes)).into();
    Fixture { extra_files, ..Fixture::default() }
}

/// Writes the honest model.
fn write_honest(folder: &Path) {
    for (name, bytes) in honest().files() {
        fs::write(folder.join(name), &bytes[..]).expect("a writable folder");
    }
}

/// A tokenizer with a token for each of 96 bytes, in the order of ASCII from `!`, then space and newline, after `change`.
fn tokenizer(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let bytes = (b'!'..=b'~').map(char::from).chain(['Ġ', 'Ċ']);
    let vocab: Map<String, Value> = bytes.enumerate().map(|(id, c)| (c.to_string(), json!(id))).collect();
    let mut tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": [],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    });
    change(&mut tokenizer);
    tokenizer.to_string().into_bytes()
}

#[test]
fn the_model_that_the_inputs_break_is_whole() {
    let input = Input::new("honest").may_run();
    let run = input.run();
    assert_eq!(run, Ok(()));
    let broken = Input::new("broken").says(&["what no message says"]).file("config.json", "{");
    assert!(broken.run().is_err_and(|error| error.contains("does not say")), "the table can fail");
}
