//! The plots of a page, and what stands around them: a title, and how to read it.

use minijinja::value::Value;
use serde::Serialize;

use super::{
    axis::Axis,
    plots::{self, Bar, Crossing, DrawError, Estimate},
};
use crate::{
    certificate::{Answer, PositionReport, Protection},
    report::{
        curve::{Curve, Point, number, written},
        terminal::{grouped, percent, plain},
    },
    search::{campaign, map::Cell},
};

/// Plots of one family, with those of its crowded parts.
const FIGURES: usize = 6;

/// A plot and what stands around it.
#[derive(Serialize)]
pub(super) struct Figure {
    title: String,
    caption: String,
    svg: Value,
}

/// The plot of one family, and one for each part of it that is too crowded to be read there.
pub(super) fn curve_figures(curve: &Curve, crossings: &[Crossing]) -> Result<Vec<Figure>, DrawError> {
    let draw = |points: &[Point], axis: &Axis, title: String, caption: String| {
        let left_out = match curve.left_out {
            0 => String::new(),
            trials => format!(
                " Of very many values {} are drawn, chosen evenly; {} trials are of the others.",
                grouped(curve.points.len() as i64),
                grouped(trials as i64)
            ),
        };
        let axis_title = format!("{}{}", axis_name(&curve.family), axis.note());
        let svg = plots::curve(points, axis, &axis_title, crossings)?;
        Ok::<_, DrawError>(Figure { title, caption: caption + &left_out, svg: Value::from_safe_string(svg) })
    };
    let mut caption = "Above: the mean divergence from the clean model; the axis is even up to 0.01 nats, below which a \
                       coherent answer counts as HEALTHY, and goes by decades from there. Below: the share of the steps that \
                       are coherent. Color and shape of a mark are its verdict."
        .to_owned();
    if curve.points.iter().any(|point| point.spread.trials > 1) {
        caption += " Means over the prompts, and the median verdict; a thin line goes from the least divergence to the greatest.";
    }
    if !crossings.is_empty() {
        caption += " Gray, with a pointer above: between these two values the predicate was seen to change.";
    }
    let axis = Axis::of(curve.points.iter().map(|point| number(point.value)));
    let title = format!("Divergence and coherent steps against {}", axis_name(&curve.family));
    let mut figures = vec![draw(&curve.points, &axis, title, caption)?];
    let mut crowded = plots::crowded(&curve.points, &axis);
    while let Some(points) = crowded.pop()
        && figures.len() < FIGURES
    {
        let [first, last] = [0, points.len() - 1].map(|i| points[i].value);
        let axis = Axis::between(number(first), number(last));
        let title = format!("The same from {} to {}", written(first), written(last));
        let caption = "A part of the plot above in which marks lie on each other, on an axis of its own.".to_owned();
        figures.push(draw(points, &axis, title, caption)?);
        crowded.extend(plots::crowded(points, &axis));
    }
    Ok(figures)
}

/// What a family's values are.
fn axis_name(family: &str) -> String {
    match family.split_once(':') {
        Some(("digit", k)) => format!("value of hexadecimal digit {} of the shift", plain(k)),
        Some(("flips", seed)) => format!("flips, of the random order {}", plain(seed)),
        Some(("rate", _)) => "probability of a flip for each bit".to_owned(),
        _ if family == "shift" => "shift".to_owned(),
        _ => plain(family),
    }
}

pub(super) fn map_figure(cells: &[Cell]) -> Result<Figure, DrawError> {
    let prompts = cells.iter().map(|cell| cell.spread.trials).max().unwrap_or(0);
    let over = match prompts {
        0 | 1 => String::new(),
        _ => format!(", both over {prompts} prompts: D is their mean, the verdict their median"),
    };
    Ok(Figure {
        title: "The hexadecimal map: which digits of a shift hurt".to_owned(),
        caption: format!(
            "A cell is one shift, of which one hexadecimal digit is not 0. Its color and its number are the mean divergence in \
             nats, its letters the verdict{over}. The digit k moves every code at place k of a word by its value, and \
             borrows from those above. The column of 0 is the clean head.",
        ),
        svg: Value::from_safe_string(plots::map(cells)?),
    })
}

