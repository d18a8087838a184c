//! Law 2: guards restore to the bit: on drop, on `restore`, on an early return, on a panic, nested, in any
//! composition of edits.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use arbitrary::{Arbitrary, Result, Unstructured};
use serde::{Deserialize, Serialize};

use super::{Case, LawResult, Reached, Violation, claim};
use crate::{
    edit::{Change, Edit},
    head::{Applied, Head, HeadError, Restoration},
    quant::{MatrixBuf, MatrixRef, Tensor},
    testing::{
        heads::Plain,
        strategies::{
            choose,
            edits::{as_text, edit},
            one_in, some,
        },
    },
};

const LAW: u8 = 2;

/// What happens under the innermost guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// Nothing: the guards go out of scope.
    Drop,
    /// Every second guard is asked what it found.
    Restore,
    /// A further edit does not fit, and its error is returned.
    Return,
    /// A panic.
    Panic,
}

/// A head, and edits applied one upon the other.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guards {
    /// What is edited.
    pub head: MatrixBuf,
    /// The outermost first.
    #[serde(with = "as_text")]
    pub edits: Vec<Edit>,
    /// How it ends.
    pub end: End,
    /// Threads that write: 1 or 2.
    pub threads: usize,
}

impl<'a> Arbitrary<'a> for Guards {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let end = choose(u, &[End::Drop, End::Restore, End::Return, End::Panic])?;
        let threads = 1 + usize::from(one_in(u, 2)?);
        let head: MatrixBuf = u.arbitrary()?;
        let edits = some(u, 1, 4, |u| edit(u, head.layout(), 6))?;
        Ok(Self { head, edits, end, threads })
    }
}

impl Case for Guards {
    const NAME: &'static str = "guard";
    const CLASSES: &'static [&'static str] =
        &["changed", "unchanged", "nested", "dropped", "restored", "returned", "panicked", "change taken back"];
    const ENTROPY: usize = 160;

    fn check(&self, reached: &mut Reached) -> LawResult {
        changes(&self.head, &self.edits, reached)?;
        let stored = self.head.quantized();
        let mut head = self.head.head(self.threads);
        let clean = digest(&self.head.view());
        guards(&mut head, &self.edits, self.end, reached)?;
        // Fit for the next edit, by a guard that says what it found.
        let edit = &self.edits[0];
        let restored = head.apply(edit).map_err(|error| refused(edit, &error))?.restore();
        claim!(
            LAW,
            matches!(restored, Ok(Restoration { before, after }) if before == clean && after == clean),
            "a head that was restored takes the next edit, which is restored, too",
            "{edit}: {restored:?}, the clean digest is {clean}"
        );
        claim!(
            LAW,
            stored.to_buf() == self.head,
            "the head that a private copy was made of is never written",
            "it changed"
        );
        Ok(())
    }
}

/// BLAKE3 over all parts, computed here.
fn digest(matrix: &MatrixRef<'_>) -> blake3::Hash {
    blake3::hash(&matrix.parts().map(|(_, part)| *part).collect::<Vec<_>>().concat())
}

fn refused(edit: &Edit, error: &HeadError) -> Violation {
    Violation { law: LAW, claim: "an edit that fits is applied", seen: format!("{edit}: {error}") }
}

/// Applies `edits` one upon the other, lets them end by `end`, and holds every state of the head against what it
/// must be.
///
/// # Errors
/// The violation.
pub fn guards(head: &mut Head, edits: &[Edit], end: End, reached: &mut Reached) -> LawResult {
    let clean = head.view().to_buf();
    let mut plain = Plain::of(&head.view());
    let states: Vec<MatrixBuf> = edits
        .iter()
        .map(|edit| {
            plain.apply(edit);
            plain.matrix()
        })
        .collect();
    let ended = catch_unwind(AssertUnwindSafe(|| {
        let mut outermost = head.apply(&edits[0]).map_err(|error| Ended::Wrong(refused(&edits[0], &error)))?;
        inside(&mut outermost, edits, &states, end, reached)?;
        if end == End::Restore {
            let restored = outermost.restore();
            let digest = digest(&clean.view());
            if !matches!(restored, Ok(Restoration { before, after }) if before == digest && after == digest) {
                return Err(Ended::Wrong(Violation {
                    law: LAW,
                    claim: "restoring finds the digest from before the edit",
                    seen: format!("{restored:?}, not {digest}"),
                }));
            }
        }
        Ok(())
    }));
    match (end, ended) {
        (_, Ok(Err(Ended::Wrong(violation)))) => return Err(violation),
        (End::Drop, Ok(Ok(()))) => reached.one("dropped"),
        (End::Restore, Ok(Ok(()))) => reached.one("restored"),
        (End::Return, Ok(Err(Ended::Early))) => reached.one("returned"),
        (End::Panic, Err(payload)) if payload.is::<OnPurpose>() => reached.one("panicked"),
        // Not one of ours.
        (_, Err(payload)) => resume_unwind(payload),
        (end, ended) => claim!(LAW, false, "an edit ends as it was told to", "{end:?}, but {:?}", ended.is_ok()),
    }
    claim!(
        LAW,
        head.view() == clean.view(),
        "when its guards have ended, the head is what it was",
        "another head after {end:?} under {}",
        texts(edits)
    );
    claim!(LAW, head.digest() == digest(&clean.view()), "and so is its digest", "{} after {end:?}", head.digest());
    reached.one(if states.iter().all(|state| *state == clean) { "unchanged" } else { "changed" });
    Ok(())
}

