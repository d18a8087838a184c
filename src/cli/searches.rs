//! The commands that look for something: many edits of a family, where it breaks, which digits hurt, how often chance
//! does.
//!
//! What they show is computed from records alone, so that a run that ends early shows what it has found.

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::{
    args::{BisectArgs, CampaignArgs, Format, MapArgs, RunArgs, SweepArgs, TensorName},
    commands::{Opened, Run, check, judged, keep_finished, summary},
    exit_code,
    output::{self, Sink},
};
use crate::{
    coherence::Verdict,
    edit::{Amount, Family, Value},
    quant::Tensor,
    record::{
        CampaignFacts, Record, SCHEMA,
        summary::{Spread, changed},
    },
    report::terminal::{Look, searches as text},
    search::{
        Job, Progress, RunError, Session, Spec,
        bisect::{Bisection, Bracket, Predicate},
        campaign::{Campaign, Row, rows},
        map::{self, Cell},
        values,
    },
};

/// Flips that the records of a run may list, all together: some gigabytes of text.
const MOST_LISTED: f64 = 1e8;

/// A trial of a family's edit.
fn job(trial: usize, prompt: usize, family: Family, value: Value) -> Result<Job> {
    let edit = family.at(value).map_err(anyhow::Error::msg)?;
    Ok(Job { trial, prompt, edit, family: Some(family.to_string()), value: Some(value) })
}

/// Fails where a run would list more flips than there is room for.
fn room(flips: f64, what: &str) -> Result<()> {
    if flips > MOST_LISTED {
        bail!(
            "{what} would list about {flips:.1e} flips in its records, more than {MOST_LISTED:.0e}; take fewer or smaller \
             edits, or fewer prompts"
        );
    }
    Ok(())
}

/// The most flips that an edit of a family stands for.
fn flips(subject: &crate::subject::Subject, family: Family, value: Value) -> f64 {
    let tensor = Tensor::Weight;
    let amount = match (family, value) {
        (Family::Flips(_), Value::Integer(flips)) => Amount::Flips(flips.max(0) as u64),
        (Family::Rate(_), Value::Rate(rate)) => Amount::Rate(rate),
        (Family::Rate(_), Value::Integer(rate)) => Amount::Rate(rate as f64),
        _ => return 0.0,
    };
    crate::edit::Random { tensor, amount, seed: 0 }.expected(subject.head().layout())
}

pub(super) fn sweep(args: &SweepArgs) -> Result<u8> {
    output::check_list(args.run.output.out.as_deref(), "the file of --values", &args.values)?;
    let found = values::values(&args.values).context("--values")?;
    if found.is_empty() {
        output::message("--values names no value, so nothing was checked");
        return Ok(exit_code::NOTHING);
    }
    let mut opened = Opened::after(&args.run, |subject| {
        found.iter().enumerate().try_for_each(|(i, &value)| check(subject, &job(i, 0, args.family, value)?.edit))
    })?;
    let prompts = opened.prompts.len();
    let listed: f64 = found.iter().map(|&value| flips(&opened.subject, args.family, value)).sum();
    room(listed * prompts as f64, "the sweep")?;
    let jobs: Vec<Job> = (0..prompts)
        .flat_map(|prompt| found.iter().map(move |&value| (prompt, value)))
        .enumerate()
        .map(|(trial, (prompt, value))| job(trial, prompt, args.family, value))
        .collect::<Result<_>>()?;
    let texts: Vec<String> = found.iter().map(Value::to_string).collect();
    let spec = Spec {
        command: "sweep",
        trials: Some(jobs.len()),
        seed: args.run.seed,
        edits: format!("{} {}", args.family, texts.join(",")),
        ..Spec::default()
    };
    let (mut session, sink) = opened.begin(&args.run, spec)?;
    let records = session.run(&jobs, |progress| sink.watch(&progress));
    let records = keep_finished("sweep", sink, records)?;
    summary(args.run.output.format, &records)?;
    if args.run.output.format == Format::Json {
        output::json(&Run::of("sweep", &records, None))?;
    }
    judged(&args.run.bounds, &records)
}

/// Jobs that are made at a time.
const AT_ONCE: usize = 4096;

