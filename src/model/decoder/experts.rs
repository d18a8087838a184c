//! A mixture of experts in the place of an MLP.
//!
//! ```text
//! products  [n, experts]             router(x)
//! chosen    [n, chosen]              by products of each position alone
//! vectors   [n * chosen, hidden]     copies of x, those of one expert one after the other
//! inside    [n * chosen, inner]      activation(gate_proj(vectors)) * up_proj(vectors), each by its own expert
//! outputs   [n * chosen, hidden]     down_proj(inside)
//! out       [n, hidden]              sum of weight * output, from the first chosen to the last, and what is shared
//! ```
//!
//! So the weights of each expert are read once for a batch, in one parallel loop over all that some position has. Each row of this depends on
//! its position alone: which others are in the batch decides where it lies, not what it is.

use std::ops::Range;

use super::{
    Decoder, Work,
    mlp::inside,
    norm::normalize,
    project,
    router::{self, Choice},
};
use crate::{
    checkpoint::{ExpertLinear, ExpertsWeights, architecture::Experts},
    kernels::{Activations, Kernel, Pass, Product, multiply},
    model::Body as _,
    team::Team,
};

/// What goes through experts.
#[derive(Debug)]
pub(super) struct Gathered {
    /// Input of the router or of experts, where they have one of their own.
    own: Activations,
    /// Products of the router, `[positions, experts]`.
    products: Vec<f32>,
    /// `[positions, chosen]`.
    chosen: Vec<Choice>,
    /// Copies of positions' vectors, those of one expert one after the other.
    vectors: Activations,
    gate: Vec<f32>,
    up: Vec<f32>,
    outputs: Vec<f32>,
    /// Products with the gate of what is shared, `[positions]`.
    shared_gate: Vec<f32>,
}

impl Gathered {
    pub(super) fn new(kernel: Kernel) -> Self {
        Self {
            own: Activations::new(kernel, 0),
            products: Vec::new(),
            chosen: Vec::new(),
            vectors: Activations::new(kernel, 0),
            gate: Vec::new(),
            up: Vec::new(),
            outputs: Vec::new(),
            shared_gate: Vec::new(),
        }
    }
}

/// Which vectors are an expert's.
struct Part {
    expert: usize,
    vectors: Range<usize>,
}

impl Decoder {
    /// Leaves the output of experts in `work.out`, of `count` positions in `work.input`.
    pub(super) fn experts(&mut self, experts: &Experts, weights: &ExpertsWeights, count: usize) {
        let hidden = self.hidden_size();
        let norms = experts.norms.zip(weights.norms.as_ref());
        let Self { kernel, team, work, .. } = self;
        let Work { input, x, gathered, .. } = work;
        let Gathered { own, products, chosen, vectors, shared_gate, .. } = gathered;
        let router_input = match norms {
            Some((norms, weights)) => {
                own.fill(team, count, hidden, |i, out| {
                    normalize(*kernel, norms.router, &weights.router, &x[i * hidden..][..hidden], out);
                });
                &*own
            }
            None => &*input,
        };
        project(*kernel, team, router_input, [(&weights.router, products)]);
        let each = experts.router.chosen;
        chosen.resize(count * each, Choice::default());
        let mut items: Vec<_> = products.chunks_exact_mut(experts.count).zip(chosen.chunks_exact_mut(each)).collect();
        team.for_each_chunk(&mut items, 1, |_, item| {
            let (products, chosen) = &mut item[0];
            router::choose(*kernel, &experts.router, weights, products, chosen);
        });
        let (order, parts) = by_expert(chosen);
        let positions: Vec<usize> = order.iter().map(|&choice| choice / each).collect();
        if let Some((norms, weights)) = norms {
            own.fill(team, count, hidden, |i, out| {
                normalize(*kernel, norms.input, &weights.input, &x[i * hidden..][..hidden], out);
            });
            vectors.gather(team, own, &positions);
        } else {
            vectors.gather(team, input, &positions);
        }
        if let Some(shared) = &weights.shared {
            if let Some(gate) = &shared.gate {
                project(*kernel, team, input, [(gate, &mut *shared_gate)]);
                kernel.sigmoid(shared_gate);
            }
            if let Some(rule) = &experts.shared {
                self.mlp(&rule.mlp, &shared.mlp, count);
            }
        }
        self.through_experts(experts, weights, &parts);
        self.add_up(experts, weights, &order, count);
    }

