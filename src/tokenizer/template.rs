//! Chat templates, rendered as transformers renders them.
//!
//! A template is Jinja with Python's string methods, `raise_exception`, `strftime_now`, loop controls, and
//! blocks trimmed and left-stripped. It lies in `chat_template.jinja`, which wins, or under `chat_template` in
//! `tokenizer_config.json`: a text, or a list of named ones of which `default` is taken.

use minijinja::{Environment, Error, ErrorKind, State, Value, syntax::SyntaxConfig};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter};

/// Steps that a template may take; one that is larger than any in use takes some thousand. Beyond lies a
/// template that would not end.
const FUEL: u64 = 5_000_000;

/// Why a chat template gave no text.
#[derive(Debug, thiserror::Error)]
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

/// One message of a chat.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    pub(super) role: &'a str,
    pub(super) content: &'a str,
}

/// A compiled template and the special tokens that it may name.
#[derive(Debug)]
pub(super) struct Template {
    environment: Environment<'static>,
    tokens: Vec<(String, String)>,
}

const NAME: &str = "chat_template";

impl Template {
    pub(super) fn new(source: String, tokens: Vec<(String, String)>) -> Result<Self, TemplateError> {
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
        environment.add_template_owned(NAME, without_generation_tags(&source)).map_err(|error| explain(&error))?;
        Ok(Self { environment, tokens })
    }

    /// The text of `messages` with the start of an answer.
    pub(super) fn render(&self, messages: &[Message<'_>]) -> Result<String, TemplateError> {
        let mut context: std::collections::BTreeMap<&str, Value> =
            self.tokens.iter().map(|(name, token)| (name.as_str(), Value::from(token.as_str()))).collect();
        let message = |message: &Message<'_>| Value::from_pairs([("role", message.role), ("content", message.content)]);
        context.insert("messages", Value::from(messages.iter().map(message).collect::<Vec<_>>()));
        context.insert("add_generation_prompt", Value::from(true));
        context.insert("tools", Value::from(()));
        context.insert("documents", Value::from(()));
        let template = self.environment.get_template(NAME).map_err(|error| explain(&error))?;
        template.render(Value::from_pairs(context)).map_err(|error| explain(&error))
    }
}

fn explain(error: &Error) -> TemplateError {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(raised) = cause.downcast_ref::<Raised>() {
            return TemplateError::Raised(raised.0.clone());
        }
        source = cause.source();
    }
    let message = match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    };
    TemplateError::Invalid { line: error.line(), message }
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

impl std::io::Write for Charged<'_, '_, '_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.state.consume_fuel(bytes.len() as u64).map_err(std::io::Error::other)?;
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// `, ` and `: ` between items, as Python writes them.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }
    fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }
    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str, content: &str) -> Result<String, TemplateError> {
        let tokens = vec![("bos_token".to_owned(), "<s>".to_owned())];
        let messages = [Message { role: "system", content: "Be brief." }, Message { role: "user", content }];
        Template::new(source.to_owned(), tokens)?.render(&messages)
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
