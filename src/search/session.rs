//! What every run does: trials in batches, each planned, run, judged and handed over as a record, but for those
//! that an earlier part of the same run has finished.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    time::{Duration, Instant},
};

use super::{Beginning, Progress, RunError, Settings, Threshold, calibrate};
use crate::{
    coherence::Verdict,
    edit::{Edit, Plan, Value},
    model::{AnyBody, Projection},
    record::{
        Calibration, CampaignFacts, CleanAnswer, ModelFacts, Record, RunFacts, SCHEMA, Tied, journal::Expectation,
    },
    seed, stats,
    subject::{Prompt, Subject},
    tokenizer::{Clock, Encoding},
    trial::{Event, Trajectory, Trials},
};

/// Trials that are run together at first. No result depends on it.
const FIRST_BATCH: usize = 16;
/// Trials that are run together at most: enough to fill the kernels' tiles.
const LARGEST_BATCH: usize = 512;
/// Trials that are run together at least, however long they take, so that they share what is read of the model.
const SMALLEST_BATCH: usize = 4;
/// What a batch is to take. A run that is killed has lost at most that much, and whoever watches sees it go on.
const BATCH_TIME: Duration = Duration::from_millis(500);
/// Rows that the edits of a batch may replace, which are held in their final form while it is run.
const BATCH_ROWS: usize = 1 << 20;
/// Jobs that are made at a time where there are very many.
const JOBS: usize = 4096;

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
    pub(crate) fn all(edits: &[Edit], prompts: usize) -> Vec<Self> {
        (0..prompts)
            .flat_map(|prompt| edits.iter().map(move |edit| (prompt, edit.clone())))
            .enumerate()
            .map(|(trial, (prompt, edit))| Self { trial, prompt, edit, family: None, value: None })
            .collect()
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
    /// Trials that the next batch may have.
    batch: usize,
    /// By number: trials of an earlier part of the run that were not asked for yet.
    finished: BTreeMap<usize, Record>,
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
            batch: FIRST_BATCH,
            finished: BTreeMap::new(),
        }
    }

    /// Begins a search, which has to be done before jobs are run: calibrates the threshold where it is not known, and says
    /// what identifies the run to `progress`, which may bring finished trials.
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
        self.finished.clear();
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
        progress(Progress::Begins(Beginning { expectation, finished: &mut self.finished }))
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
    ) -> Result<Vec<Record>, RunError> {
        let jobs = Job::all(edits, self.prompts.len());
        let listed: Vec<String> = edits.iter().map(Edit::to_string).collect();
        let spec = Spec { command, trials: Some(jobs.len()), edits: listed.join("\n"), ..Spec::default() };
        self.begin(spec, progress)?;
        self.run(&jobs, progress)
    }

    /// Runs jobs and keeps every record that is finished, also of a run that then ends early. What is long in a record is
    /// left out: nothing that is computed of many trials needs it, and an edit may list very many flips.
    ///
    /// # Errors
    /// [`RunError`].
    pub(super) fn run_through(
        &mut self,
        mut jobs: impl Iterator<Item = Job>,
        kept: &mut Vec<Record>,
        progress: &mut impl FnMut(Progress<'_>) -> Result<(), RunError>,
    ) -> Result<(), RunError> {
        loop {
            let some: Vec<Job> = jobs.by_ref().take(JOBS).collect();
            if some.is_empty() {
                return Ok(());
            }
            self.run(&some, |told| {
                let record = match &told {
                    Progress::Record { record, .. } => Some((*record).clone()),
                    _ => None,
                };
                progress(told)?;
                if let Some(mut record) = record {
                    (record.edit, record.prompt_ids) = (String::new(), Vec::new());
                    (record.surprise, record.margin) = (Vec::new(), Vec::new());
                    kept.push(record);
                }
                Ok(())
            })?;
        }
    }

    /// The model.
    pub const fn subject(&self) -> &'a Subject {
        self.subject
    }

    /// What it is asked.
    pub const fn prompts(&self) -> &'a [Prompt] {
        self.prompts
    }

    /// How answers are judged. Once a search has begun, the threshold is known.
    pub const fn settings(&self) -> &Settings {
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

    /// Runs jobs of the search that was begun, and gives their records in the order of the jobs, those of other shards left
    /// out. Each is handed to `progress`, too, as soon as it is finished.
    ///
    /// # Errors
    /// [`RunError`]; records already handed over stand, and this session is of no further use.
    ///
    /// # Panics
    /// If no search was begun.
    pub(crate) fn run(
        &mut self,
        jobs: &[Job],
        mut progress: impl FnMut(Progress<'_>) -> Result<(), RunError>,
    ) -> Result<Vec<Record>, RunError> {
        let mut records = Vec::new();
        let mut rest = jobs;
        while !rest.is_empty() {
            let batch = self.batch(rest)?;
            rest = &rest[batch.taken..];
            let (new, started) = (batch.queue.iter().filter(|(_, plan)| plan.is_some()).count(), Instant::now());
            self.run_batch(batch, |event| {
                match event {
                    Done::Reading { done, of } => progress(Progress::Reading { done, of })?,
                    Done::Wave { step, of, trials } => progress(Progress::Wave { step, of, trials })?,
                    Done::Record { record, resumed } => {
                        progress(Progress::Record { record: &record, resumed })?;
                        records.push(*record);
                    }
                }
                Ok(())
            })?;
            self.batch = next_batch(self.batch, new, started.elapsed());
        }
        Ok(records)
    }

    /// The first jobs of `jobs`, planned.
    fn batch<'j>(&self, jobs: &'j [Job]) -> Result<Batch<'j>, RunError> {
        let matrix = self.subject.head().view();
        let mut batch = Batch::default();
        let (mut known, mut rows) = (HashMap::new(), 0);
        for job in jobs {
            if batch.queue.len() == self.batch || rows > BATCH_ROWS {
                break;
            }
            batch.taken += 1;
            if self.settings.shard.is_some_and(|shard| !shard.has(job.trial)) {
                continue;
            }
            if self.finished.contains_key(&job.trial) {
                batch.queue.push((job, None));
                continue;
            }
            // Many prompts have an edit in common.
            let index = match known.entry(job.edit.to_string()) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(new) => {
                    // What is recorded is expanded, so that it can be replayed without a generator.
                    let edit = job.edit.expand(matrix.layout())?;
                    let plan = edit.plan(&matrix)?;
                    rows += plan.rows.len();
                    batch.edits.push((edit, plan.first_words(&matrix, 5)));
                    batch.plans.push(plan);
                    *new.insert(batch.plans.len() - 1)
                }
            };
            batch.queue.push((job, Some(index)));
        }
        Ok(batch)
    }

    fn run_batch(
        &mut self,
        batch: Batch<'_>,
        mut done: impl FnMut(Done) -> Result<(), RunError>,
    ) -> Result<(), RunError> {
        let Self { subject, prompts, trials, head, model_digest, head_digest, run, clean, finished, .. } = self;
        let run = run.as_ref().expect("a search was begun");
        let new: Vec<(usize, usize)> =
            batch.queue.iter().filter_map(|&(job, plan)| Some((job.prompt, plan?))).collect();
        let mut queue = batch.queue.into_iter();
        let mut again = |job: &Job, done: &mut dyn FnMut(Done) -> Result<(), RunError>| {
            let record = finished.remove(&job.trial).expect("a job without a plan is finished");
            done(Done::Record { record: Box::new(record), resumed: true })
        };
        let (mut started, mut share, mut count) = (Instant::now(), None, 0);
        if !new.is_empty() {
            trials.run_some(head, &batch.plans, &new, |event| match event {
                Event::Wave { step, of, trials } => {
                    if step == 1 {
                        share = None;
                    }
                    count = trials;
                    done(Done::Wave { step, of, trials })
                }
                Event::Reading { done: read, of } => done(Done::Reading { done: read, of }),
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
                    // Records go out in the order of the jobs, finished ones between new ones.
                    let (job, plan) = loop {
                        match queue.next().expect("a job for each trial") {
                            (job, Some(plan)) => break (job, plan),
                            (job, None) => again(job, &mut done)?,
                        }
                    };
                    let (edit, first_words) = &batch.edits[plan];
                    let prompt = &prompts[trial.prompt];
                    let (tokens, text) = (trial.trajectory.tokens.clone(), subject.decode(&trial.trajectory.tokens)?);
                    let shift = edit.shift_only();
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
                        edit: edit.to_string(),
                        shift,
                        family: job.family.clone(),
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
                    done(Done::Record { record: Box::new(record), resumed: false })
                }
            })?;
        }
        queue.try_for_each(|(job, _)| again(job, &mut done))
    }
}

