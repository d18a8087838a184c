//! The parent's side of a child.

use std::{
    io::{self, Read},
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use super::{ChildError, OUT_OF_MEMORY, PANICKED, frame};

/// How much is kept of what a child writes to its standard error: the last bytes.
const TAIL: usize = 8 << 10;
/// Longest part of it that a message shows, in characters.
const SHOWN: usize = 400;

/// A frame that is on its way to the child: whatever owns its bytes.
type Outgoing = Box<dyn AsRef<[u8]> + Send>;

/// A running child that is sent frames and sends frames. It is killed when this is dropped, which does not wait until the
/// system has taken its memory back.
///
/// Threads write to it and read from it, so that nothing here waits for a child that does not read, or does not end, for
/// longer than was agreed on.
#[derive(Debug)]
pub(crate) struct Process {
    /// None only while this is dropped.
    child: Option<Child>,
    outgoing: Sender<Outgoing>,
    incoming: Receiver<io::Result<Vec<u8>>>,
    tail: Arc<Mutex<Vec<u8>>>,
    listening: Option<JoinHandle<()>>,
    /// What it may take, for messages alone; the child sets its limits itself.
    memory: usize,
    processor: Duration,
    ended: Option<ChildError>,
}

impl Process {
    /// Starts `command` with its standard streams in the parent's hands. A frame from the child has at most `longest` bytes.
    /// On Unix the child gets a process group of its own, so that Ctrl-C in a terminal is for the parent alone.
    ///
    /// # Errors
    /// [`ChildError::Start`].
    pub(crate) fn start(command: &mut Command, longest: usize) -> Result<Self, ChildError> {
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(command, 0);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| ChildError::Start(format!("{}: {error}", command.get_program().display())))?;
        let (mut stdin, mut stdout) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let stderr = child.stderr.take().expect("piped");

        let (outgoing, queue) = mpsc::channel::<Outgoing>();
        // They end when the child does: a pipe that nobody has at its other end gives an error or an end.
        let writing = move || {
            for part in queue {
                if frame::write(&mut stdin, (*part).as_ref()).is_err() {
                    // It ended; whoever waits for its answer is told why.
                    break;
                }
            }
        };
        let (sender, incoming) = mpsc::channel();
        let reading = move || {
            while let Some(found) = frame::read(&mut stdout, longest).transpose() {
                let failed = found.is_err();
                if sender.send(found).is_err() || failed {
                    break;
                }
            }
        };
        let tail = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&tail);
        let started = thread::Builder::new().spawn(writing).and_then(|_| thread::Builder::new().spawn(reading));
        let listening = started.and_then(|_| thread::Builder::new().spawn(move || listen(stderr, &kept)));
        let listening = match listening {
            Ok(listening) => Some(listening),
            Err(error) => {
                end(&mut child);
                return Err(ChildError::Start(error.to_string()));
            }
        };
        let (memory, processor) = (usize::MAX, Duration::MAX);
        let child = Some(child);
        Ok(Self { child, outgoing, incoming, tail, listening, memory, processor, ended: None })
    }

    /// Says what the child may take from now on, so that an error can name it.
    pub(crate) fn is_allowed(&mut self, memory: usize, processor: Duration) {
        (self.memory, self.processor) = (memory, processor);
    }

    /// Sends a frame, without waiting for the child to read it.
    pub(crate) fn send(&self, frame: impl AsRef<[u8]> + Send + 'static) {
        // A child that has ended is noticed where an answer is waited for.
        drop(self.outgoing.send(Box::new(frame)));
    }

    /// The next frame of the child, which may take up to `patience`. After an error the child is gone, and each later call
    /// gives the same error.
    ///
    /// # Errors
    /// [`ChildError`].
    pub(crate) fn receive(&mut self, patience: Duration) -> Result<Vec<u8>, ChildError> {
        if let Some(error) = &self.ended {
            return Err(error.clone());
        }
        let error = match self.incoming.recv_timeout(patience) {
            Ok(Ok(frame)) => return Ok(frame),
            Ok(Err(error)) => {
                match error.get_ref().and_then(|inner| inner.downcast_ref::<frame::TooLong>()) {
                    Some(&frame::TooLong { len, limit }) => ChildError::Long { len, limit },
                    // A frame that was cut short: what ended the child says more.
                    None => self.why_it_ended(),
                }
            }
            Err(RecvTimeoutError::Timeout) => ChildError::Silent { limit: patience },
            Err(RecvTimeoutError::Disconnected) => self.why_it_ended(),
        };
        self.child.iter_mut().for_each(end);
        self.ended = Some(error.clone());
        Err(error)
    }

    /// Of a child whose standard output is closed.
    fn why_it_ended(&mut self) -> ChildError {
        // One that only closed it, and goes on, is not waited for.
        let status = match self.child.as_mut().and_then(|child| wait(child, Duration::from_secs(2))) {
            Some(status) => status,
            None => return ChildError::Protocol("it closed its standard output".to_owned()),
        };
        if let Some(listening) = self.listening.take()
            && !held_open(&listening)
        {
            drop(listening.join());
        }
        let said = String::from_utf8_lossy(&self.tail.lock().unwrap_or_else(PoisonError::into_inner)).into_owned();
        explain(status, &said, self.memory, self.processor)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // It fails only where the child is gone already.
        drop(child.kill());
        if matches!(child.try_wait(), Ok(None)) {
            // What is left of a child that was killed is its entry in the system's table, which a thread takes out, or the
            // system where this process ends before.
            drop(thread::Builder::new().spawn(move || child.wait()));
        }
    }
}

