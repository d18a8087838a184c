//! `report`: what stored runs found, without a model.

use std::{
    fs::{self, File},
    io::{BufReader, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use super::{
    args::{Format, ReportArgs},
    exit_code, output,
};
use crate::record::report::{Report, Source, html, text};

pub(super) fn report(args: &ReportArgs) -> Result<u8> {
    let sources = args.runs.iter().map(|path| source(path)).collect::<Result<Vec<_>>>()?;
    if let Some(page) = &args.output
        && let Some(run) = args.runs.iter().find(|run| is_same(run, page))
    {
        bail!("--output {} is one of the runs; give another name", run.display());
    }
    let report = Report::of(&sources);
    match (&args.output, args.format) {
        (Some(page), _) => {
            replace(page, html(&report)?.as_bytes()).with_context(|| format!("cannot write {}", page.display()))?;
            for note in &report.notes {
                output::message(note);
            }
        }
        (None, Format::Text) => output::stdout(text(&report, output::look()).as_bytes())?,
        (None, Format::Json | Format::Jsonl) => output::json(&report)?,
    }
    if report.trials() == 0 {
        output::message("the runs hold no finished trial");
        return Ok(exit_code::NOTHING);
    }
    Ok(exit_code::DONE)
}

fn source(path: &Path) -> Result<Source> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Source::read(path, BufReader::new(file))?)
}

fn is_same(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// Writes a file, so that whoever opens it finds the old one or the new one, whole.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    // What is no file of its own (a pipe, a terminal, /dev/stdout) cannot be replaced, and need not be.
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return File::options().write(true).open(path)?.write_all(bytes);
    }
    // A link is kept, and what it leads to replaced.
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part: PathBuf = path.with_file_name(name);
    let written = File::create_new(&part).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&part, &path)).inspect_err(|_| drop(fs::remove_file(&part)))
}
