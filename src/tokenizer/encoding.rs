//! How a prompt's text becomes ids.

use super::{clock::Clock, ordered_json::Json};

/// How a prompt's text becomes ids: by the chat template, after an optional system message, unless it is taken as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Encoding {
    /// Message of the system before the prompt.
    pub system: Option<String>,
    /// Takes the text as it is, without the chat template.
    pub raw: bool,
    /// Name of the chat template, where the model has several.
    pub template: Option<String>,
    /// Variables for the chat template, which come before those that it is given in any case.
    pub variables: Vec<(String, Json)>,
    /// What the chat template takes for now.
    pub clock: Clock,
}

/// Ids of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// The ids.
    pub ids: Vec<u32>,
    /// The date that the chat template asked for, if it did: as [`Clock::parse`] reads it.
    pub date: Option<String>,
}
