//! Certificates: an answer, a suite, a collapse.

use std::fmt::Write;

use super::{Look, plain};
use crate::{
    certificate::{
        Answer, Collapse, Confined, NanReport, Protection, ScaleCensus, Silence, SingleBits, Suite, TowardReport,
    },
    coherence::Verdict,
};

/// Weakest bits that are shown.
const SHOWN: usize = 5;
/// Points of the protection curve that are shown.
const POINTS: usize = 7;
/// Columns of the names on the left.
const NAME: usize = 14;

/// One answer.
pub(crate) fn answer(answer: &Answer, look: Look) -> String {
    let mut out = format!("\n{} -> {:?}\n", look.bold(&format!("{:?}", answer.prompt)), answer.text);
    let mut line = |name: &str, text: &str| {
        _ = writeln!(out, "{}{}", look.bold(&format!("{:<NAME$}", plain(name))), plain(text));
    };

    let single = SingleBits::of(answer);
    for (i, (tensor, bits)) in single.tensors().enumerate() {
        let count = vulnerability(bits.critical, bits.total, "change the answer");
        line(if i == 0 { "single bits" } else { "" }, &format!("{tensor}: {count}"));
    }
    line("", &single.finding);
    line("least flips", &least_flips(answer));
    if let (Some(witness), Some(run), Some(position)) = (&answer.witness, &answer.witness_run, answer.witness_position)
    {
        // A file may name a position that its answer does not have.
        let loses = answer.positions.get(position).map_or(String::new(), |at| match &at.rival_text {
            Some(rival) if at.least_finite_flips.is_none() => format!(", {:?} loses to {rival:?}", at.text),
            _ => ", a logit is NaN".to_owned(),
        });
        line("", &format!("{}: at position {position}{loses}", shortened(witness)));
        let did = if run.changed { "run, it says" } else { "RUN, IT CHANGES NOTHING:" };
        line("", &format!("{did} {:?}", run.text));
    }
    line("code bits", &by_bit(&answer.by_bit_position));
    if answer.undecided_bits > 0 {
        let executed = answer.executed;
        line(
            "",
            &format!(
                "{} more or fewer when executed: within the kernel's rounding; {} of {} run changed it",
                grouped(answer.undecided_bits),
                grouped(executed.undecided_changing),
                grouped(executed.undecided_run),
            ),
        );
    }
    let rows: Vec<String> =
        answer.rows.iter().take(4).map(|row| format!("{} {:?} {}", row.row, row.text, grouped(row.critical))).collect();
    if !rows.is_empty() {
        line("", &format!("most in rows {}", rows.join(", ")));
    }
    line("protection", &protection(&answer.protection));
    for (tensor, census) in [("scales", &answer.scales), ("biases", &answer.biases)] {
        let apart = apart(census);
        if !apart.is_empty() {
            line(tensor, &apart);
        }
    }
    if let Some(nan) = &answer.nan {
        line("NaN", &not_a_number(nan));
    }
    if let Some(within) = &answer.within {
        line(&format!("one {}", within.unit), &confined(within));
    }
    if let Some(silence) = &answer.silence_eos {
        line("silence eos", &silence_eos(silence));
    }
    if let Some(toward) = &answer.toward {
        line("toward", &toward_token(toward));
    }

    let columns = " pos  token             loses to             margin  flips  single flips  undecided";
    _ = writeln!(out, "\n{}", look.dim(columns));
    for at in &answer.positions {
        let number = |x: Option<usize>| x.map_or("-".to_owned(), |x| x.to_string());
        let flips = match (at.least_flips, at.executed_at_least) {
            (Some(exact), Some(executed)) if exact != executed => format!("{exact} ({executed})"),
            (exact, _) => number(exact),
        };
        _ = writeln!(
            out,
            "{:>4}  {:<16}  {:<16}  {:>9}  {flips:>5}  {:>12}  {:>9}",
            at.index,
            quoted(&at.text),
            at.rival_text.as_deref().map_or("-".to_owned(), quoted),
            at.margin.map_or("-".to_owned(), |margin| format!("{margin:.3}")),
            grouped(at.critical),
            at.undecided,
        );
    }
    if !answer.weakest.is_empty() {
        _ = writeln!(out, "\n{}", look.dim("weakest bits                    changes  what the model says after it"));
    }
    for weak in answer.weakest.iter().take(SHOWN) {
        let positions = format!("{} of {}", weak.positions.len(), answer.positions.len());
        _ = writeln!(out, "{:<30}  {positions:>7}  {:?}", plain(&weak.edit), weak.ran.text);
    }
    if answer.weakest.len() > SHOWN {
        let more = format!("{} more in --format json and --out", answer.weakest.len() - SHOWN);
        _ = writeln!(out, "{}", look.dim(&more));
    }
    for failure in &answer.failures {
        _ = writeln!(out, "{} {}", look.bold("FAILED"), plain(failure));
    }
    out
}