    /// Takes `gathered.vectors` through the experts whose parts they are, and leaves what comes out in `gathered.outputs`.
    fn through_experts(&mut self, experts: &Experts, weights: &ExpertsWeights, parts: &[Part]) {
        let Self { kernel, team, work, .. } = self;
        let Gathered { vectors, gate, up, outputs, .. } = &mut work.gathered;
        let (count, all) = (experts.count, vectors.count());
        let size = experts.expert.intermediate_size;
        let ExpertsWeights { gate_proj, up_proj, down_proj, .. } = weights;
        project_parts(*kernel, team, vectors, parts, count, [(gate_proj, &mut *gate), (up_proj, &mut *up)]);
        vectors.fill(team, all, size, |i, out| {
            out.copy_from_slice(&gate[i * size..][..size]);
            inside(*kernel, &experts.expert, None, out, Some(&up[i * size..][..size]));
        });
        project_parts(*kernel, team, vectors, parts, count, [(down_proj, outputs)]);
    }

    /// Adds up what came out of experts, and what is in `work.out` already where positions have something in common.
    fn add_up(&mut self, experts: &Experts, weights: &ExpertsWeights, order: &[usize], count: usize) {
        let hidden = self.hidden_size();
        let Self { kernel, team, work, .. } = self;
        let Work { gathered: Gathered { chosen, outputs, shared_gate, .. }, out, .. } = work;
        let each = experts.router.chosen;
        // Where the output of each choice lies.
        let mut place = vec![0; order.len()];
        order.iter().enumerate().for_each(|(at, &choice)| place[choice] = at);
        out.resize(count * hidden, 0.0);
        let norms = experts.norms.zip(weights.norms.as_ref());
        let gated = experts.shared.as_ref().is_some_and(|shared| shared.gate);
        team.for_each_chunk(out, hidden, |i, out| {
            let mut sum = vec![0.0; hidden];
            let mut own = vec![0.0; hidden];
            for choice in i * each..(i + 1) * each {
                let output = &outputs[place[choice] * hidden..][..hidden];
                let weighted = if choice == i * each { &mut sum } else { &mut own };
                weighted.copy_from_slice(output);
                kernel.scale(weighted, chosen[choice].weight);
                if choice != i * each {
                    kernel.add(&mut sum, &own);
                }
            }
            if let Some((norms, weights)) = norms {
                own.copy_from_slice(&sum);
                normalize(*kernel, norms.output, &weights.output, &own, &mut sum);
            }
            if experts.shared.is_some() {
                if gated {
                    kernel.scale(out, shared_gate[i]);
                }
                if let Some((norms, weights)) = norms {
                    own.copy_from_slice(out);
                    normalize(*kernel, norms.shared_output, &weights.shared_output, &own, out);
                }
                kernel.add(&mut sum, out);
            }
            out.copy_from_slice(&sum);
        });
    }
}

/// All choices in the order of their experts, and within an expert as they were, by their number; and the part of each expert that
/// is chosen at all.
fn by_expert(chosen: &[Choice]) -> (Vec<usize>, Vec<Part>) {
    let mut order: Vec<usize> = (0..chosen.len()).collect();
    order.sort_by_key(|&choice| chosen[choice].expert);
    let mut parts = Vec::new();
    let mut start = 0;
    for part in order.chunk_by(|&a, &b| chosen[a].expert == chosen[b].expert) {
        parts.push(Part { expert: chosen[part[0]].expert, vectors: start..start + part.len() });
        start += part.len();
    }
    (order, parts)
}

/// The products of each part of `vectors` with the matrix of its expert, of which there are `count`, in one pass.
fn project_parts<const N: usize>(
    kernel: Kernel,
    team: &Team,
    vectors: &Activations,
    parts: &[Part],
    count: usize,
    outputs: [(&ExpertLinear, &mut Vec<f32>); N],
) {
    let mut passes: Vec<Pass<'_>> = Vec::with_capacity(N * parts.len());
    let mut biases: Vec<Option<&[f32]>> = Vec::with_capacity(N * parts.len());
    for (linear, out) in outputs {
        let rows = linear.of(0, count).0.rows();
        out.resize(vectors.count() * rows, 0.0);
        let mut out = out.as_mut_slice();
        for Part { expert, vectors: own } in parts {
            let (first, rest) = out.split_at_mut(own.len() * rows);
            out = rest;
            let (weights, bias) = linear.of(*expert, count);
            biases.push(bias);
            let product = Product { shift: 0, x: vectors.part(own.clone()), out: first };
            passes.push(Pass { weights, products: vec![product] });
        }
    }
    multiply(kernel, team, &mut passes);
    for (pass, bias) in passes.iter_mut().zip(biases) {
        if let Some(bias) = bias {
            pass.products[0].out.chunks_exact_mut(bias.len()).for_each(|out| kernel.add(out, bias));
        }
    }
}
