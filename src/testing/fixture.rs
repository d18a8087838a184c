//! Small checkpoints in memory, as `mlx_lm.convert -q` would have written them.
//!
//! [`Fixture`] states a model of a [`Family`]; [`Fixture::files`] gives its files, the same for the same fixture on
//! every machine. Codes are uniform and scales differ from group to group, so that a swapped nibble,
//! a shifted group or a transposed matrix changes what is computed; the weights are still of the size
//! that trained ones have, so that activations neither vanish nor overflow.
//!
//! ```
//! use lm_headroom::{checkpoint::Checkpoint, testing::fixture::Fixture};
//!
//! let tied = Fixture { tie_word_embeddings: Some(true), seed: 7, ..Fixture::default() };
//! let checkpoint = Checkpoint::from_files(tied.files())?;
//! let head = checkpoint.head().view();
//! let codes = tied.codes("model.embed_tokens").expect("it is quantized");
//! assert_eq!(head.code(3, 5), codes[3 * tied.hidden_size + 5]);
//! # Ok::<(), lm_headroom::checkpoint::CheckpointError>(())
//! ```
//!
//! To break a checkpoint, change what [`Fixture::config`] and [`Fixture::tensors`] give and put it
//! together with [`files_of`]; what the writer would refuse is made with [`raw_safetensors`].

use std::{borrow::Cow, collections::BTreeMap};

use safetensors::{Dtype, View};
use serde_json::{Value, json};

use super::{families, heads::encode};
use crate::{
    checkpoint::{
        Architecture, Config,
        architecture::{Activation, Experts, FeedForward, KeyValues, Layer, Mixer, Mlp, Norm, NormWeight, Span},
        bytes::Bytes,
        config::Override,
        family::{
            self, DeltaProjectionNames, ExpertWidth, ExpertsRule, Family, Flag, GateName, HeadDim, Intermediate,
            KvHeads, QkvNames, ScalingRule, SharedRule, SharedWidth, Size, Theta, Tied,
        },
    },
    quant::{Codes, FloatType, Format},
    random::SplitMix64,
};

/// A small model. Fields are named as Llama's keys of `config.json`; the family says how keys and tensors are named in the files.
#[derive(Clone, Debug)]
pub struct Fixture {
    /// Whose checkpoint it is.
    pub family: &'static Family,
    /// Rows of embedding and head.
    pub vocab_size: usize,
    /// Width of the residual stream, a multiple of the group size.
    pub hidden_size: usize,
    /// Width inside the MLP, a multiple of the group size.
    pub intermediate_size: usize,
    /// Transformer blocks.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads.
    pub num_key_value_heads: usize,
    /// Experts of a layer that has some.
    pub num_experts: usize,
    /// Experts of a position.
    pub num_experts_per_tok: usize,
    /// Columns of a head; not written where `None`, which means `hidden_size / num_attention_heads`.
    pub head_dim: Option<usize>,
    /// Bits of a code.
    pub bits: usize,
    /// Columns of a group.
    pub group_size: usize,
    /// Type of scales, biases, norms and unquantized matrices.
    pub scale_type: FloatType,
    /// Not written where `None`, which means what the family makes of it.
    pub tie_word_embeddings: Option<bool>,
    /// Biases of the attention's projections.
    pub attention_bias: bool,
    /// Biases of the MLP's projections.
    pub mlp_bias: bool,
    /// Written as it is, unless null or the family has none.
    pub rope_scaling: Value,
    /// Exceptions from the quantization, by module.
    pub overrides: BTreeMap<String, Override>,
    /// `eos_token_id`, a number where there is one.
    pub eos_token_ids: Vec<u32>,
    /// Number of safetensors files; with more than one there is an index.
    pub shards: usize,
    /// Files besides, by name, such as a tokenizer.
    pub extra_files: BTreeMap<String, Vec<u8>>,
    /// Seed of all random numbers.
    pub seed: u64,
}

