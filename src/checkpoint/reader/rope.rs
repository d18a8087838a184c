//! Reads the rotary embedding: `rope_theta` and `rope_scaling`, or `rope_parameters`, in which newer transformers keep both.

use serde_json::Value;

use super::{Reader, pattern::Kind};
use crate::checkpoint::{
    architecture::{Pairing, QueryGrowth, Rope, RopeScaling},
    config_error::ConfigError,
    family::{ScalingRule, SlidingRope, Theta},
    json::shortened,
    keys::Keys,
};

impl Reader<'_> {
    /// The rotary embedding of layers of a kind.
    pub(super) fn rope(&self, head_dim: usize, kind: Kind) -> Result<Option<Rope>, ConfigError> {
        if !kind.turned {
            return Ok(None);
        }
        let (keys, rule) = (self.keys, self.rules.rope);
        let traditional = if rule.pairing_key { keys.flag("rope_traditional")? } else { None };
        let pairing = match traditional {
            Some(true) => Pairing::Neighbours,
            Some(false) => Pairing::Halves,
            None => rule.pairing,
        };
        if rule.by_layer_type {
            return self.rope_of_type(head_dim, kind, pairing).map(Some);
        }
        let columns = self.turned_columns(head_dim)?;
        let (mut theta, mut scaling) = self.theta_and_scaling(columns)?;
        match rule.sliding {
            SlidingRope::Unscaled if kind.sliding => scaling = RopeScaling::Default,
            SlidingRope::Theta(key, default) => {
                let own = keys.number(key)?.unwrap_or(default);
                if kind.sliding {
                    (theta, scaling) = (own, RopeScaling::Default);
                }
            }
            SlidingRope::Same | SlidingRope::Unscaled => {}
        }
        Ok(Some(Rope { theta, columns, pairing, scaling }))
    }

    /// The rotary embedding that `rope_parameters` has for a type of layers; without it, Gemma 4's.
    fn rope_of_type(&self, head_dim: usize, kind: Kind, pairing: Pairing) -> Result<Rope, ConfigError> {
        if !head_dim.is_multiple_of(2) {
            return Err(ConfigError::OddRotation(head_dim));
        }
        let proportional = |factor: f64, part: f64| RopeScaling::Proportional {
            factor,
            pairs: ((head_dim as f64 * part) as usize).div_ceil(2).min(head_dim / 2),
        };
        let named = if kind.sliding { "sliding_attention" } else { "full_attention" };
        let (theta, scaling) = match self.keys.object("rope_parameters")? {
            None if kind.sliding => (10_000.0, RopeScaling::Default),
            None => (1_000_000.0, proportional(1.0, 0.25)),
            Some(all) => match all.object(named)? {
                None => (10_000.0, RopeScaling::Default),
                Some(own) => {
                    let theta = own.number("rope_theta")?.unwrap_or(10_000.0);
                    match own.text("type")?.or(own.text("rope_type")?) {
                        Some("proportional") => {
                            let part = own.number("partial_rotary_factor")?.unwrap_or(1.0);
                            if part > 1.0 {
                                return Err(own.invalid("partial_rotary_factor", "at most 1"));
                            }
                            (theta, proportional(own.number("factor")?.unwrap_or(1.0), part))
                        }
                        _ => self.scaled(theta, &own, head_dim)?,
                    }
                }
            },
        };
        Ok(Rope { theta, columns: head_dim, pairing, scaling })
    }

    fn turned_columns(&self, head_dim: usize) -> Result<usize, ConfigError> {
        let newer = self.keys.object("rope_parameters")?;
        let stated = match &newer {
            Some(newer) => newer.number("partial_rotary_factor")?,
            None => None,
        };
        if let Some(key) = self.rules.rope.columns
            && let Some(columns) = self.keys.size(key)?
        {
            return match columns <= head_dim && columns.is_multiple_of(2) {
                true => Ok(columns),
                false => Err(self.keys.invalid(key, "even, and at most the columns of a head")),
            };
        }
        let columns = match self.rules.rope.partial {
            Some((key, default)) => {
                let factor = self.keys.number(key)?.or(stated).unwrap_or(default);
                if factor > 1.0 {
                    return Err(self.keys.invalid(key, "at most 1"));
                }
                (head_dim as f64 * factor) as usize
            }
            None => {
                if let Some(newer) = newer.filter(|_| stated.is_some_and(|factor| factor != 1.0)) {
                    return Err(newer.invalid("partial_rotary_factor", "absent or 1: this family turns whole heads"));
                }
                head_dim
            }
        };
        if columns == 0 || !columns.is_multiple_of(2) {
            return Err(ConfigError::OddRotation(columns));
        }
        Ok(columns)
    }

    fn theta_and_scaling(&self, columns: usize) -> Result<(f64, RopeScaling), ConfigError> {
        let (keys, rule) = (self.keys, self.rules.rope);
        let (theta_key, default) = match rule.theta {
            Theta::Key(key, default) => (Some(key), default),
            Theta::Fixed(theta) => (None, theta),
        };
        let theta = theta_key.map(|key| keys.number(key)).transpose()?.flatten();
        let older = match rule.scaling {
            ScalingRule::None => None,
            _ => keys.object("rope_scaling")?,
        };
        let newer = keys.object("rope_parameters")?;
        let Some(newer) = newer else {
            let theta = theta.unwrap_or(default);
            return match older {
                Some(older) => self.scaled(theta, &older, columns),
                None => Ok((theta, RopeScaling::Default)),
            };
        };
        if let Some((kind, _)) = newer.map.iter().find(|(_, value)| value.is_object()) {
            return Err(newer.invalid(kind, "a number or a text: this family has one rotary embedding for all layers"));
        }
        let conflict = |key: &str, other: &str| ConfigError::Conflict {
            key: key.to_owned(),
            other: format!("rope_parameters.{other}"),
        };
        let newer_theta = newer.number("rope_theta")?;
        if theta.is_some() && newer_theta.is_some() && theta != newer_theta {
            return Err(conflict(theta_key.unwrap_or("rope_theta"), "rope_theta"));
        }
        let theta = theta.or(newer_theta).unwrap_or(default);
        let found = self.scaled(theta, &newer, columns)?;
        match older {
            Some(older) if self.scaled(theta, &older, columns)? != found => Err(conflict("rope_scaling", "rope_type")),
            _ => Ok(found),
        }
    }

    /// The base, and how frequencies are scaled.
    fn scaled(&self, theta: f64, keys: &Keys<'_>, columns: usize) -> Result<(f64, RopeScaling), ConfigError> {
        let (older, newer) = (keys.text("type")?, keys.text("rope_type")?);
        if older.is_some() && newer.is_some() && older != newer {
            return Err(ConfigError::Conflict { key: keys.path("type"), other: keys.path("rope_type") });
        }
        let factor = || keys.number("factor")?.ok_or_else(|| keys.missing("factor"));
        let kind = older.or(newer).unwrap_or("default");
        let unsupported = || Err(ConfigError::RopeType(shortened(kind)));
        let scaling = match (self.rules.rope.scaling, kind) {
            (ScalingRule::Alpha, _) => {
                let alpha = keys.number("alpha")?.unwrap_or(1.0);
                let power = columns as f64 / (columns as f64 - 2.0).max(1.0);
                return Ok((theta * alpha.powf(power), RopeScaling::Default));
            }
            (ScalingRule::PhiMoe, _) => {
                let amplitude = keys.number("long_mscale")?.ok_or_else(|| keys.missing("long_mscale"))?;
                RopeScaling::Long { factors: long_factors(keys, columns)?, amplitude }
            }
            (_, "default") => RopeScaling::Default,
            (ScalingRule::None, _) => return unsupported(),
            (_, "linear") => RopeScaling::Linear { factor: factor()? },
            (ScalingRule::Linear, _) => return unsupported(),
            (ScalingRule::Phi3, "longrope" | "su") => {
                let length = |key, default| Ok::<_, ConfigError>(self.keys.number(key)?.unwrap_or(default));
                let longest = length("max_position_embeddings", 131_072.0)?;
                self.long(keys, columns, longest, length("original_max_position_embeddings", 4096.0)?)?
            }
            (ScalingRule::Phi3, _) => return unsupported(),
            // Three sections of positions are one for text.
            (ScalingRule::Any, "mrope") => RopeScaling::Default,
            (ScalingRule::Any, "llama3") => {
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
            (ScalingRule::Any, "yarn" | "deepseek_yarn" | "telechat3-yarn") => {
                if theta <= 1.0 {
                    let holder = if keys.get("rope_theta").is_some() { keys } else { self.keys };
                    return Err(holder.invalid("rope_theta", "more than 1 with a yarn scaling"));
                }
                yarn(keys)?
            }
            (ScalingRule::Any, "dynamic") => {
                if columns <= 2 {
                    return Err(ConfigError::OddRotation(columns));
                }
                RopeScaling::Dynamic { factor: factor()?, longest: self.keys.required_size("max_position_embeddings")? }
            }
            (ScalingRule::Any, "longrope") => {
                let longest = self.keys.number("max_position_embeddings")?;
                let longest = longest.ok_or_else(|| self.keys.missing("max_position_embeddings"))?;
                let original = keys.number("original_max_position_embeddings")?;
                let original = original.ok_or_else(|| keys.missing("original_max_position_embeddings"))?;
                self.long(keys, columns, longest, original)?
            }
            (ScalingRule::Any, _) => return unsupported(),
        };
        Ok((theta, scaling))
    }

    /// A factor for each pair. As in mlx-lm, those for long texts serve short ones, too.
    fn long(&self, keys: &Keys<'_>, columns: usize, longest: f64, original: f64) -> Result<RopeScaling, ConfigError> {
        let factors = long_factors(keys, columns)?;
        let ratio = longest / original;
        let amplitude = if ratio <= 1.0 { 1.0 } else { (1.0 + libm::log(ratio) / libm::log(original)).sqrt() };
        if !amplitude.is_finite() {
            return Err(keys.invalid("original_max_position_embeddings", "more than 1"));
        }
        Ok(RopeScaling::Long { factors, amplitude })
    }

    /// How queries grow with their positions, where the family's entry names a key for it.
    pub(super) fn query_growth(&self) -> Result<Option<QueryGrowth>, ConfigError> {
        let Some(key) = self.rules.rope.query_growth else { return Ok(None) };
        let keys = self.keys.object("rope_parameters")?.ok_or_else(|| self.keys.missing("rope_parameters"))?;
        let number = |key| keys.number(key)?.ok_or_else(|| keys.missing(key));
        Ok(Some(QueryGrowth { beta: number(key)?, original: number("original_max_position_embeddings")? }))
    }
}

