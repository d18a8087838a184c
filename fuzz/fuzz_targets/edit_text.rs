//! Law 8: any text as an edit.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lm_headroom::testing::{fuzz::hold, oracles::text::Text};

fuzz_target!(|case: Text| hold(&case));
