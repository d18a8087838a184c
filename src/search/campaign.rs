//! Campaigns: how often do random flips change an answer, and into what?
//!
//! A row of a campaign is a number of flips, or a rate. Its trial `i` flips bits that are drawn anew, independently
//! of all other trials, and asks prompt `i mod P` of `P`: each draw is tried on one prompt only, so that trials are
//! independent and the interval of a proportion is that of so many of them. (Each prompt has its fixed share of
//! the trials. That leaves a proportion over all prompts with less variance than the interval allows for, never with more.)
//!
//! The seed of trial `i` is a function of the campaign's seed, of the row's own number and of `i`, not of the other
//! rows, so that a row can be run again alone:
//!
//! ```text
//! mix(mix(mix(mix(seed) ^ kind) ^ value) ^ i)
//! ```
//!
//! where `mix(x)` is SplitMix64's first output from state `x`, `kind` is 1 for flips and 2 for rates, and `value` is
//! the number of flips or the bits of the rate as an `f64`. Records hold the flips themselves, or beyond 64 of them this seed.
//!
//! A row may end early, once the interval of `changed` is as narrow as asked. It is looked at after 100, 200, 400, ...
//! trials and not between: looking after every trial would end a row whenever chance makes the interval narrow. Even so a
//! row that may end early does not have exactly the interval's 95 %, which is then *nominal*.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Job, Progress, RunError, Session, Spec, Stopped};
use crate::{
    coherence::Verdict,
    edit::{Amount, Change, Edit, Random, Value},
    quant::{Layout, Tensor},
    random::mix,
    record::{
        CampaignFacts, Record,
        summary::{Spread, Tally, changed},
    },
    stats::wilson,
};

/// Trials before a row is looked at for the first time.
const FIRST_LOOK: usize = 100;

/// What is drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Campaign {
    /// Flips or rate of each row.
    pub rows: Vec<Amount>,
    /// Where bits are flipped.
    pub tensor: Tensor,
    /// Trials of each row, where it does not end early.
    pub trials: usize,
    /// Half the width of the interval of `changed` at which a row ends.
    pub half_width: Option<f64>,
}

impl Campaign {
    /// The edit of a row's trial, where all draws come from `seed`.
    pub(crate) fn edit(&self, row: usize, trial: usize, seed: u64) -> Edit {
        let amount = self.rows[row];
        let (kind, value) = match amount {
            Amount::Flips(flips) => (1, flips),
            Amount::Rate(rate) => (2, rate.to_bits()),
        };
        let seed = [kind, value, trial as u64].into_iter().fold(mix(seed), |seed, part| mix(seed ^ part));
        Edit::new(vec![Change::Random(Random { tensor: self.tensor, amount, seed })])
    }

    /// That draws of every row fit a head of this layout.
    ///
    /// # Errors
    /// [`RunError::Edit`].
    pub(crate) fn check(&self, layout: &Layout, seed: u64) -> Result<(), RunError> {
        Ok((0..self.rows.len()).try_for_each(|row| self.edit(row, 0, seed).check(layout))?)
    }

    /// The name in records of a row's family, and its value.
    pub(crate) fn family(&self, row: usize) -> (&'static str, Value) {
        match self.rows[row] {
            // More flips than an i64 holds are more than any head has bits.
            Amount::Flips(flips) => ("random:flips", Value::Integer(i64::try_from(flips).unwrap_or(i64::MAX))),
            Amount::Rate(rate) => ("random:rate", Value::Rate(rate)),
        }
    }

    fn spec(&self) -> Spec {
        let listed: Vec<String> = (0..self.rows.len())
            .map(|row| {
                let (family, value) = self.family(row);
                format!("{family} {value}")
            })
            .collect();
        Spec {
            command: "campaign",
            campaign: Some(CampaignFacts {
                trials: self.trials,
                half_width: self.half_width,
                tensor: self.tensor.name().to_owned(),
            }),
            // A row that may end early has no number of trials beforehand.
            trials: self.half_width.is_none().then_some(self.rows.len() * self.trials),
            random: true,
            edits: listed.join("\n"),
            ..Spec::default()
        }
    }

