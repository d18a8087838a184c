//! What is wrong with the arguments and with the files that they name, said in one line.

use super::{Run, file, folder, path, run, speaking};
use lm_headroom::testing::fixture::Fixture;

/// An error of the program's own: exit code 2, nothing on stdout, one line on stderr that has every one of `mentions`.
#[track_caller]
pub(super) fn refused(args: &[&str], mentions: &[&str]) -> Run {
    let run = run(args).exits(2);
    assert_eq!(run.stdout, "", "`{}`", run.args);
    let message = run.stderr.strip_prefix("headroom: error: ").and_then(|rest| rest.strip_suffix('\n'));
    let Some(message) = message else { panic!("`{}` says {:?}", run.args, run.stderr) };
    assert!(!message.contains(|c: char| c.is_control()), "more than a line: {message:?}");
    assert!(!message.ends_with('.') && !message.contains("backtrace"), "{message:?}");
    for mention in mentions {
        assert!(message.contains(mention), "`{message}` does not mention `{mention}`");
    }
    run
}

/// An error of usage, found by the parser of arguments: what is wrong in the first line, then how to get help.
#[track_caller]
fn misused(args: &[&str], mentions: &[&str]) {
    let run = run(args).exits(2);
    assert_eq!(run.stdout, "", "`{}`", run.args);
    assert!(run.stderr.starts_with("error: "), "{}", run.stderr);
    assert!(run.stderr.ends_with("For more information, try '--help'.\n"), "{}", run.stderr);
    for mention in mentions {
        assert!(run.stderr.contains(mention), "`{}` does not mention `{mention}`", run.stderr);
    }
}

#[test]
fn a_shift_that_is_no_integer_of_64_bits_is_named() {
    for shift in ["x", "1.5", "1..5", "0x10", "9223372036854775808", "-9223372036854775809", "--1"] {
        refused(&["--shifts", &format!("0,{shift}")], &["--shifts", shift, "64 bits"]);
    }
}

#[test]
fn an_edit_that_does_not_parse_is_shown_with_the_place() {
    for (edit, place) in [
        ("shift:x", "position 6 (\"x\")"),
        ("shift:9223372036854775808", "position 6"),
        ("", "position 0 (the end)"),
        ("bogus", "position 0 (\"bogus\")"),
        ("flip:weight[0,0]", "position 16 (the end)"),
        ("clean+", "position 6 (the end)"),
        ("set:word[0,0]=0x100000000", "position"),
        ("random:rate=2,seed=1", "a probability"),
    ] {
        misused(&["probe", edit], &["<EDIT>", edit, place, "expected"]);
    }
}

#[test]
fn an_edit_beyond_the_head_is_refused_before_anything_is_run() {
    for (edit, mentions) in [
        ("flip:weight[1536,0].0", &["row 1536", "1536 (0 to 1535)"][..]),
        ("flip:weight[0,256].0", &["column 256", "0 to 255"]),
        ("flip:weight[0,0].4", &["bit 4", "0 to 3"]),
        ("flip:scales[0,4].0", &["group 4", "0 to 3"]),
        ("flip:biases[0,0].16", &["bit 16", "0 to 15"]),
        ("set:weight[0,0]=16", &["16 is no code of 4 bits"]),
        ("xor:word[0,32]=0x1", &["word 32", "0 to 31"]),
        ("random:flips=1572865,seed=1", &["1572865", "1572864 bits"]),
    ] {
        refused(&["probe", "shift:1", edit], &[&[edit], mentions].concat());
        refused(&["probe", "shift:1", &format!("clean+{edit}")], mentions);
    }
}

#[test]
fn prompt_ids_are_checked_against_the_vocabulary() {
    refused(&["--prompt-ids", "0,1536"], &["--prompt-ids", "token 1536", "position 1", "1536"]);
    refused(&["--prompt-ids", "4294967296"], &["--prompt-ids", "4294967296"]);
    for id in ["x", "-1", "1.0"] {
        refused(&[&format!("--prompt-ids=3,{id}")], &["--prompt-ids", id, "token id"]);
    }
    for empty in ["", ",", "  "] {
        refused(&["--prompt-ids", empty], &["--prompt-ids", "empty"]);
    }
}

