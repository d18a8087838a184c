//! A set of numbers in little memory: which trials of a run are finished, which bits of a head are critical.

use std::collections::BTreeMap;

/// Numbers that a chunk covers.
const CHUNK: usize = 1 << 16;
/// Numbers up to which a chunk is a list: as many take the room of a bitmap.
const LIST: usize = CHUNK / 16;

/// A set of numbers.
///
/// It takes a bit for each number of a range that is nearly full, and two bytes for each of some numbers in a range; a number
/// that has no others near it takes some tens of bytes, as a file may have that was tampered with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NumberSet {
    /// By the upper bits of the numbers.
    chunks: BTreeMap<usize, Chunk>,
    len: usize,
}

/// The lower bits of the numbers of a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Chunk {
    /// Ascending.
    List(Vec<u16>),
    /// A bit for each.
    Bits(Box<[u64; CHUNK / 64]>),
}

impl NumberSet {
    /// Puts a number into the set, and says whether it is new there.
    pub(crate) fn insert(&mut self, number: usize) -> bool {
        let chunk = self.chunks.entry(number / CHUNK).or_insert_with(|| Chunk::List(Vec::new()));
        let low = (number % CHUNK) as u16;
        let new = chunk.insert(low);
        self.len += usize::from(new);
        new
    }

    /// Whether a number is in the set.
    pub(crate) fn contains(&self, number: usize) -> bool {
        let low = (number % CHUNK) as u16;
        self.chunks.get(&(number / CHUNK)).is_some_and(|chunk| match chunk {
            Chunk::List(list) => list.binary_search(&low).is_ok(),
            Chunk::Bits(bits) => bits[usize::from(low) / 64] >> (low % 64) & 1 == 1,
        })
    }

    /// How many numbers are in the set.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Whether no number is in the set.
    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The numbers, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> {
        self.chunks.iter().flat_map(|(high, chunk)| chunk.iter().map(move |low| high * CHUNK + low))
    }
}

impl Extend<usize> for NumberSet {
    fn extend<I: IntoIterator<Item = usize>>(&mut self, numbers: I) {
        numbers.into_iter().for_each(|number| _ = self.insert(number));
    }
}

impl FromIterator<usize> for NumberSet {
    fn from_iter<I: IntoIterator<Item = usize>>(numbers: I) -> Self {
        let mut set = Self::default();
        set.extend(numbers);
        set
    }
}

impl Chunk {
    fn iter(&self) -> Box<dyn Iterator<Item = usize> + '_> {
        match self {
            Self::List(list) => Box::new(list.iter().map(|&low| usize::from(low))),
            Self::Bits(bits) => Box::new(bits.iter().enumerate().flat_map(|(word, &bits)| {
                // Each step takes the lowest bit away.
                let rest = std::iter::successors(Some(bits), |rest| Some(rest & rest.wrapping_sub(1)))
                    .take_while(|&rest| rest != 0);
                rest.map(move |rest| 64 * word + rest.trailing_zeros() as usize)
            })),
        }
    }

    fn insert(&mut self, low: u16) -> bool {
        match self {
            Self::List(list) => {
                let Err(at) = list.binary_search(&low) else { return false };
                if list.len() < LIST {
                    list.insert(at, low);
                    return true;
                }
                let mut bits = Box::new([0; CHUNK / 64]);
                list.iter().chain([&low]).for_each(|&low| bits[usize::from(low) / 64] |= 1 << (low % 64));
                *self = Self::Bits(bits);
                true
            }
            Self::Bits(bits) => {
                let (word, bit) = (&mut bits[usize::from(low) / 64], 1 << (low % 64));
                let new = *word & bit == 0;
                *word |= bit;
                new
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::random::SplitMix64;

    #[test]
    fn a_set_holds_what_was_put_into_it_and_nothing_else() {
        let mut generator = SplitMix64(7);
        // Sparse, dense, and at the ends.
        for bound in [100, 20_000, 300_000, u64::MAX] {
            let (mut set, mut expected) = (NumberSet::default(), BTreeSet::new());
            for i in 0..20_000 {
                let trial = match i {
                    0 => usize::MAX,
                    1 => 0,
                    _ => generator.below(bound) as usize,
                };
                assert_eq!(set.insert(trial), expected.insert(trial));
            }
            assert_eq!((set.len(), set.is_empty()), (expected.len(), false));
            assert!(set.iter().eq(expected.iter().copied()));
            for _ in 0..20_000 {
                let trial = generator.below(bound) as usize;
                assert_eq!(set.contains(trial), expected.contains(&trial));
            }
            assert!(set.contains(usize::MAX) && set.contains(0));
            assert!(set.iter().eq(expected));
        }
        assert!(NumberSet::default().is_empty() && !NumberSet::default().contains(0));
    }

    #[test]
    fn a_million_numbers_take_a_bit_each() {
        let mut set = NumberSet::default();
        assert!((0..1 << 20).all(|number| set.insert(number)));
        let bitmaps = set.chunks.values().filter(|chunk| matches!(chunk, Chunk::Bits(_))).count();
        assert_eq!((set.len(), bitmaps, set.chunks.len()), (1 << 20, 16, 16));
    }
}
