//! Law 9, of stored results: whatever bytes are given to `report`, `compare`, `relabel`, `merge` and `replay`, they are
//! shown or refused, and what is shown does nothing to a terminal.
//!
//! Results that a run of this program wrote are changed: a value anywhere becomes another one, a byte another byte, and
//! what is left ends anywhere.

use std::{cell::OnceCell, path::Path, sync::Arc};

use arbitrary::{Arbitrary, Unstructured};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Case, LawResult, Reached, claim};
use crate::{
    certificate::{Certificates, Certifier, CollapseOptions, Options, Suite, Within, collapse},
    checkpoint::Checkpoint,
    edit::Edit,
    kernels::Kernel,
    quant::Layout,
    record::{
        self, Parts, Record,
        journal::{self, JournalError},
        recipe::{Recipe, Step},
        summary::summaries,
    },
    report::{Gathered, Look, Report, Source, compare::Comparison, html, terminal},
    search::{Session, Settings, keep, ladder},
    subject::Subject,
    team::Team,
    testing::fixture::Fixture,
};

const LAW: u8 = 9;
const SHOWN: &str = "what is shown of stored results does nothing to a terminal";
const KEPT: &str = "a record that was read and judged anew can be written and read again";

/// A text that acts upon a terminal.
const HOSTILE: &str = "\u{1b}[2J\u{202e}x\nheadroom: error: y\r\u{9b}31m";

/// Results, changed: two files, of which the second is as it was written.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stored {
    /// Which results the first file is made of, modulo their number.
    pub results: u8,
    /// And the second.
    pub other: u8,
    /// Places within the first file's values, modulo their number, and what they become.
    pub changes: Vec<(u16, u8)>,
    /// Written over the first file's bytes: places, modulo its length, and bytes.
    pub written: Vec<(u16, u8)>,
    /// Bytes that are taken off its end, modulo its length.
    pub cut: u16,
}

impl<'a> Arbitrary<'a> for Stored {
    /// Few changes, so that most of what is drawn is still read; half of the pairs are of one kind.
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let results = u.arbitrary()?;
        let other = if u.arbitrary()? { results } else { u.arbitrary()? };
        let changes = (0..u.int_in_range(0..=4)?).map(|_| u.arbitrary()).collect::<arbitrary::Result<_>>()?;
        let written = if u.ratio(1, 4)? { vec![u.arbitrary()?] } else { Vec::new() };
        let cut = if u.ratio(1, 4)? { u.arbitrary()? } else { 0 };
        Ok(Self { results, other, changes, written, cut })
    }
}

impl Case for Stored {
    const NAME: &'static str = "results";
    const CLASSES: &'static [&'static str] =
        &["reported", "drawn", "compared", "judged anew", "joined", "a recipe", "an edit", "refused"];
    const ENTROPY: usize = 40;

    fn check(&self, reached: &mut Reached) -> LawResult {
        with_written(|written| written.check(self, reached))
    }
}

/// Results of every kind, as they are written.
struct Written {
    /// Values, each of which is a line.
    results: Vec<Vec<Value>>,
    layout: Layout,
}

thread_local! {
    static WRITTEN: OnceCell<Written> = const { OnceCell::new() };
}

fn with_written<T>(f: impl FnOnce(&Written) -> T) -> T {
    WRITTEN.with(|written| f(written.get_or_init(Written::new)))
}

