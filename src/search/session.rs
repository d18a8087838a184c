//! What every run does: trials in batches, each planned, run, judged and handed over as a record, but for those
//! that an earlier part of the same run has finished.
//!
//! A session keeps no record. It holds the jobs of one batch, and the numbers of the trials that were finished before.

use std::{
    collections::{HashMap, hash_map::Entry},
    time::Instant,
};

use super::{Beginning, Progress, RunError, Settings, Threshold, calibrate, pace::Pace};
use crate::{
    coherence::Verdict,
    edit::{Edit, GENERATOR, Plan, Value},
    model::{AnyBody, Projection},
    numbers::NumberSet,
    record::{
        Calibration, CampaignFacts, CleanAnswer, ModelFacts, Record, RunFacts, SCHEMA, Tied, journal::Expectation,
    },
    seed, stats,
    subject::{Prompt, Subject},
    tokenizer::{Clock, Encoding},
    trial::{Event, Trajectory, Trials},
};

/// Rows that the edits of a batch may replace, which are held in their final form while it is run.
const BATCH_ROWS: usize = 1 << 20;

/// What is run and why, as far as it decides the results and is not in [`Settings`]: each search says it of itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spec {
    /// The command.
    pub(crate) command: &'static str,
    /// What a bisection asks of each point.
    pub(crate) predicate: Option<String>,
    /// How a campaign draws its edits.
    pub(crate) campaign: Option<CampaignFacts>,
    /// Trials in all; `None` where the run decides as it goes.
    pub(crate) trials: Option<usize>,
    /// Whether some edits may be stored as the text of the generator that draws their flips.
    pub(crate) random: bool,
    /// The edits, or what they are derived from. Runs with equal specifications, settings, prompts and models give
    /// equal records.
    pub(crate) edits: String,
}

/// A trial to be run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Job {
    /// Its number within the run.
    pub(crate) trial: usize,
    /// Index of the prompt.
    pub(crate) prompt: usize,
    /// What is done to the head; random families are expanded when it is run.
    pub(crate) edit: Edit,
    /// The family that the edit was taken from, as records name it.
    pub(crate) family: Option<String>,
    /// Its value there.
    pub(crate) value: Option<Value>,
}

impl Job {
    /// Every edit on every prompt: prompts in order, for each the edits in order.
    pub(crate) fn all(edits: &[Edit], prompts: usize) -> impl Iterator<Item = Self> {
        let each = (0..prompts).flat_map(move |prompt| edits.iter().map(move |edit| (prompt, edit)));
        let job = |(trial, (prompt, edit)): (usize, (usize, &Edit))| Self {
            trial,
            prompt,
            edit: edit.clone(),
            family: None,
            value: None,
        };
        each.enumerate().map(job)
    }
}

/// A model, what it is asked, and how its answers are judged. Searches are run in it, one after the other: what the body
/// computed for the prompts and their clean answers is there for all of them.
pub struct Session<'a> {
    subject: &'a Subject,
    prompts: &'a [Prompt],
    settings: Settings,
    trials: Trials<'a, AnyBody>,
    head: Box<dyn Projection + 'a>,
    model_digest: String,
    head_digest: String,
    /// The search that was begun last.
    run: Option<Run>,
    clean: Vec<CleanAnswer>,
    pace: Pace,
    /// Trials that an earlier part of the run has finished.
    finished: NumberSet,
}

/// What all records of a search have in common.
struct Run {
    facts: RunFacts,
    threshold: f64,
}

impl<'a> Session<'a> {
    /// Nothing is run yet.
    ///
    /// # Panics
    /// If there is no prompt.
    pub fn new(subject: &'a Subject, prompts: &'a [Prompt], settings: Settings) -> Self {
        assert!(!prompts.is_empty(), "a prompt");
        Self {
            subject,
            prompts,
            trials: subject.trials(prompts.iter().map(|prompt| prompt.ids.as_slice()), settings.max_tokens),
            settings,
            head: subject.projection(subject.head().view()),
            model_digest: subject.checkpoint().model_digest().to_hex().to_string(),
            head_digest: subject.head_digest(),
            run: None,
            clean: Vec::new(),
            pace: Pace::default(),
            finished: NumberSet::default(),
        }
    }

