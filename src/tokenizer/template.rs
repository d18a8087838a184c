//! Chat templates, rendered as transformers renders them.
//!
//! A template is Jinja with Python's string methods, `raise_exception`, `strftime_now`, loop controls, and
//! blocks trimmed and left-stripped. It lies in `chat_template.jinja`, which wins, or under `chat_template` in
//! `tokenizer_config.json`: a text, or a list of named ones of which `default` is taken.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use minijinja::{Environment, Error, ErrorKind, State, Value, syntax::SyntaxConfig};
use serde::{Deserialize, Serialize};
use serde_json::ser::{Formatter, PrettyFormatter};

/// Steps that a template may take; one that is larger than any in use takes some thousand. Beyond lies a
/// template that would not end.
const FUEL: u64 = 5_000_000;

/// Bytes that a template may render, apart from [`TIMES`] those of the messages. The longest in use writes a few thousand.
const LONGEST: usize = 32 << 10;
/// How often a template may say what it was told.
const TIMES: usize = 4;
/// Longest text of an error, in characters.
const LONGEST_ERROR: usize = 500;

/// Why a chat template gave no text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// The checkpoint has none.
    #[error(
        "the model has no chat template (neither chat_template.jinja nor chat_template in tokenizer_config.json); give the prompt as it is with --raw"
    )]
    None,
    /// It is not valid, or asks for what is not there.
    #[error("the chat template fails{}: {message}", line.map_or(String::new(), |line| format!(" in line {line}")))]
    Invalid {
        /// Line of the template, from 1.
        line: Option<usize>,
        /// What is wrong.
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

/// Text that a template raised, so that it is told from an error in the template.
#[derive(Debug)]
struct Raised(String);

impl std::fmt::Display for Raised {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

/// A chat template, and what it may name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct TemplateSource {
    /// The file that it lies in.
    #[serde(skip)]
    pub(super) file: &'static str,
    /// The template.
    pub(super) text: String,
    /// Special tokens, by their keys in `tokenizer_config.json`.
    pub(super) tokens: BTreeMap<String, String>,
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
}

/// The text of each of `chats`, with the start of an answer.
pub(super) fn render(source: &TemplateSource, chats: &[Chat]) -> Vec<Result<String, TemplateError>> {
    match Template::new(source) {
        Ok(template) => chats.iter().map(|chat| template.render(chat)).collect(),
        Err(error) => vec![Err(error); chats.len()],
    }
}

/// A compiled template.
struct Template<'s> {
    environment: Environment<'static>,
    tokens: &'s BTreeMap<String, String>,
}

const NAME: &str = "chat_template";

impl<'s> Template<'s> {
    fn new(source: &'s TemplateSource) -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| explain(&error))?);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
        });
        environment.add_function("strftime_now", |format: String| -> Result<String, Error> {
            let now = jiff::Zoned::now();
            jiff::fmt::strtime::format(&format, &now)
                .map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
        });
        environment.add_filter("tojson", to_json);
        environment.add_template_owned(NAME, without_generation_tags(&source.text)).map_err(|error| explain(&error))?;
        Ok(Self { environment, tokens: &source.tokens })
    }

    fn render(&self, chat: &Chat) -> Result<String, TemplateError> {
        let mut context: BTreeMap<&str, Value> =
            self.tokens.iter().map(|(name, token)| (name.as_str(), Value::from(token.as_str()))).collect();
        let message = |(role, content): &(String, String)| {
            Value::from_pairs([("role", role.as_str()), ("content", content.as_str())])
        };
        context.insert("messages", Value::from(chat.messages.iter().map(message).collect::<Vec<_>>()));
        context.insert("add_generation_prompt", Value::from(true));
        context.insert("tools", Value::from(()));
        context.insert("documents", Value::from(()));
        let template = self.environment.get_template(NAME).map_err(|error| explain(&error))?;
        let mut out = Limited { text: Vec::new(), limit: LONGEST + TIMES * chat.len(), cut: false };
        let rendered = template.render_captured_to(Value::from_pairs(context), &mut out).map(drop);
        if out.cut {
            return Err(TemplateError::Long { limit: out.limit });
        }
        rendered.map_err(|error| explain(&error))?;
        let failed =
            |error: std::string::FromUtf8Error| TemplateError::Invalid { line: None, message: error.to_string() };
        String::from_utf8(out.text).map_err(failed)
    }
}

/// Text up to a limit.
struct Limited {
    text: Vec<u8>,
    limit: usize,
    /// Whether there was more.
    cut: bool,
}

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.text.len() + bytes.len() > self.limit {
            self.cut = true;
            return Err(io::Error::other("the text is too long"));
        }
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn explain(error: &Error) -> TemplateError {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(raised) = cause.downcast_ref::<Raised>() {
            return TemplateError::Raised(brief(&raised.0));
        }
        source = cause.source();
    }
    let message = match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    };
    TemplateError::Invalid { line: error.line(), message: brief(&message) }
}

/// A template can make its errors as long as it likes.
fn brief(text: &str) -> String {
    match text.char_indices().nth(LONGEST_ERROR) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// transformers marks what the assistant says by `{% generation %}` blocks, which change no text.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(len) = rest[start..].find("%}") else { break };
        let tag = &rest[start..start + len + 2];
        let word = tag[2..tag.len() - 2].trim_matches(['-', '+']).trim();
        out.push_str(&rest[..start]);
        out.push_str(&match word {
            "generation" => tag.replacen("generation", "if true", 1),
            "endgeneration" => tag.replacen("endgeneration", "endif", 1),
            _ => tag.to_owned(),
        });
        rest = &rest[start + len + 2..];
    }
    out + rest
}

