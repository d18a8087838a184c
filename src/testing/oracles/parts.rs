//! Law 10, of merging: whichever journals of the parts of a run are joined, in whatever order, gives the trials that are in
//! any of them, as one run would have written them, and says exactly what is missing. What is of another run, or contradicts
//! itself, is refused.

use std::{collections::BTreeMap, path::Path};

use arbitrary::{Arbitrary, Unstructured};
use serde::{Deserialize, Serialize};

use super::{Case, LawResult, Reached, claim};
use crate::{
    random::SplitMix64,
    record::{Parts, Record, Shard, Stored, compressed, journal::JournalError},
    testing::records::record,
};

const LAW: u8 = 10;
const JOINED: &str = "parts of a run, joined in any order, are what the run would have written";
const MISSING: &str = "what is missing is said, and running it again completes the run";
const REFUSED: &str = "what does not belong together is refused";

/// Journals of the parts of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Joining {
    /// Trials of the run, modulo 40, and one more.
    trials: u8,
    /// Parts that it is run in, modulo 6, and one more.
    parts: u8,
    /// The journals, in the order in which they are given.
    journals: Vec<PartOfIt>,
}

/// A journal of a part.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PartOfIt {
    /// Its part, modulo their number.
    pub part: u8,
    /// Its trials that are finished, modulo the number of all and one more.
    pub finished: u8,
    /// The order of its records, of which 0 is their own.
    pub order: u8,
    /// Whether it is compressed.
    pub compressed: bool,
    /// What is wrong with it: 1 is another run, 2 another result in its first trial.
    pub wrong: u8,
}

impl<'a> Arbitrary<'a> for Joining {
    /// Most journals are whole and in order, and nothing is wrong with them.
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let (trials, parts) = (u.arbitrary()?, u.arbitrary()?);
        let mut journals = Vec::new();
        for _ in 0..u.int_in_range(1..=8)? {
            journals.push(PartOfIt {
                part: u.arbitrary()?,
                finished: if u.ratio(1, 4)? { u.arbitrary()? } else { u8::MAX },
                order: if u.ratio(1, 4)? { u.arbitrary()? } else { 0 },
                compressed: u.ratio(1, 4)?,
                wrong: if u.ratio(1, 16)? { u.int_in_range(1..=2)? } else { 0 },
            });
        }
        Ok(Self { trials, parts, journals })
    }
}

