//! From tensors to a model: every tensor that the architecture asks for, by the name that its family gives it, with exactly the
//! shape that it must have, and no other.

mod experts;

use std::{collections::BTreeMap, fmt};

use super::{
    architecture::{
        Activation, Attention, DeltaNet, KeyValues, Layer, Mixer, Mlp, Norm, NormWeight, QkNorm, ShortConvolution,
        Span, TokenInput, TokenInputs,
    },
    bytes::Bytes,
    config::{Config, Override, Quantization},
    family::{DeltaProjectionNames, Dropped, GateName, QkvNames, Renamed, TensorNames},
    json::shortened,
    tensors::{Dtype, StoredTensor},
    weights::{
        AttentionWeights, ConvolutionWeights, DeltaNetWeights, DeltaProjectionWeights, Dense, Inner, LayerWeights,
        Linear, MixerWeights, MlpWeights, ModelWeights, NormWeights, Qkv, Quantized, ShortConvolutionWeights,
        TokenInputWeights, TokenInputsWeights, Vector, Weights,
    },
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
    /// A head that is not there, where the configuration does not tie it to the embedding.
    #[error(
        "tensor `{tensor}` is missing; if the head is the embedding, `tie_word_embeddings` must be true in config.json"
    )]
    NoHead {
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
        /// Why the matrix cannot be quantized so.
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
    /// An expert that is stored in another way than the first one.
    #[error("`{module}` is stored as {found}, but `{first}` as {wanted}; all experts of a layer must be stored alike")]
    ExpertFormat {
        /// The expert's module.
        module: String,
        /// How it is stored.
        found: String,
        /// The first expert's module.
        first: String,
        /// How that is stored.
        wanted: String,
    },
    /// Quantized experts with tensors of their own, in a family of which mlx-lm stacks weights alone.
    #[error(
        "`{module}` is a quantized expert with tensors of its own, of which mlx-lm stacks the weights alone in this family; \
         put the experts of a layer into one tensor each of weights, scales and biases, as `mlx_lm.convert` does"
    )]
    QuantizedExpert {
        /// The expert's module.
        module: String,
    },
    /// The configuration does not name a module, and its tensors are not those of a format.
    #[error(
        "`{module}` has {words} packed words and {groups} scales of type {scales} for each {cols} columns, which is no format \
         that MLX writes (bits are 32 times words by columns, group_size is columns by scales); \
         name its format in `quantization` in config.json if it has one"
    )]
    NoFormat {
        /// The module.
        module: String,
        /// Packed words of a row.
        words: u64,
        /// Scales of a row.
        groups: u64,
        /// Type of the scales.
        scales: String,
        /// Columns of a row.
        cols: usize,
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
    let (architecture, names) = (&config.architecture, &config.family.tensors);
    let (hidden, vocab, tied) = (architecture.hidden_size, architecture.vocab_size, architecture.tied);
    let mut parts =
        Parts { names, hidden, tied, quantization: &config.quantization, tensors, formats: BTreeMap::new() };
    parts.drop_what_mlx_lm_drops(architecture.layers.len());
    parts.rename_what_mlx_lm_renames();

    let embed_tokens = parts.matrix(names.embed_tokens, vocab, hidden)?;
    let positions = architecture.learned_positions;
    let embed_positions = positions.map(|count| parts.matrix(names.embed_positions, count, hidden)).transpose()?;
    let count = architecture.layers.len();
    let token_inputs = architecture.token_inputs.map(|inputs| parts.token_inputs(inputs, count)).transpose()?;
    let mut layers = Vec::new();
    for (index, layer) in architecture.layers.iter().enumerate() {
        layers.push(parts.layer(index, layer)?);
    }
    let norm = parts.norm(architecture.norm, names.norm, hidden)?;
    let head_bias = format!("{}.bias", names.head(tied));
    let head_bias = architecture.head_bias.then(|| parts.vector(&head_bias, vocab)).transpose()?;
    let not_quantized = || WeightsError::HeadNotQuantized { module: names.head(tied).to_owned() };
    let lm_head = if tied {
        if matches!(embed_tokens, Weights::Dense(_)) {
            return Err(not_quantized());
        }
        None
    } else {
        let none = !parts.has_any_of(names.lm_head);
        let head = parts.matrix(names.lm_head, vocab, hidden).map_err(|error| match error {
            WeightsError::Missing { tensor } if none => WeightsError::NoHead { tensor },
            other => other,
        })?;
        match head {
            Weights::Quantized(head) => Some(head),
            Weights::Dense(_) => return Err(not_quantized()),
        }
    };
    let formats = std::mem::take(&mut parts.formats);
    parts.finish()?;
    Ok(ModelWeights { embed_tokens, embed_positions, token_inputs, layers, norm, lm_head, head_bias, formats })
}

