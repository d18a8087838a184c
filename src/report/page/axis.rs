//! Axes that have room for 0, 1 and 2^31 at once.

use std::ops::Range;

use plotters::coord::{
    ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter},
    types::RangedCoordf64,
};

use crate::report::terminal::grouped;

/// How an axis runs from its lower to its upper end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scale {
    /// Evenly.
    Linear,
    /// Logarithmically, with 0 and both signs on it: `x` lies at `sign(x) ln(1 + |x| / unit)`, which is even for
    /// what is small beside `unit`, and by decades for what is large.
    Symlog {
        /// Where the one turns into the other.
        unit: f64,
    },
}

impl Scale {
    fn warp(self, x: f64) -> f64 {
        match self {
            Self::Linear => x,
            Self::Symlog { unit } => libm::copysign(libm::log1p(x.abs() / unit), x),
        }
    }
}

/// How a tick is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Ticks {
    /// As a number, large ones by their power of ten.
    Number,
    /// As an integer that this is added to: what the axis shows is the difference.
    Offset(i64),
    /// As an integer.
    Whole,
    /// As a hexadecimal digit.
    Hexadecimal,
    /// As a share, in percent.
    Percent,
}

/// One axis of a plot.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
    ticks: Ticks,
}

impl Axis {
    /// From `low` to `high`, which may be one value.
    pub(super) fn new(scale: Scale, low: f64, high: f64, ticks: Ticks) -> Self {
        // An axis of one value has it in its middle.
        let room = if low < high { 0.0 } else { 0.5 * low.abs().max(1.0) };
        Self { scale, low: low - room, high: high + room, ticks }
    }

    /// An axis for `values` as they are, with 0 on it: even where they are close to each other, logarithmic where they
    /// are not.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let (mut low, mut high, mut least) = (0.0_f64, 0.0_f64, f64::INFINITY);
        let mut ends = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values {
            (low, high) = (low.min(value), high.max(value));
            ends = (ends.0.min(value), ends.1.max(value));
            if value != 0.0 {
                least = least.min(value.abs());
            }
        }
        let greatest = high.max(-low);
        if ends.0 < ends.1 && ends.1 - ends.0 < greatest / 64.0 {
            return Self::between(ends.0, ends.1);
        }
        if greatest > 64.0 * least {
            return Self::new(Scale::Symlog { unit: least }, 1.15 * low, 1.15 * high, Ticks::Number);
        }
        Self::new(Scale::Linear, low, high, Ticks::Number)
    }

    /// An even axis from `low` to `high`. Integers with more digits in common than not are told apart by what they
    /// add to the least.
    pub(super) fn between(low: f64, high: f64) -> Self {
        let whole = low.fract() == 0.0 && high - low >= 1.0;
        let ticks = match whole && high - low < low.abs().max(high.abs()) / 64.0 {
            true => Ticks::Offset(low as i64),
            false => Ticks::Number,
        };
        Self::new(Scale::Linear, low, high, ticks)
    }

    /// What the axis' title must say of it.
    pub(super) fn note(&self) -> String {
        match (self.scale, self.ticks) {
            (_, Ticks::Offset(base)) => format!(" = {} + n", grouped(base)),
            (Scale::Symlog { .. }, _) => " (log scale, with 0)".to_owned(),
            _ => String::new(),
        }
    }

    /// Where `x` lies, 0 at the lower end and 1 at the upper one.
    pub(super) fn place(&self, x: f64) -> f64 {
        let [x, low, high] = [x, self.low, self.high].map(|x| self.scale.warp(x));
        ((x - low) / (high - low)).clamp(0.0, 1.0)
    }

    fn label(&self, x: f64) -> String {
        match self.ticks {
            Ticks::Offset(base) => format!("+{}", grouped((x - base as f64).round() as i64)),
            Ticks::Whole => grouped(x.round() as i64),
            Ticks::Hexadecimal => format!("{:X}", x.round() as i64),
            Ticks::Percent => format!("{}%", short(100.0 * x)),
            Ticks::Number => number(x),
        }
    }

    /// Round values at which there is room for a tick: of `many` at most.
    fn round_values(&self, many: usize) -> Vec<f64> {
        let Scale::Symlog { unit } = self.scale else {
            let whole = matches!(self.ticks, Ticks::Offset(_) | Ticks::Whole | Ticks::Hexadecimal);
            // Few integers have a tick each; between two of them there is nothing that a tick could stand for.
            let steps = (self.high - self.low).floor();
            let most = if whole && 2.0 * steps < 3.0 * many as f64 { (steps as usize + 1).max(2) } else { many };
            let base = if let Ticks::Offset(base) = self.ticks { base as f64 } else { 0.0 };
            let even = RangedCoordf64::from(self.low - base..self.high - base);
            let points = even.key_points(most).into_iter().filter(|x| !whole || x.fract() == 0.0);
            return points.map(|x| x + base).collect();
        };
        let first = unit.log10().floor() as i32;
        let last = self.high.max(-self.low).log10().ceil() as i32;
        let decades: Vec<f64> = (first..=last)
            .map(|k| 10_f64.powi(k))
            .filter(|&x| x >= 0.999 * unit && x <= self.high.max(-self.low))
            .collect();
        let sides = usize::from(self.low < 0.0) + usize::from(self.high > 0.0);
        let step = (decades.len() * sides + 1).div_ceil(many.max(2)).max(1);
        // Counted from the largest, which says most about the axis, down to where there is room beside the 0.
        let kept = decades.iter().rev().step_by(step).filter(|&&x| libm::log1p(x / unit) > 0.6);
        let both = kept.flat_map(|&x| [x, -x]).chain([0.0]);
        let mut ticks: Vec<f64> = both.filter(|x| (self.low..=self.high).contains(x)).collect();
        ticks.sort_by(f64::total_cmp);
        ticks
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, x: &f64, (from, to): (i32, i32)) -> i32 {
        from + (self.place(*x) * f64::from(to - from)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        self.round_values(hint.bold_points())
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, x: &f64) -> String {
        self.label(*x)
    }
}

