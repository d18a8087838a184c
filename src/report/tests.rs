use std::path::Path;

use serde_json::Value as Json;

use super::*;
use crate::{
    coherence::{Finish, Tag},
    edit::Value,
    record::{Calibration, CampaignFacts},
    report::terminal::Look,
    testing::records::record,
};

const HOSTILE: &str = "</script></title><img src=x onerror=alert(1)>\u{202e}\u{1b}[31m\"'&{{ 7 * 7 }}{% raw %}";

/// A trial of a run with this command.
fn trial(command: &str, trial: usize) -> Record {
    let mut record = Record { trial, ..record() };
    record.run.command = command.to_owned();
    record.run.id = format!("run of {command}");
    record
}

fn shifted(command: &str, number: usize, shift: i64, verdict: Verdict, kl_mean: Option<f64>) -> Record {
    Record {
        shift: Some(shift),
        edit: format!("shift:{shift}"),
        family: Some("shift".to_owned()),
        value: Some(Value::Integer(shift)),
        verdict,
        kl_mean,
        ..trial(command, number)
    }
}

/// One run of each kind.
fn runs() -> Vec<Record> {
    use Verdict::{Dead, Gone, Healthy, Wobbling};
    let mut records = Vec::new();
    let shifts = [
        (0, Healthy, 0.0),
        (1, Wobbling, 0.2),
        (1_000_000, Dead, 9.0),
        (1_000_001, Gone, 12.0),
        (1_000_003, Gone, 15.0),
    ];
    for (i, (shift, verdict, kl)) in shifts.into_iter().enumerate() {
        let mut rung = shifted("ladder", i, shift, verdict, Some(kl));
        rung.documented = Some(Healthy);
        rung.run.trials = Some(6);
        rung.run.calibration = Some(Calibration {
            threshold: 9.0,
            ordinary: 1.0,
            temperature: 1.0,
            max_tokens: 2,
            samples: 256,
            prompts: 32,
            held_out: 128,
            false_alarms: 3,
            seed: 0,
        });
        records.push(rung);
    }
    for (i, shift) in [-9, -8, 0, 7, 8].into_iter().enumerate() {
        let holds = (-8..8).contains(&shift);
        let mut point = shifted("bisect", i, shift, if holds { Healthy } else { Gone }, (!holds).then_some(2.5));
        point.run.predicate = Some("at-least WOBBLING".to_owned());
        records.push(point);
    }
    for cell in 0..128 {
        let (digit, value) = (cell / 16, cell % 16);
        let mut cell =
            shifted("map", cell, (value as i64) << (4 * digit), Wobbling, Some(0.01 * (cell * value) as f64));
        (cell.family, cell.value) = (Some(format!("digit:{digit}")), Some(Value::Integer(value as i64)));
        records.push(cell);
    }
    for i in 0..20 {
        let mut draw = trial("campaign", i);
        let flips = [1, 100][i % 2];
        (draw.shift, draw.edit) = (None, format!("flip:weight[1,{i}].3"));
        (draw.family, draw.value) = (Some("random:flips".to_owned()), Some(Value::Integer(flips)));
        if i != 7 {
            draw.tokens.clone_from(&draw.clean.tokens);
        }
        draw.run.campaign = Some(CampaignFacts { trials: 10, half_width: None, tensor: "weight".to_owned() });
        records.push(draw);
    }
    for i in 0..4 {
        let mut probe = trial("probe", i);
        (probe.shift, probe.edit) = (None, format!("flip:scales[{},0].14", i % 2));
        probe.prompt_ids.push(i as u32 / 2);
        (probe.finish, probe.kl_mean, probe.surprise) = (Finish::Nonfinite, None, Vec::new());
        (probe.tags, probe.expected) = (vec![Tag::Nonfinite], Some(crate::record::Expected::Wrong));
        records.push(probe);
    }
    records
}

fn journal(records: &[Record]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for record in records {
        serde_json::to_writer(&mut bytes, record).expect("a record");
        bytes.push(b'\n');
    }
    bytes
}

fn source(name: &str, bytes: &[u8]) -> Source {
    Source::parse(bytes, Path::new(name)).expect("a journal")
}

fn read(sources: Vec<Source>) -> Gathered {
    Gathered::of(sources).expect("journals")
}

fn page(sources: Vec<Source>) -> String {
    html(&Report::of(&read(sources))).expect("a page")
}

fn plain(sources: Vec<Source>) -> String {
    terminal::report(&Report::of(&read(sources)), Look { color: false })
}

