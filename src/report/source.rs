//! The sources of a report: journals, and objects as `--format json` prints them.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{
    certificate::Certificates,
    record::{
        Record, Restored, SCHEMA,
        journal::{self, JournalError},
    },
};

/// What one file holds.
#[derive(Debug, Default)]
pub struct Source {
    /// Its name, for people.
    pub name: String,
    /// The trials, in the file's order.
    pub records: Vec<Record>,
    /// The way back of a ladder that was stored as an object.
    pub restored: Option<Restored>,
    /// Certificates.
    pub certificates: Option<Certificates>,
    /// Whether the file ends in the middle of a record, as a journal does whose writer was killed.
    pub cut: bool,
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
    /// Reads a journal, or one object.
    ///
    /// The last line of a journal is left out where it is cut short, and [`Source::cut`] says so.
    ///
    /// # Errors
    /// [`SourceError`], for everything else that is not as it should be.
    pub fn read(path: &Path) -> Result<Self, SourceError> {
        let bytes = journal::stored(path).map_err(|source| SourceError::Io { path: path.to_owned(), source })?;
        Self::parse(&bytes, path)
    }

    /// As [`Self::read`], of bytes that `path` is named for.
    ///
    /// # Errors
    /// [`SourceError::Journal`], [`SourceError::Object`].
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Self, SourceError> {
        // Over one line or several, as other tools write it again.
        if let Ok(object) = serde_json::from_slice::<Named>(bytes) {
            return Self::object(object, bytes, path);
        }
        let finished = journal::parse(bytes, path)?;
        let records = finished.records.into_iter().map(|(_, record)| record).collect();
        Ok(Self { name: path.display().to_string(), records, cut: finished.cut > 0, ..Self::default() })
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
                let certificates = serde_json::from_slice(bytes).map_err(json)?;
                Ok(Self { name, certificates: Some(certificates), ..Self::default() })
            }
            "bisect" | "map" | "campaign" => {
                let what = "it holds what was found without the trials; give the journal that --out wrote".to_owned();
                Err(bad(1, what))
            }
            _ => {
                let Listed { records, restored } = serde_json::from_slice(bytes).map_err(json)?;
                Ok(Self { name, records, restored, ..Self::default() })
            }
        }
    }
}
