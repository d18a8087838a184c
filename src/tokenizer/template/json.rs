//! Python's `json.dumps`, as transformers gives it to templates under the name `tojson`.

use super::{
    arguments::{Arguments, expect_text},
    error::{Error, Result},
    filters::sorted,
    fuel,
    operators::items_of,
    text,
    value::{Value, integer},
};

struct Form {
    ascii: bool,
    indent: Option<String>,
    between: String,
    after_key: String,
    sorted: bool,
}

/// `value | tojson(ensure_ascii, indent, separators, sort_keys)`.
pub(super) fn to_json(value: &Value, arguments: Arguments) -> Result<Value> {
    let names = ["ensure_ascii", "indent", "separators", "sort_keys"];
    let [ascii, indent, separators, sorted] = arguments.bind("tojson", names, 0)?;
    let truth = |value: Option<Value>| value.is_some_and(|value| value.truth());
    let indent = match indent {
        None | Some(Value::None) => None,
        Some(Value::Str(indent)) => Some(indent.to_string()),
        Some(indent) => match integer(&indent) {
            Some(width) => {
                let width = usize::try_from(width.max(0)).unwrap_or(usize::MAX);
                fuel::charge(width)?;
                Some(" ".repeat(width))
            }
            None => return Err(Error::refused("tojson with an indent that is no integer")),
        },
    };
    let (between, after_key) = match separators {
        None | Some(Value::None) => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
        Some(separators) => match &items_of(&separators)?[..] {
            [between, after_key] => {
                (expect_text(between, "tojson")?.to_string(), expect_text(after_key, "tojson")?.to_string())
            }
            _ => return Err(Error::fails("tojson takes two separators")),
        },
    };
    let form = Form { ascii: truth(ascii), indent, between, after_key, sorted: truth(sorted) };
    let mut out = String::new();
    form.write(value, 0, &mut out)?;
    Ok(Value::text(out))
}

impl Form {
    fn write(&self, value: &Value, depth: usize, out: &mut String) -> Result<()> {
        fuel::charge(1)?;
        match value {
            Value::None => out.push_str("null"),
            Value::Bool(true) => out.push_str("true"),
            Value::Bool(false) => out.push_str("false"),
            Value::Int(value) => out.push_str(&value.to_string()),
            Value::Float(value) => out.push_str(&number(*value)),
            Value::Str(text) | Value::Safe(text) => self.text(text, out)?,
            Value::List(items) | Value::Tuple(items) => {
                if items.values.is_empty() {
                    out.push_str("[]");
                    return Ok(());
                }
                out.push('[');
                for (place, item) in items.values.iter().enumerate() {
                    self.separate(place, depth + 1, out)?;
                    self.write(item, depth + 1, out)?;
                }
                self.line(depth, out)?;
                out.push(']');
            }
            Value::Dict(dict) => {
                if dict.entries.is_empty() {
                    out.push_str("{}");
                    return Ok(());
                }
                let entries = if self.sorted {
                    let keys = dict.entries.iter().map(|(key, _)| key.clone()).collect();
                    sorted(keys, dict.entries.clone(), false)?
                } else {
                    dict.entries.clone()
                };
                out.push('{');
                for (place, (key, value)) in entries.iter().enumerate() {
                    self.separate(place, depth + 1, out)?;
                    match key {
                        Value::Str(text) | Value::Safe(text) => self.text(text, out)?,
                        Value::None => out.push_str("\"null\""),
                        Value::Bool(value) => out.push_str(if *value { "\"true\"" } else { "\"false\"" }),
                        Value::Int(value) => out.push_str(&format!("\"{value}\"")),
                        Value::Float(value) => out.push_str(&format!("\"{}\"", number(*value))),
                        _ => {
                            return Err(Error::fails(format!(
                                "keys must be str, int, float, bool or None, not {}",
                                key.type_name()
                            )));
                        }
                    }
                    out.push_str(&self.after_key);
                    self.write(value, depth + 1, out)?;
                }
                self.line(depth, out)?;
                out.push('}');
            }
            _ => {
                return Err(Error::fails(format!("Object of type {} is not JSON serializable", value.type_name())));
            }
        }
        Ok(())
    }

    fn separate(&self, place: usize, depth: usize, out: &mut String) -> Result<()> {
        if place > 0 {
            out.push_str(&self.between);
        }
        self.line(depth, out)
    }

    fn line(&self, depth: usize, out: &mut String) -> Result<()> {
        if let Some(indent) = &self.indent {
            fuel::charge(1 + indent.len() * depth)?;
            out.push('\n');
            out.push_str(&indent.repeat(depth));
        }
        Ok(())
    }

    fn text(&self, text: &str, out: &mut String) -> Result<()> {
        fuel::charge(text.len())?;
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\x0c' => out.push_str("\\f"),
                '\x08' => out.push_str("\\b"),
                _ if c < ' ' || (self.ascii && c > '~') => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                _ => out.push(c),
            }
        }
        out.push('"');
        Ok(())
    }
}

fn number(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
    } else {
        text::float(value)
    }
}
