//! Law 7: certificates of small heads against trying everything.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lm_headroom::testing::{fuzz::hold, oracles::certificate::Certified};

fuzz_target!(|case: Certified| hold(&case));