/// Fails unless every element is closed where it was opened and every attribute is quoted: what HTML forgives and XML
/// does not.
#[track_caller]
fn assert_well_formed(page: &str) {
    let mut open: Vec<&str> = Vec::new();
    let style = page.find("<style>").expect("a style")..page.find("</style>").expect("its end");
    let rest = page.strip_prefix("<!DOCTYPE html>").expect("a page").replace(&page[style.start..style.end], "<style>");
    for part in rest.split('<').skip(1) {
        let (tag, text) = part.split_once('>').unwrap_or_else(|| panic!("a tag has no end: <{part}"));
        assert!(!text.contains('>'), "text with markup in it: {text:?}");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "before {text:?}");
            continue;
        }
        let name = tag.split([' ', '/']).next().unwrap_or_default();
        let attributes = tag[name.len()..].trim_end_matches('/').trim();
        // In pieces that alternate: what is outside of quotation marks, what is inside.
        let outside: Vec<&str> = attributes.split('"').step_by(2).collect();
        assert_eq!(attributes.matches('"').count() % 2, 0, "<{tag}>");
        for attribute in outside {
            let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-= BV".contains(c);
            assert!(attribute.chars().all(known), "<{tag}>");
        }
        if !tag.ends_with('/') && name != "meta" {
            open.push(name);
        }
    }
    assert_eq!(open, Vec::<&str>::new());
}

#[test]
fn a_page_has_a_section_for_each_run_and_is_well_formed() {
    let page = page(vec![source("all.jsonl", &journal(&runs()))]);
    assert_well_formed(&page);
    for expected in [
        ">ladder</bdi></h3>",
        ">bisect shift</bdi></h3>",
        ">map</bdi></h3>",
        ">campaign</bdi></h3>",
        ">probe</bdi></h3>",
        "5 of 6 trials are there",
        "Llama-3-8B-Instruct",
        "a false alarm rate of 2.3 %",
        "The same from 1,000,000 to 1,000,003",
        "it changes 2 times between them",
        "each change is <em>a</em> crossing",
        "The hexadecimal map",
        "digit 7, value F, shift 4,026,531,840",
        "1 of 10 answers changed, 10 %",
        "NONFINITE",
        "not finite",
    ] {
        assert!(page.contains(expected), "{expected}");
    }
    assert!(
        !page.contains("threshold of the family") && !page.contains("the threshold is"),
        "one crossing is not the threshold"
    );
}

