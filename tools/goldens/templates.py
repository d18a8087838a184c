"""Writes tests/fixtures/templates.json: chat templates and what transformers renders of them.

usage: python tools/goldens/templates.py [--check | --all FILE]

The Python needs transformers and jinja2. Each template is compiled by transformers' own function, in its own
environment, and rendered over each of the contexts below; what comes out is the text, or null where it fails.
With --check nothing is written, and the stored file must be what would be written. The stored file holds every
fourth of the products of values with tests, filters, methods and operators, and some of the random templates; with
--all every one goes to FILE, which the test of the renderer takes where HEADROOM_TEMPLATES names it.

Templates are composed here: constructs, operators, tests, filters and methods over every kind of value that a
template meets, larger templates in the manner of those that models are published with, and random compositions.
"""

import json
import pathlib
import random
import sys
import warnings
import zlib

from transformers.utils import chat_template_utils

FIXTURE = pathlib.Path(__file__).parents[2] / "tests" / "fixtures" / "templates.json"
NOW = "2024-07-06T08:05:09"


class FixedDate(chat_template_utils.datetime):
    """A clock that stands still."""

    @classmethod
    def now(cls, tz=None):
        return cls.fromisoformat(NOW)


chat_template_utils.datetime = FixedDate

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather \"now\" at a place, <b>in</b> °C",
        "parameters": {
            "type": "object",
            "properties": {
                "place": {"type": "string", "description": "City & country"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"},
                "days": {"type": ["integer", "null"], "minimum": 1},
            },
            "required": ["place"],
        },
    },
}
CALL = {"type": "function", "id": "abcdefghi", "function": {"name": "get_weather", "arguments": {"place": "Zürich", "days": 2, "exact": True, "x": None, "f": 1.5}}}
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}

CONTEXTS = [
    {"messages": [{"role": "user", "content": "What is 2+2?"}], "add_generation_prompt": True, "tools": None,
     "documents": None, "enable_thinking": False, **TOKENS},
    {"messages": [{"role": "system", "content": " Be brief.\n"}, {"role": "user", "content": "Hi <b>there</b> & \"you\"\n\n"}],
     "add_generation_prompt": True, "tools": None, "documents": None, "enable_thinking": True, **TOKENS},
    {"messages": [
        {"role": "system", "content": "Sÿstem"}, {"role": "user", "content": "  Wetter in Zürich? 🌦️ "},
        {"role": "assistant", "content": "<think>\nLook it up.\n</think>\n\nI look.", "tool_calls": [CALL]},
        {"role": "tool", "name": "get_weather", "tool_call_id": "abcdefghi", "content": "{\"t\": 21}"},
        {"role": "assistant", "content": "21 °C", "reasoning_content": "\nwarm\n"}, {"role": "user", "content": "Thanks"}],
     "add_generation_prompt": True, "tools": [TOOL], "documents": [{"title": "A", "text": "b\nc"}], "enable_thinking": False, **TOKENS},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "Look"}, {"type": "image"}]}, {"role": "assistant", "content": "ok"}],
     "add_generation_prompt": False, "tools": [], "documents": [], **TOKENS},
]

KINDS = [
    "nope", "none", "true", "false", "0", "3", "-7", "2.5", "-0.5", "1e16", "1e-5", "''", "'a'", "'Hello wORLD'", "' x y\\n'",
    "'ünï 漢🙂'", "'it\\'s \"q\"'", "'42'", "' -3.7 '", "[]", "[3, 1, 2]", "['b', 'A', 'c', 'a']", "[none, 1]", "[[1, 'x'], [0, 'y']]",
    "(1,)", "('x', 2, none)", "{}", "{'b': 1, 'a': [2.0, true]}", "{1: 'x', none: 'y'}", "range(3)", "messages", "messages[0]",
    "messages[0].items()", "messages[0].keys()", "bos_token", "namespace(a=1)", "[1, 2] | map('string')", "[3, 1] | reverse",
    "'<&>' | safe", "loop", "raise_exception", "'x'.upper",
]
SHORT = ["nope", "none", "true", "0", "3", "-7", "2.5", "''", "'a'", "'Hello wORLD'", "[]", "[3, 1, 2]", "('x', 2)", "{'b': 1}", "range(2)"]

TESTS = ["defined", "undefined", "none", "boolean", "false", "true", "integer", "float", "number", "string", "mapping",
         "sequence", "iterable", "callable", "lower", "upper", "odd", "even", "escaped", "divisibleby(3)", "sameas(none)",
         "sameas true", "eq(3)", "ne 'a'", "gt 1", "lt(2)", "ge 3", "le 3", "in [3, 'a', none]", "in 'abc'", "equalto('')",
         "not none", "not defined", "filter", "test", "nosuchtest"]
FILTERS = ["length", "count", "string", "upper", "lower", "capitalize", "title", "trim", "trim('a')", "trim('x \\n')", "list", "first", "last",
           "join", "join(', ')", "join('-', attribute='role')", "tojson", "tojson(indent=2)", "tojson(ensure_ascii=true)",
           "tojson(sort_keys=true)", "tojson(separators=(',', ':'))", "tojson(indent=1, separators=(', ', ' = '))", "tojson(indent='>')", "int", "int(5)", "float",
           "float(1.5)", "abs", "round", "round(1)", "round(1, 'floor')", "round(method='ceil')", "default('D')", "default('D', true)", "d", "default",
           "sort", "sort(reverse=true)", "sort(case_sensitive=true)", "sort(attribute='role')", "sort(attribute=1)", "unique | list", "reverse", "reverse | list", "min", "max",
           "sum", "items | list", "dictsort", "dictsort(by='value')", "dictsort(reverse=true)", "batch(2) | list", "batch(2, 'f') | list", "slice(2) | list", "slice(2, '-') | list",
           "map('upper') | list", "map('string') | join(',')", "map(attribute='role') | list", "map(attribute='content.0.type', default='?') | list", "map(attribute=0) | list",
           "select | list", "reject | list", "select('string') | list", "reject('none') | list", "select('equalto', 1) | list",
           "selectattr('role') | list | length", "selectattr('role', 'equalto', 'user') | list", "rejectattr('role', 'in', ['user']) | map(attribute='content') | list",
           "groupby('role') | list", "groupby('role') | map(attribute='grouper') | join", "replace('a', 'b')", "replace('', '.')", "replace('l', 'L', 1)", "replace(1, 2)",
           "indent", "indent(2)", "indent(2, true)", "indent(1, true, true)", "indent('> ')", "truncate(5)", "truncate(8, true)", "truncate(6, false, '~', 0)", "center(9)", "wordcount",
           "format(1)", "attr('role')", "attr('upper')", "safe", "escape", "e", "length > 1", "nosuchfilter", "map('nosuch') | list", "select('nosuch') | list",
           "map | list", "join(attribute='x.y')", "first | upper", "list | tojson", "string | length"]
METHODS = ["upper()", "lower()", "strip()", "lstrip()", "rstrip()", "strip('H a')", "lstrip('\\n')", "rstrip('\\n')", "split()", "split(' ')", "split(' ', 1)", "split(none, 1)",
           "split('l', maxsplit=1)", "split('')", "rsplit()", "rsplit('l', 1)", "rsplit(none, 1)", "splitlines()", "splitlines(true)", "replace('l', 'L')", "replace('l', 'L', 1)", "startswith('He')",
           "startswith(('x', 'H'))", "endswith('D')", "endswith(['D'])", "find('o')", "rfind('o')", "find('zz')", "index('o')", "index('zz')", "rindex('o')", "count('o')", "join(['a', 'b'])", "join('xy')", "join([1])",
           "title()", "capitalize()", "swapcase()", "zfill(12)", "ljust(13, '.')", "rjust(13)", "center(14, '*')", "partition(' ')", "rpartition('o')", "partition('zz')", "rpartition('zz')",
           "removeprefix('He')", "removesuffix('LD')", "isdigit()", "isalpha()", "isalnum()", "isspace()", "isupper()", "islower()", "istitle()", "isnumeric()", "isdecimal()", "isascii()",
           "isidentifier()", "isprintable()", "casefold()", "format(1, a=2)", "encode()", "append(1)", "nosuch()", "nosuch", "__class__", "get('b')", "get('zz')", "get('zz', 4)", "keys() | list", "values() | list",
           "items() | list", "pop()", "update({})", "copy()", "index(3)", "count(1)", "role", "content", "a", "b.0", "real", "upper"]
SUBSCRIPTS = ["[0]", "[-1]", "[9]", "['a']", "['b']", "['upper']()", "[none]", "[1:]", "[:-1]", "[::-1]", "[::2]", "[-2:]", "[5:1:-2]", "[::0]", "['a':]", "[true]", "[1.0]", "[[]]", "[0][0]", ".0", "[nope]"]
OPERATORS = ["+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", "<=", ">", ">=", "in", "not in", "and", "or"]

