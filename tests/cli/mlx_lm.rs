//! `--backend mlx-lm`: what stands in for Python is a script here, but in the tests that need an installed mlx-lm. Those run where
//! `HEADROOM_PYTHON` names a Python that has it and `HEADROOM_FAMILIES` the folder of the kit of families; else they say that they
//! are skipped.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use lm_headroom::testing::skipped;
use tempfile::TempDir;

use super::{Run, finished, program, run};

/// A script in place of Python, in a folder that lasts as long as it.
struct Fake {
    folder: TempDir,
    path: String,
}

fn fake(script: &str) -> Fake {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("python");
    fs::write(&path, format!("#!/bin/sh\necho $$ > '{}/pid'\n{script}\n", folder.path().display())).expect("a script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it can be run");
    Fake { path: path.to_str().expect("Unicode").to_owned(), folder }
}

/// The shell's words for one frame that holds `json`.
fn frame(json: &str) -> String {
    let octal = |bytes: &[u8]| bytes.iter().map(|byte| format!("\\{byte:03o}")).collect::<String>();
    let lengths = [&(json.len() as u64 + 4).to_le_bytes()[..], &(json.len() as u32).to_le_bytes()].concat();
    format!("printf '{}'; printf '%s' '{json}'", octal(&lengths))
}

