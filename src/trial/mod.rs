//! Trials: every edit on every prompt, with each distinct token prefix sent through the body once.
//!
//! An edit touches only the head, so what the body computes for a prefix holds under every edit. The
//! prefixes of a run form a trie (token, parent, hidden state, and the body's slot with this position's
//! keys and values), and all trials advance together, in *waves*:
//!
//! 1. each trial that is still running needs the logits of its prefix under its edit; prefixes and shifts
//!    that several trials share are multiplied once, all of a wave in one pass over the head;
//! 2. each takes the first largest logit, and with it a step in the trie;
//! 3. the prefixes that are new go through the body as one batch.
//!
//! Afterwards the trials are *measured*, again without the body: the surprise of each generated token under
//! the clean model at the prefix where it was generated, and, teacher-forced on the clean trajectory, the
//! divergence of the edited distributions from the clean ones.
//!
//! Where the edited matrix is the embedding too ([`Tying::Shared`]), a prefix has another hidden state under
//! each edit: then each edit has a trie of its own, beside the clean one.

mod measure;
mod sample;
mod sparse;
mod trie;

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use crate::{
    checkpoint::architecture::Curve,
    edit::{Plan, shift_words},
    kernels::{Kernel, Peaks, Top, scalar},
    model::{
        Body, BodyError, Parent, Projection, Step,
        projection::{bend, logits_of, margin},
    },
    quant::{MatrixBuf, MatrixRef, Tensor},
    team::Team,
};

pub use crate::coherence::Finish;
pub(crate) use measure::Forced;
pub use sample::Draw;
use sparse::{Patched, parts, runs_together};
use trie::{Node, NodeId, Trie};

/// Bytes of logits that are held at a time: few enough to stay near the processor between the product that
/// writes them and the measurement that reads them.
const LOGIT_BYTES: usize = 16 << 20;
/// Bytes that the prefixes of trials may hold, beyond those of prompts and clean answers, which stay.
const TRIE_BYTES: usize = 1 << 30;
/// What a part of a prompt is to take: whoever watches can stop a run after each.
const READING: Duration = Duration::from_millis(300);
/// Positions of the first part of a prompt, until it is known how long a part takes.
const FIRST_PART: usize = 64;
/// Positions of a part at least: what is read of the weights is to serve some of them.
const SMALLEST_PART: usize = 8;
/// Positions of a part at most: more of them go through the layers no faster.
const LARGEST_PART: usize = 256;

/// Whether the edited matrix is also the embedding.
#[derive(Clone, Copy, Debug)]
pub enum Tying<'a> {
    /// It is the head alone: the body is the same under every edit.
    Separate,
    /// It is both: an edit changes what the body sees. The matrix as it is without an edit.
    Shared(MatrixRef<'a>),
}

/// What a model answered, step by step.
#[derive(Clone, Debug, PartialEq)]
pub struct Trajectory {
    /// Generated tokens, without the eos.
    pub tokens: Vec<u32>,
    /// The eos that ended it, where [`Finish::Stop`].
    pub eos: Option<u32>,
    /// Why it ended.
    pub finish: Finish,
    /// Best minus second logit, one a step, the eos step included.
    pub margin: Vec<f32>,
    /// `-ln p` of each generated token under the clean model given the same prefix, in nats, one a step, the
    /// eos step included.
    pub surprise: Vec<f64>,
}

impl Trajectory {
    /// The token chosen at each step, the eos included.
    pub fn steps(&self) -> impl Iterator<Item = u32> {
        self.tokens.iter().copied().chain(self.eos)
    }
}

/// One edit on one prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// Index of the prompt.
    pub prompt: usize,
    /// Index of the edit.
    pub edit: usize,
    /// What the edited model answered.
    pub trajectory: Trajectory,
    /// `KL(clean || edited)` in nats at each step of the clean trajectory; NaN where the edited
    /// distribution is not finite.
    pub divergence: Vec<f64>,
    /// Whether the edited model's first choice is the clean one, at each step of the clean trajectory.
    pub agreement: Vec<bool>,
}