LITERALS = [
    r"'a\tb'", r"'\x41\u00e9\U0001F642'", r"'\101\7'", r"'\q\d'", r"'\é'", r"'a\\n'", r'"\""', r"'\''", "'a' 'b' \"c\"", "'line\nbreak'", "'a\\\nb'", r"'\N{DIGIT ONE}'", r"'\xZZ'",
    "0x1F", "0o17", "0b101", "1_000", "1__0", "007", "1.", ".5", "1.5e3", "1e3", "1E-2", "1_0.5", "12345678901234567890", "9007199254740993", "1.0", "100000.0", "123456789012345680.0", "0.1 + 0.2", "1e22", "5e-324",
    "1e400", "-1e400", "[1, 2,]", "(1, 2,)", "{'a': 1,}", "()", "(1)", "1, 2", "True", "None", "False", "TRUE", "{1: 2, 1.0: 3, true: 4}", "{'a': {'b': {}}}", "[[]]", "['é', \"it's\", 'both\\'\"', '\\u200b', '\\xa0', '\\u0301', '\\x7f', '\\x00', '🙂', '\\ufe0f']",
    "[1.0, -0.0, 1e100, none, true]", "[nope]", "{'a': nope}", "('a',)", "messages[0].items()", "{}.keys()", "range(1, 9, 3)", "range(0)", "range(5)[2]", "range(3) | list", "range(-2)", "range(3, 0, -1) | list", "range(1000000)", "range(1, 2, 0)", "range('a')", "range(2.0)",
    "dict(a=1, b='x')", "dict([('a', 1)])", "dict({'a': 1}, b=2)", "dict(1)", "dict.fromkeys(['a'])", "namespace(a=1).a", "namespace(a=1)['a']", "namespace(a=1).b", "namespace(_a=1)", "namespace({'x': 3}).x",
    "1 if true", "1 if false", "(1 if false) is defined", "1 if false else 2 if true else 3", "'a' if nope else 'b'", "not 1", "not not ''", "-3 | abs", "-(3) ** 2", "2 ** 3 ** 2", "2 ** -1", "-2 ** 2", "7 // -2", "-7 % 3", "7.5 // 2", "-7.5 % 2", "1 / 3", "1 / 0", "1.0 / 0", "5 % 0", "2 / 2",
    "1 < 2 < 3", "1 < 3 < 2", "3 > 2 >= 2 != 1", "1 in [1] == true", "'a' < 'b'", "'a' < 1", "[1, 2] < [1, 3]", "none < 1", "1 == 1.0", "true == 1", "'1' == 1", "[1] == (1,)", "{'a': 1} == {'a': 1.0}", "nope == nope2", "nope != 1", "none == nope",
    "'a' ~ 1 ~ none ~ 2.0 ~ nope ~ [1]", "'%s-%d' % ('a', 3)", "'%s' % 'x'", "'%s' % none", "'%s %s' % ('a',)", "'%s' % ('a', 'b')", "'%5.2f|%-6s|%06d|%+d|%x|%X|%o' % (3.14159, 'ab', 42, 7, 255, 255, 8)", "'%(a)s' % {'a': 5}", "'%(b)s' % {'a': 5}", "'%%' % ()", "'100%' % 1", "'%d' % 'a'", "'%d' % 3.9", "'%r' % 'a'", "'%c' % 65", "'%s' % nope", "'%s' % [1, 'a']",
    "'{} {}'.format(1, 'a')", "'{0}{1}{0}'.format('a', 'b')", "'{a}'.format(a=1)", "'{:>5}'.format(1)", "'{{}}'.format()", "'{'.format()", "'{}'.format()", "1 + 2 * 3 - 4", "(1 + 2) * 3", "'ab' * 3", "3 * 'ab'", "[1] * 2 + [3]", "'a' + 1", "[1] + (2,)", "'x' + none", "1 + true", "none + none",
    "strftime_now('%d %b %Y')", "strftime_now('%Y-%m-%d %H:%M:%S')", "strftime_now('%A %B %-d %j %y %I %p')", "strftime_now('%Z|%z')", "strftime_now('%F %T %e %u %w %U %W %V %G %C %R %D %h')", "strftime_now()", "strftime_now('é%%')", "raise_exception('stop')", "raise_exception()", "raise_exception(1)", "nope.x", "nope['x']", "nope()", "nope[1:]", "nope.x is defined", "messages.nope is defined", "messages[99]", "messages[99].role", "messages[0].nope", "messages[0].nope.nope",
    "none.x", "none['x']", "none.x.y", "1.x", "'a'.b", "cycler('a')", "joiner()", "lipsum()", "self", "true and 'x'", "'' or [] or 0", "1 and nope", "tools or 'no'", "tools is iterable and tools | length > 0", "tools | length", "tools | default([]) | length", "documents is defined and documents", "enable_thinking is defined and enable_thinking is false",
    "'a' is in ['a']", "'a' is not in ['a']", "1 is not number", "1 is number is string", "messages is string or messages is iterable", "not messages is string", "3 is divisibleby 3 and true", "'a,b' | replace(',', ';') | upper ~ '!'", "[1, 2] | join('-') + 'x'", "(1, 2) | join", "'a' | upper | lower", "'abc'[1:] | upper", "messages | map(attribute='role') | join(', ')", "messages | selectattr('role', 'equalto', 'user') | list | length", "messages | map('length') | list", "[[1, 2], [3]] | sum(start=[])", "[1, 2, 3] | sum", "[1.5, 2] | sum", "[{'a': 1}, {'a': 2}] | sum(attribute='a')", "['a', 'b'] | sum", "messages | rejectattr('tool_calls') | list | length",
    "messages | selectattr('tool_calls', 'defined') | list | length", "[1, 2, 3] | select('odd') | list", "[1, 2, 3] | select('>', 1) | list", "[3, 1, 2] | sort | first", "'hello' | first", "'' | first", "[] | last", "{'a': 1} | first", "{'b': 1, 'a': 2} | list", "{'b': 1, 'a': 2} | dictsort | tojson", "{'B': 1, 'a': 2} | dictsort(true)", "{'a': 'x<>&\\'\"é\\u2028\\x7f\\x01'} | tojson", "{'a': 1, 1: 'b', none: 2, true: 3, 1.5: 4} | tojson", "{(1,): 1} | tojson", "[1.0, 1e20, 1e-7, -0.0] | tojson", "nope | tojson", "[nope] | tojson", "messages | tojson", "messages[0] | tojson(indent=4)", "[] | tojson(indent=2)", "{'a': [], 'b': {}} | tojson(indent=2)", "{'b': 1, 'a': {'d': 1, 'c': 2}} | tojson(sort_keys=true)", "range(2) | tojson", "{'a': 1}.items() | tojson", "(1, 2) | tojson", "'é🙂' | tojson(ensure_ascii=True)", "tools | tojson(indent=4)", "tools | tojson", "tojson", "1 | tojson(foo=1)",
    "'x' | default", "nope | default", "nope | default(none)", "none | default('x')", "none | default('x', true)", "'' | default('x', boolean=true)", "nope.x | default('y')", "messages[0].nope | default('y')", "messages[9] | default('y')", "'a\\nb\\n\\nc' | indent(2)", "'a\\r\\nb' | indent", "'  a ' | trim ~ '|'", "'aXbX' | trim('X')", "'hello world foo' | truncate(9)", "'hello world foo' | truncate(11, true, '', 0)", "'a' | center(4) ~ '|'", "'<a>' | safe ~ 'b'", "'<a>' | escape", "'<a>' | safe | upper", "'<a>' | safe + 'b'", "3.7 | int", "'3.7' | int", "'abc' | int", "'abc' | int(7)", "'0x10' | int(0, 16)", "none | int", "'1e3' | int", "'inf' | int", "' 12 ' | int", "'1_0' | int", "true | int", "[] | int", "'3' | float", "'x' | float", "'1e3' | float", "'nan' | float", "2.5 | round", "3.5 | round", "2.675 | round(2)", "1234.567 | round(-2)", "7 | round", "2.1 | round(0, 'ceil')", "-2.1 | round | int",
    "'a-b c' | title", "'don\\'t STOP' | title", "\"they're bill's\".title()", "'ß' | upper", "'ΑΣ' | lower", "'İ' | lower", "'ǆ' | capitalize", "'straße'.upper()", "'ÀÉ'.isupper()", "'à'.islower()", "'²'.isdigit()", "'漢'.isalpha()", "'\\x1c'.isspace()", "'\\x1ca\\x1f'.strip()", "'\\u3000a'.strip()", "'a\\x0bb\\x85c'.splitlines()", "'a b\\u2003c'.split()", "''.split()", "''.split(',')", "' '.split(' ')", "'a,b,,c'.split(',')", "'a,b,,c'.rsplit(',', 2)", "'a,b'.split(',', 0)", "'a,b'.split(',', -1)", "'aaa'.count('aa')", "'aaa'.replace('aa', 'b')", "'abc'.replace('', '-')", "''.replace('', '-')", "'</think>' in 'x</think>y'", "('<think>a</think>b').split('</think>')[-1].lstrip('\\n')", "'a</think>b'.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n')",
    "messages[::-1] | map(attribute='role') | list", "messages[::-1][0].role", "(messages | last).role", "(messages | first)['content']", "messages[-1]['role'] == 'user'", "messages[1:] | length", "messages[:0]", "'abc'[::-1]", "'abc'[-2]", "'abc'[5]", "'abc'[1:9]", "'漢字🙂'[1:]", "'漢字🙂'[-1]", "'漢字🙂' | length", "[1, 2, 3][-2:]", "(1, 2, 3)[1:]", "{'a': 1}['a']", "{'a': 1}.a", "{'items': 1}.items", "{'items': 1}['items']", "{'get': 5}.get('get')", "{'a b': 1}['a b']", "{1: 'x'}[1]", "{1: 'x'}[true]", "{1: 'x'}['1']", "{'a': 1}[['a']]", "{['a']: 1}", "messages[0]['role'][0]", "messages.0.role", "[[1, 2], [3, 4]].1.0",
    "[3, 1] | reverse | list", "'ab' | reverse", "{'a': 1} | reverse | list", "none | reverse", "nope | reverse | list", "[1] | map('abs')", "[1, 2] | map('string') | length", "([1, 2] | map('string'))[0]", "[1, 2] | map('string') | first", "[1, 2] | map('string') | last", "([] | map('string')) and 'yes'", "(x for x in y)", "[x for x in y]", "lambda: 1", "a := 1", "1 +", "(1", "[1", "{1: 2", "'abc", "1 2", "a b", "@", "a ? b : c", "a && b", "a || b", "!a", "`a`", "$a", "'a'.upper", "'a'.upper()()", "upper('a')", "messages.append(1)", "messages.append", "messages.append is defined", "messages[0].update({'a': 1})", "messages[0].pop('role')", "messages[0].setdefault('a', 1)", "messages[0].__class__", "messages[0]['__class__']", "''.__class__.__mro__", "'a' | attr('upper')", "('a' | attr('upper'))()", "messages[0] | attr('role')", "messages[0] | attr('get')",
    "*[1]", "**{}", "range(*[1, 3]) | list", "dict(**{'a': 1})", "range(*'ab')", "dict(a=1, a=2)", "dict(a=1, 2)", "'{}'.format(*['x'])", "'a' if 1 == 1 and not false or nope.x", "['a', 'b'] == ['a', 'b'] | list", "1 ~ 2 + 3", "1 + 2 ~ 3", "2 * 3 ~ 4", "-1 ~ 2", "not 1 == 2", "not (1 in [2])", "1 not in [2] and 2 in [2]", "(nope | default([])) + [1]", "namespace() is defined", "namespace(a=[1]).a[0]", "[namespace(a=2)] | map(attribute='a') | list",
]