    /// Begins a search, which has to be done before jobs are run: calibrates the threshold where it is not known, and says
    /// what identifies the run to `progress`, which may bring finished trials. Those are handed to `progress` first, in the
    /// order in which they come, and are not run again.
    ///
    /// # Errors
    /// [`RunError`].
    pub(crate) fn begin(
        &mut self,
        spec: Spec,
        progress: &mut impl FnMut(Progress<'_>) -> Result<(), RunError>,
    ) -> Result<(), RunError> {
        let (subject, prompts) = (self.subject, self.prompts);
        if self.settings.threshold == Threshold::Unknown {
            // The day of the prompts, where they have one.
            let date =
                prompts.iter().find_map(|prompt| prompt.date.as_deref()).and_then(|date| Clock::parse(date).ok());
            let encoding = Encoding { clock: date.unwrap_or_default(), ..Encoding::default() };
            let (ids, date) = calibrate::prompts(subject, &[], &encoding, prompts)?;
            self.settings.date = date;
            let calibration = calibrate::calibrate(subject, &ids, self.settings.max_tokens, &mut *progress)?;
            self.settings.threshold = Threshold::Calibrated(calibration);
        }
        let (threshold, calibration) = match &self.settings.threshold {
            Threshold::Given(threshold) => (*threshold, None),
            Threshold::Calibrated(calibration) => (calibration.threshold, Some(calibration)),
            Threshold::Unknown => unreachable!("it was calibrated above"),
        };
        let facts = facts(subject, prompts, &self.settings, threshold, calibration, spec, &self.model_digest);
        let run = self.run.insert(Run { facts, threshold });
        self.finished = NumberSet::default();
        let ids: Vec<&[u32]> = prompts.iter().map(|prompt| prompt.ids.as_slice()).collect();
        let expectation = Expectation {
            run: &run.facts,
            model_digest: &self.model_digest,
            threshold,
            backend: subject.backend().name(),
            kernel: subject.backend().decides(),
            prompts: &ids,
            shard: self.settings.shard,
        };
        let mut earlier = None;
        progress(Progress::Begins(Beginning { expectation, earlier: &mut earlier }))?;
        for record in earlier.into_iter().flatten() {
            let record = record?;
            if self.finished.insert(record.trial) {
                progress(Progress::Record { record: &record, resumed: true })?;
            }
        }
        Ok(())
    }

    /// Begins a search that is no more than every edit on every prompt, and runs it.
    ///
    /// # Errors
    /// [`RunError`].
    pub(super) fn run_all(
        &mut self,
        command: &'static str,
        edits: &[Edit],
        progress: &mut impl FnMut(Progress<'_>) -> Result<(), RunError>,
    ) -> Result<(), RunError> {
        let prompts = self.prompts.len();
        // What random edits stand for is what identifies the run, as it is what records hold.
        let layout = self.subject.head().layout();
        let mut listed = Vec::with_capacity(edits.len());
        let mut random = false;
        for edit in edits {
            let expanded = edit.expand(layout)?;
            // Facts do not differ where records do not: what is stored as flips names no generator.
            random |= edit.stored(&expanded).1.is_some();
            listed.push(expanded.to_string());
        }
        let trials = Some(prompts * edits.len());
        let spec = Spec { command, trials, random, edits: listed.join("\n"), ..Spec::default() };
        drop(listed);
        self.begin(spec, progress)?;
        self.run(Job::all(edits, prompts), progress)
    }

    /// The model.
    pub(crate) const fn subject(&self) -> &'a Subject {
        self.subject
    }

    /// What it is asked.
    pub(crate) const fn prompts(&self) -> &'a [Prompt] {
        self.prompts
    }

    /// How answers are judged. Once a search has begun, the threshold is known.
    pub(crate) const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The clean answers, as records hold them; those of all prompts.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn clean(&mut self) -> Result<&[CleanAnswer], RunError> {
        if self.clean.is_empty() {
            self.trials.run(&mut self.head, &[], |_| Ok::<_, RunError>(()))?;
            self.clean =
                self.trials.clean().map(|answer| clean_answer(self.subject, answer)).collect::<Result<_, _>>()?;
        }
        Ok(&self.clean)
    }

