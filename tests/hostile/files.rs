//! Files that are too long, of the wrong kind, or made to cost much more than they are long.

use std::{fs, path::Path};

use lm_headroom::{
    checkpoint::Bytes,
    child::Program,
    testing::fixture::raw_safetensors,
    tokenizer::{Apart, Tokenizer, TokenizerFiles},
};
use serde_json::json;

use super::{Input, all_are_refused, tokenizer};

const GIB: u64 = 1 << 30;

#[test]
fn no_file_is_read_beyond_its_limit() {
    let names = [
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        // Part of the model, though nothing reads it.
        "chat_template.json",
        "model.safetensors.index.json",
    ];
    let mut inputs = Vec::new();
    for name in names {
        for len in [2 * GIB, 200 * GIB] {
            let input = Input::new(format!("{name} of {} GiB", len / GIB)).sparse(name, "{", len);
            inputs.push(input.says(&[name, "bytes that such a file may have"]));
        }
    }
    // With a command that has no use for the file.
    for name in ["tokenizer.json", "chat_template.jinja", "chat_template.json"] {
        let input =
            Input::new(format!("{name}, and prompts as ids")).sparse(name, "", 2 * GIB).says(&[name, "may have"]);
        inputs.push(input.args(&["ladder", "--model", "{folder}", "--prompt-ids", "1", "--threshold", "9"]));
    }
    let input = Input::new("weights of 2 GiB of zeros").sparse("model.safetensors", "", 2 * GIB);
    inputs.push(input.says(&["model.safetensors"]));
    let named = r#"{"weight_map": {"lm_head.weight": "weights.bin"}}"#;
    // The files are the model, whatever an index says of them.
    let input = Input::new("an index that names a file of 2 GiB of another kind").sparse("weights.bin", "", 2 * GIB);
    inputs.push(input.file("model.safetensors.index.json", named).may_run());
    all_are_refused(inputs);
}

