//! Where results and messages go.
//!
//! This is the one place from which the program speaks. What is for people passes [`text`] or [`message`], which spell out
//! what a terminal would act upon: names, records and errors come from strangers. Nobody may be there to listen, so a
//! message that cannot be written is lost, and a closed stdout is told from a failure.

use std::{
    io::{self, BufWriter, IsTerminal, Write},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::{
    args::{BoundArgs, Format, OutputArgs, PromptArgs, ThresholdArgs},
    exit_code, interrupt,
};
use crate::{
    checkpoint::hub,
    record::{
        Record, Restored, SCHEMA,
        journal::{Holds, Journal, JournalError, Resumed},
        output::{Inputs, Kind, Output, OutputError, Reach},
        summary::{MOST_EDITS, Summaries, Summary},
    },
    report::terminal::{Look, harmless, plain, records},
    search::{Beginning, Progress, RunError},
    subject::Subject,
};

/// Whether --out gets the results as well, so that a run goes on whose stdout nobody reads any more.
static KEPT: AtomicBool = AtomicBool::new(false);
/// Whether nobody reads stdout any more.
static UNREAD: AtomicBool = AtomicBool::new(false);

/// Bytes for programs to stdout, at once.
pub(super) fn stdout(bytes: &[u8]) -> Result<()> {
    Ok(to_stdout(bytes)?)
}

/// Text for people to stdout, at once.
pub(super) fn text(text: &str) -> Result<()> {
    Ok(text_to_stdout(text)?)
}

fn text_to_stdout(text: &str) -> io::Result<()> {
    to_stdout(harmless(text, look()).as_bytes())
}

/// Errors name the place, since one that says only that a device is full could be about any file.
fn to_stdout(bytes: &[u8]) -> io::Result<()> {
    if UNREAD.load(Ordering::Relaxed) && KEPT.load(Ordering::Relaxed) {
        return Ok(());
    }
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe && KEPT.load(Ordering::Relaxed) => {
            UNREAD.store(true, Ordering::Relaxed);
            message("nobody reads stdout any more; the run goes on, and --out gets all of it");
            Ok(())
        }
        written => written.map_err(|error| within("stdout", &error)),
    }
}

