//! Long runs: what is finished is kept, whatever ends the run, and a run that is resumed gives what one would have.

use std::{fs, path::Path, process::Stdio, thread::sleep, time::Duration};

use lm_headroom::testing::fixture::Fixture;
use serde_json::Value;
use tempfile::TempDir;

use super::{Object, folder, path, program, records, run, without};

/// A model in a folder, and a place for journals.
fn model() -> (TempDir, TempDir) {
    (folder(&Fixture::default().files()), TempDir::new().expect("a folder"))
}

/// A small run: four edits on two prompts.
fn args<'a>(model: &'a TempDir, journal: &'a str) -> Vec<&'a str> {
    let edits = ["probe", "clean", "shift:7", "random:flips=3,seed=2", "flip:scales[2,1].14"];
    let rest = ["--model", path(model), "--prompt-ids", "5,9,3", "--max-tokens", "4", "--threshold", "9"];
    [&edits[..], &rest, &["--format", "jsonl", "--out", journal]].concat()
}

/// Records by trial, without what may differ from run to run.
fn sorted(lines: &str) -> Vec<Object> {
    let mut records: Vec<Object> = records(lines).iter().map(|record| without(record, &[])).collect();
    records.sort_by_key(|record| record["trial"].as_u64());
    records
}

fn file(folder: &TempDir, name: &str) -> String {
    folder.path().join(name).to_str().expect("Unicode").to_owned()
}

#[test]
fn a_journal_cut_at_any_place_resumes_to_the_same_result_and_loses_no_finished_trial() {
    let (model, place) = model();
    let journal = file(&place, "run.jsonl");
    let whole = run(&args(&model, &journal)).exits(0);
    let bytes = fs::read(&journal).expect("a journal");
    assert_eq!(whole.stdout.as_bytes(), bytes, "stdout and the journal say the same");
    let expected = sorted(&whole.stdout);
    // Around every end of a line, and at places within. (Law 10 in `tests/laws.rs` cuts at every byte.)
    let ends = bytes.iter().enumerate().filter(|&(_, &byte)| byte == b'\n').map(|(i, _)| i);
    let cuts: Vec<usize> = ends.flat_map(|end| [end - 400, end - 1, end, end + 1]).chain([0, 1, 77]).collect();
    for cut in cuts {
        fs::write(&journal, &bytes[..cut]).expect("a file");
        let finished = bytes[..cut].iter().filter(|&&byte| byte == b'\n').count();
        let resumed = run(&[args(&model, &journal), vec!["--resume"]].concat()).exits(0);
        assert_eq!(sorted(&resumed.stdout), expected, "cut at {cut}");
        let after = fs::read(&journal).expect("a journal");
        assert_eq!(sorted(std::str::from_utf8(&after).expect("text")), expected, "cut at {cut}");
        // What was finished is there as it was, times and all.
        let kept: usize = bytes[..cut].split_inclusive(|&byte| byte == b'\n').take(finished).map(<[u8]>::len).sum();
        assert_eq!(after[..kept], bytes[..kept], "cut at {cut}");
    }
}

#[test]
fn a_killed_run_resumes_to_the_same_result() {
    let (model, place) = model();
    let (killed, whole) = (file(&place, "killed.jsonl"), file(&place, "whole.jsonl"));
    let long = |journal| -> Vec<String> {
        let shifts = (0..3000).map(|shift: i32| (shift * 40_503).to_string()).collect::<Vec<_>>().join(",");
        let args =
            ["ladder", "--shifts", &shifts, "--model", path(&model), "--prompt-ids", "5,9,3", "--max-tokens", "6"];
        args.iter().chain(&["--threshold", "9", "--out", journal]).map(|&arg| arg.to_owned()).collect()
    };
    let expected = long(&whole);
    run(&expected.iter().map(String::as_str).collect::<Vec<_>>()).exits(0);
    let args = long(&killed);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut unfinished = 0;
    for millis in [30, 60, 90, 120] {
        let resume = if Path::new(&killed).exists() { &["--resume"][..] } else { &[] };
        let mut child = program(&[&args[..], resume].concat())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program");
        sleep(Duration::from_millis(millis));
        drop(child.kill());
        child.wait().expect("an end");
        let lines = fs::read(&killed).map_or(0, |bytes| bytes.iter().filter(|&&byte| byte == b'\n').count());
        unfinished += usize::from(lines < 3000);
    }
    assert!(unfinished > 0, "a kill that ends a run before its end");
    let resumed = run(&[&args[..], &["--resume", "--format", "jsonl"]].concat()).exits(0);
    let whole = fs::read_to_string(&whole).expect("a journal");
    assert_eq!(sorted(&resumed.stdout), sorted(&whole));
    assert_eq!(sorted(&fs::read_to_string(&killed).expect("a journal")), sorted(&whole));
}

