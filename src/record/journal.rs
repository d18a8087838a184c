//! The journal of a run: one record a line, appended as each trial is finished.
//!
//! A line that ends in its newline is a finished trial and is never touched again. A process that is killed leaves
//! at most one line without its end, the last one; a run that is resumed cuts it off (or ends it, if nothing but the
//! newline is missing) and computes that trial again. So a journal cut at any byte leads to the result that one run
//! would have given. Everything else that is wrong with a journal is an error that names the line, found before a
//! byte of it is changed.
//!
//! Where the name of a journal ends in `.zst` it is compressed (`compressed.rs`): what is said here of a line is
//! true there of a frame, which holds the lines of a hand-over.
//!
//! A file is a journal only if its first bytes are those of a record, and its last line was cut short only if it is the
//! beginning of a record, of the run that is resumed: a file of anything else is refused and stays as it was.
//!
//! A process that is killed loses nothing that it has appended, since the system has it. A machine that dies may: so what was
//! appended is also written through to the disk, at most once a second (`Journal::settle`) and at the end of a run.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    Record, RunFacts, SCHEMA, Shard, beginning, compressed,
    output::{Held, Kind, OutputError, Reach, is_beginning_of_a_certificate, is_certificate, is_record},
    reader::{End, Line, Reader},
    stored::Stored,
};
use crate::numbers::NumberSet;

/// Why a journal cannot be read or continued. Nothing was changed then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file cannot be written, or another process writes to it.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// A file that does not begin as a journal does.
    #[error(
        "{} is not a journal: it begins with {begins}, and not with a record of headroom; it stays as it was: give the \
         journal of a run, or leave out --resume and give another name",
        .path.display()
    )]
    NotAJournal {
        /// The file.
        path: PathBuf,
        /// Its first characters, quoted.
        begins: String,
    },
    /// A compressed file that this program did not write, which cannot be continued in frames of its own.
    #[error(
        "{} was compressed by another program; it stays as it was: decompress it (zstd -d) and resume that, or give another \
         name",
        .0.display()
    )]
    Compressed(PathBuf),
    /// A last line without its end that is not the beginning of a record.
    #[error(
        "{}, line {line}: neither a record nor the beginning of one; the file stays as it was: remove that line if it is \
         not needed, or give another name",
        .path.display()
    )]
    End {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
    },
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
        /// The version that the line states.
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

/// Reads a journal. A last line that is the beginning of a record is left out, and counted in `cut`.
///
/// # Errors
/// [`JournalError::Io`], [`JournalError::Line`], [`JournalError::Schema`], [`JournalError::End`].
pub fn read(path: &Path) -> Result<Finished, JournalError> {
    let stored = Stored::open(path).map_err(|source| JournalError::Io { path: path.to_owned(), source })?;
    all(stored)
}

/// As [`read`], of bytes that `path` is named for.
///
/// # Errors
/// [`JournalError::Line`], [`JournalError::Schema`], [`JournalError::End`].
#[cfg(feature = "testing")]
pub(crate) fn parse(bytes: &[u8], path: &Path) -> Result<Finished, JournalError> {
    all(Stored::of_bytes(path, bytes.to_vec()))
}

