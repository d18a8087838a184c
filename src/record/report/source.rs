//! What a report is made of: journals, and objects as `--format json` prints them.

use std::{
    io::{self, BufRead},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::record::{Record, Restored, SCHEMA};

/// What one file holds.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// Its name, for people.
    pub name: String,
    /// The trials, in the file's order.
    pub records: Vec<Record>,
    /// The way back of each ladder that was stored as an object, with the `id` of its run.
    pub restored: Vec<(String, Restored)>,
    /// Whether the file ends in the middle of a line, as a journal does whose writer was killed.
    pub cut: bool,
}

/// A file that is no journal and no object of this program.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is neither a record nor an object.
    #[error("{}, line {line}: {problem}", file.display())]
    Line {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
}

/// What tells a record from an object, and both from something else.
#[derive(Deserialize)]
struct Probe {
    schema: Option<u64>,
    command: Option<String>,
}

/// The object of `ladder`, `probe` and all other commands that list their records.
#[derive(Deserialize)]
struct Listed {
    records: Vec<Record>,
    restored: Option<Restored>,
}

impl Source {
    /// Reads a journal (a record a line), an object, or any mixture of lines of both.
    ///
    /// A last line that is cut short is left out, and [`Source::cut`] says so.
    ///
    /// # Errors
    /// [`SourceError`], for everything else that is not as it should be.
    pub fn read(file: &Path, mut from: impl BufRead) -> Result<Self, SourceError> {
        let failed = |source| SourceError::Io { file: file.to_owned(), source };
        let mut source = Self { name: file.display().to_string(), ..Self::default() };
        let (mut line, mut number) = (Vec::new(), 0);
        loop {
            line.clear();
            if from.read_until(b'\n', &mut line).map_err(failed)? == 0 {
                return Ok(source);
            }
            number += 1;
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let problem = match source.line(&line) {
                Ok(()) => continue,
                Err(problem) => problem,
            };
            if problem.incomplete && !line.ends_with(b"\n") {
                source.cut = true;
                return Ok(source);
            }
            if problem.incomplete && number == 1 {
                // One object over several lines, as other tools write it again.
                from.read_to_end(&mut line).map_err(failed)?;
                match source.line(&line) {
                    Ok(()) => return Ok(source),
                    Err(problem) => return Err(problem.at(file, problem.line)),
                }
            }
            return Err(problem.at(file, number));
        }
    }

    fn line(&mut self, line: &[u8]) -> Result<(), Problem> {
        let probe: Probe = serde_json::from_slice(line).map_err(|error| Problem::of(&error, "no JSON object"))?;
        if let Some(schema) = probe.schema.filter(|&schema| schema != u64::from(SCHEMA)) {
            return Err(Problem::new(format!("schema {schema}, and this program reads {SCHEMA}")));
        }
        match probe.command.as_deref() {
            None => {
                let record = serde_json::from_slice(line).map_err(|error| Problem::of(&error, "no record of a trial"))?;
                self.records.push(record);
            }
            Some(command) => {
                let what = format!("no result of `{command}` with its records");
                let listed: Listed = serde_json::from_slice(line).map_err(|error| Problem::of(&error, &what))?;
                if let (Some(restored), Some(first)) = (listed.restored, listed.records.first()) {
                    self.restored.push((first.run.id.clone(), restored));
                }
                self.records.extend(listed.records);
            }
        }
        Ok(())
    }
}

/// What is wrong with a line.
struct Problem {
    text: String,
    /// Whether more bytes could mend it.
    incomplete: bool,
    /// Line within what was parsed.
    line: usize,
}

impl Problem {
    const fn new(text: String) -> Self {
        Self { text, incomplete: false, line: 1 }
    }

    fn of(error: &serde_json::Error, what: &str) -> Self {
        let text = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        let cause = text.strip_suffix(&place).unwrap_or(&text);
        let text = format!("{what}: {cause} at column {}", error.column());
        Self { text, incomplete: error.is_eof(), line: error.line().max(1) }
    }

    fn at(&self, file: &Path, line: usize) -> SourceError {
        SourceError::Line { file: file.to_owned(), line, problem: self.text.clone() }
    }
}
