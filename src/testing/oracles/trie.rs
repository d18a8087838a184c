//! Law 6: trials through the trie in waves = each trial alone from scratch = prefill of the whole text, to the bit.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use arbitrary::{Arbitrary, Result, Unstructured};
use serde::{Deserialize, Serialize};

use super::{Case, LawResult, Reached, claim, with_native_families};
use crate::{
    checkpoint::{
        Checkpoint, Family,
        architecture::AfterHead,
        family::{self, NATIVE},
    },
    coherence::Finish,
    edit::{Change, Edit, Plan},
    head::Head,
    kernels::{Kernel, scalar},
    model::{Body, CpuProjection, Decoder, Parent, Projection, Query, Step, projection::margin},
    quant::{FloatType, MatrixRef, Tensor},
    testing::{
        comparators::same_bits,
        fixture::Fixture,
        heads::team,
        strategies::{
            choose,
            edits::{as_text, edit},
            one_in, some,
        },
    },
    trial::{Task, Trial, Trials, Tying},
};

const LAW: u8 = 6;

/// Prompts and edits that are run together on a small random model.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Waves {
    /// Name of the model's family.
    #[serde(default = "llama")]
    pub family: String,
    /// Seed of the model.
    pub model: u64,
    /// Whether its head is its embedding, and edits reach both.
    pub shared: bool,
    /// Token ids, below 96.
    pub prompts: Vec<Vec<u32>>,
    /// Each on each prompt.
    #[serde(with = "as_text")]
    pub edits: Vec<Edit>,
    /// Tokens that end an answer.
    pub eos: Vec<u32>,
    /// Tokens to generate at most, at least 1.
    pub max_tokens: usize,
}

/// The family of what was stored before there were others.
fn llama() -> String {
    family::LLAMA.name.to_owned()
}

/// The model of a [`Waves`]. Few different ones are asked for, and each is made once.
///
/// # Panics
/// Never: the fixture is a possible model.
pub fn model(family: &'static Family, seed: u64, tied: bool) -> Arc<Checkpoint> {
    type Models = BTreeMap<(&'static str, u64, bool), Arc<Checkpoint>>;
    static MODELS: Mutex<Models> = Mutex::new(BTreeMap::new());
    let mut models = MODELS.lock().unwrap_or_else(PoisonError::into_inner);
    let open = || {
        let tie_word_embeddings = Some(tied);
        // Some that nobody chooses, one, and all that there are.
        let (num_experts, num_experts_per_tok) = [(6, 2), (4, 4), (1, 1), (16, 3), (2, 1), (8, 2)][seed as usize % 6];
        let of_experts = Fixture { num_experts, num_experts_per_tok, ..Fixture::default() };
        let fixture = Fixture { family, seed, tie_word_embeddings, num_hidden_layers: 3, ..of_experts };
        Arc::new(Checkpoint::from_files(fixture.files()).expect("a checkpoint"))
    };
    Arc::clone(models.entry((family.name, seed, tied)).or_insert_with(open))
}

impl<'a> Arbitrary<'a> for Waves {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let (seed, shared) = (u.int_in_range(0..=5)?, one_in(u, 3)?);
        let family = choose(u, &NATIVE)?;
        let shared = family.may_be_tied(shared);
        let max_tokens = u.int_in_range(1..=8)?;
        let eos = choose(u, &[&[2, 5][..], &[], &[2, 5, 7, 9, 11, 13, 17, 19, 23, 29]])?.to_vec();
        let checkpoint = model(family, seed, shared);
        let head = checkpoint.head().view();
        let edits = some(u, 1, 4, |u| {
            let edit = edit(u, head.layout(), 4)?;
            if !one_in(u, 8)? {
                return Ok(edit);
            }
            let row = u.int_in_range(0..=head.layout().rows() - 1)?;
            Ok(edit.then(&break_a_scale(&head, row)))
        })?;
        // Few tokens, so that prompts share prefixes, and one token follows several.
        let prompts = some(u, 1, 3, |u| some(u, 1, 7, |u| choose(u, &[1, 7, 9, 30])))?;
        Ok(Self { family: family.name.to_owned(), model: seed, shared, prompts, edits, eos, max_tokens })
    }
}

/// Flips of those exponent bits of the first scale of a row that are zero: it becomes infinite or NaN, which random
/// flips hardly ever make of it.
///
/// # Panics
/// If the head's scales are not float16, or it has no such row.
pub fn break_a_scale(head: &MatrixRef<'_>, row: usize) -> Edit {
    assert_eq!(head.layout().scale_type(), FloatType::F16, "bits 10 to 14 are the exponent");
    let at = row * head.layout().scale_row_bytes();
    let scale = u16::from_le_bytes([head.scales()[at], head.scales()[at + 1]]);
    let flip = |bit| Change::Flip { tensor: Tensor::Scales, row, column: 0, bit };
    Edit::new((10..15).filter(|bit| scale >> bit & 1 == 0).map(flip).collect())
}

