//! Takes the weights of a mixture of experts. Those of all experts lie in one tensor for each projection, `[experts, rows, columns]`, which
//! is read as one matrix with the rows of each expert one after the other.

use super::{Parts, Shape, WeightsError};
use crate::checkpoint::{
    architecture::{ExpertNorms, Experts, FeedForward, Mlp, Shared},
    weights::{
        ExpertNormsWeights, ExpertsWeights, FeedForwardWeights, Inner, Linear, MlpWeights, NormWeights, SharedWeights,
    },
};

impl Parts<'_> {
    /// The second branch of a layer.
    pub(super) fn feed_forward(
        &mut self,
        index: usize,
        feed_forward: &FeedForward,
    ) -> Result<FeedForwardWeights, WeightsError> {
        Ok(match feed_forward {
            FeedForward::Mlp(mlp) => FeedForwardWeights::Mlp(self.mlp(index, mlp)?),
            FeedForward::Experts(experts) => FeedForwardWeights::Experts(self.experts(index, experts)?),
        })
    }

    fn experts(&mut self, index: usize, experts: &Experts) -> Result<ExpertsWeights, WeightsError> {
        let (names, hidden, count) = (self.names, self.hidden, experts.count);
        let in_layer = |name| names.in_layer(index, name);
        let own = names.experts;
        let router = self.linear(&in_layer(own.router), count, hidden, experts.router.bias)?;
        let mut of_each = |there: bool, name| there.then(|| self.vector(&in_layer(name), count)).transpose();
        let choice_bias = of_each(experts.router.choice_bias, own.choice_bias)?;
        let expert_scale = of_each(experts.router.expert_scale, own.expert_scale)?;
        let norms = experts.norms.map(|norms| self.expert_norms(index, norms)).transpose()?;
        let each = self.gated(&in_layer(own.experts), Some(count), &experts.expert)?;
        let shared = match &experts.shared {
            Some(Shared { mlp, gate }) => {
                let mlp = self.gated(&in_layer(own.shared), None, mlp)?;
                let gate = gate.then(|| self.linear(&in_layer(own.shared_gate), 1, hidden, false)).transpose()?;
                Some(SharedWeights { mlp, gate })
            }
            None => None,
        };
        Ok(ExpertsWeights { router, choice_bias, expert_scale, experts: each, shared, norms })
    }

    /// An MLP with a gate, or so many of them, whose projections have the usual names in `module`.
    fn gated(&mut self, module: &str, count: Option<usize>, mlp: &Mlp) -> Result<MlpWeights, WeightsError> {
        let (hidden, inner) = (self.hidden, mlp.intermediate_size);
        let mut linear = |name: &str, rows, cols| -> Result<Linear, WeightsError> {
            self.shaped(&format!("{module}.{name}"), Shape { count, rows, cols }, mlp.bias)
        };
        let (gate, up) = (linear("gate_proj", inner, hidden)?, linear("up_proj", inner, hidden)?);
        let down_proj = linear("down_proj", hidden, inner)?;
        Ok(MlpWeights { inner: Inner::Gated([gate, up]), activation: None, down_proj })
    }

    fn expert_norms(&mut self, index: usize, norms: ExpertNorms) -> Result<ExpertNormsWeights, WeightsError> {
        let (names, hidden) = (self.names, self.hidden);
        let own = names.experts;
        let mut router = self.vector(&names.in_layer(index, own.router_norm), hidden)?;
        let root = (hidden as f64).powf(-0.5) as f32;
        router.values.iter_mut().for_each(|weight| *weight *= root);
        let mut norm = |norm, name| self.norm(norm, &names.in_layer(index, name), hidden);
        Ok(ExpertNormsWeights {
            router: NormWeights { weight: Some(router), bias: None },
            input: norm(norms.input, own.input_norm)?,
            output: norm(norms.output, own.output_norm)?,
            shared_output: norm(norms.shared_output, own.shared_output_norm)?,
        })
    }
}
