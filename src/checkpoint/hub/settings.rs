//! Where the hub is, where its cache is, and who asks.

use std::{env, ffi::OsString, fmt, fs, path::PathBuf, time::Duration};

use super::{HubError, url::shown};

/// The public hub.
const ENDPOINT: &str = "https://huggingface.co";

/// What the environment says about the hub. Nothing in [`hub`](super) reads the environment itself.
#[derive(Clone, PartialEq, Eq)]
pub struct HubSettings {
    /// The cache's folder, which holds `models--org--name`.
    pub cache: PathBuf,
    /// Base address of the hub, without a slash at the end.
    pub endpoint: String,
    /// Sent to the endpoint, and to nothing else.
    pub token: Option<String>,
    /// Whether the network is forbidden.
    pub offline: bool,
    /// How many attempts in a row may fail without keeping a byte more of a file before its download is given
    /// up. With 0 the first failure is final.
    pub retries: u32,
    /// Pause before the next attempt; doubled after each that brought nothing.
    pub pause: Duration,
    /// How long to wait for a connection, for an answer, and for the next bytes of one; and the span in which 1,024 bytes
    /// for each of its seconds must come.
    pub timeout: Duration,
}

impl HubSettings {
    /// With this cache, and otherwise as an empty environment has it.
    pub fn new(cache: PathBuf) -> Self {
        Self {
            cache,
            endpoint: ENDPOINT.to_owned(),
            token: None,
            offline: false,
            retries: 4,
            pause: Duration::from_secs(1),
            timeout: Duration::from_secs(30),
        }
    }

    /// As Hugging Face's own tools read the environment. An empty variable is an unset one.
    ///
    /// | what | the first that is set |
    /// | --- | --- |
    /// | home | `HF_HOME`, `$XDG_CACHE_HOME/huggingface`, `~/.cache/huggingface` |
    /// | cache | `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE`, `hub` in home |
    /// | endpoint | `HF_ENDPOINT`, `https://huggingface.co` |
    /// | token | `HF_TOKEN`, `HUGGING_FACE_HUB_TOKEN`, the file `HF_TOKEN_PATH`, the file `token` in home |
    /// | offline | `HF_HUB_OFFLINE` or `TRANSFORMERS_OFFLINE` is `1`, `on`, `yes` or `true` |
    ///
    /// With `HF_HUB_DISABLE_IMPLICIT_TOKEN` the token's file is not read.
    ///
    /// # Errors
    /// [`HubError::NoCacheFolder`].
    pub fn from_env() -> Result<Self, HubError> {
        Self::from_lookup(|name| env::var_os(name), env::home_dir())
    }

    /// As [`from_env`](Self::from_env), of an environment and a home that are given.
    ///
    /// # Errors
    /// [`HubError::NoCacheFolder`] if neither a variable nor `user_home` says where the cache is.
    pub(crate) fn from_lookup(
        lookup: impl Fn(&str) -> Option<OsString>,
        user_home: Option<PathBuf>,
    ) -> Result<Self, HubError> {
        let set = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let path = |name: &str| -> Option<PathBuf> {
            let path = PathBuf::from(set(name)?);
            // Dockerfiles and .env files set these without a shell that would expand the tilde.
            match (path.strip_prefix("~"), &user_home) {
                (Ok(rest), Some(home)) => Some(home.join(rest)),
                _ => Some(path),
            }
        };
        let text = |name: &str| {
            let text = set(name)?.to_string_lossy().trim().to_owned();
            (!text.is_empty()).then_some(text)
        };
        let is_on = |name: &str| {
            text(name).is_some_and(|value| ["1", "on", "yes", "true"].contains(&value.to_lowercase().as_str()))
        };

        let home = path("HF_HOME")
            .or_else(|| Some(path("XDG_CACHE_HOME")?.join("huggingface")))
            .or_else(|| Some(user_home.as_ref()?.join(".cache").join("huggingface")));
        let cache = path("HF_HUB_CACHE")
            .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| Some(home.as_ref()?.join("hub")))
            .ok_or(HubError::NoCacheFolder)?;
        let token_file = || {
            if is_on("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
                return None;
            }
            let file = path("HF_TOKEN_PATH").or_else(|| Some(home?.join("token")))?;
            // Without a readable file there is no token, which is the usual case.
            let token = fs::read_to_string(file).ok()?.trim().to_owned();
            (!token.is_empty()).then_some(token)
        };
        let token = text("HF_TOKEN").or_else(|| text("HUGGING_FACE_HUB_TOKEN")).or_else(token_file);
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned()).trim_end_matches('/').to_owned();
        let offline = is_on("HF_HUB_OFFLINE") || is_on("TRANSFORMERS_OFFLINE");
        Ok(Self { endpoint, token, offline, ..Self::new(cache) })
    }
}

