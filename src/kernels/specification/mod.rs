//! The specification: the order of every addition, which all instruction sets keep.
//!
//! Products are written to be read (`scalar.rs`), and computed by other loops. The rest of a forward pass (`vector.rs`,
//! `activation.rs`, `delta_rule.rs`) and the statistics of logits (`logits.rs`) are plain loops over lanes that are compiled for each instruction set: what is written is what
//! runs.

pub(crate) mod activation;
pub(crate) mod delta_rule;
pub(crate) mod logits;
pub mod scalar;
pub(crate) mod vector;
