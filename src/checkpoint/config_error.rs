//! The rules of `config.json` and `generation_config.json`, as the errors of breaking them.

use super::{family, json::JsonError};
use crate::quant::Format;

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
    /// A family whose body headroom does not compute.
    #[error(
        "model_type `{0}` is not one that headroom computes itself; it computes {native}; \
         `--backend mlx-lm` runs every model that mlx-lm runs",
        native = family::native()
    )]
    ModelType(String),
    /// A key asks for a computation that the reader of this family does not know.
    #[error(
        "`{key}` asks for something that headroom does not compute for this model_type, and that would be left out in silence; \
         use `--backend mlx-lm`, or remove the key if the model was made without it"
    )]
    Asks {
        /// Path of the key.
        key: String,
    },
    /// Query heads must be shared out evenly among key and value heads.
    #[error("num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}")]
    Heads {
        /// Query heads.
        heads: usize,
        /// Key and value heads.
        kv_heads: usize,
    },
    /// The value heads of a DeltaNet must be shared out evenly among its key heads.
    #[error("`{value_heads_key}` is {value_heads}, which is not a multiple of `{key_heads_key}`, {key_heads}")]
    DeltaHeads {
        /// Key of the value heads.
        value_heads_key: &'static str,
        /// Value heads.
        value_heads: usize,
        /// Key of the key heads.
        key_heads_key: &'static str,
        /// Key heads.
        key_heads: usize,
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
    #[error("rotary embedding would turn {0} columns of a head, but it turns pairs; correct head_dim")]
    OddRotation(usize),
    /// A rotary scaling that headroom does not compute.
    #[error("rope type `{0}` is not supported for this model_type")]
    RopeType(String),
    /// A layer of another type than the family has.
    #[error("layer_types[{layer}] is `{found}`, but this model_type has `full_attention` and `{other}` only")]
    LayerType {
        /// Layer, from 0.
        layer: usize,
        /// Its type.
        found: String,
        /// The type that layers may have besides full attention.
        other: &'static str,
    },
    /// A list of what layers are must have an entry for each.
    #[error("{key} has {found} entries for {layers} layers")]
    LayerList {
        /// The key.
        key: &'static str,
        /// Entries found.
        found: usize,
        /// Layers of the model.
        layers: usize,
    },
    /// Another activation than the family's.
    #[error("`{key}` is `{found}`, but models of this model_type compute {wanted}")]
    Activation {
        /// Path of the key.
        key: String,
        /// What it names.
        found: String,
        /// The names that it may have.
        wanted: String,
    },
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
    /// A code width that MLX does not have.
    #[error("`{key}` is {bits}, which is not a width of codes that MLX has; quantize to 2, 3, 4, 5, 6 or 8 bits")]
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
    /// A quantization mode that MLX does not have.
    #[error("`{key}` is `{mode}`, which is no mode of MLX that headroom knows: affine, mxfp4, mxfp8 or nvfp4")]
    Mode {
        /// Path of the key.
        key: String,
        /// The mode.
        mode: String,
    },
    /// A mode has one width of codes and one size of groups, and the configuration states another.
    #[error("`{key}` is {found}, but MLX's mode {format} has {wanted}")]
    OfMode {
        /// Path of the key.
        key: String,
        /// The number given.
        found: u64,
        /// The format that the mode is.
        format: Format,
        /// Its number.
        wanted: usize,
    },
}
