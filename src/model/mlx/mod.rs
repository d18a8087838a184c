//! Body and head on Apple's MLX, through the crate `mlx-rs`.
//!
//! The weights are copied once, from the checkpoint's bytes as they are, into MLX's memory; there is no second reader of
//! checkpoints. Operations are those of mlx-lm, and so is the type of activations: what MLX makes of the checkpoint's
//! types, or float32 throughout ([`Precision`]).
//!
//! # What of the traits' promises holds
//!
//! The CPU backend gives the same bits however positions are cut into calls and whatever else is in a call. MLX chooses
//! kernels by shapes, so that a prompt in one go and the same prompt token by token differ in their last bits. Here
//! they are cut as mlx-lm does it: a prompt goes in one stretch (of at most 2,048 positions) but for its last token; that
//! one, and every other position whose hidden state is wanted, goes by itself. Sequences never share an operation. So a
//! hidden state depends on its tokens and on the cut of the prompt before it; that cut depends on which prompts of a
//! run begin alike, not on edits, trials, shards or the order of anything. A logit depends on its row, its shift and its
//! hidden state alone.
//!
//! # Threads
//!
//! See `owner.rs`: one thread owns every array. Handles such as [`Mlx`] can be shared among threads.

mod arrays;
mod cache;
mod decoder;
mod head;
mod kept;
mod modes;
mod owner;

use std::{collections::BTreeMap, fmt, sync::Arc};

use blake3::Hash;
use mlx_rs::{Array, Device, DeviceType, Dtype, transforms::eval};

use super::{
    AnyBody, Backend, Body, BodyError, Extension, HeldHead, Parent, Precision, Projection, Query, Slot, Step,
    check_tokens,
    projection::{add_bias, add_bias_of_rows},
    rope::depends_on_known_positions,
};
use crate::{
    checkpoint::{
        Checkpoint,
        architecture::{AfterHead, Curve},
    },
    edit::Plan,
    kernels::Rounding,
    quant::MatrixRef,
};
use arrays::{Packed, Widen, floats};
use cache::Cache;
use decoder::{Decoder, Input};
use head::Head;
use owner::Owner;

/// Positions of a prompt that go through the layers together, as in mlx-lm.
const STRETCH: usize = 2048;

/// An error of MLX, with the operation that it came from.
fn failed(operation: &'static str, error: &dyn fmt::Display) -> BodyError {
    BodyError::Backend { backend: "mlx", operation, message: error.to_string() }
}

/// Results of MLX, given the operation's name.
trait Named<T> {
    fn named(self, operation: &'static str) -> Result<T, BodyError>;
}

impl<T> Named<T> for Result<T, mlx_rs::error::Exception> {
    fn named(self, operation: &'static str) -> Result<T, BodyError> {
        // Without the place in mlx-rs's sources.
        self.map_err(|error| failed(operation, &error.what()))
    }
}

impl<T> Named<T> for Result<T, mlx_rs::error::ConversionError> {
    fn named(self, operation: &'static str) -> Result<T, BodyError> {
        self.map_err(|error| failed(operation, &error))
    }
}

/// What the owner has: everything of MLX.
struct State {
    decoder: Decoder,
    /// Bodies, and heads other than the model's own, by number.
    bodies: BTreeMap<u32, Cache>,
    heads: BTreeMap<u32, Head>,
    head: Head,
    next: u32,
    dtype: Dtype,
    /// `cpu` or `gpu`.
    device: &'static str,
}

/// A model in MLX's memory. Clones are handles of the same.
#[derive(Clone)]
pub struct Mlx {
    owner: Arc<Owner<State>>,
    checkpoint: Arc<Checkpoint>,
    after_head: AfterHead,
    kernel: String,
    is_float32: bool,
}

impl fmt::Debug for Mlx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mlx").field("kernel", &self.kernel).finish_non_exhaustive()
    }
}

impl Mlx {
    /// Copies the weights of `checkpoint` into the memory of MLX's default device: the GPU where there is one.
    ///
    /// # Errors
    /// [`BodyError::NoDevice`]; [`BodyError::Backend`], where MLX fails.
    pub fn load(checkpoint: Arc<Checkpoint>, precision: Precision) -> Result<Self, BodyError> {
        let widen = match precision {
            Precision::Native => Widen::No,
            Precision::Float32 => Widen::Float32,
        };
        if let Some(what) = decoder::unsupported(&checkpoint.config().architecture) {
            return Err(BodyError::Unsupported { backend: "mlx", what });
        }
        let source = Arc::clone(&checkpoint);
        let owner = Owner::start(move || State::load(&source, widen))?;
        let (kernel, is_float32) = owner.ask("dtype", |state| Ok((state.kernel(), state.dtype == Dtype::Float32)))?;
        Ok(Self { owner: Arc::new(owner), after_head: checkpoint.after_head(), checkpoint, kernel, is_float32 })
    }
}