/// What a run tells while it goes on.
#[derive(Clone, Debug)]
pub enum Event {
    /// A part of the prompts that are new has gone through the body.
    Reading {
        /// Positions done.
        done: usize,
        /// Positions of all prompts that are new.
        of: usize,
    },
    /// All trials of a part have advanced by a token.
    Wave {
        /// Waves done.
        step: usize,
        /// Waves at most.
        of: usize,
        /// Trials in this part, the clean ones included where they are run with it.
        trials: usize,
    },
    /// The clean model's answer to a prompt is measured; prompts in order, before any trial.
    Clean(Trajectory),
    /// A trial is measured.
    Trial(Trial),
}

/// What is generated, and from what.
#[derive(Clone, Debug)]
pub struct Task<'a> {
    /// Token ids of each prompt; none may be empty.
    pub prompts: Vec<&'a [u32]>,
    /// Tokens that end an answer.
    pub eos: &'a [u32],
    /// Tokens to generate at most, at least 1.
    pub max_tokens: usize,
    /// Whether the edited matrix is also the embedding.
    pub tying: Tying<'a>,
}

/// New prefixes that wait for the body.
#[derive(Default)]
struct Pending {
    /// In an order in which parents come first, each with the edit whose embedding it takes.
    nodes: Vec<(NodeId, Option<usize>, bool)>,
}

/// A trial that is being generated.
struct Running {
    prompt: usize,
    /// `None`: the clean model.
    edit: Option<usize>,
    /// The end of the prompt.
    start: NodeId,
    /// The prefix at each step.
    path: Vec<NodeId>,
    trajectory: Trajectory,
    finished: bool,
}

/// A clean answer and where it lies in the trie.
#[derive(Debug)]
struct Clean {
    trajectory: Trajectory,
    /// The prefix at each step; one shorter than the answer's steps if the last was not finite.
    path: Vec<NodeId>,
    /// The end of the prompt.
    start: NodeId,
}

/// Runs edits on prompts. It computes prompts and clean answers once, however many edits it runs.
pub struct Trials<'a, B> {
    body: B,
    kernel: Kernel,
    team: &'a Team,
    task: Task<'a>,
    trie: Trie,
    root: NodeId,
    /// Roots of prompts by their lengths, where prompts of different lengths have no prefix in common.
    prompt_roots: HashMap<usize, NodeId>,
    clean: Vec<Clean>,
    /// Buffers of logits to be used again.
    buffers: Vec<Vec<f32>>,
    /// Clean logits that the surprise was read from last, and whose they are: the divergence asks for some of them again.
    clean_logits: (Vec<NodeId>, Measurable),
}

/// Logits as they are measured, and as they are ranked.
#[derive(Debug, Default)]
struct Measurable {
    /// After the curve behind the head.
    bent: Vec<f32>,
    /// Before it, where there is one: rounding may make logits equal that differ before it.
    straight: Option<Vec<f32>>,
}

impl Measurable {
    /// Those whose order decides which token is chosen.
    fn ranked(&self) -> &[f32] {
        self.straight.as_ref().unwrap_or(&self.bent)
    }
}

impl<'a, B: Body> Trials<'a, B> {
    /// Nothing is computed yet.
    ///
    /// # Panics
    /// If a prompt is empty or `max_tokens` is 0.
    pub fn new(body: B, kernel: Kernel, team: &'a Team, task: Task<'a>) -> Self {
        assert!(task.max_tokens > 0 && task.prompts.iter().all(|prompt| !prompt.is_empty()), "something to do");
        let mut trie = Trie::default();
        let root = trie.root(0);
        trie.node_mut(root).pinned = true;
        let (prompt_roots, clean, buffers, clean_logits) = Default::default();
        Self { body, kernel, team, task, trie, root, prompt_roots, clean, buffers, clean_logits }
    }

