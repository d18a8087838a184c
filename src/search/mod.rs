//! What is run to find something out: edits on prompts, measured, judged and recorded.

pub mod bisect;
pub mod campaign;
pub mod ladder;
pub mod map;
pub mod values;
pub mod verify;

use std::time::Instant;

use crate::{
    coherence::{Evidence, judge, right},
    edit::{Edit, EditError, Plan},
    head::HeadError,
    model::{BodyError, Llama, Projection},
    record::{CleanAnswer, Expected, ModelFacts, Record, RunFacts, SCHEMA},
    seed,
    subject::{Prompt, Subject},
    tokenizer::TokenizerError,
    trial::{Event, Task, Trajectory, Trial, Trials},
};

/// How a run is made, whatever it looks for.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Tokens to generate at most, at least 1.
    pub max_tokens: usize,
    /// Surprise in nats up to which a step counts as coherent.
    pub threshold: f64,
}

/// Why a run ended early. What was finished has been handed over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// An edit does not fit the head.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// The model could not go on.
    #[error(transparent)]
    Body(#[from] BodyError),
    /// A head could not be edited or restored.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// A response could not be decoded.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Whoever watches could not take a result.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Whoever watches asked to stop.
    #[error("interrupted")]
    Interrupted,
}

/// What a run tells while it goes on.
#[derive(Debug)]
pub enum Progress {
    /// Trials have advanced by a token: waves done, and at most.
    Wave(usize, usize),
    /// A trial is finished.
    Record(Box<Record>),
}

/// What every record of a run says of the model.
struct Facts {
    model_digest: String,
    head_digest: String,
    run: RunFacts,
}

/// The trials of some prompts, as [`records`] runs them.
pub(crate) fn trials<'a>(
    subject: &'a Subject,
    body: &'a mut Llama,
    ids: &'a [Vec<u32>],
    settings: Settings,
) -> Trials<'a, Llama> {
    let task = Task { prompts: ids, eos: subject.eos(), max_tokens: settings.max_tokens, tying: subject.tying() };
    Trials::new(body, subject.kernel(), subject.team(), task)
}

/// Runs every edit on every prompt: records of prompts in order, for each the edits in order.
///
/// # Errors
/// [`RunError`]; records already handed over stand.
pub(crate) fn records(
    subject: &Subject,
    prompts: &[Prompt],
    trials: &mut Trials<'_, Llama>,
    head: &mut impl Projection,
    edits: &[Edit],
    settings: Settings,
    mut progress: impl FnMut(Progress) -> Result<(), RunError>,
) -> Result<(), RunError> {
    let matrix = subject.head().view();
    // What is recorded is expanded, so that it can be replayed without a generator.
    let edits: Vec<Edit> = edits.iter().map(|edit| edit.expand(matrix.layout())).collect::<Result<_, _>>()?;
    let plans: Vec<Plan> = edits.iter().map(|edit| edit.plan(&matrix)).collect::<Result<_, _>>()?;
    let facts = Facts {
        model_digest: subject.checkpoint().model_digest().to_hex().to_string(),
        head_digest: subject.head_digest(),
        run: run_facts(subject, settings),
    };
    let mut clean: Vec<(Trajectory, String)> = Vec::new();
    for trajectory in trials.clean() {
        clean.push((trajectory.clone(), subject.decode(&trajectory.tokens)?));
    }
    let (mut started, mut share, mut count) = (Instant::now(), 0.0, 0);
    trials.run(head, &plans, |event| match event {
        Event::Wave { step, of, trials } => {
            if step == 1 {
                share = 0.0;
            }
            count = trials;
            progress(Progress::Wave(step, of))
        }
        Event::Clean(trajectory) => {
            let text = subject.decode(&trajectory.tokens)?;
            clean.push((trajectory, text));
            Ok(())
        }
        Event::Trial(trial) => {
            if share == 0.0 {
                share = started.elapsed().as_secs_f64() * 1e3 / count as f64;
                started = Instant::now();
            }
            let (edit, prompt) = (&edits[trial.edit], &prompts[trial.prompt]);
            let mut record = judged(subject, &facts, prompt, &trial, &clean[trial.prompt], settings)?;
            record.trial = trial.prompt * edits.len() + trial.edit;
            record.edit = edit.to_string();
            record.shift = edit.shift_only();
            record.first_words = plans[trial.edit].first_words(&matrix, 5);
            record.documented = edit.shift_only().and_then(|shift| seed::documented(&prompt.text, shift));
            record.ms = share;
            progress(Progress::Record(Box::new(record)))
        }
    })
}

