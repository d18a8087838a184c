//! jinja2's own texts, from `tests/fixtures/templates.json`, which `tools/goldens/templates.py` writes.

use serde::Deserialize;

use super::{
    super::{clock::Clock, ordered_json::Json},
    Chat, LONGEST, TIMES, Template, TemplateError, TemplateSource, fuel, on_large_stack,
};
use crate::testing::stored::as_stored;

/// What the fixture holds.
#[derive(Deserialize)]
struct Goldens {
    now: String,
    contexts: Vec<Json>,
    /// A template, then what each of the contexts gives; one outcome stands for all.
    templates: Vec<Vec<Option<String>>>,
}

fn goldens() -> Goldens {
    // Another file can be held against, with more templates than the repository should carry.
    let path = std::env::var_os("HEADROOM_TEMPLATES").map_or_else(
        || std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/templates.json"),
        Into::into,
    );
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).expect("goldens")
}

fn variables(context: &Json) -> &[(String, Json)] {
    match context {
        Json::Object(entries) => entries,
        _ => panic!("a context is an object"),
    }
}

/// The text, and the steps that it took.
fn render(source: &str, variables: &[(String, Json)], clock: &Clock) -> Result<(String, u64), TemplateError> {
    on_large_stack(|| Ok((Template::new(source)?.render(variables, clock, usize::MAX)?.text, fuel::spent())))?
}

