//! The gated delta rule: how one position changes the state of a head, and what it reads of it.
//!
//! A state lies with its values side by side, so that lanes never add up among themselves: each sum goes over the columns of the key from
//! the first to the last, in all lanes at once.

/// One step, with query, key and value of a head, its `decay` and its `strength`: `state *= decay`, then
/// `state += key^T (strength * (value - key state))`, then `out = query state`. `state` is `[key, value]`, `written` and `out` are as long
/// as the value. Each product is added to a sum with one rounding.
#[inline(always)]
pub(crate) fn delta_rule(
    state: &mut [f32],
    [query, key, value]: [&[f32]; 3],
    [decay, strength]: [f32; 2],
    written: &mut [f32],
    out: &mut [f32],
) {
    let columns = value.len();
    let (written, out) = (&mut written[..columns], &mut out[..columns]);
    written.fill(0.0);
    for (row, &key) in state.chunks_exact_mut(columns).zip(key) {
        for c in 0..columns {
            row[c] *= decay;
            written[c] = row[c].mul_add(key, written[c]);
        }
    }
    for c in 0..columns {
        written[c] = (value[c] - written[c]) * strength;
    }
    out.fill(0.0);
    for ((row, &key), &query) in state.chunks_exact_mut(columns).zip(key).zip(query) {
        for c in 0..columns {
            row[c] = written[c].mul_add(key, row[c]);
            out[c] = row[c].mul_add(query, out[c]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(state: &mut [f32], qkv: [&[f32]; 3], gates: [f32; 2]) -> Vec<f32> {
        let (mut written, mut out) = (vec![f32::NAN; qkv[2].len()], vec![f32::NAN; qkv[2].len()]);
        delta_rule(state, qkv, gates, &mut written, &mut out);
        out
    }

    #[test]
    fn what_was_written_under_a_key_is_read_by_it_and_replaced_in_full() {
        let (one, other): (&[f32], &[f32]) = (&[1.0, 0.0], &[0.0, 1.0]);
        let mut state = [0.0; 6];
        assert_eq!(step(&mut state, [one, one, &[1.0, 2.0, 3.0]], [1.0, 1.0]), [1.0, 2.0, 3.0]);
        assert_eq!(step(&mut state, [one, other, &[5.0, 6.0, 7.0]], [1.0, 1.0]), [1.0, 2.0, 3.0]);
        assert_eq!(step(&mut state, [one, one, &[9.0, 9.0, 9.0]], [1.0, 1.0]), [9.0; 3]);
        assert_eq!(step(&mut state, [other, one, &[9.0, 9.0, 9.0]], [0.5, 0.0]), [2.5, 3.0, 3.5]);
        assert_eq!(state, [4.5, 4.5, 4.5, 2.5, 3.0, 3.5]);
    }

    #[test]
    fn a_step_is_near_its_definition() {
        let (keys, values) = (37, 21);
        let wave = |len: usize, by: f32| (0..len).map(|i| (i as f32 * by).sin()).collect::<Vec<f32>>();
        let (mut state, q, k, v) = (wave(keys * values, 0.7), wave(keys, 1.3), wave(keys, 0.9), wave(values, 2.1));
        let before: Vec<f64> = state.iter().map(|&x| f64::from(x) * f64::from(0.8_f32)).collect();
        let out = step(&mut state, [&q, &k, &v], [0.8, 0.3]);
        for c in 0..values {
            let read = |by: &[f32], state: &dyn Fn(usize) -> f64| -> f64 {
                (0..keys).map(|i| f64::from(by[i]) * state(i)).sum()
            };
            let change = (f64::from(v[c]) - read(&k, &|i| before[i * values + c])) * f64::from(0.3_f32);
            let after = |i: usize| before[i * values + c] + f64::from(k[i]) * change;
            assert!((f64::from(out[c]) - read(&q, &after)).abs() < 1e-4);
            (0..keys).for_each(|i| assert!((f64::from(state[i * values + c]) - after(i)).abs() < 1e-5));
        }
    }
}