    /// The clean model's answer to each prompt, once [`Trials::run`] has returned.
    pub fn clean(&self) -> impl ExactSizeIterator<Item = &Trajectory> {
        self.clean.iter().map(|clean| &clean.trajectory)
    }

    /// The clean model's normalized hidden states at each step of its answer to `prompt`, the eos step
    /// included, once [`Trials::run`] has returned.
    pub fn clean_hidden(&self, prompt: usize) -> impl ExactSizeIterator<Item = &[f32]> {
        self.clean[prompt].path.iter().map(|&node| self.trie.hidden(node))
    }

    /// Runs every plan on every prompt, prompts in order, for each the plans in order: see [`Trials::run_some`].
    ///
    /// # Errors
    /// As [`Trials::run_some`].
    pub fn run<E: From<BodyError>>(
        &mut self,
        head: &mut impl Projection,
        plans: &[Plan],
        event: impl FnMut(Event) -> Result<(), E>,
    ) -> Result<(), E> {
        let all: Vec<(usize, usize)> =
            (0..self.task.prompts.len()).flat_map(|prompt| (0..plans.len()).map(move |edit| (prompt, edit))).collect();
        self.run_some(head, plans, &all, event)
    }

    /// Every trial of [`Trials::run`], in its order.
    ///
    /// # Errors
    /// What the body or the head reports.
    pub fn all(&mut self, head: &mut impl Projection, plans: &[Plan]) -> Result<Vec<Trial>, BodyError> {
        let mut trials = Vec::new();
        self.run(head, plans, |event| {
            if let Event::Trial(trial) = event {
                trials.push(trial);
            }
            Ok::<_, BodyError>(())
        })?;
        Ok(trials)
    }

    /// Runs trials, each a prompt and a plan by their indices, through `head` and hands them over with their
    /// measurements, in the order given; the clean answers first, where they are not known yet. Where the prefixes of
    /// all trials together would take more than a gigabyte, they are run in parts; a prefix that two parts share is
    /// then computed in both, unless it belongs to a clean answer.
    ///
    /// # Errors
    /// What the body or the head reports, or `event` returns; trials already handed over stand, and this `Trials` is
    /// of no further use.
    pub fn run_some<E: From<BodyError>>(
        &mut self,
        head: &mut impl Projection,
        plans: &[Plan],
        trials: &[(usize, usize)],
        mut event: impl FnMut(Event) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.clean.is_empty() && trials.is_empty() {
            self.part(head, plans, &[], &mut event)?;
        }
        let longest = self.task.prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(0);
        let shared = matches!(self.task.tying, Tying::Shared(_));
        let positions = positions_of_a_trial(shared, longest, self.task.max_tokens);
        for part in trials.chunks(self.at_once(positions)) {
            for trial in self.part(head, plans, part, &mut event)? {
                event(Event::Trial(trial))?;
            }
        }
        Ok(())
    }

    /// Divergence and agreement of every plan on every prompt, prompts in order, for each the plans in order:
    /// teacher-forced on the clean answers, without generating anything.
    ///
    /// # Errors
    /// What the body or the head reports.
    pub fn forced(&mut self, head: &mut impl Projection, plans: &[Plan]) -> Result<Vec<Forced>, BodyError> {
        if self.clean.is_empty() {
            self.run(head, &[], |_| Ok::<_, BodyError>(()))?;
        }
        let root = self.root;
        let edited = |prompt| (0..plans.len()).map(move |edit| Running::new(prompt, Some(edit), root));
        let mut running: Vec<Running> = (0..self.task.prompts.len()).flat_map(edited).collect();
        let mut roots = HashMap::new();
        if let Tying::Shared(_) = self.task.tying {
            self.start(plans, &mut running, &mut roots, |_| Ok::<_, BodyError>(()))?;
        }
        let measured = self.diverge(head, plans, &running);
        self.trie.sweep(&mut self.body);
        measured
    }

