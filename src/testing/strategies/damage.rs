//! Damage to a file: what a disk, a network or an attacker makes of a checkpoint.

use arbitrary::{Arbitrary, Result, Unstructured};
use serde::{Deserialize, Serialize};

use super::{choose, one_in, some};
use crate::testing::heads::{hex, unhex};

/// A place in a file whose length is not known: a share of it, in parts of 2^32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Arbitrary, Serialize, Deserialize)]
pub(crate) struct Place(pub u32);

impl Place {
    /// The index below `len` that this stands for; 0 where `len` is 0.
    pub(crate) const fn index(self, len: usize) -> usize {
        ((self.0 as u128 * len as u128) >> 32) as usize
    }
}

/// Bytes, in hexadecimal in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Hex(pub Vec<u8>);

impl From<Hex> for String {
    fn from(bytes: Hex) -> Self {
        hex(&bytes.0)
    }
}

impl TryFrom<String> for Hex {
    type Error = String;
    fn try_from(text: String) -> std::result::Result<Self, String> {
        unhex(&text).map(Self)
    }
}

/// Pieces that mean something to a parser.
const PIECES: [&str; 16] = [
    "{",
    "}",
    "[",
    "]",
    ",",
    "\"",
    "0",
    "-1",
    "1e999",
    "null",
    "true",
    "false",
    "18446744073709551615",
    "..",
    "/",
    "\\u0000",
];

impl<'a> Arbitrary<'a> for Hex {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        if one_in(u, 2)? {
            return Ok(Self(some(u, 1, 8, |u| u.arbitrary())?));
        }
        Ok(Self(choose(u, &PIECES)?.as_bytes().to_vec()))
    }
}

/// A change to one file.
#[derive(Clone, Debug, PartialEq, Eq, Arbitrary, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Damage {
    /// Cut short, anywhere in the file.
    Truncate(Place),
    /// A bit is inverted.
    Flip {
        /// Where.
        at: Place,
        /// Bit to invert; only the low three bits count.
        bit: u8,
    },
    /// Another digit in the next number: well-formed still, but another shape, offset or setting.
    Digit {
        /// Place from which the next number is looked for.
        at: Place,
        /// 0 to 9, modulo 10.
        digit: u8,
    },
    /// Bytes are overwritten.
    Replace {
        /// Where.
        at: Place,
        /// Bytes that overwrite it.
        with: Hex,
    },
    /// Bytes are inserted.
    Insert {
        /// Where.
        at: Place,
        /// What.
        bytes: Hex,
    },
    /// Bytes are removed.
    Remove {
        /// Where.
        at: Place,
        /// Number of bytes, less one.
        len: u8,
    },
    /// Bytes are duplicated.
    Repeat {
        /// Where.
        at: Place,
        /// Number of bytes, less one.
        len: u8,
    },
}

impl Damage {
    /// Damages `file` within its first `within` bytes; only truncation is anywhere.
    pub(crate) fn apply(&self, file: &mut Vec<u8>, within: usize) {
        let reach = |at: Place, file: &[u8]| at.index(within.min(file.len()));
        match self {
            Self::Truncate(at) => file.truncate(at.index(file.len() + 1)),
            Self::Flip { at, bit } => {
                let at = reach(*at, file);
                if let Some(byte) = file.get_mut(at) {
                    *byte ^= 1 << (bit & 7);
                }
            }
            Self::Digit { at, digit } => {
                let at = reach(*at, file);
                if let Some(byte) = file[at..].iter_mut().find(|byte| byte.is_ascii_digit()) {
                    *byte = b'0' + digit % 10;
                }
            }
            Self::Replace { at, with } => {
                let at = reach(*at, file);
                let end = (at + with.0.len()).min(file.len());
                file.splice(at..end, with.0.iter().copied());
            }
            Self::Insert { at, bytes } => {
                let at = reach(*at, file);
                file.splice(at..at, bytes.0.iter().copied());
            }
            Self::Remove { at, len } => {
                let at = reach(*at, file);
                file.drain(at..(at + 1 + usize::from(*len)).min(file.len()));
            }
            Self::Repeat { at, len } => {
                let at = reach(*at, file);
                let piece = file[at..(at + 1 + usize::from(*len)).min(file.len())].to_vec();
                file.splice(at..at, piece);
            }
        }
    }
}
