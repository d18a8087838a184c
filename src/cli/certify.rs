//! `certify`: least flips, census, and what was asked for besides.

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::{
    args::{Backend, BoundArgs, CertifyArgs, Dtype, Format, OutputArgs, RunArgs, Unit},
    exit_code, interrupt,
    output::{self, Sink},
    resolve,
};
use crate::{
    certificate::{
        Answer, CertificateError, Certificates, Certifier, Collapse, CollapseOptions, Options, Refused, Stage, Suite,
        Within, collapse,
    },
    record::{
        SCHEMA,
        output::{Inputs, Kind, Output},
        recipe::{Recipe, Step},
    },
    report::terminal::certificates,
    search::{RunError, Settings},
    subject::{Prompt, Subject},
    tokenizer::Encoding,
};

/// Everything as one object.
#[derive(Serialize)]
struct Object {
    command: &'static str,
    schema: u32,
    #[serde(flatten)]
    certificates: Certificates,
}

pub(super) fn certify(args: &CertifyArgs) -> Result<u8> {
    if args.model.backend == Some(Backend::Mlx) {
        bail!(
            "a certificate rests on the stated rounding bound of the CPU's kernels, and MLX's have none; \
             use --backend cpu, and replay the witnesses on MLX: certify --out FILE, then replay FILE --backend mlx"
        );
    }
    if args.model.dtype == Some(Dtype::Native) && args.model.backend != Some(Backend::MlxLm) {
        bail!("--dtype native is of the MLX backend, which certifies nothing; leave it out");
    }
    let subject = resolve::head_on_cpu(&args.model)?;
    let toward = args.toward.as_deref().map(|token| self::token(&subject, token)).transpose()?;
    let encoding = resolve::encoding(&args.prompts, None)?;
    let prompts = resolve::prompts(&subject, &args.prompts, &encoding)?;
    let certifier = Certifier::new(&subject)?;
    output::check(args.out.as_deref(), &output::inputs(&args.prompts, &args.threshold, &subject))?;
    // Known at once that it can be written; what is there stays until there is something new.
    let out = args.out.as_deref().map(|path| output::claim(path, Kind::Recipe, args.force)).transpose()?;
    let settings = args.collapse.map(|_| settings(args, &subject, &prompts, &encoding)).transpose()?;
    if args.format == Format::Text {
        output::text(&resolve::introduction(&subject))?;
    }
    let options = Options {
        max_tokens: args.prompts.max_tokens as usize,
        within: args.within.map(within),
        silence_eos: args.silence_eos,
        toward,
        weakest: usize::from(args.weakest),
    };
    let mut watch = |_: Stage| interrupt::check();
    let (mut answers, mut refused): (Vec<Answer>, Vec<Refused>) = (Vec::new(), Vec::new());
    let mut interrupted = None;
    for prompt in &prompts {
        match certifier.answer(prompt, &options, &mut watch) {
            Ok(answer) => {
                match args.format {
                    Format::Text => output::text(&certificates::answer(&answer, output::look()))?,
                    Format::Jsonl => output::json(&answer)?,
                    Format::Json => {}
                }
                answers.push(answer);
            }
            Err(error @ CertificateError::NotFinite { .. }) => {
                output::message(&format!("{:?}: {error}", prompt.text));
                refused.push(Refused { prompt: prompt.text.clone(), error: error.to_string() });
            }
            Err(CertificateError::Run(error @ RunError::Interrupted)) => {
                interrupted = Some(error);
                break;
            }
            Err(error) => return Err(error.into()),
        }
    }
    // What is finished is shown and kept, whatever ended the run.
    let suite = Suite::of(&answers, |row| subject.decode(&[row as u32]))?;
    if let (Format::Text, Some(suite)) = (args.format, suite.as_ref().filter(|suite| suite.answers > 1)) {
        output::text(&certificates::suite(suite, output::look()))?;
    }
    let collapsed = match (&interrupted, settings, answers.is_empty()) {
        (None, Some(settings), false) => {
            let asked: Vec<Prompt> =
                prompts.iter().filter(|prompt| !refused.iter().any(|r| r.prompt == prompt.text)).cloned().collect();
            let options = CollapseOptions {
                flips: args.collapse.unwrap_or(0) as usize,
                trials: args.trials as usize,
                seed: args.seed,
            };
            match collapse(&subject, &asked, &settings, &options, &mut watch) {
                Err(CertificateError::Run(error @ RunError::Interrupted)) => {
                    interrupted = Some(error);
                    None
                }
                other => Some(other?),
            }
        }
        _ => None,
    };
    if let (Format::Text, Some(collapse)) = (args.format, &collapsed) {
        output::text(&certificates::collapse(collapse, output::look()))?;
    }
    if let Some(out) = out {
        save(out, &recipe(&answers, collapsed.as_ref()), interrupted.is_some())?;
    }
    let code = code(&answers, &refused);
    if args.format == Format::Jsonl {
        // The last line: what the answers, each on a line of its own, have in common.
        answers.clear();
    }
    if args.format != Format::Text {
        let all = Certificates {
            model: subject.name().to_owned(),
            revision: subject.revision().map(str::to_owned),
            head_digest: subject.head_digest(),
            kernel: subject.kernel().name().to_owned(),
            answers,
            suite,
            refused,
            collapse: collapsed,
        };
        output::json(&Object { command: "certify", schema: SCHEMA, certificates: all })?;
    }
    match interrupted {
        Some(error) => Err(error.into()),
        None => Ok(code),
    }
}

