//! `inspect`: what the checkpoint holds, without reading its weights.

use std::{collections::BTreeMap, fmt::Write};

use anyhow::Result;
use serde_json::{Value, json};

use super::{
    args::{Format, InspectArgs},
    exit_code, output, resolve,
};
use crate::{
    checkpoint::{Architecture, architecture::Layer, config::Override},
    quant,
    report::terminal::plain,
    subject::Subject,
};

/// Packed words shown.
const WORDS: usize = 10;

pub(super) fn inspect(args: &InspectArgs) -> Result<u8> {
    // Nothing is run.
    let subject = resolve::head_on_cpu(&args.model)?;
    match args.format {
        Format::Text => output::text(&text(&subject, args.digests))?,
        Format::Json | Format::Jsonl => output::json(&object(&subject, args.digests))?,
    }
    Ok(exit_code::DONE)
}

fn first_words(subject: &Subject) -> Vec<u32> {
    let head = subject.head().view();
    (0..WORDS.min(head.layout().words_per_row())).map(|i| head.word(0, i)).collect()
}

/// Bytes of all tensors by where they go: the head, and everything else.
fn bytes(subject: &Subject) -> (u64, u64) {
    let head = subject.head().view();
    let head = head.parts().map(|(_, part)| part.len() as u64).sum();
    let size = |dtype: &str| match dtype {
        "uint32" | "float32" => 4,
        "uint8" => 1,
        _ => 2,
    };
    let all: u64 =
        subject.checkpoint().tensors().iter().map(|t| size(&t.dtype) * t.shape.iter().product::<u64>()).sum();
    (head, all)
}

/// The model's format and its exceptions; that of the head, where the checkpoint was opened for its head alone.
fn quantization(subject: &Subject) -> Value {
    let format = |format: &quant::Format| json!({"group_size": format.group_size(), "bits": format.width().bits(), "mode": format.mode()});
    if !subject.checkpoint().has_body() {
        return format(&subject.head().layout().format());
    }
    let quantization = &subject.checkpoint().config().quantization;
    let mut object = format(&quantization.format);
    for (module, exception) in &quantization.overrides {
        object[module] = match exception {
            Override::Format(own) => format(own),
            Override::Quantized => Value::Bool(true),
            Override::Dense => Value::Bool(false),
        };
    }
    object
}

/// The format of each matrix, by its module; of the head alone, where nothing else was read.
fn of_modules(subject: &Subject) -> BTreeMap<String, String> {
    let checkpoint = subject.checkpoint();
    if checkpoint.has_body() {
        return checkpoint.weights().formats.clone();
    }
    [(checkpoint.facts().head.clone(), subject.head().layout().format().to_string())].into()
}

/// Formats of matrices, the most frequent first: each with the module where only one has it, and else with how many do.
fn formats(of_modules: &BTreeMap<String, String>) -> String {
    let mut modules: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (module, format) in of_modules {
        modules.entry(format).or_default().push(module);
    }
    let mut modules: Vec<(&str, Vec<&str>)> = modules.into_iter().collect();
    modules.sort_by_key(|(_, modules)| std::cmp::Reverse(modules.len()));
    let text = |(format, modules): &(&str, Vec<&str>)| match modules[..] {
        [module] => format!("{format} ({})", plain(module)),
        _ => format!("{format} ({} matrices)", modules.len()),
    };
    modules.iter().map(text).collect::<Vec<_>>().join(", ")
}

fn object(subject: &Subject, digests: bool) -> Value {
    let checkpoint = subject.checkpoint();
    let facts = checkpoint.facts();
    let tensors: Vec<Value> = checkpoint
        .tensors()
        .iter()
        .map(|t| json!({"name": t.name, "dtype": t.dtype, "shape": t.shape, "file": &*t.file}))
        .collect();
    let (head_bytes, tensor_bytes) = bytes(subject);
    let mut object = json!({
        "command": "inspect",
        "model": subject.name(),
        "revision": subject.revision(),
        "model_type": facts.model_type,
        "hidden_size": facts.hidden_size,
        "num_hidden_layers": facts.layers,
        "vocab_size": facts.vocab_size,
        "eos_token_ids": subject.eos(),
        "tied": facts.tied,
        "head": facts.head,
        "head_format": subject.head().layout().format().to_string(),
        "after_head": subject.backend().after_head().told(),
        "quantization": quantization(subject),
        "formats": of_modules(subject),
        "first_words": first_words(subject),
        "tensors": tensors,
        "memory": {"tensor_bytes": tensor_bytes, "head_bytes": head_bytes},
        "kernel": subject.kernel().name(),
        "model_digest": Value::Null,
        "head_digest": Value::Null,
    });
    if digests {
        object["model_digest"] = json!(checkpoint.model_digest().to_hex().as_str());
        object["head_digest"] = json!(subject.head_digest());
    }
    object
}

/// A size of the layers that have one: each that occurs, in the order in which they do.
fn of_layers(architecture: &Architecture, size: impl Fn(&Layer) -> Option<usize>) -> String {
    let mut sizes = Vec::new();
    for size in architecture.layers.iter().filter_map(|layer| Some(size(layer)?.to_string())) {
        if !sizes.contains(&size) {
            sizes.push(size);
        }
    }
    sizes.join("/")
}

fn text(subject: &Subject, digests: bool) -> String {
    let checkpoint = subject.checkpoint();
    let mut out = resolve::introduction(subject);
    let (head, all) = bytes(subject);
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    if checkpoint.has_body() {
        let architecture = &checkpoint.config().architecture;
        _ = write!(
            out,
            "{} query heads, {} key heads, head_dim {}, intermediate {}, ",
            of_layers(architecture, |layer| Some(layer.mixer.attention()?.heads)),
            of_layers(architecture, |layer| Some(layer.mixer.attention()?.kv_heads)),
            of_layers(architecture, |layer| Some(layer.mixer.attention()?.head_dim)),
            of_layers(architecture, |layer| Some(layer.mlp.mlp().intermediate_size)),
        );
        if let Some(experts) = architecture.layers.iter().find_map(|layer| layer.mlp.experts()) {
            _ = write!(out, "{} of {} experts for a position, ", experts.router.chosen, experts.count);
        }
    }
    _ = writeln!(out, "vocabulary {}, eos {:?}", checkpoint.facts().vocab_size, subject.eos());
    _ = writeln!(out, "{} tensors, {:.1} MiB; the head {:.1} MiB", checkpoint.tensors().len(), mib(all), mib(head));
    _ = writeln!(out, "quantization {}", quantization(subject));
    _ = writeln!(out, "formats {}", formats(&of_modules(subject)));
    if let Some(after) = subject.backend().after_head().told() {
        _ = writeln!(out, "after the head: {after}");
    }
    _ = writeln!(out, "head {}, first packed words {:?}", checkpoint.facts().head, first_words(subject));
    if digests {
        _ = writeln!(out, "model digest {}", checkpoint.model_digest());
        _ = writeln!(out, "head digest  {}", subject.head_digest());
    }
    let names: Vec<String> = checkpoint.tensors().iter().map(|tensor| plain(&tensor.name)).collect();
    let width = names.iter().map(String::len).max().unwrap_or(0);
    for (name, tensor) in names.iter().zip(checkpoint.tensors()) {
        _ = writeln!(out, "  {name:<width$}  {:<9} {:?}", plain(&tensor.dtype), tensor.shape);
    }
    out
}