STATEMENTS = [
    "{% for m in messages %}{{ m.role }};{% endfor %}", "{% for m in messages %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.depth }}{{ loop.depth0 }};{% endfor %}",
    "{% for m in messages %}{{ loop.previtem.role if loop.previtem is defined else '-' }}>{{ m.role }}>{{ loop.nextitem.role if loop.nextitem is defined else '-' }};{% endfor %}", "{% for x in [1, 2, 3] %}{{ loop.cycle('a', 'b') }}{% endfor %}", "{% for x in [1, 1, 2] %}{{ loop.changed(x) }}{% endfor %}", "{% for x in [] %}a{% else %}none{% endfor %}", "{% for x in none %}a{% else %}b{% endfor %}", "{% for x in nope %}a{% else %}b{% endfor %}", "{% for x in 3 %}a{% endfor %}", "{% for x in tools %}{{ x.function.name }}{% endfor %}",
    "{% for k, v in messages[0].items() %}{{ k }}={{ v }};{% endfor %}", "{% for k in messages[0] %}{{ k }};{% endfor %}", "{% for k, v in messages[0] %}{{ k }};{% endfor %}", "{% for a, b in [[1, 2], [3, 4]] %}{{ a + b }}{% endfor %}", "{% for a, b in [[1, 2, 3]] %}{{ a }}{% endfor %}", "{% for (a, b), c in [[[1, 2], 3]] %}{{ a ~ b ~ c }}{% endfor %}", "{% for c in 'añ🙂' %}[{{ c }}]{% endfor %}", "{% for x in range(5) if x is odd %}{{ x }}{{ loop.index }}{{ loop.last }}{% endfor %}", "{% for x in range(5) if x > 9 %}{{ x }}{% else %}E{% endfor %}", "{% for m in messages if m.role != 'system' %}{{ loop.length }}{{ m.role }}{% endfor %}",
    "{% for x in [1,2,3,4] %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 4 %}{% break %}{% endif %}{{ x }}{% endfor %}", "{% break %}", "{% for x in [1] %}{% for y in [1, 2] %}{{ loop.index }}{{ x }}{{ y }}{% endfor %}{{ loop.index }}{% endfor %}", "{% for x in [1, 2] recursive %}{{ x }}{% if loop.depth < 3 and x == 1 %}({{ loop([1, 2]) }}){% endif %}{% endfor %}", "{% for x in [1] %}{{ loop([1]) }}{% endfor %}", "{% for x in [1] %}{{ loop }}{% endfor %}", "{% for x in [1,2] %}{{ loop['index'] }}{{ loop.nope is defined }}{% endfor %}", "{{ loop is defined }}", "{% for loop in [1] %}{% endfor %}", "{% for x in [1] %}{% endfor %}{{ x is defined }}", "{% set x = 1 %}{% for x in [2] %}{{ x }}{% endfor %}{{ x }}", "{% set x = 1 %}{% for y in [2] %}{% set x = 3 %}{{ x }}{% endfor %}{{ x }}", "{% set x = 1 %}{% if true %}{% set x = 2 %}{% endif %}{{ x }}", "{% for y in [1, 2] %}{{ x }}{% set x = y %}{{ x }}{% endfor %}",
    "{% set ns = namespace(n=0, l=[]) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% set ns.l = ns.l + [m.role] %}{% endfor %}{{ ns.n }}{{ ns.l }}", "{% set ns = namespace() %}{% set ns.x = 1 %}{{ ns.x }}{{ ns.y is defined }}", "{% set d = {} %}{% set d.x = 1 %}", "{% set ns = namespace(a=1) %}{{ ns }}", "{% set ns.x = 1 %}", "{% set ns = namespace() %}{% set ns._x = 1 %}", "{% set a, b = 1, 2 %}{{ a }}{{ b }}", "{% set a = 1, 2 %}{{ a }}", "{% set (a, b) = [3, 4] %}{{ a }}{{ b }}", "{% set a, b = [1] %}", "{% set x %}a{{ 1 }}b{% endset %}[{{ x }}]", "{% set x | upper %}ab{% endset %}{{ x }}", "{% set x | trim | length %} ab {% endset %}{{ x + 1 }}", "{% set x %}{% set y = 1 %}{% endset %}{{ y is defined }}", "{% set true = 1 %}", "{% set 1 = 1 %}", "{% set x = %}", "{% set messages = messages[1:] %}{{ messages | length }}", "{% set tools = tools if tools else [] %}{{ tools | length }}", "{% if not tools is defined %}{% set tools = none %}{% endif %}{{ tools is none }}", "{% for m in messages %}{{ tools is defined }}{% endfor %}{% set tools = 1 %}", "{% macro f() %}{{ bos_token is defined }}{% endmacro %}{% set bos_token = 'x' %}{{ f() }}", "{% for m in [1] %}{{ bos_token is defined }}{% endfor %}{% if true %}{% set bos_token = 'x' %}{% endif %}",
    "{% if a %}1{% elif messages %}2{% else %}3{% endif %}", "{% if true %}{% endif %}x", "{% if 1 > 2 %}a{% elif 2 > 1 %}b{% endif %}", "{% if %}", "{% if x = 1 %}{% endif %}", "{% if true %}", "{% endif %}", "{% else %}", "{% nosuch %}", "{% do x %}", "{% include 'x' %}", "{% extends 'x' %}", "{% import 'x' as y %}", "{% block a %}b{% endblock %}", "{% autoescape true %}{{ '<' }}{% endautoescape %}", "{% raw %}{{ x }}{% if %}{% endraw %}", "a {%- raw -%} {{ x }} {%- endraw -%} b", "{% raw %}\n x\n{% endraw %}\ny", "{# c #}a{# {{ x }} #}b", "{#- c -#} a {#- d +#} \nb", "a\n  {# c #}\nb", "{# open", "{{ 1", "{% if 1", "{{ }}", "{{ 1 }", "{{ 1 }}}", "{{{ 'a': 1 }}}", "{{ {'a': {'b': 1}} }}", "{ { 1 } }", "{ % if %}", "{{ '}}' }}", "{{ '%}' }}{% if '%}' %}x{% endif %}", "{", "{{", "{%", "{#", "}}", "%}", "{{'a'}}{{'b'}}", "{{-1}}", "{{- 1 -}}", "{{+1}}", "{{ 1 +}}", "{{ 1 -}} a", "{%+ if true +%}\n a{%- endif -%}\n b",
    "{% macro f(a, b=2, c='x') %}{{ a }}{{ b }}{{ c }};{% endmacro %}{{ f(1) }}{{ f(1, 3) }}{{ f(1, c=5) }}{{ f() }}{{ f(b=a) }}", "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1, 2) }}", "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(x=2) }}", "{% macro f(a) %}{{ a }}{% endmacro %}{{ f(1, a=2) }}", "{% macro f(a) %}{{ a is defined }}{% endmacro %}{{ f() }}", "{% macro f(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ f(1) }}", "{% macro f(a=b, b=1) %}{{ a }}{{ b }}{% endmacro %}{{ f() }}", "{% macro f() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1, 2, x=3) }}", "{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}", "{% macro f() %}[{{ caller() }}]{% endmacro %}{% call f() %}x{{ messages | length }}{% endcall %}", "{% macro f() %}[{{ caller(1, b=2) }}]{% endmacro %}{% call(a, b, c=3) f() %}{{ a }}{{ b }}{{ c }}{% endcall %}", "{% macro f() %}{{ caller is defined }}{% endmacro %}{{ f() }}", "{% macro f() %}x{% endmacro %}{% call f() %}y{% endcall %}", "{% call 1 %}{% endcall %}", "{% call nope() %}{% endcall %}", "{% macro f() %}{% set x = 5 %}{{ x }}{% endmacro %}{{ f() }}{{ x is defined }}", "{% set x = 1 %}{% macro f() %}{{ x }}{% endmacro %}{% set x = 2 %}{{ f() }}", "{% for i in [1, 2] %}{% macro f() %}{{ i }}{% endmacro %}{{ f() }}{% endfor %}{{ f is defined }}", "{{ f() }}{% macro f() %}x{% endmacro %}", "{% macro f(x) %}{{ x | upper }}{% endmacro %}{{ f('a') | lower }}{{ f('b') ~ 'c' }}{{ f('d') | length }}", "{% macro f() %}{% endmacro %}{{ f }}", "{% macro f() %}  \n a \n{% endmacro %}[{{ f() }}]{{ f() | trim }}", "{% macro f(a, a) %}{% endmacro %}", "{% macro f(a=1, b) %}{% endmacro %}", "{% macro f() %}{{ m }}{% endmacro %}{% for m in [1] %}{{ f() }}{% endfor %}", "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}B{% endmacro %}{{ a() }}", "{% macro f() %}{{ loop is defined }}{% endmacro %}{% for x in [1] %}{{ f() }}{% endfor %}", "{% if true %}{% macro f() %}x{% endmacro %}{% endif %}{{ f() }}",
    "{% filter upper %}a{{ 'b' }}{% endfilter %}", "{% filter trim | upper %} a {% endfilter %}", "{% filter nosuch %}a{% endfilter %}", "{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a is defined }}", "{% with a = 1, b = a %}{{ b is defined }}{% endwith %}", "{% with %}{% set z = 1 %}{% endwith %}{{ z is defined }}", "{% print 1, 'a' %}", "{% generation %}a{% set q = 1 %}{% endgeneration %}{{ q is defined }}", "{%- generation -%} a {%- endgeneration -%} b", "{% for x in [1] %}{% generation %}{% break %}{% endgeneration %}{% endfor %}", "{% for x in [1, 2] %}{% if true %}{% generation %}{{ x }}{% endgeneration %}{% endif %}{% endfor %}", "{{ 1 | nosuch if false }}", "{{ 1 | nosuch if true }}", "{% if false %}{{ 1 | nosuch }}{% endif %}ok", "{% if false %}{% for x in [1] %}{{ 1 | nosuch }}{% endfor %}{% endif %}ok", "{% macro f() %}{{ 1 is nosuch }}{% endmacro %}ok", "{{ (1 | nosuch) if false else 2 }}", "{{ 'a' if false else (1 is nosuch if false else 2) }}",
    "a\nb\n", "a\n\n", "\na", "a\r\nb\r\n", "a\rb", "\r\n{% if true %}\r\nx\r\n{% endif %}\r\ny\r\n", "  {% if true %}  \n  x\n  {% endif %}  \ny", "x  {% if true %}\ny{% endif %}", "  {{ 1 }}  \n  {{ 2 }}", "{{ 1 }}\n{{ 2 }}\n", "{% if true %}\n\n\nx{% endif %}", "a  {%- if true %}  b  {%- endif %}  c", "a \n {%- if true -%} \n b \n {%- endif -%} \n c", "\t{% if true %}\t\n\tx{% endif %}", "a {% if true +%}\nb{% endif %}", "  {%+ if true %}x{% endif %}", "  {%- set x = 1 %}\n  {{- x }}\n  {%- if x %} y{% endif -%}\n\n z", "{% set x = 1 -%}\n\n  a", "a{# c -#}  \n b", "a\u00a0{%- if true %}b{% endif %}", "\x0b{% if true %}b{% endif %}", "a\u2028  {% if true %}b{% endif %}", "{% if true %}a{% endif %}\n  {% if true %}b{% endif %}\n  c", "{%if true%}a{%endif%}", "{%\nif true\n%}a{% endif\n%}", "{{\n'a'\n}}", "{% for x in [1, 2] %}\n  {{ x }}\n{% endfor %}\nend", "{% for x in [1, 2] -%}\n  {{ x }}\n{%- endfor %}\nend", "{{ '\r\n' | length }}", "{{ 'a\r\nb' | tojson }}", "{{ \"a\\r\\nb\" | tojson }}",
    "{% set x = [1, 2] | map('string') %}{{ x | list }}{{ x | list }}", "{% set x = messages | selectattr('role') %}{% for m in x %}{{ m.role }}{% endfor %}{% for m in x %}again{% endfor %}", "{% set x = [1, 2, 3] | reverse %}{% for y in x %}{{ y }}{{ loop.length }}{% endfor %}", "{% set ns = namespace(f=true) %}{% for x in [1, 2, 3] if ns.f %}{{ x }}{% set ns.f = false %}{% endfor %}", "{% set ns = namespace(f=true) %}{% for x in [1, 2, 3] if ns.f %}{{ x }}{{ loop.last }}{% set ns.f = false %}{% endfor %}", "{% set a = namespace(v=1) %}{% set b = a %}{% set b.v = 2 %}{{ a.v }}", "{% set l = [1] %}{% set _ = l.append(2) %}", "{{ messages | groupby('role') | map('first') | list }}", "{% for role, group in messages | groupby('role') %}{{ role }}:{{ group | length }};{% endfor %}", "{% for g in messages | groupby('role') %}{{ g.grouper }}{{ g.list | length }}{% endfor %}", "{% for row in [1, 2, 3] | batch(2, 0) %}{{ row }}{% endfor %}", "{% for m in messages | reverse %}{{ m.role }}{{ loop.index }}{% endfor %}", "{% for x in messages[0] | dictsort %}{{ x }}{% endfor %}", "{% for x in messages | map(attribute='nope') %}[{{ x }}]{% endfor %}", "{% for x in [1, 2] | select('nosuch') %}{% endfor %}", "{% for x in [[1], 'a', 2] | map('length') %}{{ x }}{% break %}{% endfor %}", "{{ [1, 'a'] | sort }}", "{{ messages | sort(attribute='role') | map(attribute='role') | list }}", "{{ messages | sort(attribute='role,content') | map(attribute='role') | list }}", "{{ messages | unique(attribute='role') | map(attribute='role') | list }}", "{{ ['a', 'A', 'b'] | unique | list }}", "{{ ['b', 'A', 'C'] | max }}{{ ['b', 'A'] | min }}{{ [] | max }}", "{{ messages | max(attribute='role') }}",
]

