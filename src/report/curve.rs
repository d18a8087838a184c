//! What is found along a family of edits, one point for each value, over all prompts.

use std::collections::BTreeMap;

use serde::Serialize;

use super::terminal::grouped;
use crate::{
    coherence::Finish,
    edit::Value,
    record::{
        Record, Sample,
        summary::{Mean, Spread, Tally},
    },
};

/// Points of a curve; of more values, these are chosen evenly.
const MOST_POINTS: usize = 4_096;

/// What the edit of one value did, over the prompts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Point {
    /// The value in its family.
    pub value: Value,
    /// Its trials.
    #[serde(flatten)]
    pub spread: Spread,
    /// The least and the greatest mean divergence of a trial, in nats; `null` where it is not finite.
    pub kl_range: [Option<f64>; 2],
    /// Mean share of the steps that are coherent.
    pub coherent: f64,
}

/// The points of one family.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Curve {
    /// `shift`, `digit:3`, `flips:7`, `rate:0`.
    pub family: String,
    /// In ascending order of their values; of very many values some, each with all its trials.
    pub points: Vec<Point>,
    /// Trials of values that have no point, since there are too many values.
    #[serde(skip_serializing_if = "is_zero")]
    pub left_out: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
const fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// The curves of one run, whose trials come one by one, in any order: one for each family.
#[derive(Clone, Debug, Default)]
pub(super) struct Curves(BTreeMap<String, Family>);

/// The trials of one family.
#[derive(Clone, Debug)]
struct Family {
    trials: usize,
    points: Sample<[u8; 9], OfAValue>,
}

/// The trials of one value.
#[derive(Clone, Debug, Default)]
struct OfAValue {
    value: Option<Value>,
    tally: Tally,
    kl_range: Option<[f64; 2]>,
    coherent: Mean,
}

impl Curves {
    pub(super) fn add(&mut self, record: &Record) {
        let (family, value) = match (&record.family, record.value, record.shift) {
            (Some(family), Some(value), _) => (family.as_str(), value),
            (_, _, Some(shift)) => ("shift", Value::Integer(shift)),
            _ => return,
        };
        // A text is made for a new family only.
        if !self.0.contains_key(family) {
            self.0.insert(family.to_owned(), Family { trials: 0, points: Sample::new(MOST_POINTS) });
        }
        let Some(family) = self.0.get_mut(family) else { return };
        family.trials += 1;
        let Some(point) = family.points.entry(bytes(value)) else { return };
        point.value = Some(value);
        point.tally.add(record);
        // What is not finite is worse than everything else.
        let kl = record.kl_mean.unwrap_or(f64::INFINITY);
        let [least, greatest] = point.kl_range.unwrap_or([kl; 2]);
        point.kl_range = Some([least.min(kl), greatest.max(kl)]);
        point.coherent.add(Some(record.coherent_tokens as f64 / steps(record).max(1) as f64));
    }

    /// The curves. Edits of no family are in none, and a family of which there are not two values is none.
    pub(super) fn curves(&self) -> Vec<Curve> {
        let curve = |(name, family): (&String, &Family)| {
            let mut points: Vec<Point> = family.points.values().filter_map(OfAValue::point).collect();
            points.sort_by(|a, b| order(a.value, b.value));
            let left_out = family.trials - points.iter().map(|point| point.spread.trials).sum::<usize>();
            Curve { family: name.clone(), points, left_out }
        };
        self.0.iter().map(curve).filter(|curve| curve.points.len() > 1).collect()
    }
}

impl OfAValue {
    fn point(&self) -> Option<Point> {
        Some(Point {
            value: self.value?,
            spread: self.tally.spread()?,
            kl_range: self.kl_range?.map(|kl| kl.is_finite().then_some(kl)),
            coherent: self.coherent.of(self.tally.trials())?,
        })
    }
}

/// What tells values apart.
fn bytes(value: Value) -> [u8; 9] {
    let (kind, bits) = match value {
        Value::Integer(value) => (0, value as u64),
        // Adding 0 makes a negative zero positive, which is the same rate.
        Value::Rate(rate) => (1, (rate + 0.0).to_bits()),
    };
    let mut bytes = [kind; 9];
    bytes[1..].copy_from_slice(&bits.to_be_bytes());
    bytes
}

fn order(a: Value, b: Value) -> std::cmp::Ordering {
    match (a, b) {
        // Not as numbers on an axis, where large ones become equal.
        (Value::Integer(a), Value::Integer(b)) => a.cmp(&b),
        _ => number(a).total_cmp(&number(b)),
    }
}

/// The value on an axis.
pub(super) fn number(value: Value) -> f64 {
    match value {
        Value::Integer(value) => value as f64,
        Value::Rate(rate) => rate,
    }
}

/// The value for people.
pub(super) fn written(value: Value) -> String {
    match value {
        Value::Integer(value) => grouped(value),
        Value::Rate(_) => value.to_string(),
    }
}

/// Steps of an answer; one that a logit which is no number cut short counts.
pub(super) fn steps(record: &Record) -> usize {
    record.surprise.len() + usize::from(record.finish == Finish::Nonfinite)
}
