//! The surprise up to which a step counts as coherent, for a given model and length of answer.
//!
//! How surprising a model's own words are to it depends on the model. So the threshold is taken from the model: it is
//! the 99th percentile, by nearest rank, of the *largest* surprise in each of at least 256 of its own answers, drawn
//! from prompts that the run does not measure. (The percentile of single tokens would condemn one healthy answer of ten
//! tokens in ten.) Then the rule of [`crate::coherence`] is tried on further answers to further prompts, which the
//! clean model gave as well: those that it condemns are false alarms, and their number is kept.
//!
//! Answers are drawn at temperature 0.5. An edited head is decoded greedily, so it is the model's better answers that
//! its own are to be held against; at temperature 1 a small model says words that no reader takes for coherent, and a
//! threshold that lets them pass lets most nonsense pass. `docs/verdicts.md` has the figures.
//!
//! All is seeded, and what is found is kept in the user's cache under everything that it depends on.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Progress, RunError};
use crate::{
    cache,
    coherence::{Evidence, judge},
    random::SplitMix64,
    record::{Calibration, SCHEMA},
    stats,
    subject::{Prompt, Subject},
    tokenizer::{Encoding, TokenizerError},
    trial::{Draw, Trajectory},
};

/// Answers that the percentile is taken of, at least.
const SAMPLES: usize = 256;
/// Answers that the threshold is tried on, at least.
const HELD_OUT: usize = 128;
/// Longest answers that are drawn. The largest surprise of longer ones is a little larger, so that a run of longer
/// answers has some more false alarms than the ones that are counted; records say how long the drawn ones were.
const LONGEST: usize = 128;
/// Seed of the generators that draw answers.
const SEED: u64 = 0;
/// Temperature at which answers are drawn.
const TEMPERATURE: f32 = 0.5;
/// Changes with the rule or the way in which answers are drawn, so that nothing older is taken from the cache.
const VERSION: &str = "headroom calibration 3";

/// Short questions of many kinds, which are used when the user gives none.
const PROMPTS: &str = include_str!("calibration_prompts.txt");

/// Ids of prompts to calibrate on that are none of `measured`: of `own` texts where there are any, else of the
/// program's. A model without a tokenizer answers to single tokens. Beside them, the date that the chat template put
/// into them, where it asked for it.
///
/// # Errors
/// [`TokenizerError`].
pub fn prompts(
    subject: &Subject,
    own: &[String],
    encoding: &Encoding,
    measured: &[Prompt],
) -> Result<(Vec<Vec<u32>>, Option<String>), TokenizerError> {
    let texts: Vec<&str> =
        if own.is_empty() { PROMPTS.lines().collect() } else { own.iter().map(String::as_str).collect() };
    let (mut ids, mut date) = (Vec::new(), None);
    for (i, prompt) in subject.prompts_as(&texts, encoding).into_iter().enumerate() {
        let prompt = match prompt {
            Err(TokenizerError::Missing(_)) if own.is_empty() => {
                // Spread over the vocabulary by a prime.
                let vocab = subject.checkpoint().facts().vocab_size;
                vec![(i * 7919 % vocab) as u32]
            }
            other => {
                let prompt = other?;
                date = date.or(prompt.date);
                prompt.ids
            }
        };
        if !measured.iter().any(|measured| measured.ids == prompt) && !ids.contains(&prompt) {
            ids.push(prompt);
        }
    }
    Ok((ids, date))
}

