#!/usr/bin/env python3
"""Writes jinja_cases.json: small templates and what Jinja2 makes of them, in the environment of Python transformers.

Needs jinja2 (3.1.6 made the file in the repository). Run it after adding a case: make_jinja_cases.py > jinja_cases.json
"""
import json
import sys

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


CONTEXT = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi é 🙂"},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]},
    ],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"b": [1, 2.5], "a": {"z": None}}}}],
    "text": "  line one\nline two\n\n  x  ",
    "numbers": [3, 1, 2],
    "floats": [1.0, 0.1, 1e16, 1e-5, 123456789.125, -0.0, 1e22, 2.5e-7],
    "big": 18446744073709551615,
    "items": {"k": "v", "items": 1},
    "empty": "",
    "yes": True,
    "nothing": None,
    "quotes": "it's \"quoted\" \\ \t\u0001",
    "words": ["b", "A", "c", "a"],
}

TEMPLATES = [
    # whitespace control
    "a\n  {% if yes %}\n b\n  {% endif %}\nc\n",
    "a\n  {%- if yes -%}\n b\n  {%- endif -%}\nc\n\n",
    "{{ 1 }}\n  {% if yes %}x{% endif %}\n  {{ 2 }}\n",
    "x {% if yes %}y{% endif %} z",
    "{%+ if yes %} a {%+ endif +%}\n b",
    "  {# comment #}\n a {#- c -#} b\n  {# d #} e",
    "a {{- 1 -}} b {{ 2 -}}\n\n c",
    "{% if yes -%}\n\n a {%- endif %}\n\nb",
    "\n\n{% set x = 1 %}\n\n{{ x }}\n\n",
    "{{ 'a' }}   {%- if yes %} b{% endif %}",
    "{% raw %}{{ x }} {% if %}{% endraw %}!",
    "  {%- raw -%}  {{ y }}  {%- endraw -%}  !",
    "{% raw %}\n  x\n  {% endraw %}\ny",
    "a\r\nb\r{{ 'c' }}\r\n",
    "{% for i in [1,2] %}\n  {{ i }}\n{% endfor %}\n",
    "{% for i in [1,2] -%}\n  {{ i }}\n{%- endfor %}\n",
    "\u00a0{%- if yes -%}\u3000a{% endif %}",
    "{{ yes }}\n   {# x #}\n   {% if yes %}\n   t\n   {% endif %}\n",
    # literals
    r"{{ 'a\n\t\\\'\"' }}|{{ '\x41\u00e9\101' }}|{{ '\q' }}",
    "{{ 'adjacent ' 'strings ' \"join\" }}",
    "{{ 1_000 + 2 }} {{ 1.5e2 }} {{ 2.0 }} {{ -3 }} {{ +4 }}",
    "{{ [1, 'a', true, none, 1.0, (1,), (), {'k': [2]}] }}",
    "{{ {'a': {'b': 1}}.a.b }}{{ {'a': {'b': 1}} }}",
    "{{ 1, 2 }}",
    "{{ True }} {{ False }} {{ None }} {{ true }} {{ none }}",
    "{{ quotes }}|{{ [quotes] }}|{{ [\"it's\"] }}|{{ ['\"'] }}",
    # operators
    "{{ 1 + 2 * 3 - 4 / 2 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ 2**3**2 }}",
    "{{ 'a' + 'b' ~ 1 ~ none ~ true }} {{ 'ab' * 3 }} {{ [1] + [2] }} {{ [1] * 2 }}",
    "{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 'a' < 'b' }} {{ 1 == 1.0 }} {{ true == 1 }} {{ 'a' != 'b' }} {{ 2 >= 2 }} {{ 1 <= 0 }}",
    "{{ 'a' in 'abc' }} {{ 'k' in items }} {{ 3 in numbers }} {{ 4 not in numbers }} {{ 'x' not in 'abc' }}",
    "{{ not yes }} {{ not yes and yes }} {{ nothing or 'd' }} {{ empty or 0 }} {{ 'a' and 'b' }} {{ not not 1 }}",
    "{{ 'a' if yes else 'b' }} {{ 'a' if not yes }}| {{ 'x' if nothing else 'y' if yes else 'z' }}",
    "{{ (1 + 2) * 3 }} {{ -numbers[0] }} {{ - 1 | abs }} {{ 5 - -3 }}",
    "{{ [1, 2] == [1, 2] }} {{ {'a': 1} == {'a': 1.0} }} {{ (1,) == [1] }} {{ none == undefined_name }}",
    "{{ undefined_name == other_name }} {{ undefined_name is defined }} {{ undefined_name }}|",
    "{{ 1 if 2 in [1, 2] and not 3 in [1] else 0 }}",
    "{{ 9007199254740993 }} {{ big }} {{ big - 1 }} {{ 10 / 4 }} {{ 1e3 // 7 }} {{ 7.5 % 2 }}",
    # access
    "{{ messages[0]['role'] }} {{ messages[0].role }} {{ messages[-1].content }} {{ messages[1]['content'][0] }}",
    "{{ messages[1].content[-1] }} {{ messages[1].content[3:4] }} {{ 'abcdef'[1:4] }} {{ 'abcdef'[::-1] }} {{ 'abc'[5] }}|",
    "{{ numbers[1:] }} {{ numbers[:-1] }} {{ numbers[::2] }} {{ numbers[9:] }} {{ numbers[-2:] }} {{ numbers[2:0:-1] }}",
    "{{ items['items'] }} {{ items.k }} {{ items.missing }}| {{ items['missing'] is defined }} {{ numbers[7] is defined }}",
    "{{ messages[2].tool_calls[0].function.arguments }} {{ messages.0.role }}",
    "{% for k, v in items.items() %}{{ k }}={{ v }};{% endfor %}{% for k in items %}{{ k }}{% endfor %}",
    "{{ true[1:] }}|{{ none[0] }}|{{ 5['x'] is defined }}",
    # statements
    "{% for m in messages %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.revindex }}{{ m.role }} {% endfor %}",
    "{% for m in messages if m.role != 'user' %}{{ loop.index }}/{{ loop.length }}{{ m.role }}{% else %}none{% endfor %}",
    "{% for x in [] %}a{% else %}empty{% endfor %}{% for x in undefined_name %}a{% else %}undef{% endfor %}",
    "{% for a in [1,2] %}{% for b in [3,4] %}{{ loop.index }}{{ a * b }}{% endfor %}{{ loop.index }}{% endfor %}",
    "{% for x in numbers %}{{ loop.previtem }}-{{ x }}-{{ loop.nextitem }} {% endfor %}",
    "{% for x in [1,2,3,4] %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 4 %}{% break %}{% endif %}{{ x }}{% endfor %}",
    "{% set x = 1 %}{% for i in [1,2] %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }}",
    "{% for i in [1,2,3] %}{{ y }}|{% set y = i %}{{ y }} {% endfor %}{{ y }}",
    "{% if yes %}{% set z = 5 %}{% endif %}{{ z }}",
    "{% set ns = namespace(n=0, s='') %}{% for i in numbers %}{% set ns.n = ns.n + i %}{% set ns.s = ns.s ~ i %}{% endfor %}{{ ns.n }}{{ ns.s }}{{ ns.x is defined }}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set c = (3, 4) %}{{ c[1] }}",
    "{% set block %}x{{ 1 + 1 }}y{% endset %}[{{ block }}]{{ block | length }}",
    "{% macro m(a, b='d') %}<{{ a }}{{ b }}>{% endmacro %}{{ m(1) }}{{ m(1, 2) }}{{ m(b=3, a=4) }}{{ m() }}",
    "{% macro m() %}{{ g }}{{ messages | length }}{% endmacro %}{% set g = 'G' %}{{ m() }}{% for l in [1] %}{{ m() }}{% endfor %}",
    "{% macro m() %}{{ loc }}{% endmacro %}{% for loc in [1] %}[{{ m() }}]{% endfor %}",
    "{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(3) }}",
    "{% macro m(x) %}{% set y = x ~ '!' %}{{ y }}{% endmacro %}{% set y = 'out' %}{{ m('a') }}{{ y }}{{ m('b') | upper }}",
    "{% if 0 %}a{% elif 1 %}b{% elif 2 %}c{% else %}d{% endif %}{% if none %}e{% else %}f{% endif %}",
    "{% for c in 'añ🙂' %}[{{ c }}]{% endfor %}",
    "{% for i in range(3) %}{{ i }}{% endfor %}{{ range(2, 8, 3) | list }}{{ range(3, 0, -1) | list }}",
    "{{ dict(a=1, b='x') }}",
    # tests
    "{{ 1 is number }} {{ 1 is integer }} {{ 1.5 is float }} {{ 'a' is string }} {{ true is boolean }} {{ true is number }} {{ true is integer }}",
    "{{ items is mapping }} {{ numbers is iterable }} {{ numbers is sequence }} {{ 'a' is iterable }} {{ 1 is iterable }} {{ none is none }} {{ items is iterable }}",
    "{{ yes is true }} {{ 1 is true }} {{ 3 is odd }} {{ 4 is even }} {{ 6 is divisibleby 3 }} {{ 6 is divisibleby(4) }}",
    "{{ 1 is eq 1 }} {{ 1 is ne 1 }} {{ 1 is lt 2 }} {{ 'a' is in 'abc' }} {{ 1 is not defined }} {{ x is undefined }} {{ not x is defined }}",
    "{{ 1 is defined and 'a' is string or false }} {{ range is callable }} {{ messages[0].content is not string }}",
    # filters
    "{{ tools | tojson }}|{{ tools[0] | tojson(indent=2) }}|{{ tools | tojson(separators=(',', ':')) }}|{{ tools | tojson(sort_keys=true) }}",
    "{{ messages[1].content | tojson }} {{ messages[1].content | tojson(ensure_ascii=true) }} {{ quotes | tojson }} {{ [] | tojson(indent=1) }} {{ {} | tojson }}",
    "{{ floats | tojson }} {{ floats }} {{ big | tojson }} {{ [true, none] | tojson }} {{ (1, 2) | tojson(indent=1) }}",
    "{{ text | trim }}|{{ text | length }}|{{ 'xxaxx' | trim('x') }}|{{ text | indent(2) }}|{{ text | indent(2, true, true) }}",
    "{{ numbers | sort }} {{ words | sort }} {{ words | sort(case_sensitive=true) }} {{ words | sort(reverse=true) }} {{ numbers | reverse | list }}",
    "{{ numbers | join(', ') }} {{ numbers | first }} {{ numbers | last }} {{ [] | first }}| {{ 'abc' | list }} {{ 'abc' | reverse }}",
    "{{ x | default('d') }} {{ empty | default('d') }}| {{ empty | default('d', true) }} {{ nothing | default('d') }} {{ x | d(3) }}",
    "{{ messages | map(attribute='role') | join(',') }} {{ messages | map(attribute='name', default='?') | list }} {{ words | map('upper') | list }}",
    "{{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ messages | rejectattr('content') | map(attribute='role') | list }} {{ numbers | select('odd') | list }} {{ numbers | reject('in', [1]) | list }}",
    "{{ 'aXa' | replace('a', 'b') }} {{ 'aaa' | replace('a', 'b', 2) }} {{ 'hello wORLD' | capitalize }} {{ 'hello wORLD' | title }} {{ 'Ab' | upper }}{{ 'Ab' | lower }}",
    "{{ items | items | list }} {{ items | dictsort }} {{ 3 | string + 'x' }} {{ '12' | int + 1 }} {{ 'x' | int(7) }} {{ '1.5' | float }} {{ 3.9 | int }} {{ -3 | abs }}",
    "{{ [1, 1, 2] | unique | list }} {{ 'a' | safe }} {{ numbers | count }} {{ 5 | string | length }} {{ items | length }}",
    "{{ messages | tojson | length > 10 }} {{ 'a' ~ 'b' | upper }} {{ ('a' ~ 'b') | upper }}",
    # methods
    "{{ 'a,b,c'.split(',') }} {{ 'a,b,c'.split(',', 1) }} {{ 'a,b,c'.rsplit(',', 1) }} {{ '  a  b '.split() }} {{ 'x'.split('</think>')[-1] }}",
    "{{ ' a '.strip() }}|{{ 'xay'.strip('xy') }}|{{ ' a '.lstrip() }}|{{ ' a '.rstrip() }}|{{ text.splitlines() }}",
    "{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith(('x', 'c')) }} {{ 'abc'.find('c') }} {{ 'éc'.find('c') }} {{ 'abcb'.rfind('b') }} {{ 'abab'.count('ab') }}",
    "{{ 'a-b'.replace('-', '+') }} {{ 'Ab'.upper() }} {{ 'Ab'.lower() }} {{ 'ab cd'.title() }} {{ ','.join(words) }} {{ 'prefix-x'.removeprefix('prefix-') }}",
    "{{ items.get('k') }} {{ items.get('q') }} {{ items.get('q', 'z') }} {{ items.keys() | list }} {{ items.values() | list }} {{ numbers.index(1) }} {{ numbers.count(3) }}",
    # errors
    "{{ undefined_name + 'a' }}",
    "{{ undefined_name.x }}",
    "{{ items.missing.x }}",
    "{{ 'x' in nothing }}",
    "{{ 1 + 'a' }}",
    "{{ 'a' + 1 }}",
    "{{ nothing + 'a' }}",
    "{{ 1 < 'a' }}",
    "{{ 1 / 0 }}",
    "{{ raise_exception('my own words: ' ~ 1) }}",
    "{{ undefined_name() }}",
    "{{ nothing() }}",
    "{{ numbers.append(1) }}",
    "{{ items.pop('k') }}",
    "{% set items.k = 1 %}",
    "{{ undefined_name | tojson }}",
    "{{ range(200000) | list | length }}",
    "{% for x in 5 %}{% endfor %}",
    "{% set a, b = [1] %}",
    "{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}",
    "{{ 5 | length }}",
    "{{ undefined_name['x'] }}",
    "{{ -undefined_name }}",
    "{{ undefined_name | int }}",
    # broken syntax
    "{% raw +%}{% endraw %}",
    "{% if 1 if yes else 0 %}{% endif %}",
    "{% if yes %}",
    "{% endif %}",
    "{{ 1 + }}",
    "{{ (1 }}",
    "{{ 'abc }}",
    "{% for x %}{% endfor %}",
    "{% unknown %}",
    "{{ 1 | nofilter }}",
    "{{ 1 is notest }}",
    "{# open",
    "{{ a b }}",
    "{% set %}",
    "{{ 1",
    "{% if %}{% endif %}",
    "{{ [1, 2 }}",
]


def main():
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols])
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    cases = []
    for source in TEMPLATES:
        case = {"template": source}
        try:
            case["expected"] = environment.from_string(source).render(**CONTEXT)
        except Exception as error:  # every kind is a kind of refusal
            case["error"] = f"{type(error).__name__}: {error}"
        cases.append(case)
    json.dump({"jinja2": jinja2.__version__, "context": CONTEXT, "cases": cases}, sys.stdout, ensure_ascii=False, indent=1)
    print()


if __name__ == "__main__":
    main()
