//! What one run of `certify` found: the certificates of its answers, and what they have in common.

use serde::{Deserialize, Serialize};

use super::{collapse::Collapse, data::Answer, suite::Suite};

/// The object of `certify`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Certificates {
    /// The model as it was named.
    pub model: String,
    /// Commit of the hub.
    pub revision: Option<String>,
    /// BLAKE3 over the head.
    pub head_digest: String,
    /// The kernel.
    pub kernel: String,
    /// One certificate a prompt; of the journal of very many prompts the first.
    pub answers: Vec<Answer>,
    /// Number of further certificates, which are not listed.
    #[serde(default)]
    pub left_out: usize,
    /// What they have in common.
    pub suite: Option<Suite>,
    /// Prompts without a certificate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<Refused>,
    /// The search for a collapse, where it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collapse: Option<Collapse>,
}

/// A prompt without a certificate.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Refused {
    /// The prompt.
    pub prompt: String,
    /// Why.
    pub error: String,
}
