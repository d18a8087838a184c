//! Text to token ids and back, as transformers and mlx-lm do it.
//!
//! The `tokenizers` crate reads `tokenizer.json`; the chat template and the special tokens' names come from the
//! files beside it.

mod template;

use std::{collections::BTreeSet, fmt};

use serde_json::Value;

pub use template::TemplateError;
use template::{Message, Template};

/// Why there is no tokenizer, or no tokens.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// A file of the tokenizer is missing.
    #[error(
        "the model has no {0}; copy it from the model that the checkpoint was converted from, or give prompts with --prompt-ids"
    )]
    Missing(&'static str),
    /// A file is not what it should be.
    #[error("{file}: {message}")]
    File {
        /// Its name.
        file: &'static str,
        /// What is wrong.
        message: String,
    },
    /// The chat template gave no text.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The tokenizer failed on a text.
    #[error("the tokenizer fails: {0}")]
    Encode(String),
    /// A text that should be one token.
    #[error("{text:?} is not one token but {}: {tokens:?}; give an id, or a text that is one token (often with a space before it)", .tokens.len())]
    NotOne {
        /// The text.
        text: String,
        /// Its tokens.
        tokens: Vec<u32>,
    },
    /// A prompt without tokens.
    #[error("the prompt is empty: it gives no tokens")]
    Empty,
    /// A token that the model has no embedding for.
    #[error("token {id} at position {position} of the prompt is beyond the model's vocabulary of {vocab_size}")]
    Id {
        /// The token.
        id: u32,
        /// Its place in the prompt, from 0.
        position: usize,
        /// Rows of the embedding.
        vocab_size: usize,
    },
}

/// The files that a tokenizer is made of.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokenizerFiles<'a> {
    /// `tokenizer.json`.
    pub tokenizer: Option<&'a [u8]>,
    /// `tokenizer_config.json`.
    pub config: Option<&'a [u8]>,
    /// `chat_template.jinja`.
    pub template: Option<&'a [u8]>,
}

/// A model's tokenizer and chat template.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    template: Result<Template, TemplateError>,
    bos: Option<String>,
    eos: Option<u32>,
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokenizer({} tokens)", self.inner.get_vocab_size(true))
    }
}

impl Tokenizer {
    /// Reads the files of a checkpoint. A chat template that is missing or fails is an error only when it is
    /// used.
    ///
    /// # Errors
    /// [`TokenizerError::Missing`] without `tokenizer.json`, [`TokenizerError::File`].
    pub fn from_files(files: TokenizerFiles<'_>) -> Result<Self, TokenizerError> {
        let file = |file, message: &dyn fmt::Display| TokenizerError::File { file, message: message.to_string() };
        let json = files.tokenizer.ok_or(TokenizerError::Missing("tokenizer.json"))?;
        // Not `from_bytes`, whose reader of JSON would be compiled into this crate once more.
        let json = std::str::from_utf8(json).map_err(|error| file("tokenizer.json", &error))?;
        let mut inner: tokenizers::Tokenizer = json.parse().map_err(|error| file("tokenizer.json", &error))?;
        // Left over from training in some files. transformers drops both; obeyed, they would cut or fill prompts.
        inner.with_truncation(None).map_err(|error| file("tokenizer.json", &error))?;
        inner.with_padding(None);
        let config: Value = match files.config {
            Some(bytes) => serde_json::from_slice(bytes).map_err(|error| file("tokenizer_config.json", &error))?,
            None => Value::Null,
        };
        let tokens = special_tokens(&config);
        let token = |name: &str| tokens.iter().find(|(key, _)| key == name).map(|(_, token)| token.clone());
        let (bos, eos) = (token("bos_token"), token("eos_token"));
        let source = match files.template {
            Some(bytes) => {
                let text = std::str::from_utf8(bytes).map_err(|error| file("chat_template.jinja", &error))?;
                Some(text.to_owned())
            }
            None => template_in(&config),
        };
        let template = source.ok_or(TemplateError::None).and_then(|source| Template::new(source, tokens));
        let eos = eos.and_then(|eos| inner.token_to_id(&eos));
        Ok(Self { inner, template, bos, eos })
    }

