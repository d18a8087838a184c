//! What every run does: trials in batches, each planned, run, judged and handed over as a record, but for those
//! that an earlier part of the same run has finished.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    time::Instant,
};

use super::{Progress, RunError, Settings};
use crate::{
    coherence::Verdict,
    edit::{Edit, Plan, Value},
    model::{AnyBody, Projection},
    record::{
        CampaignFacts, CleanAnswer, ModelFacts, Record, RunFacts, SCHEMA,
        journal::{Expectation, Shard},
    },
    seed,
    subject::{Prompt, Subject},
    trial::{Event, Task, Trajectory, Trials},
};

/// Trials that are run together. Many enough to fill the kernels' tiles, few enough that a run that is killed has
/// lost little.
const BATCH: usize = 512;
/// Rows that the edits of a batch may replace, which are held in their final form while it is run.
const BATCH_ROWS: usize = 1 << 20;

/// What is run and why, as far as it decides the results and is not in [`Settings`].
#[derive(Clone, Debug, Default)]
pub struct Spec {
    /// The command.
    pub command: &'static str,
    /// What a bisection asks of each point.
    pub predicate: Option<String>,
    /// How a campaign draws its edits.
    pub campaign: Option<CampaignFacts>,
    /// Trials in all; `None` where the run decides as it goes.
    pub trials: Option<usize>,
    /// Of all that is random in the run.
    pub seed: u64,
    /// The edits, or what they are derived from. Runs with equal specifications, settings, prompts and models give
    /// equal records.
    pub edits: String,
}

/// A trial to be run.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Its number within the run.
    pub trial: usize,
    /// Index of the prompt.
    pub prompt: usize,
    /// What is done to the head; random families are expanded when it is run.
    pub edit: Edit,
    /// The family that the edit was taken from, as records name it.
    pub family: Option<String>,
    /// Its value there.
    pub value: Option<Value>,
}

impl Job {
    /// Every edit on every prompt: prompts in order, for each the edits in order.
    pub fn all(edits: &[Edit], prompts: usize) -> Vec<Self> {
        (0..prompts)
            .flat_map(|prompt| edits.iter().map(move |edit| (prompt, edit.clone())))
            .enumerate()
            .map(|(trial, (prompt, edit))| Self { trial, prompt, edit, family: None, value: None })
            .collect()
    }
}

/// A run on one model and its prompts.
pub struct Session<'a> {
    subject: &'a Subject,
    prompts: &'a [Prompt],
    settings: &'a Settings,
    trials: Trials<'a, AnyBody>,
    head: Box<dyn Projection + 'a>,
    model_digest: String,
    head_digest: String,
    run: RunFacts,
    clean: Vec<CleanAnswer>,
    shard: Option<Shard>,
    /// By number: trials of an earlier part of the run that were not asked for yet.
    finished: BTreeMap<usize, Record>,
}

impl<'a> Session<'a> {
    /// Nothing is run yet.
    ///
    /// # Panics
    /// If there is no prompt.
    pub fn new(subject: &'a Subject, prompts: &'a [Prompt], settings: &'a Settings, spec: Spec) -> Self {
        assert!(!prompts.is_empty(), "a prompt");
        let model_digest = subject.checkpoint().model_digest().to_hex().to_string();
        let run = facts(subject, prompts, settings, spec, &model_digest);
        Self {
            subject,
            prompts,
            settings,
            trials: trials(subject, prompts.iter().map(|prompt| prompt.ids.as_slice()), settings.max_tokens),
            head: subject.projection(subject.head().view()),
            model_digest,
            head_digest: subject.head_digest(),
            run,
            clean: Vec::new(),
            shard: None,
            finished: BTreeMap::new(),
        }
    }

