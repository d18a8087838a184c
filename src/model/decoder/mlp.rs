//! The MLP of a layer.

use super::{Decoder, Work, project};
use crate::{
    checkpoint::{
        FeedForwardWeights, Inner, MlpWeights,
        architecture::{Activation, FeedForward, Mlp},
    },
    kernels::Kernel,
};

impl Decoder {
    /// Leaves the second branch's output in `work.out`, of `count` positions in `work.input`.
    pub(super) fn feed_forward(&mut self, branch: &FeedForward, weights: &FeedForwardWeights, count: usize) {
        match (branch, weights) {
            (FeedForward::Mlp(mlp), FeedForwardWeights::Mlp(weights)) => self.mlp(mlp, weights, count),
            (FeedForward::Experts(experts), FeedForwardWeights::Experts(weights)) => {
                self.experts(experts, weights, count)
            }
            _ => unreachable!("weights are those of the architecture"),
        }
    }

    /// Leaves the MLP's output in `work.out`, of `count` positions in `work.input`.
    pub(super) fn mlp(&mut self, mlp: &Mlp, weights: &MlpWeights, count: usize) {
        let Self { kernel, team, work, .. } = self;
        let Work { input, gate, up, joined, out, .. } = work;
        let size = mlp.intermediate_size;
        // What goes through the activation, and what it is multiplied by: from where and how far apart.
        type Strided<'a> = (&'a [f32], usize);
        let (gated, factor): (Strided<'_>, Option<Strided<'_>>) = match &weights.inner {
            Inner::Plain(up_proj) => {
                project(*kernel, team, input, [(up_proj, up)]);
                ((up, size), None)
            }
            Inner::Gated([gate_proj, up_proj]) => {
                project(*kernel, team, input, [(gate_proj, gate), (up_proj, up)]);
                ((gate, size), Some((up, size)))
            }
            Inner::Joined(both) => {
                project(*kernel, team, input, [(both, joined)]);
                ((joined, 2 * size), Some((&joined[size..], 2 * size)))
            }
        };
        input.fill(team, count, size, |i, out| {
            out.copy_from_slice(&gated.0[i * gated.1..][..size]);
            let factor = factor.map(|(factor, stride)| &factor[i * stride..][..size]);
            inside(*kernel, mlp, weights.activation.as_ref(), out, factor);
        });
        project(*kernel, team, input, [(&weights.down_proj, out)]);
    }
}

/// What is inside an MLP, in the place of what goes through its activation and beside what that is multiplied by. `numbers` are the
/// activation's, where it has some.
pub(super) fn inside(kernel: Kernel, mlp: &Mlp, numbers: Option<&[f32; 4]>, x: &mut [f32], factor: Option<&[f32]>) {
    match (mlp.activation, factor) {
        (Activation::ClampedSwiglu, Some(factor)) => kernel.clamped_swiglu(x, factor),
        (activation, factor) => {
            activate(kernel, activation, numbers, x);
            if let Some(factor) = factor {
                kernel.multiply(x, factor);
            }
        }
    }
}

pub(super) fn activate(kernel: Kernel, activation: Activation, numbers: Option<&[f32; 4]>, x: &mut [f32]) {
    match activation {
        Activation::Silu => kernel.silu(x),
        Activation::Gelu => kernel.gelu(x),
        Activation::GeluTanh => kernel.gelu_tanh(x),
        Activation::ReluSquared => kernel.relu_squared(x),
        Activation::ClampedSwiglu => unreachable!("it comes with a gate"),
        Activation::Xielu => kernel.xielu(x, numbers.expect("an xIELU has four numbers")),
    }
}
