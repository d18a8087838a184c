//! Heads of random codes with the shapes of real ones, and the threads that multiply them.

use lm_headroom::{
    quant::{Bits, FloatType, Layout, MatrixRef},
    team::Team,
};

pub(crate) const LLAMA3_8B: (usize, usize) = (128_256, 4096);

/// As many threads as `HEADROOM_THREADS` says, or as the machine has cores.
pub(crate) fn team() -> Team {
    match std::env::var("HEADROOM_THREADS").ok().and_then(|n| n.parse().ok()) {
        Some(threads) => Team::new(threads),
        None => Team::of_this_machine(),
    }
}

/// A head of random codes with the shape of a real one.
pub(crate) struct Head {
    layout: Layout,
    weight: Vec<u8>,
    scales: Vec<u8>,
    biases: Vec<u8>,
}

impl Head {
    pub(crate) fn new(rows: usize, cols: usize) -> Self {
        let layout = Layout::new(rows, cols, Bits::Four, 64, FloatType::F16).expect("a layout");
        let mut state = 1_u64;
        let weight = (0..rows * layout.weight_row_bytes())
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            })
            .collect();
        let scales = half::f16::from_f32(0.0045).to_le_bytes().repeat(rows * layout.groups_per_row());
        let biases = half::f16::from_f32(-0.034).to_le_bytes().repeat(rows * layout.groups_per_row());
        Self { layout, weight, scales, biases }
    }

    pub(crate) fn view(&self) -> MatrixRef<'_> {
        MatrixRef::new(self.layout, &self.weight, &self.scales, &self.biases).expect("a matrix")
    }

    pub(crate) fn bytes(&self) -> usize {
        self.weight.len() + self.scales.len() + self.biases.len()
    }
}