fn all(stored: Stored) -> Result<Finished, JournalError> {
    let mut reader = Reader::once(stored)?;
    let records = reader.by_ref().collect::<Result<_, _>>()?;
    let &End { whole, unended, cut, .. } = reader.end();
    Ok(Finished { records, whole, unended, cut })
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
            return other("--tied", run.tied.to_string(), here.tied.to_string());
        }
        if run.predicate != here.predicate {
            let text = |predicate: &Option<String>| predicate.clone().unwrap_or_else(|| "none".to_owned());
            return other("predicate", text(&run.predicate), text(&here.predicate));
        }
        if run.date != here.date {
            return other("date (--date)", date(run.date.as_deref()), date(here.date.as_deref()));
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

    /// Checks what there is of a record that was cut short.
    fn check_beginning(&self, path: &Path, line: usize, bytes: &[u8]) -> Result<(), JournalError> {
        let known = beginning::known(bytes);
        let other = |what, found: String, here: String| {
            Err(JournalError::OtherRun { path: path.to_owned(), line, what, found, here })
        };
        if let Some(found) = beginning::text(bytes, "model_digest").filter(|&text| !self.model_digest.starts_with(text))
        {
            return other("model's digest", short(found), short(self.model_digest));
        }
        let ids: Vec<Value> = self.prompts.iter().map(|&ids| ids.into()).collect();
        let text = |key: &str| known.get(key).and_then(Value::as_str);
        if let Some(found) = text("backend").filter(|&found| found != self.backend) {
            return other("backend", found.to_owned(), self.backend.to_owned());
        }
        if let (Some(found), Some(here)) = (text("kernel"), self.kernel)
            && found != here
        {
            return other("kernel (--dtype and device)", found.to_owned(), here.to_owned());
        }
        if known.get("prompt_ids").is_some_and(|found| !ids.contains(found)) {
            return other(
                "prompt",
                format!("{:?}", text("prompt").unwrap_or_default()),
                format!("none of the {}", ids.len()),
            );
        }
        let threshold = known.get("threshold").and_then(Value::as_f64);
        if let Some(found) = threshold.filter(|found| found.to_bits() != self.threshold.to_bits()) {
            return other("threshold", found.to_string(), self.threshold.to_string());
        }
        if let Some(found) = known.get("run").and_then(|run| run["id"].as_str()).filter(|&id| id != self.run.id) {
            return other("list of edits or of prompts (by digest)", found.to_owned(), self.run.id.clone());
        }
        let trial = known.get("trial").and_then(Value::as_u64).map(|trial| trial as usize);
        match (trial, self.shard) {
            (Some(trial), Some(shard)) if !shard.has(trial) => {
                Err(JournalError::Shard { path: path.to_owned(), line, trial, shard })
            }
            _ => Ok(()),
        }
    }
}

/// A date for people.
pub(crate) fn date(date: Option<&str>) -> String {
    date.unwrap_or("none").to_owned()
}

/// The date that the records of a journal say they were made with, where they say one: that of its first record. Nothing
/// where there is no such journal.
pub(crate) fn recorded_date(path: &Path) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Line {
        run: Run,
    }
    #[derive(serde::Deserialize)]
    struct Run {
        date: Option<String>,
    }
    let first = Stored::open(path).ok()?.first_line().ok()??;
    serde_json::from_slice::<Line>(&first).ok()?.run.date
}

fn short(digest: &str) -> String {
    digest.get(..16).unwrap_or(digest).to_owned()
}

/// What a run that is resumed finds in its journal.
#[derive(Debug, Default)]
pub struct Resumed {
    /// Number of finished trials.
    pub trials: usize,
    /// Bytes of a record that was cut short, which were taken off the end.
    pub cut: u64,
    /// The finished trials, read anew; a trial may be there again, with the same result.
    pub records: Earlier,
}

/// The finished trials of an earlier part of a run.
#[derive(Debug, Default)]
pub struct Earlier(Option<Reader<'static>>);

impl Iterator for Earlier {
    type Item = Result<Record, JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.0.as_mut()?.next()?.map(|(_, record)| record))
    }
}

/// What the lines of a journal are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Records of trials.
    Records,
    /// Certificates.
    Certificates,
}

impl Holds {
    /// Whether a file begins so that holds such lines, or the beginning of one.
    fn begins(self, first: &[u8]) -> bool {
        let begins = match self {
            Self::Records => is_record(first) || beginning::is_of_a_record(first),
            Self::Certificates => is_certificate(first) || is_beginning_of_a_certificate(first),
        };
        begins || compressed::is_ours(first)
    }
}

