//! The model that ships inside: it answers what it was not taught, mlx-lm agrees with every token, and it breaks
//! by degrees and comes back.

#![expect(clippy::print_stdout, reason = "a test says what it found")]

use std::collections::BTreeMap;

use lm_headroom::{
    coherence::{Finish, Verdict},
    model::Projection,
    search::{Session, Settings, calibrate, keep, ladder},
    seed,
    subject::{Prompt, Subject},
    testing::model::answers,
    trial::{Trajectory, Trial},
};
use serde_json::Value;

const SUITE: &str = include_str!("../models/demo/suite.jsonl");
const HELD_OUT: &str = include_str!("../models/demo/heldout.jsonl");
const REFERENCE: &str = include_str!("../models/demo/reference.jsonl");

fn demo() -> Subject {
    Subject::open("demo").expect("the model inside")
}

fn lines(text: &str) -> impl Iterator<Item = Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON"))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().expect(key)
}

fn suite(model: &Subject) -> Vec<Prompt> {
    let prompt = |line: Value| {
        let expected: Vec<String> = serde_json::from_value(line["expected"].clone()).expect("expected answers");
        model.prompt(text(&line, "prompt")).expect("ids").expecting(expected)
    };
    lines(SUITE).map(prompt).collect()
}

/// Clean answers and trials of `shifts` on `prompts`.
fn run(model: &Subject, prompts: &[Vec<u32>], shifts: &[i64], max_tokens: usize) -> (Vec<Trajectory>, Vec<Trial>) {
    let edit = |&shift: &i64| lm_headroom::edit::Edit::shift(shift).plan(&model.head().view()).expect("a plan");
    let plans: Vec<_> = shifts.iter().map(edit).collect();
    answers(model, prompts, &plans, max_tokens).expect("trials")
}

#[test]
fn at_least_95_percent_of_held_out_questions_of_each_kind_are_answered_exactly() {
    let model = demo();
    let questions: Vec<Value> = lines(HELD_OUT).collect();
    let ids: Vec<Vec<u32>> =
        questions.iter().map(|question| model.prompt(text(question, "prompt")).expect("ids").ids).collect();
    let (clean, _) = run(&model, &ids, &[], 40);
    let mut kinds: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (question, answer) in questions.iter().zip(&clean) {
        let (exact, all) = kinds.entry(text(question, "kind")).or_default();
        let right =
            answer.finish == Finish::Stop && model.decode(&answer.tokens).expect("text") == text(question, "answer");
        *exact += usize::from(right);
        *all += 1;
    }
    println!("{kinds:?}");
    assert!(kinds.len() >= 8, "{kinds:?}");
    for (kind, (exact, all)) in kinds {
        assert!(all >= 20 && exact * 100 >= all * 95, "{kind}: {exact} of {all}");
    }
}

#[test]
fn every_prompt_of_the_suite_is_answered_as_expected() {
    let model = demo();
    let prompts = suite(&model);
    assert!(prompts.len() >= 32 && prompts[0].text == seed::PROMPT);
    let ids: Vec<Vec<u32>> = prompts.iter().map(|prompt| prompt.ids.clone()).collect();
    let (clean, _) = run(&model, &ids, &[], 24);
    for (prompt, answer) in prompts.iter().zip(&clean) {
        let text = model.decode(&answer.tokens).expect("text");
        let right = lm_headroom::coherence::right(&text, &prompt.expected);
        assert!(right == Some(true) && answer.finish == Finish::Stop, "{:?}: {text:?}", prompt.text);
    }
}

