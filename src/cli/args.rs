//! The command line, as `--help` shows it.

use std::path::PathBuf;

use anyhow::bail;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::{
    coherence::Verdict,
    edit::{Edit, Family},
    record::{Shard, scheduler},
    tokenizer::{Clock, Json},
};

/// Disturb the packed weights of a quantized lm_head, measure when its answers fall apart, and prove that all is undone
#[derive(Debug, Parser)]
#[command(
    name = "headroom",
    version,
    max_term_width = 100,
    // Without this, `headroom --model X verify` would run on another model than X.
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  headroom                                          the ladder on the model that ships inside
  headroom ladder --model mlx-community/Meta-Llama-3-8B-Instruct-4bit
  headroom ladder --model ./smollm2 --shifts 0,1,16,256 --prompt 'Name a color.'
  headroom probe shift:-5 'flip:weight[34,7].3' --model ./smollm2
  headroom bisect --family shift --from 0 --to 1000000 --model ./smollm2
  headroom map --prompts suite.jsonl --model ./smollm2
  headroom campaign --flips 1,10,100 --trials 1000 --model ./smollm2
  headroom certify --model ./smollm2 --within word
  headroom verify --model ./smollm2

Exit codes: 0 done; 1 a bound given by --at-least or --kl did not hold or could not be looked at
for every trial, a restoration failed, or parts of a merge are missing; 2 usage, input or I/O;
3 nothing was checked; 130 ended by Ctrl-C, 143 by SIGTERM, with what is finished kept: run it again with --resume."
)]
pub(super) struct Cli {
    /// The command; `ladder` if none is given.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Options of the ladder, for a call without a command.
    #[command(flatten)]
    pub ladder: LadderArgs,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Shift every packed word by each of ten amounts, show what the model still says, and restore the head
    Ladder(Box<LadderArgs>),
    /// Run the given edits on each prompt
    Probe(Box<ProbeArgs>),
    /// Run many edits of one family on each prompt
    Sweep(Box<SweepArgs>),
    /// Find where answers break between two edits of a family, down to neighbouring ones
    Bisect(Box<BisectArgs>),
    /// Try every value of every hexadecimal digit of a shift, and show which digits hurt
    Map(Box<MapArgs>),
    /// Flip random bits many times, and count how often the answer changes and into what
    Campaign(Box<CampaignArgs>),
    /// Run the edits of a recipe or of a journal on this model
    Replay(Box<ReplayArgs>),
    /// Show what changed between two stored runs, trial by trial
    Compare(CompareArgs),
    /// Find the fewest flips that change each answer, count the single flips that do, and run the witnesses
    Certify(Box<CertifyArgs>),
    /// Judge the answers of a stored run anew, without the model
    Relabel(RelabelArgs),
    /// Join the journals of the parts of one run
    Merge(MergeArgs),
    /// Show what the checkpoint holds
    Inspect(InspectArgs),
    /// Exercise every way of restoring the head of this model
    Verify(VerifyArgs),
    /// Show what stored runs found, as text or as one self-contained page
    Report(ReportArgs),
    /// Download a model from the Hugging Face hub
    Pull(PullArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell that the script is for.
        shell: Shell,
    },
}

impl Cli {
    /// Puts the number of the part that is run into the name of its journal.
    ///
    /// # Errors
    /// If the name asks for a number and there are no parts.
    pub(super) fn number_output(&mut self) -> anyhow::Result<()> {
        if let Some(Command::Certify(args)) = &mut self.command {
            return number(&mut args.out, args.shard);
        }
        self.run_args().map_or(Ok(()), |RunArgs { output, shard, .. }| number(&mut output.out, *shard))
    }

