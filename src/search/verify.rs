//! Every way of restoring the head, exercised on a given model.
//!
//! A list of checks, each with what it found. None of them is about quality: they are about trust in everything
//! else that is measured on this model.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::Arc,
};

use serde::Serialize;

use super::RunError;
use crate::{
    checkpoint::digest::head_digest,
    edit::{Amount, Change, Edit, Random, shift_word},
    head::Head,
    model::{HeldHead, Projection, Query},
    quant::MatrixRef,
    seed,
    subject::{Prompt, Subject},
};

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What is claimed.
    pub claim: &'static str,
    /// Whether it held.
    pub holds: bool,
    /// Cases that were looked at.
    pub cases: usize,
    /// What was found, where it did not hold.
    pub detail: Option<String>,
}

/// Runs all checks.
///
/// # Errors
/// [`RunError`], where the model itself cannot be run; a check that does not hold is a result.
///
/// # Panics
/// If there is no prompt.
pub fn verify(
    subject: &Subject,
    prompts: &[Prompt],
    max_tokens: usize,
    seed: u64,
    mut done: impl FnMut(&Check),
) -> Result<Vec<Check>, RunError> {
    let original = subject.head().view();
    let stored = head_digest(&original);
    let edits = edits(&original, seed)?;
    let mut head = Head::private(subject.head(), Arc::clone(subject.team()))?;
    let mut checks = Vec::new();
    let mut check = |claim, cases: usize, failed: Vec<String>| {
        let holds = failed.is_empty() && cases > 0;
        let detail = (!holds).then(|| if cases == 0 { "nothing was checked".to_owned() } else { failed.join("; ") });
        let check = Check { claim, holds, cases, detail };
        done(&check);
        checks.push(check);
    };

    let failed = if head.digest() == stored { vec![] } else { vec![head.digest().to_string()] };
    check("the private copy of the head is the checkpoint's", 1, failed);

    let mut failed = Vec::new();
    for edit in &edits {
        let mut applied = head.apply(edit)?;
        // A shift by a multiple of 2^32 is one that changes nothing.
        let plan = edit.plan(&original)?;
        if applied.digest() == stored && (plan.shift != 0 || !plan.rows.is_empty()) {
            failed.push(format!("{edit} wrote nothing"));
        }
        if let Err(error) = applied.restore() {
            failed.push(format!("{edit}: {error}"));
        }
    }
    check("each edit changes the head and is undone to the bit", edits.len(), failed);

    for edit in &edits {
        drop(head.apply(edit)?);
    }
    let failed = if head.digest() == stored { vec![] } else { vec![head.digest().to_string()] };
    check("a guard that goes out of scope restores", edits.len(), failed);

    // Unwinds as a panic does, without its message on stderr.
    let caught: Result<(), _> = catch_unwind(AssertUnwindSafe(|| {
        let _applied = head.apply(&edits[1]);
        resume_unwind(Box::new("on purpose"));
    }));
    let restored = caught.is_err() && head.digest() == stored;
    check("a panic under an edit restores", 1, if restored { vec![] } else { vec![head.digest().to_string()] });

    let depth = nested(&mut head, &edits, stored)?;
    let failed = if head.digest() == stored { vec![] } else { vec![head.digest().to_string()] };
    check("nested edits are undone in reverse order", depth, failed);

    let mut failed = Vec::new();
    for shift in [1, -5, 1 << 32, i64::MIN, i64::MAX] {
        for word in [0, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX, original.word(0, 0)] {
            let cast = (i64::from(word)).wrapping_sub(shift) as u32;
            if cast != shift_word(word, shift) || shift_word(shift_word(word, shift), shift.wrapping_neg()) != word {
                failed.push(format!("{word:#x} - {shift}"));
            }
        }
    }
    check("a shift is the 64-bit subtraction cast to 32 bits, and its negative undoes it", 30, failed);

    // Law 3 on this model: logits of each edit, in the register and from written memory.
    let mut trials = subject.trials(prompts.iter().map(|prompt| prompt.ids.as_slice()), max_tokens);
    trials.run(&mut subject.projection(original), &[], |_| Ok::<_, RunError>(()))?;
    let hidden: Vec<Vec<f32>> = trials.clean_hidden(0).take(1).map(<[f32]>::to_vec).collect();
    let mut failed = Vec::new();
    let vocab = original.layout().rows();
    for edit in edits.iter().filter(|_| !hidden.is_empty()) {
        let plan = edit.plan(&original)?;
        let mut fused = vec![0.0; vocab];
        let mut projection = subject.projection(original);
        let query = Query { shift: plan.shift, hidden: vec![&hidden[0]], out: &mut fused };
        projection.logits(vec![query])?;
        projection.patch(&plan, &hidden[0], &mut fused)?;
        let applied = head.apply(edit)?;
        let mut written = vec![0.0; vocab];
        let query = Query { shift: 0, hidden: vec![&hidden[0]], out: &mut written };
        subject.projection(applied.view()).logits(vec![query])?;
        if !same(&fused, &written) {
            failed.push(edit.to_string());
        }
    }
    let cases = if hidden.is_empty() { 0 } else { edits.len() };
    check("measured without writing is measured after writing, to the bit", cases, failed);

    if let Some(mut held) = subject.backend().held_head()? {
        let failed = if held.digest()? == stored { vec![] } else { vec![held.digest()?.to_string()] };
        check("the backend's head is the checkpoint's", 1, failed);
        let mut failed = Vec::new();
        for edit in edits.iter().filter(|_| !hidden.is_empty()) {
            failed.extend(in_backend(subject, &mut *held, edit, stored, &hidden[0])?);
        }
        let claim = "each edit changes the backend's head, is measured as it is without, and is undone to the bit";
        check(claim, cases, failed);
    }

    let answers = trials.answers(&mut subject.projection(head.view()))?;
    let failed = answers.iter().zip(trials.clean()).zip(prompts);
    let failed = failed
        .filter(|((answer, clean), _)| (&answer.tokens, answer.finish) != (&clean.tokens, clean.finish))
        .map(|(_, prompt)| prompt.text.clone())
        .collect();
    check("the restored head gives the clean answers", prompts.len(), failed);

    let failed = if head_digest(&original) == stored { vec![] } else { vec!["its bytes changed".to_owned()] };
    check("the checkpoint is untouched", 1, failed);
    Ok(checks)
}

