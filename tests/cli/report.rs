//! `report`: from stored runs to text, JSON and a page, without a model.

use std::fs;

use serde_json::Value;

use super::{bad_input::refused, file, program, run};

/// The journal and the object of one small run.
fn stored() -> (tempfile::TempDir, String, String) {
    let (folder, journal) = file("run.jsonl", "");
    let object = folder.path().join("run.json");
    let args =
        ["--shifts", "0,1,10000000", "--max-tokens", "4", "--threshold", "9", "--format", "json", "--out", &journal];
    fs::write(&object, run(&args).exits(0).stdout).expect("a writable folder");
    let object = object.to_str().expect("Unicode").to_owned();
    (folder, journal, object)
}

#[test]
fn a_report_is_text_json_or_a_page() {
    let (folder, journal, object) = stored();
    let text = run(&["report", &journal, &object]).exits(0).stdout;
    for expected in ["demo\n", "ladder: 3 trials", "10,000,000", "restored bit-identical", "given again 3 times"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let report = run(&["report", &journal, "--format", "json"]).exits(0).json();
    let found = &report["models"][0]["runs"][0];
    assert_eq!((&found["command"], &found["finished"]), (&Value::from("ladder"), &Value::from(3)));
    assert_eq!(found["prompts"][0]["records"][2]["shift"], 10_000_000);

    let page = folder.path().join("page.html");
    let older = "<!DOCTYPE html>\n<meta name=\"generator\" content=\"headroom 0.0.9\">";
    fs::write(&page, older).expect("a writable folder");
    let written = run(&["report", &journal, "-o", page.to_str().expect("Unicode")]).exits(0);
    assert_eq!((written.stdout.as_str(), written.stderr.as_str()), ("", ""));
    let page = fs::read_to_string(page).expect("a page");
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"), "{page}");
    assert!(page.contains("<svg class=\"plot\"") && page.contains("10,000,000"));
    // Nothing else was left beside it.
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 3);
}

#[test]
fn a_page_that_cannot_be_written_leaves_what_was_there() {
    let (folder, journal, _) = stored();
    let before = fs::read(&journal).expect("a journal");
    refused(&["report", &journal, "-o", &journal], &["one of the runs"]);
    assert_eq!(fs::read(&journal).expect("a journal"), before);
    refused(&["report", &journal, "-o", folder.path().to_str().expect("Unicode")], &["cannot write"]);
    refused(&["report", "no-such-run.jsonl"], &["cannot read no-such-run.jsonl"]);
}

#[test]
fn a_cut_journal_is_reported_and_a_spoilt_one_is_not() {
    let (_folder, journal, _) = stored();
    let whole = fs::read(&journal).expect("a journal");
    fs::write(&journal, &whole[..whole.len() - 10]).expect("a writable file");
    let text = run(&["report", &journal]).exits(0).stdout;
    assert!(text.contains("ends in the middle of a record") && text.contains("2 of 3 trials"), "{text}");
    fs::write(&journal, whole.iter().map(|&byte| if byte == b':' { b';' } else { byte }).collect::<Vec<_>>())
        .expect("a writable file");
    refused(&["report", &journal], &["run.jsonl, line 1"]);
}

#[test]
fn a_report_of_nothing_says_that_nothing_was_checked() {
    let (_folder, empty) = file("empty.jsonl", "");
    for args in [&["report", &empty][..], &["report", &empty, "--format", "json"]] {
        let run = run(args).exits(3);
        assert!(run.stderr.contains("no finished trial"), "{}", run.stderr);
    }
    let nothing = program(&["report"]).output().expect("the program starts");
    assert_eq!(nothing.status.code(), Some(2));
}

#[test]
fn certificates_are_reported_as_they_were_printed() {
    let (folder, certificates) = file("certificates.json", "");
    let args = ["certify", "--prompt", "Name a color.", "--prompt", "Say hello.", "--within", "word", "--silence-eos"];
    let printed = run(&[&args[..], &["--format", "json"]].concat()).exits(0).stdout;
    fs::write(&certificates, &printed).expect("a writable folder");
    let report = run(&["report", &certificates, "--format", "json"]).exits(0).json();
    let again = &report["models"][0]["certificates"][0];
    let printed: Value = serde_json::from_str(&printed).expect("an object");
    // Nothing is lost on the way through a file.
    assert_eq!((&again["answers"], &again["suite"]), (&printed["answers"], &printed["suite"]));
    let text = run(&["report", &certificates]).exits(0).stdout;
    assert!(text.contains("least flips") && text.contains("all 2 answers together"), "{text}");
    let page = folder.path().join("page.html");
    run(&["report", &certificates, "--output", page.to_str().expect("Unicode")]).exits(0);
    let page = fs::read_to_string(page).expect("a page");
    for expected in
        ["The weakest bits", "least flips within one <bdi>word", "How much of the vulnerability the first words carry"]
    {
        assert!(page.contains(expected), "{expected}");
    }
}
