//! What the parts of a certificate have in common: the answer that is certified, and running edits on it.

use super::{CertificateError, census::Census, data::Ran, position::Position};
use crate::{
    edit::{Edit, Plan},
    kernels::Rounding,
    model::{Body, Projection, Query},
    search::RunError,
    subject::{Prompt, Subject},
    trial::{Event, Trajectory, Trials},
};

/// Hidden states that are projected at a time.
const AT_ONCE: usize = 32;

/// What a certificate is doing, for whoever watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The clean answer: tokens done.
    Clean(usize),
    /// Least flips.
    LeastFlips,
    /// The census.
    Census,
    /// Running what was found.
    Running,
}

/// An observer that is told of the progress; its error ends the certificate.
pub type Watch<'a> = &'a mut dyn FnMut(Stage) -> Result<(), RunError>;

/// An answer in the making: what its parts have in common.
pub(super) struct Ground<'a, 'b> {
    pub(super) subject: &'a Subject,
    pub(super) prompt: &'a Prompt,
    pub(super) positions: &'b [Position<'b>],
    pub(super) censuses: &'b [Census],
    pub(super) rounding: Rounding,
    pub(super) clean: Trajectory,
    pub(super) max_tokens: usize,
}

/// Logits of hidden states, `[hidden, vocab_size]`.
pub(super) fn logits(head: &mut impl Projection, hidden: &[Vec<f32>]) -> Result<Vec<f32>, RunError> {
    let vocab = head.vocab_size();
    let mut out = vec![0.0; hidden.len() * vocab];
    for (hidden, out) in hidden.chunks(AT_ONCE).zip(out.chunks_mut(AT_ONCE * vocab)) {
        head.logits(vec![Query { shift: 0, hidden: hidden.iter().map(Vec::as_slice).collect(), out }])?;
    }
    Ok(out)
}

/// Runs edits without forcing anything.
pub(super) fn run<B: Body>(
    ground: &Ground<'_, '_>,
    trials: &mut Trials<'_, B>,
    head: &mut impl Projection,
    edits: &[Edit],
    watch: Watch<'_>,
) -> Result<Vec<Ran>, CertificateError> {
    let matrix = ground.subject.head().view();
    let plans: Vec<Plan> =
        edits.iter().map(|edit| edit.plan(&matrix)).collect::<Result<_, _>>().map_err(RunError::from)?;
    let mut ran = Vec::with_capacity(edits.len());
    if plans.is_empty() {
        return Ok(ran);
    }
    trials.run(head, &plans, |event| match event {
        Event::Trial(trial) => {
            let answer = &trial.trajectory;
            let mean = trial.divergence.iter().sum::<f64>() / trial.divergence.len() as f64;
            ran.push(Ran {
                text: ground.subject.decode(&answer.tokens)?,
                tokens: answer.tokens.clone(),
                finish: answer.finish,
                changed: (&answer.tokens, answer.eos, answer.finish)
                    != (&ground.clean.tokens, ground.clean.eos, ground.clean.finish),
                kl_mean: mean.is_finite().then_some(mean),
            });
            Ok(())
        }
        _ => watch(Stage::Running),
    })?;
    Ok(ran)
}