    /// The options of a run, where the command is one.
    pub(super) fn run_args(&mut self) -> Option<&mut RunArgs> {
        match &mut self.command {
            None => Some(&mut self.ladder.run),
            Some(Command::Ladder(args)) => Some(&mut args.run),
            Some(Command::Probe(args)) => Some(&mut args.run),
            Some(Command::Sweep(args)) => Some(&mut args.run),
            Some(Command::Bisect(args)) => Some(&mut args.run),
            Some(Command::Map(args)) => Some(&mut args.run),
            Some(Command::Campaign(args)) => Some(&mut args.run),
            Some(Command::Replay(args)) => Some(&mut args.run),
            _ => None,
        }
    }
}

/// The model, and how it is run.
#[derive(Args, Clone, Debug)]
pub(super) struct ModelArgs {
    /// Model to run: a folder, a hub id with an optional @revision, or `demo`, which the program contains
    #[arg(long, value_name = "DIR|ORG/NAME[@REVISION]|demo", default_value = "demo")]
    pub model: String,
    /// Backend that runs the model [default: mlx on macOS if it is built in, otherwise cpu]
    #[arg(long, value_enum)]
    pub backend: Option<Backend>,
    /// Type of the activations that MLX computes, on the backends mlx and mlx-lm [default: native]
    #[arg(long, value_enum)]
    pub dtype: Option<Dtype>,
    /// Python that has mlx-lm, for the backend mlx-lm [default: that of HEADROOM_PYTHON, otherwise python3]
    #[arg(long, value_name = "PATH")]
    pub python: Option<PathBuf>,
    /// Let mlx-lm run Python code that lies in the model's folder, if the model asks for it
    #[arg(long)]
    pub trust_remote_code: bool,
    /// What an edit reaches if the embedding is also the head: a copy that is used as the head only, or both
    #[arg(long, value_enum, default_value_t)]
    pub tied: Tied,
    /// Number of threads; it does not change results [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Kernel to use instead of the fastest one here: an instruction set (scalar, avx2, ...), or one with its paths
    /// (avx2+blocks+logits, ...); it does not change results
    #[arg(long, value_name = "NAME")]
    pub kernel: Option<String>,
}

/// The prompts, and how they are encoded.
#[derive(Args, Clone, Debug)]
pub(super) struct PromptArgs {
    /// Prompt to answer; the flag may be repeated [default: "What is 2+2?"]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub prompt: Vec<String>,
    /// File of prompts, or - for standard input: one prompt on each line; in .jsonl or .ndjson one {"prompt": "...",
    /// "expected": ["..."]} on each line; in .json a list of them. On standard input JSON is seen by its first character
    #[arg(long, value_name = "FILE")]
    pub prompts: Option<PathBuf>,
    /// System message that precedes each prompt
    #[arg(long, value_name = "TEXT", conflicts_with = "raw", allow_hyphen_values = true)]
    pub system: Option<String>,
    /// Encode prompts as they are, without the chat template
    #[arg(long)]
    pub raw: bool,
    /// Name of the chat template to use, if the model has several [default: default]
    #[arg(long, value_name = "NAME", conflicts_with = "raw")]
    pub template: Option<String>,
    /// Variable of the chat template, such as enable_thinking=false; VALUE is JSON, otherwise text; the flag may be
    /// repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = template_argument, conflicts_with = "raw")]
    pub template_arg: Vec<(String, Json)>,
    /// Date for chat templates that ask for it, such as 2024-07-26 [default: that of the journal that is resumed or
    /// replayed, otherwise that of SOURCE_DATE_EPOCH, otherwise today]
    #[arg(long, value_name = "DATE", value_parser = Clock::parse)]
    pub date: Option<Clock>,
    /// Token ids of one prompt, separated by commas
    #[arg(long, value_name = "IDS", conflicts_with_all = ["prompt", "prompts", "system", "raw", "template", "template_arg"])]
    pub prompt_ids: Option<String>,
    /// Largest number of tokens to generate
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_tokens: u32,
}

/// The bounds that must hold for exit code 0.
#[derive(Args, Clone, Debug)]
pub(super) struct BoundArgs {
    /// Exit with code 1 unless the verdict of every trial is at least this good
    #[arg(long, value_name = "VERDICT")]
    pub at_least: Option<Verdict>,
    /// Exit with code 1 unless the mean divergence of every trial is at most this many nats
    #[arg(long, value_name = "NATS", value_parser = nats)]
    pub kl: Option<f64>,
}