impl Default for Fixture {
    /// A Llama of two layers with a head of its own, 96 x 64, in 4 bits, groups of 32, float16.
    fn default() -> Self {
        Self {
            family: &family::LLAMA,
            vocab_size: 96,
            hidden_size: 64,
            intermediate_size: 128,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            num_experts: 6,
            num_experts_per_tok: 2,
            head_dim: None,
            bits: 4,
            group_size: 32,
            scale_type: FloatType::F16,
            tie_word_embeddings: Some(false),
            attention_bias: false,
            mlp_bias: false,
            rope_scaling: Value::Null,
            overrides: BTreeMap::new(),
            eos_token_ids: vec![2],
            shards: 1,
            extra_files: BTreeMap::new(),
            seed: 0,
        }
    }
}

impl Fixture {
    /// A small model of a family, whose head is its embedding only where that is so in every model of the family.
    pub fn of(family: &'static Family) -> Self {
        Self { family, tie_word_embeddings: Some(family.may_be_tied(false)), ..Self::default() }
    }
}

/// A tensor to be written: little-endian elements, row-major.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixtureTensor {
    /// Element type.
    pub dtype: Dtype,
    /// Shape.
    pub shape: Vec<usize>,
    /// As many bytes as type and shape ask for.
    pub data: Vec<u8>,
}

/// A matrix of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Its name: `model.layers.0.mlp.down_proj`.
    pub name: String,
    /// How many such matrices its tensors hold, where they have a dimension for that.
    pub count: Option<usize>,
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
    /// Whether it has a `.bias`.
    pub bias: bool,
}

impl Fixture {
    /// All files of the checkpoint, by name.
    ///
    /// # Panics
    /// If the fixture is not a possible model, such as a width that is no multiple of its group.
    pub fn files(&self) -> BTreeMap<String, Bytes> {
        let mut files = files_of(&self.config(), &self.tensors(), self.shards);
        files.extend(self.extra_files.iter().map(|(name, data)| (name.clone(), Bytes::new(data.clone()))));
        files
    }

    /// `config.json`, by the keys of the family.
    pub fn config(&self) -> Value {
        let mut quantization = json!({"group_size": self.group_size, "bits": self.bits, "mode": "affine"});
        for (module, entry) in &self.overrides {
            quantization[module] = match entry {
                Override::Format(own) if own.has_biases() => {
                    json!({"group_size": own.group_size(), "bits": own.width().bits()})
                }
                Override::Format(own) => {
                    json!({"group_size": own.group_size(), "bits": own.width().bits(), "mode": own.mode()})
                }
                Override::Quantized => json!(true),
                Override::Dense => json!(false),
            };
        }
        let mut config = self.own_keys();
        if let Some(text) = self.family.text {
            config["model_type"] = json!(text.model_type.unwrap_or("the text's"));
            config = json!({(text.key): config, "vocab_size": self.vocab_size});
        }
        config["architectures"] = json!([class_of(self.family.model_type)]);
        config["model_type"] = json!(self.family.model_type);
        config["eos_token_id"] = match self.eos_token_ids.as_slice() {
            [one] => json!(one),
            several => json!(several),
        };
        config["quantization"] = quantization;
        config
    }

