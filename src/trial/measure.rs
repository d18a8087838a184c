//! What is measured of trials once they are generated: no body is needed, the hidden states are there.

use std::collections::{BTreeMap, HashMap};

use super::{Pending, Running, Trials, Tying, trie::NodeId, vectors_at_once};
use crate::{
    edit::Plan,
    kernels::Kernel,
    model::{Body, BodyError, Projection},
    team::Team,
};

/// Divergence and agreement at each step of the clean trajectory; see [`super::Trial`].
pub type Forced = (Vec<f64>, Vec<bool>);

impl<B: Body> Trials<'_, B> {
    /// The surprise of every generated token under the clean model.
    pub(super) fn surprise(
        &mut self,
        head: &mut impl Projection,
        running: &mut [Running],
        clean: bool,
    ) -> Result<(), BodyError> {
        // Where the clean model stands after the same tokens.
        let shared = matches!(self.task.tying, Tying::Shared(_));
        let mut pending = Pending::default();
        let paths: Vec<Vec<NodeId>> = running
            .iter()
            .map(|run| {
                if !shared {
                    return run.path.clone();
                }
                let mut at = self.clean[run.prompt].start;
                let mut path = vec![at];
                for &token in &run.trajectory.tokens[..run.path.len().saturating_sub(1)] {
                    at = self.child(at, token, true, None, &mut pending);
                    path.push(at);
                }
                path.truncate(run.path.len());
                path
            })
            .collect();
        self.compute(&[], pending)?;

        // Which tokens are asked for at which prefix, and where the answer goes.
        let mut asked: BTreeMap<NodeId, Vec<(usize, usize, u32)>> = BTreeMap::new();
        for (i, (run, path)) in running.iter_mut().zip(&paths).enumerate() {
            run.trajectory.surprise = vec![f64::NAN; path.len()];
            for (step, (token, &node)) in run.trajectory.steps().zip(path).enumerate() {
                asked.entry(node).or_default().push((i, step, token));
            }
        }
        let edited = running.len();
        if clean {
            for (i, clean) in self.clean.iter_mut().enumerate() {
                clean.trajectory.surprise = vec![f64::NAN; clean.path.len()];
                for (step, (token, &node)) in clean.trajectory.steps().zip(&clean.path).enumerate() {
                    asked.entry(node).or_default().push((edited + i, step, token));
                }
            }
        }
        let nodes: Vec<(u32, NodeId)> = asked.keys().map(|&node| (0, node)).collect();
        let (kernel, vocab) = (self.kernel, head.vocab_size());
        for part in nodes.chunks(vectors_at_once(head)) {
            let logits = self.logits(head, part)?;
            let mut sums = vec![0.0; part.len()];
            self.team.for_each_chunk(&mut sums, 1, |i, sum| sum[0] = kernel.log_sum_exp(&logits[i * vocab..][..vocab]));
            for (i, (_, node)) in part.iter().enumerate() {
                for &(run, step, token) in &asked[node] {
                    let surprise = sums[i] - f64::from(logits[i * vocab + token as usize]);
                    let trajectory = match run.checked_sub(edited) {
                        Some(prompt) => &mut self.clean[prompt].trajectory,
                        None => &mut running[run].trajectory,
                    };
                    trajectory.surprise[step] = surprise;
                }
            }
            self.buffers.push(logits);
        }
        Ok(())
    }

    /// Divergence and agreement of each trial, teacher-forced on the clean trajectory of its prompt.
    pub(super) fn diverge(
        &mut self,
        head: &mut impl Projection,
        plans: &[Plan],
        running: &[Running],
        roots: &HashMap<usize, NodeId>,
    ) -> Result<Vec<Forced>, BodyError> {
        let mut measured: Vec<Forced> = vec![Default::default(); running.len()];
        let mut of_prompt: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (i, run) in running.iter().enumerate() {
            of_prompt.entry(run.prompt).or_default().push(i);
        }
        let (kernel, team, vocab) = (self.kernel, self.team, head.vocab_size());
        for (prompt, runs) in of_prompt {
            let path = self.clean[prompt].path.clone();
            let chosen: Vec<u32> = self.clean[prompt].trajectory.steps().collect();
            // Where each edited model stands on the clean trajectory. Without a shared embedding that is where the
            // clean one stands, and all edits of one shift have one product in common.
            let mut pending = Pending::default();
            let mut bases: BTreeMap<(u32, Option<usize>), Base> = BTreeMap::new();
            for &run in &runs {
                let edit = running[run].edit.expect("clean runs were taken out");
                let own = roots.contains_key(&edit).then_some(edit);
                if let Some(base) = bases.get_mut(&(plans[edit].shift, own)) {
                    base.runs.push(run);
                    continue;
                }
                let mut forced = path.clone();
                if own.is_some() {
                    let mut at = running[run].start;
                    for (i, node) in forced.iter_mut().enumerate() {
                        if i > 0 {
                            at = self.child(at, chosen[i - 1], true, own, &mut pending);
                        }
                        *node = at;
                    }
                }
                bases.insert((plans[edit].shift, own), Base { path: forced, runs: vec![run] });
            }
            self.compute(plans, pending)?;
            let bases: Vec<_> = bases.into_iter().collect();
            let spans = (vectors_at_once(head) / 2).max(1);
            for first in (0..path.len()).step_by(spans) {
                let steps = spans.min(path.len() - first);
                let span = first..first + steps;
                let clean = self.logits(head, &path[span.clone()].iter().map(|&node| (0, node)).collect::<Vec<_>>())?;
                let reference = Reference::new(kernel, team, clean, &chosen[span.clone()]);
                let at_once = (vectors_at_once(head) / steps).max(1);
                for part in bases.chunks(at_once) {
                    let items: Vec<(u32, NodeId)> = part
                        .iter()
                        .flat_map(|((shift, _), base)| base.path[span.clone()].iter().map(move |&node| (*shift, node)))
                        .collect();
                    let edited = self.logits(head, &items)?;
                    let of_base = edited.chunks_exact(steps * vocab).zip(part);
                    let (mut plain, mut patched) = (Vec::new(), Vec::new());
                    for (logits, (_, base)) in of_base {
                        for &run in &base.runs {
                            let plan = &plans[running[run].edit.expect("clean runs were taken out")];
                            if plan.rows.is_empty() {
                                plain.push((run, logits));
                            } else {
                                patched.push((run, plan, logits, &base.path[span.clone()]));
                            }
                        }
                    }
                    reference.measure(kernel, team, &plain, &mut measured);
                    for some in patched.chunks(at_once) {
                        let mut own = self.buffers.pop().unwrap_or_default();
                        own.clear();
                        some.iter().for_each(|(_, _, logits, _)| own.extend_from_slice(logits));
                        for ((_, plan, _, path), logits) in some.iter().zip(own.chunks_exact_mut(steps * vocab)) {
                            for (&node, logits) in path.iter().zip(logits.chunks_exact_mut(vocab)) {
                                head.patch(plan, self.trie.hidden(node), logits)?;
                            }
                        }
                        let own_logits = own.chunks_exact(steps * vocab);
                        let some: Vec<_> = some.iter().zip(own_logits).map(|((run, ..), own)| (*run, own)).collect();
                        reference.measure(kernel, team, &some, &mut measured);
                        self.buffers.push(own);
                    }
                    self.buffers.push(edited);
                }
                self.buffers.push(reference.logits);
            }
        }
        Ok(measured)
    }
}

