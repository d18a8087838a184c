//! Law 7: no edit with fewer flips than a position's least count changes that position's token; its witness does. What
//! is certified of a small head in any format, against trying every set of flips.

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
    const CLASSES: &'static [&'static str] = &[
        "integers, least 1",
        "integers, least 2",
        "integers, least 3",
        "integers, least 4",
        "floats, least 1",
        "floats, least 2",
        "floats, least 3",
        "floats, least 4",
        "fewer by NaN",
        "a bias of the head",
        "a bias of the head decides",
    ];
    const ENTROPY: usize = 96;

    fn check(&self, reached: &mut Reached) -> LawResult {
        let head = SmallHead::from_bytes(&self.bytes);
        match head.check() {
            Ok(checked) => {
                let codes = if head.format.codes().are_floats() { "floats" } else { "integers" };
                if let Some(least) = checked.least_finite.filter(|_| checked.exhausted) {
                    reached.one(&format!("{codes}, least {least}"));
                }
                reached.one_if(checked.least < checked.least_finite, "fewer by NaN");
                reached.one_if(!head.constants.is_empty(), "a bias of the head");
                reached.one_if(checked.decided_by_bias, "a bias of the head decides");
                reached.one(&head.format.to_string());
                Ok(())
            }
            Err(seen) => {
                claim!(7, false, "what is certified is what trying every set of flips finds", "{seen}");
                Ok(())
            }
        }
    }
}
