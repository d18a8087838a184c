//! A limit to the work of a template, so that none runs or grows without end.

use std::cell::Cell;

use super::error::{Error, Result};

/// Steps that a template may take: about one for each value computed and for each byte of text made. One that is
/// larger than any in use takes some ten thousand.
const FUEL: u64 = 5_000_000;

thread_local! {
    /// What the rendering on this thread has left. Work is done in the depths of comparisons and printing, to
    /// which nothing else of the renderer is handed down.
    static LEFT: Cell<u64> = const { Cell::new(FUEL) };
}

/// Fills up.
pub(super) fn start() {
    LEFT.set(FUEL);
}

/// Takes `steps` off.
pub(super) fn charge(steps: usize) -> Result<()> {
    let left = LEFT.get();
    match left.checked_sub(steps as u64) {
        Some(left) => {
            LEFT.set(left);
            Ok(())
        }
        None => Err(Error::refused("it takes too long, or makes too much text")),
    }
}

/// Steps taken since the start.
#[cfg(test)]
pub(super) fn spent() -> u64 {
    FUEL - LEFT.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_start_fills_up_and_what_is_there_can_be_taken() {
        start();
        assert!(charge(FUEL as usize).is_ok() && charge(1).is_err());
        start();
        assert!(charge(1).is_ok());
        assert_eq!(spent(), 1);
    }
}
