//! What is measured of trials once they are generated: no body is needed, the hidden states are there.

use std::{
    collections::{BTreeMap, HashSet},
    ops::Range,
};

use super::{
    Measurable, Pending, Running, Trials, Tying,
    sparse::{Patched, parts, runs_together},
    trie::NodeId,
    vectors_at_once,
};
use crate::{
    edit::Plan,
    kernels::{Differences, Kernel, Peaks, Replaced, Spans, Top},
    model::{Body, BodyError, Projection, projection::bend},
    team::Team,
};

/// Divergence and agreement at each step of the clean trajectory; see [`super::Trial`].
pub(crate) type Forced = (Vec<f64>, Vec<bool>);

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
        // Those of the clean answers last: the divergence asks for them again.
        let on_clean: HashSet<NodeId> = self.clean.iter().flat_map(|clean| &clean.path).copied().collect();
        let (last, first): (Vec<NodeId>, Vec<NodeId>) = asked.keys().partition(|node| on_clean.contains(node));
        let nodes: Vec<(u32, NodeId)> = first.into_iter().chain(last).map(|node| (0, node)).collect();
        let (kernel, vocab) = (self.kernel, head.vocab_size());
        for part in nodes.chunks(vectors_at_once(head)) {
            let measurable = self.measurable(head, part)?;
            let logits = &measurable.bent;
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
            let these = (part.iter().map(|&(_, node)| node).collect(), measurable);
            let (_, before) = std::mem::replace(&mut self.clean_logits, these);
            self.reuse_all(before);
        }
        Ok(())
    }

    /// The clean logits of prefixes, `[nodes, vocab]`: a copy where all of them are known from the surprise.
    fn clean_logits(&mut self, head: &mut impl Projection, nodes: &[NodeId]) -> Result<Measurable, BodyError> {
        let known = |node: &NodeId| self.clean_logits.0.iter().position(|other| other == node);
        let Some(places) = nodes.iter().map(known).collect::<Option<Vec<usize>>>() else {
            let items: Vec<(u32, NodeId)> = nodes.iter().map(|&node| (0, node)).collect();
            return self.measurable(head, &items);
        };
        let vocab = head.vocab_size();
        let copied = |known: &[f32], team: &Team, mut out: Vec<f32>| {
            team.for_each_chunk(&mut out, vocab, |i, out| out.copy_from_slice(&known[places[i] * vocab..][..vocab]));
            out
        };
        let mut buffer = || self.buffer(nodes.len() * vocab);
        let (bent, straight) = (buffer(), (!head.curve().is_none()).then(buffer));
        let known = &self.clean_logits.1;
        let straight = straight.zip(known.straight.as_ref()).map(|(out, known)| copied(known, self.team, out));
        Ok(Measurable { bent: copied(&known.bent, self.team, bent), straight })
    }

    /// Divergence and agreement of each trial, teacher-forced on the clean trajectory of its prompt.
    pub(super) fn diverge(
        &mut self,
        head: &mut impl Projection,
        plans: &[Plan],
        running: &[Running],
    ) -> Result<Vec<Forced>, BodyError> {
        let mut measured: Vec<Forced> = vec![Default::default(); running.len()];
        let mut of_prompt: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (i, run) in running.iter().enumerate() {
            of_prompt.entry(run.prompt).or_default().push(i);
        }
        let plan = |run: usize| &plans[running[run].edit.expect("clean runs were taken out")];
        for (prompt, runs) in of_prompt {
            let path = self.clean[prompt].path.clone();
            let chosen: Vec<u32> = self.clean[prompt].trajectory.steps().collect();
            // Where each edited model stands on the clean trajectory. Without a shared embedding that is where the
            // clean one stands, and all edits of one shift have one product in common.
            let mut pending = Pending::default();
            let mut bases: BTreeMap<(u32, Option<usize>), Base> = BTreeMap::new();
            for &run in &runs {
                let edit = running[run].edit.expect("clean runs were taken out");
                let own = matches!(self.task.tying, Tying::Shared(_)).then_some(edit);
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
                let shift = plans[edit].shift;
                let clean = shift == 0 && own.is_none();
                bases.insert((shift, own), Base { shift, clean, path: forced, runs: vec![run] });
            }
            self.compute(plans, pending)?;
            let bases: Vec<Base> = bases.into_values().collect();
            let steps_at_once = (vectors_at_once(head) / 2).max(1);
            for first in (0..path.len()).step_by(steps_at_once) {
                let steps = first..path.len().min(first + steps_at_once);
                let clean = self.clean_logits(head, &path[steps.clone()])?;
                let reference = Reference::new(self.kernel, self.team, clean, &chosen[steps.clone()]);
                for part in bases.chunks((vectors_at_once(head) / steps.len()).max(1)) {
                    self.compare(head, &plan, &reference, part, steps.clone(), &mut measured)?;
                }
                self.reuse_all(reference.logits);
            }
        }
        // Prefixes are forgotten, and their numbers given to others.
        let (_, logits) = std::mem::take(&mut self.clean_logits);
        self.reuse_all(logits);
        Ok(measured)
    }

    /// Measures the runs of some bases at some steps of the clean trajectory.
    fn compare<'p>(
        &mut self,
        head: &mut impl Projection,
        plan: &impl Fn(usize) -> &'p Plan,
        reference: &Reference<'_>,
        bases: &[Base],
        steps: Range<usize>,
        measured: &mut [Forced],
    ) -> Result<(), BodyError> {
        let (kernel, team, vocab) = (self.kernel, self.team, head.vocab_size());
        let items: Vec<(u32, NodeId)> = bases
            .iter()
            .filter(|base| !base.clean)
            .flat_map(|base| base.path[steps.clone()].iter().map(|&node| (base.shift, node)))
            .collect();
        let edited = self.measurable(head, &items)?;
        let (curve, size) = (head.curve(), steps.len() * vocab);
        let mut products = 0..;
        // The clean logits are there. Of each those that are measured, and those that are ranked.
        let logits = bases.iter().map(|base| match base.clean {
            true => (reference.logits.bent.as_slice(), reference.logits.ranked()),
            false => {
                let at = products.next().unwrap_or(0) * size;
                (&edited.bent[at..at + size], &edited.ranked()[at..at + size])
            }
        });
        let logits: Vec<(&[f32], &[f32])> = logits.collect();
        let mut compared: Vec<Option<Compared>> = vec![None; bases.len() * steps.len()];
        team.for_each_chunk(&mut compared, 1, |item, compared| {
            let ((logits, ranked), step) = (logits[item / steps.len()], item % steps.len());
            compared[0] = Some(reference.compare(
                kernel,
                step,
                &logits[step * vocab..][..vocab],
                (!curve.is_none()).then(|| &ranked[step * vocab..][..vocab]),
            ));
        });
        let compared: Vec<Compared> = compared.into_iter().flatten().collect();
        for ((base, (logits, ranked)), compared) in bases.iter().zip(logits).zip(compared.chunks_exact(steps.len())) {
            let (plain, patched): (Vec<usize>, Vec<usize>) =
                base.runs.iter().partition(|&&run| plan(run).rows.is_empty());
            for run in plain {
                for (step, compared) in compared.iter().enumerate() {
                    let found = compared.top.map(|top| (top, compared.spans.log_sum_exp()));
                    reference.put(step, found, compared.differences.mean(), &mut measured[run]);
                }
            }
            let hidden: Vec<&[f32]> = base.path[steps.clone()].iter().map(|&node| self.trie.hidden(node)).collect();
            for some in parts(&patched, |&run| plan(run).rows.len(), steps.len()) {
                let plans: Vec<&Plan> = some.iter().map(|&run| plan(run)).collect();
                let replaced = Patched::new(head, &plans, &hidden)?;
                let mut results: Vec<Forced> = vec![Default::default(); some.len()];
                let together = runs_together(some.len(), team.threads());
                team.for_each_chunk(&mut results, together, |i, results| {
                    let (mut compared, mut own) = (compared.to_vec(), Vec::new());
                    for (result, plan) in results.iter_mut().zip(i * together..) {
                        for (step, compared) in compared.iter_mut().enumerate() {
                            let straight = replaced.at(plan, step, &mut own);
                            let here = step * vocab..(step + 1) * vocab;
                            let (logits, ranked) = (&logits[here.clone()], &ranked[here]);
                            let mut curved = Vec::new();
                            let bent = if curve.is_none() {
                                straight
                            } else {
                                curved.extend_from_slice(straight.logits);
                                bend(kernel, curve, &mut curved);
                                Replaced { index: straight.index, logits: &curved }
                            };
                            let mut found = compared.spans.replaced(logits, bent);
                            if let Some(peaks) = &mut compared.peaks {
                                found = found.and_then(|(_, sum)| Some((peaks.top_replaced(ranked, straight)?, sum)));
                            }
                            let mean = reference.mean(step, logits, bent, &mut compared.differences);
                            reference.put(step, found, mean, result);
                        }
                    }
                });
                for (&run, (divergence, agreement)) in some.iter().zip(results) {
                    measured[run].0.extend(divergence);
                    measured[run].1.extend(agreement);
                }
            }
        }
        self.reuse_all(edited);
        Ok(())
    }
}

