//! The arithmetic: packed rows times vectors, and what stands between two such products.
//!
//! `specification/` says which additions are made and in which order, and everything else gives its bits, faster. `products/` has
//! the loops that instruction sets share, `attention.rs` those over keys and values, `instruction_sets/` what is particular to each,
//! and `screen/` finds the two largest of the products without all of them. Which of them this processor can run is found out at
//! run time; a [`Kernel`] is the proof, so that whoever holds one may call it without `unsafe`. [`multiply()`] spreads products over
//! threads.
//!
//! A shift needs no second matrix: the kernels subtract it from packed words that they have just loaded.

mod activations;
#[cfg_attr(not(any(target_arch = "x86_64", target_arch = "aarch64")), expect(dead_code, reason = "scalar only"))]
mod attention;
mod instruction_sets;
mod kernel;
mod multiply;
mod paths;
#[cfg_attr(not(any(target_arch = "x86_64", target_arch = "aarch64")), expect(dead_code, reason = "scalar only"))]
mod products;
pub(crate) mod rounding;
#[cfg(target_arch = "x86_64")]
mod screen;
mod specification;
mod statistics;
mod tops;

pub use activations::{Activations, Vectors};
pub use kernel::Kernel;
pub(crate) use multiply::multiply_rows;
pub use multiply::{Pass, Product, multiply};
pub use paths::Paths;
pub use rounding::Rounding;
pub use specification::scalar;
pub(crate) use specification::scalar::LANES;
pub(crate) use specification::vector::{Asking, Scores};
pub use statistics::Top;
pub(crate) use statistics::{Differences, Peaks, Replaced, Spans};
pub use tops::{Tops, tops};
