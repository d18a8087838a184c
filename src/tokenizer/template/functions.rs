//! The functions that transformers and jinja2 give to a template.

use std::rc::Rc;

use super::{
    arguments::{Arguments, expect_integer, expect_text},
    error::{Error, Result},
    interpreter::Interpreter,
    operators::items_of,
    value::{Namespace, Value},
};

/// Most items of a `range`, as the sandbox has it.
const MAX_RANGE: i64 = 100_000;

/// What a template can ask of the world.
pub(super) trait Environment {
    /// Today's date and the time, by a format of `strftime`.
    fn now(&self, format: &str) -> Result<String>;
}

/// The function that a name stands for where nothing else has it.
pub(super) fn find(name: &str) -> Result<Option<&'static str>> {
    for known in ["range", "dict", "namespace", "raise_exception", "strftime_now"] {
        if name == known {
            return Ok(Some(known));
        }
    }
    match name {
        "cycler" | "joiner" | "lipsum" | "self" | "super" => Err(Error::refused(format!("the function {name}"))),
        _ => Ok(None),
    }
}

/// Calls a function.
pub(super) fn call(interpreter: &mut Interpreter<'_>, name: &str, arguments: Arguments) -> Result<Value> {
    match name {
        "range" => range(arguments),
        "dict" => Value::dict(pairs(arguments)?),
        "namespace" => {
            let mut entries: Vec<(Rc<str>, Value)> = Vec::new();
            for (key, value) in pairs(arguments)? {
                let Value::Str(name) = key else {
                    return Err(Error::refused("a namespace with a key that is no text"));
                };
                if name.starts_with('_') {
                    return Err(Error::fails(format!("a namespace cannot store {name:?}")));
                }
                match entries.iter_mut().find(|(other, _)| *other == name) {
                    Some((_, old)) => *old = value,
                    None => entries.push((name, value)),
                }
            }
            Ok(interpreter.keep(Namespace::new(entries)?))
        }
        "raise_exception" => {
            let [message] = arguments.bind(name, ["message"], 1)?;
            Err(Error::raised(&*message.unwrap_or(Value::None).to_text()?))
        }
        _ => {
            let [format] = arguments.bind(name, ["format"], 1)?;
            let format = format.unwrap_or(Value::None);
            interpreter.environment.now(expect_text(&format, "strftime_now")?).map(Value::text)
        }
    }
}

fn range(arguments: Arguments) -> Result<Value> {
    let bounds: [Option<Value>; 3] = arguments.positional("range", 1)?;
    if let Some(Value::Undefined(message)) = bounds.iter().flatten().find(|bound| matches!(bound, Value::Undefined(_)))
    {
        return Err(Error::fails(&**message));
    }
    let [first, second, third] = bounds;
    let bound = |value: Option<Value>, absent| match value {
        Some(value) => expect_integer(&value, "range"),
        None => Ok(absent),
    };
    let one = second.is_none();
    let first = bound(first, 0)?;
    let second = bound(second, 0)?;
    let step = bound(third, 1)?;
    if step == 0 {
        return Err(Error::fails("range() arg 3 must not be zero"));
    }
    let range = if one {
        Value::Range { start: 0, stop: first, step: 1 }
    } else {
        Value::Range { start: first, stop: second, step }
    };
    if range.range_len() > MAX_RANGE {
        return Err(Error::fails(format!("the sandbox blocks ranges of more than {MAX_RANGE} items")));
    }
    Ok(range)
}

/// The pairs that `dict(...)` takes.
fn pairs(arguments: Arguments) -> Result<Vec<(Value, Value)>> {
    let mut pairs = Vec::new();
    let mut positional = arguments.positional.into_iter();
    match positional.next() {
        None => {}
        Some(Value::Dict(dict)) => pairs.extend(dict.entries.iter().cloned()),
        Some(Value::Namespace(_)) => return Err(Error::refused("a dict of a namespace")),
        Some(other) => {
            for pair in items_of(&other)? {
                let mut items = items_of(&pair)?.into_iter();
                match (items.next(), items.next(), items.next()) {
                    (Some(key), Some(value), None) => pairs.push((key, value)),
                    _ => return Err(Error::fails("dict takes pairs")),
                }
            }
        }
    }
    if positional.next().is_some() {
        return Err(Error::fails("dict expected at most 1 argument"));
    }
    pairs.extend(arguments.named.into_iter().map(|(name, value)| (Value::Str(name), value)));
    Ok(pairs)
}
