//! `replay`: the edits of a recipe or of a journal, on this model.

use std::path::Path;

use anyhow::{Context, Result};

use super::{
    args::{PromptArgs, ReplayArgs},
    commands::{Opened, check, finished},
    exit_code,
    output::{self, message},
    resolve, stored,
};
use crate::{
    edit::{Edit, Value},
    record::{Record, journal, output::Inputs, recipe::Recipe},
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
    asked: Asked,
}

/// A prompt as a file has it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Asked {
    text: String,
    expected: Vec<String>,
    /// The ids that a journal has, and of which model they are.
    ids: Option<(Vec<u32>, String)>,
    /// The date that a journal has.
    date: Option<String>,
}

/// Whether `bytes` are a journal: their first line alone is an object with a trial.
fn is_journal(path: &Path, bytes: &[u8]) -> bool {
    let first = bytes.split(|&byte| byte == b'\n').find(|line| !line.trim_ascii().is_empty()).unwrap_or_default();
    let object = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(first);
    match object {
        Ok(object) => object.contains_key("trial"),
        // A journal that was cut short in its first line.
        Err(_) => path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("jsonl")),
    }
}

fn steps(path: &Path, max_tokens: usize) -> Result<Vec<Step>> {
    let place = || path.display().to_string();
    let bytes = journal::stored(path).with_context(|| format!("cannot read {}", path.display()))?;
    if !is_journal(path, &bytes) {
        let recipe = Recipe::parse(&bytes).with_context(place)?;
        let edits = recipe.edits().with_context(place)?;
        let step = |(edit, step): (Edit, crate::record::recipe::Step)| {
            let text = step.prompt.unwrap_or_else(|| seed::PROMPT.to_owned());
            Step { edit, family: None, value: None, asked: Asked { text, ..Asked::default() } }
        };
        return Ok(edits.into_iter().zip(recipe.recipe).map(step).collect());
    }
    let mut records: Vec<(usize, Record)> = stored::finished(journal::parse(&bytes, path)?, path).records;
    records.sort_by_key(|(_, record)| record.trial);
    if let Some((_, first)) = records.first().filter(|(_, record)| record.run.max_tokens != max_tokens) {
        let theirs = first.run.max_tokens;
        message(&format!(
            "answers of the journal have up to {theirs} tokens, these up to {max_tokens}; --max-tokens {theirs} makes them alike"
        ));
    }
    records
        .into_iter()
        .map(|(line, record)| {
            let edit = record.edit.parse().with_context(|| format!("{}, line {line}", path.display()))?;
            let ids = Some((record.prompt_ids, record.model_digest));
            let asked = Asked { text: record.prompt, expected: record.expected_texts, ids, date: record.run.date };
            Ok(Step { edit, family: record.family, value: record.value, asked })
        })
        .collect()
}

/// The prompts of the steps, each once, and for each step the index of its own.
fn own_prompts(
    subject: &Subject,
    steps: &[Step],
    args: &PromptArgs,
    encoding: &Encoding,
) -> Result<(Vec<Prompt>, Vec<usize>)> {
    let mut known: Vec<&Asked> = Vec::new();
    let indices = steps
        .iter()
        .map(|step| {
            known.iter().position(|&asked| *asked == step.asked).unwrap_or_else(|| {
                known.push(&step.asked);
                known.len() - 1
            })
        })
        .collect();
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
    let prompt = |asked: &&Asked| match &asked.ids {
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
    Ok((known.iter().map(prompt).collect::<Result<_>>()?, indices))
}

pub(super) fn replay(args: &ReplayArgs) -> Result<u8> {
    let read = Inputs::default().and("the file that is replayed", &args.file);
    output::check(args.run.output.out.as_deref(), &read)?;
    let steps = steps(&args.file, args.run.prompts.max_tokens as usize)?;
    if steps.is_empty() {
        message(&format!("{} holds no edit, so nothing was checked", args.file.display()));
        return Ok(exit_code::NOTHING);
    }
    let prompts = &args.run.prompts;
    let given = !prompts.prompt.is_empty() || prompts.prompts.is_some() || prompts.prompt_ids.is_some();
    let mut indices = Vec::new();
    let recorded = steps.iter().find_map(|step| step.asked.date.clone());
    let mut opened = Opened::asking(&args.run, recorded.as_deref(), |subject, encoding| {
        steps.iter().try_for_each(|step| check(subject, &step.edit))?;
        if given {
            return resolve::prompts(subject, prompts, encoding);
        }
        let (own, those) = own_prompts(subject, &steps, prompts, encoding)?;
        indices = those;
        Ok(own)
    })?;
    let again = |prompt: usize, step: &Step| Replayed {
        prompt,
        edit: step.edit.clone(),
        family: step.family.clone(),
        value: step.value,
    };
    let trials: Vec<Replayed> = if given {
        // A journal has an edit once for each of its prompts.
        let mut edits: Vec<&Step> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        edits.extend(steps.iter().filter(|step| seen.insert((step.edit.to_string(), step.family.clone()))));
        let prompts = 0..opened.prompts.len();
        prompts.flat_map(|prompt| edits.iter().map(move |step| again(prompt, step))).collect()
    } else {
        steps.iter().zip(indices).map(|(step, prompt)| again(prompt, step)).collect()
    };
    let (mut session, sink) = opened.session();
    let records = search::replay(&mut session, trials, |progress| sink.watch(progress));
    finished("replay", args.run.output.format, sink, records, &args.run.bounds)
}
