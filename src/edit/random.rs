//! Random edits, and families of edits with one number to turn.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::{Change, Edit, EditError, MOST_FLIPS};
use crate::{
    quant::{Layout, Tensor},
    random::SplitMix64,
};

/// How many bits a random family flips.
#[cfg_attr(feature = "testing", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// This many different bits.
    Flips(u64),
    /// Each bit with this probability, 0 to 1.
    Rate(f64),
}

/// Random flips in one tensor.
#[cfg_attr(feature = "testing", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Random {
    /// Where.
    pub tensor: Tensor,
    /// How many.
    pub amount: Amount,
    /// Seed of the generator.
    pub seed: u64,
}

/// Edits that differ by one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// A shift by the value.
    Shift,
    /// A shift by value x 16^K, value 0 to 15: one hexadecimal digit.
    Digit(u32),
    /// The first `value` flips of one random order of all code bits: each edit contains the smaller ones.
    Flips(u64),
    /// Each code bit flipped with the value as probability.
    Rate(u64),
}

/// The number that selects an edit of a family: an integer, or the probability of [`Family::Rate`].
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// The value of a shift, a digit, or a number of flips.
    Integer(i64),
    /// A probability.
    Rate(f64),
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Integer(value) => value.fmt(f),
            // The shortest text that parses back to the same number, with an exponent where that is shorter.
            Self::Rate(rate) => write!(f, "{rate:?}"),
        }
    }
}

impl Random {
    /// The flips that this stands for, in the order in which they are drawn: for [`Amount::Flips`] the first
    /// flips of one random order of all bits of the tensor, so that fewer flips of the same seed are a
    /// prefix; for [`Amount::Rate`] ascending.
    ///
    /// # Errors
    /// [`EditError::NoSuchTensor`]; [`EditError::Flips`], where there are fewer bits; [`EditError::Many`], where it would
    /// be more than 2,000,000; [`EditError::Rate`].
    pub(crate) fn expand(&self, layout: &Layout) -> Result<Vec<Change>, EditError> {
        self.check(layout)?;
        let (columns, bits) = (layout.columns(self.tensor) as u64, layout.element_bits(self.tensor) as u64);
        let total = self.total_bits(layout);
        let mut generator = SplitMix64(self.seed);
        let flip = |at: u64| Change::Flip {
            tensor: self.tensor,
            row: (at / (columns * bits)) as usize,
            column: (at / bits % columns) as usize,
            bit: (at % bits) as u32,
        };
        match self.amount {
            Amount::Flips(flips) => {
                // Fisher and Yates' shuffle of 0..total, of which only the places that were touched are kept.
                let mut moved: HashMap<u64, u64> = HashMap::new();
                Ok((0..flips)
                    .map(|i| {
                        let j = i + generator.below(total - i);
                        let drawn = moved.get(&j).copied().unwrap_or(j);
                        let displaced = moved.get(&i).copied().unwrap_or(i);
                        moved.insert(j, displaced);
                        flip(drawn)
                    })
                    .collect())
            }
            Amount::Rate(rate) => {
                // The gap to the next flip of independent bits is geometric: floor(ln u / ln(1 - rate)).
                let scale = libm::log1p(-rate);
                let mut flips = Vec::new();
                let mut at = 0_u64;
                if rate == 0.0 {
                    return Ok(flips);
                }
                loop {
                    // At rate 1 the scale is minus infinity and every gap 0; a gap beyond u64 saturates.
                    at = at.saturating_add((libm::log(generator.positive_unit()) / scale) as u64);
                    if at >= total {
                        return Ok(flips);
                    }
                    flips.push(flip(at));
                    at += 1;
                }
            }
        }
    }

    pub(super) fn check(&self, layout: &Layout) -> Result<(), EditError> {
        super::has(self.tensor, layout, || Change::Random(*self))?;
        let edit = || Edit::new(vec![Change::Random(*self)]).to_string();
        let limit = self.total_bits(layout);
        match self.amount {
            Amount::Flips(found) if found > limit => Err(EditError::Flips { edit: edit(), found, limit }),
            Amount::Rate(rate) if !(0.0..=1.0).contains(&rate) => Err(EditError::Rate { edit: edit() }),
            Amount::Flips(_) | Amount::Rate(_) if self.expected(layout) > MOST_FLIPS as f64 => {
                Err(EditError::Many { edit: edit(), expected: self.expected(layout).round() as u64 })
            }
            Amount::Flips(_) | Amount::Rate(_) => Ok(()),
        }
    }

    /// Flips that this stands for: their number, or its mean where each bit has a probability.
    pub(crate) fn expected(&self, layout: &Layout) -> f64 {
        match self.amount {
            Amount::Flips(flips) => flips as f64,
            Amount::Rate(rate) => rate * self.total_bits(layout) as f64,
        }
    }

    /// Bits of the tensor.
    fn total_bits(&self, layout: &Layout) -> u64 {
        (layout.rows() * layout.columns(self.tensor)) as u64 * layout.element_bits(self.tensor) as u64
    }
}

impl Family {
    /// Whether each edit of the family contains those of smaller values, so that a bisection over it finds
    /// *the* threshold of that order and not one crossing of several.
    pub const fn nested(self) -> bool {
        matches!(self, Self::Flips(_))
    }

