//! The record of a trial: one line of JSON, with everything that its verdict was derived from.
//!
//! A record stands alone: it carries what it has in common with the others of its run ([`RunFacts`]), too, so that
//! any line of a journal can be judged anew, compared, merged and reported without the model and without the lines
//! before it. What the searches find (crossings, the cells of a map, the rows of a campaign) is computed from
//! records, whether they come from a run or from a file.

mod beginning;
pub(crate) mod compressed;
pub mod journal;
mod label;
pub(crate) mod merge;
mod missing;
pub(crate) mod output;
mod reader;
pub mod recipe;
mod sample;
pub(crate) mod scheduler;
mod shard;
mod stored;
pub mod summary;

use std::fmt;

use serde::{Deserialize, Serialize};

pub(crate) use merge::Parts;
pub(crate) use missing::{Missing, Spacing};
pub use output::OutputError;
pub(crate) use reader::{Line, Reader};
#[cfg(feature = "report")]
pub(crate) use sample::Sample;
pub use shard::Shard;
pub(crate) use stored::Stored;

use crate::{
    coherence::{Finish, Tag, Verdict},
    edit::Value,
};

/// Version of the record's keys.
pub const SCHEMA: u32 = 1;

/// Whether a response holds what was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expected {
    /// One of the expected texts occurs in the response, case folded.
    Right,
    /// None of the expected texts occurs in the response.
    Wrong,
}

/// Where the surprise threshold of a run comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// The threshold, in nats: the 99th percentile (nearest rank) of the largest surprise in each of the clean
    /// model's own answers.
    pub threshold: f64,
    /// The ordinary surprise, in nats: the mean over all steps of these answers.
    pub ordinary: f64,
    /// Temperature at which the answers were drawn.
    pub temperature: f64,
    /// Largest number of tokens of these answers: that of the run, up to 128.
    pub max_tokens: usize,
    /// Number of answers that the percentile was taken from.
    pub samples: usize,
    /// Number of prompts that these answers are to, none of which the run measures.
    pub prompts: usize,
    /// Number of further answers, to further prompts, that the threshold was tried on afterwards.
    pub held_out: usize,
    /// Of these, the answers that the rule of [`crate::coherence`] takes to be incoherent, though the clean model
    /// gave them.
    pub false_alarms: usize,
    /// Seed of the generator.
    pub seed: u64,
}

/// The model that a run is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFacts {
    /// `model_type` of `config.json`.
    pub model_type: String,
    /// `num_hidden_layers`.
    pub num_hidden_layers: usize,
    /// Columns of the head.
    pub hidden_size: usize,
    /// Rows of the head.
    pub vocab_size: usize,
    /// Width of the head's codes.
    pub bits: usize,
    /// Columns of a group of the head.
    pub group_size: usize,
    /// Name of the head's format, such as `affine-6-g64` or `mxfp4`. Older records do not have it: theirs are affine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// What stands between the head's products and the logits, such as `softcap 30`; not there where nothing does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_head: Option<String>,
    /// Whether embedding and head are one matrix in the checkpoint.
    pub tied: bool,
}

/// How a campaign draws its edits, and when a row of it ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CampaignFacts {
    /// Trials of each row, where it does not end early.
    pub trials: usize,
    /// Half the width of the interval of `changed` at which a row ends early, where it may.
    pub half_width: Option<f64>,
    /// `weight`, `scales` or `biases`: where bits are flipped.
    pub tensor: String,
}

/// What an edit reaches where one matrix is both embedding and head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tied {
    /// A copy that is used as the head only.
    Separate,
    /// Embedding and head.
    Shared,
}

impl fmt::Display for Tied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Separate => "separate",
            Self::Shared => "shared",
        })
    }
}

/// What all records of a run have in common.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunFacts {
    /// Digest of all that decides what the run finds: model, prompts, edits, settings. Runs with one `id` may be
    /// resumed and merged.
    pub id: String,
    /// The command.
    pub command: String,
    /// Trials of the whole run; `null` where it decides as it goes.
    pub trials: Option<usize>,
    /// What a bisection asks of each point: `at-least WOBBLING` or `kl 0.05`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predicate: Option<String>,
    /// How a campaign draws its edits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub campaign: Option<CampaignFacts>,
    /// `--seed`.
    pub seed: u64,
    /// `--max-tokens`.
    pub max_tokens: usize,
    /// What an edit of a tied matrix reaches.
    pub tied: Tied,
    /// Where the threshold comes from; `null` if it was given.
    pub calibration: Option<Calibration>,
    /// The date that the chat template put into prompts, where it asked for it; the time, too, where it asked for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
    /// The generator of random edits and its version, where records may have its text in place of what it drew. Older records do not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generator: Option<String>,
    /// The model's shape.
    pub model: ModelFacts,
    /// A description of the machine, for people.
    pub machine: String,
    /// Version of this program.
    pub version: String,
}

/// The unedited model's answer to the same prompt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CleanAnswer {
    /// Generated tokens, without the eos.
    pub tokens: Vec<u32>,
    /// The tokens decoded.
    pub text: String,
    /// Why generation ended.
    pub finish: Finish,
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
    /// Name of the kernel, e.g. `avx512`; on MLX the type of activations and the device, e.g. `mlx-float16-gpu`.
    pub kernel: String,
    /// The prompt as given.
    pub prompt: String,
    /// Token ids of the prompt, chat template included.
    pub prompt_ids: Vec<u32>,
    /// The edit in its text form. A random one of more than 64 changes is the generator's text; any other is what is
    /// changed.
    pub edit: String,
    /// BLAKE3 of the text of what a random edit of more than 64 changes stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edit_digest: Option<String>,
    /// The shift, where the edit is one shift and nothing else.
    pub shift: Option<i64>,
    /// The family that the edit was taken from, such as `shift`, `digit:3`, `flips:7`; `random:flips` and
    /// `random:rate` for the draws of a campaign.
    #[serde(default)]
    pub family: Option<String>,
    /// The edit's value in its family: a shift, a digit, a number of flips, a rate.
    #[serde(default)]
    pub value: Option<Value>,
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
    /// The 99th percentile (nearest rank) of the divergence over the clean trajectory, in nats.
    pub kl_p99: Option<f64>,
    /// Share of the clean trajectory's steps at which the edited model's first choice is the clean one.
    pub agreement: Option<f64>,
    /// Whether the response holds an expected text, where there is one.
    pub expected: Option<Expected>,
    /// Texts of which one had to occur in a right response.
    #[serde(default)]
    pub expected_texts: Vec<String>,
    /// What the seed notebook says of Llama-3-8B at this shift and prompt.
    pub documented: Option<Verdict>,
    /// The clean model's answer.
    pub clean: CleanAnswer,
    /// What this record has in common with the others of its run.
    pub run: RunFacts,
    /// This trial's share of the time that the trials computed together with it took, in milliseconds.
    pub ms: f64,
}

/// Proof that the head is what it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// BLAKE3 over the head before the first shift was written.
    pub head_digest_before: String,
    /// BLAKE3 over the head after the last shift was taken back.
    pub head_digest_after: String,
    /// Whether the two are equal, and each shift's own check held.
    pub identical: bool,
    /// What the restored head answers to the first prompt.
    pub text: String,
    /// Whether its answers to all prompts are those of the clean model.
    pub same_as_clean: bool,
}
