//! Digests: of a whole checkpoint, to name the model in a record, and of a head, to prove that it
//! was restored.
//!
//! The model's digest reads every byte of the checkpoint, so it is computed when first asked for and
//! kept in the user's cache under the files' paths, sizes and times.

use std::{
    collections::BTreeMap,
    fs::{self, Metadata},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use blake3::{Hash, Hasher};

use super::folder::StoredFile;
use crate::{cache, quant::MatrixRef};

/// BLAKE3 over `weight`, `scales` and, where the format has them, `biases` as they are stored, in this order.
pub(crate) fn head_digest(head: &MatrixRef<'_>) -> Hash {
    let mut hasher = Hasher::new();
    for (_, part) in head.parts() {
        hasher.update(part);
    }
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
    let _alone = match cache::find(&entry, |text| Hash::from_hex(text).ok()) {
        Ok(digest) => return digest,
        Err(alone) => alone,
    };
    let digest = files_digest(files);
    if unchanged(files) {
        // A cache that cannot be written costs time at the next start, and nothing else.
        drop(cache::write(&entry, digest.to_hex().as_bytes()));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{bytes::Bytes, folder::Place};

    /// The files of a folder that were last changed a minute ago, as far as their times tell.
    fn settled(folder: &Path, contents: &str) -> BTreeMap<String, StoredFile> {
        let path = folder.join("config.json");
        fs::write(&path, contents).unwrap();
        let minute_ago = SystemTime::now() - Duration::from_secs(60);
        fs::File::options().write(true).open(&path).unwrap().set_modified(minute_ago).unwrap();
        opened(folder)
    }

    fn opened(folder: &Path) -> BTreeMap<String, StoredFile> {
        let file = Place::folder(folder).unwrap().get("config.json").unwrap().unwrap();
        BTreeMap::from([("config.json".to_owned(), file)])
    }

    fn entries(cache: &Path) -> Vec<PathBuf> {
        fs::read_dir(cache.join("digests")).map_or(Vec::new(), |dir| dir.map(|entry| entry.unwrap().path()).collect())
    }

    #[test]
    fn a_digest_is_taken_from_the_cache_while_path_size_and_times_stay() {
        let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let files = settled(folder.path(), "some");
        let digest = cached_digest(&files, Some(cache.path()));
        assert_eq!(digest, files_digest(&files));
        let [entry] = entries(cache.path()).try_into().expect("one entry, and nothing temporary left");
        // What is in the cache is believed: this is how one sees that it was read.
        let other = blake3::hash(b"other");
        crate::cache::write(&entry, other.to_hex().as_bytes()).unwrap();
        assert_eq!(cached_digest(&opened(folder.path()), Some(cache.path())), other);
    }

    #[test]
    fn a_changed_file_of_the_same_size_is_digested_anew() {
        let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let before = cached_digest(&settled(folder.path(), "some"), Some(cache.path()));
        let after = cached_digest(&settled(folder.path(), "sane"), Some(cache.path()));
        assert_ne!(before, after);
        assert_eq!(entries(cache.path()).len(), 2);
    }

    #[test]
    fn a_file_changed_a_moment_ago_is_not_cached() {
        let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(folder.path().join("config.json"), "some").unwrap();
        let files = opened(folder.path());
        assert_eq!(cached_digest(&files, Some(cache.path())), files_digest(&files));
        assert!(entries(cache.path()).is_empty());
    }

    #[test]
    fn a_file_that_changed_since_it_was_opened_is_not_cached() {
        let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let files = settled(folder.path(), "some");
        settled(folder.path(), "longer");
        assert_eq!(cached_digest(&files, Some(cache.path())), files_digest(&files), "of what was opened");
        assert!(entries(cache.path()).is_empty());
    }

    #[test]
    fn trouble_with_the_cache_is_no_trouble() {
        let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let files = settled(folder.path(), "some");
        let digest = files_digest(&files);
        assert_eq!(cached_digest(&files, None), digest);
        // A file where the cache's folder should be.
        let file = cache.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(cached_digest(&files, Some(&file)), digest);
        // An entry that holds no digest is written anew.
        cached_digest(&files, Some(cache.path()));
        let entry = entries(cache.path()).remove(0);
        let sound = fs::read(&entry).unwrap();
        for wrong in ["no digest".to_owned(), format!("{}\n", blake3::hash(b"other"))] {
            fs::write(&entry, wrong).unwrap();
            assert_eq!(cached_digest(&files, Some(cache.path())), digest);
            assert_eq!(fs::read(&entry).unwrap(), sound);
        }
        crate::cache::write(&entry, b"no digest").unwrap();
        assert_eq!(cached_digest(&files, Some(cache.path())), digest);
    }

    #[test]
    fn files_in_memory_are_not_cached() {
        let cache = tempfile::tempdir().unwrap();
        let files = BTreeMap::from([("config.json".to_owned(), StoredFile { bytes: Bytes::new("some"), disk: None })]);
        assert_eq!(cached_digest(&files, Some(cache.path())), files_digest(&files));
        assert!(entries(cache.path()).is_empty());
    }
}
