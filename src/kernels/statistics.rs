//! What is known of logits span by span, so that where few of them are replaced, few spans are read again
//! ([`Peaks::top_replaced`], [`Spans::replaced`]); what comes out is what reading all of them gives, to the bit.

use super::{kernel::Kernel, specification::logits::SPAN};

/// The two largest logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Top {
    /// Index of the first largest logit.
    pub token: usize,
    /// Its value.
    pub best: f32,
    /// The largest of the others, of equals the first; minus infinity where there is no other.
    pub second: f32,
}

impl Kernel {
    /// The two largest logits, the first of equals first; `None` if one is not finite.
    pub fn top(self, logits: &[f32]) -> Option<Top> {
        Peaks::new(self, logits).top(logits)
    }

    /// `ln(sum_i exp(logits[i]))`, in f64; NaN if one is not finite.
    pub(crate) fn log_sum_exp(self, logits: &[f32]) -> f64 {
        Spans::new(self, logits).log_sum_exp()
    }
}

/// Logits that take the place of others: at `index`, ascending, stand `logits`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Replaced<'a> {
    /// Indices in the vocabulary.
    pub index: &'a [usize],
    /// One for each.
    pub logits: &'a [f32],
}

impl Replaced<'_> {
    /// Calls `each` with every span that holds one of them, as it is with them in place.
    fn spans(self, logits: &[f32], mut each: impl FnMut(usize, &[f32])) {
        let mut at = 0;
        while let Some(&first) = self.index.get(at) {
            let span = first / SPAN;
            let old = &logits[span * SPAN..logits.len().min((span + 1) * SPAN)];
            let mut own = [0.0; SPAN];
            own[..old.len()].copy_from_slice(old);
            while let Some(index) = self.index.get(at).filter(|&&index| index / SPAN == span) {
                own[index % SPAN] = self.logits[at];
                at += 1;
            }
            each(span, &own[..old.len()]);
        }
    }

    /// Where `x` stands first in `span`, with them in place.
    fn first_in(self, logits: &[f32], span: usize, x: f32) -> usize {
        let mut found = None;
        self.spans(logits, |touched, own| {
            if touched == span {
                found = own.iter().position(|&y| y == x).map(|at| span * SPAN + at);
            }
        });
        found.unwrap_or_else(|| first_in(logits, span, x))
    }
}

fn first_in(logits: &[f32], span: usize, x: f32) -> usize {
    span * SPAN + logits[span * SPAN..].iter().position(|&y| y == x).expect("the span's best is one of its logits")
}

/// The best and the second of each span of some logits.
#[derive(Clone, Debug)]
pub(crate) struct Peaks {
    kernel: Kernel,
    best: Vec<f32>,
    second: Vec<f32>,
    /// Of the spans that an edit touches: their number, best and second.
    before: Vec<(usize, f32, f32)>,
}

impl Peaks {
    /// Of `logits`.
    pub(crate) fn new(kernel: Kernel, logits: &[f32]) -> Self {
        let mut new = Self::empty(kernel, logits);
        kernel.peaks(logits, &mut new.best, &mut new.second);
        new
    }

    fn empty(kernel: Kernel, logits: &[f32]) -> Self {
        let count = logits.len().div_ceil(SPAN);
        Self { kernel, best: vec![0.0; count], second: vec![0.0; count], before: Vec::new() }
    }

    /// The two largest of the `logits` that these are of; `None` if one is not finite.
    pub(crate) fn top(&self, logits: &[f32]) -> Option<Top> {
        let (span, best, second) = self.kernel.first_two(&self.best, &self.second)?;
        Some(Top { token: first_in(logits, span, best), best, second })
    }

    /// The two largest where some of the `logits` that these are of are replaced; `None` if one is not finite.
    ///
    /// # Panics
    /// If an index is beyond the logits.
    pub(crate) fn top_replaced(&mut self, logits: &[f32], replaced: Replaced<'_>) -> Option<Top> {
        self.before.clear();
        replaced.spans(logits, |span, own| {
            self.before.push((span, self.best[span], self.second[span]));
            self.kernel.peaks(own, &mut self.best[span..=span], &mut self.second[span..=span]);
        });
        let top = self.kernel.first_two(&self.best, &self.second);
        for &(span, best, second) in &self.before {
            (self.best[span], self.second[span]) = (best, second);
        }
        let (span, best, second) = top?;
        Some(Top { token: replaced.first_in(logits, span, best), best, second })
    }
}

