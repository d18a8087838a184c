//! Runs a parsed template.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::Arc,
};

use super::{
    arguments::Arguments,
    attributes, checks,
    error::{Error, Result},
    filters, fuel, functions, names,
    operators::{self, items_of},
    syntax::{
        ArgumentList, Body, Call, Comparison, Expression, For, Macro, Operator, Statement, StatementKind, Target,
    },
    value::{Closure, Namespace, Remaining, Value},
};

/// How deep macros, loops, conditions and expressions may run in one another. The thread's stack is made for it.
const MAX_DEPTH: usize = 2000;

/// A place in [`Interpreter::scopes`].
pub(super) type ScopeId = usize;

/// Names that a part of the template has set.
#[derive(Default)]
struct Scope {
    parent: Option<ScopeId>,
    names: HashMap<Arc<str>, Value>,
    /// Whether a macro was defined here or below, which may be called after the scope has ended.
    captured: bool,
}

/// The state of a loop, as `loop` gives it.
pub(super) struct Loop {
    definition: Arc<For>,
    /// Scope around the loop.
    outer: ScopeId,
    depth: usize,
    source: Rc<RefCell<Remaining>>,
    /// Number of items where it is known without looking: no condition, no generator.
    known: Option<usize>,
    state: RefCell<LoopState>,
    index: Cell<usize>,
}

#[derive(Default)]
struct LoopState {
    /// Items that were looked at ahead.
    ahead: std::collections::VecDeque<Value>,
    before: Option<Value>,
    current: Option<Value>,
    changed: Option<Vec<Value>>,
}

/// How a body ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Break,
    Continue,
}

/// One rendering.
pub(super) struct Interpreter<'a> {
    variables: HashMap<Arc<str>, Value>,
    scopes: Vec<Scope>,
    /// All namespaces that were made, so that no chain of them is dropped from within one another.
    namespaces: Vec<Rc<Namespace>>,
    depth: usize,
    pub(super) environment: &'a dyn functions::Environment,
}

impl Drop for Interpreter<'_> {
    fn drop(&mut self) {
        self.scopes.clear();
        self.variables.clear();
        for namespace in &self.namespaces {
            namespace.entries.take();
        }
    }
}

impl<'a> Interpreter<'a> {
    pub(super) fn new(
        variables: HashMap<Arc<str>, Value>,
        own: &[Arc<str>],
        environment: &'a dyn functions::Environment,
    ) -> Self {
        let mut root = Scope::default();
        for name in own {
            root.names.insert(Arc::clone(name), undefined_name(name));
        }
        Self { variables, scopes: vec![root], namespaces: Vec::new(), depth: 0, environment }
    }

    /// The text of a template.
    pub(super) fn render(&mut self, body: &Body) -> Result<String> {
        let mut out = String::new();
        self.run(body, 0, &mut out)?;
        Ok(out)
    }

    pub(super) fn keep(&mut self, namespace: Namespace) -> Value {
        let namespace = Rc::new(namespace);
        self.namespaces.push(Rc::clone(&namespace));
        Value::Namespace(namespace)
    }

