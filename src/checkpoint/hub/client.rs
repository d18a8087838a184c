//! Requests to the hub.

use std::{
    error::Error,
    io::{self, Read},
    time::{Duration, Instant},
};

use hf_hub::{
    Cache,
    api::{
        RepoInfo,
        sync::{ApiBuilder, ApiRepo},
    },
};

use super::{
    super::json::shortened,
    HubError, HubSettings,
    name::{HubModel, is_commit},
    url::{HIDDEN, authority, shown, user},
};

/// Longest description of a repository that is read; one of ten thousand files has 1 MB.
const LONGEST_INFO: u64 = 32 << 20;
/// A file request at the public hub is redirected twice at most.
const MOST_REDIRECTS: usize = 8;

/// The headers that matter, in the order of [`Answer::headers`].
const HEADERS: [&str; 9] = [
    "content-length",
    "content-range",
    "etag",
    "location",
    "retry-after",
    "x-error-code",
    "x-error-message",
    "x-linked-etag",
    "x-repo-commit",
];

/// An answer of whatever status.
pub(super) struct Answer {
    pub(super) status: u16,
    headers: [Option<String>; HEADERS.len()],
    pub(super) body: Box<dyn Read>,
}

impl Answer {
    /// A header of [`HEADERS`].
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let i = HEADERS.iter().position(|&known| known == name).expect("every header asked for is in the list");
        self.headers[i].as_deref()
    }
}

/// Where the contents of a file are.
pub(super) struct Location {
    /// After all redirects.
    pub(super) url: String,
    /// Name of the blob.
    pub(super) etag: String,
    /// Bytes.
    pub(super) size: u64,
}

/// One model at one endpoint.
pub(super) struct Client<'a> {
    settings: &'a HubSettings,
    model: &'a HubModel,
    repo: ApiRepo,
}

