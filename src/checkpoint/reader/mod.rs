//! Reads what a model computes from its configuration, by the rules of its family.
//!
//! `rope.rs` reads the rotary embedding, `mixers.rs` what mixes positions instead of attention, `experts.rs` the mixture of experts,
//! `pattern.rs` what differs from layer to layer, and `asking.rs` has the keys that may not be passed over in silence.

mod asking;
mod experts;
mod mixers;
mod pattern;
mod rope;

use serde_json::Value;

use self::pattern::{Kind, Pattern};
use super::{
    architecture::{
        Architecture, Attention, Curve, FeedForward, Gate, KeyValues, Layer, Layers, Mixer, Mlp, Norm, NormKind,
        NormWeight, Projections, QkNorm, TokenInput, TokenInputs, Wiring,
    },
    config_error::ConfigError,
    family::{
        AttentionScale, ConfigRules, EmbeddingScale, Family, Flag, FullLayersRule, GateName, HeadDim, Intermediate,
        KvHeads, LogitScale, QkvNames, ResidualScale, Size, Tied,
    },
    json::shortened,
    keys::{Keys, LARGEST},
};

/// What the keys of a model say that it computes; `top` has the keys of the file, `keys` those of the model in it, which may be the
/// same. Where only tensors can tell whether the head is tied, it counts as tied.
///
/// # Errors
/// The first [`ConfigError`] met.
pub(super) fn architecture(
    family: &'static Family,
    keys: &Keys<'_>,
    top: &Keys<'_>,
) -> Result<Architecture, ConfigError> {
    let architecture = Reader { keys, top, family, rules: &family.config }.architecture()?;
    asking::refuse_unread(keys, family.config.ignored)?;
    Ok(architecture)
}

struct Reader<'a> {
    keys: &'a Keys<'a>,
    top: &'a Keys<'a>,
    family: &'static Family,
    rules: &'static ConfigRules,
}

/// A size as its key states it, or else as the family's entry does.
fn size(keys: &Keys<'_>, Size { key, default }: Size) -> Result<usize, ConfigError> {
    keys.size(key)?.or(default).ok_or_else(|| keys.missing(key))
}

/// As [`size`], where 0 is possible, too.
fn size_or_zero(keys: &Keys<'_>, Size { key, default }: Size) -> Result<usize, ConfigError> {
    keys.size_or_none(key)?.or(default).ok_or_else(|| keys.missing(key))
}

/// Sizes of one head's columns and of how many there are.
#[derive(Clone, Copy)]
struct Heads {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
}

