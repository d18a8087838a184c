//! Parts of a run, each of which may run on a machine of its own.

use std::{fmt, str::FromStr};

/// A part of a run: of `count` parts the one that runs trials whose number leaves this remainder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// From 1 to `count`.
    index: usize,
    count: usize,
}

impl Shard {
    /// Part `index` of `count`, counted from 1; `None` where there is no such part.
    pub const fn new(index: usize, count: usize) -> Option<Self> {
        if index >= 1 && index <= count { Some(Self { index, count }) } else { None }
    }

    /// Its number, from 1 to [`Shard::count`].
    pub const fn index(self) -> usize {
        self.index
    }

    /// Number of the parts.
    pub const fn count(self) -> usize {
        self.count
    }

    /// Whether a trial belongs to it.
    pub(crate) const fn has(self, trial: usize) -> bool {
        trial % self.count == self.index % self.count
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl FromStr for Shard {
    type Err = String;

    /// `1/3` to `3/3`; `0/3` is `3/3`, so that counting from 0 gives disjoint parts, too.
    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        let shard = parts.and_then(|(index, count)| Self::new(if index == 0 { count } else { index }, count));
        shard.ok_or_else(|| format!("{text:?} is no shard, which is written 1/3, 2/3, 3/3"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_trial_belongs_to_one_part_however_parts_are_counted() {
        for count in 1..5 {
            let parts: Vec<Shard> = (1..=count).map(|index| Shard::new(index, count).expect("a part")).collect();
            for trial in 0..20 {
                assert_eq!(parts.iter().filter(|part| part.has(trial)).count(), 1, "trial {trial} of {count} parts");
            }
            let last: Shard = format!("0/{count}").parse().expect("a part");
            assert_eq!(last, parts[count - 1]);
            assert_eq!(last.to_string(), format!("{count}/{count}"));
        }
    }

    #[test]
    fn what_is_no_part_is_refused() {
        for text in ["", "1", "/", "1/0", "0/0", "4/3", "-1/3", "1/3/5", "a/b"] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
    }
}
