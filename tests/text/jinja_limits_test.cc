// What templates may not do: bad syntax, things outside the subset, errors while rendering, and exhausting the machine.
#include <gtest/gtest.h>

#include "support/files.h"
#include "text/jinja_rows.h"

namespace nibble {
namespace {

struct ErrorRow {
  const char* source;
  ErrorCode code;
  const char* message;
};

void expect_errors(std::span<const ErrorRow> rows) {
  for (const ErrorRow& row : rows) {
    SCOPED_TRACE(row.source);
    test::expect_error(row.code, row.message, [&] { test::render_row(row.source); });
  }
}

constexpr ErrorRow kSyntax[] = {
    {"a\n{{ (1 }}", ErrorCode::format, "row: line 2: "},
    {"{{ 1) }}", ErrorCode::format, "unexpected ')'"},
    {"{{ [1,2 }}", ErrorCode::format, "unexpected '}'"},
    {"{{ 'abc }}", ErrorCode::format, "string without end"},
    {"{{ 'abc\\", ErrorCode::format, "string without end"},
    {"{{ \"\\xZZ\" }}", ErrorCode::format, "malformed escape"},
    {"{{ 99999999999999999999 }}", ErrorCode::format, "beyond 64 bits"},
    {"{{ a", ErrorCode::format, "tag without }}"},
    {"{{ }}", ErrorCode::format, "unexpected '}}'"},
    {"{{ 1 2 }}", ErrorCode::format, "unexpected '2'"},
    {"{{ a ! b }}", ErrorCode::format, "unexpected character '!'"},
    {"{{ a is }}", ErrorCode::format, "unexpected '}}'"},
    {"{{ a | }}", ErrorCode::format, "unexpected '}}'"},
    {"{{ a is string is true }}", ErrorCode::format, "cannot be chained"},
    {"{{ f(a=1, 2) }}", ErrorCode::format, "positional argument behind a named one"},
    {"{{ a[] }}", ErrorCode::format, "unexpected ']'"},
    {"{{ {1} }}", ErrorCode::format, "expected ':'"},
    {"{# open", ErrorCode::format, "comment without end"},
    {"{% raw %}x", ErrorCode::format, "raw block without endraw"},
    {"{% if true %}", ErrorCode::format, "expected 'endif'"},
    {"{% endif %}", ErrorCode::format, "tag 'endif' is not expected here"},
    {"{% else %}", ErrorCode::format, "tag 'else' is not expected here"},
    {"{% for x %}{% endfor %}", ErrorCode::format, "expected 'in'"},
    {"{% for true in l %}{% endfor %}", ErrorCode::format, "cannot assign to 'true'"},
    {"{% break %}", ErrorCode::format, "'break' outside a loop"},
    {"{% call m %}{% endcall %}", ErrorCode::format, "expected a call"},
    {"{% for x in l %}{% macro m() %}{% continue %}{% endmacro %}{% endfor %}", ErrorCode::format, "outside a loop"},
};
TEST(JinjaErrors, NameTheLineOfBadSyntax) { expect_errors(kSyntax); }

constexpr ErrorRow kUnsupported[] = {
    {"{% include 'x' %}", ErrorCode::unsupported, "tag 'include'"},
    {"{% block x %}{% endblock %}", ErrorCode::unsupported, "tag 'block'"},
    {"{% extends 'x' %}", ErrorCode::unsupported, "tag 'extends'"},
    {"{{ range(*l) }}", ErrorCode::unsupported, "unpacking arguments"},
    {"{{ l|random }}", ErrorCode::unsupported, "filter 'random' is not supported"},
    {"{{ l|map('random')|list }}", ErrorCode::unsupported, "filter 'random' is not supported"},
    {"{{ a is escaped }}", ErrorCode::unsupported, "test 'escaped' is not supported"},
    {"{{ l|select('escaped')|list }}", ErrorCode::unsupported, "test 'escaped' is not supported"},
    {"{{ '{0.x}'.format(d) }}", ErrorCode::unsupported, "format field '{0.x}'"},
    {"{{ '{:5.}'.format('a') }}", ErrorCode::unsupported, "format field '{:5.}'"},
    {"{{ '{:+}'.format('a') }}", ErrorCode::unsupported, "format field '{:+}'"},
    {"{{ '{:5}'.format(none) }}", ErrorCode::unsupported, "format field '{:5}'"},
    {"{{ s|truncate(-9223372036854775807, true) }}", ErrorCode::format, "truncate() needs a length"},
    {"{{ '{:,}'.format(1) }}", ErrorCode::unsupported, "format field '{:,}'"},
    {"{{ '{!a}'.format(1) }}", ErrorCode::unsupported, "format field '{!a}'"},
    {"{{ '%(x)s' % d }}", ErrorCode::unsupported, "format '%(name)'"},
};
TEST(JinjaErrors, NameWhatIsOutsideTheSubset) { expect_errors(kUnsupported); }

TEST(JinjaErrors, UnknownFiltersMatterOnlyWhereRenderingComes) {
  EXPECT_EQ(test::render_row("{% if false %}{{ l|nosuch }}{% endif %}ok"), "ok");
}

constexpr ErrorRow kRendering[] = {
    {"{{ missing.y }}", ErrorCode::format, "'missing' is undefined"},
    {"{{ d.nope.y }}", ErrorCode::format, "'dict object' has no attribute 'nope'"},
    {"{{ n.x.y }}", ErrorCode::format, "'None' has no attribute 'x'"},
    {"{{ missing + 1 }}", ErrorCode::format, "'missing' is undefined"},
    {"{{ missing < 1 }}", ErrorCode::format, "'missing' is undefined"},
    {"{{ missing() }}", ErrorCode::format, "'missing' is undefined"},
    {"{{ s() }}", ErrorCode::format, "'str' object is not callable"},
    {"{{ 'a' + 1 }}", ErrorCode::format, "unsupported operand types for +: 'str' and 'int'"},
    {"{{ [1] + (2,) }}", ErrorCode::format, "'list' and 'tuple'"},
    {"{{ 1 / 0 }}", ErrorCode::format, "division by zero"},
    {"{{ 1.0 // 0 }}", ErrorCode::format, "division by zero"},
    {"{{ 1 % 0 }}", ErrorCode::format, "division by zero"},
    {"{{ 1 < 'a' }}", ErrorCode::format, "have no order"},
    {"{{ [3, 'a']|sort }}", ErrorCode::format, "have no order"},
    {"{{ 1 in 'abc' }}", ErrorCode::format, "requires string as left operand"},
    {"{{ 1 in n }}", ErrorCode::format, "'NoneType' object is not iterable"},
    {"{% for x in 5 %}{% endfor %}", ErrorCode::format, "'int' object is not iterable"},
    {"{% for x, y in [(1, 2, 3)] %}{% endfor %}", ErrorCode::format, "cannot unpack 3 values into 2 names"},
    {"{{ 5|length }}", ErrorCode::format, "has no length"},
    {"{{ l|map('string')|length }}", ErrorCode::format, "'generator' has no length"},
    {"{{ ''.split('') }}", ErrorCode::format, "empty separator"},
    {"{{ 'a'.join([1]) }}", ErrorCode::format, "join() needs a string, found 'int'"},
    {"{{ s.replace('a') }}", ErrorCode::format, "replace() has too few arguments"},
    {"{{ s.upper(1) }}", ErrorCode::format, "upper() has too many arguments"},
    {"{{ s|trim(z=1) }}", ErrorCode::format, "trim() has no argument 'z'"},
    {"{{ '%d' % 'x' }}", ErrorCode::format, "%d needs a number"},
    {"{{ '%s' % (1, 2) }}", ErrorCode::format, "not all arguments converted"},
    {"{{ '{} {}'.format(1) }}", ErrorCode::format, "too few arguments"},
    {"{{ missing|tojson }}", ErrorCode::format, "Undefined is not JSON serializable"},
    {"{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}", ErrorCode::format, "macro 'm' has too many arguments"},
    {"{% macro m(a) %}{% endmacro %}{{ m(z=2) }}", ErrorCode::format, "macro 'm' has no argument 'z'"},
    {"{% set d.x = 1 %}", ErrorCode::format, "not a namespace"},
    {"{% set ns = namespace() %}{% set ns._x = 1 %}", ErrorCode::format, "underscore"},
    {"{% set x = [] %}{{ x.append(1) }}", ErrorCode::format, "changing a 'list object' is unsafe"},
    {"{{ d.pop('x') }}", ErrorCode::format, "changing a 'dict object' is unsafe"},
    {"{{ raise_exception('no ' ~ a) }}", ErrorCode::invalid_argument, "refuses the input: no 1"},
};
TEST(JinjaErrors, SayWhatFailsWhileRendering) { expect_errors(kRendering); }

constexpr ErrorRow kLimits[] = {
    {"{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", ErrorCode::resources, "steps"},
    {"{% set ns = namespace(x='xxxxxxxx') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
     ErrorCode::resources, "steps"},
    {"{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
     ErrorCode::resources, "steps"},
    {"{% set ns = namespace(x=[1]) %}{% for i in range(100) %}{% set ns.x = [ns.x] %}{% endfor %}",
     ErrorCode::resources, "values nest deeper than 100 levels"},
    {"{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = [ns.x.count] %}{% endfor %}",
     ErrorCode::resources, "values nest deeper than 100 levels"},
    {"{% set ns = namespace(x=[1]) %}{% for i in range(90) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
     ErrorCode::resources, "steps"},
    {"{% set ns = namespace(x=[1]) %}{% for i in range(90) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x|tojson "
     "}}",
     ErrorCode::resources, "steps"},
    {"{{ 'x' * 9999999999 }}", ErrorCode::resources, "steps"},
    {"{{ [1] * 9223372036854775807 }}", ErrorCode::resources, "steps"},
    {"{{ range(100001) }}", ErrorCode::resources, "range() of more than 100000 numbers"},
    {"{% set x = 'x' * 9000000 %}{{ x|replace('x', x) }}", ErrorCode::resources, "steps"},
    {"{% set x = 'x' * 9000000 %}{{ range(99)|join(x) }}", ErrorCode::resources, "steps"},
    {"{{ 'a\nb'|indent(9999999999) }}", ErrorCode::resources, "steps"},
    {"{{ [[1]]|tojson(indent=999999999) }}", ErrorCode::resources, "steps"},
    {"{{ '%9999d' % 1 }}", ErrorCode::format, "width or precision is larger than 1000"},
    {"{{ 9 ** 99 }}", ErrorCode::format, "integer overflow"},
    {"{{ (-9223372036854775807 - 1) // -1 }}", ErrorCode::format, "integer overflow"},
    {"{{ -(-9223372036854775807 - 1) }}", ErrorCode::format, "integer overflow"},
    {"{{ 9223372036854775807 + 1 }}", ErrorCode::format, "integer overflow"},
    {"{% for x in l recursive %}{{ loop(l) }}{% endfor %}", ErrorCode::resources, "deeper than 64"},
    {"{% macro m() %}{% call m() %}{% endcall %}{% endmacro %}{{ m() }}", ErrorCode::resources, "deeper than 64"},
    {"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", ErrorCode::resources, "macros call each other deeper than 64"},
    {"{% set x = 'x' * 9000000 %}{{ x }}{{ x }}", ErrorCode::resources, "writes more than 16777216 bytes"},
};
TEST(JinjaLimits, StopTemplatesThatWouldExhaustTheMachine) { expect_errors(kLimits); }

std::string repeated(const std::string& text, int count) {
  std::string out;
  for (int i = 0; i < count; ++i) out += text;
  return out;
}

TEST(JinjaLimits, BoundTheDepthOfTheSource) {
  const std::string deep = "nest deeper than 128 levels", tall = "has more than 256 levels";
  const std::pair<std::string, std::string> sources[] = {
      {"{{ " + repeated("(", 9999) + "1" + repeated(")", 9999) + " }}", deep},
      {"{{ " + repeated("[", 9999) + repeated("]", 9999) + " }}", deep},
      {"{{ " + repeated("not ", 9999) + "1 }}", deep},
      {"{{ " + repeated("-", 9999) + "1 }}", deep},
      {"{{ " + repeated("1 if 1 else ", 9999) + "1 }}", deep},
      {"{% for " + repeated("(", 9999) + "a" + repeated(")", 9999) + " in l %}{% endfor %}", deep},
      {repeated("{% if a %}", 9999), deep},
      {"{{ 1" + repeated(" + 1", 9999) + " }}", tall},
      {"{{ a" + repeated(".a", 9999) + " }}", tall},
      {"{{ a" + repeated("|trim", 9999) + " }}", tall},
      {"{{ a" + repeated("()", 9999) + " }}", tall},
      {repeated("{% set x" + repeated("|trim", 100) + " %}", 9) + repeated("{% endset %}", 9), tall},
  };
  for (const auto& [source, message] : sources) {
    SCOPED_TRACE(source.substr(0, 40));
    test::expect_error(ErrorCode::format, message, [&, &text = source] { test::render_row(text); });
  }
  EXPECT_EQ(test::render_row("{{ ''" + repeated(" ~ 'x'", 9999) + " }}").size(), 9999u);
  EXPECT_EQ(test::render_row("{{ " + repeated("(", 60) + "1" + repeated(")", 60) + " }}"), "1");
}

TEST(JinjaLimits, BoundTheDepthOfEvaluation) {
  const std::string body = repeated("{% if a %}", 40) + "{{ m() }}" + repeated("{% endif %}", 40);
  test::expect_error(ErrorCode::resources, "evaluation nests too deep",
                     [&] { test::render_row("{% macro m() %}" + body + "{% endmacro %}{{ m() }}"); });
}

TEST(JinjaLimits, BoundTheSizeOfTheSource) {
  test::expect_error(ErrorCode::format, "chat template of 1000001 bytes (at most 1000000)",
                     [] { test::render_row(std::string(1'000'001, 'x')); });
}

TEST(JinjaLimits, LeaveRoomForLongConversations) {
  Json::Array messages;
  for (int i = 0; i < 1000; ++i) {
    messages.push_back(Json::object({{"role", Json("user")}, {"content", Json(std::string(4000, 'x'))}}));
  }
  const std::string source =
      "{% for m in messages %}{% if '</think>' in m.content %}never{% endif %}"
      "{{ m.role + ': ' + m.content.split('</think>')[-1].lstrip('\\n') | trim }}\n{% endfor %}";
  EXPECT_EQ(ChatTemplate(source, "t").render(Json(messages), {}).size(), 1000u * 4007);
}

TEST(JinjaText, SurvivesBytesThatAreNotUtf8) {
  EXPECT_EQ(test::render_row("\xff{{ '\xc3'|length }}\xe2\x82"),
            "\xff"
            "1\xe2\x82");
  EXPECT_EQ(test::render_row("{{ '\\ud800' }}"), "\xef\xbf\xbd");
}

}  // namespace
}  // namespace nibble
