// Ids of real tokenizers, equal on every string: transformers.js, llama.cpp, transformers and published models.
#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

#include "io/gguf.h"
#include "support/files.h"
#include "text/gguf_vocab.h"
#include "text/tokenizer_rows.h"

namespace nibble {
namespace {

using test::Ids;
using test::shared_folder;

Ids to_ids(const Json& json) {
  Ids ids;
  for (const Json& id : json.as_array("ids")) ids.push_back(static_cast<int32_t>(id.as_int("id")));
  return ids;
}

Json shared_json(const std::string& path) { return Json::parse_file((shared_folder() / path).string()); }

std::filesystem::path real_models() {
  if (const char* folder = std::getenv("NIBBLE_REAL_MODELS")) return folder;
  const char* home = std::getenv("HOME");
  return std::filesystem::path(home == nullptr ? "" : home) / ".cache" / "nibble-real";
}

void expect_streams_equal(const Tokenizer& tokenizer, const Ids& ids) {
  StreamDecoder stream(tokenizer);
  std::string text;
  for (const int32_t id : ids) text += stream.push(id);
  EXPECT_EQ(text + stream.flush(), tokenizer.decode(ids));
}

std::vector<std::string> split_at(const std::string& text, const std::string& separator) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(separator, begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + separator.size();
  }
  return parts;
}

// llama.cpp's vocabulary tests: texts with a separator line between, one line of ids each.
void expect_llama_cpp_ids(const Tokenizer& tokenizer, const std::string& name) {
  const std::string base =
      (shared_folder() / "real/tokenizer-expected/llama.cpp/ggml-vocab-").string() + name + ".gguf";
  const auto texts = split_at(test::read_file(base + ".inp"), "\n__ggml_vocab_test__\n");
  const auto lines = split_at(test::read_file(base + ".out"), "\n");
  ASSERT_EQ(texts.size(), 47u);
  ASSERT_EQ(lines.size(), texts.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    Ids expected;
    std::istringstream line(lines[i]);
    for (int32_t id = 0; line >> id;) expected.push_back(id);
    const Ids ids = tokenizer.encode(texts[i], {.add_special_tokens = false});
    EXPECT_EQ(ids, expected) << name << ": " << texts[i];
    expect_streams_equal(tokenizer, ids);
  }
}

// transformers cleans decoded text where tokenizer_config.json says so ("clean_up_tokenization_spaces").
std::string cleaned(std::string text) {
  for (const auto& [from, to] : {std::pair<std::string, std::string>{" .", "."},
                                 {" ?", "?"},
                                 {" !", "!"},
                                 {" ,", ","},
                                 {" ' ", "'"},
                                 {" n't", "n't"},
                                 {" 'm", "'m"},
                                 {" 's", "'s"},
                                 {" 've", "'ve"},
                                 {" 're", "'re"}}) {
    for (size_t at = text.find(from); at != text.npos; at = text.find(from, at + to.size()))
      text.replace(at, from.size(), to);
  }
  return text;
}

TEST(TokenizerGolden, TransformersJs) {
  NIBBLE_NEED_SHARED("real/tokenizer-expected/transformers_js_expected.json");
  struct Row {
    const char* repository;
    const char* folder;
    size_t cases;
    bool cleans;
  };
  const Row rows[] = {{"Xenova/Qwen1.5-0.5B-Chat", "qwen2", 25, false},
                      {"Xenova/bert-base-uncased", "bert-base-uncased", 30, true},
                      {"Xenova/gpt2", "gpt2", 26, true},
                      {"Xenova/llama-tokenizer", "llama2", 37, false}};
  const Json all = shared_json("real/tokenizer-expected/transformers_js_expected.json");
  for (const Row& row : rows) {
    const Tokenizer tokenizer = Tokenizer::from_folder(shared_folder() / "real/tokenizers" / row.folder);
    const Json* repository = all.find(row.repository);
    ASSERT_NE(repository, nullptr) << row.repository;
    const auto& cases = repository->find("cases")->as_object("cases");
    EXPECT_EQ(cases.size(), row.cases) << row.repository;
    for (const auto& [name, example] : cases) {
      const std::string text = example.find("text")->as_string(name);
      const Ids expected = to_ids(*example.find("ids"));
      const Json* second = example.find("text_pair");
      const Ids ids =
          second == nullptr ? tokenizer.encode(text) : tokenizer.encode_pair(text, second->as_string(name)).ids;
      EXPECT_EQ(ids, expected) << row.repository << " " << name;
      const std::string decoded = row.cleans ? cleaned(tokenizer.decode(expected)) : tokenizer.decode(expected);
      EXPECT_EQ(decoded, example.find("decoded")->as_string(name)) << row.repository << " " << name;
      expect_streams_equal(tokenizer, expected);
    }
  }
}

TEST(TokenizerGolden, LlamaCpp) {
  NIBBLE_NEED_SHARED("real/gguf-vocab");
  for (const std::string name : {"bert-bge", "gpt-2", "llama-spm"}) {
    const std::filesystem::path path = shared_folder() / "real/gguf-vocab" / ("ggml-vocab-" + name + ".gguf");
    const GgufFile file(path);
    const Json json = tokenizer_json_from_gguf(file.metadata(), path.string());
    const Json config = tokenizer_config_from_gguf(file.metadata(), path.string());
    expect_llama_cpp_ids(Tokenizer::from_json(json, config, path.string()), name);
  }
  expect_llama_cpp_ids(Tokenizer::from_folder(shared_folder() / "real/tokenizers/qwen2"), "qwen2");
}

TEST(TokenizerGolden, SentencePieceModelGivesThePublishedMerges) {
  NIBBLE_NEED_SHARED("real/tokenizers/llama2");
  for (const char* folder : {"real/tokenizers/llama2", "real/models/stories260K"}) {
    const test::TempFolder copy;
    std::filesystem::copy(shared_folder() / folder / "tokenizer.model", copy.path());
    const Tokenizer from_model = Tokenizer::from_folder(copy.path());
    const Tokenizer from_json = Tokenizer::from_folder(shared_folder() / folder);
    EXPECT_EQ(from_model.vocab_size(), from_json.vocab_size());
    for (const char* text :
         {"Once upon a time", "  spaces   and\ttabs\n\n", "na\u00efve \U0001F642 \u65e5\u672c\u8a9e", ""}) {
      EXPECT_EQ(from_model.encode(text), from_json.encode(text)) << folder << ": " << text;
    }
  }
}

void expect_cases(const Tokenizer& tokenizer, const Json& cases, size_t count) {
  ASSERT_EQ(cases.as_array("cases").size(), count);
  for (const Json& example : cases.as_array("cases")) {
    const std::string& text = example.find("text")->as_string("text");
    const Ids expected = to_ids(*example.find("ids"));
    EXPECT_EQ(tokenizer.encode(text), expected) << text;
    if (const Json* decoded = example.find("decoded")) {
      EXPECT_EQ(tokenizer.decode(expected), decoded->as_string("decoded")) << text;
    }
    expect_streams_equal(tokenizer, expected);
  }
}

void expect_smollm_ids(const Tokenizer& tokenizer) {
  const Json expected = shared_json("real/expected/smollm2-135m.json");
  const Json* cases = expected.find("tokenizer");
  expect_cases(tokenizer, *cases, cases->as_array("tokenizer").size());
  expect_cases(tokenizer, *shared_json("real/expected/smollm2-135m.hf_tokenizer_cases.json").find("cases"), 230);
  EXPECT_FALSE(tokenizer.adds_bos());
  EXPECT_EQ(tokenizer.special().bos, 1);
  EXPECT_EQ(tokenizer.special().eos, 2);
  EXPECT_EQ(tokenizer.encode("a  5"), (Ids{81, 256, 37}));        // the digit is split off first
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("x\x04y")), "xy");  // a byte without a token
}

