//! Certificates against references, against brute force, and against the program that really runs.

#![expect(clippy::print_stdout, reason = "a test says what it looked at")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use lm_headroom::{
    certificate::{
        CertificateError, Certifier, Flip, LeastFlips, Options, Outcome, Position, Rows, Within, all_least_flips,
        census, least_flips,
    },
    checkpoint::{Checkpoint, config::Override, family},
    edit::{Edit, Plan},
    kernels::{Kernel, Rounding},
    model::{BodyError, CpuProjection, Decoder, Projection, Query},
    quant::{FloatType, Format, MatrixRef, Tensor},
    subject::{self, Prompt, Subject},
    team::Team,
    testing::{
        brute_force::SmallHead,
        fixture::{Fixture, files_of},
        model::reference_folder,
        skipped,
    },
    trial::{Event, Finish, Task, Trials, Tying},
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
    reference_folder(name).map_err(|why| skipped(&format!("certificates on {name}"), &why)).ok()
}

/// The clean answers of a checkpoint to some prompts: hidden states and executed logits of each position.
struct Clean<'a> {
    head: MatrixRef<'a>,
    team: &'a Team,
    trials: Trials<'a, Decoder>,
    projection: CpuProjection<'a>,
    answers: Vec<(Vec<Vec<f32>>, Vec<f32>)>,
}

impl<'a> Clean<'a> {
    fn new(checkpoint: &'a Arc<Checkpoint>, team: &'a Arc<Team>, prompts: &'a [Vec<u32>]) -> Self {
        let (kernel, head) = (Kernel::best(), checkpoint.head().view());
        let body = Decoder::new(Arc::clone(checkpoint), kernel, Arc::clone(team));
        let mut projection = CpuProjection::new(head, kernel, team);
        let ids: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
        let eos = &checkpoint.config().eos_token_ids;
        let task = Task { prompts: ids, eos, max_tokens: 10, tying: Tying::Separate };
        let mut trials = Trials::new(body, kernel, team, task);
        trials.run(&mut projection, &[], |_| Ok::<_, BodyError>(())).expect("clean answers");
        let answers = (0..prompts.len())
            .map(|prompt| {
                let hidden: Vec<Vec<f32>> = trials.clean_hidden(prompt).map(<[f32]>::to_vec).collect();
                let logits = logits(&mut projection, &hidden);
                (hidden, logits)
            })
            .collect();
        Self { head, team, trials, projection, answers }
    }

    /// The token that the kernel chooses under flips, teacher-forced.
    fn chosen(&mut self, flips: &[Flip], hidden: &[f32], logits: &[f32]) -> usize {
        let plan = Flip::edit(flips).plan(&self.head).expect("a plan");
        let mut logits = logits.to_vec();
        self.projection.patch(&plan, hidden, &mut logits).expect("logits");
        Kernel::best().top(&logits).expect("finite").token
    }
}

fn logits(head: &mut CpuProjection<'_>, hidden: &[Vec<f32>]) -> Vec<f32> {
    let mut logits = vec![0.0; hidden.len() * head.vocab_size()];
    let query = Query { shift: 0, hidden: hidden.iter().map(Vec::as_slice).collect(), out: &mut logits };
    head.logits(vec![query]).expect("logits");
    logits
}

/// How far each favourable flip of a row moves its logit, the furthest `count`: told simply, flip by flip.
fn furthest(head: &MatrixRef<'_>, hidden: &[f32], row: usize, raise: bool, count: usize) -> Vec<(f64, Flip)> {
    let layout = head.layout();
    let mut best: Vec<(f64, Flip)> = Vec::new();
    let mut least = 0.0;
    for (column, &h) in hidden.iter().enumerate() {
        let weight = f64::from(head.scale(row, column / layout.group_size())) * f64::from(h);
        let code = head.code(row, column);
        for bit in 0..layout.bits() {
            let delta = (f64::from(code ^ (1 << bit)) - f64::from(code)) * weight;
            let gain = if raise { delta } else { -delta };
            if gain > least {
                best.push((gain, Flip { row: row as u32, column: column as u32, bit: bit as u8 }));
                best.sort_by(|a, b| b.0.total_cmp(&a.0));
                best.truncate(count);
                least = if best.len() == count { best[count - 1].0 } else { 0.0 };
            }
        }
    }
    best
}

