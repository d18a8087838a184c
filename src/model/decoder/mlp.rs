//! The MLP of a layer.

use super::{Decoder, Work, project};
use crate::{
    checkpoint::{
        Inner, MlpWeights,
        architecture::{Activation, Mlp},
    },
    kernels::Kernel,
};

impl Decoder {
    /// Leaves the MLP's output in `work.out`, of `count` positions in `work.input`.
    pub(super) fn mlp(&mut self, mlp: &Mlp, weights: &MlpWeights, count: usize) {
        let Self { kernel, team, work, .. } = self;
        let Work { input, gate, up, joined, out, .. } = work;
        let size = mlp.intermediate_size;
        // What goes through the activation, and what it is multiplied by: from where and how far apart.
        type Strided<'a> = (&'a [f32], usize);
        let (inside, factor): (Strided<'_>, Option<Strided<'_>>) = match &weights.inner {
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
            out.copy_from_slice(&inside.0[i * inside.1..][..size]);
            activate(*kernel, mlp.activation, weights.activation.as_ref(), out);
            if let Some((factor, stride)) = factor {
                kernel.multiply(out, &factor[i * stride..][..size]);
            }
        });
        project(*kernel, team, input, [(&weights.down_proj, out)]);
    }
}

pub(super) fn activate(kernel: Kernel, activation: Activation, numbers: Option<&[f32; 4]>, x: &mut [f32]) {
    match activation {
        Activation::Silu => kernel.silu(x),
        Activation::Gelu => kernel.gelu(x),
        Activation::GeluTanh => kernel.gelu_tanh(x),
        Activation::ReluSquared => kernel.relu_squared(x),
        Activation::Xielu => kernel.xielu(x, numbers.expect("an xIELU has four numbers")),
    }
}
