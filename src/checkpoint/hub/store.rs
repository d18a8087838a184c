//! What a download writes into the cache.

use std::{
    fs,
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
};

use super::{HubError, cache::ModelCache};
use crate::temporary::Temporary;

impl ModelCache {
    pub(super) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    /// Has `revision` stand for `commit` from now on.
    pub(super) fn set_ref(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        let path = self.root.join("refs").join(revision);
        let folder = path.parent().expect("it is below refs");
        fs::create_dir_all(folder).map_err(disk(folder))?;
        let mut new = Temporary::beside(&path).map_err(disk(&path))?;
        new.file().write_all(commit.as_bytes()).map_err(disk(&path))?;
        new.move_to(&path).map(drop).map_err(disk(&path))
    }

    /// Has the snapshot of `commit` hold the blob `etag` as `file`, unless it has such a file.
    pub(super) fn link(&self, commit: &str, file: &str, etag: &str) -> Result<(), HubError> {
        let folder = self.snapshot(commit);
        fs::create_dir_all(&folder).map_err(disk(&folder))?;
        let path = folder.join(file);
        if path.is_file() {
            return Ok(());
        }
        // It may be a link whose blob was deleted.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(disk(&path)(error)),
            _ => {}
        }
        match link_or_copy(&self.blobs().join(etag), &Path::new("..").join("..").join("blobs").join(etag), &path) {
            // Another process that pulls the same model was faster.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            result => result.map_err(disk(&path)),
        }
    }
}

#[cfg(unix)]
fn link_or_copy(_blob: &Path, relative: &Path, path: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(relative, path)
}

/// Without links, which not every Windows user may make, a copy does.
#[cfg(not(unix))]
fn link_or_copy(blob: &Path, _relative: &Path, path: &Path) -> io::Result<()> {
    fs::copy(blob, path).map(|_| ())
}

/// For `map_err`: the system's error with its place.
pub(super) fn disk(path: &Path) -> impl FnOnce(io::Error) -> HubError {
    let path = path.to_owned();
    |error| HubError::Disk { path, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ref_is_set_by_many_at_once() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let cache = ModelCache { root: folder.path().to_owned() };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..50).for_each(|_| cache.set_ref("pr/1", "abc").expect("a ref")));
            }
        });
        assert_eq!(fs::read_to_string(folder.path().join("refs/pr/1")).expect("a ref"), "abc");
        assert_eq!(fs::read_dir(folder.path().join("refs/pr")).expect("a folder").count(), 1);
    }
}