/// Where a position's least count is two or more: every single flip of the whole head, one by one, and for every
/// rival the sets of one flip fewer that gain the most, leave its token alone, in real arithmetic; those that come
/// closest leave it alone in the program, too. How many single flips were looked at.
fn nothing_less_changes_it(
    clean: &mut Clean<'_>,
    position: &Position<'_>,
    hidden: &[f32],
    logits: &[f32],
    least: usize,
) -> usize {
    let (head, token) = (clean.head, position.token());
    let layout = head.layout();
    let rows: Vec<usize> = (0..layout.rows()).filter(|&row| row != token).collect();
    let losses = furthest(&head, hidden, token, false, least - 1);
    let lead = position.exact_logit(token).0;
    // By row: how far the largest single gain, and the largest set, leave it behind.
    let mut behind = vec![(0.0, Vec::new()); rows.len()];
    clean.team.for_each_chunk(&mut behind, 64, |chunk, behind| {
        for (i, behind) in behind.iter_mut().enumerate() {
            let row = rows[64 * chunk + i];
            let mut gains = furthest(&head, hidden, row, true, least - 1);
            let margin = lead - position.exact_logit(row).0;
            assert!(gains.first().is_none_or(|gain| gain.0 < margin), "{:?} alone changes the token", gains[0].1);
            assert!(losses[0].0 < margin, "{:?} alone changes the token", losses[0].1);
            gains.extend_from_slice(&losses);
            gains.sort_by(|a, b| b.0.total_cmp(&a.0));
            gains.truncate(least - 1);
            let missing = margin - gains.iter().map(|gain| gain.0).sum::<f64>();
            assert!(missing > 0.0, "{gains:?} change the token");
            *behind = (missing, gains.iter().map(|gain| gain.1).collect());
        }
    });
    behind.sort_by(|a, b| a.0.total_cmp(&b.0));
    for (_, flips) in behind.iter().take(50) {
        assert_eq!(clean.chosen(flips, hidden, logits), token, "{}", Flip::edit(flips));
    }
    layout.rows() * layout.cols() * layout.bits()
}

