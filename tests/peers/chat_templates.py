#!/usr/bin/env python3
"""Chat templates beside transformers: every template and conversation below is rendered by both and must be equal.
usage: tests/peers/chat_templates.py [--write FILE]   BALORA=./balora   BALORA_SHARED=../shared
--write renews tests/unit/data/templates.jsonl (context, template, expected text) for the unit test.
SPDX-License-Identifier: Apache-2.0"""
import json, os, subprocess, sys, tempfile

try:
    import transformers
    from transformers.utils.chat_template_utils import _compile_jinja_template, render_jinja_template
except ImportError as e:
    print(f"skipped: {e}")
    sys.exit(0)

M = [{"role": "user", "content": "  Hi <b> & \"you\" 'there' é\n"}, {"role": "assistant", "content": "Hello!"},
     {"role": "user", "content": "x"}]
TOOL = {"type": "function", "function": {"name": "f", "description": "d \"q\" <x> é\n", "parameters": {
    "type": "object", "properties": {"a": {"type": "integer", "enum": [1, 2.5, None, True]}}, "required": ["a"]}}}
L = {"xs": [3, 1, 2], "ws": ["b", "A", "c"], "ds": [{"n": "p", "v": 2}, {"n": "q", "v": 1}, {"n": "r"}], "e": [], "s": "a,b,,c",
     "fl": 2.0, "big": 9007199254740993, "d": {"k": 1, "z": [1, "t'", {"u": None}], "b": True}, "none": None, "t": "Hello World foo-bar", "u": "ünï Straße İ"}

