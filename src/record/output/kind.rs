//! What a file holds, told by its first bytes: something that headroom wrote, or something else.

use crate::record::{SCHEMA, compressed};

/// As many bytes of a file tell what it holds.
pub(super) const TELLING: u64 = 4096;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing.
    Empty,
    /// Records, as `--out`, `merge` and `relabel` write them.
    Records,
    /// Certificates, a line for each, as `certify --out` writes them into a journal.
    Certificates,
    /// A recipe, as `certify --out` writes it.
    Recipe,
    /// The object of a command, as `--format json` prints it.
    Object,
    /// A page, as `report -o` writes it.
    Page,
    /// Something that headroom did not write.
    Foreign,
}

/// Commands whose `--format json` begins with their name.
const COMMANDS: [&str; 14] = [
    "ladder", "probe", "sweep", "bisect", "map", "campaign", "replay", "compare", "certify", "relabel", "merge",
    "inspect", "verify", "pull",
];

impl Kind {
    /// What a file holds that begins with `first`: all of its bytes, or the first few thousand.
    pub(crate) fn of(first: &[u8]) -> Self {
        let object = |command: &&str| first.starts_with(format!("{{\"command\":\"{command}\",").as_bytes());
        if first.is_empty() {
            Self::Empty
        } else if is_record(first) || (compressed::is_ours(first) && first.len() >= compressed::TITLE_BYTES) {
            Self::Records
        } else if is_certificate(first) {
            Self::Certificates
        } else if follows(first, &["{", "\"schema\"", ":", NUMBER, ",", "\"recipe\"", ":", "["]) {
            Self::Recipe
        } else if COMMANDS.iter().any(object) {
            Self::Object
        } else if is_page(first) {
            Self::Page
        } else {
            Self::Foreign
        }
    }
}

/// The head of `report/page/report.html.jinja`.
fn is_page(first: &[u8]) -> bool {
    let Some(head) = first.strip_prefix(b"<!DOCTYPE html>\n") else { return false };
    let generator = b"<meta name=\"generator\" content=\"headroom ";
    head[..head.len().min(1024)].windows(generator.len()).any(|window| window == generator)
}

/// In a list for [`follows`] any natural number.
const NUMBER: &str = "0";

/// Whether the first line begins as a record's does: with its first three keys in their order.
pub(in crate::record) fn is_record(first: &[u8]) -> bool {
    let keys = ["{", "\"schema\"", ":", NUMBER, ",", "\"trial\"", ":", NUMBER, ",", "\"model\"", ":", "\""];
    follows(first.trim_ascii_start(), &keys)
}

/// As [`is_record`], of a certificate.
pub(in crate::record) fn is_certificate(first: &[u8]) -> bool {
    let keys = ["{", "\"schema\"", ":", NUMBER, ",", "\"certificate\"", ":", NUMBER, ",", "\"model\"", ":", "\""];
    follows(first.trim_ascii_start(), &keys)
}

/// Whether `bytes` are the first bytes of a certificate as this program writes it, cut short within its first keys.
pub(crate) fn is_beginning_of_a_certificate(bytes: &[u8]) -> bool {
    let opening = format!("{{\"schema\":{SCHEMA},\"certificate\":");
    let (opening, model) = (opening.as_bytes(), b",\"model\":\"");
    let digits = bytes.get(opening.len()..).unwrap_or_default();
    let digits = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let rest = bytes.get(opening.len() + digits..).unwrap_or_default();
    !bytes.is_empty() && bytes.iter().zip(opening).all(|(a, b)| a == b) && rest.iter().zip(model).all(|(a, b)| a == b)
}

/// Whether `bytes` begin with these tokens of JSON, with or without space between them, as a file has that another
/// tool wrote again.
fn follows(mut bytes: &[u8], tokens: &[&str]) -> bool {
    for &token in tokens {
        bytes = bytes.trim_ascii_start();
        let length = match token {
            NUMBER => bytes.iter().take_while(|byte| byte.is_ascii_digit()).count(),
            _ if bytes.starts_with(token.as_bytes()) => token.len(),
            _ => 0,
        };
        if length == 0 {
            return false;
        }
        bytes = &bytes[length..];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_headroom_wrote_is_told_from_everything_else() {
        for (first, kind) in [
            ("", Kind::Empty),
            ("{\"schema\":1,\"trial\":12,\"model\":\"demo\"", Kind::Records),
            ("\n{\"schema\": 2, \"trial\": 0, \"model\": \"x\"}", Kind::Records),
            ("{\"schema\":1,\"recipe\":[\n\n]}\n", Kind::Recipe),
            ("{\"schema\":1,\"certificate\":3,\"model\":\"demo\",", Kind::Certificates),
            ("{\"command\":\"certify\",\"schema\":1", Kind::Object),
            ("<!DOCTYPE html>\n<html><meta name=\"generator\" content=\"headroom 0.1.0\">", Kind::Page),
        ] {
            assert_eq!(Kind::of(first.as_bytes()), kind, "{first}");
        }
        assert_eq!(Kind::of(&compressed::title("ab")), Kind::Records);
        assert_eq!(Kind::of(&compressed::frame(b"notes")), Kind::Foreign);
        for foreign in [
            " ",
            "\n",
            "my notes",
            "{",
            "{}",
            "{\"schema\":1}",
            "{\"schema\":1,\"trial\":0",
            "{\"schema\":\"1\",\"trial\":0,\"model\":\"\"",
            "{\"trial\":0,\"schema\":1,\"model\":\"\"",
            "{\"schema\":1,\"trial\":0,\"model\":7",
            "[{\"schema\":1,\"trial\":0,\"model\":\"\"",
            "{\"command\":\"build\",",
            "{\"model_type\":\"llama\"}",
            "<!DOCTYPE html>\n<html><title>headroom</title>",
            "<!doctype html><meta name=\"generator\" content=\"Hugo\">",
            "\u{1f}\u{8b}",
            "PK\u{3}\u{4}",
        ] {
            assert_eq!(Kind::of(foreign.as_bytes()), Kind::Foreign, "{foreign}");
        }
    }
}