    /// Ids of a chat of an optional system message and one message of a user, with the start of an answer.
    ///
    /// # Errors
    /// [`TokenizerError::Template`], [`TokenizerError::Encode`].
    pub fn encode_chat(&self, system: Option<&str>, user: &str) -> Result<Vec<u32>, TokenizerError> {
        let system = system.map(|content| Message { role: "system", content });
        let messages: Vec<Message<'_>> = system.into_iter().chain([Message { role: "user", content: user }]).collect();
        let template = match &self.template {
            Ok(template) => template,
            Err(TemplateError::None) => return Err(TemplateError::None.into()),
            Err(TemplateError::Raised(message)) => return Err(TemplateError::Raised(message.clone()).into()),
            Err(TemplateError::Invalid { line, message }) => {
                return Err(TemplateError::Invalid { line: *line, message: message.clone() }.into());
            }
        };
        self.encode(&template.render(&messages)?, false)
    }

    /// Ids of a text as it is. Special tokens (a bos, say) are added where the tokenizer does so, unless the text
    /// starts with the bos: mlx-lm's rule.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`].
    pub fn encode_raw(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let special = self.bos.as_ref().is_none_or(|bos| !text.starts_with(bos));
        self.encode(text, special)
    }

    /// The token that a text is by itself, without special tokens around it.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`]; [`TokenizerError::NotOne`], where it is none or several.
    pub fn token(&self, text: &str) -> Result<u32, TokenizerError> {
        match self.encode(text, false)?[..] {
            [token] => Ok(token),
            ref tokens => Err(TokenizerError::NotOne { text: text.to_owned(), tokens: tokens.to_vec() }),
        }
    }

    fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, TokenizerError> {
        let encoding = self.inner.encode_fast(text, special).map_err(|e| TokenizerError::Encode(e.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of `tokens`, special tokens kept, without clean-up. Tokens that the tokenizer does not know (a
    /// model's vocabulary may be larger) leave nothing.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`].
    pub fn decode(&self, tokens: &[u32]) -> Result<String, TokenizerError> {
        self.inner.decode(tokens, false).map_err(|error| TokenizerError::Encode(error.to_string()))
    }

    /// The tokens that end an answer: those that the checkpoint's configuration names and the tokenizer's own, as
    /// in mlx-lm; those beyond the vocabulary never come up and are left out.
    pub fn eos(&self, configured: &[u32], vocab_size: usize) -> Vec<u32> {
        let all: BTreeSet<u32> = configured.iter().copied().chain(self.eos).collect();
        all.into_iter().filter(|&id| (id as usize) < vocab_size).collect()
    }
}

/// Checks the ids of a prompt against the rows of the embedding.
///
/// # Errors
/// [`TokenizerError::Empty`], [`TokenizerError::Id`].
pub fn check_ids(ids: &[u32], vocab_size: usize) -> Result<(), TokenizerError> {
    if ids.is_empty() {
        return Err(TokenizerError::Empty);
    }
    match ids.iter().position(|&id| id as usize >= vocab_size) {
        Some(position) => Err(TokenizerError::Id { id: ids[position], position, vocab_size }),
        None => Ok(()),
    }
}

/// Keys of `tokenizer_config.json` whose value is a token: a text, or an object with `content`.
fn special_tokens(config: &Value) -> Vec<(String, String)> {
    let Some(map) = config.as_object() else { return Vec::new() };
    map.iter()
        .filter(|(key, _)| key.ends_with("_token"))
        .filter_map(|(key, value)| {
            let token = value.as_str().or_else(|| value.get("content")?.as_str())?;
            Some((key.clone(), token.to_owned()))
        })
        .collect()
}

fn template_in(config: &Value) -> Option<String> {
    match config.get("chat_template")? {
        Value::String(source) => Some(source.clone()),
        Value::Array(named) => {
            let default = named.iter().find(|template| template["name"] == "default")?;
            default["template"].as_str().map(str::to_owned)
        }
        _ => None,
    }
}