/// What the two largest of some logits and their log-sum-exp are made of, span by span.
#[derive(Clone, Debug)]
pub(crate) struct Spans {
    peaks: Peaks,
    /// Of `exp(logit - best)`.
    sum: Vec<f64>,
    /// `sum * exp(best - the largest of all)`.
    term: Vec<f64>,
    /// The same under another largest.
    other: Vec<f64>,
    /// As in [`Peaks`]: number, sum and term.
    before: Vec<(usize, f64, f64)>,
    top: Option<Top>,
    log_sum_exp: f64,
}

impl Spans {
    /// Of `logits`.
    pub(crate) fn new(kernel: Kernel, logits: &[f32]) -> Self {
        let mut peaks = Peaks::empty(kernel, logits);
        let mut sum = vec![0.0; peaks.best.len()];
        kernel.spans(logits, &mut peaks.best, &mut peaks.second, &mut sum);
        let mut term = vec![0.0; sum.len()];
        let top = peaks.top(logits);
        let log_sum_exp = match top {
            Some(top) => {
                kernel.terms(&peaks.best, &sum, top.best, &mut term);
                f64::from(top.best) + libm::log(kernel.total(&term))
            }
            None => f64::NAN,
        };
        Self { peaks, sum, other: term.clone(), term, before: Vec::new(), top, log_sum_exp }
    }

    /// The two largest; `None` if one is not finite.
    pub(crate) const fn top(&self) -> Option<Top> {
        self.top
    }

    /// `ln(sum_i exp(logits[i]))`; NaN if one is not finite.
    pub(crate) const fn log_sum_exp(&self) -> f64 {
        self.log_sum_exp
    }

    /// The two largest and the log-sum-exp where some of the `logits` that these are of are replaced; `None` if one is
    /// not finite.
    ///
    /// # Panics
    /// If an index is beyond the logits.
    pub(crate) fn replaced(&mut self, logits: &[f32], replaced: Replaced<'_>) -> Option<(Top, f64)> {
        let Self { peaks, sum, term, other, before, .. } = self;
        let kernel = peaks.kernel;
        before.clear();
        peaks.before.clear();
        replaced.spans(logits, |span, own| {
            peaks.before.push((span, peaks.best[span], peaks.second[span]));
            before.push((span, sum[span], term[span]));
            let at = span..=span;
            kernel.spans(own, &mut peaks.best[at.clone()], &mut peaks.second[at.clone()], &mut sum[at]);
        });
        let found = kernel.first_two(&peaks.best, &peaks.second).map(|(span, best, second)| {
            let total = if self.top.is_some_and(|top| top.best == best) {
                for &(span, ..) in &*before {
                    kernel.terms(&peaks.best[span..=span], &sum[span..=span], best, &mut term[span..=span]);
                }
                kernel.total(term)
            } else {
                kernel.terms(&peaks.best, sum, best, other);
                kernel.total(other)
            };
            (span, best, second, f64::from(best) + libm::log(total))
        });
        for &(span, best, second) in &peaks.before {
            (peaks.best[span], peaks.second[span]) = (best, second);
        }
        for &(span, old, old_term) in &*before {
            (sum[span], term[span]) = (old, old_term);
        }
        let (span, best, second, log_sum_exp) = found?;
        Some((Top { token: replaced.first_in(logits, span, best), best, second }, log_sum_exp))
    }
}

/// How far some logits lie from those of another distribution, each weighed by its probability there, span by span.
#[derive(Clone, Debug)]
pub(crate) struct Differences {
    kernel: Kernel,
    sum: Vec<f64>,
    /// Of the spans that an edit touches: their number and sum.
    before: Vec<(usize, f64)>,
}

impl Differences {
    /// Of `logits` from `clean`, whose probabilities are `p`; all of one length.
    pub(crate) fn new(kernel: Kernel, p: &[f64], clean: &[f32], logits: &[f32]) -> Self {
        let mut sum = vec![0.0; logits.len().div_ceil(SPAN)];
        kernel.differences(p, clean, logits, &mut sum);
        Self { kernel, sum, before: Vec::new() }
    }

