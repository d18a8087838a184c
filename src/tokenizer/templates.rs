//! The chat templates of a model, and which of them is used.
//!
//! One without a name lies in `chat_template.jinja` or under `chat_template` in `tokenizer_config.json`. Named ones
//! lie in a list under that key, or in files of `additional_chat_templates/`, beside which the file
//! `chat_template.jinja` has the name `default`. Files come before the config, as in transformers.

use super::{TokenizerError, config::ChatTemplates, template::TemplateError};
use crate::checkpoint::Bytes;

/// All templates of a model.
#[derive(Debug, Default)]
pub(super) struct Templates {
    /// File, name and text; a single template without a name has none.
    all: Vec<(&'static str, Option<String>, String)>,
}

impl Templates {
    /// Gathers the templates of the config and of the files.
    pub(super) fn gather(
        within: Option<ChatTemplates>,
        file: Option<Bytes>,
        additional: Vec<(String, Bytes)>,
    ) -> Result<Self, TokenizerError> {
        let text = |file: &'static str, bytes: Bytes| match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(error) => Err(TokenizerError::File { file, message: error.to_string() }),
        };
        let mut all = Vec::new();
        if let Some(bytes) = file {
            let name = (!additional.is_empty()).then(|| "default".to_owned());
            all.push(("chat_template.jinja", name, text("chat_template.jinja", bytes)?));
        }
        for (name, bytes) in additional {
            all.push(("additional_chat_templates", Some(name), text("additional_chat_templates", bytes)?));
        }
        if all.is_empty() {
            let config = "tokenizer_config.json";
            match within {
                Some(ChatTemplates::One(text)) => all.push((config, None, text)),
                Some(ChatTemplates::Named(named)) => {
                    all.extend(named.into_iter().map(|(name, text)| (config, Some(name), text)));
                }
                None => {}
            }
        }
        Ok(Self { all })
    }

    /// File and text of the template of a name; without one that of the only template, of `tool_use` where there are
    /// `tools`, or of `default`.
    pub(super) fn choose(&self, name: Option<&str>, tools: bool) -> Result<(&'static str, &str), TemplateError> {
        let named = |wanted: &str| self.all.iter().find(|(_, name, _)| name.as_deref() == Some(wanted));
        let names = || self.all.iter().filter_map(|(_, name, _)| name.clone()).collect();
        let found = match (name, self.all.first()) {
            (_, None) => return Err(TemplateError::None),
            (Some(name), _) => {
                named(name).ok_or_else(|| TemplateError::Unknown { name: name.to_owned(), names: names() })?
            }
            (None, Some(first)) if first.1.is_none() => first,
            (None, Some(_)) => {
                let tool_use = if tools { named("tool_use") } else { None };
                tool_use.or_else(|| named("default")).ok_or_else(|| TemplateError::Unchosen(names()))?
            }
        };
        Ok((found.0, &found.2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Bytes {
        Bytes::new(text.as_bytes().to_vec())
    }

    #[test]
    fn the_only_template_the_default_and_a_named_one_are_found() {
        let one = Templates::gather(Some(ChatTemplates::One("one".to_owned())), None, Vec::new()).expect("one");
        assert_eq!(one.choose(None, true), Ok(("tokenizer_config.json", "one")));
        assert!(matches!(one.choose(Some("default"), false), Err(TemplateError::Unknown { .. })));
        let named = ["rag", "tool_use"].map(|name| (name.to_owned(), name.to_uppercase()));
        let without = Templates::gather(Some(ChatTemplates::Named(named.into())), None, Vec::new()).expect("two");
        assert_eq!(without.choose(None, false), Err(TemplateError::Unchosen(vec!["rag".into(), "tool_use".into()])));
        assert_eq!(without.choose(None, true), Ok(("tokenizer_config.json", "TOOL_USE")));
        assert_eq!(without.choose(Some("rag"), false), Ok(("tokenizer_config.json", "RAG")));
        assert_eq!(Templates::default().choose(None, false), Err(TemplateError::None));
    }

    #[test]
    fn files_come_before_the_config_and_the_one_beside_named_ones_is_the_default() {
        let within = || Some(ChatTemplates::One("config".to_owned()));
        let file = Templates::gather(within(), Some(bytes("file")), Vec::new()).expect("a file");
        assert_eq!(file.choose(None, false), Ok(("chat_template.jinja", "file")));
        let more = vec![("rag".to_owned(), bytes("more"))];
        let both = Templates::gather(within(), Some(bytes("file")), more.clone()).expect("files");
        assert_eq!(both.choose(None, false), Ok(("chat_template.jinja", "file")));
        assert_eq!(both.choose(Some("rag"), false), Ok(("additional_chat_templates", "more")));
        let named = Templates::gather(within(), None, more).expect("files");
        assert_eq!(named.choose(None, false), Err(TemplateError::Unchosen(vec!["rag".to_owned()])));
    }
}
