//! Runs for people who were not there: what was run, on what, and what was found, as text or as one page.
//!
//! A report comes from records alone, which may lie in several files and be of several commands and models.
//! [`Gathered`] puts together what belongs together, [`Report`] says what each run found, by the same functions that the
//! commands use while they run, and [`text()`] and [`html()`] only write it down. `--format json` is the [`Report`] itself.

pub mod compare;
mod curve;
mod gather;
mod listed;
mod page;
mod source;
pub(crate) mod terminal;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::Serialize;

pub(crate) use curve::Curve;

use gather::Finding;
pub use gather::Gathered;
pub(crate) use gather::StoredRun;
pub use page::{DrawError, HtmlError, html};
pub use source::{Source, SourceError};
pub use terminal::{Look, report as text};

use crate::{
    certificate::Certificates,
    coherence::Verdict,
    record::{CleanAnswer, ModelFacts, Record, Restored, RunFacts, summary::Summary},
    search::{bisect::Bisection, campaign::Row, map::Cell},
};

/// What all files together say.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    /// Version of the program that wrote the report.
    pub version: &'static str,
    /// What the reader must know of the files: that one was cut short, that trials were given twice.
    pub notes: &'a [String],
    /// The models, in the order in which they were met.
    pub(crate) models: Vec<Model<'a>>,
}

/// One model, and all that was run on it.
#[derive(Debug, Serialize)]
pub(crate) struct Model<'a> {
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
pub(crate) struct Certified<'a> {
    /// The file.
    pub file: &'a str,
    /// What it holds.
    #[serde(flatten)]
    pub certificates: &'a Certificates,
}

/// One run.
#[derive(Debug, Serialize)]
pub(crate) struct Run<'a> {
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
    /// The trials that are listed, by prompt in the order of the run.
    pub prompts: Vec<Answers<'a>>,
    /// What was found.
    pub found: Found,
}

/// What a run found beyond its trials.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Found {
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
pub(crate) struct Answers<'a> {
    /// The prompt.
    pub prompt: &'a str,
    /// The unedited model's answer.
    pub clean: &'a CleanAnswer,
    /// Number of trials.
    pub trials: usize,
    /// Number of the trials whose answer is not the clean one.
    pub changed: usize,
    /// Whether the seed notebook says something of one of the trials.
    pub documented: bool,
    /// The run's first thousand trials, in their order; of a campaign those that changed the answer most, the worst first.
    pub records: Vec<&'a Record>,
}

impl<'a> Report<'a> {
    /// Says what each run found.
    pub fn of(gathered: &'a Gathered) -> Self {
        let mut models: Vec<Model<'a>> = Vec::new();
        for stored in &gathered.runs {
            let first = &stored.first;
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
            models[number].runs.push(Run::of(stored));
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
    pub(crate) fn trials(&self) -> usize {
        self.models.iter().flat_map(|model| &model.runs).map(|run| run.finished).sum()
    }

    /// Answers that were certified, in all.
    pub(crate) fn certified(&self) -> usize {
        let certified = self.models.iter().flat_map(|model| &model.certificates);
        certified
            .map(|of| of.certificates.answers.len().saturating_add(of.certificates.left_out))
            .fold(0, usize::saturating_add)
    }
}

impl<'a> Run<'a> {
    fn of(stored: &'a StoredRun) -> Self {
        let mut listed = stored.listed();
        let mut order: Vec<usize> = (0..stored.prompts.len()).collect();
        order.sort_by_key(|&number| stored.prompts[number].first);
        let answers = |number: usize| {
            let asked = &stored.prompts[number];
            Answers {
                prompt: &asked.prompt,
                clean: &asked.clean,
                trials: asked.trials,
                changed: asked.changed,
                documented: asked.documented,
                records: listed.remove(&number).unwrap_or_default(),
            }
        };
        let prompts: Vec<Answers<'a>> = order.into_iter().map(answers).collect();
        let found = match &stored.found {
            Finding::Map(cells, _) => Found::Map(cells.cells()),
            Finding::Campaign(rows, _) => Found::Campaign(rows.rows()),
            Finding::Along(along, _) => {
                let (curves, points, summaries) = &**along;
                let summaries = if prompts.len() > 1 { summaries.summaries() } else { Vec::new() };
                Found::Along { curves: curves.curves(), bisection: points.bisection(), summaries }
            }
        };
        let first = &stored.first;
        Self {
            command: &first.run.command,
            files: &stored.files,
            facts: &first.run,
            backend: &first.backend,
            kernel: &first.kernel,
            threshold: first.threshold,
            finished: stored.finished.len(),
            verdicts: stored.all.verdicts(),
            restored: stored.restored.as_ref(),
            prompts,
            found,
        }
    }

    /// Whether trials are missing.
    pub(crate) fn is_partial(&self) -> bool {
        self.facts.trials.is_some_and(|trials| self.finished < trials)
    }
}