# These are values at the edges of what an operator, a filter or a method distinguishes. They were chosen by breaking the renderer and
# looking at which breaks went unnoticed.
EDGES = [
    # methods of texts
    "'a\tb'.expandtabs()", "'5'.zfill(3)", "'-5'.zfill(4) ~ '+5'.zfill(4)", "'5'.zfill(3, 'x')", "''.zfill(2)", "'ab'.zfill(1)", "'+'.zfill(3)",
    "'a1'.isalnum() ~ 'a 1'.isalnum() ~ ''.isalnum() ~ '1'.isalnum()", "'ab'.isalpha() ~ 'a1'.isalpha() ~ ''.isalpha()", "'a b'.isprintable() ~ ''.isprintable() ~ 'a\x7f'.isprintable() ~ '\x1f'.isprintable() ~ '~'.isprintable()",
    "'Ab Cd'.istitle() ~ 'Ab cd'.istitle() ~ ''.istitle() ~ '12'.istitle() ~ 'A1b'.istitle() ~ 'A1B'.istitle()", "'a'.isascii() ~ 'é'.isascii() ~ ''.isascii()", "'ab'.islower() ~ 'aB'.islower() ~ '1'.islower() ~ ''.islower() ~ 'a1'.islower()",
    "'AB'.isupper() ~ 'aB'.isupper() ~ '1'.isupper() ~ 'A1'.isupper()", "'12'.isdigit() ~ '1a'.isdigit() ~ ''.isdigit()", "'a_1'.isidentifier() ~ '1a'.isidentifier() ~ ''.isidentifier() ~ 'a-b'.isidentifier() ~ '_'.isidentifier()",
    "'é'.isalnum()", "'é'.isidentifier()", "'a\u2003'.isspace() ~ ' \t'.isspace() ~ ''.isspace()", "'12'.isnumeric() ~ '12'.isdecimal() ~ '1.5'.isnumeric()",
    "'a->b->c'.partition('->')", "'a->b->c'.rpartition('->')", "'ab'.partition('')", "'ab'.partition(1)", "'->'.partition('->')", "'a--'.rpartition('--')",
    "'abc'.startswith('b', 1)", "'abc'.startswith('', 3)", "'abc'.startswith('', 4)", "'abc'.startswith('c', -1)", "'abc'.startswith('a', 0)", "'abc'.startswith('b', 0)", "'abc'.endswith('c', 2)", "'abc'.endswith('bc', 2)", "'äbc'.startswith('b', 1)",
    "'abc'.startswith('b', 1, 2)", "'abc'.startswith(('b', 'a'), 1)", "'abc'.startswith(())", "'abc'.startswith(1)", "'abc'.startswith((1,))", "'abc'.startswith('a', 'b')", "'abc'.startswith(('x', 'c'), 2) ~ 'abc'.endswith(('x', 'c'))",
    "'abcabc'.find('b', 2)", "'abcabc'.find('b', 2, 4)", "'abcabc'.count('b', 2)", "'abcabc'.rfind('b', 0, 3)", "'abcabc'.index('c', 3)", "'ébc'.find('c') ~ 'ébcb'.rfind('b') ~ 'ébc'.rindex('c')", "'abc'.count('')", "'abc'.rindex('z')",
    "'ab'.center(5) ~ '|' ~ 'ab'.center(4) ~ '|' ~ 'abc'.center(6, '.') ~ '|' ~ 'abc'.center(2)", "'ab'.ljust(4, 'xy')", "'ab'.ljust(5, '.') ~ 'ab'.rjust(5, '.') ~ 'ab'.center(5, '.')", "'ab'.ljust(4, '')", "'ab'.rjust(-3) ~ '|'", "'ab'.ljust('4')", "'ab'.center()",
    "'hello wORLD x1y'.title()", "'é'.title()", "'aB\ncD'.swapcase()", "'ẞß'.casefold()", "'ŉ'.capitalize()", "'ǆa'.title()", "'ﬁx'.capitalize()", "'ა'.capitalize()", "'ΑΣ'.capitalize()", "'Σ'.lower() ~ 'ΑΣ.'.lower()",
    "'a'.join('xyz')", "','.join({'a': 1, 'b': 2})", "'a'.join([1])", "'a'.join(3)", "''.join(['a', 'b'] | map('upper'))", "'abab'.replace('ab', 'x', 1)", "'abab'.replace('ab', 'x', 0)", "'abab'.replace('ab', 'x', -1)", "'aé'.replace('', '-', 2)",
    "'a b  c'.split(none)", "'a b c'.split(none, 0)", "' a b '.split(' ', 1)", "'abc'.split('b', -1)", "'a,b,c'.rsplit(',', 1)", "'a b c'.rsplit(none, 1)", "' a  b '.rsplit()", "'a,b'.split(1)", "'a\n\nb'.splitlines()", "'a\r\n\rb\x0b'.splitlines()", "'a\r\n\rb\n'.splitlines(true)", "''.splitlines()",
    "'abc'.removeprefix('ab') ~ 'abc'.removesuffix('bc') ~ 'abc'.removeprefix('x') ~ 'abc'.removesuffix('')", "'abc'.strip('ca')", "'xxabcxx'.lstrip('x') ~ 'xxabcxx'.rstrip('x')", "'\x1c\x1f\x85a\u2028'.strip()", "'a'.encode('utf-8')", "'a'.translate({})", "'a'.maketrans('a', 'b')", "'a'.format_map({})",
    # methods of lists, tuples and dicts
    "[1, 2, 1].index(1, 1)", "[1, 2, 1].count(1)", "[1].count()", "[1].index(2)", "(1, 2).index(2)", "(1, 2, 2).count(2.0)", "[1].copy()", "[1].copy(1)", "(1,).copy()", "[1].append(2)", "[2, 1].sort()", "[1].extend([2])", "[1].insert(0, 2)", "[1].remove(1)", "[1].clear()", "[1].reverse()",
    "{'a': 1}.get('a', 2) ~ {'a': 1}.get('b', 2) ~ {'a': 1}.get('b')", "{'a': 1}.get()", "{'a': 1}.get('a', 1, 2)", "{'a': 1}.get(nope)", "{'a': 1}.get([])", "{'a': none}.get('a', 3)", "{'a': 1, 'b': 2}.values() | list", "{'a': 1, 'b': 2}.values() | length", "{'a': 1}.keys() | length", "{'a': 1}.items(1)", "{'a': 1}.copy()", "{'a': 1}.copy() == {'a': 1}",
    "{'a': 1}.pop('a')", "{'a': 1}.popitem()", "{'a': 1}.setdefault('b', 2)", "{'a': 1}.clear()", "{'a': 1}.fromkeys(['b'])", "{'a': {'values': 1}}.a.values", "2 in {'a': 2}.values()", "3 in {'a': 2}.values()", "('a', 2) in {'a': 2}.items()", "'a' in {'a': 2}.keys()", "2 in {'a': 2}.keys()",
    # tests
    "none is sameas none", "true is sameas true", "true is sameas false", "false is sameas(false)", "1 is sameas true", "1 is sameas 2", "1 is sameas 1", "1.0 is sameas 1", "'a' is sameas 'b'", "'a' is sameas 'a'", "[] is sameas []", "1.5 is sameas 2.5", "none is sameas 0", "nope is sameas nope", "'1' is sameas 1",
    "3.0 is odd", "3.0 is even", "4.0 is even", "2.5 is odd", "-3 is odd", "-3 is even", "nope is odd", "'a' is odd", "true is odd", "none is even", "7 is divisibleby 7", "7 is divisibleby 2", "7 is divisibleby 0", "7.5 is divisibleby 2.5", "'a' is divisibleby 2", "6 is divisibleby(num=3)", "6 is divisibleby",
    "'upper' is filter", "'nosuch' is filter", "'odd' is filter", "'odd' is test", "'nosuch' is test", "'upper' is test", "nope is filter", "nope is test", "1 is filter", "1 is test", "[] is test", "[] is filter", "none is filter", "(1,) is filter", "{} is test",
    "'' is lower", "'a1' is lower", "'A' is upper", "1 is upper", "none is lower", "'<a>' | escape is escaped", "'a' is escaped", "range(3) is sequence", "range(3) is iterable", "([1] | map('string')) is sequence", "([1] | map('string')) is iterable", "{}.items() is sequence", "{}.items() is iterable", "{} is sequence", "1 is iterable", "none is iterable",
    "range is callable", "'a'.upper is callable", "nope is callable", "none is callable", "1.0 is number", "true is number", "true is integer", "1 is float", "1.0 is integer", "'1' is number", "nope is number", "[] is mapping", "{} is mapping", "true is boolean", "1 is boolean", "1 is true", "0 is false", "false is false", "1 is defined(2)", "1 is eq", "1 is eq 1.0", "1 is ne 1.0", "1 is lt 1", "1 is le 1", "1 is gt 1", "1 is ge 1", "'a' is in 'abc'", "1 is in [1]", "1 is in 3",
    # filters of numbers
    "nope | abs", "nope | int", "nope | float", "nope | round", "-3 | abs", "-2.5 | abs", "-0.0 | abs", "true | abs", "'a' | abs", "none | abs", "(-9223372036854775807 - 1) | abs", "1e400 | int", "-1e400 | int", "(1e400 - 1e400) | int(7)", "1e19 | int", "-2.7 | int", "9.2e18 | int", "9223372036854775807 | int", "'9223372036854775807' | int", "'9223372036854775808' | int", "'-5' | int", "'+5' | int", "'--5' | int(9)", "'_1' | int(9)", "'1_' | int(9)", "'1__0' | int(9)", "'1_000' | int", "'' | int(9)", "' \n7\t' | int", "'٣' | int", "'²' | int", "'2.9' | int", "'-2.9' | int", "'1e19' | int", "'nan' | int(3)", "'infinity' | int", "'x' | safe | int", "'3' | safe | float", "true | int ~ false | int", "none | int(8)", "[] | int(8)", "'5' | int(base=8)", "'5' | int(0, 10)", "'5' | int(default=2)",
    "'1_0' | float", "'٣' | float", "'-1.5e-3' | float", "'1e' | float(9.5)", "'.' | float(9.5)", "'1.5.2' | float(9.5)", "'+inf' | float", "'-Infinity' | float", "'NAN' | float", "'infin' | float(9.5)", "'' | float", "true | float", "none | float(2)", "3 | float", "'1e400' | float", "'e5' | float(9.5)", "'5-' | float(9.5)", "'0x1' | float(9.5)",
    "2.5 | round(0)", "0.5 | round", "1.5 | round", "-1.5 | round", "2.345 | round(2)", "2.5 | round(method='floor')", "2.1 | round(1, 'ceil')", "2.25 | round(1, 'ceil')", "-2.25 | round(1, 'floor')", "3 | round(1, 'ceil')", "3 | round(2)", "true | round", "'a' | round", "none | round", "'a' | round(1, 'ceil')", "2.5 | round(1, 'up')", "2.5 | round(-1)", "2.5 | round(16)", "2.5 | round(15)", "1e400 | round", "-1e400 | round(1)", "1e400 | round(0, 'ceil')", "9e15 | round(0, 'ceil')", "9.1e15 | round(0, 'ceil')", "-9.1e15 | round(0, 'floor')", "-0.5 | round(0, 'ceil')", "12345.678 | round(2, 'floor')", "1e300 | round",
    # filters of sequences
    "([3, 1] | map('abs')) | first", "([] | map('abs')) | first", "([] | map('abs')) | first is defined", "([-3, 'a'] | map('abs')) | first", "(['a'] | map('abs')) | first", "([1] | map('abs')) | last", "[1, 2] | last", "'ab' | last", "{'a': 1, 'b': 2} | last", "{'a': 1, 'b': 2} | first", "range(3) | last", "range(3) | first", "nope | first is defined", "nope | last is defined", "1 | first", "1 | last", "none | last",
    "'abc' | reverse", "'é🙂' | reverse", "([1, 2] | map('abs')) | reverse", "([1, 2] | map('abs')) | reverse | first", "[1, 2] | reverse | first", "range(3) | reverse | list", "{'a': 1, 'b': 2} | reverse | list", "1 | reverse", "('ab' | safe) | reverse", "nope | items | list", "{'a': 1} | items | list", "{'a': 1} | items | first", "[1] | items | list", "none | items | list", "none | items",
    "{'b': 1, 'A': 3, 'c': 2} | dictsort", "{'b': 1, 'A': 3} | dictsort(true)", "{'b': 1, 'a': 3} | dictsort(by='value')", "{'b': 1, 'a': 3} | dictsort(reverse=true)", "{'b': 1} | dictsort(by='x')", "[1] | dictsort", "nope | dictsort", "{'a': 'B', 'b': 'a'} | dictsort(false, 'value')", "{'a': 'B', 'b': 'a'} | dictsort(true, 'value')", "{1: 2, 'a': 3} | dictsort",
    "[1, 2, 3] | batch(2) | list", "[1, 2, 3] | batch(2, none) | list", "[1, 2, 3] | batch(linecount=2, fill_with=0) | list", "[1, 2, 3] | slice(slices=2) | list", "[1, 2, 3] | slice(2, fill_with='x') | list", "[1, 2, 3, 4] | slice(3, 0) | list", "[1, 2, 3, 4, 5] | slice(3) | list", "[1, 2] | slice(3, none) | list", "[1] | batch(0) | list", "[1] | batch(-1) | list", "[1] | slice(0) | list", "[1] | batch('a') | list", "[] | batch(2, 0) | list", "[1] | batch(slices=2) | list", "[1, 2] | batch(2, 0) | list", "[1] | batch | list", "nope | batch(2) | list",
    "messages | groupby('role', default='x') | list | length", "[{'a': 1}, {}] | groupby('a', default=none) | list", "[{'a': 1}, {}] | groupby('a', default=2) | map(attribute='grouper') | list", "[{'a': 'B'}, {'a': 'b'}] | groupby('a') | list", "[{'a': 'B'}, {'a': 'b'}] | groupby('a', case_sensitive=true) | map(attribute=0) | list", "[[2, 1], [1, 2]] | groupby(0) | list", "[] | groupby('a') | list", "[1] | groupby | list",
    "[1, 2] | sum(start=3)", "[[1], [2]] | sum(start=[])", "[] | sum", "[] | sum(start='a')", "['a'] | sum(start='')", "[0.5] | sum", "[true, 2] | sum", "[{'a': 1}, {'a': 2}] | sum('a')", "[{'a': 1}, {'a': 2}] | sum('a', 10)", "nope | sum", "1 | sum", "['b', 'A', 'a'] | unique | list", "['b', 'A', 'a'] | unique(true) | list", "[1, 1.0, true] | unique | list", "[3, 1] | min ~ [3, 1] | max", "['b', 'A'] | min ~ ['b', 'A'] | min(true)", "[] | min is defined", "[{'a': 2}, {'a': 1}] | min(attribute='a')", "[1, 'a'] | max", "nope | max is defined",
    "[{'a': {'b': 1}}] | map(attribute='a.b') | list", "[{'a': [5, 6]}] | map(attribute='a.1') | list", "[{'a': [5]}] | map(attribute='a.7', default='d') | list", "[{'': 1}] | map(attribute='') | list", "[{'a': {'': 1}}] | map(attribute='a.') | list", "[{'1a': 3}] | map(attribute='1a') | list", "[{'é': 3}] | map(attribute='é') | list", "[{'٣': 3}] | map(attribute='٣') | list", "[{'a٣': 3}] | map(attribute='a٣') | list", "[[1, 2]] | map(attribute='1') | list", "[[1, 2]] | map(attribute=-1) | list", "[[1]] | map(attribute='99999999999999999999') | list", "[{'a': 1}] | map(attribute=none) | list", "[{'a': 1}] | join(',', attribute='a')", "[{'a': 1}, {'a': 2}] | join(attribute='a')", "[1, 2] | join(none)", "[1, none, 2.5] | join('|')", "'abc' | join('.')", "1 | join", "nope | join ~ '.'", "['<'] | map('escape') | join('>')",
    "[3, 1, 2] | sort(true)", "['b', 'A'] | sort", "['b', 'A'] | sort(case_sensitive=true)", "[{'a': 2, 'b': 1}, {'a': 1, 'b': 2}] | sort(attribute='b') | map(attribute='a') | list", "[{'a': 1, 'b': 2}, {'a': 1, 'b': 1}] | sort(attribute='a,b') | map(attribute='b') | list", "[[2], [1]] | sort", "[none, 1] | sort", "'hello' | sort", "{'b': 1, 'a': 2} | sort", "nope | sort",
    "loop | length", "range(3) | length", "([1] | map('abs')) | length", "1 | length", "{}.items() | length", "none | length", "nope | length", "true | length", "'é🙂' | length", "namespace() | length", "range | length",
    "'abc' | truncate(3)", "'abcdef' | truncate(3, true, '', 0)", "'ab cd ef' | truncate(6, false, '.', 0)", "'ab cd ef' | truncate(6, true, '.', 1)", "'abcdef' | truncate(2)", "'abc' | truncate(-1)", "'abcdefgh' | truncate(3, leeway=5)", "'abcdefgh' | truncate(3, leeway=4)", "'a\nb' | indent(width=1, first=true)", "'a\n\nb' | indent(1, false, true)", "'a\nb\n' | indent(1)", "'' | indent(1, true) ~ '.'", "1 | indent", "'a b' | wordcount", "'a-b c_d' | wordcount", "'é a' | wordcount", "'%s %s' | format(1, 2)", "'%(a)s' | format(a=1)", "'a' | format(1)", "'abc' | center(7) ~ '.'", "'abc' | center ~ '.'", "'Aa' | replace('a', 'b', 1)", "'aaa' | replace('a', 'b', 2)", "'aaa' | replace('a', 'b', 0)", "12 | replace(1, 3)", "'a' | replace('a')", "'<a>' | safe | replace('a', '<')",
    # numbers and operators
    "(1, 2) + (3,)", "(1,) + [2]", "() + ()", "(1, 2) * 2", "[1] * 0 ~ [1] * -1", "'ab' * 0 ~ 'ab' * -1", "2 * (1,)", "[1] * 1.0", "'a' * 'b'", "[1] - [1]", "9223372036854775807 + 1", "-9223372036854775807 - 2", "4611686018427387904 * 2", "2 ** 63", "2 ** 62", "3 ** 0", "(-2) ** 3", "0 ** 0", "2.0 ** 2", "2 ** 0.5", "true + true", "true * 3",
    "9007199254740992 / 2", "9007199254740993 / 2", "2 / 9007199254740993", "-9007199254740993 / 3", "6 / 3", "1 / -3", "0 / 5", "0 / -5", "7 // 2 ~ ',' ~ -7 // 2 ~ ',' ~ 7 // -2 ~ ',' ~ -7 // -2 ~ ',' ~ 6 // -3 ~ ',' ~ 0 // -3", "7 % 3 ~ ',' ~ -7 % 3 ~ ',' ~ 7 % -3 ~ ',' ~ -7 % -3 ~ ',' ~ 6 % -3 ~ ',' ~ 0 % -3", "7 % 0", "7 // 0", "1.5 % 0", "1.5 // 0", "1.5 / 0", "(-9223372036854775807 - 1) // -1", "(-9223372036854775807 - 1) % -1",
    "7.5 // 2 ~ ',' ~ -7.5 // 2 ~ ',' ~ 7.5 // -2 ~ ',' ~ -7.5 // -2", "7.5 % 2 ~ ',' ~ -7.5 % 2 ~ ',' ~ 7.5 % -2 ~ ',' ~ -7.5 % -2", "6.0 % -3 ~ ',' ~ -6.0 % 3 ~ ',' ~ 6.0 // -3 ~ ',' ~ 0.0 // -3 ~ ',' ~ 0.0 % -3", "1.0 // 0.1 ~ ',' ~ 1.0 % 0.1 ~ ',' ~ 0.3 // 0.1 ~ ',' ~ 0.3 % 0.1", "-0.3 // 0.1 ~ ',' ~ 4.35 // 0.05 ~ ',' ~ 1e20 // 3 ~ ',' ~ 1e-9 // 1 ~ ',' ~ -1e-9 // 1", "-(5) ~ -(2.5) ~ -true ~ +true ~ +3 ~ +2.5", "-'a'", "+'a'", "-nope", "-(-9223372036854775807 - 1)", "+(-9223372036854775807)", "+nope", "-none",
    "1 in range(3)", "3 in range(3)", "'1' in range(3)", "1 in ([1] | map('abs'))", "1 in 'a'", "'' in 'a'", "1 in nope", "1 in none", "1 in 5", "'a' in namespace(a=1)", "'upper' in 'a'.upper", "[1] in [[1]]", "[] in {}", "nope in [1]", "nope in 'a'", "none in [none]", "1.0 in [1]", "'a' in ('a' | safe)", "('a' | safe) in 'abc'",
    "range(1, 10, 4) | list", "range(5, 0, -2) | list", "range(1, 9, 3)[2]", "range(1, 9, 3)[-1]", "range(1, 9, 3)[-3]", "range(1, 9, 3)[3]", "range(1, 9, 3)[-4]", "range(9, 1, -3)[1]", "range(5)[1:3]", "range(5)[1:3] | list", "range(4)['a']", "('abc' | safe)[1]", "('abc' | safe)[1:]", "('abc' | safe)[0:1]", "{1: 2}[1:]", "{'a': 1}[:1]", "1[0]", "1[1:]", "none[0]", "'abc'[-4]", "'abc'[-3]", "'abc'[3]", "'abc'[1.0]", "'abc'[true]", "[1, 2][-3]", "[1, 2][-2]", "[1, 2][2]", "(1, 2)[1]", "(1, 2)[-3]", "[1, 2][1, 0]", "{(1, 0): 'x'}[1, 0]", "{(1,): 'x'}[1,]", "[1][0, :]", "[1, 2, 3][1:2:1:1]", "[1, 2, 3][:,1]",
    "'abcdef'[1:4:2] ~ 'abcdef'[::-2] ~ 'abcdef'[4:1:-1] ~ 'abcdef'[-100:2] ~ 'abcdef'[3:100] ~ 'abcdef'[100:] ~ 'abcdef'[:-100] ~ 'abcdef'[-2:] ~ 'abcdef'[:-2]", "[1, 2, 3, 4][3::-1]", "[1, 2, 3, 4][100::-1]", "[1, 2, 3, 4][:0:-1]", "[1, 2, 3, 4][:-9:-1]", "[1, 2, 3, 4][-9::-1]", "[1, 2, 3][1:1]", "[1, 2, 3][2:1]", "[1, 2, 3][none:none]", "[1, 2, 3]['a':]", "[1, 2, 3][::9223372036854775807]", "[1, 2, 3][1.0:]", "(1, 2, 3)[::2]", "nope[1:2]", "[1, 2][true:]",
    "1 < 1e400", "1 > 1e400", "1 < -1e400", "1 > -1e400", "9223372036854775807 < 9.3e18", "9223372036854775807 > -9.3e18", "1 < 1.5", "2 < 1.5", "1 == 1.5", "1 <= 1.0", "1 < (1e400 - 1e400)", "1 == (1e400 - 1e400)", "(1e400 - 1e400) == (1e400 - 1e400)", "9007199254740993 == 9007199254740992.0", "9007199254740993 > 9007199254740992.0", "true < 2", "'a' < 'B'", "'é' < 'z'", "[1] < [1, 2]", "(1, 2) < (1, 3)", "[1] < (2,)", "{} < {}", "none < none", "nope < 1", "'a' <= 'a'", "[2] >= [1, 5]",
    "range(3) == range(3)", "{}.items() == {}.items()", "'a'.upper == 'a'.upper", "([] | map('abs')) == ([] | map('abs'))", "range == range", "range(3) == [0, 1, 2]", "namespace() == namespace()", "{'a': 1} == {'a': 1, 'b': 2}", "{'a': 1} == {'b': 1}", "{'a': 1} != {'a': 2}", "[1, 2] == [1, 3]", "[1, 2] == [1]", "(1,) == (1.0,)", "[none] == [none]", "[nope] == [nope]", "'a' == ('a' | safe)", "none == none", "none == nope", "'' == none",
    "{none: 'x'}[none]", "{none: 'x'}['none'] is defined", "{true: 'x'}[1]", "{1.5: 'x'}[1.5]", "{1.0: 'x'}[1]", "{(1, 'a'): 'x'}[(1, 'a')]", "{(1, none): 'x'}[(1, none)]", "{(1, [2]): 'x'}", "{{}: 1}", "{nope: 1}", "{range(2): 1}", "{('a' | safe): 1}['a']", "{none: 1, 'none': 2} | length", "{(1, 2): 1, (1.0, 2): 2} | length", "{'a': 1, 'a': 2}",
    # texts of values
    "['inf' | float, '-inf' | float]", "['inf' | float, '-inf' | float, 'nan' | float] | tojson", "'-inf' | float", "1 < 'inf' | float", "none == 1 or 1 == none or none == none", "[1e400, -1e400]", "1e400 ~ ',' ~ -1e400", "(1e400 - 1e400) | string", "['a\\\\b', 'c\\rd', 'e\\tf', 'g\\nh', 'i\\'j', 'k\"l', 'm\\'n\"o']", "['\\x00\\x1f\\x7f\\xa0\\xad\\u0378\\u200b\\ue000\\U000e0001']", "['é漢🙂\u0301']", "['ͷ\u0378']", "{'a\\\\': '\\t'}", "('\\r',)", "1e16 ~ ',' ~ 1e15 ~ ',' ~ 123456789.125 ~ ',' ~ 0.0001 ~ ',' ~ 0.00001 ~ ',' ~ 1.5e-7 ~ ',' ~ 1e100 ~ ',' ~ -0.0", "1.0e+2", "[range(2)]", "[{}.keys()]", "[none, true, 1.0, ()]", "(1,) | string", "namespace()", "[namespace()]",
    "{'a': '\\\\ \" / \\n \\r \\t \\x0c \\x08 \\x01 \\x1f \\x7f é 🙂'} | tojson", "'\\\\ \" / \\n \\r \\t \\x0c \\x08 \\x01 \\x1f ~ \\x7f \\x80 é 🙂' | tojson(ensure_ascii=true)", "[1e400, -1e400, 1e400 - 1e400] | tojson", "{true: 1, false: 2, none: 3, 1: 4, 1.5: 5} | tojson", "{1e400: 1} | tojson", "{false: 0} | tojson", "{(1,): 2} | tojson", "{'a': 1}.keys() | tojson", "namespace() | tojson", "range(2) | list | tojson", "{'b': [1, {'c': 2}], 'a': []} | tojson(indent=1)", "[1, [2]] | tojson(indent=0)", "[1, [2]] | tojson(indent=none)", "[1, 2] | tojson(separators=none)", "[1, 2] | tojson(separators=(';', '='))", "{'a': 1, 'b': 2} | tojson(separators=(';', '='))", "{2: 1, 10: 2} | tojson(sort_keys=true)", "{'a': 1, 1: 2} | tojson(sort_keys=true)", "('<' | safe) | tojson", "'x' | tojson(indent=true)", "[[], {}, ''] | tojson(indent=3)",
    "'%d' % 3.7 ~ '%d' % -3.7 ~ '%i' % true", "'%x' % 3.7", "'%x' % 'a'", "'%X' % 'a'", "'%o' % 2.0", "'%d' % nope", "'%d' % 1e19", "'%d' % 1e400", "'%f' % nope", "'%f' % 'a'", "'%f' % 1", "'%.0f' % 2.5", "'%.2f' % true", "'%f' % 1e400", "'%5d|%-5d|%05d|% d|%+d' % (42, 42, 42, 42, 42)", "'%05d|%+05d|% 05d' % (-42, 42, 42)", "'%.3d' % 7", "'%.3d' % -7", "'%#x' % 255", "'%x|%X|%o' % (-255, -255, -8)", "'%e' % 1.5", "'%g' % 1.5", "'%5s|%-5s|%.2s' % ('abc', 'abc', 'abc')", "'%5.1s|' % 'abc'", "'%r' % ['a']", "'%a' % 'é'", "'%c' % 'a'", "'%c' % 'ab'", "'%s %%' % 1", "'%' % 1", "'%z' % 1", "'%s' % (1, 2)", "'%s %s' % 1", "'%(a)s %(a)d' % {'a': 5}", "'%(a' % {'a': 5}", "'%(a)s' % 5", "'%*d' % (5, 42)", "'%-05d|' % 42", "'%ld' % 5", "'a' % ()", "'a' % []", "'a' % {}", "'a' % 1", "'%s' % ()", "'%s' % {'a': 1}", "'%s' % none", "'%d|%+d|% d|%x' % (0, 0, 0, 0)", "'%f|%+f|%.1f' % (0.0, 0.0, -0.0)",
    "'{0}{1}'.format(1, 2)", "'{}{0}'.format(1)", "'{a}{b}'.format(a=1, b=2)", "'{a[0]}'.format(a=[1])", "'{a.b}'.format(a=1)", "'{!r}'.format('a')", "'{:d}'.format(5)", "'}'.format()", "'}}{{'.format()", "'{1}'.format(1)", "'{a}'.format(1)", "'{ }'.format(1)", "'{0:}'.format(5)",
    # words of the language
    "1_0.5_0", "1_", "1_0e1_0", "0x_1F", "0b1_0", "0o_7", "08", "00", "0_0", "1e1_0", "1.e5", "a.1e5", "[1].0", "[[1]].0.0", "[1, 2].1 ~ [1].0", "1 .x", "'\\ud83d'", "'\\ud83d\\ude42'", "'\\U00110000'", "'\\u12'", "'\\x4'", "'\\400'", "'\\0'", "'\\18'", "'\\N{NO SUCH}'", "'\\a\\b\\f\\v' | length", "'\\\n'", "'a' 'b'", "\"a\" 'b' | upper", "'a'\n'b'",
    "dict(a=1, **{'b': 2})", "dict(a=1, **{'a': 2})", "dict(**{'a': 1}, b=2)", "dict(**[1])", "dict(**{1: 2})", "dict(*[[('a', 1)]])", "range(*[1, 5], **{})", "range(**{'a': 1})", "namespace(**{'a': 3}).a", "namespace(a=1, **{'b': 3}).b", "'{}'.format(*[1], **{})", "'{a}'.format(**{'a': 1})", "'{a}'.format(a=1, **{'a': 2})",
]

