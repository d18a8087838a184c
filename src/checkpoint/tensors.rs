//! All tensors of a checkpoint by name: one safetensors file, or several.
//!
//! Only headers are read. Data stay where they are, at any alignment: the views over them read
//! little-endian bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    TensorInfo,
    bytes::Bytes,
    folder::StoredFile,
    header::{self, HeaderError},
    json::shortened,
};
pub(super) use safetensors::Dtype;

/// More tensors than any checkpoint has, so that their number alone does not fill the memory.
pub(super) const MOST_TENSORS: usize = 1 << 18;

/// What is wrong with the safetensors files.
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
    /// There are more tensors than any model has.
    #[error("{file} and the files before it hold more than {MOST_TENSORS} tensors; no model has so many")]
    Many {
        /// The file with the first that is too many.
        file: String,
    },
    /// Two files hold a tensor of the same name.
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
    /// The name of its file, which all tensors of the file share.
    pub(super) file: Arc<str>,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<u64>,
    pub(super) bytes: Bytes,
}

impl StoredTensor {
    pub(super) fn info(&self, name: &str) -> TensorInfo {
        let dtype = match self.dtype {
            Dtype::U32 => "uint32".to_owned(),
            Dtype::U8 => "uint8".to_owned(),
            Dtype::F16 => "float16".to_owned(),
            Dtype::BF16 => "bfloat16".to_owned(),
            Dtype::F32 => "float32".to_owned(),
            other => other.to_string(),
        };
        TensorInfo { name: name.to_owned(), dtype, shape: self.shape.clone(), file: Arc::clone(&self.file) }
    }
}

/// The names of the safetensors files that make up the model: as in mlx-lm, every `model*.safetensors`.
pub(super) fn shard_names<'a>(listing: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
    listing.filter(|name| name.starts_with("model") && name.ends_with(".safetensors")).collect()
}

/// The tensors of `shards`, by name.
pub(super) fn read(shards: &BTreeMap<String, StoredFile>) -> Result<BTreeMap<String, StoredTensor>, TensorError> {
    let mut tensors: BTreeMap<String, StoredTensor> = BTreeMap::new();
    for (file, stored) in shards {
        let entries = header::read(&stored.bytes).map_err(|error| TensorError::Header { file: file.clone(), error })?;
        if tensors.len() + entries.len() > MOST_TENSORS {
            return Err(TensorError::Many { file: file.clone() });
        }
        let name_of_file: Arc<str> = file.as_str().into();
        for header::Entry { name, dtype, shape, range } in entries {
            if let Some(first) = tensors.get(&name) {
                let (first, second) = (first.file.to_string(), file.clone());
                return Err(TensorError::InTwoShards { tensor: shortened(&name), first, second });
            }
            let bytes = stored.bytes.slice(range).expect("the header's ranges lie in the file");
            tensors.insert(name, StoredTensor { file: Arc::clone(&name_of_file), dtype, shape, bytes });
        }
    }
    Ok(tensors)
}