/// The threshold that says when a step counts as coherent.
#[derive(Args, Clone, Debug)]
pub(super) struct ThresholdArgs {
    /// Largest surprise of a coherent step; without it, the threshold is calibrated on the model's own answers
    #[arg(long, value_name = "NATS", value_parser = surprise)]
    pub threshold: Option<f64>,
    /// File of prompts to calibrate on, one on each line, in place of the program's own; every third is held out
    #[arg(long, value_name = "FILE", conflicts_with = "threshold")]
    pub calibration: Option<PathBuf>,
    /// File that --calibrate-only printed for this run: the threshold is taken from there
    #[arg(long, value_name = "FILE", conflicts_with_all = ["threshold", "calibrate_only"])]
    pub calibration_from: Option<PathBuf>,
    /// Only calibrate the threshold of this run, and print it as a file that --calibration-from takes, so that the parts
    /// of a run need not draw the same answers each
    #[arg(long, conflicts_with = "threshold")]
    pub calibrate_only: bool,
}

/// The form of the results, and the journal.
#[derive(Args, Clone, Debug)]
pub(super) struct OutputArgs {
    /// Format of the results on stdout
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// Journal that each record is appended to as its trial finishes. What headroom wrote there before is kept as
    /// FILE.old, or as FILE.old.1, FILE.old.2, ... if there is one already
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Replace whatever the file of --out holds, also what headroom did not write, and keep nothing of it
    #[arg(long, requires = "out", conflicts_with = "resume")]
    pub force: bool,
    /// Continue the run whose journal --out names, and begin it where there is no such file yet; finished trials are
    /// not run again
    #[arg(long, requires = "out")]
    pub resume: bool,
}

/// What stands for the part's number in the name of a journal.
const SHARD: &str = "{shard}";

/// Puts the number of the part into the name of the journal.
///
/// # Errors
/// If the name asks for it and there are no parts.
fn number(out: &mut Option<PathBuf>, shard: Option<Shard>) -> anyhow::Result<()> {
    let Some(name) = out.as_ref().and_then(|out| out.to_str()).filter(|name| name.contains(SHARD)) else {
        return Ok(());
    };
    let Some(shard) = shard else {
        bail!("--out {name}: {SHARD} stands for the number of a part; add --shard, or give another name");
    };
    *out = Some(PathBuf::from(name.replace(SHARD, &shard.index().to_string())));
    Ok(())
}

/// Options that all commands share which run edits on prompts.
#[derive(Args, Clone, Debug)]
pub(super) struct RunArgs {
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
    /// Seed of every random choice in the run
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Output options.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Part of the trials to run, such as 1/3, 2/3 or 3/3, or auto: the part that the task of an array is, as Slurm,
    /// Kubernetes, PBS, LSF or AWS Batch number it, of as many parts as HEADROOM_SHARDS says (Slurm tells the number
    /// itself). In --out, {shard} becomes the part's number; `merge` joins the journals of the parts
    #[arg(long, value_name = "I/N|auto", value_parser = shard)]
    pub shard: Option<Shard>,
}

/// Options of `ladder`.
#[derive(Args, Clone, Debug)]
pub(super) struct LadderArgs {
    /// Run options.
    #[command(flatten)]
    pub run: RunArgs,
    /// Amounts to subtract from every packed word, separated by commas [default: the ten of the seed notebook]
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    pub shifts: Option<String>,
}

/// Options of `probe`.
#[derive(Args, Clone, Debug)]
pub(super) struct ProbeArgs {
    /// Edits of the head, each run on its own.
    #[arg(
        required = true,
        value_name = "EDIT",
        help = "Edits to run, e.g. shift:-5, flip:weight[34,7].3, set:word[0,1]=0x0, or several joined by +"
    )]
    pub edits: Vec<Edit>,
    /// Run options.
    #[command(flatten)]
    pub run: RunArgs,
}

