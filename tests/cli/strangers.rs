//! Names, records and errors come from strangers: nothing of them acts upon a terminal or passes for a line of ours.

use std::fs;

use lm_headroom::{checkpoint::Bytes, testing::fixture::Fixture};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Run, file, folder, path, program, run, speaking};

/// Clears the screen, turns the writing round, forges a line, moves the cursor, sets a title.
const HOSTILE: &str =
    "a\u{1b}[2J\u{202e}b\nheadroom: error: forged\r\u{9b}31mc\u{7f}\u{8}\u{2066}\u{2028}d\u{1b}]0;t\u{7}";

/// That a run says nothing but what is seen, and that no stranger's line end is one.
#[track_caller]
fn plain(run: &Run) {
    for text in [&run.stdout, &run.stderr] {
        let hidden = |c: char| {
            c != '\n'
                && (c.is_control()
                    || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'))
        };
        assert!(!text.contains(hidden), "`{}` wrote {text:?}", run.args.escape_debug());
        let forged = text.lines().filter(|line| line.starts_with("headroom: error: forged")).count();
        assert_eq!(forged, 0, "`{}` wrote {text}", run.args.escape_debug());
    }
}

/// As [`plain`], of an error, which is one line.
#[track_caller]
fn plain_error(args: &[&str]) {
    let run = run(args).exits(2);
    plain(&run);
    assert!(run.stderr.starts_with("headroom: error: ") && run.stderr.lines().count() == 1, "{}", run.stderr);
    assert!(run.stderr.contains("\\u{1b}[2J") || run.stderr.contains("\\u{202e}"), "it is shown: {}", run.stderr);
}

/// The fixture with one file changed or added.
fn with(name: &str, contents: impl Into<Vec<u8>>) -> TempDir {
    let mut files = speaking(Some("{{ messages[0].content }}")).files();
    files.insert(name.to_owned(), Bytes::new(contents.into()));
    folder(&files)
}

#[cfg(unix)]
#[test]
fn a_folder_s_name_is_shown_and_does_nothing() {
    let parent = TempDir::new().expect("a folder");
    let model = parent.path().join(HOSTILE);
    fs::create_dir(&model).expect("a folder");
    super::write(&model, &Fixture::default().files());
    let model = model.to_str().expect("Unicode");
    for command in [&["inspect"][..], &["ladder", "--prompt-ids", "1", "--max-tokens", "1", "--threshold", "9"]] {
        let run = run(&[command, &["--model", model]].concat()).exits(0);
        plain(&run);
        assert!(run.stdout.contains("\\u{1b}[2J") && run.stdout.contains("\\nheadroom"), "{}", run.stdout);
    }
    let certified = run(&["certify", "--model", model, "--prompt-ids", "1", "--max-tokens", "1"]);
    plain(&certified);
}

#[test]
fn names_and_errors_of_a_checkpoint_are_shown_and_do_nothing() {
    let header = json!({HOSTILE: {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]}}).to_string();
    let mut tensor = (header.len() as u64).to_le_bytes().to_vec();
    tensor.extend(header.as_bytes());
    tensor.extend([0, 0]);
    let config: Value = serde_json::from_slice(&Fixture::default().files()["config.json"]).expect("an object");
    let changed = |key: &str, value: Value| {
        let mut config = config.clone();
        config[key] = value;
        config.to_string()
    };
    let raises = format!("{{{{ raise_exception({HOSTILE:?}) }}}}");
    for (name, contents) in [
        ("model-extra.safetensors", tensor),
        ("config.json", changed("model_type", HOSTILE.into()).into_bytes()),
        ("config.json", changed("rope_scaling", json!({"rope_type": HOSTILE})).into_bytes()),
        ("config.json", changed("quantization", json!({"group_size": 32, "bits": 4, "mode": HOSTILE})).into_bytes()),
        ("config.json", changed("hidden_act", HOSTILE.into()).into_bytes()),
        ("chat_template.jinja", raises.into_bytes()),
        ("chat_template.jinja", format!("{{{{ '{HOSTILE}' | nofilter }}}}").replace('\n', " ").into_bytes()),
    ] {
        let folder = with(name, contents);
        let run = run(&["probe", "clean", "--model", path(&folder), "--prompt", "Hi", "--max-tokens", "1"]);
        assert_ne!(run.code, Some(0), "{name}");
        plain(&run);
    }
}

