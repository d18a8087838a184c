//! Certificates of many prompts: a journal, parts of it, joined again, and what is cut short.

use std::{fs, process::Stdio, thread::sleep, time::Duration};

use lm_headroom::testing::fixture::Fixture;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{folder, path, program, run};

/// A small model and a file of prompts that differ in length and letters.
struct Suite {
    model: TempDir,
    place: TempDir,
}

impl Suite {
    fn new(prompts: usize) -> Self {
        let suite = Self { model: folder(&super::speaking(None).files()), place: TempDir::new().expect("a folder") };
        let prompts: Vec<String> = (0..prompts).map(|i| format!("{}{i}", "ab ".repeat(1 + i % 3))).collect();
        fs::write(suite.place.path().join("prompts.txt"), prompts.join("\n")).expect("a file");
        suite
    }

    fn file(&self, name: &str) -> String {
        self.place.path().join(name).to_str().expect("Unicode").to_owned()
    }

    fn args(&self, more: &[&str]) -> Vec<String> {
        let prompts = self.file("prompts.txt");
        let args = ["certify", "--model", path(&self.model), "--prompts", &prompts, "--raw", "--max-tokens", "3"];
        let rest = ["--weakest", "2", "--format", "json"];
        args.into_iter().chain(rest).chain(more.iter().copied()).map(str::to_owned).collect()
    }