#[test]
fn a_page_asks_for_nothing_from_anywhere() {
    let page = page(vec![source("all.jsonl", &journal(&runs()))]);
    for foreign in ["<script", "<link", "<img", "<iframe", "src=", "@import", "url(", "https:"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    // The name of SVG, which nobody fetches.
    assert_eq!(page.matches("http:").count(), page.matches("xmlns=\"http://www.w3.org/2000/svg\"").count());
}

/// Every text of a record, replaced.
fn poison(value: &mut Json, key: &str) {
    // What has a fixed set of values, and what chooses the section.
    const FIXED: [&str; 9] =
        ["finish", "verdict", "tags", "tied", "expected", "documented", "command", "family", "predicate"];
    match value {
        Json::String(text) if !FIXED.contains(&key) => *text = HOSTILE.to_owned(),
        Json::Array(items) => items.iter_mut().for_each(|item| poison(item, key)),
        Json::Object(fields) => fields.iter_mut().for_each(|(key, value)| poison(value, key)),
        _ => {}
    }
}

#[test]
fn no_text_of_a_record_gets_out_of_its_place() {
    let mut hostile = Vec::new();
    for record in runs() {
        let mut value = serde_json::to_value(&record).expect("a record");
        poison(&mut value, "");
        let mut record: Record = serde_json::from_value(value).expect("a record");
        // These make one section each.
        record.run.id.clone_from(&record.run.command);
        if record.run.command == "probe" {
            (record.run.command, record.family, record.value) =
                (HOSTILE.to_owned(), Some(HOSTILE.to_owned()), Some(Value::Integer(record.trial as i64)));
        }
        hostile.push(record);
    }
    let page = page(vec![source(HOSTILE, &journal(&hostile))]);
    assert_well_formed(&page);
    for live in ["<img", "</script", "\u{202e}", "\u{1b}", "49"] {
        let found = page.find(live).map(|at| &page[at.saturating_sub(200)..at]);
        // 7 * 7 was not computed; the number itself stands in a table or a plot.
        assert!(found.is_none() || live == "49", "{live:?} after {found:?}");
    }
    assert!(page.contains("{{ 7 * 7 }}"));
    let text = plain(vec![source(HOSTILE, &journal(&hostile))]);
    assert!(!text.contains(['\u{202e}', '\u{1b}']), "{text}");
}

#[test]
fn a_journal_that_was_cut_is_reported_as_far_as_it_goes_and_says_so() {
    let whole = journal(&runs()[..4]);
    let third = whole.split_inclusive(|&byte| byte == b'\n').take(3).map(<[u8]>::len).sum::<usize>();
    for cut in [third + 1, third + 400, whole.len() - 2] {
        let gathered = read(vec![source("a.jsonl", &whole[..cut])]);
        assert_eq!(gathered.runs[0].finished.len(), 3);
        let [note] = &gathered.notes[..] else { panic!("{:?}", gathered.notes) };
        assert!(note.contains("a.jsonl ends in the middle of a record") && note.contains("the 3 trials"), "{note}");
        assert!(page(vec![source("a.jsonl", &whole[..cut])]).contains("ends in the middle of a record"));
    }
    // Only the newline is missing: nothing was lost.
    let gathered = read(vec![source("a.jsonl", &whole[..whole.len() - 1])]);
    assert_eq!((gathered.runs[0].finished.len(), gathered.notes.len()), (4, 0));
}

#[test]
fn what_is_malformed_elsewhere_is_an_error_with_its_line() {
    let whole = String::from_utf8(journal(&runs()[..3])).expect("JSON");
    let error = |text: &str| {
        let source = Source::parse(text.as_bytes(), Path::new("a.jsonl"));
        source.and_then(|source| Gathered::of(vec![source])).expect_err("no journal").to_string()
    };
    assert!(error(&whole.replacen("\"verdict\":\"WOBBLING\"", "\"verdict\":\"FINE\"", 1)).contains("a.jsonl, line 2"));
    assert!(error("{\"schema\":1}\n").contains("a.jsonl, line 1"));
    assert!(error("no JSON\n").contains("a.jsonl, line 1"));
    assert!(error(&whole.replace("\"schema\":1", "\"schema\":2")).contains("schema 2"));
    assert!(error("{\"command\":\"ladder\",\"schema\":7,\"records\":[]}").contains("schema 7"));
    assert!(error("{\"command\":\"ladder\",\"records\":[{}]}").contains("a result of ladder"));
    assert!(error("{\"command\":\"map\",\"cells\":[]}").contains("--out"));
    assert!(error("{\"command\":\"certify\",\"answers\":3}").contains("a result of certify"));
}

#[test]
fn an_object_counts_as_its_records_on_one_line_or_on_several() {
    let records = &runs()[..4];
    let restored = serde_json::json!({
        "head_digest_before": "ab".repeat(32), "head_digest_after": "ab".repeat(32), "identical": true,
        "text": "four", "same_as_clean": true,
    });
    let object = serde_json::json!({"command": "ladder", "schema": 1, "records": records, "restored": restored});
    for text in [object.to_string(), serde_json::to_string_pretty(&object).expect("JSON")] {
        let page = page(vec![source("a.json", text.as_bytes())]);
        assert!(page.contains("<b>Restored bit-identical.</b>") && page.contains("abababababababab</bdi>"), "{page}");
        let text = plain(vec![source("a.json", text.as_bytes())]);
        assert!(text.contains("bit-identical") && text.contains("as the clean model does"), "{text}");
    }
}

#[test]
fn parts_of_a_run_are_one_section_and_a_trial_that_is_there_twice_counts_once() {
    let records = runs();
    let (ladder, rest) = records.split_at(5);
    let files = vec![source("b.jsonl", &journal(&ladder[2..])), source("a.jsonl", &journal(&ladder[..3]))];
    let gathered = read(files);
    let report = Report::of(&gathered);
    let [run] = &report.models[0].runs[..] else { panic!("{:?}", report.models[0].runs.len()) };
    assert_eq!(
        (run.finished, run.files, run.is_partial()),
        (5, &["b.jsonl".to_owned(), "a.jsonl".to_owned()][..], true)
    );
    assert!(
        gathered.notes[0].contains("again 1 times") && gathered.notes[0].contains("count once"),
        "{:?}",
        gathered.notes
    );
    // Another result of the same trial is not passed over in silence.
    let mut other = ladder[0].clone();
    other.text.push('!');
    let gathered = read(vec![source("a.jsonl", &journal(ladder)), source("c.jsonl", &journal(&[other]))]);
    assert!(gathered.notes[0].contains("NOT always with the same result"), "{:?}", gathered.notes);
    // Runs and models stay apart.
    let mut stranger = rest[0].clone();
    (stranger.model, stranger.head_digest) = ("another".to_owned(), "22".repeat(32));
    let gathered = read(vec![source("a.jsonl", &journal(&records)), source("d.jsonl", &journal(&[stranger]))]);
    let report = Report::of(&gathered);
    let commands: Vec<Vec<&str>> =
        report.models.iter().map(|model| model.runs.iter().map(|run| run.command).collect()).collect();
    assert_eq!(commands, [vec!["ladder", "bisect", "map", "campaign", "probe"], vec!["bisect"]]);
}

#[test]
fn nothing_is_a_report_too() {
    let gathered = read(vec![source("empty.jsonl", b"")]);
    let report = Report::of(&gathered);
    assert_eq!((report.trials(), report.certified(), report.models.len()), (0, 0, 0));
    assert_well_formed(&html(&report).expect("a page"));
    assert_eq!(terminal::report(&report, Look { color: false }), "");
}

#[test]
fn a_run_too_large_for_a_page_says_what_it_leaves_out() {
    let records: Vec<Record> =
        (0..5000).map(|i| shifted("sweep", i, i as i64 * 1000, Verdict::Wobbling, Some(0.5))).collect();
    let page = page(vec![source("a.jsonl", &journal(&records))]);
    assert!(page.contains("4,000 further trials of this prompt"), "{}", page.len());
    assert!(page.contains("Of very many values 4,096 are drawn, chosen evenly; 904 trials are of the others."));
    assert!(page.len() < 6 << 20, "{}", page.len());
}
