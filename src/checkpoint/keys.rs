//! Values of `config.json` by their keys, each checked for its type as it is asked for.

use std::{cell::RefCell, collections::BTreeSet};

use serde_json::{Map, Value};

use super::{config_error::ConfigError, json::shortened};

/// Largest size that a dimension may have: 2^24. Products of two, in bytes, stay far from overflow.
pub(super) const LARGEST: u64 = 1 << 24;

/// An object of the configuration, and where it lies in the file.
#[derive(Debug)]
pub(super) struct Keys<'a> {
    pub(super) map: &'a Map<String, Value>,
    prefix: String,
    /// What was asked for.
    read: RefCell<BTreeSet<String>>,
}

impl<'a> Keys<'a> {
    pub(super) fn new(map: &'a Map<String, Value>, prefix: &str) -> Self {
        Self { map, prefix: prefix.to_owned(), read: RefCell::default() }
    }

    /// Full path of `key`, shortened: it may come from the file.
    pub(super) fn path(&self, key: &str) -> String {
        if self.prefix.is_empty() { shortened(key) } else { format!("{}.{}", self.prefix, shortened(key)) }
    }

    pub(super) fn missing(&self, key: &str) -> ConfigError {
        ConfigError::Missing { key: self.path(key) }
    }

    pub(super) fn invalid(&self, key: &str, wanted: &'static str) -> ConfigError {
        let found = self.map.get(key).map_or_else(|| "absent".to_owned(), |value| shortened(&value.to_string()));
        ConfigError::Invalid { key: self.path(key), found, wanted }
    }

    /// The value of `key`, where `null` counts as absent.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        self.get_or_null(key).filter(|value| !value.is_null())
    }

    /// The value of `key`, `null` included.
    pub(super) fn get_or_null(&self, key: &str) -> Option<&'a Value> {
        self.read.borrow_mut().insert(key.to_owned());
        self.map.get(key)
    }

    /// Whether the value of `key` was asked for.
    pub(super) fn was_read(&self, key: &str) -> bool {
        self.read.borrow().contains(key)
    }

    pub(super) fn object(&self, key: &str) -> Result<Option<Keys<'a>>, ConfigError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Keys::new(map, &self.path(key)))),
            Some(_) => Err(self.invalid(key, "an object")),
        }
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>, ConfigError> {
        let text = |value: &'a Value| value.as_str().ok_or_else(|| self.invalid(key, "a text"));
        self.get(key).map(text).transpose()
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        let flag = |value: &Value| value.as_bool().ok_or_else(|| self.invalid(key, "true or false"));
        self.get(key).map(flag).transpose()
    }

    pub(super) fn integer(&self, key: &str) -> Result<Option<u64>, ConfigError> {
        let integer = |value: &Value| value.as_u64().ok_or_else(|| self.invalid(key, "an integer, not negative"));
        self.get(key).map(integer).transpose()
    }

    pub(super) fn size(&self, key: &str) -> Result<Option<usize>, ConfigError> {
        let size = |value: &Value| {
            let size = value.as_u64().filter(|size| (1..=LARGEST).contains(size));
            size.map(|size| size as usize).ok_or_else(|| self.invalid(key, "an integer from 1 to 2^24"))
        };
        self.get(key).map(size).transpose()
    }

    /// As [`Keys::size`], where 0 is possible, too.
    pub(super) fn size_or_none(&self, key: &str) -> Result<Option<usize>, ConfigError> {
        match self.get(key) {
            Some(value) if value.as_u64() == Some(0) => Ok(Some(0)),
            _ => self.size(key),
        }
    }

    pub(super) fn required_size(&self, key: &str) -> Result<usize, ConfigError> {
        self.size(key)?.ok_or_else(|| self.missing(key))
    }

    pub(super) fn list(&self, key: &str) -> Result<Option<&'a [Value]>, ConfigError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(values)) => Ok(Some(values)),
            Some(_) => Err(self.invalid(key, "a list")),
        }
    }

    /// A number that stays finite and positive as `f32`, in which the model computes.
    pub(super) fn number(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        let number = |value: &Value| {
            let number = value.as_f64().filter(|&number| (number as f32).is_finite() && number as f32 > 0.0);
            number.ok_or_else(|| self.invalid(key, "a number that is positive and finite as a float32"))
        };
        self.get(key).map(number).transpose()
    }
}