    #[track_caller]
    fn certify(&self, more: &[&str]) -> super::Run {
        let args = self.args(more);
        run(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

/// Lines of a journal without times.
fn lines(text: &str) -> Vec<Value> {
    let line = |line: &str| {
        let mut line: Value = serde_json::from_str(line).expect("a line");
        if let Some(answer) = line["answer"].as_object_mut() {
            answer.remove("ms");
        }
        line
    };
    text.lines().map(line).collect()
}

/// The object of a run without times.
fn object(run: &super::Run) -> Value {
    let mut object = run.json();
    for answer in object["answers"].as_array_mut().expect("answers") {
        answer.as_object_mut().expect("an object").remove("ms");
    }
    object
}

#[test]
fn parts_of_which_one_is_killed_and_resumed_join_to_what_one_run_writes() {
    let suite = Suite::new(24);
    let (whole, merged) = (suite.file("whole.jsonl"), suite.file("merged.jsonl"));
    let plain = object(&suite.certify(&[]).exits(0));
    let journalled = suite.certify(&["--out", &whole]).exits(0);
    assert_eq!(object(&journalled), plain, "a journal changes nothing of what is shown");
    let whole_text = fs::read_to_string(&whole).expect("a journal");
    assert_eq!(whole_text.lines().count(), 24);
    let mut parts = Vec::new();
    for part in 1..=4 {
        // Every other part is compressed.
        let name = if part % 2 == 0 { format!("{part}.jsonl.zst") } else { format!("{part}.jsonl") };
        let out = suite.file(&name);
        let shard = format!("{part}/4");
        let args = ["--out", out.as_str(), "--shard", &shard];
        if part == 3 {
            // Killed somewhere, and cut within a line.
            let all = suite.args(&args);
            let mut child = program(&all.iter().map(String::as_str).collect::<Vec<_>>())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("the program starts");
            sleep(Duration::from_millis(300));
            drop(child.kill());
            child.wait().expect("an end");
            suite.certify(&[&args[..], &["--resume"]].concat()).exits(0);
            let bytes = fs::read(&out).expect("a journal");
            fs::write(&out, &bytes[..bytes.len() * 2 / 3]).expect("a file");
            let resumed = suite.certify(&[&args[..], &["--resume"]].concat()).exits(0);
            assert!(resumed.stderr.contains("bytes are taken off"), "{}", resumed.stderr);
            assert!(resumed.stderr.contains("answers are certified"), "{}", resumed.stderr);
        } else {
            suite.certify(&args).exits(0);
        }
        parts.push(out);
    }
    // In any order.
    let order = [&parts[2], &parts[0], &parts[3], &parts[1]].map(String::as_str);
    let sum = run(&[&["merge"], &order[..], &["--out", &merged, "--format", "json"]].concat()).exits(0).json();
    assert_eq!((&sum["certificates"], &sum["missing"]["trials"]), (&json!(24), &json!(0)));
    assert_eq!(sum["suite"], plain["suite"]);
    assert_eq!(lines(&fs::read_to_string(&merged).expect("a journal")), lines(&whole_text));
    // All three tensors are in the union.
    for tensor in ["scales", "biases"] {
        let of_suite = plain["suite"][tensor]["critical_bits"].as_u64().expect("a count");
        let most = plain["answers"].as_array().expect("answers").iter();
        let most = most.map(|answer| answer[tensor]["critical_bits"].as_u64().expect("a count")).max();
        assert!(Some(of_suite) >= most && of_suite > 0, "{tensor}: {of_suite} of {most:?}");
    }
    // The report and a replay read it.
    let report = run(&["report", &merged]).exits(0).stdout;
    assert!(report.contains("all 24 answers together") && report.contains("bits of scales change"), "{report}");
    let replay = ["replay", &merged, "--model", path(&suite.model), "--threshold", "9", "--max-tokens", "3", "--raw"];
    assert!(run(&replay).exits(0).stdout.contains("flip:"));
    // What is missing is said, with what to run again.
    let some = run(&["merge", &parts[0], &parts[3]]).exits(1);
    assert!(
        some.stdout.is_empty() && some.stderr.contains("12 certificates of the run are in none"),
        "{}",
        some.stderr
    );
    assert!(some.stderr.contains("they belong to the parts 2-3 of 4"), "{}", some.stderr);
    let allowed = run(&["merge", &parts[0], &parts[3], "--allow-missing"]).exits(0);
    assert_eq!(allowed.stdout.lines().count(), 12);
}

#[test]
fn a_journal_of_certificates_cut_anywhere_resumes_to_the_same_result() {
    let suite = Suite::new(5);
    for name in ["run.jsonl", "run.zst"] {
        let out = suite.file(name);
        let whole = object(&suite.certify(&["--out", &out]).exits(0));
        let bytes = fs::read(&out).expect("a journal");
        let text = |journal: &str| lines(&run(&["merge", journal]).exits(0).stdout);
        let expected = text(&out);
        for cut in [0, 1, 40, bytes.len() / 3, bytes.len() / 2, bytes.len() - 2, bytes.len() - 1, bytes.len()] {
            fs::write(&out, &bytes[..cut]).expect("a file");
            let resumed = suite.certify(&["--out", &out, "--resume"]).exits(0);
            assert_eq!(object(&resumed), whole, "{name} cut at {cut}");
            assert_eq!(text(&out), expected, "{name} cut at {cut}");
        }
    }
}

#[test]
fn what_is_no_part_of_this_run_is_refused_and_stays_as_it_was() {
    let suite = Suite::new(3);
    let out = suite.file("run.jsonl");
    suite.certify(&["--out", &out]).exits(0);
    let bytes = fs::read(&out).expect("a journal");
    let refused = |more: &[&str], expected: &str| {
        let refused = suite.certify(&[&["--out", &out, "--resume"], more].concat()).exits(2);
        assert!(refused.stderr.contains(expected), "{expected}: {}", refused.stderr);
        assert_eq!(fs::read(&out).expect("a journal"), bytes, "{expected}");
    };
    refused(&["--silence-eos"], "another run: its --silence-eos is false, here it is true");
    refused(&["--within", "word"], "its --within is none, here it is word");
    refused(&["--prompt", "one more"], "its number of prompts is 3, here it is 4");
    refused(&["--shard", "1/3"], "does not belong to shard 1/3");
    refused(&["--collapse", "4", "--shard", "1/3"], "leave out --shard");
    // A journal of trials is none of certificates, and the other way round.
    let trials = suite.file("trials.jsonl");
    let probe = ["probe", "shift:1", "--model", path(&suite.model), "--prompt-ids", "1", "--threshold", "9", "--out"];
    run(&[&probe[..], &[&trials]].concat()).exits(0);
    let other = suite.certify(&["--out", &trials, "--resume"]).exits(2);
    assert!(other.stderr.contains("is not a journal"), "{}", other.stderr);
    assert!(run(&[&probe[..], &[&out, "--resume"]].concat()).exits(2).stderr.contains("is not a journal"));
    // A recipe cannot be continued, and a bit that a head does not have is found.
    let recipe = suite.certify(&["--out", &suite.file("found.json"), "--shard", "1/2"]).exits(2);
    assert!(recipe.stderr.contains(".jsonl, .ndjson or .zst"), "{}", recipe.stderr);
    let text = String::from_utf8(bytes.clone()).expect("text");
    let weight = text.find("\"weight\":\"").expect("bits") + 10;
    let tampered = format!("{}////////{}", &text[..weight], &text[weight + 8..]);
    fs::write(&out, tampered).expect("a file");
    for args in [&["merge", &*out][..], &["report", &out]] {
        assert!(run(args).exits(2).stderr.contains("line 1: its critical bits of weight are no bits"), "{args:?}");
    }
}

#[test]
fn a_calibration_is_computed_once_and_handed_to_all_parts() {
    let suite = Suite::new(2);
    let model = ["--model", path(&suite.model), "--raw", "--max-tokens", "4"];
    let campaign = [&["campaign", "--flips", "1", "--trials", "3", "--prompt", "ab"], &model[..]].concat();
    let own = suite.file("calibration.txt");
    let prompts: Vec<String> = (0..9).map(|i| format!("cd {i}")).collect();
    fs::write(&own, prompts.join("\n")).expect("a file");
    let campaign = [&campaign[..], &["--calibration", &own]].concat();
    let shared = run(&[&campaign[..], &["--calibrate-only"]].concat()).exits(0);
    let found = shared.json();
    assert_eq!((&found["schema"], &found["backend"], &found["max_tokens"]), (&json!(1), &json!("cpu"), &json!(4)));
    let from = suite.file("shared.json");
    fs::write(&from, &shared.stdout).expect("a file");
    let records = |more: &[&str]| run(&[&campaign[..], more, &["--format", "jsonl"]].concat()).exits(0).records();
    let (drawn, taken) = (records(&[]), records(&["--calibration-from", &from]));
    assert_eq!(drawn[0]["run"], taken[0]["run"], "the run is the same");
    assert_eq!(taken[0]["run"]["calibration"], found["calibration"]);
    let refused = |args: &[&str], expected: &str| {
        let refused = run(&[args, &["--calibration-from", &from]].concat()).exits(2);
        assert!(refused.stderr.contains(expected), "{expected}: {}", refused.stderr);
    };
    let longer: Vec<&str> = campaign.iter().map(|&arg| if arg == "4" { "5" } else { arg }).collect();
    refused(&longer, "--max-tokens");
    let other = folder(&Fixture { seed: 9, ..super::speaking(None) }.files());
    let elsewhere: Vec<&str> =
        campaign.iter().map(|&arg| if arg == path(&suite.model) { path(&other) } else { arg }).collect();
    refused(&elsewhere, "another model");
    fs::write(&own, "ef\ngh\nij\nkl").expect("a file");
    refused(&campaign, "another list of prompts");
    fs::write(&from, "{}").expect("a file");
    refused(&campaign, "not a calibration");
}
