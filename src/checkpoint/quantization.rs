//! The `quantization` key of `config.json`: one format for the model, and exceptions by module.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{config_error::ConfigError, json::shortened, keys::Keys};
use crate::quant::{Format, FormatError};

/// What `quantization` says of one module by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Override {
    /// An object: quantized in a format of its own.
    Format(Format),
    /// `true`: quantized in the format of the model.
    Quantized,
    /// `false`: not quantized.
    Dense,
}

/// The `quantization` key.
///
/// As in mlx-lm, the format of a module that is not named is the one that its tensors show; the model's own is that of a
/// module named with `true`. An entry for a module that the model does not have (one of a vision tower, say) and a key that
/// says nothing of a format are ignored there and here.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) struct Quantization {
    /// The format of the model.
    pub format: Format,
    /// Exceptions, by module: `model.layers.0.mlp.down_proj`.
    pub overrides: BTreeMap<String, Override>,
}

impl Quantization {
    pub(super) fn parse(config: &Keys<'_>) -> Result<Self, ConfigError> {
        let Some(keys) = config.object("quantization")? else {
            return Err(match config.object("quantization_config")? {
                None => ConfigError::NotQuantized,
                Some(other) => {
                    ConfigError::OtherQuantizer(other.text("quant_method")?.map_or("unknown".into(), shortened))
                }
            });
        };
        for key in ["bits", "group_size"] {
            if keys.get(key).is_none() && matches!(keys.text("mode")?, None | Some("affine")) {
                return Err(keys.missing(key));
            }
        }
        let format = format(&keys)?;
        let mut overrides = BTreeMap::new();
        for (module, value) in keys.map {
            let entry = match value {
                Value::Bool(true) => Override::Quantized,
                Value::Bool(false) => Override::Dense,
                Value::Object(map) => Override::Format(self::format(&Keys::new(map, &keys.path(module)))?),
                _ => continue,
            };
            overrides.insert(module.clone(), entry);
        }
        Ok(Self { format, overrides })
    }
}

/// The format of an object with `mode`, `bits` and `group_size`. MLX fills in what it leaves out from the defaults of the mode
/// (affine: 4 bits in groups of 64), and not from the format of the model.
fn format(keys: &Keys<'_>) -> Result<Format, ConfigError> {
    let (bits, group_size) = (keys.integer("bits")?, keys.integer("group_size")?);
    let mode = match keys.text("mode")? {
        None | Some("affine") => return affine(keys, bits.unwrap_or(4), group_size.unwrap_or(64)),
        Some(mode) => mode,
    };
    let Some(format) = Format::of_mode(mode) else {
        return Err(ConfigError::Mode { key: keys.path("mode"), mode: shortened(mode) });
    };
    for (key, found, wanted) in [("bits", bits, format.width().bits()), ("group_size", group_size, format.group_size())]
    {
        if let Some(found) = found.filter(|&found| found != wanted as u64) {
            return Err(ConfigError::OfMode { key: keys.path(key), found, format, wanted });
        }
    }
    Ok(format)
}

/// The format of MLX's mode `affine` of these keys.
fn affine(keys: &Keys<'_>, bits: u64, group_size: u64) -> Result<Format, ConfigError> {
    // A number that is too large for this machine is none that MLX has.
    let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    Format::affine(size(bits), size(group_size)).map_err(|error| match error {
        FormatError::GroupSize(_) => ConfigError::GroupSize { key: keys.path("group_size"), group_size },
        FormatError::Bits(_) | FormatError::Name(_) => ConfigError::Bits { key: keys.path("bits"), bits },
    })
}
