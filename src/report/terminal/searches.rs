//! What searches found: a bisection, a map, a campaign.

use std::fmt::Write;

use super::{Look, grouped, kl, percent, plain, tally};
use crate::{
    coherence::Verdict,
    edit::Value,
    search::{
        bisect::{Bisection, Crossing},
        campaign::Row,
        map::{Cell, DIGITS, VALUES},
    },
};

/// A value of a family: integers with their thousands apart, rates as they parse.
fn value(value: Value) -> String {
    match value {
        Value::Integer(value) => grouped(value),
        Value::Rate(_) => value.to_string(),
    }
}

/// Every point of a bisection in order, a line between the two ends of each crossing, and what that means.
pub(crate) fn bisection(found: &Bisection, look: Look) -> String {
    let Bisection { family, predicate, nested, points, crossings, .. } = found;
    let prompts: usize = points.first().map_or(0, |point| point.verdicts.values().sum());
    let width = points.iter().map(|point| value(point.value).len()).max().unwrap_or(0).max(13);
    let over = if prompts == 1 { String::new() } else { format!(", median and mean over {prompts} prompts") };
    let mut out = look.bold(&format!("\n{family}: {predicate}{over}")) + "\n";
    let columns = format!("{:>width$}  verdict      KL nats  holds", "value");
    _ = writeln!(out, "{}", look.dim(&columns));
    for (i, point) in points.iter().enumerate() {
        let verdict = look.verdict(point.verdict, 10);
        let counts = if prompts == 1 { String::new() } else { format!("    {}", tally(&point.verdicts)) };
        let holds = if point.holds { "yes" } else { "no " };
        _ = writeln!(out, "{:>width$}  {verdict}  {:>8}  {holds}{counts}", value(point.value), kl(point.kl_mean));
        if points.get(i + 1).is_some_and(|next| next.holds != point.holds) {
            _ = writeln!(out, "{}", look.dim(&format!("{:->width$}  crossing", "")));
        }
    }
    out.push('\n');
    let ends = |crossing: &Crossing| {
        let (lo, hi) = (value(crossing.lo), value(crossing.hi));
        let change = if crossing.lo_holds { "holds, and no longer" } else { "does not hold, but does" };
        let open = if crossing.adjacent { "" } else { " (not narrowed down: the run was cut short)" };
        let [lo_verdict, hi_verdict] =
            [crossing.lo_verdict, crossing.hi_verdict].map(|verdict| look.verdict(verdict, 0));
        format!("  at {lo} ({lo_verdict}) it {change} at {hi} ({hi_verdict}){open}\n")
    };
    let run = points.len();
    let said = match (&crossings[..], nested) {
        ([], true) => format!("no crossing among the {run} points that were run"),
        ([], false) => format!(
            "no crossing among the {run} points that were run.\nEdits of this family are not nested: there may be some between \
             the points"
        ),
        ([_], true) => format!(
            "one crossing among the {run} points that were run, as is to be expected of edits each of which contains the \
             smaller ones:"
        ),
        (several, true) => format!(
            "{} crossings among the {run} points that were run, though each edit contains the smaller ones: none of them is \
             the threshold:",
            several.len()
        ),
        (seen, false) => format!(
            "{} among the {run} points that were run.\nEdits of this family are not nested: more may lie between any two \
             points, and none of them is the threshold:",
            if seen.len() == 1 { "a crossing".to_owned() } else { format!("{} crossings", seen.len()) }
        ),
    };
    _ = writeln!(out, "{said}");
    out.extend(crossings.iter().map(ends));
    out
}

/// A letter for each verdict, where there is no room for more.
const fn letter(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Healthy => "H",
        Verdict::Wobbling => "W",
        Verdict::Dying => "Y",
        Verdict::Collapsing => "C",
        Verdict::Dead => "D",
        Verdict::Gone => "G",
    }
}

