//! Records for people: what the terminal shows.

use std::{collections::BTreeMap, fmt::Write};

use anstyle::{AnsiColor, Color, Style};

use super::{Calibration, Expected, Record, Restored, summary::Summary};
use crate::coherence::Verdict;

/// How a text is drawn, decided by whoever knows where it goes.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Whether escape sequences may be used.
    pub color: bool,
}

impl Look {
    pub(crate) fn paint(self, style: Style, text: &str) -> String {
        if self.color { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }

    /// A verdict's name, in its color.
    pub(crate) fn verdict(self, verdict: Verdict, width: usize) -> String {
        self.as_verdict(verdict, &format!("{:<width$}", verdict.name()))
    }

    /// A text in a verdict's color.
    pub(crate) fn as_verdict(self, verdict: Verdict, text: &str) -> String {
        let color = match verdict {
            Verdict::Healthy => AnsiColor::Green,
            Verdict::Wobbling => AnsiColor::Cyan,
            Verdict::Dying => AnsiColor::Yellow,
            Verdict::Collapsing => AnsiColor::Magenta,
            Verdict::Dead => AnsiColor::Red,
            Verdict::Gone => AnsiColor::BrightRed,
        };
        let style = Style::new().fg_color(Some(Color::Ansi(color))).bold();
        self.paint(style, text)
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.paint(Style::new().dimmed(), text)
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.paint(Style::new().bold(), text)
    }
}

/// `1000000` as `1,000,000`.
pub fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if number < 0 { format!("-{out}") } else { out }
}

/// A divergence in nats.
pub(crate) fn kl(nats: Option<f64>) -> String {
    nats.map_or("n/a".to_owned(), |nats| format!("{nats:.3}"))
}

fn agreement(share: Option<f64>) -> String {
    share.map_or("n/a".to_owned(), |share| format!("{:.0}%", 100.0 * share))
}

/// A share with two digits that count, up to 100 %.
pub(crate) fn percent(share: f64) -> String {
    let percent = 100.0 * share;
    let digits = match percent {
        0.0 => 0,
        _ if percent >= 9.95 => 0,
        // The place of the first digit that is not 0, and one more.
        _ => (1.0 - percent.log10().floor()).clamp(1.0, 9.0) as usize,
    };
    let text = format!("{percent:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text} %")
}

/// How many have each verdict.
pub(crate) fn tally(verdicts: &BTreeMap<Verdict, usize>) -> String {
    verdicts.iter().map(|(verdict, count)| format!("{verdict} {count}")).collect::<Vec<_>>().join(", ")
}

/// What each edit does over several prompts, a line for each; nothing where none was run on more than one.
pub fn summaries(summaries: &[Summary], look: Look) -> String {
    let Some(most) = summaries.iter().map(|summary| summary.spread.trials).max().filter(|&most| most > 1) else {
        return String::new();
    };
    let expected = summaries.iter().any(|summary| summary.spread.right + summary.spread.wrong > 0);
    let columns = "shift or edit  median      interval                KL nats  agree  changed  verdicts";
    let mut out = format!("\n{}\n{}\n", look.bold(&format!("over {most} prompts")), look.dim(columns));
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
pub fn rule(threshold: f64, calibration: Option<&Calibration>) -> String {
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
pub fn heading(prompt: &str, look: Look) -> String {
    let columns = "shift or edit  verdict     documented   KL nats  agree  coherent  response";
    format!("\n{}\n{}\n", look.bold(&format!("{prompt:?}")), look.dim(columns))
}

/// One record, two lines: what was found, and what the head's first words were.
pub fn record(record: &Record, look: Look) -> String {
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
pub fn tags(record: &Record) -> Vec<String> {
    let tag = |tag| serde_json::to_value(tag).ok().and_then(|tag| tag.as_str().map(str::to_owned));
    record.tags.iter().filter_map(tag).collect()
}

/// Text of unknown origin, with everything spelled out that a terminal would act upon or not show.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if is_seen(c) { c.to_string() } else { c.escape_debug().to_string() }).collect()
}

/// Whether a character shows itself, and nothing but itself.
pub fn is_seen(c: char) -> bool {
    // Behind a letter, where Rust leaves combining marks as they are: they are letters of many scripts.
    c.is_ascii_graphic() || c == ' ' || ['a', c].iter().collect::<String>().escape_debug().count() == 2
}

/// The way back.
pub fn restored(restored: &Restored, look: Look) -> String {
    let verdict = |holds: bool, yes: &str, no: &str| {
        let color = if holds { AnsiColor::Green } else { AnsiColor::BrightRed };
        look.paint(Style::new().fg_color(Some(Color::Ansi(color))).bold(), if holds { yes } else { no })
    };
    format!(
        "\n{} {}: head digest {} before, {} after\n         the restored head answers {:?}, {}\n",
        look.bold("restored"),
        verdict(restored.identical, "bit-identical", "NOT IDENTICAL"),
        &restored.head_digest_before[..16],
        &restored.head_digest_after[..16],
        restored.text,
        verdict(restored.same_as_clean, "as the clean model does", "NOT AS THE CLEAN MODEL DOES"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_have_two_digits_that_count() {
        let texts = [0.0, 1.0, 0.5, 0.123, 0.0996, 0.099, 0.01, 0.0018, 0.000_012_3, 0.05].map(percent);
        assert_eq!(texts, ["0 %", "100 %", "50 %", "12 %", "10 %", "9.9 %", "1 %", "0.18 %", "0.0012 %", "5 %"]);
    }

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

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let texts = [0, 7, 999, 1000, 1_000_001, -5, -1000, i64::MIN].map(grouped);
        assert_eq!(texts, ["0", "7", "999", "1,000", "1,000,001", "-5", "-1,000", "-9,223,372,036,854,775,808"]);
    }
}
