//! Any bytes as a checkpoint: an error or a model, never a panic. The property is law 9 of `tests/laws.rs`.

use crate::{
    checkpoint::{Bytes, Checkpoint, family::NATIVE},
    testing::oracles::{Reached, checkpoint as oracle},
};
use proptest::{prelude::*, sample::Index, test_runner::TestRunner};

#[test]
fn the_checkpoints_that_are_damaged_open_before_that() {
    let mut reached = Reached::default();
    for files in oracle::valid() {
        oracle::any_files(files.clone(), &mut reached).unwrap_or_else(|violation| panic!("{violation}"));
    }
    assert_eq!(reached.count("model"), 2 * NATIVE.len() as u64, "{reached}");
}

#[test]
fn any_bytes_as_any_file_give_an_error() {
    let strategy = (any::<Index>(), prop::collection::vec(any::<u8>(), 0..200));
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() });
    let valid = &oracle::valid()[0];
    let names: Vec<String> = valid.keys().cloned().collect();
    let run = runner.run(&strategy, |(name, bytes)| {
        let mut files = valid.clone();
        let name = name.get(&names).clone();
        files.insert(name.clone(), Bytes::new(bytes));
        // An index decides nothing.
        let needed = !name.ends_with(".index.json");
        prop_assert_eq!(Checkpoint::from_files(files).is_err(), needed);
        Ok(())
    });
    run.unwrap();
}