    /// What the head as it is answers to each prompt: tokens, finish and margins, without measurements.
    /// Through prefixes that are known only the head is run.
    ///
    /// # Errors
    /// What the body or the head reports.
    pub fn answers(&mut self, head: &mut impl Projection) -> Result<Vec<Trajectory>, BodyError> {
        let prompts = 0..self.task.prompts.len();
        let mut running: Vec<Running> = prompts.map(|prompt| Running::new(prompt, None, self.root)).collect();
        self.start(&[], &mut running, &mut HashMap::new(), |_| Ok::<_, BodyError>(()))?;
        while self.wave(head, &[], &mut running)? {}
        self.trie.sweep(&mut self.body);
        Ok(running.into_iter().map(|run| run.trajectory).collect())
    }

    /// Runs some trials together, and the clean ones with them if they are not yet known.
    fn part<E: From<BodyError>>(
        &mut self,
        head: &mut impl Projection,
        plans: &[Plan],
        trials: &[(usize, usize)],
        event: &mut impl FnMut(Event) -> Result<(), E>,
    ) -> Result<Vec<Trial>, E> {
        let known = !self.clean.is_empty();
        let clean = (0..self.task.prompts.len()).filter(|_| !known).map(|prompt| (prompt, None));
        let edited = trials.iter().map(|&(prompt, edit)| (prompt, Some(edit)));
        let root = self.root;
        let mut running: Vec<Running> =
            clean.chain(edited).map(|(prompt, edit)| Running::new(prompt, edit, root)).collect();
        let mut roots = HashMap::new();
        self.start(plans, &mut running, &mut roots, &mut *event)?;
        let mut step = 0;
        while self.wave(head, plans, &mut running)? {
            step += 1;
            event(Event::Wave { step, of: self.task.max_tokens, trials: running.len() })?;
        }
        if !known {
            let edited = running.split_off(self.task.prompts.len());
            for run in std::mem::replace(&mut running, edited) {
                for &node in &run.path {
                    self.pin(node);
                }
                self.clean.push(Clean { trajectory: run.trajectory, path: run.path, start: run.start });
            }
        }
        self.surprise(head, &mut running, !known)?;
        if !known {
            self.clean.iter().try_for_each(|clean| event(Event::Clean(clean.trajectory.clone())))?;
        }
        let measured = self.diverge(head, plans, &running)?;
        self.trie.sweep(&mut self.body);
        Ok(running
            .into_iter()
            .zip(measured)
            .map(|(run, (divergence, agreement))| Trial {
                prompt: run.prompt,
                edit: run.edit.expect("clean runs were taken out"),
                trajectory: run.trajectory,
                divergence,
                agreement,
            })
            .collect())
    }

    /// How many trials of `positions` positions each fit into the memory for prefixes.
    fn at_once(&self, positions: usize) -> usize {
        trials_at_once(self.body.bytes_per_position(), self.body.bytes_per_path(), self.body.hidden_size(), positions)
    }

    fn pin(&mut self, node: NodeId) {
        let mut at = Some(node);
        while let Some(id) = at {
            let node = self.trie.node_mut(id);
            if std::mem::replace(&mut node.pinned, true) {
                break;
            }
            at = node.parent;
        }
    }

