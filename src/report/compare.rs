//! Two runs, trial by trial: what changed between two revisions, backends or suites.
//!
//! A trial of one run is held against the trial of the other with the same prompt and the same edit; of a random edit that
//! is not listed the same flips must have been drawn. A prompt's ids may
//! differ, where a tokenizer or a chat template changed; that is a difference like any other. Where a run holds a
//! prompt and edit several times, the first is held against the first, the second against the second. Time, trial
//! numbers and facts of the run are not compared trial by trial; what the runs as a whole differ in is told apart.

use std::{collections::BTreeMap, fmt::Write};

use serde::Serialize;

use super::terminal::{Look, grouped, kl, plain};
use crate::record::Record;

/// What two trials can differ in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Difference {
    /// The prompt's token ids.
    PromptIds,
    /// The clean model's answer.
    Clean,
    /// The generated tokens.
    Tokens,
    /// Their text.
    Text,
    /// Why generation ended.
    Finish,
    /// The label.
    Verdict,
    /// What the label does not say.
    Tags,
    /// Length of the coherent prefix.
    CoherentTokens,
    /// Whether the response is right.
    Expected,
    /// Mean divergence, in nats.
    KlMean,
    /// The 99th percentile of the divergence, in nats.
    KlP99,
    /// Agreement of first choices.
    Agreement,
    /// Surprise of a step under the clean model, in nats.
    Surprise,
    /// Best minus second logit of a step.
    Margin,
}

impl Difference {
    /// Its name in a record.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PromptIds => "prompt_ids",
            Self::Clean => "clean",
            Self::Tokens => "tokens",
            Self::Text => "text",
            Self::Finish => "finish",
            Self::Verdict => "verdict",
            Self::Tags => "tags",
            Self::CoherentTokens => "coherent_tokens",
            Self::Expected => "expected",
            Self::KlMean => "kl_mean",
            Self::KlP99 => "kl_p99",
            Self::Agreement => "agreement",
            Self::Surprise => "surprise",
            Self::Margin => "margin",
        }
    }
}

/// A trial that both runs have, with different results.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Changed<'a> {
    /// The prompt.
    pub prompt: &'a str,
    /// The edit.
    pub edit: &'a str,
    /// Whether the second run's verdict is worse.
    pub worse: bool,
    /// What is not the same.
    pub differences: Vec<Difference>,
    /// The first run's record.
    pub a: &'a Record,
    /// The second one's.
    pub b: &'a Record,
}

/// A trial that one run has and the other has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Alone<'a> {
    /// The prompt.
    pub prompt: &'a str,
    /// The edit.
    pub edit: &'a str,
}

/// Something that two runs as a whole differ in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fact {
    /// A key of the record.
    pub key: &'static str,
    /// Its values in the first run, in the order in which they occur.
    pub a: Vec<String>,
    /// The key's values in the second run, in the order in which they occur.
    pub b: Vec<String>,
}

/// Two runs side by side.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison<'a> {
    /// Two numbers count as equal if `|a - b| <= tolerance * max(1, |a|, |b|)`; a tolerance of 0 demands equal numbers.
    pub tolerance: f64,
    /// What the runs as a whole differ in.
    pub facts: Vec<Fact>,
    /// Trials whose results are the same.
    pub same: usize,
    /// Trials whose verdict is worse in the second run.
    pub worse: usize,
    /// Trials whose verdict is better in the second run.
    pub better: usize,
    /// Trials with different results, in the order of the first run.
    pub changed: Vec<Changed<'a>>,
    /// Trials that the first run alone has.
    pub only_a: Vec<Alone<'a>>,
    /// Trials that the second run alone has.
    pub only_b: Vec<Alone<'a>>,
}

