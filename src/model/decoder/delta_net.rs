//! A gated DeltaNet: states that positions change one after the other.
//!
//! A position keeps what its change follows from: the row that is convolved, and decay and strength of each head. A batch extends *chains*,
//! positions of one path that follow one another. A chain begins with a copy of the state at the position before it, and what it ends with is
//! kept as the state at its last position (`states.rs`). Positions of a chain go through the rule in their order, whether they come in one
//! call or in many, so the bits are the same; chains and heads are independent of each other.

use std::ops::Range;

use super::{Batch, Decoder, Work, mixer::convolve, norm::normalize, project};
use crate::{
    checkpoint::{
        DeltaNetWeights, DeltaProjectionWeights, MixerWeights,
        architecture::{DeltaNet, Mixer},
    },
    kernels::Kernel,
    model::{Slot, cache::Cache},
    team::Team,
};

/// What is added to the sum of squares of a query or a key before its root divides it.
const EPS: f32 = 1e-6;

/// Positions of one path that follow one another in a batch.
#[derive(Debug)]
pub(super) struct Chain {
    /// Among the positions of the batch.
    pub(super) positions: Range<usize>,
    /// The position before them, of an earlier batch.
    pub(super) parent: Option<Slot>,
}

/// Positions that go through the rule of a layer in their order, and the layer's state before them.
struct Passage<'a> {
    positions: Range<usize>,
    state: &'a mut [f32],
}

impl Decoder {
    /// Leaves the states before the chains of a batch in `work.states`.
    pub(super) fn begin_chains(&mut self, batch: &Batch) {
        if self.states.floats() == 0 {
            return;
        }
        for chain in &batch.chains {
            if let Some(parent) = chain.parent.filter(|&parent| !self.states.has(parent)) {
                self.find_state_again(parent);
            }
            self.work.states.push(self.states.lend(chain.parent));
        }
    }

    /// Keeps what the chains of a batch have made of `work.states`.
    pub(super) fn end_chains(&mut self, batch: &Batch) {
        for (chain, state) in batch.chains.iter().zip(self.work.states.drain(..)) {
            self.states.keep(batch.slots[chain.positions.end - 1], state);
        }
    }

    /// Computes the state at `slot`, which is not there, from the nearest one before it.
    fn find_state_again(&mut self, slot: Slot) {
        let Self { checkpoint, kernel, team, cache, states, work, .. } = self;
        let (mut slots, mut before) = (vec![slot], cache.parent(slot));
        while let Some(at) = before.filter(|&at| !states.has(at)) {
            slots.push(at);
            before = cache.parent(at);
        }
        slots.reverse();
        let mut state = states.lend(before);
        let layers = checkpoint.config().architecture.layers.iter().zip(&checkpoint.weights().layers);
        for (index, (layer, weights)) in layers.enumerate() {
            if let (Mixer::DeltaNet(net), MixerWeights::DeltaNet(weights)) = (&layer.mixer, &weights.mixer) {
                let rule = Rule { kernel: *kernel, team, cache, index, net, weights };
                // In parts, as they were computed first: that bounds working memory.
                for slots in slots.chunks(super::BATCH) {
                    let state = states.of_layer(index, &mut state);
                    let passage = Passage { positions: 0..slots.len(), state };
                    rule.apply(slots, vec![passage], &mut work.joined, &mut work.heads);
                }
            }
        }
        states.keep(slot, state);
    }