impl Mlx {
    /// `words` under a shift, as the seed notebook makes them: cast to int64, minus the shift, cast back to uint32.
    ///
    /// # Errors
    /// [`BodyError::Backend`], where MLX fails.
    pub fn shift_words(&self, words: &[u32], shift: i64) -> Result<Vec<u32>, BodyError> {
        let words = words.to_vec();
        self.owner.ask("shift", move |_| {
            let array = Array::from_slice(&words, &arrays::shape([words.len()])?);
            head::shifted(&array, shift)?.to_vec_exact().named("subtract")
        })
    }
}

/// `cpu` or `gpu`, after it has computed something.
fn device() -> Result<&'static str, BodyError> {
    let nowhere = |error: &mlx_rs::error::Exception| BodyError::NoDevice { message: error.what().to_owned() };
    let device = Device::try_default().and_then(|device| device.get_type()).map_err(|error| nowhere(&error))?;
    let one = Array::from_f32(1.0);
    one.add(&one).and_then(|two| two.eval()).map_err(|error| nowhere(&error))?;
    Ok(match device {
        DeviceType::Cpu => "cpu",
        DeviceType::Gpu => "gpu",
    })
}

impl State {
    fn load(checkpoint: &Checkpoint, widen: Widen) -> Result<Self, BodyError> {
        let device = device()?;
        let packed = Packed::of(&checkpoint.weights().head().view())?;
        // Of a tied matrix there is one copy.
        let tied = checkpoint.weights().lm_head.is_none().then_some(&packed);
        let decoder = Decoder::load(checkpoint, tied, widen)?;
        let dtype = decoder.dtype()?;
        let head = Head::new(*checkpoint.weights().head().layout(), packed, widen, dtype);
        Ok(Self { decoder, bodies: BTreeMap::new(), heads: BTreeMap::new(), head, next: 0, dtype, device })
    }

    fn kernel(&self) -> String {
        let dtype = match self.dtype {
            Dtype::Float16 => "float16",
            Dtype::Bfloat16 => "bfloat16",
            _ => "float32",
        };
        format!("mlx-{dtype}-{}", self.device)
    }

    fn number(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    /// The head of a number, or the model's own.
    fn head(&mut self, number: Option<u32>) -> Result<&mut Head, BodyError> {
        match number {
            None => Ok(&mut self.head),
            Some(number) => self.heads.get_mut(&number).ok_or_else(|| failed("use a head", &"it was given up")),
        }
    }

    /// Adds positions to a body, or none of them where one fails.
    fn extend(&mut self, number: u32, steps: &[OwnStep]) -> Result<Extension, BodyError> {
        let cache = self.bodies.get_mut(&number).ok_or_else(|| failed("use a body", &"it was given up"))?;
        let mut slots = Vec::with_capacity(steps.len());
        let mut hidden = Vec::new();
        while slots.len() < steps.len() {
            let first = slots.len();
            let place = Place::of(steps[first].parent, cache, &slots);
            let len = stretch(&steps[first..], first).min(place.longest(&self.decoder));
            let result = advance(&self.decoder, cache, place, &steps[first..first + len], &mut slots, &mut hidden);
            if let Err(error) = result {
                slots.into_iter().for_each(|slot| cache.release(slot));
                return Err(error);
            }
        }
        Ok(Extension { slots, hidden })
    }
}

/// How many of `steps`, the first of which has the index `first` in its call, go together: see the module.
fn stretch(steps: &[OwnStep], first: usize) -> usize {
    let follows = |i: usize| i == 0 || steps[i].parent == Parent::Step(first + i - 1);
    // Embeddings that were given go with such ones.
    let alike = |i: usize| steps[i].embedding.is_some() == steps[0].embedding.is_some();
    (0..steps.len().min(STRETCH)).take_while(|&i| follows(i) && alike(i) && !steps[i].hidden).count().max(1)
}

/// Where a stretch begins.
#[derive(Clone, Copy)]
struct Place {
    before: Option<Slot>,
    offset: usize,
    /// Positions of the prompt that the path begins with, where that was said.
    prompt: usize,
}

impl Place {
    /// `slots` are those of the steps before it in the same call.
    fn of(parent: Parent, cache: &Cache, slots: &[Slot]) -> Self {
        let before = match parent {
            Parent::Start => return Self { before: None, offset: 0, prompt: 0 },
            Parent::Prompt(tokens) => return Self { before: None, offset: 0, prompt: tokens },
            Parent::Slot(slot) => slot,
            Parent::Step(index) => slots[index],
        };
        Self { before: Some(before), offset: cache.after(Some(before)), prompt: cache.prompt(before) }
    }

