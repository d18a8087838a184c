//! Reading `tokenizer.json`: as it is, or for a class that takes vocabulary and merges from it and builds the rest.
//!
//! The library reads a model by way of a tree of JSON, which takes most of the time that a tokenizer takes to be there. Here a
//! file of BPE, which nearly all are, is read straight into what the library builds a model from. Whatever is not as expected
//! is left to the library, whose errors then say what is wrong.

use std::fmt;

use serde::{
    Deserialize,
    de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor},
};
use tokenizers::{
    DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, Tokenizer,
    models::bpe::{BPE, BpeBuilder, Vocab},
};

use super::{
    class::{Built, Class},
    engine::brief,
    special_tokens::AddedToken,
};

/// A tokenizer, and the added tokens of its file, with the ids that it states.
type Read = (Tokenizer, Vec<(u32, AddedToken)>);

/// A file that was read, before it is known what is made of it.
pub(super) struct Parsed {
    json: String,
    direct: Option<Direct>,
}

/// What a file of BPE states, where nothing in it is unusual.
struct Direct {
    parts: Parts,
    model: BPE,
    /// Whether its merges are what they are under whatever options.
    plain: bool,
}

impl Parsed {
    /// Reads `tokenizer.json`. What is wrong with it is said when something is made of it.
    pub(super) fn new(json: String) -> Self {
        let direct = Direct::of(&json);
        Self { json, direct }
    }

    /// The tokenizer that the file states. Truncation and padding are left over from training in some files. transformers
    /// drops both; obeyed, they would cut or fill prompts.
    pub(super) fn stated(self) -> Result<Read, String> {
        if let Some(Direct { parts, model, .. }) = self.direct {
            let mut inner = Tokenizer::new(model);
            inner.with_normalizer(parts.normalizer).map_err(brief)?;
            inner.with_pre_tokenizer(parts.pre_tokenizer);
            inner.with_decoder(parts.decoder);
            inner.with_post_processor(parts.post_processor);
            inner.add_tokens(parts.added_tokens.iter().map(|added| added.token.clone())).map_err(brief)?;
            return Ok((inner, parts.added_tokens.into_iter().map(Numbered::split).collect()));
        }
        let mut inner: Tokenizer = self.json.parse().map_err(brief)?;
        inner.with_truncation(None).map_err(brief)?;
        inner.with_padding(None);
        let added = inner.get_added_tokens_decoder();
        let added = added.iter().map(|(&id, token)| (id, of_library(token))).collect();
        Ok((inner, added))
    }

    /// The tokenizer that a class builds around the vocabulary of the file, in which `unknown` is the token for what is not
    /// known. Those tokens that the file adds are not in it yet.
    pub(super) fn built(self, class: &Class, built: &Built, unknown: &str) -> Result<Read, String> {
        let (parts, mut model) = match self.direct {
            Some(Direct { parts, model, plain: true }) => (parts, model),
            _ => {
                let File { parts, model, .. } = part(&self.json)?;
                let vocab = model.vocab.ok_or_else(|| "the model has no vocabulary".to_owned())?;
                let merges = model.merges.unwrap_or_default().pairs;
                (parts, BpeBuilder::new().vocab_and_merges(vocab, merges).build().map_err(brief)?)
            }
        };
        model.dropout = None;
        model.unk_token = class.unknown.then(|| unknown.to_owned());
        (model.continuing_subword_prefix, model.end_of_word_suffix) = (None, None);
        (model.fuse_unk, model.byte_fallback, model.ignore_merges) = (class.falls_back, class.falls_back, false);
        let mut inner = Tokenizer::new(model);
        inner.with_normalizer(part::<Option<NormalizerWrapper>>(class.normalizer)?).map_err(brief)?;
        inner.with_pre_tokenizer(Some(part::<PreTokenizerWrapper>(&built.pre_tokenizer(class))?));
        inner.with_decoder(Some(part::<DecoderWrapper>(&built.decoder(class))?));
        inner.with_post_processor(parts.post_processor);
        Ok((inner, parts.added_tokens.into_iter().map(Numbered::split).collect()))
    }
}

fn part<T: for<'a> Deserialize<'a>>(json: &str) -> Result<T, String> {
    serde_json::from_str(json).map_err(brief)
}

