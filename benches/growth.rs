//! How cost grows: the time of a run against the number of shifts, prompts, tokens and layers, and the memory it takes
//! against the number of trials.
//!
//! `cargo bench --bench growth`; `HEADROOM_PLOT=FILE.svg` draws it. One column of each table varies, and all else is fixed.
//! On the model inside and, for layers, on generated ones of its width. Medians of three runs, each from the clean model on.

#![expect(clippy::print_stdout, reason = "a program")]

use std::{collections::HashSet, path::Path, sync::Arc, time::Instant};

use lm_headroom::{
    checkpoint::Checkpoint,
    edit::Plan,
    kernels::Kernel,
    model::{Body, BodyError, CpuProjection, Decoder},
    subject,
    team::Team,
    testing::fixture::Fixture,
    trial::{Event, Task, Trials, Tying},
};
use peak_alloc::PeakAlloc;
use plotters::{coord::Shift, prelude::*};

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

/// What one run is asked.
#[derive(Clone, Copy)]
struct Size {
    shifts: usize,
    prompts: usize,
    tokens: usize,
}

const USUAL: Size = Size { shifts: 16, prompts: 4, tokens: 10 };
const PROMPT_TOKENS: usize = 20;

/// A curve: what varies, and the seconds (or megabytes) at each value.
struct Curve {
    name: &'static str,
    unit: &'static str,
    points: Vec<(f64, f64)>,
    /// What was expected at each value, where something was.
    expected: Vec<(f64, f64)>,
}

impl Curve {
    fn of(name: &'static str, values: &[usize], mut seconds: impl FnMut(usize) -> f64) -> Self {
        let points = values.iter().map(|&n| (n as f64, seconds(n))).collect();
        Self { name, unit: "seconds", points, expected: Vec::new() }
    }

    fn print(&self) {
        println!("{} ({})", self.name, self.unit);
        let mut before = None;
        for (i, &(x, y)) in self.points.iter().enumerate() {
            // 2.00 is growth in proportion.
            let times = before.map_or(String::new(), |before| format!("{:.2} times", y / before));
            let expected = self.expected.get(i).map_or(String::new(), |(_, y)| format!("prefixes {y:.3}"));
            println!("{}", format!("  {x:>6} {y:>10.4}  {times:>11}  {expected}").trim_end());
            before = Some(y);
        }
    }
}

fn main() {
    let team = Arc::new(Team::of_this_machine());
    let demo = subject::open(None).expect("the model inside");
    let mut curves = vec![
        Curve::of("shifts", &powers(1, 256), |shifts| seconds(&demo, &team, Size { shifts, ..USUAL })),
        Curve::of("prompts", &powers(1, 32), |prompts| seconds(&demo, &team, Size { prompts, ..USUAL })),
        Curve::of("tokens of an answer", &powers(1, 64), |tokens| seconds(&demo, &team, Size { tokens, ..USUAL })),
    ];
    let of_layers = |layers: usize| {
        let fixture = Fixture {
            vocab_size: 1536,
            hidden_size: 256,
            intermediate_size: 768,
            num_hidden_layers: layers,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            group_size: 64,
            eos_token_ids: Vec::new(),
            ..Fixture::default()
        };
        let checkpoint = Arc::new(Checkpoint::from_files(fixture.files()).expect("a checkpoint"));
        seconds(&checkpoint, &team, USUAL)
    };
    curves.push(Curve::of("layers", &powers(1, 16), of_layers));
    let trials = powers(64, 4096);
    let (points, expected) = trials.iter().map(|&trials| memory(&demo, &team, trials)).unzip();
    let name = "trials of 64 tokens, one prompt";
    curves.push(Curve { name, unit: "MB at most", points, expected });
    curves.iter().for_each(Curve::print);
    if let Some(path) = std::env::var_os("HEADROOM_PLOT") {
        draw(&curves, path.as_ref()).expect("a plot");
    }
}

fn powers(from: usize, to: usize) -> Vec<usize> {
    std::iter::successors(Some(from), |n| Some(2 * n)).take_while(|&n| n <= to).collect()
}

/// Runs it with shifts that have little in common, on prompts that begin differently; `each` gets the tokens of each trial.
fn run(checkpoint: &Arc<Checkpoint>, team: &Arc<Team>, size: Size, mut each: impl FnMut(Vec<u32>)) {
    let kernel = Kernel::best();
    let vocab = checkpoint.facts().vocab_size;
    let prompts: Vec<Vec<u32>> = (0..size.prompts)
        .map(|p| (0..PROMPT_TOKENS).map(|i| ((p * 131 + i * 17 + 300) % vocab) as u32).collect())
        .collect();
    let plans: Vec<Plan> =
        (0..size.shifts).map(|i| Plan { shift: (i as u32).wrapping_mul(0x9e37_79b9), ..Plan::default() }).collect();
    let mut head = CpuProjection::new(checkpoint.head().view(), kernel, team);
    let body = Decoder::new(Arc::clone(checkpoint), kernel, Arc::clone(team));
    let task = Task {
        prompts: prompts.iter().map(Vec::as_slice).collect(),
        // None: every answer has all of its tokens.
        eos: &[],
        max_tokens: size.tokens,
        tying: Tying::Separate,
    };
    let event = |event| {
        if let Event::Trial(trial) = event {
            each(trial.trajectory.tokens);
        }
        Ok::<_, BodyError>(())
    };
    Trials::new(body, kernel, team, task).run(&mut head, &plans, event).expect("trials");
}

