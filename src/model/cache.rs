//! What every position that a body has seen keeps for each layer, linked to the position before: keys and values, or what a layer with a
//! state of its own computes that from.
//!
//! It is rows of floats, and they lie in pages of [`PAGE`] slots. In a page, a row of a layer at all of these slots lies together, so that
//! attention reads what one key head has along a path as few stretches: slots are given out in ascending order, so a prompt's are
//! neighbours.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::Slot;

/// Slots of a page.
const PAGE: usize = 64;

/// Which position it follows, and how far from the start it is.
#[derive(Debug)]
struct Entry {
    parent: Option<Slot>,
    position: u32,
    /// Tokens of the prompt that the path begins with, where that was said.
    prompt: u32,
}

/// Where a layer's rows lie in a page: `[rows, PAGE, columns]` from `start` on. The first half of the rows of attention are keys of its
/// heads, the others values.
#[derive(Clone, Copy, Debug)]
struct Place {
    start: usize,
    rows: usize,
    columns: usize,
}

/// Slots of one path that follow one another, in one page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    first: Slot,
    len: usize,
}

impl Run {
    /// Takes the position after it in, if it lies behind it.
    const fn take(&mut self, slot: Slot) -> bool {
        let follows = slot.0 == self.first.0 + self.len as u32 && !slot.0.is_multiple_of(PAGE as u32);
        if follows {
            self.len += 1;
        }
        follows
    }
}

/// Appends a position to the runs of a path.
pub(super) fn append(path: &mut Vec<Run>, start: usize, slot: Slot) {
    if !path[start..].last_mut().is_some_and(|last| last.take(slot)) {
        path.push(Run { first: slot, len: 1 });
    }
}

/// Slots are used again after [`Cache::release`], with their memory.
#[derive(Debug)]
pub(super) struct Cache {
    layers: Vec<Place>,
    /// Floats that a position keeps.
    width: usize,
    entries: Vec<Entry>,
    pages: Vec<Box<[f32]>>,
    free: BinaryHeap<Reverse<u32>>,
}

impl Cache {
    /// `layers`: rows that a position keeps for each layer, and the columns of one.
    pub(super) fn new(layers: impl Iterator<Item = (usize, usize)>) -> Self {
        let mut width = 0;
        let layers = layers.map(|(rows, columns)| {
            let start = width * PAGE;
            width += rows * columns;
            Place { start, rows, columns }
        });
        let layers = layers.collect();
        Self { layers, width, entries: Vec::new(), pages: Vec::new(), free: BinaryHeap::new() }
    }

    /// Bytes that a position keeps.
    pub(super) const fn bytes_per_position(&self) -> usize {
        self.width * size_of::<f32>()
    }

    /// A slot for the position after `parent`, or for the first one, of a prompt of `prompt` tokens.
    pub(super) fn open(&mut self, parent: Option<Slot>, prompt: usize) -> Slot {
        let position = parent.map_or(0, |parent| self.entries[parent.0 as usize].position + 1);
        let prompt = parent.map_or(prompt as u32, |parent| self.entries[parent.0 as usize].prompt);
        let entry = Entry { parent, position, prompt };
        if let Some(Reverse(slot)) = self.free.pop() {
            self.entries[slot as usize] = entry;
            return Slot(slot);
        }
        let slot = u32::try_from(self.entries.len()).expect("fewer than 2^32 positions fit into memory");
        self.entries.push(entry);
        if self.pages.len() * PAGE < self.entries.len() {
            self.pages.push(vec![0.0; self.width * PAGE].into());
        }
        Slot(slot)
    }

    pub(super) fn release(&mut self, slot: Slot) {
        debug_assert!(!self.free.iter().any(|&Reverse(free)| free == slot.0), "a slot is released once");
        self.free.push(Reverse(slot.0));
    }

    /// The position before it.
    pub(super) fn parent(&self, slot: Slot) -> Option<Slot> {
        self.entries[slot.0 as usize].parent
    }

    /// Distance from the start: 0 for the first position.
    pub(super) fn position(&self, slot: Slot) -> usize {
        self.entries[slot.0 as usize].position as usize
    }

    /// Positions that the text had when `slot` was computed: those of the prompt inside of it, else those up to this one.
    pub(super) fn known(&self, slot: Slot) -> usize {
        let Entry { position, prompt, .. } = self.entries[slot.0 as usize];
        prompt.max(position + 1) as usize
    }

    /// Keeps the rows of `slot` in a layer, which lie one after the other in some parts: keys and values `[heads, head_dim]`, or one row.
    pub(super) fn keep<const N: usize>(&mut self, layer: usize, slot: Slot, parts: [&[f32]; N]) {
        let place = self.layers[layer];
        let (page, at) = (slot.0 as usize / PAGE, slot.0 as usize % PAGE);
        let rows = parts.into_iter().flat_map(|part| part.chunks_exact(place.columns));
        for (row, from) in rows.enumerate() {
            let start = place.start + (row * PAGE + at) * place.columns;
            self.pages[page][start..][..place.columns].copy_from_slice(from);
        }
    }

    /// The row that `slot` keeps in a layer that has one.
    pub(super) fn row(&self, layer: usize, slot: Slot) -> &[f32] {
        let Place { start, columns, .. } = self.layers[layer];
        let (page, at) = (slot.0 as usize / PAGE, slot.0 as usize % PAGE);
        &self.pages[page][start + at * columns..][..columns]
    }

    /// The keys and the values of a head of a layer, at the first `count` positions of a path.
    pub(super) fn stretches(&self, layer: usize, head: usize, path: &[Run], mut count: usize) -> [Vec<&[f32]>; 2] {
        let Place { start, rows, columns } = self.layers[layer];
        let mut found = [Vec::with_capacity(path.len()), Vec::with_capacity(path.len())];
        for run in path {
            let len = run.len.min(count);
            count -= len;
            let (page, at) = (run.first.0 as usize / PAGE, run.first.0 as usize % PAGE);
            for (which, found) in found.iter_mut().enumerate() {
                let start = start + ((which * rows / 2 + head) * PAGE + at) * columns;
                found.push(&self.pages[page][start..][..len * columns]);
            }
        }
        found
    }

    /// Appends the runs from the first position to `slot` to `path`.
    pub(super) fn path(&self, slot: Slot, path: &mut Vec<Run>) {
        let mut slots = Vec::with_capacity(self.position(slot) + 1);
        let mut at = Some(slot);
        while let Some(slot) = at {
            slots.push(slot);
            at = self.entries[slot.0 as usize].parent;
        }
        let start = path.len();
        slots.into_iter().rev().for_each(|slot| append(path, start, slot));
    }
}
