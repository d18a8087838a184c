//! Keys and values of every position that a body has seen, linked to the position before.

use super::Slot;

/// One position: which one it follows, how far from the start it is, and its keys and values.
#[derive(Debug)]
struct Entry {
    parent: Option<Slot>,
    position: u32,
    /// Tokens of the prompt that the path begins with, where that was said.
    prompt: u32,
    /// Keys, then values, of one layer after the other, as far as they are known.
    data: Vec<f32>,
}

/// Slots are used again after [`Cache::release`], with their memory.
#[derive(Debug)]
pub(super) struct Cache {
    /// Where the keys and the values of each layer begin in [`Entry::data`].
    offsets: Vec<(usize, usize)>,
    /// Floats that a position keeps.
    width: usize,
    entries: Vec<Entry>,
    free: Vec<Slot>,
}

impl Cache {
    /// `key_value_sizes`: columns of all key heads of each layer, and of all value heads.
    pub(super) fn new(key_value_sizes: impl Iterator<Item = usize>) -> Self {
        let mut width = 0;
        let offsets = key_value_sizes.map(|size| {
            width += 2 * size;
            (width - 2 * size, width - size)
        });
        Self { offsets: offsets.collect(), width, entries: Vec::new(), free: Vec::new() }
    }

    /// Bytes of keys and values a position.
    pub(super) const fn bytes_per_position(&self) -> usize {
        self.width * size_of::<f32>()
    }

    /// A slot for the position after `parent`, or for the first one, of a prompt of `prompt` tokens.
    pub(super) fn open(&mut self, parent: Option<Slot>, prompt: usize) -> Slot {
        let position = parent.map_or(0, |parent| self.entries[parent.0 as usize].position + 1);
        let prompt = parent.map_or(prompt as u32, |parent| self.entries[parent.0 as usize].prompt);
        if let Some(slot) = self.free.pop() {
            let entry = &mut self.entries[slot.0 as usize];
            (entry.parent, entry.position, entry.prompt) = (parent, position, prompt);
            entry.data.clear();
            return slot;
        }
        let slot = Slot(u32::try_from(self.entries.len()).expect("fewer than 2^32 positions fit into memory"));
        self.entries.push(Entry { parent, position, prompt, data: Vec::with_capacity(self.width) });
        slot
    }

    pub(super) fn release(&mut self, slot: Slot) {
        debug_assert!(!self.free.contains(&slot), "a slot is released once");
        self.free.push(slot);
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

    /// Takes keys and values of `slot` in the layer after those that it has, and gives the keys, which may be changed until
    /// they are read.
    pub(super) fn append(&mut self, slot: Slot, keys: &[f32], values: &[f32]) -> &mut [f32] {
        debug_assert_eq!(keys.len(), values.len(), "keys and values");
        let data = &mut self.entries[slot.0 as usize].data;
        let start = data.len();
        data.extend_from_slice(keys);
        data.extend_from_slice(values);
        &mut data[start..start + keys.len()]
    }

    /// Where the keys and the values of `layer` begin among the floats of a position.
    pub(super) fn offsets(&self, layer: usize) -> (usize, usize) {
        self.offsets[layer]
    }

    /// `count` floats of `slot` from the `start`th.
    #[inline]
    pub(super) fn floats(&self, slot: Slot, start: usize, count: usize) -> &[f32] {
        &self.entries[slot.0 as usize].data[start..][..count]
    }

    /// Appends the slots from the first position to `slot` to `path`.
    pub(super) fn path(&self, slot: Slot, path: &mut Vec<Slot>) {
        let start = path.len();
        let mut at = Some(slot);
        while let Some(slot) = at {
            path.push(slot);
            at = self.entries[slot.0 as usize].parent;
        }
        path[start..].reverse();
    }
}
