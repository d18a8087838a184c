//! The page: one file, with its style and its plots in it, that asks for nothing from anywhere.
//!
//! Everything that a record holds is taken for hostile: the template engine escapes all of it, what cannot be seen is
//! spelled out (control characters, marks that turn the direction of writing), what is long is cut, and there is no
//! script on the page that could be broken out of.

use std::collections::BTreeMap;

use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior,
    syntax::SyntaxConfig,
    value::{Serde, Value},
};
use serde::Serialize;

use super::{
    Answers, Certificates, Certified, Found, Model, Report, Run,
    axis::Axis,
    curve::{Curve, Point, number, steps, written},
    plots::{self, Bar, Crossing, DrawError, Estimate},
};
use crate::{
    certificate::{Answer, PositionReport, Protection},
    coherence::Verdict,
    edit,
    record::{
        ModelFacts, Record, Restored, RunFacts,
        summary::{Summary, changed},
        text::{grouped, is_seen, percent, plain, tags},
    },
    search::{bisect::Bisection, campaign, map::Cell},
};

/// A page that could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HtmlError {
    /// A plot.
    #[error(transparent)]
    Draw(#[from] DrawError),
    /// The template.
    #[error("cannot write the page: {0}")]
    Template(#[from] Error),
}

/// Trials that a page lists of one run; more are for programs.
const ROWS: usize = 1_000;

/// Trials of a campaign that a page lists of one prompt.
const WORST: usize = 12;

/// Plots of one family, with those of its crowded parts.
const FIGURES: usize = 6;

/// Characters of a prompt or a response that a page shows.
const CHARACTERS: usize = 600;

/// Points that a plot draws: more would not be told apart, and make a page of megabytes.
const POINTS: usize = 4_096;

/// The report as one self-contained page.
///
/// # Errors
/// [`HtmlError`], which no input should be able to cause.
pub fn html(report: &Report<'_>) -> Result<String, HtmlError> {
    let mut env = Environment::new();
    env.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    env.set_auto_escape_callback(|_| AutoEscape::Html);
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.add_filter("visible", |text: &str, most: Option<usize>| {
        Value::from_safe_string(visible(text, most.unwrap_or(CHARACTERS)))
    });
    env.add_filter("badge", |name: &str| verdict(name).map(|verdict| Value::from_safe_string(badge(verdict))));
    env.add_filter("tile", |name: &str| verdict(name).map(|verdict| Value::from_safe_string(tile(verdict))));
    env.add_filter("nats", |x: Option<f64>| x.map_or("not finite".to_owned(), nats));
    env.add_filter("percent", |share: Option<f64>| share.map_or("n/a".to_owned(), percent));
    env.add_filter("grouped", grouped);
    env.add_filter("plain", plain);
    env.add_filter("written", |Serde(value): Serde<edit::Value>| written(value));
    env.add_filter("short", |digest: &str| digest.chars().take(16).collect::<String>());
    env.add_template("report", include_str!("report.html.jinja"))?;
    let page = Page {
        version: report.version,
        notes: &report.notes,
        trials: report.trials(),
        style: Value::from_safe_string([include_str!("plot.css"), include_str!("report.css")].concat()),
        models: report.models.iter().map(|model| section(model)).collect::<Result<_, _>>()?,
        verdicts: Verdict::ALL.map(Verdict::name),
    };
    Ok(env.get_template("report")?.render(Serde(page))? + "\n")
}

fn verdict(name: &str) -> Result<Verdict, Error> {
    name.parse().map_err(|error: String| Error::new(ErrorKind::InvalidOperation, error))
}

/// A verdict in a line of text: its mark and its name.
fn badge(verdict: Verdict) -> String {
    let (class, shape, name) = (plots::class(verdict), plots::shape(verdict), verdict.name());
    format!(
        "<span class=\"badge {class}\"><svg viewBox=\"-6.5 -6.5 13 13\" aria-hidden=\"true\"><path d=\"{shape}\"/></svg>\
         {name}</span>"
    )
}

/// A verdict in a cell of a map: its two letters.
fn tile(verdict: Verdict) -> String {
    let (class, name, letters) = (plots::class(verdict), verdict.name(), plots::letters(verdict));
    format!("<abbr class=\"tile {class}\" title=\"{name}\">{letters}</abbr>")
}

/// What the template is given.
#[derive(Serialize)]
struct Page<'a> {
    version: &'a str,
    notes: &'a [String],
    trials: usize,
    style: Value,
    models: Vec<Section<'a>>,
    verdicts: [&'static str; 6],
}

/// A model and its runs.
#[derive(Serialize)]
struct Section<'a> {
    name: &'a str,
    revision: Option<&'a str>,
    model_digest: Option<&'a str>,
    head_digest: &'a str,
    facts: Option<&'a ModelFacts>,
    runs: Vec<Part<'a>>,
    certified: Vec<Proven<'a>>,
}