#[test]
fn mlx_lm_chooses_the_same_tokens_but_for_near_ties() {
    let model = demo();
    let references: Vec<Value> = lines(REFERENCE).collect();
    let (mut same, mut ties) = (0, 0);
    for reference in &references {
        let ids: Vec<u32> = serde_json::from_value(reference["prompt_ids"].clone()).expect("ids");
        let prompt = model.prompt(text(reference, "prompt")).expect("ids");
        assert_eq!(prompt.ids, ids, "{}", prompt.text);
        let shift = reference["shift"].as_i64().expect("a shift");
        let (_, trials) = run(&model, &[ids], &[shift], 24);
        let tokens: Vec<u32> = serde_json::from_value(reference["tokens"].clone()).expect("tokens");
        let top: Vec<Vec<(u32, f64)>> = serde_json::from_value(reference["top5"].clone()).expect("logits");
        let ours = &trials[0].trajectory;
        let differs = (0..top.len()).find(|&step| ours.tokens.get(step) != tokens.get(step));
        match differs {
            None => {
                assert_eq!(ours.finish == Finish::Stop, reference["finish"] == "stop");
                same += 1;
            }
            Some(step) => {
                let margin = top[step][0].1 - top[step][1].1;
                assert!(margin < 1e-3, "{} under {shift}, step {step}: margin {margin}", prompt.text);
                ties += 1;
            }
        }
        let words: Vec<u32> = serde_json::from_value(reference["first_words"].clone()).expect("words");
        let plan = lm_headroom::edit::Edit::shift(shift).plan(&model.head().view()).expect("a plan");
        assert_eq!(plan.first_words(&model.head().view(), 5), words);
    }
    println!("{same} trajectories equal, {ties} part at a near tie");
    assert!(same + ties == references.len() && same >= references.len() * 9 / 10);
}

#[test]
fn shifts_break_it_by_degrees_and_restoring_brings_the_clean_answers_back() {
    let model = demo();
    let prompts = suite(&model);
    let (ids, _) = calibrate::prompts(&model, &[], &Default::default(), &prompts).expect("prompts");
    let calibration = calibrate::calibrate(&model, &ids, 16, |_| Ok(())).expect("a threshold");
    println!("{calibration:?}");
    assert!(calibration.false_alarms * 20 <= calibration.held_out, "{calibration:?}");
    let settings = Settings::calibrated(calibration, 16);
    // The ten shifts of the ladder, and every single hexadecimal digit.
    let digits = (0..8).flat_map(|digit| (1..16).map(move |value: i64| value << (4 * digit)));
    let shifts: Vec<i64> = seed::SHIFTS.into_iter().chain(digits).collect();
    let mut verdicts: BTreeMap<(bool, Verdict), usize> = BTreeMap::new();
    let mut session = Session::new(&model, &prompts, settings);
    let mut records = Vec::new();
    let restored = ladder(&mut session, &shifts, keep(&mut records)).expect("a ladder");
    for record in &records {
        let documented = seed::SHIFTS.contains(&record.shift.expect("a shift"));
        *verdicts.entry((documented, record.verdict)).or_default() += 1;
    }
    println!("{verdicts:?}");
    for documented in [true, false] {
        let kinds = verdicts.keys().filter(|(seed, _)| *seed == documented).count();
        assert!(kinds >= 4, "{kinds} verdicts: {verdicts:?}");
    }
    assert!(restored.identical && restored.same_as_clean);
    assert_eq!(restored.text, "2 + 2 is 4.");
    // The clean model is healthy, and every one of its answers right.
    let clean = records.iter().filter(|record| record.shift == Some(0));
    assert!(clean.clone().count() == prompts.len());
    for record in clean {
        assert_eq!((record.verdict, record.kl_mean, record.agreement), (Verdict::Healthy, Some(0.0), Some(1.0)));
    }
}

#[test]
fn the_checkpoint_is_small_and_its_head_untied() {
    let model = demo();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/models/demo");
    let mut bytes = 0;
    let mut folders = vec![std::path::PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let entry = entry.expect("an entry");
            let meta = entry.metadata().expect("metadata");
            if meta.is_dir() { folders.push(entry.path()) } else { bytes += meta.len() }
        }
    }
    assert!(bytes < 4 << 20, "{bytes} bytes");
    assert!(!model.checkpoint().facts().tied);
    let layout = model.head().layout();
    assert_eq!((layout.bits(), layout.group_size()), (4, 64));
    assert_eq!(model.projection(model.head().view()).vocab_size(), model.checkpoint().facts().vocab_size);
}
