//! Certificates against references, against brute force, and against the program that really runs.

#![expect(clippy::print_stdout, reason = "a test says what it looked at")]

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use lm_headroom::{
    certificate::{Position, Rows, census, least_flips},
    checkpoint::Checkpoint,
    kernels::Kernel,
    model::{BodyError, CpuProjection, Llama, Projection, Query},
    team::Team,
    testing::{brute_force::SmallHead, skipped},
    trial::{Task, Trials, Tying},
};
use proptest::{
    collection::vec,
    prelude::any,
    test_runner::{Config, TestCaseError, TestRunner},
};
use serde::Deserialize;

#[derive(Deserialize)]
struct LeastFlipsReference {
    prompt: String,
    flips: usize,
    positions: Vec<LeastFlipsPosition>,
}

#[derive(Deserialize)]
struct LeastFlipsPosition {
    token: usize,
    logit: f64,
    flips: usize,
    rival: usize,
    margin: f64,
    slack: f64,
}

#[derive(Deserialize)]
struct CensusReference {
    prompt: String,
    critical_union: usize,
    total_bits: usize,
    positions: Vec<CensusPosition>,
}

#[derive(Deserialize)]
struct CensusPosition {
    token: usize,
    critical: usize,
    within_1e4: usize,
}

#[derive(Deserialize)]
struct Trajectory {
    prompt: String,
    shift: i64,
    prompt_ids: Vec<u32>,
}

fn lines<T: for<'a> Deserialize<'a>>(text: &str) -> Vec<T> {
    text.lines().map(|line| serde_json::from_str(line).expect("a reference")).collect()
}

fn model(name: &str) -> Option<PathBuf> {
    let found = std::env::var_os("HEADROOM_MODELS").map(|folder| PathBuf::from(folder).join(name));
    let found = found.filter(|folder| folder.join("config.json").exists());
    if found.is_none() {
        skipped(&format!("certificates on {name}"), "HEADROOM_MODELS names no folder that holds it");
    }
    found
}

/// The clean answers of a checkpoint to some prompts: hidden states and executed logits of each position.
struct Clean {
    checkpoint: Arc<Checkpoint>,
    team: Arc<Team>,
    kernel: Kernel,
    answers: Vec<(Vec<Vec<f32>>, Vec<f32>)>,
}

impl Clean {
    fn new(folder: &PathBuf, prompts: &[Vec<u32>]) -> Self {
        let checkpoint = Arc::new(Checkpoint::open(folder).expect("a checkpoint"));
        let (team, kernel) = (Arc::new(Team::of_this_machine()), Kernel::best());
        let body = Llama::new(Arc::clone(&checkpoint), kernel, Arc::clone(&team));
        let mut head = CpuProjection::new(checkpoint.weights().head().view(), kernel, &team);
        let eos = checkpoint.config().eos_token_ids.clone();
        let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
        let count = prompts.len();
        let task = Task { prompts, eos: &eos, max_tokens: 10, tying: Tying::Separate };
        let mut trials = Trials::new(body, kernel, &team, task);
        trials.run(&mut head, &[], |_| Ok::<_, BodyError>(())).expect("clean answers");
        let vocab = head.vocab_size();
        let answers = (0..count)
            .map(|prompt| {
                let hidden: Vec<Vec<f32>> = trials.clean_hidden(prompt).map(<[f32]>::to_vec).collect();
                let mut logits = vec![0.0; hidden.len() * vocab];
                let query = Query { shift: 0, hidden: hidden.iter().map(Vec::as_slice).collect(), out: &mut logits };
                head.logits(vec![query]).expect("logits");
                (hidden, logits)
            })
            .collect();
        drop(trials);
        Self { checkpoint, team, kernel, answers }
    }
}

