#include "text/regex.h"

#include <gtest/gtest.h>

#include "support/files.h"
#include "text/byte_level.h"

namespace nibble {
namespace {

std::vector<std::string> matches(const std::string& pattern, std::string_view text) {
  std::vector<std::string> found;
  for (const Span& span : Regex(pattern, "test").find_all(text)) {
    found.emplace_back(text.substr(span.begin, span.end - span.begin));
  }
  return found;
}

using Words = std::vector<std::string>;

TEST(Regex, CutsAsGpt2Does) {
  EXPECT_EQ(matches(kGpt2Pattern, "It's  5 o'clock\n\n now  "),
            (Words{"It", "'s", " ", " 5", " o", "'", "clock", "\n\n", " now", "  "}));
  EXPECT_EQ(matches(kGpt2Pattern, "na\u00efve\u00bd"), (Words{"na\u00efve", "\u00bd"}));
}

// Each row has another meaning for PCRE2 than for Oniguruma.
TEST(Regex, ClassesHaveOnigurumasMembers) {
  struct Row {
    const char* pattern;
    const char* text;
    Words expected;
  };
  const Row rows[] = {
      {"\\s", "a\u180eb\u0085c", {"\u0085"}},
      {"[^\\s]+", "a\u180eb\u3000c", {"a\u180eb", "c"}},
      {"\\w+", "e\u0301_\u00b2-\u2460", {"e\u0301_\u00b2"}},
      {"[\\w]+", "e\u0301\u203f\u00b2", {"e\u0301\u203f"}},
      {"\\W+", "a\u00b2\u2460", {"\u2460"}},
      {"\\h+", "xBEEF ", {"BEEF"}},
      {"[[:punct:]]", "a$\u20ac", {"$", "\u20ac"}},
      {"[[:alpha:]]+", "a\u2167\u00b2", {"a\u2167"}},
      {"\\p{Han}+", "\u65e5\u3001\u672c", {"\u65e5", "\u672c"}},
      {"a\\b", "a\u0301 a", {"a"}},
      {"^b", "a\nb", {"b"}},
      {" ?[^(\\s|[.,!?])]+", " ab, c)", {" ab", " c"}},  // a class inside a class
      {"[]a]+", "a]b", {"a]"}},
      {"(?i:'s)", "'S'\u017f", {"'S", "'\u017f"}},
  };
  for (const Row& row : rows) EXPECT_EQ(matches(row.pattern, row.text), row.expected) << row.pattern;
}

TEST(Regex, EmptyMatchesDoNotFollowOtherMatches) {
  const std::vector<Span> found = Regex("a*", "test").find_all("ba\u00e9");
  EXPECT_EQ(found, (std::vector<Span>{{0, 0}, {1, 2}, {4, 4}}));
}

TEST(Regex, RefusesWhatItCannotTranslate) {
  using test::expect_error;
  expect_error(ErrorCode::format, "here: not a valid pattern", [] { Regex("(a", "here"); });
  expect_error(ErrorCode::unsupported, "intersection", [] { Regex("[a-z&&[^b]]", "here"); });
  expect_error(ErrorCode::unsupported, "negated character class inside", [] { Regex("[a[^b]]", "here"); });
  expect_error(ErrorCode::format, "unfinished [:", [] { Regex("[[:alpha]", "here"); });
  expect_error(ErrorCode::format, "at most 65536 are allowed", [] { Regex(std::string(70'000, 'a'), "here"); });
  expect_error(ErrorCode::format, "not a valid pattern",
               [] { Regex(std::string(100, '(') + std::string(100, ')'), "here"); });
}

TEST(Regex, StopsAtExponentialPatterns) {
  const Regex evil("(a+)+$", "test");
  test::expect_error(ErrorCode::resources, "too expensive", [&] { evil.find_all(std::string(64, 'a') + "!"); });
}

TEST(Regex, AMillionSpacesAreNoProblem) {
  const std::string text(1'000'000, ' ');
  EXPECT_EQ(matches(kGpt2Pattern, text + "a"), (Words{std::string(999'999, ' '), " a"}));
}

}  // namespace
}  // namespace nibble
