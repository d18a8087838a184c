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
//! The model is a folder, a hub id that is in the cache, or `demo`. Other arguments may follow, in any order:
//!
//! | argument | example | what it is | default |
//! | --- | --- | --- | --- |
//! | `prompts` | `prompts = ["Name a color."]` | what is asked; the first one also where one is enough | [`PROMPTS`] |
//! | `max_tokens` | `max_tokens = 8` | tokens of an answer at most | 16 |
//! | `backend` | `backend = Backend::MlxFloat32` | what runs body and head, see [`Backend`] | `Backend::Cpu` |
//! | `tied` | `tied = Tied::Shared` | whether edits of a tied matrix reach the embedding, see [`Tied`] | `Tied::Separate` |
//! | `seed` | `seed = 7` | seed of every random edit | 0 for restorations; other perturbations in each run |
//! | `cases` | `cases = 100` | perturbations that are drawn | as many as read 64 MiB of packed words: 2 to 32 |
//!
//! ```
//! # fn main() {}
//! mod demo_in_short {
//!     use lm_headroom::testing::harness::{Backend, Tied};
//!
//!     lm_headroom::testing::harness!(
//!         model = "demo",
//!         cases = 8,
//!         seed = 7,
//!         backend = Backend::Cpu,
//!         tied = Tied::Separate,
//!         prompts = ["What is 2+2?"],
//!         max_tokens = 8,
//!     );
//! }
//! ```
//!
//! Snapshots go to `snapshots/` of the crate, one file for a model (and for a backend, or a tying, that is not the
//! default): `cargo insta review` shows how its answers changed, shift by shift. A model that is not on the machine is
//! skipped, and the test says so.
//!
//! # Optimization
//!
//! Tests run whole models, and Cargo's default profile for tests does not optimize arithmetic: a model of 135 million
//! parameters then takes minutes in place of seconds. The harness says so on stderr where it finds itself compiled that
//! way. These lines in the `Cargo.toml` of a crate (of a workspace: the outermost one) optimize what it depends on, and
//! leave the crate itself as it is:
//!
//! ```toml
//! [profile.dev.package."*"]
//! opt-level = 1
//! ```

use std::{
    env,
    hint::black_box,
    io::Write,
    path::PathBuf,
    sync::{Arc, Once},
    time::{Duration, Instant},
};

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
#[cfg(feature = "mlx")]
use crate::model::{BodyError, Mlx};
use crate::{
    edit::Edit,
    model::Precision,
    search::verify,
    subject::{Prompt, Subject},
    tokenizer::{Clock, Encoding},
};

/// The date that chat templates of a model under test are told where they ask for it.
pub const DATE: &str = "2024-07-26";