/// The matrix `module` of `rows` and `cols` out of `tensors`, whatever else they hold, and its bias if it has one.
pub(super) fn quantized(
    tensors: BTreeMap<String, StoredTensor>,
    module: &str,
    [rows, cols]: [usize; 2],
    format: Format,
    bias: bool,
) -> Result<(Quantized, Option<Vec<f32>>), WeightsError> {
    let quantization = Quantization { format, overrides: BTreeMap::new() };
    let names = &super::family::LLAMA.tensors;
    let formats = BTreeMap::new();
    let mut parts = Parts { names, hidden: cols, tied: false, quantization: &quantization, tensors, formats };
    let matrix = parts.quantized(module, Shape::of(rows, cols), format)?;
    let bias = bias.then(|| parts.vector(&format!("{module}.bias"), rows)).transpose()?;
    Ok((matrix, bias.map(|bias| bias.values)))
}

/// The shape of a matrix, or of several that lie one after the other in a tensor.
#[derive(Clone, Copy)]
struct Shape {
    /// How many, where the tensor has a dimension for it.
    count: Option<usize>,
    /// Rows of each.
    rows: usize,
    cols: usize,
}

impl Shape {
    const fn of(rows: usize, cols: usize) -> Self {
        Self { count: None, rows, cols }
    }

    /// Rows of all of them.
    fn all_rows(self) -> usize {
        self.count.unwrap_or(1) * self.rows
    }

    /// A tensor that has so many elements for each row.
    fn with(self, columns: usize) -> Vec<usize> {
        [self.dims(), vec![columns]].concat()
    }

    /// A tensor that has one element for each row.
    fn dims(self) -> Vec<usize> {
        self.count.into_iter().chain([self.rows]).collect()
    }
}

/// The tensors that nothing has asked for yet.
struct Parts<'a> {
    names: &'static TensorNames,
    hidden: usize,
    tied: bool,
    quantization: &'a Quantization,
    tensors: BTreeMap<String, StoredTensor>,
    /// Of the matrices so far.
    formats: BTreeMap<String, String>,
}

