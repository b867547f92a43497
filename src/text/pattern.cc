#include "text/pattern.h"

#include "core/error.h"
#include "text/unicode.h"

namespace nibble {

Matcher match_literal(std::string literal) {
  return [literal = std::move(literal)](std::string_view text) {
    std::vector<Span> matches;
    for (size_t at = text.find(literal); at != text.npos; at = text.find(literal, at + literal.size())) {
      matches.push_back({at, at + literal.size()});
    }
    return matches;
  };
}

Matcher match_regex(const std::string& pattern, const std::string& where) {
  return [regex = Regex(pattern, where)](std::string_view text) { return regex.find_all(text); };
}

Matcher match_chars(std::function<bool(char32_t)> has_property) {
  return [has_property = std::move(has_property)](std::string_view text) {
    std::vector<Span> matches;
    for (size_t at = 0; at < text.size();) {
      const size_t begin = at;
      if (has_property(next_char(text, at))) matches.push_back({begin, at});
    }
    return matches;
  };
}

Matcher parse_pattern(const Json& json, const std::string& where) {
  if (const Json* literal = json.find("String")) {
    const std::string& text = literal->as_string(where + ".String");
    if (text.empty()) fail(ErrorCode::format, where + ".String: empty");
    return match_literal(text);
  }
  if (const Json* regex = json.find("Regex")) {
    return match_regex(regex->as_string(where + ".Regex"), where + ".Regex");
  }
  fail(ErrorCode::format, where + R"(: expected {"String": ...} or {"Regex": ...})");
}

std::string replace_all(std::string_view text, const Matcher& matcher, std::string_view replacement) {
  std::string out;
  size_t copied = 0;
  for (const Span& match : matcher(text)) {
    out.append(text.substr(copied, match.begin - copied)).append(replacement);
    copied = match.end;
  }
  return out.append(text.substr(copied));
}

}  // namespace nibble