    /// The keys by which the family says what the model computes.
    fn own_keys(&self) -> Value {
        let rules = &self.family.config;
        let sizes = &rules.sizes;
        let mut config = json!({
            (sizes.vocab_size.key): self.vocab_size,
            (sizes.hidden_size.key): self.hidden_size,
            (sizes.layers.key): self.num_hidden_layers,
            (sizes.heads.key): self.num_attention_heads,
            (rules.norm.eps): 1e-5,
            "max_position_embeddings": 2048,
        });
        let mut put = |key: &str, value: Value| config[key] = value;
        match sizes.intermediate {
            Intermediate::Key(size) => put(size.key, json!(self.intermediate_size)),
            Intermediate::Half(size) => put(size.key, json!(2 * self.intermediate_size)),
            Intermediate::FourTimesHidden => {}
            Intermediate::Adjusted { keys: [key, _], adjust, factor, multiple } => {
                put(key, json!(3 * self.intermediate_size));
                put(adjust, json!(true));
                put(factor, json!(0.5));
                put(multiple, json!(self.intermediate_size));
            }
        }
        if let KvHeads::Key(size) = sizes.kv_heads {
            put(size.key, json!(self.num_key_value_heads));
        }
        if let HeadDim::Key(size) = sizes.head_dim {
            // Where a family has a number of its own, the fixture says what it means.
            let shared = size.default.map(|_| self.hidden_size / self.num_attention_heads);
            if let Some(head_dim) = self.head_dim.or(shared) {
                put(size.key, json!(head_dim));
            }
        }
        if let Theta::Key(key, _) = rules.rope.theta {
            put(key, json!(10000.0));
        }
        for (flag, value) in [
            (rules.qkv_bias, self.attention_bias),
            (rules.o_bias, self.attention_bias),
            (rules.mlp_bias, self.mlp_bias),
        ] {
            if let Flag::Key(key, _) = flag {
                put(key, json!(value));
            }
        }
        if let (Some(key), Some(name)) = (rules.activation.keys.first(), rules.activation.names.first()) {
            put(key, json!(name));
        }
        if let (Tied::Key(_), Some(tied)) = (rules.tied, self.tie_word_embeddings) {
            put("tie_word_embeddings", json!(tied));
        }
        if let Some(rule) = &rules.experts {
            self.keys_of_experts(rule, &mut put);
        }
        let own = families::own_keys(self.family.name, self.num_hidden_layers);
        let takes_a_scaling =
            rules.rope.scaling == ScalingRule::Any && !rules.rope.by_layer_type && own.get("rope_parameters").is_none();
        if !self.rope_scaling.is_null() && takes_a_scaling {
            put("rope_scaling", self.rope_scaling.clone());
        }
        if let Value::Object(own) = own {
            own.into_iter().for_each(|(key, value)| put(&key, value));
        }
        config
    }

    /// The keys of a mixture of experts, by which it has all that the family can have.
    fn keys_of_experts(&self, rule: &ExpertsRule, put: &mut impl FnMut(&str, Value)) {
        let experts = self.num_experts;
        put(rule.count.key, json!(experts));
        put(rule.chosen.key, json!(self.num_experts_per_tok));
        let (ExpertWidth::Key(Size { key, .. }) | ExpertWidth::OrMlp(key)) = rule.width;
        put(key, json!(self.intermediate_size));
        match rule.shared {
            Some(SharedRule { width: SharedWidth::Key(size), .. }) => put(size.key, json!(self.intermediate_size)),
            Some(SharedRule { width: SharedWidth::Experts(times) | SharedWidth::ExpertsOf(times, _), .. }) => {
                put(times.key, json!(2));
            }
            Some(SharedRule { width: SharedWidth::Mlp, .. }) | None => {}
        }
        let router = &rule.router;
        for flag in [rule.when, router.choice_bias, router.divided] {
            if let Flag::Key(key, _) = flag {
                put(key, json!(true));
            }
        }
        if let Some([all, kept]) = router.groups {
            put(all.key, json!(if experts >= 4 && experts.is_multiple_of(2) { 2 } else { 1 }));
            put(kept.key, json!(1));
        }
        if let Some((key, _)) = router.scale {
            put(key, json!(2.5));
        }
    }

    /// What the configuration makes of it.
    ///
    /// # Panics
    /// If the fixture is not a possible model.
    pub(crate) fn architecture(&self) -> Architecture {
        let config = Config::parse(self.config().to_string().as_bytes());
        let mut architecture = config.unwrap_or_else(|error| panic!("{error}")).architecture;
        if self.family.config.tied == Tied::WithoutHead {
            architecture.tied = self.tie_word_embeddings.unwrap_or(true);
        }
        architecture
    }

