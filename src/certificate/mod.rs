//! Certificates: the fewest flips that change an answer, and how many single flips do, exactly.
//!
//! Attacks on a model's weights search, for hours, and prove nothing about what they did not find. For the head no search
//! is needed. With a prefix of tokens fixed, its hidden state is fixed, since no flip in the head reaches the body; the
//! logits are a linear function of the codes; and so the worst that `k` flips can do is found by sorting.
//!
//! # Symbols
//!
//! ```text
//! h[c]               hidden state at a position, c a column; the body's own f32 values, as stored
//! q[r,c]             code of row r: an integer or a float of 2 to 8 bits; g = c / group_size its group
//! v[r,c]             what the code stands for: the integer itself, or the number that the float is
//! s[r,g], b[r,g]     scale and bias, as stored, widened exactly; formats of floats have no biases, so b = 0
//! w[r,c] = s[r,g] v[r,c] + b[r,g]
//! a[r]               what the head adds to the product of row r, where it has a bias; else a = 0
//! z_r    = sum over c of w[r,c] h[c]  + a[r]       the exact logit, a real number
//! zx_r                                     the executed logit, an f32
//! t                  the token chosen at the position: the first largest zx
//! j                  a rival: any other row;   m_j = z_t - z_j its margin
//! ```
//!
//! `j` *wins* over `t` if `z_j > z_t`, or `z_j = z_t` and `j < t`: greedy decoding takes the first largest.
//!
//! # The claims
//!
//! - *Exact*: about `z`, in real arithmetic. Evaluated in `f64`, and where that is too close to call, by sums that do not
//!   round (`crate::exact`), so that nothing is left undecided.
//! - *Executed*: about `zx`, the program that really runs. `bound.rs` derives how far `zx` can be from `z`; a flip that
//!   the bound does not decide counts as *undecided*, and is run as well. A least count has a lower bound of its own
//!   there (`executed_at_least`).
//!
//! Both are about all positions of a clean answer; the step at which an eos ends it is a position like the others. The
//! first position whose token an edit changes is reached over the clean prefix, so an edit changes the answer if and only
//! if it changes some position's token *there*. If `k` is the least over the positions, no `k - 1` flips of code bits,
//! anywhere in the head, change a single token of the answer. What follows the first change is not certified: it has
//! to be run.
//!
//! # Why sorting is enough where codes are integers
//!
//! Flipping bit `i` of code `(r, c)` changes `q[r,c]` by `+2^i` if the bit was 0, by `-2^i` if it was 1, whatever the
//! other bits are. So it moves `z_r` by
//!
//! ```text
//! d = +-2^i s[r,g] h[c]
//! ```
//!
//! and no other logit, and the moves of several flips add up. (In `f64` each `d` is exact: two `f32` have at most 48
//! significant bits together.) Let `F` be any set of flips after which `t` loses, to `j` say. Its flips in rows other than
//! `t` and `j` move neither `z_t` nor `z_j`: without them `j` still wins over `t`. So do those that raise `z_t` or lower
//! `z_j`: without them `j` wins by more. What is left are *gains*, flips that lower `z_t` or raise `z_j`, and their sizes
//! `|d|` add up to more than `m_j` (or to `m_j`, where `j < t`). Put the largest gains of the two rows in the place of
//! those in `F`, as many: their sum is no smaller, so `j` still wins. Hence
//!
//! ```text
//! k_j = length of the shortest prefix of the gains of rows t and j, merged and sorted, whose sum passes m_j
//! ```
//!
//! is the least number of flips after which `j` wins over `t`; `k = min over j of k_j` is the least after which `t`
//! loses, whoever then wins; and the prefix is a witness. Sums are compared as the order of tokens compares logits.
//!
//! # Why it is not enough where codes are floats
//!
//! In a float a bit's worth depends on the other bits of its code. The logit is still linear in the values of codes, and
//! flips of different codes still add up. So let `d` be what *all* flips of one code in `F` do together. What is said above
//! of flips holds of these changes: those in other rows, and those that raise `z_t` or lower `z_j`, can be left out. Of
//! what is left, replace each change of a code, `m` flips say, by the change of that code by `m` flips or fewer that gains
//! most, `G(r, c, m)`: `j` wins all the more. Hence
//!
//! ```text
//! k_j = least k with  max over m_c, sum of m_c <= k, of  sum over the codes c of rows t and j of  G(c, m_c)  passing m_j
//! ```
//!
//! `G` is a table, since a code has few values (`changes.rs`). It need not be concave in `m`, so that sorting is not enough:
//! `allocation.rs` finds the maximum by a dynamic program in sums that do not round. A flip in the census is a change by one
//! bit, in whatever code; scales act on the values of a group as they do on integers.
//!
//! *NaN.* A float of 8 bits may be NaN. Then the logit of its row is NaN whatever the hidden state is, and the program ends
//! the step as NONFINITE, which changes the answer. In which code, and by how many flips, has nothing to do with the
//! position, so that this is known of a head once and for all ([`NanFlips`]): how few flips do it, and every single flip
//! that does. All else here is about flips that leave every code a number: a certificate of an answer says what the fewest
//! flips of either kind are, and beside it the fewest of these ([`NanReport`]).
//!
//! # Why rows may be passed over
//!
//! Reading a row costs as much as a logit. But the executed logits of all rows are there, and `|zx_j - z_j| <= E_j` with
//! an `E_j` that needs only the largest weight that a code of the row could give. So `m_j >= z_t - zx_j - E_j`, unread.
//! On the other side the gains in row `j` are at most `2^i S_j |h[c]|`, `S_j` the largest magnitude of the row's scales
//! (in place of `2^i` the most that one change of a float does): a sorted list that is the same for all rows, but for a
//! factor. A row, or a (row, column) pair, is passed over only
//! where the lower bound of the margin, less the float error of both rows for the executed claim, is beyond the upper
//! bound of what its gains can reach. `least_flips.rs`, `census.rs`, `confined.rs` and `scales.rs` say which bound each
//! uses; all of them are of this form, so that nothing passed over can belong to what is counted.
//!
//! # How float error enters
//!
//! *Exact claims* meet rounding only in the `f64` value of a logit, of which Higham's bound is kept beside it
//! ([`Position::exact_logit`] gives both), and in sums of gains. A comparison whose sides are closer than these is made
//! again without rounding.
//!
//! *Executed claims* take `E` off on the side where it hurts. Logits of rows without a flip are known to the bit, since
//! they were executed; those of rows with flips lie within `E'` of the exact ones, `E'` grown by the flips. If a logit is
//! not finite, the program ends the step as NONFINITE: that changes the token as well, so a flip that must push a logit
//! to another finite value *or* out of range counts as changing it. Where an operation could overflow at all, nothing is
//! said to stay unless that is impossible. A flip of a scale's or bias's bit may make the value itself infinite or not a
//! number: that counts as critical in both claims, and is counted apart ([`ScaleCensus::nonfinite_bits`]).
//!
//! Where float error made the executed token another than the exact winner, no flip is needed in real arithmetic: the
//! position's least count is 0, and it has no critical bits of its own; the executed claim goes on to hold of it.
//!
//! # Files
//!
//! | | |
//! | --- | --- |
//! | `position.rs` | hidden state, token, logits of all rows; gains; both comparisons |
//! | `changes.rs`, `allocation.rs` | what flips do to one code; the most that some flips do, wherever they go |
//! | `bound.rs` | the bound of the kernel's rounding |
//! | `least_flips.rs`, `confined.rs` | fewest flips anywhere, or in one word, row or line |
//! | `census.rs`, `scales.rs` | every single flip: of codes, of scales and biases |
//! | `toward.rs`, `silence.rs` | fewest flips to a chosen token; so that no eos comes |
//! | `protection.rs`, `critical.rs`, `suite.rs` | where critical bits lie, for an answer and for a suite |
//! | `answer.rs`, `data.rs` | the certificate of an answer: all of it, every witness run; and as data |
//! | `ground.rs` | what its parts have in common: the clean answer, and running edits on it |
//! | `run.rs`, `line.rs`, `merge.rs` | a run over many prompts, as lines of a journal; parts of it, joined |
//! | `certificates.rs` | all that one run of `certify` found |
//! | `collapse.rs` | a search, and no certificate: few flips that ruin a whole suite |
//!
//! # What comes after the head
//!
//! An increasing function of the logits (a scale, a softcap) keeps their order, so every claim holds with it as without it.
//!
//! # A bias of the head
//!
//! Some heads (Phi's) add a number `a[r]` to the product of each row. It is the same whatever the codes, the scales and the group
//! biases are, so a flip moves `z_r` by what it moves the product by, and every proof about moves is unchanged: the gains, their sums,
//! the bounds of what a row's gains can reach, `Q` and `H`, and what NaN does. The constants enter where logits are compared, so they
//! are part of `z`: in margins, in the sums that do not round, and in the executed logits that margins are bounded from. A row
//! that leads by its constant alone has to be passed like any other, and a tie is broken by the order of tokens as before.
//!
//! The executed claim has one more rounding, which `bound.rs` adds to `E`. Where a constant is so large that a sum with it could
//! overflow, nothing is passed over, as with weights.
//!
//! Flips of the bits of `a` itself are no part of any claim, since no edit reaches them: what is edited are the packed words,
//! scales and biases of the quantized matrix.
//!
//! # What has no certificate
//!
//! A head whose edits reach the embedding, too, has no certificate ([`CertificateError::Tied`]): its hidden states are
//! not fixed.