/// Options of `sweep`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Values, comma-separated:
  0,1,-5,0xff            integers of 64 bits; 1_000_000 may have underscores
  1000000..1000010       every integer between, both ends included
  2^0..2^31              powers of one base, exponents running
  1..1000:log            doubling: 1, 2, 4, ... 512, and 1000 itself
  1e-6,1e-5              rates (family rate); 1e-6..1e-3:log doubles
  @FILE                  a file of such lists, one or more a line; # begins a comment
A value that occurs twice is run once.

Examples:
  headroom sweep --family shift --values 1000000..1000010
  headroom sweep --family shift --values 2^0..2^31 --prompts suite.jsonl
  headroom sweep --family digit:5 --values 0..15
  headroom sweep --family flips:7 --values 1..4096:log
  headroom sweep --family rate:7 --values 1e-6..1e-3:log")]
pub(super) struct SweepArgs {
    /// Family of edits: shift, digit:K (shift by value x 16^K), flips:SEED (the first flips of one random order), or
    /// rate:SEED (every bit flips with this probability)
    #[arg(long, value_name = "FAMILY")]
    pub family: Family,
    /// Values of the family, in the order in which they run; the forms are listed below
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    pub values: String,
    /// Run options.
    #[command(flatten)]
    pub run: RunArgs,
}

/// Options of `bisect`.
#[derive(Args, Clone, Debug)]
#[command(
    mut_arg("at_least", |arg| arg.help(
        "Search for where the median verdict over the prompts is at least this good [default: WOBBLING]"
    )),
    mut_arg("kl", |arg| {
        arg.help("Search for where the mean divergence is at most this many nats").conflicts_with("at_least")
    }),
    // Each step depends on what the ones before it found.
    mut_arg("shard", |arg| arg.hide(true)),
    after_help = "The search runs the two ends and some values between them and narrows every change that they show down \
to neighbours, both of which are run. It reports all changes that it saw. Only the edits of flips:SEED contain \
the smaller ones; in every other family there may be more changes than were found. The exit code does not depend on \
the findings.

Examples:
  headroom bisect --family shift --from 0 --to 1000000
  headroom bisect --family flips:7 --from 0 --to 4096 --kl 0.5
  headroom bisect --family rate:7 --from 0 --to 1e-3 --at-least DYING --prompts suite.jsonl"
)]
pub(super) struct BisectArgs {
    /// Family of edits: shift, digit:K (shift by value x 16^K), flips:SEED (the first flips of one random order), or
    /// rate:SEED (every bit flips with this probability)
    #[arg(long, value_name = "FAMILY")]
    pub family: Family,
    /// One end of the search: an integer, a power such as 2^20, or a rate
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
    pub from: String,
    /// Other end of the search, which may be greater or smaller
    #[arg(long, value_name = "VALUE", allow_hyphen_values = true)]
    pub to: String,
    /// Run options.
    #[command(flatten)]
    pub run: RunArgs,
}

/// Options of `map`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "A packed word has eight hexadecimal digits. Each cell of the map is a shift of one of them, by \
value x 16^digit, on every prompt: 8 x 16 cells. With 4-bit codes a digit is a code; with 8-bit codes two digits are one.

Examples:
  headroom map
  headroom map --prompts suite.jsonl --model ./smollm2 --out map.jsonl"
)]
pub(super) struct MapArgs {
    /// Run options.
    #[command(flatten)]
    pub run: RunArgs,
}

/// Options of `campaign`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Each trial flips its own random bits, drawn from --seed, the row's number and the trial's, and \
asks one of the \
prompts, in turn. So trials are independent, and Wilson's interval holds for their number.

