//! Compressed journals: written, cut, resumed and read as plain ones are.

use std::{
    fs,
    process::{Command, Stdio},
    thread::sleep,
    time::Duration,
};

use lm_headroom::testing::{fixture::Fixture, skipped};
use tempfile::TempDir;

use super::{Object, folder, path, program, records, run, without};

fn file(place: &TempDir, name: &str) -> String {
    place.path().join(name).to_str().expect("Unicode").to_owned()
}

/// A run of many trials on a small model.
fn sweep<'a>(model: &'a TempDir, values: &'a str, journal: &'a str) -> Vec<&'a str> {
    let sweep = ["sweep", "--family", "shift", "--values", values, "--model", path(model), "--prompt-ids", "5,9,3"];
    [&sweep[..], &["--max-tokens", "3", "--threshold", "9", "--format", "jsonl", "--out", journal]].concat()
}

/// Records by trial, without what may differ from run to run.
fn sorted(lines: &str) -> Vec<Object> {
    let mut records: Vec<Object> = records(lines).iter().map(|record| without(record, &[])).collect();
    records.sort_by_key(|record| record["trial"].as_u64());
    records
}

/// The records that a journal holds, as the program reads them.
fn held(journal: &str) -> Vec<Object> {
    sorted(&run(&["relabel", journal, "--format", "jsonl"]).exits(0).stdout)
}

#[test]
fn every_command_reads_a_compressed_journal_as_the_plain_one() {
    let model = folder(&Fixture::default().files());
    let place = TempDir::new().expect("a folder");
    let (plain, compressed) = (file(&place, "run.jsonl"), file(&place, "run.jsonl.zst"));
    let stdout = run(&sweep(&model, "0..299", &plain)).exits(0).stdout;
    run(&sweep(&model, "0..299", &compressed)).exits(0);
    let bytes = fs::read(&compressed).expect("a file");
    assert!(bytes.len() * 8 < stdout.len(), "{} of {} bytes", bytes.len(), stdout.len());
    assert_eq!(held(&compressed), sorted(&stdout));
    let same = |a: &[&str], b: &[&str]| {
        let shown = |args: &[&str]| run(args).exits(0).stdout.replace(".jsonl.zst", ".jsonl");
        assert_eq!(shown(a), shown(b), "{a:?}");
    };
    same(&["report", &plain], &["report", &compressed]);
    same(&["compare", &plain, &plain], &["compare", &plain, &compressed]);
    let replay = |journal| run(&["replay", journal, "--model", path(&model), "--max-tokens", "3", "--threshold", "9"]);
    assert_eq!(replay(&compressed).exits(0).stdout, replay(&plain).exits(0).stdout);
    // What is joined or judged anew is compressed where its name says so.
    let (merged, relabelled) = (file(&place, "merged.zst"), file(&place, "relabelled.zst"));
    run(&["merge", &compressed, "--out", &merged]).exits(0);
    run(&["relabel", &merged, "--out", &relabelled]).exits(0);
    for journal in [&merged, &relabelled] {
        assert!(fs::read(journal).expect("a file").starts_with(b"\x5d\x2a\x4d\x18"), "{journal}");
        assert_eq!(held(journal), sorted(&stdout));
    }
    // What `zstd` makes of a plain journal is read as well, and is not continued in frames of ours.
    let theirs = file(&place, "theirs.zst");
    let zstd = Command::new("zstd").args(["-q", &plain, "-o", &theirs]).stderr(Stdio::null()).status();
    if !zstd.is_ok_and(|status| status.success()) {
        return skipped("journals that zstd has compressed", "zstd is not installed");
    }
    assert_eq!(held(&theirs), sorted(&stdout));
    let refused = run(&[&sweep(&model, "0..299", &theirs)[..], &["--resume"]].concat()).exits(2);
    assert!(refused.stderr.contains("compressed by another program"), "{}", refused.stderr);
    let back = Command::new("zstd").args(["-q", "-d", "-c", &compressed]).output().expect("zstd");
    assert_eq!(sorted(std::str::from_utf8(&back.stdout).expect("text")), sorted(&stdout));
}

