//! Chat templates: programs of a stranger.

use serde_json::json;

use super::{Input, all_are_refused};

/// A template that renders, compares, sorts or looks through what `make` leaves in `x`.
fn of_value(make: &str, use_of_it: &str) -> String {
    format!("{make}{use_of_it}")
}

/// A list that holds itself twice, forty times over.
const DOUBLED: &str = "{% set ns = namespace(x=[1]) %}{% for i in range(40) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}\
                       {% set x = ns.x %}";
/// A list in a list, 99,999 times.
const NESTED: &str = "{% set ns = namespace(x=[1]) %}{% for i in range(99999) %}{% set ns.x = [ns.x] %}{% endfor %}\
                      {% set x = ns.x %}";
/// A namespace that holds itself.
const CYCLE: &str = "{% set x = namespace() %}{% set x.x = x %}";
/// Two that hold each other, through a list.
const CYCLES: &str = "{% set x = namespace() %}{% set y = namespace(x=[x]) %}{% set x.y = {'y': y} %}";

const USES: [(&str, &str); 16] = [
    ("printed", "{{ x }}"),
    ("compared", "{{ x == [x] }}{{ x == x }}{{ x < [x, 1] }}"),
    ("turned into JSON", "{{ x | tojson }}"),
    ("turned into indented JSON", "{{ x | tojson(indent=4) }}"),
    ("sorted", "{{ [x, [x], x] | sort | length }}"),
    ("made unique", "{{ [x, x, [x]] | unique | list | length }}"),
    ("grouped", "{{ [{'a': x}, {'a': [x]}] | groupby('a') | list | length }}"),
    ("joined", "{{ [x, x] | join(',') }}"),
    ("looked for", "{{ x in [[x], x] }}"),
    ("made a key", "{{ {x: 1, [x]: 2} | length }}"),
    ("made a text", "{{ (x | string) | length }}"),
    ("concatenated", "{{ (x ~ x) | length }}"),
    ("dumped", "{{ x | pprint }}"),
    ("escaped", "{{ x | escape | length }}"),
    ("its largest", "{{ [x, [x]] | max | length }}{{ [x, [x]] | min | length }}"),
    ("raised", "{{ raise_exception(x | string) }}"),
];

#[test]
fn values_that_hold_themselves_end_nothing_but_the_child() {
    let mut inputs = Vec::new();
    for (what, make) in [("doubled", DOUBLED), ("nested", NESTED), ("a cycle", CYCLE), ("two cycles", CYCLES)] {
        for (how, use_of_it) in USES {
            let input = Input::new(format!("a list or namespace, {what}, {how}"));
            // Some uses of some values are harmless.
            inputs.push(input.file("chat_template.jinja", of_value(make, use_of_it)).says(&["template"]).may_run());
        }
    }
    all_are_refused(inputs);
}

