#include "text/tokenizer.h"

#include <gtest/gtest.h>

#include "support/files.h"
#include "text/tokenizer_rows.h"

namespace nibble {
namespace {

using test::Ids;
using test::make;
using test::with;
using test::word_level_json;

std::string streamed(const Tokenizer& tokenizer, const Ids& ids, DecodeOptions options = {}) {
  StreamDecoder stream(tokenizer, options);
  std::string text;
  for (const int32_t id : ids) text += stream.push(id);
  return text + stream.flush();
}

TEST(Tokenizer, EncodesWordsAndKnowsItsTokens) {
  const Tokenizer tokenizer = make(word_level_json());
  EXPECT_EQ(tokenizer.encode("a ab  b c"), (Ids{3, 5, 4, 2}));
  EXPECT_EQ(tokenizer.encode(""), Ids{});
  EXPECT_EQ(tokenizer.vocab_size(), 6);
  EXPECT_EQ(tokenizer.piece(5), "ab");
  EXPECT_EQ(tokenizer.piece(6), "");
  EXPECT_EQ(tokenizer.piece(-1), "");
  EXPECT_EQ(tokenizer.token_id("b"), 4);
  EXPECT_EQ(tokenizer.token_id("[SEP]"), 1);
  EXPECT_EQ(tokenizer.token_id("c"), std::nullopt);
  EXPECT_TRUE(tokenizer.is_special(1));
  EXPECT_FALSE(tokenizer.is_special(3));
}

TEST(Tokenizer, DecodeSkipsSpecialAndUnknownIds) {
  const Tokenizer tokenizer = make(word_level_json());
  EXPECT_EQ(tokenizer.decode(Ids{0, 3, 99, -5, 4, 1}), "[CLS] a b [SEP]");
  EXPECT_EQ(tokenizer.decode(Ids{0, 3, 4, 1}, {.skip_special_tokens = true}), "a b");
  EXPECT_EQ(streamed(tokenizer, {0, 3, 4, 1}, {.skip_special_tokens = true}), "a b");
}

TEST(Tokenizer, BrokenUtf8CountsAsReplacementCharacters) {
  const Tokenizer tokenizer = make(word_level_json());
  EXPECT_EQ(tokenizer.encode("a \xff b"), tokenizer.encode("a \uFFFD b"));
}

struct AddedRow {
  const char* added;
  const char* text;
  Ids ids;
};

// Ids as the tokenizers library 0.23 gives them.
TEST(AddedTokens, OptionsAndOrder) {
  const AddedRow rows[] = {
      {R"({"id": 6, "content": "<x>"})", "a<x>b", {3, 6, 4}},
      {R"({"id": 6, "content": "<x>"}, {"id": 7, "content": "<x>b"})", "a<x>b", {3, 7}},  // the longest
      {R"({"id": 6, "content": "x", "single_word": true})", "a x axb x", {3, 6, 2, 6}},
      {R"({"id": 6, "content": "x", "single_word": true})", "x-b", {6, 2}},
      {R"({"id": 6, "content": "  "})", "a  b", {3, 6, 4}},
      {R"({"id": 6, "content": "<x>", "lstrip": true, "rstrip": true}, {"id": 7, "content": " "})",
       "a <x>  b",
       {3, 7, 6, 7, 7, 4}},  // spaces taken by rstrip are found again, as there
      {R"({"id": 6, "content": "AB", "normalized": true})", "a ab AB", {3, 6, 6}},  // both become "ab"
      {R"({"id": 6, "content": "AB", "normalized": false})", "a ab AB", {3, 5, 6}},
  };
  for (const AddedRow& row : rows) {
    Json json = with(word_level_json(), "added_tokens", "[" + std::string(row.added) + "]");
    json = with(json, "normalizer", R"({"type": "Lowercase"})");
    EXPECT_EQ(make(json).encode(row.text), row.ids) << row.added << row.text;
  }
}

TEST(AddedTokens, WhiteSpaceAroundBelongsToTheToken) {
  Json json =
      with(word_level_json(), "added_tokens", R"([{"id": 6, "content": "<x>", "lstrip": true, "rstrip": true}])");
  json.set("pre_tokenizer", Json());  // white space that is left over would be unknown
  EXPECT_EQ(make(json).encode("a <x> \t b"), (Ids{3, 6, 4}));
}

TEST(AddedTokens, ThousandsAreFast) {
  Json::Array added;
  std::string text;
  for (int i = 0; i < 5000; ++i) {
    const std::string content = "<extra_" + std::to_string(i) + ">";
    added.push_back(Json::object({{"id", 10 + i}, {"content", content}, {"special", true}}));
    text += content + "a";
  }
  Json json = word_level_json();
  json.set("added_tokens", std::move(added));
  const Ids ids = make(json).encode(text);
  ASSERT_EQ(ids.size(), 10'000u);
  EXPECT_EQ(ids[0], 10);
  EXPECT_EQ(ids[9998], 5009);
  EXPECT_EQ(ids[9999], 3);
}

TEST(PostProcessors, TemplateAndBertAgree) {
  const std::string special = R"({"[CLS]": {"id": "[CLS]", "ids": [0]}, "[SEP]": {"id": "[SEP]", "ids": [1]}})";
  const auto item = [](const char* kind, const char* id, int type) {
    return std::string("{\"") + kind + R"(": {"id": ")" + id + R"(", "type_id": )" + std::to_string(type) + "}}";
  };
  const std::string single =
      item("SpecialToken", "[CLS]", 0) + "," + item("Sequence", "A", 0) + "," + item("SpecialToken", "[SEP]", 0);
  const std::string pair = single + "," + item("Sequence", "B", 1) + "," + item("SpecialToken", "[SEP]", 1);
  const std::string rows[] = {
      R"({"type": "BertProcessing", "sep": ["[SEP]", 1], "cls": ["[CLS]", 0]})",
      R"({"type": "TemplateProcessing", "single": [)" + single + R"(], "pair": [)" + pair + R"(], "special_tokens": )" +
          special + "}",
      R"({"type": "Sequence", "processors": [{"type": "ByteLevel"}, {"type": "BertProcessing", "sep": ["[SEP]", 1],
          "cls": ["[CLS]", 0]}]})",
  };
  for (const std::string& row : rows) {
    const Tokenizer tokenizer = make(with(word_level_json(), "post_processor", row));
    EXPECT_EQ(tokenizer.encode("a b"), (Ids{0, 3, 4, 1}));
    EXPECT_EQ(tokenizer.encode("a b", {.add_special_tokens = false}), (Ids{3, 4}));
    const PairEncoding both = tokenizer.encode_pair("a", "b b");
    EXPECT_EQ(both.ids, (Ids{0, 3, 1, 4, 4, 1}));
    EXPECT_EQ(both.type_ids, (Ids{0, 0, 0, 1, 1, 1}));
    EXPECT_EQ(tokenizer.encode_pair("a", "b", {.add_special_tokens = false}).type_ids, (Ids{0, 1}));
  }
}

