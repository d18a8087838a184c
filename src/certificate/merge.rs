//! Journals of the parts of one run of `certify`, joined to what the whole run would have written.

use std::{collections::BTreeMap, path::PathBuf};

use super::{
    CertificateLine, Suite,
    line::{CertifyFacts, NewBits},
    run::Together,
};
use crate::{
    numbers::NumberSet,
    quant::Layout,
    record::{
        Missing, Reader, Spacing, Stored,
        journal::{JournalError, date},
    },
};

/// Why parts cannot be joined.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// A journal that is none, or that is of another run than the first.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Lines that are not in the order of their prompts.
    #[error(
        "{}, line {line}: certificate {number} comes after certificate {after}; parts are joined by `merge`, and not one \
         behind the other",
        .path.display()
    )]
    Order {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
        /// The line's number.
        number: usize,
        /// The number before it.
        after: usize,
    },
    /// Critical bits that are no bits of the head.
    #[error("{}, line {line}: {what}", .path.display())]
    Bits {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
}

/// What joined parts hold together.
#[derive(Debug, Default)]
pub(crate) struct Joined {
    /// Lines of the whole run that were there.
    pub finished: usize,
    /// Certificates among them.
    pub answers: usize,
    /// Lines of the whole run.
    pub of: usize,
    /// Parts that end in the middle of a line.
    pub cut: Vec<PathBuf>,
    /// What all answers have in common; `None` without one.
    pub suite: Option<Suite>,
}

/// What parts hold, seen before anything is joined.
#[derive(Debug)]
pub(crate) struct Survey {
    /// The run's id; `None` where there is no line.
    pub run: Option<String>,
    /// Lines of the run that are in none of the parts.
    pub missing: Missing,
}

/// Looks at all lines of some parts, which are to be of one run. `shards` is the number of parts, where it is known, and else
/// follows from the lines that each part has.
///
/// # Errors
/// [`JoinError`], and what `step` returns, which is called between lines.
pub(crate) fn survey<E: From<JoinError>>(
    parts: &mut [Stored],
    shards: Option<usize>,
    mut step: impl FnMut() -> Result<(), E>,
) -> Result<Survey, E> {
    let (mut numbers, mut spacing) = (NumberSet::default(), Spacing::default());
    let mut first: Option<CertificateLine> = None;
    for stored in parts {
        let path = stored.path().to_owned();
        let mut before = None;
        for found in Reader::<CertificateLine>::new(stored).map_err(JoinError::from)? {
            step()?;
            let (at, line) = found.map_err(JoinError::from)?;
            match &first {
                Some(first) => same_run(&path, at, &line, first)?,
                None => first = Some(facts_of(&line)),
            }
            numbers.insert(line.certificate);
            if let Some(before) = before {
                spacing.add(before, line.certificate);
            }
            before = Some(line.certificate);
        }
    }
    let prompts = first.as_ref().map_or(0, |first| first.run.prompts);
    let missing = Missing::of(&numbers, prompts, shards.or_else(|| spacing.parts()));
    Ok(Survey { run: first.map(|first| first.run.id), missing })
}

/// A part, read as far as its next line.
struct Part<'a> {
    path: PathBuf,
    reader: Reader<'a, CertificateLine>,
    next: Option<(usize, CertificateLine)>,
    before: Option<usize>,
}

impl Part<'_> {
    fn advance(&mut self) -> Result<(), JoinError> {
        let before = self.next.take().map(|(_, line)| line.certificate).or(self.before);
        self.before = before;
        let Some(found) = self.reader.next() else { return Ok(()) };
        let (line, found) = found?;
        let number = found.certificate;
        if let Some(after) = before.filter(|&before| number < before) {
            return Err(JoinError::Order { path: self.path.clone(), line, number, after });
        }
        self.next = Some((line, found));
        Ok(())
    }
}