    /// The trials of the clean model: its hidden states, and answers of other heads to the same prompts.
    pub(crate) const fn trials(&mut self) -> &mut Trials<'a, AnyBody> {
        &mut self.trials
    }

    /// Runs jobs of the search that was begun, but for those of other shards and those that were finished before. Records
    /// are handed to `progress` as soon as they are finished, in the order of the jobs.
    ///
    /// # Errors
    /// [`RunError`]; records already handed over stand, and this session is of no further use.
    ///
    /// # Panics
    /// If no search was begun.
    pub(crate) fn run(
        &mut self,
        jobs: impl IntoIterator<Item = Job>,
        progress: &mut impl FnMut(Progress<'_>) -> Result<(), RunError>,
    ) -> Result<(), RunError> {
        let mut jobs = jobs.into_iter();
        loop {
            let batch = self.batch(&mut jobs)?;
            if batch.queue.is_empty() {
                return Ok(());
            }
            let (trials, started) = (batch.queue.len(), Instant::now());
            self.run_batch(batch, progress)?;
            self.pace.took(trials, started.elapsed());
        }
    }

    /// The next jobs that are to be run, planned.
    fn batch(&self, jobs: &mut impl Iterator<Item = Job>) -> Result<Batch, RunError> {
        let matrix = self.subject.head().view();
        let mut batch = Batch::default();
        let (mut known, mut rows) = (HashMap::new(), 0);
        while batch.queue.len() < self.pace.batch() && rows <= BATCH_ROWS {
            let Some(job) = jobs.next() else { break };
            let elsewhere = self.settings.shard.is_some_and(|shard| !shard.has(job.trial));
            if elsewhere || self.finished.contains(job.trial) {
                continue;
            }
            // Many prompts have an edit in common.
            let index = match known.entry(job.edit.to_string()) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(new) => {
                    let expanded = job.edit.expand(matrix.layout())?;
                    let plan = expanded.plan(&matrix)?;
                    rows += plan.rows.len();
                    let (edit, digest) = job.edit.stored(&expanded);
                    batch.edits.push(Planned {
                        edit,
                        digest: digest.map(|digest| digest.to_hex().to_string()),
                        shift: expanded.shift_only(),
                        first_words: plan.first_words(&matrix, 5),
                    });
                    batch.plans.push(plan);
                    *new.insert(batch.plans.len() - 1)
                }
            };
            batch.queue.push((job, index));
        }
        Ok(batch)
    }

    fn run_batch(
        &mut self,
        batch: Batch,
        progress: &mut impl FnMut(Progress<'_>) -> Result<(), RunError>,
    ) -> Result<(), RunError> {
        let Self { subject, prompts, trials, head, model_digest, head_digest, run, clean, .. } = self;
        let run = run.as_ref().expect("a search was begun");
        let asked: Vec<(usize, usize)> = batch.queue.iter().map(|(job, plan)| (job.prompt, *plan)).collect();
        let mut queue = batch.queue.into_iter();
        let (mut started, mut share, mut count) = (Instant::now(), None, 0);
        trials.run_some(head, &batch.plans, &asked, |event| match event {
            Event::Wave { step, of, trials } => {
                if step == 1 {
                    share = None;
                }
                count = trials;
                progress(Progress::Wave { step, of, trials })
            }
            Event::Reading { done, of } => progress(Progress::Reading { done, of }),
            Event::Clean(answer) => {
                clean.push(clean_answer(subject, &answer)?);
                Ok(())
            }
            Event::Trial(trial) => {
                let share = *share.get_or_insert_with(|| {
                    let share = started.elapsed().as_secs_f64() * 1e3 / count as f64;
                    started = Instant::now();
                    share
                });
                let (job, plan) = queue.next().expect("a job for each trial");
                let Planned { edit, digest, shift, first_words } = &batch.edits[plan];
                let prompt = &prompts[trial.prompt];
                let (tokens, text) = (trial.trajectory.tokens.clone(), subject.decode(&trial.trajectory.tokens)?);
                let mut record = Record {
                    schema: SCHEMA,
                    trial: job.trial,
                    model: subject.name().to_owned(),
                    revision: subject.revision().map(str::to_owned),
                    model_digest: model_digest.clone(),
                    head_digest: head_digest.clone(),
                    backend: subject.backend().name().to_owned(),
                    kernel: subject.backend().kernel().to_owned(),
                    prompt: prompt.text.clone(),
                    prompt_ids: prompt.ids.clone(),
                    edit: edit.clone(),
                    edit_digest: digest.clone(),
                    shift: *shift,
                    family: job.family,
                    value: job.value,
                    first_words: first_words.clone(),
                    tokens,
                    text,
                    finish: trial.trajectory.finish,
                    // Labels follow from the rest.
                    verdict: Verdict::Gone,
                    tags: Vec::new(),
                    coherent_tokens: 0,
                    threshold: run.threshold,
                    surprise: trial.trajectory.surprise.iter().map(|&x| finite(x)).collect(),
                    margin: trial.trajectory.margin.iter().map(|&x| x.is_finite().then_some(x)).collect(),
                    kl_mean: mean(&trial.divergence),
                    kl_p99: stats::percentile_99(&trial.divergence),
                    agreement: share_of(&trial.agreement),
                    expected: None,
                    expected_texts: prompt.expected.clone(),
                    documented: shift.and_then(|shift| seed::documented(&prompt.text, shift)),
                    clean: clean[trial.prompt].clone(),
                    run: run.facts.clone(),
                    ms: share,
                };
                record.label();
                progress(Progress::Record { record: &record, resumed: false })
            }
        })?;
        progress(Progress::HandedOver)
    }
}