/// A map as two grids, digits down and values across: median verdicts, then mean divergences in their colors.
pub(crate) fn map(cells: &[Cell], look: Look) -> String {
    let cell = |digit, value| cells.iter().find(|cell| (cell.digit, cell.value) == (digit, value));
    let most = cells.iter().map(|cell| cell.spread.trials).max().unwrap_or(0);
    let over = if most == 1 { "one prompt".to_owned() } else { format!("{most} prompts") };
    let mut out = String::new();
    let mut grid = |title: &str, width: usize, show: &dyn Fn(&Cell) -> String| {
        _ = writeln!(out, "\n{}", look.bold(title));
        let head: String = (0..VALUES).map(|value| format!("{value:>width$x}")).collect();
        _ = writeln!(out, "{}", look.dim(&format!("{:>9}{head}", "digit")));
        for digit in 0..DIGITS {
            _ = write!(out, "{}", look.dim(&format!("{:>9}", format!("{digit} (16^{digit})"))));
            for value in 0..VALUES {
                let (text, verdict) = match cell(digit, value) {
                    Some(cell) => (show(cell), Some(cell.spread.median)),
                    None => (".".to_owned(), None),
                };
                let gap = " ".repeat(width.saturating_sub(text.chars().count()));
                let text = verdict.map_or(text.clone(), |verdict| look.as_verdict(verdict, &text));
                _ = write!(out, "{gap}{text}");
            }
            out.push('\n');
        }
    };
    grid(&format!("median verdict over {over}"), 3, &|cell| letter(cell.spread.median).to_owned());
    grid("mean KL, nats", 5, &|cell| match cell.spread.kl_mean {
        None => "n/a".to_owned(),
        Some(nats) if nats < 9.995 => format!("{nats:.2}"),
        Some(nats) if nats < 99.95 => format!("{nats:.1}"),
        Some(nats) => format!("{nats:.0}"),
    });
    let legend = Verdict::ALL.map(|verdict| format!("{} {verdict}", look.as_verdict(verdict, letter(verdict))));
    _ = writeln!(out, "\n{}", legend.join("  "));
    _ = writeln!(out, "a cell is the shift by value x 16^digit: that digit of every packed word, with its borrows");
    out
}

