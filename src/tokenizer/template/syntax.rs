//! What a template consists of once it is parsed.

use std::sync::Arc;

/// Statements in order.
pub(super) type Body = Vec<Statement>;

/// A statement and the line where it starts, from 1.
#[derive(Debug)]
pub(super) struct Statement {
    pub(super) line: usize,
    pub(super) kind: StatementKind,
}

/// What a statement does.
#[derive(Debug)]
pub(super) enum StatementKind {
    /// Text between tags.
    Text(String),
    /// `{{ expression }}`.
    Print(Expression),
    /// `{% set target = value %}`.
    Set { target: Target, value: Expression },
    /// `{% set target | filters %}body{% endset %}`.
    SetBlock { target: Target, filters: Vec<Call>, body: Body },
    /// `{% if %}`, with one arm for each condition.
    If { arms: Vec<(Expression, Body)>, otherwise: Body },
    /// `{% for %}`.
    For(Arc<For>),
    /// `{% break %}`.
    Break,
    /// `{% continue %}`.
    Continue,
    /// `{% macro name(...) %}`.
    Macro { name: Arc<str>, definition: Arc<Macro> },
    /// `{% call(...) call %}body{% endcall %}`.
    CallBlock { call: Expression, body: Arc<Macro> },
    /// `{% filter filters %}body{% endfilter %}`.
    FilterBlock { filters: Vec<Call>, body: Body },
    /// `{% with name = value %}body{% endwith %}`.
    With { values: Vec<(Target, Expression)>, body: Body },
    /// `{% generation %}body{% endgeneration %}`: text that the model wrote.
    Generation(Body),
}

/// A loop.
#[derive(Debug)]
pub(super) struct For {
    pub(super) target: Target,
    pub(super) items: Expression,
    pub(super) condition: Option<Expression>,
    pub(super) recursive: bool,
    pub(super) body: Body,
    pub(super) otherwise: Body,
}

/// A macro, or the body of a call block.
#[derive(Debug)]
pub(super) struct Macro {
    pub(super) name: Arc<str>,
    pub(super) parameters: Vec<(Arc<str>, Option<Expression>)>,
    pub(super) body: Body,
    /// Whether the body names `caller`, `varargs`, `kwargs`: only then does a call accept them.
    pub(super) uses: Uses,
}

/// Which of the names that a call can bind without a parameter a body asks for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Uses {
    pub(super) caller: bool,
    pub(super) varargs: bool,
    pub(super) kwargs: bool,
}

/// What is assigned to.
#[derive(Debug)]
pub(super) enum Target {
    Name(Arc<str>),
    Attribute(Arc<str>, Arc<str>),
    Tuple(Vec<Target>),
}

/// A filter, a test or a call: a name and arguments.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) name: Arc<str>,
    pub(super) arguments: ArgumentList,
}

/// The arguments of a call, as they are written.
#[derive(Debug, Default)]
pub(super) struct ArgumentList {
    pub(super) positional: Vec<Expression>,
    pub(super) named: Vec<(Arc<str>, Expression)>,
    /// `*values`.
    pub(super) spread: Option<Box<Expression>>,
    /// `**values`.
    pub(super) spread_named: Option<Box<Expression>>,
}

/// Operators of two operands other than comparisons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    FloorDivide,
    Remainder,
    Power,
}

/// Comparisons, which may be chained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    NotIn,
}

/// An expression.
#[derive(Debug)]
pub(super) enum Expression {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Arc<str>),
    Name(Arc<str>),
    List(Vec<Expression>),
    Tuple(Vec<Expression>),
    Dict(Vec<(Expression, Expression)>),
    Attribute(Box<Expression>, Arc<str>),
    Item(Box<Expression>, Box<Expression>),
    Slice(Box<Expression>, [Option<Box<Expression>>; 3]),
    Call(Box<Expression>, ArgumentList),
    Filter(Box<Expression>, Call),
    Test(Box<Expression>, Call),
    Negative(Box<Expression>),
    Positive(Box<Expression>),
    Not(Box<Expression>),
    And(Box<Expression>, Box<Expression>),
    Or(Box<Expression>, Box<Expression>),
    Binary(Operator, Box<Expression>, Box<Expression>),
    Compare(Box<Expression>, Vec<(Comparison, Expression)>),
    Concat(Vec<Expression>),
    Conditional { condition: Box<Expression>, then: Box<Expression>, otherwise: Option<Box<Expression>> },
}
