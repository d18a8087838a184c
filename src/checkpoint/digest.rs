//! Digests: of a whole checkpoint, to name the model in a record, and of a head, to prove that it
//! was restored.
//!
//! The model's digest reads every byte of the checkpoint, so it is computed when first asked for and
//! kept in the user's cache under the files' paths, sizes and times.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, Metadata},
    io::Write,
    path::{Path, PathBuf},
    process,
    time::{Duration, SystemTime},
};

use blake3::{Hash, Hasher};

use super::folder::StoredFile;
use crate::quant::MatrixRef;

/// BLAKE3 over `weight`, `scales` and `biases` as they are stored, in this order.
pub fn head_digest(head: &MatrixRef<'_>) -> Hash {
    let mut hasher = Hasher::new();
    hasher.update(head.weight()).update(head.scales()).update(head.biases());
    hasher.finalize()
}

/// BLAKE3 over `files` in the order of their names; of each the length of the name in bytes as a
/// little-endian `u64`, the name, the length of the contents likewise, and the contents.
fn files_digest(files: &BTreeMap<String, StoredFile>) -> Hash {
    let mut hasher = Hasher::new();
    for (name, file) in files {
        hasher.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes());
        hasher.update(&(file.bytes.len() as u64).to_le_bytes()).update(&file.bytes);
    }
    hasher.finalize()
}

/// [`files_digest`] from the cache in `folder`, or else computed and put there. Trouble with the
/// cache is no trouble: the digest is then computed.
pub(super) fn cached_digest(files: &BTreeMap<String, StoredFile>, folder: Option<&Path>) -> Hash {
    let cached = || -> Option<PathBuf> { Some(folder?.join("digests").join(key(files)?.to_hex().as_str())) };
    let Some(entry) = cached() else { return files_digest(files) };
    let known = fs::read_to_string(&entry).ok().and_then(|text| Hash::from_hex(text.trim_end()).ok());
    if let Some(digest) = known {
        return digest;
    }
    let digest = files_digest(files);
    if unchanged(files) {
        // A cache that cannot be written costs time at the next start, and nothing else.
        let _ = write_whole(&entry, format!("{digest}\n").as_bytes());
    }
    digest
}

/// What identifies the files without reading them; `None` where one is not on disk.
fn key(files: &BTreeMap<String, StoredFile>) -> Option<Hash> {
    let mut hasher = Hasher::new();
    for (name, file) in files {
        let disk = file.disk.as_ref()?;
        let path = fs::canonicalize(&disk.path).ok()?;
        let state = format!("{name:?} {path:?} {:?}\n", State::of(&disk.metadata)?);
        hasher.update(state.as_bytes());
    }
    Some(hasher.finalize())
}

/// Size and times of a file.
#[derive(Debug, PartialEq, Eq)]
struct State {
    len: u64,
    modified: SystemTime,
    /// Seconds and nanoseconds of the last change to the file or its attributes, which nobody sets
    /// at will: it sees a flipped bit whose author put the time of modification back.
    changed: Option<(i64, i64)>,
}

impl State {
    fn of(metadata: &Metadata) -> Option<Self> {
        #[cfg(unix)]
        let changed = {
            use std::os::unix::fs::MetadataExt;
            Some((metadata.ctime(), metadata.ctime_nsec()))
        };
        #[cfg(not(unix))]
        let changed = None;
        Some(Self { len: metadata.len(), modified: metadata.modified().ok()?, changed })
    }
}

/// Whether the files on disk are still those that were opened, and have been for so long that a
/// later change is sure to get another time: file systems count in steps of up to two seconds.
fn unchanged(files: &BTreeMap<String, StoredFile>) -> bool {
    const STEP: Duration = Duration::from_secs(2);
    let settled = |file: &StoredFile| -> Option<bool> {
        let disk = file.disk.as_ref()?;
        let (then, now) = (State::of(&disk.metadata)?, State::of(&fs::metadata(&disk.path).ok()?)?);
        Some(then == now && SystemTime::now().duration_since(then.modified).ok()? > STEP)
    };
    files.values().all(|file| settled(file) == Some(true))
}

/// Writes under another name and renames, so that nobody reads half a file.
fn write_whole(path: &Path, contents: &[u8]) -> std::io::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
    let temporary = path.with_extension(format!("{}.tmp", process::id()));
    let written = fs::File::create(&temporary).and_then(|mut file| file.write_all(contents));
    let done = written.and_then(|()| fs::rename(&temporary, path));
    if done.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    done
}

/// The cache's folder: `HEADROOM_CACHE`, or `headroom` in `XDG_CACHE_HOME`, or `.cache/headroom` in
/// `home`. Empty variables count as unset, and so does a relative `XDG_CACHE_HOME`, as its
/// specification asks.
pub(super) fn cache_folder(variable: impl Fn(&str) -> Option<OsString>, home: Option<PathBuf>) -> Option<PathBuf> {
    let set = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(own) = set("HEADROOM_CACHE") {
        return Some(own);
    }
    let shared = set("XDG_CACHE_HOME").filter(|path| path.is_absolute());
    Some(shared.or_else(|| home.map(|home| home.join(".cache")))?.join("headroom"))
}