/// Stdout as [`to_stdout`] writes it. What is long goes through it in parts, so that no memory holds the whole.
struct Stdout;

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        to_stdout(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes that are written to stdout at once.
pub(super) const AT_ONCE: usize = 64 << 10;

/// The keys of an object and the brace behind them, without the brace before them.
struct WithoutBrace<W> {
    out: W,
    begun: bool,
}

impl<W: Write> Write for WithoutBrace<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let brace = usize::from(!self.begun && !bytes.is_empty());
        self.begun |= brace == 1;
        self.out.write_all(&bytes[brace..])?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// For what is shown once everything is done: where nobody reads it any more, that is said, and what was found is judged
/// all the same.
pub(super) fn or_unread(written: Result<()>) -> Result<()> {
    match written {
        Err(error) if is_broken_pipe(&error) => {
            message("nobody reads stdout any more: the end of the results is lost");
            Ok(())
        }
        other => other,
    }
}

fn within(place: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot write to {place}: {error}"))
}

/// One JSON object on a line of its own.
pub(super) fn json(value: &impl Serialize) -> Result<()> {
    let mut out = BufWriter::with_capacity(AT_ONCE, Stdout);
    serde_json::to_writer(&mut out, value).map_err(io::Error::from)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

/// What a command reads besides what its arguments of output name.
pub(super) fn inputs(prompts: &PromptArgs, threshold: &ThresholdArgs, subject: &Subject) -> Inputs {
    let files = [
        ("the file of --prompts", &prompts.prompts),
        ("the file of --calibration", &threshold.calibration),
        ("the file of --calibration-from", &threshold.calibration_from),
    ];
    let inputs = Inputs::default().and_model(subject.checkpoint());
    let given = files.into_iter().filter_map(|(what, path)| Some((what, path.as_deref()?)));
    given.fold(inputs, |inputs, (what, path)| inputs.and(what, path))
}

/// Refuses an output that is one of these files.
pub(super) fn check(out: Option<&Path>, inputs: &Inputs) -> Result<()> {
    out.map_or(Ok(()), |out| inputs.check(out).map_err(|error| anyhow!("--out {error}")))
}

/// Refuses an output that is one of the files that a list of values names.
pub(super) fn check_list(out: Option<&Path>, what: &'static str, list: &str) -> Result<()> {
    let files = list.split(',').filter_map(|item| item.trim().strip_prefix('@'));
    check(out, &files.fold(Inputs::default(), |inputs, file| inputs.and(what, Path::new(file))))
}

/// Puts a whole result into its place, and says where what was there is kept.
pub(super) fn write(place: Output, bytes: &[u8]) -> Result<()> {
    if let Some(old) = place.write(bytes)? {
        kept(&old);
    }
    Ok(())
}

/// Says where what --out held is kept.
pub(super) fn kept(old: &Path) {
    message(&format!("what --out held is kept in {}", old.display()));
}

/// Says that --out gets the results as well.
pub(super) fn keeps() {
    KEPT.store(true, Ordering::Relaxed);
}

/// The place of a whole result, which is kept there whoever reads stdout.
pub(super) fn claim(path: &Path, kind: Kind, force: bool) -> Result<Output> {
    let place = Output::claim(path, kind, force)?;
    KEPT.store(true, Ordering::Relaxed);
    Ok(place)
}

/// Characters of a message that are shown: a name or a value that it quotes may be of any length.
const LONGEST: usize = 1_500;

/// A line on stderr, whatever the names and files hold that it is about.
pub(super) fn message(text: &str) {
    let shown = plain(&text.chars().take(LONGEST).collect::<String>());
    let rest = if text.chars().nth(LONGEST).is_some() { "..." } else { "" };
    to_stderr(&format!("headroom: {shown}{rest}\n"));
}

/// A line for programs on stderr.
pub(super) fn log(line: &str) {
    to_stderr(&format!("{line}\n"));
}

/// What the parser of arguments says, in lines of its own.
pub(super) fn usage(text: &str, color: bool) {
    to_stderr(&harmless(text, Look { color }));
}

/// A terminal that is gone or a disk that is full takes a message away, and not the run.
fn to_stderr(text: &str) {
    let mut stderr = io::stderr().lock();
    drop(stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush()));
}

/// Whether an error says that the reader of the output has gone, and nothing else.
pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let of_a_file = |cause: &(dyn std::error::Error + 'static)| {
        cause.is::<OutputError>()
            || cause.is::<JournalError>()
            || matches!(cause.downcast_ref(), Some(RunError::Journal(_)))
    };
    // Whoever reads a pipe that --out names was to see all of it.
    !error.chain().any(of_a_file)
        && error.chain().any(|cause| {
            let io = cause.downcast_ref::<io::Error>().or_else(|| match cause.downcast_ref::<RunError>() {
                Some(RunError::Io(error)) => Some(error),
                _ => None,
            });
            io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
        })
}

/// Colors on a terminal, unless `NO_COLOR` is set to anything (<https://no-color.org>) or the terminal is dumb.
pub(super) fn look() -> Look {
    look_on(&io::stdout())
}

/// As [`look`], of stdout or of stderr.
pub(super) fn look_on(stream: &impl IsTerminal) -> Look {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
        || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    Look { color: stream.is_terminal() && !refused }
}

