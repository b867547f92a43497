#include "text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <utility>

#include "core/error.h"
#include "text/unicode.h"

namespace nibble {
namespace {

constexpr size_t kMaxPatternBytes = 64u << 10;
constexpr uint32_t kMaxGroupDepth = 64;
constexpr uint32_t kMatchSteps = 10'000'000;  // `\s+(?!\S)` needs one step per space of a run
constexpr uint32_t kMatchDepth = 1'000'000;
constexpr uint32_t kHeapKib = 64u << 10;

struct ContextDeleter {
  void operator()(pcre2_compile_context* context) const { pcre2_compile_context_free(context); }
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
};
template <class T>
using Handle = std::unique_ptr<T, ContextDeleter>;

// Members of Oniguruma's classes, to stand inside [ ]. PCRE2's \s and [:space:] have U+180E too, its \w lacks marks and
// connectors but has the numbers of category No, its [:punct:] lacks symbols; Ruby's \h is a hexadecimal digit. Found
// by comparing both engines on every character.
struct CharClass {
  std::string_view name;
  std::string_view members;
  std::string_view alone = {};  // more members where it does not stand inside [ ]
};
#define NIBBLE_WORD R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})"
#define NIBBLE_LATIN1_WORD R"(\x{B2}\x{B3}\x{B9}\x{BC}-\x{BE})"
#define NIBBLE_ONE_WORD_CHAR "[" NIBBLE_WORD NIBBLE_LATIN1_WORD "]"
constexpr const char* kWordBoundary = "(?:(?<=" NIBBLE_ONE_WORD_CHAR ")(?!" NIBBLE_ONE_WORD_CHAR
                                      ")|(?<!" NIBBLE_ONE_WORD_CHAR ")(?=" NIBBLE_ONE_WORD_CHAR "))";
constexpr const char* kNoWordBoundary = "(?:(?<=" NIBBLE_ONE_WORD_CHAR ")(?=" NIBBLE_ONE_WORD_CHAR
                                        ")|(?<!" NIBBLE_ONE_WORD_CHAR ")(?!" NIBBLE_ONE_WORD_CHAR "))";
constexpr CharClass kEscapes[] = {
    {"s", R"(\t-\r\x{85}\p{Z})"},
    {"w", NIBBLE_WORD, NIBBLE_LATIN1_WORD},
    {"h", "0-9a-fA-F"},
};
constexpr CharClass kPosixClasses[] = {
    {"[:alpha:]", R"(\p{Alphabetic})"}, {"[:alnum:]", R"(\p{Alphabetic}\p{Nd})"}, {"[:upper:]", R"(\p{Uppercase})"},
    {"[:lower:]", R"(\p{Lowercase})"},  {"[:punct:]", R"(\p{P}\p{S})"},           {"[:space:]", R"(\t-\r\x{85}\p{Z})"},
    {"[:word:]", NIBBLE_WORD},
};
// Characters of a script; PCRE2 would add those that the script shares with others.
constexpr std::string_view kScripts[] = {"Arabic", "Bengali",  "Cyrillic", "Devanagari", "Greek", "Han",    "Hangul",
                                         "Hebrew", "Hiragana", "Katakana", "Latin",      "Tamil", "Telugu", "Thai"};

// Rewrites the escape sequence whose backslash stands at `at`; `in_class` tells whether it stands inside [ ].
void append_escape(std::string& out, const std::string& pattern, size_t& at, bool in_class) {
  const char letter = pattern[at + 1];
  at += 2;
  if ((letter == 'b' || letter == 'B') && !in_class) {
    out += letter == 'b' ? kWordBoundary : kNoWordBoundary;
    return;
  }
  for (const CharClass& escape : kEscapes) {
    const bool negated = letter == escape.name[0] - ('a' - 'A');
    if (letter != escape.name[0] && (!negated || in_class)) continue;
    if (in_class) {
      out += escape.members;
    } else {
      out.append(negated ? "[^" : "[").append(escape.members).append(escape.alone).append("]");
    }
    return;
  }
  out += '\\';
  out += letter;
  if (letter != 'p' && letter != 'P') return;
  for (const std::string_view script : kScripts) {
    if (pattern.compare(at, script.size() + 2, "{" + std::string(script) + "}") != 0) continue;
    out.append("{sc:").append(script).append("}");
    at += script.size() + 2;
    return;
  }
}

// Rewrites the [:name:] that begins at `at`.
void append_posix_class(std::string& out, const std::string& pattern, size_t& at, const std::string& where) {
  const size_t end = pattern.find(":]", at);
  if (end == std::string::npos) fail(ErrorCode::format, where + ": an unfinished [: in " + printable(pattern, 300));
  const std::string_view name = std::string_view(pattern).substr(at, end + 2 - at);
  at = end + 2;
  for (const CharClass& known : kPosixClasses) {
    if (known.name == name) {
      out += known.members;
      return;
    }
  }
  out += name;
}

// Copies the character class that begins at `at`. Classes nested in it are unions, which PCRE2 writes flat.
void append_class(std::string& out, const std::string& pattern, size_t& at, const std::string& where) {
  const auto refuse = [&](const char* what) {
    fail(ErrorCode::unsupported, where + ": the pattern has " + what + ": " + printable(pattern, 300));
  };
  int depth = 0;
  bool first = false;  // a ] in front stands for itself
  do {
    const char c = pattern[at];
    const char next = at + 1 < pattern.size() ? pattern[at + 1] : '\0';
    const bool was_first = std::exchange(first, false);
    if (c == '\\' && next != '\0') {
      append_escape(out, pattern, at, true);
      continue;
    }
    if (c == '[' && depth > 0 && next == ':') {
      append_posix_class(out, pattern, at, where);
      continue;
    }
    ++at;
    if (c == '[') {
      if (depth > 0 && next == '^') refuse("a negated character class inside another one");
      if (depth++ == 0) out += c;
      first = depth == 1;
      if (first && next == '^') out += pattern[at++];
    } else if (c == ']' && !was_first) {
      if (--depth == 0) out += c;
    } else {
      if (c == '&' && next == '&') refuse("an intersection of character classes (&&)");
      out += c == ']' ? "\\]" : std::string(1, c);
    }
  } while (depth > 0 && at < pattern.size());
}

}  // namespace

std::string to_pcre2(const std::string& pattern, const std::string& where) {
  std::string out;
  for (size_t at = 0; at < pattern.size();) {
    if (pattern[at] == '[') {
      append_class(out, pattern, at, where);
    } else if (pattern[at] == '\\' && at + 1 < pattern.size()) {
      append_escape(out, pattern, at, false);
    } else {
      out += pattern[at++];
    }
  }
  return out;
}

struct Regex::Program {
  Handle<pcre2_code> code;
  Handle<pcre2_match_context> limits;
};

Regex::Regex(const std::string& pattern, const std::string& where) {
  if (pattern.size() > kMaxPatternBytes) {
    fail(ErrorCode::format, where + ": the pattern has " + std::to_string(pattern.size()) + " bytes, at most " +
                                std::to_string(kMaxPatternBytes) + " are allowed");
  }
  const std::string translated = to_pcre2(pattern, where);
  const Handle<pcre2_compile_context> context(pcre2_compile_context_create(nullptr));
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  pcre2_set_parens_nest_limit(context.get(), kMaxGroupDepth);
  // Multi-line as in Ruby: ^ and $ match at line breaks.
  const uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
  int error = 0;
  PCRE2_SIZE offset = 0;
  auto program = std::make_shared<Program>();
  program->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(), options, &error,
                                    &offset, context.get()));
  if (program->code == nullptr) {
    PCRE2_UCHAR message[256] = {};
    pcre2_get_error_message(error, message, sizeof(message));
    fail(ErrorCode::format, where + ": not a valid pattern: " + reinterpret_cast<const char*>(message) + " at offset " +
                                std::to_string(offset) + " of " + printable(translated, 300));
  }
  pcre2_jit_compile(program->code.get(), PCRE2_JIT_COMPLETE);  // without JIT the interpreter does the work
  program->limits.reset(pcre2_match_context_create(nullptr));
  pcre2_set_match_limit(program->limits.get(), kMatchSteps);
  pcre2_set_depth_limit(program->limits.get(), kMatchDepth);
  pcre2_set_heap_limit(program->limits.get(), kHeapKib);
  program_ = std::move(program);
}

