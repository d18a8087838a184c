//! Law 6: trials through the trie in waves = each trial alone from scratch = prefill of the whole text, to
//! the bit. And what follows from it: results depend neither on threads nor on the kernel, nor on what
//! else is in the run.

#![expect(clippy::print_stdout, reason = "a test says what it looked at, or that it was skipped")]

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    sync::Arc,
};

use lm_headroom::{
    checkpoint::{
        Checkpoint, Family,
        family::{NATIVE, named},
    },
    edit::{Edit, Plan},
    kernels::{Kernel, scalar},
    model::{Body, BodyError, CpuProjection, Decoder, Extension, Parent, Projection, Query, Slot, Step},
    team::Team,
    testing::{
        comparators::same_bits,
        oracles::{Reached, trie as oracle},
    },
    trial::{Draw, Event, Finish, Task, Trial, Trials, Tying},
};

fn family(name: &str) -> &'static Family {
    named(name).expect("a native family")
}

fn edit(text: &str) -> Edit {
    text.parse().expect("an edit")
}

/// Stands for flips that make a scale infinite or NaN.
const BREAK_A_SCALE: &str = "(break a scale)";

fn edit_of(checkpoint: &Checkpoint, text: &str) -> Edit {
    if text == BREAK_A_SCALE { oracle::break_a_scale(&checkpoint.head().view(), 0) } else { edit(text) }
}

fn plans(checkpoint: &Checkpoint, edits: &[&str]) -> Vec<Plan> {
    let head = checkpoint.head().view();
    edits.iter().map(|text| edit_of(checkpoint, text).plan(&head).expect("a plan")).collect()
}

struct Setting {
    kernel: Kernel,
    threads: usize,
    eos: Vec<u32>,
    max_tokens: usize,
    shared: bool,
}

impl Default for Setting {
    fn default() -> Self {
        Self { kernel: Kernel::best(), threads: 2, eos: vec![2, 5], max_tokens: 12, shared: false }
    }
}

fn run(checkpoint: &Arc<Checkpoint>, prompts: &[Vec<u32>], plans: &[Plan], setting: &Setting) -> Vec<Trial> {
    let team = Arc::new(Team::new(setting.threads));
    let body = Decoder::new(Arc::clone(checkpoint), setting.kernel, Arc::clone(&team));
    let head = checkpoint.head().view();
    let mut projection = CpuProjection::new(head, setting.kernel, &team);
    let tying = if setting.shared { Tying::Shared(head) } else { Tying::Separate };
    let task = Task {
        prompts: prompts.iter().map(Vec::as_slice).collect(),
        eos: &setting.eos,
        max_tokens: setting.max_tokens,
        tying,
    };
    Trials::new(body, setting.kernel, &team, task).all(&mut projection, plans).expect("trials")
}

/// Prompts that share prefixes, one inside another, and one longer than a batch of the body.
fn prompts() -> Vec<Vec<u32>> {
    let long: Vec<u32> = (0..300).map(|i| (i * 7 + 3) % 90).collect();
    vec![vec![1, 7, 9, 30], vec![1, 7, 9], vec![1, 7, 12, 13, 14], vec![60], long]
}

/// Shifts, single elements, compositions, and scales that become infinite or NaN.
const EDITS: [&str; 11] = [
    "clean",
    "shift:1",
    "shift:16",
    "shift:-9223372036854775807",
    "shift:2147483648+flip:weight[3,7].3",
    "flip:weight[7,0].3+shift:305419896+flip:weight[7,1].0",
    "random:flips=40,seed=1",
    "random:flips=6,seed=2,tensor=scales",
    "random:flips=6,seed=3,tensor=biases",
    BREAK_A_SCALE,
    "set:word[5,2]=0xffffffff+add:weight[9,9]=-3+xor:word[50,0]=0x80000000",
];

