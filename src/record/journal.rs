//! The journal of a run: one record a line, appended as each trial is finished.
//!
//! A line that ends in its newline is a finished trial and is never touched again. A process that is killed leaves
//! at most one line without its end, the last one; a run that is resumed cuts it off (or ends it, if nothing but the
//! newline is missing) and computes that trial again. So a journal cut at any byte leads to the result that one run
//! would have given. Everything else that is wrong with a journal is an error that names the line, found before a
//! byte of it is changed.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use super::{Record, RunFacts, SCHEMA};

/// Why a journal cannot be read or continued. Nothing was changed then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The file cannot be opened, read or written.
    #[error("cannot {what} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another process writes to it.
    #[error("{} is being written by another run", .0.display())]
    Locked(PathBuf),
    /// A line that is no record.
    #[error("{}, line {line}: not a record: {what}", .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// A record of a version that this program does not know.
    #[error("{}, line {line}: a record of schema {found}; this program reads schema {SCHEMA}", .path.display())]
    Schema {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
        /// What stands there.
        found: u64,
    },
    /// A record of another run.
    #[error("{}, line {line}: the record of another run: its {what} is {found}, here it is {here}", .path.display())]
    OtherRun {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
        /// What differs.
        what: &'static str,
        /// As the journal has it.
        found: String,
        /// As this run has it.
        here: String,
    },
    /// A trial that is there twice, with different results.
    #[error("{}, line {line}: trial {trial} is there already, with another result", .path.display())]
    Contradiction {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
        /// The trial.
        trial: usize,
    },
    /// A trial of another part of the run.
    #[error("{}, line {line}: trial {trial} does not belong to shard {shard}", .path.display())]
    Shard {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
        /// The trial.
        trial: usize,
        /// The shard that is run.
        shard: Shard,
    },
}

/// A part of a run: of `count` parts the one that runs trials whose number leaves this remainder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: usize,
    count: usize,
}

impl Shard {
    /// Whether a trial belongs to it.
    pub const fn has(self, trial: usize) -> bool {
        trial % self.count == self.index % self.count
    }
}

impl std::fmt::Display for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl std::str::FromStr for Shard {
    type Err = String;

    /// `1/3` to `3/3`; `0/3` is `3/3`, so that counting from 0 gives disjoint parts, too.
    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        match parts {
            Some((index, count)) if count > 0 && index <= count => Ok(Self { index, count }),
            _ => Err(format!("{text:?} is no shard, which is written 1/3, 2/3, 3/3")),
        }
    }
}

/// What is in a journal.
#[derive(Debug, Default)]
pub struct Finished {
    /// Its records, in its order, each with its line.
    pub records: Vec<(usize, Record)>,
    /// Bytes up to the end of the last finished line.
    pub whole: u64,
    /// Whether the last record lacks its newline.
    pub unended: bool,
    /// Bytes of a line that was cut short at the end.
    pub cut: u64,
}

/// Reads a journal. A last line without its end that is no whole record is left out, and counted in `cut`.
///
/// # Errors
/// [`JournalError::Io`], [`JournalError::Line`], [`JournalError::Schema`].
pub fn read(path: &Path) -> Result<Finished, JournalError> {
    let io = |what| move |source| JournalError::Io { what, path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)).map_err(io("read"))?;
    parse(&bytes, path)
}

/// As [`read`], of bytes that `path` is named for.
///
/// # Errors
/// [`JournalError::Line`], [`JournalError::Schema`].
pub fn parse(bytes: &[u8], path: &Path) -> Result<Finished, JournalError> {
    let mut finished = Finished::default();
    for (i, line) in bytes.split_inclusive(|&byte| byte == b'\n').enumerate() {
        let ended = line.ends_with(b"\n");
        match record(line) {
            Ok(record) => {
                finished.records.extend(record.map(|record| (i + 1, record)));
                finished.whole += line.len() as u64;
                finished.unended = !ended;
            }
            Err(_) if !ended => finished.cut = line.len() as u64,
            Err(Bad::Schema(found)) => return Err(JournalError::Schema { path: path.to_owned(), line: i + 1, found }),
            Err(Bad::Other(what)) => return Err(JournalError::Line { path: path.to_owned(), line: i + 1, what }),
        }
    }
    Ok(finished)
}

