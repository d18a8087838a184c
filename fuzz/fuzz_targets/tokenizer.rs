//! Law 9: any bytes as a `tokenizer.json`, in a child, and in this process where the child survives it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lm_headroom::{
    child::{Counted, outlive_closed_pipes},
    testing::{fuzz::hold, oracles::tokenizer::Tokenizing},
    tokenizer::serve_if_asked,
};

#[global_allocator]
static ALLOCATOR: Counted = Counted;

fuzz_target!(init: {
    outlive_closed_pipes();
    serve_if_asked();
}, |case: Tokenizing| hold(&case));
