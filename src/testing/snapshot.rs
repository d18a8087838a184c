//! Responses as snapshots: what a model answers at each documented shift, locked until somebody looks at a change.
//!
//! One sheet is one revision of a model on one suite of prompts, written so that a line-by-line difference reads as
//! a review: each response stands on one line with its shift, verdict and finish, its tokens and numbers below.
//! Tokens, text, finish and verdict are compared exactly, numbers within a thousandth.
//!
//! The bits of a run are equal on every instruction set, so tokens differ only where the model does. For a backend of
//! which that cannot be said there is one rule, [`compare`]'s: an answer may part from the snapshot at a step where the
//! margin between the two best logits is less than the backend's stated bound, since there rounding decides.

use std::fmt::Write;

use insta::{
    Snapshot,
    comparator::Comparator,
    internals::{SnapshotContents, TextSnapshotContents},
};

use super::comparators::Band;
use crate::{
    record::Record,
    search::{RunError, Session, Settings, keep, ladder},
    seed,
    subject::{Prompt, Subject},
};

/// Within this, numbers are those of the snapshot, which holds four decimals.
pub(crate) const NUMBERS: Band = Band { absolute: 1e-3, relative: 1e-3 };

/// How far the CPU's kernels may be from one another in a logit: no bit.
pub(crate) const CPU_BOUND: f64 = 0.0;

/// The sheet of `subject` on `prompts` at the shifts of the notebook.
///
/// # Errors
/// [`RunError`].
///
/// # Panics
/// If there is no prompt.
pub fn sheet(subject: &Subject, prompts: &[Prompt], max_tokens: usize) -> Result<String, RunError> {
    let settings = Settings { max_tokens, ..Settings::default() };
    let mut records = Vec::new();
    ladder(&mut Session::new(subject, prompts, settings), &seed::SHIFTS, keep(&mut records))?;
    let layout = subject.head().layout();
    let first = &records[0];
    let mut out = String::new();
    let mut line = |text: String| {
        out.push_str(text.trim_end());
        out.push('\n');
    };
    line(format!("model     {}", name(subject.name())));
    line(format!("revision  {}", subject.revision().unwrap_or("-")));
    line(format!("digest    {}", first.model_digest));
    line(format!("head      {}", first.head_digest));
    line(format!("          {} x {}, {}", layout.rows(), layout.cols(), layout.described()));
    line(format!("suite     {} prompts, {} shifts", prompts.len(), seed::SHIFTS.len()));
    line(format!("settings  max_tokens {max_tokens}, threshold {:.4}", first.threshold));
    if let Some(date) = &first.run.date {
        line(format!("date      {date}"));
    }
    for (record, i) in records.iter().zip(0..) {
        if i % seed::SHIFTS.len() == 0 {
            line(String::new());
            line(format!("{:?}", record.prompt));
        }
        response(record).lines().for_each(|text| line(text.to_owned()));
    }
    Ok(out)
}

fn response(record: &Record) -> String {
    let mut out = String::new();
    let shift = record.shift.expect("an edit of the ladder is a shift");
    let finish = format!("{:?}", record.finish).to_lowercase();
    let number = |x: Option<f64>| x.map_or("-".to_owned(), |x| format!("{x:.4}"));
    let numbers = |x: &mut dyn Iterator<Item = Option<f64>>| x.map(number).collect::<Vec<_>>().join(" ");
    let tokens = record.tokens.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
    let tags = record.tags.iter().map(|tag| format!(" {tag:?}")).collect::<String>();
    // Writing into a string does not fail.
    let _ = writeln!(out, "  shift {shift}  {}  {finish}  {:?}{tags}", record.verdict.name(), record.text);
    let _ = writeln!(out, "    tokens    {tokens}");
    let _ = writeln!(out, "    margin    {}", numbers(&mut record.margin.iter().map(|x| x.map(f64::from))));
    let _ = writeln!(out, "    surprise  {}", numbers(&mut record.surprise.iter().copied()));
    let measured = [record.kl_mean, record.kl_p99, record.agreement, Some(record.coherent_tokens as f64)];
    let _ = writeln!(out, "    kl mean, kl p99, agreement, coherent  {}", numbers(&mut measured.into_iter()));
    out
}