std::vector<Span> Regex::find_all(std::string_view text) const {
  const Handle<pcre2_match_data> data(pcre2_match_data_create(1, nullptr));
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  const PCRE2_SIZE* found = pcre2_get_ovector_pointer(data.get());
  std::vector<Span> matches;
  for (size_t from = 0; from <= text.size();) {
    const auto match = [&](uint32_t options) {
      return pcre2_match(program_->code.get(), subject, text.size(), from, options | PCRE2_NO_UTF_CHECK, data.get(),
                         program_->limits.get());
    };
    int result = match(0);
    if (result == PCRE2_ERROR_JIT_STACKLIMIT) result = match(PCRE2_NO_JIT);
    if (result == PCRE2_ERROR_NOMATCH) break;
    if (result < 0) {
      PCRE2_UCHAR message[256] = {};
      pcre2_get_error_message(result, message, sizeof(message));
      fail(ErrorCode::resources, std::string("the tokenizer's pattern is too expensive for this text: ") +
                                     reinterpret_cast<const char*>(message));
    }
    const Span span{found[0], found[1]};
    const bool empty = span.end == span.begin;
    if (!empty || matches.empty() || matches.back().end != span.begin) matches.push_back(span);
    from = span.end;
    if (empty) from += span.end < text.size() ? char_bytes(text[span.end]) : 1;
  }
  return matches;
}

}  // namespace nibble
