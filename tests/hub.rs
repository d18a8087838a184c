//! Models of the hub, with the real client against a server on 127.0.0.1.

mod hub_server;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use hub_server::{Fault, Files, HubServer, Repo, etag_of};
use lm_headroom::{
    checkpoint::{
        Checkpoint,
        hub::{HubError, HubModel, HubSettings, ModelName, Progress, Snapshot},
    },
    testing::{fixture::Fixture, skipped},
};
use tempfile::TempDir;

const ID: &str = "some-org/Tiny-4bit";
const FIRST: &str = "1111111111111111111111111111111111111111";
const SECOND: &str = "2222222222222222222222222222222222222222";
const INDEX: &str = "model.safetensors.index.json";
const SHARDS: [&str; 2] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];

/// A model in two shards, with all that belongs to it, and what does not.
fn files() -> Files {
    let mut files = Fixture { shards: 2, ..Fixture::default() }.files();
    let mut files: Files = std::mem::take(&mut files).into_iter().map(|(name, bytes)| (name, bytes.to_vec())).collect();
    for name in ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json"] {
        files.insert(name.to_owned(), format!("{{\"eos_token_id\": 2, \"_\": \"{name}\"}}").into_bytes());
    }
    files.insert("chat_template.jinja".to_owned(), b"{{ messages }}".to_vec());
    files
}

fn not_fetched() -> Files {
    ["README.md", "consolidated.safetensors", "model.gguf"]
        .map(|name| (name.to_owned(), b"not of the model".to_vec()))
        .into()
}

fn repo() -> Repo {
    let mut files = files();
    files.extend(not_fetched());
    Repo {
        commits: [(FIRST.to_owned(), files)].into(),
        refs: [("main".to_owned(), FIRST.to_owned())].into(),
        also_listed: vec!["original/model.safetensors".to_owned()],
        ..Repo::default()
    }
}

struct Hub {
    server: HubServer,
    cache: TempDir,
}

impl Hub {
    fn start(repo: Repo) -> Self {
        Self { server: HubServer::start(ID, repo), cache: tempfile::tempdir().unwrap() }
    }

    fn with(fault: Fault) -> Self {
        let hub = Self::start(repo());
        hub.server.fault(fault);
        hub
    }

    fn settings(&self) -> HubSettings {
        HubSettings {
            endpoint: self.server.endpoint(),
            pause: Duration::ZERO,
            timeout: Duration::from_secs(5),
            ..HubSettings::new(self.cache.path().to_owned())
        }
    }

    fn pull(&self) -> Result<Snapshot, HubError> {
        model(ID).pull(&self.settings(), &mut ())
    }

    fn pull_once(&self) -> Result<Snapshot, HubError> {
        model(ID).pull(&HubSettings { retries: 0, ..self.settings() }, &mut ())
    }

    fn root(&self) -> PathBuf {
        self.cache.path().join("models--some-org--Tiny-4bit")
    }

    fn part_of(&self, file: &str) -> PathBuf {
        self.root().join("blobs").join(format!("{}.part", etag_of(&files()[file])))
    }
}

fn model(text: &str) -> HubModel {
    match ModelName::parse(text) {
        Ok(ModelName::Hub(model)) => model,
        other => panic!("{text} is {other:?}"),
    }
}

#[track_caller]
fn assert_holds_all(snapshot: &Snapshot, expected: &Files) {
    let found: Files = fs::read_dir(&snapshot.folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap()))
        .collect();
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    assert!(found == *expected, "contents differ");
}

/// What must hold of every message that a user sees.
#[track_caller]
fn assert_says(error: &HubError, mentions: &[&str]) {
    let message = error.to_string();
    for mention in mentions {
        assert!(message.contains(mention), "`{message}` does not mention `{mention}`");
    }
    assert!(!message.ends_with('.') && !message.contains("secret"), "{message}");
}

#[derive(Default)]
struct Recorded {
    starts: Vec<(String, u64, u64)>,
    bytes: u64,
    finished: usize,
}

impl Progress for Recorded {
    fn start(&mut self, file: &str, size: u64, present: u64) {
        self.starts.push((file.to_owned(), size, present));
    }
    fn advance(&mut self, bytes: u64) {
        self.bytes += bytes;
    }
    fn finish(&mut self) {
        self.finished += 1;
    }
}

// What is fetched

#[test]
fn a_pulled_model_opens_and_holds_what_the_hub_has_of_it() {
    let hub = Hub::start(repo());
    let snapshot = hub.pull().unwrap();
    assert_eq!(snapshot.revision, FIRST);
    assert_eq!(snapshot.folder, hub.root().join("snapshots").join(FIRST));
    assert_eq!(fs::read_to_string(hub.root().join("refs/main")).unwrap(), FIRST);
    assert_holds_all(&snapshot, &files());
    Checkpoint::open(&snapshot.folder).unwrap();
}