    /// Every matrix of the model, whether quantized or not.
    ///
    /// # Panics
    /// If the fixture is not a possible model.
    pub fn modules(&self) -> Vec<Module> {
        let architecture = self.architecture();
        let (names, hidden) = (&self.family.tensors, architecture.hidden_size);
        let module = |name: String, rows, cols, bias| Module { name, count: None, rows, cols, bias };
        let head_bias = |tied| architecture.head_bias && architecture.tied == tied;
        let mut modules = vec![module(names.embed_tokens.to_owned(), architecture.vocab_size, hidden, head_bias(true))];
        if let Some(positions) = architecture.learned_positions {
            modules.push(module(names.embed_positions.to_owned(), positions, hidden, false));
        }
        if let Some(inputs) = architecture.token_inputs {
            let columns = architecture.layers.len() * inputs.size;
            let names = names.token_inputs;
            modules.push(module(names.embedding.to_owned(), inputs.vocab_size, columns, false));
            modules.push(module(names.projection.to_owned(), columns, hidden, false));
        }
        for (index, layer) in architecture.layers.iter().enumerate() {
            let mut of_layer = self.of_mixer(&layer.mixer, hidden);
            match &layer.mlp {
                FeedForward::Mlp(mlp) => {
                    let inner = mlp.intermediate_size;
                    if let GateName::Apart(gate) = names.gate {
                        of_layer.push((gate, inner, hidden, mlp.bias));
                    }
                    let up = if names.gate == GateName::Joined { 2 * inner } else { inner };
                    of_layer
                        .extend([(names.up_proj, up, hidden, mlp.bias), (names.down_proj, hidden, inner, mlp.bias)]);
                }
                FeedForward::Experts(experts) => modules.extend(self.modules_of_experts(index, experts, hidden)),
            }
            if let Some(input) = layer.token_input {
                let names = names.token_inputs;
                of_layer.extend([(names.gate, input.size, hidden, false), (names.output, hidden, input.size, false)]);
            }
            let of_layer = of_layer.into_iter();
            modules
                .extend(of_layer.map(|(name, rows, cols, bias)| module(names.in_layer(index, name), rows, cols, bias)));
        }
        if !architecture.tied {
            modules.push(module(names.lm_head.to_owned(), architecture.vocab_size, hidden, head_bias(false)));
        }
        modules
    }

    /// The matrices of a layer's mixer: name in the layer, rows, columns, and whether there is a bias.
    fn of_mixer(&self, mixer: &Mixer, hidden: usize) -> Vec<(&'static str, usize, usize, bool)> {
        let names = &self.family.tensors;
        let attention = match mixer {
            Mixer::Attention(attention) => attention,
            Mixer::ShortConvolution(rule) => {
                let own = names.short_convolution;
                return vec![(own.in_proj, 3 * hidden, hidden, rule.bias), (own.out_proj, hidden, hidden, rule.bias)];
            }
            Mixer::DeltaNet(net) => {
                let own = names.delta_net;
                let (mixed, values, heads) = (net.mixed_size(), net.value_size(), net.value_heads);
                let all = match own.projections {
                    DeltaProjectionNames::Apart { qkv, z, b, a } => {
                        vec![(qkv, mixed), (z, values), (b, heads), (a, heads)]
                    }
                    DeltaProjectionNames::ByKeyHead { qkvz, ba } => vec![(qkvz, mixed + values), (ba, 2 * heads)],
                };
                let out = (own.out_proj, hidden, values, false);
                return all.into_iter().map(|(name, rows)| (name, rows, hidden, false)).chain([out]).collect();
            }
        };
        let (heads, key_value) = (attention.query_size(), attention.key_value_size());
        let query = if attention.gated { 2 * heads } else { heads };
        let mut all = Vec::new();
        match names.qkv {
            QkvNames::Apart { q, k, v } => all.extend(
                [(q, query), (k, key_value), (v, key_value)][..match attention.key_values {
                    KeyValues::Own => 3,
                    KeyValues::FromKeys => 2,
                    KeyValues::OfLayer(_) => 1,
                }]
                    .iter()
                    .map(|&(name, rows)| (name, rows, hidden, attention.qkv_bias)),
            ),
            QkvNames::Joined(name) | QkvNames::ByKeyHead(name) => {
                all.push((name, query + 2 * key_value, hidden, attention.qkv_bias));
            }
        }
        all.push((names.o_proj, hidden, heads, attention.o_bias));
        all
    }

