//! `report`: what stored runs found, without a model.

use std::path::Path;

use anyhow::{Context, Result, bail};

use super::{
    args::{Format, ReportArgs},
    exit_code, output,
};
use crate::record::{
    report::{self, Gathered, Report, Source, html},
    text,
};

pub(super) fn report(args: &ReportArgs) -> Result<u8> {
    let sources = args.runs.iter().map(|path| Source::read(path)).collect::<Result<Vec<_>, _>>()?;
    if let Some(page) = &args.output
        && let Some(run) = args.runs.iter().find(|run| is_same(run, page))
    {
        bail!("--output {} is one of the runs; give another name", run.display());
    }
    let gathered = Gathered::of(sources);
    let report = Report::of(&gathered);
    match (&args.output, args.format) {
        (Some(page), _) => {
            output::to_file(page, html(&report)?.as_bytes())
                .with_context(|| format!("cannot write {}", page.display()))?;
            for note in report.notes {
                output::message(&text::plain(note));
            }
        }
        (None, Format::Text) => output::stdout(report::text(&report, output::look()).as_bytes())?,
        (None, Format::Json | Format::Jsonl) => output::json(&report)?,
    }
    if report.trials() + report.certified() == 0 {
        output::message("the runs hold no finished trial and no certificate");
        return Ok(exit_code::NOTHING);
    }
    Ok(exit_code::DONE)
}

fn is_same(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}
