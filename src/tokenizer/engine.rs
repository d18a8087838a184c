//! What a model's own files decide: its tokens. This is where the `tokenizers` crate is called, in this process or in a
//! child, and neither knows which.

use std::fmt::Display;

use serde::{Deserialize, Serialize};
use tokenizers::{PostProcessorWrapper, PreTokenizerWrapper};

use super::{
    class::{Around, mistral},
    file::Parsed,
    special_tokens::{AddedToken, Declared},
};

/// A tokenizer that was read.
pub(super) struct Engine {
    inner: tokenizers::Tokenizer,
    /// The token that stands for a gap in a text, where the class of the tokenizer knows one.
    gap: Option<String>,
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
    /// Makes of `tokenizer.json` what the declared class builds of it, and adds the tokens that are declared beside it.
    pub(super) fn load(json: Vec<u8>, declared: &Declared) -> Result<(Self, Loaded), String> {
        Self::of(Parsed::new(String::from_utf8(json).map_err(brief)?), declared)
    }

    /// [`load`](Self::load) of a file that was read before.
    pub(super) fn of(parsed: Parsed, declared: &Declared) -> Result<(Self, Loaded), String> {
        let class = declared.built.as_ref().map(|built| {
            let class = built.class().ok_or_else(|| "the class of the tokenizer is not known".to_owned())?;
            Ok::<_, String>((class, built))
        });
        let class = class.transpose()?;
        let (mut inner, file) = match class {
            // Python writes a name that is not there as `None`.
            Some((class, built)) => parsed.built(class, built, declared.token("unk_token").unwrap_or("None"))?,
            None => parsed.stated()?,
        };
        let add = |inner: &mut tokenizers::Tokenizer, tokens: Vec<AddedToken>| {
            inner.add_tokens(tokens.into_iter().map(added)).map_err(brief)
        };
        add(&mut inner, declared.added(&file, class.is_none()))?;
        if declared.mended {
            let pre_tokenizer = inner.get_pre_tokenizer().map(serde_json::to_value).transpose().map_err(brief)?;
            if let Some(mended) = mistral::mended(inner.get_vocab_size(true), pre_tokenizer) {
                inner.with_pre_tokenizer(Some(PreTokenizerWrapper::deserialize(mended).map_err(brief)?));
            }
        }
        if let Some((class, _)) = class {
            add(&mut inner, declared.again(&file, class.again))?;
            match class.around {
                Around::AsInFile => {}
                Around::Nothing => drop(inner.with_post_processor(None::<PostProcessorWrapper>)),
                Around::Bos => {
                    let bos = declared.token("bos_token").and_then(|bos| Some((bos, inner.token_to_id(bos)?)));
                    inner.with_post_processor(bos.map(|(bos, id)| before(bos, id)).transpose()?);
                }
            }
        }
        inner.set_encode_special_tokens(declared.split);
        let eos = declared.token("eos_token").and_then(|eos| inner.token_to_id(eos));
        let has = |token: &&str| inner.token_to_id(token).is_some();
        let thinks = THINKING.iter().any(|tokens| tokens.iter().all(has));
        let loaded = Loaded { size: inner.get_vocab_size(true), eos, thinks };
        let gap = class.and_then(|(class, _)| class.fill()).and_then(|fill| declared.token(fill)).map(str::to_owned);
        Ok((Self { inner, gap }, loaded))
    }

    /// The ids of a text.
    pub(super) fn encode(&self, Text { text, special }: &Text) -> Result<Vec<u32>, String> {
        if let Some(gap) = self.gap.as_deref().filter(|gap| text.contains(gap)) {
            return Err(format!(
                "{gap} in a text is a gap to be filled, of which this class of tokenizers makes another prompt"
            ));
        }
        let encoding = self.inner.encode_fast(text.as_str(), *special).map_err(brief)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of ids, special tokens kept.
    pub(super) fn decode(&self, tokens: &[u32]) -> Result<String, String> {
        self.inner.decode(tokens, false).map_err(brief)
    }
}

/// A token as the library has it.
fn added(token: AddedToken) -> tokenizers::AddedToken {
    tokenizers::AddedToken::from(token.content, token.special)
        .lstrip(token.lstrip)
        .rstrip(token.rstrip)
        .single_word(token.single_word)
        .normalized(token.normalized)
}

/// A post-processor that puts a token before a text.
fn before(token: &str, id: u32) -> Result<PostProcessorWrapper, String> {
    let special = serde_json::json!({"SpecialToken": {"id": token, "type_id": 0}});
    let text = |id: &str| serde_json::json!({"Sequence": {"id": id, "type_id": 0}});
    let made = serde_json::json!({
        "type": "TemplateProcessing",
        "single": [special, text("A")],
        "pair": [special, text("A"), special, text("B")],
        "special_tokens": {token: {"id": token, "ids": [id], "tokens": [token]}},
    });
    serde_json::from_value(made).map_err(brief)
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
