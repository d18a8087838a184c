//! The report on a terminal.

use std::fmt::Write;

use super::{Report, Run};
use crate::record::text::{self, Look, grouped};

/// The report as text.
pub fn text(report: &Report<'_>, look: Look) -> String {
    let mut out = String::new();
    for note in report.notes {
        _ = writeln!(out, "note: {note}");
    }
    for model in &report.models {
        let facts = model.facts;
        let revision = model.revision.map_or(String::new(), |revision| format!(" at {revision}"));
        let tied = if facts.tied { ", tied to the embedding" } else { "" };
        _ = write!(
            out,
            "{}{revision}: {}, {} layers, hidden {}\nlm_head {} x {}, {} bits, group_size {}{tied}\n",
            text::plain(model.name),
            text::plain(&facts.model_type),
            facts.num_hidden_layers,
            facts.hidden_size,
            facts.vocab_size,
            facts.hidden_size,
            facts.bits,
            facts.group_size,
        );
        for run in &model.runs {
            one(&mut out, run, look);
        }
    }
    out
}

fn one(out: &mut String, run: &Run<'_>, look: Look) {
    let files: Vec<String> = run.files.iter().map(|file| text::plain(file)).collect();
    let of = run.facts.trials.filter(|_| run.is_partial()).map_or(String::new(), |of| format!(" of {}", grouped(of as i64)));
    _ = writeln!(
        out,
        "\n{}: {}{of} trials, {} {}, from {}",
        look.bold(&text::plain(run.command)),
        grouped(run.finished as i64),
        text::plain(run.backend),
        text::plain(run.kernel),
        files.join(", "),
    );
    let counts: Vec<String> =
        run.verdicts.iter().map(|(&verdict, count)| format!("{} {count}", look.verdict(verdict, 0))).collect();
    _ = writeln!(out, "{}", counts.join(", "));
    match &run.facts.calibration {
        None => _ = writeln!(out, "a step is coherent up to {} nats of surprise, as was given", run.threshold),
        Some(c) => {
            _ = writeln!(
                out,
                "a step is coherent up to {:.3} nats of surprise, calibrated on {} answers to {} prompts; {} of {} held-out \
                 answers raise a false alarm",
                c.threshold, c.samples, c.prompts, c.false_alarms, c.held_out,
            );
        }
    }
    for answers in &run.prompts {
        out.push_str(&text::heading(answers.prompt, look));
        for record in &answers.records {
            out.push_str(&text::record(record, look));
        }
    }
    if let Some(restored) = run.restored {
        out.push_str(&text::restored(restored, look));
    }
}
