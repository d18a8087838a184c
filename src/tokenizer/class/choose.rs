//! Which class transformers' `AutoTokenizer` chooses for a checkpoint's files.

use serde::Deserialize;

use super::{Class, known, names};

/// What of `config.json` the choice depends on. Whatever is no text counts as absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::tokenizer) struct ModelConfig {
    /// `model_type`.
    pub(in crate::tokenizer) model_type: Option<String>,
    /// `tokenizer_class`.
    pub(in crate::tokenizer) tokenizer_class: Option<String>,
    /// `model_name`.
    pub(in crate::tokenizer) model_name: Option<String>,
    /// `transformers_version`.
    pub(in crate::tokenizer) transformers_version: Option<String>,
}

impl<'de> Deserialize<'de> for ModelConfig {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut object = serde_json::Map::deserialize(deserializer)?;
        let mut text = |key| match object.remove(key) {
            Some(serde_json::Value::String(text)) => Some(text),
            _ => None,
        };
        Ok(Self {
            model_type: text("model_type"),
            tokenizer_class: text("tokenizer_class"),
            model_name: text("model_name"),
            transformers_version: text("transformers_version"),
        })
    }
}

/// What makes a tokenizer of a checkpoint's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::tokenizer) enum Chosen {
    /// `tokenizer.json` as it is.
    File,
    /// A class that builds its own around the vocabulary.
    Class(&'static Class),
    /// A class that builds one in a way that is not known here.
    Unknown(String),
    /// Code beside the model, which mlx-lm runs only where it is told to trust it.
    Code,
}

/// Chooses. `declared` is the `tokenizer_class` of `tokenizer_config.json`, `code` says whether its `auto_map` names code
/// for `AutoTokenizer`, and `byte_level` whether `tokenizer.json` holds the text `"ByteLevel"`.
pub(in crate::tokenizer) fn choose(
    declared: Option<&str>,
    code: bool,
    model: &ModelConfig,
    byte_level: impl FnOnce() -> bool,
) -> Chosen {
    let model_type = model.model_type.as_deref().unwrap_or_default();
    let of_type = names::of_model_type(model_type);
    let name_another = [model_type, model.model_name.as_deref().unwrap_or_default()]
        .iter()
        .any(|name| names::NAME_ANOTHER.contains(name));
    let told = declared.or(model.tokenizer_class.as_deref()).map(short);
    if let (Some(told), false) = (told, code) {
        // LlamaTokenizer is of SentencePiece, and many a byte-level file names it by mistake.
        if told == "LlamaTokenizer" && !name_another && byte_level() {
            return Chosen::File;
        }
        if let Some(of_type) = of_type
            && of_type != told
        {
            let takes_file = names::AS_IT_IS.contains(&of_type);
            return if takes_file { Chosen::File } else { named(if name_another { of_type } else { told }) };
        }
    }
    let has_class = of_type.is_some() || declared.is_some_and(|name| exists(short(name)));
    // transformers does not run the code of a model type whose checkpoints name another class.
    if code && !names::NAME_ANOTHER.contains(&model_type) && !has_class {
        return Chosen::Code;
    }
    match (declared, model.tokenizer_class.as_deref(), of_type) {
        (Some(name), ..) => named(short(name)),
        // Here a class that transformers does not have is an error of its own.
        (None, Some(name), _) if !exists(short(name)) => Chosen::Unknown(name.to_owned()),
        (None, Some(name), _) | (None, None, Some(name)) => named(short(name)),
        (None, None, None) => Chosen::File,
    }
}

fn short(name: &str) -> &str {
    name.strip_suffix("Fast")
        .filter(|short| short.ends_with("Tokenizer") && *short != "PreTrainedTokenizer")
        .unwrap_or(name)
}

/// What the class of a name, without `Fast`, makes.
fn named(name: &str) -> Chosen {
    match known(name) {
        Some(class) => Chosen::Class(class),
        None if is_unknown(name) => Chosen::Unknown(name.to_owned()),
        None => Chosen::File,
    }
}

fn is_unknown(name: &str) -> bool {
    let stem = name.strip_suffix("Tokenizer");
    name == "MistralCommonBackend"
        || stem.is_some_and(|stem| names::NOT_KNOWN.split_whitespace().any(|one| one == stem))
}

/// Whether transformers has a class of this name.
fn exists(name: &str) -> bool {
    names::AS_IT_IS.contains(&name) || named(name) != Chosen::File
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// The fixture has what transformers chooses; `tools/goldens/tokenizer_classes.py` writes it.
    #[test]
    fn the_class_is_the_one_that_transformers_chooses() {
        #[derive(Deserialize)]
        struct Fixture {
            tokenizers: std::collections::BTreeMap<String, Value>,
            choices: Vec<Choice>,
        }
        /// Model type, class in `tokenizer_config.json`, class in `config.json`, whether there is an `auto_map`, and the
        /// tokenizer; what is chosen, unless transformers fails.
        type Choice = (String, Option<String>, Option<String>, bool, String, Option<String>);
        let fixture = include_str!("../../../tests/fixtures/tokenizer_classes.json");
        let Fixture { tokenizers, choices } = serde_json::from_str(fixture).expect("a fixture");
        let (mut different, mut counts) = (Vec::new(), [0; 4]);
        for choice @ (model_type, declared, tokenizer_class, code, file, expected) in &choices {
            let (model_type, tokenizer_class) = (Some(model_type.clone()), tokenizer_class.clone());
            let model = ModelConfig { model_type, tokenizer_class, ..ModelConfig::default() };
            let byte_level = || tokenizers[file].to_string().contains("\"ByteLevel\"");
            let chosen = choose(declared.as_deref(), *code, &model, byte_level);
            let (kind, same) = match (&chosen, expected.as_deref()) {
                (Chosen::File, Some(name)) => (0, name == "TokenizersBackend"),
                (Chosen::Class(class), Some(name)) => (1, class.name == name),
                (Chosen::Unknown(_), Some(name)) => (2, known(name).is_none() && name != "TokenizersBackend"),
                (Chosen::Unknown(_), None) => (2, true),
                (Chosen::Code, expected) => (3, expected.is_none()),
                (_, None) => (0, false),
            };
            counts[kind] += 1;
            if !same {
                different.push(format!("{choice:?}: {chosen:?}"));
            }
        }
        assert!(different.is_empty(), "{}", different.join("\n"));
        assert!(counts.iter().all(|&count| count > 3) && choices.len() > 1000, "{counts:?}");
    }

    #[test]
    fn what_config_json_says_otherwise_than_as_a_text_counts_as_absent() {
        let config = r#"{"model_type": "llama", "tokenizer_class": null, "model_name": ["phi3"], "layers": [{}]}"#;
        let config: ModelConfig = serde_json::from_str(config).expect("JSON");
        let expected = ModelConfig { model_type: Some("llama".to_owned()), ..ModelConfig::default() };
        assert_eq!(config, expected);
        // A name of a model whose checkpoints name another class than they have.
        let named =
            ModelConfig { model_type: Some("granite".to_owned()), model_name: Some("phi3".to_owned()), ..expected };
        assert_eq!(choose(Some("LlamaTokenizer"), false, &named, || true), Chosen::File);
        let qwen = ModelConfig { model_type: Some("qwen3".to_owned()), ..named };
        let Chosen::Class(class) = choose(Some("LlamaTokenizerFast"), false, &qwen, || true) else { panic!("a class") };
        assert_eq!(class.name, "Qwen2Tokenizer");
    }
}
