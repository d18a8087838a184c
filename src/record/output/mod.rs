//! The one way in which results come into files.
//!
//! A journal grows by a line at a time ([`journal`](super::journal)); everything else is one whole result, written
//! beside its place and moved there when it is on the disk ([`Output`]). For both the place is locked first, and holds
//! what it held until the new file takes its place in one step. What a file holds is told by its first bytes
//! ([`Kind`]): a result takes the place of one of its own kind; other things that headroom wrote get a name of their
//! own first; what headroom did not write is left alone. What a command reads is never its output ([`Inputs`]).
//!
//! Where a link leads, there the result is written, also where nothing is there yet. A pipe, a terminal or a device is
//! written as it is, by as many processes as want to; so is the file that the shell has made the standard output.

mod held;
mod inputs;
mod kind;
mod locks;

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::Serialize;

pub(in crate::record) use held::Held;
pub(crate) use inputs::Inputs;
pub(crate) use kind::Kind;
pub(crate) use kind::is_beginning_of_a_certificate;
pub(in crate::record) use kind::{is_certificate, is_record};
pub(crate) use locks::Reach;

use super::compressed;

/// Why a result has no place. Nothing was changed then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutputError {
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
    #[error("{} is being written by another run; wait for its end, or give another name", .0.display())]
    Locked(PathBuf),
    /// It is one of the files that the command reads.
    #[error("{} is {what}, which nothing is written over; give another name", .path.display())]
    Input {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// It holds something that headroom did not write.
    #[error("{} holds something that headroom did not write; give another name, or --force to replace it", .0.display())]
    Foreign(PathBuf),
    /// Another program has put another file there, or changed it.
    #[error("cannot write {}: another program has put another file there; give another name", .0.display())]
    Changed(PathBuf),
    /// Nobody may write to it, not even its owner.
    #[error("cannot write {}: the file is read-only; give another name", .0.display())]
    ReadOnly(PathBuf),
    /// What is no place for a result.
    #[error("cannot write {}: it is {what}; give the name of a file", .path.display())]
    NoPlace {
        /// The path.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// A name of several lines, as a script makes by accident.
    #[error("cannot write {0:?}: the name holds a control character; give another name")]
    Control(PathBuf),
    /// An empty name.
    #[error("the name of the file to write is empty; give the name of a file")]
    NoName,
}

/// The place of one whole result.
#[derive(Debug)]
pub(crate) struct Output {
    place: Held,
    kind: Kind,
    force: bool,
}

impl Output {
    /// Takes `path` for a result of this kind and keeps other runs from it, without changing what is there. What is
    /// not there is created, empty, and removed again unless something is written.
    ///
    /// With `force` the result takes the place of whatever is there, and nothing of that is kept.
    ///
    /// # Errors
    /// [`OutputError`].
    pub(crate) fn claim(path: &Path, kind: Kind, force: bool) -> Result<Self, OutputError> {
        let mut output = Self { place: Held::open(path)?, kind, force };
        output.check()?;
        Ok(output)
    }

    /// Whether something is there, which a result would replace.
    ///
    /// # Errors
    /// [`OutputError::Io`].
    pub(crate) fn replaces(&mut self) -> Result<bool, OutputError> {
        Ok(self.place.kind()? != Kind::Empty)
    }

    /// Refuses what headroom did not write.
    fn check(&mut self) -> Result<Kind, OutputError> {
        match self.place.kind()? {
            Kind::Foreign if !self.force => Err(OutputError::Foreign(self.place.named().to_owned())),
            found => Ok(found),
        }
    }

    /// Puts the result into its place, whole: whoever opens it finds the old one or the new one. Records, and what is not of
    /// this result's kind, are kept under the first name that is free of the path with `.old`, `.old.1`,
    /// `.old.2`, ... at its end; gives that name.
    ///
    /// # Errors
    /// [`OutputError`]; what was there is there then.
    pub(crate) fn write(mut self, bytes: &[u8]) -> Result<Option<PathBuf>, OutputError> {
        if !self.place.is_regular() {
            self.place.append(bytes)?;
            return Ok(None);
        }
        // Again, since a program that knows nothing of locks may have written meanwhile.
        let found = self.check()?;
        let replaceable =
            found == Kind::Empty || (found == self.kind && !matches!(found, Kind::Records | Kind::Certificates));
        let new = self.place.successor_of(bytes)?;
        self.place.replace(new, !replaceable && !self.force)
    }

    /// As [`Self::write`], of records of the run with this id, which `fill` writes one by one. Where the name asks for it they
    /// are compressed.
    ///
    /// # Errors
    /// [`OutputError`], and what `fill` gives; what was there is there then.
    pub(crate) fn write_records<E: From<OutputError>>(
        mut self,
        run: &str,
        fill: impl FnOnce(&mut RecordsOut<'_>) -> Result<(), E>,
    ) -> Result<Option<PathBuf>, E> {
        let named = self.place.named().to_owned();
        if !self.place.is_regular() {
            return RecordsOut::fill(&named, self.place.file(), run, fill).map(|()| None);
        }
        self.check()?;
        let mut new = self.place.successor()?;
        RecordsOut::fill(&named, new.file(), run, fill)?;
        self.place.settle(&mut new)?;
        let keep = self.check()? != Kind::Empty && !self.force;
        Ok(self.place.replace(new, keep)?)
    }
}

/// A file that records are being written to.
#[derive(Debug)]
pub(crate) struct RecordsOut<'a> {
    named: &'a Path,
    file: &'a mut File,
    compressed: bool,
    /// Lines that wait until a frame is full.
    pending: Vec<u8>,
}

impl<'a> RecordsOut<'a> {
    fn fill<E: From<OutputError>>(
        named: &'a Path,
        file: &'a mut File,
        run: &str,
        fill: impl FnOnce(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        let compressed = compressed::is_meant(named);
        let mut out = Self { named, file, compressed, pending: Vec::new() };
        if compressed {
            out.append(&compressed::title(run))?;
        }
        fill(&mut out)?;
        Ok(out.flush()?)
    }

    /// Writes a record, or a certificate, as a line of its own.
    ///
    /// # Errors
    /// [`OutputError::Io`].
    ///
    /// # Panics
    /// If it is no JSON, as both are.
    pub(crate) fn write(&mut self, line: &impl Serialize) -> Result<(), OutputError> {
        serde_json::to_writer(&mut self.pending, line).expect("a line is JSON");
        self.pending.push(b'\n');
        if self.pending.len() < compressed::LONGEST_FRAME { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> Result<(), OutputError> {
        let lines = std::mem::take(&mut self.pending);
        match (lines.is_empty(), self.compressed) {
            (true, _) => Ok(()),
            (false, true) => self.append(&compressed::frame(&lines)),
            (false, false) => self.append(&lines),
        }
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), OutputError> {
        let failed = |source| OutputError::Io { what: "write", path: self.named.to_owned(), source };
        self.file.write_all(bytes).map_err(failed)
    }
}
