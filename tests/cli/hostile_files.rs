//! Files that no run of the program wrote, or that somebody changed since, given to every command that reads files: each
//! ends with exit code 2 and one plain line that names what is wrong.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{finished, program, speaking, write};

/// A hostile input: files in a folder that is otherwise an honest model, and a command.
struct Input {
    name: String,
    files: Vec<(String, Vec<u8>)>,
    args: Vec<String>,
    says: Vec<&'static str>,
}

impl Input {
    /// An honest model, asked one question.
    fn new(name: impl Into<String>) -> Self {
        let args = ["ladder", "--model", "{folder}", "--shifts", "0", "--max-tokens", "1", "--threshold", "9"];
        Self { name: name.into(), files: Vec::new(), args: args.map(str::to_owned).to_vec(), says: Vec::new() }
    }

    fn file(mut self, name: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.files.push((name.to_owned(), bytes.into()));
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

    /// What is wrong with how the program took this, if anything.
    fn run(&self) -> Option<String> {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().to_str().expect("Unicode");
        write(folder.path(), &speaking(Some("{{ messages[0].content }}")).files());
        for (name, bytes) in &self.files {
            fs::write(folder.path().join(name), bytes).expect("a writable folder");
        }
        let args: Vec<String> = self.args.iter().map(|arg| arg.replace("{folder}", path)).collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let run = finished(&args, program(&args).output().expect("it starts"));
        let line = run.stderr.trim_end_matches('\n');
        let acts = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        let missing: Vec<&&str> = self.says.iter().filter(|mention| !line.contains(**mention)).collect();
        let taken = run.code == Some(2)
            && run.stdout.is_empty()
            && line.starts_with("headroom: error: ")
            && line.len() < 2_000
            && !line.contains(acts)
            && missing.is_empty();
        (!taken).then(|| {
            format!(
                "{}: exit code {:?}, without {missing:?}: {:?}",
                self.name,
                run.code,
                run.stderr.get(..2_000).unwrap_or(&run.stderr)
            )
        })
    }
}

#[track_caller]
fn all_are_refused(inputs: Vec<Input>) {
    let count = inputs.len();
    let wrong: Vec<String> = inputs.iter().filter_map(Input::run).collect();
    assert!(
        wrong.is_empty(),
        "{} of {count} inputs are not taken as they should be:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// A record as the program writes it.
fn record() -> Value {
    let text = r#"{
        "schema": 1, "trial": 0, "model": "m", "revision": null, "model_digest": "00", "head_digest": "11", "backend": "cpu",
        "kernel": "scalar", "prompt": "p", "prompt_ids": [1], "edit": "shift:1", "shift": 1, "family": null, "value": null,
        "first_words": [0], "tokens": [5], "text": "t", "finish": "length", "verdict": "WOBBLING", "tags": [],
        "coherent_tokens": 1, "threshold": 9.0, "surprise": [0.5], "margin": [1.0], "kl_mean": 0.5, "kl_p99": 0.5,
        "agreement": 0.5, "expected": null, "expected_texts": [], "documented": null,
        "clean": {"tokens": [4], "text": "c", "finish": "length"},
        "run": {"id": "i", "command": "probe", "trials": null, "seed": 0, "max_tokens": 1, "tied": "separate",
            "calibration": null, "machine": "", "version": "0",
            "model": {"model_type": "llama", "num_hidden_layers": 1, "hidden_size": 64, "vocab_size": 96, "bits": 4,
                "group_size": 32, "tied": false}},
        "ms": 1.0
    }"#;
    serde_json::from_str(text).expect("a record")
}

/// An input of each command that reads stored runs, in turn.
fn stored(number: usize, name: &str, contents: impl Into<Vec<u8>>) -> Input {
    let commands: [&[&str]; 5] = [
        &["report", "{folder}/x.jsonl"],
        &["compare", "{folder}/x.jsonl", "{folder}/x.jsonl"],
        &["relabel", "{folder}/x.jsonl"],
        &["merge", "{folder}/x.jsonl"],
        &[
            "replay",
            "{folder}/x.jsonl",
            "--model",
            "{folder}",
            "--prompt-ids",
            "1",
            "--max-tokens",
            "1",
            "--threshold",
            "9",
        ],
    ];
    let command = commands[number % commands.len()];
    Input::new(format!("{} of {name}", command[0])).file("x.jsonl", contents).args(command)
}

#[test]
fn a_record_with_a_value_that_cannot_be_is_refused_with_its_line() {
    let hostile = "\u{1b}[2J\u{202e}\nheadroom: error: forged";
    let values = [
        ("schema", json!(2)),
        ("schema", json!("1")),
        ("schema", json!(-1)),
        ("trial", json!(-1)),
        ("trial", json!(1.5)),
        ("trial", json!("0")),
        ("model", Value::Null),
        ("backend", json!(["cpu"])),
        ("prompt", json!(3)),
        ("prompt_ids", json!([-1])),
        ("prompt_ids", json!([4_294_967_296_u64])),
        ("edit", json!({})),
        ("shift", json!(1.5)),
        ("shift", json!("1")),
        ("value", json!({"a": 1})),
        ("first_words", Value::Null),
        ("tokens", json!([-1])),
        ("tokens", json!("five")),
        ("finish", json!(hostile)),
        ("verdict", json!(hostile)),
        ("verdict", json!("FINE")),
        ("tags", json!([hostile])),
        ("coherent_tokens", json!(-1)),
        ("threshold", Value::Null),
        ("threshold", json!("inf")),
        ("surprise", json!(["a"])),
        ("margin", json!({})),
        ("kl_mean", json!("none")),
        ("expected", json!("maybe")),
        ("documented", json!("WELL")),
        ("clean", json!({})),
        ("clean", json!([])),
        ("run", json!({})),
        ("run", Value::Null),
        ("ms", Value::Null),
    ];
    let mut inputs = Vec::new();
    for (number, (key, value)) in values.into_iter().enumerate() {
        let mut changed = record();
        changed[key] = value;
        let lines = format!("{}\n{changed}\n", record());
        inputs.push(stored(number, &format!("{key} {}", changed[key]), lines).says(&["x.jsonl", "line 2"]));
    }
    for (number, key) in
        ["trial", "prompt_ids", "verdict", "clean", "run", "finish", "threshold"].into_iter().enumerate()
    {
        let mut changed = record();
        changed.as_object_mut().expect("an object").remove(key);
        inputs.push(stored(number, &format!("no {key}"), format!("{changed}\n")).says(&["x.jsonl", "line 1"]));
    }
    let facts = [("tied", json!("both")), ("seed", json!(-1)), ("max_tokens", json!(1e30)), ("trials", json!("all"))];
    for (number, (key, value)) in facts.into_iter().enumerate() {
        let mut changed = record();
        changed["run"][key] = value;
        inputs.push(stored(number, &format!("run.{key}"), format!("{changed}\n")).says(&["x.jsonl", "line 1"]));
    }
    all_are_refused(inputs);
}

#[test]
fn a_file_of_anything_else_is_refused() {
    let deep = "[".repeat(200_000);
    let objects = "{\"a\":".repeat(200_000);
    let mut inputs = Vec::new();
    for (number, (name, contents)) in [
        ("zeros", vec![0; 4096]),
        ("a page", b"<!DOCTYPE html><html></html>\n".to_vec()),
        ("an archive", b"\x1f\x8b\x08\0\0\0\0\0".to_vec()),
        ("an image", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec()),
        ("UTF-16", b"\xff\xfe{\0\"\0a\0\"\0".to_vec()),
        ("bytes that are no text", vec![0xff; 100]),
        ("notes", b"my notes\n".to_vec()),
        ("a number", b"1\n".to_vec()),
        ("an empty list", b"[]\n".to_vec()),
        ("an empty object", b"{}\n".to_vec()),
        ("lists in lists", deep.clone().into_bytes()),
        ("objects in objects", format!("{objects}\n").into_bytes()),
        ("a text that acts upon a terminal", "\u{1b}[2J\u{202e}\n".as_bytes().to_vec()),
        ("a configuration", b"{\"model_type\":\"llama\"}\n".to_vec()),
        ("a key of a megabyte", format!("{{\"{}\":1}}\n", "k".repeat(1 << 20)).into_bytes()),
        ("a number of a megabyte", format!("{{\"schema\":{}}}\n", "9".repeat(1 << 20)).into_bytes()),
    ]
    .into_iter()
    .enumerate()
    {
        for turn in 0..2 {
            inputs.push(stored(number + turn, name, contents.clone()).says(&["x.jsonl"]));
        }
    }
    for (name, object) in [
        ("no records", json!({"command": "ladder", "schema": 1})),
        ("another schema", json!({"command": "ladder", "schema": 9, "records": []})),
        ("records of another kind", json!({"command": "ladder", "schema": 1, "records": [1]})),
        ("a certificate without answers", json!({"command": "certify", "schema": 1})),
        ("a certificate of nothing", json!({"command": "certify", "schema": 1, "answers": [{}]})),
        ("what a bisection found", json!({"command": "bisect", "schema": 1, "points": []})),
        ("an unknown command", json!({"command": "\u{1b}[2J", "schema": 1})),
    ] {
        inputs.push(stored(0, name, format!("{object}\n")).says(&["x.jsonl"]));
    }
    for (number, path) in ["/dev/zero", "/nowhere/x.jsonl", "{folder}"].into_iter().enumerate() {
        for command in ["report", "relabel", "merge", "replay"] {
            inputs.push(Input::new(format!("{command} {path} {number}")).args(&[command, path]));
        }
    }
    let two = format!("{}\n{}\n", record(), record().to_string().replace("\"t\"", "\"u\""));
    inputs.push(stored(3, "two results of one trial", two).says(&["trial 0", "another result"]));
    let other = format!(
        "{}\n{}\n",
        record(),
        record().to_string().replace("\"i\"", "\"j\"").replace("\"trial\":0", "\"trial\":1")
    );
    inputs.push(stored(3, "two runs", other).says(&["another run"]));
    all_are_refused(inputs);
}

#[test]
fn a_recipe_that_cannot_be_run_is_refused_before_it_is() {
    let replay = [
        "replay",
        "{folder}/r.json",
        "--model",
        "{folder}",
        "--prompt-ids",
        "1",
        "--max-tokens",
        "1",
        "--threshold",
        "9",
    ];
    let many = (0..100).map(|seed| format!("random:flips=24000,seed={seed}")).collect::<Vec<_>>().join("+");
    let nothing = "clean+".repeat(100_000);
    let digits = "9".repeat(1 << 20);
    let edits = [
        many,
        "random:flips=4000000000,seed=1".to_owned(),
        "random:flips=18446744073709551615,seed=1".to_owned(),
        "random:rate=1.5,seed=1".to_owned(),
        "random:rate=nan,seed=1".to_owned(),
        "random:flips=-1,seed=1".to_owned(),
        format!("shift:{digits}"),
        format!("flip:weight[{digits},0].0"),
        "flip:weight[18446744073709551615,0].0".to_owned(),
        "flip:weight[0,18446744073709551615].0".to_owned(),
        "flip:weight[0,0].4294967295".to_owned(),
        "set:weight[0,0]=4294967295".to_owned(),
        "add:weight[96,0]=9223372036854775807".to_owned(),
        "xor:word[0,99]=0xffffffff".to_owned(),
        "set:word[0,0]=0x1ffffffff".to_owned(),
        "flip:scales[0,2].0".to_owned(),
        nothing,
        "\u{1b}[2J\u{202e}".to_owned(),
        "shift:1\nheadroom: error: forged".to_owned(),
        "+".to_owned(),
        String::new(),
    ];
    let mut inputs: Vec<Input> = edits
        .into_iter()
        .map(|edit| {
            let recipe = json!({"schema": 1, "recipe": [{"edit": "clean"}, {"edit": edit}]}).to_string();
            let name: String = edit.chars().take(40).flat_map(char::escape_default).collect();
            Input::new(name).file("r.json", recipe).args(&replay)
        })
        .collect();
    for recipe in [
        json!({"schema": 2, "recipe": []}),
        json!({"schema": 1, "recipe": {}}),
        json!({"schema": 1, "recipe": [{"edit": 1}]}),
        json!({"schema": 1, "recipe": [{}]}),
        json!({"schema": 1, "recipe": [{"edit": "clean", "\u{1b}[2J": 1}]}),
        json!({"recipe": []}),
    ] {
        inputs.push(Input::new(recipe.to_string()).file("r.json", recipe.to_string()).args(&replay));
    }
    all_are_refused(inputs);
}

#[test]
fn lists_of_values_and_of_prompts_that_cannot_be_are_refused() {
    let model = ["--model", "{folder}", "--max-tokens", "1", "--threshold", "9"];
    let values =
        [&["sweep", "--family", "shift", "--values", "@{folder}/v.txt", "--prompt-ids", "1"][..], &model].concat();
    let mut inputs: Vec<Input> = [
        "0..18446744073709551615",
        "-9223372036854775808..9223372036854775807",
        "2^0..2^4294967295",
        "1e999",
        "nan",
        "@v.txt",
        "\u{1b}[2J",
        "\0",
        "1..",
        "1,,two",
    ]
    .into_iter()
    .map(|list| Input::new(format!("values {list:?}")).file("v.txt", list).args(&values).says(&["v.txt"]))
    .collect();
    let long = Input::new("values of 65 MiB").file("v.txt", vec![b' '; 65 << 20]);
    inputs.push(long.args(&values).says(&["v.txt", "64 MiB"]));
    for (name, contents) in [
        ("p.json", "{}"),
        ("p.json", "[3]"),
        ("p.json", "[[[["),
        ("p.jsonl", "{\"prompt\": 3}"),
        ("p.jsonl", "{\"prompt\": \"x\", \"\u{1b}[2J\": 1}"),
        ("p.ndjson", "x"),
        ("p.csv", "prompt\nx"),
        ("p.txt", "\n\n"),
        ("p.json", "[]"),
    ] {
        let path = format!("{{folder}}/{name}");
        let args = [&["ladder", "--shifts", "0", "--prompts", &path][..], &model].concat();
        inputs.push(Input::new(format!("prompts {name} {contents:?}")).file(name, contents).args(&args).says(&["p."]));
    }
    for (name, contents) in [("p.txt", &b"\xff\xfea\0"[..]), ("p.txt", b"a\n\xff")] {
        let args = [&["ladder", "--shifts", "0", "--prompts", "{folder}/p.txt"][..], &model].concat();
        inputs.push(
            Input::new(format!("prompts {contents:?}")).file(name, contents).args(&args).says(&["p.txt", "UTF-"]),
        );
    }
    all_are_refused(inputs);
}

#[test]
fn what_stands_in_the_place_of_a_file_is_named() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
    let mut inputs = Vec::new();
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"] {
        inputs.push(Input::new(format!("a pointer as {name}")).file(name, pointer).says(&[name, "git lfs pull"]));
        let page = "<!DOCTYPE html>\n<title>Sign in</title>";
        inputs.push(Input::new(format!("a page as {name}")).file(name, page).says(&[name, "web page"]));
    }
    all_are_refused(inputs);
}
