//! What people read at a terminal: records, what searches found, certificates, a whole report.
//!
//! Here is what all of these texts share: colors, numbers, and text of unknown origin made harmless.

pub(crate) mod certificates;
pub(crate) mod records;
mod report;
pub(crate) mod searches;

use std::collections::BTreeMap;

use anstyle::{AnsiColor, Color, Style};

use crate::coherence::Verdict;

pub use report::report;

/// How a text is drawn, decided by whoever knows where it goes.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Whether escape sequences may be used.
    pub color: bool,
}

impl Look {
    pub(super) fn paint(self, style: Style, text: &str) -> String {
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
pub(crate) fn grouped(number: i64) -> String {
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

/// Text of unknown origin, with everything spelled out that a terminal would act upon or not show.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if is_seen(c) { c.to_string() } else { c.escape_debug().to_string() }).collect()
}

/// A whole text for people with everything spelled out that a terminal would act upon or not show, but for the ends of its
/// lines and, where they are wanted, the colors of [`Look`]. A stranger's line end within it has to be spelled out before,
/// by [`plain`] or in quotes: nobody could tell it from one of ours here.
#[cfg(any(feature = "cli", feature = "testing", test))]
pub(crate) fn harmless(text: &str, look: Look) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let color = if look.color { color(rest) } else { "" };
        if !color.is_empty() {
            out.push_str(color);
        } else if c == '\n' || is_seen(c) {
            out.push(c);
        } else {
            out.extend(c.escape_debug());
        }
        rest = &rest[color.len().max(c.len_utf8())..];
    }
    out
}

/// The escape sequence at the beginning of a text, if it does no more than [`Look`] and the parser of arguments do: one
/// number that sets a color of the palette, a weight, an underline, or all back.
#[cfg(any(feature = "cli", feature = "testing", test))]
fn color(text: &str) -> &str {
    let Some(rest) = text.strip_prefix("\u{1b}[") else { return "" };
    match rest.split_once('m').map(|(number, _)| (number, number.parse::<u8>())) {
        Some((number, Ok(0..=2 | 4 | 30..=37 | 90..=97))) if number.len() <= 2 => &text[..number.len() + 3],
        _ => "",
    }
}

/// Whether a character shows itself, and nothing but itself.
pub(crate) fn is_seen(c: char) -> bool {
    // Behind a letter, where Rust leaves combining marks as they are: they are letters of many scripts.
    c.is_ascii_graphic() || c == ' ' || ['a', c].iter().collect::<String>().escape_debug().count() == 2
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
    fn of_a_text_for_people_lines_and_our_own_colors_are_left_and_all_else_is_spelled_out() {
        let (on, off) = (Look { color: true }, Look { color: false });
        let own = on.verdict(Verdict::Gone, 6) + "\n" + &on.dim("x") + &on.bold("é 漢 \u{301}\n");
        assert_eq!(harmless(&own, on), own);
        assert!(!harmless(&own, off).contains('\u{1b}'));
        for (hostile, shown) in [
            ("\u{1b}[2J", "\\u{1b}[2J"),
            ("\u{1b}]0;title\u{7}", "\\u{1b}]0;title\\u{7}"),
            ("\u{1b}[1;31m", "\\u{1b}[1;31m"),
            ("\u{1b}[8m", "\\u{1b}[8m"),
            ("\u{1b}[001m", "\\u{1b}[001m"),
            ("a\rb\tc\u{8}", "a\\rb\\tc\\u{8}"),
            ("\u{9b}31m\u{7f}", "\\u{9b}31m\\u{7f}"),
            ("\u{202e}txt\u{2066}\u{200b}\u{2028}", "\\u{202e}txt\\u{2066}\\u{200b}\\u{2028}"),
        ] {
            for look in [on, off] {
                assert_eq!(harmless(hostile, look), shown);
            }
            assert_eq!(plain(hostile), shown);
        }
        assert_eq!(plain("a\nheadroom: error: b"), "a\\nheadroom: error: b");
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let texts = [0, 7, 999, 1000, 1_000_001, -5, -1000, i64::MIN].map(grouped);
        assert_eq!(texts, ["0", "7", "999", "1,000", "1,000,001", "-5", "-1,000", "-9,223,372,036,854,775,808"]);
    }
}
