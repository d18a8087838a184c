//! What the trials of one edit have in common: over the prompts of a suite, or over the draws of a campaign.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Expected, Record, sample::Sample};
use crate::{
    coherence::{Tag, Verdict},
    edit::Value,
    exact::Sum,
    stats,
};

/// Trials taken together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Number of trials.
    pub trials: usize,
    /// How many have each verdict; those that none has are left out.
    pub verdicts: BTreeMap<Verdict, usize>,
    /// The median verdict, the worse of the two middle ones of an even number.
    pub median: Verdict,
    /// The bootstrap's interval of 95 % of the median, the better end first; `stats.rs` derives it.
    pub median_interval: [Verdict; 2],
    /// Mean of the trials' mean divergences, in nats; `null` if one of them is not finite.
    pub kl_mean: Option<f64>,
    /// Mean of the trials' agreements; `null` if one has none.
    pub agreement: Option<f64>,
    /// Trials that answer otherwise than the clean model: other tokens, or another finish.
    pub changed: usize,
    /// Trials whose response holds an expected text.
    pub right: usize,
    /// Trials whose response should hold one and does not.
    pub wrong: usize,
    /// Number of the trials with a wrong response that are coherent to their end.
    pub wrong_but_fluent: usize,
}

impl Spread {
    /// Takes trials together; `None` of none.
    pub fn of<'a>(records: impl IntoIterator<Item = &'a Record>) -> Option<Self> {
        let mut tally = Tally::default();
        records.into_iter().for_each(|record| tally.add(record));
        tally.spread()
    }
}

/// Trials that are taken together one by one, in any order, and not kept.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// The least number of a trial.
    first: Option<usize>,
    trials: usize,
    /// By verdict.
    verdicts: [usize; Verdict::ALL.len()],
    kl: Mean,
    agreement: Mean,
    changed: usize,
    right: usize,
    wrong: usize,
    wrong_but_fluent: usize,
}

impl Tally {
    /// Adds a trial.
    pub(crate) fn add(&mut self, record: &Record) {
        self.first = Some(self.first.map_or(record.trial, |first| first.min(record.trial)));
        self.trials += 1;
        self.verdicts[record.verdict as usize] += 1;
        self.kl.add(record.kl_mean);
        self.agreement.add(record.agreement);
        self.changed += usize::from(changed(record));
        self.right += usize::from(record.expected == Some(Expected::Right));
        self.wrong += usize::from(record.expected == Some(Expected::Wrong));
        self.wrong_but_fluent += usize::from(record.tags.contains(&Tag::WrongButFluent));
    }

    /// Number of trials.
    pub(crate) const fn trials(&self) -> usize {
        self.trials
    }

    /// The least number of a trial; `None` without one.
    pub(crate) const fn first(&self) -> Option<usize> {
        self.first
    }

    /// How many trials have each verdict; those that none has are left out.
    pub(crate) fn verdicts(&self) -> BTreeMap<Verdict, usize> {
        self.counts().into_iter().filter(|&(_, count)| count > 0).collect()
    }

    /// What the trials add up to; `None` of none.
    pub(crate) fn spread(&self) -> Option<Spread> {
        let counts = self.counts();
        Some(Spread {
            trials: self.trials,
            verdicts: self.verdicts(),
            median: stats::median_of_counts(&counts)?,
            median_interval: stats::median_interval(&counts)?,
            kl_mean: self.kl.of(self.trials),
            agreement: self.agreement.of(self.trials),
            changed: self.changed,
            right: self.right,
            wrong: self.wrong,
            wrong_but_fluent: self.wrong_but_fluent,
        })
    }

    fn counts(&self) -> [(Verdict, usize); Verdict::ALL.len()] {
        Verdict::ALL.map(|verdict| (verdict, self.verdicts[verdict as usize]))
    }
}

/// The mean of numbers that are all there. It is rounded twice, as a sum and as a quotient, whatever the order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mean {
    sum: Sum,
    missing: bool,
}

impl Mean {
    pub(crate) fn add(&mut self, number: Option<f64>) {
        match number {
            Some(number) if number.is_finite() => self.sum.add(number),
            _ => self.missing = true,
        }
    }

    /// Of so many numbers; `None` of nothing, and where one is not there.
    pub(crate) fn of(&self, count: usize) -> Option<f64> {
        (count > 0 && !self.missing).then(|| self.sum.nearest() / count as f64)
    }
}

/// Whether a trial's answer is not the clean one.
pub fn changed(record: &Record) -> bool {
    (&record.tokens, record.finish) != (&record.clean.tokens, record.clean.finish)
}

/// One edit over all prompts that it was run on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The edit in its text form.
    pub edit: String,
    /// The shift, where the edit is one shift and nothing else.
    pub shift: Option<i64>,
    /// The family that the edit was taken from.
    pub family: Option<String>,
    /// The edit's value in its family.
    pub value: Option<Value>,
    /// Its trials.
    #[serde(flatten)]
    pub spread: Spread,
}

/// Edits that a summary tells of; of more, these are chosen evenly.
pub(crate) const MOST_EDITS: usize = 10_000;

/// The edits of a run over their prompts, taken together one by one, in any order.
#[derive(Clone, Debug)]
pub(crate) struct Summaries {
    edits: Sample<String, OfAnEdit>,
    trials: usize,
}

/// The trials of one edit.
#[derive(Clone, Debug, Default)]
struct OfAnEdit {
    edit: String,
    shift: Option<i64>,
    family: Option<String>,
    value: Option<Value>,
    tally: Tally,
}

impl Default for Summaries {
    fn default() -> Self {
        Self { edits: Sample::new(MOST_EDITS), trials: 0 }
    }
}

