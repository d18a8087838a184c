//! The same tests for any model, in any crate.
//!
//! ```
//! mod tests {
//!     // `cargo test` finds four tests in this module.
//!     lm_headroom::testing::harness!(model = "demo");
//! }
//! # fn main() {}
//! ```
//!
//! The model is a folder, a hub id that is in the cache, or `demo`; `prompts = [..]` and `max_tokens = N` may follow.
//! Snapshots go to `snapshots/` of the crate, one file a model: `cargo insta review` shows how its answers changed,
//! shift by shift. A model that is not on the machine is skipped, and the test says so.

use std::{env, path::PathBuf, sync::Arc};

use arbitrary::Unstructured;

use super::{
    model::{self, Model, ModelError, PROMPTS},
    oracles::{
        Reached,
        perturb::{Perturbations, perturb},
        trie,
    },
    property::property_of,
    skipped,
    snapshot::{self, CPU_BOUND, Sheets},
};
use crate::{
    edit::Edit,
    search::verify::verify,
    subject::{Prompt, Subject},
};

/// Tests of one model, in the module where this stands; see [`mod@crate::testing::harness`].
#[doc(hidden)]
#[macro_export]
macro_rules! __harness {
    (model = $model:expr $(, prompts = $prompts:expr)? $(, max_tokens = $max_tokens:expr)? $(,)?) => {
        fn under_test() -> $crate::testing::harness::UnderTest {
            let snapshots = concat!(env!("CARGO_MANIFEST_DIR"), "/snapshots");
            $crate::testing::harness::UnderTest::new($model, snapshots)
                $(.prompts(&$prompts))? $(.max_tokens($max_tokens))?
        }

        #[test]
        fn every_way_of_restoring_the_head_restores_it() {
            under_test().restores();
        }

        #[test]
        fn perturbations_measured_without_writing_are_measured_after_writing() {
            under_test().perturbs();
        }

        #[test]
        fn trials_in_waves_are_trials_alone() {
            under_test().waves();
        }

        #[test]
        fn the_answers_at_each_shift_are_those_of_the_snapshot() {
            under_test().snapshot(|name, sheet| $crate::testing::insta::assert_snapshot!(name, sheet));
        }
    };
}

/// Which model, or why there is none.
#[derive(Clone, Debug)]
pub enum Named {
    /// By this name; where it is not on the machine, its tests are skipped.
    IfPresent(String),
    /// By this name, which somebody asked for: it must be there.
    Required(String),
    /// Nobody named one, for this reason.
    Absent(String),
}

impl From<&str> for Named {
    fn from(name: &str) -> Self {
        Self::IfPresent(name.to_owned())
    }
}

impl From<String> for Named {
    fn from(name: String) -> Self {
        Self::IfPresent(name)
    }
}

/// The model that an environment variable names.
pub fn from_env(variable: &str) -> Named {
    match env::var(variable) {
        Ok(name) if !name.is_empty() => Named::Required(name),
        _ => Named::Absent(format!("{variable} names no model")),
    }
}

/// A model under test.
#[derive(Debug)]
pub struct UnderTest {
    model: Named,
    snapshots: PathBuf,
    prompts: Vec<String>,
    max_tokens: usize,
}

impl UnderTest {
    /// `model`, with [`PROMPTS`] and 16 tokens each, and its snapshots in the folder `snapshots`.
    pub fn new(model: impl Into<Named>, snapshots: impl Into<PathBuf>) -> Self {
        let prompts = PROMPTS.map(str::to_owned).to_vec();
        Self { model: model.into(), snapshots: snapshots.into(), prompts, max_tokens: 16 }
    }

    /// Other prompts; the first one is also asked where one is enough.
    #[must_use]
    pub fn prompts(mut self, prompts: &[&str]) -> Self {
        self.prompts = prompts.iter().map(|&prompt| prompt.to_owned()).collect();
        self
    }

    /// Tokens of an answer at most.
    #[must_use]
    pub const fn max_tokens(mut self, max_tokens: usize) -> Self {
        self.max_tokens = max_tokens;
        self
    }

