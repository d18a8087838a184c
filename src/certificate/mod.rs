//! Certificates.

mod answer;
mod bound;
mod census;
mod collapse;
mod confined;
mod exact;
mod least_flips;
mod position;
mod protection;
mod scales;
mod silence;
mod suite;
mod toward;

pub use answer::{
    Answer, Certifier, Confined, ExecutedCensus, Options, PositionReport, Ran, Stage, Times, TowardReport, Watch,
    WeakBit,
};
pub use census::{Census, Hit, census};
pub use collapse::{Collapse, CollapseOptions, Fate, RandomFlips, Taken, collapse};
pub use confined::{Within, least_flips_within};
pub use least_flips::{LeastFlips, all_least_flips, largest_gains, least_flips};
pub use position::{Flip, Outcome, Position, Rows};
pub use protection::{Protection, RowCount, Union, WordCount};
pub use scales::{ScaleCensus, scale_census};
pub use silence::Silence;
pub use suite::Suite;
pub use toward::{Toward, toward};

use crate::search::RunError;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// An edit of the head would change the body, too.
    #[error(
        "there is no certificate of a head that is also the embedding: an edit of it changes every hidden state, and a logit is no longer linear in a code; use --tied separate, which edits a copy used as the head only"
    )]
    Tied,
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
