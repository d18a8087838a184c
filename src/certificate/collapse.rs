//! A worst case of collapse: few flips after which most answers of a prompt suite are DEAD or GONE.
//!
//! This is a search, not a certificate: it shows that so many flips suffice, and says nothing of fewer. It is greedy.
//! Each round considers *moves*: one or several flips in one row, those that move its logit most on average over the
//! positions of all clean answers (some hundred at most, spread evenly). One flip at a time would not do, since a row that
//! is far behind shows nothing of the first of the flips that bring it ahead. A move is scored by
//!
//! ```text
//! score = sum over positions of max(log p(token), -16)
//! ```
//!
//! with `p` the edited distribution, which one row's new logits give exactly: `log p` changes by what the row adds to the
//! sum of exponentials. It is cut at 16 nats, so that a position that is lost counts once, however far it is lost. Rows are
//! chosen for scoring by their mean logit after the move. The moves with the lowest scores of their size are run, on their
//! own, on all prompts. If one of them collapses the suite, the smallest such is taken, and flips that turn out not to be
//! needed are taken out again; else the one that lowers the score most for a flip, and the next round goes on from there.
//!
//! Beside it stands what as many random flips do, as in a campaign.

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, Serialize};

use super::{
    CertificateError,
    allocation::{self, Best, leave_out},
    ground::{Stage, Watch, logits},
    position::{Flip, Gain, Position, Rows},
};
use crate::{
    coherence::{Finish, Verdict},
    edit::{Amount, Change, Edit, Random},
    model::Projection,
    quant::Tensor,
    search::{Job, Progress, Session, Settings, Spec},
    stats,
    subject::{Prompt, Subject},
};

/// Positions that are scored, at most.
const POSITIONS: usize = 96;
/// Nats at which a position's loss is cut.
const LOST: f64 = 16.0;
/// Columns in which flips are looked for.
const COLUMNS: usize = 64;
/// Flips of a move.
const SIZES: [usize; 11] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48];
/// Rows that are scored for each size.
const SCORED: usize = 64;
/// Moves that are run for each size, those with the lowest scores.
const RUN: usize = 2;
/// Rows of one work item.
const CHUNK: usize = 1024;
/// Random edits whose answers are held at a time.
const AT_ONCE: usize = 512;

/// The search for a collapse, and the random edits that it is compared with.
#[derive(Clone, Debug)]
pub struct CollapseOptions {
    /// Flips, at most.
    pub flips: usize,
    /// Number of random edits with as many flips.
    pub trials: usize,
    /// Seed of the first random edit; the seeds of the others follow it.
    pub seed: u64,
}

/// Few flips that leave most answers DEAD or GONE, or as bad as was found.
#[derive(Debug, Serialize, Deserialize)]
pub struct Collapse {
    /// How it was found: not by a proof.
    pub method: Cow<'static, str>,
    /// Whether the median verdict is DEAD or GONE.
    pub reached: bool,
    /// Flips of the edit.
    pub flips: usize,
    /// The edit.
    pub edit: String,
    /// The median verdict under it; of two, the worse.
    pub median: Verdict,
    /// What became of each prompt.
    pub prompts: Vec<Fate>,
    /// Move by move, before flips that were not needed were taken out.
    pub path: Vec<Taken>,
    /// What as many random flips do.
    pub random: RandomFlips,
}

/// An answer under the edit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Fate {
    /// The prompt.
    pub prompt: String,
    /// The verdict.
    pub verdict: Verdict,
    /// Length of the coherent prefix, in steps.
    pub coherent_tokens: usize,
    /// The answer.
    pub text: String,
}

/// A move that was made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Taken {
    /// Its flips.
    pub edit: String,
    /// The median verdict after it.
    pub median: Verdict,
    /// Mean log-probability of the clean tokens with it, each cut as in the score, in nats.
    pub score: f64,
}