/// The certificates of one file.
#[derive(Serialize)]
struct Proven<'a> {
    of: &'a Certified<'a>,
    suite_figures: Vec<Figure>,
    answer_figures: Vec<Vec<Figure>>,
    /// Medians of random edits beside a collapse.
    random: Vec<Count>,
}

/// One run.
#[derive(Serialize)]
struct Part<'a> {
    title: String,
    files: &'a [String],
    facts: &'a RunFacts,
    backend: &'a str,
    kernel: &'a str,
    threshold: f64,
    finished: usize,
    is_partial: bool,
    restored: Option<&'a Restored>,
    prompts: usize,
    /// The plot is what counts, and the trials are its numbers.
    plots_first: bool,
    stack: Vec<Count>,
    figures: Vec<Figure>,
    curves: &'a [Curve],
    bisection: Option<&'a Bisection>,
    summaries: Vec<Pooled<'a, Summary>>,
    /// Whether answers were expected.
    judged: bool,
    map: &'a [Cell],
    campaign: Vec<Pooled<'a, campaign::Row>>,
    tables: Vec<Table<'a>>,
    /// What stands over the trials, where they are not all.
    selection: Option<&'static str>,
}

/// Several trials taken together, and the distribution of their verdicts.
#[derive(Serialize)]
struct Pooled<'a, T> {
    of: &'a T,
    stack: Vec<Count>,
}

/// How often a verdict was given.
#[derive(Serialize)]
struct Count {
    name: &'static str,
    letters: &'static str,
    class: &'static str,
    count: usize,
    share: f64,
}

/// A plot and what stands around it.
#[derive(Serialize)]
struct Figure {
    title: String,
    caption: String,
    svg: Value,
}

/// One line of a table of trials.
#[derive(Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    record: &'a Record,
    steps: usize,
    tag_names: Vec<String>,
}

/// The trials of a prompt, as many as are shown.
#[derive(Serialize)]
struct Table<'a> {
    prompt: &'a str,
    clean: &'a str,
    documented: bool,
    rows: Vec<Row<'a>>,
    left_out: usize,
}

fn section<'a>(model: &'a Model<'_>) -> Result<Section<'a>, DrawError> {
    Ok(Section {
        name: model.name,
        revision: model.revision,
        model_digest: model.model_digest,
        head_digest: model.head_digest,
        facts: model.facts,
        runs: model.runs.iter().map(part).collect::<Result<_, _>>()?,
        certified: model.certificates.iter().map(proven).collect::<Result<_, _>>()?,
    })
}

fn proven<'a>(of: &'a Certified<'_>) -> Result<Proven<'a>, DrawError> {
    let Certificates { answers, suite, collapse, .. } = of.certificates;
    let suite = suite.as_ref().filter(|suite| suite.answers > 1);
    Ok(Proven {
        of,
        suite_figures: match suite {
            Some(suite) => vec![bits_figure(&suite.by_bit_position)?, protection_figure(&suite.protection)?],
            None => Vec::new(),
        },
        answer_figures: answers.iter().map(answer_figures).collect::<Result<_, _>>()?,
        random: collapse.as_ref().map_or(Vec::new(), |collapse| stack(&collapse.random.medians)),
    })
}

fn answer_figures(answer: &Answer) -> Result<Vec<Figure>, DrawError> {
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
    let mut figures = vec![
        Figure {
            title: "Fewest flips that change the token, by position".to_owned(),
            caption: "A bar is the least number of flips of code bits, anywhere in the head, that makes the token at this \
                      position of the clean answer lose. The lowest bar certifies the whole answer; none means that no flips do."
                .to_owned(),
            svg: Value::from_safe_string(plots::bars(&least, "position in the answer", "flips")?),
        },
        Figure {
            title: "Single flips that change the token, by position".to_owned(),
            caption: "Counted exactly, over every code bit of the head.".to_owned(),
            svg: Value::from_safe_string(plots::bars(&critical, "position in the answer", "critical bits")?),
        },
    ];
    if answer.critical_bits > 0 {
        figures.push(bits_figure(&answer.by_bit_position)?);
        figures.push(protection_figure(&answer.protection)?);
    }
    Ok(figures)
}

