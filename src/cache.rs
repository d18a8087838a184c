//! What is kept between runs to save time, all of which can be computed again.

use std::{
    env,
    ffi::OsString,
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use crate::temporary::Temporary;

/// The folder that this process's environment names, if any.
pub(crate) fn folder() -> Option<PathBuf> {
    cache_folder(|name| env::var_os(name), env::home_dir())
}

/// Writes an entry, whole. Runs that write one at the same time write the same, so nothing is locked.
pub(crate) fn write_whole(path: &Path, contents: &[u8]) -> std::io::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
    let mut entry = Temporary::beside(path)?;
    entry.file().write_all(contents)?;
    entry.move_to(path).map(drop)
}

/// The cache's folder: `HEADROOM_CACHE`, or `headroom` in `XDG_CACHE_HOME`, or `.cache/headroom` in
/// `home`. Empty variables count as unset, and so does a relative `XDG_CACHE_HOME`, as its
/// specification asks.
fn cache_folder(variable: impl Fn(&str) -> Option<OsString>, home: Option<PathBuf>) -> Option<PathBuf> {
    let set = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(own) = set("HEADROOM_CACHE") {
        return Some(own);
    }
    let shared = set("XDG_CACHE_HOME").filter(|path| path.is_absolute());
    Some(shared.or_else(|| home.map(|home| home.join(".cache")))?.join("headroom"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_cache_lies_where_the_environment_says() {
        let folder = |variables: &[(&str, &str)]| {
            let variables: BTreeMap<_, _> = variables.iter().copied().collect();
            cache_folder(|name| variables.get(name).map(OsString::from), Some(PathBuf::from("/home/x")))
        };
        assert_eq!(folder(&[]), Some("/home/x/.cache/headroom".into()));
        assert_eq!(folder(&[("XDG_CACHE_HOME", "/c")]), Some("/c/headroom".into()));
        assert_eq!(folder(&[("XDG_CACHE_HOME", "relative")]), Some("/home/x/.cache/headroom".into()));
        assert_eq!(folder(&[("XDG_CACHE_HOME", "/c"), ("HEADROOM_CACHE", "here")]), Some("here".into()));
        assert_eq!(folder(&[("XDG_CACHE_HOME", ""), ("HEADROOM_CACHE", "")]), Some("/home/x/.cache/headroom".into()));
        assert_eq!(cache_folder(|_| None, None), None);
    }
}