fn waves(
    (family, seed): (&'static Family, u64),
    prompts: &[Vec<u32>],
    edits: &[&str],
    max_tokens: usize,
    shared: bool,
    reached: &mut Reached,
) {
    let checkpoint = oracle::model(family, seed, shared);
    let edits: Vec<Edit> = edits.iter().map(|text| edit_of(&checkpoint, text)).collect();
    let setting = oracle::Setting { eos: &[2, 5], max_tokens, shared };
    oracle::waves(&checkpoint, Kernel::best(), prompts, &edits, &setting, reached)
        .unwrap_or_else(|violation| panic!("{}, seed {seed}: {violation}", family.name));
}

fn law_6(shared: bool) {
    let (mut reached, mut trials) = (Reached::default(), 0);
    for family in NATIVE.into_iter().filter(|family| family.may_be_tied(shared) == shared) {
        // Of Llama much, of each other family what is particular to it.
        let (seeds, prompts, edits) = match family.name {
            "llama" => (6, prompts(), &EDITS[..]),
            _ => (1, prompts()[..3].to_vec(), &EDITS[..6]),
        };
        for seed in 0..seeds {
            waves((family, seed), &prompts, edits, 12, shared, &mut reached);
        }
        trials += seeds * (prompts.len() * edits.len()) as u64;
    }
    println!("{reached}");
    let ends = ["stop", "length", "nonfinite"];
    reached.require(&ends).expect("each end");
    assert_eq!(ends.map(|end| reached.count(end)).iter().sum::<u64>(), trials);
}

#[test]
fn trials_in_waves_are_trials_alone_to_the_bit() {
    law_6(false);
}

/// The same in little, for a build that is not optimized.
#[test]
fn a_few_trials_of_a_shared_matrix_are_trials_alone() {
    waves((family("llama"), 1), &prompts()[..2], &EDITS[..5], 4, true, &mut Reached::default());
}

#[test]
fn trials_of_a_shared_tied_matrix_are_trials_alone_to_the_bit() {
    law_6(true);
}

#[test]
fn a_mistral_has_the_bits_of_a_llama_of_the_same_weights() {
    let of = |family: &'static Family| {
        let checkpoint = oracle::model(family, 2, false);
        assert_eq!(checkpoint.config().family.model_type, family.model_type);
        run(&checkpoint, &prompts(), &plans(&checkpoint, &EDITS), &Setting::default())
    };
    let (mistral, llama) = (of(family("mistral")), of(family("llama")));
    assert_eq!(mistral.len(), 5 * EDITS.len());
    for (a, b) in mistral.iter().zip(&llama) {
        assert_eq!((a.prompt, a.edit), (b.prompt, b.edit));
        assert_eq!(a.trajectory.tokens, b.trajectory.tokens);
        same_bits(&a.trajectory.margin, &b.trajectory.margin).expect("equal margins");
    }
}

#[test]
fn hidden_states_do_not_depend_on_how_a_prefix_was_cut_into_calls() {
    let checkpoint = oracle::model(family("llama"), 3, false);
    let tokens: Vec<u32> = (0..301).map(|i| (i * 11 + 5) % 96).collect();
    let hidden = |cuts: &[usize]| {
        let mut body = Decoder::new(Arc::clone(&checkpoint), Kernel::best(), Arc::new(Team::new(2)));
        let (mut last, mut hidden, mut start) = (Parent::Start, Vec::new(), 0);
        for &cut in cuts.iter().chain([&tokens.len()]) {
            let steps: Vec<Step<'_>> = tokens[start..cut]
                .iter()
                .enumerate()
                .map(|(i, &token)| {
                    let parent = if i == 0 { last } else { Parent::Step(i - 1) };
                    Step { token, parent, hidden: start + i + 1 == tokens.len(), embedding: None, row: None }
                })
                .collect();
            let extension = body.extend(&steps).expect("a call");
            last = Parent::Slot(*extension.slots.last().expect("a slot"));
            hidden = extension.hidden;
            start = cut;
        }
        hidden.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
    };
    let whole = hidden(&[]);
    assert_eq!(whole.len(), 64);
    for cuts in [&[1][..], &[255], &[256], &[257, 258], &[3, 50, 299, 300]] {
        assert_eq!(hidden(cuts), whole, "cut at {cuts:?}");
    }
}

#[test]
fn results_do_not_depend_on_threads_kernel_or_company() {
    let checkpoint = oracle::model(family("llama"), 1, false);
    let prompts = prompts();
    let plans = plans(&checkpoint, &EDITS);
    let text = |trials: &[Trial]| format!("{trials:?}");
    let all = run(&checkpoint, &prompts, &plans, &Setting::default());
    for kernel in Kernel::available() {
        for threads in [1, 2, 5] {
            let again = run(&checkpoint, &prompts, &plans, &Setting { kernel, threads, ..Setting::default() });
            assert_eq!(text(&again), text(&all), "{kernel} on {threads} threads");
        }
    }
    // One at a time.
    for trial in &all {
        let own = run(
            &checkpoint,
            &prompts[trial.prompt..=trial.prompt],
            &plans[trial.edit..=trial.edit],
            &Setting::default(),
        );
        assert_eq!(format!("{:?}", own[0].trajectory), format!("{:?}", trial.trajectory));
        let bits = |trial: &Trial| trial.divergence.iter().map(|d| d.to_bits()).collect::<Vec<_>>();
        assert_eq!((bits(&own[0]), &own[0].agreement), (bits(trial), &trial.agreement));
    }
}

