#include "text/spm_vocabulary.h"

#include <algorithm>
#include <tuple>
#include <unordered_map>
#include <unordered_set>

#include "core/error.h"
#include "text/charsmap.h"
#include "text/unicode.h"

namespace nibble {
namespace {

constexpr std::string_view kSpaceMark = "\u2581";
constexpr size_t kMaxSplitBytes = 256;     // longer tokens are never merged from parts; published ones have up to 64
constexpr size_t kMaxMergesPerToken = 64;  // published vocabularies have about 2

struct ScoredMerge {
  int64_t left, right;  // ids
  double score;         // of the joined token
};

// SentencePiece joins the neighbours whose joined token has the highest score. As a list of merges: every way to cut a
// token into two tokens, highest score first; at equal scores the smaller ids first, as in the published tokenizer.json
// of Llama 2.
std::vector<ScoredMerge> scored_merges(const SpmVocabulary& vocabulary, const std::string& where) {
  std::unordered_map<std::string_view, int64_t> ids;
  for (size_t i = 0; i < vocabulary.tokens.size(); ++i) ids[vocabulary.tokens[i]] = static_cast<int64_t>(i);
  std::vector<ScoredMerge> merges;
  for (size_t i = 0; i < vocabulary.tokens.size(); ++i) {
    const std::string_view token = vocabulary.tokens[i];
    const TokenType type = vocabulary.types[i];
    if (token.size() > kMaxSplitBytes || (type != TokenType::normal && type != TokenType::user_defined)) continue;
    if (ids.at(token) != static_cast<int64_t>(i)) continue;
    for (size_t cut = token.empty() ? 0 : char_bytes(token[0]); cut < token.size(); cut += char_bytes(token[cut])) {
      const auto left = ids.find(token.substr(0, cut));
      const auto right = ids.find(token.substr(cut));
      if (left == ids.end() || right == ids.end()) continue;
      merges.push_back({left->second, right->second, vocabulary.scores[i]});
    }
    if (merges.size() > kMaxMergesPerToken * vocabulary.tokens.size()) {
      fail(ErrorCode::format, where + ": the tokens can be cut into each other in more than " +
                                  std::to_string(merges.size()) + " ways; this is no trained vocabulary");
    }
  }
  std::sort(merges.begin(), merges.end(), [](const ScoredMerge& a, const ScoredMerge& b) {
    return std::tuple(-a.score, a.left, a.right) < std::tuple(-b.score, b.left, b.right);
  });
  return merges;
}

bool has_byte_tokens(const SpmVocabulary& vocabulary) {
  return std::find(vocabulary.types.begin(), vocabulary.types.end(), TokenType::byte) != vocabulary.types.end();
}

Json bpe_model(const SpmVocabulary& vocabulary, const std::string& where) {
  Json::Array merges;
  for (const ScoredMerge& merge : scored_merges(vocabulary, where)) {
    const auto& left = vocabulary.tokens[static_cast<size_t>(merge.left)];
    const auto& right = vocabulary.tokens[static_cast<size_t>(merge.right)];
    merges.push_back(Json(Json::Array{Json(left), Json(right)}));
  }
  const Json unknown = vocabulary.unknown ? Json(vocabulary.tokens[static_cast<size_t>(*vocabulary.unknown)]) : Json();
  return typed_json("BPE", {{"dropout", nullptr},
                            {"unk_token", unknown},
                            {"continuing_subword_prefix", nullptr},
                            {"end_of_word_suffix", nullptr},
                            {"fuse_unk", true},
                            {"byte_fallback", has_byte_tokens(vocabulary)},
                            {"ignore_merges", false},
                            {"vocab", vocab_json(vocabulary.tokens)},
                            {"merges", std::move(merges)}});
}

Json unigram_model(const SpmVocabulary& vocabulary) {
  Json::Array vocab;
  for (size_t i = 0; i < vocabulary.tokens.size(); ++i) {
    vocab.push_back(Json(Json::Array{Json(vocabulary.tokens[i]), Json(vocabulary.scores[i])}));
  }
  return typed_json("Unigram", {{"unk_id", vocabulary.unknown ? Json(*vocabulary.unknown) : Json()},
                                {"vocab", std::move(vocab)},
                                {"byte_fallback", has_byte_tokens(vocabulary)}});
}

Json replace_json(std::string_view kind, std::string_view pattern, std::string_view content) {
  return typed_json("Replace",
                    {{"pattern", Json::object({{std::string(kind), Json(pattern)}})}, {"content", Json(content)}});
}

// What SentencePiece does to the text: its table, then the spaces.
Json::Array normalizer_steps(const SpmVocabulary& vocabulary) {
  Json::Array steps;
  if (!vocabulary.charsmap.empty()) {
    steps.push_back(typed_json("Precompiled", {{"precompiled_charsmap", Json(base64_encode(vocabulary.charsmap))}}));
  }
  if (vocabulary.remove_extra_spaces) {
    steps.push_back(typed_json("Strip", {{"strip_left", true}, {"strip_right", true}}));
    steps.push_back(replace_json("Regex", " {2,}", " "));
  }
  return steps;
}

Json bpe_normalizer(const SpmVocabulary& vocabulary) {
  Json::Array steps = normalizer_steps(vocabulary);
  if (vocabulary.add_space_prefix) steps.push_back(typed_json("Prepend", {{"prepend", Json(kSpaceMark)}}));
  steps.push_back(replace_json("String", " ", kSpaceMark));
  return typed_json("Sequence", {{"normalizers", std::move(steps)}});
}

Json bpe_decoder(const SpmVocabulary& vocabulary) {
  Json::Array steps = {replace_json("String", kSpaceMark, " "), typed_json("ByteFallback"), typed_json("Fuse")};
  if (vocabulary.add_space_prefix) {
    steps.push_back(typed_json("Strip", {{"content", " "}, {"start", 1}, {"stop", 0}}));
  }
  return typed_json("Sequence", {{"decoders", std::move(steps)}});
}

}  // namespace

TokenType to_token_type(int64_t number, const std::string& where) {
  if (number < 1 || number > 6) {
    fail(ErrorCode::format, where + ": token type " + std::to_string(number) + ", expected 1 to 6");
  }
  return static_cast<TokenType>(number);
}

Json typed_json(std::string_view type, Json::Object members) {
  members.insert(members.begin(), {"type", Json(type)});
  return Json(std::move(members));
}

Json vocab_json(const std::vector<std::string>& tokens) {
  std::unordered_map<std::string_view, size_t> last;
  for (size_t i = 0; i < tokens.size(); ++i) last[tokens[i]] = i;
  Json::Object vocab;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (last[tokens[i]] == i) vocab.emplace_back(tokens[i], Json(static_cast<int64_t>(i)));
  }
  return Json(std::move(vocab));
}

