//! The child that runs `body.py`: requests to it and its answers.

use std::{collections::BTreeMap, ffi::OsStr, path::Path, process::Command, sync::Arc, time::Duration};

use serde::Deserialize;
use serde_json::{Value, json};

use super::error::{MlxLmError, OLDEST};
use crate::{
    child::{ChildError, Process},
    model::Precision,
};

/// The program of the child.
const PROGRAM: &str = include_str!("body.py");
/// The version of the protocol that it and this file speak.
const PROTOCOL: u64 = 1;
/// Longest answer: that to one request for hidden states has [`CHUNKS`] of them.
const LONGEST_FRAME: usize = 256 << 20;
/// Bytes of a frame's text: a few keys, and in memory many times as many where somebody means ill.
const LONGEST_TEXT: usize = 1 << 20;
/// Chunks of one request.
const CHUNKS: usize = 64;
/// Bytes of edited rows that the chunks of one request bring, but for a single chunk that has more.
const ROW_BYTES: usize = 64 << 20;
/// Bytes of prompt caches that the child keeps.
const CACHE_BYTES: u64 = 1 << 30;

/// What the child says of the model that it has opened.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Facts {
    /// Path of the head's module.
    pub(super) module: String,
    /// Whether it is also the embedding.
    pub(super) tied: bool,
    /// Its class.
    pub(super) kind: String,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) bits: Option<usize>,
    pub(super) group_size: Option<usize>,
    pub(super) mode: Option<String>,
    pub(super) quantized: bool,
    pub(super) global_scale: bool,
    pub(super) bias: bool,
    pub(super) layers: usize,
    /// Type of the hidden states.
    pub(super) dtype: String,
    /// `cpu` or `gpu`.
    pub(super) device: String,
    /// SHA-256 of the head as the child holds it, where it is also the embedding.
    pub(super) digest: Option<String>,
}

/// Tokens that go through the model in one call.
#[derive(Clone, Debug, Default)]
pub(super) struct Chunk {
    /// Its number, which no other chunk of the child has.
    pub(super) id: u64,
    /// The chunk before it.
    pub(super) parent: Option<u64>,
    pub(super) tokens: Vec<u32>,
    /// Rows of the embedding in place of its own, by token, as they are stored.
    pub(super) rows: BTreeMap<u32, Arc<[u8]>>,
}

/// A running child.
#[derive(Debug)]
pub(super) struct Server {
    process: Process,
    python: String,
    patience: Duration,
    /// Versions of mlx-lm and of mlx.
    pub(super) versions: (String, String),
}

impl Server {
    /// Starts `python` and sees whether it has an mlx-lm that serves. Nothing is loaded yet. The child is given up after
    /// `patience` without any sign of life; it gives one each second, whatever it computes.
    pub(super) fn start(python: &OsStr, patience: Duration) -> Result<Self, MlxLmError> {
        let mut command = Command::new(python);
        // Without buffers, what a library writes before the child dies is not lost.
        command.args(["-u", "-c", PROGRAM]);
        let python = python.to_string_lossy().into_owned();
        let process = Process::start(&mut command, LONGEST_FRAME)
            .map_err(|error| MlxLmError::NoPython { python: python.clone(), error: error.to_string() })?;
        let mut server = Self { process, python, patience, versions: Default::default() };
        let hello = server.hello()?;
        let text = |key: &str| hello[key].as_str().map(str::to_owned);
        let python = server.python.clone();
        let Some(mlx_lm) = text("mlx_lm") else { return Err(MlxLmError::NoMlxLm { python }) };
        if version(&mlx_lm) < version(OLDEST) {
            return Err(MlxLmError::TooOld { python, found: mlx_lm });
        }
        server.versions = (mlx_lm, text("mlx").unwrap_or_else(|| "unknown".to_owned()));
        Ok(server)
    }

