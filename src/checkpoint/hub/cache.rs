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
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    super::{CONFIG, tensors::shard_names},
    name::{HubModel, is_commit},
};

/// The folder of one model in the cache.
#[derive(Clone, Debug)]
pub(super) struct ModelCache {
    pub(super) root: PathBuf,
}

impl ModelCache {
    pub(super) fn new(cache: &Path, model: &HubModel) -> Self {
        Self { root: cache.join(format!("models--{}", model.id().replace('/', "--"))) }
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
        let listing = names(&folder).map_err(|error| format!("a readable snapshot ({error})"))?;
        let shards = shard_names(listing.iter().map(String::as_str));
        if shards.is_empty() {
            return Err("model.safetensors".to_owned());
        }
        if let Some(shard) = shards.iter().find(|shard| !folder.join(shard).is_file()) {
            return Err((*shard).to_owned());
        }
        // Nothing but the names tells how many files there should be.
        let missing = shards.iter().find_map(|shard| siblings(shard)?.find(|name| !shards.contains(name.as_str())));
        missing.map_or(Ok(commit), Err)
    }
}

fn names(folder: &Path) -> io::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder)? {
        // A name that is not Unicode is none of a checkpoint's.
        names.extend(entry?.file_name().into_string());
    }
    Ok(names)
}

/// The names of all files that belong together, as `model-00001-of-00004.safetensors` says of four.
fn siblings(shard: &str) -> Option<impl Iterator<Item = String>> {
    let (start, end) = shard.rsplit_once("-of-")?;
    let (stem, number) = start.rsplit_once('-')?;
    let (count, width): (u64, usize) = (end.strip_suffix(".safetensors")?.parse().ok()?, number.len());
    let (stem, end) = (stem.to_owned(), end.to_owned());
    Some((1..=count).map(move |number| format!("{stem}-{number:0width$}-of-{end}")))
}