impl Written {
    /// Runs on a model so small that it takes no time.
    fn new() -> Self {
        let fixture = Fixture { num_hidden_layers: 1, ..Fixture::default() };
        let checkpoint = Arc::new(Checkpoint::from_files(fixture.files()).expect("a checkpoint"));
        let subject = Subject::new("small".to_owned(), None, checkpoint, Kernel::best(), Arc::new(Team::new(1)));
        let subject = subject.expect("no tokenizer");
        let prompts = [vec![5, 9], vec![7]].map(|ids| subject.prompt_of_ids(ids).expect("ids"));
        let settings = Settings::given(3, 9.0);
        let (mut records, mut session) = (Vec::new(), Session::new(&subject, &prompts, settings.clone()));
        let restored = ladder(&mut session, &[0, 1, 0x1000_0000], keep(&mut records)).expect("trials");
        let object = json!({"command": "ladder", "schema": 1, "records": records, "restored": restored});
        let lines = |change: &dyn Fn(usize, &mut Value)| -> Vec<Value> {
            let line = |(i, record): (usize, &Record)| {
                let mut value = serde_json::to_value(record).expect("a record");
                change(i, &mut value);
                value
            };
            records.iter().enumerate().map(line).collect()
        };
        let of = |command: &'static str, family: &'static str| {
            lines(&move |i, record| {
                record["family"] = family.into();
                record["value"] = i.into();
                record["run"]["command"] = command.into();
                record["run"]["predicate"] = if command == "bisect" { "at-least DYING".into() } else { Value::Null };
                if command == "campaign" {
                    record["run"]["campaign"] = json!({"trials": 9, "half_width": 0.1, "tensor": "weight"});
                }
            })
        };
        let recipe = Recipe::new(vec![
            Step { edit: "shift:1+flip:weight[1,2].3".to_owned(), prompt: Some("x".to_owned()), note: None },
            Step { edit: "random:flips=3,seed=1".to_owned(), prompt: None, note: Some("y".to_owned()) },
        ]);
        let results = vec![
            lines(&|_, _| {}),
            vec![object],
            vec![certificates(&subject, &prompts, &settings)],
            vec![serde_json::to_value(recipe).expect("a recipe")],
            of("map", "digit:3"),
            of("campaign", "random:flips"),
            of("bisect", "flips:7"),
            of("sweep", "rate:7"),
        ];
        Self { results, layout: *subject.head().layout() }
    }

    fn check(&self, stored: &Stored, reached: &mut Reached) -> LawResult {
        let of = |which: u8| &self.results[usize::from(which) % self.results.len()];
        let a = changed(of(stored.results), stored);
        let b = bytes(of(stored.other));
        let path = Path::new("stored");
        // `report`, of both and of one.
        let sources: Vec<Source> = [&a, &b].into_iter().filter_map(|bytes| Source::parse(bytes, path).ok()).collect();
        reached.one_if(sources.len() < 2, "refused");
        // Whether a journal is one is seen when it is read: then the other is reported alone.
        let gathered = Gathered::of(sources).unwrap_or_else(|_| {
            reached.one("refused");
            // A recipe is no result.
            let alone = Source::parse(&b, path).ok().filter(|_| Recipe::parse(&b).is_err());
            Gathered::of(alone.into_iter().collect()).expect("results as they were written")
        });
        let report = Report::of(&gathered);
        shown(&terminal::report(&report, Look { color: false }))?;
        shown_in_color(&terminal::report(&report, Look { color: true }))?;
        reached.one_if(report.trials() + report.certified() > 0, "reported");
        if let Ok(page) = html(&report) {
            claim!(LAW, !page.contains('\u{1b}') && !page.contains('\u{202e}'), SHOWN, "{page:?}");
            reached.one("drawn");
        }
        claim!(LAW, serde_json::to_vec(&report).is_ok(), KEPT, "a report cannot be written");
        // `replay`.
        if let Ok(recipe) = Recipe::parse(&a) {
            recipe.edits().expect("a recipe's edits parse").iter().for_each(|edit| self.edit(edit));
            reached.one("a recipe");
        }
        // `compare`, `relabel`, `merge`.
        let (Ok(first), Ok(second)) = (journal::parse(&a, path), journal::parse(&b, path)) else {
            reached.one("refused");
            return Ok(());
        };
        let records = |finished: &journal::Finished| -> Vec<Record> {
            finished.records.iter().map(|(_, record)| record.clone()).collect()
        };
        let (mut ours, theirs) = (records(&first), records(&second));
        for (a, b) in [(&ours, &theirs), (&theirs, &ours), (&ours, &ours)] {
            let comparison = Comparison::of(a, b, 1e-3);
            shown(&comparison.text(Look { color: false }))?;
            claim!(LAW, serde_json::to_vec(&comparison).is_ok(), KEPT, "a comparison cannot be written");
            reached.one_if(comparison.compared() > 0, "compared");
        }
        for record in &mut ours {
            if let Ok(edit) = record.edit.parse() {
                self.edit(&edit);
                reached.one("an edit");
            }
            record.label();
            let text = terminal::records::heading(&record.prompt, Look { color: false });
            shown(&(text + &terminal::records::record(record, Look { color: false })))?;
            let line = serde_json::to_vec(record).expect("a record");
            let again = journal::parse(&line, path).map(|again| again.records);
            let same = again.as_ref().is_ok_and(|again| again.len() == 1 && again[0].1 == *record);
            claim!(LAW, same, KEPT, "{} became {again:?}", String::from_utf8_lossy(&line));
            reached.one("judged anew");
        }
        shown(&terminal::records::summaries(&summaries(&ours), Look { color: false }))?;
        let (mut parts, go_on) = (Parts::default(), || Ok::<_, JournalError>(()));
        let added =
            [a, b].into_iter().try_for_each(|bytes| parts.add(record::Stored::of_bytes(path, bytes), go_on).map(drop));
        if added.is_ok() && parts.check(go_on).is_ok() {
            let joined = parts.records().and_then(Iterator::collect::<Result<Vec<_>, _>>);
            claim!(LAW, joined.is_ok(), KEPT, "what was checked cannot be joined: {joined:?}");
            parts.missing(None);
            reached.one_if(!parts.is_empty(), "joined");
        }
        Ok(())
    }