fn bits_figure(counts: &[usize]) -> Result<Figure, DrawError> {
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

fn protection_figure(curve: &[Protection]) -> Result<Figure, DrawError> {
    Ok(Figure {
        title: "How much of the vulnerability the first words carry".to_owned(),
        caption: "If the first n packed words were protected from flips, this share of the single flips that change the answer \
                  could no longer happen."
            .to_owned(),
        svg: Value::from_safe_string(plots::protection(curve)?),
    })
}

fn part<'a>(run: &'a Run<'_>) -> Result<Part<'a>, DrawError> {
    let mut part = Part {
        title: run.command.to_owned(),
        files: run.files,
        facts: run.facts,
        backend: run.backend,
        kernel: run.kernel,
        threshold: run.threshold,
        finished: run.finished,
        is_partial: run.is_partial(),
        restored: run.restored,
        prompts: run.prompts.len(),
        plots_first: matches!(run.command, "sweep" | "bisect" | "map" | "campaign"),
        stack: stack(&run.verdicts),
        figures: Vec::new(),
        curves: &[],
        bisection: None,
        summaries: Vec::new(),
        judged: false,
        map: &[],
        campaign: Vec::new(),
        tables: Vec::new(),
        selection: None,
    };
    match &run.found {
        Found::Map(cells) => {
            part.map = cells;
            part.figures.push(map_figure(cells)?);
        }
        Found::Campaign(rows) => {
            part.figures = campaign_figures(rows)?;
            part.campaign = rows.iter().map(|row| Pooled { of: row, stack: stack(&row.spread.verdicts) }).collect();
            part.selection = Some("The trials that changed the answer most, by D");
            part.tables = tables(run, |record| changed(record), Some(WORST));
        }
        Found::Along { curves, bisection, summaries } => {
            if part.plots_first {
                // Several of these are in one report as often as not.
                curves.iter().for_each(|curve| part.title += &format!(" {}", curve.family));
            }
            part.curves = curves;
            part.bisection = bisection.as_ref();
            part.summaries = summaries.iter().map(|of| Pooled { of, stack: stack(&of.spread.verdicts) }).collect();
            part.judged = summaries.iter().any(|summary| summary.spread.right + summary.spread.wrong > 0);
            let crossings = bisection.iter().flat_map(|bisection| &bisection.crossings);
            let crossings: Vec<Crossing> =
                crossings.map(|crossing| (number(crossing.lo), number(crossing.hi))).collect();
            for curve in curves {
                part.figures.extend(curve_figures(curve, &crossings)?);
            }
            part.tables = tables(run, |_| true, None);
        }
    }
    Ok(part)
}

fn stack(verdicts: &BTreeMap<Verdict, usize>) -> Vec<Count> {
    let all: usize = verdicts.values().sum();
    let count = |(&verdict, &count): (&Verdict, &usize)| Count {
        name: verdict.name(),
        letters: plots::letters(verdict),
        class: plots::class(verdict),
        count,
        share: count as f64 / all as f64,
    };
    verdicts.iter().map(count).collect()
}

/// The trials that `which` holds of, by prompt: all that there is room for in their order, or the `worst` so many.
fn tables<'a>(run: &'a Run<'_>, which: impl Fn(&Record) -> bool, worst: Option<usize>) -> Vec<Table<'a>> {
    let mut room = ROWS;
    let table = |answers: &'a Answers<'_>| {
        let mut records: Vec<&Record> = answers.records.iter().copied().filter(|record| which(record)).collect();
        if worst.is_some() {
            let kl = |record: &Record| record.kl_mean.unwrap_or(f64::INFINITY);
            records.sort_by(|a, b| kl(b).total_cmp(&kl(a)));
        }
        let shown = records.len().min(room).min(worst.unwrap_or(usize::MAX));
        room -= shown;
        Table {
            prompt: answers.prompt,
            clean: &answers.clean.text,
            documented: records.iter().any(|record| record.documented.is_some()),
            left_out: records.len() - shown,
            rows: records[..shown].iter().map(|record| row(record)).collect(),
        }
    };
    run.prompts.iter().map(table).filter(|table| !table.rows.is_empty()).collect()
}

fn map_figure(cells: &[Cell]) -> Result<Figure, DrawError> {
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
fn campaign_figures(rows: &[campaign::Row]) -> Result<Vec<Figure>, DrawError> {
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

fn row<'a>(record: &'a Record) -> Row<'a> {
    Row { record, steps: steps(record), tag_names: tags(record) }
}

/// The plot of one family, and one for each part of it that is too crowded to be read there.
fn curve_figures(curve: &Curve, crossings: &[Crossing]) -> Result<Vec<Figure>, DrawError> {
    let draw = |points: &[Point], axis: &Axis, title: String, caption: String| {
        let shown = points.len().min(POINTS);
        let left_out = if shown < points.len() {
            format!(" Of {} values the first {} are drawn.", grouped(points.len() as i64), grouped(shown as i64))
        } else {
            String::new()
        };
        let axis_title = format!("{}{}", axis_name(&curve.family), axis.note());
        let svg = plots::curve(&points[..shown], axis, &axis_title, crossings)?;
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

fn nats(x: f64) -> String {
    match x {
        _ if x == 0.0 => "0".to_owned(),
        _ if x.abs() < 0.000_5 => format!("{x:.0e}"),
        _ => format!("{x:.3}"),
    }
}

/// Text for an attribute or an element.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ if is_seen(c) => out.push(c),
            _ => out.extend(c.escape_debug()),
        }
    }
    out
}

