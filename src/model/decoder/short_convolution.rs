//! A short convolution: each position keeps what is convolved, and reads that of the last ones.

use super::{Batch, Decoder, Work, mixer::convolve, project};
use crate::checkpoint::ShortConvolutionWeights;

impl Decoder {
    /// Leaves what is convolved in the cache, and what multiplies the result in `work.joined`.
    pub(super) fn convolve_in(&mut self, index: usize, weights: &ShortConvolutionWeights, batch: &Batch) {
        let Self { kernel, team, work, cache, .. } = self;
        let Work { input, q, joined, .. } = work;
        project(*kernel, team, input, [(&weights.in_proj, &mut *joined)]);
        let size = joined.len() / (3 * batch.slots.len());
        q.resize(batch.slots.len() * size, 0.0);
        team.for_each_chunk(q, size, |i, out| {
            let [b, _, x] = thirds(joined, i, size);
            out.copy_from_slice(b);
            kernel.multiply(out, x);
        });
        for (slot, row) in batch.slots.iter().zip(q.chunks_exact(size)) {
            cache.keep(index, *slot, [row]);
        }
    }

    /// Leaves the output of the positions `rows` in `work.attended`.
    pub(super) fn convolve_out(
        &mut self,
        index: usize,
        weights: &ShortConvolutionWeights,
        batch: &Batch,
        rows: &[usize],
    ) {
        let Self { kernel, team, work, cache, .. } = self;
        let Work { input, joined, attended, .. } = work;
        let size = joined.len() / (3 * batch.slots.len());
        input.fill(team, rows.len(), size, |i, out| {
            convolve(*kernel, cache, index, batch.slots[rows[i]], &weights.convolution, out);
            let [_, c, _] = thirds(joined, rows[i], size);
            kernel.multiply(out, c);
        });
        project(*kernel, team, input, [(&weights.out_proj, attended)]);
    }
}

/// What the projection gives at the `i`th position.
fn thirds(joined: &[f32], i: usize, size: usize) -> [&[f32]; 3] {
    [0, 1, 2].map(|part| &joined[(3 * i + part) * size..][..size])
}
