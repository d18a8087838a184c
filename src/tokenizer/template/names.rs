//! Which names a part of a template reads and writes.
//!
//! jinja2 decides when it compiles a template where a name lives. It shows in one place: a name that the template
//! itself sets, unconditionally and before it reads it, is the template's own from the first line on, so a loop
//! or macro above that line does not see the variable of that name which was passed in.

use std::{collections::HashSet, sync::Arc};

use super::syntax::{ArgumentList, Body, Expression, Statement, StatementKind, Target};

/// The names that statements read, in all that lies within them.
pub(super) fn loaded<'a>(body: &'a Body, names: &mut HashSet<&'a str>) {
    for statement in body {
        let mut see = |expression: &'a Expression| read(expression, names);
        match &statement.kind {
            StatementKind::Text(_) | StatementKind::Break | StatementKind::Continue => {}
            StatementKind::Print(value) => see(value),
            StatementKind::Set { value, target } => {
                see(value);
                if let Target::Attribute(name, _) = target {
                    names.insert(name);
                }
            }
            StatementKind::SetBlock { filters, body, .. } | StatementKind::FilterBlock { filters, body } => {
                filters.iter().for_each(|filter| arguments(&filter.arguments, &mut see));
                loaded(body, names);
            }
            StatementKind::If { arms, otherwise } => {
                for (condition, body) in arms {
                    read(condition, names);
                    loaded(body, names);
                }
                loaded(otherwise, names);
            }
            StatementKind::For(each) => {
                see(&each.items);
                if let Some(condition) = &each.condition {
                    see(condition);
                }
                loaded(&each.body, names);
                loaded(&each.otherwise, names);
            }
            StatementKind::Macro { definition, .. } => {
                definition.parameters.iter().filter_map(|(_, default)| default.as_ref()).for_each(&mut see);
                loaded(&definition.body, names);
            }
            StatementKind::CallBlock { call, body } => {
                see(call);
                loaded(&body.body, names);
            }
            StatementKind::With { values, body } => {
                values.iter().for_each(|(_, value)| see(value));
                loaded(body, names);
            }
            StatementKind::Generation(body) => loaded(body, names),
        }
    }
}

fn read<'a>(expression: &'a Expression, names: &mut HashSet<&'a str>) {
    if let Expression::Name(name) = expression {
        names.insert(name);
    }
    children(expression, &mut |child| read(child, names));
}

/// Whether jinja2 computes an expression before it renders: nothing in it is a name or a call.
pub(super) fn is_constant(expression: &Expression) -> bool {
    if matches!(expression, Expression::Name(_) | Expression::Call(..)) {
        return false;
    }
    let mut constant = true;
    children(expression, &mut |child| constant = constant && is_constant(child));
    constant
}

fn arguments<'a>(list: &'a ArgumentList, see: &mut dyn FnMut(&'a Expression)) {
    list.positional.iter().for_each(&mut *see);
    list.named.iter().for_each(|(_, value)| see(value));
    list.spread.iter().chain(&list.spread_named).for_each(|value| see(value));
}

fn children<'a>(expression: &'a Expression, see: &mut dyn FnMut(&'a Expression)) {
    match expression {
        Expression::None
        | Expression::Bool(_)
        | Expression::Int(_)
        | Expression::Float(_)
        | Expression::Text(_)
        | Expression::Name(_) => {}
        Expression::List(items) | Expression::Tuple(items) | Expression::Concat(items) => items.iter().for_each(see),
        Expression::Dict(items) => items.iter().for_each(|(key, value)| {
            see(key);
            see(value);
        }),
        Expression::Attribute(value, _)
        | Expression::Negative(value)
        | Expression::Positive(value)
        | Expression::Not(value) => see(value),
        Expression::Item(left, right)
        | Expression::And(left, right)
        | Expression::Or(left, right)
        | Expression::Binary(_, left, right) => {
            see(left);
            see(right);
        }
        Expression::Slice(value, parts) => {
            see(value);
            parts.iter().flatten().for_each(|part| see(part));
        }
        Expression::Call(value, list) => {
            see(value);
            arguments(list, see);
        }
        Expression::Filter(value, call) | Expression::Test(value, call) => {
            see(value);
            arguments(&call.arguments, see);
        }
        Expression::Compare(left, others) => {
            see(left);
            others.iter().for_each(|(_, other)| see(other));
        }
        Expression::Conditional { condition, then, otherwise } => {
            see(condition);
            see(then);
            otherwise.iter().for_each(|value| see(value));
        }
    }
}

/// Names of a template's own that a loop or macro must not see in the variables that were passed in.
pub(super) fn own(body: &Body) -> Vec<Arc<str>> {
    let mut seen = Seen::default();
    seen.body(body);
    seen.own
}

#[derive(Clone, Default)]
struct Seen {
    names: HashSet<Arc<str>>,
    own: Vec<Arc<str>>,
}

impl Seen {
    fn reads(&mut self, expression: &Expression) {
        let mut names = HashSet::new();
        read(expression, &mut names);
        self.names.extend(names.into_iter().map(Arc::from));
    }

    fn stores(&mut self, target: &Target) {
        match target {
            Target::Name(name) => self.store(name),
            Target::Attribute(name, _) => {
                self.names.insert(Arc::clone(name));
            }
            Target::Tuple(targets) => targets.iter().for_each(|target| self.stores(target)),
        }
    }

    fn store(&mut self, name: &Arc<str>) {
        if self.names.insert(Arc::clone(name)) {
            self.own.push(Arc::clone(name));
        }
    }

    fn body(&mut self, body: &Body) {
        body.iter().for_each(|statement| self.statement(statement));
    }

    fn statement(&mut self, statement: &Statement) {
        match &statement.kind {
            StatementKind::Text(_) | StatementKind::Break | StatementKind::Continue | StatementKind::Generation(_) => {}
            StatementKind::Print(value) => self.reads(value),
            StatementKind::Set { target, value } => {
                self.reads(value);
                self.stores(target);
            }
            StatementKind::SetBlock { target, .. } => self.stores(target),
            StatementKind::FilterBlock { filters, .. } => {
                for filter in filters {
                    let mut names = HashSet::new();
                    arguments(&filter.arguments, &mut |value| read(value, &mut names));
                    self.names.extend(names.into_iter().map(Arc::from));
                }
            }
            StatementKind::If { arms, otherwise } => {
                // A name that only some arms set is looked up among the variables where no arm set it.
                let mut names = HashSet::new();
                let mut arm = |see: &dyn Fn(&mut Self)| {
                    let mut inner = self.clone();
                    see(&mut inner);
                    names.extend(inner.names);
                };
                if let Some(((condition, body), rest)) = arms.split_first() {
                    arm(&|inner| {
                        inner.reads(condition);
                        inner.body(body);
                    });
                    arm(&|inner| {
                        inner.reads(condition);
                        for (condition, body) in rest {
                            inner.reads(condition);
                            inner.body(body);
                        }
                    });
                }
                arm(&|inner| inner.body(otherwise));
                self.names.extend(names);
            }
            StatementKind::For(each) => self.reads(&each.items),
            StatementKind::Macro { name, .. } => self.store(name),
            StatementKind::CallBlock { call, .. } => self.reads(call),
            StatementKind::With { values, .. } => values.iter().for_each(|(_, value)| self.reads(value)),
        }
    }
}
