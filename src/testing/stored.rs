//! Texts that tests hold against files, so that a change of many outcomes is seen as a difference of a file.

use std::{env, fs, path::Path};

/// Holds a text against a file of `tests/fixtures`, or writes it there where the environment has `variable`.
///
/// # Panics
/// If they differ, with the first line that does; if the file cannot be read or written.
pub(crate) fn as_stored(file: &str, text: &str, variable: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(file);
    if env::var_os(variable).is_some() {
        fs::write(&path, text).expect("the file can be written");
    }
    let stored = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    for (then, now) in stored.lines().zip(text.lines()) {
        assert_eq!(then, now, "was, is");
    }
    assert_eq!(stored.len(), text.len());
}
