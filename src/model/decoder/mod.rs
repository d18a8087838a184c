//! The decoder on the CPU: it interprets an `Architecture`, layer by layer, and knows no family.
//!
//! Activations are f32 throughout. For a batch of `n` positions, which may belong to many sequences:
//!
//! ```text
//! x          [n, hidden]                    embed_tokens
//! each layer:
//!   q, k, v  [n, heads|kv_heads * head_dim] one pass over q_proj, k_proj, v_proj of attention_norm(x); q and k rotated
//!   o        [n, heads * head_dim]          attention over each position's own path, in order
//!   x       += o_proj(o)                    or what another mixer gives
//!   x       += down_proj(activation(gate_proj(h)) * up_proj(h)),  h = mlp_norm(x)
//! hidden     [wanted, hidden]               norm
//! ```
//!
//! In the last layer only the wanted positions go beyond what is kept. What a layer does not have, such as a bias, is
//! skipped. `mixer.rs` says which of `attention.rs`, `short_convolution.rs` and `delta_net.rs` has the first branch, `mlp.rs` and
//! `experts.rs` with `router.rs` have the second, and `norm.rs` what brings them together.

mod attention;
mod delta_net;
mod experts;
mod mixer;
mod mlp;
mod norm;
mod router;
mod short_convolution;

use std::{ops::Range, sync::Arc};

use self::{
    delta_net::Chain,
    experts::Gathered,
    mlp::activate,
    norm::{Joined, normalize},
};
use super::{
    Body, BodyError, Extension, Parent, Slot, Step,
    cache::{self, Cache, Run},
    check_tokens,
    rope::{RopeTables, depends_on_known_positions},
    states::States,
};
use crate::{
    checkpoint::{
        Checkpoint, LayerWeights, Linear, NormWeights,
        architecture::{Layer, Norm, Wiring},
    },
    kernels::{Activations, Kernel, Pass, Product, multiply, scalar},
    quant::WeightsRef,
    team::Team,
};

/// Positions that go through the layers together: bounds working memory on long prompts.
const BATCH: usize = 256;
/// Positions that attend together at most: each key is read from far away once for all of them.
const TILE: usize = 8;

/// The body of a checkpoint on the CPU.
#[derive(Debug)]
pub struct Decoder {
    checkpoint: Arc<Checkpoint>,
    kernel: Kernel,
    team: Arc<Team>,
    rope: RopeTables,
    cache: Cache,
    states: States,
    work: Work,
    /// States behind each layer, while somebody asks for them.
    traced: Option<Vec<Vec<f32>>>,
}

/// Buffers that are used again in each call.
#[derive(Debug)]
struct Work {
    input: Activations,
    /// What the layers add to, without the outputs of branches that are not yet joined.
    x: Vec<f32>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    /// What the tokens of a batch give to the layers, `[n, layers * size]`; nothing where the model has none.
    token_inputs: Vec<f32>,
    /// Outputs of heads, `[key heads, positions, heads that share it, head_dim]`.
    heads: Vec<f32>,
    /// The state of each chain of a batch, where layers have one.
    states: Vec<Box<[f32]>>,
    /// Products of several projections in one, before they are parted.
    joined: Vec<f32>,
    /// The last attention's output.
    attended: Vec<f32>,
    /// The last MLP's output.
    out: Vec<f32>,
    /// What goes through experts.
    gathered: Gathered,
}

/// The positions of one batch.
#[derive(Default)]
struct Batch {
    slots: Vec<Slot>,
    /// Those of all paths; a position that continues the path before it shares its runs, of which the last may go on behind it.
    runs: Vec<Run>,
    paths: Vec<Path>,
    /// The positions in their order, as stretches of one path.
    chains: Vec<Chain>,
    wanted: Vec<usize>,
}

/// All positions up to one, itself included: how many they are, and among the runs of the batch those where they lie.
struct Path {
    runs: Range<usize>,
    positions: usize,
}