/// Trials of the next batch, after `ran` trials of one that might have had `batch` took `elapsed`.
fn next_batch(batch: usize, ran: usize, elapsed: Duration) -> usize {
    let of_a_trial = elapsed.as_secs_f64() / ran as f64;
    if ran == 0 || of_a_trial == 0.0 {
        return batch;
    }
    // The float may be larger than any number of trials; then it is cut to the largest.
    let fits = (BATCH_TIME.as_secs_f64() / of_a_trial) as usize;
    fits.min(4 * batch).clamp(SMALLEST_BATCH, LARGEST_BATCH)
}

/// The first jobs of a list.
#[derive(Default)]
struct Batch<'j> {
    /// Jobs of the list that are dealt with.
    taken: usize,
    /// Those of this shard, with their plan where they are not finished yet.
    queue: Vec<(&'j Job, Option<usize>)>,
    /// By plan: the edit, expanded, and the first words that it leaves.
    edits: Vec<(Edit, Vec<u32>)>,
    plans: Vec<Plan>,
}

enum Done {
    Reading { done: usize, of: usize },
    Wave { step: usize, of: usize, trials: usize },
    Record { record: Box<Record>, resumed: bool },
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
    fn a_batch_takes_half_a_second_and_grows_by_degrees() {
        let millis = Duration::from_millis;
        for (batch, ran, elapsed, next) in [
            (64, 64, millis(500), 64),
            (64, 64, millis(1000), 32),
            (64, 64, millis(1), 256),
            (256, 256, millis(1), 512),
            (512, 512, millis(100), 512),
            (512, 512, millis(512 * 20), 25),
            (64, 64, millis(1_000_000), 4),
            (64, 3, millis(300), 5),
            (64, 0, millis(300), 64),
            (64, 64, Duration::ZERO, 64),
        ] {
            assert_eq!(next_batch(batch, ran, elapsed), next, "{batch} {ran} {elapsed:?}");
        }
    }

    #[test]
    fn a_mean_of_what_is_not_finite_is_none() {
        assert_eq!(mean(&[1.0, 2.0]), Some(1.5));
        assert_eq!(mean(&[1.0, f64::INFINITY]), None);
        assert_eq!(mean(&[]), None);
    }
}