/// A progress bar on a terminal, nothing elsewhere.
fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    bar.set_style(
        ProgressStyle::with_template("{spinner} {wide_bar} {pos} of {len} {msg}, {per_sec:.0}, {eta} left")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// Duration below which no progress is shown.
const PATIENCE: Duration = Duration::from_millis(400);
/// Time between two lines where there is no terminal.
const LINES: Duration = Duration::from_secs(10);

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
        bar.set_message(plain(file));
        bar.set_position(present);
        bar.reset_eta();
        self.bar = Some(bar);
    }

    fn wait(&mut self, pause: Duration) {
        message(&format!("the hub asks to wait for {} s", pause.as_secs()));
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

/// Takes records as they are finished: onto stdout in the form asked for, and into the journal.
pub(super) struct Sink {
    format: Format,
    look: Look,
    journal: Option<Journal>,
    /// Whether the journal is to be continued.
    resume: bool,
    /// Whether nothing is kept of what the journal held.
    force: bool,
    /// What stands above the results, but for the threshold.
    introduction: String,
    prompt: Option<String>,
    /// Whether records appear on stdout one by one, or only what they add up to.
    lines: bool,
    /// The edits over their prompts, where records appear one by one.
    summaries: Summaries,
    /// The object of `--format json`.
    object: Listing,
    judged: Judged,
    status: Status,
}

/// One object of `--format json`, of which a list is written item by item.
#[derive(Debug)]
pub(super) struct Listing {
    /// What stands before the first item, up to the bracket, until that is written.
    opening: Option<String>,
}

impl Listing {
    /// An object with these keys, and then a list of this name.
    pub(super) fn new(keys: &impl Serialize, list: &str) -> serde_json::Result<Self> {
        let keys = serde_json::to_string(keys)?;
        Ok(Self { opening: Some(format!("{},\"{list}\":[", keys.strip_suffix('}').unwrap_or(&keys))) })
    }

    /// The object of a command's records.
    pub(super) fn of_records(command: &str) -> serde_json::Result<Self> {
        #[derive(Serialize)]
        struct Keys<'a> {
            command: &'a str,
            schema: u32,
        }
        Self::new(&Keys { command, schema: SCHEMA }, "records")
    }

    /// Whether an item is written.
    const fn has_items(&self) -> bool {
        self.opening.is_none()
    }

    /// What stands before the next item.
    pub(super) fn before(&self) -> &str {
        self.opening.as_deref().unwrap_or(",")
    }

    /// Takes note that an item is written.
    pub(super) fn wrote(&mut self) {
        self.opening = None;
    }

    /// Writes what stands behind the last item, with these keys at the end of the object.
    pub(super) fn end(&self, keys: &impl Serialize) -> Result<()> {
        let mut out = BufWriter::with_capacity(AT_ONCE, Stdout);
        out.write_all(self.opening.as_deref().unwrap_or_default().as_bytes())?;
        out.write_all(b"],")?;
        serde_json::to_writer(WithoutBrace { out: &mut out, begun: false }, keys).map_err(io::Error::from)?;
        out.write_all(b"\n")?;
        Ok(out.flush()?)
    }
}

/// What stands in the object of records behind them.
#[derive(Serialize)]
pub(super) struct Sum<'a> {
    /// Each edit over its prompts.
    pub summary: Vec<Summary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restored: Option<&'a Restored>,
}

/// Says that a summary does not tell of all edits, where it does not.
pub(super) fn left_out(summaries: &Summaries, format: Format) {
    let left_out = summaries.left_out();
    if left_out > 0 && (format == Format::Json || summaries.most_trials() > 1) {
        message(&format!(
            "the summary has {MOST_EDITS} of the edits, chosen evenly; {left_out} trials are of the others"
        ));
    }
}

/// Whether trials meet bounds.
#[derive(Clone, Debug)]
pub(super) struct Judged {
    bounds: BoundArgs,
    trials: usize,
    hold: bool,
}

impl Judged {
    pub(super) const fn new(bounds: BoundArgs) -> Self {
        Self { bounds, trials: 0, hold: true }
    }

    pub(super) fn add(&mut self, record: &Record) {
        self.trials += 1;
        let BoundArgs { at_least, kl } = self.bounds;
        self.hold &= at_least.is_none_or(|worst| record.verdict <= worst)
            // A divergence that is not finite meets no bound.
            && kl.is_none_or(|nats| record.kl_mean.is_some_and(|kl| kl <= nats));
    }

    /// The exit code of a run that gave these trials.
    pub(super) fn code(&self) -> u8 {
        if self.trials == 0 {
            message("no trial was run, so nothing was checked");
            return exit_code::NOTHING;
        }
        if self.hold { exit_code::DONE } else { exit_code::FAILED }
    }
}

impl Sink {
    /// Opens the journal before anything is run, so that a path that cannot be written is known at once; what is
    /// there stays until [`Sink::begin`].
    pub(super) fn new(args: &OutputArgs, inputs: &Inputs) -> Result<Self> {
        check(args.out.as_deref(), inputs)?;
        let mut journal = args.out.as_deref().map(|out| Journal::open(out, Holds::Records)).transpose()?;
        // Known before anything is computed.
        match &mut journal {
            Some(journal) if args.resume => journal.check_resumable()?,
            Some(journal) if !args.force => journal.check_restartable()?,
            _ => {}
        }
        if let Some(whom) = journal.as_ref().and_then(|journal| open_to(journal.reach())) {
            message(&format!(
                "the file of --out lies on a file system that keeps {whom} from writing to it as well: see that no other run does"
            ));
        }
        KEPT.store(journal.is_some(), Ordering::Relaxed);
        Ok(Self {
            format: args.format,
            look: look(),
            journal,
            resume: args.resume,
            force: args.force,
            introduction: String::new(),
            prompt: None,
            lines: true,
            summaries: Summaries::default(),
            object: Listing::of_records("")?,
            judged: Judged::new(BoundArgs { at_least: None, kl: None }),
            status: Status::new(),
        })
    }

