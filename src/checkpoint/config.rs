//! `config.json` and `generation_config.json`: what a checkpoint says about itself, checked.
//!
//! [`Config::parse`] finds the [`Family`] of `model_type` and reads the other keys by its rules. Defaults are those of mlx-lm, and a
//! key that holds `null` counts as absent, as Python's `None` does there. A value that is not supported is an error that names its
//! key; a key that mlx-lm does not read is not read here either.

use serde_json::Value;

pub use super::quantization::{Override, Quantization};
use super::{
    architecture::{Activation, Architecture, Attention, Layer, Layers, Mlp, Norm, Rope, RopeScaling},
    config_error::ConfigError,
    family::{self, Family},
    json::{parse_object, shortened},
    keys::{Keys, LARGEST},
};

/// The checked configuration of a checkpoint. Each size is between 1 and 2^24.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// Whose rules the configuration was read by, and whose names the tensors have.
    pub family: &'static Family,
    /// What the model computes.
    pub architecture: Architecture,
    /// Longest context that the model was made for, if stated. Nothing depends on it here.
    pub max_position_embeddings: Option<usize>,
    /// How the weights are quantized.
    pub quantization: Quantization,
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
    pub fn parse(config_json: &[u8]) -> Result<Self, ConfigError> {
        let map = parse_object(config_json)?;
        let keys = Keys::new(&map, "");
        let family = match keys.text("model_type")? {
            Some(found) => family::of_model_type(found).ok_or_else(|| ConfigError::ModelType(shortened(found)))?,
            None => return Err(keys.missing("model_type")),
        };
        let reader = Reader { keys: &keys, family };
        let architecture = reader.architecture()?;
        let mut config = Self {
            family,
            max_position_embeddings: keys.size("max_position_embeddings")?,
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

    /// Takes over `eos_token_id` from `generation_config.json`, as mlx-lm does: it wins over
    /// `config.json` unless it is absent, `null`, `0` or an empty list.
    ///
    /// # Errors
    /// [`ConfigError::Json`], [`ConfigError::Invalid`]. mlx-lm ignores a
    /// file that is not JSON; here that is an error, for it is most likely cut short.
    pub fn apply_generation_config(&mut self, generation_config_json: &[u8]) -> Result<(), ConfigError> {
        if let Some(ids) = generation_eos(generation_config_json, self.architecture.vocab_size)? {
            (self.eos_token_ids, self.unused_eos) = ids;
        }
        Ok(())
    }
}

/// `eos_token_id` of `generation_config.json`, where it is to replace that of `config.json`; see [`eos`].
pub(super) fn generation_eos(
    generation_config_json: &[u8],
    vocab_size: usize,
) -> Result<Option<(Vec<u32>, Vec<u64>)>, ConfigError> {
    let map = parse_object(generation_config_json)?;
    let keys = Keys::new(&map, "");
    let found = keys.get("eos_token_id").filter(|value| value.as_u64() != Some(0));
    let ids = found.map(|value| eos(&keys, value, vocab_size)).transpose()?;
    Ok(ids.filter(|(ids, unused)| !ids.is_empty() || !unused.is_empty()))
}

/// Reads what a model computes, by the rules of its family.
struct Reader<'a> {
    keys: &'a Keys<'a>,
    family: &'static Family,
}

