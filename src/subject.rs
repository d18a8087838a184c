//! The system under test: a checkpoint with its tokenizer, and what runs it.

use std::{path::Path, sync::Arc};

use crate::{
    checkpoint::{
        CHAT_TEMPLATES, Checkpoint, CheckpointError, Quantized, demo,
        digest::head_digest,
        hub::{HubError, ModelName, ModelNameError},
    },
    child::Program,
    kernels::Kernel,
    model::{AnyBody, Backend, Cpu, Projection},
    quant::MatrixRef,
    team::Team,
    tokenizer::{Apart, Encoded, Encoding, Tokenizer, TokenizerError, TokenizerFiles, check_ids},
    trial::{Task, Trials, Tying},
};

/// A model as it was named, ready to be run.
#[derive(Debug)]
pub struct Subject {
    name: String,
    revision: Option<String>,
    checkpoint: Arc<Checkpoint>,
    tokenizer: Option<Tokenizer>,
    eos: Vec<u32>,
    shared: bool,
    kernel: Kernel,
    team: Arc<Team>,
    backend: Arc<dyn Backend>,
}

/// Something to be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// The text as given; for a prompt given as ids, what they decode to.
    pub text: String,
    /// Its ids, chat template included.
    pub ids: Vec<u32>,
    /// Texts of which one must occur in a right answer; none if nothing is expected.
    pub expected: Vec<String>,
    /// The date that the chat template asked for, if it did: it decides the ids, as the text does.
    pub date: Option<String>,
}

impl Prompt {
    /// The same prompt, whose right answers hold one of `texts`, case folded.
    #[must_use]
    pub fn expecting(mut self, texts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.expected = texts.into_iter().map(Into::into).collect();
        self
    }
}

