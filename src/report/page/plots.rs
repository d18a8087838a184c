//! Plots, as SVG that stands in a page.
//!
//! `plotters` lays out what every plot has: areas, axes, ticks, mesh. The marks are drawn here, at the coordinates that
//! it gives, so that each can carry its numbers as a tooltip. No color is fixed: everything has a class, and the page's
//! style says what that looks like by day, by night and on paper. A verdict has a shape of its own, too, for those who
//! do not see its color.

use std::fmt::Write;

use plotters::{
    chart::{ChartBuilder, ChartContext},
    coord::{Shift, ranged1d::Ranged},
    drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea},
    prelude::{Cartesian2d, SVGBackend},
    style::{IntoFont, RGBColor, ShapeStyle, TRANSPARENT},
};

use super::{
    axis::{Axis, Scale, Ticks},
    escape::escaped,
};
use crate::{
    certificate::Protection,
    coherence::Verdict,
    record::summary::Spread,
    report::{
        curve::{Point, number, written},
        terminal::{grouped, percent},
    },
    search::map::Cell,
};

/// A plot that could not be drawn.
#[derive(Debug, thiserror::Error)]
#[error("cannot draw a plot: {0}")]
pub struct DrawError(String);

impl From<DrawingAreaErrorKind<std::io::Error>> for DrawError {
    fn from(error: DrawingAreaErrorKind<std::io::Error>) -> Self {
        Self(error.to_string())
    }
}

/// Width of every plot, in its own units; the page scales it.
const WIDTH: u32 = 760;

/// Room for the labels of a vertical axis.
const LEFT: u32 = 62;

/// Room for those of a horizontal one.
const BELOW: u32 = 46;

/// Stand-ins that become classes.
const INK: RGBColor = RGBColor(0, 0, 1);
const GRID: RGBColor = RGBColor(0, 0, 2);
const AXIS: RGBColor = RGBColor(0, 0, 3);
const CLASSES: [(&str, &str); 3] = [
    ("fill=\"#000001\"", "class=\"ink\""),
    ("stroke=\"#000002\"", "class=\"grid\""),
    ("stroke=\"#000003\"", "class=\"axis\""),
];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b> = ChartContext<'b, SVGBackend<'a>, Cartesian2d<Axis, Axis>>;

/// The outline of a verdict's mark, around the origin, five units in each direction.
pub(super) const fn shape(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Healthy => "M-5,0a5,5 0 1 0 10,0a5,5 0 1 0 -10,0z",
        Verdict::Wobbling => "M-4.5,-4.5h9v9h-9z",
        Verdict::Dying => "M0,-5.5L5.5,4.5H-5.5z",
        Verdict::Collapsing => "M0,-6L6,0L0,6L-6,0z",
        Verdict::Dead => "M0,5.5L5.5,-4.5H-5.5z",
        Verdict::Gone => "M-5,-2.5L-2.5,-5L0,-2.5L2.5,-5L5,-2.5L2.5,0L5,2.5L2.5,5L0,2.5L-2.5,5L-5,2.5L-2.5,0z",
    }
}

/// The class of a verdict.
pub(super) const fn class(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Healthy => "v0",
        Verdict::Wobbling => "v1",
        Verdict::Dying => "v2",
        Verdict::Collapsing => "v3",
        Verdict::Dead => "v4",
        Verdict::Gone => "v5",
    }
}

/// Two letters for a verdict: D would be two of them.
pub(super) fn letters(verdict: Verdict) -> &'static str {
    &verdict.name()[..2]
}

