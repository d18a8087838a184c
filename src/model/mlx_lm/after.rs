//! What follows the head, found by asking: the model is given products of its head, and what it makes of them is recognized.

use crate::checkpoint::architecture::Curve;

/// A product that shows a bound, whatever a scale makes of it.
const HUGE: f32 = 1e30;
/// A product that no bound changes.
const TINY: f32 = 1.0 / 1024.0;
/// How far a logit may be from what a curve gives, relative to it and beyond 1: several roundings of float32.
const CLOSE: f32 = 1e-5;

/// The products to ask with, one for each row of the head: a huge one, a tiny one, and numbers of the size of logits.
pub(super) fn products(rows: usize) -> Vec<f32> {
    let logit = |row: usize| (row * 7919 % 12_001) as f32 * 0.01 - 60.0;
    let mut products: Vec<f32> = (0..rows).map(logit).collect();
    for (product, x) in products.iter_mut().zip([HUGE, TINY]) {
        *product = x;
    }
    products
}

/// The curve by which `products` became `logits`.
///
/// # Errors
/// Where it is neither of those that a [`Curve`] can be: the largest difference to the nearest, and the product at which it was.
pub(super) fn curve(products: &[f32], logits: &[f32]) -> Result<Curve, (f32, f32)> {
    let (Some(&[bound, small]), Some(_)) = (logits.first_chunk(), products.first_chunk::<2>()) else {
        return Ok(Curve::NONE);
    };
    let softcap = (bound < HUGE.sqrt()).then_some(bound);
    let scale = small / TINY;
    let curve = Curve { scale: ((scale - 1.0).abs() > CLOSE).then_some(scale), softcap };
    let (difference, at) = products
        .iter()
        .zip(logits)
        .map(|(&x, &y)| {
            let expected = value(curve, x);
            ((expected - y).abs() / y.abs().max(1.0), x)
        })
        .fold((0.0, 0.0), |most: (f32, f32), found| if found.0 > most.0 || found.0.is_nan() { found } else { most });
    let positive = |x: f32| x > 0.0 && x.is_finite();
    if difference <= CLOSE && positive(scale) && softcap.is_none_or(positive) {
        Ok(curve)
    } else {
        Err((difference, at))
    }
}

/// `cap * tanh(scale * x / cap)`, where what is absent is left out.
fn value(curve: Curve, x: f32) -> f32 {
    let x = curve.scale.map_or(f64::from(x), |scale| f64::from(scale) * f64::from(x));
    curve.softcap.map_or(x, |cap| f64::from(cap) * libm::tanh(x / f64::from(cap))) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_and_softcaps_are_found_and_what_is_neither_is_refused() {
        let products = products(1536);
        for (scale, softcap) in [
            (None, None),
            (Some(0.0625), None),
            (None, Some(30.0)),
            (Some(0.196_116_13), Some(20.0)),
            (Some(12.0), None),
        ] {
            let wanted = Curve { scale, softcap };
            let logits: Vec<f32> = products.iter().map(|&x| value(wanted, x)).collect();
            let found = curve(&products, &logits).expect("a curve");
            assert_eq!(found.softcap, softcap);
            let relative = found.scale.unwrap_or(1.0) / scale.unwrap_or(1.0);
            assert!((relative - 1.0).abs() < 1e-6 && found.scale.is_some() == scale.is_some(), "{found:?}");
        }
        let refused = |function: fn(f32) -> f32| {
            let logits: Vec<f32> = products.iter().map(|&x| function(x)).collect();
            curve(&products, &logits).expect_err("no curve")
        };
        assert!(refused(|x| -x).0 >= 0.0);
        assert!(refused(|x| x + 0.5).0 > 0.0, "a bias that nobody stated");
        assert!(refused(|x| x.max(0.0)).1 < 0.0);
        assert!(refused(|_| f32::NAN).0.is_nan());
        let mut one: Vec<f32> = products.clone();
        one[700] += 0.01;
        assert_eq!(curve(&products, &one).expect_err("one row is another").1, products[700]);
    }
}
