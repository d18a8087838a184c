//! Heads of random codes with the shapes of real ones, and the threads that multiply them.

use lm_headroom::{
    quant::{FloatType, MatrixBuf},
    team::Team,
    testing::heads::affine,
};

pub(crate) const LLAMA3_8B: (usize, usize) = (128_256, 4096);

/// As many threads as `HEADROOM_THREADS` says, or as the machine has cores.
pub(crate) fn team() -> Team {
    match std::env::var("HEADROOM_THREADS").ok().and_then(|n| n.parse().ok()) {
        Some(threads) => Team::new(threads),
        None => Team::of_this_machine(),
    }
}

/// A head of random codes with the shape of a real one, in 4 bits, groups of 64 and float16.
pub(crate) fn random_head(rows: usize, cols: usize) -> MatrixBuf {
    let layout = affine(rows, cols, 4, 64, FloatType::F16);
    let mut state = 1_u64;
    let weight = (0..rows * layout.weight_row_bytes())
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect();
    let floats = |value: f32| half::f16::from_f32(value).to_le_bytes().repeat(rows * layout.groups_per_row());
    MatrixBuf::new(layout, weight, floats(0.0045), Some(floats(-0.034))).expect("a matrix")
}

/// Bytes of all parts of a head.
pub(crate) fn bytes(head: &MatrixBuf) -> usize {
    head.parts().map(|(_, part)| part.len()).sum()
}
