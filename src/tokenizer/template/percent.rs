//! Python's `format % values`, and `str.format`.

use super::{
    arguments::Arguments,
    error::{Error, Result},
    fuel, operators, text,
    value::{Value, integer},
};

/// Widths beyond this are no layout.
const MAX_WIDTH: usize = 10_000;

/// `format % values`.
pub(super) fn format(format: &str, values: &Value) -> Result<String> {
    let given: Vec<Value> = match values {
        Value::Tuple(items) => items.values.clone(),
        _ => vec![values.clone()],
    };
    let mut given = given.into_iter();
    let mut used_names = false;
    let mut out = String::new();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let mut key = None;
        if let Some(inner) = rest.strip_prefix('(') {
            let end = inner.find(')').ok_or_else(|| Error::fails("incomplete format key"))?;
            if inner[..end].contains('(') {
                return Err(Error::refused("a format key with parentheses"));
            }
            key = Some(&inner[..end]);
            rest = &inner[end + 1..];
        }
        let flags_end = rest.find(|c| !matches!(c, '#' | '0' | '-' | ' ' | '+')).unwrap_or(rest.len());
        let flags = &rest[..flags_end];
        rest = &rest[flags_end..];
        let width = count(&mut rest)?;
        let precision = match rest.strip_prefix('.') {
            Some(after) => {
                rest = after;
                Some(count(&mut rest)?.unwrap_or(0))
            }
            None => None,
        };
        rest = rest.trim_start_matches(['h', 'l', 'L']);
        let Some(kind) = rest.chars().next() else { return Err(Error::fails("incomplete format")) };
        rest = &rest[kind.len_utf8()..];
        if kind == '%' {
            out.push('%');
            continue;
        }
        let value = match key {
            Some(key) => {
                used_names = true;
                let Value::Dict(dict) = values else { return Err(Error::fails("format requires a mapping")) };
                dict.by_name(key)
                    .cloned()
                    .ok_or_else(|| Error::fails(format!("no value for the format key {key:?}")))?
            }
            None => given.next().ok_or_else(|| Error::fails("not enough arguments for format string"))?,
        };
        let (sign, body) = converted(kind, precision, flags, &value)?;
        pad(&mut out, sign, &body, flags, width.unwrap_or(0), kind)?;
    }
    out.push_str(rest);
    let mapping = matches!(values, Value::Dict(_) | Value::List(_) | Value::Range { .. });
    if !used_names && given.next().is_some() && !mapping {
        if matches!(values, Value::Undefined(_)) {
            return Err(Error::refused("formatting with an undefined value"));
        }
        return Err(Error::fails("not all arguments converted during string formatting"));
    }
    fuel::charge(out.len())?;
    Ok(out)
}

fn count(rest: &mut &str) -> Result<Option<usize>> {
    if rest.starts_with('*') {
        return Err(Error::refused("a format width of `*`"));
    }
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    if end == 0 {
        return Ok(None);
    }
    let count = rest[..end].parse().ok().filter(|&count| count <= MAX_WIDTH);
    *rest = &rest[end..];
    count.map(Some).ok_or_else(|| Error::refused("a very large format width"))
}