enum Bad {
    Schema(u64),
    Other(String),
}

/// The record on a line; none on an empty one.
fn record(line: &[u8]) -> Result<Option<Record>, Bad> {
    if line.trim_ascii().is_empty() {
        return Ok(None);
    }
    /// The one key that every version has.
    #[derive(serde::Deserialize)]
    struct Version {
        schema: u64,
    }
    let other = |error: serde_json::Error| {
        // The line is this one; the parser's own count would mislead.
        let text = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        let what = text.strip_suffix(&place).unwrap_or(&text);
        Bad::Other(format!("{what} (column {})", error.column()))
    };
    match serde_json::from_slice(line) {
        Ok(record) => Ok(Some(record)).and_then(|found: Option<Record>| match &found {
            Some(record) if record.schema != SCHEMA => Err(Bad::Schema(record.schema.into())),
            _ => Ok(found),
        }),
        Err(error) => match serde_json::from_slice::<Version>(line) {
            Ok(version) if version.schema != u64::from(SCHEMA) => Err(Bad::Schema(version.schema)),
            _ => Err(other(error)),
        },
    }
}

/// What a journal must agree with to be continued.
#[derive(Clone, Debug)]
pub struct Expectation<'a> {
    /// The run.
    pub run: &'a RunFacts,
    /// BLAKE3 over the checkpoint's files.
    pub model_digest: &'a str,
    /// The threshold.
    pub threshold: f64,
    /// `cpu` or `mlx`.
    pub backend: &'a str,
    /// The kernel, where it decides the results.
    pub kernel: Option<&'a str>,
    /// The prompts' ids.
    pub prompts: &'a [&'a [u32]],
    /// The part of the run.
    pub shard: Option<Shard>,
}

impl Expectation<'_> {
    /// Checks one record.
    fn check(&self, path: &Path, line: usize, record: &Record) -> Result<(), JournalError> {
        let other = |what, found: String, here: String| {
            Err(JournalError::OtherRun { path: path.to_owned(), line, what, found, here })
        };
        // The commonest reasons by name; the digest of everything for the rest.
        let (run, here) = (&record.run, self.run);
        if record.model_digest != self.model_digest {
            return other("model's digest", short(&record.model_digest), short(self.model_digest));
        }
        if run.command != here.command {
            return other("command", run.command.clone(), here.command.clone());
        }
        if record.backend != self.backend {
            return other("backend", record.backend.clone(), self.backend.to_owned());
        }
        if let Some(kernel) = self.kernel.filter(|&kernel| kernel != record.kernel) {
            return other("kernel (--dtype and device)", record.kernel.clone(), kernel.to_owned());
        }
        if run.max_tokens != here.max_tokens {
            return other("--max-tokens", run.max_tokens.to_string(), here.max_tokens.to_string());
        }
        if run.seed != here.seed {
            return other("--seed", run.seed.to_string(), here.seed.to_string());
        }
        if run.tied != here.tied {
            return other("--tied", run.tied.clone(), here.tied.clone());
        }
        if run.predicate != here.predicate {
            let text = |predicate: &Option<String>| predicate.clone().unwrap_or_else(|| "none".to_owned());
            return other("predicate", text(&run.predicate), text(&here.predicate));
        }
        if !self.prompts.contains(&record.prompt_ids.as_slice()) {
            return other("prompt", format!("{:?}", record.prompt), format!("none of the {}", self.prompts.len()));
        }
        if record.threshold.to_bits() != self.threshold.to_bits() {
            return other("threshold", record.threshold.to_string(), self.threshold.to_string());
        }
        if run.trials != here.trials {
            let count = |trials: Option<usize>| trials.map_or("open".to_owned(), |trials| trials.to_string());
            return other("number of trials", count(run.trials), count(here.trials));
        }
        if run.id != here.id {
            return other("list of edits or of prompts (by digest)", run.id.clone(), here.id.clone());
        }
        let trial = record.trial;
        match self.shard {
            Some(shard) if !shard.has(trial) => Err(JournalError::Shard { path: path.to_owned(), line, trial, shard }),
            _ => Ok(()),
        }
    }
}

fn short(digest: &str) -> String {
    digest.get(..16).unwrap_or(digest).to_owned()
}

/// A journal that is being written.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
}