    /// The first frame.
    fn hello(&mut self) -> Result<Value, MlxLmError> {
        let stranger = |python: &str, what: String| MlxLmError::Stranger { python: python.to_owned(), what };
        let hello = match self.answer("start") {
            Ok((hello, _)) => hello,
            Err(MlxLmError::Child { python, error: ChildError::Long { .. } | ChildError::Protocol(_), .. }) => {
                return Err(stranger(&python, "what it wrote to its standard output is no frame".to_owned()));
            }
            Err(MlxLmError::Child { python, error, .. }) => return Err(stranger(&python, error.to_string())),
            Err(error) => return Err(error),
        };
        match hello["protocol"].as_u64() {
            Some(PROTOCOL) => Ok(hello),
            Some(other) => {
                Err(stranger(&self.python, format!("it speaks version {other} of the protocol, not {PROTOCOL}")))
            }
            None => Err(stranger(&self.python, "it did not begin with its version".to_owned())),
        }
    }

    /// Loads the model of `folder` and finds its head.
    pub(super) fn open(
        &mut self,
        folder: &Path,
        precision: Precision,
        trust_remote_code: bool,
    ) -> Result<Facts, MlxLmError> {
        let dtype = match precision {
            Precision::Native => "native",
            Precision::Float32 => "float32",
        };
        let request = json!({
            "do": "open",
            "model": folder,
            "dtype": dtype,
            "trust_remote_code": trust_remote_code,
            "cache_bytes": CACHE_BYTES,
        });
        let opened = self.ask("load the model", &request, &[]).map_err(|error| match error {
            MlxLmError::Raised { version, error, .. } => MlxLmError::Load { version, error },
            other => other,
        })?;
        Facts::deserialize(&opened.0["opened"]).map_err(|error| self.broken("load the model", &error.to_string()))
    }

    /// What the model makes of `product` as the product of its head.
    pub(super) fn after(&mut self, product: &[f32]) -> Result<Vec<f32>, MlxLmError> {
        let doing = "say what follows the head";
        let (_, logits) = self.ask(doing, &json!({"do": "after"}), &bytes(product))?;
        self.floats(doing, &logits, product.len())
    }

    /// The last hidden state of a prompt, and the logits of mlx-lm there.
    pub(super) fn logits(
        &mut self,
        tokens: &[u32],
        cols: usize,
        rows: usize,
    ) -> Result<(Vec<f32>, Vec<f32>), MlxLmError> {
        let doing = "compute logits";
        let (_, both) = self.ask(doing, &json!({"do": "logits", "tokens": tokens}), &[])?;
        let mut hidden = self.floats(doing, &both, cols + rows)?;
        let logits = hidden.split_off(cols);
        Ok((hidden, logits))
    }

    /// What the model's blocks give for the last of `tokens`, one after the other; `None` where one gives something else than a state
    /// of `cols` columns for each token.
    pub(super) fn layers(&mut self, tokens: &[u32], cols: usize) -> Result<Option<Vec<f32>>, MlxLmError> {
        let doing = "compute what each layer gives";
        let (answer, states) = self.ask(doing, &json!({"do": "layers", "tokens": tokens}), &[])?;
        let Some(count) = answer["layers"].as_u64() else { return Ok(None) };
        self.floats(doing, &states, (count as usize).saturating_mul(cols)).map(Some)
    }

    /// Forgets chunks and computes new ones, each after those before it; their last hidden states, one after the other. Where
    /// rows of the embedding are replaced, it is seen to have the digest `undone` again afterwards.
    pub(super) fn extend(
        &mut self,
        release: &[u64],
        chunks: &[Chunk],
        cols: usize,
        undone: Option<&str>,
    ) -> Result<Vec<f32>, MlxLmError> {
        let doing = "compute hidden states";
        let (mut release, mut rest, mut hidden) = (release, chunks, Vec::new());
        while !rest.is_empty() {
            let (some, others) = rest.split_at(fitting(rest));
            rest = others;
            let listed: Vec<Value> = some
                .iter()
                .map(|chunk| {
                    let rows: Vec<u32> = chunk.rows.keys().copied().collect();
                    json!({"id": chunk.id, "parent": chunk.parent, "tokens": chunk.tokens, "rows": rows})
                })
                .collect();
            let request = json!({"do": "extend", "release": std::mem::take(&mut release), "chunks": listed});
            let rows: Vec<&[u8]> = some.iter().flat_map(|chunk| chunk.rows.values()).map(|row| &row[..]).collect();
            let (answer, states) = self.ask(doing, &request, &rows.concat())?;
            hidden.extend(self.floats(doing, &states, some.len() * cols)?);
            if !rows.is_empty() && answer["digest"].as_str() != undone {
                let text = |digest: Option<&str>| digest.unwrap_or("unknown").to_owned();
                return Err(MlxLmError::NotRestored { before: text(undone), after: text(answer["digest"].as_str()) });
            }
        }
        Ok(hidden)
    }

