//! From tensors to a model: every tensor that the configuration asks for, by its name in the
//! checkpoint, with exactly the shape that it must have, and no other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::{
    bytes::Bytes,
    config::{Config, Override},
    json::shortened,
    tensors::{Dtype, StoredTensor},
    weights::{Dense, LayerWeights, Linear, ModelWeights, Quantized, Weights},
};
use crate::quant::{FloatType, Format, Layout, MatrixError};

/// What the tensors of a checkpoint lack, or have too much, for the model that `config.json` states.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WeightsError {
    /// A tensor that the model needs is not there.
    #[error("tensor `{tensor}` is missing")]
    Missing {
        /// The tensor.
        tensor: String,
    },
    /// A tensor that the model has no use for.
    #[error("tensor `{tensor}` in {file} is unknown: it belongs to no part of the model that config.json states")]
    Unknown {
        /// The tensor.
        tensor: String,
        /// The file that holds it.
        file: String,
    },
    /// A separate head, where the configuration ties it to the embedding.
    #[error(
        "tensor `{tensor}` in {file} belongs to a separate head, but config.json ties the head to the embedding \
         (an absent `tie_word_embeddings` means true, as in mlx-lm); set `tie_word_embeddings` to false if it has its own"
    )]
    HeadOfTied {
        /// The tensor.
        tensor: String,
        /// The file that holds it.
        file: String,
    },
    /// A tensor of another element type than it must have.
    #[error("tensor `{tensor}` has elements of type {found}, but must have {wanted}")]
    ElementType {
        /// The tensor.
        tensor: String,
        /// Its type, as the safetensors format writes it.
        found: String,
        /// Types that it may have.
        wanted: &'static str,
    },
    /// A tensor of another shape than the configuration gives it.
    #[error("tensor `{tensor}` has shape {found:?}, but config.json makes it {wanted:?}{}", Stored(.format))]
    Shape {
        /// The tensor.
        tensor: String,
        /// Its shape.
        found: Vec<u64>,
        /// The shape that it must have.
        wanted: Vec<u64>,
        /// How it is quantized, if it is part of a quantized matrix.
        format: Option<Format>,
    },
    /// A matrix that cannot be quantized in its format.
    #[error("matrix `{module}`: {error}")]
    Matrix {
        /// The module.
        module: String,
        /// Why not.
        error: MatrixError,
    },
    /// Scales and biases must have one type.
    #[error("`{module}.scales` has elements of type {scales}, but `{module}.biases` of type {biases}")]
    ScaleTypes {
        /// The module.
        module: String,
        /// Type of the scales.
        scales: String,
        /// Type of the biases.
        biases: String,
    },
    /// The configuration says that a module is quantized, and it is not.
    #[error("`quantization` in config.json says that `{module}` is quantized, but there is no `{module}.scales`")]
    NoScales {
        /// The module.
        module: String,
    },
    /// The configuration says that a module is not quantized, and it is.
    #[error("`quantization` in config.json says that `{module}` is not quantized, but there is a `{module}.scales`")]
    UnexpectedScales {
        /// The module.
        module: String,
    },
    /// The configuration has an exception for something that the model does not have.
    #[error("`quantization` in config.json names `{module}`, which is no matrix of this model")]
    UnknownModule {
        /// The module.
        module: String,
    },
    /// The head has no codes to disturb.
    #[error(
        "the head `{module}` is not quantized, so it has no packed words to disturb; \
         quantize it too, with `mlx_lm.convert -q` and no predicate that leaves it out"
    )]
    HeadNotQuantized {
        /// `lm_head`, or `model.embed_tokens` of a tied model.
        module: String,
    },
}

