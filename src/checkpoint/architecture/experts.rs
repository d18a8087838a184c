//! Mixtures of experts.

use super::{Mlp, Norm};

/// Many MLPs, of which a router chooses some for each position: `sum of weight[e] * expert[e](x)` over those chosen, from the greatest weight
/// to the least, and what all positions have in common.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub(crate) struct Experts {
    /// How many there are.
    pub count: usize,
    /// What each of them computes.
    pub expert: Mlp,
    /// Which of them a position has.
    pub router: Router,
    /// What is added for all positions.
    pub shared: Option<Shared>,
    /// Norms of their own; without them router and experts have the input of the branch, and outputs are added as they are.
    pub norms: Option<ExpertNorms>,
}

/// Which experts a position has, and what their outputs are multiplied by.
///
/// Scores are made of the products of the router's projection. The experts with the greatest scores are chosen; of equal ones the first,
/// where mlx-lm leaves it open. Their weights are their scores, after what is said here.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub(crate) struct Router {
    /// Experts of a position, at most as many as there are.
    pub chosen: usize,
    /// Whether the projection has a bias.
    pub bias: bool,
    /// What products become.
    pub score: Score,
    /// Whether a number of each expert is added to its score for the choice, and for that alone.
    pub choice_bias: bool,
    /// Whether groups of experts are chosen first.
    pub groups: Option<Groups>,
    /// What weights are divided by.
    pub divisor: Option<Divisor>,
    /// What weights are multiplied by then.
    pub scale: Option<f32>,
    /// Whether each weight is multiplied by a number of its expert.
    pub expert_scale: bool,
}

/// What the products of a router's projection become.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Score {
    /// They are scores as they are, and weights are the softmax over those of the chosen experts.
    SoftmaxOfChosen,
    /// The softmax over all experts.
    Softmax,
    /// `sigmoid(product)` of each by itself.
    Sigmoid,
    /// The sparse mixer of Phi: experts are chosen one after the other. The weight of each is its part in the softmax over those that are left
    /// and within reach: `(best - product) / max(|product|, best) <= reach`.
    Mixer {
        /// How far.
        reach: f32,
    },
}

/// Experts in groups of equal size, in their order. A group's score is the sum of its two best ones; in groups that are not kept all
/// scores are 0 for the choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Groups {
    /// How many there are, each of at least two experts.
    pub count: usize,
    /// How many are kept.
    pub kept: usize,
}

/// What the weights of chosen experts are divided by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Divisor {
    /// Their sum.
    Sum,
    /// Their sum and this.
    SumAnd(f32),
    /// Their sum, or this where it is more.
    SumOrMore(f32),
}

/// An MLP whose output is added for all positions.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Shared {
    /// The MLP.
    pub mlp: Mlp,
    /// Whether its output is multiplied by `sigmoid(gate(x))`, which is one number.
    pub gate: bool,
}

/// Norms of experts that read the residual stream themselves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ExpertNorms {
    /// Norm of the router's input. Its weights are multiplied by `hidden_size^-1/2` as the checkpoint is opened.
    pub router: Norm,
    /// Norm of the experts' input.
    pub input: Norm,
    /// Norm of the sum of their outputs.
    pub output: Norm,
    /// Norm of what is added for all positions.
    pub shared_output: Norm,
}
