//! Inputs, drawn from bytes.
//!
//! A generator here is a function of [`Unstructured`] bytes, so that whoever has bytes can drive it: libFuzzer
//! mutates them, a property draws them at random and shrinks them ([`super::entropy`]), a committed seed is
//! them. What comes out is a plain value, of a type that goes into JSON and back, and the oracles see nothing else.
//!
//! Two rules keep shrinking simple. A byte of 0 stands for the simplest choice, and where the bytes end, they go
//! on as zeros: fewer and smaller bytes are a simpler value. And nothing is rejected: all bytes are a value.
//!
//! Generators are as wide as the contract, with its edges likelier than the rest.

pub(crate) mod damage;
pub mod edits;
pub mod heads;
pub mod text;
pub(crate) mod tokenizers;

pub use arbitrary::{Result, Unstructured};

/// One of `choices`, the first the simplest.
///
/// # Errors
/// There are none: where the bytes end, they go on as zeros.
pub fn choose<T: Copy>(u: &mut Unstructured<'_>, choices: &[T]) -> Result<T> {
    u.choose(choices).copied()
}

/// True once in `n` times; false is the simpler.
///
/// # Errors
/// As [`choose`].
pub fn one_in(u: &mut Unstructured<'_>, n: u8) -> Result<bool> {
    Ok(u.int_in_range(1..=n)? == n)
}

/// `min` to `max` values; fewer are simpler.
///
/// # Errors
/// As [`choose`].
pub fn some<T>(
    u: &mut Unstructured<'_>,
    min: usize,
    max: usize,
    mut draw: impl FnMut(&mut Unstructured<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let count = u.int_in_range(min..=max)?;
    (0..count).map(|_| draw(u)).collect()
}