#[test]
fn shards_are_disjoint_and_merge_to_the_whole_run() {
    let (model, place) = model();
    let whole = run(&args(&model, &file(&place, "whole.jsonl"))).exits(0);
    let shards: Vec<String> = (1..=3).map(|i| file(&place, &format!("{i}.jsonl"))).collect();
    let mut count = 0;
    for (i, shard) in shards.iter().enumerate() {
        let part = format!("{}/3", i + 1);
        count += run(&[args(&model, shard), vec!["--shard", &part]].concat()).exits(0).records().len();
    }
    let merged = file(&place, "merged.jsonl");
    let order = [shards[2].as_str(), &shards[0], &shards[1]];
    let run = run(&[&["merge"], &order[..]].concat()).exits(0);
    assert_eq!((count, run.stderr.as_str()), (4, ""));
    // With an output the records are in it, and stdout has what they add up to.
    let to_file = super::run(&[&["merge"], &order[..], &["--out", &merged]].concat()).exits(0);
    assert_eq!(run.stdout, fs::read_to_string(&merged).expect("a file"));
    assert!(to_file.stdout.starts_with("4 trials: HEALTHY ") && !to_file.stdout.contains('{'), "{}", to_file.stdout);
    let json = super::run(&[&["merge"], &order[..], &["--out", &merged, "--format", "json"]].concat()).exits(0).json();
    assert_eq!((&json["command"], &json["trials"], &json["missing"]), (&"merge".into(), &4.into(), &0.into()));
    assert!(json["records"].is_null() && json["summary"].as_array().expect("a list").len() == 4, "{json}");
    let in_order: Vec<Object> = records(&run.stdout).iter().map(|record| without(record, &[])).collect();
    assert_eq!(in_order, sorted(&whole.stdout));
    // Counted from 0, shards are disjoint, too.
    let zero = super::run(&[args(&model, &file(&place, "0.jsonl")), vec!["--shard", "0/3"]].concat()).exits(0);
    assert_eq!(sorted(&zero.stdout), sorted(&fs::read_to_string(&shards[2]).expect("a file")));
    // A part that is missing is said.
    let part = super::run(&["merge", &shards[0]]).exits(1);
    assert!(part.stderr.contains("3 trials of the run are in none"), "{}", part.stderr);
}

#[test]
fn a_journal_of_something_else_is_refused_and_left_as_it_is() {
    let (model, place) = model();
    let journal = file(&place, "run.jsonl");
    run(&args(&model, &journal)).exits(0);
    let before = fs::read(&journal).expect("a journal");
    let other = folder(&Fixture { seed: 9, ..Fixture::default() }.files());
    let replaced = |from: &str, to: &str| -> Vec<String> {
        args(&model, &journal).iter().map(|&arg| if arg == from { to.to_owned() } else { arg.to_owned() }).collect()
    };
    let shard = |mut args: Vec<String>| {
        args.extend(["--shard".to_owned(), "1/2".to_owned()]);
        args
    };
    for (args, said) in [
        (replaced(path(&model), path(&other)), "model's digest"),
        (replaced("5,9,3", "5,9"), "prompt"),
        (replaced("4", "5"), "--max-tokens"),
        (replaced("9", "8"), "threshold"),
        (replaced("shift:7", "shift:8"), "list of edits"),
        (
            replaced("probe", "ladder").into_iter().filter(|arg| !arg.contains(':') && arg != "clean").collect(),
            "command",
        ),
        (shard(replaced("", "")), "does not belong to shard 1/2"),
    ] {
        let args: Vec<&str> = args.iter().map(String::as_str).chain(["--resume"]).collect();
        let refused = run(&args).exits(2);
        assert!(refused.stderr.contains(said) && refused.stderr.contains("line 1"), "{said}: {}", refused.stderr);
        assert_eq!(fs::read(&journal).expect("a journal"), before, "{said}");
    }
    // Of another version, and broken in the middle.
    let text = String::from_utf8(before).expect("text");
    for (broken, said) in [
        (text.replacen("\"schema\":1", "\"schema\":2", 1), "line 1: a record of schema 2"),
        (text.replacen("\"verdict\":\"", "\"verdict\":\"X", 1), "line 1: not a record"),
        (text.replacen('}', "", 1), "line 1: not a record"),
        (text.replacen("\n", "\nxyz\n", 1), "line 2: not a record"),
        (text.replacen("\"trial\":1,", "\"trial\":0,", 1), "trial 0 is there already, with another result"),
    ] {
        fs::write(&journal, &broken).expect("a file");
        let refused = run(&[args(&model, &journal), vec!["--resume"]].concat()).exits(2);
        assert!(refused.stderr.contains(said), "{said}: {}", refused.stderr);
        assert_eq!(fs::read_to_string(&journal).expect("a journal"), broken, "{said}");
    }
}

