//! What is stored, compressed or not, read a line at a time: a file of any length takes the memory of its longest line.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Cursor, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use super::compressed::{self, Frames};

/// Bytes that are read of what is no regular file, and may never end: they are kept, since they cannot be read again.
const MOST_OF_A_STREAM: u64 = 128 << 20;
/// Bytes of a line that are read of a file which does not begin as JSON does: they say what is wrong.
const TELLING: u64 = 64 << 10;
/// Bytes of the longest line, and of the longest object: more than those of a record that lists two million flips.
const LONGEST_LINE: u64 = 64 << 20;
/// Values that a line or an object holds at most. In memory one takes up to ten times what it takes in the text.
const MOST_VALUES: usize = 8 << 20;
/// Bytes that are asked for at a time.
const BUFFER: usize = 128 << 10;
/// The mark of UTF-8 that some programs begin a file with.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// Stored results, which can be read several times.
#[derive(Debug)]
pub(crate) struct Stored {
    path: PathBuf,
    place: Place,
}

#[derive(Debug)]
enum Place {
    File(File),
    Memory(Vec<u8>),
}

impl Stored {
    /// Opens a file. What is no regular file is read to its end.
    ///
    /// # Errors
    /// What the system says; a stream that gives more than 128 MiB.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        if file.metadata()?.is_file() {
            return Ok(Self::of_file(path, file));
        }
        let mut bytes = Vec::new();
        (&mut file).take(TELLING).read_to_end(&mut bytes)?;
        if is_json(&bytes) || compressed::is_compressed(&bytes) {
            file.take(MOST_OF_A_STREAM).read_to_end(&mut bytes)?;
        }
        if bytes.len() as u64 >= MOST_OF_A_STREAM {
            return Err(io::Error::other("it gives more than 128 MiB and is no file; write it into one first"));
        }
        Ok(Self::of_bytes(path, bytes))
    }

    /// A file that is open already.
    pub(in crate::record) fn of_file(path: &Path, file: File) -> Self {
        Self { path: path.to_owned(), place: Place::File(file) }
    }

    /// Bytes that `path` is named for.
    pub(crate) fn of_bytes(path: &Path, bytes: Vec<u8>) -> Self {
        Self { path: path.to_owned(), place: Place::Memory(bytes) }
    }

    /// The name, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// All lines, from the first one on; of what is compressed, those of its whole frames.
    ///
    /// # Errors
    /// What the system says; a frame that is damaged, or asks for too much.
    pub(crate) fn lines(&mut self) -> io::Result<Lines<'_>> {
        self.lines_from(0)
    }

    /// As [`Self::lines`], for whoever keeps nothing else of it.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn into_lines(self) -> io::Result<Lines<'static>> {
        self.into_lines_from(0)
    }

    /// The first line, with its newline where it has one; `None` where nothing is stored.
    ///
    /// # Errors
    /// As of [`Self::lines`], and of [`Lines::advance`].
    pub(crate) fn first_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        Ok(self.lines()?.advance()?.map(|(_, line)| line.to_vec()))
    }

    /// Whether it is a file, which can be opened again.
    pub(super) const fn is_file(&self) -> bool {
        matches!(self.place, Place::File(_))
    }

    /// The lines from the one on whose place [`Lines::advance`] has told.
    ///
    /// # Errors
    /// As of [`Self::lines`].
    pub(super) fn lines_from(&self, at: u64) -> io::Result<Lines<'_>> {
        match &self.place {
            Place::File(file) => Lines::starting_at(file, at),
            Place::Memory(bytes) => Lines::starting_at(Cursor::new(bytes.as_slice()), at),
        }
    }

    /// As [`Self::lines_from`], for whoever keeps nothing else of it.
    ///
    /// # Errors
    /// As there.
    pub(super) fn into_lines_from(self, at: u64) -> io::Result<Lines<'static>> {
        match self.place {
            Place::File(file) => Lines::starting_at(file, at),
            Place::Memory(bytes) => Lines::starting_at(Cursor::new(bytes), at),
        }
    }

    /// All bytes, without the mark of UTF-8. Of what does not begin as JSON does, no more is read than tells what it is.
    ///
    /// # Errors
    /// What the system says; more than 64 MiB, or more values than are read at once.
    pub(crate) fn whole(&mut self) -> io::Result<Vec<u8>> {
        let lines = self.lines()?;
        let longest = lines.longest;
        let mut bytes = Vec::new();
        lines.reader.take(longest).read_to_end(&mut bytes)?;
        if bytes.len() as u64 == LONGEST_LINE {
            let what = "it has more than the 64 MiB that are read of an object; write lines (--out, or --format jsonl), of which \
                        one is read at a time";
            return Err(io::Error::other(what));
        }
        check_values(&bytes)?;
        Ok(bytes)
    }
}

