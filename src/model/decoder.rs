//! The decoder on the CPU: it interprets an [`Architecture`](crate::checkpoint::Architecture), layer by layer, and knows no family.
//!
//! Activations are f32 throughout. For a batch of `n` positions, which may belong to many sequences:
//!
//! ```text
//! x          [n, hidden]                    embed_tokens
//! each layer:
//!   q, k, v  [n, heads|kv_heads * head_dim] one pass over q_proj, k_proj, v_proj of attention_norm(x); q and k rotated
//!   o        [n, heads * head_dim]          attention over each position's own path, in order
//!   x       += o_proj(o)
//!   x       += down_proj(activation(gate_proj(h)) * up_proj(h)),  h = mlp_norm(x)
//! hidden     [wanted, hidden]               norm
//! ```
//!
//! In the last layer only the wanted positions go beyond keys and values. What a layer does not have, such as a bias, is
//! skipped.

use std::sync::Arc;

use super::{Body, BodyError, Extension, Parent, Slot, Step, cache::Cache, rope::RopeTables};
use crate::{
    checkpoint::{
        AttentionWeights, Checkpoint, Linear, MlpWeights, Vector,
        architecture::{Activation, Attention, Mlp, Norm},
    },
    kernels::{Activations, Kernel, Pass, Product, multiply, scalar},
    team::Team,
};

/// Positions that go through the layers together: bounds working memory on long prompts.
const BATCH: usize = 256;

/// The body of a checkpoint on the CPU.
#[derive(Debug)]
pub struct Decoder {
    checkpoint: Arc<Checkpoint>,
    kernel: Kernel,
    team: Arc<Team>,
    rope: RopeTables,
    cache: Cache,
    work: Work,
}

/// Buffers that are used again in each call.
#[derive(Debug)]
struct Work {
    input: Activations,
    /// What the layers add to, without the last block's output.
    x: Vec<f32>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    /// The last block's output, which is not yet in `x`.
    out: Vec<f32>,
}

/// The positions of one batch.
struct Batch {
    slots: Vec<Slot>,
    /// Positions in order, for all of them; each position's path is a range.
    paths: Vec<Slot>,
    ranges: Vec<std::ops::Range<usize>>,
    wanted: Vec<usize>,
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
            out: Vec::new(),
        };
        Self {
            rope: RopeTables::new(architecture),
            cache: Cache::new(architecture.layers.iter().map(|layer| layer.attention.key_value_size())),
            checkpoint,
            kernel,
            team,
            work,
        }
    }

    fn run(&mut self, steps: &[Step<'_>], batch: &Batch, hidden: &mut Vec<f32>) {
        let checkpoint = Arc::clone(&self.checkpoint);
        let (architecture, weights) = (&checkpoint.config().architecture, checkpoint.weights());
        let size = architecture.hidden_size;
        self.work.x.resize(steps.len() * size, 0.0);
        let embedding = weights.embed_tokens.view();
        self.team.for_each_chunk(&mut self.work.x, size, |i, x| match steps[i].embedding {
            Some(own) => x.copy_from_slice(own),
            None => scalar::row(&embedding, 0, steps[i].token as usize, x),
        });
        let everyone: Vec<usize> = (0..steps.len()).collect();
        for (index, (layer, weights)) in architecture.layers.iter().zip(&weights.layers).enumerate() {
            let last = index + 1 == architecture.layers.len();
            self.normalize(layer.attention_norm, &weights.attention_norm, index > 0);
            self.keys_and_values(index, &layer.attention, &weights.attention, batch);
            let rows = if last { &batch.wanted } else { &everyone };
            if last {
                // From here on only what was asked for.
                let query_size = layer.attention.query_size();
                for (to, &from) in rows.iter().enumerate() {
                    self.work.x.copy_within(from * size..(from + 1) * size, to * size);
                    self.work.q.copy_within(from * query_size..(from + 1) * query_size, to * query_size);
                }
                self.work.x.truncate(rows.len() * size);
                self.work.q.truncate(rows.len() * query_size);
            }
            if rows.is_empty() {
                return;
            }
            self.attend(index, &layer.attention, &weights.attention, batch, rows);
            self.normalize(layer.mlp_norm, &weights.mlp_norm, true);
            self.mlp(&layer.mlp, &weights.mlp, rows.len());
        }
        self.kernel.add(&mut self.work.x, &self.work.out);
        for x in self.work.x.chunks_exact(size) {
            let start = hidden.len();
            hidden.resize(start + size, 0.0);
            normalize(self.kernel, architecture.norm, &weights.norm, x, &mut hidden[start..]);
        }
    }

    /// Leaves `work.x` in `work.input`, normalized; `add`: after the last block's output was added to it.
    fn normalize(&mut self, norm: Norm, weight: &Vector, add: bool) {
        let size = self.hidden_size();
        let Self { kernel, team, work, .. } = self;
        let Work { input, x, out: last, .. } = work;
        input.fill_from(team, x, size, |i, x, out| {
            if add {
                kernel.add(x, &last[i * size..][..size]);
            }
            normalize(*kernel, norm, weight, x, out);
        });
    }

    /// Leaves queries of `work.input` in `work.q`, not yet rotated, and keys and values in the cache, as those of layer `index`.
    fn keys_and_values(&mut self, index: usize, attention: &Attention, weights: &AttentionWeights, batch: &Batch) {
        let Self { kernel, team, work, rope, cache, .. } = self;
        let outputs = [(&weights.q_proj, &mut work.q), (&weights.k_proj, &mut work.k), (&weights.v_proj, &mut work.v)];
        project(*kernel, team, &work.input, outputs);
        let size = attention.key_value_size();
        for (i, slot) in batch.slots.iter().enumerate() {
            let (cos, sin) = rope.at(index, cache.position(*slot));
            let row = i * size..(i + 1) * size;
            kernel.rope(cache.append(*slot, &work.k[row.clone()], &work.v[row]), cos, sin);
        }
    }

    /// Leaves the attention block's output of the positions `rows` of the batch in `work.out`.
    fn attend(
        &mut self,
        index: usize,
        attention: &Attention,
        weights: &AttentionWeights,
        batch: &Batch,
        rows: &[usize],
    ) {
        let Self { kernel, team, work, rope, cache, .. } = self;
        let Attention { heads, kv_heads, head_dim, .. } = *attention;
        // The query heads of one position that share a key head are one item, or all of a position are.
        let shared = heads / kv_heads * head_dim;
        let part = if shared.is_multiple_of(scalar::LANES) { shared } else { attention.query_size() };
        let scale = 1.0 / (head_dim as f32).sqrt();
        let (keys_at, values_at) = cache.offsets(index);
        work.input.fill_parts(team, rows.len(), attention.query_size(), part, |item, out| {
            let first = item * part / shared;
            let row = rows[first / kv_heads];
            let path = &batch.paths[batch.ranges[row].clone()];
            let (cos, sin) = rope.at(index, cache.position(batch.slots[row]));
            let mut queries = work.q[item * part..][..part].to_vec();
            kernel.rope(&mut queries, cos, sin);
            for ((head, q), out) in (first..).zip(queries.chunks_exact(shared)).zip(out.chunks_exact_mut(shared)) {
                let head_at = head % kv_heads * head_dim;
                let gather = |at: usize| -> Vec<&[f32]> {
                    path.iter().map(|&slot| cache.floats(slot, at + head_at, head_dim)).collect()
                };
                kernel.attend(q, scale, &gather(keys_at), &gather(values_at), out);
            }
        });
        project(*kernel, team, &work.input, [(&weights.o_proj, &mut work.out)]);
    }

    /// Leaves the MLP's output in `work.out`, of `count` positions in `work.input`.
    fn mlp(&mut self, mlp: &Mlp, weights: &MlpWeights, count: usize) {
        let Self { kernel, team, work, .. } = self;
        project(*kernel, team, &work.input, [(&weights.gate_proj, &mut work.gate), (&weights.up_proj, &mut work.up)]);
        let size = mlp.intermediate_size;
        work.input.fill(team, count, size, |i, out| {
            out.copy_from_slice(&work.gate[i * size..][..size]);
            let up = &work.up[i * size..][..size];
            match mlp.activation {
                Activation::Silu => kernel.swiglu(out, up),
            }
        });
        project(*kernel, team, &work.input, [(&weights.down_proj, &mut work.out)]);
    }
}

