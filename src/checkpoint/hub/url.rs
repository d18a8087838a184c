//! The parts of an address, and what of it may be shown.

/// What stands for a user's name and password.
pub(super) const HIDDEN: &str = "(hidden)";

/// `url` as it may be shown: without its query, which is the key to a file at a content server, and without the name and
/// password that it may hold.
pub(super) fn shown(url: &str) -> String {
    let bare = url.split(['?', '#']).next().unwrap_or(url);
    user(bare).map_or_else(|| bare.to_owned(), |user| bare.replacen(user, HIDDEN, 1))
}

/// The name and password before the host.
pub(super) fn user(url: &str) -> Option<&str> {
    let authority = authority(url);
    authority.rfind('@').map(|at| &authority[..at]).filter(|user| !user.is_empty())
}

/// What stands between the scheme and the path.
pub(super) fn authority(url: &str) -> &str {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url[start..].find(['/', '?', '#']).map_or(url.len(), |at| start + at);
    &url[start..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_a_query_nor_a_password_is_shown() {
        for (url, seen) in [
            ("https://me:secret@h.co/x?key=y", "https://(hidden)@h.co/x"),
            ("https://me@also:secret@h.co", "https://(hidden)@h.co"),
            ("https://h.co/a@b#c", "https://h.co/a@b"),
            ("me:secret@h.co/x", "(hidden)@h.co/x"),
            ("", ""),
        ] {
            assert_eq!(shown(url), seen);
        }
    }
}
