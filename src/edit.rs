//! Edits (stub until merged).
use crate::quant::{Layout, MatrixRef};
use std::collections::BTreeMap;
/// A plan.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// shift
    pub shift: u32,
    /// rows
    pub rows: BTreeMap<usize, RowPatch>,
}
/// Row.
#[derive(Clone, Debug)]
pub struct RowPatch {
    weight: Vec<u8>,
    scales: Vec<u8>,
    biases: Vec<u8>,
}
impl RowPatch {
    /// view
    pub fn view(&self, layout: &Layout) -> MatrixRef<'_> {
        MatrixRef::new(layout.with_rows(1), &self.weight, &self.scales, &self.biases).expect("row")
    }
}
