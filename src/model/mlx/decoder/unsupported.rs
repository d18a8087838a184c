//! What a model computes and this decoder does not, by name, so that it is refused before weights are loaded.

use crate::checkpoint::{
    Architecture,
    architecture::{Layer, Mixer},
};

/// The first such thing.
pub(in super::super) fn unsupported(architecture: &Architecture) -> Option<&'static str> {
    architecture.layers.kinds().iter().find_map(of_layer)
}

fn of_layer(layer: &Layer) -> Option<&'static str> {
    let attention = match &layer.mixer {
        Mixer::Attention(attention) => attention,
        Mixer::ShortConvolution(_) | Mixer::DeltaNet(_) => return Some("layers with a state of their own"),
    };
    if attention.sinks && attention.softcap.is_some() {
        // MLX's attention takes sinks and knows no bound, and no family has both.
        return Some("attention sinks beside a bound of attention's scores");
    }
    None
}
