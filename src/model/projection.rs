//! The final projection, under edits that are not written.
//!
//! A head's *logits* here are its products with a hidden state and its bias, if it has one. What comes after them is an increasing
//! function ([`Projection::curve`]), so which of them is the largest, and by which edits that changes, is decided without it; whoever
//! measures logits applies it ([`bend`]).

use super::BodyError;
use crate::{
    checkpoint::architecture::{AfterHead, Curve},
    edit::Plan,
    kernels::{Activations, Kernel, Pass, Product, Top, multiply, multiply_rows, tops},
    quant::{MatrixBuf, MatrixRef, WeightsRef},
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

    /// What logits go through before they are measured.
    fn curve(&self) -> Curve {
        Curve::NONE
    }

    /// Logits under shifts, all in one go. The bits of a logit depend on its row, its shift and its hidden
    /// state alone.
    ///
    /// # Errors
    /// [`BodyError`], where a backend fails.
    fn logits(&mut self, queries: Vec<Query<'_>>) -> Result<(), BodyError>;

    /// The two largest logits of each hidden state under its shift, the first of equals first; `None` if one logit is not
    /// finite. They are those among [`Projection::logits`]; hidden states under one shift should be neighbours.
    ///
    /// # Errors
    /// [`BodyError`], where a backend fails.
    fn tops(&mut self, hidden: &[(u32, &[f32])]) -> Result<Vec<Option<Top>>, BodyError> {
        tops_of_all(self, hidden)
    }

    /// Logits of the rows that `plans` replace: for each plan in order, for each of its rows in order, one for each of
    /// the hidden states. They are what the projection through the whole edited head has there.
    ///
    /// # Errors
    /// [`BodyError`], where a backend fails.
    fn replaced(&mut self, plans: &[&Plan], hidden: &[&[f32]]) -> Result<Vec<f32>, BodyError>;

    /// Replaces the logits of the rows that `plan` replaces, in `logits` of one hidden state under
    /// `plan.shift`.
    ///
    /// # Errors
    /// [`BodyError`], where a backend fails.
    fn patch(&mut self, plan: &Plan, hidden: &[f32], logits: &mut [f32]) -> Result<(), BodyError> {
        for (&row, logit) in plan.rows.keys().zip(self.replaced(&[plan], &[hidden])?) {
            logits[row] = logit;
        }
        Ok(())
    }
}

/// Adds a head's bias to the logits of hidden states, `[states, vocab_size]`.
pub(crate) fn add_bias(bias: &[f32], logits: &mut [f32]) {
    for logits in logits.chunks_exact_mut(bias.len()) {
        logits.iter_mut().zip(bias).for_each(|(logit, bias)| *logit += bias);
    }
}

/// Adds a head's bias to what [`Projection::replaced`] gives of `states` hidden states.
pub(crate) fn add_bias_of_rows(bias: &[f32], plans: &[&Plan], states: usize, logits: &mut [f32]) {
    let rows = plans.iter().flat_map(|plan| plan.rows.keys());
    for (&row, logits) in rows.zip(logits.chunks_exact_mut(states.max(1))) {
        logits.iter_mut().for_each(|logit| *logit += bias[row]);
    }
}

/// Puts logits through a curve.
pub(crate) fn bend(kernel: Kernel, curve: Curve, logits: &mut [f32]) {
    if let Some(scale) = curve.scale {
        kernel.scale(logits, scale);
    }
    if let Some(cap) = curve.softcap {
        kernel.softcap(logits, cap);
    }
}

/// Best minus second logit after a curve. The best is not below the second before the curve; rounding does not make it so after it.
pub(crate) fn margin(kernel: Kernel, curve: Curve, top: Top) -> f32 {
    if curve.is_none() {
        return top.best - top.second;
    }
    let mut both = [top.best, top.second];
    bend(kernel, curve, &mut both);
    (both[0] - both[1]).max(0.0)
}

/// [`Projection::logits`] of hidden states under their shifts, `[hidden.len(), vocab_size]`. Those under one shift must be
/// neighbours.
pub(crate) fn logits_of(
    head: &mut (impl Projection + ?Sized),
    hidden: &[(u32, &[f32])],
    out: &mut [f32],
) -> Result<(), BodyError> {
    let vocab = head.vocab_size();
    let mut rest = out;
    let mut queries = Vec::new();
    for group in hidden.chunk_by(|a, b| a.0 == b.0) {
        let (out, others) = rest.split_at_mut(group.len() * vocab);
        rest = others;
        queries.push(Query { shift: group[0].0, hidden: group.iter().map(|&(_, hidden)| hidden).collect(), out });
    }
    head.logits(queries)
}

/// [`Projection::tops`], by way of all logits.
fn tops_of_all(head: &mut (impl Projection + ?Sized), hidden: &[(u32, &[f32])]) -> Result<Vec<Option<Top>>, BodyError> {
    let vocab = head.vocab_size();
    let mut logits = vec![0.0; hidden.len() * vocab];
    logits_of(head, hidden, &mut logits)?;
    // Which kernel looks for them changes nothing.
    Ok(logits.chunks_exact(vocab).map(|logits| Kernel::best().top(logits)).collect())
}

impl<P: Projection + ?Sized> Projection for Box<P> {
    fn vocab_size(&self) -> usize {
        (**self).vocab_size()
    }

    fn curve(&self) -> Curve {
        (**self).curve()
    }

    fn logits(&mut self, queries: Vec<Query<'_>>) -> Result<(), BodyError> {
        (**self).logits(queries)
    }

    fn tops(&mut self, hidden: &[(u32, &[f32])]) -> Result<Vec<Option<Top>>, BodyError> {
        (**self).tops(hidden)
    }

    fn replaced(&mut self, plans: &[&Plan], hidden: &[&[f32]]) -> Result<Vec<f32>, BodyError> {
        (**self).replaced(plans, hidden)
    }
}

/// A head on the CPU: the shift is subtracted in the register, and nothing is written.
#[derive(Debug)]
pub struct CpuProjection<'a> {
    matrix: MatrixRef<'a>,
    bias: Option<&'a [f32]>,
    curve: Curve,
    kernel: Kernel,
    team: &'a Team,
}

