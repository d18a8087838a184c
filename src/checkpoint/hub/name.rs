//! What `--model` may say.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use super::super::{demo, json::shortened};

/// The branch that a hub id without a revision means.
const MAIN: &str = "main";
/// The longest hub id.
const LONGEST: usize = 96;

/// A model as the user names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelName {
    /// The model inside the program.
    Demo,
    /// A folder that exists.
    Folder(PathBuf),
    /// A model of the hub.
    Hub(HubModel),
}

/// `org/name`, at a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubModel {
    id: String,
    revision: Option<String>,
}

/// Why a text does not name a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelNameError {
    /// A file has this name.
    #[error("{} is a file; give the folder that holds config.json and model.safetensors", .path.display())]
    NotAFolder {
        /// The path given.
        path: PathBuf,
    },
    /// A path, and nothing is there.
    #[error("there is no folder {}; a model is a folder, a hub id such as org/name, or `demo`", .path.display())]
    NoSuchFolder {
        /// The path given.
        path: PathBuf,
    },
    /// Neither a folder nor an id.
    #[error(
        "`{text}` is no folder here and no hub id, because {reason}; a model is a folder, org/name[@revision], or `demo`"
    )]
    NeitherFolderNorId {
        /// The text, shortened.
        text: String,
        /// Why it is no hub id.
        reason: &'static str,
    },
    /// A hub id at something that cannot be a revision.
    #[error("`{revision}` in `{text}` is no revision, because {reason}; give a branch, a tag, refs/pr/N or a commit")]
    Revision {
        /// The whole text, shortened.
        text: String,
        /// What follows the `@`, shortened.
        revision: String,
        /// Why the text after `@` cannot be a revision.
        reason: &'static str,
    },
}

impl ModelName {
    /// `demo`; or else a folder that exists, seen from the working directory; or else a hub id,
    /// `org/name` or `org/name@revision`. A folder named `demo` is `./demo`.
    ///
    /// # Errors
    /// Any [`ModelNameError`], which says what was tried.
    pub fn parse(text: &str) -> Result<Self, ModelNameError> {
        if text == demo::NAME {
            return Ok(Self::Demo);
        }
        let path = Path::new(text);
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => return Ok(Self::Folder(path.to_owned())),
            Ok(_) => return Err(ModelNameError::NotAFolder { path: path.to_owned() }),
            Err(_) => {}
        }
        let (id, revision) = match text.split_once('@') {
            Some((id, revision)) => (id, Some(revision)),
            None => (text, None),
        };
        // A mistyped path is told as one, rather than by the rules of hub ids.
        let looks_like_path = id.starts_with(['.', '/', '~', '\\']) || id.ends_with('/') || id.matches('/').count() > 1;
        if looks_like_path {
            return Err(ModelNameError::NoSuchFolder { path: path.to_owned() });
        }
        if let Err(reason) = check_id(id) {
            return Err(ModelNameError::NeitherFolderNorId { text: shortened(text), reason });
        }
        if let Some(revision) = revision
            && let Err(reason) = check_revision(revision)
        {
            let (text, revision) = (shortened(text), shortened(revision));
            return Err(ModelNameError::Revision { text, revision, reason });
        }
        Ok(Self::Hub(HubModel { id: id.to_owned(), revision: revision.map(str::to_owned) }))
    }
}

impl HubModel {
    /// `org/name`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The branch, tag, ref or commit: `main` where none is named.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(MAIN)
    }

    /// The commit, where the name pins one.
    pub(super) fn pinned(&self) -> Option<&str> {
        self.revision.as_deref().filter(|revision| is_commit(revision))
    }
}

impl fmt::Display for HubModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.revision {
            Some(revision) => write!(f, "{}@{revision}", self.id),
            None => f.write_str(&self.id),
        }
    }
}

/// Whether `text` is a whole commit: 40 digits, base 16, in lower case.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The hub's own rules. `--` is what separates org and name in the cache, so no id may hold it.
fn check_id(id: &str) -> Result<(), &'static str> {
    let Some((org, name)) = id.split_once('/') else { return Err("it has no `/` between organization and name") };
    if id.len() > LONGEST {
        return Err("it is longer than 96 characters");
    }
    if !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/')) {
        return Err("an id has only ASCII letters, digits, `-`, `_` and `.`");
    }
    if id.contains("--") || id.contains("..") {
        return Err("an id has neither `--` nor `..`");
    }
    for part in [org, name] {
        if part.is_empty() {
            return Err("organization or name is empty");
        }
        if part.starts_with(['-', '.']) || part.ends_with(['-', '.']) {
            return Err("neither organization nor name begins or ends with `-` or `.`");
        }
    }
    if name.ends_with(".git") {
        return Err("a name does not end with .git");
    }
    Ok(())
}

