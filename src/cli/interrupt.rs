//! Ctrl-C: ends a run at its next step.

use std::sync::atomic::{AtomicBool, Ordering};

use super::exit_code;
use crate::search::RunError;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Makes Ctrl-C end a run at its next step, with what is finished kept; a second one ends the program at once.
#[expect(clippy::exit, reason = "there is nobody to return to: the run does not come to its next step")]
pub(super) fn catch() {
    // Fails only where a handler stands already, which is then ours.
    drop(ctrlc::set_handler(|| {
        if INTERRUPTED.swap(true, Ordering::Relaxed) {
            std::process::exit(i32::from(exit_code::INTERRUPTED));
        }
    }));
}

/// An error once Ctrl-C was pressed.
pub(super) fn check() -> Result<(), RunError> {
    if INTERRUPTED.load(Ordering::Relaxed) { Err(RunError::Interrupted) } else { Ok(()) }
}

/// Whether an error only says that a run was interrupted.
pub(super) fn is_interrupted(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| matches!(cause.downcast_ref(), Some(RunError::Interrupted)))
}
