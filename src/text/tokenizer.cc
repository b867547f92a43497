#include "text/tokenizer.h"

#include <algorithm>
#include <charconv>
#include <unordered_map>

#include "text/added_tokens.h"
#include "text/json_fields.h"
#include "text/normalizers.h"
#include "text/post_processors.h"
#include "text/pre_tokenizers.h"
#include "text/token_model.h"
#include "text/unicode.h"

namespace nibble {
namespace {

constexpr const char* kModelPlace = ": model";
constexpr double kLongestMaxLength = 1e9;  // above, transformers means "any length": it writes 1e30
constexpr size_t kMaxCachedBytes = 256;    // longer words hardly ever come twice

// Where the word that begins at `begin` ends: in front of the next run of word_start marks.
size_t word_end(std::string_view text, size_t begin, const std::string& word_start) {
  if (word_start.empty()) return text.size();
  while (text.substr(begin).starts_with(word_start)) begin += word_start.size();
  return std::min(text.find(word_start, begin), text.size());
}

// Encodes the pieces of one text, every different word once.
void encode_words(const TokenModel& model, const std::vector<Piece>& pieces, std::vector<int32_t>& ids) {
  std::unordered_map<std::string_view, std::vector<int32_t>> cache;
  for (const Piece& piece : pieces) {
    const std::string_view text = piece.text;
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = word_end(text, begin, model.word_start);
      const std::string_view word = text.substr(begin, end - begin);
      begin = end;
      if (word.size() > kMaxCachedBytes) {
        model.encode(word, ids);
        continue;
      }
      const auto [entry, is_new] = cache.try_emplace(word);
      if (is_new) model.encode(word, entry->second);
      ids.insert(ids.end(), entry->second.begin(), entry->second.end());
    }
  }
}

// tokenizer_config.json lists added tokens too ("added_tokens_decoder": {"32000": {...}}); those that tokenizer.json
// lacks are added, as transformers does.
void add_config_tokens(std::vector<AddedToken>& tokens, const Json& config, const Vocabulary& vocabulary,
                       const std::string& where) {
  const Json* decoder = config.find_value("added_tokens_decoder");
  if (decoder == nullptr) return;
  std::unordered_map<std::string, bool> known;
  for (const AddedToken& token : tokens) known[token.content] = true;
  const std::string place = where + ": added_tokens_decoder";
  for (const auto& [key, json] : decoder->as_object(place)) {
    int64_t id = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size()) {
      fail(ErrorCode::format, place + ": '" + printable(key, 100) + "' is not a token id");
    }
    AddedToken token = parse_added_token(json, id, place + "." + key);
    if (known.contains(token.content)) continue;
    token.id = vocabulary.id(token.content).value_or(token.id);
    tokens.push_back(std::move(token));
  }
}

// A special token of tokenizer_config.json: "<s>" or {"content": "<s>", ...}.
std::string config_token(const Json& config, std::string_view key, const std::string& where) {
  const Json* token = config.find_value(key);
  if (token == nullptr) return "";
  if (token->is_object()) return required_string(*token, "content", where + ": " + std::string(key));
  return token->as_string(where + ": " + std::string(key));
}

// A normalizer or pre-tokenizer that puts no space in front of a text.
Json without_prefix(Json stage) {
  const Json* type = stage.find_value("type");
  const std::string name = type ? type->as_string("type") : "";
  if (name == "Prepend") return Json();
  if (name == "Metaspace") stage.set("prepend_scheme", "never");
  if (name == "ByteLevel") stage.set("add_prefix_space", false);
  if (name != "Sequence") return stage;
  const char* key = stage.find("normalizers") ? "normalizers" : "pretokenizers";
  Json::Array kept;
  for (const Json& step : stage.find(key)->as_array(key)) {
    if (Json rest = without_prefix(step); !rest.is_null()) kept.push_back(std::move(rest));
  }
  stage.set(key, std::move(kept));
  return stage;
}

std::optional<int64_t> config_max_length(const Json& config, const std::string& where) {
  const Json* length = config.find_value("model_max_length");
  if (length == nullptr) return std::nullopt;
  const double tokens = length->as_double(where + ": model_max_length");
  if (!(tokens >= 1) || tokens > kLongestMaxLength) return std::nullopt;
  return static_cast<int64_t>(tokens);
}

}  // namespace

struct Tokenizer::Impl {
  struct Stages {
    Normalizer normalizer;
    PreTokenizer pre_tokenizer;
  };

  Stages stages, stages_within;  // within: of a text that goes on from another
  TokenModel model;
  AddedTokens added;
  PostProcessor post_processor;
  TokenDecoder decoder;
  SpecialIds special;
  std::optional<int64_t> max_length;
  int64_t vocab_size = 0;

