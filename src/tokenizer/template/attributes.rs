//! Attributes and methods of Python's types, as the sandbox lets templates use them.

use std::rc::Rc;

use super::{
    arguments::{Arguments, expect_integer, expect_text},
    error::{Error, Result},
    fuel,
    lexer::is_space,
    operators::{self, items_of},
    percent,
    text::{capitalized, is_case, lines, titled},
    value::{Value, View},
};

/// Methods of `str` that [`call`] has.
const TEXT: [&str; 43] = [
    "capitalize",
    "center",
    "count",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "upper",
    "zfill",
    "casefold",
];

/// Methods that change a value in place, which the sandbox keeps from templates.
const LIST_CHANGES: [&str; 8] = ["append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove"];
const DICT_CHANGES: [&str; 5] = ["clear", "pop", "popitem", "setdefault", "update"];

/// An attribute that the type of a value has by itself.
pub(super) fn own(value: &Value, name: &str) -> Result<Option<Value>> {
    if name.starts_with("__") && name.ends_with("__") && !matches!(value, Value::Namespace(_)) {
        return Err(Error::refused(format!("the attribute {name}")));
    }
    let (methods, changes, others): (&[&'static str], &[&str], &[&str]) = match value {
        Value::Undefined(message) => return Err(Error::fails(&**message)),
        Value::Safe(_) => return Err(Error::refused("an attribute of a text that was marked as safe")),
        Value::Namespace(namespace) => return Ok(namespace.get(name)),
        Value::Str(_) => (&TEXT, &[], &["encode", "format_map", "maketrans", "translate"]),
        Value::List(_) => (&["count", "index", "copy"], &LIST_CHANGES, &[]),
        Value::Tuple(items) => {
            if items.group && name == "grouper" {
                return Ok(items.values.first().cloned());
            }
            if items.group && name == "list" {
                return Ok(items.values.get(1).cloned());
            }
            (&["count", "index"], &[], &["_asdict", "_fields", "_make", "_replace", "_field_defaults"])
        }
        Value::Dict(_) => (&["get", "items", "keys", "values", "copy"], &DICT_CHANGES, &["fromkeys"]),
        Value::View(..) => (&[], &[], &["mapping", "isdisjoint"]),
        Value::Range { .. } => (&[], &[], &["start", "stop", "step", "count", "index"]),
        Value::Bool(_) | Value::Int(_) | Value::Float(_) => (
            &[],
            &[],
            &[
                "real",
                "imag",
                "numerator",
                "denominator",
                "conjugate",
                "bit_length",
                "bit_count",
                "to_bytes",
                "from_bytes",
                "as_integer_ratio",
                "is_integer",
                "hex",
                "fromhex",
            ],
        ),
        Value::Iterator(_) => {
            (&[], &[], &["send", "throw", "close", "gi_frame", "gi_code", "gi_running", "gi_yieldfrom", "gi_suspended"])
        }
        Value::Macro(_) => {
            (&[], &[], &["name", "arguments", "catch_kwargs", "catch_varargs", "caller", "explicit_caller"])
        }
        Value::Function(_) | Value::Method(_) => return Err(Error::refused("an attribute of a function")),
        Value::Loop(_) | Value::None => (&[], &[], &[]),
    };
    if let Some(method) = methods.iter().find(|method| **method == name) {
        return Ok(Some(Value::Method(Rc::new((value.clone(), method)))));
    }
    if changes.contains(&name) {
        let message = format!("access to attribute '{name}' of '{}' object is unsafe.", value.type_name());
        return Ok(Some(Value::Undefined(message.into())));
    }
    if others.contains(&name) {
        return Err(Error::refused(format!("the attribute {name} of a {}", value.type_name())));
    }
    Ok(None)
}

/// `value.name`: the attribute, else the item, else undefined.
pub(super) fn get(value: &Value, name: &str) -> Result<Value> {
    if let Some(found) = own(value, name)? {
        return Ok(found);
    }
    if let Value::Dict(dict) = value
        && let Some(found) = dict.by_name(name)
    {
        return Ok(found.clone());
    }
    operators::missing(value, &Value::text(name))
}

/// `value.name(arguments)`.
pub(super) fn call(value: &Value, name: &'static str, arguments: Arguments) -> Result<Value> {
    match value {
        Value::Str(text) => text_method(text, name, arguments),
        Value::List(items) | Value::Tuple(items) => {
            if name == "copy" {
                let [] = arguments.positional(name, 0)?;
                return Ok(value.clone());
            }
            if arguments.positional.len() > 1 {
                return Err(Error::refused(format!("{name} within bounds")));
            }
            let [item] = arguments.positional(name, 1)?;
            let item = item.unwrap_or(Value::None);
            let mut count = 0;
            for (place, other) in items.values.iter().enumerate() {
                if other.equals(&item)? {
                    if name == "index" {
                        return Ok(Value::Int(place as i64));
                    }
                    count += 1;
                }
            }
            if name == "index" {
                return Err(Error::fails("the item is not in the list"));
            }
            Ok(Value::Int(count))
        }
        Value::Dict(dict) => match name {
            "get" => {
                let [key, default] = arguments.positional(name, 1)?;
                let key = key.unwrap_or(Value::None);
                if matches!(key, Value::Undefined(_)) {
                    return Err(Error::refused("a key that is undefined"));
                }
                Ok(dict.get(&key)?.cloned().or(default).unwrap_or(Value::None))
            }
            _ => {
                let [] = arguments.positional(name, 0)?;
                Ok(match name {
                    "items" => Value::View(Rc::clone(dict), View::Items),
                    "keys" => Value::View(Rc::clone(dict), View::Keys),
                    "values" => Value::View(Rc::clone(dict), View::Values),
                    _ => value.clone(),
                })
            }
        },
        _ => Err(Error::refused(format!("the method {name} of a {}", value.type_name()))),
    }
}

fn text_method(text: &Rc<str>, name: &str, arguments: Arguments) -> Result<Value> {
    fuel::charge(1 + text.len())?;
    let own = |text: &str| Ok(Value::text(text));
    match name {
        "upper" | "lower" | "capitalize" | "title" | "swapcase" | "casefold" => {
            let [] = arguments.positional(name, 0)?;
            Ok(Value::text(match name {
                "upper" => text.to_uppercase(),
                "lower" => text.to_lowercase(),
                "capitalize" => capitalized(text)?,
                "title" => title(text)?,
                _ => {
                    if !text.is_ascii() {
                        return Err(Error::refused(format!("{name} of a text beyond ASCII")));
                    }
                    let swap = |c: char| {
                        if c.is_ascii_lowercase() && name == "swapcase" {
                            c.to_ascii_uppercase()
                        } else {
                            c.to_ascii_lowercase()
                        }
                    };
                    text.chars().map(swap).collect()
                }
            }))
        }
        "strip" | "lstrip" | "rstrip" => {
            let [chars] = arguments.positional(name, 0)?;
            let (left, right) = (name != "rstrip", name != "lstrip");
            own(stripped(text, chars.as_ref(), left, right)?)
        }
        "split" | "rsplit" => {
            let [separator, most] = arguments.bind(name, ["sep", "maxsplit"], 0)?;
            let most = most.map_or(Ok(-1), |most| expect_integer(&most, name))?;
            let most = usize::try_from(most).unwrap_or(usize::MAX);
            let parts = match separator {
                None | Some(Value::None) if name == "split" => split_space(text, most),
                None | Some(Value::None) => rsplit_space(text, most),
                Some(separator) => {
                    let separator = expect_text(&separator, name)?;
                    if separator.is_empty() {
                        return Err(Error::fails("empty separator"));
                    }
                    if name == "split" {
                        text.splitn(most.saturating_add(1), &**separator).collect()
                    } else {
                        let mut parts: Vec<&str> = text.rsplitn(most.saturating_add(1), &**separator).collect();
                        parts.reverse();
                        parts
                    }
                }
            };
            texts(parts)
        }
        "splitlines" => {
            let [keep] = arguments.bind(name, ["keepends"], 0)?;
            texts(lines(text, keep.is_some_and(|keep| keep.truth())))
        }
        "partition" | "rpartition" => {
            let [separator] = arguments.positional(name, 1)?;
            let separator = separator.unwrap_or(Value::None);
            let separator = expect_text(&separator, name)?;
            if separator.is_empty() {
                return Err(Error::fails("empty separator"));
            }
            let found = if name == "partition" { text.find(&**separator) } else { text.rfind(&**separator) };
            let parts = match found {
                Some(at) => [&text[..at], &**separator, &text[at + separator.len()..]],
                None if name == "partition" => [&**text, "", ""],
                None => ["", "", &**text],
            };
            Value::tuple(parts.into_iter().map(Value::text).collect())
        }
        "replace" => {
            let [old, new, count] = arguments.positional(name, 2)?;
            let (old, new) = (old.unwrap_or(Value::None), new.unwrap_or(Value::None));
            let count = count.map_or(Ok(-1), |count| expect_integer(&count, name))?;
            replaced(text, expect_text(&old, name)?, expect_text(&new, name)?, count)
        }
        "startswith" | "endswith" => {
            let [affix, start, end] = arguments.positional(name, 1)?;
            if end.is_some() {
                return Err(Error::refused(format!("{name} within two bounds")));
            }
            let text = match start {
                None => &**text,
                Some(start) => match expect_integer(&start, name)? {
                    // An empty affix is not found beyond the end.
                    start if start < 0 || start as usize > text.chars().count() => {
                        return Err(Error::refused(format!("{name} from outside of the text")));
                    }
                    start => operators::from_index(text, start as usize),
                },
            };
            let fits = |affix: &Value| {
                let affix = expect_text(affix, name)?;
                Ok(if name == "startswith" { text.starts_with(&**affix) } else { text.ends_with(&**affix) })
            };
            match affix.unwrap_or(Value::None) {
                Value::Tuple(items) => {
                    for affix in &items.values {
                        if fits(affix)? {
                            return Ok(Value::Bool(true));
                        }
                    }
                    Ok(Value::Bool(false))
                }
                affix => Ok(Value::Bool(fits(&affix)?)),
            }
        }
        "removeprefix" | "removesuffix" => {
            let [affix] = arguments.positional(name, 1)?;
            let affix = affix.unwrap_or(Value::None);
            let affix = expect_text(&affix, name)?;
            let cut = if name == "removeprefix" { text.strip_prefix(&**affix) } else { text.strip_suffix(&**affix) };
            own(cut.unwrap_or(text))
        }
        "find" | "rfind" | "index" | "rindex" | "count" => {
            let [part, start, end] = arguments.positional(name, 1)?;
            if start.is_some() || end.is_some() {
                return Err(Error::refused(format!("{name} within bounds")));
            }
            let part = part.unwrap_or(Value::None);
            let part = expect_text(&part, name)?;
            if name == "count" {
                return Ok(Value::Int(text.matches(&**part).count() as i64));
            }
            let found = if name.starts_with('r') { text.rfind(&**part) } else { text.find(&**part) };
            match found {
                Some(at) => Ok(Value::Int(text[..at].chars().count() as i64)),
                None if name.ends_with("index") => Err(Error::fails("substring not found")),
                None => Ok(Value::Int(-1)),
            }
        }
        "join" => {
            let [items] = arguments.positional(name, 1)?;
            let items = items_of(&items.unwrap_or(Value::None))?;
            for item in &items {
                expect_text(item, name)?;
            }
            operators::joined(&items, text).map(Value::Str)
        }
        "center" | "ljust" | "rjust" | "zfill" => {
            let [width, fill] = arguments.positional(name, 1)?;
            let width = expect_integer(&width.unwrap_or(Value::None), name)?;
            let fill = match fill {
                None => ' ',
                Some(_) if name == "zfill" => return Err(Error::fails("zfill() takes exactly one argument")),
                Some(fill) => {
                    let mut chars = expect_text(&fill, name)?.chars();
                    match (chars.next(), chars.next()) {
                        (Some(fill), None) => fill,
                        _ => return Err(Error::fails("the fill character must be exactly one character long")),
                    }
                }
            };
            padded(text, name, width, fill)
        }
        "expandtabs" => Err(Error::refused("expandtabs")),
        "format" => percent::braces(text, &arguments).map(Value::text),
        _ => {
            let [] = arguments.positional(name, 0)?;
            is_kind(text, name).map(Value::Bool)
        }
    }
}

fn texts(parts: Vec<&str>) -> Result<Value> {
    fuel::charge(8 * parts.len())?;
    Value::list(parts.into_iter().map(Value::text).collect())
}

/// `text.replace(old, new, count)`, all where `count` is negative.
pub(super) fn replaced(text: &str, old: &str, new: &str, count: i64) -> Result<Value> {
    let places = if old.is_empty() { text.chars().count() + 1 } else { text.matches(old).count() };
    fuel::charge(text.len() + places.saturating_mul(new.len()))?;
    Ok(Value::text(match usize::try_from(count) {
        Ok(count) => text.replacen(old, new, count),
        Err(_) => text.replace(old, new),
    }))
}

/// `text.strip(chars)` on one side or both.
pub(super) fn stripped<'a>(text: &'a str, chars: Option<&Value>, left: bool, right: bool) -> Result<&'a str> {
    let set = match chars {
        None | Some(Value::None) => None,
        Some(chars) => Some(Rc::clone(expect_text(chars, "strip")?)),
    };
    let strips = |c: char| set.as_ref().map_or_else(|| is_space(c), |set| set.contains(c));
    let mut text = text;
    if left {
        text = text.trim_start_matches(strips);
    }
    if right {
        text = text.trim_end_matches(strips);
    }
    Ok(text)
}

