//! Law 9: any bytes as a checkpoint are an error or a model, never a panic, never much memory.
//!
//! This oracle does not see memory. libFuzzer watches it for the fuzz target, and `tests/memory.rs` counts what is
//! allocated.

use std::{collections::BTreeMap, sync::OnceLock};

use arbitrary::{Arbitrary, Result, Unstructured};
use serde::{Deserialize, Serialize};

use super::{Case, LawResult, Reached, claim, with_native_families};
use crate::{
    checkpoint::{Bytes, Checkpoint, CheckpointError, Family, family::NATIVE},
    testing::{
        fixture::Fixture,
        strategies::{
            damage::{Damage, Hex},
            some,
        },
    },
};

const LAW: u8 = 9;

/// Files of a checkpoint by name.
pub(crate) type Files = BTreeMap<String, Bytes>;

/// What becomes of one file of a valid checkpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Contents {
    /// Other bytes.
    Bytes(Hex),
    /// Its own, damaged within the header of a safetensors file.
    Header(Vec<Damage>),
    /// Its own, damaged anywhere.
    Anywhere(Vec<Damage>),
}

/// A checkpoint of which one file is not what it was.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Damaged {
    /// Which of [`valid`], modulo their number.
    base: u8,
    /// Which of its files in the order of their names, modulo their number.
    file: u8,
    /// What it holds.
    contents: Contents,
}

impl<'a> Arbitrary<'a> for Damaged {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let (base, file, kind) = (u.arbitrary()?, u.arbitrary()?, u.int_in_range(0..=9_u8)?);
        let damage = |u: &mut Unstructured<'a>| some(u, 1, 3, |u| u.arbitrary::<Damage>());
        let contents = match kind {
            0..=4 => Contents::Header(damage(u)?),
            5..=8 => Contents::Anywhere(damage(u)?),
            _ => {
                // All that is left, so that a fuzzer's dictionary is written into the file itself.
                let rest = u.len();
                Contents::Bytes(Hex(u.bytes(rest)?.to_vec()))
            }
        };
        Ok(Self { base, file, contents })
    }
}

impl Case for Damaged {
    const NAME: &'static str = "checkpoint";
    const CLASSES: &'static [&'static str] =
        &with_native_families::<{ 4 + NATIVE.len() }>(&["model", "config", "tensors", "weights"]);
    const ENTROPY: usize = 64;

    fn check(&self, reached: &mut Reached) -> LawResult {
        any_files(self.files(), reached)
    }
}

impl Damaged {
    /// The files.
    pub fn files(&self) -> Files {
        let bases = valid();
        let mut files = bases[usize::from(self.base) % bases.len()].clone();
        let name = files.keys().nth(usize::from(self.file) % files.len()).expect("an index below their number").clone();
        let mut contents = files[&name].to_vec();
        // The data of a safetensors file are most of it, and any data are valid.
        let header = contents.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
        let header = if name.ends_with(".safetensors") { 8 + header as usize } else { contents.len() };
        match &self.contents {
            Contents::Bytes(bytes) => contents.clone_from(&bytes.0),
            Contents::Header(damage) => damage.iter().for_each(|damage| damage.apply(&mut contents, header)),
            Contents::Anywhere(damage) => damage.iter().for_each(|damage| damage.apply(&mut contents, usize::MAX)),
        }
        files.insert(name, Bytes::new(contents));
        files
    }
}

/// Small checkpoints that open, two of each native family: with shards and their index, with a tied head and a scaled rope.
pub fn valid() -> &'static [Files] {
    static VALID: OnceLock<Vec<Files>> = OnceLock::new();
    let of_family = |family: &'static Family| {
        let small = Fixture {
            family,
            vocab_size: 8,
            hidden_size: 32,
            intermediate_size: 32,
            num_attention_heads: 2,
            num_key_value_heads: 1,
            // One of each kind.
            num_hidden_layers: 1 + usize::from(family.config.other_mixers.is_some()),
            num_experts: 2,
            num_experts_per_tok: 1,
            ..Fixture::default()
        };
        let scaled = serde_json::json!({"type": "llama3", "factor": 8});
        let fixtures = [
            Fixture { shards: 2, attention_bias: true, ..small.clone() },
            Fixture { tie_word_embeddings: family.config.tied.other(), rope_scaling: scaled, ..small },
        ];
        fixtures.map(|fixture| {
            let mut files = fixture.files();
            files.insert("generation_config.json".to_owned(), Bytes::new(r#"{"eos_token_id": [1, 2]}"#));
            files
        })
    };
    VALID.get_or_init(|| NATIVE.into_iter().flat_map(of_family).collect())
}

/// Opens any files, and uses the checkpoint that opened as a user would.
///
/// # Errors
/// The violation.
pub fn any_files(files: Files, reached: &mut Reached) -> LawResult {
    match Checkpoint::from_files(files) {
        Ok(checkpoint) => {
            used(&checkpoint)?;
            reached.one("model");
            reached.one(checkpoint.config().family.name);
        }
        Err(error) => {
            let message = error.to_string();
            claim!(
                LAW,
                !message.is_empty() && !message.chars().any(|c| c.is_control() && c != '\n'),
                "an error can be shown on a terminal",
                "{message:?}"
            );
            reached.one(match error {
                CheckpointError::Config { .. } => "config",
                CheckpointError::Tensors(_) => "tensors",
                CheckpointError::Weights(_) | CheckpointError::Incomplete { .. } => "weights",
                CheckpointError::Mistaken { .. } => "mistaken",
                CheckpointError::NoConfig { .. } | CheckpointError::NoWeights { .. } => "incomplete",
                other => {
                    claim!(LAW, false, "files in memory have no errors of the file system", "{other}");
                    unreachable!("a claim that does not hold returns");
                }
            });
        }
    }
    Ok(())
}

/// What the checks promise of a model: nothing that its users do may panic.
fn used(checkpoint: &Checkpoint) -> LawResult {
    let (config, architecture) = (checkpoint.config(), &checkpoint.config().architecture);
    let head = checkpoint.head().view();
    let (rows, cols, groups) = (head.layout().rows(), head.layout().cols(), head.layout().groups_per_row());
    claim!(
        LAW,
        (rows, cols) == (architecture.vocab_size, architecture.hidden_size)
            && checkpoint.weights().layers.len() == architecture.layers.len()
            && config.eos_token_ids.iter().all(|&id| (id as usize) < architecture.vocab_size),
        "weights and configuration of an opened checkpoint agree",
        "a head of {rows} x {cols}, {} layers, {config:?}",
        checkpoint.weights().layers.len()
    );
    let _ = (head.code(rows - 1, cols - 1), head.scale(rows - 1, groups - 1));
    let _ = head.biases().map(|_| head.bias(rows - 1, groups - 1));
    let _ = checkpoint.model_digest();
    Ok(())
}
