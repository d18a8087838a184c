//! Llama on the CPU: Llama 2 and 3.x, SmolLM2, TinyLlama, with grouped-query attention.
//!
//! Names are the checkpoint's (`q_proj`, `gate_proj`, ...). Activations are f32 throughout. For a batch of
//! `n` positions, which may belong to many sequences:
//!
//! ```text
//! x          [n, hidden]                    embed_tokens
//! each layer:
//!   q, k, v  [n, heads|kv_heads * head_dim] one pass over q_proj, k_proj, v_proj; q and k rotated
//!   o        [n, heads * head_dim]          attention over each position's own path, in order
//!   x       += o_proj(o)
//!   x       += down_proj(silu(gate_proj(h)) * up_proj(h)),  h = post_attention_layernorm(x)
//! hidden     [wanted, hidden]               norm
//! ```
//!
//! In the last layer only the wanted positions go beyond keys and values.

use std::sync::Arc;

use super::{Body, BodyError, Extension, Parent, Slot, Step, cache::Cache, rope::Rope};
use crate::{
    checkpoint::{Checkpoint, LayerWeights, Linear},
    kernels::{Activations, Kernel, Pass, Product, multiply, scalar},
    team::Team,
};

/// Positions that go through the layers together: bounds working memory on long prompts.
const BATCH: usize = 256;

/// The body of a Llama checkpoint on the CPU.
#[derive(Debug)]
pub struct Llama {
    checkpoint: Arc<Checkpoint>,
    kernel: Kernel,
    team: Arc<Team>,
    rope: Rope,
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

impl Llama {
    /// A body that has seen nothing yet. Weights stay where the checkpoint has them.
    pub fn new(checkpoint: Arc<Checkpoint>, kernel: Kernel, team: Arc<Team>) -> Self {
        let config = checkpoint.config();
        let work = Work {
            input: Activations::new(kernel, config.hidden_size),
            x: Vec::new(),
            q: Vec::new(),
            k: Vec::new(),
            v: Vec::new(),
            gate: Vec::new(),
            up: Vec::new(),
            out: Vec::new(),
        };
        Self {
            rope: Rope::new(config),
            cache: Cache::new(config.num_hidden_layers, config.key_value_size()),
            checkpoint,
            kernel,
            team,
            work,
        }
    }