impl Direct {
    fn of(json: &str) -> Option<Self> {
        let File { version, parts, model } = serde_json::from_str(json).ok()?;
        if version.is_some_and(|version| version != "1.0") {
            return None;
        }
        let (model, plain) = model.bpe()?;
        Some(Self { parts, model, plain })
    }
}

/// The file.
struct File {
    version: Option<String>,
    parts: Parts,
    model: Model,
}

/// All of a file but its model.
#[derive(Default)]
struct Parts {
    added_tokens: Vec<Numbered>,
    normalizer: Option<NormalizerWrapper>,
    pre_tokenizer: Option<PreTokenizerWrapper>,
    post_processor: Option<PostProcessorWrapper>,
    decoder: Option<DecoderWrapper>,
}

impl<'de> Deserialize<'de> for File {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FileVisitor)
    }
}

struct FileVisitor;

impl<'de> Visitor<'de> for FileVisitor {
    type Value = File;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a tokenizer")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<File, A::Error> {
        let (mut version, mut parts, mut model) = (None, Parts::default(), None);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "version" => version = map.next_value()?,
                "added_tokens" => parts.added_tokens = map.next_value()?,
                "normalizer" => parts.normalizer = map.next_value()?,
                "pre_tokenizer" => parts.pre_tokenizer = map.next_value()?,
                "post_processor" => parts.post_processor = map.next_value()?,
                "decoder" => parts.decoder = map.next_value()?,
                "model" => model = Some(map.next_value()?),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        let model = model.ok_or_else(|| A::Error::missing_field("model"))?;
        Ok(File { version, parts, model })
    }
}

/// An added token with its id.
#[derive(Deserialize)]
struct Numbered {
    id: u32,
    #[serde(flatten)]
    token: tokenizers::AddedToken,
}

impl Numbered {
    fn split(self) -> (u32, AddedToken) {
        (self.id, of_library(&self.token))
    }
}

fn of_library(token: &tokenizers::AddedToken) -> AddedToken {
    let &tokenizers::AddedToken { ref content, single_word, lstrip, rstrip, normalized, special } = token;
    AddedToken { content: content.clone(), lstrip, rstrip, single_word, normalized, special, text: false }
}

/// The model, as far as a BPE has it.
#[derive(Default)]
struct Model {
    kind: Option<String>,
    dropout: Option<f32>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    fuse_unk: Option<bool>,
    byte_fallback: Option<bool>,
    ignore_merges: Option<bool>,
    vocab: Option<Vocab>,
    /// Whether the vocabulary is a list, in which the place of a token is its id.
    is_list: bool,
    merges: Option<Merges>,
}

impl Model {
    /// The BPE that it is, and whether its merges are what they are under whatever options; none where it is another model, or
    /// the library would read it otherwise.
    fn bpe(self) -> Option<(BPE, bool)> {
        let merges = self.merges?;
        if self.kind.as_deref() != Some("BPE") || self.is_list || merges.texts > 0 && merges.texts < merges.pairs.len()
        {
            return None;
        }
        let comment = |(first, _): &(String, String)| merges.texts > 0 && first.starts_with("#version");
        let count = merges.pairs.len();
        let pairs: Vec<_> = merges.pairs.into_iter().filter(|pair| !comment(pair)).collect();
        let plain = pairs.len() == count && self.continuing_subword_prefix.as_ref().is_none_or(String::is_empty);
        let mut builder = BpeBuilder::new()
            .vocab_and_merges(self.vocab?, pairs)
            .fuse_unk(self.fuse_unk.unwrap_or(false))
            .byte_fallback(self.byte_fallback.unwrap_or(false))
            .ignore_merges(self.ignore_merges.unwrap_or(false));
        if let Some(dropout) = self.dropout {
            builder = builder.dropout(dropout);
        }
        if let Some(unknown) = self.unk_token {
            builder = builder.unk_token(unknown);
        }
        if let Some(prefix) = self.continuing_subword_prefix {
            builder = builder.continuing_subword_prefix(prefix);
        }
        if let Some(suffix) = self.end_of_word_suffix {
            builder = builder.end_of_word_suffix(suffix);
        }
        Some((builder.build().ok()?, plain))
    }
}

impl<'de> Deserialize<'de> for Model {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ModelVisitor)
    }
}

struct ModelVisitor;

