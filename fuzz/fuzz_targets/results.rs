//! Law 9: stored results with other values and other bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lm_headroom::testing::{fuzz::hold, oracles::results::Stored};

fuzz_target!(|case: Stored| hold(&case));