TEST(TokenizerGolden, SmolLm2Folder) {
  NIBBLE_NEED_SHARED("real/expected/smollm2-135m.json");
  const auto folder = real_models() / "smollm2-135m";
  if (!std::filesystem::exists(folder / "tokenizer.json")) GTEST_SKIP() << "no SmolLM2 in " << folder;
  expect_smollm_ids(Tokenizer::from_folder(folder));
}

TEST(TokenizerGolden, SmolLm2Gguf) {
  NIBBLE_NEED_SHARED("real/expected/smollm2-135m.json");
  const auto path = real_models() / "smollm2-135m-gguf" / "SmolLM2-135M-Instruct.Q4_1.gguf";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "no SmolLM2 at " << path;
  const GgufFile file(path);
  expect_smollm_ids(Tokenizer::from_json(tokenizer_json_from_gguf(file.metadata(), path.string()),
                                         tokenizer_config_from_gguf(file.metadata(), path.string()), path.string()));
}

TEST(TokenizerGolden, MiniLm) {
  NIBBLE_NEED_SHARED("real/expected/minilm-l6.json");
  const Tokenizer tokenizer = Tokenizer::from_folder(shared_folder() / "real/tokenizers/bert-base-uncased");
  const Json expected = shared_json("real/expected/minilm-l6.json");
  const auto& sentences = expected.find("sentences")->as_array("sentences");
  const auto& ids = expected.find("input_ids")->as_array("input_ids");
  ASSERT_EQ(sentences.size(), 20u);
  for (size_t i = 0; i < sentences.size(); ++i) {
    Ids encoded = tokenizer.encode(sentences[i].as_string(""));
    const Ids wanted = to_ids(ids[i]);
    if (encoded.size() > wanted.size()) {  // truncated there
      encoded.resize(wanted.size());
      encoded.back() = wanted.back();
    }
    EXPECT_EQ(encoded, wanted) << sentences[i].as_string("");
  }
}

