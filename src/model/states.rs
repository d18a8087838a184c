//! States of layers that carry one from position to position, at the positions that may be followed soon.
//!
//! A state is large: that of one position of a gated DeltaNet is as large as the keys and values of hundreds. But it follows from what the
//! positions of a path keep (`cache.rs`), by a computation whose order is fixed. So states of few positions are kept, those that were used
//! last, and a missing one is computed again from the nearest one before it, to the same bits.

use std::collections::{BTreeMap, HashMap};

use super::Slot;

/// Bytes of states that are kept: as many as `trial/` gives to prefixes.
const BYTES: usize = 1 << 30;

/// States of positions, each of which is the states of all layers one after the other.
#[derive(Debug)]
pub(super) struct States {
    /// Where the state of each layer begins in that of a position, and where the last one ends.
    starts: Vec<usize>,
    /// How many there are at most, those included that are lent.
    most: usize,
    lent: usize,
    /// With the time of last use.
    kept: HashMap<Slot, (u64, Box<[f32]>)>,
    by_time: BTreeMap<u64, Slot>,
    clock: u64,
}

impl States {
    /// `layers`: floats of the state of each layer, 0 where it has none.
    pub(super) fn new(layers: impl Iterator<Item = usize>) -> Self {
        let mut starts = vec![0];
        for floats in layers {
            starts.push(starts[starts.len() - 1] + floats);
        }
        let bytes = starts[starts.len() - 1] * size_of::<f32>();
        let most = BYTES.checked_div(bytes).unwrap_or(0).max(2);
        let (kept, by_time) = Default::default();
        Self { starts, most, lent: 0, kept, by_time, clock: 0 }
    }

    /// Keeps so many states at most, at least two.
    #[cfg(test)]
    pub(super) fn limit(&mut self, most: usize) {
        self.most = most.max(2);
    }

    /// Floats of a position's state; 0 where no layer has one.
    pub(super) fn floats(&self) -> usize {
        self.starts[self.starts.len() - 1]
    }

    /// How many paths may be extended together: the states at their ends and at the positions before fit in.
    pub(super) const fn paths_at_once(&self) -> usize {
        self.most / 2
    }

    /// The part of a position's state that a layer has.
    pub(super) fn of_layer<'a>(&self, layer: usize, state: &'a mut [f32]) -> &'a mut [f32] {
        &mut state[self.starts[layer]..self.starts[layer + 1]]
    }

    /// Whether the state at `slot` is there.
    pub(super) fn has(&self, slot: Slot) -> bool {
        self.kept.contains_key(&slot)
    }

    /// A state to go on with: a copy of the one at `slot`, which is there, or the state before the first position. [`States::keep`] takes it
    /// back.
    pub(super) fn lend(&mut self, slot: Option<Slot>) -> Box<[f32]> {
        if let Some(slot) = slot {
            self.touch(slot);
        }
        let mut state = match self.kept.len() + self.lent < self.most {
            true => vec![0.0; self.floats()].into(),
            false => self.take_oldest().unwrap_or_else(|| vec![0.0; self.floats()].into()),
        };
        match slot {
            Some(slot) => state.copy_from_slice(&self.kept[&slot].1),
            None => state.fill(0.0),
        }
        self.lent += 1;
        state
    }

    /// Keeps a state that was lent as that at `slot`.
    pub(super) fn keep(&mut self, slot: Slot, state: Box<[f32]>) {
        self.lent -= 1;
        self.release(slot);
        self.kept.insert(slot, (self.clock, state));
        self.by_time.insert(self.clock, slot);
        self.clock += 1;
    }

    /// Drops the state at `slot`, if it is there.
    pub(super) fn release(&mut self, slot: Slot) {
        if let Some((time, _)) = self.kept.remove(&slot) {
            self.by_time.remove(&time);
        }
    }

    fn touch(&mut self, slot: Slot) {
        let (time, _) = self.kept.get_mut(&slot).expect("a state that is there");
        self.by_time.remove(time);
        *time = self.clock;
        self.by_time.insert(self.clock, slot);
        self.clock += 1;
    }

    fn take_oldest(&mut self) -> Option<Box<[f32]>> {
        let (_, slot) = self.by_time.pop_first()?;
        self.kept.remove(&slot).map(|(_, state)| state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(most: usize) -> States {
        let mut states = States::new([0, 3, 0, 2].into_iter());
        states.limit(most);
        states
    }

    #[test]
    fn the_states_that_were_used_last_are_kept() {
        let mut states = with(3);
        for slot in 0..3 {
            let mut state = states.lend(None);
            state.fill(slot as f32);
            states.keep(Slot(slot), state);
        }
        // The oldest is used, so the one after it goes.
        let mut next = states.lend(Some(Slot(0)));
        assert_eq!(&*next, [0.0; 5]);
        assert_eq!([0, 1, 2].map(|slot| states.has(Slot(slot))), [true, false, true]);
        states.of_layer(3, &mut next).fill(9.0);
        assert_eq!(&*next, [0.0, 0.0, 0.0, 9.0, 9.0]);
        states.keep(Slot(3), next);
        assert_eq!([0, 1, 2, 3].map(|slot| states.has(Slot(slot))), [true, false, true, true]);
        states.release(Slot(2));
        assert!(!states.has(Slot(2)) && states.has(Slot(0)) && states.has(Slot(3)));
        assert_eq!(&*states.lend(None), [0.0; 5]);
        assert!(states.has(Slot(0)), "there was room");
    }

    #[test]
    fn a_position_that_is_followed_stays_while_its_path_is_extended() {
        let mut states = with(2);
        assert_eq!((states.floats(), states.paths_at_once()), (5, 1));
        let mut parent = None;
        for slot in 0..5 {
            let state = states.lend(parent.map(Slot));
            assert!(parent.is_none_or(|parent| states.has(Slot(parent))));
            states.keep(Slot(slot), state);
            parent = Some(slot);
        }
        assert_eq!([2, 3, 4].map(|slot| states.has(Slot(slot))), [false, true, true]);
    }

    #[test]
    fn states_larger_than_the_limit_are_two() {
        let states = States::new([BYTES].into_iter());
        assert_eq!(states.paths_at_once(), 1);
        assert_eq!(States::new(std::iter::empty()).floats(), 0);
    }
}
