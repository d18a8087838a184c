//! `replay`: the edits of a recipe or of a journal, on this model.

use std::{
    collections::{HashMap, HashSet},
    io,
    path::Path,
};

use anyhow::{Context, Result, bail};

use super::{
    args::{PromptArgs, ReplayArgs},
    certify::steps_of,
    commands::{Opened, check, finished},
    exit_code,
    output::{self, message},
    resolve, stored,
};
use crate::{
    certificate::CertificateLine,
    edit::{Edit, Value},
    record::{
        Reader, Record, Stored,
        output::{Inputs, Kind},
        recipe::Recipe,
    },
    search::{self, replay::Replayed},
    seed,
    subject::{Prompt, Subject},
    tokenizer::Encoding,
};

/// An edit to be run, and what it was or is to be run on.
struct Step {
    edit: Edit,
    family: Option<String>,
    value: Option<Value>,
    /// BLAKE3 of the flips that were drawn for it, where the edit does not list them.
    drawn: Option<String>,
    /// Index of its prompt among those that the file has.
    asked: usize,
}

impl Step {
    /// Fails where the edit does not fit the head, or stands for other flips there than those that were run.
    fn check(&self, subject: &Subject) -> Result<()> {
        check(subject, &self.edit)?;
        let Some(drawn) = &self.drawn else { return Ok(()) };
        let layout = subject.head().layout();
        if self.edit.expand(layout)?.digest().to_hex().as_str() != drawn {
            bail!(
                "{}: on this head ({} x {}, {}) other flips are drawn than those that were run, as their digest says; \
                 `probe` runs the edit as it is drawn here",
                self.edit,
                layout.rows(),
                layout.cols(),
                layout.described(),
            );
        }
        Ok(())
    }
}

/// What a file has to be replayed.
#[derive(Default)]
struct Steps {
    steps: Vec<Step>,
    /// The prompts, each once.
    asked: Vec<Asked>,
    numbers: HashMap<Asked, usize>,
}

/// A prompt as a file has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Asked {
    text: String,
    expected: Vec<String>,
    /// The ids that a journal has, and of which model they are.
    ids: Option<(Vec<u32>, String)>,
    /// The date that a journal has.
    date: Option<String>,
}

impl Steps {
    fn number(&mut self, asked: Asked) -> usize {
        match self.numbers.get(&asked) {
            Some(&number) => number,
            None => {
                self.numbers.insert(asked.clone(), self.asked.len());
                self.asked.push(asked);
                self.asked.len() - 1
            }
        }
    }

    /// Those of a recipe.
    fn of_recipe(recipe: Recipe) -> Result<Self> {
        let mut steps = Self::default();
        for (edit, step) in recipe.edits()?.into_iter().zip(recipe.recipe) {
            let text = step.prompt.unwrap_or_else(|| seed::PROMPT.to_owned());
            let asked = steps.number(Asked { text, ..Asked::default() });
            steps.steps.push(Step { edit, family: None, value: None, drawn: None, asked });
        }
        Ok(steps)
    }

    /// Witnesses and weakest bits of a journal of certificates.
    fn of_certificates(stored: &mut Stored) -> Result<Self> {
        let (mut steps, path) = (Vec::new(), stored.path().to_owned());
        let mut reader = Reader::<CertificateLine>::new(stored)?;
        for found in reader.by_ref() {
            steps.extend(found?.1.answer.iter().flat_map(steps_of));
        }
        stored::said(reader.end().cut > 0, &path);
        Self::of_recipe(Recipe::new(steps))
    }

    /// Those of a journal, in the order of its trials.
    fn of_journal(stored: &mut Stored, max_tokens: usize) -> Result<Self> {
        let (mut steps, mut trials, path) = (Self::default(), Vec::new(), stored.path().to_owned());
        let mut first: Option<(usize, usize)> = None;
        let mut reader = Reader::<Record>::new(stored)?;
        for found in reader.by_ref() {
            let (line, record) = found?;
            let edit = record.edit.parse().with_context(|| format!("{}, line {line}", path.display()))?;
            let (trial, theirs) = (record.trial, record.run.max_tokens);
            if first.is_none_or(|(first, _)| trial < first) {
                first = Some((trial, theirs));
            }
            let ids = Some((record.prompt_ids, record.model_digest));
            let asked = Asked { text: record.prompt, expected: record.expected_texts, ids, date: record.run.date };
            let asked = steps.number(asked);
            let drawn = record.edit_digest;
            trials.push((trial, Step { edit, family: record.family, value: record.value, drawn, asked }));
        }
        stored::said(reader.end().cut > 0, &path);
        if let Some((_, theirs)) = first.filter(|&(_, theirs)| theirs != max_tokens) {
            message(&format!(
                "answers of the journal have up to {theirs} tokens, these up to {max_tokens}; --max-tokens {theirs} makes them alike"
            ));
        }
        trials.sort_by_key(|&(trial, _)| trial);
        steps.steps = trials.into_iter().map(|(_, step)| step).collect();
        Ok(steps)
    }
}

