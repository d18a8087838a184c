//! Template text to tokens, with jinja2's rules of white space: blocks are trimmed and left-stripped, line ends
//! become `\n`, and one line end at the end of the template is dropped.

use super::error::{Error, Result};

/// A token and its line, from 1.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub(super) line: usize,
    pub(super) kind: TokenKind,
}

/// What a token is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum TokenKind {
    /// Text between tags.
    Data(String),
    BlockBegin,
    BlockEnd,
    VariableBegin,
    VariableEnd,
    Name(String),
    Text(String),
    Int(i64),
    Float(f64),
    /// One of the operators and brackets, as it is written.
    Operator(&'static str),
    End,
}

const OPERATORS: [&str; 26] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<", "=", ".",
    ":", "|", ",", ";",
];

/// What Python's `str.isspace` and `\s` take for white space.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// Line ends of every kind become `\n`; a single one at the end is dropped.
fn normalized(source: &str) -> String {
    let mut text = source.replace("\r\n", "\n").replace('\r', "\n");
    if text.ends_with('\n') {
        text.pop();
    }
    text
}

/// The tokens of a template, `TokenKind::End` last.
pub(super) fn tokens(source: &str) -> Result<Vec<Token>> {
    let source = normalized(source);
    let mut lexer = Lexer { source: &source, position: 0, line: 1, counted: 0, line_starts: true, tokens: Vec::new() };
    lexer.run()?;
    Ok(lexer.tokens)
}

