//! Matrices whose codes are floats, in MLX's modes `mxfp4`, `mxfp8` and `nvfp4`.
//!
//! `mlx-rs` asks for the mode `affine` in each of its calls, and MLX's C interface takes any. So these calls are made through `mlx-sys`,
//! whose functions are all unsafe: they read what their handles name, write one handle, and report failure by a status.

use std::ffi::{CString, c_char};

use mlx_rs::{Array, Stream};
use mlx_sys::{mlx_array, mlx_optional_dtype, mlx_optional_int, mlx_stream};

use super::failed;
use crate::{model::BodyError, quant::Format};

/// `x` times the transposed matrix, in the type of `x`.
pub(super) fn quantized_matmul(x: &Array, weight: &Array, scales: &Array, format: Format) -> Result<Array, BodyError> {
    called("quantized_matmul", format, |out, none, mode, [group_size, bits], stream| {
        // SAFETY: the arrays are borrowed, and so alive; `none` is MLX's empty array, which stands for absent biases; `mode` ends with a
        // zero; `out` is an empty array that the call may write.
        unsafe {
            mlx_sys::mlx_quantized_matmul(
                out,
                x.as_ptr(),
                weight.as_ptr(),
                scales.as_ptr(),
                none,
                true,
                group_size,
                bits,
                mode,
                stream,
            )
        }
    })
}

/// `x`, `[.., 1, cols]`, times the transposed matrices of a stack that `which` names.
pub(super) fn gather_qmm(
    x: &Array,
    weight: &Array,
    scales: &Array,
    which: &Array,
    format: Format,
) -> Result<Array, BodyError> {
    called("gather_qmm", format, |out, none, mode, [group_size, bits], stream| {
        // SAFETY: as in `quantized_matmul`; the second empty array stands for vectors that are taken as they lie.
        unsafe {
            mlx_sys::mlx_gather_qmm(
                out,
                x.as_ptr(),
                weight.as_ptr(),
                scales.as_ptr(),
                none,
                none,
                which.as_ptr(),
                true,
                group_size,
                bits,
                mode,
                false,
                stream,
            )
        }
    })
}

/// The matrix itself, in bfloat16, as mlx-lm looks up embeddings.
pub(super) fn dequantize(weight: &Array, scales: &Array, format: Format) -> Result<Array, BodyError> {
    called("dequantize", format, |out, none, mode, [group_size, bits], stream| {
        let dtype = mlx_optional_dtype { value: mlx_sys::mlx_dtype__MLX_BFLOAT16, has_value: false };
        // SAFETY: as in `quantized_matmul`; the second empty array stands for an absent scale of the whole matrix, and the type that has no
        // value leaves the choice to MLX.
        unsafe {
            mlx_sys::mlx_dequantize(
                out,
                weight.as_ptr(),
                scales.as_ptr(),
                none,
                group_size,
                bits,
                mode,
                none,
                dtype,
                stream,
            )
        }
    })
}

/// What `call` writes into an empty array, given another empty one, the mode, its sizes, and the stream that `mlx-rs` would use.
fn called(
    operation: &'static str,
    format: Format,
    call: impl FnOnce(*mut mlx_array, mlx_array, *const c_char, [mlx_optional_int; 2], mlx_stream) -> i32,
) -> Result<Array, BodyError> {
    let mode = CString::new(format.mode()).map_err(|error| failed(operation, &error))?;
    let sizes = super::arrays::sizes(format)?.map(|value| mlx_optional_int { value, has_value: true });
    // Arrays of `mlx-rs` have been made by now, which has set its handler of errors: without one, MLX ends the process.
    let stream = Stream::thread_local_or_default();
    // SAFETY: a new empty array is asked for, and each is given to one owner, which frees it.
    let (none, mut out) = unsafe { (Array::from_ptr(mlx_sys::mlx_array_new()), mlx_sys::mlx_array_new()) };
    let status = call(&raw mut out, none.as_ptr(), mode.as_ptr(), sizes, stream.as_ptr());
    // SAFETY: `out` is the array that was asked for above, with what the call wrote, and nothing else owns it.
    let array = unsafe { Array::from_ptr(out) };
    match status {
        0 => Ok(array),
        // What MLX says stays with `mlx-rs`.
        _ => Err(failed(operation, &format!("MLX refuses these shapes in its mode {}", format.mode()))),
    }
}
