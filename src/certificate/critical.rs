//! Critical bits of all tensors of a head, as a set: what the answers of a suite have in common, whatever their number.

use super::{
    position::Flip,
    protection::{RowCount, WordCount, rows_of, words_of},
};
use crate::{
    numbers::NumberSet,
    quant::{Layout, Tensor},
};

/// Tensors in the order in which sets of bits are stored.
const TENSORS: [Tensor; 3] = [Tensor::Weight, Tensor::Scales, Tensor::Biases];

/// A set of bits of one head.
///
/// A bit of a tensor has a number: they are counted by row, in a row by column or group, and in an element from the least.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CriticalBits {
    layout: Layout,
    /// Of weight, scales and biases.
    bits: [NumberSet; 3],
}

/// Why stored bits are no set of bits of this head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its critical bits of {} are no bits of such a tensor", .0.name())]
pub(crate) struct BitsError(Tensor);

impl CriticalBits {
    /// No bits of a head of this layout.
    pub(crate) fn new(layout: &Layout) -> Self {
        Self { layout: *layout, bits: Default::default() }
    }

    pub(super) fn with(layout: &Layout, weight: &[Flip], scales: NumberSet, biases: NumberSet) -> Self {
        let (cols, bits) = (layout.cols(), layout.bits());
        let number = |flip: &Flip| (flip.row as usize * cols + flip.column as usize) * bits + usize::from(flip.bit);
        Self { layout: *layout, bits: [weight.iter().map(number).collect(), scales, biases] }
    }

    /// The head's layout.
    pub(crate) const fn layout(&self) -> &Layout {
        &self.layout
    }

    fn of(&self, tensor: Tensor) -> &NumberSet {
        &self.bits[place(tensor)]
    }

    /// How many bits of a tensor.
    pub fn len(&self, tensor: Tensor) -> usize {
        self.of(tensor).len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bits.iter().all(NumberSet::is_empty)
    }

    /// All bits of a tensor.
    pub fn total(&self, tensor: Tensor) -> usize {
        total(&self.layout, tensor)
    }

    /// Adds all of `others`, and gives those that are new.
    pub(crate) fn add(&mut self, others: &Self) -> Self {
        let mut new = Self::new(&self.layout);
        for ((bits, others), new) in self.bits.iter_mut().zip(&others.bits).zip(&mut new.bits) {
            new.extend(others.iter().filter(|&bit| bits.insert(bit)));
        }
        new
    }

    /// Bits of a tensor by their place in the element, the least significant first.
    pub(crate) fn by_bit(&self, tensor: Tensor) -> Vec<usize> {
        if !self.layout.format().tensors().contains(&tensor) {
            return Vec::new();
        }
        let mut counts = vec![0; self.layout.element_bits(tensor)];
        let width = counts.len();
        self.of(tensor).iter().for_each(|bit| counts[bit % width] += 1);
        counts
    }

    /// Flips of the bits of codes, by row, column and bit.
    pub fn flips(&self) -> impl Iterator<Item = Flip> {
        let (cols, bits) = (self.layout.cols(), self.layout.bits());
        self.of(Tensor::Weight).iter().map(move |bit| Flip {
            row: (bit / bits / cols) as u32,
            column: (bit / bits % cols) as u32,
            bit: (bit % bits) as u8,
        })
    }

    /// Words of codes by their number of critical bits, the most first.
    pub fn words(&self) -> Vec<WordCount> {
        words_of(&self.layout, self.flips())
    }

    /// The `count` rows with the most critical bits of codes.
    pub(super) fn rows<E>(&self, count: usize, text: impl Fn(usize) -> Result<String, E>) -> Result<Vec<RowCount>, E> {
        rows_of(self.flips(), count, text)
    }

    /// The bits of weight, scales and biases as texts: each number as its distance from the one before it, in groups of
    /// seven bits, the lowest first, in base64.
    pub(crate) fn stored(&self) -> [String; 3] {
        TENSORS.map(|tensor| {
            let (mut bytes, mut before) = (Vec::new(), 0);
            for bit in self.of(tensor).iter() {
                let mut distance = bit - before;
                before = bit;
                while distance > 0x7f {
                    bytes.push(distance as u8 & 0x7f | 0x80);
                    distance >>= 7;
                }
                bytes.push(distance as u8);
            }
            base64(&bytes)
        })
    }

    /// What [`Self::stored`] gave, of a head of this layout.
    ///
    /// # Errors
    /// [`BitsError`], naming the tensor.
    pub(crate) fn read(layout: &Layout, stored: [&str; 3]) -> Result<Self, BitsError> {
        let mut read = Self::new(layout);
        for (tensor, text) in TENSORS.into_iter().zip(stored) {
            read.bits[place(tensor)] = numbers(text, total(layout, tensor)).ok_or(BitsError(tensor))?;
        }
        Ok(read)
    }
}

