#include <gtest/gtest.h>

#include "support/files.h"
#include "text/prefix_index.h"
#include "text/token_model.h"

namespace nibble {
namespace {

TokenModel parse_model(const std::string& text) {
  const Json json = Json::parse(text, "test");
  return parse_token_model(json, token_lists(json, "test"), "test");
}

// As a file is read.
TokenModel parse_model_in_place(const std::string& text) {
  const JsonText parsed = JsonText::parse(text, "test");
  const Json rest = parsed.root().json("test", kTokenListKeys);
  return parse_token_model(rest, token_lists(parsed.root(), "test"), "test");
}

// The tokens with | between.
std::string encoded(const std::string& json, const std::string& word) {
  const TokenModel model = parse_model(json);
  std::vector<int32_t> ids;
  model.encode(word, ids);
  std::string tokens;
  for (const int32_t id : ids) tokens.append(tokens.empty() ? "" : "|").append(*model.vocabulary->token(id));
  return tokens;
}

// A BPE model over these letters with the merges ab, cd, abcd and aa; `more` adds or replaces members.
std::string bpe(const std::string& more = "") {
  return R"({"type": "BPE", "vocab": {"<unk>": 0, "a": 1, "b": 2, "c": 3, "d": 4, "ab": 5, "cd": 6, "abcd": 7, "aa": 8,
             "<0xC3>": 9, "<0xA9>": 10, "d</w>": 11}, "merges": ["a b", ["c", "d"], "ab cd", "a a"])" +
         more + "}";
}

TEST(Bpe, MergesInTheOrderOfTheList) {
  EXPECT_EQ(encoded(bpe(), "abcd"), "abcd");
  EXPECT_EQ(encoded(bpe(), "aab"), "a|ab");  // a b comes before a a
  EXPECT_EQ(encoded(bpe(), "aaa"), "aa|a");  // leftmost first
  EXPECT_EQ(encoded(bpe(), "bcdab"), "b|cd|ab");
}

TEST(Bpe, UnknownCharacters) {
  EXPECT_EQ(encoded(bpe(), "azzb"), "ab");  // no unknown token: dropped, and the neighbours meet
  EXPECT_EQ(encoded(bpe(R"(, "unk_token": "<unk>")"), "azzb"), "a|<unk>|<unk>|b");
  EXPECT_EQ(encoded(bpe(R"(, "unk_token": "<unk>", "fuse_unk": true)"), "azzb"), "a|<unk>|b");
  EXPECT_EQ(encoded(bpe(R"(, "unk_token": "<unk>", "byte_fallback": true)"), "a\u00e9z"), "a|<0xC3>|<0xA9>|<unk>");
}

TEST(Bpe, Options) {
  EXPECT_EQ(encoded(bpe(R"(, "end_of_word_suffix": "</w>")"), "cd"), "c|d</w>");
  const std::string whole = R"({"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [])";
  EXPECT_EQ(encoded(whole + "}", "ab"), "a|b");
  EXPECT_EQ(encoded(whole + R"(, "ignore_merges": true})", "ab"), "ab");
  EXPECT_EQ(encoded(R"({"vocab": {"a": 0, "##b": 1, "ab": 2}, "merges": ["a ##b"], "continuing_subword_prefix": "##"})",
                    "ab"),
            "ab");
}

TEST(Bpe, ALongWordIsNotQuadratic) {
  const TokenModel model = parse_model(bpe());
  std::vector<int32_t> ids;
  model.encode(std::string(1'000'000, 'a'), ids);
  EXPECT_EQ(ids.size(), 500'000u);
}

TEST(Bpe, WordsAreCutAtSpaceMarksOnlyWhereNoMergeCrossesOne) {
  const auto word_start = [](const char* merges) {
    const std::string json = R"({"type": "BPE", "vocab": {"▁": 0, "a": 1, "▁a": 2, "a▁": 3, "▁▁": 4}, "merges": )" +
                             std::string(merges) + "}";
    return parse_model(json).word_start;
  };
  EXPECT_EQ(word_start(R"(["▁ a", "▁ ▁"])"), "▁");
  EXPECT_EQ(word_start(R"(["▁ a", "a ▁"])"), "");
}

TEST(WordPiece, TakesTheLongestToken) {
  const std::string json = R"({"type": "WordPiece", "unk_token": "[UNK]", "max_input_chars_per_word": 6, "vocab":
      {"[UNK]": 0, "un": 1, "##aff": 2, "##able": 3, "unaf": 4, "##f": 5, "é": 6}})";
  EXPECT_EQ(encoded(json, "unaff"), "unaf|##f");
  EXPECT_EQ(encoded(json, "unable"), "un|##able");
  EXPECT_EQ(encoded(json, "unx"), "[UNK]");      // all of the word, not only the rest
  EXPECT_EQ(encoded(json, "unaffff"), "[UNK]");  // seven characters
  EXPECT_EQ(encoded(json, "é"), "é");
}

TEST(WordLevel, KnowsWholeWords) {
  EXPECT_EQ(encoded(R"({"type": "WordLevel", "unk_token": "?", "vocab": {"ab": 0, "?": 1}})", "ab"), "ab");
  EXPECT_EQ(encoded(R"({"type": "WordLevel", "unk_token": "?", "vocab": {"ab": 0, "?": 1}})", "abc"), "?");
  test::expect_error(ErrorCode::unsupported, "no token for 'abc'",
                     [] { encoded(R"({"type": "WordLevel", "vocab": {"ab": 0}})", "abc"); });
}