#[cfg(unix)]
#[test]
fn the_snapshot_links_to_blobs_as_in_every_hub_cache() {
    let hub = Hub::start(repo());
    let snapshot = hub.pull().unwrap();
    for (name, contents) in files() {
        let target = fs::read_link(snapshot.folder.join(&name)).unwrap();
        assert_eq!(target, Path::new("../../blobs").join(etag_of(&contents)), "{name}");
    }
    // hf-hub finds it too.
    let cache = hf_hub::Cache::new(hub.cache.path().to_owned()).model(ID.to_owned());
    assert_eq!(cache.get("config.json"), Some(snapshot.folder.join("config.json")));
}

#[test]
fn a_model_without_an_index_is_every_model_safetensors() {
    let mut repo = repo();
    repo.commits.get_mut(FIRST).unwrap().remove(INDEX);
    let hub = Hub::start(repo);
    let mut expected = files();
    expected.remove(INDEX);
    assert_holds_all(&hub.pull().unwrap(), &expected);
}

#[test]
fn an_empty_file_is_a_file() {
    let mut repo = repo();
    repo.commits.get_mut(FIRST).unwrap().insert("chat_template.jinja".to_owned(), Vec::new());
    let hub = Hub::start(repo);
    let snapshot = hub.pull().unwrap();
    assert_eq!(fs::metadata(snapshot.folder.join("chat_template.jinja")).unwrap().len(), 0);
}

#[test]
fn progress_adds_up_to_the_bytes_of_the_files() {
    let hub = Hub::start(repo());
    let mut progress = Recorded::default();
    model(ID).pull(&hub.settings(), &mut progress).unwrap();
    let sizes: BTreeMap<String, u64> = progress.starts.iter().map(|(file, size, _)| (file.clone(), *size)).collect();
    assert_eq!(sizes, files().iter().map(|(name, data)| (name.clone(), data.len() as u64)).collect());
    assert_eq!((progress.bytes, progress.finished), (sizes.values().sum(), files().len()));
    assert!(progress.starts.iter().all(|(_, _, present)| *present == 0));
    assert_eq!(progress.starts[0].0, "config.json");
    assert!(SHARDS.contains(&progress.starts.last().unwrap().0.as_str()), "weights come last");
}

#[test]
fn a_repository_without_a_checkpoint_says_what_it_lacks() {
    let mut without = repo();
    without.commits.get_mut(FIRST).unwrap().remove("config.json");
    let error = Hub::start(without).pull().unwrap_err();
    assert!(matches!(&error, HubError::NoCheckpoint { .. }), "{error}");
    assert_says(&error, &[ID, "config.json"]);
    let mut repo = repo();
    repo.commits.get_mut(FIRST).unwrap().retain(|name, _| !name.starts_with("model"));
    assert_says(&Hub::start(repo).pull().unwrap_err(), &["model*.safetensors"]);
}

#[test]
fn an_index_decides_nothing_of_what_is_fetched() {
    for index in [
        &br#"{"weight_map": {"lm_head.weight": "../../evil.safetensors"}}"#[..],
        b"{",
        b"{\"weight_map\":{\"a\":\"gone\"}}",
    ] {
        let mut repo = repo();
        repo.commits.get_mut(FIRST).unwrap().insert(INDEX.to_owned(), index.to_vec());
        let hub = Hub::start(repo);
        let snapshot = hub.pull().unwrap();
        let checkpoint = Checkpoint::open(&snapshot.folder).unwrap();
        assert_eq!(checkpoint.notes().len(), 1, "{:?}", checkpoint.notes());
        assert_eq!(model(ID).cached(&hub.settings()), Some(snapshot), "it is whole");
    }
}

// The cache first

#[test]
fn the_second_use_asks_nobody() {
    let hub = Hub::start(repo());
    let first = model(ID).resolve(&hub.settings(), &mut ()).unwrap();
    let asked = hub.server.seen().len();
    assert!(asked > 0);
    let second = model(ID).resolve(&hub.settings(), &mut ()).unwrap();
    assert_eq!(second, first);
    assert_eq!(hub.server.seen().len(), asked);
    // Nor does it need anybody to be there.
    let settings = hub.settings();
    drop(hub.server);
    assert_eq!(model(ID).resolve(&settings, &mut ()).unwrap(), first);
}

#[test]
fn a_snapshot_of_plain_files_from_elsewhere_is_used() {
    let hub = Hub::start(repo());
    let folder = hub.root().join("snapshots").join(SECOND);
    fs::create_dir_all(&folder).unwrap();
    fs::create_dir_all(hub.root().join("refs")).unwrap();
    fs::write(hub.root().join("refs/main"), format!("{SECOND}\n")).unwrap();
    for (name, bytes) in Fixture::default().files() {
        fs::write(folder.join(name), bytes.as_slice()).unwrap();
    }
    let snapshot = model(ID).resolve(&hub.settings(), &mut ()).unwrap();
    assert_eq!(snapshot, Snapshot { folder, revision: SECOND.to_owned() });
    assert!(hub.server.seen().is_empty());
    Checkpoint::open(&snapshot.folder).unwrap();
}

