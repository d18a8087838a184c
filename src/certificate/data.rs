//! What a certificate says: plain data, as it is written in JSON.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{
    critical::CriticalBits,
    protection::{Protection, RowCount, WordCount},
    scales::ScaleCensus,
    single_bits::SingleBits,
};
use crate::trial::Finish;

/// The certificate of one answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// The prompt as given.
    pub prompt: String,
    /// What the clean model answers.
    pub text: String,
    /// Its tokens, without the eos.
    pub tokens: Vec<u32>,
    /// The eos that ended it.
    pub eos: Option<u32>,
    /// Why it ended.
    pub finish: Finish,
    /// Single bits of all tensors side by side; a file of an older version does not have it, and `SingleBits::of` gives it.
    #[serde(default)]
    pub single_bits: SingleBits,
    /// No fewer flips of code bits change a token of it, in real arithmetic; `None` where no flips do.
    pub least_flips: Option<usize>,
    /// The same for the executed program: no fewer change a token there.
    pub executed_at_least: Option<usize>,
    /// An edit of `least_flips` flips.
    pub witness: Option<String>,
    /// The position whose token it changes.
    pub witness_position: Option<usize>,
    /// What the model says under it.
    pub witness_run: Option<Ran>,
    /// Every position, the eos step included.
    pub positions: Vec<PositionReport>,
    /// Single code bits that change a token in real arithmetic, each counted once.
    pub critical_bits: usize,
    /// Single code bits that no position's bound decides in the executed program, though one leaves them undecided.
    pub undecided_bits: usize,
    /// What running the undecided bits said.
    pub executed: ExecutedCensus,
    /// Code bits of the head.
    pub total_bits: usize,
    /// `critical_bits / total_bits`: the chance that one random flip of a code bit changes the answer, exactly.
    pub vulnerability: f64,
    /// Critical bits by their place in the code, the least significant first.
    pub by_bit_position: Vec<usize>,
    /// Rows with the most critical bits.
    pub rows: Vec<RowCount>,
    /// Packed words with the most critical bits.
    pub words: Vec<WordCount>,
    /// Share of the critical bits that the first words carry.
    pub protection: Vec<Protection>,
    /// The weakest bits: those that change the most positions, of these the earliest, and what the model says after
    /// each.
    pub weakest: Vec<WeakBit>,
    /// Single bits of scales.
    pub scales: ScaleCensus,
    /// Single bits of biases; none in a format without them.
    pub biases: ScaleCensus,
    /// Flips that make a code NaN, where codes can be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nan: Option<NanReport>,
    /// Confined flips, where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within: Option<Confined>,
    /// Flips that keep it from ending, where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub silence_eos: Option<Silence>,
    /// Flips toward a token, where asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub toward: Option<TowardReport>,
    /// Witnesses that failed when they were run. A witness that fails shows a defect of the program.
    pub failures: Vec<String>,
    /// Time that each part took, in milliseconds.
    pub ms: Times,
    /// All critical bits, of all tensors; an answer that was stored does not list them.
    #[serde(skip)]
    pub critical: Option<CriticalBits>,
}

/// One position of the answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PositionReport {
    /// Counted from 0.
    pub index: usize,
    /// The token chosen there.
    pub token: usize,
    /// Its text.
    pub text: String,
    /// The row that wins under the fewest flips that leave every code a number.
    pub rival: Option<usize>,
    /// Its text.
    pub rival_text: Option<String>,
    /// The token's logit minus the rival's.
    pub margin: Option<f64>,
    /// By how much these flips pass the margin.
    pub slack: Option<f64>,
    /// How far the executed difference of the two can be from the exact one.
    pub float_error: Option<f64>,
    /// Fewest flips of code bits that make the token lose, in real arithmetic; 0 where the executed token is not the
    /// exact winner, `None` where no flips do.
    pub least_flips: Option<usize>,
    /// The same among flips that leave every code a number, where codes can be NaN and fewer flips make one so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub least_finite_flips: Option<usize>,
    /// Fewer than these change the executed token under no circumstances.
    pub executed_at_least: Option<usize>,
    /// Flips that do it.
    pub witness: Option<String>,
    /// Whether they did when run, teacher-forced.
    pub witness_changes: Option<bool>,
    /// Where they did not, within float error: more flips that did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub executed_witness: Option<String>,
    /// Single flips that change the token, in real arithmetic.
    pub critical: usize,
    /// Single flips that are certain to change it in the executed program.
    pub critical_executed: usize,
    /// Single flips that the bound leaves undecided there.
    pub undecided: usize,
    /// Undecided ones that changed it when they were run.
    pub undecided_changing: usize,
    /// Undecided ones that were run.
    pub undecided_run: usize,
    /// (row, column) pairs that the census had to look at.
    pub looked_at: usize,
}

