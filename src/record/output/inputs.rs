//! What is never an output: what the same command reads, and every file of a model.

use std::{
    ffi::OsStr,
    fs::{self, File, Metadata},
    io::Read,
    path::{Path, PathBuf},
};

use super::{
    OutputError,
    held::{end_of_links, is_same},
    kind::{Kind, TELLING},
};
use crate::checkpoint::{self, Checkpoint, Source};

/// The files that a command reads.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    files: Vec<(&'static str, PathBuf)>,
    model: Option<PathBuf>,
}

/// What a file of a model is called in messages.
const OF_A_MODEL: &str = "a file of the model";

impl Inputs {
    /// Adds a file, with what it is: `one of the runs`.
    #[must_use]
    pub(crate) fn and(mut self, what: &'static str, path: &Path) -> Self {
        self.files.push((what, path.to_owned()));
        self
    }

    /// Adds the files of a checkpoint, and what lies beside them in its folder.
    #[must_use]
    pub(crate) fn and_model(mut self, checkpoint: &Checkpoint) -> Self {
        if let Source::Folder(folder) = checkpoint.source() {
            let names = checkpoint.file_names().map(|name| (OF_A_MODEL, folder.join(name)));
            self.files.extend(names);
            self.model = Some(folder.clone());
        }
        self
    }

    /// Refuses an output that is one of these files, under whatever name: links of both kinds are seen through. A
    /// file that lies in a model's folder is refused unless headroom wrote it, and so is a new one that the model
    /// would be read with.
    ///
    /// # Errors
    /// [`OutputError::Input`].
    pub(crate) fn check(&self, out: &Path) -> Result<(), OutputError> {
        let refused = |what| Err(OutputError::Input { path: out.to_owned(), what });
        let found = fs::metadata(out).ok().filter(Metadata::is_file);
        if let Some(found) = &found {
            let same = |path: &Path| fs::metadata(path).is_ok_and(|other| is_same(&other, found));
            if let Some((what, _)) = self.files.iter().find(|(_, path)| same(path)) {
                return refused(what);
            }
        }
        // A new file has a folder all the same, and a link that leads to nothing names one.
        let place = if found.is_some() { out.canonicalize() } else { end_of_links(out) };
        let Ok(place) = place else { return Ok(()) };
        let folder = place.parent().map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder });
        let Some(folder) = folder.and_then(|folder| folder.canonicalize().ok()) else { return Ok(()) };
        let model = self.model.as_deref().and_then(|model| model.canonicalize().ok());
        let beside = model.as_ref() == Some(&folder) || is_checkpoint(&folder);
        if beside && place.file_name().and_then(OsStr::to_str).is_some_and(checkpoint::is_part) {
            return refused(OF_A_MODEL);
        }
        let Some(found) = found.filter(|_| is_foreign(&place)) else { return Ok(()) };
        let within = |model: &Path| folder.starts_with(model) || holds(model, &found, DEPTH);
        if beside || is_in_the_hubs_cache(&folder) || model.is_some_and(|model| within(root(&model))) {
            return refused(OF_A_MODEL);
        }
        Ok(())
    }
}

/// Whether a folder holds a checkpoint, as far as its names tell.
fn is_checkpoint(folder: &Path) -> bool {
    let weights = |entry: &fs::DirEntry| Path::new(&entry.file_name()).extension() == Some(OsStr::new("safetensors"));
    folder.join("config.json").is_file()
        && fs::read_dir(folder).is_ok_and(|mut entries| entries.any(|entry| entry.is_ok_and(|entry| weights(&entry))))
}

/// Whether a folder is one of those in which Hugging Face tools keep a model.
fn is_in_the_hubs_cache(folder: &Path) -> bool {
    let names: Vec<&OsStr> = folder.iter().collect();
    names.windows(2).any(|pair| {
        pair[0].to_string_lossy().starts_with("models--")
            && (pair[1] == "blobs" || pair[1] == "snapshots" || pair[1] == "refs")
    })
}

/// The folder with all that belongs to the model in `folder`: in a cache of the hub, that of the whole repository.
fn root(folder: &Path) -> &Path {
    match folder.parent() {
        Some(snapshots) if snapshots.ends_with("snapshots") => snapshots.parent().unwrap_or(folder),
        _ => folder,
    }
}

/// How deep the folders of a model are searched: `snapshots/COMMIT/FILE`.
const DEPTH: usize = 3;

/// Whether a file has a name within `folder`, too.
fn holds(folder: &Path, file: &Metadata, depth: usize) -> bool {
    let Ok(entries) = fs::read_dir(folder) else { return false };
    entries.flatten().any(|entry| {
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_folder {
            depth > 1 && holds(&entry.path(), file, depth - 1)
        } else {
            fs::metadata(entry.path()).is_ok_and(|other| is_same(&other, file))
        }
    })
}

/// Whether a file holds something that headroom did not write; one that cannot be read may.
fn is_foreign(path: &Path) -> bool {
    let mut first = Vec::new();
    let read = File::open(path).and_then(|file| file.take(TELLING).read_to_end(&mut first));
    read.is_err() || Kind::of(&first) == Kind::Foreign
}