impl<'a> Client<'a> {
    pub(super) fn new(settings: &'a HubSettings, model: &'a HubModel) -> Result<Self, HubError> {
        if settings.token.as_ref().is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(HubError::BadToken);
        }
        let api = ApiBuilder::from_cache(Cache::new(settings.cache.clone()))
            .with_endpoint(settings.endpoint.clone())
            .with_token(settings.token.clone())
            .with_user_agent("headroom", env!("CARGO_PKG_VERSION"))
            .with_progress(false)
            .build()
            .map_err(|error| network(&settings.endpoint, error))?;
        let repo = api.model(model.id().to_owned());
        Ok(Self { settings, model, repo })
    }

    /// What the hub says about the model at its revision: the commit, a whole one, and the files.
    pub(super) fn info(&self) -> Result<RepoInfo, HubError> {
        let mut url = format!(
            "{}/api/models/{}/revision/{}",
            self.settings.endpoint,
            self.model.id(),
            escaped(self.model.revision())
        );
        let mut redirects = 0;
        let answer = loop {
            let answer = self.get(&url, None)?;
            match Self::next(&url, &answer)? {
                Some(next) if redirects < MOST_REDIRECTS => (url, redirects) = (next, redirects + 1),
                Some(_) => return Err(HubError::Answer { url: shown(&url), what: CIRCLE.to_owned() }),
                None if answer.status == 200 => break answer,
                None => return Err(self.refusal(&url, &answer, false)),
            }
        };
        let mut text = Vec::new();
        answer.body.take(LONGEST_INFO).read_to_end(&mut text).map_err(|error| network(&url, error))?;
        let broken = |what: String| HubError::Answer { url: shown(&url), what };
        let info: RepoInfo = serde_json::from_slice(&text).map_err(|error| {
            broken(format!("not the description of a repository ({})", shortened(&error.to_string())))
        })?;
        if !is_commit(&info.sha) || self.model.pinned().is_some_and(|commit| commit != info.sha) {
            return Err(broken(format!("`{}` is not the commit asked for", shortened(&info.sha))));
        }
        Ok(info)
    }

    /// Finds `file` as it is in `commit`.
    pub(super) fn locate(&self, commit: &str, file: &str) -> Result<Location, HubError> {
        let HubSettings { endpoint, .. } = self.settings;
        let mut url = format!("{endpoint}/{}/resolve/{commit}/{}", self.model.id(), escaped(file));
        let mut etag = None;
        let mut range = Some("bytes=0-0");
        for _ in 0..=MOST_REDIRECTS {
            let answer = self.get(&url, range)?;
            let broken = |what: &str| HubError::Answer { url: shown(&url), what: what.to_owned() };
            // As in all tools that share the cache, the blob is named by the hub's last answer: not by the
            // redirects on the way, nor by a content server behind it.
            let from_hub = origin(&url) == origin(endpoint);
            if let Some(named) = answer.header("x-repo-commit").filter(|_| from_hub || etag.is_none()) {
                if named != commit {
                    return Err(broken("the file is of another commit than the one asked for"));
                }
                etag = answer.header("x-linked-etag").or_else(|| answer.header("etag")).map(str::to_owned);
            }
            if let Some(next) = Self::next(&url, &answer)? {
                url = next;
                continue;
            }
            match answer.status {
                // An empty file has no first byte.
                416 if range.is_some() => range = None,
                200 | 206 => {
                    let size = match answer.status {
                        200 => answer.header("content-length").and_then(|size| size.parse().ok()),
                        _ => answer.header("content-range").and_then(|range| range.rsplit_once('/')?.1.parse().ok()),
                    };
                    let size = size.ok_or_else(|| broken("the answer does not say how long the file is"))?;
                    let etag = etag.ok_or_else(|| broken("the answer has no X-Repo-Commit with an ETag"))?;
                    let etag = blob_name(&etag).ok_or_else(|| broken("the ETag cannot name a blob"))?;
                    return Ok(Location { url, etag, size });
                }
                _ => return Err(self.refusal(&url, &answer, true)),
            }
        }
        Err(HubError::Answer { url: shown(&url), what: CIRCLE.to_owned() })
    }

    /// Where an answer to `url` redirects to, if it does.
    fn next(url: &str, answer: &Answer) -> Result<Option<String>, HubError> {
        if !matches!(answer.status, 301 | 302 | 303 | 307 | 308) {
            return Ok(None);
        }
        let broken = |what: &str| HubError::Answer { url: shown(url), what: what.to_owned() };
        let location = answer.header("location").ok_or_else(|| broken("a redirect without Location"))?;
        redirected(url, location).map(Some).ok_or_else(|| broken("a redirect to where nothing is fetched from"))
    }

    /// The contents from byte `start`, with 206; with 200 from the first byte.
    pub(super) fn contents(&self, location: &Location, start: u64) -> Result<Answer, HubError> {
        let answer = self.get(&location.url, Some(&format!("bytes={start}-")))?;
        match answer.status {
            200 => Ok(answer),
            206 if answer
                .header("content-range")
                .is_some_and(|range| range.starts_with(&format!("bytes {start}-"))) =>
            {
                Ok(answer)
            }
            206 => Err(HubError::Answer { url: shown(&location.url), what: "another range came".to_owned() }),
            _ => Err(self.refusal(&location.url, &answer, true)),
        }
    }

    /// Asks for `url`, or for a range of it, with the token if `url` has the endpoint's scheme, host and port. Redirects
    /// are handed out: the client that follows them keeps the token to the host, whatever the port.
    fn get(&self, url: &str, range: Option<&str>) -> Result<Answer, HubError> {
        // The one way to hf-hub's client for a URL of one's own: `HeaderAgent::get` is private.
        // A compressed file would have other lengths, and other bytes in a range.
        let mut request = self.repo.info_request().uri(url).header("accept-encoding", "identity");
        if let Some(range) = range {
            request = request.header("range", range);
        }
        if origin(url) != origin(&self.settings.endpoint)
            && let Some(headers) = request.headers_mut()
        {
            headers.remove("authorization");
        }
        let timeout = Some(self.settings.timeout);
        let config = request.config().http_status_as_error(false).max_redirects(0);
        let config = config.timeout_connect(timeout).timeout_recv_response(timeout).timeout_per_read(timeout);
        // A proxy does not know this machine by the name that it has for itself.
        let config = if is_loopback(url) { config.proxy(None) } else { config };
        let response = config.build().call().map_err(|error| network(url, error))?;
        let header = |name: &str| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
        let (status, headers) = (response.status().as_u16(), HEADERS.map(header));
        let body = Steady::new(response.into_body().into_reader(), self.settings.timeout);
        Ok(Answer { status, headers, body: Box::new(body) })
    }

    /// What a status that is no success means. `of_file` tells a file's refusal from the model's: the
    /// hub describes a gated model to everybody, and refuses its files.
    fn refusal(&self, url: &str, answer: &Answer, of_file: bool) -> HubError {
        let HubSettings { endpoint, token, .. } = self.settings;
        let from_hub = origin(url) == origin(endpoint);
        let (id, endpoint, token) = (self.model.id().to_owned(), shown(endpoint), token.is_some());
        let said = answer.header("x-error-message").map(shortened);
        let message = said.as_ref().map(|said| format!(": {said}")).unwrap_or_default();
        let (url, status) = (shown(url), answer.status);
        let retry_after = answer.header("retry-after").filter(|_| matches!(status, 429 | 503)).and_then(pause);
        match (answer.header("x-error-code"), status) {
            (Some("GatedRepo"), _) => HubError::Gated { id, endpoint, token },
            (Some("RevisionNotFound"), _) => {
                HubError::RevisionNotFound { id, revision: self.model.revision().to_owned() }
            }
            (Some("RepoNotFound"), _) => HubError::RepoNotFound { id, endpoint, token },
            // To who shows no token the hub says of a model that is not there that it may not be seen.
            (None, 401) if !token && !of_file => HubError::RepoNotFound { id, endpoint, token },
            (None, 404) if !of_file => HubError::RepoNotFound { id, endpoint, token },
            // A content server knows nothing of tokens.
            (_, 401 | 403) if from_hub => HubError::Unauthorized { url, status, message, token },
            _ => HubError::Status { url, status, message, retry_after },
        }
    }
}