#[test]
fn a_snapshot_that_lacks_a_needed_file_is_completed_and_not_used() {
    for lost in ["config.json", SHARDS[0], SHARDS[1]] {
        let hub = Hub::start(repo());
        let snapshot = hub.pull().unwrap();
        fs::remove_file(snapshot.folder.join(lost)).unwrap();
        assert_eq!(model(ID).cached(&hub.settings()), None, "{lost}");
        model(ID).resolve(&hub.settings(), &mut ()).unwrap();
        assert_holds_all(&snapshot, &files());
        // The blob was still there.
        assert_eq!(hub.server.sent(lost), files()[lost].len());
    }
}

#[test]
fn shards_without_their_index_count_by_their_names() {
    let hub = Hub::start(repo());
    let snapshot = hub.pull().unwrap();
    fs::remove_file(snapshot.folder.join(INDEX)).unwrap();
    assert!(model(ID).cached(&hub.settings()).is_some());
    fs::remove_file(snapshot.folder.join(SHARDS[1])).unwrap();
    assert_eq!(model(ID).cached(&hub.settings()), None);
}

#[test]
fn a_link_whose_blob_was_deleted_is_mended() {
    let hub = Hub::start(repo());
    let snapshot = hub.pull().unwrap();
    fs::remove_file(hub.root().join("blobs").join(etag_of(&files()[SHARDS[1]]))).unwrap();
    assert_eq!(model(ID).cached(&hub.settings()), None);
    hub.pull().unwrap();
    assert_holds_all(&snapshot, &files());
}

#[test]
fn offline_nobody_is_asked() {
    let hub = Hub::start(repo());
    let offline = HubSettings { offline: true, ..hub.settings() };
    for outcome in [model(ID).resolve(&offline, &mut ()), model(ID).pull(&offline, &mut ())] {
        let error = outcome.unwrap_err();
        assert!(matches!(&error, HubError::Offline { .. }), "{error}");
        assert_says(&error, &[ID, "HF_HUB_OFFLINE", "the revision main", hub.cache.path().to_str().unwrap()]);
    }
    assert!(hub.server.seen().is_empty());

    let snapshot = hub.pull().unwrap();
    let asked = hub.server.seen().len();
    assert_eq!(model(ID).resolve(&offline, &mut ()).unwrap(), snapshot);
    assert_eq!(model(ID).pull(&offline, &mut ()).unwrap(), snapshot);
    fs::remove_file(snapshot.folder.join(SHARDS[1])).unwrap();
    assert_says(&model(ID).resolve(&offline, &mut ()).unwrap_err(), &[SHARDS[1]]);
    assert_eq!(hub.server.seen().len(), asked);
}

// Revisions

/// `main` has moved on to a second commit, of which only the second shard is new.
fn moved() -> Repo {
    let mut repo = repo();
    let mut newer = files();
    let seed = Fixture { shards: 2, seed: 9, ..Fixture::default() };
    newer.insert(SHARDS[1].to_owned(), seed.files()[SHARDS[1]].to_vec());
    repo.commits.insert(SECOND.to_owned(), newer);
    repo.refs = [("main", SECOND), ("v1.0", FIRST), ("refs/pr/1", SECOND), ("50%#1", FIRST)]
        .map(|(name, commit)| (name.to_owned(), commit.to_owned()))
        .into();
    repo
}

#[test]
fn a_revision_is_a_commit_a_branch_a_tag_or_a_ref() {
    let hub = Hub::start(moved());
    let revisions = [(FIRST, FIRST), ("v1.0", FIRST), ("refs/pr/1", SECOND), ("main", SECOND)];
    for (revision, commit) in revisions {
        let model = model(&format!("{ID}@{revision}"));
        let snapshot = model.pull(&hub.settings(), &mut ()).unwrap();
        assert_eq!(snapshot.revision, commit, "{revision}");
        assert_eq!(model.cached(&hub.settings()), Some(snapshot), "{revision}");
    }
    assert_eq!(fs::read_to_string(hub.root().join("refs/refs/pr/1")).unwrap(), SECOND);
    assert!(!hub.root().join("refs").join(FIRST).exists());
    let asked: Vec<String> = hub.server.seen().into_iter().map(|seen| seen.path).collect();
    assert!(asked.contains(&format!("/api/models/{ID}/revision/refs%2Fpr%2F1")), "{asked:?}");
}

