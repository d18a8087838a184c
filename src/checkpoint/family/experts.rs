//! How a family's mixture of experts is read, and how its tensors are named.

use super::rules::{Flag, Size};
use crate::checkpoint::architecture::Divisor;

/// The mixture of experts of a family that has one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ExpertsRule {
    /// Whether there are any.
    pub when: Flag,
    /// Which layers have them.
    pub layers: ExpertLayers,
    /// How many.
    pub count: Size,
    /// How many a position has.
    pub chosen: Size,
    /// Width inside each.
    pub width: ExpertWidth,
    /// Whether the projections of each have a bias.
    pub bias: Flag,
    /// Which ones a position has.
    pub router: RouterRule,
    /// What is added for all positions.
    pub shared: Option<SharedRule>,
    /// Whether router, experts and what is added have norms of their own.
    pub norms: bool,
}

/// Which layers have experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExpertLayers {
    /// All of them.
    All,
    /// Those for which a list has a 1 or `true`.
    Listed(&'static str),
    /// Layer `i` where each of these holds, counted from 0.
    Where {
        /// A key and a number: what the key says divides `i` and the number.
        every: Option<(Size, usize)>,
        /// A key of the first one; of a list the least counts.
        from: Option<Size>,
        /// A key of the last one, none where it is absent; of a list the largest counts.
        to: Option<&'static str>,
        /// A list of those that have none.
        except: Option<&'static str>,
    },
}

/// Where the width inside an expert comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExpertWidth {
    /// A key.
    Key(Size),
    /// A key, or the width inside the MLPs of other layers where it is absent or 0.
    OrMlp(&'static str),
}

/// How experts are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RouterRule {
    /// Whether the projection has a bias.
    pub bias: Flag,
    /// What products become.
    pub score: ScoreRule,
    /// Whether each expert has a number that is added for the choice.
    pub choice_bias: Flag,
    /// The keys of how many groups there are, and of how many are kept.
    pub groups: Option<[Size; 2]>,
    /// Whether weights are divided, by `divisor`.
    pub divided: Flag,
    /// What they are divided by.
    pub divisor: Divisor,
    /// Whether they are divided also where a position has one expert.
    pub divides_one: bool,
    /// Key of what weights are multiplied by, and what it is where absent.
    pub scale: Option<(&'static str, f64)>,
    /// Whether each weight is multiplied by a number of its expert.
    pub expert_scale: bool,
}

/// What the products of a router's projection become.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum ScoreRule {
    /// Weights are the softmax over the chosen ones.
    SoftmaxOfChosen,
    /// The softmax over all.
    Softmax,
    /// The sigmoid of each.
    Sigmoid,
    /// A key says `softmax` or `sigmoid`, or this where it is absent.
    Key(&'static str, &'static str),
    /// Phi's sparse mixer: the key of its jitter, and what it is where absent.
    Mixer(&'static str, f64),
}

/// An MLP that is added for all positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SharedRule {
    /// Whether there is one.
    pub when: Flag,
    /// Width inside; none is added where it is 0.
    pub width: SharedWidth,
    /// Whether its output is multiplied by the sigmoid of a projection to one number.
    pub gate: bool,
}

/// Where the width inside that MLP comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SharedWidth {
    /// A key.
    Key(Size),
    /// As many times the width inside an expert as a key says.
    Experts(Size),
    /// The same, with the width of one under another key where that is there and not 0.
    ExpertsOf(Size, &'static str),
    /// As wide as the MLPs of layers without experts.
    Mlp,
}

/// Names of a mixture of experts, within a layer. After `experts` and `shared` stands one of [`PROJECTIONS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExpertNames {
    /// The router's projection.
    pub router: &'static str,
    /// Tensor of what is added for the choice.
    pub choice_bias: &'static str,
    /// Tensor of what weights are multiplied by.
    pub expert_scale: &'static str,
    /// The experts, all in one tensor for each projection.
    pub experts: &'static str,
    /// The experts with tensors of their own, where mlx-lm stacks such as it loads them.
    pub apart: Option<ApartNames>,
    /// What is added for all positions.
    pub shared: &'static str,
    /// The projection to what its output is multiplied by.
    pub shared_gate: &'static str,
    /// Tensor of the norm of the router's input.
    pub router_norm: &'static str,
    /// Norm of the experts' input.
    pub input_norm: &'static str,
    /// Norm of the sum of their outputs.
    pub output_norm: &'static str,
    /// Norm of what is added for all positions.
    pub shared_output_norm: &'static str,
}

/// Projections of an expert: what goes through the activation, what that is multiplied by, and what is inside.
pub(crate) const PROJECTIONS: [&str; 3] = ["gate_proj", "up_proj", "down_proj"];

/// Names of experts with tensors of their own, within a layer: `MODULE.NUMBER.PROJECTION`, with numbers from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ApartNames {
    /// What stands before the number.
    pub module: &'static str,
    /// What [`PROJECTIONS`] are named.
    pub projections: [&'static str; 3],
    /// Whether mlx-lm stacks scales and biases of quantized experts, too, or weights alone.
    pub quantized: bool,
}
