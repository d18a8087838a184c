//! Law 4 for the statistics of logits: one result on every kernel, the same whether all logits are read or only the
//! spans in which some are replaced.

use super::{LawResult, Reached, claim};
use crate::{
    kernels::{Differences, Kernel, Peaks, Replaced, Spans, Top},
    random::SplitMix64,
    testing::comparators::same_bits_double,
};

const LAW: u8 = 4;

/// One kernel of each instruction set, for what depends on no path.
pub(super) fn instruction_sets() -> Vec<Kernel> {
    let mut kernels = Kernel::available();
    kernels.dedup_by_key(|kernel| kernel.name());
    kernels
}

/// What is known of some logits, as numbers of which each bit counts: token, best, second, log-sum-exp, mean difference.
type Known = [f64; 5];

fn known(found: Option<(Top, f64)>, mean: f64) -> Known {
    match found {
        Some((top, sum)) => [top.token as f64, f64::from(top.best), f64::from(top.second), sum, mean],
        None => [f64::NAN; 5],
    }
}

/// `count` logits, some of which are replaced by others, drawn from `seed`: among them equal ones, zeros of both signs,
/// new largest ones, and some that are not finite.
///
/// # Errors
/// The violation.
pub(crate) fn statistics(count: usize, seed: u64, reached: &mut Reached) -> LawResult {
    let mut random = SplitMix64(seed);
    let wild = seed.is_multiple_of(4);
    let draw = |random: &mut SplitMix64| match random.next_u64() % if wild { 24 } else { 12 } {
        0 => 0.0,
        1 => -0.0,
        2 => 8.0,
        12 => f32::INFINITY,
        13 => f32::NAN,
        _ => (random.unit() - 0.5) * 15.0,
    };
    let clean: Vec<f32> = (0..count).map(|_| (random.unit() - 0.5) * 15.0).collect();
    let mut logits: Vec<f32> = clean.clone();
    // Where most are negative, zeros are among the largest.
    let lowered = if seed.is_multiple_of(3) { -20.0 } else { 0.0 };
    for logit in &mut logits {
        *logit += lowered;
        if random.next_u64().is_multiple_of(37) {
            *logit = draw(&mut random);
        }
    }
    let mut index: Vec<usize> =
        (0..1 + random.next_u64() % 9).map(|_| (random.next_u64() % count as u64) as usize).collect();
    index.sort_unstable();
    index.dedup();
    let new: Vec<f32> = index.iter().map(|_| draw(&mut random)).collect();
    let mut edited = logits.clone();
    index.iter().zip(&new).for_each(|(&i, &x)| edited[i] = x);
    let replaced = Replaced { index: &index, logits: &new };

    let expected = specification(&clean, &edited);
    for kernel in instruction_sets() {
        let mut p = vec![0.0; count];
        kernel.probabilities(&clean, Spans::new(kernel, &clean).log_sum_exp(), &mut p);
        let all = |logits: &[f32]| {
            let spans = Spans::new(kernel, logits);
            let found = spans.top().map(|top| (top, spans.log_sum_exp()));
            known(found, Differences::new(kernel, &p, &clean, logits).mean())
        };
        let whole = all(&edited);
        let close = whole.iter().zip(expected).all(|(found, expected)| {
            found.is_nan() && expected.is_nan() || (found - expected).abs() <= 1e-11 * (1.0 + expected.abs())
        });
        claim!(
            LAW,
            close && same_bits_double(&whole[..3], &expected[..3]).is_ok(),
            "the statistics of logits are what their definitions give",
            "{} of {count} logits: {whole:?}, not {expected:?}",
            kernel.name()
        );
        let mut spans = Spans::new(kernel, &logits);
        let mut differences = Differences::new(kernel, &p, &clean, &logits);
        let found = spans.replaced(&logits, replaced);
        let sparse = known(found, differences.mean_replaced(&p, &clean, &logits, replaced));
        let mut peaks = Peaks::new(kernel, &logits);
        let top = peaks.top_replaced(&logits, replaced);
        claim!(
            LAW,
            same_bits_double(&sparse, &whole).is_ok() && top == found.map(|found| found.0),
            "statistics after few logits are replaced are those of all logits, to the bit",
            "{} of {count} logits, {} replaced: {sparse:?}, not {whole:?}; {top:?}",
            kernel.name(),
            index.len()
        );
        let before = all(&logits);
        let again = known(spans.replaced(&logits, NOTHING), differences.mean_replaced(&p, &clean, &logits, NOTHING));
        let top = peaks.top(&logits).map(|top| [top.token as f64, f64::from(top.best), f64::from(top.second)]);
        claim!(
            LAW,
            same_bits_double(&again, &before).is_ok()
                && same_bits_double(&top.unwrap_or([f64::NAN; 3]), &before[..3]).is_ok(),
            "what was replaced is put back",
            "{} of {count} logits: {again:?}, not {before:?}; {top:?}",
            kernel.name()
        );
    }
    reached.one(if expected[0].is_nan() { "statistics that are not finite" } else { "statistics" });
    Ok(())
}

const NOTHING: Replaced<'static> = Replaced { index: &[], logits: &[] };

/// One logit after the other, in f64.
fn specification(clean: &[f32], logits: &[f32]) -> Known {
    if logits.iter().any(|x| !x.is_finite()) {
        return [f64::NAN; 5];
    }
    let (mut token, mut best, mut second) = (0, f32::NEG_INFINITY, f32::NEG_INFINITY);
    for (i, &x) in logits.iter().enumerate() {
        if x > best {
            (token, second, best) = (i, best, x);
        } else if x > second {
            second = x;
        }
    }
    let log_sum = |logits: &[f32], top: f64| top + logits.iter().map(|&x| (f64::from(x) - top).exp()).sum::<f64>().ln();
    let clean_sum = log_sum(clean, 0.0);
    let mean =
        clean.iter().zip(logits).map(|(&a, &b)| (f64::from(a) - clean_sum).exp() * (f64::from(a) - f64::from(b)));
    [token as f64, f64::from(best), f64::from(second), log_sum(logits, f64::from(best)), mean.sum()]
}
