//! The laws, one function each.
//!
//! An oracle takes a plain value and says whether its law holds for it. It knows nobody who calls it: a property,
//! a fuzz target and a stored counterexample call the same function. And it counts: every assertion that is worth
//! something is reached under a name, since a run that never reached one shows nothing.
//!
//! | law | | |
//! | --- | --- | --- |
//! | 1 | shifts: there and back, their sums, 2^32, the cast | [`shift`] |
//! | 2 | guards restore, however they end | [`guard`] |
//! | 3 | measured without writing = after writing | [`measure`], on a whole model [`perturb`] |
//! | 4 | every kernel gives the bits of `scalar.rs`, and of logits read anew | [`kernel`], `logits` |
//! | 5 | packing and unpacking are inverse | [`packing`] |
//! | 6 | trials in waves = alone = prefill | [`trie`] |
//! | 7 | least flips: fewer change nothing, the witness does | [`certificate`] |
//! | 8 | text: printed parses, refused is pointed at | [`text`] |
//! | 9 | any bytes as a checkpoint, a tokenizer or a template, or as stored results | [`checkpoint`], [`tokenizer`], `results` (with the feature `report`) |
//! | 10 | a journal cut at any byte; parts joined in any order | [`journal`], [`parts`] |

pub mod certificate;
pub mod checkpoint;
pub mod guard;
pub mod journal;
pub mod kernel;
mod logits;
pub mod measure;
pub mod packing;
pub mod parts;
pub mod perturb;
#[cfg(feature = "report")]
pub mod results;
pub mod shift;
pub mod text;
pub mod tokenizer;
pub mod trie;

use std::{collections::BTreeMap, fmt};

use arbitrary::Arbitrary;
use serde::{Serialize, de::DeserializeOwned};

use crate::checkpoint::family;

/// A law that does not hold, and what was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its number in the list of laws.
    pub law: u8,
    /// What is claimed.
    pub claim: &'static str,
    /// What was seen instead, and where.
    pub seen: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "law {} does not hold: {}; seen: {}", self.law, self.claim, self.seen)
    }
}

impl std::error::Error for Violation {}

/// What an oracle gives: nothing, where the law holds.
pub type LawResult = Result<(), Violation>;

/// How often assertions were reached, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reached(BTreeMap<String, u64>);

impl Reached {
    /// Counts one.
    pub fn one(&mut self, what: &str) {
        match self.0.get_mut(what) {
            Some(count) => *count += 1,
            None => drop(self.0.insert(what.to_owned(), 1)),
        }
    }

    /// Counts one if `seen`.
    pub fn one_if(&mut self, seen: bool, what: &str) {
        if seen {
            self.one(what);
        }
    }

    /// How often `what` was reached.
    pub fn count(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    /// All counts together.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// That each of `classes` was reached.
    ///
    /// # Errors
    /// A message that names those that were not.
    pub fn require(&self, classes: &[impl AsRef<str>]) -> Result<(), String> {
        let never: Vec<&str> = classes.iter().map(AsRef::as_ref).filter(|class| self.count(class) == 0).collect();
        if never.is_empty() && self.total() > 0 {
            return Ok(());
        }
        Err(format!("never reached: {}; reached: {self}", never.join(", ")))
    }
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nothing");
        }
        for (i, (what, count)) in self.0.iter().enumerate() {
            write!(f, "{}{what} {count}", if i > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

/// `classes`, and each native family by its name: a law that runs bodies must have run all of them.
///
/// # Panics
/// If `N` is not the number of both together.
const fn with_native_families<const N: usize>(classes: &[&'static str]) -> [&'static str; N] {
    assert!(N == classes.len() + family::NATIVE.len(), "as many classes as were given, and one for each family");
    let mut all = [""; N];
    let mut i = 0;
    while i < N {
        all[i] = if i < classes.len() { classes[i] } else { family::NATIVE[i - classes.len()].name };
        i += 1;
    }
    all
}

/// The input of a law, with the law.
pub trait Case: fmt::Debug + Serialize + DeserializeOwned + for<'a> Arbitrary<'a> {
    /// Names its file of counterexamples.
    const NAME: &'static str;
    /// What a run of many cases must reach.
    const CLASSES: &'static [&'static str];
    /// The same, with what depends on this machine.
    fn classes() -> Vec<String> {
        Self::CLASSES.iter().map(ToString::to_string).collect()
    }
    /// Bytes from which most inputs can be drawn.
    const ENTROPY: usize;

    /// Holds the law against this input.
    ///
    /// # Errors
    /// The [`Violation`], where it does not hold.
    fn check(&self, reached: &mut Reached) -> LawResult;
}

/// Returns a [`Violation`] of `$law` unless `$holds`.
macro_rules! claim {
    ($law:expr, $holds:expr, $claim:expr, $($seen:tt)+) => {
        if !$holds {
            return Err($crate::testing::oracles::Violation { law: $law, claim: $claim, seen: format!($($seen)+) });
        }
    };
}
use claim;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_reached_nothing_fails_even_if_nothing_was_asked_for() {
        let mut reached = Reached::default();
        assert!(reached.require(&[""; 0]).is_err());
        reached.one("a");
        assert_eq!(reached.require(&["a"]), Ok(()));
        assert_eq!(reached.require(&["a", "b"]), Err("never reached: b; reached: a 1".to_owned()));
    }
}
