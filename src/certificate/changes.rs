//! What flips of its bits do to the value of one code.
//!
//! In an affine format bit `i` is worth `2^i`, set or cleared, whatever the other bits are: each flip is a change of its
//! own, and changes add up. In a float a bit's worth depends on the others (a flip of the exponent multiplies, the sign
//! counts twice the magnitude), so what several flips do is looked up for each number of them: of all values that are `m`
//! flips away, the largest or the smallest, for `m` up to the width of the code. Of the changes of one code at most one can be
//! made then. More flips need not do more, and what each adds need not fall: 1 flip of E2M1's 0 reaches 2, 2 reach 4, 3
//! reach 6, while 1 flip of -6 reaches 6 and no others do better.

use crate::quant::Codes;

/// A change of one code: bits that are flipped, and by how much the value grows or falls.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Change {
    pub(super) mask: u8,
    /// More than 0, and exact: a difference of two values has at most 19 significant bits.
    pub(super) by: f64,
}

/// All that flips do to any code of a format.
#[derive(Debug)]
pub(super) struct Changes {
    codes: Codes,
    /// By code: its value.
    values: Vec<f64>,
    /// The largest magnitude among them that is a number.
    largest_value: f64,
    /// By code: changes that lower its value, and that raise it.
    of: Vec<[Vec<Change>; 2]>,
    /// By code: the fewest flips that make it NaN. Empty where no code is.
    to_nan: Vec<u8>,
    /// The most that the first flip of a code can change its value, the second besides, and so on, whatever the code is.
    worth: Vec<f64>,
}

impl Changes {
    pub(super) fn new(codes: Codes) -> Self {
        let all = 0..codes.width().mask() + 1;
        let values: Vec<f64> = all.clone().map(|code| f64::from(codes.value(code))).collect();
        let nan: Vec<u32> = all.clone().filter(|&code| values[code as usize].is_nan()).collect();
        let nearest = |code: u32| nan.iter().map(|nan| (nan ^ code).count_ones() as u8).min();
        let (of, worth) = if codes.are_floats() {
            let of: Vec<_> = all.clone().map(|code| [false, true].map(|raise| best(&values, code, raise))).collect();
            let most = of.iter().flatten().flatten().map(|change: &Change| change.by).fold(0.0, f64::max);
            // All flips of a code together do no more than this, and one may.
            (of, vec![most])
        } else {
            let bits = codes.width().bits();
            let of = |code: u32| {
                let bit = |bit| Change { mask: 1_u8 << bit, by: f64::from(1_u32 << bit) };
                [1, 0].map(|now| (0..bits).filter(|i| code >> i & 1 == now).map(bit).collect())
            };
            (all.clone().map(of).collect(), (0..bits).rev().map(|bit| f64::from(1_u32 << bit)).collect())
        };
        let numbers = values.iter().filter(|value| !value.is_nan());
        let largest_value = numbers.fold(0.0, |most: f64, value| most.max(value.abs()));
        Self { codes, values, largest_value, of, to_nan: all.filter_map(nearest).collect(), worth }
    }

    /// Whether each change of a code can be made whatever others of it are made, and all of them flip one bit.
    pub(super) const fn independent(&self) -> bool {
        !self.codes.are_floats()
    }

    /// Changes that raise the value of a code, or lower it: more bits later, and each that flips more of them does more than
    /// those before.
    pub(super) fn of(&self, code: u32, raise: bool) -> &[Change] {
        &self.of[code as usize][usize::from(raise)]
    }

    /// What a code stands for, exactly.
    pub(super) fn value(&self, code: u32) -> f64 {
        self.values[code as usize]
    }

    /// The largest magnitude of a value that is a number.
    pub(super) const fn largest_value(&self) -> f64 {
        self.largest_value
    }

    /// The most that one change can change a value.
    pub(super) fn most(&self) -> f64 {
        self.worth[0]
    }

    /// The most that flips of a code can change its value, a bound for each; there may be more flips than bounds, which then
    /// change it no further.
    pub(super) fn worth(&self) -> &[f64] {
        &self.worth
    }