#[test]
fn teacher_forced_alone_is_what_whole_trials_measure() {
    for shared in [false, true] {
        let checkpoint = oracle::model(family("llama"), 1, shared);
        let setting = Setting { shared, ..Setting::default() };
        let (prompts, plans) = (prompts(), plans(&checkpoint, &EDITS));
        let whole = run(&checkpoint, &prompts, &plans, &setting);
        let team = Arc::new(Team::new(2));
        let body = Decoder::new(Arc::clone(&checkpoint), setting.kernel, Arc::clone(&team));
        let head = checkpoint.head().view();
        let mut projection = CpuProjection::new(head, setting.kernel, &team);
        let tying = if shared { Tying::Shared(head) } else { Tying::Separate };
        let task = Task {
            prompts: prompts.iter().map(Vec::as_slice).collect(),
            eos: &setting.eos,
            max_tokens: setting.max_tokens,
            tying,
        };
        let mut trials = Trials::new(body, setting.kernel, &team, task);
        let forced = trials.forced(&mut projection, &plans).expect("measurements");
        assert_eq!(forced.len(), whole.len());
        for ((divergence, agreement), trial) in forced.iter().zip(&whole) {
            let bits = |x: &[f64]| x.iter().map(|d| d.to_bits()).collect::<Vec<_>>();
            assert_eq!((bits(divergence), agreement), (bits(&trial.divergence), &trial.agreement));
        }
        // And what was forgotten in between is found again.
        let again = trials.forced(&mut projection, &plans[..2]).expect("measurements");
        assert_eq!(again[1].0, forced[1].0);
    }
}

#[test]
fn edits_of_few_rows_in_any_number_are_each_alone() {
    let checkpoint = oracle::model(family("llama"), 3, false);
    let prompts = vec![vec![1, 7, 9, 30], vec![60]];
    // More than one thread takes at a time; some with a shift besides, so that they stand on other logits.
    let edits: Vec<String> = (0..150)
        .map(|i| {
            let shift = if i % 3 == 0 { "+shift:16" } else { "" };
            format!("flip:weight[{},{}].3+flip:scales[{},1].11{shift}", i % 96, i % 64, (i * 5) % 96)
        })
        .collect();
    let plans = plans(&checkpoint, &edits.iter().map(String::as_str).collect::<Vec<_>>());
    let together = run(&checkpoint, &prompts, &plans, &Setting::default());
    for (index, plan) in plans.iter().enumerate().step_by(7) {
        let alone = run(&checkpoint, &prompts, std::slice::from_ref(plan), &Setting::default());
        for (prompt, alone) in alone.into_iter().enumerate() {
            assert_eq!(together[prompt * plans.len() + index], Trial { edit: index, ..alone }, "{}", edits[index]);
        }
    }
    assert!(together.iter().any(|trial| trial.agreement.contains(&false)), "some change the answer");
}

