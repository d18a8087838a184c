//! All tensors of a checkpoint by name: one safetensors file, or several, with or without an index.
//!
//! Only headers are read. Data stay where they are, at any alignment: the views over them read
//! little-endian bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path},
};

use serde_json::Value;

use super::{
    TensorInfo,
    bytes::Bytes,
    folder::StoredFile,
    header::{self, HeaderError},
    json::{JsonError, parse_object, shortened},
};
pub(super) use safetensors::Dtype;

/// The index's name in a checkpoint.
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// What is wrong with the safetensors files or their index.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// A file breaks a rule of the format.
    #[error("{file} {error}")]
    Header {
        /// The file.
        file: String,
        /// The rule.
        error: HeaderError,
    },
    /// The index is not an object of JSON.
    #[error("{INDEX}: {0}")]
    IndexJson(#[from] JsonError),
    /// The index has no `weight_map` that gives each tensor the name of a file.
    #[error("{INDEX} has no `weight_map` that names a file for each of at least one tensor; `{key}` is wrong")]
    IndexMap {
        /// `weight_map`, or the tensor whose entry is not a name.
        key: String,
    },
    /// The index names something other than a file beside it.
    #[error("{INDEX} puts tensor `{tensor}` into `{file}`, which is not the plain name of a file in the checkpoint")]
    IndexPath {
        /// The tensor.
        tensor: String,
        /// What is named.
        file: String,
    },
    /// A file that the index names is not there.
    #[error("{INDEX} names {file}, which is not there; fetch the checkpoint again")]
    MissingShard {
        /// The file.
        file: String,
    },
    /// A file holds a tensor that the index puts into another.
    #[error("{file} holds tensor `{tensor}`, which {INDEX} puts into {indexed}")]
    Elsewhere {
        /// The tensor.
        tensor: String,
        /// The file that holds it.
        file: String,
        /// The file that the index names for it.
        indexed: String,
    },
    /// A file holds a tensor that the index does not list.
    #[error("{file} holds tensor `{tensor}`, which {INDEX} does not list")]
    Unlisted {
        /// The tensor.
        tensor: String,
        /// The file that holds it.
        file: String,
    },
    /// The index lists a tensor that its file does not hold.
    #[error("{INDEX} puts tensor `{tensor}` into {file}, which does not hold it; fetch that file again")]
    NotInShard {
        /// The tensor.
        tensor: String,
        /// The file.
        file: String,
    },
    /// Two files without an index hold a tensor of the same name.
    #[error("both {first} and {second} hold tensor `{tensor}`; remove the file that does not belong to the model")]
    InTwoShards {
        /// The tensor.
        tensor: String,
        /// One file.
        first: String,
        /// The other.
        second: String,
    },
}

/// A tensor as it is stored.
#[derive(Clone, Debug)]
pub(super) struct StoredTensor {
    pub(super) file: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<u64>,
    pub(super) bytes: Bytes,
}

impl StoredTensor {
    pub(super) fn info(&self, name: &str) -> TensorInfo {
        let dtype = match self.dtype {
            Dtype::U32 => "uint32".to_owned(),
            Dtype::F16 => "float16".to_owned(),
            Dtype::BF16 => "bfloat16".to_owned(),
            Dtype::F32 => "float32".to_owned(),
            other => other.to_string(),
        };
        TensorInfo { name: name.to_owned(), dtype, shape: self.shape.clone(), file: self.file.clone() }
    }
}

/// `model.safetensors.index.json`: the file of each tensor.
#[derive(Clone, Debug)]
pub(super) struct Index(BTreeMap<String, String>);

impl Index {
    /// Reads the index. Every name in it is the name of a file beside it, not a path.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, TensorError> {
        let mut map = parse_object(bytes)?;
        let weight_map = match map.remove("weight_map") {
            Some(Value::Object(weight_map)) if !weight_map.is_empty() => weight_map,
            _ => return Err(TensorError::IndexMap { key: "weight_map".to_owned() }),
        };
        let mut files = BTreeMap::new();
        for (tensor, file) in weight_map {
            let Value::String(file) = file else {
                return Err(TensorError::IndexMap { key: shortened(&tensor) });
            };
            if !is_plain_name(&file) {
                return Err(TensorError::IndexPath { tensor: shortened(&tensor), file: shortened(&file) });
            }
            files.insert(tensor, file);
        }
        Ok(Self(files))
    }

    /// The files named, each once, sorted.
    pub(super) fn files(&self) -> BTreeSet<&str> {
        self.0.values().map(String::as_str).collect()
    }
}

/// Whether `name` names a file in the folder it is looked up in, on any system: backslashes and
/// colons are separators on some, and control characters have no place in a message.
fn is_plain_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    let single =
        matches!((components.next(), components.next()), (Some(Component::Normal(part)), None) if part == name);
    single && !name.contains(['/', '\\', ':']) && !name.contains(char::is_control)
}

/// The names of the safetensors files that make up the model: those of the index, or else, as in
/// mlx-lm, every `model*.safetensors`.
pub(super) fn shard_names<'a>(index: Option<&'a Index>, listing: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
    match index {
        Some(index) => index.files(),
        None => listing.filter(|name| name.starts_with("model") && name.ends_with(".safetensors")).collect(),
    }
}

/// The tensors of `shards`, by name, held against the index.
pub(super) fn read(
    shards: &BTreeMap<String, StoredFile>,
    index: Option<&Index>,
) -> Result<BTreeMap<String, StoredTensor>, TensorError> {
    let mut tensors: BTreeMap<String, StoredTensor> = BTreeMap::new();
    for (file, stored) in shards {
        let entries = header::read(&stored.bytes).map_err(|error| TensorError::Header { file: file.clone(), error })?;
        for header::Entry { name, dtype, shape, range } in entries {
            if let Some(Index(listed)) = index {
                match listed.get(&name) {
                    Some(indexed) if indexed == file => {}
                    Some(indexed) => {
                        let (tensor, indexed) = (shortened(&name), indexed.clone());
                        return Err(TensorError::Elsewhere { tensor, file: file.clone(), indexed });
                    }
                    None => return Err(TensorError::Unlisted { tensor: shortened(&name), file: file.clone() }),
                }
            }
            if let Some(first) = tensors.get(&name) {
                let (first, second) = (first.file.clone(), file.clone());
                return Err(TensorError::InTwoShards { tensor: shortened(&name), first, second });
            }
            let bytes = stored.bytes.slice(range).expect("the header's ranges lie in the file");
            tensors.insert(name, StoredTensor { file: file.clone(), dtype, shape, bytes });
        }
    }
    if let Some(Index(listed)) = index
        && let Some((tensor, file)) = listed.iter().find(|(tensor, _)| !tensors.contains_key(*tensor))
    {
        return Err(TensorError::NotInShard { tensor: shortened(tensor), file: file.clone() });
    }
    Ok(tensors)
}
