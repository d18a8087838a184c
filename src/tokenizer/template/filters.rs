//! jinja2's filters, as transformers sets them up.

use std::{cmp::Ordering, collections::HashSet, rc::Rc};

use super::{
    arguments::{Arguments, expect_integer, expect_text},
    attributes::{self, padded, replaced, stripped},
    checks,
    error::{Error, Result},
    fuel, json,
    operators::{self, items_of},
    percent,
    syntax::Operator,
    text::{self, capitalized, lines},
    value::{Value, integer, integral},
};

const NAMES: [&str; 54] = [
    "abs",
    "attr",
    "batch",
    "capitalize",
    "center",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "filesizeformat",
    "first",
    "float",
    "forceescape",
    "format",
    "groupby",
    "indent",
    "int",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "items",
    "map",
    "min",
    "max",
    "pprint",
    "random",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "string",
    "striptags",
    "sum",
    "title",
    "trim",
    "truncate",
    "unique",
    "upper",
    "urlencode",
    "urlize",
    "wordcount",
    "wordwrap",
    "xmlattr",
    "tojson",
];

/// Whether jinja2 has such a filter.
pub(super) fn exists(name: &str) -> bool {
    NAMES.contains(&name)
}

/// `value | name(arguments)`.
pub(super) fn apply(name: &str, value: Value, arguments: Arguments) -> Result<Value> {
    fuel::charge(1)?;
    match name {
        "tojson" => json::to_json(&value, arguments),
        "upper" | "lower" | "capitalize" | "title" | "trim" | "center" | "wordcount" | "replace" | "indent"
        | "truncate" | "format" | "string" | "safe" | "escape" | "e" => of_text(name, value, arguments),
        "abs" | "int" | "float" | "round" => of_number(name, &value, arguments),
        "map" | "select" | "reject" | "selectattr" | "rejectattr" => Ok(generator(name, &value, arguments)),
        "default" | "d" => {
            let [default, boolean] = arguments.bind("default", ["default_value", "boolean"], 0)?;
            let absent = matches!(value, Value::Undefined(_));
            let replace = absent || (boolean.is_some_and(|boolean| boolean.truth()) && !value.truth());
            Ok(if replace { default.unwrap_or_else(|| Value::text("")) } else { value })
        }
        "attr" => {
            let [attribute] = arguments.bind(name, ["name"], 1)?;
            let attribute = attribute.unwrap_or(Value::None);
            let attribute = expect_text(&attribute, name)?;
            if matches!(value, Value::Loop(_)) {
                return Err(Error::refused("attr of the loop"));
            }
            match attributes::own(&value, attribute)? {
                Some(found) => Ok(found),
                None => operators::missing(&value, &Value::Str(Rc::clone(attribute))),
            }
        }
        "length" | "count" => {
            let [] = arguments.positional(name, 0)?;
            match value.len() {
                Some(len) => Ok(Value::Int(len as i64)),
                None if matches!(value, Value::Loop(_)) => Err(Error::refused("the length of the loop itself")),
                None => Err(Error::fails(format!("object of type '{}' has no len()", value.type_name()))),
            }
        }
        _ => of_sequence(name, value, arguments),
    }
}

/// A text, or what prints as one.
fn soft_text(value: &Value, filter: &str) -> Result<Rc<str>> {
    match value {
        Value::Safe(_) => Err(Error::refused(format!("{filter} of a text that was marked as safe"))),
        _ => value.to_text(),
    }
}