/// Runs jobs and keeps every record that is finished, also of a run that then ends early. What is long in a record is
/// left out: nothing that is computed of many trials needs it, and an edit may list very many flips.
fn run(
    session: &mut Session<'_>,
    sink: &mut Sink,
    mut jobs: impl Iterator<Item = Job>,
    kept: &mut Vec<Record>,
) -> Result<(), RunError> {
    loop {
        let some: Vec<Job> = jobs.by_ref().take(AT_ONCE).collect();
        if some.is_empty() {
            return Ok(());
        }
        session.run(&some, |progress| {
            sink.watch(&progress)?;
            if let Progress::Record { record, .. } = progress {
                let mut record = record.clone();
                (record.edit, record.prompt_ids) = (String::new(), Vec::new());
                (record.surprise, record.margin) = (Vec::new(), Vec::new());
                kept.push(record);
            }
            Ok(())
        })?;
    }
}

/// What a search found, whether it came to its end or not.
#[derive(Serialize)]
struct Found<T> {
    command: &'static str,
    schema: u32,
    /// Whether the run came to its end.
    complete: bool,
    #[serde(flatten)]
    found: T,
}

/// Shows what a search found, and only then fails where it ended early.
fn show<T: Serialize>(
    command: &'static str,
    args: &RunArgs,
    sink: &mut Sink,
    result: Result<(), RunError>,
    found: Option<T>,
    text: impl FnOnce(&T, Look) -> String,
) -> Result<()> {
    sink.end();
    if let Some(found) = found {
        match args.output.format {
            Format::Text => output::stdout(text(&found, output::look()).as_bytes())?,
            Format::Json => output::json(&Found { command, schema: SCHEMA, complete: result.is_ok(), found })?,
            // Lines of stdout are records and nothing else.
            Format::Jsonl => {}
        }
    }
    Ok(result?)
}

pub(super) fn bisect(args: &BisectArgs) -> Result<u8> {
    let predicate = match (args.run.bounds.at_least, args.run.bounds.kl) {
        (Some(verdict), _) => Predicate::AtLeast(verdict),
        (None, Some(nats)) => Predicate::Kl(nats),
        (None, None) => Predicate::AtLeast(Verdict::Wobbling),
    };
    if args.run.shard.is_some() {
        bail!(
            "a bisection cannot be run in parts: each step depends on what the ones before it found; leave out --shard"
        );
    }
    let from = values::value(&args.from).context("--from")?;
    let to = values::value(&args.to).context("--to")?;
    let bracket = Bracket::new(args.family, from, to)?;
    let mut opened = Opened::after(&args.run, |subject| {
        bracket.ends().into_iter().try_for_each(|end| check(subject, &job(0, 0, args.family, end)?.edit))
    })?;
    let prompts = opened.prompts.len();
    let [lo, hi] = bracket.ends();
    // The points of a scan and of one crossing hold about so many times the flips of the greatest.
    room(25.0 * flips(&opened.subject, args.family, hi) * prompts as f64, "the bisection")?;
    let spec = Spec {
        command: "bisect",
        predicate: Some(predicate.to_string()),
        seed: args.run.seed,
        edits: format!("{} {lo} {hi}", args.family),
        ..Spec::default()
    };
    let (mut session, sink) = opened.begin(&args.run, spec)?;
    sink.without_lines();
    let mut records: Vec<Record> = Vec::new();
    let result = bracket.search(|values| {
        let first = records.len();
        let jobs =
            values.iter().flat_map(|&value| (0..prompts).map(move |prompt| (prompt, value))).enumerate().map(
                |(i, (prompt, value))| job(first + i, prompt, args.family, value).expect("a value between the ends"),
            );
        run(&mut session, sink, jobs, &mut records)?;
        let spread = |of_value: &[Record]| Spread::of(&of_value.iter().collect::<Vec<_>>());
        Ok(records[first..]
            .chunks(prompts)
            .map(|of_value| spread(of_value).is_some_and(|spread| predicate.holds(&spread)))
            .collect())
    });
    show("bisect", &args.run, sink, result, Bisection::of(&records), text::bisection)?;
    Ok(exit_code::DONE)
}

pub(super) fn map(args: &MapArgs) -> Result<u8> {
    #[derive(Serialize)]
    struct Cells {
        cells: Vec<Cell>,
    }
    let mut opened = Opened::new(&args.run)?;
    let prompts = opened.prompts.len();
    // All prompts of a cell together: cells are finished one after the other.
    let jobs: Vec<Job> = map::edits()
        .flat_map(|edit| (0..prompts).map(move |prompt| (prompt, edit)))
        .enumerate()
        .map(|(trial, (prompt, (family, value)))| job(trial, prompt, family, value))
        .collect::<Result<_>>()?;
    let spec =
        Spec { command: "map", trials: Some(jobs.len()), seed: args.run.seed, edits: String::new(), ..Spec::default() };
    let (mut session, sink) = opened.begin(&args.run, spec)?;
    sink.without_lines();
    let mut records = Vec::new();
    let result = run(&mut session, sink, jobs.into_iter(), &mut records);
    let found = Some(Cells { cells: map::cells(&records) }).filter(|found| !found.cells.is_empty());
    show("map", &args.run, sink, result, found, |found, look| text::map(&found.cells, look))?;
    judged(&args.run.bounds, &records)
}

