//! What the answers of a prompt suite have in common: the words that are worth protecting for all of them.

use serde::{Deserialize, Serialize};

use super::{
    data::Answer,
    protection::{Protection, RowCount, WordCount},
};

/// Words and rows that are listed.
const LISTED: usize = 100;

/// The union of the critical bits of several answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Suite {
    /// Answers.
    pub answers: usize,
    /// Least flips that change one of them.
    pub least_flips: Option<usize>,
    /// Bits that change at least one answer, in real arithmetic.
    pub critical_bits: usize,
    /// Code bits of the head.
    pub total_bits: usize,
    /// `critical_bits / total_bits`.
    pub vulnerability: f64,
    /// Critical bits by their place in the code, the least significant first.
    pub by_bit_position: Vec<usize>,
    /// Words with critical bits.
    pub critical_words: usize,
    /// Those with the most.
    pub words: Vec<WordCount>,
    /// Rows with the most.
    pub rows: Vec<RowCount>,
    /// Share of the critical bits that the first words carry.
    pub protection: Vec<Protection>,
}

impl Suite {
    /// The union over `answers`; `text` gives a row's token's text. `None` of no answers.
    ///
    /// # Errors
    /// What `text` returns.
    pub fn of<E>(answers: &[Answer], text: impl Fn(usize) -> Result<String, E>) -> Result<Option<Self>, E> {
        let Some(first) = answers.first() else { return Ok(None) };
        let mut unions = answers.iter().filter_map(|answer| answer.critical.as_ref());
        let Some(mut union) = unions.next().cloned() else { return Ok(None) };
        unions.for_each(|other| union.join(other));
        let words = union.words();
        Ok(Some(Self {
            answers: answers.len(),
            least_flips: answers.iter().filter_map(|answer| answer.least_flips).min(),
            critical_bits: union.len(),
            total_bits: first.total_bits,
            vulnerability: union.len() as f64 / first.total_bits as f64,
            by_bit_position: union.by_bit(),
            critical_words: words.len(),
            rows: union.rows(LISTED, text)?,
            protection: Protection::curve(&words, union.len()),
            words: words.into_iter().take(LISTED).collect(),
        }))
    }
}
