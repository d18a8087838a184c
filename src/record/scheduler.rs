//! Which part of a run this task is, from what its scheduler has put into the environment.
//!
//! | scheduler | part | of |
//! | --- | --- | --- |
//! | Slurm | `(SLURM_ARRAY_TASK_ID - SLURM_ARRAY_TASK_MIN) / SLURM_ARRAY_TASK_STEP + 1` | `SLURM_ARRAY_TASK_COUNT` |
//! | Kubernetes, an Indexed Job | `JOB_COMPLETION_INDEX + 1` | `HEADROOM_SHARDS` |
//! | PBS | `PBS_ARRAY_INDEX` | `HEADROOM_SHARDS` |
//! | LSF | `LSB_JOBINDEX` | `HEADROOM_SHARDS` |
//! | AWS Batch | `AWS_BATCH_JOB_ARRAY_INDEX + 1` | `HEADROOM_SHARDS` |
//!
//! Where `HEADROOM_SHARDS` is set on Slurm, it is the number of parts, and a task's id is the part: tasks that are run
//! again (`--array=3,7-8`) then are the parts that they were. Slurm tells such an array's length and ends, and not the
//! length of the array before it, so without that variable an array with gaps is refused: its tasks would take over other
//! parts than those that are missing.

use super::Shard;

/// The number of parts, for every scheduler.
pub(crate) const SHARDS: &str = "HEADROOM_SHARDS";

/// A scheduler that numbers the tasks of a job.
struct Scheduler {
    name: &'static str,
    /// The variable that holds a task's number.
    index: &'static str,
    /// The number of the first part's task, where parts are told by [`SHARDS`].
    first: usize,
}

const SLURM: Scheduler = Scheduler { name: "Slurm", index: "SLURM_ARRAY_TASK_ID", first: 1 };
const KUBERNETES: Scheduler = Scheduler { name: "Kubernetes", index: "JOB_COMPLETION_INDEX", first: 0 };
const PBS: Scheduler = Scheduler { name: "PBS", index: "PBS_ARRAY_INDEX", first: 1 };
const LSF: Scheduler = Scheduler { name: "LSF", index: "LSB_JOBINDEX", first: 1 };
const AWS_BATCH: Scheduler = Scheduler { name: "AWS Batch", index: "AWS_BATCH_JOB_ARRAY_INDEX", first: 0 };

const SCHEDULERS: [&Scheduler; 5] = [&SLURM, &KUBERNETES, &PBS, &LSF, &AWS_BATCH];

/// Why the environment does not say which part this is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum SchedulerError {
    /// This process is no task of a job that any known scheduler numbers.
    #[error("no scheduler says which part this is: {found}; give the part itself, such as --shard 1/8")]
    NoTask {
        /// What was looked for, and what was there.
        found: String,
    },
    /// A variable holds something else than a natural number.
    #[error(
        "{name} is {value:?}, which is no natural number; set it right, or give the part itself, such as --shard 1/8"
    )]
    NoNumber {
        /// The variable.
        name: &'static str,
        /// What it holds.
        value: String,
    },
    /// The scheduler does not say how many parts there are.
    #[error(
        "{index} is {value} ({scheduler}), and nothing says of how many parts: set HEADROOM_SHARDS to their number"
    )]
    NoCount {
        /// The scheduler.
        scheduler: &'static str,
        /// The variable of the task's number.
        index: &'static str,
        /// The task's number.
        value: usize,
    },
    /// An array of Slurm that leaves out tasks, so that its length is not the number of parts.
    #[error(
        "the array has gaps: {count} tasks from SLURM_ARRAY_TASK_MIN={min} to SLURM_ARRAY_TASK_MAX={max} in steps of \
         SLURM_ARRAY_TASK_STEP={step}; set HEADROOM_SHARDS to the number of all parts, and each task runs the part of its id"
    )]
    Gaps {
        /// The least id.
        min: usize,
        /// The greatest id.
        max: usize,
        /// The step between ids.
        step: usize,
        /// Tasks of the array.
        count: usize,
    },
    /// There is no such part.
    #[error("there is no such part: {found}; {hint}")]
    Outside {
        /// The variables and their values.
        found: String,
        /// Which numbers there may be.
        hint: String,
    },
    /// Two schedulers say different things.
    #[error(
        "two schedulers number this task: {found}; unset one of them, or give the part itself, such as --shard 1/8"
    )]
    Several {
        /// The variables and the parts that follow from them.
        found: String,
    },
}

