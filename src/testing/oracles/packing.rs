//! Law 5: packing and unpacking are inverse for every width of codes, and are held against the definition bit by bit; a
//! matrix of every format holds what was packed.

use arbitrary::{Arbitrary, Result, Unstructured};
use serde::{Deserialize, Serialize};

use super::{Case, LawResult, Reached, claim};
use crate::{
    kernels::scalar,
    quant::{MatrixBuf, Width},
    testing::{
        heads::Plain,
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
    /// The code that is replaced, modulo those of two words.
    pub at: usize,
    /// What it is replaced by; the low bits count.
    pub value: u32,
    /// A matrix.
    pub head: MatrixBuf,
}

impl<'a> Arbitrary<'a> for Packing {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let (cut, at, value) = (u.int_in_range(0..=7)?, u.int_in_range(0..=7)?, heads::word(u)?);
        Ok(Self { cut, at, value, words: some(u, 0, 40, heads::word)?, head: u.arbitrary()? })
    }
}

impl Case for Packing {
    const NAME: &'static str = "packing";
    const CLASSES: &'static [&'static str] = &[
        "words",
        "codes of a word",
        "codes of two words",
        "a code replaced",
        "rows",
        "rows of integers",
        "rows of floats",
    ];
    const ENTROPY: usize = 256;

    fn check(&self, reached: &mut Reached) -> LawResult {
        for width in widths() {
            words(&self.words, self.cut, width, reached)?;
            for &word in self.words.iter().chain([&self.value]) {
                replaced([word, !self.value], self.at, self.value, width, reached)?;
            }
        }
        matrix(&self.head, reached)
    }
}

/// Every width that a code can have, those included that no format has yet.
pub(crate) fn widths() -> impl Iterator<Item = Width> {
    (Width::MIN..=Width::MAX).filter_map(Width::new)
}

/// Codes of words by the definition: code `c` is the bits `c * width ..` of all bits, the lowest of the first word first.
/// Bits that are left at the end are no code.
fn defined(words: &[u32], width: Width) -> Vec<u32> {
    let bits: Vec<u32> = words.iter().flat_map(|word| (0..32).map(move |bit| word >> bit & 1)).collect();
    let code = |bits: &[u32]| bits.iter().rev().fold(0, |code, bit| 2 * code + bit);
    bits.chunks_exact(width.bits()).map(code).collect()
}

fn bytes_of(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// The law for words, of which the last may have lost `cut` codes.
///
/// # Errors
/// The violation.
pub(crate) fn words(words: &[u32], cut: usize, width: Width, reached: &mut Reached) -> LawResult {
    let bits = width.bits();
    let (bytes, expected) = (bytes_of(words), defined(words, width));
    let codes: Vec<u32> = width.unpack(&bytes).collect();
    claim!(
        LAW,
        codes == expected,
        "a code is its bits of all bits of the words, the lowest first",
        "{words:x?} became {codes:?}, not {expected:?}, {bits} bits each"
    );
    for (column, code) in expected.iter().enumerate() {
        let found = width.code(column, |word| words[word]);
        claim!(
            LAW,
            found == *code,
            "one code is read as all are",
            "{found} at {column} of {words:x?}, {bits} bits each"
        );
        let crosses = width.word_of(column, 0) != width.word_of(column, bits - 1);
        reached.one(if crosses { "codes of two words" } else { "codes of a word" });
    }
    let part = &codes[..codes.len().saturating_sub(cut)];
    for part in [&codes, part] {
        let packed = width.pack(part);
        let again: Vec<u32> = width.unpack(&packed).collect();
        let padded =
            packed.len() < (part.len() * bits).div_ceil(8) + 4 && again[part.len()..].iter().all(|&code| code == 0);
        claim!(
            LAW,
            again[..part.len()] == *part && padded,
            "packing is the inverse of unpacking, and fills up a last word that is not full with zeros",
            "{part:?} became {again:?}, {bits} bits each"
        );
    }
    let again = width.pack(&codes);
    claim!(
        LAW,
        !(32 * words.len()).is_multiple_of(bits) || again == bytes,
        "words that codes fill are packed again to the bit",
        "{words:x?} became the bytes {again:x?}, {bits} bits each"
    );
    reached.one("words");
    Ok(())
}

/// Replacing a code leaves the others, and takes only the low bits of the new one.
///
/// # Errors
/// The violation.
pub(crate) fn replaced(words: [u32; 2], at: usize, value: u32, width: Width, reached: &mut Reached) -> LawResult {
    let mut codes = defined(&words, width);
    let (at, mut written) = (at % codes.len(), bytes_of(&words));
    let left = |bytes: &[u8]| bytes.last().map(|last| u32::from(*last) >> (8 - 64 % width.bits()));
    let behind = left(&written);
    codes[at] = value & width.mask();
    width.set_code(&mut written, at, value);
    let found: Vec<u32> = width.unpack(&written).collect();
    claim!(
        LAW,
        found == codes && left(&written) == behind,
        "replacing a code leaves the others and takes only the low bits",
        "code {at} of {words:#x?} by {value:#x}: {found:?}, not {codes:?}"
    );
    reached.one("a code replaced");
    Ok(())
}

/// A matrix holds the codes, scales and biases that lie in its bytes, row by row.
///
/// # Errors
/// The violation.
pub(crate) fn matrix(head: &MatrixBuf, reached: &mut Reached) -> LawResult {
    let (view, layout) = (head.view(), head.layout());
    let plain = Plain::of(&view);
    for row in 0..layout.rows() {
        let codes: Vec<u32> = (0..layout.cols()).map(|column| view.code(row, column)).collect();
        let of_groups: Vec<u32> = (0..layout.groups_per_row()).flat_map(|group| view.codes(row, group)).collect();
        let words: Vec<u32> = (0..layout.words_per_row()).map(|word| view.word(row, word)).collect();
        claim!(
            LAW,
            layout.width().pack(&codes) == bytes_of(&words) && of_groups == codes,
            "a matrix of any layout holds the codes that were packed, row by row",
            "row {row} of {layout:?}"
        );
        let mut weights = vec![0.0; layout.cols()];
        scalar::dequantize_row(&view, 0, row, &mut weights);
        let difference = crate::testing::comparators::same_bits(&weights, &plain.weights(row)).err();
        claim!(
            LAW,
            difference.is_none(),
            "a weight is its group's scale times what its code stands for, plus its group's bias where there is one",
            "row {row}, column {difference:?}"
        );
        reached.one("rows");
        reached.one(if layout.format().has_biases() { "rows of integers" } else { "rows of floats" });
    }
    Ok(())
}
