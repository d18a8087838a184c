//! Parts of a run: which one a task of a scheduler is, where its journal goes, and that the same command goes on with it.

use std::{fs, path::Path};

use lm_headroom::testing::fixture::Fixture;
use tempfile::TempDir;

use super::{Run, finished, folder, path, program, records};

/// Ten shifts on two prompts: 20 trials.
fn ladder<'a>(model: &'a TempDir, prompts: &'a str, out: &'a str) -> Vec<&'a str> {
    let args =
        ["ladder", "--model", path(model), "--prompts", prompts, "--raw", "--max-tokens", "3", "--threshold", "9"];
    [&args[..], &["--format", "jsonl", "--out", out]].concat()
}

/// Runs it as the task that these variables make of it.
fn as_task(args: &[&str], variables: &[(&str, &str)]) -> Run {
    finished(args, program(args).envs(variables.iter().copied()).output().expect("the program starts"))
}

fn trials(lines: &str) -> Vec<u64> {
    records(lines).iter().map(|record| record["trial"].as_u64().expect("a number")).collect()
}

#[test]
fn a_task_of_each_scheduler_runs_its_part_into_a_journal_of_its_own() {
    let (model, place) = (folder(&super::speaking(None).files()), TempDir::new().expect("a folder"));
    let (_prompts, prompts) = super::file("prompts.txt", "a\nb\n");
    let out = place.path().join("part-{shard}-of-4.jsonl");
    let args = [ladder(&model, &prompts, out.to_str().expect("Unicode")), vec!["--shard", "auto"]].concat();
    let slurm = [
        ("SLURM_ARRAY_TASK_ID", "12"),
        ("SLURM_ARRAY_TASK_MIN", "10"),
        ("SLURM_ARRAY_TASK_MAX", "16"),
        ("SLURM_ARRAY_TASK_STEP", "2"),
        ("SLURM_ARRAY_TASK_COUNT", "4"),
    ];
    for (variables, part) in [
        (&slurm[..], 2),
        // A task that is run again: its id is the part.
        (
            &[
                ("SLURM_ARRAY_TASK_ID", "4"),
                ("SLURM_ARRAY_TASK_MIN", "2"),
                ("SLURM_ARRAY_TASK_COUNT", "2"),
                ("HEADROOM_SHARDS", "4"),
            ],
            4,
        ),
        (&[("JOB_COMPLETION_INDEX", "0"), ("HEADROOM_SHARDS", "4")], 1),
        (&[("PBS_ARRAY_INDEX", "3"), ("HEADROOM_SHARDS", "4")], 3),
        (&[("LSB_JOBINDEX", "3"), ("HEADROOM_SHARDS", "4")], 3),
        (&[("AWS_BATCH_JOB_ARRAY_INDEX", "3"), ("HEADROOM_SHARDS", "4")], 4),
    ] {
        let run = as_task(&args, variables).exits(0);
        let journal = place.path().join(format!("part-{part}-of-4.jsonl"));
        assert_eq!(fs::read_to_string(&journal).expect("a journal"), run.stdout, "{variables:?}");
        let expected: Vec<u64> = (0..20).filter(|trial| trial % 4 == part % 4).collect();
        assert_eq!(trials(&run.stdout), expected, "{variables:?}");
        fs::remove_file(&journal).expect("a file");
    }
    assert_eq!(fs::read_dir(place.path()).expect("a folder").count(), 0);
}

#[test]
fn what_a_scheduler_does_not_say_is_an_error_before_anything_is_opened() {
    let place = TempDir::new().expect("a folder");
    let out = place.path().join("{shard}.jsonl");
    let out = out.to_str().expect("Unicode");
    for command in [
        &["ladder"][..],
        &["probe", "clean"],
        &["sweep", "--family", "shift", "--values", "1"],
        &["map"],
        &["campaign", "--flips", "1", "--trials", "2"],
    ] {
        let args = [command, &["--model", "/nowhere", "--shard", "auto", "--out", out]].concat();
        for (variables, said) in [
            (&[][..], "none of SLURM_ARRAY_TASK_ID (Slurm)"),
            (&[("HEADROOM_SHARDS", "8")], "HEADROOM_SHARDS is 8"),
            (&[("JOB_COMPLETION_INDEX", "3")], "set HEADROOM_SHARDS"),
            (&[("JOB_COMPLETION_INDEX", "8"), ("HEADROOM_SHARDS", "8")], "JOB_COMPLETION_INDEX is 8"),
            (
                &[
                    ("SLURM_ARRAY_TASK_ID", "7"),
                    ("SLURM_ARRAY_TASK_MIN", "3"),
                    ("SLURM_ARRAY_TASK_MAX", "8"),
                    ("SLURM_ARRAY_TASK_STEP", "1"),
                    ("SLURM_ARRAY_TASK_COUNT", "3"),
                ],
                "gaps",
            ),
        ] {
            let run = as_task(&args, variables).exits(2);
            assert!(run.stderr.contains(said) && run.stderr.contains("--shard"), "{said}: {}", run.stderr);
        }
    }
    assert_eq!(fs::read_dir(place.path()).expect("a folder").count(), 0);
}

