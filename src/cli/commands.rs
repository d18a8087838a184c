//! The commands that run a model.

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::{
    args::{Format, LadderArgs, OutputArgs, ProbeArgs, PullArgs, RunArgs, VerifyArgs},
    exit_code,
    output::{self, Download, Sink},
    resolve,
};
use crate::{
    checkpoint::hub::{HubSettings, ModelName},
    edit::Edit,
    record::{Restored, output::Inputs},
    report::terminal::{Look, plain, records},
    search::{self, RunError, Session, Settings},
    seed,
    subject::{Prompt, Subject},
    tokenizer::Encoding,
};

/// A model, what it is asked, and how answers are judged.
pub(super) struct Opened {
    pub(super) subject: Subject,
    pub(super) prompts: Vec<Prompt>,
    pub(super) settings: Settings,
    pub(super) sink: Sink,
}

impl Opened {
    /// Opens the model, encodes the prompts, opens the journal, and calibrates the threshold: what is wrong with the
    /// input is found before anything takes long.
    pub(super) fn new(args: &RunArgs) -> Result<Self> {
        Self::after(args, |_| Ok(()))
    }

    /// As [`Opened::new`], with a check of the command's own as soon as the model is open.
    pub(super) fn after(args: &RunArgs, check: impl FnOnce(&Subject) -> Result<()>) -> Result<Self> {
        Self::asking(args, None, |subject, encoding| {
            check(subject)?;
            resolve::prompts(subject, &args.prompts, encoding)
        })
    }

    /// As [`Opened::new`], with prompts that come from elsewhere, and the date that was recorded there.
    pub(super) fn asking(
        args: &RunArgs,
        recorded: Option<&str>,
        prompts: impl FnOnce(&Subject, &Encoding) -> Result<Vec<Prompt>>,
    ) -> Result<Self> {
        let resumed = resolve::resumed_date(&args.output);
        let encoding = resolve::encoding(&args.prompts, resumed.as_deref().or(recorded))?;
        let subject = resolve::subject(&args.model)?;
        let prompts = prompts(&subject, &encoding)?;
        let mut sink = Sink::new(&args.output, &output::inputs(&args.prompts, &args.threshold, &subject))?;
        let settings = resolve::settings(&subject, args, &prompts, &encoding, &mut sink)?;
        sink.bound(args.bounds.clone());
        Ok(Self { subject, prompts, settings, sink })
    }

    /// A session, and where what is run in it goes.
    pub(super) fn session(&mut self) -> (Session<'_>, &mut Sink) {
        let Self { subject, prompts, settings, sink } = self;
        sink.introduce(resolve::introduction(subject));
        (Session::new(subject, prompts, settings.clone()), sink)
    }
}

/// Fails where an edit does not fit the model's head.
pub(super) fn check(subject: &Subject, edit: &Edit) -> Result<()> {
    let layout = subject.head().layout();
    // A random edit fits if it can be drawn, and need not be: that takes as long as it has flips.
    Ok(edit.check(layout)?)
}

const fn code(holds: bool) -> u8 {
    if holds { exit_code::DONE } else { exit_code::FAILED }
}

/// `--calibrate-only`: the threshold of a run, for all of its parts.
pub(super) fn calibrate(args: &RunArgs) -> Result<u8> {
    let encoding = resolve::encoding(&args.prompts, None)?;
    let subject = resolve::subject(&args.model)?;
    let prompts = resolve::prompts(&subject, &args.prompts, &encoding)?;
    let output = OutputArgs { format: Format::Json, out: None, resume: false, force: false };
    let mut sink = Sink::new(&output, &Inputs::default())?;
    output::json(&resolve::calibration(&subject, args, &prompts, &encoding, &mut sink)?)?;
    Ok(exit_code::DONE)
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
    let mut opened = Opened::new(&args.run)?;
    let (mut session, sink) = opened.session();
    let ladder = search::ladder(&mut session, &shifts, |progress| sink.watch(progress));
    let restored = finished(sink, ladder, |restored| Some(restored))?;
    match args.run.output.format {
        Format::Text => output::or_unread(output::text(&records::restored(&restored, output::look())))?,
        Format::Json => {}
        // Lines of stdout are records and nothing else.
        Format::Jsonl => {
            let restored = records::restored(&restored, Look { color: false });
            restored.trim().lines().for_each(|line| output::message(line.trim()));
        }
    }
    if !(restored.identical && restored.same_as_clean) {
        return Ok(exit_code::FAILED);
    }
    Ok(sink.code())
}

/// Shows what a run of single trials found, whether it came to its end or not, and only then fails if it did not.
pub(super) fn finished<T>(
    sink: &mut Sink,
    result: Result<T, RunError>,
    restored: impl FnOnce(&T) -> Option<&Restored>,
) -> Result<T> {
    let ended = sink.end();
    let shown = sink.sum(result.as_ref().ok().and_then(restored), result.is_ok());
    let found = result?;
    ended?;
    output::or_unread(shown)?;
    Ok(found)
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
    // Before anything is run.
    let mut opened = Opened::after(&args.run, |subject| args.edits.iter().try_for_each(|edit| check(subject, edit)))?;
    let (mut session, sink) = opened.session();
    let run = search::probe(&mut session, &args.edits, |progress| sink.watch(progress));
    finished(sink, run, |()| None)?;
    Ok(sink.code())
}

pub(super) fn verify(args: &VerifyArgs) -> Result<u8> {
    let subject = resolve::subject(&args.model)?;
    let encoding = resolve::encoding(&args.prompts, None)?;
    let prompts = resolve::prompts(&subject, &args.prompts, &encoding)?;
    let max_tokens = args.prompts.max_tokens as usize;
    let show = |check: &search::verify::Check| {
        let mark = if check.holds { "ok    " } else { "FAILED" };
        let detail = check.detail.as_ref().map_or(String::new(), |detail| format!(": {}", plain(detail)));
        format!("{mark}  {:>3} cases  {}{detail}\n", check.cases, check.claim)
    };
    let mut shown = Ok(());
    let mut done = |check: &search::verify::Check| {
        let result = match args.format {
            Format::Text => output::text(&show(check)),
            Format::Jsonl => output::json(check),
            Format::Json => Ok(()),
        };
        if result.is_err() && shown.is_ok() {
            shown = result;
        }
    };
    let mut checks = search::verify(&subject, &prompts, max_tokens, args.seed, &mut done)?;
    // What mlx-lm computes is held against what this program computes, where it does.
    match resolve::native(&args.model) {
        Some(Ok(native)) => checks.extend(search::agree(&native, &subject, &prompts, max_tokens, &mut done)?),
        Some(Err(error)) => {
            output::message(&format!("its body is not computed here, and not held against mlx-lm's: {error:#}"));
        }
        None => {}
    }
    output::or_unread(shown)?;
    let holds = checks.iter().all(|check| check.holds);
    if args.format == Format::Json {
        let checks = json!({"command": "verify", "model": subject.name(), "holds": holds, "checks": checks});
        output::or_unread(output::json(&checks))?;
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
            let folder = plain(&snapshot.folder.display().to_string());
            output::text(&format!("{model} at {}\n{folder}\n", snapshot.revision))?;
        }
        Format::Json | Format::Jsonl => output::json(&json!({
            "command": "pull", "model": model.id(), "revision": snapshot.revision, "folder": snapshot.folder,
        }))?,
    }
    Ok(exit_code::DONE)
}