Examples:
  headroom campaign --flips 1,10,100 --trials 1000
  headroom campaign --rate 1e-6,1e-5 --trials 500 --prompts suite.jsonl --model ./smollm2
  headroom campaign --flips 1 --tensor scales --trials 100000 --half-width 0.01"
)]
pub(super) struct CampaignArgs {
    /// Number of bits to flip in each trial; every number of the list makes a row (the list is as for sweep --values)
    #[arg(long, value_name = "LIST", required_unless_present = "rate", allow_hyphen_values = true)]
    pub flips: Option<String>,
    /// Probability that a bit flips; every probability of the list makes a row
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    pub rate: Option<String>,
    /// Number of trials in each row
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub trials: u32,
    /// Tensor whose bits are flipped
    #[arg(long, value_enum, default_value_t)]
    pub tensor: TensorName,
    /// End a row once its interval of a changed answer is within +- W; checked after 100, 200, 400, ... trials
    #[arg(long, value_name = "W", value_parser = half_width, conflicts_with = "shard")]
    pub half_width: Option<f64>,
    /// Run options.
    #[command(flatten)]
    pub run: RunArgs,
}

/// Options of `replay`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "A recipe is {\"schema\":1,\"recipe\":[{\"edit\":\"shift:1\",\"prompt\":\"...\",\"note\":\"...\"}]}; an \
entry without a prompt runs on \"What is 2+2?\". The edits of a journal run on the prompts that they ran on: by \
their ids if this is the model of the journal and neither --system nor --raw is given, otherwise by their text. \
Prompts that are given here replace all of them.

Examples:
  headroom replay found.json --model ./smollm2
  headroom replay old.jsonl --model ./smollm2-new --out new.jsonl && headroom compare old.jsonl new.jsonl"
)]
pub(super) struct ReplayArgs {
    /// Recipe to replay, or journal that --out wrote
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Run options.
    #[command(flatten)]
    pub run: RunArgs,
}

/// Options of `compare`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Trials are matched by prompt and edit. Exit code 1: a verdict is worse in the second run; 3: the \
runs have no trial in common.