    /// What `replay` does with an edit before it runs it.
    fn edit(&self, edit: &Edit) {
        if edit.check(&self.layout).is_ok() {
            edit.expand(&self.layout).expect("what was checked can be drawn");
        }
    }
}

/// The certificate of two answers, with everything that can be asked for.
fn certificates(subject: &Subject, prompts: &[crate::subject::Prompt], settings: &Settings) -> Value {
    let certifier = Certifier::new(subject).expect("the CPU");
    let options = Options { max_tokens: 3, within: Some(Within::Word), silence_eos: true, toward: Some(5), weakest: 2 };
    let answers: Vec<_> =
        prompts.iter().map(|prompt| certifier.answer(prompt, &options, &mut |_| Ok(())).expect("an answer")).collect();
    let suite = Suite::of(&answers, |row| Ok::<_, ()>(row.to_string())).expect("texts");
    let search = CollapseOptions { flips: 4, trials: 2, seed: 0 };
    let collapse = collapse(subject, prompts, settings, &search, &mut |_| Ok(())).expect("a search");
    let certificates = Certificates {
        model: "small".to_owned(),
        revision: None,
        head_digest: subject.head_digest(),
        kernel: "scalar".to_owned(),
        answers,
        left_out: 0,
        suite,
        refused: Vec::new(),
        collapse: Some(collapse),
    };
    let mut object = serde_json::to_value(certificates).expect("an object");
    object["command"] = "certify".into();
    object["schema"] = 1.into();
    object
}