/// Takes the weights of the model that `config` states out of `tensors`, all of which it must use.
pub(super) fn assemble(config: &Config, tensors: BTreeMap<String, StoredTensor>) -> Result<ModelWeights, WeightsError> {
    let mut parts =
        Parts { config, tensors, overrides: config.quantization.overrides.keys().map(String::as_str).collect() };
    parts.drop_what_mlx_lm_drops();

    let (hidden, vocab) = (config.hidden_size, config.vocab_size);
    let embed_tokens = parts.matrix("model.embed_tokens", vocab, hidden)?;
    let mut layers = Vec::new();
    for layer in 0..config.num_hidden_layers {
        layers.push(parts.layer(&format!("model.layers.{layer}"))?);
    }
    let norm = parts.vector("model.norm.weight", hidden)?;
    let lm_head = if config.tie_word_embeddings {
        if matches!(embed_tokens, Weights::Dense(_)) {
            return Err(WeightsError::HeadNotQuantized { module: "model.embed_tokens".to_owned() });
        }
        None
    } else {
        match parts.matrix("lm_head", vocab, hidden)? {
            Weights::Quantized(head) => Some(head),
            Weights::Dense(_) => return Err(WeightsError::HeadNotQuantized { module: "lm_head".to_owned() }),
        }
    };
    parts.finish()?;
    Ok(ModelWeights { embed_tokens, layers, norm, lm_head })
}

/// The tensors, and the exceptions of the configuration, that nothing has asked for yet.
struct Parts<'a> {
    config: &'a Config,
    tensors: BTreeMap<String, StoredTensor>,
    overrides: BTreeSet<&'a str>,
}