#[test]
fn arguments_and_paths_are_shown_and_do_nothing() {
    for args in [
        &["--model", HOSTILE][..],
        &["--kernel", HOSTILE],
        &["--prompts", HOSTILE],
        &["--out", HOSTILE],
        &["report", HOSTILE],
        &["replay", HOSTILE],
        &["relabel", HOSTILE],
        &["merge", HOSTILE],
        &["compare", HOSTILE, HOSTILE],
        &["--shifts", HOSTILE],
        &["--prompt-ids", HOSTILE],
        &["certify", "--toward", HOSTILE],
        &["sweep", "--family", "shift", "--values", HOSTILE],
        &["bisect", "--family", "shift", "--from", HOSTILE, "--to", "1"],
        &["campaign", "--flips", HOSTILE],
    ] {
        plain_error(args);
    }
    for args in [
        &["--at-least", HOSTILE][..],
        &["probe", HOSTILE],
        &[HOSTILE],
        &["--bogus\u{1b}[2J"],
        &["--kl", HOSTILE],
        &["sweep", "--family", HOSTILE, "--values", "1"],
        &["--shard", HOSTILE],
        &["--format", HOSTILE],
        &["completions", HOSTILE],
        &["--max-tokens", HOSTILE],
    ] {
        let run = run(args).exits(2);
        plain(&run);
        assert!(run.stderr.starts_with("error: "), "{}", run.stderr);
    }
}

#[test]
fn unknown_keys_and_values_of_files_are_shown_and_do_nothing() {
    for (name, contents) in [
        ("p.jsonl", json!({"prompt": "x", HOSTILE: 1}).to_string()),
        ("p.jsonl", json!({"prompt": "x", "expected": HOSTILE}).to_string()),
    ] {
        let (_folder, file) = file(name, contents);
        plain_error(&["--prompts", &file]);
    }
    for recipe in [
        json!({"schema": 1, "recipe": [{"edit": HOSTILE}]}),
        json!({"schema": 1, "recipe": [], HOSTILE: 1}),
        json!({"schema": 1, "recipe": HOSTILE}),
    ] {
        let (_folder, file) = file("r.json", recipe.to_string());
        plain_error(&["replay", &file]);
    }
    let (_folder, values) = file("v.txt", HOSTILE.replace('\n', " "));
    plain_error(&["sweep", "--family", "shift", "--values", &format!("@{values}")]);
}

/// The records of a small run, with every text in them replaced.
fn hostile_records() -> Vec<Value> {
    let records = super::records_of(&["probe", "clean", "shift:1", "--max-tokens", "2", "--threshold", "9"]);
    records
        .into_iter()
        .map(|record| {
            let mut record = Value::Object(record);
            for key in [
                "model",
                "revision",
                "model_digest",
                "head_digest",
                "backend",
                "kernel",
                "prompt",
                "text",
                "edit",
                "family",
            ] {
                record[key] = HOSTILE.into();
            }
            record["shift"] = Value::Null;
            record["clean"]["text"] = HOSTILE.into();
            record["expected_texts"] = json!([HOSTILE]);
            for key in ["id", "command", "predicate", "machine", "version"] {
                record["run"][key] = HOSTILE.into();
            }
            record["run"]["model"]["model_type"] = HOSTILE.into();
            record["run"]["campaign"] = json!({"trials": 2, "half_width": null, "tensor": HOSTILE});
            record
        })
        .collect()
}

fn lines(records: &[Value]) -> String {
    records.iter().map(|record| format!("{record}\n")).collect()
}

#[test]
fn records_are_shown_and_do_nothing() {
    let records = hostile_records();
    let (_folder, run_a) = file("a.jsonl", lines(&records));
    let changed: Vec<Value> = records
        .iter()
        .map(|record| {
            let mut record = record.clone();
            record["text"] = format!("{HOSTILE}!").into();
            record["clean"]["text"] = format!("{HOSTILE}!").into();
            record["kernel"] = format!("{HOSTILE}!").into();
            record["verdict"] = "GONE".into();
            record
        })
        .collect();
    let (_folder, run_b) = file("b.jsonl", lines(&changed));
    let (_folder, other) = file("c.jsonl", lines(&records).replace("forged", "other"));
    for args in [
        &["report", &run_a][..],
        &["report", &run_a, &run_a, &run_b],
        &["compare", &run_a, &run_b],
        &["compare", &run_a, &other],
        &["relabel", &run_a],
        &["merge", &run_a, "--format", "text"],
        &["merge", &run_a, &run_b],
        &["merge", &run_a, &other],
        &["replay", &run_a],
    ] {
        let run = run(args);
        plain(&run);
        assert!(!run.stdout.is_empty() || !run.stderr.is_empty(), "{args:?}");
    }
    for command in ["map", "campaign", "bisect", "sweep"] {
        let of: Vec<Value> = records
            .iter()
            .map(|record| {
                let mut record = record.clone();
                record["run"]["command"] = command.into();
                record["value"] = 1.into();
                record["family"] = match command {
                    "map" => "digit:1",
                    "campaign" => "random:flips",
                    _ => "shift",
                }
                .into();
                record["run"]["predicate"] = "at-least DYING".into();
                record
            })
            .collect();
        let (_folder, stored) = file("d.jsonl", lines(&of));
        plain(&run(&["report", &stored]).exits(0));
    }
    for (key, value) in [("verdict", json!(HOSTILE)), ("finish", json!(HOSTILE)), ("tags", json!([HOSTILE]))] {
        let mut record = records[0].clone();
        record[key] = value;
        let (_folder, broken) = file("e.jsonl", format!("{record}\n"));
        for args in [&["report", &broken][..], &["relabel", &broken], &["compare", &broken, &broken]] {
            plain_error(args);
        }
    }
}

