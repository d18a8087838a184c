//! Keys and values of the positions that a body has seen, as a tree.
//!
//! A stretch of positions that was computed in one go has its arrays (`kept.rs`) to itself; what lies before a new position is put together
//! from those on its path, and forgotten again.

use std::rc::Rc;

use mlx_rs::{
    Array,
    ops::{concatenate, indexing::TryIndexOp},
};

use super::{Named, arrays::shape, kept::POSITIONS};
use crate::model::{BodyError, Slot};

/// Positions that follow each other and were computed together.
#[derive(Debug)]
struct Stretch {
    /// The position before the first of them.
    before: Option<Slot>,
    arrays: Vec<Array>,
    len: usize,
    /// Positions of the prompt that the path begins with, where that was said.
    prompt: usize,
}

#[derive(Debug)]
struct Entry {
    position: usize,
    /// Where its keys and values lie, and at which index there.
    stretch: Rc<Stretch>,
    at: usize,
}

/// Slots are used again once they are released.
#[derive(Debug, Default)]
pub(super) struct Cache {
    entries: Vec<Option<Entry>>,
    free: Vec<Slot>,
}

impl Cache {
    /// Distance of the position after `slot` from the start.
    ///
    /// # Panics
    /// If `slot` was released.
    pub(super) fn after(&self, slot: Option<Slot>) -> usize {
        slot.map_or(0, |slot| self.entry(slot).position + 1)
    }

    /// Positions of the prompt that the path of `slot` begins with, where that was said.
    ///
    /// # Panics
    /// If `slot` was released.
    pub(super) fn prompt(&self, slot: Slot) -> usize {
        self.entry(slot).stretch.prompt
    }

    fn entry(&self, slot: Slot) -> &Entry {
        self.entries[slot.0 as usize].as_ref().expect("a position that was not released")
    }

    /// Keys and values of all positions up to `slot`.
    ///
    /// # Errors
    /// What MLX reports.
    pub(super) fn path(&self, slot: Option<Slot>) -> Result<Option<Vec<Array>>, BodyError> {
        let mut stretches: Vec<Vec<Array>> = Vec::new();
        let mut at = slot;
        while let Some(slot) = at {
            let Entry { stretch, at: index, .. } = self.entry(slot);
            stretches.push(if index + 1 == stretch.len {
                stretch.arrays.clone()
            } else {
                let [end] = shape([index + 1])?;
                let begun = |array: &Array| array.try_index((.., .., .., ..end)).named("slice");
                stretch.arrays.iter().map(begun).collect::<Result<_, _>>()?
            });
            at = stretch.before;
        }
        stretches.reverse();
        if stretches.len() < 2 {
            return Ok(stretches.pop());
        }
        let joined = (0..stretches[0].len()).map(|array| {
            let parts: Vec<&Array> = stretches.iter().map(|arrays| &arrays[array]).collect();
            concatenate(&parts, POSITIONS).named("concatenate")
        });
        joined.collect::<Result<_, _>>().map(Some)
    }

    /// Slots for `len` positions after `before`, whose keys and values are `arrays`, on a path that begins with `prompt` positions of a
    /// prompt.
    pub(super) fn add(&mut self, before: Option<Slot>, arrays: Vec<Array>, len: usize, prompt: usize) -> Vec<Slot> {
        let first = self.after(before);
        let stretch = Rc::new(Stretch { before, arrays, len, prompt });
        (0..len)
            .map(|at| {
                let entry = Entry { position: first + at, stretch: Rc::clone(&stretch), at };
                let slot = self.free.pop().unwrap_or_else(|| {
                    self.entries.push(None);
                    Slot(u32::try_from(self.entries.len() - 1).expect("fewer than 2^32 positions fit into memory"))
                });
                self.entries[slot.0 as usize] = Some(entry);
                slot
            })
            .collect()
    }

    pub(super) fn release(&mut self, slot: Slot) {
        debug_assert!(self.entries[slot.0 as usize].is_some(), "a slot is released once");
        self.entries[slot.0 as usize] = None;
        self.free.push(slot);
    }
}
