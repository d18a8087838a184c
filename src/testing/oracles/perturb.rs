//! Laws 2, 3 and 4 together, on a whole model: perturbations of single codes, scales and biases, composed, measured
//! without writing, then written one upon the other, measured again, held against the formula, and taken back.

use std::collections::BTreeSet;

use arbitrary::{Arbitrary, Result, Unstructured};
use serde::{Deserialize, Serialize};

use super::{Case, LawResult, Reached, Violation, claim};
use crate::{
    edit::{Edit, Plan},
    head::{Applied, HeadError},
    kernels::scalar,
    model::{Projection, Query},
    quant::{Layout, MatrixRef},
    subject::Subject,
    testing::{
        comparators::{POISON, all_written, same_bits},
        heads::Plain,
        model::{Model, with_demo},
        strategies::{
            edits::{as_text, perturbation},
            some,
        },
    },
};

const LAW: u8 = 3;

/// Perturbations of the head of the model that ships inside, written one upon the other.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Perturbations {
    /// The outermost first.
    #[serde(with = "as_text")]
    pub edits: Vec<Edit>,
}

impl Perturbations {
    /// Perturbations of a head of another layout.
    ///
    /// # Errors
    /// There are none: where the bytes end, they go on as zeros.
    pub fn of(u: &mut Unstructured<'_>, layout: &Layout) -> Result<Self> {
        Ok(Self { edits: some(u, 1, 3, |u| perturbation(u, layout, 6))? })
    }
}

impl<'a> Arbitrary<'a> for Perturbations {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let layout = with_demo(|model| *model.subject.head().layout());
        Self::of(u, &layout)
    }
}

impl Case for Perturbations {
    const NAME: &'static str = "perturb";
    const CLASSES: &'static [&'static str] =
        &["rows replaced", "shifted", "another answer", "the clean answer", "nested"];
    const ENTROPY: usize = 128;

    fn check(&self, reached: &mut Reached) -> LawResult {
        with_demo(|model| perturb(model, &self.edits, reached))
    }
}

/// The law for edits of a model's head, which fit it.
///
/// # Errors
/// The violation.
///
/// # Panics
/// If an edit does not fit.
pub fn perturb(model: &mut Model, edits: &[Edit], reached: &mut Reached) -> LawResult {
    let subject = model.subject;
    let original = subject.head().view();
    let composed = edits.iter().fold(Edit::clean(), |all, edit| all.then(edit));
    let plan = composed.plan(&original).expect("perturbations fit the head");
    let unwritten = logits(subject, original, &plan, &model.hidden)?;
    let measured = model
        .trials
        .all(&mut subject.projection(original), std::slice::from_ref(&plan))
        .expect("prompts that were answered before");

    // The rows that are worked out on paper: those that were touched, up to a number, and some that were not.
    let last = original.layout().rows() - 1;
    let rows: BTreeSet<usize> = plan.rows.keys().copied().take(8).chain([0, last / 3, last]).collect();
    let mut plain = Plain::of_rows(&original, rows.iter().copied());
    plain.apply(&composed);
    let weights: Vec<(usize, Vec<f32>)> = rows.iter().map(|&row| (row, plain.weights(row))).collect();

    let Model { trials, hidden, head, clean, .. } = model;
    let mut under_all = |applied: &mut Applied<'_>| {
        let written = applied.view();
        claim!(
            LAW,
            Plain::of_rows(&written, rows.iter().copied()).matrix() == plain.matrix(),
            "writing perturbations one upon the other does what they say",
            "other rows than those of {composed}"
        );
        let found = logits(subject, written, &Plan::default(), hidden)?;
        let difference = same_bits(&found, &unwritten).err();
        claim!(
            LAW,
            difference.is_none(),
            "measured without writing is measured after writing, to the bit",
            "{composed}: logit {difference:?}"
        );
        for (hidden, logits) in hidden.iter().zip(found.chunks_exact(last + 1)) {
            for (row, weights) in &weights {
                let difference = same_bits(&[logits[*row]], &[scalar::dot(weights, hidden)]).err();
                claim!(LAW, difference.is_none(), "a logit is the formula's", "{composed}, row {row}: {difference:?}");
            }
        }
        let answers = trials.answers(&mut subject.projection(written)).expect("prompts that were answered before");
        for (answer, trial) in answers.iter().zip(&measured) {
            let unwritten = &trial.trajectory;
            let same = (&answer.tokens, answer.eos, answer.finish)
                == (&unwritten.tokens, unwritten.eos, unwritten.finish)
                && same_bits(&answer.margin, &unwritten.margin).is_ok();
            claim!(
                LAW,
                same,
                "the written head answers as the perturbation was measured",
                "{composed} on prompt {}: {answer:?}, not {unwritten:?}",
                trial.prompt
            );
        }
        Ok(())
    };
    let mut outermost = head.apply(&edits[0]).map_err(|error| not_applied(&edits[0], &error))?;
    nested(&mut outermost, &edits[1..], &mut under_all, reached)?;
    let restored = outermost.restore();
    claim!(
        2,
        restored.as_ref().is_ok_and(|found| found.before == *clean && found.after == *clean),
        "a perturbed head is restored to the bit",
        "{restored:?} after {composed}, the clean digest is {clean}"
    );
    claim!(
        2,
        head.view().row(last) == original.row(last) && head.digest() == *clean,
        "and holds the checkpoint's bytes",
        "it does not after {composed}"
    );

    reached.one_if(!plan.rows.is_empty(), "rows replaced");
    reached.one_if(plan.shift != 0, "shifted");
    for (trial, clean) in measured.iter().zip(model.trials.clean()) {
        let same = trial.trajectory.tokens == clean.tokens;
        reached.one(if same { "the clean answer" } else { "another answer" });
    }
    Ok(())
}

