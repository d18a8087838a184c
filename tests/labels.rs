//! Verdicts against readers: responses that were labelled by hand, by readers who saw the prompt, the clean response
//! and the response and nothing that was measured. `docs/verdicts.md` says how, and what came of it.

#![expect(clippy::print_stdout, reason = "the tables are a result")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use lm_headroom::{
    coherence::Verdict,
    edit::Edit,
    kernels::Kernel,
    search::{Session, Settings, keep, replay, replay::Replayed},
    subject::{self, Subject},
    team::Team,
    testing::skipped,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Labelled {
    reading: String,
    model: String,
    prompt: String,
    edit: String,
    label: Verdict,
}

/// The labels of one model, each with the verdict that is measured.
fn measured(model: &str, folder: Option<PathBuf>) -> Vec<(Labelled, Verdict)> {
    let labels = include_str!("fixtures/labels.jsonl").lines();
    let labels: Vec<Labelled> = labels.map(|line| serde_json::from_str(line).expect("a label")).collect();
    let mut labels: Vec<Labelled> = labels.into_iter().filter(|label| label.model == model).collect();
    // In the order in which they are run: by prompt.
    labels.sort_by(|a, b| a.prompt.cmp(&b.prompt));
    let team = Arc::new(Team::of_this_machine());
    let checkpoint = subject::open(folder.as_deref()).expect("a model");
    let subject = Subject::new(model.to_owned(), None, checkpoint, Kernel::best(), team).expect("its tokenizer");
    let texts: Vec<&str> =
        labels.iter().map(|label| label.prompt.as_str()).collect::<BTreeSet<_>>().into_iter().collect();
    let prompts: Vec<_> = texts.iter().map(|text| subject.prompt(text).expect("a prompt")).collect();
    let replayed = |label: &Labelled| Replayed {
        prompt: texts.iter().position(|text| *text == label.prompt).expect("one of the prompts"),
        edit: label.edit.parse::<Edit>().expect("an edit"),
        family: None,
        value: None,
    };
    let trials = labels.iter().map(replayed).collect();
    let mut session = Session::new(&subject, &prompts, Settings::default());
    let mut records = Vec::new();
    replay(&mut session, trials, keep(&mut records)).expect("trials");
    labels.into_iter().zip(records).map(|(label, record)| (label, record.verdict)).collect()
}

/// Prints the table of labels against verdicts and gives the number of all, and of those within one step.
fn agreement(name: &str, pairs: &[(Labelled, Verdict)]) -> (usize, usize) {
    let steps = |a: Verdict, b: Verdict| (a as usize).abs_diff(b as usize);
    let mut table: BTreeMap<(Verdict, Verdict), usize> = BTreeMap::new();
    for (label, verdict) in pairs {
        *table.entry((label.label, *verdict)).or_default() += 1;
    }
    println!("{name}: rows are labels, columns verdicts");
    for label in Verdict::ALL {
        let row = Verdict::ALL.map(|verdict| table.get(&(label, verdict)).copied().unwrap_or(0));
        println!("{label:<12}{row:>4?}");
    }
    let within = pairs.iter().filter(|(label, verdict)| steps(label.label, *verdict) <= 1).count();
    let equal = pairs.iter().filter(|(label, verdict)| label.label == *verdict).count();
    println!("{name}: {equal} equal and {within} within one step, of {}", pairs.len());
    for reading in pairs.iter().map(|(label, _)| label.reading.as_str()).collect::<BTreeSet<_>>() {
        let of: Vec<_> = pairs.iter().filter(|(label, _)| label.reading == reading).collect();
        let near = of.iter().filter(|(label, verdict)| steps(label.label, *verdict) <= 1).count();
        println!("  {reading} reading: {near} of {} within one step", of.len());
    }
    (pairs.len(), within)
}

#[test]
fn verdicts_are_within_one_step_of_readers_labels() {
    let mut pairs = measured("demo", None);
    let (all, within) = agreement("demo", &pairs);
    // One model alone, as far as it goes.
    assert!(all >= 60 && 100 * within >= 80 * all, "{within} of {all}");
    let Some(models) = std::env::var_os("HEADROOM_MODELS") else {
        skipped("the labels of SmolLM2", "HEADROOM_MODELS names no folder with real checkpoints");
        return;
    };
    let smollm2 = measured("smollm2-g64", Some(PathBuf::from(models).join("smollm2-g64")));
    agreement("SmolLM2", &smollm2);
    pairs.extend(smollm2);
    let (all, within) = agreement("both", &pairs);
    assert!(100 * within >= 85 * all, "{within} of {all}");
}
