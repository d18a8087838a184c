//! Edits: those that fit a head, and those that only have a text.

use arbitrary::{Result, Unstructured};

use super::{choose, one_in, some};
use crate::{
    edit::{Amount, Change, Edit, Random},
    quant::{Layout, Tensor},
};

/// Shifts at which a borrow, a sign or a width changes something.
pub const SHIFTS: [i64; 19] = [
    0,
    1,
    -1,
    15,
    16,
    (1 << 31) - 1,
    1 << 31,
    (1 << 31) + 1,
    -(1 << 31),
    (1 << 32) - 1,
    1 << 32,
    (1 << 32) + 1,
    -(1 << 32) - 1,
    -(1 << 32),
    -(1 << 32) + 1,
    i64::MIN,
    i64::MIN + 1,
    i64::MAX - 1,
    i64::MAX,
];

const TENSORS: [Tensor; 3] = [Tensor::Weight, Tensor::Scales, Tensor::Biases];

/// A shift: an edge half of the times, else of the size of the ladder's, or any.
///
/// # Errors
/// There are none: where the bytes end, they go on as zeros.
pub fn shift(u: &mut Unstructured<'_>) -> Result<i64> {
    match u.int_in_range(0..=3_u8)? {
        0 | 1 => choose(u, &SHIFTS),
        2 => u.int_in_range(-20_000_000..=20_000_000),
        _ => u.arbitrary(),
    }
}

/// A change that fits `layout`. The first two rows are hit often, so that changes meet.
///
/// # Errors
/// As [`shift`].
pub fn change(u: &mut Unstructured<'_>, layout: &Layout) -> Result<Change> {
    let (kind, tensors) = (u.int_in_range(0..=8_u8)?, layout.format().tensors());
    if let 0 | 1 = kind {
        return Ok(Change::Shift(shift(u)?));
    }
    if kind == 8 {
        // The smallest tensor is one scale of 8 bits.
        let amount = match one_in(u, 2)? {
            false => Amount::Flips(u.int_in_range(0..=8)?),
            true => Amount::Rate(f64::from(u.int_in_range(0..=1000_u32)?) / 50_000.0),
        };
        return Ok(Change::Random(Random { tensor: choose(u, tensors)?, amount, seed: u.arbitrary()? }));
    }
    let last = if one_in(u, 3)? { layout.rows() - 1 } else { (layout.rows() - 1).min(1) };
    let row = u.int_in_range(0..=last)?;
    let column = u.int_in_range(0..=layout.cols() - 1)?;
    let word = layout.width().word_of(column, 0);
    Ok(match kind {
        2 => Change::Flip { tensor: Tensor::Weight, row, column, bit: u.int_in_range(0..=layout.bits() as u32 - 1)? },
        3 => {
            let tensor = choose(u, &tensors[1..])?;
            let bit = u.int_in_range(0..=8 * layout.scale_type().size() as u32 - 1)?;
            Change::Flip { tensor, row, column: column / layout.group_size(), bit }
        }
        4 => Change::SetCode { row, column, value: u.int_in_range(0..=layout.width().mask())? },
        5 => {
            let amount = if one_in(u, 2)? { shift(u)? } else { u.int_in_range(-20..=20)? };
            Change::AddCode { row, column, amount }
        }
        6 => Change::XorWord { row, word, mask: u.arbitrary()? },
        _ => Change::SetWord { row, word, value: u.arbitrary()? },
    })
}

/// Up to `most` changes that fit `layout`.
///
/// # Errors
/// As [`shift`].
pub fn edit(u: &mut Unstructured<'_>, layout: &Layout, most: usize) -> Result<Edit> {
    Ok(Edit::new(some(u, 0, most, |u| change(u, layout))?))
}

/// Perturbations of single elements: codes, scales and biases, and now and then a shift of all words.
///
/// # Errors
/// As [`shift`].
pub fn perturbation(u: &mut Unstructured<'_>, layout: &Layout, most: usize) -> Result<Edit> {
    let row = |u: &mut Unstructured<'_>| u.int_in_range(0..=layout.rows() - 1);
    let element = |u: &mut Unstructured<'_>| {
        let change = change(u, layout)?;
        Ok(match change {
            // Any row of a real head is as good as its first.
            Change::Flip { tensor, column, bit, .. } => Change::Flip { tensor, row: row(u)?, column, bit },
            Change::SetCode { column, value, .. } => Change::SetCode { row: row(u)?, column, value },
            Change::AddCode { column, amount, .. } => Change::AddCode { row: row(u)?, column, amount },
            // A rate that is small for a small head is many flips of a large one.
            Change::Random(random) => match random.amount {
                Amount::Rate(rate) => {
                    let bits = (layout.rows() * layout.cols() * layout.bits()) as f64;
                    Change::Random(Random { amount: Amount::Rate(rate * (10_000.0 / bits).min(1.0)), ..random })
                }
                Amount::Flips(_) => Change::Random(random),
            },
            other => other,
        })
    };
    Ok(Edit::new(some(u, 1, most, element)?))
}

/// An edit of any places, whether a head has them or not, and of any numbers that have a text.
///
/// # Errors
/// As [`shift`].
pub(crate) fn any_edit(u: &mut Unstructured<'_>) -> Result<Edit> {
    fn at(u: &mut Unstructured<'_>) -> Result<usize> {
        match u.int_in_range(0..=2_u8)? {
            0 => u.int_in_range(0..=199),
            1 => Ok(usize::MAX),
            _ => u.arbitrary(),
        }
    }
    fn number(u: &mut Unstructured<'_>) -> Result<u32> {
        match u.int_in_range(0..=2_u8)? {
            0 => u.int_in_range(0..=299),
            1 => Ok(u32::MAX),
            _ => u.arbitrary(),
        }
    }
    fn rate(u: &mut Unstructured<'_>) -> Result<f64> {
        if one_in(u, 2)? {
            // All bit patterns of the floats from 0 to 1, subnormal ones included.
            return Ok(f64::from_bits(u.int_in_range(0..=1_f64.to_bits())?));
        }
        choose(u, &[0.0, 1.0, 0.5, 1e-6, 5e-324, f64::MIN_POSITIVE])
    }
    let change = |u: &mut Unstructured<'_>| {
        Ok(match u.int_in_range(0..=6_u8)? {
            0 => Change::Shift(shift(u)?),
            1 => Change::Flip { tensor: choose(u, &TENSORS)?, row: at(u)?, column: at(u)?, bit: number(u)? },
            2 => Change::SetCode { row: at(u)?, column: at(u)?, value: number(u)? },
            3 => Change::AddCode { row: at(u)?, column: at(u)?, amount: shift(u)? },
            4 => Change::XorWord { row: at(u)?, word: at(u)?, mask: number(u)? },
            5 => Change::SetWord { row: at(u)?, word: at(u)?, value: number(u)? },
            _ => {
                let amount = if one_in(u, 2)? { Amount::Rate(rate(u)?) } else { Amount::Flips(u.arbitrary()?) };
                Change::Random(Random { tensor: choose(u, &TENSORS)?, amount, seed: u.arbitrary()? })
            }
        })
    };
    Ok(Edit::new(some(u, 0, 5, change)?))
}

/// Edits in JSON: their text.
pub mod as_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::edit::Edit;

    /// Writes the text of each edit.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(edits: &[Edit], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(edits.iter().map(Edit::to_string))
    }

    /// Parses the text of each edit.
    ///
    /// # Errors
    /// Those of the deserializer, and of a text that is no edit.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Edit>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts.iter().map(|text| text.parse().map_err(D::Error::custom)).collect()
    }
}
