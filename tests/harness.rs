//! The invariants and the answers of whole models: the one that ships inside, the reference checkpoints where
//! `HEADROOM_MODELS` names their folder, and whichever one `HEADROOM_MODEL` names (a folder, or a hub id that is in the
//! cache).
//!
//! Answers are snapshots, in `snapshots/`. `INSTA_UPDATE=always cargo test --test harness` accepts all that is new;
//! `cargo insta review` shows what changed, and asks.

use lm_headroom::testing::harness;
use lm_headroom::testing::harness::{Named, from_env};
use lm_headroom::testing::model::reference_folder;

mod demo {
    use super::harness;
    harness!(model = "demo");
}

/// A reference checkpoint, where there is one.
fn reference(name: &str) -> Named {
    match reference_folder(name) {
        Ok(folder) => Named::Required(folder.to_string_lossy().into_owned()),
        Err(why) => Named::Absent(why),
    }
}

mod smollm2_g64 {
    use super::{harness, reference};
    harness!(model = reference("smollm2-g64"));
}

mod smollm2_g32 {
    use super::{harness, reference};
    harness!(model = reference("smollm2-g32"));
}

mod of_the_environment {
    use super::{from_env, harness};
    harness!(model = from_env("HEADROOM_MODEL"));
}
