#include "text/decoders.h"

#include <gtest/gtest.h>

#include "support/files.h"
#include "text/unicode.h"

namespace nibble {
namespace {

using Tokens = std::vector<std::string>;

std::string decoded(const std::string& json, const Tokens& tokens) {
  const TokenDecoder decoder = parse_decoder(Json::parse(json, "test"), "test");
  std::vector<DecodeState> states;
  return decode_tokens(decoder, states, tokens, true);
}

// Token by token; every part must be whole characters.
std::string streamed(const std::string& json, const Tokens& tokens) {
  const TokenDecoder decoder = parse_decoder(Json::parse(json, "test"), "test");
  std::vector<DecodeState> states;
  std::string text;
  for (const std::string& token : tokens) {
    const std::string part = decode_tokens(decoder, states, {token}, false);
    EXPECT_TRUE(is_valid_utf8(part));
    text += part;
  }
  return text + decode_tokens(decoder, states, {}, true);
}

constexpr const char* kLlama = R"({"type": "Sequence", "decoders": [
    {"type": "Replace", "pattern": {"String": "_"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
    {"type": "Strip", "content": " ", "start": 1, "stop": 0}]})";

// The expected texts are those of the tokenizers library 0.23.
TEST(Decoders, EveryTypeGivesTheSameTextAtOnceAndStreamed) {
  struct Row {
    const char* json;
    Tokens tokens;
    const char* expected;
  };
  const Row rows[] = {
      {"null", {"a", "b"}, "a b"},
      {R"({"type": "ByteLevel"})", {"\u0120a", "\u00c3", "\u00a9", "<| |>"}, " a\u00e9<| |>"},
      {R"({"type": "ByteLevel"})", {"\u00e2\u0138", "x"}, "\uFFFDx"},  // two bytes of a character, then another one
      {R"({"type": "ByteLevel"})", {"\u00f0\u0141", "\u013b\u0124"}, "\U0001F642"},
      {R"({"type": "ByteLevel"})", {"a", "\u00e2"}, "a\uFFFD"},  // cut off for good
      {R"({"type": "WordPiece", "prefix": "##", "cleanup": true})", {"don", "##e", "!", "do not"}, "done! don't"},
      {R"({"type": "WordPiece", "prefix": "##", "cleanup": false})", {"##a", "##b", "!"}, "##ab !"},
      {R"({"type": "Metaspace", "replacement": "_", "prepend_scheme": "always"})", {"_a", "_b_"}, "a b "},
      {R"({"type": "Metaspace", "replacement": "_", "prepend_scheme": "never"})", {"_a", "_b"}, " a b"},
      {R"({"type": "BPEDecoder", "suffix": "</w>"})", {"a", "b</w>", "c</w>"}, "ab c"},
      {R"({"type": "ByteFallback"})", {"a", "<0xE2>", "<0x96>", "<0x81>", "b"}, "a\u2581b"},
      {R"({"type": "ByteFallback"})",
       {"<0x41>", "<0xFF>", "b"},
       "\uFFFD\uFFFD"
       "b"},  // a run is text as a whole or not
      {R"({"type": "ByteFallback"})", {"<0xZZ>", "<0x4>"}, "<0xZZ><0x4>"},
      {R"({"type": "Strip", "content": " ", "start": 1, "stop": 1})", {"  a ", " b "}, " ab"},
      {R"({"type": "Replace", "pattern": {"Regex": "[ab]"}, "content": "-"})", {"ac", "b"}, "-c-"},
      {kLlama, {"_the", "_cat", "<0xF0>", "<0x9F>", "<0x99>", "<0x82>", "_"}, "the cat\U0001F642 "},
      {kLlama, {"_", "_a"}, " a"},
      {kLlama, {"<0x20>", "_a"}, " a"},
      {R"({"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 0, "stop": 2}]})",
       {"a ", " ", " b", " ", "  "},
       "a   b "},
      {R"({"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "Replace", "pattern": {"String": "ab"},
           "content": "x"}]})",
       {"a", "b"},
       "x"},
      {R"({"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "ByteFallback"}]})", {"<0x", "41>"}, "A"},
  };
  for (const Row& row : rows) {
    EXPECT_EQ(decoded(row.json, row.tokens), row.expected) << row.json;
    EXPECT_EQ(streamed(row.json, row.tokens), row.expected) << row.json;
  }
}

TEST(Decoders, TextIsGivenOutAsSoonAsItIsCertain) {
  const TokenDecoder decoder = parse_decoder(Json::parse(kLlama, "test"), "test");
  std::vector<DecodeState> states;
  EXPECT_EQ(decode_tokens(decoder, states, {"_the"}, false), "the");
  EXPECT_EQ(decode_tokens(decoder, states, {"<0xC3>"}, false), "");
  EXPECT_EQ(decode_tokens(decoder, states, {"<0xA9>"}, false), "");
  EXPECT_EQ(decode_tokens(decoder, states, {"_x"}, false), "\u00e9 x");
}

TEST(Decoders, BrokenParts) {
  using test::expect_error;
  expect_error(ErrorCode::unsupported, "unknown type 'CTC'. Known: ByteLevel,",
               [] { decoded(R"({"type": "CTC"})", {}); });
  expect_error(ErrorCode::format, "test.decoders[0].content: empty", [] {
    decoded(R"({"type": "Sequence", "decoders": [{"type": "Strip", "content": "", "start": 1, "stop": 0}]})", {});
  });
  expect_error(ErrorCode::format, "test.suffix: empty", [] { decoded(R"({"type": "BPEDecoder", "suffix": ""})", {}); });
  expect_error(ErrorCode::format, "no member 'start'", [] { decoded(R"({"type": "Strip", "content": " "})", {}); });
}

}  // namespace
}  // namespace nibble
