//! `certify`: least flips, census, and what was asked for besides.

use std::{
    io,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::{
    args::{Backend, BoundArgs, CertifyArgs, Dtype, Format, OutputArgs, RunArgs, Unit},
    exit_code, interrupt,
    output::{self, Listing, Sink},
    resolve,
};
use crate::{
    certificate::{
        Answer, CertificateError, CertificateLine, Certification, Certifier, Collapse, CollapseOptions, Options,
        Refused, Stage, Suite, Within, collapse,
    },
    record::{
        SCHEMA,
        journal::{Holds, Journal, JournalError},
        output::{Inputs, Kind, Output},
        recipe::{Recipe, Step},
    },
    report::terminal::certificates,
    search::{RunError, Settings},
    subject::{Prompt, Subject},
    tokenizer::Encoding,
};

/// Time after which certificates are handed over to a journal.
const HAND_OVER: Duration = Duration::from_millis(500);

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
    if args.threshold.calibrate_only {
        bail!("--calibrate-only is of commands that run trials, such as campaign; leave it out");
    }
    let is_journal = args.out.as_deref().is_some_and(is_journal);
    if (args.resume || args.shard.is_some()) && !is_journal {
        bail!(
            "--resume and --shard are of a journal, whose name ends in .jsonl, .ndjson or .zst: give --out such a name; a \
             recipe has its witnesses alone"
        );
    }
    if args.collapse.is_some() && args.shard.is_some() {
        bail!("--collapse searches over the answers to all prompts, and a part has some of them; leave out --shard");
    }
    let subject = resolve::head_on_cpu(&args.model)?;
    let toward = args.toward.as_deref().map(|token| self::token(&subject, token)).transpose()?;
    let resumed = args.out.as_deref().filter(|_| args.resume).and_then(crate::record::journal::recorded_date);
    let encoding = resolve::encoding(&args.prompts, resumed.as_deref())?;
    let prompts = resolve::prompts(&subject, &args.prompts, &encoding)?;
    let certifier = Certifier::new(&subject)?;
    output::check(args.out.as_deref(), &output::inputs(&args.prompts, &args.threshold, &subject))?;
    // Known at once that it can be written; what is there stays until there is something new.
    let mut place = Place::open(args, is_journal)?;
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
    let mut run = Certification::new(&subject);
    let mut shown = Shown::new(args.format, &subject)?;
    place.begin(args, &mut run, &prompts, &options, &mut shown)?;
    let mut interrupted = None;
    for (number, prompt) in prompts.iter().enumerate() {
        if args.shard.is_some_and(|shard| !shard.has(number)) || run.is_finished(number) {
            continue;
        }
        let answer = match certifier.answer(prompt, &options, &mut watch) {
            Ok(answer) => Ok(answer),
            Err(error @ CertificateError::NotFinite { .. }) => Err(error.to_string()),
            Err(CertificateError::Run(error @ RunError::Interrupted)) => {
                interrupted = Some(error);
                break;
            }
            Err(error) => return Err(error.into()),
        };
        place.take(&mut run, number, prompt, answer, &mut shown)?;
    }
    // What is finished is shown and kept, whatever ended the run.
    place.hand_over()?;
    let suite = run.suite()?;
    if let (Format::Text, Some(suite)) = (args.format, suite.as_ref().filter(|suite| suite.answers > 1)) {
        output::text(&certificates::suite(suite, output::look()))?;
    }
    let collapsed = match (&interrupted, settings, run.answers()) {
        (None, Some(settings), 1..) => {
            let refused = |prompt: &Prompt| shown.refused.iter().any(|refused| refused.prompt == prompt.text);
            let asked: Vec<Prompt> = prompts.iter().filter(|prompt| !refused(prompt)).cloned().collect();
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
    place.end(collapsed.as_ref(), interrupted.is_some())?;
    let code = shown.code(run.answers());
    shown.end(suite.as_ref(), collapsed.as_ref())?;
    match interrupted {
        Some(error) => Err(error.into()),
        None => Ok(code),
    }
}

/// Whether a file of this name gets a line for each prompt, and not a recipe.
fn is_journal(path: &Path) -> bool {
    let kinds = ["jsonl", "ndjson", "zst"];
    path.extension().is_some_and(|extension| kinds.iter().any(|kind| extension.eq_ignore_ascii_case(kind)))
}

/// Where what is found is kept.
enum Place {
    /// Nowhere.
    Nowhere,
    /// In a recipe, of its witnesses and weakest bits.
    Recipe(Output, Vec<Step>),
    /// In a journal, a line for each prompt; since when lines wait there.
    Journal(Journal, Option<Instant>),
}

impl Place {
    fn open(args: &CertifyArgs, is_journal: bool) -> Result<Self> {
        let Some(path) = args.out.as_deref() else { return Ok(Self::Nowhere) };
        if !is_journal {
            return Ok(Self::Recipe(output::claim(path, Kind::Recipe, args.force)?, Vec::new()));
        }
        let mut journal = Journal::open(path, Holds::Certificates)?;
        if args.resume {
            journal.check_resumable()?;
        } else if !args.force {
            journal.check_restartable()?;
        }
        output::keeps();
        Ok(Self::Journal(journal, None))
    }

    /// Begins a journal: anew, or with what is finished there.
    fn begin(
        &mut self,
        args: &CertifyArgs,
        run: &mut Certification<'_>,
        prompts: &[Prompt],
        options: &Options,
        shown: &mut Shown,
    ) -> Result<()> {
        let (Self::Journal(journal, _), Some(path)) = (&mut *self, args.out.as_deref()) else { return Ok(()) };
        let id = run.identify(prompts, options).id.clone();
        if !args.resume {
            if args.force {
                journal.replace(&id)?;
            } else if let Some(old) = journal.restart(&id)? {
                output::kept(&old);
            }
            return Ok(());
        }
        let mut wrong = None;
        let resumed = journal.resume_lines(&id, |line, found: CertificateLine| {
            run.check(path, line, &found, args.shard).map_err(|error| {
                // What is no error of a journal is told as it is.
                let what = error.to_string();
                wrong = Some(error);
                JournalError::Line { path: path.to_owned(), line, what }
            })
        });
        let (lines, cut) = match (resumed, wrong) {
            (Err(_), Some(error)) => return Err(error.into()),
            (resumed, _) => resumed?,
        };
        if cut > 0 {
            output::message(&format!(
                "what --out held ended in the middle of a certificate: its {cut} bytes are taken off, and the answer is \
                 certified again"
            ));
        }
        let mut finished = 0;
        for line in lines.into_iter().flatten() {
            let (_, line) = line?;
            if run.resume(&line)? {
                finished += 1;
                shown.line(&line.prompt, line.answer.as_ref().ok_or(line.refused.as_deref().unwrap_or_default()))?;
            }
        }
        if finished > 0 {
            output::message(&format!("resuming: {finished} answers are certified"));
        }
        Ok(())
    }

    /// Takes what was found of a prompt, and shows it.
    fn take(
        &mut self,
        run: &mut Certification<'_>,
        number: usize,
        prompt: &Prompt,
        answer: Result<Answer, String>,
        shown: &mut Shown,
    ) -> Result<()> {
        let Self::Journal(journal, waits) = self else {
            if let Ok(answer) = &answer {
                run.count(answer);
                if let Self::Recipe(_, steps) = self {
                    steps.extend(steps_of(answer));
                }
            }
            return shown.line(&prompt.text, answer.as_ref().map_err(String::as_str));
        };
        let line = run.line(number, prompt, answer)?;
        let mut bytes = serde_json::to_vec(&line).map_err(io::Error::from)?;
        bytes.push(b'\n');
        journal.append(&bytes)?;
        let since = *waits.get_or_insert_with(Instant::now);
        if since.elapsed() >= HAND_OVER {
            journal.hand_over()?;
            journal.settle()?;
            *waits = None;
        }
        shown.line(&line.prompt, line.answer.as_ref().ok_or(line.refused.as_deref().unwrap_or_default()))
    }

    fn hand_over(&mut self) -> Result<()> {
        match self {
            Self::Journal(journal, _) => Ok(journal.sync()?),
            Self::Nowhere | Self::Recipe(..) => Ok(()),
        }
    }

    /// Writes a recipe that has something in it. One of a run that ended early does not take the place of another.
    fn end(self, collapsed: Option<&Collapse>, interrupted: bool) -> Result<()> {
        let Self::Recipe(mut out, mut steps) = self else { return Ok(()) };
        if let Some(collapse) = collapsed.filter(|collapse| collapse.flips > 0) {
            let note = format!("{} flips, the median verdict is {}", collapse.flips, collapse.median);
            steps.push(Step { edit: collapse.edit.clone(), prompt: None, note: Some(note) });
        }
        if steps.is_empty() {
            return Ok(());
        }
        if interrupted && out.replaces()? {
            output::message("--out keeps what it held, since the run was interrupted: what it found is on stdout");
            return Ok(());
        }
        output::write(out, Recipe::new(steps).text().as_bytes())
    }
}

/// What is shown of the certificates, one by one.
struct Shown {
    format: Format,
    /// The one object, and in lines the last of them.
    object: Listing,
    failures: Vec<String>,
    refused: Vec<Refused>,
}

/// What stands in the one object before the answers.
#[derive(Serialize)]
struct Begins<'a> {
    command: &'static str,
    schema: u32,
    model: &'a str,
    revision: Option<&'a str>,
    head_digest: String,
    kernel: &'a str,
}

/// What stands there behind them.
#[derive(Serialize)]
struct Ends<'a> {
    suite: Option<&'a Suite>,
    #[serde(skip_serializing_if = "<[Refused]>::is_empty")]
    refused: &'a [Refused],
    #[serde(skip_serializing_if = "Option::is_none")]
    collapse: Option<&'a Collapse>,
}

