//! The tokens that a model declares beside its vocabulary, gathered as transformers gathers them.
//!
//! `tokenizer.json` holds added tokens of its own. `tokenizer_config.json` may name more: some by role (`bos_token`,
//! `eos_token` and so on, and others of a model's own), some in lists, some with their ids in
//! `added_tokens_decoder`. Without that last key transformers also reads `special_tokens_map.json`, whose entries
//! come before the config's, and `added_tokens.json`. All of them become added tokens: a text of one is never cut.
//! One that the vocabulary does not have gets an id beyond it, so that a prompt that holds it is refused where the
//! model has no such row, and never becomes other ids.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::{
    class::{Again, Built},
    config::TokenizerConfig,
};

/// The roles that transformers gives to tokens, in its order.
const ROLES: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// A token that is found in a text before anything else.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
    #[serde(default)]
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
    /// Tokens with a name, which templates can use by it: those with a role first, in the order of [`ROLES`].
    named: Vec<(String, AddedToken)>,
    /// Further special tokens.
    extra: Vec<AddedToken>,
    /// Added tokens with their ids, where the config lists them: those of `tokenizer.json` then count only where that is used
    /// as it is.
    listed: Option<Vec<(u32, AddedToken)>>,
    /// `added_tokens.json`, where they are not listed.
    numbered: Vec<(u32, AddedToken)>,
    /// Whether special tokens in a text are cut like any other text.
    pub(super) split: bool,
    /// The class that builds the tokenizer, unless `tokenizer.json` is used as it is.
    pub(super) built: Option<Built>,
    /// Whether a large vocabulary has another pre-tokenizer than it says.
    pub(super) mended: bool,
}

impl Declared {
    /// Gathers what the files declare, and what the class of `built` does where they do not.
    pub(super) fn gather(
        mut config: TokenizerConfig,
        map: Option<TokenizerConfig>,
        added_file: Option<BTreeMap<String, u32>>,
        built: Option<Built>,
    ) -> Self {
        if config.extra.is_empty() {
            config.extra = std::mem::take(&mut config.additional);
        }
        let mut numbered = Vec::new();
        if config.decoder.is_none() {
            if let Some(map) = map {
                for (name, mut token) in map.tokens {
                    token.normalized = token.normalized && !token.text;
                    token.special = true;
                    config.tokens.retain(|(other, _)| *other != name);
                    config.tokens.push((name, token));
                }
                config.tokens.retain(|(name, _)| !map.none.contains(name));
                config.none.extend(map.none);
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
            for (content, id) in added_file.into_iter().flatten() {
                let special = config.tokens.iter().any(|(name, token)| has_role(name) && token.content == content)
                    || config.extra.iter().any(|token| token.content == content);
                let token = AddedToken { special, normalized: !special, text: false, ..AddedToken::plain(content) };
                numbered.push((id, token));
            }
        }
        let TokenizerConfig { mut tokens, none, extra, decoder: listed, split_special_tokens: split, .. } = config;
        let class = built.as_ref().and_then(Built::class);
        if let Some(class) = class {
            let has =
                |name: &str| tokens.iter().any(|(other, _)| other == name) || none.iter().any(|other| other == name);
            tokens.extend(class.named(has));
        }
        // Roles, then the names that the class has besides, then others.
        let rank = |name: &str| match ROLES.iter().position(|role| *role == name) {
            Some(role) => (0, role),
            None => class.and_then(|class| class.rank(name)).map_or((2, 0), |place| (1, place)),
        };
        tokens.sort_by_key(|(name, _)| rank(name));
        let mut named = tokens;
        for (name, token) in config.named {
            named.retain(|(other, _)| *other != name);
            named.push((name, token));
        }
        named.retain(|(_, token)| !token.content.is_empty());
        Self { named, extra, listed, numbered, split, built, mended: false }
    }

    /// Names and texts of the tokens that have a name.
    pub(super) fn named(&self) -> impl Iterator<Item = (&str, &str)> {
        self.named.iter().map(|(name, token)| (name.as_str(), token.content.as_str()))
    }

    /// The token of a name.
    pub(super) fn token(&self, name: &str) -> Option<&str> {
        self.named().find(|(other, _)| *other == name).map(|(_, token)| token)
    }

    /// The tokens to be added to a tokenizer, in their order. `file` are those of `tokenizer.json`, with its ids, and `kept`
    /// says whether the tokenizer has them.
    pub(super) fn added(&self, file: &[(u32, AddedToken)], kept: bool) -> Vec<AddedToken> {
        let listed = self.all_listed(file);
        let (known, contents): (HashSet<&AddedToken>, HashSet<&str>) = match kept {
            true => file.iter().map(|(_, token)| (token, token.content.as_str())).unzip(),
            false => Default::default(),
        };
        let mut added: Vec<&AddedToken> = listed.values().copied().filter(|token| !known.contains(token)).collect();
        let listed_contents: HashSet<&str> = added.iter().map(|token| token.content.as_str()).collect();
        let first = added.len();
        for token in self.named_and_extra(&listed) {
            let content = token.content.as_str();
            let is_there = contents.contains(content) || listed_contents.contains(content);
            if !is_there && !added[first..].contains(&token) {
                added.push(token);
            }
        }
        let names: HashSet<&str> = self.named().map(|(_, content)| content).collect();
        let special = |token: &AddedToken| token.special || token.text || names.contains(token.content.as_str());
        added.into_iter().map(|token| AddedToken { special: special(token), ..token.clone() }).collect()
    }

    /// The named and the extra tokens, as they are added once more.
    pub(super) fn again(&self, file: &[(u32, AddedToken)], how: Again) -> Vec<AddedToken> {
        let listed = self.all_listed(file);
        let again = |token: &AddedToken| match how {
            Again::No => None,
            Again::Special => Some(AddedToken { special: true, ..token.clone() }),
            Again::Plain => Some(AddedToken::plain(token.content.clone())),
        };
        self.named_and_extra(&listed).into_iter().filter_map(again).collect()
    }

    /// Added tokens by their ids: those that the config lists, or all that there are.
    fn all_listed<'a>(&'a self, file: &'a [(u32, AddedToken)]) -> BTreeMap<u32, &'a AddedToken> {
        let listed = match &self.listed {
            Some(listed) => listed.iter().chain(&[]),
            None => self.numbered.iter().chain(file),
        };
        listed.map(|(id, token)| (*id, token)).collect()
    }

    /// Of named tokens, one with a role that is listed has the properties that the list gives it.
    fn named_and_extra<'a>(&'a self, listed: &BTreeMap<u32, &'a AddedToken>) -> Vec<&'a AddedToken> {
        let by_content: HashMap<&str, &AddedToken> =
            listed.values().map(|token| (token.content.as_str(), *token)).collect();
        let of_role = |(name, token): &'a (String, AddedToken)| match by_content.get(token.content.as_str()) {
            Some(listed) if has_role(name) => *listed,
            _ => token,
        };
        self.named.iter().map(of_role).chain(&self.extra).collect()
    }
}