/// Jobs that are run together.
#[derive(Default)]
struct Batch {
    /// The jobs in their order, each with its plan.
    queue: Vec<(Job, usize)>,
    /// By plan.
    edits: Vec<Planned>,
    plans: Vec<Plan>,
}

/// What records say of an edit.
struct Planned {
    edit: String,
    digest: Option<String>,
    shift: Option<i64>,
    first_words: Vec<u32>,
}

fn clean_answer(subject: &Subject, answer: &Trajectory) -> Result<CleanAnswer, RunError> {
    let text = subject.decode(&answer.tokens)?;
    Ok(CleanAnswer { tokens: answer.tokens.clone(), text, finish: answer.finish })
}

/// What all records of a run have in common.
fn facts(
    subject: &Subject,
    prompts: &[Prompt],
    settings: &Settings,
    threshold: f64,
    calibration: Option<&Calibration>,
    spec: Spec,
    model_digest: &str,
) -> RunFacts {
    let (model, layout) = (subject.checkpoint().facts(), subject.head().layout());
    let tied = if subject.shared() { Tied::Shared } else { Tied::Separate };
    let backend = subject.backend();
    let asked: Vec<_> = prompts.iter().map(|prompt| (&prompt.text, &prompt.ids, &prompt.expected)).collect();
    let decides = serde_json::json!([
        SCHEMA,
        spec.command,
        spec.predicate,
        spec.campaign,
        spec.trials,
        settings.seed,
        spec.edits,
        settings.max_tokens,
        threshold.to_bits(),
        calibration,
        tied,
        backend.decides().unwrap_or(backend.name()),
        model_digest,
        asked,
    ]);
    RunFacts {
        id: blake3::hash(decides.to_string().as_bytes()).to_hex()[..32].to_owned(),
        command: spec.command.to_owned(),
        trials: spec.trials,
        predicate: spec.predicate,
        campaign: spec.campaign,
        seed: settings.seed,
        max_tokens: settings.max_tokens,
        tied,
        calibration: calibration.cloned(),
        date: prompts.iter().find_map(|prompt| prompt.date.clone()).or_else(|| settings.date.clone()),
        generator: spec.random.then(|| GENERATOR.to_owned()),
        model: ModelFacts {
            model_type: model.model_type.clone(),
            num_hidden_layers: model.layers,
            hidden_size: layout.cols(),
            vocab_size: layout.rows(),
            bits: layout.bits(),
            group_size: layout.group_size(),
            format: Some(layout.format().to_string()),
            after_head: backend.after_head().told(),
            tied: model.tied,
        },
        machine: machine(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// This machine, for people.
fn machine() -> String {
    // Linux names the processor here; elsewhere the instruction set must do.
    let named = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(format!("{}, ", line.split_once(':')?.1.trim()))
    });
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{}{cores} cores, {} {}", named.unwrap_or_default(), std::env::consts::ARCH, std::env::consts::OS)
}

fn finite(x: f64) -> Option<f64> {
    x.is_finite().then_some(x)
}

/// The mean of `values`; `None` if there are none or the mean is not finite.
fn mean(x: &[f64]) -> Option<f64> {
    (!x.is_empty()).then(|| x.iter().sum::<f64>() / x.len() as f64).and_then(finite)
}

/// The share of elements that are true.
fn share_of(x: &[bool]) -> Option<f64> {
    (!x.is_empty()).then(|| x.iter().filter(|&&holds| holds).count() as f64 / x.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_of_what_is_not_finite_is_none() {
        assert_eq!(mean(&[1.0, 2.0]), Some(1.5));
        assert_eq!(mean(&[1.0, f64::INFINITY]), None);
        assert_eq!(mean(&[]), None);
    }
}
