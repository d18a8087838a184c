//! The commands that work on stored runs, without a model. They hold no more of a run than a record at a time.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};
use serde::Serialize;

use super::{
    args::{Format, MergeArgs, RelabelArgs},
    certificates, exit_code, interrupt,
    output::{self, Judged, Listing, Sum, message},
};
use crate::{
    coherence::Verdict,
    record::{
        Missing, Parts, Reader, Record, SCHEMA, Stored,
        journal::{self, Finished, JournalError},
        output::{Inputs, Kind, Output},
        scheduler::{self, SchedulerError},
        summary::{Summaries, Summary},
    },
    report::terminal::{Look, records as text},
    search::RunError,
};

/// Reads a journal. One that was cut short is read as far as it goes, and that is said.
pub(super) fn journal(path: &Path) -> Result<Finished> {
    let finished = journal::read(path)?;
    said(finished.cut > 0, path);
    Ok(finished)
}

/// Says of a journal that was read whether it was cut short.
pub(super) fn said(cut: bool, path: &Path) {
    if cut {
        message(&format!("{} ends in the middle of a record, which is left out", path.display()));
    }
}

/// The place of records that come from these runs.
fn place(out: Option<&Path>, force: bool, runs: &[&Path]) -> Result<Option<Output>> {
    output::check(out, &runs.iter().fold(Inputs::default(), |inputs, run| inputs.and("one of the runs", run)))?;
    out.map(|out| output::claim(out, Kind::Records, force)).transpose()
}

/// Puts records of the run with this id into their place, and gives each to `see`.
fn write(
    out: Output,
    run: &str,
    records: impl Iterator<Item = Result<Record, JournalError>>,
    mut see: impl FnMut(&Record) -> Result<()>,
) -> Result<()> {
    let kept = out.write_records(run, |out| -> Result<()> {
        for record in records {
            interrupt::check()?;
            let record = record?;
            out.write(&record)?;
            see(&record)?;
        }
        Ok(())
    })?;
    if let Some(old) = kept {
        output::kept(&old);
    }
    Ok(())
}

/// Whether the record's run holds edits against each other over its prompts. The edits of a campaign are draws: that two of them are
/// equal is chance.
const fn has_edits_over_prompts(record: &Record) -> bool {
    record.run.campaign.is_none()
}

/// Records on their way to stdout, in the form asked for, with what they add up to at the end.
struct Shown {
    format: Format,
    look: Look,
    prompt: Option<String>,
    object: Listing,
    pending: Vec<u8>,
    summaries: Summaries,
}

impl Shown {
    fn new(command: &str, format: Format) -> Result<Self> {
        let (look, object, summaries) = (output::look(), Listing::of_records(command)?, Summaries::default());
        Ok(Self { format, look, prompt: None, object, pending: Vec::new(), summaries })
    }

    fn record(&mut self, record: &Record) -> Result<()> {
        match self.format {
            Format::Jsonl => {
                serde_json::to_writer(&mut self.pending, record)?;
                self.pending.push(b'\n');
            }
            Format::Json => {
                self.pending.extend(self.object.before().bytes());
                self.object.wrote();
                serde_json::to_writer(&mut self.pending, record)?;
                self.summaries.add(record);
            }
            Format::Text => {
                if self.prompt.as_ref() != Some(&record.prompt) {
                    self.pending.extend(text::heading(&record.prompt, self.look).into_bytes());
                    self.prompt = Some(record.prompt.clone());
                }
                self.pending.extend(text::record(record, self.look).into_bytes());
                if has_edits_over_prompts(record) {
                    self.summaries.add(record);
                }
            }
        }
        if self.pending.len() < output::AT_ONCE { Ok(()) } else { self.flush() }
    }

    fn end(mut self) -> Result<()> {
        match self.format {
            Format::Jsonl => {}
            Format::Json => {
                self.flush()?;
                self.object.end(&Sum { summary: self.summaries.summaries(), restored: None })?;
            }
            Format::Text => {
                self.pending.extend(text::summaries(&self.summaries.summaries(), self.look).into_bytes());
            }
        }
        self.flush()?;
        output::left_out(&self.summaries, self.format);
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let pending = std::mem::take(&mut self.pending);
        match self.format {
            Format::Text => output::text(&String::from_utf8_lossy(&pending)),
            Format::Json | Format::Jsonl => output::stdout(&pending),
        }
    }
}