/// A factor for each pair of turned columns.
fn long_factors(keys: &Keys<'_>, columns: usize) -> Result<Vec<f64>, ConfigError> {
    const KEY: &str = "long_factor";
    let wanted = "a list of positive numbers, one for each pair of turned columns";
    let values = keys.list(KEY)?.ok_or_else(|| keys.missing(KEY))?;
    let positive = |value: &Value| value.as_f64().filter(|&x| (x as f32).is_finite() && x as f32 > 0.0);
    let factors: Option<Vec<f64>> = values.iter().map(positive).collect();
    factors.filter(|factors| factors.len() == columns / 2).ok_or_else(|| keys.invalid(KEY, wanted))
}

/// YaRN. `attention_factor` and `truncate` change nothing in mlx-lm.
fn yarn(keys: &Keys<'_>) -> Result<RopeScaling, ConfigError> {
    let number = |key, default| Ok::<_, ConfigError>(keys.number(key)?.unwrap_or(default));
    let factor = keys.number("factor")?.ok_or_else(|| keys.missing("factor"))?;
    let gain = |scale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * scale * libm::log(factor) + 1.0 };
    // This one may be 0, and is where it is absent.
    let all = match keys.get("mscale_all_dim") {
        Some(value) if value.as_f64() == Some(0.0) => 0.0,
        _ => number("mscale_all_dim", 0.0)?,
    };
    Ok(RopeScaling::Yarn {
        factor,
        original_max_position_embeddings: number("original_max_position_embeddings", 4096.0)?,
        beta_fast: number("beta_fast", 32.0)?,
        beta_slow: number("beta_slow", 1.0)?,
        amplitude: gain(number("mscale", 1.0)?) / gain(all),
    })
}
