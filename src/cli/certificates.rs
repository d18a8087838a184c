//! `merge` of the parts of a run of `certify`.

use std::path::PathBuf;

use anyhow::{Result, bail};
use serde::Serialize;

use super::{
    args::{Format, MergeArgs},
    exit_code, interrupt,
    output::{self, message},
    stored,
};
use crate::{
    certificate::{CertificateLine, JoinError, Joined, Suite, Survey, join, survey},
    record::{
        Missing, SCHEMA, Stored,
        output::{Inputs, Kind, OutputError},
    },
    report::terminal::certificates as text,
    search::RunError,
};

/// Whether the first of these journals that holds something holds certificates.
pub(super) fn are_meant(journals: &[PathBuf]) -> bool {
    // What cannot be read is told by whoever reads it.
    let first = |path: &PathBuf| Some(Kind::of(&Stored::open(path).ok()?.first_line().ok()??));
    journals.iter().find_map(first) == Some(Kind::Certificates)
}

/// Why lines could not be joined, or not be written.
#[derive(Debug, thiserror::Error)]
enum MergeError {
    #[error(transparent)]
    Join(#[from] JoinError),
    #[error(transparent)]
    Output(#[from] OutputError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

impl MergeError {
    /// The error without this one around it.
    fn plain(self) -> anyhow::Error {
        match self {
            Self::Join(error) => error.into(),
            Self::Output(error) => error.into(),
            Self::Run(error) => error.into(),
            Self::Other(error) => error,
        }
    }
}

/// What was joined, where the lines themselves are in a file.
#[derive(Serialize)]
struct Sum<'a> {
    command: &'static str,
    schema: u32,
    certificates: usize,
    missing: &'a Missing,
    suite: Option<&'a Suite>,
}

pub(super) fn merge(args: &MergeArgs) -> Result<u8> {
    let inputs = args.journals.iter().fold(Inputs::default(), |inputs, run| inputs.and("one of the runs", run));
    output::check(args.out.as_deref(), &inputs)?;
    let place = args.out.as_deref().map(|out| output::claim(out, Kind::Certificates, args.force)).transpose()?;
    let format = args.format.unwrap_or(if place.is_some() { Format::Text } else { Format::Jsonl });
    let (mut parts, mut absent) = (Vec::new(), None);
    for path in &args.journals {
        parts.extend(stored::part(path, &mut absent)?);
    }
    let known = stored::shards(args)?;
    let survey = survey::<MergeError>(&mut parts, known, || Ok(interrupt::check()?));
    let Survey { run, missing } = survey.map_err(MergeError::plain)?;
    let Some(run) = run else { bail!("the journals hold no certificate") };
    let complete = missing.trials == 0;
    if let (true, Some(error)) = (complete, absent) {
        // No part that is missing accounts for a file that is not there.
        return Err(error.into());
    }
    if !complete && !args.allow_missing {
        return stored::incomplete(&missing, "certificates", format);
    }
    let joined = match place {
        Some(place) => {
            let mut joined = Joined::default();
            let kept = place.write_records::<MergeError>(&run, |out| {
                joined = join(&mut parts, |line: &CertificateLine| {
                    interrupt::check()?;
                    Ok::<_, MergeError>(out.write(line)?)
                })?;
                Ok(())
            });
            if let Some(old) = kept.map_err(MergeError::plain)? {
                output::kept(&old);
            }
            sum(&joined, &missing, format)?;
            joined
        }
        None => {
            let joined = join::<MergeError>(&mut parts, |line| {
                interrupt::check()?;
                match (format, &line.answer) {
                    (Format::Text, answer) => {
                        let shown = answer.as_ref().map(|answer| text::answer(answer, output::look()));
                        output::text(&shown.unwrap_or_default())?;
                    }
                    (Format::Json | Format::Jsonl, _) => output::json(line)?,
                }
                Ok(())
            });
            let joined = joined.map_err(MergeError::plain)?;
            if format == Format::Text {
                sum(&joined, &missing, format)?;
            }
            joined
        }
    };
    joined.cut.iter().for_each(|path| {
        message(&format!("{} ends in the middle of a certificate, which is left out", path.display()));
    });
    if !complete {
        message(&stored::said_missing(&missing, "certificates"));
    }
    Ok(exit_code::DONE)
}

/// What was joined.
fn sum(joined: &Joined, missing: &Missing, format: Format) -> Result<()> {
    output::or_unread(match format {
        Format::Text => {
            let suite = joined.suite.as_ref().map(|suite| text::suite(suite, output::look())).unwrap_or_default();
            output::text(&format!("{} certificates of {} prompts\n{suite}", joined.answers, joined.of))
        }
        Format::Json | Format::Jsonl => output::json(&Sum {
            command: "merge",
            schema: SCHEMA,
            certificates: joined.answers,
            missing,
            suite: joined.suite.as_ref(),
        }),
    })
}
