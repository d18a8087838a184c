//! The attention of a layer.

use mlx_rs::{
    Array, Dtype,
    fast::{ScaledDotProductAttentionMask as Mask, scaled_dot_product_attention},
    ops::{
        add, concatenate, divide, expand_dims, ge, indexing::TryIndexOp, logical_and, lt, matmul, multiply, select,
        sigmoid, softmax_axis, split_at_indices, tanh,
    },
};

use super::{
    super::{
        Named,
        arrays::{Linear, Widen, from_floats, number, optional, shape, times},
    },
    MISSING, Stretch,
    norm::{HeadNorm, Normalization},
    rope::Rotation,
};
use crate::{
    checkpoint::{
        AttentionWeights, Qkv,
        architecture::{self, Projections},
    },
    model::{BodyError, rope::grown},
};

/// Keys and values, `[1, kv_heads, positions, head_dim]` each.
pub(super) type KeysAndValues = [Array; 2];

/// What an attention attends to besides the positions of the stretch.
pub(super) enum Before<'a> {
    /// Nothing: the stretch is the first one.
    Nothing,
    /// The layer's own keys and values of the positions before the stretch.
    Own(KeysAndValues),
    /// Those of another layer, the stretch included; the layer has none itself.
    Lent(&'a KeysAndValues),
}

/// What an attention gives.
pub(super) struct Attended {
    /// The branch's output.
    pub(super) output: Array,
    /// The keys and values of the stretch, where the layer has its own.
    pub(super) new: Option<KeysAndValues>,
    /// All that there are up to the end of the stretch.
    pub(super) all: KeysAndValues,
}

#[derive(Debug)]
pub(super) struct Attention {
    rule: architecture::Attention,
    rotation: Option<Rotation>,
    qkv: Projection,
    q_norm: Option<HeadNorm>,
    k_norm: Option<HeadNorm>,
    value_norm: Option<Normalization>,
    /// `[heads]`.
    sinks: Option<Array>,
    o_proj: Linear,
}

/// The projections to queries, keys and values.
#[derive(Debug)]
enum Projection {
    Apart([Linear; 3]),
    QueryAndKey([Linear; 2]),
    Query(Linear),
    Joined(Linear),
}

/// What the projections give: `[1, n, heads or kv_heads, head_dim]` each.
struct Projected {
    queries: Array,
    /// What outputs are multiplied by the sigmoid of.
    gates: Option<Array>,
    own: Option<KeysAndValues>,
}

impl Attention {
    pub(super) fn load(
        rule: &architecture::Attention,
        weights: &AttentionWeights,
        widen: Widen,
    ) -> Result<Self, BodyError> {
        let linear = |linear| Linear::of(linear, widen);
        let qkv = match &weights.qkv {
            Qkv::Apart([q, k, v]) => Projection::Apart([linear(q)?, linear(k)?, linear(v)?]),
            Qkv::QueryAndKey([q, k]) => Projection::QueryAndKey([linear(q)?, linear(k)?]),
            Qkv::Query(q) => Projection::Query(linear(q)?),
            Qkv::Joined(all) => Projection::Joined(linear(all)?),
        };
        let [q_norm, k_norm] = [&weights.q_norm, &weights.k_norm].map(|weights| {
            let norm = rule.qk_norm.zip(weights.as_ref());
            norm.map(|(rule_of_norm, weights)| HeadNorm::load(rule_of_norm, weights, rule.head_dim, widen)).transpose()
        });
        Ok(Self {
            rotation: rule.rope.as_ref().map(Rotation::new).transpose()?,
            qkv,
            q_norm: q_norm?,
            k_norm: k_norm?,
            value_norm: rule.value_norm.map(Normalization::without_weights),
            sinks: optional(weights.sinks.as_ref(), widen)?,
            o_proj: linear(&weights.o_proj)?,
            rule: rule.clone(),
        })
    }