impl Case for Waves {
    const NAME: &'static str = "trie";
    const CLASSES: &'static [&'static str] =
        &with_native_families::<{ 5 + NATIVE.len() }>(&["stop", "length", "nonfinite", "prefill", "shared embedding"]);
    const ENTROPY: usize = 192;

    fn check(&self, reached: &mut Reached) -> LawResult {
        let family = family::named(&self.family).expect("a stored case names a native family");
        let checkpoint = model(family, self.model, self.shared);
        reached.one(family.name);
        let setting = Setting { eos: &self.eos, max_tokens: self.max_tokens, shared: self.shared };
        waves(&checkpoint, Kernel::best(), &self.prompts, &self.edits, &setting, reached)
    }
}

/// How answers are generated.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    /// Tokens that end an answer.
    pub eos: &'a [u32],
    /// Tokens to generate at most, at least 1.
    pub max_tokens: usize,
    /// Whether edits reach the embedding, too.
    pub shared: bool,
}

/// What was chosen at each step.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    /// Generated tokens, without the eos.
    pub tokens: Vec<u32>,
    /// Best minus second logit, one a step, the eos step included.
    pub margin: Vec<f32>,
    /// Why it ended.
    pub finish: Finish,
}

/// The law for every edit on every prompt.
///
/// # Errors
/// The violation.
///
/// # Panics
/// If an edit does not fit the head, or a token is beyond the vocabulary.
pub fn waves(
    checkpoint: &Arc<Checkpoint>,
    kernel: Kernel,
    prompts: &[Vec<u32>],
    edits: &[Edit],
    setting: &Setting<'_>,
    reached: &mut Reached,
) -> LawResult {
    let trials = together(checkpoint, kernel, prompts, edits, setting);
    claim!(
        LAW,
        trials.len() == prompts.len() * edits.len(),
        "every edit is run on every prompt",
        "{} trials",
        trials.len()
    );
    for trial in trials {
        let (prompt, edit) = (&prompts[trial.prompt], &edits[trial.edit]);
        let found = Answer {
            tokens: trial.trajectory.tokens,
            margin: trial.trajectory.margin,
            finish: trial.trajectory.finish,
        };
        let mut alone = Alone::new(checkpoint, kernel, edit, setting.shared);
        let expected = alone.answer(prompt, setting);
        let same = |a: &Answer, b: &Answer| {
            (&a.tokens, a.finish) == (&b.tokens, b.finish) && same_bits(&a.margin, &b.margin).is_ok()
        };
        claim!(
            LAW,
            same(&found, &expected),
            "a trial in waves is the trial alone, to the bit",
            "{edit} on {prompt:?}: {found:?}, not {expected:?}"
        );
        let prefilled = alone.prefill(prompt, &found, setting);
        claim!(
            LAW,
            same(&prefilled, &found),
            "a trial is the prefill of its whole text, to the bit",
            "{edit} on {prompt:?}: {found:?}, not {prefilled:?}"
        );
        reached.one_if(found.tokens.len() > 1, "prefill");
        reached.one_if(setting.shared, "shared embedding");
        reached.one(match found.finish {
            Finish::Stop => "stop",
            Finish::Length => "length",
            Finish::Nonfinite => "nonfinite",
        });
    }
    Ok(())
}

/// All trials in one run, measured without writing.
fn together(
    checkpoint: &Arc<Checkpoint>,
    kernel: Kernel,
    prompts: &[Vec<u32>],
    edits: &[Edit],
    setting: &Setting<'_>,
) -> Vec<Trial> {
    let team = team(2);
    let body = Decoder::new(Arc::clone(checkpoint), kernel, Arc::clone(team));
    let head = checkpoint.head().view();
    let after = checkpoint.after_head();
    let mut projection = CpuProjection::new(head, kernel, team).with(&after);
    let plans: Vec<Plan> = edits.iter().map(|edit| edit.plan(&head).expect("it fits")).collect();
    let tying = if setting.shared { Tying::Shared(head) } else { Tying::Separate };
    let prompts = prompts.iter().map(Vec::as_slice).collect();
    let task = Task { prompts, eos: setting.eos, max_tokens: setting.max_tokens, tying };
    Trials::new(body, kernel, team, task).all(&mut projection, &plans).expect("tokens of the vocabulary")
}

/// One edit written into a head, and a body that shares nothing with any other.
struct Alone {
    body: Decoder,
    kernel: Kernel,
    head: Head,
    after: AfterHead,
    edit: Edit,
    shared: bool,
}

