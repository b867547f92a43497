#include "text/gguf_vocab.h"

#include <gtest/gtest.h>

#include "support/files.h"
#include "text/byte_level.h"
#include "text/tokenizer_rows.h"

namespace nibble {
namespace {

using test::expect_error;
using test::Ids;

// Metadata from short keys: "tokens" is "tokenizer.ggml.tokens".
Json metadata(const std::string& entries) {
  Json result = Json::object();
  const Json parsed = Json::parse("{" + entries + "}", "test");
  for (const auto& [key, value] : parsed.as_object("test")) {
    result.set(key.find('.') == key.npos ? "tokenizer.ggml." + key : key, value);
  }
  return result;
}

Tokenizer tokenizer_of(const std::string& entries) {
  const Json data = metadata(entries);
  return Tokenizer::from_json(tokenizer_json_from_gguf(data, "m.gguf"), tokenizer_config_from_gguf(data, "m.gguf"),
                              "m.gguf");
}

const std::string kByteBpe = R"("model": "gpt2", "tokens": ["<|end|>", "a", "Ġ", "5", "ĠĠ", "Ġa", "<b>"],
    "token_type": [3, 1, 1, 1, 1, 1, 4], "merges": ["Ġ Ġ", "Ġ a"], "bos_token_id": 0, "eos_token_id": 0)";

// SmolLM: every digit stands alone before GPT-2's split, so the spaces in front of it stay together; GPT-2's own split
// leaves the last space to the digit.
TEST(GgufVocab, DigitSplitComesFirst) {
  EXPECT_EQ(tokenizer_of(kByteBpe + R"(, "pre": "smollm")").encode("a  5"), (Ids{1, 4, 3}));
  EXPECT_EQ(tokenizer_of(kByteBpe + R"(, "pre": "gpt-2")").encode("a  5"), (Ids{1, 2, 2, 3}));
}

// A file that names a bos token need not put it in front.
TEST(GgufVocab, BosOnlyWhereTheFileOrThePreTokenizerSaysSo) {
  EXPECT_EQ(tokenizer_of(kByteBpe + R"(, "pre": "gpt-2")").encode("a"), Ids{1});
  EXPECT_EQ(tokenizer_of(kByteBpe + R"(, "pre": "llama-bpe")").encode("a"), (Ids{0, 1}));
  EXPECT_EQ(tokenizer_of(kByteBpe + R"(, "pre": "llama-bpe", "add_bos_token": false)").encode("a"), Ids{1});
  const Tokenizer tokenizer =
      tokenizer_of(kByteBpe + R"(, "pre": "gpt-2", "add_bos_token": true, "add_eos_token": true)");
  EXPECT_EQ(tokenizer.encode("a"), (Ids{0, 1, 0}));
  EXPECT_TRUE(tokenizer.adds_bos());
}

TEST(GgufVocab, AddedTokensKeepTheirKind) {
  const Tokenizer tokenizer = tokenizer_of(kByteBpe + R"(, "pre": "gpt-2")");
  EXPECT_EQ(tokenizer.encode("a<|end|><b> a"), (Ids{1, 0, 6, 5}));
  EXPECT_TRUE(tokenizer.is_special(0));
  EXPECT_FALSE(tokenizer.is_special(6));
  EXPECT_EQ(tokenizer.decode(Ids{1, 0, 6, 5}, {.skip_special_tokens = true}), "a<b> a");
}

TEST(GgufVocab, EveryPreTokenizerCompilesAndKeepsTheText) {
  const std::string text =
      "It's 12345 o'clock!!\r\n\n  caf\u00e9 \u65e5\u672c\u8a9e  HTTPServer \u0645\u0631\u062d\u0628\u0627\t";
  for (const char* name : {"gpt-2", "mpt", "default", "smollm", "llama-bpe", "dbrx", "qwen2", "qwen35", "gpt-4o",
                           "tekken", "seed-coder", "deepseek-coder", "deepseek-v3", "falcon", "bloom", "viking"}) {
    const GgufPreTokenizer& row = find_gguf_pre_tokenizer(name, "test");
    const Json json = tokenizer_json_from_gguf(metadata(kByteBpe + R"(, "pre": ")" + name + "\""), "test");
    EXPECT_EQ(json.find("normalizer")->is_null(), !row.nfc) << name;
    // With a vocabulary of all bytes nothing may get lost.
    Json all = Json::object();
    for (int byte = 0; byte < 256; ++byte) all.set(bytes_to_chars(std::string(1, static_cast<char>(byte))), byte);
    Json model = Json::object({{"type", "BPE"}, {"vocab", all}, {"merges", Json::array()}});
    Json whole = json;
    whole.set("model", model);
    whole.set("added_tokens", Json::array());
    whole.set("post_processor", Json());
    const Tokenizer tokenizer = test::make(whole);
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text) << name;
  }
  expect_error(ErrorCode::unsupported, "m.gguf: tokenizer.ggml.pre: unknown pre-tokenizer 'kimi'. Known: gpt-2 phi-2",
               [] { tokenizer_of(kByteBpe + R"(, "pre": "kimi")"); });
  expect_error(ErrorCode::unsupported, "unknown pre-tokenizer 'gpt-2 phi-2'",
               [] { find_gguf_pre_tokenizer("gpt-2 phi-2", ""); });
}