impl Batch {
    /// Takes a position in that follows `parent` among those of the batch, or else what the cache says.
    fn push(&mut self, cache: &Cache, slot: Slot, parent: Option<usize>) {
        let index = self.paths.len();
        match self.chains.last_mut() {
            Some(last) if parent.is_some_and(|parent| parent + 1 == index) => last.positions.end += 1,
            _ => self.chains.push(Chain { positions: index..index + 1, parent: cache.parent(slot) }),
        }
        let start = match parent {
            Some(parent) if parent + 1 == self.paths.len() => {
                let start = self.paths[parent].runs.start;
                cache::append(&mut self.runs, start, slot);
                start
            }
            _ => {
                let start = self.runs.len();
                cache.path(slot, &mut self.runs);
                start
            }
        };
        self.paths.push(Path { runs: start..self.runs.len(), positions: cache.position(slot) + 1 });
        self.slots.push(slot);
    }

    /// How many of `rows` attend together: as many as there are for a path, and not so many that threads have nothing to do.
    fn tile(&self, rows: &[usize]) -> usize {
        let paths = rows.chunk_by(|&one, &next| self.paths[one].runs.start == self.paths[next].runs.start).count();
        (rows.len() / paths).min(TILE)
    }
}

impl Decoder {
    /// A body that has seen nothing yet. Weights stay where the checkpoint has them.
    pub fn new(checkpoint: Arc<Checkpoint>, kernel: Kernel, team: Arc<Team>) -> Self {
        let architecture = &checkpoint.config().architecture;
        let work = Work {
            input: Activations::new(kernel, architecture.hidden_size),
            x: Vec::new(),
            q: Vec::new(),
            k: Vec::new(),
            v: Vec::new(),
            gate: Vec::new(),
            up: Vec::new(),
            token_inputs: Vec::new(),
            heads: Vec::new(),
            states: Vec::new(),
            joined: Vec::new(),
            attended: Vec::new(),
            out: Vec::new(),
            gathered: Gathered::new(kernel),
        };
        Self {
            rope: RopeTables::new(architecture),
            cache: Cache::new(architecture.layers.iter().map(|layer| layer.mixer.kept(architecture.hidden_size))),
            states: States::new(architecture.layers.iter().map(|layer| layer.mixer.state())),
            checkpoint,
            kernel,
            team,
            work,
            traced: None,
        }
    }

