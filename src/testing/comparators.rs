//! What counts as equal, in one place.
//!
//! A test that compares anything else than whole values compares through this module, whose own tests show that
//! it fails: on a wrong value, where 0 is expected, and on what is not a number.

use std::fmt;

/// Where two lists of numbers differ first.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Index of the first difference; the shorter length, where one list is the beginning of the other.
    pub at: usize,
    /// What stands there, with its bits.
    pub found: String,
    /// What should.
    pub expected: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} where {} is expected", self.found, self.at, self.expected)
    }
}

/// Equal to the bit, but that any NaN is any other: which of them an operation gives is the processor's choice.
/// Zeros of different sign differ.
///
/// # Errors
/// The first [`Difference`].
pub fn same_bits(found: &[f32], expected: &[f32]) -> Result<(), Difference> {
    first_difference(found, expected, |a, b| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan())
}

/// As [`same_bits`], for doubles.
///
/// # Errors
/// The first [`Difference`].
pub fn same_bits_double(found: &[f64], expected: &[f64]) -> Result<(), Difference> {
    first_difference(found, expected, |a, b| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan())
}

fn first_difference<T: Copy + fmt::LowerExp>(
    found: &[T],
    expected: &[T],
    same: impl Fn(T, T) -> bool,
) -> Result<(), Difference> {
    let text = |x: Option<&T>| x.map_or("nothing".to_owned(), |x| format!("{x:e}"));
    let at = (0..found.len().max(expected.len())).find(|&i| match (found.get(i), expected.get(i)) {
        (Some(&a), Some(&b)) => !same(a, b),
        _ => true,
    });
    match at {
        None => Ok(()),
        Some(at) => Err(Difference { at, found: text(found.get(at)), expected: text(expected.get(at)) }),
    }
}

/// A NaN that no arithmetic gives: outputs are filled with it, so that one that is never written is seen.
pub(crate) const POISON: f32 = f32::from_bits(0x7fc0_dead);

/// Whether every element was written since it was [`POISON`].
///
/// # Errors
/// The index of the first that was not.
pub(crate) fn all_written(found: &[f32]) -> Result<(), usize> {
    found.iter().position(|x| x.to_bits() == POISON.to_bits()).map_or(Ok(()), Err)
}

/// How far a number may lie from what is expected: `|found - expected| <= absolute + relative * |expected|`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Band {
    /// Allowed whatever the size.
    pub absolute: f64,
    /// Allowed in proportion to what is expected.
    pub relative: f64,
}

impl Band {
    /// Whether `found` lies within the band around `expected`. What is not a number lies within no band, and an
    /// infinity only within its own.
    pub fn holds(self, found: f64, expected: f64) -> bool {
        if !found.is_finite() || !expected.is_finite() {
            return found == expected;
        }
        (found - expected).abs() <= self.absolute + self.relative * expected.abs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_bit_is_seen_wherever_it_is() {
        let expected = [1.0_f32, 0.0, -2.5e-39, f32::INFINITY];
        assert_eq!(same_bits(&expected, &expected), Ok(()));
        for at in 0..expected.len() {
            for bit in 0..32 {
                let mut wrong = expected;
                wrong[at] = f32::from_bits(wrong[at].to_bits() ^ 1 << bit);
                assert_eq!(same_bits(&wrong, &expected).expect_err("a wrong bit").at, at, "bit {bit}");
            }
        }
        assert_eq!(same_bits_double(&[1.0, 2.0], &[1.0, 2.0 + f64::EPSILON * 2.0]).expect_err("a wrong bit").at, 1);
    }

    #[test]
    fn where_0_is_expected_nothing_else_will_do() {
        for wrong in [-0.0, f32::from_bits(1), -f32::from_bits(1), 1e-30, 1.0, f32::NAN, f32::INFINITY] {
            assert!(same_bits(&[wrong], &[0.0]).is_err(), "{wrong}");
        }
        let band = Band { absolute: 0.0, relative: 0.5 };
        for wrong in [f64::MIN_POSITIVE, -1e-300, 1.0, f64::NAN, f64::INFINITY] {
            assert!(!band.holds(wrong, 0.0), "{wrong}");
        }
        assert!(band.holds(0.0, 0.0) && band.holds(-0.0, 0.0));
    }

    #[test]
    fn a_nan_is_a_nan_and_no_number() {
        let other = f32::from_bits(0xffc0_0001);
        assert_eq!(same_bits(&[other], &[f32::NAN]), Ok(()));
        assert!(same_bits(&[1.0], &[f32::NAN]).is_err() && same_bits(&[f32::NAN], &[1.0]).is_err());
        let band = Band { absolute: f64::MAX, relative: f64::MAX };
        assert!(!band.holds(f64::NAN, f64::NAN) && !band.holds(f64::NAN, 1.0) && !band.holds(1.0, f64::NAN));
    }

    #[test]
    fn a_list_that_is_shorter_or_longer_differs() {
        assert_eq!(same_bits(&[1.0], &[1.0, 2.0]).expect_err("too short").at, 1);
        assert_eq!(same_bits(&[1.0, 2.0], &[1.0]).expect_err("too long").at, 1);
        assert_eq!(same_bits(&[], &[]), Ok(()));
    }

    #[test]
    fn an_output_that_was_not_written_is_seen() {
        assert_eq!(all_written(&[1.0, f32::NAN, -f32::NAN]), Ok(()));
        assert_eq!(all_written(&[1.0, POISON]), Err(1));
    }

    #[test]
    fn a_band_ends_where_it_says() {
        let band = Band { absolute: 0.5, relative: 0.25 };
        for (found, expected, holds) in
            [(4.5, 4.0, true), (5.5, 4.0, true), (5.501, 4.0, false), (2.499, 4.0, false), (-4.0, 4.0, false)]
        {
            assert_eq!(band.holds(found, expected), holds, "{found} for {expected}");
        }
        assert!(band.holds(f64::INFINITY, f64::INFINITY) && !band.holds(f64::NEG_INFINITY, f64::INFINITY));
        assert!(!band.holds(1e300, f64::INFINITY) && !band.holds(f64::INFINITY, 1e300));
    }
}
