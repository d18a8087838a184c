//! Law 4: every kernel of this processor against the specification.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lm_headroom::testing::{fuzz::hold, oracles::kernel::Products};

fuzz_target!(|case: Products| hold(&case));