    /// Every matrix of a mixture of experts in layer `index`.
    fn modules_of_experts(&self, index: usize, experts: &Experts, hidden: usize) -> Vec<Module> {
        let names = &self.family.tensors;
        let module =
            |name: &str, count, rows, cols, bias| Module { name: names.in_layer(index, name), count, rows, cols, bias };
        let own = names.experts;
        let gated = |name: &str, count, mlp: &Mlp| {
            let inner = mlp.intermediate_size;
            [("gate_proj", inner, hidden), ("up_proj", inner, hidden), ("down_proj", hidden, inner)]
                .map(|(part, rows, cols)| module(&format!("{name}.{part}"), count, rows, cols, mlp.bias))
        };
        let mut modules = vec![module(own.router, None, experts.count, hidden, experts.router.bias)];
        modules.extend(gated(own.experts, Some(experts.count), &experts.expert));
        if let Some(shared) = &experts.shared {
            modules.extend(gated(own.shared, None, &shared.mlp));
            if shared.gate {
                modules.push(module(own.shared_gate, None, 1, hidden, false));
            }
        }
        modules
    }

    /// The vectors of a mixture of experts, by name, with what they lie around and their length.
    fn vectors_of_experts(&self, experts: &Experts, hidden: usize) -> Vec<(&'static str, f32, usize)> {
        let (own, router) = (self.family.tensors.experts, &experts.router);
        [
            (router.choice_bias, own.choice_bias, 0.0, experts.count),
            (router.expert_scale, own.expert_scale, 1.0, experts.count),
            (experts.norms.is_some(), own.router_norm, 1.0, hidden),
        ]
        .into_iter()
        .filter(|(there, ..)| *there)
        .map(|(_, name, middle, len)| (name, middle, len))
        .collect()
    }

    /// The weights of norms and what else is no matrix of a module, by name, with what they lie around and their shape.
    fn norms(&self) -> Vec<(String, f32, Vec<usize>)> {
        let (architecture, names) = (self.architecture(), &self.family.tensors);
        let hidden = architecture.hidden_size;
        let (mut all, mut others) = (Vec::new(), Vec::new());
        let mut norm = |norm: Norm, module: &str, shape: &[usize]| {
            let middle = match norm.weight {
                NormWeight::AsStored => 1.0,
                NormWeight::OnePlus => 0.0,
                NormWeight::None => return,
            };
            all.push((format!("{module}.weight"), middle, shape.to_vec()));
            if norm.bias {
                all.push((format!("{module}.bias"), 0.0, shape.to_vec()));
            }
        };
        for (index, layer) in architecture.layers.iter().enumerate() {
            let in_layer = |name: &str| names.in_layer(index, name);
            for (there, name) in [
                (layer.attention_norm, names.attention_norm),
                (layer.attention_output_norm, names.attention_output_norm),
                (layer.mlp_norm, names.mlp_norm),
                (layer.mlp_output_norm, names.mlp_output_norm),
            ] {
                if let Some((there, name)) = there.zip(name) {
                    norm(there, &in_layer(name), &[hidden]);
                }
            }
            if let FeedForward::Experts(Experts { norms: Some(norms), .. }) = &layer.mlp {
                for (there, name) in [
                    (norms.input, names.experts.input_norm),
                    (norms.output, names.experts.output_norm),
                    (norms.shared_output, names.experts.shared_output_norm),
                ] {
                    norm(there, &in_layer(name), &[hidden]);
                }
            }
            if let Some(input) = layer.token_input {
                norm(input.output_norm, &in_layer(names.token_inputs.output_norm), &[hidden]);
            }
            let attention = match &layer.mixer {
                Mixer::Attention(attention) => attention,
                Mixer::ShortConvolution(rule) => {
                    let convolution = in_layer(names.short_convolution.convolution);
                    others.push((format!("{convolution}.weight"), 0.3, vec![hidden, rule.taps, 1]));
                    if rule.bias {
                        others.push((format!("{convolution}.bias"), 0.0, vec![hidden]));
                    }
                    continue;
                }
                Mixer::DeltaNet(net) => {
                    let own = names.delta_net;
                    norm(net.norm, &in_layer(own.norm), &[net.value_dim]);
                    let convolution = format!("{}.weight", in_layer(own.convolution));
                    others.extend([
                        (convolution, 0.3, vec![net.mixed_size(), net.taps, 1]),
                        (in_layer(own.a_log), 0.5, vec![net.value_heads]),
                        (in_layer(own.dt_bias), 0.0, vec![net.value_heads]),
                    ]);
                    continue;
                }
            };
            if let Some(rule) = attention.qk_norm {
                let sides = [(names.qk_norm.q, attention.heads), (names.qk_norm.k, attention.kv_heads)];
                let own = !matches!(attention.key_values, KeyValues::OfLayer(_));
                for (name, heads) in sides.into_iter().take(1 + usize::from(own)) {
                    let (name, head_dim) = (in_layer(name), attention.head_dim);
                    match (rule.span, names.qk_norm.heads) {
                        (Span::Head, _) => norm(rule.norm, &name, &[head_dim]),
                        (Span::All, _) => norm(rule.norm, &name, &[heads * head_dim]),
                        (Span::EachHead, None) => norm(rule.norm, &name, &[heads, head_dim]),
                        (Span::EachHead, Some(between)) => {
                            (0..heads).for_each(|head| norm(rule.norm, &format!("{name}{between}{head}"), &[head_dim]));
                        }
                    }
                }
            }
        }
        norm(architecture.norm, names.norm, &[hidden]);
        if let Some(inputs) = architecture.token_inputs {
            norm(inputs.norm, names.token_inputs.norm, &[inputs.size]);
        }
        all.extend(others);
        for (index, layer) in architecture.layers.iter().enumerate() {
            if let Some(attention) = layer.mixer.attention().filter(|attention| attention.sinks) {
                all.push((names.in_layer(index, "self_attn.sinks"), 0.0, vec![attention.heads]));
            }
            if let FeedForward::Experts(experts) = &layer.mlp {
                let vectors = self.vectors_of_experts(experts, hidden);
                all.extend(
                    vectors.into_iter().map(|(name, middle, len)| (names.in_layer(index, name), middle, vec![len])),
                );
            }
        }
        all
    }

