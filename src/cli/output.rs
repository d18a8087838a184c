//! Where results and messages go.
#![expect(clippy::print_stderr, reason = "the one place from which the program speaks")]

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, BufWriter, IsTerminal, Write},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::args::{Format, OutputArgs};
use crate::{
    checkpoint::{Source, hub},
    record::{
        Record,
        text::{self, Look},
    },
    search::RunError,
    subject::Subject,
};

/// Bytes to stdout, at once.
pub(super) fn stdout(bytes: &[u8]) -> Result<()> {
    Ok(to_stdout(bytes)?)
}

/// Errors name the place, since one that says only that a device is full could be about any file.
fn to_stdout(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| within("stdout", &error))
}

fn within(place: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot write to {place}: {error}"))
}

/// One JSON object on a line of its own.
pub(super) fn json(value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_vec(value)?;
    text.push(b'\n');
    stdout(&text)
}

/// A line on stderr.
pub(super) fn message(text: &str) {
    eprintln!("headroom: {text}");
}

/// Whether an error only says that nobody reads the output any more.
pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<io::Error>().or_else(|| match cause.downcast_ref::<RunError>() {
            Some(RunError::Io(error)) => Some(error),
            _ => None,
        });
        io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

/// Colors on a terminal, unless `NO_COLOR` is set to anything (<https://no-color.org>) or the terminal is dumb.
pub(super) fn look() -> Look {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
        || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    Look { color: io::stdout().is_terminal() && !refused }
}

/// A progress bar on a terminal, nothing elsewhere.
fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    bar.set_style(
        ProgressStyle::with_template("{spinner} {wide_bar} token {pos} of {len}, {eta} left")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// What takes less than this shows no progress.
const PATIENCE: Duration = Duration::from_millis(400);

/// Whether `path` names a file that the model consists of: emptying one that is mapped kills the process, and the
/// model is gone. Links are resolved: a cache's folders hold little else.
fn is_of_the_model(path: &Path, subject: &Subject) -> bool {
    let Source::Folder(folder) = subject.checkpoint().source() else { return false };
    let same_file = |name: &str| {
        subject.checkpoint().file(name).is_some()
            && matches!((path.canonicalize(), folder.join(name).canonicalize()), (Ok(a), Ok(b)) if a == b)
    };
    let shards = subject.checkpoint().tensors().iter().map(|tensor| tensor.file.as_str());
    let names: BTreeSet<&str> = shards.chain(path.file_name().and_then(|name| name.to_str())).collect();
    names.into_iter().any(same_file)
}

/// A bar for each file that is downloaded.
#[derive(Default)]
pub(super) struct Download {
    bar: Option<ProgressBar>,
}

impl hub::Progress for Download {
    fn start(&mut self, file: &str, size: u64, present: u64) {
        let bar = ProgressBar::with_draw_target(Some(size), ProgressDrawTarget::stderr());
        let template = "{msg} {wide_bar} {bytes}/{total_bytes} at {bytes_per_sec}, {eta} left";
        bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message(file.to_owned());
        bar.set_position(present);
        bar.reset_eta();
        self.bar = Some(bar);
    }

    fn advance(&mut self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
        }
    }

    fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// Takes records as they are finished: onto stdout in the form asked for, and into a file.
pub(super) struct Sink {
    format: Format,
    look: Look,
    file: Option<BufWriter<File>>,
    prompt: Option<String>,
    /// Finished records that are shown at the end.
    pub(super) kept: Vec<Record>,
    started: Instant,
    bar: Option<ProgressBar>,
}

impl Sink {
    /// Opens the file before anything is run, so that a path that cannot be written is known at once; and after
    /// the input was found good, since opening empties what an earlier run left there.
    pub(super) fn new(args: &OutputArgs, subject: &Subject) -> Result<Self> {
        let open = |path: &Path| -> Result<_> {
            if is_of_the_model(path, subject) {
                bail!("--out {} is a file of the model; give another name", path.display());
            }
            let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
            Ok(BufWriter::new(file))
        };
        let file = args.out.as_deref().map(open).transpose()?;
        Ok(Self {
            format: args.format,
            look: look(),
            file,
            prompt: None,
            kept: Vec::new(),
            started: Instant::now(),
            bar: None,
        })
    }

    pub(super) fn wave(&mut self, step: usize, of: usize) {
        if self.started.elapsed() > PATIENCE {
            let bar = self.bar.get_or_insert_with(bar);
            bar.set_length(of as u64);
            bar.set_position(step as u64);
        }
    }

    pub(super) fn record(&mut self, record: &Record) -> Result<(), RunError> {
        // The waves of this part are over.
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        let mut line = serde_json::to_vec(record).map_err(io::Error::from)?;
        line.push(b'\n');
        if let Some(file) = &mut self.file {
            // A record is kept from here on, whatever happens to the rest of the run.
            file.write_all(&line).and_then(|()| file.flush()).map_err(|error| within("the file of --out", &error))?;
        }
        let shown = match self.format {
            Format::Json => {
                self.kept.push(record.clone());
                return Ok(());
            }
            Format::Jsonl => line,
            Format::Text => {
                let mut shown = String::new();
                if self.prompt.as_ref() != Some(&record.prompt) {
                    shown.push_str(&text::heading(&record.prompt, self.look));
                    self.prompt = Some(record.prompt.clone());
                }
                shown.push_str(&text::record(record, self.look));
                shown.into_bytes()
            }
        };
        Ok(to_stdout(&shown)?)
    }
}
