//! Law 10: a journal that was cut, and perhaps written over.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lm_headroom::testing::{fuzz::hold, oracles::journal::Torn};

fuzz_target!(|case: Torn| hold(&case));