/// One plot: what `draw` draws with plotters, and below the marks that it returns.
fn plot(
    height: u32,
    alt: &str,
    draw: impl FnOnce(&Area<'_>) -> Result<String, DrawError>,
) -> Result<String, DrawError> {
    let mut drawn = String::new();
    let root = SVGBackend::with_string(&mut drawn, (WIDTH, height)).into_drawing_area();
    let marks = draw(&root)?;
    root.present()?;
    drop(root);
    for (color, class) in CLASSES {
        drawn = drawn.replace(color, class);
    }
    // Ours in place of its first and last tag: that one says how large it is in pixels, and not what it shows.
    let inner = drawn.split_once(">\n").map_or("", |(_, rest)| rest).trim_end().trim_end_matches("</svg>");
    Ok(format!(
        "<svg class=\"plot\" viewBox=\"0 0 {WIDTH} {height}\" xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" \
         aria-label=\"{}\">\n{inner}{marks}</svg>",
        escaped(alt),
    ))
}

/// Axes and mesh.
fn chart<'a, 'b>(
    area: &'b Area<'a>,
    (x, x_title): (&Axis, Option<&str>),
    (y, y_title): (&Axis, &str),
) -> Result<Chart<'a, 'b>, DrawError> {
    let mut chart = ChartBuilder::on(area)
        .margin_top(10)
        .margin_left(6)
        .margin_right(16)
        .y_label_area_size(LEFT)
        .x_label_area_size(if x_title.is_some() { BELOW } else { 6 })
        .build_cartesian_2d(x.clone(), y.clone())?;
    let axis = ShapeStyle { color: AXIS.into(), filled: false, stroke_width: 1 };
    let mut mesh = chart.configure_mesh();
    mesh.axis_style(axis)
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .label_style(("sans-serif", 15).into_font().color(&INK))
        .axis_desc_style(("sans-serif", 15.5).into_font().color(&INK))
        .x_labels(12)
        .y_labels(6)
        .y_desc(y_title);
    match x_title {
        Some(title) => mesh.x_desc(title),
        // The axis below is this one's, too.
        None => mesh.x_label_formatter(&|_| String::new()),
    };
    mesh.draw()?;
    Ok(chart)
}

/// A verdict's mark at a place, with a tooltip.
fn mark(out: &mut String, verdict: Verdict, (x, y): (i32, i32), extra: &str, title: &str) {
    _ = writeln!(
        out,
        "<g class=\"{}\"><title>{}</title>{extra}<path class=\"mark\" transform=\"translate({x},{y})\" d=\"{}\"/></g>",
        class(verdict),
        escaped(title),
        shape(verdict),
    );
}

/// Neighbouring places where an edit was seen to turn from holding to failing, or back.
pub(super) type Crossing = (f64, f64);

/// Divergence and coherent share along one family, one above the other.
pub(super) fn curve(
    points: &[Point],
    axis: &Axis,
    axis_title: &str,
    crossings: &[Crossing],
) -> Result<String, DrawError> {
    let greatest = points.iter().filter_map(|point| point.kl_range[1].or(point.spread.kl_mean)).fold(0.1, f64::max);
    // Even below the divergence at which a coherent answer stops being healthy, by decades above.
    let nats = Axis::new(Scale::Symlog { unit: 0.01 }, 0.0, 1.6 * greatest, Ticks::Number);
    let share = Axis::new(Scale::Linear, 0.0, 1.0, Ticks::Percent);
    let alt = alt(points, axis_title);
    plot(430, &alt, |root| {
        let (upper, lower) = root.split_vertically(232);
        let upper = chart(&upper, (axis, None), (&nats, "D, nats"))?;
        let lower = chart(&lower, (axis, Some(axis_title)), (&share, "coherent steps"))?;
        let mut marks = String::new();
        for &(lo, hi) in crossings {
            let seen = axis.range();
            for chart in [&upper, &lower].into_iter().filter(|_| lo <= seen.end && hi >= seen.start) {
                let ((x0, top), (x1, bottom)) = (corner(chart, lo, 1.0), corner(chart, hi, 0.0));
                let (width, middle) = ((x1 - x0).max(2), (x0 + x1) / 2);
                _ = writeln!(
                    marks,
                    "<rect class=\"crossing\" x=\"{x0}\" y=\"{top}\" width=\"{width}\" height=\"{}\"/>\
                     <path class=\"crossing-at\" d=\"M{middle},{top}l-5,-8h10z\"/>",
                    bottom - top,
                );
            }
        }
        for point in points {
            let (x, title) = (number(point.value), tooltip(point));
            let at = upper.backend_coord(&(x, point.spread.kl_mean.unwrap_or(f64::INFINITY)));
            let (_, floor) = upper.backend_coord(&(x, 0.0));
            let mut extra = stem(at.0, floor, at.1, "stem");
            if point.spread.trials > 1 {
                let [least, most] = point.kl_range.map(|kl| upper.backend_coord(&(x, kl.unwrap_or(f64::INFINITY))).1);
                extra += &stem(at.0, least, most, "range");
            }
            mark(&mut marks, point.spread.median, at, &extra, &title);
            let at = lower.backend_coord(&(x, point.coherent));
            let (_, floor) = lower.backend_coord(&(x, 0.0));
            mark(&mut marks, point.spread.median, at, &stem(at.0, floor, at.1, "stem"), &title);
        }
        Ok(marks)
    })
}

/// Where `x` lies on a chart, at its upper (1) or lower (0) edge.
fn corner(chart: &Chart<'_, '_>, x: f64, edge: f64) -> (i32, i32) {
    let range = chart.y_range();
    chart.backend_coord(&(x, if edge > 0.5 { range.end } else { range.start }))
}

fn stem(x: i32, from: i32, to: i32, class: &str) -> String {
    format!("<line class=\"{class}\" x1=\"{x}\" y1=\"{from}\" x2=\"{x}\" y2=\"{to}\"/>")
}

fn nats(kl: Option<f64>) -> String {
    kl.map_or("not finite".to_owned(), |kl| format!("{kl:.4} nats"))
}

fn tooltip(point: &Point) -> String {
    let [least, most] = point.kl_range;
    let over = if point.spread.trials > 1 {
        format!(" ({} to {}, medians of {} prompts)", nats(least), nats(most), point.spread.trials)
    } else {
        String::new()
    };
    let (value, coherent) = (written(point.value), 100.0 * point.coherent);
    format!(
        "{value}: {}, D {}, {coherent:.0}% of the steps coherent{over}",
        point.spread.median,
        nats(point.spread.kl_mean)
    )
}

/// What a plot shows, for those who do not see it.
fn alt(points: &[Point], axis_title: &str) -> String {
    let count = |verdict| points.iter().filter(|point| point.spread.median == verdict).count();
    let counts: Vec<String> = Verdict::ALL
        .into_iter()
        .filter(|&verdict| count(verdict) > 0)
        .map(|verdict| format!("{} {verdict}", count(verdict)))
        .collect();
    format!(
        "Divergence and share of coherent steps against {axis_title}: {} values, {}. The table below has the numbers.",
        points.len(),
        counts.join(", "),
    )
}

/// Parts of a curve whose values lie so close that one axis for all cannot part them; the first is the last.
pub(super) fn crowded<'a>(points: &'a [Point], axis: &Axis) -> Vec<&'a [Point]> {
    // The width of a mark.
    let apart = 11.0 / f64::from(WIDTH - LEFT);
    let place = |point: &Point| axis.place(number(point.value));
    let runs = points.chunk_by(|a, b| place(b) - place(a) < apart);
    let narrow = |run: &&[Point]| run.len() > 2 && place(&run[run.len() - 1]) - place(&run[0]) < 0.1;
    let mut found: Vec<&[Point]> = runs.filter(narrow).filter(|run| run.len() < points.len()).collect();
    found.reverse();
    found
}

