//! Attention: query heads over keys and values, with the specification's order of additions.

use super::{
    products::lanes::{LANES, Lanes, padded, sum_lines},
    specification::vector::{self, Scores},
};

/// The products of `q` and four keys, each `cols` long, written one after the other.
///
/// # Safety
/// The instruction set of `L` was detected; `q` and all keys are valid for `cols` floats, `to` for four.
#[inline(always)]
unsafe fn scores_of_four<L: Lanes>(q: *const f32, keys: [*const f32; 4], cols: usize, to: *mut f32) {
    let whole = cols / LANES * LANES;
    let mut lines = [[0.0; LANES]; 4];
    // SAFETY: detected by the caller's promise; valid since offsets below `whole` have sixteen columns after them, and the rest is
    // copied into padded lines first.
    unsafe {
        for lane in (0..LANES).step_by(L::WIDTH) {
            let mut acc = [L::zero(); 4];
            for c in (lane..whole).step_by(LANES) {
                let q = L::load(q.add(c));
                for k in 0..4 {
                    acc[k] = q.fma(L::load(keys[k].add(c)), acc[k]);
                }
            }
            if whole < cols {
                let rest = |x: *const f32| padded(std::slice::from_raw_parts(x.add(whole), cols - whole));
                let q = rest(q);
                let q = L::load(q.as_ptr().add(lane));
                for k in 0..4 {
                    let key = rest(keys[k]);
                    acc[k] = q.fma(L::load(key.as_ptr().add(lane)), acc[k]);
                }
            }
            for k in 0..4 {
                acc[k].store(lines[k].as_mut_ptr().add(lane));
            }
        }
        let mut arranged = [[0.0; LANES]; 4];
        for k in 0..4 {
            L::arrange(lines[k].as_ptr(), arranged[k].as_mut_ptr());
        }
        sum_lines::<L>(arranged.each_ref().map(|line| line.as_ptr()), to);
    }
}

/// Attention of query heads that share keys and values, as [`vector::attend`] states it.
///
/// # Safety
/// The instruction set of `L` was detected; all keys and values are of one length, of which `q` and `out` are as many
/// times, and `scores` is as many times as long as there are keys.
#[inline(always)]
pub(crate) unsafe fn attend<L: Lanes>(
    q: &[f32],
    rule: &Scores<'_>,
    keys: &[&[f32]],
    values: &[&[f32]],
    scores: &mut [f32],
    out: &mut [f32],
) {
    let cols = keys[0].len();
    let parts = q.chunks(L::HEADS * cols).zip(scores.chunks_mut(L::HEADS * keys.len()));
    let parts = parts.zip(out.chunks_mut(L::HEADS * cols));
    for (part, ((q, scores), out)) in parts.enumerate() {
        let rule = &Scores { sinks: rule.sinks.map(|sinks| &sinks[part * L::HEADS..]), ..*rule };
        // SAFETY: as for this function: each part is of whole heads, at most four.
        unsafe {
            match q.len() / cols {
                1 => heads::<L, 1>(q, rule, keys, values, scores, out),
                2 => heads::<L, 2>(q, rule, keys, values, scores, out),
                3 => heads::<L, 3>(q, rule, keys, values, scores, out),
                _ => heads::<L, 4>(q, rule, keys, values, scores, out),
            }
        }
    }
}

/// [`attend`] for `H` heads, which read each value together.
///
/// # Safety
/// As [`attend`].
#[inline(always)]
unsafe fn heads<L: Lanes, const H: usize>(
    q: &[f32],
    rule: &Scores<'_>,
    keys: &[&[f32]],
    values: &[&[f32]],
    scores: &mut [f32],
    out: &mut [f32],
) {
    // Columns whose sums are kept in registers together.
    let step = 4 * L::WIDTH;
    let (cols, count) = (keys[0].len(), keys.len());
    let mut total = [0.0; H];
    // SAFETY: detected by the caller's promise; valid since offsets below `cols` lie in each head of `q` and `out`, and in each key and value.
    unsafe {
        for (h, (q, scores)) in q.chunks_exact(cols).zip(scores.chunks_exact_mut(count)).enumerate() {
            let fours = count / 4 * 4;
            for j in (0..fours).step_by(4) {
                let four = [keys[j].as_ptr(), keys[j + 1].as_ptr(), keys[j + 2].as_ptr(), keys[j + 3].as_ptr()];
                scores_of_four::<L>(q.as_ptr(), four, cols, scores.as_mut_ptr().add(j));
            }
            for (score, key) in scores[fours..].iter_mut().zip(&keys[fours..]) {
                let mut sums = [0.0; 4];
                scores_of_four::<L>(q.as_ptr(), [key.as_ptr(); 4], cols, sums.as_mut_ptr());
                *score = sums[0];
            }
            total[h] = vector::weigh(scores, rule.of_head(h));
        }
        let mut c = 0;
        while c + step <= cols {
            let mut acc = [[L::zero(); 4]; H];
            for (j, value) in values.iter().enumerate() {
                let mut v = [L::zero(); 4];
                for i in 0..4 {
                    v[i] = L::load(value.as_ptr().add(c + i * L::WIDTH));
                }
                for h in 0..H {
                    let score = L::splat(*scores.get_unchecked(h * count + j));
                    for i in 0..4 {
                        acc[h][i] = score.fma(v[i], acc[h][i]);
                    }
                }
            }
            for h in 0..H {
                for i in 0..4 {
                    acc[h][i].store(out.as_mut_ptr().add(h * cols + c + i * L::WIDTH));
                }
            }
            c += step;
        }
        for (h, out) in out.chunks_exact_mut(cols).enumerate() {
            if c < cols {
                out[c..].fill(0.0);
                for (score, value) in scores[h * count..].iter().zip(values) {
                    for (out, v) in out[c..].iter_mut().zip(&value[c..]) {
                        *out = score.mul_add(*v, *out);
                    }
                }
            }
            for out in out {
                *out /= total[h];
            }
        }
    }
}
