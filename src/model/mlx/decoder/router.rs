//! Which experts a position has.

use mlx_rs::{
    Array, Dtype,
    ops::{
        abs, add, argsort_axis, concatenate, divide, eq, expand_dims, ge, gt,
        indexing::{TryIndexOp, argmax_axis, take_along_axis},
        maximum, multiply, negative, select, sigmoid, softmax_axis, sort_axis, subtract,
    },
};

use super::super::{
    Named,
    arrays::{Linear, Widen, number, optional, plus, shape, times},
};
use crate::{
    checkpoint::{
        ExpertsWeights,
        architecture::{self, Divisor, Groups, Score},
    },
    model::BodyError,
};

#[derive(Debug)]
pub(super) struct Router {
    rule: architecture::Router,
    projection: Linear,
    /// `[experts]`.
    choice_bias: Option<Array>,
    /// `[experts]`.
    expert_scale: Option<Array>,
}

/// The experts of each position and what their outputs are multiplied by, `[1, n, chosen]` each, from the greatest score to the least.
pub(super) struct Chosen {
    pub(super) experts: Array,
    pub(super) weights: Array,
}

impl Router {
    pub(super) fn load(rule: &architecture::Router, weights: &ExpertsWeights, widen: Widen) -> Result<Self, BodyError> {
        Ok(Self {
            rule: rule.clone(),
            projection: Linear::of(&weights.router, widen)?,
            choice_bias: optional(weights.choice_bias.as_ref(), widen)?,
            expert_scale: optional(weights.expert_scale.as_ref(), widen)?,
        })
    }

    /// `h` is `[1, n, hidden]`.
    pub(super) fn choose(&self, h: &Array) -> Result<Chosen, BodyError> {
        let products = self.projection.apply(h)?;
        let Chosen { experts, mut weights } = match self.rule.score {
            Score::Mixer { reach } => mixed(&products, reach, self.rule.chosen)?,
            score => self.best(&products, score)?,
        };
        if let Some(divisor) = self.rule.divisor {
            let sum = weights.sum_axis(-1, true).named("sum")?;
            let divisor = match divisor {
                Divisor::Sum => sum,
                Divisor::SumAnd(more) => plus(&sum, more)?,
                Divisor::SumOrMore(least) => maximum(&sum, number(least, &sum)?).named("maximum")?,
            };
            weights = divide(weights, divisor).named("divide")?;
        }
        if let Some(scale) = self.rule.scale {
            weights = times(&weights, scale)?;
        }
        if let Some(scales) = &self.expert_scale {
            weights = multiply(weights, scales.try_index(&experts).named("take")?).named("multiply")?;
        }
        Ok(Chosen { experts, weights })
    }

    /// The experts with the greatest scores; of equal ones the first.
    fn best(&self, products: &Array, score: Score) -> Result<Chosen, BodyError> {
        let wide = || products.as_dtype(Dtype::Float32).named("astype");
        let scores = match score {
            Score::SoftmaxOfChosen | Score::Mixer { .. } => products.clone(),
            Score::Softmax => softmax_axis(products, -1, true).named("softmax")?,
            Score::Sigmoid => sigmoid(wide()?).named("sigmoid")?,
        };
        let mut keys = scores.clone();
        if let Some(bias) = &self.choice_bias {
            keys = add(keys, bias).named("add")?;
        }
        if let Some(groups) = self.rule.groups {
            keys = without_other_groups(groups, &keys)?;
        }
        let experts = greatest(&keys, self.rule.chosen)?;
        let weights = take_along_axis(&scores, &experts, -1).named("take_along_axis")?;
        let weights = match score {
            Score::SoftmaxOfChosen => softmax_axis(weights, -1, true).named("softmax")?,
            _ => weights,
        };
        Ok(Chosen { experts, weights })
    }
}

/// The places of the `count` greatest along the last axis, from the greatest to the least; of equal ones the first.
fn greatest(keys: &Array, count: usize) -> Result<Array, BodyError> {
    let order = argsort_axis(negative(keys).named("negative")?, -1).named("argsort")?;
    order.try_index((.., .., ..shape([count])?[0])).named("slice")
}

/// Scores of groups that are not kept become 0.
fn without_other_groups(Groups { count, kept }: Groups, scores: &Array) -> Result<Array, BodyError> {
    let (n, experts) = (scores.dim(1), scores.dim(2));
    let [count, kept] = shape([count, kept])?;
    let grouped = scores.reshape(&[1, n, count, experts / count]).named("reshape")?;
    let best_two = sort_axis(&grouped, -1).named("sort")?.try_index((.., .., .., -2..)).named("slice")?;
    let of_groups = best_two.sum_axis(-1, false).named("sum")?;
    // Of equal groups the first is kept, as with experts.
    let order = argsort_axis(negative(&of_groups).named("negative")?, -1).named("argsort")?;
    let rank = argsort_axis(order, -1).named("argsort")?;
    let out = ge(rank, Array::from_int(kept)).named("ge")?;
    let out = expand_dims(out, -1).named("expand_dims")?;
    let left = select(out, number(0.0, &grouped)?, &grouped).named("select")?;
    left.reshape(&[1, n, experts]).named("reshape")
}

/// The sparse mixer; see [`Score::Mixer`].
fn mixed(products: &Array, reach: f32, count: usize) -> Result<Chosen, BodyError> {
    let never = number(f32::NEG_INFINITY, products)?;
    let places = Array::arange::<_, i32>(0, products.dim(-1), None).named("arange")?;
    let mut left = products.clone();
    let (mut experts, mut weights) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for _ in 0..count {
        let expert = argmax_axis(&left, -1, true).named("argmax")?;
        let best = take_along_axis(&left, &expert, -1).named("take_along_axis")?;
        let magnitude = maximum(abs(products).named("abs")?, &best).named("maximum")?;
        let below = divide(subtract(&best, products).named("subtract")?, magnitude).named("divide")?;
        let out = gt(below, number(reach, products)?).named("gt")?;
        let within = select(out, &never, &left).named("select")?;
        let parts = softmax_axis(within, -1, true).named("softmax")?;
        weights.push(take_along_axis(parts, &expert, -1).named("take_along_axis")?);
        let taken = eq(&places, &expert).named("eq")?;
        left = select(taken, &never, &left).named("select")?;
        experts.push(expert);
    }
    let joined = |parts: &[Array]| concatenate(parts, -1).named("concatenate");
    Ok(Chosen { experts: joined(&experts)?, weights: joined(&weights)? })
}