fn code(answers: &[Answer], refused: &[Refused]) -> u8 {
    if answers.is_empty() {
        output::message("no answer could be certified");
        return exit_code::NOTHING;
    }
    let failures: Vec<&String> = answers.iter().flat_map(|answer| &answer.failures).collect();
    failures.iter().for_each(|failure| output::message(failure));
    match (failures.is_empty(), refused.is_empty()) {
        (false, _) => exit_code::FAILED,
        (true, false) => exit_code::USAGE,
        (true, true) => exit_code::DONE,
    }
}

const fn within(unit: Unit) -> Within {
    match unit {
        Unit::Word => Within::Word,
        Unit::Row => Within::Row,
        Unit::Line => Within::Line,
    }
}

/// A token given as an id, or as a text.
fn token(subject: &Subject, given: &str) -> Result<u32> {
    let vocab_size = subject.head().layout().rows();
    if !given.is_empty() && given.bytes().all(|byte| byte.is_ascii_digit()) {
        let token: u32 = given.parse().with_context(|| format!("--toward: {given:?} is no token id"))?;
        if token as usize >= vocab_size {
            bail!("--toward: token {token} is beyond the model's vocabulary of {vocab_size}");
        }
        return Ok(token);
    }
    let text = given.strip_prefix("text:").unwrap_or(given);
    subject.token(text).context("--toward")
}

/// The threshold by which answers are judged, which only the search for collapse needs.
fn settings(args: &CertifyArgs, subject: &Subject, prompts: &[Prompt], encoding: &Encoding) -> Result<Settings> {
    let run = RunArgs {
        model: args.model.clone(),
        prompts: args.prompts.clone(),
        threshold: args.threshold.clone(),
        bounds: BoundArgs { at_least: None, kl: None },
        seed: args.seed,
        output: OutputArgs { format: args.format, out: None, resume: false, force: false },
        shard: None,
    };
    let mut sink = Sink::new(&run.output, &Inputs::default())?;
    resolve::settings(subject, &run, prompts, encoding, &mut sink)
}

/// Writes a recipe that has something in it. One of a run that ended early does not take the place of another.
fn save(mut out: Output, recipe: &Recipe, interrupted: bool) -> Result<()> {
    if recipe.recipe.is_empty() {
        return Ok(());
    }
    if interrupted && out.replaces()? {
        output::message("--out keeps what it held, since the run was interrupted: what it found is on stdout");
        return Ok(());
    }
    output::write(out, recipe.text().as_bytes())
}

/// Witnesses and weakest bits, as edits that can be run again.
fn recipe(answers: &[Answer], collapsed: Option<&Collapse>) -> Recipe {
    let mut steps: Vec<Step> = Vec::new();
    for answer in answers {
        let mut step = |edit: &Option<String>, note: String| {
            if let Some(edit) = edit {
                steps.push(Step { edit: edit.clone(), prompt: Some(answer.prompt.clone()), note: Some(note) });
            }
        };
        step(&answer.witness, "least flips that change the answer".to_owned());
        for at in &answer.positions {
            let flips = at.least_flips.unwrap_or(0);
            step(&at.witness, format!("least flips at position {}, {flips}: {:?} loses", at.index, at.text));
        }
        if let Some(within) = &answer.within {
            step(&within.witness, format!("least flips within one {}", within.unit));
        }
        if let Some(silence) = &answer.silence_eos {
            step(&silence.witness, format!("no eos within {} steps", silence.steps));
        }
        if let Some(toward) = &answer.toward {
            step(&toward.witness, format!("least flips that make {:?} the first token", toward.text));
        }
        for weak in &answer.weakest {
            step(&Some(weak.edit.clone()), format!("a weak bit: positions {:?}", weak.positions));
        }
    }
    if let Some(collapse) = collapsed.filter(|collapse| collapse.flips > 0) {
        let note = format!("{} flips, the median verdict is {}", collapse.flips, collapse.median);
        steps.push(Step { edit: collapse.edit.clone(), prompt: None, note: Some(note) });
    }
    Recipe::new(steps)
}
