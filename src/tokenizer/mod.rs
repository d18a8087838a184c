//! Text to token ids and back, as transformers and mlx-lm do it.
//!
//! The `tokenizers` crate reads `tokenizer.json`; the chat template, the special tokens' names and the class by which
//! transformers would load all this come from the files beside it. Some classes build another tokenizer than the file states
//! (`class`), and then that one gives the ids.
//!
//! # In this process or apart
//!
//! A tokenizer and a template are data and a program that a stranger may have written, and the libraries that read and run
//! them panic, overflow the stack, hang or take all memory on some. [`Tokenizer::from_files`] reads them **in this process**:
//! for models that are trusted, such as the one inside the program. [`Tokenizer::apart`] has them read **in a child with
//! limits** ([`Apart`]), where the worst that they can do is an error that names the file; the program `headroom` reads every
//! model so but the one inside. Both give the same ids and texts.

mod apart;
mod class;
mod clock;
mod config;
mod encoding;
mod engine;
mod file;
mod ordered_json;
mod special_tokens;
mod template;
mod templates;

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::{Mutex, PoisonError},
};

pub use self::{
    apart::{Apart, serve_if_asked},
    clock::Clock,
    encoding::{Encoded, Encoding},
    ordered_json::Json,
    template::TemplateError,
};
use self::{
    class::{Built, Chosen, ModelConfig},
    config::TokenizerConfig,
    engine::{Engine, Text},
    special_tokens::Declared,
    template::{Chat, TemplateSource},
    templates::Templates,
};
use crate::{checkpoint::Bytes, child::ChildError};

/// Why there is no tokenizer, or no tokens.
#[derive(Clone, Debug, thiserror::Error)]
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
    /// What a file of the model has done ended the child that reads it.
    #[error(
        "{file}: {doing} it ended the process that does so: {error}; the file is broken or hostile: fetch it again from a source \
         that you trust{}",
        instead(.file)
    )]
    Child {
        /// The file.
        file: &'static str,
        /// What was done with it: `reading`, `rendering`.
        doing: &'static str,
        /// What ended the child.
        error: ChildError,
    },
    /// Files for which transformers has a class that builds another tokenizer than `tokenizer.json` states, in a way that is
    /// not known here.
    #[error(
        "tokenizer_config.json: {0}; give prompts with --prompt-ids, or set tokenizer_class to \"TokenizersBackend\", which takes tokenizer.json as it is"
    )]
    Class(String),
    /// The chat template gave no text.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The tokenizer failed on a text.
    #[error("the tokenizer fails: {0}")]
    Encode(String),
    /// A text that becomes far more tokens than it has bytes.
    #[error(
        "tokenizer.json makes {tokens} tokens of a text of {bytes} bytes, more than the {limit} that it may; give the prompt with --prompt-ids"
    )]
    Many {
        /// Bytes of the text.
        bytes: usize,
        /// Its tokens.
        tokens: usize,
        /// Tokens allowed.
        limit: usize,
    },
    /// Tokens that become a far longer text than tokens are.
    #[error(
        "tokenizer.json makes a text of {bytes} bytes of {tokens} tokens, more than the {limit} that it may; fetch it again from a source that you trust"
    )]
    Long {
        /// Tokens.
        tokens: usize,
        /// Bytes of their text.
        bytes: usize,
        /// Bytes allowed.
        limit: usize,
    },
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

fn instead(file: &str) -> &'static str {
    if file == "tokenizer.json" {
        ", or take it out of the folder and give prompts with --prompt-ids"
    } else {
        ", or give the prompt as it is with --raw"
    }
}

/// The files that a tokenizer is made of.
#[derive(Clone, Debug, Default)]
pub struct TokenizerFiles {
    /// `tokenizer.json`.
    pub tokenizer: Option<Bytes>,
    /// `config.json`, in which transformers looks for what class of tokenizers to load.
    pub model: Option<Bytes>,
    /// `tokenizer_config.json`.
    pub config: Option<Bytes>,
    /// `special_tokens_map.json`.
    pub special_tokens: Option<Bytes>,
    /// `added_tokens.json`.
    pub added_tokens: Option<Bytes>,
    /// `chat_template.jinja`.
    pub template: Option<Bytes>,
    /// The templates in `additional_chat_templates/`: names without `.jinja`, and contents.
    pub templates: Vec<(String, Bytes)>,
}