/// Formats a number in few characters: `0.01`, `250`, `10k`, `2.5M`, `1e12`, `1e-6`.
fn number(x: f64) -> String {
    let size = x.abs();
    match size {
        0.0 => "0".to_owned(),
        _ if !(0.999e-3..0.999e12).contains(&size) => format!("{x:e}"),
        _ if size >= 0.999e9 => format!("{}G", short(x / 1e9)),
        _ if size >= 0.999e6 => format!("{}M", short(x / 1e6)),
        _ if size >= 0.999e4 => format!("{}k", short(x / 1e3)),
        _ => short(x),
    }
}

/// At most three decimals, none of them for nothing.
fn short(x: f64) -> String {
    let text = format!("{x:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis, many: usize) -> Vec<String> {
        axis.round_values(many).into_iter().map(|x| axis.label(x)).collect()
    }

    #[test]
    fn an_axis_of_shifts_has_room_for_0_and_for_both_signs() {
        let axis = Axis::of([0.0, 1.0, 1e6, 1e8]);
        assert_eq!(labels(&axis, 12), ["0", "1", "10", "100", "1000", "10k", "100k", "1M", "10M", "100M"]);
        let places: Vec<f64> = [0.0, 1.0, 1e6, 1e8].map(|x| axis.place(x)).to_vec();
        assert!(places.is_sorted() && places[0] == 0.0 && places[3] < 1.0, "{places:?}");
        let both = Axis::of([-1e6, 1e6, 1.0]);
        assert!((both.place(0.0) - 0.5).abs() < 1e-12);
        assert!((both.place(-1e3) + both.place(1e3) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn integers_that_begin_alike_are_told_apart_by_what_they_add() {
        let axis = Axis::of((0..=10).map(|n| 1e6 + f64::from(n)));
        assert_eq!(axis.note(), " = 1,000,000 + n");
        assert_eq!(labels(&axis, 11).first().map(String::as_str), Some("+0"));
        assert_eq!((axis.place(1e6), axis.place(1e6 + 10.0)), (0.0, 1.0));
    }

    #[test]
    fn no_values_and_one_value_and_the_largest_have_an_axis() {
        for values in [&[][..], &[0.0], &[5.0], &[i64::MIN as f64, i64::MAX as f64], &[1e-9, 1.0], &[-3.0]] {
            let axis = Axis::of(values.iter().copied());
            assert!(values.iter().all(|&x| (0.0..=1.0).contains(&axis.place(x))), "{values:?}");
            let ticks = axis.round_values(10);
            assert!((1..=20).contains(&ticks.len()), "{values:?}: {ticks:?}");
        }
    }

    #[test]
    fn few_integers_have_a_tick_each() {
        let axis = Axis::new(Scale::Linear, -0.5, 15.5, Ticks::Hexadecimal);
        assert_eq!(labels(&axis, 12).concat(), "0123456789ABCDEF");
        let axis = Axis::new(Scale::Linear, -0.5, 9.5, Ticks::Whole);
        assert_eq!(labels(&axis, 12).concat(), "0123456789");
        let axis = Axis::new(Scale::Linear, -0.5, 499.5, Ticks::Whole);
        assert!((4..=12).contains(&labels(&axis, 10).len()));
    }

    #[test]
    fn numbers_are_short() {
        let texts = [0.0, 0.01, 250.0, 1e4, 2.5e6, 1e9, 1e12, 1e-6, -1e5].map(number);
        assert_eq!(texts, ["0", "0.01", "250", "10k", "2.5M", "1G", "1e12", "1e-6", "-100k"]);
    }
}