impl Journal {
    /// Opens `path` for appending and keeps other runs from it, without changing what is there.
    ///
    /// # Errors
    /// [`JournalError::Io`], [`JournalError::Locked`].
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let io = |source| JournalError::Io { what: "write", path: path.to_owned(), source };
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(io)?;
        match file.try_lock() {
            // Some file systems know no locks.
            Ok(()) | Err(TryLockError::Error(_)) => Ok(Self { file, path: path.to_owned() }),
            Err(TryLockError::WouldBlock) => Err(JournalError::Locked(path.to_owned())),
        }
    }

    /// Begins a new run. What the file held is kept under its name with `.old` at the end: a run may have taken
    /// hours. Gives that name, if there was something.
    ///
    /// # Errors
    /// [`JournalError::Io`], [`JournalError::Locked`].
    pub fn restart(&mut self) -> Result<Option<PathBuf>, JournalError> {
        let io = |source| JournalError::Io { what: "keep what is in", path: self.path.clone(), source };
        let metadata = self.file.metadata().map_err(io)?;
        // Only a file can hold an earlier run; a pipe or a device is written to as it is.
        if !metadata.is_file() || metadata.len() == 0 {
            return Ok(None);
        }
        let mut old = self.path.clone().into_os_string();
        old.push(".old");
        let old = PathBuf::from(old);
        fs::rename(&self.path, &old).map_err(io)?;
        let path = self.path.clone();
        *self = Self::open(&path)?;
        Ok(Some(old))
    }

    /// Continues the run whose records are there: each finished trial, once. A last line that was cut short is
    /// removed.
    ///
    /// # Errors
    /// [`JournalError`]; nothing is changed then.
    pub fn resume(&mut self, expected: &Expectation<'_>) -> Result<Vec<Record>, JournalError> {
        let io = |what| {
            let path = self.path.clone();
            move |source| JournalError::Io { what, path, source }
        };
        if !self.file.metadata().map_err(io("read"))?.is_file() {
            return Ok(Vec::new());
        }
        let finished = read(&self.path)?;
        for (line, record) in &finished.records {
            expected.check(&self.path, *line, record)?;
        }
        let records = unique(finished.records.into_iter().map(|(line, record)| (&*self.path, line, record)))?;
        if finished.cut > 0 {
            // Opened for appending, a file cannot be cut on every system.
            let file = OpenOptions::new().write(true).open(&self.path).map_err(io("write"))?;
            file.set_len(finished.whole).map_err(io("write"))?;
        }
        if finished.unended {
            self.file.write_all(b"\n").map_err(io("write"))?;
        }
        Ok(records)
    }

    /// Appends a line of JSON, newline included, in one piece.
    ///
    /// # Errors
    /// [`JournalError::Io`]. What was appended before stands; a part of this line may be there, which a run that is
    /// resumed removes.
    pub fn append(&mut self, line: &[u8]) -> Result<(), JournalError> {
        let io = |source| JournalError::Io { what: "write", path: self.path.clone(), source };
        self.file.write_all(line).map_err(io)
    }
}

/// Each trial once, ordered by number; records come with their file and line. A trial may be there again with the
/// same result, as after a copy of a journal was resumed; times and the machine apart.
///
/// # Errors
/// [`JournalError::Contradiction`].
pub fn unique<'a>(records: impl IntoIterator<Item = (&'a Path, usize, Record)>) -> Result<Vec<Record>, JournalError> {
    let mut of_trial: BTreeMap<usize, Record> = BTreeMap::new();
    for (path, line, record) in records {
        match of_trial.get(&record.trial) {
            Some(known) if !same_result(known, &record) => {
                return Err(JournalError::Contradiction { path: path.to_owned(), line, trial: record.trial });
            }
            Some(_) => {}
            None => drop(of_trial.insert(record.trial, record)),
        }
    }
    Ok(of_trial.into_values().collect())
}

/// Whether two records of a trial say the same, however long it took and whatever it ran on.
pub fn same_result(a: &Record, b: &Record) -> bool {
    let mut b = b.clone();
    b.ms = a.ms;
    b.kernel.clone_from(&a.kernel);
    b.model.clone_from(&a.model);
    b.run.machine.clone_from(&a.run.machine);
    b.run.version.clone_from(&a.run.version);
    *a == b
}
