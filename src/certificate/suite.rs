//! What the answers of a prompt suite have in common: the bits that change at least one of them, and the words that are worth
//! protecting for all of them.

use serde::{Deserialize, Serialize};

use super::{
    critical::CriticalBits,
    data::Answer,
    protection::{Protection, RowCount, WordCount},
};
use crate::quant::Tensor;

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
    /// Bits of scales that change at least one answer; a file of an older version does not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scales: Option<TensorUnion>,
    /// Bits of biases that change at least one answer; a format without biases does not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub biases: Option<TensorUnion>,
}

/// Bits of scales, or of biases, that change at least one of several answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TensorUnion {
    /// How many.
    pub critical_bits: usize,
    /// All bits of the tensor.
    pub total_bits: usize,
    /// `critical_bits / total_bits`.
    pub vulnerability: f64,
    /// Critical bits by their place in the value, the least significant first.
    pub by_bit_position: Vec<usize>,
}

impl TensorUnion {
    /// Of a tensor that the format has.
    fn of(critical: &CriticalBits, tensor: Tensor) -> Option<Self> {
        let (critical_bits, total_bits) = (critical.len(tensor), critical.total(tensor));
        (total_bits > 0).then(|| Self {
            critical_bits,
            total_bits,
            vulnerability: critical_bits as f64 / total_bits as f64,
            by_bit_position: critical.by_bit(tensor),
        })
    }
}

/// Answers that are taken together one by one and not kept: what grows is the set of critical bits alone.
#[derive(Clone, Debug, Default)]
pub(crate) struct SuiteTally {
    answers: usize,
    least_flips: Option<usize>,
    critical: Option<CriticalBits>,
}

impl SuiteTally {
    /// Adds an answer, and gives the critical bits that no answer before it has; `None` where it does not list them.
    pub(crate) fn add(&mut self, answer: &Answer) -> Option<CriticalBits> {
        self.count(answer);
        Some(self.join(answer.critical.as_ref()?))
    }

    /// Adds an answer whose critical bits are added apart.
    pub(crate) fn count(&mut self, answer: &Answer) {
        self.answers += 1;
        self.least_flips = self.least_flips.into_iter().chain(answer.least_flips).min();
    }

    /// Adds critical bits, and gives those that are new.
    pub(crate) fn join(&mut self, bits: &CriticalBits) -> CriticalBits {
        self.critical.get_or_insert_with(|| CriticalBits::new(bits.layout())).add(bits)
    }

    /// Number of answers.
    pub(crate) const fn answers(&self) -> usize {
        self.answers
    }

    /// The union; `text` gives a row's token's text. `None` of no answers that list their critical bits.
    ///
    /// # Errors
    /// What `text` returns.
    pub(crate) fn suite<E>(&self, text: impl Fn(usize) -> Result<String, E>) -> Result<Option<Suite>, E> {
        let Some(critical) = &self.critical else { return Ok(None) };
        let (critical_bits, total_bits) = (critical.len(Tensor::Weight), critical.total(Tensor::Weight));
        let words = critical.words();
        Ok(Some(Suite {
            answers: self.answers,
            least_flips: self.least_flips,
            critical_bits,
            total_bits,
            vulnerability: critical_bits as f64 / total_bits as f64,
            by_bit_position: critical.by_bit(Tensor::Weight),
            critical_words: words.len(),
            rows: critical.rows(LISTED, text)?,
            protection: Protection::curve(&words, critical_bits),
            words: words.into_iter().take(LISTED).collect(),
            scales: TensorUnion::of(critical, Tensor::Scales),
            biases: TensorUnion::of(critical, Tensor::Biases),
        }))
    }
}

impl Suite {
    /// The union over `answers`; `text` gives a row's token's text. `None` of no answers.
    ///
    /// # Errors
    /// What `text` returns.
    pub fn of<E>(answers: &[Answer], text: impl Fn(usize) -> Result<String, E>) -> Result<Option<Self>, E> {
        let mut tally = SuiteTally::default();
        answers.iter().for_each(|answer| _ = tally.add(answer));
        tally.suite(text)
    }
}
