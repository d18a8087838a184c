//! Nothing of the user's is lost: what is refused as an output, what is kept, and what two processes do to one file.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::SystemTime,
};

use lm_headroom::testing::fixture::Fixture;
use tempfile::TempDir;

use super::{Run, bad_input::refused, file, finished, folder, path, program, records, run};

/// Bytes, time and place of a file: what must not change.
#[derive(Debug, PartialEq)]
struct State {
    bytes: Vec<u8>,
    modified: SystemTime,
    #[cfg(unix)]
    inode: u64,
}

fn state(path: impl AsRef<Path>) -> State {
    let metadata = fs::metadata(&path).expect("a file");
    State {
        bytes: fs::read(&path).expect("a file"),
        modified: metadata.modified().expect("a time"),
        #[cfg(unix)]
        inode: std::os::unix::fs::MetadataExt::ino(&metadata),
    }
}

/// Every file of a folder.
fn states(folder: &Path) -> Vec<(PathBuf, State)> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = entries.filter(|path| path.is_file()).map(|path| (path.clone(), state(path))).collect();
    files.sort_by(|a, b| a.0.cmp(&b.0));
    files
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn at(folder: &TempDir, name: &str) -> String {
    folder.path().join(name).to_str().expect("Unicode").to_owned()
}

/// A quick run on the model inside the program.
const QUICK: [&str; 8] = ["probe", "clean", "shift:7", "--prompt-ids", "5,9", "--max-tokens=2", "--threshold", "9"];

fn quick<'a>(rest: &[&'a str]) -> Vec<&'a str> {
    [&QUICK[..], rest].concat()
}

/// The journal of that run, in a folder.
fn journal() -> (TempDir, String) {
    let folder = TempDir::new().expect("a folder");
    let journal = at(&folder, "run.jsonl");
    run(&quick(&["--out", &journal])).exits(0);
    (folder, journal)
}

