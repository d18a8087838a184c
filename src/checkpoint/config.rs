//! `config.json` and `generation_config.json`: what a checkpoint says about itself, checked.
//!
//! Defaults are those of mlx-lm's Llama, and a key that holds `null` counts as absent, as Python's
//! `None` does there. Whatever would change the computation and is not supported is an error that
//! names the key; keys that change nothing are not looked at.

use std::fmt;

use serde_json::{Map, Value};

use super::json::{JsonError, parse_object, shortened};
pub use super::quantization::{Override, Quantization};

/// Largest size that a dimension may have: 2^24. Products of two, in bytes, stay far from overflow.
const LARGEST: u64 = 1 << 24;

/// A rule that `config.json` or `generation_config.json` breaks.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// The file is not an object of JSON.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A key without which no model can be built.
    #[error("the key `{key}` is missing")]
    Missing {
        /// Path of the key.
        key: String,
    },
    /// A value of another type or outside its range.
    #[error("`{key}` is {found}, but must be {wanted}")]
    Invalid {
        /// Path of the key.
        key: String,
        /// The value, as JSON, shortened.
        found: String,
        /// What it must be.
        wanted: &'static str,
    },
    /// Two keys that must agree do not.
    #[error("`{key}` and `{other}` disagree; remove the one that is wrong")]
    Conflict {
        /// One key.
        key: String,
        /// The other.
        other: String,
    },
    /// An architecture that headroom does not run.
    #[error("model_type `{0}` is not supported; headroom runs `llama` (Llama 2 and 3, SmolLM2, TinyLlama)")]
    ModelType(String),
    /// Query heads must be shared out evenly among key and value heads.
    #[error("num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}")]
    Heads {
        /// Query heads.
        heads: usize,
        /// Key and value heads.
        kv_heads: usize,
    },
    /// `head_dim` is absent and cannot be derived.
    #[error("hidden_size {hidden_size} is not a multiple of num_attention_heads {heads}, and head_dim is not given")]
    HeadDim {
        /// Width of the model.
        hidden_size: usize,
        /// Query heads.
        heads: usize,
    },
    /// Rotary embedding turns pairs of columns.
    #[error("head_dim {0} is odd, but rotary embedding turns pairs")]
    OddHeadDim(usize),
    /// A rotary scaling that headroom does not compute.
    #[error("rope type `{0}` is not supported; headroom computes `default`, `linear` and `llama3`")]
    RopeType(String),
    /// Interleaved rotary embedding.
    #[error("rope_traditional true is not supported; headroom computes the half-split rotary embedding only")]
    RopeTraditional,
    /// An attention that is not full.
    #[error("layer_types[{layer}] is `{found}`, but headroom computes `full_attention` only")]
    LayerType {
        /// Layer, from 0.
        layer: usize,
        /// Its type.
        found: String,
    },
    /// `layer_types` must have an entry a layer.
    #[error("layer_types has {found} entries for num_hidden_layers {layers}")]
    LayerTypes {
        /// Entries found.
        found: usize,
        /// Layers of the model.
        layers: usize,
    },
    /// Another activation than SiLU.
    #[error("hidden_act `{0}` is not supported; headroom computes `silu` only")]
    HiddenAct(String),
    /// No `quantization` at all.
    #[error(
        "there is no `quantization`, so the head is not quantized and has no packed words to disturb; \
         make a quantized checkpoint with `mlx_lm.convert -q`"
    )]
    NotQuantized,
    /// Quantized by something else than MLX.
    #[error(
        "quantized by `{0}`, not by MLX; convert the unquantized model with `mlx_lm.convert -q`, \
         which writes a `quantization` key"
    )]
    OtherQuantizer(String),
    /// A code width that MLX has and headroom does not support yet.
    #[error("`{key}` is {bits}: MLX's codes of 2, 3, 5 and 6 bits are not supported yet; quantize to 4 or 8 bits")]
    BitsNotYet {
        /// Path of the key.
        key: String,
        /// Width of a code.
        bits: u64,
    },
    /// A code width that MLX does not have.
    #[error("`{key}` is {bits}, which is not a width of codes that MLX has; quantize to 4 or 8 bits")]
    Bits {
        /// Path of the key.
        key: String,
        /// Width of a code.
        bits: u64,
    },
    /// A group size that MLX's affine mode does not have.
    #[error("`{key}` is {group_size}, but MLX's affine mode has groups of 32, 64 and 128")]
    GroupSize {
        /// Path of the key.
        key: String,
        /// Columns of a group.
        group_size: u64,
    },
    /// A quantization mode other than affine.
    #[error("`{key}` is `{mode}`, but only the mode `affine` is supported; quantize with `--q-mode affine`")]
    Mode {
        /// Path of the key.
        key: String,
        /// The mode.
        mode: String,
    },
    /// An end-of-sequence token that the model cannot produce.
    #[error("eos_token_id {id} lies outside the vocabulary of {vocab_size} tokens")]
    EosToken {
        /// The token.
        id: u64,
        /// Size of the vocabulary.
        vocab_size: usize,
    },
}