#[test]
fn a_ref_is_escaped_in_the_address() {
    let hub = Hub::start(moved());
    let _ = model(&format!("{ID}@50%#1")).pull(&hub.settings(), &mut ());
    assert_eq!(hub.server.seen()[0].path, format!("/api/models/{ID}/revision/50%25%231"));
}

#[test]
fn another_revision_fetches_only_what_differs() {
    let hub = Hub::start(moved());
    model(&format!("{ID}@v1.0")).pull(&hub.settings(), &mut ()).unwrap();
    let mut progress = Recorded::default();
    model(ID).pull(&hub.settings(), &mut progress).unwrap();
    assert_eq!(progress.starts.iter().map(|start| start.0.as_str()).collect::<Vec<_>>(), [SHARDS[1]]);
}

#[test]
fn a_branch_that_moved_is_followed_by_pull_and_not_by_resolve() {
    let hub = Hub::start(repo());
    hub.pull().unwrap();
    hub.server.change(|repo| *repo = moved());
    assert_eq!(model(ID).resolve(&hub.settings(), &mut ()).unwrap().revision, FIRST);
    assert_eq!(hub.pull().unwrap().revision, SECOND);
    assert_eq!(model(ID).resolve(&hub.settings(), &mut ()).unwrap().revision, SECOND);
}

#[test]
fn an_interrupted_pull_leaves_the_branch_where_it_was() {
    let hub = Hub::start(repo());
    hub.pull().unwrap();
    hub.server.change(|repo| *repo = moved());
    hub.server.fault(Fault::Cut { file: SHARDS[1], after: 10 });
    hub.pull_once().unwrap_err();
    assert_eq!(model(ID).resolve(&hub.settings(), &mut ()).unwrap().revision, FIRST);
}

#[test]
fn an_unknown_revision_is_told_from_an_unknown_model() {
    let hub = Hub::start(repo());
    let error = model(&format!("{ID}@v9")).pull(&hub.settings(), &mut ()).unwrap_err();
    assert!(matches!(&error, HubError::RevisionNotFound { revision, .. } if revision == "v9"), "{error}");
    assert_says(&error, &[ID, "v9"]);
}

// Who may have it

#[test]
fn an_unknown_model_is_not_found_with_and_without_a_token() {
    let hub = Hub::with(Fault::Bare401);
    for token in [None, Some("hf_any".to_owned())] {
        let settings = HubSettings { token: token.clone(), ..hub.settings() };
        let error = model("some-org/nothing").pull(&settings, &mut ()).unwrap_err();
        assert!(matches!(&error, HubError::RepoNotFound { token: sent, .. } if *sent == token.is_some()), "{error}");
        assert_says(&error, &["some-org/nothing", "HF_TOKEN", &hub.server.endpoint()]);
    }
    assert!(fs::read_dir(hub.cache.path()).unwrap().next().is_none());
}

#[test]
fn a_gated_model_needs_the_right_token() {
    let hub = Hub::start(Repo { gate: Some("hf_right".to_owned()), ..repo() });
    for token in [None, Some("hf_wrong")] {
        let settings = HubSettings { token: token.map(str::to_owned), ..hub.settings() };
        let error = model(ID).pull(&settings, &mut ()).unwrap_err();
        assert!(matches!(&error, HubError::Gated { token: sent, .. } if *sent == token.is_some()), "{error}");
        assert_says(&error, &["HF_TOKEN", &format!("{}/{ID}", hub.server.endpoint())]);
    }
    let settings = HubSettings { token: Some("hf_right".to_owned()), ..hub.settings() };
    assert_holds_all(&model(ID).pull(&settings, &mut ()).unwrap(), &files());
}

#[test]
fn the_token_goes_to_the_endpoint_and_nowhere_else() {
    let hub = Hub::start(repo());
    let settings = HubSettings { token: Some("hf_mine".to_owned()), ..hub.settings() };
    model(ID).pull(&settings, &mut ()).unwrap();
    let seen = hub.server.seen();
    assert!(seen.iter().any(|seen| seen.cdn));
    for seen in seen {
        let expected = (!seen.cdn).then_some("Bearer hf_mine");
        assert_eq!(seen.authorization.as_deref(), expected, "{}", seen.path);
    }
}

#[test]
fn a_token_that_cannot_be_one_is_not_sent() {
    let hub = Hub::start(repo());
    for token in ["two words", "line\nbreak", "naïve"] {
        let settings = HubSettings { token: Some(token.to_owned()), ..hub.settings() };
        let error = model(ID).pull(&settings, &mut ()).unwrap_err();
        assert!(matches!(error, HubError::BadToken), "{error}");
    }
    assert!(hub.server.seen().is_empty());
}

// Interruptions