fn split_space(text: &str, most: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() {
        if parts.len() == most {
            parts.push(rest);
            break;
        }
        let end = rest.find(is_space).unwrap_or(rest.len());
        parts.push(&rest[..end]);
        rest = rest[end..].trim_start_matches(is_space);
    }
    parts
}

fn rsplit_space(text: &str, most: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text.trim_end_matches(is_space);
    while !rest.is_empty() {
        if parts.len() == most {
            parts.push(rest);
            break;
        }
        let start = rest.char_indices().rev().find(|&(_, c)| is_space(c)).map_or(0, |(at, c)| at + c.len_utf8());
        parts.push(&rest[start..]);
        rest = rest[..start].trim_end_matches(is_space);
    }
    parts.reverse();
    parts
}

/// `text.center(width, fill)` and its like.
pub(super) fn padded(text: &str, name: &str, width: i64, fill: char) -> Result<Value> {
    let len = text.chars().count();
    let width = usize::try_from(width.max(0)).unwrap_or(usize::MAX);
    let missing = width.saturating_sub(len);
    fuel::charge(missing)?;
    let run = |count: usize, fill: char| fill.to_string().repeat(count);
    Ok(Value::text(match name {
        "ljust" => format!("{text}{}", run(missing, fill)),
        "rjust" => format!("{}{text}", run(missing, fill)),
        "zfill" => {
            let (sign, digits) = match text.chars().next() {
                Some(sign @ ('+' | '-')) => (sign.to_string(), &text[1..]),
                _ => (String::new(), text),
            };
            format!("{sign}{}{digits}", run(missing, '0'))
        }
        _ => {
            let left = missing / 2 + (missing & width & 1);
            format!("{}{text}{}", run(left, fill), run(missing - left, fill))
        }
    }))
}