/// Whether a file whose first line is `first` is a journal: that line alone is an object with a trial.
fn is_journal(path: &Path, first: &[u8]) -> bool {
    let object = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(first);
    match object {
        Ok(object) => object.contains_key("trial"),
        // A journal that was cut short in its first line, or in its first frame.
        Err(_) => path
            .extension()
            .is_some_and(|extension| ["jsonl", "zst"].iter().any(|of| extension.eq_ignore_ascii_case(of))),
    }
}

/// The first line that is not empty; nothing where all are.
fn first_line(stored: &mut Stored) -> io::Result<Vec<u8>> {
    let mut lines = stored.lines()?;
    while let Some((_, line)) = lines.advance()? {
        if !line.trim_ascii().is_empty() {
            return Ok(line.to_vec());
        }
    }
    Ok(Vec::new())
}

fn steps(path: &Path, max_tokens: usize) -> Result<Steps> {
    let failed = || format!("cannot read {}", path.display());
    let mut stored = Stored::open(path).with_context(failed)?;
    let first = first_line(&mut stored).with_context(failed)?;
    if Kind::of(&first) == Kind::Certificates {
        return Steps::of_certificates(&mut stored);
    }
    if is_journal(path, &first) {
        return Steps::of_journal(&mut stored, max_tokens);
    }
    let recipe = Recipe::parse(&stored.whole().with_context(failed)?);
    recipe.map_err(anyhow::Error::from).and_then(Steps::of_recipe).with_context(|| path.display().to_string())
}

/// The prompts that the file has.
fn own_prompts(subject: &Subject, known: &[Asked], args: &PromptArgs, encoding: &Encoding) -> Result<Vec<Prompt>> {
    // A date that is asked for is one for all prompts; otherwise each has the date of its journal.
    let as_given = args.system.is_none()
        && !args.raw
        && args.template.is_none()
        && args.template_arg.is_empty()
        && args.date.is_none();
    let digest = known
        .iter()
        .any(|asked| asked.ids.is_some() && as_given)
        .then(|| subject.checkpoint().model_digest().to_hex().to_string());
    let prompt = |asked: &Asked| match &asked.ids {
        // How they came about (a system message, no template) is not stored, but they are.
        Some((ids, of)) if Some(of) == digest.as_ref() => {
            let prompt = subject.prompt_of_ids(ids.clone()).with_context(|| format!("prompt {:?}", asked.text))?;
            let (text, expected) = (asked.text.clone(), asked.expected.clone());
            Ok(Prompt { text, expected, date: asked.date.clone(), ..prompt })
        }
        _ => {
            let prompt =
                subject.prompt_as(&asked.text, encoding).with_context(|| format!("prompt {:?}", asked.text))?;
            Ok(prompt.expecting(asked.expected.clone()))
        }
    };
    known.iter().map(prompt).collect()
}

pub(super) fn replay(args: &ReplayArgs) -> Result<u8> {
    if args.run.threshold.calibrate_only {
        bail!("--calibrate-only: what is replayed has prompts of its own; calibrate with the command that ran them");
    }
    let read = Inputs::default().and("the file that is replayed", &args.file);
    output::check(args.run.output.out.as_deref(), &read)?;
    let Steps { steps, asked, .. } = steps(&args.file, args.run.prompts.max_tokens as usize)?;
    if steps.is_empty() {
        message(&format!("{} holds no edit, so nothing was checked", args.file.display()));
        return Ok(exit_code::NOTHING);
    }
    let prompts = &args.run.prompts;
    let given = !prompts.prompt.is_empty() || prompts.prompts.is_some() || prompts.prompt_ids.is_some();
    let recorded = steps.iter().find_map(|step| asked[step.asked].date.clone());
    let mut opened = Opened::asking(&args.run, recorded.as_deref(), |subject, encoding| {
        steps.iter().try_for_each(|step| step.check(subject))?;
        if given {
            resolve::prompts(subject, prompts, encoding)
        } else {
            own_prompts(subject, &asked, prompts, encoding)
        }
    })?;
    let again =
        |prompt: usize, step: Step| Replayed { prompt, edit: step.edit, family: step.family, value: step.value };
    let trials: Vec<Replayed> = if given {
        // A journal has an edit once for each of its prompts.
        let mut seen = HashSet::new();
        let edits: Vec<Step> =
            steps.into_iter().filter(|step| seen.insert((step.edit.to_string(), step.family.clone()))).collect();
        let same = |step: &Step| Step { edit: step.edit.clone(), family: step.family.clone(), drawn: None, ..*step };
        let prompts = 0..opened.prompts.len();
        prompts.flat_map(|prompt| edits.iter().map(move |step| again(prompt, same(step)))).collect()
    } else {
        steps.into_iter().map(|step| again(step.asked, step)).collect()
    };
    let (mut session, sink) = opened.session();
    let run = search::replay(&mut session, trials, |progress| sink.watch(progress));
    finished(sink, run, |()| None)?;
    Ok(sink.code())
}
