//! A whole report.

use std::fmt::Write;

use super::{Look, certificates, grouped, plain, records, searches};
use crate::report::{Certified, Found, Report, Run};

/// The report as text.
pub fn report(report: &Report<'_>, look: Look) -> String {
    let mut out = String::new();
    for note in report.notes {
        _ = writeln!(out, "note: {}", plain(note));
    }
    for model in &report.models {
        let revision = model.revision.map_or(String::new(), |revision| format!(" at {revision}"));
        _ = writeln!(out, "{}{}", look.bold(&plain(model.name)), plain(&revision));
        if let Some(facts) = model.facts {
            let tied = if facts.tied { ", tied to the embedding" } else { "" };
            // Bits and groups say which an affine format is.
            let format = facts.format.as_deref().filter(|format| !format.starts_with("affine"));
            let format = format.map_or(String::new(), |format| format!(", {}", plain(format)));
            _ = writeln!(
                out,
                "{}, {} layers; lm_head {} x {}, {} bits, group_size {}{format}{tied}",
                plain(&facts.model_type),
                facts.num_hidden_layers,
                facts.vocab_size,
                facts.hidden_size,
                facts.bits,
                facts.group_size,
            );
        }
        for run in &model.runs {
            one(&mut out, run, look);
        }
        for Certified { file, certificates } in &model.certificates {
            _ = writeln!(out, "\n{}: from {}", look.bold("certify"), plain(file));
            for answer in &certificates.answers {
                out.push_str(&certificates::answer(answer, look));
            }
            if certificates.left_out > 0 {
                _ = writeln!(out, "{} further certificates are in the file", grouped(certificates.left_out as i64));
            }
            if let Some(suite) = certificates.suite.as_ref().filter(|suite| suite.answers > 1) {
                out.push_str(&certificates::suite(suite, look));
            }
            for refused in &certificates.refused {
                _ = writeln!(out, "no certificate of {:?}: {}", refused.prompt, plain(&refused.error));
            }
            if let Some(collapse) = &certificates.collapse {
                out.push_str(&certificates::collapse(collapse, look));
            }
        }
    }
    out
}

fn one(out: &mut String, run: &Run<'_>, look: Look) {
    let files: Vec<String> = run.files.iter().map(|file| plain(file)).collect();
    let of =
        run.facts.trials.filter(|_| run.is_partial()).map_or(String::new(), |of| format!(" of {}", grouped(of as i64)));
    _ = writeln!(
        out,
        "\n{}: {}{of} trials, {} {}, from {}",
        look.bold(&plain(run.command)),
        grouped(run.finished as i64),
        plain(run.backend),
        plain(run.kernel),
        files.join(", "),
    );
    let counts: Vec<String> =
        run.verdicts.iter().map(|(&verdict, count)| format!("{} {count}", look.verdict(verdict, 0))).collect();
    _ = writeln!(out, "{}", counts.join(", "));
    out.push_str(&records::rule(run.threshold, run.facts.calibration.as_ref()));
    let trials = match &run.found {
        Found::Map(cells) => {
            out.push_str(&searches::map(cells, look));
            false
        }
        Found::Campaign(rows) => {
            out.push_str(&searches::campaign(rows, look));
            false
        }
        Found::Along { bisection: Some(bisection), .. } => {
            out.push_str(&searches::bisection(bisection, look));
            false
        }
        Found::Along { .. } => true,
    };
    for answers in run.prompts.iter().filter(|_| trials) {
        out.push_str(&records::heading(answers.prompt, look));
        for record in &answers.records {
            out.push_str(&records::record(record, look));
        }
        let left_out = answers.trials - answers.records.len();
        if left_out > 0 {
            _ = writeln!(out, "{} further trials of this prompt are in the files", grouped(left_out as i64));
        }
    }
    if let Found::Along { bisection: None, summaries, .. } = &run.found {
        out.push_str(&records::summaries(summaries, look));
    }
    if let Some(restored) = run.restored {
        out.push_str(&records::restored(restored, look));
    }
}