impl Parts<'_> {
    /// Whether there is any tensor of a module.
    fn has_any_of(&self, module: &str) -> bool {
        self.tensors.keys().any(|name| name.strip_prefix(module).is_some_and(|rest| rest.starts_with('.')))
    }

    /// Some tensors are computed, and a tied model's checkpoint may carry its head once more.
    fn drop_what_mlx_lm_drops(&mut self, layers: usize) {
        let (names, tied) = (self.names, self.tied);
        let of_head = |name: &str| name.strip_prefix(names.lm_head).is_some_and(|rest| rest.starts_with('.'));
        let behind = format!("{}.{layers}.", names.layers);
        let dropped = |name: &str| {
            names.dropped.iter().any(|dropped| match *dropped {
                Dropped::Ending(end) => name.ends_with(end),
                Dropped::Beginning(beginning) => name.starts_with(beginning),
                Dropped::Containing(part) => name.contains(part),
                Dropped::LayerBehindTheLast => name.starts_with(&behind),
                Dropped::TiedHead => tied && of_head(name),
            })
        };
        self.tensors.retain(|name, _| !dropped(name));
        if tied {
            self.tensors.remove(&format!("{}.weight", names.lm_head));
        }
    }

    /// Some ends of names are another library's. A name that is taken stays, so that both tensors are looked at.
    fn rename_what_mlx_lm_renames(&mut self) {
        for &Renamed { from, to } in self.names.renamed {
            let names: Vec<String> = self.tensors.keys().filter(|name| name.ends_with(from)).cloned().collect();
            for name in names {
                let renamed = format!("{}{to}", &name[..name.len() - from.len()]);
                if !self.tensors.contains_key(&renamed)
                    && let Some(tensor) = self.tensors.remove(&name)
                {
                    self.tensors.insert(renamed, tensor);
                }
            }
        }
    }

    fn layer(&mut self, index: usize, layer: &Layer) -> Result<LayerWeights, WeightsError> {
        let names = self.names;
        let mixer = match &layer.mixer {
            Mixer::Attention(attention) => MixerWeights::Attention(self.attention(index, attention)?),
            Mixer::ShortConvolution(rule) => MixerWeights::ShortConvolution(self.short_convolution(index, rule)?),
            Mixer::DeltaNet(net) => MixerWeights::DeltaNet(self.delta_net(index, net)?),
        };
        let mlp = self.feed_forward(index, &layer.mlp)?;
        let mut norm = |norm: Option<Norm>, name: Option<&str>| match norm.zip(name) {
            Some((norm, name)) => self.norm(norm, &names.in_layer(index, name), self.hidden).map(Some),
            None => Ok(None),
        };
        Ok(LayerWeights {
            attention_norm: norm(layer.attention_norm, names.attention_norm)?,
            mixer,
            attention_output_norm: norm(layer.attention_output_norm, names.attention_output_norm)?,
            mlp_norm: norm(layer.mlp_norm, names.mlp_norm)?,
            mlp,
            mlp_output_norm: norm(layer.mlp_output_norm, names.mlp_output_norm)?,
            token_input: layer.token_input.map(|input| self.token_input(index, input)).transpose()?,
            output_scale: match layer.output_scale {
                true => {
                    let (float_type, data) = self.number(&names.in_layer(index, names.output_scale))?;
                    Some(float_type.get(&data, 0))
                }
                false => None,
            },
        })
    }

    /// What tokens give to `count` layers.
    fn token_inputs(&mut self, inputs: TokenInputs, count: usize) -> Result<TokenInputsWeights, WeightsError> {
        let (names, hidden) = (self.names.token_inputs, self.hidden);
        let columns = count * inputs.size;
        Ok(TokenInputsWeights {
            embedding: self.matrix(names.embedding, inputs.vocab_size, columns)?,
            projection: self.linear(names.projection, columns, hidden, false)?,
            norm: self.norm(inputs.norm, names.norm, inputs.size)?,
        })
    }

    /// How a layer takes in what the token gives to it.
    fn token_input(&mut self, index: usize, input: TokenInput) -> Result<TokenInputWeights, WeightsError> {
        let (names, hidden) = (self.names, self.hidden);
        let in_layer = |name| names.in_layer(index, name);
        Ok(TokenInputWeights {
            gate: self.linear(&in_layer(names.token_inputs.gate), input.size, hidden, false)?,
            output: self.linear(&in_layer(names.token_inputs.output), hidden, input.size, false)?,
            output_norm: self.norm(input.output_norm, &in_layer(names.token_inputs.output_norm), hidden)?,
        })
    }

    fn attention(&mut self, index: usize, attention: &Attention) -> Result<AttentionWeights, WeightsError> {
        let (names, hidden) = (self.names, self.hidden);
        let (heads, key_value) = (attention.query_size(), attention.key_value_size());
        let query = if attention.gated { 2 * heads } else { heads };
        let mut linear = |name, rows, cols, bias| self.linear(&names.in_layer(index, name), rows, cols, bias);
        let bias = attention.qkv_bias;
        let qkv = match names.qkv {
            QkvNames::Apart { q, .. } if matches!(attention.key_values, KeyValues::OfLayer(_)) => {
                Qkv::Query(linear(q, query, hidden, bias)?)
            }
            QkvNames::Apart { q, k, .. } if attention.key_values == KeyValues::FromKeys => {
                Qkv::QueryAndKey([linear(q, query, hidden, bias)?, linear(k, key_value, hidden, bias)?])
            }
            QkvNames::Apart { q, k, v } => Qkv::Apart([
                linear(q, query, hidden, bias)?,
                linear(k, key_value, hidden, bias)?,
                linear(v, key_value, hidden, bias)?,
            ]),
            QkvNames::Joined(name) | QkvNames::ByKeyHead(name) => {
                Qkv::Joined(linear(name, query + 2 * key_value, hidden, bias)?)
            }
        };
        let o_proj = linear(names.o_proj, hidden, heads, attention.o_bias)?;
        let mut norm = |name, heads| match attention.qk_norm {
            Some(rule) => self.head_norm(rule, &names.in_layer(index, name), heads, attention.head_dim).map(Some),
            None => Ok(None),
        };
        let q_norm = norm(names.qk_norm.q, attention.heads)?;
        let k_norm = match attention.key_values {
            KeyValues::OfLayer(_) => None,
            KeyValues::Own | KeyValues::FromKeys => norm(names.qk_norm.k, attention.kv_heads)?,
        };
        let sinks = attention.sinks.then(|| self.vector(&names.in_layer(index, "self_attn.sinks"), attention.heads));
        Ok(AttentionWeights { qkv, q_norm, k_norm, sinks: sinks.transpose()?, o_proj })
    }

    fn short_convolution(
        &mut self,
        index: usize,
        rule: &ShortConvolution,
    ) -> Result<ShortConvolutionWeights, WeightsError> {
        let (names, hidden) = (self.names, self.hidden);
        let own = names.short_convolution;
        let in_layer = |name| names.in_layer(index, name);
        Ok(ShortConvolutionWeights {
            in_proj: self.linear(&in_layer(own.in_proj), 3 * hidden, hidden, rule.bias)?,
            convolution: self.convolution(&in_layer(own.convolution), rule.taps, hidden, rule.bias)?,
            out_proj: self.linear(&in_layer(own.out_proj), hidden, hidden, rule.bias)?,
        })
    }

    fn delta_net(&mut self, index: usize, net: &DeltaNet) -> Result<DeltaNetWeights, WeightsError> {
        let (names, hidden) = (self.names, self.hidden);
        let own = names.delta_net;
        let in_layer = |name| names.in_layer(index, name);
        let (mixed, values, heads) = (net.mixed_size(), net.value_size(), net.value_heads);
        let mut linear = |name, rows| self.linear(&in_layer(name), rows, hidden, false);
        let projections = match own.projections {
            DeltaProjectionNames::Apart { qkv, z, b, a } => DeltaProjectionWeights::Apart([
                linear(qkv, mixed)?,
                linear(z, values)?,
                linear(b, heads)?,
                linear(a, heads)?,
            ]),
            DeltaProjectionNames::ByKeyHead { qkvz, ba } => {
                DeltaProjectionWeights::ByKeyHead([linear(qkvz, mixed + values)?, linear(ba, 2 * heads)?])
            }
        };
        let a_log = self.vector(&in_layer(own.a_log), heads)?;
        Ok(DeltaNetWeights {
            projections,
            convolution: self.convolution(&in_layer(own.convolution), net.taps, mixed, false)?,
            rates: a_log.values.iter().map(|&a| libm::exp(f64::from(a))).collect(),
            dt_bias: self.vector(&in_layer(own.dt_bias), heads)?,
            norm: self.norm(net.norm, &in_layer(own.norm), net.value_dim)?,
            out_proj: self.linear(&in_layer(own.out_proj), hidden, values, false)?,
        })
    }

    /// A convolution, which is stored as `[columns, taps, 1]`.
    fn convolution(
        &mut self,
        module: &str,
        taps: usize,
        columns: usize,
        bias: bool,
    ) -> Result<ConvolutionWeights, WeightsError> {
        let (float_type, data) = self.floats(&format!("{module}.weight"), &[columns, taps, 1], None)?;
        let at = |tap: usize, column: usize| float_type.get(&data, column * taps + tap);
        let bias = bias.then(|| self.vector(&format!("{module}.bias"), columns)).transpose()?;
        Ok(ConvolutionWeights {
            taps: (0..taps).flat_map(|tap| (0..columns).map(move |column| at(tap, column))).collect(),
            bias,
        })
    }

    /// The norm of queries or keys.
    fn head_norm(
        &mut self,
        rule: QkNorm,
        name: &str,
        heads: usize,
        head_dim: usize,
    ) -> Result<NormWeights, WeightsError> {
        match (rule.span, self.names.qk_norm.heads) {
            (Span::Head, _) => self.norm(rule.norm, name, head_dim),
            (Span::All, _) => self.norm(rule.norm, name, heads * head_dim),
            (Span::EachHead, None) => {
                let (float_type, data) = self.floats(&format!("{name}.weight"), &[heads, head_dim], None)?;
                let values = (0..heads * head_dim).map(|i| float_type.get(&data, i)).collect();
                Ok(NormWeights { weight: Some(Vector { values, float_type }), bias: None })
            }
            (Span::EachHead, Some(between)) => {
                let first = self.vector(&format!("{name}{between}0.weight"), head_dim)?;
                let mut all = Vector { values: first.values, float_type: first.float_type };
                for head in 1..heads {
                    all.values.extend(self.vector(&format!("{name}{between}{head}.weight"), head_dim)?.values);
                }
                Ok(NormWeights { weight: Some(all), bias: None })
            }
        }
    }

    fn mlp(&mut self, index: usize, mlp: &Mlp) -> Result<MlpWeights, WeightsError> {
        let (names, hidden, inner) = (self.names, self.hidden, mlp.intermediate_size);
        let mut linear = |name, rows, cols| self.linear(&names.in_layer(index, name), rows, cols, mlp.bias);
        let weights = match names.gate {
            GateName::None => Inner::Plain(linear(names.up_proj, inner, hidden)?),
            GateName::Apart(gate) => {
                Inner::Gated([linear(gate, inner, hidden)?, linear(names.up_proj, inner, hidden)?])
            }
            GateName::Joined => Inner::Joined(linear(names.up_proj, 2 * inner, hidden)?),
        };
        let down_proj = linear(names.down_proj, hidden, inner)?;
        let activation = match mlp.activation {
            Activation::Xielu => Some(self.xielu(&names.in_layer(index, names.activation))?),
            Activation::Silu
            | Activation::Gelu
            | Activation::GeluTanh
            | Activation::ReluSquared
            | Activation::ClampedSwiglu => None,
        };
        Ok(MlpWeights { inner: weights, activation, down_proj })
    }

    /// The numbers of an xIELU: of those that are stored two go through `ln(1 + exp(x))`.
    fn xielu(&mut self, module: &str) -> Result<[f32; 4], WeightsError> {
        let mut number = |name: &str| {
            let (float_type, data) = self.number(&format!("{module}.{name}"))?;
            Ok::<_, WeightsError>(f64::from(float_type.get(&data, 0)))
        };
        let (p, n, beta, eps) = (number("alpha_p")?, number("alpha_n")?, number("beta")?, number("eps")?);
        let softplus = |x: f64| libm::log1p(libm::exp(-x.abs())) + x.max(0.0);
        Ok([softplus(p) as f32, (beta + softplus(n)) as f32, beta as f32, eps as f32])
    }

    /// The weights of a norm of `len` columns.
    fn norm(&mut self, norm: Norm, module: &str, len: usize) -> Result<NormWeights, WeightsError> {
        let mut weight = match norm.weight {
            NormWeight::None => None,
            NormWeight::AsStored | NormWeight::OnePlus => Some(self.vector(&format!("{module}.weight"), len)?),
        };
        if let Some(weight) = weight.as_mut().filter(|_| norm.weight == NormWeight::OnePlus) {
            weight.values.iter_mut().for_each(|weight| *weight += 1.0);
        }
        let bias = norm.bias.then(|| self.vector(&format!("{module}.bias"), len)).transpose()?;
        Ok(NormWeights { weight, bias })
    }

    fn linear(&mut self, module: &str, rows: usize, cols: usize, bias: bool) -> Result<Linear, WeightsError> {
        self.shaped(module, Shape::of(rows, cols), bias)
    }

    fn shaped(&mut self, module: &str, shape: Shape, bias: bool) -> Result<Linear, WeightsError> {
        let weights = self.matrix_of(module, shape)?;
        let bias = bias.then(|| self.vector_of(&format!("{module}.bias"), &shape.dims())).transpose()?;
        Ok(Linear { weights, bias })
    }

    fn matrix(&mut self, module: &str, rows: usize, cols: usize) -> Result<Weights, WeightsError> {
        self.matrix_of(module, Shape::of(rows, cols))
    }

    fn matrix_of(&mut self, module: &str, shape: Shape) -> Result<Weights, WeightsError> {
        let (weights, format) = self.matrix_called(module, module, shape)?;
        self.formats.insert(module.to_owned(), format);
        Ok(weights)
    }

    /// A matrix and how it is stored. As in mlx-lm, it is quantized where it has scales. What the configuration says of a
    /// module `called` must agree.
    fn matrix_called(&mut self, module: &str, called: &str, shape: Shape) -> Result<(Weights, String), WeightsError> {
        let has_scales = self.tensors.contains_key(&format!("{module}.scales"));
        match (self.quantization.overrides.get(called), has_scales) {
            (Some(Override::Dense), true) => Err(WeightsError::UnexpectedScales { module: module.to_owned() }),
            (Some(Override::Format(_) | Override::Quantized), false) => {
                Err(WeightsError::NoScales { module: module.to_owned() })
            }
            (entry, true) => {
                let format = match entry {
                    Some(Override::Format(format)) => *format,
                    Some(Override::Quantized | Override::Dense) => self.quantization.format,
                    None => self.format_of_tensors(module, shape)?,
                };
                let matrix = self.quantized(module, shape, format)?;
                Ok((Weights::Quantized(matrix), format.to_string()))
            }
            (_, false) => {
                let (float_type, data) = self.floats(&format!("{module}.weight"), &shape.with(shape.cols), None)?;
                let failed = |error| WeightsError::Matrix { module: module.to_owned(), error };
                let matrix = Dense::new(shape.all_rows(), shape.cols, float_type, data).map_err(failed)?;
                Ok((Weights::Dense(matrix), float_type.name().to_owned()))
            }
        }
    }

    /// The format that a module's tensors show, as mlx-lm infers it where the configuration does not name the module.
    fn format_of_tensors(&self, module: &str, shape: Shape) -> Result<Format, WeightsError> {
        let (cols, before) = (shape.cols, shape.dims());
        let columns = |part: &str| {
            let StoredTensor { shape, dtype, .. } = self.tensors.get(&format!("{module}.{part}"))?;
            let (&columns, others) = shape.split_last()?;
            others.iter().copied().eq(before.iter().map(|&size| size as u64)).then_some((columns, *dtype))
        };
        let (Some((words, _)), Some((groups, scales))) = (columns("weight"), columns("scales")) else {
            // Not matrices of so many rows: whoever takes them says what is wrong with which.
            return Ok(self.quantization.format);
        };
        let quotient = |a: u64, b: u64| (b > 0 && a.is_multiple_of(b)).then_some(a.checked_div(b)).flatten();
        let bits = words.checked_mul(32).and_then(|bits| quotient(bits, cols as u64));
        let found = match (bits, quotient(cols as u64, groups), scales == Dtype::U8) {
            (Some(bits), Some(group_size), false) => Format::affine(bits as usize, group_size as usize).ok(),
            (Some(bits), Some(group_size), true) => [Format::MXFP4, Format::MXFP8, Format::NVFP4]
                .into_iter()
                .find(|format| (format.width().bits() as u64, format.group_size() as u64) == (bits, group_size)),
            _ => None,
        };
        found.ok_or_else(|| {
            let (module, scales) = (module.to_owned(), scales.to_string());
            WeightsError::NoFormat { module, words, groups, scales, cols }
        })
    }

    fn quantized(&mut self, module: &str, shape: Shape, format: Format) -> Result<Quantized, WeightsError> {
        let failed = |error| WeightsError::Matrix { module: module.to_owned(), error };
        // The scale type decides nothing about whether the layout is possible, but is part of it.
        let shaped = |scale_type| Layout::new(shape.all_rows(), shape.cols, format, scale_type).map_err(failed);
        let layout = shaped(format.scale_types()[0])?;
        let groups = shape.with(layout.groups_per_row());
        let scales = format!("{module}.scales");
        let (scale_type, scales, biases) = if format.has_biases() {
            let (scale_type, scales) = self.floats(&scales, &groups, Some(format))?;
            let (bias_type, biases) = self.floats(&format!("{module}.biases"), &groups, Some(format))?;
            if scale_type != bias_type {
                let (scales, biases) = (format!("{scale_type:?}"), format!("{bias_type:?}"));
                return Err(WeightsError::ScaleTypes { module: module.to_owned(), scales, biases });
            }
            (scale_type, scales, Some(biases))
        } else {
            let stored = self.take(&scales, &groups, Some(format))?;
            if stored.dtype != Dtype::U8 {
                let (tensor, found) = (scales, stored.dtype.to_string());
                return Err(WeightsError::ElementType {
                    tensor,
                    found,
                    wanted: "U8, as scales of codes that are floats",
                });
            }
            (layout.scale_type(), stored.bytes, None)
        };
        let name = format!("{module}.weight");
        let weight = self.take(&name, &shape.with(layout.words_per_row()), Some(format))?;
        if weight.dtype != Dtype::U32 {
            let found = weight.dtype.to_string();
            return Err(WeightsError::ElementType { tensor: name, found, wanted: "U32, as packed words" });
        }
        Quantized::new(shaped(scale_type)?, weight.bytes, scales, biases).map_err(failed)
    }

    /// A tensor of one dimension, widened.
    fn vector(&mut self, name: &str, len: usize) -> Result<Vector, WeightsError> {
        self.vector_of(name, &[len])
    }

    /// All elements of a tensor of this shape, widened.
    fn vector_of(&mut self, name: &str, shape: &[usize]) -> Result<Vector, WeightsError> {
        let (float_type, data) = self.floats(name, shape, None)?;
        let len = shape.iter().product();
        Ok(Vector { values: (0..len).map(|i| float_type.get(&data, i)).collect(), float_type })
    }

    /// A tensor of one number, with a dimension or without.
    fn number(&mut self, name: &str) -> Result<(FloatType, Bytes), WeightsError> {
        let scalar = self.tensors.get(name).is_some_and(|tensor| tensor.shape.is_empty());
        self.floats(name, if scalar { &[] } else { &[1] }, None)
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
            let (tensor, file) = (shortened(&name), file.to_string());
            let of_head = name.strip_prefix(self.names.lm_head).is_some_and(|rest| rest.starts_with('.'));
            return Err(if self.tied && of_head {
                WeightsError::HeadOfTied { tensor, file }
            } else {
                WeightsError::Unknown { tensor, file }
            });
        }
        Ok(())
    }
}

/// How a matrix is quantized, at the end of a message.
struct Stored<'a>(&'a Option<Format>);

impl fmt::Display for Stored<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(format) => {
                write!(f, ", with {} bits in groups of {}", format.width().bits(), format.group_size())?;
                if format.has_biases() { Ok(()) } else { write!(f, " ({format})") }
            }
            None => Ok(()),
        }
    }
}
