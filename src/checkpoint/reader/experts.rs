//! Reads the mixture of experts: which layers have one, and what it computes.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    Reader,
    pattern::{LONGEST_PERIOD, flags},
    size, size_or_zero,
};
use crate::checkpoint::{
    architecture::{ExpertNorms, Experts, Gate, Groups, Mlp, Norm, Router, Score, Shared},
    config_error::ConfigError,
    family::{ExpertLayers, ExpertWidth, ExpertsRule, ScoreRule, SharedWidth, Size},
    keys::{Keys, LARGEST},
};

impl Reader<'_> {
    /// The rule by which layers have experts, if some layers may have any.
    pub(super) fn experts_rule(&self) -> Result<Option<&'static ExpertsRule>, ConfigError> {
        let Some(rule) = &self.rules.experts else { return Ok(None) };
        // What they say of experts is known, also where no layer turns out to have any.
        let (ExpertWidth::Key(Size { key: width, .. }) | ExpertWidth::OrMlp(width)) = rule.width;
        let shared = match rule.shared.map(|shared| shared.width) {
            Some(SharedWidth::Key(size) | SharedWidth::Experts(size) | SharedWidth::ExpertsOf(size, _)) => size.key,
            Some(SharedWidth::Mlp) | None => width,
        };
        for key in [rule.count.key, width, shared] {
            self.keys.get(key);
        }
        Ok(self.flag(rule.when)?.then_some(rule))
    }

    /// What layers with experts compute, in a model of this width. `mlp` gives what layers without experts do.
    pub(super) fn experts(
        &self,
        rule: &ExpertsRule,
        hidden_size: usize,
        norm: Norm,
        mlp: impl Fn() -> Result<Mlp, ConfigError>,
    ) -> Result<Experts, ConfigError> {
        let (keys, count) = (self.keys, self.size(rule.count)?);
        let expert = |intermediate_size, bias| Mlp {
            intermediate_size,
            activation: self.rules.activation.activation,
            gate: Gate::Apart,
            bias,
        };
        let width = match rule.width {
            ExpertWidth::Key(size) => self.size(size)?,
            ExpertWidth::OrMlp(key) => match keys.size_or_none(key)? {
                None | Some(0) => mlp()?.intermediate_size,
                Some(width) => width,
            },
        };
        if count as u64 * width.max(hidden_size) as u64 > LARGEST {
            return Err(keys.invalid(rule.count.key, "such that all experts together have at most 2^24 rows"));
        }
        let shared = match rule.shared {
            Some(shared) if self.flag(shared.when)? => {
                let bias = self.flag(self.rules.mlp_bias)?;
                let mlp = match shared.width {
                    SharedWidth::Key(size) => self.size_or_none(size)?.map(|width| expert(width, bias)),
                    SharedWidth::Experts(times) | SharedWidth::ExpertsOf(times, _) => {
                        let own = match shared.width {
                            SharedWidth::ExpertsOf(_, key) => keys.size_or_none(key)?.filter(|&own| own > 0),
                            _ => None,
                        };
                        let columns = self.size_or_none(times)?.map(|times| times.saturating_mul(own.unwrap_or(width)));
                        if columns.is_some_and(|columns| columns as u64 > LARGEST) {
                            return Err(
                                keys.invalid(times.key, "such that these experts together have at most 2^24 columns")
                            );
                        }
                        columns.map(|columns| expert(columns, bias))
                    }
                    SharedWidth::Mlp => Some(mlp()?),
                };
                mlp.map(|mlp| Shared { mlp, gate: shared.gate })
            }
            _ => None,
        };
        Ok(Experts {
            count,
            expert: expert(width, self.flag(rule.bias)?),
            router: self.router(rule, count)?,
            shared,
            norms: rule.norms.then_some(ExpertNorms { router: norm, input: norm, output: norm, shared_output: norm }),
        })
    }

    fn router(&self, rule: &ExpertsRule, count: usize) -> Result<Router, ConfigError> {
        let (keys, router) = (self.keys, &rule.router);
        let chosen = self.size(rule.chosen)?;
        if chosen > count {
            return Err(keys.invalid(rule.chosen.key, "at most as many as there are experts"));
        }
        let groups = match router.groups {
            None => None,
            Some([all, kept]) => {
                let groups = Groups { count: self.size(all)?, kept: self.size(kept)? };
                if groups.count == 1 || groups.count == groups.kept {
                    None
                } else if groups.kept > groups.count || !count.is_multiple_of(groups.count) || count / groups.count < 2
                {
                    return Err(keys.invalid(
                        all.key,
                        "a divisor of the experts that makes groups of two or more, some of which are kept",
                    ));
                } else {
                    Some(groups)
                }
            }
        };
        let divided = self.flag(router.divided)? && (chosen > 1 || router.divides_one);
        Ok(Router {
            chosen,
            bias: self.flag(router.bias)?,
            score: self.score(router.score)?,
            choice_bias: self.flag(router.choice_bias)?,
            groups,
            divisor: divided.then_some(router.divisor),
            scale: match router.scale {
                Some((key, default)) => Some(keys.number(key)?.unwrap_or(default) as f32),
                None => None,
            },
            expert_scale: router.expert_scale,
        })
    }

    fn score(&self, rule: ScoreRule) -> Result<Score, ConfigError> {
        Ok(match rule {
            ScoreRule::SoftmaxOfChosen => Score::SoftmaxOfChosen,
            ScoreRule::Softmax => Score::Softmax,
            ScoreRule::Sigmoid => Score::Sigmoid,
            ScoreRule::Key(key, default) => match self.keys.text(key)?.unwrap_or(default) {
                "softmax" => Score::Softmax,
                "sigmoid" => Score::Sigmoid,
                _ => return Err(self.keys.invalid(key, "`softmax` or `sigmoid`")),
            },
            ScoreRule::Mixer(key, default) => {
                Score::Mixer { reach: (2.0 * self.keys.number(key)?.unwrap_or(default)) as f32 }
            }
        })
    }

    /// A size, where 0 stands for nothing.
    fn size_or_none(&self, wanted: Size) -> Result<Option<usize>, ConfigError> {
        let found = size_or_zero(self.keys, wanted)?;
        Ok((found > 0).then_some(found))
    }
}

