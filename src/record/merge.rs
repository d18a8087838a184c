//! Journals of the parts of one run, joined to what the whole run would have written.

use std::{collections::BTreeMap, path::PathBuf};

use super::{
    Record,
    journal::{Finished, JournalError, same_result},
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
pub fn merge(journals: Vec<(PathBuf, Finished)>) -> Result<Merged, JournalError> {
    let mut of_trial: BTreeMap<usize, Record> = BTreeMap::new();
    let mut first: Option<Record> = None;
    for (path, finished) in journals {
        for (line, record) in finished.records {
            let first = first.get_or_insert_with(|| record.clone());
            let same = [
                ("model's digest", &record.model_digest, &first.model_digest),
                ("command", &record.run.command, &first.run.command),
                ("backend", &record.backend, &first.backend),
                ("run (by digest)", &record.run.id, &first.run.id),
            ];
            if let Some((what, found, here)) = same.into_iter().find(|(_, found, here)| found != here) {
                let (found, here) = (found.clone(), here.clone());
                return Err(JournalError::OtherRun { path, line, what, found, here });
            }
            match of_trial.get(&record.trial) {
                Some(known) if !same_result(known, &record) => {
                    return Err(JournalError::Contradiction { path, line, trial: record.trial });
                }
                Some(_) => {}
                None => drop(of_trial.insert(record.trial, record)),
            }
        }
    }
    let missing = first.and_then(|record| record.run.trials).map(|trials| trials.saturating_sub(of_trial.len()));
    Ok(Merged { records: of_trial.into_values().collect(), missing })
}