# (context, template): each feature of the subset, and the corners of white-space control.
CASES = [
    (M, "{% for m in messages %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{% if not loop.last %},{% endif %}{% endfor %}"),
    (M, "{% for m in messages if m.role == 'user' %}[{{ m.content | trim }}|{{ loop.length }}]{% else %}none{% endfor %}"),
    (M, "{% for m in e %}x{% else %}empty{% endfor %}"),
    (M, "  {% if true %}\n  a\n  {% endif %}\n  b\n"),
    (M, "a  {%- if true -%}  b  {%- endif -%}  c"),
    (M, "a\n   {%+ if true %}b{% endif +%}\nc"),
    (M, "x {# comment #}\n  y\n   {# c2 -#}  \n z"),
    (M, "{{ 1 }}\n{{ 2 }}\n\n{% set a = 1 %}\n{{ a }}\n"),
    (M, "   {{ 'kept' }}   {% if 1 %}  {% endif %}\n   {{- 'left' -}}   !"),
    (M, "{% raw %}{{ not }} {% if %}{% endraw %}\nz"),
    (M, "  {% raw %}\n a {% endraw %}\n b"),
    (M, "{%- raw -%}  a  {%- endraw -%}  b"),
    (M, "{% set x = 1 %}{% for i in [1,2] %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }}"),
    (M, "{% set ns = namespace(n=0, s='') %}{% for i in range(5) %}{% set ns.n = ns.n + i %}{% set ns.s = ns.s ~ i %}{% endfor %}{{ ns.n }} {{ ns.s }}"),
    (M, "{% set a, b = (1, 2) %}{{ a }}{{ b }}{% set b %}blk {{ a }}\n{% endset %}[{{ b }}]{% set c | upper | trim %} q {% endset %}[{{ c }}]"),
    (M, "{% macro f(a, b='d', c=none) %}<{{ a }}|{{ b }}|{{ c is none }}>{% endmacro %}{{ f(1) }}{{ f(1, 2) }}{{ f(c=3, a='x') }}{{ f() }}"),
    (M, "{% macro rec(n) %}{{ n }}{% if n > 0 %}{{ rec(n - 1) }}{% endif %}{% endmacro %}{{ rec(4) }}"),
    (M, "{% macro w() %}[{{ caller() }}|{{ varargs }}|{{ kwargs }}]{% endmacro %}{% call w(1, k=2) %}in{% endcall %}"),
    (M, "{% macro row(xs) %}{% for x in xs %}{{ caller(x) }};{% endfor %}{% endmacro %}{% call(v) row([1,2]) %}<{{ v }}>{% endcall %}"),
    (M, "{% for i in range(10) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}"),
    (M, "{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a is defined }}"),
    (M, "{% filter upper | replace('B', 'x') %}abc{% endfilter %}"),
    (M, "{{ messages[0]['role'] }}{{ messages[-1].content }}{{ messages[::-1][0].content }}{{ messages[1:]|length }}{{ messages[:-1]|length }}{{ 'abcdef'[1:5:2] }}{{ 'abc'[::-1] }}{{ 'abc'[-2:] }}"),
    (M, "{{ 1 + 2 * 3 - 4 / 2 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 2 ** 10 }} {{ 7 / 2 }} {{ 1e3 }} {{ 1.5e-7 }} {{ 10 / 5 }} {{ 3 * 'ab' }} {{ [1] * 2 }} {{ 1_000 }}"),
    (M, "{{ 'a' ~ 1 ~ none ~ true ~ 1.0 ~ [1, 'x'] }}"),
    (M, "{{ 1 < 2 < 3 }} {{ 1 == 1.0 }} {{ 'a' < 'b' }} {{ [1, 2] < [1, 3] }} {{ not 1 == 2 }} {{ 1 != 2 and 2 > 1 or false }} {{ none or 'x' }} {{ 0 and 1 }}"),
    (M, "{{ 'a' in 'cat' }} {{ 'k' in d }} {{ 3 in xs }} {{ 9 not in xs }} {{ not 'z' in 'abc' }}"),
    (M, "{{ 'y' if xs else 'n' }}{{ 'q' if false }}|{{ ('a' if 0 else 'b') + 'c' }}"),
    (M, "{{ x is defined }}{{ xs is defined }}{{ x is undefined }}{{ none is none }}{{ 1 is number }}{{ 1.5 is float }}{{ 'a' is string }}{{ d is mapping }}{{ xs is iterable }}{{ xs is sequence }}{{ 'a' is sequence }}{{ true is boolean }}{{ 3 is odd }}{{ 3 is even }}{{ 9 is divisibleby 3 }}{{ 2 is eq 2 }}{{ 2 is in [1,2] }}{{ true is true }}{{ 1 is true }}{{ d is not mapping }}{{ f is callable }}{{ range is callable }}{{ 'AB' is upper }}{{ 3 is gt 2 }}{{ 1 is integer }}{{ true is integer }}{{ x is none }}"),
    (M, "{{ x }}|{{ x | default('dd') }}|{{ '' | default('e', true) }}|{{ none | default('n') }}|{{ x | length }}|{{ x ~ 'a' }}|{% for i in x %}{% endfor %}|{{ d.missing }}|{{ d['nope'] is defined }}|{{ none.foo is defined }}"),
    (M, "{{ xs | sort }}{{ xs | sort(reverse=true) }}{{ ws | sort }}{{ ws | sort(case_sensitive=true) }}{{ ds | map(attribute='n') | join('+') }}{{ ds | selectattr('v') | map(attribute='v') | list }}{{ ds | selectattr('v', 'equalto', 1) | list }}{{ ds | rejectattr('v', 'defined') | list }}{{ ds | sort(attribute='n', reverse=True) | map(attribute='n') | join }}"),
    (M, "{{ xs | first }}{{ xs | last }}{{ xs | length }}{{ xs | sum }}{{ xs | max }}{{ xs | min }}{{ xs | reverse | list }}{{ 'abc' | reverse }}{{ xs | join(', ') }}{{ 'abc' | list }}{{ d | list }}{{ ws | map('upper') | list }}{{ xs | select('odd') | list }}{{ xs | reject('gt', 1) | list }}{{ [1,1,2] | unique | list }}{{ e | first is defined }}{{ ['a', 'A'] | unique | list }}"),
    (M, "{{ 'aBc' | upper }}{{ 'aBc' | lower }}{{ 'hello world-x (y' | title }}{{ 'aBC d' | capitalize }}{{ '  x ' | trim }}|{{ 'xxaxx' | trim('x') }}|{{ 'aaa' | replace('a', 'b', 2) }}{{ '3' | int + 1 }}{{ 'q' | int(7) }}{{ '2.5' | float }}{{ 3.7 | int }}{{ -3 | abs }}{{ 2.567 | round(1) }}{{ 2.5 | round }}{{ 3 | string + 'x' }}{{ '<a&\"\\'>' | e }}{{ 'x' | safe }}{{ 'a b  c' | wordcount }}"),
    (M, "{{ 'l1\\nl2\\n\\nl3' | indent(2) }}|{{ 'l1\\nl2' | indent(3, true) }}|{{ 'a\\n\\nb' | indent(2, blank=true) }}|{{ 'a\\nb' | indent('> ') }}"),
    (M, "{{ 'a fairly long text that is cut' | truncate(12) }}|{{ 'a fairly long text' | truncate(9, true, '~') }}|{{ 'x' | center(5) }}|{{ [1,2,3] | batch(2) | list }}|{{ [1,2,3] | batch(2, 0) | list }}|{{ '%s-%d' | format('a', 3) }}|{{ '%05.2f|%-4s|%x' % (3.14159, 'a', 255) }}"),
    (M, "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{% for k, v in d | items %}{{ k }}{% endfor %}{% for k, v in d | dictsort %}{{ k }}{% endfor %}{{ d.keys() | list }}{{ d.get('k') }}{{ d.get('q', 5) }}{{ d.get('q') }}{{ d.values() | list }}"),
    (M, "{{ s.split(',') }}{{ ' a  b '.split() }}{{ 'a b c'.split(' ', 1) }}{{ 'a.b.c'.rsplit('.', 1) }}{{ ' a b  c '.rsplit(None, 1) }}{{ 'a\\nb\\r\\nc'.splitlines() }}{{ ' a  b c '.split(None, 1) }}{{ ''.split() }}{{ ''.split(',') }}"),
    (M, "{{ '  x '.strip() }}|{{ 'xxyx'.lstrip('x') }}|{{ 'yx\\n'.rstrip('\\n') }}|{{ 'abc'.startswith('ab') }}{{ 'abc'.endswith(('z', 'bc')) }}{{ 'aXb'.lower() }}{{ 'ab'.upper() }}{{ t.title() }}{{ t.swapcase() }}{{ 'aab'.replace('a', 'x') }}{{ 'aab'.replace('a', 'x', 1) }}{{ 'abcabc'.find('c') }}{{ 'abcabc'.rfind('c') }}{{ 'aaa'.count('a') }}{{ ','.join(['a', 'b']) }}{{ '12'.isdigit() }}{{ 'a'.isalpha() }}{{ '7'.zfill(3) }}{{ 'x'.ljust(3) }}|{{ 'abc'.removeprefix('a') }}{{ 'abc'.removesuffix('c') }}{{ 'a=b=c'.partition('=') }}{{ 'a=b=c'.rpartition('=') }}{{ '{} {} {n}'.format('p', 'q', n=2) }}{{ 'aB'.capitalize() }}"),
    (M, "{{ u | upper }}{{ u | lower }}{{ u | length }}{{ u[1] }}{{ u[1:3] }}{{ u.find('S') }}"),
    (M, "{{ d | tojson }}|{{ d | tojson(indent=2) }}|{{ 'é<\\\"\\n' | tojson }}|{{ 'é' | tojson(ensure_ascii=true) }}|{{ [] | tojson(indent=4) }}|{{ {} | tojson(indent=4) }}|{{ [1.0, 2] | tojson(separators=(',', ':')) }}|{{ {'b': 1, 'a': 2} | tojson(sort_keys=true) }}|{{ none | tojson }}|{{ true | tojson }}"),
    (M, "{{ d }}{{ xs }}{{ (1,) }}{{ () }}{{ (1, 2) }}{{ {'a': 'it\\'s', \"b\": '\"'} }}{{ ['\\n\\t\\\\', 'é'] }}{{ {} }}{{ 1.0 }}{{ 1e16 }}{{ 1e15 }}{{ 0.1 }}{{ 0.00001 }}{{ 123456789.123 }}{{ none }}{{ true }}"),
    (M, "{{ 'a' 'b' \"c\\u00e9\\x41\\101\" }}{{ 'q\\\\n' }}{{ '\\d' }}"),
    (M, "{{ ((1, 2), [3, {'a': 4}])[1][1].a }}{{ {'x': {'y': 5}}.x.y }}{{ xs[0] + xs[-1] }}{{ xs.0 }}"),
    (M, "{{ loop is defined }}{% for i in [1,2,3] %}{{ loop.cycle('a', 'b') }}{{ loop.changed(i // 2) }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.depth }}{% for j in [1] %}{{ loop.index }}{% endfor %}{% endfor %}"),
    (M, "{% if x %}a{% elif none %}b{% elif xs | length > 2 and ws %}c{% else %}d{% endif %}{% if not x %}n{% endif %}"),
    (M, "{% set content = 'a</think>\\n\\nb' %}{{ content.split('</think>')[-1].lstrip('\\n') }}{{ content.split('</think>')[0].rstrip('\\n') }}"),
    (M, "{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | map('trim') | join(' / ') }}{{ messages | map(attribute='role') | list | unique | list }}{{ (messages | last).content }}"),
    (M, "{{- 'a' }}\n{%- set q = {'a': [1, 2], 'b': dict(x=1)} %}\n{{- q.a | last }}{{ q['b'].x }}\n\n{%- if q %}\n\n yes\n{%- endif %}\n"),
    (M, "{% for m in messages %}{% set outer = loop %}{% for c in 'ab' %}{{ outer.index }}{{ c }}{% endfor %}{% endfor %}"),
    (M, "{% for a, b in [(1, 2), (3, 4)] %}{{ a * b }}{% if loop.last %}!{% endif %} {% endfor %}{% for k in d %}{{ k }}{% endfor %}"),
    (M, "{{ -1 | abs }}{{ -xs[0] }}{{ +1 }}{{ 2 - -1 }}{{ not true }}{{ not not 1 }}{{ 'a' if not x is defined else 'b' }}{{ x is not defined and 1 }}"),
    (M, "{{ ds | groupby('n') | map('first') | list }}{{ ds | sum(attribute='v') if false else 'z' }}{{ [['a', 1], ['b', 2]] | map('last') | list }}{{ ds | map(attribute='v', default='-') | join(',') }}"),
    (M, "{% macro out(x) -%}\n  {{ x }}\n{%- endmacro %}\n{{ out('a') }}{{ out('b') }}\n{% set z = out('c') | trim %}{{ z }}"),
    (M, "{%- for m in messages -%}\n  {%- if m.role == 'user' -%}\n    {{ m.content | trim }}\n  {%- endif -%}\n{%- endfor -%}"),
    (M, "{% generation %}abc{% endgeneration %}-{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% endif %}{% endfor %}"),
    (M, "\r\n{{ 1 }}\r\n{% if true %}\r\nx\r\n{% endif %}\r\n"),
    (M, "{{ 5 is divisibleby(5) }}{{ 'x' is sameas 'x' }}{{ none is sameas none }}{{ [] is sequence }}{{ {} is iterable }}{{ 1 is iterable }}{{ xs | select is iterable }}{{ 'filter' is filter }}{{ 'upper' is filter }}"),
    (M, "{{ 3 > 2 > 1 }}{{ '1' == 1 }}{{ true == 1 }}{{ none == false }}{{ [] == () }}{{ {'a': 1} == {'a': 1.0} }}{{ x == y }}{{ '' == none }}"),
    (M, "{{ range(3) | list }}{{ range(1, 7, 2) | list }}{{ range(5, 0, -2) | list }}{{ range(0) | list }}{{ range(3)[1] }}"),
    (M, "{% if tools is defined and tools %}{{ tools | length }}{% endif %}{% if tools is not none %}T{% endif %}"),
    (M, "{{ 'a' + 'b' if true else 'c' }}{{ ['a', 'b'][1] | upper ~ 'x' }}{{ 'x' * 3 ~ 'y' }}{{ (1 + 2) ~ 3 }}{{ 10 - 2 - 3 }}{{ 2 ** 3 ** 2 }}{{ 8 / 2 / 2 }}"),
    (M, "{{ 'abc' | first }}{{ 'abc' | last }}{{ 'a,b' | replace(',', '\\n') }}{{ '' | first is defined }}{{ xs | map('string') | join }}"),
    (M, "{# multi\nline #}a{#- x -#}  b\n{#\n#}\nc"),
    (M, "{% set a = messages | length %}{{ a }}{% set messages = messages[1:] %}{{ messages | length }}{{ messages[0].role }}"),
    (M, "{{ fl }} {{ big }} {{ fl | tojson }} {{ [fl, 1.0, 1] | tojson }}{{ {'b': 1, 'B': 2, 'a': 3} | tojson(sort_keys=true) }}"),
    (M, "{% set g = ws | map('upper') %}{{ g | first }}{{ g | list }}{{ g | list }}{% set v = d.items() %}{% for a in v %}{{ a[0] }}{% endfor %}{{ v | list | length }}{{ v | length }}{{ d.keys()[0] is defined }}{{ 'k' in d.keys() }}{{ d.keys() is sequence }}{{ range(3) is sequence }}{{ range(5)[1:3] | list }}"),
    (M, "{% for g in [{'n': 'b'}, {'n': 'B'}, {'n': 'a'}] | groupby('n') %}{{ g.grouper }}{{ g.list | length }}{{ g[0] }};{% endfor %}{{ [{'n': 'b'}, {'n': 'B'}] | groupby('n', case_sensitive=true) | length }}{{ [{'a': 1, 'b': 2}, {'a': 1, 'b': 1}] | sort(attribute='a,b') | map(attribute='b') | list }}{{ ds | sort(attribute='nope') | length }}"),
    (M, "{% for i in [1] %}{% continue %}{% else %}E{% endfor %}{% for i in [1, 2] %}{% if i == 2 %}{% break %}{% endif %}{% else %}F{% endfor %}{% for i in [1] %}{% break %}{% else %}G{% endfor %}"),
    (M, "{{ 'a-b c_d' | wordcount }}{{ 'a/b c-d' | title }}{{ 'a\\r\\nb\\x0bc\\n' | indent(2) }}|{{ '' | indent(2, true) }}|{{ 'é\\u2028x' | indent(1, blank=true) }}"),
    (M, "{{ '%5s|%.1s|%05.3d|%#o|%-5d|%+d|% d|%x|%5.1f|%g|%e' % ('é', 'éa', 5, 8, 3, 3, 3, 255, 2.25, 1e-5, 12.5) }}{{ '%s' % x }}{{ 'abc' % d }}{{ 'abc' % [1] }}{{ '%d' % 2.9 }}{{ '%s' % (xs,) }}"),
    (M, "{{ 'ΟΔΟΣ ΣΑΣ Σ ΑΣ.' | lower }}{{ 'ŉ ﬁ ΐ ß' | upper }}{{ 'ǆ ﬁX 你A' | capitalize }}{{ 'ﬁx' | capitalize }}{{ '你a 1b ǆ'.title() }}{{ 'Straße ΣΣ'.casefold() }}{{ 'ªº'.islower() }}{{ 'Ⅷ'.isupper() }}{{ 'ǅ'.isupper() }}{{ '①'.isdigit() }}{{ '一'.isnumeric() }}{{ 'aΣ ß'.swapcase() }}{{ 'ﬁx (ﬁx' | title }}"),
    (M, "{{ '<' + ('b' | safe) }}{{ ('<' | e) + '<' }}{{ '<' | e | e }}{{ ['a' | safe] }}{{ ('x' | safe) is escaped }}{{ '<' ~ ('b' | safe) }}{{ (('a' | safe) | upper) + '&' }}{{ (' a' | safe).strip() + '&' }}{{ ('a' | safe)[0] + '&' }}{{ ('a,b' | safe).split(',')[1] + '&' }}{{ '<' | forceescape | forceescape }}"),
    (M, "{{ 1.0 // 0.1 }}{{ -7.5 // 2.5 }}{{ 3.5 is odd }}{{ 3.5 is even }}{{ -3 is odd }}{{ 'inf' | float }}{{ '1_0' | int }}{{ 'x' | int('d') }}{{ true | round }}{{ 3 * true }}{{ 'a' * true }}"),
    (M, "{{ '{:>5}|{:05d}|{:.2f}|{:,}|{:*^7}|{:x}|{:#b}|{:+}|{:%}|{:e}'.format('é', 42, 1.5, 1234567, 'x', 255, 5, 3, 0.5, 12345.678) }}{{ '{{}}{n}{0}'.format(1, n=2) }}"),
    (M, "{{ strftime_now('%z%Z') }}|{{ 'Hello'.center(9, '*') }}{{ 'abab'.rindex('b') }}{{ 'é'.isascii() }}{{ ''.isascii() }}{{ '%' ~ 'é'[0:1] }}{{ 'héllo'[1:3] }}{{ 'héllo'[-2:] }}{{ 'héllo'[9:] }}{{ 'é' | first }}"),
    (M, "{% macro f(a, b=2) %}{{ a }}{{ b }}{% endmacro %}{% macro g() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1, b=3) }}{{ g(1, 2, x=3) }}{% macro h(caller=none) %}{{ caller is none }}{% endmacro %}{{ h() }}{% call h() %}c{% endcall %}"),
    (M, "{% for a, b in [['x', 1], ['y', 2]] if b > 0 %}{{ loop.nextitem }}{{ loop.previtem }}{% endfor %}{% generation %}{{ varargs }}{{ kwargs }}{{ caller is defined }}{% endgeneration %}"),
]
ERRORS = ["{% if %}", "{{ 1 + }}", "{% for x in y %}", "{{ a.b.c }}", "{{ raise_exception('No!') }}", "{{ 'a' + 1 }}", "{{ xs.append(1) }}", "{{ xs | nosuch }}",
          "{{ 1 / 0 }}", "{% endfor %}", "{{ d | tojson(indent=x.y) }}", "{{ 'a' | int.b }}", "{{ [1, 2 }}", "{{ 'abc }}", "{% set q %}", "{{ x() }}", "{{ range(10 ** 9) }}", "{% set d.k = 1 %}", "{{ 1 < 'a' }}", "{{ 'x' in 3 }}", "{{ none | length }}", "{{ 'a' in x.y }}", "{% include 'f' %}", "{% break %}", "{{ x is nosuchtest }}", "{{ x | int }}", "{% macro f(a) %}{% endmacro %}{{ f(1, 2) }}", "{% macro f(a) %}{% endmacro %}{{ f(b=1) }}", "{% macro f(a) %}{% endmacro %}{{ f(1, a=1) }}", "{% macro f(a) %}{% endmacro %}{% call f(1) %}{% endcall %}", "{% macro f(a=1, b) %}{% endmacro %}",
          "{{ x is defined(1) }}", "{{ x is defined is true }}", "{{ 1 is defined if x }}", "{{ xs | join(',', foo=1) }}", "{{ 'a' | upper(1) }}", "{% set true = 1 %}", "{% for loop in xs %}{% endfor %}", "{{ 'a'.startswith(['a']) }}", "{{ '}'.format(1) }}", "{{ '{} {0}'.format(1) }}", "{{ d.get('a', default=2) }}",
          "{{ ws | map('upper') | last }}", "{{ d.keys() + ['a'] }}", "{{ d.keys() | tojson }}", "{{ range(3) + [1] }}", "{% raw +%}{% endraw %}", "{{ namespace(_x=1).y }}", "{{ [1] in {} }}", "{{ (1,) < [1] }}", "{{ d | dictsort(by='q') }}", "{{ 2.5 | round(1, 'up') }}", "{{ 'a'.ljust(3, '**') }}", "{{ dict([], []) }}",
          "{% for i in xs %}{% generation %}{% break %}{% endgeneration %}{% endfor %}", "{{ x[:2] }}", "{{ d[:1] }}", "{{ s['a':] }}", "{{ xs[::0] }}", "{{ '%x' % 1.5 }}", "{{ 5 | indent }}", "{{ x | dictsort }}", "{{ range(3, stop=4) }}", "{{ 'a'.removeprefix(1) }}", "{{ f(a=1, a=2) }}",
          "{{ x | float(1) }}", "{{ '\\N{NOWHERE}' }}"]