    /// Puts every trial at the end of its prompt. `event` is told what has been read so far, where the body lets prompts be cut.
    fn start<E: From<BodyError>>(
        &mut self,
        plans: &[Plan],
        running: &mut [Running],
        roots: &mut HashMap<(usize, usize), NodeId>,
        mut event: impl FnMut(Event) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut pending = Pending::default();
        for run in running.iter_mut() {
            let prompt = self.task.prompts[run.prompt];
            let length = if self.body.depends_on_prompt_length() { prompt.len() } else { 0 };
            let (root, edit) = match (self.task.tying, run.edit) {
                (Tying::Shared(_), Some(edit)) => {
                    (*roots.entry((edit, length)).or_insert_with(|| self.trie.root(length)), Some(edit))
                }
                _ if length > 0 => {
                    let root = self.prompt_roots.entry(length).or_insert_with(|| self.trie.root(length));
                    self.trie.node_mut(*root).pinned = true;
                    (*root, None)
                }
                _ => (self.root, None),
            };
            run.start = self.walk(root, prompt, false, edit, &mut pending);
            run.path = vec![run.start];
        }
        self.read(plans, pending, &mut event)?;
        let ends: Vec<NodeId> = running.iter().filter(|run| run.edit.is_none()).map(|run| run.start).collect();
        ends.into_iter().for_each(|end| self.pin(end));
        Ok(())
    }

    /// The node that `tokens` lead to from `from`, with its hidden state and, if `all`, those on the way.
    fn walk(&mut self, from: NodeId, tokens: &[u32], all: bool, edit: Option<usize>, pending: &mut Pending) -> NodeId {
        tokens
            .iter()
            .enumerate()
            .fold(from, |at, (i, &token)| self.child(at, token, all || i + 1 == tokens.len(), edit, pending))
    }

    /// The prefix `parent` plus `token`, which goes to `pending` if it is new. One that the body has seen
    /// without its hidden state being wanted (the inside of a prompt) is sent again.
    fn child(
        &mut self,
        parent: NodeId,
        token: u32,
        hidden: bool,
        edit: Option<usize>,
        pending: &mut Pending,
    ) -> NodeId {
        if let Some(&id) = self.trie.children.get(&(parent, token)) {
            if hidden && self.trie.node(id).hidden.is_none() {
                match pending.nodes.iter_mut().rev().find(|entry| entry.0 == id) {
                    Some(entry) => entry.2 = true,
                    None => pending.nodes.push((id, edit, true)),
                }
            }
            return id;
        }
        let id = self.trie.insert(Node { parent: Some(parent), token, slot: None, hidden: None, pinned: false });
        self.trie.children.insert((parent, token), id);
        pending.nodes.push((id, edit, hidden));
        id
    }

    /// Sends new prefixes through the body in parts of which each takes about [`READING`], and tells how many are done after each;
    /// all at once where the body must have a prompt in one call.
    fn read<E: From<BodyError>>(
        &mut self,
        plans: &[Plan],
        mut pending: Pending,
        event: &mut impl FnMut(Event) -> Result<(), E>,
    ) -> Result<(), E> {
        if !self.body.cuts_freely() {
            return Ok(self.compute(plans, pending)?);
        }
        let (of, mut done, mut part) = (pending.nodes.len(), 0, FIRST_PART);
        while done < of {
            let rest = pending.nodes.split_off(part.min(pending.nodes.len()));
            let nodes = std::mem::replace(&mut pending.nodes, rest);
            done += nodes.len();
            let started = Instant::now();
            self.compute(plans, Pending { nodes })?;
            part = if started.elapsed() > READING { part / 2 } else { part * 2 }.clamp(SMALLEST_PART, LARGEST_PART);
            event(Event::Reading { done, of })?;
        }
        Ok(())
    }

