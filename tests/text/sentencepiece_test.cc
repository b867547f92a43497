#include "text/sentencepiece.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "support/files.h"
#include "text/tokenizer_rows.h"

namespace nibble {
namespace {

using test::expect_error;
using test::Ids;

// Protobuf, as far as it is needed here: numbers below 128.
std::string number_field(int field, int value) {
  std::string key;
  const int tag = field << 3;
  if (tag >= 128) key.push_back(static_cast<char>(tag % 128 + 128));
  key.push_back(static_cast<char>(tag >= 128 ? tag / 128 : tag));
  return key + static_cast<char>(value);
}

std::string bytes_field(int field, const std::string& bytes) {
  return std::string(1, static_cast<char>(field << 3 | 2)) + static_cast<char>(bytes.size()) + bytes;
}

std::string piece(const std::string& text, float score, int type = 1) {
  std::string bits(4, '\0');
  std::memcpy(bits.data(), &score, 4);
  return bytes_field(1, bytes_field(1, text) + std::string(1, 2 << 3 | 5) + bits + number_field(3, type));
}

// <unk>, <s>, </s>, byte tokens 0x0A and 0xC3 0xA9, then pieces; "▁ab" is reached through "ab" only.
std::string pieces() {
  return piece("<unk>", 0, 2) + piece("<s>", 0, 3) + piece("</s>", 0, 3) + piece("<0x0A>", 0, 6) +
         piece("<0xC3>", 0, 6) + piece("<0xA9>", 0, 6) + piece("▁", -6) + piece("a", -7) + piece("b", -8) +
         piece("ab", -1) + piece("▁a", -2) + piece("▁ab", -3);
}

std::string model(int type) { return pieces() + bytes_field(2, number_field(3, type)); }

Tokenizer tokenizer_of(const std::string& bytes, const std::string& config = "null") {
  const Json parsed = Json::parse(config, "config");
  return Tokenizer::from_json(tokenizer_json_from_sentencepiece(bytes, parsed, "tokenizer.model"), parsed,
                              "tokenizer.model");
}

TEST(SentencePiece, BpeMergesByScore) {
  const std::string plain_spaces = bytes_field(3, number_field(4, 0));  // keep extra spaces, as Llama does
  const Tokenizer tokenizer = tokenizer_of(model(2) + plain_spaces);
  EXPECT_EQ(tokenizer.encode("ab"), (Ids{1, 11}));
  EXPECT_EQ(tokenizer.encode("aab", {.add_special_tokens = false}), (Ids{10, 9}));
  EXPECT_EQ(tokenizer.encode("\u00e9\n?", {.add_special_tokens = false}), (Ids{6, 4, 5, 3, 0}));
  EXPECT_EQ(tokenizer.encode("a  b", {.add_special_tokens = false}), (Ids{10, 6, 6, 8}));
  EXPECT_EQ(tokenizer.decode(Ids{11, 6, 4, 5}), "ab \u00e9");
  EXPECT_TRUE(tokenizer.is_special(1));
}

TEST(SentencePiece, ATextThatGoesOnGetsNoSpaceInFront) {
  const Tokenizer tokenizer = tokenizer_of(model(2) + bytes_field(3, number_field(4, 0)));
  const TokenizeOptions goes_on = {.add_special_tokens = false, .continues = true};
  EXPECT_EQ(tokenizer.encode("ab", goes_on), Ids{9});
  EXPECT_EQ(tokenizer.encode(" ab", goes_on), Ids{11});
  EXPECT_EQ(tokenizer.encode("<s>ab", goes_on), tokenizer.encode("<s>ab", {.add_special_tokens = false}));
  EXPECT_EQ(tokenizer.last_added_token("ab<s>a</s>ab"), 6u);
  EXPECT_EQ(tokenizer.last_added_token("ab"), 0u);
}

TEST(SentencePiece, ConfigDecidesAboutBosAndEos) {
  EXPECT_EQ(tokenizer_of(model(2), R"({"add_bos_token": false, "add_eos_token": true})").encode("ab"), (Ids{11, 2}));
  EXPECT_TRUE(tokenizer_of(model(2), R"({"bos_token": "<s>"})").adds_bos());
}

TEST(SentencePiece, UnigramUsesScoresAndPutsEosBehind) {
  const Tokenizer tokenizer = tokenizer_of(model(1));
  EXPECT_EQ(tokenizer.encode(" ab  a "), (Ids{11, 10, 2}));  // extra spaces go by default
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("ab a"), {.skip_special_tokens = true}), "ab a");
}

TEST(SentencePiece, NoDummyPrefix) {
  const Tokenizer tokenizer = tokenizer_of(model(2) + bytes_field(3, number_field(3, 0)));
  EXPECT_EQ(tokenizer.encode("ab", {.add_special_tokens = false}), Ids{9});
  EXPECT_EQ(tokenizer.decode(Ids{11}), " ab");
}

TEST(SentencePiece, BrokenFiles) {
  const auto refuse = [](ErrorCode code, const char* fragment, const std::string& bytes) {
    expect_error(code, fragment, [&] { tokenizer_of(bytes); });
  };
  refuse(ErrorCode::format, "tokenizer.model: no pieces", "");
  refuse(ErrorCode::format, "a field of 100 bytes at byte 2 of 2", "\x0a\x64");
  refuse(ErrorCode::format, "a number is cut off at byte 1", "\xff");
  refuse(ErrorCode::format, "wire type 3", "\x0b");
  refuse(ErrorCode::format, "field 1 has wire type 0, expected 2", number_field(1, 5));
  refuse(ErrorCode::format, "piece 0: not UTF-8", piece("\xff", 0));
  refuse(ErrorCode::format, "piece 0: token type 9, expected 1 to 6", piece("a", 0, 9));
  refuse(ErrorCode::format, "piece 0: the score is not finite", piece("a", NAN));
  refuse(ErrorCode::unsupported, "model type 3. Known: 1 (unigram), 2 (BPE)", model(3));
  expect_error(ErrorCode::unsupported, "XLMRobertaTokenizer numbers its tokens differently",
               [] { tokenizer_of(model(1), R"({"tokenizer_class": "XLMRobertaTokenizer"})"); });
}

TEST(SentencePiece, EveryTruncationIsRefusedOrRead) {
  const std::string whole = model(2);
  for (size_t size = 0; size < whole.size(); ++size) {
    try {
      tokenizer_of(whole.substr(0, size)).encode("ab");
    } catch (const Error& error) {
      EXPECT_NE(error.code(), ErrorCode::internal) << size;
    }
  }
}

}  // namespace
}  // namespace nibble
