//! JSON without second chances, for the small files of a checkpoint.
//!
//! `serde_json::Value` keeps the last of two equal keys; a checkpoint whose `config.json` says two
//! things is refused here instead. Depth is bounded by `serde_json`, length by [`LIMIT`]: a parsed
//! value can take some sixty times the bytes of its text, so the limit is what bounds the memory.

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Longest text that is parsed. The index of a 405B Llama has 0.3 MB.
pub(super) const LIMIT: usize = 2 << 20;

/// Why a small JSON file of a checkpoint could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Longer than any real file of its kind.
    #[error("{len} bytes are more than the {limit} that such a file may have")]
    TooLong {
        /// Bytes of the file.
        len: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Not JSON, cut short, nested too deeply, or with a key given twice. The text names the place.
    #[error("not valid JSON: {0}; fetch the file again if it was cut short")]
    Syntax(String),
    /// JSON, but not an object.
    #[error("holds JSON that is not an object")]
    NotAnObject,
}

/// Parses `bytes` as one object in which no key occurs twice, at any depth.
pub(super) fn parse_object(bytes: &[u8]) -> Result<Map<String, Value>, JsonError> {
    if bytes.len() > LIMIT {
        return Err(JsonError::TooLong { len: bytes.len(), limit: LIMIT });
    }
    match serde_json::from_slice::<Strict>(bytes) {
        Ok(Strict(Value::Object(map))) => Ok(map),
        Ok(_) => Err(JsonError::NotAnObject),
        Err(error) => Err(JsonError::Syntax(shortened(&error.to_string()))),
    }
}

/// Text from a file as it may appear in a message: not too long, and without control characters,
/// which could write to the terminal what the file's author likes.
pub(super) fn shortened(text: &str) -> String {
    const LONGEST: usize = 120;
    let mut short = String::new();
    for (i, c) in text.chars().enumerate() {
        match c {
            _ if i == LONGEST => return short + "…",
            _ if c.is_control() => short.extend(c.escape_default()),
            _ => short.push(c),
        }
    }
    short
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Strict)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Strict(value)) = seq.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some((key, Strict(value))) = entries.next_entry::<String, Strict>()? {
            if map.contains_key(&key) {
                return Err(A::Error::custom(format_args!("the key `{key}` is given twice")));
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_of_as_many_bytes_as_are_allowed_is_read_and_no_longer_one() {
        let padded = |len: usize| format!("{{}}{}", " ".repeat(len - 2)).into_bytes();
        assert_eq!(parse_object(&padded(LIMIT)), Ok(Map::new()));
        assert_eq!(parse_object(&padded(LIMIT + 1)), Err(JsonError::TooLong { len: LIMIT + 1, limit: LIMIT }));
    }
}
