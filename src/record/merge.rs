//! Journals of the parts of one run, joined to what the whole run would have written.
//!
//! A record may be as long as it likes and a run may have as many as it likes, so neither is kept. The parts are read once to
//! check every record and to note which trials there are (a bit for each) and where trials come in ascending order: such a
//! stretch of a journal takes some fifty bytes, and a journal that a run has written is one stretch. Then the stretches are
//! read side by side, and the least trial comes next. Where records lie in no order at all, as in a journal that was sorted
//! otherwise, the place of each is noted instead.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::numbers::NumberSet;

use super::{
    Missing, Reader, Record, Stored,
    journal::{JournalError, date, same_result},
    missing::Spacing,
    stored::Lines,
};

/// Stretches that are read side by side; of more, the place of each record is noted instead.
const MOST_STRETCHES: usize = 4096;
/// Stretches whose files stay open while they are read. More are opened whenever they are read on.
const MOST_OPEN: usize = 256;
/// Bytes of lines that are read at once of a file that does not stay open.
const AT_ONCE: usize = 32 << 10;

/// The parts of a run, checked and ready to be read as one.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    parts: Vec<Part>,
    stretches: Vec<Stretch>,
    /// The first record of all, which the others have to agree with.
    first: Option<Box<Record>>,
    trials: NumberSet,
    /// Whether some trial is there twice.
    again: bool,
    spacing: Spacing,
}

/// A journal.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    /// What cannot be opened again is kept.
    kept: Option<Stored>,
}

/// Records of a journal that follow each other, with ascending numbers.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    /// Its journal's number.
    part: usize,
    /// Where its first line begins, and that line's number, from 1.
    at: u64,
    line: usize,
    records: usize,
}

impl Parts {
    /// Reads a journal to its end and checks it against those before it: all have to be of one run. Tells whether the journal
    /// ends in the middle of a record, which is left out.
    ///
    /// `step` is called for each record, and may end the reading.
    ///
    /// # Errors
    /// [`JournalError`], with [`JournalError::OtherRun`] for a record of another run than the first one; what `step` gives.
    pub(crate) fn add<E: From<JournalError>>(
        &mut self,
        mut stored: Stored,
        mut step: impl FnMut() -> Result<(), E>,
    ) -> Result<bool, E> {
        let (part, path) = (self.parts.len(), stored.path().to_owned());
        let mut reader: Reader<'_> = Reader::new(&mut stored)?;
        let mut before = None;
        while let Some(found) = reader.next() {
            step()?;
            let (line, record) = found?;
            let first = self.first.get_or_insert_with(|| Box::new(record.clone()));
            same_run(&path, line, &record, first)?;
            let trial = record.trial;
            self.again |= !self.trials.insert(trial);
            match (before, self.stretches.last_mut()) {
                (Some(before), Some(stretch)) if before < trial => stretch.records += 1,
                _ => self.stretches.push(Stretch { part, at: reader.at(), line, records: 1 }),
            }
            if let Some(before) = before {
                self.spacing.add(before, trial);
            }
            before = Some(trial);
        }
        let cut = reader.end().cut > 0;
        drop(reader);
        let kept = if stored.is_file() { None } else { Some(stored) };
        self.parts.push(Part { path, kept });
        Ok(cut)
    }

    /// Whether there is no trial at all.
    pub(crate) const fn is_empty(&self) -> bool {
        self.trials.is_empty()
    }

    /// The id of the run; `None` without a trial.
    pub(crate) fn run(&self) -> Option<&str> {
        self.first.as_ref().map(|first| &*first.run.id)
    }

    /// Trials that are there.
    #[cfg(feature = "testing")]
    pub(crate) const fn trials(&self) -> usize {
        self.trials.len()
    }

    /// What is missing of the run; `None` where the run did not know its number of trials. `shards` is the number of parts,
    /// where it is known, and else follows from the trials that each journal has.
    pub(crate) fn missing(&self, shards: Option<usize>) -> Option<Missing> {
        let trials = self.first.as_ref()?.run.trials?;
        Some(Missing::of(&self.trials, trials, shards.or_else(|| self.spacing.parts())))
    }