    /// How many positions may go together. Where it matters how many the text has, those of a prompt may, and each one behind it has a
    /// number of its own.
    fn longest(&self, decoder: &Decoder) -> usize {
        if decoder.depends_on_prompt_length() { self.prompt.saturating_sub(self.offset).max(1) } else { STRETCH }
    }
}

/// Sends one stretch through the layers.
fn advance(
    decoder: &Decoder,
    cache: &mut Cache,
    place: Place,
    steps: &[OwnStep],
    slots: &mut Vec<Slot>,
    hidden: &mut Vec<f32>,
) -> Result<(), BodyError> {
    let Place { before, offset, prompt } = place;
    let past = cache.path(before)?;
    let tokens: Vec<u32> = steps.iter().map(|step| step.token).collect();
    let rows: Vec<f32> = steps.iter().filter_map(|step| step.embedding.as_deref()).flatten().copied().collect();
    let input = Input { tokens: &tokens, rows: (!rows.is_empty()).then_some(&rows) };
    let (states, own) = decoder.run(&input, offset, prompt, past.as_deref())?;
    if steps[0].hidden {
        let states = states.as_dtype(Dtype::Float32).named("astype")?;
        eval(own.iter().chain([&states])).named("a position")?;
        hidden.extend(floats(&states, "a position")?);
    } else {
        // What lies beyond the last keys and values is not computed.
        eval(&own).named("a stretch of positions")?;
    }
    slots.extend(cache.add(before, own, steps.len(), prompt));
    Ok(())
}

/// A [`Step`] that can be sent.
struct OwnStep {
    token: u32,
    parent: Parent,
    hidden: bool,
    embedding: Option<Vec<f32>>,
}

impl Backend for Mlx {
    fn name(&self) -> &'static str {
        "mlx"
    }

    fn kernel(&self) -> &str {
        &self.kernel
    }

    fn decides(&self) -> Option<&str> {
        // Another type and another device give other bits.
        Some(&self.kernel)
    }

    fn rounding(&self) -> Option<Rounding> {
        // MLX states no order of additions.
        None
    }

    fn is_float32(&self) -> bool {
        self.is_float32
    }

    fn after_head(&self) -> &AfterHead {
        &self.after_head
    }

    fn body(&self) -> AnyBody {
        let body = MlxBody { mlx: self.clone(), number: None };
        Box::new(body)
    }

    fn projection<'a>(&'a self, head: MatrixRef<'a>) -> Box<dyn Projection + 'a> {
        let own = head.is(&self.checkpoint.weights().head().view());
        Box::new(MlxProjection { mlx: self, head, number: None, own })
    }

    fn held_head(&self) -> Result<Option<Box<dyn HeldHead + '_>>, BodyError> {
        let number = self.owner.ask("hold a head", |state| {
            let (number, head) = (state.number(), state.head.clone());
            state.heads.insert(number, head);
            Ok(number)
        })?;
        let head = self.checkpoint.weights().head().view();
        Ok(Some(Box::new(MlxProjection { mlx: self, head, number: Some(number), own: false })))
    }
}

/// A body, by its number at the owner; none before it has seen anything.
struct MlxBody {
    mlx: Mlx,
    number: Option<u32>,
}

impl Body for MlxBody {
    fn cuts_freely(&self) -> bool {
        false
    }

    fn depends_on_prompt_length(&self) -> bool {
        depends_on_known_positions(&self.mlx.checkpoint.config().architecture)
    }

    fn hidden_size(&self) -> usize {
        self.mlx.checkpoint.config().architecture.hidden_size
    }

    fn bytes_per_position(&self) -> usize {
        let architecture = &self.mlx.checkpoint.config().architecture;
        // Four bytes an element, which is the most.
        let kept = architecture.layers.iter().map(|layer| layer.mixer.kept(architecture.hidden_size));
        kept.map(|(rows, columns)| rows * columns).sum::<usize>() * size_of::<f32>()
    }