#[test]
fn the_number_of_a_part_stands_in_the_name_of_its_journal() {
    let (model, place) = (folder(&Fixture::default().files()), TempDir::new().expect("a folder"));
    let out = place.path().join("{shard}-{shard}.jsonl");
    let out = out.to_str().expect("Unicode");
    let args = ["probe", "clean", "--model", path(&model), "--prompt-ids", "5,9", "--threshold", "9", "--out", out];
    for (shard, name) in [("2/3", "2-2.jsonl"), ("0/3", "3-3.jsonl")] {
        // No trial is of this part, or one is: either way there is a journal.
        super::run(&[&args[..], &["--shard", shard]].concat());
        assert!(place.path().join(name).exists(), "{shard}");
    }
    let refused = super::run(&args).exits(2);
    assert!(refused.stderr.contains("add --shard"), "{}", refused.stderr);
    assert!(!Path::new(out).exists());
}

#[test]
fn the_same_command_begins_a_part_and_goes_on_with_it() {
    let (model, place) = (folder(&super::speaking(None).files()), TempDir::new().expect("a folder"));
    let (_prompts, prompts) = super::file("prompts.txt", "a\nb\n");
    let out = place.path().join("{shard}.jsonl");
    let args = ladder(&model, &prompts, out.to_str().expect("Unicode"));
    let args = [&args[..], &["--shard", "2/4", "--resume"]].concat();
    let begun = super::run(&args).exits(0);
    let journal = place.path().join("2.jsonl");
    let whole = fs::read_to_string(&journal).expect("a journal");
    assert_eq!((trials(&whole), begun.stderr.contains("resuming")), (vec![2, 6, 10, 14, 18], false));
    // A task that was killed before its first record, within one, between two, and after the last.
    let second = whole.lines().take(2).map(|line| line.len() + 1).sum::<usize>();
    for cut in [0, 100, second, second + 100, whole.len()] {
        fs::write(&journal, &whole[..cut]).expect("a file");
        let again = super::run(&args).exits(0);
        assert_eq!(trials(&fs::read_to_string(&journal).expect("a journal")), [2, 6, 10, 14, 18], "cut at {cut}");
        assert_eq!(trials(&again.stdout), [2, 6, 10, 14, 18], "cut at {cut}");
    }
    assert_eq!(fs::read_dir(place.path()).expect("a folder").count(), 1, "nothing was kept beside it");
}

/// The journals of a run of 20 trials in eight parts, of which part 3 is not there, part 7 ended early, and part 8 is empty;
/// and the whole run.
fn incomplete() -> (TempDir, Vec<String>, String) {
    let (model, place) = (folder(&super::speaking(None).files()), TempDir::new().expect("a folder"));
    let (_prompts, prompts) = super::file("prompts.txt", "a\nb\n");
    let file = |name: &str| place.path().join(name).to_str().expect("Unicode").to_owned();
    let whole = file("whole.jsonl");
    super::run(&ladder(&model, &prompts, &whole)).exits(0);
    let lines = fs::read_to_string(&whole).expect("a journal");
    let parts: Vec<String> = (1..=8)
        .map(|part| {
            let of_it = lines.lines().enumerate().filter(|(trial, _)| trial % 8 == part % 8).map(|(_, line)| line);
            let finished: Vec<&str> = of_it.take(if part == 7 { 1 } else { 9 * (8 - part) }).collect();
            let path = file(&format!("part-{part}.jsonl"));
            let text: String = finished.iter().map(|line| format!("{line}\n")).collect();
            if part != 3 {
                fs::write(&path, text).expect("written");
            }
            path
        })
        .collect();
    (place, parts, whole)
}