impl<'a> Comparison<'a> {
    /// Holds run `b` against run `a`.
    pub fn of(a: &'a [Record], b: &'a [Record], tolerance: f64) -> Self {
        let (a, b) = (by_trial(a), by_trial(b));
        let mut others: BTreeMap<Key<'_>, Vec<&Record>> = BTreeMap::new();
        // The first is taken first, from the end.
        for &record in b.iter().rev() {
            others.entry(key(record)).or_default().push(record);
        }
        let mut comparison = Self {
            tolerance,
            facts: facts(&a, &b),
            same: 0,
            worse: 0,
            better: 0,
            changed: Vec::new(),
            only_a: Vec::new(),
            only_b: Vec::new(),
        };
        for record in a {
            let (prompt, edit) = (record.prompt.as_str(), record.edit.as_str());
            let Some(other) = others.get_mut(&key(record)).and_then(Vec::pop) else {
                comparison.only_a.push(Alone { prompt, edit });
                continue;
            };
            let differences = differences(record, other, tolerance);
            if differences.is_empty() {
                comparison.same += 1;
                continue;
            }
            let worse = other.verdict > record.verdict;
            comparison.worse += usize::from(worse);
            comparison.better += usize::from(other.verdict < record.verdict);
            comparison.changed.push(Changed { prompt, edit, worse, differences, a: record, b: other });
        }
        let mut left: Vec<&Record> = others.into_values().flatten().collect();
        left.sort_by_key(|record| record.trial);
        comparison.only_b =
            left.into_iter().map(|record| Alone { prompt: &record.prompt, edit: &record.edit }).collect();
        comparison
    }

    /// Trials that both runs have.
    pub(crate) fn compared(&self) -> usize {
        self.same + self.changed.len()
    }

    /// The comparison for people: what differs as a whole, each changed trial with both responses, and the counts.
    pub fn text(&self, look: Look) -> String {
        let mut out = String::new();
        for Fact { key, a, b } in &self.facts {
            let values = |values: &[String]| match values {
                [] => "nothing".to_owned(),
                values => values.iter().map(|value| shortened(value)).collect::<Vec<_>>().join(", "),
            };
            _ = writeln!(out, "{:<14} {} -> {}", look.dim(key), values(a), values(b));
        }
        let mut prompt = None;
        for changed in &self.changed {
            if prompt != Some(changed.prompt) {
                _ = writeln!(out, "\n{}", look.bold(&format!("{:?}", changed.prompt)));
                prompt = Some(changed.prompt);
                let (a, b) = (&changed.a.clean.text, &changed.b.clean.text);
                if a != b {
                    _ = writeln!(out, "{:>13}  a {a:?}\n{:>13}  b {b:?}", "clean answer", "");
                }
            }
            out.push_str(&changed.text(look));
        }
        let alone = |out: &mut String, which, trials: &[Alone<'_>]| {
            // A handful says which; the object of --format json has all.
            for Alone { prompt, edit } in trials.iter().take(10) {
                _ = writeln!(out, "only in {which}: {} {prompt:?}", shortened(edit));
            }
            if trials.len() > 10 {
                _ = writeln!(out, "only in {which}: {} more", trials.len() - 10);
            }
        };
        if !self.only_a.is_empty() || !self.only_b.is_empty() {
            out.push('\n');
        }
        alone(&mut out, "a", &self.only_a);
        alone(&mut out, "b", &self.only_b);
        let numbers = if self.tolerance == 0.0 {
            "numbers are held to be equal".to_owned()
        } else {
            format!("numbers may differ by {} of the greater, or of 1", self.tolerance)
        };
        _ = writeln!(
            out,
            "\n{} the same, {} changed ({} with a worse verdict, {} with a better one); {numbers}",
            self.same,
            self.changed.len(),
            self.worse,
            self.better,
        );
        out
    }
}

impl Changed<'_> {
    fn text(&self, look: Look) -> String {
        let (a, b) = (self.a, self.b);
        let edit = a.shift.map_or_else(|| shortened(self.edit), grouped);
        let verdicts = if a.verdict == b.verdict {
            look.verdict(a.verdict, 0)
        } else {
            let mark = if self.worse { "  worse" } else { "  better" };
            format!("{} -> {}{mark}", look.verdict(a.verdict, 0), look.verdict(b.verdict, 0))
        };
        let kl = match (kl(a.kl_mean), kl(b.kl_mean)) {
            (a, b) if a == b => format!("KL {a}"),
            (a, b) => format!("KL {a} -> {b}"),
        };
        let names: Vec<&str> = self.differences.iter().map(|difference| difference.name()).collect();
        let names = look.dim(&format!("[{}]", names.join(", ")));
        let mut out = format!("{edit:>13}  {verdicts}  {kl}  {names}\n");
        if a.text == b.text {
            _ = writeln!(out, "{:>13}  {:?}", "", a.text);
        } else {
            _ = writeln!(out, "{:>13}  a {:?}\n{:>13}  b {:?}", "", a.text, "", b.text);
        }
        out
    }
}

/// A digest, or an edit of very many flips, as far as it is looked at.
fn shortened(text: &str) -> String {
    let most = if text.len() == 64 { 16 } else { 60 };
    match text.chars().nth(60) {
        Some(_) => plain(&text.chars().take(most).collect::<String>()) + "...",
        None => plain(text),
    }
}

