#include "text/gguf_vocab.h"

#include <cmath>

#include "core/limits.h"
#include "text/json_fields.h"
#include "text/spm_vocabulary.h"
#include "text/unicode.h"

namespace nibble {
namespace {

constexpr std::string_view kPrefix = "tokenizer.ggml.";
constexpr std::string_view kWordStart = "\u2581";

// A value of one of GGUF's integer types; floats with an integral value are wrong too.
int64_t integer(const Json& value, const std::string& place) {
  if (!value.is_integer()) {
    fail(ErrorCode::format, place + ": found " + std::string(value.type_name()) + ", expected an integer");
  }
  return value.as_int(place);
}

// The entries that all models share, checked.
struct GgufTokens {
  const Json& metadata;
  const std::string& where;
  std::vector<std::string> tokens;
  std::vector<TokenType> types;

  std::string place(std::string_view key) const { return where + ": " + std::string(kPrefix) + std::string(key); }
  const Json* find(std::string_view key) const { return metadata.find_value(std::string(kPrefix) + std::string(key)); }

  bool flag(std::string_view key, bool fallback) const {
    const Json* value = find(key);
    return value == nullptr ? fallback : value->as_bool(place(key));
  }

  /// An array with one item per token; null when the key is absent.
  const Json::Array* per_token(std::string_view key) const {
    const Json* value = find(key);
    if (value == nullptr) return nullptr;
    const Json::Array& items = value->as_array(place(key));
    if (items.size() != tokens.size()) {
      fail(ErrorCode::format, place(key) + ": found " + std::to_string(items.size()) + " entries, expected " +
                                  std::to_string(tokens.size()) + ", one per token");
    }
    return &items;
  }

