//! The attention of a layer.

use super::{Batch, Decoder, Path, Work, norm::normalize_heads, project};
use crate::{
    checkpoint::{
        AttentionWeights, Qkv,
        architecture::{Attention, KeyValues, Pairing, Projections},
    },
    kernels::{Asking, Kernel, Scores},
    model::rope::{Turn, grown},
};

impl Decoder {
    /// Leaves queries of `work.input` in `work.q`, rotated only where their norm comes after that, and keys and values in the cache, as
    /// those of layer `index`.
    pub(super) fn keys_and_values(
        &mut self,
        index: usize,
        attention: &Attention,
        weights: &AttentionWeights,
        batch: &Batch,
    ) {
        let Self { kernel, team, work, rope, cache, .. } = self;
        let Work { input, q, k, v, gate, joined, .. } = work;
        match &weights.qkv {
            Qkv::Apart([q_proj, k_proj, v_proj]) if attention.gated => {
                project(*kernel, team, input, [(q_proj, joined), (k_proj, k), (v_proj, v)]);
                part_gates(attention.head_dim, joined, [q, gate]);
                team.for_each_chunk(gate, attention.query_size(), |_, gates| kernel.sigmoid(gates));
            }
            Qkv::Apart([q_proj, k_proj, v_proj]) => {
                project(*kernel, team, input, [(q_proj, q), (k_proj, k), (v_proj, v)]);
            }
            Qkv::QueryAndKey([q_proj, k_proj]) => {
                project(*kernel, team, input, [(q_proj, q), (k_proj, k)]);
                v.clear();
                v.extend_from_slice(k);
            }
            Qkv::Query(q_proj) => project(*kernel, team, input, [(q_proj, q)]),
            Qkv::Joined(all) => {
                project(*kernel, team, input, [(all, joined)]);
                part(attention, joined, [q, k, v]);
            }
        }
        if let Some(rule) = attention.qk_norm {
            let norms =
                [(&weights.q_norm, &mut *q, attention.query_size()), (&weights.k_norm, k, attention.key_value_size())];
            for (weights, x, size) in norms {
                // A layer without keys of its own has no norm of them.
                let Some(weights) = weights else { continue };
                team.for_each_chunk(x, size, |i, x| {
                    if rule.after_rope {
                        let slot = batch.slots[i];
                        turn(*kernel, attention, rope.at(index, cache.position(slot), cache.known(slot)), x);
                    }
                    normalize_heads(*kernel, rule, weights, attention.head_dim, x);
                });
            }
        }
        if let KeyValues::OfLayer(_) = attention.key_values {
            return;
        }
        let size = attention.key_value_size();
        if let Some(norm) = attention.value_norm {
            team.for_each_chunk(v, attention.head_dim, |_, head| {
                let before = head.to_vec();
                kernel.rms_norm_plain(&before, norm.eps, head);
            });
        }
        if !turned_already(attention) {
            team.for_each_chunk(k, size, |i, keys| {
                let slot = batch.slots[i];
                turn(*kernel, attention, rope.at(index, cache.position(slot), cache.known(slot)), keys);
            });
        }
        for (slot, (keys, values)) in batch.slots.iter().zip(k.chunks_exact(size).zip(v.chunks_exact(size))) {
            cache.keep(index, *slot, [keys, values]);
        }
    }