/// What is said of redirects that do not end.
const CIRCLE: &str = "redirected too many times";
/// Bytes a second that must come. With fewer, a few hundred kilobytes would take hours.
const SLOWEST: f64 = 1024.0;

/// Bytes that come in time: at least [`SLOWEST`] of them in each span of `patience`.
struct Steady<R> {
    bytes: R,
    patience: Duration,
    since: Instant,
    came: f64,
}

impl<R> Steady<R> {
    fn new(bytes: R, patience: Duration) -> Self {
        Self { bytes, patience, since: Instant::now(), came: 0.0 }
    }
}

impl<R: Read> Read for Steady<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.bytes.read(buffer)?;
        self.came += n as f64;
        let elapsed = self.since.elapsed();
        if n > 0 && elapsed > self.patience {
            if self.came < SLOWEST * elapsed.as_secs_f64() {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "fewer than a thousand bytes a second came"));
            }
            (self.since, self.came) = (Instant::now(), 0.0);
        }
        Ok(n)
    }
}

/// For `map_err`: the client's error with the address.
pub(super) fn network(url: &str, error: impl Into<Box<dyn Error + Send + Sync>>) -> HubError {
    let mut error = error.into();
    if let Some(user) = user(url).filter(|user| format!("{error} {error:?}").contains(user)) {
        error = error.to_string().replace(user, HIDDEN).into();
    }
    HubError::Network { url: shown(url), error }
}

/// Scheme, host and port, in one spelling; of an address that not everybody reads in one way something that no other has.
fn origin(url: &str) -> String {
    if url.contains('\\') {
        return url.to_owned();
    }
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme).to_ascii_lowercase();
    let authority = authority(url);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host).to_ascii_lowercase();
    let usual = match scheme.as_str() {
        "http" => ":80",
        "https" => ":443",
        _ => "",
    };
    format!("{scheme}://{}", if usual.is_empty() { &host } else { host.strip_suffix(usual).unwrap_or(&host) })
}

