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
/// The format of a module that is not named is the model's. (Recent versions of mlx-lm infer it from
/// the shapes there; a checkpoint where that gives another format is refused here as mis-shaped.)
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quantization {
    /// The format of the model.
    pub format: Format,
    /// Exceptions, by module: `model.layers.0.mlp.down_proj`.
    pub overrides: BTreeMap<String, Override>,
}

impl Quantization {
    /// The format in which `module` is stored, if it is stored quantized.
    pub fn format_of(&self, module: &str) -> Format {
        match self.overrides.get(module) {
            Some(Override::Format(format)) => *format,
            _ => self.format,
        }
    }

    pub(super) fn parse(config: &Keys<'_>) -> Result<Self, ConfigError> {
        let Some(keys) = config.object("quantization")? else {
            return Err(match config.object("quantization_config")? {
                None => ConfigError::NotQuantized,
                Some(other) => {
                    ConfigError::OtherQuantizer(other.text("quant_method")?.map_or("unknown".into(), shortened))
                }
            });
        };
        check_mode(&keys)?;
        let bits = keys.integer("bits")?.ok_or_else(|| keys.missing("bits"))?;
        let group_size = keys.integer("group_size")?.ok_or_else(|| keys.missing("group_size"))?;
        let format = affine(&keys, bits, group_size)?;

        let mut overrides = BTreeMap::new();
        for (module, value) in keys.map {
            let entry = match value {
                _ if matches!(module.as_str(), "bits" | "group_size" | "mode") => continue,
                Value::Bool(true) => Override::Quantized,
                Value::Bool(false) => Override::Dense,
                Value::Object(map) => Override::Format(own_format(&Keys::new(map, &keys.path(module)))?),
                _ => return Err(keys.invalid(module, "true, false or an object, by the name of a module")),
            };
            overrides.insert(module.clone(), entry);
        }
        Ok(Self { format, overrides })
    }
}

/// MLX fills in what an exception leaves out from its affine defaults, 4 bits in groups of 64, and
/// not from the format of the model.
fn own_format(keys: &Keys<'_>) -> Result<Format, ConfigError> {
    check_mode(keys)?;
    if let Some(unknown) = keys.map.keys().find(|key| !matches!(key.as_str(), "bits" | "group_size" | "mode")) {
        return Err(keys.invalid(unknown, "one of bits, group_size and mode"));
    }
    affine(keys, keys.integer("bits")?.unwrap_or(4), keys.integer("group_size")?.unwrap_or(64))
}

fn check_mode(keys: &Keys<'_>) -> Result<(), ConfigError> {
    match keys.text("mode")? {
        None | Some("affine") => Ok(()),
        Some(mode) => Err(ConfigError::Mode { key: keys.path("mode"), mode: shortened(mode) }),
    }
}

/// The format of these keys.
fn affine(keys: &Keys<'_>, bits: u64, group_size: u64) -> Result<Format, ConfigError> {
    // A number that is too large for this machine is none that MLX has.
    let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    Format::affine(size(bits), size(group_size)).map_err(|error| match error {
        FormatError::BitsNotYet(_) => ConfigError::BitsNotYet { key: keys.path("bits"), bits },
        FormatError::GroupSize(_) => ConfigError::GroupSize { key: keys.path("group_size"), group_size },
        FormatError::Bits(_) | FormatError::Name(_) => ConfigError::Bits { key: keys.path("bits"), bits },
    })
}
