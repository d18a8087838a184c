//! Law 1: `shift(s)` then `shift(-s)` is the identity on bits; `shift(a)` then `shift(b)` is `shift(a + b)`; `s` and
//! `s + 2^32` have one effect; and the low 32 bits of the wrapping difference of 64 bits are the wrapping difference
//! of 32.

use arbitrary::{Arbitrary, Result, Unstructured};
use serde::{Deserialize, Serialize};

use super::{Case, LawResult, Reached, claim};
use crate::{
    edit::{Edit, shift_word},
    quant::MatrixBuf,
    testing::{
        heads::Plain,
        strategies::{choose, edits, heads, one_in},
    },
};

const LAW: u8 = 1;

/// A head, and shifts of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shifts {
    /// What is shifted.
    pub head: MatrixBuf,
    /// A word that the head need not have.
    pub word: u32,
    /// A shift.
    pub a: i64,
    /// Another.
    pub b: i64,
    /// Multiples of 2^32 that are added, modulo 2^32.
    pub turns: i64,
}

impl<'a> Arbitrary<'a> for Shifts {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let (a, b) = (edits::shift(u)?, edits::shift(u)?);
        let turns = if one_in(u, 2)? { u.arbitrary()? } else { choose(u, &[1, -1])? };
        Ok(Self { word: heads::word(u)?, a, b, turns, head: u.arbitrary()? })
    }
}

impl Case for Shifts {
    const NAME: &'static str = "shift";
    const CLASSES: &'static [&'static str] = &["word", "moved every word", "moved none", "sum wrapped", "two texts"];
    const ENTROPY: usize = 64;

    fn check(&self, reached: &mut Reached) -> LawResult {
        for shift in [self.a, self.b, self.a.wrapping_add(self.turns.wrapping_shl(32))] {
            word(self.word, shift, reached)?;
        }
        head(&self.head, self.a, self.b, self.turns, reached)
    }
}

/// The law for one word.
///
/// # Errors
/// The violation.
pub fn word(word: u32, shift: i64, reached: &mut Reached) -> LawResult {
    let shifted = shift_word(word, shift);
    let cast = i64::from(word).wrapping_sub(shift) as u32;
    claim!(
        LAW,
        shifted == cast,
        "a shifted word is the low half of the wrapping difference of 64 bits",
        "{word:#x} shifted by {shift} is {shifted:#x}, not {cast:#x}"
    );
    let exact = (i128::from(word) - i128::from(shift)).rem_euclid(1 << 32);
    claim!(
        LAW,
        i128::from(shifted) == exact,
        "a shifted word is the difference modulo 2^32",
        "{word:#x} shifted by {shift} is {shifted:#x}, not {exact:#x}"
    );
    let back = shift_word(shifted, shift.wrapping_neg());
    claim!(
        LAW,
        back == word,
        "a shift and its negative leave a word",
        "{word:#x} shifted by {shift} and back is {back:#x}"
    );
    reached.one("word");
    Ok(())
}

/// The law for words that a backend has shifted by casts of its own: `found` of `words`.
///
/// # Errors
/// The violation.
pub fn cast(words: &[u32], shift: i64, found: &[u32], reached: &mut Reached) -> LawResult {
    let expected: Vec<u32> = words.iter().map(|&word| shift_word(word, shift)).collect();
    let differs = (0..words.len().max(found.len())).find(|&i| expected.get(i) != found.get(i));
    claim!(
        LAW,
        differs.is_none(),
        "a backend's shift is the wrapping difference of 32 bits",
        "{:x?} shifted by {shift} is {:x?}, not {:x?}",
        differs.and_then(|i| words.get(i)),
        differs.and_then(|i| found.get(i)),
        differs.and_then(|i| expected.get(i))
    );
    words.iter().for_each(|_| reached.one("cast"));
    Ok(())
}

/// The law for all words of a head, written and planned.
///
/// # Errors
/// The violation.
pub fn head(head: &MatrixBuf, a: i64, b: i64, turns: i64, reached: &mut Reached) -> LawResult {
    let view = head.view();
    let plan = |edit: &Edit| edit.plan(&view).expect("a shift fits every head");
    let (there, back) = (Edit::shift(a), Edit::shift(a.wrapping_neg()));
    let written = head.written(&there);
    let mut expected = Plain::of(&view);
    expected.apply(&there);
    claim!(
        LAW,
        written == expected.matrix(),
        "every word becomes its difference modulo 2^32, scales and biases stay",
        "another head after writing {there}"
    );
    let moved = a as u32 != 0;
    claim!(
        LAW,
        (written.weight() != head.weight()) == moved,
        "a shift moves every word unless it is a multiple of 2^32",
        "{there} left the words as they are: {}",
        !moved
    );
    let both = there.clone().then(&back);
    claim!(
        LAW,
        head.written(&both) == *head && head.planned(&both) == *head,
        "a shift and its negative leave every bit",
        "another head after {both}"
    );
    reached.one(if moved { "moved every word" } else { "moved none" });

    let (both, sum) = (there.clone().then(&Edit::shift(b)), Edit::shift(a.wrapping_add(b)));
    claim!(
        LAW,
        head.written(&both) == head.written(&sum) && plan(&both) == plan(&sum),
        "two shifts are the shift by their wrapping sum",
        "{both} is not {sum}"
    );
    reached.one_if(a.checked_add(b).is_none(), "sum wrapped");

    let far = Edit::shift(a.wrapping_add(turns.wrapping_shl(32)));
    claim!(
        LAW,
        head.written(&far) == written && plan(&far) == plan(&there),
        "shifts that differ by a multiple of 2^32 have one effect",
        "{far} is not {there}"
    );
    claim!(
        LAW,
        (far.to_string() == there.to_string()) == (far == there),
        "two shifts are two texts",
        "{far} and {there}"
    );
    reached.one_if(far != there, "two texts");
    Ok(())
}