/// A model's tokenizer and chat template.
pub struct Tokenizer {
    place: Place,
    size: usize,
    templates: Templates,
    declared: Declared,
    eos: Option<u32>,
    /// Whether mlx-lm takes it for a model that thinks.
    thinks: bool,
    /// Why there are no ids that mlx-lm is known to give.
    refusal: Option<String>,
    notes: Vec<String>,
}

/// Tokens that a tokenizer may add to any text.
const SPECIAL: usize = 256;
/// Tokens that it may make of a byte: a token is a byte at least, but one character can be normalized to many.
const TOKENS_A_BYTE: usize = 16;

/// Bytes of text that a token may be: the longest in use have some hundred, of spaces or of dots.
const BYTES_A_TOKEN: usize = 1024;

/// Where a tokenizer works.
enum Place {
    Here(Box<Engine>),
    Apart(Apart, Mutex<Decoded>),
}

/// Answers that a child has decoded: most trials of a campaign leave the clean one, and need not ask again.
type Decoded = HashMap<Vec<u32>, String>;

/// Answers that are remembered, at most.
const MOST_DECODED: usize = 1024;
/// Bytes of the longest of them.
const LONGEST_DECODED: usize = 4096;

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokenizer({} tokens)", self.size)
    }
}

impl Tokenizer {
    /// Reads the files of a checkpoint in this process, where encoding, decoding and rendering happen, too: for a model that
    /// is trusted. A chat template that is missing or fails is an error only when it is used.
    ///
    /// # Errors
    /// [`TokenizerError::Missing`] without `tokenizer.json`, [`TokenizerError::File`].
    ///
    /// # Panics
    /// Where a library does on what these files hold. It may also take all memory, or never return.
    pub fn from_files(files: TokenizerFiles) -> Result<Self, TokenizerError> {
        Self::read(files, |json, declared| {
            let loaded = Engine::load(json.to_vec(), declared);
            let (engine, loaded) =
                loaded.map_err(|message| TokenizerError::File { file: "tokenizer.json", message })?;
            Ok((Place::Here(Box::new(engine)), loaded))
        })
    }

    /// Has the files of a checkpoint read by a child, which then encodes, decodes and renders. Nothing that they hold makes
    /// this process panic, hang, or take much memory.
    ///
    /// # Errors
    /// [`TokenizerError::Missing`] without `tokenizer.json`, [`TokenizerError::File`], [`TokenizerError::Child`].
    pub fn apart(mut child: Apart, files: TokenizerFiles) -> Result<Self, TokenizerError> {
        Self::read(files, |json, declared| {
            let loaded = child.load(json, declared)?;
            Ok((Place::Apart(child, Mutex::default()), loaded))
        })
    }

    fn read(
        files: TokenizerFiles,
        load: impl FnOnce(Bytes, &Declared) -> Result<(Place, engine::Loaded), TokenizerError>,
    ) -> Result<Self, TokenizerError> {
        let json = files.tokenizer.ok_or(TokenizerError::Missing("tokenizer.json"))?;
        let mut config: TokenizerConfig = parsed("tokenizer_config.json", files.config)?.unwrap_or_default();
        let within = config.template.take();
        let map = parsed("special_tokens_map.json", files.special_tokens)?;
        let added = parsed("added_tokens.json", files.added_tokens)?;
        let model: ModelConfig = parsed("config.json", files.model)?.unwrap_or_default();
        let byte_level = || std::str::from_utf8(&json).is_ok_and(|json| json.contains("\"ByteLevel\""));
        let chosen = class::choose(config.class.as_deref(), config.code, &model, byte_level);
        let (mut built, mut refusal, mut notes) = (None, None, Vec::new());
        match &chosen {
            Chosen::File => {}
            Chosen::Class(class) => match Built::new(class, config.options) {
                Ok(class) => built = Some(class),
                Err(wrong) => refusal = Some(wrong),
            },
            Chosen::Unknown(name) => {
                refusal = Some(format!("headroom does not know how {name}, a class of transformers, makes ids"));
            }
            Chosen::Code => notes.push(
                "tokenizer_config.json names code of its own for the tokenizer, which mlx-lm runs where it is told to trust it; \
                 here ids are those of tokenizer.json as it is"
                    .to_owned(),
            ),
        }
        let mended = class::mistral::is_mended(config.options, &model);
        let mut declared = Declared::gather(config, map, added, built);
        declared.mended = mended;
        let (place, loaded) = load(json, &declared)?;
        let templates = Templates::gather(within, files.template, files.templates)?;
        let engine::Loaded { size, eos, thinks } = loaded;
        Ok(Self { place, size, templates, declared, eos, thinks, refusal, notes })
    }

