//! A hub on 127.0.0.1, as far as downloads of models go, and a content server behind it.
//!
//! Answers follow what the public hub does: the description of a revision; small files by way of a
//! relative redirect; large ones by way of a redirect to another origin, with `X-Linked-ETag`; refusals
//! with `X-Error-Code`. Every request is noted. [`Fault`]s make it misbehave. It serves a bounded number
//! of requests, and stops when dropped.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::json;

/// More than any test needs.
const MOST_REQUESTS: usize = 1000;

/// Contents of a repository at one commit.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// A repository.
#[derive(Clone, Default)]
pub(crate) struct Repo {
    /// Files by commit.
    pub(crate) commits: BTreeMap<String, Files>,
    /// Commits by branch, tag or ref.
    pub(crate) refs: BTreeMap<String, String>,
    /// Who may have the files; everybody if `None`.
    pub(crate) gate: Option<String>,
    /// Listed besides the files.
    pub(crate) also_listed: Vec<String>,
}

/// A way to misbehave. Faults of a file hold for its contents, not for the question where they are.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fault {
    /// The next answer with more than so many bytes of this file ends after them.
    Cut { file: &'static str, after: usize },
    /// So many times the contents of this file are answered with a status.
    Status { file: &'static str, status: u16, times: usize },
    /// So many bytes of this file are sent at most, whenever it is asked for.
    CutAll { file: &'static str, after: usize },
    /// This file is followed by more bytes than it has.
    Longer { file: &'static str },
    /// The contents of this file are said to be compressed, and are.
    Compressed { file: &'static str },
    /// A byte of this file is another one, so many times.
    Spoilt { file: &'static str, times: usize },
    /// This file is said to have so many bytes.
    Huge { file: &'static str, bytes: u64 },
    /// So many times a request for this file, or for the description where that is "api", is answered with 429 and asked to
    /// wait.
    Wait { file: &'static str, times: usize, retry_after: &'static str },
    /// Everything at the endpoint is redirected to the same path at another port with this status.
    Elsewhere { status: u16 },
    /// Everything at the endpoint is redirected to this address before the path.
    Base(&'static str),
    /// `Range` is not honoured.
    NoRanges,
    /// Nothing is ever answered about the contents of this file.
    Silent { file: &'static str },
    /// All ETags are this.
    Etag(&'static str),
    /// Descriptions name this commit.
    Sha(&'static str),
    /// Files are said to be of this commit.
    Commit(&'static str),
    /// Small files are redirected to themselves.
    Circle,
    /// Small files are redirected to nowhere.
    NoLocation,
    /// Unknown repositories are answered as the public hub does without a token: with 401 and no code.
    Bare401,
}

/// A request as it came, and how much of a body it was given.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) cdn: bool,
    pub(crate) path: String,
    pub(crate) range: Option<String>,
    pub(crate) authorization: Option<String>,
    pub(crate) sent: usize,
}

impl Seen {
    /// Whether it asks for `file`.
    pub(crate) fn is_of(&self, file: &str) -> bool {
        self.path.split('?').next().unwrap().rsplit('/').next() == Some(file)
    }
}

struct State {
    repos: Mutex<BTreeMap<String, Repo>>,
    faults: Mutex<Vec<Fault>>,
    seen: Mutex<Vec<Seen>>,
    stop: AtomicBool,
    hub: SocketAddr,
    cdn: SocketAddr,
}

pub(crate) struct HubServer {
    state: Arc<State>,
    threads: Vec<JoinHandle<()>>,
}

impl HubServer {
    pub(crate) fn start(id: &str, repo: Repo) -> Self {
        let [hub, cdn] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let state = Arc::new(State {
            repos: Mutex::new(BTreeMap::from([(id.to_owned(), repo)])),
            faults: Mutex::default(),
            seen: Mutex::default(),
            stop: AtomicBool::new(false),
            hub: hub.local_addr().unwrap(),
            cdn: cdn.local_addr().unwrap(),
        });
        let threads = [(hub, false), (cdn, true)].map(|(listener, is_cdn)| {
            let state = Arc::clone(&state);
            thread::spawn(move || state.listen(&listener, is_cdn))
        });
        Self { state, threads: threads.into() }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.state.hub)
    }

    pub(crate) fn fault(&self, fault: Fault) {
        self.state.faults.lock().unwrap().push(fault);
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Repo)) {
        change(self.state.repos.lock().unwrap().values_mut().next().unwrap());
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    /// Bytes of `file` that were sent, questions for its first byte aside.
    pub(crate) fn sent(&self, file: &str) -> usize {
        let asked = |seen: &&Seen| seen.is_of(file) && seen.range.as_deref() != Some("bytes=0-0");
        self.seen().iter().filter(asked).map(|seen| seen.sent).sum()
    }
}

impl Drop for HubServer {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::SeqCst);
        for address in [self.state.hub, self.state.cdn] {
            // Wakes the thread that waits for a connection.
            let _ = TcpStream::connect(address);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl State {
    fn listen(self: &Arc<Self>, listener: &TcpListener, cdn: bool) {
        for stream in listener.incoming().take(MOST_REQUESTS) {
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            if let Ok(stream) = stream {
                let state = Arc::clone(self);
                thread::spawn(move || state.serve(stream, cdn));
            }
        }
    }

    /// One request; then the connection is closed.
    fn serve(&self, mut stream: TcpStream, cdn: bool) -> Option<()> {
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        stream.set_write_timeout(Some(Duration::from_secs(10))).ok()?;
        let mut seen = Seen { cdn, ..Seen::default() };
        let mut lines = BufReader::new(stream.try_clone().ok()?).take(64 << 10).lines();
        seen.path = lines.next()?.ok()?.split(' ').nth(1)?.to_owned();
        while let Some(Ok(line)) = lines.next() {
            match line.split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("range") => seen.range = Some(value.to_owned()),
                Some((name, value)) if name.eq_ignore_ascii_case("authorization") => {
                    seen.authorization = Some(value.to_owned());
                }
                _ if line.is_empty() => break,
                _ => {}
            }
        }
        let answer = self.answer(&seen);
        let Some(Reply { status, mut headers, body, cut }) = answer else {
            self.seen.lock().unwrap().push(seen);
            // The client's patience is what is tested; ours ends too.
            thread::sleep(Duration::from_secs(3));
            return None;
        };
        headers.push_str(&format!("Content-Length: {}\r\nConnection: close\r\n\r\n", body.len()));
        seen.sent = cut.unwrap_or(body.len());
        let sent = seen.sent;
        self.seen.lock().unwrap().push(seen);
        stream.write_all(format!("HTTP/1.1 {status} Status\r\n{headers}").as_bytes()).ok()?;
        stream.write_all(&body[..sent]).ok()
    }

    fn answer(&self, seen: &Seen) -> Option<Reply> {
        let faults = self.faults.lock().unwrap().clone();
        let path = seen.path.split('?').next().unwrap();
        for fault in &faults {
            match fault {
                Fault::Elsewhere { status } if !seen.cdn => {
                    return Some(
                        Reply::status(*status).header("Location", &format!("http://{}{}", self.cdn, seen.path)),
                    );
                }
                Fault::Base(base) if !seen.cdn => {
                    return Some(Reply::status(302).header("Location", &format!("{base}{}", seen.path)));
                }
                _ => {}
            }
        }
        for fault in self.faults.lock().unwrap().iter_mut() {
            match fault {
                Fault::Wait { file, times, retry_after }
                    if *times > 0 && (seen.is_of(file) || (*file == "api" && path.starts_with("/api/"))) =>
                {
                    *times -= 1;
                    return Some(Reply::status(429).header("Retry-After", retry_after));
                }
                _ => {}
            }
        }
        let repos = self.repos.lock().unwrap().clone();
        if let Some(rest) = path.strip_prefix("/api/models/") {
            let (id, revision) = rest.split_once("/revision/").unwrap_or((rest, "main"));
            let Some(repo) = repos.get(id) else {
                return Some(match (&seen.authorization, faults.contains(&Fault::Bare401)) {
                    (None, true) => Reply::status(401),
                    _ => Reply::status(404).header("X-Error-Code", "RepoNotFound"),
                });
            };
            let revision = revision.replace("%2F", "/");
            let Some((commit, files)) = repo.at(&revision) else {
                return Some(Reply::status(404).header("X-Error-Code", "RevisionNotFound"));
            };
            let sha = faults.iter().find_map(|fault| if let Fault::Sha(sha) = fault { Some(*sha) } else { None });
            let names = files.keys().chain(&repo.also_listed).map(|name| json!({"rfilename": name}));
            let info = json!({"id": id, "sha": sha.unwrap_or(&commit), "siblings": names.collect::<Vec<_>>()});
            return Some(Reply { body: info.to_string().into_bytes(), ..Reply::status(200) });
        }
        let (id, commit, file, stage) = parts(path)?;
        let repo = &repos[&id];
        let allowed =
            repo.gate.is_none() || seen.authorization == repo.gate.as_ref().map(|token| format!("Bearer {token}"));
        if stage == Stage::Resolve && !allowed {
            let status = if seen.authorization.is_none() { 401 } else { 403 };
            let message = "Access to this model is restricted.";
            return Some(Reply::status(status).header("X-Error-Code", "GatedRepo").header("X-Error-Message", message));
        }
        let Some((commit, files)) = repo.at(&commit) else { return Some(Reply::status(404)) };
        let claimed =
            faults.iter().find_map(|fault| if let Fault::Commit(claimed) = fault { Some(*claimed) } else { None });
        let commit = claimed.map_or(commit, str::to_owned);
        let Some(contents) = files.get(&file) else {
            return Some(Reply::status(404).header("X-Error-Code", "EntryNotFound"));
        };
        let etag =
            faults.iter().find_map(|fault| if let Fault::Etag(etag) = fault { Some((*etag).to_owned()) } else { None });
        let etag = etag.unwrap_or_else(|| etag_of(contents));
        let large = file.ends_with(".safetensors");
        match stage {
            Stage::Resolve if large => Some(
                Reply::status(302)
                    .header("X-Repo-Commit", &commit)
                    .header("X-Linked-ETag", &format!("\"{etag}\""))
                    .header("X-Linked-Size", &contents.len().to_string())
                    .header("ETag", "\"of-the-pointer\"")
                    .header("Location", &format!("http://{}/cdn/{id}/{commit}/{file}?Signature=secret", self.cdn)),
            ),
            Stage::Resolve => {
                // The public hub's web server tags the text of the redirect.
                let etag = "W/\"106-a+b/c=\"";
                let reply = Reply::status(307).header("X-Repo-Commit", &commit).header("ETag", etag);
                Some(if faults.contains(&Fault::NoLocation) {
                    reply
                } else if faults.contains(&Fault::Circle) {
                    reply.header("Location", path)
                } else {
                    reply.header("Location", &format!("/{id}/resolve-cache/{commit}/{file}?etag=%22x%22"))
                })
            }
            Stage::Contents => {
                let reply = Reply::status(200);
                let reply = if seen.cdn {
                    reply.header("ETag", "\"of-the-copy\"")
                } else {
                    reply.header("X-Repo-Commit", &commit).header("ETag", &format!("\"{etag}\""))
                };
                self.contents(reply, &file, contents, seen.range.as_deref())
            }
        }
    }

    fn contents(&self, mut reply: Reply, file: &str, contents: &[u8], range: Option<&str>) -> Option<Reply> {
        let probe = range == Some("bytes=0-0");
        let range = range.filter(|_| !self.faults.lock().unwrap().contains(&Fault::NoRanges));
        let (mut start, mut end) = (0, contents.len());
        if let Some(range) = range {
            let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
            start = from.parse().ok()?;
            if let Ok(to) = to.parse::<usize>() {
                end = end.min(to + 1);
            }
            if start >= contents.len() {
                return Some(Reply::status(416).header("Content-Range", &format!("bytes */{}", contents.len())));
            }
            reply.status = 206;
            let huge = self.faults.lock().unwrap().iter().find_map(|fault| match fault {
                Fault::Huge { file: of, bytes } if *of == file => Some(*bytes),
                _ => None,
            });
            let size = huge.unwrap_or(contents.len() as u64);
            reply = reply.header("Content-Range", &format!("bytes {start}-{}/{size}", end - 1));
        }
        reply.body = contents[start..end].to_vec();
        if probe {
            return Some(reply);
        }
        let mut faults = self.faults.lock().unwrap();
        let mut used = None;
        for (i, fault) in faults.iter_mut().enumerate() {
            match fault {
                Fault::Silent { file: of } if *of == file => return None,
                Fault::CutAll { file: of, after } if *of == file && *after < reply.body.len() => {
                    reply.cut = Some(*after)
                }
                Fault::Longer { file: of } if *of == file => reply.body.extend([0; 100]),
                Fault::Compressed { file: of } if *of == file => {
                    // A stored block of gzip with nothing in it: whoever unpacks it unasked gets nothing.
                    reply.body = b"\x1f\x8b\x08\0\0\0\0\0\0\xff\x01\0\0\xff\xff\0\0\0\0\0\0\0\0".to_vec();
                    reply = reply.header("Content-Encoding", "gzip");
                }
                Fault::Spoilt { file: of, times } if *of == file && *times > 0 => {
                    *times -= 1;
                    reply.body[0] ^= 1;
                }
                Fault::Status { file: of, status, times } if *of == file && *times > 0 => {
                    *times -= 1;
                    return Some(Reply::status(*status));
                }
                Fault::Cut { file: of, after } if *of == file && *after < reply.body.len() => {
                    reply.cut = Some(*after);
                    used = Some(i);
                    break;
                }
                _ => {}
            }
        }
        if let Some(used) = used {
            faults.remove(used);
        }
        Some(reply)
    }
}

impl Repo {
    fn at(&self, revision: &str) -> Option<(String, Files)> {
        let commit = self.refs.get(revision).map_or(revision, String::as_str);
        Some((commit.to_owned(), self.commits.get(commit)?.clone()))
    }
}

/// The blob's name, as the hub names large files: their SHA-256.
pub(crate) fn etag_of(contents: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, contents);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[derive(PartialEq)]
enum Stage {
    Resolve,
    Contents,
}

/// `/org/name/resolve/COMMIT/FILE`, `/org/name/resolve-cache/COMMIT/FILE`, `/cdn/org/name/COMMIT/FILE`.
fn parts(path: &str) -> Option<(String, String, String, Stage)> {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let (id, commit, file, stage) = match parts[..] {
        ["cdn", org, name, commit, file] => ((org, name), commit, file, Stage::Contents),
        [org, name, "resolve", commit, file] => ((org, name), commit, file, Stage::Resolve),
        [org, name, "resolve-cache", commit, file] => ((org, name), commit, file, Stage::Contents),
        _ => return None,
    };
    Some((format!("{}/{}", id.0, id.1), commit.to_owned(), file.to_owned(), stage))
}

struct Reply {
    status: u16,
    headers: String,
    body: Vec<u8>,
    /// Bytes of the body after which the connection ends.
    cut: Option<usize>,
}

impl Reply {
    fn status(status: u16) -> Self {
        Self { status, headers: String::new(), body: Vec::new(), cut: None }
    }

    fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push_str(&format!("{name}: {value}\r\n"));
        self
    }
}