const fn place(tensor: Tensor) -> usize {
    match tensor {
        Tensor::Weight => 0,
        Tensor::Scales => 1,
        Tensor::Biases => 2,
    }
}

/// Bits of a tensor.
fn total(layout: &Layout, tensor: Tensor) -> usize {
    if !layout.format().tensors().contains(&tensor) {
        return 0;
    }
    layout.rows() * layout.columns(tensor) * layout.element_bits(tensor)
}

/// Ascending numbers below `end`, from their distances.
fn numbers(text: &str, end: usize) -> Option<NumberSet> {
    let (mut set, mut number, mut distance, mut shift) = (NumberSet::default(), 0_usize, 0_usize, 0);
    for byte in from_base64(text)? {
        if shift > 56 {
            return None;
        }
        distance |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 != 0 {
            shift += 7;
            continue;
        }
        number = number.checked_add(distance).filter(|&number| number < end)?;
        if !set.insert(number) {
            return None;
        }
        (distance, shift) = (0, 0);
    }
    (shift == 0).then_some(set)
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// RFC 4648, without padding.
fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        for digit in 0..=chunk.len() {
            text.push(char::from(DIGITS[(bits >> (18 - 6 * digit)) as usize & 63]));
        }
    }
    text
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for chunk in text.as_bytes().chunks(4) {
        if chunk.len() == 1 {
            return None;
        }
        let mut bits = 0;
        for &digit in chunk {
            bits = bits << 6
                | match digit {
                    b'A'..=b'Z' => u32::from(digit - b'A'),
                    b'a'..=b'z' => u32::from(digit - b'a') + 26,
                    b'0'..=b'9' => u32::from(digit - b'0') + 52,
                    b'+' => 62,
                    b'/' => 63,
                    _ => return None,
                };
        }
        bits <<= 6 * (4 - chunk.len());
        bytes.extend(&bits.to_be_bytes()[1..chunk.len()]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{quant::FloatType, random::SplitMix64, testing::heads::affine};

    fn layout() -> Layout {
        affine(96, 64, 4, 32, FloatType::F16)
    }

    fn drawn(seed: u64, count: u64) -> CriticalBits {
        let (layout, mut generator) = (layout(), SplitMix64(seed));
        let mut bits = CriticalBits::new(&layout);
        for tensor in TENSORS {
            let end = total(&layout, tensor) as u64;
            bits.bits[place(tensor)].extend((0..count).map(|_| generator.below(end) as usize));
        }
        bits
    }

    #[test]
    fn what_is_stored_is_read_as_it_was() {
        for count in [0, 1, 2, 3, 500, 9_000] {
            let bits = drawn(count, count);
            let stored = bits.stored();
            assert_eq!(CriticalBits::read(&layout(), stored.each_ref().map(String::as_str)), Ok(bits));
        }
    }

    #[test]
    fn no_other_text_is_a_set_of_bits() {
        let end = total(&layout(), Tensor::Weight);
        let stored = |bytes: &[u8]| numbers(&base64(bytes), end);
        assert_eq!(stored(&[5, 1]).map(|set| set.iter().collect::<Vec<_>>()), Some(vec![5, 6]));
        // Twice the same, one that has no end, one beyond all bits.
        for wrong in [&[5, 0][..], &[0x80], &[0xff; 20], &[0xff, 0xff, 0x7f]] {
            assert_eq!(stored(wrong), None, "{wrong:?}");
        }
        for wrong in ["A", "A=", "AA A", "é", "AAAAA"] {
            assert_eq!(numbers(wrong, end), None, "{wrong}");
        }
        let error = CriticalBits::read(&layout(), ["", "!", ""]).expect_err("no bits");
        assert_eq!(error.to_string(), "its critical bits of scales are no bits of such a tensor");
    }

    #[test]
    fn a_union_has_each_bit_once_and_says_which_are_new() {
        let (mut union, parts) = (CriticalBits::new(&layout()), [drawn(1, 400), drawn(2, 400), drawn(1, 400)]);
        let new: Vec<CriticalBits> = parts.iter().map(|part| union.add(part)).collect();
        assert!(new[0] == parts[0] && new[2].is_empty());
        for tensor in TENSORS {
            assert_eq!(new[0].len(tensor) + new[1].len(tensor), union.len(tensor));
            assert_eq!(union.by_bit(tensor).iter().sum::<usize>(), union.len(tensor));
        }
        // In another order the union is the same.
        let mut other = CriticalBits::new(&layout());
        parts.iter().rev().for_each(|part| _ = other.add(part));
        assert_eq!(other, union);
        assert_eq!(
            CriticalBits::with(
                &layout(),
                &union.flips().collect::<Vec<_>>(),
                union.bits[1].clone(),
                union.bits[2].clone()
            ),
            union
        );
    }
}
