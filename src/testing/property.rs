//! Laws as properties: stored counterexamples first, then as many random cases as asked for, each failure shrunk and
//! printed as a value.

use std::{cell::RefCell, fmt};

use arbitrary::Unstructured;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    entropy::Entropy,
    oracles::{Case, LawResult, Reached},
    regressions,
};

/// How many times as many cases as were asked for may be drawn until every class was reached. A rare class is so missed by chance
/// in one round now and then, and in all of them never; one that cannot be reached is missed in all.
const ROUNDS: u32 = 8;

/// Cases of a property: `PROPTEST_CASES` where it is set, else what the property asks for.
fn cases(own: u32) -> u32 {
    if std::env::var_os("PROPTEST_CASES").is_some() { Config::default().cases } else { own }
}

/// Holds a law against what once broke it and against `own` random inputs (`PROPTEST_CASES` of them where that is
/// set), and against as many again, a few times at most, while a class that the law names was not reached; gives what was
/// reached.
///
/// # Panics
/// If the law does not hold, with the smallest input found in JSON; if a class that the law names was never
/// reached; if a stored counterexample cannot be read.
pub fn property<C: Case>(own: u32) -> Reached {
    let draw = |bytes: &[u8]| Unstructured::new(bytes).arbitrary::<C>().expect("all bytes are a value");
    property_of(C::NAME, own, None, C::ENTROPY, &C::classes(), draw, C::check)
}

/// As [`property`], where inputs need more than bytes to be drawn. With a `seed` each run draws the same ones.
///
/// # Panics
/// As [`property`].
pub fn property_of<C: fmt::Debug + Serialize + DeserializeOwned>(
    name: &str,
    own: u32,
    seed: Option<u64>,
    entropy: usize,
    classes: &[impl AsRef<str>],
    draw: impl Fn(&[u8]) -> C,
    law: impl Fn(&C, &mut Reached) -> LawResult,
) -> Reached {
    let reached = RefCell::new(Reached::default());
    for case in regressions::stored::<C>(name) {
        if let Err(violation) = law(&case, &mut reached.borrow_mut()) {
            panic!("{violation}\nThis broke before: {}", regressions::text(&case));
        }
    }
    let cases = cases(own);
    let mut config = Config { cases, failure_persistence: None, ..Config::default() };
    // No more than `PROPTEST_MAX_SHRINK_ITERS`, where that is set.
    config.max_shrink_iters = config.max_shrink_iters.min(4096);
    let mut runner = match seed {
        Some(seed) => TestRunner::new_with_rng(config.clone(), generator(seed)),
        None => TestRunner::new(config.clone()),
    };
    // Few cases, as a mutation test or a slow machine asks for, need not reach every corner.
    let classes = if cases < own { &[] } else { classes };
    let mut rounds = 0;
    loop {
        let run = runner.run(&Entropy(entropy), |bytes| {
            law(&draw(&bytes), &mut reached.borrow_mut())
                .map_err(|violation| TestCaseError::fail(violation.to_string()))
        });
        match run {
            Ok(()) => {}
            Err(TestError::Fail(reason, bytes)) => {
                let case = regressions::text(&draw(&bytes));
                panic!("{reason}\nThe smallest case found; keep it in {}:\n{case}", regressions::path(name).display());
            }
            Err(TestError::Abort(reason)) => panic!("{name}: {reason}"),
        }
        rounds += 1;
        match reached.borrow().require(classes) {
            Ok(()) => break,
            Err(never) if rounds == ROUNDS => panic!("{name}: {rounds} times {cases} cases show too little: {never}"),
            // A runner counts its cases from the first to the last run, so another one goes on.
            Err(_) => runner = TestRunner::new_with_rng(config.clone(), runner.new_rng()),
        }
    }
    reached.into_inner()
}

fn generator(seed: u64) -> TestRng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    TestRng::from_seed(RngAlgorithm::ChaCha, &bytes)
}

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        panic::{AssertUnwindSafe, catch_unwind},
    };

    use super::*;

    /// How many cases are drawn of a law that reaches its class in the `rare`th one, four being asked for; and whether that was enough.
    fn drawn(rare: u32) -> (u32, bool) {
        let drawn = Cell::new(0);
        let law = |_: &Vec<u8>, reached: &mut Reached| {
            drawn.set(drawn.get() + 1);
            reached.one(if drawn.get() == rare { "rare" } else { "usual" });
            Ok(())
        };
        let run = || property_of("no such law", cases(4), Some(7), 8, &["rare"], <[u8]>::to_vec, law);
        let enough = catch_unwind(AssertUnwindSafe(run)).is_ok();
        (drawn.get(), enough)
    }

    #[test]
    fn a_class_that_chance_missed_is_drawn_for_again_and_one_that_cannot_be_reached_is_an_error() {
        let round = cases(4);
        assert_eq!(drawn(1), (round, true));
        assert_eq!(drawn(2 * round + 1), (3 * round, true));
        assert_eq!(drawn(u32::MAX), (ROUNDS * round, false));
    }
}
