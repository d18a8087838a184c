//! The sources of a report: journals, and objects as `--format json` prints them.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{
    certificate::{Certificates, JoinError, Refused, join},
    record::{Reader, Record, Restored, SCHEMA, Stored, journal::JournalError, output::Kind},
};

/// Certificates of a journal that are listed; more are for programs.
const MOST_CERTIFICATES: usize = 100;

/// What one file holds. The trials of a journal are not kept: they are read when they are asked for.
#[derive(Debug)]
pub struct Source {
    /// Its name, for people.
    pub name: String,
    /// The way back of a ladder that was stored as an object.
    pub restored: Option<Restored>,
    /// Certificates.
    pub(crate) certificates: Option<Certificates>,
    trials: Trials,
}

/// The trials of a source.
#[derive(Debug)]
enum Trials {
    /// Those of an object.
    Listed(Vec<Record>),
    /// Those of a journal.
    Journal(Stored),
}

/// A file that is no journal and no object of this program.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It begins as a journal does, and is none.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// It begins as a journal of certificates does, and is none.
    #[error(transparent)]
    Certificates(#[from] JoinError),
    /// It is the object of a command, and not as that command prints it.
    #[error("{}, line {line}: not a result of {command} that can be reported: {what}", .path.display())]
    Object {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The command that it names.
        command: String,
        /// What is wrong with it.
        what: String,
    },
}

/// What tells an object from a record.
#[derive(Deserialize)]
struct Named {
    command: String,
    schema: Option<u64>,
}

/// The object of `ladder`, `probe` and all other commands that list their records.
#[derive(Deserialize)]
struct Listed {
    records: Vec<Record>,
    restored: Option<Restored>,
}

impl Source {
    /// Opens a journal, of which no more is read than its first line, or reads one object.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        let stored = Stored::open(path).map_err(|source| SourceError::Io { path: path.to_owned(), source })?;
        Self::of(stored)
    }

    /// As [`Self::open`], of bytes that `path` is named for.
    ///
    /// # Errors
    /// [`SourceError`].
    #[cfg(feature = "testing")]
    pub(crate) fn parse(bytes: &[u8], path: &Path) -> Result<Self, SourceError> {
        Self::of(Stored::of_bytes(path, bytes.to_vec()))
    }

    fn of(mut stored: Stored) -> Result<Self, SourceError> {
        let path = stored.path().to_owned();
        let failed = |source| SourceError::Io { path: path.clone(), source };
        let kind = Kind::of(&stored.first_line().map_err(failed)?.unwrap_or_default());
        if kind == Kind::Certificates {
            return Self::certificates(stored);
        }
        if kind != Kind::Records {
            // Over one line or several, as other tools write it again.
            let whole = stored.whole().map_err(failed)?;
            if let Ok(object) = serde_json::from_slice::<Named>(&whole) {
                return Self::object(object, &whole, &path);
            }
        }
        let name = path.display().to_string();
        Ok(Self { name, restored: None, certificates: None, trials: Trials::Journal(stored) })
    }

    /// A journal of certificates, of which the first are kept.
    fn certificates(stored: Stored) -> Result<Self, SourceError> {
        let name = stored.path().display().to_string();
        let mut found: Option<Certificates> = None;
        let joined = join::<SourceError>(&mut [stored], |line| {
            let found = found.get_or_insert_with(|| Certificates {
                model: line.model.clone(),
                revision: line.revision.clone(),
                head_digest: line.head_digest.clone(),
                kernel: line.kernel.clone(),
                answers: Vec::new(),
                left_out: 0,
                suite: None,
                refused: Vec::new(),
                collapse: None,
            });
            match &line.answer {
                Some(answer) if found.answers.len() < MOST_CERTIFICATES => found.answers.push(answer.clone()),
                Some(_) => found.left_out += 1,
                None => found
                    .refused
                    .push(Refused { prompt: line.prompt.clone(), error: line.refused.clone().unwrap_or_default() }),
            }
            Ok(())
        })?;
        if let Some(found) = &mut found {
            found.suite = joined.suite;
        }
        Ok(Self { name, restored: None, certificates: found, trials: Trials::Listed(Vec::new()) })
    }

    fn object(object: Named, bytes: &[u8], path: &Path) -> Result<Self, SourceError> {
        let name = path.display().to_string();
        let bad =
            |line, what| SourceError::Object { path: path.to_owned(), line, command: object.command.clone(), what };
        let json = |error: serde_json::Error| bad(error.line(), error.to_string());
        if let Some(schema) = object.schema.filter(|&schema| schema != u64::from(SCHEMA)) {
            return Err(bad(1, format!("it has schema {schema}, and this program reads {SCHEMA}")));
        }
        match object.command.as_str() {
            "certify" => {
                let certificates = Some(serde_json::from_slice(bytes).map_err(json)?);
                Ok(Self { name, restored: None, certificates, trials: Trials::Listed(Vec::new()) })
            }
            "bisect" | "map" | "campaign" => {
                let what = "it holds what was found without the trials; give the journal that --out wrote".to_owned();
                Err(bad(1, what))
            }
            _ => {
                let Listed { records, restored } = serde_json::from_slice(bytes).map_err(json)?;
                Ok(Self { name, restored, certificates: None, trials: Trials::Listed(records) })
            }
        }
    }

    /// Hands over all trials, in the file's order, and says whether the file ends in the middle of a record, as a journal
    /// does whose writer was killed.
    ///
    /// # Errors
    /// [`SourceError::Journal`], after the trials before what is wrong.
    pub(crate) fn each(&mut self, mut take: impl FnMut(&Record)) -> Result<bool, SourceError> {
        match &mut self.trials {
            Trials::Listed(records) => {
                records.iter().for_each(take);
                Ok(false)
            }
            Trials::Journal(stored) => {
                let mut reader = Reader::<Record>::new(stored)?;
                for found in reader.by_ref() {
                    take(&found?.1);
                }
                Ok(reader.end().cut > 0)
            }
        }
    }
}
