//! Operators, subscripts and slices as Python has them.

use std::rc::Rc;

use super::{
    attributes,
    error::{Error, Result},
    fuel, percent,
    syntax::Operator,
    text,
    value::{Value, integer, view_items},
};

fn overflow() -> Error {
    Error::refused("an integer that needs more than 64 bits")
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Float(value) => Some(*value),
        _ => integer(value).map(|value| value as f64),
    }
}

/// `left operator right`.
pub(super) fn binary(operator: Operator, left: &Value, right: &Value) -> Result<Value> {
    if let (Operator::Remainder, Value::Str(format)) = (operator, left) {
        return percent::format(format, right).map(Value::text);
    }
    if let Value::Undefined(message) = left {
        return Err(Error::fails(&**message));
    }
    if let Value::Undefined(message) = right {
        return Err(Error::fails(&**message));
    }
    if matches!(left, Value::Safe(_)) || matches!(right, Value::Safe(_)) {
        return Err(Error::refused("an operator on a text that was marked as safe"));
    }
    if let (Some(left), Some(right)) = (integer(left), integer(right)) {
        return integers(operator, left, right);
    }
    if let (Some(left), Some(right)) = (number(left), number(right)) {
        return floats(operator, left, right);
    }
    match (operator, left, right) {
        (Operator::Add, Value::Str(left), Value::Str(right)) => {
            fuel::charge(left.len() + right.len())?;
            Ok(Value::text(format!("{left}{right}")))
        }
        (Operator::Add, Value::List(left), Value::List(right)) => {
            fuel::charge(left.values.len() + right.values.len())?;
            Value::list(left.values.iter().chain(&right.values).cloned().collect())
        }
        (Operator::Add, Value::Tuple(left), Value::Tuple(right)) => {
            fuel::charge(left.values.len() + right.values.len())?;
            Value::tuple(left.values.iter().chain(&right.values).cloned().collect())
        }
        (Operator::Multiply, sequence, count) | (Operator::Multiply, count, sequence)
            if integer(count).is_some() && matches!(sequence, Value::Str(_) | Value::List(_) | Value::Tuple(_)) =>
        {
            repeated(sequence, integer(count).unwrap_or(0))
        }
        _ => Err(Error::fails(format!(
            "unsupported operand type(s) for {}: '{}' and '{}'",
            symbol(operator),
            left.type_name(),
            right.type_name()
        ))),
    }
}

fn symbol(operator: Operator) -> &'static str {
    match operator {
        Operator::Add => "+",
        Operator::Subtract => "-",
        Operator::Multiply => "*",
        Operator::Divide => "/",
        Operator::FloorDivide => "//",
        Operator::Remainder => "%",
        Operator::Power => "**",
    }
}

fn repeated(sequence: &Value, count: i64) -> Result<Value> {
    let count = usize::try_from(count.max(0)).unwrap_or(usize::MAX);
    match sequence {
        Value::Str(text) => {
            fuel::charge(text.len().saturating_mul(count))?;
            Ok(Value::text(text.repeat(count)))
        }
        Value::List(items) | Value::Tuple(items) => {
            fuel::charge(items.values.len().saturating_mul(count))?;
            let mut values = Vec::with_capacity(items.values.len() * count);
            for _ in 0..if items.values.is_empty() { 0 } else { count } {
                values.extend(items.values.iter().cloned());
            }
            if matches!(sequence, Value::List(_)) { Value::list(values) } else { Value::tuple(values) }
        }
        _ => Err(Error::fails("can't multiply")),
    }
}

