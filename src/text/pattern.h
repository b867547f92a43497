#pragma once
// What a tokenizer file calls a pattern, {"String": "..."} or {"Regex": "..."}, and what is done with its matches.
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "text/regex.h"

namespace nibble {

/// Finds all matches in valid UTF-8: sorted, without overlap.
using Matcher = std::function<std::vector<Span>(std::string_view text)>;

Matcher parse_pattern(const Json& json, const std::string& where);
Matcher match_literal(std::string literal);
Matcher match_regex(const std::string& pattern, const std::string& where);
/// Every character with a property is one match.
Matcher match_chars(std::function<bool(char32_t)> has_property);

std::string replace_all(std::string_view text, const Matcher& matcher, std::string_view replacement);

}  // namespace nibble
