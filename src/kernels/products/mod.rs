//! Products of rows of weights and vectors, written once for all instruction sets.
//!
//! What a processor must bring is in `lanes.rs`, how codes become weights in `codes.rs`. A block of rows (`block.rs`) goes through
//! `quantized.rs`: a tile of rows is decoded and multiplied in registers (`direct.rs`), and where vectors are many it is kept for
//! the others, too (`panel.rs`). One vector and long rows go through `stream.rs` instead, rows that are not quantized through
//! `dense.rs`. The bits are those of [`scalar`](crate::kernels::scalar) on each of these paths.

pub(crate) mod block;
pub(crate) mod codes;
pub(crate) mod copies;
pub(crate) mod dense;
pub(crate) mod direct;
pub(crate) mod exceptions;
pub(crate) mod lanes;
pub(crate) mod line;
pub(crate) mod panel;
pub(crate) mod quantized;
pub(crate) mod scales;
pub(crate) mod specified;
pub(crate) mod stream;
pub(crate) mod widen;