TEST(Unigram, FindsTheBestSumOfScores) {
  const auto unigram = [](const char* more) {
    return R"({"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", 0.0], ["b", 0.0], ["c", 0.0], ["d", 0.0],
               ["cd", 1.0], ["ab", 2.0], ["abc", 5.0], ["abcd", 10.0], ["<0x78>", 0.0]])" +
           std::string(more) + "}";
  };
  EXPECT_EQ(encoded(unigram(""), "abcd"), "abcd");
  EXPECT_EQ(encoded(unigram(""), "abcacdxx"), "abc|a|cd|<unk>");  // neighbouring unknown characters are one token
  EXPECT_EQ(encoded(unigram(R"(, "byte_fallback": true)"), "axx"), "a|<0x78>|<0x78>");
  EXPECT_EQ(encoded(unigram(R"(, "byte_fallback": true)"), "ay"), "a|<unk>");
  test::expect_error(ErrorCode::unsupported, "no token for 'x'",
                     [] { encoded(R"({"type": "Unigram", "vocab": [["a", 0.5]]})", "ax"); });
}

TEST(PrefixIndex, VisitsAllKeysAtAPosition) {
  const PrefixIndex index({{"b", 1}, {"ab", 2}, {"abcd", 3}, {"", 9}, {"ab", 4}, {"a\xff", 5}});
  std::vector<std::pair<size_t, int32_t>> found;
  index.for_each_at("xabcd", 1, [&](size_t length, int32_t value) { found.emplace_back(length, value); });
  EXPECT_EQ(found, (std::vector<std::pair<size_t, int32_t>>{{2, 4}, {4, 3}}));
}

TEST(TokenModels, BrokenFiles) {
  struct Row {
    ErrorCode code;
    const char* fragment;
    const char* json;
  };
  const Row rows[] = {
      {ErrorCode::format, "test: found an array, expected an object", "[]"},
      {ErrorCode::unsupported, "unknown type 'RNN'. Known: BPE, WordPiece, Unigram, WordLevel", R"({"type": "RNN"})"},
      {ErrorCode::format, "no member 'vocab'", R"({"type": "BPE", "merges": []})"},
      {ErrorCode::format, "test.merges[0]: token 'c' is not in the vocabulary",
       R"({"type": "BPE", "vocab": {"a": 0}, "merges": ["a c"]})"},
      {ErrorCode::format, "test.merges[0]: token 'aa' is not in the vocabulary",
       R"({"type": "BPE", "vocab": {"a": 0}, "merges": ["a a"]})"},
      {ErrorCode::format, "'a' is not two tokens", R"({"type": "BPE", "vocab": {"a": 0}, "merges": ["a"]})"},
      {ErrorCode::format, "a merge of 3 tokens", R"({"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b", "c"]]})"},
      {ErrorCode::format, "lacks the continuation prefix",
       R"({"type": "BPE", "vocab": {"a": 0}, "merges": ["a a"], "continuing_subword_prefix": "##"})"},
      {ErrorCode::format, "token 'a' has id -1", R"({"type": "WordLevel", "vocab": {"a": -1}})"},
      {ErrorCode::format, "token 'a' has id 4000000, expected 0 to 3999999",
       R"({"type": "WordLevel", "vocab": {"a": 4000000}})"},
      {ErrorCode::format, "test.vocab: found a string, expected an integer",
       R"({"type": "WordLevel", "vocab": {"a": "b"}})"},
      {ErrorCode::format, "test.unk_token: '[UNK]' is not in the vocabulary",
       R"({"type": "WordPiece", "vocab": {"a": 0}})"},
      {ErrorCode::format, "test.unk_id: found 1, expected less than 1",
       R"({"type": "Unigram", "vocab": [["a", 0.5]], "unk_id": 1})"},
      {ErrorCode::format, "duplicate key 'a'", R"({"type": "WordLevel", "vocab": {"a": 0, "a": 1}})"},
      {ErrorCode::format, "duplicate key 'vocab'", R"({"type": "WordLevel", "vocab": {"a": 0}, "vocab": {"a": 0}})"},
      {ErrorCode::format, "test.vocab: found an array, expected an object",
       R"({"type": "WordLevel", "vocab": [["a", 0.5]]})"},
      {ErrorCode::format, "test.vocab: found an object, expected an array",
       R"({"type": "Unigram", "vocab": {"a": 0}})"},
      {ErrorCode::format, "test.vocab[0]: found an integer, expected a string",
       R"({"type": "Unigram", "vocab": [[1, 0.5]]})"},
      {ErrorCode::format, "test.merges: found an integer, expected a string",
       R"({"type": "BPE", "vocab": {"a": 0}, "merges": [1]})"},
      {ErrorCode::format, "test.vocab[0]: expected [token, score]", R"({"type": "Unigram", "vocab": [["a"]]})"},
  };
  for (const Row& row : rows) {
    test::expect_error(row.code, row.fragment, [&] { parse_model(row.json); });
    test::expect_error(row.code, row.fragment, [&] { parse_model_in_place(row.json); });
  }
}

}  // namespace
}  // namespace nibble
