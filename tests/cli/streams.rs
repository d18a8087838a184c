//! What goes to stdout, what to stderr, and what happens when nobody reads.

use std::{
    io::{BufRead, BufReader, Read},
    process::Stdio,
};

use super::{program, run};

/// Runs of every command, quick ones.
const RUNS: [&[&str]; 6] = [
    &["--max-tokens", "2"],
    &["ladder", "--shifts", "0,10000000", "--prompt", "Hello!"],
    &["probe", "shift:1", "flip:biases[0,0].2"],
    &["inspect"],
    &["inspect", "--digests"],
    &["verify"],
];

#[test]
fn results_are_on_stdout_and_nothing_else_is_said() {
    for args in RUNS {
        for format in ["text", "json"] {
            let run = run(&[args, &["--format", format]].concat()).exits(0);
            assert_eq!(run.stderr, "", "{args:?}");
            assert!(!run.stdout.is_empty(), "{args:?}");
        }
    }
    // Lines of stdout are records and nothing else: the way back is told on stderr.
    let lines = run(&["--format", "jsonl", "--max-tokens", "2"]).exits(0);
    assert_eq!(lines.records().len(), 10);
    assert!(lines.stderr.starts_with("headroom: restored bit-identical"), "{}", lines.stderr);
}

#[test]
fn text_has_no_escape_sequences_where_there_is_no_terminal() {
    for args in RUNS {
        for (name, value) in [("NO_COLOR", "1"), ("TERM", "xterm-256color")] {
            let output = program(args).env(name, value).output().expect("it starts");
            assert!(output.status.success());
            assert!(!output.stdout.contains(&0x1b) && !output.stderr.contains(&0x1b), "{args:?} with {name}={value}");
        }
    }
    let usage = program(&["--bogus"]).env("TERM", "xterm").output().expect("it starts");
    assert!(!usage.stderr.contains(&0x1b));
}

/// On a terminal, which `script` of util-linux makes, what a ladder writes.
#[cfg(target_os = "linux")]
fn on_a_terminal(variables: &str) -> Option<String> {
    let command = format!("{variables} TERM=xterm exec {} --shifts 0 --max-tokens 1", env!("CARGO_BIN_EXE_headroom"));
    let mut script = std::process::Command::new("script");
    script.args(["-qec", &command, "/dev/null"]).env_remove("NO_COLOR").stdin(Stdio::null());
    script.env("HEADROOM_CACHE", concat!(env!("CARGO_TARGET_TMPDIR"), "/cache"));
    let output = script.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(target_os = "linux")]
#[test]
fn no_color_is_heeded_on_a_terminal() {
    let Some(colored) = on_a_terminal("") else {
        lm_headroom::testing::skipped("NO_COLOR on a terminal", "there is no program `script` that makes one");
        return;
    };
    // The progress bar moves the cursor (`ESC [ ... K` and the like); colors end in `m`.
    let colors = |text: &str| {
        let sequences = text.split("\u{1b}[").skip(1);
        sequences.filter(|s| s.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';').starts_with('m')).count()
    };
    assert!(colored.contains("HEALTHY") && colors(&colored) > 0, "{colored:?}");
    let plain = on_a_terminal("NO_COLOR=1").expect("a terminal");
    assert!(plain.contains("HEALTHY") && colors(&plain) == 0, "{plain:?}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let many = ["--prompt", "Hello!", "--prompt", "Thank you!", "--format", "jsonl"];
    for args in RUNS.into_iter().chain([&many[..], &["--help"], &["completions", "bash"]]) {
        // Closed before anything is written, and after the first line.
        for lines in [0, 1] {
            let mut command = program(args);
            let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
            let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
            for _ in 0..lines {
                assert!(stdout.read_line(&mut String::new()).expect("text") > 0, "{args:?}");
            }
            drop(stdout);
            let mut stderr = String::new();
            child.stderr.take().expect("a pipe").read_to_string(&mut stderr).expect("text");
            assert_eq!(child.wait().expect("it ends").code(), Some(0), "{args:?}: {stderr}");
            let said = |line: &str| {
                line.starts_with("headroom: restored")
                    || line.starts_with("headroom: the restored head")
                    || line.starts_with("headroom: nobody reads stdout any more")
                    || line.starts_with("headroom: calibrating")
            };
            assert!(stderr.lines().all(said), "{args:?}: {stderr}");
        }
    }
}

/// Exit code and stderr of a run whose stdout is closed after some lines.
fn unread(args: &[&str], lines: usize) -> (Option<i32>, String) {
    let mut child = program(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    for _ in 0..lines {
        stdout.read_line(&mut String::new()).expect("text");
    }
    drop(stdout);
    let mut stderr = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut stderr).expect("text");
    (child.wait().expect("it ends").code(), stderr)
}

