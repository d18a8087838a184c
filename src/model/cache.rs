//! Keys and values of every position that a body has seen, linked to the position before.
//!
//! They lie in pages of [`PAGE`] slots. In a page, what one key head of a layer has at these slots lies together, so that attention reads a
//! path as few stretches: slots are given out in ascending order, so a prompt's are neighbours.

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

/// Where keys and values of a layer lie in a page: `[keys and values, heads, PAGE, head_dim]` from `start` on.
#[derive(Clone, Copy, Debug)]
struct Place {
    start: usize,
    heads: usize,
    head_dim: usize,
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
    /// `layers`: key heads of each layer, which are as many as its value heads, and the columns of one.
    pub(super) fn new(layers: impl Iterator<Item = (usize, usize)>) -> Self {
        let mut width = 0;
        let layers = layers.map(|(heads, head_dim)| {
            let start = width * PAGE;
            width += 2 * heads * head_dim;
            Place { start, heads, head_dim }
        });
        let layers = layers.collect();
        Self { layers, width, entries: Vec::new(), pages: Vec::new(), free: BinaryHeap::new() }
    }

    /// Bytes of keys and values a position.
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

    /// Distance from the start: 0 for the first position.
    pub(super) fn position(&self, slot: Slot) -> usize {
        self.entries[slot.0 as usize].position as usize
    }

    /// Positions that the text had when `slot` was computed: those of the prompt inside of it, else those up to this one.
    pub(super) fn known(&self, slot: Slot) -> usize {
        let Entry { position, prompt, .. } = self.entries[slot.0 as usize];
        prompt.max(position + 1) as usize
    }

    /// Keeps keys and values of `slot` in a layer, `[heads, head_dim]` each.
    pub(super) fn keep(&mut self, layer: usize, slot: Slot, keys: &[f32], values: &[f32]) {
        let place = self.layers[layer];
        let (page, at) = (slot.0 as usize / PAGE, slot.0 as usize % PAGE);
        let heads = keys.chunks_exact(place.head_dim).chain(values.chunks_exact(place.head_dim));
        for (head, from) in heads.enumerate() {
            let start = place.start + (head * PAGE + at) * place.head_dim;
            self.pages[page][start..][..place.head_dim].copy_from_slice(from);
        }
    }

    /// The keys and the values of a head of a layer, at the first `count` positions of a path.
    pub(super) fn stretches(&self, layer: usize, head: usize, path: &[Run], mut count: usize) -> [Vec<&[f32]>; 2] {
        let Place { start, heads, head_dim } = self.layers[layer];
        let mut found = [Vec::with_capacity(path.len()), Vec::with_capacity(path.len())];
        for run in path {
            let len = run.len.min(count);
            count -= len;
            let (page, at) = (run.first.0 as usize / PAGE, run.first.0 as usize % PAGE);
            for (which, found) in found.iter_mut().enumerate() {
                let start = start + ((which * heads + head) * PAGE + at) * head_dim;
                found.push(&self.pages[page][start..][..len * head_dim]);
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
