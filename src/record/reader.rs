//! A journal, read line by line.

use std::{fmt, io, marker::PhantomData, path::PathBuf};

use serde::de::DeserializeOwned;

use super::{
    Record, SCHEMA, beginning,
    journal::JournalError,
    stored::{Extent, Lines, Stored},
};

/// What a line of a journal holds.
pub(crate) trait Line: DeserializeOwned {
    /// The version of its keys.
    fn schema(&self) -> u32;

    /// Whether `bytes` are the beginning of such a line as this program writes it, and not all of it.
    fn is_beginning(bytes: &[u8]) -> bool;
}

impl Line for Record {
    fn schema(&self) -> u32 {
        self.schema
    }

    fn is_beginning(bytes: &[u8]) -> bool {
        beginning::is_of_a_record(bytes)
    }
}

/// What the lines of a journal hold, in its order, each with the number of its line.
///
/// A last line that is the beginning of another is left out; [`Reader::end`] tells of it once all were taken.
pub(crate) struct Reader<'a, T = Record> {
    path: PathBuf,
    lines: Lines<'a>,
    line: usize,
    at: u64,
    end: End,
    failed: bool,
    holds: PhantomData<T>,
}

/// How a journal ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct End {
    /// Bytes up to the end of the last finished line; of a compressed journal, those of its whole frames.
    pub whole: u64,
    /// Whether the last record lacks its newline.
    pub unended: bool,
    /// Bytes of a record, or of a frame, that was cut short.
    pub cut: u64,
    /// What there is of a record that was cut short.
    pub beginning: Vec<u8>,
    /// Lines.
    pub lines: usize,
}

impl<'a, T: Line> Reader<'a, T> {
    /// Reads from the beginning.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub(crate) fn new(stored: &'a mut Stored) -> Result<Self, JournalError> {
        let path = stored.path().to_owned();
        Self::of(stored.lines(), path)
    }

    fn of(lines: io::Result<Lines<'a>>, path: PathBuf) -> Result<Self, JournalError> {
        match lines {
            Ok(lines) => {
                let end = lines.extent().map_or_else(End::default, |Extent { whole, cut }| End {
                    whole,
                    cut,
                    ..End::default()
                });
                Ok(Self { path, lines, line: 0, at: 0, end, failed: false, holds: PhantomData })
            }
            Err(source) => Err(JournalError::Io { path, source }),
        }
    }

    /// How the journal ends, as far as it was read.
    pub(crate) const fn end(&self) -> &End {
        &self.end
    }

    /// Where the line begins that was taken last: a place for [`Stored::lines_from`].
    pub(super) const fn at(&self) -> u64 {
        self.at
    }

    fn advance(&mut self) -> Result<Option<(usize, T)>, JournalError> {
        let path = || self.path.clone();
        let failed = |source: io::Error| JournalError::Io { path: path(), source };
        let compressed = self.lines.extent().is_some();
        while let Some((at, line)) = self.lines.advance().map_err(failed)? {
            self.line += 1;
            self.end.lines = self.line;
            let (ended, number) = (line.ends_with(b"\n"), self.line);
            self.at = at;
            match parsed::<T>(line) {
                Ok(found) => {
                    if !compressed {
                        self.end.whole = at + line.len() as u64;
                    }
                    self.end.unended = !ended;
                    if let Some(found) = found {
                        return Ok(Some((number, found)));
                    }
                }
                Err(_) if !ended && T::is_beginning(line) => {
                    self.end.cut = self.end.cut.max(line.len() as u64);
                    self.end.beginning = line.to_vec();
                }
                Err(Bad::Other(_)) if !ended => return Err(JournalError::End { path: path(), line: number }),
                Err(Bad::Schema(found)) => return Err(JournalError::Schema { path: path(), line: number, found }),
                Err(Bad::Other(what)) => return Err(JournalError::Line { path: path(), line: number, what }),
            }
        }
        Ok(None)
    }
}

impl<T: Line> Reader<'static, T> {
    /// As [`Reader::new`], for whoever reads only once.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub(crate) fn once(stored: Stored) -> Result<Self, JournalError> {
        let path = stored.path().to_owned();
        Self::of(stored.into_lines(), path)
    }
}

impl<T> fmt::Debug for Reader<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("path", &self.path).field("line", &self.line).finish_non_exhaustive()
    }
}

impl<T: Line> Iterator for Reader<'_, T> {
    type Item = Result<(usize, T), JournalError>;

    /// # Errors
    /// [`JournalError::Io`], [`JournalError::Line`], [`JournalError::Schema`], [`JournalError::End`]; nothing comes after.
    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.advance();
        self.failed = next.is_err();
        next.transpose()
    }
}

enum Bad {
    Schema(u64),
    Other(String),
}

/// What a line holds; nothing where it is empty.
fn parsed<T: Line>(line: &[u8]) -> Result<Option<T>, Bad> {
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
    match serde_json::from_slice::<T>(line) {
        Ok(found) if found.schema() != SCHEMA => Err(Bad::Schema(found.schema().into())),
        Ok(found) => Ok(Some(found)),
        Err(error) => match serde_json::from_slice::<Version>(line) {
            Ok(version) if version.schema != u64::from(SCHEMA) => Err(Bad::Schema(version.schema)),
            _ => Err(other(error)),
        },
    }
}
