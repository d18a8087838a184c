//! The page: one file that contains its style and its plots, and that loads nothing.
//!
//! Everything that a record holds is taken for hostile: the template engine escapes all of it, what cannot be seen is
//! spelled out (control characters, marks that turn the direction of writing), what is long is cut, and there is no
//! script on the page that could be broken out of.

mod axis;
mod escape;
mod figures;
mod plots;

use std::collections::BTreeMap;

use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior,
    syntax::SyntaxConfig,
    value::{Serde, Value},
};
use serde::Serialize;

use super::{
    Answers, Certified, Found, Model, Report, Run,
    curve::{Curve, number, steps, written},
    listed::MOST,
    terminal::{grouped, percent, plain, records::tags},
};
use crate::{
    certificate::{Certificates, SingleBits},
    coherence::Verdict,
    edit,
    record::{ModelFacts, Record, Restored, RunFacts, summary::Summary},
    search::{bisect::Bisection, campaign, map::Cell},
};
use {
    escape::visible,
    figures::{Figure, answer_figures, bits_figure, campaign_figures, curve_figures, map_figure, protection_figure},
    plots::Crossing,
};

pub use plots::DrawError;

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

/// Characters of a prompt or a response that a page shows.
const CHARACTERS: usize = 600;

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
        notes: report.notes,
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
    /// Single bits of all tensors, by answer.
    single_bits: Vec<SingleBits>,
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
        single_bits: answers.iter().map(SingleBits::of).collect(),
        random: collapse.as_ref().map_or(Vec::new(), |collapse| stack(&collapse.random.medians)),
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
            part.tables = tables(run, |answers| answers.changed);
        }
        Found::Along { curves, bisection, summaries } => {
            if part.plots_first {
                // Several of these are in one report as often as not.
                curves.iter().for_each(|curve| part.title += &format!(" {}", curve.family));
            }
            part.curves = curves;
            part.bisection = bisection.as_ref();
            let mut rows: Vec<&Summary> = summaries.iter().collect();
            if bisection.is_some() {
                // Not in the order in which halving came to them.
                let value = |row: &Summary| row.value.map_or(0.0, number);
                rows.sort_by(|a, b| value(a).total_cmp(&value(b)));
            }
            part.summaries = rows.into_iter().map(|of| Pooled { of, stack: stack(&of.spread.verdicts) }).collect();
            part.judged = summaries.iter().any(|summary| summary.spread.right + summary.spread.wrong > 0);
            let crossings = bisection.iter().flat_map(|bisection| &bisection.crossings);
            let crossings: Vec<Crossing> =
                crossings.map(|crossing| (number(crossing.lo), number(crossing.hi))).collect();
            for curve in curves {
                part.figures.extend(curve_figures(curve, &crossings)?);
            }
            part.tables = tables(run, |answers| answers.trials);
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

/// The trials that are listed, by prompt, as many as there is room for. `of`: how many there are to choose from.
fn tables<'a>(run: &'a Run<'_>, of: impl Fn(&Answers<'_>) -> usize) -> Vec<Table<'a>> {
    let mut room = MOST;
    let table = |answers: &'a Answers<'_>| {
        let shown = answers.records.len().min(room);
        room -= shown;
        Table {
            prompt: answers.prompt,
            clean: &answers.clean.text,
            documented: answers.documented,
            left_out: of(answers) - shown,
            rows: answers.records[..shown].iter().map(|record| row(record)).collect(),
        }
    };
    run.prompts.iter().map(table).filter(|table| !table.rows.is_empty()).collect()
}

fn row<'a>(record: &'a Record) -> Row<'a> {
    Row { record, steps: steps(record), tag_names: tags(record) }
}

fn nats(x: f64) -> String {
    match x {
        _ if x == 0.0 => "0".to_owned(),
        _ if x.abs() < 0.000_5 => format!("{x:.0e}"),
        _ => format!("{x:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_divergences_keep_what_counts() {
        assert_eq!([0.0, 1.5e-5, 0.1774, 36.2384].map(nats), ["0", "2e-5", "0.177", "36.238"]);
    }
}