#[test]
fn a_connection_cut_in_the_middle_is_resumed_and_no_byte_is_sent_twice() {
    let hub = Hub::with(Fault::Cut { file: SHARDS[0], after: 1000 });
    hub.server.fault(Fault::Cut { file: SHARDS[0], after: 2000 });
    let mut progress = Recorded::default();
    let snapshot = model(ID).pull(&hub.settings(), &mut progress).unwrap();
    assert_holds_all(&snapshot, &files());
    let whole = files()[SHARDS[0]].len();
    assert_eq!(hub.server.sent(SHARDS[0]), whole);
    let presents: Vec<u64> =
        progress.starts.iter().filter(|start| start.0 == SHARDS[0]).map(|&(_, _, present)| present).collect();
    assert_eq!(presents, [0, 1000, 3000]);
    Checkpoint::open(&snapshot.folder).unwrap();
}

#[test]
fn the_next_run_goes_on_where_an_interrupted_one_stopped() {
    let hub = Hub::with(Fault::Cut { file: SHARDS[1], after: 1234 });
    let error = hub.pull_once().unwrap_err();
    assert!(matches!(&error, HubError::Network { .. }), "{error}");
    assert_says(&error, &[SHARDS[1]]);
    assert_eq!(fs::metadata(hub.part_of(SHARDS[1])).unwrap().len(), 1234);
    assert_eq!(model(ID).cached(&hub.settings()), None);

    assert_holds_all(&hub.pull_once().unwrap(), &files());
    assert_eq!(hub.server.sent(SHARDS[1]), files()[SHARDS[1]].len());
    assert!(!hub.part_of(SHARDS[1]).exists());
}

#[test]
fn a_part_that_is_whole_or_too_long_is_no_dead_end() {
    for (len_more, sent) in [(0, 0), (7, files()[SHARDS[0]].len())] {
        let hub = Hub::start(repo());
        let mut contents = files()[SHARDS[0]].clone();
        contents.extend(vec![0; len_more]);
        write_part(&hub, SHARDS[0], &contents);
        assert_holds_all(&hub.pull_once().unwrap(), &files());
        assert_eq!(hub.server.sent(SHARDS[0]), sent);
    }
}

// Why hf-hub's own download is not used. When one of these fails, look whether it has become fit.

/// hf-hub at this server; `None` where a proxy, which it asks for this machine too, stands between.
fn hf_hub_at(hub: &Hub, retries: usize) -> Option<hf_hub::api::sync::ApiRepo> {
    if ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"].iter().any(|name| std::env::var_os(name).is_some()) {
        skipped("what hf-hub's own download does", "a proxy is set");
        return None;
    }
    let api = hf_hub::api::sync::ApiBuilder::from_cache(hf_hub::Cache::new(hub.cache.path().to_owned()))
        .with_endpoint(hub.server.endpoint())
        .with_token(Some("hf_mine".to_owned()))
        .with_retries(retries)
        .with_progress(false)
        .build()
        .unwrap();
    Some(api.repo(hf_hub::Repo::with_revision(ID.to_owned(), hf_hub::RepoType::Model, FIRST.to_owned())))
}

fn write_part(hub: &Hub, file: &str, contents: &[u8]) {
    let part = hub.part_of(file);
    fs::create_dir_all(part.parent().unwrap()).unwrap();
    fs::write(&part, contents).unwrap();
}

#[test]
fn hf_hub_itself_never_finishes_a_part_that_is_whole() {
    let hub = Hub::start(repo());
    let Some(api) = hf_hub_at(&hub, 0) else { return };
    let whole = &files()["config.json"];
    write_part(&hub, "config.json", whole);
    for _ in 0..2 {
        api.download("config.json").unwrap_err();
    }
    // A shorter one it does resume, from a file of the same name as ours.
    write_part(&hub, "config.json", &whole[..10]);
    assert_eq!(fs::read(api.download("config.json").unwrap()).unwrap(), *whole);
    assert_eq!(hub.server.sent("config.json"), whole.len() - 10);
}

#[test]
fn hf_hub_itself_damages_a_resumed_file_when_it_retries() {
    let hub = Hub::with(Fault::Status { file: "config.json", status: 503, times: 1 });
    let Some(api) = hf_hub_at(&hub, 1) else { return };
    let whole = &files()["config.json"];
    write_part(&hub, "config.json", &whole[..10]);
    let downloaded = fs::read(api.download("config.json").unwrap()).unwrap();
    assert_eq!(downloaded, [&whole[..10], whole].concat());
}

#[test]
fn hf_hub_itself_sends_the_token_on() {
    let hub = Hub::start(repo());
    let Some(api) = hf_hub_at(&hub, 0) else { return };
    api.download(SHARDS[0]).unwrap();
    assert!(hub.server.seen().iter().any(|seen| seen.cdn && seen.authorization.is_some()));
}