impl fmt::Debug for HubSettings {
    /// Without the token, which has no place in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cache, endpoint, token, offline, retries, pause, timeout } = self;
        f.debug_struct("HubSettings")
            .field("cache", cache)
            .field("endpoint", &shown(endpoint))
            .field("token", &token.as_ref().map(|_| "(hidden)"))
            .field("offline", offline)
            .field("retries", retries)
            .field("pause", pause)
            .field("timeout", timeout)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn settings(variables: &[(&str, &str)], home: Option<&str>) -> Result<HubSettings, HubError> {
        let lookup =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value));
        HubSettings::from_lookup(lookup, home.map(PathBuf::from))
    }

    #[test]
    fn the_cache_is_where_hugging_faces_own_tools_have_it() {
        let cases: [(&[(&str, &str)], &str); 8] = [
            (&[], "/u/.cache/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub"),
            (&[("HF_HOME", "/h"), ("XDG_CACHE_HOME", "/x")], "/h/hub"),
            (&[("HF_HOME", "~/h")], "/u/h/hub"),
            (&[("HF_HOME", "")], "/u/.cache/huggingface/hub"),
            (&[("HF_HUB_CACHE", "/c"), ("HF_HOME", "/h")], "/c"),
            (&[("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HOME", "/h")], "/old"),
            (&[("HF_HUB_CACHE", "/c"), ("HUGGINGFACE_HUB_CACHE", "/old")], "/c"),
        ];
        for (variables, cache) in cases {
            assert_eq!(settings(variables, Some("/u")).unwrap().cache, Path::new(cache), "{variables:?}");
        }
        assert_eq!(settings(&[("HF_HUB_CACHE", "/c")], None).unwrap().cache, Path::new("/c"));
        assert!(matches!(settings(&[], None), Err(HubError::NoCacheFolder)));
    }

    #[test]
    fn endpoint_and_offline_come_from_the_environment() {
        let none = settings(&[], Some("/u")).unwrap();
        assert_eq!((none.endpoint.as_str(), none.offline), ("https://huggingface.co", false));
        assert_eq!(settings(&[("HF_ENDPOINT", "https://m.org/")], Some("/u")).unwrap().endpoint, "https://m.org");
        for (value, offline) in
            [("1", true), ("true", true), ("YES", true), ("On", true), ("0", false), ("", false), ("no", false)]
        {
            for name in ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"] {
                assert_eq!(settings(&[(name, value)], Some("/u")).unwrap().offline, offline, "{name}={value}");
            }
        }
    }

    #[test]
    fn the_token_is_the_variable_or_the_file_and_never_shown() {
        let home = tempfile::tempdir().unwrap();
        let at = home.path().to_str().unwrap();
        let token =
            |variables: &[(&str, &str)]| settings(&[&[("HF_HOME", at)], variables].concat(), None).unwrap().token;
        assert_eq!(token(&[]), None);
        fs::write(home.path().join("token"), "hf_file\n").unwrap();
        fs::write(home.path().join("other"), "hf_other").unwrap();
        let other = home.path().join("other");
        assert_eq!(token(&[]).as_deref(), Some("hf_file"));
        assert_eq!(token(&[("HF_TOKEN", " hf_variable ")]).as_deref(), Some("hf_variable"));
        assert_eq!(token(&[("HF_TOKEN", "")]).as_deref(), Some("hf_file"));
        assert_eq!(token(&[("HF_TOKEN_PATH", other.to_str().unwrap())]).as_deref(), Some("hf_other"));
        assert_eq!(token(&[("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
        let shown = format!("{:?}", settings(&[("HF_TOKEN", "hf_variable")], Some("/u")).unwrap());
        assert!(!shown.contains("hf_variable") && shown.contains("hidden"), "{shown}");
    }
}
