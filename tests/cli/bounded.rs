//! Nothing grows with the number of trials: runs, and reports of them, under a cap on the address space.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    process::Command,
};

use lm_headroom::testing::fixture::Fixture;
use tempfile::TempDir;

use super::{Run, finished, folder, path, program, run};

/// The program under a cap on its address space, in MiB.
fn capped(mib: usize, args: &[&str]) -> Run {
    let plain = program(args);
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit -v {}; exec \"$0\" \"$@\"", mib * 1024)]).arg(plain.get_program()).args(args);
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    finished(args, shell.output().expect("a shell"))
}

/// The least cap, in steps of 8 MiB, under which a command ends as it should.
fn least_cap(args: &[&str]) -> usize {
    let caps: Vec<usize> = (4..200).map(|step| 8 * step).collect();
    let enough = caps.partition_point(|&mib| capped(mib, args).code != Some(0));
    caps[enough]
}

/// A journal of so many trials, each of which is another one of `line`.
fn journal_of(place: &TempDir, name: &str, line: &str, trials: usize) -> String {
    let path = place.path().join(name);
    let mut file = BufWriter::new(File::create(&path).expect("a file"));
    let (before, after) = line.split_once("\"trial\":0,").expect("trial 0");
    for trial in 0..trials {
        // Values differ, as they do in a sweep.
        let after = after.replace("\"shift\":0,", &format!("\"shift\":{trial},"));
        let after = after.replace("\"shift:0\"", &format!("\"shift:{trial}\""));
        let after = after.replace("\"value\":0,", &format!("\"value\":{trial},"));
        write!(file, "{before}\"trial\":{trial},{after}").expect("it is written");
    }
    file.flush().expect("it is written");
    path.to_str().expect("Unicode").to_owned()
}

#[test]
fn a_sweep_of_very_many_values_takes_no_more_memory_than_one_of_few() {
    let model = folder(&Fixture { num_hidden_layers: 1, ..Fixture::default() }.files());
    let sweep = |values: &'static str| {
        let args = ["sweep", "--family", "shift", "--values", values, "--model", path(&model), "--prompt-ids", "5"];
        [&args[..], &["--max-tokens", "1", "--threshold", "9", "--threads", "1", "--format", "json"]].concat()
    };
    let least = least_cap(&sweep("0..1999"));
    // Kept, each record would take more than two kilobytes, so that these would be more than 60 MiB.
    let many = capped(least + 16, &sweep("0..31999")).exits(0).json();
    assert_eq!(many["records"].as_array().expect("a list").len(), 32_000);
    assert_eq!(many["summary"].as_array().expect("a list").len(), 10_000);
}

#[test]
fn a_report_a_resumed_run_and_a_replay_take_no_more_memory_for_very_many_trials() {
    let model = folder(&Fixture { num_hidden_layers: 1, ..Fixture::default() }.files());
    let place = TempDir::new().expect("a folder");
    let out = place.path().join("one.jsonl").to_str().expect("Unicode").to_owned();
    let model =
        ["--model", path(&model), "--prompt-ids", "5", "--max-tokens", "1", "--threshold", "9", "--threads", "1"];
    for (name, command) in [
        ("sweep", &["sweep", "--family", "shift", "--values", "0..39999"][..]),
        ("campaign", &["campaign", "--flips", "1", "--trials", "40000"]),
    ] {
        // A part of one trial says what the records of the whole run are like.
        let run_args = [command, &model, &["--out", &out, "--force"]].concat();
        run(&[&run_args[..], &["--shard", "40000/40000"]].concat()).exits(0);
        let line = fs::read_to_string(&out).expect("a journal");
        assert_eq!(line.lines().count(), 1);
        let few = journal_of(&place, &format!("few-{name}.jsonl"), &line, 2_000);
        let many = journal_of(&place, &format!("many-{name}.jsonl"), &line, 39_999);
        let page = place.path().join("page.html").to_str().expect("Unicode").to_owned();
        for report in [&["report"][..], &["report", "--format", "json"], &["report", "--force", "-o", &page]] {
            let least = least_cap(&[report, &[&few]].concat());
            let run = capped(least + 16, &[report, &[&many]].concat()).exits(0);
            assert!(report.len() > 2 || run.stdout.contains("39,999 of 40,000 trials"), "{}", run.stdout);
        }
        // All but the last trial are finished.
        let resume = |journal: &str| [command, &model, &["--out", journal, "--resume"]].concat().join(" ");
        let (few, many) = (resume(&few), resume(&many));
        let least = least_cap(&few.split(' ').collect::<Vec<_>>());
        let run = capped(least + 24, &many.split(' ').collect::<Vec<_>>()).exits(0);
        assert!(run.stderr.contains("resuming: 39999 trials are finished"), "{}", run.stderr);
        if name == "campaign" {
            assert!(run.stdout.contains("40000"), "{}", run.stdout);
        }
    }
}
