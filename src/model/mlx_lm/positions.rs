//! Positions as whoever runs a body knows them, and the chunks of tokens that they come to in the child.

use std::sync::Arc;

use super::server::Chunk;
use crate::{
    model::{Extension, Parent, Slot, Step},
    quant::MatrixRef,
};

/// A position that a body has seen.
#[derive(Clone, Debug)]
struct Position {
    parent: Option<Slot>,
    token: u32,
    /// The token's row of a matrix that is embedding and head, where that is edited: weight, scales and biases as stored.
    row: Option<Arc<[u8]>>,
    /// The chunk at whose end it is, where its hidden state was asked for.
    chunk: Option<u64>,
}

/// The positions of one body.
///
/// mlx-lm computes a prompt in one stretch and then single tokens. What a body is asked for is a prompt up to the first position
/// whose hidden state is wanted: a *chunk* of its own, from the start. What follows is a chunk of one token each. So a hidden
/// state depends on its tokens and on where the prompt ends, and not on what else a body was asked for: prompts that begin
/// alike share no computation.
#[derive(Debug, Default)]
pub(super) struct Positions {
    all: Vec<Option<Position>>,
    free: Vec<Slot>,
}

impl Positions {
    /// Adds `steps`. Gives their slots, without hidden states, and the chunks to be computed, one for each step that asks for
    /// its hidden state, in order; `number` numbers them.
    pub(super) fn add(&mut self, steps: &[Step<'_>], mut number: impl FnMut() -> u64) -> (Extension, Vec<Chunk>) {
        let (mut slots, mut chunks): (Vec<Slot>, Vec<Chunk>) = (Vec::with_capacity(steps.len()), Vec::new());
        for step in steps {
            let parent = match step.parent {
                // How long the prompt is, is seen where it ends.
                Parent::Start | Parent::Prompt(_) => None,
                Parent::Slot(slot) => Some(slot),
                Parent::Step(index) => Some(slots[index]),
            };
            let stored = |row: MatrixRef<'_>| row.parts().flat_map(|(_, part)| part.iter().copied()).collect();
            let row: Option<Arc<[u8]>> = step.row.map(stored);
            let chunk = step.hidden.then(|| {
                let mut chunk = self.before(parent);
                chunk.id = number();
                chunk.tokens.push(step.token);
                chunk.rows.extend(row.clone().map(|row| (step.token, row)));
                chunks.push(chunk);
                chunks[chunks.len() - 1].id
            });
            slots.push(self.open(Position { parent, token: step.token, row, chunk }));
        }
        (Extension { slots, hidden: Vec::new() }, chunks)
    }

    /// A chunk that follows `at`, as far as it is older than that: it stands after another chunk, or holds all tokens from the
    /// start.
    fn before(&self, at: Option<Slot>) -> Chunk {
        let Some(last) = at.map(|slot| self.at(slot)) else { return Chunk::default() };
        if last.chunk.is_some() {
            return Chunk { parent: last.chunk, ..Chunk::default() };
        }
        let path = std::iter::successors(Some(last), |position| position.parent.map(|slot| self.at(slot)));
        let path: Vec<&Position> = path.collect();
        let rows = path.iter().filter_map(|position| Some((position.token, position.row.clone()?))).collect();
        Chunk { tokens: path.iter().rev().map(|position| position.token).collect(), rows, ..Chunk::default() }
    }

    fn at(&self, slot: Slot) -> &Position {
        self.all[slot.0 as usize].as_ref().expect("a position in use was not released")
    }

    fn open(&mut self, position: Position) -> Slot {
        if let Some(slot) = self.free.pop() {
            self.all[slot.0 as usize] = Some(position);
            return slot;
        }
        self.all.push(Some(position));
        Slot(self.all.len() as u32 - 1)
    }

    /// Releases a position, and gives its chunk where it has one.
    pub(super) fn release(&mut self, slot: Slot) -> Option<u64> {
        let position = self.all[slot.0 as usize].take().expect("a position is released once");
        self.free.push(slot);
        position.chunk
    }

    /// Every chunk there is.
    pub(super) fn chunks(&self) -> impl Iterator<Item = u64> {
        self.all.iter().flatten().filter_map(|position| position.chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(token: u32, parent: Parent, hidden: bool) -> Step<'static> {
        Step { token, parent, hidden, embedding: None, row: None }
    }

    /// Chunks without their numbers: parent and tokens.
    fn told(chunks: &[Chunk]) -> Vec<(Option<u64>, &[u32])> {
        chunks.iter().map(|chunk| (chunk.parent, &chunk.tokens[..])).collect()
    }

    #[test]
    fn a_prompt_is_one_chunk_and_each_token_after_it_another() {
        let (mut positions, mut count) = (Positions::default(), 0..);
        let mut number = || count.next().expect("endless");
        let prompt = [step(7, Parent::Start, false), step(8, Parent::Step(0), false), step(9, Parent::Step(1), true)];
        let (first, chunks) = positions.add(&prompt, &mut number);
        assert_eq!(told(&chunks), [(None, &[7, 8, 9][..])]);
        let end = first.slots[2];
        let two = [step(1, Parent::Slot(end), true), step(2, Parent::Step(0), true), step(3, Parent::Slot(end), true)];
        let (second, chunks) = positions.add(&two, &mut number);
        assert_eq!(told(&chunks), [(Some(0), &[1][..]), (Some(1), &[2][..]), (Some(0), &[3][..])]);
        assert_eq!(positions.release(first.slots[0]), None);
        assert_eq!(positions.release(second.slots[1]), Some(2));
        assert_eq!(positions.chunks().collect::<Vec<_>>(), [0, 1, 3]);
    }

    #[test]
    fn prompts_that_begin_alike_are_computed_as_each_alone() {
        let (mut positions, mut count) = (Positions::default(), 0..);
        // [7, 8], whose end is wanted, and [7, 8, 9, 6].
        let steps = [
            step(7, Parent::Start, false),
            step(8, Parent::Step(0), true),
            step(9, Parent::Step(1), false),
            step(6, Parent::Step(2), true),
        ];
        let (_, chunks) = positions.add(&steps, || count.next().expect("endless"));
        assert_eq!(told(&chunks), [(None, &[7, 8][..]), (None, &[7, 8, 9, 6][..])]);
    }
}