/// Rows of a campaign, those of `--flips` first.
fn amounts(args: &CampaignArgs) -> Result<Vec<Amount>> {
    let mut amounts = Vec::new();
    for value in values::values(args.flips.as_deref().unwrap_or_default()).context("--flips")? {
        match value {
            Value::Integer(flips @ 0..) => amounts.push(Amount::Flips(flips.unsigned_abs())),
            other => bail!("--flips: {other} is no number of flips"),
        }
    }
    for value in values::values(args.rate.as_deref().unwrap_or_default()).context("--rate")? {
        let rate = match value {
            Value::Integer(rate) => rate as f64,
            Value::Rate(rate) => rate,
        };
        if !(0.0..=1.0).contains(&rate) {
            bail!("--rate: {value} is no probability (0 to 1)");
        }
        if !amounts.contains(&Amount::Rate(rate)) {
            amounts.push(Amount::Rate(rate));
        }
    }
    Ok(amounts)
}

pub(super) fn campaign(args: &CampaignArgs) -> Result<u8> {
    #[derive(Serialize)]
    struct Rows {
        rows: Vec<Row>,
    }
    for (what, list) in [("the file of --flips", &args.flips), ("the file of --rate", &args.rate)] {
        output::check_list(args.run.output.out.as_deref(), what, list.as_deref().unwrap_or_default())?;
    }
    let campaign = Campaign {
        rows: amounts(args)?,
        tensor: match args.tensor {
            TensorName::Weight => Tensor::Weight,
            TensorName::Scales => Tensor::Scales,
            TensorName::Biases => Tensor::Biases,
        },
        trials: args.trials as usize,
        half_width: args.half_width,
        seed: args.run.seed,
    };
    if campaign.rows.is_empty() {
        output::message("neither --flips nor --rate names a row, so nothing was checked");
        return Ok(exit_code::NOTHING);
    }
    let mut opened = Opened::after(&args.run, |subject| {
        (0..campaign.rows.len()).try_for_each(|row| check(subject, &campaign.edit(row, 0)))?;
        room(campaign.expected_flips(subject.head().layout()), "the campaign")
    })?;
    let prompts = opened.prompts.len();
    let listed: Vec<String> = (0..campaign.rows.len())
        .map(|row| {
            let (family, value) = campaign.family(row);
            format!("{family} {value}")
        })
        .collect();
    let spec = Spec {
        command: "campaign",
        campaign: Some(CampaignFacts {
            trials: campaign.trials,
            half_width: campaign.half_width,
            tensor: campaign.tensor.name().to_owned(),
        }),
        // A row that may end early has no number of trials beforehand.
        trials: campaign.half_width.is_none().then_some(campaign.rows.len() * campaign.trials),
        seed: args.run.seed,
        edits: listed.join("\n"),
        ..Spec::default()
    };
    let (mut session, sink) = opened.begin(&args.run, spec)?;
    sink.without_lines();
    let mut records = Vec::new();
    let mut result = Ok(());
    'rows: for row in 0..campaign.rows.len() {
        let (family, value) = campaign.family(row);
        let (first, mut done) = (records.len(), 0);
        for look in campaign.looks() {
            let jobs = (done..look).map(|trial| Job {
                trial: row * campaign.trials + trial,
                prompt: trial % prompts,
                edit: campaign.edit(row, trial),
                family: Some(family.to_owned()),
                value: Some(value),
            });
            result = run(&mut session, sink, jobs, &mut records);
            if result.is_err() {
                break 'rows;
            }
            done = look;
            let changed = records[first..].iter().filter(|record| changed(record)).count();
            if campaign.is_narrow(changed, done) {
                break;
            }
        }
    }
    let found = Some(Rows { rows: rows(&records) }).filter(|found| !found.rows.is_empty());
    show("campaign", &args.run, sink, result, found, |found, look| text::campaign(&found.rows, look))?;
    judged(&args.run.bounds, &records)
}
