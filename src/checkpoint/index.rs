//! `model.safetensors.index.json`, which says what tensors there are and in which files.
//!
//! mlx-lm never reads it: all `model*.safetensors` are the checkpoint. It is often left over from the model that was
//! converted. So it decides nothing here either; what it says otherwise than the files is told to whoever opens them, and
//! where a tensor is missing it may say why.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    json::{JsonError, parse_object, shortened},
    tensors::StoredTensor,
};

/// The index's name in a checkpoint.
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// What an index says otherwise than the files.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// The index is not an object of JSON.
    #[error("{INDEX}: {0}")]
    Json(#[from] JsonError),
    /// The index has no `weight_map` that gives each tensor the name of a file.
    #[error("{INDEX} has no `weight_map` that names a file for each of at least one tensor; `{key}` is wrong")]
    Map {
        /// `weight_map`, or the tensor whose entry is not a name.
        key: String,
    },
    /// The index names a file that is not there.
    #[error("{INDEX} names {file}, which is not there")]
    NoFile {
        /// The file, shortened.
        file: String,
    },
    /// A file holds a tensor that the index puts into another.
    #[error("{INDEX} puts tensor `{tensor}` into {indexed}, and {file} holds it")]
    Elsewhere {
        /// The tensor.
        tensor: String,
        /// The file that holds it.
        file: String,
        /// The file that the index names for it.
        indexed: String,
    },
    /// A file holds a tensor that the index does not list.
    #[error("{INDEX} does not list tensor `{tensor}`, which {file} holds")]
    Unlisted {
        /// The tensor.
        tensor: String,
        /// The file that holds it.
        file: String,
    },
    /// The index lists a tensor that no file holds.
    #[error("{INDEX} lists tensor `{tensor}`, which no file holds")]
    NoTensor {
        /// The tensor.
        tensor: String,
    },
}

/// Holds an index against the tensors that there are, each with its file.
///
/// # Errors
/// The first difference, files that are missing before tensors.
pub(super) fn check(index: &[u8], tensors: &BTreeMap<String, StoredTensor>) -> Result<(), IndexError> {
    let mut map = parse_object(index)?;
    let listed = match map.remove("weight_map") {
        Some(Value::Object(listed)) if !listed.is_empty() => listed,
        _ => return Err(IndexError::Map { key: "weight_map".to_owned() }),
    };
    let mut named = BTreeMap::new();
    for (tensor, file) in &listed {
        let file = file.as_str().ok_or_else(|| IndexError::Map { key: shortened(tensor) })?;
        named.insert(tensor.as_str(), file);
    }
    let there: BTreeSet<&str> = tensors.values().map(|tensor| &*tensor.file).collect();
    if let Some(file) = named.values().find(|&file| !there.contains(file)) {
        return Err(IndexError::NoFile { file: shortened(file) });
    }
    for (name, StoredTensor { file, .. }) in tensors {
        let tensor = || shortened(name);
        match named.remove(name.as_str()) {
            Some(indexed) if *indexed == **file => {}
            Some(indexed) => {
                let (file, indexed) = (file.to_string(), shortened(indexed));
                return Err(IndexError::Elsewhere { tensor: tensor(), file, indexed });
            }
            None => return Err(IndexError::Unlisted { tensor: tensor(), file: file.to_string() }),
        }
    }
    match named.keys().next() {
        Some(tensor) => Err(IndexError::NoTensor { tensor: shortened(tensor) }),
        None => Ok(()),
    }
}
