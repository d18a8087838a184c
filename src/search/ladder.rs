//! The ladder: shifts of the whole head, one after the other, and the way back.
//!
//! The answers are measured without writing. Then each shift is really written into a private copy of the head,
//! its first words are read back from there, it is taken back, and a digest proves that every bit returned; at
//! the end the restored head answers again.

use super::{Progress, RunError, Settings, records, trials};
use crate::{
    edit::Edit,
    head::Head,
    record::{Record, Restored},
    subject::{Prompt, Subject},
};

/// A ladder's results.
#[derive(Debug)]
pub struct Ladder {
    /// One record for each prompt and shift.
    pub records: Vec<Record>,
    /// What was found on the way back.
    pub restored: Restored,
}

/// Runs `shifts` on `prompts`. Records go to `progress` as they are finished, and into the result.
///
/// # Errors
/// [`RunError`].
///
/// # Panics
/// If there is no prompt.
pub fn ladder(
    subject: &Subject,
    prompts: &[Prompt],
    shifts: &[i64],
    settings: Settings,
    mut progress: impl FnMut(&Progress) -> Result<(), RunError>,
) -> Result<Ladder, RunError> {
    let edits: Vec<Edit> = shifts.iter().map(|&shift| Edit::shift(shift)).collect();
    let ids: Vec<Vec<u32>> = prompts.iter().map(|prompt| prompt.ids.clone()).collect();
    let (mut body, mut original) = (subject.body(), subject.projection(subject.head().view()));
    let mut trials = trials(subject, &mut body, &ids, settings);
    let mut found = Vec::with_capacity(edits.len() * prompts.len());
    records(subject, prompts, &mut trials, &mut original, &edits, settings, |event| {
        progress(&event)?;
        if let Progress::Record(record) = event {
            found.push(*record);
        }
        Ok(())
    })?;

    let mut head = Head::private(subject.head(), subject.team().clone())?;
    let before = head.digest();
    let mut identical = true;
    for edit in &edits {
        let applied = head.apply(edit)?;
        let written = applied.view();
        let words: Vec<u32> = (0..written.layout().words_per_row().min(5)).map(|i| written.word(0, i)).collect();
        let planned = edit.plan(&subject.head().view())?.first_words(&subject.head().view(), 5);
        let restoration = applied.restore()?;
        identical &= words == planned && restoration.before == restoration.after;
    }
    let after = head.digest();
    let answers = trials.answers(&mut subject.projection(head.view()))?;
    let same_as_clean = answers
        .iter()
        .zip(trials.clean())
        .all(|(answer, clean)| (&answer.tokens, answer.finish) == (&clean.tokens, clean.finish));
    let restored = Restored {
        head_digest_before: before.to_hex().to_string(),
        head_digest_after: after.to_hex().to_string(),
        identical: identical && before == after,
        text: subject.decode(&answers[0].tokens)?,
        same_as_clean,
    };
    Ok(Ladder { records: found, restored })
}

/// Runs any edits on `prompts`.
///
/// # Errors
/// [`RunError`].
pub fn probe(
    subject: &Subject,
    prompts: &[Prompt],
    edits: &[Edit],
    settings: Settings,
    mut progress: impl FnMut(&Progress) -> Result<(), RunError>,
) -> Result<Vec<Record>, RunError> {
    let ids: Vec<Vec<u32>> = prompts.iter().map(|prompt| prompt.ids.clone()).collect();
    let (mut body, mut original) = (subject.body(), subject.projection(subject.head().view()));
    let mut trials = trials(subject, &mut body, &ids, settings);
    let mut found = Vec::new();
    records(subject, prompts, &mut trials, &mut original, edits, settings, |event| {
        progress(&event)?;
        if let Progress::Record(record) = event {
            found.push(*record);
        }
        Ok(())
    })?;
    Ok(found)
}
