//! Tokens to statements and expressions, by jinja2's grammar.

use std::{collections::HashSet, sync::Arc};

use super::{
    checks,
    error::{Error, Result},
    filters,
    lexer::{Token, TokenKind, tokens},
    syntax::{
        ArgumentList, Body, Call, Comparison, Expression, For, Macro, Operator, Statement, StatementKind, Target, Uses,
    },
};

/// How deep expressions and blocks may lie in one another; published templates stay below 20.
const MAX_DEPTH: usize = 100;

/// Words that end a block and so start no statement.
const ENDS: [&str; 12] = [
    "endfor",
    "endif",
    "endset",
    "endmacro",
    "endcall",
    "endfilter",
    "endwith",
    "endgeneration",
    "else",
    "elif",
    "endblock",
    "endautoescape",
];

/// The statements of a template.
pub(super) fn parse(source: &str) -> Result<Body> {
    let mut parser = Parser {
        tokens: tokens(source)?,
        at: 0,
        depth: 0,
        around: Around::Nothing,
        conditional: false,
        unknown: Vec::new(),
    };
    let body = parser.body(&[])?;
    match parser.unknown.into_iter().next() {
        Some(error) => Err(error),
        None => Ok(body),
    }
}

/// What lies around a statement that could be left by `break`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Around {
    Nothing,
    Loop,
    /// Text that is collected inside a loop.
    Collected,
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
    around: Around,
    /// Whether an unknown filter or test fails only when it is reached.
    conditional: bool,
    /// Filters and tests that do not exist and lie under no condition.
    unknown: Vec<Error>,
}

/// One of the subscripts between brackets.
enum Subscript {
    Index(Expression),
    /// Start, stop and step.
    Slice([Option<Box<Expression>>; 3]),
}

impl Parser {
    fn kind(&self) -> &TokenKind {
        &self.tokens[self.at].kind
    }

    fn look(&self) -> &TokenKind {
        &self.tokens[(self.at + 1).min(self.tokens.len() - 1)].kind
    }

    fn line(&self) -> usize {
        self.tokens[self.at].line
    }

    fn next(&mut self) -> TokenKind {
        let kind = self.tokens[self.at].kind.clone();
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
        kind
    }

    fn fail<T>(&self, message: impl Into<String>) -> Result<T> {
        Err(Error::fails(message).at(self.line()))
    }

    fn unexpected<T>(&self, expected: &str) -> Result<T> {
        let found = match self.kind() {
            TokenKind::Data(_) => "text".to_owned(),
            TokenKind::BlockBegin => "a tag".to_owned(),
            TokenKind::BlockEnd | TokenKind::VariableEnd => "the end of the tag".to_owned(),
            TokenKind::VariableBegin => "`{{`".to_owned(),
            TokenKind::Name(name) => format!("{name:?}"),
            TokenKind::Text(text) => format!("the text {text:?}"),
            TokenKind::Int(value) => value.to_string(),
            TokenKind::Float(value) => value.to_string(),
            TokenKind::Operator(operator) => format!("{operator:?}"),
            TokenKind::End => "the end of the template".to_owned(),
        };
        self.fail(format!("expected {expected}, found {found}"))
    }

    fn is(&self, operator: &str) -> bool {
        matches!(self.kind(), TokenKind::Operator(found) if *found == operator)
    }

    fn is_name(&self, name: &str) -> bool {
        matches!(self.kind(), TokenKind::Name(found) if found == name)
    }

    fn skip_if(&mut self, operator: &str) -> bool {
        let found = self.is(operator);
        if found {
            self.next();
        }
        found
    }

    fn skip_if_name(&mut self, name: &str) -> bool {
        let found = self.is_name(name);
        if found {
            self.next();
        }
        found
    }

    fn expect(&mut self, operator: &str) -> Result<()> {
        if self.skip_if(operator) { Ok(()) } else { self.unexpected(&format!("{operator:?}")) }
    }

    fn expect_name(&mut self, name: &str) -> Result<()> {
        if self.skip_if_name(name) { Ok(()) } else { self.unexpected(&format!("{name:?}")) }
    }