/// Divergences in nats at which the color of a map's cell changes, three a decade but for rounding.
const LEVELS: [f64; 7] = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0];

/// A divergence in a few characters.
fn brief(kl: Option<f64>) -> String {
    match kl {
        None => "∞".to_owned(),
        Some(0.0) => "0".to_owned(),
        Some(kl) if kl < 0.005 => "<.01".to_owned(),
        Some(kl) if kl < 9.995 => format!("{kl:.2}"),
        Some(kl) => format!("{kl:.1}"),
    }
}

fn level(kl: Option<f64>) -> usize {
    kl.map_or(LEVELS.len(), |kl| LEVELS.partition_point(|&level| level <= kl))
}

/// The hexadecimal map: digit upwards, value to the right, divergence by color, the median verdict in letters.
pub(super) fn map(cells: &[Cell]) -> Result<String, DrawError> {
    let values = Axis::new(Scale::Linear, -0.5, 15.5, Ticks::Hexadecimal);
    let digits = Axis::new(Scale::Linear, -0.5, 7.5, Ticks::Whole);
    let worst = cells.iter().max_by(|a, b| kl_order(a).total_cmp(&kl_order(b)));
    let alt = format!(
        "Heat map of the divergence over {} cells, digit position by digit value.{} The table below has the numbers.",
        cells.len(),
        worst.map_or(String::new(), |cell| format!(" The worst is digit {}, value {:X}.", cell.digit, cell.value)),
    );
    plot(430, &alt, |root| {
        let (upper, _) = root.split_vertically(390);
        let chart = chart(&upper, (&values, Some("value of the digit")), (&digits, "digit k: shift = value × 16^k"))?;
        let mut marks = String::new();
        for cell in cells {
            let (value, digit) = (cell.value as f64, f64::from(cell.digit));
            let (x0, y0) = chart.backend_coord(&(value - 0.5, digit + 0.5));
            let (x1, y1) = chart.backend_coord(&(value + 0.5, digit - 0.5));
            let (x, middle) = ((x0 + x1) / 2, (y0 + y1) / 2);
            let Spread { kl_mean, agreement, median, trials, verdicts, .. } = &cell.spread;
            let counts: Vec<String> = verdicts.iter().map(|(verdict, count)| format!("{count} {verdict}")).collect();
            let title = format!(
                "digit {}, value {:X}, shift {}: D {}, agreement {}, median {median} of {trials} ({})",
                cell.digit,
                cell.value,
                grouped(cell.shift),
                nats(*kl_mean),
                agreement.map_or("n/a".to_owned(), |share| format!("{:.0}%", 100.0 * share)),
                counts.join(", "),
            );
            _ = writeln!(
                marks,
                "<g class=\"cell h{}\"><title>{}</title><rect x=\"{x0}\" y=\"{y0}\" width=\"{}\" height=\"{}\"/>\
                 <text class=\"letters\" x=\"{x}\" y=\"{}\">{}</text><text class=\"small\" x=\"{x}\" y=\"{}\">{}</text></g>",
                level(*kl_mean),
                escaped(&title),
                x1 - x0,
                y1 - y0,
                middle - 2,
                letters(*median),
                middle + 12,
                escaped(&brief(*kl_mean)),
            );
        }
        legend(&mut marks);
        Ok(marks)
    })
}