/// How far the whole frames of something compressed go.
#[derive(Clone, Copy, Debug)]
pub(in crate::record) struct Extent {
    /// Bytes of whole frames.
    pub(in crate::record) whole: u64,
    /// Bytes of a frame that was cut short.
    pub(in crate::record) cut: u64,
}

impl Extent {
    /// Of what `source` holds, which is read from its beginning, before and after; `None` where that is not compressed.
    fn of(source: &mut (impl Read + Seek)) -> io::Result<Option<Self>> {
        let mut first = Vec::new();
        source.rewind()?;
        (&mut *source).take(4).read_to_end(&mut first)?;
        // A journal of ours may have been cut within its first bytes.
        let extent = if compressed::is_compressed(&first) || compressed::is_ours(&first) {
            source.rewind()?;
            let whole = compressed::whole(BufReader::new(&mut *source))?;
            Some(Self { whole, cut: source.seek(SeekFrom::End(0))? - whole })
        } else {
            None
        };
        source.rewind()?;
        Ok(extent)
    }
}

/// Refuses more values than are read at once: so many that there is a comma between each two.
fn check_values(text: &[u8]) -> io::Result<()> {
    if text.len() > MOST_VALUES && text.iter().filter(|&&byte| byte == b',').count() > MOST_VALUES {
        return Err(io::Error::other("it has more values in one piece than the eight million that are read"));
    }
    Ok(())
}

/// Whether bytes can be the beginning of an object, as far as they go.
fn is_json(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().first().is_none_or(|&first| first == b'{')
}

/// The lines of what is stored, each in its turn.
pub(crate) struct Lines<'a> {
    reader: Box<dyn BufRead + 'a>,
    line: Vec<u8>,
    longest: u64,
    at: u64,
    extent: Option<Extent>,
}

impl<'a> Lines<'a> {
    fn of(source: impl BufRead + 'a, extent: Option<Extent>) -> io::Result<Self> {
        let mut reader: Box<dyn BufRead> = match extent {
            None => Box::new(source),
            Some(Extent { whole, .. }) => {
                Box::new(BufReader::with_capacity(BUFFER, Frames::new(source.take(whole), whole)))
            }
        };
        let first = reader.fill_buf()?;
        let mark = if first.starts_with(MARK) { MARK.len() } else { 0 };
        let longest = if is_json(&first[mark..]) { LONGEST_LINE } else { TELLING };
        reader.consume(mark);
        Ok(Self { reader, line: Vec::new(), longest, at: mark as u64, extent })
    }

    /// From a place on. What is compressed is decompressed up to there.
    fn starting_at(mut source: impl Read + Seek + 'a, at: u64) -> io::Result<Self> {
        let extent = Extent::of(&mut source)?;
        if extent.is_none() {
            source.seek(SeekFrom::Start(at))?;
        }
        let mut lines = Self::of(BufReader::with_capacity(BUFFER, source), extent)?;
        if extent.is_none() {
            lines.at += at;
        } else {
            let skipped = io::copy(&mut (&mut lines.reader).take(at.saturating_sub(lines.at)), &mut io::sink())?;
            lines.at += skipped;
        }
        Ok(lines)
    }

    /// How far the whole frames go, where they are compressed.
    pub(in crate::record) const fn extent(&self) -> Option<Extent> {
        self.extent
    }

    /// The next line, with its newline where it has one, and the place of its first byte.
    ///
    /// # Errors
    /// What the system says; a line that is longer than any record.
    pub(crate) fn advance(&mut self) -> io::Result<Option<(u64, &[u8])>> {
        self.line.clear();
        let read = (&mut self.reader).take(self.longest).read_until(b'\n', &mut self.line)? as u64;
        if read == LONGEST_LINE && !self.line.ends_with(b"\n") {
            return Err(io::Error::other("a line of it is longer than 64 MiB, which no record is"));
        }
        check_values(&self.line)?;
        let at = self.at;
        self.at += read;
        // A line that once was long does not keep its room.
        if self.line.capacity() > 16 * BUFFER && self.line.len() < BUFFER {
            self.line.shrink_to(BUFFER);
        }
        Ok((read > 0).then_some((at, &*self.line)))
    }
}
