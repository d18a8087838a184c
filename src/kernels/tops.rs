//! The two largest logits of hidden states, without all the others where this kernel has a screen.

use super::{kernel::Kernel, paths::Paths, statistics::Top};
use crate::{quant::MatrixRef, team::Team};

/// The two largest logits of each of several hidden states; see [`tops`].
#[derive(Clone, Debug)]
pub struct Tops {
    /// One for each hidden state, the first of equals first; `None` if one logit is not finite.
    pub tops: Vec<Option<Top>>,
    /// What was done to find them.
    pub paths: Paths,
}

/// The two largest logits of each hidden state under a shift; `None` where this kernel has no screen for such a matrix.
///
/// # Panics
/// If a hidden state is not as long as a row.
pub fn tops(kernel: Kernel, team: &Team, matrix: &MatrixRef<'_>, queries: &[(u32, &[f32])]) -> Option<Tops> {
    #[cfg(target_arch = "x86_64")]
    return super::screen::tops(kernel, team, matrix, queries).map(|(tops, paths)| Tops { tops, paths });
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (kernel, team, matrix, queries);
        None
    }
}