fn integers(operator: Operator, left: i64, right: i64) -> Result<Value> {
    let division = || Error::fails("division by zero");
    Ok(match operator {
        Operator::Add => Value::Int(left.checked_add(right).ok_or_else(overflow)?),
        Operator::Subtract => Value::Int(left.checked_sub(right).ok_or_else(overflow)?),
        Operator::Multiply => Value::Int(left.checked_mul(right).ok_or_else(overflow)?),
        Operator::Divide if right == 0 => return Err(division()),
        Operator::Divide => {
            let exact = |value: i64| value.unsigned_abs() <= 1 << 53;
            if !exact(left) || !exact(right) {
                return Err(Error::refused("dividing integers of more than 53 bits"));
            }
            Value::Float(left as f64 / right as f64)
        }
        Operator::FloorDivide if right == 0 => return Err(division()),
        Operator::FloorDivide => {
            let quotient = left.checked_div(right).ok_or_else(overflow)?;
            Value::Int(if left % right != 0 && (left < 0) != (right < 0) { quotient - 1 } else { quotient })
        }
        Operator::Remainder if right == 0 => return Err(division()),
        Operator::Remainder => {
            let remainder = left.checked_rem(right).unwrap_or(0);
            Value::Int(if remainder != 0 && (remainder < 0) != (right < 0) { remainder + right } else { remainder })
        }
        Operator::Power if right < 0 => return Err(Error::refused("a negative power")),
        Operator::Power => {
            let power = u32::try_from(right).ok().and_then(|right| left.checked_pow(right));
            Value::Int(power.ok_or_else(overflow)?)
        }
    })
}

fn floats(operator: Operator, left: f64, right: f64) -> Result<Value> {
    let division = || Error::fails("float division by zero");
    Ok(Value::Float(match operator {
        Operator::Add => left + right,
        Operator::Subtract => left - right,
        Operator::Multiply => left * right,
        Operator::Divide if right == 0.0 => return Err(division()),
        Operator::Divide => left / right,
        Operator::FloorDivide | Operator::Remainder if right == 0.0 => return Err(division()),
        Operator::FloorDivide | Operator::Remainder => {
            let (quotient, remainder) = divided(left, right);
            if operator == Operator::FloorDivide { quotient } else { remainder }
        }
        Operator::Power => return Err(Error::refused("a power of floats")),
    }))
}

/// Python's `divmod` of two floats.
fn divided(left: f64, right: f64) -> (f64, f64) {
    let mut remainder = left % right;
    let mut quotient = (left - remainder) / right;
    if remainder == 0.0 {
        remainder = 0.0_f64.copysign(right);
    } else if (right < 0.0) != (remainder < 0.0) {
        remainder += right;
        quotient -= 1.0;
    }
    let quotient = if quotient == 0.0 {
        0.0_f64.copysign(left / right)
    } else {
        let floor = quotient.floor();
        if quotient - floor > 0.5 { floor + 1.0 } else { floor }
    };
    (quotient, remainder)
}

/// `-value` or `+value`.
pub(super) fn signed(value: &Value, negative: bool) -> Result<Value> {
    match value {
        Value::Undefined(message) => Err(Error::fails(&**message)),
        Value::Float(value) => Ok(Value::Float(if negative { -value } else { *value })),
        _ => match integer(value) {
            Some(value) if negative => Ok(Value::Int(value.checked_neg().ok_or_else(overflow)?)),
            Some(value) => Ok(Value::Int(value)),
            None => Err(Error::fails(format!(
                "bad operand type for unary {}: '{}'",
                if negative { '-' } else { '+' },
                value.type_name()
            ))),
        },
    }
}

/// `item in container`.
pub(super) fn contains(container: &Value, item: &Value) -> Result<bool> {
    let among = |items: &[Value]| {
        for value in items {
            if value.equals(item)? {
                return Ok(true);
            }
        }
        Ok(false)
    };
    match container {
        Value::Undefined(_) => Ok(false),
        Value::Str(text) | Value::Safe(text) => match item {
            Value::Str(part) | Value::Safe(part) => {
                fuel::charge(text.len() / 16)?;
                Ok(text.contains(&**part))
            }
            _ => Err(Error::fails(format!("'in <string>' requires string as left operand, not {}", item.type_name()))),
        },
        Value::List(items) | Value::Tuple(items) => among(&items.values),
        Value::Dict(dict) | Value::View(dict, super::value::View::Keys) => Ok(dict.get(item)?.is_some()),
        Value::View(dict, view) => among(&view_items(dict, *view)?),
        Value::Range { .. } | Value::Iterator(_) => {
            if matches!(container, Value::Iterator(_)) {
                return Err(Error::refused("`in` on a generator, which it uses up in part"));
            }
            among(&items_of(container)?)
        }
        Value::Namespace(_) | Value::Loop(_) => Err(Error::refused(format!("`in` on a {}", container.type_name()))),
        _ => Err(Error::fails(format!("argument of type '{}' is not iterable", container.type_name()))),
    }
}

