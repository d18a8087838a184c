//! `tokenizer_config.json`: the special tokens' names and, in some models, the chat template. Nothing else is kept of it,
//! since some are megabytes of what nobody here asks for.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize,
    de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

/// More special tokens than any model names.
const MOST_TOKENS: usize = 1000;

/// What is read of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TokenizerConfig {
    /// Keys that end in `_token`, with the token: a text, or the `content` of an object.
    pub(super) tokens: BTreeMap<String, String>,
    /// `chat_template`: a text, or of a list of named ones the one named `default`.
    pub(super) template: Option<String>,
}

impl<'de> Deserialize<'de> for TokenizerConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ConfigVisitor)
    }
}

struct ConfigVisitor;

impl<'de> Visitor<'de> for ConfigVisitor {
    type Value = TokenizerConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TokenizerConfig, A::Error> {
        let mut config = TokenizerConfig::default();
        while let Some(key) = map.next_key::<String>()? {
            if key == "chat_template" {
                let Loose { text, default, .. } = map.next_value()?;
                config.template = text.or(default);
            } else if key.ends_with("_token") {
                let Loose { text, content, .. } = map.next_value()?;
                if let Some(token) = text.or(content) {
                    config.tokens.insert(key, token);
                }
                if config.tokens.len() > MOST_TOKENS {
                    let many = format_args!("more than {MOST_TOKENS} keys end in `_token`");
                    return Err(A::Error::custom(many));
                }
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(config)
    }
}

/// A value of which only some texts matter, whatever else it is.
#[derive(Default)]
struct Loose {
    /// It is a text.
    text: Option<String>,
    /// Texts of an object.
    content: Option<String>,
    name: Option<String>,
    template: Option<String>,
    /// Of a list, the `template` of the first object whose `name` is `default`.
    default: Option<String>,
}

impl<'de> Deserialize<'de> for Loose {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LooseVisitor)
    }
}

struct LooseVisitor;

impl<'de> Visitor<'de> for LooseVisitor {
    type Value = Loose;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> Result<Loose, E> {
        Ok(Loose::default())
    }
    fn visit_bool<E>(self, _: bool) -> Result<Loose, E> {
        Ok(Loose::default())
    }
    fn visit_u64<E>(self, _: u64) -> Result<Loose, E> {
        Ok(Loose::default())
    }
    fn visit_i64<E>(self, _: i64) -> Result<Loose, E> {
        Ok(Loose::default())
    }
    fn visit_f64<E>(self, _: f64) -> Result<Loose, E> {
        Ok(Loose::default())
    }
    fn visit_str<E>(self, text: &str) -> Result<Loose, E> {
        Ok(Loose { text: Some(text.to_owned()), ..Loose::default() })
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Loose, A::Error> {
        let mut found: Option<Loose> = None;
        while let Some(value) = seq.next_element::<Loose>()? {
            if found.is_none() && value.name.as_deref() == Some("default") {
                found = Some(value);
            }
        }
        Ok(Loose { default: found.and_then(|value| value.template), ..Loose::default() })
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Loose, A::Error> {
        let mut loose = Loose::default();
        while let Some(key) = map.next_key::<String>()? {
            let slot = match key.as_str() {
                "content" => &mut loose.content,
                "name" => &mut loose.name,
                "template" => &mut loose.template,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            *slot = map.next_value::<Loose>()?.text;
        }
        Ok(loose)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> TokenizerConfig {
        serde_json::from_str(json).expect(json)
    }

    #[test]
    fn tokens_are_texts_or_contents_and_whatever_else_is_there_is_passed_over() {
        let config = parse(
            r#"{"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": [1, {"a": 2}]}, "pad_token": null,
                "unk_token": {"content": 3}, "sep_token": [1], "cls_token": -1, "mask_token": 1.5, "a_token": true,
                "added_tokens_decoder": {"0": {"content": "x"}}, "chat_template": 7}"#,
        );
        let tokens = [("bos_token", "<s>"), ("eos_token", "</s>")].map(|(key, token)| (key.into(), token.into()));
        assert_eq!(config, TokenizerConfig { tokens: tokens.into(), template: None });
        assert!(serde_json::from_str::<TokenizerConfig>("[]").is_err());
        let many: String = (0..=MOST_TOKENS).map(|i| format!(r#""{i}_token":"","#)).collect();
        let error = serde_json::from_str::<TokenizerConfig>(&format!("{{{many}")).expect_err("too many").to_string();
        assert!(error.contains("1000 keys"), "{error}");
    }

    #[test]
    fn of_named_templates_the_first_default_is_taken() {
        let named = r#"{"chat_template": [{"name": "tool_use", "template": "no"}, 1, {"template": "no"},
            {"name": "default", "template": "yes"}, {"name": "default", "template": "no"}]}"#;
        assert_eq!(parse(named).template.as_deref(), Some("yes"));
        assert_eq!(parse(r#"{"chat_template": "x"}"#).template.as_deref(), Some("x"));
        assert_eq!(parse(r#"{"chat_template": [{"name": "rag", "template": "x"}]}"#).template, None);
    }
}