/// The last part of a model's name, as a file may be called.
pub(crate) fn name(model: &str) -> String {
    let whole = model.trim_end_matches('/');
    // A hub id stays whole, a folder is known by its own name.
    let short = if std::path::Path::new(whole).exists() { whole.rsplit('/').next().unwrap_or(whole) } else { whole };
    short.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect()
}

/// A response, read back from a sheet.
#[derive(Debug, Default, PartialEq)]
struct Response<'a> {
    prompt: &'a str,
    /// Shift, verdict, finish, text and tags.
    line: &'a str,
    tokens: Vec<&'a str>,
    margin: Vec<&'a str>,
    /// Everything else that is a number.
    numbers: Vec<&'a str>,
}

impl Response<'_> {
    fn shift(&self) -> &str {
        self.line.split_whitespace().nth(1).unwrap_or("")
    }
}

/// The lines above the responses, and these.
fn parse(sheet: &str) -> (Vec<&str>, Vec<Response<'_>>) {
    let (mut above, mut responses, mut prompt) = (Vec::new(), Vec::<Response<'_>>::new(), "");
    for line in sheet.lines() {
        let text = line.trim_start();
        let part = |name: &str| text.strip_prefix(name).map(|rest| rest.split_whitespace().collect::<Vec<_>>());
        if text.starts_with('"') && !line.starts_with(' ') {
            prompt = text;
        } else if text.starts_with("shift ") && line.starts_with(' ') {
            responses.push(Response { prompt, line: text, ..Response::default() });
        } else if let Some(response) = responses.last_mut().filter(|_| line.starts_with("    ")) {
            if let Some(tokens) = part("tokens") {
                response.tokens = tokens;
            } else if let Some(margin) = part("margin") {
                response.margin = margin;
            } else {
                response.numbers.extend(text.split_whitespace());
            }
        } else if !text.is_empty() {
            above.push(line);
        }
    }
    (above, responses)
}

/// Whether `found` is what `stored` says, for a backend that states `bound` for a logit. At a step where the stored or
/// the found margin is less than that, an answer may part from the stored one, and from there on nothing of it is
/// compared, its label included.
///
/// # Errors
/// What differs first.
pub fn compare(stored: &str, found: &str, bound: f64) -> Result<(), String> {
    let ((above, old), (new_above, new)) = (parse(stored), parse(found));
    if above != new_above {
        let line = above.iter().zip(&new_above).find(|(old, new)| old != new);
        return Err(line.map_or("another sheet".to_owned(), |(old, new)| format!("{new:?} was {old:?}")));
    }
    if old.len() != new.len() || old.is_empty() {
        return Err(format!("{} responses where there were {}", new.len(), old.len()));
    }
    old.iter().zip(&new).try_for_each(|(old, new)| same_response(old, new, bound))
}

fn same_response(old: &Response<'_>, new: &Response<'_>, bound: f64) -> Result<(), String> {
    let place = format!("{} {}", old.prompt, old.shift());
    if (old.prompt, old.shift()) != (new.prompt, new.shift()) {
        return Err(format!("{place} became {} {}", new.prompt, new.shift()));
    }
    let steps = old.tokens.len().max(new.tokens.len());
    let parts = (0..steps).find(|&step| old.tokens.get(step) != new.tokens.get(step));
    let close = |response: &Response<'_>, step: usize| {
        response.margin.get(step).and_then(|margin| margin.parse::<f64>().ok()).is_some_and(|margin| margin < bound)
    };
    if let Some(step) = parts {
        if close(old, step) || close(new, step) {
            return numbers(&old.margin[..step.min(old.margin.len())], &new.margin[..step.min(new.margin.len())])
                .map_err(|why| format!("{place}: margin: {why}"));
        }
        return Err(format!("{place}: token {step} is another: {} was {}", new.line, old.line));
    }
    if old.line != new.line {
        return Err(format!("{place}: {} was {}", new.line, old.line));
    }
    numbers(&old.margin, &new.margin).map_err(|why| format!("{place}: margin: {why}"))?;
    numbers(&old.numbers, &new.numbers).map_err(|why| format!("{place}: {why}"))
}

fn numbers(old: &[&str], new: &[&str]) -> Result<(), String> {
    if old.len() != new.len() {
        return Err(format!("{} numbers where there were {}", new.len(), old.len()));
    }
    let differs = old.iter().zip(new).find(|(old, new)| match (old.parse(), new.parse()) {
        (Ok(old), Ok(new)) => !NUMBERS.holds(new, old),
        _ => old != new,
    });
    differs.map_or(Ok(()), |(old, new)| Err(format!("{new} was {old}")))
}

