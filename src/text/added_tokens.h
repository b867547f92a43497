#pragma once
// Tokens that are looked for in the text before anything else happens to it: "<|im_start|>", "[MASK]", ...
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/json.h"
#include "text/normalizers.h"
#include "text/prefix_index.h"

namespace nibble {

struct AddedToken {
  std::string content;
  int32_t id = 0;
  bool single_word = false;  // not inside a word
  bool lstrip = false;       // takes the white space in front with it
  bool rstrip = false;       // and behind
  bool normalized = true;    // looked for in the normalized text
  bool special = false;
};

/// A part of a text: an added token, or ordinary text between two.
struct Segment {
  std::string_view text;
  std::optional<int32_t> id;
};

class AddedTokens {
 public:
  AddedTokens() = default;
  AddedTokens(std::vector<AddedToken> tokens, const Normalizer& normalizer);

  /// Cuts out the tokens that are looked for in the text as given, or in the normalized text. Of the tokens at one
  /// place the longest counts.
  std::vector<Segment> split_raw(std::string_view text) const { return split(text, raw_); }
  std::vector<Segment> split_normalized(std::string_view text) const { return split(text, normalized_); }

  const AddedToken* find(int32_t id) const;
  const AddedToken* find(std::string_view content) const;
  const std::vector<AddedToken>& all() const { return tokens_; }

 private:
  std::vector<Segment> split(std::string_view text, const PrefixIndex& index) const;

  std::vector<AddedToken> tokens_;
  std::unordered_map<int32_t, size_t> by_id_;
  std::unordered_map<std::string, size_t> by_content_;
  PrefixIndex raw_, normalized_;  // values: indices of tokens_
};

/// The "added_tokens" of tokenizer.json. @throws Error{format} for an id outside [0, limits::kMaxVocabulary).
std::vector<AddedToken> parse_added_tokens(const Json& json, const std::string& where);
/// One token; `id` where the object itself has none.
AddedToken parse_added_token(const Json& json, int64_t id, const std::string& where);

}  // namespace nibble