    fn deeper<T>(&mut self, run: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Error::refused("macros or blocks that run too deep in one another"));
        }
        let result = run(self);
        self.depth -= 1;
        result
    }

    /// Runs with a scope of its own.
    fn scoped<T>(&mut self, parent: ScopeId, run: impl FnOnce(&mut Self, ScopeId) -> Result<T>) -> Result<T> {
        fuel::charge(1)?;
        let scope = self.scopes.len();
        self.scopes.push(Scope { parent: Some(parent), ..Scope::default() });
        let result = self.deeper(|interpreter| run(interpreter, scope));
        if scope + 1 == self.scopes.len() && !self.scopes[scope].captured {
            self.scopes.pop();
        }
        result
    }

    /// Text of what `run` writes.
    fn collected(&mut self, run: impl FnOnce(&mut Self, &mut String) -> Result<Flow>) -> Result<Rc<str>> {
        let mut out = String::new();
        run(self, &mut out)?;
        fuel::charge(out.len())?;
        Ok(out.into())
    }

    fn run(&mut self, body: &Body, scope: ScopeId, out: &mut String) -> Result<Flow> {
        for statement in body {
            fuel::charge(1)?;
            let flow = self.statement(statement, scope, out).map_err(|error| error.at(statement.line))?;
            if flow != Flow::On {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    fn statement(&mut self, statement: &Statement, scope: ScopeId, out: &mut String) -> Result<Flow> {
        match &statement.kind {
            StatementKind::Text(text) => {
                fuel::charge(text.len())?;
                out.push_str(text);
            }
            StatementKind::Print(value) => {
                let text = self.value(value, scope)?.to_text()?;
                fuel::charge(text.len())?;
                out.push_str(&text);
            }
            StatementKind::Set { target, value } => {
                let value = self.value(value, scope)?;
                self.assign(target, value, scope)?;
            }
            StatementKind::SetBlock { target, filters, body } => {
                let text = self.scoped(scope, |this, inner| {
                    let text = this.collected(|this, out| this.run(body, inner, out))?;
                    this.filter_all(Value::Str(text), filters, inner)
                })?;
                self.assign(target, text, scope)?;
            }
            StatementKind::If { arms, otherwise } => {
                for (condition, body) in arms {
                    if self.value(condition, scope)?.truth() {
                        return self.deeper(|this| this.run(body, scope, out));
                    }
                }
                return self.deeper(|this| this.run(otherwise, scope, out));
            }
            StatementKind::For(each) => {
                let items = self.value(&each.items, scope)?;
                return self.for_loop(each, &items, scope, 0, out);
            }
            StatementKind::Break => return Ok(Flow::Break),
            StatementKind::Continue => return Ok(Flow::Continue),
            StatementKind::Macro { name, definition } => {
                let closure = self.closure(definition, scope);
                self.scopes[scope].names.insert(Arc::clone(name), closure);
            }
            StatementKind::CallBlock { call, body } => {
                let caller = self.closure(body, scope);
                let Expression::Call(function, list) = call else { return Err(Error::fails("expected a call")) };
                let function = self.value(function, scope)?;
                let mut arguments = self.arguments(list, scope)?;
                arguments.named.push(("caller".into(), caller));
                let text = self.call(&function, arguments)?.to_text()?;
                fuel::charge(text.len())?;
                out.push_str(&text);
            }
            StatementKind::FilterBlock { filters, body } => {
                let text = self.scoped(scope, |this, inner| {
                    let text = this.collected(|this, out| this.run(body, inner, out))?;
                    this.filter_all(Value::Str(text), filters, inner)
                })?;
                let text = text.to_text()?;
                fuel::charge(text.len())?;
                out.push_str(&text);
            }
            StatementKind::With { values, body } => {
                let mut computed = Vec::new();
                for (target, value) in values {
                    computed.push((target, self.value(value, scope)?));
                }
                return self.scoped(scope, |this, inner| {
                    for (target, value) in computed {
                        this.assign(target, value, inner)?;
                    }
                    this.run(body, inner, out)
                });
            }
            StatementKind::Generation(body) => {
                self.scoped(scope, |this, inner| this.run(body, inner, out))?;
            }
        }
        Ok(Flow::On)
    }

    fn closure(&mut self, definition: &Arc<Macro>, scope: ScopeId) -> Value {
        let mut at = Some(scope);
        while let Some(scope) = at {
            self.scopes[scope].captured = true;
            at = self.scopes[scope].parent;
        }
        Value::Macro(Rc::new(Closure { definition: Arc::clone(definition), scope }))
    }

    fn assign(&mut self, target: &Target, value: Value, scope: ScopeId) -> Result<()> {
        match target {
            Target::Name(name) => {
                self.scopes[scope].names.insert(Arc::clone(name), value);
            }
            Target::Attribute(name, attribute) => match self.name(name, scope)? {
                Value::Namespace(_) if attribute.starts_with('_') => {
                    return Err(Error::fails(format!("a namespace cannot store {attribute:?}")));
                }
                Value::Namespace(namespace) => namespace.set(attribute, value)?,
                _ => return Err(Error::fails("cannot assign attribute on non-namespace object")),
            },
            Target::Tuple(targets) => {
                let values = items_of(&value)?;
                if values.len() != targets.len() {
                    return Err(Error::fails(format!(
                        "{} values to unpack where {} are expected",
                        values.len(),
                        targets.len()
                    )));
                }
                for (target, value) in targets.iter().zip(values) {
                    self.assign(target, value, scope)?;
                }
            }
        }
        Ok(())
    }

    fn for_loop(
        &mut self,
        each: &Arc<For>,
        items: &Value,
        scope: ScopeId,
        depth: usize,
        out: &mut String,
    ) -> Result<Flow> {
        let source = match items {
            Value::Iterator(source) => Rc::clone(source),
            _ => Rc::new(RefCell::new(Remaining { values: items_of(items)?.into(), error: None })),
        };
        let known = match items {
            Value::Iterator(_) => None,
            _ if each.condition.is_some() => None,
            _ => Some(source.borrow().values.len()),
        };
        let looped = Rc::new(Loop {
            definition: Arc::clone(each),
            outer: scope,
            depth,
            source,
            known,
            state: RefCell::default(),
            index: Cell::new(0),
        });
        while let Some(item) = self.next_item(&looped)? {
            looped.index.set(looped.index.get() + 1);
            {
                let mut state = looped.state.borrow_mut();
                state.before = state.current.replace(item.clone());
            }
            let flow = self.scoped(scope, |this, inner| {
                this.scopes[inner].names.insert("loop".into(), Value::Loop(Rc::clone(&looped)));
                this.assign(&each.target, item, inner)?;
                this.run(&each.body, inner, out)
            })?;
            if flow == Flow::Break {
                break;
            }
        }
        if looped.index.get() == 0 {
            return self.scoped(scope, |this, inner| this.run(&each.otherwise, inner, out));
        }
        Ok(Flow::On)
    }

    /// The next item of a loop that passes its condition.
    fn next_item(&mut self, looped: &Loop) -> Result<Option<Value>> {
        if let Some(item) = looped.state.borrow_mut().ahead.pop_front() {
            return Ok(Some(item));
        }
        self.fetch(looped)
    }

    fn fetch(&mut self, looped: &Loop) -> Result<Option<Value>> {
        loop {
            fuel::charge(1)?;
            let next = looped.source.borrow_mut().values.pop_front();
            let Some(item) = next else {
                return match looped.source.borrow_mut().error.take() {
                    Some(error) => Err(error),
                    None => Ok(None),
                };
            };
            let Some(condition) = &looped.definition.condition else { return Ok(Some(item)) };
            let passes = self.scoped(looped.outer, |this, inner| {
                this.assign(&looped.definition.target, item.clone(), inner)?;
                Ok(this.value(condition, inner)?.truth())
            })?;
            if passes {
                return Ok(Some(item));
            }
        }
    }

    fn peek(&mut self, looped: &Loop) -> Result<Option<Value>> {
        if looped.state.borrow().ahead.is_empty()
            && let Some(item) = self.fetch(looped)?
        {
            looped.state.borrow_mut().ahead.push_back(item);
        }
        Ok(looped.state.borrow().ahead.front().cloned())
    }

    /// `loop.name`.
    fn loop_attribute(&mut self, looped: &Rc<Loop>, name: &str) -> Result<Option<Value>> {
        let index = looped.index.get();
        let int = |value: usize| Some(Value::Int(value as i64));
        Ok(match name {
            "index" => int(index),
            "index0" => int(index.saturating_sub(1)),
            "first" => Some(Value::Bool(index == 1)),
            "last" => Some(Value::Bool(self.peek(looped)?.is_none())),
            "depth" => int(looped.depth + 1),
            "depth0" => int(looped.depth),
            "length" => int(self.loop_length(looped)?),
            "revindex" => int(self.loop_length(looped)? + 1 - index),
            "revindex0" => int(self.loop_length(looped)? - index),
            "previtem" => Some(match looped.state.borrow().before.clone() {
                Some(item) if index > 1 => item,
                _ => Value::Undefined("there is no previous item".into()),
            }),
            "nextitem" => Some(self.peek(looped)?.unwrap_or_else(|| Value::Undefined("there is no next item".into()))),
            "cycle" => Some(Value::Method(Rc::new((Value::Loop(Rc::clone(looped)), "cycle")))),
            "changed" => Some(Value::Method(Rc::new((Value::Loop(Rc::clone(looped)), "changed")))),
            _ => None,
        })
    }

    fn loop_length(&mut self, looped: &Loop) -> Result<usize> {
        if let Some(known) = looped.known {
            return Ok(known);
        }
        while let Some(item) = self.fetch(looped)? {
            looped.state.borrow_mut().ahead.push_back(item);
        }
        Ok(looped.index.get() + looped.state.borrow().ahead.len())
    }

    fn loop_method(&mut self, looped: &Loop, name: &str, mut arguments: Arguments) -> Result<Value> {
        if !arguments.named.is_empty() {
            return Err(Error::fails(format!("loop.{name}() got an unexpected keyword argument")));
        }
        if name == "cycle" {
            if arguments.positional.is_empty() {
                return Err(Error::fails("no items for cycling given"));
            }
            let at = looped.index.get().saturating_sub(1) % arguments.positional.len();
            return Ok(arguments.positional.swap_remove(at));
        }
        let mut state = looped.state.borrow_mut();
        let same = match &state.changed {
            Some(before) if before.len() == arguments.positional.len() => {
                let mut same = true;
                for (before, now) in before.iter().zip(&arguments.positional) {
                    same = same && before.equals(now)?;
                }
                same
            }
            _ => false,
        };
        state.changed = Some(arguments.positional);
        Ok(Value::Bool(!same))
    }

    /// What a name stands for: what the template set, else a variable, else a function of the environment.
    fn name(&self, name: &str, scope: ScopeId) -> Result<Value> {
        let mut at = Some(scope);
        while let Some(scope) = at {
            if let Some(value) = self.scopes[scope].names.get(name) {
                return Ok(value.clone());
            }
            at = self.scopes[scope].parent;
        }
        if let Some(value) = self.variables.get(name) {
            return Ok(value.clone());
        }
        match functions::find(name)? {
            Some(name) => Ok(Value::Function(name)),
            None => Ok(undefined_name(name)),
        }
    }

    fn values(&mut self, expressions: &[Expression], scope: ScopeId) -> Result<Vec<Value>> {
        expressions.iter().map(|expression| self.value(expression, scope)).collect()
    }

    /// The value of an expression.
    fn value(&mut self, expression: &Expression, scope: ScopeId) -> Result<Value> {
        fuel::charge(1)?;
        self.deeper(|this| this.value_of(expression, scope))
    }

    fn value_of(&mut self, expression: &Expression, scope: ScopeId) -> Result<Value> {
        Ok(match expression {
            Expression::None => Value::None,
            Expression::Bool(value) => Value::Bool(*value),
            Expression::Int(value) => Value::Int(*value),
            Expression::Float(value) => Value::Float(*value),
            Expression::Text(text) => Value::text(&**text),
            Expression::Name(name) => self.name(name, scope)?,
            Expression::List(items) => Value::list(self.values(items, scope)?)?,
            Expression::Tuple(items) => Value::tuple(self.values(items, scope)?)?,
            Expression::Dict(items) => {
                let mut pairs = Vec::with_capacity(items.len());
                for (key, value) in items {
                    pairs.push((self.value(key, scope)?, self.value(value, scope)?));
                }
                Value::dict(pairs)?
            }
            Expression::Attribute(value, name) => {
                let value = self.value(value, scope)?;
                self.attribute(&value, name)?
            }
            Expression::Item(value, key) => {
                let value = self.value(value, scope)?;
                let key = self.value(key, scope)?;
                self.item(&value, &key)?
            }
            Expression::Slice(value, parts) => {
                let value = self.value(value, scope)?;
                let mut bounds = [None, None, None];
                for (bound, part) in bounds.iter_mut().zip(parts) {
                    if let Some(part) = part {
                        *bound = Some(self.value(part, scope)?);
                    }
                }
                operators::slice(&value, bounds).map_err(|error| {
                    // jinja2 computes what is constant beforehand, and finds an undefined value there.
                    if names::is_constant(expression) { Error::refused(error.message()) } else { error }
                })?
            }
            Expression::Call(function, list) => {
                let function = self.value(function, scope)?;
                let arguments = self.arguments(list, scope)?;
                self.call(&function, arguments)?
            }
            Expression::Filter(value, call) => {
                let value = self.value(value, scope)?;
                self.filter(value, call, scope)?
            }
            Expression::Test(value, call) => {
                let value = self.value(value, scope)?;
                let arguments = self.arguments(&call.arguments, scope)?;
                Value::Bool(checks::check(&call.name, &value, arguments)?)
            }
            Expression::Negative(value) => operators::signed(&self.value(value, scope)?, true)?,
            Expression::Positive(value) => operators::signed(&self.value(value, scope)?, false)?,
            Expression::Not(value) => Value::Bool(!self.value(value, scope)?.truth()),
            Expression::And(left, right) => {
                let left = self.value(left, scope)?;
                if left.truth() { self.value(right, scope)? } else { left }
            }
            Expression::Or(left, right) => {
                let left = self.value(left, scope)?;
                if left.truth() { left } else { self.value(right, scope)? }
            }
            Expression::Binary(operator, left, right) => {
                if *operator == Operator::Power && names::is_constant(left) && !names::is_constant(right) {
                    // Where the base is negative jinja2 loses the parentheses around it.
                    return Err(Error::refused("a power of a constant"));
                }
                let left = self.value(left, scope)?;
                let right = self.value(right, scope)?;
                operators::binary(*operator, &left, &right)?
            }
            Expression::Compare(first, others) => self.compare(first, others, scope)?,
            Expression::Concat(parts) => Value::Str(operators::joined(&self.values(parts, scope)?, "")?),
            Expression::Conditional { condition, then, otherwise } => {
                if self.value(condition, scope)?.truth() {
                    self.value(then, scope)?
                } else {
                    match otherwise {
                        Some(otherwise) => self.value(otherwise, scope)?,
                        None => {
                            let message = "the inline if-expression evaluated to false and no else section was defined";
                            Value::Undefined(message.into())
                        }
                    }
                }
            }
        })
    }

    fn compare(&mut self, first: &Expression, others: &[(Comparison, Expression)], scope: ScopeId) -> Result<Value> {
        let mut left = self.value(first, scope)?;
        for (comparison, right) in others {
            let right = self.value(right, scope)?;
            if !compared(*comparison, &left, &right)? {
                return Ok(Value::Bool(false));
            }
            left = right;
        }
        Ok(Value::Bool(true))
    }

    fn attribute(&mut self, value: &Value, name: &str) -> Result<Value> {
        if let Value::Loop(looped) = value
            && let Some(found) = self.loop_attribute(looped, name)?
        {
            return Ok(found);
        }
        attributes::get(value, name)
    }

    fn item(&mut self, value: &Value, key: &Value) -> Result<Value> {
        if let (Value::Loop(looped), Value::Str(name)) = (value, key)
            && let Some(found) = self.loop_attribute(looped, name)?
        {
            return Ok(found);
        }
        operators::item(value, key)
    }

    fn arguments(&mut self, list: &ArgumentList, scope: ScopeId) -> Result<Arguments> {
        let mut arguments = Arguments::of(self.values(&list.positional, scope)?);
        if let Some(spread) = &list.spread {
            arguments.positional.extend(items_of(&self.value(spread, scope)?)?);
        }
        for (name, value) in &list.named {
            arguments.named.push((Rc::from(&**name), self.value(value, scope)?));
        }
        if let Some(spread) = &list.spread_named {
            let Value::Dict(dict) = self.value(spread, scope)? else {
                return Err(Error::fails("argument after ** must be a mapping"));
            };
            for (name, value) in &dict.entries {
                let Value::Str(name) = name else { return Err(Error::fails("keywords must be strings")) };
                if arguments.named.iter().any(|(other, _)| other == name) {
                    return Err(Error::fails(format!("got multiple values for keyword argument '{name}'")));
                }
                arguments.named.push((Rc::clone(name), value.clone()));
            }
        }
        Ok(arguments)
    }

    fn filter(&mut self, value: Value, call: &Call, scope: ScopeId) -> Result<Value> {
        let arguments = self.arguments(&call.arguments, scope)?;
        filters::apply(&call.name, value, arguments)
    }

    fn filter_all(&mut self, value: Value, filters: &[Call], scope: ScopeId) -> Result<Value> {
        filters.iter().try_fold(value, |value, call| self.filter(value, call, scope))
    }

    /// Calls a value.
    fn call(&mut self, function: &Value, arguments: Arguments) -> Result<Value> {
        match function {
            Value::Undefined(message) => Err(Error::fails(&**message)),
            Value::Macro(closure) => self.call_macro(closure, arguments),
            Value::Function(name) => functions::call(self, name, arguments),
            Value::Method(bound) => match &bound.0 {
                Value::Loop(looped) => self.loop_method(looped, bound.1, arguments),
                value => attributes::call(value, bound.1, arguments),
            },
            Value::Loop(looped) => {
                let [items] = arguments.bind("loop", ["iterable"], 1)?;
                if !looped.definition.recursive {
                    return Err(Error::fails("the loop must have the 'recursive' marker to be called recursively"));
                }
                let items = items.unwrap_or(Value::None);
                let definition = Arc::clone(&looped.definition);
                let text = self
                    .collected(|this, out| this.for_loop(&definition, &items, looped.outer, looped.depth + 1, out))?;
                Ok(Value::Str(text))
            }
            _ => Err(Error::fails(format!("'{}' object is not callable", function.type_name()))),
        }
    }

    fn call_macro(&mut self, closure: &Closure, arguments: Arguments) -> Result<Value> {
        let definition = Arc::clone(&closure.definition);
        let Macro { name, parameters, body, uses } = &*definition;
        let mut given = arguments.positional.into_iter();
        let mut named = arguments.named;
        let mut bound: Vec<Option<Value>> = Vec::with_capacity(parameters.len());
        for (parameter, _) in parameters {
            let value = given.next();
            let by_name = named.iter().position(|(other, _)| **other == **parameter);
            bound.push(match (value, by_name) {
                (Some(_), Some(_)) => {
                    return Err(Error::fails(format!("macro '{name}' got two values for '{parameter}'")));
                }
                (None, Some(at)) => Some(named.remove(at).1),
                (value, None) => value,
            });
        }
        let rest: Vec<Value> = given.collect();
        self.scoped(closure.scope, |this, inner| {
            let mut special: Vec<(&str, Value)> = Vec::new();
            let caller = named.iter().position(|(other, _)| &**other == "caller").map(|at| named.remove(at).1);
            if uses.caller {
                special.push(("caller", caller.unwrap_or_else(|| Value::Undefined("No caller defined".into()))));
            } else if caller.is_some() {
                return Err(Error::fails(format!("macro '{name}' takes no keyword argument 'caller'")));
            }
            if uses.kwargs {
                let pairs = std::mem::take(&mut named).into_iter().map(|(name, value)| (Value::Str(name), value));
                special.push(("kwargs", Value::dict(pairs)?));
            }
            if let Some((other, _)) = named.first() {
                return Err(Error::fails(format!("macro '{name}' takes no keyword argument '{other}'")));
            }
            if uses.varargs {
                special.push(("varargs", Value::tuple(rest)?));
            } else if !rest.is_empty() {
                return Err(Error::fails(format!(
                    "macro '{name}' takes not more than {} argument(s)",
                    parameters.len()
                )));
            }
            for (name, value) in special {
                this.scopes[inner].names.insert(name.into(), value);
            }
            // A parameter without a value hides a variable of its name, also from the defaults before it.
            for ((parameter, _), value) in parameters.iter().zip(&bound) {
                let value = value
                    .clone()
                    .unwrap_or_else(|| Value::Undefined(format!("parameter '{parameter}' was not provided").into()));
                this.scopes[inner].names.insert(Arc::clone(parameter), value);
            }
            for ((parameter, default), value) in parameters.iter().zip(&bound) {
                if let (None, Some(default)) = (value, default) {
                    let value = this.value(default, inner)?;
                    this.scopes[inner].names.insert(Arc::clone(parameter), value);
                }
            }
            this.collected(|this, out| this.run(body, inner, out)).map(Value::Str)
        })
    }
}

fn undefined_name(name: &str) -> Value {
    Value::Undefined(format!("'{name}' is undefined").into())
}

/// One comparison.
pub(super) fn compared(comparison: Comparison, left: &Value, right: &Value) -> Result<bool> {
    Ok(match comparison {
        Comparison::Equal => left.equals(right)?,
        Comparison::NotEqual => !left.equals(right)?,
        Comparison::Less => left.order(right, "<")?.is_some_and(|order| order.is_lt()),
        Comparison::LessOrEqual => left.order(right, "<=")?.is_some_and(|order| order.is_le()),
        Comparison::Greater => left.order(right, ">")?.is_some_and(|order| order.is_gt()),
        Comparison::GreaterOrEqual => left.order(right, ">=")?.is_some_and(|order| order.is_ge()),
        Comparison::In => operators::contains(right, left)?,
        Comparison::NotIn => !operators::contains(right, left)?,
    })
}
