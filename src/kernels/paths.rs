//! Which loops of a kernel ran: what products say of themselves, so that a test knows what it has tested.

use std::{
    ops::BitOr,
    sync::atomic::{AtomicU16, Ordering::Relaxed},
};

/// A set of paths through a kernel's loops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Paths(u16);

impl Paths {
    /// None of them: what the scalar kernel takes.
    pub(crate) const NONE: Self = Self(0);
    /// Vectors are multiplied by weights straight from the registers that decoding leaves them in.
    pub(crate) const REGISTERS: Self = Self(1);
    /// One vector is multiplied by eight short rows at a time.
    pub(crate) const EIGHT_ROWS: Self = Self(1 << 1);
    /// Vectors are multiplied by a panel of decoded rows.
    pub(crate) const PANEL: Self = Self(1 << 2);
    /// Rows are so long that a panel holds a part of their columns.
    pub(crate) const PANEL_IN_PARTS: Self = Self(1 << 3);
    /// One vector is multiplied by long rows that are read as several streams.
    pub const STREAM: Self = Self(1 << 4);
    /// Rows are not quantized.
    pub(crate) const DENSE: Self = Self(1 << 5);
    /// One hidden state is held against short rows in integers.
    pub(crate) const SCREEN: Self = Self(1 << 6);
    /// One hidden state is held against long rows, two at a time.
    pub(crate) const SCREEN_OF_LONG_ROWS: Self = Self(1 << 7);
    /// One hidden state is held against long rows that are read as several streams.
    pub(crate) const SCREEN_OF_STREAMS: Self = Self(1 << 8);
    /// Several hidden states are held against rows that were laid side by side.
    pub(crate) const SCREEN_OF_SEVERAL: Self = Self(1 << 9);
    /// Rows were passed over, since their bounds say that they are not among the two largest.
    pub(crate) const SCREEN_PASSED_OVER: Self = Self(1 << 10);
    /// Bounds left so many rows that all logits were computed.
    pub(crate) const SCREEN_GIVEN_UP: Self = Self(1 << 11);
    /// Rows are decoded as the specification says, and multiplied by a panel.
    pub(crate) const SPECIFIED: Self = Self(1 << 12);
    /// Shifted words are copied before they are decoded.
    pub(crate) const COPIED: Self = Self(1 << 13);
    /// A row has a code that is NaN.
    pub(crate) const NAN_CODES: Self = Self(1 << 14);

    #[cfg(feature = "testing")]
    const NAMES: [(Self, &str); 15] = [
        (Self::REGISTERS, "registers"),
        (Self::EIGHT_ROWS, "eight rows"),
        (Self::PANEL, "panel"),
        (Self::PANEL_IN_PARTS, "panel in parts"),
        (Self::STREAM, "stream"),
        (Self::DENSE, "dense"),
        (Self::SCREEN, "screen"),
        (Self::SCREEN_OF_LONG_ROWS, "screen, long rows"),
        (Self::SCREEN_OF_STREAMS, "screen, streams"),
        (Self::SCREEN_OF_SEVERAL, "screen, several states"),
        (Self::SCREEN_PASSED_OVER, "screen, rows passed over"),
        (Self::SCREEN_GIVEN_UP, "screen, given up"),
        (Self::SPECIFIED, "specified"),
        (Self::COPIED, "copied"),
        (Self::NAN_CODES, "NaN codes"),
    ];

    /// Whether all of `others` are among them.
    pub const fn contains(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// Their names.
    #[cfg(feature = "testing")]
    pub(crate) fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().filter(move |&(path, _)| self.contains(path)).map(|(_, name)| name)
    }
}

impl BitOr for Paths {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The paths that the threads of one parallel loop have taken.
#[derive(Debug, Default)]
pub(super) struct Taken(AtomicU16);

impl Taken {
    /// Adds some. Nearly always they are there already, and nothing is written.
    pub(super) fn add(&self, paths: Paths) {
        if !self.paths().contains(paths) {
            self.0.fetch_or(paths.0, Relaxed);
        }
    }

    pub(super) fn paths(&self) -> Paths {
        Paths(self.0.load(Relaxed))
    }
}
