//! Rotary position embedding: the angles of each position.

use std::collections::HashMap;

use crate::checkpoint::{
    Architecture,
    architecture::{Pairing, QueryGrowth, Rope, RopeScaling},
};

/// Cosines and sines by layer and position, computed when a position is first needed.
///
/// Angles are taken in f64 and their cosine and sine rounded to f32 once, by `libm`'s portable
/// functions, so that they are the same on every machine. (MLX takes the angles in f32; at a position of
/// some hundred the two differ by 1e-5 rad.) An amplitude is multiplied into both, in f64 as well.
#[derive(Debug)]
pub(super) struct RopeTables {
    tables: Vec<Table>,
    /// Which of them each layer has, if any.
    of_layer: Vec<Option<usize>>,
}

/// What layers of one rotary embedding share.
#[derive(Debug)]
struct Table {
    rope: Rope,
    /// Radians a position, one for each pair of columns.
    frequencies: Vec<f64>,
    /// `[positions, columns / 2]`.
    cos: Vec<f32>,
    sin: Vec<f32>,
    /// Where the base depends on the known positions: cosines and sines by these and the position, beyond those that the model was
    /// made for.
    beyond: HashMap<(usize, usize), [Vec<f32>; 2]>,
}

/// How heads are turned at a position.
#[derive(Clone, Copy)]
pub(super) struct Turn<'a> {
    pub pairing: Pairing,
    /// One for each pair of columns.
    pub cos: &'a [f32],
    pub sin: &'a [f32],
}

impl RopeTables {
    pub(super) fn new(architecture: &Architecture) -> Self {
        let mut tables: Vec<Table> = Vec::new();
        let of_layer = architecture.layers.iter().map(|layer| {
            let rope = layer.mixer.attention()?.rope.as_ref()?;
            let known = tables.iter().position(|table| table.rope == *rope);
            Some(known.unwrap_or_else(|| {
                let frequencies = frequencies(rope).collect();
                let (cos, sin, beyond) = Default::default();
                tables.push(Table { rope: rope.clone(), frequencies, cos, sin, beyond });
                tables.len() - 1
            }))
        });
        let of_layer = of_layer.collect();
        Self { tables, of_layer }
    }

    /// Makes a position available that was computed when `known` positions were, and those before it.
    pub(super) fn reach(&mut self, position: usize, known: usize) {
        for Table { rope, frequencies, cos, sin, beyond } in &mut self.tables {
            if let RopeScaling::Dynamic { longest, .. } = rope.scaling
                && known > longest
            {
                let turned = || {
                    let (base, columns) = (base_among(rope, known), rope.columns as f64);
                    let angles: Vec<f64> = (0..rope.columns / 2)
                        .map(|i| position as f64 * libm::pow(base, -2.0 * i as f64 / columns))
                        .collect();
                    [libm::cos as fn(f64) -> f64, libm::sin]
                        .map(|f| angles.iter().map(|&angle| f(angle) as f32).collect())
                };
                beyond.entry((known, position)).or_insert_with(turned);
                continue;
            }
            let (amplitude, count) = (amplitude(rope), position + 1);
            for position in cos.len() / frequencies.len()..count {
                for frequency in &*frequencies {
                    let angle = position as f64 * frequency;
                    let (mut c, mut s) = (libm::cos(angle), libm::sin(angle));
                    if let Some(amplitude) = amplitude {
                        (c, s) = (c * amplitude, s * amplitude);
                    }
                    cos.push(c as f32);
                    sin.push(s as f32);
                }
            }
        }
    }

    /// How heads of `layer` are turned at `position`, computed when `known` positions were, which [`RopeTables::reach`] has made
    /// available.
    pub(super) fn at(&self, layer: usize, position: usize, known: usize) -> Option<Turn<'_>> {
        let Table { rope, frequencies, cos, sin, beyond } = &self.tables[self.of_layer[layer]?];
        if let Some([cos, sin]) = beyond.get(&(known, position)) {
            return Some(Turn { pairing: rope.pairing, cos, sin });
        }
        let half = frequencies.len();
        let at = position * half..(position + 1) * half;
        Some(Turn { pairing: rope.pairing, cos: &cos[at.clone()], sin: &sin[at] })
    }
}

/// What is turned is multiplied by this, where it is not 1.
pub(super) fn amplitude(rope: &Rope) -> Option<f64> {
    match rope.scaling {
        RopeScaling::Default
        | RopeScaling::Linear { .. }
        | RopeScaling::Llama3 { .. }
        | RopeScaling::Proportional { .. }
        | RopeScaling::Dynamic { .. } => None,
        RopeScaling::Yarn { amplitude, .. } | RopeScaling::Long { amplitude, .. } => {
            (amplitude != 1.0).then_some(amplitude)
        }
    }
}

