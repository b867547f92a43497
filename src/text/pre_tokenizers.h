#pragma once
// Second stage of a tokenizer: cuts the text into the words that the model then encodes one by one.
#include <functional>
#include <string>
#include <vector>

#include "core/json.h"

namespace nibble {

struct Piece {
  std::string text;  // valid UTF-8, never empty
  bool at_start;     // begins where the whole input begins
};

/// Cuts (and rewrites) all pieces in place.
using PreTokenizer = std::function<void(std::vector<Piece>& pieces)>;

/// The "pre_tokenizer" of tokenizer.json; null gives one that changes nothing.
PreTokenizer parse_pre_tokenizer(const Json& json, const std::string& where);

}  // namespace nibble
