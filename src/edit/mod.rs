//! Edits: named, repeatable changes to the head's packed words, scales and biases.
//!
//! An [`Edit`] is a list of [`Change`]s, applied left to right, with a one-line text form
//! (`shift:1000001`, `flip:weight[34,7].3+shift:1`). It can be *written* into a head and undone
//! ([`crate::head`]), or *planned* ([`Edit::plan`]): a shift of all rows, which kernels apply to each word in
//! the register, and the few rows that other changes touch, in their final form. Both give the same bits.

mod random;
mod text;
mod write;

use std::collections::BTreeMap;

pub use random::{Amount, Family, Random, Value};
pub use text::ParseError;
pub(crate) use write::Undo;

use crate::quant::{Format, Layout, MatrixBuf, MatrixRef, Tensor};

/// Flips that a random edit may stand for: a plan holds the rows that they touch.
const MOST_FLIPS: u64 = 2_000_000;

/// Changes up to which a random edit is stored as a list of them.
const MOST_LISTED: usize = 64;

/// The generator of random edits, with its version, as records of runs name it that have such edits. One that has been
/// published never changes: [`Random::expand`] says what it draws.
pub(crate) const GENERATOR: &str = "splitmix64 1";

/// One change. Rows, columns and bits are counted from 0, bit 0 is the least.
#[cfg_attr(feature = "testing", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Every packed word `u` becomes the low 32 bits of `u as i64 - shift`.
    Shift(i64),
    /// One bit of one element is inverted: of the code at `column`, or of the scale or bias of group `column`.
    Flip {
        /// Where.
        tensor: Tensor,
        /// Row of the matrix.
        row: usize,
        /// Column of the code, or group.
        column: usize,
        /// Bit of the element.
        bit: u32,
    },
    /// A code becomes `value`.
    SetCode {
        /// Row of the matrix.
        row: usize,
        /// Column of the code.
        column: usize,
        /// The new code.
        value: u32,
    },
    /// `amount` is added to a code, wrapping within it.
    AddCode {
        /// Row of the matrix.
        row: usize,
        /// Column of the code.
        column: usize,
        /// What is added.
        amount: i64,
    },
    /// A packed word is combined with `mask` by exclusive or.
    XorWord {
        /// Row of the matrix.
        row: usize,
        /// Word within the row.
        word: usize,
        /// Bits to invert.
        mask: u32,
    },
    /// A packed word becomes `value`.
    SetWord {
        /// Row of the matrix.
        row: usize,
        /// Word within the row.
        word: usize,
        /// The new word.
        value: u32,
    },
    /// Random flips, which [`Edit::expand`] turns into a list of them.
    Random(Random),
}

/// A change, or several applied left to right; none at all is `clean`.
#[cfg_attr(feature = "testing", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Edit {
    changes: Vec<Change>,
}

/// An edit that does not fit the head it is meant for.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EditError {
    /// A row, column, group, word or bit that the head does not have.
    #[error("{edit}: {what} {found} is out of range, there are {limit} (0 to {})", .limit - 1)]
    Range {
        /// The change in its text form.
        edit: String,
        /// `row`, `column`, `group`, `word` or `bit`.
        what: &'static str,
        /// The index given.
        found: usize,
        /// How many there are.
        limit: usize,
    },
    /// A tensor that the head's format does not have.
    #[error("{edit}: a head in the format {format} has no {}", .tensor.name())]
    NoSuchTensor {
        /// The change in its text form.
        edit: String,
        /// The tensor: biases.
        tensor: Tensor,
        /// The format of the head.
        format: Format,
    },
    /// A code that does not fit its bits.
    #[error("{edit}: {value} is no code of {bits} bits")]
    Code {
        /// The change in its text form.
        edit: String,
        /// The value given.
        value: u32,
        /// Bits of a code.
        bits: usize,
    },
    /// More random flips than there are bits.
    #[error("{edit}: {found} flips are more than the {limit} bits of that tensor")]
    Flips {
        /// The change in its text form.
        edit: String,
        /// Flips asked for.
        found: u64,
        /// Bits there are.
        limit: u64,
    },
    /// More random flips than an edit may stand for.
    #[error("{edit}: about {expected} flips are more than the {MOST_FLIPS} that an edit can hold")]
    Many {
        /// The change in its text form.
        edit: String,
        /// Flips that it stands for.
        expected: u64,
    },
    /// A rate of random flips below 0, above 1 or not a number.
    #[error("{edit}: the rate is no probability (0 to 1)")]
    Rate {
        /// The change in its text form.
        edit: String,
    },
}