#[test]
fn a_server_without_ranges_sends_the_whole_file_again() {
    let hub = Hub::with(Fault::NoRanges);
    hub.server.fault(Fault::Cut { file: SHARDS[0], after: 1000 });
    assert_holds_all(&hub.pull().unwrap(), &files());
    assert_eq!(hub.server.sent(SHARDS[0]), 1000 + files()[SHARDS[0]].len());
}

#[test]
fn a_server_that_is_busy_for_a_while_is_asked_again() {
    let hub = Hub::with(Fault::Status { file: SHARDS[0], status: 503, times: 3 });
    assert_holds_all(&hub.pull().unwrap(), &files());
}

#[test]
fn attempts_that_bring_nothing_are_given_up() {
    let hub = Hub::with(Fault::Status { file: SHARDS[0], status: 503, times: 1000 });
    let settings = HubSettings { retries: 2, ..hub.settings() };
    let error = model(ID).pull(&settings, &mut ()).unwrap_err();
    assert!(matches!(&error, HubError::Status { status: 503, .. }), "{error}");
    let seen = hub.server.seen();
    let contents = seen.iter().filter(|seen| seen.is_of(SHARDS[0]) && seen.range.as_deref() == Some("bytes=0-"));
    assert_eq!(contents.count(), 3);
}

#[test]
fn a_refusal_that_will_not_change_is_not_asked_again() {
    let hub = Hub::with(Fault::Status { file: "config.json", status: 403, times: 1 });
    let error = hub.pull().unwrap_err();
    assert!(matches!(&error, HubError::Unauthorized { status: 403, .. }), "{error}");
    assert_says(&error, &["HF_TOKEN", "config.json"]);
    // A content server does not ask for a token.
    let hub = Hub::with(Fault::Status { file: SHARDS[0], status: 403, times: 1 });
    let error = hub.pull().unwrap_err();
    assert!(matches!(&error, HubError::Status { status: 403, .. }), "{error}");
}

#[test]
fn a_server_that_falls_silent_is_not_waited_for_forever() {
    let hub = Hub::with(Fault::Silent { file: SHARDS[0] });
    let settings = HubSettings { timeout: Duration::from_millis(300), retries: 0, ..hub.settings() };
    let since = Instant::now();
    let error = model(ID).pull(&settings, &mut ()).unwrap_err();
    assert!(matches!(&error, HubError::Network { .. }), "{error}");
    assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
}

#[test]
fn nobody_there_is_a_network_error_that_names_the_address() {
    let Hub { server, cache } = Hub::start(repo());
    let endpoint = server.endpoint();
    drop(server);
    let settings = HubSettings { endpoint: endpoint.clone(), ..HubSettings::new(cache.path().to_owned()) };
    let error = model(ID).pull(&settings, &mut ()).unwrap_err();
    assert!(matches!(&error, HubError::Network { .. }), "{error}");
    assert_says(&error, &[&endpoint]);
}

#[test]
fn a_server_without_tls_asked_for_it_is_a_network_error() {
    let hub = Hub::start(repo());
    let endpoint = hub.server.endpoint().replace("http:", "https:");
    let error = model(ID).pull(&HubSettings { endpoint, ..hub.settings() }, &mut ()).unwrap_err();
    assert!(matches!(&error, HubError::Network { .. }), "{error}");
}

// What a server may not do

/// Requests for the contents of a file.
fn asked(hub: &Hub, file: &str) -> usize {
    hub.server.seen().iter().filter(|seen| seen.is_of(file) && seen.range.as_deref() != Some("bytes=0-0")).count()
}

#[test]
fn no_redirect_of_any_kind_carries_the_token_to_another_port() {
    for status in [301, 302, 303, 307, 308] {
        let hub = Hub::with(Fault::Elsewhere { status });
        let settings = HubSettings { token: Some("hf_mine".to_owned()), ..hub.settings() };
        // The content server answers as the hub does, without the gate.
        drop(model(ID).pull(&settings, &mut ()));
        let seen = hub.server.seen();
        assert!(
            seen.iter().any(|seen| seen.cdn && seen.path.starts_with("/api/")),
            "{status}: the listing is followed"
        );
        for seen in seen {
            let expected = (!seen.cdn).then_some("Bearer hf_mine");
            assert_eq!(seen.authorization.as_deref(), expected, "{status} {}", seen.path);
        }
    }
}

#[test]
fn a_redirect_that_could_be_read_in_two_ways_is_refused() {
    for base in ["http://127.0.0.1\\@127.0.0.1", "//127.0.0.1", "ftp://127.0.0.1", "http://127.0.0.1 x", "x"] {
        let hub = Hub::with(Fault::Base(base));
        let error = hub.pull().unwrap_err();
        assert!(matches!(&error, HubError::Answer { .. }), "{base}: {error}");
        assert_eq!(hub.server.seen().len(), 1, "{base}");
    }
}