EDGE_STATEMENTS = [
    "{% raw %}x{%- endraw +%}\n y", "{% raw +%} x {% endraw %}", "{%- raw %} {{ x }} {%+ endraw -%}\n y", "{% raw %}{% raw %}{% endraw %}x", "{% raw -%}\n x\n{%- endraw %}\ny", "{% raw %}{% x {% endraw +%} z", "{% raw %}", "{% raw %}{% endra %}{% endraw%}", "{%raw%}{{{%endraw%}",
    "{% for x in [1, 1, 2] %}{{ loop.changed(x, 1) }}{{ loop.changed() }}{% endfor %}", "{% for x in [1, 1, 2] %}{{ loop.changed(x) }}{{ loop.changed(x, x) }};{% endfor %}", "{% for x in [1, 2, 1] %}{{ loop.changed(x) }}{{ loop.changed(x) }};{% endfor %}", "{% for x in [1, 2, 3] %}{{ loop.cycle() }}{% endfor %}", "{% for x in [1, 2, 3, 4] %}{{ loop.cycle('a', 'b', 'c') }}{% endfor %}", "{% for x in [1] %}{{ loop.nope() }}{% endfor %}", "{% for x in [1] %}{{ loop.index() }}{% endfor %}", "{% for x in [1] %}{{ loop == loop }}{% endfor %}", "{% for x in [1] %}{{ 1 in loop }}{% endfor %}", "{% for x in [1] %}{{ loop | length }}{% endfor %}", "{% for x in [1] %}{{ loop | list }}{% endfor %}", "{% for x in [1] %}{{ loop is iterable }}{{ loop is callable }}{% endfor %}", "{% for x in [1, 2] %}{% for y in loop %}{{ y }}{% endfor %}{% endfor %}", "{% for x in [1] %}{{ [loop] | map(attribute='index') | list }}{% endfor %}", "{% for x in [1, 2] %}{{ loop.previtem is defined }}{{ loop.nextitem is defined }}{{ loop.revindex0 }}{% endfor %}", "{% for x in [1, 2] %}{{ loop['last'] }}{{ loop.depth0 }}{{ loop.nextitem }}{% endfor %}",
    "{% for x in range(6, 0, -2) %}{{ x }}{{ loop.length }},{% endfor %}", "{% for x in range(1, 8, 3) %}{{ x }}{{ loop.revindex }},{% endfor %}", "{% for x in {'a': 1}.values() %}{{ x }}{% endfor %}", "{% for x in 'ab' | safe %}{{ x }}{% endfor %}", "{% for x in namespace() %}{% endfor %}", "{% for x in range %}{% endfor %}", "{% for a, b in {'x': 1}.items() %}{{ a }}{{ b }}{% endfor %}", "{% for a, b in ['xy'] %}{{ b }}{{ a }}{% endfor %}", "{% for a, b in [1] %}{% endfor %}", "{% for a, b in [[1]] %}{% endfor %}", "{% for x in [1, 2] | map('string') %}{{ loop.length }}{{ x }}{% endfor %}", "{% for x in [1, 2] | map('string') %}{{ x }}{{ loop.revindex }}{% endfor %}", "{% for x in ['a', 1] | map('upper') %}{{ x }}{% endfor %}", "{% for x in [1, 'a'] | map('abs') %}{{ x }}{% break %}{% endfor %}",
    "{% set ns = namespace(a=1) %}{% set ns.b = ns %}{{ ns.b.a }}", "{% set ns = namespace(a=1) %}{% set ns.b = [ns] %}{{ ns.b }}", "{% set ns = namespace() %}{% set ns.a = 'x'.upper %}{{ ns.a() }}", "{% macro m() %}x{% endmacro %}{% set ns = namespace(f=m) %}{{ ns.f() }}{{ [m] | length }}{{ m is callable }}{{ m == m }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(**{'a': 1}) }}{{ m(*[2]) }}", "{% macro m(a, b=3) %}{{ a }}{{ b }}{{ kwargs }}{% endmacro %}{{ m(1, **{'c': 2}) }}", "{% macro m(a) %}{{ varargs | length }}{% endmacro %}{{ m(1, 2, 3) }}", "{% macro m() %}{% endmacro %}{{ m.name }}", "{% macro m() %}{% endmacro %}{{ m.arguments }}", "{% macro m() %}{% endmacro %}{{ {m: 1} | length }}",
    "{% set x = 'a' %}{%- set y = x ~ 'b' -%}  {{- y -}}  z", "{% if nope.a is defined %}1{% else %}2{% endif %}", "{% if [] %}1{% elif {} %}2{% elif '' %}3{% elif 0.0 %}4{% elif range(0) %}5{% elif () %}6{% elif none %}7{% elif 0 %}8{% else %}9{% endif %}", "{% if range(1) %}a{% endif %}{% if {}.items() %}b{% endif %}{% if [1] | map('abs') %}c{% endif %}{% if namespace() %}d{% endif %}{% if 'a' | safe %}e{% endif %}{% if '' | safe %}f{% endif %}",
    "{% set x, y = {'a': 1, 'b': 2} %}{{ x }}{{ y }}", "{% set x, y = 'ab' %}{{ y }}", "{% set x, y = 1 %}", "{% set x, y = [1, 2, 3] %}", "{% set x, (y, z) = 1, [2, 3] %}{{ x }}{{ y }}{{ z }}", "{% set x, x = 1, 2 %}{{ x }}", "{% set x = y = 1 %}", "{% set x[0] = 1 %}", "{% set x.y.z = 1 %}", "{% set ns = namespace() %}{% set ns.a, b = 1, 2 %}{{ ns.a }}{{ b }}",
]

