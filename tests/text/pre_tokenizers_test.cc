#include "text/pre_tokenizers.h"

#include <gtest/gtest.h>

#include "support/files.h"

namespace nibble {
namespace {

// The words with | between.
std::string cut(const std::string& json, const std::string& text, bool at_start = true) {
  std::vector<Piece> pieces = {{text, at_start}};
  parse_pre_tokenizer(Json::parse(json, "test"), "test")(pieces);
  std::string words;
  for (const Piece& piece : pieces) words += (words.empty() ? "" : "|") + piece.text;
  return words;
}

// The expected words are those of the tokenizers library 0.23.
TEST(PreTokenizers, EveryType) {
  struct Row {
    const char* json;
    const char* text;
    const char* expected;
  };
  const Row rows[] = {
      {"null", "a b", "a b"},
      {R"({"type": "ByteLevel", "add_prefix_space": true, "use_regex": true})", "it's 5", "\u0120it|'s|\u01205"},
      {R"({"type": "ByteLevel", "add_prefix_space": true, "use_regex": true})", " it", "\u0120it"},
      {R"({"type": "ByteLevel", "add_prefix_space": false, "use_regex": false})", "a \u00e9", "a\u0120\u00c3\u00a9"},
      {R"({"type": "Digits", "individual_digits": true})", "a12\u00bd", "a|1|2|\u00bd"},
      {R"({"type": "Digits", "individual_digits": false})", "a12 3", "a|12| |3"},
      {R"({"type": "Whitespace"})", " a_b, c\u00b2!? ", "a_b|,|c|\u00b2!?"},
      {R"({"type": "WhitespaceSplit"})", " a,\tb\u3000c", "a,|b|c"},
      {R"({"type": "BertPreTokenizer"})", "a b!?\u3002", "a|b|!|?|\u3002"},
      {R"({"type": "BertPreTokenizer"})", "a\u09fdb\u2e42c\u2e43d\u166de", "a\u09fdb|\u2e42|c\u2e43d|\u166d|e"},
      {R"({"type": "Punctuation"})", "a!? b", "a|!|?| b"},
      {R"({"type": "Punctuation", "behavior": "Contiguous"})", "a!? b", "a|!?| b"},
      {R"({"type": "Metaspace", "replacement": "_", "prepend_scheme": "always"})", "a  b", "_a|_|_b"},
      {R"({"type": "Metaspace", "replacement": "_", "prepend_scheme": "always"})", " a", "_a"},
      {R"({"type": "Metaspace", "replacement": "_", "prepend_scheme": "never", "split": false})", "a b", "a_b"},
      {R"({"type": "Metaspace", "replacement": "_", "add_prefix_space": false})", "a b", "a|_b"},
      {R"({"type": "CharDelimiterSplit", "delimiter": "-"})", "-a--b", "a|b"},
      {R"({"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, {"type": "Punctuation"}]})", "a! b",
       "a|!|b"},
      {R"({"type": "Split", "pattern": {"Regex": "[0-9]+"}, "behavior": "Removed", "invert": true})", "a1b22", "1|22"},
      {R"({"type": "Split", "pattern": {"String": "."}, "behavior": "Isolated"})", "a.b", "a|.|b"},
  };
  for (const Row& row : rows) EXPECT_EQ(cut(row.json, row.text), row.expected) << row.json;
}

TEST(PreTokenizers, SplitBehaviors) {
  const std::pair<const char*, const char*> rows[] = {
      {"Removed", "the|final|countdown"},
      {"Isolated", "the|-|final|-|-|countdown"},
      {"MergedWithPrevious", "the-|final-|-|countdown"},
      {"MergedWithNext", "the|-final|-|-countdown"},
      {"Contiguous", "the|-|final|--|countdown"},
  };
  for (const auto& [behavior, expected] : rows) {
    const std::string json =
        R"({"type": "Split", "pattern": {"String": "-"}, "behavior": ")" + std::string(behavior) + "\"}";
    EXPECT_EQ(cut(json, "the-final--countdown"), expected) << behavior;
  }
  test::expect_error(ErrorCode::unsupported, "test.behavior: unknown type 'Eaten'",
                     [] { cut(R"({"type": "Split", "pattern": {"String": "-"}, "behavior": "Eaten"})", ""); });
}

TEST(PreTokenizers, MetaspaceFirstLooksAtTheBeginningOfTheInput) {
  const std::string json = R"({"type": "Metaspace", "replacement": "_", "prepend_scheme": "first"})";
  EXPECT_EQ(cut(json, "a b", true), "_a|_b");
  EXPECT_EQ(cut(json, "a b", false), "a|_b");
  EXPECT_EQ(cut(R"({"type": "Sequence", "pretokenizers": [{"type": "Digits"}, )" + json + "]}", "1a"), "_1|a");
}

TEST(PreTokenizers, BrokenParts) {
  using test::expect_error;
  expect_error(ErrorCode::unsupported, "unknown type 'X'. Known: ByteLevel, Split,",
               [] { cut(R"({"type": "X"})", ""); });
  expect_error(ErrorCode::format, "test.replacement: empty",
               [] { cut(R"({"type": "Metaspace", "replacement": ""})", ""); });
  expect_error(ErrorCode::format, "test.prepend_scheme: found 'last'",
               [] { cut(R"({"type": "Metaspace", "prepend_scheme": "last"})", ""); });
  expect_error(ErrorCode::format, "test.delimiter: empty",
               [] { cut(R"({"type": "CharDelimiterSplit", "delimiter": ""})", ""); });
  expect_error(ErrorCode::format, "test.individual_digits: found a string, expected a boolean",
               [] { cut(R"({"type": "Digits", "individual_digits": "yes"})", ""); });
}

}  // namespace
}  // namespace nibble