    fn run(&mut self, steps: &[Step<'_>], batch: &Batch, hidden: &mut Vec<f32>) {
        let checkpoint = Arc::clone(&self.checkpoint);
        let (architecture, weights) = (&checkpoint.config().architecture, checkpoint.weights());
        let size = architecture.hidden_size;
        self.embed(steps, batch);
        self.give_to_layers(steps);
        let everyone: Vec<usize> = (0..steps.len()).collect();
        let mut joined = Joined::NOTHING;
        for (index, (layer, weights)) in architecture.layers.iter().zip(&weights.layers).enumerate() {
            let last = index + 1 == architecture.layers.len();
            self.normalize(layer.attention_norm, weights.attention_norm.as_ref(), joined);
            if index > 0 {
                self.trace(batch.wanted.last().copied());
            }
            self.take_in(index, layer, weights, batch);
            let rows = if last { &batch.wanted } else { &everyone };
            if last {
                // From here on only what was asked for.
                for (to, &from) in rows.iter().enumerate() {
                    self.work.x.copy_within(from * size..(from + 1) * size, to * size);
                }
                self.work.x.truncate(rows.len() * size);
            }
            if rows.is_empty() {
                return;
            }
            self.give_out(index, layer, weights, batch, rows);
            let (attention, mlp) = (Joined::attention(layer, weights), Joined::mlp(layer, weights));
            let (norm, before, after) = match layer.wiring {
                Wiring::Serial => (layer.mlp_norm.zip(weights.mlp_norm.as_ref()), attention, mlp),
                Wiring::Parallel => {
                    (layer.mlp_norm.zip(weights.mlp_norm.as_ref()), Joined::NOTHING, attention.and(mlp))
                }
                Wiring::ParallelOneNorm => {
                    (layer.attention_norm.zip(weights.attention_norm.as_ref()), Joined::NOTHING, attention.and(mlp))
                }
            };
            let (norm, norm_weights) = norm.unzip();
            self.normalize(norm, norm_weights, before);
            self.feed_forward(&layer.mlp, &weights.mlp, rows.len());
            joined = after;
            if layer.token_input.is_some() || layer.output_scale {
                self.close(index, layer, weights, rows, joined);
                joined = Joined::NOTHING;
            }
        }
        let Self { kernel, work, .. } = self;
        for (i, x) in work.x.chunks_exact_mut(size).enumerate() {
            joined.join(*kernel, i, x, &work.attended, &work.out);
            let start = hidden.len();
            hidden.resize(start + size, 0.0);
            normalize(*kernel, architecture.norm, &weights.norm, x, &mut hidden[start..]);
        }
        self.trace(batch.wanted.len().checked_sub(1));
    }

    /// Keeps the state of a row, if somebody asks for the states behind layers.
    fn trace(&mut self, row: Option<usize>) {
        if let (Some(traced), Some(row)) = (&mut self.traced, row) {
            let size = self.checkpoint.config().architecture.hidden_size;
            traced.push(self.work.x[row * size..][..size].to_vec());
        }
    }

    /// Leaves the embeddings of a batch in `work.x`.
    fn embed(&mut self, steps: &[Step<'_>], batch: &Batch) {
        let Self { checkpoint, kernel, team, work, cache, .. } = self;
        let (architecture, weights) = (&checkpoint.config().architecture, checkpoint.weights());
        let size = architecture.hidden_size;
        work.x.resize(steps.len() * size, 0.0);
        let embedding = weights.embed_tokens.view();
        let half_precision = looked_up_as_bfloat16(&embedding);
        let positions = weights.embed_positions.as_ref().map(|positions| positions.view());
        team.for_each_chunk(&mut work.x, size, |i, x| {
            match steps[i].embedding {
                Some(own) => x.copy_from_slice(own),
                None => scalar::row(&embedding, 0, steps[i].token as usize, x),
            }
            match architecture.embedding_scale {
                Some(factor) if half_precision => scale_as_bfloat16(x, factor),
                Some(factor) => kernel.scale(x, factor),
                None => {}
            }
            if let Some(positions) = &positions {
                let mut own = vec![0.0; size];
                scalar::row(positions, 0, cache.position(batch.slots[i]), &mut own);
                kernel.add(x, &own);
            }
        });
    }

    /// Ends a block that has more than two branches.
    fn close(&mut self, index: usize, layer: &Layer, weights: &LayerWeights, rows: &[usize], joined: Joined<'_>) {
        self.normalize(None, None, joined);
        let Self { checkpoint, kernel, team, work, .. } = self;
        let Work { input, x, up, out, token_inputs, .. } = work;
        let size = x.len() / rows.len();
        let branch = layer.token_input.zip(weights.token_input.as_ref());
        if let Some((rule, weights)) = branch {
            project(*kernel, team, input, [(&weights.gate, &mut *up)]);
            let stride = checkpoint.config().architecture.layers.len() * rule.size;
            input.fill(team, rows.len(), rule.size, |i, out| {
                out.copy_from_slice(&up[i * rule.size..][..rule.size]);
                activate(*kernel, rule.activation, None, out);
                kernel.multiply(out, &token_inputs[rows[i] * stride + index * rule.size..][..rule.size]);
            });
            project(*kernel, team, input, [(&weights.output, &mut *out)]);
        }
        team.for_each_chunk(x, size, |i, x| {
            if let Some((rule, weights)) = branch {
                let mut own = vec![0.0; size];
                normalize(*kernel, rule.output_norm, &weights.output_norm, &out[i * size..][..size], &mut own);
                kernel.add(x, &own);
            }
            if let Some(factor) = weights.output_scale {
                kernel.scale(x, factor);
            }
        });
    }

    /// Leaves what the tokens of `steps`, whose embeddings are in `work.x`, give to layers in `work.token_inputs`.
    fn give_to_layers(&mut self, steps: &[Step<'_>]) {
        let checkpoint = Arc::clone(&self.checkpoint);
        let architecture = &checkpoint.config().architecture;
        let Some((rule, weights)) = architecture.token_inputs.zip(checkpoint.weights().token_inputs.as_ref()) else {
            return;
        };
        self.normalize(None, None, Joined::NOTHING);
        let Self { kernel, team, work, .. } = self;
        project(*kernel, team, &work.input, [(&weights.projection, &mut work.token_inputs)]);
        let embedding = weights.embedding.view();
        let as_bfloat16 = looked_up_as_bfloat16(&embedding);
        let columns = architecture.layers.len() * rule.size;
        let (of_projection, of_row) = (1.0 / (architecture.hidden_size as f32).sqrt(), (rule.size as f32).sqrt());
        team.for_each_chunk(&mut work.token_inputs, columns, |i, given| {
            let mut row = vec![0.0; columns];
            scalar::row(&embedding, 0, steps[i].token as usize, &mut row);
            if as_bfloat16 {
                scale_as_bfloat16(&mut row, of_row);
            } else {
                kernel.scale(&mut row, of_row);
            }
            kernel.scale(given, of_projection);
            for (given, row) in given.chunks_exact_mut(rule.size).zip(row.chunks_exact(rule.size)) {
                let before = given.to_vec();
                normalize(*kernel, rule.norm, &weights.norm, &before, given);
                kernel.add(given, row);
            }
            kernel.scale(given, std::f32::consts::FRAC_1_SQRT_2);
        });
    }

    /// Leaves `work.x` in `work.input`, normalized where there is a norm, after outputs of branches were joined to it.
    fn normalize(&mut self, norm: Option<Norm>, weights: Option<&NormWeights>, joined: Joined<'_>) {
        let size = self.hidden_size();
        let Self { kernel, team, work, .. } = self;
        let Work { input, x, attended, out: last, .. } = work;
        let norm = norm.zip(weights);
        input.fill_from(team, x, size, |i, x, out| {
            joined.join(*kernel, i, x, attended, last);
            match norm {
                Some((norm, weights)) => normalize(*kernel, norm, weights, x, out),
                None => out.copy_from_slice(x),
            }
        });
    }
}

/// Whether MLX looks rows up as bfloat16, as it does where codes are floats, and so multiplies them as that.
fn looked_up_as_bfloat16(embedding: &WeightsRef<'_>) -> bool {
    match embedding {
        WeightsRef::Quantized(matrix) => !matrix.layout().format().has_biases(),
        WeightsRef::Dense(_) => false,
    }
}

/// `x[c] *= factor` in bfloat16.
fn scale_as_bfloat16(x: &mut [f32], factor: f32) {
    let rounded = |x: f32| half::bf16::from_f32(x).to_f32();
    let factor = rounded(factor);
    x.iter_mut().for_each(|x| *x = rounded(*x * factor));
}

/// The products of one input with several linear layers, in one pass.
fn project<const N: usize>(kernel: Kernel, team: &Team, input: &Activations, outputs: [(&Linear, &mut Vec<f32>); N]) {
    let mut biased = Vec::new();
    let mut passes: [Pass<'_>; N] = outputs.map(|(linear, out)| {
        let weights = linear.weights.view();
        out.resize(input.count() * weights.rows(), 0.0);
        biased.push(linear.bias.as_ref());
        Pass { weights, products: vec![Product { shift: 0, x: input.all(), out }] }
    });
    multiply(kernel, team, &mut passes);
    for (pass, bias) in passes.iter_mut().zip(biased) {
        if let Some(bias) = bias {
            let bias = &bias.values;
            pass.products[0].out.chunks_exact_mut(bias.len()).for_each(|out| kernel.add(out, bias));
        }
    }
}

impl Body for Decoder {
    fn hidden_size(&self) -> usize {
        self.checkpoint.config().architecture.hidden_size
    }

    fn bytes_per_position(&self) -> usize {
        self.cache.bytes_per_position()
    }

    fn bytes_per_path(&self) -> usize {
        2 * self.states.floats() * size_of::<f32>()
    }

    fn extend(&mut self, steps: &[Step<'_>]) -> Result<Extension, BodyError> {
        let architecture = &self.checkpoint.config().architecture;
        check_tokens(architecture, steps)?;
        if let Some(positions) = architecture.learned_positions {
            self.check_positions(steps, positions)?;
        }
        let mut slots: Vec<Slot> = Vec::with_capacity(steps.len());
        let mut hidden = Vec::new();
        while slots.len() < steps.len() {
            let mut batch = Batch::default();
            let first = slots.len();
            let part = &steps[first..self.end_of_batch(steps, first)];
            for (i, step) in part.iter().enumerate() {
                let (parent, in_batch) = match step.parent {
                    Parent::Start | Parent::Prompt(_) => (None, None),
                    Parent::Slot(slot) => (Some(slot), None),
                    Parent::Step(index) => (Some(slots[index]), index.checked_sub(first)),
                };
                let prompt = match step.parent {
                    Parent::Prompt(tokens) => tokens,
                    _ => 0,
                };
                let slot = self.cache.open(parent, prompt);
                batch.push(&self.cache, slot, in_batch);
                slots.push(slot);
                if step.hidden {
                    batch.wanted.push(i);
                }
                self.rope.reach(self.cache.position(slot), self.cache.known(slot));
            }
            self.begin_chains(&batch);
            self.run(part, &batch, &mut hidden);
            self.end_chains(&batch);
        }
        Ok(Extension { slots, hidden })
    }

    fn depends_on_prompt_length(&self) -> bool {
        depends_on_known_positions(&self.checkpoint.config().architecture)
    }

    fn cuts_freely(&self) -> bool {
        true
    }

    fn release(&mut self, slot: Slot) {
        self.cache.release(slot);
        self.states.release(slot);
    }

    fn layers(&mut self, tokens: &[u32]) -> Result<Option<Vec<Vec<f32>>>, BodyError> {
        let step = |(i, &token): (usize, &u32)| {
            let parent = i.checked_sub(1).map_or(Parent::Prompt(tokens.len()), Parent::Step);
            Step { token, parent, hidden: i + 1 == tokens.len(), embedding: None, row: None }
        };
        let steps: Vec<Step<'_>> = tokens.iter().enumerate().map(step).collect();
        self.traced = Some(Vec::new());
        let extended = self.extend(&steps);
        let traced = self.traced.take();
        extended?.slots.into_iter().rev().for_each(|slot| self.release(slot));
        Ok(traced)
    }
}

impl Decoder {
    /// Where the batch ends that begins with step `first`. Where layers have a state, no chain of a batch begins inside of another, and
    /// their states fit into memory.
    fn end_of_batch(&self, steps: &[Step<'_>], first: usize) -> usize {
        let most = steps.len().min(first + BATCH);
        if self.states.floats() == 0 {
            return most;
        }
        let mut chains = 0;
        for (i, step) in steps.iter().enumerate().take(most).skip(first) {
            let inside = match step.parent {
                Parent::Step(index) => index.checked_sub(first).map(|_| index),
                Parent::Start | Parent::Prompt(_) | Parent::Slot(_) => None,
            };
            if inside.is_some_and(|parent| parent + 1 == i) {
                continue;
            }
            if inside.is_some() || chains == self.states.paths_at_once() {
                return i;
            }
            chains += 1;
        }
        most
    }

    /// Refuses steps beyond the last position that has a learned vector.
    fn check_positions(&self, steps: &[Step<'_>], positions: usize) -> Result<(), BodyError> {
        let mut at: Vec<usize> = Vec::with_capacity(steps.len());
        for step in steps {
            let position = match step.parent {
                Parent::Start | Parent::Prompt(_) => 0,
                Parent::Slot(slot) => self.cache.position(slot) + 1,
                Parent::Step(index) => at[index] + 1,
            };
            if position >= positions {
                return Err(BodyError::Position { positions });
            }
            at.push(position);
        }
        Ok(())
    }
}
