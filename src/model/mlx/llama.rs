//! Llama on MLX, as mlx-lm's `models/llama.py` computes it: the same operations in the same order, MLX's fused ones
//! where it uses them.
//!
//! For one stretch of `n` positions of one sequence, `t` of which lie before it:
//!
//! ```text
//! x          [1, n, hidden]                  embed_tokens
//! each layer:
//!   q, k, v  [1, heads|kv_heads, n, head_dim] q_proj, k_proj, v_proj; rope at offset t on q and k
//!   o        [1, n, heads * head_dim]        scaled_dot_product_attention over t + n positions, causal
//!   x       += o_proj(o)
//!   x       += down_proj(silu(gate_proj(h)) * up_proj(h)),  h = rms_norm(x)
//! hidden     [1, n, hidden]                  rms_norm
//! ```

use std::collections::BTreeMap;

use mlx_rs::{
    Array, Dtype,
    fast::{ScaledDotProductAttentionMask, rms_norm, rope, scaled_dot_product_attention},
    ops::{add, concatenate, indexing::TryIndexOp, multiply, sigmoid, stack},
};

use super::{
    Named,
    arrays::{Layer, Matrix, Packed, Widen, from_floats, shape},
};
use crate::{
    checkpoint::{
        Checkpoint,
        config::{Config, RopeScaling},
    },
    model::{BodyError, rope::frequencies},
};

/// A Llama's weights in MLX's memory, all of them evaluated.
#[derive(Debug)]
pub(super) struct Llama {
    config: Config,
    embed_tokens: Matrix,
    blocks: Vec<Block>,
    norm: Array,
    rotation: Rotation,
    /// Of embeddings that are not the checkpoint's own, as of the ones that are.
    embedded: Dtype,
}

#[derive(Debug)]
struct Block {
    input_layernorm: Array,
    q_proj: Layer,
    k_proj: Layer,
    v_proj: Layer,
    o_proj: Layer,
    post_attention_layernorm: Array,
    gate_proj: Layer,
    up_proj: Layer,
    down_proj: Layer,
}

/// How positions turn queries and keys.
#[derive(Debug)]
enum Rotation {
    /// By a base, positions multiplied by `scale`.
    Base { base: f32, scale: f32 },
    /// By the wavelengths over 2 pi, `[head_dim / 2]`.
    Wavelengths(Array),
}

