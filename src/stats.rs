//! What a count or a handful of verdicts says beyond itself: intervals.
//!
//! Both intervals are computed, not drawn: the same numbers give the same interval, without a seed.
//!
//! # Wilson's interval of a proportion
//!
//! Of `n` independent trials `x` succeeded, `p = x / n`, and `z` is the normal quantile of 97.5 %:
//!
//! ```text
//! center = (p + z^2 / 2n) / (1 + z^2 / n)
//! half   = z / (1 + z^2 / n) * sqrt(p (1 - p) / n + z^2 / 4n^2)
//! ```
//!
//! (E. B. Wilson, *Probable inference, the law of succession, and statistical inference*, JASA 22, 1927.) It keeps
//! about 95 % near 0 and 1, where the textbook's `p ± z sqrt(p (1 - p) / n)` is empty.
//!
//! # The bootstrap of a median of ordinal values
//!
//! The median of `n` sorted values is the one at index `n / 2`, from 0: of an even number the worse of the two
//! middle ones, since between two verdicts there is nothing. The percentile interval of the bootstrap (B. Efron,
//! *Bootstrap methods: another look at the jackknife*, Annals of Statistics 7, 1979) asks how the median of `n`
//! values drawn with replacement is distributed. Here that needs no drawing: it is at most `v` exactly if more than
//! `n - 1 - n / 2` of the drawn values are, and their number is binomial,
//!
//! ```text
//! P(median* <= v) = P(Binomial(n, F(v)) >= n / 2 + 1)
//! ```
//!
//! with `F(v)` the share of the observed values that are at most `v`. The ends of the interval are the least values
//! at which this reaches 2.5 % and 97.5 %.

/// The standard normal distribution's quantile of 97.5 %.
const Z: f64 = 1.959_963_984_540_054;

/// Wilson's interval of 95 % for the probability that `successes` of `trials` estimate: its two ends, within 0 to 1;
/// `None` without a trial.
///
/// # Panics
/// If there are more successes than trials.
pub(crate) fn wilson(successes: usize, trials: usize) -> Option<[f64; 2]> {
    assert!(successes <= trials, "{successes} of {trials}");
    if trials == 0 {
        return None;
    }
    let (x, n) = (successes as f64, trials as f64);
    let (p, scale) = (x / n, 1.0 + Z * Z / n);
    let center = (p + Z * Z / (2.0 * n)) / scale;
    let half = Z / scale * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    // Where nothing or everything succeeded an end is 0 or 1 but for rounding.
    let lo = if successes == 0 { 0.0 } else { (center - half).max(0.0) };
    let hi = if successes == trials { 1.0 } else { (center + half).min(1.0) };
    Some([lo, hi])
}

/// The median, the greater of the two middle values of an even number; `None` of nothing.
pub(crate) fn median<T: Ord + Copy>(values: &[T]) -> Option<T> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied()
}

/// As [`median`], of values of which there are so many each, ascending.
pub(crate) fn median_of_counts<T: Copy>(counts: &[(T, usize)]) -> Option<T> {
    let mut middle = total(counts) / 2;
    counts
        .iter()
        .find(|&&(_, count)| {
            middle < count || {
                middle -= count;
                false
            }
        })
        .map(|&(value, _)| value)
}

/// The percentile bootstrap's interval of 95 % of [`median_of_counts`]; `None` of nothing.
pub(crate) fn median_interval<T: Copy>(counts: &[(T, usize)]) -> Option<[T; 2]> {
    let n = total(counts);
    let mut at_most = 0;
    let tails: Vec<(T, f64)> = counts
        .iter()
        .filter(|&&(_, count)| count > 0)
        .map(|&(value, count)| {
            at_most += count;
            (value, tail(n, at_most, n / 2 + 1))
        })
        .collect();
    let reaches = |level: f64| tails.iter().find(|&&(_, tail)| tail >= level).map(|&(value, _)| value);
    Some([reaches(0.025)?, reaches(0.975)?])
}

fn total<T>(counts: &[(T, usize)]) -> usize {
    counts.iter().map(|(_, count)| count).sum()
}

/// The probability that a binomial variable of `n` trials, each with probability `x / n`, is at least `least`.
fn tail(n: usize, x: usize, least: usize) -> f64 {
    if x == n {
        return 1.0;
    }
    let p = x as f64 / n as f64;
    let (ln_p, ln_q) = (libm::log(p), libm::log1p(-p));
    let ln_factorial = |k: usize| libm::lgamma(k as f64 + 1.0);
    let term = |k: usize| {
        let ln_choose = ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k);
        libm::exp(ln_choose + k as f64 * ln_p + (n - k) as f64 * ln_q)
    };
    (least..=n).map(term).sum()
}

