//! The commands that run a model.

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::json;

use super::{
    args::{BoundArgs, Format, LadderArgs, ProbeArgs, PromptArgs, PullArgs, VerifyArgs},
    exit_code,
    output::{self, Download, Sink},
    resolve,
};
use crate::{
    checkpoint::hub::{HubSettings, ModelName},
    coherence::FIXED_THRESHOLD,
    record::{
        Record, Restored, SCHEMA,
        text::{self, Look},
    },
    search::{self, Progress, RunError, Settings},
    seed,
};

fn settings(prompts: &PromptArgs) -> Settings {
    Settings { max_tokens: prompts.max_tokens as usize, threshold: FIXED_THRESHOLD }
}

/// A closure's part in a run: shows what is finished, and stops where the user asked for it.
fn watch(sink: &mut Sink, progress: &Progress) -> Result<(), RunError> {
    resolve::check_interrupted()?;
    match progress {
        Progress::Wave(step, of) => {
            sink.wave(*step, *of);
            Ok(())
        }
        Progress::Record(record) => sink.record(record),
    }
}

/// Whether every record meets the bounds.
fn holds(bounds: &BoundArgs, records: &[Record]) -> bool {
    records.iter().all(|record| {
        bounds.at_least.is_none_or(|worst| record.verdict <= worst)
            // A divergence that is not finite meets no bound.
            && bounds.kl.is_none_or(|nats| record.kl_mean.is_some_and(|kl| kl <= nats))
    })
}

fn code(holds: bool) -> u8 {
    if holds { exit_code::DONE } else { exit_code::FAILED }
}

pub(super) fn ladder(args: &LadderArgs) -> Result<u8> {
    let shifts = match &args.shifts {
        None => seed::SHIFTS.to_vec(),
        Some(list) => shifts(list)?,
    };
    if shifts.is_empty() {
        output::message("--shifts names no shift, so nothing was checked");
        return Ok(exit_code::NOTHING);
    }
    let subject = resolve::subject(&args.model)?;
    let prompts = resolve::prompts(&subject, &args.prompts)?;
    let mut sink = Sink::new(&args.output, &subject)?;
    if args.output.format == Format::Text {
        output::stdout(resolve::introduction(&subject).as_bytes())?;
    }
    let ladder = search::ladder::ladder(&subject, &prompts, &shifts, settings(&args.prompts), |progress| {
        watch(&mut sink, progress)
    });
    let ladder = keep_finished("ladder", &sink, ladder)?;
    match args.output.format {
        Format::Text => output::stdout(text::restored(&ladder.restored, output::look()).as_bytes())?,
        Format::Json => output::json(&Run::of("ladder", &ladder.records, Some(&ladder.restored)))?,
        // Lines of stdout are records and nothing else.
        Format::Jsonl => output::message(text::restored(&ladder.restored, Look { color: false }).trim()),
    }
    let restored = ladder.restored.identical && ladder.restored.same_as_clean;
    Ok(code(restored && holds(&args.bounds, &ladder.records)))
}

/// A run as one object. Not a `Value`, in which records would lose the order of their keys, and their `f32` would
/// turn into other decimals than those of the same record on a line of its own.
#[derive(Serialize)]
struct Run<'a> {
    command: &'static str,
    schema: u32,
    records: &'a [Record],
    #[serde(skip_serializing_if = "Option::is_none")]
    restored: Option<&'a Restored>,
}

impl<'a> Run<'a> {
    const fn of(command: &'static str, records: &'a [Record], restored: Option<&'a Restored>) -> Self {
        Self { command, schema: SCHEMA, records, restored }
    }
}

/// Of a run that ended early, what was finished and not yet shown.
fn keep_finished<T>(command: &'static str, sink: &Sink, result: Result<T, RunError>) -> Result<T> {
    if result.is_err() && !sink.kept.is_empty() {
        output::json(&Run::of(command, &sink.kept, None))?;
    }
    Ok(result?)
}

/// Integers separated by commas.
fn shifts(list: &str) -> Result<Vec<i64>> {
    list.split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| {
            let digits = part.replace('_', "");
            digits.parse().with_context(|| {
                format!("--shifts: {part:?} is no shift, which is an integer of 64 bits (such as 0,1,-5,1000000)")
            })
        })
        .collect()
}

pub(super) fn probe(args: &ProbeArgs) -> Result<u8> {
    let subject = resolve::subject(&args.model)?;
    for edit in &args.edits {
        // Before anything is run, and before a random family is expanded.
        edit.expand(subject.head().layout())?.check(subject.head().layout())?;
    }
    let prompts = resolve::prompts(&subject, &args.prompts)?;
    let mut sink = Sink::new(&args.output, &subject)?;
    if args.output.format == Format::Text {
        output::stdout(resolve::introduction(&subject).as_bytes())?;
    }
    let records = search::ladder::probe(&subject, &prompts, &args.edits, settings(&args.prompts), |progress| {
        watch(&mut sink, progress)
    });
    let records = keep_finished("probe", &sink, records)?;
    if args.output.format == Format::Json {
        output::json(&Run::of("probe", &records, None))?;
    }
    Ok(code(holds(&args.bounds, &records)))
}

pub(super) fn verify(args: &VerifyArgs) -> Result<u8> {
    let subject = resolve::subject(&args.model)?;
    let prompts = resolve::prompts(&subject, &args.prompts)?;
    let show = |check: &search::verify::Check| {
        let mark = if check.holds { "ok    " } else { "FAILED" };
        let detail = check.detail.as_ref().map_or(String::new(), |detail| format!(": {detail}"));
        format!("{mark}  {:>3} cases  {}{detail}\n", check.cases, check.claim)
    };
    let mut shown = Ok(());
    let checks = search::verify::verify(&subject, &prompts, settings(&args.prompts), args.seed, |check| {
        let result = match args.format {
            Format::Text => output::stdout(show(check).as_bytes()),
            Format::Jsonl => output::json(check),
            Format::Json => Ok(()),
        };
        if result.is_err() && shown.is_ok() {
            shown = result;
        }
    })?;
    shown?;
    let holds = checks.iter().all(|check| check.holds);
    if args.format == Format::Json {
        output::json(&json!({"command": "verify", "model": subject.name(), "holds": holds, "checks": checks}))?;
    }
    Ok(code(holds))
}

pub(super) fn pull(args: &PullArgs) -> Result<u8> {
    let ModelName::Hub(model) = ModelName::parse(&args.model)? else {
        bail!(
            "{:?} is here already; pull takes a hub id such as mlx-community/Meta-Llama-3-8B-Instruct-4bit",
            args.model
        );
    };
    let snapshot = model.pull(&HubSettings::from_env()?, &mut Download::default())?;
    match args.format {
        Format::Text => {
            output::stdout(format!("{model} at {}\n{}\n", snapshot.revision, snapshot.folder.display()).as_bytes())?;
        }
        Format::Json | Format::Jsonl => output::json(&json!({
            "command": "pull", "model": model.id(), "revision": snapshot.revision, "folder": snapshot.folder,
        }))?,
    }
    Ok(exit_code::DONE)
}
