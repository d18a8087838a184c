//! What is missing of a run in the journals of its parts, and what to run again so that nothing is.

use serde::Serialize;

use crate::numbers::NumberSet;

/// Parts of a run that are told of.
const MOST_PARTS: usize = 1 << 20;

/// Trials of a run that are in none of its journals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Missing {
    /// Their number.
    pub trials: usize,
    /// The parts that they belong to, from 1; `None` where the number of parts is not known.
    pub shards: Option<Vec<usize>>,
    /// The same as schedulers write it: `3,7-8`.
    pub array: Option<String>,
    /// The number of parts, where it is known.
    pub of: Option<usize>,
}

impl Missing {
    /// What is missing in `found` of a run of so many trials, which was run in so many parts, where that is known.
    pub(crate) fn of(found: &NumberSet, trials: usize, parts: Option<usize>) -> Self {
        let parts = parts.filter(|&parts| (1..=MOST_PARTS).contains(&parts));
        let mut has = vec![0; parts.unwrap_or(0)];
        let mut known = 0;
        for trial in found.iter().take_while(|&trial| trial < trials) {
            known += 1;
            if let Some(parts) = parts {
                has[trial % parts] += 1;
            }
        }
        let shards = parts.map(|parts| {
            let all = |part: usize| trials / parts + usize::from(part % parts < trials % parts);
            (1..=parts).filter(|&part| has[part % parts] < all(part)).collect::<Vec<_>>()
        });
        let array = shards.as_deref().map(array);
        Self { trials: trials - known, shards, array, of: parts }
    }
}

/// Ascending numbers, those that follow each other as a range.
fn array(numbers: &[usize]) -> String {
    let ranges: Vec<String> = numbers
        .chunk_by(|a, b| a + 1 == *b)
        .map(|range| match *range {
            [one] => one.to_string(),
            [first, .., last] => format!("{first}-{last}"),
            [] => unreachable!("a chunk has an element"),
        })
        .collect();
    ranges.join(",")
}

/// How far the trials of a journal lie apart, which tells of how many parts it is one: a part has every so many trials.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spacing {
    /// The greatest number that divides all distances; 0 before there was one.
    divisor: usize,
}

impl Spacing {
    /// Takes into account two trials that follow each other in a journal.
    pub(crate) fn add(&mut self, before: usize, trial: usize) {
        let (mut a, mut b) = (self.divisor, before.abs_diff(trial));
        while b > 0 {
            (a, b) = (b, a % b);
        }
        self.divisor = a;
    }

    /// The number of parts; `None` where no journal has two trials.
    pub(crate) fn parts(self) -> Option<usize> {
        Some(self.divisor).filter(|&parts| parts > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(found: &[usize], trials: usize, parts: Option<usize>) -> Missing {
        let mut set = NumberSet::default();
        for &trial in found {
            set.insert(trial);
        }
        Missing::of(&set, trials, parts)
    }

    #[test]
    fn parts_with_missing_trials_are_named_and_no_others() {
        // Parts of 4: trials 1, 5, 9 are part 1; 2, 6 part 2; 3, 7 part 3; 0, 4, 8 part 4.
        let found = missing(&[1, 5, 9, 2, 3, 7, 0, 4, 8], 10, Some(4));
        assert_eq!(found, Missing { trials: 1, shards: Some(vec![2]), array: Some("2".to_owned()), of: Some(4) });
        let found = missing(&[2, 6, 0], 10, Some(4));
        assert_eq!((found.trials, found.array.as_deref()), (7, Some("1,3-4")));
        let whole = missing(&(0..10).collect::<Vec<_>>(), 10, Some(4));
        assert_eq!((whole.trials, whole.shards, whole.array.as_deref()), (0, Some(Vec::new()), Some("")));
        // Parts without a trial are not missing.
        assert_eq!(missing(&[], 2, Some(4)).shards, Some(vec![1, 4]));
    }

    #[test]
    fn the_json_is_that_of_the_contract() {
        let json = serde_json::to_string(&missing(&[1, 2, 4, 5, 6], 8, Some(8))).expect("JSON");
        assert_eq!(json, r#"{"trials":3,"shards":[3,7,8],"array":"3,7-8","of":8}"#);
    }

    #[test]
    fn numbers_that_no_run_has_take_neither_memory_nor_time() {
        let found = missing(&[0, usize::MAX], usize::MAX, Some(usize::MAX));
        assert_eq!((found.trials, found.shards, found.of), (usize::MAX - 1, None, None));
        // Trials beyond the run's are none of it.
        assert_eq!(missing(&[0, 7, 9], 2, None).trials, 1);
    }

    #[test]
    fn the_number_of_parts_follows_from_the_trials_of_a_journal() {
        for parts in 1..9 {
            let mut spacing = Spacing::default();
            for part in 0..parts {
                // The last one ends early.
                let trials: Vec<usize> =
                    (part..if part + 1 == parts { 3 * parts } else { 50 }).step_by(parts).collect();
                trials.windows(2).for_each(|pair| spacing.add(pair[0], pair[1]));
            }
            assert_eq!(spacing.parts(), Some(parts));
        }
        assert_eq!(Spacing::default().parts(), None);
    }
}