fn of_text(name: &str, value: Value, arguments: Arguments) -> Result<Value> {
    match name {
        "string" | "safe" | "escape" | "e" => {
            let [] = arguments.bind(name, [], 0)?;
            let text = value.to_text()?;
            fuel::charge(text.len())?;
            return Ok(match name {
                "string" if matches!(value, Value::Safe(_)) => value,
                "string" => Value::Str(text),
                "safe" => Value::Safe(text),
                _ if matches!(value, Value::Safe(_)) => value,
                _ => Value::Safe(escaped(&text).into()),
            });
        }
        "indent" => {
            let names = ["width", "first", "blank"];
            let [width, first, blank] = arguments.bind(name, names, 0)?;
            let truth = |value: Option<Value>| value.is_some_and(|value| value.truth());
            return indented(&value, width, truth(first), truth(blank));
        }
        "truncate" => return truncated(&value, arguments),
        "replace" => {
            let [old, new, count] = arguments.bind(name, ["old", "new", "count"], 2)?;
            let old = old.unwrap_or(Value::None).to_text()?;
            let new = new.unwrap_or(Value::None).to_text()?;
            let count = match count {
                None | Some(Value::None) => -1,
                Some(count) => expect_integer(&count, name)?,
            };
            return replaced(&value.to_text()?, &old, &new, count);
        }
        _ => {}
    }
    let text = soft_text(&value, name)?;
    fuel::charge(text.len())?;
    match name {
        "center" => {
            let [width] = arguments.bind(name, ["width"], 0)?;
            let width = width.map_or(Ok(80), |width| expect_integer(&width, name))?;
            return padded(&text, name, width, ' ');
        }
        "trim" => {
            let [chars] = arguments.bind(name, ["chars"], 0)?;
            return Ok(Value::text(stripped(&text, chars.as_ref(), true, true)?));
        }
        "format" => {
            if !arguments.positional.is_empty() && !arguments.named.is_empty() {
                return Err(Error::fails("can't handle positional and keyword arguments at the same time"));
            }
            let values = if arguments.named.is_empty() {
                Value::tuple(arguments.positional)?
            } else {
                Value::dict(arguments.named.into_iter().map(|(name, value)| (Value::Str(name), value)))?
            };
            return percent::format(&text, &values).map(Value::text);
        }
        _ => {}
    }
    let [] = arguments.bind(name, [], 0)?;
    Ok(match name {
        "upper" => Value::text(text.to_uppercase()),
        "lower" => Value::text(text.to_lowercase()),
        "capitalize" => Value::text(capitalized(&text)?),
        "title" => Value::text(title(&text)),
        _ => {
            if !text.is_ascii() {
                return Err(Error::refused("wordcount of a text beyond ASCII"));
            }
            let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty());
            Value::Int(words.count() as i64)
        }
    })
}

/// What stands for the five characters that HTML gives a meaning.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\'', "&#39;").replace('"', "&#34;")
}

/// Words with a capital first letter, as jinja2 parts them.
fn title(text: &str) -> String {
    let parts = |c: char| matches!(c, '-' | '(' | '{' | '[' | '<') || super::lexer::is_space(c);
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let starts = rest.starts_with(parts);
        let end = rest.find(|c| parts(c) != starts).unwrap_or(rest.len());
        let first = rest.chars().next().map_or(0, char::len_utf8);
        out.push_str(&rest[..first].to_uppercase());
        out.push_str(&rest[first..end].to_lowercase());
        rest = &rest[end..];
    }
    out
}

fn indented(value: &Value, width: Option<Value>, first: bool, blank: bool) -> Result<Value> {
    let text = match value {
        Value::Undefined(message) => return Err(Error::fails(&**message)),
        _ => expect_text(value, "indent")?,
    };
    let indent = match width {
        None => "    ".to_owned(),
        Some(Value::Str(indent)) => indent.to_string(),
        Some(width) => {
            let width = usize::try_from(expect_integer(&width, "indent")?.max(0)).unwrap_or(usize::MAX);
            fuel::charge(width)?;
            " ".repeat(width)
        }
    };
    let text = format!("{text}\n");
    let mut out = String::new();
    for (place, line) in lines(&text, false).into_iter().enumerate() {
        fuel::charge(line.len() + indent.len() + 1)?;
        if place > 0 {
            out.push('\n');
        }
        if (place == 0 && first) || (place > 0 && (blank || !line.is_empty())) {
            out.push_str(&indent);
        }
        out.push_str(line);
    }
    Ok(Value::text(out))
}

fn truncated(value: &Value, arguments: Arguments) -> Result<Value> {
    let names = ["length", "killwords", "end", "leeway"];
    let [length, kill_words, end, leeway] = arguments.bind("truncate", names, 0)?;
    let number = |value: Option<Value>, absent| match value {
        None | Some(Value::None) => Ok(absent),
        Some(value) => expect_integer(&value, "truncate"),
    };
    let length = number(length, 255)?;
    let leeway = number(leeway, 5)?;
    let end = end.unwrap_or_else(|| Value::text("..."));
    let end = expect_text(&end, "truncate")?;
    let end_length = end.chars().count() as i64;
    if length < end_length || leeway < 0 {
        return Err(Error::fails(format!("truncate expects a length of {end_length} or more")));
    }
    match value.len() {
        None => return Err(Error::fails(format!("object of type '{}' has no len()", value.type_name()))),
        Some(len) if len as i64 <= length.saturating_add(leeway) => return Ok(value.clone()),
        Some(_) => {}
    }
    let text = expect_text(value, "truncate")?;
    fuel::charge(text.len())?;
    let kept = &text[..text::offset(text, (length - end_length) as usize)];
    let kept = if kill_words.is_some_and(|kill| kill.truth()) {
        kept
    } else {
        kept.rsplit_once(' ').map_or(kept, |(kept, _)| kept)
    };
    Ok(Value::text(format!("{kept}{end}")))
}