    /// `h` is `[1, n, hidden]`.
    pub(super) fn apply(&self, h: &Array, stretch: Stretch, before: Before<'_>) -> Result<Attended, BodyError> {
        let Projected { queries, gates, own } = self.project(h, stretch.n)?;
        let queries = self.grown(self.placed(&queries, self.q_norm.as_ref(), stretch)?, stretch)?;
        let new = match own {
            None => None,
            Some([keys, values]) => {
                let values = match &self.value_norm {
                    Some(norm) => norm.apply(&values)?,
                    None => values,
                };
                Some([self.placed(&keys, self.k_norm.as_ref(), stretch)?, swapped(&values)?])
            }
        };
        let all = match (before, &new) {
            (Before::Lent(lent), _) => lent.clone(),
            (Before::Nothing, Some(new)) => new.clone(),
            (Before::Own([keys, values]), Some([new_keys, new_values])) => {
                let behind = |past: &Array, new: &Array| concatenate(&[past, new], 2).named("concatenate");
                [behind(&keys, new_keys)?, behind(&values, new_values)?]
            }
            (Before::Nothing | Before::Own(_), None) => return Err(MISSING),
        };
        let attended = swapped(&self.attend(&queries, &all, stretch)?)?;
        let together = shape([1, stretch.n, self.rule.query_size()])?;
        let mut output = attended.reshape(&together).named("reshape")?;
        if let Some(gates) = gates {
            let gates = sigmoid(gates.reshape(&together).named("reshape")?).named("sigmoid")?;
            output = multiply(output, gates).named("multiply")?;
        }
        Ok(Attended { output: self.o_proj.apply(&output)?, new, all })
    }

    fn project(&self, h: &Array, n: usize) -> Result<Projected, BodyError> {
        let architecture::Attention { heads, kv_heads, head_dim, gated, .. } = self.rule;
        let split =
            |x: Array, heads: usize, columns: usize| x.reshape(&shape([1, n, heads, columns])?).named("reshape");
        let parts = |x: &Array, at: [usize; 2]| {
            let parts = split_at_indices(x, &shape(at)?, -1).named("split")?;
            <[Array; 3]>::try_from(parts).map_err(|_| MISSING)
        };
        Ok(match &self.qkv {
            Projection::Apart([q_proj, k_proj, v_proj]) => {
                let (queries, gates) = if gated {
                    // Head by head, a query and behind it its gate.
                    let both = split(q_proj.apply(h)?, heads, 2 * head_dim)?;
                    let mut halves = both.split_equal(2, -1).named("split")?.into_iter();
                    (halves.next().ok_or(MISSING)?, halves.next())
                } else {
                    (split(q_proj.apply(h)?, heads, head_dim)?, None)
                };
                let [keys, values] = [k_proj.apply(h)?, v_proj.apply(h)?].map(|x| split(x, kv_heads, head_dim));
                Projected { queries, gates, own: Some([keys?, values?]) }
            }
            Projection::QueryAndKey([q_proj, k_proj]) => {
                let queries = split(q_proj.apply(h)?, heads, head_dim)?;
                let keys = split(k_proj.apply(h)?, kv_heads, head_dim)?;
                Projected { queries, gates: None, own: Some([keys.clone(), keys]) }
            }
            Projection::Query(q_proj) => {
                Projected { queries: split(q_proj.apply(h)?, heads, head_dim)?, gates: None, own: None }
            }
            Projection::Joined(all) => {
                let all = all.apply(h)?;
                let [queries, keys, values] = match self.rule.projections {
                    Projections::Apart | Projections::Joined => {
                        let (query, key) = (self.rule.query_size(), self.rule.key_value_size());
                        parts(&all, [query, query + key])?
                    }
                    Projections::ByKeyHead => {
                        let together = heads / kv_heads;
                        let blocks = split(all, kv_heads, (together + 2) * head_dim)?;
                        parts(&blocks, [together * head_dim, (together + 1) * head_dim])?
                    }
                };
                let [keys, values] = [keys, values].map(|x| split(x, kv_heads, head_dim));
                Projected { queries: split(queries, heads, head_dim)?, gates: None, own: Some([keys?, values?]) }
            }
        })
    }

    /// Queries or keys, normalized and turned, as `[1, heads, n, head_dim]`.
    fn placed(&self, x: &Array, norm: Option<&HeadNorm>, stretch: Stretch) -> Result<Array, BodyError> {
        let turn = |x: &Array| match &self.rotation {
            Some(rotation) => rotation.turn(x, stretch),
            None => Ok(x.clone()),
        };
        match (norm, self.rule.qk_norm.is_some_and(|rule| rule.after_rope)) {
            (None, _) => turn(&swapped(x)?),
            (Some(norm), false) => turn(&swapped(&norm.apply(x)?)?),
            (Some(norm), true) => swapped(&norm.apply(&swapped(&turn(&swapped(x)?)?)?)?),
        }
    }

