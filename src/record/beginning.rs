//! The beginning of a record, as a line has it that was cut short: whether it is one, and what it tells.

use std::fmt;

use serde::{
    Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::{Map, Value};

use super::{Record, SCHEMA};

/// Whether `bytes` are the beginning of a record as this program writes it, and not all of it: its first keys, in
/// their order and without space between them, and then what a record may hold, of which the end is missing.
pub(super) fn is_of_a_record(bytes: &[u8]) -> bool {
    let parts = [&*format!("{{\"schema\":{SCHEMA},\"trial\":"), DIGITS, ",\"model\":\""];
    let mut rest = bytes;
    for part in parts {
        if part == DIGITS {
            rest = &rest[rest.iter().take_while(|byte| byte.is_ascii_digit()).count()..];
        } else {
            let most = part.len().min(rest.len());
            if rest[..most] != part.as_bytes()[..most] {
                return false;
            }
            rest = &rest[most..];
        }
    }
    let ends_early = |bytes: &[u8]| matches!(serde_json::from_slice::<Record>(bytes), Err(error) if error.is_eof());
    // A number that is cut behind its sign is, for the parser, no number.
    !bytes.is_empty() && (ends_early(bytes) || ends_early(&[bytes, b"0"].concat())) && has_the_keys_of_a_record(bytes)
}

/// In the list of a record's first bytes any digits.
const DIGITS: &str = "0";

/// The keys of a record in their order.
const KEYS: [&str; 34] = [
    "schema",
    "trial",
    "model",
    "revision",
    "model_digest",
    "head_digest",
    "backend",
    "kernel",
    "prompt",
    "prompt_ids",
    "edit",
    "edit_digest",
    "shift",
    "family",
    "value",
    "first_words",
    "tokens",
    "text",
    "finish",
    "verdict",
    "tags",
    "coherent_tokens",
    "threshold",
    "surprise",
    "margin",
    "kl_mean",
    "kl_p99",
    "agreement",
    "expected",
    "expected_texts",
    "documented",
    "clean",
    "run",
    "ms",
];

/// Keys that a record may lack.
const OPTIONAL: [&str; 1] = ["edit_digest"];

/// Whether the keys are those of a record in their order, as far as they go, and the last one as far as that goes.
fn has_the_keys_of_a_record(bytes: &[u8]) -> bool {
    let Outermost { keys, values } = Outermost::of(bytes);
    let tail = bytes.rsplit(|&byte| byte == b',').next().and_then(|tail| tail.strip_prefix(b"\""));
    let cut_key = tail.filter(|tail| values.len() == keys.len() && !tail.contains(&b'"')).unwrap_or_default();
    let mut expected = KEYS.as_slice();
    for found in &keys {
        let Some(at) = expected.iter().position(|key| found == key) else { return false };
        if !expected[..at].iter().all(|key| OPTIONAL.contains(key)) {
            return false;
        }
        expected = &expected[at + 1..];
    }
    // What may come next: one of the optional keys, or the first that is none.
    let next = expected.iter().position(|key| !OPTIONAL.contains(key)).map_or(expected.len(), |at| at + 1);
    if expected.is_empty() {
        cut_key.is_empty()
    } else {
        expected[..next].iter().any(|key| key.as_bytes().starts_with(cut_key))
    }
}

/// What there is of the outermost object.
#[derive(Default)]
struct Outermost {
    keys: Vec<String>,
    /// Of all keys, or of all but the last.
    values: Vec<Value>,
}

impl Outermost {
    fn of(bytes: &[u8]) -> Self {
        let mut outermost = Self::default();
        // It ends early, which is an error; what came before stands.
        drop(serde_json::Deserializer::from_slice(bytes).deserialize_map(&mut outermost));
        outermost
    }
}

impl<'de> Visitor<'de> for &mut Outermost {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key()? {
            self.keys.push(key);
            self.values.push(map.next_value()?);
        }
        Ok(())
    }
}

