//! From what was typed to a model and prompts.

use std::{fs::File, io::Read, path::Path, sync::Arc};

use anyhow::{Context, Result, anyhow, bail};

use super::{
    args::{Backend, Dtype, ModelArgs, OutputArgs, PromptArgs, RunArgs, ThresholdArgs, Tied},
    interrupt,
    output::{Download, Sink, message},
    prompts_file::{Line, prompts_of},
};
use crate::{
    checkpoint::{Checkpoint, hub::ModelName},
    child::Program,
    kernels::Kernel,
    model::{Precision, mlx_lm},
    record::journal,
    report::terminal::plain,
    search::{Settings, Threshold, calibrate},
    seed,
    subject::{self, Prompt, Subject},
    team::Team,
    tokenizer::{Apart, Clock, Encoding},
};

/// Opens the model that was named, on the backend that is to run it.
pub(super) fn subject(args: &ModelArgs) -> Result<Subject> {
    check_backend(args)?;
    match backend(args) {
        Backend::Cpu => on_cpu(args),
        Backend::Mlx => on_mlx(on_cpu(args)?, precision(args)),
        Backend::MlxLm => on_mlx_lm(args),
    }
}

/// Opens the model that was named, to inspect it or to certify its head: where mlx-lm computes the body, as it does, and else
/// on the CPU, whose arithmetic a certificate rests on. A backend that was asked for must exist all the same.
pub(super) fn head_on_cpu(args: &ModelArgs) -> Result<Subject> {
    check_backend(args)?;
    match backend(args) {
        Backend::MlxLm => on_mlx_lm(args),
        Backend::Cpu | Backend::Mlx => on_cpu(args),
    }
}

/// The same model with its body computed here, where mlx-lm computes it otherwise; the error where no native family fits.
pub(super) fn native(args: &ModelArgs) -> Option<Result<Subject>> {
    (backend(args) == Backend::MlxLm).then(|| on_cpu(args))
}

fn backend(args: &ModelArgs) -> Backend {
    args.backend.unwrap_or(Backend::usual())
}

fn precision(args: &ModelArgs) -> Precision {
    match args.dtype.unwrap_or(Dtype::Native) {
        Dtype::Native => Precision::Native,
        Dtype::Float32 => Precision::Float32,
    }
}

/// Refuses, before anything is opened, a backend that this build does not have, and options of another backend.
fn check_backend(args: &ModelArgs) -> Result<()> {
    let backend = backend(args);
    if backend != Backend::MlxLm && (args.python.is_some() || args.trust_remote_code) {
        let option = if args.python.is_some() { "--python" } else { "--trust-remote-code" };
        bail!("{option} is of the backend mlx-lm; leave it out, or add --backend mlx-lm");
    }
    match (backend, args.dtype) {
        (Backend::Mlx, _) if !cfg!(feature = "mlx") => bail!(
            "this program was built without the MLX backend; use --backend cpu, or build it with the feature `mlx` \
             (cargo install lm-headroom --features mlx; on Linux see tools/mlx-linux in the repository), or use \
             --backend mlx-lm, which needs a Python that has mlx-lm"
        ),
        (Backend::Cpu, Some(Dtype::Native)) => bail!(
            "--dtype native is of the MLX backend: --backend cpu computes in float32, whatever the checkpoint's types; \
             leave --dtype out, or add --backend mlx"
        ),
        _ => Ok(()),
    }
}

#[cfg(feature = "mlx")]
fn on_mlx(subject: Subject, precision: Precision) -> Result<Subject> {
    let mlx = crate::model::Mlx::load(Arc::clone(subject.checkpoint()), precision)?;
    Ok(subject.with_backend(Arc::new(mlx)))
}

#[cfg(not(feature = "mlx"))]
fn on_mlx(_: Subject, _: Precision) -> Result<Subject> {
    unreachable!("`check_backend` refuses it")
}

/// Starts mlx-lm, before anything is looked for or loaded, and opens the model in it.
fn on_mlx_lm(args: &ModelArgs) -> Result<Subject> {
    let kernel = kernel(args.kernel.as_deref())?;
    interrupt::catch();
    let mut options = mlx_lm::Options {
        precision: precision(args),
        trust_remote_code: args.trust_remote_code,
        ..mlx_lm::Options::default()
    };
    if let Some(python) = &args.python {
        options.python = python.clone().into_os_string();
    }
    let python = mlx_lm::Python::start(options)?;
    let located = ModelName::parse(&args.model)?.locate(&mut Download::default())?;
    let team = team(args);
    let (checkpoint, model) = python
        .open(located.folder.as_deref(), kernel, Arc::clone(&team))
        .with_context(|| format!("cannot open the model {:?}", args.model))?;
    checkpoint.notes().iter().for_each(|note| message(note));
    let child = apart(located.folder.as_deref())?;
    let subject = put_together(args, located.revision, checkpoint, kernel, team, child)?;
    Ok(subject.with_backend(Arc::new(model)).with_shared_embedding(args.tied == Tied::Shared))
}

