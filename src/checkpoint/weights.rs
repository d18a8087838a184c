//! The weights of a model, as views into the files that hold them.

use super::bytes::Bytes;
use crate::quant::{self, Matrix};

/// A quantized matrix whose bytes lie in a checkpoint.
pub type Quantized = Matrix<Bytes>;

/// An unquantized matrix whose bytes lie in a checkpoint.
pub type Dense = quant::Dense<Bytes>;

/// A matrix as a checkpoint stores it.
pub type Weights = quant::Weights<Bytes>;

/// `y = weights * x + bias`.
#[derive(Clone, Debug)]
pub struct Linear {
    /// `[out, in]`.
    pub weights: Weights,
    /// `[out]`; only where `attention_bias` or `mlp_bias` asks for it.
    pub bias: Option<Vec<f32>>,
}

/// One transformer block, by the names that its tensors have under `model.layers.N`. With `D` for
/// `hidden_size`, `F` for `intermediate_size`, `Q` for all query columns, `K` for all key columns:
#[derive(Clone, Debug)]
pub struct LayerWeights {
    /// `[D]`.
    pub input_layernorm: Vec<f32>,
    /// `[Q, D]`.
    pub q_proj: Linear,
    /// `[K, D]`.
    pub k_proj: Linear,
    /// `[K, D]`.
    pub v_proj: Linear,
    /// `[D, Q]`.
    pub o_proj: Linear,
    /// `[D]`.
    pub post_attention_layernorm: Vec<f32>,
    /// `[F, D]`.
    pub gate_proj: Linear,
    /// `[F, D]`.
    pub up_proj: Linear,
    /// `[D, F]`.
    pub down_proj: Linear,
}

/// All weights of a model. Norms and biases are widened, matrices stay as they are stored.
#[derive(Clone, Debug)]
pub struct ModelWeights {
    /// `[vocab_size, hidden_size]`; quantized where the head is tied to it.
    pub embed_tokens: Weights,
    /// `num_hidden_layers` blocks.
    pub layers: Vec<LayerWeights>,
    /// `[hidden_size]`.
    pub norm: Vec<f32>,
    /// `[vocab_size, hidden_size]`; `None` where the embedding is also the head.
    pub lm_head: Option<Quantized>,
}

impl ModelWeights {
    /// The head: `lm_head`, or the embedding that it is tied to.
    ///
    /// # Panics
    /// If there is no `lm_head` and the embedding is dense, which no opened checkpoint has.
    pub fn head(&self) -> &Quantized {
        match (&self.lm_head, &self.embed_tokens) {
            (Some(head), _) | (None, Weights::Quantized(head)) => head,
            (None, Weights::Dense(_)) => panic!("the head of a tied model is quantized"),
        }
    }
}