TEST(TokenizerGolden, BertSst2DevSet) {
  NIBBLE_NEED_SHARED("real/models/bert-sst2-4.7M/encoded_dev.json");
  const Tokenizer tokenizer = Tokenizer::from_folder(shared_folder() / "real/models/bert-sst2-4.7M");
  const Json encoded = shared_json("real/models/bert-sst2-4.7M/encoded_dev.json");
  const auto& expected = encoded.find("input_ids")->as_array("input_ids");
  const auto lines = split_at(test::read_file(shared_folder() / "real/data/sst2/dev.tsv"), "\n");
  ASSERT_EQ(expected.size(), 872u);
  for (size_t i = 0; i < expected.size(); ++i) {
    const std::string sentence = lines[i + 1].substr(0, lines[i + 1].rfind('\t'));
    const Ids wanted = to_ids(expected[i]);
    Ids ids = tokenizer.encode(sentence);
    if (ids.size() > wanted.size()) {  // cut to max_len there
      ids.resize(wanted.size());
      ids.back() = wanted.back();
    }
    EXPECT_EQ(ids, wanted) << sentence;
  }
}

TEST(TokenizerGolden, Stories260K) {
  NIBBLE_NEED_SHARED("real/models/stories260K");
  const Tokenizer tokenizer = Tokenizer::from_folder(shared_folder() / "real/models/stories260K");
  const Json expected = shared_json("real/models/stories260K/expected.json");
  EXPECT_TRUE(tokenizer.adds_bos());
  for (const Json& example : expected.find("cases")->as_array("cases")) {
    EXPECT_EQ(tokenizer.encode(example.find("prompt")->as_string("")), to_ids(*example.find("input_ids")));
    Ids all = to_ids(*example.find("input_ids"));
    const Ids greedy = to_ids(*example.find("greedy_ids"));
    all.insert(all.end(), greedy.begin(), greedy.end());
    EXPECT_EQ(tokenizer.decode(all, {.skip_special_tokens = true}), example.find("greedy_text")->as_string(""));
  }
  // The chunks are one stream of stories; each begins with <s>.
  Ids stream;
  const Json chunks = shared_json("real/data/lm-eval-ids/tok512_chunks_256.json");
  for (const Json& chunk : chunks.as_array("chunks")) {
    const Ids ids = to_ids(chunk);
    stream.insert(stream.end(), ids.begin(), ids.end());
  }
  size_t stories = 0;
  for (auto begin = stream.begin(); begin != stream.end(); ++stories) {
    const auto end = std::find(begin + 1, stream.end(), 1);
    if (end == stream.end()) break;  // the last one is cut
    const Ids story(begin, end);
    EXPECT_EQ(tokenizer.encode(tokenizer.decode(story, {.skip_special_tokens = true})), story);
    begin = end;
  }
  EXPECT_GT(stories, 50u);
}

}  // namespace
}  // namespace nibble
