//! Texts as Python writes and cuts them.

use super::{
    error::{Error, Result},
    fuel,
};

/// Python's `repr` of a float: the shortest digits that mean it, with an exponent below 1e-4 and from 1e16.
pub(super) fn float(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = format!("{value}");
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// Python's `repr` of a text, appended.
pub(super) fn write_repr(text: &str, out: &mut String) -> Result<()> {
    fuel::charge(text.len())?;
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if c == quote => {
                out.push('\\');
                out.push(c);
            }
            ' '..='~' => out.push(c),
            _ if is_printable(c)? => out.push(c),
            _ => match u32::from(c) {
                code @ 0..0x100 => out.push_str(&format!("\\x{code:02x}")),
                code @ 0x100..0x1_0000 => out.push_str(&format!("\\u{code:04x}")),
                code => out.push_str(&format!("\\U{code:08x}")),
            },
        }
    }
    out.push(quote);
    Ok(())
}

/// Whether Python prints a character as it is: it is no control, format, private or unassigned character and no
/// separator but the space.
fn is_printable(c: char) -> Result<bool> {
    // The standard library escapes what is not printable, and marks that extend the character before them.
    if c.escape_debug().len() == 1 {
        return Ok(true);
    }
    match u32::from(c) {
        0..0xb0
        | 0x1680
        | 0x2000..=0x2064
        | 0x2066..=0x206f
        | 0x3000
        | 0xd800..=0xf8ff
        | 0xfeff
        | 0xfff9..=0xfffb
        | 0xe_0001
        | 0xe_0020..=0xe_007f
        | 0xf_0000..=0x10_ffff => Ok(false),
        0x300..=0x36f | 0x1ab0..=0x1ace | 0x1dc0..=0x1dff | 0x20d0..=0x20f0 | 0xfe00..=0xfe0f | 0xe_0100..=0xe_01ef => {
            Ok(true)
        }
        code => Err(Error::refused(format!("the printed form of U+{code:04X} inside a list or a dict"))),
    }
}

/// Python's `str.splitlines`.
pub(super) fn lines(text: &str, keep_ends: bool) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut start = 0;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if !matches!(c, '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}') {
            continue;
        }
        let mut end = at + c.len_utf8();
        if c == '\r' && chars.peek().is_some_and(|&(_, next)| next == '\n') {
            chars.next();
            end += 1;
        }
        lines.push(&text[start..if keep_ends { end } else { at }]);
        start = end;
    }
    if start < text.len() {
        lines.push(&text[start..]);
    }
    lines
}

/// Python's `str.capitalize`.
pub(super) fn capitalized(text: &str) -> Result<String> {
    let mut chars = text.chars();
    let Some(first) = chars.next() else { return Ok(String::new()) };
    Ok(titled(first)? + &lower_rest(text, first.len_utf8()))
}

/// A character as it starts a title.
pub(super) fn titled(c: char) -> Result<String> {
    let upper: String = c.to_uppercase().collect();
    if upper.chars().count() > 1 || (0x1c4..=0x1f3).contains(&u32::from(c)) || (0x10d0..=0x10ff).contains(&u32::from(c))
    {
        return Err(Error::refused(format!("the title case of {c:?}")));
    }
    Ok(upper)
}

/// What follows the first `skip` bytes, in lower case, with a sigma as it is at the end of a word.
fn lower_rest(text: &str, skip: usize) -> String {
    let first: String = text[..skip].to_lowercase();
    let all = text.to_lowercase();
    all.strip_prefix(first.as_str()).map_or_else(|| text[skip..].to_lowercase(), str::to_owned)
}

/// Bytes where the character with this index starts; the length of the text beyond its end.
pub(super) fn offset(text: &str, index: usize) -> usize {
    text.char_indices().nth(index).map_or(text.len(), |(at, _)| at)
}

/// Python's `str.isupper` or `str.islower`: some letter has this case and none the other.
pub(super) fn is_case(text: &str, upper: bool) -> bool {
    type Is = fn(char) -> bool;
    let (is, is_not): (Is, Is) =
        if upper { (char::is_uppercase, char::is_lowercase) } else { (char::is_lowercase, char::is_uppercase) };
    text.chars().any(is) && !text.chars().any(is_not)
}
