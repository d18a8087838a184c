//! What can be asked, in all its forms.

use std::{io::Write, process::Stdio};

use serde_json::{Value, json};

use super::{Object, bad_input::refused, file, finished, folder, path, program, records_of, run, speaking, unsigned};
use lm_headroom::testing::fixture::Fixture;

fn texts<'a>(records: &'a [Object], key: &str) -> Vec<&'a str> {
    records.iter().map(|record| record[key].as_str().expect("a text")).collect()
}

/// Records of the clean model.
fn clean(args: &[&str]) -> Vec<Object> {
    records_of(&[&["probe", "clean", "--max-tokens", "2"], args].concat())
}

#[test]
fn prompts_are_asked_in_the_order_given_those_of_the_file_last() {
    let (_folder, file) = file("prompts.txt", "\n  Thank you! \r\n\t\n\nWhat is 2+2?");
    let records = clean(&["--prompt", "Good morning!", "--prompts", &file, "--prompt", "Hello!"]);
    assert_eq!(texts(&records, "prompt"), ["Good morning!", "Hello!", "  Thank you! ", "What is 2+2?"]);
    let trials: Vec<&Value> = records.iter().map(|record| &record["trial"]).collect();
    assert_eq!(trials, [0, 1, 2, 3]);
    // Each answer is that of the prompt asked alone.
    for record in &records {
        let alone = &clean(&["--prompt", record["prompt"].as_str().expect("a text")])[0];
        assert_eq!(super::without(alone, &["trial", "run"]), super::without(record, &["trial", "run"]));
    }
}

#[test]
fn every_prompt_is_run_with_every_edit() {
    let records = records_of(&["probe", "clean", "shift:1", "--prompt", "Hello!", "--prompt", "Hello!"]);
    let pairs: Vec<(&str, u64)> = texts(&records, "edit")
        .into_iter()
        .zip(records.iter().map(|r| r["trial"].as_u64().expect("a number")))
        .collect();
    assert_eq!(pairs, [("clean", 0), ("shift:1", 1), ("clean", 2), ("shift:1", 3)]);
}

#[test]
fn answers_of_a_jsonl_file_are_right_wrong_or_not_judged() {
    let lines = [
        r#"{"prompt": "What is 2+2?", "expected": ["nothing of the kind", "IS 4."]}"#,
        "",
        r#"{"prompt": "What is 2+2?", "expected": ["is 5."]}"#,
        r#"{"prompt": "What is 2+2?"}"#,
        r#"{"expected": [], "prompt": "What is 2+2?"}"#,
    ]
    .join("\n");
    let (_folder, file) = file("suite.JSONL", lines);
    let records = records_of(&["probe", "clean", "--prompts", &file]);
    let expected: Vec<&Value> = records.iter().map(|record| &record["expected"]).collect();
    assert_eq!(expected, [&json!("right"), &json!("wrong"), &Value::Null, &Value::Null]);
    // Coherent to its end, and not what was expected.
    let tags: Vec<&Value> = records.iter().map(|record| &record["tags"]).collect();
    assert_eq!(tags, [&json!([]), &json!(["WRONG_BUT_FLUENT"]), &json!([]), &json!([])]);
    let text = run(&["probe", "clean", "--prompts", &file]).exits(0).stdout;
    assert!(text.contains("[right]") && text.contains("[WRONG_BUT_FLUENT, wrong]"), "{text}");
}

#[test]
fn the_chat_template_the_system_message_and_raw_make_the_ids() {
    let ids = |args: &[&str]| unsigned(&clean(args)[0]["prompt_ids"]);
    let raw = ids(&["--raw"]);
    let chat = ids(&[]);
    assert_eq!(chat[1..chat.len() - 2], raw);
    let system = ids(&["--system", "Hello!"]);
    assert!(system.ends_with(&chat) && system.len() > chat.len(), "{system:?}");
    let hello = ids(&["--raw", "--prompt", "Hello!"]);
    assert_eq!(system[1..=hello.len()], hello);
    // A prompts file goes through the template, too.
    let (_folder, file) = file("prompts.txt", "What is 2+2?\n");
    assert_eq!(ids(&["--prompts", &file]), chat);
    assert_eq!(ids(&["--prompts", &file, "--raw"]), raw);
}

#[test]
fn a_prompt_as_ids_gives_the_answer_of_its_text() {
    let text = &records_of(&["--shifts", "1000003"])[0];
    let ids: Vec<String> = unsigned(&text["prompt_ids"]).iter().map(u32::to_string).collect();
    for list in [ids.join(","), ids.join(" , ") + ","] {
        let given = &records_of(&["--shifts", "1000003", "--prompt-ids", &list])[0];
        let same = |record: &Object| super::without(record, &["prompt", "documented", "tags", "run"]);
        assert_eq!(same(given), same(text));
        assert_eq!(given["prompt"], json!("<|user|>What is 2+2?<|end|><|assistant|>"));
        assert_eq!((&text["documented"], &given["documented"]), (&json!("DYING"), &Value::Null));
    }
}

#[test]
fn a_checkpoint_without_a_tokenizer_is_asked_with_ids() {
    let folder = folder(&Fixture::default().files());
    let record = &records_of(&["--model", path(&folder), "--prompt-ids", "95,5,7", "--shifts", "0"])[0];
    assert_eq!((&record["prompt"], &record["text"]), (&json!(""), &json!("")));
    assert_eq!(unsigned(&record["prompt_ids"]), [95, 5, 7]);
    assert!(!unsigned(&record["tokens"]).is_empty());
    assert_eq!(record["model"], json!(path(&folder)));
}

