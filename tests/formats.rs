//! Every format as MLX has it: a small matrix of each as `mx.quantize` packs it (`fixtures/formats/make.py`), and whole models.
//!
//! Whole models need the kit of synthetic checkpoints with mlx-lm's trajectories: `HEADROOM_FAMILIES` names its folder. Without it
//! that test says that it was skipped.

#![expect(clippy::print_stdout, reason = "a test says what it looked at")]

#[expect(dead_code, reason = "the others are of other models")]
mod mlx_lm;

use std::{path::PathBuf, sync::Arc};

use lm_headroom::{
    coherence::Finish,
    edit::Plan,
    kernels::{Kernel, scalar},
    quant::{Format, Layout, MatrixBuf},
    subject::{self, Subject},
    team::Team,
    testing::{model::answers, skipped},
};
use mlx_lm::{Reference, compare, references};
use serde::Deserialize;

/// A line of `formats.jsonl`.
#[derive(Deserialize)]
struct Stored {
    format: String,
    scale_type: String,
    weight: Vec<String>,
    scales: Vec<String>,
    biases: Option<Vec<String>>,
    weights: Vec<Vec<f32>>,
}

fn bytes(rows: &[String]) -> Vec<u8> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("a byte");
    rows.iter().flat_map(|row| row.as_bytes().chunks(2).map(byte).collect::<Vec<_>>()).collect()
}

#[test]
fn what_mlx_packs_is_read_as_mlx_reads_it_in_every_format() {
    let mut formats = Vec::new();
    for line in include_str!("fixtures/formats/formats.jsonl").lines() {
        let stored: Stored = serde_json::from_str(line).expect("a line");
        let format: Format = stored.format.parse().expect("a format");
        let scale_type = *format
            .scale_types()
            .iter()
            .find(|scale_type| scale_type.name() == stored.scale_type)
            .expect("a type that the format's scales have");
        let (rows, cols) = (stored.weights.len(), stored.weights[0].len());
        let layout = Layout::new(rows, cols, format, scale_type).expect("a layout");
        let biases = stored.biases.as_deref().map(bytes);
        let matrix = MatrixBuf::new(layout, bytes(&stored.weight), bytes(&stored.scales), biases).expect("a matrix");
        let mut weights = vec![f32::NAN; cols];
        for (row, expected) in stored.weights.iter().enumerate() {
            scalar::dequantize_row(&matrix.view(), 0, row, &mut weights);
            for (column, (&found, &expected)) in weights.iter().zip(expected).enumerate() {
                // A float is exact; of integers MLX may round the product before it adds the bias.
                let group = column / format.group_size();
                let bias = matrix.biases().map_or(0.0, |_| matrix.view().bias(row, group));
                let bound =
                    (found - bias).abs().max(bias.abs()) * f32::EPSILON * f32::from(u8::from(format.has_biases()));
                assert!((found - expected).abs() <= bound, "{format} at {row}, {column}: {found} and {expected}");
            }
        }
        formats.push(format);
    }
    assert_eq!(formats, Format::all().collect::<Vec<_>>(), "each once");
}

/// What is asked of a checkpoint whose head's edits make weights that are not numbers: mlx-lm goes on with the first row of them,
/// and here the trial ends at that step.
fn ends_at_once(model: &Subject, references: &[Reference]) {
    for reference in references {
        let plan = Plan { shift: reference.shift as u32, ..Plan::default() };
        let (_, trials) = answers(model, std::slice::from_ref(&reference.prompt_ids), &[plan], 10).expect("trials");
        assert_eq!((&trials[0].trajectory.tokens[..], trials[0].trajectory.finish), (&[][..], Finish::Nonfinite));
    }
}

#[test]
fn models_in_every_format_answer_as_mlx_lm_does() {
    let Some(kit) = std::env::var_os("HEADROOM_FAMILIES").map(PathBuf::from) else {
        skipped("mlx-lm's trajectories on models in every format", "HEADROOM_FAMILIES names no folder");
        return;
    };
    let mut checked = 0;
    let mut names: Vec<PathBuf> =
        kit.read_dir().expect("the kit").map(|entry| entry.expect("an entry").path()).collect();
    names.sort();
    for folder in names {
        let name = folder.file_name().expect("a name").to_string_lossy().into_owned();
        let (Some(variant), true) = (name.strip_prefix("llama@"), folder.join("reference.jsonl").exists()) else {
            continue;
        };
        // The others are about rotary embeddings and attention.
        if ["bias", "dynamic", "linear", "swa", "yarn"].iter().any(|other| variant.starts_with(other)) {
            continue;
        }
        for (file, shared) in [("reference.jsonl", false), ("reference-shared.jsonl", true)] {
            let Ok(text) = std::fs::read_to_string(folder.join(file)) else { continue };
            let checkpoint = subject::open(Some(&folder)).expect("a checkpoint");
            let team = Arc::new(Team::of_this_machine());
            let model = Subject::new(name.clone(), None, checkpoint, Kernel::best(), team).expect("a tokenizer");
            let model = model.with_shared_embedding(shared);
            let (not_a_number, numbers): (Vec<_>, Vec<_>) =
                references(&text).into_iter().partition(|reference| reference.nan_steps > 0);
            compare(&model, &numbers, 5e-3);
            ends_at_once(&model, &not_a_number);
            checked += 1;
        }
    }
    assert!(checked > 0, "no checkpoint of {} is about formats", kit.display());
}