/// What several answers have in common.
pub(crate) fn suite(suite: &Suite, look: Look) -> String {
    let mut out = format!("\n{}\n", look.bold(&format!("all {} answers together", suite.answers)));
    let mut line = |name: &str, text: &str| {
        _ = writeln!(out, "{}{}", look.bold(&format!("{:<NAME$}", plain(name))), plain(text));
    };
    let count = vulnerability(suite.critical_bits, suite.total_bits, "code bits change at least one answer");
    line("single flips", &count);
    line("", &by_bit(&suite.by_bit_position));
    for (name, union) in [("scales", &suite.scales), ("biases", &suite.biases)] {
        if let Some(union) = union {
            let what = format!("bits of {name} change at least one answer");
            line("", &vulnerability(union.critical_bits, union.total_bits, &what));
            line("", &by_bit(&union.by_bit_position));
        }
    }
    line("protection", &protection(&suite.protection));
    let words: Vec<String> =
        suite.words.iter().take(6).map(|word| format!("[{},{}] {}", word.row, word.word, word.critical)).collect();
    if !words.is_empty() {
        line("", &format!("first of all words [row,word] {}", words.join(", ")));
    }
    out
}

/// What a search for collapse found.
pub(crate) fn collapse(collapse: &Collapse, look: Look) -> String {
    let mut out = format!("\n{}\n", look.bold("collapse, by a greedy search (fewer flips may do it, too)"));
    let mut line = |name: &str, text: &str| {
        _ = writeln!(out, "{}{}", look.bold(&format!("{:<NAME$}", plain(name))), plain(text));
    };
    let found = if collapse.reached { "bring" } else { "were tried, and bring only" };
    line("found", &format!("{} flips {found} the median verdict to {}", collapse.flips, collapse.median));
    for taken in &collapse.path {
        line("", &format!("{}: median {}", shortened(&taken.edit), taken.median));
    }
    for fate in &collapse.prompts {
        line("", &format!("{:<10} {:?} -> {:?}", fate.verdict.name(), fate.prompt, fate.text));
    }
    let random = &collapse.random;
    let verdicts: Vec<String> = Verdict::ALL
        .iter()
        .filter_map(|verdict| Some(format!("{verdict} {}", grouped(*random.verdicts.get(verdict)?))))
        .collect();
    let what =
        format!("{} edits of {} random flips: {} collapse the suite", random.trials, random.flips, random.collapsed);
    line("random", &format!("{what}; answers: {}", verdicts.join(", ")));
    out
}

fn least_flips(answer: &Answer) -> String {
    match (answer.least_flips, answer.executed_at_least) {
        (None, _) => "no flips of code bits change a token of it".to_owned(),
        (Some(0), _) => "0: in real arithmetic another token than the executed one wins already".to_owned(),
        (Some(1), _) => "1: a single flip changes it".to_owned(),
        (Some(exact), Some(executed)) if executed < exact => {
            format!("{exact}: no fewer change a token in real arithmetic, no fewer than {executed} when executed")
        }
        (Some(2), _) => "2: no single flip of a code bit, anywhere in the head, changes a token".to_owned(),
        (Some(exact), _) => {
            format!("{exact}: no {} flips of code bits, anywhere in the head, change a token", exact - 1)
        }
    }
}

fn not_a_number(nan: &NanReport) -> String {
    let bits = format!("{} single flips make a code NaN, which ends every answer", grouped(nan.bits));
    let finite = match nan.least_finite_flips {
        Some(flips) => format!("least flips that leave all codes numbers: {flips}"),
        None => "no flips that leave all codes numbers change a token".to_owned(),
    };
    format!("{bits}; least: {}, {}; {finite}", nan.flips, shortened(&nan.witness))
}