    /// What a journal of this run must agree with; `prompts` are [`Session::prompt_ids`].
    pub fn expectation<'b>(&'b self, prompts: &'b [&'b [u32]]) -> Expectation<'b> {
        let backend = self.subject.backend();
        Expectation {
            run: &self.run,
            model_digest: &self.model_digest,
            threshold: self.settings.threshold,
            backend: backend.name(),
            kernel: (backend.decides() == backend.kernel()).then(|| backend.kernel()),
            prompts,
            shard: self.shard,
        }
    }

    /// The prompts' ids.
    pub fn prompt_ids(&self) -> Vec<&'a [u32]> {
        self.prompts.iter().map(|prompt| prompt.ids.as_slice()).collect()
    }

    /// Runs only the trials of `shard`, if there is one.
    pub fn set_shard(&mut self, shard: Option<Shard>) {
        self.shard = shard;
    }

    /// Takes trials that an earlier part of this run has finished: they are handed over again instead of being run.
    pub fn resume(&mut self, records: Vec<Record>) {
        self.finished.extend(records.into_iter().map(|record| (record.trial, record)));
    }

    /// What its records have in common.
    pub const fn facts(&self) -> &RunFacts {
        &self.run
    }

    /// The model.
    pub const fn subject(&self) -> &'a Subject {
        self.subject
    }

    /// What it is asked.
    pub const fn prompts(&self) -> &'a [Prompt] {
        self.prompts
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
    pub const fn trials(&mut self) -> &mut Trials<'a, AnyBody> {
        &mut self.trials
    }

    /// Runs jobs and gives their records in the order of the jobs, those of other shards left out. Each is handed to
    /// `progress`, too, as soon as it is finished.
    ///
    /// # Errors
    /// [`RunError`]; records already handed over stand, and this session is of no further use.
    pub fn run(
        &mut self,
        jobs: &[Job],
        mut progress: impl FnMut(Progress<'_>) -> Result<(), RunError>,
    ) -> Result<Vec<Record>, RunError> {
        let mut records = Vec::new();
        let mut rest = jobs;
        while !rest.is_empty() {
            let batch = self.batch(rest)?;
            rest = &rest[batch.taken..];
            self.run_batch(batch, |event| {
                match event {
                    Done::Wave { step, of, trials } => progress(Progress::Wave { step, of, trials })?,
                    Done::Record { record, resumed } => {
                        progress(Progress::Record { record: &record, resumed })?;
                        records.push(*record);
                    }
                }
                Ok(())
            })?;
        }
        Ok(records)
    }

    /// The first jobs of `jobs`, planned.
    fn batch<'j>(&self, jobs: &'j [Job]) -> Result<Batch<'j>, RunError> {
        let matrix = self.subject.head().view();
        let mut batch = Batch::default();
        let (mut known, mut rows) = (HashMap::new(), 0);
        for job in jobs {
            if batch.queue.len() == BATCH || rows > BATCH_ROWS {
                break;
            }
            batch.taken += 1;
            if self.shard.is_some_and(|shard| !shard.has(job.trial)) {
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
        let Self { subject, prompts, settings, trials, head, model_digest, head_digest, run, clean, finished, .. } =
            self;
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
                        threshold: settings.threshold,
                        surprise: trial.trajectory.surprise.iter().map(|&x| finite(x)).collect(),
                        margin: trial.trajectory.margin.iter().map(|&x| x.is_finite().then_some(x)).collect(),
                        kl_mean: mean(&trial.divergence),
                        kl_p99: percentile_99(&trial.divergence),
                        agreement: share_of(&trial.agreement),
                        expected: None,
                        expected_texts: prompt.expected.clone(),
                        documented: shift.and_then(|shift| seed::documented(&prompt.text, shift)),
                        clean: clean[trial.prompt].clone(),
                        run: run.clone(),
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
    Wave { step: usize, of: usize, trials: usize },
    Record { record: Box<Record>, resumed: bool },
}

/// Trials of a model on prompts.
pub(super) fn trials<'a>(
    subject: &'a Subject,
    prompts: impl Iterator<Item = &'a [u32]>,
    max_tokens: usize,
) -> Trials<'a, AnyBody> {
    let task = Task { prompts: prompts.collect(), eos: subject.eos(), max_tokens, tying: subject.tying() };
    Trials::new(subject.body(), subject.kernel(), subject.team(), task)
}