/// What a kernel needs to measure an edit that is not written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Subtracted from every packed word of the rows that are not replaced.
    pub shift: u32,
    /// Rows in their final form, shifts included, each a matrix of one row, by row of the matrix.
    pub rows: BTreeMap<usize, MatrixBuf>,
}

impl Plan {
    /// The first `count` packed words of row 0 after the edit, or all of them if there are fewer.
    pub fn first_words(&self, matrix: &MatrixRef<'_>, count: usize) -> Vec<u32> {
        (0..count.min(matrix.layout().words_per_row()))
            .map(|word| match self.rows.get(&0) {
                Some(row) => row.word(0, word),
                None => matrix.word(0, word).wrapping_sub(self.shift),
            })
            .collect()
    }
}

/// A packed word under a shift: the low 32 bits of `word as i64 - shift`, which is the low 32 bits of the
/// shift subtracted with wrap-around.
#[inline]
pub(crate) const fn shift_word(word: u32, shift: i64) -> u32 {
    word.wrapping_sub(shift as u32)
}

/// Subtracts `shift` from each of the little-endian words in `bytes`, wrapping.
pub(crate) fn shift_words(bytes: &mut [u8], shift: u32) {
    for word in bytes.chunks_exact_mut(4) {
        let shifted = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_sub(shift);
        word.copy_from_slice(&shifted.to_le_bytes());
    }
}

impl Edit {
    /// No change.
    pub const fn clean() -> Self {
        Self { changes: Vec::new() }
    }

    /// One shift.
    pub fn shift(shift: i64) -> Self {
        Self { changes: vec![Change::Shift(shift)] }
    }

    /// Several changes, applied in order.
    pub const fn new(changes: Vec<Change>) -> Self {
        Self { changes }
    }

    /// The changes in order.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// This edit, then `next`.
    pub fn then(mut self, next: &Self) -> Self {
        self.changes.extend_from_slice(&next.changes);
        self
    }

    /// The shift, where the edit is one shift and nothing else.
    pub fn shift_only(&self) -> Option<i64> {
        match self.changes[..] {
            [Change::Shift(shift)] => Some(shift),
            _ => None,
        }
    }

    /// Whether flips are drawn for it.
    pub(crate) fn is_random(&self) -> bool {
        self.changes.iter().any(|change| matches!(change, Change::Random(_)))
    }

    /// This edit as it is stored, where `expanded` is what it stands for: that, but for a random one of very many changes,
    /// which is stored as it is, with the digest of the text of what it stands for. So a record of ten thousand flips is no
    /// longer than another, and whoever replays it learns whether the same flips were drawn.
    pub(crate) fn stored(&self, expanded: &Self) -> (String, Option<blake3::Hash>) {
        if self.is_random() && expanded.changes.len() > MOST_LISTED {
            (self.to_string(), Some(expanded.digest()))
        } else {
            (expanded.to_string(), None)
        }
    }

    /// The same edit with random families turned into the flips that they stand for.
    ///
    /// # Errors
    /// [`EditError::Flips`], [`EditError::Many`] or [`EditError::Rate`].
    pub fn expand(&self, layout: &Layout) -> Result<Self, EditError> {
        self.check_flips(layout)?;
        let mut changes = Vec::with_capacity(self.changes.len());
        for change in &self.changes {
            match change {
                Change::Random(random) => changes.extend(random.expand(layout)?),
                other => changes.push(other.clone()),
            }
        }
        Ok(Self { changes })
    }