#[test]
fn a_run_tells_each_wave_each_clean_answer_once_and_each_trial() {
    let checkpoint = oracle::model(family("llama"), 1, false);
    let team = Arc::new(Team::new(1));
    let body = Decoder::new(Arc::clone(&checkpoint), Kernel::best(), Arc::clone(&team));
    let mut projection = CpuProjection::new(checkpoint.head().view(), Kernel::best(), &team);
    let prompts = prompts();
    let task =
        Task { prompts: prompts.iter().map(Vec::as_slice).collect(), eos: &[], max_tokens: 3, tying: Tying::Separate };
    let mut trials = Trials::new(body, Kernel::best(), &team, task);
    let plans = plans(&checkpoint, &["shift:1", "flip:weight[3,7].3"]);
    for first in [true, false] {
        let (mut told, mut read) = (Vec::new(), 0);
        let all = trials.run(&mut projection, &plans, |event| {
            told.push(match event {
                Event::Reading { done, of } => {
                    // How many parts there are depends on how long each takes.
                    assert!(done > read && done <= of && done - read <= 256, "{done} of {of} after {read}");
                    read = done;
                    if done < of {
                        return Ok(());
                    }
                    "read".to_owned()
                }
                Event::Wave { step, of, trials } => {
                    assert_eq!((of, trials), (3, 10 + if first { 5 } else { 0 }));
                    format!("wave {step}")
                }
                Event::Clean(answer) => {
                    assert!(answer.surprise.len() == 3 && answer.surprise.iter().all(|s| s.is_finite()));
                    "clean".to_owned()
                }
                Event::Trial(trial) => format!("{} {}", trial.prompt, trial.edit),
            });
            Ok::<_, BodyError>(())
        });
        all.expect("trials");
        let read = first.then(|| "read".to_owned());
        let waves = (1..=3).map(|step| format!("wave {step}"));
        let clean = vec!["clean".to_owned(); if first { 5 } else { 0 }];
        let each = (0..5).flat_map(|prompt| (0..2).map(move |edit| format!("{prompt} {edit}")));
        assert_eq!(told, read.into_iter().chain(waves).chain(clean).chain(each).collect::<Vec<_>>());
    }
    let answers = trials.answers(&mut projection).expect("answers");
    assert_eq!(answers.len(), 5);
    for (answer, clean) in answers.iter().zip(trials.clean()) {
        assert_eq!((&answer.tokens, &answer.margin), (&clean.tokens, &clean.margin));
    }
}

/// A body that keeps account of the positions that it is sent: what tokens lead to each, and whether its hidden state was
/// asked for.
struct Watched<'a> {
    body: Decoder,
    kept: &'a RefCell<HashMap<Slot, (Vec<u32>, bool)>>,
    /// Positions that were there already.
    again: &'a Cell<usize>,
}

impl Body for Watched<'_> {
    fn cuts_freely(&self) -> bool {
        self.body.cuts_freely()
    }

    fn hidden_size(&self) -> usize {
        self.body.hidden_size()
    }
    fn bytes_per_position(&self) -> usize {
        self.body.bytes_per_position()
    }
    fn bytes_per_path(&self) -> usize {
        self.body.bytes_per_path()
    }
    fn extend(&mut self, steps: &[Step<'_>]) -> Result<Extension, BodyError> {
        let extension = self.body.extend(steps)?;
        let mut kept = self.kept.borrow_mut();
        for (step, &slot) in steps.iter().zip(&extension.slots) {
            let parent = match step.parent {
                Parent::Start | Parent::Prompt(_) => None,
                Parent::Slot(slot) => Some(slot),
                Parent::Step(index) => Some(extension.slots[index]),
            };
            let mut path = parent.map_or(Vec::new(), |slot| kept[&slot].0.clone());
            path.push(step.token);
            // Once, and once more where only now its hidden state is asked for.
            let before: Vec<bool> = kept.values().filter(|(known, _)| *known == path).map(|kept| kept.1).collect();
            assert!(before.is_empty() || before == [false] && step.hidden, "{path:?} was there: {before:?}");
            self.again.set(self.again.get() + before.len());
            kept.insert(slot, (path, step.hidden));
        }
        Ok(extension)
    }
    fn release(&mut self, slot: Slot) {
        self.kept.borrow_mut().remove(&slot).expect("a position that is kept");
        self.body.release(slot);
    }
}

#[test]
fn a_prefix_goes_through_the_body_once() {
    let checkpoint = oracle::model(family("llama"), 1, false);
    let team = Arc::new(Team::new(1));
    let mut projection = CpuProjection::new(checkpoint.head().view(), Kernel::best(), &team);
    let plans = plans(&checkpoint, &["shift:0", "shift:1", "shift:1", "flip:weight[3,7].3"]);
    let mut prompts = vec![vec![1, 7, 9, 30]];
    // In the second turn, what the first prompt's answer leads to lies inside the second prompt.
    for _ in 0..2 {
        let (kept, again) = (RefCell::new(HashMap::new()), Cell::new(0));
        let body = Decoder::new(Arc::clone(&checkpoint), Kernel::best(), Arc::clone(&team));
        let task = Task {
            prompts: prompts.iter().map(Vec::as_slice).collect(),
            eos: &[],
            max_tokens: 4,
            tying: Tying::Separate,
        };
        let mut trials = Trials::new(Watched { body, kept: &kept, again: &again }, Kernel::best(), &team, task);
        let first = trials.all(&mut projection, &plans).expect("trials");
        assert_eq!(trials.all(&mut projection, &plans).expect("trials"), first);
        let answer = trials.clean().next().expect("an answer").tokens.clone();
        assert_eq!(again.get(), 2 * (prompts.len() - 1), "what was sent without its hidden state, and then for that");
        prompts.push([&prompts[0][..], &answer[..2], &[60, 61]].concat());
    }
}