/// Random edits.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RandomFlips {
    /// Flips of each.
    pub flips: usize,
    /// Edits.
    pub trials: usize,
    /// Verdicts of all their answers.
    pub verdicts: BTreeMap<Verdict, usize>,
    /// The median verdicts of the edits.
    pub medians: BTreeMap<Verdict, usize>,
    /// Edits with a median of DEAD or GONE.
    pub collapsed: usize,
}

fn median(fates: &[Fate]) -> Verdict {
    let verdicts: Vec<Verdict> = fates.iter().map(|fate| fate.verdict).collect();
    stats::median(&verdicts).expect("a prompt")
}

fn collapsed(verdict: Verdict) -> bool {
    verdict >= Verdict::Dead
}

/// Runs edits on all prompts, judged as in every run.
struct Field<'a>(Session<'a>);

impl Field<'_> {
    /// What becomes of each prompt under each edit.
    fn run(&mut self, edits: &[Edit], watch: Watch<'_>) -> Result<Vec<Vec<Fate>>, CertificateError> {
        let prompts = self.0.prompts().len();
        let jobs = edits
            .iter()
            .flat_map(|edit| (0..prompts).map(move |prompt| (prompt, edit.clone())))
            .enumerate()
            .map(|(trial, (prompt, edit))| Job { trial, prompt, edit, family: None, value: None });
        let mut fates = Vec::new();
        self.0.run(jobs, &mut |progress| match progress {
            Progress::Record { record, .. } => {
                fates.push(Fate {
                    prompt: record.prompt.clone(),
                    verdict: record.verdict,
                    coherent_tokens: record.coherent_tokens,
                    text: record.text.clone(),
                });
                Ok(())
            }
            Progress::HandedOver => Ok(()),
            Progress::Begins(_) | Progress::Reading { .. } | Progress::Calibrating { .. } | Progress::Wave { .. } => {
                watch(Stage::Running)
            }
        })?;
        Ok(fates.chunks(prompts).map(<[Fate]>::to_vec).collect())
    }
}

/// The edited distributions at the positions that are scored.
struct Scores<'a> {
    positions: &'a [Position<'a>],
    /// Logarithm of the sum of exponentials, by position.
    log_sums: Vec<f64>,
    /// Logit of the clean token, by position.
    tokens: Vec<f64>,
    /// Logits of the rows that were edited, by position.
    edited: BTreeMap<usize, Vec<f64>>,
    taken: Vec<Flip>,
}

