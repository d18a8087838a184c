//! Law 5: packing and unpacking are inverse for every width of codes and every group size supported.

use arbitrary::{Arbitrary, Result, Unstructured};
use serde::{Deserialize, Serialize};

use super::{Case, Reached, Verdict, claim};
use crate::{
    quant::{Bits, packed},
    testing::{
        heads::{Plain, SmallHead},
        strategies::{heads, some},
    },
};

const LAW: u8 = 5;

/// Words of any codes, and a head that is made of some.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Packing {
    /// Packed words.
    pub words: Vec<u32>,
    /// Codes that are missing of the last word: 0 to 7.
    pub cut: usize,
    /// The code that is replaced, modulo those of a word.
    pub at: usize,
    /// What it is replaced by; the low bits count.
    pub value: u32,
    /// A matrix.
    pub head: SmallHead,
}

impl<'a> Arbitrary<'a> for Packing {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let (cut, at, value) = (u.int_in_range(0..=7)?, u.int_in_range(0..=7)?, heads::word(u)?);
        Ok(Self { cut, at, value, words: some(u, 0, 40, heads::word)?, head: u.arbitrary()? })
    }
}

impl Case for Packing {
    const NAME: &'static str = "packing";
    const CLASSES: &'static [&'static str] = &["words", "codes of a word", "a code replaced", "rows"];
    const ENTROPY: usize = 256;

    fn check(&self, reached: &mut Reached) -> Verdict {
        for bits in heads::BITS {
            words(&self.words, self.cut, bits, reached)?;
            for &word in self.words.iter().chain([&self.value]) {
                replaced(word, self.at % bits.per_word(), self.value, bits, reached)?;
            }
        }
        matrix(&self.head, reached)
    }
}

/// The law for words, of which the last may have lost `cut` codes.
///
/// # Errors
/// The violation.
pub fn words(words: &[u32], cut: usize, bits: Bits, reached: &mut Reached) -> Verdict {
    let codes = packed::unpack(words, bits);
    let width = bits.get();
    claim!(
        LAW,
        codes.len() == words.len() * bits.per_word() && codes.iter().all(|&code| code <= bits.mask()),
        "a word is as many codes as fit into it",
        "{} codes of {width} bits from {} words",
        codes.len(),
        words.len()
    );
    for (word, codes) in words.iter().zip(codes.chunks(bits.per_word())) {
        let number = codes.iter().rev().fold(0_u64, |number, &code| (number << width) + u64::from(code));
        claim!(
            LAW,
            number == u64::from(*word),
            "the first code is the lowest digit of its word",
            "{word:#x} became {codes:?}, {width} bits each"
        );
        reached.one("codes of a word");
    }
    let again = packed::pack(&codes, bits);
    claim!(LAW, again == words, "packing is the inverse of unpacking", "{words:x?} became {again:x?}");
    let part = &codes[..codes.len().saturating_sub(cut)];
    let again = packed::unpack(&packed::pack(part, bits), bits);
    let padded = again.len() < part.len() + bits.per_word() && again[part.len()..].iter().all(|&code| code == 0);
    claim!(
        LAW,
        again[..part.len()] == *part && padded,
        "a last word that is not full is filled up with zeros",
        "{part:?} became {again:?}"
    );
    reached.one("words");
    Ok(())
}

/// Replacing a code leaves the others, and takes only the low bits of the new one.
///
/// # Errors
/// The violation.
pub fn replaced(word: u32, at: usize, value: u32, bits: Bits, reached: &mut Reached) -> Verdict {
    let mut codes = packed::unpack(&[word], bits);
    codes[at] = value & bits.mask();
    let found = packed::unpack(&[packed::with_code(word, at, value, bits)], bits);
    claim!(
        LAW,
        found == codes,
        "replacing a code leaves the others and takes only the low bits",
        "code {at} of {word:#x} by {value:#x}: {found:?}, not {codes:?}"
    );
    reached.one("a code replaced");
    Ok(())
}

/// A matrix holds the codes, scales and biases that lie in its bytes, row by row.
///
/// # Errors
/// The violation.
pub fn matrix(head: &SmallHead, reached: &mut Reached) -> Verdict {
    let (view, layout) = (head.view(), &head.layout);
    let plain = Plain::of(&view);
    for row in 0..layout.rows() {
        let codes: Vec<u32> = (0..layout.cols()).map(|column| view.code(row, column)).collect();
        let words: Vec<u32> = (0..layout.words_per_row()).map(|word| view.word(row, word)).collect();
        claim!(
            LAW,
            packed::pack(&codes, layout.bits()) == words,
            "a matrix of any layout holds the codes that were packed, row by row",
            "row {row} of {layout:?}"
        );
        let weight = |column: usize| {
            let group = column / layout.group_size();
            view.scale(row, group).mul_add(codes[column] as f32, view.bias(row, group))
        };
        let weights: Vec<f32> = (0..layout.cols()).map(weight).collect();
        let difference = crate::testing::comparators::same_bits(&weights, &plain.weights(row)).err();
        claim!(
            LAW,
            difference.is_none(),
            "a weight is its group's scale times its code plus its group's bias",
            "row {row}, column {difference:?}"
        );
        reached.one("rows");
    }
    Ok(())
}
