//! Arguments of a call, bound to parameters as Python binds them.

use std::rc::Rc;

use super::{
    error::{Error, Result},
    value::{Value, integer},
};

/// Values that a function, filter, test or method is called with.
#[derive(Default)]
pub(super) struct Arguments {
    pub(super) positional: Vec<Value>,
    pub(super) named: Vec<(Rc<str>, Value)>,
}

impl Arguments {
    pub(super) fn of(positional: Vec<Value>) -> Self {
        Self { positional, named: Vec::new() }
    }

    /// The arguments in the order of `names`; the first `required` of them must be there.
    pub(super) fn bind<const N: usize>(
        self,
        function: &str,
        names: [&str; N],
        required: usize,
    ) -> Result<[Option<Value>; N]> {
        let mut bound: [Option<Value>; N] = [const { None }; N];
        if self.positional.len() > N {
            return Err(Error::fails(format!("{function}() takes at most {N} arguments")));
        }
        for (place, value) in bound.iter_mut().zip(self.positional) {
            *place = Some(value);
        }
        for (name, value) in self.named {
            let Some(at) = names.iter().position(|other| **other == *name) else {
                return Err(Error::fails(format!("{function}() got an unexpected keyword argument '{name}'")));
            };
            if bound[at].is_some() {
                return Err(Error::fails(format!("{function}() got multiple values for argument '{name}'")));
            }
            bound[at] = Some(value);
        }
        if let Some(missing) = bound[..required].iter().position(Option::is_none) {
            return Err(Error::fails(format!("{function}() is missing the argument '{}'", names[missing])));
        }
        Ok(bound)
    }

    /// The same for a function that takes no names.
    pub(super) fn positional<const N: usize>(self, function: &str, required: usize) -> Result<[Option<Value>; N]> {
        if !self.named.is_empty() {
            return Err(Error::fails(format!("{function}() takes no keyword arguments")));
        }
        if self.positional.len() < required {
            return Err(Error::fails(format!("{function}() takes at least {required} arguments")));
        }
        self.bind(function, [""; N], 0)
    }
}

/// A text, or the error that Python gives for another type.
pub(super) fn expect_text<'a>(value: &'a Value, function: &str) -> Result<&'a Rc<str>> {
    match value {
        Value::Str(text) => Ok(text),
        Value::Safe(_) => Err(Error::refused(format!("{function} of a text that was marked as safe"))),
        _ => Err(Error::fails(format!("{function} takes a text, not {}", value.type_name()))),
    }
}

/// An integer, or the error that Python gives for another type.
pub(super) fn expect_integer(value: &Value, function: &str) -> Result<i64> {
    integer(value).ok_or_else(|| Error::fails(format!("{function} takes an integer, not {}", value.type_name())))
}