#[test]
fn a_journal_that_is_being_written_is_refused() {
    let (model, place) = model();
    let journal = file(&place, "run.jsonl");
    let held = fs::File::create(&journal).expect("a file");
    held.try_lock().expect("a lock");
    let refused = run(&args(&model, &journal)).exits(2);
    assert!(refused.stderr.contains("is being written by another run"), "{}", refused.stderr);
}

#[test]
fn without_resume_what_an_earlier_run_left_is_kept_beside_it() {
    let (model, place) = model();
    let journal = file(&place, "run.jsonl");
    run(&args(&model, &journal)).exits(0);
    // As a run leaves it that was killed within its first record, too.
    for left in [usize::MAX, 40] {
        let earlier = fs::read(&journal).expect("a journal");
        let earlier = &earlier[..left.min(earlier.len())];
        fs::write(&journal, earlier).expect("a file");
        let again = run(&args(&model, &journal)).exits(0);
        assert_eq!(fs::read(format!("{journal}.old")).expect("a file"), earlier);
        assert!(again.stderr.contains(".old"), "{}", again.stderr);
        assert_eq!(records(&fs::read_to_string(&journal).expect("a file")).len(), 4);
        fs::remove_file(format!("{journal}.old")).expect("a file");
    }
}

#[test]
fn what_headroom_did_not_write_is_neither_continued_nor_replaced() {
    let (model, place) = model();
    let journal = file(&place, "run.jsonl");
    for foreign in ["precious\n", " ", "{\"model_type\":\"llama\"}", "<!DOCTYPE html>\n"] {
        fs::write(&journal, foreign).expect("a file");
        let refused = run(&args(&model, &journal)).exits(2);
        assert!(refused.stderr.contains("did not write") && refused.stderr.contains("--force"), "{}", refused.stderr);
        assert_eq!(fs::read_to_string(&journal).expect("a file"), foreign);
        assert!(!place.path().join("run.jsonl.old").exists());
    }
}

#[test]
fn labels_are_computed_anew_from_a_stored_run_without_its_model() {
    let place = TempDir::new().expect("a folder");
    let journal = file(&place, "run.jsonl");
    run(&["ladder", "--out", &journal]).exits(0);
    let stored = fs::read_to_string(&journal).expect("a journal");
    let same = run(&["relabel", &journal, "--format", "jsonl"]).exits(0);
    assert_eq!(same.stdout, stored);
    assert!(same.stderr.contains("0 of 10 trials have other labels"), "{}", same.stderr);
    // A stricter threshold finds less coherent; what was measured stays.
    let strict = run(&["relabel", &journal, "--threshold", "0.001", "--format", "jsonl"]).exits(0);
    let pairs = records(&strict.stdout).into_iter().zip(records(&stored));
    for (strict, stored) in pairs {
        assert!(strict["coherent_tokens"].as_u64() <= stored["coherent_tokens"].as_u64());
        let labels = ["verdict", "tags", "coherent_tokens", "threshold", "run"];
        assert_eq!(without(&strict, &labels), without(&stored, &labels));
        assert_eq!((&strict["threshold"], &strict["run"]["calibration"]), (&serde_json::json!(0.001), &Value::Null));
    }
    run(&["relabel", &journal, "--at-least", "HEALTHY"]).exits(1);
    let (_folder, empty) = super::file("empty.jsonl", "");
    run(&["relabel", &empty]).exits(3);
}