/// The child that reads the tokenizer of a stranger's model, which is one that lies in a folder.
fn apart(folder: Option<&Path>) -> Result<Option<Apart>> {
    folder.map(|folder| Ok(Apart::start_in(&Program::this()?, folder)?)).transpose()
}

fn put_together(
    args: &ModelArgs,
    revision: Option<String>,
    checkpoint: Arc<Checkpoint>,
    kernel: Kernel,
    team: Arc<Team>,
    child: Option<Apart>,
) -> Result<Subject> {
    let name = args.model.clone();
    let subject = match child {
        Some(child) => Subject::new_apart(name, revision, checkpoint, kernel, team, child),
        None => Subject::new(name, revision, checkpoint, kernel, team),
    };
    let subject = subject.with_context(|| format!("cannot use the tokenizer of {:?}", args.model))?;
    subject.notes().iter().for_each(|note| message(note));
    Ok(subject)
}

fn team(args: &ModelArgs) -> Arc<Team> {
    Arc::new(match args.threads {
        Some(threads) => Team::new(usize::from(threads)),
        None => Team::of_this_machine(),
    })
}

/// Opens the model that was named on the CPU backend, whatever the default is.
fn on_cpu(args: &ModelArgs) -> Result<Subject> {
    let kernel = kernel(args.kernel.as_deref())?;
    interrupt::catch();
    let located = ModelName::parse(&args.model)?.locate(&mut Download::default())?;
    // Only the model inside is trusted with this process. A child for any other reads while the checkpoint is opened.
    let child = apart(located.folder.as_deref())?;
    let checkpoint =
        subject::open(located.folder.as_deref()).with_context(|| format!("cannot open the model {:?}", args.model))?;
    checkpoint.notes().iter().for_each(|note| message(note));
    let subject = put_together(args, located.revision, checkpoint, kernel, team(args), child)?;
    Ok(subject.with_shared_embedding(args.tied == Tied::Shared))
}

fn kernel(name: Option<&str>) -> Result<Kernel> {
    let Some(name) = name else { return Ok(Kernel::best()) };
    Kernel::named(name).with_context(|| {
        let available = Kernel::available();
        let mut names: Vec<String> = available.iter().map(|kernel| kernel.name().to_owned()).collect();
        names.dedup();
        names.extend(available.iter().map(ToString::to_string).filter(|name| name.contains('+')));
        format!("--kernel: there is no kernel {name:?} on this machine; there is {}", names.join(", "))
    })
}

/// How a prompt's text becomes ids. `recorded` is the date of a journal that is taken up again.
pub(super) fn encoding(args: &PromptArgs, recorded: Option<&str>) -> Result<Encoding> {
    let recorded = recorded.map(|date| Clock::parse(date).map_err(|error| anyhow!("the journal's date: {error}")));
    let clock = match (&args.date, recorded.transpose()?, std::env::var("SOURCE_DATE_EPOCH")) {
        (Some(given), _, _) => given.clone(),
        (None, Some(recorded), _) => recorded,
        (None, None, Ok(epoch)) if !epoch.is_empty() => Clock::parse_epoch(&epoch).map_err(|error| anyhow!(error))?,
        _ => Clock::now(),
    };
    Ok(Encoding {
        system: args.system.clone(),
        raw: args.raw,
        template: args.template.clone(),
        variables: args.template_arg.clone(),
        clock,
    })
}

/// The date of the journal that a run continues.
pub(super) fn resumed_date(args: &OutputArgs) -> Option<String> {
    args.out.as_deref().filter(|_| args.resume).and_then(journal::recorded_date)
}

