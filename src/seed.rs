//! What the notebook that this project started from says.
//!
//! It subtracts ten amounts from every packed word of the `lm_head` of
//! `mlx-community/Meta-Llama-3-8B-Instruct-4bit`, generates ten tokens for "What is 2+2?" each time, and
//! states the health that each leaves. Those statements are kept beside what is measured, never instead of it:
//! they were read off one model by eye, and thresholds belong to a model. (It also states the weight as
//! `packed_uint32 * scale + bias`; each code is scaled, not the word: see [`crate::quant`].)

use crate::coherence::Verdict;

/// The prompt of the notebook, and of every run that names no other.
pub const PROMPT: &str = "What is 2+2?";

/// The ten shifts, in the notebook's order.
pub const SHIFTS: [i64; 10] =
    [0, 1, 1_000_000, 1_000_001, 1_000_003, 1_000_004, 1_000_005, 1_000_010, 10_000_000, 100_000_000];

/// The health that the notebook states for [`PROMPT`] after `shift`, on Llama-3-8B-Instruct in 4 bits.
pub fn documented(prompt: &str, shift: i64) -> Option<Verdict> {
    if prompt != PROMPT {
        return None;
    }
    Some(match shift {
        0 | 1 | 1_000_000 => Verdict::Healthy,
        1_000_001 => Verdict::Wobbling,
        1_000_003 => Verdict::Dying,
        1_000_004 => Verdict::Collapsing,
        1_000_005 => Verdict::Dead,
        1_000_010 | 10_000_000 | 100_000_000 => Verdict::Gone,
        _ => return None,
    })
}