  std::optional<std::string_view> piece(int32_t id) const {
    const AddedToken* token = added.find(id);
    return token != nullptr ? token->content : model.vocabulary->token(id);
  }

  std::optional<int32_t> id(std::string_view piece) const {
    const AddedToken* token = added.find(piece);
    return token != nullptr ? std::optional(token->id) : model.vocabulary->id(piece);
  }

  bool is_special(int32_t id) const {
    const AddedToken* token = added.find(id);
    return token != nullptr && token->special;
  }

  /// The texts of the ids that decoding shows.
  std::vector<std::string> visible(std::span<const int32_t> ids, const DecodeOptions& options) const {
    std::vector<std::string> pieces;
    for (const int32_t id : ids) {
      const std::optional<std::string_view> text = piece(id);
      if (text && !(options.skip_special_tokens && is_special(id))) pieces.emplace_back(*text);
    }
    return pieces;
  }

  void encode_normalized(std::string_view text, const Stages* at_start, std::vector<int32_t>& ids) const {
    for (const Segment& segment : added.split_normalized(text)) {
      if (segment.id) {
        ids.push_back(*segment.id);
        continue;
      }
      const bool is_first = at_start && segment.text.data() == text.data();
      std::vector<Piece> pieces = {{std::string(segment.text), is_first}};
      (is_first ? *at_start : stages).pre_tokenizer(pieces);
      encode_words(model, pieces, ids);
    }
  }

  /// Without special tokens around.
  std::vector<int32_t> encode(std::string_view bytes, bool continues) const {
    const Stages& at_start = continues ? stages_within : stages;
    const std::string text = to_valid_utf8(bytes);
    std::vector<int32_t> ids;
    for (const Segment& segment : added.split_raw(text)) {
      const bool is_first = segment.text.data() == text.data();
      if (segment.id) {
        ids.push_back(*segment.id);
      } else {
        const Stages& here = is_first ? at_start : stages;
        encode_normalized(here.normalizer(std::string(segment.text)), is_first ? &at_start : nullptr, ids);
      }
    }
    return ids;
  }

  /// Shortens the texts so that all fits into max_length, special tokens included, as "longest_first" does: equal
  /// lengths where both have to give, the odd id to the second one, or to the first when that was the longer.
  static void cut(const std::vector<TemplateItem>& items, const TokenizeOptions& options,
                  std::span<const int32_t>& first, std::span<const int32_t>& second) {
    if (options.max_length <= 0) return;
    size_t special = 0;
    for (const TemplateItem& item : items) special += options.add_special_tokens ? item.ids.size() : 0;
    const size_t room = std::max(static_cast<size_t>(options.max_length), special) - special;
    if (first.size() + second.size() <= room) return;
    std::span<const int32_t>& shorter = first.size() > second.size() ? second : first;
    std::span<const int32_t>& longer = &shorter == &first ? second : first;
    shorter = shorter.first(std::min(shorter.size(), room / 2));
    longer = longer.first(room - shorter.size());
  }

  PairEncoding apply(const std::vector<TemplateItem>& items, std::span<const int32_t> first,
                     std::span<const int32_t> second, const TokenizeOptions& options) const {
    PairEncoding out;
    cut(items, options, first, second);
    for (const TemplateItem& item : items) {
      using Kind = TemplateItem::Kind;
      if (item.kind == Kind::special && !options.add_special_tokens) continue;
      const std::span<const int32_t> ids = item.kind == Kind::first_text    ? first
                                           : item.kind == Kind::second_text ? second
                                                                            : std::span(item.ids);
      out.ids.insert(out.ids.end(), ids.begin(), ids.end());
      out.type_ids.insert(out.type_ids.end(), ids.size(), item.type_id);
    }
    return out;
  }

  void read_config(const Json& config, const std::string& where) {
    static constexpr std::pair<std::string_view, std::optional<int32_t> SpecialIds::*> kTokens[] = {
        {"bos_token", &SpecialIds::bos},  {"eos_token", &SpecialIds::eos}, {"unk_token", &SpecialIds::unk},
        {"pad_token", &SpecialIds::pad},  {"cls_token", &SpecialIds::cls}, {"sep_token", &SpecialIds::sep},
        {"mask_token", &SpecialIds::mask}};
    for (const auto& [key, member] : kTokens) {
      const std::string token = config_token(config, key, where);
      if (!token.empty()) special.*member = id(token);
    }
    max_length = config_max_length(config, where);
  }
};

Tokenizer Tokenizer::from_json(const Json& json, const Json& config, const std::string& where) {
  const std::string model_where = where + kModelPlace;
  json.as_object(where);
  return from_parts(json, token_lists(required(json, "model", where), model_where), config, where);
}