#[test]
fn merge_says_which_parts_are_missing_and_joins_them_only_if_asked() {
    let (place, parts, whole) = incomplete();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let out = place.path().join("merged.jsonl");
    let name = out.to_str().expect("Unicode");
    // Part 3 has trials 3, 11, 19; part 7 lacks 15; part 8 has 0, 8, 16. A file that is not there is a part that is missing.
    let there: Vec<&str> = parts.iter().copied().filter(|part| Path::new(part).exists()).collect();
    for given in [&parts, &there] {
        let refused = super::run(&[&["merge"], &given[..], &["--out", name]].concat()).exits(1);
        let said = "7 trials of the run are in none of the journals: they belong to the parts 3,7-8 of 8";
        assert!(refused.stderr.contains(said), "{}", refused.stderr);
        assert!(refused.stderr.contains("HEADROOM_SHARDS=8 sbatch --array=3,7-8"), "{}", refused.stderr);
        assert!(refused.stdout.is_empty() && !out.exists());
        let json = super::run(&[&["merge"], &given[..], &["--format", "json"]].concat()).exits(1);
        let expected = r#"{"command":"merge","missing":{"trials":7,"shards":[3,7,8],"array":"3,7-8","of":8}}"#;
        assert_eq!((json.stdout.trim(), json.stderr.trim()), (expected, expected));
    }
    let joined = super::run(&[&["merge"], &parts[..], &["--allow-missing", "--out", name]].concat()).exits(0);
    assert!(joined.stderr.contains("3,7-8 of 8"), "{}", joined.stderr);
    let expected: Vec<u64> = (0..20).filter(|trial| ![3, 11, 19, 15, 0, 8, 16].contains(trial)).collect();
    assert_eq!(trials(&fs::read_to_string(&out).expect("a file")), expected);
    // With the whole run nothing is missing, and a name that leads nowhere is an error.
    let all = super::run(&["merge", &whole, parts[0]]).exits(0);
    assert_eq!(all.stdout, fs::read_to_string(&whole).expect("a journal"));
    let absent = super::run(&["merge", &whole, parts[2]]).exits(2);
    assert!(absent.stderr.contains("part-3.jsonl"), "{}", absent.stderr);
    super::run(&["merge", parts[2]]).exits(2);
    // What is joined compressed is the same.
    let packed = place.path().join("merged.jsonl.zst");
    super::run(&["merge", &whole, parts[0], "--out", packed.to_str().expect("Unicode")]).exits(0);
    let unpacked = super::run(&["merge", packed.to_str().expect("Unicode"), parts[1]]).exits(0);
    assert_eq!(unpacked.stdout, all.stdout);
}

#[test]
fn equal_draws_of_a_campaign_are_not_told_of_as_one_edit_over_several_prompts() {
    let (model, place) = (folder(&super::speaking(None).files()), TempDir::new().expect("a folder"));
    let journal = place.path().join("campaign.jsonl");
    let journal = journal.to_str().expect("Unicode");
    // So many flips of so few bits that some are drawn twice.
    let args = ["campaign", "--flips", "1", "--trials", "200", "--tensor", "biases", "--raw", "--max-tokens", "1"];
    let of_model = ["--model", path(&model), "--threshold", "9", "--out", journal];
    super::run(&[&args[..], &of_model].concat()).exits(0);
    let drawn = fs::read_to_string(journal).expect("a journal");
    let mut edits: Vec<String> = records(&drawn).iter().map(|record| record["edit"].to_string()).collect();
    edits.sort_unstable();
    assert!(edits.windows(2).any(|pair| pair[0] == pair[1]), "no edit was drawn twice");
    let out = place.path().join("merged.jsonl");
    for args in [&["--out", out.to_str().expect("Unicode")][..], &["--format", "text"]] {
        let merged = super::run(&[&["merge", journal], args].concat()).exits(0);
        assert!(!merged.stdout.contains("over 2 prompts"), "{}", merged.stdout);
    }
}

#[test]
fn where_journals_do_not_show_the_number_of_parts_it_can_be_given() {
    let (_place, parts, _) = incomplete();
    // One trial alone belongs to any number of parts.
    let one = super::run(&["merge", &parts[6], "--format", "json"]).exits(1);
    let missing = &one_object(&one.stdout)["missing"];
    assert_eq!((&missing["trials"], &missing["array"]), (&19.into(), &serde_json::Value::Null));
    for variables in [&[("HEADROOM_SHARDS", "8")][..], &[]] {
        let given = if variables.is_empty() { &["--shards", "8"][..] } else { &[] };
        let args = [&["merge", &parts[6], "--format", "json"], given].concat();
        let missing = &one_object(&as_task(&args, variables).exits(1).stdout)["missing"];
        assert_eq!((&missing["array"], &missing["of"]), (&"1-8".into(), &8.into()));
    }
}

fn one_object(stdout: &str) -> serde_json::Value {
    serde_json::from_str(stdout).expect("an object")
}