struct Lexer<'a> {
    source: &'a str,
    position: usize,
    line: usize,
    /// Where line ends are counted up to.
    counted: usize,
    /// Whether the last match ended with a line end: white space before a block may be stripped.
    line_starts: bool,
    tokens: Vec<Token>,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.source[self.position..]
    }

    fn line_at(&mut self, position: usize) -> usize {
        let newlines = self.source[self.counted..position.max(self.counted)].matches('\n').count();
        self.line += newlines;
        self.counted = position.max(self.counted);
        self.line
    }

    fn push(&mut self, at: usize, kind: TokenKind) {
        let line = self.line_at(at);
        self.tokens.push(Token { line, kind });
    }

    fn fail<T>(&mut self, message: impl Into<String>) -> Result<T> {
        let line = self.line_at(self.position);
        Err(Error::fails(message).at(line))
    }

    fn advance(&mut self, len: usize) {
        if len > 0 {
            self.line_starts = self.source[..self.position + len].ends_with('\n');
        }
        self.position += len;
    }

    /// Skips white space.
    fn skip_space(&mut self) {
        let rest = self.rest();
        self.advance(rest.len() - rest.trim_start_matches(is_space).len());
    }

    fn run(&mut self) -> Result<()> {
        while let Some(found) = self.rest().find('{') {
            // The first `{` that starts a tag.
            let mut offset = found;
            let start = loop {
                match self.rest().as_bytes().get(offset + 1) {
                    Some(b'%' | b'{' | b'#') => break Some(offset),
                    _ => match self.rest()[offset + 1..].find('{') {
                        Some(next) => offset += 1 + next,
                        None => break None,
                    },
                }
            };
            let Some(start) = start else { break };
            self.tag(start)?;
        }
        if !self.rest().is_empty() {
            let text = self.rest().to_owned();
            self.push(self.position, TokenKind::Data(text));
        }
        self.push(self.source.len(), TokenKind::End);
        Ok(())
    }

    /// The text before a tag that starts `start` bytes on, and the tag.
    fn tag(&mut self, start: usize) -> Result<()> {
        let rest = self.rest();
        let tag = &rest[start..];
        let raw = raw_length(tag, "raw", false).filter(|_| tag.starts_with("{%"));
        let sign = tag[2..].chars().next().filter(|c| matches!(c, '-' | '+'));
        let variable = tag.starts_with("{{");
        self.data(start, sign, !variable);
        let begins = self.position;
        if let Some(len) = raw {
            self.advance(len);
            return self.raw();
        }
        let line = self.line_at(begins);
        self.advance(2 + usize::from(sign.is_some()));
        if tag.starts_with("{#") {
            let Some(end) = self.rest().find("#}") else {
                // Where nothing at all follows jinja2 does not notice.
                return if self.rest().is_empty() { Ok(()) } else { self.fail("missing end of comment tag") };
            };
            let sign = self.rest()[..end].chars().next_back();
            self.advance(end + 2);
            self.after(if end == 0 { None } else { sign }, true);
            return Ok(());
        }
        let (begin, end) = if variable {
            (TokenKind::VariableBegin, TokenKind::VariableEnd)
        } else {
            (TokenKind::BlockBegin, TokenKind::BlockEnd)
        };
        self.tokens.push(Token { line, kind: begin });
        self.expression(variable, &end)
    }

    /// What follows the end of a tag: all white space after `-`, one line end after a block or comment.
    fn after(&mut self, sign: Option<char>, block: bool) {
        match sign {
            Some('-') => self.skip_space(),
            Some('+') => {}
            _ if block && self.rest().starts_with('\n') => self.advance(1),
            _ => {}
        }
    }

    /// The text up to a tag, without the white space that the tag takes away.
    fn data(&mut self, len: usize, sign: Option<char>, strips: bool) {
        let text = &self.rest()[..len];
        let kept = match sign {
            Some('-') => text.trim_end_matches(is_space),
            Some(_) => text,
            None if strips => {
                let line = text.rfind('\n').map_or(0, |newline| newline + 1);
                let at_start = line > 0 || self.line_starts;
                if at_start && text[line..].chars().all(is_space) { &text[..line] } else { text }
            }
            None => text,
        };
        if !kept.is_empty() {
            self.push(self.position, TokenKind::Data(kept.to_owned()));
        }
        self.position += len;
    }

    /// The text of a raw block up to and with its end.
    fn raw(&mut self) -> Result<()> {
        let mut offset = 0;
        if self.rest().is_empty() {
            return Ok(());
        }
        loop {
            let Some(found) = self.rest()[offset..].find("{%") else {
                return self.fail("missing end of raw directive");
            };
            let start = offset + found;
            let tag = &self.rest()[start..];
            if let Some(len) = raw_length(tag, "endraw", true) {
                let sign = tag[2..].chars().next().filter(|c| matches!(c, '-' | '+'));
                self.data(start, sign, true);
                self.advance(len);
                return Ok(());
            }
            offset = start + 2;
        }
    }

    /// The tokens of a tag up to its end.
    fn expression(&mut self, variable: bool, end: &TokenKind) -> Result<()> {
        let mut open: Vec<&'static str> = Vec::new();
        let close = if variable { "}}" } else { "%}" };
        loop {
            let rest = self.rest();
            if open.is_empty() {
                let sign = rest.chars().next().filter(|&c| c == '-' || (c == '+' && !variable));
                let signed = sign.is_some_and(|sign| rest[sign.len_utf8()..].starts_with(close));
                if signed || rest.starts_with(close) {
                    self.push(self.position, end.clone());
                    self.advance(close.len() + usize::from(signed));
                    self.after(sign.filter(|_| signed), !variable);
                    return Ok(());
                }
            }
            let Some(first) = rest.chars().next() else { return self.fail("the template ends inside a tag") };
            if is_space(first) {
                self.skip_space();
            } else if first.is_ascii_digit() {
                self.number()?;
            } else if first.is_alphabetic() || first == '_' {
                let len = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
                self.push(self.position, TokenKind::Name(rest[..len].to_owned()));
                self.advance(len);
            } else if matches!(first, '\'' | '"') {
                self.text(first)?;
            } else {
                let Some(operator) = OPERATORS.into_iter().find(|&operator| rest.starts_with(operator)) else {
                    return self.fail(format!("unexpected char {first:?}"));
                };
                match operator {
                    "{" => open.push("}"),
                    "(" => open.push(")"),
                    "[" => open.push("]"),
                    "}" | ")" | "]" => match open.pop() {
                        Some(expected) if expected == operator => {}
                        Some(expected) => return self.fail(format!("unexpected {operator:?}, expected {expected:?}")),
                        None => return self.fail(format!("unexpected {operator:?}")),
                    },
                    _ => {}
                }
                self.push(self.position, TokenKind::Operator(operator));
                self.advance(operator.len());
            }
        }
    }

    fn number(&mut self) -> Result<()> {
        let rest = self.rest().as_bytes();
        let after_dot = self.position > 0 && self.source.as_bytes()[self.position - 1] == b'.';
        let digits = |from: usize| digits(rest, from, u8::is_ascii_digit);
        let whole = digits(0);
        let mut end = whole;
        let exponent = |from: usize| {
            let mut at = from;
            if !matches!(rest.get(at), Some(b'e' | b'E')) {
                return None;
            }
            at += 1;
            if matches!(rest.get(at), Some(b'+' | b'-')) {
                at += 1;
            }
            let stop = digits(at);
            (stop > at).then_some(stop)
        };
        let mut float = false;
        if !after_dot {
            if rest.get(end) == Some(&b'.') && digits(end + 1) > end + 1 {
                end = digits(end + 1);
                float = true;
            }
            if let Some(stop) = exponent(end) {
                end = stop;
                float = true;
            }
        }
        let kind = if float {
            let text: String = self.rest()[..end].replace('_', "");
            match text.parse() {
                Ok(value) if f64::is_finite(value) => TokenKind::Float(value),
                _ => {
                    let line = self.line_at(self.position);
                    return Err(Error::refused(format!("the number {text}, which is too large")).at(line));
                }
            }
        } else {
            let (radix, from, to) = self.integer(whole);
            end = to;
            let text = self.rest()[from..to].replace('_', "");
            match i64::from_str_radix(&text, radix) {
                Ok(value) => TokenKind::Int(value),
                Err(_) => {
                    let line = self.line_at(self.position);
                    return Err(Error::refused(format!("the integer {text} needs more than 64 bits")).at(line));
                }
            }
        };
        self.push(self.position, kind);
        self.advance(end);
        Ok(())
    }

    /// Radix, start of the digits and end of an integer.
    fn integer(&self, whole: usize) -> (u32, usize, usize) {
        let rest = self.rest().as_bytes();
        if rest[0] != b'0' {
            return (10, 0, whole);
        }
        let (radix, is_digit): (u32, fn(&u8) -> bool) = match rest.get(1) {
            Some(b'x' | b'X') => (16, u8::is_ascii_hexdigit),
            Some(b'o' | b'O') => (8, |byte| (b'0'..=b'7').contains(byte)),
            Some(b'b' | b'B') => (2, |byte| matches!(byte, b'0' | b'1')),
            _ => return (10, 0, digits(rest, 0, |byte| *byte == b'0')),
        };
        let from = 2 + usize::from(rest.get(2) == Some(&b'_'));
        let end = digits(rest, from, is_digit);
        if end > from { (radix, from, end) } else { (10, 0, 1) }
    }

    fn text(&mut self, quote: char) -> Result<()> {
        let rest = self.rest();
        let mut escaped = false;
        let end = rest[1..].char_indices().find_map(|(at, c)| {
            if escaped {
                escaped = false;
            } else if c == '\\' {
                escaped = true;
            } else if c == quote {
                return Some(at + 1);
            }
            None
        });
        let Some(end) = end else { return self.fail("a text has no closing quotation mark") };
        let at = self.position;
        let line = self.line_at(at);
        let text = unescaped(&rest[1..end]).map_err(|error| error.at(line))?;
        self.push(at, TokenKind::Text(text));
        self.advance(end + 1);
        Ok(())
    }
}

