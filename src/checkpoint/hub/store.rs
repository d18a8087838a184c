//! What a download writes into the cache.

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    process,
};

use super::{HubError, cache::ModelCache};

impl ModelCache {
    pub(super) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    /// Has `revision` stand for `commit` from now on.
    pub(super) fn set_ref(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        let path = self.root.join("refs").join(revision);
        let folder = path.parent().expect("it is below refs");
        fs::create_dir_all(folder).map_err(disk(folder))?;
        // Renamed into place, so that nobody reads half a commit.
        let new = folder.join(format!(".new-{}", process::id()));
        fs::write(&new, commit).map_err(disk(&new))?;
        fs::rename(&new, &path).map_err(disk(&path))
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