mod allocation;
mod answer;
mod bound;
mod census;
mod certificates;
mod changes;
mod collapse;
mod confined;
mod critical;
mod data;
mod ground;
mod least_flips;
mod line;
mod merge;
mod position;
mod protection;
mod run;
mod scales;
mod silence;
mod single_bits;
mod suite;
mod toward;

pub use answer::{Certifier, Options};
pub use census::{Census, Hit, census};
pub(crate) use certificates::{Certificates, Refused};
pub use collapse::{Collapse, CollapseOptions, Fate, RandomFlips, Taken, collapse};
pub use confined::Within;
#[cfg(feature = "testing")]
pub(crate) use confined::least_flips_within;
pub use critical::CriticalBits;
pub use data::{
    Answer, Confined, ExecutedCensus, NanReport, PositionReport, Ran, Silence, Times, TowardReport, WeakBit,
};
pub use ground::{Stage, Watch};
pub use least_flips::{LeastFlips, all_least_flips, least_flips};
pub(crate) use line::CertificateLine;
pub use merge::JoinError;
pub(crate) use merge::{Joined, Survey, join, survey};
pub use position::{Flip, NanFlips, Outcome, Position, Rows};
pub use protection::{Protection, RowCount, WordCount};
pub(crate) use run::Certification;
pub use scales::{ScaleCensus, scale_census};
pub use single_bits::{BitCount, SingleBits};
pub use suite::{Suite, TensorUnion};
#[cfg(feature = "testing")]
pub(crate) use toward::toward;

