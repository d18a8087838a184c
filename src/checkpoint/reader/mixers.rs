//! Reads what mixes positions instead of attention.

use super::Reader;
use crate::checkpoint::{
    architecture::{DeltaNet, DeltaProjections, Mixer, Norm, ShortConvolution},
    config_error::ConfigError,
    family::{DeltaProjectionNames, MixerRule, Size},
    keys::LARGEST,
};

/// The most positions that a convolution may see.
const LONGEST_CONVOLUTION: usize = 64;

impl Reader<'_> {
    /// What layers compute that do not attend.
    pub(super) fn other_mixer(&self, rule: MixerRule, norm: Norm) -> Result<Mixer, ConfigError> {
        match rule {
            MixerRule::ShortConvolution { taps, bias } => {
                Ok(Mixer::ShortConvolution(ShortConvolution { taps: self.taps(taps)?, bias: self.flag(bias)? }))
            }
            MixerRule::DeltaNet { key_heads, value_heads, key_dim, value_dim, taps } => {
                let net = DeltaNet {
                    key_heads: self.size(key_heads)?,
                    value_heads: self.size(value_heads)?,
                    key_dim: self.size(key_dim)?,
                    value_dim: self.size(value_dim)?,
                    taps: self.taps(taps)?,
                    norm: Norm { bias: false, ..norm },
                    projections: match self.family.tensors.delta_net.projections {
                        DeltaProjectionNames::Apart { .. } => DeltaProjections::Apart,
                        DeltaProjectionNames::ByKeyHead { .. } => DeltaProjections::ByKeyHead,
                    },
                };
                if !net.value_heads.is_multiple_of(net.key_heads) {
                    return Err(ConfigError::DeltaHeads {
                        value_heads_key: value_heads.key,
                        value_heads: net.value_heads,
                        key_heads_key: key_heads.key,
                        key_heads: net.key_heads,
                    });
                }
                // Each factor is at most 2^24, so no product overflows.
                let columns = [[net.value_heads, net.value_dim], [net.key_heads, net.key_dim]];
                let [values, keys] = columns.map(|[heads, columns]| heads as u64 * columns as u64);
                if values.max(keys) > LARGEST {
                    return Err(self.keys.invalid(value_dim.key, "such that all heads have at most 2^24 columns"));
                }
                if values * net.key_dim as u64 > LARGEST {
                    return Err(self
                        .keys
                        .invalid(key_dim.key, "such that the states of all heads have at most 2^24 numbers"));
                }
                Ok(Mixer::DeltaNet(net))
            }
        }
    }

    fn taps(&self, size: Size) -> Result<usize, ConfigError> {
        let taps = self.size(size)?;
        if taps > LONGEST_CONVOLUTION {
            return Err(self.keys.invalid(size.key, "at most 64"));
        }
        Ok(taps)
    }

    /// The width of an MLP by the rule [`Adjusted`](crate::checkpoint::family::Intermediate::Adjusted).
    pub(super) fn adjusted_width(
        &self,
        keys: [&str; 2],
        adjust: &str,
        factor: &str,
        multiple: &str,
    ) -> Result<usize, ConfigError> {
        let [first, second] = keys;
        let stated = self.keys.size(first)?.or(self.keys.size(second)?).ok_or_else(|| self.keys.missing(first))?;
        if !self.keys.flag(adjust)?.ok_or_else(|| self.keys.missing(adjust))? {
            return Ok(stated);
        }
        let factor = self.keys.number(factor)?.unwrap_or(1.0);
        let multiple = self.keys.required_size(multiple)?;
        // Rounded down twice, as in mlx-lm; what is too large for a `usize` becomes the largest, which is refused.
        let width = ((2 * stated / 3) as f64 * factor) as usize;
        Ok(width.div_ceil(multiple).saturating_mul(multiple))
    }
}
