//! Folders that are no checkpoint, or a broken one: what is wrong, where, in one line.

use std::fs;

use lm_headroom::{
    checkpoint::{Bytes, config::Override},
    testing::fixture::{Fixture, FixtureTensor, files_of, raw_safetensors},
};
use serde_json::{Value, json};

use super::{Files, bad_input::refused, file, folder, path, run};

const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// What every command that opens a model says of a folder with `files`.
#[track_caller]
fn refused_files(files: &Files, mentions: &[&str]) {
    let folder = folder(files);
    let ladder = refused(&["--model", path(&folder), "--prompt-ids", "1"], mentions).stderr;
    assert!(ladder.contains(path(&folder)), "it does not name the folder: {ladder}");
    for command in ["inspect", "verify"] {
        assert_eq!(refused(&[command, "--model", path(&folder)], &[]).stderr, ladder);
    }
}

fn with(mut files: Files, name: &str, contents: impl Into<Vec<u8>>) -> Files {
    files.insert(name.to_owned(), Bytes::new(contents.into()));
    files
}

fn with_config(change: impl FnOnce(&mut Value)) -> Files {
    let fixture = Fixture::default();
    let mut config = fixture.config();
    change(&mut config);
    files_of(&config, &fixture.tensors(), 1)
}

fn with_tensors(change: impl FnOnce(&mut std::collections::BTreeMap<String, FixtureTensor>)) -> Files {
    let fixture = Fixture::default();
    let mut tensors = fixture.tensors();
    change(&mut tensors);
    files_of(&fixture.config(), &tensors, 1)
}

/// The default fixture with a changed header of its weights, whose data stay.
fn with_header(change: impl FnOnce(&mut String)) -> Files {
    let files = Fixture::default().files();
    let weights = files[WEIGHTS].to_vec();
    let length = u64::from_le_bytes(*weights.first_chunk().expect("a length")) as usize;
    let mut header = String::from_utf8(weights[8..8 + length].to_vec()).expect("text");
    change(&mut header);
    with(files, WEIGHTS, raw_safetensors(&header, &weights[8 + length..]))
}

/// The default fixture in two shards with a changed index.
fn with_index(change: impl FnOnce(&mut Value)) -> Files {
    let files = Fixture { shards: 2, ..Fixture::default() }.files();
    let mut index: Value = serde_json::from_slice(&files[INDEX]).expect("an index");
    change(&mut index);
    with(files, INDEX, index.to_string())
}

#[test]
fn the_fixture_that_these_tests_break_is_whole() {
    for files in [Fixture::default().files(), with_header(|_| {}), with_index(|_| {}), with_config(|_| {})] {
        let folder = folder(&files);
        super::run(&["--model", path(&folder), "--prompt-ids", "1", "--max-tokens", "1"]).exits(0);
    }
}

#[test]
fn what_is_no_checkpoint_at_all_is_said_with_what_to_give_instead() {
    refused(&["--model", "/nowhere/at-all"], &["/nowhere/at-all", "no folder"]);
    for name in ["", "nowhere", "./nowhere", "a/b/c", "org/name@", "org/not-downloaded"] {
        refused(&["--model", name], &[name]);
    }
    let (folder, plain) = file("plain.txt", "text");
    refused(&["--model", &plain], &[&plain, "is a file", "config.json"]);
    refused(&["--model", path(&folder)], &[path(&folder), "config.json", "mlx_lm.convert"]);
    let mut files = Fixture::default().files();
    files.remove(WEIGHTS);
    refused_files(&files, &["safetensors", "mlx_lm.convert"]);
    let named_pipe = super::folder(&Fixture::default().files());
    fs::remove_file(named_pipe.path().join(WEIGHTS)).expect("it is there");
    fs::create_dir(named_pipe.path().join(WEIGHTS)).expect("a folder");
    refused(&["--model", path(&named_pipe)], &[WEIGHTS, "not a regular file"]);
}

#[test]
fn a_truncated_file_is_told_with_the_tensor_that_is_cut() {
    let files = Fixture::default().files();
    let weights = files[WEIGHTS].to_vec();
    for (len, mentions) in [
        (0, &["0 bytes"][..]),
        (7, &["7 bytes"]),
        (100, &["header"]),
        (weights.len() / 2, &["ends within tensor `", "missing"]),
        (weights.len() - 1, &["ends within tensor `", "1 bytes are missing"]),
    ] {
        refused_files(&with(files.clone(), WEIGHTS, &weights[..len]), &[&[WEIGHTS], mentions].concat());
    }
    refused_files(&with(files.clone(), WEIGHTS, [&weights[..], b"x"].concat()), &[WEIGHTS, "1 bytes after"]);
    let config = files["config.json"].to_vec();
    refused_files(&with(files, "config.json", &config[..config.len() - 1]), &["config.json", "not valid JSON"]);
}