use crate::{kernels::Rounding, model::BodyError, quant::MatrixRef, search::RunError, subject::Subject};

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// An edit of the head would change the body, too.
    #[error(
        "there is no certificate of a head that is also the embedding: an edit of it changes every hidden state, and a logit is no longer linear in a code; use --tied separate, which edits a copy used as the head only"
    )]
    Tied,
    /// Nothing bounds the rounding of another backend's kernels.
    #[error("certificates rest on the rounding bound of the CPU's kernels; use --backend cpu, not {0}")]
    Backend(&'static str),
    /// There is no winner to certify, and no arithmetic of what is not a number.
    #[error("the clean answer is not finite{}, so there is no token whose lead could be certified", .step.map_or(String::new(), |step| format!(" at step {step}")))]
    NotFinite {
        /// The step, from 0, where it is known.
        step: Option<usize>,
    },
    /// The model could not be run.
    #[error(transparent)]
    Run(#[from] RunError),
}

/// How a model's logits are rounded. Refuses models whose edits or arithmetic no certificate can be about.
fn rounding(subject: &Subject) -> Result<Rounding, CertificateError> {
    if subject.shared() {
        return Err(CertificateError::Tied);
    }
    let backend = subject.backend();
    backend.rounding().ok_or(CertificateError::Backend(backend.name()))
}

/// What holds of the rows of `head`, the model's own or an edited one, and of what the model adds to each.
fn rows<'a>(subject: &'a Subject, head: MatrixRef<'a>, rounding: Rounding) -> Rows<'a> {
    Rows::new(head, rounding, subject.team()).with_bias(subject.backend().after_head().bias.as_deref())
}

impl From<BodyError> for CertificateError {
    fn from(error: BodyError) -> Self {
        Self::Run(error.into())
    }
}
