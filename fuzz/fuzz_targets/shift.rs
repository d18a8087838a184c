//! Law 1: shifts of heads of every format.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lm_headroom::testing::{fuzz::hold, oracles::shift::Shifts};

fuzz_target!(|case: Shifts| hold(&case));