    /// Leaves the states after a batch in `work.states`, what was read of them at each position in `work.heads`,
    /// `[chains, value heads, positions of the chain, value_dim]`, and the gates of that in `work.gate`.
    pub(super) fn advance_states(&mut self, index: usize, net: &DeltaNet, weights: &DeltaNetWeights, batch: &Batch) {
        let Self { kernel, team, cache, states, work, .. } = self;
        let Work { input, q, k, v, up, gate, joined, heads, .. } = work;
        let (mixed, count) = (net.mixed_size(), net.value_heads);
        match &weights.projections {
            DeltaProjectionWeights::Apart([qkv, z, b, a]) => {
                project(*kernel, team, input, [(qkv, joined), (z, gate), (b, k), (a, v)]);
            }
            DeltaProjectionWeights::ByKeyHead([qkvz, ba]) => {
                project(*kernel, team, input, [(qkvz, q), (ba, up)]);
                part_by_key_head(net, q, up, [joined, gate, k, v]);
            }
        }
        let kept = mixed + 2 * count;
        q.resize(batch.slots.len() * kept, 0.0);
        team.for_each_chunk(q, kept, |i, row| {
            row[..mixed].copy_from_slice(&joined[i * mixed..][..mixed]);
            let (decays, strengths) = row[mixed..].split_at_mut(count);
            let (b, a) = (&k[i * count..][..count], &v[i * count..][..count]);
            for head in 0..count {
                decays[head] = decay(weights.rates[head], a[head] + weights.dt_bias.values[head]);
                strengths[head] = sigmoid(b[head]);
            }
        });
        for (slot, row) in batch.slots.iter().zip(q.chunks_exact(kept)) {
            cache.keep(index, *slot, [row]);
        }
        let rule = Rule { kernel: *kernel, team, cache, index, net, weights };
        let passages = batch
            .chains
            .iter()
            .zip(&mut work.states)
            .map(|(chain, state)| Passage { positions: chain.positions.clone(), state: states.of_layer(index, state) });
        rule.apply(&batch.slots, passages.collect(), joined, heads);
    }

    /// Leaves the output of the positions `rows` in `work.attended`.
    pub(super) fn read_states(&mut self, net: &DeltaNet, weights: &DeltaNetWeights, batch: &Batch, rows: &[usize]) {
        let Self { kernel, team, work, .. } = self;
        let Work { input, gate, heads, attended, .. } = work;
        let (size, columns) = (net.value_size(), net.value_dim);
        input.fill(team, rows.len(), size, |i, out| {
            let row = rows[i];
            let chain = batch.chains.partition_point(|chain| chain.positions.end <= row);
            let Range { start, end } = batch.chains[chain].positions;
            for (head, out) in out.chunks_exact_mut(columns).enumerate() {
                let at = start * size + (head * (end - start) + row - start) * columns;
                normalize(*kernel, net.norm, &weights.norm, &heads[at..][..columns], out);
            }
            let mut gates = gate[row * size..][..size].to_vec();
            kernel.silu(&mut gates);
            kernel.multiply(out, &gates);
        });
        project(*kernel, team, input, [(&weights.out_proj, attended)]);
    }
}

/// The rule of one layer, on what positions keep.
struct Rule<'a> {
    kernel: Kernel,
    team: &'a Team,
    cache: &'a Cache,
    index: usize,
    net: &'a DeltaNet,
    weights: &'a DeltaNetWeights,
}

