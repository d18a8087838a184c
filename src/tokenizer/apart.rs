//! Reading, encoding, decoding and rendering in a child, for files of strangers.
//!
//! The library that reads `tokenizer.json` panics, overflows the stack, never ends or takes all memory on some inputs, and a
//! chat template is a program. In a child with limits any of that is an error ([`ChildError`]) that names the
//! file. The limits are far above what honest models take: a tokenizer takes some ten bytes of memory for each of its file,
//! of which the largest in use have 33 million, and a second.

use std::{
    env, fmt,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    TokenizerError,
    engine::{Engine, Loaded, Text},
    file::Parsed,
    special_tokens::Declared,
    template::{self, Chat, Rendered, TemplateError, TemplateSource},
};
use crate::{
    checkpoint::{Bytes, LONGEST_TOKENIZER},
    child::{self, ChildError, Process, Program},
};

/// The argument by which a program knows that it is such a child.
const SERVICE: &str = "serve-tokenizer";

/// Memory that a child may take whatever it reads.
const MEMORY: usize = 160 << 20;
/// Bytes of memory for each byte of `tokenizer.json`.
const MEMORY_A_BYTE: usize = 16;
/// Processor time for one request, apart from what its length adds.
const SECONDS: u64 = 3;
/// Bytes of a request that take a second more.
const BYTES_A_SECOND: u64 = 4 << 20;
/// Waiting, as a multiple of the processor time: a machine can be busy.
const PATIENCE: u32 = 20;
/// Longest answer: texts and ids of a request that is itself bounded by what a user gives.
const LONGEST_ANSWER: usize = 64 << 20;

/// One request. All but the bytes of `tokenizer.json`, where they are sent, is JSON.
#[derive(Debug, Serialize, Deserialize)]
struct Request {
    memory: usize,
    seconds: u64,
    ask: Ask,
}

#[derive(Debug, Serialize, Deserialize)]
enum Ask {
    /// Reads `tokenizer.json` of this path and length, while others do other things. It is not answered.
    Read {
        path: PathBuf,
        len: u64,
    },
    /// Loads what was read, where it has this BLAKE3, and says otherwise that it does not. Without one, the file follows in a
    /// frame of its own.
    Load {
        declared: Declared,
        digest: Option<String>,
    },
    Encode(Vec<Text>),
    Decode(Vec<Vec<u32>>),
    Render(TemplateSource, Vec<Chat>),
}

type Answers<T, E> = Vec<Result<T, E>>;
/// None where the file is to be sent.
type Loading = Option<Result<Loaded, String>>;

/// Makes this process the child that reads tokenizers, where its arguments say that it is one, and never returns then.
/// It is the first thing in the `main` of a program that is given as a [`Program`].
pub fn serve_if_asked() {
    if env::args_os().nth(1).is_none_or(|first| first != SERVICE) {
        return;
    }
    let mut served = Served::default();
    child::serve(move |frame| served.answer(frame))
}

/// What a child knows.
#[derive(Default)]
struct Served {
    engine: Option<Engine>,
    /// What was read ahead, with its BLAKE3.
    ahead: Option<(String, Parsed)>,
    /// What is declared beside a file that comes in the next frame.
    awaiting: Option<Declared>,
}

impl Served {
    fn answer(&mut self, frame: Vec<u8>) -> Option<Vec<u8>> {
        if let Some(declared) = self.awaiting.take() {
            let loaded = Engine::load(frame, &declared);
            return json(&self.loaded(loaded));
        }
        let Request { memory, seconds, ask } = serde_json::from_slice(&frame).ok()?;
        child::allow(memory, Duration::from_secs(seconds));
        let engine = || self.engine.as_ref().ok_or_else(|| "no tokenizer was read".to_owned());
        match ask {
            Ask::Read { path, len } => {
                self.ahead = read_ahead(&path, len);
                None
            }
            Ask::Load { declared, digest: None } => {
                self.awaiting = Some(declared);
                None
            }
            Ask::Load { declared, digest: Some(digest) } => match self.ahead.take() {
                Some((found, parsed)) if found == digest => {
                    let loaded = Engine::of(parsed, &declared);
                    json(&self.loaded(loaded))
                }
                _ => json(&Loading::None),
            },
            Ask::Encode(texts) => json(&texts.iter().map(|text| engine()?.encode(text)).collect::<Answers<_, _>>()),
            Ask::Decode(all) => json(&all.iter().map(|ids| engine()?.decode(ids)).collect::<Answers<_, _>>()),
            Ask::Render(source, chats) => json(&template::render(&source, &chats)),
        }
    }