impl<'de> Visitor<'de> for ModelVisitor {
    type Value = Model;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a model")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Model, A::Error> {
        let mut model = Model::default();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "type" => model.kind = map.next_value()?,
                "dropout" => model.dropout = map.next_value()?,
                "unk_token" => model.unk_token = map.next_value()?,
                "continuing_subword_prefix" => model.continuing_subword_prefix = map.next_value()?,
                "end_of_word_suffix" => model.end_of_word_suffix = map.next_value()?,
                "fuse_unk" => model.fuse_unk = map.next_value()?,
                "byte_fallback" => model.byte_fallback = map.next_value()?,
                "ignore_merges" => model.ignore_merges = map.next_value()?,
                "vocab" => {
                    let Vocabulary { ids, is_list } = map.next_value()?;
                    (model.vocab, model.is_list) = (Some(ids), is_list);
                }
                "merges" => model.merges = Some(map.next_value()?),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(model)
    }
}

/// Tokens and their ids: an object, or a list of tokens or of tokens with their scores.
struct Vocabulary {
    ids: Vocab,
    is_list: bool,
}

impl<'de> Deserialize<'de> for Vocabulary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(VocabularyVisitor)
    }
}

struct VocabularyVisitor;

impl<'de> Visitor<'de> for VocabularyVisitor {
    type Value = Vocabulary;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a vocabulary")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocabulary, A::Error> {
        let mut ids = Vocab::default();
        while let Some((token, id)) = map.next_entry()? {
            ids.insert(token, id);
        }
        Ok(Vocabulary { ids, is_list: false })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vocabulary, A::Error> {
        let mut ids = Vocab::default();
        let mut id = 0;
        while let Some(First(token)) = list.next_element()? {
            ids.insert(token, id);
            id += 1;
        }
        Ok(Vocabulary { ids, is_list: true })
    }
}

/// Pairs of tokens in the order in which they are merged.
#[derive(Default)]
struct Merges {
    pairs: Vec<(String, String)>,
    /// How many were written as one text.
    texts: usize,
}

impl<'de> Deserialize<'de> for Merges {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(MergesVisitor)
    }
}

struct MergesVisitor;

impl<'de> Visitor<'de> for MergesVisitor {
    type Value = Merges;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of merges")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Merges, A::Error> {
        let mut merges = Merges::default();
        while let Some(Merge { first, second, text }) = list.next_element()? {
            merges.pairs.push((first, second));
            merges.texts += usize::from(text);
        }
        Ok(merges)
    }
}

/// A merge: two tokens, or one text with a space between them.
struct Merge {
    first: String,
    second: String,
    /// Whether it is one text.
    text: bool,
}

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MergeVisitor)
    }
}

struct MergeVisitor;

impl<'de> Visitor<'de> for MergeVisitor {
    type Value = Merge;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a merge of two tokens")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Merge, E> {
        let parts = text.split_once(' ').filter(|(_, second)| !second.contains(' '));
        let (first, second) = parts.ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))?;
        Ok(Merge { first: first.to_owned(), second: second.to_owned(), text: true })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Merge, A::Error> {
        let first = list.next_element()?.ok_or_else(|| A::Error::invalid_length(0, &self))?;
        let second = list.next_element()?.ok_or_else(|| A::Error::invalid_length(1, &self))?;
        match list.next_element::<IgnoredAny>()? {
            None => Ok(Merge { first, second, text: false }),
            Some(_) => Err(A::Error::invalid_length(3, &self)),
        }
    }
}

/// A token in a list: a text, or a list that begins with one.
struct First(String);

impl<'de> Deserialize<'de> for First {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FirstVisitor)
    }
}

struct FirstVisitor;

