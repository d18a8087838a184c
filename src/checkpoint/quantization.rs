//! The `quantization` key of `config.json`: one scheme for the model, and exceptions by module.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    config::{ConfigError, Keys},
    json::shortened,
};
use crate::quant::Bits;

/// Width of the codes and size of their groups, in MLX's affine mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheme {
    /// Width of one code.
    pub bits: Bits,
    /// Columns that share one scale and one bias: 32, 64 or 128.
    pub group_size: usize,
}

/// What `quantization` says of one module by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Override {
    /// An object: quantized in a scheme of its own.
    Scheme(Scheme),
    /// `true`: quantized in the scheme of the model.
    Quantized,
    /// `false`: not quantized.
    Dense,
}

/// The `quantization` key.
///
/// The scheme of a module that is not named is the model's. (Recent versions of mlx-lm infer it from
/// the shapes there; a checkpoint where that gives another scheme is refused here as mis-shaped.)
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quantization {
    /// The scheme of the model.
    pub scheme: Scheme,
    /// Exceptions, by module: `model.layers.0.mlp.down_proj`.
    pub overrides: BTreeMap<String, Override>,
}

impl Quantization {
    /// The scheme in which `module` is stored, if it is stored quantized.
    pub fn scheme_of(&self, module: &str) -> Scheme {
        match self.overrides.get(module) {
            Some(Override::Scheme(scheme)) => *scheme,
            _ => self.scheme,
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
        let bits = bits(&keys)?.ok_or_else(|| keys.missing("bits"))?;
        let group_size = group_size(&keys)?.ok_or_else(|| keys.missing("group_size"))?;

        let mut overrides = BTreeMap::new();
        for (module, value) in keys.map {
            let entry = match value {
                _ if matches!(module.as_str(), "bits" | "group_size" | "mode") => continue,
                Value::Bool(true) => Override::Quantized,
                Value::Bool(false) => Override::Dense,
                Value::Object(map) => Override::Scheme(own_scheme(&Keys::new(map, &keys.path(module)))?),
                _ => return Err(keys.invalid(module, "true, false or an object, by the name of a module")),
            };
            overrides.insert(module.clone(), entry);
        }
        Ok(Self { scheme: Scheme { bits, group_size }, overrides })
    }
}

/// MLX fills in what an exception leaves out from its affine defaults, 4 bits in groups of 64, and
/// not from the scheme of the model.
fn own_scheme(keys: &Keys<'_>) -> Result<Scheme, ConfigError> {
    check_mode(keys)?;
    if let Some(unknown) = keys.map.keys().find(|key| !matches!(key.as_str(), "bits" | "group_size" | "mode")) {
        return Err(keys.invalid(unknown, "one of bits, group_size and mode"));
    }
    Ok(Scheme { bits: bits(keys)?.unwrap_or(Bits::Four), group_size: group_size(keys)?.unwrap_or(64) })
}

fn check_mode(keys: &Keys<'_>) -> Result<(), ConfigError> {
    match keys.text("mode")? {
        None | Some("affine") => Ok(()),
        Some(mode) => Err(ConfigError::Mode { key: keys.path("mode"), mode: shortened(mode) }),
    }
}

fn bits(keys: &Keys<'_>) -> Result<Option<Bits>, ConfigError> {
    let check = |bits| match bits {
        2 | 3 | 5 | 6 => Err(ConfigError::BitsNotYet { key: keys.path("bits"), bits }),
        _ => Bits::new(bits).ok_or_else(|| ConfigError::Bits { key: keys.path("bits"), bits }),
    };
    keys.integer("bits")?.map(check).transpose()
}

fn group_size(keys: &Keys<'_>) -> Result<Option<usize>, ConfigError> {
    let check = |group_size| match group_size {
        32 | 64 | 128 => Ok(group_size as usize),
        _ => Err(ConfigError::GroupSize { key: keys.path("group_size"), group_size }),
    };
    keys.integer("group_size")?.map(check).transpose()
}