/// Which of `count` layers, a number that the key `layers` states, have experts: one entry for all where they are alike, else one for
/// each.
pub(super) fn layers(
    keys: &Keys<'_>,
    rule: ExpertLayers,
    layers: &'static str,
    count: usize,
) -> Result<Vec<bool>, ConfigError> {
    let (every, from, to, except) = match rule {
        ExpertLayers::All => return Ok(vec![true]),
        ExpertLayers::Listed(key) => return flags(keys, key, count)?.ok_or_else(|| keys.missing(key)),
        ExpertLayers::Where { every, from, to, except } => (every, from, to, except),
    };
    let every = match every {
        Some((every, offset)) => (size(keys, every)?, offset),
        None => (1, 0),
    };
    let first = match from {
        Some(Size { key, default }) => bound(keys, key, Iterator::min)?.or(default).ok_or_else(|| keys.missing(key))?,
        None => 0,
    };
    let last = match to {
        Some(key) => bound(keys, key, Iterator::max)?,
        None => None,
    };
    let except: BTreeSet<u64> = match except {
        Some(key) => {
            let wanted = "a list of numbers of layers";
            let all: Option<BTreeSet<u64>> = keys.list(key)?.unwrap_or_default().iter().map(Value::as_u64).collect();
            all.ok_or_else(|| keys.invalid(key, wanted))?
        }
        None => BTreeSet::new(),
    };
    if every.0 == 1 && first == 0 && last.is_none_or(|last| last + 1 >= count) && except.is_empty() {
        return Ok(vec![true]);
    }
    if count > LONGEST_PERIOD {
        return Err(keys.invalid(layers, "at most 4096 where only some layers have experts"));
    }
    let has = |i: usize| {
        i >= first
            && last.is_none_or(|last| i <= last)
            && (i + every.1).is_multiple_of(every.0)
            && !except.contains(&(i as u64))
    };
    Ok((0..count).map(has).collect())
}

/// The number of a layer that `key` states, or one of several.
fn bound(
    keys: &Keys<'_>,
    key: &'static str,
    one: impl Fn(std::vec::IntoIter<usize>) -> Option<usize>,
) -> Result<Option<usize>, ConfigError> {
    let Some(value) = keys.get(key) else { return Ok(None) };
    let values = match value {
        Value::Array(values) => values.as_slice(),
        one => std::slice::from_ref(one),
    };
    let number = |value: &Value| value.as_u64().filter(|&number| number <= LARGEST).map(|number| number as usize);
    let all: Option<Vec<usize>> = values.iter().map(number).collect();
    let wanted = "the number of a layer, or a list of such";
    all.and_then(|all| one(all.into_iter())).map(Some).ok_or_else(|| keys.invalid(key, wanted))
}
