//! Edits by example: what their text means (law 8) is in `edits/text.rs`, each kind and what is refused in
//! `edits/examples.rs`. What holds for all of them, laws 1, 3, 5 and 8, is a property of `tests/laws.rs`.

use lm_headroom::{
    edit::Edit,
    quant::Layout,
    testing::{
        entropy::Entropy,
        strategies::{Unstructured, heads},
    },
};
use proptest::prelude::*;

#[path = "edits/examples.rs"]
mod examples;
#[path = "edits/text.rs"]
mod text;

/// Layouts of every format.
fn layouts() -> impl Strategy<Value = Layout> {
    Entropy(16).prop_map(|bytes| heads::layout(&mut Unstructured::new(&bytes)).expect("all bytes are a layout"))
}

fn edit(text: &str) -> Edit {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}
