//! The tokens that a model declares beside its vocabulary, gathered as transformers gathers them.
//!
//! `tokenizer.json` holds added tokens of its own. `tokenizer_config.json` may name more: some by role (`bos_token`,
//! `eos_token` and so on, and others of a model's own), some in lists, some with their ids in
//! `added_tokens_decoder`. Without that last key transformers also reads `special_tokens_map.json`, whose entries
//! come before the config's, and `added_tokens.json`. All of them become added tokens: a text of one is never cut.
//! One that the vocabulary does not have gets an id beyond it, so that a prompt that holds it is refused where the
//! model has no such row, and never becomes other ids.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::config::TokenizerConfig;

/// The roles that transformers gives to tokens, in its order.
const ROLES: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// A token that is found in a text before anything else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AddedToken {
    pub(super) content: String,
    /// It takes the white space before it.
    pub(super) lstrip: bool,
    /// It takes the white space after it.
    pub(super) rstrip: bool,
    /// It is found only where no letter touches it.
    pub(super) single_word: bool,
    /// It is looked for in the normalized text.
    pub(super) normalized: bool,
    pub(super) special: bool,
    /// It was written as a text alone, without properties.
    pub(super) text: bool,
}

impl AddedToken {
    /// A special token without further properties.
    pub(super) fn plain(content: String) -> Self {
        Self { content, lstrip: false, rstrip: false, single_word: false, normalized: false, special: true, text: true }
    }
}

/// All that a model declares.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Declared {
    /// Tokens with a name, which templates can use by it.
    pub(super) named: Vec<(String, String)>,
    /// Tokens to be added to those of `tokenizer.json`, in this order, unless they are there.
    pub(super) added: Vec<AddedToken>,
    /// Whether special tokens in a text are cut like any other text.
    pub(super) split: bool,
}

impl Declared {
    /// Gathers what the files declare.
    pub(super) fn gather(
        mut config: TokenizerConfig,
        map: Option<TokenizerConfig>,
        added_file: Option<BTreeMap<String, u32>>,
    ) -> Self {
        if config.extra.is_empty() {
            config.extra = std::mem::take(&mut config.additional);
        }
        let mut added = Vec::new();
        let mut listed: Vec<AddedToken> = Vec::new();
        if let Some(decoder) = config.decoder {
            listed.extend(decoder.into_iter().map(|(_, token)| token));
        } else {
            if let Some(map) = map {
                for (name, mut token) in map.tokens {
                    token.normalized = token.normalized && !token.text;
                    token.special = true;
                    config.tokens.retain(|(other, _)| *other != name);
                    config.tokens.push((name, token));
                }
                config.named.extend(map.named);
                for token in map.extra {
                    if !config.extra.iter().any(|other| other.content == token.content) {
                        config.extra.push(token);
                    }
                }
                if config.extra.is_empty() {
                    config.extra = map.additional;
                }
            }
            let mut file: Vec<(String, u32)> = added_file.into_iter().flatten().collect();
            file.sort_by_key(|&(_, id)| id);
            for (content, _) in file {
                let special = config
                    .tokens
                    .iter()
                    .any(|(name, token)| ROLES.contains(&name.as_str()) && token.content == content)
                    || config.extra.iter().any(|token| token.content == content);
                listed.push(AddedToken { special, normalized: !special, text: false, ..AddedToken::plain(content) });
            }
        }
        added.extend(listed.iter().cloned());
        let rank = |name: &str| ROLES.iter().position(|role| *role == name).unwrap_or(ROLES.len());
        config.tokens.sort_by_key(|(name, _)| rank(name));
        let mut named: Vec<(String, AddedToken)> = config.tokens;
        for (name, token) in config.named {
            named.retain(|(other, _)| *other != name);
            named.push((name, token));
        }
        for (name, token) in &named {
            // One that is listed keeps the properties that the list gives it.
            let known = listed.iter().any(|other| other.content == token.content) && ROLES.contains(&name.as_str());
            if !known && !added.iter().any(|other| other.content == token.content) {
                added.push(AddedToken { special: true, ..token.clone() });
            }
        }
        for token in config.extra {
            if !added.iter().any(|other| other.content == token.content) {
                added.push(token);
            }
        }
        // What has a role is special, wherever its properties stand.
        for token in &mut added {
            token.special = token.special || named.iter().any(|(_, other)| other.content == token.content);
        }
        added.retain(|token| !token.content.is_empty());
        let named = named.into_iter().map(|(name, token)| (name, token.content)).collect();
        Self { named, added, split: config.split_special_tokens }
    }

    /// The token of a name.
    pub(super) fn token(&self, name: &str) -> Option<&str> {
        self.named.iter().find(|(other, _)| other == name).map(|(_, token)| token.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gather(config: &str, map: Option<&str>) -> Declared {
        let read = |json: &str| serde_json::from_str::<TokenizerConfig>(json).expect(json);
        Declared::gather(read(config), map.map(read), None)
    }

    fn contents(declared: &Declared) -> Vec<&str> {
        declared.added.iter().map(|token| token.content.as_str()).collect()
    }

    #[test]
    fn tokens_are_taken_from_wherever_they_are_declared() {
        let config = r#"{"eos_token": "</s>", "bos_token": "<s>", "image_token": "<i>",
            "additional_special_tokens": ["<a>", {"content": "<b>", "lstrip": true}]}"#;
        let declared = gather(config, None);
        assert_eq!(contents(&declared), ["<s>", "</s>", "<i>", "<a>", "<b>"]);
        assert_eq!(declared.token("image_token"), Some("<i>"));
        assert!(declared.added[4].lstrip);
        let extra =
            gather(r#"{"extra_special_tokens": {"audio_token": "<x>"}, "additional_special_tokens": ["<a>"]}"#, None);
        assert_eq!(contents(&extra), ["<x>", "<a>"]);
        assert_eq!(extra.token("audio_token"), Some("<x>"));
    }

    #[test]
    fn the_map_counts_before_the_config_unless_the_config_lists_its_added_tokens() {
        let map = r#"{"bos_token": {"content": "<m>", "normalized": true}, "additional_special_tokens": ["<a>"]}"#;
        let declared = gather(r#"{"bos_token": "<s>"}"#, Some(map));
        assert_eq!(declared.token("bos_token"), Some("<m>"));
        assert_eq!(contents(&declared), ["<m>", "<a>"]);
        let listed = r#"{"bos_token": "<s>", "added_tokens_decoder": {"1": {"content": "<s>", "rstrip": true}}}"#;
        let declared = gather(listed, Some(map));
        assert_eq!(declared.token("bos_token"), Some("<s>"));
        assert!(declared.added.len() == 1 && declared.added[0].rstrip && declared.added[0].special);
    }
}