    /// Checks every change against `layout`.
    ///
    /// # Errors
    /// [`EditError`], naming the first change that does not fit.
    pub fn check(&self, layout: &Layout) -> Result<(), EditError> {
        self.changes.iter().try_for_each(|change| change.check(layout))?;
        self.check_flips(layout)
    }

    /// That all random flips together are not more than an edit can hold, whatever their parts are.
    fn check_flips(&self, layout: &Layout) -> Result<(), EditError> {
        let expected = |change: &Change| match change {
            Change::Random(random) => random.expected(layout),
            _ => 0.0,
        };
        let expected: f64 = self.changes.iter().map(expected).sum();
        if expected > MOST_FLIPS as f64 {
            let edit = self.to_string();
            let edit = match edit.char_indices().nth(100) {
                Some((end, _)) => format!("{}...", &edit[..end]),
                None => edit,
            };
            return Err(EditError::Many { edit, expected: expected.round() as u64 });
        }
        Ok(())
    }

    /// What measures this edit of `matrix` without writing it.
    ///
    /// # Errors
    /// [`EditError`], naming the first change that does not fit the matrix.
    pub fn plan(&self, matrix: &MatrixRef<'_>) -> Result<Plan, EditError> {
        let layout = matrix.layout();
        self.check(layout)?;
        let edit = self.expand(layout)?;
        let mut plan = Plan::default();
        for row in edit.changes.iter().filter_map(Change::row) {
            plan.rows.entry(row).or_insert_with(|| matrix.row(row).to_buf());
        }
        for change in &edit.changes {
            if let Change::Shift(shift) = change {
                plan.shift = plan.shift.wrapping_add(*shift as u32);
                for row in plan.rows.values_mut() {
                    change.write(row, 0);
                }
            } else if let Some(row) = change.row() {
                let row = plan.rows.get_mut(&row).expect("every row that a change touches was copied");
                change.write(row, 0);
            }
        }
        Ok(plan)
    }
}

impl Change {
    /// The row that the change touches; `None` if it touches all rows.
    pub(crate) const fn row(&self) -> Option<usize> {
        match *self {
            Self::Flip { row, .. }
            | Self::SetCode { row, .. }
            | Self::AddCode { row, .. }
            | Self::XorWord { row, .. }
            | Self::SetWord { row, .. } => Some(row),
            Self::Shift(_) | Self::Random(_) => None,
        }
    }

    fn check(&self, layout: &Layout) -> Result<(), EditError> {
        let within = |what, found: usize, limit: usize| {
            if found < limit {
                return Ok(());
            }
            Err(EditError::Range { edit: Edit::new(vec![self.clone()]).to_string(), what, found, limit })
        };
        if let Some(row) = self.row() {
            within("row", row, layout.rows())?;
        }
        match *self {
            Self::Flip { tensor, column, bit, .. } => {
                let what = if tensor == Tensor::Weight { "column" } else { "group" };
                has(tensor, layout, || self.clone())?;
                within(what, column, layout.columns(tensor))?;
                within("bit", bit as usize, layout.element_bits(tensor))
            }
            Self::SetCode { column, value, .. } => {
                within("column", column, layout.cols())?;
                if value > layout.width().mask() {
                    let edit = Edit::new(vec![self.clone()]).to_string();
                    return Err(EditError::Code { edit, value, bits: layout.bits() });
                }
                Ok(())
            }
            Self::AddCode { column, .. } => within("column", column, layout.cols()),
            Self::XorWord { word, .. } | Self::SetWord { word, .. } => within("word", word, layout.words_per_row()),
            Self::Shift(_) => Ok(()),
            Self::Random(random) => random.check(layout),
        }
    }
}