/// A journal that is being written.
#[derive(Debug)]
pub struct Journal {
    place: Held,
    /// What its lines are.
    holds: Holds,
    /// Lines of a compressed journal that wait for the end of a hand-over; `None` where it is not compressed.
    pending: Option<Vec<u8>>,
    /// When something was appended first that may not have reached the disk.
    unsettled: Option<Instant>,
}

/// Time after which a record is to be on the disk, and not with the system alone.
const SETTLES: Duration = Duration::from_secs(1);

impl Journal {
    /// Opens `path` for appending and keeps other runs from it, without changing what is there. What is not there is
    /// created, and removed again unless a run begins.
    ///
    /// # Errors
    /// [`JournalError::Output`].
    pub fn open(path: &Path, holds: Holds) -> Result<Self, JournalError> {
        Ok(Self { place: Held::open(path)?, holds, pending: None, unsettled: None })
    }

    /// Whom its lock keeps from writing to the same journal.
    pub(crate) const fn reach(&self) -> Reach {
        self.place.reach()
    }

    /// Begins a new run, of this id. What headroom wrote there before is kept, since a run may have taken hours: under the first name
    /// that is free of the path with `.old`, `.old.1`, `.old.2`, ... at its end. Gives that name, if there was something.
    ///
    /// # Errors
    /// [`JournalError::Output`], also where the file holds what headroom did not write; nothing is changed then.
    pub fn restart(&mut self, run: &str) -> Result<Option<PathBuf>, JournalError> {
        self.check_restartable()?;
        let old = self.anew(true)?;
        self.entitle(run)?;
        Ok(old)
    }

    /// Begins a new run, of this id, in the place of what the file held, of which nothing is kept.
    ///
    /// # Errors
    /// [`JournalError::Output`]; nothing is changed then.
    pub(crate) fn replace(&mut self, run: &str) -> Result<(), JournalError> {
        self.anew(false)?;
        self.entitle(run)
    }

    /// Begins an empty journal of the run with this id: where its name asks for compression, it says whose it is.
    fn entitle(&mut self, run: &str) -> Result<(), JournalError> {
        self.pending = compressed::is_meant(self.place.named()).then(Vec::new);
        if self.pending.is_some() {
            self.place.append(&compressed::title(run))?;
        }
        Ok(())
    }

    fn anew(&mut self, keep: bool) -> Result<Option<PathBuf>, JournalError> {
        self.place.begin();
        // Only a file can hold an earlier run; a pipe or a device is written to as it is.
        if !self.place.is_regular() || self.place.first()?.is_empty() {
            self.place.sync_name();
            return Ok(None);
        }
        let new = self.place.successor()?;
        Ok(self.place.replace(new, keep)?)
    }

    /// Refuses what a new run may not take the place of: a file that holds something that headroom did not write. Its
    /// first bytes tell, so that this takes no time.
    ///
    /// # Errors
    /// [`JournalError::Output`].
    pub(crate) fn check_restartable(&mut self) -> Result<(), JournalError> {
        // What a pipe or a device would give is not what it was sent.
        if !self.place.is_regular() {
            return Ok(());
        }
        // A run that was killed within its first record left the beginning of one.
        let first = self.place.first()?;
        if self.place.kind()? == Kind::Foreign && !self.holds.begins(&first) {
            return Err(OutputError::Foreign(self.place.named().to_owned()).into());
        }
        Ok(())
    }

    /// Refuses what cannot be resumed, whatever the run is: a file that holds something else than a journal. Its first
    /// bytes tell, so that this takes no time.
    ///
    /// # Errors
    /// [`JournalError::NotAJournal`], [`JournalError::Output`].
    pub(crate) fn check_resumable(&mut self) -> Result<(), JournalError> {
        if !self.place.is_regular() {
            return Ok(());
        }
        let first = self.place.first()?;
        if first.is_empty() || self.holds.begins(&first) {
            return Ok(());
        }
        if compressed::is_compressed(&first) {
            return Err(JournalError::Compressed(self.place.named().to_owned()));
        }
        let text: String = String::from_utf8_lossy(&first).chars().take(24).collect();
        Err(JournalError::NotAJournal { path: self.place.named().to_owned(), begins: format!("{text:?}") })
    }