/// The part that this process's environment names.
///
/// # Errors
/// [`SchedulerError`].
pub(crate) fn shard() -> Result<Shard, SchedulerError> {
    shard_of(of_environment)
}

/// The number of parts that [`SHARDS`] gives, where it is set.
///
/// # Errors
/// [`SchedulerError::NoNumber`].
pub(crate) fn shards() -> Result<Option<usize>, SchedulerError> {
    Variables(&of_environment).number(SHARDS)
}

fn of_environment(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// The part that the variables name. One that is empty counts as unset.
fn shard_of(variable: impl Fn(&str) -> Option<String>) -> Result<Shard, SchedulerError> {
    let variables = Variables(&variable);
    let count = variables.number(SHARDS)?;
    let mut parts = Vec::new();
    for scheduler in SCHEDULERS {
        // LSF sets its variable to 0 in every job that is no array.
        if let Some(id) = variables.number(scheduler.index)?.filter(|&id| id > 0 || scheduler.index != LSF.index) {
            let shard = match count {
                None if scheduler.index == SLURM.index => variables.of_slurm(id)?,
                None => {
                    let Scheduler { name, index, .. } = *scheduler;
                    return Err(SchedulerError::NoCount { scheduler: name, index, value: id });
                }
                Some(count) => part(scheduler, id, count)?,
            };
            parts.push((scheduler, shard));
        }
    }
    let Some(&(_, shard)) = parts.first() else { return Err(variables.no_task()) };
    if parts.iter().any(|&(_, other)| other != shard) {
        let told: Vec<String> = parts
            .iter()
            .map(|(scheduler, shard)| format!("{} says {shard} ({})", scheduler.index, scheduler.name))
            .collect();
        return Err(SchedulerError::Several { found: told.join(", ") });
    }
    Ok(shard)
}

/// The part of a task, of a number that [`SHARDS`] gives.
fn part(scheduler: &Scheduler, id: usize, count: usize) -> Result<Shard, SchedulerError> {
    let Scheduler { first, index, .. } = *scheduler;
    let part = id.checked_sub(first).and_then(|from_zero| from_zero.checked_add(1));
    part.and_then(|part| Shard::new(part, count)).ok_or_else(|| SchedulerError::Outside {
        found: format!("{index} is {id}, and {SHARDS} is {count}"),
        hint: match (count, first) {
            (0, _) => "give the number of parts, which is 1 or more".to_owned(),
            (_, 0) => format!("with that number it is 0 to {}", count - 1),
            _ => format!("with that number it is 1 to {count}: number the array from 1"),
        },
    })
}

struct Variables<'a, F>(&'a F);

