//! Rules of the folder, its safetensors files and their index.

use std::{fs, path::Path};

use crate::{
    checkpoint::{Checkpoint, CheckpointError, Mistaken, Source, TensorError, WeightsError},
    testing::fixture::{Fixture, safetensors_file},
};
use serde_json::json;

use super::{Files, opened, refused, with_file};

const INDEX: &str = "model.safetensors.index.json";
const SHARDS: [&str; 2] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];

fn sharded() -> Fixture {
    Fixture { shards: 2, ..Fixture::default() }
}

fn write(files: &Files, folder: &Path) {
    for (name, bytes) in files {
        fs::write(folder.join(name), bytes.as_slice()).unwrap();
    }
}

/// The sharded fixture with `tensor` put into `file` by the index; removed from it with `None`.
fn reindexed(tensor: &str, file: Option<&str>) -> Files {
    let files = sharded().files();
    let mut index: serde_json::Value = serde_json::from_slice(&files[INDEX]).unwrap();
    let map = index["weight_map"].as_object_mut().unwrap();
    match file {
        Some(file) => map.insert(tensor.to_owned(), json!(file)),
        None => map.remove(tensor),
    };
    with_file(files, INDEX, index.to_string())
}

#[track_caller]
fn tensor_error(files: Files, mentions: &[&str]) -> TensorError {
    match refused(files, mentions) {
        CheckpointError::Tensors(error) => error,
        other => panic!("another error: {other}"),
    }
}

#[test]
fn no_such_folder_is_an_error_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let error = Checkpoint::open(&folder.path().join("nothing")).unwrap_err();
    assert!(matches!(error, CheckpointError::NoSuchFolder { .. }), "{error}");
}

#[test]
fn a_file_is_not_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.gguf");
    fs::write(&file, "GGUF").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = Checkpoint::open(&path).unwrap_err();
        assert!(matches!(error, CheckpointError::NotAFolder { .. }), "{error}");
    }
}

#[test]
fn a_folder_without_a_config_is_no_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = Fixture::default().files();
    files.remove("config.json");
    write(&files, folder.path());
    let error = Checkpoint::open(folder.path()).unwrap_err();
    assert!(matches!(error, CheckpointError::NoConfig { .. }), "{error}");
    assert!(error.to_string().contains(folder.path().to_str().unwrap()), "{error}");
}

#[test]
fn a_folder_without_safetensors_has_no_weights() {
    let folder = tempfile::tempdir().unwrap();
    let files = Fixture::default().files();
    fs::write(folder.path().join("config.json"), files["config.json"].as_slice()).unwrap();
    // Neither name is one that mlx-lm looks for.
    fs::write(folder.path().join("consolidated.safetensors"), files["model.safetensors"].as_slice()).unwrap();
    fs::write(folder.path().join("pytorch_model.bin"), "").unwrap();
    let error = Checkpoint::open(folder.path()).unwrap_err();
    assert!(matches!(error, CheckpointError::NoWeights { .. }), "{error}");
}

#[test]
fn a_folder_in_the_place_of_a_file_is_an_error() {
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        let folder = tempfile::tempdir().unwrap();
        write(&Fixture::default().files(), folder.path());
        let _ = fs::remove_file(folder.path().join(name));
        fs::create_dir(folder.path().join(name)).unwrap();
        let error = Checkpoint::open(folder.path()).unwrap_err();
        assert!(matches!(&error, CheckpointError::Io { path, .. } if path.ends_with(name)), "{error}");
    }
}

#[test]
fn a_folder_and_the_same_files_in_memory_give_the_same_model() {
    for shards in [1, 3] {
        let fixture = Fixture { shards, ..Fixture::default() };
        let folder = tempfile::tempdir().unwrap();
        write(&fixture.files(), folder.path());
        let (mapped, memory) = (Checkpoint::open(folder.path()).unwrap(), opened(fixture.files()));
        assert_eq!(mapped.config(), memory.config());
        assert_eq!(mapped.tensors(), memory.tensors());
        assert_eq!((mapped.source(), memory.source()), (&Source::Folder(folder.path().to_owned()), &Source::Memory));
        let (a, b) = (mapped.weights().head(), memory.weights().head());
        assert_eq!((a.view().weight(), a.view().scales()), (b.view().weight(), b.view().scales()));
        let norm =
            |checkpoint: &Checkpoint| checkpoint.weights().norm.weight.as_ref().map(|weight| weight.values.clone());
        assert_eq!(norm(&mapped), norm(&memory));
    }
}

