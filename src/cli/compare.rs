//! `compare`: two stored runs, without a model.

use anyhow::Result;
use serde::Serialize;

use super::{
    args::{CompareArgs, Format},
    exit_code,
    output::{self, message},
    stored,
};
use crate::{
    record::{Record, SCHEMA},
    report::compare::Comparison,
};

pub(super) fn compare(args: &CompareArgs) -> Result<u8> {
    #[derive(Serialize)]
    struct Whole<'a> {
        command: &'static str,
        schema: u32,
        #[serde(flatten)]
        comparison: &'a Comparison<'a>,
    }
    let read = |path| -> Result<Vec<Record>> {
        Ok(stored::journal(path)?.records.into_iter().map(|(_, record)| record).collect())
    };
    let (a, b) = (read(&args.a)?, read(&args.b)?);
    let comparison = Comparison::of(&a, &b, args.tolerance);
    output::or_unread(match args.format {
        Format::Text => output::text(&comparison.text(output::look())),
        Format::Json => output::json(&Whole { command: "compare", schema: SCHEMA, comparison: &comparison }),
        Format::Jsonl => comparison.changed.iter().try_for_each(output::json),
    })?;
    if comparison.compared() == 0 {
        message("the runs have no trial in common, so nothing was checked");
        return Ok(exit_code::NOTHING);
    }
    Ok(if comparison.worse > 0 { exit_code::FAILED } else { exit_code::DONE })
}