/// Runs that have a product with the head in common, before rows are replaced.
struct Base {
    /// Where they stand at each step of the clean trajectory.
    path: Vec<NodeId>,
    runs: Vec<usize>,
}

/// The clean distributions at some steps, which edited ones are held against.
struct Reference<'a> {
    /// `[steps, vocab]`.
    logits: Vec<f32>,
    /// Of the logits of each step.
    log_sums: Vec<f64>,
    /// `[steps, vocab]`.
    probabilities: Vec<f64>,
    chosen: &'a [u32],
}

impl<'a> Reference<'a> {
    fn new(kernel: Kernel, team: &Team, logits: Vec<f32>, chosen: &'a [u32]) -> Self {
        let vocab = logits.len() / chosen.len();
        let mut log_sums = vec![0.0; chosen.len()];
        team.for_each_chunk(&mut log_sums, 1, |step, sum| {
            sum[0] = kernel.log_sum_exp(&logits[step * vocab..][..vocab]);
        });
        let mut probabilities = vec![0.0; logits.len()];
        team.for_each_chunk(&mut probabilities, vocab, |step, p| {
            kernel.probabilities(&logits[step * vocab..][..vocab], log_sums[step], p);
        });
        Self { logits, log_sums, probabilities, chosen }
    }

    /// Appends the divergence and agreement of each step to what was measured of each run; a run's logits are
    /// `[steps, vocab]`.
    fn measure(&self, kernel: Kernel, team: &Team, runs: &[(usize, &[f32])], measured: &mut [Forced]) {
        let steps = self.chosen.len();
        let vocab = self.logits.len() / steps;
        let mut results = vec![(f64::NAN, false); runs.len() * steps];
        team.for_each_chunk(&mut results, 1, |item, result| {
            let (edited, step) = (runs[item / steps].1, item % steps);
            let span = step * vocab..(step + 1) * vocab;
            let edited = &edited[span.clone()];
            let Some(top) = kernel.top(edited) else { return };
            let (p, clean) = (&self.probabilities[span.clone()], &self.logits[span]);
            let between = kernel.log_sum_exp(edited) - self.log_sums[step];
            // Rounding may leave a distribution a hair below itself; a divergence never is.
            let divergence = (kernel.mean_difference(p, clean, edited) + between).max(0.0);
            result[0] = (divergence, top.token as u32 == self.chosen[step]);
        });
        for ((run, _), results) in runs.iter().zip(results.chunks_exact(steps)) {
            for &(divergence, agreement) in results {
                measured[*run].0.push(divergence);
                measured[*run].1.push(agreement);
            }
        }
    }
}
