//! Rotary position embedding: the angles of each position.

use crate::checkpoint::{
    Architecture,
    architecture::{Attention, Rope, RopeScaling},
};

/// Cosines and sines by layer and position, computed when a position is first needed.
///
/// Angles are taken in f64 and their cosine and sine rounded to f32 once, by `libm`'s portable
/// functions, so that they are the same on every machine. (MLX takes the angles in f32; at a position of
/// some hundred the two differ by 1e-5 rad.)
#[derive(Debug)]
pub(super) struct RopeTables {
    tables: Vec<Table>,
    /// Which of them each layer has.
    of_layer: Vec<usize>,
}

/// What layers of one rotary embedding share.
#[derive(Debug)]
struct Table {
    rope: Rope,
    head_dim: usize,
    /// Radians a position, one for each pair of columns.
    frequencies: Vec<f64>,
    /// `[positions, head_dim / 2]`.
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl RopeTables {
    pub(super) fn new(architecture: &Architecture) -> Self {
        let mut tables: Vec<Table> = Vec::new();
        let of_layer = architecture.layers.iter().map(|layer| {
            let Attention { rope, head_dim, .. } = layer.attention;
            let known = tables.iter().position(|table| (table.rope, table.head_dim) == (rope, head_dim));
            known.unwrap_or_else(|| {
                let frequencies = frequencies(rope, head_dim).collect();
                tables.push(Table { rope, head_dim, frequencies, cos: Vec::new(), sin: Vec::new() });
                tables.len() - 1
            })
        });
        let of_layer = of_layer.collect();
        Self { tables, of_layer }
    }

    /// Makes positions below `count` available.
    pub(super) fn reach(&mut self, count: usize) {
        for Table { frequencies, cos, sin, .. } in &mut self.tables {
            for position in cos.len() / frequencies.len()..count {
                for frequency in &*frequencies {
                    let angle = position as f64 * frequency;
                    cos.push(libm::cos(angle) as f32);
                    sin.push(libm::sin(angle) as f32);
                }
            }
        }
    }

    /// Cosines and sines of `layer` at `position`, which [`RopeTables::reach`] has made available.
    pub(super) fn at(&self, layer: usize, position: usize) -> (&[f32], &[f32]) {
        let Table { frequencies, cos, sin, .. } = &self.tables[self.of_layer[layer]];
        let half = frequencies.len();
        (&cos[position * half..][..half], &sin[position * half..][..half])
    }
}

/// Radians a position, one for each pair of the columns of a head.
pub(super) fn frequencies(rope: Rope, head_dim: usize) -> impl Iterator<Item = f64> {
    (0..head_dim / 2).map(move |i| scaled(libm::pow(rope.theta, -2.0 * i as f64 / head_dim as f64), &rope.scaling))
}

/// Llama 3.1's rule, as transformers and mlx-lm state it: with wavelength `2 pi / f`, frequencies whose
/// wavelength is longer than `original / low` are divided by `factor`, those shorter than
/// `original / high` are kept, and between the two the divisor is interpolated.
fn scaled(frequency: f64, scaling: &RopeScaling) -> f64 {
    match *scaling {
        RopeScaling::Default => frequency,
        RopeScaling::Linear { factor } => frequency / factor,
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
            let wavelength = std::f64::consts::TAU / frequency;
            if wavelength > original_max_position_embeddings / low_freq_factor {
                frequency / factor
            } else if wavelength < original_max_position_embeddings / high_freq_factor {
                frequency
            } else {
                let smooth = (original_max_position_embeddings / wavelength - low_freq_factor)
                    / (high_freq_factor - low_freq_factor);
                frequency * ((1.0 - smooth) / factor + smooth)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama3_scaling_keeps_short_waves_divides_long_ones_and_is_continuous_between() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192.0,
        };
        let of_wavelength = |w: f64| scaled(std::f64::consts::TAU / w, &scaling) * w / std::f64::consts::TAU;
        assert!((of_wavelength(2047.0) - 1.0).abs() < 1e-12);
        assert!((of_wavelength(8193.0) - 0.125).abs() < 1e-12);
        assert!((of_wavelength(2048.0 + 1e-6) - 1.0).abs() < 1e-6);
        assert!((of_wavelength(8192.0 - 1e-6) - 0.125).abs() < 1e-6);
        // Half way between in frequency, the divisor's reciprocal is half way between too.
        assert!((of_wavelength(8192.0 / 2.5) - (1.0 + 0.125) / 2.0).abs() < 1e-12);
    }
}