    /// What is not as it should be and hinders nothing, for people.
    pub(crate) fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Ids of a chat of an optional system message and one message of a user, with the start of an answer.
    ///
    /// # Errors
    /// [`TokenizerError::Template`], [`TokenizerError::Encode`], [`TokenizerError::Child`].
    pub fn encode_chat(&self, system: Option<&str>, user: &str) -> Result<Vec<u32>, TokenizerError> {
        let encoding = Encoding { system: system.map(str::to_owned), ..Encoding::default() };
        self.encode_chats(&encoding, &[user]).swap_remove(0).map(|encoded| encoded.ids)
    }

    /// Ids of a chat with each of `users`, in their order. Many at once are cheaper: a template is compiled once, and a child
    /// asked once.
    pub fn encode_chats(&self, encoding: &Encoding, users: &[&str]) -> Vec<Result<Encoded, TokenizerError>> {
        let tools = encoding.variables.iter().any(|(name, value)| name == "tools" && *value != Json::Null);
        let (file, text) = match self.templates.choose(encoding.template.as_deref(), tools) {
            Ok((file, text)) => (file, text.to_owned()),
            Err(error) => return users.iter().map(|_| Err(error.clone().into())).collect(),
        };
        let clock = encoding.clock.clone();
        let source = &TemplateSource { file, text, variables: self.variables(encoding), clock };
        let chats: Vec<Chat> = users.iter().map(|user| Chat::new(encoding.system.as_deref(), user)).collect();
        let rendered = match &self.place {
            Place::Here(_) => Ok(template::render(source, &chats)),
            Place::Apart(child, _) => child.render(source, chats),
        };
        let rendered = match rendered {
            Ok(rendered) => rendered,
            Err(error) => return users.iter().map(|_| Err(error.clone())).collect(),
        };
        let text = |rendered: &template::Rendered| Text { text: rendered.text.clone(), special: false };
        let mut ids = self.encode_all(rendered.iter().flatten().map(text).collect()).into_iter();
        let each = |rendered: Result<template::Rendered, TemplateError>| {
            let date = rendered.map_err(TokenizerError::from)?.date;
            let ids = ids.next().expect("ids for each text that was rendered")?;
            Ok(Encoded { ids, date })
        };
        rendered.into_iter().map(each).collect()
    }

    /// What a template is given besides the messages: what mlx-lm gives it, and before that what was asked for.
    fn variables(&self, encoding: &Encoding) -> Vec<(String, Json)> {
        let tokens = self.declared.named().map(|(name, token)| (name.to_owned(), Json::Text(token.to_owned())));
        let given = [
            ("enable_thinking", Json::Bool(self.thinks)),
            ("tools", Json::Null),
            ("documents", Json::Null),
            ("add_generation_prompt", Json::Bool(true)),
        ];
        let given = given.map(|(name, value)| (name.to_owned(), value));
        tokens.chain(given).chain(encoding.variables.iter().cloned()).collect()
    }

    /// Ids of a text as it is. Special tokens (a bos, say) are added where the tokenizer does so, unless the text
    /// starts with the bos: mlx-lm's rule.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`], [`TokenizerError::Child`].
    pub fn encode_raw(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        self.encode_raws(&[text]).swap_remove(0)
    }

    /// [`encode_raw`](Self::encode_raw) of each of `texts`, in their order.
    pub fn encode_raws(&self, texts: &[&str]) -> Vec<Result<Vec<u32>, TokenizerError>> {
        let bos = self.declared.token("bos_token");
        let special = |text: &str| bos.is_none_or(|bos| !text.starts_with(bos));
        let texts = texts.iter().map(|&text| Text { special: special(text), text: text.to_owned() }).collect();
        self.encode_all(texts)
    }

    /// The token that a text is by itself, without special tokens around it.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`], [`TokenizerError::Child`]; [`TokenizerError::NotOne`], where it is none or several.
    pub(crate) fn token(&self, text: &str) -> Result<u32, TokenizerError> {
        match self.encode_all(vec![Text { text: text.to_owned(), special: false }]).swap_remove(0)?[..] {
            [token] => Ok(token),
            ref tokens => Err(TokenizerError::NotOne { text: text.to_owned(), tokens: tokens.to_vec() }),
        }
    }

