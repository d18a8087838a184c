//! What can go wrong between a model's name and its files.

use std::{error::Error, io, path::PathBuf, time::Duration};

/// Why a model could not be obtained from the hub.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// Nothing says where the cache is.
    #[error("there is no home folder to keep models in; set HF_HOME")]
    NoCacheFolder,
    /// The network is forbidden, and the cache does not have the model.
    #[error(
        "{model} is not in {}, which lacks {lacks}, and HF_HUB_OFFLINE forbids to fetch it; unset it, or give a folder",
        .cache.display()
    )]
    Offline {
        /// The model as it was named.
        model: String,
        /// The cache's folder.
        cache: PathBuf,
        /// What was looked for first and not found.
        lacks: String,
    },
    /// The cache does not have the model, and nothing here can ask the hub.
    #[error(
        "{model} is not in {}, which lacks {lacks}, and this library was built without the feature `hub` of lm-headroom, \
         which downloads; enable it, or give a folder",
        .cache.display()
    )]
    WithoutClient {
        /// The model as it was named.
        model: String,
        /// The cache's folder.
        cache: PathBuf,
        /// What was looked for first and not found.
        lacks: String,
    },
    /// No such model, or one that this token may not know of: the hub makes no difference.
    #[error(
        "{endpoint} has no model {id} {}; check the spelling, and for a private model set HF_TOKEN to a token that may \
         read it", if *.token { "that the token in use may see" } else { "that is public" }
    )]
    RepoNotFound {
        /// `org/name`.
        id: String,
        /// The hub's address.
        endpoint: String,
        /// Whether a token was sent.
        token: bool,
    },
    /// The model has no such branch, tag or commit.
    #[error("{id} has no revision {revision}; give a branch, a tag, refs/pr/N or a whole commit after the @")]
    RevisionNotFound {
        /// `org/name`.
        id: String,
        /// The revision asked for.
        revision: String,
    },
    /// The hub gives the model's files only to users who accepted its conditions.
    #[error(
        "{id} is gated: accept its conditions at {endpoint}/{id}, then {}",
        if *.token { "try again; the token in use has no access yet (HF_TOKEN, or the token's file)" }
        else { "set HF_TOKEN to a token of that account" }
    )]
    Gated {
        /// `org/name`.
        id: String,
        /// The hub's address.
        endpoint: String,
        /// Whether a token was sent.
        token: bool,
    },
    /// The hub does not take the token, or wants one.
    #[error(
        "{url} is refused (status {status}{message}); {}",
        if *.token { "the token in HF_TOKEN or in the token's file may have expired" } else { "set HF_TOKEN" }
    )]
    Unauthorized {
        /// What was asked for.
        url: String,
        /// 401 or 403.
        status: u16,
        /// What the hub says besides: empty, or `: ` and a text.
        message: String,
        /// Whether a token was sent.
        token: bool,
    },
    /// The token cannot be a token.
    #[error("the hub's token holds characters that no token has; set HF_TOKEN anew, or log in again")]
    BadToken,
    /// The repository holds something else than a checkpoint.
    #[error(
        "{id} at {revision} has no {lacks}, so it is not a checkpoint that headroom reads; look for an MLX conversion of it"
    )]
    NoCheckpoint {
        /// `org/name`.
        id: String,
        /// The commit.
        revision: String,
        /// What it does not have.
        lacks: String,
    },
    /// The hub lists a file that would be written outside of the snapshot.
    #[error("{id} lists a file `{name}`, which is no name of a file within a model; nothing was fetched")]
    FileName {
        /// `org/name`.
        id: String,
        /// The name, shortened.
        name: String,
    },
    /// The hub answers with another status.
    #[error(
        "{url} is answered with status {status}{message}; try again {}",
        .retry_after.map_or("later".to_owned(), |pause| format!("in {} s, as it asks", pause.as_secs()))
    )]
    Status {
        /// What was asked for.
        url: String,
        /// The status.
        status: u16,
        /// What the hub says besides: empty, or `: ` and a text.
        message: String,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// A small file of a model that is large.
    #[error(
        "{file} has {size} bytes at the hub, and no such file of a model has more than {most}; nothing of it was fetched"
    )]
    TooLarge {
        /// The file.
        file: String,
        /// Its bytes.
        size: u64,
        /// Bytes that are fetched of it at most.
        most: u64,
    },
    /// The contents that came are others than those that were announced.
    #[error("{file} came with the SHA-256 {found}, and {announced} was announced; it was thrown away, try again")]
    Contents {
        /// The file.
        file: String,
        /// Its digest, as it came.
        found: String,
        /// Its digest, as the hub announced it.
        announced: String,
    },
    /// The answer is not one of a hub.
    #[error("{url}: {what}; is HF_ENDPOINT the address of a hub?")]
    Answer {
        /// What was asked for.
        url: String,
        /// What is wrong with the answer.
        what: String,
    },
    /// No connection, or one that broke.
    #[error("cannot fetch {url}: {error}; check the connection, what is here already is kept")]
    Network {
        /// What was asked for.
        url: String,
        /// What the client says.
        error: Box<dyn Error + Send + Sync>,
    },
    /// The system refused to read or to write.
    #[error("cannot use {}: {error}", .path.display())]
    Disk {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Another process fetches the same file.
    #[error("{file} is being fetched by another process, which holds {}; wait for it", .lock.display())]
    Busy {
        /// The file.
        file: String,
        /// The locked file.
        lock: PathBuf,
    },
}