    fn loaded(&mut self, loaded: Result<(Engine, Loaded), String>) -> Loading {
        Some(loaded.map(|(engine, loaded)| {
            self.engine = Some(engine);
            loaded
        }))
    }
}

/// A file of `len` bytes with its BLAKE3. None where anything is not as expected: then the file is sent.
fn read_ahead(path: &Path, len: u64) -> Option<(String, Parsed)> {
    let mut bytes = Vec::with_capacity(usize::try_from(len).ok()?);
    File::open(path).ok()?.take(len).read_to_end(&mut bytes).ok()?;
    let digest = blake3::hash(&bytes).to_hex().to_string();
    Some((digest, Parsed::new(String::from_utf8(bytes).ok()?)))
}

/// An answer as JSON.
///
/// # Panics
/// If a text in it is no text: a library may put strings together from bytes without looking at them.
fn json(value: &impl Serialize) -> Option<Vec<u8>> {
    let bytes = serde_json::to_vec(value).ok()?;
    assert!(std::str::from_utf8(&bytes).is_ok(), "a text that came of it is not UTF-8");
    Some(bytes)
}

/// A child that reads one model's tokenizer and runs its chat template. It ends when this is dropped, or when this process
/// ends, however that ends. Clones are of one child, which knows the tokenizer that it read last.
#[derive(Clone)]
pub struct Apart {
    process: Arc<Mutex<Process>>,
    /// What the child may take.
    memory: usize,
    /// Whether it reads a file ahead.
    ahead: bool,
}

impl fmt::Debug for Apart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Apart")
    }
}

impl Apart {
    /// Starts `program` as a child.
    ///
    /// # Errors
    /// [`TokenizerError::Child`], where it does not start.
    pub fn start(program: &Program) -> Result<Self, TokenizerError> {
        let process = Process::start(&mut program.command(SERVICE), LONGEST_ANSWER);
        let process = process.map_err(|error| TokenizerError::Child { file: TOKENIZER, doing: "reading", error })?;
        Ok(Self { process: Arc::new(Mutex::new(process)), memory: MEMORY, ahead: false })
    }

    /// Starts `program` as a child that begins to read `tokenizer.json` of a checkpoint's folder, so that it reads while the
    /// checkpoint is opened. What counts is what the checkpoint was opened with: if that is something else, it is sent.
    ///
    /// # Errors
    /// [`TokenizerError::Child`], where it does not start.
    pub fn start_in(program: &Program, folder: &Path) -> Result<Self, TokenizerError> {
        let mut child = Self::start(program)?;
        let path = folder.join(TOKENIZER);
        let file = fs::metadata(&path).ok().filter(|file| file.is_file() && file.len() <= LONGEST_TOKENIZER as u64);
        if let Some(len) = file.map(|file| file.len()) {
            child.memory = memory(len as usize);
            // A path that is no text cannot be told. The file is sent, then.
            let told = child.tell(Ask::Read { path, len }, len as usize).is_ok();
            child.ahead = told;
        }
        Ok(child)
    }

