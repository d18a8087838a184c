//! Whether the body that this program computes is the one that another backend computes, on a given model.
//!
//! A wrong rotary embedding, norm or order of experts in a new family shows at once where hidden states are held against those
//! of mlx-lm, position by position: the first position that differs says more than a wrong answer does. At the first position
//! of all no rotary embedding, window or cache has done anything yet. Where both backends say what each layer gives, the first layer that
//! differs is named, at the end of each prompt.

use super::{RunError, verify::Check};
use crate::{
    model::{Parent, Projection, Query, Step},
    subject::{Prompt, Subject},
};

/// Largest difference of a number, relative to the largest of its kind at that position, with float32 on both sides: rounding in
/// other orders, through all layers.
const FLOAT32: f32 = 2e-3;
/// The same where the other side computes in a type of 8 or 11 significant bits.
const NARROW: f32 = 1e-1;

/// Holds `native` against `other`, which runs the same model: hidden states and logits at each position of each prompt and of the
/// native answer, token by token, and answers of `max_tokens` tokens.
///
/// # Errors
/// [`RunError`], where one of them cannot be run; a difference is a result.
pub fn agree(
    native: &Subject,
    other: &Subject,
    prompts: &[Prompt],
    max_tokens: usize,
    mut done: impl FnMut(&Check),
) -> Result<Vec<Check>, RunError> {
    let bound = if other.backend().is_float32() { FLOAT32 } else { NARROW };
    let answers = [native, other].map(|subject| {
        let mut trials = subject.trials(prompts.iter().map(|prompt| prompt.ids.as_slice()), max_tokens);
        trials.answers(&mut subject.projection(subject.head().view()))
    });
    let [own, theirs] = answers;
    let (own, theirs) = (own?, theirs?);
    let [mut layers, mut hidden, mut logits] = [(); 3].map(|()| Differences::default());
    for (number, (prompt, answer)) in prompts.iter().zip(&own).enumerate() {
        if let (Some(a), Some(b)) = (native.body().layers(&prompt.ids)?, other.body().layers(&prompt.ids)?) {
            let count = a.len();
            for (layer, (a, b)) in a.iter().zip(&b).enumerate() {
                layers.take(a, b, bound, || {
                    format!("layer {layer} of {count}, counted from 0, at the end of prompt {number}")
                });
            }
        }
        let ids: Vec<u32> = prompt.ids.iter().chain(&answer.tokens).copied().collect();
        let (a, b) = (states(native, &ids)?, states(other, &ids)?);
        for (position, (a, b)) in a.iter().zip(&b).enumerate() {
            let place = || format!("position {position} (token {}) of prompt {number}", ids[position]);
            hidden.take(a, b, bound, place);
            logits.take(&products(native, a)?, &products(native, b)?, bound, place);
        }
    }
    let different: Vec<String> = own
        .iter()
        .zip(&theirs)
        .enumerate()
        .filter_map(|(number, (a, b))| {
            let step = a.steps().zip(b.steps()).position(|(a, b)| a != b);
            let step = step
                .or_else(|| (a.steps().count() != b.steps().count()).then(|| a.steps().count().min(b.steps().count())));
            step.map(|step| format!("the answers to prompt {number} part at step {step}"))
        })
        .collect();
    let mut checks = Vec::new();
    // A backend that does not look inside has nothing to say of layers.
    let of_layers =
        ("what each layer gives is the other backend's, at the end of each prompt", layers.cases, layers.told());
    for (claim, cases, detail) in (layers.cases > 0).then_some(of_layers).into_iter().chain([
        ("hidden states are the other backend's, at each position", hidden.cases, hidden.told()),
        ("logits are the other backend's, at each position", logits.cases, logits.told()),
        ("answers are the other backend's", prompts.len(), different),
    ]) {
        let holds = detail.is_empty() && cases > 0;
        let check = Check { claim, holds, cases, detail: (!holds).then(|| detail.join("; ")) };
        done(&check);
        checks.push(check);
    }
    Ok(checks)
}

/// The hidden state at each position of `ids`.
fn states(subject: &Subject, ids: &[u32]) -> Result<Vec<Vec<f32>>, RunError> {
    let mut body = subject.body();
    let steps: Vec<Step<'_>> = ids
        .iter()
        .enumerate()
        .map(|(i, &token)| {
            let parent = i.checked_sub(1).map_or(Parent::Start, Parent::Step);
            Step { token, parent, hidden: true, embedding: None, row: None }
        })
        .collect();
    let hidden = body.extend(&steps)?.hidden;
    Ok(hidden.chunks_exact(body.hidden_size()).map(<[f32]>::to_vec).collect())
}

/// The head's product with a hidden state.
fn products(subject: &Subject, hidden: &[f32]) -> Result<Vec<f32>, RunError> {
    let mut projection = subject.projection(subject.head().view());
    let mut out = vec![0.0; projection.vocab_size()];
    projection.logits(vec![Query { shift: 0, hidden: vec![hidden], out: &mut out }])?;
    Ok(out)
}

/// What was seen of one kind of numbers.
#[derive(Default)]
struct Differences {
    cases: usize,
    /// The first place beyond the bound, and how far.
    first: Option<String>,
    /// The largest difference, relative.
    largest: f32,
}

impl Differences {
    fn take(&mut self, a: &[f32], b: &[f32], bound: f32, place: impl Fn() -> String) {
        self.cases += 1;
        let size = a.iter().chain(b).fold(0.0_f32, |most, x| most.max(x.abs()));
        let difference = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / size.max(f32::MIN_POSITIVE);
        let same = a.iter().zip(b).all(|(a, b)| (a - b).abs() <= bound * size);
        if !same && self.first.is_none() {
            self.first = Some(format!("the first that differs is at {}, by {difference:.1e} of the largest", place()));
        }
        self.largest = self.largest.max(difference);
    }

    fn told(&self) -> Vec<String> {
        let most = format!("the largest difference anywhere is {:.1e} of the largest", self.largest);
        self.first.iter().flat_map(|first| [first.clone(), most.clone()]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_noticed_where_it_is_first_and_a_number_that_is_none_is_one() {
        let mut seen = Differences::default();
        seen.take(&[1.0, -8.0], &[1.001, -8.0], FLOAT32, || "here".to_owned());
        assert_eq!(seen.told(), [] as [String; 0]);
        seen.take(&[1.0, -8.0], &[1.16, -8.0], FLOAT32, || "there".to_owned());
        seen.take(&[1.0], &[f32::NAN], FLOAT32, || "later".to_owned());
        assert!(seen.told()[0].starts_with("the first that differs is at there, by 2.0e-2"), "{:?}", seen.told());
        let mut nothing = Differences::default();
        nothing.take(&[f32::NAN], &[1.0], FLOAT32, || "at once".to_owned());
        assert!(nothing.told()[0].contains("at once"));
        assert_eq!(nothing.cases, 1);
    }
}
