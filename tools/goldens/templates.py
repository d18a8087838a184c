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
    for literal in LITERALS:
        yield f"{{{{ {literal} }}}}"
    yield from STATEMENTS
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