/// Architectures that headroom runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelType {
    /// Llama 2 and 3.x, SmolLM2, TinyLlama.
    Llama,
}

impl fmt::Display for ModelType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Llama => f.write_str("llama"),
        }
    }
}

/// How the rotary frequencies `rope_theta^(-2i / head_dim)` are scaled. Numbers are finite and
/// positive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    Default,
    /// All divided by `factor`.
    Linear {
        /// What positions are divided by.
        factor: f64,
    },
    /// Llama 3.1's: long wavelengths divided by `factor`, short ones kept, smooth between.
    Llama3 {
        /// Divisor of the frequencies whose wavelength is long.
        factor: f64,
        /// A wavelength is long above `original_max_position_embeddings / low_freq_factor`.
        low_freq_factor: f64,
        /// A wavelength is short below `original_max_position_embeddings / high_freq_factor`;
        /// greater than `low_freq_factor`.
        high_freq_factor: f64,
        /// Context length of the model before it was extended.
        original_max_position_embeddings: f64,
    },
}

/// The checked configuration of a checkpoint. Sizes are between 1 and 2^24.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// Architecture.
    pub model_type: ModelType,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Transformer blocks.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads, a divisor of the query heads; as many as those where the key is absent.
    pub num_key_value_heads: usize,
    /// Columns of one head, even; `hidden_size / num_attention_heads` where the key is absent.
    pub head_dim: usize,
    /// Rows of the embedding and of the head.
    pub vocab_size: usize,
    /// Added to the mean square in RMS norm; positive also as `f32`.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies; 10,000 where the key is absent.
    pub rope_theta: f64,
    /// Scaling of the rotary frequencies.
    pub rope_scaling: RopeScaling,
    /// Whether the embedding is also the head. **An absent key means true**, as in mlx-lm's Llama;
    /// transformers takes it as false for most architectures.
    pub tie_word_embeddings: bool,
    /// Whether `q_proj`, `k_proj`, `v_proj` and `o_proj` have a bias.
    pub attention_bias: bool,
    /// Whether `gate_proj`, `up_proj` and `down_proj` have a bias.
    pub mlp_bias: bool,
    /// Longest context that the model was made for, if stated. Nothing depends on it here.
    pub max_position_embeddings: Option<usize>,
    /// How the weights are quantized.
    pub quantization: Quantization,
    /// Tokens that end an answer, in the order given, each below `vocab_size`. Empty where neither
    /// file names one. mlx-lm also ends at the tokenizer's own eos token, which is not in here.
    pub eos_token_ids: Vec<u32>,
}

