// Finds the tokenizer of a model folder.
#include "core/error.h"
#include "core/file.h"
#include "core/json_text.h"
#include "text/json_fields.h"
#include "text/sentencepiece.h"
#include "text/spm_vocabulary.h"
#include "text/tokenizer.h"
#include "text/unicode.h"

namespace nibble {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxConfigBytes = 16u << 20;
constexpr const char* kFiles[] = {"tokenizer.json", "vocab.txt", "tokenizer.model"};  // in this order of preference

// BERT's vocab.txt: one token per line, the line's number is the id.
Json tokenizer_json_from_vocab(const fs::path& file, const Json& config) {
  const std::string where = file.string();
  const std::string text = read_text_file(file, limits::kMaxJsonBytes);
  if (!is_valid_utf8(text)) fail(ErrorCode::format, where + ": not UTF-8");
  std::vector<std::string> tokens;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const bool carriage_return = end > begin && text[end - 1] == '\r';
    tokens.push_back(text.substr(begin, end - begin - (carriage_return ? 1 : 0)));
    begin = end + 1;
  }
  std::vector<TokenType> types(tokens.size(), TokenType::normal);
  const auto special = [&](std::string_view key, const char* usual) -> int64_t {
    const std::string token = string_or(config, key, usual, where);
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (tokens[i] != token) continue;
      types[i] = TokenType::control;
      return static_cast<int64_t>(i);
    }
    fail(ErrorCode::format, where + ": no token '" + printable(token, 100) + "'");
  };
  const int64_t cls = special("cls_token", "[CLS]");
  const int64_t sep = special("sep_token", "[SEP]");
  for (const auto& [key, usual] : {std::pair("unk_token", "[UNK]"), {"pad_token", "[PAD]"}, {"mask_token", "[MASK]"}}) {
    special(key, usual);
  }
  Json::Object normalizer = {{"clean_text", true},
                             {"handle_chinese_chars", bool_or(config, "tokenize_chinese_chars", true, where)},
                             {"strip_accents", nullptr},
                             {"lowercase", bool_or(config, "do_lower_case", true, where)}};
  if (const Json* accents = config.find_value("strip_accents")) normalizer[2].second = *accents;
  const Json cls_item(Json::Array{Json(tokens[static_cast<size_t>(cls)]), Json(cls)});
  const Json sep_item(Json::Array{Json(tokens[static_cast<size_t>(sep)]), Json(sep)});
  return tokenizer_json(added_tokens_json(tokens, types), typed_json("BertNormalizer", std::move(normalizer)),
                        typed_json("BertPreTokenizer"),
                        typed_json("BertProcessing", {{"sep", sep_item}, {"cls", cls_item}}),
                        typed_json("WordPiece", {{"prefix", "##"}, {"cleanup", true}}),
                        typed_json("WordPiece", {{"unk_token", string_or(config, "unk_token", "[UNK]", where)},
                                                 {"continuing_subword_prefix", "##"},
                                                 {"max_input_chars_per_word", 100},
                                                 {"vocab", vocab_json(tokens)}}));
}

// The names that a BERT folder without a tokenizer_config.json leaves to its class.
Json with_bert_tokens(Json config) {
  for (const auto& [key, token] : {std::pair("cls_token", "[CLS]"),
                                   {"sep_token", "[SEP]"},
                                   {"unk_token", "[UNK]"},
                                   {"pad_token", "[PAD]"},
                                   {"mask_token", "[MASK]"}}) {
    if (config.find_value(key) == nullptr) config.set(key, token);
  }
  return config;
}

}  // namespace

Json read_tokenizer_config(const fs::path& folder) {
  Json config;
  const fs::path file = folder / "tokenizer_config.json";
  if (fs::exists(file)) config = Json::parse_file(file.string(), kMaxConfigBytes);
  const fs::path map_file = folder / "special_tokens_map.json";
  if (!fs::exists(map_file) || config.find_value("added_tokens_decoder")) return config;
  const Json map = Json::parse_file(map_file.string(), kMaxConfigBytes);
  for (const auto& [key, token] : map.as_object(map_file.string())) {
    if (key.ends_with("_token") && config.find_value(key) == nullptr) config.set(key, token);
  }
  return config;
}

bool Tokenizer::folder_has_tokenizer(const fs::path& folder) {
  for (const char* file : kFiles) {
    if (fs::exists(folder / file)) return true;
  }
  return false;
}

Tokenizer Tokenizer::from_folder(const fs::path& folder) {
  if (!folder_has_tokenizer(folder)) {
    fail(ErrorCode::io, folder.string() + ": no tokenizer (looked for tokenizer.json, vocab.txt and tokenizer.model)");
  }
  const Json config = read_tokenizer_config(folder);
  const fs::path json_file = folder / kFiles[0], vocab_file = folder / kFiles[1], model_file = folder / kFiles[2];
  if (fs::exists(json_file)) return from_text(JsonText::parse_file(json_file.string()), config, json_file.string());
  if (fs::exists(vocab_file)) {
    const Json named = with_bert_tokens(config);
    return from_json(tokenizer_json_from_vocab(vocab_file, named), named, vocab_file.string());
  }
  const std::string bytes = read_text_file(model_file, limits::kMaxJsonBytes);
  return from_json(tokenizer_json_from_sentencepiece(bytes, config, model_file.string()), config, model_file.string());
}

}  // namespace nibble
