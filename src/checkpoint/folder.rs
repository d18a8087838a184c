//! The files of a checkpoint, from a folder or from memory.
//!
//! Small files are read, up to the limit of each; safetensors files are mapped. **A file that is cut short while it is mapped
//! kills the process** with a bus error at the next access, in this as in every program that maps
//! files; a file that is overwritten in place changes under the reader. Replace a checkpoint's files
//! by renaming new ones over them, as downloaders do.

use std::{
    collections::BTreeMap,
    fs::{self, File, Metadata},
    io::{self, ErrorKind, Read},
    path::{Path, PathBuf},
};

use super::{CHAT_TEMPLATES, CheckpointError, LIMITS, bytes::Bytes};

/// The name and the bytes that a file may have which is read whole.
fn limit_of(name: &str) -> Option<(&'static str, usize)> {
    // A named template is limited as the one without a name.
    let name = if name.starts_with(CHAT_TEMPLATES) { "chat_template.jinja" } else { name };
    LIMITS.into_iter().find(|&(limited, _)| limited == name)
}

/// A file of the checkpoint.
#[derive(Clone, Debug)]
pub(super) struct StoredFile {
    pub(super) bytes: Bytes,
    /// Where it came from, unless it was in memory.
    pub(super) disk: Option<OnDisk>,
}

/// The place and state of a file when it was opened.
#[derive(Clone, Debug)]
pub(super) struct OnDisk {
    /// Absolute; symbolic links, such as the hub cache has, are not resolved.
    pub(super) path: PathBuf,
    pub(super) metadata: Metadata,
}

/// Where a checkpoint's files are looked up.
#[derive(Clone, Debug)]
pub(super) enum Place {
    Folder { path: PathBuf, listing: Vec<String> },
    Memory(BTreeMap<String, Bytes>),
}

impl Place {
    /// Lists the folder `path`.
    pub(super) fn folder(path: &Path) -> Result<Self, CheckpointError> {
        let failed = |error: io::Error| match error.kind() {
            ErrorKind::NotFound => CheckpointError::NoSuchFolder { path: path.to_owned() },
            ErrorKind::NotADirectory => CheckpointError::NotAFolder { path: path.to_owned() },
            _ => CheckpointError::Io { path: path.to_owned(), error },
        };
        if !fs::metadata(path).map_err(failed)?.is_dir() {
            return Err(CheckpointError::NotAFolder { path: path.to_owned() });
        }
        let mut listing = Vec::new();
        for entry in fs::read_dir(path).map_err(failed)? {
            // A name that is not Unicode is none of a checkpoint's.
            listing.extend(entry.map_err(failed)?.file_name().into_string());
        }
        Ok(Self::Folder { path: std::path::absolute(path).map_err(failed)?, listing })
    }

    /// Names of all files, in no order.
    pub(super) fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        match self {
            Self::Folder { listing, .. } => Box::new(listing.iter().map(String::as_str)),
            Self::Memory(files) => Box::new(files.keys().map(String::as_str)),
        }
    }

    /// Names of the files in a folder of the checkpoint, from the checkpoint on; `folder` ends with a slash.
    pub(super) fn names_in(&self, folder: &str) -> Result<Vec<String>, CheckpointError> {
        let mut names: Vec<String> = match self {
            Self::Memory(files) => files.keys().filter(|name| name.starts_with(folder)).cloned().collect(),
            Self::Folder { path, listing } => {
                let path = path.join(folder);
                if !listing.iter().any(|name| *name == folder[..folder.len() - 1]) || !path.is_dir() {
                    return Ok(Vec::new());
                }
                let failed = |error| CheckpointError::Io { path: path.clone(), error };
                let mut names = Vec::new();
                for entry in fs::read_dir(&path).map_err(failed)? {
                    names
                        .extend(entry.map_err(failed)?.file_name().into_string().map(|name| format!("{folder}{name}")));
                }
                names
            }
        };
        names.sort_unstable();
        Ok(names)
    }

    /// The file `name`, if there is one; `name` is a plain name, or one that [`names_in`](Self::names_in) gave.
    pub(super) fn get(&self, name: &str) -> Result<Option<StoredFile>, CheckpointError> {
        match self {
            Self::Memory(files) => Ok(files.get(name).map(|bytes| StoredFile { bytes: bytes.clone(), disk: None })),
            Self::Folder { path, .. } => {
                let path = path.join(name);
                match open(&path, limit_of(name)) {
                    Ok(Ok(file)) => Ok(Some(file)),
                    Ok(Err(TooLong { file, limit })) => Err(CheckpointError::TooLong { file, limit }),
                    Err(error) if error.kind() == ErrorKind::NotFound => match fs::read_link(&path) {
                        // Somebody meant a file to be here.
                        Ok(to) => {
                            let what = format!("it is a link to {}, where there is nothing", to.display());
                            Err(CheckpointError::Io { path, error: io::Error::new(ErrorKind::NotFound, what) })
                        }
                        Err(_) => Ok(None),
                    },
                    Err(error) => Err(CheckpointError::Io { path, error }),
                }
            }
        }
    }
}

/// A file that is longer than its kind may be.
struct TooLong {
    file: &'static str,
    limit: usize,
}

/// Reads a file that has a limit, up to there, and maps any other.
fn open(path: &Path, limit: Option<(&'static str, usize)>) -> io::Result<Result<StoredFile, TooLong>> {
    // Asked before opening, since opening a named pipe would wait for a writer.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "not a regular file"));
    }
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let bytes = match limit {
        None => map(&file, path)?,
        Some((name, limit)) => {
            let most = limit as u64;
            // Not by its length alone, which a file that grows, or one that a system makes up, does not keep to.
            let mut bytes = Vec::with_capacity(metadata.len().min(most) as usize);
            if metadata.len() > most || (&file).take(most + 1).read_to_end(&mut bytes)? as u64 > most {
                return Ok(Err(TooLong { file: name, limit }));
            }
            Bytes::new(bytes)
        }
    };
    Ok(Ok(StoredFile { bytes, disk: Some(OnDisk { path: path.to_owned(), metadata }) }))
}

fn map(file: &File, path: &Path) -> io::Result<Bytes> {
    // SAFETY: `map` asks that nobody changes the file while it is mapped. This process does not: the mapping is
    // read-only, and lives as long as the `Mmap` that `Bytes` owns. That no other process truncates or rewrites
    // it cannot be enforced; it is the condition that the module documentation and `Checkpoint::open` put on the caller.
    let map = unsafe { memmap2::Mmap::map(file) }?;
    Ok(Bytes::of_file(map, path))
}