    /// Queries, multiplied by what grows with their positions.
    fn grown(&self, queries: Array, stretch: Stretch) -> Result<Array, BodyError> {
        let Some(growth) = self.rule.query_growth else { return Ok(queries) };
        let positions = stretch.offset..stretch.offset + stretch.n;
        let factors: Vec<f32> = positions.map(|position| grown(growth, position).unwrap_or(1.0)).collect();
        let factors = from_floats(&factors, queries.dtype())?.reshape(&shape([stretch.n, 1])?).named("reshape")?;
        multiply(queries, factors).named("multiply")
    }

    /// The heads' outputs, `[1, heads, n, head_dim]`.
    fn attend(&self, queries: &Array, [keys, values]: &KeysAndValues, stretch: Stretch) -> Result<Array, BodyError> {
        let Stretch { offset: before, n, .. } = stretch;
        let window = self.rule.window.unwrap_or(usize::MAX);
        // Positions before the stretch that its first one sees; what lies before these is seen by none.
        let seen = before.min(window - 1);
        let last = |x: &Array| {
            if seen == before {
                return Ok(x.clone());
            }
            let [start] = shape([before - seen])?;
            x.try_index((.., .., start.., ..)).named("slice")
        };
        let (keys, values) = (last(keys)?, last(values)?);
        let narrow = n > 1 && seen + n > window;
        let scale = self.rule.scale;
        if let Some(cap) = self.rule.softcap {
            let mask = if n > 1 { Some(mask(seen, n, narrow.then_some(window))?) } else { None };
            return self.attend_within(cap, queries, [&keys, &values], mask.as_ref());
        }
        let sinks = self.sinks.as_ref();
        let attended = if narrow {
            let mask = mask(seen, n, Some(window))?;
            scaled_dot_product_attention(queries, keys, values, scale, Mask::Array(&mask), sinks)
        } else if n > 1 {
            scaled_dot_product_attention(queries, keys, values, scale, Mask::Causal, sinks)
        } else {
            // A single position sees all that is there.
            scaled_dot_product_attention(queries, keys, values, scale, None, sinks)
        };
        attended.named("scaled_dot_product_attention")
    }

    /// The same with bounded scores, which MLX's own attention does not have.
    fn attend_within(
        &self,
        cap: f32,
        queries: &Array,
        [keys, values]: [&Array; 2],
        mask: Option<&Array>,
    ) -> Result<Array, BodyError> {
        let architecture::Attention { heads, kv_heads, head_dim, scale, .. } = self.rule;
        let n = queries.dim(2) as usize;
        let grouped = shape([1, kv_heads, heads / kv_heads, n, head_dim])?;
        let queries = times(queries, scale)?.reshape(&grouped).named("reshape")?;
        let shared = |x: &Array| expand_dims(x, 2).named("expand_dims");
        let keys = shared(keys)?.swap_axes(-1, -2).named("swap_axes")?;
        let scores = matmul(queries, keys).named("matmul")?;
        let bounded = tanh(divide(&scores, number(cap, &scores)?).named("divide")?).named("tanh")?;
        let mut scores = times(&bounded, cap)?;
        if let Some(mask) = mask {
            let least = match scores.dtype() {
                Dtype::Float16 => half::f16::MIN.to_f32(),
                Dtype::Bfloat16 => half::bf16::MIN.to_f32(),
                _ => f32::MIN,
            };
            scores = select(mask, &scores, number(least, &scores)?).named("select")?;
        }
        let weights = softmax_axis(scores, -1, true).named("softmax")?;
        let attended = matmul(weights, shared(values)?).named("matmul")?;
        attended.reshape(&shape([1, heads, n, head_dim])?).named("reshape")
    }
}

/// `[1, a, b, head_dim]` as `[1, b, a, head_dim]`.
fn swapped(x: &Array) -> Result<Array, BodyError> {
    x.transpose_axes(&[0, 2, 1, 3]).named("transpose")
}

/// Which of `seen` positions and the `n` after them each of these sees, `[n, seen + n]`.
fn mask(seen: usize, n: usize, window: Option<usize>) -> Result<Array, BodyError> {
    let [seen, n] = shape([seen, n])?;
    let keys = Array::arange::<_, i32>(0, seen + n, None).named("arange")?;
    let queries = Array::arange::<_, i32>(seen, seen + n, None).named("arange")?.reshape(&[n, 1]).named("reshape")?;
    let causal = ge(&queries, &keys).named("ge")?;
    let Some(window) = window else { return Ok(causal) };
    let end = add(keys, Array::from_int(shape([window])?[0])).named("add")?;
    logical_and(causal, lt(queries, end).named("lt")?).named("logical_and")
}