TEST(PostProcessors, RobertaPutsTwoSeparatorsBetween) {
  const Tokenizer tokenizer = make(with(word_level_json(), "post_processor",
                                        R"({"type": "RobertaProcessing", "sep": ["[SEP]", 1], "cls": ["[CLS]", 0]})"));
  EXPECT_EQ(tokenizer.encode_pair("a", "b").ids, (Ids{0, 3, 1, 1, 4, 1}));
  EXPECT_EQ(tokenizer.encode_pair("a", "b").type_ids, Ids(6, 0));
}

TEST(PostProcessors, WithoutOnePairsAreJoined) {
  const PairEncoding both = make(word_level_json()).encode_pair("a", "b b");
  EXPECT_EQ(both.ids, (Ids{3, 4, 4}));
  EXPECT_EQ(both.type_ids, (Ids{0, 1, 1}));
}

TEST(TokenizerConfig, NamesSpecialTokens) {
  const std::string config = R"({"bos_token": {"content": "[CLS]"}, "eos_token": "[SEP]", "unk_token": "[UNK]",
      "pad_token": null, "mask_token": "missing"})";
  const Tokenizer plain = make(word_level_json(), config);
  EXPECT_EQ(plain.special().bos, 0);
  EXPECT_EQ(plain.special().eos, 1);
  EXPECT_EQ(plain.special().unk, 2);
  EXPECT_EQ(plain.special().pad, std::nullopt);
  EXPECT_EQ(plain.special().mask, std::nullopt);
  EXPECT_FALSE(plain.adds_bos());  // naming a bos token does not put it in front of texts
  EXPECT_EQ(plain.encode("a"), Ids{3});
  const Json around = with(word_level_json(), "post_processor",
                           R"({"type": "BertProcessing", "sep": ["[SEP]", 1], "cls": ["[CLS]", 0]})");
  EXPECT_TRUE(make(around, config).adds_bos());
  EXPECT_FALSE(make(around).adds_bos());
}

