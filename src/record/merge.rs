//! Journals of the parts of one run, joined to what the whole run would have written.

use std::path::PathBuf;

use super::{
    Record,
    journal::{Finished, JournalError, unique},
};

/// The parts of a run, put together.
#[derive(Debug)]
pub struct Merged {
    /// Each finished trial once, ordered by number.
    pub records: Vec<Record>,
    /// Trials of the whole run that no part has; `None` where the run did not know their number.
    pub missing: Option<usize>,
}

/// Joins journals of one run.
///
/// # Errors
/// [`JournalError::OtherRun`], where a record belongs to another run than the first one;
/// [`JournalError::Contradiction`], where two records of one trial differ in more than time and machine.
pub fn merge(journals: &[(PathBuf, Finished)]) -> Result<Merged, JournalError> {
    let all = || journals.iter().flat_map(|(path, finished)| finished.records.iter().map(move |found| (path, found)));
    let Some((_, (_, first))) = all().next() else { return Ok(Merged { records: Vec::new(), missing: None }) };
    for (path, (line, record)) in all() {
        let same = [
            ("model's digest", &record.model_digest, &first.model_digest),
            ("command", &record.run.command, &first.run.command),
            ("backend", &record.backend, &first.backend),
            ("run (by digest)", &record.run.id, &first.run.id),
        ];
        let dates = [&record.run.date, &first.run.date].map(|date| super::journal::date(date.as_deref()));
        let same = [same[0], same[1], same[2], ("date (--date)", &dates[0], &dates[1]), same[3]];
        if let Some((what, found, here)) = same.into_iter().find(|(_, found, here)| found != here) {
            let (path, found, here) = (path.clone(), found.clone(), here.clone());
            return Err(JournalError::OtherRun { path, line: *line, what, found, here });
        }
    }
    let records = unique(all().map(|(path, (line, record))| (&**path, *line, record.clone())))?;
    let missing = first.run.trials.map(|trials| trials.saturating_sub(records.len()));
    Ok(Merged { records, missing })
}