impl Rule<'_> {
    /// Takes states through the positions `slots`, and leaves what is read of them in `out`: for each passage
    /// `[value heads, positions, value_dim]`. Passages follow one another. `mixed` is for what is convolved.
    fn apply(&self, slots: &[Slot], passages: Vec<Passage<'_>>, mixed: &mut Vec<f32>, out: &mut Vec<f32>) {
        let Self { kernel, team, cache, index, net, weights } = *self;
        let (row, values) = (net.mixed_size(), net.value_size());
        mixed.resize(slots.len() * row, 0.0);
        team.for_each_chunk(mixed, row, |i, out| {
            convolve(kernel, cache, index, slots[i], &weights.convolution, out);
            kernel.silu(out);
            self.normalize(&mut out[..2 * net.key_size()]);
        });
        out.resize(slots.len() * values, 0.0);
        /// A head of a passage.
        struct Item<'a> {
            head: usize,
            positions: Range<usize>,
            state: &'a mut [f32],
            out: &'a mut [f32],
        }
        let (mut items, mut rest) = (Vec::with_capacity(passages.len() * net.value_heads), &mut out[..]);
        for Passage { positions, state } in passages {
            for (head, state) in state.chunks_exact_mut(net.key_dim * net.value_dim).enumerate() {
                let own;
                (own, rest) = rest.split_at_mut(positions.len() * net.value_dim);
                items.push(Item { head, positions: positions.clone(), state, out: own });
            }
        }
        team.for_each_chunk(&mut items, 1, |_, item| {
            let Item { head, positions, state, out } = &mut item[0];
            let (head, mut written) = (*head, vec![0.0; net.value_dim]);
            let key = head / (net.value_heads / net.key_heads) * net.key_dim;
            for (i, out) in positions.clone().zip(out.chunks_exact_mut(net.value_dim)) {
                let mixed = &mixed[i * row..][..row];
                let (q, k) = (&mixed[key..][..net.key_dim], &mixed[net.key_size() + key..][..net.key_dim]);
                let v = &mixed[2 * net.key_size() + head * net.value_dim..][..net.value_dim];
                let of_heads = &cache.row(index, slots[i])[row..];
                let (decay, strength) = (of_heads[head], of_heads[net.value_heads + head]);
                kernel.delta_rule(state, [q, k, v], [decay, strength], &mut written, out);
            }
        });
    }

    /// Brings queries and keys to length 1, and divides queries by the square root of their columns. As mlx-lm does it, by way of the root
    /// of the mean square.
    fn normalize(&self, queries_and_keys: &mut [f32]) {
        let Self { kernel, net, .. } = *self;
        let columns = net.key_dim;
        let root = 1.0 / (columns as f64).sqrt();
        let eps = (f64::from(EPS) * root * root) as f32;
        let before = queries_and_keys.to_vec();
        for (x, out) in before.chunks_exact(columns).zip(queries_and_keys.chunks_exact_mut(columns)) {
            kernel.rms_norm_plain(x, eps, out);
        }
        let (queries, keys) = queries_and_keys.split_at_mut(net.key_size());
        kernel.scale(queries, (root * root) as f32);
        kernel.scale(keys, root as f32);
    }
}

/// `exp(-rate * ln(1 + exp(x)))`, in f64 by the portable `libm` and rounded once.
fn decay(rate: f64, x: f32) -> f32 {
    let x = f64::from(x);
    let softplus = libm::log1p(libm::exp(-x.abs())) + x.max(0.0);
    libm::exp(-rate * softplus) as f32
}

/// `1 / (1 + exp(-x))`, in the same way.
fn sigmoid(x: f32) -> f32 {
    (1.0 / (1.0 + libm::exp(-f64::from(x)))) as f32
}

