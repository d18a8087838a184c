//! A checkpoint of Llama-3-8B's shape, in 4 bits: random embedding and head, layers that add nothing.

use std::{
    fs::{self, File},
    io::{BufWriter, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

const HIDDEN: usize = 4096;
const INTERMEDIATE: usize = 14_336;
const VOCAB: usize = 128_256;
const KEY_VALUE: usize = 1024;
const GROUP: usize = 64;

/// The folder of one with so many layers, written where it is not there yet. Layers are zeros, which the file has as a hole:
/// opening reads no weights, and a body of zeros passes the embedding on, so that hidden states and logits are random.
pub(crate) fn with_layers(layers: usize) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("llama3-8b-{layers}"));
    if !folder.join("config.json").exists() {
        let part = folder.with_extension("part");
        // What an earlier run left, if anything.
        let _ = fs::remove_dir_all(&part);
        fs::create_dir_all(&part).expect("a folder");
        write(&part, layers).expect("room for a checkpoint");
        fs::rename(&part, &folder).expect("a folder of its own");
    }
    folder
}

/// A tensor: its name, type, shape and whether it is random.
struct Tensor {
    name: String,
    dtype: &'static str,
    shape: Vec<usize>,
    random: bool,
}

impl Tensor {
    fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * if self.dtype == "U32" { 4 } else { 2 }
    }
}

fn linear(name: &str, rows: usize, cols: usize, random: bool) -> impl Iterator<Item = Tensor> {
    [("weight", "U32", cols / 8), ("scales", "F16", cols / GROUP), ("biases", "F16", cols / GROUP)]
        .map(|(part, dtype, cols)| Tensor { name: format!("{name}.{part}"), dtype, shape: vec![rows, cols], random })
        .into_iter()
}

fn norm(name: String, random: bool) -> Tensor {
    Tensor { name: format!("{name}.weight"), dtype: "F16", shape: vec![HIDDEN], random }
}

fn write(folder: &Path, layers: usize) -> std::io::Result<()> {
    let mut tensors: Vec<Tensor> = linear("model.embed_tokens", VOCAB, HIDDEN, true).collect();
    tensors.extend(linear("lm_head", VOCAB, HIDDEN, true));
    tensors.push(norm("model.norm".to_owned(), true));
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
            tensors.extend(linear(&name(part), rows, cols, false));
        }
        tensors.push(norm(name("input_layernorm"), false));
        tensors.push(norm(name("post_attention_layernorm"), false));
    }
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
    let mut state = 1_u64;
    for tensor in &tensors {
        if tensor.random {
            fill(tensor, &mut state, &mut file)?;
        } else {
            file.seek(SeekFrom::Current(tensor.bytes() as i64))?;
        }
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
/// about 0.0045, and biases that put the middle at zero.
fn fill(tensor: &Tensor, state: &mut u64, file: &mut impl Write) -> std::io::Result<()> {
    let mut next = || {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 32) as u32
    };
    for _ in 0..tensor.bytes() / 4 {
        let word = if tensor.dtype == "U32" {
            (next() & 0x7777_7777) + (next() & 0x7777_7777) + (next() & 0x1111_1111)
        } else {
            let mut two = || {
                let scale = 0.0045 * (0.7 + 0.6 * (next() >> 8) as f32 / (1 << 24) as f32);
                let value = match tensor.name.rsplit('.').next() {
                    Some("scales") => scale,
                    Some("biases") => -7.5 * scale,
                    _ => 1.0,
                };
                u32::from(half::f16::from_f32(value).to_bits())
            };
            two() | two() << 16
        };
        file.write_all(&word.to_le_bytes())?;
    }
    Ok(())
}