/// Each template gives jinja2's text, or fails where jinja2 fails, or is refused with a reason; none gives
/// another text.
#[expect(clippy::print_stdout, reason = "a test says what it looked at")]
#[test]
fn templates_are_rendered_as_jinja2_renders_them_or_refused() {
    let Goldens { now, contexts, templates } = goldens();
    let clock = Clock::parse(&now).expect("a date");
    let (mut equal, mut steps, mut failed, mut refused, mut different) = (0, 0, 0, 0, Vec::new());
    let mut reasons = std::collections::BTreeMap::<String, usize>::new();
    let mut said = std::collections::BTreeMap::<String, String>::new();
    for (number, case) in templates.iter().enumerate() {
        let source = case[0].as_deref().expect("a template");
        let outcomes = &case[1..];
        for (place, outcome) in outcomes.iter().enumerate() {
            let got = render(source, variables(&contexts[place]), &clock);
            if let Err(error) = &got {
                let shown = if source.len() > 300 { format!("template {number}") } else { format!("{source:?}") };
                *said.entry(error.to_string()).or_default() += &format!("  {shown} in context {place}\n");
            }
            match (outcome, got) {
                (Some(text), Ok((got, spent))) if *text == got => {
                    equal += 1;
                    steps += spent;
                }
                (None, Err(TemplateError::Refused { .. })) => failed += 1,
                (None, Err(_)) => failed += 1,
                (Some(_), Err(TemplateError::Refused { message, .. })) => {
                    refused += 1;
                    *reasons.entry(message).or_default() += 1;
                }
                (expected, got) => {
                    different.push(format!("{source:?} in context {place}\n  jinja2 {expected:?}\n  here   {got:?}"))
                }
            }
        }
    }
    println!(
        "{} templates: {equal} texts equal, {failed} failures equal, {refused} refused, {} different",
        templates.len(),
        different.len()
    );
    if std::env::var_os("HEADROOM_TEMPLATES").is_some() {
        for (reason, count) in &reasons {
            println!("refused {count}: {reason}");
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
    assert!(equal > 1000 && failed > 300, "the goldens must hold texts and failures");
    // A renderer that refuses is right and of no use.
    assert!(refused * 10 < equal, "{refused} of {equal} are refused: {reasons:?}");
    if std::env::var_os("HEADROOM_TEMPLATES").is_none() {
        let said: String = said.into_iter().map(|(message, of)| format!("{message}\n{of}")).collect();
        // These are pinned, so that none is refused that was rendered, and none is charged otherwise.
        as_stored("templates_said.txt", &format!("{equal} texts in {steps} steps\n{said}"), "HEADROOM_WRITE_TEMPLATES");
    }
}

fn alone(source: &str) -> Result<String, TemplateError> {
    render(source, &[], &Clock::parse("2024-07-06").expect("a date")).map(|(text, _)| text)
}

#[test]
fn a_template_that_raises_is_told_from_one_that_fails_and_one_that_is_refused() {
    assert_eq!(
        alone("{{ raise_exception('roles must alternate') }}"),
        Err(TemplateError::Raised("roles must alternate".into()))
    );
    for (source, at) in [
        ("line one\n{% if %}", 2),
        ("a\nb\n{{ nothing.at_all }}", 3),
        ("{% for x in [1] %}\n{{ 1 / 0 }}{% endfor %}", 2),
    ] {
        let error = alone(source).expect_err(source);
        assert!(matches!(error, TemplateError::Invalid { line: Some(line), .. } if line == at), "{source}: {error}");
    }
    let refused = alone("\n{{ [1] | map('string') }}").expect_err("a generator's address");
    assert!(matches!(refused, TemplateError::Refused { line: Some(2), .. }), "{refused}");
    assert!(refused.to_string().contains("--prompt-ids"), "{refused}");
}

#[test]
fn a_template_that_would_not_end_grow_or_nest_without_limit_is_stopped() {
    let doubled = "{% set ns = namespace(x=[1]) %}{% for i in range(30) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}";
    let endless = "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}";
    let nested = format!("{{{{ {}1{} }}}}", "(".repeat(5000), ")".repeat(5000));
    for source in [
        endless,
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        // Thirty doublings: a few steps to make, a gigabyte to write or to compare.
        &format!("{doubled}{{{{ ns.x | tojson }}}}"),
        &format!("{doubled}{{{{ ns.x }}}}"),
        &format!("{doubled}{{% set y = ns.x %}}{doubled}{{{{ y == ns.x }}}}"),
        "{{ 'x' * 999999999999 }}",
        "{{ [1] * 999999999999 }}",
        "{{ 'a' | center(99999999999) }}",
        "{{ [1] | tojson(indent=999999999) }}",
        "{{ '%99999999d' % 1 }}",
        "{% set ns = namespace(x=0) %}{% for i in range(5000) %}{% set ns.x = [ns.x] %}{% endfor %}",
        &nested,
        &format!("{{{{ 1{} }}}}", " + 1".repeat(100_000)),
        &format!("{{{{ x{} }}}}", " or x".repeat(100_000)),
        &format!("{{{{ {}x }}}}", "not ".repeat(100_000)),
        &"{% if x %}".repeat(10_000),
    ] {
        let shown: String = source.chars().take(80).collect();
        assert!(alone(source).is_err(), "{shown}");
    }
    // A chain of namespaces is dropped without a stack that grows with it.
    let chain = "{% set ns = namespace() %}{% set a = namespace(n=ns) %}{% for i in range(20000) %}{% set b = namespace() %}\
                 {% set tail = a.n %}{% set tail.next = b %}{% set a.n = b %}{% endfor %}done";
    assert_eq!(alone(chain).as_deref(), Ok("done"));
}

#[test]
fn a_date_that_was_asked_for_is_told_and_the_time_only_where_it_was_asked_for() {
    let clock = Clock::parse("2024-07-06T08:05:09").expect("a date");
    let date = |source: &str| {
        on_large_stack(|| Template::new(source).and_then(|template| template.render(&[], &clock, 100)))
            .and_then(|rendered| rendered)
            .map(|rendered| rendered.date)
    };
    assert_eq!(date("{{ 1 }}"), Ok(None));
    assert_eq!(date("{{ strftime_now('%d %b') }}"), Ok(Some("2024-07-06".to_owned())));
    assert_eq!(date("{{ strftime_now('%d') }}{{ strftime_now('%H') }}"), Ok(Some("2024-07-06T08:05:09".to_owned())));
    assert_eq!(date("{{ 'x' * 101 }}"), Err(TemplateError::Long { limit: 100 }));
}

/// The least count, below 500, at which a template is refused.
fn refused_from(template: impl Fn(usize) -> String) -> Option<usize> {
    (1..500).find(|&count| alone(&template(count)).is_err())
}

#[test]
fn what_nests_and_what_is_chained_has_a_limit() {
    let around = |open: &'static str, close: &'static str| {
        move |count: usize| format!("{{{{ {}1{} }}}}", open.repeat(count), close.repeat(count))
    };
    let before = |word: &'static str| move |count: usize| format!("{{{{ {}1 }}}}", word.repeat(count));
    let behind = |first: &'static str, more: &'static str| {
        move |count: usize| format!("{{{{ {first}{} }}}}", more.repeat(count))
    };
    let blocks = |count: usize| "{% if 1 %}".repeat(count) + &"{% endif %}".repeat(count);
    let limits = [
        (refused_from(around("(", ")")), Some(50)),
        (refused_from(around("[", "]")), Some(100)),
        (refused_from(around("{1:", "}")), Some(100)),
        (refused_from(before("not ")), Some(100)),
        (refused_from(before("-")), Some(100)),
        (refused_from(behind("1", " + 1")), Some(201)),
        (refused_from(behind("1", " * 1")), Some(201)),
        // These two are lists of operands, which nest nothing.
        (refused_from(behind("1", " ~ 1")), None),
        (refused_from(behind("1", " < 2")), None),
        (refused_from(behind("1", " and 1")), Some(201)),
        (refused_from(behind("1", " or 1")), Some(201)),
        (refused_from(behind("1", " | abs")), Some(200)),
        (refused_from(behind("1", " if 1")), Some(201)),
        (refused_from(behind("1", " ** 1")), Some(201)),
        (refused_from(behind("'a'", ".upper()")), Some(100)),
        (refused_from(behind("'a'", "[0]")), Some(200)),
        (refused_from(blocks), Some(100)),
    ];
    for (place, (found, limit)) in limits.into_iter().enumerate() {
        assert_eq!(found, limit, "limit {place}");
    }
}

#[test]
fn values_that_hold_one_another_have_a_limit_whatever_they_are() {
    let holding = |what: &'static str| {
        move |count: usize| {
            let all: String = (0..count).map(|_| format!("{{% set x = {what} %}}")).collect();
            format!("{{% set x = 1 %}}{all}")
        }
    };
    for (what, limit) in [
        ("[x]", 101),
        ("(x,)", 101),
        ("{'a': x}", 101),
        ("{'a': x}.items()", 101),
        ("[{'a': x}.values()]", 51),
        ("namespace(a=x)", 101),
        ("[x] | map('default')", 101),
        ("[[x].index]", 51),
    ] {
        assert_eq!(refused_from(holding(what)), Some(limit), "{what}");
    }
}

#[test]
fn half_a_surrogate_pair_is_no_text() {
    for source in ["{{ '\\ud83d' }}", "{{ '\\udfff' }}", "{{ 'a\\ud800b' }}"] {
        assert!(matches!(alone(source), Err(TemplateError::Refused { .. })), "{source}");
    }
    assert_eq!(alone("{{ '\\ud7ff\\ue000' }}").as_deref(), Ok("\u{d7ff}\u{e000}"));
}

#[test]
fn a_template_may_write_a_length_and_a_multiple_of_the_messages() {
    let chat = Chat::new(Some("ab"), "cde");
    assert_eq!(chat.len(), 5);
    let written = |len: usize| {
        let text = format!(
            "{{% for i in range({}) %}}{{{{ '{}' }}}}{{% endfor %}}{}",
            len / 1000,
            "x".repeat(1000),
            "y".repeat(len % 1000)
        );
        let source = TemplateSource { file: "a", text, variables: Vec::new(), clock: Clock::now() };
        super::render(&source, std::slice::from_ref(&chat)).swap_remove(0).map(|rendered| rendered.text.len())
    };
    let limit = LONGEST + 5 * TIMES;
    assert_eq!((written(limit), written(limit + 1)), (Ok(limit), Err(TemplateError::Long { limit })));
}
