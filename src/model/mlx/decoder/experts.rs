//! A mixture of experts in the place of an MLP.
//!
//! ```text
//! chosen    [1, n, chosen]               by the products of each position with the router's rows
//! inside    [1, n, chosen, 1, inner]     activation(gate_proj(h)) * up_proj(h), each by its own expert
//! outputs   [1, n, chosen, 1, hidden]    down_proj(inside)
//! out       [1, n, hidden]               sum of weight * output, and what is shared
//! ```

use mlx_rs::{
    Array,
    ops::{add, expand_dims, expand_dims_axes, multiply, sigmoid, squeeze_axes},
};

use super::{
    super::{
        Named,
        arrays::{Linear, Stacked, Widen},
    },
    activation::inside,
    mlp::Mlp,
    norm::Normalization,
    router::{Chosen, Router},
};
use crate::{
    checkpoint::{ExpertsWeights, architecture},
    model::BodyError,
};

#[derive(Debug)]
pub(super) struct Experts {
    activation: architecture::Activation,
    router: Router,
    gate_proj: Stacked,
    up_proj: Stacked,
    down_proj: Stacked,
    shared: Option<Mlp>,
    /// Gate of what is shared.
    shared_gate: Option<Linear>,
    norms: Option<Norms>,
}

/// Norms of experts that read the residual stream themselves.
#[derive(Debug)]
struct Norms {
    router: Normalization,
    input: Normalization,
    output: Normalization,
    shared_output: Normalization,
}

impl Experts {
    pub(super) fn load(
        experts: &architecture::Experts,
        weights: &ExpertsWeights,
        widen: Widen,
    ) -> Result<Self, BodyError> {
        let stacked = |linear| Stacked::of(linear, experts.count, widen);
        let shared = experts.shared.as_ref().zip(weights.shared.as_ref());
        let gate = weights.shared.as_ref().and_then(|shared| shared.gate.as_ref());
        let norms = experts.norms.zip(weights.norms.as_ref()).map(|(rules, weights)| {
            Ok::<_, BodyError>(Norms {
                router: Normalization::load(rules.router, &weights.router, widen)?,
                input: Normalization::load(rules.input, &weights.input, widen)?,
                output: Normalization::load(rules.output, &weights.output, widen)?,
                shared_output: Normalization::load(rules.shared_output, &weights.shared_output, widen)?,
            })
        });
        Ok(Self {
            activation: experts.expert.activation,
            router: Router::load(&experts.router, weights, widen)?,
            gate_proj: stacked(&weights.gate_proj)?,
            up_proj: stacked(&weights.up_proj)?,
            down_proj: stacked(&weights.down_proj)?,
            shared: shared.map(|(rule, weights)| Mlp::of(&rule.mlp, &weights.mlp, widen)).transpose()?,
            shared_gate: gate.map(|gate| Linear::of(gate, widen)).transpose()?,
            norms: norms.transpose()?,
        })
    }

    /// `h` is the branch's input and `x` the residual stream, `[1, n, hidden]` each.
    pub(super) fn apply(&self, h: &Array, x: &Array) -> Result<Array, BodyError> {
        let (router_input, input) = match &self.norms {
            Some(norms) => (norms.router.apply(x)?, norms.input.apply(x)?),
            None => (h.clone(), h.clone()),
        };
        let Chosen { experts, weights } = self.router.choose(&router_input)?;
        let outputs = self.through(&input, &experts)?;
        let weights = expand_dims(weights, -1).named("expand_dims")?;
        let weighted = multiply(outputs, weights).named("multiply")?;
        let mut sum = weighted.sum_axis(-2, false).named("sum")?.as_dtype(x.dtype()).named("astype")?;
        if let Some(norms) = &self.norms {
            sum = norms.output.apply(&sum)?;
        }
        let Some(shared) = &self.shared else { return Ok(sum) };
        let mut own = shared.apply(h)?;
        if let Some(gate) = &self.shared_gate {
            own = multiply(sigmoid(gate.apply(h)?).named("sigmoid")?, own).named("multiply")?;
        }
        if let Some(norms) = &self.norms {
            own = norms.shared_output.apply(&own)?;
        }
        add(sum, own).named("add")
    }

    /// What each position's experts make of it, `[1, n, chosen, hidden]`.
    fn through(&self, h: &Array, experts: &Array) -> Result<Array, BodyError> {
        let h = expand_dims_axes(h, &[-2, -3]).named("expand_dims")?;
        let (gate, up) = (self.gate_proj.apply(&h, experts)?, self.up_proj.apply(&h, experts)?);
        let outputs = self.down_proj.apply(&inside(self.activation, None, &gate, Some(&up))?, experts)?;
        squeeze_axes(outputs, &[-2]).named("squeeze")
    }
}
