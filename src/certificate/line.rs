//! A certificate as a journal has it: one line for each prompt, with the critical bits that no line before it has.
//!
//! The union of a suite's critical bits is a set that soon grows no more, so a journal holds each of its bits once: however
//! many prompts there are, and wherever a journal is cut, the lines that are left give the union of their answers. Lines are
//! in the order of their prompts. Where parts of a run are joined in that order, a line loses the bits that lines of other parts
//! now have before it, and the result is the journal that one run would have written.

use serde::{Deserialize, Serialize};

use super::{
    critical::{BitsError, CriticalBits},
    data::Answer,
};
use crate::{
    quant::{FloatType, Layout},
    record::{Line, output::is_beginning_of_a_certificate},
};

/// What a run of `certify` is, as far as it decides its results.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CertifyFacts {
    /// Digest of all that decides what the run finds. Runs with one `id` may be resumed and merged.
    pub id: String,
    /// Prompts of the whole run.
    pub prompts: usize,
    /// `--max-tokens`.
    pub max_tokens: usize,
    /// The unit that flips are confined to, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<String>,
    /// Whether flips were looked for that keep the answer from ending.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub silence_eos: bool,
    /// The token that flips were to make the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toward: Option<u32>,
    /// Number of the weakest bits that were run.
    pub weakest: usize,
    /// The date that the chat template put into prompts, where it asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
    /// Rows of the head.
    pub rows: usize,
    /// Columns of the head.
    pub cols: usize,
    /// Name of the head's format, such as `affine-4-g64`.
    pub format: String,
    /// Type of the head's scales.
    pub scale_type: String,
    /// Version of this program.
    pub version: String,
}

impl CertifyFacts {
    /// The head's layout; `None` where there is no such head.
    pub(crate) fn layout(&self) -> Option<Layout> {
        let format = self.format.parse().ok()?;
        let types = [FloatType::F16, FloatType::Bf16, FloatType::F32, FloatType::E8m0, FloatType::E4m3];
        let scale_type = types.into_iter().find(|of| of.name() == self.scale_type)?;
        Layout::new(self.rows, self.cols, format, scale_type).ok()
    }
}

/// Critical bits that an answer has and none before it, as [`CriticalBits::stored`] gives them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NewBits {
    /// Bits of codes.
    pub weight: String,
    /// Bits of scales.
    pub scales: String,
    /// Bits of biases.
    pub biases: String,
    /// Rows that have critical bits of codes for the first time, with the texts of their tokens.
    pub texts: Vec<(usize, String)>,
}

impl NewBits {
    /// What is stored of `bits`; `texts` are those of the rows that are new.
    pub(super) fn of(bits: &CriticalBits, texts: Vec<(usize, String)>) -> Self {
        let [weight, scales, biases] = bits.stored();
        Self { weight, scales, biases, texts }
    }

    /// The bits, of a head of this layout.
    ///
    /// # Errors
    /// [`BitsError`].
    pub(crate) fn read(&self, layout: &Layout) -> Result<CriticalBits, BitsError> {
        CriticalBits::read(layout, [&self.weight, &self.scales, &self.biases])
    }
}

/// One line of a journal of certificates.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CertificateLine {
    /// [`SCHEMA`](crate::record::SCHEMA).
    pub schema: u32,
    /// Number of the prompt within the run, from 0.
    pub certificate: usize,
    /// The model as it was named.
    pub model: String,
    /// Commit of the hub that it was resolved to.
    pub revision: Option<String>,
    /// BLAKE3 over the checkpoint's files.
    pub model_digest: String,
    /// BLAKE3 over the head's weight, scales and biases as stored.
    pub head_digest: String,
    /// Name of the kernel.
    pub kernel: String,
    /// The prompt as given.
    pub prompt: String,
    /// Token ids of the prompt, chat template included.
    pub prompt_ids: Vec<u32>,
    /// The certificate; `null` where there is none.
    pub answer: Option<Answer>,
    /// Why there is no certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Critical bits that no line before this one has.
    pub new_bits: NewBits,
    /// What this line has in common with the others of its run.
    pub run: CertifyFacts,
}

impl CertificateLine {
    /// Whether two lines of one prompt say the same, however long it took, whatever it ran on, and whatever bits are new.
    pub(super) fn same_result(&self, other: &Self) -> bool {
        let plain = |line: &Self| {
            let mut value = serde_json::to_value(&line.answer).unwrap_or_default();
            if let Some(answer) = value.as_object_mut() {
                answer.remove("ms");
            }
            (value, line.refused.clone(), line.prompt_ids.clone())
        };
        plain(self) == plain(other)
    }
}

impl Line for CertificateLine {
    fn schema(&self) -> u32 {
        self.schema
    }

    fn is_beginning(bytes: &[u8]) -> bool {
        let ends_early = |bytes: &[u8]| matches!(serde_json::from_slice::<Self>(bytes), Err(error) if error.is_eof());
        // A number that is cut behind its sign is, for the parser, no number.
        is_beginning_of_a_certificate(bytes) && (ends_early(bytes) || ends_early(&[bytes, b"0"].concat()))
    }
}