pub(super) fn relabel(args: &RelabelArgs) -> Result<u8> {
    interrupt::catch();
    let out = place(args.out.as_deref(), args.force, &[&args.journal])?;
    let failed = |source: io::Error| JournalError::Io { path: args.journal.clone(), source };
    let mut stored = Stored::open(&args.journal).map_err(failed)?;
    // What is wrong with the run is known before anything is shown.
    let (mut run, mut trials) = (String::new(), 0);
    let mut reader: Reader<'_> = Reader::new(&mut stored)?;
    for found in reader.by_ref() {
        interrupt::check()?;
        let (_, record) = found?;
        trials += 1;
        run = record.run.id;
    }
    said(reader.end().cut > 0, &args.journal);
    drop(reader);
    if trials == 0 {
        message("the run holds no trial, so nothing was checked");
        return Ok(exit_code::NOTHING);
    }
    let (mut changed, mut judged, mut shown) =
        (0, Judged::new(args.bounds.clone()), Shown::new("relabel", args.format)?);
    let reader: Reader<'_> = Reader::new(&mut stored)?;
    let records = reader.map(|found| found.map(|(_, record)| relabelled(record, args.threshold)));
    let mut unread = false;
    let mut see = |record: &Record| {
        judged.add(record);
        if unread {
            return Ok(());
        }
        let written = shown.record(record);
        unread = written.as_ref().is_err_and(output::is_broken_pipe);
        output::or_unread(written)
    };
    let records = records.map(|record| {
        record.map(|(record, otherwise)| {
            changed += usize::from(otherwise);
            record
        })
    });
    match out {
        Some(out) => write(out, &run, records, see)?,
        None => {
            for record in records {
                interrupt::check()?;
                see(&record?)?;
            }
        }
    }
    if !unread {
        output::or_unread(shown.end())?;
    }
    message(&format!("{changed} of {trials} trials have other labels than were stored"));
    Ok(judged.code())
}

/// A record judged anew, and whether its labels are others than before.
fn relabelled(mut record: Record, threshold: Option<f64>) -> (Record, bool) {
    let before = (record.verdict, record.tags.clone());
    if let Some(threshold) = threshold {
        // One that is given takes the place of what was calibrated.
        record.run.calibration = None;
        record.threshold = threshold;
    }
    record.label();
    let otherwise = before != (record.verdict, record.tags.clone());
    (record, otherwise)
}

pub(super) fn merge(args: &MergeArgs) -> Result<u8> {
    interrupt::catch();
    if certificates::are_meant(&args.journals) {
        return certificates::merge(args);
    }
    let format = args.format.unwrap_or(if args.out.is_some() { Format::Text } else { Format::Jsonl });
    let out = place(args.out.as_deref(), args.force, &args.journals.iter().map(PathBuf::as_path).collect::<Vec<_>>())?;
    let (mut parts, mut absent) = (Parts::default(), None);
    for path in &args.journals {
        if let Some(stored) = part(path, &mut absent)? {
            said(parts.add::<RunError>(stored, interrupt::check)?, path);
        }
    }
    let missing = parts.missing(shards(args)?);
    let complete = missing.as_ref().is_none_or(|missing| missing.trials == 0);
    if let (true, Some(error)) = (complete, absent) {
        // No part that is missing accounts for a file that is not there.
        return Err(error.into());
    }
    if parts.is_empty() {
        bail!("the journals hold no trial");
    }
    if let Some(missing) = missing.as_ref().filter(|_| !complete && !args.allow_missing) {
        return incomplete(missing, "trials", format);
    }
    parts.check::<RunError>(interrupt::check)?;
    let mut shown = Shown::new("merge", format)?;
    match out {
        Some(out) => {
            let mut joined = Joined::default();
            write(out, parts.run().unwrap_or_default(), parts.records()?, |record| {
                joined.add(record);
                Ok(())
            })?;
            output::or_unread(joined.show(missing.as_ref(), format))?;
        }
        None => {
            for record in parts.records()? {
                interrupt::check()?;
                shown.record(&record?)?;
            }
            shown.end()?;
        }
    }
    match missing {
        Some(missing) if missing.trials > 0 => message(&said_missing(&missing, "trials")),
        Some(_) => {}
        None => message("the run did not know its number of trials: whether all are there cannot be told"),
    }
    Ok(exit_code::DONE)
}