/// Text as HTML, with everything that cannot be seen spelled out as Rust would, and told apart from the same
/// characters standing there; cut where it is too long for a page.
fn visible(text: &str, most: usize) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for (i, c) in text.chars().enumerate() {
        if i == most {
            let left = grouped((text.chars().count() - most) as i64);
            out += &format!("<span class=\"cut\">… {left} more characters</span>");
            break;
        }
        if i == 0 && c == ' ' {
            // Where a line could break, and be left with a quotation mark.
            out += "&nbsp;";
        } else if is_seen(c) {
            out += &escaped(c.encode_utf8(&mut [0; 4]));
        } else {
            out += &format!("<span class=\"esc\">{}</span>", c.escape_debug());
        }
    }
    format!("<bdi>{out}</bdi>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_seen_is_spelled_out_and_marked() {
        assert_eq!(visible("2+2 is 4.", CHARACTERS), "<bdi>2+2 is 4.</bdi>");
        assert_eq!(visible("a\nb", CHARACTERS), "<bdi>a<span class=\"esc\">\\n</span>b</bdi>");
        assert_eq!(visible("a\\nb", CHARACTERS), "<bdi>a\\nb</bdi>");
        for hidden in [
            '\u{0}',
            '\u{1b}',
            '\u{7f}',
            '\u{85}',
            '\u{ad}',
            '\u{200b}',
            '\u{202e}',
            '\u{2066}',
            '\u{feff}',
            '\u{e0041}',
        ] {
            assert!(!visible(&hidden.to_string(), CHARACTERS).contains(hidden), "{hidden:?}");
            assert!(!escaped(&hidden.to_string()).contains(hidden), "{hidden:?}");
        }
        // Letters of their scripts, combining ones included.
        for text in ["हिन्दी", "שלום", "日本語", "naïve"] {
            assert_eq!(visible(text, CHARACTERS), format!("<bdi>{text}</bdi>"));
        }
    }

    #[test]
    fn markup_is_text() {
        let text = "</script><img src=x onerror='alert(1)'>&\"";
        let expected = "&lt;/script&gt;&lt;img src=x onerror=&#39;alert(1)&#39;&gt;&amp;&quot;";
        assert_eq!(escaped(text), expected);
        assert_eq!(visible(text, CHARACTERS), format!("<bdi>{expected}</bdi>"));
    }

    #[test]
    fn a_long_text_is_cut_and_says_how_much_is_left() {
        let shown = visible(&"é".repeat(CHARACTERS + 12_345), CHARACTERS);
        assert!(shown.ends_with("<span class=\"cut\">… 12,345 more characters</span></bdi>"), "{shown}");
        assert!(shown.chars().count() < CHARACTERS + 100);
        assert!(!visible(&"é".repeat(CHARACTERS), CHARACTERS).contains("more"));
    }

    #[test]
    fn small_divergences_keep_what_counts() {
        assert_eq!([0.0, 1.5e-5, 0.1774, 36.2384].map(nats), ["0", "2e-5", "0.177", "36.238"]);
    }
}