    fn extend(&mut self, steps: &[Step<'_>]) -> Result<Extension, BodyError> {
        check_tokens(&self.mlx.checkpoint.config().architecture, steps)?;
        let number = match self.number {
            Some(number) => number,
            None => *self.number.insert(self.mlx.owner.ask("begin a body", |state| {
                let number = state.number();
                state.bodies.insert(number, Cache::default());
                Ok(number)
            })?),
        };
        let steps: Vec<OwnStep> = steps
            .iter()
            .map(|step| OwnStep {
                token: step.token,
                parent: step.parent,
                hidden: step.hidden,
                embedding: step.embedding.map(<[f32]>::to_vec),
            })
            .collect();
        self.mlx.owner.ask("extend a body", move |state| state.extend(number, &steps))
    }

    fn release(&mut self, slot: Slot) {
        if let Some(number) = self.number {
            self.mlx.owner.tell(move |state| {
                if let Some(cache) = state.bodies.get_mut(&number) {
                    cache.release(slot);
                }
            });
        }
    }
}

impl Drop for MlxBody {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.mlx.owner.tell(move |state| drop(state.bodies.remove(&number)));
        }
    }
}

/// A head, by its number at the owner.
struct MlxProjection<'a> {
    mlx: &'a Mlx,
    /// What it was made of.
    head: MatrixRef<'a>,
    /// `None`: the model's own, or one that is loaded when it is first asked.
    number: Option<u32>,
    own: bool,
}

impl MlxProjection<'_> {
    fn number(&mut self) -> Result<Option<u32>, BodyError> {
        if self.own || self.number.is_some() {
            return Ok(self.number);
        }
        let head = self.head.to_buf();
        let number = self.mlx.owner.ask("load a head", move |state| {
            let head = state.head.like(&head.view())?;
            let number = state.number();
            state.heads.insert(number, head);
            Ok(number)
        })?;
        self.number = Some(number);
        Ok(self.number)
    }
}

impl Projection for MlxProjection<'_> {
    fn vocab_size(&self) -> usize {
        self.head.layout().rows()
    }

    fn curve(&self) -> Curve {
        self.mlx.after_head.curve
    }

    fn logits(&mut self, queries: Vec<Query<'_>>) -> Result<(), BodyError> {
        let number = self.number()?;
        for query in queries {
            let (shift, hidden) = (query.shift, query.hidden.concat());
            let logits = self.mlx.owner.ask("logits", move |state| state.head(number)?.logits(shift, &hidden))?;
            query.out.copy_from_slice(&logits);
            if let Some(bias) = &self.mlx.after_head.bias {
                add_bias(bias, query.out);
            }
        }
        Ok(())
    }

    fn replaced(&mut self, plans: &[&Plan], hidden: &[&[f32]]) -> Result<Vec<f32>, BodyError> {
        let number = self.number()?;
        let mut out = Vec::new();
        for plan in plans.iter().filter(|plan| !plan.rows.is_empty()) {
            let (own, each) = ((*plan).clone(), hidden.iter().map(|hidden| hidden.to_vec()).collect::<Vec<_>>());
            let replaced: Vec<Vec<f32>> = self.mlx.owner.ask("replaced rows", move |state| {
                let head = state.head(number)?;
                each.iter().map(|hidden| head.replaced(&own, hidden)).collect()
            })?;
            out.extend((0..plan.rows.len()).flat_map(|row| replaced.iter().map(move |of_state| of_state[row])));
        }
        if let Some(bias) = &self.mlx.after_head.bias {
            add_bias_of_rows(bias, plans, hidden.len(), &mut out);
        }
        Ok(out)
    }
}

impl HeldHead for MlxProjection<'_> {
    fn apply(&mut self, plan: &Plan) -> Result<Vec<u32>, BodyError> {
        let (number, plan) = (self.number()?, plan.clone());
        self.mlx.owner.ask("apply an edit", move |state| {
            let head = state.head(number)?;
            head.apply(&plan)?;
            head.first_words(5)
        })
    }

    fn restore(&mut self) -> Result<(), BodyError> {
        let number = self.number()?;
        self.mlx.owner.ask("restore the head", move |state| {
            state.head(number)?.restore();
            Ok(())
        })
    }

    fn digest(&mut self) -> Result<Hash, BodyError> {
        let number = self.number()?;
        self.mlx.owner.ask("digest", move |state| state.head(number)?.digest())
    }
}

impl Drop for MlxProjection<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.mlx.owner.tell(move |state| drop(state.heads.remove(&number)));
        }
    }
}