fn of_number(name: &str, value: &Value, arguments: Arguments) -> Result<Value> {
    match name {
        "abs" => {
            let [] = arguments.positional(name, 0)?;
            match value {
                Value::Undefined(message) => Err(Error::fails(&**message)),
                Value::Float(value) => Ok(Value::Float(value.abs())),
                _ => match integer(value).map(i64::checked_abs) {
                    Some(Some(value)) => Ok(Value::Int(value)),
                    Some(None) => Err(Error::refused("an integer that needs more than 64 bits")),
                    None => Err(Error::fails(format!("bad operand type for abs(): '{}'", value.type_name()))),
                },
            }
        }
        "int" => {
            let [default, base] = arguments.bind(name, ["default", "base"], 0)?;
            if base.is_some_and(|base| !matches!(base, Value::Int(10))) {
                return Err(Error::refused("int of another base than 10"));
            }
            to_integer(value, default.unwrap_or(Value::Int(0)))
        }
        "float" => {
            let [default] = arguments.bind(name, ["default"], 0)?;
            let default = default.unwrap_or(Value::Float(0.0));
            Ok(match value {
                Value::Undefined(message) => return Err(Error::fails(&**message)),
                Value::Float(_) => value.clone(),
                Value::Str(text) => float_of(text)?.map_or(default, Value::Float),
                Value::Safe(_) => return Err(Error::refused("a number of a text that was marked as safe")),
                _ => integer(value).map_or(default, |value| Value::Float(value as f64)),
            })
        }
        _ => round(value, arguments),
    }
}

fn to_integer(value: &Value, default: Value) -> Result<Value> {
    let too_large = || Error::refused("an integer that needs more than 64 bits");
    let whole = |value: f64| match integral(value.trunc()) {
        Some(value) => Ok(Some(Value::Int(value))),
        None if value.is_finite() => Err(too_large()),
        None => Ok(None),
    };
    match value {
        Value::Undefined(message) => Err(Error::fails(&**message)),
        Value::Safe(_) => Err(Error::refused("a number of a text that was marked as safe")),
        Value::Float(value) => match whole(*value)? {
            Some(value) => Ok(value),
            // Python's OverflowError of the first attempt is not caught, its ValueError is.
            None if value.is_infinite() => Err(Error::fails("cannot convert float infinity to integer")),
            None => Ok(default),
        },
        Value::Str(text) => {
            let digits = text.trim_matches(super::lexer::is_space);
            let body = digits.strip_prefix(['+', '-']).unwrap_or(digits);
            if body.chars().any(|c| !c.is_ascii() && c.is_numeric()) {
                return Err(Error::refused("a number in digits beyond ASCII"));
            }
            let plain = underscored(body).filter(|body| body.bytes().all(|byte| byte.is_ascii_digit()));
            if let Some(plain) = plain {
                let sign = if digits.starts_with('-') { "-" } else { "" };
                return format!("{sign}{plain}").parse().map(Value::Int).map_err(|_| too_large());
            }
            match float_of(text)? {
                Some(value) => Ok(whole(value)?.unwrap_or(default)),
                None => Ok(default),
            }
        }
        _ => Ok(integer(value).map_or(default, Value::Int)),
    }
}

/// Digits without the underscores that may part them; `None` where there are none or an underscore is out of place.
fn underscored(text: &str) -> Option<String> {
    let misplaced = text.is_empty() || text.starts_with('_') || text.ends_with('_') || text.contains("__");
    (!misplaced).then(|| text.replace('_', ""))
}