# Small expressions of all of Jinja: equal, or refused here; never another text.
EXPRESSIONS = [
    "{{ 7 // -2 }} {{ -7 // 2 }} {{ 7 % -3 }} {{ -7 % -3 }} {{ 7.5 // 2 }} {{ -7.5 % 2 }} {{ 2 ** -1 }} {{ 2 ** 0.5 }} {{ -2 ** 2 }} {{ 1 / 3 }} {{ 6 / 3 }} {{ 0.0 * -1 }}",
    "{{ 1.0 }} {{ 1e100 }} {{ 1e-5 }} {{ 1.5e300 * 1e10 }} {{ 123456789012345678 }} {{ 1e22 }} {{ 1e21 }} {{ 3.0 * 2 }} {{ 0.1 + 0.2 }} {{ 5e-324 }} {{ 100000000000000000.0 }}",
    "{{ 9007199254740993 * 2 }} {{ 2 ** 40 }} {{ 10 ** 18 }} {{ 7 | float }} {{ '1e3' | float }} {{ '0x1f' | int(0, 16) }} {{ '12abc' | int(-1) }} {{ ' 42 ' | int }} {{ 3.99 | int }} {{ -3.5 | round }} {{ 2.675 | round(2) }} {{ 42 | round(-1) }} {{ 2.1 | round(0, 'ceil') }} {{ 2.9 | round(0, 'floor') }}",
    "{{ 1 < 2 > 1 }} {{ 1 < 3 < 2 }} {{ 1 == 1 == 1 }} {{ 'b' in 'abc' == true }} {{ 3 in [1,2] or 'x' }} {{ not 1 in [1] }} {{ 1 is odd and 2 is even }}",
    "{{ 'abc'[5:] }}|{{ 'abc'[-10:2] }}|{{ [1,2,3,4][::2] }}|{{ [1,2,3][-1:0:-1] }}|{{ (1,2,3)[1:] }}|{{ 'héé'[1:] }}|{{ [1,2,3][:-5] }}|{{ 'abc'[::-2] }}",
    "{% for x in [1,[2,[3]]] recursive %}{{ x if x is number else loop(x) }}{% endfor %}",
    "{% for x in [{'n':1,'c':[{'n':2,'c':[]}]}] recursive %}{{ loop.depth }}:{{ x.n }}({{ loop(x.c) }}){% else %}-{% endfor %}",
    "{% for i in range(3) %}{% for j in range(3) %}{% if j == 1 %}{% continue %}{% endif %}{% if i == 1 %}{% break %}{% endif %}{{ i }}{{ j }} {% endfor %}{% endfor %}",
    "{% for i in [] %}{% else %}none{% endfor %}{% for i in [1] %}x{% else %}none{% endfor %}{% for k, v in {'a': 1, 'b': 2}.items() %}{{ loop.index }}{{ k }}{{ v }}{% endfor %}",
    "{% macro f(a, b=2, *args) %}{% endmacro %}",
    "{% macro f(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ f(1) }}{{ f(1, 3) }}{{ f(b=5, a=4) }}",
    "{% macro f(x='q') %}{{ x }}{{ caller is defined }}{{ varargs | length }}{% endmacro %}{{ f() }}{{ f(1, 2, 3) }}",
    "{{ {'a': 1}.get('b', 'z') }}{{ {'a': 1}.keys() | list }}{{ {'a': 1, 'b': 2}.items() | list }}{{ {'a': 1} | length }}{{ {'b': 1, 'a': 2} | dictsort }}{{ {'b': 1, 'a': 2} | dictsort(by='value', reverse=true) }}",
    "{{ {'a': {'b': [1, 2.5, none, true, 'x\"y']}} | tojson }}|{{ {'a': 'é😀'} | tojson }}|{{ 'é😀' | tojson(ensure_ascii=True) }}|{{ [1, {'a': []}] | tojson(indent=1) }}|{{ '</script>&' | tojson }}|{{ 1e22 | tojson }}|{{ 1.0 | tojson }}|{{ {1: 2} | tojson }}|{{ 'a\u2028b\x7f\t' | tojson }}",
    "{{ 'x' | tojson(indent=0) }}|{{ [1, 2] | tojson(indent=0) }}|{{ {'a': 1} | tojson(separators=(', ', '=')) }}|{{ {'b': [], 'a': {}} | tojson(indent=2, sort_keys=true) }}",
    "{{ 'a,b,c'.split(',', 1) }}{{ 'a b'.split() | last }}{{ 'Hello'.center(9, '*') }}{{ 'a-b'.partition('-') }}{{ 'abc'.index('c') }}{{ 'ABC'.casefold() }}{{ 'abc'.encode is defined }}{{ 'a\tb'.expandtabs(4) }}{{ '1a'.isalnum() }}{{ 'a b'.istitle() }}{{ '  '.isspace() }}{{ 'Ab'.isupper() }}",
    "{{ missing }}|{{ missing.a is defined }}|{{ missing | default('d') }}|{{ missing or 'o' }}|{{ missing == none }}|{{ missing is none }}|{{ not missing }}|{{ missing | list }}|{{ missing | join(',') }}|{{ missing ~ 'x' }}|{{ [missing] }}",
    "{{ missing + 'x' }}", "{{ missing.a.b }}", "{{ missing() }}", "{{ missing['a']['b'] }}", "{{ none.a }}|{{ 1 .a }}|{{ 'x'.nope }}", "{{ none['a'] }}", "{{ [][0] }}|{{ {}['x'] }}|{{ [1][5] }}", "{{ missing < 1 }}", "{{ missing | int }}", "{{ -missing }}", "{{ 5 in missing }}", "{{ missing | upper }}|{{ missing | trim }}|{{ missing | string }}",
    "{% import 'x' as y %}", "{% from 'x' import y %}", "{% include 'x' ignore missing %}", "{% extends 'x' %}", "{% block a %}x{% endblock %}", "{% do xs %}", "{% trans %}x{% endtrans %}", "{% autoescape true %}{{ '<' }}{% endautoescape %}", "{% debug %}",
    "{% set x = namespace(a=1) %}{% set x.b = 2 %}{{ x.a }}{{ x.b }}{{ x.c is defined }}{% if true %}{% set x.a = 5 %}{% endif %}{{ x.a }}", "{% set x = {'a': 1} %}{% set x.a = 2 %}", "{% set x %}a{% endset %}{{ x ~ x }}{{ x is string }}",
    "{% if true %}{% set v = 1 %}{% endif %}{{ v }}{% for i in [1] %}{% set v = 2 %}{% endfor %}{{ v }}{% with %}{% set v = 3 %}{% endwith %}{{ v }}",
    "{{ [3,1,2] | sort | first }}{{ ['b','A'] | sort | join }}{{ [1,2,3,4] | slice(3) | list }}{{ [1,2,3] | batch(2, 'x') | list }}{{ 'abc' | reverse }}{{ [[1,2],[3]] | sum(start=[]) }}{{ [1,2,3] | random is number }}{{ 'a b' | urlencode }}{{ 1234567 | filesizeformat }}{{ 'x' | attr('nope') is defined }}{{ '<b>x</b>' | striptags }}{{ 'foo bar baz' | wordwrap(7) }}{{ {'a':1} | xmlattr }}{{ [1,2] | pprint }}",
    "{{ 'a' ~ 'b' * 2 }}{{ 'a' + 'b' ~ 'c' }}{{ 1 ~ 2 + 3 }}{{ 2 * 3 ~ 4 }}{{ 'x' if 1 > 2 else 'y' if 0 else 'z' }}{{ (1 if false) is defined }}{{ [1 if true else 2, 3] }}",
    "{%- if 1 %}  a  {%- else -%} b {%- endif -%}  c\n\n  {%- set a = 1 -%}\n d {{- a -}} \n e\n{% if 1 -%}\n  f\n{%- endif %}\n  g  {% raw -%}  h  {%- endraw %}  i",
    "\n\n{{ 1 }}\n\n\n{% if 1 %}\n\n x\n\n{% endif %}\n\ny\n", "a{#- c -#}\n b {##} c\n{# x #}\n d", "{{ '{{' }}{{ '%}' }}{{ \"{#\" }}{% set a = '%}' %}{{ a }}", "{{ 'a\\'b' }}{{ \"a\\\"b\" }}{{ 'a\\nb\\tc\\\\d' }}{{ '\\u00e9\\x41' }}{{ '\\N{BULLET}' }}",
    "{{ true and 'x' }}{{ 0 or none or [] }}{{ not [] }}{{ none is defined }}{{ True }}{{ None }}{{ False }}{{ 1 is sameas 1 }}{{ 'a' is in 'abc' }}{{ 1 is ne 2 }}{{ 2 is ge 2 }}{{ 1 is lessthan 2 }}{{ [] is sequence }}{{ 'a' is escaped }}{{ 'x' is lower }}{{ {} is mapping }}",
    "{{ strftime_now('%Y') | length }}{{ strftime_now('%d %b %Y') | length }}", "{{ range(3) }}{{ range(2, 8, 3) | list }}{{ dict(a=1, b=2) }}{{ lipsum is defined }}{{ cycler('a', 'b').next() }}{{ joiner(',')() }}|", "{% set j = joiner(', ') %}{% for i in [1,2] %}{{ j() }}{{ i }}{% endfor %}", "{% set c = cycler('a','b') %}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.next() }}",
    "{{ 'abc' | replace('b', '') | upper | first }}{{ 'x=%d' % 3 }}{{ '%s and %s' % ('a', 'b') }}{{ '%r' % 'a' }}{{ '%5.1f|' % 2.25 }}{{ '{:>5}|{:05d}|{:.2f}'.format('a', 42, 1.5) }}{{ '{0}{1}{0}'.format('a', 'b') }}",
    "{% filter trim | upper %}  a {{ 1 }} {% endfilter %}{% call f() %}{% endcall %}", "{% generation %}a{% if 1 %}b{% endif %}{% endgeneration %}c{%- generation -%} d {%- endgeneration -%} e", "{{ messages | map(attribute='role') | unique | join(',') }}{{ messages | groupby('role') | map('first') | list }}{{ messages | selectattr('role', 'in', ['user']) | list | length }}{{ messages | rejectattr('role', 'eq', 'user') | map(attribute='content') | join }}{{ xs | map('multiply', 2) | list }}",
    "{{ 'a' < 1 }}", "{{ {} < {} }}", "{{ [1] + (2,) }}", "{{ 1 // 0 }}", "{{ 1 % 0 }}", "{{ 2 ** 10000 }}", "{{ 'a' * -1 }}|{{ [1] * 0 }}", "{{ 'a' - 'b' }}", "{{ +'a' }}", "{{ [1, 2,] }}{{ (1,) }}{{ {'a': 1,} }}{{ [] }}", "{{ 'ab' in ['ab'] }}{{ 'k' not in d }}{{ none in [none] }}{{ 1 in {1: 2} }}", "{{ xs.pop() }}", "{{ d.update({'a': 1}) }}", "{{ d.pop('k') }}", "{{ messages.__class__ }}", "{{ ''.__class__.__mro__ }}", "{{ xs | attr('append') }}", "{{ x.y.z | default('q') }}", "{{ x['y'] | default('q') }}",
    "{% for a in xs if a > 1 %}{{ loop.index }}{{ a }}{{ loop.last }}{% endfor %}{% for a in xs if a > 9 %}{% else %}E{% endfor %}", "{% for i in range(3) %}{{ loop.cycle('x','y') }}{{ loop.revindex0 }}{{ loop.nextitem is defined }}{{ loop.previtem | default('-') }}{% endfor %}", "{% for c in 'héy' %}{{ c }},{% endfor %}{% for c in d %}{{ c }}{% endfor %}", "{% for a, b in xs %}{% endfor %}", "{% for i in 5 %}{% endfor %}", "{% for i in none %}{% endfor %}",
]