PUBLISHED = pathlib.Path(__file__).with_name("chat").glob("*.jinja")


def composed(rng):
    """A random template of nested statements."""
    names = ["x", "y", "ns.v", "m", "messages", "tools", "bos_token"]

    def expression(depth):
        if depth == 0 or rng.random() < 0.25:
            return rng.choice(SHORT + ["x", "y", "m.role", "m['content']", "loop.index", "loop.last", "ns.v", "bos_token", "messages | length", "enable_thinking", "messages[0].role", "tools"])
        kind = rng.randrange(9)
        inner = lambda: expression(depth - 1)
        if kind == 0:
            return f"({inner()} {rng.choice(OPERATORS)} {inner()})"
        if kind == 1:
            return f"({inner()} is {rng.choice(TESTS[:17])})"
        if kind == 2:
            return f"({inner()} | {rng.choice(FILTERS)})"
        if kind == 3:
            return f"({inner()}).{rng.choice(METHODS)}"
        if kind == 4:
            return f"({inner()}){rng.choice(SUBSCRIPTS)}"
        if kind == 5:
            return f"({inner()} if {inner()} else {inner()})"
        if kind == 6:
            return f"[{inner()}, {inner()}]"
        if kind == 7:
            return f"(not {inner()})"
        return f"{{'k': {inner()}}}"

    def guarded(depth):
        """An expression that often has a value: most random ones fail."""
        return f"({expression(depth)}) | default('-')" if rng.random() < 0.5 else expression(1)

    def tag(text):
        left, right = rng.choice(["", "", "-", "+"]), rng.choice(["", "", "-"])
        return f"{{%{left} {text} {right}%}}"

    def space():
        return rng.choice(["", "", " ", "\n", "\n  ", " \n", "a", "b \n", "\n\n"])

    def statement(depth):
        kind = rng.randrange(8) if depth else rng.randrange(2)
        if kind == 0:
            left, right = rng.choice(["", "-"]), rng.choice(["", "-"])
            return f"{{{{{left} {guarded(2)} {right}}}}}"
        if kind == 1:
            return tag(f"set {rng.choice(['x', 'y', 'ns.v'])} = {guarded(2)}")
        if kind in (2, 3):
            target = rng.choice([("m", "messages"), ("x", "[1, 'b', none]"), ("y", "range(3)"), ("k, v", "messages[0].items()"), ("m", "messages[::-1]"), ("m", "tools")])
            test = rng.choice(["", "", f" if {guarded(1)}"])
            other = tag("else") + space() + "E" if rng.random() < 0.3 else ""
            inside = body(depth - 1)
            if rng.random() < 0.2:
                inside += tag(f"if {guarded(1)}") + tag(rng.choice(["break", "continue"])) + tag("endif") + space() + "z"
            return tag(f"for {target[0]} in {target[1]}{test}") + inside + other + tag("endfor")
        if kind in (4, 5):
            middle = tag(f"elif {guarded(1)}") + body(depth - 1) if rng.random() < 0.3 else ""
            return tag(f"if {guarded(2)}") + body(depth - 1) + middle + tag("else") + body(depth - 1) + tag("endif")
        if kind == 6:
            return tag("macro f(a, b='B')") + "{{ a }}" + body(depth - 1) + "{{ b }}" + tag("endmacro") + f"{{{{ f({guarded(1)}) }}}}"
        return rng.choice([tag("set x") + body(depth - 1) + tag("endset") + "[{{ x }}]", tag("filter upper") + body(depth - 1) + tag("endfilter"), tag(f"with x = {guarded(1)}") + body(depth - 1) + tag("endwith")])

    def body(depth):
        return "".join(space() + statement(depth) for _ in range(rng.randrange(1, 4))) + space()

    return "{% set ns = namespace(v=0) %}" + body(3)


