#pragma once
// First stage of a tokenizer: rewrites the text (Unicode normal forms, case, accents, spaces).
#include <functional>
#include <string>

#include "core/json.h"

namespace nibble {

/// Valid UTF-8 to valid UTF-8.
using Normalizer = std::function<std::string(std::string text)>;

/// The "normalizer" of tokenizer.json; null gives one that changes nothing.
Normalizer parse_normalizer(const Json& json, const std::string& where);

}  // namespace nibble