    /// Continues the run whose records are there. A last line that is the beginning of a record of this run is removed.
    ///
    /// # Errors
    /// [`JournalError`]; nothing is changed then.
    pub fn resume(&mut self, expected: &Expectation<'_>) -> Result<Resumed, JournalError> {
        if !self.place.is_regular() {
            self.entitle(&expected.run.id)?;
            return Ok(Resumed::default());
        }
        let (mut trials, mut again) = (NumberSet::default(), NumberSet::default());
        let path = self.place.named().to_owned();
        let (mut stored, end) = self.read(&expected.run.id, |line, record: Record| {
            expected.check(&path, line, &record)?;
            if !trials.insert(record.trial) {
                again.insert(record.trial);
            }
            Ok(())
        })?;
        if !end.beginning.is_empty() {
            expected.check_beginning(&path, end.lines, &end.beginning)?;
        }
        if let Some((line, trial)) = contradiction(&mut stored, &again)? {
            return Err(JournalError::Contradiction { path, line, trial });
        }
        self.go_on(&expected.run.id, &end)?;
        let records = Earlier(Some(Reader::once(stored)?));
        Ok(Resumed { trials: trials.len(), cut: end.cut, records })
    }

    /// Continues a run of other lines than records, whose id is `run`. `check` sees each line before anything is changed. Gives
    /// the lines, to be read anew, and how many bytes were taken off.
    ///
    /// # Errors
    /// [`JournalError`], and what `check` returns; nothing is changed then.
    pub(crate) fn resume_lines<T: Line>(
        &mut self,
        run: &str,
        check: impl FnMut(usize, T) -> Result<(), JournalError>,
    ) -> Result<(Option<Reader<'static, T>>, u64), JournalError> {
        if !self.place.is_regular() {
            self.entitle(run)?;
            return Ok((None, 0));
        }
        let (stored, end) = self.read(run, check)?;
        self.go_on(run, &end)?;
        Ok((Some(Reader::once(stored)?), end.cut))
    }

    /// Reads what is there, which is to be of this run.
    fn read<T: Line>(
        &mut self,
        run: &str,
        mut check: impl FnMut(usize, T) -> Result<(), JournalError>,
    ) -> Result<(Stored, End), JournalError> {
        self.check_resumable()?;
        let (path, first) = (self.place.named().to_owned(), self.place.first()?);
        let mut stored = self.place.stored()?;
        let mut reader = Reader::<T>::new(&mut stored)?;
        for found in reader.by_ref() {
            let (line, found) = found?;
            check(line, found)?;
        }
        let end = reader.end().clone();
        drop(reader);
        if compressed::is_compressed(&first) {
            if !end.beginning.is_empty() || end.unended {
                // Our frames hold whole lines.
                return Err(JournalError::End { path, line: end.lines });
            }
            if let Some(found) = compressed::run_of(&first).filter(|id| id != run) {
                let what = "list of edits or of prompts (by digest)";
                return Err(JournalError::OtherRun { path, line: 1, what, found, here: run.to_owned() });
            }
        }
        Ok((stored, end))
    }

    /// Takes off what was cut short, and goes on behind what is whole.
    fn go_on(&mut self, run: &str, end: &End) -> Result<(), JournalError> {
        self.place.begin();
        let is_compressed = compressed::is_compressed(&self.place.first()?);
        if end.cut > 0 {
            self.place.cut(end.whole)?;
        }
        if end.unended {
            self.place.append(b"\n")?;
        }
        if end.whole == 0 {
            return self.entitle(run);
        }
        self.pending = is_compressed.then(Vec::new);
        Ok(())
    }

