//! Law 9: any text as a chat template, in a child, and in this process where the child survives it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lm_headroom::{
    child::{Counted, outlive_closed_pipes},
    testing::{fuzz::hold, oracles::tokenizer::Templating},
    tokenizer::serve_if_asked,
};

#[global_allocator]
static ALLOCATOR: Counted = Counted;

fuzz_target!(init: {
    outlive_closed_pipes();
    serve_if_asked();
}, |case: Templating| hold(&case));
