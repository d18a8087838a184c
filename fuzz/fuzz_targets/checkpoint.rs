//! Law 9: any bytes as a checkpoint, and damage to valid ones.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lm_headroom::testing::{fuzz::hold, oracles::checkpoint::Damaged};

fuzz_target!(|case: Damaged| hold(&case));