/// Python's `json.dumps(value, ensure_ascii=False, indent=indent)`.
fn to_json(state: &State, value: &Value, options: minijinja::value::Kwargs) -> Result<String, Error> {
    let failed = |error: serde_json::Error| Error::new(ErrorKind::BadSerialization, error.to_string());
    let indent: Option<usize> = options.get("indent")?;
    for ignored in ["ensure_ascii", "sort_keys", "separators"] {
        options.get::<Option<Value>>(ignored)?;
    }
    options.assert_all_used()?;
    let mut out = Charged { state, text: Vec::new() };
    match indent {
        Some(indent) => {
            let spaces = vec![b' '; indent.min(64)];
            let formatter = PrettyFormatter::with_indent(&spaces);
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter)).map_err(failed)?;
        }
        None => {
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, Spaced)).map_err(failed)?;
        }
    }
    String::from_utf8(out.text).map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))
}

/// Text that costs a step a byte: a list that holds itself many times over is small until it is written.
struct Charged<'a, 'b, 'c> {
    state: &'a State<'b, 'c>,
    text: Vec<u8>,
}

impl Write for Charged<'_, '_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.state.consume_fuel(bytes.len() as u64).map_err(io::Error::other)?;
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `, ` and `: ` between items, as Python writes them.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }
    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }
    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str, content: &str) -> Result<String, TemplateError> {
        let tokens = [("bos_token".to_owned(), "<s>".to_owned())].into();
        let source = TemplateSource { file: "chat_template.jinja", text: source.to_owned(), tokens };
        super::render(&source, &[Chat::new(Some("Be brief."), content)]).swap_remove(0)
    }

    /// Each expected text is what transformers' own renderer (jinja2, trimmed and left-stripped blocks) gives.
    #[test]
    fn templates_render_as_in_transformers() {
        for (source, expected) in [
            (
                "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m['content'] | trim }}\n{% endfor %}",
                "<s>[system] Be brief.\n[user] Hi <b>\n",
            ),
            ("{%- for m in messages -%}\n  {{- m.content.strip() -}}\n{%- endfor -%}", "Be brief.Hi <b>"),
            (
                "  {% if messages[0]['role'] == 'system' %}\n  {{ messages[1:][0].content }}|\n  {% endif %}\nend",
                "   Hi <b> |\nend",
            ),
            (
                "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
                "2",
            ),
            (
                "{{ messages | tojson }}",
                "[{\"role\": \"system\", \"content\": \"Be brief.\"}, {\"role\": \"user\", \"content\": \" Hi <b> \"}]",
            ),
            ("{{ messages[0] | tojson(indent=2) }}", "{\n  \"role\": \"system\",\n  \"content\": \"Be brief.\"\n}"),
            (
                "{% for k, v in messages[0].items() %}{{ k }}={{ v.split(' ')[0] }};{% endfor %}",
                "role=system;content=Be;",
            ),
            (
                "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.role | upper }}{% endfor %}",
                "USER",
            ),
            (
                "{% if tools is not none %}T{% endif %}{% if custom is defined %}C{% endif %}{{ 'g' if add_generation_prompt }}",
                "g",
            ),
            ("{% for m in messages %}{%- generation -%} {{ m.role }} {%- endgeneration -%}{% endfor %}", "systemuser"),
            ("{{ messages[1]['content'].replace('<b>', '').strip().startswith('Hi') }}", "True"),
            ("{{ messages | map(attribute='role') | join(',') }} {{ messages | length }}\n", "system,user 2"),
            ("{% macro say(x) %}<{{ x }}>{% endmacro %}{{ say(messages[0].role) }}{{ 'a' ~ 1 }}", "<system>a1"),
        ] {
            assert_eq!(render(source, " Hi <b> ").expect(source), expected, "{source}");
        }
    }

    #[test]
    fn strftime_now_gives_todays_year() {
        let year: u32 = render("{{ strftime_now('%Y') }}", "").expect("a date").parse().expect("a year");
        assert!((2024..3000).contains(&year));
    }

    #[test]
    fn a_template_that_raises_is_told_from_one_that_fails() {
        let raised = render("{{ raise_exception('roles must alternate') }}", "x").expect_err("it raises");
        assert!(matches!(raised, TemplateError::Raised(ref m) if m == "roles must alternate"), "{raised}");
        let invalid = render("line one\n{% if %}", "x").expect_err("it does not parse");
        assert!(matches!(invalid, TemplateError::Invalid { line: Some(2), .. }), "{invalid}");
        let missing = render("{{ nothing.at_all }}", "x").expect_err("it asks for what is not there");
        assert!(matches!(missing, TemplateError::Invalid { line: Some(1), .. }), "{missing}");
    }

    #[test]
    fn what_a_template_renders_is_bounded_by_what_it_is_told() {
        let error = render("{% for i in range(2000) %}{{ 'x' * 100 }}{% endfor %}", "x").expect_err("200,000 bytes");
        assert_eq!(error, TemplateError::Long { limit: LONGEST + TIMES * 10 });
        let long = "x".repeat(LONGEST);
        assert_eq!(render("{{ messages[1].content * 3 }}", &long).expect("as told").len(), 3 * LONGEST);
        let error = render("{{ raise_exception('x' * 100000) }}", "x").expect_err("it raises").to_string();
        assert!(error.chars().count() < 600, "{error}");
    }

    #[test]
    fn a_template_that_would_not_end_is_stopped() {
        let endless = "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}";
        assert!(render(endless, "x").is_err());
        assert!(render("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "x").is_err());
        // Thirty doublings: a few steps to make, a gigabyte to write.
        let doubled =
            "{% set ns = namespace(x=[1]) %}{% for i in range(30) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}";
        assert!(render(&format!("{doubled}{{{{ ns.x | tojson }}}}"), "x").is_err());
    }
}