#[test]
fn a_password_in_the_endpoint_is_not_shown() {
    let hub = Hub::start(repo());
    let at = |endpoint: String| HubSettings { endpoint, retries: 0, ..hub.settings() };
    let own = hub.server.endpoint().replace("http://", "http://me:topsecret@");
    for (settings, id) in [
        (at(own.clone()), "some-org/nothing"),
        (at("http://me:topsecret@127.0.0.1:9".to_owned()), ID),
        (at("http://me:topsecret@no such host".to_owned()), ID),
        (at("nonsense://me:topsecret@x".to_owned()), ID),
        (HubSettings { token: Some("hf_wrong".to_owned()), ..at(own) }, "some-org/nothing"),
    ] {
        let error = model(id).pull(&settings, &mut ()).unwrap_err();
        for text in [error.to_string(), format!("{error:?}"), format!("{settings:?}")] {
            assert!(!text.contains("topsecret"), "{text}");
        }
    }
}

#[test]
fn a_server_that_gives_nothing_new_is_given_up() {
    let file = SHARDS[0];
    // Every body is cut at the same place of the file, since it knows no ranges; is too long; or unpacks to nothing.
    for faults in [
        &[Fault::NoRanges, Fault::CutAll { file, after: 1000 }][..],
        &[Fault::Longer { file }],
        &[Fault::Compressed { file }],
        &[Fault::CutAll { file, after: 0 }],
        &[Fault::Spoilt { file, times: 1000 }],
    ] {
        let hub = Hub::start(repo());
        faults.iter().for_each(|fault| hub.server.fault(fault.clone()));
        let error = hub.pull().unwrap_err();
        assert!(matches!(&error, HubError::Network { .. } | HubError::Contents { .. }), "{faults:?}: {error}");
        let asked = asked(&hub, file);
        assert!((5..=6).contains(&asked), "{faults:?}: asked {asked} times");
        assert!(!hub.root().join("blobs").join(etag_of(&files()[file])).exists(), "{faults:?}");
    }
    // A byte at a time is something each time, and is ended all the same.
    let hub = Hub::with(Fault::CutAll { file: "config.json", after: 1 });
    hub.pull().unwrap_err();
    assert_eq!(asked(&hub, "config.json"), 101);
}

#[test]
fn what_came_is_held_against_the_announced_sha_256() {
    let hub = Hub::with(Fault::Spoilt { file: SHARDS[1], times: 1 });
    let error = hub.pull_once().unwrap_err();
    assert!(matches!(&error, HubError::Contents { .. }), "{error}");
    assert_says(&error, &[SHARDS[1], "SHA-256", &etag_of(&files()[SHARDS[1]])]);
    assert!(!hub.part_of(SHARDS[1]).exists(), "it is not gone on with");
    assert_holds_all(&hub.pull_once().unwrap(), &files());
    // Where there are attempts left, the next one is sound.
    let hub = Hub::with(Fault::Spoilt { file: SHARDS[1], times: 2 });
    assert_holds_all(&hub.pull().unwrap(), &files());
}

#[test]
fn a_small_file_that_is_large_is_not_fetched() {
    for (file, bytes, refused) in [
        ("config.json", (16 << 20) + 1, true),
        ("chat_template.jinja", u64::MAX, true),
        ("tokenizer.json", (256 << 20) + 1, true),
        (INDEX, (64 << 20) + 1, true),
        (SHARDS[0], 1 << 50, false),
    ] {
        let hub = Hub::with(Fault::Huge { file, bytes });
        let error = hub.pull_once().unwrap_err();
        assert_eq!(matches!(&error, HubError::TooLarge { .. }), refused, "{file}: {error}");
        if refused {
            assert_says(&error, &[file, &bytes.to_string()]);
            assert_eq!(asked(&hub, file), 0);
        }
    }
}

#[test]
fn a_hub_that_asks_to_wait_is_waited_for_once() {
    #[derive(Default)]
    struct Waits(Vec<Duration>);
    impl Progress for Waits {
        fn start(&mut self, _: &str, _: u64, _: u64) {}
        fn advance(&mut self, _: u64) {}
        fn finish(&mut self) {}
        fn wait(&mut self, pause: Duration) {
            self.0.push(pause);
        }
    }
    for file in ["api", "config.json", SHARDS[0]] {
        let hub = Hub::with(Fault::Wait { file, times: 1, retry_after: "1" });
        let (mut waits, since) = (Waits::default(), Instant::now());
        let snapshot = model(ID).pull(&hub.settings(), &mut waits).unwrap();
        assert_holds_all(&snapshot, &files());
        assert_eq!(waits.0, [Duration::from_secs(1)], "{file}");
        assert!(since.elapsed() >= Duration::from_secs(1), "{file}");
    }
    // Twice is once too often for the description, and an hour is too long for anything.
    for fault in [
        Fault::Wait { file: "api", times: 2, retry_after: "0" },
        Fault::Wait { file: "api", times: 1, retry_after: "3600" },
        Fault::Wait { file: "config.json", times: 1000, retry_after: "0" },
        Fault::Wait { file: "config.json", times: 1000, retry_after: "3600" },
    ] {
        let hub = Hub::with(fault.clone());
        let error = hub.pull().unwrap_err();
        assert!(matches!(&error, HubError::Status { status: 429, .. }), "{fault:?}: {error}");
        assert_says(&error, &["as it asks"]);
    }
}