    /// `sum_i p[i] * (clean[i] - logits[i])`.
    pub(crate) fn mean(&self) -> f64 {
        self.kernel.total(&self.sum)
    }

    /// The same where some of the `logits` are replaced; the others are as they were given.
    ///
    /// # Panics
    /// If an index is beyond the logits.
    pub(crate) fn mean_replaced(&mut self, p: &[f64], clean: &[f32], logits: &[f32], replaced: Replaced<'_>) -> f64 {
        self.before.clear();
        replaced.spans(logits, |span, own| {
            self.before.push((span, self.sum[span]));
            let at = span * SPAN..span * SPAN + own.len();
            self.kernel.differences(&p[at.clone()], &clean[at], own, &mut self.sum[span..=span]);
        });
        let mean = self.mean();
        for &(span, sum) in &self.before {
            self.sum[span] = sum;
        }
        mean
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn top(logits: &[f32]) -> Option<Top> {
        Kernel::best().top(logits)
    }

    #[test]
    fn the_first_largest_logit_wins_and_the_second_may_equal_it() {
        let mut z = vec![0.0_f32; 1000];
        for (first, then) in [(37, 71), (3, 999), (130, 131), (127, 128)] {
            (z[first], z[then]) = (5.0, 5.0);
            assert_eq!(top(&z), Some(Top { token: first, best: 5.0, second: 5.0 }));
            z[then] = 4.0;
            assert_eq!(top(&z), Some(Top { token: first, best: 5.0, second: 4.0 }));
            (z[first], z[then]) = (0.0, 0.0);
        }
        assert_eq!(top(&[-1.0]), Some(Top { token: 0, best: -1.0, second: f32::NEG_INFINITY }));
        assert_eq!(top(&[]), None);
    }

    #[test]
    fn of_zeros_the_first_counts_whatever_their_signs_and_wherever_they_stand() {
        for (a, b) in [(0.0_f32, -0.0_f32), (-0.0, 0.0)] {
            // Before and after the largest, in its span and in others.
            for (largest, first, then) in [(300, 1, 16), (300, 1, 301), (2, 1, 300), (299, 298, 500), (2, 301, 400)] {
                let mut z = vec![-1.0_f32; 600];
                (z[largest], z[first], z[then]) = (1.0, a, b);
                let second = top(&z).expect("finite").second;
                assert_eq!(second.to_bits(), a.to_bits(), "{largest} {first} {then}");
                z[largest] = -1.0;
                let Top { token, best, second } = top(&z).expect("finite");
                assert_eq!((token, best.to_bits(), second.to_bits()), (first, a.to_bits(), b.to_bits()));
            }
        }
    }

    #[test]
    fn one_logit_that_is_not_finite_is_seen_wherever_it_stands() {
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in 0..293 {
                let mut z = vec![1.0_f32; 293];
                z[at] = bad;
                assert_eq!(top(&z), None, "{bad} at {at}");
                assert!(Kernel::best().log_sum_exp(&z).is_nan(), "{bad} at {at}");
            }
        }
    }

    #[test]
    fn log_sum_exp_and_divergence_agree_with_their_definitions() {
        let kernel = Kernel::best();
        let a: Vec<f32> = (0..1003).map(|i| (i as f32 * 0.37).sin() * 9.0).collect();
        let b: Vec<f32> = (0..1003).map(|i| (i as f32 * 0.53).cos() * 7.0).collect();
        let lse = |z: &[f32]| z.iter().map(|&x| f64::from(x).exp()).sum::<f64>().ln();
        let (la, lb) = (kernel.log_sum_exp(&a), kernel.log_sum_exp(&b));
        assert!((la - lse(&a)).abs() < 1e-12 && (lb - lse(&b)).abs() < 1e-12);
        let mut p = vec![0.0; a.len()];
        kernel.probabilities(&a, la, &mut p);
        assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        let kl = Differences::new(kernel, &p, &a, &b).mean() + lb - la;
        let slow: f64 = (0..a.len())
            .map(|i| {
                let (p, q) = (f64::from(a[i]) - la, f64::from(b[i]) - lb);
                p.exp() * (p - q)
            })
            .sum();
        assert!((kl - slow).abs() < 1e-12 && kl > 0.1, "{kl} {slow}");
    }
}