impl<'a> Scores<'a> {
    fn new(positions: &'a [Position<'a>]) -> Self {
        let log_sum = |position: &Position<'_>| {
            let top = position.executed(position.token());
            top + (0..position.rows.len()).map(|row| (position.executed(row) - top).exp()).sum::<f64>().ln()
        };
        Self {
            positions,
            log_sums: positions.iter().map(log_sum).collect(),
            tokens: positions.iter().map(|position| position.executed(position.token())).collect(),
            edited: BTreeMap::new(),
            taken: Vec::new(),
        }
    }

    fn logit(&self, row: usize, at: usize) -> f64 {
        self.edited.get(&row).map_or_else(|| self.positions[at].executed(row), |logits| logits[at])
    }

    /// How far flips of one row move its logit at a position. None of them was taken before, nor another of their codes
    /// where changes of a code depend on each other.
    fn delta(&self, flips: &[Flip], at: usize) -> f64 {
        let mut codes: BTreeMap<(u32, u32), u8> = BTreeMap::new();
        flips.iter().for_each(|flip| *codes.entry((flip.row, flip.column)).or_default() |= 1 << flip.bit);
        let delta = |((row, column), mask): (&(u32, u32), &u8)| {
            self.positions[at].delta(*row as usize, *column as usize, *mask)
        };
        codes.iter().map(delta).sum()
    }

    /// The token's logit and the logarithm of the sum once flips of one row are made.
    fn moved(&self, flips: &[Flip], at: usize) -> (f64, f64) {
        let row = flips[0].row as usize;
        let (old, delta) = (self.logit(row, at), self.delta(flips, at));
        let sum = self.log_sums[at];
        let added = ((old + delta - sum).exp() - (old - sum).exp()).max(-1.0);
        let token = self.tokens[at] + if row == self.positions[at].token() { delta } else { 0.0 };
        // The row may be nearly all of the sum; what is left of it then is at least the row itself.
        (token, (sum + added.ln_1p()).max(old + delta))
    }

    /// The score as it is.
    fn now(&self) -> f64 {
        self.tokens.iter().zip(&self.log_sums).map(|(token, sum)| (token - sum).max(-LOST)).sum()
    }

    /// The score with flips of one row more.
    fn score(&self, flips: &[Flip]) -> f64 {
        let after = |at| {
            let (token, sum) = self.moved(flips, at);
            (token - sum).max(-LOST)
        };
        (0..self.positions.len()).map(after).sum()
    }

    fn take(&mut self, flips: &[Flip]) {
        let row = flips[0].row as usize;
        let moved: Vec<(f64, f64)> = (0..self.positions.len()).map(|at| self.moved(flips, at)).collect();
        let logits = (0..moved.len()).map(|at| self.logit(row, at) + self.delta(flips, at)).collect();
        (self.tokens, self.log_sums) = moved.into_iter().unzip();
        self.edited.insert(row, logits);
        self.taken.extend_from_slice(flips);
    }

    /// Moves of at most `flips` flips, for each size those with the lowest scores.
    fn moves(&self, rows: &Rows<'_>, subject: &Subject, flips: usize) -> Vec<Move> {
        let cols = rows.head().layout().cols();
        let sums = |of: &dyn Fn(&Position<'_>) -> bool| -> Vec<f64> {
            let mut sums = vec![0.0; cols];
            for position in self.positions.iter().filter(|position| of(position)) {
                sums.iter_mut().zip(&position.hidden).for_each(|(sum, h)| *sum += h);
            }
            sums
        };
        let sizes: Vec<usize> = SIZES.iter().copied().filter(|&size| size <= flips).collect();
        let Some(&most) = sizes.last() else { return Vec::new() };
        let all = Columns::new(sums(&|_| true));
        // By chunk of rows and size: sum of a row's logits over the positions after the move, and the row.
        let mut found = vec![vec![Vec::new(); sizes.len()]; rows.len().div_ceil(CHUNK)];
        subject.team().for_each_chunk(&mut found, 1, |chunk, found| {
            for row in chunk * CHUNK..((chunk + 1) * CHUNK).min(rows.len()) {
                let logits: f64 = (0..self.positions.len()).map(|at| self.logit(row, at)).sum();
                let mut gains = all.largest(rows, row, true, &self.taken, most);
                for (size, found) in sizes.iter().zip(&mut found[0]) {
                    found.push((logits + gains.sum(*size), row));
                }
            }
            for found in &mut found[0] {
                found.sort_by(|a, b| b.0.total_cmp(&a.0));
                found.truncate(SCORED);
            }
        });
        // A token's own row is better lowered, where it is the token.
        let mut own: BTreeMap<usize, Columns> = BTreeMap::new();
        for position in self.positions {
            let token = position.token();
            own.entry(token).or_insert_with(|| Columns::new(sums(&|other| other.token() == token)));
        }
        let mut moves = Vec::new();
        for (i, &size) in sizes.iter().enumerate() {
            let mut chosen: Vec<(f64, usize)> = found.iter().flat_map(|found| found[i].iter().copied()).collect();
            chosen.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            let raised = chosen.iter().take(SCORED).map(|&(_, row)| (&all, row, true));
            let lowered = own.iter().map(|(&row, columns)| (columns, row, false));
            let mut flips: Vec<Vec<Flip>> = raised
                .chain(lowered)
                .map(|(columns, row, raise)| {
                    let mut gains = columns.largest(rows, row, raise, &self.taken, size);
                    allocation::flips(&gains.changes(size))
                })
                .collect();
            flips.retain(|flips| flips.len() == size);
            let mut scored: Vec<Move> =
                flips.into_iter().map(|flips| Move { score: self.score(&flips), flips }).collect();
            scored.sort_by(|a, b| a.score.total_cmp(&b.score).then(a.flips.cmp(&b.flips)));
            scored.truncate(RUN);
            moves.extend(scored);
        }
        // A code that is NaN ends every answer.
        if let Some(nan) = rows.nan().filter(|nan| nan.flips <= flips) {
            moves.push(Move { score: -LOST * self.positions.len() as f64, flips: nan.witness.clone() });
        }
        moves
    }
}