/// How often random flips change an answer, a plot for each kind of row.
pub(super) fn campaign_figures(rows: &[campaign::Row]) -> Result<Vec<Figure>, DrawError> {
    let kind = |row: &campaign::Row| (row.rate.is_some(), row.tensor.clone());
    let mut kinds: Vec<_> = rows.iter().map(kind).collect();
    kinds.sort();
    kinds.dedup();
    let figure = |this: &(bool, String)| {
        let estimates: Vec<Estimate> = rows
            .iter()
            .filter(|row| kind(row) == *this)
            .map(|row| {
                let [lo, hi] = row.changed_wilson.map(percent);
                Estimate {
                    x: row.rate.unwrap_or(row.flips.unwrap_or(0) as f64),
                    rate: row.changed_rate,
                    interval: row.changed_wilson,
                    title: format!(
                        "{}: {} of {} answers changed, {} ({lo} to {hi})",
                        row.rate.map_or_else(
                            || format!("{} flips", row.flips.unwrap_or(0)),
                            |rate| format!("rate {rate:e}")
                        ),
                        row.spread.changed,
                        row.spread.trials,
                        percent(row.changed_rate),
                    ),
                }
            })
            .collect();
        let x = if this.0 { "probability of a flip for each bit" } else { "bits flipped" };
        Ok(Figure {
            title: format!("How often random flips in {} change an answer", this.1),
            caption:
                "A point is the share of the trials whose answer is not the clean one, a bar the interval of 95 % \
                      (Wilson) of its probability."
                    .to_owned(),
            svg: Value::from_safe_string(plots::estimates(&estimates, x, "changed answers")?),
        })
    };
    kinds.iter().map(figure).collect()
}

pub(super) fn answer_figures(answer: &Answer) -> Result<Vec<Figure>, DrawError> {
    let bars = |height: &dyn Fn(&PositionReport) -> Option<usize>, what: &str| -> Vec<Bar> {
        let title = |at: &PositionReport| {
            let number = height(at).map_or("no".to_owned(), |height| grouped(height as i64));
            let margin = at.margin.map_or(String::new(), |margin| format!(", margin {margin:.3}"));
            format!("position {}, {:?}: {number} {what}{margin}", at.index, at.text)
        };
        answer.positions.iter().map(|at| Bar { height: height(at).unwrap_or(0), title: title(at) }).collect()
    };
    let least = bars(&|at| at.least_flips, "flips make it lose");
    let critical = bars(&|at| Some(at.critical), "single flips make it lose");
    let mut figures = vec![Figure {
        title: "Fewest flips that change the token, by position".to_owned(),
        caption: "A bar is the least number of flips of code bits, anywhere in the head, that makes the token at this \
                  position of the clean answer lose. The lowest bar certifies the whole answer; none means that no flips do."
            .to_owned(),
        svg: Value::from_safe_string(plots::bars(&least, "position in the answer", "flips")?),
    }];
    if answer.critical_bits > 0 {
        figures.push(Figure {
            title: "Single flips that change the token, by position".to_owned(),
            caption: "Counted exactly, over every code bit of the head.".to_owned(),
            svg: Value::from_safe_string(plots::bars(&critical, "position in the answer", "critical bits")?),
        });
        figures.push(bits_figure(&answer.by_bit_position)?);
        figures.push(protection_figure(&answer.protection)?);
    }
    Ok(figures)
}

pub(super) fn bits_figure(counts: &[usize]) -> Result<Figure, DrawError> {
    let bar = |(bit, &count): (usize, &usize)| Bar {
        height: count,
        title: format!("bit {bit}: {} critical bits", grouped(count as i64)),
    };
    Ok(Figure {
        title: "Critical bits by their place in the code".to_owned(),
        caption: "Bit 0 is the least significant: flipping bit b changes a code by 2^b.".to_owned(),
        svg: Value::from_safe_string(plots::bars(
            &counts.iter().enumerate().map(bar).collect::<Vec<_>>(),
            "bit of the code",
            "critical bits",
        )?),
    })
}

pub(super) fn protection_figure(curve: &[Protection]) -> Result<Figure, DrawError> {
    Ok(Figure {
        title: "How much of the vulnerability the first words carry".to_owned(),
        caption: "If the first n packed words were protected from flips, this share of the single flips that change the answer \
                  could no longer happen."
            .to_owned(),
        svg: Value::from_safe_string(plots::protection(curve)?),
    })
}
