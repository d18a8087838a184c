//! A whole model as the thing under test: opened once, with its clean answers, for all cases of a run.

use std::{cell::RefCell, fmt, path::PathBuf, sync::Arc};

use blake3::Hash;

use crate::{
    checkpoint::{
        CheckpointError, demo,
        hub::{HubError, HubSettings, ModelName, ModelNameError},
    },
    edit::Plan,
    head::{Head, HeadError},
    kernels::Kernel,
    model::{AnyBody, BodyError, Precision, mlx_lm},
    subject::{self, Prompt, Subject},
    team::Team,
    tokenizer::TokenizerError,
    trial::{Task, Trajectory, Trial, Trials, Tying},
};

/// What is asked where nothing else is said: the notebook's prompt first.
pub const PROMPTS: [&str; 6] = [
    crate::seed::PROMPT,
    "What is the capital of France?",
    "What is the opposite of hot?",
    "What day comes after Monday?",
    "Name a color.",
    "How do you spell cat?",
];

/// Why a model cannot be tested.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// It is not on this machine. Tests of it are skipped, and say so.
    #[error("{0}")]
    Absent(String),
    /// Its name is no name of a model.
    #[error(transparent)]
    Name(#[from] ModelNameError),
    /// The hub's cache, or the hub.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// It does not open.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Its tokenizer is broken, or cannot encode a prompt.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Its head cannot be copied.
    #[error(transparent)]
    Head(#[from] HeadError),
    /// It cannot be run.
    #[error(transparent)]
    Body(#[from] BodyError),
}

/// Opens a model by its name: a folder, `demo`, or a hub id whose files are in the cache. Nothing is downloaded.
///
/// # Errors
/// [`ModelError`]; [`ModelError::Absent`] where there is no such folder or the cache does not hold the model.
pub fn subject(name: &str, threads: usize) -> Result<Subject, ModelError> {
    let (folder, revision) = locate(name)?;
    let checkpoint = subject::open(folder.as_deref())?;
    Ok(Subject::new(name.to_owned(), revision, checkpoint, Kernel::best(), Arc::new(Team::new(threads)))?)
}

/// As [`subject()`], with the body computed by the mlx-lm of the Python that `HEADROOM_PYTHON` names, else `python3`.
///
/// # Errors
/// [`ModelError`]; [`ModelError::Absent`] also where there is no such Python, or it has no mlx-lm that serves.
pub fn subject_on_mlx_lm(name: &str, threads: usize, precision: Precision) -> Result<Subject, ModelError> {
    let (folder, revision) = locate(name)?;
    let options = mlx_lm::Options { precision, ..mlx_lm::Options::default() };
    let python = mlx_lm::Python::start(options).map_err(|error| ModelError::Absent(error.to_string()))?;
    let team = Arc::new(Team::new(threads));
    let opened = python.open(folder.as_deref(), Kernel::best(), Arc::clone(&team));
    let (checkpoint, model) = opened.map_err(BodyError::from)?;
    let subject = Subject::new(name.to_owned(), revision, checkpoint, Kernel::best(), team)?;
    Ok(subject.with_backend(Arc::new(model)))
}

/// The folder of a model, none for the one inside the program, and its revision.
fn locate(name: &str) -> Result<(Option<PathBuf>, Option<String>), ModelError> {
    Ok(match ModelName::parse(name)? {
        ModelName::Demo => (None, None),
        ModelName::Folder(folder) => {
            if !folder.exists() {
                return Err(ModelError::Absent(format!("there is no folder {}", folder.display())));
            }
            (Some(folder), None)
        }
        ModelName::Hub(model) => {
            let Some(found) = model.cached(&HubSettings::from_env()?) else {
                let id = model.id();
                return Err(ModelError::Absent(format!(
                    "{id} is not in the Hugging Face cache; `headroom pull {id}` fetches it"
                )));
            };
            (Some(found.folder), Some(found.revision))
        }
    })
}

/// The folder of one of the reference checkpoints, which are wherever `HEADROOM_MODELS` says, or `HEADROOM_GEMMA`: recipes put
/// SmolLM2 and Gemma into folders of their own.
///
/// # Errors
/// Why there is none, for a test that is skipped.
pub fn reference_folder(name: &str) -> Result<PathBuf, String> {
    let folder = |variable| std::env::var_os(variable).map(|folder| PathBuf::from(folder).join(name));
    let mut folders = ["HEADROOM_MODELS", "HEADROOM_GEMMA"].into_iter().filter_map(folder);
    let found = folders.find(|folder| folder.join("config.json").exists());
    found.ok_or_else(|| format!("neither HEADROOM_MODELS nor HEADROOM_GEMMA names a folder that holds {name}"))
}

/// The clean answers to prompts given as ids, and the trials of every plan on each of them.
///
/// # Errors
/// [`BodyError`].
///
/// # Panics
/// As [`Trials::new`].
pub fn answers(
    subject: &Subject,
    prompts: &[Vec<u32>],
    plans: &[Plan],
    max_tokens: usize,
) -> Result<(Vec<Trajectory>, Vec<Trial>), BodyError> {
    let mut trials = subject.trials(prompts.iter().map(Vec::as_slice), max_tokens);
    let found = trials.all(&mut subject.projection(subject.head().view()), plans)?;
    Ok((trials.clean().cloned().collect(), found))
}

/// A model, its prompts, its clean answers and a private head, which cases borrow one after the other.
pub struct Model {
    /// The model.
    pub subject: &'static Subject,
    /// What is asked.
    pub prompts: &'static [Prompt],
    /// Runs edits on the prompts; the clean answers are known.
    pub(super) trials: Trials<'static, AnyBody>,
    /// Hidden states at each step of the clean answers.
    pub(super) hidden: Vec<Vec<f32>>,
    /// To be written and restored.
    pub(super) head: Head,
    /// Digest of the head as stored.
    pub(super) clean: Hash,
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Model({}, {} prompts)", self.subject.name(), self.prompts.len())
    }
}

impl Model {
    /// Asks `subject` each of `prompts` for at most `max_tokens` tokens. What is opened here stays in memory until
    /// the process ends: a model is the fixture of a whole run.
    ///
    /// # Errors
    /// [`ModelError`].
    ///
    /// # Panics
    /// If there is no prompt, or `max_tokens` is 0.
    pub fn new(subject: Subject, prompts: &[&str], max_tokens: usize) -> Result<Self, ModelError> {
        let subject: &'static Subject = Box::leak(Box::new(subject));
        let prompts: &'static [Prompt] =
            prompts.iter().map(|text| subject.prompt(text)).collect::<Result<Vec<_>, _>>()?.leak();
        let mut head = Head::private(subject.head(), Arc::clone(subject.team()))?;
        let clean = head.digest();
        // A tied matrix is edited as the head alone.
        let ids = prompts.iter().map(|prompt| prompt.ids.as_slice()).collect();
        let task = Task { prompts: ids, eos: subject.eos(), max_tokens, tying: Tying::Separate };
        let mut trials = Trials::new(subject.body(), subject.kernel(), subject.team(), task);
        trials.run(&mut subject.projection(subject.head().view()), &[], |_| Ok::<_, BodyError>(()))?;
        let states = |prompt| trials.clean_hidden(prompt).map(<[f32]>::to_vec).collect::<Vec<_>>();
        let hidden = (0..prompts.len()).flat_map(states).collect();
        Ok(Self { subject, prompts, trials, hidden, head, clean })
    }
}

thread_local! {
    static DEMO: RefCell<Option<Model>> = const { RefCell::new(None) };
}

/// Lends the model that ships inside, which each thread opens once.
///
/// # Panics
/// Never but where `f` does: the model inside opens.
pub fn with_demo<T>(f: impl FnOnce(&mut Model) -> T) -> T {
    DEMO.with_borrow_mut(|model| {
        let model = model.get_or_insert_with(|| {
            let subject = subject(demo::NAME, 1).expect("the model inside");
            // Few steps: a fuzzer's cases are worth more than an answer's length.
            Model::new(subject, &PROMPTS[..2], 3).expect("the model inside answers")
        });
        f(model)
    })
}
