//! Keys and values of the positions that a body has seen, as a tree.
//!
//! A stretch of positions that was computed in one go is one array for all layers, so that a position is no more than
//! one allocation; what lies before a new position is put together from the arrays on its path, and forgotten again.

use std::rc::Rc;

use mlx_rs::{
    Array,
    ops::{concatenate, indexing::TryIndexOp},
};

use super::{Named, arrays::shape};
use crate::model::{BodyError, Slot};

/// The axis of positions in `[2 * layers, 1, kv_heads, n, head_dim]`.
const POSITIONS: i32 = 3;

/// Positions that follow each other and were computed together.
#[derive(Debug)]
struct Stretch {
    /// The position before the first of them.
    before: Option<Slot>,
    array: Array,
    len: usize,
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

    fn entry(&self, slot: Slot) -> &Entry {
        self.entries[slot.0 as usize].as_ref().expect("a position that was not released")
    }

    /// Keys and values of all positions up to `slot`.
    ///
    /// # Errors
    /// What MLX reports.
    pub(super) fn path(&self, slot: Option<Slot>) -> Result<Option<Array>, BodyError> {
        let mut parts = Vec::new();
        let mut at = slot;
        while let Some(slot) = at {
            let Entry { stretch, at: index, .. } = self.entry(slot);
            parts.push(if index + 1 == stretch.len {
                stretch.array.clone()
            } else {
                let [end] = shape([index + 1])?;
                stretch.array.try_index((.., .., .., ..end)).named("slice")?
            });
            at = stretch.before;
        }
        parts.reverse();
        Ok(match parts.len() {
            0 | 1 => parts.pop(),
            _ => Some(concatenate(&parts, POSITIONS).named("concatenate")?),
        })
    }

    /// Slots for `len` positions after `before`, whose keys and values are `array`.
    pub(super) fn add(&mut self, before: Option<Slot>, array: Array, len: usize) -> Vec<Slot> {
        let first = self.after(before);
        let stretch = Rc::new(Stretch { before, array, len });
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
