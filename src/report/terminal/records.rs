//! Records: a heading for each prompt, two lines for each trial, a table over the prompts, and the way back.

use std::{collections::BTreeMap, fmt::Write};

use anstyle::{AnsiColor, Color, Style};

use super::{Look, grouped, kl, plain, tally};
use crate::{
    coherence::Verdict,
    record::{Calibration, Expected, Record, Restored, summary::Summary},
};

fn agreement(share: Option<f64>) -> String {
    share.map_or("n/a".to_owned(), |share| format!("{:.0}%", 100.0 * share))
}

/// What each edit does over several prompts, a line for each; nothing where none was run on more than one.
pub(crate) fn summaries(summaries: &[Summary], look: Look) -> String {
    // A map has the shift by 0 once for each digit: what most edits have is a trial for each prompt.
    let mut counts = BTreeMap::<usize, usize>::new();
    summaries.iter().for_each(|summary| *counts.entry(summary.spread.trials).or_default() += 1);
    let prompts = counts.into_iter().max_by_key(|&(_, edits)| edits).map_or(0, |(trials, _)| trials);
    if prompts < 2 {
        return String::new();
    }
    let expected = summaries.iter().any(|summary| summary.spread.right + summary.spread.wrong > 0);
    let columns = "shift or edit  median      interval                KL nats  agree  changed  verdicts";
    let mut out = format!("\n{}\n{}\n", look.bold(&format!("over {prompts} prompts")), look.dim(columns));
    for Summary { edit, shift, spread, .. } in summaries {
        let edit = shift.map_or_else(|| plain(edit), grouped);
        let edit = if edit.len() > 13 { format!("{edit}\n{:>13}", "") } else { format!("{edit:>13}") };
        let interval = match spread.median_interval {
            [best, worst] if best == worst => best.to_string(),
            [best, worst] => format!("{best} to {worst}"),
        };
        _ = write!(
            out,
            "{edit}  {}  {interval:<22}  {:>7}  {:>5}  {:>7}  {}",
            look.verdict(spread.median, 10),
            kl(spread.kl_mean),
            agreement(spread.agreement),
            format!("{}/{}", spread.changed, spread.trials),
            tally(&spread.verdicts),
        );
        if expected {
            _ = write!(out, "; {} right, {} wrong", spread.right, spread.wrong);
            if spread.wrong_but_fluent > 0 {
                _ = write!(out, " ({} of them fluent)", spread.wrong_but_fluent);
            }
        }
        out.push('\n');
    }
    out
}

/// When a step counts as coherent, and how that was found: a line.
pub(crate) fn rule(threshold: f64, calibration: Option<&Calibration>) -> String {
    match calibration {
        None => format!("a step is coherent up to a surprise of {threshold} nats, as was given\n"),
        Some(calibration) => format!(
            "a step is coherent up to a surprise of {threshold:.2} nats: 99 % of {} answers of the clean model's own stay \
             within; of {} others it condemns {}\n",
            calibration.samples, calibration.held_out, calibration.false_alarms
        ),
    }
}

/// The heading over the records of one prompt.
pub(crate) fn heading(prompt: &str, look: Look) -> String {
    let columns = "shift or edit  verdict     documented   KL nats  agree  coherent  response";
    format!("\n{}\n{}\n", look.bold(&format!("{prompt:?}")), look.dim(columns))
}

/// One record, two lines: what was found, and what the head's first words were.
pub(crate) fn record(record: &Record, look: Look) -> String {
    let edit = record.shift.map_or_else(|| plain(&record.edit), grouped);
    let steps = record.surprise.len();
    let agreement = agreement(record.agreement);
    let documented = record.documented.map_or("-", Verdict::name);
    // A long edit has a line of its own, so that columns stay where they are.
    let edit = if edit.len() > 13 { format!("{edit}\n{:>13}", "") } else { format!("{edit:>13}") };
    let mut out = format!("{edit}  {}  {documented:<10}", look.verdict(record.verdict, 10));
    let coherent = format!("{}/{steps}", record.coherent_tokens);
    let text = format!("{:?}", record.text);
    _ = write!(out, "  {:>8}  {agreement:>5}  {coherent:>8}  {text}", kl(record.kl_mean));
    let mut notes = tags(record);
    notes.extend(record.expected.map(|expected| {
        match expected {
            Expected::Right => "right",
            Expected::Wrong => "wrong",
        }
        .to_owned()
    }));
    let words: Vec<String> = record.first_words.iter().map(u32::to_string).collect();
    let notes = if notes.is_empty() { String::new() } else { format!("  [{}]", notes.join(", ")) };
    _ = write!(out, "\n{:>13}  {}\n", "", look.dim(&format!("words {}{notes}", words.join(" "))));
    out
}

/// The tags of a record, in their one spelling, that of the record.
pub(crate) fn tags(record: &Record) -> Vec<String> {
    let tag = |tag| serde_json::to_value(tag).ok().and_then(|tag| tag.as_str().map(str::to_owned));
    record.tags.iter().filter_map(tag).collect()
}

/// The beginning of a digest, which may come from a file and be anything.
fn short(digest: &str) -> String {
    plain(&digest.chars().take(16).collect::<String>())
}

/// The way back.
pub(crate) fn restored(restored: &Restored, look: Look) -> String {
    let verdict = |holds: bool, yes: &str, no: &str| {
        let color = if holds { AnsiColor::Green } else { AnsiColor::BrightRed };
        look.paint(Style::new().fg_color(Some(Color::Ansi(color))).bold(), if holds { yes } else { no })
    };
    format!(
        "\n{} {}: head digest {} before, {} after\n         the restored head answers {:?}, {}\n",
        look.bold("restored"),
        verdict(restored.identical, "bit-identical", "NOT IDENTICAL"),
        short(&restored.head_digest_before),
        short(&restored.head_digest_after),
        restored.text,
        verdict(restored.same_as_clean, "as the clean model does", "NOT AS THE CLEAN MODEL DOES"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_on_one_prompt_have_no_summary_and_on_several_a_line_each() {
        use crate::{coherence::Tag, record::summary, testing::records::record};
        let at = |trial, edit: &str, verdict| Record { trial, shift: None, verdict, edit: edit.to_owned(), ..record() };
        let plain = Look { color: false };
        let mut records = vec![at(0, "clean", Verdict::Healthy), at(1, "set:word[0,1]=0x0", Verdict::Gone)];
        assert_eq!(summaries(&summary::summaries(&records), plain), "");
        records.push(at(2, "clean", Verdict::Wobbling));
        (records[2].expected, records[2].tags) = (Some(Expected::Wrong), vec![Tag::WrongButFluent]);
        let text = summaries(&summary::summaries(&records), plain);
        for expected in [
            "over 2 prompts",
            "        clean  WOBBLING    HEALTHY to WOBBLING       0.500    50%      2/2  HEALTHY 1, WOBBLING 1; 0 right, 1 wrong \
             (1 of them fluent)\n",
            "set:word[0,1]=0x0\n               GONE        GONE",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
    }
}
