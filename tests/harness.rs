//! The invariants and the answers of whole models: the one that ships inside, the reference checkpoints where
//! `HEADROOM_MODELS` names their folder, and whichever one `HEADROOM_MODEL` names (a folder, or a hub id that is in the
//! cache).
//!
//! Answers are snapshots, in `snapshots/`. `INSTA_UPDATE=always cargo test --test harness` accepts all that is new;
//! `cargo insta review` shows what changed, and asks.

use lm_headroom::testing::harness;
use lm_headroom::testing::harness::{Backend, Named, Tied, from_env};
use lm_headroom::testing::model::{PROMPTS, reference_folder};
use lm_headroom::testing::skipped;
use std::path::Path;

mod demo {
    use super::harness;
    harness!(model = "demo");
}

mod with_every_argument {
    use super::{Backend, Tied, harness};
    // The answers to all prompts are those of the snapshot above, so all are asked.
    harness!(model = "demo", cases = 5, tied = Tied::Separate, seed = 7, backend = Backend::Cpu, max_tokens = 16);
}

mod with_arguments_in_another_order {
    use super::{PROMPTS, Tied, harness};
    // The model's head is no embedding, so that this tying changes nothing.
    harness!(model = String::from("demo"), max_tokens = 16, prompts = PROMPTS.map(String::from), tied = Tied::Shared,);

    #[test]
    fn arguments_that_are_given_are_taken_and_others_have_their_defaults() {
        let shown = format!("{:?}", under_test());
        for part in ["max_tokens: 16", "tied: Shared", "seed: None", "cases: None", "backend: Cpu"] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
    }
}

/// In this crate's own profiles arithmetic is optimized, in tests, too.
#[test]
fn a_build_that_is_optimized_is_known_to_be() {
    assert!(harness::is_optimized());
}

#[test]
#[cfg(not(feature = "mlx"))]
#[should_panic(expected = "enable its feature `mlx`")]
fn a_backend_that_is_not_compiled_is_refused() {
    harness::UnderTest::new("demo", "snapshots").backend(Backend::Mlx).restores();
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

/// Families that this crate does not compute itself are tested through mlx-lm, where a Python has it and the kit of families is at hand.
#[test]
fn models_of_any_family_are_tested_through_mlx_lm() {
    let (kit, python) = (std::env::var_os("HEADROOM_FAMILIES"), std::env::var_os("HEADROOM_PYTHON"));
    let what = "restoring heads, and snapshots, through mlx-lm";
    let (Some(kit), Some(_)) = (kit, python) else {
        return skipped(
            what,
            "HEADROOM_PYTHON and HEADROOM_FAMILIES do not name a Python with mlx-lm and the kit of families",
        );
    };
    for (name, times) in [("deepseek_v3@q4", 2), ("nemotron_h@q4", 1), ("qwen3_5_moe@q4", 1), ("gemma4@q4", 1)] {
        let folder = Path::new(&kit).join(name);
        if !folder.is_dir() {
            skipped(what, &format!("{} is no folder", folder.display()));
            continue;
        }
        let folder = folder.to_string_lossy().into_owned();
        let under_test = harness::UnderTest::new(Named::Required(folder), "snapshots")
            .backend(Backend::MlxLmFloat32)
            .prompts(["What is 2+2?"])
            .max_tokens(4);
        under_test.restores();
        let mut sheets = Vec::new();
        for _ in 0..times {
            under_test.snapshot(|name, sheet| sheets.push((name.to_owned(), sheet)));
        }
        assert!(sheets[0].0.contains("mlx-lm-") && sheets[0].1.lines().count() > 10, "{sheets:?}");
        assert!(sheets.iter().all(|sheet| *sheet == sheets[0]), "another start of mlx-lm gives other answers");
    }
}
