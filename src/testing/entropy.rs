//! Bytes for the strategies, drawn at random and shrunk.
//!
//! proptest's own vector of bytes is shrunk a byte at a time from the front; a value that was drawn from bytes
//! shrinks faster where whole spans go first. So: ever shorter spans are removed, from the back, then set to zero;
//! then each byte becomes the smallest that still fails. This is what Hypothesis does (MacIver and Donaldson, ECOOP
//! 2020), in its simplest form.

use proptest::{
    prelude::Rng,
    strategy::{NewTree, Strategy, ValueTree},
    test_runner::TestRunner,
};

/// A strategy for this many random bytes.
#[derive(Clone, Copy, Debug)]
pub struct Entropy(pub usize);

impl Strategy for Entropy {
    type Tree = Bytes;
    type Value = Vec<u8>;

    fn new_tree(&self, runner: &mut TestRunner) -> NewTree<Self> {
        let mut bytes = vec![0; self.0];
        runner.rng().fill_bytes(&mut bytes);
        Ok(Bytes { span: bytes.len(), end: bytes.len(), bytes, pass: Pass::Remove, tried: None })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    /// Removes a span of bytes.
    Remove,
    /// Sets a span of bytes to zero.
    Zero,
    /// Lowers one byte to the middle between a value that holds and one that fails.
    Lower,
    Done,
}

/// Bytes on their way to the simplest that fail.
#[derive(Debug)]
pub struct Bytes {
    /// Those that failed last.
    bytes: Vec<u8>,
    pass: Pass,
    /// Length of the span that is tried; for [`Pass::Lower`] one more than the largest value known to hold.
    span: usize,
    /// Where it ends.
    end: usize,
    /// What stood in place of `bytes`, until it is known whether these fail.
    tried: Option<Vec<u8>>,
}

impl Bytes {
    /// Goes on to the next simpler bytes; where there are none, those that failed last stand.
    fn next(&mut self) -> bool {
        let next = self.propose();
        let more = next.is_some();
        self.tried = next.map(|next| std::mem::replace(&mut self.bytes, next));
        more
    }

    /// The next simpler bytes.
    fn propose(&mut self) -> Option<Vec<u8>> {
        loop {
            match self.pass {
                Pass::Remove | Pass::Zero => {
                    self.end = self.end.min(self.bytes.len());
                    if self.end == 0 {
                        self.span = self.span.min(self.bytes.len()) / 2;
                        self.end = self.bytes.len();
                        if self.span == 0 {
                            self.pass = if self.pass == Pass::Remove { Pass::Zero } else { Pass::Lower };
                            self.span = if self.pass == Pass::Zero { self.bytes.len() } else { 0 };
                            if self.bytes.is_empty() {
                                self.pass = Pass::Done;
                            }
                        }
                        continue;
                    }
                    let start = self.end.saturating_sub(self.span.max(1));
                    let mut next = self.bytes.clone();
                    if self.pass == Pass::Remove {
                        next.drain(start..self.end);
                    } else {
                        next[start..self.end].fill(0);
                    }
                    if next == self.bytes {
                        self.end = start;
                        continue;
                    }
                    return Some(next);
                }
                Pass::Lower => {
                    if self.end == 0 {
                        self.pass = Pass::Done;
                        continue;
                    }
                    let byte = usize::from(self.bytes[self.end - 1]);
                    if self.span >= byte {
                        self.end -= 1;
                        self.span = 0;
                        continue;
                    }
                    let mut next = self.bytes.clone();
                    next[self.end - 1] = ((self.span + byte) / 2) as u8;
                    return Some(next);
                }
                Pass::Done => return None,
            }
        }
    }
}

impl ValueTree for Bytes {
    type Value = Vec<u8>;

    fn current(&self) -> Vec<u8> {
        self.bytes.clone()
    }

    fn simplify(&mut self) -> bool {
        // What was tried fails, too, and is the simpler.
        self.tried = None;
        self.next()
    }

    fn complicate(&mut self) -> bool {
        let Some(before) = self.tried.take() else { return false };
        let tried = std::mem::replace(&mut self.bytes, before);
        match self.pass {
            Pass::Remove | Pass::Zero => self.end = self.end.saturating_sub(self.span.max(1)),
            Pass::Lower => self.span = usize::from(tried[self.end - 1]) + 1,
            Pass::Done => {}
        }
        self.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes that a runner ends with, where `fails` says which fail.
    fn shrunk(bytes: Vec<u8>, fails: impl Fn(&[u8]) -> bool) -> (Vec<u8>, usize) {
        let mut tree = Bytes { span: bytes.len(), end: bytes.len(), bytes, pass: Pass::Remove, tried: None };
        let (mut best, mut steps) = (tree.current(), 0);
        assert!(fails(&best));
        let mut more = tree.simplify();
        while more {
            steps += 1;
            assert!(steps < 100_000, "it does not end");
            let now = tree.current();
            more = if fails(&now) {
                best = now;
                tree.simplify()
            } else {
                tree.complicate()
            };
        }
        (best, steps)
    }

    fn random(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    #[test]
    fn what_does_not_matter_goes_and_what_does_becomes_the_least() {
        let (best, steps) = shrunk(random(200), |bytes| bytes.iter().any(|&byte| byte >= 100));
        assert_eq!(best, [100]);
        assert!(steps < 600, "{steps}");
    }

    #[test]
    fn bytes_that_matter_together_stay_together() {
        let mut bytes = random(100);
        bytes[40] = 7;
        bytes[70] = 9;
        let fails = |bytes: &[u8]| {
            let first = bytes.iter().position(|&byte| byte == 7);
            first.is_some_and(|first| bytes[first..].contains(&9))
        };
        assert_eq!(shrunk(bytes, fails).0, [7, 9]);
    }

    #[test]
    fn whatever_fails_always_shrinks_to_nothing() {
        assert!(shrunk(random(64), |_| true).0.is_empty());
        assert!(shrunk(Vec::new(), |_| true).0.is_empty());
    }

    #[test]
    fn places_are_kept_where_removing_would_move_them() {
        let fails = |bytes: &[u8]| bytes.get(20).is_some_and(|&byte| byte > 3);
        let mut bytes = random(50);
        bytes[20] = 200;
        let (best, _) = shrunk(bytes, fails);
        assert_eq!(best.len(), 21);
        assert!(best[..20].iter().all(|&byte| byte == 0) && best[20] == 4, "{best:?}");
    }
}
