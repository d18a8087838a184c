//! Laws 2 and 3 on the model that ships inside: perturbations measured, written, measured again and taken back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lm_headroom::testing::{fuzz::hold, oracles::perturb::Perturbations};

fuzz_target!(|case: Perturbations| hold(&case));