/// Git's rules for the name of a ref, which also make it a safe path in the cache.
fn check_revision(revision: &str) -> Result<(), &'static str> {
    if revision.is_empty() {
        return Err("nothing follows the @");
    }
    if revision.len() > 200 {
        return Err("it is longer than 200 bytes");
    }
    if revision.contains(|c: char| c.is_control() || c.is_whitespace() || "~^:?*[\\\"<>|".contains(c)) {
        return Err("it has a character that no ref has");
    }
    if revision.contains("..") || revision.contains("@{") {
        return Err("no ref has `..` or `@{`");
    }
    for part in revision.split('/') {
        if part.is_empty() || part.starts_with(['.', '-']) || part.ends_with('.') || part.ends_with(".lock") {
            return Err("a part between slashes is empty, begins with `.` or `-`, or ends with `.` or `.lock`");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_demo_a_folder_or_an_id() {
        assert_eq!(ModelName::parse("demo"), Ok(ModelName::Demo));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        assert_eq!(ModelName::parse(path), Ok(ModelName::Folder(folder.path().to_owned())));
        // A folder goes before an id: cargo runs tests in the package's folder.
        assert_eq!(ModelName::parse("src/checkpoint"), Ok(ModelName::Folder("src/checkpoint".into())));
        let ids = [
            ("mlx-community/Meta-Llama-3-8B-Instruct-4bit", "mlx-community/Meta-Llama-3-8B-Instruct-4bit", "main"),
            ("a/b@main", "a/b", "main"),
            ("Org_1/m.o-d_el@refs/pr/1", "Org_1/m.o-d_el", "refs/pr/1"),
            ("a/b@feature@2", "a/b", "feature@2"),
        ];
        for (text, id, revision) in ids {
            let Ok(ModelName::Hub(model)) = ModelName::parse(text) else { panic!("{text}") };
            assert_eq!((model.id(), model.revision(), model.to_string().as_str()), (id, revision, text));
        }
    }

    #[test]
    fn what_names_no_model_is_told_why() {
        for text in ["./nothing", "/no/such/folder", "~/models", "a/b/c", "a/b/", "../x@main"] {
            assert!(matches!(ModelName::parse(text), Err(ModelNameError::NoSuchFolder { .. })), "{text}");
        }
        assert!(matches!(ModelName::parse("Cargo.toml"), Err(ModelNameError::NotAFolder { .. })));
        let long = format!("org/{}", "x".repeat(97));
        for text in
            ["", "gpt2", "a b/c", "org/na--me", "org/a..b", "-a/b", "a/b.", "a/b.git", "org/naïve", "a\\b/c", &long]
        {
            let error = ModelName::parse(text).unwrap_err();
            assert!(matches!(error, ModelNameError::NeitherFolderNorId { .. }), "{text}: {error}");
            assert!(error.to_string().contains("no folder") && error.to_string().contains("demo"), "{error}");
        }
        for revision in
            ["", "..", "a..b", "/main", "main/", "a//b", ".hidden", "a b", "a:b", "a\0", "x.lock", "-x", "a\\b"]
        {
            let error = ModelName::parse(&format!("a/b@{revision}")).unwrap_err();
            assert!(matches!(error, ModelNameError::Revision { .. }), "{revision:?}: {error}");
        }
    }

    #[test]
    fn a_commit_has_forty_digits_of_base_16_in_lower_case() {
        let commit = "0123456789abcdef".repeat(3)[..40].to_owned();
        assert!(is_commit(&commit));
        for text in [&commit[1..], &format!("{commit}0"), &commit.to_uppercase(), &commit.replace('a', "g"), ""] {
            assert!(!is_commit(text), "{text}");
        }
    }

    #[test]
    fn a_revision_has_at_most_two_hundred_bytes() {
        let with = |len: usize| ModelName::parse(&format!("a/b@{}", "x".repeat(len)));
        assert!(with(200).is_ok() && with(201).is_err() && with(400).is_err());
    }
}
