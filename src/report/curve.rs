//! What is found along a family of edits, one point for each value, over all prompts.

use std::collections::BTreeMap;

use serde::Serialize;

use super::terminal::grouped;
use crate::{
    coherence::Finish,
    edit::Value,
    record::{Record, summary::Spread},
};

/// What the edit of one value did, over the prompts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Point {
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
pub struct Curve {
    /// `shift`, `digit:3`, `flips:7`, `rate:0`.
    pub family: String,
    /// In ascending order of their values.
    pub points: Vec<Point>,
}

impl Curve {
    /// The curves that lie in `records`, which are of one run: one for each family. Edits of no family are in none,
    /// and a family of which there are not two values is none.
    pub fn of(records: &[Record]) -> Vec<Self> {
        let mut families: BTreeMap<&str, Vec<(Value, &Record)>> = BTreeMap::new();
        for record in records {
            let (family, value) = match (&record.family, record.value, record.shift) {
                (Some(family), Some(value), _) => (family.as_str(), value),
                (_, _, Some(shift)) => ("shift", Value::Integer(shift)),
                _ => continue,
            };
            families.entry(family).or_default().push((value, record));
        }
        let curves = families.into_iter().map(|(family, mut found)| {
            found.sort_by(|(a, _), (b, _)| order(*a, *b));
            let points = found.chunk_by(|(a, _), (b, _)| a == b).filter_map(point).collect();
            Self { family: family.to_owned(), points }
        });
        curves.filter(|curve| curve.points.len() > 1).collect()
    }
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

fn point(found: &[(Value, &Record)]) -> Option<Point> {
    let records: Vec<&Record> = found.iter().map(|&(_, record)| record).collect();
    // What is not finite is worse than everything else.
    let kl = |pick: fn(f64, f64) -> f64| {
        let picked = records.iter().map(|record| record.kl_mean.unwrap_or(f64::INFINITY)).reduce(pick);
        picked.filter(|kl| kl.is_finite())
    };
    let share = |record: &&Record| record.coherent_tokens as f64 / steps(record).max(1) as f64;
    Some(Point {
        value: found.first()?.0,
        spread: Spread::of(&records)?,
        kl_range: [kl(f64::min), kl(f64::max)],
        coherent: records.iter().map(share).sum::<f64>() / records.len() as f64,
    })
}
