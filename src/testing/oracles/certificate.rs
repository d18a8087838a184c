//! Law 7: no edit with fewer flips than a position's least count changes that position's token; its witness does. What
//! is certified of a small head, against trying every set of flips.

use arbitrary::Arbitrary;
use serde::{Deserialize, Serialize};

use super::{Case, Reached, Verdict, claim};
use crate::testing::brute_force::SmallHead;

/// The bytes that a [`SmallHead`] is made of.
#[derive(Clone, Debug, Arbitrary, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certified {
    /// See [`SmallHead::from_bytes`].
    pub bytes: Vec<u8>,
}

impl Case for Certified {
    const NAME: &'static str = "certificate";
    const CLASSES: &'static [&'static str] = &["least 1", "least 2", "least 3", "least 4", "least 5", "least 6"];
    const ENTROPY: usize = 64;

    fn check(&self, reached: &mut Reached) -> Verdict {
        match SmallHead::from_bytes(&self.bytes).check() {
            Ok(checked) => {
                if let Some(least @ 1..=6) = checked.least.filter(|_| checked.exhausted) {
                    reached.one(Self::CLASSES[least - 1]);
                }
                reached.one("tried");
                Ok(())
            }
            Err(seen) => {
                claim!(7, false, "what is certified is what trying every set of flips finds", "{seen}");
                Ok(())
            }
        }
    }
}