/// A journal of version 0.1.0, whose records list every flip, on the model inside.
const OLD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli/fixtures/journal-of-0.1.0-with-listed-flips.jsonl");

#[test]
fn a_journal_whose_records_list_every_flip_is_still_read_by_every_command() {
    let place = TempDir::new().expect("a folder");
    let journal = file(&place, "old.jsonl");
    let old = fs::read_to_string(OLD).expect("a journal");
    assert_eq!(records(&old).iter().filter(|record| record["edit"].as_str().expect("a text").len() > 2_000).count(), 3);
    fs::write(&journal, &old).expect("a file");
    assert!(run(&["report", &journal]).exits(0).stdout.contains("6 trials"));
    run(&["compare", &journal, &journal]).exits(0);
    assert_eq!(records(&run(&["merge", &journal]).exits(0).stdout).len(), 6);
    assert_eq!(records(&run(&["relabel", &journal, "--format", "jsonl"]).exits(0).stdout).len(), 6);
    let replayed = run(&["replay", &journal, "--format", "jsonl", "--threshold", "6.3"]).exits(0).records();
    let same = |key: &str| records(&old).iter().zip(&replayed).all(|(old, new)| old[key] == new[key]);
    assert!(["edit", "tokens", "margin", "kl_mean", "verdict"].into_iter().all(same));
    // The run goes on, with records as they are today, and what is there is not run again.
    let first: String = old.split_inclusive('\n').take(4).collect();
    fs::write(&journal, &first).expect("a file");
    let campaign = ["campaign", "--flips", "1,100", "--trials", "3", "--threshold", "6.3", "--format", "jsonl"];
    let resumed = run(&[&campaign[..], &["--out", &journal, "--resume"]].concat()).exits(0);
    assert!(resumed.stderr.contains("4 trials are finished"), "{}", resumed.stderr);
    let after = fs::read_to_string(&journal).expect("a journal");
    assert!(after.starts_with(&first) && after.len() < first.len() + 2 * 2_000, "{}", after.len() - first.len());
    let apart = |record: &Object| without(record, &["edit", "edit_digest", "run", "kernel"]);
    let results = |text: &str| records(text).iter().map(apart).collect::<Vec<_>>();
    assert_eq!(results(&after), results(&old));
}

#[test]
fn a_random_edit_beyond_64_changes_is_stored_by_its_seed_and_replayed_as_what_it_was() {
    let (model, place) = model();
    let journal = file(&place, "run.jsonl");
    let campaign = ["campaign", "--flips", "64,65,2000", "--trials", "2", "--threshold", "9", "--out", &journal];
    run(&[&campaign[..], &["--model", path(&model), "--prompt-ids", "5,9"]].concat()).exits(0);
    let text = fs::read_to_string(&journal).expect("a journal");
    let of = |line: usize| records(&text)[line].clone();
    let edit = |line: usize| of(line)["edit"].as_str().expect("a text").to_owned();
    assert_eq!((edit(0).matches("flip:").count(), of(0).get("edit_digest")), (64, None));
    for (line, flips) in [(2, 65), (4, 2000)] {
        assert!(edit(line).starts_with(&format!("random:flips={flips},seed=")), "{}", edit(line));
        assert_eq!(of(line)["edit_digest"].as_str().expect("a digest").len(), 64);
        assert_eq!(of(line)["run"]["generator"], "splitmix64 1");
    }
    assert!(text.lines().skip(2).all(|line| line.len() < 2_000), "{text}");
    let replay = ["replay", journal.as_str(), "--threshold", "9", "--format", "jsonl", "--model"];
    let replayed = run(&[&replay[..], &[path(&model)]].concat()).exits(0).records();
    for (new, line) in replayed.iter().zip(0..) {
        for key in ["edit", "edit_digest", "tokens", "margin", "kl_mean"] {
            assert_eq!(new.get(key), of(line).get(key), "{key} of trial {line}");
        }
    }
    // On a head of another shape the same seed draws other flips, which is not passed over.
    let other = folder(&Fixture { vocab_size: 128, ..Fixture::default() }.files());
    let refused = run(&[&replay[..], &[path(&other), "--prompt-ids", "5,9"]].concat()).exits(2);
    assert!(refused.stderr.contains("other flips are drawn"), "{}", refused.stderr);
}
