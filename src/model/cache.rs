//! Keys and values of every position that a body has seen, linked to the position before.

use super::Slot;

/// One position: which one it follows, how far from the start it is, and its keys and values.
#[derive(Debug)]
struct Entry {
    parent: Option<Slot>,
    position: u32,
    /// `[layers, 2, kv_dim]`, as far as they are known: keys, then values.
    data: Vec<f32>,
}

/// Slots are used again after [`Cache::release`], with their memory.
#[derive(Debug)]
pub(super) struct Cache {
    kv_dim: usize,
    width: usize,
    entries: Vec<Entry>,
    free: Vec<Slot>,
}

impl Cache {
    pub(super) fn new(layers: usize, kv_dim: usize) -> Self {
        Self { kv_dim, width: layers * 2 * kv_dim, entries: Vec::new(), free: Vec::new() }
    }

    /// Bytes of keys and values a position.
    pub(super) const fn bytes_per_position(&self) -> usize {
        self.width * size_of::<f32>()
    }

    /// A slot for the position after `parent`, or for the first one.
    pub(super) fn open(&mut self, parent: Option<Slot>) -> Slot {
        let position = parent.map_or(0, |parent| self.entries[parent.0 as usize].position + 1);
        if let Some(slot) = self.free.pop() {
            let entry = &mut self.entries[slot.0 as usize];
            (entry.parent, entry.position) = (parent, position);
            entry.data.clear();
            return slot;
        }
        let slot = Slot(u32::try_from(self.entries.len()).expect("fewer than 2^32 positions fit into memory"));
        self.entries.push(Entry { parent, position, data: Vec::with_capacity(self.width) });
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

    /// Takes keys and values of `slot` in the layer after those that it has, and gives the keys, which may be changed until
    /// they are read.
    pub(super) fn append(&mut self, slot: Slot, keys: &[f32], values: &[f32]) -> &mut [f32] {
        debug_assert_eq!((keys.len(), values.len()), (self.kv_dim, self.kv_dim), "keys and values");
        let data = &mut self.entries[slot.0 as usize].data;
        let start = data.len();
        data.extend_from_slice(keys);
        data.extend_from_slice(values);
        &mut data[start..start + keys.len()]
    }

    /// `layer`'s keys of `slot`.
    #[inline]
    pub(super) fn keys(&self, slot: Slot, layer: usize) -> &[f32] {
        &self.entries[slot.0 as usize].data[layer * 2 * self.kv_dim..][..self.kv_dim]
    }

    /// `layer`'s values of `slot`.
    #[inline]
    pub(super) fn values(&self, slot: Slot, layer: usize) -> &[f32] {
        &self.entries[slot.0 as usize].data[(layer * 2 + 1) * self.kv_dim..][..self.kv_dim]
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
