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