/// Texts of JSON with short values, which a general tree of JSON makes sixty times as large.
fn short_values(what: &str, len: usize) -> Vec<u8> {
    let key = |i: usize, end: &str| format!(r#""{i:06x}{end}":"","#);
    let inner: String = match what {
        "a list" => "0,".repeat(len / 2),
        "lists" => "[],".repeat(len / 3),
        "keys" => (0..len / 12).map(|i| key(i, "")).collect(),
        "tokens" => (0..len / 18).map(|i| key(i, "_token")).collect(),
        _ => r#"{"name":""},"#.repeat(len / 12),
    };
    match what {
        "keys" | "tokens" => format!(r#"{{{inner}"x":0}}"#),
        "templates" => format!(r#"{{"chat_template": [{inner}0]}}"#),
        _ => format!(r#"{{"a": [{inner}0]}}"#),
    }
    .into_bytes()
}

#[test]
fn memory_is_a_small_multiple_of_what_is_read() {
    const CONFIG: &str = "tokenizer_config.json";
    let mut inputs = Vec::new();
    for what in ["a list", "lists", "keys", "templates"] {
        let input = Input::new(format!("{CONFIG} with 15 MB of {what}"));
        inputs.push(input.large(CONFIG, move || short_values(what, 15_000_000)).may_run());
    }
    let input = Input::new(format!("{CONFIG} with 15 MB of special tokens"));
    inputs.push(input.large(CONFIG, || short_values("tokens", 15_000_000)).says(&[CONFIG, "1000 keys"]));
    let input = Input::new(format!("{CONFIG} of 21 MB"));
    inputs.push(input.large(CONFIG, || short_values("a list", 21_000_000)).says(&[CONFIG, "may have"]));
    for name in ["config.json", "generation_config.json", CONFIG, "tokenizer.json"] {
        let deep = || format!(r#"{{"chat_template": {}"#, "[".repeat(1 << 20)).into_bytes();
        inputs.push(Input::new(format!("{name} nested a million times")).large(name, deep).says(&[name]));
    }
    for what in ["a list", "lists", "keys"] {
        for (name, key) in [("config.json", "model_type"), ("model.safetensors.index.json", "weight_map")] {
            let input = Input::new(format!("{name} with 2 MB of {what}"));
            let input = input.large(name, move || short_values(what, 2_000_000)).says(&[name, key]);
            inputs.push(if name == "config.json" { input } else { input.may_run() });
        }
    }
    all_are_refused(inputs);
}

#[test]
fn a_header_costs_a_small_multiple_of_its_length() {
    fn header(count: usize, name: impl Fn(usize) -> String) -> Vec<u8> {
        let mut header = String::with_capacity(100_000_000);
        for i in 0..count {
            let comma = if i == 0 { "{" } else { "," };
            header += &format!(r#"{comma}"{}":{{"dtype":"U8","shape":[],"data_offsets":[{i},{}]}}"#, name(i), i + 1);
        }
        header.push('}');
        raw_safetensors(&header, &vec![0; count])
    }
    let weights = |name: &str, mention, make: fn() -> Vec<u8>| {
        Input::new(format!("a header {name}")).large("model.safetensors", make).says(&[mention])
    };
    all_are_refused(vec![
        // As many tensors as may be, of a kind that a model may have besides its own.
        weights("of 95 MB with as many tensors as may be", "is missing", || {
            header(262_144, |i| format!("{i:0280x}.rotary_emb.inv_freq"))
        }),
        weights("of 98 MB with too many tensors", "262144", || header(1_500_000, |i| format!("{i:x}"))),
        weights("of 99 MB of spaces", "is missing", || {
            raw_safetensors(&format!("{{{}}}", " ".repeat(99_000_000)), &[])
        }),
        weights("with a name of 99 MB", "model.safetensors", || {
            raw_safetensors(&format!(r#"{{"{}":0}}"#, "x".repeat(99_000_000)), &[])
        }),
        weights("with 98 MB of metadata", "is missing", || {
            raw_safetensors(&format!(r#"{{"__metadata__":[{}0]}}"#, "0,".repeat(49_000_000)), &[])
        }),
    ]);
}

/// A child reads `tokenizer.json` while the checkpoint is opened, and what counts is what the checkpoint was opened with.
#[test]
fn a_file_that_was_read_ahead_counts_only_if_it_is_the_one_that_was_opened() {
    let program = Program::at(env!("CARGO_BIN_EXE_headroom"));
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tokenizer.json");
    let (one, other) = (tokenizer(|_| {}), tokenizer(|json| json["normalizer"] = json!({"type": "Lowercase"})));
    let ids = |folder: &Path, opened: &[u8]| {
        let child = Apart::start_in(&program, folder).expect("a child");
        let files = TokenizerFiles { tokenizer: Some(Bytes::new(opened.to_vec())), ..TokenizerFiles::default() };
        Tokenizer::apart(child, files).and_then(|tokenizer| tokenizer.encode_raw("What Is"))
    };
    let here = |opened: &[u8]| {
        let files = TokenizerFiles { tokenizer: Some(Bytes::new(opened.to_vec())), ..TokenizerFiles::default() };
        Tokenizer::from_files(files).expect("a tokenizer").encode_raw("What Is").expect("ids")
    };
    assert_ne!(here(&one), here(&other));
    // There is none; the one that was opened; another; half of it; no text.
    assert_eq!(ids(folder.path(), &one).expect("ids"), here(&one));
    for written in [&one, &other, &one[..one.len() / 2].to_vec(), &vec![0xff; 64]] {
        fs::write(&path, written).expect("written");
        for opened in [&one, &other] {
            assert_eq!(ids(folder.path(), opened).expect("ids"), here(opened));
        }
        let error = ids(folder.path(), b"{").expect_err("it is no tokenizer").to_string();
        assert!(error.starts_with("tokenizer.json: "), "{error}");
    }
    // A path that is no text, and a file that only seems to be long, are not read ahead.
    #[cfg(target_os = "linux")]
    {
        let strange = folder.path().join::<&std::ffi::OsStr>(std::os::unix::ffi::OsStrExt::from_bytes(b"\xff"));
        fs::create_dir(&strange).expect("a folder");
        fs::write(strange.join("tokenizer.json"), &one).expect("written");
        assert_eq!(ids(&strange, &other).expect("ids"), here(&other));
    }
    fs::File::options().write(true).open(&path).expect("the file").set_len(1 << 40).expect("a length");
    assert_eq!(ids(folder.path(), &other).expect("ids"), here(&other));
}
