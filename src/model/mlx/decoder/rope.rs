//! How positions turn queries and keys.

use mlx_rs::{
    Array, Dtype,
    fast::rope,
    ops::{concatenate, indexing::TryIndexOp},
};

use super::{
    super::{
        Named,
        arrays::{from_floats, shape, times},
    },
    Stretch,
};
use crate::{
    checkpoint::architecture::{Pairing, Rope, RopeScaling},
    model::{
        BodyError,
        rope::{amplitude, base_among, frequencies},
    },
};

/// A rotary embedding, as MLX is told of it.
#[derive(Debug)]
pub(super) struct Rotation {
    /// Columns of a head that are turned.
    columns: i32,
    neighbours: bool,
    amplitude: Option<f32>,
    angles: Angles,
}

/// What the angles of a position follow from.
#[derive(Debug)]
enum Angles {
    /// A base, with positions multiplied by `scale`.
    Base { base: f32, scale: f32 },
    /// The wavelengths divided by 2 pi, `[columns / 2]`; infinite where a pair is not turned.
    Wavelengths(Array),
    /// A base that grows with the text.
    Growing(Rope),
}

impl Rotation {
    pub(super) fn new(rule: &Rope) -> Result<Self, BodyError> {
        let base = rule.theta as f32;
        let angles = match rule.scaling {
            RopeScaling::Default => Angles::Base { base, scale: 1.0 },
            RopeScaling::Linear { factor } => Angles::Base { base, scale: (1.0 / factor) as f32 },
            RopeScaling::Dynamic { .. } => Angles::Growing(rule.clone()),
            // mlx-lm takes the same numbers in float32; a unit in the last place apart at most.
            RopeScaling::Llama3 { .. }
            | RopeScaling::Yarn { .. }
            | RopeScaling::Proportional { .. }
            | RopeScaling::Long { .. } => {
                let wavelengths: Vec<f32> = frequencies(rule).map(|frequency| (1.0 / frequency) as f32).collect();
                let array = from_floats(&wavelengths, Dtype::Float32)?;
                array.eval().named("astype")?;
                Angles::Wavelengths(array)
            }
        };
        Ok(Self {
            columns: shape([rule.columns])?[0],
            neighbours: rule.pairing == Pairing::Neighbours,
            amplitude: amplitude(rule).map(|amplitude| amplitude as f32),
            angles,
        })
    }

    /// `x` is `[1, heads, n, head_dim]`.
    pub(super) fn turn(&self, x: &Array, stretch: Stretch) -> Result<Array, BodyError> {
        let (x, [offset]) = (self.amplified(x)?, shape([stretch.offset])?);
        let turned = |base: Option<f32>, scale, freqs: Option<&Array>| {
            rope(&x, self.columns, self.neighbours, base, scale, offset, freqs).named("rope")
        };
        match &self.angles {
            Angles::Base { base, scale } => turned(Some(*base), *scale, None),
            Angles::Wavelengths(freqs) => turned(None, 1.0, Some(freqs)),
            Angles::Growing(rule) => turned(Some(base_among(rule, stretch.known) as f32), 1.0, None),
        }
    }

    /// What is turned, multiplied by the amplitude, beside what is not.
    fn amplified(&self, x: &Array) -> Result<Array, BodyError> {
        let Some(amplitude) = self.amplitude else { return Ok(x.clone()) };
        if x.dim(-1) == self.columns {
            return times(x, amplitude);
        }
        let turned = x.try_index((.., .., .., ..self.columns)).named("slice")?;
        let kept = x.try_index((.., .., .., self.columns..)).named("slice")?;
        concatenate(&[times(&turned, amplitude)?, kept], -1).named("concatenate")
    }
}
