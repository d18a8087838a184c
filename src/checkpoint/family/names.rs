//! How a family's tensors are named.

use super::experts::ExpertNames;

/// How tensors are named. A module's tensors are `MODULE.weight`, `MODULE.scales`, `MODULE.biases` and `MODULE.bias`. Whether a norm
/// has a name says whether the family has it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TensorNames {
    /// The embedding, which is also a tied head.
    pub embed_tokens: &'static str,
    /// The learned vectors of positions, where the family has them.
    pub embed_positions: &'static str,
    /// What stands before the number of a layer, from 0.
    pub layers: &'static str,
    /// Norm of the last layer's output.
    pub norm: &'static str,
    /// The head where it is not tied.
    pub lm_head: &'static str,
    /// Within a layer: norm of the attention's input.
    pub attention_norm: Option<&'static str>,
    /// Within a layer: projections to queries, keys and values.
    pub qkv: QkvNames,
    /// Within a layer: norms of queries and of keys, where the family has them.
    pub qk_norm: QkNormNames,
    /// Within a layer: projection of the heads' outputs.
    pub o_proj: &'static str,
    /// Within a layer: a short convolution, where the family has one.
    pub short_convolution: ShortConvolutionNames,
    /// Within a layer: a gated DeltaNet, where the family has one.
    pub delta_net: DeltaNetNames,
    /// Within a layer: norm of the attention's output.
    pub attention_output_norm: Option<&'static str>,
    /// Within a layer: norm of the MLP's input.
    pub mlp_norm: Option<&'static str>,
    /// Within a layer: the gate.
    pub gate: GateName,
    /// Within a layer: projection that the activation multiplies, or that it follows where there is no gate.
    pub up_proj: &'static str,
    /// Within a layer: projection of what is inside.
    pub down_proj: &'static str,
    /// Within a layer: what stands before the names of an activation's numbers, where it has some.
    pub activation: &'static str,
    /// Within a layer: the parts of a mixture of experts, where the family has one.
    pub experts: ExpertNames,
    /// Within a layer: norm of the MLP's output.
    pub mlp_output_norm: Option<&'static str>,
    /// What tokens give to layers, where the family has that.
    pub token_inputs: TokenInputNames,
    /// Within a layer: the number that its output is multiplied by, where the family has one.
    pub output_scale: &'static str,
    /// What mlx-lm drops.
    pub dropped: &'static [Dropped],
    /// How names end that mlx-lm gives other ends.
    pub renamed: &'static [Renamed],
}

/// A tensor's name that ends in `from` ends in `to` for mlx-lm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Renamed {
    /// The end in the files.
    pub from: &'static str,
    /// The end by which the tensor is asked for.
    pub to: &'static str,
}

/// Names of what tokens give to layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TokenInputNames {
    /// The embedding of its own.
    pub embedding: &'static str,
    /// Projection of the token's embedding.
    pub projection: &'static str,
    /// Norm of that projection.
    pub norm: &'static str,
    /// Within a layer: the gate.
    pub gate: &'static str,
    /// Within a layer: projection of what went through the gate.
    pub output: &'static str,
    /// Within a layer: norm of that projection.
    pub output_norm: &'static str,
}

/// Names of a short convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShortConvolutionNames {
    /// Projection of the input.
    pub in_proj: &'static str,
    /// What convolves.
    pub convolution: &'static str,
    /// Projection of the output.
    pub out_proj: &'static str,
}

/// Names of a gated DeltaNet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeltaNetNames {
    /// Projections of the input.
    pub projections: DeltaProjectionNames,
    /// What convolves queries, keys and values.
    pub convolution: &'static str,
    /// Logarithm of each head's rate of decay.
    pub a_log: &'static str,
    /// What is added to the input of each head's decay.
    pub dt_bias: &'static str,
    /// Norm of each head's output.
    pub norm: &'static str,
    /// Projection of the output.
    pub out_proj: &'static str,
}

/// Names of the projections of a gated DeltaNet's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeltaProjectionNames {
    /// Queries, keys and values in one matrix, the others by themselves.
    Apart {
        /// Projection to queries, keys and values.
        qkv: &'static str,
        /// Projection to what gates outputs.
        z: &'static str,
        /// Projection to the strength of what is written.
        b: &'static str,
        /// Projection to decays.
        a: &'static str,
    },
    /// Two matrices, both by key head.
    ByKeyHead {
        /// Projection to queries, keys, values and what gates outputs.
        qkvz: &'static str,
        /// Projection to strengths and decays.
        ba: &'static str,
    },
}

/// Names of the projections to queries, keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QkvNames {
    /// One for each.
    Apart {
        /// Projection to queries.
        q: &'static str,
        /// Projection to keys.
        k: &'static str,
        /// Projection to values.
        v: &'static str,
    },
    /// One matrix: all rows for queries, then all for keys, then all for values.
    Joined(&'static str),
    /// One matrix: for each key head the rows of its query heads, its own, and those of its value head.
    ByKeyHead(&'static str),
}

/// Names of the norms of queries and keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QkNormNames {
    /// Norm of queries.
    pub q: &'static str,
    /// Norm of keys.
    pub k: &'static str,
    /// What stands between such a name and the number of a head, where each head has a tensor of its own.
    pub heads: Option<&'static str>,
}

/// Where the gate of an MLP lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GateName {
    /// There is none.
    None,
    /// In a matrix of its own.
    Apart(&'static str),
    /// In the matrix of `up_proj`, in the rows before its own.
    Joined,
}

/// Tensors that mlx-lm drops as it loads a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// Those whose names end so.
    Ending(&'static str),
    /// Those whose names begin so.
    Beginning(&'static str),
    /// Those whose names have this.
    Containing(&'static str),
    /// All of a layer that comes after the last one.
    LayerBehindTheLast,
    /// All tensors of a head that is stored although it is tied.
    TiedHead,
}

impl TensorNames {
    /// The name of `module` in layer `layer`.
    pub(crate) fn in_layer(&self, layer: usize, module: &str) -> String {
        format!("{}.{layer}.{module}", self.layers)
    }

    /// The module that is the head.
    pub(crate) const fn head(&self, tied: bool) -> &'static str {
        if tied { self.embed_tokens } else { self.lm_head }
    }
}