/// Python's `float(text)`.
fn float_of(text: &str) -> Result<Option<f64>> {
    let text = text.trim_matches(super::lexer::is_space);
    if text.contains('_') || text.chars().any(|c| !c.is_ascii() && c.is_numeric()) {
        return Err(Error::refused("a number with underscores or in digits beyond ASCII"));
    }
    let body = text.strip_prefix(['+', '-']).unwrap_or(text).to_ascii_lowercase();
    let named = matches!(body.as_str(), "inf" | "infinity" | "nan");
    let plain = body.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'+' | b'-'));
    Ok(if named || (plain && !body.is_empty()) { text.parse().ok() } else { None })
}

fn round(value: &Value, arguments: Arguments) -> Result<Value> {
    let [precision, method] = arguments.bind("round", ["precision", "method"], 0)?;
    let precision = precision.map_or(Ok(0), |precision| expect_integer(&precision, "round"))?;
    let method = method.unwrap_or_else(|| Value::text("common"));
    let method = expect_text(&method, "round")?;
    if !matches!(&**method, "common" | "ceil" | "floor") {
        return Err(Error::fails("method must be common, ceil or floor"));
    }
    if !(0..=15).contains(&precision) {
        return Err(Error::refused("rounding to fewer than 0 or more than 15 digits"));
    }
    let precision = precision as usize;
    match value {
        Value::Undefined(message) => Err(Error::fails(&**message)),
        _ if &**method == "common" => match value {
            Value::Float(number) if !number.is_finite() => Ok(value.clone()),
            Value::Float(number) => {
                let rounded = format!("{number:.precision$}").parse().map_err(|_| Error::refused("rounding"))?;
                Ok(Value::Float(rounded))
            }
            _ => match integer(value) {
                Some(number) => Ok(Value::Int(number)),
                None => Err(Error::fails(format!("type {} doesn't define __round__ method", value.type_name()))),
            },
        },
        _ => {
            let scale = 10_f64.powi(precision as i32);
            let number = match value {
                Value::Float(number) => *number,
                _ => integer(value).ok_or_else(|| Error::fails("must be real number"))? as f64,
            };
            let scaled = number * scale;
            if scaled.is_nan() || scaled.abs() > 9e15 {
                return Err(Error::refused("rounding a very large number"));
            }
            Ok(Value::Float(if &**method == "ceil" { scaled.ceil() } else { scaled.floor() } / scale + 0.0))
        }
    }
}

/// A path of attributes and indices, `a.0.b`.
fn path(attribute: &Value) -> Result<Vec<Value>> {
    Ok(match attribute {
        Value::None => Vec::new(),
        Value::Str(text) => text.split('.').map(part).collect::<Result<_>>()?,
        other => vec![other.clone()],
    })
}

fn part(text: &str) -> Result<Value> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map(Value::Int).map_err(|_| Error::refused("a very large index"));
    }
    if text.chars().any(|c| !c.is_ascii() && c.is_numeric()) {
        return Err(Error::refused("an attribute with digits beyond ASCII"));
    }
    Ok(Value::text(text))
}

/// The value at the end of a path.
fn follow(value: &Value, path: &[Value], default: Option<&Value>) -> Result<Value> {
    let mut value = value.clone();
    for part in path {
        if matches!(value, Value::Loop(_) | Value::Namespace(_)) {
            return Err(Error::refused(format!("an attribute of a {} in a filter", value.type_name())));
        }
        value = operators::item(&value, part)?;
        if let (Value::Undefined(_), Some(default)) = (&value, default) {
            value = default.clone();
        }
    }
    Ok(value)
}

/// A key that does not mind case, unless `case_sensitive`.
fn caseless(value: Value, case_sensitive: bool) -> Result<Value> {
    match value {
        Value::Str(text) if !case_sensitive => {
            fuel::charge(text.len())?;
            Ok(Value::text(text.to_lowercase()))
        }
        Value::Safe(_) => Err(Error::refused("sorting texts that were marked as safe")),
        other => Ok(other),
    }
}

/// `map`, `select` and their like: each item as it is asked for, so a failure shows only when it is reached.
fn generator(name: &str, value: &Value, arguments: Arguments) -> Value {
    let mut given = Vec::new();
    let error = if value.truth() { generate(name, value, arguments, &mut given).err() } else { None };
    Value::iterator(given, error)
}

