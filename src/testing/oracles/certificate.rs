//! Law 7: no edit with fewer flips than a position's least count changes that position's token; its witness does. What
//! is certified of a small head, against trying every set of flips.

use arbitrary::{Arbitrary, Unstructured};
use serde::{Deserialize, Serialize};

use super::{Case, LawResult, Reached, claim};
use crate::testing::brute_force::SmallHead;

/// The bytes that a [`SmallHead`] is made of.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certified {
    /// See [`SmallHead::from_bytes`].
    pub bytes: Vec<u8>,
}

impl<'a> Arbitrary<'a> for Certified {
    /// All bytes there are, as they are.
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        Ok(Self { bytes: u.bytes(u.len())?.to_vec() })
    }
}

impl Case for Certified {
    const NAME: &'static str = "certificate";
    const CLASSES: &'static [&'static str] = &["least 1", "least 2", "least 3", "least 4"];
    const ENTROPY: usize = 64;

    fn check(&self, reached: &mut Reached) -> LawResult {
        match SmallHead::from_bytes(&self.bytes).check() {
            Ok(checked) => {
                if let Some(least @ 1..=4) = checked.least.filter(|_| checked.exhausted) {
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