/// Least flips and census equal the reference: the first at every position, counts up to the bits that the reference
/// found within 1e-4 of the boundary. Witnesses change what they claim to; nothing less does.
fn compare(folder: &Path, trajectories: &str, least: &str, critical: &str) {
    let trajectories: Vec<Trajectory> = lines(trajectories);
    let (least, critical): (Vec<LeastFlipsReference>, Vec<CensusReference>) = (lines(least), lines(critical));
    let ids = |prompt: &str| {
        let found = trajectories.iter().find(|trajectory| trajectory.prompt == prompt && trajectory.shift == 0);
        found.expect("its trajectory").prompt_ids.clone()
    };
    let prompts: Vec<Vec<u32>> = least.iter().map(|reference| ids(&reference.prompt)).collect();
    let checkpoint = Arc::new(Checkpoint::open(folder).expect("a checkpoint"));
    let team = Arc::new(Team::of_this_machine());
    let mut clean = Clean::new(&checkpoint, &team, &prompts);
    let rows = Rows::new(clean.head, Rounding::KERNELS, &team);
    let layout = *rows.head().layout();
    let (mut compared, mut counted, mut undecided, mut excluded) = (0, 0, 0, 0);
    let mut witnesses: Vec<Plan> = Vec::new();
    for (answer, (least, critical)) in least.iter().zip(&critical).enumerate() {
        assert_eq!(least.prompt, critical.prompt);
        assert_eq!(layout.rows() * layout.cols() * layout.bits(), critical.total_bits);
        let (hidden, logits) = clean.answers[answer].clone();
        let logits: Vec<&[f32]> = logits.chunks_exact(layout.rows()).collect();
        let positions: Vec<Position<'_>> = hidden
            .iter()
            .zip(&logits)
            .map(|(hidden, logits)| Position::new(&rows, hidden, logits).expect("finite"))
            .collect();
        assert_eq!((positions.len(), positions.len()), (least.positions.len(), critical.positions.len()));
        let found: Vec<LeastFlips> = all_least_flips(&positions, &[], &team)
            .into_iter()
            .map(|found| found.expect("it can be changed"))
            .collect();
        for (index, (position, (found, reference))) in
            positions.iter().zip(found.iter().zip(&least.positions)).enumerate()
        {
            let what = format!("{:?}, position {index}", least.prompt);
            assert_eq!((position.token(), found.flips), (reference.token, reference.flips), "{what}");
            assert_eq!((found.executed_at_least, found.witness.len()), (found.flips, found.flips), "{what}");
            assert!((position.exact_logit(position.token()).0 - reference.logit).abs() < 1e-3, "{what}");
            if found.rival == reference.rival {
                assert!((found.margin - reference.margin).abs() < 1e-3, "{what}: {found:?}");
                assert!((found.slack - reference.slack).abs() < 1e-3, "{what}: {found:?}");
            } else {
                // Of the rivals that so many flips suffice for, the one with the most slack is taken here.
                assert!(found.slack > reference.slack - 1e-3, "{what}: {found:?}");
            }
            assert_eq!(clean.chosen(&found.witness, &hidden[index], logits[index]), found.rival, "{what}");
            if found.flips > 1 {
                let flips = found.flips;
                excluded += nothing_less_changes_it(&mut clean, position, &hidden[index], logits[index], flips);
            }
            compared += 1;
        }
        let weakest = found.iter().min_by_key(|found| found.flips).expect("there are positions");
        assert_eq!(weakest.flips, least.flips);
        witnesses.push(Flip::edit(&weakest.witness).plan(&clean.head).expect("a plan"));

        let censuses = census(&positions, &team);
        let mut union = BTreeSet::new();
        let mut near = 0;
        for (index, (census, reference)) in censuses.iter().zip(&critical.positions).enumerate() {
            let found = census.critical().count();
            let what = format!("{:?}, position {index}: {found}, reference {}", critical.prompt, reference.critical);
            assert_eq!(positions[index].token(), reference.token, "{what}");
            assert!(found.abs_diff(reference.critical) <= reference.within_1e4, "{what}");
            union.extend(census.critical().map(|hit| hit.flip));
            near += reference.within_1e4;
            counted += found;
            undecided += census.undecided().count();
        }
        assert!(union.len().abs_diff(critical.critical_union) <= near);
    }
    // The witness of each answer, free-running.
    let pairs: Vec<(usize, usize)> = (0..witnesses.len()).map(|answer| (answer, answer)).collect();
    let answers: Vec<Vec<u32>> = clean.trials.clean().map(|answer| answer.tokens.clone()).collect();
    let mut changed = 0;
    clean
        .trials
        .run_some(&mut clean.projection, &witnesses, &pairs, |event| {
            if let Event::Trial(trial) = event {
                assert_ne!(trial.trajectory.tokens, answers[trial.prompt], "prompt {}", trial.prompt);
                changed += 1;
            }
            Ok::<_, BodyError>(())
        })
        .expect("trials");
    assert_eq!(changed, answers.len());
    println!(
        "{}: {compared} positions equal, {counted} critical bits, {undecided} undecided; {excluded} single flips seen to \
         change nothing where two are certified; {changed} answers changed by their witness; kernel {}",
        folder.display(),
        Kernel::best().name()
    );
}

const G64: &str = include_str!("fixtures/reference/smollm2-g64.jsonl");
const G32: &str = include_str!("fixtures/reference/smollm2-g32.jsonl");
const G64_LEAST: &str = include_str!("fixtures/reference/smollm2-g64.least_flips.jsonl");
const G64_CRITICAL: &str = include_str!("fixtures/reference/smollm2-g64.critical_bits.jsonl");
const G32_LEAST: &str = include_str!("fixtures/reference/smollm2-g32-eos.least_flips.jsonl");
const G32_CRITICAL: &str = include_str!("fixtures/reference/smollm2-g32-eos.critical_bits.jsonl");

/// Cases for the property below; `PROPTEST_CASES` asks for more.
const CASES: u32 = 1_000;