impl Reader<'_> {
    fn architecture(&self) -> Result<Architecture, ConfigError> {
        let (keys, rules, names) = (self.keys, self.rules, &self.family.tensors);
        self.check_activation()?;
        let sizes = &rules.sizes;
        let hidden_size = self.size(sizes.hidden_size)?;
        let count = self.size(sizes.layers)?;
        let experts = self.experts_rule()?;
        let pattern = Pattern::read(keys, rules, experts, count)?;
        let vocab_size = match self.top.size(sizes.vocab_size.key)? {
            Some(size) if sizes.vocab_at_top => size,
            _ => self.size(sizes.vocab_size)?,
        };
        let norm = self.norm()?;
        let parallel = self.flag(rules.parallel)?;
        let wiring = if parallel { rules.parallel_wiring } else { Wiring::Serial };
        let named = |name: Option<&str>| name.map(|_| norm);
        let mlp_norm = named(names.mlp_norm).filter(|_| wiring != Wiring::ParallelOneNorm);
        let residual_scale = self.residual_scale(count)?;
        let token_inputs = self.token_inputs(norm)?;
        let other_mixer = rules.other_mixers.map(|rule| self.other_mixer(rule.mixer, norm)).transpose()?;
        let mut kinds = Vec::new();
        for kind in pattern.kinds() {
            let mixer = match &other_mixer {
                Some(mixer) if !kind.attends => mixer.clone(),
                _ => {
                    let heads = self.heads(hidden_size, kind)?;
                    Mixer::Attention(Attention {
                        window: pattern.window(kind),
                        rope: self.rope(heads.head_dim, kind)?,
                        ..self.attention(heads, norm, kind)?
                    })
                }
            };
            let mlp = match experts.filter(|_| kind.experts) {
                Some(rule) => {
                    FeedForward::Experts(self.experts(rule, hidden_size, norm, || self.mlp(hidden_size, kind))?)
                }
                None => FeedForward::Mlp(self.mlp(hidden_size, kind)?),
            };
            let layer = Layer {
                wiring,
                attention_norm: named(names.attention_norm),
                mixer,
                attention_output_norm: named(names.attention_output_norm),
                mlp_norm,
                mlp,
                mlp_output_norm: named(names.mlp_output_norm),
                residual_scale,
                token_input: token_inputs.map(|TokenInputs { size, .. }| TokenInput {
                    size,
                    activation: rules.activation.activation,
                    output_norm: norm,
                }),
                output_scale: rules.output_scale,
            };
            kinds.push((kind, layer));
        }
        let layer = |kind: Kind| {
            let found = kinds.iter().find(|(other, _)| *other == kind);
            found.expect("the kinds of a pattern are those of its period").1.clone()
        };
        Ok(Architecture {
            vocab_size,
            hidden_size,
            embedding_scale: self.embedding_scale(hidden_size)?,
            learned_positions: rules.learned_positions.map(|key| keys.required_size(key)).transpose()?,
            token_inputs,
            layers: Layers::repeating(pattern.period().map(layer), count),
            norm,
            tied: self.tied()?,
            head_bias: self.flag(rules.head_bias)?,
            curve: Curve { scale: self.logit_scale(hidden_size)?, softcap: self.softcap(rules.logit_softcap)? },
        })
    }

    /// The MLP of a layer without experts, in a model of this width.
    fn mlp(&self, hidden_size: usize, kind: Kind) -> Result<Mlp, ConfigError> {
        let (keys, rules) = (self.keys, self.rules);
        let size = match rules.sizes.intermediate {
            Intermediate::Key(size) => self.size(size)?,
            Intermediate::Half(size) => self.size(size)? / 2,
            Intermediate::FourTimesHidden => 4 * hidden_size,
            Intermediate::Adjusted { keys, adjust, factor, multiple } => {
                self.adjusted_width(keys, adjust, factor, multiple)?
            }
        };
        if !(1..=LARGEST).contains(&(size as u64)) {
            return Err(keys.invalid(rules.sizes.hidden_size.key, "such that the MLP has 1 to 2^24 columns"));
        }
        let wider = if self.flag(rules.borrowing_doubles)? && kind.borrows.is_some() { 2 } else { 1 };
        Ok(Mlp {
            intermediate_size: wider * size,
            activation: rules.activation.activation,
            gate: match self.family.tensors.gate {
                GateName::None => Gate::None,
                GateName::Apart(_) => Gate::Apart,
                GateName::Joined => Gate::Joined,
            },
            bias: self.flag(rules.mlp_bias)?,
        })
    }

    fn heads(&self, hidden_size: usize, kind: Kind) -> Result<Heads, ConfigError> {
        let (keys, sizes) = (self.keys, &self.rules.sizes);
        let heads = self.size(sizes.heads)?;
        let kv_heads = match sizes.kv_heads {
            KvHeads::Key(Size { key, default }) => keys.size(key)?.or(default).unwrap_or(heads),
            KvHeads::AsHeads => heads,
            KvHeads::OneIf(flag) => {
                if self.flag(flag)? {
                    1
                } else {
                    heads
                }
            }
        };
        let full = self.rules.full_layers.filter(|_| !kind.sliding);
        let kv_heads = match full {
            Some(full) if self.flag(full.keys_serve)? => keys.size(full.kv_heads)?.unwrap_or(kv_heads),
            _ => kv_heads,
        };
        if !heads.is_multiple_of(kv_heads) {
            return Err(ConfigError::Heads { heads, kv_heads });
        }
        let shared = || match hidden_size.is_multiple_of(heads) {
            true => Ok(hidden_size / heads),
            false => Err(ConfigError::HeadDim { hidden_size, heads }),
        };
        let head_dim = match sizes.head_dim {
            HeadDim::Key(Size { key, default }) => keys.size(key)?.or(default).map_or_else(shared, Ok)?,
            HeadDim::Shared => {
                let shared = shared()?;
                if keys.size("head_dim")?.is_some_and(|stated| stated != shared) {
                    return Err(keys.invalid("head_dim", "absent or hidden_size / num_attention_heads in this family"));
                }
                shared
            }
        };
        let head_dim = match full {
            Some(FullLayersRule { head_dim: Size { key, default }, .. }) => {
                keys.size(key)?.or(default).unwrap_or(head_dim)
            }
            None => head_dim,
        };
        if heads as u64 * head_dim as u64 > LARGEST {
            return Err(keys.invalid("head_dim", "such that all heads together have at most 2^24 columns"));
        }
        Ok(Heads { heads, kv_heads, head_dim })
    }

    /// Attention of layers of a kind, but for window and rotary embedding.
    fn attention(&self, heads: Heads, norm: Norm, kind: Kind) -> Result<Attention, ConfigError> {
        let (keys, rules) = (self.keys, self.rules);
        let Heads { heads, kv_heads, head_dim } = heads;
        let scale = match rules.scales.attention {
            AttentionScale::HeadDim => 1.0 / (head_dim as f32).sqrt(),
            AttentionScale::One => 1.0,
            AttentionScale::Key(key) => self.required_number(key)? as f32,
            AttentionScale::InverseSqrt(key, default) => (1.0 / keys.number(key)?.unwrap_or(default).sqrt()) as f32,
        };
        let qk_norm = match rules.qk_norm {
            Some(rule) if self.flag(rule.when)? => {
                Some(QkNorm { norm: Norm { bias: false, ..norm }, span: rule.span, after_rope: rule.after_rope })
            }
            _ => None,
        };
        Ok(Attention {
            heads,
            kv_heads,
            head_dim,
            scale,
            softcap: self.softcap(rules.attention_softcap)?,
            sinks: rules.sinks,
            window: None,
            rope: None,
            query_growth: self.query_growth()?,
            qk_norm,
            key_values: match (kind.borrows, rules.full_layers) {
                (Some(layer), _) => KeyValues::OfLayer(layer),
                (None, Some(full)) if !kind.sliding && self.flag(full.keys_serve)? => KeyValues::FromKeys,
                (None, _) => KeyValues::Own,
            },
            value_norm: rules.value_norm.then_some(Norm { weight: NormWeight::None, bias: false, ..norm }),
            projections: match self.family.tensors.qkv {
                QkvNames::Apart { .. } => Projections::Apart,
                QkvNames::Joined(_) => Projections::Joined,
                QkvNames::ByKeyHead(_) => Projections::ByKeyHead,
            },
            qkv_bias: self.flag(rules.qkv_bias)?,
            o_bias: self.flag(rules.o_bias)?,
            gated: rules.gated,
        })
    }

    fn token_inputs(&self, norm: Norm) -> Result<Option<TokenInputs>, ConfigError> {
        let Some([size, rows]) = self.rules.token_inputs else { return Ok(None) };
        let columns = size_or_zero(self.keys, size)?;
        let vocab_size = self.size(rows)?;
        Ok((columns > 0).then_some(TokenInputs { vocab_size, size: columns, norm }))
    }

    fn norm(&self) -> Result<Norm, ConfigError> {
        let rule = self.rules.norm;
        let eps = self.keys.number(rule.eps)?.or(rule.eps_default).ok_or_else(|| self.keys.missing(rule.eps))?;
        Ok(Norm {
            kind: rule.kind,
            eps: eps as f32,
            weight: if rule.one_plus { NormWeight::OnePlus } else { NormWeight::AsStored },
            bias: rule.kind == NormKind::Layer && self.flag(rule.bias)?,
        })
    }

    fn check_activation(&self) -> Result<(), ConfigError> {
        let rule = self.rules.activation;
        for key in rule.keys {
            if let Some(found) = self.keys.text(key)?
                && !rule.names.contains(&found)
            {
                let wanted = rule.names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or ");
                return Err(ConfigError::Activation { key: self.keys.path(key), found: shortened(found), wanted });
            }
        }
        Ok(())
    }

    fn tied(&self) -> Result<bool, ConfigError> {
        const KEY: &str = "tie_word_embeddings";
        // An absent key is what the family makes of it, but `null` would be false in mlx-lm: too easily meant otherwise.
        let stated = match self.keys.get_or_null(KEY) {
            None => None,
            Some(Value::Bool(tied)) => Some(*tied),
            Some(_) => return Err(self.keys.invalid(KEY, "true or false")),
        };
        match self.rules.tied {
            Tied::Key(default) => Ok(stated.unwrap_or(default)),
            Tied::WithoutHead => Ok(true),
            Tied::Always if stated == Some(false) => {
                Err(self.keys.invalid(KEY, "absent or true: this family's head is its embedding"))
            }
            Tied::Never if stated == Some(true) => {
                Err(self.keys.invalid(KEY, "absent or false: this family's head is a matrix of its own"))
            }
            Tied::Always => Ok(true),
            Tied::Never => Ok(false),
        }
    }

    fn embedding_scale(&self, hidden_size: usize) -> Result<Option<f32>, ConfigError> {
        let root = (hidden_size as f64).sqrt() as f32;
        Ok(match self.rules.scales.embedding {
            EmbeddingScale::None => None,
            EmbeddingScale::SqrtHidden => Some(root),
            EmbeddingScale::SqrtHiddenRounded => Some(half::bf16::from_f32(root).to_f32()),
            EmbeddingScale::Key(key) => Some(self.required_number(key)? as f32),
        })
    }

    fn residual_scale(&self, layers: usize) -> Result<Option<f32>, ConfigError> {
        Ok(match self.rules.scales.residual {
            ResidualScale::None => None,
            ResidualScale::Key(key) => Some(self.required_number(key)? as f32),
            ResidualScale::OverSqrtLayers(key) => Some((self.required_number(key)? / (layers as f64).sqrt()) as f32),
        })
    }

    fn logit_scale(&self, hidden_size: usize) -> Result<Option<f32>, ConfigError> {
        Ok(match self.rules.scales.logits {
            LogitScale::None => None,
            LogitScale::Key(key, default) => Some(self.keys.number(key)?.unwrap_or(default) as f32),
            LogitScale::Inverse(key) => Some((1.0 / self.required_number(key)?) as f32),
            LogitScale::OverHidden(key) => Some((self.required_number(key)? / hidden_size as f64) as f32),
        })
    }

    /// `null` means that nothing is bounded.
    fn softcap(&self, rule: Option<(&str, f64)>) -> Result<Option<f32>, ConfigError> {
        let Some((key, default)) = rule else { return Ok(None) };
        if self.keys.get_or_null(key).is_some_and(Value::is_null) {
            return Ok(None);
        }
        Ok(Some(self.keys.number(key)?.unwrap_or(default) as f32))
    }

    fn size(&self, wanted: Size) -> Result<usize, ConfigError> {
        size(self.keys, wanted)
    }

    fn required_number(&self, key: &str) -> Result<f64, ConfigError> {
        self.keys.number(key)?.ok_or_else(|| self.keys.missing(key))
    }

    fn flag(&self, flag: Flag) -> Result<bool, ConfigError> {
        Ok(match flag {
            Flag::Always => true,
            Flag::Never => false,
            Flag::Key(key, default) => self.keys.flag(key)?.unwrap_or(default),
            Flag::Not(key, default) => self.keys.flag(key)?.map_or(default, |not| !not),
        })
    }
}
