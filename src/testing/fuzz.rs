//! Between a fuzzer's bytes and the oracles: the glue of the targets, and the same bytes once more without a fuzzer.

use std::{fs, path::Path};

use arbitrary::Unstructured;

use super::{
    oracles::{Case, Reached},
    regressions,
};

/// The input that a fuzz target makes of `bytes`.
///
/// # Panics
/// It never panics, since all bytes are a value.
pub fn decoded<C: Case>(bytes: &[u8]) -> C {
    C::arbitrary_take_rest(Unstructured::new(bytes)).expect("all bytes are a value")
}

/// Holds the law of `case` against it.
///
/// # Panics
/// If it does not hold, with the input as it is stored.
pub fn hold<C: Case>(case: &C) {
    count(case, &mut Reached::default());
}

fn count<C: Case>(case: &C, reached: &mut Reached) {
    if let Err(violation) = case.check(reached) {
        let path = regressions::path(C::NAME);
        panic!("{violation}\nKeep it in {}:\n{}", path.display(), regressions::text(case));
    }
}

/// Replays every file in `folder`; their number and what they reached. A folder that is not there holds none.
///
/// # Panics
/// If a file cannot be read, or its law does not hold.
pub fn replay<C: Case>(folder: &Path) -> (usize, Reached) {
    let (mut files, mut reached) = (0, Reached::default());
    let Ok(entries) = fs::read_dir(folder) else { return (files, reached) };
    for entry in entries {
        let path = entry.unwrap_or_else(|error| panic!("{}: {error}", folder.display())).path();
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        count(&decoded::<C>(&bytes), &mut reached);
        files += 1;
    }
    (files, reached)
}
