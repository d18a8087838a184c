//! A place that is held while it is written: locked, where it is a file, and watched for whether it is still there.

use std::{
    fs::{self, File, Metadata, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

use super::{
    OutputError,
    kind::{Kind, TELLING},
    locks::{Reach, reach},
};
use crate::{record::stored::Stored, temporary::Temporary};

/// An output, open for appending.
///
/// Two processes never hold one file: it is locked, and after that it is looked up again whether the path still leads
/// to it. Whoever puts another file at the path holds the one that was there before, and keeps it locked until the
/// new one, which is locked as well, has taken its place. So a process that opened the old one finds that the path
/// leads elsewhere, and opens the new one.
#[derive(Debug)]
pub(in crate::record) struct Held {
    /// As it was named, for messages.
    named: PathBuf,
    /// With links resolved: what a link leads to is written, not the link.
    path: PathBuf,
    file: File,
    /// A pipe or a device is written as it is, by as many processes as want to.
    regular: bool,
    /// Whether it was created here and holds nothing that was meant.
    unused: bool,
    /// Whom its lock keeps away.
    reach: Reach,
}

/// How often a path is looked up that leads elsewhere each time.
const LOOKS: usize = 1000;

impl Held {
    /// Opens what `named` leads to, and creates it where there is nothing. Nothing that is there is changed.
    pub(in crate::record) fn open(named: &Path) -> Result<Self, OutputError> {
        let failed = |source| OutputError::Io { what: "write", path: named.to_owned(), source };
        if named.as_os_str().is_empty() {
            return Err(OutputError::NoName);
        }
        if named.to_string_lossy().contains(char::is_control) {
            return Err(OutputError::Control(named.to_owned()));
        }
        let path = match fs::metadata(named) {
            Ok(found) if !found.is_file() => return Self::stream(named, &found),
            Ok(found) => match standard(&found) {
                Some(file) => {
                    return Ok(Self {
                        named: named.to_owned(),
                        path: named.to_owned(),
                        file,
                        regular: false,
                        unused: false,
                        reach: Reach::Everywhere,
                    });
                }
                None => named.canonicalize().map_err(failed)?,
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => end_of_links(named).map_err(failed)?,
            Err(error) => return Err(failed(error)),
        };
        for _ in 0..LOOKS {
            let mut options = OpenOptions::new();
            options.read(true).append(true);
            let (file, unused) = match options.open(&path) {
                Ok(file) => (file, false),
                Err(error) if error.kind() == io::ErrorKind::NotFound => match options.create_new(true).open(&path) {
                    Ok(file) => (file, true),
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                    Err(error) => return Err(failed(error)),
                },
                Err(error) => return Err(failed(error)),
            };
            let found = file.metadata().map_err(failed)?;
            if !found.is_file() {
                continue;
            }
            if found.permissions().readonly() {
                return Err(OutputError::ReadOnly(named.to_owned()));
            }
            let reach = match file.try_lock() {
                Ok(()) => reach(&path),
                // Some file systems know no locks.
                Err(TryLockError::Error(_)) => Reach::Nobody,
                Err(TryLockError::WouldBlock) => return Err(OutputError::Locked(named.to_owned())),
            };
            let held = Self { named: named.to_owned(), path: path.clone(), file, regular: true, unused, reach };
            if held.is_there() {
                return Ok(held);
            }
        }
        Err(failed(io::Error::other("another file is put there all the time")))
    }

    /// What is no file that results could be kept in.
    fn stream(named: &Path, found: &Metadata) -> Result<Self, OutputError> {
        let what = if found.is_dir() { Some("a folder") } else { special(found) };
        if let Some(what) = what {
            return Err(OutputError::NoPlace { path: named.to_owned(), what });
        }
        let file = OpenOptions::new().append(true).open(named);
        let file = file.map_err(|source| OutputError::Io { what: "write", path: named.to_owned(), source })?;
        let (path, reach) = (named.to_owned(), Reach::Everywhere);
        Ok(Self { named: named.to_owned(), path, file, regular: false, unused: false, reach })
    }

    /// Whom its lock keeps away. What is no file is not locked, and many may write to it.
    pub(in crate::record) const fn reach(&self) -> Reach {
        self.reach
    }

    /// Whether this is a file, which can be read, kept and replaced.
    pub(in crate::record) const fn is_regular(&self) -> bool {
        self.regular
    }

    /// What is no file, to be written as it is.
    pub(in crate::record) const fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// The path as it was named.
    pub(in crate::record) fn named(&self) -> &Path {
        &self.named
    }

    /// That what is here is meant to be, though it may be empty.
    pub(in crate::record) const fn begin(&mut self) {
        self.unused = false;
    }

    /// Whether the path still leads to this file.
    fn is_there(&self) -> bool {
        match (fs::symlink_metadata(&self.path), self.file.metadata()) {
            (Ok(there), Ok(here)) => is_same(&there, &here),
            _ => false,
        }
    }

    /// The first bytes of a file.
    pub(in crate::record) fn first(&mut self) -> Result<Vec<u8>, OutputError> {
        self.read(TELLING)
    }

    /// What it holds, to be read while this is held.
    pub(in crate::record) fn stored(&self) -> Result<Stored, OutputError> {
        let file = self.file.try_clone().map_err(|error| self.failed("read", error))?;
        Ok(Stored::of_file(&self.named, file))
    }

    fn read(&mut self, most: u64) -> Result<Vec<u8>, OutputError> {
        let mut bytes = Vec::new();
        let read = self.file.rewind().and_then(|()| (&self.file).take(most).read_to_end(&mut bytes));
        read.map_err(|error| self.failed("read", error))?;
        Ok(bytes)
    }

    /// What it holds. A stream holds nothing.
    pub(in crate::record) fn kind(&mut self) -> Result<Kind, OutputError> {
        if self.regular { Ok(Kind::of(&self.first()?)) } else { Ok(Kind::Empty) }
    }

    /// Appends to it.
    pub(in crate::record) fn append(&mut self, bytes: &[u8]) -> Result<(), OutputError> {
        self.file.write_all(bytes).map_err(|error| self.failed("write", error))
    }

    /// Has everything that was appended reach the disk: neither a crash of the system nor a power failure takes it away.
    pub(in crate::record) fn sync(&self) -> Result<(), OutputError> {
        match self.file.sync_data() {
            // Neither a pipe nor every file system has anything to wait for.
            Err(error)
                if self.regular
                    && !matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) =>
            {
                Err(self.failed("write", error))
            }
            _ => Ok(()),
        }
    }

    /// Has the name of this file reach the disk, as far as the system can be told so.
    pub(in crate::record) fn sync_name(&self) {
        if let Some(folder) = self.path.parent() {
            drop(File::open(if folder.as_os_str().is_empty() { Path::new(".") } else { folder }).map(|f| f.sync_all()));
        }
    }

    /// Takes off all but the first `length` bytes.
    pub(in crate::record) fn cut(&mut self, length: u64) -> Result<(), OutputError> {
        // Opened for appending, a file cannot be cut on every system.
        let cut = || {
            let file = OpenOptions::new().write(true).open(&self.path)?;
            if !is_same(&file.metadata()?, &self.file.metadata()?) {
                return Err(io::Error::other("another file was put there"));
            }
            file.set_len(length)
        };
        cut().map_err(|error| self.failed("write", error))
    }

    /// Puts a whole file in the place of this one, and holds that. With `keep` this one gets a name of its own
    /// first, which nothing has yet: the path with `.old` at its end, or `.old.1`, `.old.2`, ... Gives that name.
    pub(in crate::record) fn replace(
        &mut self,
        mut new: Temporary,
        keep: bool,
    ) -> Result<Option<PathBuf>, OutputError> {
        if !self.is_there() {
            return Err(OutputError::Changed(self.named.clone()));
        }
        // Nobody else knows its name, so this fails only where there are no locks.
        drop(new.file().try_lock());
        let old = if keep { Some(self.keep()?) } else { None };
        match new.move_to(&self.path) {
            Ok(file) => (self.file, self.unused) = (file, false),
            Err(error) => {
                if let Some(old) = &old {
                    self.take_back(old);
                }
                return Err(self.failed("write", error));
            }
        }
        // A power failure may not undo the move.
        self.sync_name();
        Ok(old)
    }

    /// Gives this file another name, beside the one that it has.
    fn keep(&mut self) -> Result<PathBuf, OutputError> {
        let what = "keep what is in";
        for number in 0..10_000 {
            let old = old(&self.path, number);
            match fs::hard_link(&self.path, &old) {
                Ok(()) => return Ok(old),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                // A file system without hard links.
                Err(_) if self.moved_to(&old)? => return Ok(old),
                Err(_) => {}
            }
        }
        Err(self.failed(what, io::Error::other("there are ten thousand such files already")))
    }

    /// Moves this file to a name that nothing has, and holds an empty one in its place; not where something has it.
    fn moved_to(&mut self, old: &Path) -> Result<bool, OutputError> {
        let what = "keep what is in";
        match File::create_new(old) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            Err(error) => return Err(self.failed(what, error)),
        }
        if let Err(error) = fs::rename(&self.path, old) {
            drop(fs::remove_file(old));
            return Err(self.failed(what, error));
        }
        // In between another run may have begun here.
        let mut there = Self::open(&self.path)?;
        if there.kind()? != Kind::Empty {
            return Err(OutputError::Locked(self.named.clone()));
        }
        // Dropped with this one's file in it, and not created here.
        std::mem::swap(self, &mut there);
        there.unused = false;
        Ok(true)
    }

    /// Undoes [`Self::keep`].
    fn take_back(&self, old: &Path) {
        let one = matches!((fs::metadata(old), fs::metadata(&self.path)), (Ok(a), Ok(b)) if is_same(&a, &b));
        drop(if one { fs::remove_file(old) } else { fs::rename(old, &self.path) });
    }

    fn failed(&self, what: &'static str, source: io::Error) -> OutputError {
        OutputError::Io { what, path: self.named.clone(), source }
    }

    /// Makes a file that is to take the place of this one.
    pub(in crate::record) fn successor(&self) -> Result<Temporary, OutputError> {
        Temporary::beside(&self.path).map_err(|error| self.failed("write", error))
    }

    /// Makes a file with these contents, on the disk, that is to take the place of this one.
    pub(in crate::record) fn successor_of(&self, bytes: &[u8]) -> Result<Temporary, OutputError> {
        let mut new = self.successor()?;
        new.file().write_all(bytes).map_err(|error| self.failed("write", error))?;
        self.settle(&mut new)?;
        Ok(new)
    }

    /// Has a file that is written and is to take the place of this one reach the disk, with this one's permissions.
    pub(in crate::record) fn settle(&self, new: &mut Temporary) -> Result<(), OutputError> {
        let settled = (|| {
            let file = new.file();
            if !self.unused {
                file.set_permissions(self.file.metadata()?.permissions())?;
            }
            file.sync_all()
        })();
        settled.map_err(|error| self.failed("write", error))
    }
}

impl Drop for Held {
    /// What was created and never used is removed, while it is still locked. Then the lock is given up: closing the file would not
    /// do so where another thread starts a process at this moment, which has the open file until it is another program.
    fn drop(&mut self) {
        if self.unused && self.file.metadata().is_ok_and(|found| found.len() == 0) && self.is_there() {
            drop(fs::remove_file(&self.path));
        }
        if self.regular {
            drop(self.file.unlock());
        }
    }
}

/// The name under which what `path` held is kept.
fn old(path: &Path, number: usize) -> PathBuf {
    let mut old = path.as_os_str().to_owned();
    old.push(".old");
    if number > 0 {
        old.push(format!(".{number}"));
    }
    PathBuf::from(old)
}

/// Where a link leads that leads to nothing; any other path itself.
pub(super) fn end_of_links(named: &Path) -> io::Result<PathBuf> {
    let mut path = named.to_owned();
    for _ in 0..40 {
        match fs::read_link(&path) {
            Ok(to) => path = path.parent().unwrap_or(Path::new("")).join(to),
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::other("its links lead to each other"))
}

/// Whether two files are one.
#[cfg(unix)]
pub(super) fn is_same(a: &Metadata, b: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// Whether two files are one, as far as the standard library can tell here.
#[cfg(not(unix))]
pub(super) fn is_same(a: &Metadata, b: &Metadata) -> bool {
    a.created().ok() == b.created().ok() && a.is_file() == b.is_file()
}

/// The standard output or the standard error, where this file is what the shell has made of it: it must not be taken
/// away by a rename, and whoever writes to both shares one position with the shell.
#[cfg(unix)]
fn standard(found: &Metadata) -> Option<File> {
    use std::os::fd::AsFd;
    let (out, error) = (io::stdout(), io::stderr());
    [out.as_fd(), error.as_fd()].into_iter().find_map(|fd| {
        let file = File::from(fd.try_clone_to_owned().ok()?);
        is_same(&file.metadata().ok()?, found).then_some(file)
    })
}

/// The standard output, which cannot be told from other files here.
#[cfg(not(unix))]
const fn standard(_: &Metadata) -> Option<File> {
    None
}

/// What no result is written to.
#[cfg(unix)]
fn special(found: &Metadata) -> Option<&'static str> {
    use std::os::unix::fs::FileTypeExt;
    let kind = found.file_type();
    if kind.is_block_device() {
        Some("a disk")
    } else if kind.is_socket() {
        Some("a socket")
    } else {
        None
    }
}

/// What no result is written to.
#[cfg(not(unix))]
const fn special(_: &Metadata) -> Option<&'static str> {
    None
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn place(contents: &str) -> (TempDir, PathBuf) {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().canonicalize().expect("a path").join("x");
        fs::write(&path, contents).expect("a file");
        (folder, path)
    }

    #[test]
    fn one_file_is_held_once() {
        let (_folder, path) = place("");
        let held = Held::open(&path).expect("a file");
        assert!(matches!(Held::open(&path), Err(OutputError::Locked(_))));
        drop(held);
        Held::open(&path).expect("it is free again");
    }

    #[test]
    fn a_lock_is_given_up_while_somebody_else_has_the_open_file() {
        let (_folder, path) = place("");
        let held = Held::open(&path).expect("a file");
        let inherited = held.file.try_clone().expect("the same open file");
        drop(held);
        Held::open(&path).expect("it is free");
        drop(inherited);
    }

    #[test]
    fn what_was_created_and_not_used_is_removed_and_everything_else_stays() {
        let (_folder, path) = place("");
        drop(Held::open(&path).expect("a file"));
        assert!(path.exists(), "it was there before");
        fs::remove_file(&path).expect("removed");
        drop(Held::open(&path).expect("a file"));
        assert!(!path.exists());
        let mut used = Held::open(&path).expect("a file");
        used.begin();
        drop(used);
        assert!(path.exists());
        fs::remove_file(&path).expect("removed");
        let unused = Held::open(&path).expect("a file");
        fs::remove_file(&path).expect("removed");
        fs::write(&path, "").expect("another file");
        drop(unused);
        assert!(path.exists(), "another file is there");
    }

    #[test]
    fn what_is_kept_gets_the_first_name_that_is_free() {
        let (folder, path) = place("first");
        fs::write(folder.path().join("x.old"), "foreign").expect("a file");
        fs::create_dir(folder.path().join("x.old.1")).expect("a folder");
        for (contents, number) in [("first", 2), ("second", 3)] {
            let mut held = Held::open(&path).expect("a file");
            let new = held.successor_of(b"second").expect("written");
            let kept = held.replace(new, true).expect("replaced").expect("a name");
            assert_eq!(kept, old(&path, number));
            assert_eq!(fs::read_to_string(kept).expect("a file"), contents);
            assert!(matches!(Held::open(&path), Err(OutputError::Locked(_))), "the new file is held as well");
        }
        assert_eq!(fs::read_to_string(folder.path().join("x.old")).expect("a file"), "foreign");
    }

    #[test]
    fn where_there_are_no_hard_links_what_is_kept_is_moved() {
        let (folder, path) = place("first");
        fs::write(folder.path().join("x.old"), "foreign").expect("a file");
        let mut held = Held::open(&path).expect("a file");
        assert!(!held.moved_to(&old(&path, 0)).expect("taken"));
        assert!(held.moved_to(&old(&path, 1)).expect("free"));
        assert_eq!(held.kind().expect("a file"), Kind::Empty);
        assert!(matches!(Held::open(&path), Err(OutputError::Locked(_))));
        assert_eq!(fs::read_to_string(old(&path, 1)).expect("a file"), "first");
        held.take_back(&old(&path, 1));
        assert_eq!(fs::read_to_string(&path).expect("a file"), "first");
        assert!(!old(&path, 1).exists());
    }

    #[test]
    fn a_file_that_another_program_put_there_is_not_replaced() {
        let (_folder, path) = place("ours");
        let mut held = Held::open(&path).expect("a file");
        let new = held.successor_of(b"new").expect("written");
        fs::remove_file(&path).expect("removed");
        fs::write(&path, "theirs").expect("a file");
        assert!(matches!(held.replace(new, false), Err(OutputError::Changed(_))));
        assert_eq!(fs::read_to_string(&path).expect("a file"), "theirs");
    }
}