    /// Shows and keeps no records one by one, but as lines of JSON where those are asked for: what they add up to is
    /// shown at the end.
    pub(super) fn without_lines(&mut self) {
        self.lines = self.format == Format::Jsonl;
    }

    /// Bounds that every trial is held against.
    pub(super) fn bound(&mut self, bounds: BoundArgs) {
        self.judged = Judged::new(bounds);
    }

    /// The exit code of the run, as far as it depends on its trials.
    pub(super) fn code(&self) -> u8 {
        self.judged.code()
    }

    /// Puts a text above the results.
    pub(super) fn introduce(&mut self, introduction: String) {
        self.introduction = introduction;
    }

    /// Begins the journal: anew, or by giving the run what is finished there. Then says what is run.
    fn begin(&mut self, mut run: Beginning<'_>) -> Result<(), RunError> {
        self.status.of = run.expectation.run.trials;
        if let Some(journal) = &mut self.journal {
            if self.resume {
                let Resumed { trials, cut, records } = journal.resume(&run.expectation)?;
                if cut > 0 {
                    message(&format!(
                        "what --out held ended in the middle of a record: its {cut} bytes are taken off, and the trial is run again"
                    ));
                }
                if trials > 0 {
                    message(&format!("resuming: {trials} trials are finished"));
                }
                run.resume(records);
            } else if self.force {
                journal.replace(&run.expectation.run.id)?;
            } else if let Some(old) = journal.restart(&run.expectation.run.id)? {
                kept(&old);
            }
        }
        self.object = Listing::of_records(&run.expectation.run.command).map_err(io::Error::from)?;
        if self.format == Format::Text {
            let rule = records::rule(run.expectation.threshold, run.expectation.run.calibration.as_ref());
            text_to_stdout(&(std::mem::take(&mut self.introduction) + &rule))?;
        }
        Ok(())
    }

    /// What a run tells: shows what is finished, and stops where the user asked for it.
    pub(super) fn watch(&mut self, progress: Progress<'_>) -> Result<(), RunError> {
        interrupt::check()?;
        if let (Some(journal), false) = (&mut self.journal, matches!(progress, Progress::Record { .. })) {
            // Records come in batches, and this is behind one.
            journal.settle()?;
        }
        match progress {
            Progress::Begins(run) => self.begin(run),
            Progress::Reading { done, of } => {
                self.status.reading(done, of);
                Ok(())
            }
            Progress::Calibrating { step, of } => {
                self.status.calibrating(step, of);
                Ok(())
            }
            Progress::Wave { step, of, trials } => {
                self.status.wave(step, of, trials);
                Ok(())
            }
            Progress::Record { record, resumed } => self.record(record, resumed),
            Progress::HandedOver => Ok(self.journal.as_mut().map_or(Ok(()), Journal::hand_over)?),
        }
    }

    fn record(&mut self, record: &Record, resumed: bool) -> Result<(), RunError> {
        let mut line = serde_json::to_vec(record).map_err(io::Error::from)?;
        line.push(b'\n');
        if let (Some(journal), false) = (&mut self.journal, resumed) {
            // A record is kept from here on, whatever happens to the rest of the run.
            journal.append(&line)?;
        }
        self.judged.add(record);
        self.status.finished(resumed);
        if !self.lines {
            return Ok(());
        }
        self.summaries.add(record);
        match self.format {
            Format::Json => {
                line.pop();
                self.status.aside(|| {
                    to_stdout(self.object.before().as_bytes())?;
                    to_stdout(&line)
                })?;
                self.object.wrote();
            }
            Format::Jsonl => self.status.aside(|| to_stdout(&line))?,
            Format::Text => {
                let shown = self.text(record);
                self.status.aside(|| text_to_stdout(&shown))?;
            }
        }
        Ok(())
    }

