//! From what was typed to a model and prompts.

use std::sync::Arc;

use anyhow::{Context, Result, bail};

use super::{
    args::{Backend, Dtype, ModelArgs, PromptArgs, RunArgs, Tied},
    interrupt,
    output::{Download, Sink, message},
    prompts_file::{Line, prompts_of},
};
use crate::{
    checkpoint::hub::ModelName,
    child::Program,
    kernels::Kernel,
    report::terminal::plain,
    search::{Settings, Threshold, calibrate},
    seed,
    subject::{self, Encoding, Prompt, Subject},
    team::Team,
    tokenizer::Apart,
};

/// Opens the model that was named, on the backend that is to run it.
pub(super) fn subject(args: &ModelArgs) -> Result<Subject> {
    let backend = args.backend.unwrap_or(Backend::usual());
    check_backend(backend, args.dtype)?;
    let subject = on_cpu(args)?;
    match backend {
        Backend::Cpu => Ok(subject),
        Backend::Mlx => on_mlx(subject, args.dtype.unwrap_or(Dtype::Native)),
    }
}

/// Opens the model that was named, to inspect it; a backend that was asked for must exist all the same.
pub(super) fn inspected(args: &ModelArgs) -> Result<Subject> {
    check_backend(args.backend.unwrap_or(Backend::usual()), args.dtype)?;
    on_cpu(args)
}

/// Refuses, before anything is opened, a backend or a type that this build does not have.
fn check_backend(backend: Backend, dtype: Option<Dtype>) -> Result<()> {
    match (backend, dtype) {
        (Backend::Mlx, _) if !cfg!(feature = "mlx") => bail!(
            "this program was built without the MLX backend; use --backend cpu, or build it with the feature `mlx` \
             (cargo install lm-headroom --features mlx; on Linux see tools/mlx-linux in the repository)"
        ),
        (Backend::Cpu, Some(Dtype::Native)) => bail!(
            "--dtype native is of the MLX backend: --backend cpu computes in float32, whatever the checkpoint's types; \
             leave --dtype out, or add --backend mlx"
        ),
        _ => Ok(()),
    }
}

#[cfg(feature = "mlx")]
fn on_mlx(subject: Subject, dtype: Dtype) -> Result<Subject> {
    use crate::model::{Mlx, Precision};
    let precision = match dtype {
        Dtype::Native => Precision::Native,
        Dtype::Float32 => Precision::Float32,
    };
    let mlx = Mlx::load(Arc::clone(subject.checkpoint()), precision)?;
    Ok(subject.with_backend(Arc::new(mlx)))
}

#[cfg(not(feature = "mlx"))]
fn on_mlx(subject: Subject, dtype: Dtype) -> Result<Subject> {
    check_backend(Backend::Mlx, Some(dtype)).map(|()| subject)
}

/// Opens the model that was named on the CPU backend, whatever the default is. Commands that are about the bytes of a
/// model, or rest on the arithmetic of the CPU kernels, need it.
pub(super) fn on_cpu(args: &ModelArgs) -> Result<Subject> {
    let kernel = kernel(args.kernel.as_deref())?;
    interrupt::catch();
    let located = ModelName::parse(&args.model)?.locate(&mut Download::default())?;
    // Only the model inside is trusted with this process. A child for any other starts while the checkpoint is opened.
    let child =
        located.folder.as_ref().map(|_| Apart::start(&Program::this()?).map_err(anyhow::Error::from)).transpose()?;
    let checkpoint =
        subject::open(located.folder.as_deref()).with_context(|| format!("cannot open the model {:?}", args.model))?;
    checkpoint.notes().iter().for_each(|note| message(note));
    let team = Arc::new(match args.threads {
        Some(threads) => Team::new(usize::from(threads)),
        None => Team::of_this_machine(),
    });
    let name = args.model.clone();
    let subject = match child {
        Some(child) => Subject::new_apart(name, located.revision, checkpoint, kernel, team, child),
        None => Subject::new(name, located.revision, checkpoint, kernel, team),
    };
    let subject = subject.with_context(|| format!("cannot use the tokenizer of {:?}", args.model))?;
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

/// How a prompt's text becomes ids.
pub(super) fn encoding(args: &PromptArgs) -> Encoding {
    Encoding { system: args.system.clone(), raw: args.raw }
}

/// Encodes what is to be asked: the prompts given, in order, then those of the file.
pub(super) fn prompts(subject: &Subject, args: &PromptArgs) -> Result<Vec<Prompt>> {
    if let Some(ids) = &args.prompt_ids {
        let parse = |id: &str| {
            let id = id.trim();
            id.parse().with_context(|| format!("--prompt-ids: {id:?} is no token id"))
        };
        let ids = ids.split(',').filter(|id| !id.trim().is_empty()).map(parse).collect::<Result<Vec<u32>>>()?;
        return Ok(vec![subject.prompt_of_ids(ids).context("--prompt-ids")?]);
    }
    let encoding = encoding(args);
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
    let encoded = subject.prompts_as(&texts, &encoding);
    lines
        .iter()
        .zip(encoded)
        .map(|((place, Line { prompt, expected }), encoded)| {
            Ok(encoded.with_context(|| format!("{place} {prompt:?}"))?.expecting(expected))
        })
        .collect()
}

/// How answers are judged: by a threshold that was given, or one calibrated on this model.
pub(super) fn settings(subject: &Subject, args: &RunArgs, prompts: &[Prompt], sink: &mut Sink) -> Result<Settings> {
    let max_tokens = args.prompts.max_tokens as usize;
    let threshold = match args.threshold.threshold {
        Some(threshold) => Threshold::Given(threshold),
        None => {
            let own = match &args.threshold.calibration {
                Some(file) => prompts_of(file)?.into_iter().map(|(_, line)| line.prompt).collect(),
                None => Vec::new(),
            };
            let encoding = encoding(&args.prompts);
            let ids =
                calibrate::prompts(subject, &own, &encoding, prompts).context("cannot encode a calibration prompt")?;
            Threshold::Calibrated(calibrate::calibrate(subject, &ids, max_tokens, |progress| sink.watch(progress))?)
        }
    };
    Ok(Settings { max_tokens, threshold, seed: args.seed, shard: args.shard })
}

/// What stands above the results: the model, its head, and what runs it.
pub(super) fn introduction(subject: &Subject) -> String {
    let (config, layout) = (subject.checkpoint().config(), subject.head().layout());
    let revision = subject.revision().map_or(String::new(), |revision| format!(" at {revision}"));
    let tied = match (subject.checkpoint().weights().lm_head.is_none(), subject.shared()) {
        (false, _) => "",
        (true, false) => ", a copy of the tied embedding",
        (true, true) => ", shared with the embedding",
    };
    format!(
        "{}{revision}: {}, {} layers, hidden {}\nlm_head {} x {}, {}{tied}; {}, {} threads\n",
        plain(subject.name()),
        config.family.model_type,
        config.architecture.layers.len(),
        config.architecture.hidden_size,
        layout.rows(),
        layout.cols(),
        layout.described(),
        subject.backend().kernel(),
        subject.team().threads(),
    )
}
