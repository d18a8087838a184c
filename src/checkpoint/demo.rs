//! The model that ships inside the program, so that a machine without a checkpoint and without a network can do
//! the real thing. How it was made, and what it can say, stands in `models/demo/README.md`.

use std::collections::BTreeMap;

use super::bytes::Bytes;

/// Its name on the command line.
pub(crate) const NAME: &str = "demo";

macro_rules! embedded {
    ($($name:literal),* $(,)?) => {
        [$(($name, &include_bytes!(concat!("../../models/demo/", $name))[..])),*]
    };
}

/// Its files, by name.
pub fn files() -> BTreeMap<String, Bytes> {
    embedded![
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    ]
    .into_iter()
    .map(|(name, bytes)| (name.to_owned(), Bytes::new(bytes)))
    .collect()
}
