//! Norms, and what joins a branch's output to the residual stream.

use crate::{
    checkpoint::{
        LayerWeights, NormWeights,
        architecture::{Layer, Norm, NormKind, QkNorm, Span},
    },
    kernels::Kernel,
};

/// One vector, normalized.
pub(super) fn normalize(kernel: Kernel, norm: Norm, weights: &NormWeights, x: &[f32], out: &mut [f32]) {
    let part = |vector: &Option<crate::checkpoint::Vector>| vector.is_some();
    debug_assert!(!norm.bias || part(&weights.bias), "a bias that the architecture has");
    let weight = weights.weight.as_ref().map(|weight| weight.values.as_slice());
    let bias = weights.bias.as_ref().map(|bias| bias.values.as_slice());
    apply(kernel, norm, weight, bias, x, out);
}

fn apply(kernel: Kernel, norm: Norm, weight: Option<&[f32]>, bias: Option<&[f32]>, x: &[f32], out: &mut [f32]) {
    match (norm.kind, weight) {
        (NormKind::Rms, Some(weight)) => kernel.rms_norm(x, weight, norm.eps, out),
        (NormKind::Rms, None) => kernel.rms_norm_plain(x, norm.eps, out),
        (NormKind::Layer, Some(weight)) => kernel.layer_norm(x, weight, norm.eps, out),
        (NormKind::Layer, None) => unreachable!("no family has a layer norm without weights"),
    }
    if let Some(bias) = bias {
        kernel.add(out, bias);
    }
}

/// The heads of one position's queries or keys, normalized in place.
pub(super) fn normalize_heads(kernel: Kernel, rule: QkNorm, weights: &NormWeights, head_dim: usize, heads: &mut [f32]) {
    let before = heads.to_vec();
    let weight = weights.weight.as_ref().map(|weight| weight.values.as_slice());
    if rule.span == Span::All {
        return apply(kernel, rule.norm, weight, None, &before, heads);
    }
    for (head, (x, out)) in before.chunks_exact(head_dim).zip(heads.chunks_exact_mut(head_dim)).enumerate() {
        let own = match rule.span {
            Span::EachHead => weight.map(|weight| &weight[head * head_dim..][..head_dim]),
            Span::Head | Span::All => weight,
        };
        apply(kernel, rule.norm, own, None, x, out);
    }
}

/// Which branches of a layer are joined to the residual stream, and what their outputs go through before.
#[derive(Clone, Copy)]
pub(super) struct Joined<'a> {
    attention: Option<Branch<'a>>,
    mlp: Option<Branch<'a>>,
}

#[derive(Clone, Copy)]
struct Branch<'a> {
    norm: Option<(Norm, &'a NormWeights)>,
    scale: Option<f32>,
}

impl<'a> Joined<'a> {
    /// No branch.
    pub(super) const NOTHING: Self = Self { attention: None, mlp: None };

    /// The attention of a layer.
    pub(super) fn attention(layer: &Layer, weights: &'a LayerWeights) -> Self {
        let norm = layer.attention_output_norm.zip(weights.attention_output_norm.as_ref());
        Self { attention: Some(Branch { norm, scale: layer.residual_scale }), mlp: None }
    }

    /// The MLP of a layer.
    pub(super) fn mlp(layer: &Layer, weights: &'a LayerWeights) -> Self {
        let norm = layer.mlp_output_norm.zip(weights.mlp_output_norm.as_ref());
        Self { attention: None, mlp: Some(Branch { norm, scale: layer.residual_scale }) }
    }

    /// These and others.
    pub(super) fn and(self, other: Self) -> Self {
        Self { attention: self.attention.or(other.attention), mlp: self.mlp.or(other.mlp) }
    }

    /// Adds the branches' outputs of the `i`th position, which lie in `attended` and `out`, to its `x`.
    pub(super) fn join(&self, kernel: Kernel, i: usize, x: &mut [f32], attended: &[f32], out: &[f32]) {
        for (branch, outputs) in [(self.attention, attended), (self.mlp, out)] {
            if let Some(branch) = branch {
                branch.join(kernel, x, &outputs[i * x.len()..][..x.len()]);
            }
        }
    }
}

impl Branch<'_> {
    fn join(&self, kernel: Kernel, x: &mut [f32], output: &[f32]) {
        if self.norm.is_none() && self.scale.is_none() {
            return kernel.add(x, output);
        }
        let mut own = output.to_vec();
        if let Some((norm, weights)) = self.norm {
            normalize(kernel, norm, weights, output, &mut own);
        }
        if let Some(factor) = self.scale {
            kernel.scale(&mut own, factor);
        }
        kernel.add(x, &own);
    }
}