impl<'de> Visitor<'de> for FirstVisitor {
    type Value = First;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a token")
    }

    fn visit_str<E>(self, text: &str) -> Result<First, E> {
        Ok(First(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<First, A::Error> {
        let first = list.next_element()?.ok_or_else(|| A::Error::invalid_length(0, &self))?;
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(First(first))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// All files of the fixtures.
    fn files() -> Vec<Value> {
        let kinds: Vec<Value> =
            serde_json::from_str(include_str!("../../tests/fixtures/tokenizers.json")).expect("JSON");
        let classes: Value =
            serde_json::from_str(include_str!("../../tests/fixtures/tokenizer_classes.json")).expect("JSON");
        let of_classes = classes["tokenizers"].as_object().expect("an object").values().cloned();
        kinds.iter().map(|kind| kind["tokenizer"].clone()).chain(of_classes).collect()
    }

    fn small(model: &Value) -> String {
        json!({"version": "1.0", "added_tokens": [], "model": model}).to_string()
    }

    #[test]
    fn a_file_of_bpe_is_read_as_the_library_reads_it() {
        let mut direct = 0;
        for file in files() {
            let json = file.to_string();
            let mut library: Tokenizer = json.parse().expect("a tokenizer");
            library.with_truncation(None).expect("no truncation");
            library.with_padding(None);
            let (read, _) = Parsed::new(json.clone()).stated().expect("a tokenizer");
            assert_eq!(read.to_string(false).expect("JSON"), library.to_string(false).expect("JSON"));
            let is_bpe = file["model"]["type"] == "BPE";
            assert_eq!(Direct::of(&json).is_some(), is_bpe, "{}", file["model"]["type"]);
            direct += usize::from(is_bpe);
        }
        assert!(direct > 12);
        // With all that a model can state, and merges as texts.
        let model = json!({"type": "BPE", "dropout": 0.5, "unk_token": "a", "continuing_subword_prefix": "@", "end_of_word_suffix": "!",
            "fuse_unk": true, "byte_fallback": true, "ignore_merges": true, "vocab": {"a": 0, "@b": 1, "ab": 2},
            "merges": ["#version: 0.2", "a @b"], "more": [1, {}]});
        let library: Tokenizer = small(&model).parse().expect("a tokenizer");
        assert!(Direct::of(&small(&model)).is_some_and(|direct| !direct.plain));
        let (read, _) = Parsed::new(small(&model)).stated().expect("a tokenizer");
        assert_eq!(read.to_string(false).expect("JSON"), library.to_string(false).expect("JSON"));
    }

    #[test]
    fn merges_are_plain_without_a_comment_and_a_prefix() {
        for (prefix, merges, plain) in [
            (json!(null), json!(["a b"]), true),
            (json!(""), json!([["a", "b"]]), true),
            (json!(null), json!(["#version: 0.2", "a b"]), false),
            (json!("@"), json!(["a @b"]), false),
        ] {
            let model = json!({"type": "BPE", "continuing_subword_prefix": prefix, "merges": merges,
                "vocab": {"a": 0, "b": 1, "@b": 2, "ab": 3}});
            assert_eq!(Direct::of(&small(&model)).map(|direct| direct.plain), Some(plain), "{model}");
        }
    }

    #[test]
    fn what_is_unusual_is_left_to_the_library() {
        let vocab = json!({"a": 0, "b": 1, "ab": 2});
        for model in [
            json!({"vocab": vocab, "merges": []}),
            json!({"type": "WordLevel", "vocab": vocab, "merges": [], "unk_token": "a"}),
            json!({"type": "BPE", "vocab": ["a", "b", "ab"], "merges": []}),
            json!({"type": "BPE", "vocab": vocab}),
            json!({"type": "BPE", "vocab": vocab, "merges": ["a b", ["a", "b"]]}),
            json!({"type": "BPE", "vocab": vocab, "merges": ["a b c"]}),
            json!({"type": "BPE", "vocab": vocab, "merges": ["ab"]}),
            json!({"type": "BPE", "vocab": vocab, "merges": [["a"]]}),
            json!({"type": "BPE", "vocab": vocab, "merges": [["a", "b", "c"]]}),
            json!({"type": "BPE", "vocab": vocab, "merges": [["a", "c"]]}),
            json!({"type": "BPE", "vocab": vocab, "merges": [], "dropout": 2.0}),
        ] {
            let json = small(&model);
            assert!(Direct::of(&json).is_none(), "{json}");
            // Its answer is the library's.
            let library = json.parse::<Tokenizer>().map(|library| library.to_string(false).expect("JSON"));
            let read = Parsed::new(json.clone()).stated().map(|(read, _)| read.to_string(false).expect("JSON"));
            assert_eq!(read, library.map_err(brief), "{json}");
        }
        let later =
            json!({"version": "2.0", "added_tokens": [], "model": {"type": "BPE", "vocab": vocab, "merges": []}});
        assert!(Direct::of(&later.to_string()).is_none());
    }
}