    fn name(&mut self) -> Result<Arc<str>> {
        match self.kind() {
            TokenKind::Name(_) => match self.next() {
                TokenKind::Name(name) => Ok(name.into()),
                _ => self.unexpected("a name"),
            },
            _ => self.unexpected("a name"),
        }
    }

    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Error::refused(format!("it nests more than {MAX_DEPTH} deep")).at(self.line()));
        }
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    /// Counts what nests without being deep: the operands of one chain.
    fn count(&self, count: &mut usize) -> Result<()> {
        *count += 1;
        if *count > 2 * MAX_DEPTH {
            return Err(Error::refused("a chain of very many operators, attributes or filters").at(self.line()));
        }
        Ok(())
    }

    /// Parses with another idea of what lies around, and of whether the place is a condition's.
    fn inside<T>(
        &mut self,
        around: Around,
        conditional: bool,
        parse: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let before = (self.around, self.conditional);
        (self.around, self.conditional) = (around, conditional);
        let parsed = self.deeper(parse);
        (self.around, self.conditional) = before;
        parsed
    }

    /// Statements up to a tag that starts with one of `ends`, which is left to the caller at that word.
    fn body(&mut self, ends: &[&str]) -> Result<Body> {
        let mut body = Body::new();
        loop {
            let line = self.line();
            match self.kind() {
                TokenKind::Data(_) => {
                    let TokenKind::Data(text) = self.next() else { continue };
                    body.push(Statement { line, kind: StatementKind::Text(text) });
                }
                TokenKind::VariableBegin => {
                    self.next();
                    let value = self.tuple(true, &[])?;
                    if *self.kind() != TokenKind::VariableEnd {
                        return self.unexpected("the end of the tag");
                    }
                    self.next();
                    body.push(Statement { line, kind: StatementKind::Print(value) });
                }
                TokenKind::BlockBegin => {
                    self.next();
                    if let TokenKind::Name(name) = self.kind()
                        && ends.contains(&name.as_str())
                    {
                        return Ok(body);
                    }
                    for kind in self.statement()? {
                        body.push(Statement { line, kind });
                    }
                    if *self.kind() != TokenKind::BlockEnd {
                        return self.unexpected("the end of the tag");
                    }
                    self.next();
                }
                TokenKind::End if ends.is_empty() => return Ok(body),
                TokenKind::End => {
                    return self.fail(format!("the template ends where a tag was expected: {}", ends.join(" or ")));
                }
                _ => return self.unexpected("text or a tag"),
            }
        }
    }

    /// The rest of the tag, then statements up to one of `ends`.
    fn block(&mut self, ends: &[&str]) -> Result<Body> {
        self.skip_if(":");
        if *self.kind() != TokenKind::BlockEnd {
            return self.unexpected("the end of the tag");
        }
        self.next();
        self.body(ends)
    }

    fn statement(&mut self) -> Result<Vec<StatementKind>> {
        let TokenKind::Name(word) = self.kind().clone() else { return self.unexpected("the name of a tag") };
        let kind = match word.as_str() {
            "print" => {
                self.next();
                let mut printed = Vec::new();
                while *self.kind() != TokenKind::BlockEnd {
                    if !printed.is_empty() {
                        self.expect(",")?;
                    }
                    printed.push(StatementKind::Print(self.expression()?));
                }
                return Ok(printed);
            }
            "set" => self.set()?,
            "for" => self.for_loop()?,
            "if" => self.condition()?,
            "macro" => self.macro_definition()?,
            "call" => self.call_block()?,
            "filter" => {
                self.next();
                let mut filters = vec![self.filter_call()?];
                filters.extend(self.filter_calls()?);
                let body = self.inside(self.collected(), false, |parser| parser.block(&["endfilter"]))?;
                self.next();
                StatementKind::FilterBlock { filters, body }
            }
            "with" => {
                self.next();
                let mut values = Vec::new();
                while *self.kind() != TokenKind::BlockEnd {
                    if !values.is_empty() {
                        self.expect(",")?;
                    }
                    let target = self.target(false, &[])?;
                    self.expect("=")?;
                    values.push((target, self.expression()?));
                }
                let body = self.inside(self.around, false, |parser| parser.block(&["endwith"]))?;
                self.next();
                StatementKind::With { values, body }
            }
            "generation" => {
                self.next();
                let body = self.inside(Around::Nothing, false, |parser| parser.body_of_generation())?;
                self.next();
                StatementKind::Generation(body)
            }
            "break" | "continue" => {
                match self.around {
                    Around::Nothing => return self.fail(format!("{word:?} outside of a loop")),
                    Around::Collected => {
                        return Err(
                            Error::refused(format!("{word:?} inside a block that is collected")).at(self.line())
                        );
                    }
                    Around::Loop => {}
                }
                self.next();
                if word == "break" { StatementKind::Break } else { StatementKind::Continue }
            }
            "block" | "extends" | "include" | "import" | "from" | "autoescape" => {
                return Err(Error::refused(format!("the tag {word:?}")).at(self.line()));
            }
            _ if ENDS.contains(&word.as_str()) => return self.fail(format!("{word:?} ends nothing that is open here")),
            _ => return self.fail(format!("unknown tag {word:?}")),
        };
        Ok(vec![kind])
    }

    fn body_of_generation(&mut self) -> Result<Body> {
        self.block(&["endgeneration"])
    }

    fn collected(&self) -> Around {
        if self.around == Around::Nothing { Around::Nothing } else { Around::Collected }
    }

    fn set(&mut self) -> Result<StatementKind> {
        self.next();
        let target = self.target(true, &[])?;
        if self.skip_if("=") {
            return Ok(StatementKind::Set { target, value: self.tuple(true, &[])? });
        }
        let filters = self.filter_calls()?;
        let body = self.inside(self.collected(), false, |parser| parser.block(&["endset"]))?;
        self.next();
        Ok(StatementKind::SetBlock { target, filters, body })
    }

    fn for_loop(&mut self) -> Result<StatementKind> {
        self.next();
        let target = self.target(false, &["in"])?;
        self.expect_name("in")?;
        let items = self.tuple(false, &["recursive"])?;
        let condition = if self.skip_if_name("if") { Some(self.expression()?) } else { None };
        let recursive = self.skip_if_name("recursive");
        let around = self.around;
        let body = self.inside(Around::Loop, false, |parser| parser.block(&["endfor", "else"]))?;
        let otherwise = if self.skip_if_name("else") {
            self.inside(around, false, |parser| parser.block(&["endfor"]))?
        } else {
            Body::new()
        };
        self.next();
        let target_names = names_of(&target);
        if target_names.iter().any(|name| ***name == *"loop") {
            return self.fail("can't assign to special loop variable in for-loop target");
        }
        Ok(StatementKind::For(Arc::new(For { target, items, condition, recursive, body, otherwise })))
    }

    fn condition(&mut self) -> Result<StatementKind> {
        self.next();
        let around = self.around;
        let mut arms = Vec::new();
        loop {
            let test = self.inside(around, true, |parser| parser.tuple(false, &[]))?;
            let body = self.inside(around, true, |parser| parser.block(&["elif", "else", "endif"]))?;
            arms.push((test, body));
            if self.skip_if_name("elif") {
                continue;
            }
            let otherwise = if self.skip_if_name("else") {
                self.inside(around, true, |parser| parser.block(&["endif"]))?
            } else {
                Body::new()
            };
            self.next();
            return Ok(StatementKind::If { arms, otherwise });
        }
    }

    fn macro_definition(&mut self) -> Result<StatementKind> {
        self.next();
        let name = self.name()?;
        let parameters = self.signature()?;
        let body = self.inside(Around::Nothing, false, |parser| parser.block(&["endmacro"]))?;
        self.next();
        let uses = uses(&body);
        Ok(StatementKind::Macro {
            name: Arc::clone(&name),
            definition: Arc::new(Macro { name, parameters, body, uses }),
        })
    }

    fn call_block(&mut self) -> Result<StatementKind> {
        self.next();
        let parameters = if self.is("(") { self.signature()? } else { Vec::new() };
        let call = self.expression()?;
        if !matches!(call, Expression::Call(..)) {
            return self.fail("expected a call");
        }
        let body = self.inside(Around::Nothing, false, |parser| parser.block(&["endcall"]))?;
        self.next();
        let uses = uses(&body);
        Ok(StatementKind::CallBlock { call, body: Arc::new(Macro { name: "caller".into(), parameters, body, uses }) })
    }

    fn signature(&mut self) -> Result<Vec<(Arc<str>, Option<Expression>)>> {
        self.expect("(")?;
        let mut parameters: Vec<(Arc<str>, Option<Expression>)> = Vec::new();
        while !self.is(")") {
            if !parameters.is_empty() {
                self.expect(",")?;
            }
            let name = self.name()?;
            if matches!(&*name, "caller" | "varargs" | "kwargs") {
                return Err(Error::refused(format!("a parameter named {name:?}")).at(self.line()));
            }
            if parameters.iter().any(|(other, _)| *other == name) {
                return self.fail(format!("two parameters are named {name:?}"));
            }
            let default = if self.skip_if("=") { Some(self.expression()?) } else { None };
            if default.is_none() && parameters.last().is_some_and(|(_, default)| default.is_some()) {
                return self.fail("non-default argument follows default argument");
            }
            parameters.push((name, default));
        }
        self.next();
        Ok(parameters)
    }

    /// A name, an attribute of a namespace where `attributes`, or several of them.
    fn target(&mut self, attributes: bool, ends: &[&str]) -> Result<Target> {
        let mut targets = Vec::new();
        let mut tuple = false;
        loop {
            if !targets.is_empty() {
                self.expect(",")?;
            }
            if self.tuple_ends(ends) {
                break;
            }
            targets.push(self.one_target(attributes)?);
            if !self.is(",") {
                break;
            }
            tuple = true;
        }
        match targets.pop() {
            Some(target) if !tuple => Ok(target),
            Some(target) => {
                targets.push(target);
                Ok(Target::Tuple(targets))
            }
            None => self.unexpected("a name to assign to"),
        }
    }

    fn one_target(&mut self, attributes: bool) -> Result<Target> {
        if self.is("(") {
            self.next();
            let target = self.deeper(|parser| parser.target(false, &[]))?;
            self.expect(")")?;
            return Ok(target);
        }
        let name = self.name()?;
        if matches!(&*name, "true" | "false" | "none" | "True" | "False" | "None") {
            return self.fail(format!("can't assign to {name:?}"));
        }
        if attributes && self.skip_if(".") {
            return Ok(Target::Attribute(name, self.name()?));
        }
        Ok(Target::Name(name))
    }

    fn tuple_ends(&self, ends: &[&str]) -> bool {
        match self.kind() {
            TokenKind::VariableEnd | TokenKind::BlockEnd | TokenKind::Operator(")") => true,
            TokenKind::Name(name) => ends.contains(&name.as_str()),
            _ => false,
        }
    }

    /// An expression, or several as a tuple.
    fn tuple(&mut self, conditional: bool, ends: &[&str]) -> Result<Expression> {
        match self.tuple_items(conditional, ends)? {
            (mut items, false) => match items.pop() {
                Some(item) => Ok(item),
                None => self.unexpected("an expression"),
            },
            (items, true) => Ok(Expression::Tuple(items)),
        }
    }

    fn tuple_items(&mut self, conditional: bool, ends: &[&str]) -> Result<(Vec<Expression>, bool)> {
        let mut items = Vec::new();
        let mut tuple = false;
        loop {
            if !items.is_empty() {
                self.expect(",")?;
            }
            if self.tuple_ends(ends) {
                break;
            }
            items.push(if conditional { self.expression()? } else { self.deeper(Self::or)? });
            if !self.is(",") {
                break;
            }
            tuple = true;
        }
        Ok((items, tuple))
    }

    fn expression(&mut self) -> Result<Expression> {
        self.deeper(Self::conditional)
    }

    fn conditional(&mut self) -> Result<Expression> {
        let unknown = self.unknown.len();
        let mut value = self.or()?;
        if self.is_name("if") {
            // What lies under a condition may name filters that do not exist.
            self.unknown.truncate(unknown);
        }
        let mut count = 0;
        while self.skip_if_name("if") {
            self.count(&mut count)?;
            let around = self.around;
            let condition = Box::new(self.inside(around, true, Self::or)?);
            let otherwise = if self.skip_if_name("else") {
                Some(Box::new(self.inside(around, true, Self::conditional)?))
            } else {
                None
            };
            value = Expression::Conditional { condition, then: Box::new(value), otherwise };
        }
        Ok(value)
    }

    fn or(&mut self) -> Result<Expression> {
        let mut left = self.and()?;
        let mut count = 0;
        while self.skip_if_name("or") {
            self.count(&mut count)?;
            left = Expression::Or(Box::new(left), Box::new(self.and()?));
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Expression> {
        let mut left = self.not()?;
        let mut count = 0;
        while self.skip_if_name("and") {
            self.count(&mut count)?;
            left = Expression::And(Box::new(left), Box::new(self.not()?));
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Expression> {
        if self.skip_if_name("not") {
            return Ok(Expression::Not(Box::new(self.deeper(Self::not)?)));
        }
        self.compare()
    }

    fn compare(&mut self) -> Result<Expression> {
        let left = self.sum()?;
        let mut others = Vec::new();
        loop {
            let comparison = match self.kind() {
                TokenKind::Operator("==") => Comparison::Equal,
                TokenKind::Operator("!=") => Comparison::NotEqual,
                TokenKind::Operator("<") => Comparison::Less,
                TokenKind::Operator("<=") => Comparison::LessOrEqual,
                TokenKind::Operator(">") => Comparison::Greater,
                TokenKind::Operator(">=") => Comparison::GreaterOrEqual,
                TokenKind::Name(name) if name == "in" => Comparison::In,
                TokenKind::Name(name)
                    if name == "not" && matches!(self.look(), TokenKind::Name(name) if name == "in") =>
                {
                    self.next();
                    Comparison::NotIn
                }
                _ => break,
            };
            self.next();
            others.push((comparison, self.sum()?));
        }
        Ok(if others.is_empty() { left } else { Expression::Compare(Box::new(left), others) })
    }

    fn sum(&mut self) -> Result<Expression> {
        self.binary(Self::concat, &[("+", Operator::Add), ("-", Operator::Subtract)])
    }

    fn concat(&mut self) -> Result<Expression> {
        let first = self.product()?;
        if !self.is("~") {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.skip_if("~") {
            parts.push(self.product()?);
        }
        Ok(Expression::Concat(parts))
    }

    fn product(&mut self) -> Result<Expression> {
        let operators = [
            ("*", Operator::Multiply),
            ("/", Operator::Divide),
            ("//", Operator::FloorDivide),
            ("%", Operator::Remainder),
        ];
        self.binary(Self::power, &operators)
    }

    fn power(&mut self) -> Result<Expression> {
        self.binary(|parser| parser.unary(true), &[("**", Operator::Power)])
    }

    fn binary(
        &mut self,
        operand: impl Fn(&mut Self) -> Result<Expression>,
        operators: &[(&str, Operator)],
    ) -> Result<Expression> {
        let mut left = operand(self)?;
        let mut count = 0;
        while let Some(&(_, operator)) = operators.iter().find(|(text, _)| self.is(text)) {
            self.count(&mut count)?;
            self.next();
            left = Expression::Binary(operator, Box::new(left), Box::new(operand(self)?));
        }
        Ok(left)
    }

    fn unary(&mut self, filtered: bool) -> Result<Expression> {
        let value = if self.skip_if("-") {
            Expression::Negative(Box::new(self.deeper(|parser| parser.unary(false))?))
        } else if self.skip_if("+") {
            Expression::Positive(Box::new(self.deeper(|parser| parser.unary(false))?))
        } else {
            self.primary()?
        };
        let value = self.postfix(value)?;
        if filtered { self.filtered(value) } else { Ok(value) }
    }

    fn primary(&mut self) -> Result<Expression> {
        match self.kind().clone() {
            TokenKind::Name(name) => {
                self.next();
                Ok(match name.as_str() {
                    "true" | "True" => Expression::Bool(true),
                    "false" | "False" => Expression::Bool(false),
                    "none" | "None" => Expression::None,
                    _ => Expression::Name(name.into()),
                })
            }
            TokenKind::Text(mut text) => {
                self.next();
                while let TokenKind::Text(more) = self.kind() {
                    text.push_str(more);
                    self.next();
                }
                Ok(Expression::Text(text.into()))
            }
            TokenKind::Int(value) => {
                self.next();
                Ok(Expression::Int(value))
            }
            TokenKind::Float(value) => {
                self.next();
                Ok(Expression::Float(value))
            }
            TokenKind::Operator("(") => {
                self.next();
                let (mut items, tuple) = self.deeper(|parser| parser.tuple_items(true, &[]))?;
                self.expect(")")?;
                Ok(match items.pop() {
                    Some(item) if !tuple => item,
                    Some(item) => {
                        items.push(item);
                        Expression::Tuple(items)
                    }
                    None => Expression::Tuple(items),
                })
            }
            TokenKind::Operator("[") => {
                self.next();
                let mut items = Vec::new();
                while !self.is("]") {
                    if !items.is_empty() {
                        self.expect(",")?;
                    }
                    if self.is("]") {
                        break;
                    }
                    items.push(self.expression()?);
                }
                self.expect("]")?;
                Ok(Expression::List(items))
            }
            TokenKind::Operator("{") => {
                self.next();
                let mut items = Vec::new();
                while !self.is("}") {
                    if !items.is_empty() {
                        self.expect(",")?;
                    }
                    if self.is("}") {
                        break;
                    }
                    let key = self.expression()?;
                    self.expect(":")?;
                    items.push((key, self.expression()?));
                }
                self.expect("}")?;
                Ok(Expression::Dict(items))
            }
            _ => self.unexpected("an expression"),
        }
    }

    fn postfix(&mut self, mut value: Expression) -> Result<Expression> {
        let mut count = 0;
        loop {
            self.count(&mut count)?;
            value = match self.kind() {
                TokenKind::Operator(".") => {
                    self.next();
                    match self.next() {
                        TokenKind::Name(name) => Expression::Attribute(Box::new(value), name.into()),
                        TokenKind::Int(index) => Expression::Item(Box::new(value), Box::new(Expression::Int(index))),
                        _ => return self.fail("expected name or number after \".\""),
                    }
                }
                TokenKind::Operator("[") => self.subscript(value)?,
                TokenKind::Operator("(") => Expression::Call(Box::new(value), self.arguments()?),
                _ => return Ok(value),
            };
        }
    }

    fn subscript(&mut self, value: Expression) -> Result<Expression> {
        self.next();
        let mut subscripts = Vec::new();
        while !self.is("]") {
            if !subscripts.is_empty() {
                self.expect(",")?;
            }
            subscripts.push(self.subscribed()?);
        }
        self.next();
        let value = Box::new(value);
        match <[Subscript; 1]>::try_from(subscripts) {
            Ok([Subscript::Index(index)]) => Ok(Expression::Item(value, Box::new(index))),
            Ok([Subscript::Slice(parts)]) => Ok(Expression::Slice(value, parts)),
            Err(several) => {
                let index = |subscript| match subscript {
                    Subscript::Index(index) => Ok(index),
                    Subscript::Slice(_) => Err(Error::refused("a slice among several subscripts").at(self.line())),
                };
                let several = several.into_iter().map(index).collect::<Result<_>>()?;
                Ok(Expression::Item(value, Box::new(Expression::Tuple(several))))
            }
        }
    }

    fn subscribed(&mut self) -> Result<Subscript> {
        let start = if self.is(":") {
            None
        } else {
            let index = self.expression()?;
            if !self.is(":") {
                return Ok(Subscript::Index(index));
            }
            Some(Box::new(index))
        };
        self.next();
        let stop = self.bound()?;
        let step = if self.skip_if(":") { self.bound()? } else { None };
        Ok(Subscript::Slice([start, stop, step]))
    }

    /// An expression, if a subscript does not go on or end here.
    fn bound(&mut self) -> Result<Option<Box<Expression>>> {
        let absent = self.is(":") || self.is(",") || self.is("]");
        if absent { Ok(None) } else { Ok(Some(Box::new(self.expression()?))) }
    }

    fn filtered(&mut self, mut value: Expression) -> Result<Expression> {
        let mut count = 0;
        loop {
            self.count(&mut count)?;
            value = if self.skip_if("|") {
                let filter = self.filter_call()?;
                Expression::Filter(Box::new(value), filter)
            } else if self.skip_if_name("is") {
                self.test(value)?
            } else if self.is("(") {
                Expression::Call(Box::new(value), self.arguments()?)
            } else {
                return Ok(value);
            };
        }
    }

    fn dotted_name(&mut self) -> Result<Arc<str>> {
        let mut name = self.name()?.to_string();
        while self.skip_if(".") {
            name = format!("{name}.{}", self.name()?);
        }
        Ok(name.into())
    }

    fn filter_call(&mut self) -> Result<Call> {
        let name = self.dotted_name()?;
        if !self.conditional && !filters::exists(&name) {
            self.unknown.push(Error::fails(format!("no filter named {name:?}")).at(self.line()));
        }
        let arguments = if self.is("(") { self.arguments()? } else { ArgumentList::default() };
        Ok(Call { name, arguments })
    }

    fn filter_calls(&mut self) -> Result<Vec<Call>> {
        let mut filters = Vec::new();
        while self.skip_if("|") {
            filters.push(self.filter_call()?);
        }
        Ok(filters)
    }

    fn test(&mut self, value: Expression) -> Result<Expression> {
        let negated = self.skip_if_name("not");
        let name = self.dotted_name()?;
        if !self.conditional && !checks::exists(&name) {
            self.unknown.push(Error::fails(format!("no test named {name:?}")).at(self.line()));
        }
        let takes_one = match self.kind() {
            TokenKind::Name(word) => !matches!(word.as_str(), "else" | "or" | "and"),
            TokenKind::Text(_) | TokenKind::Int(_) | TokenKind::Float(_) | TokenKind::Operator("[" | "{") => true,
            _ => false,
        };
        let arguments = if self.is("(") {
            self.arguments()?
        } else if takes_one {
            if self.is_name("is") {
                return self.fail("you cannot chain multiple tests with is");
            }
            let argument = self.deeper(Self::primary)?;
            let argument = self.postfix(argument)?;
            ArgumentList { positional: vec![argument], ..ArgumentList::default() }
        } else {
            ArgumentList::default()
        };
        let test = Expression::Test(Box::new(value), Call { name, arguments });
        Ok(if negated { Expression::Not(Box::new(test)) } else { test })
    }

    fn arguments(&mut self) -> Result<ArgumentList> {
        self.expect("(")?;
        let mut list = ArgumentList::default();
        let mut first = true;
        while !self.is(")") {
            if !first {
                self.expect(",")?;
                if self.is(")") {
                    break;
                }
            }
            first = false;
            let invalid = "invalid syntax for function call expression";
            if self.skip_if("*") {
                if list.spread.is_some() || list.spread_named.is_some() {
                    return self.fail(invalid);
                }
                list.spread = Some(Box::new(self.expression()?));
            } else if self.skip_if("**") {
                if list.spread_named.is_some() {
                    return self.fail(invalid);
                }
                list.spread_named = Some(Box::new(self.expression()?));
            } else if matches!(self.kind(), TokenKind::Name(_)) && *self.look() == TokenKind::Operator("=") {
                if list.spread_named.is_some() {
                    return self.fail(invalid);
                }
                let name = self.name()?;
                self.next();
                if list.named.iter().any(|(other, _)| *other == name) {
                    return self.fail(format!("keyword argument repeated: {name}"));
                }
                list.named.push((name, self.expression()?));
            } else {
                if list.spread.is_some() || list.spread_named.is_some() || !list.named.is_empty() {
                    return self.fail(invalid);
                }
                list.positional.push(self.expression()?);
            }
        }
        self.expect(")")?;
        Ok(list)
    }
}

fn names_of(target: &Target) -> Vec<&Arc<str>> {
    match target {
        Target::Name(name) => vec![name],
        Target::Attribute(..) => Vec::new(),
        Target::Tuple(targets) => targets.iter().flat_map(names_of).collect(),
    }
}

fn uses(body: &Body) -> Uses {
    let mut names = HashSet::new();
    super::names::loaded(body, &mut names);
    Uses { caller: names.contains("caller"), varargs: names.contains("varargs"), kwargs: names.contains("kwargs") }
}