Tokenizer Tokenizer::from_text(const JsonText& text, const Json& config, const std::string& where) {
  static constexpr std::string_view kModel[] = {"model"};
  const std::string model_where = where + kModelPlace;
  Json json = text.root().json(where, kModel);
  const std::optional<JsonText::Value> model = text.root().find(kModel[0]);
  if (model) json.set(kModel[0], model->json(model_where, kTokenListKeys));
  return from_parts(json, model ? token_lists(*model, model_where) : TokenLists(), config, where);
}

Tokenizer Tokenizer::from_parts(const Json& json, const TokenLists& lists, const Json& config,
                                const std::string& where) {
  auto impl = std::make_shared<Impl>();
  json.as_object(where);
  const auto part = [&](std::string_view key) {
    const Json* value = json.find(key);
    return value == nullptr ? Json() : *value;
  };
  const std::string config_where = where + ": tokenizer_config";
  const auto parse_stages = [&](const Json& normalizer, const Json& pre_tokenizer) {
    return Impl::Stages{parse_normalizer(normalizer, where + ": normalizer"),
                        parse_pre_tokenizer(pre_tokenizer, where + ": pre_tokenizer")};
  };
  impl->stages = parse_stages(part("normalizer"), part("pre_tokenizer"));
  impl->stages_within = parse_stages(without_prefix(part("normalizer")), without_prefix(part("pre_tokenizer")));
  impl->model = parse_token_model(required(json, "model", where), lists, where + kModelPlace);
  std::vector<AddedToken> added;
  if (const Json* list = json.find_value("added_tokens")) added = parse_added_tokens(*list, where + ": added_tokens");
  add_config_tokens(added, config, *impl->model.vocabulary, config_where);
  impl->added = AddedTokens(std::move(added), impl->stages.normalizer);
  impl->post_processor = parse_post_processor(part("post_processor"), where + ": post_processor");
  impl->decoder = parse_decoder(part("decoder"), where + ": decoder");
  impl->vocab_size = impl->model.vocabulary->end_id();
  for (const AddedToken& token : impl->added.all()) {
    impl->vocab_size = std::max(impl->vocab_size, int64_t{token.id} + 1);
  }
  impl->read_config(config, config_where);
  return Tokenizer(std::move(impl));
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, TokenizeOptions options) const {
  const std::vector<int32_t> ids = impl_->encode(text, options.continues);
  return impl_->apply(impl_->post_processor.single, ids, {}, options).ids;
}

PairEncoding Tokenizer::encode_pair(std::string_view first, std::string_view second, TokenizeOptions options) const {
  const std::vector<int32_t> first_ids = impl_->encode(first, options.continues);
  const std::vector<int32_t> second_ids = impl_->encode(second, options.continues);
  return impl_->apply(impl_->post_processor.pair, first_ids, second_ids, options);
}

size_t Tokenizer::last_added_token(std::string_view text) const {
  size_t last = 0;
  for (const Segment& segment : impl_->added.split_raw(text)) {
    if (segment.id) last = static_cast<size_t>(segment.text.data() - text.data());
  }
  return last;
}

std::string Tokenizer::decode(std::span<const int32_t> ids, DecodeOptions options) const {
  std::vector<DecodeState> states;
  return decode_tokens(impl_->decoder, states, impl_->visible(ids, options), true);
}

std::string Tokenizer::piece(int32_t id) const { return std::string(impl_->piece(id).value_or("")); }

std::optional<int32_t> Tokenizer::token_id(std::string_view piece) const { return impl_->id(piece); }

int64_t Tokenizer::vocab_size() const { return impl_->vocab_size; }

const SpecialIds& Tokenizer::special() const { return impl_->special; }

std::optional<int64_t> Tokenizer::max_length() const { return impl_->max_length; }

bool Tokenizer::is_special(int32_t id) const { return impl_->is_special(id); }

bool Tokenizer::adds_bos() const {
  const std::optional<int32_t> bos = special().bos;
  const std::vector<int32_t> around = encode("");
  return bos && !around.empty() && around.front() == *bos;
}

StreamDecoder::StreamDecoder(Tokenizer tokenizer, DecodeOptions options)
    : tokenizer_(std::move(tokenizer)), options_(options) {}

std::string StreamDecoder::push(int32_t id) {
  const Tokenizer::Impl& impl = *tokenizer_.impl_;
  return decode_tokens(impl.decoder, states_, impl.visible(std::span(&id, 1), options_), false);
}

std::string StreamDecoder::flush() {
  const std::string rest = decode_tokens(tokenizer_.impl_->decoder, states_, {}, true);
  states_.clear();
  return rest;
}

}  // namespace nibble
