//! Bisection over a family: where does a predicate change?
//!
//! First a *scan*: the two ends, and about sixteen values between them, spread evenly and by their distance
//! from the value nearest to zero, so that changes are seen at every scale; where there are few integers, all are run.
//! Then each change from one value of the scan to the next is narrowed down by halving, all of them together, until its
//! two ends are neighbours: integers that differ by 1, or rates between which there is no other `f64`. Both ends were
//! run. Halving keeps one change in each interval, so there are never more than the scan has shown, and at most 64 rounds.
//!
//! A predicate may change more often than the scan can see. In a family that is [nested](Family::nested) one change
//! is what to expect; in every other a change that is found is *a* crossing, and more may lie between any
//! two points. So a [`Bisection`] holds every point that was run, and says whether what was seen is monotone.
//!
//! Integers and rates are one problem: a rate of 0 to 1 is counted by its bits, which are in the order of the numbers.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Serialize, Serializer};

use super::{
    Progress, RunError, Session, Spec, Stopped,
    family::{edit, is_random, job},
};
use crate::{
    coherence::Verdict,
    edit::{Family, Value},
    quant::Layout,
    record::{
        Record,
        summary::{Spread, Tally},
    },
};

/// What is asked of each value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Predicate {
    /// The median verdict over the prompts is at least this good.
    AtLeast(Verdict),
    /// The mean over the prompts of the mean divergence is at most so many nats.
    Kl(f64),
}

impl Predicate {
    /// Whether trials of one edit, one for each prompt, meet it. A divergence that is not finite meets no bound.
    pub fn holds(self, spread: &Spread) -> bool {
        match self {
            Self::AtLeast(worst) => spread.median <= worst,
            Self::Kl(nats) => spread.kl_mean.is_some_and(|kl| kl <= nats),
        }
    }
}

impl fmt::Display for Predicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(verdict) => write!(f, "at-least {verdict}"),
            Self::Kl(nats) => write!(f, "kl {nats}"),
        }
    }
}

impl FromStr for Predicate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(' ') {
            Some(("at-least", verdict)) => Ok(Self::AtLeast(verdict.parse()?)),
            Some(("kl", nats)) => match nats.parse() {
                Ok(nats) if nats >= 0.0 => Ok(Self::Kl(nats)),
                _ => Err(format!("{nats:?} is no number of nats")),
            },
            _ => Err(format!("{text:?} is no predicate: at-least VERDICT or kl NATS")),
        }
    }
}

/// Two values of a family, between which is searched.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bracket {
    family: Family,
    lo: Value,
    hi: Value,
}

