//! The trials of a run that a report lists: of very many some, the same ones whatever the order in which they are met.

use std::collections::BTreeMap;

use crate::record::Record;

/// Trials of a run that are listed; more are for programs.
pub(super) const MOST: usize = 1_000;

/// Trials of a campaign that are listed of one prompt.
pub(super) const WORST: usize = 12;

/// Characters of an edit that are listed: older records hold random edits as lists of flips, of any length.
const LONGEST_EDIT: usize = 10_000;

/// The first trials of a run, each with the number of its prompt.
#[derive(Clone, Debug, Default)]
pub(super) struct First(BTreeMap<usize, (usize, Record)>);

impl First {
    pub(super) fn add(&mut self, prompt: usize, record: &Record) {
        if self.0.len() == MOST && self.0.last_key_value().is_some_and(|(&last, _)| record.trial > last) {
            return;
        }
        self.0.insert(record.trial, (prompt, listed(record)));
        if self.0.len() > MOST {
            self.0.pop_last();
        }
    }

    /// By prompt, in the order of their numbers.
    pub(super) fn by_prompt(&self) -> BTreeMap<usize, Vec<&Record>> {
        let mut trials: BTreeMap<usize, Vec<&Record>> = BTreeMap::new();
        self.0.values().for_each(|(prompt, record)| trials.entry(*prompt).or_default().push(record));
        trials
    }
}

/// The trials that changed the answers to each prompt most: those of the prompts that come first, as many as are listed.
#[derive(Clone, Debug, Default)]
pub(super) struct Worst {
    /// By prompt, the worst first.
    trials: BTreeMap<usize, Vec<Record>>,
    count: usize,
    /// Prompts that begin with this trial or a later one have no room.
    full: Option<usize>,
}

impl Worst {
    /// Adds a trial. `first` gives a prompt's first trial.
    pub(super) fn add(&mut self, prompt: usize, record: &Record, first: impl Fn(usize) -> usize) {
        if self.full.is_some_and(|full| first(prompt) >= full) {
            return;
        }
        let worst = self.trials.entry(prompt).or_default();
        let kl = |record: &Record| record.kl_mean.unwrap_or(f64::INFINITY);
        let at = worst.partition_point(|other| {
            kl(other).total_cmp(&kl(record)).reverse().then(other.trial.cmp(&record.trial)).is_lt()
        });
        if at == WORST {
            return;
        }
        worst.insert(at, listed(record));
        if worst.len() > WORST {
            worst.pop();
        } else {
            self.count += 1;
        }
        if self.count > 2 * MOST {
            self.make_room(first);
        }
    }

    /// Keeps the trials of the prompts that come first, as many as are listed.
    fn make_room(&mut self, first: impl Fn(usize) -> usize) {
        let mut prompts: Vec<usize> = self.trials.keys().copied().collect();
        prompts.sort_by_key(|&prompt| first(prompt));
        self.count = 0;
        for prompt in prompts {
            if self.count >= MOST {
                self.full = Some(self.full.map_or(usize::MAX, |full| full).min(first(prompt)));
                self.trials.remove(&prompt);
            } else {
                self.count += self.trials[&prompt].len();
            }
        }
    }

    /// By prompt, the worst first.
    pub(super) fn by_prompt(&self) -> BTreeMap<usize, Vec<&Record>> {
        self.trials.iter().map(|(&prompt, worst)| (prompt, worst.iter().collect())).collect()
    }
}

/// A record as it is listed.
fn listed(record: &Record) -> Record {
    let mut listed = record.clone();
    if listed.edit.len() > LONGEST_EDIT {
        let changes = listed.edit.matches('+').count() + 1;
        let beginning: String = listed.edit.chars().take(100).collect();
        listed.edit = format!("{beginning}... ({changes} changes)");
    }
    listed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{random::SplitMix64, testing::records::record};

    fn shuffled(mut records: Vec<Record>, seed: u64) -> Vec<Record> {
        SplitMix64(seed).shuffle(&mut records);
        records
    }

    #[test]
    fn the_first_trials_are_listed_in_their_order() {
        let records: Vec<Record> = (0..1_500).map(|trial| Record { trial, ..record() }).collect();
        for seed in 0..3 {
            let mut first = First::default();
            shuffled(records.clone(), seed).iter().for_each(|record| first.add(record.trial % 2, record));
            let listed = first.by_prompt();
            let even: Vec<usize> = listed[&0].iter().map(|record| record.trial).collect();
            assert_eq!((listed.len(), listed[&1].len()), (2, 500));
            assert_eq!(even, (0..500).map(|i| 2 * i).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_worst_trials_of_each_prompt_are_listed_and_of_very_many_prompts_the_first() {
        let at = |trial: usize| {
            let kl_mean = (!trial.is_multiple_of(7)).then_some((trial * 31 % 40) as f64);
            Record { trial, kl_mean, ..record() }
        };
        for (prompts, count) in [(3, 300), (400, 12_000)] {
            let records: Vec<Record> = (0..count).map(at).collect();
            for seed in 0..3 {
                let mut worst = Worst::default();
                let all = if seed == 0 { records.clone() } else { shuffled(records.clone(), seed) };
                all.iter().for_each(|record| worst.add(record.trial % prompts, record, |prompt| prompt));
                let listed = worst.by_prompt();
                assert!(listed.values().map(Vec::len).sum::<usize>() <= 2 * MOST);
                for prompt in 0..prompts.min(MOST / WORST) {
                    let mut expected: Vec<&Record> = records.iter().filter(|r| r.trial % prompts == prompt).collect();
                    let kl = |record: &Record| record.kl_mean.unwrap_or(f64::INFINITY);
                    expected.sort_by(|a, b| kl(b).total_cmp(&kl(a)));
                    assert_eq!(listed[&prompt], expected[..WORST], "{prompt} of {prompts}");
                }
            }
        }
    }

    #[test]
    fn a_list_of_flips_is_listed_by_its_beginning_and_its_length() {
        let flips: Vec<String> = (0..5_000).map(|i| format!("flip:weight[{i},0].1")).collect();
        let edit = listed(&Record { edit: flips.join("+"), ..record() }).edit;
        assert!(edit.starts_with("flip:weight[0,0].1+") && edit.ends_with("... (5000 changes)"), "{edit}");
    }
}