TEST(TokenizerConfig, BringsAddedTokensThatTokenizerJsonLacks) {
  const Tokenizer tokenizer = make(word_level_json(), R"({"added_tokens_decoder": {
      "0": {"content": "[CLS]", "special": true}, "9": {"content": "<pad>", "special": true}}})");
  EXPECT_EQ(tokenizer.encode("a<pad>b"), (Ids{3, 9, 4}));
  EXPECT_EQ(tokenizer.vocab_size(), 10);
  EXPECT_TRUE(tokenizer.is_special(9));
}

// Byte-level BPE over single bytes, as GPT-2's but without merges.
Json byte_json() {
  return Json::parse(R"({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},
      "decoder": {"type": "ByteLevel"},
      "model": {"type": "BPE", "vocab": {"a": 0, "Ġ": 1, "ð": 2, "Ł": 3, "Ļ": 4, "Ĥ": 5, "â": 6}, "merges": []}})",
                     "test");
}

TEST(StreamDecoder, NeverEndsInsideACharacter) {
  StreamDecoder stream(make(byte_json()));
  EXPECT_EQ(stream.push(0), "a");
  EXPECT_EQ(stream.push(2), "");
  EXPECT_EQ(stream.push(3), "");
  EXPECT_EQ(stream.push(4), "");
  EXPECT_EQ(stream.push(5), "\U0001F642");
  EXPECT_EQ(stream.push(6), "");
  EXPECT_EQ(stream.push(0), "\uFFFDa");  // the character will not come any more
  EXPECT_EQ(stream.push(6), "");
  EXPECT_EQ(stream.flush(), "\uFFFD");
  EXPECT_EQ(stream.push(0), "a");  // as new after flush
}

// Bytes that the vocabulary lacks vanish, since the model has no unknown token: decode(encode(x)) can be shorter than
// x.
TEST(Tokenizer, MissingByteTokensAreDropped) {
  const Tokenizer tokenizer = make(byte_json());
  EXPECT_EQ(tokenizer.encode("a\x04 a"), (Ids{0, 1, 0}));
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("a\x04 a")), "a a");
}

TEST(Tokenizer, PutsNoSpaceInFrontOfATextThatGoesOn) {
  for (const std::string stage : {R"({"type": "Metaspace", "replacement": "_", "prepend_scheme": "always"})",
                                  R"({"type": "Metaspace", "replacement": "_", "prepend_scheme": "first"})",
                                  R"({"type": "ByteLevel", "add_prefix_space": true})"}) {
    for (const std::string& json : {stage, R"({"type": "Sequence", "pretokenizers": [)" + stage + "]}"}) {
      const Tokenizer tokenizer = make(with(word_level_json(), "pre_tokenizer", json));
      EXPECT_EQ(tokenizer.encode("a"), Ids{2}) << json;
      EXPECT_EQ(tokenizer.encode("a", {.continues = true}), Ids{3}) << json;
    }
  }
}

}  // namespace
}  // namespace nibble
