// The two models without merges: WordPiece takes the longest token that begins the rest of the word (tokens inside a
// word carry a prefix, "##"); WordLevel knows whole words only.
#include <algorithm>

#include "core/limits.h"
#include "text/json_fields.h"
#include "text/prefix_index.h"
#include "text/token_model.h"
#include "text/unicode.h"

namespace nibble {
namespace {

struct WordPiece {
  PrefixIndex first, rest;  // tokens that begin a word; tokens inside a word, without their prefix
  int32_t unknown = 0;
  int64_t max_chars = 100;  // longer words are unknown
};

void encode_word_piece(const WordPiece& model, std::string_view word, std::vector<int32_t>& ids) {
  const size_t before = ids.size();
  const auto begins_char = [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; };
  bool known = std::count_if(word.begin(), word.end(), begins_char) <= model.max_chars;
  for (size_t at = 0; known && at < word.size();) {
    size_t longest = 0;
    int32_t id = 0;
    (at == 0 ? model.first : model.rest).for_each_at(word, at, [&](size_t length, int32_t value) {
      longest = length;
      id = value;
    });
    known = longest > 0;
    ids.push_back(id);
    at += longest;
  }
  if (known) return;
  ids.resize(before);
  ids.push_back(model.unknown);
}

}  // namespace

TokenModel parse_word_piece(const Json& json, const TokenLists& lists, const std::string& where) {
  auto piece = std::make_shared<WordPiece>();
  TokenModel model;
  model.vocabulary = vocabulary_of(lists, where);
  const std::string unknown = string_or(json, "unk_token", "[UNK]", where);
  const auto unknown_id = model.vocabulary->id(unknown);
  if (!unknown_id)
    fail(ErrorCode::format, where + ".unk_token: '" + printable(unknown, 100) + "' is not in the vocabulary");
  piece->unknown = *unknown_id;
  if (const Json* limit = json.find_value("max_input_chars_per_word")) {
    piece->max_chars = limit->as_int(where + ".max_input_chars_per_word");
  }
  const std::string prefix = string_or(json, "continuing_subword_prefix", "##", where);
  std::vector<PrefixIndex::Entry> first, rest;
  for (int32_t id = 0; id < model.vocabulary->end_id(); ++id) {
    const std::optional<std::string_view> token = model.vocabulary->token(id);
    if (!token) continue;
    first.emplace_back(*token, id);
    if (token->starts_with(prefix)) rest.emplace_back(token->substr(prefix.size()), id);
  }
  piece->first = PrefixIndex(std::move(first));
  piece->rest = PrefixIndex(std::move(rest));
  model.encode = [piece](std::string_view word, std::vector<int32_t>& ids) { encode_word_piece(*piece, word, ids); };
  return model;
}

TokenModel parse_word_level(const Json& json, const TokenLists& lists, const std::string& where) {
  TokenModel model;
  model.vocabulary = vocabulary_of(lists, where);
  const auto unknown = model.vocabulary->id(string_or(json, "unk_token", "<unk>", where));
  model.encode = [vocabulary = model.vocabulary, unknown](std::string_view word, std::vector<int32_t>& ids) {
    const auto id = vocabulary->id(word);
    if (!id && !unknown) fail_unknown_word(word);
    ids.push_back(id ? *id : *unknown);
  };
  return model;
}

}  // namespace nibble
