//! Rules of the folder, its safetensors files and their index.

use std::{fs, path::Path};

use lm_headroom::{
    checkpoint::{Checkpoint, CheckpointError, Source, TensorError},
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
        assert_eq!(mapped.weights().norm.values, memory.weights().norm.values);
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
fn the_index_decides_which_files_make_up_the_model() {
    let stray = safetensors_file(&Fixture { seed: 1, ..Fixture::default() }.tensors());
    let checkpoint = opened(with_file(sharded().files(), "model.safetensors", stray));
    assert!(checkpoint.tensors().iter().all(|tensor| SHARDS.contains(&tensor.file.as_str())));
    assert!(checkpoint.file("model.safetensors").is_none());
}

#[test]
fn two_shards_without_an_index_may_not_hold_the_same_tensor() {
    let mut files = sharded().files();
    files.remove(INDEX);
    let again = files[SHARDS[0]].to_vec();
    let files = with_file(files, "model-extra.safetensors", again);
    let error = tensor_error(files, &[SHARDS[0], "model-extra.safetensors"]);
    assert!(matches!(error, TensorError::InTwoShards { .. }));
}

#[test]
fn an_index_that_names_a_path_is_refused_before_it_is_touched() {
    let outside = tempfile::tempdir().unwrap();
    write(&sharded().files(), outside.path());
    let inside = outside.path().join("inside");
    fs::create_dir(&inside).unwrap();
    let absolute = outside.path().join(SHARDS[0]).to_str().unwrap().to_owned();
    let elsewhere = format!("../{}", SHARDS[0]);
    let names = [
        &absolute,
        &elsewhere,
        "../elsewhere",
        "..",
        ".",
        "",
        "/",
        "sub/model.safetensors",
        "./model.safetensors",
        "model.safetensors/",
        "..\\elsewhere",
        "C:model.safetensors",
        "a\0b",
        "a\u{1b}b",
    ];
    for name in names {
        let files = reindexed("lm_head.weight", Some(name));
        let error = tensor_error(files.clone(), &["lm_head.weight"]);
        assert!(matches!(error, TensorError::IndexPath { .. }), "{name:?}: {error}");
        write(&files, &inside);
        let error = Checkpoint::open(&inside).unwrap_err();
        assert!(matches!(error, CheckpointError::Tensors(TensorError::IndexPath { .. })), "{name:?}: {error}");
    }
}

#[test]
fn an_index_that_names_a_file_which_is_not_there_is_refused() {
    let error =
        tensor_error(reindexed("lm_head.weight", Some("model-00003.safetensors")), &["model-00003.safetensors"]);
    assert_eq!(error, TensorError::MissingShard { file: "model-00003.safetensors".to_owned() });
}

#[test]
fn an_index_and_its_files_agree_on_every_tensor() {
    let files = sharded().files();
    let index: serde_json::Value = serde_json::from_slice(&files[INDEX]).unwrap();
    let right = index["weight_map"]["lm_head.weight"].as_str().unwrap();
    let wrong = SHARDS.into_iter().find(|&shard| shard != right).unwrap();

    let error = tensor_error(reindexed("lm_head.weight", Some(wrong)), &["lm_head.weight", right, wrong]);
    assert!(matches!(error, TensorError::Elsewhere { .. }));
    let error = tensor_error(reindexed("lm_head.weight", None), &["lm_head.weight", right]);
    assert!(matches!(error, TensorError::Unlisted { .. }));
    let error = tensor_error(reindexed("nothing.weight", Some(right)), &["nothing.weight", right]);
    assert!(matches!(error, TensorError::NotInShard { .. }));
}

#[test]
fn an_index_without_a_weight_map_is_refused() {
    for text in ["{}", r#"{"weight_map": {}}"#, r#"{"weight_map": []}"#, r#"{"weight_map": {"a": 3}}"#] {
        let error = tensor_error(with_file(sharded().files(), INDEX, text), &[INDEX]);
        assert!(matches!(error, TensorError::IndexMap { .. }), "{text}");
    }
    for text in ["", "{", r#"{"weight_map": {"a": "b", "a": "c"}}"#] {
        let error = tensor_error(with_file(sharded().files(), INDEX, text), &[INDEX]);
        assert!(matches!(error, TensorError::IndexJson(_)), "{text}");
    }
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
