//! Functions of one number, on whole vectors: activations of an MLP, and what bounds scores and logits.
//!
//! As in [`super::vector`] every operation is exactly rounded and in a fixed order, and nothing calls a system's mathematics, so the
//! bits are equal on every instruction set. Conditions choose between two results that are both computed, so that a vector of
//! lanes needs no branch.

use super::vector::exp32;

/// `x[c] = x[c] / (1 + exp(-x[c]))`.
#[inline(always)]
pub(crate) fn silu(x: &mut [f32]) {
    for x in x {
        *x /= 1.0 + exp32(-*x);
    }
}

/// `x[c] *= (1 + erf(x[c] / sqrt 2)) / 2`: GELU as it is defined.
#[inline(always)]
pub(crate) fn gelu(x: &mut [f32]) {
    for x in x {
        let tail = half_erfc(x.abs() * std::f32::consts::FRAC_1_SQRT_2);
        *x *= if *x < 0.0 { tail } else { 1.0 - tail };
    }
}

/// GELU's approximation by `tanh`: `x (1 + tanh u) / 2` with `u = sqrt(2 / pi) (x + 0.044715 x^3)`, which is `x / (1 + exp(-2 u))`.
#[inline(always)]
pub(crate) fn gelu_tanh(x: &mut [f32]) {
    const TWICE_SQRT_2_OVER_PI: f32 = 1.595_769;
    for x in x {
        let u = TWICE_SQRT_2_OVER_PI * *x * (0.044_715 * *x).mul_add(*x, 1.0);
        *x /= 1.0 + exp32(-u);
    }
}

/// `x[c] = max(x[c], 0)^2`.
#[inline(always)]
pub(crate) fn relu_squared(x: &mut [f32]) {
    for x in x {
        // Written so that a NaN stays one.
        let positive = if *x < 0.0 { 0.0 } else { *x };
        *x = positive * positive;
    }
}

/// xIELU: `a x^2 + b x` where `x > 0`, and `(exp(min(x, e)) - 1 - x) n + b x` elsewhere, with `parts = [a, n, b, e]`.
#[inline(always)]
pub(crate) fn xielu(x: &mut [f32], parts: &[f32; 4]) {
    let [a, n, b, e] = *parts;
    for x in x {
        let right = a * (*x * *x) + b * *x;
        let least = if *x < e { *x } else { e };
        let left = (exp_minus_1(least) - *x) * n + b * *x;
        *x = if *x > 0.0 { right } else { left };
    }
}

/// `gate[c] = min(gate[c], 7) * sigmoid(1.702 min(gate[c], 7)) * (min(max(up[c], -7), 7) + 1)`: the gated activation of gpt-oss.
#[inline(always)]
pub(crate) fn clamped_swiglu(gate: &mut [f32], up: &[f32]) {
    const LIMIT: f32 = 7.0;
    for (gate, &up) in gate.iter_mut().zip(up) {
        // Written so that a NaN stays one.
        let own = if *gate > LIMIT { LIMIT } else { *gate };
        let up = if up > LIMIT { LIMIT } else { up };
        let up = if up < -LIMIT { -LIMIT } else { up };
        *gate = (up + 1.0) * (own / (1.0 + exp32(-(1.702 * own))));
    }
}

/// `x[c] = 1 / (1 + exp(-x[c]))`.
#[inline(always)]
pub(crate) fn sigmoid(x: &mut [f32]) {
    for x in x {
        *x = 1.0 / (1.0 + exp32(-*x));
    }
}

/// `x[c] = exp(x[c] - m) / sum_i exp(x[i] - m)`, `m` being the largest; summed from the first to the last. One NaN makes all NaN.
#[inline(always)]
pub(crate) fn softmax(x: &mut [f32]) {
    let mut largest = f32::NEG_INFINITY;
    for &x in &*x {
        largest = if x > largest { x } else { largest };
    }
    let mut sum = 0.0;
    for x in &mut *x {
        *x = exp32(*x - largest);
        sum += *x;
    }
    for x in x {
        *x /= sum;
    }
}

/// `x[c] = cap * tanh(x[c] / cap)`.
#[inline(always)]
pub(crate) fn softcap(x: &mut [f32], cap: f32) {
    for x in x {
        *x = cap * tanh32(*x / cap);
    }
}

/// `tanh(x)` to within 1e-7: near 0 by its Taylor polynomial of degree 9, elsewhere `1 - 2 / (exp(2 |x|) + 1)` with the sign of `x`.
#[inline(always)]
fn tanh32(x: f32) -> f32 {
    let square = x * x;
    let mut p = 62.0 / 2835.0_f32;
    for c in [-17.0 / 315.0, 2.0 / 15.0, -1.0 / 3.0, 1.0] {
        p = p.mul_add(square, c);
    }
    let near = x * p;
    let far = (1.0 - 2.0 / (exp32(2.0 * x.abs()) + 1.0)).copysign(x);
    if x.abs() < 0.25 { near } else { far }
}