/// Sign and digits, or nothing and a text.
fn converted(kind: char, precision: Option<usize>, flags: &str, value: &Value) -> Result<(&'static str, String)> {
    let plus = if flags.contains('+') {
        "+"
    } else if flags.contains(' ') {
        " "
    } else {
        ""
    };
    match kind {
        's' | 'r' => {
            let mut shown = String::new();
            if kind == 's' {
                shown.push_str(&value.to_text()?);
            } else {
                value.write_repr(&mut shown)?;
            }
            if let Some(precision) = precision {
                shown.truncate(text::offset(&shown, precision));
            }
            Ok(("", shown))
        }
        'd' | 'i' | 'u' | 'x' | 'X' | 'o' => {
            if flags.contains('#') {
                return Err(Error::refused("the format flag `#`"));
            }
            let whole = match value {
                Value::Float(value) if matches!(kind, 'd' | 'i' | 'u') => super::value::integral(value.trunc()),
                _ => integer(value),
            };
            let Some(whole) = whole else {
                return Err(match value {
                    Value::Undefined(message) => Error::fails(&**message),
                    Value::Float(_) if matches!(kind, 'd' | 'i' | 'u') => {
                        Error::refused("a float of more than 64 bits as an integer")
                    }
                    _ => Error::fails(format!("%{kind} format: a number is required, not {}", value.type_name())),
                });
            };
            let size = whole.unsigned_abs();
            let digits = match kind {
                'x' => format!("{size:x}"),
                'X' => format!("{size:X}"),
                'o' => format!("{size:o}"),
                _ => size.to_string(),
            };
            let digits = format!("{digits:0>width$}", width = precision.unwrap_or(0));
            Ok((if whole < 0 { "-" } else { plus }, digits))
        }
        'f' | 'F' => {
            let number = match value {
                Value::Float(value) => *value,
                Value::Undefined(message) => return Err(Error::fails(&**message)),
                _ => integer(value)
                    .ok_or_else(|| Error::fails(format!("must be real number, not {}", value.type_name())))?
                    as f64,
            };
            if !number.is_finite() {
                return Err(Error::refused("formatting a float that is not finite"));
            }
            let digits = format!("{:.*}", precision.unwrap_or(6), number.abs());
            Ok((if number.is_sign_negative() { "-" } else { plus }, digits))
        }
        'c' | 'e' | 'E' | 'g' | 'G' | 'a' => Err(Error::refused(format!("the format %{kind}"))),
        _ => Err(Error::fails(format!("unsupported format character {kind:?}"))),
    }
}

fn pad(out: &mut String, sign: &str, body: &str, flags: &str, width: usize, kind: char) -> Result<()> {
    let missing = width.saturating_sub(sign.len() + body.chars().count());
    fuel::charge(missing)?;
    if flags.contains('-') {
        out.push_str(sign);
        out.push_str(body);
        out.push_str(&" ".repeat(missing));
    } else if flags.contains('0') && !matches!(kind, 's' | 'r') {
        out.push_str(sign);
        out.push_str(&"0".repeat(missing));
        out.push_str(body);
    } else {
        out.push_str(&" ".repeat(missing));
        out.push_str(sign);
        out.push_str(body);
    }
    Ok(())
}

/// `format.format(...)`, for fields without a conversion or a specification.
pub(super) fn braces(format: &str, arguments: &Arguments) -> Result<String> {
    let mut out = String::new();
    let mut rest = format;
    let mut next = 0_usize;
    let (mut counted, mut numbered) = (false, false);
    while let Some(at) = rest.find(['{', '}']) {
        out.push_str(&rest[..at]);
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            out.push_str(brace);
            rest = after;
            continue;
        }
        if brace == "}" {
            return Err(Error::fails("single '}' encountered in format string"));
        }
        let end = rest.find('}').ok_or_else(|| Error::fails("expected '}' before end of string"))?;
        let field = &rest[..end];
        rest = &rest[end + 1..];
        if field.contains(['!', ':', '.', '[', '{']) {
            return Err(Error::refused(format!("the format field {{{field}}}")));
        }
        let index = if field.is_empty() {
            counted = true;
            next += 1;
            Some(next - 1)
        } else if field.bytes().all(|byte| byte.is_ascii_digit()) {
            numbered = true;
            Some(field.parse().map_err(|_| Error::fails("too many decimal digits in format string"))?)
        } else {
            None
        };
        if counted && numbered {
            return Err(Error::fails("cannot switch between manual and automatic field numbering"));
        }
        let value = match index {
            Some(index) => arguments.positional.get(index),
            None => arguments.named.iter().find(|(name, _)| **name == *field).map(|(_, value)| value),
        };
        let value = value.ok_or_else(|| Error::fails(format!("no value for the format field {{{field}}}")))?;
        if matches!(value, Value::Undefined(_)) {
            return Err(Error::refused("formatting an undefined value"));
        }
        out.push_str(&operators::joined(std::slice::from_ref(value), "")?);
    }
    out.push_str(rest);
    fuel::charge(out.len())?;
    Ok(out)
}
