#include "text/pre_tokenizers.h"

#include "text/byte_level.h"
#include "text/json_fields.h"
#include "text/pattern.h"
#include "text/unicode.h"

namespace nibble {
namespace {

using ParsePreTokenizer = PreTokenizer (*)(const Json&, const std::string& where);

// What becomes of the matches when a text is cut at them.
enum class Behavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };
constexpr TypeRow<Behavior> kBehaviors[] = {{"Removed", Behavior::removed},
                                            {"Isolated", Behavior::isolated},
                                            {"MergedWithPrevious", Behavior::merged_with_previous},
                                            {"MergedWithNext", Behavior::merged_with_next},
                                            {"Contiguous", Behavior::contiguous}};

struct Part {
  Span span;
  bool is_match;
};

std::vector<Part> parts_of(std::string_view text, const Matcher& matcher) {
  std::vector<Part> parts;
  size_t at = 0;
  for (const Span& match : matcher(text)) {
    if (match.begin > at) parts.push_back({{at, match.begin}, false});
    parts.push_back({match, true});
    at = match.end;
  }
  if (at < text.size()) parts.push_back({{at, text.size()}, false});
  return parts;
}

// Whether `part` grows the word that the part before it ended.
bool joins(const Part& before, const Part& part, Behavior behavior) {
  switch (behavior) {
    case Behavior::merged_with_previous: return part.is_match && !before.is_match;
    case Behavior::merged_with_next: return before.is_match && !part.is_match;
    case Behavior::contiguous: return part.is_match == before.is_match;
    default: return false;
  }
}

void split(std::vector<Piece>& pieces, const Matcher& matcher, Behavior behavior, bool invert) {
  std::vector<Piece> words;
  for (const Piece& piece : pieces) {
    const std::string_view text = piece.text;
    Span word{0, 0};
    const auto flush = [&] {
      const bool at_start = piece.at_start && word.begin == 0;
      if (word.end > word.begin)
        words.push_back({std::string(text.substr(word.begin, word.end - word.begin)), at_start});
    };
    Part before{{0, 0}, false};
    bool first = true;
    for (Part part : parts_of(text, matcher)) {
      part.is_match = part.is_match != invert;
      const bool removed = behavior == Behavior::removed && part.is_match;
      const bool joined = !first && joins(before, part, behavior);
      if (!joined) {
        flush();
        word.begin = removed ? part.span.end : part.span.begin;
      }
      word.end = part.span.end;
      before = part;
      first = false;
    }
    flush();
  }
  pieces = std::move(words);
}

PreTokenizer splitter(Matcher matcher, Behavior behavior, bool invert = false) {
  return [=](std::vector<Piece>& pieces) { split(pieces, matcher, behavior, invert); };
}

PreTokenizer parse_split(const Json& json, const std::string& where) {
  const std::string behavior = required_string(json, "behavior", where);
  return splitter(parse_pattern(required(json, "pattern", where), where + ".pattern"),
                  find_type(kBehaviors, behavior, where + ".behavior"), bool_or(json, "invert", false, where));
}

PreTokenizer parse_byte_level(const Json& json, const std::string& where) {
  const bool add_prefix_space = bool_or(json, "add_prefix_space", true, where);
  const bool use_regex = bool_or(json, "use_regex", true, where);
  const Matcher words = match_regex(kGpt2Pattern, where);
  return [=](std::vector<Piece>& pieces) {
    for (Piece& piece : pieces) {
      if (add_prefix_space && piece.text.front() != ' ') piece.text.insert(0, " ");
    }
    if (use_regex) split(pieces, words, Behavior::isolated, false);
    for (Piece& piece : pieces) piece.text = bytes_to_chars(piece.text);
  };
}

PreTokenizer parse_digits(const Json& json, const std::string& where) {
  const bool individual = bool_or(json, "individual_digits", false, where);
  return splitter(match_chars(is_numeric), individual ? Behavior::isolated : Behavior::contiguous);
}

// Rust's \w, which has the joiners too; Oniguruma's has not.
PreTokenizer parse_whitespace(const Json&, const std::string& where) {
  return splitter(match_regex(R"([\w\x{200C}\x{200D}]+|[^\w\s\x{200C}\x{200D}]+)", where), Behavior::removed, true);
}

PreTokenizer parse_whitespace_split(const Json&, const std::string&) {
  return splitter(match_chars(is_whitespace), Behavior::removed);
}

PreTokenizer parse_punctuation(const Json& json, const std::string& where) {
  const std::string behavior = string_or(json, "behavior", "Isolated", where);
  return splitter(match_chars(is_punctuation), find_type(kBehaviors, behavior, where + ".behavior"));
}

PreTokenizer parse_bert(const Json&, const std::string&) {
  const Matcher spaces = match_chars(is_whitespace);
  const Matcher punctuation = match_chars(is_punctuation);
  return [=](std::vector<Piece>& pieces) {
    split(pieces, spaces, Behavior::removed, false);
    split(pieces, punctuation, Behavior::isolated, false);
  };
}

// "prepend_scheme" replaced the boolean "add_prefix_space" of older files.
std::string prepend_scheme(const Json& json, const std::string& where) {
  const std::string old = bool_or(json, "add_prefix_space", true, where) ? "always" : "never";
  const std::string scheme = string_or(json, "prepend_scheme", old, where);
  if (scheme != "always" && scheme != "first" && scheme != "never") {
    fail(ErrorCode::format,
         where + ".prepend_scheme: found '" + printable(scheme, 100) + "', expected always, first or never");
  }
  return scheme;
}

PreTokenizer parse_metaspace(const Json& json, const std::string& where) {
  const std::string mark = string_or(json, "replacement", "\u2581", where);
  if (mark.empty()) fail(ErrorCode::format, where + ".replacement: empty");
  const std::string scheme = prepend_scheme(json, where);
  const bool cut = bool_or(json, "split", true, where);
  const Matcher space = match_literal(" ");
  const Matcher marks = match_literal(mark);
  return [=](std::vector<Piece>& pieces) {
    for (Piece& piece : pieces) {
      piece.text = replace_all(piece.text, space, mark);
      const bool wanted = scheme == "always" || (scheme == "first" && piece.at_start);
      if (wanted && !piece.text.starts_with(mark)) piece.text.insert(0, mark);
    }
    if (cut) split(pieces, marks, Behavior::merged_with_next, false);
  };
}

PreTokenizer parse_delimiter(const Json& json, const std::string& where) {
  const std::string delimiter = required_string(json, "delimiter", where);
  if (delimiter.empty()) fail(ErrorCode::format, where + ".delimiter: empty");
  return splitter(match_literal(delimiter), Behavior::removed);
}

PreTokenizer parse_sequence(const Json& json, const std::string& where) {
  std::vector<PreTokenizer> steps;
  for (const Json& step : required(json, "pretokenizers", where).as_array(where + ".pretokenizers")) {
    steps.push_back(parse_pre_tokenizer(step, where + ".pretokenizers[" + std::to_string(steps.size()) + "]"));
  }
  return [steps](std::vector<Piece>& pieces) {
    for (const PreTokenizer& step : steps) step(pieces);
  };
}

constexpr TypeRow<ParsePreTokenizer> kTypes[] = {
    {"ByteLevel", parse_byte_level},
    {"Split", parse_split},
    {"Digits", parse_digits},
    {"Whitespace", parse_whitespace},
    {"WhitespaceSplit", parse_whitespace_split},
    {"BertPreTokenizer", parse_bert},
    {"Punctuation", parse_punctuation},
    {"Metaspace", parse_metaspace},
    {"CharDelimiterSplit", parse_delimiter},
    {"Sequence", parse_sequence},
};

}  // namespace

PreTokenizer parse_pre_tokenizer(const Json& json, const std::string& where) {
  if (json.is_null()) return [](std::vector<Piece>&) {};
  return find_type(kTypes, required_string(json, "type", where), where)(json, where);
}

}  // namespace nibble
