//! What a template computes with: Python's values, with Python's equality, order, truth and texts.

use std::{
    cell::{Cell, RefCell},
    cmp::Ordering,
    collections::{HashMap, VecDeque},
    rc::Rc,
    sync::Arc,
};

use super::{
    error::{Error, Result},
    fuel,
    interpreter::{Loop, ScopeId},
    syntax::Macro,
    text,
};

/// How deep lists, tuples, dicts and namespaces may hold one another.
const MAX_DEPTH: u32 = 100;

/// A value of Python that templates meet.
#[derive(Clone)]
pub(super) enum Value {
    /// jinja2's `Undefined`, with what it says when it is used.
    Undefined(Rc<str>),
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(Rc<str>),
    /// Text that was marked as safe. It prints like a text; what it does otherwise depends on escaping, so most
    /// operations refuse it.
    Safe(Rc<str>),
    List(Rc<Items>),
    Tuple(Rc<Items>),
    Dict(Rc<Dict>),
    /// `dict.keys()`, `dict.values()`, `dict.items()`.
    View(Rc<Dict>, View),
    Range {
        start: i64,
        stop: i64,
        step: i64,
    },
    /// A generator: each item is given once.
    Iterator(Rc<RefCell<Remaining>>),
    Namespace(Rc<Namespace>),
    Macro(Rc<Closure>),
    Loop(Rc<Loop>),
    /// A function of the environment, by name.
    Function(&'static str),
    /// A method and the value that it belongs to.
    Method(Rc<(Value, &'static str)>),
}

/// Which view of a dict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    Keys,
    Values,
    Items,
}

/// The items of a list or a tuple.
pub(super) struct Items {
    pub(super) values: Vec<Value>,
    /// Whether they are a group of `groupby`, whose two items have names.
    pub(super) group: bool,
    depth: u32,
}

/// What a generator has left, and the failure that it ends with.
#[derive(Default)]
pub(super) struct Remaining {
    pub(super) values: VecDeque<Value>,
    pub(super) error: Option<Error>,
}

/// A dict, in the order of insertion.
pub(super) struct Dict {
    pub(super) entries: Vec<(Value, Value)>,
    index: HashMap<Key, usize>,
    depth: u32,
}

/// Attributes that a template may assign to.
pub(super) struct Namespace {
    pub(super) entries: RefCell<Vec<(Rc<str>, Value)>>,
    depth: Cell<u32>,
}

/// A macro and the scope where it was defined.
pub(super) struct Closure {
    pub(super) definition: Arc<Macro>,
    pub(super) scope: ScopeId,
}

/// What two keys of a dict must have in common to be the same: `1`, `1.0` and `True` are.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum Key {
    None,
    Int(i64),
    Float(u64),
    Str(Rc<str>),
    Tuple(Vec<Key>),
}

fn depth_of<'a>(values: impl IntoIterator<Item = &'a Value>) -> Result<u32> {
    let depth = 1 + values.into_iter().map(Value::depth).max().unwrap_or(0);
    if depth > MAX_DEPTH {
        return Err(Error::refused(format!("values that hold one another more than {MAX_DEPTH} deep")));
    }
    Ok(depth)
}

impl Dict {
    /// A dict of `pairs`; of two with one key the last value stays, at the first's place.
    pub(super) fn new(pairs: impl IntoIterator<Item = (Value, Value)>) -> Result<Self> {
        let mut dict = Self { entries: Vec::new(), index: HashMap::new(), depth: 1 };
        for (key, value) in pairs {
            let hashed = key.key()?;
            match dict.index.get(&hashed) {
                Some(&at) => dict.entries[at].1 = value,
                None => {
                    dict.index.insert(hashed, dict.entries.len());
                    dict.entries.push((key, value));
                }
            }
        }
        dict.depth = depth_of(dict.entries.iter().flat_map(|(key, value)| [key, value]))?;
        Ok(dict)
    }

    pub(super) fn get(&self, key: &Value) -> Result<Option<&Value>> {
        Ok(self.index.get(&key.key()?).map(|&at| &self.entries[at].1))
    }

    pub(super) fn by_name(&self, name: &str) -> Option<&Value> {
        self.index.get(&Key::Str(name.into())).map(|&at| &self.entries[at].1)
    }
}

