//! Checkpoints that mlx-lm wrote, and one of the size that people run.

use std::{
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    time::Instant,
};

use crate::{
    checkpoint::Checkpoint,
    testing::{fixture::Fixture, skipped},
};

/// The folder with converted models, or a line that says what was not checked.
fn models() -> Option<PathBuf> {
    let folder = env::var_os("HEADROOM_MODELS").filter(|folder| !folder.is_empty());
    if folder.is_none() {
        skipped("opening what mlx-lm wrote", "HEADROOM_MODELS names no folder with smollm2-g64 and its kin");
    }
    folder.map(PathBuf::from)
}

#[test]
fn what_mlx_lm_wrote_opens() {
    let Some(models) = models() else { return };
    for (name, group_size, tied) in
        [("smollm2-g64", 64, false), ("smollm2-g32", 32, false), ("smollm2-g64-tied", 64, true)]
    {
        let checkpoint = Checkpoint::open(&models.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let (config, architecture) = (checkpoint.config(), &checkpoint.config().architecture);
        let sizes = (architecture.layers.len(), architecture.hidden_size, architecture.vocab_size);
        assert_eq!(sizes, (30, 576, 49152));
        assert_eq!((architecture.tied, config.eos_token_ids.as_slice()), (tied, &[2][..]));
        let head = checkpoint.weights().head().view();
        assert_eq!((head.layout().rows(), head.layout().cols()), (49152, 576));
        assert_eq!((head.layout().bits(), head.layout().group_size()), (4, group_size));
        assert!(checkpoint.file("tokenizer.json").is_some());
    }
}

/// A sparse file of the shapes of a 4-bit Llama-3-8B: 4.5 GB that take no room on disk.
#[cfg(target_os = "linux")]
fn sparse_8b(folder: &Path) {
    let fixture = Fixture {
        vocab_size: 128_256,
        hidden_size: 4096,
        intermediate_size: 14_336,
        num_hidden_layers: 32,
        num_attention_heads: 32,
        num_key_value_heads: 8,
        group_size: 64,
        ..Fixture::default()
    };
    let mut entries = Vec::new();
    let mut offset = 0u64;
    let mut add = |name: String, dtype: &str, size: u64, shape: &[usize]| {
        let end = offset + size * shape.iter().map(|&n| n as u64).product::<u64>();
        entries.push(format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{offset},{end}]}}"#));
        offset = end;
    };
    for module in fixture.modules() {
        add(format!("{}.weight", module.name), "U32", 4, &[module.rows, module.cols / 8]);
        for part in ["scales", "biases"] {
            add(format!("{}.{part}", module.name), "F16", 2, &[module.rows, module.cols / 64]);
        }
    }
    for layer in 0..32 {
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            add(format!("model.layers.{layer}.{norm}.weight"), "F16", 2, &[4096]);
        }
    }
    add("model.norm.weight".to_owned(), "F16", 2, &[4096]);
    let header = format!("{{{}}}", entries.join(","));
    fs::write(folder.join("config.json"), fixture.config().to_string()).unwrap();
    let mut file = fs::File::create(folder.join("model.safetensors")).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len(8 + header.len() as u64 + offset).unwrap();
}

/// Resident memory of this process, in bytes.
#[cfg(target_os = "linux")]
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    1024 * line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn an_8b_checkpoint_opens_in_under_a_second_and_200_mb() {
    let folder = tempfile::tempdir().unwrap();
    sparse_8b(folder.path());
    assert!(fs::metadata(folder.path().join("model.safetensors")).unwrap().len() > 4_500_000_000);
    let start = Instant::now();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let (took, memory) = (start.elapsed(), resident());
    assert_eq!(checkpoint.weights().layers.len(), 32);
    assert!(took.as_secs_f64() < 1.0, "opening took {took:?}");
    assert!(memory < 200_000_000, "{memory} bytes are resident");
}
