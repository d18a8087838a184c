//! The decoder on MLX: it interprets an [`Architecture`](crate::checkpoint::Architecture), layer by layer, and knows no family.
//!
//! Operations and their order are those of mlx-lm's model classes, MLX's fused ones where these use them.
//!
//! For one stretch of `n` positions of one sequence, `t` of which lie before it:
//!
//! ```text
//! x          [1, n, hidden]                  embed_tokens
//! each layer:
//!   q, k, v  [1, heads|kv_heads, n, head_dim] q_proj, k_proj, v_proj of attention_norm(x); rope at offset t on q and k
//!   o        [1, n, heads * head_dim]        scaled_dot_product_attention over t + n positions, causal
//!   x       += o_proj(o)
//!   x       += down_proj(activation(gate_proj(h)) * up_proj(h)),  h = mlp_norm(x)
//! hidden     [1, n, hidden]                  norm
//! ```

use mlx_rs::{
    Array, Dtype,
    fast::{ScaledDotProductAttentionMask, rms_norm, rope, scaled_dot_product_attention},
    ops::{add, concatenate, indexing::TryIndexOp, multiply, sigmoid, stack},
};

use super::{
    Named,
    arrays::{Linear, Matrix, Packed, Widen, dtype, from_floats, shape},
};
use crate::{
    checkpoint::{
        Architecture, AttentionWeights, Checkpoint, FeedForwardWeights, Inner, MixerWeights, NormWeights, Qkv,
        architecture::{
            self, Activation, FeedForward, Gate, KeyValues, Layer, Mixer, Norm, NormKind, NormWeight, Pairing,
            Projections, Rope, RopeScaling, Wiring,
        },
    },
    model::{
        BodyError,
        rope::{amplitude, frequencies},
    },
};

/// Something of a model that [`unsupported`] should have refused.
const MISSING: BodyError = BodyError::Unsupported { backend: "mlx", what: "a part of the architecture" };