/// Ends that the family does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no bisection of {family} from {end}: {problem}")]
pub struct BracketError {
    /// The family.
    pub family: String,
    /// The end that is wrong.
    pub end: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Bracket {
    /// The values from `a` to `b`, which may be given in either order.
    ///
    /// # Errors
    /// [`BracketError`], where the family has no such value.
    pub fn new(family: Family, a: Value, b: Value) -> Result<Self, BracketError> {
        let end = |value: Value| match family.at(value) {
            Ok(_) => Ok(match (family, value) {
                // All values of a family are of one kind.
                (Family::Rate(_), Value::Integer(rate)) => Value::Rate(rate as f64),
                (_, value) => value,
            }),
            Err(problem) => Err(BracketError { family: family.to_string(), end: value.to_string(), problem }),
        };
        let (a, b) = (end(a)?, end(b)?);
        let (lo, hi) = if ordinal(a) <= ordinal(b) { (a, b) } else { (b, a) };
        Ok(Self { family, lo, hi })
    }

    /// The family.
    pub const fn family(&self) -> Family {
        self.family
    }

    /// The ends, the smaller first.
    pub const fn ends(&self) -> [Value; 2] {
        [self.lo, self.hi]
    }

    /// That the edits of both ends are edits of a head of this layout.
    ///
    /// # Errors
    /// [`RunError::Edit`].
    pub(crate) fn check(&self, layout: &Layout) -> Result<(), RunError> {
        self.ends().into_iter().try_for_each(|end| Ok(edit(self.family, end)?.check(layout)?))
    }

    /// The values that are run first, ascending and each once; the ends are among them.
    pub(crate) fn scan(&self) -> Vec<Value> {
        let mut values: Vec<Value> = match (self.lo, self.hi) {
            (Value::Integer(lo), Value::Integer(hi)) => scan_integers(lo, hi).into_iter().map(Value::Integer).collect(),
            (Value::Rate(lo), Value::Rate(hi)) => scan_rates(lo, hi).into_iter().map(Value::Rate).collect(),
            _ => unreachable!("both ends are of the family's kind"),
        };
        values.sort_by_key(|&value| ordinal(value));
        values.dedup_by_key(|value| ordinal(*value));
        values
    }

    /// Searches: hands values to `run`, several at once, which says for each whether the predicate holds there. The
    /// first of them are the scan. No value is handed over twice.
    ///
    /// # Errors
    /// What `run` returns.
    ///
    /// # Panics
    /// If `run` answers for another number of values than it was given.
    pub(crate) fn search<E>(&self, mut run: impl FnMut(&[Value]) -> Result<Vec<bool>, E>) -> Result<(), E> {
        let mut run = |values: &[Value]| {
            let held = run(values)?;
            assert_eq!(held.len(), values.len(), "an answer for each value");
            Ok(held)
        };
        let scan = self.scan();
        let held = run(&scan)?;
        // Intervals with a change, by ordinal, with what holds at their lower ends.
        let mut open: Vec<(i128, i128, bool)> = scan
            .windows(2)
            .zip(held.windows(2))
            .filter(|(_, held)| held[0] != held[1])
            .map(|(values, held)| (ordinal(values[0]), ordinal(values[1]), held[0]))
            .collect();
        loop {
            open.retain(|(lo, hi, _)| hi - lo > 1);
            if open.is_empty() {
                return Ok(());
            }
            let middle = |&(lo, hi, _): &(i128, i128, bool)| lo + (hi - lo) / 2;
            let middles: Vec<Value> = open.iter().map(|interval| self.value_of(middle(interval))).collect();
            for (interval, held) in open.iter_mut().zip(run(&middles)?) {
                let middle = middle(interval);
                if held == interval.2 {
                    interval.0 = middle;
                } else {
                    interval.1 = middle;
                }
            }
        }
    }

    /// The value with an ordinal that lies between those of the ends.
    fn value_of(&self, ordinal: i128) -> Value {
        match self.lo {
            Value::Integer(_) => Value::Integer(ordinal as i64),
            Value::Rate(_) => Value::Rate(f64::from_bits(ordinal as u64)),
        }
    }
}

/// Searches a bracket on the session's prompts for values between which `predicate` changes.
///
/// # Errors
/// [`Stopped`], with what the points that were run by then show.
///
/// # Panics
/// If the bound of `predicate` is not a number.
pub fn bisect(
    session: &mut Session<'_>,
    bracket: &Bracket,
    predicate: Predicate,
    mut progress: impl FnMut(Progress<'_>) -> Result<(), RunError>,
) -> Result<Bisection, Stopped<Option<Bisection>>> {
    let (layout, prompts) = (session.subject().head().layout(), session.prompts().len());
    if session.settings().shard.is_some() {
        return Err(RunError::Parts.into());
    }
    bracket.check(layout)?;
    let (family, [lo, hi]) = (bracket.family(), bracket.ends());
    let (edits, asked) = (format!("{family} {lo} {hi}"), Some(predicate.to_string()));
    let mut points = Points::default();
    let mut watch = |points: &mut Points, told: Progress<'_>| told.pass(&mut progress, |record| points.add(record));
    let spec = Spec { command: "bisect", predicate: asked, random: is_random(family), edits, ..Spec::default() };
    let mut first = 0;
    let result = session.begin(spec, &mut |told| watch(&mut points, told)).and_then(|()| {
        bracket.search(|values| {
            let jobs =
                values.iter().flat_map(|&value| (0..prompts).map(move |prompt| (prompt, value))).enumerate().map(
                    |(i, (prompt, value))| job(first + i, prompt, family, value).expect("a value between the ends"),
                );
            session.run(jobs, &mut |told| watch(&mut points, told))?;
            first += prompts * values.len();
            Ok(values.iter().map(|&value| points.holds(value, predicate)).collect())
        })
    });
    let found = points.bisection();
    match result {
        Ok(()) => Ok(found.expect("the scan was run")),
        Err(error) => Err(Stopped { found: Box::new(found), error }),
    }
}

/// A number in the order of the values of one kind; neighbours differ by 1.
fn ordinal(value: Value) -> i128 {
    match value {
        Value::Integer(value) => i128::from(value),
        // Adding 0 makes a negative zero positive.
        Value::Rate(rate) => i128::from((rate + 0.0).to_bits()),
    }
}

/// Number of parts that the scan divides an interval into, once evenly and once by distance from zero.
const PARTS: i32 = 9;

fn scan_integers(lo: i64, hi: i64) -> Vec<i64> {
    let (wide_lo, wide_hi) = (i128::from(lo), i128::from(hi));
    if wide_hi - wide_lo <= i128::from(2 * PARTS) {
        return (lo..=hi).collect();
    }
    let even = (0..=i128::from(PARTS)).map(|part| wide_lo + (wide_hi - wide_lo) * part / i128::from(PARTS));
    // Distances grow from the value nearest to zero, up and down where it lies inside.
    let origin = 0.clamp(lo, hi);
    let distances = |end: i64| {
        let parts = if lo < origin && origin < hi { PARTS / 2 } else { PARTS };
        let (farthest, direction) = (end.abs_diff(origin), i128::from(end) - i128::from(origin));
        (0..parts).map(move |part| {
            let share = f64::from(part) / f64::from(parts);
            let distance = (libm::round(libm::pow(farthest as f64, share)) as u64).min(farthest);
            i128::from(origin) + direction.signum() * i128::from(distance)
        })
    };
    // Between two ends of i64.
    even.chain([i128::from(origin)]).chain(distances(lo)).chain(distances(hi)).map(|value| value as i64).collect()
}

fn scan_rates(lo: f64, hi: f64) -> Vec<f64> {
    let even = (0..=PARTS).map(|part| lo + (hi - lo) * f64::from(part) / f64::from(PARTS));
    let by_ratio = (1..PARTS).map(|part| match lo > 0.0 {
        true => lo * libm::pow(hi / lo, f64::from(part) / f64::from(PARTS)),
        // Nothing is a fixed ratio above 0: decades below the other end.
        false => hi * libm::pow(10.0, -f64::from(part)),
    });
    // Rounding may not lead out of the interval, nor away from its ends.
    even.chain(by_ratio).map(|rate| rate.clamp(lo, hi)).chain([lo, hi]).collect()
}

/// One value that was run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Point {
    /// The edit's value in its family.
    pub value: Value,
    /// The median verdict over the prompts.
    pub verdict: Verdict,
    /// The mean over the prompts of the mean divergence, in nats; `null` if one is not finite.
    pub kl_mean: Option<f64>,
    /// Whether the predicate holds here.
    pub holds: bool,
    /// How many prompts have each verdict.
    pub verdicts: BTreeMap<Verdict, usize>,
}

/// Two values, one after the other among those that were run, of which the predicate holds at one only.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Crossing {
    /// The smaller value.
    pub lo: Value,
    /// The greater one.
    pub hi: Value,
    /// The median verdict at `lo`.
    pub lo_verdict: Verdict,
    /// The median verdict at `hi`.
    pub hi_verdict: Verdict,
    /// Whether the predicate holds at `lo`, and not at `hi`; or the other way round.
    pub lo_holds: bool,
    /// Whether nothing lies between the two values: false only where the search was cut short.
    pub adjacent: bool,
}