/// The ladder's shifts, edges, and random edits of every kind that fit this head.
fn edits(matrix: &MatrixRef<'_>, seed: u64) -> Result<Vec<Edit>, RunError> {
    let layout = matrix.layout();
    let mut edits: Vec<Edit> = seed::SHIFTS.into_iter().chain([-1, i64::MIN, i64::MAX]).map(Edit::shift).collect();
    for &tensor in layout.format().tensors() {
        let random = Change::Random(Random { tensor, amount: Amount::Flips(8), seed });
        edits.push(Edit::new(vec![random]).expand(layout)?);
    }
    let (row, column, word) = (layout.rows() - 1, layout.cols() - 1, layout.words_per_row() - 1);
    let code = matrix.code(row, column);
    edits.push(Edit::new(vec![
        Change::SetCode { row, column, value: code ^ 1 },
        Change::Shift(1_000_001),
        Change::AddCode { row: 0, column: 0, amount: -1 },
        Change::XorWord { row, word, mask: 0x8000_0000 },
        Change::SetWord { row: 0, word: 0, value: 0 },
    ]));
    Ok(edits)
}

/// The checks that fail for an edit that is written into the backend's own head.
fn in_backend(
    subject: &Subject,
    held: &mut dyn HeldHead,
    edit: &Edit,
    stored: blake3::Hash,
    hidden: &[f32],
) -> Result<Option<String>, RunError> {
    let original = subject.head().view();
    let plan = edit.plan(&original)?;
    let [mut fused, mut written] = [(); 2].map(|()| vec![0.0; original.layout().rows()]);
    let mut projection = subject.projection(original);
    projection.logits(vec![Query { shift: plan.shift, hidden: vec![hidden], out: &mut fused }])?;
    projection.patch(&plan, hidden, &mut fused)?;
    let words = held.apply(&plan)?;
    let changed = held.digest()? != stored;
    held.logits(vec![Query { shift: 0, hidden: vec![hidden], out: &mut written }])?;
    held.restore()?;
    let what = if words != plan.first_words(&original, 5) {
        "its first words are others"
    } else if !changed && (plan.shift != 0 || !plan.rows.is_empty()) {
        "wrote nothing"
    } else if !same(&fused, &written) {
        "logits differ"
    } else if held.digest()? != stored {
        "was not undone"
    } else {
        return Ok(None);
    };
    Ok(Some(format!("{edit}: {what}")))
}

/// Whether logits are equal to the bit, or both not a number.
fn same(a: &[f32], b: &[f32]) -> bool {
    a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan())
}

/// Applies edits one inside the other, and returns their number.
fn nested(head: &mut Head, edits: &[Edit], stored: blake3::Hash) -> Result<usize, RunError> {
    fn inside(applied: &mut crate::head::Applied<'_>, edits: &[Edit]) -> Result<usize, RunError> {
        let Some((first, rest)) = edits.split_first() else { return Ok(0) };
        let mut inner = applied.apply(first)?;
        let depth = inside(&mut inner, rest)?;
        inner.restore()?;
        Ok(depth + 1)
    }
    let mut outer = head.apply(&edits[0])?;
    let depth = inside(&mut outer, &edits[1..])?;
    let restoration = outer.restore()?;
    debug_assert!(restoration.before == stored);
    Ok(depth + 1)
}