/// [`compare`] for insta.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sheets {
    /// What the backend states for a logit.
    pub bound: f64,
}

impl Comparator for Sheets {
    fn matches(&self, reference: &Snapshot, test: &Snapshot) -> bool {
        match (reference.contents(), test.contents()) {
            (SnapshotContents::Text(stored), SnapshotContents::Text(found)) => {
                let text = |contents: &TextSnapshotContents| contents.to_string();
                compare(&text(stored), &text(found), self.bound).is_ok()
            }
            _ => false,
        }
    }

    fn dyn_clone(&self) -> Box<dyn Comparator> {
        Box::new(*self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHEET: &str = "model     m\ndigest    d\n\n\"What?\"\n  shift 0  HEALTHY  stop  \"That \\\"is\\\".\"\n    tokens    \
                         5 6 7\n    margin    1.5000 0.0100 3.0000 2.0000\n    surprise  0.1000 0.0000 0.2000 0.3000\n    \
                         kl mean, kl p99, agreement, coherent  0.0000 0.0000 1.0000 4.0000\n  shift 1  GONE  nonfinite  \
                         \"\"\n    tokens\n    margin\n    surprise\n    kl mean, kl p99, agreement, coherent  - - 0.0000 \
                         0.0000\n";

    fn changed(from: &str, to: &str, bound: f64) -> Result<(), String> {
        let other = SHEET.replacen(from, to, 1);
        assert_ne!(other, SHEET);
        compare(SHEET, &other, bound)
    }

    #[test]
    fn a_sheet_is_itself() {
        assert_eq!(compare(SHEET, SHEET, 0.0), Ok(()));
        assert_eq!(parse(SHEET).1.len(), 2);
        assert!(compare("", "", 0.0).is_err() && compare(SHEET, "", 0.0).is_err());
    }

    #[test]
    fn whatever_is_no_number_must_be_the_same() {
        for (from, to) in [
            ("digest    d", "digest    e"),
            ("What?", "Why?"),
            ("shift 0", "shift 2"),
            ("HEALTHY", "WOBBLING"),
            ("stop", "length"),
            ("That", "This"),
            ("5 6 7", "5 6 8"),
            ("5 6 7", "5 6"),
            ("- -", "- 0.0000"),
            ("GONE", "DEAD"),
        ] {
            assert!(changed(from, to, 0.0).is_err(), "{from} to {to}");
        }
    }

    #[test]
    fn numbers_may_differ_within_their_band_and_no_more() {
        assert_eq!(changed("1.5000", "1.5010", 0.0), Ok(()));
        assert!(changed("1.5000", "1.5030", 0.0).is_err());
        assert_eq!(changed("0.1000", "0.1005", 0.0), Ok(()));
        assert!(changed("0.1000", "0.1100", 0.0).is_err());
        assert!(changed("1.0000", "-", 0.0).is_err());
        assert!(changed("1.5000 0.0100", "1.5000", 0.0).is_err());
    }

    #[test]
    fn a_step_may_go_another_way_only_where_its_margin_is_within_the_bound() {
        // Step 1 has a margin of 0.01; what follows it follows from it.
        let other = SHEET.replacen("5 6 7", "5 9 9", 1).replacen("HEALTHY  stop", "DYING  length", 1);
        assert!(compare(SHEET, &other, 0.0).is_err());
        assert!(compare(SHEET, &other, 0.01).is_err(), "the bound itself is not within it");
        assert_eq!(compare(SHEET, &other, 0.02), Ok(()));
        let first = SHEET.replacen("5 6 7", "4 6 7", 1);
        assert!(compare(SHEET, &first, 0.02).is_err(), "step 0 has a margin of 1.5");
        let before = other.replacen("1.5000", "1.6000", 1);
        assert!(compare(SHEET, &before, 0.02).is_err(), "what comes before is compared");
    }

    #[test]
    fn a_model_is_called_by_its_folder_or_by_its_whole_id() {
        assert_eq!(name("demo"), "demo");
        assert_eq!(name("mlx-community/SmolLM2-135M@main"), "mlx-community-SmolLM2-135M-main");
        assert_eq!(name(concat!(env!("CARGO_MANIFEST_DIR"), "/models/demo/")), "demo");
    }
}
