//! The weights of a model, as views into the files that hold them.

use std::path::PathBuf;

use super::bytes::Bytes;
use crate::quant::{DenseRef, FloatType, Layout, MatrixError, MatrixRef, WeightsRef};

/// Where bytes lie on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRange {
    /// Absolute path of the file.
    pub path: PathBuf,
    /// First byte, from the start of the file.
    pub offset: u64,
    /// Bytes.
    pub len: usize,
}

/// The bytes of one tensor.
#[derive(Clone, Debug)]
pub struct Part {
    /// Little-endian elements, at any alignment.
    pub bytes: Bytes,
    /// Where they lie on disk; `None` where they were in memory.
    pub origin: Option<FileRange>,
}

/// A quantized matrix `[rows, cols]` that owns its bytes.
#[derive(Clone, Debug)]
pub struct Quantized {
    layout: Layout,
    weight: Part,
    scales: Part,
    biases: Part,
}

impl Quantized {
    /// A matrix of three parts.
    ///
    /// # Errors
    /// [`MatrixError::Length`] where a part is not as long as `layout` asks for.
    pub fn new(layout: Layout, weight: Part, scales: Part, biases: Part) -> Result<Self, MatrixError> {
        MatrixRef::new(layout, &weight.bytes, &scales.bytes, &biases.bytes)?;
        Ok(Self { layout, weight, scales, biases })
    }

    /// Shape and format.
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The view that kernels read.
    pub fn view(&self) -> MatrixRef<'_> {
        MatrixRef::new(self.layout, &self.weight.bytes, &self.scales.bytes, &self.biases.bytes)
            .expect("the lengths were checked in `new`")
    }

    /// `weight`, `scales` and `biases`.
    pub const fn parts(&self) -> [&Part; 3] {
        [&self.weight, &self.scales, &self.biases]
    }
}

/// An unquantized matrix `[rows, cols]`, row-major and little-endian, at any alignment.
#[derive(Clone, Debug)]
pub struct Dense {
    rows: usize,
    cols: usize,
    float_type: FloatType,
    data: Bytes,
}

impl Dense {
    /// `data` of a tensor whose shape was checked.
    pub(super) fn new(rows: usize, cols: usize, float_type: FloatType, data: Bytes) -> Self {
        debug_assert_eq!(data.len(), rows * cols * float_type.size());
        Self { rows, cols, float_type, data }
    }
    /// Output features, or tokens of an embedding.
    pub const fn rows(&self) -> usize {
        self.rows
    }
    /// Input features.
    pub const fn cols(&self) -> usize {
        self.cols
    }
    /// Element type of [`data`](Self::data).
    pub const fn float_type(&self) -> FloatType {
        self.float_type
    }
    /// `rows * cols` elements.
    pub const fn data(&self) -> &Bytes {
        &self.data
    }
    /// The matrix as kernels read it.
    pub fn view(&self) -> DenseRef<'_> {
        DenseRef::new(self.rows, self.cols, self.float_type, &self.data).expect("lengths are checked on construction")
    }
    /// The element at `row`, `col`, widened exactly.
    ///
    /// # Panics
    /// If either is out of range.
    pub fn get(&self, row: usize, col: usize) -> f32 {
        assert!(col < self.cols, "column {col} of {}", self.cols);
        self.float_type.get(&self.data, row * self.cols + col)
    }
}

/// A matrix `[rows, cols]` as the checkpoint stores it.
#[derive(Clone, Debug)]
pub enum Weights {
    /// Packed codes with scales and biases.
    Quantized(Quantized),
    /// Floats.
    Dense(Dense),
}

impl Weights {
    /// The matrix as kernels read it.
    pub fn view(&self) -> WeightsRef<'_> {
        match self {
            Self::Quantized(matrix) => WeightsRef::Quantized(matrix.view()),
            Self::Dense(matrix) => WeightsRef::Dense(matrix.view()),
        }
    }

    /// Output features, or tokens of an embedding.
    pub const fn rows(&self) -> usize {
        match self {
            Self::Quantized(matrix) => matrix.layout.rows(),
            Self::Dense(matrix) => matrix.rows,
        }
    }
    /// Input features.
    pub const fn cols(&self) -> usize {
        match self {
            Self::Quantized(matrix) => matrix.layout.cols(),
            Self::Dense(matrix) => matrix.cols,
        }
    }
}

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