/// Runs that have a product with the head in common, before rows are replaced.
struct Base {
    shift: u32,
    /// Whether the product is that of the clean model.
    clean: bool,
    /// Place of these runs in the trie at each step of the clean trajectory.
    path: Vec<NodeId>,
    runs: Vec<usize>,
}

/// The clean distributions at some steps, which edited ones are held against.
struct Reference<'a> {
    /// `[steps, vocab]`.
    logits: Measurable,
    /// Log-sum-exp of the logits of each step.
    log_sums: Vec<f64>,
    /// `[steps, vocab]`.
    probabilities: Vec<f64>,
    chosen: &'a [u32],
}

impl<'a> Reference<'a> {
    fn new(kernel: Kernel, team: &Team, measurable: Measurable, chosen: &'a [u32]) -> Self {
        let logits = &measurable.bent;
        let vocab = logits.len() / chosen.len();
        let mut log_sums = vec![0.0; chosen.len()];
        team.for_each_chunk(&mut log_sums, 1, |step, sum| {
            sum[0] = kernel.log_sum_exp(&logits[step * vocab..][..vocab]);
        });
        let mut probabilities = vec![0.0; logits.len()];
        team.for_each_chunk(&mut probabilities, vocab, |step, p| {
            kernel.probabilities(&logits[step * vocab..][..vocab], log_sums[step], p);
        });
        Self { logits: measurable, log_sums, probabilities, chosen }
    }