/// Checks that a head of `layout` has `tensor`, for a change of it.
fn has(tensor: Tensor, layout: &Layout, change: impl Fn() -> Change) -> Result<(), EditError> {
    let format = layout.format();
    if format.tensors().contains(&tensor) {
        return Ok(());
    }
    Err(EditError::NoSuchTensor { edit: Edit::new(vec![change()]).to_string(), tensor, format })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        quant::FloatType,
        testing::{heads::affine, strategies::edits::SHIFTS},
    };

    #[test]
    fn biases_of_a_format_without_them_are_refused_by_its_name_and_all_else_is_as_ever() {
        let with = affine(3, 64, 4, 32, FloatType::F16);
        let layout = Layout::new(3, 64, Format::MXFP4, FloatType::E8m0).expect("a layout");
        let matrix = MatrixBuf::zeros(layout);
        for text in
            ["flip:biases[0,0].0", "random:flips=3,seed=1,tensor=biases", "random:rate=1e-1,seed=1,tensor=biases"]
        {
            let edit: Edit = text.parse().expect("an edit");
            let refused =
                EditError::NoSuchTensor { edit: text.to_owned(), tensor: Tensor::Biases, format: layout.format() };
            assert_eq!(refused.to_string(), format!("{text}: a head in the format mxfp4 has no biases"));
            assert_eq!(edit.check(&with), Ok(()));
            assert_eq!(edit.check(&layout), Err(refused.clone()));
            assert_eq!(edit.plan(&matrix.view()), Err(refused));
        }
        let edit: Edit =
            "flip:scales[1,1].7+random:flips=9,seed=2,tensor=scales+set:weight[2,9]=7".parse().expect("an edit");
        let plan = edit.plan(&matrix.view()).expect("it fits");
        assert!(plan.rows.values().all(|row| row.biases().is_none()));
    }

    #[test]
    fn every_change_of_a_matrix_without_biases_is_taken_back() {
        let clean = MatrixBuf::zeros(Layout::new(3, 64, Format::MXFP8, FloatType::E8m0).expect("a layout"));
        let texts = ["flip:scales[1,1].7", "set:weight[2,9]=255", "add:weight[0,63]=-1", "xor:word[1,3]=0x80000001"];
        for change in texts
            .iter()
            .flat_map(|text| text.parse::<Edit>().expect("an edit").changes)
            .chain(SHIFTS.map(Change::Shift))
        {
            let mut matrix = clean.clone();
            let undo = change.write(&mut matrix, change.row().unwrap_or(0));
            assert_eq!(matrix == clean, matches!(change, Change::Shift(shift) if shift as u32 == 0), "{change:?}");
            undo.take_back(&mut matrix);
            assert!(matrix == clean, "{change:?}");
        }
    }

    #[test]
    fn a_random_edit_is_stored_as_its_flips_and_beyond_64_changes_as_the_generator_s_text_with_their_digest() {
        let layout = affine(96, 64, 4, 32, FloatType::F16);
        let stored = |text: &str| {
            let edit: Edit = text.parse().expect("an edit");
            let expanded = edit.expand(&layout).expect("flips");
            (edit.stored(&expanded), expanded.to_string())
        };
        for listed in ["clean", "shift:3", "random:flips=64,seed=3", "shift:1+random:flips=63,seed=3"] {
            let (found, expanded) = stored(listed);
            assert_eq!(found, (expanded, None), "{listed}");
        }
        for random in ["random:flips=65,seed=3", "shift:1+random:flips=64,seed=3", "random:rate=0.5,seed=3"] {
            let (found, expanded) = stored(random);
            let text = random.parse::<Edit>().expect("an edit").to_string();
            assert_eq!(found, (text, Some(blake3::hash(expanded.as_bytes()))), "{random}");
        }
        // What was never drawn is no generator's.
        let flips: Vec<String> = (0..70).map(|row| format!("flip:weight[{row},0].1")).collect();
        let (found, expanded) = stored(&flips.join("+"));
        assert_eq!(found, (expanded, None));
    }
}
