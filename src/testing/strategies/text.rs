//! Texts that are edits, nearly are, or are not.

use arbitrary::{Result, Unstructured};

use super::{choose, edits::any_edit, some};

/// Pieces of the grammar, and characters that it has not.
pub(crate) const FRAGMENTS: [&str; 40] = [
    "clean",
    "shift:",
    "flip:",
    "set:",
    "add:",
    "xor:",
    "random:",
    "weight",
    "word",
    "scales",
    "biases",
    "[",
    "]",
    ",",
    ".",
    "=",
    "+",
    "-",
    "0x",
    "flips=",
    "rate=",
    "seed=",
    ",seed=",
    ",tensor=",
    "e",
    "1",
    "0",
    "7",
    "4294967296",
    "9223372036854775808",
    "18446744073709551616",
    "99999999999999999999",
    " ",
    "\n",
    "\0",
    "é",
    "١",
    "−",
    "🦀",
    "\u{301}",
];

/// A text: any, of fragments, or of an edit that was cut or in which something was replaced.
///
/// # Errors
/// There are none: where the bytes end, they go on as zeros.
pub fn text(u: &mut Unstructured<'_>) -> Result<String> {
    match u.int_in_range(0..=5_u8)? {
        0 => Ok(any_edit(u)?.to_string()),
        1 => {
            let mut text = any_edit(u)?.to_string();
            // What is printed is ASCII, so that every position is a boundary.
            text.truncate(u.int_in_range(0..=text.len())?);
            Ok(text)
        }
        2 | 3 => {
            let mut text = any_edit(u)?.to_string();
            let at = u.int_in_range(0..=text.len())?;
            let end = (at + u.int_in_range(0..=2_usize)?).min(text.len());
            text.replace_range(at..end, choose(u, &FRAGMENTS)?);
            Ok(text)
        }
        4 => Ok(some(u, 0, 15, |u| choose(u, &FRAGMENTS))?.concat()),
        _ => Ok(some(u, 0, 20, |u| u.arbitrary::<char>())?.into_iter().collect()),
    }
}