/// Where digits that `_` may part end.
fn digits(bytes: &[u8], from: usize, is_digit: fn(&u8) -> bool) -> usize {
    let mut at = from;
    loop {
        match bytes.get(at) {
            Some(byte) if is_digit(byte) => at += 1,
            Some(b'_') if at > from && bytes[at - 1] != b'_' && bytes.get(at + 1).is_some_and(is_digit) => at += 1,
            _ => return at,
        }
    }
}

/// Length of `{% raw %}` or `{% endraw %}` with what it takes after it.
fn raw_length(tag: &str, word: &str, ends: bool) -> Option<usize> {
    let rest = tag.strip_prefix("{%")?;
    let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest).trim_start_matches(is_space);
    let rest = rest.strip_prefix(word)?.trim_start_matches(is_space);
    if let Some(rest) = rest.strip_prefix("-%}") {
        return Some(tag.len() - rest.trim_start_matches(is_space).len());
    }
    if let Some(rest) = rest.strip_prefix("+%}").filter(|_| ends) {
        return Some(tag.len() - rest.len());
    }
    let rest = rest.strip_prefix("%}")?;
    let rest = if ends { rest.strip_prefix('\n').unwrap_or(rest) } else { rest };
    Some(tag.len() - rest.len())
}

/// What a quoted text means: Python encodes it to ASCII with backslashes and decodes these as it does in its own
/// source, so a backslash before a letter beyond ASCII stays.
fn unescaped(text: &str) -> Result<String> {
    let mut ascii = String::with_capacity(text.len());
    for c in text.chars() {
        match u32::from(c) {
            0..0x80 => ascii.push(c),
            code @ 0x80..0x100 => ascii.push_str(&format!("\\x{code:02x}")),
            code @ 0x100..0x1_0000 => ascii.push_str(&format!("\\u{code:04x}")),
            code => ascii.push_str(&format!("\\U{code:08x}")),
        }
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = ascii.as_str();
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let Some(kind) = rest.chars().next() else { return Err(Error::fails("a text ends with a backslash")) };
        rest = &rest[1..];
        let mut code = |digits: usize| {
            let hex = rest.get(..digits).filter(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
            let hex =
                hex.ok_or_else(|| Error::fails(format!("the escape \\{kind} needs {digits} hexadecimal digits")))?;
            rest = &rest[digits..];
            let value = u32::from_str_radix(hex, 16).map_err(|error| Error::fails(error.to_string()))?;
            character(value)
        };
        match kind {
            '\n' => {}
            '\\' | '\'' | '"' => out.push(kind),
            'a' => out.push('\x07'),
            'b' => out.push('\x08'),
            'f' => out.push('\x0c'),
            'n' => out.push('\n'),
            'r' => out.push('\r'),
            't' => out.push('\t'),
            'v' => out.push('\x0b'),
            'x' => out.push(code(2)?),
            'u' => out.push(code(4)?),
            'U' => out.push(code(8)?),
            'N' => return Err(Error::refused("\\N escapes of character names")),
            '0'..='7' => {
                let more = rest.bytes().take(2).take_while(|byte| (b'0'..=b'7').contains(byte)).count();
                let octal = format!("{kind}{}", &rest[..more]);
                rest = &rest[more..];
                out.push(character(u32::from_str_radix(&octal, 8).map_err(|error| Error::fails(error.to_string()))?)?);
            }
            other => {
                out.push('\\');
                out.push(other);
            }
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn character(code: u32) -> Result<char> {
    match code {
        0xd800..0xe000 => Err(Error::refused(format!("half a surrogate pair, \\u{code:04x}, in a text"))),
        _ => char::from_u32(code).ok_or_else(|| Error::fails(format!("there is no character {code:#x}"))),
    }
}
