//! What each instruction set brings, and its entry points: functions that carry its `target_feature`, into which the loops of
//! `products/`, `attention.rs` and `specification/` are inlined.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;

/// Which instructions are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InstructionSet {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "aarch64")]
    Neon,
}

impl InstructionSet {
    /// Those that this processor has, the fastest first, the scalar one last.
    pub(crate) fn available() -> Vec<Self> {
        let mut found = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if avx512::detected() {
                found.push(Self::Avx512);
            }
            if avx2::detected() {
                found.push(Self::Avx2);
            }
        }
        #[cfg(target_arch = "aarch64")]
        if neon::detected() {
            found.push(Self::Neon);
        }
        found.push(Self::Scalar);
        found
    }

    /// `scalar`, `avx2`, `avx512` or `neon`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
            #[cfg(target_arch = "aarch64")]
            Self::Neon => "neon",
        }
    }
}

/// Functions of an instruction set's file that carry its `target_feature`: the way from [`Kernel`](super::Kernel) into the loops that
/// instruction sets share.
macro_rules! entry_points {
    ($lanes:ty, $features:literal) => {
        /// # Safety
        /// As [`quantized`](crate::kernels::products::quantized::quantized), with this file's features detected.
        #[target_feature(enable = $features)]
        pub(crate) unsafe fn quantized(
            matrix: &crate::quant::MatrixRef<'_>,
            shift: u32,
            block: crate::kernels::products::block::Block,
            scratch: &mut crate::kernels::products::block::Scratch,
        ) -> crate::kernels::paths::Paths {
            use crate::kernels::products::{codes::common, quantized::quantized};
            // SAFETY: as for this function.
            unsafe {
                match (common(matrix.layout()), shift == 0) {
                    (true, true) => quantized::<$lanes, false>(matrix, shift, block, scratch),
                    (true, false) => quantized::<$lanes, true>(matrix, shift, block, scratch),
                    (false, _) => uncommon(matrix, shift, block, scratch),
                }
            }
        }

        /// # Safety
        /// As [`uncommon`](crate::kernels::products::quantized::uncommon), with this file's features detected.
        #[target_feature(enable = $features)]
        unsafe fn uncommon(
            matrix: &crate::quant::MatrixRef<'_>,
            shift: u32,
            block: crate::kernels::products::block::Block,
            scratch: &mut crate::kernels::products::block::Scratch,
        ) -> crate::kernels::paths::Paths {
            // SAFETY: as for this function.
            unsafe { crate::kernels::products::quantized::uncommon::<$lanes>(matrix, shift, block, scratch) }
        }

        /// # Safety
        /// As [`streamed`](crate::kernels::products::stream::streamed), with this file's features detected.
        #[target_feature(enable = $features)]
        pub(crate) unsafe fn streamed(
            matrix: &crate::quant::MatrixRef<'_>,
            shift: u32,
            block: crate::kernels::products::block::Block,
            scratch: &mut crate::kernels::products::block::Scratch,
        ) -> crate::kernels::paths::Paths {
            use crate::kernels::products::{codes::common, stream::streamed};
            // SAFETY: as for this function.
            unsafe {
                match (common(matrix.layout()), shift == 0) {
                    (true, true) => streamed::<$lanes, false>(matrix, shift, block, scratch),
                    (true, false) => streamed::<$lanes, true>(matrix, shift, block, scratch),
                    (false, _) => streamed_uncommon(matrix, shift, block, scratch),
                }
            }
        }

        /// # Safety
        /// As [`uncommon`](crate::kernels::products::stream::uncommon), with this file's features detected.
        #[target_feature(enable = $features)]
        unsafe fn streamed_uncommon(
            matrix: &crate::quant::MatrixRef<'_>,
            shift: u32,
            block: crate::kernels::products::block::Block,
            scratch: &mut crate::kernels::products::block::Scratch,
        ) -> crate::kernels::paths::Paths {
            // SAFETY: as for this function.
            unsafe { crate::kernels::products::stream::uncommon::<$lanes>(matrix, shift, block, scratch) }
        }

        /// # Safety
        /// As [`dense`](crate::kernels::products::dense::dense), with this file's features detected.
        #[target_feature(enable = $features)]
        pub(crate) unsafe fn dense(
            matrix: &crate::quant::DenseRef<'_>,
            block: crate::kernels::products::block::Block,
            scratch: &mut crate::kernels::products::block::Scratch,
        ) -> crate::kernels::paths::Paths {
            // SAFETY: as for this function.
            unsafe { crate::kernels::products::dense::dense::<$lanes>(matrix, block, scratch) }
        }

        /// # Safety
        /// As [`place`](crate::kernels::products::lanes::place), with this file's features detected.
        #[target_feature(enable = $features)]
        pub(crate) unsafe fn place(row: &[f32], lines: &mut [Line]) {
            // SAFETY: as for this function.
            unsafe { crate::kernels::products::lanes::place::<$lanes>(row, lines) }
        }

        /// # Safety
        /// As [`attend`](crate::kernels::attention::attend), with this file's features detected.
        #[target_feature(enable = $features)]
        pub(crate) unsafe fn attend(
            asking: &mut [crate::kernels::Asking<'_>],
            cols: usize,
            rule: &crate::kernels::Scores<'_>,
            keys: &[&[f32]],
            values: &[&[f32]],
            scores: &mut [f32],
        ) {
            // SAFETY: as for this function.
            unsafe { crate::kernels::attention::attend::<$lanes>(asking, cols, rule, keys, values, scores) }
        }

        super::vector_entry_points!($features);
    };
}
use entry_points;

/// The functions of `specification/`, compiled for an instruction set.
macro_rules! vector_entry_points {
    ($features:literal) => {
        super::vector_entry_points!($features; vector
            fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]);
            fn rms_norm_plain(x: &[f32], eps: f32, out: &mut [f32]);
            fn layer_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]);
            fn add(x: &mut [f32], y: &[f32]);
            fn multiply(x: &mut [f32], y: &[f32]);
            fn multiply_add(x: &mut [f32], y: &[f32], z: &[f32]);
            fn scale(x: &mut [f32], factor: f32);
            fn rope(x: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32]);
            fn rope_neighbours(x: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32]);
        );
        super::vector_entry_points!($features; activation
            fn silu(x: &mut [f32]);
            fn gelu(x: &mut [f32]);
            fn gelu_tanh(x: &mut [f32]);
            fn relu_squared(x: &mut [f32]);
            fn xielu(x: &mut [f32], parts: &[f32; 4]);
            fn softcap(x: &mut [f32], cap: f32);
            fn clamped_swiglu(gate: &mut [f32], up: &[f32]);
            fn sigmoid(x: &mut [f32]);
            fn softmax(x: &mut [f32]);
        );
        super::vector_entry_points!($features; delta_rule
            fn delta_rule(state: &mut [f32], qkv: [&[f32]; 3], gates: [f32; 2], written: &mut [f32], out: &mut [f32]);
        );
        super::vector_entry_points!($features; logits
            fn peaks(logits: &[f32], best: &mut [f32], second: &mut [f32]);
            fn spans(logits: &[f32], best: &mut [f32], second: &mut [f32], sum: &mut [f64]);
            fn first_two(best: &[f32], second: &[f32]) -> Option<(usize, f32, f32)>;
            fn terms(best: &[f32], sum: &[f64], top: f32, term: &mut [f64]);
            fn total(terms: &[f64]) -> f64;
            fn probabilities(logits: &[f32], log_sum: f64, out: &mut [f64]);
            fn differences(p: &[f64], a: &[f32], b: &[f32], sum: &mut [f64]);
        );
    };
    ($features:literal; $module:ident $(fn $name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)?;)*) => {
        $(#[target_feature(enable = $features)]
        pub(crate) fn $name($($arg: $type),*) $(-> $result)? {
            crate::kernels::specification::$module::$name($($arg),*)
        })*
    };
}
use vector_entry_points;
