//! Law 3: measured without writing = measured after writing, to the bit, on heads of every format. An edit that is
//! planned, one that is written, and one that is worked out on paper ([`Plain`]) are the same bytes and the same
//! logits.

use arbitrary::{Arbitrary, Result, Unstructured};
use serde::{Deserialize, Serialize};

use super::{Case, LawResult, Reached, Violation, claim};
use crate::{
    edit::{Change, Edit},
    kernels::Kernel,
    model::{CpuProjection, Projection, Query},
    quant::{MatrixBuf, MatrixRef},
    testing::{
        comparators::{POISON, all_written, same_bits},
        heads::{Plain, team},
        oracles::kernel::vectors,
        strategies::edits::{as_text, edit},
    },
};

const LAW: u8 = 3;

/// A head, an edit of it, and what is multiplied by it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measurement {
    /// What is measured.
    pub head: MatrixBuf,
    /// Applied in order, as one.
    #[serde(with = "as_text")]
    pub edits: Vec<Edit>,
    /// Hidden states, all drawn from `seed`.
    pub vectors: usize,
    /// Seed of the hidden states.
    pub seed: u64,
}

impl<'a> Arbitrary<'a> for Measurement {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let (vectors, seed) = (u.int_in_range(1..=4)?, u.arbitrary()?);
        let head: MatrixBuf = u.arbitrary()?;
        let edits = vec![edit(u, head.layout(), 8)?];
        Ok(Self { head, edits, vectors, seed })
    }
}

impl Case for Measurement {
    const NAME: &'static str = "measure";
    const CLASSES: &'static [&'static str] =
        &["bytes", "rows replaced", "shifted", "both", "expanded", "finite logits", "logits that are not finite"];
    const ENTROPY: usize = 160;

    fn check(&self, reached: &mut Reached) -> LawResult {
        let edit = self.edits.iter().fold(Edit::clean(), |all, edit| all.then(edit));
        bytes(&self.head, &edit, reached)?;
        let x = vectors(self.vectors * self.head.layout().cols(), self.seed);
        logits(&self.head, &edit, &x, reached)
    }
}

/// Planned, written and worked out are the same bytes.
///
/// # Errors
/// The violation.
pub(crate) fn bytes(head: &MatrixBuf, edit: &Edit, reached: &mut Reached) -> LawResult {
    let (view, layout) = (head.view(), head.layout());
    let mut expected = Plain::of(&view);
    expected.apply(edit);
    let expected = expected.matrix();
    let written = head.written(edit);
    claim!(LAW, written == expected, "writing an edit does what the edit says", "another head after {edit}");
    claim!(
        LAW,
        head.planned(edit) == expected,
        "a plan holds the bytes that writing leaves",
        "another head by the plan of {edit}"
    );
    let plan = edit.plan(&view).expect("it was planned above");
    for (row, patch) in &plan.rows {
        let found = *patch.layout();
        claim!(LAW, found == layout.with_rows(1), "a replaced row has the head's layout", "row {row}: {found:?}");
    }
    for count in [0, 1, 5, 1000] {
        let words: Vec<u32> = (0..count.min(layout.words_per_row()))
            .map(|i| u32::from_le_bytes([0, 1, 2, 3].map(|byte| written.weight()[4 * i + byte])))
            .collect();
        let found = plan.first_words(&view, count);
        claim!(LAW, found == words, "a plan knows the first words", "{found:?} after {edit}, not {words:?}");
    }

    let stored = edit.expand(layout).expect("it was planned above");
    let again = stored.to_string().parse::<Edit>();
    let same = again.as_ref().is_ok_and(|again| *again == stored && again.plan(&view).is_ok_and(|p| p == plan));
    let random = |edit: &Edit| edit.changes().iter().any(|change| matches!(change, Change::Random(_)));
    claim!(
        LAW,
        same && !random(&stored),
        "an edit measures the same after it was expanded, printed and parsed",
        "{edit} became {stored}, then {again:?}"
    );
    reached.one("bytes");
    reached.one_if(random(edit), "expanded");
    reached.one_if(!plan.rows.is_empty(), "rows replaced");
    reached.one_if(plan.shift != 0 && plan.rows.len() < layout.rows(), "shifted");
    reached.one_if(plan.shift != 0 && !plan.rows.is_empty(), "both");
    Ok(())
}

/// Logits of hidden states `x` in the register, from written memory and by the formula.
///
/// # Errors
/// The violation.
pub(crate) fn logits(head: &MatrixBuf, edit: &Edit, x: &[f32], reached: &mut Reached) -> LawResult {
    let view = head.view();
    let mut plain = Plain::of(&view);
    plain.apply(edit);
    let weights: Vec<Vec<f32>> = plain.rows().map(|row| plain.weights(row)).collect();
    let mut own = head.head(1);
    let applied = own.apply(edit).expect("it fits");
    for kernel in [Kernel::best(), Kernel::SCALAR] {
        for hidden in x.chunks_exact(head.layout().cols()) {
            let expected: Vec<f32> =
                weights.iter().map(|weights| crate::kernels::scalar::dot(weights, hidden)).collect();
            let unwritten = measured(&view, kernel, edit, hidden)?;
            let written = measured(&applied.view(), kernel, &Edit::clean(), hidden)?;
            for (found, claim) in [
                (&unwritten, "measured without writing is the formula's value"),
                (&written, "measured after writing is the formula's value"),
            ] {
                if let Err(difference) = same_bits(found, &expected) {
                    let seen = format!("{} after {edit}: row {difference}", kernel.name());
                    return Err(Violation { law: LAW, claim, seen });
                }
            }
            let finite = expected.iter().all(|y| y.is_finite());
            reached.one(if finite { "finite logits" } else { "logits that are not finite" });
        }
    }
    debug_assert!(view.to_buf() == *head);
    Ok(())
}

/// Logits of one hidden state under an edit that is not written.
///
/// # Errors
/// A violation, where a logit was not written.
pub(super) fn measured(
    matrix: &MatrixRef<'_>,
    kernel: Kernel,
    edit: &Edit,
    hidden: &[f32],
) -> std::result::Result<Vec<f32>, Violation> {
    let plan = edit.plan(matrix).expect("it fits");
    let mut out = vec![POISON; matrix.layout().rows()];
    let mut projection = CpuProjection::new(*matrix, kernel, team(1));
    let query = Query { shift: plan.shift, hidden: vec![hidden], out: &mut out };
    projection.logits(vec![query]).expect("a head on the CPU does not fail");
    projection.patch(&plan, hidden, &mut out).expect("a head on the CPU does not fail");
    if let Err(row) = all_written(&out) {
        let seen = format!("{}: row {row} was not", kernel.name());
        return Err(Violation { law: LAW, claim: "every logit is written", seen });
    }
    Ok(out)
}