#[test]
fn long_templates_end_nothing_but_the_child() {
    let repeated = |what: &str, template: String| {
        Input::new(format!("a template with {what}")).file("chat_template.jinja", template).says(&["template"])
    };
    let n = 100_000;
    let long = vec![
        repeated("a sum of 100,000 terms", format!("{{{{ {}1 }}}}", "1+".repeat(n))),
        repeated("a concatenation of 100,000 terms", format!("{{{{ {}1 }}}}", "1~".repeat(n))),
        repeated("100,000 parentheses", format!("{{{{ {}1{} }}}}", "(".repeat(n), ")".repeat(n))),
        repeated("100,000 lists in lists", format!("{{{{ {}1{} }}}}", "[".repeat(n), "]".repeat(n))),
        repeated("100,000 maps in maps", format!("{{{{ {}1{} }}}}", "{1:".repeat(n), "}".repeat(n))),
        repeated("100,000 times not", format!("{{{{ {}1 }}}}", "not ".repeat(n))),
        repeated("100,000 minus signs", format!("{{{{ {}1 }}}}", "-".repeat(n))),
        repeated("100,000 filters", format!("{{{{ 1{} }}}}", "|string".repeat(n))),
        repeated("100,000 attributes", format!("{{{{ messages{} }}}}", ".x".repeat(n))),
        repeated("100,000 subscripts", format!("{{{{ messages{} }}}}", "[0]".repeat(n))),
        repeated("100,000 calls", format!("{{{{ messages{} }}}}", "()".repeat(n))),
        repeated("100,000 comparisons", format!("{{{{ {}1 }}}}", "1 == ".repeat(n))).may_run(),
        repeated("100,000 times and", format!("{{{{ {}1 }}}}", "1 and ".repeat(n))).may_run(),
        repeated("100,000 conditional values", format!("{{{{ {}1 }}}}", "1 if 0 else ".repeat(n))),
        Input::new("a template with 20,000 elif")
            .file("chat_template.jinja", format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(20_000)))
            .says(&["the prompt is empty"]),
        repeated("100,000 if in if", format!("{}{}", "{% if 1 %}".repeat(n), "{% endif %}".repeat(n))),
        repeated("100,000 for in for", format!("{}{}", "{% for a in [1] %}".repeat(n), "{% endfor %}".repeat(n))),
        repeated("100,000 set blocks", format!("{}{}", "{% set a %}".repeat(n), "{% endset %}".repeat(n))),
        repeated("100,000 filter blocks", format!("{}{}", "{% filter upper %}".repeat(n), "{% endfilter %}".repeat(n))),
        repeated("100,000 macros in macros", format!("{}{}", "{% macro m() %}".repeat(n), "{% endmacro %}".repeat(n))),
        repeated("100,000 with blocks", format!("{}{}", "{% with a=1 %}".repeat(n), "{% endwith %}".repeat(n))),
        repeated("100,000 open tags", "{%".repeat(n)),
        repeated("a tag that never ends", format!("{{{{ '{}", "x".repeat(n))),
        repeated("a number of 100,000 digits", format!("{{{{ {} }}}}", "9".repeat(n))).may_run(),
        repeated("a name of a megabyte", format!("{{{{ {}.x }}}}", "x".repeat(1 << 20))),
        repeated("a filter with a long name", format!("{{{{ 1|{} }}}}", "x".repeat(1 << 20))),
    ];
    all_are_refused(long);
}

