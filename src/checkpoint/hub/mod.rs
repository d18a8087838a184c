//! Models by name: the one inside the program, a folder, or one of the Hugging Face hub.
//!
//! [`ModelName::parse`] reads what the user wrote. A [`HubModel`] becomes a folder for
//! [`Checkpoint::open`](super::Checkpoint::open) in one of three ways: [`cached`](HubModel::cached)
//! looks into the cache that all Hugging Face tools share and nowhere else, [`pull`](HubModel::pull)
//! asks the hub, and [`resolve`](HubModel::resolve) does the second only where the first finds nothing.
//! Either way the commit is known, for the record of a run. Whatever asks the hub is compiled with the feature `hub`
//! alone: without it a model comes from the cache, and one that is not there is [`HubError::WithoutClient`].
//!
//! A pull fetches what a checkpoint is read from: the configuration, the tokenizer, the chat template, and every
//! `model*.safetensors`. Weights come
//! last and the name of the revision after them, so that an interrupted pull is never taken for a model.
//!
//! # What hf-hub does, and what it does not
//! The client (its agent, TLS, proxy, token and user agent), the description of a repository and the
//! names in the cache are hf-hub's, release 0.5 with the feature `ureq`: release 1.0 is asynchronous and
//! brings more than twice the crates. Its download of a file is not used, since
//! - a `.part` file that is complete, or too long, makes every later attempt fail, and a retry after a
//!   resumed attempt that got nothing appends the whole file to its own beginning;
//! - the length of what came is not checked, nor that a server honoured `Range`;
//! - a blob that another revision left is fetched again;
//! - there are no timeouts, and the token is sent on to content servers;
//! - the reason that the hub gives for a refusal (`X-Error-Code`) is lost;
//! - the ETag and the commit become paths without a look at them, and some answers make it panic.
//!
//! `transfer` does these things, under the same names (`<etag>.part`, `<etag>.lock`), so that it goes on
//! where hf-hub left off and the other way round. Of the environment hf-hub knows `HF_HOME` and
//! `HF_ENDPOINT`; [`HubSettings`] knows the rest.
//!
//! # What a server can do
//! The token goes to the endpoint's scheme, host and port and to nothing else, whatever redirects say. A file whose ETag is
//! a SHA-256, as that of all weights is, is held against it. Files that are read as a whole are fetched up to a limit (16 MiB;
//! 64 MiB of an index, 256 MiB of a `tokenizer.json`). A download is given up after [`HubSettings::retries`] attempts in a
//! row beyond the first that keep nothing new, after a hundred that keep less than 64 KiB, and an attempt breaks off where
//! fewer than 1,024 bytes a second come. With the settings of the program nothing is asked for longer than ten minutes
//! without a new byte. `Retry-After` is waited for once, up to five minutes.

mod cache;
#[cfg(feature = "hub")]
mod client;
mod error;
#[cfg(feature = "hub")]
mod fetch;
mod name;
mod settings;
#[cfg(feature = "hub")]
mod store;
#[cfg(feature = "hub")]
mod transfer;
mod url;

use std::{path::PathBuf, time::Duration};

use cache::ModelCache;

pub use self::{
    error::HubError,
    name::{HubModel, ModelName, ModelNameError},
    settings::HubSettings,
};

/// A model in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The folder of its files.
    pub folder: PathBuf,
    /// The commit: 40 digits, base 16.
    pub revision: String,
}

/// Where the files of a model are that was named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Located {
    /// Their folder; `None` for the model inside the program.
    pub folder: Option<PathBuf>,
    /// The commit of the hub, where the name is a hub id.
    pub revision: Option<String>,
}

impl ModelName {
    /// Where the model's files are, which are fetched if they are the hub's and the cache does not hold all of them. The
    /// hub and the cache are those that the environment names.
    ///
    /// # Errors
    /// [`HubError`].
    pub(crate) fn locate(self, progress: &mut dyn Progress) -> Result<Located, HubError> {
        let model = match self {
            Self::Demo => return Ok(Located { folder: None, revision: None }),
            Self::Folder(folder) => return Ok(Located { folder: Some(folder), revision: None }),
            Self::Hub(model) => model,
        };
        let settings = HubSettings::from_env()?;
        let mut snapshot = model.resolve(&settings, progress)?;
        // Another tool may have fetched configuration and weights alone.
        if !settings.offline && !snapshot.folder.join("tokenizer.json").exists() {
            snapshot = model.pull(&settings, progress)?;
        }
        Ok(Located { folder: Some(snapshot.folder), revision: Some(snapshot.revision) })
    }
}

/// An observer of a download. `()` observes and does nothing.
pub trait Progress {
    /// The download of `file`, of `size` bytes, begins or goes on: `present` of them are here. Called
    /// again for the same file when an attempt follows one that broke off.
    fn start(&mut self, file: &str, size: u64, present: u64);
    /// This many bytes arrived.
    fn advance(&mut self, bytes: u64);
    /// The file is complete.
    fn finish(&mut self);
    /// The hub asks to wait so long before the next request, which is done once.
    fn wait(&mut self, _pause: Duration) {}
}

impl Progress for () {
    fn start(&mut self, _file: &str, _size: u64, _present: u64) {}
    fn advance(&mut self, _bytes: u64) {}
    fn finish(&mut self) {}
}

impl HubModel {
    /// The model as the cache has it, without any network. A branch is what it was when it was last
    /// fetched. A snapshot counts if it has `config.json` and all of the weights; one that another tool
    /// left without, say, a tokenizer is completed by [`pull`](Self::pull).
    pub fn cached(&self, settings: &HubSettings) -> Option<Snapshot> {
        let cache = ModelCache::new(&settings.cache, self);
        let revision = cache.complete(self).ok()?;
        Some(Snapshot { folder: cache.snapshot(&revision), revision })
    }

    /// The model as the cache has it, or else from the hub.
    ///
    /// # Errors
    /// As [`pull`](Self::pull).
    pub fn resolve(&self, settings: &HubSettings, progress: &mut dyn Progress) -> Result<Snapshot, HubError> {
        match self.cached(settings) {
            Some(snapshot) => Ok(snapshot),
            None => self.pull(settings, progress),
        }
    }

    /// The model as the hub has it now; only what the cache lacks is fetched. Offline, and where this library was
    /// built without the feature `hub`, as the cache has it.
    ///
    /// # Errors
    /// Any [`HubError`]. After an interruption, a lost connection or a full disk the next call goes on
    /// where this one stopped.
    pub fn pull(&self, settings: &HubSettings, progress: &mut dyn Progress) -> Result<Snapshot, HubError> {
        let cache = ModelCache::new(&settings.cache, self);
        #[cfg(feature = "hub")]
        if !settings.offline {
            return fetch::fetch(self, settings, &cache, progress);
        }
        #[cfg(not(feature = "hub"))]
        let _ = progress;
        match cache.complete(self) {
            Ok(revision) => Ok(Snapshot { folder: cache.snapshot(&revision), revision }),
            Err(lacks) => {
                let (model, cache) = (self.to_string(), settings.cache.clone());
                Err(match settings.offline {
                    true => HubError::Offline { model, cache, lacks },
                    false => HubError::WithoutClient { model, cache, lacks },
                })
            }
        }
    }
}