    /// Has `tokenizer.json` read, and the declared tokens added.
    pub(super) fn load(&mut self, file: Bytes, declared: &Declared) -> Result<Loaded, TokenizerError> {
        self.memory = memory(file.len());
        let (len, of) = (file.len(), of(TOKENIZER, "reading"));
        let load = |digest| Ask::Load { declared: declared.clone(), digest };
        let mut loaded = None;
        if std::mem::take(&mut self.ahead) {
            let digest = blake3::hash(&file).to_hex().to_string();
            loaded = self.ask::<Loading>(load(Some(digest)), len, None).map_err(&of)?;
        }
        if loaded.is_none() {
            loaded = self.ask::<Loading>(load(None), len, Some(file)).map_err(&of)?;
        }
        let loaded = loaded.unwrap_or_else(|| Err("it was sent, and is asked for once more".to_owned()));
        loaded.map_err(|message| TokenizerError::File { file: TOKENIZER, message })
    }

    pub(super) fn encode(&self, texts: Vec<Text>) -> Result<Answers<Vec<u32>, String>, TokenizerError> {
        let (len, count) = (texts.iter().map(|text| text.text.len()).sum(), texts.len());
        let answers = self.ask(Ask::Encode(texts), len, None).and_then(|answers| all(answers, count));
        answers.map_err(of(TOKENIZER, "encoding a text with"))
    }

    pub(super) fn decode(&self, tokens: Vec<Vec<u32>>) -> Result<Answers<String, String>, TokenizerError> {
        let (len, count) = (tokens.iter().map(Vec::len).sum(), tokens.len());
        let answers = self.ask(Ask::Decode(tokens), len, None).and_then(|answers| all(answers, count));
        answers.map_err(of(TOKENIZER, "decoding tokens with"))
    }

    pub(super) fn render(
        &self,
        source: &TemplateSource,
        chats: Vec<Chat>,
    ) -> Result<Answers<Rendered, TemplateError>, TokenizerError> {
        let (len, count) = (chats.iter().map(Chat::len).sum(), chats.len());
        let answers = self.ask(Ask::Render(source.clone(), chats), len, None).and_then(|answers| all(answers, count));
        answers.map_err(of(source.file, "rendering"))
    }

    /// Sends a request whose subject has `len` bytes, and the file after it if there is one, and waits for the answer.
    fn ask<T: for<'a> Deserialize<'a>>(&self, ask: Ask, len: usize, file: Option<Bytes>) -> Result<T, ChildError> {
        let (mut process, limit) = self.tell(ask, len)?;
        if let Some(file) = file {
            process.send(file);
        }
        let answer = process.receive(limit * PATIENCE)?;
        serde_json::from_slice(&answer).map_err(|error| ChildError::Protocol(error.to_string()))
    }

    /// Sends a request whose subject has `len` bytes; gives the process, and the processor time that it may take.
    fn tell(&self, ask: Ask, len: usize) -> Result<(MutexGuard<'_, Process>, Duration), ChildError> {
        let seconds = SECONDS + len as u64 / BYTES_A_SECOND;
        let request = json(&Request { memory: self.memory, seconds, ask });
        let request = request.ok_or_else(|| ChildError::Protocol("a request cannot be written".to_owned()))?;
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = Duration::from_secs(seconds);
        process.is_allowed(self.memory, limit);
        process.send(request);
        Ok((process, limit))
    }
}

/// What a child may take for a file of `len` bytes.
fn memory(len: usize) -> usize {
    MEMORY + MEMORY_A_BYTE * len
}

const TOKENIZER: &str = "tokenizer.json";

fn of(file: &'static str, doing: &'static str) -> impl Fn(ChildError) -> TokenizerError {
    move |error| TokenizerError::Child { file, doing, error }
}

/// Checks that each of `count` questions has an answer.
fn all<T, E>(answers: Answers<T, E>, count: usize) -> Result<Answers<T, E>, ChildError> {
    if answers.len() == count {
        return Ok(answers);
    }
    Err(ChildError::Protocol(format!("{} answers to {count} questions", answers.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_child_may_take_grows_with_its_file() {
        assert_eq!(memory(0), MEMORY);
        assert_eq!(memory(1 << 20), MEMORY + (MEMORY_A_BYTE << 20));
    }
}