fn run_facts(subject: &Subject, settings: Settings) -> RunFacts {
    let (config, layout) = (subject.checkpoint().config(), subject.head().layout());
    RunFacts {
        id: String::new(),
        command: String::new(),
        trials: None,
        predicate: None,
        campaign: None,
        seed: 0,
        max_tokens: settings.max_tokens,
        tied: "separate".to_owned(),
        calibration: None,
        model: ModelFacts {
            model_type: config.model_type.to_string(),
            num_hidden_layers: config.num_hidden_layers,
            hidden_size: layout.cols(),
            vocab_size: layout.rows(),
            bits: layout.bits().get(),
            group_size: layout.group_size(),
            tied: subject.checkpoint().weights().lm_head.is_none(),
        },
        machine: String::new(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// A trial's record, but for what its edit says.
fn judged(
    subject: &Subject,
    facts: &Facts,
    prompt: &Prompt,
    trial: &Trial,
    (clean, clean_text): &(Trajectory, String),
    settings: Settings,
) -> Result<Record, RunError> {
    let trajectory = &trial.trajectory;
    let text = subject.decode(&trajectory.tokens)?;
    let right = right(&text, &prompt.expected);
    let divergence = mean(&trial.divergence);
    let judgement = judge(&Evidence {
        tokens: &trajectory.tokens,
        finish: trajectory.finish,
        clean_tokens: &clean.tokens,
        clean_finish: clean.finish,
        surprise: &trajectory.surprise,
        divergence,
        threshold: settings.threshold,
        prompt: &prompt.text,
        text: &text,
        clean_text,
        right,
    });
    Ok(Record {
        schema: SCHEMA,
        trial: 0,
        model: subject.name().to_owned(),
        revision: subject.revision().map(str::to_owned),
        model_digest: facts.model_digest.clone(),
        head_digest: facts.head_digest.clone(),
        backend: "cpu".to_owned(),
        kernel: subject.kernel().name().to_owned(),
        prompt: prompt.text.clone(),
        prompt_ids: prompt.ids.clone(),
        edit: String::new(),
        shift: None,
        family: None,
        value: None,
        first_words: Vec::new(),
        tokens: trajectory.tokens.clone(),
        text,
        finish: trajectory.finish,
        verdict: judgement.verdict,
        tags: judgement.tags,
        coherent_tokens: judgement.coherent_steps,
        threshold: settings.threshold,
        surprise: trajectory.surprise.iter().map(|&x| finite(x)).collect(),
        margin: trajectory.margin.iter().map(|&x| x.is_finite().then_some(x)).collect(),
        kl_mean: divergence,
        kl_p99: percentile_99(&trial.divergence),
        agreement: mean(&trial.agreement.iter().map(|&same| f64::from(u8::from(same))).collect::<Vec<_>>()),
        expected: right.map(|right| if right { Expected::Right } else { Expected::Wrong }),
        expected_texts: prompt.expected.clone(),
        documented: None,
        clean: CleanAnswer { tokens: clean.tokens.clone(), text: clean_text.clone(), finish: clean.finish },
        run: facts.run.clone(),
        ms: 0.0,
    })
}

fn finite(x: f64) -> Option<f64> {
    x.is_finite().then_some(x)
}

/// The mean, or `None` of nothing and of what is not finite.
fn mean(x: &[f64]) -> Option<f64> {
    (!x.is_empty()).then(|| x.iter().sum::<f64>() / x.len() as f64).and_then(finite)
}

/// The 99th percentile by nearest rank: the smallest value that at least 99 % do not exceed.
fn percentile_99(x: &[f64]) -> Option<f64> {
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