fn has_role(name: &str) -> bool {
    ROLES.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gather(config: &str, map: Option<&str>) -> Declared {
        let read = |json: &str| serde_json::from_str::<TokenizerConfig>(json).expect(json);
        Declared::gather(read(config), map.map(read), None, None)
    }

    fn contents(declared: &Declared) -> Vec<String> {
        declared.added(&[], true).into_iter().map(|token| token.content).collect()
    }

    #[test]
    fn tokens_are_taken_from_wherever_they_are_declared() {
        let config = r#"{"eos_token": "</s>", "bos_token": "<s>", "image_token": "<i>",
            "additional_special_tokens": ["<a>", {"content": "<b>", "lstrip": true}]}"#;
        let declared = gather(config, None);
        assert_eq!(contents(&declared), ["<s>", "</s>", "<i>", "<a>", "<b>"]);
        assert_eq!(declared.token("image_token"), Some("<i>"));
        assert!(declared.added(&[], true)[4].lstrip);
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
        let added = declared.added(&[], true);
        assert!(added.len() == 1 && added[0].rstrip && added[0].special);
    }

    #[test]
    fn a_map_adds_tokens_that_the_config_lacks_and_says_which_names_have_none() {
        let map = r#"{"bos_token": "<s>", "unk_token": null, "extra_special_tokens": ["<a>", "<c>"],
            "pad_token": {"content": "<p>", "normalized": true}}"#;
        let config = r#"{"unk_token": "<u>", "extra_special_tokens": ["<a>", "<b>"]}"#;
        let declared = gather(config, Some(map));
        assert_eq!(contents(&declared), ["<s>", "<p>", "<a>", "<b>", "<c>"]);
        assert_eq!(declared.token("unk_token"), None);
        let added = declared.added(&[], true);
        // A token that is a text is not looked for in the normalized text, one that is an object as it says.
        assert!(added[0].special && !added[0].normalized && added[1].special && added[1].normalized);
    }

    #[test]
    fn a_numbered_token_is_special_where_a_role_or_the_config_names_it() {
        let config = r#"{"bos_token": "<s>", "image_token": "<i>", "extra_special_tokens": ["<a>"]}"#;
        let numbers =
            ["<s>", "<i>", "<a>", "<n>"].into_iter().zip(7..).map(|(text, id)| (text.to_owned(), id)).collect();
        let config = serde_json::from_str(config).expect("a config");
        let declared = Declared::gather(config, None, Some(numbers), None);
        let mut numbered: Vec<_> =
            declared.numbered.iter().map(|(id, token)| (*id, token.special, token.normalized)).collect();
        numbered.sort_unstable();
        assert_eq!(numbered, [(7, true, false), (8, false, true), (9, true, false), (10, false, true)]);
    }

    #[test]
    fn a_listed_token_gives_its_properties_to_a_role_but_not_to_another_name() {
        let config = r#"{"bos_token": "<s>", "image_token": "<i>",
            "added_tokens_decoder": {"1": {"content": "<s>", "rstrip": true}, "2": {"content": "<i>", "rstrip": true}}}"#;
        let declared = gather(config, None);
        let listed = declared.all_listed(&[]);
        let rstrip: Vec<bool> = declared.named_and_extra(&listed).into_iter().map(|token| token.rstrip).collect();
        assert_eq!(rstrip, [true, false]);
    }
}
