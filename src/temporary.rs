//! A file that is written beside its place and moved there when it is whole, so that nobody ever reads half of it.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

/// A new file in the folder of the one that it is to become. It is removed unless it is moved.
#[derive(Debug)]
pub(crate) struct Temporary {
    path: PathBuf,
    file: Option<File>,
}

impl Temporary {
    /// Creates an empty file in the folder of `path`, open for reading and for appending.
    pub(crate) fn beside(path: &Path) -> io::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        loop {
            // The name does not grow with that of `path`, which may be as long as the system permits.
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = path.with_file_name(format!(".headroom-{}-{number}.tmp", process::id()));
            match OpenOptions::new().read(true).append(true).create_new(true).open(&path) {
                Ok(file) => return Ok(Self { path, file: Some(file) }),
                // A process that had the same number was killed and left it, or has it in another container.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The file.
    pub(crate) fn file(&mut self) -> &mut File {
        self.file.as_mut().expect("it is there until it is moved")
    }

    /// Moves it to `path`, in place of what is there, in one step.
    pub(crate) fn move_to(mut self, path: &Path) -> io::Result<File> {
        fs::rename(&self.path, path)?;
        Ok(self.file.take().expect("it is moved once"))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.file.is_some() {
            drop(fs::remove_file(&self.path));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_is_not_moved_leaves_nothing_behind() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let path = folder.path().join("x".repeat(255));
        let mut dropped = Temporary::beside(&path).expect("a file");
        dropped.file().write_all(b"half").expect("written");
        drop(dropped);
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
        let mut moved = Temporary::beside(&path).expect("a file");
        moved.file().write_all(b"whole").expect("written");
        moved.move_to(&path).expect("moved");
        assert_eq!(fs::read(&path).expect("a file"), b"whole");
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }
}
