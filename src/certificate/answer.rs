//! The certificate of an answer: every position certified, every witness run.

use std::time::Instant;

use super::{
    CertificateError, Outcome,
    census::{Census, Hit, census},
    confined::{Within, least_flips_within},
    critical::CriticalBits,
    data::{Answer, Confined, ExecutedCensus, NanReport, PositionReport, Ran, Times, TowardReport, WeakBit},
    ground::{Ground, Stage, Watch, logits, run},
    least_flips::{LeastFlips, all_least_flips, largest_gains},
    position::{Flip, NanFlips, Position, Rows},
    protection::{Protection, Union},
    scales::{ScaleCensus, scale_census},
    silence::silence_eos,
    single_bits::SingleBits,
    toward::toward,
};
use crate::{
    edit::Plan,
    kernels::Kernel,
    model::{AnyBody, Projection},
    search::RunError,
    subject::{Prompt, Subject},
    trial::{Event, Finish, Trajectory, Trials},
};

/// Undecided bits of a position that are run, one row product each. More than this come only of a head whose
/// arithmetic can overflow.
const RUN_AT_MOST: usize = 4096;
/// Flips that are added to a witness that float error may have in its way.
const MORE_FLIPS: usize = 8;
/// Words and rows that are listed.
const LISTED: usize = 20;

/// What is certified besides least flips and census.
#[derive(Clone, Debug)]
pub struct Options {
    /// Tokens to generate at most, at least 1.
    pub max_tokens: usize,
    /// Least flips confined to one unit, too.
    pub within: Option<Within>,
    /// Fewest flips that keep the answer from ending.
    pub silence_eos: bool,
    /// Fewest flips that make this token the answer's first.
    pub toward: Option<u32>,
    /// How many of the weakest bits are run, to see what the model says after each.
    pub weakest: usize,
}

impl Default for Options {
    /// Ten tokens; least flips and census, and twenty of the weakest bits.
    fn default() -> Self {
        Self { max_tokens: 10, within: None, silence_eos: false, toward: None, weakest: 20 }
    }
}

/// Certifies answers of one model.
#[derive(Debug)]
pub struct Certifier<'a> {
    subject: &'a Subject,
    rows: Rows<'a>,
    ms: f64,
}

impl<'a> Certifier<'a> {
    /// Reads the head's scales and biases.
    ///
    /// # Errors
    /// [`CertificateError::Tied`], where edits reach the embedding, too; [`CertificateError::Backend`], where the model
    /// does not run on the CPU.
    pub fn new(subject: &'a Subject) -> Result<Self, CertificateError> {
        let rounding = super::rounding(subject)?;
        let started = Instant::now();
        let rows = super::rows(subject, subject.head().view(), rounding);
        Ok(Self { subject, rows, ms: ms(started) })
    }

    /// Certifies the answer to a prompt.
    ///
    /// # Errors
    /// [`CertificateError::NotFinite`], where the clean answer is cut short by a logit that is not finite;
    /// [`CertificateError::Run`].
    pub fn answer(&self, prompt: &Prompt, options: &Options, watch: Watch<'_>) -> Result<Answer, CertificateError> {
        let (subject, team) = (self.subject, self.subject.team());
        let mut head = subject.projection(*self.rows.head());
        let mut trials = subject.trials(std::iter::once(prompt.ids.as_slice()), options.max_tokens);

        let mut times = Times::default();
        let mut started = Instant::now();
        let mut lap = |time: &mut f64| *time += ms(std::mem::replace(&mut started, Instant::now()));
        trials.run(&mut head, &[], |event| match event {
            Event::Wave { step, .. } => watch(Stage::Clean(step)),
            _ => watch(Stage::Running),
        })?;
        lap(&mut times.clean);
        let clean = trials.clean().next().expect("one prompt has one answer").clone();
        if clean.finish == Finish::Nonfinite {
            return Err(CertificateError::NotFinite { step: Some(clean.tokens.len()) });
        }
        let hidden: Vec<Vec<f32>> = trials.clean_hidden(0).map(<[f32]>::to_vec).collect();
        let executed = logits(&mut head, &hidden)?;
        let vocab = head.vocab_size();
        let positions: Vec<Position<'_>> = hidden
            .iter()
            .zip(executed.chunks_exact(vocab))
            .map(|(hidden, executed)| Position::new(&self.rows, hidden, executed))
            .collect::<Result<_, _>>()?;
        times.logits = self.ms;
        lap(&mut times.logits);

        watch(Stage::LeastFlips)?;
        let least = all_least_flips(&positions, &[], team);
        lap(&mut times.least_flips);
        watch(Stage::Census)?;
        let censuses = census(&positions, team);
        lap(&mut times.census);
        watch(Stage::Census)?;
        let [scales, biases] = scale_census(&positions, team);
        lap(&mut times.scales);

        let (mut answer, critical) = self.found(prompt, &clean, &positions, &least, &censuses)?;
        let layout = self.rows.head().layout();
        let [of_scales, of_biases] = [&scales, &biases].map(|census| census.critical.clone());
        answer.critical = Some(CriticalBits::with(layout, critical.flips(), of_scales, of_biases));
        (answer.scales, answer.biases) = (scales, biases);
        watch(Stage::Running)?;
        self.execute(&mut answer, &mut head, &positions, &hidden, &executed, &least, &censuses, watch)?;
        let ground = Ground {
            subject,
            prompt,
            positions: &positions,
            censuses: &censuses,
            rounding: self.rows.rounding,
            clean,
            max_tokens: options.max_tokens,
        };
        self.run_freely(&mut answer, &mut trials, &mut head, &ground, &least, options, watch)?;
        if options.silence_eos {
            answer.silence_eos = Some(silence_eos(&ground, &mut trials, &mut head, watch)?);
        }
        lap(&mut times.running);
        answer.single_bits = SingleBits::of(&answer);
        answer.ms = times;
        Ok(answer)
    }