    /// Looks for a trial that is there twice, with different results. Reads everything once more if any is there twice.
    ///
    /// # Errors
    /// [`JournalError::Contradiction`], for two records of a trial that differ in more than time and machine; what `step` gives.
    pub(crate) fn check<E: From<JournalError>>(&self, mut step: impl FnMut() -> Result<(), E>) -> Result<(), E> {
        if !self.again {
            return Ok(());
        }
        let mut known: Option<Record> = None;
        for found in self.all()? {
            step()?;
            let Found { part, line, record } = found?;
            match &known {
                Some(known) if known.trial == record.trial => {
                    if !same_result(known, &record) {
                        let (path, trial) = (self.parts[part].path.clone(), record.trial);
                        return Err(JournalError::Contradiction { path, line, trial }.into());
                    }
                }
                _ => known = Some(record),
            }
        }
        Ok(())
    }

    /// The records of the run: each trial once, ordered by number. Of a trial that is there twice, the one that came first.
    ///
    /// # Errors
    /// [`JournalError`], also where a journal is not what it was when it was added.
    pub(crate) fn records(&self) -> Result<impl Iterator<Item = Result<Record, JournalError>>, JournalError> {
        let mut before = None;
        Ok(self.all()?.filter_map(move |found| match found {
            Err(error) => Some(Err(error)),
            Ok(Found { record, .. }) => (before.replace(record.trial) != Some(record.trial)).then_some(Ok(record)),
        }))
    }

    /// Every record, ordered by the trial's number, then by its journal and its place there.
    fn all(&self) -> Result<Box<dyn Iterator<Item = Result<Found, JournalError>> + '_>, JournalError> {
        if self.stretches.len() > MOST_STRETCHES {
            return Ok(Box::new(Indexed::new(self)?));
        }
        Ok(Box::new(SideBySide::new(self)?))
    }

    /// The lines of a stretch, from its first one on.
    fn lines(&self, part: usize, at: u64) -> Result<Lines<'_>, JournalError> {
        let Part { path, kept } = &self.parts[part];
        let lines = match kept {
            Some(stored) => stored.lines_from(at),
            None => Stored::open(path).and_then(|stored| stored.into_lines_from(at)),
        };
        lines.map_err(|source| JournalError::Io { path: path.clone(), source })
    }
}

/// Fails where a record is of another run than the first one.
fn same_run(path: &Path, line: usize, record: &Record, first: &Record) -> Result<(), JournalError> {
    let dates = [record, first].map(|record| date(record.run.date.as_deref()));
    let same = [
        ("model's digest", &record.model_digest, &first.model_digest),
        ("command", &record.run.command, &first.run.command),
        ("backend", &record.backend, &first.backend),
        ("version of headroom", &record.run.version, &first.run.version),
        ("date (--date)", &dates[0], &dates[1]),
        ("run (by digest)", &record.run.id, &first.run.id),
    ];
    match same.into_iter().find(|(_, found, here)| found != here) {
        None => Ok(()),
        Some((what, found, here)) => {
            let (path, found, here) = (path.to_owned(), found.clone(), here.clone());
            Err(JournalError::OtherRun { path, line, what, found, here })
        }
    }
}

/// A record, and where it was found.
struct Found {
    part: usize,
    line: usize,
    record: Record,
}

/// Stretches, of which the least trial comes next.
struct SideBySide<'a> {
    cursors: Vec<Cursor<'a>>,
    /// By cursor: its next record, and its line.
    heads: Vec<Option<(usize, Record)>>,
    /// The trials of the heads, with their cursors.
    next: BinaryHeap<Reverse<(usize, usize)>>,
    failed: Option<JournalError>,
}

impl<'a> SideBySide<'a> {
    fn new(parts: &'a Parts) -> Result<Self, JournalError> {
        let open = parts.stretches.len() <= MOST_OPEN;
        let cursor = |&stretch: &Stretch| Cursor::new(parts, stretch, open);
        let mut all = Self {
            cursors: parts.stretches.iter().map(cursor).collect(),
            heads: parts.stretches.iter().map(|_| None).collect(),
            next: BinaryHeap::new(),
            failed: None,
        };
        for cursor in 0..all.cursors.len() {
            all.advance(cursor)?;
        }
        Ok(all)
    }