/// Flips in one row.
#[derive(Clone, Debug)]
struct Move {
    score: f64,
    flips: Vec<Flip>,
}

/// Sums of hidden states over positions, the columns with the largest first.
struct Columns {
    sums: Vec<f64>,
    order: Vec<usize>,
}

impl Columns {
    fn new(sums: Vec<f64>) -> Self {
        let mut order: Vec<usize> = (0..sums.len()).collect();
        order.sort_by(|&a, &b| sums[b].abs().total_cmp(&sums[a].abs()));
        order.truncate(COLUMNS);
        Self { sums, order }
    }

    /// The flips, up to `count`, that raise the row's logit most on average, or lower it; sizes are sums over positions.
    fn largest(&self, rows: &Rows<'_>, row: usize, raise: bool, taken: &[Flip], count: usize) -> Best {
        let reach = rows.changes().most() * rows.scale(row);
        let independent = rows.changes().independent();
        let gone = |gain: &Gain| {
            taken.iter().any(|flip| {
                (flip.row, flip.column) == (gain.row, gain.column) && (!independent || gain.mask >> flip.bit & 1 == 1)
            })
        };
        let mut gains: Vec<Gain> = Vec::new();
        let mut least = 0.0;
        for &column in &self.order {
            if reach * self.sums[column].abs() <= least {
                break;
            }
            rows.gains_of_code(row, column, self.sums[column], raise, |gain| {
                if gain.size >= least && !gone(&gain) {
                    gains.push(gain);
                }
            });
            if gains.len() >= 2 * count {
                least = leave_out(&mut gains, count);
            }
        }
        Best::new(gains, independent)
    }
}

/// Searches for few flips that bring the median verdict over `prompts` to DEAD or GONE, and runs as many random ones.
///
/// # Errors
/// [`CertificateError`].
///
/// # Panics
/// If there is no prompt.
pub fn collapse(
    subject: &Subject,
    prompts: &[Prompt],
    settings: &Settings,
    options: &CollapseOptions,
    watch: Watch<'_>,
) -> Result<Collapse, CertificateError> {
    let rounding = super::rounding(subject)?;
    let mut field = Field(Session::new(subject, prompts, settings.clone()));
    let spec = Spec { command: "certify", edits: "collapse".to_owned(), ..Spec::default() };
    field.0.begin(spec, &mut |_| watch(Stage::Running))?;
    let mut fates = field.run(&[Edit::clean()], watch)?.remove(0);
    if let Some(answer) = field.0.clean()?.iter().find(|answer| answer.finish == Finish::Nonfinite) {
        return Err(CertificateError::NotFinite { step: Some(answer.tokens.len()) });
    }
    let rows = super::rows(subject, subject.head().view(), rounding);
    let trials = field.0.trials();
    let hidden: Vec<Vec<f32>> =
        (0..prompts.len()).flat_map(|prompt| trials.clean_hidden(prompt).map(<[f32]>::to_vec)).collect();
    let hidden: Vec<Vec<f32>> = hidden.iter().step_by(hidden.len().div_ceil(POSITIONS)).cloned().collect();
    let mut head = subject.projection(subject.head().view());
    let executed = logits(&mut head, &hidden)?;
    let positions: Vec<Position<'_>> = hidden
        .iter()
        .zip(executed.chunks_exact(head.vocab_size()))
        .map(|(hidden, executed)| Position::new(&rows, hidden, executed))
        .collect::<Result<_, _>>()?;
    let mut scores = Scores::new(&positions);
    let mut path = Vec::new();
    while !collapsed(median(&fates)) && scores.taken.len() < options.flips {
        watch(Stage::Census)?;
        let moves = scores.moves(&rows, subject, options.flips - scores.taken.len());
        let edits: Vec<Edit> =
            moves.iter().map(|made| Flip::edit(&[scores.taken.as_slice(), &made.flips].concat())).collect();
        let ran = field.run(&edits, watch)?;
        let now = scores.now();
        let each = |i: usize| (moves[i].score - now) / moves[i].flips.len() as f64;
        let by_score = |&a: &usize, &b: &usize| each(a).total_cmp(&each(b));
        let done = (0..moves.len()).filter(|&i| collapsed(median(&ran[i])));
        let done = done.min_by(|a, b| moves[*a].flips.len().cmp(&moves[*b].flips.len()).then(by_score(a, b)));
        let Some(made) = done.or_else(|| (0..moves.len()).min_by(by_score)) else { break };
        if done.is_none() && each(made) >= 0.0 {
            // Nothing is left that makes it worse.
            break;
        }
        scores.take(&moves[made].flips);
        fates.clone_from(&ran[made]);
        let score = moves[made].score / positions.len() as f64;
        path.push(Taken { edit: Flip::edit(&moves[made].flips).to_string(), median: median(&fates), score });
    }
    let mut flips = scores.taken;
    if collapsed(median(&fates)) {
        (flips, fates) = thinned(&mut field, flips, fates, watch)?;
    }
    let random = random_flips(&mut field, flips.len(), options, watch)?;
    Ok(Collapse {
        method: "greedy search; fewer flips may do it, too".into(),
        reached: collapsed(median(&fates)),
        flips: flips.len(),
        edit: Flip::edit(&flips).to_string(),
        median: median(&fates),
        prompts: fates,
        path,
        random,
    })
}