/// Whether a process runs. One that ended, and whose parent is gone too, is waited for by the system soon.
fn runs(pid: &str) -> bool {
    let end = Instant::now() + Duration::from_secs(5);
    while Command::new("kill").args(["-0", pid.trim()]).output().expect("kill").status.success() {
        if Instant::now() > end {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

impl Fake {
    /// A run with this in place of Python, which must fail and leave no process.
    fn refused(&self) -> String {
        let args = ["ladder", "--backend", "mlx-lm", "--python", &self.path, "--threshold", "3"];
        let output = program(&args).env("HEADROOM_PATIENCE", "1").output().expect("the program starts");
        let Run { stderr, stdout, .. } = finished(&args, output).exits(2);
        assert_eq!(stdout, "");
        let pid = fs::read_to_string(self.folder.path().join("pid")).expect("it was started");
        assert!(!runs(&pid), "an orphan: {stderr}");
        stderr
    }
}

#[test]
fn without_python_or_mlx_lm_it_says_what_to_install_before_anything_is_loaded() {
    let nothing =
        run(&["ladder", "--backend", "mlx-lm", "--python", "/no/such/python", "--model", "/no/such/model"]).exits(2);
    assert!(
        nothing.stderr.contains("-m pip install mlx-lm") && nothing.stderr.contains("--python"),
        "{}",
        nothing.stderr
    );
    let without =
        fake(&format!("{}; cat > /dev/null", frame(r#"{"protocol": 1, "mlx_lm": null, "mlx": null}"#))).refused();
    assert!(without.contains("has no mlx-lm; install it with"), "{without}");
    let old =
        fake(&format!("{}; cat > /dev/null", frame(r#"{"protocol": 1, "mlx_lm": "0.31.9", "mlx": "1"}"#))).refused();
    assert!(old.contains("has mlx-lm 0.31.9, but 0.32.2 is the oldest that serves"), "{old}");
}

#[test]
fn a_child_that_is_no_python_is_an_error_with_what_it_said() {
    let ends = fake("echo something is wrong >&2; exit 3").refused();
    assert!(ends.contains("exit code 3: something is wrong"), "{ends}");
    let killed = fake("echo so far >&2; kill -9 $$").refused();
    assert!(killed.contains("signal 9") && killed.contains("so far"), "{killed}");
    let garbage = fake("echo Python 2.7 says hello to everybody; cat > /dev/null").refused();
    assert!(garbage.contains("standard output is no frame"), "{garbage}");
    let other = fake(&format!("{}; cat > /dev/null", frame(r#"{"protocol": 2}"#))).refused();
    assert!(other.contains("it speaks version 2 of the protocol, not 1"), "{other}");
    let json = fake(&format!("{}; cat > /dev/null", frame("{"))).refused();
    assert!(json.contains("is no frame"), "{json}");
}

#[test]
fn a_child_without_a_sign_of_life_is_killed() {
    for script in ["exec sleep 1000", "kill -STOP $$"] {
        let silent = fake(script).refused();
        assert!(silent.contains("no answer came within 1 s"), "{script}: {silent}");
    }
    // After the first frame, while it is to load the model.
    let hello = frame(r#"{"protocol": 1, "mlx_lm": "99.0", "mlx": "1"}"#);
    let loading = fake(&format!("{hello}; exec sleep 1000")).refused();
    assert!(loading.contains("while it was to load the model: no answer came within 1 s"), "{loading}");
}

#[test]
fn options_of_mlx_lm_are_refused_for_other_backends() {
    for option in [&["--python", "python3"][..], &["--trust-remote-code"]] {
        let refused = run(&[&["ladder"][..], option].concat()).exits(2);
        assert!(refused.stderr.contains("is of the backend mlx-lm"), "{}", refused.stderr);
    }
}

/// The folder of a checkpoint of the kit, where there is a Python with mlx-lm to run it.
fn of_kit(name: &str, what: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("HEADROOM_FAMILIES").map(|kit| Path::new(&kit).join(name));
    match folder {
        Some(folder) if folder.is_dir() && std::env::var_os("HEADROOM_PYTHON").is_some() => Some(folder),
        _ => {
            skipped(
                what,
                "HEADROOM_PYTHON and HEADROOM_FAMILIES do not name a Python with mlx-lm and the kit of families",
            );
            None
        }
    }
}

fn probe(folder: &Path, edits: &[&str], options: &[&str]) -> Vec<super::Object> {
    let folder = folder.to_str().expect("Unicode");
    let args = [
        "probe",
        "--model",
        folder,
        "--backend",
        "mlx-lm",
        "--dtype",
        "float32",
        "--threshold",
        "9",
        "--format",
        "jsonl",
    ];
    let args = [&args[..], options, edits].concat();
    let lines = run(&args).exits(0).stdout;
    lines.lines().map(|line| serde_json::from_str(line).expect("a record")).collect()
}

#[test]
fn what_mlx_lm_gave_for_the_kit_is_given_again() {
    let names = [
        "deepseek_v3@q4",
        "nemotron_h@q4",
        "qwen3_5_moe@q4",
        "gemma4@q4",
        "llama@dynamic-q4",
        "internlm2@dyn-q4",
        "llama@tied-q4",
        "cohere2@q4",
        "granite@q4",
        "phimoe@q4",
        "gpt_oss@mxfp4-q8",
        "muse_glimmer@q4",
    ];
    for name in names {
        let Some(folder) = of_kit(name, name) else { continue };
        for (file, tied) in [("reference.jsonl", "separate"), ("reference-shared.jsonl", "shared")] {
            let Ok(text) = fs::read_to_string(folder.join(file)) else { continue };
            let reference: serde_json::Value =
                text.lines().nth(3).map(|line| serde_json::from_str(line).expect("JSON")).expect("a line");
            let ids: Vec<String> =
                reference["prompt_ids"].as_array().expect("ids").iter().map(ToString::to_string).collect();
            let edit = format!("shift:{}", reference["shift"]);
            let found = probe(&folder, &[&edit], &["--tied", tied, "--prompt-ids", &ids.join(",")]);
            assert_eq!(found[0]["tokens"], reference["tokens"], "{name} {file}");
            assert_eq!(found[0]["first_words"], reference["first_words"], "{name} {file}");
            assert_eq!(found[0]["backend"], "mlx-lm");
        }
    }
}

/// The processes that `pid` has started, which Linux lists.
fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

#[cfg(target_os = "linux")]
#[test]
fn a_child_killed_at_any_moment_is_an_error_and_a_resumed_run_goes_on() {
    let Some(model) = of_kit("llama@q4", "killing mlx-lm") else { return };
    let folder = TempDir::new().expect("a folder");
    let journal = folder.path().join("run.jsonl");
    let args = |resume: bool| {
        let (model, journal) = (model.to_str().expect("Unicode"), journal.to_str().expect("Unicode"));
        let mut args = vec!["sweep", "--family", "shift", "--values", "0..16", "--model", model, "--backend", "mlx-lm"];
        args.extend(["--threshold", "9", "--max-tokens", "12", "--format", "jsonl", "--out", journal]);
        args.extend(resume.then_some("--resume"));
        args
    };
    let started = Instant::now();
    run(&args(false)).exits(0);
    let (whole, usual) = (fs::read_to_string(&journal).expect("records"), started.elapsed());
    fs::remove_file(&journal).expect("a journal");
    let mut kept = 0;
    for moment in 0..20 {
        let args = args(moment > 0);
        let mut running = program(&args);
        running.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let running = running.spawn().expect("the program starts");
        std::thread::sleep(usual * moment / 20);
        let python = children(running.id());
        for pid in &python {
            Command::new("kill").args(["-9", &pid.to_string()]).output().expect("kill");
        }
        let output = running.wait_with_output().expect("it ends");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!text.contains("panicked"), "{text}");
        let ended = output.status.code();
        assert!(ended == Some(0) || ended == Some(2) && text.contains("error"), "{ended:?} at {moment}: {text}");
        assert!(python.iter().all(|pid| !runs(&pid.to_string())), "an orphan");
        let records = fs::read_to_string(&journal).unwrap_or_default().lines().count();
        assert!(records >= kept, "{records} records of {kept} are left at {moment}");
        kept = records;
    }
    run(&args(true)).exits(0);
    let tokens = |text: &str| {
        let of = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("a record")["tokens"].clone();
        text.lines().map(of).collect::<Vec<_>>()
    };
    assert_eq!(tokens(&fs::read_to_string(&journal).expect("records")), tokens(&whole));
}