/// The first thing that a model computes and this decoder does not.
pub(super) fn unsupported(architecture: &Architecture) -> Option<&'static str> {
    let of_model = [
        (architecture.embedding_scale.is_some(), "a scale of the embedding"),
        (architecture.learned_positions.is_some(), "learned positions"),
        (!plain(architecture.norm), "another norm than RMS norm"),
    ];
    let first = |all: &[(bool, &'static str)]| all.iter().find(|(there, _)| *there).map(|(_, what)| *what);
    let of_layer = |layer: &Layer| match layer.mixer.attention() {
        Some(attention) => first(&of_layer(layer, attention)),
        None => Some("layers with a state of their own"),
    };
    first(&of_model).or_else(|| architecture.layers.kinds().iter().find_map(of_layer))
}

/// Whether it is the norm that all norms here are.
fn plain(norm: Norm) -> bool {
    norm.kind == NormKind::Rms && norm.weight == NormWeight::AsStored && !norm.bias
}

fn of_layer(layer: &Layer, attention: &architecture::Attention) -> [(bool, &'static str); 22] {
    let mlp = layer.mlp.mlp();
    let rope = attention.rope.as_ref();
    [
        (matches!(layer.mlp, FeedForward::Experts(_)), "a mixture of experts"),
        (layer.wiring != Wiring::Serial, "parallel branches"),
        (!layer.attention_norm.is_some_and(plain) || !layer.mlp_norm.is_some_and(plain), "another norm than RMS norm"),
        (layer.attention_output_norm.is_some() || layer.mlp_output_norm.is_some(), "norms of branches' outputs"),
        (layer.residual_scale.is_some(), "a scale of branches"),
        (attention.softcap.is_some(), "a bound of attention's scores"),
        (attention.sinks, "attention sinks"),
        (attention.gated, "gates of attention's outputs"),
        (attention.scale != 1.0 / (attention.head_dim as f32).sqrt(), "another scale of attention's scores"),
        (rope.is_some_and(|rope| amplitude(rope).is_some()), "an amplitude of the rotary embedding"),
        (layer.token_input.is_some() || layer.output_scale, "a third branch"),
        (attention.key_values != KeyValues::Own || attention.value_norm.is_some(), "keys and values of other layers"),
        (
            rope.is_some_and(|rope| matches!(rope.scaling, RopeScaling::Proportional { .. })),
            "a rotary embedding of some pairs of a head",
        ),
        (attention.window.is_some(), "a sliding window"),
        (attention.query_growth.is_some(), "queries that grow"),
        (attention.qk_norm.is_some(), "norms of queries and keys"),
        (attention.projections != Projections::Apart || mlp.gate != Gate::Apart, "projections in one matrix"),
        (
            rope.is_some_and(|rope| matches!(rope.scaling, RopeScaling::Dynamic { .. })),
            "a rotary embedding that depends on the text's length",
        ),
        (rope.is_none(), "layers without a rotary embedding"),
        (rope.is_some_and(|rope| rope.pairing != Pairing::Halves), "a rotary embedding of neighbouring columns"),
        (rope.is_some_and(|rope| rope.columns != attention.head_dim), "a rotary embedding of a part of a head"),
        (mlp.activation != Activation::Silu, "another activation than SiLU"),
    ]
}

/// A model's weights in MLX's memory, all of them evaluated, with what is computed by them.
#[derive(Debug)]
pub(super) struct Decoder {
    hidden_size: usize,
    embed_tokens: Matrix,
    blocks: Vec<Block>,
    norm: Normalization,
    /// The type of embeddings, also of those that are not the checkpoint's own.
    embedded: Dtype,
}

#[derive(Debug)]
struct Block {
    attention_norm: Normalization,
    attention: Attention,
    mlp_norm: Normalization,
    mlp: Mlp,
}

#[derive(Debug)]
struct Normalization {
    norm: Norm,
    weight: Array,
}

#[derive(Debug)]
struct Attention {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    rotation: Rotation,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
}

#[derive(Debug)]
struct Mlp {
    activation: Activation,
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
}

/// How positions turn queries and keys.
#[derive(Debug)]
enum Rotation {
    /// A base, with positions multiplied by `scale`.
    Base { base: f32, scale: f32 },
    /// The wavelengths divided by 2 pi, `[head_dim / 2]`.
    Wavelengths(Array),
}

/// The input of a stretch: its tokens, or embedding rows that replace them.
pub(super) enum Input<'a> {
    Tokens(&'a [u32]),
    /// `[n, hidden]`.
    Embeddings(&'a [f32]),
}

/// The positions of a stretch.
#[derive(Clone, Copy)]
struct Stretch {
    /// Positions before it.
    offset: i32,
    n: usize,
}

impl Decoder {
    /// `tied` is the embedding, where it is the head, too, and so is there already.
    pub(super) fn load(checkpoint: &Checkpoint, tied: Option<&Packed>, widen: Widen) -> Result<Self, BodyError> {
        let (architecture, weights) = (&checkpoint.config().architecture, checkpoint.weights());
        let embed_tokens = match tied {
            Some(packed) => Matrix::packed(packed.clone(), widen)?,
            None => Matrix::of(&weights.embed_tokens, widen)?,
        };
        let blocks = architecture.layers.iter().zip(&weights.layers).map(|(layer, weights)| {
            let (Mixer::Attention(attention), MixerWeights::Attention(own)) = (&layer.mixer, &weights.mixer) else {
                return Err(MISSING);
            };
            Ok::<_, BodyError>(Block {
                attention_norm: Normalization::load(layer.attention_norm, weights.attention_norm.as_ref(), widen)?,
                attention: Attention::load(attention, own, widen)?,
                mlp_norm: Normalization::load(layer.mlp_norm, weights.mlp_norm.as_ref(), widen)?,
                mlp: Mlp::load(&layer.mlp, &weights.mlp, widen)?,
            })
        });
        Ok(Self {
            hidden_size: architecture.hidden_size,
            embedded: embed_tokens.embed(&[0])?.dtype(),
            embed_tokens,
            blocks: blocks.collect::<Result<_, _>>()?,
            norm: Normalization::load(Some(architecture.norm), Some(&weights.norm), widen)?,
        })
    }

    /// The type that hidden states come out in. Nothing is computed.
    pub(super) fn dtype(&self) -> Result<Dtype, BodyError> {
        Ok(self.run(&Input::Tokens(&[0]), 0, None)?.0.dtype())
    }

    /// The graph of one stretch: hidden states `[1, n, hidden]`, and its keys and values
    /// `[2 * layers, 1, kv_heads, n, head_dim]`, which `past` holds of the `offset` positions before it.
    pub(super) fn run(
        &self,
        input: &Input<'_>,
        offset: usize,
        past: Option<&Array>,
    ) -> Result<(Array, Array), BodyError> {
        let (n, x) = match *input {
            Input::Tokens(tokens) => (tokens.len(), self.embed_tokens.embed(tokens)?),
            Input::Embeddings(rows) => (rows.len() / self.hidden_size, from_floats(rows, self.embedded)?),
        };
        let [offset] = shape([offset])?;
        let stretch = Stretch { offset, n };
        let mut x = x.reshape(&shape([1, n, self.hidden_size])?).named("reshape")?;
        let mut own = Vec::with_capacity(2 * self.blocks.len());
        for (index, block) in self.blocks.iter().enumerate() {
            let before = |at: usize| match past {
                None => Ok(None),
                Some(past) => past.try_index(shape([at])?[0]).named("slice").map(Some),
            };
            let past = [before(2 * index)?, before(2 * index + 1)?];
            let (o, keys_and_values) = block.attention.apply(&block.attention_norm.apply(&x)?, stretch, past)?;
            own.extend(keys_and_values);
            x = add(&x, o).named("add")?;
            x = add(&x, block.mlp.apply(&block.mlp_norm.apply(&x)?)?).named("add")?;
        }
        Ok((self.norm.apply(&x)?, stack(&own, 0).named("stack")?))
    }
}

impl Normalization {
    fn load(norm: Option<Norm>, weights: Option<&NormWeights>, widen: Widen) -> Result<Self, BodyError> {
        let (norm, weight) = norm.zip(weights.and_then(|weights| weights.weight.as_ref())).ok_or(MISSING)?;
        // The checkpoint widens its vectors; here they are what they were.
        let weight = widen.apply(from_floats(&weight.values, dtype(weight.float_type))?)?;
        weight.eval().named("astype")?;
        Ok(Self { norm, weight })
    }

    fn apply(&self, x: &Array) -> Result<Array, BodyError> {
        rms_norm(x, Some(&self.weight), self.norm.eps).named("rms_norm")
    }
}

impl Attention {
    fn load(attention: &architecture::Attention, weights: &AttentionWeights, widen: Widen) -> Result<Self, BodyError> {
        let architecture::Attention { heads, kv_heads, head_dim, ref rope, .. } = *attention;
        let (Qkv::Apart([q_proj, k_proj, v_proj]), Some(rope)) = (&weights.qkv, rope) else { return Err(MISSING) };
        Ok(Self {
            heads,
            kv_heads,
            head_dim,
            rotation: Rotation::new(rope)?,
            q_proj: Linear::of(q_proj, widen)?,
            k_proj: Linear::of(k_proj, widen)?,
            v_proj: Linear::of(v_proj, widen)?,
            o_proj: Linear::of(&weights.o_proj, widen)?,
        })
    }

    /// The branch's output and the stretch's keys and values; `past` are those before it.
    fn apply(&self, h: &Array, stretch: Stretch, past: [Option<Array>; 2]) -> Result<(Array, [Array; 2]), BodyError> {
        let Self { heads, kv_heads, head_dim, .. } = *self;
        let Stretch { offset, n } = stretch;
        let split = |x: Array, heads: usize| {
            let x = x.reshape(&shape([1, n, heads, head_dim])?).named("reshape")?;
            x.transpose_axes(&[0, 2, 1, 3]).named("transpose")
        };
        let q = self.turn(&split(self.q_proj.apply(h)?, heads)?, offset)?;
        let k = self.turn(&split(self.k_proj.apply(h)?, kv_heads)?, offset)?;
        let v = split(self.v_proj.apply(h)?, kv_heads)?;
        let behind = |past: Option<Array>, new: &Array| match past {
            None => Ok(new.clone()),
            Some(past) => concatenate(&[&past, new], 2).named("concatenate"),
        };
        let [past_keys, past_values] = past;
        let (keys, values) = (behind(past_keys, &k)?, behind(past_values, &v)?);
        let scale = (head_dim as f64).powf(-0.5) as f32;
        // A single position sees all that is there.
        let o = if n > 1 {
            let mask = ScaledDotProductAttentionMask::Causal;
            scaled_dot_product_attention(q, keys, values, scale, mask, None)
        } else {
            scaled_dot_product_attention(q, keys, values, scale, None, None)
        };
        let o = o.named("scaled_dot_product_attention")?;
        let o = o.transpose_axes(&[0, 2, 1, 3]).named("transpose")?;
        let o = o.reshape(&shape([1, n, heads * head_dim])?).named("reshape")?;
        Ok((self.o_proj.apply(&o)?, [k, v]))
    }

    fn turn(&self, x: &Array, offset: i32) -> Result<Array, BodyError> {
        let [dimensions] = shape([self.head_dim])?;
        match &self.rotation {
            Rotation::Base { base, scale } => rope(x, dimensions, false, *base, *scale, offset, None),
            Rotation::Wavelengths(freqs) => rope(x, dimensions, false, None, 1.0, offset, freqs),
        }
        .named("rope")
    }
}

impl Mlp {
    fn load(branch: &FeedForward, weights: &FeedForwardWeights, widen: Widen) -> Result<Self, BodyError> {
        let (FeedForward::Mlp(mlp), FeedForwardWeights::Mlp(weights)) = (branch, weights) else { return Err(MISSING) };
        let Inner::Gated([gate_proj, up_proj]) = &weights.inner else { return Err(MISSING) };
        Ok(Self {
            activation: mlp.activation,
            gate_proj: Linear::of(gate_proj, widen)?,
            up_proj: Linear::of(up_proj, widen)?,
            down_proj: Linear::of(&weights.down_proj, widen)?,
        })
    }

    fn apply(&self, h: &Array) -> Result<Array, BodyError> {
        let gate = self.gate_proj.apply(h)?;
        let gate = match self.activation {
            Activation::Silu => multiply(&gate, sigmoid(&gate).named("sigmoid")?).named("multiply")?,
            _ => return Err(MISSING),
        };
        let inner = multiply(gate, self.up_proj.apply(h)?).named("multiply")?;
        self.down_proj.apply(&inner)
    }
}

impl Rotation {
    fn new(rope: &Rope) -> Result<Self, BodyError> {
        let base = rope.theta as f32;
        Ok(match rope.scaling {
            RopeScaling::Dynamic { .. } | RopeScaling::Proportional { .. } => return Err(MISSING),
            RopeScaling::Default => Self::Base { base, scale: 1.0 },
            RopeScaling::Linear { factor } => Self::Base { base, scale: (1.0 / factor) as f32 },
            // mlx-lm takes the same numbers in float32; a unit in the last place apart at most.
            RopeScaling::Llama3 { .. } | RopeScaling::Yarn { .. } | RopeScaling::Long { .. } => {
                let wavelengths: Vec<f32> = frequencies(rope).map(|frequency| (1.0 / frequency) as f32).collect();
                let array = from_floats(&wavelengths, Dtype::Float32)?;
                array.eval().named("astype")?;
                Self::Wavelengths(array)
            }
        })
    }
}