#[test]
fn prefixes_that_no_trial_needs_are_released_and_found_again() {
    let checkpoint = oracle::model(family("llama"), 1, false);
    let team = Arc::new(Team::new(1));
    let (kept, again) = (RefCell::new(HashMap::new()), Cell::new(0));
    let body = Decoder::new(Arc::clone(&checkpoint), Kernel::best(), Arc::clone(&team));
    let body = Watched { body, kept: &kept, again: &again };
    let mut projection = CpuProjection::new(checkpoint.head().view(), Kernel::best(), &team);
    let prompts = [vec![1, 7, 9, 30], vec![1, 7, 12]];
    let task =
        Task { prompts: prompts.iter().map(Vec::as_slice).collect(), eos: &[], max_tokens: 6, tying: Tying::Separate };
    let plans = plans(&checkpoint, &["shift:1", "shift:16", "shift:286331153", "shift:256"]);
    let mut trials = Trials::new(body, Kernel::best(), &team, task);
    let first = trials.all(&mut projection, &plans).expect("trials");
    // The prompts, which begin alike, and all of each clean answer but its last token.
    assert_eq!(kept.borrow().len(), 5 + 2 * 5);
    for _ in 0..3 {
        assert_eq!(trials.all(&mut projection, &plans).expect("trials"), first);
        assert_eq!(kept.borrow().len(), 5 + 2 * 5);
    }
}

#[test]
fn answers_drawn_at_almost_no_temperature_are_the_chosen_ones_and_at_some_depend_on_the_seed_alone() {
    let checkpoint = oracle::model(family("llama"), 1, false);
    let team = Arc::new(Team::new(2));
    let head = checkpoint.head().view();
    let mut projection = CpuProjection::new(head, Kernel::best(), &team);
    let prompts = [vec![1, 7, 9, 30], vec![60]];
    let task =
        Task { prompts: prompts.iter().map(Vec::as_slice).collect(), eos: &[], max_tokens: 5, tying: Tying::Separate };
    let body = Decoder::new(Arc::clone(&checkpoint), Kernel::best(), Arc::clone(&team));
    let mut trials = Trials::new(body, Kernel::best(), &team, task);
    let clean = trials.answers(&mut projection).expect("answers");
    let draws: Vec<Draw> = (0..20).map(|i| Draw { prompt: i % 2, seed: i as u64 }).collect();
    let mut sample = |draws: &[Draw], temperature: f32| {
        let mut waves = Vec::new();
        let drawn = trials.sample(&mut projection, draws, temperature, |wave| {
            waves.push(wave);
            Ok::<_, BodyError>(())
        });
        assert_eq!(waves, [1, 2, 3, 4, 5]);
        drawn.expect("answers")
    };
    for (draw, answer) in draws.iter().zip(sample(&draws, 1e-4)) {
        assert_eq!(answer.tokens, clean[draw.prompt].tokens);
    }
    let drawn = sample(&draws, 1.0);
    for (draw, answer) in draws.iter().zip(&drawn) {
        assert_eq!(&sample(&[*draw], 1.0), std::slice::from_ref(answer), "alone");
        assert_eq!((answer.tokens.len(), answer.finish), (5, Finish::Length));
        // Surprise is that of temperature 1, whatever the prefix.
        let mut body = Decoder::new(Arc::clone(&checkpoint), Kernel::best(), Arc::clone(&team));
        let mut parent = Parent::Start;
        let mut logits = vec![0.0; head.layout().rows()];
        let text = prompts[draw.prompt].iter().chain(&answer.tokens);
        for (at, &token) in text.enumerate() {
            if let Some(step) = at.checked_sub(prompts[draw.prompt].len()) {
                let sum = logits.iter().map(|&z: &f32| f64::from(z).exp()).sum::<f64>().ln();
                assert!((answer.surprise[step] - (sum - f64::from(logits[token as usize]))).abs() < 1e-9);
            }
            let extension =
                body.extend(&[Step { token, parent, hidden: true, embedding: None, row: None }]).expect("a step");
            parent = Parent::Slot(extension.slots[0]);
            let query = Query { shift: 0, hidden: vec![&extension.hidden], out: &mut logits };
            CpuProjection::new(head, Kernel::best(), &team).logits(vec![query]).expect("logits");
        }
    }
    assert!(drawn[2..].iter().any(|answer| answer.tokens != drawn[0].tokens && answer.tokens != drawn[1].tokens));
}

