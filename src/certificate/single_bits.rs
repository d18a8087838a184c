//! Single bits of all tensors of the head side by side, and which of them the danger comes from.
//!
//! A bit of a code moves one weight, and one of a scale or a bias moves all weights of a group. So scales and biases may be
//! a small part of the head's bits and nearly all of those that change an answer; counts of one tensor alone do not say so.

use serde::{Deserialize, Serialize};

use super::data::Answer;

/// The census of single bits of every tensor of the head.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SingleBits {
    /// Bits of the codes.
    pub weight: BitCount,
    /// Bits of the scales.
    pub scales: BitCount,
    /// Bits of the biases; of none, where the format has no biases.
    pub biases: BitCount,
    /// Bits of all of them.
    pub all: BitCount,
    /// What most of the bits that change the answer belong to, in a sentence.
    pub finding: String,
}

/// Single bits, and how many of them change an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BitCount {
    /// Bits that change some position's token, in real arithmetic.
    pub critical: usize,
    /// Bits of which the bound of the kernel's rounding does not say whether they change a token when executed.
    pub undecided: usize,
    /// All bits.
    pub total: usize,
    /// `critical / total`: the chance that a random flip of one of them changes the answer.
    pub vulnerability: f64,
}

impl BitCount {
    fn new(critical: usize, undecided: usize, total: usize) -> Self {
        Self { critical, undecided, total, vulnerability: share(critical, total) }
    }

    fn and(self, other: Self) -> Self {
        // Of a file that somebody changed the sums may be beyond all numbers.
        let [critical, undecided, total] =
            [(self.critical, other.critical), (self.undecided, other.undecided), (self.total, other.total)]
                .map(|(a, b)| a.saturating_add(b));
        Self::new(critical, undecided, total)
    }
}

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

impl SingleBits {
    /// What a certificate says of single bits.
    pub(crate) fn of(answer: &Answer) -> Self {
        let count = |of: &super::ScaleCensus| BitCount::new(of.critical_bits, of.undecided_bits, of.total_bits);
        let weight = BitCount::new(answer.critical_bits, answer.undecided_bits, answer.total_bits);
        let (scales, biases) = (count(&answer.scales), count(&answer.biases));
        let grouped = scales.and(biases);
        let all = weight.and(grouped);
        Self { weight, scales, biases, all, finding: finding(grouped, biases.total > 0, all) }
    }

    /// Each tensor that there is, by its name, with its bits.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = (&'static str, BitCount)> {
        [("weight", self.weight), ("scales", self.scales), ("biases", self.biases)]
            .into_iter()
            .filter(|(_, count)| count.total > 0)
    }
}

fn finding(grouped: BitCount, has_biases: bool, all: BitCount) -> String {
    if all.critical == 0 {
        return "no single bit of the head changes the answer".to_owned();
    }
    let (bits, critical) = (share(grouped.total, all.total), share(grouped.critical, all.critical));
    let what = if has_biases { "scales and biases" } else { "scales" };
    let said = format!(
        "{what} are {} of the head's bits and {} of those that change the answer",
        percent(bits),
        percent(critical)
    );
    if critical >= 0.5 { format!("{said}: they dominate") } else { format!("{said}: the codes dominate") }
}

/// With one decimal, or with as many as it takes to tell it from nothing and from all.
fn percent(share: f64) -> String {
    let percent = 100.0 * share;
    let decimals = (1..6).find(|&decimals| {
        let rounded = format!("{percent:.decimals$}").parse::<f64>();
        rounded.is_ok_and(|rounded| (rounded == 0.0) == (percent == 0.0) && (rounded == 100.0) == (percent == 100.0))
    });
    format!("{percent:.*} %", decimals.unwrap_or(6))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_says_what_dominates() {
        let of = |critical, total| BitCount::new(critical, 0, total);
        let found = |grouped: BitCount, biases, weight: BitCount| finding(grouped, biases, grouped.and(weight));
        assert_eq!(
            found(of(1_900_000, 14_155_776), true, of(5_194, 113_246_208)),
            "scales and biases are 11.1 % of the head's bits and 99.7 % of those that change the answer: they dominate"
        );
        assert_eq!(
            found(of(1, 100), false, of(9, 100)),
            "scales are 50.0 % of the head's bits and 10.0 % of those that change the answer: the codes dominate"
        );
        assert_eq!(found(of(0, 10), true, of(0, 10)), "no single bit of the head changes the answer");
        assert!(found(of(999_999, 10), true, of(1, 10)).contains("99.9999 % of those"));
        // Of a file that is not ours.
        assert!(found(of(usize::MAX, 0), true, of(usize::MAX, usize::MAX)).contains("dominate"));
    }
}