/// What trials are matched by: prompt, edit, and what was drawn for it where it does not say so.
type Key<'a> = (&'a str, &'a str, Option<&'a str>);

fn key(record: &Record) -> Key<'_> {
    (&record.prompt, &record.edit, record.edit_digest.as_deref())
}

fn by_trial(records: &[Record]) -> Vec<&Record> {
    let mut sorted: Vec<&Record> = records.iter().collect();
    sorted.sort_by_key(|record| record.trial);
    sorted
}

fn differences(a: &Record, b: &Record, tolerance: f64) -> Vec<Difference> {
    let number = |a: Option<f64>, b: Option<f64>| match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => a == b || (a - b).abs() <= tolerance * a.abs().max(b.abs()).max(1.0),
        _ => false,
    };
    let numbers =
        |a: &[Option<f64>], b: &[Option<f64>]| a.len() == b.len() && a.iter().zip(b).all(|(&a, &b)| number(a, b));
    let wide = |margin: &[Option<f32>]| margin.iter().map(|margin| margin.map(f64::from)).collect::<Vec<_>>();
    [
        (Difference::PromptIds, a.prompt_ids == b.prompt_ids),
        (Difference::Clean, a.clean == b.clean),
        (Difference::Tokens, a.tokens == b.tokens),
        (Difference::Text, a.text == b.text),
        (Difference::Finish, a.finish == b.finish),
        (Difference::Verdict, a.verdict == b.verdict),
        (Difference::Tags, a.tags == b.tags),
        (Difference::CoherentTokens, a.coherent_tokens == b.coherent_tokens),
        (Difference::Expected, a.expected == b.expected),
        (Difference::KlMean, number(a.kl_mean, b.kl_mean)),
        (Difference::KlP99, number(a.kl_p99, b.kl_p99)),
        (Difference::Agreement, number(a.agreement, b.agreement)),
        (Difference::Surprise, numbers(&a.surprise, &b.surprise)),
        (Difference::Margin, numbers(&wide(&a.margin), &wide(&b.margin))),
    ]
    .into_iter()
    .filter_map(|(difference, same)| (!same).then_some(difference))
    .collect()
}

