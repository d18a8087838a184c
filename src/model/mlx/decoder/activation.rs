//! What is inside an MLP: its activation, and what that is multiplied by.

use std::f32::consts::{FRAC_1_SQRT_2, PI};

use mlx_rs::{
    Array,
    ops::{add, erf, expm1, gt, maximum, minimum, multiply, select, sigmoid, square, subtract, tanh},
};

use super::super::{
    Named,
    arrays::{number, plus, times},
};
use crate::{checkpoint::architecture::Activation, model::BodyError};

/// The bound of [`Activation::ClampedSwiglu`].
const BOUND: f32 = 7.0;
/// What it multiplies a gate by within the sigmoid.
const STEEPNESS: f32 = 1.702;

/// What goes through the activation, and is multiplied by `factor` where there is one. `numbers` are those of an activation that has some.
pub(super) fn inside(
    activation: Activation,
    numbers: Option<&[f32; 4]>,
    x: &Array,
    factor: Option<&Array>,
) -> Result<Array, BodyError> {
    match (activation, factor) {
        (Activation::ClampedSwiglu, Some(factor)) => clamped_swiglu(x, factor),
        (_, Some(factor)) => multiply(activate(activation, numbers, x)?, factor).named("multiply"),
        (_, None) => activate(activation, numbers, x),
    }
}

/// `activation(x)`.
pub(super) fn activate(activation: Activation, numbers: Option<&[f32; 4]>, x: &Array) -> Result<Array, BodyError> {
    match activation {
        Activation::Silu => multiply(x, sigmoid(x).named("sigmoid")?).named("multiply"),
        Activation::Gelu => {
            let wide = plus(&erf(times(x, FRAC_1_SQRT_2)?).named("erf")?, 1.0)?;
            times(&multiply(x, wide).named("multiply")?, 0.5)
        }
        Activation::GeluTanh => {
            let cube = multiply(square(x).named("square")?, x).named("multiply")?;
            let inner = times(&add(x, times(&cube, 0.044_715)?).named("add")?, (2.0 / PI).sqrt())?;
            let wide = plus(&tanh(inner).named("tanh")?, 1.0)?;
            multiply(times(x, 0.5)?, wide).named("multiply")
        }
        Activation::ReluSquared => square(maximum(x, number(0.0, x)?).named("maximum")?).named("square"),
        Activation::Xielu => xielu(x, numbers.ok_or(super::MISSING)?),
        // It comes with a gate.
        Activation::ClampedSwiglu => Err(super::MISSING),
    }
}

fn xielu(x: &Array, &[positive, negative, beta, eps]: &[f32; 4]) -> Result<Array, BodyError> {
    let linear = times(x, beta)?;
    let above = add(times(&square(x).named("square")?, positive)?, &linear).named("add")?;
    let bounded = minimum(x, number(eps, x)?).named("minimum")?;
    let bent = subtract(expm1(bounded).named("expm1")?, x).named("subtract")?;
    let below = add(times(&bent, negative)?, &linear).named("add")?;
    select(gt(x, number(0.0, x)?).named("gt")?, above, below).named("select")
}

fn clamped_swiglu(gate: &Array, up: &Array) -> Result<Array, BodyError> {
    let gate = minimum(gate, number(BOUND, gate)?).named("minimum")?;
    let up = minimum(maximum(up, number(-BOUND, up)?).named("maximum")?, number(BOUND, up)?).named("minimum")?;
    let gated = multiply(&gate, sigmoid(times(&gate, STEEPNESS)?).named("sigmoid")?).named("multiply")?;
    multiply(plus(&up, 1.0)?, gated).named("multiply")
}