// Hostile or broken answers

#[test]
fn a_listed_file_that_leads_out_of_the_model_stops_the_pull_before_anything_is_written() {
    for evil in ["../evil", "a/../../evil.safetensors", "/etc/evil", "..\\evil", "C:evil", "", "model\u{1b}[2J"] {
        let hub = Hub::start(Repo { also_listed: vec![evil.to_owned()], ..repo() });
        let error = hub.pull().unwrap_err();
        assert!(matches!(&error, HubError::FileName { .. }), "{evil:?}: {error}");
        assert!(!error.to_string().contains('\u{1b}'));
        assert!(fs::read_dir(hub.cache.path()).unwrap().next().is_none(), "{evil:?}");
        assert_eq!(hub.server.seen().len(), 1);
    }
}

#[test]
fn an_etag_that_is_a_path_is_refused() {
    for etag in ["../../../evil", "/tmp/evil", "..", "", "a.part", "a/b"] {
        let hub = Hub::with(Fault::Etag(etag));
        let error = hub.pull().unwrap_err();
        assert!(matches!(&error, HubError::Answer { .. }), "{etag:?}: {error}");
        assert!(fs::read_dir(hub.cache.path()).unwrap().next().is_none(), "{etag:?}");
    }
}

#[test]
fn a_commit_that_is_none_or_another_than_the_pinned_one_is_refused() {
    for sha in ["../../evil", "", "main", SECOND] {
        let hub = Hub::with(Fault::Sha(sha));
        let pinned = model(&format!("{ID}@{FIRST}"));
        let error = pinned.pull(&hub.settings(), &mut ()).unwrap_err();
        assert!(matches!(&error, HubError::Answer { .. }), "{sha:?}: {error}");
        assert_says(&error, &["HF_ENDPOINT"]);
    }
}

#[test]
fn a_file_of_another_commit_than_the_described_one_is_refused() {
    let hub = Hub::with(Fault::Commit(SECOND));
    let error = hub.pull().unwrap_err();
    assert!(matches!(&error, HubError::Answer { .. }), "{error}");
    assert!(fs::read_dir(hub.cache.path()).unwrap().next().is_none());
}

#[test]
fn redirects_in_a_circle_or_to_nowhere_end() {
    for fault in [Fault::Circle, Fault::NoLocation] {
        let hub = Hub::with(fault.clone());
        let error = hub.pull().unwrap_err();
        assert!(matches!(&error, HubError::Answer { .. }), "{fault:?}: {error}");
        assert_says(&error, &["redirect", "config.json"]);
    }
}

// The disk

#[test]
fn a_cache_that_cannot_be_written_is_a_disk_error_with_the_path() {
    let hub = Hub::start(repo());
    let file = hub.cache.path().join("file");
    fs::write(&file, "").unwrap();
    let settings = HubSettings { cache: file.clone(), ..hub.settings() };
    let error = model(ID).pull(&settings, &mut ()).unwrap_err();
    assert!(matches!(&error, HubError::Disk { path, .. } if path.starts_with(&file)), "{error}");
}

#[test]
fn a_file_that_another_process_fetches_is_left_to_it() {
    let hub = Hub::start(repo());
    let lock = hub.part_of(SHARDS[0]).with_extension("lock");
    fs::create_dir_all(lock.parent().unwrap()).unwrap();
    let other = fs::File::create(&lock).unwrap();
    other.lock().unwrap();
    let settings = HubSettings { timeout: Duration::from_millis(300), ..hub.settings() };
    let error = model(ID).pull(&settings, &mut ()).unwrap_err();
    assert!(matches!(&error, HubError::Busy { lock: held, .. } if *held == lock), "{error}");
    drop(other);
    hub.pull().unwrap();
}

#[test]
fn two_pulls_at_once_both_succeed() {
    let hub = Hub::start(repo());
    std::thread::scope(|scope| {
        let pulls = [(); 2].map(|()| scope.spawn(|| hub.pull()));
        for pull in pulls {
            assert_holds_all(&pull.join().unwrap().unwrap(), &files());
        }
    });
    for shard in SHARDS {
        assert_eq!(hub.server.sent(shard), files()[shard].len());
    }
}