/// Calibrates the threshold for answers of at most `max_tokens` tokens. Of `prompts` every third is held out.
///
/// # Errors
/// [`RunError::Calibration`], where there are fewer than three prompts or the model's own answers are not finite;
/// what the model or `progress` reports.
pub fn calibrate(
    subject: &Subject,
    prompts: &[Vec<u32>],
    max_tokens: usize,
    mut progress: impl FnMut(Progress<'_>) -> Result<(), RunError>,
) -> Result<Calibration, RunError> {
    if prompts.len() < 3 {
        let few = format!("it takes three prompts that the run does not measure, and there are {}", prompts.len());
        return Err(RunError::Calibration(few));
    }
    let max_tokens = max_tokens.min(LONGEST);
    let entry = entry(subject, prompts, max_tokens);
    let Drawn { fitted, fit, check } = Drawn::of(prompts.len());
    let valid = |known: &Calibration| fits(known, prompts.len(), max_tokens);
    let stored = |text: &[u8]| serde_json::from_slice(text).ok().filter(valid);
    let _alone = match entry.as_deref().map(|entry| cache::find(entry, stored)) {
        Some(Ok(known)) => return Ok(known),
        Some(Err(alone)) => alone,
        None => None,
    };
    let all: Vec<Draw> = fit.iter().chain(&check).copied().collect();

    let mut trials = subject.trials(prompts.iter().map(Vec::as_slice), max_tokens);
    let mut head = subject.projection(subject.head().view());
    let clean = trials.answers(&mut head)?;
    let answers =
        trials.sample(&mut head, &all, TEMPERATURE, |step| progress(Progress::Calibrating { step, of: max_tokens }))?;
    let (fit, check_answers) = answers.split_at(fit.len());
    let not_finite = || RunError::Calibration("the model's own logits are not finite".to_owned());
    let largest: Vec<f64> =
        fit.iter().filter_map(|answer| answer.surprise.iter().copied().max_by(f64::total_cmp)).collect();
    let threshold = stats::percentile_99(&largest).ok_or_else(not_finite)?;
    let steps: Vec<f64> = fit.iter().flat_map(|answer| answer.surprise.iter().copied()).collect();
    let ordinary = steps.iter().sum::<f64>() / steps.len() as f64;
    let false_alarms = check
        .iter()
        .zip(check_answers)
        .filter(|(draw, answer)| !coherent(answer, &clean[draw.prompt], threshold))
        .count();
    let calibration = Calibration {
        threshold,
        ordinary,
        temperature: f64::from(TEMPERATURE),
        max_tokens,
        samples: fit.len(),
        prompts: fitted.len(),
        held_out: check.len(),
        false_alarms,
        seed: SEED,
    };
    if let (Some(path), Ok(text)) = (entry, serde_json::to_vec(&calibration)) {
        // A cache that cannot be written costs time at the next start, and nothing else.
        drop(cache::write(&path, &text));
    }
    Ok(calibration)
}

/// Which answers are drawn.
struct Drawn {
    /// Prompts of the answers that the percentile is taken of.
    fitted: Vec<usize>,
    /// These answers.
    fit: Vec<Draw>,
    /// Answers that the threshold is tried on.
    check: Vec<Draw>,
}

impl Drawn {
    /// To so many prompts, three at least.
    fn of(prompts: usize) -> Self {
        let (held_out, fitted): (Vec<usize>, Vec<usize>) = (0..prompts).partition(|i| i % 3 == 2);
        let draws = |of: &[usize], count: usize| -> Vec<Draw> {
            let each = count.div_ceil(of.len());
            // A generator of its own for each answer, whose seed was mixed: with seeds that are a constant apart,
            // generators of this kind may run through the same numbers one behind the other.
            let seed = |prompt: usize, i: usize| SplitMix64(SEED ^ ((prompt as u64) << 32 | i as u64)).next_u64();
            of.iter().flat_map(|&prompt| (0..each).map(move |i| Draw { prompt, seed: seed(prompt, i) })).collect()
        };
        Self { fit: draws(&fitted, SAMPLES), check: draws(&held_out, HELD_OUT), fitted }
    }
}

/// Whether a stored calibration is one of answers to so many prompts, as they are drawn here.
fn fits(known: &Calibration, prompts: usize, max_tokens: usize) -> bool {
    let Drawn { fitted, fit, check } = Drawn::of(prompts);
    let how = (known.temperature, known.max_tokens, known.samples, known.prompts, known.held_out, known.seed);
    let here = (f64::from(TEMPERATURE), max_tokens, fit.len(), fitted.len(), check.len(), SEED);
    let can_be = |nats: f64| nats.is_finite() && nats >= 0.0;
    how == here && can_be(known.threshold) && can_be(known.ordinary) && known.false_alarms <= known.held_out
}

/// A calibration with what it depends on, so that many processes can share one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Shared {
    /// [`SCHEMA`].
    pub schema: u32,
    /// What was found.
    pub calibration: Calibration,
    /// BLAKE3 over the checkpoint's files.
    pub model_digest: String,
    /// The backend; where its kernel decides results, that.
    pub backend: String,
    /// Tokens of an answer at most.
    pub max_tokens: usize,
    /// BLAKE3 of the ids of the prompts, which none of the measured ones are among.
    pub prompts: String,
    /// The rule, and the way in which answers are drawn.
    pub rule: String,
}