    /// The model; `None` where it is not here, which is said.
    fn open(&self, what: &str) -> Option<Subject> {
        // The tests of a model run beside one another.
        let threads = std::thread::available_parallelism().map_or(1, usize::from).div_ceil(4);
        let (name, required) = match &self.model {
            Named::Absent(why) => {
                skipped(what, why);
                return None;
            }
            Named::IfPresent(name) => (name, false),
            Named::Required(name) => (name, true),
        };
        match model::subject(name, threads) {
            Ok(subject) => Some(subject),
            Err(ModelError::Absent(why)) if !required => {
                skipped(&format!("{what} of {name}"), &why);
                None
            }
            Err(error) => panic!("cannot test {name}: {error}"),
        }
    }

    fn asked(&self, subject: &Subject) -> Vec<Prompt> {
        let prompt = |text: &String| subject.prompt(text, Vec::new(), &Default::default());
        let prompts: Result<Vec<_>, _> = self.prompts.iter().map(prompt).collect();
        prompts.unwrap_or_else(|error| panic!("{}: {error}", subject.name()))
    }

    /// Every way of restoring the head, as `headroom verify` exercises it.
    ///
    /// # Panics
    /// If one does not restore, or the model cannot be run.
    pub fn restores(&self) {
        let Some(subject) = self.open("restoring the head") else { return };
        let checks = verify(&subject, &self.asked(&subject)[..1], 4, 0, |_| ());
        let checks = checks.unwrap_or_else(|error| panic!("{}: {error}", subject.name()));
        let failed: Vec<_> = checks.iter().filter(|check| !check.holds).collect();
        assert!(!checks.is_empty() && failed.is_empty(), "{}: {failed:#?}", subject.name());
    }

    /// Random perturbations of codes, scales and biases of the head: laws 2 and 3.
    ///
    /// # Panics
    /// If a law does not hold, or the model cannot be run.
    pub fn perturbs(&self) {
        let Some(subject) = self.open("perturbations") else { return };
        let (layout, name) = (*subject.head().layout(), snapshot::name(subject.name()));
        // Each case reads the whole head a few times.
        let bytes = layout.rows() * layout.weight_row_bytes();
        let cases = ((64 << 20) / bytes.max(1)).clamp(2, 32) as u32;
        let prompts = self.prompts.first().map(String::as_str);
        let model = Model::new(subject, prompts.as_slice(), 4).unwrap_or_else(|error| panic!("{name}: {error}"));
        let model = std::cell::RefCell::new(model);
        let draw = |bytes: &[u8]| Perturbations::of(&mut Unstructured::new(bytes), &layout).expect("all bytes");
        let law = |case: &Perturbations, reached: &mut Reached| perturb(&mut model.borrow_mut(), &case.edits, reached);
        property_of(&format!("perturb-{name}"), cases, 128, &["rows replaced"], draw, law);
    }

    /// A few edits on one prompt, together and alone: law 6.
    ///
    /// # Panics
    /// If the law does not hold, or the model cannot be run.
    pub fn waves(&self) {
        let Some(subject) = self.open("trials in waves") else { return };
        let ids = [self.asked(&subject)[0].ids.clone()];
        let edits = ["shift:1000001", "shift:1+set:word[0,0]=0x0"];
        let edits = edits.map(|text| text.parse::<Edit>().expect("an edit"));
        let setting = trie::Setting { eos: subject.eos(), max_tokens: 3, shared: false };
        let mut reached = Reached::default();
        trie::waves(&Arc::clone(subject.checkpoint()), subject.kernel(), &ids, &edits, &setting, &mut reached)
            .unwrap_or_else(|violation| panic!("{}: {violation}", subject.name()));
        assert!(reached.total() >= 2, "{reached}");
    }

    /// The answers at each documented shift, for `assert` to hold against the snapshot of this name.
    ///
    /// # Panics
    /// If the model cannot be run; what `assert` does otherwise.
    pub fn snapshot(&self, assert: impl FnOnce(&str, String)) {
        let Some(subject) = self.open("the snapshot") else { return };
        let sheet = snapshot::sheet(&subject, &self.asked(&subject), self.max_tokens);
        let sheet = sheet.unwrap_or_else(|error| panic!("{}: {error}", subject.name()));
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path(&self.snapshots);
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.set_comparator(Box::new(Sheets { bound: CPU_BOUND }));
        settings.bind(|| assert(&snapshot::name(subject.name()), sheet));
    }
}
