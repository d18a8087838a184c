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

pub use random::{Amount, Family, MOST_FLIPS, Random, Value};
pub(crate) use random::{Generator, mix};
pub use text::ParseError;
pub use write::{MatrixMut, Undo};

use crate::quant::{Layout, MatrixRef};

/// One of the three arrays of a quantized matrix.
#[cfg_attr(feature = "testing", derive(serde::Serialize, serde::Deserialize))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tensor {
    /// The packed codes.
    #[default]
    Weight,
    /// One factor a group.
    Scales,
    /// One offset a group.
    Biases,
}

impl Tensor {
    /// `weight`, `scales` or `biases`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Weight => "weight",
            Self::Scales => "scales",
            Self::Biases => "biases",
        }
    }

    /// Elements a row: codes of `weight`, groups of the others.
    const fn columns(self, layout: &Layout) -> usize {
        match self {
            Self::Weight => layout.cols(),
            Self::Scales | Self::Biases => layout.groups_per_row(),
        }
    }

    /// Bits of one element.
    const fn bits(self, layout: &Layout) -> usize {
        match self {
            Self::Weight => layout.bits().get(),
            Self::Scales | Self::Biases => 8 * layout.scale_type().size(),
        }
    }
}

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
    /// Rows in their final form, shifts included, by row of the matrix.
    pub rows: BTreeMap<usize, RowPatch>,
}

/// One row of a quantized matrix, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowPatch {
    weight: Vec<u8>,
    scales: Vec<u8>,
    biases: Vec<u8>,
}

impl RowPatch {
    fn of(matrix: &MatrixRef<'_>, row: usize) -> Self {
        let row = matrix.row(row);
        Self { weight: row.weight().to_vec(), scales: row.scales().to_vec(), biases: row.biases().to_vec() }
    }

    /// The row as a matrix of its own, of the layout of the matrix that it belongs to.
    ///
    /// # Panics
    /// If `layout` is of another width or type.
    pub fn view(&self, layout: &Layout) -> MatrixRef<'_> {
        MatrixRef::new(layout.with_rows(1), &self.weight, &self.scales, &self.biases).expect("a row of this layout")
    }

    fn writable(&mut self, layout: &Layout) -> MatrixMut<'_> {
        MatrixMut::new(layout.with_rows(1), &mut self.weight, &mut self.scales, &mut self.biases)
            .expect("a row of this layout")
    }
}

impl Plan {
    /// The first `count` packed words of row 0 after the edit, or all of them if there are fewer.
    pub fn first_words(&self, matrix: &MatrixRef<'_>, count: usize) -> Vec<u32> {
        let layout = matrix.layout();
        (0..count.min(layout.words_per_row()))
            .map(|word| match self.rows.get(&0) {
                Some(row) => row.view(layout).word(0, word),
                None => matrix.word(0, word).wrapping_sub(self.shift),
            })
            .collect()
    }
}

/// A packed word under a shift: the low 32 bits of `word as i64 - shift`, which is the low 32 bits of the
/// shift subtracted with wrap-around.
#[inline]
pub const fn shift_word(word: u32, shift: i64) -> u32 {
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

    /// The same edit with random families turned into the flips that they stand for. What is stored is
    /// always expanded, so that it can be replayed without the generator.
    ///
    /// # Errors
    /// [`EditError::Flips`], [`EditError::Many`] or [`EditError::Rate`].
    pub fn expand(&self, layout: &Layout) -> Result<Self, EditError> {
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
        self.changes.iter().try_for_each(|change| change.check(layout))
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
            plan.rows.entry(row).or_insert_with(|| RowPatch::of(matrix, row));
        }
        for change in &edit.changes {
            if let Change::Shift(shift) = change {
                plan.shift = plan.shift.wrapping_add(*shift as u32);
                for row in plan.rows.values_mut() {
                    row.writable(layout).shift(*shift as u32);
                }
            } else if let Some(row) = change.row() {
                let patch = plan.rows.get_mut(&row).expect("every row that a change touches was copied");
                patch.writable(layout).write(change, 0);
            }
        }
        Ok(plan)
    }
}

impl Change {
    /// The row that it touches, where it touches one.
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
                within(what, column, tensor.columns(layout))?;
                within("bit", bit as usize, tensor.bits(layout))
            }
            Self::SetCode { column, value, .. } => {
                within("column", column, layout.cols())?;
                if value > layout.bits().mask() {
                    let edit = Edit::new(vec![self.clone()]).to_string();
                    return Err(EditError::Code { edit, value, bits: layout.bits().get() });
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