impl Parts<'_> {
    /// Rotary frequencies are computed, and a tied model's checkpoint may carry its head once more.
    fn drop_what_mlx_lm_drops(&mut self) {
        self.tensors.retain(|name, _| !name.ends_with(".self_attn.rotary_emb.inv_freq"));
        if self.config.tie_word_embeddings {
            self.tensors.remove("lm_head.weight");
        }
    }

    fn layer(&mut self, name: &str) -> Result<LayerWeights, WeightsError> {
        let Config { hidden_size: hidden, intermediate_size: inner, attention_bias, mlp_bias, .. } = *self.config;
        let (query, key_value) = (self.config.query_size(), self.config.key_value_size());
        let mut linear = |module: &str, rows, cols, bias| self.linear(&format!("{name}.{module}"), rows, cols, bias);
        let q_proj = linear("self_attn.q_proj", query, hidden, attention_bias)?;
        let k_proj = linear("self_attn.k_proj", key_value, hidden, attention_bias)?;
        let v_proj = linear("self_attn.v_proj", key_value, hidden, attention_bias)?;
        let o_proj = linear("self_attn.o_proj", hidden, query, attention_bias)?;
        let gate_proj = linear("mlp.gate_proj", inner, hidden, mlp_bias)?;
        let up_proj = linear("mlp.up_proj", inner, hidden, mlp_bias)?;
        let down_proj = linear("mlp.down_proj", hidden, inner, mlp_bias)?;
        Ok(LayerWeights {
            input_layernorm: self.vector(&format!("{name}.input_layernorm.weight"), hidden)?,
            q_proj,
            k_proj,
            v_proj,
            o_proj,
            post_attention_layernorm: self.vector(&format!("{name}.post_attention_layernorm.weight"), hidden)?,
            gate_proj,
            up_proj,
            down_proj,
        })
    }

    fn linear(&mut self, module: &str, rows: usize, cols: usize, bias: bool) -> Result<Linear, WeightsError> {
        let weights = self.matrix(module, rows, cols)?;
        let bias = bias.then(|| self.vector(&format!("{module}.bias"), rows)).transpose()?;
        Ok(Linear { weights, bias })
    }

    /// As in mlx-lm, a matrix is quantized where it has scales. What the configuration says of it by
    /// name must agree.
    fn matrix(&mut self, module: &str, rows: usize, cols: usize) -> Result<Weights, WeightsError> {
        self.overrides.remove(module);
        let has_scales = self.tensors.contains_key(&format!("{module}.scales"));
        match (self.config.quantization.overrides.get(module), has_scales) {
            (Some(Override::Dense), true) => Err(WeightsError::UnexpectedScales { module: module.to_owned() }),
            (Some(Override::Format(_) | Override::Quantized), false) => {
                Err(WeightsError::NoScales { module: module.to_owned() })
            }
            (_, true) => self.quantized(module, rows, cols).map(Weights::Quantized),
            (_, false) => {
                let (float_type, data) = self.floats(&format!("{module}.weight"), &[rows, cols], None)?;
                let failed = |error| WeightsError::Matrix { module: module.to_owned(), error };
                Dense::new(rows, cols, float_type, data).map(Weights::Dense).map_err(failed)
            }
        }
    }

    fn quantized(&mut self, module: &str, rows: usize, cols: usize) -> Result<Quantized, WeightsError> {
        let format = self.config.quantization.format_of(module);
        let failed = |error| WeightsError::Matrix { module: module.to_owned(), error };
        // The scale type decides nothing about whether the layout is possible, but is part of it.
        let shaped = |scale_type| Layout::new(rows, cols, format, scale_type).map_err(failed);
        let layout = shaped(FloatType::F32)?;
        let groups = [rows, layout.groups_per_row()];
        let (scale_type, scales) = self.floats(&format!("{module}.scales"), &groups, Some(format))?;
        let (bias_type, biases) = self.floats(&format!("{module}.biases"), &groups, Some(format))?;
        if scale_type != bias_type {
            let (scales, biases) = (format!("{scale_type:?}"), format!("{bias_type:?}"));
            return Err(WeightsError::ScaleTypes { module: module.to_owned(), scales, biases });
        }
        let name = format!("{module}.weight");
        let weight = self.take(&name, &[rows, layout.words_per_row()], Some(format))?;
        if weight.dtype != Dtype::U32 {
            let found = weight.dtype.to_string();
            return Err(WeightsError::ElementType { tensor: name, found, wanted: "U32, as packed words" });
        }
        Quantized::new(shaped(scale_type)?, weight.bytes, scales, Some(biases)).map_err(failed)
    }

    /// A tensor of one dimension, widened.
    fn vector(&mut self, name: &str, len: usize) -> Result<Vec<f32>, WeightsError> {
        let (float_type, data) = self.floats(name, &[len], None)?;
        Ok((0..len).map(|i| float_type.get(&data, i)).collect())
    }

    fn floats(
        &mut self,
        name: &str,
        shape: &[usize],
        format: Option<Format>,
    ) -> Result<(FloatType, Bytes), WeightsError> {
        let tensor = self.take(name, shape, format)?;
        let float_type = match tensor.dtype {
            Dtype::F16 => FloatType::F16,
            Dtype::BF16 => FloatType::Bf16,
            Dtype::F32 => FloatType::F32,
            other => {
                let (tensor, found) = (name.to_owned(), other.to_string());
                return Err(WeightsError::ElementType { tensor, found, wanted: "F16, BF16 or F32" });
            }
        };
        Ok((float_type, tensor.bytes))
    }

    fn take(&mut self, name: &str, shape: &[usize], format: Option<Format>) -> Result<StoredTensor, WeightsError> {
        let tensor = self.tensors.remove(name).ok_or_else(|| WeightsError::Missing { tensor: name.to_owned() })?;
        let wanted: Vec<u64> = shape.iter().map(|&n| n as u64).collect();
        if tensor.shape != wanted {
            return Err(WeightsError::Shape { tensor: name.to_owned(), found: tensor.shape, wanted, format });
        }
        Ok(tensor)
    }

    fn finish(self) -> Result<(), WeightsError> {
        if let Some((name, StoredTensor { file, .. })) = self.tensors.into_iter().next() {
            let tensor = shortened(&name);
            return Err(if self.config.tie_word_embeddings && name.starts_with("lm_head.") {
                WeightsError::HeadOfTied { tensor, file }
            } else {
                WeightsError::Unknown { tensor, file }
            });
        }
        match self.overrides.first() {
            Some(module) => Err(WeightsError::UnknownModule { module: shortened(module) }),
            None => Ok(()),
        }
    }
}

/// How a matrix is quantized, at the end of a message.
struct Stored<'a>(&'a Option<Format>);

impl fmt::Display for Stored<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(format) => {
                write!(f, ", with {} bits in groups of {}", format.width().bits(), format.group_size())
            }
            None => Ok(()),
        }
    }
}
