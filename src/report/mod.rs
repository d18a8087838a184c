//! Runs for people who were not there: what was run, on what, and what was found, as text or as one page.
//!
//! A report comes from records alone, which may lie in several files and be of several commands and models.
//! [`Gathered`] puts together what belongs together, [`Report`] says what each run found, by the same functions that the
//! commands use while they run, and [`text()`] and [`html()`] only write it down. `--format json` is the [`Report`] itself.

pub mod compare;
mod curve;
mod gather;
mod page;
mod source;
pub(crate) mod terminal;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

pub use curve::{Curve, Point};
pub use gather::{Gathered, Stored};
pub use page::{DrawError, HtmlError, html};
pub use source::{Source, SourceError};
pub use terminal::{Look, report as text};

use crate::{
    certificate::Certificates,
    coherence::Verdict,
    record::{
        CleanAnswer, ModelFacts, Record, Restored, RunFacts,
        summary::{Summary, summaries},
    },
    search::{
        bisect::Bisection,
        campaign::{self, Row},
        map::{self, Cell},
    },
};

/// What all files together say.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    /// Version of the program that wrote the report.
    pub version: &'static str,
    /// What the reader must know of the files: that one was cut short, that trials were given twice.
    pub notes: &'a [String],
    /// The models, in the order in which they were met.
    pub models: Vec<Model<'a>>,
}

/// One model, and all that was run on it.
#[derive(Debug, Serialize)]
pub struct Model<'a> {
    /// As it was first named.
    pub name: &'a str,
    /// Commit of the hub.
    pub revision: Option<&'a str>,
    /// BLAKE3 over the checkpoint's files; certificates alone do not tell it.
    pub model_digest: Option<&'a str>,
    /// BLAKE3 over the head.
    pub head_digest: &'a str,
    /// Its shape; certificates alone do not tell it.
    pub facts: Option<&'a ModelFacts>,
    /// What was run, in the order in which it was met.
    pub runs: Vec<Run<'a>>,
    /// What was certified.
    pub certificates: Vec<Certified<'a>>,
}

/// The certificates of one file.
#[derive(Debug, Serialize)]
pub struct Certified<'a> {
    /// The file.
    pub file: &'a str,
    /// What it holds.
    #[serde(flatten)]
    pub certificates: &'a Certificates,
}

/// One run.
#[derive(Debug, Serialize)]
pub struct Run<'a> {
    /// The command.
    pub command: &'a str,
    /// The files.
    pub files: &'a [String],
    /// What its records have in common.
    pub facts: &'a RunFacts,
    /// `cpu` or `mlx`.
    pub backend: &'a str,
    /// The kernel, or type and device.
    pub kernel: &'a str,
    /// Surprise in nats up to which a step counts as coherent.
    pub threshold: f64,
    /// Trials that are there.
    pub finished: usize,
    /// How often each verdict was given.
    pub verdicts: BTreeMap<Verdict, usize>,
    /// The way back, where it was stored.
    pub restored: Option<&'a Restored>,
    /// The trials, by prompt in the order of the run.
    pub prompts: Vec<Answers<'a>>,
    /// What was found.
    pub found: Found,
}

/// What a run found beyond its trials.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// The cells of a map.
    Map(Vec<Cell>),
    /// The rows of a campaign.
    Campaign(Vec<Row>),
    /// The findings of every other command.
    Along {
        /// What was found along families of edits.
        curves: Vec<Curve>,
        /// The points and crossings of a bisection.
        bisection: Option<Bisection>,
        /// Each edit over its prompts, where there are several.
        summaries: Vec<Summary>,
    },
}

/// The trials of one prompt.
#[derive(Debug, Serialize)]
pub struct Answers<'a> {
    /// The prompt.
    pub prompt: &'a str,
    /// The unedited model's answer.
    pub clean: &'a CleanAnswer,
    /// In the order of the run.
    pub records: Vec<&'a Record>,
}

impl<'a> Report<'a> {
    /// Says what each run found.
    pub fn of(gathered: &'a Gathered) -> Self {
        let mut models: Vec<Model<'a>> = Vec::new();
        for stored in &gathered.runs {
            let Some(first) = stored.records.first() else { continue };
            let key = (Some(first.model_digest.as_str()), first.head_digest.as_str());
            let known = models.iter().position(|model| (model.model_digest, model.head_digest) == key);
            let number = known.unwrap_or_else(|| {
                models.push(Model {
                    name: &first.model,
                    revision: first.revision.as_deref(),
                    model_digest: key.0,
                    head_digest: key.1,
                    facts: Some(&first.run.model),
                    runs: Vec::new(),
                    certificates: Vec::new(),
                });
                models.len() - 1
            });
            models[number].runs.push(Run::of(stored, first));
        }
        for (file, certificates) in &gathered.certificates {
            // The head is what they are about.
            let known = models.iter().position(|model| model.head_digest == certificates.head_digest);
            let number = known.unwrap_or_else(|| {
                models.push(Model {
                    name: &certificates.model,
                    revision: certificates.revision.as_deref(),
                    model_digest: None,
                    head_digest: &certificates.head_digest,
                    facts: None,
                    runs: Vec::new(),
                    certificates: Vec::new(),
                });
                models.len() - 1
            });
            models[number].certificates.push(Certified { file, certificates });
        }
        Self { version: env!("CARGO_PKG_VERSION"), notes: &gathered.notes, models }
    }

    /// Trials in all.
    pub fn trials(&self) -> usize {
        self.models.iter().flat_map(|model| &model.runs).map(|run| run.finished).sum()
    }

    /// Answers that were certified, in all.
    pub fn certified(&self) -> usize {
        let certified = self.models.iter().flat_map(|model| &model.certificates);
        certified.map(|certified| certified.certificates.answers.len()).sum()
    }
}

impl<'a> Run<'a> {
    fn of(stored: &'a Stored, first: &'a Record) -> Self {
        let mut prompts: Vec<Answers<'a>> = Vec::new();
        let mut numbers: HashMap<&[u32], usize> = HashMap::new();
        let mut verdicts = BTreeMap::new();
        for record in &stored.records {
            *verdicts.entry(record.verdict).or_default() += 1;
            let number = *numbers.entry(&record.prompt_ids).or_insert(prompts.len());
            if number == prompts.len() {
                prompts.push(Answers { prompt: &record.prompt, clean: &record.clean, records: Vec::new() });
            }
            prompts[number].records.push(record);
        }
        let found = match first.run.command.as_str() {
            "map" => Found::Map(map::cells(&stored.records)),
            "campaign" => Found::Campaign(campaign::rows(&stored.records)),
            _ => Found::Along {
                curves: Curve::of(&stored.records),
                bisection: Bisection::of(&stored.records),
                summaries: if prompts.len() > 1 { summaries(&stored.records) } else { Vec::new() },
            },
        };
        Self {
            command: &first.run.command,
            files: &stored.files,
            facts: &first.run,
            backend: &first.backend,
            kernel: &first.kernel,
            threshold: first.threshold,
            finished: stored.records.len(),
            verdicts,
            restored: stored.restored.as_ref(),
            prompts,
            found,
        }
    }

    /// Whether trials are missing.
    pub fn is_partial(&self) -> bool {
        self.facts.trials.is_some_and(|trials| self.finished < trials)
    }
}