impl Namespace {
    pub(super) fn new(entries: Vec<(Rc<str>, Value)>) -> Result<Self> {
        let depth = depth_of(entries.iter().map(|(_, value)| value))?;
        Ok(Self { entries: RefCell::new(entries), depth: Cell::new(depth) })
    }

    pub(super) fn get(&self, name: &str) -> Option<Value> {
        self.entries.borrow().iter().find(|(other, _)| **other == *name).map(|(_, value)| value.clone())
    }

    pub(super) fn set(&self, name: &str, value: Value) -> Result<()> {
        self.depth.set(self.depth.get().max(depth_of([&value])?));
        let mut entries = self.entries.borrow_mut();
        match entries.iter_mut().find(|(other, _)| **other == *name) {
            Some((_, old)) => *old = value,
            None => entries.push((name.into(), value)),
        }
        Ok(())
    }
}

impl Value {
    pub(super) fn text(text: impl Into<Rc<str>>) -> Self {
        Self::Str(text.into())
    }

    pub(super) fn list(values: Vec<Self>) -> Result<Self> {
        let depth = depth_of(&values)?;
        Ok(Self::List(Rc::new(Items { values, group: false, depth })))
    }

    pub(super) fn tuple(values: Vec<Self>) -> Result<Self> {
        let depth = depth_of(&values)?;
        Ok(Self::Tuple(Rc::new(Items { values, group: false, depth })))
    }

    /// A group of `groupby`.
    pub(super) fn group(grouper: Self, list: Self) -> Result<Self> {
        let values = vec![grouper, list];
        let depth = depth_of(&values)?;
        Ok(Self::Tuple(Rc::new(Items { values, group: true, depth })))
    }

    pub(super) fn dict(pairs: impl IntoIterator<Item = (Self, Self)>) -> Result<Self> {
        Ok(Self::Dict(Rc::new(Dict::new(pairs)?)))
    }

    /// A generator of what was computed before the first failure, and then that failure.
    pub(super) fn iterator(values: Vec<Self>, error: Option<Error>) -> Self {
        Self::Iterator(Rc::new(RefCell::new(Remaining { values: values.into(), error })))
    }

    fn depth(&self) -> u32 {
        match self {
            Self::List(items) | Self::Tuple(items) => items.depth,
            Self::Dict(dict) | Self::View(dict, _) => dict.depth,
            Self::Namespace(namespace) => namespace.depth.get(),
            Self::Iterator(items) => 1 + items.borrow().values.iter().map(Self::depth).max().unwrap_or(0),
            Self::Method(bound) => bound.0.depth(),
            Self::Macro(_) | Self::Loop(_) => 1,
            _ => 0,
        }
    }