/// The 99th percentile by nearest rank: the smallest value that at least 99 % do not exceed; `None` of nothing, and where
/// it is not finite.
pub(crate) fn percentile_99(x: &[f64]) -> Option<f64> {
    let mut sorted = x.to_vec();
    sorted.sort_by(f64::total_cmp);
    // ceil(0.99 n), in integers: 0.99 has no exact binary form.
    sorted.get((99 * sorted.len()).div_ceil(100).checked_sub(1)?).copied().filter(|x| x.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: Option<[f64; 2]>, expected: [f64; 2]) {
        let found = found.expect("an interval");
        for (found, expected) in found.into_iter().zip(expected) {
            assert!((found - expected).abs() < 5e-5, "{found} is not {expected}");
        }
    }

    #[test]
    fn wilsons_interval_is_the_published_one() {
        // R. G. Newcombe, Statistics in Medicine 17, 1998, table I, method 3.
        close(wilson(81, 263), [0.2553, 0.3662]);
        close(wilson(15, 148), [0.0624, 0.1605]);
        close(wilson(0, 20), [0.0, 0.1611]);
        close(wilson(1, 29), [0.0061, 0.1718]);
    }

    #[test]
    fn wilsons_interval_holds_the_proportion_and_stays_within_0_and_1() {
        for n in 1..60 {
            for x in 0..=n {
                let [lo, hi] = wilson(x, n).expect("an interval");
                let p = x as f64 / n as f64;
                assert!(0.0 <= lo && lo <= p && p <= hi && hi <= 1.0 && lo < hi, "{x} of {n}: {lo}, {hi}");
                let [mirrored, _] = wilson(n - x, n).expect("an interval");
                assert!((mirrored - (1.0 - hi)).abs() < 1e-12, "{x} of {n}");
            }
        }
        assert_eq!(wilson(0, 0), None);
        let [lo, hi] = wilson(usize::MAX / 2, usize::MAX).expect("an interval");
        assert!(lo < 0.5 + 1e-9 && hi > 0.5 - 1e-9 && hi - lo < 1e-8);
    }

    #[test]
    fn the_median_of_an_even_number_is_the_worse_of_the_middle_two() {
        assert_eq!(median::<u8>(&[]), None);
        assert_eq!(median(&[3]), Some(3));
        assert_eq!(median(&[1, 3]), Some(3));
        assert_eq!(median(&[5, 1, 3]), Some(3));
        assert_eq!(median(&[4, 1, 2, 3]), Some(3));
        for values in [&[][..], &[3], &[1, 3], &[5, 1, 3], &[4, 1, 2, 3], &[2, 2, 0, 0], &[7, 7, 7]] {
            assert_eq!(median_of_counts(&counts(values)), median::<u8>(values), "{values:?}");
        }
    }

    /// How often each value is there, ascending, and of one that is not.
    fn counts(values: &[u8]) -> Vec<(u8, usize)> {
        (0..=values.iter().max().map_or(0, |max| max + 1))
            .map(|value| (value, values.iter().filter(|&&other| other == value).count()))
            .collect()
    }

    /// The same interval by drawing every possible sample with replacement.
    fn by_all_samples(values: &[u8]) -> [u8; 2] {
        let n = values.len();
        let mut medians: Vec<u8> = (0..n.pow(n as u32))
            .map(|mut sample| {
                let drawn: Vec<u8> = (0..n)
                    .map(|_| {
                        let value = values[sample % n];
                        sample /= n;
                        value
                    })
                    .collect();
                median(&drawn).expect("a median")
            })
            .collect();
        medians.sort_unstable();
        // The least value that at least this share does not exceed.
        [0.025, 0.975].map(|level| medians[(level * medians.len() as f64).ceil() as usize - 1])
    }

    #[test]
    fn the_medians_interval_is_that_of_all_samples_with_replacement() {
        assert_eq!(median_interval::<u8>(&[]), None);
        assert_eq!(median_interval(&[(1, 0)]), None);
        for values in
            [&[2][..], &[0, 5], &[1, 1, 4], &[0, 1, 2, 3], &[5, 0, 0, 2, 2], &[0, 1, 2, 3, 4, 5], &[3, 3, 3, 3, 0, 3]]
        {
            assert_eq!(median_interval(&counts(values)), Some(by_all_samples(values)), "{values:?}");
        }
    }

    #[test]
    fn the_medians_interval_narrows_with_more_values() {
        let spread = |n: usize| (0..6).map(|value| (value, n / 6)).collect::<Vec<_>>();
        let [lo, hi] = median_interval(&spread(6)).expect("an interval");
        assert!(hi - lo >= 3, "{lo} to {hi}");
        assert_eq!(median_interval(&spread(60_000)), Some([2, 3]));
        assert_eq!(median_interval(&[(4_u8, 1000)]), Some([4, 4]));
    }

    #[test]
    fn the_99th_percentile_is_the_nearest_rank() {
        let numbers = |n: i32| (1..=n).map(f64::from).collect::<Vec<_>>();
        assert_eq!(percentile_99(&numbers(1)), Some(1.0));
        assert_eq!(percentile_99(&numbers(10)), Some(10.0));
        assert_eq!(percentile_99(&numbers(100)), Some(99.0));
        assert_eq!(percentile_99(&numbers(101)), Some(100.0));
        assert_eq!(percentile_99(&[]), None);
        assert_eq!(percentile_99(&[1.0, f64::NAN]), None);
    }
}
