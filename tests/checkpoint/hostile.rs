//! Any bytes as a checkpoint: an error or a model, never a panic.

use std::cell::Cell;

use lm_headroom::{
    checkpoint::{Bytes, Checkpoint, CheckpointError},
    testing::fixture::Fixture,
};
use proptest::{prelude::*, sample::Index, test_runner::TestRunner};

use super::Files;

/// A change to one file.
#[derive(Clone, Debug)]
enum Damage {
    Truncate(Index),
    Flip {
        at: Index,
        bit: u8,
    },
    /// Another digit in a number: well-formed still, but another shape, offset or setting.
    Digit {
        at: Index,
        digit: u8,
    },
    Replace {
        at: Index,
        with: Vec<u8>,
    },
    Insert {
        at: Index,
        bytes: Vec<u8>,
    },
    Remove {
        at: Index,
        len: usize,
    },
    Repeat {
        at: Index,
        len: usize,
    },
}

fn damage() -> impl Strategy<Value = Damage> {
    // Pieces that mean something to a parser, beside random ones.
    let piece = prop_oneof![
        prop::collection::vec(any::<u8>(), 1..9),
        prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ",",
            "\"",
            "0",
            "-1",
            "1e999",
            "null",
            "true",
            "false",
            "18446744073709551615",
            "..",
            "/",
            "\\u0000"
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
    ];
    prop_oneof![
        any::<Index>().prop_map(Damage::Truncate),
        (any::<Index>(), 0u8..8).prop_map(|(at, bit)| Damage::Flip { at, bit }),
        (any::<Index>(), b'0'..=b'9').prop_map(|(at, digit)| Damage::Digit { at, digit }),
        (any::<Index>(), piece.clone()).prop_map(|(at, with)| Damage::Replace { at, with }),
        (any::<Index>(), piece).prop_map(|(at, bytes)| Damage::Insert { at, bytes }),
        (any::<Index>(), 1usize..40).prop_map(|(at, len)| Damage::Remove { at, len }),
        (any::<Index>(), 1usize..80).prop_map(|(at, len)| Damage::Repeat { at, len }),
    ]
}

fn apply(damage: &Damage, file: &mut Vec<u8>, within: usize) {
    let reach = |at: &Index| at.index(within.min(file.len()).max(1)).min(file.len());
    match damage {
        Damage::Truncate(at) => file.truncate(at.index(file.len() + 1)),
        Damage::Flip { at, bit } => {
            let at = reach(at);
            if let Some(byte) = file.get_mut(at) {
                *byte ^= 1 << bit;
            }
        }
        Damage::Digit { at, digit } => {
            let at = reach(at);
            if let Some(byte) = file[at..].iter_mut().find(|byte| byte.is_ascii_digit()) {
                *byte = *digit;
            }
        }
        Damage::Replace { at, with } => {
            let at = reach(at);
            let end = (at + with.len()).min(file.len());
            file.splice(at..end, with.iter().copied());
        }
        Damage::Insert { at, bytes } => {
            let at = reach(at);
            file.splice(at..at, bytes.iter().copied());
        }
        Damage::Remove { at, len } => {
            let at = reach(at);
            file.drain(at..(at + len).min(file.len()));
        }
        Damage::Repeat { at, len } => {
            let at = reach(at);
            let piece = file[at..(at + len).min(file.len())].to_vec();
            file.splice(at..at, piece);
        }
    }
}

/// What the checks promise of a model: nothing that its users do may panic.
fn use_it(checkpoint: &Checkpoint) {
    let config = checkpoint.config();
    let head = checkpoint.weights().head().view();
    assert_eq!((head.layout().rows(), head.layout().cols()), (config.vocab_size, config.hidden_size));
    let (rows, cols, groups) = (head.layout().rows(), head.layout().cols(), head.layout().groups_per_row());
    let _ = (head.code(rows - 1, cols - 1), head.scale(rows - 1, groups - 1), head.bias(rows - 1, groups - 1));
    assert_eq!(checkpoint.weights().layers.len(), config.num_hidden_layers);
    assert!(config.eos_token_ids.iter().all(|&id| (id as usize) < config.vocab_size));
    let _ = checkpoint.model_digest();
}

#[test]
fn a_damaged_checkpoint_gives_an_error_or_a_model_and_never_a_panic() {
    let fixtures = [
        Fixture { shards: 2, attention_bias: true, ..small() },
        Fixture {
            tie_word_embeddings: None,
            rope_scaling: serde_json::json!({"type": "llama3", "factor": 8}),
            ..small()
        },
    ];
    let valid: Vec<Files> = fixtures
        .map(|fixture| {
            let mut files = fixture.files();
            files.insert("generation_config.json".to_owned(), Bytes::new(r#"{"eos_token_id": [1, 2]}"#));
            files
        })
        .into();
    let (models, configs, tensors, weights) = (Cell::new(0), Cell::new(0), Cell::new(0), Cell::new(0));
    let strategy = (any::<Index>(), any::<Index>(), prop::collection::vec(damage(), 1..3), any::<bool>());
    let cases = 4000;
    let mut runner = TestRunner::new(ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() });
    let run = runner.run(&strategy, |(which, file, damages, anywhere)| {
        let mut files = which.get(&valid).clone();
        let names: Vec<String> = files.keys().cloned().collect();
        let name = file.get(&names);
        let mut contents = files[name].to_vec();
        // The data of a safetensors file are most of it, and any data are valid.
        let header = contents.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
        let within = if name.ends_with(".safetensors") && !anywhere { 8 + header as usize } else { contents.len() };
        for damage in &damages {
            apply(damage, &mut contents, within);
        }
        files.insert(name.clone(), Bytes::new(contents));
        let count = |outcome: &Cell<u32>| outcome.set(outcome.get() + 1);
        match Checkpoint::from_files(files) {
            Ok(checkpoint) => {
                use_it(&checkpoint);
                count(&models);
            }
            Err(CheckpointError::Config { .. }) => count(&configs),
            Err(CheckpointError::Tensors(_)) => count(&tensors),
            Err(CheckpointError::Weights(_)) => count(&weights),
            Err(other) => return Err(TestCaseError::fail(other.to_string())),
        }
        Ok(())
    });
    run.unwrap();
    for (outcome, count) in [("model", models), ("config", configs), ("tensors", tensors), ("weights", weights)] {
        assert!(count.get() > cases / 200, "only {} of {cases} cases ended in {outcome}", count.get());
    }
}

fn small() -> Fixture {
    Fixture {
        vocab_size: 8,
        hidden_size: 32,
        intermediate_size: 32,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        num_hidden_layers: 1,
        ..Fixture::default()
    }
}

#[test]
fn any_bytes_as_any_file_give_an_error() {
    let strategy = (any::<Index>(), prop::collection::vec(any::<u8>(), 0..200));
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() });
    let valid = Fixture { shards: 2, ..small() }.files();
    let names: Vec<String> = valid.keys().cloned().collect();
    let run = runner.run(&strategy, |(name, bytes)| {
        let mut files = valid.clone();
        files.insert(name.get(&names).clone(), Bytes::new(bytes));
        prop_assert!(Checkpoint::from_files(files).is_err());
        Ok(())
    });
    run.unwrap();
}