/// Encodes what is to be asked: the prompts given, in order, then those of the file.
pub(super) fn prompts(subject: &Subject, args: &PromptArgs, encoding: &Encoding) -> Result<Vec<Prompt>> {
    if let Some(ids) = &args.prompt_ids {
        let parse = |id: &str| {
            let id = id.trim();
            id.parse().with_context(|| format!("--prompt-ids: {id:?} is no token id"))
        };
        let ids = ids.split(',').filter(|id| !id.trim().is_empty()).map(parse).collect::<Result<Vec<u32>>>()?;
        return Ok(vec![subject.prompt_of_ids(ids).context("--prompt-ids")?]);
    }
    let mut lines: Vec<(String, Line)> = args
        .prompt
        .iter()
        .map(|prompt| ("--prompt".to_owned(), Line { prompt: prompt.clone(), expected: Vec::new() }))
        .collect();
    if let Some(file) = &args.prompts {
        let those = prompts_of(file)?;
        if those.is_empty() {
            // Beside other prompts, too: whoever gives a suite wants it run.
            bail!("{} holds no prompt", file.display());
        }
        lines.extend(those);
    }
    if lines.is_empty() {
        lines.push(("the prompt".to_owned(), Line { prompt: seed::PROMPT.to_owned(), expected: Vec::new() }));
    }
    let texts: Vec<&str> = lines.iter().map(|(_, line)| line.prompt.as_str()).collect();
    let encoded = subject.prompts_as(&texts, encoding);
    lines
        .iter()
        .zip(encoded)
        .map(|((place, Line { prompt, expected }), encoded)| {
            Ok(encoded.with_context(|| format!("{place} {prompt:?}"))?.expecting(expected))
        })
        .collect()
}

/// How answers are judged: by a threshold that was given, or one calibrated on this model.
pub(super) fn settings(
    subject: &Subject,
    args: &RunArgs,
    prompts: &[Prompt],
    encoding: &Encoding,
    sink: &mut Sink,
) -> Result<Settings> {
    let max_tokens = args.prompts.max_tokens as usize;
    let (threshold, date) = match args.threshold.threshold {
        Some(threshold) => (Threshold::Given(threshold), None),
        None => {
            let (ids, date) = calibration_prompts(subject, &args.threshold, prompts, encoding)?;
            let calibration = match &args.threshold.calibration_from {
                Some(file) => shared(file)
                    .and_then(|shared| Ok(shared.of(subject, &ids, max_tokens)?))
                    .with_context(|| format!("--calibration-from {}", file.display()))?,
                None => calibrate::calibrate(subject, &ids, max_tokens, |progress| sink.watch(progress))?,
            };
            (Threshold::Calibrated(calibration), date)
        }
    };
    Ok(Settings { max_tokens, threshold, seed: args.seed, shard: args.shard, date })
}

/// Ids of the prompts that a threshold is calibrated on, and their date.
fn calibration_prompts(
    subject: &Subject,
    args: &ThresholdArgs,
    measured: &[Prompt],
    encoding: &Encoding,
) -> Result<(Vec<Vec<u32>>, Option<String>)> {
    let own = match &args.calibration {
        Some(file) => prompts_of(file)?.into_iter().map(|(_, line)| line.prompt).collect(),
        None => Vec::new(),
    };
    calibrate::prompts(subject, &own, encoding, measured).context("cannot encode a calibration prompt")
}

/// A calibration that was shared.
fn shared(file: &Path) -> Result<calibrate::Shared> {
    /// Many times the longest one.
    const MOST: u64 = 1 << 20;
    let mut bytes = Vec::new();
    File::open(file)?.take(MOST).read_to_end(&mut bytes)?;
    serde_json::from_slice(&bytes).context("not a calibration, as --calibrate-only prints it")
}

/// Calibrates the threshold of a run, and gives it with what it depends on.
pub(super) fn calibration(
    subject: &Subject,
    args: &RunArgs,
    prompts: &[Prompt],
    encoding: &Encoding,
    sink: &mut Sink,
) -> Result<calibrate::Shared> {
    let max_tokens = args.prompts.max_tokens as usize;
    let (ids, _) = calibration_prompts(subject, &args.threshold, prompts, encoding)?;
    let found = calibrate::calibrate(subject, &ids, max_tokens, |progress| sink.watch(progress))?;
    Ok(calibrate::Shared::new(subject, &ids, max_tokens, found))
}

/// What stands above the results: the model, its head, and what runs it.
pub(super) fn introduction(subject: &Subject) -> String {
    let (model, layout) = (subject.checkpoint().facts(), subject.head().layout());
    let revision = subject.revision().map_or(String::new(), |revision| format!(" at {revision}"));
    let tied = match (model.tied, subject.shared()) {
        (false, _) => "",
        (true, false) => ", a copy of the tied embedding",
        (true, true) => ", shared with the embedding",
    };
    format!(
        "{}{revision}: {}, {} layers, hidden {}\nlm_head {} x {}, {}{tied}; {}, {} threads\n",
        plain(subject.name()),
        plain(&model.model_type),
        model.layers,
        model.hidden_size,
        layout.rows(),
        layout.cols(),
        layout.described(),
        subject.backend().kernel(),
        subject.team().threads(),
    )
}
