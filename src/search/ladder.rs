//! The ladder: edits of the whole head, one after the other, and the way back.
//!
//! The answers are measured without writing. Then each edit is really written into a private copy of the head,
//! its first words are read back from there, it is taken back, and a digest proves that every bit returned; at
//! the end the restored head answers again.

use super::{Progress, RunError, Session};
use crate::{edit::Edit, head::Head, record::Restored};

/// Runs `shifts` on the session's prompts, and gives what was found on the way back. Records go to `progress` as they are
/// finished.
///
/// # Errors
/// [`RunError`].
pub fn ladder(
    session: &mut Session<'_>,
    shifts: &[i64],
    mut progress: impl FnMut(Progress<'_>) -> Result<(), RunError>,
) -> Result<Restored, RunError> {
    let edits: Vec<Edit> = shifts.iter().map(|&shift| Edit::shift(shift)).collect();
    session.run_all("ladder", &edits, &mut progress)?;
    restore(session, &edits)
}

/// Writes each edit into a private copy of the head, and into the backend's own head where it has one, takes it back, and
/// lets the restored head answer.
fn restore(session: &mut Session<'_>, edits: &[Edit]) -> Result<Restored, RunError> {
    let subject = session.subject();
    let original = subject.head().view();
    let mut head = Head::private(subject.head(), subject.team().clone())?;
    let before = head.digest();
    let mut identical = true;
    for edit in edits {
        let applied = head.apply(edit)?;
        let written = applied.view();
        let words: Vec<u32> = (0..written.layout().words_per_row().min(5)).map(|i| written.word(0, i)).collect();
        let planned = edit.plan(&original)?.first_words(&original, 5);
        let restoration = applied.restore()?;
        identical &= words == planned && restoration.before == restoration.after;
    }
    let after = head.digest();
    let clean = session.clean()?.to_vec();
    let answers = match subject.backend().held_head()? {
        None => session.trials().answers(&mut subject.projection(head.view()))?,
        // What the backend holds is edited and restored as well, and it is this head that answers again.
        Some(mut held) => {
            let stored = held.digest()?;
            identical &= stored == before;
            for edit in edits {
                let plan = edit.plan(&original)?;
                identical &= held.apply(&plan)? == plan.first_words(&original, 5);
                held.restore()?;
                identical &= held.digest()? == stored;
            }
            session.trials().answers(&mut held)?
        }
    };
    let same_as_clean = answers
        .iter()
        .zip(&clean)
        .all(|(answer, clean)| (&answer.tokens, answer.finish) == (&clean.tokens, clean.finish));
    Ok(Restored {
        head_digest_before: before.to_hex().to_string(),
        head_digest_after: after.to_hex().to_string(),
        identical: identical && before == after,
        text: subject.decode(&answers[0].tokens)?,
        same_as_clean,
    })
}