    fn run(&mut self, steps: &[Step<'_>], batch: &Batch, hidden: &mut Vec<f32>) {
        let checkpoint = Arc::clone(&self.checkpoint);
        let (config, weights) = (checkpoint.config(), checkpoint.weights());
        self.work.x.resize(steps.len() * config.hidden_size, 0.0);
        let embedding = weights.embed_tokens.view();
        self.team.for_each_chunk(&mut self.work.x, config.hidden_size, |i, x| match steps[i].embedding {
            Some(own) => x.copy_from_slice(own),
            None => scalar::row(&embedding, 0, steps[i].token as usize, x),
        });
        let everyone: Vec<usize> = (0..steps.len()).collect();
        for (index, layer) in weights.layers.iter().enumerate() {
            let last = index + 1 == weights.layers.len();
            self.keys_and_values(layer, batch, index > 0);
            let rows = if last { &batch.wanted } else { &everyone };
            if last {
                // From here on only what was asked for.
                for (to, &from) in rows.iter().enumerate() {
                    let size = config.hidden_size;
                    self.work.x.copy_within(from * size..(from + 1) * size, to * size);
                    let size = config.query_size();
                    self.work.q.copy_within(from * size..(from + 1) * size, to * size);
                }
                self.work.x.truncate(rows.len() * config.hidden_size);
                self.work.q.truncate(rows.len() * config.query_size());
            }
            if rows.is_empty() {
                return;
            }
            self.attention(index, layer, batch, rows);
            self.mlp(layer, rows.len());
        }
        self.kernel.add(&mut self.work.x, &self.work.out);
        for x in self.work.x.chunks_exact(config.hidden_size) {
            let start = hidden.len();
            hidden.resize(start + config.hidden_size, 0.0);
            self.kernel.rms_norm(x, &weights.norm, config.rms_norm_eps as f32, &mut hidden[start..]);
        }
    }

    /// Leaves `work.x` in `work.input`, normalized; `add`: after the last block's output was added to it.
    fn normalize(&mut self, weight: &[f32], add: bool) {
        let Self { kernel, team, work, checkpoint, .. } = self;
        let config = checkpoint.config();
        let (size, eps) = (config.hidden_size, config.rms_norm_eps as f32);
        let Work { input, x, out: last, .. } = work;
        input.fill_from(team, x, size, |i, x, out| {
            if add {
                kernel.add(x, &last[i * size..][..size]);
            }
            kernel.rms_norm(x, weight, eps, out);
        });
    }

    /// Leaves queries in `work.q`, not yet rotated, and keys and values in the cache, as those of its next layer; `add`: as
    /// in [`Llama::normalize`].
    fn keys_and_values(&mut self, layer: &LayerWeights, batch: &Batch, add: bool) {
        self.normalize(&layer.input_layernorm, add);
        let Self { kernel, team, work, rope, cache, checkpoint } = self;
        let outputs = [(&layer.q_proj, &mut work.q), (&layer.k_proj, &mut work.k), (&layer.v_proj, &mut work.v)];
        project(*kernel, team, &work.input, outputs);
        let kv_dim = checkpoint.config().key_value_size();
        for (i, slot) in batch.slots.iter().enumerate() {
            let (cos, sin) = rope.at(cache.position(*slot));
            let row = i * kv_dim..(i + 1) * kv_dim;
            kernel.rope(cache.append(*slot, &work.k[row.clone()], &work.v[row]), cos, sin);
        }
    }

    /// Leaves the attention block's output of the positions `rows` of the batch in `work.out`.
    fn attention(&mut self, index: usize, layer: &LayerWeights, batch: &Batch, rows: &[usize]) {
        let Self { kernel, team, work, rope, cache, checkpoint } = self;
        let config = checkpoint.config();
        let (head_dim, kv_heads) = (config.head_dim, config.num_key_value_heads);
        // The query heads of one position that share a key head are one item, or all of a position are.
        let shared = config.num_attention_heads / kv_heads * head_dim;
        let part = if shared.is_multiple_of(scalar::LANES) { shared } else { config.query_size() };
        let scale = 1.0 / (head_dim as f32).sqrt();
        work.input.fill_parts(team, rows.len(), config.query_size(), part, |item, out| {
            let first = item * part / shared;
            let row = rows[first / kv_heads];
            let path = &batch.paths[batch.ranges[row].clone()];
            let (cos, sin) = rope.at(cache.position(batch.slots[row]));
            let mut queries = work.q[item * part..][..part].to_vec();
            kernel.rope(&mut queries, cos, sin);
            for ((head, q), out) in (first..).zip(queries.chunks_exact(shared)).zip(out.chunks_exact_mut(shared)) {
                let at = head % kv_heads * head_dim..(head % kv_heads + 1) * head_dim;
                let keys: Vec<&[f32]> = path.iter().map(|&slot| &cache.keys(slot, index)[at.clone()]).collect();
                let values: Vec<&[f32]> = path.iter().map(|&slot| &cache.values(slot, index)[at.clone()]).collect();
                kernel.attend(q, scale, &keys, &values, out);
            }
        });
        project(*kernel, team, &work.input, [(&layer.o_proj, &mut work.out)]);
    }

    /// Leaves the MLP's output in `work.out`.
    fn mlp(&mut self, layer: &LayerWeights, count: usize) {
        self.normalize(&layer.post_attention_layernorm, true);
        let Self { kernel, team, work, checkpoint, .. } = self;
        project(*kernel, team, &work.input, [(&layer.gate_proj, &mut work.gate), (&layer.up_proj, &mut work.up)]);
        let size = checkpoint.config().intermediate_size;
        work.input.fill(team, count, size, |i, out| {
            out.copy_from_slice(&work.gate[i * size..][..size]);
            kernel.swiglu(out, &work.up[i * size..][..size]);
        });
        project(*kernel, team, &work.input, [(&layer.down_proj, &mut work.out)]);
    }
}

/// The products of one input with several linear layers, in one pass.
fn project<const N: usize>(kernel: Kernel, team: &Team, input: &Activations, outputs: [(&Linear, &mut Vec<f32>); N]) {
    let mut biased = Vec::new();
    let mut passes: [Pass<'_>; N] = outputs.map(|(linear, out)| {
        let weights = linear.weights.view();
        out.resize(input.count() * weights.rows(), 0.0);
        biased.push(linear.bias.as_deref());
        Pass { weights, products: vec![Product { shift: 0, x: input, out }] }
    });
    multiply(kernel, team, &mut passes);
    for (pass, bias) in passes.iter_mut().zip(biased) {
        if let Some(bias) = bias {
            pass.products[0].out.chunks_exact_mut(bias.len()).for_each(|out| kernel.add(out, bias));
        }
    }
}

impl Body for Llama {
    fn hidden_size(&self) -> usize {
        self.checkpoint.config().hidden_size
    }

    fn bytes_per_position(&self) -> usize {
        self.cache.bytes_per_position()
    }

    fn extend(&mut self, steps: &[Step<'_>]) -> Result<Extension, BodyError> {
        let vocab_size = self.checkpoint.config().vocab_size;
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

    fn release(&mut self, slot: Slot) {
        self.cache.release(slot);
    }
}
