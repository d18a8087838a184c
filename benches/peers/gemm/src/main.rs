//! f32 products of a dense matrix and some vectors, as one line of `name value`: multiply-adds a second, the best of some
//! runs. The matrix is dequantized beforehand, so nothing but the product is timed.
//!
//! `peer-gemm THREADS ROWSxCOLSxVECTORS...`

use std::time::{Duration, Instant};

use gemm::{Parallelism, gemm};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let threads: usize = arguments.next().and_then(|n| n.parse().ok()).expect("threads");
    let parallelism = if threads > 1 { Parallelism::Rayon(threads) } else { Parallelism::None };
    for shape in arguments {
        let [rows, cols, vectors] = shape.split('x').map(|n| n.parse().expect("a size")).collect::<Vec<usize>>()[..]
        else {
            panic!("rows, columns and vectors, not {shape}");
        };
        let matrix: Vec<f32> = (0..rows * cols).map(|i| ((i * 7919) % 1000) as f32 * 1e-3 - 0.5).collect();
        let x: Vec<f32> = (0..vectors * cols).map(|i| ((i * 104_729) % 1000) as f32 * 1e-3 - 0.5).collect();
        let mut out = vec![0.0_f32; vectors * rows];
        let mut product = || {
            // SAFETY: the pointers are valid for matrices of these sizes and strides, and `out` is no other's.
            unsafe {
                gemm(
                    rows, vectors, cols,
                    out.as_mut_ptr(), rows as isize, 1, false,
                    matrix.as_ptr(), 1, cols as isize,
                    x.as_ptr(), cols as isize, 1,
                    0.0, 1.0, false, false, false, parallelism,
                );
            }
        };
        product();
        let (mut best, begin) = (f64::MAX, Instant::now());
        while begin.elapsed() < Duration::from_millis(700) {
            let start = Instant::now();
            product();
            best = best.min(start.elapsed().as_secs_f64());
        }
        std::hint::black_box(&out);
        println!("{shape} {:.4e}", (rows * cols * vectors) as f64 / best);
    }
}
