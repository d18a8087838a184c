//! Products of whole matrices, spread over threads.

use std::cell::RefCell;

use super::{
    activations::{Activations, Vectors},
    kernel::Kernel,
    paths::{Paths, Taken},
    products::{
        block::{BLOCK_ROWS, Scratch},
        stream,
    },
};
use crate::{
    quant::{MatrixRef, WeightsRef},
    team::Team,
};

/// Vectors to multiply by a matrix whose packed words are shifted by `shift`.
pub struct Product<'a> {
    /// Subtracted from each packed word; 0 leaves the matrix as it is.
    pub shift: u32,
    /// The vectors.
    pub x: Vectors<'a>,
    /// `[vectors, rows]`.
    pub out: &'a mut [f32],
}

/// A matrix and all that is to be multiplied by it.
pub struct Pass<'a> {
    /// The matrix.
    pub weights: WeightsRef<'a>,
    /// Vectors under one shift or several: one pass over the matrix serves them all.
    pub products: Vec<Product<'a>>,
}

thread_local! {
    pub(super) static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// An output that several threads write, each its own rows.
#[derive(Clone, Copy)]
struct Output(*mut f32);

// SAFETY: `multiply` gives every row of every output to exactly one work item.
unsafe impl Sync for Output {}
// SAFETY: as above.
unsafe impl Send for Output {}

/// Computes all passes in one parallel loop over blocks of rows, and says which paths were taken. The bits of an output depend on
/// its row of weights, its shift and its vector alone.
///
/// # Panics
/// If a product's vectors or output do not fit its matrix.
pub fn multiply(kernel: Kernel, team: &Team, passes: &mut [Pass<'_>]) -> Paths {
    let mut blocks = Vec::new();
    let mut outputs = Vec::with_capacity(passes.len());
    let all_rows = passes.iter().map(|pass| pass.weights.rows()).sum();
    for (index, pass) in passes.iter_mut().enumerate() {
        let rows = pass.weights.rows();
        for product in &pass.products {
            assert_eq!(product.x.cols, pass.weights.cols(), "columns of the vectors and of the matrix");
            assert_eq!(product.x.kernel.instructions, kernel.instructions, "the vectors' layout and the kernel's");
            assert_eq!(product.out.len(), product.x.count() * rows, "outputs of a product");
        }
        outputs.push(pass.products.iter_mut().map(|product| Output(product.out.as_mut_ptr())).collect::<Vec<_>>());
        if !pass.products.is_empty() {
            let block_rows = block_rows(kernel, pass, all_rows, team.threads());
            blocks.extend((0..rows).step_by(block_rows).map(|first| (index, first..rows.min(first + block_rows))));
        }
    }
    let passes = &*passes;
    let taken = Taken::default();
    team.for_each(blocks.len(), |i| {
        let (index, ref rows) = blocks[i];
        let pass = &passes[index];
        SCRATCH.with_borrow_mut(|scratch| {
            for (product, &Output(out)) in pass.products.iter().zip(&outputs[index]) {
                let block = product.x.block(rows.start, rows.len(), out, pass.weights.rows());
                // SAFETY: the asserts above fit vectors and outputs to the matrix and the kernel, and
                // this item is the only one with these rows.
                taken.add(unsafe { kernel.block(&pass.weights, product.shift, block, scratch) });
            }
        });
    });
    taken.paths()
}

/// Rows of a pass's blocks, where `all_rows` of all passes are left to so many threads.
fn block_rows(kernel: Kernel, pass: &Pass<'_>, all_rows: usize, threads: usize) -> usize {
    match (&pass.weights, &pass.products[..]) {
        // Nothing else is multiplied by a block, so that it need not stay in a cache.
        (WeightsRef::Quantized(matrix), [product]) if kernel.streams && product.x.count() == 1 => {
            stream::block_rows(matrix.layout(), all_rows, threads).unwrap_or(BLOCK_ROWS)
        }
        _ => BLOCK_ROWS,
    }
}

/// The products of single rows, each a matrix of its own, and all vectors: `out` is `[rows, vectors]`. The bits are
/// those of [`multiply`].
///
/// # Panics
/// If the vectors or the output do not fit the rows.
pub(crate) fn multiply_rows(kernel: Kernel, team: &Team, rows: &[MatrixRef<'_>], x: &Activations, out: &mut [f32]) {
    let count = x.count();
    assert_eq!(x.kernel.instructions, kernel.instructions, "the vectors' layout and the kernel's");
    assert_eq!(out.len(), rows.len() * count, "a product for each row and vector");
    if out.is_empty() {
        return;
    }
    team.for_each_chunk(out, count, |i, out| {
        let row = &rows[i];
        assert_eq!((row.layout().rows(), row.layout().cols()), (1, x.cols), "a row as long as the vectors");
        let block = x.all().block(0, 1, out.as_mut_ptr(), 1);
        // SAFETY: `out` has a place for each vector of the one row, and is this item's alone; vectors are in the
        // kernel's layout.
        SCRATCH.with_borrow_mut(|scratch| unsafe { kernel.block(&WeightsRef::Quantized(*row), 0, block, scratch) });
    });
}