/// What a bisection has seen.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bisection {
    /// The family, such as `shift` or `flips:7`.
    pub family: String,
    /// The predicate that was asked.
    #[serde(serialize_with = "as_text")]
    pub predicate: Predicate,
    /// Whether each edit of the family contains those of smaller values.
    pub nested: bool,
    /// Whether the predicate changes at most once along the points that were run. More changes may lie between.
    pub monotone: bool,
    /// Every value that was run on all prompts, ascending.
    pub points: Vec<Point>,
    /// Every change from one of the points to the next.
    pub crossings: Vec<Crossing>,
}

fn as_text<S: Serializer>(predicate: &Predicate, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(predicate)
}

/// The trials of one bisection, taken together by value one by one, in any order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Points {
    /// Predicate and family, as the first record has them.
    of: Option<(Option<String>, Option<String>)>,
    /// By ordinal.
    tallies: BTreeMap<i128, (Value, Tally)>,
    /// Whether a record is not of this bisection.
    strangers: bool,
}

impl Points {
    /// Adds a trial.
    pub(crate) fn add(&mut self, record: &Record) {
        let (predicate, family) = self.of.get_or_insert_with(|| (record.run.predicate.clone(), record.family.clone()));
        match record.value {
            Some(value) if predicate.is_some() && record.family == *family => {
                self.tallies.entry(ordinal(value)).or_insert_with(|| (value, Tally::default())).1.add(record);
            }
            _ => self.strangers = true,
        }
    }

