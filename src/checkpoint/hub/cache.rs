//! The cache that Hugging Face's tools share, as far as one model goes:
//!
//! ```text
//! models--org--name/
//!   blobs/<etag>              contents, whole; <etag>.part while it is fetched, <etag>.lock who fetches
//!   refs/<revision>           the commit of a branch or tag when it was last asked for
//!   snapshots/<commit>/<file> a link to the blob
//! ```

use std::{
    collections::BTreeSet,
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    process,
};

use super::{
    super::{
        CONFIG,
        tensors::{INDEX, Index, shard_names},
    },
    HubError,
    error::disk,
    name::{HubModel, is_commit},
};

/// The folder of one model in the cache.
#[derive(Clone, Debug)]
pub(super) struct ModelCache {
    root: PathBuf,
}

impl ModelCache {
    pub(super) fn new(cache: &Path, model: &HubModel) -> Self {
        let repo = hf_hub::Repo::model(model.id().to_owned());
        Self { root: cache.join(repo.folder_name()) }
    }

    pub(super) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    /// The commit that `model` names, so far as the cache knows.
    fn commit(&self, model: &HubModel) -> Option<String> {
        if let Some(commit) = model.pinned() {
            return Some(commit.to_owned());
        }
        let text = fs::read_to_string(self.root.join("refs").join(model.revision())).ok()?;
        Some(text.trim().to_owned()).filter(|commit| is_commit(commit))
    }

    /// The commit of `model` if its snapshot has what a model cannot be without: the configuration,
    /// and every file of weights. Otherwise what is lacking.
    pub(super) fn complete(&self, model: &HubModel) -> Result<String, String> {
        let commit = self.commit(model).ok_or_else(|| format!("the revision {}", model.revision()))?;
        let folder = self.snapshot(&commit);
        // Links whose blob was deleted do not count: `is_file` follows them.
        if !folder.join(CONFIG).is_file() {
            return Err(CONFIG.to_owned());
        }
        let index = match fs::read(folder.join(INDEX)) {
            Ok(bytes) => Some(Index::parse(&bytes).map_err(|error| format!("a sound index ({error})"))?),
            Err(_) => None,
        };
        let listing = names(&folder).map_err(|error| format!("a readable snapshot ({error})"))?;
        let shards = shard_names(index.as_ref(), listing.iter().map(String::as_str));
        if shards.is_empty() {
            return Err("model.safetensors".to_owned());
        }
        match shards.iter().find(|shard| !folder.join(shard).is_file()) {
            Some(shard) => Err((*shard).to_owned()),
            // Without the index nothing but the names tells how many files there should be.
            None if index.is_none()
                && shards.iter().any(|shard| siblings(shard).is_some_and(|n| n != shards.len())) =>
            {
                Err(format!("{INDEX} or some of the files beside {}", shards.first().expect("not empty")))
            }
            None => Ok(commit),
        }
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

fn names(folder: &Path) -> io::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        // A name that is not Unicode is none of a checkpoint's.
        names.extend(entry?.file_name().into_string());
    }
    Ok(names)
}

/// How many files there are, as `model-00001-of-00004.safetensors` says.
fn siblings(shard: &str) -> Option<usize> {
    shard.strip_suffix(".safetensors")?.rsplit_once("-of-")?.1.parse().ok()
}