    /// Appends a line of JSON, newline included, in one piece. In a compressed journal it waits for the hand-over's end.
    ///
    /// # Errors
    /// [`JournalError::Output`]. What was appended before stands; a part of this line may be there, which a run that is
    /// resumed removes.
    pub fn append(&mut self, line: &[u8]) -> Result<(), JournalError> {
        self.unsettled.get_or_insert_with(Instant::now);
        match &mut self.pending {
            None => Ok(self.place.append(line)?),
            Some(pending) => {
                pending.extend(line);
                if pending.len() < compressed::LONGEST_FRAME { Ok(()) } else { self.hand_over() }
            }
        }
    }

    /// Writes what waits for it: a compressed journal gets a frame, whole or cut short.
    ///
    /// # Errors
    /// [`JournalError::Output`]. A part of the frame may be there, which a run that is resumed removes.
    pub fn hand_over(&mut self) -> Result<(), JournalError> {
        if let Some(pending) = self.pending.as_mut().filter(|pending| !pending.is_empty()) {
            let frame = compressed::frame(pending);
            pending.clear();
            self.place.append(&frame)?;
        }
        Ok(())
    }

    /// Writes what was appended through to the disk where the oldest of it has waited for a second. It is to be called
    /// whenever the run has nothing to append for now.
    ///
    /// # Errors
    /// [`JournalError::Output`], where the disk did not take something that was appended.
    pub(crate) fn settle(&mut self) -> Result<(), JournalError> {
        if self.unsettled.is_some_and(|since| since.elapsed() >= SETTLES) { self.sync() } else { Ok(()) }
    }

    /// Writes everything that was appended through to the disk.
    ///
    /// # Errors
    /// As of [`Journal::hand_over`], and where the disk did not take something that was appended.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        self.hand_over()?;
        if self.unsettled.take().is_some() { Ok(self.place.sync()?) } else { Ok(()) }
    }
}

impl Drop for Journal {
    /// A run that ended early has no other end of a hand-over.
    fn drop(&mut self) {
        drop(self.hand_over());
    }
}

/// The first of the trials `again`, which are there several times, that is there with another result than before: its
/// line and its number.
pub(crate) fn contradiction(stored: &mut Stored, again: &NumberSet) -> Result<Option<(usize, usize)>, JournalError> {
    if again.is_empty() {
        return Ok(None);
    }
    let mut results = Results::default();
    for found in Reader::<Record>::new(stored)? {
        let (line, record) = found?;
        if again.contains(record.trial) && results.contradict(&record) {
            return Ok(Some((line, record.trial)));
        }
    }
    Ok(None)
}

/// Results of trials that are there several times, by digest.
#[derive(Debug, Default)]
pub(crate) struct Results(HashMap<usize, [u8; 16]>);

impl Results {
    /// Whether this is another result than the trial had before.
    pub(crate) fn contradict(&mut self, record: &Record) -> bool {
        let digest = result(record);
        *self.0.entry(record.trial).or_insert(digest) != digest
    }
}

/// A digest of what a record says of its trial, however long it took and whatever it ran on.
fn result(record: &Record) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    serde_json::to_writer(&mut hasher, &of_any_machine(record.clone())).expect("a record is JSON");
    let mut digest = [0; 16];
    digest.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    digest
}

fn of_any_machine(mut record: Record) -> Record {
    record.ms = 0.0;
    for text in [&mut record.kernel, &mut record.model, &mut record.run.machine, &mut record.run.version] {
        text.clear();
    }
    // An older version does not name it.
    record.run.generator = None;
    record
}

/// Whether two records of a trial say the same, however long it took and whatever it ran on.
pub(crate) fn same_result(a: &Record, b: &Record) -> bool {
    of_any_machine(a.clone()) == of_any_machine(b.clone())
}