/// The rows of a campaign as a table.
pub(crate) fn campaign(rows: &[Row], look: Look) -> String {
    let mut out = String::new();
    let columns = "flips or rate  of       trials  changed  share    95 % interval      verdicts";
    _ = writeln!(out, "\n{}", look.dim(columns));
    for row in rows {
        let amount = match (row.flips, row.rate) {
            (Some(flips), _) => grouped(i64::try_from(flips).unwrap_or(i64::MAX)),
            (None, Some(rate)) => Value::Rate(rate).to_string(),
            (None, None) => String::new(),
        };
        let [lo, hi] = row.changed_wilson;
        let interval = format!("{} to {}", percent(lo), percent(hi));
        let verdicts: Vec<String> = row
            .spread
            .verdicts
            .iter()
            .map(|(&verdict, count)| format!("{} {count}", look.verdict(verdict, 0)))
            .collect();
        let early = if row.stopped_early { "  (ended early)" } else { "" };
        _ = writeln!(
            out,
            "{amount:>13}  {:<7}  {:>6}  {:>7}  {:>7}  {interval:<17}  {}{early}",
            plain(&row.tensor),
            row.spread.trials,
            row.spread.changed,
            percent(row.changed_rate),
            verdicts.join("  "),
        );
    }
    out.push_str(
        "\nchanged: other tokens than the clean model's, or another end; Wilson's interval of its probability\n",
    );
    if rows.iter().any(|row| row.nominal) {
        out.push_str("rows may end early, so the intervals' 95 % are nominal\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        record::{CampaignFacts, Record},
        search::{bisect::Bisection, campaign::rows, map::cells},
        testing::records::record,
    };

    const PLAIN: Look = Look { color: false };

    fn bisected(family: &str, points: &[(i64, Verdict)]) -> String {
        let at = |&(value, verdict): &(i64, Verdict)| {
            let mut record = Record { value: Some(Value::Integer(value)), verdict, ..record() };
            record.family = Some(family.to_owned());
            record.run.predicate = Some("at-least DYING".to_owned());
            record
        };
        bisection(&Bisection::of(&points.iter().map(at).collect::<Vec<_>>()).expect("a bisection"), PLAIN)
    }

    #[test]
    fn a_bisection_shows_every_point_and_calls_no_crossing_the_threshold() {
        let text = bisected("shift", &[(0, Verdict::Healthy), (4095, Verdict::Dying), (4096, Verdict::Gone)]);
        for expected in [
            "shift: at-least DYING",
            "            0  HEALTHY        0.500  yes",
            "        4,095  DYING          0.500  yes\n-------------  crossing\n        4,096  GONE           0.500  no",
            "a crossing among the 3 points that were run.\nEdits of this family are not nested",
            "at 4,095 (DYING) it holds, and no longer at 4,096 (GONE)\n",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        let open = bisected("shift", &[(0, Verdict::Gone), (9, Verdict::Healthy), (20, Verdict::Gone)]);
        assert!(open.contains("2 crossings among the 3 points"), "{open}");
        assert!(open.contains("at 0 (GONE) it does not hold, but does at 9 (HEALTHY) (not narrowed down"), "{open}");
        let nested = bisected("flips:7", &[(1, Verdict::Healthy), (2, Verdict::Gone)]);
        assert!(nested.contains("one crossing among the 2 points") && !nested.contains("not nested"), "{nested}");
        let none = bisected("digit:3", &[(1, Verdict::Healthy), (2, Verdict::Dying)]);
        assert!(none.contains("no crossing among the 2 points") && none.contains("not nested"), "{none}");
    }

    #[test]
    fn a_map_has_a_line_for_each_digit_and_a_place_for_each_value() {
        let at = |digit: u32, value: i64, verdict, kl_mean| Record {
            family: Some(format!("digit:{digit}")),
            value: Some(Value::Integer(value)),
            verdict,
            kl_mean,
            ..record()
        };
        let records = [
            at(0, 1, Verdict::Healthy, Some(0.004)),
            at(7, 15, Verdict::Dying, Some(12.34)),
            at(3, 0, Verdict::Gone, None),
        ];
        let text = map(&cells(&records), PLAIN);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.contains(&"    digit  0  1  2  3  4  5  6  7  8  9  a  b  c  d  e  f"), "{text}");
        assert!(lines.contains(&" 0 (16^0)  .  H  .  .  .  .  .  .  .  .  .  .  .  .  .  ."), "{text}");
        assert!(lines.iter().any(|line| line.starts_with(" 7 (16^7)") && line.ends_with('Y')), "{text}");
        assert!(lines.iter().any(|line| line.starts_with(" 7 (16^7)") && line.ends_with("12.3")), "{text}");
        assert!(lines.iter().any(|line| line.starts_with(" 3 (16^3)  n/a")), "{text}");
        let colored = map(&cells(&records), Look { color: true });
        let stripped = colored.split('\u{1b}').map(|part| part.split_once('m').map_or(part, |(_, rest)| rest));
        assert_eq!(stripped.skip(1).collect::<String>().trim_start(), text.trim_start());
    }

    #[test]
    fn a_campaign_has_a_line_for_each_row() {
        let at = |trial: usize, changed: bool| {
            let mut record = Record { trial, value: Some(Value::Integer(1000)), ..record() };
            record.family = Some("random:flips".to_owned());
            record.run.campaign =
                Some(CampaignFacts { trials: 400, half_width: Some(0.05), tensor: "biases".to_owned() });
            if !changed {
                record.tokens = record.clean.tokens.clone();
            }
            record
        };
        let records: Vec<Record> = (0..100).map(|trial| at(trial, trial == 7)).collect();
        let text = campaign(&rows(&records), PLAIN);
        let row = "        1,000  biases      100        1      1 %  0.18 % to 5.4 %    WOBBLING 100  (ended early)";
        assert!(text.contains(row), "{text}");
        assert!(text.contains("nominal"), "{text}");
    }
}