/// Replaces every text within a value that may be any.
fn hostile(value: &mut Value) {
    match value {
        Value::String(text) => *text = HOSTILE.to_owned(),
        Value::Array(list) => list.iter_mut().for_each(hostile),
        Value::Object(object) => {
            object.iter_mut().filter(|(key, _)| *key != "finish").for_each(|(_, value)| hostile(value))
        }
        _ => {}
    }
}

#[test]
fn certificates_are_shown_and_do_nothing() {
    let args = ["certify", "--max-tokens", "2", "--within", "word", "--silence-eos", "--toward", "text:4"];
    let mut object = run(&[&args[..], &["--format", "json", "--weakest", "3"]].concat()).exits(0).json();
    hostile(&mut object["answers"]);
    hostile(&mut object["model"]);
    hostile(&mut object["head_digest"]);
    object["refused"] = json!([{"prompt": HOSTILE, "error": HOSTILE}]);
    let (_folder, stored) = file("c.json", object.to_string());
    let run = run(&["report", &stored]).exits(0);
    plain(&run);
    assert!(run.stdout.contains("\\nheadroom: error: forged"), "{}", run.stdout);
}

/// JSON escapes what it must, and keeps the rest: whoever reads it gets the name as it is.
#[test]
fn json_stays_json() {
    let (_folder, stored) = file("a.jsonl", lines(&hostile_records()));
    let run = run(&["report", &stored, "--format", "json"]).exits(0);
    assert_eq!(run.json()["models"][0]["name"], HOSTILE);
}

#[cfg(target_os = "linux")]
#[test]
fn on_a_terminal_there_are_our_own_colors_and_no_other_sequences() {
    let (folder, stored) = file("a.jsonl", lines(&hostile_records()));
    let command = format!("TERM=xterm exec {} report {stored}", env!("CARGO_BIN_EXE_headroom"));
    let mut script = std::process::Command::new("script");
    script.args(["-qec", &command, "/dev/null"]).env_remove("NO_COLOR").stdin(std::process::Stdio::null());
    let Some(output) = script.output().ok().filter(|output| output.status.success()) else {
        lm_headroom::testing::skipped("escape sequences on a terminal", "there is no program `script` that makes one");
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let sequences: Vec<&str> = text.split('\u{1b}').skip(1).collect();
    assert!(sequences.len() > 4, "{text:?}");
    let own = |s: &&str| s.starts_with('[') && s[1..].trim_start_matches(|c: char| c.is_ascii_digit()).starts_with('m');
    assert!(sequences.iter().all(own), "{text:?}");
    assert!(!text.contains('\u{202e}') && !text.contains('\u{9b}') && !text.contains("\nheadroom: error:"), "{text:?}");
    drop(folder);
}

/// A run goes on whose terminal is gone, and a message that cannot be written takes nothing away.
#[cfg(target_os = "linux")]
#[test]
fn a_standard_error_that_cannot_be_written_ends_nothing() {
    let full = || fs::OpenOptions::new().write(true).open("/dev/full").expect("a device of Linux");
    let broken = || {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        writer
    };
    let args = ["probe", "clean", "shift:1", "--max-tokens", "2", "--format", "jsonl"];
    let expected = run(&args).exits(0).records().len();
    for to_pipe in [false, true] {
        for (args, code) in [
            (&args[..], 0),
            (&["--shifts", "", "--format", "jsonl"], 3),
            (&["--model", "/nowhere"], 2),
            (&["--bogus"], 2),
            (&["ladder", "--shifts", "0", "--format", "jsonl", "--max-tokens", "1"], 0),
        ] {
            let mut command = program(args);
            let command = if to_pipe { command.stderr(broken()) } else { command.stderr(full()) };
            let output = command.stdout(std::process::Stdio::piped()).output().expect("it starts");
            assert_eq!(output.status.code(), Some(code), "{args:?}");
            if args[0] == "probe" {
                assert_eq!(super::records(&String::from_utf8(output.stdout).expect("text")).len(), expected);
            }
        }
    }
}

/// Escapes in a message that a file's contents made do not double: what was plain stays as it was.
#[test]
fn what_is_seen_is_shown_as_it_is() {
    let (_folder, file) = file("p.jsonl", "{\"prompt\": \"x\", \"ключ 漢字 é\\\\ '\": 1}");
    let run = run(&["--prompts", &file]).exits(2);
    assert!(run.stderr.contains("`ключ 漢字 é\\ '`"), "{}", run.stderr);
}
