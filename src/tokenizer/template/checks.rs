//! jinja2's tests: what may follow `is`.

use super::{
    arguments::{Arguments, expect_integer},
    error::{Error, Result},
    filters,
    interpreter::compared,
    operators::{self, is_iterable},
    syntax::{Comparison, Operator},
    text::is_case,
    value::{Value, integer},
};

const NAMES: [&str; 39] = [
    "odd",
    "even",
    "divisibleby",
    "defined",
    "undefined",
    "filter",
    "test",
    "none",
    "boolean",
    "false",
    "true",
    "integer",
    "float",
    "lower",
    "upper",
    "string",
    "mapping",
    "number",
    "sequence",
    "iterable",
    "callable",
    "sameas",
    "escaped",
    "in",
    "==",
    "eq",
    "equalto",
    "!=",
    "ne",
    ">",
    "gt",
    "greaterthan",
    "ge",
    ">=",
    "<",
    "lt",
    "lessthan",
    "<=",
    "le",
];

/// Whether jinja2 has such a test.
pub(super) fn exists(name: &str) -> bool {
    NAMES.contains(&name)
}

/// `value is name(arguments)`.
pub(super) fn check(name: &str, value: &Value, arguments: Arguments) -> Result<bool> {
    let comparison = match name {
        "==" | "eq" | "equalto" => Some(Comparison::Equal),
        "!=" | "ne" => Some(Comparison::NotEqual),
        ">" | "gt" | "greaterthan" => Some(Comparison::Greater),
        ">=" | "ge" => Some(Comparison::GreaterOrEqual),
        "<" | "lt" | "lessthan" => Some(Comparison::Less),
        "<=" | "le" => Some(Comparison::LessOrEqual),
        "in" => Some(Comparison::In),
        _ => None,
    };
    if let Some(comparison) = comparison {
        let [other] = if name == "in" { arguments.bind(name, ["seq"], 1)? } else { arguments.positional(name, 1)? };
        return compared(comparison, value, &other.unwrap_or(Value::None));
    }
    let text = |value: &Value| value.to_text();
    match name {
        "divisibleby" => {
            let [by] = arguments.bind(name, ["num"], 1)?;
            let remainder = operators::binary(Operator::Remainder, value, &by.unwrap_or(Value::None))?;
            return remainder.equals(&Value::Int(0));
        }
        "sameas" => {
            let [other] = arguments.bind(name, ["other"], 1)?;
            return same(value, &other.unwrap_or(Value::None));
        }
        _ => {
            let [] = arguments.bind(name, [], 0)?;
        }
    }
    Ok(match name {
        "odd" | "even" => {
            if matches!(value, Value::Float(_)) {
                let rest = operators::binary(Operator::Remainder, value, &Value::Int(2))?;
                return rest.equals(&Value::Int(i64::from(name == "odd")));
            }
            if let Value::Undefined(message) = value {
                return Err(Error::fails(&**message));
            }
            (expect_integer(value, name)?.rem_euclid(2) == 1) == (name == "odd")
        }
        "defined" => !matches!(value, Value::Undefined(_)),
        "undefined" => matches!(value, Value::Undefined(_)),
        "filter" | "test" => match value {
            Value::Str(text) if name == "filter" => filters::exists(text),
            Value::Str(text) => exists(text),
            Value::Undefined(_) => false,
            _ => value.key().map(|_| false)?,
        },
        "none" => matches!(value, Value::None),
        "boolean" => matches!(value, Value::Bool(_)),
        "false" => matches!(value, Value::Bool(false)),
        "true" => matches!(value, Value::Bool(true)),
        "integer" => matches!(value, Value::Int(_)),
        "float" => matches!(value, Value::Float(_)),
        "number" => matches!(value, Value::Bool(_) | Value::Int(_) | Value::Float(_)),
        "lower" => is_case(&text(value)?, false),
        "upper" => is_case(&text(value)?, true),
        "string" => matches!(value, Value::Str(_) | Value::Safe(_)),
        "escaped" => matches!(value, Value::Safe(_)),
        "mapping" => matches!(value, Value::Dict(_)),
        "sequence" => matches!(
            value,
            Value::Undefined(_)
                | Value::Str(_)
                | Value::Safe(_)
                | Value::List(_)
                | Value::Tuple(_)
                | Value::Dict(_)
                | Value::Range { .. }
        ),
        "iterable" => is_iterable(value)?,
        "callable" => matches!(
            value,
            Value::Undefined(_) | Value::Macro(_) | Value::Function(_) | Value::Method(_) | Value::Loop(_)
        ),
        _ => return Err(Error::fails(format!("no test named {name:?}"))),
    })
}

/// Python's `left is right`, where it depends on the values alone.
fn same(left: &Value, right: &Value) -> Result<bool> {
    match (left, right) {
        (Value::None, Value::None) => Ok(true),
        (Value::Bool(left), Value::Bool(right)) => Ok(left == right),
        _ if left.type_name() != right.type_name() => Ok(false),
        _ if integer(left).is_some() && !left.equals(right)? => Ok(false),
        (Value::Str(_), Value::Str(_)) if !left.equals(right)? => Ok(false),
        _ => Err(Error::refused(format!("whether two values of type {} are the same", left.type_name()))),
    }
}
