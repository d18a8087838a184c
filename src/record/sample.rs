//! Keys of which only so many are kept, chosen evenly and always the same ones.

use std::collections::{BTreeMap, btree_map};

/// Values by key: of all keys that come, those with the smallest digests, as many as there is room for.
///
/// A key that is dropped never comes back, since the greatest digest that is kept only falls. So every key that is left has
/// met all that was said of it, whatever the order in which things were said, and which keys are left depends on the keys
/// alone.
#[derive(Clone, Debug)]
pub(crate) struct Sample<K, V> {
    most: usize,
    kept: BTreeMap<([u8; 8], K), V>,
    /// The least of the keys that were dropped.
    dropped: Option<([u8; 8], K)>,
}

impl<K: Ord + Clone + AsRef<[u8]>, V: Default> Sample<K, V> {
    /// Keeps at most so many keys, at least one.
    pub(crate) const fn new(most: usize) -> Self {
        Self { most, kept: BTreeMap::new(), dropped: None }
    }

    /// The value of a key; none of a key that there is no room for.
    pub(crate) fn entry(&mut self, key: K) -> Option<&mut V> {
        let mut digest = [0; 8];
        digest.copy_from_slice(&blake3::hash(key.as_ref()).as_bytes()[..8]);
        let key = (digest, key);
        if self.dropped.as_ref().is_some_and(|dropped| key >= *dropped) {
            return None;
        }
        if self.kept.len() == self.most && !self.kept.contains_key(&key) {
            let greatest = self.kept.last_key_value().map(|(greatest, _)| greatest.clone());
            if greatest.as_ref().is_some_and(|greatest| key > *greatest) {
                self.dropped = Some(key);
                return None;
            }
            self.kept.pop_last();
            self.dropped = greatest;
        }
        Some(match self.kept.entry(key) {
            btree_map::Entry::Occupied(known) => known.into_mut(),
            btree_map::Entry::Vacant(new) => new.insert(V::default()),
        })
    }

    /// What is kept, in no order that means anything.
    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.kept.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;

    #[test]
    fn what_is_kept_is_whole_and_does_not_depend_on_the_order() {
        let mut keys: Vec<String> = (0..3_000).map(|i| format!("key {}", i % 1_000)).collect();
        let mut generator = SplitMix64(3);
        let mut found = Vec::new();
        for _ in 0..5 {
            generator.shuffle(&mut keys);
            let mut sample: Sample<String, usize> = Sample::new(64);
            for key in &keys {
                if let Some(count) = sample.entry(key.clone()) {
                    *count += 1;
                }
            }
            assert!(sample.dropped.is_some() && sample.values().all(|&count| count == 3));
            found.push(sample.kept.into_keys().collect::<Vec<_>>());
        }
        assert_eq!(found[0].len(), 64);
        assert!(found.iter().all(|keys| *keys == found[0]));
    }

    #[test]
    fn few_keys_are_all_kept() {
        let mut sample: Sample<String, usize> = Sample::new(3);
        for key in ["a", "b", "a", "c"] {
            *sample.entry(key.to_owned()).expect("room") += 1;
        }
        assert!(sample.dropped.is_none());
        assert_eq!(sample.values().sum::<usize>(), 4);
    }
}