fn clean_answer(subject: &Subject, answer: &Trajectory) -> Result<CleanAnswer, RunError> {
    let text = subject.decode(&answer.tokens)?;
    Ok(CleanAnswer { tokens: answer.tokens.clone(), text, finish: answer.finish })
}

/// What all records of a run have in common.
fn facts(subject: &Subject, prompts: &[Prompt], settings: &Settings, spec: Spec, model_digest: &str) -> RunFacts {
    let (config, layout) = (subject.checkpoint().config(), subject.head().layout());
    let tied = if subject.shared() { "shared" } else { "separate" };
    let asked: Vec<_> = prompts.iter().map(|prompt| (&prompt.text, &prompt.ids, &prompt.expected)).collect();
    let decides = serde_json::json!([
        SCHEMA,
        spec.command,
        spec.predicate,
        spec.campaign,
        spec.trials,
        spec.seed,
        spec.edits,
        settings.max_tokens,
        settings.threshold.to_bits(),
        settings.calibration,
        tied,
        subject.backend().decides(),
        model_digest,
        asked,
    ]);
    RunFacts {
        id: blake3::hash(decides.to_string().as_bytes()).to_hex()[..32].to_owned(),
        command: spec.command.to_owned(),
        trials: spec.trials,
        predicate: spec.predicate,
        campaign: spec.campaign,
        seed: spec.seed,
        max_tokens: settings.max_tokens,
        tied: tied.to_owned(),
        calibration: settings.calibration.clone(),
        model: ModelFacts {
            model_type: config.family.model_type.to_owned(),
            num_hidden_layers: config.architecture.layers.len(),
            hidden_size: layout.cols(),
            vocab_size: layout.rows(),
            bits: layout.bits(),
            group_size: layout.group_size(),
            tied: subject.checkpoint().weights().lm_head.is_none(),
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

/// The mean, or `None` of nothing and of what is not finite.
fn mean(x: &[f64]) -> Option<f64> {
    (!x.is_empty()).then(|| x.iter().sum::<f64>() / x.len() as f64).and_then(finite)
}

/// The share of what holds.
fn share_of(x: &[bool]) -> Option<f64> {
    (!x.is_empty()).then(|| x.iter().filter(|&&holds| holds).count() as f64 / x.len() as f64)
}

/// The 99th percentile by nearest rank: the smallest value that at least 99 % do not exceed.
pub(super) fn percentile_99(x: &[f64]) -> Option<f64> {
    let mut sorted = x.to_vec();
    sorted.sort_by(f64::total_cmp);
    // ceil(0.99 n), in integers: 0.99 has no exact binary form.
    sorted.get((99 * sorted.len()).div_ceil(100).checked_sub(1)?).copied().and_then(finite)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_99th_percentile_is_the_nearest_rank() {
        let numbers = |n: i32| (1..=n).map(f64::from).collect::<Vec<_>>();
        assert_eq!(percentile_99(&numbers(1)), Some(1.0));
        assert_eq!(percentile_99(&numbers(10)), Some(10.0));
        assert_eq!(percentile_99(&numbers(100)), Some(99.0));
        assert_eq!(percentile_99(&numbers(101)), Some(100.0));
        assert_eq!(percentile_99(&[]), None);
        assert_eq!(percentile_99(&[1.0, f64::NAN]), None);
    }

    #[test]
    fn a_mean_of_what_is_not_finite_is_none() {
        assert_eq!(mean(&[1.0, 2.0]), Some(1.5));
        assert_eq!(mean(&[1.0, f64::INFINITY]), None);
        assert_eq!(mean(&[]), None);
    }
}
