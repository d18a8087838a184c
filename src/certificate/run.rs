//! Certificates of a suite, prompt by prompt: numbered, taken together, and forgotten.

use std::path::Path;

use super::{
    JoinError, Options,
    critical::{BitsError, CriticalBits},
    data::Answer,
    line::{CertificateLine, CertifyFacts, NewBits},
    merge::same_run,
    suite::{Suite, SuiteTally},
};
use crate::{
    numbers::NumberSet,
    record::{SCHEMA, Shard, journal::JournalError},
    search::RunError,
    subject::{Prompt, Subject},
};

/// The answers of a run of `certify`, by number, as they are finished. They are taken together and not kept: what grows is the
/// set of critical bits, and the texts of the rows that have some.
#[derive(Debug)]
pub(crate) struct Certification<'a> {
    subject: &'a Subject,
    /// What identifies the run, where lines are made of it.
    identity: Option<Identity>,
    together: Together,
    finished: NumberSet,
}

/// What all lines of a run have in common.
#[derive(Debug)]
struct Identity {
    facts: CertifyFacts,
    model_digest: String,
    head_digest: String,
}

/// Lines that are taken together one by one.
#[derive(Clone, Debug, Default)]
pub(super) struct Together {
    tally: SuiteTally,
    /// Rows that have critical bits of codes.
    rows: NumberSet,
}

impl Together {
    pub(super) fn count(&mut self, answer: &Answer) {
        self.tally.count(answer);
    }

    /// Adds critical bits, and gives those that are new, with the rows that are.
    pub(super) fn join(&mut self, bits: &CriticalBits) -> (CriticalBits, Vec<usize>) {
        let new = self.tally.join(bits);
        let mut rows = Vec::new();
        for flip in new.flips() {
            let row = flip.row as usize;
            if self.rows.insert(row) {
                rows.push(row);
            }
        }
        (new, rows)
    }

    pub(super) const fn tally(&self) -> &SuiteTally {
        &self.tally
    }
}