fn title(text: &str) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        if !c.is_ascii() {
            return Err(Error::refused("title() of a text beyond ASCII"));
        }
        if inside {
            out.push(c.to_ascii_lowercase());
        } else {
            out.push_str(&titled(c)?);
        }
        inside = c.is_ascii_alphabetic();
    }
    Ok(out)
}

/// `text.isdigit()` and its like.
fn is_kind(text: &str, name: &str) -> Result<bool> {
    match name {
        "isspace" => return Ok(!text.is_empty() && text.chars().all(is_space)),
        "isascii" => return Ok(text.is_ascii()),
        "isupper" => return Ok(is_case(text, true)),
        "islower" => return Ok(is_case(text, false)),
        _ => {}
    }
    if !text.is_ascii() {
        return Err(Error::refused(format!("{name} of a text beyond ASCII")));
    }
    let all = |is: fn(&u8) -> bool| !text.is_empty() && text.bytes().all(|byte| is(&byte));
    Ok(match name {
        "isalnum" => all(u8::is_ascii_alphanumeric),
        "isalpha" => all(u8::is_ascii_alphabetic),
        "isdigit" | "isdecimal" | "isnumeric" => all(u8::is_ascii_digit),
        "isprintable" => text.bytes().all(|byte| (b' '..=b'~').contains(&byte)),
        "isidentifier" => {
            all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_') && !text.as_bytes()[0].is_ascii_digit()
        }
        "istitle" => text.bytes().any(|byte| byte.is_ascii_alphabetic()) && title(text)? == *text,
        _ => return Err(Error::refused(format!("the method {name}"))),
    })
}

#[cfg(test)]
mod tests {
    use super::super::text;
    use super::*;

    #[test]
    fn texts_split_at_white_space_from_both_ends() {
        assert_eq!(split_space("  a b  c ", 1), ["a", "b  c "]);
        assert_eq!(rsplit_space("  a b  c ", 1), ["  a b", "c"]);
        assert_eq!(text::offset("aéb", 2), 3);
    }
}