fn generate(name: &str, value: &Value, arguments: Arguments, given: &mut Vec<Value>) -> Result<()> {
    let Arguments { mut positional, mut named } = arguments;
    let take = |named: &mut Vec<(Rc<str>, Value)>, wanted: &str| {
        named.iter().position(|(name, _)| **name == *wanted).map(|at| named.remove(at).1)
    };
    let by_attribute = name == "map" && positional.is_empty() && named.iter().any(|(name, _)| &**name == "attribute");
    if by_attribute {
        let attribute = take(&mut named, "attribute").unwrap_or(Value::None);
        let default = take(&mut named, "default").filter(|default| !matches!(default, Value::None));
        if let Some((name, _)) = named.first() {
            return Err(Error::fails(format!("Unexpected keyword argument '{name}'")));
        }
        let path = path(&attribute)?;
        for item in items_of(value)? {
            given.push(follow(&item, &path, default.as_ref())?);
        }
        return Ok(());
    }
    let path = if name.ends_with("attr") {
        if positional.is_empty() {
            return Err(Error::fails("Missing parameter for attribute name"));
        }
        path(&positional.remove(0))?
    } else {
        Vec::new()
    };
    let function = if positional.is_empty() { None } else { Some(positional.remove(0)) };
    let function = match &function {
        Some(function) => Some(expect_text(function, name)?),
        None if name == "map" => return Err(Error::fails("map requires a filter argument")),
        None => None,
    };
    for item in items_of(value)? {
        let arguments = || Arguments { positional: positional.clone(), named: named.clone() };
        if name == "map" {
            let filter = function.map_or("", |function| &**function);
            if !exists(filter) {
                return Err(Error::fails(format!("No filter named '{filter}'.")));
            }
            given.push(apply(filter, item, arguments())?);
            continue;
        }
        let subject = follow(&item, &path, None)?;
        let passes = match function {
            Some(test) if !checks::exists(test) => return Err(Error::fails(format!("No test named '{test}'."))),
            Some(test) => checks::check(test, &subject, arguments())?,
            None => subject.truth(),
        };
        if passes == name.starts_with("select") {
            given.push(item);
        }
    }
    Ok(())
}