    fn advance(&mut self, cursor: usize) -> Result<(), JournalError> {
        self.heads[cursor] = self.cursors[cursor].next()?;
        if let Some((_, record)) = &self.heads[cursor] {
            self.next.push(Reverse((record.trial, cursor)));
        }
        Ok(())
    }
}

impl Iterator for SideBySide<'_> {
    type Item = Result<Found, JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.failed.take() {
            self.next.clear();
            return Some(Err(error));
        }
        let Reverse((_, cursor)) = self.next.pop()?;
        let (line, record) = self.heads[cursor].take()?;
        // What was read stands; that the rest cannot be read is told after it.
        self.failed = self.advance(cursor).err();
        Some(Ok(Found { part: self.cursors[cursor].stretch.part, line, record }))
    }
}

/// A stretch that is being read.
struct Cursor<'a> {
    parts: &'a Parts,
    /// What is left of it.
    stretch: Stretch,
    /// Its lines, where they stay open.
    lines: Option<Lines<'a>>,
    /// Lines that were read and are to come.
    ready: VecDeque<Vec<u8>>,
    open: bool,
    before: Option<usize>,
}

impl<'a> Cursor<'a> {
    fn new(parts: &'a Parts, stretch: Stretch, open: bool) -> Self {
        Self { parts, stretch, lines: None, ready: VecDeque::new(), open, before: None }
    }

    fn next(&mut self) -> Result<Option<(usize, Record)>, JournalError> {
        while self.stretch.records > 0 {
            let Some(text) = self.line()? else { return Err(self.changed()) };
            let line = self.stretch.line;
            self.stretch.line += 1;
            if text.trim_ascii().is_empty() {
                continue;
            }
            let Ok(record) = serde_json::from_slice::<Record>(&text) else { return Err(self.changed()) };
            let of_the_run = self.parts.first.as_ref().is_some_and(|first| first.run.id == record.run.id);
            if !of_the_run || self.before.replace(record.trial).is_some_and(|before| before >= record.trial) {
                return Err(self.changed());
            }
            self.stretch.records -= 1;
            return Ok(Some((line, record)));
        }
        self.lines = None;
        Ok(None)
    }

    /// The next line.
    fn line(&mut self) -> Result<Option<Vec<u8>>, JournalError> {
        if let Some(line) = self.ready.pop_front() {
            return Ok(Some(line));
        }
        let Stretch { part, at, .. } = self.stretch;
        let mut lines = match self.lines.take() {
            Some(lines) => lines,
            None => self.parts.lines(part, at)?,
        };
        let failed = |source| JournalError::Io { path: self.parts.parts[part].path.clone(), source };
        let mut bytes = 0;
        while bytes == 0 || (!self.open && bytes < AT_ONCE) {
            let Some((_, line)) = lines.advance().map_err(failed)? else { break };
            bytes += line.len();
            self.ready.push_back(line.to_vec());
        }
        self.stretch.at += bytes as u64;
        if self.open {
            self.lines = Some(lines);
        }
        Ok(self.ready.pop_front())
    }

    fn changed(&self) -> JournalError {
        changed(&self.parts.parts[self.stretch.part])
    }
}

fn changed(part: &Part) -> JournalError {
    let source = io::Error::other("it was changed while it was read");
    JournalError::Io { path: part.path.clone(), source }
}

/// Records that lie in no order, each of which is looked up.
struct Indexed<'a> {
    parts: &'a Parts,
    places: std::vec::IntoIter<Place>,
}

/// What tells a record's place among the others.
#[derive(Deserialize)]
struct Numbered {
    trial: usize,
}

/// Where a record lies; ordered as records come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    trial: usize,
    part: usize,
    line: usize,
    at: u64,
}

