//! One file from the hub into the cache.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{ErrorKind, Read, Write},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use ring::digest;

use super::{
    super::index::INDEX,
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
    /// attempt that breaks off is followed by others as long as they keep something that was not there before: what
    /// comes and is thrown away, as too long or as the same again, is nothing.
    pub(super) fn fetch(&self, file: &str, progress: &mut dyn Progress) -> Result<(), HubError> {
        let (mut fruitless, mut meagre, mut most, mut waited) = (0, 0, 0, false);
        loop {
            let mut kept = Kept::default();
            let error = match self.attempt(file, &mut kept, progress) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if !is_transient(&error) || self.settings.retries == 0 {
                return Err(error);
            }
            if let (Some(pause), false) = (asked_for(&error), waited) {
                waited = true;
                progress.wait(pause);
                thread::sleep(pause);
                continue;
            }
            let new = kept.end.saturating_sub(kept.start.max(most));
            most = most.max(kept.end);
            fruitless = if new > 0 { 0 } else { fruitless + 1 };
            meagre += u32::from(new < MEAGRE);
            if fruitless > self.settings.retries || meagre > MOST_MEAGRE {
                return Err(error);
            }
            thread::sleep(self.settings.pause * 2_u32.pow(fruitless.min(5)));
        }
    }

    fn attempt(&self, file: &str, kept: &mut Kept, progress: &mut dyn Progress) -> Result<(), HubError> {
        // Asked for at each attempt: the addresses that content servers hand out expire.
        let location = self.client.locate(self.commit, file)?;
        let most = most_bytes(file);
        if location.size > most {
            return Err(HubError::TooLarge { file: file.to_owned(), size: location.size, most });
        }
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
            self.complete(&part, file, &location, kept, progress)?;
            check(&part, file, &location.etag, kept)?;
            progress.finish();
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
        kept: &mut Kept,
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
        *kept = Kept { start: len, end: len };
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
                kept.end = len;
                progress.advance(n as u64);
            }
        } else {
            progress.start(file, location.size, len);
        }
        if len > location.size {
            part.set_len(0).map_err(failed)?;
            kept.end = 0;
        }
        if len != location.size {
            let error = format!("{file} has {} bytes, of which {len} came", location.size);
            return Err(network(&location.url, error));
        }
        // Only whole files get a name that says so, after a loss of power too.
        part.sync_all().map_err(failed)
    }
}

/// Bytes of a file that are here, before an attempt and after it.
#[derive(Default)]
struct Kept {
    start: u64,
    end: u64,
}

/// Attempts that keep fewer new bytes are counted, whatever else they do...
const MEAGRE: u64 = 64 << 10;
/// ... and so many of them end a download: a server that cuts every answer short would be asked for ever.
const MOST_MEAGRE: u32 = 100;
/// The longest wait that a hub may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// The wait that the hub asks for, if it is one that can be waited for.
pub(super) fn asked_for(error: &HubError) -> Option<Duration> {
    match error {
        HubError::Status { retry_after: Some(pause), .. } if *pause <= LONGEST_WAIT => Some(*pause),
        _ => None,
    }
}

/// Bytes of a file that are fetched at most. Weights are as large as they are; everything else is read as a whole.
fn most_bytes(file: &str) -> u64 {
    match file {
        _ if file.ends_with(".safetensors") => u64::MAX,
        "tokenizer.json" => 256 << 20,
        INDEX => 64 << 20,
        _ => 16 << 20,
    }
}

/// Holds what came against the SHA-256 that the hub announced, where the name of the blob is one: of the files that the
/// hub keeps apart, which all weights are. What differs is thrown away.
fn check(part: &Path, file: &str, etag: &str, kept: &mut Kept) -> Result<(), HubError> {
    let announced = etag.to_ascii_lowercase();
    if announced.len() != 64 || !announced.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(());
    }
    let mut contents = File::open(part).map_err(disk(part))?;
    let (mut hash, mut piece) = (digest::Context::new(&digest::SHA256), vec![0; PIECE]);
    loop {
        match contents.read(&mut piece) {
            Ok(0) => break,
            Ok(n) => hash.update(&piece[..n]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(disk(part)(error)),
        }
    }
    let found: String = hash.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    if found == announced {
        return Ok(());
    }
    fs::remove_file(part).map_err(disk(part))?;
    kept.end = 0;
    Err(HubError::Contents { file: file.to_owned(), found, announced })
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
        HubError::Network { .. } | HubError::Contents { .. } => true,
        HubError::Status { status, .. } => matches!(status, 408 | 429 | 500 | 502 | 503 | 504),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_read_whole_has_a_limit_of_its_kind() {
        let limits = ["model-1.safetensors", "tokenizer.json", INDEX, "config.json"].map(most_bytes);
        assert_eq!(limits, [u64::MAX, 256 << 20, 64 << 20, 16 << 20]);
    }
}
