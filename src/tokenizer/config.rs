//! `tokenizer_config.json` and `special_tokens_map.json`: which tokens a model declares, by which class transformers loads
//! them, and, in some models, its chat templates. Nothing else is kept of them, since some are megabytes of what nobody here asks for.

use std::fmt;

use serde::{
    Deserialize,
    de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::{
    class::{Options, Setting},
    special_tokens::AddedToken,
};

/// More tokens and templates than any model names.
const MOST: usize = 100_000;

/// What is read of the files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TokenizerConfig {
    /// Keys that end in `_token`, with the token: a text, or an object with `content`, in the file's order.
    pub(super) tokens: Vec<(String, AddedToken)>,
    /// Keys that end in `_token`, and are null.
    pub(super) none: Vec<String>,
    /// `tokenizer_class`.
    pub(super) class: Option<String>,
    /// Whether `auto_map` names code of a tokenizer.
    pub(super) code: bool,
    /// What a class is told.
    pub(super) options: Options,
    /// `additional_special_tokens`.
    pub(super) additional: Vec<AddedToken>,
    /// `extra_special_tokens`, where it is a list.
    pub(super) extra: Vec<AddedToken>,
    /// `extra_special_tokens` and `model_specific_special_tokens`, where they are objects: names and tokens.
    pub(super) named: Vec<(String, AddedToken)>,
    /// `added_tokens_decoder`: ids and tokens.
    pub(super) decoder: Option<Vec<(u32, AddedToken)>>,
    /// `split_special_tokens`.
    pub(super) split_special_tokens: bool,
    /// `chat_template`: a text, or named ones.
    pub(super) template: Option<ChatTemplates>,
}

/// Chat templates as a file gives them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ChatTemplates {
    /// One without a name.
    One(String),
    /// Names and templates.
    Named(Vec<(String, String)>),
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
            match key.as_str() {
                "chat_template" => config.template = map.next_value::<Loose>()?.templates(),
                "additional_special_tokens" => config.additional = map.next_value::<Loose>()?.tokens(),
                "extra_special_tokens" | "model_specific_special_tokens" => match map.next_value()? {
                    Loose::Object(object) => config
                        .named
                        .extend(object.others.into_iter().filter_map(|(name, value)| Some((name, value.token()?)))),
                    list => config.extra = list.tokens(),
                },
                "added_tokens_decoder" => {
                    let Loose::Object(object) = map.next_value()? else { continue };
                    let mut decoder = Vec::new();
                    for (id, value) in object.others {
                        let id = id.parse().map_err(|_| {
                            A::Error::custom(format_args!("added_tokens_decoder: {id:?} is no id of a token"))
                        })?;
                        decoder.extend(value.token().map(|token| (id, token)));
                    }
                    decoder.sort_by_key(|&(id, _)| id);
                    config.decoder = Some(decoder);
                }
                "split_special_tokens" => config.split_special_tokens = matches!(map.next_value()?, Loose::True),
                "tokenizer_class" => config.class = map.next_value::<Loose>()?.text(),
                "auto_map" => {
                    let named = map.next_value::<serde_json::Value>()?;
                    config.code = named.is_array() || named.get("AutoTokenizer").is_some_and(|code| !code.is_null());
                }
                "add_prefix_space" => config.options.add_prefix_space = map.next_value::<Loose>()?.setting(),
                "fix_mistral_regex" => config.options.fix_mistral_regex = map.next_value::<Loose>()?.setting(),
                "legacy" => config.options.legacy = map.next_value::<Loose>()?.setting(),
                _ if key.ends_with("_token") => {
                    match map.next_value::<Loose>()? {
                        Loose::Null => config.none.push(key),
                        value => {
                            if let Some(token) = value.token() {
                                config.tokens.retain(|(other, _)| *other != key);
                                config.tokens.push((key, token));
                            }
                        }
                    }
                    if config.tokens.len() + config.none.len() > 1000 {
                        return Err(A::Error::custom("more than 1000 keys end in `_token`"));
                    }
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(config)
    }
}