fn facts(a: &[&Record], b: &[&Record]) -> Vec<Fact> {
    type Key = (&'static str, fn(&Record) -> String);
    const KEYS: [Key; 12] = [
        ("model", |record| record.model.clone()),
        ("revision", |record| record.revision.clone().unwrap_or_else(|| "none".to_owned())),
        ("model_digest", |record| record.model_digest.clone()),
        ("head_digest", |record| record.head_digest.clone()),
        ("backend", |record| record.backend.clone()),
        ("kernel", |record| record.kernel.clone()),
        ("threshold", |record| record.threshold.to_string()),
        ("max_tokens", |record| record.run.max_tokens.to_string()),
        ("tied", |record| record.run.tied.to_string()),
        ("seed", |record| record.run.seed.to_string()),
        ("date", |record| record.run.date.clone().unwrap_or_else(|| "none".to_owned())),
        ("version", |record| record.run.version.clone()),
    ];
    let values = |records: &[&Record], value: fn(&Record) -> String| {
        let mut found: Vec<String> = Vec::new();
        for record in records {
            let value = value(record);
            if !found.contains(&value) {
                found.push(value);
            }
        }
        found
    };
    KEYS.into_iter()
        .map(|(key, value)| Fact { key, a: values(a, value), b: values(b, value) })
        .filter(|fact| fact.a != fact.b)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{coherence::Verdict, testing::records::record};

    fn at(trial: usize, edit: &str) -> Record {
        Record { trial, edit: edit.to_owned(), shift: None, ..record() }
    }

    #[test]
    fn a_run_is_the_same_as_itself_in_any_order_and_at_any_time() {
        let a = [at(0, "shift:1"), at(1, "shift:2"), at(2, "shift:1")];
        let mut b = a.clone();
        b.reverse();
        b.iter_mut().for_each(|record| record.ms += 1.0);
        let found = Comparison::of(&a, &b, 0.0);
        assert_eq!((found.same, found.compared(), found.changed.len()), (3, 3, 0));
        assert!(found.facts.is_empty() && found.only_a.is_empty() && found.only_b.is_empty());
    }

    #[test]
    fn every_difference_is_named() {
        type Change = fn(&mut Record);
        let changes: [(Difference, Change); 14] = [
            (Difference::PromptIds, |record| record.prompt_ids.push(1)),
            (Difference::Clean, |record| record.clean.tokens.push(1)),
            (Difference::Tokens, |record| record.tokens[0] += 1),
            (Difference::Text, |record| record.text.push('!')),
            (Difference::Finish, |record| record.finish = crate::coherence::Finish::Stop),
            (Difference::Verdict, |record| record.verdict = Verdict::Gone),
            (Difference::Tags, |record| record.tags.push(crate::coherence::Tag::Loop)),
            (Difference::CoherentTokens, |record| record.coherent_tokens += 1),
            (Difference::Expected, |record| record.expected = Some(crate::record::Expected::Wrong)),
            (Difference::KlMean, |record| record.kl_mean = Some(0.5_f64.next_up())),
            (Difference::KlP99, |record| record.kl_p99 = None),
            (Difference::Agreement, |record| record.agreement = Some(0.25)),
            (Difference::Surprise, |record| record.surprise[1] = None),
            (Difference::Margin, |record| record.margin[0] = Some(1.5)),
        ];
        for (difference, change) in changes {
            let a = [at(0, "shift:1")];
            let mut b = a.clone();
            change(&mut b[0]);
            let found = Comparison::of(&a, &b, 0.0);
            assert_eq!(found.changed[0].differences, [difference]);
            assert_eq!(serde_json::to_value(difference).expect("a text"), difference.name());
            assert_eq!(
                (found.changed[0].worse, found.worse),
                match difference {
                    Difference::Verdict => (true, 1),
                    _ => (false, 0),
                }
            );
            let text = found.text(Look { color: false });
            assert!(text.contains(&format!("[{}]", difference.name())), "{text}");
        }
    }

    #[test]
    fn numbers_within_the_tolerance_are_the_same_and_no_number_is_not_one() {
        let a = [Record { kl_mean: Some(10.0), agreement: Some(0.0), ..at(0, "shift:1") }];
        let with = |kl_mean, agreement| [Record { kl_mean, agreement, ..a[0].clone() }];
        for (b, tolerance, same) in [
            (with(Some(10.01), Some(0.0)), 0.9e-3, 0),
            (with(Some(10.01), Some(0.0)), 1.1e-3, 1),
            (with(Some(10.0), Some(0.001)), 1.1e-3, 1),
            (with(Some(10.0), Some(0.002)), 1.1e-3, 0),
            (with(None, Some(0.0)), 1e9, 0),
            (with(Some(10.0), Some(0.0)), 0.0, 1),
        ] {
            assert_eq!(Comparison::of(&a, &b, tolerance).same, same, "{tolerance}");
            assert_eq!(Comparison::of(&b, &a, tolerance).same, same, "{tolerance}");
        }
    }

    #[test]
    fn what_one_run_alone_has_is_told_apart() {
        let a = [at(0, "shift:1"), at(1, "shift:2"), at(2, "shift:2")];
        let mut other = at(0, "shift:2");
        other.head_digest = "22".repeat(32);
        let b = [other, at(5, "shift:9"), at(4, "shift:8")];
        let found = Comparison::of(&a, &b, 0.0);
        let edits = |alone: &[Alone<'_>]| alone.iter().map(|alone| alone.edit.to_owned()).collect::<Vec<_>>();
        assert_eq!(
            (edits(&found.only_a), edits(&found.only_b)),
            (vec!["shift:1".into(), "shift:2".into()], vec!["shift:8".to_owned(), "shift:9".into()])
        );
        assert_eq!((found.same, found.facts.len(), found.facts[0].key), (1, 1, "head_digest"));
        let text = found.text(Look { color: false });
        assert!(text.contains("only in b: shift:8") && text.contains("1111111111111111..."), "{text}");
    }

    #[test]
    fn the_text_shows_old_and_new_responses_and_an_arrow_between_verdicts() {
        let a = [at(0, "clean")];
        let mut worse = at(0, "clean");
        (worse.verdict, worse.text, worse.kl_mean) = (Verdict::Gone, "\u{fffd}ab".to_owned(), None);
        let text = Comparison::of(&a, &[worse], 0.0).text(Look { color: false });
        for expected in [
            "WOBBLING -> GONE  worse",
            "KL 0.500 -> n/a",
            "a \"five\"",
            "0 the same, 1 changed (1 with a worse verdict",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
    }
}
