//! Attention: query heads over keys and values, with the specification's order of additions.
//!
//! Keys and values come in *stretches*: slices of whole heads that lie one after the other in memory. Queries of several positions of
//! one path read each stretch together, while it is in the nearest cache: what a long prompt reads of memory then does not grow with the
//! square of its length.

use super::{
    products::lanes::{LANES, Lanes, padded, sum_lines},
    specification::vector::{self, Asking, Scores},
};

/// Keys, at least, whose products all queries take before the next keys are read: few enough to stay in the nearest cache.
const BLOCK: usize = 64;

/// The products of `H` queries, one after the other in `q`, and four keys, all of `cols` columns. The four of each query are written
/// one after the other, those of the next `stride` further on.
///
/// # Safety
/// The instruction set of `L` was detected; `q` is valid for `H` times `cols` floats, each key for `cols`, `to` for what is written.
#[inline(always)]
unsafe fn scores_of_four<L: Lanes, const H: usize>(
    q: *const f32,
    keys: [*const f32; 4],
    cols: usize,
    to: *mut f32,
    stride: usize,
) {
    let whole = cols / LANES * LANES;
    let mut lines = [[[0.0; LANES]; 4]; H];
    // SAFETY: detected by the caller's promise; valid since offsets below `whole` have sixteen columns after them, and the rest is
    // copied into padded lines first.
    unsafe {
        for lane in (0..LANES).step_by(L::WIDTH) {
            let mut acc = [[L::zero(); 4]; H];
            for c in (lane..whole).step_by(LANES) {
                let mut own = [L::zero(); H];
                for h in 0..H {
                    own[h] = L::load(q.add(h * cols + c));
                }
                for k in 0..4 {
                    let key = L::load(keys[k].add(c));
                    for h in 0..H {
                        acc[h][k] = own[h].fma(key, acc[h][k]);
                    }
                }
            }
            if whole < cols {
                let rest = |x: *const f32| padded(std::slice::from_raw_parts(x.add(whole), cols - whole));
                for h in 0..H {
                    let own = rest(q.add(h * cols));
                    let own = L::load(own.as_ptr().add(lane));
                    for k in 0..4 {
                        let key = rest(keys[k]);
                        acc[h][k] = own.fma(L::load(key.as_ptr().add(lane)), acc[h][k]);
                    }
                }
            }
            for h in 0..H {
                for k in 0..4 {
                    acc[h][k].store(lines[h][k].as_mut_ptr().add(lane));
                }
            }
        }
        for h in 0..H {
            let mut arranged = [[0.0; LANES]; 4];
            for k in 0..4 {
                L::arrange(lines[h][k].as_ptr(), arranged[k].as_mut_ptr());
            }
            sum_lines::<L>(arranged.each_ref().map(|line| line.as_ptr()), to.add(h * stride));
        }
    }
}

/// The part of the stretch at `at` that lies within `over`, as positions of the stretch.
#[inline(always)]
fn within(over: &std::ops::Range<usize>, at: usize, positions: usize) -> std::ops::Range<usize> {
    let first = over.start.clamp(at, at + positions);
    first - at..over.end.clamp(first, at + positions) - at
}

/// The products of `H` queries and those keys of some stretches, of which the first begins at position `at`, that lie within `over`.
/// `to` is the place of the first of them.
///
/// # Safety
/// As [`scores_of_four`]; keys are whole.
#[inline(always)]
unsafe fn products<L: Lanes, const H: usize>(
    q: *const f32,
    over: &std::ops::Range<usize>,
    mut at: usize,
    keys: &[&[f32]],
    cols: usize,
    mut to: *mut f32,
    stride: usize,
) {
    let mut four = [q; 4];
    let mut waiting = 0;
    // SAFETY: detected by the caller's promise; valid since rows lie in their stretch, and as many scores are written as there are rows.
    unsafe {
        for stretch in keys {
            let positions = stretch.len() / cols;
            let rows = within(over, at, positions);
            at += positions;
            for row in rows {
                four[waiting] = stretch.as_ptr().add(row * cols);
                waiting += 1;
                if waiting == 4 {
                    scores_of_four::<L, H>(q, four, cols, to, stride);
                    to = to.add(4);
                    waiting = 0;
                }
            }
        }
        if waiting > 0 {
            let mut sums = [[0.0; 4]; H];
            for empty in waiting..4 {
                four[empty] = four[0];
            }
            scores_of_four::<L, H>(q, four, cols, sums.as_mut_ptr().cast(), 4);
            for h in 0..H {
                for k in 0..waiting {
                    to.add(h * stride + k).write(sums[h][k]);
                }
            }
        }
    }
}

/// Adds the weighted values of some stretches, of which the first begins at position `at`, to the columns `c ..` of `out`, as many as
/// `N` registers hold.
///
/// # Safety
/// The instruction set of `L` was detected; these columns lie in each value and in each of the `H` outputs of `cols` columns; `scores`
/// is the place of the first weight, those of the next head lie `stride` further on.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "they are places and strides of one loop")]
unsafe fn add_values<L: Lanes, const H: usize, const N: usize>(
    mut scores: *const f32,
    stride: usize,
    over: &std::ops::Range<usize>,
    mut at: usize,
    values: &[&[f32]],
    cols: usize,
    c: usize,
    out: *mut f32,
) {
    // SAFETY: as for this function.
    unsafe {
        let mut acc = [[L::zero(); N]; H];
        for h in 0..H {
            for i in 0..N {
                acc[h][i] = L::load(out.add(h * cols + c + i * L::WIDTH));
            }
        }
        for stretch in values {
            let positions = stretch.len() / cols;
            let rows = within(over, at, positions);
            at += positions;
            for row in rows {
                let value = stretch.as_ptr().add(row * cols + c);
                let mut v = [L::zero(); N];
                for i in 0..N {
                    v[i] = L::load(value.add(i * L::WIDTH));
                }
                for h in 0..H {
                    let score = L::splat(*scores.add(h * stride));
                    for i in 0..N {
                        acc[h][i] = score.fma(v[i], acc[h][i]);
                    }
                }
                scores = scores.add(1);
            }
        }
        for h in 0..H {
            for i in 0..N {
                acc[h][i].store(out.add(h * cols + c + i * L::WIDTH));
            }
        }
    }
}

