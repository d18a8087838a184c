//! Checkpoints.
pub mod bytes;
