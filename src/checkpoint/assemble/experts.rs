//! Takes the weights of a mixture of experts.
//!
//! Those of all experts lie in one tensor for each projection, `[experts, rows, columns]`, which is read as one matrix with the rows of
//! each expert one after the other. In some families each expert may have tensors of its own, which mlx-lm stacks as it loads
//! them. Here they stay where they are, since nothing needs them side by side.

use super::{Parts, Shape, WeightsError};
use crate::checkpoint::{
    architecture::{ExpertNorms, Experts, FeedForward, Mlp, Shared},
    family::{ApartNames, PROJECTIONS},
    weights::{
        ExpertLinear, ExpertNormsWeights, ExpertsWeights, FeedForwardWeights, Inner, Linear, MlpWeights, NormWeights,
        SharedWeights, Vector, Weights,
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
        let [gate_proj, up_proj, down_proj] = self.each_expert(index, count, &experts.expert)?;
        let shared = match &experts.shared {
            Some(Shared { mlp, gate }) => {
                let mlp = self.gated(&in_layer(own.shared), mlp)?;
                let gate = gate.then(|| self.linear(&in_layer(own.shared_gate), 1, hidden, false)).transpose()?;
                Some(SharedWeights { mlp, gate })
            }
            None => None,
        };
        Ok(ExpertsWeights { router, choice_bias, expert_scale, gate_proj, up_proj, down_proj, shared, norms })
    }

    /// The three projections of `count` experts, stacked or apart.
    fn each_expert(&mut self, index: usize, count: usize, expert: &Mlp) -> Result<[ExpertLinear; 3], WeightsError> {
        let names = self.names;
        let stacked = names.in_layer(index, names.experts.experts);
        let apart = names.experts.apart.map(|apart| (names.in_layer(index, apart.module), apart));
        let apart = apart.filter(|(module, _)| {
            !self.tensors.contains_key(&format!("{stacked}.{}.weight", PROJECTIONS[0])) && self.has_numbered(module)
        });
        let [gate, up, down] = projections(self.hidden, expert).map(|(place, rows, cols)| {
            let stacked = format!("{stacked}.{}", PROJECTIONS[place]);
            let shape = Shape { count: Some(count), rows, cols };
            match &apart {
                Some((module, names)) => {
                    let own = |expert: usize| format!("{module}.{expert}.{}", names.projections[place]);
                    self.apart(own, *names, &stacked, shape, expert.bias).map(ExpertLinear::Apart)
                }
                None => self.shaped(&stacked, shape, expert.bias).map(ExpertLinear::Stacked),
            }
        });
        Ok([gate?, up?, down?])
    }

    /// Whether there is any tensor of a module within `module` whose name begins with a digit.
    fn has_numbered(&self, module: &str) -> bool {
        let (first, behind) = (format!("{module}.0"), format!("{module}.:"));
        self.tensors.range(first..behind).next().is_some()
    }

    /// A projection of experts with tensors of their own, each the module that `own` names. For the configuration, and where they
    /// have biases, they are one module, `stacked`, as they are for mlx-lm.
    fn apart(
        &mut self,
        own: impl Fn(usize) -> String,
        names: ApartNames,
        stacked: &str,
        shape: Shape,
        bias: bool,
    ) -> Result<Vec<Linear>, WeightsError> {
        let rows = shape.rows;
        let bias = bias.then(|| self.vector_of(&format!("{stacked}.bias"), &shape.dims())).transpose()?;
        let of_one = |all: &Vector, expert| Vector {
            values: all.values[expert * rows..][..rows].to_vec(),
            float_type: all.float_type,
        };
        let (mut all, mut wanted) = (Vec::new(), None);
        for expert in 0..shape.count.unwrap_or(1) {
            let module = own(expert);
            if !names.quantized && self.tensors.contains_key(&format!("{module}.scales")) {
                return Err(WeightsError::QuantizedExpert { module });
            }
            let (weights, format) = self.matrix_called(&module, stacked, Shape::of(rows, shape.cols))?;
            let found = match &weights {
                Weights::Quantized(matrix) => format!("{format} with {} scales", matrix.layout().scale_type().name()),
                Weights::Dense(_) => format.clone(),
            };
            let wanted = wanted.get_or_insert_with(|| found.clone());
            if found != *wanted {
                let wanted = wanted.clone();
                return Err(WeightsError::ExpertFormat { module, found, first: own(0), wanted });
            }
            if expert == 0 {
                self.formats.insert(stacked.to_owned(), format);
            }
            all.push(Linear { weights, bias: bias.as_ref().map(|bias| of_one(bias, expert)) });
        }
        Ok(all)
    }

    /// An MLP with a gate whose projections have the usual names in `module`.
    fn gated(&mut self, module: &str, mlp: &Mlp) -> Result<MlpWeights, WeightsError> {
        let [gate, up, down] = projections(self.hidden, mlp)
            .map(|(place, rows, cols)| self.linear(&format!("{module}.{}", PROJECTIONS[place]), rows, cols, mlp.bias));
        Ok(MlpWeights { inner: Inner::Gated([gate?, up?]), activation: None, down_proj: down? })
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

/// Place among [`PROJECTIONS`], rows and columns of the projections of an MLP with a gate.
const fn projections(hidden: usize, mlp: &Mlp) -> [(usize, usize, usize); 3] {
    let inner = mlp.intermediate_size;
    [(0, inner, hidden), (1, inner, hidden), (2, hidden, inner)]
}
