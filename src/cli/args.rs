//! The command line, as `--help` shows it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::{coherence::Verdict, edit::Edit, record::journal::Shard};

/// How far can the packed weights of a quantized lm_head be disturbed before the answers fall apart?
#[derive(Debug, Parser)]
#[command(
    name = "headroom",
    version,
    max_term_width = 100,
    // `headroom --model X verify` would run on another model than X.
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  headroom                                          the ladder on the model that ships inside
  headroom ladder --model mlx-community/Meta-Llama-3-8B-Instruct-4bit
  headroom ladder --model ./smollm2 --shifts 0,1,16,256 --prompt 'Name a color.'
  headroom probe shift:-5 'flip:weight[34,7].3' --model ./smollm2
  headroom verify --model ./smollm2

Exit codes: 0 done; 1 a bound given by --at-least or --kl did not hold, or a restoration failed;
2 usage, input or I/O; 3 nothing was checked; 130 interrupted."
)]
pub struct Cli {
    /// What to do; `ladder` if nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Options of the ladder, where no command is given.
    #[command(flatten)]
    pub ladder: LadderArgs,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Shift every packed word by each of ten amounts, show what the model still says, and restore it
    Ladder(Box<LadderArgs>),
    /// Run the given edits on each prompt
    Probe(Box<ProbeArgs>),
    /// Judge the answers of a stored run anew, without the model
    Relabel(RelabelArgs),
    /// Join the journals of the parts of one run
    Merge(MergeArgs),
    /// Show what the checkpoint holds
    Inspect(InspectArgs),
    /// Exercise every way of restoring the head, on this model
    Verify(VerifyArgs),
    /// Download a model from the Hugging Face hub
    Pull(PullArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// Where the model is and how it is run.
#[derive(Args, Clone, Debug)]
pub struct ModelArgs {
    /// A folder, a hub id with an optional @revision, or `demo`, the model inside the program
    #[arg(long, value_name = "DIR|ORG/NAME[@REVISION]|demo", default_value = "demo")]
    pub model: String,
    /// What runs the model
    #[arg(long, value_enum, default_value_t)]
    pub backend: Backend,
    /// Where the embedding is also the head: edit a copy used as the head only, or both
    #[arg(long, value_enum, default_value_t)]
    pub tied: Tied,
    /// Threads; results do not depend on their number [default: one a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// A slower kernel instead of the best one here (scalar, avx2, ...); results do not depend on it
    #[arg(long, value_name = "NAME")]
    pub kernel: Option<String>,
}

/// What is asked.
#[derive(Args, Clone, Debug)]
pub struct PromptArgs {
    /// A prompt; may be given several times [default: "What is 2+2?"]
    #[arg(long, value_name = "TEXT")]
    pub prompt: Vec<String>,
    /// Prompts from a file: text, one a line, or .jsonl with {"prompt": "...", "expected": ["..."]}
    #[arg(long, value_name = "FILE")]
    pub prompts: Option<PathBuf>,
    /// A system message before each prompt
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    pub system: Option<String>,
    /// Take prompts as they are, without the chat template
    #[arg(long)]
    pub raw: bool,
    /// A prompt as token ids, comma-separated
    #[arg(long, value_name = "IDS", conflicts_with_all = ["prompt", "prompts", "system", "raw"])]
    pub prompt_ids: Option<String>,
    /// Tokens to generate at most
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_tokens: u32,
}

/// What must hold for exit code 0.
#[derive(Args, Clone, Debug)]
pub struct BoundArgs {
    /// Fail (exit code 1) unless every trial's verdict is at least this good
    #[arg(long, value_name = "VERDICT")]
    pub at_least: Option<Verdict>,
    /// Fail (exit code 1) unless every trial's mean divergence is at most so many nats
    #[arg(long, value_name = "NATS", value_parser = nats)]
    pub kl: Option<f64>,
}

/// When a step counts as coherent.
#[derive(Args, Clone, Debug)]
pub struct ThresholdArgs {
    /// Surprise up to which a step counts as coherent, instead of calibrating it on the model's own answers
    #[arg(long, value_name = "NATS", value_parser = nats)]
    pub threshold: Option<f64>,
    /// Prompts to calibrate on, one a line, instead of the program's own; every third is held out
    #[arg(long, value_name = "FILE", conflicts_with = "threshold")]
    pub calibration: Option<PathBuf>,
}

/// Where results go.
#[derive(Args, Clone, Debug)]
pub struct OutputArgs {
    /// Form of the results on stdout
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// Journal: append each record to this file as it is finished. What the file held is kept as FILE.old
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Continue the run whose journal is the file of --out: what is finished there is not run again
    #[arg(long, requires = "out")]
    pub resume: bool,
}

/// What all commands have in common that run edits on prompts.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Model options.
    #[command(flatten)]
    pub model: ModelArgs,
    /// Prompt options.
    #[command(flatten)]
    pub prompts: PromptArgs,
    /// Threshold options.
    #[command(flatten)]
    pub threshold: ThresholdArgs,
    /// Bounds.
    #[command(flatten)]
    pub bounds: BoundArgs,
    /// Of all that is random in the run
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Output options.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Run only this part of the trials, such as 1/3, 2/3 or 3/3; `merge` joins the parts' journals
    #[arg(long, value_name = "I/N")]
    pub shard: Option<Shard>,
}

/// Options of `ladder`.
#[derive(Args, Clone, Debug)]
pub struct LadderArgs {
    /// Run options.
    #[command(flatten)]
    pub run: RunArgs,
    /// Amounts to subtract from every packed word, comma-separated [default: the ten of the seed notebook]
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    pub shifts: Option<String>,
}

/// Options of `probe`.
#[derive(Args, Clone, Debug)]
pub struct ProbeArgs {
    /// What to do to the head, each on its own.
    #[arg(
        required = true,
        value_name = "EDIT",
        help = "Edits, e.g. shift:-5, flip:weight[34,7].3, set:word[0,1]=0x0, or several joined by +"
    )]
    pub edits: Vec<Edit>,
    /// Run options.
    #[command(flatten)]
    pub run: RunArgs,
}