/// Tests of one model, in the module where this stands; see [`mod@crate::testing::harness`].
#[doc(hidden)]
#[macro_export]
macro_rules! __harness {
    (model = $model:expr $(, $argument:ident = $value:expr)* $(,)?) => {
        fn under_test() -> $crate::testing::harness::UnderTest {
            let snapshots = concat!(env!("CARGO_MANIFEST_DIR"), "/snapshots");
            $crate::testing::harness::UnderTest::new($model, snapshots) $(.$argument($value))*
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

/// The model under test, or the reason why there is none.
#[derive(Clone, Debug)]
pub enum Named {
    /// A model by its name; its tests are skipped if it is not on the machine.
    IfPresent(String),
    /// A model that the user asked for by name, which must be on the machine.
    Required(String),
    /// No model was named, for this reason.
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

/// What runs body and head of the model under test.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    /// The kernels of this crate.
    #[default]
    Cpu,
    /// MLX in the checkpoint's own type, as mlx-lm runs it. Needs the feature `mlx`. The laws that equate bits of the
    /// CPU's kernels (perturbations, waves) say that they are skipped.
    Mlx,
    /// MLX in float32; otherwise as [`Backend::Mlx`].
    MlxFloat32,
    /// An installed mlx-lm computes the body, in the checkpoint's own type, and this crate's kernels the head. Tests say that
    /// they are skipped where the Python that `HEADROOM_PYTHON` names, else `python3`, has none.
    MlxLm,
    /// The same in float32.
    MlxLmFloat32,
}

/// What edits of a matrix reach that is head and embedding at once. A head that is a matrix of its own is not concerned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tied {
    /// A copy that is used as the head alone.
    #[default]
    Separate,
    /// Both.
    Shared,
}

/// A model under test.
#[derive(Clone, Debug)]
pub struct UnderTest {
    model: Named,
    snapshots: PathBuf,
    prompts: Vec<String>,
    date: Clock,
    max_tokens: usize,
    backend: Backend,
    tied: Tied,
    seed: Option<u64>,
    cases: Option<u32>,
}

impl UnderTest {
    /// `model`, with [`PROMPTS`] and 16 tokens each, and its snapshots in the folder `snapshots`.
    pub fn new(model: impl Into<Named>, snapshots: impl Into<PathBuf>) -> Self {
        Self {
            model: model.into(),
            snapshots: snapshots.into(),
            prompts: PROMPTS.map(str::to_owned).to_vec(),
            date: Clock::parse(DATE).expect("a date"),
            max_tokens: 16,
            backend: Backend::default(),
            tied: Tied::default(),
            seed: None,
            cases: None,
        }
    }

    /// Other prompts; the first one is also asked where one is enough.
    #[must_use]
    pub fn prompts(mut self, prompts: impl IntoIterator<Item: AsRef<str>>) -> Self {
        self.prompts = prompts.into_iter().map(|prompt| prompt.as_ref().to_owned()).collect();
        self
    }

    /// Tokens of an answer at most.
    #[must_use]
    pub const fn max_tokens(mut self, max_tokens: usize) -> Self {
        self.max_tokens = max_tokens;
        self
    }

    /// The date for chat templates that ask for it: [`DATE`], if nothing is said, and never today's, so that a snapshot holds
    /// on every day.
    #[must_use]
    pub fn date(mut self, date: Clock) -> Self {
        self.date = date;
        self
    }

    /// What runs body and head.
    #[must_use]
    pub const fn backend(mut self, backend: Backend) -> Self {
        self.backend = backend;
        self
    }

    /// What edits of a tied matrix reach.
    #[must_use]
    pub const fn tied(mut self, tied: Tied) -> Self {
        self.tied = tied;
        self
    }

    /// Seed of every random edit. Without one restorations take 0, and each run draws other perturbations.
    #[must_use]
    pub const fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// How many perturbations are drawn. `PROPTEST_CASES`, where it is set, goes before it.
    #[must_use]
    pub const fn cases(mut self, cases: u32) -> Self {
        self.cases = Some(cases);
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
        say_if_not_optimized();
        let opened = match self.backend {
            Backend::MlxLm => model::subject_on_mlx_lm(name, threads, Precision::Native),
            Backend::MlxLmFloat32 => model::subject_on_mlx_lm(name, threads, Precision::Float32),
            Backend::Cpu | Backend::Mlx | Backend::MlxFloat32 => model::subject(name, threads),
        };
        match opened {
            Ok(subject) => {
                let subject = subject.with_shared_embedding(self.tied == Tied::Shared);
                Some(on(subject, self.backend).unwrap_or_else(|why| panic!("cannot test {name}: {why}")))
            }
            Err(ModelError::Absent(why)) if !required => {
                skipped(&format!("{what} of {name}"), &why);
                None
            }
            Err(error) => panic!("cannot test {name}: {error}"),
        }
    }

    /// As [`UnderTest::open`], for what equates bits of the CPU's kernels.
    fn open_on_cpu(&self, what: &str) -> Option<Subject> {
        if self.backend != Backend::Cpu {
            skipped(what, "it equates bits of the CPU's kernels, and another backend has others");
            return None;
        }
        self.open(what)
    }

    fn asked(&self, subject: &Subject) -> Vec<Prompt> {
        let encoding = Encoding { clock: self.date.clone(), ..Encoding::default() };
        let texts: Vec<&str> = self.prompts.iter().map(String::as_str).collect();
        let prompts: Result<Vec<_>, _> = subject.prompts_as(&texts, &encoding).into_iter().collect();
        prompts.unwrap_or_else(|error| panic!("{}: {error}", subject.name()))
    }

    /// Every way of restoring the head, as `headroom verify` exercises it.
    ///
    /// # Panics
    /// If one does not restore, or the model cannot be run.
    pub fn restores(&self) {
        let Some(subject) = self.open("restoring the head") else { return };
        let checks = verify(&subject, &self.asked(&subject)[..1], 4, self.seed.unwrap_or(0), |_| ());
        let checks = checks.unwrap_or_else(|error| panic!("{}: {error}", subject.name()));
        let failed: Vec<_> = checks.iter().filter(|check| !check.holds).collect();
        assert!(!checks.is_empty() && failed.is_empty(), "{}: {failed:#?}", subject.name());
    }

    /// Random perturbations of codes, scales and biases of the head: laws 2 and 3.
    ///
    /// # Panics
    /// If a law does not hold, or the model cannot be run.
    pub fn perturbs(&self) {
        let Some(subject) = self.open_on_cpu("perturbations") else { return };
        let (layout, name) = (*subject.head().layout(), snapshot::name(subject.name()));
        // Each case reads the whole head a few times.
        let bytes = layout.rows() * layout.weight_row_bytes();
        let cases = self.cases.unwrap_or(((64 << 20) / bytes.max(1)).clamp(2, 32) as u32);
        let prompts = self.prompts.first().map(String::as_str);
        let model = Model::new(subject, prompts.as_slice(), 4).unwrap_or_else(|error| panic!("{name}: {error}"));
        let model = std::cell::RefCell::new(model);
        let draw = |bytes: &[u8]| Perturbations::of(&mut Unstructured::new(bytes), &layout).expect("all bytes");
        let law = |case: &Perturbations, reached: &mut Reached| perturb(&mut model.borrow_mut(), &case.edits, reached);
        property_of(&format!("perturb-{name}"), cases, self.seed, 128, &["rows replaced"], draw, law);
    }

    /// A few edits on one prompt, together and alone: law 6.
    ///
    /// # Panics
    /// If the law does not hold, or the model cannot be run.
    pub fn waves(&self) {
        let Some(subject) = self.open_on_cpu("trials in waves") else { return };
        let ids = [self.asked(&subject)[0].ids.clone()];
        let edits = ["shift:1000001", "shift:1+set:word[0,0]=0x0"];
        let edits = edits.map(|text| text.parse::<Edit>().expect("an edit"));
        let setting = trie::Setting { eos: subject.eos(), max_tokens: 3, shared: subject.shared() };
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
        let mut name = snapshot::name(subject.name());
        if subject.shared() {
            name += "-shared";
        }
        if self.backend != Backend::Cpu {
            // Another type or device is another sheet.
            name = format!("{name}-{}", subject.backend().kernel());
        }
        settings.bind(|| assert(&name, sheet));
    }
}

/// `subject` as `backend` runs it.
#[cfg(feature = "mlx")]
fn on(subject: Subject, backend: Backend) -> Result<Subject, BodyError> {
    let precision = match backend {
        Backend::Cpu | Backend::MlxLm | Backend::MlxLmFloat32 => return Ok(subject),
        Backend::Mlx => Precision::Native,
        Backend::MlxFloat32 => Precision::Float32,
    };
    let mlx = Mlx::load(Arc::clone(subject.checkpoint()), precision)?;
    Ok(subject.with_backend(Arc::new(mlx)))
}

/// `subject` as `backend` runs it.
#[cfg(not(feature = "mlx"))]
fn on(subject: Subject, backend: Backend) -> Result<Subject, &'static str> {
    match backend {
        Backend::Cpu | Backend::MlxLm | Backend::MlxLmFloat32 => Ok(subject),
        Backend::Mlx | Backend::MlxFloat32 => {
            Err("lm-headroom was built without its MLX backend; enable its feature `mlx`")
        }
    }
}

/// Says once on stderr that tests will take long, where arithmetic is not optimized.
fn say_if_not_optimized() {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        if !is_optimized() {
            // Where stderr is closed there is nobody to tell.
            drop(std::io::stderr().write_all(
                b"SLOW lm-headroom is compiled without optimization, so that tests of a real model take minutes; add to \
                  Cargo.toml: [profile.dev.package.\"*\"] opt-level = 1\n",
            ));
        }
    });
}

/// Whether the compiler optimized this crate. No cfg tells: `debug_assertions` is another switch. So it is measured, on a
/// loop whose result has a closed form: a compiler that optimizes takes no time for it, one that does not takes
/// milliseconds, thousands of times as long.
pub fn is_optimized() -> bool {
    let once = || {
        let (start, end) = (Instant::now(), black_box(1_000_000_u64));
        let mut sum = 0_u64;
        let mut i = 0;
        while i < end {
            sum = sum.wrapping_add(i);
            i += 1;
        }
        black_box(sum);
        start.elapsed()
    };
    // The best of a few: another process may take the core in any one.
    (0..5).map(|_| once()).min() < Some(Duration::from_micros(100))
}