#[test]
fn no_fewer_flips_change_a_token_and_every_witness_does() {
    let reached: Mutex<BTreeMap<(String, Option<usize>), usize>> = Mutex::default();
    let mut config = Config::default();
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = CASES;
    }
    let cases = config.cases;
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..config });
    let tried = Mutex::new((0_u64, 0_usize));
    runner
        .run(&vec(any::<u8>(), 48..96), |bytes| {
            let head = SmallHead::from_bytes(&bytes);
            let checked = head.check().map_err(TestCaseError::fail)?;
            let mut tried = tried.lock().expect("no panic");
            *tried = (tried.0 + checked.tried, tried.1 + checked.critical);
            if checked.exhausted {
                let least = checked.least_finite.map(|least| least.min(6));
                *reached.lock().expect("no panic").entry((head.format.to_string(), least)).or_default() += 1;
            }
            Ok(())
        })
        .expect("no counterexample");
    let reached = reached.into_inner().expect("no panic");
    println!(
        "cases by format and least flips that leave all codes numbers (6: or more), all sets of fewer tried: {reached:?}; \
         sets tried, critical bits: {tried:?}"
    );
    // Fewer cases than these may hold no case of some count.
    for (floats, flips) in [false, true].into_iter().flat_map(|floats| (1..=5).map(move |flips| (floats, flips))) {
        let of = |format: &str| floats != format.starts_with("affine");
        let found: usize =
            reached.iter().filter(|((format, least), _)| of(format) && *least == Some(flips)).map(|(_, n)| n).sum();
        println!("{} codes, {flips} flips: {found} cases", if floats { "float" } else { "integer" });
        assert!(found > 0 || cases < CASES, "no case of {flips} flips: {reached:?}");
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

fn subject_of(checkpoint: Arc<Checkpoint>) -> Subject {
    let team = Arc::new(Team::new(2));
    Subject::new("fixture".to_owned(), None, checkpoint, Kernel::best(), team).expect("a tokenizer")
}

const EVERYTHING: Options =
    Options { max_tokens: 10, within: Some(Within::Word), silence_eos: true, toward: Some(5), weakest: 20 };

#[test]
fn every_witness_of_the_model_inside_does_what_it_claims() {
    let model = subject_of(subject::open(None).expect("the model inside"));
    let certifier = Certifier::new(&model).expect("a head of its own");
    let matrix = model.head().view();
    let (mut positions, mut certified) = (0, BTreeMap::<usize, usize>::new());
    for (text, within) in [("What is 2+2?", Within::Word), ("What is the capital of France?", Within::Line)] {
        let prompt = model.prompt(text).expect("ids");
        let options = Options { within: Some(within), ..EVERYTHING };
        let answer = certifier.answer(&prompt, &options, &mut |_| Ok(())).expect("a certificate");
        assert_eq!(answer.failures, [""; 0]);
        // The eos step is a position, too.
        assert_eq!((answer.finish, answer.positions.len()), (Finish::Stop, answer.tokens.len() + 1));
        for at in &answer.positions {
            assert_eq!(at.witness_changes, Some(true), "{at:?}");
            assert_eq!(at.executed_at_least, at.least_flips, "{at:?}");
            *certified.entry(at.least_flips.expect("it can be changed")).or_default() += 1;
            positions += 1;
        }
        assert!(answer.witness_run.expect("a witness").changed);
        let witness: Edit = answer.witness.expect("a witness").parse().expect("an edit");
        assert_eq!(Some(witness.changes().len()), answer.least_flips);
        let within = answer.within.expect("asked for");
        assert!(within.least_flips >= answer.least_flips && within.witness_changes == Some(true), "{within:?}");
        let silence = answer.silence_eos.expect("asked for");
        assert!(silence.at_least >= answer.least_flips && silence.at_most >= silence.at_least, "{silence:?}");
        let toward = answer.toward.expect("asked for");
        assert_eq!((toward.witness_works, toward.executed_at_least), (Some(true), toward.least_flips), "{toward:?}");
        for weak in &answer.weakest {
            let flips: Edit = weak.edit.parse().expect("an edit");
            assert!(flips.plan(&matrix).is_ok() && weak.ran.changed, "{weak:?}");
        }
        let critical = answer.critical.as_ref().expect("a set");
        let counts = [answer.critical_bits, answer.scales.critical_bits, answer.biases.critical_bits];
        assert_eq!(counts, [Tensor::Weight, Tensor::Scales, Tensor::Biases].map(|tensor| critical.len(tensor)));
    }
    println!("{positions} positions, by least flips: {certified:?}");
    assert!(certified.keys().any(|&flips| flips >= 2));
}

#[test]
fn nothing_less_than_certified_changes_a_token_of_the_model_inside() {
    let checkpoint = subject::open(None).expect("the model inside");
    let model = subject_of(Arc::clone(&checkpoint));
    let prompts = [model.prompt("What is 2+2?").expect("ids").ids];
    let team = Arc::clone(model.team());
    let mut clean = Clean::new(&checkpoint, &team, &prompts);
    let rows = Rows::new(clean.head, Rounding::KERNELS, &team);
    let (hidden, logits) = clean.answers[0].clone();
    let mut seen = 0;
    for (hidden, logits) in hidden.iter().zip(logits.chunks_exact(rows.head().layout().rows())) {
        let position = Position::new(&rows, hidden, logits).expect("finite");
        let least = least_flips(&position, &[]).expect("it can be changed").flips;
        if least > 1 {
            seen += nothing_less_changes_it(&mut clean, &position, hidden, logits, least);
        }
    }
    assert!(seen > 0);
}

/// A small model with a head in this format.
fn with_head(format: Format, fixture: Fixture) -> Fixture {
    Fixture { overrides: [("lm_head".to_owned(), Override::Format(format))].into(), ..fixture }
}

/// Heads of every format and scale type, with hidden states of their own; those of Phi have a bias.
fn heads() -> impl Iterator<Item = (Arc<Checkpoint>, Vec<f32>)> {
    let families = ["llama", "phi"].into_iter().map(|name| family::named(name).expect("a native family"));
    families.flat_map(|family| Format::all().zip(0_u64..).map(move |(format, seed)| (family, format, seed))).map(
        |(family, format, seed)| {
            let scale_type = [FloatType::F16, FloatType::Bf16, FloatType::F32][(seed / 3 + seed) as usize % 3];
            let hidden_size = [128, 256][seed as usize % 2];
            // Phi turns a part of each head, which is an even number of columns in heads of 32.
            let num_attention_heads = hidden_size / 32;
            let sizes =
                Fixture { hidden_size, intermediate_size: hidden_size, num_attention_heads, ..Fixture::default() };
            let small = Fixture { family, seed, scale_type, ..sizes };
            let fixture = with_head(format, small);
            let checkpoint = Arc::new(Checkpoint::from_files(fixture.files()).expect("a checkpoint"));
            // A few columns far larger than the others, as in trained models.
            let hidden = (0..hidden_size)
                .map(|c| (c as f32 * 1.7 + seed as f32).sin() * if c % 29 == 3 { 12.0 } else { 1.0 })
                .collect();
            (checkpoint, hidden)
        },
    )
}

#[test]
fn executed_logits_lie_within_the_bound_and_not_far_within() {
    let mut closest = 0.0_f64;
    for (checkpoint, hidden) in heads() {
        let head = checkpoint.head().view();
        let (after, team) = (checkpoint.after_head(), Team::new(1));
        let rows = Rows::new(head, Rounding::KERNELS, &team).with_bias(after.bias.as_deref());
        let mut projection = CpuProjection::new(head, Kernel::best(), &team).with(&after);
        let executed = logits(&mut projection, std::slice::from_ref(&hidden));
        let position = Position::new(&rows, &hidden, &executed).expect("finite");
        let group_size = head.layout().group_size();
        for (row, &executed) in executed.iter().enumerate() {
            let weight = |c: usize| {
                let group = c / group_size;
                let value = head.layout().format().codes().value(head.code(row, c));
                let bias = if head.biases().is_some() { head.bias(row, group) } else { 0.0 };
                f64::from(head.scale(row, group)) * f64::from(value) + f64::from(bias)
            };
            let product: f64 = hidden.iter().enumerate().map(|(c, &h)| weight(c) * f64::from(h)).sum();
            let exact = product + after.bias.as_ref().map_or(0.0, |bias| f64::from(bias[row]));
            let (logit, bound) = position.exact_logit(row);
            assert!((logit - exact).abs() < 1e-12 && bound > 0.0);
            let share = (f64::from(executed) - exact).abs() / bound;
            assert!(share <= 1.0, "row {row}: {executed} for {exact}, bound {bound}");
            closest = closest.max(share);
        }
    }
    println!("largest error: {closest:.3} of its bound");
    // A bound that nothing comes near would pass the above whatever it says.
    assert!(closest > 0.02);
}

#[test]
fn what_the_census_says_of_the_executed_program_holds_of_every_single_flip() {
    let (mut flips, mut changing, mut undecided, mut nan) = (0, 0, 0, 0);
    for (checkpoint, hidden) in heads() {
        let head = checkpoint.head().view();
        let layout = *head.layout();
        let (after, team) = (checkpoint.after_head(), Team::new(2));
        let mut projection = CpuProjection::new(head, Kernel::best(), &team).with(&after);
        let executed = logits(&mut projection, std::slice::from_ref(&hidden));
        let rows = Rows::new(head, Rounding::KERNELS, &team).with_bias(after.bias.as_deref());
        let position = Position::new(&rows, &hidden, &executed).expect("finite");
        let found: BTreeMap<Flip, Outcome> =
            census(&[position], &team)[0].hits.iter().map(|hit| (hit.flip, hit.executed)).collect();
        let to_nan: BTreeSet<Flip> = rows.nan().iter().flat_map(|nan| &nan.single).copied().collect();
        let token = Kernel::best().top(&executed).expect("finite").token;
        let mut logits = executed.clone();
        for row in 0..layout.rows() as u32 {
            for (column, bit) in (0..layout.cols() as u32).flat_map(|c| (0..layout.bits() as u8).map(move |b| (c, b))) {
                // Every bit of the first rows, and some of all.
                if row > 8 && row as usize != token && (column + u32::from(bit)) % 7 != 0 {
                    continue;
                }
                let flip = Flip { row, column, bit };
                let plan = Flip::edit(&[flip]).plan(&head).expect("a plan");
                projection.patch(&plan, &hidden, &mut logits).expect("logits");
                let top = Kernel::best().top(&logits);
                let changes = top.is_none_or(|top| top.token != token);
                logits[row as usize] = executed[row as usize];
                assert_eq!(top.is_none(), to_nan.contains(&flip), "{flip:?}");
                nan += usize::from(top.is_none());
                match found.get(&flip) {
                    _ if top.is_none() => assert!(!found.contains_key(&flip), "{flip:?}"),
                    Some(Outcome::Changes) => assert!(changes, "{flip:?}"),
                    Some(Outcome::Stays) | None => assert!(!changes, "{flip:?}"),
                    Some(Outcome::Undecided) => undecided += 1,
                }
                flips += 1;
                changing += usize::from(changes);
            }
        }
    }
    println!("{flips} flips run, {changing} change the token, {nan} of them by NaN, {undecided} were undecided");
    assert!(changing > 100 && nan > 0 && undecided < changing / 10);
}

#[test]
fn answers_of_heads_in_every_format_are_certified_and_every_witness_does_what_it_claims() {
    let (mut by_nan, mut biases) = (0, 0);
    for (format, seed) in Format::all().zip(0..) {
        // Phi's head has a bias.
        let family = family::named(if seed % 3 == 2 { "phi" } else { "llama" }).expect("a native family");
        let fixture = with_head(format, Fixture { family, hidden_size: 128, seed, ..Fixture::default() });
        let subject = subject_of(Arc::new(Checkpoint::from_files(fixture.files()).expect("a checkpoint")));
        let biased = subject.backend().after_head().bias.is_some();
        biases += usize::from(biased);
        let certifier = Certifier::new(&subject).expect("a head of its own");
        let prompt = Prompt { text: String::new(), ids: vec![1, 3], expected: Vec::new(), date: None };
        for within in [Within::Word, Within::Row, Within::Line] {
            let options = Options { within: Some(within), max_tokens: 4, ..EVERYTHING };
            let answer = certifier.answer(&prompt, &options, &mut |_| Ok(())).expect("a certificate");
            assert_eq!(answer.failures, [""; 0], "{format}");
            assert!(answer.positions.iter().all(|at| at.witness_changes == Some(true)), "{format}");
            let (least, run) = (answer.least_flips.expect("flips do"), answer.witness_run.expect("it was run"));
            assert!(run.changed && least > 0, "{format}");
            let within = answer.within.expect("asked for");
            assert!(within.least_flips >= Some(least) && within.witness_changes == Some(true), "{format}: {within:?}");
            let toward = answer.toward.expect("asked for");
            assert_ne!(toward.witness_works, Some(false), "{format}: {toward:?}");
            assert_eq!(answer.biases.total_bits > 0, format.has_biases(), "{format}");
            assert_eq!(answer.critical_bits > 0, least == 1, "{format}");
            assert!(answer.scales.critical_bits > 0 && (answer.critical_bits > 0 || biased), "{format}");
            assert_eq!(answer.nan.is_some(), format == Format::MXFP8, "{format}");
            if let Some(nan) = answer.nan {
                assert_eq!(nan.witness_run.expect("it was run").finish, Finish::Nonfinite);
                assert!(least <= nan.flips && Some(least) <= nan.least_finite_flips);
                by_nan += usize::from(Some(least) < nan.least_finite_flips);
            }
        }
    }
    println!("answers of which NaN takes fewer flips than any other token: {by_nan}; heads with a bias: {biases}");
    assert!(biases >= 5);
}

#[test]
fn a_head_that_is_the_embedding_too_is_refused() {
    let tied = Fixture { tie_word_embeddings: Some(true), ..Fixture::default() };
    let checkpoint = Arc::new(Checkpoint::from_files(tied.files()).expect("a checkpoint"));
    let shared = subject_of(Arc::clone(&checkpoint)).with_shared_embedding(true);
    let error = Certifier::new(&shared).expect_err("no certificate");
    assert!(matches!(error, CertificateError::Tied) && error.to_string().contains("--tied separate"), "{error}");
    // A copy of it used as the head alone is a head like any other.
    assert!(Certifier::new(&subject_of(checkpoint)).is_ok());
}

#[test]
fn an_answer_that_is_not_finite_is_refused() {
    let fixture = Fixture::default();
    let mut tensors = fixture.tensors();
    tensors.get_mut("lm_head.scales").expect("scales").data[..2].copy_from_slice(&0x7c00_u16.to_le_bytes());
    let checkpoint = Checkpoint::from_files(files_of(&fixture.config(), &tensors, 1)).expect("a checkpoint");
    let subject = subject_of(Arc::new(checkpoint));
    let certifier = Certifier::new(&subject).expect("a head of its own");
    let prompt = Prompt { text: String::new(), ids: vec![1, 3], expected: Vec::new(), date: None };
    let error = certifier.answer(&prompt, &EVERYTHING, &mut |_| Ok(())).expect_err("no certificate");
    assert!(matches!(error, CertificateError::NotFinite { step: Some(0) }), "{error}");
    assert!(error.to_string().contains("step 0"), "{error}");
}

#[test]
fn a_head_without_scales_cannot_be_changed_by_flips_of_codes() {
    let fixture = Fixture::default();
    let mut tensors = fixture.tensors();
    tensors.get_mut("lm_head.scales").expect("scales").data.fill(0);
    let checkpoint = Checkpoint::from_files(files_of(&fixture.config(), &tensors, 1)).expect("a checkpoint");
    let subject = subject_of(Arc::new(checkpoint));
    let certifier = Certifier::new(&subject).expect("a head of its own");
    let prompt = Prompt { text: String::new(), ids: vec![1, 3], expected: Vec::new(), date: None };
    let answer = certifier.answer(&prompt, &EVERYTHING, &mut |_| Ok(())).expect("a certificate");
    assert_eq!((answer.least_flips, answer.critical_bits, answer.undecided_bits), (None, 0, 0));
    assert_eq!((answer.witness, answer.failures), (None, Vec::new()));
    // Its scales and biases can: a bit high in an exponent is enough.
    assert!(answer.biases.critical_bits > 0);
}