    /// Sends new prefixes through the body.
    fn compute(&mut self, plans: &[Plan], pending: Pending) -> Result<(), BodyError> {
        let index: HashMap<NodeId, usize> =
            pending.nodes.iter().enumerate().map(|(index, &(id, ..))| (id, index)).collect();
        let rows: Vec<Option<MatrixBuf>> = pending
            .nodes
            .iter()
            .map(|&(id, edit, _)| match (self.task.tying, edit) {
                (Tying::Shared(matrix), Some(edit)) => {
                    Some(edited_row(&matrix, &plans[edit], self.trie.node(id).token))
                }
                _ => None,
            })
            .collect();
        let embeddings: Vec<Option<Vec<f32>>> = rows.iter().map(|row| row.as_ref().map(embedding)).collect();
        let steps: Vec<Step<'_>> = pending
            .nodes
            .iter()
            .zip(embeddings.iter().zip(&rows))
            .map(|(&(id, _, hidden), (embedding, row))| {
                let node = self.trie.node(id);
                let parent = node.parent.expect("a root is never sent");
                let parent = match (self.trie.node(parent).slot, index.get(&parent)) {
                    (Some(slot), _) => Parent::Slot(slot),
                    (None, Some(&index)) => Parent::Step(index),
                    (None, None) => match self.trie.node(parent).token {
                        0 => Parent::Start,
                        prompt => Parent::Prompt(prompt as usize),
                    },
                };
                let (embedding, row) = (embedding.as_deref(), row.as_ref().map(MatrixBuf::view));
                Step { token: node.token, parent, hidden, embedding, row }
            })
            .collect();
        let extension = self.body.extend(&steps)?;
        let mut hidden = extension.hidden.chunks_exact(self.body.hidden_size());
        for (&(id, _, wanted), slot) in pending.nodes.iter().zip(extension.slots) {
            let node = self.trie.node_mut(id);
            // What follows a prefix that was sent again follows the slot that it has.
            match node.slot {
                Some(_) => self.body.release(slot),
                None => node.slot = Some(slot),
            }
            if wanted {
                node.hidden = hidden.next().map(Into::into);
            }
        }
        Ok(())
    }

    /// Advances every running trial by one token; false when none is left.
    fn wave(&mut self, head: &mut impl Projection, plans: &[Plan], running: &mut [Running]) -> Result<bool, BodyError> {
        // Prefixes by shift: what is to be multiplied, each once.
        let mut wanted: BTreeMap<u32, BTreeMap<NodeId, Vec<usize>>> = BTreeMap::new();
        for (i, run) in running.iter().enumerate().filter(|(_, run)| !run.finished) {
            let shift = run.edit.map_or(0, |edit| plans[edit].shift);
            wanted.entry(shift).or_default().entry(run.at()).or_default().push(i);
        }
        if wanted.is_empty() {
            return Ok(false);
        }
        let flat = wanted
            .into_iter()
            .flat_map(|(shift, nodes)| nodes.into_iter().map(move |(node, runs)| (shift, node, runs)));
        // Where an edit replaces rows, it replaces some of all logits; elsewhere the two largest are enough.
        type Item = (u32, NodeId, Vec<usize>);
        let nothing = Plan::default();
        let plan = |run: &Running| run.edit.map_or(&nothing, |edit| &plans[edit]);
        let replaces = |&run: &usize| !plan(&running[run]).rows.is_empty();
        let (patched, plain): (Vec<Item>, Vec<Item>) = flat.partition(|(.., runs)| runs.iter().any(replaces));
        let curve = head.curve();
        let mut pending = Pending::default();
        for part in plain.chunks(vectors_at_once(head)) {
            let hidden: Vec<(u32, &[f32])> =
                part.iter().map(|&(shift, node, _)| (shift, self.trie.hidden(node))).collect();
            for (top, (.., runs)) in head.tops(&hidden)?.into_iter().zip(part) {
                runs.iter().for_each(|&run| self.step(&mut running[run], top, curve, &mut pending));
            }
        }
        let (kernel, team) = (self.kernel, self.team);
        for part in patched.chunks(vectors_at_once(head)) {
            let items: Vec<(u32, NodeId)> = part.iter().map(|&(shift, node, _)| (shift, node)).collect();
            let logits = self.logits(head, &items)?;
            let vocab = head.vocab_size();
            let mut peaks: Vec<Option<Peaks>> = vec![None; part.len()];
            team.for_each_chunk(&mut peaks, 1, |i, peaks| {
                peaks[0] = Some(Peaks::new(kernel, &logits[i * vocab..][..vocab]));
            });
            for ((peaks, logits), (_, node, runs)) in peaks.iter().flatten().zip(logits.chunks_exact(vocab)).zip(part) {
                let runs: Vec<(usize, &Plan)> = runs.iter().map(|&run| (run, plan(&running[run]))).collect();
                for some in parts(&runs, |run| run.1.rows.len(), 1) {
                    let of: Vec<&Plan> = some.iter().map(|run| run.1).collect();
                    let replaced = Patched::new(head, &of, &[self.trie.hidden(*node)])?;
                    let mut tops = vec![None; some.len()];
                    let together = runs_together(some.len(), team.threads());
                    team.for_each_chunk(&mut tops, together, |i, tops| {
                        let (mut peaks, mut own) = (peaks.clone(), Vec::new());
                        for (top, plan) in tops.iter_mut().zip(i * together..) {
                            *top = peaks.top_replaced(logits, replaced.at(plan, 0, &mut own));
                        }
                    });
                    for (&(run, _), top) in some.iter().zip(tops) {
                        self.step(&mut running[run], top, curve, &mut pending);
                    }
                }
            }
            self.reuse(logits);
        }
        self.compute(plans, pending)?;
        Ok(true)
    }