/// What a status, and what was said before, mean.
#[cfg_attr(unix, expect(clippy::needless_return, reason = "what follows is of other systems"))]
fn explain(status: ExitStatus, said: &str, memory: usize, processor: Duration) -> ChildError {
    let text = shown(said);
    match status.code() {
        Some(OUT_OF_MEMORY) => return ChildError::Memory { limit: memory },
        Some(PANICKED) => return ChildError::Panicked(text),
        Some(code) => return ChildError::Exit { code, said: text },
        None => {}
    }
    #[cfg(unix)]
    {
        let number = std::os::unix::process::ExitStatusExt::signal(&status).unwrap_or(0);
        // Rust's own words, which its standard library writes before it aborts.
        return match number {
            libc::SIGXCPU => ChildError::Processor { limit: processor },
            libc::SIGABRT if said.contains("has overflowed its stack") => ChildError::Stack,
            libc::SIGABRT if said.contains("memory allocation of") => ChildError::Memory { limit: memory },
            _ => ChildError::Signal { number, said: text },
        };
    }
    #[cfg(not(unix))]
    {
        let _ = processor;
        ChildError::Exit { code: -1, said: text }
    }
}

/// The last part of a text as it may stand in a message: on one line, and without what could move a terminal's cursor.
fn shown(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let line = words.join(" ");
    let skipped = line.chars().count().saturating_sub(SHOWN);
    let kept = line.chars().skip(skipped).map(|c| if c.is_control() { '\u{fffd}' } else { c });
    if skipped > 0 { std::iter::once('…').chain(kept).collect() } else { kept.collect() }
}

/// Keeps the last bytes of the standard error, and reads all of it, so that a child that writes much does not wait for ever.
fn listen(mut stderr: ChildStderr, tail: &Mutex<Vec<u8>>) {
    let mut part = [0; 4096];
    while let Ok(read) = stderr.read(&mut part) {
        if read == 0 {
            return;
        }
        let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend_from_slice(&part[..read]);
        let old = tail.len().saturating_sub(TAIL);
        tail.drain(..old);
    }
}

/// Whether a thread is still reading after a moment: a child's own child may hold the pipe open.
fn held_open(listening: &JoinHandle<()>) -> bool {
    for _ in 0..100 {
        if listening.is_finished() {
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
    true
}

/// Waits for the end of a child whose output has ended, for at most `patience`.
fn wait(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let step = Duration::from_millis(1);
    let mut waited = Duration::ZERO;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if waited < patience => thread::sleep(step),
            _ => return None,
        }
        waited += step;
    }
}

/// Ends a child, and waits until it is gone.
fn end(child: &mut Child) {
    // Both fail only where it is gone already.
    drop(child.kill());
    drop(child.wait());
}