/// Least flips and census equal the reference: the first at every position, counts up to the bits that the reference
/// found within 1e-4 of the boundary.
fn compare(folder: &PathBuf, trajectories: &str, least: &str, critical: &str) {
    let trajectories: Vec<Trajectory> = lines(trajectories);
    let (least, critical): (Vec<LeastFlipsReference>, Vec<CensusReference>) = (lines(least), lines(critical));
    let ids = |prompt: &str| {
        let found = trajectories.iter().find(|trajectory| trajectory.prompt == prompt && trajectory.shift == 0);
        found.expect("its trajectory").prompt_ids.clone()
    };
    let prompts: Vec<Vec<u32>> = least.iter().map(|reference| ids(&reference.prompt)).collect();
    let clean = Clean::new(folder, &prompts);
    let rows = Rows::new(clean.checkpoint.weights().head().view(), &clean.team);
    let layout = *rows.head().layout();
    let (mut compared, mut counted, mut undecided) = (0, 0, 0);
    for ((hidden, logits), (least, critical)) in clean.answers.iter().zip(least.iter().zip(&critical)) {
        assert_eq!(least.prompt, critical.prompt);
        assert_eq!(layout.rows() * layout.cols() * layout.bits().get(), critical.total_bits);
        let positions: Vec<Position<'_>> = hidden
            .iter()
            .zip(logits.chunks_exact(layout.rows()))
            .map(|(hidden, logits)| Position::new(&rows, hidden, logits).expect("finite"))
            .collect();
        assert_eq!((positions.len(), positions.len()), (least.positions.len(), critical.positions.len()));
        let mut fewest = usize::MAX;
        for (index, (position, reference)) in positions.iter().zip(&least.positions).enumerate() {
            let what = format!("{:?}, position {index}", least.prompt);
            let found = least_flips(position, &[]).expect("it can be changed");
            assert_eq!((position.token(), found.flips), (reference.token, reference.flips), "{what}");
            assert_eq!(found.executed_at_least, found.flips, "{what}");
            assert!((f64::from(logits[index * layout.rows() + position.token()]) - reference.logit).abs() < 1e-3);
            if found.rival == reference.rival {
                assert!((found.margin - reference.margin).abs() < 1e-3, "{what}: {found:?}");
                assert!((found.slack - reference.slack).abs() < 1e-3, "{what}: {found:?}");
            } else {
                // Of the rivals that so many flips suffice for, the one with the most slack is taken here.
                assert!(found.slack > reference.slack - 1e-3, "{what}: {found:?}");
            }
            fewest = fewest.min(found.flips);
            compared += 1;
        }
        assert_eq!(fewest, least.flips);
        let censuses = census(&positions, &clean.team);
        let mut union = std::collections::BTreeSet::new();
        let mut near = 0;
        for (index, (census, reference)) in censuses.iter().zip(&critical.positions).enumerate() {
            let found = census.critical().count();
            let what = format!("{:?}, position {index}: {found}, {}", critical.prompt, reference.critical);
            assert_eq!(positions[index].token(), reference.token, "{what}");
            assert!(found.abs_diff(reference.critical) <= reference.within_1e4, "{what}");
            union.extend(census.critical().map(|hit| hit.flip));
            near += reference.within_1e4;
            counted += found;
            undecided += census.undecided().count();
        }
        assert!(union.len().abs_diff(critical.critical_union) <= near);
    }
    println!(
        "{}: {compared} positions equal, {counted} critical bits, {undecided} undecided, kernel {}",
        folder.display(),
        clean.kernel.name()
    );
}

const G64: &str = include_str!("fixtures/reference/smollm2-g64.jsonl");
const G32: &str = include_str!("fixtures/reference/smollm2-g32.jsonl");
const G64_LEAST: &str = include_str!("fixtures/reference/smollm2-g64.least_flips.jsonl");
const G64_CRITICAL: &str = include_str!("fixtures/reference/smollm2-g64.critical_bits.jsonl");
const G32_LEAST: &str = include_str!("fixtures/reference/smollm2-g32-eos.least_flips.jsonl");
const G32_CRITICAL: &str = include_str!("fixtures/reference/smollm2-g32-eos.critical_bits.jsonl");

/// Cases for the property below; `PROPTEST_CASES` asks for more.
const CASES: u32 = 300;

#[test]
fn no_fewer_flips_change_a_token_and_every_witness_does() {
    let reached: Mutex<BTreeMap<Option<usize>, usize>> = Mutex::default();
    let mut config = Config::default();
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = CASES;
    }
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..config });
    let tried = Mutex::new((0_u64, 0_usize));
    runner
        .run(&vec(any::<u8>(), 24..40), |bytes| {
            let checked = SmallHead::from_bytes(&bytes).check().map_err(TestCaseError::fail)?;
            let mut tried = tried.lock().expect("no panic");
            *tried = (tried.0 + checked.tried, tried.1 + checked.critical);
            if checked.exhausted {
                *reached.lock().expect("no panic").entry(checked.least.map(|least| least.min(6))).or_default() += 1;
            }
            Ok(())
        })
        .expect("no counterexample");
    let reached = reached.into_inner().expect("no panic");
    println!(
        "cases by least flips (6: or more), all sets of fewer tried: {reached:?}; sets tried, critical bits: {tried:?}"
    );
    for flips in 1..=6 {
        assert!(reached.get(&Some(flips)).is_some_and(|&cases| cases > 0), "no case of {flips} flips: {reached:?}");
    }
}

#[test]
fn group_64_has_the_least_flips_and_critical_bits_of_the_reference() {
    if let Some(folder) = model("smollm2-g64") {
        compare(&folder, G64, G64_LEAST, G64_CRITICAL);
    }
}

#[test]
fn an_answer_that_ends_in_its_eos_has_those_of_the_reference_too() {
    if let Some(folder) = model("smollm2-g32") {
        compare(&folder, G32, G32_LEAST, G32_CRITICAL);
    }
}
