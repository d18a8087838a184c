//! How cost grows: the time of a run against the number of shifts, prompts, tokens and layers, and the memory it takes
//! against the number of trials.
//!
//! `cargo bench --bench growth`; `HEADROOM_PLOT=FILE.svg` draws it. One column of each table varies, and all else is fixed.
//! On the model inside and, for layers, on generated ones of its width. Medians of three runs, each from the clean model on.

#![expect(clippy::print_stdout, reason = "a program")]

use std::{sync::Arc, time::Instant};

use lm_headroom::{
    checkpoint::Checkpoint,
    edit::Plan,
    kernels::Kernel,
    model::{Body, BodyError, CpuProjection, Llama},
    subject,
    team::Team,
    testing::fixture::Fixture,
    trial::{Event, Task, Trials, Tying},
};
use peak_alloc::PeakAlloc;
use plotters::prelude::*;

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

/// A curve: what varies, and the seconds (or bytes) at each value.
struct Curve {
    name: &'static str,
    unit: &'static str,
    points: Vec<(f64, f64)>,
}

fn main() {
    let team = Arc::new(Team::of_this_machine());
    let demo = subject::open(None).expect("the model inside");
    let over = |values: &[usize], size: &dyn Fn(usize) -> Size| -> Vec<(f64, f64)> {
        values.iter().map(|&n| (n as f64, seconds(&demo, &team, size(n)))).collect()
    };
    let mut curves = vec![
        Curve { name: "shifts", unit: "s", points: over(&powers(1, 512), &|shifts| Size { shifts, ..USUAL }) },
        Curve { name: "prompts", unit: "s", points: over(&powers(1, 64), &|prompts| Size { prompts, ..USUAL }) },
        Curve { name: "tokens", unit: "s", points: over(&powers(1, 128), &|tokens| Size { tokens, ..USUAL }) },
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
        (layers as f64, seconds(&checkpoint, &team, USUAL))
    };
    curves.push(Curve { name: "layers", unit: "s", points: powers(1, 32).into_iter().map(of_layers).collect() });
    let memory = powers(64, 16384).into_iter().map(|trials| (trials as f64, peak(&demo, &team, trials)));
    curves.push(Curve { name: "trials at once, 64 tokens each", unit: "bytes", points: memory.collect() });

    for curve in &curves {
        println!("{} ({})", curve.name, curve.unit);
        for (x, y) in &curve.points {
            println!("  {x:>6} {y:.4e}");
        }
    }
    if let Some(path) = std::env::var_os("HEADROOM_PLOT") {
        draw(&curves, path.as_ref()).expect("a plot");
    }
}

fn powers(from: usize, to: usize) -> Vec<usize> {
    std::iter::successors(Some(from), |n| Some(2 * n)).take_while(|&n| n <= to).collect()
}

/// Runs it with shifts that have little in common, on prompts that begin differently; the trials finished.
fn run(checkpoint: &Arc<Checkpoint>, team: &Arc<Team>, size: Size) -> usize {
    let kernel = Kernel::best();
    let vocab = checkpoint.config().vocab_size;
    let prompts: Vec<Vec<u32>> = (0..size.prompts)
        .map(|p| (0..PROMPT_TOKENS).map(|i| ((p * 131 + i * 17 + 300) % vocab) as u32).collect())
        .collect();
    let plans: Vec<Plan> =
        (0..size.shifts).map(|i| Plan { shift: (i as u32).wrapping_mul(0x9e37_79b9), ..Plan::default() }).collect();
    let mut head = CpuProjection::new(checkpoint.weights().head().view(), kernel, team);
    let body = Llama::new(Arc::clone(checkpoint), kernel, Arc::clone(team));
    let task = Task {
        prompts: prompts.iter().map(Vec::as_slice).collect(),
        // None: every answer has all of its tokens.
        eos: &[],
        max_tokens: size.tokens,
        tying: Tying::Separate,
    };
    let mut finished = 0;
    let each = |event| {
        finished += usize::from(matches!(event, Event::Trial(_)));
        Ok::<_, BodyError>(())
    };
    Trials::new(body, kernel, team, task).run(&mut head, &plans, each).expect("trials");
    finished
}

fn seconds(checkpoint: &Arc<Checkpoint>, team: &Arc<Team>, size: Size) -> f64 {
    let mut runs = [0.0; 3].map(|_: f64| {
        let start = Instant::now();
        assert_eq!(run(checkpoint, team, size), size.shifts * size.prompts);
        start.elapsed().as_secs_f64()
    });
    runs.sort_by(f64::total_cmp);
    runs[1]
}

/// The most bytes held during a run of so many trials at once.
fn peak(checkpoint: &Arc<Checkpoint>, team: &Arc<Team>, trials: usize) -> f64 {
    if trials == 64 {
        let body = Llama::new(Arc::clone(checkpoint), Kernel::best(), Arc::clone(team));
        println!("a position keeps {} bytes and its hidden state", body.bytes_per_position());
    }
    let before = ALLOCATED.current_usage();
    ALLOCATED.reset_peak_usage();
    run(checkpoint, team, Size { shifts: trials, prompts: 1, tokens: 64 });
    (ALLOCATED.peak_usage() - before) as f64
}

/// Each curve in a panel of its own, both axes logarithmic, with a line through the last point on which twice as much costs
/// twice as much.
fn draw(curves: &[Curve], path: &std::path::Path) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::new(path, (960, 560)).into_drawing_area();
    root.fill(&WHITE)?;
    for (area, curve) in root.split_evenly((2, 3)).iter().zip(curves) {
        let (least, most) = (curve.points[0].0, curve.points.last().expect("points").0);
        let low = curve.points.iter().map(|point| point.1).fold(f64::MAX, f64::min) / 2.0;
        let high = curve.points.iter().map(|point| point.1).fold(0.0, f64::max) * 2.0;
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(56)
            .build_cartesian_2d((least..most).log_scale(), (low..high).log_scale())?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc(curve.name)
            .y_desc(curve.unit)
            .x_labels(5)
            .y_labels(5)
            .x_label_formatter(&|x| format!("{x:.0}"))
            .y_label_formatter(&|y| format!("{y:.0e}"))
            .draw()?;
        let guide = (0..=20).map(|i| {
            let x = least * (most / least).powf(f64::from(i) / 20.0);
            (x, curve.points.last().expect("points").1 * x / most)
        });
        let guide: Vec<(f64, f64)> = guide.filter(|&(_, y)| y > low).collect();
        chart.draw_series([PathElement::new(guide, BLACK.mix(0.25))])?;
        chart.draw_series([PathElement::new(curve.points.clone(), BLUE.stroke_width(2))])?;
        chart.draw_series(curve.points.iter().map(|&point| Circle::new(point, 3, BLUE.filled())))?;
    }
    root.present()?;
    Ok(())
}