/// Tokens of a stretch, or rows that stand for them.
pub(super) enum Input<'a> {
    Tokens(&'a [u32]),
    /// `[n, hidden]`.
    Embeddings(&'a [f32]),
}

impl Llama {
    /// `tied` is the embedding, where it is the head, too, and so is there already.
    pub(super) fn load(checkpoint: &Checkpoint, tied: Option<&Packed>, widen: Widen) -> Result<Self, BodyError> {
        let (config, weights) = (checkpoint.config(), checkpoint.weights());
        let stored: BTreeMap<&str, Dtype> = checkpoint
            .tensors()
            .iter()
            .filter_map(|tensor| {
                let dtype = match tensor.dtype.as_str() {
                    "float16" => Dtype::Float16,
                    "bfloat16" => Dtype::Bfloat16,
                    "float32" => Dtype::Float32,
                    _ => return None,
                };
                Some((tensor.name.as_str(), dtype))
            })
            .collect();
        // The checkpoint widens its vectors; here they are what they were. A vector that a layer does not have is not
        // asked for.
        let stored = |name: &str| stored.get(name).copied().unwrap_or(Dtype::Float32);
        let vector = |values: &[f32], name: String| {
            let array = widen.apply(from_floats(values, stored(&name))?)?;
            array.eval().named("astype")?;
            Ok::<_, BodyError>(array)
        };
        let block = |(index, layer): (usize, &crate::checkpoint::LayerWeights)| {
            let name = format!("model.layers.{index}");
            let linear = |linear, module: &str| Layer::of(linear, stored(&format!("{name}.{module}.bias")), widen);
            Ok::<_, BodyError>(Block {
                input_layernorm: vector(&layer.input_layernorm, format!("{name}.input_layernorm.weight"))?,
                q_proj: linear(&layer.q_proj, "self_attn.q_proj")?,
                k_proj: linear(&layer.k_proj, "self_attn.k_proj")?,
                v_proj: linear(&layer.v_proj, "self_attn.v_proj")?,
                o_proj: linear(&layer.o_proj, "self_attn.o_proj")?,
                post_attention_layernorm: vector(
                    &layer.post_attention_layernorm,
                    format!("{name}.post_attention_layernorm.weight"),
                )?,
                gate_proj: linear(&layer.gate_proj, "mlp.gate_proj")?,
                up_proj: linear(&layer.up_proj, "mlp.up_proj")?,
                down_proj: linear(&layer.down_proj, "mlp.down_proj")?,
            })
        };
        let embed_tokens = match tied {
            Some(packed) => Matrix::packed(packed.clone(), widen)?,
            None => Matrix::of(&weights.embed_tokens, widen)?,
        };
        Ok(Self {
            embedded: embed_tokens.embed(&[0])?.dtype(),
            embed_tokens,
            blocks: weights.layers.iter().enumerate().map(block).collect::<Result<_, _>>()?,
            norm: vector(&weights.norm, "model.norm.weight".to_owned())?,
            rotation: Rotation::new(config)?,
            config: config.clone(),
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
        let Config { hidden_size, num_attention_heads, num_key_value_heads, head_dim, rms_norm_eps, .. } = self.config;
        let (n, x) = match *input {
            Input::Tokens(tokens) => (tokens.len(), self.embed_tokens.embed(tokens)?),
            Input::Embeddings(rows) => (rows.len() / hidden_size, from_floats(rows, self.embedded)?),
        };
        let [offset, total] = shape([offset, n])?;
        let split = |x: Array, heads: usize| {
            let [n, heads, head_dim] = shape([n, heads, head_dim])?;
            let x = x.reshape(&[1, n, heads, head_dim]).named("reshape")?;
            x.transpose_axes(&[0, 2, 1, 3]).named("transpose")
        };
        let eps = rms_norm_eps as f32;
        let scale = (head_dim as f64).powf(-0.5) as f32;
        let mut x = x.reshape(&shape([1, n, hidden_size])?).named("reshape")?;
        let mut own = Vec::with_capacity(2 * self.blocks.len());
        for (index, block) in self.blocks.iter().enumerate() {
            let h = rms_norm(&x, Some(&block.input_layernorm), eps).named("rms_norm")?;
            let q = self.turn(&split(block.q_proj.apply(&h)?, num_attention_heads)?, offset)?;
            let k = self.turn(&split(block.k_proj.apply(&h)?, num_key_value_heads)?, offset)?;
            let v = split(block.v_proj.apply(&h)?, num_key_value_heads)?;
            let before = |at: usize, new: &Array| match past {
                None => Ok(new.clone()),
                Some(past) => {
                    let before = past.try_index(shape([at])?[0]).named("slice")?;
                    concatenate(&[&before, new], 2).named("concatenate")
                }
            };
            let (keys, values) = (before(2 * index, &k)?, before(2 * index + 1, &v)?);
            own.extend([k, v]);
            // A single position sees all that is there.
            let mask = (total > 1).then_some(ScaledDotProductAttentionMask::Causal);
            let o = match mask {
                Some(mask) => scaled_dot_product_attention(q, keys, values, scale, mask, None),
                None => scaled_dot_product_attention(q, keys, values, scale, None, None),
            };
            let o = o.named("scaled_dot_product_attention")?;
            let o = o.transpose_axes(&[0, 2, 1, 3]).named("transpose")?;
            let o = o.reshape(&shape([1, n, num_attention_heads * head_dim])?).named("reshape")?;
            x = add(&x, block.o_proj.apply(&o)?).named("add")?;
            let h = rms_norm(&x, Some(&block.post_attention_layernorm), eps).named("rms_norm")?;
            let gate = block.gate_proj.apply(&h)?;
            let silu = multiply(&gate, sigmoid(&gate).named("sigmoid")?).named("multiply")?;
            let inner = multiply(silu, block.up_proj.apply(&h)?).named("multiply")?;
            x = add(&x, block.down_proj.apply(&inner)?).named("add")?;
        }
        let hidden = rms_norm(&x, Some(&self.norm), eps).named("rms_norm")?;
        Ok((hidden, stack(&own, 0).named("stack")?))
    }

    fn turn(&self, x: &Array, offset: i32) -> Result<Array, BodyError> {
        let [dimensions] = shape([self.config.head_dim])?;
        match &self.rotation {
            Rotation::Base { base, scale } => rope(x, dimensions, false, *base, *scale, offset, None),
            Rotation::Wavelengths(freqs) => rope(x, dimensions, false, None, 1.0, offset, freqs),
        }
        .named("rope")
    }
}

impl Rotation {
    fn new(config: &Config) -> Result<Self, BodyError> {
        let base = config.rope_theta as f32;
        Ok(match config.rope_scaling {
            RopeScaling::Default => Self::Base { base, scale: 1.0 },
            RopeScaling::Linear { factor } => Self::Base { base, scale: (1.0 / factor) as f32 },
            // mlx-lm takes the same numbers in float32; a unit in the last place apart at most.
            RopeScaling::Llama3 { .. } => {
                let wavelengths: Vec<f32> = frequencies(config).map(|frequency| (1.0 / frequency) as f32).collect();
                let array = from_floats(&wavelengths, Dtype::Float32)?;
                array.eval().named("astype")?;
                Self::Wavelengths(array)
            }
        })
    }
}
