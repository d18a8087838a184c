//! The decoder on MLX: it interprets an [`Architecture`](crate::checkpoint::Architecture), layer by layer, and knows no family.
//!
//! Operations and their order are those of mlx-lm's model classes, MLX's fused ones where these use them. For one stretch of `n` positions of
//! one sequence:
//!
//! ```text
//! x          [1, n, hidden]                   embed_tokens
//! each layer:
//!   q, k, v  [1, heads|kv_heads, n, head_dim] projections of attention_norm(x); q and k turned
//!   o        [1, n, heads * head_dim]         attention over the positions before and those of the stretch
//!   x       += o_proj(o)
//!   x       += down_proj(activation(gate_proj(h)) * up_proj(h)),  h = mlp_norm(x)
//! hidden     [1, n, hidden]                   norm
//! ```
//!
//! What a layer does not have, such as a bias, is skipped. `block.rs` says how branches are joined; `unsupported.rs` names what is not
//! computed here.

mod activation;
mod attention;
mod block;
mod embedding;
mod experts;
mod mlp;
mod norm;
mod rope;
mod router;
mod unsupported;

use mlx_rs::{Array, Dtype};

use super::{
    arrays::{Packed, Widen},
    kept::Kept,
};
use crate::{
    checkpoint::Checkpoint,
    model::{BodyError, rope::depends_on_known_positions},
};
use attention::{Attended, Before, KeysAndValues};
use block::Block;
use embedding::Embedding;
use norm::Normalization;
pub(super) use unsupported::unsupported;

/// Something of a model that [`unsupported`] should have refused.
pub(super) const MISSING: BodyError = BodyError::Unsupported { backend: "mlx", what: "a part of the architecture" };

/// A model's weights in MLX's memory, all of them evaluated, with what is computed by them.
#[derive(Debug)]
pub(super) struct Decoder {
    embedding: Embedding,
    blocks: Vec<Block>,
    norm: Normalization,
    kept: Kept,
    depends_on_prompt_length: bool,
}

/// The input of a stretch.
pub(super) struct Input<'a> {
    pub(super) tokens: &'a [u32],
    /// Embeddings in the place of the tokens' own, `[n, hidden]`.
    pub(super) rows: Option<&'a [f32]>,
}

/// The positions of a stretch.
#[derive(Clone, Copy)]
struct Stretch {
    /// Positions before it.
    offset: usize,
    n: usize,
    /// Positions that the text has as these are computed: those of the prompt inside of it, else those up to the last one.
    known: usize,
}

impl Decoder {
    /// `tied` is the embedding, where it is the head, too, and so is there already.
    pub(super) fn load(checkpoint: &Checkpoint, tied: Option<&Packed>, widen: Widen) -> Result<Self, BodyError> {
        let (architecture, weights) = (&checkpoint.config().architecture, checkpoint.weights());
        let blocks = architecture.layers.iter().zip(&weights.layers);
        Ok(Self {
            embedding: Embedding::load(checkpoint, tied, widen)?,
            blocks: blocks.map(|(layer, weights)| Block::load(layer, weights, widen)).collect::<Result<_, _>>()?,
            norm: Normalization::load(architecture.norm, &weights.norm, widen)?,
            kept: Kept::new(architecture),
            depends_on_prompt_length: depends_on_known_positions(architecture),
        })
    }

    /// Whether the hidden states of a prompt depend on its length.
    pub(super) const fn depends_on_prompt_length(&self) -> bool {
        self.depends_on_prompt_length
    }

    /// The type that hidden states come out in. Nothing is computed.
    pub(super) fn dtype(&self) -> Result<Dtype, BodyError> {
        Ok(self.run(&Input { tokens: &[0], rows: None }, 0, 0, None)?.0.dtype())
    }

    /// The graph of one stretch after `offset` positions, of which `past` has the keys and values: hidden states `[1, n, hidden]`, and the
    /// keys and values of the stretch. It is part of a prompt of `prompt` positions, or lies behind it.
    pub(super) fn run(
        &self,
        input: &Input<'_>,
        offset: usize,
        prompt: usize,
        past: Option<&[Array]>,
    ) -> Result<(Array, Vec<Array>), BodyError> {
        let n = input.tokens.len();
        let stretch = Stretch { offset, n, known: prompt.max(offset + n) };
        let entering = self.embedding.apply(input, stretch)?;
        let mut x = entering.x.clone();
        let mut seen: Vec<KeysAndValues> = Vec::with_capacity(self.blocks.len());
        let mut own = self.kept.gather();
        for (index, block) in self.blocks.iter().enumerate() {
            let before = match (block.lender, past) {
                (Some(lender), _) => Before::Lent(seen.get(lender).ok_or(MISSING)?),
                (None, None) => Before::Nothing,
                (None, Some(past)) => Before::Own(self.kept.of_layer(index, past)?),
            };
            let Attended { output, new, all } = block.apply(index, &x, stretch, &entering, before)?;
            x = output;
            seen.push(all);
            own.take(index, new);
        }
        Ok((self.norm.apply(&x)?, own.arrays()?))
    }
}