    /// The family's edit at a value. A rate may be given as an integer, 0 or 1.
    ///
    /// # Errors
    /// A message, where the family has no such value.
    pub fn at(self, value: Value) -> Result<Edit, String> {
        match (self, value) {
            (Self::Rate(_), Value::Integer(rate)) => self.edit_at_rate(rate as f64),
            (_, Value::Integer(value)) => self.edit(value),
            (_, Value::Rate(rate)) => self.edit_at_rate(rate),
        }
    }

    /// The family's edit at an integer value.
    ///
    /// # Errors
    /// A message, where the family has no such value.
    pub fn edit(self, value: i64) -> Result<Edit, String> {
        let random = |amount, seed| Edit::new(vec![Change::Random(Random { tensor: Tensor::Weight, amount, seed })]);
        match self {
            Self::Shift => Ok(Edit::shift(value)),
            Self::Digit(digit) => match value {
                0..=15 => Ok(Edit::shift(value << (4 * digit))),
                _ => Err(format!("{value} is no hexadecimal digit (0 to 15)")),
            },
            Self::Flips(seed) => match u64::try_from(value) {
                Ok(0) => Ok(Edit::clean()),
                Ok(flips) => Ok(random(Amount::Flips(flips), seed)),
                Err(_) => Err(format!("{value} flips are fewer than none")),
            },
            Self::Rate(_) => Err("a rate is no integer".to_owned()),
        }
    }

    /// The family's edit at a probability.
    ///
    /// # Errors
    /// A message, where the family is not one of rates or `rate` is no probability.
    pub fn edit_at_rate(self, rate: f64) -> Result<Edit, String> {
        match self {
            Self::Rate(seed) if (0.0..=1.0).contains(&rate) => {
                let random = Random { tensor: Tensor::Weight, amount: Amount::Rate(rate), seed };
                Ok(Edit::new(vec![Change::Random(random)]))
            }
            Self::Rate(_) => Err(format!("{rate} is no probability (0 to 1)")),
            _ => Err(format!("{self} takes integers")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{quant::FloatType, testing::heads::affine};

    fn layout() -> Layout {
        affine(96, 64, 4, 32, FloatType::F16)
    }

    fn flips(amount: Amount, seed: u64) -> Vec<Change> {
        Random { tensor: Tensor::Weight, amount, seed }.expand(&layout()).expect("flips")
    }

    #[test]
    fn a_seed_means_the_same_flips_for_ever() {
        let text = Edit::new(flips(Amount::Flips(4), 3)).to_string();
        assert_eq!(text, "flip:weight[10,57].0+flip:weight[67,14].2+flip:weight[58,54].1+flip:weight[7,0].1");
        let text = Edit::new(flips(Amount::Rate(1e-4), 3)).to_string();
        assert_eq!(text, "flip:weight[85,0].2");
    }

    #[test]
    fn a_value_is_printed_as_the_shortest_text_that_is_the_same_number() {
        assert_eq!(
            [Value::Integer(-3), Value::Rate(1e-6), Value::Rate(0.25)].map(|v| v.to_string()),
            ["-3", "1e-6", "0.25"]
        );
    }

    #[test]
    fn fewer_flips_of_a_seed_are_the_first_of_more() {
        let all = flips(Amount::Flips(500), 7);
        for n in [0, 1, 17, 499] {
            assert_eq!(flips(Amount::Flips(n), 7), all[..n as usize]);
        }
    }

    #[test]
    fn all_bits_can_be_drawn_each_once() {
        let total = 96 * 64 * 4;
        let mut all: Vec<String> =
            flips(Amount::Flips(total), 1).into_iter().map(|flip| Edit::new(vec![flip]).to_string()).collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len() as u64, total);
        let one_more = Random { tensor: Tensor::Weight, amount: Amount::Flips(total + 1), seed: 1 };
        assert!(matches!(one_more.expand(&layout()), Err(EditError::Flips { .. })));
        assert_eq!(flips(Amount::Rate(1.0), 1).len() as u64, total);
        assert_eq!(flips(Amount::Rate(0.0), 1), []);
    }

    #[test]
    fn more_flips_than_an_edit_can_hold_are_refused_before_they_are_drawn() {
        let large = affine(49_152, 576, 4, 64, FloatType::F16);
        let draw = |amount| Random { tensor: Tensor::Weight, amount, seed: 1 }.check(&large);
        assert_eq!(draw(Amount::Flips(MOST_FLIPS)), Ok(()));
        assert!(matches!(draw(Amount::Flips(MOST_FLIPS + 1)), Err(EditError::Many { expected: 2_000_001, .. })));
        assert_eq!(draw(Amount::Rate(0.01)), Ok(()));
        assert!(matches!(draw(Amount::Rate(0.02)), Err(EditError::Many { expected: 2_264_924, .. })));
    }

    #[test]
    fn a_rate_flips_about_its_share_of_the_bits() {
        let total = 96.0 * 64.0 * 4.0;
        for rate in [0.001, 0.03, 0.5] {
            let mean = (0..40).map(|seed| flips(Amount::Rate(rate), seed).len() as f64).sum::<f64>() / 40.0;
            let deviation = (total * rate * (1.0 - rate) / 40.0_f64).sqrt();
            assert!((mean - total * rate).abs() < 5.0 * deviation, "{rate}: {mean}");
        }
    }
}