fn not_applied(edit: &Edit, error: &HeadError) -> Violation {
    Violation { law: 2, claim: "an edit that fits is applied", seen: format!("{edit}: {error}") }
}

/// Writes the rest of the edits, calls `innermost` under them all, and holds what each guard leaves against what it
/// found.
fn nested(
    applied: &mut Applied<'_>,
    rest: &[Edit],
    innermost: &mut dyn FnMut(&mut Applied<'_>) -> LawResult,
    reached: &mut Reached,
) -> LawResult {
    let Some((edit, rest)) = rest.split_first() else { return innermost(applied) };
    let found = applied.digest();
    let mut inner = applied.apply(edit).map_err(|error| not_applied(edit, &error))?;
    nested(&mut inner, rest, innermost, reached)?;
    let restored = inner.restore();
    claim!(
        2,
        restored.as_ref().is_ok_and(|restored| restored.before == found && restored.after == found),
        "an inner guard leaves what it found",
        "{restored:?} after {edit}, {found} before"
    );
    reached.one("nested");
    Ok(())
}

/// Logits `[hidden, vocab]` through `matrix` under a plan.
fn logits(
    subject: &Subject,
    matrix: MatrixRef<'_>,
    plan: &Plan,
    hidden: &[Vec<f32>],
) -> std::result::Result<Vec<f32>, Violation> {
    let vocab = matrix.layout().rows();
    let mut out = vec![POISON; hidden.len() * vocab];
    let mut projection = subject.projection(matrix);
    let query = Query { shift: plan.shift, hidden: hidden.iter().map(Vec::as_slice).collect(), out: &mut out };
    projection.logits(vec![query]).expect("a head on the CPU does not fail");
    for (hidden, logits) in hidden.iter().zip(out.chunks_exact_mut(vocab)) {
        projection.patch(plan, hidden, logits).expect("a head on the CPU does not fail");
    }
    match all_written(&out) {
        Ok(()) => Ok(out),
        Err(at) => Err(Violation { law: LAW, claim: "every logit is written", seen: format!("logit {at} was not") }),
    }
}