fn seconds(checkpoint: &Arc<Checkpoint>, team: &Arc<Team>, size: Size) -> f64 {
    let mut runs = [0.0; 3].map(|_: f64| {
        let (start, mut finished) = (Instant::now(), 0);
        run(checkpoint, team, size, |_| finished += 1);
        assert_eq!(finished, size.shifts * size.prompts);
        start.elapsed().as_secs_f64()
    });
    runs.sort_by(f64::total_cmp);
    runs[1]
}

/// The most megabytes held during a run of so many trials, and those that its prefixes should take: keys, values and a hidden
/// state for each position of the part of the run that has most.
fn memory(checkpoint: &Arc<Checkpoint>, team: &Arc<Team>, trials: usize) -> ((f64, f64), (f64, f64)) {
    let size = Size { shifts: trials, prompts: 1, tokens: 64 };
    let body = Decoder::new(Arc::clone(checkpoint), Kernel::best(), Arc::clone(team));
    let position = body.bytes_per_position() + 4 * body.hidden_size();
    // As `Trials::run_some` says: a gigabyte of them at a time.
    let part = ((1 << 30) / (position * size.tokens)).max(1);
    drop(body);
    let (mut known, mut most, mut finished) = (HashSet::new(), 0, 0);
    // Once for the prefixes and once for the memory, in which the prefixes seen would count.
    run(checkpoint, team, size, |tokens| {
        if finished % part == 0 {
            known.clear();
        }
        finished += 1;
        // The last token of an answer does not go through the body.
        (1..tokens.len()).for_each(|len| {
            known.insert(blake3::hash(bytes_of(&tokens[..len]).as_slice()));
        });
        most = most.max(known.len());
    });
    drop(known);
    let before = ALLOCATED.current_usage();
    ALLOCATED.reset_peak_usage();
    run(checkpoint, team, size, drop);
    let peak = ALLOCATED.peak_usage() - before;
    let of = |bytes: usize| (trials as f64, bytes as f64 / 1e6);
    (of(peak), of((PROMPT_TOKENS + most) * position))
}

fn bytes_of(tokens: &[u32]) -> Vec<u8> {
    tokens.iter().flat_map(|token| token.to_le_bytes()).collect()
}

/// Each curve in a panel of its own, both axes logarithmic, with a line through the last point on which twice as much costs
/// twice as much, and what was expected in gray.
fn draw(curves: &[Curve], path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::new(path, (1080, 640)).into_drawing_area();
    root.fill(&WHITE)?;
    let font = |size: i32| ("sans-serif", size).into_font();
    for (area, curve) in root.split_evenly((2, 3)).iter().zip(curves) {
        let (least, most) = (curve.points[0].0, curve.points.last().expect("points").0);
        let all = || curve.points.iter().chain(&curve.expected).map(|point| point.1);
        // Whole decades, so that there are labels.
        let low = 10.0_f64.powf(all().fold(f64::MAX, f64::min).log10().floor());
        let high = 10.0_f64.powf(all().fold(0.0, f64::max).log10().ceil());
        let mut chart = ChartBuilder::on(area)
            .margin(14)
            .margin_right(24)
            .x_label_area_size(48)
            .y_label_area_size(66)
            .build_cartesian_2d((least / 1.2..most * 1.2).log_scale().base(2.0), (low..high).log_scale())?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .label_style(font(14))
            .axis_desc_style(font(15))
            .x_desc(curve.name)
            .y_desc(curve.unit)
            .x_labels(6)
            .y_labels(6)
            .x_label_formatter(&|x| format!("{x:.0}"))
            .y_label_formatter(&|y| format!("{y}"))
            .draw()?;
        let last = curve.points.last().expect("points").1;
        let guide = (0..=40).map(|i| {
            let x = least * (most / least).powf(f64::from(i) / 40.0);
            (x, last * x / most)
        });
        let guide: Vec<(f64, f64)> = guide.filter(|&(_, y)| y > low).collect();
        chart.draw_series([PathElement::new(guide, BLACK.mix(0.3))])?;
        chart.draw_series([PathElement::new(curve.expected.clone(), BLACK.mix(0.45).stroke_width(5))])?;
        chart.draw_series([PathElement::new(curve.points.clone(), BLUE.stroke_width(2))])?;
        chart.draw_series(curve.points.iter().map(|&point| Circle::new(point, 3, BLUE.filled())))?;
    }
    legend(&root)?;
    root.present()?;
    Ok(())
}

/// In the place of a sixth panel.
fn legend(root: &DrawingArea<SVGBackend<'_>, Shift>) -> Result<(), Box<dyn std::error::Error>> {
    let lines = [
        (BLUE.stroke_width(2), "measured"),
        (BLACK.mix(0.3).stroke_width(1), "twice as much costs twice as much"),
        (BLACK.mix(0.45).stroke_width(5), "keys, values, hidden states"),
    ];
    for ((style, text), y) in lines.into_iter().zip((420..).step_by(32)) {
        root.draw(&PathElement::new([(770, y), (810, y)], style))?;
        root.draw(&Text::new(text, (822, y - 8), ("sans-serif", 15).into_font()))?;
    }
    Ok(())
}
