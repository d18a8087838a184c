//! What fuzzing found and started from, without a fuzzer: the committed seeds, and the corpus and the artifacts that
//! lie on this machine, each through the oracle of its target.
//!
//! `cargo test --test fuzz_replay -- --ignored` writes the seeds anew, after a strategy has changed what bytes mean.

#![expect(clippy::print_stdout, reason = "a test says what it looked at")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use lm_headroom::{
    child::Program,
    testing::{
        fuzz::{decoded, replay},
        oracles::{
            Case, Reached,
            certificate::Certified,
            checkpoint::{Damaged, valid},
            journal::Torn,
            kernel::Products,
            perturb::Perturbations,
            results::Stored,
            shift::Shifts,
            text::Text,
            tokenizer::{Templating, Tokenizing, children_are},
        },
    },
};

fn folder(kind: &str, target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(kind).join(target)
}

/// Seeds must be there; a corpus and artifacts are where somebody has fuzzed.
fn replayed<C: Case>(target: &str) {
    let (seeds, reached) = replay::<C>(&folder("seeds", target));
    println!("{target}: {seeds} seeds: {reached}");
    assert!(seeds > 0 && reached.total() > 0, "{target} has seeds, and they reach its oracle");
    reached.require(&C::classes()).unwrap_or_else(|never| panic!("{target}: {never}"));
    for kind in ["corpus", "artifacts"] {
        let (files, reached) = replay::<C>(&folder(kind, target));
        println!("{target}: {files} files of {kind}: {reached}");
        assert!(files == 0 || reached.total() > 0, "{target}: {files} files of {kind} reached nothing");
    }
}

#[test]
fn perturb() {
    replayed::<Perturbations>("perturb");
}

#[test]
fn shift() {
    replayed::<Shifts>("shift");
}

#[test]
fn kernels() {
    replayed::<Products>("kernels");
}

#[test]
fn checkpoint() {
    replayed::<Damaged>("checkpoint");
}

#[test]
fn edit_text() {
    replayed::<Text>("edit_text");
}

#[test]
fn journal() {
    replayed::<Torn>("journal");
}

#[test]
fn certificate() {
    replayed::<Certified>("certificate");
}

#[test]
fn results() {
    replayed::<Stored>("results");
}

#[test]
fn tokenizer() {
    children_are(Program::at(env!("CARGO_BIN_EXE_headroom")));
    replayed::<Tokenizing>("tokenizer");
}

#[test]
fn template() {
    children_are(Program::at(env!("CARGO_BIN_EXE_headroom")));
    replayed::<Templating>("template");
}

#[test]
fn every_target_of_the_fuzz_crate_is_replayed_here() {
    let targets = fs::read_dir(folder("fuzz_targets", "")).expect("targets");
    let mut names: Vec<String> = targets
        .map(|entry| entry.expect("an entry").path().file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "certificate",
            "checkpoint",
            "edit_text",
            "journal",
            "kernels",
            "perturb",
            "results",
            "shift",
            "template",
            "tokenizer"
        ]
    );
}

fn write(target: &str, seeds: &[Vec<u8>]) {
    let folder = folder("seeds", target);
    // A seed that is not written any more would stay.
    drop(fs::remove_dir_all(&folder));
    fs::create_dir_all(&folder).expect("a folder");
    for (i, seed) in seeds.iter().enumerate() {
        fs::write(folder.join(format!("{i:02}")), seed).expect("written");
    }
}

/// So many seeds reach each class: what one of them reaches may depend on a time in a record, or on the machine's name.
const EACH: u64 = 3;

/// Bytes that reach what too few of the seeds before them did, until everything is reached.
fn drawn<C: Case>() -> Vec<Vec<u8>> {
    let (classes, mut seeds, mut all) = (C::classes(), Vec::new(), Reached::default());
    let mut stream = blake3::Hasher::new().update(C::NAME.as_bytes()).finalize_xof();
    for _ in 0..5_000 {
        if classes.iter().all(|class| all.count(class) >= EACH) {
            break;
        }
        let mut bytes = vec![0; C::ENTROPY];
        stream.fill(&mut bytes);
        let mut reached = Reached::default();
        decoded::<C>(&bytes).check(&mut reached).unwrap_or_else(|violation| panic!("{violation}"));
        if classes.iter().any(|class| all.count(class) < EACH && reached.count(class) > 0) {
            classes.iter().for_each(|class| all.one_if(reached.count(class) > 0, class));
            seeds.push(bytes);
        }
    }
    all.require(&classes).unwrap_or_else(|never| panic!("{}: {never}", C::NAME));
    seeds
}

#[test]
#[ignore = "writes fuzz/seeds"]
fn seeds_are_written() {
    write("perturb", &drawn::<Perturbations>());
    write("shift", &drawn::<Shifts>());
    write("kernels", &drawn::<Products>());
    // These two do not depend on the length of a record: a first one is cut and goes on as none does, and a file is a stranger's.
    let torn: [&[u8]; 2] = [&[1, 0, 100, 0, 1, 1, b'x', 1, b'\n', 0, 1], &[1, 0, 0, 0, 0, 0, 0, 0, 1]];
    write("journal", &[drawn::<Torn>(), torn.map(<[u8]>::to_vec).to_vec()].concat());
    write("certificate", &drawn::<Certified>());
    children_are(Program::at(env!("CARGO_BIN_EXE_headroom")));
    write("tokenizer", &drawn::<Tokenizing>());
    write("template", &drawn::<Templating>());
    write("results", &drawn::<Stored>());

    let mut damaged = drawn::<Damaged>();
    for (base, files) in valid().iter().enumerate() {
        for (file, contents) in files.values().enumerate() {
            damaged.push([&[base as u8, file as u8, 9], contents.as_slice()].concat());
        }
    }
    write("checkpoint", &damaged);

    let texts = [
        "clean",
        "shift:1000001",
        "shift:-9223372036854775808+shift:9223372036854775807",
        "flip:weight[34,7].3+clean+shift:-5",
        "flip:scales[34,0].15+flip:biases[34,0].0",
        "set:weight[1,2]=9+add:weight[1,2]=-1",
        "xor:word[1,2]=0x80000000+set:word[1,2]=255",
        "random:flips=8,seed=3,tensor=scales",
        "random:rate=1e-6,seed=3",
        "random:rate=1.5,seed=3",
        "shift:1é",
    ];
    write("edit_text", &texts.map(|text| text.as_bytes().to_vec()));
}