/// Radians a position, one for each pair of the columns that are turned.
pub(super) fn frequencies(rope: &Rope) -> impl Iterator<Item = f64> {
    (0..rope.columns / 2).map(move |i| {
        let unscaled = libm::pow(rope.theta, -2.0 * i as f64 / rope.columns as f64);
        scaled(unscaled, i, rope)
    })
}

/// Whether the positions that a text had when a position was computed make a difference.
pub(super) fn depends_on_known_positions(architecture: &Architecture) -> bool {
    let mut ropes = architecture.layers.kinds().iter().filter_map(|layer| layer.mixer.attention()?.rope.as_ref());
    ropes.any(|rope| matches!(rope.scaling, RopeScaling::Dynamic { .. }))
}

/// What queries at a position are multiplied by, where it is not 1.
pub(super) fn grown(QueryGrowth { beta, original }: QueryGrowth, position: usize) -> Option<f32> {
    let times = (position as f64 / original).floor();
    (times > 0.0).then(|| (1.0 + beta * libm::log(1.0 + times)) as f32)
}

/// The base of the frequencies where a text has `known` positions.
pub(super) fn base_among(rope: &Rope, known: usize) -> f64 {
    match rope.scaling {
        RopeScaling::Dynamic { factor, longest } if known > longest => {
            let (columns, times) = (rope.columns as f64, known as f64 / longest as f64);
            rope.theta * libm::pow(factor * times - (factor - 1.0), columns / (columns - 2.0))
        }
        _ => rope.theta,
    }
}

/// The frequency of the `i`th pair.
fn scaled(frequency: f64, i: usize, rope: &Rope) -> f64 {
    match rope.scaling {
        RopeScaling::Default | RopeScaling::Dynamic { .. } => frequency,
        RopeScaling::Linear { factor } => frequency / factor,
        // What does not turn has the angle 0, whose cosine and sine leave a pair as it is, to the bit.
        RopeScaling::Proportional { factor, pairs } => {
            if i < pairs {
                frequency / factor
            } else {
                0.0
            }
        }
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
            llama3(frequency, factor, low_freq_factor, high_freq_factor, original_max_position_embeddings)
        }
        RopeScaling::Yarn { factor, original_max_position_embeddings, beta_fast, beta_slow, .. } => {
            let betas = [beta_fast, beta_slow];
            yarn(frequency, i, rope, factor, original_max_position_embeddings, betas)
        }
        RopeScaling::Long { ref factors, .. } => frequency / factors[i],
    }
}

/// Llama 3.1's rule, as transformers and mlx-lm state it: with wavelength `2 pi / f`, frequencies whose
/// wavelength is longer than `original / low` are divided by `factor`, those shorter than
/// `original / high` are kept, and between the two the divisor is interpolated.
fn llama3(frequency: f64, factor: f64, low: f64, high: f64, original: f64) -> f64 {
    let wavelength = std::f64::consts::TAU / frequency;
    if wavelength > original / low {
        frequency / factor
    } else if wavelength < original / high {
        frequency
    } else {
        let smooth = (original / wavelength - low) / (high - low);
        frequency * ((1.0 - smooth) / factor + smooth)
    }
}

/// YaRN as mlx-lm states it: pairs before the one that turns `beta_fast` times within the original length keep their frequency, pairs
/// after the one that turns `beta_slow` times have it divided by `factor`, and between the two the frequency is interpolated.
fn yarn(frequency: f64, i: usize, rope: &Rope, factor: f64, original: f64, [fast, slow]: [f64; 2]) -> f64 {
    let columns = rope.columns as f64;
    let pair =
        |turns: f64| columns * libm::log(original / (turns * std::f64::consts::TAU)) / (2.0 * libm::log(rope.theta));
    let (low, mut high) = (pair(fast).floor().max(0.0), pair(slow).ceil().min(columns - 1.0));
    if low == high {
        high += 0.001;
    }
    let divided = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
    frequency * (1.0 - divided) + frequency / factor * divided
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama3_scaling_keeps_short_waves_divides_long_ones_and_is_continuous_between() {
        let tau = std::f64::consts::TAU;
        let of_wavelength = |w: f64| llama3(tau / w, 8.0, 1.0, 4.0, 8192.0) * w / tau;
        assert!((of_wavelength(2047.0) - 1.0).abs() < 1e-12);
        assert!((of_wavelength(8193.0) - 0.125).abs() < 1e-12);
        assert!((of_wavelength(2048.0 + 1e-6) - 1.0).abs() < 1e-6);
        assert!((of_wavelength(8192.0 - 1e-6) - 0.125).abs() < 1e-6);
        // Half way between in frequency, the divisor's reciprocal is half way between too.
        assert!((of_wavelength(8192.0 / 2.5) - (1.0 + 0.125) / 2.0).abs() < 1e-12);
    }
}