  /// The id under a key such as "bos_token_id"; `fallback` when it is absent.
  std::optional<int64_t> id(std::string_view key, std::optional<int64_t> fallback = std::nullopt) const {
    const Json* value = find(key);
    const auto id = value == nullptr ? fallback : std::optional(integer(*value, place(key)));
    const auto count = static_cast<int64_t>(tokens.size());
    if (value != nullptr && (*id < 0 || *id >= count)) {
      fail(ErrorCode::format,
           place(key) + ": found " + std::to_string(*id) + ", expected less than " + std::to_string(count));
    }
    return id && *id < count ? id : std::nullopt;
  }
};

GgufTokens read_tokens(const Json& metadata, const std::string& where) {
  GgufTokens result{metadata, where, {}, {}};
  const std::string place = result.place("tokens");
  const Json* list = result.find("tokens");
  if (list == nullptr) fail(ErrorCode::format, place + ": missing; the file has no tokenizer");
  for (const Json& item : list->as_array(place)) {
    const std::string& token = item.as_string(place);
    if (!is_valid_utf8(token)) {
      fail(ErrorCode::format, place + "[" + std::to_string(result.tokens.size()) + "]: not UTF-8");
    }
    result.tokens.push_back(token);
  }
  if (result.tokens.empty() || result.tokens.size() > static_cast<size_t>(limits::kMaxVocabulary)) {
    fail(ErrorCode::format, place + ": " + std::to_string(result.tokens.size()) + " tokens");
  }
  result.types.assign(result.tokens.size(), TokenType::normal);
  if (const Json::Array* types = result.per_token("token_type")) {
    const std::string types_place = result.place("token_type");
    for (size_t i = 0; i < types->size(); ++i) {
      const std::string item_place = types_place + "[" + std::to_string(i) + "]";
      result.types[i] = to_token_type(integer((*types)[i], item_place), item_place);
    }
  }
  return result;
}

std::vector<double> read_scores(const GgufTokens& gguf) {
  const std::string place = gguf.place("scores");
  const Json::Array* items = gguf.per_token("scores");
  if (items == nullptr) fail(ErrorCode::format, place + ": missing");
  std::vector<double> scores;
  for (const Json& item : *items) {
    if (item.is_integer()) fail(ErrorCode::format, place + ": found an integer, expected 32-bit floats");
    scores.push_back(item.as_double(place));
    if (!std::isfinite(scores.back())) fail(ErrorCode::format, place + ": a score is not finite");
  }
  return scores;
}

// "gpt2": byte-level BPE with a list of merges.
Json from_byte_bpe(const GgufTokens& gguf) {
  const Json* pre = gguf.find("pre");
  const std::string name = pre == nullptr ? "default" : pre->as_string(gguf.place("pre"));
  const GgufPreTokenizer& row = find_gguf_pre_tokenizer(name, gguf.where);
  Json::Array steps;
  for (const char* pattern : row.patterns) {
    if (pattern == nullptr) break;
    steps.push_back(typed_json(
        "Split", {{"pattern", Json::object({{"Regex", Json(pattern)}})}, {"behavior", "Isolated"}, {"invert", false}}));
  }
  const auto byte_level = [&] {
    return typed_json(
        "ByteLevel",
        {{"add_prefix_space", gguf.flag("add_space_prefix", false)}, {"trim_offsets", false}, {"use_regex", false}});
  };
  steps.push_back(byte_level());
  const Json* merges = gguf.find("merges");
  if (merges == nullptr) fail(ErrorCode::format, gguf.place("merges") + ": missing");
  for (const Json& merge : merges->as_array(gguf.place("merges"))) merge.as_string(gguf.place("merges"));
  const auto front = gguf.flag("add_bos_token", row.adds_bos) ? gguf.id("bos_token_id") : std::nullopt;
  const auto back = gguf.flag("add_eos_token", false) ? gguf.id("eos_token_id") : std::nullopt;
  Json model = typed_json("BPE", {{"dropout", nullptr},
                                  {"unk_token", nullptr},
                                  {"continuing_subword_prefix", nullptr},
                                  {"end_of_word_suffix", nullptr},
                                  {"fuse_unk", false},
                                  {"byte_fallback", false},
                                  {"ignore_merges", row.ignore_merges},
                                  {"vocab", vocab_json(gguf.tokens)},
                                  {"merges", *merges}});
  return tokenizer_json(added_tokens_json(gguf.tokens, gguf.types), row.nfc ? typed_json("NFC") : Json(),
                        typed_json("Sequence", {{"pretokenizers", std::move(steps)}}),
                        template_json(gguf.tokens, front, back), byte_level(), std::move(model));
}

std::string read_charsmap(const GgufTokens& gguf) {
  std::string bytes;
  const Json* map = gguf.find("precompiled_charsmap");
  if (map == nullptr) return bytes;
  const std::string place = gguf.place("precompiled_charsmap");
  for (const Json& item : map->as_array(place)) {
    const int64_t byte = item.as_int(place);
    if (byte < -128 || byte > 255) fail(ErrorCode::format, place + ": " + std::to_string(byte) + " is not a byte");
    bytes.push_back(static_cast<char>(byte));
  }
  return bytes;
}

Json from_sentencepiece(const GgufTokens& gguf, SpmVocabulary::Kind kind) {
  const bool bpe = kind == SpmVocabulary::Kind::bpe;
  SpmVocabulary vocabulary;
  vocabulary.kind = kind;
  vocabulary.tokens = gguf.tokens;
  vocabulary.types = gguf.types;
  vocabulary.scores = read_scores(gguf);
  vocabulary.charsmap = read_charsmap(gguf);
  vocabulary.add_space_prefix = gguf.flag("add_space_prefix", true);
  vocabulary.remove_extra_spaces = gguf.flag("remove_extra_whitespaces", false);
  // The numbers that SentencePiece gives them when nothing else is said.
  vocabulary.unknown = gguf.id("unknown_token_id", bpe ? 0 : 2);
  if (gguf.flag("add_bos_token", bpe)) vocabulary.bos = gguf.id("bos_token_id", 1);
  if (gguf.flag("add_eos_token", !bpe)) vocabulary.eos = gguf.id("eos_token_id", bpe ? 2 : 1);
  return tokenizer_json_from_spm(vocabulary, gguf.where);
}

Json from_bpe_scores(const GgufTokens& gguf) { return from_sentencepiece(gguf, SpmVocabulary::Kind::bpe); }

Json from_unigram(const GgufTokens& gguf) { return from_sentencepiece(gguf, SpmVocabulary::Kind::unigram); }

// GGUF marks tokens that begin a word with U+2581, tokenizer.json those that do not with ##. Names in brackets ([CLS],
// [unused1]) are the same in both.
std::string word_piece_token(const std::string& token) {
  if (token.starts_with(kWordStart)) return token.substr(kWordStart.size());
  const bool bracketed = token.size() > 2 && token.front() == '[' && token.back() == ']';
  return bracketed ? token : "##" + token;
}

Json from_word_piece(const GgufTokens& gguf) {
  std::vector<std::string> tokens;
  for (size_t i = 0; i < gguf.tokens.size(); ++i) {
    const bool normal = gguf.types[i] == TokenType::normal || gguf.types[i] == TokenType::unused;
    tokens.push_back(normal ? word_piece_token(gguf.tokens[i]) : gguf.tokens[i]);
  }
  std::vector<TokenType> types = gguf.types;
  const auto cls = gguf.id("cls_token_id", gguf.id("bos_token_id"));
  const auto sep = gguf.id("seperator_token_id", gguf.id("eos_token_id"));  // the key is spelled so
  const auto unknown = gguf.id("unknown_token_id", 100);                    // [UNK] of every published BERT
  if (!unknown) fail(ErrorCode::format, gguf.place("unknown_token_id") + ": missing");
  for (const auto& id : {cls, sep, unknown, gguf.id("padding_token_id"), gguf.id("mask_token_id")}) {
    if (id) types[static_cast<size_t>(*id)] = TokenType::control;
  }
  Json model = typed_json("WordPiece", {{"unk_token", Json(tokens[static_cast<size_t>(*unknown)])},
                                        {"continuing_subword_prefix", "##"},
                                        {"max_input_chars_per_word", 100},
                                        {"vocab", vocab_json(tokens)}});
  // The files do not say whether the model is cased; llama.cpp always takes lower case without accents.
  Json normalizer =
      typed_json("BertNormalizer",
                 {{"clean_text", true}, {"handle_chinese_chars", true}, {"strip_accents", true}, {"lowercase", true}});
  return tokenizer_json(added_tokens_json(tokens, types), std::move(normalizer), typed_json("BertPreTokenizer"),
                        template_json(tokens, cls, sep), typed_json("WordPiece", {{"prefix", "##"}, {"cleanup", true}}),
                        std::move(model));
}

constexpr TypeRow<Json (*)(const GgufTokens&)> kModels[] = {
    {"gpt2", from_byte_bpe}, {"llama", from_bpe_scores}, {"bert", from_word_piece}, {"t5", from_unigram}};

}  // namespace

Json tokenizer_json_from_gguf(const Json& metadata, const std::string& where) {
  const GgufTokens gguf = read_tokens(metadata, where);
  const Json* model = gguf.find("model");
  if (model == nullptr) fail(ErrorCode::format, gguf.place("model") + ": missing");
  return find_type(kModels, model->as_string(gguf.place("model")), gguf.place("model"))(gguf);
}

Json tokenizer_config_from_gguf(const Json& metadata, const std::string& where) {
  static constexpr std::pair<std::string_view, std::string_view> kTokens[] = {
      {"bos_token", "bos_token_id"},     {"eos_token", "eos_token_id"}, {"unk_token", "unknown_token_id"},
      {"pad_token", "padding_token_id"}, {"cls_token", "cls_token_id"}, {"sep_token", "seperator_token_id"},
      {"mask_token", "mask_token_id"}};
  const GgufTokens gguf = read_tokens(metadata, where);
  Json config = Json::object({{"tokenizer_class", "PreTrainedTokenizerFast"}, {"clean_up_tokenization_spaces", false}});
  for (const auto& [name, key] : kTokens) {
    if (const auto id = gguf.id(key)) config.set(name, Json(gguf.tokens[static_cast<size_t>(*id)]));
  }
  for (const std::string_view key : {"add_bos_token", "add_eos_token"}) {
    if (gguf.find(key) != nullptr) config.set(key, gguf.flag(key, false));
  }
  if (const Json* text = metadata.find_value("tokenizer.chat_template")) {
    config.set("chat_template", text->as_string(where + ": tokenizer.chat_template"));
  }
  return config;
}

}  // namespace nibble