/// A shared calibration that is not of this run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it was calibrated with another {what}, which is {found}, here it is {here}")]
pub(crate) struct SharedError {
    /// What differs.
    pub what: &'static str,
    /// As the file has it.
    pub found: String,
    /// As this run has it.
    pub here: String,
}

impl Shared {
    /// A calibration of these prompts with what it depends on.
    pub(crate) fn new(subject: &Subject, prompts: &[Vec<u32>], max_tokens: usize, calibration: Calibration) -> Self {
        Self {
            schema: SCHEMA,
            calibration,
            model_digest: subject.checkpoint().model_digest().to_hex().to_string(),
            backend: subject.backend().decides().unwrap_or(subject.backend().name()).to_owned(),
            max_tokens: max_tokens.min(LONGEST),
            prompts: blake3::hash(serde_json::json!(prompts).to_string().as_bytes()).to_hex().to_string(),
            rule: VERSION.to_owned(),
        }
    }

    /// The calibration, if it is what [`calibrate`] would find here.
    ///
    /// # Errors
    /// [`SharedError`], by the first thing that differs.
    pub(crate) fn of(
        &self,
        subject: &Subject,
        prompts: &[Vec<u32>],
        max_tokens: usize,
    ) -> Result<Calibration, SharedError> {
        let here = Self::new(subject, prompts, max_tokens, self.calibration.clone());
        let short = |digest: &str| digest.get(..16).unwrap_or(digest).to_owned();
        let same = [
            ("schema", self.schema.to_string(), here.schema.to_string()),
            ("rule", self.rule.clone(), here.rule.clone()),
            ("model (by its digest)", short(&self.model_digest), short(&here.model_digest)),
            ("backend", self.backend.clone(), here.backend.clone()),
            ("number of tokens (--max-tokens, up to 128)", self.max_tokens.to_string(), here.max_tokens.to_string()),
            (
                "list of prompts (by digest; those that are measured are not on it)",
                short(&self.prompts),
                short(&here.prompts),
            ),
        ];
        if let Some((what, found, here)) = same.into_iter().find(|(_, found, here)| found != here) {
            return Err(SharedError { what, found, here });
        }
        if !fits(&self.calibration, prompts.len(), here.max_tokens) {
            let found = format!("{:?}", self.calibration);
            return Err(SharedError { what: "way of drawing answers", found, here: here.rule });
        }
        Ok(self.calibration.clone())
    }
}

/// Whether the rule finds an answer coherent to its end.
fn coherent(answer: &Trajectory, clean: &Trajectory, threshold: f64) -> bool {
    let judgement = judge(&Evidence {
        tokens: &answer.tokens,
        finish: answer.finish,
        clean_tokens: &clean.tokens,
        clean_finish: clean.finish,
        surprise: &answer.surprise,
        divergence: None,
        threshold,
        ordinary: None,
        prompt: "",
        text: "",
        clean_text: "",
        right: None,
    });
    judgement.coherent_steps == answer.surprise.len()
}

/// Where the cache keeps the threshold.
fn entry(subject: &Subject, prompts: &[Vec<u32>], max_tokens: usize) -> Option<PathBuf> {
    let digest = subject.checkpoint().model_digest();
    let mut depends =
        serde_json::json!([VERSION, digest.to_hex().as_str(), prompts, max_tokens, SAMPLES, HELD_OUT, SEED]);
    // Entries of the CPU are older than other backends, and stay valid.
    if let (Some(depends), Some(decides)) = (depends.as_array_mut(), subject.backend().decides()) {
        depends.push(decides.into());
    }
    let key = blake3::hash(depends.to_string().as_bytes()).to_hex();
    Some(cache::folder()?.join("calibrations").join(key.as_str()))
}