/// `exp(x) - 1` of `x <= 0`, to within 1e-7: near 0 by its Taylor polynomial of degree 7.
#[inline(always)]
fn exp_minus_1(x: f32) -> f32 {
    let mut p = 1.0 / 5040.0_f32;
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0] {
        p = p.mul_add(x, c);
    }
    let near = x * p;
    let far = exp32(x) - 1.0;
    if x > -0.5 { near } else { far }
}

/// Half of the complementary error function of `z >= 0`, to within 1e-7: Abramowitz and Stegun, *Handbook of Mathematical Functions*,
/// 7.1.26.
#[inline(always)]
fn half_erfc(z: f32) -> f32 {
    let t = 1.0 / 0.327_591_1_f32.mul_add(z, 1.0);
    let mut p = 1.061_405_4_f32;
    for c in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
        p = p.mul_add(t, c);
    }
    0.5 * (p * t) * exp32(-(z * z))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest difference from `expected` on numbers between -20 and 20, where it is more than one part in `relative`.
    fn worst(found: impl Fn(&mut [f32]), expected: impl Fn(f64) -> f64) -> f64 {
        let mut worst = 0.0_f64;
        for i in -20_000..=20_000 {
            let x = (f64::from(i) * 0.001) as f32;
            let mut y = [x];
            found(&mut y);
            let exact = expected(f64::from(x));
            worst = worst.max((f64::from(y[0]) - exact).abs() / (1.0 + exact.abs()));
        }
        worst
    }

    #[test]
    fn activations_are_near_their_definitions() {
        assert!(worst(silu, |x| x / (1.0 + libm::exp(-x))) < 3e-7);
        assert!(worst(gelu, |x| x * 0.5 * (1.0 + libm::erf(x / std::f64::consts::SQRT_2))) < 6e-7);
        let tanh =
            |x: f64| 0.5 * x * (1.0 + libm::tanh((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))));
        assert!(worst(gelu_tanh, tanh) < 1e-6);
        assert!(worst(relu_squared, |x| x.max(0.0).powi(2)) < 1e-7);
        let parts = [0.8, 1.3, 0.5, -1e-6];
        let [a, n, b, e] = parts.map(f64::from);
        let exact = |x: f64| if x > 0.0 { a * x * x + b * x } else { (libm::expm1(x.min(e)) - x) * n + b * x };
        assert!(worst(|x| xielu(x, &parts), exact) < 1e-6);
        assert!(worst(sigmoid, |x| 1.0 / (1.0 + libm::exp(-x))) < 3e-7);
        for up in [-9.0_f32, -0.5, 3.0, 8.0] {
            let exact = |x: f64| {
                let gate = x.min(7.0);
                gate / (1.0 + libm::exp(-1.702 * gate)) * (f64::from(up).clamp(-7.0, 7.0) + 1.0)
            };
            assert!(worst(|x| clamped_swiglu(x, &[up]), exact) < 1e-6, "{up}");
        }
        for cap in [5.0_f32, 30.0, 1.0] {
            let exact = |x: f64| f64::from(cap) * libm::tanh(x / f64::from(cap));
            assert!(worst(|x| softcap(x, cap), exact) < 4e-7, "{cap}");
        }
    }

    #[test]
    fn parts_of_a_softmax_are_near_their_definition_and_add_up_to_one() {
        let logits: Vec<f32> = (0..37).map(|i| (i as f32 * 0.7).sin() * 12.0).collect();
        let mut found = logits.clone();
        softmax(&mut found);
        let all: f64 = logits.iter().map(|&x| libm::exp(f64::from(x))).sum();
        for (&logit, &part) in logits.iter().zip(&found) {
            let exact = libm::exp(f64::from(logit)) / all;
            assert!((f64::from(part) - exact).abs() < 1e-6 * exact + 1e-12, "{part} {exact}");
        }
        for bad in [f32::NAN, f32::INFINITY] {
            let mut x = [1.0, bad, 2.0];
            softmax(&mut x);
            assert!(x.iter().all(|x| x.is_nan()), "{x:?}");
        }
        let mut one = [3.0];
        softmax(&mut one);
        assert_eq!(one, [1.0]);
    }

    #[test]
    fn what_is_no_number_stays_so_and_infinities_are_bounded() {
        for activate in [
            silu,
            gelu,
            gelu_tanh,
            relu_squared,
            sigmoid,
            |x: &mut [f32]| clamped_swiglu(x, &[1.0]),
            |x: &mut [f32]| xielu(x, &[0.8, 1.3, 0.5, -1e-6]),
        ] {
            let mut x = [f32::NAN];
            activate(&mut x);
            assert!(x[0].is_nan());
        }
        let mut x = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0];
        softcap(&mut x, 30.0);
        assert!(x[0].is_nan());
        assert_eq!(x[1..], [30.0, -30.0, 0.0]);
    }
}