/// Options of `relabel`.
#[derive(Args, Clone, Debug)]
pub struct RelabelArgs {
    /// Journal of a run, as --out writes it
    #[arg(value_name = "RUN")]
    pub journal: PathBuf,
    /// Surprise up to which a step counts as coherent [default: the records' own]
    #[arg(long, value_name = "NATS", value_parser = nats)]
    pub threshold: Option<f64>,
    /// Bounds.
    #[command(flatten)]
    pub bounds: BoundArgs,
    /// Form of the results on stdout
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// Write the records to this file too, one JSON object a line
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// Options of `merge`.
#[derive(Args, Clone, Debug)]
pub struct MergeArgs {
    /// Journals of the parts of one run
    #[arg(required = true, value_name = "RUN")]
    pub journals: Vec<PathBuf>,
    /// Form of the results on stdout
    #[arg(long, value_enum, default_value_t = Format::Jsonl)]
    pub format: Format,
    /// Write the records to this file too, one JSON object a line
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// Options of `inspect`.
#[derive(Args, Clone, Debug)]
pub struct InspectArgs {
    /// Model options.
    #[command(flatten)]
    pub model: ModelArgs,
    /// Also compute the digests, which reads every byte of the checkpoint
    #[arg(long)]
    pub digests: bool,
    /// Form of the result on stdout
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// Options of `verify`.
#[derive(Args, Clone, Debug)]
pub struct VerifyArgs {
    /// Model options.
    #[command(flatten)]
    pub model: ModelArgs,
    /// Prompt options.
    #[command(flatten)]
    pub prompts: PromptArgs,
    /// Seed of the random edits
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Form of the result on stdout
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// Options of `pull`.
#[derive(Args, Clone, Debug)]
pub struct PullArgs {
    /// Hub id with an optional @revision
    #[arg(value_name = "ORG/NAME[@REVISION]")]
    pub model: String,
    /// Form of the result on stdout
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// What runs body and head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    /// This program's own kernels
    #[default]
    Cpu,
    /// Apple's MLX
    Mlx,
}

/// What an edit of a tied matrix reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Tied {
    /// A private copy, used as the head only
    #[default]
    Separate,
    /// The matrix itself: head and embedding
    Shared,
}

/// Form of results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Text,
    /// One object at the end
    Json,
    /// One record a line, as each is finished
    Jsonl,
}

fn nats(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(nats) if nats >= 0.0 => Ok(nats),
        _ => Err("a divergence is a number of nats, 0 or more".to_owned()),
    }
}