#[test]
fn prompts_that_exclude_each_other_are_refused() {
    for other in [&["--prompt", "x"][..], &["--prompts", "x"], &["--system", "x"], &["--raw"]] {
        misused(
            &[&["ladder", "--prompt-ids", "1"], other].concat(),
            &["--prompt-ids", other[0], "cannot be used with"],
        );
    }
    misused(&["--system", "x", "--raw"], &["--system", "--raw"]);
    refused(&["--prompt", "", "--raw"], &["--prompt \"\"", "empty"]);
}

#[test]
fn a_prompts_file_is_named_with_the_line() {
    let (folder, missing) = file("here.txt", "");
    let missing = missing.replace("here", "there");
    refused(&["--prompts", &missing], &[&missing, "No such file"]);
    refused(&["--prompts", path(&folder)], &[path(&folder), "directory"]);
    for empty in ["", "\n \n\t\r\n"] {
        for name in ["empty.txt", "empty.jsonl"] {
            let (_folder, empty) = file(name, empty);
            refused(&["--prompts", &empty], &[&empty, "no prompt"]);
            // Nor is it passed over in silence beside another prompt.
            refused(&["--prompts", &empty, "--prompt", "Hello!"], &[&empty, "no prompt"]);
        }
    }
    let (_folder, binary) = file("binary.txt", b"one\n\xff\xfe\n");
    refused(&["--prompts", &binary], &[&binary, "UTF-8"]);
    for (line, mentions) in [
        (r#"{"prompt":"#, &["at column 10"][..]),
        (r#"{"expected": ["4"]}"#, &["`prompt`"]),
        (r#"{"prompt": 4}"#, &["a string"]),
        (r#"{"prompt": "x", "expected": "4"}"#, &["a sequence"]),
        (r#"{"prompt": "x", "answer": "4"}"#, &["`answer`"]),
        ("What is 2+2?", &["JSON"]),
    ] {
        let (_folder, broken) = file("broken.jsonl", format!("{{\"prompt\": \"a\"}}\n\n{line}\n"));
        let run = refused(&["--prompts", &broken], &[&[&broken, ", line 3: "], mentions].concat());
        assert!(!run.stderr.contains("line 1"), "two line numbers: {}", run.stderr);
    }
    let (_folder, raw) = file("raw.txt", "a\n");
    refused(
        &["--prompts", &raw, "--model", super::folder(&Fixture::default().files()).path().to_str().expect("Unicode")],
        &[&raw, "line 1", "tokenizer.json", "--prompt-ids"],
    );
}

#[test]
fn a_template_that_raises_fails_or_is_missing_is_told_with_the_prompt() {
    for (template, mentions) in [
        (Some("{{ raise_exception('roles must alternate') }}"), &["refuses", "roles must alternate"][..]),
        (Some("\n{% if %}"), &["chat template", "line 2"]),
        (Some("{{ nothing.at_all }}"), &["chat template", "line 1"]),
        (None, &["no chat template", "--raw"]),
    ] {
        let folder = folder(&speaking(template).files());
        refused(&["--model", path(&folder), "--prompt", "Hi"], &[&["--prompt \"Hi\""], mentions].concat());
        run(&["--model", path(&folder), "--prompt", "Hi", "--raw", "--max-tokens", "1"]).exits(0);
    }
    let mut files = speaking(None).files();
    files.insert("tokenizer.json".to_owned(), lm_headroom::checkpoint::Bytes::new("{".as_bytes()));
    refused(&["--model", path(&folder(&files)), "--raw"], &["tokenizer.json"]);
}

#[test]
fn the_kernel_and_the_backend_say_what_there_is() {
    refused(&["--kernel", "abacus"], &["--kernel", "\"abacus\"", "scalar"]);
    misused(&["--backend", "cuda"], &["cuda", "cpu, mlx"]);
    refused(&["--backend", "cpu", "--dtype", "native"], &["--dtype", "float32", "--backend mlx"]);
    misused(&["--dtype", "float8"], &["float8", "native, float32"]);
    if !cfg!(feature = "mlx") {
        for command in ["ladder", "verify", "inspect"] {
            refused(&[command, "--backend", "mlx"], &["without the MLX backend", "--backend cpu", "--features mlx"]);
        }
    }
}

#[test]
fn certificates_are_the_cpu_s_and_say_what_to_do() {
    refused(&["certify", "--backend", "mlx"], &["rounding bound", "--backend cpu", "replay FILE --backend mlx"]);
    refused(&["certify", "--dtype", "native"], &["--dtype"]);
}

#[test]
fn an_out_file_that_cannot_be_written_is_known_before_anything_is_run() {
    let (folder, inside) = file("file", "");
    let missing = format!("{}/none/records.jsonl", path(&folder));
    refused(&["--out", &missing], &["cannot write", &missing]);
    refused(&["--out", path(&folder)], &["cannot write", path(&folder)]);
    refused(&["probe", "clean", "--out", &format!("{inside}/records.jsonl")], &["cannot write", &inside]);
}

#[test]
fn bad_input_does_not_empty_the_records_of_an_earlier_run() {
    let (_folder, kept) = file("records.jsonl", "precious\n");
    for args in [
        &["ladder", "--model", "/nowhere"][..],
        &["ladder", "--prompt-ids", "99999"],
        &["ladder", "--shifts", "x"],
        &["probe", "flip:weight[99999,0].0"],
        &["probe", "clean", "--prompts", "/nowhere"],
    ] {
        refused(&[args, &["--out", &kept]].concat(), &[]);
        assert_eq!(std::fs::read_to_string(&kept).expect("a file"), "precious\n", "{args:?}");
    }
}

#[test]
fn records_are_never_written_over_a_file_of_the_model() {
    let folder = folder(&Fixture { shards: 2, ..Fixture::default() }.files());
    let shard = folder.path().join("model-00002-of-00002.safetensors");
    let before = std::fs::read(&shard).expect("a file");
    for out in ["model-00002-of-00002.safetensors", "./config.json", "../"] {
        let out = match out {
            "../" => format!(
                "{}/../{}/config.json",
                path(&folder),
                folder.path().file_name().expect("a name").to_string_lossy()
            ),
            name => format!("{}/{name}", path(&folder)),
        };
        for command in [&["ladder"][..], &["probe", "clean"]] {
            let args = ["--model", path(&folder), "--prompt-ids", "1", "--out", &out];
            refused(&[command, &args].concat(), &["--out", &out, "the model"]);
        }
    }
    assert_eq!(std::fs::read(&shard).expect("a file"), before);
    // Another file beside them is nobody's business.
    let beside = format!("{}/records.jsonl", path(&folder));
    run(&["--model", path(&folder), "--prompt-ids", "1", "--max-tokens", "1", "--out", &beside]).exits(0);
}

#[test]
fn options_before_a_command_are_not_passed_over_in_silence() {
    for args in [&["--model", "/nowhere", "verify"][..], &["--shifts", "0", "probe", "clean"], &["--raw", "inspect"]] {
        misused(args, &[args[0], "cannot be used with"]);
    }
}

#[test]
fn arguments_out_of_range_are_named() {
    misused(&["--at-least", "FINE"], &["--at-least", "\"FINE\"", "WOBBLING"]);
    for nats in ["-1", "nan", "x", ""] {
        misused(&[&format!("--kl={nats}")], &["--kl", "a number of nats"]);
    }
    // JSON has no infinity, so a journal with such a threshold could not be read again.
    for nats in ["inf", "-inf", "nan", "1e999", "-1", ""] {
        misused(&[&format!("--threshold={nats}")], &["--threshold", "a finite number of nats"]);
        misused(&["relabel", "x.jsonl", &format!("--threshold={nats}")], &["--threshold", "a finite number of nats"]);
    }
    misused(&["certify", "--collapse", "1", "--trials", "4294967295"], &["--trials", "0..=1000000"]);
    misused(&["--max-tokens", "0"], &["--max-tokens", "1..=1000000"]);
    misused(&["--threads", "0"], &["--threads", "1..=1024"]);
    misused(&["probe"], &["<EDIT>"]);
    misused(&["bogus"], &["bogus"]);
    misused(&["--format", "yaml"], &["yaml", "text, json, jsonl"]);
    misused(&["completions", "tcsh"], &["tcsh", "bash"]);
    misused(&["verify", "--seed", "-1"], &["-1"]);
}