/// Files of people that are no journals.
fn strangers() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("notes", b"my notes".to_vec()),
        ("notes with lines", b"one\ntwo\nthree".to_vec()),
        ("an open brace and more", b"{ }".to_vec()),
        ("minified JSON", br#"{"a":[1,2,{"b":"c"}],"schema":1}"#.to_vec()),
        ("JSON that begins like a record", br#"{"schema":1,"title":"mine"}"#.to_vec()),
        ("a record of another program", br#"{"schema":1,"trial":0,"patient":"x","dose":3}"#.to_vec()),
        ("JSON that is cut", br#"{"schema":1,"trial":"#.iter().chain(br#""first""#).copied().collect()),
        ("lines of JSON", b"{\"id\":1}\n{\"id\":2}".to_vec()),
        ("lines of JSON with an end", b"{\"id\":1}\n{\"id\":2}\n".to_vec()),
        ("a page", b"<!DOCTYPE html><html><body>mine</body></html>".to_vec()),
        ("a configuration", br#"{"model_type":"llama","hidden_size":64}"#.to_vec()),
        ("compressed bytes", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03".to_vec()),
        ("zeros", vec![0; 5000]),
        ("bytes", (0..=255).collect()),
        ("one byte", b"x".to_vec()),
        ("a blank", b" ".to_vec()),
        ("a newline", b"\n".to_vec()),
        ("blank lines", b" \n\n\t\r\n".to_vec()),
        ("a mark of byte order", b"\xef\xbb\xbf{\"schema\":1,\"trial\":0,\"model\":\"x\"".to_vec()),
        ("UTF-16", "{\"schema\":1".encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("a list", b"[{\"schema\":1,\"trial\":0,\"model\":\"x\"".to_vec()),
        ("a recipe", b"{\"schema\":1,\"recipe\":[\n\n]}\n".to_vec()),
        ("a cut recipe", b"{\"schema\":1,\"recipe\":[{\"edit\":\"shi".to_vec()),
        ("an object of ours", b"{\"command\":\"ladder\",\"schema\":1,\"records\":[".to_vec()),
        ("a record of a later version", br#"{"schema":2,"trial":0,"model":"x""#.to_vec()),
        ("a record with other keys", br#"{"schema":1,"trial":0,"model":"x","author":"me""#.to_vec()),
        ("a whole object", br#"{"schema":1,"trial":0,"model":"x"}"#.to_vec()),
        ("a record with other types", br#"{"schema":1,"trial":0,"model":"x","revision":7,"#.to_vec()),
        (
            "a record of another model",
            br#"{"schema":1,"trial":0,"model":"demo","revision":null,"model_digest":"0000000000"#.to_vec(),
        ),
        ("a long line", vec![b'a'; 100_000]),
    ]
}

#[test]
fn a_run_is_not_resumed_on_a_file_that_is_no_journal() {
    for (what, bytes) in strangers() {
        let (folder, stranger) = file("n.txt", &bytes);
        let before = states(folder.path());
        refused(&quick(&["--out", &stranger, "--resume"]), &[&stranger]);
        assert_eq!(states(folder.path()), before, "{what}");
    }
}

#[test]
fn the_refusal_says_what_the_file_is_not_and_what_to_do() {
    let (_folder, notes) = file("n.txt", "my notes");
    refused(
        &quick(&["--out", &notes, "--resume"]),
        &["is not a journal", "\"my notes\"", "stays as it was", "another name"],
    );
}

#[test]
fn what_follows_whole_records_is_cut_off_only_if_it_is_one_of_this_run() {
    let (folder, journal) = journal();
    let whole = fs::read(&journal).expect("a journal");
    for (what, bytes) in strangers() {
        if bytes.trim_ascii().is_empty() {
            continue;
        }
        fs::write(&journal, [&whole[..], &bytes].concat()).expect("a file");
        let before = states(folder.path());
        refused(&quick(&["--out", &journal, "--resume"]), &["line 3"]);
        assert_eq!(states(folder.path()), before, "{what}");
    }
    // The beginning of a record of a run with other settings.
    let other = at(&folder, "other.jsonl");
    run(&[&QUICK[..4], &["9,5", "--max-tokens=2", "--threshold", "9", "--out", &other]].concat()).exits(0);
    let line = fs::read(&other).expect("a journal");
    let line = &line[..line.iter().position(|&byte| byte == b'\n').expect("a line") - 1];
    fs::write(&journal, [&whole[..], line].concat()).expect("a file");
    let before = states(folder.path());
    refused(&quick(&["--out", &journal, "--resume"]), &["line 3", "another run", "prompt"]);
    assert_eq!(states(folder.path()), before);
}

#[test]
fn what_is_cut_off_is_said_with_its_length() {
    let (_folder, journal) = journal();
    let whole = fs::read(&journal).expect("a journal");
    fs::write(&journal, &whole[..whole.len() - 10]).expect("a file");
    let second = whole.len() - whole.iter().position(|&byte| byte == b'\n').expect("a line") - 1;
    let resumed = run(&quick(&["--out", &journal, "--resume"])).exits(0);
    assert!(resumed.stderr.contains(&format!("its {} bytes", second - 10)), "{}", resumed.stderr);
    assert_eq!(records(&fs::read_to_string(&journal).expect("a journal")).len(), 2);
}

#[test]
fn an_empty_file_and_one_that_is_not_there_are_resumed() {
    let (_folder, empty) = file("run.jsonl", "");
    run(&quick(&["--out", &empty, "--resume"])).exits(0);
    fs::remove_file(&empty).expect("a file");
    run(&quick(&["--out", &empty, "--resume"])).exits(0);
    assert_eq!(records(&fs::read_to_string(&empty).expect("a journal")).len(), 2);
}

/// A checkpoint in a folder, with files that the program does not read.
fn model() -> TempDir {
    let mut files = Fixture { shards: 2, ..Fixture::default() }.files();
    for name in ["README.md", "vocab.json", "special_tokens_map.json", "generation_config.json"] {
        files.insert(name.to_owned(), lm_headroom::checkpoint::Bytes::new(b"{}".to_vec()));
    }
    let model = folder(&files);
    fs::create_dir(model.path().join("more")).expect("a folder");
    fs::write(model.path().join("more/template.jinja"), "{{ messages }}").expect("a file");
    model
}

#[cfg(unix)]
#[test]
fn no_file_of_the_model_is_an_output_under_any_name() {
    let (model, elsewhere) = (model(), TempDir::new().expect("a folder"));
    let of_model = ["--model", path(&model), "--prompt-ids", "1", "--max-tokens", "1", "--threshold", "9"];
    let before = states(model.path());
    let files: Vec<PathBuf> =
        before.iter().map(|(path, _)| path.clone()).chain([model.path().join("more/template.jinja")]).collect();
    assert!(files.len() > 7, "{files:?}");
    for (i, file) in files.iter().enumerate() {
        let [hard, soft, both] = ["hard", "soft", "both"].map(|name| at(&elsewhere, &format!("{name}{i}")));
        fs::hard_link(file, &hard).expect("a link");
        std::os::unix::fs::symlink(file, &soft).expect("a link");
        std::os::unix::fs::symlink(&hard, &both).expect("a link");
        for out in [file.to_str().expect("Unicode"), &hard, &soft, &both] {
            for rest in [&["--out", out][..], &["--out", out, "--resume"], &["--out", out, "--force"]] {
                refused(&[&["probe", "clean"], &of_model[..], rest].concat(), &["--out", out, "the model"]);
            }
            refused(&[&["certify"], &of_model[..6], &["--out", out, "--force"]].concat(), &["--out", out, "the model"]);
        }
    }
    // Nor is a file that the model would be read with.
    for new in ["tokenizer.json", "chat_template.jinja", "model-00009.safetensors"] {
        refused(&[&["probe", "clean"], &of_model[..], &["--out", &at(&model, new)]].concat(), &["the model"]);
    }
    // Commands without a model know a model's folder when they see one.
    let (_folder, journal) = journal();
    for command in [
        &["merge", &journal, "--force", "--out"][..],
        &["relabel", &journal, "--force", "--out"],
        &["report", &journal, "--force", "-o"],
    ] {
        for file in &files[..files.len() - 1] {
            refused(&[command, &[file.to_str().expect("Unicode")]].concat(), &["the model"]);
        }
    }
    assert_eq!(states(model.path()), before);
    // A journal beside them is the user's.
    let beside = at(&model, "run.jsonl");
    for _ in 0..2 {
        run(&[&["probe", "clean"], &of_model[..], &["--out", &beside]].concat()).exits(0);
    }
}

#[cfg(unix)]
#[test]
fn no_file_of_the_hubs_cache_is_an_output() {
    let cache = TempDir::new().expect("a folder");
    let repository = cache.path().join("models--a--b");
    let snapshot = repository.join("snapshots").join("0".repeat(40));
    fs::create_dir_all(&snapshot).expect("a folder");
    fs::create_dir_all(repository.join("blobs")).expect("a folder");
    for (i, (name, bytes)) in Fixture::default().files().into_iter().enumerate() {
        let blob = repository.join("blobs").join(format!("{i:040}"));
        fs::write(&blob, &bytes[..]).expect("a file");
        std::os::unix::fs::symlink(&blob, snapshot.join(name)).expect("a link");
    }
    let blobs = repository.join("blobs");
    let another = blobs.join("f".repeat(40));
    fs::write(&another, "of another revision").expect("a file");
    let before = states(&blobs);
    let model = snapshot.to_str().expect("Unicode");
    for (out, _) in before.iter().chain(&states(&snapshot)) {
        let out = out.to_str().expect("Unicode");
        let args = ["probe", "clean", "--model", model, "--prompt-ids", "1", "--threshold", "9", "--out", out];
        refused(&args, &["--out", out, "the model"]);
        refused(&[&args[..], &["--resume"]].concat(), &["--out", out, "the model"]);
    }
    assert_eq!(states(&blobs), before);
}

#[cfg(unix)]
#[test]
fn no_input_of_a_command_is_its_output_under_any_name() {
    let (folder, journal) = journal();
    let second = at(&folder, "second.jsonl");
    fs::copy(&journal, &second).expect("a copy");
    let [prompts, values, recipe] = ["prompts.txt", "values.txt", "recipe.json"].map(|name| at(&folder, name));
    fs::write(&prompts, "Hello!\n").expect("a file");
    fs::write(&values, "1,2\n").expect("a file");
    fs::write(&recipe, "{\"schema\":1,\"recipe\":[{\"edit\":\"shift:1\"}]}\n").expect("a file");
    let list = format!("0,@{values}");
    let before = states(folder.path());
    let links = TempDir::new().expect("a folder");
    let rest = ["--max-tokens", "1", "--threshold", "9"];
    let commands: [(&str, Vec<&str>); 10] = [
        (&journal, vec!["merge", &journal, &second]),
        (&second, vec!["merge", &journal, &second, "--force"]),
        (&journal, vec!["relabel", &journal]),
        (&journal, vec!["relabel", &journal, "--force"]),
        (&prompts, [&["probe", "clean", "--prompts", &prompts], &rest[..]].concat()),
        (&prompts, vec!["certify", "--prompts", &prompts, "--force"]),
        (&prompts, vec!["probe", "clean", "--calibration", &prompts]),
        (&values, [&["sweep", "--family", "shift", "--values", &list], &rest[..]].concat()),
        (&values, [&["campaign", "--trials", "1", "--flips", &list], &rest[..]].concat()),
        (&recipe, [&["replay", &recipe], &rest[..]].concat()),
    ];
    for (i, (input, args)) in commands.iter().enumerate() {
        let [hard, soft] = ["hard", "soft"].map(|name| at(&links, &format!("{name}{i}")));
        fs::hard_link(input, &hard).expect("a link");
        std::os::unix::fs::symlink(input, &soft).expect("a link");
        for out in [input, &*hard, &soft] {
            refused(&[&args[..], &["--out", out]].concat(), &["--out", out, "nothing is written over"]);
        }
    }
    refused(&["replay", &journal, "--out", &journal, "--resume"], &["replayed"]);
    let hard = at(&links, "page.html");
    fs::hard_link(&journal, &hard).expect("a link");
    refused(&["report", &journal, "-o", &hard, "--force"], &["one of the runs"]);
    assert_eq!(states(folder.path()), before);
}

/// Commands that write one whole result into the file whose name follows.
fn whole_results(journal: &str) -> Vec<Vec<&str>> {
    vec![
        vec!["merge", journal, "--out"],
        vec!["relabel", journal, "--out"],
        vec!["report", journal, "-o"],
        vec!["certify", "--out"],
    ]
}

#[test]
fn what_headroom_did_not_write_is_replaced_by_force_alone() {
    let (_folder, journal) = journal();
    for command in whole_results(&journal) {
        for (what, bytes) in
            strangers().into_iter().filter(|(what, _)| !what.contains("recipe") && !what.contains("ours"))
        {
            if command[0] == "certify" && what != "notes" {
                continue;
            }
            // Its first three keys are those of a record of some run: it is kept under another name.
            if bytes.starts_with(b"{\"schema\":1,\"trial\":0,\"model\":\"x\"")
                || bytes.starts_with(b"{\"schema\":2")
                || what.contains("another model")
            {
                continue;
            }
            let (folder, stranger) = file("n.txt", &bytes);
            let before = states(folder.path());
            refused(&[&command[..], &[&stranger]].concat(), &[&stranger, "did not write", "--force"]);
            assert_eq!(states(folder.path()), before, "{what}");
        }
        let (folder, stranger) = file("n.txt", "my notes");
        run(&[&command[..], &[&stranger, "--force"]].concat()).exits(0);
        assert_ne!(fs::read(&stranger).expect("a file"), b"my notes");
        assert_eq!(names(folder.path()), ["n.txt"]);
    }
}

#[test]
fn records_are_kept_when_other_records_take_their_place() {
    let (folder, journal) = journal();
    let first = fs::read(&journal).expect("a journal");
    let other = at(&folder, "other.jsonl");
    run(&["probe", "shift:3", "--prompt-ids", "5,9", "--max-tokens=2", "--threshold", "9", "--out", &other]).exits(0);
    let merged = run(&["merge", &other, "--out", &journal]).exits(0);
    assert!(merged.stderr.contains("run.jsonl.old"), "{}", merged.stderr);
    assert_eq!(fs::read(format!("{journal}.old")).expect("a file"), first);
    assert_eq!(fs::read(&journal).expect("a file"), fs::read(&other).expect("a file"));
    // A page in the place of records, too; then a page in the place of a page.
    run(&["report", &other, "-o", &journal]).exits(0);
    assert_eq!(fs::read(format!("{journal}.old.1")).expect("a file"), fs::read(&other).expect("a file"));
    run(&["report", &other, "-o", &journal]).exits(0);
    assert_eq!(names(folder.path()), ["other.jsonl", "run.jsonl", "run.jsonl.old", "run.jsonl.old.1"]);
}

#[test]
fn what_is_kept_never_takes_the_place_of_anything() {
    let folder = TempDir::new().expect("a folder");
    let journal = at(&folder, "run.jsonl");
    run(&quick(&["--out", &journal])).exits(0);
    fs::write(format!("{journal}.old"), "foreign").expect("a file");
    fs::create_dir(format!("{journal}.old.1")).expect("a folder");
    let before = [state(&journal), state(format!("{journal}.old"))];
    let again = run(&quick(&["--out", &journal])).exits(0);
    assert!(again.stderr.contains("run.jsonl.old.2"), "{}", again.stderr);
    assert_eq!([state(format!("{journal}.old.2")), state(format!("{journal}.old"))], before);
    assert_eq!(records(&fs::read_to_string(&journal).expect("a journal")).len(), 2);
    // By force nothing is kept.
    run(&quick(&["--out", &journal, "--force"])).exits(0);
    assert_eq!(names(folder.path()), ["run.jsonl", "run.jsonl.old", "run.jsonl.old.1", "run.jsonl.old.2"]);
    let both = run(&quick(&["--out", &journal, "--force", "--resume"])).exits(2);
    assert!(both.stderr.contains("cannot be used with"), "{}", both.stderr);
}

#[cfg(unix)]
#[test]
fn what_a_link_leads_to_is_written_and_the_link_stays() {
    let folder = TempDir::new().expect("a folder");
    let [link, target] = ["link", "target"].map(|name| at(&folder, name));
    std::os::unix::fs::symlink("target", &link).expect("a link");
    // To nothing at first.
    for (old, lines) in [(None, 2), (Some("target.old"), 2), (Some("target.old.1"), 2)] {
        run(&quick(&["--out", &link])).exits(0);
        assert_eq!(records(&fs::read_to_string(&target).expect("a journal")).len(), lines);
        assert!(fs::symlink_metadata(&link).expect("a link").is_symlink());
        assert!(old.is_none_or(|old| folder.path().join(old).exists()));
    }
    let (_other, journal) = journal();
    run(&["merge", &journal, "--out", &link]).exits(0);
    assert!(fs::symlink_metadata(&link).expect("a link").is_symlink());
    // To a place that there is not.
    let nowhere = at(&folder, "nowhere");
    std::os::unix::fs::symlink("/no/such/folder/x", &nowhere).expect("a link");
    refused(&quick(&["--out", &nowhere]), &[&nowhere, "No such file"]);
    let round = at(&folder, "round");
    std::os::unix::fs::symlink("round", &round).expect("a link");
    refused(&quick(&["--out", &round]), &[&round]);
}

#[test]
fn what_is_no_place_for_a_result_is_refused_in_one_line() {
    let (folder, journal) = journal();
    let runs = whole_results(&journal).into_iter().chain([quick(&["--out"]), quick(&["--resume", "--out"])]);
    for command in runs {
        let of = |out: &str, mentions: &[&str]| {
            refused(&[&command[..], &[out]].concat(), mentions);
        };
        let empty = run(&[&command[..], &[""]].concat()).exits(2);
        assert!(empty.stderr.contains("a value is required"), "{}", empty.stderr);
        of(path(&folder), &["cannot write", "a folder"]);
        of(&format!("{}/new/", path(&folder)), &["cannot write"]);
        of("/no/such/folder/x", &["cannot write /no/such/folder/x", "No such file"]);
        of(&format!("{journal}/x"), &["cannot write", "Not a directory"]);
        of(&at(&folder, "two\nlines"), &["two\\nlines", "control character"]);
        of(&at(&folder, &"x".repeat(300)), &["cannot write", "too long"]);
    }
    assert_eq!(names(folder.path()), ["run.jsonl"]);
}

#[cfg(target_os = "linux")]
#[test]
fn devices_and_pipes_are_written_as_they_are_by_as_many_as_want_to() {
    use std::os::unix::fs::FileTypeExt;
    let (folder, journal) = journal();
    let is_device = |path: &str| fs::metadata(path).expect("a device").file_type().is_char_device();
    let children: Vec<Child> = (0..4)
        .map(|_| program(&quick(&["--out", "/dev/null"])).stdout(Stdio::null()).spawn().expect("it starts"))
        .collect();
    for mut child in children {
        assert_eq!(child.wait().expect("it ends").code(), Some(0));
    }
    for command in whole_results(&journal) {
        run(&[&command[..], &["/dev/null"]].concat()).exits(0);
        let full = run(&[&command[..], &["/dev/full"]].concat()).exits(2);
        assert!(full.stderr.contains("cannot write /dev/full: No space left"), "{}", full.stderr);
    }
    assert!(is_device("/dev/null") && is_device("/dev/full"));
    let pipe = at(&folder, "pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
    for command in [quick(&["--out", &pipe]), vec!["merge", &journal, "--out", &pipe]] {
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs::read_to_string(pipe).expect("a pipe")
        });
        run(&command).exits(0);
        assert_eq!(records(&reader.join().expect("text")).len(), 2);
    }
    assert!(fs::metadata(&pipe).expect("a pipe").file_type().is_fifo());
    let socket = at(&folder, "socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
    refused(&quick(&["--out", &socket]), &["a socket"]);
    // Where the shell sends stdout is not taken away by a rename.
    let stdout = at(&folder, "stdout");
    let file = fs::File::create(&stdout).expect("a file");
    let merged = program(&["merge", &journal, "--out", "/dev/stdout"]).stdout(file).status().expect("it starts");
    assert_eq!((merged.code(), names(folder.path()).len()), (Some(0), 4));
    // The file first, then the summary behind it.
    let text = fs::read_to_string(&stdout).expect("text");
    let (lines, summary) = text.split_at(text.find("2 trials: ").expect("a summary"));
    assert_eq!((records(lines).len(), summary.lines().next().is_some()), (2, true));
}

#[cfg(unix)]
#[test]
fn a_file_that_is_read_only_stays_as_it_is() {
    let (folder, journal) = journal();
    let kept = at(&folder, "kept.jsonl");
    fs::copy(&journal, &kept).expect("a copy");
    let mut permissions = fs::metadata(&kept).expect("a file").permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&kept, permissions).expect("a file");
    let before = states(folder.path());
    for command in whole_results(&journal).into_iter().chain([quick(&["--out"]), quick(&["--resume", "--out"])]) {
        refused(&[&command[..], &[&kept]].concat(), &["cannot write", &kept]);
    }
    assert_eq!(states(folder.path()), before);
}

#[test]
fn a_file_that_is_being_written_is_refused_by_every_command() {
    let (folder, journal) = journal();
    let held = at(&folder, "held.jsonl");
    fs::copy(&journal, &held).expect("a copy");
    let file = fs::File::open(&held).expect("a file");
    file.try_lock().expect("a lock");
    let before = states(folder.path());
    for command in whole_results(&journal).into_iter().chain([quick(&["--out"]), quick(&["--resume", "--out"])]) {
        refused(&[&command[..], &[&held]].concat(), &[&held, "is being written by another run"]);
        if command[0] != "probe" {
            refused(&[&command[..], &[&held, "--force"]].concat(), &["is being written by another run"]);
        }
    }
    assert_eq!(states(folder.path()), before);
}

#[test]
fn a_command_that_fails_leaves_nothing_where_it_would_have_written() {
    let (folder, journal) = journal();
    let new = at(&folder, "new");
    let (_other, broken) = file("broken.jsonl", "{\"schema\":1,\"trial\":0,\"model\":\"x\"}\n");
    for args in [
        &["merge", &broken, "--out", &new][..],
        &["relabel", &broken, "--out", &new],
        &["report", &broken, "-o", &new],
        &["probe", "flip:weight[9999999,0].0", "--out", &new],
        &["probe", "clean", "--model", "/nowhere", "--out", &new],
    ] {
        refused(args, &[]);
    }
    assert_eq!(names(folder.path()), ["run.jsonl"]);
    assert_eq!(records(&fs::read_to_string(journal).expect("a journal")).len(), 2);
}

/// Ctrl-C while certificates are computed.
#[cfg(unix)]
fn interrupted_certify(out: &str) -> Run {
    let args = ["certify", "--prompt", "What is 2+2?", "--collapse", "4096", "--trials", "200000", "--threshold", "9"];
    let args = [&args[..], &["--max-tokens", "64", "--out", out]].concat();
    let child = program(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program");
    std::thread::sleep(std::time::Duration::from_millis(1500));
    std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill");
    finished(&args, child.wait_with_output().expect("an end"))
}

#[cfg(unix)]
#[test]
fn an_interrupted_certify_leaves_the_recipe_that_was_there() {
    let folder = TempDir::new().expect("a folder");
    let recipe = at(&folder, "recipe.json");
    run(&["certify", "--out", &recipe]).exits(0);
    let before = states(folder.path());
    interrupted_certify(&recipe).exits(130);
    assert_eq!(states(folder.path()), before);
    // Nor does one that finds nothing empty it.
    let model = super::folder(&Fixture::default().files());
    let beyond = ["certify", "--model", path(&model), "--prompt-ids", "1", "--toward", "9999999", "--out", &recipe];
    run(&beyond).exits(2);
    assert_eq!(states(folder.path()), before);
    // A new one takes its place, whole.
    run(&["certify", "--prompt", "Hello!", "--out", &recipe]).exits(0);
    assert_eq!(names(folder.path()), ["recipe.json"]);
    assert!(fs::read_to_string(&recipe).expect("a recipe").contains("Hello!"));
}

/// What two processes at once did to one output.
struct Pair {
    folder: TempDir,
    codes: Vec<i32>,
    said: String,
}

impl Pair {
    /// Starts both and waits for their ends. One may be refused, with a line that says why.
    #[track_caller]
    fn of(folder: TempDir, both: [&[&str]; 2], delay: std::time::Duration) -> Self {
        let start =
            |args: &[&str]| program(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program");
        let first = start(both[0]);
        std::thread::sleep(delay);
        let children = [first, start(both[1])];
        let (mut codes, mut said) = (Vec::new(), String::new());
        for child in children {
            let output = child.wait_with_output().expect("an end");
            codes.push(output.status.code().expect("no signal"));
            said.push_str(std::str::from_utf8(&output.stderr).expect("text"));
        }
        let refusals = codes.iter().filter(|&&code| code == 2).count();
        assert!(codes.iter().all(|code| [0, 2].contains(code)) && refusals < 2, "{codes:?}: {said}");
        // By the lock, or, where a run that is resumed finds the records of the other, by those.
        assert_eq!(said.matches("another run").count(), refusals, "{said}");
        Self { folder, codes, said }
    }

    /// Edits of all finished trials, in all files of the folder that begin with `name`.
    fn edits(&self, name: &str) -> Vec<String> {
        let files = names(self.folder.path()).into_iter().filter(|file| file.starts_with(name));
        let text = files.map(|file| fs::read_to_string(self.folder.path().join(file)).expect("text"));
        let lines = text.collect::<Vec<_>>().concat();
        let mut edits: Vec<String> = records(&lines).iter().map(|record| record["edit"].to_string()).collect();
        edits.sort();
        edits
    }
}

/// A run of two trials.
fn ladder<'a>(shifts: &'a str, out: &'a str) -> Vec<&'a str> {
    vec!["ladder", "--shifts", shifts, "--max-tokens=2", "--threshold", "9", "--prompt-ids", "5,9", "--out", out]
}

/// `HEADROOM_PAIRS` pairs of processes on one output, or a few dozen.
#[test]
#[expect(clippy::print_stderr, reason = "the number of refusals is a result")]
fn two_processes_on_one_output_lose_nothing() {
    let pairs: u64 = std::env::var("HEADROOM_PAIRS").ok().and_then(|pairs| pairs.parse().ok()).unwrap_or(32);
    let (_stored, journal) = journal();
    let stored = ["\"clean\"", "\"shift:7\""];
    let (one, two) = (["\"shift:1\"", "\"shift:2\""], ["\"shift:3\"", "\"shift:4\""]);
    let sorted = |parts: &[&[&str]]| {
        let mut all: Vec<String> = parts.concat().iter().map(|&edit| edit.to_owned()).collect();
        all.sort();
        all
    };
    let mut refusals = [0; 6];
    for pair in 0..pairs {
        let folder = TempDir::new().expect("a folder");
        let out = at(&folder, "out.jsonl");
        // A foreign file beside, where what is kept would go, and in half of the pairs an earlier run.
        fs::write(format!("{out}.old"), "").expect("a file");
        let earlier = pair / 6 % 2 == 1;
        if earlier {
            fs::copy(&journal, &out).expect("a copy");
        }
        let before = if earlier { &stored[..] } else { &[] };
        let delay = std::time::Duration::from_micros(pair / 12 * 997 % 20_000);
        let resume = [&ladder("1,2", &out)[..], &["--resume"]].concat();
        let kind = (pair % 6) as usize;
        let (first, second) = match kind {
            0 => (ladder("1,2", &out), ladder("3,4", &out)),
            1 => (ladder("1,2", &out), vec!["merge", &journal, "--out", &out]),
            2 => (ladder("1,2", &out), vec!["relabel", &journal, "--out", &out]),
            3 => {
                drop(fs::remove_file(&out));
                (resume.clone(), resume)
            }
            4 => {
                drop(fs::remove_file(&out));
                (resume, ladder("3,4", &out))
            }
            _ => (vec!["merge", &journal, "--out", &out], vec!["merge", &journal, "--out", &out]),
        };
        let done = Pair::of(folder, [&first, &second], delay);
        refusals[kind] += done.codes.iter().filter(|&&code| code == 2).count();
        let ran = |i: usize| done.codes[i] == 0;
        let found = done.edits("out.jsonl");
        let mut parts: Vec<&[&str]> = if kind == 3 || kind == 4 { Vec::new() } else { vec![before] };
        match kind {
            3 => parts.push(&one),
            _ => {
                if ran(0) {
                    parts.push(if kind == 5 { &stored } else { &one });
                }
                if ran(1) {
                    parts.push(if kind == 0 || kind == 4 { &two } else { &stored });
                }
            }
        }
        assert_eq!(found, sorted(&parts), "pair {pair} of kind {kind}: {:?} {}", done.codes, done.said);
        let beside = fs::read(done.folder.path().join("out.jsonl.old")).expect("a file");
        assert_eq!(beside, b"", "pair {pair}: what was beside is as it was");
        assert!(names(done.folder.path()).iter().all(|name| name.starts_with("out.jsonl")), "something is left over");
    }
    eprintln!(
        "{pairs} pairs; refused of starts {refusals:?} (start+start, start+merge, start+relabel, resume+resume, resume+start, merge+merge)"
    );
}

/// A stream that never ends is not read into memory.
#[cfg(target_os = "linux")]
#[test]
fn what_cannot_be_results_is_refused_by_its_first_bytes() {
    for command in [&["report"][..], &["relabel"], &["merge"], &["replay"]] {
        let refused = run(&[command, &["/dev/zero"]].concat()).exits(2);
        assert!(refused.stderr.contains("/dev/zero") && refused.stderr.lines().count() == 1, "{}", refused.stderr);
    }
    run(&["compare", "/dev/zero", "/dev/zero"]).exits(2);
}

#[cfg(unix)]
#[test]
fn a_file_that_a_limit_keeps_from_growing_is_an_error_that_names_it() {
    let (model, place) = (folder(&super::speaking(None).files()), TempDir::new().expect("a folder"));
    let journal = place.path().join("run.jsonl");
    let journal = journal.to_str().expect("Unicode");
    let ladder = ["ladder", "--model", path(&model), "--raw", "--max-tokens", "1", "--threshold", "9"];
    run(&[&ladder[..], &["--out", journal]].concat()).exits(0);
    let limited = |args: &[&str]| {
        let plain = program(args);
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", "ulimit -f 0; exec \"$0\" \"$@\""]).arg(plain.get_program()).args(args);
        shell.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        // Of its own, so that something is to be written there.
        shell.env("HEADROOM_CACHE", place.path().join("cache"));
        super::finished(args, shell.output().expect("a shell"))
    };
    // A cache that cannot be written costs nothing.
    limited(&ladder).exits(0);
    let out = place.path().join("out");
    let out = out.to_str().expect("Unicode");
    for args in [
        [&ladder[..], &["--out", out]].concat(),
        vec!["merge", journal, "--out", out],
        vec!["relabel", journal, "--out", out],
        vec!["report", journal, "-o", out],
    ] {
        let refused = limited(&args).exits(2);
        assert!(refused.stderr.contains("error: ") && refused.stderr.contains(out), "{}", refused.stderr);
    }
}