/// Opens a part of a run. One that is not there may never have begun where the others have: the first such error goes to
/// `absent`.
pub(super) fn part(path: &Path, absent: &mut Option<JournalError>) -> Result<Option<Stored>, JournalError> {
    match Stored::open(path) {
        Ok(stored) => Ok(Some(stored)),
        Err(source) => {
            let is_absent = source.kind() == io::ErrorKind::NotFound;
            let error = JournalError::Io { path: path.to_owned(), source };
            if !is_absent {
                return Err(error);
            }
            absent.get_or_insert(error);
            Ok(None)
        }
    }
}

/// The number of parts that is given, or that the environment tells as it tells it to the parts.
pub(super) fn shards(args: &MergeArgs) -> Result<Option<usize>, SchedulerError> {
    args.shards.map_or_else(scheduler::shards, |shards| Ok(Some(shards as usize)))
}

pub(super) fn said_missing(missing: &Missing, what: &str) -> String {
    let Missing { trials, array, of, .. } = missing;
    let parts = match (array, of) {
        (Some(array), Some(of)) => format!(": they belong to the parts {array} of {of}"),
        _ => String::new(),
    };
    format!("{trials} {what} of the run are in none of the journals{parts}")
}

/// Says what to run again.
pub(super) fn incomplete(missing: &Missing, what: &str, format: Format) -> Result<u8> {
    #[derive(Serialize)]
    struct Object<'a> {
        command: &'static str,
        missing: &'a Missing,
    }
    if format == Format::Json {
        // On stderr as well, which is a task's log where stdout has gone into a file.
        let object = Object { command: "merge", missing };
        output::log(&serde_json::to_string(&object)?);
        output::or_unread(output::json(&object))?;
        return Ok(exit_code::FAILED);
    }
    message(&said_missing(missing, what));
    let again = match (&missing.array, missing.of) {
        (Some(array), Some(of)) => format!(
            "run these parts again with the command that ran them and --resume (on Slurm: HEADROOM_SHARDS={of} sbatch \
             --array={array} ...)"
        ),
        _ => {
            "which parts they belong to cannot be told from the journals: --shards N says how many there are".to_owned()
        }
    };
    message(&format!("nothing was written: {again}; --allow-missing joins what is there"));
    Ok(exit_code::FAILED)
}

/// What was joined, where the records themselves are in a file.
#[derive(Default)]
struct Joined {
    trials: usize,
    verdicts: BTreeMap<Verdict, usize>,
    summaries: Summaries,
    /// Whether the summaries are for people, too.
    over_prompts: bool,
}

impl Joined {
    fn add(&mut self, record: &Record) {
        self.trials += 1;
        *self.verdicts.entry(record.verdict).or_default() += 1;
        self.over_prompts = has_edits_over_prompts(record);
        self.summaries.add(record);
    }

    fn show(&self, missing: Option<&Missing>, format: Format) -> Result<()> {
        #[derive(Serialize)]
        struct Object<'a> {
            command: &'static str,
            schema: u32,
            trials: usize,
            missing: Option<usize>,
            verdicts: &'a BTreeMap<Verdict, usize>,
            summary: Vec<Summary>,
        }
        let (trials, verdicts, summary) = (self.trials, &self.verdicts, self.summaries.summaries());
        match format {
            Format::Json | Format::Jsonl => {
                let missing = missing.map(|missing| missing.trials);
                output::json(&Object { command: "merge", schema: SCHEMA, trials, missing, verdicts, summary })?;
            }
            Format::Text => {
                let look = output::look();
                let counts = verdicts.iter().map(|(&verdict, count)| format!("{} {count}", look.verdict(verdict, 0)));
                let counts = counts.collect::<Vec<_>>().join(", ");
                let table = if self.over_prompts { text::summaries(&summary, look) } else { String::new() };
                output::text(&format!("{trials} trials: {counts}\n{table}"))?;
            }
        }
        if self.over_prompts || format != Format::Text {
            output::left_out(&self.summaries, format);
        }
        Ok(())
    }
}
