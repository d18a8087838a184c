//! Results of strangers that become much more in memory than they are on disk, and lists that cost more than they are long.

use std::process::Command;

use tempfile::TempDir;

use super::{Input, all_are_refused, write_honest};

const MIB: usize = 1 << 20;

/// A journal of one trial.
fn journal() -> String {
    let folder = TempDir::new().expect("a folder");
    write_honest(folder.path());
    let mut command = Command::new(env!("CARGO_BIN_EXE_headroom"));
    command.args(["ladder", "--shifts", "0", "--max-tokens", "1", "--threshold", "9", "--format", "jsonl", "--model"]);
    let output = command.arg(folder.path()).output().expect("the program starts");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// It with so many more items in one of its lists.
fn with(journal: &str, list: &str, item: &str, count: usize) -> Vec<u8> {
    let key = format!("\"{list}\":[");
    let (before, after) = journal.split_once(&key).expect("the list");
    let comma = if after.starts_with(']') { "" } else { "," };
    let items = vec![item; count].join(",");
    format!("{before}{key}{items}{comma}{after}").into_bytes()
}

/// What each command that reads results makes of a file.
fn commands(
    name: &str,
    says: &'static str,
    file: &'static str,
    make: impl Fn() -> Vec<u8> + Clone + Send + 'static,
) -> Vec<Input> {
    let path = format!("{{folder}}/{file}");
    let command = |args: &[&str]| {
        let input = Input::new(format!("{} of {name}", args[0])).large(file, make.clone()).args(args);
        if says.is_empty() { input.may_run() } else { input.says(&[says]) }
    };
    vec![
        command(&["report", &path]),
        command(&["compare", &path, &path]),
        command(&["relabel", &path]),
        command(&["merge", "--allow-missing", &path]),
        command(&["replay", "--model", "{folder}", "--max-tokens", "1", &path]),
    ]
}

#[test]
fn a_line_takes_a_bounded_multiple_of_its_length() {
    let journal = journal();
    let mut inputs = Vec::new();
    for (list, item) in [("expected_texts", "\"\""), ("surprise", "0"), ("tokens", "0"), ("prompt_ids", "0")] {
        for (count, says) in [(12 * MIB, "more values"), (2 * MIB, "")] {
            let journal = journal.clone();
            let make = move || with(&journal, list, item, count);
            inputs.extend(commands(&format!("{count} items of {list}"), says, "run.jsonl", make));
        }
    }
    let long = move || with(&journal, "expected_texts", &format!("{:?}", "a".repeat(65 * MIB)), 1);
    inputs.extend(commands("a line of 65 MiB", "longer than 64 MiB", "run.jsonl", long));
    all_are_refused(inputs);
}

#[test]
fn an_object_is_read_up_to_a_limit() {
    let object =
        || format!("{{\"command\":\"ladder\",\"schema\":1,\"records\":[\n{}", " ".repeat(70 * MIB)).into_bytes();
    all_are_refused(vec![
        Input::new("report of an object of 70 MiB")
            .large("run.json", object)
            .args(&["report", "{folder}/run.json"])
            .says(&["64 MiB"]),
    ]);
}

#[test]
fn blank_lines_that_were_compressed_are_bounded() {
    // Frames that hold nothing do not buy more: some padding, then blocks of one byte that is repeated.
    let bomb = || {
        let mut bytes = [&0x184d_2a50_u32.to_le_bytes()[..], &(1_u32 << 20).to_le_bytes()].concat();
        bytes.resize(bytes.len() + MIB, 0);
        bytes.extend(b"\x28\xb5\x2f\xfd\x00\x38");
        (0..8_000).for_each(|_| bytes.extend([0x02, 0x00, 0x10, b'\n']));
        bytes.extend([0x03, 0x00, 0x10, b'\n']);
        bytes
    };
    let mut inputs = commands("a gigabyte of blank lines", "", "run.jsonl.zst", bomb);
    // What has no line is an object to `report`.
    inputs.iter_mut().skip(1).for_each(|input| input.says.push("250 times"));
    all_are_refused(inputs);
}

#[test]
fn long_lists_of_ids_and_many_prompts_cost_what_they_are() {
    let ids = || {
        format!("{{\"eos_token_id\":[{}]}}", (0..290_000).map(|id| id.to_string()).collect::<Vec<_>>().join(","))
            .into_bytes()
    };
    let prompts = |name: &str| {
        [
            "ladder",
            "--model",
            "{folder}",
            "--shifts",
            "0",
            "--raw",
            "--max-tokens",
            "1",
            "--threshold",
            "9",
            "--prompts",
        ]
        .map(str::to_owned)
        .into_iter()
        .chain([format!("{{folder}}/{name}")])
        .collect::<Vec<_>>()
    };
    let asked = |name: &str, input: Input| {
        let args = prompts(name);
        input.args(&args.iter().map(String::as_str).collect::<Vec<_>>())
    };
    all_are_refused(vec![
        Input::new("290,000 ids that end an answer").large("generation_config.json", ids).may_run(),
        asked("many.txt", Input::new("three million prompts").large("many.txt", || b"a\n".repeat(3_000_000)))
            .says(&["1000000 prompts"]),
        asked(
            "many.json",
            Input::new("a list of ten million")
                .large("many.json", || [&b"["[..], &b"\"\",".repeat(10_000_000), b"\"\"]"].concat()),
        )
        .says(&["values"]),
        asked("long.txt", Input::new("129 MiB of prompts").sparse("long.txt", "", 129 << 20))
            .says(&["bytes that are read"]),
    ]);
}