#[test]
fn templates_that_take_all_there_is_end_nothing_but_the_child() {
    let grown = "{% set ns = namespace(x='xxxxxxxxxxxxxxxx') %}{% for i in range(40) %}";
    let templates = [
        ("a cycle of nothing", "{% for m in messages %}{{ loop.cycle() }}{% endfor %}".to_owned()),
        ("a text doubled forty times", format!("{grown}{{% set ns.x = ns.x ~ ns.x %}}{{% endfor %}}{{{{ ns.x }}}}")),
        ("replace", format!("{grown}{{% set ns.x = ns.x | replace('x', 'xx') %}}{{% endfor %}}{{{{ ns.x }}}}")),
        (
            "the method replace",
            format!("{grown}{{% set ns.x = ns.x.replace('x', 'xx') %}}{{% endfor %}}{{{{ ns.x }}}}"),
        ),
        ("join", format!("{grown}{{% set ns.x = [ns.x, ns.x, ns.x] | join(ns.x) %}}{{% endfor %}}{{{{ ns.x }}}}")),
        ("a product of a text", "{{ ('x' * 100000) * 100000 }}".to_owned()),
        ("a product of a list", "{{ ([1] * 100000) * 100000 }}".to_owned()),
        ("range", "{{ range(99999999999) | list | length }}".to_owned()),
        ("a range of ranges", "{{ range(99999) | map('string') | join('x' * 99999) }}".to_owned()),
        ("indent", "{{ ('\\n' * 100000) | indent(100000) }}".to_owned()),
        ("center", "{{ 'x' | center(99999999999) }}".to_owned()),
        ("format", "{{ '%99999999999d' | format(1) }}".to_owned()),
        ("batch", "{{ [1] | batch(99999999999, 'x') | list | length }}".to_owned()),
        ("slice", "{{ [1] | slice(99999999999, 'x') | list | length }}".to_owned()),
        ("a power", "{{ 10 ** 10 ** 10 }}".to_owned()),
        ("a division by nothing", "{{ 1 // 0 }}{{ 1 % 0 }}{{ 1 / 0 }}".to_owned()),
        (
            "a shift of numbers",
            "{{ 170141183460469231731687303715884105727 + 170141183460469231731687303715884105727 }}".to_owned(),
        ),
        (
            "the least number divided",
            "{{ (-9223372036854775807 - 1) // -1 }}{{ (-9223372036854775807 - 1) % -1 }}".to_owned(),
        ),
        ("a step of nothing", "{{ [1, 2][::0] }}".to_owned()),
        ("ends of the world", "{{ 'abc'[-9223372036854775808:9223372036854775807:-9223372036854775808] }}".to_owned()),
        (
            "a loop without end",
            "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}".to_owned(),
        ),
        ("a loop within itself", "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}".to_owned()),
        ("a macro within itself", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}".to_owned()),
        (
            "a macro that calls its caller",
            "{% macro m() %}{% call m() %}{{ caller() }}{% endcall %}{% endmacro %}{{ m() }}".to_owned(),
        ),
        ("itself", "{% include 'chat_template' %}".to_owned()),
        ("itself, extended", "{% extends 'chat_template' %}".to_owned()),
        ("itself, imported", "{% import 'chat_template' as t %}{{ t }}".to_owned()),
        ("a block within itself", "{% block a %}{{ self.a() }}{% endblock %}".to_owned()),
        ("two megabytes", "{% for i in range(20000) %}{{ 'x' * 100 }}{% endfor %}".to_owned()),
        ("a date without end", "{{ strftime_now('%Y' * 1000000) }}".to_owned()),
        ("a date of nothing that is one", "{{ strftime_now('%') }}{{ strftime_now('%Q%!%9999999999Y') }}".to_owned()),
        (
            "a message with escape sequences",
            "{{ raise_exception('\u{1b}[2J\u{202e}\\r\\nheadroom: error: forged') }}".to_owned(),
        ),
        ("a name with escape sequences", "{{ x['\u{1b}[2J'].y }}".to_owned()),
        (
            "a split into a million",
            "{{ ('x ' * 99999).split(' ') | map('upper') | list | tojson | length }}".to_owned(),
        ),
        ("a million spaces", "{{ (' ' * 99999999).strip().split() }}".to_owned()),
        ("zeros", "{% raw %}\0\0\0{% endraw %}{{ '\0' * 2000000 }}".to_owned()),
    ];
    let input = |(what, template): (&str, String)| {
        Input::new(format!("a template with {what}"))
            .file("chat_template.jinja", template)
            .says(&["template"])
            .may_run()
    };
    let mut inputs: Vec<Input> = templates.map(input).into();
    // Those of which it is known what must be said.
    for (template, mention) in [
        ("{% for m in messages %}{{ loop.cycle() }}{% endfor %}", "the chat template fails in line 1"),
        ("{{ '", "the chat template"),
        ("{{ 'x' * 2000000 }}", "renders more than"),
        ("{{ raise_exception('no') }}", "refuses these messages: no"),
    ] {
        inputs.push(
            Input::new(format!("the template {template}")).file("chat_template.jinja", template).says(&[mention]),
        );
    }
    let input = Input::new("a template that is not UTF-8").file("chat_template.jinja", [0xff; 64]);
    inputs.push(input.says(&["chat_template.jinja"]));
    // In its other home.
    let config = json!({"chat_template": "{% for m in messages %}{{ loop.cycle() }}{% endfor %}"}).to_string();
    let input = Input::new("a template in tokenizer_config.json").file("tokenizer_config.json", config);
    inputs.push(input.without("chat_template.jinja").says(&["the chat template fails in line 1"]));
    all_are_refused(inputs);
}