def products():
    for kind in KINDS:
        for test in TESTS:
            yield f"{{{{ {kind} is {test} }}}}"
        for filter in FILTERS:
            yield f"{{{{ {kind} | {filter} }}}}" if "|" not in kind else f"{{{{ ({kind}) | {filter} }}}}"
        yield f"{{{{ {kind} }}}}"
        yield f"{{{{ [{kind}] }}}}"
        yield f"{{% for x in {kind} %}}{{{{ x }}}},{{% else %}}E{{% endfor %}}"
        yield f"{{{{ 'T' if {kind} else 'F' }}}}{{{{ not {kind} }}}}"
        yield f"{{{{ -({kind}) }}}}"
        yield f"{{{{ {kind} ~ '|' }}}}"
        yield f"{{{{ '%s' % {kind} }}}}"
        yield f"{{{{ {{'k': {kind}}} | tojson }}}}"
    for kind in KINDS[:37]:
        for method in METHODS:
            yield f"{{{{ ({kind}).{method} }}}}"
        for subscript in SUBSCRIPTS:
            yield f"{{{{ ({kind}){subscript} }}}}"
    for operator in OPERATORS:
        for left in SHORT:
            for right in SHORT:
                yield f"{{{{ {left} {operator} {right} }}}}"


def templates(everything):
    for template in products():
        if everything or zlib.crc32(template.encode()) % 4 == 0:
            yield template
    for literal in LITERALS + EDGES:
        yield f"{{{{ {literal} }}}}"
    yield from STATEMENTS
    yield from EDGE_STATEMENTS
    for path in sorted(PUBLISHED):
        text = path.read_bytes().decode()
        yield text
        yield text.replace("\n", "\r\n")
    rng = random.Random(26)
    for _ in range(1500 if everything else 200):
        yield composed(rng)