    /// Python's name of the type.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Undefined(_) => "Undefined",
            Self::None => "NoneType",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Str(_) => "str",
            Self::Safe(_) => "Markup",
            Self::List(_) => "list",
            Self::Tuple(_) => "tuple",
            Self::Dict(_) => "dict",
            Self::View(_, View::Keys) => "dict_keys",
            Self::View(_, View::Values) => "dict_values",
            Self::View(_, View::Items) => "dict_items",
            Self::Range { .. } => "range",
            Self::Iterator(_) => "generator",
            Self::Namespace(_) => "Namespace",
            Self::Macro(_) => "Macro",
            Self::Loop(_) => "LoopContext",
            Self::Function(_) => "function",
            Self::Method(_) => "builtin_function_or_method",
        }
    }

    /// Python's `bool(value)`.
    pub(super) fn truth(&self) -> bool {
        match self {
            Self::Undefined(_) | Self::None => false,
            Self::Bool(value) => *value,
            Self::Int(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Str(text) | Self::Safe(text) => !text.is_empty(),
            Self::List(items) | Self::Tuple(items) => !items.values.is_empty(),
            Self::Dict(dict) | Self::View(dict, _) => !dict.entries.is_empty(),
            Self::Range { .. } => self.range_len() > 0,
            _ => true,
        }
    }

    /// Number of items of a range.
    pub(super) fn range_len(&self) -> i64 {
        let &Self::Range { start, stop, step } = self else { return 0 };
        let (span, step) = if step > 0 {
            (i128::from(stop) - i128::from(start), i128::from(step))
        } else {
            (i128::from(start) - i128::from(stop), -i128::from(step))
        };
        if span <= 0 { 0 } else { i64::try_from((span + step - 1) / step).unwrap_or(i64::MAX) }
    }

    /// Python's `len(value)`, or `None` where it has none.
    pub(super) fn len(&self) -> Option<usize> {
        Some(match self {
            Self::Undefined(_) => 0,
            Self::Str(text) | Self::Safe(text) => text.chars().count(),
            Self::List(items) | Self::Tuple(items) => items.values.len(),
            Self::Dict(dict) | Self::View(dict, _) => dict.entries.len(),
            Self::Range { .. } => usize::try_from(self.range_len()).ok()?,
            _ => return None,
        })
    }

    /// What the value is as a key of a dict.
    pub(super) fn key(&self) -> Result<Key> {
        fuel::charge(1)?;
        Ok(match self {
            Self::None => Key::None,
            Self::Bool(value) => Key::Int(i64::from(*value)),
            Self::Int(value) => Key::Int(*value),
            Self::Float(value) => match integral(*value) {
                Some(value) => Key::Int(value),
                None => Key::Float(value.to_bits()),
            },
            Self::Str(text) | Self::Safe(text) => Key::Str(Rc::clone(text)),
            Self::Tuple(items) => Key::Tuple(items.values.iter().map(Self::key).collect::<Result<_>>()?),
            Self::List(_) | Self::Dict(_) | Self::View(..) => {
                return Err(Error::fails(format!("unhashable type: '{}'", self.type_name())));
            }
            _ => return Err(Error::refused(format!("a key of type {}", self.type_name()))),
        })
    }

    /// Python's `left == right`.
    pub(super) fn equals(&self, other: &Self) -> Result<bool> {
        fuel::charge(1)?;
        Ok(match (self, other) {
            (Self::Undefined(_), Self::Undefined(_)) | (Self::None, Self::None) => true,
            (Self::Undefined(_) | Self::None, _) | (_, Self::Undefined(_) | Self::None) => false,
            (Self::Str(left) | Self::Safe(left), Self::Str(right) | Self::Safe(right)) => left == right,
            (Self::List(left), Self::List(right)) | (Self::Tuple(left), Self::Tuple(right)) => {
                if left.values.len() != right.values.len() {
                    return Ok(false);
                }
                for (left, right) in left.values.iter().zip(&right.values) {
                    if !left.equals(right)? {
                        return Ok(false);
                    }
                }
                true
            }
            (Self::Dict(left), Self::Dict(right)) => {
                if left.entries.len() != right.entries.len() {
                    return Ok(false);
                }
                for (key, value) in &left.entries {
                    match right.get(key)? {
                        Some(other) if value.equals(other)? => {}
                        _ => return Ok(false),
                    }
                }
                true
            }
            (Self::Namespace(left), Self::Namespace(right)) => Rc::ptr_eq(left, right),
            (
                Self::View(..) | Self::Range { .. } | Self::Method(_) | Self::Macro(_) | Self::Function(_),
                Self::View(..) | Self::Range { .. } | Self::Method(_) | Self::Macro(_) | Self::Function(_),
            )
            | (Self::Iterator(_), Self::Iterator(_))
            | (Self::Loop(_), Self::Loop(_)) => {
                return Err(Error::refused(format!("comparing a {} with a {}", self.type_name(), other.type_name())));
            }
            _ => match numbers(self, other) {
                Some(order) => order == Some(Ordering::Equal),
                None => false,
            },
        })
    }

    /// The order of two values, `None` where no order holds between them (with a NaN).
    pub(super) fn order(&self, other: &Self, operator: &str) -> Result<Option<Ordering>> {
        fuel::charge(1)?;
        match (self, other) {
            (Self::Undefined(message), _) | (_, Self::Undefined(message)) => Err(Error::fails(&**message)),
            (Self::Str(left) | Self::Safe(left), Self::Str(right) | Self::Safe(right)) => Ok(Some(left.cmp(right))),
            (Self::List(left), Self::List(right)) | (Self::Tuple(left), Self::Tuple(right)) => {
                for (left, right) in left.values.iter().zip(&right.values) {
                    if !left.equals(right)? {
                        return left.order(right, operator);
                    }
                }
                Ok(Some(left.values.len().cmp(&right.values.len())))
            }
            _ => numbers(self, other).ok_or_else(|| {
                if matches!(self, Self::View(..)) && matches!(other, Self::View(..)) {
                    return Error::refused("the order of two views of dicts");
                }
                Error::fails(format!(
                    "'{operator}' not supported between instances of '{}' and '{}'",
                    self.type_name(),
                    other.type_name()
                ))
            }),
        }
    }

    /// Python's `str(value)`.
    pub(super) fn to_text(&self) -> Result<Rc<str>> {
        Ok(match self {
            Self::Undefined(_) => "".into(),
            Self::Str(text) | Self::Safe(text) => Rc::clone(text),
            _ => {
                let mut out = String::new();
                self.write_repr(&mut out)?;
                out.into()
            }
        })
    }

    /// Python's `repr(value)`, appended.
    pub(super) fn write_repr(&self, out: &mut String) -> Result<()> {
        fuel::charge(1)?;
        match self {
            Self::Undefined(_) => out.push_str("Undefined"),
            Self::None => out.push_str("None"),
            Self::Bool(true) => out.push_str("True"),
            Self::Bool(false) => out.push_str("False"),
            Self::Int(value) => out.push_str(&value.to_string()),
            Self::Float(value) => out.push_str(&text::float(*value)),
            Self::Str(text) => text::write_repr(text, out)?,
            Self::Safe(_) => return Err(Error::refused("the form in a list of a text that was marked as safe")),
            Self::List(items) => {
                out.push('[');
                write_items(&items.values, out)?;
                out.push(']');
            }
            Self::Tuple(items) => {
                out.push('(');
                write_items(&items.values, out)?;
                out.push_str(if items.values.len() == 1 { ",)" } else { ")" });
            }
            Self::Dict(dict) => {
                out.push('{');
                for (place, (key, value)) in dict.entries.iter().enumerate() {
                    out.push_str(if place == 0 { "" } else { ", " });
                    key.write_repr(out)?;
                    out.push_str(": ");
                    value.write_repr(out)?;
                }
                out.push('}');
            }
            Self::View(dict, view) => {
                out.push_str(self.type_name());
                out.push_str("([");
                let items: Vec<Self> = view_items(dict, *view)?;
                write_items(&items, out)?;
                out.push_str("])");
            }
            Self::Range { start, stop, step } => {
                out.push_str(&format!("range({start}, {stop}"));
                if *step != 1 {
                    out.push_str(&format!(", {step}"));
                }
                out.push(')');
            }
            _ => return Err(Error::refused(format!("printing a {}", self.type_name()))),
        }
        Ok(())
    }
}