fn of_sequence(name: &str, value: Value, arguments: Arguments) -> Result<Value> {
    let truth = |value: Option<Value>| value.is_some_and(|value| value.truth());
    match name {
        "list" => {
            let [] = arguments.bind(name, [], 0)?;
            Value::list(items_of(&value)?)
        }
        "join" => {
            let [separator, attribute] = arguments.bind(name, ["d", "attribute"], 0)?;
            let separator = separator.map_or(Ok("".into()), |separator| separator.to_text())?;
            let mut items = items_of(&value)?;
            if let Some(attribute) = attribute.filter(|attribute| !matches!(attribute, Value::None)) {
                let path = path(&attribute)?;
                items = items.iter().map(|item| follow(item, &path, None)).collect::<Result<_>>()?;
            }
            operators::joined(&items, &separator).map(Value::Str)
        }
        "first" => {
            let [] = arguments.bind(name, [], 0)?;
            let first = match &value {
                Value::Iterator(items) => {
                    let mut items = items.borrow_mut();
                    let first = items.values.pop_front();
                    match items.error.take_if(|_| first.is_none()) {
                        Some(error) => return Err(error),
                        None => first,
                    }
                }
                _ => items_of(&value)?.into_iter().next(),
            };
            Ok(first.unwrap_or_else(|| Value::Undefined("No first item, sequence was empty.".into())))
        }
        "last" => {
            let [] = arguments.bind(name, [], 0)?;
            if matches!(value, Value::Iterator(_)) {
                return Err(Error::fails("'generator' object is not reversible"));
            }
            Ok(items_of(&value)?.pop().unwrap_or_else(|| Value::Undefined("No last item, sequence was empty.".into())))
        }
        "reverse" => {
            let [] = arguments.bind(name, [], 0)?;
            match &value {
                Value::Str(text) => Ok(Value::text(text.chars().rev().collect::<String>())),
                Value::Iterator(_) => {
                    let mut items = items_of(&value)?;
                    items.reverse();
                    Value::list(items)
                }
                _ => {
                    let mut items = items_of(&value)?;
                    items.reverse();
                    Ok(Value::iterator(items, None))
                }
            }
        }
        "items" => {
            let [] = arguments.bind(name, [], 0)?;
            Ok(match &value {
                Value::Undefined(_) => Value::iterator(Vec::new(), None),
                Value::Dict(dict) => Value::iterator(super::value::view_items(dict, super::value::View::Items)?, None),
                _ => Value::iterator(Vec::new(), Some(Error::fails("Can only get item pairs from a mapping."))),
            })
        }
        "dictsort" => {
            let [case_sensitive, by, reverse] = arguments.bind(name, ["case_sensitive", "by", "reverse"], 0)?;
            let by = by.unwrap_or_else(|| Value::text("key"));
            let place = match &**expect_text(&by, name)? {
                "key" => 0,
                "value" => 1,
                _ => return Err(Error::fails("You can only sort by either \"key\" or \"value\"")),
            };
            let Value::Dict(dict) = &value else {
                return Err(Error::fails(format!("'{}' object has no attribute 'items'", value.type_name())));
            };
            let case_sensitive = truth(case_sensitive);
            let keys = dict
                .entries
                .iter()
                .map(|(key, value)| caseless(if place == 0 { key } else { value }.clone(), case_sensitive))
                .collect::<Result<_>>()?;
            let pairs = super::value::view_items(dict, super::value::View::Items)?;
            Value::list(sorted(keys, pairs, truth(reverse))?)
        }
        "sort" => {
            let names = ["reverse", "case_sensitive", "attribute"];
            let [reverse, case_sensitive, attribute] = arguments.bind(name, names, 0)?;
            let attribute = attribute.unwrap_or(Value::None);
            let paths = match &attribute {
                Value::Str(text) => text.split(',').map(|text| path(&Value::text(text))).collect::<Result<Vec<_>>>()?,
                other => vec![path(other)?],
            };
            let case_sensitive = truth(case_sensitive);
            let items = items_of(&value)?;
            let mut keys = Vec::with_capacity(items.len());
            for item in &items {
                let key = paths
                    .iter()
                    .map(|path| caseless(follow(item, path, None)?, case_sensitive))
                    .collect::<Result<_>>()?;
                keys.push(Value::list(key)?);
            }
            Value::list(sorted(keys, items, truth(reverse))?)
        }
        "unique" | "min" | "max" => {
            let [case_sensitive, attribute] = arguments.bind(name, ["case_sensitive", "attribute"], 0)?;
            let path = path(&attribute.unwrap_or(Value::None))?;
            let case_sensitive = truth(case_sensitive);
            let key = |item: &Value| caseless(follow(item, &path, None)?, case_sensitive);
            if name == "unique" { unique(&value, key) } else { extreme(name, &value, key) }
        }
        "groupby" => {
            let names = ["attribute", "default", "case_sensitive"];
            let [attribute, default, case_sensitive] = arguments.bind(name, names, 1)?;
            let default = default.filter(|default| !matches!(default, Value::None));
            grouped(&value, &attribute.unwrap_or(Value::None), default.as_ref(), truth(case_sensitive))
        }
        "sum" => {
            let [attribute, start] = arguments.bind(name, ["attribute", "start"], 0)?;
            let attribute = attribute.unwrap_or(Value::None);
            let path = path(&attribute)?;
            let mut sum = start.unwrap_or(Value::Int(0));
            if matches!(sum, Value::Str(_) | Value::Safe(_)) {
                return Err(Error::fails("sum() can't sum strings"));
            }
            for item in items_of(&value)? {
                let item = follow(&item, &path, None)?;
                if matches!(item, Value::Float(_)) {
                    // Newer versions of Python compensate for rounding here, older ones do not.
                    return Err(Error::refused("a sum of floats"));
                }
                sum = operators::binary(Operator::Add, &sum, &item)?;
            }
            Ok(sum)
        }
        "batch" | "slice" => {
            let count = if name == "batch" { "linecount" } else { "slices" };
            let [count, fill] = arguments.bind(name, [count, "fill_with"], 1)?;
            let fill = fill.filter(|fill| !matches!(fill, Value::None));
            let Some(count) = count.as_ref().and_then(integer).and_then(|count| usize::try_from(count).ok()) else {
                return Err(Error::refused(format!("{name} with a count that is no positive integer")));
            };
            if count == 0 {
                return Err(Error::refused(format!("{name} with a count of 0")));
            }
            fuel::charge(count)?;
            let items = items_of(&value)?;
            let lists = if name == "batch" { batches(&items, count, fill) } else { slices(&items, count, fill) };
            Ok(Value::iterator(lists.into_iter().map(Value::list).collect::<Result<_>>()?, None))
        }
        _ if exists(name) => Err(Error::refused(format!("the filter {name}"))),
        _ => Err(Error::fails(format!("no filter named {name:?}"))),
    }
}

