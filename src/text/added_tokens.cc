#include "text/added_tokens.h"

#include <algorithm>

#include "core/limits.h"
#include "text/json_fields.h"
#include "text/unicode.h"

namespace nibble {
namespace {

// The beginning of the character that ends at `end` of valid UTF-8.
size_t char_before(std::string_view text, size_t end) {
  do {
    --end;
  } while ((static_cast<unsigned char>(text[end]) & 0xc0) == 0x80);
  return end;
}

bool word_ends_at(std::string_view text, size_t end) {
  if (end == 0) return false;
  size_t at = char_before(text, end);
  return is_word(next_char(text, at));
}

bool word_begins_at(std::string_view text, size_t begin) {
  return begin < text.size() && is_word(next_char(text, begin));
}

// The beginning of the white space that ends at `end`, but not before `lower_bound`.
size_t skip_spaces_back(std::string_view text, size_t end, size_t lower_bound) {
  while (end > lower_bound) {
    const size_t begin = char_before(text, end);
    size_t at = begin;
    if (!is_whitespace(next_char(text, at))) break;
    end = begin;
  }
  return end;
}

size_t skip_spaces(std::string_view text, size_t begin) {
  for (size_t at = begin; at < text.size(); begin = at) {
    if (!is_whitespace(next_char(text, at))) break;
  }
  return begin;
}

}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens, const Normalizer& normalizer) : tokens_(std::move(tokens)) {
  std::vector<PrefixIndex::Entry> raw, normalized;
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const AddedToken& token = tokens_[i];
    by_id_[token.id] = i;
    by_content_[token.content] = i;
    const std::string key = token.normalized ? normalizer(token.content) : token.content;
    (token.normalized ? normalized : raw).emplace_back(key, static_cast<int32_t>(i));
  }
  raw_ = PrefixIndex(std::move(raw));
  normalized_ = PrefixIndex(std::move(normalized));
}

const AddedToken* AddedTokens::find(int32_t id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : &tokens_[found->second];
}

const AddedToken* AddedTokens::find(std::string_view content) const {
  const auto found = by_content_.find(std::string(content));
  return found == by_content_.end() ? nullptr : &tokens_[found->second];
}

std::vector<Segment> AddedTokens::split(std::string_view text, const PrefixIndex& index) const {
  std::vector<Segment> segments;
  size_t done = 0;  // everything before belongs to a segment
  for (size_t at = 0; at < text.size();) {
    size_t length = 0;
    int32_t found = 0;
    index.for_each_at(text, at, [&](size_t key_length, int32_t value) {
      length = key_length;
      found = value;
    });
    if (length == 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<size_t>(found)];
    size_t begin = at, end = at + length;
    at = end;
    if (token.single_word && (word_ends_at(text, begin) || word_begins_at(text, end))) continue;
    if (token.lstrip) begin = std::max(skip_spaces_back(text, begin, done), done);
    if (token.rstrip) end = skip_spaces(text, end);
    if (begin >= end) continue;  // all of it is white space that the token before has taken
    if (begin > done) segments.push_back({text.substr(done, begin - done), std::nullopt});
    // Without lstrip a token in the spaces that the one before has taken counts all the same.
    segments.push_back({text.substr(begin, end - begin), token.id});
    done = end;
  }
  if (done < text.size()) segments.push_back({text.substr(done), std::nullopt});
  return segments;
}

AddedToken parse_added_token(const Json& json, int64_t id, const std::string& where) {
  AddedToken token;
  token.content = required_string(json, "content", where);
  if (id < 0 || id >= limits::kMaxVocabulary) {
    fail(ErrorCode::format,
         where + ": id " + std::to_string(id) + ", expected 0 to " + std::to_string(limits::kMaxVocabulary - 1));
  }
  token.id = static_cast<int32_t>(id);
  token.single_word = bool_or(json, "single_word", false, where);
  token.lstrip = bool_or(json, "lstrip", false, where);
  token.rstrip = bool_or(json, "rstrip", false, where);
  token.special = bool_or(json, "special", false, where);
  token.normalized = bool_or(json, "normalized", !token.special, where);
  return token;
}

std::vector<AddedToken> parse_added_tokens(const Json& json, const std::string& where) {
  std::vector<AddedToken> tokens;
  for (const Json& item : json.as_array(where)) {
    const std::string place = where + "[" + std::to_string(tokens.size()) + "]";
    tokens.push_back(parse_added_token(item, required(item, "id", place).as_int(place + ".id"), place));
  }
  return tokens;
}

}  // namespace nibble