    /// A record for people, under a heading where the prompt is a new one.
    fn text(&mut self, record: &Record) -> String {
        let mut shown = String::new();
        if self.prompt.as_ref() != Some(&record.prompt) {
            shown.push_str(&records::heading(&record.prompt, self.look));
            self.prompt = Some(record.prompt.clone());
        }
        shown.push_str(&records::record(record, self.look));
        shown
    }

    /// Ends the journal and what is shown of the progress, before results that come at the end.
    pub(super) fn end(&mut self) -> Result<(), RunError> {
        self.status.end();
        Ok(self.journal.as_mut().map_or(Ok(()), Journal::sync)?)
    }

    /// Shows what the records add up to that were shown one by one. Of a run that ended early, `whole` is false, and nothing
    /// is shown where no record was.
    pub(super) fn sum(&mut self, restored: Option<&Restored>, whole: bool) -> Result<()> {
        match self.format {
            Format::Text if whole => text(&records::summaries(&self.summaries.summaries(), self.look))?,
            Format::Json if whole || self.object.has_items() => {
                self.object.end(&Sum { summary: self.summaries.summaries(), restored })?;
            }
            Format::Text | Format::Json | Format::Jsonl => return Ok(()),
        }
        left_out(&self.summaries, self.format);
        Ok(())
    }
}

/// Whom a lock does not keep away, where that is anybody.
const fn open_to(reach: Reach) -> Option<&'static str> {
    match reach {
        Reach::Everywhere => None,
        Reach::ThisMachine => Some("no process of another machine"),
        Reach::Nobody => Some("nobody"),
    }
}

/// How far a run is: a bar on a terminal, a line now and then elsewhere, and nothing for what is done at once.
struct Status {
    started: Instant,
    /// Trials finished.
    done: usize,
    /// Of these, trials that an earlier part of the run had finished.
    before: usize,
    /// Trials in all, where that is known.
    of: Option<usize>,
    bar: Option<ProgressBar>,
    terminal: bool,
    /// When the last line was written.
    line: Instant,
}

impl Status {
    fn new() -> Self {
        let now = Instant::now();
        Self { started: now, done: 0, before: 0, of: None, bar: None, terminal: io::stderr().is_terminal(), line: now }
    }

    fn finished(&mut self, resumed: bool) {
        self.done += 1;
        if resumed {
            // What trials take is not known from what reading them took.
            self.before += 1;
            (self.started, self.line) = (Instant::now(), Instant::now());
        }
    }

    fn reading(&mut self, done: usize, of: usize) {
        self.show("reading the prompt", done as u64, of as u64, "tokens", 0);
        if done >= of {
            // What trials take is not known from what reading took.
            self.end();
            (self.started, self.line) = (Instant::now(), Instant::now());
        }
    }

    fn calibrating(&mut self, step: usize, of: usize) {
        let what = "calibrating on the clean model's own answers (once for a model; --threshold NATS does without)";
        self.show(what, step as u64, of as u64, "tokens", 0);
        if step >= of {
            self.end();
            (self.started, self.line) = (Instant::now(), Instant::now());
        }
    }

    fn wave(&mut self, step: usize, of: usize, trials: usize) {
        // A batch counts as done by the share of its waves.
        let done = self.done + trials * step / (of + 1);
        self.show("", done as u64, self.of.unwrap_or(done + trials) as u64, "trials", self.before as u64);
    }

    /// `before`: how many were done before this began.
    fn show(&mut self, what: &str, done: u64, of: u64, unit: &str, before: u64) {
        if self.started.elapsed() < PATIENCE {
            return;
        }
        if self.terminal {
            let bar = self.bar.get_or_insert_with(bar);
            bar.set_message(format!("{what}{}{unit}", if what.is_empty() { "" } else { ": " }));
            bar.set_length(of);
            bar.set_position(done);
        } else if self.line.elapsed() > LINES {
            self.line = Instant::now();
            let seconds = self.started.elapsed().as_secs_f64();
            let rate = (done - before) as f64 / seconds;
            let what = if what.is_empty() { String::new() } else { format!("{what}: ") };
            // Before anything is done, nobody knows how long it takes.
            let pace = if done == before {
                String::new()
            } else {
                let left = of.saturating_sub(done) as f64 / rate;
                format!(", {rate:.1} a second, about {left:.0} s left")
            };
            message(&format!("{what}{done} of {of} {unit}{pace}"));
        }
    }

    /// Writes to stdout without leaving parts of a bar there.
    fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