#[test]
fn a_mapped_part_says_where_it_lies_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    write(&sharded().files(), folder.path());
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    for (_, part) in checkpoint.weights().head().parts() {
        let origin = part.origin().expect("it is mapped");
        let file = fs::read(&origin.path).unwrap();
        assert_eq!(&file[origin.offset as usize..][..origin.len], part.as_slice());
    }
    assert!(opened(sharded().files()).weights().head().parts().all(|(_, part)| part.origin().is_none()));
}

#[cfg(unix)]
#[test]
fn files_that_are_links_open_as_in_the_hub_cache() {
    let (blobs, snapshot) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (i, (name, bytes)) in sharded().files().iter().enumerate() {
        let blob = blobs.path().join(format!("{i:x}"));
        fs::write(&blob, bytes.as_slice()).unwrap();
        std::os::unix::fs::symlink(&blob, snapshot.path().join(name)).unwrap();
    }
    Checkpoint::open(snapshot.path()).unwrap();
}

#[test]
fn a_mapped_file_cut_short_before_opening_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    write(&Fixture::default().files(), folder.path());
    let path = folder.path().join("model.safetensors");
    let whole = fs::metadata(&path).unwrap().len();
    for len in [whole - 1, whole / 2, 100, 8, 7, 0] {
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(len).unwrap();
        let error = Checkpoint::open(folder.path()).unwrap_err();
        assert!(matches!(error, CheckpointError::Tensors(TensorError::Header { .. })), "{len} bytes: {error}");
    }
}

#[test]
fn shards_without_an_index_are_all_read() {
    let mut files = sharded().files();
    files.remove(INDEX);
    opened(files);
}

#[test]
fn two_shards_may_not_hold_the_same_tensor() {
    let files = sharded().files();
    let again = files[SHARDS[0]].to_vec();
    let files = with_file(files, "model-extra.safetensors", again);
    let error = tensor_error(files, &[SHARDS[0], "model-extra.safetensors"]);
    assert!(matches!(error, TensorError::InTwoShards { .. }));
}

/// What a checkpoint that opens says of its index.
#[track_caller]
fn note(files: Files) -> String {
    let checkpoint = opened(files);
    let [note] = checkpoint.notes() else { panic!("one note: {:?}", checkpoint.notes()) };
    assert!(note.contains(INDEX) && note.ends_with("the files decide"), "{note}");
    note.clone()
}

#[test]
fn the_files_are_the_model_whatever_an_index_says() {
    assert!(opened(sharded().files()).notes().is_empty());
    // Left over from the model that was converted.
    let mut files = Fixture::default().files();
    files.insert(INDEX.to_owned(), sharded().files()[INDEX].clone());
    assert!(note(files).contains(SHARDS[0]));
    // Written by a tool that lists some of the tensors only.
    let files = sharded().files();
    let index: serde_json::Value = serde_json::from_slice(&files[INDEX]).unwrap();
    let mut some = index.clone();
    some["weight_map"].as_object_mut().unwrap().retain(|name, _| name.ends_with(".weight"));
    assert!(note(with_file(files, INDEX, some.to_string())).contains("does not list"));
    let right = index["weight_map"]["lm_head.weight"].as_str().unwrap();
    let wrong = SHARDS.into_iter().find(|&shard| shard != right).unwrap();
    for (files, mentions) in [
        (reindexed("lm_head.weight", Some(wrong)), &["lm_head.weight", right, wrong][..]),
        (reindexed("lm_head.weight", None), &["lm_head.weight", right]),
        (reindexed("nothing.weight", Some(right)), &["nothing.weight", "no file holds"]),
        (reindexed("lm_head.weight", Some("model-00003.safetensors")), &["model-00003.safetensors", "not there"]),
    ] {
        let note = note(files);
        assert!(mentions.iter().all(|mention| note.contains(mention)), "{note}");
    }
    for text in ["{}", r#"{"weight_map": {}}"#, r#"{"weight_map": []}"#, r#"{"weight_map": {"a": 3}}"#, "", "{"] {
        note(with_file(sharded().files(), INDEX, text));
    }
}

