//! The final projection, under edits that are not written.

use super::BodyError;
use crate::{
    edit::Plan,
    kernels::{Activations, Job, Kernel, Pass, multiply},
    quant::{MatrixRef, WeightsRef},
    team::Team,
};

/// Hidden states to be projected under one shift.
pub struct Query<'a> {
    /// Subtracted from each packed word; 0 is the head as it is.
    pub shift: u32,
    /// Normalized hidden states, each `[hidden_size]`.
    pub hidden: Vec<&'a [f32]>,
    /// Logits, `[hidden.len(), vocab_size]`.
    pub out: &'a mut [f32],
}

/// What turns hidden states into logits.
pub trait Projection {
    /// Rows of the head.
    fn vocab_size(&self) -> usize;

    /// Logits under shifts, all in one go. The bits of a logit depend on its row, its shift and its hidden
    /// state alone.
    ///
    /// # Errors
    /// [`BodyError`], where a backend fails.
    fn logits(&mut self, queries: Vec<Query<'_>>) -> Result<(), BodyError>;

    /// Replaces the logits of the rows that `plan` replaces, in `logits` of one hidden state under
    /// `plan.shift`.
    ///
    /// # Errors
    /// [`BodyError`], where a backend fails.
    fn patch(&mut self, plan: &Plan, hidden: &[f32], logits: &mut [f32]) -> Result<(), BodyError>;
}

impl<P: Projection + ?Sized> Projection for Box<P> {
    fn vocab_size(&self) -> usize {
        (**self).vocab_size()
    }

    fn logits(&mut self, queries: Vec<Query<'_>>) -> Result<(), BodyError> {
        (**self).logits(queries)
    }

    fn patch(&mut self, plan: &Plan, hidden: &[f32], logits: &mut [f32]) -> Result<(), BodyError> {
        (**self).patch(plan, hidden, logits)
    }
}

/// A head on the CPU: the shift is subtracted in the register, and nothing is written.
#[derive(Debug)]
pub struct CpuProjection<'a> {
    matrix: MatrixRef<'a>,
    kernel: Kernel,
    team: &'a Team,
}

impl<'a> CpuProjection<'a> {
    /// Projects through `matrix` as it is now.
    pub const fn new(matrix: MatrixRef<'a>, kernel: Kernel, team: &'a Team) -> Self {
        Self { matrix, kernel, team }
    }
}

impl Projection for CpuProjection<'_> {
    fn vocab_size(&self) -> usize {
        self.matrix.layout().rows()
    }

    fn logits(&mut self, queries: Vec<Query<'_>>) -> Result<(), BodyError> {
        let (kernel, team, cols) = (self.kernel, self.team, self.matrix.layout().cols());
        let inputs: Vec<Activations> = queries
            .iter()
            .map(|query| {
                let mut input = Activations::new(kernel, cols);
                input.fill(team, query.hidden.len(), cols, |i, out| out.copy_from_slice(query.hidden[i]));
                input
            })
            .collect();
        let jobs = queries.into_iter().zip(&inputs).map(|(query, x)| Job { shift: query.shift, x, out: query.out });
        multiply(kernel, team, &mut [Pass { weights: WeightsRef::Quantized(self.matrix), jobs: jobs.collect() }]);
        Ok(())
    }

    fn patch(&mut self, plan: &Plan, hidden: &[f32], logits: &mut [f32]) -> Result<(), BodyError> {
        let cols = self.matrix.layout().cols();
        let input = Activations::from_rows(self.kernel, cols, hidden);
        let mut out = vec![0.0; plan.rows.len()];
        let mut passes: Vec<Pass<'_>> = plan
            .rows
            .values()
            .zip(out.chunks_exact_mut(1))
            .map(|(row, out)| Pass {
                weights: WeightsRef::Quantized(row.view(self.matrix.layout())),
                jobs: vec![Job { shift: 0, x: &input, out }],
            })
            .collect();
        multiply(self.kernel, self.team, &mut passes);
        for (&row, logit) in plan.rows.keys().zip(out) {
            logits[row] = logit;
        }
        Ok(())
    }
}