impl Alone {
    fn new(checkpoint: &Arc<Checkpoint>, kernel: Kernel, edit: &Edit, shared: bool) -> Self {
        let body = Decoder::new(Arc::clone(checkpoint), kernel, Arc::clone(team(1)));
        let head = Head::private(checkpoint.head(), Arc::clone(team(1))).expect("memory is always mapped");
        Self { body, kernel, head, after: checkpoint.after_head(), edit: edit.clone(), shared }
    }

    /// One position at a time.
    fn answer(&mut self, prompt: &[u32], setting: &Setting<'_>) -> Answer {
        let applied = self.head.apply(&self.edit).expect("it fits");
        let mut stage = Stage { matrix: applied.view(), kernel: self.kernel, after: &self.after, shared: self.shared };
        let (mut parent, mut hidden) = (Parent::Start, Vec::new());
        for &token in prompt {
            (parent, hidden) = stage.push(&mut self.body, token, parent);
        }
        let mut answer = Answer { tokens: Vec::new(), margin: Vec::new(), finish: Finish::Length };
        while answer.take(stage.top(&hidden), setting) {
            let token = *answer.tokens.last().expect("a token was taken");
            (parent, hidden) = stage.push(&mut self.body, token, parent);
        }
        answer
    }

    /// Prompt and answer in one call; what would have been chosen after each prefix.
    fn prefill(&mut self, prompt: &[u32], found: &Answer, setting: &Setting<'_>) -> Answer {
        let applied = self.head.apply(&self.edit).expect("it fits");
        let mut stage = Stage { matrix: applied.view(), kernel: self.kernel, after: &self.after, shared: self.shared };
        let text: Vec<u32> = prompt.iter().chain(&found.tokens).copied().collect();
        let embeddings: Vec<Option<Vec<f32>>> = text.iter().map(|&token| stage.embedding(token)).collect();
        let steps: Vec<Step<'_>> = text
            .iter()
            .zip(&embeddings)
            .enumerate()
            .map(|(i, (&token, embedding))| Step {
                token,
                parent: if i == 0 { Parent::Start } else { Parent::Step(i - 1) },
                hidden: i + 1 >= prompt.len(),
                embedding: embedding.as_deref(),
                row: None,
            })
            .collect();
        let hidden = self.body.extend(&steps).expect("tokens of the vocabulary").hidden;
        let mut answer = Answer { tokens: Vec::new(), margin: Vec::new(), finish: Finish::Length };
        for hidden in hidden.chunks_exact(stage.matrix.layout().cols()) {
            if !answer.take(stage.top(hidden), setting) {
                break;
            }
        }
        answer
    }
}

/// An edited head, and how it is used.
struct Stage<'a> {
    matrix: MatrixRef<'a>,
    kernel: Kernel,
    after: &'a AfterHead,
    shared: bool,
}

impl Stage<'_> {
    fn embedding(&self, token: u32) -> Option<Vec<f32>> {
        self.shared.then(|| {
            let mut row = vec![0.0; self.matrix.layout().cols()];
            scalar::dequantize_row(&self.matrix, 0, token as usize, &mut row);
            row
        })
    }

    fn push(&self, body: &mut Decoder, token: u32, parent: Parent) -> (Parent, Vec<f32>) {
        let embedding = self.embedding(token);
        let step = Step { token, parent, hidden: true, embedding: embedding.as_deref(), row: None };
        let extension = body.extend(&[step]).expect("a token of the vocabulary");
        (Parent::Slot(extension.slots[0]), extension.hidden)
    }

    fn top(&mut self, hidden: &[f32]) -> Option<(usize, f32)> {
        let mut logits = vec![0.0; self.matrix.layout().rows()];
        CpuProjection::new(self.matrix, self.kernel, team(1))
            .with(self.after)
            .logits(vec![Query { shift: 0, hidden: vec![hidden], out: &mut logits }])
            .expect("a head on the CPU does not fail");
        // The choice is made before the curve, and the margin is of what comes after it.
        let top = self.kernel.top(&logits)?;
        Some((top.token, margin(self.kernel, self.after.curve, top)))
    }
}

impl Answer {
    /// Takes the choice of a step; false where the answer ends with it.
    fn take(&mut self, top: Option<(usize, f32)>, setting: &Setting<'_>) -> bool {
        let Some((token, margin)) = top else {
            self.finish = Finish::Nonfinite;
            return false;
        };
        self.margin.push(margin);
        let token = token as u32;
        if setting.eos.contains(&token) {
            self.finish = Finish::Stop;
            return false;
        }
        self.tokens.push(token);
        self.tokens.len() < setting.max_tokens
    }
}