    /// Numbers of trials after which a row is looked at: 100, 200, 400 and so on where it may end early, and at its end.
    pub(crate) fn looks(&self) -> Vec<usize> {
        let mut looks = Vec::new();
        if self.half_width.is_some() {
            let doubled = std::iter::successors(Some(FIRST_LOOK), |look| look.checked_mul(2));
            looks.extend(doubled.take_while(|&look| look < self.trials));
        }
        looks.push(self.trials);
        looks
    }

    /// Whether a row ends at a look.
    pub(crate) fn is_narrow(&self, changed: usize, trials: usize) -> bool {
        self.half_width.is_some_and(|half| wilson(changed, trials).is_some_and(|[lo, hi]| hi - lo <= 2.0 * half))
    }
}

/// What a campaign found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Rows {
    /// In the order of their trials.
    pub rows: Vec<Row>,
}

/// Runs a campaign on the session's prompts, row by row, with draws from the session's seed.
///
/// # Errors
/// [`Stopped`], with the rows that were run by then.
pub fn campaign(
    session: &mut Session<'_>,
    plan: &Campaign,
    mut progress: impl FnMut(Progress<'_>) -> Result<(), RunError>,
) -> Result<Rows, Stopped<Rows>> {
    let mut counts = Counts::default();
    match counts.run(session, plan, &mut progress) {
        Ok(()) => Ok(Rows { rows: counts.rows.rows() }),
        Err(error) => Err(Stopped { found: Box::new(Rows { rows: counts.rows.rows() }), error }),
    }
}

/// What of a campaign's trials is kept while it is run.
#[derive(Default)]
struct Counts {
    rows: Tallies,
    /// By row and by the look that is the first after a trial: trials whose answer changed. Those of an earlier part of
    /// the run come before it is known which looks there are.
    changed: BTreeMap<(usize, usize), usize>,
}

impl Counts {
    fn run(
        &mut self,
        session: &mut Session<'_>,
        plan: &Campaign,
        progress: &mut impl FnMut(Progress<'_>) -> Result<(), RunError>,
    ) -> Result<(), RunError> {
        let (seed, prompts) = (session.settings().seed, session.prompts().len());
        plan.check(session.subject().head().layout(), seed)?;
        let looks = plan.looks();
        let mut watch =
            |counts: &mut Self, told: Progress<'_>| told.pass(progress, |record| counts.add(plan, &looks, record));
        session.begin(plan.spec(), &mut |told| watch(self, told))?;
        for row in 0..plan.rows.len() {
            let (family, value) = plan.family(row);
            let mut done = 0;
            for (number, &look) in looks.iter().enumerate() {
                let jobs = (done..look).map(|trial| Job {
                    trial: row * plan.trials + trial,
                    prompt: trial % prompts,
                    edit: plan.edit(row, trial, seed),
                    family: Some(family.to_owned()),
                    value: Some(value),
                });
                session.run(jobs, &mut |told| watch(self, told))?;
                done = look;
                let changed = self.changed.range((row, 0)..=(row, number)).map(|(_, changed)| changed).sum();
                if plan.is_narrow(changed, done) {
                    break;
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, plan: &Campaign, looks: &[usize], record: &Record) {
        self.rows.add(record);
        let (row, trial) = (record.trial / plan.trials, record.trial % plan.trials);
        let look = looks.partition_point(|&look| look <= trial);
        *self.changed.entry((row, look)).or_default() += usize::from(changed(record));
    }
}

/// One row of a campaign's result.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Bits flipped in each trial; `null` where a rate was given.
    pub flips: Option<u64>,
    /// Probability of each bit to be flipped; `null` where a number was given.
    pub rate: Option<f64>,
    /// `weight`, `scales` or `biases`: where.
    pub tensor: String,
    /// Its trials: among them `trials`, their number, and `changed`, those that answer otherwise than the clean model.
    #[serde(flatten)]
    pub spread: Spread,
    /// `changed / trials`.
    pub changed_rate: f64,
    /// Wilson's interval of 95 % of the probability of a changed answer.
    pub changed_wilson: [f64; 2],
    /// Wilson's interval of the probability of each verdict, those that no trial has included.
    pub verdicts_wilson: BTreeMap<Verdict, [f64; 2]>,
    /// Whether the row ended before its last trial, because its interval was narrow enough.
    pub stopped_early: bool,
    /// Whether the row might have ended early, so that the intervals' 95 % are nominal.
    pub nominal: bool,
}

/// Trials of campaigns, taken together by row one by one, in any order; those of other families are passed over.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tallies(BTreeMap<(bool, u64, String), (Option<CampaignFacts>, Tally)>);

impl Tallies {
    /// Adds a trial.
    pub(crate) fn add(&mut self, record: &Record) {
        let (is_rate, bits) = match (record.family.as_deref(), record.value) {
            (Some("random:flips"), Some(Value::Integer(flips @ 0..))) => (false, flips as u64),
            (Some("random:rate"), Some(Value::Rate(rate))) => (true, rate.to_bits()),
            _ => return,
        };
        let facts = record.run.campaign.as_ref();
        let tensor = facts.map_or("weight", |facts| &facts.tensor).to_owned();
        let (known, tally) =
            self.0.entry((is_rate, bits, tensor)).or_insert_with(|| (facts.cloned(), Tally::default()));
        // What is said of a row is what its first trial says.
        if tally.first().is_some_and(|first| record.trial < first) {
            *known = facts.cloned();
        }
        tally.add(record);
    }

    /// The rows, in the order of their trials.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<(Option<usize>, Row)> = self
            .0
            .iter()
            .filter_map(|((is_rate, bits, tensor), (facts, tally))| {
                let spread = tally.spread()?;
                let facts = facts.as_ref();
                let count = |verdict| spread.verdicts.get(&verdict).copied().unwrap_or(0);
                let half_width = facts.and_then(|facts| facts.half_width);
                let changed_wilson = wilson(spread.changed, spread.trials)?;
                let narrow = half_width.is_some_and(|half| changed_wilson[1] - changed_wilson[0] <= 2.0 * half);
                let row = Row {
                    flips: (!is_rate).then_some(*bits),
                    rate: is_rate.then(|| f64::from_bits(*bits)),
                    tensor: tensor.clone(),
                    changed_rate: spread.changed as f64 / spread.trials as f64,
                    changed_wilson,
                    verdicts_wilson: Verdict::ALL
                        .into_iter()
                        .filter_map(|verdict| Some((verdict, wilson(count(verdict), spread.trials)?)))
                        .collect(),
                    stopped_early: narrow && facts.is_some_and(|facts| spread.trials < facts.trials),
                    nominal: half_width.is_some(),
                    spread,
                };
                Some((tally.first(), row))
            })
            .collect();
        rows.sort_by_key(|&(first, _)| first);
        rows.into_iter().map(|(_, row)| row).collect()
    }
}

/// The rows that the records of one run tell of, in the order of their trials; records of other families are passed over.
pub fn rows<'a>(records: impl IntoIterator<Item = &'a Record>) -> Vec<Row> {
    let mut tallies = Tallies::default();
    records.into_iter().for_each(|record| tallies.add(record));
    tallies.rows()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{
        quant::FloatType,
        testing::{heads::affine, records::record},
    };

    fn campaign(trials: usize, half_width: Option<f64>) -> Campaign {
        let rows = vec![Amount::Flips(3), Amount::Rate(0.001), Amount::Flips(4)];
        Campaign { rows, tensor: Tensor::Weight, trials, half_width }
    }

    #[test]
    fn every_trial_draws_its_own_flips_and_a_row_draws_the_same_alone() {
        let layout = affine(96, 64, 4, 32, FloatType::F16);
        let seeded = |campaign: &Campaign, row, trial, seed| {
            campaign.edit(row, trial, seed).expand(&layout).expect("flips").to_string()
        };
        let draw = |campaign: &Campaign, row, trial| seeded(campaign, row, trial, 0);
        let whole = campaign(50, None);
        let all: BTreeSet<String> = (0..3)
            .flat_map(|row| (0..50).map(move |trial| (row, trial)))
            .map(|(row, trial)| draw(&whole, row, trial))
            .collect();
        assert_eq!(all.len(), 150);
        let alone = Campaign { rows: vec![Amount::Flips(4)], trials: 7, ..whole.clone() };
        assert_eq!(draw(&alone, 0, 6), draw(&whole, 2, 6));
        assert_ne!(seeded(&whole, 0, 0, 1), draw(&whole, 0, 0));
        // Written down: a campaign of today is drawn again by any later version.
        assert_eq!(whole.edit(0, 1, 0).to_string(), "random:flips=3,seed=18096517536333465281");
    }

    #[test]
    fn a_row_is_looked_at_after_doubling_numbers_of_trials() {
        assert_eq!(campaign(1000, Some(0.1)).looks(), [100, 200, 400, 800, 1000]);
        assert_eq!(campaign(400, Some(0.1)).looks(), [100, 200, 400]);
        assert_eq!(campaign(30, Some(0.1)).looks(), [30]);
        assert_eq!(campaign(1000, None).looks(), [1000]);
        assert_eq!(campaign(usize::MAX, Some(0.1)).looks().last(), Some(&usize::MAX));
    }

    #[test]
    fn a_row_is_narrow_at_the_width_of_its_interval() {
        let asked = campaign(1000, Some(0.05));
        // Wilson's interval of 50 of 100 is 0.404 to 0.596, of 200 of 400 0.451 to 0.549.
        assert!(!asked.is_narrow(50, 100) && asked.is_narrow(200, 400) && asked.is_narrow(0, 100));
        assert!(!campaign(1000, None).is_narrow(0, 1000));
    }

    /// A trial of a row, changed or not.
    fn trial(trial: usize, family: &str, value: Value, changed: bool, facts: CampaignFacts) -> Record {
        let mut record = Record { trial, value: Some(value), ..record() };
        record.family = Some(family.to_owned());
        record.run.campaign = Some(facts);
        if !changed {
            record.tokens = record.clean.tokens.clone();
            record.verdict = Verdict::Healthy;
        }
        record
    }

    #[test]
    fn rows_count_what_changed_in_the_order_of_their_trials() {
        let facts = CampaignFacts { trials: 100, half_width: None, tensor: "scales".to_owned() };
        let mut records: Vec<Record> = (0..100)
            .map(|i| trial(i, "random:flips", Value::Integer(9), i % 10 == 0, facts.clone()))
            .chain((100..104).map(|i| trial(i, "random:rate", Value::Rate(1e-6), true, facts.clone())))
            .chain((200..203).map(|i| trial(i, "random:flips", Value::Integer(2), false, facts.clone())))
            .chain([record()])
            .collect();
        records.reverse();
        let rows = rows(&records);
        let seen: Vec<_> = rows
            .iter()
            .map(|row| (row.flips, row.rate, row.spread.trials, row.spread.changed, row.stopped_early, row.nominal))
            .collect();
        assert_eq!(
            seen,
            [
                (Some(9), None, 100, 10, false, false),
                (None, Some(1e-6), 4, 4, false, false),
                (Some(2), None, 3, 0, false, false),
            ]
        );
        assert_eq!((rows[0].changed_rate, rows[0].tensor.as_str()), (0.1, "scales"));
        assert_eq!(rows[0].changed_wilson, wilson(10, 100).expect("an interval"));
        assert_eq!(rows[0].verdicts_wilson[&Verdict::Healthy], wilson(90, 100).expect("an interval"));
        assert_eq!(rows[0].verdicts_wilson[&Verdict::Gone], wilson(0, 100).expect("an interval"));
        let json = serde_json::to_value(&rows[1]).expect("an object");
        assert_eq!(
            (&json["flips"], &json["trials"], &json["changed"]),
            (&serde_json::Value::Null, &4.into(), &4.into())
        );
    }

    #[test]
    fn a_row_that_ended_early_says_so_and_one_that_was_cut_short_does_not() {
        let facts = CampaignFacts { trials: 400, half_width: Some(0.05), tensor: "weight".to_owned() };
        let ended = |count: usize, every: usize| {
            let trials = (0..count).map(|i| trial(i, "random:flips", Value::Integer(1), i % every == 0, facts.clone()));
            let rows = rows(&trials.collect::<Vec<_>>());
            (rows[0].stopped_early, rows[0].nominal)
        };
        assert_eq!(ended(100, 100), (true, true));
        assert_eq!(ended(100, 2), (false, true));
        assert_eq!(ended(400, 2), (false, true));
    }
}