    /// Whether the predicate holds at a value that was run.
    fn holds(&self, value: Value, predicate: Predicate) -> bool {
        let spread = self.tallies.get(&ordinal(value)).and_then(|(_, tally)| tally.spread());
        spread.is_some_and(|spread| predicate.holds(&spread))
    }

    /// What the trials have seen; `None` if they are not those of a bisection. A value that a run which was cut short did
    /// not bring to all prompts is left out.
    pub(crate) fn bisection(&self) -> Option<Bisection> {
        let (predicate, family) = self.of.as_ref().filter(|_| !self.strangers)?;
        let predicate: Predicate = predicate.as_deref()?.parse().ok()?;
        let family: Family = family.as_deref()?.parse().ok()?;
        let prompts = self.tallies.values().map(|(_, tally)| tally.trials()).max()?;
        let points: Vec<(i128, Point)> = self
            .tallies
            .iter()
            .filter(|(_, (_, tally))| tally.trials() == prompts)
            .filter_map(|(&ordinal, &(value, ref tally))| {
                let spread = tally.spread()?;
                let holds = predicate.holds(&spread);
                let Spread { median, kl_mean, verdicts, .. } = spread;
                Some((ordinal, Point { value, verdict: median, kl_mean, holds, verdicts }))
            })
            .collect();
        let crossings: Vec<Crossing> = points
            .windows(2)
            .filter(|pair| pair[0].1.holds != pair[1].1.holds)
            .map(|pair| {
                let [(lo, low), (hi, high)] = pair else { unreachable!("a window of two") };
                Crossing {
                    lo: low.value,
                    hi: high.value,
                    lo_verdict: low.verdict,
                    hi_verdict: high.verdict,
                    lo_holds: low.holds,
                    adjacent: hi - lo == 1,
                }
            })
            .collect();
        Some(Bisection {
            family: family.to_string(),
            predicate,
            nested: family.nested(),
            monotone: crossings.len() <= 1,
            points: points.into_iter().map(|(_, point)| point).collect(),
            crossings,
        })
    }
}

