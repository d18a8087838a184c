//! Files of prompts: text, lines of JSON, a list in JSON, or standard input.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use anyhow::{Context, Result, anyhow, bail};
use serde::{Deserialize, de::IgnoredAny};

/// Bytes that are read at most. A prompt of a million tokens has some 5 MB.
const MOST: u64 = 128 << 20;
/// Prompts of a file at most: each costs some hundred bytes of memory, however short it is.
const MOST_PROMPTS: usize = 1_000_000;
/// Values of a file in JSON at most, counted by its commas.
const MOST_VALUES: usize = 4 << 20;

/// Files that hold prompts in a form of their own, which would be taken for text otherwise.
const OTHER_KINDS: [&str; 14] =
    ["csv", "tsv", "yaml", "yml", "toml", "xml", "html", "parquet", "arrow", "xlsx", "gz", "zip", "zst", "pdf"];

/// A prompt of a file, and what a right response holds.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    pub(super) prompt: String,
    #[serde(default)]
    pub(super) expected: Vec<String>,
}

/// How prompts are written.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Text,
    Lines,
    List,
}

/// The prompts of a file, each with the place to name in a message. `-` is standard input.
pub(super) fn prompts_of(file: &Path) -> Result<Vec<(String, Line)>> {
    let stdin = file.as_os_str() == "-";
    let name = if stdin { "standard input".to_owned() } else { file.display().to_string() };
    let extension = file.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    if let Some(kind) = extension.as_deref().filter(|kind| OTHER_KINDS.contains(kind)) {
        bail!("{name} is a .{kind} file; prompts are read from text (one on each line), .jsonl, .ndjson and .json");
    }
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let source: Box<dyn Read> = if stdin { Box::new(io::stdin().lock()) } else { Box::new(File::open(file)?) };
        source.take(MOST + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().with_context(|| format!("cannot read {name}"))?;
    if bytes.len() as u64 > MOST {
        bail!("{name} has more than the {MOST} bytes that are read of prompts");
    }
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        bail!("{name} is written in UTF-16; save it as UTF-8");
    }
    // The mark of UTF-8 that some editors begin a file with belongs to no prompt.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count() + 1;
        anyhow!("{name}, line {line}: not UTF-8")
    })?;
    let kind = kind(extension.as_deref(), stdin, text);
    if kind != Kind::Text && text.bytes().filter(|&byte| byte == b',').count() > MOST_VALUES {
        bail!("{name} has more than the {MOST_VALUES} values that are read of prompts in JSON");
    }
    let prompts = match kind {
        Kind::List => list(&name, text),
        kind => lines(&name, text, kind),
    }?;
    if prompts.len() > MOST_PROMPTS {
        bail!("{name} has more than {MOST_PROMPTS} prompts; run them in several files");
    }
    Ok(prompts)
}

fn kind(extension: Option<&str>, stdin: bool, text: &str) -> Kind {
    match extension {
        Some("json") => Kind::List,
        Some("jsonl" | "ndjson") => Kind::Lines,
        // It has no name that says what it is.
        _ if stdin && text.trim_start().starts_with("{\"") => Kind::Lines,
        _ if stdin && text.trim_start().starts_with('[') && serde_json::from_str::<Vec<IgnoredAny>>(text).is_ok() => {
            Kind::List
        }
        _ => Kind::Text,
    }
}

fn lines(name: &str, text: &str, kind: Kind) -> Result<Vec<(String, Line)>> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .take(MOST_PROMPTS + 1)
        .map(|(i, line)| {
            let place = format!("{name}, line {}:", i + 1);
            let parsed = match kind {
                Kind::Lines => serde_json::from_str(line)
                    .map_err(|error| anyhow!("{place} not a prompt in JSON: {}", in_line(&error)))?,
                Kind::Text | Kind::List => Line { prompt: line.to_owned(), expected: Vec::new() },
            };
            Ok((place, parsed))
        })
        .collect()
}

fn list(name: &str, text: &str) -> Result<Vec<(String, Line)>> {
    let items: Vec<serde_json::Value> = serde_json::from_str(text).map_err(|error| {
        anyhow!("{name}: not a list of prompts in JSON, [\"...\", {{\"prompt\": \"...\", \"expected\": [\"...\"]}}]: {error}")
    })?;
    items
        .into_iter()
        .enumerate()
        .map(|(i, item)| {
            let place = format!("{name}, entry {}:", i + 1);
            let line = match item {
                serde_json::Value::String(prompt) => Line { prompt, expected: Vec::new() },
                item => {
                    serde_json::from_value(item).map_err(|error| anyhow!("{place} not a prompt in JSON: {error}"))?
                }
            };
            Ok((place, line))
        })
        .collect()
}

/// An error in a line of JSON by its column: the parser's own line number, always 1, would be taken for the file's.
fn in_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&place).map_or(text.clone(), |what| format!("{what} at column {}", error.column()))
}