#[test]
fn a_header_of_2_to_the_60_bytes_is_refused_at_once() {
    let file = [&(1_u64 << 60).to_le_bytes()[..], b"{}"].concat();
    refused_files(&with(Fixture::default().files(), WEIGHTS, file), &[WEIGHTS, "1152921504606846976", "2 follow"]);
}

#[test]
fn overlapping_and_repeated_tensors_are_named() {
    let offsets = |header: &str, tensor: &str| {
        let entry: Value = serde_json::from_str::<Value>(header).expect("a header")[tensor].clone();
        entry["data_offsets"].to_string()
    };
    refused_files(
        &with_header(|header| {
            let [one, other] = ["lm_head.scales", "lm_head.biases"].map(|tensor| offsets(header, tensor));
            *header = header.replace(&one, &other);
        }),
        &["overlap", "lm_head."],
    );
    refused_files(
        &with_header(|header| {
            let entry: Value = serde_json::from_str::<Value>(header).expect("a header")["lm_head.scales"].clone();
            header.insert_str(1, &format!("\"lm_head.scales\":{entry},"));
        }),
        &["`lm_head.scales` twice", WEIGHTS],
    );
    let files = Fixture { shards: 2, ..Fixture::default() }.files();
    let second = files["model-00002-of-00002.safetensors"].to_vec();
    refused_files(&with(files, "model-00003.safetensors", second), &["both", "model-00003.safetensors", "tensor `"]);
}

#[test]
fn missing_unknown_and_mis_shaped_tensors_are_named() {
    refused_files(
        &with_tensors(|tensors| {
            tensors.remove("model.layers.1.mlp.up_proj.biases");
        }),
        &["model.layers.1.mlp.up_proj.biases", "missing"],
    );
    refused_files(
        &with_tensors(|tensors| {
            let norm = tensors["model.norm.weight"].clone();
            tensors.insert("model.layers.9.input_layernorm.weight".to_owned(), norm);
        }),
        &["model.layers.9.input_layernorm.weight", "unknown"],
    );
    refused_files(
        &with_tensors(|tensors| tensors.get_mut("lm_head.scales").expect("the head").shape.reverse()),
        &["lm_head.scales", "[2, 96]", "[96, 2]"],
    );
    // Another width of the model than its tensors have.
    refused_files(&with_config(|config| config["vocab_size"] = json!(95)), &["[96, 2]", "[95, 2]"]);
}

#[test]
fn what_an_index_says_otherwise_than_the_files_is_told_and_decides_nothing() {
    for elsewhere in ["../elsewhere", "/etc/passwd", "model-00009-of-00002.safetensors", "", "\u{1b}[2J\n"] {
        let folder = folder(&with_index(|index| index["weight_map"]["lm_head.scales"] = json!(elsewhere)));
        let args =
            ["probe", "clean", "--prompt-ids", "1", "--max-tokens", "1", "--threshold", "9", "--model", path(&folder)];
        let run = run(&args).exits(0);
        assert!(run.stderr.starts_with("headroom: model.safetensors.index.json names "), "{}", run.stderr);
        assert!(run.stderr.ends_with("the files decide\n") && run.stderr.lines().count() == 1, "{}", run.stderr);
    }
    let folder = folder(&with_config(|config| config["eos_token_id"] = json!([2, 49200])));
    let run = run(&["inspect", "--model", path(&folder)]).exits(0);
    assert!(run.stderr.contains("[49200]") && run.stderr.contains("left out"), "{}", run.stderr);
}

#[test]
fn quantizations_that_are_not_supported_are_told_with_what_is() {
    let files = with_config(|config| config["quantization"]["bits"] = json!(7));
    refused_files(&files, &["quantization.bits", "is 7,", "2, 3, 4, 5, 6 or 8 bits"]);
    let files = with_config(|config| config["quantization"]["group_size"] = json!(16));
    refused_files(&files, &["quantization.group_size", "16", "32, 64 and 128"]);
    let files = with_config(|config| config["quantization"]["mode"] = json!("mxfp5"));
    refused_files(&files, &["quantization.mode", "mxfp5", "affine", "nvfp4"]);
    let files = with_config(|config| {
        config.as_object_mut().expect("an object").remove("quantization");
    });
    refused_files(&files, &["quantization", "mlx_lm.convert -q"]);
}

#[test]
fn a_head_that_is_not_quantized_has_nothing_to_disturb() {
    for (tied, head) in [(Some(false), "lm_head"), (None, "model.embed_tokens")] {
        let overrides = [(head.to_owned(), Override::Dense)].into();
        let fixture = Fixture { tie_word_embeddings: tied, overrides, ..Fixture::default() };
        refused_files(&fixture.files(), &[head, "not quantized"]);
    }
}

#[test]
fn another_architecture_is_named_with_those_that_run() {
    refused_files(&with_config(|config| config["model_type"] = json!("falcon")), &["config.json", "falcon", "llama"]);
    let files = with_config(|config| {
        config.as_object_mut().expect("an object").remove("model_type");
    });
    refused_files(&files, &["config.json", "`model_type` is missing"]);
}