/// Parts the products of projections that are stored by key head into what is convolved, `z`, `b` and `a`.
fn part_by_key_head(net: &DeltaNet, qkvz: &[f32], ba: &[f32], [mixed, z, b, a]: [&mut Vec<f32>; 4]) {
    let together = net.value_heads / net.key_heads;
    let (key, values) = (net.key_dim, together * net.value_dim);
    let row = net.mixed_size() + net.value_size();
    for out in [&mut *mixed, &mut *z, &mut *b, &mut *a] {
        out.clear();
    }
    for row in qkvz.chunks_exact(row) {
        let heads = || row.chunks_exact(2 * (key + values));
        for (from, len) in [(0, key), (key, key), (2 * key, values)] {
            heads().for_each(|head| mixed.extend_from_slice(&head[from..][..len]));
        }
        heads().for_each(|head| z.extend_from_slice(&head[2 * key + values..]));
    }
    for head in ba.chunks_exact(2 * together) {
        b.extend_from_slice(&head[..together]);
        a.extend_from_slice(&head[together..]);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        checkpoint::family::QWEN3_5,
        model::{Body, Extension, Parent, Step},
        testing::oracles::trie::model,
    };

    /// A body that keeps so many states.
    fn body(most: usize) -> Decoder {
        let mut body = Decoder::new(model(&QWEN3_5, 4, false), Kernel::best(), Arc::new(Team::new(2)));
        body.states.limit(most);
        body
    }

    fn step(token: u32, parent: Parent) -> Step<'static> {
        Step { token, parent, hidden: true, embedding: None, row: None }
    }

    fn extend(body: &mut Decoder, steps: &[(u32, Parent)]) -> Extension {
        let steps: Vec<Step<'_>> = steps.iter().map(|&(token, parent)| step(token, parent)).collect();
        body.extend(&steps).expect("tokens of the vocabulary")
    }

    /// The bits of the hidden state at the end of a text that is read alone, in one call.
    fn alone(text: &[u32]) -> Vec<u32> {
        let parent = |i: usize| i.checked_sub(1).map_or(Parent::Start, Parent::Step);
        let steps: Vec<_> = text.iter().enumerate().map(|(i, &token)| (token, parent(i))).collect();
        let mut body = body(2);
        let hidden = extend(&mut body, &steps).hidden;
        bits(&hidden[hidden.len() - body.hidden_size()..])
    }

    fn bits(x: &[f32]) -> Vec<u32> {
        x.iter().map(|x| x.to_bits()).collect()
    }

    #[test]
    fn a_path_may_fork_wherever_its_states_are_no_longer_kept() {
        let text: Vec<u32> = (0..super::super::BATCH as u32 + 30).map(|i| i * i % 89).collect();
        // Near the end and near the beginning, after the end of a batch, and where it has forked already.
        let forks = [279, 270, 1, 255, 256, 0, 30, 30];
        let expected = forks.map(|at| alone(&[&text[..=at], &[95]].concat()));
        for most in [2, 5, 1000] {
            let mut body = body(most);
            let parent = |i: usize| i.checked_sub(1).map_or(Parent::Start, Parent::Step);
            let steps: Vec<_> = text.iter().enumerate().map(|(i, &token)| (token, parent(i))).collect();
            let slots = extend(&mut body, &steps).slots;
            for (at, expected) in forks.into_iter().zip(&expected) {
                let fork = extend(&mut body, &[(95, Parent::Slot(slots[at]))]);
                assert_eq!(bits(&fork.hidden), *expected, "{most} states, at {at}");
                body.release(fork.slots[0]);
                assert!(!body.states.has(fork.slots[0]));
            }
        }
    }

    #[test]
    fn paths_of_one_call_may_take_turns_and_fork_inside_of_each_other() {
        use Parent::{Start, Step};
        for most in [2, 4, 1000] {
            let found = extend(
                &mut body(most),
                &[
                    (1, Start),
                    (7, Start),
                    (2, Step(0)),
                    (8, Step(1)),
                    (3, Step(2)),
                    (4, Step(3)),
                    (5, Step(0)),
                    (6, Step(5)),
                ],
            );
            let texts: [&[u32]; 8] = [&[1], &[7], &[1, 2], &[7, 8], &[1, 2, 3], &[7, 8, 4], &[1, 5], &[7, 8, 4, 6]];
            for (text, hidden) in texts.into_iter().zip(found.hidden.chunks_exact(found.hidden.len() / 8)) {
                assert_eq!(bits(hidden), alone(text), "{most} states, {text:?}");
            }
        }
    }

    #[test]
    fn a_path_takes_the_states_of_two_positions() {
        let body = body(2);
        let Mixer::DeltaNet(net) = &body.checkpoint.config().architecture.layers.kinds()[0].mixer else {
            panic!("the first layer is a DeltaNet");
        };
        // Two of three layers are.
        assert_eq!(body.bytes_per_path(), 2 * 2 * net.value_heads * net.key_dim * net.value_dim * 4);
    }

    #[test]
    fn what_is_stored_by_key_head_is_parted_into_the_order_of_what_is_stored_apart() {
        let checkpoint = model(&QWEN3_5, 4, false);
        let Mixer::DeltaNet(net) = &checkpoint.config().architecture.layers.kinds()[0].mixer else {
            panic!("the first layer is a DeltaNet");
        };
        let net = DeltaNet { key_heads: 2, value_heads: 4, key_dim: 1, value_dim: 2, ..net.clone() };
        let row = [10., 20., 30., 31., 32., 33., 40., 41., 42., 43., 11., 21., 34., 35., 36., 37., 44., 45., 46., 47.];
        let mut parts: [Vec<f32>; 4] = Default::default();
        part_by_key_head(&net, &row, &[1., 2., 5., 6., 3., 4., 7., 8.], parts.each_mut());
        let [mixed, z, b, a] = parts;
        assert_eq!(mixed, [10., 11., 20., 21., 30., 31., 32., 33., 34., 35., 36., 37.]);
        assert_eq!(z, [40., 41., 42., 43., 44., 45., 46., 47.]);
        assert_eq!((b, a), (vec![1., 2., 3., 4.], vec![5., 6., 7., 8.]));
    }
}
