//! One file from the hub into the cache.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{ErrorKind, Read, Write},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use super::{
    HubError, HubSettings, Progress,
    cache::ModelCache,
    client::{Answer, Client, Location, network},
    store::disk,
};

/// Bytes read at once.
const PIECE: usize = 256 << 10;

/// What a download needs besides the file's name.
pub(super) struct Transfer<'a> {
    pub(super) settings: &'a HubSettings,
    pub(super) client: &'a Client<'a>,
    pub(super) cache: &'a ModelCache,
    pub(super) commit: &'a str,
}

impl Transfer<'_> {
    /// Has the snapshot hold `file`, which takes a download unless its blob is there already. An
    /// attempt that breaks off is followed by others as long as they bring something.
    pub(super) fn fetch(&self, file: &str, progress: &mut dyn Progress) -> Result<(), HubError> {
        let mut fruitless = 0;
        loop {
            let mut received = 0;
            let error = match self.attempt(file, &mut received, progress) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            fruitless = if received > 0 { 0 } else { fruitless + 1 };
            if !is_transient(&error) || fruitless > self.settings.retries || self.settings.retries == 0 {
                return Err(error);
            }
            thread::sleep(self.settings.pause * 2_u32.pow(fruitless.min(5)));
        }
    }

    fn attempt(&self, file: &str, received: &mut u64, progress: &mut dyn Progress) -> Result<(), HubError> {
        // Asked for at each attempt: the addresses that content servers hand out expire.
        let location = self.client.locate(self.commit, file)?;
        let blobs = self.cache.blobs();
        fs::create_dir_all(&blobs).map_err(disk(&blobs))?;
        let (blob, part, lock) = (
            blobs.join(&location.etag),
            blobs.join(format!("{}.part", location.etag)),
            format!("{}.lock", location.etag),
        );
        let _guard = locked(&blobs.join(lock), file, self.settings.timeout)?;
        // Another revision may have the same contents.
        if !fs::metadata(&blob).is_ok_and(|blob| blob.is_file() && blob.len() == location.size) {
            self.complete(&part, file, &location, received, progress)?;
            fs::rename(&part, &blob).map_err(disk(&blob))?;
        }
        self.cache.link(self.commit, file, &location.etag)
    }

    /// Downloads what is lacking at the end of `part`.
    fn complete(
        &self,
        path: &Path,
        file: &str,
        location: &Location,
        received: &mut u64,
        progress: &mut dyn Progress,
    ) -> Result<(), HubError> {
        let failed = |error| disk(path)(error);
        let mut part = OpenOptions::new().append(true).create(true).open(path).map_err(failed)?;
        let mut len = part.metadata().map_err(failed)?.len();
        if len > location.size {
            // Whatever this is, it is not the beginning of the file.
            part.set_len(0).map_err(failed)?;
            len = 0;
        }
        if len < location.size {
            let Answer { status, body, .. } = self.client.contents(location, len)?;
            if status == 200 && len > 0 {
                // A server that knows no ranges sends everything.
                part.set_len(0).map_err(failed)?;
                len = 0;
            }
            progress.start(file, location.size, len);
            // One byte more shows an answer that is too long.
            let mut body = body.take(location.size - len + 1);
            let mut piece = vec![0; PIECE];
            loop {
                let n = match body.read(&mut piece) {
                    Ok(0) => break,
                    Ok(n) => n,
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    Err(error) => return Err(network(&location.url, error)),
                };
                part.write_all(&piece[..n]).map_err(failed)?;
                len += n as u64;
                *received += n as u64;
                progress.advance(n as u64);
            }
        } else {
            progress.start(file, location.size, len);
        }
        if len > location.size {
            part.set_len(0).map_err(failed)?;
        }
        if len != location.size {
            let error = format!("{file} has {} bytes, of which {len} came", location.size);
            return Err(network(&location.url, error));
        }
        // Only whole files get a name that says so, after a loss of power too.
        part.sync_all().map_err(failed)?;
        progress.finish();
        Ok(())
    }
}

/// Locks `path` as hf-hub does, so that two processes do not write one file; waits for `patience` at
/// most, since small files of another are soon done.
fn locked(path: &Path, file: &str, patience: Duration) -> Result<File, HubError> {
    let lock = OpenOptions::new().write(true).create(true).truncate(false).open(path).map_err(disk(path))?;
    let since = Instant::now();
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::WouldBlock) if since.elapsed() < patience => thread::sleep(Duration::from_millis(50)),
            Err(TryLockError::WouldBlock) => {
                return Err(HubError::Busy { file: file.to_owned(), lock: path.to_owned() });
            }
            Err(TryLockError::Error(error)) => return Err(disk(path)(error)),
        }
    }
}

/// Whether the same request may succeed a little later.
fn is_transient(error: &HubError) -> bool {
    match error {
        HubError::Network { .. } => true,
        HubError::Status { status, .. } => matches!(status, 408 | 429 | 500 | 502 | 503 | 504),
        _ => false,
    }
}