fn kl_order(cell: &Cell) -> f64 {
    cell.spread.kl_mean.unwrap_or(f64::INFINITY)
}

/// What the colors of a map mean.
fn legend(out: &mut String) {
    let (width, top) = (76, 398);
    for i in 0..=LEVELS.len() {
        let label = match i {
            0 => format!("below {}", LEVELS[0]),
            _ if i == LEVELS.len() => format!("{} or more", LEVELS[i - 1]),
            _ => format!("{} to {}", LEVELS[i - 1], LEVELS[i]),
        };
        let x = LEFT as usize + 10 + i * (width + 7);
        _ = writeln!(
            out,
            "<g class=\"cell h{i}\"><rect x=\"{x}\" y=\"{top}\" width=\"{width}\" height=\"24\"/><text class=\"small\" x=\"{}\" \
             y=\"{}\">{label}</text></g>",
            x + width / 2,
            top + 16,
        );
    }
}

/// An estimate with its interval.
pub(super) struct Estimate {
    pub(super) x: f64,
    pub(super) rate: f64,
    pub(super) interval: [f64; 2],
    pub(super) title: String,
}

/// Probabilities with their intervals, against what is flipped.
pub(super) fn estimates(estimates: &[Estimate], x_title: &str, y_title: &str) -> Result<String, DrawError> {
    let axis = Axis::of(estimates.iter().map(|estimate| estimate.x));
    let seen = estimates.iter().flat_map(|estimate| [estimate.rate, estimate.interval[1]]).filter(|&p| p > 0.0);
    let (least, most) = seen.fold((1.0_f64, 0.0_f64), |(least, most), p| (least.min(p), most.max(p)));
    // By decades where one probability is many times another.
    let scale = if most > 30.0 * least { Scale::Symlog { unit: least } } else { Scale::Linear };
    let y = Axis::new(scale, 0.0, (1.15 * most).min(1.0), Ticks::Percent);
    let alt = format!("{y_title} against {x_title}: {} estimates. The table below has the numbers.", estimates.len());
    plot(300, &alt, |root| {
        let chart =
            chart(root, (&axis, Some(&format!("{x_title}{}", axis.note()))), (&y, &format!("{y_title}{}", y.note())))?;
        let mut marks = String::new();
        for estimate in estimates {
            let place = |p: f64| chart.backend_coord(&(estimate.x, p));
            let ((x, at), (_, low), (_, high)) =
                (place(estimate.rate), place(estimate.interval[0]), place(estimate.interval[1]));
            _ = writeln!(
                marks,
                "<g class=\"estimate\"><title>{}</title><path class=\"whisker\" d=\"M{x},{low}V{high}M{},{low}h12M{},{high}h12\"/>\
                 <circle cx=\"{x}\" cy=\"{at}\" r=\"4.5\"/></g>",
                escaped(&estimate.title),
                x - 6,
                x - 6,
            );
        }
        Ok(marks)
    })
}