#[test]
fn measurements_agree_with_their_definitions() {
    measured_as_defined(false, 12);
}

#[test]
fn measurements_of_a_shared_matrix_agree_with_their_definitions() {
    measured_as_defined(true, 5);
}

fn measured_as_defined(shared: bool, max_tokens: usize) {
    let checkpoint = oracle::model(family("llama"), 2, shared);
    let setting = Setting { max_tokens, shared, ..Setting::default() };
    let prompts = vec![vec![1, 7, 9, 30]];
    let edits = [
        "clean",
        "shift:1",
        "shift:286331153",
        "flip:weight[3,7].3+flip:scales[60,1].11",
        "shift:16+flip:weight[7,1].3",
    ];
    let plans = plans(&checkpoint, &edits);
    let trials = run(&checkpoint, &prompts, &plans, &setting);
    let head = checkpoint.head().view();
    let edited_row = |plan: &Plan, r: usize, row: &mut [f32]| match plan.rows.get(&r) {
        Some(own) => scalar::dequantize_row(&own.view(), 0, 0, row),
        None => scalar::dequantize_row(&head, plan.shift, r, row),
    };
    // Logits by prefix and edit, from the specification, with nothing in common.
    let logits = |prefix: &[u32], plan: &Plan| -> Vec<f64> {
        let mut body = Decoder::new(Arc::clone(&checkpoint), Kernel::SCALAR, Arc::new(Team::new(1)));
        let mut row = vec![0.0; head.layout().cols()];
        let embeddings: Vec<Vec<f32>> = prefix
            .iter()
            .map(|&token| {
                edited_row(plan, token as usize, &mut row);
                row.clone()
            })
            .collect();
        let step = |(i, &token): (usize, &u32)| Step {
            token,
            parent: if i == 0 { Parent::Start } else { Parent::Step(i - 1) },
            hidden: i + 1 == prefix.len(),
            embedding: shared.then_some(embeddings[i].as_slice()),
            row: None,
        };
        let steps: Vec<Step<'_>> = prefix.iter().enumerate().map(step).collect();
        let hidden = body.extend(&steps).expect("a prefix").hidden;
        (0..head.layout().rows())
            .map(|r| {
                edited_row(plan, r, &mut row);
                f64::from(scalar::dot(&row, &hidden))
            })
            .collect()
    };
    let log_softmax = |z: &[f64]| -> Vec<f64> {
        let sum = z.iter().map(|z| z.exp()).sum::<f64>().ln();
        z.iter().map(|z| z - sum).collect()
    };
    let mut checked = 0;
    let clean = &trials[0].trajectory;
    for trial in &trials {
        let plan = &plans[trial.edit];
        for (step, token) in trial.trajectory.steps().enumerate() {
            let prefix = [&prompts[0][..], &trial.trajectory.tokens[..step]].concat();
            let expected = -log_softmax(&logits(&prefix, &plans[0]))[token as usize];
            assert!((trial.trajectory.surprise[step] - expected).abs() < 1e-9, "surprise at step {step}");
            checked += 1;
        }
        for (step, token) in clean.steps().enumerate() {
            let prefix = [&prompts[0][..], &clean.tokens[..step]].concat();
            let (p, q) = (log_softmax(&logits(&prefix, &plans[0])), log_softmax(&logits(&prefix, plan)));
            let expected: f64 = p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum();
            assert!((trial.divergence[step] - expected).abs() < 1e-9, "divergence at step {step}");
            let first = (0..q.len()).rev().max_by(|&a, &b| q[a].total_cmp(&q[b])).expect("a token");
            assert_eq!(trial.agreement[step], first == token as usize);
            checked += 1;
        }
    }
    assert!(
        trials[0].divergence.iter().all(|&d| d == 0.0)
            && trials[2..].iter().all(|trial| trial.divergence.iter().any(|&d| d > 1e-3))
    );
    assert!(checked > 20, "{checked}");
}
