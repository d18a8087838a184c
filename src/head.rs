//! The head in memory of its own, edited in place under a guard that restores it.
//!
//! Measuring needs no writing (see [`crate::edit::Edit::plan`]). Writing an edit into the head, taking it back
//! and finding every bit as it was is the property that this project exists to test, and here is where it
//! happens. The checkpoint's file is never written: the head's three ranges of it are mapped privately,
//! copy-on-write, so that only the pages an edit touches cost memory, and a process that is killed leaves
//! nothing behind.
//!
//! An edit is undone by its inverse, in reverse order (a shift by adding it back, anything else by putting
//! back the bytes that were there), not by copying the original over it: that every bit returns is then a
//! finding. A BLAKE3 digest before and after is the proof.

use std::{
    ops::{Deref, DerefMut},
    path::PathBuf,
    sync::Arc,
};

use blake3::Hash;
use memmap2::{MmapMut, MmapOptions};

use crate::{
    checkpoint::{Bytes, Quantized, digest::head_digest},
    edit::{Change, Edit, EditError, Undo},
    quant::{Matrix, MatrixRef, Tensor},
    team::Team,
};

/// Bytes of packed words that one work item shifts.
const CHUNK: usize = 1 << 16;

/// Why a head could not be edited or restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeadError {
    /// The edit does not fit the head.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// A range of the checkpoint's file could not be mapped.
    #[error("cannot map the head's {part} in {}: {source}", .path.display())]
    Map {
        /// `weight`, `scales` or `biases`.
        part: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The head is not what it was before an edit.
    #[error("the head was not restored: its digest was {before} before the edit and is {after} after it")]
    NotRestored {
        /// Before the edit was applied.
        before: Hash,
        /// After it was taken back.
        after: Hash,
    },
    /// A guard found at its end that the head was not restored.
    #[error("this head was not restored after an earlier edit; open the model again")]
    Poisoned,
}

#[derive(Debug)]
enum Region {
    Mapped(MmapMut),
    Owned(Vec<u8>),
}

impl Region {
    fn private(stored: &Bytes, tensor: Tensor) -> Result<Self, HeadError> {
        let Some(range) = stored.origin() else { return Ok(Self::Owned(stored.to_vec())) };
        let map = |source| HeadError::Map { part: tensor.name(), path: range.path.clone(), source };
        let file = std::fs::File::open(&range.path).map_err(map)?;
        // SAFETY: `map_copy` asks that nobody changes the file while it is mapped. This process does not: the mapping is
        // private, so what is written into it reaches no file. That no other process cuts it short or writes it
        // cannot be enforced; it is the condition that the documentation of `checkpoint` puts on the caller.
        let mapped = unsafe { MmapOptions::new().offset(range.offset).len(range.len).map_copy(&file) };
        mapped.map(Self::Mapped).map_err(map)
    }
}

impl Deref for Region {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Owned(bytes) => bytes,
        }
    }
}

impl DerefMut for Region {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Owned(bytes) => bytes,
        }
    }
}

/// A head that can be written.
#[derive(Debug)]
pub struct Head {
    matrix: Matrix<Region>,
    team: Arc<Team>,
    /// Digest of the bytes as they are, where it is known.
    digest: Option<Hash>,
    poisoned: bool,
}

/// Proof that an edit was undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restoration {
    /// Digest before the edit.
    pub before: Hash,
    /// Digest after it was taken back; the same.
    pub after: Hash,
}

impl Head {
    /// A private copy of `head`: of the pages of its file that will be written, or of its bytes where it does
    /// not come from a file.
    ///
    /// # Errors
    /// [`HeadError::Map`].
    pub fn private(head: &Quantized, team: Arc<Team>) -> Result<Self, HeadError> {
        let weight = Region::private(head.weight(), Tensor::Weight)?;
        let scales = Region::private(head.scales(), Tensor::Scales)?;
        let biases = head.biases().map(|biases| Region::private(biases, Tensor::Biases)).transpose()?;
        let matrix = Matrix::new(*head.layout(), weight, scales, biases).expect("as long as what they are copies of");
        Ok(Self { matrix, team, digest: None, poisoned: false })
    }