impl Bisection {
    /// What the records of one run have seen, in any order; `None` if they are not those of a bisection. A value that a
    /// run which was cut short did not bring to all prompts is left out.
    pub fn of<'a>(records: impl IntoIterator<Item = &'a Record>) -> Option<Self> {
        let mut points = Points::default();
        records.into_iter().for_each(|record| points.add(record));
        points.bisection()
    }

    /// Whether the predicate holds at every point.
    pub fn holds(&self) -> bool {
        self.points.iter().all(|point| point.holds)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, convert::Infallible};

    use proptest::prelude::*;

    use super::*;
    use crate::testing::records::record;

    fn bracket(a: i64, b: i64) -> Bracket {
        Bracket::new(Family::Shift, Value::Integer(a), Value::Integer(b)).expect("shifts")
    }

    /// Runs a search over a predicate as the program does, by way of records of two prompts.
    fn search(bracket: Bracket, holds: impl Fn(Value) -> bool) -> Bisection {
        let mut records = Vec::new();
        let run = |values: &[Value]| -> Result<Vec<bool>, Infallible> {
            for &value in values {
                for _ in 0..2 {
                    let verdict = if holds(value) { Verdict::Healthy } else { Verdict::Gone };
                    let mut record = Record { trial: records.len(), value: Some(value), verdict, ..record() };
                    record.family = Some(bracket.family().to_string());
                    record.run.predicate = Some("at-least WOBBLING".to_owned());
                    records.push(record);
                }
            }
            Ok(values.iter().map(|&value| holds(value)).collect())
        };
        bracket.search(run).expect("it cannot fail");
        let distinct: BTreeSet<i128> = records.iter().map(|record| ordinal(record.value.expect("a value"))).collect();
        assert_eq!(2 * distinct.len(), records.len(), "no value is run twice");
        records.reverse();
        Bisection::of(&records).expect("a bisection")
    }

    fn integer(value: Value) -> i64 {
        match value {
            Value::Integer(value) => value,
            Value::Rate(rate) => panic!("{rate} is a rate"),
        }
    }

    fn integers(bracket: Bracket) -> Vec<i64> {
        bracket.scan().into_iter().map(integer).collect()
    }

    #[test]
    fn a_scan_sees_every_scale_and_both_ends() {
        let scan = integers(bracket(0, 1_000_000_000));
        assert_eq!(scan.len(), 19);
        assert_eq!((scan[0], scan[18]), (0, 1_000_000_000));
        for decade in 0..9 {
            let range = 10_i64.pow(decade)..=10_i64.pow(decade + 1);
            assert!(scan.iter().any(|value| range.contains(value)), "{range:?} in {scan:?}");
        }
        assert!(scan.windows(2).all(|pair| pair[1] - pair[0] <= 111_111_112));
        assert!(integers(bracket(-1000, 1000)).contains(&0));
        assert_eq!(integers(bracket(-1000, 1000)).iter().filter(|&&value| value < 0).count(), 9);
        assert_eq!(integers(bracket(15, 0)), (0..=15).collect::<Vec<_>>());
        assert_eq!(integers(bracket(5, 5)), [5]);
        assert_eq!(integers(bracket(5, 6)), [5, 6]);
        let all = integers(bracket(i64::MAX, i64::MIN));
        assert!(all.is_sorted() && all.first() == Some(&i64::MIN) && all.last() == Some(&i64::MAX));
    }

    #[test]
    fn rates_are_scanned_by_decades_and_narrowed_to_neighbouring_numbers() {
        let rates = |a, b| Bracket::new(Family::Rate(1), a, b).expect("rates");
        let from_zero = rates(Value::Integer(0), Value::Integer(1));
        let scan = from_zero.scan();
        assert_eq!((scan[0], scan[scan.len() - 1]), (Value::Rate(0.0), Value::Rate(1.0)));
        assert!(scan.iter().any(|&rate| matches!(rate, Value::Rate(rate) if rate > 0.0 && rate < 2e-8)));
        for bracket in
            [from_zero, rates(Value::Rate(1e-9), Value::Rate(0.5)), rates(Value::Rate(0.0), Value::Rate(5e-324))]
        {
            let edge = match bracket.ends() {
                [_, Value::Rate(hi)] => hi / 3.0,
                _ => panic!("an integer"),
            };
            let found = search(bracket, |rate| matches!(rate, Value::Rate(rate) if rate <= edge));
            let [crossing] = &found.crossings[..] else { panic!("{found:?}") };
            let (Value::Rate(lo), Value::Rate(hi)) = (crossing.lo, crossing.hi) else { panic!("{crossing:?}") };
            assert!(crossing.adjacent && lo <= edge && edge < hi && lo.next_up() == hi, "{lo} {edge} {hi}");
        }
        let negative = rates(Value::Rate(-0.0), Value::Rate(0.0));
        assert_eq!(negative.scan().len(), 1);
    }

    #[test]
    fn ends_that_a_family_has_not_are_refused() {
        let refused = |family: Family, value| {
            let [below, above] = [(value, Value::Integer(0)), (Value::Integer(0), value)];
            for (a, b) in [below, above] {
                let error = Bracket::new(family, a, b).expect_err("a bad end").to_string();
                assert!(error.contains(&family.to_string()) && error.contains(&value.to_string()), "{error}");
            }
        };
        refused(Family::Digit(3), Value::Integer(16));
        refused(Family::Flips(1), Value::Integer(-1));
        refused(Family::Shift, Value::Rate(0.5));
        refused(Family::Rate(0), Value::Rate(1.5));
        refused(Family::Rate(0), Value::Rate(f64::NAN));
        refused(Family::Rate(0), Value::Integer(2));
    }

    #[test]
    fn every_change_that_the_scan_shows_is_narrowed_down() {
        // Holds up to 99, from 5,000,000 to 599,999,999, and at the very end.
        let holds =
            |value: i64| (..100).contains(&value) || (5_000_000..600_000_000).contains(&value) || value == 1 << 30;
        let found = search(bracket(0, 1 << 30), |value| holds(integer(value)));
        let crossings: Vec<(i64, bool)> =
            found.crossings.iter().map(|crossing| (integer(crossing.hi), crossing.lo_holds)).collect();
        assert_eq!(crossings, [(100, true), (5_000_000, false), (600_000_000, true), (1 << 30, false)]);
        assert!(!found.monotone && !found.nested && !found.holds());
    }

    #[test]
    fn nothing_changes_where_the_predicate_always_holds() {
        let found = search(bracket(-7, 900), |_| true);
        assert!(found.monotone && found.holds() && found.crossings.is_empty());
        assert_eq!(found.points.len(), bracket(-7, 900).scan().len());
        let found = search(bracket(4, 4), |_| false);
        assert_eq!((found.points.len(), found.crossings.len(), found.monotone), (1, 0, true));
    }

    #[test]
    fn the_ends_of_i64_are_no_obstacle() {
        for edge in [i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX - 1] {
            let found = search(bracket(i64::MAX, i64::MIN), |value| integer(value) <= edge);
            let [crossing] = &found.crossings[..] else { panic!("{found:?}") };
            assert_eq!((integer(crossing.lo), integer(crossing.hi), crossing.adjacent), (edge, edge + 1, true));
            assert!(found.points.len() <= 18 + 64, "{}", found.points.len());
        }
    }

    #[test]
    fn a_search_that_was_cut_short_says_which_crossings_are_not_narrowed_down() {
        let at = |trial, value, verdict| {
            let mut record = Record { trial, value: Some(Value::Integer(value)), verdict, ..record() };
            record.family = Some("flips:3".to_owned());
            record.run.predicate = Some("at-least WOBBLING".to_owned());
            record
        };
        let records = [
            at(0, 0, Verdict::Healthy),
            at(1, 0, Verdict::Healthy),
            at(2, 9, Verdict::Gone),
            at(3, 9, Verdict::Wobbling),
            at(4, 4, Verdict::Gone),
        ];
        let found = Bisection::of(&records).expect("a bisection");
        // The value that was not brought to both prompts is left out, and of two verdicts the worse is the median.
        assert_eq!(found.points.len(), 2);
        assert_eq!(found.crossings.len(), 1);
        assert!(!found.crossings[0].adjacent && found.nested);
        let json = serde_json::to_value(&found).expect("an object");
        assert_eq!((&json["predicate"], &json["family"]), (&"at-least WOBBLING".into(), &"flips:3".into()));
        assert_eq!(
            json["points"][1],
            serde_json::json!({
                "value": 9, "verdict": "GONE", "kl_mean": 0.5, "holds": false, "verdicts": {"WOBBLING": 1, "GONE": 1},
            })
        );
    }

    #[test]
    fn records_of_something_else_are_no_bisection() {
        assert_eq!(Bisection::of(&[]), None);
        assert_eq!(Bisection::of(&[record()]), None);
        let mut one = Record { family: Some("shift".to_owned()), ..record() };
        one.run.predicate = Some("kl 0.25".to_owned());
        assert_eq!(Bisection::of(std::slice::from_ref(&one)), None, "without a value");
        one.value = Some(Value::Integer(3));
        let found = Bisection::of(std::slice::from_ref(&one)).expect("a bisection");
        assert!(!found.points[0].holds, "0.5 nats are more than 0.25");
        one.kl_mean = None;
        one.run.predicate = Some("kl inf".to_owned());
        assert!(!Bisection::of(&[one]).expect("a bisection").points[0].holds, "not finite");
    }

    #[test]
    fn predicates_are_read_back() {
        for predicate in [Predicate::AtLeast(Verdict::Dying), Predicate::Kl(0.05), Predicate::Kl(0.0)] {
            assert_eq!(predicate.to_string().parse(), Ok(predicate));
        }
        for text in ["", "kl", "kl x", "kl -1", "kl NaN", "at-least", "at-least FINE", "at-most DEAD"] {
            assert!(text.parse::<Predicate>().is_err(), "{text}");
        }
    }

    proptest! {
        /// A predicate that changes wherever it likes: each reported crossing is one, and all that the points show
        /// are reported.
        #[test]
        fn every_crossing_is_adjacent_and_its_ends_were_run(
            ends in (any::<i64>(), any::<i64>()),
            changes in prop::collection::btree_set(any::<i64>(), 0..12),
            near in -50_i64..50,
        ) {
            // Some of the ranges are short.
            let (a, b) = if near < 0 { ends } else { (ends.0, ends.0.saturating_add(near)) };
            let holds = |value: Value| changes.range(..=integer(value)).count() % 2 == 0;
            let found = search(bracket(a, b), holds);
            let run: BTreeSet<i64> = found.points.iter().map(|point| integer(point.value)).collect();
            prop_assert!(run.contains(&a) && run.contains(&b));
            prop_assert!(run.iter().all(|value| (a.min(b)..=a.max(b)).contains(value)));
            for crossing in &found.crossings {
                let (lo, hi) = (integer(crossing.lo), integer(crossing.hi));
                prop_assert!(crossing.adjacent && hi.checked_sub(1) == Some(lo));
                prop_assert!(run.contains(&lo) && run.contains(&hi));
                prop_assert!(holds(crossing.lo) == crossing.lo_holds && holds(crossing.hi) != crossing.lo_holds);
                prop_assert!(changes.contains(&hi));
            }
            let changes_seen = found.points.windows(2).filter(|pair| pair[0].holds != pair[1].holds).count();
            prop_assert_eq!(changes_seen, found.crossings.len());
            prop_assert_eq!(found.monotone, changes_seen <= 1);
        }

        #[test]
        fn a_monotone_predicate_has_one_crossing_and_it_is_found(to in 1..113_246_208_i64, edge in any::<prop::sample::Index>()) {
            let edge = edge.index(to as usize) as i64;
            let family = Family::Flips(5);
            let bracket = Bracket::new(family, Value::Integer(to), Value::Integer(0)).expect("flips");
            let found = search(bracket, |value| integer(value) <= edge);
            prop_assert!(found.nested && found.monotone);
            prop_assert_eq!(found.crossings.len(), 1);
            prop_assert_eq!((integer(found.crossings[0].lo), integer(found.crossings[0].hi)), (edge, edge + 1));
        }

        #[test]
        fn rates_are_narrowed_down_to_neighbours(lo in 0.0..1.0_f64, hi in 0.0..1.0_f64, at in 0.0..1.0_f64) {
            let (lo, hi) = (lo.min(hi), lo.max(hi));
            let edge = lo + (hi - lo) * at;
            prop_assume!(edge < hi);
            let bracket = Bracket::new(Family::Rate(0), Value::Rate(hi), Value::Rate(lo)).expect("rates");
            let found = search(bracket, |rate| matches!(rate, Value::Rate(rate) if rate <= edge));
            prop_assert_eq!(found.crossings.len(), 1);
            prop_assert_eq!(found.crossings[0].lo, Value::Rate(edge));
            prop_assert_eq!(found.crossings[0].hi, Value::Rate(edge.next_up()));
        }
    }
}