#[test]
fn a_checkpoint_with_a_tokenizer_is_asked_with_text() {
    let template = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}{% endfor %}";
    let folder = folder(&speaking(Some(template)).files());
    let record = &clean(&["--model", path(&folder), "--prompt", "!#", "--system", "a"])[0];
    let id = |c: u8| u32::from(c - b'!');
    assert_eq!(unsigned(&record["prompt_ids"]), b"s:au:!#".map(id));
    let raw = &clean(&["--model", path(&folder), "--prompt", "!# ", "--raw"])[0];
    assert_eq!(unsigned(&raw["prompt_ids"]), [0, 2, 94]);
}

#[test]
fn the_mark_of_utf_8_belongs_to_no_prompt() {
    for (name, contents) in [
        ("p.txt", "\u{feff}What is 2+2?\n"),
        ("p.jsonl", "\u{feff}{\"prompt\": \"What is 2+2?\"}\n"),
        ("p.ndjson", "\u{feff}{\"prompt\": \"What is 2+2?\"}\n"),
        ("p.json", "\u{feff}[{\"prompt\": \"What is 2+2?\"}]"),
        ("p.JSON", "[\"What is 2+2?\"]"),
    ] {
        let (_folder, file) = file(name, contents);
        let marked = &records_of(&["probe", "shift:0", "--max-tokens", "2", "--prompts", &file])[0];
        let plain = &records_of(&["probe", "shift:0", "--max-tokens", "2"])[0];
        assert_eq!(super::without(marked, &[]), super::without(plain, &[]), "{name}");
    }
    let (_folder, values) = file("v.txt", "\u{feff}1,2\n");
    let args = ["sweep", "--family", "shift", "--max-tokens", "1", "--values", &format!("@{values}")];
    assert_eq!(records_of(&args).len(), 2);
    let (_folder, recipe) = file("r.json", "\u{feff}{\"schema\":1,\"recipe\":[{\"edit\":\"shift:1\"}]}");
    assert_eq!(records_of(&["replay", &recipe, "--max-tokens", "1"]).len(), 1);
}

#[test]
fn a_list_in_json_is_read_as_one_and_other_kinds_of_files_are_refused_by_name() {
    let list = r#"["Hello!", {"prompt": "What is 2+2?", "expected": ["is 4."]},
        {"prompt": "two\nlines"}]"#;
    let (_folder, stored) = file("p.json", list);
    let records = records_of(&["probe", "clean", "--prompts", &stored]);
    assert_eq!(texts(&records, "prompt"), ["Hello!", "What is 2+2?", "two\nlines"]);
    assert_eq!(records[1]["expected"], "right");
    for (contents, mentions) in [
        ("{\"prompt\": \"x\"}", &["not a list of prompts"][..]),
        ("What is 2+2?", &["not a list of prompts", "line 1"]),
        ("[\"x\", {\"prompts\": \"x\"}]", &["entry 2", "`prompts`"]),
        ("[\"x\", 3]", &["entry 2"]),
        ("[]", &["no prompt"]),
    ] {
        let (_folder, broken) = file("p.json", contents);
        refused(&["--prompts", &broken], &[&[broken.as_str()], mentions].concat());
    }
    for kind in ["csv", "YAML", "tsv", "parquet", "gz"] {
        let (_folder, other) = file(&format!("p.{kind}"), "What is 2+2?\n");
        refused(&["--prompts", &other], &[&other, &kind.to_lowercase(), ".jsonl"]);
    }
    let (_folder, wide) = file("p.txt", b"\xff\xfeW\0h\0a\0t\0");
    refused(&["--prompts", &wide], &[&wide, "UTF-16", "UTF-8"]);
}

#[test]
fn prompts_come_from_standard_input() {
    let given = |text: &str| {
        let args = ["probe", "clean", "--max-tokens", "2", "--format", "jsonl", "--prompts", "-"];
        let mut child = program(&args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it reads");
        finished(&args, child.wait_with_output().expect("it ends"))
    };
    for text in [
        "Hello!\nWhat is 2+2?\n",
        "\u{feff}Hello!\r\n\r\nWhat is 2+2?",
        "{\"prompt\": \"Hello!\"}\n{\"prompt\": \"What is 2+2?\"}\n",
        "[\"Hello!\", {\"prompt\": \"What is 2+2?\"}]",
    ] {
        let records = given(text).exits(0).records();
        assert_eq!(texts(&records, "prompt"), ["Hello!", "What is 2+2?"], "{text}");
    }
    assert!(given("").exits(2).stderr.contains("holds no prompt"));
    assert!(given("{\"prompt\": 3}\n").exits(2).stderr.contains("standard input, line 1"));
}

#[test]
fn a_prompt_may_begin_with_a_hyphen() {
    for prompt in ["-5 plus 3 is?", "-", "--help me", "\u{2d}-"] {
        let records = clean(&["--prompt", prompt]);
        assert_eq!(texts(&records, "prompt"), [prompt]);
    }
    let with_system = clean(&["--system", "- be brief", "--prompt", "-1?"]);
    assert_eq!(texts(&with_system, "prompt"), ["-1?"]);
    assert_ne!(with_system[0]["prompt_ids"], clean(&["--prompt", "-1?"])[0]["prompt_ids"]);
}