Examples:
  headroom compare old.jsonl new.jsonl
  headroom compare cpu.jsonl mlx.jsonl --tolerance 1e-3 --format json"
)]
pub(super) struct CompareArgs {
    /// Journal of the first run
    #[arg(value_name = "RUN_A")]
    pub a: PathBuf,
    /// Journal of the second run
    #[arg(value_name = "RUN_B")]
    pub b: PathBuf,
    /// Tolerance for runs of two backends: numbers may differ by T times the greater of the two, or T if that is more
    #[arg(long, value_name = "T", default_value_t = 0.0, value_parser = tolerance)]
    pub tolerance: f64,
    /// Format of the result on stdout; jsonl has one changed trial on each line
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// Options of `relabel`.
#[derive(Args, Clone, Debug)]
pub(super) struct RelabelArgs {
    /// Journal of a run, as --out writes it
    #[arg(value_name = "RUN")]
    pub journal: PathBuf,
    /// Largest surprise of a coherent step [default: that of the records]
    #[arg(long, value_name = "NATS", value_parser = surprise)]
    pub threshold: Option<f64>,
    /// Bounds.
    #[command(flatten)]
    pub bounds: BoundArgs,
    /// Format of the results on stdout
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// File that also gets the records, one JSON object on each line. What headroom wrote there before is kept as
    /// FILE.old, or as FILE.old.1, FILE.old.2, ... if there is one already
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Replace whatever the file of --out holds, also what headroom did not write, and keep nothing of it
    #[arg(long, requires = "out")]
    pub force: bool,
}

/// Options of `merge`.
#[derive(Args, Clone, Debug)]
pub(super) struct MergeArgs {
    /// Journals of all parts of one run
    #[arg(required = true, value_name = "RUN")]
    pub journals: Vec<PathBuf>,
    /// Join what is there, though trials of the run are missing; without it that is an error (exit code 1) which says
    /// what to run again
    #[arg(long)]
    pub allow_missing: bool,
    /// Number of parts that the run was made in, to say which are missing [default: HEADROOM_SHARDS, otherwise what the
    /// trials of the journals show]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    pub shards: Option<u32>,
    /// Format of the results on stdout [default: jsonl; with --out, where stdout has a summary, text]
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// File that gets the records in place of stdout, one JSON object on each line. What headroom wrote there before is kept
    /// as FILE.old, or as FILE.old.1, FILE.old.2, ... if there is one already
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Replace whatever the file of --out holds, also what headroom did not write, and keep nothing of it
    #[arg(long, requires = "out")]
    pub force: bool,
}

/// Options of `certify`.
#[derive(Args, Clone, Debug)]
pub(super) struct CertifyArgs {
    /// Model options.
    #[command(flatten)]
    pub model: ModelArgs,
    /// Prompt options.
    #[command(flatten)]
    pub prompts: PromptArgs,
    /// Also find the fewest flips that lie within one packed word, one row, or one line of 64 bytes
    #[arg(long, value_enum, value_name = "UNIT")]
    pub within: Option<Unit>,
    /// Also bound, from both sides, how few flips keep the answer from ending
    #[arg(long)]
    pub silence_eos: bool,
    /// Also find the fewest flips that make this the first token: an id, or text:4 for the token of the text 4
    #[arg(long, value_name = "TOKEN", allow_hyphen_values = true)]
    pub toward: Option<String>,
    /// Also search for at most this many flips that leave most answers DEAD or GONE, and run as many random ones
    #[arg(long, value_name = "FLIPS", num_args = 0..=1, default_missing_value = "16", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub collapse: Option<u32>,
    /// Number of random edits that --collapse runs for comparison
    #[arg(
        long, value_name = "N", default_value_t = 100, requires = "collapse",
        value_parser = clap::value_parser!(u32).range(0..=1_000_000)
    )]
    pub trials: u32,
    /// Seed of the random edits that --collapse runs
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Threshold options, which only --collapse uses.
    #[command(flatten)]
    pub threshold: ThresholdArgs,
    /// Number of the weakest bits of each answer to run
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub weakest: u16,
    /// Format of the results on stdout
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// File that gets the witnesses and the weakest bits as a recipe, which `replay` runs, in place of an earlier recipe. A
    /// name that ends in .jsonl, .ndjson or .zst makes a journal, which each certificate is appended to as it is finished
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Replace whatever the file of --out holds, also what headroom did not write, and keep nothing of it
    #[arg(long, requires = "out", conflicts_with = "resume")]
    pub force: bool,
    /// Continue the run whose journal --out names; finished certificates are not computed again
    #[arg(long, requires = "out")]
    pub resume: bool,
    /// Part of the prompts to certify, such as 1/3, 2/3 or 3/3, or auto, as for the commands that run trials. In --out,
    /// {shard} becomes the part's number; `merge` joins the journals of the parts
    #[arg(long, value_name = "I/N|auto", requires = "out", value_parser = shard)]
    pub shard: Option<Shard>,
}

/// The unit that flips are confined to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Unit {
    /// A packed word of 32 bits
    Word,
    /// A row of the head
    Row,
    /// A line of 64 bytes, counted from the start of the tensor
    Line,
}