TEST(GgufVocab, SentencePieceMergesByScore) {
  const std::string entries =
      R"("model": "llama", "tokens": ["<unk>", "<s>", "</s>", "<0x0A>", "▁", "a", "b", "ab", "▁a",
      "▁ab"], "scores": [0.0, 0.0, 0.0, 0.0, -6.5, -7.5, -8.5, -1.5, -2.5, -3.5],
      "token_type": [2, 3, 3, 6, 1, 1, 1, 1, 1, 1])";
  EXPECT_EQ(tokenizer_of(entries).encode("aab\n"), (Ids{1, 8, 7, 3}));
  EXPECT_EQ(tokenizer_of(entries + R"(, "add_bos_token": false, "add_space_prefix": false)").encode("ab"), Ids{7});
  const Tokenizer tokenizer = tokenizer_of(entries);
  EXPECT_EQ(tokenizer.decode(Ids{9, 4, 5}), "ab a");
}

TEST(GgufVocab, BertTokensGetTheirPrefixBack) {
  const std::string entries = R"("model": "bert", "tokens": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "▁un", "able", "▁!"],
      "token_type": [1, 1, 3, 3, 1, 1, 1], "unknown_token_id": 1, "cls_token_id": 2, "seperator_token_id": 3)";
  const Tokenizer tokenizer = tokenizer_of(entries);
  EXPECT_EQ(tokenizer.encode("Unable!"), (Ids{2, 4, 5, 6, 3}));
  EXPECT_EQ(tokenizer.piece(5), "##able");
  EXPECT_EQ(tokenizer.piece(0), "[PAD]");
  EXPECT_EQ(tokenizer.special().cls, 2);
  EXPECT_EQ(tokenizer.special().sep, 3);
}

TEST(GgufVocab, Unigram) {
  const std::string entries = R"("model": "t5", "tokens": ["<pad>", "</s>", "<unk>", "▁", "a", "▁a"],
      "scores": [0.0, 0.0, 0.0, -2.5, -3.5, -4.5], "token_type": [3, 3, 2, 1, 1, 1], "eos_token_id": 1,
      "unknown_token_id": 2)";
  EXPECT_EQ(tokenizer_of(entries).encode("a a?"), (Ids{5, 5, 2, 1}));
}

TEST(GgufVocab, ConfigHasTemplateAndTokens) {
  const Json config = tokenizer_config_from_gguf(
      metadata(kByteBpe + R"(, "padding_token_id": 1, "add_bos_token": false, "tokenizer.chat_template": "{{ x }}")"),
      "m.gguf");
  EXPECT_EQ(config.find("chat_template")->as_string(""), "{{ x }}");
  EXPECT_EQ(config.find("bos_token")->as_string(""), "<|end|>");
  EXPECT_EQ(config.find("pad_token")->as_string(""), "a");
  EXPECT_FALSE(config.find("add_bos_token")->as_bool(""));
  EXPECT_EQ(config.find("tokenizer_class")->as_string(""), "PreTrainedTokenizerFast");
}

TEST(GgufVocab, BrokenMetadata) {
  struct Row {
    ErrorCode code;
    const char* entries;
    const char* fragment;
  };
  const Row rows[] = {
      {ErrorCode::format, R"("model": "gpt2")", "m.gguf: tokenizer.ggml.tokens: missing"},
      {ErrorCode::format, R"("tokens": ["a"])", "tokenizer.ggml.model: missing"},
      {ErrorCode::format, R"("model": "gpt2", "tokens": [])", "0 tokens"},
      {ErrorCode::format, R"("model": "gpt2", "tokens": [3])", "tokens: found an integer, expected a string"},
      {ErrorCode::unsupported, R"("model": "rwkv", "tokens": ["a"])",
       "unknown type 'rwkv'. Known: gpt2, llama, bert, t5"},
      {ErrorCode::format, R"("model": "gpt2", "tokens": ["a"])", "tokenizer.ggml.merges: missing"},
      {ErrorCode::format, R"("model": "gpt2", "tokens": ["a"], "merges": [1])", "merges: found an integer"},
      {ErrorCode::format, R"("model": "gpt2", "tokens": ["a"], "merges": [], "token_type": [])",
       "token_type: found 0 entries, expected 1"},
      {ErrorCode::format, R"("model": "gpt2", "tokens": ["a"], "merges": [], "token_type": [1.0])",
       "token_type[0]: found a number, expected an integer"},
      {ErrorCode::format, R"("model": "gpt2", "tokens": ["a"], "merges": [], "token_type": [0])",
       "token_type[0]: token type 0, expected 1 to 6"},
      {ErrorCode::format, R"("model": "gpt2", "tokens": ["a"], "merges": [], "bos_token_id": 1)",
       "bos_token_id: found 1, expected less than 1"},
      {ErrorCode::format, R"("model": "gpt2", "tokens": ["a"], "merges": [], "add_bos_token": 1)",
       "add_bos_token: found an integer, expected a boolean"},
      {ErrorCode::format, R"("model": "llama", "tokens": ["a"])", "tokenizer.ggml.scores: missing"},
      {ErrorCode::format, R"("model": "llama", "tokens": ["a"], "scores": [1])", "scores: found an integer"},
      {ErrorCode::format, R"("model": "llama", "tokens": ["a"], "scores": [0.5, 0.5])", "scores: found 2 entries"},
      {ErrorCode::format, R"("model": "bert", "tokens": ["a"])", "unknown_token_id: missing"},
      {ErrorCode::format, R"("model": "t5", "tokens": ["a"], "scores": [0.5], "precompiled_charsmap": [300])",
       "300 is not a byte"},
  };
  for (const Row& row : rows) expect_error(row.code, row.fragment, [&] { tokenizer_of(row.entries); });
  Json raw = metadata(R"("model": "gpt2", "merges": [])");
  raw.set("tokenizer.ggml.tokens", Json(Json::Array{Json("\xff")}));
  expect_error(ErrorCode::format, "tokens[0]: not UTF-8", [&] { tokenizer_json_from_gguf(raw, "m.gguf"); });
}

}  // namespace
}  // namespace nibble
