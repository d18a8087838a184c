//! Chat templates, rendered as transformers renders them.
//!
//! A template is Jinja in Python's values: jinja2's immutable sandbox with blocks trimmed and left-stripped, loop
//! controls, and transformers' own `tojson`, `raise_exception`, `strftime_now` and `{% generation %}`. This is a
//! renderer of that language and of nothing else. Engines for Jinja in Rust have values and an order of their own
//! (texts and numbers can be compared, a list prints as JSON), which gives other prompts without a word; here
//! what jinja2 refuses is an error, and what this renderer does not do as jinja2 does is refused.
//!
//! [`lexer`] and [`parser`] make a tree of a source, [`interpreter`] walks it over [`value`]s. `tests.rs` holds
//! the whole to texts that jinja2 gave.

mod arguments;
mod attributes;
mod checks;
mod error;
mod filters;
mod fuel;
mod functions;
mod interpreter;
mod json;
mod lexer;
mod names;
mod operators;
mod parser;
mod percent;
mod syntax;
mod text;
mod value;

use std::{cell::Cell, collections::HashMap, sync::Arc};

use serde::{Deserialize, Serialize};

use self::{
    error::{Error, Kind},
    functions::Environment,
    interpreter::Interpreter,
    syntax::Body,
    value::Value,
};
use super::{clock::Clock, engine::brief, ordered_json::Json};

/// Bytes that a template may render, apart from [`TIMES`] those of the messages. The longest in use writes a few thousand.
const LONGEST: usize = 32 << 10;
/// How often a template may say what it was told.
const TIMES: usize = 4;

/// Stack of the thread that renders: what nests as deep as the renderer lets it must fit, without optimization.
const STACK: usize = 128 << 20;

/// Why a chat template gave no text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// The checkpoint has none.
    #[error(
        "the model has no chat template (neither chat_template.jinja nor chat_template in tokenizer_config.json); give the prompt as it is with --raw"
    )]
    None,
    /// The checkpoint has several, and none of them is the default.
    #[error("the model has several chat templates and none is named \"default\"; choose one with --template: {}", .0.join(", "))]
    Unchosen(Vec<String>),
    /// The checkpoint has none of this name.
    #[error("the model has no chat template {name:?}{}", if names.is_empty() { String::new() } else { format!("; it has {}", names.join(", ")) })]
    Unknown {
        /// What was asked for.
        name: String,
        /// The names that there are.
        names: Vec<String>,
    },
    /// It is not valid, or asks for what is not there.
    #[error("the chat template fails{}: {message}", in_line(*line))]
    Invalid {
        /// Line of the template, from 1.
        line: Option<usize>,
        /// What is wrong.
        message: String,
    },
    /// It uses what jinja2 would render and this renderer does not vouch for.
    #[error(
        "the chat template cannot be rendered for certain as transformers does{}: {message}; give the ids with --prompt-ids, or the prompt as it is with --raw",
        in_line(*line)
    )]
    Refused {
        /// Line of the template, from 1.
        line: Option<usize>,
        /// What is not supported.
        message: String,
    },
    /// It called `raise_exception`.
    #[error("the chat template refuses these messages: {0}")]
    Raised(String),
    /// It writes more than belongs before any message.
    #[error("the chat template renders more than {limit} bytes of these messages")]
    Long {
        /// Bytes allowed.
        limit: usize,
    },
}

fn in_line(line: Option<usize>) -> String {
    line.map_or_else(String::new, |line| format!(" in line {line}"))
}

impl From<Error> for TemplateError {
    fn from(error: Error) -> Self {
        let message = brief(error.message());
        match error.kind() {
            Kind::Raised => Self::Raised(message),
            Kind::Fails => Self::Invalid { line: error.line(), message },
            Kind::Refused => Self::Refused { line: error.line(), message },
        }
    }
}

/// A chat template, and what it may name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct TemplateSource {
    /// The file that it lies in.
    #[serde(skip)]
    pub(super) file: &'static str,
    /// The template.
    pub(super) text: String,
    /// Variables besides the messages.
    pub(super) variables: Vec<(String, Json)>,
    /// What counts as now.
    pub(super) clock: Clock,
}

/// An optional system message and one message of a user.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Chat {
    messages: Vec<(String, String)>,
}