/// A panic that is meant.
struct OnPurpose;

/// Why the guards were left.
enum Ended {
    Early,
    Wrong(Violation),
}

fn texts(edits: &[Edit]) -> String {
    edits.iter().map(Edit::to_string).collect::<Vec<_>>().join(" ")
}

/// `applied` has `edits[0]` written, which leaves `states[0]`; the rest is still to come.
fn inside(
    applied: &mut Applied<'_>,
    edits: &[Edit],
    states: &[MatrixBuf],
    end: End,
    reached: &mut Reached,
) -> std::result::Result<(), Ended> {
    check_state(applied, edits, &states[0], "while an edit is applied, the head is as the edit says")?;
    if edits.len() == 1 {
        return match end {
            // Unlike `panic!`, it does not call the hook, which would print a message for each case.
            End::Panic => resume_unwind(Box::new(OnPurpose)),
            End::Return => {
                // A place that no head has.
                let nowhere = Change::Flip { tensor: Tensor::Weight, row: usize::MAX, column: 0, bit: 0 };
                match applied.apply(&Edit::new(vec![Change::Shift(1), nowhere])) {
                    Err(HeadError::Edit(_)) => Err(Ended::Early),
                    Err(other) => Err(Ended::Wrong(refused(&edits[0], &other))),
                    Ok(_) => Err(Ended::Wrong(Violation {
                        law: LAW,
                        claim: "an edit that does not fit is refused",
                        seen: "it was applied".to_owned(),
                    })),
                }
            }
            End::Drop | End::Restore => Ok(()),
        };
    }
    {
        let mut inner = applied.apply(&edits[1]).map_err(|error| Ended::Wrong(refused(&edits[1], &error)))?;
        inside(&mut inner, &edits[1..], &states[1..], end, reached)?;
        if end == End::Restore && edits.len().is_multiple_of(2) {
            let restored = inner.restore();
            if restored.is_err() {
                return Err(Ended::Wrong(Violation {
                    law: LAW,
                    claim: "each guard finds what was there before it",
                    seen: format!("{restored:?}"),
                }));
            }
        }
    }
    check_state(applied, edits, &states[0], "an inner guard leaves what it found")?;
    reached.one("nested");
    Ok(())
}

fn check_state(
    applied: &mut Applied<'_>,
    edits: &[Edit],
    state: &MatrixBuf,
    claim: &'static str,
) -> std::result::Result<(), Ended> {
    let same = applied.view() == state.view();
    if same && applied.digest() == digest(&state.view()) {
        return Ok(());
    }
    let what = if same { "another digest" } else { "another head" };
    Err(Ended::Wrong(Violation { law: LAW, claim, seen: format!("{what} under {}", edits[0]) }))
}

/// Each change alone is taken back by what writing it gave.
///
/// # Errors
/// The violation.
pub(crate) fn changes(head: &MatrixBuf, edits: &[Edit], reached: &mut Reached) -> LawResult {
    let all = edits.iter().fold(Edit::clean(), |all, edit| all.then(edit));
    let all = all.expand(head.layout()).map_err(|error| refused(&all, &error.into()))?;
    let mut written = head.clone();
    let undo: Vec<_> =
        all.changes().iter().map(|change| change.write(&mut written, change.row().unwrap_or(0))).collect();
    undo.iter().rev().for_each(|undo| undo.take_back(&mut written));
    claim!(
        LAW,
        written == *head,
        "what writing a change gives takes it back, the last change first",
        "another head after {all} and back"
    );
    reached.one_if(!undo.is_empty(), "change taken back");
    Ok(())
}
