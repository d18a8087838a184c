//! From files to runs: trials that belong together, however many files they came in.
//!
//! Trials are added up while they are read, and of a run only those are kept that a report lists: the memory that a report
//! takes does not grow with the number of trials, but for a bit for each, which says that it was met.

use std::collections::{BTreeMap, HashMap};

use super::{
    Certificates, Source, SourceError,
    curve::Curves,
    listed::{First, Worst},
};
use crate::{
    numbers::NumberSet,
    record::{
        CleanAnswer, Record, Restored,
        journal::Results,
        summary::{Summaries, Tally, changed},
    },
    search::{bisect::Points, campaign::Tallies, map::Cells},
};

/// One run, put together from all files that hold a part of it.
#[derive(Clone, Debug)]
pub(crate) struct StoredRun {
    /// The files.
    pub files: Vec<String>,
    /// The way back, where it was stored.
    pub restored: Option<Restored>,
    /// Its first trial, which says what all of them have in common.
    pub(super) first: Record,
    pub(super) finished: NumberSet,
    /// Trials that were given several times.
    again: NumberSet,
    times: usize,
    /// All trials together.
    pub(super) all: Tally,
    /// In the order in which they were met.
    pub(super) prompts: Vec<Asked>,
    numbers: HashMap<Vec<u32>, usize>,
    pub(super) found: Finding,
}

/// One prompt of a run.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) prompt: String,
    pub(super) clean: CleanAnswer,
    /// The least number of a trial.
    pub(super) first: usize,
    pub(super) trials: usize,
    pub(super) changed: usize,
    /// Whether the notebook says something of one of the trials.
    pub(super) documented: bool,
}

/// What is found of a run beyond the counts of its verdicts, and the trials that a report lists.
#[derive(Clone, Debug)]
pub(super) enum Finding {
    Map(Cells, First),
    Campaign(Tallies, Worst),
    Along(Box<(Curves, Points, Summaries)>, First),
}

impl StoredRun {
    fn new(first: &Record) -> Self {
        let found = match first.run.command.as_str() {
            "map" => Finding::Map(Cells::default(), First::default()),
            "campaign" => Finding::Campaign(Tallies::default(), Worst::default()),
            _ => Finding::Along(Box::default(), First::default()),
        };
        Self {
            files: Vec::new(),
            restored: None,
            first: first.clone(),
            finished: NumberSet::default(),
            again: NumberSet::default(),
            times: 0,
            all: Tally::default(),
            prompts: Vec::new(),
            numbers: HashMap::new(),
            found,
        }
    }

    fn add(&mut self, record: &Record) {
        if !self.finished.insert(record.trial) {
            self.again.insert(record.trial);
            self.times += 1;
            return;
        }
        if record.trial < self.first.trial {
            self.first.clone_from(record);
        }
        self.all.add(record);
        let number = match self.numbers.get(&record.prompt_ids) {
            Some(&number) => number,
            None => {
                self.numbers.insert(record.prompt_ids.clone(), self.prompts.len());
                self.prompts.push(Asked {
                    prompt: record.prompt.clone(),
                    clean: record.clean.clone(),
                    first: record.trial,
                    trials: 0,
                    changed: 0,
                    documented: false,
                });
                self.prompts.len() - 1
            }
        };
        let asked = &mut self.prompts[number];
        asked.first = asked.first.min(record.trial);
        asked.trials += 1;
        asked.changed += usize::from(changed(record));
        asked.documented |= record.documented.is_some();
        match &mut self.found {
            Finding::Map(cells, listed) => {
                cells.add(record);
                listed.add(number, record);
            }
            Finding::Campaign(rows, listed) => {
                rows.add(record);
                if changed(record) {
                    listed.add(number, record, |number| self.prompts[number].first);
                }
            }
            Finding::Along(along, listed) => {
                let (curves, points, summaries) = &mut **along;
                curves.add(record);
                points.add(record);
                summaries.add(record);
                listed.add(number, record);
            }
        }
    }

    /// The trials that are listed, by prompt, each prompt's in their order.
    pub(super) fn listed(&self) -> BTreeMap<usize, Vec<&Record>> {
        match &self.found {
            Finding::Map(_, listed) | Finding::Along(_, listed) => listed.by_prompt(),
            Finding::Campaign(_, listed) => listed.by_prompt(),
        }
    }
}

/// What tells one run from another: digests of model and head, the run's own, and its command.
type Key = [String; 4];

fn key(record: &Record) -> Key {
    [&record.model_digest, &record.head_digest, &record.run.id, &record.run.command].map(Clone::clone)
}

/// All runs that some files hold.
#[derive(Debug, Default)]
pub struct Gathered {
    /// The runs, in the order in which they were met.
    pub(crate) runs: Vec<StoredRun>,
    /// Certificates, each with its file.
    pub(crate) certificates: Vec<(String, Certificates)>,
    /// What the reader must know of the files: that one was cut short, that trials were given twice.
    pub notes: Vec<String>,
}

impl Gathered {
    /// Puts together what belongs together: trials of one model and of one run, by its `id`. Shards of a run become one
    /// run; of a trial that is there twice the first counts.
    ///
    /// # Errors
    /// [`SourceError`], for a source that is not as it should be.
    pub fn of(mut sources: Vec<Source>) -> Result<Self, SourceError> {
        let mut gathered = Self::default();
        let mut numbers: HashMap<Key, usize> = HashMap::new();
        for source in &mut sources {
            gathered
                .certificates
                .extend(source.certificates.take().map(|certificates| (source.name.clone(), certificates)));
            let (name, mut restored, mut count) = (source.name.clone(), source.restored.take(), 0);
            let cut = source.each(|record| {
                count += 1;
                let number = *numbers.entry(key(record)).or_insert(gathered.runs.len());
                if number == gathered.runs.len() {
                    gathered.runs.push(StoredRun::new(record));
                }
                let run = &mut gathered.runs[number];
                if !run.files.contains(&name) {
                    run.files.push(name.clone());
                }
                run.restored = run.restored.take().or_else(|| restored.take());
                run.add(record);
            })?;
            if cut {
                gathered.notes.push(format!(
                    "{name} ends in the middle of a record, as after a kill: the {count} trials before it are reported"
                ));
            }
        }
        let mut results: Vec<(Results, bool)> = Vec::new();
        results.resize_with(gathered.runs.len(), Default::default);
        if gathered.runs.iter().any(|run| run.times > 0) {
            for source in &mut sources {
                source.each(|record| {
                    let number = numbers[&key(record)];
                    let (results, contradiction) = &mut results[number];
                    if gathered.runs[number].again.contains(record.trial) {
                        *contradiction |= results.contradict(record);
                    }
                })?;
            }
        }
        for (run, (_, contradiction)) in gathered.runs.iter_mut().zip(results) {
            if run.times > 0 {
                let (times, files) = (run.times, run.files.join(", "));
                let how =
                    if contradiction { "NOT always with the same result; the first counts" } else { "and count once" };
                gathered.notes.push(format!("trials are given again {times} times in {files}, {how}"));
            }
        }
        Ok(gathered)
    }
}