/// Takes out flips without which the suite collapses as well: all that could go are run at once, and the first that can
/// is taken out.
fn thinned(
    field: &mut Field<'_>,
    mut flips: Vec<Flip>,
    mut fates: Vec<Fate>,
    watch: Watch<'_>,
) -> Result<(Vec<Flip>, Vec<Fate>), CertificateError> {
    while flips.len() > 1 {
        let fewer: Vec<Vec<Flip>> = (0..flips.len())
            .map(|i| flips.iter().enumerate().filter(|&(j, _)| j != i).map(|(_, flip)| *flip).collect())
            .collect();
        let edits: Vec<Edit> = fewer.iter().map(|flips| Flip::edit(flips)).collect();
        let ran = field.run(&edits, watch)?;
        let Some(i) = (0..ran.len()).rev().find(|&i| collapsed(median(&ran[i]))) else { break };
        flips.clone_from(&fewer[i]);
        fates.clone_from(&ran[i]);
    }
    Ok((flips, fates))
}

fn random_flips(
    field: &mut Field<'_>,
    flips: usize,
    options: &CollapseOptions,
    watch: Watch<'_>,
) -> Result<RandomFlips, CertificateError> {
    let random = |i: usize| {
        let seed = options.seed.wrapping_add(i as u64);
        let random = Random { tensor: Tensor::Weight, amount: Amount::Flips(flips as u64), seed };
        Edit::new(vec![Change::Random(random)])
    };
    let mut found = RandomFlips {
        flips,
        trials: options.trials,
        verdicts: BTreeMap::new(),
        medians: BTreeMap::new(),
        collapsed: 0,
    };
    let mut seeds = 0..options.trials;
    loop {
        // Only the counts are wanted, however many trials there are.
        let edits: Vec<Edit> = seeds.by_ref().take(AT_ONCE).map(random).collect();
        if edits.is_empty() {
            break;
        }
        for fates in field.run(&edits, watch)? {
            let median = median(&fates);
            *found.medians.entry(median).or_default() += 1;
            found.collapsed += usize::from(collapsed(median));
            fates.iter().for_each(|fate| *found.verdicts.entry(fate.verdict).or_default() += 1);
        }
    }
    Ok(found)
}