impl Config {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// The first [`ConfigError`] met; each names its key.
    pub fn parse(config_json: &[u8]) -> Result<Self, ConfigError> {
        let map = parse_object(config_json)?;
        let keys = Keys::new(&map, "");

        let model_type = match keys.text("model_type")? {
            Some("llama") => ModelType::Llama,
            Some(other) => return Err(ConfigError::ModelType(shortened(other))),
            None => return Err(keys.missing("model_type")),
        };
        if let Some(act) = keys.text("hidden_act")?.filter(|&act| act != "silu") {
            return Err(ConfigError::HiddenAct(shortened(act)));
        }
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
        check_layer_types(&keys, num_hidden_layers)?;
        let (rope_theta, rope_scaling) = rope(&keys)?;

        let mut config = Self {
            model_type,
            hidden_size,
            intermediate_size: keys.required_size("intermediate_size")?,
            num_hidden_layers,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            head_dim,
            vocab_size: keys.required_size("vocab_size")?,
            rms_norm_eps: keys.number("rms_norm_eps")?.ok_or_else(|| keys.missing("rms_norm_eps"))?,
            rope_theta,
            rope_scaling,
            tie_word_embeddings: tied(&keys)?,
            attention_bias: keys.flag("attention_bias")?.unwrap_or(false),
            mlp_bias: keys.flag("mlp_bias")?.unwrap_or(false),
            max_position_embeddings: keys.size("max_position_embeddings")?,
            quantization: Quantization::parse(&keys)?,
            eos_token_ids: Vec::new(),
        };
        if let Some(value) = keys.get("eos_token_id") {
            config.eos_token_ids = eos(&keys, value, config.vocab_size)?;
        }
        Ok(config)
    }

    /// Takes over `eos_token_id` from `generation_config.json`, as mlx-lm does: it wins over
    /// `config.json` unless it is absent, `null`, `0` or an empty list.
    ///
    /// # Errors
    /// [`ConfigError::Json`], [`ConfigError::Invalid`], [`ConfigError::EosToken`]. mlx-lm ignores a
    /// file that is not JSON; here that is an error, for it is most likely cut short.
    pub fn apply_generation_config(&mut self, generation_config_json: &[u8]) -> Result<(), ConfigError> {
        let map = parse_object(generation_config_json)?;
        let keys = Keys::new(&map, "");
        if let Some(value) = keys.get("eos_token_id").filter(|value| value.as_u64() != Some(0)) {
            let ids = eos(&keys, value, self.vocab_size)?;
            if !ids.is_empty() {
                self.eos_token_ids = ids;
            }
        }
        Ok(())
    }

