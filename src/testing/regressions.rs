//! Counterexamples, kept as values.
//!
//! A seed finds its case again only as long as no generator changes; a value stays what it is. Each property has one
//! file, `tests/regressions/NAME.json` of the crate that is tested: a list of inputs, edits in their text form and
//! heads with their bytes, which every run replays first. A property that fails prints what belongs there.

use std::{fs, io::ErrorKind, path::PathBuf};

use serde::{Serialize, de::DeserializeOwned};

/// The file of a property.
pub(crate) fn path(name: &str) -> PathBuf {
    // Cargo and nextest name the crate that is tested.
    let crate_folder = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(PathBuf::new, PathBuf::from);
    crate_folder.join("tests/regressions").join(format!("{name}.json"))
}

/// The inputs that are stored for a property; none where it has no file.
///
/// # Panics
/// If the file cannot be read: a counterexample that is not replayed would be lost silently.
pub(crate) fn stored<C: DeserializeOwned>(name: &str) -> Vec<C> {
    let path = path(name);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Vec::new(),
        Err(error) => panic!("cannot read {}: {error}", path.display()),
    };
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// An input as it is stored.
///
/// # Panics
/// Never: inputs are plain values.
pub(crate) fn text<C: Serialize>(case: &C) -> String {
    serde_json::to_string(case).expect("a plain value")
}