#[test]
fn a_bound_that_could_not_be_looked_at_to_the_end_has_not_held() {
    let clean = ["probe", "clean", "--prompt", "Hello!", "--prompt", "Thank you!", "--max-tokens", "2"];
    let broken = ["probe", "shift:10000000", "--prompt", "Hello!", "--max-tokens", "2"];
    let held = ["--at-least", "HEALTHY"];
    for format in ["text", "jsonl", "json"] {
        // Nothing was looked at when the reader was gone, so not even a bound that holds has held.
        for args in [&clean[..], &broken] {
            for bound in [&held[..], &["--kl", "0.5"]] {
                let (code, stderr) = unread(&[args, bound, &["--format", format]].concat(), 0);
                assert_eq!(code, Some(1), "{args:?} {bound:?}: {stderr}");
                assert!(stderr.contains("nobody reads stdout") && stderr.contains("have not held"), "{stderr}");
            }
        }
        let (code, stderr) = unread(&[&clean[..], &["--format", format]].concat(), 0);
        assert_eq!(code, Some(0), "{stderr}");
        assert!(stderr.starts_with("headroom: nobody reads stdout any more"), "{stderr}");
    }
}

#[test]
fn with_an_output_a_run_goes_on_when_nobody_reads_and_its_bounds_are_judged() {
    let (_folder, journal) = super::file("run.jsonl", "");
    let prompts = ["--prompt", "Hello!", "--prompt", "Thank you!", "--max-tokens", "2", "--out", &journal];
    for format in ["text", "jsonl", "json"] {
        for (edit, bound, code) in
            [("clean", "HEALTHY", 0), ("shift:10000000", "WOBBLING", 1), ("shift:10000000", "GONE", 0)]
        {
            let args = [&["probe", edit, "--at-least", bound, "--format", format, "--force"][..], &prompts].concat();
            let (found, stderr) = unread(&args, 0);
            assert_eq!(found, Some(code), "{args:?}: {stderr}");
            assert_eq!(stderr.matches("nobody reads stdout").count(), 1, "{stderr}");
            let kept = super::records(&std::fs::read_to_string(&journal).expect("a journal"));
            assert_eq!(kept.len(), 2, "{args:?}");
        }
    }
    let recipe = journal.replace("run.jsonl", "recipe.json");
    let (code, stderr) = unread(&["certify", "--max-tokens", "2", "--out", &recipe], 0);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(std::fs::read_to_string(&recipe).expect("a recipe").contains("flip:"));
}

#[test]
fn stored_runs_are_judged_whoever_reads() {
    let (_folder, good) = super::file("good.jsonl", "");
    let (_folder, bad) = super::file("bad.jsonl", "");
    let run_to = |edit: &str, out: &str| {
        run(&["probe", edit, "--max-tokens", "2", "--threshold", "9", "--out", out]).exits(0);
    };
    run_to("clean", &good);
    run_to("clean", &bad);
    let spoilt = std::fs::read_to_string(&bad).expect("a journal").replace("\"HEALTHY\"", "\"GONE\"");
    std::fs::write(&bad, spoilt).expect("a writable file");
    for (args, code) in [
        (&["compare", &good, &bad][..], 1),
        (&["compare", &bad, &good], 0),
        (&["relabel", &good, "--at-least", "HEALTHY"], 0),
        (&["relabel", &good, "--kl", "0", "--format", "json"], 0),
    ] {
        let (found, stderr) = unread(args, 0);
        assert_eq!(found, Some(code), "{args:?}: {stderr}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_that_names_the_place() {
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").expect("a device of Linux");
    for args in RUNS {
        let output = program(args).stdout(full()).output().expect("it starts");
        assert_eq!(output.status.code(), Some(2));
        let stderr = String::from_utf8(output.stderr).expect("text");
        let last = stderr.lines().last().unwrap_or_default();
        assert!(last.starts_with("headroom: error: cannot write to stdout: "), "{stderr}");
    }
    for args in [&["--help"][..], &["--version"], &["certify", "--help"], &["help"], &["completions", "bash"]] {
        let output = program(args).stdout(full()).output().expect("it starts");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let stderr = String::from_utf8(output.stderr).expect("text");
        assert!(stderr.starts_with("headroom: error: cannot write to stdout: "), "{stderr}");
    }
    let run = run(&["--out", "/dev/full", "--shifts", "0"]).exits(2);
    assert!(run.stderr.contains("cannot write /dev/full"), "{}", run.stderr);
    assert_eq!(run.stderr.matches("os error").count(), 1, "{}", run.stderr);
}