/// The time that `Retry-After` names: seconds, or a date.
fn pause(retry_after: &str) -> Option<Duration> {
    let text = retry_after.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?;
    let seconds = date.timestamp().as_second().saturating_sub(jiff::Timestamp::now().as_second());
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// Whether `url` is on this machine, as a mirror or a tunnel is.
fn is_loopback(url: &str) -> bool {
    let origin = origin(url);
    let host = origin.split_once("://").map_or("", |(_, host)| host);
    ["localhost", "127.0.0.1", "[::1]"]
        .iter()
        .any(|name| host.strip_prefix(name).is_some_and(|port| port.is_empty() || port.starts_with(':')))
}

/// Where `location`, in an answer to `url`, points; `None` where it leads out of HTTPS, or is in none
/// of the forms that hubs use.
fn redirected(url: &str, location: &str) -> Option<String> {
    if location.starts_with('/') && !location.starts_with("//") {
        let (scheme, _) = url.split_once("://")?;
        return Some(format!("{scheme}://{}{location}", authority(url)));
    }
    if location.contains(|c: char| c == '\\' || c == ' ' || c.is_control()) {
        return None;
    }
    let safe = location.starts_with("https://") || (location.starts_with("http://") && url.starts_with("http://"));
    safe.then(|| location.to_owned())
}

/// The name of the blob that an ETag stands for, if it is fit to be one. It is used as a path.
fn blob_name(etag: &str) -> Option<String> {
    let name = etag.trim().trim_start_matches("W/").trim_matches('"');
    let fit = (1..=128).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    fit.then(|| name.to_owned())
}

/// `text` as one segment of a URL's path.
fn escaped(text: &str) -> String {
    let mut segment = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'@' | b'+' | b'=' | b',' => {
                segment.push(char::from(byte));
            }
            _ => segment.push_str(&format!("%{byte:02X}")),
        }
    }
    segment
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port_in_one_spelling() {
        for (a, b, same) in [
            ("https://h.co", "HTTPS://H.co:443/x?y#z", true),
            ("http://h.co", "http://h.co:80", true),
            ("http://h.co", "http://user:pw@h.co/x", true),
            ("http://h.co", "http://h.co:443", false),
            ("http://h.co", "https://h.co", false),
            ("http://h.co:8080", "http://h.co:8081", false),
            ("http://h.co", "http://h.co@evil.org", false),
            ("http://h.co", "http://h.co\\@evil.org", false),
            ("http://h.co", "http://evil.org\\@h.co", false),
            ("http://h.co", "http://evil.org#@h.co", false),
            ("http://h.co", "http://h.co.evil.org", false),
        ] {
            assert_eq!(origin(a) == origin(b), same, "{a} {b}");
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let error = network("https://me:secret@h.co/x", "no host at https://me:secret@h.co");
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    #[test]
    fn a_pause_is_seconds_or_a_date() {
        assert_eq!(pause(" 7 "), Some(Duration::from_secs(7)));
        assert_eq!(pause("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert!(pause("Wed, 01 Jan 9000 00:00:00 GMT") > Some(Duration::from_secs(1 << 30)));
        for none in ["", "-1", "soon", "1e9"] {
            assert_eq!(pause(none), None, "{none}");
        }
    }

    #[test]
    fn bytes_that_hardly_come_are_not_waited_for() {
        /// A byte at a time.
        struct Drip;
        impl Read for Drip {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                std::thread::sleep(Duration::from_millis(5));
                buffer[0] = 0;
                Ok(1)
            }
        }
        let mut some = [0; 64];
        let error = Steady::new(Drip, Duration::from_millis(20)).read_exact(&mut some).expect_err("too slow");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        Steady::new(&[1_u8; 64][..], Duration::ZERO).read_exact(&mut some).expect("fast enough");
    }

    #[test]
    fn only_a_url_of_this_machine_is_one() {
        for url in ["http://localhost", "http://localhost:8080/a", "https://127.0.0.1/a", "http://[::1]:9/"] {
            assert!(is_loopback(url), "{url}");
        }
        for url in ["http://localhost.example.org", "https://huggingface.co/localhost", "http://127.0.0.10"] {
            assert!(!is_loopback(url), "{url}");
        }
    }
}