    /// Takes the chosen token into a trial, and the trial to its next prefix.
    fn step(&mut self, run: &mut Running, top: Option<Top>, curve: Curve, pending: &mut Pending) {
        let Some(top) = top else {
            run.trajectory.finish = Finish::Nonfinite;
            run.finished = true;
            // No token was chosen at the last prefix.
            run.path.pop();
            return;
        };
        let token = top.token as u32;
        run.trajectory.margin.push(margin(self.kernel, curve, top));
        if self.take_token(run, token) {
            let own = matches!(self.task.tying, Tying::Shared(_));
            let next = self.child(run.at(), token, true, run.edit.filter(|_| own), pending);
            run.path.push(next);
        }
    }

    /// Appends a token to an answer, or ends the answer with it; whether the answer goes on.
    fn take_token(&self, run: &mut Running, token: u32) -> bool {
        if self.task.eos.contains(&token) {
            run.trajectory.eos = Some(token);
            run.trajectory.finish = Finish::Stop;
            run.finished = true;
            return false;
        }
        run.trajectory.tokens.push(token);
        run.finished = run.trajectory.tokens.len() == self.task.max_tokens;
        !run.finished
    }

    /// Logits of prefixes under shifts, `[items, vocab]`. Items of one shift must be neighbours.
    fn logits(&mut self, head: &mut impl Projection, items: &[(u32, NodeId)]) -> Result<Vec<f32>, BodyError> {
        let mut out = self.buffer(items.len() * head.vocab_size());
        let hidden: Vec<(u32, &[f32])> = items.iter().map(|&(shift, node)| (shift, self.trie.hidden(node))).collect();
        logits_of(head, &hidden, &mut out)?;
        Ok(out)
    }

    /// [`Trials::logits`] with what comes after the head.
    fn measurable(&mut self, head: &mut impl Projection, items: &[(u32, NodeId)]) -> Result<Measurable, BodyError> {
        let logits = self.logits(head, items)?;
        let (kernel, curve, vocab) = (self.kernel, head.curve(), head.vocab_size());
        if curve.is_none() {
            return Ok(Measurable { bent: logits, straight: None });
        }
        let mut bent = self.buffer(logits.len());
        self.team.for_each_chunk(&mut bent, vocab, |i, bent| {
            bent.copy_from_slice(&logits[i * vocab..][..vocab]);
            bend(kernel, curve, bent);
        });
        Ok(Measurable { bent, straight: Some(logits) })
    }

    /// Returns buffers for reuse.
    fn reuse_all(&mut self, logits: Measurable) {
        self.reuse(logits.bent);
        logits.straight.into_iter().for_each(|buffer| self.reuse(buffer));
    }

