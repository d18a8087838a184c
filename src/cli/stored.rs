//! The commands that work on stored runs, without a model.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};
use serde::Serialize;

use super::{
    args::{Format, MergeArgs, RelabelArgs},
    commands::Run,
    exit_code,
    output::{self, Judged, message},
};
use crate::{
    coherence::Verdict,
    record::{
        Record, SCHEMA,
        journal::{self, Finished},
        merge,
        output::{Inputs, Kind, Output},
        summary::{self, Summary},
    },
    report::terminal::records as text,
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

/// Records as a journal has them.
fn lines(records: &[Record]) -> Result<Vec<u8>> {
    let mut lines = Vec::new();
    for record in records {
        serde_json::to_writer(&mut lines, record)?;
        lines.push(b'\n');
    }
    Ok(lines)
}

/// What was joined, where the records themselves are in a file.
fn summary_of(records: &[Record], missing: Option<usize>, format: Format) -> Result<()> {
    #[derive(Serialize)]
    struct Joined {
        command: &'static str,
        schema: u32,
        trials: usize,
        missing: Option<usize>,
        verdicts: BTreeMap<Verdict, usize>,
        summary: Vec<Summary>,
    }
    let mut verdicts = BTreeMap::new();
    records.iter().for_each(|record| *verdicts.entry(record.verdict).or_default() += 1);
    let summary = summary::summaries(records);
    match format {
        Format::Json | Format::Jsonl => output::json(&Joined {
            command: "merge",
            schema: SCHEMA,
            trials: records.len(),
            missing,
            verdicts,
            summary,
        }),
        Format::Text => {
            let look = output::look();
            let counts = verdicts.iter().map(|(&verdict, count)| format!("{} {count}", look.verdict(verdict, 0)));
            let counts = counts.collect::<Vec<_>>().join(", ");
            let summaries = text::summaries(&summary, look);
            output::text(&format!("{} trials: {counts}\n{summaries}", records.len()))
        }
    }
}

/// Records onto stdout in the form asked for, and into a file.
fn show(command: &'static str, records: &[Record], format: Format, out: Option<Output>) -> Result<()> {
    let lines = lines(records)?;
    if let Some(out) = out {
        output::write(out, &lines)?;
    }
    match format {
        Format::Jsonl => output::stdout(&lines),
        Format::Json => output::json(&Run::of(command, records, None)),
        Format::Text => {
            let (look, mut prompt, mut shown) = (output::look(), None, String::new());
            for record in records {
                if prompt != Some(&record.prompt) {
                    shown.push_str(&text::heading(&record.prompt, look));
                    prompt = Some(&record.prompt);
                }
                shown.push_str(&text::record(record, look));
            }
            shown.push_str(&text::summaries(&summary::summaries(records), look));
            output::text(&shown)
        }
    }
}

pub(super) fn relabel(args: &RelabelArgs) -> Result<u8> {
    let out = place(args.out.as_deref(), args.force, &[&args.journal])?;
    let mut records: Vec<Record> = journal(&args.journal)?.records.into_iter().map(|(_, record)| record).collect();
    let mut changed = 0;
    for record in &mut records {
        let before = (record.verdict, record.tags.clone());
        if let Some(threshold) = args.threshold {
            // One that is given takes the place of what was calibrated.
            record.run.calibration = None;
            record.threshold = threshold;
        }
        record.label();
        changed += usize::from(before != (record.verdict, record.tags.clone()));
    }
    if records.is_empty() {
        message("the run holds no trial, so nothing was checked");
        return Ok(exit_code::NOTHING);
    }
    output::or_unread(show("relabel", &records, args.format, out))?;
    message(&format!("{changed} of {} trials have other labels than were stored", records.len()));
    let mut judged = Judged::new(args.bounds.clone());
    records.iter().for_each(|record| judged.add(record));
    Ok(judged.code())
}

pub(super) fn merge(args: &MergeArgs) -> Result<u8> {
    let out = place(args.out.as_deref(), args.force, &args.journals.iter().map(PathBuf::as_path).collect::<Vec<_>>())?;
    let mut journals: Vec<(PathBuf, Finished)> = Vec::new();
    for path in &args.journals {
        journals.push((path.clone(), journal(path)?));
    }
    let merged = merge::merge(&journals)?;
    if merged.records.is_empty() {
        bail!("the journals hold no trial");
    }
    match out {
        Some(place) => {
            output::write(place, &lines(&merged.records)?)?;
            output::or_unread(summary_of(&merged.records, merged.missing, args.format.unwrap_or(Format::Text)))?;
        }
        None => show("merge", &merged.records, args.format.unwrap_or(Format::Jsonl), None)?,
    }
    match merged.missing {
        Some(0) => {}
        Some(missing) => message(&format!("{missing} trials of the run are in none of the journals")),
        None => message("the run did not know its number of trials: whether all are there cannot be told"),
    }
    Ok(exit_code::DONE)
}
