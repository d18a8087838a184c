//! What mixes positions in a layer, in two halves: what positions keep, and what becomes of that.

use super::{Batch, Decoder};
use crate::{
    checkpoint::{
        ConvolutionWeights, LayerWeights, MixerWeights,
        architecture::{Layer, Mixer},
    },
    kernels::Kernel,
    model::{Slot, cache::Cache},
};

impl Decoder {
    /// The first half, of all positions of a batch: from `work.input` to what later positions need.
    pub(super) fn take_in(&mut self, index: usize, layer: &Layer, weights: &LayerWeights, batch: &Batch) {
        match (&layer.mixer, &weights.mixer) {
            (Mixer::Attention(attention), MixerWeights::Attention(weights)) => {
                self.keys_and_values(index, attention, weights, batch);
            }
            (Mixer::ShortConvolution(_), MixerWeights::ShortConvolution(weights)) => {
                self.convolve_in(index, weights, batch);
            }
            (Mixer::DeltaNet(net), MixerWeights::DeltaNet(weights)) => self.advance_states(index, net, weights, batch),
            _ => unreachable!("weights follow the architecture"),
        }
    }

    /// The second half, of the positions `rows` of the batch: the branch's output in `work.attended`.
    pub(super) fn give_out(
        &mut self,
        index: usize,
        layer: &Layer,
        weights: &LayerWeights,
        batch: &Batch,
        rows: &[usize],
    ) {
        match (&layer.mixer, &weights.mixer) {
            (Mixer::Attention(attention), MixerWeights::Attention(weights)) => {
                self.attend(index, attention, weights, batch, rows);
            }
            (Mixer::ShortConvolution(_), MixerWeights::ShortConvolution(weights)) => {
                self.convolve_out(index, weights, batch, rows);
            }
            (Mixer::DeltaNet(net), MixerWeights::DeltaNet(weights)) => self.read_states(net, weights, batch, rows),
            _ => unreachable!("weights follow the architecture"),
        }
    }
}

/// The convolution of what `slot` and the positions before it keep for a layer, in the first columns of their rows. The own position comes
/// first, then those before it; before the first one there is nothing.
pub(super) fn convolve(
    kernel: Kernel,
    cache: &Cache,
    layer: usize,
    slot: Slot,
    weights: &ConvolutionWeights,
    out: &mut [f32],
) {
    out.fill(0.0);
    let mut at = Some(slot);
    for taps in weights.taps.rchunks_exact(out.len()) {
        let Some(slot) = at else { break };
        kernel.multiply_add(out, &cache.row(layer, slot)[..taps.len()], taps);
        at = cache.parent(slot);
    }
    if let Some(bias) = &weights.bias {
        kernel.add(out, &bias.values);
    }
}