    /// Holds the logits of a step under an edit against the clean ones; `ranked` are those before the curve, where there is one.
    fn compare(&self, kernel: Kernel, step: usize, edited: &[f32], ranked: Option<&[f32]>) -> Compared {
        let (p, clean) = self.at(step);
        let spans = Spans::new(kernel, edited);
        let peaks = ranked.map(|ranked| Peaks::new(kernel, ranked));
        let top = peaks.as_ref().zip(ranked).map_or_else(|| spans.top(), |(peaks, ranked)| peaks.top(ranked));
        Compared { spans, peaks, top, differences: Differences::new(kernel, p, clean, edited) }
    }

    /// [`Differences::mean_replaced`] at a step.
    fn mean(&self, step: usize, edited: &[f32], replaced: Replaced<'_>, differences: &mut Differences) -> f64 {
        let (p, clean) = self.at(step);
        differences.mean_replaced(p, clean, edited, replaced)
    }

    /// Probabilities and logits of a step.
    fn at(&self, step: usize) -> (&[f64], &[f32]) {
        let vocab = self.logits.bent.len() / self.chosen.len();
        let span = step * vocab..(step + 1) * vocab;
        (&self.probabilities[span.clone()], &self.logits.bent[span])
    }

    /// Appends the divergence and agreement of a step: `found` is the edited model's choice and log-sum-exp, `mean` the
    /// mean difference of its logits.
    fn put(&self, step: usize, found: Option<(Top, f64)>, mean: f64, measured: &mut Forced) {
        let (divergence, agreement) = match found {
            // Rounding may leave a distribution a hair below itself; a divergence never is.
            Some((top, log_sum)) => {
                ((mean + (log_sum - self.log_sums[step])).max(0.0), top.token as u32 == self.chosen[step])
            }
            None => (f64::NAN, false),
        };
        measured.0.push(divergence);
        measured.1.push(agreement);
    }
}

/// Logits of a step under an edit, held against the clean ones.
#[derive(Clone)]
struct Compared {
    spans: Spans,
    /// Before the curve behind the head, where there is one.
    peaks: Option<Peaks>,
    /// The choice.
    top: Option<Top>,
    differences: Differences,
}
