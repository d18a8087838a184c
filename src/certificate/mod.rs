//! Certificates.

mod bound;
mod census;
mod exact;
mod least_flips;
mod position;

pub use census::{Census, Hit, census};
pub use least_flips::{LeastFlips, least_flips};
pub use position::{Flip, Outcome, Position, Rows};

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// Not finite.
    #[error("not finite {step:?}")]
    NotFinite {
        /// Where.
        step: Option<usize>,
    },
}