    /// The head as it is now.
    pub fn view(&self) -> MatrixRef<'_> {
        self.matrix.view()
    }

    /// BLAKE3 over weight, scales and biases as they are now.
    pub fn digest(&mut self) -> Hash {
        match self.digest {
            Some(digest) => digest,
            None => *self.digest.insert(head_digest(&self.view())),
        }
    }

    /// Writes `edit` and returns a guard that takes it back when it goes out of scope.
    ///
    /// # Errors
    /// [`HeadError::Edit`] if the edit does not fit the head, [`HeadError::Poisoned`]; nothing is written then.
    pub fn apply(&mut self, edit: &Edit) -> Result<Applied<'_>, HeadError> {
        if self.poisoned {
            return Err(HeadError::Poisoned);
        }
        edit.check(self.matrix.layout())?;
        let edit = edit.expand(self.matrix.layout())?;
        let before = self.digest();
        // The guard exists before the first byte is written, so that a panic half-way is restored, too.
        let mut applied = Applied { head: self, undo: Vec::with_capacity(edit.changes().len()), before };
        for change in edit.changes() {
            applied.head.digest = None;
            let undo = match *change {
                Change::Shift(shift) => {
                    applied.head.shift(shift as u32);
                    Undo::Shift(shift as u32)
                }
                ref other => {
                    let row = other.row().expect("all but shifts have a row");
                    other.write(&mut applied.head.matrix, row)
                }
            };
            applied.undo.push(undo);
        }
        Ok(applied)
    }

    fn shift(&mut self, shift: u32) {
        let words = self.matrix.part_mut(Tensor::Weight).expect("every format has a weight");
        self.team.for_each_chunk(words, CHUNK, |_, chunk| crate::edit::shift_words(chunk, shift));
    }

    /// Takes changes back, the last first, and gives the digest of what that leaves.
    fn undo(&mut self, changes: &mut Vec<Undo>) -> Hash {
        self.digest = None;
        while let Some(undo) = changes.pop() {
            match undo {
                Undo::Shift(shift) => self.shift(shift.wrapping_neg()),
                other => other.take_back(&mut self.matrix),
            }
        }
        self.digest()
    }
}

/// A head with an edit written into it, until this goes out of scope.
#[derive(Debug)]
pub struct Applied<'a> {
    head: &'a mut Head,
    undo: Vec<Undo>,
    before: Hash,
}

impl Applied<'_> {
    /// The edited head.
    pub fn view(&self) -> MatrixRef<'_> {
        self.head.view()
    }

    /// BLAKE3 over the edited weight, scales and biases.
    pub fn digest(&mut self) -> Hash {
        self.head.digest()
    }

    /// Writes another edit on top. It is taken back before this one.
    ///
    /// # Errors
    /// As [`Head::apply`].
    pub fn apply(&mut self, edit: &Edit) -> Result<Applied<'_>, HeadError> {
        self.head.apply(edit)
    }

    /// Takes the edit back now, and proves it.
    ///
    /// # Errors
    /// [`HeadError::NotRestored`]; the head is then of no further use.
    pub fn restore(mut self) -> Result<Restoration, HeadError> {
        let restoration = self.take_back();
        if restoration.before == restoration.after {
            Ok(restoration)
        } else {
            Err(HeadError::NotRestored { before: restoration.before, after: restoration.after })
        }
    }

    fn take_back(&mut self) -> Restoration {
        let restoration = Restoration { before: self.before, after: self.head.undo(&mut self.undo) };
        self.head.poisoned |= restoration.before != restoration.after;
        restoration
    }
}

impl Drop for Applied<'_> {
    fn drop(&mut self) {
        // After `restore` there is nothing left to undo. An edit without changes has nothing, either.
        if !self.undo.is_empty() {
            self.take_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{checkpoint::Checkpoint, testing::fixture::Fixture};

    fn head() -> Head {
        let checkpoint = Checkpoint::from_files(Fixture::default().files()).expect("a checkpoint");
        Head::private(checkpoint.weights().head(), Arc::new(Team::new(1))).expect("a head")
    }

    #[test]
    fn a_head_that_was_not_restored_says_so_and_is_of_no_further_use() {
        let mut head = head();
        let applied = head.apply(&"shift:1".parse().expect("an edit")).expect("it fits");
        // Somebody else's stray write: one bit.
        applied.head.matrix.part_mut(Tensor::Weight).expect("it has one")[77] ^= 4;
        assert!(matches!(applied.restore(), Err(HeadError::NotRestored { before, after }) if before != after));
        assert!(matches!(head.apply(&Edit::clean()), Err(HeadError::Poisoned)));
    }

    #[test]
    fn a_guard_that_only_drops_notices_too() {
        let mut head = head();
        let applied = head.apply(&"flip:weight[3,3].1".parse().expect("an edit")).expect("it fits");
        applied.head.matrix.part_mut(Tensor::Scales).expect("it has some")[5] ^= 1;
        drop(applied);
        assert!(matches!(head.apply(&Edit::clean()), Err(HeadError::Poisoned)));
    }
}