    /// Numbers that are weights, by name: those of activations, and of blocks' outputs.
    fn numbers(&self) -> Vec<(String, f32)> {
        let (architecture, names) = (self.architecture(), &self.family.tensors);
        let of_layer = |(index, layer): (usize, &Layer)| match layer.mlp.mlp().activation {
            _ if layer.output_scale => vec![(names.in_layer(index, names.output_scale), 0.875)],
            Activation::Xielu => {
                let numbers = [("alpha_p", 0.2), ("alpha_n", -0.9), ("beta", 0.5), ("eps", -1e-6)];
                numbers.map(|(name, x)| (names.in_layer(index, &format!("{}.{name}", names.activation)), x)).to_vec()
            }
            _ => Vec::new(),
        };
        architecture.layers.iter().enumerate().flat_map(of_layer).collect()
    }

    /// The codes that are packed into `module`, row-major; `None` if there is no such module, or if
    /// it is not quantized.
    ///
    /// # Panics
    /// If there is no format of so many bits in groups of such a size.
    pub fn codes(&self, module: &str) -> Option<Vec<u32>> {
        let format = self.format(module)?;
        let mask = format.width().mask();
        let Module { count, rows, cols, .. } = self.modules().into_iter().find(|candidate| candidate.name == module)?;
        let mut random = self.random(&format!("{module}.weight"));
        let is_nan = |code: u32| format.codes().value(code).is_nan();
        let code = |code: u32| if is_nan(code) { code ^ 1 } else { code };
        Some((0..count.unwrap_or(1) * rows * cols).map(|_| code(random.next_u64() as u32 & mask)).collect())
    }