def outcome(template, context):
    try:
        compiled = chat_template_utils._cached_compile_jinja_template(template)
        return compiled.render(**json.loads(json.dumps(context)))
    except Exception:
        return None


def uses_context(template):
    return any(word in template for word in ("messages", "tools", "documents", "thinking", "add_generation"))


def main():
    warnings.simplefilter("ignore", SyntaxWarning)
    everything = sys.argv[1:2] == ["--all"]
    seen, cases = set(), []
    for template in templates(everything):
        if template in seen:
            continue
        seen.add(template)
        contexts = CONTEXTS if uses_context(template) else CONTEXTS[:1]
        outcomes = [outcome(template, context) for context in contexts]
        # Objects without a text of their own print their address, which is no golden.
        if any(text is not None and " at 0x" in text for text in outcomes):
            outcomes = ["\0address" if text is not None and " at 0x" in text else text for text in outcomes]
        try:
            json.dumps([template, outcomes]).encode().decode("utf-8").encode("utf-8")
            "".join(text or "" for text in outcomes).encode()
        except UnicodeEncodeError:
            continue
        # Where all are alike one is stored.
        cases.append([template, *(outcomes[:1] if len(set(outcomes)) == 1 else outcomes)])
    lines = [json.dumps(case, ensure_ascii=False) for case in cases]
    contexts = ",\n".join(json.dumps(context, ensure_ascii=False) for context in CONTEXTS)
    text = f'{{"now": "{NOW}",\n"contexts": [\n{contexts}],\n"templates": [\n' + ",\n".join(lines) + "]}\n"
    if "--check" in sys.argv[1:]:
        sys.exit(0 if FIXTURE.read_text() == text else "tests/fixtures/templates.json is not what transformers gives")
    (pathlib.Path(sys.argv[2]) if everything else FIXTURE).write_text(text)
    print(f"{len(cases)} templates, {sum(len(case) - 1 for case in cases)} outcomes")


if __name__ == "__main__":
    main()
