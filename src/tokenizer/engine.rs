//! What a model's own files decide: its tokens. This is where the `tokenizers` crate is called, in this process or in a
//! child, and neither knows which.

use std::fmt::Display;

use serde::{Deserialize, Serialize};

use super::special_tokens::{AddedToken, Declared};

/// A tokenizer that was read.
pub(super) struct Engine {
    inner: tokenizers::Tokenizer,
}

/// What is known of a tokenizer once it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Loaded {
    /// Tokens that it knows.
    pub(super) size: usize,
    /// The id of the token that ends an answer.
    pub(super) eos: Option<u32>,
    /// Whether its vocabulary has tokens around what a model thinks, by which mlx-lm decides what `enable_thinking` is.
    pub(super) thinks: bool,
}

/// Tokens of which mlx-lm takes any one set for the sign that a model thinks.
const THINKING: [&[&str]; 5] = [
    &["<think>", "</think>"],
    &["<longcat_think>", "</longcat_think>"],
    &["<|think:start|>", "<|think:end|>"],
    &["<|channel>", "<channel|>"],
    &["<|open|>", "<|close|>", "<|sep|>", "<|end_of_msg|>"],
];

/// A text to be encoded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Text {
    pub(super) text: String,
    /// Whether special tokens are added where the tokenizer does so.
    pub(super) special: bool,
}

impl Engine {
    /// Reads `tokenizer.json`, and adds the tokens that are declared beside it.
    pub(super) fn load(json: &[u8], declared: &Declared) -> Result<(Self, Loaded), String> {
        // Not `from_bytes`, whose reader of JSON would be compiled into this crate once more.
        let json = std::str::from_utf8(json).map_err(brief)?;
        let mut inner: tokenizers::Tokenizer = json.parse().map_err(brief)?;
        // Left over from training in some files. transformers drops both; obeyed, they would cut or fill prompts.
        inner.with_truncation(None).map_err(brief)?;
        inner.with_padding(None);
        let added = |token: &AddedToken| {
            tokenizers::AddedToken::from(token.content.clone(), token.special)
                .lstrip(token.lstrip)
                .rstrip(token.rstrip)
                .single_word(token.single_word)
                .normalized(token.normalized)
        };
        // Those that are there stay as they are.
        inner.add_tokens(declared.added.iter().map(added)).map_err(brief)?;
        inner.set_encode_special_tokens(declared.split);
        let eos = declared.token("eos_token").and_then(|eos| inner.token_to_id(eos));
        let has = |token: &&str| inner.token_to_id(token).is_some();
        let thinks = THINKING.iter().any(|tokens| tokens.iter().all(has));
        let loaded = Loaded { size: inner.get_vocab_size(true), eos, thinks };
        Ok((Self { inner }, loaded))
    }

    /// The ids of a text.
    pub(super) fn encode(&self, Text { text, special }: &Text) -> Result<Vec<u32>, String> {
        let encoding = self.inner.encode_fast(text.as_str(), *special).map_err(brief)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of ids, special tokens kept.
    pub(super) fn decode(&self, tokens: &[u32]) -> Result<String, String> {
        self.inner.decode(tokens, false).map_err(brief)
    }
}

/// An error as it may stand in a message: some of libraries repeat all that they were given, and a template can make its own as long as it likes.
pub(super) fn brief(error: impl Display) -> String {
    const LONGEST: usize = 500;
    let mut text = error.to_string();
    if let Some((end, _)) = text.char_indices().nth(LONGEST) {
        text.truncate(end);
        text.push('…');
    }
    text
}