    /// Every tensor of the checkpoint, by name.
    ///
    /// # Panics
    /// If the fixture is not a possible model, such as a width that is no multiple of its group.
    pub fn tensors(&self) -> BTreeMap<String, FixtureTensor> {
        let mut tensors = BTreeMap::new();
        for Module { name, count, rows: rows_of_each, cols, bias } in self.modules() {
            let rows = count.unwrap_or(1) * rows_of_each;
            let shape =
                |columns: Option<usize>| count.into_iter().chain([rows_of_each]).chain(columns).collect::<Vec<_>>();
            if bias {
                let mut bias = self.vector(&format!("{name}.bias"), rows, 0.0);
                bias.shape = shape(None);
                tensors.insert(format!("{name}.bias"), bias);
            }
            // Uniform codes then give weights with a standard deviation of about 1 / sqrt(cols).
            let deviation = 1.0 / (cols as f32).sqrt();
            let weight = format!("{name}.weight");
            let Some(format) = self.format(&name) else {
                let mut random = self.random(&weight);
                let values = (0..rows * cols).map(|_| 3.4 * deviation * (random.unit() - 0.5));
                tensors.insert(weight, float_tensor(self.scale_type, shape(Some(cols)), values));
                continue;
            };
            let (codes, width, group_size) =
                (self.codes(&name).expect("it has a format"), format.width(), format.group_size());
            let data = codes.chunks(cols).flat_map(|row| width.pack(row)).collect();
            let words_per_row = width.words(cols);
            tensors.insert(weight, FixtureTensor { dtype: Dtype::U32, shape: shape(Some(words_per_row)), data });

            assert!(cols.is_multiple_of(group_size), "{name}: {cols} columns in groups of {group_size}");
            let groups = cols / group_size;
            let top = match format.codes() {
                Codes::Affine(_) => width.mask() as f32,
                // Uniform codes that are floats give weights of about a third of the largest.
                Codes::E2m1 => 12.0,
                Codes::E4m3 => 600.0,
            };
            let mut random = self.random(&format!("{name}.scales"));
            let signed = format.scale_types() != [FloatType::E8m0];
            let scales: Vec<f32> = (0..rows * groups)
                .map(|_| {
                    let sign = if random.next_u64().is_multiple_of(8) && signed { -1.0 } else { 1.0 };
                    sign * (0.5 + random.unit()) * 3.4 * deviation / top
                })
                .collect();
            let biases: Vec<f32> = scales.iter().map(|scale| -scale * top * (0.4 + 0.2 * random.unit())).collect();
            let scale_type = if format.has_biases() { self.scale_type } else { format.scale_types()[0] };
            for (part, values) in [("scales", scales), ("biases", biases)] {
                if part == "scales" || format.has_biases() {
                    let tensor = float_tensor(scale_type, shape(Some(groups)), values.into_iter());
                    tensors.insert(format!("{name}.{part}"), tensor);
                }
            }
        }
        for (name, middle, shape) in self.norms() {
            let mut norm = self.vector(&name, shape.iter().product(), middle);
            norm.shape = shape;
            tensors.insert(name, norm);
        }
        for (name, number) in self.numbers() {
            tensors.insert(name, float_tensor(self.scale_type, Vec::new(), [number].into_iter()));
        }
        tensors
    }

    /// The model in each form that may have experts with tensors of their own: with plain experts, and as it is where mlx-lm stacks
    /// quantized ones of its family, too.
    pub fn stackable(&self) -> Vec<Self> {
        let mut plain = self.clone();
        for module in self.modules().into_iter().filter(|module| module.count.is_some()) {
            plain.overrides.insert(module.name, Override::Dense);
        }
        let quantized = self.family.may_quantize_experts_apart().then(|| self.clone());
        [Some(plain), quantized].into_iter().flatten().collect()
    }

    /// Every tensor of the same checkpoint with experts that have tensors of their own, which [`Fixture::tensors`] stacks.
    ///
    /// # Panics
    /// If the family has no names for such.
    pub fn tensors_of_experts_apart(&self) -> BTreeMap<String, FixtureTensor> {
        let names = &self.family.tensors;
        let apart = names.experts.apart.expect("a family whose experts may have tensors of their own");
        let mut tensors = self.tensors();
        for (index, projection) in (0..self.num_hidden_layers).flat_map(|index| [0, 1, 2].map(|place| (index, place))) {
            let stacked = names.in_layer(index, names.experts.experts);
            for part in ["weight", "scales", "biases"] {
                let Some(all) = tensors.remove(&format!("{stacked}.{}.{part}", family::PROJECTIONS[projection])) else {
                    continue;
                };
                let bytes = all.data.len() / all.shape[0];
                for (expert, data) in all.data.chunks_exact(bytes).enumerate() {
                    let own = format!("{}.{expert}.{}.{part}", apart.module, apart.projections[projection]);
                    let tensor =
                        FixtureTensor { dtype: all.dtype, shape: all.shape[1..].to_vec(), data: data.to_vec() };
                    tensors.insert(names.in_layer(index, &own), tensor);
                }
            }
        }
        tensors
    }

