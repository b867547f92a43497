// The tags of templates, and the white space around them.
// The expected texts are those of jinja2 3.1.6 as transformers 5 configures it.
#include <gtest/gtest.h>

#include "core/json.h"
#include "text/chat_template.h"
#include "text/jinja_rows.h"

namespace nibble {
namespace {

constexpr test::TemplateRow kStatements[] = {
    {"{% for i in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ "
     "loop.last }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }};{% endfor %}",
     "1032TrueFalse31;2121FalseFalse332;3210FalseTrue31;"},
    {"{% for i in l if i > 1 %}{{ i }}{{ loop.length }}{% else %}none{% endfor %}|{% for i in [] %}x{% else %}none{% "
     "endfor %}|{% for i in l if i > 9 %}x{% else %}e{% endfor %}",
     "3222|none|e"},
    {"{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}|{% for k in d %}{{ k }}{% endfor %}|{% for (a,b) in "
     "[(1,2)] %}{{ a }}{{ b }}{% endfor %}|{% for c in 'héy' %}{{ c }}-{% endfor %}|{% for a, (b, c) in [(1,(2,3))] "
     "%}{{ a+b+c }}{% endfor %}",
     "x=1;y=[1, 2];items=shadow;n=None;|xyitemsn|12|h-é-y-|6"},
    {"{% for i in range(6) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}{% endif %}{{ i }}{% "
     "endfor %}",
     "023"},
    {"{% for i in l %}{% for j in l %}{{ loop.index }}{% if j == 1 %}{% break %}{% endif %}{% endfor %}/{{ loop.index "
     "}} {% endfor %}",
     "12/1 12/2 12/3 "},
    {"{% set x = 1 %}{% for i in l %}{% set x = i %}{{ x }}{% endfor %}{{ x }}|{% set ns = namespace(x=0, l=[]) %}{% "
     "for i in l %}{% set ns.x = ns.x + i %}{% set ns.l = ns.l + [i] %}{% endfor %}{{ ns.x }}{{ ns.l }}",
     "3121|6[3, 1, 2]"},
    {"{% for i in l %}{% if loop.first %}{% set z = 5 %}{% endif %}{{ z }}{% endfor %}|{{ z is defined }}|{% if true "
     "%}{% set w = 1 %}{% endif %}{{ w }}",
     "5|False|1"},
    {"{% set a, b = 1, 2 %}{{ a }}{{ b }}|{% set (c, d2) = [3, 4] %}{{ c }}{{ d2 }}|{% set x %}hi {{ a }}{% endset "
     "%}[{{ x }}]|{% set y | upper | trim %} abc {% endset %}[{{ y }}]|{% set t2 = 1, 2 %}{{ t2 }}|{% set nn = "
     "namespace() %}{% set nn.q, nn.r = 1, 2 %}{{ nn.q + nn.r }}",
     "12|34|[hi 1]|[ABC]|(1, 2)|3"},
    {"{% macro fact(n) %}{% if n <= 1 %}1{% else %}{{ n * (fact(n-1)|int) }}{% endif %}{% endmacro %}{{ fact(5) }}|{% "
     "macro o(x) %}{% set y = x %}{{ y }}{% endmacro %}{{ o(1) }}{{ y is defined }}",
     "120|1False"},
    {"{% set g = 1 %}{% macro m() %}{{ g }}{% endmacro %}{% set g = 2 %}{{ m() }}|{% for i in [1] %}{% macro inner() "
     "%}{{ i }}{% endmacro %}{{ inner() }}{% endfor %}",
     "2|1"},
    {"{% filter upper %}abc {{ s }}{% endfilter %}|{% filter trim | replace('a','b') %}  aXa {% endfilter %}|{% with x "
     "= 1, y = 2 %}{{ x + y }}{% endwith %}{{ x is defined }}|{% generation %}gen{{ a }}{% endgeneration %}|{% print a "
     "%}",
     "ABC HELLO WORLD|bXb|3False|gen1|1"},
    {"{% generation %}{% set k = 1 %}{% endgeneration %}{{ k is defined }}|{% for i in l %}{% generation %}{{ "
     "loop.index }}{% endgeneration %}{% endfor %}",
     "False|123"},
    {"{%- if true -%}   a   {%- endif -%}  b  {{- ' c ' -}}  d", "ab c d"},
    {"    {# line #}", ""},
    {"{% raw %}{{ x }} {% if %}{% endraw %}|  {%- raw -%}  {{ a }}  {%- endraw -%}  |", "{{ x }} {% if %}|{{ a }}|"},
    {"{% if a == 1 %}one{% elif a == 2 %}two{% else %}other{% endif %}|{% if e %}x{% elif b == 2 %}two{% endif %}|{% "
     "if a, b %}tup{% endif %}|{% if (a == 1 and b == 2) or n %}ok{% endif %}|{% if not (a and n) %}ok{% endif %}",
     "one|two|tup|ok|ok"},
    {R"({{ a, b }}|{{ (a) }}|{{ {'a': {'b': 1}}['a']['b'] }}|{{ "}}" }}|{{ '{%' }}|{{ {'x':{}} }})",
     "(1, 2)|1|1|}}|{%|{'x': {}}"},
    {"{% if false %}{{ l|nosuch }}{% endif %}ok", "ok"},
    {"{% set x = {'a': [1,2,{'b': 'c'}]} %}{{ x.a[2].b }}|{% for k, v in x|dictsort %}{{ k }}{{ v|tojson }}{% endfor "
     "%}|{{ x|tojson(indent=2)|indent(2) }}",
     "c|a[1, 2, {\"b\": \"c\"}]|{\n    \"a\": [\n      1,\n      2,\n      {\n        \"b\": \"c\"\n      }\n    ]\n  "
     "}"},
    {"{{ loop is defined }}|{% for x in [1] %}{{ loop is defined }}{% endfor %}|{% for x in [[1,2],[3]] %}{% for y in "
     "x %}{{ loop.length }}{% endfor %}{{ loop.length }}{% endfor %}",
     "False|True|22212"},
    {"{% for m in ms %}{% set r = m.role|lower %}{% if r == 'user' %}U{% elif r == 'tool' and loop.previtem and "
     "loop.previtem.role == 'user' %}T{% endif %}{{ loop.nextitem is defined }}{{ loop.previtem is undefined }}{% "
     "endfor %}",
     "UTrueTrueTTrueFalseUFalseFalse"},
    {"{%for i in l%}{{i}}{%endfor%}|{%if a==1%}x{%endif%}|{{a}}{{b}}|{{-a-}}|{{ a if a==1 else b}}|{%set "
     "q2='z'%}{{q2}}",
     "312|x|12|1|1|z"},
    {"  {% if true %}  \n  x\n  {% endif %}\ny", "  \n  x\ny"},
    {"a\n  {#- c -#}\n b\n", "ab"},
    {"a\n   {# c #}\nb", "a\nb"},
    {"x {% raw %}\n{{ a }}\n{% endraw %}\ny", "x \n{{ a }}\ny"},
    {"x\n   {% raw %}\n{{ a }}\n   {% endraw %}\ny", "x\n\n{{ a }}\ny"},
    {"{{ 'x' }}\n{{ 'y' -}}\n   z\n\n", "x\nyz\n"},
    {"{% if true %}\na\n{% endif %}\n\nb\n", "a\n\nb"},
    {"a\r\nb\r{% if true %}\r\nc{% endif %}", "a\nb\nc"},
    {"   {%+ if true %}x{% endif %}\n   {% if true +%}\ny{% endif %}", "   x\ny"},
    {"{% for i in l %}\n  {{ i }}\n{% endfor %}\n", "  3\n  1\n  2\n"},
    {"\n\n{% for i in l %}\n\n{{ i }}\n\n  {%- endfor %}\n\n", "\n\n\n3\n1\n2"},
    {"{{ a }}\n", "1"},
    {"{% set x = 1 %}\n{% set y = 2 %}\n{{ x }}\n{{ y }}", "1\n2"},
    {"x {%- if true %} \n y {% endif -%} \n z", "x \n y z"},
    {"  {{ a }}  \n  {%- for i in l -%}\n {{ i }} \n{%- endfor %}  \n  end", "  1312  \n  end"},
    {"{% if true %}x{% endif %}  \n{% if true %}  {% if true %}y{% endif %}{% endif %}", "x  \n  y"},
    {"{{ 'a\nb' }}", "a\nb"},
    {"{% macro m() %}\n  z\n{% endmacro %}\n[{{ m() }}]", "[  z\n]"},
    {"{% set x %}\n  q\n{% endset %}\n[{{ x }}]", "[  q\n]"},
    {"\u00a0 {% if true %}x{% endif %}", "x"},
    {"{#- a -#}\n\n x", "x"},
    {"{%- raw -%} \n {{ a }} {%- endraw %}\n z", "{{ a }} z"},
    {"{% raw -%}\n a {% endraw -%}\n b", "a b"},
    {"{% if true %}{\n{% endif %}", "{\n"},
    {"{% macro m(x) %}<{{ caller(x) }}|{{ caller(2) }}>{% endmacro %}{% call(y) m(1) %}{{ y }}{{ a }}{% endcall %}",
     "<11|21>"},
    {"{% macro m() %}[{{ caller() }}]{% endmacro %}{% call m() %}o{% call m() %}i{% endcall %}{% endcall %}", "[o[i]]"},
    {"{% macro m() %}{{ caller is defined }}{% endmacro %}{{ m() }}{% call m() %}{% endcall %}", "FalseTrue"},
    {"{% macro m(k=1) %}{{ caller() }}{{ k }}{% endmacro %}{% for i in l %}{% call(v=i) m(k=i) %}{{ v }}:{% endcall "
     "%}{% endfor %}",
     "3:31:12:2"},
    {"{% for x in [1, [2, [3, 4]], 5] recursive %}{{ loop(x) if x is sequence else x ~ '@' ~ loop.depth ~ loop.depth0 "
     "~ loop.index }} {% endfor %}",
     "1@101 2@211 3@321 4@322   5@103 "},
    {"{% for x in [{'n': 'a', 'c': [{'n': 'b', 'c': [{'n': 'c'}]}]}] recursive %}<{{ x.n }}>{{ loop(x.c) if x.c }}</{{ "
     "x.n }}>{% endfor %}",
     "<a><b><c></c></b></a>"},
    {"{% for x in [[], 1] recursive %}{{ loop(x) if x is sequence else x }}{% else %}none{% endfor %}", "none1"},
    {"{% set c = cycler('x', 'y') %}{{ c.next() }}{{ c.current }}{{ c.next() }}{{ c.next() }}{{ c.reset() }}{{ "
     "c.next() }}",
     "xyyxNonex"},
    {"{% set j = joiner('|') %}{% for x in l %}{{ j() }}{{ x }}{% endfor %}{% set k = joiner() %}{{ k() }}a{{ k() }}b",
     "3|1|2a, b"},
};
TEST(Jinja, ExecutesStatements) { test::expect_rows(kStatements); }

}  // namespace
}  // namespace nibble
