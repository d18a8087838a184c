//! What is kept of a trial: one line of JSON, with everything that its verdict came from.

pub mod text;

use serde::{Deserialize, Serialize};

use crate::coherence::{Finish, Tag, Verdict};

/// Version of the record's keys.
pub const SCHEMA: u32 = 1;

/// Whether a response holds what was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expected {
    /// One of the expected texts occurs in the response, case folded.
    Right,
    /// None does.
    Wrong,
}

/// One trial. Numbers that are not finite are `null`, and a tag says why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Number within the run, from 0. Records of one run are equal up to order by it, and `ms`.
    pub trial: usize,
    /// The model as it was named.
    pub model: String,
    /// Commit of the hub that it was resolved to.
    pub revision: Option<String>,
    /// BLAKE3 over the checkpoint's files.
    pub model_digest: String,
    /// BLAKE3 over the head's weight, scales and biases as stored.
    pub head_digest: String,
    /// `cpu` or `mlx`.
    pub backend: String,
    /// Name of the kernel, e.g. `avx512`.
    pub kernel: String,
    /// The prompt as given.
    pub prompt: String,
    /// Token ids of the prompt, chat template included.
    pub prompt_ids: Vec<u32>,
    /// The edit in its text form.
    pub edit: String,
    /// The shift, where the edit is one shift and nothing else.
    pub shift: Option<i64>,
    /// Row 0, words 0 to 4, after the edit.
    pub first_words: Vec<u32>,
    /// Generated tokens, without the eos.
    pub tokens: Vec<u32>,
    /// The tokens decoded: special tokens kept, no clean-up.
    pub text: String,
    /// Why generation ended.
    pub finish: Finish,
    /// The label.
    pub verdict: Verdict,
    /// What the label does not say.
    pub tags: Vec<Tag>,
    /// Length of the coherent prefix, in steps.
    pub coherent_tokens: usize,
    /// Surprise, in nats, up to which a step counts as coherent.
    pub threshold: f64,
    /// `-ln p` of each step under the clean model, in nats.
    pub surprise: Vec<Option<f64>>,
    /// Best minus second logit of each step.
    pub margin: Vec<Option<f32>>,
    /// Mean over the clean trajectory of KL(clean || edited), in nats.
    pub kl_mean: Option<f64>,
    /// Its 99th percentile (nearest rank).
    pub kl_p99: Option<f64>,
    /// Share of the clean trajectory's steps at which the edited model's first choice is the clean one.
    pub agreement: Option<f64>,
    /// Whether the response holds an expected text, where there is one.
    pub expected: Option<Expected>,
    /// What the seed notebook says of Llama-3-8B at this shift and prompt.
    pub documented: Option<Verdict>,
    /// This trial's share of the time that the trials computed together with it took, in milliseconds.
    pub ms: f64,
}

/// Proof that the head is what it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// BLAKE3 over the head before the first shift was written.
    pub head_digest_before: String,
    /// And after the last one was taken back.
    pub head_digest_after: String,
    /// Whether the two are equal, and each shift's own check held.
    pub identical: bool,
    /// What the restored head answers to the first prompt.
    pub text: String,
    /// Whether its answers to all prompts are those of the clean model.
    pub same_as_clean: bool,
}
