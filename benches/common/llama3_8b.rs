//! A checkpoint of Llama-3-8B's shape, in 4 bits, groups of 64, with random weights of a trained model's size.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use lm_headroom::{quant::Format, random::SplitMix64};

const HIDDEN: usize = 4096;
const INTERMEDIATE: usize = 14_336;
const VOCAB: usize = 128_256;
const KEY_VALUE: usize = 1024;
const GROUP: usize = 64;

/// The folder of one with so many layers, written where it is not there yet, beside what cargo builds. One that is not filled
/// is a hole (4.5 GB for 32 layers) that takes no room: enough to open it, since opening reads no weight.
pub(crate) fn with_layers(layers: usize, filled: bool) -> PathBuf {
    let name = format!("llama3-8b-{layers}-{}", if filled { "filled" } else { "hole" });
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench-models").join(name);
    if !folder.join("config.json").exists() {
        // A name of this process alone: nobody takes half a checkpoint for a whole one.
        let part = folder.with_extension(format!("{}.part", std::process::id()));
        fs::create_dir_all(&part).expect("a folder");
        write(&part, layers, filled).expect("room for a checkpoint");
        fs::rename(&part, &folder).expect("a folder of its own");
    }
    folder
}

/// A tensor: its name, type and shape.
struct Tensor {
    name: String,
    dtype: &'static str,
    shape: Vec<usize>,
    /// Of its random numbers. Scales and biases of a matrix have one in common.
    seed: u64,
}

impl Tensor {
    fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * if self.dtype == "U32" { 4 } else { 2 }
    }
}

fn linear(tensors: &mut Vec<Tensor>, name: &str, rows: usize, cols: usize) {
    let mut seeds = SplitMix64(tensors.len() as u64);
    let (codes, groups) = (seeds.next_u64(), seeds.next_u64());
    let format = Format::affine(4, GROUP).expect("a format");
    for (part, dtype, cols, seed) in [
        ("weight", "U32", format.width().words(cols), codes),
        ("scales", "F16", cols / GROUP, groups),
        ("biases", "F16", cols / GROUP, groups),
    ] {
        tensors.push(Tensor { name: format!("{name}.{part}"), dtype, shape: vec![rows, cols], seed });
    }
}

fn norm(tensors: &mut Vec<Tensor>, name: &str) {
    tensors.push(Tensor { name: format!("{name}.weight"), dtype: "F16", shape: vec![HIDDEN], seed: 0 });
}

fn write(folder: &Path, layers: usize, filled: bool) -> std::io::Result<()> {
    let mut tensors = Vec::new();
    linear(&mut tensors, "model.embed_tokens", VOCAB, HIDDEN);
    for layer in 0..layers {
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        for (part, rows, cols) in [
            ("self_attn.q_proj", HIDDEN, HIDDEN),
            ("self_attn.k_proj", KEY_VALUE, HIDDEN),
            ("self_attn.v_proj", KEY_VALUE, HIDDEN),
            ("self_attn.o_proj", HIDDEN, HIDDEN),
            ("mlp.gate_proj", INTERMEDIATE, HIDDEN),
            ("mlp.up_proj", INTERMEDIATE, HIDDEN),
            ("mlp.down_proj", HIDDEN, INTERMEDIATE),
        ] {
            linear(&mut tensors, &name(part), rows, cols);
        }
        norm(&mut tensors, &name("input_layernorm"));
        norm(&mut tensors, &name("post_attention_layernorm"));
    }
    norm(&mut tensors, "model.norm");
    linear(&mut tensors, "lm_head", VOCAB, HIDDEN);
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for tensor in &tensors {
        let start = end;
        end += tensor.bytes();
        let entry = serde_json::json!({ "dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [start, end] });
        header.insert(tensor.name.clone(), entry);
    }
    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = BufWriter::with_capacity(1 << 20, File::create(folder.join("model.safetensors"))?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    if filled {
        // Every tensor is a whole number of words of 64 bits.
        tensors.iter().try_for_each(|tensor| fill(tensor, &mut file))?;
    }
    file.into_inner()?.set_len((8 + header.len() + end) as u64)?;
    let config = serde_json::json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE, "num_hidden_layers": layers, "num_attention_heads": 32,
        "num_key_value_heads": 8, "head_dim": 128, "rms_norm_eps": 1e-5, "rope_theta": 500_000.0,
        "vocab_size": VOCAB, "max_position_embeddings": 8192, "tie_word_embeddings": false, "hidden_act": "silu",
        "bos_token_id": 128_000, "eos_token_id": 128_001,
        "quantization": { "group_size": GROUP, "bits": 4 }
    });
    fs::write(folder.join("config.json"), config.to_string())
}

/// Codes as a trained matrix has them, most near the middle: each the sum of two draws from 0 to 7 and one bit. Scales of
/// 0.0045, give or take a fifth; biases that put the middle of each group at zero. Norms of one.
fn fill(tensor: &Tensor, file: &mut impl Write) -> std::io::Result<()> {
    let mut random = SplitMix64(tensor.seed);
    let times = match tensor.name.rsplit('.').next() {
        Some("scales") => Some(1.0),
        Some("biases") => Some(-7.5),
        _ => None,
    };
    for _ in 0..tensor.bytes() / 8 {
        let word = if tensor.dtype == "U32" {
            // Sixteen codes; none of their sums reaches into the next.
            (random.next_u64() & 0x7777_7777_7777_7777)
                + (random.next_u64() & 0x7777_7777_7777_7777)
                + (random.next_u64() & 0x1111_1111_1111_1111)
        } else {
            (0..4).fold(0, |word, i| {
                let value = times.map_or(1.0, |times| times * 0.0045 * (1.0 + 0.2 * normal(&mut random)));
                word | u64::from(half::f16::from_f32(value).to_bits()) << (16 * i)
            })
        };
        file.write_all(&word.to_le_bytes())?;
    }
    Ok(())
}

/// About normal: the sum of four uniform numbers, less its mean and over its deviation. Never beyond 3.5.
fn normal(random: &mut SplitMix64) -> f32 {
    let word = random.next_u64();
    let sum: u64 = (0..4).map(|i| word >> (16 * i) & 0xffff).sum();
    (sum as f32 / 65536.0 - 2.0) * 3.0_f32.sqrt()
}
