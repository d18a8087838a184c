//! Where the critical bits lie, and how few words carry them: what is worth protecting.

use serde::{Deserialize, Serialize};

use super::position::Flip;
use crate::quant::Layout;

/// A set of code bits of one head.
#[derive(Clone, Debug)]
pub(super) struct Union {
    layout: Layout,
    /// Sorted, each once.
    flips: Vec<Flip>,
}

/// A packed word with critical bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WordCount {
    /// Its row.
    pub row: usize,
    /// Its place in the row.
    pub word: usize,
    /// How many of its 32 bits are critical.
    pub critical: usize,
}

/// A row with critical bits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowCount {
    /// The row.
    pub row: usize,
    /// Its token's text.
    pub text: String,
    /// How many of its bits are critical.
    pub critical: usize,
}

/// A point of the curve: protecting so many words takes away so much of the vulnerability.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Protection {
    /// Words, those with the most critical bits.
    pub words: usize,
    /// Share of all critical bits that lie in them.
    pub share: f64,
}

impl Union {
    /// The union of some flips.
    pub(super) fn of(layout: &Layout, flips: impl Iterator<Item = Flip>) -> Self {
        let mut flips: Vec<Flip> = flips.collect();
        flips.sort_unstable();
        flips.dedup();
        Self { layout: *layout, flips }
    }

    /// How many.
    pub(super) const fn len(&self) -> usize {
        self.flips.len()
    }

    /// The bits, by row, column and bit.
    pub(super) fn flips(&self) -> &[Flip] {
        &self.flips
    }

    pub(super) fn without(mut self, others: &Self) -> Self {
        self.flips.retain(|flip| others.flips.binary_search(flip).is_err());
        self
    }

    pub(super) fn join(&mut self, others: &Self) {
        self.flips.extend_from_slice(&others.flips);
        self.flips.sort_unstable();
        self.flips.dedup();
    }

    /// Bits by their place in the code, the least significant first.
    pub(super) fn by_bit(&self) -> Vec<usize> {
        let mut counts = vec![0; self.layout.bits()];
        self.flips.iter().for_each(|flip| counts[flip.bit as usize] += 1);
        counts
    }

    /// Words by their number of critical bits, the most first.
    pub(super) fn words(&self) -> Vec<WordCount> {
        words_of(&self.layout, self.flips.iter().copied())
    }

    /// The `count` rows with the most critical bits.
    pub(super) fn rows<E>(&self, count: usize, text: impl Fn(usize) -> Result<String, E>) -> Result<Vec<RowCount>, E> {
        rows_of(self.flips.iter().copied(), count, text)
    }
}

/// Words by how many of the flips they have, the most first. Flips come by row, column and bit.
pub(super) fn words_of(layout: &Layout, flips: impl Iterator<Item = Flip>) -> Vec<WordCount> {
    let width = layout.width();
    let mut words: Vec<WordCount> = Vec::new();
    for flip in flips {
        let (row, word) = (flip.row as usize, width.word_of(flip.column as usize, usize::from(flip.bit)));
        match words.last_mut().filter(|last| (last.row, last.word) == (row, word)) {
            Some(last) => last.critical += 1,
            None => words.push(WordCount { row, word, critical: 1 }),
        }
    }
    // Stable: words of as many bits stay in their order.
    words.sort_by_key(|word| std::cmp::Reverse(word.critical));
    words
}

/// The `count` rows that have the most of the flips. Flips come by row.
pub(super) fn rows_of<E>(
    flips: impl Iterator<Item = Flip>,
    count: usize,
    text: impl Fn(usize) -> Result<String, E>,
) -> Result<Vec<RowCount>, E> {
    let mut rows: Vec<(usize, usize)> = Vec::new();
    for flip in flips {
        let row = flip.row as usize;
        match rows.last_mut().filter(|last| last.0 == row) {
            Some(last) => last.1 += 1,
            None => rows.push((row, 1)),
        }
    }
    rows.sort_by_key(|&(_, critical)| std::cmp::Reverse(critical));
    rows.truncate(count);
    rows.into_iter().map(|(row, critical)| Ok(RowCount { row, text: text(row)?, critical })).collect()
}

impl Protection {
    /// The curve of `words`, which are sorted, at 1, 2, 5, 10, 20, 50, ... words and at all.
    pub(super) fn curve(words: &[WordCount], critical: usize) -> Vec<Self> {
        let steps = (0..).map(|i| [1, 2, 5][i % 3] * 10_usize.pow((i / 3) as u32)).take_while(|&n| n < words.len());
        let (mut curve, mut carried, mut done) = (Vec::new(), 0, 0);
        for n in steps.chain([words.len()]).filter(|&n| n > 0) {
            carried += words[done..n].iter().map(|word| word.critical).sum::<usize>();
            done = n;
            curve.push(Self { words: n, share: carried as f64 / critical as f64 });
        }
        curve
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{quant::FloatType, testing::heads::affine};

    #[test]
    fn the_words_that_carry_most_come_first() {
        let layout = affine(4, 64, 4, 32, FloatType::F16);
        let flip = |row, column, bit| Flip { row, column, bit };
        let flips = [flip(2, 7, 3), flip(0, 1, 3), flip(2, 0, 3), flip(2, 8, 0), flip(2, 7, 3)];
        let union = Union::of(&layout, flips.into_iter());
        assert_eq!((union.len(), union.by_bit()), (4, vec![1, 0, 0, 3]));
        let words = union.words();
        let count = |row, word, critical| WordCount { row, word, critical };
        assert_eq!(words, [count(2, 0, 2), count(0, 0, 1), count(2, 1, 1)]);
        let share = |words, share| Protection { words, share };
        assert_eq!(Protection::curve(&words, 4), [share(1, 0.5), share(2, 0.75), share(3, 1.0)]);
        assert_eq!(Protection::curve(&[], 0), []);
        let rows = union.rows(1, |row| Ok::<_, ()>(row.to_string())).expect("texts");
        assert_eq!((rows[0].row, rows[0].critical), (2, 3));
    }
}