/// The keys of the outermost object whose values are whole.
pub(super) fn known(bytes: &[u8]) -> Map<String, Value> {
    let Outermost { keys, mut values } = Outermost::of(bytes);
    // A number that stands at the end may have lost digits.
    if bytes.last().is_some_and(u8::is_ascii_digit) && values.len() == keys.len() {
        values.pop_if(|value| value.is_number());
    }
    keys.into_iter().zip(values).collect()
}

/// What there is of the text of `key`, which holds nothing that JSON escapes.
pub(super) fn text<'a>(bytes: &'a [u8], key: &str) -> Option<&'a str> {
    // Quotes within a text are escaped, so this is the key and nothing else.
    let before = format!(",\"{key}\":\"");
    let at = bytes.windows(before.len()).position(|window| window == before.as_bytes())?;
    let rest = &bytes[at + before.len()..];
    let end = rest.iter().position(|&byte| byte == b'"').unwrap_or(rest.len());
    Some(str::from_utf8(&rest[..end]).unwrap_or("\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record as the program writes it, with all keys that it may have.
    fn line() -> String {
        let edit_digest = Some("22".repeat(32));
        serde_json::to_string(&Record { edit_digest, ..crate::testing::records::record() }).expect("a record")
    }

    #[test]
    fn every_beginning_of_a_record_is_one_and_the_whole_is_not() {
        for line in [line(), serde_json::to_string(&crate::testing::records::record()).expect("a record")] {
            for end in 1..line.len() {
                let beginning = &line.as_bytes()[..end];
                assert!(is_of_a_record(beginning), "{}", String::from_utf8_lossy(beginning));
            }
            assert!(!is_of_a_record(line.as_bytes()) && !is_of_a_record(b""));
        }
    }

    #[test]
    fn the_keys_are_those_of_a_record() {
        let line = line();
        assert_eq!(Outermost::of(line.as_bytes()).keys, KEYS);
    }

    #[test]
    fn nothing_else_is_the_beginning_of_a_record() {
        for foreign in [
            "my notes",
            " {",
            "{}",
            "{ ",
            "{\"schema\": 1",
            "{\"schema\":2,\"trial\":0,\"model\":\"",
            "{\"schema\":1,\"recipe\":[",
            "{\"schema\":1,\"trial\":0,\"model\":\"x\"}",
            "{\"schema\":1,\"trial\":0,\"model\":\"x\",\"revision\":7",
            "{\"schema\":1,\"trial\":0,\"model\":\"x\",\"author\":\"m",
            "{\"schema\":1,\"trial\":0,\"model\":\"x\",\"auth",
            "{\"schema\":1,\"trial\":0,\"model\":\"x\"\0\0\0",
            "{\"schema\":1,\"trial\":0,\"model\":\"x\"} and notes",
            "\u{1f}\u{8b}\u{8}",
            "[",
        ] {
            assert!(!is_of_a_record(foreign.as_bytes()), "{foreign}");
        }
    }

    #[test]
    fn what_is_whole_is_known_and_what_is_cut_is_not() {
        let known = |bytes: &str| known(bytes.as_bytes()).keys().cloned().collect::<Vec<_>>();
        assert_eq!(known("{\"schema\":1,\"trial\":12"), ["schema"]);
        assert_eq!(known("{\"schema\":1,\"trial\":12,"), ["schema", "trial"]);
        assert_eq!(known("{\"schema\":1,\"model\":\"de"), ["schema"]);
        assert_eq!(text(b"{\"a\":1,\"model_digest\":\"ab", "model_digest"), Some("ab"));
        assert_eq!(text(b"{\"a\":1,\"model_digest\":\"ab\",\"x", "model_digest"), Some("ab"));
        assert_eq!(text(br#"{"a":",\"model_digest\":\"ab"#, "model_digest"), None);
    }
}