impl Shown {
    fn new(format: Format, subject: &Subject) -> Result<Self> {
        let begins = Begins {
            command: "certify",
            schema: SCHEMA,
            model: subject.name(),
            revision: subject.revision(),
            head_digest: subject.head_digest(),
            kernel: subject.kernel().name(),
        };
        let object = Listing::new(&begins, "answers")?;
        Ok(Self { format, object, failures: Vec::new(), refused: Vec::new() })
    }

    /// A certificate, or why there is none.
    fn line(&mut self, prompt: &str, answer: Result<&Answer, &str>) -> Result<()> {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                output::message(&format!("{prompt:?}: {error}"));
                self.refused.push(Refused { prompt: prompt.to_owned(), error: error.to_owned() });
                return Ok(());
            }
        };
        self.failures.extend(answer.failures.iter().cloned());
        match self.format {
            Format::Text => output::text(&certificates::answer(answer, output::look()))?,
            Format::Jsonl => output::json(answer)?,
            Format::Json => {
                let before = self.object.before().to_owned();
                output::stdout((before + &serde_json::to_string(answer)?).as_bytes())?;
                self.object.wrote();
            }
        }
        Ok(())
    }

    /// What the answers have in common: in lines the last one, in an object its end.
    fn end(&self, suite: Option<&Suite>, collapse: Option<&Collapse>) -> Result<()> {
        if self.format == Format::Text {
            return Ok(());
        }
        self.object.end(&Ends { suite, refused: &self.refused, collapse })
    }

    fn code(&self, answers: usize) -> u8 {
        if answers == 0 {
            output::message("no answer could be certified");
            return exit_code::NOTHING;
        }
        self.failures.iter().for_each(|failure| output::message(failure));
        match (self.failures.is_empty(), self.refused.is_empty()) {
            (false, _) => exit_code::FAILED,
            (true, false) => exit_code::USAGE,
            (true, true) => exit_code::DONE,
        }
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

/// Witnesses and weakest bits of an answer, as edits that can be run again.
pub(super) fn steps_of(answer: &Answer) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
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
    steps
}
