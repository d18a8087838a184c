//! A checkpoint of which only the head is read, because something else computes the body.
//!
//! Whoever computes the body says where the head lies in it and how it is stored ([`HeadPlace`]). Names in the files may have
//! another prefix than names in the model, since a model's loader may rename tensors; so the head is looked for by its exact
//! name first, then by the last part of it.

use std::collections::BTreeMap;

use super::{
    assemble::{self, WeightsError},
    config::{EosIds, eos},
    config_error::ConfigError,
    json::{parse_object, shortened},
    keys::Keys,
    tensors::StoredTensor,
    weights::Quantized,
};
use crate::quant::{Format, FormatError};

/// Where the head lies, and how it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeadPlace {
    /// Path of its module, such as `language_model.lm_head`.
    pub module: String,
    /// Whether it is also the embedding.
    pub tied: bool,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// Name of its format, such as `affine-4-g64`.
    pub format: String,
    /// Whether it adds a number to the product of each row.
    pub bias: bool,
    /// Layers of the body.
    pub layers: usize,
}

/// Why the files do not hold the head that was described.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// Its format is none that is read here.
    #[error("the head `{module}` is stored as {format:?}: {error}")]
    Format {
        /// The module.
        module: String,
        /// The name of the format.
        format: String,
        /// What is wrong with it.
        error: FormatError,
    },
    /// No tensor, or more than one, can be its weight.
    #[error(
        "the head is `{module}` in the model, but the files hold no `{module}.weight`{}",
        if .others.is_empty() { String::new() } else { format!(", and more than one tensor of that kind: {}", .others.join(", ")) }
    )]
    Missing {
        /// The module.
        module: String,
        /// What could be meant instead.
        others: Vec<String>,
    },
    /// Its tensors are not of the shapes and types that it was said to have.
    #[error(transparent)]
    Tensors(#[from] WeightsError),
}

/// Takes the head out of `tensors`, with the name of its module in the files and its bias, where it has one.
pub(super) fn take(
    tensors: BTreeMap<String, StoredTensor>,
    wanted: &HeadPlace,
) -> Result<(String, Quantized, Option<Vec<f32>>), HeadError> {
    let format: Format = wanted.format.parse().map_err(|error| HeadError::Format {
        module: wanted.module.clone(),
        format: wanted.format.clone(),
        error,
    })?;
    let module = find(&tensors, &wanted.module)?;
    let (head, bias) = assemble::quantized(tensors, &module, [wanted.rows, wanted.cols], format, wanted.bias)?;
    Ok((module, head, bias))
}

/// The name in the files of the module that is called `module` in the model.
fn find(tensors: &BTreeMap<String, StoredTensor>, module: &str) -> Result<String, HeadError> {
    let quantized =
        |module: &str| ["weight", "scales"].iter().all(|part| tensors.contains_key(&format!("{module}.{part}")));
    if quantized(module) {
        return Ok(module.to_owned());
    }
    let last = |name: &str| name.rsplit('.').next().map(str::to_owned);
    let mut alike: Vec<&str> = tensors.keys().filter_map(|name| name.strip_suffix(".weight")).collect();
    alike.retain(|name| last(name) == last(module) && quantized(name));
    match alike[..] {
        [one] => Ok(one.to_owned()),
        _ => {
            let others = alike.into_iter().map(shortened).collect();
            Err(HeadError::Missing { module: shortened(module), others })
        }
    }
}

/// `model_type` of a family that need not be known, and the tokens that end an answer, those beyond the vocabulary apart.
pub(super) fn read_config(config_json: &[u8], vocab_size: usize) -> Result<(String, EosIds), ConfigError> {
    let map = parse_object(config_json)?;
    let keys = Keys::new(&map, "");
    let model_type = keys.text("model_type")?.ok_or_else(|| keys.missing("model_type"))?;
    let ids = keys.get("eos_token_id").map(|value| eos(&keys, value, vocab_size)).transpose()?.unwrap_or_default();
    Ok((shortened(model_type), ids))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        checkpoint::{Checkpoint, CheckpointError},
        testing::fixture::{Fixture, files_of},
    };

    fn place(fixture: &Fixture) -> HeadPlace {
        HeadPlace {
            module: "language_model.lm_head".to_owned(),
            tied: false,
            rows: fixture.vocab_size,
            cols: fixture.hidden_size,
            format: format!("affine-{}-g{}", fixture.bits, fixture.group_size),
            bias: false,
            layers: 3,
        }
    }

    /// A checkpoint of a family that nobody knows, whose head has another prefix in the files than in the model.
    fn opened(place: &HeadPlace, extra: Option<&str>) -> Result<Checkpoint, CheckpointError> {
        let fixture = Fixture { tie_word_embeddings: Some(false), ..Fixture::default() };
        let config = json!({"model_type": "new", "eos_token_id": [1, 1_u64 << 40], "text_config": {"layers": "many"}});
        let mut tensors = fixture.tensors();
        tensors.retain(|name, _| name.starts_with("lm_head") || name.contains("layers.0"));
        for (prefix, part) in extra.into_iter().flat_map(|prefix| [(prefix, "weight"), (prefix, "scales")]) {
            let tensor = fixture.tensors().remove(&format!("lm_head.{part}")).expect("it has a head");
            tensors.insert(format!("{prefix}.lm_head.{part}"), tensor);
        }
        Checkpoint::head_from_files(files_of(&config, &tensors, 1), place)
    }

    #[test]
    fn of_an_unknown_family_the_head_is_read_and_nothing_else_is_needed() {
        let fixture = Fixture { tie_word_embeddings: Some(false), ..Fixture::default() };
        let whole = Checkpoint::from_files(fixture.files()).expect("a checkpoint");
        let alone = opened(&place(&fixture), None).expect("a head");
        assert_eq!(alone.head().view(), whole.head().view());
        assert_eq!((alone.facts().model_type.as_str(), alone.facts().head.as_str()), ("new", "lm_head"));
        assert_eq!((alone.facts().layers, &alone.facts().eos_token_ids[..]), (3, &[1][..]));
        assert!(whole.has_body() && !alone.has_body());
    }

    #[test]
    fn a_head_that_is_not_as_described_is_an_error_that_names_it() {
        let fixture = Fixture::default();
        let right = place(&fixture);
        let error = |place: HeadPlace, extra| opened(&place, extra).expect_err("not as described").to_string();
        assert_eq!(
            error(HeadPlace { module: "output".to_owned(), ..right.clone() }, None),
            "the head is `output` in the model, but the files hold no `output.weight`"
        );
        let two = error(right.clone(), Some("other"));
        assert!(two.ends_with("more than one tensor of that kind: lm_head, other.lm_head"), "{two}");
        let shape = error(HeadPlace { rows: right.rows + 1, ..right.clone() }, None);
        assert!(shape.starts_with("tensor `lm_head.scales` has shape"), "{shape}");
        let format = error(HeadPlace { format: "ternary".to_owned(), ..right }, None);
        assert!(format.starts_with("the head `language_model.lm_head` is stored as \"ternary\""), "{format}");
    }
}
