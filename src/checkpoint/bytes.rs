//! Bytes with an owner: a slice of a memory map, of the program itself, or of a buffer.

use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Where bytes lie on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRange {
    /// Absolute path of the file.
    pub path: PathBuf,
    /// First byte, from the start of the file.
    pub offset: u64,
    /// Bytes.
    pub len: usize,
}

/// A shared, immutable range of bytes. Cloning copies pointers, not the data.
#[derive(Clone)]
pub struct Bytes {
    owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
    range: Range<usize>,
    /// The file that the owner maps from its first byte on, if it maps one.
    file: Option<Arc<Path>>,
}

impl Bytes {
    /// All bytes of `owner`: a `memmap2::Mmap`, a `Vec<u8>`, a `&'static [u8]`.
    pub fn new(owner: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        let range = 0..owner.as_ref().len();
        Self { owner: Arc::new(owner), range, file: None }
    }

    /// All bytes of `owner`, which maps the whole file at `path`.
    pub(super) fn of_file(owner: memmap2::Mmap, path: &Path) -> Self {
        Self { file: Some(path.into()), ..Self::new(owner) }
    }

    /// A part of these bytes, with the same owner; `None` if `range` reaches beyond them.
    pub(crate) fn slice(&self, range: Range<usize>) -> Option<Self> {
        let (start, end) = (self.range.start.checked_add(range.start)?, self.range.start.checked_add(range.end)?);
        (start <= end && end <= self.range.end).then(|| Self { range: start..end, ..self.clone() })
    }

    /// Where these bytes lie on disk; `None` where they are in memory alone.
    pub fn origin(&self) -> Option<FileRange> {
        let path = self.file.as_ref()?.to_path_buf();
        Some(FileRange { path, offset: self.range.start as u64, len: self.range.len() })
    }

    /// The bytes.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        &(*self.owner).as_ref()[self.range.clone()]
    }
}

impl std::ops::Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({} bytes)", self.range.len())
    }
}
