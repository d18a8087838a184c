//! Where the keys and values of each layer lie: those of layers that are alike are one array, so that the positions of a stretch are few
//! allocations, of which a GPU has a limited number.

use mlx_rs::{
    Array,
    ops::{indexing::TryIndexOp, stack},
};

use super::{Named, arrays::shape};
use crate::{checkpoint::Architecture, model::BodyError};

/// The axis of positions in an array, `[2 * layers, 1, kv_heads, n, head_dim]`.
pub(super) const POSITIONS: i32 = 3;

/// Which array each layer has its keys and values in, and how far behind the first of it.
#[derive(Debug)]
pub(super) struct Kept {
    /// None for a layer that has no own.
    of_layer: Vec<Option<Place>>,
    arrays: usize,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    array: usize,
    /// Keys lie here, values behind them.
    at: usize,
}

impl Kept {
    pub(super) fn new(architecture: &Architecture) -> Self {
        // Rows and columns of the layers of each array, and how many arrays of keys or values it has so far.
        let mut arrays: Vec<((usize, usize), usize)> = Vec::new();
        let of_layer = architecture.layers.iter().map(|layer| {
            let kept = layer.mixer.kept(architecture.hidden_size);
            if kept.0 == 0 {
                return None;
            }
            let array = arrays.iter().position(|(shape, _)| *shape == kept).unwrap_or_else(|| {
                arrays.push((kept, 0));
                arrays.len() - 1
            });
            let at = arrays[array].1;
            arrays[array].1 += 2;
            Some(Place { array, at })
        });
        let of_layer = of_layer.collect();
        Self { of_layer, arrays: arrays.len() }
    }

    /// Keys and values of a layer.
    pub(super) fn of_layer(&self, layer: usize, arrays: &[Array]) -> Result<[Array; 2], BodyError> {
        let Some(Place { array, at }) = self.of_layer[layer] else { return Err(super::decoder::MISSING) };
        let [keys, values] = shape([at, at + 1])?.map(|at| arrays[array].try_index(at).named("slice"));
        Ok([keys?, values?])
    }

    /// Something to gather keys and values in, layer by layer.
    pub(super) fn gather(&self) -> Gathered<'_> {
        Gathered { kept: self, parts: vec![Vec::new(); self.arrays] }
    }
}

/// Keys and values of the layers so far, by the array that they are to be in.
pub(super) struct Gathered<'a> {
    kept: &'a Kept,
    parts: Vec<Vec<Array>>,
}

impl Gathered<'_> {
    /// Takes those of the next layer.
    pub(super) fn take(&mut self, layer: usize, new: Option<[Array; 2]>) {
        if let (Some(place), Some(new)) = (self.kept.of_layer[layer], new) {
            self.parts[place.array].extend(new);
        }
    }

    pub(super) fn arrays(self) -> Result<Vec<Array>, BodyError> {
        self.parts.iter().map(|parts| stack(parts, 0).named("stack")).collect()
    }
}