Json added_tokens_json(const std::vector<std::string>& tokens, const std::vector<TokenType>& types) {
  Json::Array added;
  std::unordered_set<std::string_view> seen;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const bool special = types[i] == TokenType::unknown || types[i] == TokenType::control;
    if (tokens[i].empty() || (!special && types[i] != TokenType::user_defined)) continue;
    if (!seen.insert(tokens[i]).second) continue;
    added.push_back(Json::object({{"id", Json(static_cast<int64_t>(i))},
                                  {"content", Json(tokens[i])},
                                  {"single_word", false},
                                  {"lstrip", false},
                                  {"rstrip", false},
                                  {"normalized", false},
                                  {"special", special}}));
  }
  return Json(std::move(added));
}

Json template_json(const std::vector<std::string>& tokens, std::optional<int64_t> front, std::optional<int64_t> back) {
  if (!front && !back) return Json();
  Json::Object special;
  const auto item = [](std::string_view kind, const Json& id, int type) {
    return Json::object({{std::string(kind), Json::object({{"id", id}, {"type_id", Json(type)}})}});
  };
  const auto add = [&](Json::Array& items, std::optional<int64_t> id, int type) {
    if (!id) return;
    const std::string& token = tokens[static_cast<size_t>(*id)];
    items.push_back(item("SpecialToken", Json(token), type));
    if (Json(special).find(token) != nullptr) return;
    special.emplace_back(token, Json::object({{"id", Json(token)},
                                              {"ids", Json(Json::Array{Json(*id)})},
                                              {"tokens", Json(Json::Array{Json(token)})}}));
  };
  Json::Array single, pair;
  add(single, front, 0);
  single.push_back(item("Sequence", "A", 0));
  add(single, back, 0);
  pair = single;
  add(pair, front, 1);
  pair.push_back(item("Sequence", "B", 1));
  add(pair, back, 1);
  return typed_json("TemplateProcessing",
                    {{"single", std::move(single)}, {"pair", std::move(pair)}, {"special_tokens", std::move(special)}});
}

Json tokenizer_json(Json added_tokens, Json normalizer, Json pre_tokenizer, Json post_processor, Json decoder,
                    Json model) {
  return Json::object({{"version", "1.0"},
                       {"truncation", nullptr},
                       {"padding", nullptr},
                       {"added_tokens", std::move(added_tokens)},
                       {"normalizer", std::move(normalizer)},
                       {"pre_tokenizer", std::move(pre_tokenizer)},
                       {"post_processor", std::move(post_processor)},
                       {"decoder", std::move(decoder)},
                       {"model", std::move(model)}});
}

Json tokenizer_json_from_spm(const SpmVocabulary& vocabulary, const std::string& where) {
  Json added = added_tokens_json(vocabulary.tokens, vocabulary.types);
  Json around = template_json(vocabulary.tokens, vocabulary.bos, vocabulary.eos);
  if (vocabulary.kind == SpmVocabulary::Kind::bpe) {
    return tokenizer_json(std::move(added), bpe_normalizer(vocabulary), Json(), std::move(around),
                          bpe_decoder(vocabulary), bpe_model(vocabulary, where));
  }
  const Json metaspace = typed_json("Metaspace", {{"replacement", Json(kSpaceMark)},
                                                  {"prepend_scheme", vocabulary.add_space_prefix ? "always" : "never"},
                                                  {"split", true}});
  Json::Array steps = normalizer_steps(vocabulary);
  Json normalizer = steps.empty() ? Json() : typed_json("Sequence", {{"normalizers", std::move(steps)}});
  return tokenizer_json(std::move(added), std::move(normalizer), metaspace, std::move(around), metaspace,
                        unigram_model(vocabulary));
}

}  // namespace nibble