/// What identifies a run of `certify` on these prompts.
fn facts(subject: &Subject, prompts: &[Prompt], options: &Options, model_digest: &str) -> CertifyFacts {
    let layout = subject.head().layout();
    let within = options.within.map(|within| within.name().to_owned());
    let asked: Vec<_> = prompts.iter().map(|prompt| (&prompt.text, &prompt.ids)).collect();
    let decides = serde_json::json!([
        SCHEMA,
        "certify",
        options.max_tokens,
        within,
        options.silence_eos,
        options.toward,
        options.weakest,
        subject.backend().decides().unwrap_or(subject.backend().name()),
        model_digest,
        asked,
    ]);
    CertifyFacts {
        id: blake3::hash(decides.to_string().as_bytes()).to_hex()[..32].to_owned(),
        prompts: prompts.len(),
        max_tokens: options.max_tokens,
        within,
        silence_eos: options.silence_eos,
        toward: options.toward,
        weakest: options.weakest,
        date: prompts.iter().find_map(|prompt| prompt.date.clone()),
        rows: layout.rows(),
        cols: layout.cols(),
        format: layout.format().to_string(),
        scale_type: layout.scale_type().name().to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

impl<'a> Certification<'a> {
    /// Nothing is certified yet.
    pub(crate) fn new(subject: &'a Subject) -> Self {
        Self { subject, identity: None, together: Together::default(), finished: NumberSet::default() }
    }

    /// Says what identifies the run, for which the digest of the model is needed. Lines can be made and resumed from then on.
    pub(crate) fn identify(&mut self, prompts: &[Prompt], options: &Options) -> &CertifyFacts {
        let model_digest = self.subject.checkpoint().model_digest().to_hex().to_string();
        let identity = Identity {
            facts: facts(self.subject, prompts, options, &model_digest),
            model_digest,
            head_digest: self.subject.head_digest(),
        };
        &self.identity.insert(identity).facts
    }

    /// Whether a prompt is finished.
    pub(crate) fn is_finished(&self, number: usize) -> bool {
        self.finished.contains(number)
    }

    /// Number of certificates.
    pub(crate) const fn answers(&self) -> usize {
        self.together.tally().answers()
    }

    /// Checks that a line is one of this run.
    ///
    /// # Errors
    /// [`JoinError`], by the first thing that differs.
    ///
    /// # Panics
    /// If the run was not identified.
    pub(crate) fn check(
        &self,
        path: &Path,
        at: usize,
        line: &CertificateLine,
        shard: Option<Shard>,
    ) -> Result<(), JoinError> {
        same_run(path, at, line, &self.blank())?;
        let layout = self.subject.head().layout();
        let bits = line.new_bits.read(layout);
        bits.map_err(|error| JoinError::Bits { path: path.to_owned(), line: at, what: error.to_string() })?;
        match shard {
            Some(shard) if !shard.has(line.certificate) => {
                let (path, trial) = (path.to_owned(), line.certificate);
                Err(JournalError::Shard { path, line: at, trial, shard }.into())
            }
            _ => Ok(()),
        }
    }

    /// Takes a line of an earlier part of the run, which was checked; says whether it is new.
    ///
    /// # Errors
    /// [`BitsError`].
    pub(crate) fn resume(&mut self, line: &CertificateLine) -> Result<bool, BitsError> {
        let bits = line.new_bits.read(self.subject.head().layout())?;
        if !self.finished.insert(line.certificate) {
            return Ok(false);
        }
        self.together.join(&bits);
        line.answer.iter().for_each(|answer| self.together.count(answer));
        Ok(true)
    }

    /// Takes an answer of which no line is made.
    pub(crate) fn count(&mut self, answer: &Answer) {
        self.together.count(answer);
        answer.critical.iter().for_each(|bits| _ = self.together.join(bits));
    }

    /// The line of a prompt: its certificate, or why there is none.
    ///
    /// # Errors
    /// [`RunError`], where the text of a row cannot be given.
    ///
    /// # Panics
    /// If the run was not identified.
    pub(crate) fn line(
        &mut self,
        number: usize,
        prompt: &Prompt,
        answer: Result<Answer, String>,
    ) -> Result<CertificateLine, RunError> {
        let mut line = CertificateLine {
            certificate: number,
            prompt: prompt.text.clone(),
            prompt_ids: prompt.ids.clone(),
            ..self.blank()
        };
        match answer {
            Ok(answer) => {
                self.together.count(&answer);
                if let Some(bits) = &answer.critical {
                    let (new, rows) = self.together.join(bits);
                    let text = |row: usize| Ok((row, self.subject.decode(&[row as u32])?));
                    line.new_bits = NewBits::of(&new, rows.into_iter().map(text).collect::<Result<_, RunError>>()?);
                }
                line.answer = Some(answer);
            }
            Err(refused) => line.refused = Some(refused),
        }
        self.finished.insert(number);
        Ok(line)
    }

    /// What all lines have in common.
    fn blank(&self) -> CertificateLine {
        let Identity { facts, model_digest, head_digest } = self.identity.as_ref().expect("the run was identified");
        CertificateLine {
            schema: SCHEMA,
            certificate: 0,
            model: self.subject.name().to_owned(),
            revision: self.subject.revision().map(str::to_owned),
            model_digest: model_digest.clone(),
            head_digest: head_digest.clone(),
            kernel: self.subject.kernel().name().to_owned(),
            prompt: String::new(),
            prompt_ids: Vec::new(),
            answer: None,
            refused: None,
            new_bits: NewBits::default(),
            run: facts.clone(),
        }
    }

    /// What all answers have in common; `None` without one.
    ///
    /// # Errors
    /// [`RunError`], where the text of a row cannot be given.
    pub(crate) fn suite(&self) -> Result<Option<Suite>, RunError> {
        self.together.tally().suite(|row| Ok(self.subject.decode(&[row as u32])?))
    }
}