impl Chat {
    pub(super) fn new(system: Option<&str>, user: &str) -> Self {
        let system = system.map(|content| ("system".to_owned(), content.to_owned()));
        Self { messages: system.into_iter().chain([("user".to_owned(), user.to_owned())]).collect() }
    }

    /// Bytes of all messages.
    pub(super) fn len(&self) -> usize {
        self.messages.iter().map(|(_, content)| content.len()).sum()
    }

    fn to_json(&self) -> Json {
        let text = |name: &str, text: &String| (name.to_owned(), Json::Text(text.clone()));
        let message =
            |(role, content): &(String, String)| Json::Object(vec![text("role", role), text("content", content)]);
        Json::List(self.messages.iter().map(message).collect())
    }
}

/// What a template wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Rendered {
    pub(super) text: String,
    /// The date that it asked for, if it did.
    pub(super) date: Option<String>,
}

/// What the template makes of each of `chats`.
pub(super) fn render(source: &TemplateSource, chats: &[Chat]) -> Vec<Result<Rendered, TemplateError>> {
    let all = || -> Result<Vec<_>, TemplateError> {
        let template = Template::new(&source.text)?;
        let each = |chat: &Chat| {
            let mut variables = source.variables.clone();
            variables.push(("messages".to_owned(), chat.to_json()));
            template.render(&variables, &source.clock, LONGEST + TIMES * chat.len())
        };
        Ok(chats.iter().map(each).collect())
    };
    on_large_stack(all).and_then(|all| all).unwrap_or_else(|error| vec![Err(error); chats.len()])
}

/// A parsed template.
#[derive(Debug)]
struct Template {
    body: Body,
    /// Names that are the template's own from its first line on.
    own: Vec<Arc<str>>,
}

impl Template {
    fn new(source: &str) -> Result<Self, TemplateError> {
        let body = parser::parse(source)?;
        let own = names::own(&body);
        Ok(Self { body, own })
    }

    /// The text that the template makes of `variables`, of at most `limit` bytes. It needs a large stack.
    fn render(&self, variables: &[(String, Json)], clock: &Clock, limit: usize) -> Result<Rendered, TemplateError> {
        fuel::start();
        let mut values = HashMap::new();
        for (name, value) in variables {
            values.insert(Arc::from(name.as_str()), to_value(value)?);
        }
        let world = World { clock, date: Cell::new(false), time: Cell::new(false) };
        let text = Interpreter::new(values, &self.own, &world).render(&self.body)?;
        if text.len() > limit {
            return Err(TemplateError::Long { limit });
        }
        let date = (world.date.get() || world.time.get()).then(|| clock.recorded(world.time.get()));
        Ok(Rendered { text, date })
    }
}

fn on_large_stack<T: Send>(run: impl FnOnce() -> T + Send) -> Result<T, TemplateError> {
    let failed = |message: String| TemplateError::Invalid { line: None, message };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("template".to_owned()).stack_size(STACK);
        let thread = thread.spawn_scoped(scope, run).map_err(|error| failed(error.to_string()))?;
        thread.join().map_err(|_| failed("the renderer panicked".to_owned()))
    })
}

fn to_value(json: &Json) -> error::Result<Value> {
    Ok(match json {
        Json::Null => Value::None,
        Json::Bool(value) => Value::Bool(*value),
        Json::Int(value) => Value::Int(*value),
        Json::Float(value) => Value::Float(*value),
        Json::Text(text) => Value::text(text.as_str()),
        Json::List(items) => Value::list(items.iter().map(to_value).collect::<error::Result<_>>()?)?,
        Json::Object(entries) => {
            let pairs = entries.iter().map(|(key, value)| Ok((Value::text(key.as_str()), to_value(value)?)));
            Value::dict(pairs.collect::<error::Result<Vec<_>>>()?)?
        }
    })
}

/// The clock, and what of it was asked for.
struct World<'a> {
    clock: &'a Clock,
    date: Cell<bool>,
    time: Cell<bool>,
}

impl Environment for World<'_> {
    fn now(&self, format: &str) -> error::Result<String> {
        let (text, time) = self.clock.format(format).map_err(Error::refused)?;
        if time {
            self.time.set(true)
        } else {
            self.date.set(true)
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests;