    /// `len` numbers around `middle`.
    fn vector(&self, name: &str, len: usize, middle: f32) -> FixtureTensor {
        let mut random = self.random(name);
        float_tensor(self.scale_type, vec![len], (0..len).map(|_| middle + 0.4 * (random.unit() - 0.5)))
    }

    fn format(&self, module: &str) -> Option<Format> {
        match self.overrides.get(module) {
            Some(Override::Dense) => None,
            Some(Override::Format(own)) => Some(*own),
            Some(Override::Quantized) | None => {
                Some(Format::affine(self.bits, self.group_size).unwrap_or_else(|error| panic!("{error}")))
            }
        }
    }

    /// Numbers of its own for each tensor, so that changing one part of a fixture leaves the others.
    fn random(&self, tensor: &str) -> SplitMix64 {
        let hash = blake3::hash(tensor.as_bytes());
        let name = u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes"));
        SplitMix64(self.seed ^ name)
    }
}

/// The class that transformers has for a `model_type`: `LlamaForCausalLM`.
fn class_of(model_type: &str) -> String {
    let (first, rest) = model_type.split_at(1);
    format!("{}{rest}ForCausalLM", first.to_uppercase())
}

/// A checkpoint of any configuration and tensors, valid or not, in `shards` safetensors files, with
/// an index if there are more than one. Tensors are dealt out in turn.
///
/// # Panics
/// If a tensor's data are not as long as its type and shape ask for, or `shards` is 0.
pub fn files_of(config: &Value, tensors: &BTreeMap<String, FixtureTensor>, shards: usize) -> BTreeMap<String, Bytes> {
    assert!(shards > 0, "a checkpoint has at least one shard");
    let mut files = BTreeMap::from([("config.json".to_owned(), Bytes::new(config.to_string().into_bytes()))]);
    if shards == 1 {
        files.insert("model.safetensors".to_owned(), Bytes::new(safetensors_file(tensors)));
        return files;
    }
    let file = |shard: usize| format!("model-{:05}-of-{shards:05}.safetensors", shard + 1);
    let mut dealt = vec![BTreeMap::new(); shards];
    let mut weight_map = BTreeMap::new();
    for (i, (name, tensor)) in tensors.iter().enumerate() {
        dealt[i % shards].insert(name.clone(), tensor.clone());
        weight_map.insert(name, file(i % shards));
    }
    for (shard, tensors) in dealt.iter().enumerate() {
        files.insert(file(shard), Bytes::new(safetensors_file(tensors)));
    }
    let index = json!({"metadata": {"total_size": 0}, "weight_map": weight_map});
    files.insert("model.safetensors.index.json".to_owned(), Bytes::new(index.to_string().into_bytes()));
    files
}

/// A safetensors file, written by the `safetensors` crate.
///
/// # Panics
/// If a tensor's data are not as long as its type and shape ask for.
pub(crate) fn safetensors_file(tensors: &BTreeMap<String, FixtureTensor>) -> Vec<u8> {
    safetensors::serialize(tensors, None).expect("the data are as long as the shapes ask for")
}

/// A file of any header and data, whether it is a safetensors file or not.
pub fn raw_safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

impl View for &FixtureTensor {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.data)
    }
    fn data_len(&self) -> usize {
        self.data.len()
    }
}

/// `values`, rounded to `float_type`.
fn float_tensor(float_type: FloatType, shape: Vec<usize>, values: impl Iterator<Item = f32>) -> FixtureTensor {
    let dtype = match float_type {
        FloatType::F16 => Dtype::F16,
        FloatType::Bf16 => Dtype::BF16,
        FloatType::F32 => Dtype::F32,
        FloatType::E8m0 | FloatType::E4m3 => Dtype::U8,
    };
    FixtureTensor { dtype, shape, data: values.flat_map(|value| encode(float_type, value)).collect() }
}
