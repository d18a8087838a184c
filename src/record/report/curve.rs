//! What is found along a family of edits, one point for each value, over all prompts.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    coherence::{Finish, Verdict},
    edit::Value,
    record::{Record, text::grouped},
};

/// What the edits of one value did, over the prompts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Point {
    /// The value in its family.
    pub value: Value,
    /// Prompts that were measured.
    pub prompts: usize,
    /// Median verdict, the worse one of two.
    pub verdict: Verdict,
    /// Median of the mean divergences, in nats, the greater one of two; `null` where it is not finite.
    pub kl_mean: Option<f64>,
    /// The least and the greatest of them.
    pub kl_range: [Option<f64>; 2],
    /// Median share of the steps that are coherent, the smaller one of two.
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
    pub fn of(records: &[&Record]) -> Vec<Self> {
        let mut families: BTreeMap<String, Vec<(Value, &Record)>> = BTreeMap::new();
        for record in records {
            let (family, value) = match (&record.family, record.value, record.shift) {
                (Some(family), Some(value), _) => (family.clone(), value),
                (_, _, Some(shift)) => ("shift".to_owned(), Value::Integer(shift)),
                _ => continue,
            };
            families.entry(family).or_default().push((value, record));
        }
        let curves = families.into_iter().map(|(family, mut found)| {
            found.sort_by(|(a, _), (b, _)| number(*a).total_cmp(&number(*b)));
            let points = found.chunk_by(|(a, _), (b, _)| a == b).map(point).collect();
            Self { family, points }
        });
        curves.filter(|curve| curve.points.len() > 1).collect()
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

/// Share of a record's steps that are coherent; none of none.
pub(super) fn coherent_share(record: &Record) -> f64 {
    match steps(record) {
        0 => 0.0,
        steps => record.coherent_tokens as f64 / steps as f64,
    }
}

/// Steps of an answer; one that a logit which is no number cut short counts.
pub(super) fn steps(record: &Record) -> usize {
    record.surprise.len() + usize::from(record.finish == Finish::Nonfinite)
}

fn point(found: &[(Value, &Record)]) -> Point {
    let middle = found.len() / 2;
    let sorted = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values
    };
    // What is not finite is worse than everything else.
    let kl = sorted(found.iter().map(|(_, record)| record.kl_mean.unwrap_or(f64::INFINITY)).collect());
    let coherent = sorted(found.iter().map(|(_, record)| -coherent_share(record)).collect());
    let mut verdicts: Vec<Verdict> = found.iter().map(|(_, record)| record.verdict).collect();
    verdicts.sort_unstable();
    let finite = |x: f64| x.is_finite().then_some(x);
    Point {
        value: found[0].0,
        prompts: found.len(),
        verdict: verdicts[middle],
        kl_mean: finite(kl[middle]),
        kl_range: [finite(kl[0]), finite(kl[kl.len() - 1])],
        coherent: -coherent[middle],
    }
}
