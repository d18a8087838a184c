//! The weights of a model, as views into the files that hold them.

use std::collections::BTreeMap;

use super::bytes::Bytes;
use crate::quant::FloatType;
use crate::quant::{self, Matrix};

/// A quantized matrix whose bytes lie in a checkpoint.
pub type Quantized = Matrix<Bytes>;

/// An unquantized matrix whose bytes lie in a checkpoint.
pub type Dense = quant::Dense<Bytes>;

/// A matrix as a checkpoint stores it.
pub type Weights = quant::Weights<Bytes>;

/// A vector, such as the weights of a norm, widened.
#[derive(Clone, Debug)]
pub struct Vector {
    /// Its elements.
    pub values: Vec<f32>,
    /// The type in which the checkpoint stores them.
    pub float_type: FloatType,
}

/// `y = weights * x + bias`.
#[derive(Clone, Debug)]
pub struct Linear {
    /// `[out, in]`.
    pub weights: Weights,
    /// `[out]`; only where the architecture has one.
    pub bias: Option<Vector>,
}

/// One transformer block. With `D` for the model's hidden size, `Q` for all query columns, `K` for all key columns and `F` for the
/// MLP's intermediate size:
#[derive(Clone, Debug)]
pub struct LayerWeights {
    /// `[D]`.
    pub attention_norm: Vector,
    /// The first branch.
    pub attention: AttentionWeights,
    /// `[D]`.
    pub mlp_norm: Vector,
    /// The second branch.
    pub mlp: MlpWeights,
}

/// Attention of a [`LayerWeights`].
#[derive(Clone, Debug)]
pub struct AttentionWeights {
    /// `[Q, D]`.
    pub q_proj: Linear,
    /// `[K, D]`.
    pub k_proj: Linear,
    /// `[K, D]`.
    pub v_proj: Linear,
    /// `[D, Q]`.
    pub o_proj: Linear,
}

/// MLP of a [`LayerWeights`].
#[derive(Clone, Debug)]
pub struct MlpWeights {
    /// `[F, D]`.
    pub gate_proj: Linear,
    /// `[F, D]`.
    pub up_proj: Linear,
    /// `[D, F]`.
    pub down_proj: Linear,
}

/// All weights of a model, by their roles in its [`Architecture`](super::Architecture), whatever the family names them. Norms and
/// biases are widened, matrices stay as they are stored.
#[derive(Clone, Debug)]
pub struct ModelWeights {
    /// `[vocab_size, hidden_size]`; quantized where the head is tied to it.
    pub embed_tokens: Weights,
    /// One for each layer.
    pub layers: Vec<LayerWeights>,
    /// `[hidden_size]`.
    pub norm: Vector,
    /// `[vocab_size, hidden_size]`; `None` where the embedding is also the head.
    pub lm_head: Option<Quantized>,
    /// How each matrix is stored, by the name of its module: the name of a format or of a type, such as `affine-4-g64`, `mxfp4` or
    /// `bfloat16`.
    pub formats: BTreeMap<String, String>,
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