/// Options of `inspect`.
#[derive(Args, Clone, Debug)]
pub(super) struct InspectArgs {
    /// Model options.
    #[command(flatten)]
    pub model: ModelArgs,
    /// Also compute digests, which reads every byte of the checkpoint
    #[arg(long)]
    pub digests: bool,
    /// Format of the result on stdout
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// Options of `verify`.
#[derive(Args, Clone, Debug)]
pub(super) struct VerifyArgs {
    /// Model options.
    #[command(flatten)]
    pub model: ModelArgs,
    /// Prompt options.
    #[command(flatten)]
    pub prompts: PromptArgs,
    /// Seed of the random edits
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Format of the result on stdout
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// Options of `report`.
#[derive(Args, Clone, Debug)]
pub(super) struct ReportArgs {
    /// Journals that --out wrote, and objects that --format json printed
    #[arg(value_name = "RUN", required = true)]
    pub runs: Vec<PathBuf>,
    /// File that gets a self-contained HTML page, in place of an earlier page, instead of text on stdout
    #[arg(long, short, value_name = "PAGE.html", conflicts_with = "format")]
    pub output: Option<PathBuf>,
    /// Replace whatever the file of --output holds, also what headroom did not write, and keep nothing of it
    #[arg(long, requires = "output")]
    pub force: bool,
    /// Format of the report on stdout; jsonl is the same as json, since a report is one object
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// Options of `pull`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "A download goes on where an earlier one stopped. It is given up after five attempts in a row that keep \
nothing new, or a hundred that keep less than 64 KiB; an attempt ends where fewer than 1,024 bytes a second come. \
Configuration, tokenizer and template have limits of their size. A file whose SHA-256 the hub announces is held against it."
)]
pub(super) struct PullArgs {
    /// Hub id of the model, with an optional @revision
    #[arg(value_name = "ORG/NAME[@REVISION]")]
    pub model: String,
    /// Format of the result on stdout
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// The backend that runs body and head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Backend {
    /// The CPU kernels of this program
    Cpu,
    /// Apple's MLX, if the program is built with it
    Mlx,
    /// An installed mlx-lm computes the body, of whatever family, and this program's CPU kernels the head
    MlxLm,
}

impl Backend {
    /// The backend that runs the model if none is named.
    pub(super) const fn usual() -> Self {
        if cfg!(all(feature = "mlx", target_os = "macos")) { Self::Mlx } else { Self::Cpu }
    }
}

/// The type of activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Dtype {
    /// The type that follows from the checkpoint's types, as in mlx-lm
    Native,
    /// float32, the type of the CPU backend
    Float32,
}

/// The matrices that an edit of a tied matrix reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Tied {
    /// A private copy that is used as the head only
    #[default]
    Separate,
    /// The matrix itself, which is head and embedding
    Shared,
}

/// The format of results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Text for people
    #[default]
    Text,
    /// One JSON object at the end of the run
    Json,
    /// One record on each line, as each trial finishes
    Jsonl,
}

/// The tensor whose bits are flipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum TensorName {
    /// The packed codes
    #[default]
    Weight,
    /// The scales of the groups
    Scales,
    /// The biases of the groups
    Biases,
}

/// A part that is given, or that the scheduler of this task gives.
pub(super) fn shard(text: &str) -> Result<Shard, String> {
    if text == "auto" { scheduler::shard().map_err(|error| error.to_string()) } else { text.parse() }
}

fn half_width(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(half) if half > 0.0 && half <= 0.5 => Ok(half),
        _ => Err("half the width of an interval of probabilities is more than 0 and at most 0.5".to_owned()),
    }
}

fn tolerance(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(tolerance) if tolerance >= 0.0 && tolerance.is_finite() => Ok(tolerance),
        _ => Err("a tolerance is a number, 0 or more".to_owned()),
    }
}

/// A threshold is written into records, and JSON has no infinity.
fn surprise(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(nats) if nats >= 0.0 && nats.is_finite() => Ok(nats),
        _ => Err("a threshold is a finite number of nats, 0 or more".to_owned()),
    }
}

/// A variable of the chat template.
fn template_argument(text: &str) -> Result<(String, Json), String> {
    let (name, value) = text.split_once('=').ok_or("a variable of the chat template is written NAME=VALUE")?;
    let mut letters = name.chars();
    let is_name = letters.next().is_some_and(|first| first.is_alphabetic() || first == '_')
        && letters.all(|letter| letter.is_alphanumeric() || letter == '_');
    if !is_name {
        return Err(format!("{name:?} is no name of a variable"));
    }
    if name == "messages" {
        return Err("the messages are those of --prompt and --system".to_owned());
    }
    let value = serde_json::from_str(value).unwrap_or_else(|_| Json::Text(value.to_owned()));
    Ok((name.to_owned(), value))
}

fn nats(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(nats) if nats >= 0.0 => Ok(nats),
        _ => Err("a divergence is a number of nats, 0 or more".to_owned()),
    }
}
