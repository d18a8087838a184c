//! The commands that look for something: many edits of a family, where it breaks, which digits hurt, how often chance
//! does.
//!
//! A search that ends early shows what it has found.

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::{
    args::{BisectArgs, CampaignArgs, Format, MapArgs, RunArgs, SweepArgs, TensorName},
    commands::{Opened, finished},
    exit_code,
    output::{self, Sink},
    values,
};
use crate::{
    coherence::Verdict,
    edit::{Amount, Value},
    quant::Tensor,
    record::SCHEMA,
    report::terminal::{Look, searches},
    search::{
        self, RunError, Stopped,
        bisect::{Bracket, Predicate},
        campaign::Campaign,
        sweep::check,
    },
};

pub(super) fn sweep(args: &SweepArgs) -> Result<u8> {
    output::check_list(args.run.output.out.as_deref(), "the file of --values", &args.values)?;
    let found = values::values(&args.values).context("--values")?;
    if found.is_empty() {
        output::message("--values names no value, so nothing was checked");
        return Ok(exit_code::NOTHING);
    }
    let mut opened = Opened::after(&args.run, |subject| Ok(check(subject.head().layout(), args.family, &found)?))?;
    let (mut session, sink) = opened.session();
    let run = search::sweep(&mut session, args.family, &found, |progress| sink.watch(progress));
    finished(sink, run, |()| None)?;
    Ok(sink.code())
}

/// What a search found, whether it came to its end or not.
#[derive(Serialize)]
struct Found<'a, T> {
    command: &'static str,
    schema: u32,
    /// Whether the run came to its end.
    complete: bool,
    #[serde(flatten)]
    found: &'a T,
}

/// Shows what a search found, where that is anything, and only then fails if it ended early.
fn show<T: Serialize>(
    command: &'static str,
    args: &RunArgs,
    sink: &mut Sink,
    stopped: Option<RunError>,
    found: Option<&T>,
    text: impl FnOnce(&T, Look) -> String,
) -> Result<()> {
    let ended = sink.end();
    if let Some(found) = found {
        match args.output.format {
            Format::Text => output::or_unread(output::text(&text(found, output::look())))?,
            Format::Json => {
                let complete = stopped.is_none();
                output::or_unread(output::json(&Found { command, schema: SCHEMA, complete, found }))?;
            }
            // Lines of stdout are records and nothing else.
            Format::Jsonl => {}
        }
    }
    Ok(stopped.map_or(ended, Err)?)
}

/// What was found, and why the search ended before its end if it did.
fn parts<T>(result: Result<T, Stopped<T>>) -> (T, Option<RunError>) {
    match result {
        Ok(found) => (found, None),
        Err(Stopped { found, error }) => (*found, Some(error)),
    }
}

pub(super) fn bisect(args: &BisectArgs) -> Result<u8> {
    let predicate = match (args.run.bounds.at_least, args.run.bounds.kl) {
        (Some(verdict), _) => Predicate::AtLeast(verdict),
        (None, Some(nats)) => Predicate::Kl(nats),
        (None, None) => Predicate::AtLeast(Verdict::Wobbling),
    };
    if args.run.shard.is_some() {
        // Before a model is opened.
        return Err(RunError::Parts.into());
    }
    let from = values::value(&args.from).context("--from")?;
    let to = values::value(&args.to).context("--to")?;
    let bracket = Bracket::new(args.family, from, to)?;
    let mut opened = Opened::after(&args.run, |subject| Ok(bracket.check(subject.head().layout())?))?;
    let (mut session, sink) = opened.session();
    sink.without_lines();
    let result = search::bisect(&mut session, &bracket, predicate, |progress| sink.watch(progress));
    let (found, stopped) = parts(result.map(Some));
    show("bisect", &args.run, sink, stopped, found.as_ref(), searches::bisection)?;
    Ok(exit_code::DONE)
}

pub(super) fn map(args: &MapArgs) -> Result<u8> {
    let mut opened = Opened::new(&args.run)?;
    let (mut session, sink) = opened.session();
    sink.without_lines();
    let (found, stopped) = parts(search::map(&mut session, |progress| sink.watch(progress)));
    let shown = Some(&found).filter(|found| !found.cells.is_empty());
    show("map", &args.run, sink, stopped, shown, |found, look| searches::map(&found.cells, look))?;
    Ok(sink.code())
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
    };
    if campaign.rows.is_empty() {
        output::message("neither --flips nor --rate names a row, so nothing was checked");
        return Ok(exit_code::NOTHING);
    }
    let mut opened = Opened::after(&args.run, |subject| Ok(campaign.check(subject.head().layout(), args.run.seed)?))?;
    let (mut session, sink) = opened.session();
    sink.without_lines();
    let (found, stopped) = parts(search::campaign(&mut session, &campaign, |progress| sink.watch(progress)));
    let shown = Some(&found).filter(|found| !found.rows.is_empty());
    show("campaign", &args.run, sink, stopped, shown, |found, look| searches::campaign(&found.rows, look))?;
    Ok(sink.code())
}