impl<'a> CpuProjection<'a> {
    /// Projects through `matrix` as it is now, with nothing after it.
    pub const fn new(matrix: MatrixRef<'a>, kernel: Kernel, team: &'a Team) -> Self {
        Self { matrix, bias: None, curve: Curve::NONE, kernel, team }
    }

    /// Has `after` follow the products.
    ///
    /// # Panics
    /// If its bias is not as long as the matrix has rows.
    #[must_use]
    pub fn with(mut self, after: &'a AfterHead) -> Self {
        let rows = self.matrix.layout().rows();
        assert!(after.bias.as_ref().is_none_or(|bias| bias.len() == rows), "a bias of {rows} rows");
        (self.bias, self.curve) = (after.bias.as_deref(), after.curve);
        self
    }
}

impl Projection for CpuProjection<'_> {
    fn vocab_size(&self) -> usize {
        self.matrix.layout().rows()
    }

    fn curve(&self) -> Curve {
        self.curve
    }

    fn logits(&mut self, mut queries: Vec<Query<'_>>) -> Result<(), BodyError> {
        let (kernel, team, layout) = (self.kernel, self.team, self.matrix.layout());
        let inputs: Vec<Activations> = queries
            .iter()
            .map(|query| {
                let mut input = Activations::new(kernel, layout.cols());
                input.fill(team, query.hidden.len(), layout.cols(), |i, out| out.copy_from_slice(query.hidden[i]));
                input
            })
            .collect();
        let products = queries.iter_mut().zip(&inputs).map(|(query, x)| Product {
            shift: query.shift,
            x: x.all(),
            out: &mut *query.out,
        });
        multiply(
            kernel,
            team,
            &mut [Pass { weights: WeightsRef::Quantized(self.matrix), products: products.collect() }],
        );
        if let Some(bias) = self.bias {
            queries.into_iter().for_each(|query| add_bias(bias, query.out));
        }
        Ok(())
    }

    fn tops(&mut self, hidden: &[(u32, &[f32])]) -> Result<Vec<Option<Top>>, BodyError> {
        // A bias may make any row the largest.
        let screened = match self.bias {
            None => tops(self.kernel, self.team, &self.matrix, hidden),
            Some(_) => None,
        };
        match screened {
            Some(found) => Ok(found.tops),
            None => tops_of_all(self, hidden),
        }
    }

    fn replaced(&mut self, plans: &[&Plan], hidden: &[&[f32]]) -> Result<Vec<f32>, BodyError> {
        let layout = self.matrix.layout();
        let mut input = Activations::new(self.kernel, layout.cols());
        input.fill(self.team, hidden.len(), layout.cols(), |i, out| out.copy_from_slice(hidden[i]));
        let rows: Vec<MatrixRef<'_>> = plans.iter().flat_map(|plan| plan.rows.values()).map(MatrixBuf::view).collect();
        let mut out = vec![0.0; rows.len() * hidden.len()];
        multiply_rows(self.kernel, self.team, &rows, &input, &mut out);
        if let Some(bias) = self.bias {
            add_bias_of_rows(bias, plans, hidden.len(), &mut out);
        }
        Ok(out)
    }
}