    /// Returns a buffer for reuse.
    fn reuse(&mut self, buffer: Vec<f32>) {
        if buffer.capacity() > 0 {
            self.buffers.push(buffer);
        }
    }

    /// A buffer of `len` logits whose values are arbitrary.
    fn buffer(&mut self, len: usize) -> Vec<f32> {
        if let Some(enough) = self.buffers.iter().position(|buffer| buffer.capacity() >= len) {
            let mut out = self.buffers.swap_remove(enough);
            out.resize(len, 0.0);
            return out;
        }
        // Zeros that nobody writes: whichever thread touches a page first gets it. One that is too small makes room.
        self.buffers.pop();
        vec![0.0; len]
    }
}

/// Vectors of logits that are held at a time.
fn vectors_at_once(head: &impl Projection) -> usize {
    vectors_of(head.vocab_size())
}

fn vectors_of(vocab: usize) -> usize {
    (LOGIT_BYTES / (4 * vocab)).max(1)
}

/// Positions that one trial may add to the trie.
const fn positions_of_a_trial(shared: bool, longest_prompt: usize, max_tokens: usize) -> usize {
    if shared {
        // Its own prompt and answer, the clean answer, and its own answer again under the clean model.
        longest_prompt + 3 * max_tokens
    } else {
        max_tokens
    }
}

/// Trials of so many positions that fit into the memory for prefixes; of a position there are the bytes that the body
/// keeps, and a hidden state; of a trial the bytes that the body takes to extend its path.
fn trials_at_once(position_bytes: usize, path_bytes: usize, hidden_size: usize, positions: usize) -> usize {
    let bytes = (position_bytes + 4 * hidden_size).saturating_mul(positions).saturating_add(path_bytes).max(1);
    (TRIE_BYTES / bytes).max(1)
}

impl Running {
    fn new(prompt: usize, edit: Option<usize>, root: NodeId) -> Self {
        let trajectory = Trajectory {
            tokens: Vec::new(),
            eos: None,
            finish: Finish::Length,
            margin: Vec::new(),
            surprise: Vec::new(),
        };
        Self { prompt, edit, start: root, path: Vec::new(), trajectory, finished: false }
    }

    fn at(&self) -> NodeId {
        *self.path.last().expect("a running trial stands at a prefix")
    }
}

/// The row of `token` under an edit of the matrix that is embedding and head.
fn edited_row(matrix: &MatrixRef<'_>, plan: &Plan, token: u32) -> MatrixBuf {
    if let Some(row) = plan.rows.get(&(token as usize)) {
        return row.clone();
    }
    let mut row = matrix.row(token as usize).to_buf();
    shift_words(row.part_mut(Tensor::Weight).expect("every format has a weight"), plan.shift);
    row
}

/// The embedding that a row of the matrix gives, `[cols]`.
fn embedding(row: &MatrixBuf) -> Vec<f32> {
    let mut out = vec![0.0; row.layout().cols()];
    scalar::dequantize_row(&row.view(), 0, 0, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_for_logits_is_16_mib_and_for_prefixes_a_gigabyte() {
        assert_eq!([49_152, 128_256, 1 << 30].map(vectors_of), [85, 32, 1]);
        assert_eq!(positions_of_a_trial(false, 37, 10), 10);
        assert_eq!(positions_of_a_trial(true, 37, 10), 67);
        // Keys and values of SmolLM2's 30 layers, in f32.
        assert_eq!(trials_at_once(30 * 2 * 192 * 4, 0, 576, 10), 2219);
        assert_eq!(trials_at_once(1 << 30, 0, 8, 2), 1);
        assert_eq!(trials_at_once(0, 0, 0, 10), 1 << 30);
        // The states of two positions, each larger than all that ten positions keep.
        assert_eq!(trials_at_once(1 << 10, 2 << 20, 0, 10), 509);
    }
}