    fn ask(&mut self, doing: &'static str, request: &Value, payload: &[u8]) -> Result<(Value, Vec<u8>), MlxLmError> {
        let text = request.to_string();
        let mut frame = Vec::with_capacity(4 + text.len() + payload.len());
        frame.extend((text.len() as u32).to_le_bytes());
        frame.extend(text.as_bytes());
        frame.extend(payload);
        self.process.send(frame);
        let (answer, payload) = self.answer(doing)?;
        if let Some(error) = answer.get("error") {
            let text = |key: &str| error[key].as_str().unwrap_or("?").to_owned();
            let error = format!("{}: {}", text("kind"), text("message"));
            return Err(MlxLmError::Raised { version: self.versions.0.clone(), doing, error });
        }
        Ok((answer, payload))
    }

    /// The next frame that is more than a sign of life.
    fn answer(&mut self, doing: &'static str) -> Result<(Value, Vec<u8>), MlxLmError> {
        loop {
            let mut frame = self.process.receive(self.patience).map_err(|error| self.ended(doing, error))?;
            let of_text = frame.first_chunk().map(|&length| 4 + u32::from_le_bytes(length) as usize);
            let Some(end) = of_text.filter(|&end| end <= frame.len()) else {
                return Err(self.broken(doing, "a frame is shorter than it says"));
            };
            if end > LONGEST_TEXT {
                return Err(self.broken(doing, "the text of a frame is longer than any answer"));
            }
            let payload = frame.split_off(end);
            let answer: Value = serde_json::from_slice(&frame[4..])
                .map_err(|error| self.broken(doing, &format!("no JSON: {error}")))?;
            if answer.get("alive").is_none() {
                return Ok((answer, payload));
            }
        }
    }

    fn floats(&self, doing: &'static str, payload: &[u8], count: usize) -> Result<Vec<f32>, MlxLmError> {
        let (floats, rest) = payload.as_chunks::<4>();
        if floats.len() != count || !rest.is_empty() {
            return Err(self.broken(doing, &format!("{} bytes instead of {count} numbers", payload.len())));
        }
        Ok(floats.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
    }

    fn ended(&self, doing: &'static str, error: ChildError) -> MlxLmError {
        MlxLmError::Child { python: self.python.clone(), doing, error }
    }

    fn broken(&self, doing: &'static str, what: &str) -> MlxLmError {
        self.ended(doing, ChildError::Protocol(what.to_owned()))
    }
}

/// How many chunks go into one request, at least one.
fn fitting(chunks: &[Chunk]) -> usize {
    let mut bytes = 0;
    let fits = |chunk: &&Chunk| {
        bytes += chunk.rows.values().map(|row| row.len()).sum::<usize>();
        bytes <= ROW_BYTES
    };
    chunks.iter().take(CHUNKS).take_while(fits).count().max(1)
}

fn bytes(floats: &[f32]) -> Vec<u8> {
    floats.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// The numbers of a version, `0.32.2` as `[0, 32, 2]`; what follows a number, as in `2rc1`, does not count.
fn version(text: &str) -> Vec<u64> {
    let number = |part: &str| {
        let digits: String = part.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap_or(0)
    };
    text.split('.').map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_number_by_number() {
        for old in ["0.9", "0.32.1", "0.32", "0.4.10"] {
            assert!(version(old) < version(OLDEST), "{old}");
        }
        for new in [OLDEST, "0.32.10", "0.33.0rc1", "1.0"] {
            assert!(version(new) >= version(OLDEST), "{new}");
        }
    }
}