    /// Columns of all query heads: rows of `q_proj`, columns of `o_proj`.
    pub const fn query_size(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// Columns of all key heads, or of all value heads: rows of `k_proj` and of `v_proj`.
    pub const fn key_value_size(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }
}

/// An absent key is true, but `null` would be false in mlx-lm: too easily meant otherwise.
fn tied(keys: &Keys<'_>) -> Result<bool, ConfigError> {
    match keys.map.get("tie_word_embeddings") {
        None => Ok(true),
        Some(Value::Bool(tied)) => Ok(*tied),
        Some(_) => Err(keys.invalid("tie_word_embeddings", "true or false")),
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

/// `rope_theta` and `rope_scaling`, or `rope_parameters`, in which newer transformers keep both.
fn rope(keys: &Keys<'_>) -> Result<(f64, RopeScaling), ConfigError> {
    let theta = keys.number("rope_theta")?;
    let scaling = keys.object("rope_scaling")?.map(|keys| rope_scaling(&keys)).transpose()?;
    let Some(newer) = keys.object("rope_parameters")? else {
        return Ok((theta.unwrap_or(10_000.0), scaling.unwrap_or(RopeScaling::Default)));
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
    let newer_scaling = rope_scaling(&newer)?;
    if scaling.is_some_and(|scaling| scaling != newer_scaling) {
        return Err(conflict("rope_scaling", "rope_type"));
    }
    Ok((theta.or(newer_theta).unwrap_or(10_000.0), newer_scaling))
}

fn rope_scaling(keys: &Keys<'_>) -> Result<RopeScaling, ConfigError> {
    let (older, newer) = (keys.text("type")?, keys.text("rope_type")?);
    if older.is_some() && newer.is_some() && older != newer {
        return Err(ConfigError::Conflict { key: keys.path("type"), other: keys.path("rope_type") });
    }
    let factor = || keys.number("factor")?.ok_or_else(|| keys.missing("factor"));
    match older.or(newer).unwrap_or("default") {
        "default" => Ok(RopeScaling::Default),
        "linear" => Ok(RopeScaling::Linear { factor: factor()? }),
        "llama3" => {
            let low_freq_factor = keys.number("low_freq_factor")?.unwrap_or(1.0);
            let high_freq_factor = keys.number("high_freq_factor")?.unwrap_or(4.0);
            if low_freq_factor >= high_freq_factor {
                return Err(keys.invalid("high_freq_factor", "greater than low_freq_factor"));
            }
            Ok(RopeScaling::Llama3 {
                factor: factor()?,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings: keys.number("original_max_position_embeddings")?.unwrap_or(8192.0),
            })
        }
        other => Err(ConfigError::RopeType(shortened(other))),
    }
}

/// One id or a list of them; a repeated one counts once.
fn eos(keys: &Keys<'_>, value: &Value, vocab_size: usize) -> Result<Vec<u32>, ConfigError> {
    let values = match value {
        Value::Array(values) => values.as_slice(),
        one => std::slice::from_ref(one),
    };
    let mut ids = Vec::new();
    for value in values {
        let wanted = "a token id or a list of token ids";
        let id = value.as_u64().ok_or_else(|| keys.invalid("eos_token_id", wanted))?;
        let inside = u32::try_from(id).ok().filter(|&id| (id as usize) < vocab_size);
        let inside = inside.ok_or(ConfigError::EosToken { id, vocab_size })?;
        if !ids.contains(&inside) {
            ids.push(inside);
        }
    }
    Ok(ids)
}

/// An object of the configuration and where it lies in the file, for messages.
#[derive(Clone, Debug)]
pub(super) struct Keys<'a> {
    pub(super) map: &'a Map<String, Value>,
    prefix: String,
}

impl<'a> Keys<'a> {
    pub(super) fn new(map: &'a Map<String, Value>, prefix: &str) -> Self {
        Self { map, prefix: prefix.to_owned() }
    }

    /// Full path of `key`, shortened: it may come from the file.
    pub(super) fn path(&self, key: &str) -> String {
        if self.prefix.is_empty() { shortened(key) } else { format!("{}.{}", self.prefix, shortened(key)) }
    }

    pub(super) fn missing(&self, key: &str) -> ConfigError {
        ConfigError::Missing { key: self.path(key) }
    }

    pub(super) fn invalid(&self, key: &str, wanted: &'static str) -> ConfigError {
        let found = self.map.get(key).map_or_else(|| "absent".to_owned(), |value| shortened(&value.to_string()));
        ConfigError::Invalid { key: self.path(key), found, wanted }
    }

    /// The value of `key`, where `null` counts as absent.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn object(&self, key: &str) -> Result<Option<Keys<'a>>, ConfigError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Keys { map, prefix: self.path(key) })),
            Some(_) => Err(self.invalid(key, "an object")),
        }
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>, ConfigError> {
        let text = |value: &'a Value| value.as_str().ok_or_else(|| self.invalid(key, "a text"));
        self.get(key).map(text).transpose()
    }

    fn flag(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        let flag = |value: &Value| value.as_bool().ok_or_else(|| self.invalid(key, "true or false"));
        self.get(key).map(flag).transpose()
    }

    pub(super) fn integer(&self, key: &str) -> Result<Option<u64>, ConfigError> {
        let integer = |value: &Value| value.as_u64().ok_or_else(|| self.invalid(key, "an integer, not negative"));
        self.get(key).map(integer).transpose()
    }

    fn size(&self, key: &str) -> Result<Option<usize>, ConfigError> {
        let size = |value: &Value| {
            let size = value.as_u64().filter(|size| (1..=LARGEST).contains(size));
            size.map(|size| size as usize).ok_or_else(|| self.invalid(key, "an integer from 1 to 2^24"))
        };
        self.get(key).map(size).transpose()
    }

    fn required_size(&self, key: &str) -> Result<usize, ConfigError> {
        self.size(key)?.ok_or_else(|| self.missing(key))
    }

    /// A number that stays finite and positive as `f32`, in which the model computes.
    fn number(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        let number = |value: &Value| {
            let number = value.as_f64().filter(|&number| (number as f32).is_finite() && number as f32 > 0.0);
            number.ok_or_else(|| self.invalid(key, "a number that is positive and finite as a float32"))
        };
        self.get(key).map(number).transpose()
    }
}
