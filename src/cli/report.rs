//! `report`: what stored runs found, without a model.

use anyhow::{Result, anyhow};

use super::{
    args::{Format, ReportArgs},
    exit_code, output,
};
use crate::{
    record::output::{Inputs, Kind},
    report::{Gathered, Report, Source, html, terminal},
};

pub(super) fn report(args: &ReportArgs) -> Result<u8> {
    let runs = args.runs.iter().fold(Inputs::default(), |inputs, run| inputs.and("one of the runs", run));
    let mut page = None;
    if let Some(path) = &args.output {
        runs.check(path).map_err(|error| anyhow!("--output {error}"))?;
        page = Some(output::claim(path, Kind::Page, args.force)?);
    }
    let sources = args.runs.iter().map(|path| Source::open(path)).collect::<Result<Vec<_>, _>>()?;
    let gathered = Gathered::of(sources)?;
    let report = Report::of(&gathered);
    match (page, args.format) {
        (Some(page), _) => {
            output::write(page, html(&report)?.as_bytes())?;
            for note in report.notes {
                output::message(note);
            }
        }
        (None, Format::Text) => output::text(&terminal::report(&report, output::look()))?,
        (None, Format::Json | Format::Jsonl) => output::json(&report)?,
    }
    if report.trials() + report.certified() == 0 {
        output::message("the runs hold no finished trial and no certificate");
        return Ok(exit_code::NOTHING);
    }
    Ok(exit_code::DONE)
}