/// Attention as [`vector::attend`] states it. `scores` are as many as there are heads and positions of all that ask.
///
/// # Safety
/// The instruction set of `L` was detected; all keys and values are of `cols` columns; queries and outputs are as long as each other and
/// whole heads; what is asked for is there.
#[inline(always)]
pub(crate) unsafe fn attend<L: Lanes>(
    asking: &mut [Asking<'_>],
    cols: usize,
    rule: &Scores<'_>,
    keys: &[&[f32]],
    values: &[&[f32]],
    scores: &mut [f32],
) {
    let heads = asking[0].q.len() / cols;
    for first in (0..heads).step_by(L::HEADS) {
        // SAFETY: as for this function: each part is of whole heads, at most four.
        unsafe {
            match (heads - first).min(L::HEADS) {
                1 => some_heads::<L, 1>(first, asking, cols, rule, keys, values, scores),
                2 => some_heads::<L, 2>(first, asking, cols, rule, keys, values, scores),
                3 => some_heads::<L, 3>(first, asking, cols, rule, keys, values, scores),
                _ => some_heads::<L, 4>(first, asking, cols, rule, keys, values, scores),
            }
        }
    }
}

/// [`attend`] for `H` heads from `first` on, which read each key and value together.
///
/// # Safety
/// As [`attend`].
#[inline(always)]
unsafe fn some_heads<L: Lanes, const H: usize>(
    first: usize,
    asking: &mut [Asking<'_>],
    cols: usize,
    rule: &Scores<'_>,
    keys: &[&[f32]],
    values: &[&[f32]],
    scores: &mut [f32],
) {
    // SAFETY: detected by the caller's promise; valid since `first` and the heads after it lie in each query and output, and since the
    // scores of each that asks are a part of their own, `stride` for each head, in which a position has its place.
    unsafe {
        let (mut block, mut at) = (0, 0);
        while block < keys.len() {
            let (end, positions) = next_block(keys, block, cols);
            let mut own = scores.as_mut_ptr();
            for ask in &mut *asking {
                let stride = ask.over.len();
                let to = own.add(at.clamp(ask.over.start, ask.over.end) - ask.over.start);
                let q = ask.q.as_ptr().add(first * cols);
                products::<L, H>(q, &ask.over, at, &keys[block..end], cols, to, stride);
                own = own.add(H * stride);
            }
            (block, at) = (end, at + positions);
        }
        let mut totals = Vec::with_capacity(asking.len());
        let mut own = &mut *scores;
        for ask in &mut *asking {
            let mut total = [0.0; H];
            for h in 0..H {
                let head;
                (head, own) = own.split_at_mut(ask.over.len());
                total[h] = vector::weigh(head, rule.of_head(first + h));
            }
            totals.push(total);
            ask.out[first * cols..(first + H) * cols].fill(0.0);
        }
        let (mut block, mut at) = (0, 0);
        while block < values.len() {
            let (end, positions) = next_block(values, block, cols);
            let mut own = scores.as_ptr();
            for ask in &mut *asking {
                let stride = ask.over.len();
                let from = own.add(at.clamp(ask.over.start, ask.over.end) - ask.over.start);
                let out = ask.out.as_mut_ptr().add(first * cols);
                let stretches = &values[block..end];
                let mut c = 0;
                while c + 4 * L::WIDTH <= cols {
                    add_values::<L, H, 4>(from, stride, &ask.over, at, stretches, cols, c, out);
                    c += 4 * L::WIDTH;
                }
                while c + L::WIDTH <= cols {
                    add_values::<L, H, 1>(from, stride, &ask.over, at, stretches, cols, c, out);
                    c += L::WIDTH;
                }
                if c < cols {
                    let mut at = at;
                    let mut from = from;
                    for stretch in stretches {
                        let positions = stretch.len() / cols;
                        for row in within(&ask.over, at, positions) {
                            for h in 0..H {
                                let score = *from.add(h * stride);
                                for c in c..cols {
                                    let out = out.add(h * cols + c);
                                    *out = score.mul_add(stretch[row * cols + c], *out);
                                }
                            }
                            from = from.add(1);
                        }
                        at += positions;
                    }
                }
                own = own.add(H * stride);
            }
            (block, at) = (end, at + positions);
        }
        for (ask, total) in asking.iter_mut().zip(totals) {
            for h in 0..H {
                for out in &mut ask.out[(first + h) * cols..(first + h + 1) * cols] {
                    *out /= total[h];
                }
            }
        }
    }
}

/// Where the block of stretches ends that begins at `first`, and its positions.
#[inline(always)]
fn next_block(stretches: &[&[f32]], first: usize, cols: usize) -> (usize, usize) {
    let (mut end, mut positions) = (first, 0);
    while end < stretches.len() && positions < BLOCK {
        positions += stretches[end].len() / cols;
        end += 1;
    }
    (end, positions)
}
