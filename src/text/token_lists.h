#pragma once
// The long lists of a tokenizer's model, of which nothing is copied.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "core/json_text.h"

namespace nibble {

struct TokenEntry {
  std::string_view text;
  int64_t id;
  double score = 0;  // of Unigram's
};

struct MergePair {
  std::string_view left, right;
};

/// As long as what they were read from.
struct TokenLists {
  std::optional<std::vector<TokenEntry>> vocab;
  bool has_scores = false;  // "vocab" is a list of [token, score], and ids are places in it
  std::optional<std::vector<MergePair>> merges;
};

/// The members of a model that are in its lists.
inline constexpr std::string_view kTokenListKeys[] = {"vocab", "merges"};

/// Of the "model" of tokenizer.json, whose place `where` says for messages.
/// @throws Error{format}
TokenLists token_lists(const Json& model, const std::string& where);
TokenLists token_lists(JsonText::Value model, const std::string& where);

}  // namespace nibble