impl<'a> Indexed<'a> {
    fn new(parts: &'a Parts) -> Result<Self, JournalError> {
        let mut places = Vec::new();
        for part in 0..parts.parts.len() {
            let records = parts.stretches.iter().filter(|stretch| stretch.part == part).map(|stretch| stretch.records);
            let mut left: usize = records.sum();
            let (mut lines, mut line) = (parts.lines(part, 0)?, 0);
            let failed = |source| JournalError::Io { path: parts.parts[part].path.clone(), source };
            while left > 0 {
                let Some((at, text)) = lines.advance().map_err(failed)? else {
                    return Err(changed(&parts.parts[part]));
                };
                line += 1;
                if text.trim_ascii().is_empty() {
                    continue;
                }
                let Ok(Numbered { trial }) = serde_json::from_slice(text) else {
                    return Err(changed(&parts.parts[part]));
                };
                places.push(Place { trial, part, line, at });
                left -= 1;
            }
        }
        places.sort_unstable();
        Ok(Self { parts, places: places.into_iter() })
    }
}

impl Iterator for Indexed<'_> {
    type Item = Result<Found, JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        let Place { part, line, at, .. } = self.places.next()?;
        let mut cursor = Cursor::new(self.parts, Stretch { part, at, line, records: 1 }, true);
        let found = cursor.next().and_then(|found| found.ok_or_else(|| changed(&self.parts.parts[part])));
        Some(found.map(|(line, record)| Found { part, line, record }))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::testing::records::record;

    fn line(trial: usize) -> String {
        let mut record = Record { trial, ..record() };
        record.run.trials = Some(100_000);
        serde_json::to_string(&record).expect("a record") + "\n"
    }

    fn go_on() -> Result<(), JournalError> {
        Ok(())
    }

    fn trials(parts: &Parts) -> Vec<usize> {
        parts.records().expect("parts").map(|found| found.expect("a record").trial).collect()
    }

    fn of_bytes(journals: &[String]) -> Parts {
        let mut parts = Parts::default();
        for journal in journals {
            let stored = Stored::of_bytes(Path::new("part"), journal.clone().into_bytes());
            assert!(!parts.add(stored, go_on).expect("a part"));
        }
        parts.check(go_on).expect("no contradiction");
        parts
    }

    #[test]
    fn records_in_no_order_are_joined_in_theirs() {
        // Every one of them is a stretch of its own.
        let count = MOST_STRETCHES + 100;
        let backwards: String = (0..count).rev().map(|trial| line(trial) + "\n").collect();
        let parts = of_bytes(&[backwards, line(7), line(count)]);
        assert!(parts.stretches.len() > MOST_STRETCHES);
        assert_eq!(trials(&parts), (0..=count).collect::<Vec<_>>());
    }

    #[test]
    fn more_parts_than_there_are_files_that_stay_open_are_joined() {
        let folder = tempfile::tempdir().expect("a folder");
        let (count, each) = (MOST_OPEN + 20, 60);
        let mut parts = Parts::default();
        for part in 0..count {
            let path = folder.path().join(part.to_string());
            let lines: String = (0..each).map(|i| line(part + i * count)).collect();
            assert!(lines.len() > AT_ONCE, "each is read in several goes");
            fs::write(&path, lines).expect("written");
            parts.add(Stored::open(&path).expect("a file"), go_on).expect("a part");
        }
        assert_eq!(trials(&parts), (0..count * each).collect::<Vec<_>>());
        let missing = parts.missing(None).expect("the run knows its trials");
        assert_eq!((missing.of, missing.trials), (Some(count), 100_000 - count * each));
    }

    #[test]
    fn a_journal_that_changes_meanwhile_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("part");
        let whole = [line(1), line(2), line(3)].concat();
        for changed in [[line(1), line(2)].concat(), [line(1), line(1), line(3)].concat(), String::new()] {
            fs::write(&path, &whole).expect("written");
            let mut parts = Parts::default();
            parts.add(Stored::open(&path).expect("a file"), go_on).expect("a part");
            fs::write(&path, changed).expect("written");
            let found: Result<Vec<Record>, JournalError> = parts.records().and_then(Iterator::collect);
            let error = found.expect_err("it was changed").to_string();
            assert!(error.contains("part") && error.contains("changed"), "{error}");
        }
    }

    #[test]
    fn another_version_of_the_program_is_another_run() {
        let mut parts = of_bytes(&[line(1)]);
        let other = line(2).replace(env!("CARGO_PKG_VERSION"), "0.0.0");
        let error =
            parts.add(Stored::of_bytes(Path::new("other"), other.into_bytes()), go_on).expect_err("another run");
        assert!(error.to_string().contains("version"), "{error}");
    }
}