    fn encode_all(&self, texts: Vec<Text>) -> Vec<Result<Vec<u32>, TokenizerError>> {
        if let Some(refusal) = &self.refusal {
            return texts.iter().map(|_| Err(TokenizerError::Class(refusal.clone()))).collect();
        }
        let limits: Vec<usize> = texts.iter().map(|text| SPECIAL + TOKENS_A_BYTE * text.text.len()).collect();
        let answers = match &self.place {
            Place::Here(engine) => Ok(texts.iter().map(|text| engine.encode(text)).collect()),
            // Where every rendering failed there is nothing to ask.
            Place::Apart(..) if texts.is_empty() => Ok(Vec::new()),
            Place::Apart(child, _) => child.encode(texts),
        };
        match answers {
            Ok(answers) => answers.into_iter().zip(limits).map(|(ids, limit)| within(ids, limit)).collect(),
            Err(error) => vec![Err(error); limits.len()],
        }
    }

    /// The text of `tokens`, special tokens kept, without clean-up. Tokens that the tokenizer does not know (a
    /// model's vocabulary may be larger) leave nothing.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`], [`TokenizerError::Child`], [`TokenizerError::Long`].
    pub fn decode(&self, tokens: &[u32]) -> Result<String, TokenizerError> {
        let text = match &self.place {
            Place::Here(engine) => engine.decode(tokens),
            Place::Apart(child, decoded) => {
                let mut decoded = decoded.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(text) = decoded.get(tokens) {
                    return Ok(text.clone());
                }
                let text = child.decode(vec![tokens.to_vec()])?.swap_remove(0);
                if decoded.len() == MOST_DECODED {
                    decoded.clear();
                }
                let short = text.iter().filter(|text| text.len() <= LONGEST_DECODED);
                decoded.extend(short.map(|text| (tokens.to_vec(), text.clone())));
                text
            }
        };
        let text = text.map_err(TokenizerError::Encode)?;
        let (bytes, limit) = (text.len(), BYTES_A_TOKEN * (tokens.len() + 4));
        if bytes > limit {
            return Err(TokenizerError::Long { tokens: tokens.len(), bytes, limit });
        }
        Ok(text)
    }

    /// The tokens that end an answer: those that the checkpoint's configuration names and the tokenizer's own, as
    /// in mlx-lm; those beyond the vocabulary never come up and are left out.
    pub fn eos(&self, configured: &[u32], vocab_size: usize) -> Vec<u32> {
        let all: BTreeSet<u32> = configured.iter().copied().chain(self.eos).collect();
        all.into_iter().filter(|&id| (id as usize) < vocab_size).collect()
    }
}

/// Ids, unless there are too many of them.
fn within(ids: Result<Vec<u32>, String>, limit: usize) -> Result<Vec<u32>, TokenizerError> {
    let ids = ids.map_err(TokenizerError::Encode)?;
    if ids.len() > limit {
        let bytes = (limit - SPECIAL) / TOKENS_A_BYTE;
        return Err(TokenizerError::Many { bytes, tokens: ids.len(), limit });
    }
    Ok(ids)
}

/// A file of JSON.
fn parsed<T: serde::de::DeserializeOwned>(
    file: &'static str,
    bytes: Option<Bytes>,
) -> Result<Option<T>, TokenizerError> {
    let parsed = bytes.map(|bytes| serde_json::from_slice(&bytes)).transpose();
    parsed.map_err(|error| TokenizerError::File { file, message: error.to_string() })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_tokens_than_a_text_may_become_are_told_with_its_bytes() {
        let limit = SPECIAL + TOKENS_A_BYTE * 5;
        assert_eq!(within(Ok(vec![7; limit]), limit).map(|ids| ids.len()).ok(), Some(limit));
        let error = within(Ok(vec![7; limit + 1]), limit).expect_err("they are too many");
        assert!(matches!(error, TokenizerError::Many { bytes: 5, tokens, .. } if tokens == limit + 1), "{error}");
    }

    #[test]
    fn what_ended_a_child_is_told_with_the_way_around_it() {
        let told = |file| {
            TokenizerError::Child { file, doing: "reading", error: ChildError::Protocol(String::new()) }.to_string()
        };
        assert!(told("tokenizer.json").contains("--prompt-ids") && !told("tokenizer.json").contains("--raw"));
        assert!(told("chat_template.jinja").contains("--raw") && !told("chat_template.jinja").contains("--prompt-ids"));
    }
}
