//! Sums that do not round.
//!
//! A certificate compares a margin with a sum of gains. In `f64` the two are off by some 1e-12 of the logit; where
//! they lie closer together than that, as in a head with equal rows, the comparison is made here instead. Trials are added
//! up here, too, since parts of a run come in any order, and a sum that is rounded once is the same in every order.

use std::cmp::Ordering;

/// A sum that loses nothing: an expansion of `f64`s that do not overlap, the largest last (Shewchuk, *Adaptive
/// Precision Floating-Point Arithmetic and Fast Robust Geometric Predicates*, 1997: `Grow-Expansion` with zero
/// elimination).
#[derive(Clone, Debug, Default)]
pub(crate) struct Sum {
    parts: Vec<f64>,
}

impl Sum {
    pub(crate) fn add(&mut self, mut x: f64) {
        let mut kept = 0;
        for i in 0..self.parts.len() {
            let (sum, lost) = two_sum(x, self.parts[i]);
            if lost != 0.0 {
                self.parts[kept] = lost;
                kept += 1;
            }
            x = sum;
        }
        self.parts.truncate(kept);
        if x != 0.0 {
            self.parts.push(x);
        }
    }

    /// Adds `a * b`. The rounding error of the product is a number itself as long as neither it nor the product
    /// leaves the range of `f64`, which products of a code's value and two `f32` do not: they are at least 2^-298 and at
    /// most 2^264, and a multiple of 2^-298. (A float of 8 bits is a multiple of 2^-9; the scales beside it are at least
    /// 2^-127.)
    pub(crate) fn add_product(&mut self, a: f64, b: f64) {
        let product = a * b;
        self.add(a.mul_add(b, -product));
        self.add(product);
    }

    /// How the sum compares with zero: as its largest part does.
    pub(crate) fn sign(&self) -> Ordering {
        self.parts.last().map_or(Ordering::Equal, |last| last.total_cmp(&0.0))
    }

    /// The sum of one number.
    pub(crate) fn of(x: f64) -> Self {
        Self { parts: if x == 0.0 { Vec::new() } else { vec![x] } }
    }

    /// Both sums together.
    pub(crate) fn plus(&self, other: &Self) -> Self {
        let mut sum = self.clone();
        other.parts.iter().for_each(|&part| sum.add(part));
        sum
    }

    /// How the sum compares with another.
    pub(crate) fn compare(&self, other: &Self) -> Ordering {
        let mut difference = self.clone();
        other.parts.iter().for_each(|&part| difference.add(-part));
        difference.sign()
    }

    /// The sum, rounded.
    pub(crate) fn value(&self) -> f64 {
        self.parts.iter().sum()
    }

    /// The `f64` nearest to the sum, of two that are equally near the even one: the same number, in whatever order the
    /// terms came.
    pub(crate) fn nearest(&self) -> f64 {
        let mut parts = self.parts.iter().rev().copied();
        let Some(mut nearest) = parts.next() else { return 0.0 };
        while let Some(part) = parts.next() {
            let (sum, lost) = two_sum(nearest, part);
            nearest = sum;
            if lost == 0.0 {
                continue;
            }
            // What was lost may be half of a last bit. Then the parts that follow say on which side the sum lies.
            let rest = parts.next().unwrap_or(0.0);
            let twice = 2.0 * lost;
            if lost.signum() == rest.signum() && rest != 0.0 && (nearest + twice) - nearest == twice {
                nearest += twice;
            }
            break;
        }
        nearest
    }
}

/// `a + b` rounded, and what the rounding lost (Knuth).
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let of_b = sum - a;
    let of_a = sum - of_b;
    (sum, (a - of_a) + (b - of_b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sign(terms: &[f64]) -> Ordering {
        let mut sum = Sum::default();
        terms.iter().for_each(|&term| sum.add(term));
        sum.sign()
    }

    #[test]
    fn what_rounding_would_swallow_decides() {
        assert_eq!(sign(&[]), Ordering::Equal);
        assert_eq!(sign(&[1e16, 1.0, -1e16]), Ordering::Greater);
        assert_eq!(sign(&[1e16, -1.0, -1e16]), Ordering::Less);
        assert_eq!(sign(&[1e16, 1.0, -1e16, -1.0]), Ordering::Equal);
        assert_eq!(sign(&[1e-300, 1e300, -1e300, -2e-300, 1e-300]), Ordering::Equal);
    }

    #[test]
    fn products_are_exact() {
        let third = f64::from(1.0_f32 / 3.0);
        let wide = 255.0 * third;
        let mut sum = Sum::default();
        sum.add_product(wide, third);
        sum.add(-(wide * third));
        // The product has 56 bits, three more than an f64, so its rounded value is another number.
        assert_ne!(sum.sign(), Ordering::Equal);
        (0..255).for_each(|_| sum.add(-(third * third)));
        sum.add(wide * third);
        assert_eq!(sum.sign(), Ordering::Equal);
    }

    #[test]
    fn the_nearest_number_is_the_same_in_every_order() {
        let nearest = |terms: &[f64]| {
            let mut sum = Sum::default();
            terms.iter().for_each(|&term| sum.add(term));
            sum.nearest()
        };
        assert_eq!(nearest(&[]).to_bits(), 0);
        assert_eq!(nearest(&[0.1; 10]), 1.0);
        // Half of the last bit of 1, and a little more or less.
        let half = f64::EPSILON / 2.0;
        assert_eq!(nearest(&[1.0, half]), 1.0);
        assert_eq!(nearest(&[1.0, half, 1e-300]), 1.0 + f64::EPSILON);
        assert_eq!(nearest(&[1.0 + f64::EPSILON, half, -1e-300]), 1.0 + f64::EPSILON);
        let mut generator = crate::random::SplitMix64(1);
        let mut terms: Vec<f64> = (0..500).map(|i| generator.positive_unit() * 10_f64.powi(i % 40 - 20)).collect();
        let expected = nearest(&terms);
        for _ in 0..50 {
            generator.shuffle(&mut terms);
            assert_eq!(nearest(&terms).to_bits(), expected.to_bits());
        }
    }
}
