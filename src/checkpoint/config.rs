//! `config.json` and `generation_config.json`: what a checkpoint says about itself, checked.
//!
//! `Config::parse` finds the [`Family`] of `model_type` and has `reader/` read the other keys by its rules. Defaults are those of
//! mlx-lm, and a key that holds `null` counts as absent, as Python's `None` does there. A value that is not supported is an error that
//! names its key. A key that mlx-lm does not read is not read here either, and where it asks for a computation it is an error, too;
//! `reader/asking.rs` says which keys do.

use std::collections::HashSet;

use serde_json::Value;

pub use super::quantization::Override;
pub(crate) use super::quantization::Quantization;

use super::{
    architecture::Architecture,
    config_error::ConfigError,
    family::{self, Family, Tied},
    json::{parse_object, shortened},
    keys::Keys,
    reader,
};

/// The checked configuration of a checkpoint. Each size is between 1 and 2^24.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// Whose rules the configuration was read by, and whose names the tensors have.
    pub family: &'static Family,
    /// What the model computes.
    pub(crate) architecture: Architecture,
    /// Longest context that the model was made for, if stated. Nothing depends on it here.
    pub max_position_embeddings: Option<usize>,
    /// How the weights are quantized.
    pub(crate) quantization: Quantization,
    /// Tokens that end an answer, in the order given, each below `vocab_size`. Empty where neither
    /// file names one. mlx-lm also ends at the tokenizer's own eos token, which is not in here.
    pub eos_token_ids: Vec<u32>,
    /// Ids of `eos_token_id` beyond the vocabulary, which no answer can end with.
    pub unused_eos: Vec<u64>,
}

impl Config {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// The first [`ConfigError`] met; each names its key.
    pub(crate) fn parse(config_json: &[u8]) -> Result<Self, ConfigError> {
        let map = parse_object(config_json)?;
        let keys = Keys::new(&map, "");
        let family = match keys.text("model_type")? {
            Some(found) => family_of(found, &keys)?,
            None => return Err(keys.missing("model_type")),
        };
        let text = match family.text {
            Some(text) => match keys.object(text.key)? {
                None if !text.optional => return Err(keys.missing(text.key)),
                found => found,
            },
            None => None,
        };
        let own = text.as_ref().unwrap_or(&keys);
        let architecture = reader::architecture(family, own, &keys)?;
        let mut config = Self {
            family,
            max_position_embeddings: own.size("max_position_embeddings")?,
            quantization: Quantization::parse(&keys)?,
            eos_token_ids: Vec::new(),
            unused_eos: Vec::new(),
            architecture,
        };
        if let Some(value) = keys.get("eos_token_id") {
            (config.eos_token_ids, config.unused_eos) = eos(&keys, value, config.architecture.vocab_size)?;
        }
        Ok(config)
    }

    /// Says whether the head is tied where only tensors can tell: it is where `has` finds none of a head's.
    pub(super) fn settle_head(&mut self, has: impl Fn(&str) -> bool) {
        if self.family.config.tied == Tied::WithoutHead {
            self.architecture.tied = !has(&format!("{}.weight", self.family.tensors.lm_head));
        }
    }

    /// Takes over `eos_token_id` from `generation_config.json`, as mlx-lm does: it wins over
    /// `config.json` unless it is absent, `null`, `0` or an empty list.
    ///
    /// # Errors
    /// [`ConfigError::Json`], [`ConfigError::Invalid`]. mlx-lm ignores a
    /// file that is not JSON; here that is an error, for it is most likely cut short.
    pub(crate) fn apply_generation_config(&mut self, generation_config_json: &[u8]) -> Result<(), ConfigError> {
        if let Some(ids) = generation_eos(generation_config_json, self.architecture.vocab_size)? {
            (self.eos_token_ids, self.unused_eos) = ids;
        }
        Ok(())
    }
}

/// Tokens that end an answer, and those that are named beyond the vocabulary.
pub(super) type EosIds = (Vec<u32>, Vec<u64>);

/// `eos_token_id` of `generation_config.json`, where it is to replace that of `config.json`; see [`eos`].
pub(super) fn generation_eos(generation_config_json: &[u8], vocab_size: usize) -> Result<Option<EosIds>, ConfigError> {
    let map = parse_object(generation_config_json)?;
    let keys = Keys::new(&map, "");
    let found = keys.get("eos_token_id").filter(|value| value.as_u64() != Some(0));
    let ids = found.map(|value| eos(&keys, value, vocab_size)).transpose()?;
    Ok(ids.filter(|(ids, unused)| !ids.is_empty() || !unused.is_empty()))
}

/// The family of a `model_type`, and of the one in the object that a family keeps its keys in.
fn family_of(model_type: &str, keys: &Keys<'_>) -> Result<&'static Family, ConfigError> {
    let inner = |key: &str| Some(keys.map.get(key)?.get("model_type")?.as_str()?.to_owned());
    family::of_model_type(model_type, inner).ok_or_else(|| ConfigError::ModelType(shortened(model_type)))
}

/// One id or a list of them, those beyond the vocabulary apart; a repeated one counts once.
pub(super) fn eos(keys: &Keys<'_>, value: &Value, vocab_size: usize) -> Result<EosIds, ConfigError> {
    let values = match value {
        Value::Array(values) => values.as_slice(),
        one => std::slice::from_ref(one),
    };
    let (mut ids, mut unused, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
    for value in values {
        let wanted = "a token id or a list of token ids";
        let id = value.as_u64().ok_or_else(|| keys.invalid("eos_token_id", wanted))?;
        if seen.insert(id) {
            match u32::try_from(id).ok().filter(|&id| (id as usize) < vocab_size) {
                Some(inside) => ids.push(inside),
                None => unused.push(id),
            }
        }
    }
    Ok((ids, unused))
}
