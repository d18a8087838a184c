//! An MLP.

use mlx_rs::Array;

use super::{
    super::{
        Named,
        arrays::{Linear, Widen},
    },
    MISSING,
    activation::inside,
};
use crate::{
    checkpoint::{Inner, MlpWeights, architecture},
    model::BodyError,
};

#[derive(Debug)]
pub(super) struct Mlp {
    activation: architecture::Activation,
    numbers: Option<[f32; 4]>,
    into: Into,
    down_proj: Linear,
}

/// The projections into it.
#[derive(Debug)]
enum Into {
    Plain(Linear),
    Gated([Linear; 2]),
    /// The gate's rows, then the others.
    Joined(Linear),
}

impl Mlp {
    pub(super) fn of(mlp: &architecture::Mlp, weights: &MlpWeights, widen: Widen) -> Result<Self, BodyError> {
        let into = match &weights.inner {
            Inner::Plain(up_proj) => Into::Plain(Linear::of(up_proj, widen)?),
            Inner::Gated([gate_proj, up_proj]) => {
                Into::Gated([Linear::of(gate_proj, widen)?, Linear::of(up_proj, widen)?])
            }
            Inner::Joined(both) => Into::Joined(Linear::of(both, widen)?),
        };
        Ok(Self {
            activation: mlp.activation,
            numbers: weights.activation,
            into,
            down_proj: Linear::of(&weights.down_proj, widen)?,
        })
    }

    /// `h` is `[1, n, hidden]`.
    pub(super) fn apply(&self, h: &Array) -> Result<Array, BodyError> {
        let (gated, factor) = match &self.into {
            Into::Plain(up_proj) => (up_proj.apply(h)?, None),
            Into::Gated([gate_proj, up_proj]) => (gate_proj.apply(h)?, Some(up_proj.apply(h)?)),
            Into::Joined(both) => {
                let mut halves = both.apply(h)?.split_equal(2, -1).named("split")?.into_iter();
                (halves.next().ok_or(MISSING)?, halves.next())
            }
        };
        self.down_proj.apply(&inside(self.activation, self.numbers.as_ref(), &gated, factor.as_ref())?)
    }
}
