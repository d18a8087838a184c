//! Signals: what a scheduler or a person sends ends every long command in time, with what is finished kept, and says so in
//! the exit code.
#![cfg(unix)]

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::process::ExitStatusExt,
    process::{Child, Command, ExitStatus, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use lm_headroom::{random::SplitMix64, testing::fixture::Fixture};
use tempfile::TempDir;

use super::{folder, path, program, records, without};

/// What a scheduler's grace is far above, and a person's patience not.
const IN_TIME: Duration = Duration::from_secs(2);

/// The exit code as shells and schedulers say it: of a program that a signal has ended before it could listen, too.
fn code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).expect("it has ended")
}

fn send(signal: &str, child: &Child) {
    drop(Command::new("kill").args([signal, &child.id().to_string()]).stderr(Stdio::null()).status());
}

/// Waits for the end, which has to come in time.
#[track_caller]
fn end(child: &mut Child) -> (i32, Duration) {
    let sent = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("it can be waited for") {
            return (code(status), sent.elapsed());
        }
        if sent.elapsed() > 3 * IN_TIME {
            drop(child.kill());
            drop(child.wait());
            panic!("it has not ended in time");
        }
        sleep(Duration::from_millis(2));
    }
}

/// A model whose trials take about a millisecond, and which never ends an answer.
fn small() -> TempDir {
    let fixture = Fixture { vocab_size: 1000, eos_token_ids: vec![], num_hidden_layers: 1, ..Fixture::default() };
    folder(&fixture.files())
}

/// How long a command takes from its start to its first record.
fn until_the_first_record(args: &[&str]) -> Duration {
    let started = Instant::now();
    let mut child = program(args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    let mut first = String::new();
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut first).expect("text");
    let took = started.elapsed();
    drop(child.kill());
    child.wait().expect("it ends");
    assert!(!first.is_empty(), "a record");
    took
}

/// Removes what a run has left.
fn remove(place: &TempDir) {
    for file in fs::read_dir(place.path()).expect("a folder") {
        drop(fs::remove_file(file.expect("an entry").path()));
    }
}

