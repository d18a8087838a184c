//! What the trials of one edit have in common: over the prompts of a suite, or over the draws of a campaign.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Expected, Record};
use crate::{
    coherence::{Tag, Verdict},
    edit::Value,
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
    pub fn of(records: &[&Record]) -> Option<Self> {
        let verdicts: Vec<Verdict> = records.iter().map(|record| record.verdict).collect();
        let count = |wanted: &dyn Fn(&Record) -> bool| records.iter().filter(|record| wanted(record)).count();
        Some(Self {
            trials: records.len(),
            verdicts: Verdict::ALL
                .into_iter()
                .map(|verdict| (verdict, count(&|record| record.verdict == verdict)))
                .filter(|&(_, count)| count > 0)
                .collect(),
            median: stats::median(&verdicts)?,
            median_interval: stats::median_interval(&verdicts)?,
            kl_mean: mean(records.iter().map(|record| record.kl_mean)),
            agreement: mean(records.iter().map(|record| record.agreement)),
            changed: count(&changed),
            right: count(&|record| record.expected == Some(Expected::Right)),
            wrong: count(&|record| record.expected == Some(Expected::Wrong)),
            wrong_but_fluent: count(&|record| record.tags.contains(&Tag::WrongButFluent)),
        })
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

/// Each edit over its prompts, edits in the order of their first trials.
pub fn summaries(records: &[Record]) -> Vec<Summary> {
    let mut sorted: Vec<&Record> = records.iter().collect();
    sorted.sort_by_key(|record| record.trial);
    let mut order = Vec::new();
    let mut trials: BTreeMap<&str, Vec<&Record>> = BTreeMap::new();
    for record in sorted {
        let those = trials.entry(&record.edit).or_default();
        if those.is_empty() {
            order.push(record);
        }
        those.push(record);
    }
    order
        .into_iter()
        .filter_map(|first| {
            Some(Summary {
                edit: first.edit.clone(),
                shift: first.shift,
                family: first.family.clone(),
                value: first.value,
                spread: Spread::of(&trials[first.edit.as_str()])?,
            })
        })
        .collect()
}

/// The mean of numbers that are all there; `None` of nothing. Summed in the order given.
fn mean(numbers: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let numbers: Vec<f64> = numbers.collect::<Option<_>>()?;
    (!numbers.is_empty()).then(|| numbers.iter().sum::<f64>() / numbers.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::records::record;

    fn of(records: &[Record]) -> Spread {
        Spread::of(&records.iter().collect::<Vec<_>>()).expect("trials")
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
}
