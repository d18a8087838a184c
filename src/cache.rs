//! What is kept between runs to save time, all of which can be computed again.
//!
//! An entry is believed for as long as it is there, and a wrong one would decide what a run says. So it ends with a seal, a
//! digest of its contents and of its name: one that was cut, changed or put under another name counts as none.
//!
//! Tasks of a cluster that begin at the same time look for the same entry, and would all compute it: a thousand times a
//! checkpoint is more than a file server gives. So one of them computes it, and the others wait ([`find`]).

use std::{
    env,
    ffi::OsString,
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read, Write},
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use crate::temporary::Temporary;

/// The folder that this process's environment names, if any.
pub(crate) fn folder() -> Option<PathBuf> {
    cache_folder(|name| env::var_os(name), env::home_dir())
}

/// Bytes of an entry that are read; none has a tenth of them.
const MOST: u64 = 64 << 10;

/// The contents of an entry; `None` where there is none that was written under this name.
fn read(path: &Path) -> Option<Vec<u8>> {
    if !fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    fs::File::open(path).ok()?.take(MOST).read_to_end(&mut bytes).ok()?;
    let length = bytes.len().checked_sub(SEAL)?;
    let sealed = bytes.split_off(length);
    (sealed == seal(path, &bytes).as_bytes()).then_some(bytes)
}

/// Writes an entry, whole. Runs that write one at the same time write the same, so nothing is locked.
pub(crate) fn write(path: &Path, contents: &[u8]) -> std::io::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
    let mut entry = Temporary::beside(path)?;
    entry.file().write_all(&[contents, seal(path, contents).as_bytes()].concat())?;
    entry.move_to(path).map(drop)
}

/// Time for which an entry is waited for that another process computes.
const PATIENCE: Duration = Duration::from_secs(600);
/// Time between two looks at whether the other process is done.
const LOOK: Duration = Duration::from_millis(100);

/// The right to compute an entry, for as long as it is kept.
#[derive(Debug)]
pub(crate) struct Alone {
    path: PathBuf,
    _lock: File,
}

/// Waits until no other process computes an entry, and keeps others from computing it. Whoever has waited looks again
/// whether the entry is there. `None` where there is nobody to wait for: without locks, without a cache that can be written,
/// and after ten minutes.
fn alone(entry: &Path) -> Option<Alone> {
    fs::create_dir_all(entry.parent()?).ok()?;
    let path = entry.with_extension("lock");
    let lock = OpenOptions::new().write(true).create(true).truncate(false).open(&path).ok()?;
    let since = Instant::now();
    loop {
        match lock.try_lock() {
            Ok(()) => return Some(Alone { path, _lock: lock }),
            Err(TryLockError::WouldBlock) if since.elapsed() < PATIENCE => sleep(LOOK),
            Err(_) => return None,
        }
    }
}

impl Drop for Alone {
    /// Whoever waits has the file open and gets its lock; whoever comes later makes another one and finds the entry.
    fn drop(&mut self) {
        drop(fs::remove_file(&self.path));
    }
}

/// What `parse` makes of an entry. Where it makes nothing of it, or there is none: the right to compute it, after waiting
/// for whoever does, and as [`alone`] gives it.
pub(crate) fn find<T>(entry: &Path, parse: impl Fn(&[u8]) -> Option<T>) -> Result<T, Option<Alone>> {
    let known = || parse(&read(entry)?);
    if let Some(known) = known() {
        return Ok(known);
    }
    let alone = alone(entry);
    known().ok_or(alone)
}

/// Bytes of a seal: a line before, and its end.
const SEAL: usize = 66;

fn seal(path: &Path, contents: &[u8]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(path.file_name().unwrap_or_default().as_encoded_bytes()).update(b"\n").update(contents);
    format!("\n{}\n", hasher.finalize())
}

/// The cache's folder: `HEADROOM_CACHE`, or `headroom` in `XDG_CACHE_HOME`, or `.cache/headroom` in
/// `home`. Empty variables count as unset, and so does a relative `XDG_CACHE_HOME`, as its
/// specification asks.
fn cache_folder(variable: impl Fn(&str) -> Option<OsString>, home: Option<PathBuf>) -> Option<PathBuf> {
    let set = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(own) = set("HEADROOM_CACHE") {
        return Some(own);
    }
    let shared = set("XDG_CACHE_HOME").filter(|path| path.is_absolute());
    Some(shared.or_else(|| home.map(|home| home.join(".cache")))?.join("headroom"))
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    #[test]
    fn an_entry_that_was_changed_cut_or_moved_is_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a").join("entry");
        assert_eq!(read(&path), None);
        for contents in ["{\"threshold\":9.5}", ""] {
            write(&path, contents.as_bytes()).expect("written");
            assert_eq!(read(&path).as_deref(), Some(contents.as_bytes()));
        }
        write(&path, b"some").expect("written");
        let whole = fs::read(&path).expect("a file");
        for (at, _) in whole.iter().enumerate() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            fs::write(&path, &changed).expect("written");
            assert_eq!(read(&path), None, "byte {at}");
            fs::write(&path, &whole[..at]).expect("written");
            assert_eq!(read(&path), None, "cut at {at}");
        }
        fs::write(path.with_file_name("other"), &whole).expect("written");
        assert_eq!(read(&path.with_file_name("other")), None);
        assert_eq!(read(folder.path()), None);
        fs::write(&path, &whole).expect("written");
        assert_eq!(read(&path).as_deref(), Some(&b"some"[..]));
    }

    #[test]
    fn one_computes_an_entry_and_the_others_wait_for_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a").join("entry");
        let computed = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let alone = alone(&path);
                    assert!(alone.is_some());
                    if read(&path).is_none() {
                        computed.fetch_add(1, Ordering::Relaxed);
                        sleep(Duration::from_millis(50));
                        write(&path, b"some").expect("written");
                    }
                });
            }
        });
        assert_eq!(computed.into_inner(), 1);
        let left = fs::read_dir(path.parent().expect("a folder")).expect("a folder").count();
        assert_eq!(left, 1, "the entry and nothing else");
        // A file stands where the cache's folder would be.
        assert!(super::alone(&path.join("within")).is_none());
    }

    #[test]
    fn the_cache_lies_where_the_environment_says() {
        let folder = |variables: &[(&str, &str)]| {
            let variables: BTreeMap<_, _> = variables.iter().copied().collect();
            cache_folder(|name| variables.get(name).map(OsString::from), Some(PathBuf::from("/home/x")))
        };
        assert_eq!(folder(&[]), Some("/home/x/.cache/headroom".into()));
        assert_eq!(folder(&[("XDG_CACHE_HOME", "/c")]), Some("/c/headroom".into()));
        assert_eq!(folder(&[("XDG_CACHE_HOME", "relative")]), Some("/home/x/.cache/headroom".into()));
        assert_eq!(folder(&[("XDG_CACHE_HOME", "/c"), ("HEADROOM_CACHE", "here")]), Some("here".into()));
        assert_eq!(folder(&[("XDG_CACHE_HOME", ""), ("HEADROOM_CACHE", "")]), Some("/home/x/.cache/headroom".into()));
        assert_eq!(cache_folder(|_| None, None), None);
    }
}