def context(case):
    return {"messages": case, "add_generation_prompt": False, "tools": None, **L}


def main():
    balora, shared = os.environ.get("BALORA", "./balora"), os.environ.get("BALORA_SHARED", "../shared")
    write = sys.argv[2] if len(sys.argv) > 2 and sys.argv[1] == "--write" else None
    rows, bad, n = [], 0, 0
    for case, template in CASES:
        try:
            rows.append({"context": context(case), "template": template,
                         "text": _compile_jinja_template(template).render(**context(case))})
        except Exception as e:
            print("transformers refuses", template, repr(e))
            bad += 1
    for template in ERRORS:
        try:
            text = _compile_jinja_template(template).render(**context(M))
            print("no error in transformers:", template, repr(text))
            bad += 1
        except Exception:
            rows.append({"context": context(M), "template": template, "text": None})
    if write:
        with open(write, "w", encoding="utf-8") as f:
            first = json.dumps(context(M), ensure_ascii=False)
            f.write(first + "\n")
            for r in rows:
                f.write(json.dumps({"template": r["template"], "text": r["text"]}, ensure_ascii=False) + "\n")
        print(f"wrote {len(rows)} templates to {write}")
    folder = f"{shared}/tokenizers/llama2"
    if not os.path.isdir(folder):
        print("skipped: the shared tokenizers are not there")
        return bad
    smol = f"{shared}/models/SmolLM2-135M-Instruct-GGUF/SmolLM2-135M-Instruct.Q4_1.gguf"
    for r in rows:
        n += 1
        extra = {k: v for k, v in r["context"].items() if k not in ("messages", "tools")}
        got = run(balora, folder, [{"messages": M, "chat_template_kwargs": extra}], r["template"])
        if got != ([r["text"]] if r["text"] is not None else None):
            bad += 1
            print("DIFFERENT", r["template"], "\n  want", repr(r["text"]), "\n  got ", got)
    refused = 0
    for template in EXPRESSIONS:
        n += 1
        try:
            want = [_compile_jinja_template(template).render(**context(M))]
        except Exception:
            want = None
        got = run(balora, folder, [{"messages": M, "chat_template_kwargs": {k: v for k, v in context(M).items() if k not in ("messages", "tools")}}], template)
        refused += got is None and want is not None
        if got is not None and got != want:
            bad += 1
            print("DIFFERENT", template, "\n  want", want, "\n  got ", got)
    for name in ["gemma3", "llama2", "llama3", "qwen3"] + ([smol] if os.path.exists(smol) else []):
        more = shared_cases(name)
        if name == smol:
            from gguf import GGUFReader
            reader = GGUFReader(smol)
            text = lambda key: reader.fields[key].contents()
            config = {"chat_template": text("tokenizer.chat_template")}
            tokens = text("tokenizer.ggml.tokens")
            special = {k: tokens[text(f"tokenizer.ggml.{v}_token_id")] for k, v in (("bos_token", "bos"), ("eos_token", "eos"))}
        else:
            config = json.load(open(f"{shared}/tokenizers/{name}/tokenizer_config.json", encoding="utf-8"))
            special = {k: (config[k]["content"] if isinstance(config[k], dict) else config[k]) for k in
                       ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token") if config.get(k)}
        for line in more:
            n += 1
            try:
                want, _ = render_jinja_template([line["messages"]], tools=line.get("tools"), chat_template=config["chat_template"],
                                                add_generation_prompt=line.get("add_generation_prompt", False), **special,
                                                **line.get("chat_template_kwargs", {}))
                want = want if isinstance(want, list) else [want]
            except Exception as e:
                want = None
            got = run(balora, smol if name == smol else f"{shared}/tokenizers/{name}", [line], None)
            if got != want:
                bad += 1
                print("DIFFERENT", name, line, "\n  want", want, "\n  got ", got)
    print(f"transformers {transformers.__version__}: {n - bad - refused} of {n} renderings equal, {refused} refused, {bad} different")
    return bad


def shared_cases(name):
    user, system = {"role": "user", "content": " Hello\n"}, {"role": "system", "content": "Be brief."}
    answer = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes."}
    call = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"a": 1, "b": "é\"<"}}}]}
    result = {"role": "tool", "content": "42"}
    talks = [[user], [system, user], [user, answer, user], [system, user, answer, user, answer], [user, call, result, answer],
             [user, user], [user, {"role": "assistant", "content": "a", "reasoning_content": "why"}, user],
             [{"role": "user", "content": [{"type": "text", "text": "part"}]}]]
    for talk in talks:
        for prompt in (False, True):
            for tools in (None, [TOOL, TOOL]):
                yield {"messages": talk, "add_generation_prompt": prompt, **({"tools": tools} if tools else {})}
    yield {"messages": [user], "add_generation_prompt": True, "chat_template_kwargs": {"enable_thinking": False}}


def run(balora, tokenizer, lines, template):
    with tempfile.NamedTemporaryFile("w", suffix=".jinja", encoding="utf-8", newline="") as f:
        f.write(template or "")
        f.flush()
        p = subprocess.run([balora, "tokenize", "--tokenizer", tokenizer, "--chat"] + (["--chat-template", f.name] if template else []),
                           input="".join(json.dumps(x) + "\n" for x in lines), capture_output=True, text=True)
    if p.returncode == 3:
        if os.environ.get("SHOW"):
            print("  ", p.stderr.strip())
        return None
    return [json.loads(x)["text"] for x in p.stdout.split("\n") if x] if p.returncode == 0 else f"status {p.returncode}: {p.stderr}"


sys.exit(1 if main() else 0)
