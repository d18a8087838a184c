//! The hexadecimal map: which digits of a shift hurt.
//!
//! A packed word is eight hexadecimal digits, and a shift of one digit, `value * 16^digit`, moves that digit of
//! every word of the head and borrows from those above. With codes of 4 bits digit `k` is code `k` of each word,
//! columns `k`, `k + 8`, `k + 16` and so on; with codes of 8 bits digits `2k` and `2k + 1` are the lower and the
//! upper half of code `k`. The map runs all of 8 digits and 16 values on each prompt. Value 0 is the clean head, in every
//! row: a map shows what nothing looks like beside what it shows.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Progress, RunError, Session, Spec, Stopped, family::job};
use crate::{
    edit::{Family, Value},
    record::{
        Record,
        summary::{Spread, Tally},
    },
};

/// Hexadecimal digits of a packed word.
pub(crate) const DIGITS: u32 = 8;

/// Values of a digit.
pub(crate) const VALUES: i64 = 16;

/// One digit at one value, over all prompts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cell {
    /// Position of the digit, from the least.
    pub digit: u32,
    /// Its value, 0 to 15.
    pub value: i64,
    /// `value * 16^digit`.
    pub shift: i64,
    /// Its trials.
    #[serde(flatten)]
    pub spread: Spread,
}

/// What a map found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Map {
    /// Digit by digit.
    pub cells: Vec<Cell>,
}

/// Runs all values of all digits on the session's prompts: all prompts of a cell together, so that cells are finished one
/// after the other.
///
/// # Errors
/// [`Stopped`], with the cells that were run by then.
pub fn map(
    session: &mut Session<'_>,
    mut progress: impl FnMut(Progress<'_>) -> Result<(), RunError>,
) -> Result<Map, Stopped<Map>> {
    let prompts = session.prompts().len();
    let mut cells = Cells::default();
    let mut watch = |told: Progress<'_>| told.pass(&mut progress, |record| cells.add(record));
    let jobs = edits().flat_map(|edit| (0..prompts).map(move |prompt| (prompt, edit))).enumerate().map(
        |(trial, (prompt, (family, value)))| job(trial, prompt, family, value).expect("digits are of their family"),
    );
    let trials = Some(DIGITS as usize * VALUES as usize * prompts);
    let result = session
        .begin(Spec { command: "map", trials, ..Spec::default() }, &mut watch)
        .and_then(|()| session.run(jobs, &mut watch));
    let found = Map { cells: cells.cells() };
    match result {
        Ok(()) => Ok(found),
        Err(error) => Err(Stopped { found: Box::new(found), error }),
    }
}

/// The edits of a map, digit by digit.
pub(crate) fn edits() -> impl Iterator<Item = (Family, Value)> {
    (0..DIGITS).flat_map(|digit| (0..VALUES).map(move |value| (Family::Digit(digit), Value::Integer(value))))
}

/// Trials of a map, taken together by cell one by one, in any order; those of other families are passed over.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cells(BTreeMap<(u32, i64), Tally>);

impl Cells {
    /// Adds a trial.
    pub(crate) fn add(&mut self, record: &Record) {
        let family = record.family.as_deref().and_then(|family| family.parse().ok());
        if let (Some(Family::Digit(digit)), Some(Value::Integer(value @ 0..VALUES))) = (family, record.value) {
            self.0.entry((digit, value)).or_default().add(record);
        }
    }

    /// The cells, digit by digit.
    pub(crate) fn cells(&self) -> Vec<Cell> {
        let cell = |(&(digit, value), tally): (&(u32, i64), &Tally)| {
            Some(Cell { digit, value, shift: value << (4 * digit), spread: tally.spread()? })
        };
        self.0.iter().filter_map(cell).collect()
    }
}

/// The cells that `records` tell of, digit by digit; records of other families are passed over.
pub fn cells<'a>(records: impl IntoIterator<Item = &'a Record>) -> Vec<Cell> {
    let mut cells = Cells::default();
    records.into_iter().for_each(|record| cells.add(record));
    cells.cells()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{coherence::Verdict, testing::records::record};

    #[test]
    fn a_map_has_128_edits_and_each_is_its_shift() {
        let all: Vec<(Family, Value)> = edits().collect();
        assert_eq!(all.len(), 128);
        for (i, (family, value)) in all.into_iter().enumerate() {
            let shift = (i as i64 % 16) << (4 * (i / 16));
            assert_eq!(family.at(value).expect("an edit").shift_only(), Some(shift));
        }
    }

    #[test]
    fn cells_gather_the_prompts_of_an_edit() {
        let at = |trial, family: &str, value, verdict| Record {
            trial,
            family: Some(family.to_owned()),
            value: Some(Value::Integer(value)),
            verdict,
            ..record()
        };
        let found = cells(&[
            at(5, "digit:7", 15, Verdict::Gone),
            at(1, "digit:0", 2, Verdict::Healthy),
            at(2, "digit:0", 2, Verdict::Dead),
            at(9, "shift", 3, Verdict::Dead),
            at(9, "digit:8", 3, Verdict::Dead),
            at(9, "digit:3", 16, Verdict::Dead),
            Record { family: None, ..record() },
        ]);
        let seen: Vec<(u32, i64, i64, Verdict, usize)> = found
            .iter()
            .map(|cell| (cell.digit, cell.value, cell.shift, cell.spread.median, cell.spread.trials))
            .collect();
        assert_eq!(seen, [(0, 2, 2, Verdict::Dead, 2), (7, 15, 15 << 28, Verdict::Gone, 1)]);
        let json = serde_json::to_value(&found[0]).expect("an object");
        assert_eq!((&json["median"], &json["verdicts"]["DEAD"]), (&"DEAD".into(), &1.into()));
    }
}