/// Joins the parts of one run, which are read side by side, and hands over each line once, in the order of the prompts: as
/// the whole run would have written it. Of a line that comes again the first counts.
///
/// # Errors
/// [`JoinError`], and what `take` returns.
pub(crate) fn join<E: From<JoinError>>(
    parts: &mut [Stored],
    mut take: impl FnMut(&CertificateLine) -> Result<(), E>,
) -> Result<Joined, E> {
    let mut open = Vec::new();
    for stored in parts {
        let path = stored.path().to_owned();
        let reader = Reader::new(stored).map_err(JoinError::from)?;
        let mut part = Part { path, reader, next: None, before: None };
        part.advance()?;
        open.push(part);
    }
    let mut joined = Joined::default();
    let (mut together, mut texts) = (Together::default(), BTreeMap::new());
    let mut run: Option<(CertificateLine, Layout)> = None;
    let mut last: Option<CertificateLine> = None;
    loop {
        let next = open.iter().enumerate().filter_map(|(i, part)| Some((part.next.as_ref()?.1.certificate, i))).min();
        let Some((number, i)) = next else { break };
        let part = &mut open[i];
        let Some((at, mut line)) = part.next.take() else { break };
        part.before = Some(number);
        let path = part.path.clone();
        part.advance()?;
        let layout = match &run {
            Some((first, layout)) => {
                same_run(&path, at, &line, first)?;
                *layout
            }
            None => {
                let layout = line.run.layout().ok_or_else(|| JoinError::Bits {
                    path: path.clone(),
                    line: at,
                    what: format!("there is no head of {} x {} in {}", line.run.rows, line.run.cols, line.run.format),
                })?;
                joined.of = line.run.prompts;
                let first = facts_of(&line);
                run.insert((first, layout)).1
            }
        };
        if let Some(last) = last.as_ref().filter(|last| last.certificate == number) {
            if !last.same_result(&line) {
                return Err(JoinError::from(JournalError::Contradiction { path, line: at, trial: number }).into());
            }
            continue;
        }
        if number >= joined.of {
            let what = format!("certificate {number} of a run of {}", joined.of);
            return Err(JoinError::Bits { path, line: at, what }.into());
        }
        let bits = line.new_bits.read(&layout);
        let bits = bits.map_err(|error| JoinError::Bits { path: path.clone(), line: at, what: error.to_string() })?;
        texts.extend(std::mem::take(&mut line.new_bits.texts));
        let (new, rows) = together.join(&bits);
        let text = |row: usize| (row, texts.get(&row).cloned().unwrap_or_default());
        line.new_bits = NewBits::of(&new, rows.into_iter().map(text).collect());
        line.answer.iter().for_each(|answer| together.count(answer));
        joined.finished += 1;
        take(&line)?;
        last = Some(line);
    }
    joined.cut = open.iter().filter(|part| part.reader.end().cut > 0).map(|part| part.path.clone()).collect();
    joined.answers = together.tally().answers();
    let text = |row: usize| Ok::<_, JoinError>(texts.get(&row).cloned().unwrap_or_default());
    joined.suite = together.tally().suite(text)?;
    Ok(joined)
}

/// What a line has in common with the others of its run.
fn facts_of(line: &CertificateLine) -> CertificateLine {
    CertificateLine {
        schema: line.schema,
        certificate: line.certificate,
        model: line.model.clone(),
        revision: line.revision.clone(),
        model_digest: line.model_digest.clone(),
        head_digest: line.head_digest.clone(),
        kernel: line.kernel.clone(),
        prompt: String::new(),
        prompt_ids: Vec::new(),
        answer: None,
        refused: None,
        new_bits: NewBits::default(),
        run: line.run.clone(),
    }
}

/// Refuses a line of another run by the first thing that differs.
pub(super) fn same_run(
    path: &std::path::Path,
    line: usize,
    found: &CertificateLine,
    here: &CertificateLine,
) -> Result<(), JoinError> {
    let same = same_facts(&found.run, &here.run);
    let digests = [
        ("model's digest", found.model_digest.clone(), here.model_digest.clone()),
        ("head's digest", found.head_digest.clone(), here.head_digest.clone()),
    ];
    match digests.into_iter().chain(same).find(|(_, found, here)| found != here) {
        Some((what, found, here)) => {
            Err(JournalError::OtherRun { path: path.to_owned(), line, what, found, here }.into())
        }
        None => Ok(()),
    }
}

/// What two runs must have in common, the commonest differences first.
fn same_facts(found: &CertifyFacts, here: &CertifyFacts) -> impl Iterator<Item = (&'static str, String, String)> {
    let text = |of: &CertifyFacts| {
        let within = of.within.clone().unwrap_or_else(|| "none".to_owned());
        let toward = of.toward.map_or("none".to_owned(), |token| token.to_string());
        [
            of.max_tokens.to_string(),
            within,
            of.silence_eos.to_string(),
            toward,
            of.weakest.to_string(),
            date(of.date.as_deref()),
            of.prompts.to_string(),
            of.id.clone(),
        ]
    };
    const WHAT: [&str; 8] = [
        "--max-tokens",
        "--within",
        "--silence-eos",
        "--toward",
        "--weakest",
        "date (--date)",
        "number of prompts",
        "list of prompts (by digest)",
    ];
    WHAT.into_iter().zip(text(found)).zip(text(here)).map(|((what, found), here)| (what, found, here))
}
