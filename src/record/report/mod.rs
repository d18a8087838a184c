//! Runs for people who were not there: what was run, on what, and what was found, as text or as one page.
//!
//! A report is gathered from records alone, which may come from several files, commands and models. [`Report::of`]
//! puts together what belongs together: trials by the `id` of their run (shards of one run are one section, a trial
//! that two files hold counts once), runs by the model. [`text`] and [`html`] only say it; `--format json` is the
//! gathered report itself.

mod axis;
mod curve;
mod html;
mod plots;
mod source;
mod text;

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

pub use curve::{Curve, Point};
pub use html::{HtmlError, html};
pub use plots::DrawError;
pub use source::{Source, SourceError};
pub use text::text;

use super::{CleanAnswer, ModelFacts, Record, Restored, RunFacts, journal::same_result};
use crate::coherence::Verdict;

/// What all files together say.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    /// Version of the program that wrote the report.
    pub version: &'static str,
    /// What the reader must know of the files: that one was cut short, that trials were given twice.
    pub notes: Vec<String>,
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
    /// BLAKE3 over the checkpoint's files.
    pub model_digest: &'a str,
    /// BLAKE3 over the head.
    pub head_digest: &'a str,
    /// Its shape.
    pub facts: &'a ModelFacts,
    /// What was run, in the order in which it was met.
    pub runs: Vec<Run<'a>>,
}

/// One run, put together from all files that hold a part of it.
#[derive(Debug, Serialize)]
pub struct Run<'a> {
    /// The command.
    pub command: &'a str,
    /// The files.
    pub files: Vec<&'a str>,
    /// What its records have in common.
    pub facts: &'a RunFacts,
    /// `cpu` or `mlx`.
    pub backend: &'a str,
    /// The kernel.
    pub kernel: &'a str,
    /// Surprise in nats up to which a step counts as coherent.
    pub threshold: f64,
    /// Trials that are there.
    pub finished: usize,
    /// How often each verdict was given.
    pub verdicts: BTreeMap<Verdict, usize>,
    /// The way back, where it was stored.
    pub restored: Option<&'a Restored>,
    /// What was found along families of edits.
    pub curves: Vec<Curve>,
    /// The trials, by prompt in the order of the run.
    pub prompts: Vec<Answers<'a>>,
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

/// What tells runs apart.
type Key<'a> = (&'a str, &'a str, &'a str, &'a str);

impl<'a> Report<'a> {
    /// Puts together what belongs together.
    pub fn of(sources: &'a [Source]) -> Self {
        let mut notes = Vec::new();
        let mut order: Vec<Key<'a>> = Vec::new();
        let mut runs: BTreeMap<Key<'a>, (Vec<&'a str>, Vec<&'a Record>)> = BTreeMap::new();
        for source in sources {
            if source.cut {
                notes.push(format!(
                    "{} ends in the middle of a line, as after a kill: its first {} trials are reported",
                    source.name,
                    source.records.len(),
                ));
            }
            for record in &source.records {
                let key =
                    (record.model_digest.as_str(), record.head_digest.as_str(), record.run.id.as_str(), record.run.command.as_str());
                let (files, records) = runs.entry(key).or_insert_with(|| {
                    order.push(key);
                    Default::default()
                });
                if files.last() != Some(&source.name.as_str()) {
                    files.push(&source.name);
                }
                records.push(record);
            }
        }
        let mut models: Vec<Model<'a>> = Vec::new();
        for key in order {
            let Some((files, mut records)) = runs.remove(&key) else { continue };
            let given = records.len();
            records.sort_by_key(|record| record.trial);
            let disagree = records.windows(2).any(|two| two[0].trial == two[1].trial && !same_result(two[0], two[1]));
            records.dedup_by_key(|record| record.trial);
            if records.len() < given {
                let (twice, files) = (given - records.len(), files.join(", "));
                let agree = if disagree { ", NOT ALL WITH THE SAME RESULT: the first counts" } else { ", and count once" };
                notes.push(format!("{twice} trials stand in {files} more than once{agree}"));
            }
            let mut holding = sources.iter().filter(|source| files.contains(&source.name.as_str()));
            let run = Run::of(files.clone(), &records, holding.find_map(|source| source.restored.as_ref()));
            let first = records[0];
            let known = |model: &&mut Model<'_>| (model.model_digest, model.head_digest) == (key.0, key.1);
            match models.iter_mut().find(known) {
                Some(model) => model.runs.push(run),
                None => models.push(Model {
                    name: &first.model,
                    revision: first.revision.as_deref(),
                    model_digest: key.0,
                    head_digest: key.1,
                    facts: &first.run.model,
                    runs: vec![run],
                }),
            }
        }
        Self { version: env!("CARGO_PKG_VERSION"), notes, models }
    }

    /// Trials in all.
    pub fn trials(&self) -> usize {
        self.models.iter().flat_map(|model| &model.runs).map(|run| run.finished).sum()
    }
}

impl<'a> Run<'a> {
    /// `records` are some, in order.
    fn of(files: Vec<&'a str>, records: &[&'a Record], restored: Option<&'a Restored>) -> Self {
        let first = records[0];
        let mut prompts: Vec<Answers<'a>> = Vec::new();
        let mut numbers: HashMap<&[u32], usize> = HashMap::new();
        let mut verdicts = BTreeMap::new();
        for &record in records {
            *verdicts.entry(record.verdict).or_default() += 1;
            let number = *numbers.entry(&record.prompt_ids).or_insert(prompts.len());
            if number == prompts.len() {
                prompts.push(Answers { prompt: &record.prompt, clean: &record.clean, records: Vec::new() });
            }
            prompts[number].records.push(record);
        }
        Self {
            command: &first.run.command,
            files,
            facts: &first.run,
            backend: &first.backend,
            kernel: &first.kernel,
            threshold: first.threshold,
            finished: records.len(),
            verdicts,
            restored,
            curves: Curve::of(records),
            prompts,
        }
    }

    /// Whether trials are missing.
    pub fn is_partial(&self) -> bool {
        self.facts.trials.is_some_and(|trials| self.finished < trials)
    }
}