/// Flips that make a code NaN: the logit of its row is NaN then, whatever the position, and the answer ends there.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NanReport {
    /// Fewest flips that do it.
    pub flips: usize,
    /// Such flips.
    pub witness: String,
    /// What the model says under them, if they were run.
    pub witness_run: Option<Ran>,
    /// Single flips that do it; all of them are critical.
    pub bits: usize,
    /// Fewest flips of code bits that change a token and leave every code a number; `None` where none do.
    pub least_finite_flips: Option<usize>,
}

/// The census of the executed program.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct ExecutedCensus {
    /// Bits that are certain to change a token.
    pub certain_bits: usize,
    /// Undecided bits that changed a token when they were run.
    pub undecided_changing: usize,
    /// Undecided bits that were run.
    pub undecided_run: usize,
}

/// A critical bit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WeakBit {
    /// The flip.
    pub edit: String,
    /// Its row's text.
    pub row_text: String,
    /// Positions of the clean answer at which it changes the token.
    pub positions: Vec<usize>,
    /// By how much it passes the margin at the first of them.
    pub slack: f32,
    /// What the model says under it.
    #[serde(flatten)]
    pub ran: Ran,
}

/// What a model said under an edit, on its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ran {
    /// Its answer.
    pub text: String,
    /// Its tokens, without the eos.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub finish: Finish,
    /// Whether it is another answer than the clean one.
    pub changed: bool,
    /// Mean divergence from the clean model over the clean answer, in nats.
    pub kl_mean: Option<f64>,
}

/// The certificate of flips confined to one unit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Confined {
    /// `word`, `row` or `line`.
    pub unit: Cow<'static, str>,
    /// Least number of flips within one unit; `None` if no unit has flips that change the answer.
    pub least_flips: Option<usize>,
    /// Lower bound of that number in the executed program.
    pub executed_at_least: Option<usize>,
    /// Flips that do it.
    pub witness: Option<String>,
    /// The position whose token they change.
    pub witness_position: Option<usize>,
    /// Whether they did, free-running.
    pub witness_changes: Option<bool>,
    /// The least count at each position.
    pub positions: Vec<Option<usize>>,
}

/// How many flips keep an answer from ending.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Silence {
    /// Steps that are to go by without an eos.
    pub steps: usize,
    /// No fewer do it, in real arithmetic; `None` where no flips do.
    pub at_least: Option<usize>,
    /// Lower bound of the number in the executed program.
    pub executed_at_least: Option<usize>,
    /// Upper bound of the number, from edits that were run; `None` if the search found none.
    pub at_most: Option<usize>,
    /// Whether the two bounds meet.
    pub exact: bool,
    /// Flips that kept the answer from ending when they were run.
    pub witness: Option<String>,
    /// What the model says under them.
    pub text: Option<String>,
}

/// The certificate of flips toward a token.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TowardReport {
    /// The token.
    pub token: u32,
    /// Its text.
    pub text: String,
    /// Least number of flips, exact; `None` if no flips make the token first.
    pub least_flips: Option<usize>,
    /// Lower bound of the number in the executed program.
    pub executed_at_least: Option<usize>,
    /// Of these flips, how many raise the token's row.
    pub raising: usize,
    /// Rows that the others lower.
    pub lowered_rows: usize,
    /// Flips that do it.
    pub witness: Option<String>,
    /// Whether the flips did so when they were run.
    pub witness_works: Option<bool>,
    /// The model's answer under these flips.
    pub witness_run: Option<Ran>,
}

/// Milliseconds of each part.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Times {
    /// The clean answer.
    pub clean: f64,
    /// Logits of its positions, and what is known of each row.
    pub logits: f64,
    /// Least flips of all positions.
    pub least_flips: f64,
    /// Census of code bits.
    pub census: f64,
    /// Census of scales and biases.
    pub scales: f64,
    /// Variants and runs.
    pub running: f64,
}