/// Ends a command at 50 random moments.
///
/// `resumed`: whether the command has a journal.
#[expect(clippy::print_stderr, reason = "the times are a result")]
fn ended_at_50_moments(seed: u64, command: &[&str], resumed: bool) {
    let (model, place) = (small(), TempDir::new().expect("a folder"));
    let journal = place.path().join("run.jsonl");
    let out = journal.to_str().expect("Unicode");
    // One thread: a machine that is busy with other tests lets several wait for each other.
    let common = ["--model", path(&model), "--prompt-ids", "5,9,3", "--format", "jsonl", "--threads", "1"];
    let kept = if resumed { vec!["--threshold", "9", "--out", out] } else { Vec::new() };
    let args = [command, &common, &kept].concat();
    let command = command[0];
    let mut generator = SplitMix64(seed);
    // Half of the moments are before the first record, however busy the machine is.
    let moments = if resumed { 2 * until_the_first_record(&args) } else { Duration::from_millis(600) };
    remove(&place);
    let (mut longest, mut ended, mut finished_trials) = (Duration::ZERO, 0, 0);
    for _ in 0..50 {
        let mut child = program(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let (mut stdout, mut stderr) = (child.stdout.take().expect("a pipe"), child.stderr.take().expect("a pipe"));
        let reads = std::thread::spawn(move || {
            let mut text = String::new();
            stdout.read_to_string(&mut text).map(|_| text)
        });
        sleep(Duration::from_micros(3_000 + generator.next_u64() % moments.as_micros() as u64));
        let (code, took) = {
            send("-TERM", &child);
            end(&mut child)
        };
        let shown = reads.join().expect("a thread").expect("text");
        let mut said = String::new();
        stderr.read_to_string(&mut said).expect("text");
        longest = longest.max(took);
        assert!(took < IN_TIME, "{command} took {took:?} to end");
        let lines = fs::read_to_string(&journal).unwrap_or_default();
        if code != 0 {
            assert_eq!(code, 143, "{command}: {said}");
            ended += 1;
            // What is in the journal is whole, and so is what was shown, of which nothing is missing there.
            if resumed {
                let finished: BTreeSet<&str> = lines.lines().collect();
                assert!(shown.lines().all(|line| finished.contains(line)), "{command}");
                finished_trials += records(&lines).len();
            }
            assert!(shown.is_empty() || shown.ends_with('\n'), "{shown}");
        }
        remove(&place);
    }
    eprintln!("{command}: {ended} of 50 were ended, in {longest:?} at most; {finished_trials} records were kept");
    assert!(ended >= 25, "{command}: only {ended} of 50 signals came before the end");
    assert!(!resumed || finished_trials > 0, "{command}: every signal came before the first record");
}

#[test]
fn sigterm_ends_a_ladder_in_time_with_143() {
    let shifts = (0..4000).map(|shift: u32| (shift * 40_503).to_string()).collect::<Vec<_>>().join(",");
    ended_at_50_moments(1, &["ladder", "--shifts", &shifts, "--max-tokens", "20"], true);
}

#[test]
fn sigterm_ends_a_sweep_in_time_with_143() {
    ended_at_50_moments(2, &["sweep", "--family", "shift", "--values", "0..4000", "--max-tokens", "20"], true);
}

#[test]
fn sigterm_ends_a_bisection_in_time_with_143() {
    let ends = ["--from", "0", "--to", "4611686018427387904"];
    ended_at_50_moments(3, &[&["bisect", "--family", "shift"], &ends[..], &["--max-tokens", "400"]].concat(), true);
}

#[test]
fn sigterm_ends_a_map_in_time_with_143() {
    ended_at_50_moments(4, &["map", "--max-tokens", "100"], true);
}

#[test]
fn sigterm_ends_a_campaign_in_time_with_143() {
    ended_at_50_moments(5, &["campaign", "--flips", "1,100", "--trials", "5000", "--max-tokens", "20"], true);
}

#[test]
fn sigterm_ends_a_certificate_in_time_with_143() {
    ended_at_50_moments(6, &["certify", "--max-tokens", "400", "--within", "word"], false);
}

/// A command that waits for a prompt which nobody writes.
fn waiting(place: &TempDir) -> Child {
    let pipe = place.path().join("prompts");
    let made = Command::new("mkfifo").arg(&pipe).status().expect("mkfifo");
    assert!(made.success());
    let args = ["ladder", "--prompts", pipe.to_str().expect("Unicode")];
    let child = program(&args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
    sleep(Duration::from_millis(500));
    child
}

#[test]
fn a_command_that_comes_to_no_step_is_ended_in_time() {
    let place = TempDir::new().expect("a folder");
    let mut child = waiting(&place);
    send("-TERM", &child);
    let (code, took) = end(&mut child);
    assert_eq!(code, 143);
    assert!(took < IN_TIME, "{took:?}");
    let mut said = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut said).expect("text");
    assert!(said.contains("SIGTERM") && said.lines().count() == 1, "{said}");
}

#[test]
fn a_second_signal_ends_a_command_at_once() {
    for (first, second, expected) in [("-TERM", "-TERM", 143), ("-INT", "-INT", 130), ("-INT", "-TERM", 143)] {
        let place = TempDir::new().expect("a folder");
        let mut child = waiting(&place);
        send(first, &child);
        sleep(Duration::from_millis(100));
        send(second, &child);
        let (code, took) = end(&mut child);
        assert_eq!(code, expected, "{first} {second}");
        assert!(took < Duration::from_secs(1), "{took:?}");
    }
}

/// What was finished before a signal is not run again, and the end is that of one run.
#[test]
fn a_run_that_is_ended_again_and_again_comes_to_the_end_of_one_run() {
    let (model, place) = (small(), TempDir::new().expect("a folder"));
    let file = |name: &str| place.path().join(name).to_str().expect("Unicode").to_owned();
    let (first, parted, whole) = (file("first.jsonl"), file("parted.jsonl"), file("whole.jsonl"));
    let args = |out| {
        let run = ["sweep", "--family", "shift", "--values", "0..1500", "--max-tokens", "20", "--threshold", "9"];
        [&run[..], &["--model", path(&model), "--prompt-ids", "5,9,3", "--threads", "1", "--resume", "--out", out]]
            .concat()
    };
    super::run(&args(&whole)).exits(0);
    let (mut ended, mut finished) = (0, 0);
    let moment = 2 * until_the_first_record(&[args(&first), vec!["--format", "jsonl"]].concat());
    for _ in 0..8 {
        let mut child = program(&args(&parted)).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        sleep(moment);
        send("-TERM", &child);
        let (code, _) = end(&mut child);
        let lines = fs::read_to_string(&parted).unwrap_or_default();
        let count = records(&lines).len();
        assert!(count >= finished, "{count} records after {finished}");
        finished = count;
        if code == 0 {
            break;
        }
        assert_eq!(code, 143);
        ended += 1;
    }
    assert!(ended > 0, "it was ended before its end");
    super::run(&args(&parted)).exits(0);
    let sorted = |path: &str| {
        let mut all: Vec<_> =
            records(&fs::read_to_string(path).expect("a journal")).iter().map(|record| without(record, &[])).collect();
        all.sort_by_key(|record| record["trial"].as_u64());
        all
    };
    assert_eq!(sorted(&parted), sorted(&whole));
}
