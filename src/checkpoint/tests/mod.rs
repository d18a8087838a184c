//! Opening checkpoints: everything valid opens and says the right thing, and each rule that a
//! checkpoint can break is an error that names the place.

mod config;
mod experts;
mod folder;
mod headers;
mod hostile;
mod mixers;
mod real;
mod valid;
mod weights;

use std::collections::BTreeMap;

use crate::{
    checkpoint::{Bytes, Checkpoint, CheckpointError},
    testing::fixture::{Fixture, FixtureTensor, files_of},
};
use serde_json::Value;

type Files = BTreeMap<String, Bytes>;

#[track_caller]
fn opened(files: Files) -> Checkpoint {
    Checkpoint::from_files(files).unwrap_or_else(|error| panic!("it must open: {error}"))
}

/// The error of `files`; its message must mention every one of `mentions`.
#[track_caller]
fn refused(files: Files, mentions: &[&str]) -> CheckpointError {
    let error = Checkpoint::from_files(files).expect_err("it must not open");
    let message = error.to_string();
    for mention in mentions {
        assert!(message.contains(mention), "`{message}` does not mention `{mention}`");
    }
    assert!(!message.ends_with('.'), "`{message}` ends with a full stop");
    error
}

/// The default fixture with a changed `config.json`.
fn with_config(change: impl FnOnce(&mut Value)) -> Files {
    let fixture = Fixture::default();
    let mut config = fixture.config();
    change(&mut config);
    files_of(&config, &fixture.tensors(), 1)
}

/// `fixture` with changed tensors.
fn with_tensors(fixture: &Fixture, change: impl FnOnce(&mut BTreeMap<String, FixtureTensor>)) -> Files {
    let mut tensors = fixture.tensors();
    change(&mut tensors);
    files_of(&fixture.config(), &tensors, fixture.shards)
}

fn with_file(mut files: Files, name: &str, contents: impl Into<Vec<u8>>) -> Files {
    files.insert(name.to_owned(), Bytes::new(contents.into()));
    files
}