fn batches(items: &[Value], count: usize, fill: Option<Value>) -> Vec<Vec<Value>> {
    let mut batches: Vec<Vec<Value>> = items.chunks(count).map(<[Value]>::to_vec).collect();
    if let (Some(last), Some(fill)) = (batches.last_mut(), fill) {
        last.resize(count, fill);
    }
    batches
}

fn slices(items: &[Value], count: usize, fill: Option<Value>) -> Vec<Vec<Value>> {
    let (each, longer) = (items.len() / count, items.len() % count);
    let mut slices = Vec::with_capacity(count);
    let mut start = 0;
    for place in 0..count {
        let end = start + each + usize::from(place < longer);
        let mut slice = items[start..end].to_vec();
        if let Some(fill) = &fill
            && place >= longer
        {
            slice.push(fill.clone());
        }
        slices.push(slice);
        start = end;
    }
    slices
}

fn unique(value: &Value, key: impl Fn(&Value) -> Result<Value>) -> Result<Value> {
    let mut seen = HashSet::new();
    let mut given = Vec::new();
    let mut error = None;
    for item in items_of(value)? {
        match key(&item).and_then(|key| key.key()) {
            Ok(key) => {
                if seen.insert(key) {
                    given.push(item);
                }
            }
            Err(failed) => {
                error = Some(failed);
                break;
            }
        }
    }
    Ok(Value::iterator(given, error))
}

fn extreme(name: &str, value: &Value, key: impl Fn(&Value) -> Result<Value>) -> Result<Value> {
    let mut best: Option<(Value, Value)> = None;
    for item in items_of(value)? {
        let key = key(&item)?;
        let better = match &best {
            None => true,
            Some((_, best)) if name == "min" => key.order(best, "<")? == Some(Ordering::Less),
            Some((_, best)) => key.order(best, ">")? == Some(Ordering::Greater),
        };
        if better {
            best = Some((item, key));
        }
    }
    Ok(best.map_or_else(|| Value::Undefined("No aggregated item, sequence was empty.".into()), |(item, _)| item))
}

fn grouped(value: &Value, attribute: &Value, default: Option<&Value>, case_sensitive: bool) -> Result<Value> {
    let path = path(attribute)?;
    let items = items_of(value)?;
    let keys =
        items.iter().map(|item| caseless(follow(item, &path, default)?, case_sensitive)).collect::<Result<Vec<_>>>()?;
    let pairs = keys.iter().cloned().zip(items).collect();
    let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
    for (key, item) in sorted(keys, pairs, false)? {
        match groups.last_mut() {
            Some((last, items)) if last.equals(&key)? => items.push(item),
            _ => groups.push((key, vec![item])),
        }
    }
    let mut out = Vec::with_capacity(groups.len());
    for (key, items) in groups {
        let grouper = if case_sensitive { key } else { follow(&items[0], &path, default)? };
        out.push(Value::group(grouper, Value::list(items)?)?);
    }
    Value::list(out)
}

/// Items in the order of their keys; those with equal keys stay in their order, reversed or not.
pub(super) fn sorted<T>(keys: Vec<Value>, items: Vec<T>, reverse: bool) -> Result<Vec<T>> {
    // Not the standard library's sort, which may panic where a comparison fails half-way.
    let mut pairs: Vec<Option<(Value, T)>> = keys.into_iter().zip(items).map(Some).collect();
    if reverse {
        pairs.reverse();
    }
    let mut width = 1;
    while width < pairs.len() {
        let mut merged = Vec::with_capacity(pairs.len());
        for start in (0..pairs.len()).step_by(2 * width) {
            let middle = (start + width).min(pairs.len());
            let end = (start + 2 * width).min(pairs.len());
            let (mut left, mut right) = (start, middle);
            while left < middle || right < end {
                let from_right = match (pairs[left..middle].first(), pairs[right..end].first()) {
                    (Some(Some((left, _))), Some(Some((right, _)))) => right.order(left, "<")? == Some(Ordering::Less),
                    (left, _) => left.is_none(),
                };
                let taken = if from_right { &mut right } else { &mut left };
                merged.push(pairs[*taken].take());
                *taken += 1;
            }
        }
        pairs = merged;
        width *= 2;
    }
    if reverse {
        pairs.reverse();
    }
    Ok(pairs.into_iter().flatten().map(|(_, item)| item).collect())
}
