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
    /// A family that headroom does not run.
    #[error("model_type `{0}` is not supported; headroom runs {native}", native = family::native())]
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