/// A number with a name.
pub(super) struct Bar {
    pub(super) height: usize,
    pub(super) title: String,
}

/// Numbers side by side, counted from 0; by decades where one is many times another.
pub(super) fn bars(bars: &[Bar], x_title: &str, y_title: &str) -> Result<String, DrawError> {
    let most = bars.iter().map(|bar| bar.height).max().unwrap_or(0).max(1) as f64;
    let y = if most > 64.0 {
        Axis::new(Scale::Symlog { unit: 1.0 }, 0.0, 1.6 * most, Ticks::Number)
    } else {
        Axis::new(Scale::Linear, 0.0, 1.12 * most, Ticks::Whole)
    };
    let x = Axis::new(Scale::Linear, -0.5, bars.len().max(1) as f64 - 0.5, Ticks::Whole);
    let alt =
        format!("{y_title} by {x_title}: {} bars, the highest {most}. The table below has the numbers.", bars.len());
    plot(240, &alt, |root| {
        let chart = chart(root, (&x, Some(x_title)), (&y, &format!("{y_title}{}", y.note())))?;
        let mut marks = String::new();
        for (i, bar) in bars.iter().enumerate() {
            let middle = i as f64;
            let (x0, top) = chart.backend_coord(&(middle - 0.36, bar.height as f64));
            let (x1, floor) = chart.backend_coord(&(middle + 0.36, 0.0));
            let (width, height) = ((x1 - x0).max(1), floor - top);
            _ = writeln!(
                marks,
                "<g><title>{}</title><rect class=\"bar\" x=\"{x0}\" y=\"{top}\" width=\"{width}\" height=\"{height}\"/></g>",
                escaped(&bar.title),
            );
        }
        Ok(marks)
    })
}

/// How much of the vulnerability the first words carry.
pub(super) fn protection(curve: &[Protection]) -> Result<String, DrawError> {
    let x = Axis::of(curve.iter().map(|point| point.words as f64));
    let y = Axis::new(Scale::Linear, 0.0, 1.0, Ticks::Percent);
    let last = curve.last().map_or(0, |point| point.words);
    let alt = format!(
        "Share of the critical bits that the first words carry: all of them lie in {last} words. The table below has the numbers."
    );
    plot(300, &alt, |root| {
        let x_title = format!("packed words, those with the most critical bits first{}", x.note());
        let chart = chart(root, (&x, Some(&x_title)), (&y, "share of the critical bits"))?;
        let place = |point: &Protection| chart.backend_coord(&(point.words as f64, point.share));
        let line: Vec<String> = curve.iter().map(place).map(|(x, y)| format!("{x},{y}")).collect();
        let mut marks = format!("<polyline class=\"line\" points=\"{}\"/>\n", line.join(" "));
        for point in curve {
            let (x, y) = place(point);
            let words = grouped(point.words as i64);
            _ = writeln!(
                marks,
                "<g class=\"estimate\"><title>{words} words carry {}</title><circle cx=\"{x}\" cy=\"{y}\" r=\"3.5\"/></g>",
                percent(point.share),
            );
        }
        Ok(marks)
    })
}