    /// The fewest flips that make a code NaN; `None` where the format has no NaN.
    pub(super) fn to_nan(&self, code: u32) -> Option<u32> {
        self.to_nan.get(code as usize).map(|&flips| u32::from(flips))
    }

    /// Whether a code is NaN.
    pub(super) fn is_nan(&self, code: u32) -> bool {
        self.values[code as usize].is_nan()
    }

    /// Whether a format has NaN among its codes.
    pub(super) const fn have_nan(&self) -> bool {
        !self.to_nan.is_empty()
    }
}

/// For each number of flips the change of a float that does most in one direction, where it does more than fewer flips.
fn best(values: &[f64], code: u32, raise: bool) -> Vec<Change> {
    let own = values[code as usize];
    let mut found: Vec<Change> = Vec::new();
    let mut most = 0.0;
    for flips in 1..=values.len().ilog2() {
        let masks = (1..values.len() as u32).filter(|mask| mask.count_ones() == flips);
        let by = |mask: u32| {
            let new = values[(code ^ mask) as usize];
            if raise { new - own } else { own - new }
        };
        // What is not a number is never more.
        let mut change = Change { mask: 0, by: most };
        for mask in masks {
            let by = by(mask);
            if by > change.by {
                change = Change { mask: mask as u8, by };
            }
        }
        if change.mask != 0 {
            most = change.by;
            found.push(change);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::Format;

    fn changes(format: Format) -> Changes {
        Changes::new(format.codes())
    }

    fn told(changes: &[Change]) -> Vec<(u8, f64)> {
        changes.iter().map(|change| (change.mask, change.by)).collect()
    }

    #[test]
    fn bits_of_integers_act_alone() {
        let three = changes(Format::affine(3, 64).expect("a format"));
        assert_eq!(told(three.of(0b101, true)), [(0b010, 2.0)]);
        assert_eq!(told(three.of(0b101, false)), [(0b001, 1.0), (0b100, 4.0)]);
        assert_eq!((three.worth(), three.most(), three.largest_value()), (&[4.0, 2.0, 1.0][..], 4.0, 7.0));
        assert_eq!((three.independent(), three.have_nan(), three.to_nan(7)), (true, false, None));
    }

    #[test]
    fn of_floats_the_best_that_so_many_flips_reach_is_looked_up() {
        let four = changes(Format::MXFP4);
        // 0 is raised to 2, 4 and 6; a minus alone changes nothing.
        assert_eq!(told(four.of(0, true)), [(0b100, 2.0), (0b110, 4.0), (0b111, 6.0)]);
        // -6 to 6 by its sign, and no other change of it does better.
        assert_eq!(told(four.of(15, true)), [(0b1000, 12.0)]);
        assert_eq!(told(four.of(15, false)), []);
        assert_eq!((four.worth(), four.largest_value(), four.have_nan()), (&[12.0][..], 6.0, false));

        let eight = changes(Format::MXFP8);
        assert_eq!((eight.most(), eight.largest_value()), (896.0, 448.0));
        // 448 is one flip before NaN, 0 seven; NaN is no larger number.
        assert_eq!((eight.to_nan(0x7e), eight.to_nan(0), eight.to_nan(0xff)), (Some(1), Some(7), Some(0)));
        assert_eq!(told(eight.of(0x7e, true)), []);
        assert!((0..256).all(|code| eight.of(code, true).iter().all(|change| change.by <= 896.0)));
        assert!(eight.is_nan(0x7f) && eight.is_nan(0xff) && !eight.is_nan(0x7e));
    }

    #[test]
    fn no_change_of_so_many_flips_does_more_than_the_one_that_is_looked_up() {
        for format in [Format::MXFP4, Format::MXFP8] {
            let changes = changes(format);
            for code in 0..=format.width().mask() {
                for mask in (1..=format.width().mask()).filter(|mask| !changes.is_nan(code ^ mask)) {
                    let moved = changes.value(code ^ mask) - changes.value(code);
                    let of = changes.of(code, moved > 0.0).iter();
                    let most = of
                        .filter(|change| change.mask.count_ones() <= mask.count_ones())
                        .fold(0.0, |_, change| change.by);
                    assert!(moved.is_nan() || moved.abs() <= most, "{format}: {code:#x} by {mask:#x}");
                }
            }
        }
    }
}