impl Reader<'_> {
    fn architecture(&self) -> Result<Architecture, ConfigError> {
        let keys = self.keys;
        let activation = self.activation()?;
        if keys.flag("rope_traditional")? == Some(true) {
            return Err(ConfigError::RopeTraditional);
        }
        let hidden_size = keys.required_size("hidden_size")?;
        let heads = keys.required_size("num_attention_heads")?;
        let kv_heads = keys.size("num_key_value_heads")?.unwrap_or(heads);
        if !heads.is_multiple_of(kv_heads) {
            return Err(ConfigError::Heads { heads, kv_heads });
        }
        let head_dim = match keys.size("head_dim")? {
            Some(head_dim) => head_dim,
            None if hidden_size.is_multiple_of(heads) => hidden_size / heads,
            None => return Err(ConfigError::HeadDim { hidden_size, heads }),
        };
        if !head_dim.is_multiple_of(2) {
            return Err(ConfigError::OddHeadDim(head_dim));
        }
        if heads as u64 * head_dim as u64 > LARGEST {
            return Err(keys.invalid("head_dim", "such that all heads together have at most 2^24 columns"));
        }
        let num_hidden_layers = keys.required_size("num_hidden_layers")?;
        check_layer_types(keys, num_hidden_layers)?;
        let rope = self.rope()?;
        let intermediate_size = keys.required_size("intermediate_size")?;
        let vocab_size = keys.required_size("vocab_size")?;
        let eps = keys.number("rms_norm_eps")?.ok_or_else(|| keys.missing("rms_norm_eps"))?;
        let norm = Norm::Rms { eps: eps as f32 };
        let tied = self.tied()?;
        let attention_bias = keys.flag("attention_bias")?.unwrap_or(false);
        let mlp_bias = keys.flag("mlp_bias")?.unwrap_or(false);

        let attention = Attention { heads, kv_heads, head_dim, rope, qkv_bias: attention_bias, o_bias: attention_bias };
        let mlp = Mlp { intermediate_size, activation, bias: mlp_bias };
        let layer = Layer { attention_norm: norm, attention, mlp_norm: norm, mlp };
        Ok(Architecture { vocab_size, hidden_size, layers: Layers::alike(layer, num_hidden_layers), norm, tied })
    }

    fn activation(&self) -> Result<Activation, ConfigError> {
        match self.keys.text("hidden_act")? {
            None | Some("silu") => Ok(Activation::Silu),
            Some(other) => Err(ConfigError::HiddenAct(shortened(other))),
        }
    }

    /// An absent key is what the family makes of it, but `null` would be false in mlx-lm: too easily meant otherwise.
    fn tied(&self) -> Result<bool, ConfigError> {
        match self.keys.get_or_null("tie_word_embeddings") {
            None => Ok(self.family.config.tied),
            Some(Value::Bool(tied)) => Ok(*tied),
            Some(_) => Err(self.keys.invalid("tie_word_embeddings", "true or false")),
        }
    }

    /// `rope_theta` and `rope_scaling`, or `rope_parameters`, in which newer transformers keep both.
    fn rope(&self) -> Result<Rope, ConfigError> {
        let (keys, default) = (self.keys, self.family.config.rope_theta);
        let theta = keys.number("rope_theta")?;
        let scaling = keys.object("rope_scaling")?.map(|keys| self.rope_scaling(&keys)).transpose()?;
        let Some(newer) = keys.object("rope_parameters")? else {
            let theta = theta.unwrap_or(default);
            return Ok(Rope { theta, scaling: scaling.unwrap_or(RopeScaling::Default) });
        };
        if newer.get("partial_rotary_factor").is_some_and(|factor| factor.as_f64() != Some(1.0)) {
            return Err(newer.invalid("partial_rotary_factor", "absent or 1: headroom turns whole heads"));
        }
        if let Some((kind, _)) = newer.map.iter().find(|(_, value)| value.is_object()) {
            return Err(newer.invalid(kind, "a number or a text: headroom has one rotary embedding for all layers"));
        }
        let conflict = |key: &str, other: &str| ConfigError::Conflict {
            key: key.to_owned(),
            other: format!("rope_parameters.{other}"),
        };
        let newer_theta = newer.number("rope_theta")?;
        if theta.is_some() && newer_theta.is_some() && theta != newer_theta {
            return Err(conflict("rope_theta", "rope_theta"));
        }
        let newer_scaling = self.rope_scaling(&newer)?;
        if scaling.is_some_and(|scaling| scaling != newer_scaling) {
            return Err(conflict("rope_scaling", "rope_type"));
        }
        Ok(Rope { theta: theta.or(newer_theta).unwrap_or(default), scaling: newer_scaling })
    }

    fn rope_scaling(&self, keys: &Keys<'_>) -> Result<RopeScaling, ConfigError> {
        let (older, newer) = (keys.text("type")?, keys.text("rope_type")?);
        if older.is_some() && newer.is_some() && older != newer {
            return Err(ConfigError::Conflict { key: keys.path("type"), other: keys.path("rope_type") });
        }
        let factor = || keys.number("factor")?.ok_or_else(|| keys.missing("factor"));
        Ok(match older.or(newer).unwrap_or("default") {
            "default" => RopeScaling::Default,
            "linear" => RopeScaling::Linear { factor: factor()? },
            "llama3" => {
                let low_freq_factor = keys.number("low_freq_factor")?.unwrap_or(1.0);
                let high_freq_factor = keys.number("high_freq_factor")?.unwrap_or(4.0);
                if low_freq_factor >= high_freq_factor {
                    return Err(keys.invalid("high_freq_factor", "greater than low_freq_factor"));
                }
                let original = keys.number("original_max_position_embeddings")?.unwrap_or(8192.0);
                RopeScaling::Llama3 {
                    factor: factor()?,
                    low_freq_factor,
                    high_freq_factor,
                    original_max_position_embeddings: original,
                }
            }
            other => return Err(ConfigError::RopeType(shortened(other))),
        })
    }
}

fn check_layer_types(keys: &Keys<'_>, layers: usize) -> Result<(), ConfigError> {
    let types = match keys.get("layer_types") {
        None => return Ok(()),
        Some(Value::Array(types)) => types,
        Some(_) => return Err(keys.invalid("layer_types", "a list of texts")),
    };
    for (layer, found) in types.iter().enumerate() {
        match found.as_str() {
            Some("full_attention") => {}
            Some(other) => return Err(ConfigError::LayerType { layer, found: shortened(other) }),
            None => return Err(keys.invalid("layer_types", "a list of texts")),
        }
    }
    if types.len() != layers {
        return Err(ConfigError::LayerTypes { found: types.len(), layers });
    }
    Ok(())
}

/// One id or a list of them, those beyond the vocabulary apart; a repeated one counts once.
pub(super) fn eos(keys: &Keys<'_>, value: &Value, vocab_size: usize) -> Result<(Vec<u32>, Vec<u64>), ConfigError> {
    let values = match value {
        Value::Array(values) => values.as_slice(),
        one => std::slice::from_ref(one),
    };
    let (mut ids, mut unused) = (Vec::new(), Vec::new());
    for value in values {
        let wanted = "a token id or a list of token ids";
        let id = value.as_u64().ok_or_else(|| keys.invalid("eos_token_id", wanted))?;
        match u32::try_from(id).ok().filter(|&id| (id as usize) < vocab_size) {
            Some(inside) if !ids.contains(&inside) => ids.push(inside),
            None if !unused.contains(&id) => unused.push(id),
            _ => {}
        }
    }
    Ok((ids, unused))
}