/// Why a model cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Its name is no name of a model.
    #[error(transparent)]
    Name(#[from] ModelNameError),
    /// It cannot be had from the hub.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// Its checkpoint is not as it should be.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Its tokenizer is broken.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

impl Subject {
    /// Opens a model by its name: `demo`, which ships inside; a folder; or `org/name[@revision]` of the Hugging Face hub,
    /// which is fetched unless the cache that all tools share holds it. It runs on this machine's best kernel, with a thread
    /// for each core. Its tokenizer and chat template are read **in this process**, so it should be one that is trusted;
    /// [`Subject::open_apart`] is for any.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(name: &str) -> Result<Self, OpenError> {
        Self::open_with(name, |_| Ok(None))
    }

    /// [`Subject::open`] of any model: `program`, as a child with limits, reads the tokenizer and the chat template, unless
    /// the model is the one that ships inside.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_apart(name: &str, program: &Program) -> Result<Self, OpenError> {
        Self::open_with(name, |folder| folder.map(|folder| Apart::start_in(program, folder)).transpose())
    }

    fn open_with(
        name: &str,
        start: impl FnOnce(Option<&Path>) -> Result<Option<Apart>, TokenizerError>,
    ) -> Result<Self, OpenError> {
        let located = ModelName::parse(name)?.locate(&mut ())?;
        let child = start(located.folder.as_deref())?;
        let checkpoint = open(located.folder.as_deref())?;
        let team = Arc::new(Team::of_this_machine());
        Ok(Self::put_together(name.to_owned(), located.revision, checkpoint, Kernel::best(), team, child)?)
    }

    /// Puts a checkpoint together with its tokenizer, which is read **in this process**. A checkpoint without
    /// `tokenizer.json` can still be asked with ids. Body and head are run by `kernel` on `team`, as everything else is,
    /// unless [`Subject::with_backend`] says otherwise.
    ///
    /// # Errors
    /// [`TokenizerError::File`], where a tokenizer's file is broken.
    pub fn new(
        name: String,
        revision: Option<String>,
        checkpoint: Arc<Checkpoint>,
        kernel: Kernel,
        team: Arc<Team>,
    ) -> Result<Self, TokenizerError> {
        Self::put_together(name, revision, checkpoint, kernel, team, None)
    }

    /// [`Subject::new`] of a checkpoint whose tokenizer and chat template need not be trusted: `child` reads them.
    ///
    /// # Errors
    /// [`TokenizerError::File`], [`TokenizerError::Child`].
    pub fn new_apart(
        name: String,
        revision: Option<String>,
        checkpoint: Arc<Checkpoint>,
        kernel: Kernel,
        team: Arc<Team>,
        child: Apart,
    ) -> Result<Self, TokenizerError> {
        Self::put_together(name, revision, checkpoint, kernel, team, Some(child))
    }

    fn put_together(
        name: String,
        revision: Option<String>,
        checkpoint: Arc<Checkpoint>,
        kernel: Kernel,
        team: Arc<Team>,
        child: Option<Apart>,
    ) -> Result<Self, TokenizerError> {
        let template = |name: &str| {
            let short = name.strip_prefix(CHAT_TEMPLATES)?.strip_suffix(".jinja")?;
            Some((short.to_owned(), checkpoint.file(name)?))
        };
        let files = TokenizerFiles {
            tokenizer: checkpoint.file("tokenizer.json"),
            model: checkpoint.file("config.json"),
            config: checkpoint.file("tokenizer_config.json"),
            special_tokens: checkpoint.file("special_tokens_map.json"),
            added_tokens: checkpoint.file("added_tokens.json"),
            template: checkpoint.file("chat_template.jinja"),
            templates: checkpoint.file_names().filter_map(template).collect(),
        };
        let tokenizer = match child {
            _ if files.tokenizer.is_none() => None,
            Some(child) => Some(Tokenizer::apart(child, files)?),
            None => Some(Tokenizer::from_files(files)?),
        };
        let facts = checkpoint.facts();
        let eos = match &tokenizer {
            Some(tokenizer) => tokenizer.eos(&facts.eos_token_ids, facts.vocab_size),
            None => facts.eos_token_ids.clone(),
        };
        let backend = Arc::new(Cpu::new(Arc::clone(&checkpoint), kernel, Arc::clone(&team)));
        Ok(Self { name, revision, checkpoint, tokenizer, eos, shared: false, kernel, team, backend })
    }

    /// Has body and head run by `backend`, which was made of the same checkpoint.
    #[must_use]
    pub fn with_backend(mut self, backend: Arc<dyn Backend>) -> Self {
        self.backend = backend;
        self
    }

    /// Makes edits of a tied matrix reach the embedding, too. Nothing changes where the head is a matrix of its
    /// own.
    #[must_use]
    pub fn with_shared_embedding(mut self, shared: bool) -> Self {
        self.shared = shared && self.checkpoint.facts().tied;
        self
    }

    /// What is not as it should be with its tokenizer and hinders nothing, for people.
    /// [`Checkpoint::notes`] has the same of its checkpoint.
    pub fn notes(&self) -> &[String] {
        self.tokenizer.as_ref().map_or(&[], Tokenizer::notes)
    }

    /// The model as it was named.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Commit of the hub that the name was resolved to.
    pub fn revision(&self) -> Option<&str> {
        self.revision.as_deref()
    }

    /// Its files, configuration and weights.
    pub fn checkpoint(&self) -> &Arc<Checkpoint> {
        &self.checkpoint
    }

    /// The matrix that edits change.
    pub fn head(&self) -> &Quantized {
        self.checkpoint.head()
    }

    /// Whether that matrix is the embedding, too, and edits reach both.
    pub(crate) const fn shared(&self) -> bool {
        self.shared
    }

    /// Tokens that end an answer.
    pub fn eos(&self) -> &[u32] {
        &self.eos
    }

    /// What computes body and head.
    pub fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    /// What computes everything else.
    pub const fn kernel(&self) -> Kernel {
        self.kernel
    }

    /// The threads that compute.
    pub const fn team(&self) -> &Arc<Team> {
        &self.team
    }

    /// A body that has seen nothing yet.
    pub fn body(&self) -> AnyBody {
        self.backend.body()
    }

    /// A projection through `head`, which is this subject's or an edited one of its shape.
    pub fn projection<'a>(&'a self, head: MatrixRef<'a>) -> Box<dyn Projection + 'a> {
        self.backend.projection(head)
    }

    /// What edits reach.
    pub fn tying(&self) -> Tying<'_> {
        if self.shared { Tying::Shared(self.head().view()) } else { Tying::Separate }
    }

    /// Trials on prompts given as ids, of answers of at most `max_tokens` tokens.
    ///
    /// # Panics
    /// As [`Trials::new`].
    pub(crate) fn trials<'a>(
        &'a self,
        prompts: impl Iterator<Item = &'a [u32]>,
        max_tokens: usize,
    ) -> Trials<'a, AnyBody> {
        let task = Task { prompts: prompts.collect(), eos: self.eos(), max_tokens, tying: self.tying() };
        Trials::new(self.body(), self.kernel, &self.team, task)
    }

    /// BLAKE3 over the head's weight, scales and biases as stored, in hexadecimal.
    pub fn head_digest(&self) -> String {
        head_digest(&self.head().view()).to_hex().to_string()
    }

    /// Encodes a prompt, by the model's chat template where it has one.
    ///
    /// # Errors
    /// [`TokenizerError`].
    pub fn prompt(&self, text: &str) -> Result<Prompt, TokenizerError> {
        self.prompt_as(text, &Encoding::default())
    }

    /// Encodes a prompt in the way asked for.
    ///
    /// # Errors
    /// [`TokenizerError`].
    pub fn prompt_as(&self, text: &str, encoding: &Encoding) -> Result<Prompt, TokenizerError> {
        self.prompts_as(&[text], encoding).swap_remove(0)
    }

    /// [`Subject::prompt_as`] of each of `texts`, in their order; many at once are cheaper.
    pub(crate) fn prompts_as(&self, texts: &[&str], encoding: &Encoding) -> Vec<Result<Prompt, TokenizerError>> {
        let ids = match &self.tokenizer {
            None => return texts.iter().map(|_| Err(TokenizerError::Missing("tokenizer.json"))).collect(),
            Some(tokenizer) if encoding.raw => {
                let without_date = |ids| Encoded { ids, date: None };
                tokenizer.encode_raws(texts).into_iter().map(|ids| ids.map(without_date)).collect()
            }
            Some(tokenizer) => tokenizer.encode_chats(encoding, texts),
        };
        let vocab_size = self.checkpoint.facts().vocab_size;
        let prompt = |(text, encoded): (&&str, Result<Encoded, TokenizerError>)| {
            let Encoded { ids, date } = encoded?;
            check_ids(&ids, vocab_size)?;
            Ok(Prompt { text: (*text).to_owned(), ids, expected: Vec::new(), date })
        };
        texts.iter().zip(ids).map(prompt).collect()
    }

    /// A prompt given as ids.
    ///
    /// # Errors
    /// [`TokenizerError::Empty`], [`TokenizerError::Id`].
    pub fn prompt_of_ids(&self, ids: Vec<u32>) -> Result<Prompt, TokenizerError> {
        check_ids(&ids, self.checkpoint.facts().vocab_size)?;
        Ok(Prompt { text: self.decode(&ids)?, ids, expected: Vec::new(), date: None })
    }

    /// The token that a text is by itself.
    ///
    /// # Errors
    /// [`TokenizerError`].
    pub fn token(&self, text: &str) -> Result<u32, TokenizerError> {
        self.tokenizer.as_ref().ok_or(TokenizerError::Missing("tokenizer.json"))?.token(text)
    }

    /// The text of tokens, special tokens kept, without clean-up; empty where there is no tokenizer.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`].
    pub fn decode(&self, tokens: &[u32]) -> Result<String, TokenizerError> {
        self.tokenizer.as_ref().map_or(Ok(String::new()), |tokenizer| tokenizer.decode(tokens))
    }
}

/// Opens a folder, or the model inside the program where there is none.
///
/// # Errors
/// [`CheckpointError`].
pub fn open(folder: Option<&Path>) -> Result<Arc<Checkpoint>, CheckpointError> {
    let checkpoint = match folder {
        Some(folder) => Checkpoint::open(folder)?,
        None => Checkpoint::from_files(demo::files())?,
    };
    Ok(Arc::new(checkpoint))
}
