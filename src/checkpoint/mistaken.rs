//! What people have in the place of a checkpoint's file: what stands for it, or what a server said instead of giving it.

use std::fmt;

/// Something else than the file that it is named for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistaken {
    /// The text that Git keeps in the place of a large file which was not fetched.
    LfsPointer,
    /// A page, or the message of a server.
    WebPage,
}

impl Mistaken {
    /// What a file is by its first bytes, if it is something of this kind.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
        let begins = |with: &[u8]| bytes.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with));
        if begins(b"version https://git-lfs.github.com/spec/") {
            return Some(Self::LfsPointer);
        }
        [&b"<!doctype html"[..], b"<html", b"<?xml"].into_iter().any(begins).then_some(Self::WebPage)
    }
}

impl fmt::Display for Mistaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LfsPointer => {
                "is a Git LFS pointer and not the file that it stands for: run `git lfs pull` in the folder, or fetch the file \
                 again"
            }
            Self::WebPage => "is a web page, not a checkpoint's file: a server answered so when it was fetched; fetch it again",
        })
    }
}