/// One vector, normalized.
fn normalize(kernel: Kernel, norm: Norm, weight: &Vector, x: &[f32], out: &mut [f32]) {
    match norm {
        Norm::Rms { eps } => kernel.rms_norm(x, &weight.values, eps, out),
    }
}

/// The products of one input with several linear layers, in one pass.
fn project<const N: usize>(kernel: Kernel, team: &Team, input: &Activations, outputs: [(&Linear, &mut Vec<f32>); N]) {
    let mut biased = Vec::new();
    let mut passes: [Pass<'_>; N] = outputs.map(|(linear, out)| {
        let weights = linear.weights.view();
        out.resize(input.count() * weights.rows(), 0.0);
        biased.push(linear.bias.as_ref());
        Pass { weights, products: vec![Product { shift: 0, x: input, out }] }
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

    fn extend(&mut self, steps: &[Step<'_>]) -> Result<Extension, BodyError> {
        let vocab_size = self.checkpoint.config().architecture.vocab_size;
        if let Some(step) = steps.iter().find(|step| step.token as usize >= vocab_size) {
            return Err(BodyError::Token { token: step.token, vocab_size });
        }
        let mut slots: Vec<Slot> = Vec::with_capacity(steps.len());
        let mut hidden = Vec::new();
        for part in steps.chunks(BATCH) {
            let mut batch = Batch { slots: Vec::new(), paths: Vec::new(), ranges: Vec::new(), wanted: Vec::new() };
            let first = slots.len();
            for (i, step) in part.iter().enumerate() {
                let parent = match step.parent {
                    Parent::Start => None,
                    Parent::Slot(slot) => Some(slot),
                    Parent::Step(index) => Some(slots[index]),
                };
                let slot = self.cache.open(parent);
                let before = match step.parent {
                    Parent::Step(index) if index >= first => Some(batch.ranges[index - first].clone()),
                    _ => None,
                };
                // A position that continues the path written last shares it.
                let start = match before {
                    Some(range) if range.end == batch.paths.len() => {
                        batch.paths.push(slot);
                        range.start
                    }
                    _ => {
                        let start = batch.paths.len();
                        self.cache.path(slot, &mut batch.paths);
                        start
                    }
                };
                batch.ranges.push(start..batch.paths.len());
                batch.slots.push(slot);
                slots.push(slot);
                if step.hidden {
                    batch.wanted.push(i);
                }
                self.rope.reach(self.cache.position(slot) + 1);
            }
            self.run(part, &batch, &mut hidden);
        }
        Ok(Extension { slots, hidden })
    }

    fn cuts_freely(&self) -> bool {
        true
    }

    fn release(&mut self, slot: Slot) {
        self.cache.release(slot);
    }
}