/// That a text has nothing in it that a terminal acts upon.
fn shown(text: &str) -> LawResult {
    let acts =
        |c: char| c != '\n' && (c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'));
    claim!(LAW, !text.contains(acts), SHOWN, "{text:?}");
    claim!(LAW, !text.lines().any(|line| line.starts_with("headroom: ")), SHOWN, "a forged line in {text}");
    Ok(())
}

/// As [`shown`], once the one place that all text passes has seen it.
fn shown_in_color(text: &str) -> LawResult {
    let passed = terminal::harmless(text, Look { color: true });
    let left: Vec<&str> = passed.split('\u{1b}').skip(1).collect();
    let color =
        |s: &&str| s.starts_with('[') && s[1..].trim_start_matches(|c: char| c.is_ascii_digit()).starts_with('m');
    claim!(LAW, left.iter().all(color), SHOWN, "{passed:?}");
    Ok(())
}

fn bytes(values: &[Value]) -> Vec<u8> {
    values.iter().flat_map(|value| format!("{value}\n").into_bytes()).collect()
}

fn changed(values: &[Value], stored: &Stored) -> Vec<u8> {
    let mut values = values.to_vec();
    for &(place, what) in stored.changes.iter().take(64) {
        let count: usize = values.iter().map(places).sum();
        let mut left = usize::from(place) % count.max(1);
        for value in &mut values {
            if change(value, &mut left, what) {
                break;
            }
        }
    }
    let mut bytes = bytes(&values);
    bytes.truncate(bytes.len() - usize::from(stored.cut) % (bytes.len() + 1));
    let length = bytes.len();
    for &(at, byte) in stored.written.iter().filter(|_| length > 0) {
        bytes[usize::from(at) % length] = byte;
    }
    bytes
}

/// Values within a value, itself among them.
fn places(value: &Value) -> usize {
    1 + match value {
        Value::Array(list) => list.iter().map(places).sum(),
        Value::Object(object) => object.values().map(places).sum::<usize>(),
        _ => 0,
    }
}

/// Changes the value that `left` others come before; gives whether it is within this one.
fn change(value: &mut Value, left: &mut usize, what: u8) -> bool {
    if *left == 0 {
        become_another(value, what);
        return true;
    }
    *left -= 1;
    match value {
        Value::Array(list) => list.iter_mut().any(|value| change(value, left, what)),
        Value::Object(object) => object.values_mut().any(|value| change(value, left, what)),
        _ => false,
    }
}

fn become_another(value: &mut Value, what: u8) {
    *value = match what % 32 {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(0),
        3 => json!(-1),
        4 => json!(1),
        5 => json!(u64::MAX),
        6 => json!(i64::MIN),
        7 => json!(i64::MAX),
        8 => json!(u32::MAX),
        9 => json!(1e308),
        10 => json!(-1e308),
        11 => json!(5e-324),
        12 => json!(0.5),
        13 => json!(1e15),
        14 => json!(""),
        15 => json!(HOSTILE),
        16 => json!("é".repeat(32)),
        17 => json!("漢".repeat(5_000)),
        18 => json!([]),
        19 => json!({}),
        20 => json!(vec![0; 300]),
        21 => json!("HEALTHY"),
        22 => json!("nonfinite"),
        23 => json!("random:flips=4000000000,seed=1"),
        24 => json!("shift:1+shift:1+flip:scales[0,0].15"),
        25 => json!("digit:7"),
        26 => json!("campaign"),
        27 => match value.take() {
            Value::Array(list) => Value::Array(list.iter().chain(&list).chain(&list).cloned().collect()),
            Value::String(text) => Value::String(text.chars().rev().collect()),
            other => Value::Array(vec![other]),
        },
        28 => match value.take() {
            Value::Array(list) => Value::Array(list.into_iter().skip(1).collect()),
            Value::Object(object) => Value::Object(object.into_iter().skip(1).collect()),
            Value::Number(number) => json!(number.as_f64().map(|number| -number)),
            other => other,
        },
        29 => match value.take() {
            Value::Number(number) => json!(number.as_u64().map(|number| number.wrapping_add(1))),
            Value::Object(mut object) => {
                object.insert(HOSTILE.to_owned(), json!(1));
                Value::Object(object)
            }
            other => other,
        },
        30 => json!("probe"),
        _ => json!(1e-9),
    };
}