fn vulnerability(critical: usize, total: usize, what: &str) -> String {
    let share = critical as f64 / total as f64;
    let one_in = total.checked_div(critical).map_or(String::new(), |each| format!(", 1 in {}", grouped(each)));
    format!("{} of {} {what} ({share:.3e}{one_in})", grouped(critical), grouped(total))
}

fn by_bit(counts: &[usize]) -> String {
    let bits: Vec<String> =
        counts.iter().enumerate().rev().map(|(bit, &count)| format!("bit {bit}: {}", grouped(count))).collect();
    bits.join(", ")
}

fn protection(curve: &[Protection]) -> String {
    let step = curve.len().div_ceil(POINTS).max(1);
    // Some of the points, and the last.
    let shown = curve.iter().enumerate().filter(|(i, _)| i % step == 0 || i + 1 == curve.len());
    let points: Vec<String> = shown.map(|(_, point)| format!("{} {:.3}", grouped(point.words), point.share)).collect();
    if points.is_empty() { "nothing to protect".to_owned() } else { format!("words, share: {}", points.join(" | ")) }
}

/// What is counted apart of the single bits of scales or of biases.
fn apart(census: &ScaleCensus) -> String {
    let counts = [
        (census.nonfinite_bits, "of them make the value infinite or not a number"),
        (census.undecided_bits, "more or fewer when executed: within the kernel's rounding"),
    ];
    let said =
        counts.into_iter().filter(|&(count, _)| count > 0).map(|(count, what)| format!("{} {what}", grouped(count)));
    said.collect::<Vec<_>>().join("; ")
}

fn confined(confined: &Confined) -> String {
    let (Some(flips), Some(witness)) = (confined.least_flips, &confined.witness) else {
        return format!("no flips within one {} change a token", confined.unit);
    };
    let did = if confined.witness_changes == Some(true) { "run, it does" } else { "RUN, IT DOES NOT" };
    format!("{flips} within one {} change a token: {} ({did})", confined.unit, shortened(witness))
}

fn silence_eos(silence: &Silence) -> String {
    let steps = silence.steps;
    match (silence.at_least, silence.at_most, &silence.witness) {
        (Some(0), Some(0), _) => format!("it does not end within {steps} steps anyway"),
        (Some(least), Some(most), Some(witness)) => {
            let bound = if least == most { format!("{least}, exactly") } else { format!("{least} to {most}") };
            let says = silence.text.as_deref().unwrap_or("");
            format!("{bound}, for {steps} steps without an end: {} says {says:?}", shortened(witness))
        }
        (Some(least), ..) => format!("at least {least} for {steps} steps without an end; none were found that do it"),
        _ => "no flips of code bits keep it from ending".to_owned(),
    }
}

fn toward_token(toward: &TowardReport) -> String {
    let (Some(flips), Some(witness)) = (toward.least_flips, &toward.witness) else {
        return format!("no flips make {:?} the first token", toward.text);
    };
    let did = if toward.witness_works == Some(true) { "run, they do" } else { "RUN, THEY DO NOT" };
    let lowering = match toward.lowered_rows {
        0 => "all of them raising it".to_owned(),
        rows => format!("{} of them raising it, the others lowering {rows} rivals", toward.raising),
    };
    format!("{flips} make {:?} the first token, {lowering}: {} ({did})", toward.text, shortened(witness))
}

/// An edit of at most so many flips as a line holds.
fn shortened(edit: &str) -> String {
    const FLIPS: usize = 4;
    let flips: Vec<&str> = edit.split('+').collect();
    match flips.get(..FLIPS).filter(|_| flips.len() > FLIPS + 1) {
        Some(first) => format!("{} and {} more (--out keeps them)", first.join("+"), flips.len() - FLIPS),
        None => edit.to_owned(),
    }
}

/// A text in quotes, cut to what a column holds.
fn quoted(text: &str) -> String {
    let quoted = format!("{text:?}");
    if quoted.chars().count() <= 16 {
        return quoted;
    }
    let start: String = quoted.chars().take(14).collect();
    format!("{start}~\"")
}

fn grouped(number: usize) -> String {
    super::grouped(number as i64)
}