/// All items that iterating gives; a generator is used up.
pub(super) fn items_of(value: &Value) -> Result<Vec<Value>> {
    Ok(match value {
        Value::Undefined(_) => Vec::new(),
        Value::Str(text) => {
            fuel::charge(text.len())?;
            text.chars().map(|c| Value::text(c.to_string())).collect()
        }
        Value::Safe(_) => return Err(Error::refused("the characters of a text that was marked as safe")),
        Value::List(items) | Value::Tuple(items) => {
            fuel::charge(items.values.len())?;
            items.values.clone()
        }
        Value::Dict(dict) => {
            fuel::charge(dict.entries.len())?;
            dict.entries.iter().map(|(key, _)| key.clone()).collect()
        }
        Value::View(dict, view) => {
            fuel::charge(dict.entries.len())?;
            view_items(dict, *view)?
        }
        &Value::Range { start, step, .. } => {
            let len = usize::try_from(value.range_len()).unwrap_or(usize::MAX);
            fuel::charge(len)?;
            (0..len as i64).map(|index| Value::Int(start + index * step)).collect()
        }
        Value::Iterator(items) => {
            let mut items = items.borrow_mut();
            fuel::charge(items.values.len())?;
            if let Some(error) = items.error.take() {
                return Err(error);
            }
            std::mem::take(&mut items.values).into()
        }
        Value::Loop(_) => return Err(Error::refused("iterating over the loop itself")),
        _ => return Err(Error::fails(format!("'{}' object is not iterable", value.type_name()))),
    })
}

/// Whether `iter(value)` works.
pub(super) fn is_iterable(value: &Value) -> Result<bool> {
    Ok(match value {
        Value::Undefined(_)
        | Value::Str(_)
        | Value::Safe(_)
        | Value::List(_)
        | Value::Tuple(_)
        | Value::Dict(_)
        | Value::View(..)
        | Value::Range { .. }
        | Value::Iterator(_)
        | Value::Loop(_) => true,
        Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Macro(_) | Value::Method(_) => false,
        Value::Namespace(_) => false,
        Value::Function(_) => return Err(Error::refused("whether a function is iterable")),
    })
}

/// A sequence's item at an index that may be negative.
fn at(values: &[Value], index: i64) -> Option<&Value> {
    let len = values.len() as i64;
    let index = if index < 0 { index + len } else { index };
    usize::try_from(index).ok().and_then(|index| values.get(index))
}

/// `value[key]`: the item, else the attribute of that name, else undefined.
pub(super) fn item(value: &Value, key: &Value) -> Result<Value> {
    let found = match value {
        Value::Undefined(message) => return Err(Error::fails(&**message)),
        Value::Dict(dict) => match key {
            // Python fails to look up what cannot be a key, and jinja2 takes that for a missing item.
            Value::List(_) | Value::Dict(_) | Value::View(..) => None,
            Value::Undefined(_) => return Err(Error::refused("a subscript that is undefined")),
            _ => dict.get(key)?.cloned(),
        },
        Value::List(items) | Value::Tuple(items) => integer(key).and_then(|index| at(&items.values, index).cloned()),
        Value::Str(text) => match integer(key) {
            Some(index) => {
                fuel::charge(text.len() / 16)?;
                let index = if index < 0 { index + text.chars().count() as i64 } else { index };
                let found = usize::try_from(index).ok().and_then(|index| text.chars().nth(index));
                found.map(|c| Value::text(c.to_string()))
            }
            None => None,
        },
        &Value::Range { start, step, .. } => integer(key).and_then(|index| {
            let len = value.range_len();
            let index = if index < 0 { index + len } else { index };
            (0..len).contains(&index).then(|| Value::Int(start + index * step))
        }),
        Value::Safe(_) => return Err(Error::refused("a subscript of a text that was marked as safe")),
        _ => None,
    };
    if let Some(found) = found {
        return Ok(found);
    }
    if let Value::Str(name) = key
        && let Some(attribute) = attributes::own(value, name)?
    {
        return Ok(attribute);
    }
    missing(value, key)
}

