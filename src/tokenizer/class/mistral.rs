//! A pre-tokenizer that transformers mends on request: many files of Mistral's models were published with another pattern than
//! the models were trained with, and `fix_mistral_regex` in `tokenizer_config.json` asks for the right one.

use serde_json::{Value, json};

use super::{ModelConfig, Options, Setting};

/// Model types of which files are mended.
const MODEL_TYPES: [&str; 5] = ["mistral", "mistral3", "voxtral", "ministral", "pixtral"];
/// The first version of transformers that wrote right files.
const RIGHT_SINCE: u32 = 5;
/// Vocabularies of at most so many tokens are not looked at.
const LARGE: usize = 100_000;
/// The right pattern.
const PATTERN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Whether the pre-tokenizer of a large vocabulary is mended.
pub(in crate::tokenizer) fn is_mended(options: Options, model: &ModelConfig) -> bool {
    let major = |version: &str| version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    let old =
        model.transformers_version.as_deref().is_none_or(|version| major(version).is_some_and(|n| n < RIGHT_SINCE));
    let of_mistral = model.model_type.as_deref().is_none_or(|model_type| MODEL_TYPES.contains(&model_type));
    options.fix_mistral_regex == Setting::Is(true) && old && of_mistral
}

/// The mended pre-tokenizer, as `tokenizer.json` has it; none where there is nothing to mend.
pub(in crate::tokenizer) fn mended(vocabulary: usize, pre_tokenizer: Option<Value>) -> Option<Value> {
    let mut found = pre_tokenizer.filter(|_| vocabulary > LARGE)?;
    let split = json!({"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": false});
    if let Some(parts) = found.get_mut("pretokenizers").and_then(Value::as_array_mut) {
        *parts.first_mut()? = split;
        return Some(found);
    }
    if found["type"] == "Metaspace" {
        found = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    }
    Some(json!({"type": "Sequence", "pretokenizers": [split, found]}))
}