    /// Leaves the attention's output of the positions `rows` of the batch in `work.attended`.
    pub(super) fn attend(
        &mut self,
        index: usize,
        attention: &Attention,
        weights: &AttentionWeights,
        batch: &Batch,
        rows: &[usize],
    ) {
        let Self { kernel, team, work, rope, cache, .. } = self;
        let Attention { heads, kv_heads, head_dim, .. } = *attention;
        let (size, together) = (attention.query_size(), heads / kv_heads);
        let shared = together * head_dim;
        let sinks = weights.sinks.as_ref().map(|sinks| sinks.values.as_slice());
        let source = match attention.key_values {
            KeyValues::OfLayer(layer) => layer,
            KeyValues::Own | KeyValues::FromKeys => index,
        };
        // An item is a key head and some positions, whose outputs lie together.
        let tile = batch.tile(rows);
        let tiles = rows.len().div_ceil(tile);
        work.heads.resize(kv_heads * tiles * tile * shared, 0.0);
        let q = &work.q;
        team.for_each_chunk(&mut work.heads, tile * shared, |item, out| {
            let (key_head, first) = (item / tiles, item % tiles * tile);
            let rows = &rows[first..rows.len().min(first + tile)];
            let mut queries = Vec::with_capacity(rows.len() * shared);
            for &row in rows {
                let (position, known) = (cache.position(batch.slots[row]), cache.known(batch.slots[row]));
                let start = queries.len();
                queries.extend_from_slice(&q[row * size + key_head * shared..][..shared]);
                let own = &mut queries[start..];
                if !turned_already(attention) {
                    turn(*kernel, attention, rope.at(index, position, known), own);
                }
                if let Some(factor) = attention.query_growth.and_then(|growth| grown(growth, position)) {
                    kernel.scale(own, factor);
                }
            }
            let scores = Scores {
                scale: attention.scale,
                softcap: attention.softcap,
                sinks: sinks.map(|sinks| &sinks[key_head * together..][..together]),
            };
            let mut asking = rows.iter().zip(queries.chunks_exact(shared)).zip(out.chunks_exact_mut(shared)).map(
                |((&row, q), out)| {
                    let end = batch.paths[row].positions;
                    Asking { q, over: attention.window.map_or(0, |window| end.saturating_sub(window))..end, out }
                },
            );
            // Those whose path begins as that of the last one read it together.
            for part in rows.chunk_by(|&one, &next| batch.paths[one].runs.start == batch.paths[next].runs.start) {
                let longest = part.iter().map(|&row| &batch.paths[row]).max_by_key(|path| path.positions);
                let Path { runs, positions } = longest.expect("a part has a position");
                let [keys, values] = cache.stretches(source, key_head, &batch.runs[runs.clone()], *positions);
                let mut asking: Vec<Asking<'_>> = asking.by_ref().take(part.len()).collect();
                kernel.attend(&mut asking, head_dim, &scores, &keys, &values);
            }
        });
        let (heads, gates) = (&work.heads, &work.gate);
        work.input.fill(team, rows.len(), size, |i, out| {
            for (key_head, out) in out.chunks_exact_mut(shared).enumerate() {
                out.copy_from_slice(&heads[(key_head * tiles * tile + i) * shared..][..shared]);
            }
            if attention.gated {
                kernel.multiply(out, &gates[rows[i] * size..][..size]);
            }
        });
        project(*kernel, team, &work.input, [(&weights.o_proj, &mut work.attended)]);
    }
}

/// Whether queries and keys are rotated before their norm, and so before anything else.
fn turned_already(attention: &Attention) -> bool {
    attention.qk_norm.is_some_and(|rule| rule.after_rope)
}

fn turn(kernel: Kernel, attention: &Attention, turn: Option<Turn<'_>>, heads: &mut [f32]) {
    let Some(Turn { pairing, cos, sin }) = turn else { return };
    match pairing {
        Pairing::Halves => kernel.rope(heads, attention.head_dim, cos, sin),
        Pairing::Neighbours => kernel.rope_neighbours(heads, attention.head_dim, cos, sin),
    }
}

/// Parts the products of a projection to queries and gates, which take turns head by head.
fn part_gates(head_dim: usize, joined: &[f32], parts: [&mut Vec<f32>; 2]) {
    for (which, out) in parts.into_iter().enumerate() {
        out.clear();
        out.reserve(joined.len() / 2);
        joined.chunks_exact(head_dim).skip(which).step_by(2).for_each(|columns| out.extend_from_slice(columns));
    }
}

/// Parts the products of projections that are one matrix into queries, keys and values.
fn part(attention: &Attention, joined: &[f32], [q, k, v]: [&mut Vec<f32>; 3]) {
    let (query, key_value) = (attention.query_size(), attention.key_value_size());
    let all = query + 2 * key_value;
    let count = joined.len() / all;
    for (out, size) in [(&mut *q, query), (&mut *k, key_value), (&mut *v, key_value)] {
        out.clear();
        out.reserve(count * size);
    }
    // Columns that belong together, for queries and then for keys and for values.
    let (many, one) = match attention.projections {
        Projections::Apart | Projections::Joined => (query, key_value),
        Projections::ByKeyHead => (query / attention.kv_heads, attention.head_dim),
    };
    for block in joined.chunks_exact(many + 2 * one) {
        q.extend_from_slice(&block[..many]);
        k.extend_from_slice(&block[many..many + one]);
        v.extend_from_slice(&block[many + one..]);
    }
}