    fn text(&self, row: usize) -> Result<String, CertificateError> {
        Ok(self.subject.decode(&[row as u32]).map_err(RunError::from)?)
    }

    /// What was found, before anything is run, and the critical bits of codes.
    fn found(
        &self,
        prompt: &Prompt,
        clean: &Trajectory,
        positions: &[Position<'_>],
        least: &[Option<LeastFlips>],
        censuses: &[Census],
    ) -> Result<(Answer, Union), CertificateError> {
        let layout = self.rows.head().layout();
        let nan = self.rows.nan();
        let single: &[Flip] = nan.map_or(&[], |nan| &nan.single);
        let mut reports = Vec::new();
        for (index, ((position, least), census)) in positions.iter().zip(least).zip(censuses).enumerate() {
            let least = least.as_ref();
            let fewer = fewer_by_nan(least, nan);
            let or_fewer = |flips: Option<usize>| fewer.map_or(flips, |nan| Some(nan.flips));
            reports.push(PositionReport {
                index,
                token: position.token(),
                text: self.text(position.token())?,
                rival: least.map(|least| least.rival),
                rival_text: least.map(|least| self.text(least.rival)).transpose()?,
                margin: least.map(|least| least.margin),
                slack: least.map(|least| least.slack),
                float_error: least.map(|least| least.float_error),
                least_flips: or_fewer(least.map(|least| least.flips)),
                least_finite_flips: fewer.and(least).map(|least| least.flips),
                executed_at_least: at_most(least.map(|least| least.executed_at_least), nan),
                witness: witness(least, nan).map(|flips| Flip::edit(flips).to_string()),
                witness_changes: None,
                executed_witness: None,
                critical: census.critical().count() + single.len(),
                critical_executed: census.hits.iter().filter(|hit| hit.executed == Outcome::Changes).count()
                    + single.len(),
                undecided: census.undecided().count(),
                undecided_changing: 0,
                undecided_run: 0,
                looked_at: census.looked_at,
            });
        }
        let of = |wanted: fn(&Hit) -> bool| {
            let hits = censuses.iter().flat_map(|census| &census.hits).filter(|hit| wanted(hit));
            Union::of(layout, hits.map(|hit| hit.flip))
        };
        let mut critical = of(|hit| hit.exact);
        let mut certain = of(|hit| hit.executed == Outcome::Changes);
        if nan.is_some() {
            let nan = Union::of(layout, single.iter().copied());
            critical.join(&nan);
            certain.join(&nan);
        }
        let undecided = of(|hit| hit.executed == Outcome::Undecided).without(&certain);
        let total_bits = layout.rows() * layout.cols() * layout.bits();
        let words = critical.words();
        // The witness of the answer: the fewest flips, of these the one that float error is least in the way of.
        let weakest = least.iter().flatten().map(|least| least.flips).min();
        let executed = least.iter().flatten().map(|least| least.executed_at_least).min();
        let answer = Answer {
            prompt: prompt.text.clone(),
            text: self.subject.decode(&clean.tokens).map_err(RunError::from)?,
            tokens: clean.tokens.clone(),
            eos: clean.eos,
            finish: clean.finish,
            single_bits: SingleBits::default(),
            least_flips: at_most(weakest, nan),
            executed_at_least: at_most(executed, nan),
            witness: None,
            witness_position: None,
            witness_run: None,
            positions: reports,
            critical_bits: critical.len(),
            undecided_bits: undecided.len(),
            executed: ExecutedCensus { certain_bits: certain.len(), ..ExecutedCensus::default() },
            total_bits,
            vulnerability: critical.len() as f64 / total_bits as f64,
            by_bit_position: critical.by_bit(),
            rows: critical.rows(LISTED, |row| self.text(row))?,
            protection: Protection::curve(&words, critical.len()),
            words: words.into_iter().take(LISTED).collect(),
            weakest: Vec::new(),
            scales: ScaleCensus::default(),
            biases: ScaleCensus::default(),
            nan: nan.map(|nan| NanReport {
                flips: nan.flips,
                witness: Flip::edit(&nan.witness).to_string(),
                witness_run: None,
                bits: nan.single.len(),
                least_finite_flips: weakest,
            }),
            within: None,
            silence_eos: None,
            toward: None,
            failures: Vec::new(),
            ms: Times::default(),
            critical: None,
        };
        Ok((answer, critical))
    }

    /// Runs each position's witness and undecided bits, teacher-forced.
    #[expect(clippy::too_many_arguments, reason = "one step of one function")]
    fn execute(
        &self,
        answer: &mut Answer,
        head: &mut impl Projection,
        positions: &[Position<'_>],
        hidden: &[Vec<f32>],
        executed: &[f32],
        least: &[Option<LeastFlips>],
        censuses: &[Census],
        watch: Watch<'_>,
    ) -> Result<(), CertificateError> {
        let (kernel, vocab, matrix) = (self.subject.kernel(), head.vocab_size(), *self.rows.head());
        let plan = |flips: &[Flip]| Flip::edit(flips).plan(&matrix).map_err(RunError::from);
        let layout = matrix.layout();
        let (mut ran, mut changing) = (Vec::new(), Vec::new());
        for (index, position) in positions.iter().enumerate() {
            watch(Stage::Running)?;
            let mut own = executed[index * vocab..][..vocab].to_vec();
            let mut changes = |head: &mut _, flips: &[Flip]| -> Result<bool, CertificateError> {
                Ok(chosen(head, kernel, &plan(flips)?, &hidden[index], &mut own)? != Some(position.token()))
            };
            let report = &mut answer.positions[index];
            if let Some(nan) = fewer_by_nan(least[index].as_ref(), self.rows.nan()) {
                let worked = changes(head, &nan.witness)?;
                report.witness_changes = Some(worked);
                if !worked {
                    answer.failures.push(format!("NaN does not end the answer at position {index}"));
                }
            }
            if let Some(least) = least[index].as_ref().filter(|least| least.flips > 0) {
                let worked = changes(head, &least.witness)?;
                report.witness_changes.get_or_insert(worked);
                if !worked && least.slack > least.float_error {
                    answer.failures.push(format!("the witness of position {index} does not change its token"));
                }
                if !worked {
                    for count in least.flips + 1..=least.flips + MORE_FLIPS {
                        let more = largest_gains(position, least.rival, count);
                        if changes(head, &more)? {
                            report.executed_witness = Some(Flip::edit(&more).to_string());
                            break;
                        }
                    }
                }
            }
            for hit in censuses[index].undecided().take(RUN_AT_MOST) {
                let changed = changes(head, &[hit.flip])?;
                report.undecided_run += 1;
                report.undecided_changing += usize::from(changed);
                ran.push(hit.flip);
                if changed {
                    changing.push(hit.flip);
                }
            }
        }
        let hits = || censuses.iter().flat_map(|census| &census.hits);
        let certain = hits().filter(|hit| hit.executed == Outcome::Changes).map(|hit| hit.flip);
        let certain = Union::of(layout, certain);
        answer.executed.undecided_run = Union::of(layout, ran.into_iter()).without(&certain).len();
        answer.executed.undecided_changing = Union::of(layout, changing.into_iter()).without(&certain).len();
        Ok(())
    }

    /// Runs what changes the answer as a whole, without forcing it: its witness, its weakest bits, the variants.
    #[expect(clippy::too_many_arguments, reason = "one step of one function")]
    fn run_freely(
        &self,
        answer: &mut Answer,
        trials: &mut Trials<'_, AnyBody>,
        head: &mut impl Projection,
        ground: &Ground<'_, '_>,
        least: &[Option<LeastFlips>],
        options: &Options,
        watch: Watch<'_>,
    ) -> Result<(), CertificateError> {
        let positions = ground.positions;
        let mut edits = Vec::new();
        let mut queue = |flips: &[Flip]| {
            edits.push(Flip::edit(flips));
            edits.len() - 1
        };

        let nan = self.rows.nan();
        let finite = best_witness(least);
        let finite_run = finite.map(|(_, least)| queue(&least.witness));
        let nan_run = nan.map(|nan| queue(&nan.witness));
        // NaN ends the answer at its first position.
        let by_nan = fewer_by_nan(finite.map(|(_, least)| least), nan);
        let (witness_position, witness_run) = match by_nan {
            Some(_) => (Some(0), nan_run),
            None => (finite.map(|(index, _)| index), finite_run),
        };
        answer.witness_position = witness_position;
        answer.witness = self::witness(finite.map(|(_, least)| least), nan).map(|flips| Flip::edit(flips).to_string());
        let weakest = weakest(ground.censuses, options.weakest);
        let weakest_runs: Vec<usize> = weakest.iter().map(|weak| queue(&[weak.flip])).collect();

        let mut confined: Vec<Option<LeastFlips>> = vec![None; positions.len()];
        if let Some(within) = options.within {
            let team = self.subject.team();
            team.for_each_chunk(&mut confined, 1, |i, least| least[0] = least_flips_within(&positions[i], within));
        }
        let confined_witness = best_witness(&confined);
        let confined_run = confined_witness.map(|(_, least)| queue(&least.witness));

        let first = options.toward.map(|token| (token, toward(&positions[0], token as usize)));
        let toward_run = first.as_ref().and_then(|(_, found)| found.as_ref()).map(|found| queue(&found.witness));

        let ran = run(ground, trials, head, &edits, watch)?;
        answer.witness_run = witness_run.map(|i| ran[i].clone());
        if let (Some((_, least)), Some(run)) = (finite, finite_run)
            && least.slack > least.float_error
            && !ran[run].changed
        {
            answer.failures.push("the witness of the answer does not change it".to_owned());
        }
        if let (Some(report), Some(run)) = (&mut answer.nan, nan_run) {
            if !ran[run].changed {
                answer.failures.push("a NaN in the head does not change the answer".to_owned());
            }
            report.witness_run = Some(ran[run].clone());
        }
        for (weak, i) in weakest.into_iter().zip(weakest_runs) {
            answer.weakest.push(WeakBit {
                edit: edits[i].to_string(),
                row_text: self.text(weak.flip.row as usize)?,
                positions: weak.positions,
                slack: weak.slack,
                ran: ran[i].clone(),
            });
        }
        if let Some(within) = options.within {
            let least_confined = confined_witness.map(|(_, least)| least);
            // All flips that make a code NaN are in one code, and so in one unit.
            let by_nan = fewer_by_nan(least_confined, nan);
            let changes = if by_nan.is_some() { nan_run } else { confined_run }.map(|i| ran[i].changed);
            if let (Some(least), Some(run)) = (least_confined, confined_run)
                && least.slack > least.float_error
                && !ran[run].changed
            {
                answer.failures.push(format!("the witness within one {} does not change the answer", within.name()));
            }
            answer.within = Some(Confined {
                unit: within.name().into(),
                least_flips: at_most(least_confined.map(|least| least.flips), nan),
                executed_at_least: at_most(confined.iter().flatten().map(|least| least.executed_at_least).min(), nan),
                witness: self::witness(least_confined, nan).map(|flips| Flip::edit(flips).to_string()),
                witness_position: by_nan.map(|_| 0).or(confined_witness.map(|(index, _)| index)),
                witness_changes: changes,
                positions: confined.iter().map(|least| at_most(least.as_ref().map(|least| least.flips), nan)).collect(),
            });
        }
        if let Some((token, found)) = first {
            let run = toward_run.map(|i| ran[i].clone());
            let first = |run: &Ran| {
                let stopped = (run.finish == Finish::Stop && run.tokens.is_empty()).then(|| ground.subject.eos());
                run.tokens.first() == Some(&token) || stopped.is_some_and(|eos| eos.contains(&token))
            };
            let works = run.as_ref().map(first);
            if let Some(found) = &found
                && found.spare > 0.0
                && works == Some(false)
            {
                answer.failures.push(format!("the witness toward token {token} does not make it the first"));
            }
            let found = found.as_ref();
            answer.toward = Some(TowardReport {
                token,
                text: self.text(token as usize)?,
                least_flips: found.map(|found| found.flips),
                executed_at_least: found.map(|found| found.executed_at_least),
                raising: found.map_or(0, |found| found.raising),
                lowered_rows: found.map_or(0, |found| found.lowered),
                witness: found.map(|found| Flip::edit(&found.witness).to_string()),
                witness_works: works,
                witness_run: run,
            });
        }
        Ok(())
    }
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// A number of flips, or how many make a code NaN, where that is fewer: an answer is changed by those as well.
fn at_most(flips: Option<usize>, nan: Option<&NanFlips>) -> Option<usize> {
    flips.into_iter().chain(nan.map(|nan| nan.flips)).min()
}

/// The flips that make a code NaN, where they are fewer than the least that leave all codes numbers.
fn fewer_by_nan<'a>(least: Option<&LeastFlips>, nan: Option<&'a NanFlips>) -> Option<&'a NanFlips> {
    nan.filter(|nan| least.is_none_or(|least| nan.flips < least.flips))
}

/// The least flips, whether they leave all codes numbers or not.
fn witness<'a>(least: Option<&'a LeastFlips>, nan: Option<&'a NanFlips>) -> Option<&'a [Flip]> {
    let fewer = fewer_by_nan(least, nan).map(|nan| nan.witness.as_slice());
    fewer.or_else(|| Some(least?.witness.as_slice()))
}

/// The position whose witness has the fewest flips; of these, the one that float error is least in the way of.
pub(super) fn best_witness(least: &[Option<LeastFlips>]) -> Option<(usize, &LeastFlips)> {
    let all = least.iter().enumerate().filter_map(|(index, least)| Some((index, least.as_ref()?)));
    all.min_by(|(_, a), (_, b)| {
        a.flips.cmp(&b.flips).then((b.slack - b.float_error).total_cmp(&(a.slack - a.float_error)))
    })
}

/// The token that is chosen at a position under an edit of single rows; `None` where a logit is not finite. `logits`
/// are the clean ones, before and after.
fn chosen(
    head: &mut impl Projection,
    kernel: Kernel,
    plan: &Plan,
    hidden: &[f32],
    logits: &mut [f32],
) -> Result<Option<usize>, RunError> {
    let clean: Vec<(usize, f32)> = plan.rows.keys().map(|&row| (row, logits[row])).collect();
    head.patch(plan, hidden, logits)?;
    let top = kernel.top(logits).map(|top| top.token);
    clean.into_iter().for_each(|(row, logit)| logits[row] = logit);
    Ok(top)
}

/// A critical bit and where it changes the token.
struct Weak {
    flip: Flip,
    positions: Vec<usize>,
    slack: f32,
}

/// The critical bits that change the most positions; of equals those that change the earliest, then those that pass
/// the margin there by most.
fn weakest(censuses: &[Census], count: usize) -> Vec<Weak> {
    let mut hits: Vec<(Flip, usize, f32)> = censuses
        .iter()
        .enumerate()
        .flat_map(|(index, census)| census.critical().map(move |hit| (hit.flip, index, hit.slack)))
        .collect();
    hits.sort_unstable_by_key(|&(flip, index, _)| (flip, index));
    let mut weak: Vec<Weak> = hits
        .chunk_by(|a, b| a.0 == b.0)
        .map(|hits| Weak { flip: hits[0].0, positions: hits.iter().map(|hit| hit.1).collect(), slack: hits[0].2 })
        .collect();
    weak.sort_by(|a, b| {
        let (more, earlier) = (b.positions.len().cmp(&a.positions.len()), a.positions[0].cmp(&b.positions[0]));
        more.then(earlier).then(b.slack.total_cmp(&a.slack)).then(a.flip.cmp(&b.flip))
    });
    weak.truncate(count);
    weak
}