/// What jinja2 gives for an item or attribute that is not there.
pub(super) fn missing(value: &Value, key: &Value) -> Result<Value> {
    let message = match key {
        Value::Str(name) => format!("'{} object' has no attribute '{name}'", value.type_name()),
        _ => {
            let mut shown = String::new();
            key.write_repr(&mut shown).unwrap_or_default();
            format!("{} object has no element {shown}", value.type_name())
        }
    };
    Ok(Value::Undefined(message.into()))
}

/// `value[start:stop:step]`.
pub(super) fn slice(value: &Value, [start, stop, step]: [Option<Value>; 3]) -> Result<Value> {
    let bound = |bound: Option<Value>| match bound {
        None | Some(Value::None) => Ok(None),
        Some(value) => integer(&value)
            .map(Some)
            .ok_or_else(|| Error::fails(format!("slice indices must be integers or None, not {}", value.type_name()))),
    };
    let len = match value {
        Value::Str(text) => {
            fuel::charge(text.len())?;
            text.chars().count()
        }
        Value::List(items) | Value::Tuple(items) => {
            fuel::charge(items.values.len())?;
            items.values.len()
        }
        Value::Undefined(message) => return Err(Error::fails(&**message)),
        Value::Safe(_) | Value::Range { .. } => {
            return Err(Error::refused(format!("a slice of a {}", value.type_name())));
        }
        _ => return Err(Error::fails(format!("a {} has no slices", value.type_name()))),
    };
    let [start, stop, step] = [bound(start)?, bound(stop)?, bound(step)?];
    let places = places(len as i64, start, stop, step.unwrap_or(1))?;
    match value {
        Value::Str(text) => {
            let chars: Vec<char> = text.chars().collect();
            Ok(Value::text(places.into_iter().map(|place| chars[place]).collect::<String>()))
        }
        Value::List(items) | Value::Tuple(items) => {
            let values = places.into_iter().map(|place| items.values[place].clone()).collect();
            if matches!(value, Value::List(_)) { Value::list(values) } else { Value::tuple(values) }
        }
        _ => Err(Error::fails("not subscriptable")),
    }
}

/// Indices of a slice, by Python's rule.
fn places(len: i64, start: Option<i64>, stop: Option<i64>, step: i64) -> Result<Vec<usize>> {
    if step == 0 {
        return Err(Error::fails("slice step cannot be zero"));
    }
    let (low, high) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let clamp = |bound: i64| if bound < 0 { bound.saturating_add(len).max(low) } else { bound.min(high) };
    let start = start.map_or(if step > 0 { low } else { high }, clamp);
    let stop = stop.map_or(if step > 0 { high } else { low }, clamp);
    let mut places = Vec::new();
    let mut at = start;
    while (step > 0 && at < stop) || (step < 0 && at > stop) {
        places.push(at as usize);
        match at.checked_add(step) {
            Some(next) => at = next,
            None => break,
        }
    }
    Ok(places)
}

/// Python's `''.join(map(str, values))`.
pub(super) fn joined(values: &[Value], separator: &str) -> Result<Rc<str>> {
    let mut out = String::new();
    for (place, value) in values.iter().enumerate() {
        if place > 0 {
            out.push_str(separator);
        }
        let text = value.to_text()?;
        fuel::charge(text.len() + separator.len() + 1)?;
        out.push_str(&text);
    }
    Ok(out.into())
}

/// A text from a character index on.
pub(super) fn from_index(text: &str, index: usize) -> &str {
    &text[text::offset(text, index)..]
}