/// A value of which only some parts matter, whatever else it is.
enum Loose {
    Text(String),
    True,
    False,
    Null,
    List(Vec<Self>),
    Object(Box<Object>),
    Other,
}

/// What matters of an object.
#[derive(Default)]
struct Object {
    content: Option<String>,
    name: Option<String>,
    template: Option<String>,
    lstrip: bool,
    rstrip: bool,
    single_word: bool,
    normalized: Option<bool>,
    special: bool,
    others: Vec<(String, Loose)>,
}

impl Loose {
    /// The token that a text or an object with `content` is.
    fn token(self) -> Option<AddedToken> {
        match self {
            Self::Text(content) => Some(AddedToken::plain(content)),
            Self::Object(object) => Some(AddedToken {
                content: object.content?,
                lstrip: object.lstrip,
                rstrip: object.rstrip,
                single_word: object.single_word,
                normalized: object.normalized.unwrap_or(!object.special),
                special: object.special,
                text: false,
            }),
            _ => None,
        }
    }

    /// A text that is not empty.
    fn text(self) -> Option<String> {
        match self {
            Self::Text(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    fn setting(&self) -> Setting {
        match self {
            Self::True => Setting::Is(true),
            Self::False => Setting::Is(false),
            Self::Null => Setting::Null,
            _ => Setting::Other,
        }
    }

    fn tokens(self) -> Vec<AddedToken> {
        match self {
            Self::List(list) => list.into_iter().filter_map(Self::token).collect(),
            _ => Vec::new(),
        }
    }

    fn templates(self) -> Option<ChatTemplates> {
        match self {
            Self::Text(text) => Some(ChatTemplates::One(text)),
            Self::List(list) => {
                let mut named: Vec<(String, String)> = Vec::new();
                for value in list {
                    let Self::Object(object) = value else { continue };
                    let (Some(name), Some(template)) = (object.name, object.template) else { continue };
                    // Of two with one name the later one counts, as in a dict.
                    named.retain(|(other, _)| *other != name);
                    named.push((name, template));
                }
                Some(ChatTemplates::Named(named))
            }
            _ => None,
        }
    }
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
        Ok(Loose::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Loose, E> {
        Ok(if value { Loose::True } else { Loose::False })
    }
    fn visit_u64<E>(self, _: u64) -> Result<Loose, E> {
        Ok(Loose::Other)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Loose, E> {
        Ok(Loose::Other)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Loose, E> {
        Ok(Loose::Other)
    }
    fn visit_str<E>(self, text: &str) -> Result<Loose, E> {
        Ok(Loose::Text(text.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Loose, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = seq.next_element::<Loose>()? {
            if matches!(value, Loose::Text(_) | Loose::Object(_)) {
                list.push(value);
            }
            too_many::<A::Error>(list.len())?;
        }
        Ok(Loose::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Loose, A::Error> {
        let mut object = Object::default();
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value::<Loose>()?;
            let holds = matches!(value, Loose::True);
            match (key.as_str(), value) {
                ("content", Loose::Text(text)) => object.content = Some(text),
                ("name", Loose::Text(text)) => object.name = Some(text),
                ("template", Loose::Text(text)) => object.template = Some(text),
                ("lstrip", _) => object.lstrip = holds,
                ("rstrip", _) => object.rstrip = holds,
                ("single_word", _) => object.single_word = holds,
                ("normalized", _) => object.normalized = Some(holds),
                ("special", _) => object.special = holds,
                (_, value @ (Loose::Text(_) | Loose::Object(_))) => object.others.push((key, value)),
                _ => {}
            }
            too_many::<A::Error>(object.others.len())?;
        }
        Ok(Loose::Object(Box::new(object)))
    }
}

fn too_many<E: serde::de::Error>(count: usize) -> Result<(), E> {
    if count > MOST { Err(E::custom(format_args!("it names more than {MOST} tokens"))) } else { Ok(()) }
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
                "added_tokens_decoder": {"7": {"content": "y", "special": true}, "0": {"content": "x", "rstrip": true}},
                "extra_special_tokens": {"image_token": "<image>", "n": 3}, "additional_special_tokens": ["<a>", 3],
                "chat_template": 7}"#,
        );
        let tokens: Vec<(&str, &str)> =
            config.tokens.iter().map(|(key, token)| (key.as_str(), token.content.as_str())).collect();
        assert_eq!(tokens, [("bos_token", "<s>"), ("eos_token", "</s>")]);
        assert_eq!(config.template, None);
        let decoder = config.decoder.expect("a decoder");
        assert!(decoder[0].0 == 0 && decoder[0].1.rstrip && decoder[0].1.normalized && !decoder[0].1.special);
        assert!(decoder[1].0 == 7 && decoder[1].1.special && !decoder[1].1.normalized);
        assert_eq!(config.named[0].0, "image_token");
        assert_eq!((config.named.len(), config.additional.len()), (1, 1));
        assert!(serde_json::from_str::<TokenizerConfig>("[]").is_err());
        assert!(serde_json::from_str::<TokenizerConfig>(r#"{"added_tokens_decoder": {"x": "y"}}"#).is_err());
        let many: String = (0..=1000).map(|i| format!(r#""{i}_token":"","#)).collect();
        let error = serde_json::from_str::<TokenizerConfig>(&format!("{{{many}")).expect_err("too many").to_string();
        assert!(error.contains("1000 keys"), "{error}");
    }

    #[test]
    fn templates_are_a_text_or_named_ones_of_which_the_last_of_a_name_counts() {
        let named = r#"{"chat_template": [{"name": "tool_use", "template": "t"}, 1, {"template": "no"},
            {"name": "default", "template": "no"}, {"name": "default", "template": "yes"}]}"#;
        let expected = [("tool_use", "t"), ("default", "yes")].map(|(name, text)| (name.to_owned(), text.to_owned()));
        assert_eq!(parse(named).template, Some(ChatTemplates::Named(expected.into())));
        assert_eq!(parse(r#"{"chat_template": "x"}"#).template, Some(ChatTemplates::One("x".to_owned())));
    }

    #[test]
    fn code_is_asked_for_by_a_list_or_by_an_entry_for_a_tokenizer() {
        let code = |map: &str| parse(&format!(r#"{{"auto_map": {map}}}"#)).code;
        assert!(code(r#"["a.B", null]"#) && code(r#"{"AutoTokenizer": ["a.B", null]}"#));
        assert!(!code(r#"{"AutoTokenizer": null}"#) && !code(r#"{"AutoModel": "a.B"}"#) && !code("null"));
    }

    #[test]
    fn a_thousand_named_tokens_are_read_and_no_more() {
        let with = |texts: usize, nulls: usize| {
            let texts = (0..texts).map(|i| format!(r#""a{i}_token": "x""#));
            let all: Vec<String> = texts.chain((0..nulls).map(|i| format!(r#""b{i}_token": null"#))).collect();
            serde_json::from_str::<TokenizerConfig>(&format!("{{{}}}", all.join(",")))
        };
        assert!(with(1000, 0).is_ok() && with(600, 400).is_ok());
        assert!(with(1001, 0).is_err() && with(600, 401).is_err() && with(1200, 0).is_err());
    }

    #[test]
    fn as_many_tokens_as_any_model_has_are_read_and_no_more() {
        let with = |count: usize| {
            let list = vec![r#""a""#; count].join(",");
            serde_json::from_str::<TokenizerConfig>(&format!(r#"{{"additional_special_tokens": [{list}]}}"#))
        };
        assert_eq!(with(MOST).map(|config| config.additional.len()).ok(), Some(MOST));
        let error = with(MOST + 1).expect_err("they are too many").to_string();
        assert!(error.contains("more than 100000 tokens"), "{error}");
    }

    #[test]
    fn only_a_key_of_a_token_names_one_and_a_class_has_a_name() {
        let config = parse(r#"{"padding_side": "left", "eos_token": "e", "tokenizer_class": ""}"#);
        assert_eq!((config.tokens.len(), config.class), (1, None));
        assert_eq!(parse(r#"{"tokenizer_class": "X"}"#).class.as_deref(), Some("X"));
    }
}
