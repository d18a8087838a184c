//! Answers drawn from the clean model instead of chosen by it: what its surprise at its own words looks like.

use std::collections::{BTreeMap, HashMap};

use super::{Finish, Pending, Running, Trajectory, Trials, trie::NodeId, vectors_at_once};
use crate::{
    model::{Body, BodyError, Projection},
    random::SplitMix64,
};

/// One answer to be drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    /// Index of the prompt.
    pub prompt: usize,
    /// Seed of this answer's generator; the answer depends on the seed and the prompt alone.
    pub seed: u64,
}

/// What an answer draws at one step.
struct Drawn {
    /// In (0, 1].
    uniform: f64,
    /// The token and its surprise; none where the logits are not finite.
    token: Option<(u32, f64)>,
}

impl<B: Body> Trials<'_, B> {
    /// Draws answers through `head` as it is, all of them together, one token a wave: each token with the probability that
    /// it has at `temperature`, the first whose cumulative sum (in f64, in the order of the vocabulary) reaches a number drawn
    /// from (0, 1]. Gives their tokens, finish and surprise, which is that of temperature 1; margins stay empty. `wave`
    /// is told the waves done.
    ///
    /// # Errors
    /// What the body or the head reports, or `wave` returns.
    pub fn sample<E: From<BodyError>>(
        &mut self,
        head: &mut impl Projection,
        draws: &[Draw],
        temperature: f32,
        mut wave: impl FnMut(usize) -> Result<(), E>,
    ) -> Result<Vec<Trajectory>, E> {
        let mut waves = 0;
        let mut answers = Vec::with_capacity(draws.len());
        for part in draws.chunks(self.at_once(self.task.max_tokens)) {
            let mut running: Vec<Running> =
                part.iter().map(|draw| Running::new(draw.prompt, None, self.root)).collect();
            let mut generators: Vec<SplitMix64> = part.iter().map(|draw| SplitMix64(draw.seed)).collect();
            self.start(&[], &mut running, &mut HashMap::new(), |_| wave(waves))?;
            while self.draw(head, &mut running, &mut generators, temperature)? {
                waves += 1;
                wave(waves)?;
            }
            answers.extend(running.into_iter().map(|run| run.trajectory));
            self.trie.sweep(&mut self.body);
        }
        Ok(answers)
    }

    /// Draws one token for each answer that still runs; false when none does.
    fn draw(
        &mut self,
        head: &mut impl Projection,
        running: &mut [Running],
        generators: &mut [SplitMix64],
        temperature: f32,
    ) -> Result<bool, BodyError> {
        let mut wanted: BTreeMap<NodeId, Vec<usize>> = BTreeMap::new();
        for (i, run) in running.iter().enumerate().filter(|(_, run)| !run.finished) {
            wanted.entry(run.at()).or_default().push(i);
        }
        if wanted.is_empty() {
            return Ok(false);
        }
        let wanted: Vec<(NodeId, Vec<usize>)> = wanted.into_iter().collect();
        let mut pending = Pending::default();
        let (kernel, team, vocab) = (self.kernel, self.team, head.vocab_size());
        for part in wanted.chunks(vectors_at_once(head)) {
            let items: Vec<(u32, NodeId)> = part.iter().map(|&(node, _)| (0, node)).collect();
            let measurable = self.measurable(head, &items)?;
            let logits = &measurable.bent;
            let mut draw = |&run: &usize| Drawn { uniform: generators[run].positive_unit(), token: None };
            let mut drawn: Vec<Vec<Drawn>> =
                part.iter().map(|(_, runs)| runs.iter().map(&mut draw).collect()).collect();
            team.for_each_chunk(&mut drawn, 1, |i, drawn| {
                let logits = &logits[i * vocab..][..vocab];
                let log_sum = kernel.log_sum_exp(logits);
                if !log_sum.is_finite() {
                    return;
                }
                let tempered: Vec<f32> = logits.iter().map(|logit| logit / temperature).collect();
                let mut probabilities = vec![0.0; vocab];
                kernel.probabilities(&tempered, kernel.log_sum_exp(&tempered), &mut probabilities);
                for drawn in &mut drawn[0] {
                    let chosen = reach(&probabilities, drawn.uniform);
                    drawn.token = Some((chosen as u32, log_sum - f64::from(logits[chosen])));
                }
            });
            for ((_, runs), drawn) in part.iter().zip(drawn) {
                for (&run, drawn) in runs.iter().zip(drawn) {
                    self.take(&mut running[run], drawn.token, &mut pending);
                }
            }
            self.reuse_all(measurable);
        }
        self.compute(&[], pending)?;
        Ok(true)
    }

    /// Takes the drawn token into an answer, and the answer to its next prefix.
    fn take(&mut self, run: &mut Running, drawn: Option<(u32, f64)>, pending: &mut Pending) {
        let Some((token, surprise)) = drawn else {
            run.trajectory.finish = Finish::Nonfinite;
            run.finished = true;
            return;
        };
        run.trajectory.surprise.push(surprise);
        if self.take_token(run, token) {
            let next = self.child(run.at(), token, true, None, pending);
            run.path.push(next);
        }
    }
}

/// The first index at which the cumulative sum reaches `uniform`. Rounding may leave the whole sum a hair below 1: then
/// the last index of any weight.
fn reach(probabilities: &[f64], uniform: f64) -> usize {
    let mut sum = 0.0;
    let found = probabilities.iter().position(|p| {
        sum += p;
        sum >= uniform
    });
    found.or_else(|| probabilities.iter().rposition(|&p| p > 0.0)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_drawn_where_the_cumulative_sum_reaches_the_number() {
        let p = [0.25, 0.0, 0.5, 0.25, 0.0];
        let drawn = [1e-300, 0.25, 0.250_000_1, 0.75, 0.76, 1.0].map(|uniform| reach(&p, uniform));
        assert_eq!(drawn, [0, 0, 2, 2, 3, 3]);
        // A sum that falls short of 1.
        assert_eq!(reach(&[0.5, 0.499, 0.0], 1.0), 1);
    }
}
