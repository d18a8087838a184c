//! Records for people: what the terminal shows.

use std::fmt::Write;

use anstyle::{AnsiColor, Color, Style};

use super::{Expected, Record, Restored};
use crate::coherence::Verdict;

/// How a text is drawn, decided by whoever knows where it goes.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Whether escape sequences may be used.
    pub color: bool,
}

impl Look {
    fn paint(self, style: Style, text: &str) -> String {
        if self.color { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }

    pub(super) fn verdict(self, verdict: Verdict, width: usize) -> String {
        let color = match verdict {
            Verdict::Healthy => AnsiColor::Green,
            Verdict::Wobbling => AnsiColor::Cyan,
            Verdict::Dying => AnsiColor::Yellow,
            Verdict::Collapsing => AnsiColor::Magenta,
            Verdict::Dead => AnsiColor::Red,
            Verdict::Gone => AnsiColor::BrightRed,
        };
        let style = Style::new().fg_color(Some(Color::Ansi(color))).bold();
        self.paint(style, &format!("{:<width$}", verdict.name()))
    }

    pub(super) fn dim(self, text: &str) -> String {
        self.paint(Style::new().dimmed(), text)
    }

    pub(super) fn bold(self, text: &str) -> String {
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

/// The heading over the records of one prompt.
pub fn heading(prompt: &str, look: Look) -> String {
    let columns = "shift or edit  verdict     documented   KL nats  agree  coherent  response";
    format!("\n{}\n{}\n", look.bold(&format!("{prompt:?}")), look.dim(columns))
}

/// One record, two lines: what was found, and what the head's first words were.
pub fn record(record: &Record, look: Look) -> String {
    let edit = record.shift.map_or_else(|| record.edit.clone(), grouped);
    let steps = record.surprise.len();
    let number = |x: Option<f64>| x.map_or("n/a".to_owned(), |x| format!("{x:.3}"));
    let agreement = record.agreement.map_or("n/a".to_owned(), |share| format!("{:.0}%", 100.0 * share));
    let documented = record.documented.map_or("-", Verdict::name);
    // A long edit has a line of its own, so that columns stay where they are.
    let edit = if edit.len() > 13 { format!("{edit}\n{:>13}", "") } else { format!("{edit:>13}") };
    let mut out = format!("{edit}  {}  {documented:<10}", look.verdict(record.verdict, 10));
    let coherent = format!("{}/{steps}", record.coherent_tokens);
    let text = format!("{:?}", record.text);
    _ = write!(out, "  {:>8}  {agreement:>5}  {coherent:>8}  {text}", number(record.kl_mean));
    // Tags have one spelling, that of the record.
    let tag = |tag| serde_json::to_value(tag).ok().and_then(|tag| tag.as_str().map(str::to_owned));
    let mut notes: Vec<String> = record.tags.iter().filter_map(tag).collect();
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
    fn numbers_are_grouped_by_thousands() {
        let texts = [0, 7, 999, 1000, 1_000_001, -5, -1000, i64::MIN].map(grouped);
        assert_eq!(texts, ["0", "7", "999", "1,000", "1,000,001", "-5", "-1,000", "-9,223,372,036,854,775,808"]);
    }
}