#[test]
fn no_file_is_looked_for_that_an_index_alone_names() {
    let outside = tempfile::tempdir().unwrap();
    write(&sharded().files(), outside.path());
    let inside = outside.path().join("inside");
    fs::create_dir(&inside).unwrap();
    let absolute = outside.path().join(SHARDS[0]).to_str().unwrap().to_owned();
    let elsewhere = format!("../{}", SHARDS[0]);
    for name in [&absolute, &elsewhere, "..", "", "/", "sub/model.safetensors", "..\\elsewhere", "a\0b", "a\u{1b}b"] {
        let files = reindexed("lm_head.weight", Some(name));
        write(&files, &inside);
        let checkpoint = Checkpoint::open(&inside).unwrap();
        assert!(checkpoint.tensors().iter().all(|tensor| SHARDS.contains(&&*tensor.file)), "{name:?}");
        assert!(!checkpoint.notes()[0].contains(char::is_control), "{name:?}");
    }
}

#[test]
fn a_shard_that_is_missing_is_named_by_its_index() {
    for gone in SHARDS {
        let mut files = sharded().files();
        files.remove(gone);
        let error = refused(files, &[gone, "not there", "fetch the checkpoint again"]);
        assert!(matches!(error, CheckpointError::Incomplete { .. }), "{error}");
    }
}

#[test]
fn a_pointer_of_git_lfs_and_a_web_page_are_named() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
    for name in
        ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", INDEX]
    {
        let error =
            refused(with_file(Fixture::default().files(), name, pointer), &[name, "Git LFS pointer", "git lfs pull"]);
        assert!(matches!(error, CheckpointError::Mistaken { what: Mistaken::LfsPointer, .. }), "{error}");
        for page in ["<!DOCTYPE html>\n<html>", "\u{feff}\n <HTML lang=en>", "<?xml version=\"1.0\"?><Error>"] {
            let error = refused(with_file(Fixture::default().files(), name, page), &[name, "web page"]);
            assert!(matches!(error, CheckpointError::Mistaken { what: Mistaken::WebPage, .. }), "{error}");
        }
    }
}

#[cfg(unix)]
#[test]
fn a_link_to_nothing_is_not_taken_for_a_file_that_is_not_meant_to_be() {
    for name in ["config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja", INDEX] {
        let folder = tempfile::tempdir().unwrap();
        write(&Fixture::default().files(), folder.path());
        let _ = fs::remove_file(folder.path().join(name));
        std::os::unix::fs::symlink("../../blobs/gone", folder.path().join(name)).unwrap();
        let error = Checkpoint::open(folder.path()).unwrap_err();
        assert!(matches!(&error, CheckpointError::Io { path, .. } if path.ends_with(name)), "{error}");
        assert!(error.to_string().contains("a link to ../../blobs/gone"), "{error}");
    }
}

#[test]
fn a_head_that_is_missing_says_which_key_ties_it() {
    let mut tensors = Fixture::default().tensors();
    tensors.retain(|name, _| !name.starts_with("lm_head."));
    let files = with_file(Fixture::default().files(), "model.safetensors", safetensors_file(&tensors));
    let error = refused(files, &["lm_head.weight", "`tie_word_embeddings` must be true"]);
    assert!(matches!(error, CheckpointError::Weights(WeightsError::NoHead { .. })), "{error}");
}

#[test]
fn files_of_the_model_are_handed_out_and_others_are_not() {
    let fixture = Fixture::default();
    let files = with_file(with_file(fixture.files(), "tokenizer.json", "{}"), "README.md", "hello");
    let checkpoint = opened(files);
    assert_eq!(checkpoint.file("tokenizer.json").unwrap().as_slice(), b"{}");
    assert_eq!(checkpoint.file("config.json").unwrap().as_slice(), fixture.config().to_string().as_bytes());
    for absent in ["README.md", "chat_template.jinja", "../config.json", ""] {
        assert!(checkpoint.file(absent).is_none(), "{absent}");
    }
}