impl<F: Fn(&str) -> Option<String>> Variables<'_, F> {
    fn set(&self, name: &str) -> Option<String> {
        (self.0)(name).filter(|value| !value.is_empty())
    }

    fn number(&self, name: &'static str) -> Result<Option<usize>, SchedulerError> {
        let Some(value) = self.set(name) else { return Ok(None) };
        // `parse` would take a sign.
        let digits = value.bytes().all(|byte| byte.is_ascii_digit());
        match value.parse() {
            Ok(number) if digits => Ok(Some(number)),
            _ => Err(SchedulerError::NoNumber { name, value }),
        }
    }

    /// The part of a task of Slurm, by its place in the array.
    fn of_slurm(&self, id: usize) -> Result<Shard, SchedulerError> {
        let [min, step, count, max] =
            ["SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MAX"]
                .map(|name| self.number(name));
        let (step, max) = (step?.unwrap_or(1), max?);
        let (Some(min), Some(count)) = (min?, count?) else {
            return Err(SchedulerError::NoCount { scheduler: SLURM.name, index: SLURM.index, value: id });
        };
        let outside = |found: String| SchedulerError::Outside {
            found,
            hint: format!("set {SHARDS} to the number of all parts, and each task runs the part of its id"),
        };
        let last = count.checked_sub(1).and_then(|steps| min.checked_add(steps.checked_mul(step)?));
        if let Some(max) = max.filter(|&max| last != Some(max)) {
            return Err(SchedulerError::Gaps { min, max, step, count });
        }
        let steps = id.checked_sub(min).filter(|from| step > 0 && from.is_multiple_of(step)).map(|from| from / step);
        steps.and_then(|steps| Shard::new(steps.checked_add(1)?, count)).ok_or_else(|| {
            outside(format!(
                "SLURM_ARRAY_TASK_ID is {id}, in an array of SLURM_ARRAY_TASK_COUNT={count} tasks from \
                 SLURM_ARRAY_TASK_MIN={min} in steps of SLURM_ARRAY_TASK_STEP={step}"
            ))
        })
    }

    fn no_task(&self) -> SchedulerError {
        let names: Vec<String> =
            SCHEDULERS.iter().map(|scheduler| format!("{} ({})", scheduler.index, scheduler.name)).collect();
        let mut found = format!("none of {} is set", names.join(", "));
        if self.set(LSF.index).is_some() {
            found = format!("{} is 0, so this job of LSF is no array, and {found} otherwise", LSF.index);
        }
        if let Some(count) = self.set(SHARDS) {
            found.push_str(&format!(", though {SHARDS} is {count}"));
        }
        SchedulerError::NoTask { found }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<String, String> {
        let variables: BTreeMap<_, _> = variables.iter().copied().collect();
        let found = shard_of(|name| variables.get(name).map(|&value| value.to_owned()));
        found.map(|shard| shard.to_string()).map_err(|error| error.to_string())
    }

    fn slurm(id: &str, min: &str, max: &str, step: &str, count: &str, shards: &str) -> Result<String, String> {
        of(&[
            ("SLURM_ARRAY_TASK_ID", id),
            ("SLURM_ARRAY_TASK_MIN", min),
            ("SLURM_ARRAY_TASK_MAX", max),
            ("SLURM_ARRAY_TASK_STEP", step),
            ("SLURM_ARRAY_TASK_COUNT", count),
            ("HEADROOM_SHARDS", shards),
        ])
    }

    #[test]
    fn a_task_of_slurm_is_the_part_of_its_place_in_the_array() {
        // As `sbatch --array=1-8`, `0-7`, `1-9:4` and `5` set them.
        for (id, min, max, step, count, part) in [
            ("1", "1", "8", "1", "8", "1/8"),
            ("8", "1", "8", "1", "8", "8/8"),
            ("0", "0", "7", "1", "8", "1/8"),
            ("7", "0", "7", "1", "8", "8/8"),
            ("5", "1", "9", "4", "3", "2/3"),
            ("9", "1", "9", "4", "3", "3/3"),
            ("5", "5", "5", "1", "1", "1/1"),
            // An older Slurm does not tell the greatest.
            ("4", "2", "", "1", "3", "3/3"),
            ("4", "2", "", "", "3", "3/3"),
        ] {
            assert_eq!(slurm(id, min, max, step, count, ""), Ok(part.to_owned()), "{id}");
        }
    }

    #[test]
    fn the_greatest_numbers_are_outside_as_any_others() {
        let most = usize::MAX.to_string();
        for count in ["3", &most] {
            assert!(slurm(&most, "0", "", "1", count, "").is_err(), "{count}");
        }
        assert!(of(&[("JOB_COMPLETION_INDEX", &most), ("HEADROOM_SHARDS", &most)]).is_err());
    }

    #[test]
    fn tasks_of_slurm_that_are_run_again_are_the_parts_of_their_ids() {
        // As `HEADROOM_SHARDS=8 sbatch --array=3,7-8` sets them.
        for id in ["3", "7", "8"] {
            assert_eq!(slurm(id, "3", "8", "1", "3", "8"), Ok(format!("{id}/8")));
            let gaps = slurm(id, "3", "8", "1", "3", "").expect_err("an array with gaps");
            assert!(gaps.contains("gaps") && gaps.contains("SLURM_ARRAY_TASK_MAX=8"), "{gaps}");
            assert!(gaps.contains("HEADROOM_SHARDS"), "{gaps}");
        }
    }

    #[test]
    fn other_schedulers_tell_the_task_and_headroom_shards_the_number() {
        for (index, first, last) in [
            ("JOB_COMPLETION_INDEX", "0", "7"),
            ("PBS_ARRAY_INDEX", "1", "8"),
            ("LSB_JOBINDEX", "1", "8"),
            ("AWS_BATCH_JOB_ARRAY_INDEX", "0", "7"),
        ] {
            assert_eq!(of(&[(index, first), ("HEADROOM_SHARDS", "8")]), Ok("1/8".to_owned()));
            assert_eq!(of(&[(index, last), ("HEADROOM_SHARDS", "8")]), Ok("8/8".to_owned()));
            let alone = of(&[(index, last)]).expect_err("no number of parts");
            assert!(alone.contains(&format!("{index} is {last}")) && alone.contains("HEADROOM_SHARDS"), "{alone}");
        }
    }

    #[test]
    fn a_part_outside_the_number_is_an_error_that_names_what_was_found() {
        for (variables, said) in [
            (
                &[("JOB_COMPLETION_INDEX", "8"), ("HEADROOM_SHARDS", "8")][..],
                "JOB_COMPLETION_INDEX is 8, and HEADROOM_SHARDS is 8",
            ),
            (&[("PBS_ARRAY_INDEX", "0"), ("HEADROOM_SHARDS", "8")], "PBS_ARRAY_INDEX is 0, and HEADROOM_SHARDS is 8"),
            (&[("SLURM_ARRAY_TASK_ID", "0"), ("HEADROOM_SHARDS", "8")], "number the array from 1"),
            (&[("SLURM_ARRAY_TASK_ID", "3"), ("HEADROOM_SHARDS", "0")], "HEADROOM_SHARDS is 0"),
            (&[("JOB_COMPLETION_INDEX", "18446744073709551615"), ("HEADROOM_SHARDS", "8")], "no such part"),
        ] {
            let error = of(variables).expect_err("no such part");
            assert!(error.contains(said), "{error}");
        }
        for (id, min, max, step, count) in [
            ("9", "1", "8", "1", "8"),
            ("0", "1", "8", "1", "8"),
            ("2", "1", "9", "4", "3"),
            ("3", "3", "", "0", "1"),
            ("3", "3", "3", "1", "0"),
        ] {
            let error = slurm(id, min, max, step, count, "").expect_err("no such part");
            assert!(error.contains(&format!("SLURM_ARRAY_TASK_MIN={min}")), "{error}");
        }
    }

    #[test]
    fn without_a_task_the_error_names_what_was_looked_for_and_what_was_there() {
        let none = of(&[]).expect_err("no task");
        for scheduler in SCHEDULERS {
            assert!(none.contains(scheduler.index) && none.contains(scheduler.name), "{none}");
        }
        let count = of(&[("HEADROOM_SHARDS", "8"), ("JOB_COMPLETION_INDEX", "")]).expect_err("no task");
        assert!(count.contains("though HEADROOM_SHARDS is 8"), "{count}");
        // LSF sets its variable in every job.
        let lsf = of(&[("HEADROOM_SHARDS", "8"), ("LSB_JOBINDEX", "0")]).expect_err("no array");
        assert!(lsf.contains("LSB_JOBINDEX is 0"), "{lsf}");
        let slurm = of(&[("SLURM_ARRAY_TASK_ID", "3")]).expect_err("no number");
        assert!(slurm.contains("SLURM_ARRAY_TASK_ID is 3"), "{slurm}");
    }

    #[test]
    fn what_is_no_number_is_an_error_that_names_the_variable() {
        for value in ["x", "-1", "+1", "1.5", " 1", "99999999999999999999"] {
            for name in ["HEADROOM_SHARDS", "SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX"] {
                let error = of(&[("PBS_ARRAY_INDEX", "1"), (name, value)]).expect_err("no number");
                assert!(error.contains(name) && error.contains(value), "{error}");
            }
        }
    }

    #[test]
    fn two_schedulers_must_agree() {
        let both =
            |index| of(&[("SLURM_ARRAY_TASK_ID", "3"), ("JOB_COMPLETION_INDEX", index), ("HEADROOM_SHARDS", "8")]);
        assert_eq!(both("2"), Ok("3/8".to_owned()));
        let error = both("3").expect_err("two parts");
        assert!(
            error.contains("SLURM_ARRAY_TASK_ID says 3/8") && error.contains("JOB_COMPLETION_INDEX says 4/8"),
            "{error}"
        );
    }
}