/// Items of a view, in order.
pub(super) fn view_items(dict: &Dict, view: View) -> Result<Vec<Value>> {
    dict.entries
        .iter()
        .map(|(key, value)| match view {
            View::Keys => Ok(key.clone()),
            View::Values => Ok(value.clone()),
            View::Items => Value::tuple(vec![key.clone(), value.clone()]),
        })
        .collect()
}

fn write_items(items: &[Value], out: &mut String) -> Result<()> {
    for (place, item) in items.iter().enumerate() {
        out.push_str(if place == 0 { "" } else { ", " });
        item.write_repr(out)?;
    }
    Ok(())
}

/// The integer that a float is.
pub(super) fn integral(value: f64) -> Option<i64> {
    // 2^63 is a float, and the first that is too large.
    (value.fract() == 0.0 && (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&value))
        .then_some(value as i64)
}

/// A number as an integer, if it is one.
pub(super) fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Bool(value) => Some(i64::from(*value)),
        Value::Int(value) => Some(*value),
        _ => None,
    }
}

/// The order of two numbers; `None` where one is no number.
fn numbers(left: &Value, right: &Value) -> Option<Option<Ordering>> {
    Some(match (left, right) {
        (Value::Float(left), Value::Float(right)) => left.partial_cmp(right),
        (Value::Float(left), right) => integer_beside_float(integer(right)?, *left).map(Ordering::reverse),
        (left, Value::Float(right)) => integer_beside_float(integer(left)?, *right),
        (left, right) => Some(integer(left)?.cmp(&integer(right)?)),
    })
}

/// The exact order of an integer and a float.
fn integer_beside_float(left: i64, right: f64) -> Option<Ordering> {
    if right.is_nan() {
        return None;
    }
    let whole = right.floor();
    match integral(whole) {
        None => Some(if right > 0.0 { Ordering::Less } else { Ordering::Greater }),
        Some(floor) => Some(left.cmp(&floor).then(if right > whole { Ordering::Less } else { Ordering::Equal })),
    }
}