#[test]
fn a_compressed_run_that_is_killed_or_cut_resumes_to_the_same_result() {
    let model = folder(&Fixture::default().files());
    let place = TempDir::new().expect("a folder");
    let (whole, killed) = (file(&place, "whole.jsonl.zst"), file(&place, "killed.jsonl.zst"));
    run(&sweep(&model, "0..5999", &whole)).exits(0);
    let expected = held(&whole);
    assert_eq!(expected.len(), 6000);
    let mut finished = 0;
    for millis in [40, 150, 300, 450, 600] {
        let resume = if fs::exists(&killed).expect("a folder") { &["--resume"][..] } else { &[] };
        let args = [&sweep(&model, "0..5999", &killed)[..], resume].concat();
        let mut child = program(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts");
        sleep(Duration::from_millis(millis));
        drop(child.kill());
        child.wait().expect("an end");
        let now = run(&["relabel", &killed, "--format", "jsonl"]).stdout.lines().count();
        assert!(now >= finished, "{now} of {finished} trials are left");
        finished = now;
    }
    run(&[&sweep(&model, "0..5999", &killed)[..], &["--resume"]].concat()).exits(0);
    assert_eq!(held(&killed), expected);
    // Cut where a frame begins or ends, and within.
    let bytes = fs::read(&whole).expect("a file");
    for cut in [0, 1, 30, 58, 59, 60, 200, bytes.len() / 2, bytes.len() - 1, bytes.len()] {
        fs::write(&killed, &bytes[..cut]).expect("a file");
        let resumed = run(&[&sweep(&model, "0..5999", &killed)[..], &["--resume"]].concat()).exits(0);
        assert_eq!(sorted(&resumed.stdout), expected, "cut at {cut}");
        assert_eq!(held(&killed), expected, "cut at {cut}");
    }
}

#[test]
fn what_is_no_compressed_journal_of_this_run_is_refused_and_stays_as_it_was() {
    let model = folder(&Fixture::default().files());
    let place = TempDir::new().expect("a folder");
    let (ours, other) = (file(&place, "ours.jsonl.zst"), file(&place, "other.jsonl.zst"));
    run(&sweep(&model, "0..9", &ours)).exits(0);
    let bytes = fs::read(&ours).expect("a file");
    let mut damaged = bytes.clone();
    // The checksum at the end: what a damage elsewhere does first depends on the times in the records.
    damaged[bytes.len() - 1] ^= 0xff;
    for (values, held, expected) in [
        ("0..10", bytes[..70].to_vec(), "another run: its list of edits or of prompts (by digest) is"),
        ("0..10", bytes.clone(), "another run: its number of trials is 10, here it is 11"),
        ("0..9", damaged, "damaged"),
        ("0..9", [&bytes[..], b"and more"].concat(), "is not where a frame of Zstandard begins"),
        ("0..9", b"\x28\xb5\x2f\xfd\x00\x38".to_vec(), "compressed by another program"),
        ("0..9", b"my notes".to_vec(), "is not a journal"),
    ] {
        fs::write(&other, &held).expect("a file");
        let refused = run(&[&sweep(&model, values, &other)[..], &["--resume"]].concat()).exits(2);
        assert!(refused.stderr.contains(expected), "{expected}: {}", refused.stderr);
        assert_eq!(fs::read(&other).expect("a file"), held, "{expected}");
    }
    // A bomb: some kilobytes that would be gigabytes.
    let mut bomb = b"\x28\xb5\x2f\xfd\x00\x38".to_vec();
    (0..20_000).for_each(|_| bomb.extend([0x02, 0x00, 0x10, b'\n']));
    bomb.extend([0x03, 0x00, 0x10, b'\n']);
    fs::write(&other, bomb).expect("a file");
    let bomb = "more than 250 times as long";
    // Without a line it is an object to `report`, of which less is read.
    for (command, said) in [("report", "more than the 64 MiB"), ("relabel", bomb), ("merge", bomb), ("replay", bomb)] {
        let refused = run(&[command, &other]).exits(2);
        assert!(refused.stderr.contains(said), "{command}: {}", refused.stderr);
    }
}