impl Case for Joining {
    const NAME: &'static str = "parts";
    const CLASSES: &'static [&'static str] = &[
        "nothing missing",
        "some missing",
        "a trial twice",
        "in another order",
        "compressed",
        "another run refused",
        "a contradiction refused",
    ];
    const ENTROPY: usize = 96;

    fn check(&self, reached: &mut Reached) -> LawResult {
        let trials = usize::from(self.trials) % 40 + 1;
        let parts = usize::from(self.parts) % 6 + 1;
        let mut joined = Parts::default();
        // The first journal that has a trial is the one whose record is taken.
        let mut expected: BTreeMap<usize, Record> = BTreeMap::new();
        let (mut contradicts, mut runs) = (false, Vec::new());
        for (number, journal) in self.journals.iter().enumerate() {
            let records = journal.records(number, trials, parts);
            runs.extend(records.first().map(|record| record.run.id.clone()));
            let other = runs.windows(2).any(|pair| pair[0] != pair[1]);
            let stored = Stored::of_bytes(Path::new("part.jsonl"), journal.bytes(&records));
            match joined.add(stored, || Ok::<_, JournalError>(())) {
                Ok(cut) => claim!(LAW, !other && !cut, REFUSED, "journal {number} is of another run, or cut: {cut}"),
                Err(JournalError::OtherRun { .. }) if other => {
                    reached.one("another run refused");
                    return Ok(());
                }
                Err(error) => claim!(LAW, false, JOINED, "journal {number} is refused: {error}"),
            }
            reached.one_if(records.windows(2).any(|pair| pair[0].trial > pair[1].trial), "in another order");
            reached.one_if(journal.compressed, "compressed");
            for record in records {
                if let Some(known) = expected.get(&record.trial) {
                    contradicts |= known.tokens != record.tokens;
                    reached.one("a trial twice");
                } else {
                    expected.insert(record.trial, record);
                }
            }
        }
        match joined.check(|| Ok::<_, JournalError>(())) {
            Ok(()) => claim!(LAW, !contradicts, REFUSED, "two results of one trial are joined"),
            Err(JournalError::Contradiction { .. }) if contradicts => {
                reached.one("a contradiction refused");
                return Ok(());
            }
            Err(error) => claim!(LAW, false, JOINED, "{error}"),
        }
        let found: Result<Vec<Record>, JournalError> = joined.records().and_then(Iterator::collect);
        let lines = |records: &mut dyn Iterator<Item = &Record>| -> Vec<String> {
            records.map(|record| serde_json::to_string(record).expect("a record")).collect()
        };
        match found {
            Ok(found) => {
                let same = lines(&mut found.iter()) == lines(&mut expected.values());
                claim!(LAW, same, JOINED, "{} records are {} others", expected.len(), found.len());
            }
            Err(error) => claim!(LAW, false, JOINED, "{error}"),
        }
        claim!(LAW, joined.trials() == expected.len(), JOINED, "{} of {} trials", joined.trials(), expected.len());
        if expected.is_empty() {
            claim!(LAW, joined.is_empty() && joined.missing(Some(parts)).is_none(), MISSING, "nothing is known");
            return Ok(());
        }
        let gone: Vec<usize> = (0..trials).filter(|trial| !expected.contains_key(trial)).collect();
        reached.one(if gone.is_empty() { "nothing missing" } else { "some missing" });
        // With the number of parts, and as it follows from the journals.
        for known in [Some(parts), None] {
            let missing = joined.missing(known).expect("the run knows its trials");
            claim!(LAW, missing.trials == gone.len(), MISSING, "{} trials, not {}", missing.trials, gone.len());
            claim!(LAW, known.is_none() || missing.of == known, MISSING, "of {:?} parts", missing.of);
            let (Some(of), Some(shards)) = (missing.of, missing.shards) else { continue };
            let lacks = |shard: Shard| gone.iter().any(|&trial| shard.has(trial));
            let shard = |index| Shard::new(index, of).expect("a part");
            let named: Vec<usize> = (1..=of).filter(|&index| lacks(shard(index))).collect();
            claim!(LAW, shards == named, MISSING, "parts {shards:?} of {of}, not {named:?}");
            claim!(LAW, of % parts == 0 || known.is_some(), MISSING, "{of} parts are seen of {parts}");
        }
        Ok(())
    }
}

impl PartOfIt {
    fn records(self, number: usize, trials: usize, parts: usize) -> Vec<Record> {
        let shard = Shard::new(usize::from(self.part) % parts + 1, parts).expect("a part");
        let of_it: Vec<usize> = (0..trials).filter(|&trial| shard.has(trial)).collect();
        let finished =
            if self.finished == u8::MAX { of_it.len() } else { usize::from(self.finished) % (of_it.len() + 1) };
        let mut order: Vec<usize> = of_it[..finished].to_vec();
        if self.order > 0 {
            let mut generator = SplitMix64(self.order.into());
            (1..order.len()).for_each(|i| order.swap(i, generator.below(i as u64 + 1) as usize));
        }
        let mut records: Vec<Record> = order
            .into_iter()
            .map(|trial| {
                let mut record = Record { trial, tokens: vec![trial as u32, 7], ms: number as f64, ..record() };
                record.run.trials = Some(trials);
                record.run.id = if self.wrong == 1 { "another" } else { "this" }.to_owned();
                record
            })
            .collect();
        if let Some(first) = records.iter_mut().min_by_key(|record| record.trial).filter(|_| self.wrong == 2) {
            first.tokens.push(1);
        }
        records
    }

    fn bytes(self, records: &[Record]) -> Vec<u8> {
        let lines = records.iter().map(|record| serde_json::to_string(record).expect("a record") + "\n");
        if !self.compressed {
            return lines.collect::<String>().into_bytes();
        }
        let mut bytes = compressed::title("this");
        lines.for_each(|line| bytes.extend(compressed::frame(line.as_bytes())));
        bytes
    }
}