impl Summaries {
    /// Adds a trial.
    pub(crate) fn add(&mut self, record: &Record) {
        self.trials += 1;
        let Some(known) = self.edits.entry(record.edit.clone()) else { return };
        // What is said of an edit is what its first trial says.
        if known.tally.first().is_none_or(|first| record.trial < first) {
            known.edit.clone_from(&record.edit);
            known.family.clone_from(&record.family);
            (known.shift, known.value) = (record.shift, record.value);
        }
        known.tally.add(record);
    }

    /// Each edit over its prompts, edits in the order of their first trials.
    pub(crate) fn summaries(&self) -> Vec<Summary> {
        let mut edits: Vec<&OfAnEdit> = self.edits.values().collect();
        edits.sort_by_key(|known| known.tally.first());
        let summary = |known: &OfAnEdit| {
            Some(Summary {
                edit: known.edit.clone(),
                shift: known.shift,
                family: known.family.clone(),
                value: known.value,
                spread: known.tally.spread()?,
            })
        };
        edits.into_iter().filter_map(summary).collect()
    }

    /// Trials of edits of which there are too many to tell of.
    pub(crate) fn left_out(&self) -> usize {
        self.trials - self.edits.values().map(|known| known.tally.trials()).sum::<usize>()
    }

    /// The most trials of one edit.
    pub(crate) fn most_trials(&self) -> usize {
        self.edits.values().map(|known| known.tally.trials()).max().unwrap_or(0)
    }
}

/// Each edit over its prompts, edits in the order of their first trials; of more than ten thousand, so many of them.
pub fn summaries<'a>(records: impl IntoIterator<Item = &'a Record>) -> Vec<Summary> {
    let mut all = Summaries::default();
    records.into_iter().for_each(|record| all.add(record));
    all.summaries()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::records::record;

    fn of(records: &[Record]) -> Spread {
        Spread::of(records).expect("trials")
    }

    #[test]
    fn a_spread_counts_verdicts_changes_and_right_answers() {
        let mut records: Vec<Record> = [Verdict::Healthy, Verdict::Gone, Verdict::Wobbling, Verdict::Wobbling]
            .into_iter()
            .map(|verdict| Record { verdict, ..record() })
            .collect();
        records[0].tokens = records[0].clean.tokens.clone();
        records[0].expected = Some(Expected::Right);
        records[1].expected = Some(Expected::Wrong);
        records[2].expected = Some(Expected::Wrong);
        records[2].tags = vec![Tag::WrongButFluent];
        records[3].kl_mean = Some(1.5);
        let spread = of(&records);
        assert_eq!(
            spread.verdicts,
            BTreeMap::from([(Verdict::Healthy, 1), (Verdict::Wobbling, 2), (Verdict::Gone, 1)])
        );
        assert_eq!((spread.median, spread.trials, spread.changed), (Verdict::Wobbling, 4, 3));
        assert_eq!((spread.right, spread.wrong, spread.wrong_but_fluent), (1, 2, 1));
        assert_eq!(spread.kl_mean, Some((3.0 * 0.5 + 1.5) / 4.0));
        records[1].kl_mean = None;
        assert_eq!(of(&records).kl_mean, None);
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn an_answer_that_ends_otherwise_is_changed() {
        let mut same = record();
        same.tokens = same.clean.tokens.clone();
        same.finish = same.clean.finish;
        assert!(!changed(&same));
        assert!(changed(&Record { finish: crate::coherence::Finish::Nonfinite, ..same.clone() }));
        assert!(changed(&Record { tokens: vec![1], ..same }));
    }

    #[test]
    fn summaries_take_edits_in_the_order_of_their_trials() {
        let at = |trial, edit: &str| Record { trial, edit: edit.to_owned(), ..record() };
        let found = summaries(&[at(3, "shift:1"), at(0, "shift:9"), at(1, "shift:1"), at(2, "shift:9")]);
        let edits: Vec<(&str, usize)> = found.iter().map(|found| (found.edit.as_str(), found.spread.trials)).collect();
        assert_eq!(edits, [("shift:9", 2), ("shift:1", 2)]);
        let json = serde_json::to_value(&found[0]).expect("an object");
        assert_eq!(json["verdicts"], serde_json::json!({"WOBBLING": 2}));
        assert_eq!(json["median_interval"], serde_json::json!(["WOBBLING", "WOBBLING"]));
    }

    #[test]
    fn sums_are_the_same_in_every_order() {
        let mut records: Vec<Record> = (0..40)
            .map(|trial| Record { trial, kl_mean: Some(0.1 + 1e-17 * 7_f64.powi(trial as i32)), ..record() })
            .collect();
        let expected = of(&records);
        records.reverse();
        assert_eq!(of(&records), expected);
        records.swap(0, 20);
        assert_eq!(of(&records), expected);
    }

    #[test]
    fn of_very_many_edits_some_are_told_of_each_with_all_its_trials() {
        let at = |trial: usize| Record { trial, edit: format!("shift:{}", trial % 12_000), ..record() };
        let mut all = Summaries::default();
        (0..24_000).rev().for_each(|trial| all.add(&at(trial)));
        let found = all.summaries();
        assert_eq!((found.len(), all.left_out(), all.most_trials()), (MOST_EDITS, 4_000, 2));
        assert!(found.iter().all(|summary| summary.spread.trials == 2));
        let shift = |summary: &Summary| summary.edit[6..].parse::<usize>().expect("a shift");
        assert!(found.windows(2).all(|pair| shift(&pair[0]) < shift(&pair[1])));
    }
}
